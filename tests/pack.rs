//! Packs: every model that can run goes through one and gives the same bits, in place; what is in
//! the file, what is refused, and what happens when the writer is killed.
#![cfg(all(
    feature = "pack",
    feature = "torch",
    feature = "gzip",
    feature = "yaml"
))]

mod library;
mod publishers;

use library::parts::{Stored, matrix};
use library::{bits, encode_decode, rows};
use publishers::case::{Case, case, cases};
use sae::bytes::Bytes;
use sae::container::gguf_write::{GgufFile, GgufHeader, GgufValue};
use sae::container::{self, Archive, Check};
use sae::kernels::WeightType;
use sae::model::{
    Activation, Ensemble, Glu, Parts, Pursuit, Rank, ScreenKind, State, Thresholds, ValueMap,
};
use sae::pack::{self, PackModel, PackOptions};
use sae::verify::{Outcome, VerifyOptions};
use sae::{Code, Dtype, Error, OpenOptions, Sae};
use std::fs;
use std::path::{Path, PathBuf};

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pack");
    fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

fn options(given: &[(String, String)]) -> OpenOptions {
    let options = OpenOptions::default();
    given
        .iter()
        .fold(options, |options, (key, value)| options.set(key, value))
}

/// The strictest way to open a pack.
fn checked() -> OpenOptions {
    OpenOptions::default().check(Check::Full).self_test(true)
}

