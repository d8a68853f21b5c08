//! Which screen a model gets, that every rule's features are those of the dense scan whatever the
//! screen, and how many rows a screen leaves to be computed exactly.

mod library;
mod publishers;
mod synth;
mod tiny;
mod zip_file;

use library::rows;
use publishers::case;
use sae::bytes::Bytes;
use sae::kernels::screen::ScreenKernels;
use sae::model::{ScreenKind, ScreenOptions};
use sae::screen::Screen;
use sae::{Error, Features, Level, OpenOptions, Sae, Scratch};
use std::sync::LazyLock;
use tiny::{filled, safetensors};

fn encode(sae: &Sae<'_>, values: &[f32]) -> Result<Features, Error> {
    let mut features = Features::new();
    let mut scratch = Scratch::new(sae)?;
    sae.encode(rows(values, sae.d_in()), &mut scratch, &mut features)?;
    Ok(features)
}

fn checked(kind: ScreenKind) -> ScreenOptions {
    let mut options = ScreenOptions::from(kind);
    options.check = true;
    options
}

/// 512 x 4096, some 40 features firing.
static SYNTH: LazyLock<synth::Synth> = LazyLock::new(|| synth::make(512, 4096, 40, 48));

/// The file of the synthetic model; with biases, a ReLU model.
fn file(synth: &synth::Synth, bias: Option<&[f32]>) -> (Vec<u8>, String) {
    let (d_in, d_sae) = (synth.d_in, synth.d_sae);
    let mut columns = vec![0.0; d_in * d_sae];
    for (feature, row) in synth.w_enc.chunks_exact(d_in).enumerate() {
        for (column, value) in row.iter().enumerate() {
            columns[column * d_sae + feature] = *value;
        }
    }
    let zeros = vec![0.0; d_sae];
    let mut tensors = vec![
        filled("W_enc", &[d_in, d_sae], columns),
        filled("W_dec", &[d_sae, d_in], synth.w_dec.clone()),
        filled("b_enc", &[d_sae], bias.unwrap_or(&zeros).to_vec()),
        filled("b_dec", &[d_in], synth.b_dec.clone()),
    ];
    let architecture = match bias {
        Some(_) => "standard",
        None => {
            let threshold = synth.threshold.clone();
            tensors.push(filled("threshold", &[d_sae], threshold));
            "jumprelu"
        }
    };
    let config = format!(
        r#"{{"architecture": "{architecture}", "d_in": {d_in}, "d_sae": {d_sae},
            "dtype": "float32", "apply_b_dec_to_input": true, "normalize_activations": "none",
            "metadata": {{"hook_name": "blocks.1.hook_resid_post"}}}}"#
    );
    (safetensors(&tensors), config)
}

fn open(bytes: &[u8], config: &str, options: &OpenOptions) -> Sae<'static> {
    // Tests are short-lived: the file outlives its model.
    let bytes: &'static [u8] = Box::leak(bytes.to_vec().into_boxed_slice());
    Sae::from_bytes("sae_weights.safetensors", bytes, Some(config), options).unwrap()
}

/// Prepared inputs of a model that only centres.
fn inputs(sae: &Sae<'_>, values: &[f32]) -> Vec<Vec<f32>> {
    let centre = sae.parts().center.clone().unwrap_or(vec![0.0; sae.d_in()]);
    let narrow = |row: &[f32]| {
        let centred = row.iter().zip(&centre);
        centred.map(|(x, c)| (f64::from(*x) - c) as f32).collect()
    };
    values.chunks_exact(sae.d_in()).map(narrow).collect()
}

/// Mean numbers of features that survive the screen, and that fire.
fn survivors(sae: &Sae<'_>, values: &[f32]) -> (f64, f64) {
    let features = encode(sae, values).unwrap();
    let screen = sae.screen().expect("a screen");
    let kernels = ScreenKernels::for_level(Level::best());
    let mut work = vec![0.0; screen.work_len()];
    let inputs = inputs(sae, values);
    let ranked = sae.description().activation.contains("top");
    let mut survivors = 0;
    for (row, input) in inputs.iter().enumerate() {
        let bounds = screen.bounds(kernels, input, ranked, &mut work).unwrap();
        survivors += match ranked {
            false => bounds.kept().count(),
            true => {
                // What can reach the lowest value found.
                let values = features.row(row).unwrap().values;
                let least = values.iter().copied().fold(f32::INFINITY, f32::min);
                let reaches = |feature: &usize| {
                    let first = bounds.upper()[*feature];
                    let closer = bounds.refined_upper(screen, kernels, *feature);
                    !(first < least || closer < least)
                };
                (0..sae.d_sae()).filter(reaches).count()
            }
        };
    }
    let n = inputs.len() as f64;
    (survivors as f64 / n, features.len() as f64 / n)
}

