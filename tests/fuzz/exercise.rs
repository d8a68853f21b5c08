//! What each fuzz target does with its input; `tests/corpus.rs` does the same with the corpus.
//! Errors are fine. A panic, an allocation beyond the limits, or a tensor that differs from what
//! its entry announced is a finding.

use sae::bytes::Bytes;
use sae::container::{self, Check};
use sae::monitor::measures::Monosemanticity;
use sae::monitor::{Accumulator, ErrorModel, Quality, Rules, Samples};
use sae::steer::{Batch, Outcome, Plan, Report, SteerScratch};
use sae::{Labels, OpenOptions, RowsMut, Sae};

/// The targets, by the names of their files.
#[allow(dead_code)] // for the replay
pub(crate) const TARGETS: [&str; 14] = [
    "safetensors",
    "npz",
    "npy",
    "pickle",
    "torch",
    "gguf",
    "gzip",
    "yaml",
    "open",
    "labels",
    "plan",
    "snapshot",
    "quality",
    "rules",
];

/// Entries that would take more memory than this are not loaded: a small file may announce what
/// deflate could hold.
const LOADED: u64 = 16 << 20;

/// Runs one target.
pub(crate) fn run(target: &str, data: &[u8]) {
    match target {
        "npy" => {
            if let Ok(tensor) = container::npy::read_npy(&Bytes::borrowed(data)) {
                values(&tensor);
            }
        }
        "torch" => archive(&torch_zip(data)),
        "gguf" => {
            archive(data);
            pack(data);
        }
        "yaml" => drop(container::yaml::read(data)),
        "open" => open(data),
        "labels" => labels(data),
        "plan" => plan(data),
        "snapshot" => snapshot(data),
        "quality" => quality(data),
        "rules" => rules(data),
        // The reader is found by the first bytes; the corpora differ.
        _ => archive(data),
    }
}

fn archive(data: &[u8]) {
    let Ok(mut archive) = container::read(Bytes::borrowed(data), Check::Full) else {
        return;
    };
    let entries = std::mem::take(&mut archive.entries);
    for entry in entries.iter().filter(|entry| entry.load_bytes() <= LOADED) {
        if let Ok(tensor) = entry.load() {
            assert_eq!(
                (tensor.dtype(), tensor.shape()),
                (entry.dtype(), entry.shape())
            );
            values(&tensor);
        }
    }
}

fn values(tensor: &sae::tensor::Tensor<'_>) {
    if tensor.len() as u64 * 8 <= LOADED {
        let floats = tensor.to_f64().map_or(0, |values| values.len());
        let integers = tensor.to_i64().map_or(0, |values| values.len());
        assert!(floats + integers == tensor.len() || tensor.dtype() == sae::Dtype::U64);
    }
}

