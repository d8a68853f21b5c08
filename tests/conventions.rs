//! Every fixture of every publisher outside SAELens and Gemma Scope 1 (those are in
//! `tests/golden.rs`), opened through the public API with what its `case.json` gives and compared
//! with what the publisher's own code computed, by the rules of the fixtures:
//!
//! 1. Values: `|got - golden| <= 1e-5 m_i`, or a relative error of at most 1e-4, with m_i the scale
//!    of the sum that forms pre-activation i.
//! 2. On and off agree (no committed case has a near-tie).
//! 3. Reconstructions: `max |got - golden| <= 1e-4 max(1, max |golden row|)`.
#![cfg(all(feature = "std", feature = "torch", feature = "yaml"))]

mod library;
mod publishers;

use publishers::case::{self, Case};
use publishers::readings;
use sae::{Description, Features, Level, Rows, Sae, Scratch};

/// Cases whose maths the library does not have yet: each is described, and refused by name.
const REFUSED: &[(&str, &str)] = &[("temporal", "temporal")];

/// What differs from a golden, in any row.
fn compare(case: &Case, sae: &Sae<'_>, features: &str, reconstructions: &str) -> Vec<String> {
    let reading = readings::of(case).expect("a reading");
    let (found, y) = case::results(case, sae);
    let golden = case.golden(features).expect("features");
    let golden_y = case.golden(reconstructions).expect("recon");
    let mut all = Vec::new();
    for row in 0..case.n {
        let x = case.row(row);
        let (found, y) = (&found[row], &y[row]);
        let of_row = case::differences(&reading, &x, found, y, &golden[row], &golden_y[row]);
        all.extend(
            of_row
                .iter()
                .map(|what| format!("{}: row {row}, {what}", case.name)),
        );
    }
    all
}

/// Opens a case and compares it; what is wrong, in words.
fn check(case: &Case) -> Vec<String> {
    let options = library::options(&case.given, Level::best());
    let opened = Sae::open(&case.checkpoint, &options);
    if let Some((_, words)) = REFUSED.iter().find(|(name, _)| *name == case.name) {
        let error = opened.err().map(|error| error.to_string());
        let error = error.unwrap_or_else(|| "it opened".into());
        let by_name = error.contains("unsupported architecture") && error.contains(words);
        let described = match Description::open(&case.checkpoint, &options) {
            Ok(it) => format!("d_in {}, d_sae {}, {:?}", it.d_in, it.d_sae, it.refused),
            Err(error) => error.to_string(),
        };
        let expected = format!(
            "d_in {}, d_sae {}, Some(\"unsupported architecture `{words}`\")",
            case.d_in, case.d_sae
        );
        let mut wrong = Vec::new();
        wrong.extend((!by_name).then_some(error));
        wrong.extend((described != expected).then_some(described));
        return wrong;
    }
    match opened {
        Err(error) => vec![error.to_string()],
        Ok(sae) => {
            let shape = (sae.d_in(), sae.d_sae(), sae.d_out());
            assert_eq!(shape, (case.d_in, case.d_sae, case.d_out), "{}", case.name);
            compare(case, &sae, "features", "recon")
        }
    }
}

#[test]
fn every_fixture_matches_its_golden_or_is_refused_by_name() {
    let mut cases = case::cases();
    cases.retain(|case| !case::ELSEWHERE.contains(&case.json["format"].as_str().unwrap()));
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let wrong = check(case);
            let first = wrong.first()?;
            Some(format!(
                "{}: {first} (and {} more)",
                case.name,
                wrong.len() - 1
            ))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(cases.len() - REFUSED.len(), 61);
}

/// Llama Scope in the units of its own code, which is right for any decoder.
#[test]
fn raw_units_give_what_the_original_code_computes() {
    for name in [
        "llama_scope_f32",
        "llama_scope_bf16",
        "llama_scope_nonunit_decoder",
    ] {
        let case = case::case(name);
        let options = library::options(&case.given, Level::best()).set("units", "raw");
        let sae = Sae::open(&case.checkpoint, &options).unwrap();
        let wrong = compare(&case, &sae, "openmoss_features64", "openmoss_recon64");
        assert!(wrong.is_empty(), "{:?}", wrong.first());
        let warned = |sae: &Sae<'_>| {
            let notes = &sae.description().notes;
            notes.iter().any(|note| note.contains("disagree"))
        };
        let default = Sae::open(&case.checkpoint, &sae::OpenOptions::default()).unwrap();
        assert_eq!(warned(&default), name.contains("nonunit"), "{name}");
    }
}