fn write(path: &Path, sae: &Sae<'_>, options: &PackOptions) -> pack::PackReport {
    let model = PackModel::new("model", sae);
    pack::write(path, &[model], options, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

/// Opens a case, or says why its maths cannot run.
fn opened(case: &Case) -> Result<Sae<'static>, Error> {
    Sae::open(&case.checkpoint, &options(&case.given))
}

/// Features and reconstructions have the same bits.
#[track_caller]
fn assert_same(one: &Sae<'_>, other: &Sae<'_>, inputs: &[f32], what: &str) {
    let input = rows(inputs, one.d_in());
    let (features, outputs) = encode_decode(one, input);
    let (features2, outputs2) = encode_decode(other, input);
    assert!(features == features2, "{what}");
    assert_eq!(bits(&outputs), bits(&outputs2), "{what}");
}

#[test]
fn every_fixture_gives_the_same_bits_from_a_pack() {
    let mut packed = 0;
    let (mut fired, mut screens) = (0, 0);
    let mut refused = Vec::new();
    for case in cases() {
        let sae = match opened(&case) {
            Ok(sae) => sae,
            Err(error) => {
                assert_eq!(error.code(), Code::Unsupported, "{}: {error}", case.name);
                refused.push(case.name);
                continue;
            }
        };
        let path = scratch(&format!("{}.gguf", case.name));
        // Wherever there can be one, whether it pays or not.
        let sae = sae.with_screen_options(ScreenKind::Proven.into());
        let mut model = PackModel::new("model", &sae);
        model.settings.clone_from(&case.given);
        model.sources = pack::source_files(&case.checkpoint, &mut |_| {}).unwrap();
        let options = PackOptions::default();
        let report = pack::write(&path, &[model], &options, &mut |_| {})
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        fired += report.self_test_features;
        screens += report.screens;
        let encoder = (sae.d_sae() * sae.d_in() * 4) as u64;
        assert!(report.screen_bytes * 100 <= encoder * pack::MAX_SCREEN_PERCENT);

        let again = Sae::open(&path, &checked()).unwrap();
        assert_same(&sae, &again, &case.rows, &case.name);
        let (before, after) = (sae.description(), again.description());
        assert_eq!(after.state, State::Mapped, "{}: no copy", case.name);
        assert!(!after.prepare.needed, "{}: rows per feature", case.name);
        assert_eq!(before.site, after.site);
        assert_eq!(before.publisher, after.publisher);
        assert_eq!(before.architecture, after.architecture);
        assert_eq!(before.activation, after.activation);
        assert_eq!(before.normalization, after.normalization);
        assert_eq!(after.convention, "pack");
        let info = after.pack.as_ref().unwrap();
        assert_eq!(info.convention, before.convention);
        assert_eq!(info.sources.len(), before.files.len(), "{:?}", info.sources);
        assert!(info.lossy.is_empty() && info.self_test_rows == pack::SELF_TEST_ROWS);

        // From bytes too, borrowed.
        let bytes = fs::read(&path).unwrap();
        let borrowed = Sae::from_bytes("model.gguf", &bytes, None, &checked()).unwrap();
        assert_same(&sae, &borrowed, &case.rows, &case.name);
        assert_eq!(borrowed.description().state, State::Mapped);

        // What inspect says of the size holds, headers and self-test apart.
        let beside = report.bytes - before.pack_bytes - report.screen_bytes;
        assert_eq!(after.screen.bits > 0, report.screens == 1);
        let self_test = pack::SELF_TEST_ROWS * (sae.d_in() + sae.d_out() + 2) * 4
            + report.self_test_features * 8;
        let header = 64 * 64 + 8192;
        assert!(
            beside as usize <= self_test + header,
            "{}: {} bytes, {} foreseen",
            case.name,
            report.bytes,
            before.pack_bytes
        );

        // A pack of a pack is the same model, and remembers the first source.
        let twice = scratch(&format!("{}.2.gguf", case.name));
        let again = again.with_screen_options(ScreenKind::Dithered.into());
        write(&twice, &again, &PackOptions::default());
        let third = Sae::open(&twice, &checked()).unwrap();
        assert_same(&sae, &third, &case.rows, &case.name);
        assert_eq!(third.description().pack, again.description().pack);
        packed += 1;
    }
    assert_eq!(refused, ["temporal"], "the only maths that is missing");
    assert!(packed > 80, "{packed} cases");
    // The others are too small to gain by one.
    assert!(screens >= 1, "{screens} with a screen");
    assert!(fired > 10 * packed, "{fired} features in the self-tests");
}

/// Numbers in (-1, 1) that f32 does not hold, and some that it does.
fn numbers(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

const D_IN: usize = 12;
const D_SAE: usize = 20;

fn vectors(seed: u64, features: usize, width: usize) -> Vec<Vec<f64>> {
    let row = |i: usize| numbers(seed + i as u64, width);
    (0..features).map(row).collect()
}

fn plain(activation: Activation, d_out: usize) -> Parts<'static> {
    let encoder = matrix("enc", &vectors(1, D_SAE, D_IN), Stored::Columns);
    let decoder = matrix("dec", &vectors(99, D_SAE, d_out), Stored::Columns);
    Parts {
        bias: Some(numbers(7, D_SAE)),
        decoder_bias: Some(numbers(8, d_out)),
        ..Parts::new(encoder, activation, decoder)
    }
}

fn positive(seed: u64, count: usize) -> Vec<f64> {
    numbers(seed, count).iter().map(|v| v.abs() + 0.1).collect()
}

/// Every rule, map, norm and layout, each in a model of its own.
fn every_kind() -> Vec<Parts<'static>> {
    let jump = |threshold, relu, inclusive| Activation::JumpRelu {
        threshold,
        relu,
        inclusive,
    };
    let mut thresholds: Vec<f32> = numbers(5, D_SAE).iter().map(|&v| v as f32).collect();
    thresholds[3] = f32::INFINITY;
    let top = |k, rank, relu| Activation::TopK { k, rank, relu };
    let grouped = Activation::GroupTopK {
        groups: 5,
        k: 2,
        rank: Rank::Magnitude,
        relu: false,
    };
    let mut kinds: Vec<Parts<'static>> = [
        Activation::Relu,
        Activation::TanhRelu,
        Activation::LeakyRelu { slope: 0.3 },
        jump(Thresholds::Scalar(0.25), true, false),
        jump(Thresholds::Scalar(f32::INFINITY), false, true),
        jump(Thresholds::PerFeature(thresholds), false, true),
        Activation::Gated {
            gate_bias: numbers(6, D_SAE),
        },
        top(3, Rank::Value, true),
        top(4, Rank::Magnitude, false),
        grouped,
        Activation::group_max(4),
    ]
    .into_iter()
    .map(|activation| plain(activation, D_IN))
    .collect();
    for map in [
        ValueMap::SoftCap(0.7),
        ValueMap::One,
        ValueMap::Distance(1.5),
    ] {
        kinds.push(Parts {
            value_map: map,
            ..plain(top(5, Rank::Value, true), D_IN)
        });
    }
    kinds.push(Parts {
        rank_weight: Some(positive(11, D_SAE)),
        ..plain(Activation::TopAfa, D_IN)
    });
    for norm in [
        sae::model::InputNorm::LayerNorm,
        sae::model::InputNorm::ConstantNorm,
    ] {
        for undo_norm in [true, false] {
            kinds.push(Parts {
                input_norm: norm,
                undo_norm,
                center: Some(numbers(12, D_IN)),
                scale: Some(positive(13, D_SAE)),
                decoder_scale: Some(positive(14, D_SAE)),
                ..plain(Activation::Relu, D_IN)
            });
        }
    }
    // A transcoder with a skip and another width, and a GLU.
    kinds.push(Parts {
        skip: Some(matrix("skip", &vectors(31, 9, D_IN), Stored::Columns)),
        input_sites: 3,
        output_sites: 3,
        ..plain(Activation::Relu, 9)
    });
    for bias in [None, Some(numbers(15, D_SAE))] {
        kinds.push(Parts {
            glu: Some(Glu {
                matrix: matrix("glu", &vectors(41, D_SAE, D_IN), Stored::Columns),
                bias,
            }),
            ..plain(Activation::Relu, D_IN)
        });
    }
    for rule in [
        Pursuit::matching(4, 0.01, true),
        Pursuit::matching_any(3),
        Pursuit::matching_signed(3),
        Pursuit::orthogonal(5, false),
        Pursuit::gradient(4, true),
        Pursuit::non_negative(6, 0.05),
    ] {
        let atoms = matrix("atoms", &vectors(51, D_SAE, D_IN), Stored::Columns);
        kinds.push(Parts {
            center: Some(numbers(16, D_IN)),
            decoder_bias: Some(numbers(16, D_IN)),
            decoder_scale: Some(positive(17, D_SAE)),
            ..Parts::new(atoms.clone(), Activation::Pursuit(rule), atoms)
        });
    }
    // Blocks: the first features read the first half of the row, the others the second; the
    // decoder has a block for each half of the output, and one is missing.
    let block = |seed, first_feature, first_column, stored| sae::model::Block {
        first_feature,
        first_column,
        matrix: matrix("block", &vectors(seed, D_SAE / 2, D_IN / 2), stored),
    };
    let half = (D_SAE / 2, D_IN / 2);
    let encoder = vec![
        block(61, 0, 0, Stored::Columns),
        block(62, half.0, half.1, Stored::Rows),
    ];
    let decoder = vec![
        block(63, 0, 0, Stored::Rows),
        block(64, half.0, 0, Stored::Columns),
        block(65, half.0, half.1, Stored::Columns),
    ];
    let blocks =
        |name: &str, blocks| sae::model::Matrix::from_blocks(name, D_SAE, D_IN, blocks).unwrap();
    let (encoder, decoder) = (blocks("enc", encoder), blocks("dec", decoder));
    kinds.push(Parts {
        bias: Some(numbers(7, D_SAE)),
        input_sites: 2,
        output_sites: 2,
        ..Parts::new(encoder, Activation::Relu, decoder)
    });
    kinds
}

fn test_rows(width: usize) -> Vec<f32> {
    let values = numbers(1234, width * 12);
    values.iter().map(|&v| (3.0 * v) as f32).collect()
}