#[test]
fn trained_models_and_models_like_them_have_a_screen() {
    let (bytes, config) = file(&SYNTH, None);
    let mut found = Vec::new();
    for kind in [ScreenKind::Auto, ScreenKind::Dithered] {
        let options = OpenOptions::default().screen(kind);
        let sae = open(&bytes, &config, &options).prepare().unwrap();
        found.push(("synthetic", sae, SYNTH.rows.clone()));
        for name in ["minilm/batchtopk_f32", "minilm/topk_bf16"] {
            let case = case::case(name);
            let sae = Sae::open(&case.checkpoint, &options).unwrap();
            found.push((name, sae.prepare().unwrap(), case.rows));
        }
    }
    for (name, sae, rows) in found {
        let info = &sae.description().screen;
        assert_ne!(info.kind, "none", "{name}: {}", info.why);
        let (survive, fire) = survivors(&sae, &rows[..48 * sae.d_in()]);
        let kind = info.kind;
        println!(
            "{name}, {kind}: {survive:.1} survive, {fire:.1} fire; {}",
            info.text()
        );
        assert!(
            survive < 8.0 * fire,
            "{name}, {kind}: {survive} survive, {fire} fire"
        );
        // What a pack grows by.
        let encoder = (sae.d_in() * sae.d_sae() * 4) as f64;
        let share = info.bytes_held as f64 / encoder;
        // The basis costs d_in^2 / 2 bytes; at 512 x 4096 that alone is 0.016 of the encoder.
        assert!(
            share <= 0.30,
            "{name}, {kind}: {share} of the encoder in f32"
        );
        assert_eq!(sae.screen().unwrap().bytes_held() as u64, info.bytes_held);
        sae.check_screen().unwrap();
    }
}

#[test]
fn every_rule_gives_the_features_of_the_dense_scan() {
    let mut kinds = std::collections::BTreeMap::new();
    for case in case::cases() {
        for kind in [ScreenKind::Auto, ScreenKind::Proven, ScreenKind::Dithered] {
            let options = library::options(&case.given, Level::best()).screen(checked(kind));
            // Torch files without the feature, and what the library refuses: tested elsewhere.
            let Ok(sae) = Sae::open(&case.checkpoint, &options) else {
                continue;
            };
            let plain = encode(&sae, &case.rows).unwrap();
            let sae = sae.prepare().unwrap();
            let info = sae.description().screen.clone();
            // `check` compares inside; this compares with the model as it was.
            let found = encode(&sae, &case.rows).unwrap_or_else(|e| panic!("{}: {e}", case.name));
            assert_eq!(found, plain, "{} {kind:?}", case.name);
            match sae.screen() {
                None => assert!(!info.why.is_empty(), "{}", case.name),
                Some(_) => *kinds.entry(info.kind).or_insert(0) += 1,
            }
            if kind == ScreenKind::Proven && sae.members().is_empty() {
                let rule = &sae.description().activation;
                let dense = ["group", "leaky", "top-AFA", "glu", "distance", "norm"];
                let states = dense.iter().any(|word| rule.contains(word));
                let blocks = sae.description().encoder.layout == "blocks";
                assert!(
                    sae.screen().is_some() || states || blocks,
                    "{}: {rule}: {}",
                    case.name,
                    info.why
                );
            }
        }
    }
    println!("{kinds:?}");
    assert!(kinds["proven"] > 50 && kinds["dithered"] > 50, "{kinds:?}");
}

#[test]
fn a_relu_model_is_chosen_for_by_what_fires() {
    let synth = &*SYNTH;
    // Biases that let a share of the features fire in the model's own rows.
    let pre: Vec<Vec<f64>> = synth
        .w_enc
        .chunks_exact(synth.d_in)
        .map(|w| {
            let mut pre: Vec<f64> = synth
                .rows
                .chunks_exact(synth.d_in)
                .map(|x| {
                    let x = x.iter().zip(&synth.b_dec).map(|(x, b)| f64::from(x - b));
                    x.zip(w).map(|(x, &w)| x * f64::from(w)).sum()
                })
                .collect();
            pre.sort_by(f64::total_cmp);
            pre
        })
        .collect();
    let cost = |why: &str| -> f64 {
        let share = why.split(['%', ' ']).nth(1).unwrap_or("100");
        share.parse::<f64>().unwrap_or(100.0)
    };
    for (share, pays) in [(1.0 / 6.0, true), (0.99, false)] {
        let bias: Vec<f32> = pre
            .iter()
            .map(|pre| -pre[((1.0 - share) * (pre.len() - 1) as f64) as usize] as f32)
            .collect();
        let (bytes, config) = file(synth, Some(&bias));
        let sae = open(
            &bytes,
            &config,
            &OpenOptions::default().screen(checked(ScreenKind::Auto)),
        );
        let expected = encode(&sae, &synth.rows).unwrap();
        let sae = sae.prepare_with(rows(&synth.rows, synth.d_in)).unwrap();
        let info = sae.description().screen.clone();
        println!("{share}: {}", info.text());
        assert_eq!(info.kind != "none", pays, "{share}: {}", info.why);
        if pays {
            assert!(info.why.contains("measured on 48 rows"), "{}", info.why);
            assert!(cost(&info.why) < 90.0, "{}", info.why);
        }
        assert_eq!(encode(&sae, &synth.rows).unwrap(), expected);
    }
}