/// Llama Scope states a factor; a given one goes before it, and is told if it is another.
#[test]
fn a_given_factor_goes_before_the_stated_one() {
    let case = case::case("llama_scope_f32");
    let open = |factor: Option<f64>| {
        let mut options = library::options(&[], Level::best());
        if let Some(factor) = factor {
            options = options.set("norm_scaling_factor", factor);
        }
        Sae::open(&case.checkpoint, &options).unwrap()
    };
    let told = |sae: &Sae<'_>| {
        let notes = &sae.description().notes;
        notes
            .iter()
            .any(|note| note.contains("norm_scaling_factor"))
    };
    let width = case.d_in;
    let row: Vec<f32> = (0..width).map(|j| (j % 7) as f32 - 3.0).collect();
    let features = |sae: &Sae<'_>| {
        let mut features = Features::new();
        let rows = Rows::from_f32(&row, width).unwrap();
        sae.encode(rows, &mut Scratch::new(sae).unwrap(), &mut features)
            .unwrap();
        let values: Vec<u32> = features.values().iter().map(|v| v.to_bits()).collect();
        assert!(!values.is_empty());
        (features.indices().to_vec(), values)
    };
    let folder = case.checkpoint.ancestors();
    let config = folder.map(|folder| folder.join("hyperparams.json"));
    let config = config.into_iter().find(|file| file.exists()).unwrap();
    let config = std::fs::read(config).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let norm = config["dataset_average_activation_norm"]["in"]
        .as_f64()
        .unwrap();
    let stated = (width as f64).sqrt() / norm;
    let alone = open(None);
    assert!(!told(&alone));
    for (by, notice) in [
        (1.0, false),
        (1.0 + 0.9e-4, false),
        (1.0 + 1.1e-4, true),
        (2.0, true),
    ] {
        assert_eq!(told(&open(Some(stated * by))), notice, "{by}");
    }
    assert_eq!(features(&open(Some(stated))), features(&alone));
    assert_ne!(features(&open(Some(stated * 2.0))), features(&alone));
}

/// Nested widths of a Matryoshka SAE.
#[test]
fn groups_choose_a_nested_width() {
    for groups in [1, 2] {
        let mut case = case::case("dl_matryoshka");
        case.given = vec![("groups".into(), groups.to_string())];
        let options = library::options(&case.given, Level::best());
        let sae = Sae::open(&case.checkpoint, &options).unwrap();
        let (features, recon) = (
            format!("features_groups{groups}"),
            format!("recon_groups{groups}"),
        );
        let wrong = compare(&case, &sae, &features, &recon);
        assert!(wrong.is_empty(), "{:?}", wrong.first());
    }
}

/// What SAELens saves during training opens as what it exports.
#[test]
fn training_checkpoints_give_what_their_export_gives() {
    for name in [
        "saelens_batchtopk_export",
        "saelens_matryoshka_export",
        "saelens_jumprelu_training_export",
        "saelens_topk_training_export",
    ] {
        let case = case::case(name);
        let training = case.folder.join("training_checkpoint");
        let options = library::options(&case.given, Level::best());
        let sae = Sae::open(training, &options).unwrap_or_else(|error| panic!("{error}"));
        let wrong = compare(&case, &sae, "features", "recon");
        assert!(wrong.is_empty(), "{:?}", wrong.first());
    }
}

/// Without what the caller gives, every case asks for it by name, and a key that nobody reads is
/// an error.
#[test]
fn what_is_missing_is_asked_for_by_name() {
    let mut asked = 0;
    for case in case::cases() {
        for (key, _) in &case.given {
            let others = case.given.iter().filter(|(other, _)| other != key).cloned();
            let others: Vec<_> = others.collect();
            let options = library::options(&others, Level::best());
            match Sae::open(&case.checkpoint, &options) {
                // A side-car says it (meta.json, hyperparams.json).
                Ok(_) => assert!(
                    case.name.starts_with("overcomplete") || case.name.starts_with("llama_scope_"),
                    "{}: {key}",
                    case.name
                ),
                Err(error) => {
                    asked += 1;
                    assert_eq!(error.code(), sae::Code::MissingKey, "{error}");
                    assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
                }
            }
        }
        let options = library::options(&case.given, Level::best()).set("no_such_key", 1);
        if let Ok(sae) = Sae::open(&case.checkpoint, &options) {
            panic!("{}: {:?}", case.name, sae.description().convention);
        }
    }
    assert!(asked >= 5, "{asked}");
}

/// Facts that are not numbers: names of hooks, and rows that are heads side by side.
#[test]
fn the_site_is_told() {
    let site = |name: &str| {
        let case = case::case(name);
        let options = library::options(&case.given, Level::best());
        let sae = Sae::open(&case.checkpoint, &options).unwrap();
        sae.description().site.clone()
    };
    let v3 = site("saelens_v3_no_architecture");
    assert_eq!(v3.hook_name.as_deref(), Some("blocks.5.hook_resid_pre"));
    for (name, hook, heads) in [
        ("saelens_v5_hook_z_implied", "hook_z", true),
        (
            "gemma_scope_2_attn_bf16",
            "model.layers.2.self_attn.o_proj.input",
            true,
        ),
        (
            "gemma_scope_2_mlp_no_config",
            "post_feedforward_layernorm.output",
            false,
        ),
        ("hook_z_kk", "blocks.5.attn.hook_z", true),
        ("circuit_tracer_plt", "blocks.7.mlp.hook_in", false),
        ("e2e_sae", "blocks.6.hook_resid_pre", false),
        ("llama_scope_f32", "blocks.3.hook_resid_post", false),
    ] {
        let site = site(name);
        assert!(
            site.hook_name.as_deref().unwrap_or("").contains(hook),
            "{name}: {site:?}"
        );
        assert_eq!(site.concatenated_heads, heads, "{name}");
    }
}