#[test]
fn every_kind_of_model_gives_the_same_bits_from_a_pack() {
    for (i, parts) in every_kind().into_iter().enumerate() {
        let about = format!("kind {i}: {}", parts.activation.describe());
        let sae = Sae::from_parts(parts).unwrap();
        let path = scratch(&format!("kind_{i}.gguf"));
        write(&path, &sae, &PackOptions::default());
        let again = Sae::open(&path, &checked()).unwrap_or_else(|error| panic!("{about}: {error}"));
        assert_same(&sae, &again, &test_rows(sae.d_in()), &about);
        // Nothing of the maths is lost on the way: what is written again is the same.
        assert_eq!(
            format!("{:?}", again.parts().activation),
            format!("{:?}", sae.parts().activation)
        );
        assert_eq!(again.parts().scale, sae.parts().scale, "{about}");
        assert_eq!(again.parts().bias, sae.parts().bias, "{about}");
        assert_eq!(again.parts().rank_weight, sae.parts().rank_weight);
        assert_eq!(again.parts().input_sites, sae.parts().input_sites);
        assert!(!again.prepare_cost().needed);
        let bytes = fs::read(&path).unwrap();
        for tensor in &read(&bytes).entries {
            let tensor = tensor.load().unwrap();
            let at = tensor.bytes().as_slice().as_ptr() as usize - bytes.as_ptr() as usize;
            assert_eq!(at % 64, 0, "{}: {} lies at {at}", about, tensor.name());
        }
    }
}

/// Files that were written when version 1 was made: they open as long as it is read.
#[test]
fn packs_of_version_1_stay_readable() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pack");
    let kinds = every_kind();
    let (jump, blocks) = (kinds[5].clone(), kinds.last().unwrap().clone());
    let first = OpenOptions::default();
    for (file, parts, options) in [
        ("jumprelu.gguf", jump, first.clone()),
        ("blocks.gguf", blocks, first.clone()),
        ("several.gguf", relu(), first.set("model", "layer_0")),
    ] {
        let options = options.check(Check::Full).self_test(true);
        let sae = Sae::open(folder.join(file), &options).unwrap();
        let expected = Sae::from_parts(parts).unwrap();
        assert_same(&expected, &sae, &test_rows(sae.d_in()), file);
    }
}

#[test]
fn an_ensemble_is_packed_by_its_members_only() {
    let member = || Sae::from_parts(plain(Activation::Relu, D_IN)).unwrap();
    let bag = Sae::ensemble(vec![member(), member()], Ensemble::Bag).unwrap();
    let model = PackModel::new("bag", &bag);
    let path = scratch("bag.gguf");
    let error = pack::write(&path, &[model], &PackOptions::default(), &mut |_| {}).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.to_string().contains("pack the members"), "{error}");
    assert!(!path.exists());
}

fn read(bytes: &[u8]) -> Archive<'_> {
    container::read(Bytes::borrowed(bytes), Check::Quick).unwrap()
}

#[test]
fn narrowing_is_asked_for_recorded_and_checked() {
    let sae = Sae::from_parts(plain(Activation::Relu, D_IN)).unwrap();
    let mut narrow = PackOptions::default();
    narrow.encoder = Some(WeightType::BF16);
    narrow.decoder = Some(WeightType::F16);
    let path = scratch("narrow.gguf");
    let report = write(&path, &sae, &narrow);
    assert_eq!(report.narrowed.len(), 2);
    for narrowed in &report.narrowed {
        assert_eq!(narrowed.weights as usize, D_SAE * D_IN);
        assert!(narrowed.changed > 200, "{narrowed:?}");
        // Half a unit of the last of 8 or 11 binary digits, at most 2^-8 or 2^-11 of a weight.
        let digits = if narrowed.to == WeightType::BF16 {
            8
        } else {
            11
        };
        let bound = narrowed.largest_weight / f64::from(1 << digits);
        assert!(narrowed.largest_error > 0.0 && narrowed.largest_error <= bound);
    }
    // The self-test is that of the packed weights.
    let again = Sae::open(&path, &checked()).unwrap();
    let info = again.description().pack.clone().unwrap();
    assert_eq!(info.lossy, ["w_enc: F32 to BF16", "w_dec: F32 to F16"]);
    let shown = again.description().to_string();
    assert!(shown.contains("w_enc: F32 to BF16"), "{shown}");
    let (one, _) = encode_decode(&sae, rows(&test_rows(D_IN), D_IN));
    let (other, _) = encode_decode(&again, rows(&test_rows(D_IN), D_IN));
    assert!(one != other, "narrowed weights give other values");

    // Widened back, it stays lossy: what was lost is not back.
    let mut wide = PackOptions::default();
    wide.encoder = Some(WeightType::F32);
    wide.decoder = Some(WeightType::F32);
    let widened = scratch("widened.gguf");
    let report = write(&widened, &again, &wide);
    assert!(report.narrowed.is_empty(), "every f16 is an f32");
    let widened = Sae::open(&widened, &checked()).unwrap();
    assert_same(&again, &widened, &test_rows(D_IN), "widened");
    assert_eq!(
        widened.description().pack.as_ref().unwrap().lossy,
        info.lossy
    );
    assert_eq!(widened.description().encoder.dtype, "F32");
}

#[test]
fn what_cannot_be_packed_is_named_and_leaves_nothing() {
    let folder = scratch("nothing");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("out.gguf");
    let refused = |parts: Parts<'static>, options: &PackOptions, code: Code, words: &str| {
        let sae = Sae::from_parts(parts).unwrap();
        let model = PackModel::new("model", &sae);
        let error = pack::write(&path, &[model], options, &mut |_| {}).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "{error}");
    };
    let with = |value: f64| {
        let mut rows = vectors(99, D_SAE, D_IN);
        rows[13][5] = value;
        let mut parts = plain(Activation::Relu, D_IN);
        parts.decoder = matrix("dec", &rows, Stored::Columns);
        parts
    };
    let none = PackOptions::default();
    let mut f16 = PackOptions::default();
    f16.decoder = Some(WeightType::F16);
    // NaN and infinity in a matrix, with their place in it.
    let place = format!("index {}", 13 * D_IN + 5);
    refused(with(f64::NAN), &none, Code::InvalidValue, &place);
    refused(with(f64::INFINITY), &none, Code::InvalidValue, &place);
    // Finite, but beyond what f16 holds.
    refused(with(70_000.0), &f16, Code::InvalidValue, "70000");
    let mut of_pursuit = PackOptions::default();
    of_pursuit.encoder = Some(WeightType::BF16);
    let atoms = matrix("atoms", &vectors(51, D_SAE, D_IN), Stored::Rows);
    let rule = Activation::Pursuit(Pursuit::matching_any(2));
    let pursuit = Parts::new(atoms.clone(), rule, atoms);
    let words = "its dictionary is the decoder";
    refused(pursuit, &of_pursuit, Code::InvalidArgument, words);
    let mut ragged = PackOptions::default();
    ragged.self_test_rows = vec![0.0; D_IN + 1];
    refused(
        plain(Activation::Relu, D_IN),
        &ragged,
        Code::Length,
        "self-test",
    );
    let error = pack::write(&path, &[], &none, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("at least one"), "{error}");
}