/// A pack, to the end: opened without checksums, which no mutation would get past, then verified
/// and tested on its own rows.
fn pack(data: &[u8]) {
    let options = OpenOptions::default().check(Check::Vectors);
    let Ok(model) = Sae::from_bytes("model.gguf", data, None, &options) else {
        return;
    };
    assert!(!model.description().to_string().is_empty());
    // A pursuit takes as many steps as it says.
    let text = &model.description().activation;
    let steps = text
        .split("at most ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let long = steps.is_some_and(|steps| steps.parse().is_ok_and(|steps: u64| steps > 100));
    if !long && (model.d_in() + model.d_out()) as u64 * 8 <= LOADED {
        let found = model.verify(&Default::default(), &mut |_, _| {});
        assert!(found.is_ok_and(|found| !found.findings.is_empty()));
    }
}

/// A torch archive around this pickle, with the storages of the fixtures it started from.
fn torch_zip(pickle: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut archive = rawzip::ZipArchiveWriter::new(Vec::new());
    let zeros = [0; 3072];
    let storages = [("0", 3072), ("1", 192), ("2", 3072), ("3", 64)];
    let storages = storages.map(|(key, size)| (format!("ae/data/{key}"), &zeros[..size]));
    for (name, bytes) in [("ae/data.pkl".into(), pickle)].into_iter().chain(storages) {
        let (mut entry, config) = archive.new_file(name.as_str()).start().unwrap();
        let mut writer = config.wrap(&mut entry);
        writer.write_all(bytes).unwrap();
        let (_, descriptor) = writer.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap()
}

/// A file name, a config and the file: `name index, length of the config (two bytes), config,
/// file`.
fn open(data: &[u8]) {
    let [name, low, high, rest @ ..] = data else {
        return;
    };
    let names = [
        "sae_weights.safetensors",
        "layer_3/width_16k/average_l0_20/params.npz",
        "resid_post/layer_2_width_16k_l0_small/params.safetensors",
        "Llama3_1-8B-Base-L3R-8x/checkpoints/final.safetensors",
        "ae.pt",
        "model.gguf",
    ];
    let name = names[usize::from(*name) % names.len()];
    let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
    let (config, file) = rest.split_at(length);
    let config = std::str::from_utf8(config)
        .ok()
        .filter(|text| !text.is_empty());
    if let Ok(model) = Sae::from_bytes(name, file, config, &OpenOptions::default()) {
        assert!(!model.description().to_string().is_empty());
    }
}

/// An explanation export. What one label says is what the others' order cannot change.
fn labels(data: &[u8]) {
    let Ok(labels) = Labels::from_bytes(data) else {
        return;
    };
    let (mut last, mut number, mut features) = (None, 0, 0);
    for label in labels.iter() {
        assert!(last <= Some(label.feature));
        number = if last == Some(label.feature) {
            number + 1
        } else {
            0
        };
        features += usize::from(number == 0);
        last = Some(label.feature);
        assert!(!label.text.is_empty() && label.text.trim() == label.text);
        assert_eq!(labels.of(label.feature).nth(number), Some(label));
        let (text, explainer) = labels.to_c(label.feature, number).unwrap();
        assert_eq!(text.to_bytes(), label.text.as_bytes());
        assert_eq!(explainer.to_bytes(), label.explainer.as_bytes());
    }
    assert_eq!(labels.features(), features);
    let mut before = None;
    for one in labels.all_observed() {
        assert!(before < Some(one.feature));
        before = Some(one.feature);
        assert_eq!(labels.observed(one.feature), Some(one));
        assert!(one.max.is_none_or(|max| max > 0.0 && max.is_finite()));
        assert!(one.density.is_none_or(|share| (0.0..=1.0).contains(&share)));
        assert!(one.mean.is_none_or(f64::is_finite));
    }
    assert!(
        sae::steer::Statistics::from_labels(&labels).iter().count() <= labels.all_observed().len()
    );
    let highest = last.max(before).map_or(0, |feature| feature as usize + 1);
    assert!(labels.check(highest).is_ok());
    assert!(highest == 0 || labels.check(highest - 1).is_err());
}

/// A plan. What is read is written and read again as the same plan; what compiles steers, or says
/// what it misses, and never writes a value that is not finite.
fn plan(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(plan) = Plan::from_json(text) else {
        return;
    };
    let again = Plan::from_json(&plan.to_json().to_string()).expect("what was written is read");
    assert_eq!(again.hash(), plan.hash());
    let (name, file, config) = sae::doc_example::tiny();
    let options = OpenOptions::default();
    let sae = Sae::from_bytes(&name, &file, Some(&config), &options).expect("the example");
    let Ok(compiled) = sae.compile_plan(&plan) else {
        return;
    };
    let before = [3.0_f32, 4.0, -2.0, -6.0, f32::NAN, 1.0, 0.0, -0.0];
    let mut values = before;
    let mut outcomes = [Outcome::Filtered; 4];
    let mut scratch = SteerScratch::new(&sae, &compiled).expect("memory");
    let mut report = Report::new(&compiled);
    let mut batch = Batch::new(RowsMut::from_f32(&mut values, 2).expect("four rows"));
    batch.outcomes = Some(&mut outcomes);
    let steered = sae.steer(&compiled, batch, &mut scratch, &mut report);
    let rows = before.chunks(2).zip(values.chunks(2));
    for ((before, after), outcome) in rows.zip(outcomes) {
        if steered.is_ok() && matches!(outcome, Outcome::Edited | Outcome::Clipped) {
            assert!(after.iter().all(|value| value.is_finite()));
        } else {
            let bits = |row: &[f32]| [row[0].to_bits(), row[1].to_bits()];
            assert_eq!(bits(before), bits(after));
        }
    }
}

/// The data, with a checksum that fits.
fn checked(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    if let Some(body) = data.len().checked_sub(4) {
        let check = crc32fast::hash(&data[..body]);
        data[body..].copy_from_slice(&check.to_le_bytes());
    }
    data
}

/// A snapshot of statistics, of samples or of monosemanticity: what is read is written in a form that
/// reads back to the bit, and whatever is asked of it, or merged with it, is answered.
fn snapshot(data: &[u8]) {
    let data = checked(data);
    if let Ok(mut samples) = Samples::from_bytes(&data, None) {
        assert_eq!(samples.to_bytes().unwrap(), data);
        assert!(samples.to_json(|_| None).is_object());
        let other = samples.clone();
        samples.merge(&other).unwrap();
        assert_eq!(samples, other);
    }
    if let Ok(mut measure) = Monosemanticity::from_bytes(&data, None) {
        assert_eq!(measure.to_bytes().unwrap(), data);
        assert!(measure.to_json(|_| None).is_object());
        let other = measure.clone();
        measure.merge(&other).unwrap();
        assert_eq!(measure.counts().0, 2 * other.counts().0);
    }
    let Ok(mut statistics) = Accumulator::from_bytes(&data, None) else {
        return;
    };
    let written = statistics.to_bytes().unwrap();
    let again = Accumulator::from_bytes(&written, None).unwrap();
    assert_eq!(again.to_bytes().unwrap(), written);
    assert!(statistics.to_json(|_| None).is_object());
    let features: Vec<u32> = statistics.features().take(8).collect();
    let _ = statistics.statistics(&features);
    let _ = statistics.description_length();
    let _ = sae::monitor::choose::by_information(&statistics, 4);
    let _ = sae::monitor::choose::by_correlation(&statistics, 4);
    let _ = sae::monitor::choose::reason_score(&statistics, 1.0, 4);
    for &feature in &features {
        for threshold in 0..statistics.collect().thresholds.len() {
            let found = statistics.confusion(feature, threshold);
            assert!(found.is_some_and(|found| found.accuracy() <= 1.0));
        }
    }
    let other = statistics.clone();
    statistics.merge(&other).unwrap();
    assert_eq!(statistics.rows(), 2 * other.rows());
}

/// A snapshot of quality, or of a baseline of the error, of the example: what is read is written as the
/// same bytes, merges, goes on counting, and undoes what it counted.
fn quality(data: &[u8]) {
    let data = checked(data);
    let (name, file, config) = sae::doc_example::tiny();
    let sae = Sae::from_bytes(&name, &file, Some(&config), &OpenOptions::default()).unwrap();
    let mut features = sae::Features::new();
    features.push(0, 1.5).unwrap();
    features.end_row(sae::RowStatus::Ok).unwrap();
    let fired = features.row(0).unwrap();
    let (row, decoded) = ([1.0, -2.0], [0.5, -2.5]);
    if let Ok(model) = ErrorModel::from_bytes(&data) {
        assert_eq!(model.to_bytes().unwrap(), data);
        assert!(model.to_json().is_object());
        let mut scored = Quality::new(&sae).unwrap();
        match model.weights.len() == scored.d_out() {
            true => {
                scored.set_error_model(model, 3.0).unwrap();
                let found = scored.add(&row, fired, &decoded).unwrap();
                assert!(found.finite);
                assert_eq!(scored.summary().rows + scored.summary().overflows, 1);
            }
            false => assert!(scored.set_error_model(model, 3.0).is_err()),
        }
    }
    let Ok(mut quality) = Quality::from_bytes(&data, &sae) else {
        return;
    };
    assert_eq!(quality.to_bytes().unwrap(), data);
    assert_eq!(quality.snapshot_len(), data.len());
    assert!(quality.to_json().is_object());
    let before = quality.summary();
    quality.add(&row, fired, &decoded).unwrap();
    quality.remove(&row, fired, &decoded).unwrap();
    assert_eq!(quality.to_bytes().unwrap(), data);
    let other = quality.clone();
    quality.merge(&other).unwrap();
    assert_eq!(quality.summary().rows, 2 * before.rows);
}

/// Rules: what is read is written in a form that reads back as the same, and compiles or says why not.
fn rules(data: &[u8]) {
    let Ok(rules) = std::str::from_utf8(data)
        .map_err(drop)
        .and_then(|text| Rules::from_json(text).map_err(drop))
    else {
        return;
    };
    let json = rules.to_json();
    let again = Rules::from_value(&json).unwrap();
    assert_eq!(again.to_json(), json);
    assert_eq!(again.hash(), rules.hash());
    let (name, bytes, config) = sae::doc_example::tiny();
    let model = Sae::from_bytes(&name, &bytes, Some(&config), &OpenOptions::default()).unwrap();
    let _ = model.compile_rules(&rules);
}