#[test]
fn small_encoders_are_read_and_a_screen_can_be_refused() {
    let (name, bytes, config) = sae::doc_example::tiny();
    let open = |kind: ScreenKind| {
        let options = OpenOptions::default().screen(kind);
        let sae = Sae::from_bytes(&name, &bytes, Some(&config), &options).unwrap();
        assert_eq!(sae.description().screen.why, "not prepared");
        sae.prepare().unwrap()
    };
    let auto = open(ScreenKind::Auto);
    assert_eq!(auto.description().screen.kind, "none");
    assert!(auto.description().screen.why.contains("as fast"));
    assert_eq!(auto.prepare_cost().screen_bytes, 0);
    assert!(open(ScreenKind::None).screen().is_none());
    let proven = open(ScreenKind::Proven);
    assert_eq!(proven.description().screen.kind, "proven");
    assert!(proven.prepare_cost().screen_bytes > 0);
    for kind in ScreenKind::ALL {
        assert_eq!(ScreenKind::from_name(kind.name()), Some(kind));
    }
}

#[test]
fn dither_is_shown_and_comes_from_the_caller_or_from_the_weights() {
    let case = case::case("minilm/batchtopk_f32");
    let prepare = |seed: Option<u64>, delta: u32| {
        let mut options = ScreenOptions::from(ScreenKind::Dithered);
        (options.seed, options.delta_exponent) = (seed, delta);
        let sae = Sae::open(&case.checkpoint, &OpenOptions::default().screen(options)).unwrap();
        sae.prepare().unwrap()
    };
    let (own, again) = (prepare(None, 64), prepare(None, 64));
    let seed = own.screen().unwrap().seed();
    assert_eq!(seed, again.screen().unwrap().seed());
    assert_ne!(seed, 0);
    let text = own.description().screen.text();
    assert!(
        text.contains(&format!("seed {seed:016x}, delta 2^-64")),
        "{text}"
    );
    let json = own.description().to_json();
    assert_eq!(json["screen"]["kind"], "dithered");
    assert_eq!(json["screen"]["delta_exponent"], 64);
    let given = prepare(Some(5), 40);
    assert_eq!(given.screen().unwrap().seed(), 5);
    assert_eq!(given.screen().unwrap().delta_exponent(), 40);
    let mut options = ScreenOptions::from(ScreenKind::Dithered);
    options.delta_exponent = 0;
    let sae = Sae::open(&case.checkpoint, &OpenOptions::default().screen(options)).unwrap();
    assert!(matches!(sae.prepare(), Err(Error::InvalidArgument { .. })));
}

#[test]
fn checking_finds_a_screen_of_other_weights() {
    // The same biases and thresholds, other rows: only the weights can tell.
    let synth = &*SYNTH;
    let (bytes, config) = file(synth, None);
    let mut turned = synth::Synth {
        w_enc: synth.w_enc.clone(),
        w_dec: synth.w_dec.clone(),
        b_dec: synth.b_dec.clone(),
        threshold: synth.threshold.clone(),
        rows: Vec::new(),
        ..*synth
    };
    turned.w_enc.rotate_right(synth.d_in);
    let (other, _) = file(&turned, None);
    let options = OpenOptions::default().screen(checked(ScreenKind::Proven));
    let wrong = open(&other, &config, &options).prepare().unwrap();
    let screen = wrong.screen().unwrap();
    let [codes, panels, refined] = screen
        .stored_sections()
        .map(|part| Bytes::owned(part.to_vec()));
    let vectors = Bytes::owned(screen.stored_vectors().unwrap());
    let stored = [vectors, codes, panels, refined];
    let stored = Screen::from_stored(&screen.stored_header(), stored).unwrap();
    let sae = open(&bytes, &config, &options).prepare().unwrap();
    sae.check_screen().unwrap();
    let sae = sae.with_screen(stored).unwrap();
    assert_eq!(sae.description().screen.why, "stored");
    let found = encode(&sae, &synth.rows);
    assert!(
        matches!(found, Err(Error::ScreenMismatch { .. })),
        "{found:?}"
    );
    let error = sae.check_screen().unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
    assert!(error.to_string().contains("other weights"), "{error}");
}