#[test]
fn several_models_share_a_file() {
    let one = Sae::from_parts(plain(Activation::Relu, D_IN)).unwrap();
    let two = Sae::from_parts(plain(Activation::group_max(4), 9)).unwrap();
    let models = [
        PackModel::new("layer_0", &one),
        PackModel::new("layer_1", &two),
    ];
    let path = scratch("several.gguf");
    pack::write(&path, &models, &PackOptions::default(), &mut |_| {}).unwrap();
    for (name, sae) in [("layer_0", &one), ("layer_1", &two), ("1", &two)] {
        let again = Sae::open(&path, &checked().set("model", name)).unwrap();
        assert_same(sae, &again, &test_rows(D_IN), name);
        let models = &again.description().pack.as_ref().unwrap().models;
        assert_eq!(models, &["layer_0", "layer_1"]);
    }
    let error = Sae::open(&path, &OpenOptions::default()).unwrap_err();
    assert_eq!(error.code(), Code::MissingKey);
    assert!(error.to_string().contains("layer_0, layer_1"), "{error}");
    let error = Sae::open(&path, &OpenOptions::default().set("model", "layer_7")).unwrap_err();
    assert_eq!(error.code(), Code::InvalidValue);
    assert!(error.to_string().contains("layer_0, layer_1"), "{error}");
    // A name that comes twice could not be asked for.
    let twins = [PackModel::new("a", &one), PackModel::new("a", &two)];
    let error = pack::write(&path, &twins, &PackOptions::default(), &mut |_| {}).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[test]
fn progress_reaches_the_end() {
    let sae = Sae::from_parts(plain(Activation::Relu, D_IN)).unwrap();
    let mut seen = Vec::new();
    let model = PackModel::new("model", &sae);
    let path = scratch("progress.gguf");
    pack::write(&path, &[model], &PackOptions::default(), &mut |progress| {
        seen.push((progress.done, progress.total));
    })
    .unwrap();
    assert!(seen.is_sorted());
    let (done, total) = *seen.last().unwrap();
    assert_eq!((done, total), (2 * 4 * (D_SAE * D_IN) as u64, done));
}

#[test]
fn the_self_test_finds_damage_and_is_asked_for() {
    let path = scratch("damaged.gguf");
    let sae = Sae::from_parts(plain(Activation::Relu, D_IN)).unwrap();
    let mut options = PackOptions::default();
    options.self_test_rows = test_rows(D_IN);
    assert_eq!(write(&path, &sae, &options).self_test_rows, 12);
    let good = fs::read(&path).unwrap();
    let place = |name: &str| {
        let archive = read(&good);
        let tensor = archive.entry(name).unwrap().load().unwrap();
        tensor.bytes().as_slice().as_ptr() as usize - good.as_ptr() as usize
    };
    let open = |bytes: &[u8], options: &OpenOptions| {
        Sae::from_bytes("p.gguf", bytes, None, options).map(|_| ())
    };
    // One bit of a weight: the checksum finds it, and where that is not looked at the self-test.
    for name in ["w_enc", "w_dec"] {
        let mut bad = good.clone();
        bad[place(name) + 2] ^= 1;
        let error = open(&bad, &OpenOptions::default()).unwrap_err();
        assert_eq!(error.code(), Code::Corrupt, "{error}");
        assert!(error.to_string().contains(name), "{error}");
        let vectors = OpenOptions::default().check(Check::Vectors);
        open(&bad, &vectors).unwrap();
        let error = open(&bad, &vectors.self_test(true)).unwrap_err();
        assert_eq!(error.code(), Code::Corrupt);
        assert!(error.to_string().contains("self-test: row"), "{error}");
    }
    // Vectors are always read, so they are always checked.
    let mut bad = good.clone();
    bad[place("b_enc") + 1] ^= 1;
    let vectors = OpenOptions::default().check(Check::Vectors);
    let error = open(&bad, &vectors).unwrap_err();
    assert!(error.to_string().contains("b_enc"), "{error}");
    // A model that is no pack has none.
    let case = case("saelens_topk");
    let error = Sae::open(&case.checkpoint, &options_of(&case).self_test(true)).unwrap_err();
    assert_eq!(error.code(), Code::MissingKey);
    assert!(error.to_string().contains("self_test"), "{error}");
    assert!(opened(&case).unwrap().self_test().is_err());
}

fn options_of(case: &Case) -> OpenOptions {
    options(&case.given)
}

/// What verifying finds, as (check, outcome), of what is not simply right.
fn remarks(sae: &Sae<'_>, options: &VerifyOptions<'_>) -> Vec<(&'static str, Outcome)> {
    let found = sae.verify(options, &mut |_, _| {}).unwrap();
    let remarks = found.findings.iter();
    remarks
        .filter(|finding| finding.outcome != Outcome::Passed)
        .map(|finding| (finding.check, finding.outcome))
        .collect()
}

#[test]
fn every_fixture_passes_its_invariants() {
    for case in cases() {
        let Ok(sae) = opened(&case) else {
            continue;
        };
        let found = remarks(&sae, &VerifyOptions::default());
        // Fixtures with dead features and with thresholds of 0 exist; nothing is wrong.
        for (check, outcome) in &found {
            assert_eq!(*outcome, Outcome::Warning, "{}: {check}", case.name);
        }
        // One was saved before its threshold was set: its publisher's code then passes every
        // positive value, and that is told.
        if case.name == "dl_batchtopk_unset_threshold" {
            assert!(found.contains(&("thresholds", Outcome::Warning)));
        }
    }
}

#[test]
fn weights_that_are_wrong_are_findings() {
    let none = VerifyOptions::default();
    let find = |parts: Parts<'static>| remarks(&Sae::from_parts(parts).unwrap(), &none);
    assert_eq!(find(relu()), []);
    let rows = |edit: fn(&mut Vec<Vec<f64>>)| {
        let mut rows = vectors(99, D_SAE, D_IN);
        edit(&mut rows);
        matrix("m", &rows, Stored::Rows)
    };
    let nan = rows(|rows| rows[3][2] = f64::NAN);
    let mut parts = relu();
    parts.decoder = nan;
    let found = find(parts);
    assert!(found.contains(&("weights", Outcome::Failed)), "{found:?}");
    let mut parts = relu();
    parts.decoder = rows(|rows| rows[3].fill(0.0));
    assert_eq!(find(parts), [("decoder norms", Outcome::Warning)]);
    let mut parts = relu();
    parts.decoder = rows(|rows| rows.iter_mut().for_each(|row| row.fill(0.0)));
    assert_eq!(find(parts), [("decoder norms", Outcome::Failed)]);
    let mut parts = relu();
    parts.encoder = rows(|rows| rows[3].fill(0.0));
    parts.bias.as_mut().unwrap()[3] = -1.0;
    assert_eq!(find(parts), [("dead features", Outcome::Warning)]);
    let mut parts = relu();
    parts.encoder = rows(|rows| rows.iter_mut().for_each(|row| row.fill(0.0)));
    parts.bias = None;
    assert_eq!(find(parts), [("dead features", Outcome::Failed)]);
    let threshold = |value: f32, relu: bool| {
        plain(
            Activation::JumpRelu {
                threshold: Thresholds::Scalar(value),
                relu,
                inclusive: false,
            },
            D_IN,
        )
    };
    let thresholds = |outcome| [("thresholds", outcome)];
    assert_eq!(find(threshold(0.5, true)), []);
    assert_eq!(find(threshold(0.0, true)), thresholds(Outcome::Warning));
    // With a ReLU a negative one passes what is positive; without, nearly everything.
    assert_eq!(find(threshold(-1.0, true)), thresholds(Outcome::Warning));
    assert_eq!(find(threshold(-1.0, false)), thresholds(Outcome::Failed));
}

/// FVU, L0 and cosine against the formulas, on targets of our own.
#[test]
fn quality_is_what_the_formulas_say() {
    let sae = Sae::from_parts(topk()).unwrap();
    let inputs = test_rows(D_IN);
    let input = rows(&inputs, D_IN);
    let (features, outputs) = encode_decode(&sae, input);
    let n = input.rows() as f64;
    let (mut residual, mut variance, mut cosine) = (0.0, 0.0, 0.0);
    for column in 0..D_IN {
        let of = |values: &[f32]| -> Vec<f64> {
            let values = values.iter().skip(column).step_by(D_IN);
            values.map(|&v| f64::from(v)).collect()
        };
        let (x, y) = (of(&inputs), of(&outputs));
        let mean = x.iter().sum::<f64>() / n;
        residual += x.iter().zip(&y).map(|(x, y)| (x - y).powi(2)).sum::<f64>();
        variance += x.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
    }
    for (x, y) in inputs.chunks(D_IN).zip(outputs.chunks(D_IN)) {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            let pairs = a.iter().zip(b);
            pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        cosine += dot(x, y) / (dot(x, x) * dot(y, y)).sqrt() / n;
    }
    let found = sae
        .verify(&VerifyOptions::default().rows(input), &mut |_, _| {})
        .unwrap();
    let quality = found.quality.unwrap();
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * b.abs();
    assert!(
        close(quality.fvu.unwrap(), residual / variance),
        "{quality:?}"
    );
    assert!(close(quality.cosine.unwrap(), cosine), "{quality:?}");
    assert!(close(quality.l0, features.len() as f64 / n));
    assert_eq!((quality.rows, quality.expected_l0), (12, Some(3.0)));
    // A random model is worse than the mean row, and that is said.
    assert!(quality.fvu.unwrap() > 1.0 && !found.passed());

    // Against its own reconstructions it is perfect.
    let targets = rows(&outputs, D_IN);
    let perfect = VerifyOptions::default().rows(input).targets(targets);
    let found = sae.verify(&perfect, &mut |_, _| {}).unwrap();
    assert_eq!(found.quality.unwrap().fvu, Some(0.0));
    assert!(found.passed());
    // A row that is not finite is left out and said.
    let mut holed = inputs.clone();
    holed[D_IN] = f32::NAN;
    let options = VerifyOptions::default().rows(rows(&holed, D_IN));
    let found = sae.verify(&options, &mut |_, _| {}).unwrap();
    assert_eq!(found.quality.unwrap().non_finite, 1);
    assert!(found.findings.iter().any(|finding| finding.check == "rows"));
    // Wrong sizes are errors.
    let short = VerifyOptions::default()
        .rows(input)
        .targets(rows(&outputs[D_IN..], D_IN));
    assert_eq!(
        sae.verify(&short, &mut |_, _| {}).unwrap_err().code(),
        Code::Length
    );
    // No feature fires.
    let zeros = vec![0.0; 3 * D_IN];
    let mut parts = relu();
    parts.bias = Some(vec![-1.0; D_SAE]);
    let silent = Sae::from_parts(parts).unwrap();
    let options = VerifyOptions::default().rows(rows(&zeros, D_IN));
    assert!(remarks(&silent, &options).contains(&("L0", Outcome::Failed)));
}

/// A pack taken apart, to be put together differently.
struct Draft {
    keys: Vec<(String, GgufValue)>,
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
    checksums: bool,
}

fn value(json: &serde_json::Value) -> GgufValue {
    use serde_json::Value;
    match json {
        Value::Bool(flag) => GgufValue::Bool(*flag),
        Value::String(text) => GgufValue::Text(text.clone()),
        Value::Number(number) => match number.as_u64() {
            Some(number) => GgufValue::U64(number),
            None => GgufValue::F64(number.as_f64().unwrap()),
        },
        Value::Array(values) if values.iter().all(Value::is_u64) => {
            GgufValue::U64s(values.iter().map(|v| v.as_u64().unwrap()).collect())
        }
        Value::Array(values) => {
            let text = |v: &Value| v.as_str().unwrap().to_string();
            GgufValue::Texts(values.iter().map(text).collect())
        }
        other => panic!("{other}"),
    }
}

impl Draft {
    fn of(parts: Parts<'static>, name: &str) -> Self {
        let sae = Sae::from_parts(parts).unwrap();
        let sae = sae.with_screen_options(ScreenKind::Proven.into());
        let path = scratch(&format!("draft_{name}.gguf"));
        let mut model = PackModel::new("model", &sae);
        let file = sae::model::SourceFile {
            name: "weights".into(),
            ..Default::default()
        };
        model.sources = vec![file];
        pack::write(&path, &[model], &PackOptions::default(), &mut |_| {}).unwrap();
        let bytes = fs::read(&path).unwrap();
        let archive = read(&bytes);
        let keys = archive.metadata.iter();
        let keys = keys.filter(|(key, _)| key != "general.alignment" && key != "sae.crc32");
        let tensors = archive.entries.iter().map(|entry| {
            let tensor = entry.load().unwrap();
            let bytes = tensor.bytes().as_slice().to_vec();
            (
                entry.name().into(),
                tensor.dtype(),
                tensor.shape().to_vec(),
                bytes,
            )
        });
        Draft {
            keys: keys.map(|(key, json)| (key.clone(), value(json))).collect(),
            tensors: tensors.collect(),
            checksums: true,
        }
    }

    fn set(&mut self, key: &str, value: GgufValue) {
        self.remove(key);
        self.keys.push((key.into(), value));
    }

    fn text(&mut self, key: &str, text: &str) {
        self.set(key, GgufValue::Text(text.into()));
    }

    fn remove(&mut self, key: &str) {
        self.keys.retain(|(name, _)| name != key);
        self.tensors.retain(|(name, ..)| name != key);
    }

    fn tensor(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) {
        self.remove(name);
        self.tensors
            .push((name.into(), dtype, shape.to_vec(), bytes));
    }

    /// The f32 values of a tensor.
    fn floats(&mut self, name: &str, edit: impl FnOnce(&mut Vec<f32>)) {
        let mut found = self.tensors.iter_mut();
        let (.., dtype, _, bytes) = found.find(|(known, ..)| known == name).unwrap();
        let wide = *dtype == Dtype::F64;
        let mut values: Vec<f32> = match wide {
            true => {
                let values = bytes.chunks_exact(8);
                values
                    .map(|b| f64::from_le_bytes(b.try_into().unwrap()) as f32)
                    .collect()
            }
            false => {
                let values = bytes.chunks_exact(4);
                values
                    .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                    .collect()
            }
        };
        edit(&mut values);
        *dtype = Dtype::F32;
        *bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let path = scratch(&format!("draft_{name}.gguf"));
        let mut header = GgufHeader::new();
        for (key, value) in &self.keys {
            header.key(key, value).unwrap();
        }
        for (name, dtype, shape, _) in &self.tensors {
            header.tensor(name, *dtype, shape).unwrap();
        }
        if self.checksums {
            header.checksums("sae.crc32").unwrap();
        }
        let mut file: GgufFile = header.create(&path).unwrap();
        for (.., bytes) in &self.tensors {
            file.write(bytes).unwrap();
        }
        file.finish().unwrap();
        fs::read(&path).unwrap()
    }
}

/// One test for each way in which a pack is wrong.
macro_rules! refused {
    ($($name:ident: $parts:expr, $edit:expr => $code:ident, $words:literal;)*) => {
        $(#[test]
        fn $name() {
            let mut draft = Draft::of($parts, stringify!($name));
            let edit: fn(&mut Draft) = $edit;
            edit(&mut draft);
            let bytes = draft.bytes(stringify!($name));
            let options = OpenOptions::default().self_test(true);
            let error = match Sae::from_bytes("p.gguf", &bytes, None, &options) {
                Ok(_) => panic!("it opened"),
                Err(error) => error,
            };
            assert_eq!(error.code(), Code::$code, "{error}");
            assert!(error.to_string().contains($words), "{error}");
            assert!(error.to_string().len() < 600, "{error}");
        })*
    };
}

fn relu() -> Parts<'static> {
    plain(Activation::Relu, D_IN)
}

fn topk() -> Parts<'static> {
    plain(
        Activation::TopK {
            k: 3,
            rank: Rank::Value,
            relu: true,
        },
        D_IN,
    )
}

fn jump() -> Parts<'static> {
    let threshold = Thresholds::PerFeature(vec![0.1; D_SAE]);
    let rule = Activation::JumpRelu {
        threshold,
        relu: true,
        inclusive: false,
    };
    plain(rule, D_IN)
}

fn blocks() -> Parts<'static> {
    every_kind().pop().unwrap()
}

/// A model that is large enough for a screen.
fn screened() -> Parts<'static> {
    let encoder = matrix("enc", &vectors(1, 4096, 512), Stored::Rows);
    let decoder = matrix("dec", &vectors(99, 4096, 4), Stored::Rows);
    Parts {
        bias: Some(vec![-2.0; 4096]),
        ..Parts::new(encoder, Activation::Relu, decoder)
    }
}

impl Draft {
    /// The bytes of a tensor.
    fn data(&mut self, name: &str) -> &mut Vec<u8> {
        let mut found = self.tensors.iter_mut();
        &mut found.find(|(known, ..)| known == name).unwrap().3
    }
}

/// A bound that is wrong, under checksums that fit it, opens; building it again finds it.
#[test]
fn a_corrupted_bound_does_not_pass() {
    let good = Draft::of(screened(), "bound").bytes("bound");
    let open = |bytes: &'static [u8]| Sae::from_bytes("p.gguf", bytes, None, &checked()).unwrap();
    let sae = open(good.leak());
    assert_eq!(sae.description().screen.kind, "proven");
    let exhaustive = VerifyOptions::default().exhaustive(true);
    assert_eq!(remarks(&sae, &exhaustive), []);

    let mut draft = Draft::of(screened(), "bound");
    // The margin of one feature, which the self-test's rows do not need.
    let panels = draft.data("screen.panels");
    let at = panels.len() / 2 / 1024 * 1024 + 2;
    panels[at] ^= 1;
    let bytes = draft.bytes("bound");
    let options = OpenOptions::default().check(Check::Vectors);
    let sae = Sae::from_bytes("p.gguf", &bytes, None, &options).unwrap();
    let found = remarks(&sae, &exhaustive);
    assert!(found.contains(&("screen", Outcome::Failed)), "{found:?}");

    // Damage without new checksums does not open, or is found by any verification.
    let place = |name: &str| {
        let archive = read(&bytes);
        let tensor = archive.entry(name).unwrap().load().unwrap();
        tensor.bytes().as_slice().as_ptr() as usize - bytes.as_ptr() as usize
    };
    for name in ["screen.header", "screen.vectors", "screen.panels"] {
        let mut bad = bytes.clone();
        bad[place(name) + 44] ^= 0x10;
        let error = Sae::from_bytes("p.gguf", &bad, None, &OpenOptions::default()).unwrap_err();
        assert_eq!(error.code(), Code::Corrupt, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    // What is not asked for is not there.
    let path = scratch("no_screen.gguf");
    let source = Sae::from_parts(screened()).unwrap();
    let source = source.with_screen_options(ScreenKind::None.into());
    assert_eq!(write(&path, &source, &PackOptions::default()).screens, 0);
    let again = Sae::open(&path, &checked()).unwrap();
    assert!(again.screen().is_none());
    assert_same(&source, &again, &test_rows(512), "without a screen");
    let found = remarks(&again, &exhaustive);
    assert_eq!(found, [("screen", Outcome::Skipped)]);
}

/// Narrowed encoders get the screen of their narrowed weights.
#[test]
fn screens_are_of_the_packed_weights() {
    for kind in [ScreenKind::Proven, ScreenKind::Dithered] {
        let mut narrow = PackOptions::default();
        narrow.encoder = Some(WeightType::F16);
        let path = scratch("narrow_screen.gguf");
        let source = Sae::from_parts(screened()).unwrap();
        let source = source.with_screen_options(kind.into());
        let report = write(&path, &source, &narrow);
        assert_eq!(report.screens, 1, "{:?}", report.screen_why);
        let sae = Sae::open(&path, &checked()).unwrap();
        let exhaustive = VerifyOptions::default().exhaustive(true);
        assert_eq!(remarks(&sae, &exhaustive), []);
    }
}

refused! {
    with_a_screen_of_other_biases: screened(), |d| d.floats("b_enc", |b| b[0] += 1.0) => Malformed, "other biases";
    with_a_screen_of_other_weights: screened(), |d| d.floats("w_enc", |w| w[5] += 1.0) => Malformed, "other weights";
    with_a_screen_of_another_version: screened(), |d| d.data("screen.header")[0] = 9 => Malformed, "version 9";
    with_a_screen_of_another_shape: screened(), |d| d.data("screen.header")[24] ^= 16 => Malformed, "section 2";
    with_a_screen_that_is_cut: screened(), |d| {
        let panels = d.data("screen.panels");
        panels.pop();
        let panels = std::mem::take(panels);
        d.tensor("screen.panels", Dtype::I8, &[panels.len()], panels);
    } => Malformed, "section 2";
    with_half_a_screen: screened(), |d| d.remove("screen.panels") => MissingTensor, "screen.panels";
    with_a_screen_of_floats: screened(), |d| {
        d.tensor("screen.header", Dtype::F32, &[32], vec![0; 128]);
    } => Unsupported, "screen.header";
    with_a_screen_where_no_rule_has_one: screened(), |d| {
        d.text("sae.activation", "leaky_relu");
        d.set("sae.activation.slope", GgufValue::F64(0.1));
    } => Malformed, "no screen";
    without_version: relu(), |d| d.remove("sae.version") => MissingKey, "`sae.version`";
    of_version_two: relu(), |d| d.set("sae.version", GgufValue::U32(2)) => Unsupported, "version 2";
    with_an_unknown_key: relu(), |d| d.text("sae.temperature", "2") => Malformed, "`sae.temperature`";
    without_activation: relu(), |d| d.remove("sae.activation") => MissingKey, "`sae.activation`";
    of_an_unknown_activation: relu(), |d| d.text("sae.activation", "spline") => Unsupported, "spline";
    of_an_unknown_norm: relu(), |d| d.text("sae.input_norm", "batch") => InvalidValue, "batch";
    without_norm: relu(), |d| d.remove("sae.input_norm") => MissingKey, "`sae.input_norm`";
    without_undo_norm: relu(), |d| d.remove("sae.undo_norm") => MissingKey, "`sae.undo_norm`";
    of_an_unknown_value_map: relu(), |d| d.text("sae.value_map", "cube") => InvalidValue, "cube";
    with_a_negative_soft_cap: relu(), |d| {
        d.text("sae.value_map", "soft_cap");
        d.set("sae.value_map.parameter", GgufValue::F64(-3.0));
    } => InvalidValue, "soft_cap";
    of_an_unknown_rank: topk(), |d| d.text("sae.activation.rank", "best") => InvalidValue, "best";
    without_k: topk(), |d| d.remove("sae.activation.k") => MissingKey, "activation.k";
    with_k_zero: topk(), |d| d.set("sae.activation.k", GgufValue::U64(0)) => InvalidValue, "`k`";
    with_k_above_d_sae: topk(), |d| d.set("sae.activation.k", GgufValue::U64(21)) => InvalidValue, "21";
    with_k_as_text: topk(), |d| d.text("sae.activation.k", "three") => InvalidValue, "three";
    with_k_where_no_rule_has_one: relu(), |d| d.set("sae.activation.k", GgufValue::U64(3)) => Malformed, "activation.k";
    with_no_sites: relu(), |d| d.set("sae.input_sites", GgufValue::U64(0)) => InvalidValue, "input_sites";
    with_sites_that_do_not_divide: relu(), |d| d.set("sae.output_sites", GgufValue::U64(5)) => InvalidValue, "output_sites";
    without_decoder: relu(), |d| d.remove("w_dec") => MissingTensor, "w_dec";
    without_encoder: relu(), |d| d.remove("w_enc") => MissingTensor, "w_enc";
    with_a_decoder_of_another_size: relu(), |d| {
        d.tensor("w_dec", Dtype::F32, &[D_SAE + 1, D_IN], vec![0; (D_SAE + 1) * D_IN * 4]);
    } => Shape, "b_enc";
    with_an_unknown_tensor: relu(), |d| {
        d.tensor("w_extra", Dtype::F32, &[2], vec![0; 8]);
    } => UnknownTensor, "w_extra";
    with_thresholds_where_no_rule_has_them: relu(), |d| {
        d.tensor("threshold", Dtype::F32, &[D_SAE], vec![0; D_SAE * 4]);
    } => UnknownTensor, "threshold";
    with_a_nan_weight: relu(), |d| d.floats("w_enc", |w| w[17] = f32::NAN) => InvalidValue, "index 17";
    with_an_infinite_weight: relu(), |d| d.floats("w_dec", |w| w[3] = f32::INFINITY) => InvalidValue, "index 3";
    with_an_infinite_bias: relu(), |d| d.floats("b_enc", |b| b[2] = f32::INFINITY) => InvalidValue, "b_enc";
    with_a_nan_threshold: jump(), |d| d.floats("threshold", |t| t[1] = f32::NAN) => InvalidValue, "threshold";
    with_a_short_bias: relu(), |d| {
        d.tensor("b_dec", Dtype::F32, &[D_IN - 1], vec![0; (D_IN - 1) * 4]);
    } => Shape, "b_dec";
    with_weights_of_integers: relu(), |d| {
        d.tensor("w_enc", Dtype::I32, &[D_SAE, D_IN], vec![0; D_SAE * D_IN * 4]);
    } => Unsupported, "I32";
    with_checksums_of_a_few: relu(), |d| {
        d.checksums = false;
        d.set("sae.crc32", GgufValue::U32s(vec![1, 2]));
    } => Malformed, "sae.crc32";
    with_wrong_checksums: relu(), |d| {
        d.checksums = false;
        d.set("sae.crc32", GgufValue::U32s(vec![1; d.tensors.len()]));
    } => Corrupt, "checksum";
    with_half_a_self_test: relu(), |d| d.remove("self_test.values") => MissingTensor, "self_test.values";
    without_the_self_test_that_is_asked_for: relu(), |d| {
        d.tensors.retain(|(name, ..)| !name.starts_with("self_test."));
    } => MissingKey, "self_test";
    with_a_self_test_of_other_rows: relu(), |d| {
        d.tensor("self_test.rows", Dtype::F32, &[4, D_IN + 1], vec![0; 16 * (D_IN + 1)]);
    } => Shape, "self_test.rows";
    with_a_self_test_of_other_values: relu(), |d| {
        d.floats("self_test.values", |v| v[0] += 1.0);
    } => Corrupt, "self-test: row 0";
    with_a_self_test_of_other_outputs: relu(), |d| {
        d.floats("self_test.reconstructions", |v| v[1] += 1.0);
    } => Corrupt, "output 1";
    with_a_self_test_that_ends_nowhere: relu(), |d| {
        let ends = [-1i64, 1 << 40, 3, 4].iter().flat_map(|e| e.to_le_bytes()).collect();
        d.tensor("self_test.ends", Dtype::I64, &[4], ends);
    } => Corrupt, "self-test: row 0";
    with_sources_without_hashes: relu(), |d| d.remove("sae.source.sha256") => Malformed, "0 hashes";
    with_a_block_missing: blocks(), |d| d.remove("w_enc.1") => MissingTensor, "w_enc.1";
    with_blocks_that_overlap: blocks(), |d| {
        d.set("sae.w_dec.first_features", GgufValue::U64s(vec![0, 0, 10]));
    } => InvalidValue, "overlap";
    with_a_block_outside: blocks(), |d| {
        d.set("sae.w_enc.first_columns", GgufValue::U64s(vec![0, 1 << 40]));
    } => InvalidValue, "inside";
    with_a_huge_block_place: blocks(), |d| {
        d.set("sae.w_enc.first_features", GgufValue::U64s(vec![0, u64::MAX]));
    } => InvalidValue, "inside";
    with_a_huge_width: blocks(), |d| {
        d.set("sae.w_enc.width", GgufValue::U64(1 << 31));
    } => Limit, "width of `w_enc`";
    with_fewer_places_than_blocks: blocks(), |d| {
        d.set("sae.w_enc.first_features", GgufValue::U64s(vec![0]));
    } => Malformed, "1 first features";
    with_half_the_places: blocks(), |d| d.remove("sae.w_enc.width") => Malformed, "w_enc.width";
    with_places_that_are_no_numbers: blocks(), |d| {
        d.set("sae.w_enc.first_columns", GgufValue::Texts(vec!["a".into(), "b".into()]));
    } => InvalidValue, "whole numbers";
    with_models_that_are_no_names: relu(), |d| {
        d.set("sae.models", GgufValue::U64s(vec![1]));
    } => InvalidValue, "texts";
    with_models_but_tensors_of_none: relu(), |d| {
        d.set("sae.models", GgufValue::Texts(vec!["only".into()]));
    } => MissingKey, "only";
}

#[test]
fn settings_that_a_pack_has_no_use_for_are_refused() {
    let draft = Draft::of(topk(), "settings");
    let bytes = draft.bytes("settings");
    let options = OpenOptions::default().set("k", 5);
    let error = Sae::from_bytes("p.gguf", &bytes, None, &options).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
}

#[test]
fn every_cut_of_a_pack_is_refused() {
    let bytes = Draft::of(jump(), "cuts").bytes("cuts");
    for end in (0..bytes.len()).step_by(61).chain([bytes.len() - 1]) {
        let opened = Sae::from_bytes("p.gguf", &bytes[..end], None, &OpenOptions::default());
        assert!(opened.is_err(), "cut at {end}");
    }
}

#[test]
fn no_byte_of_a_header_makes_it_panic() {
    let bytes = Draft::of(blocks(), "flips").bytes("flips");
    let header = bytes.len().min(4000);
    for at in 0..header {
        for value in [0, 0xff, bytes[at] ^ 1, bytes[at] ^ 0x80] {
            let mut bad = bytes.clone();
            bad[at] = value;
            let _ = Sae::from_bytes("p.gguf", &bad, None, &OpenOptions::default());
        }
    }
}
