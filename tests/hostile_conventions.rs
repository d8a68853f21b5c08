//! Every case of `tests/data/hostile`, opened through the public API as a user would: those that
//! load match their goldens, the others are refused with the kind of error that `case.json` names.
#![cfg(all(feature = "std", feature = "torch"))]

mod publishers;

use publishers::Reading;
use publishers::case::{self, Case};
use publishers::readings::jump;
use sae::{Code, OpenOptions, Sae};
use std::path::Path;

/// The reading of a case that loads: a plain ReLU SAE under the names of one of three publishers,
/// or a JumpReLU one.
fn reading(case: &Case) -> Reading {
    let mut t = case.tensors();
    for (key, name) in [("w_enc", "W_enc"), ("w_dec", "W_dec")] {
        if let Some(array) = t.remove(key) {
            t.insert(name.into(), array);
        }
    }
    for name in ["encoder.weight", "encoder.bias", "decoder.weight", "bias"] {
        if let Some(array) = t.remove(&format!("state_dict.{name}")) {
            t.insert(name.into(), array);
        }
    }
    let torch = t.contains_key("encoder.weight");
    let mut reading = match torch {
        true => Reading::new(t["encoder.weight"].rows(), t["decoder.weight"].columns()),
        false => Reading::new(t["W_enc"].columns(), t["W_dec"].rows()),
    };
    let names = if torch {
        ["encoder.bias", "bias"]
    } else {
        ["b_enc", "b_dec"]
    };
    reading.bias = t[names[0]].values.clone();
    reading.b_dec = t[names[1]].values.clone();
    if !case.name.starts_with("npz_") {
        reading.centre = Some(reading.b_dec.clone());
    }
    if let Some(threshold) = t.get("threshold") {
        reading.rule = jump(threshold.values.clone(), true);
    }
    reading
}

fn codes(kind: &str) -> &'static [Code] {
    match kind {
        "malformed" => &[Code::Malformed],
        "truncated" => &[Code::Truncated],
        "corrupt" => &[Code::Corrupt],
        // A value of a key that is not supported is an invalid one here.
        "unsupported" => &[Code::Unsupported, Code::InvalidValue],
        "unsafe pickle" => &[Code::UnsafePickle],
        "missing tensor" => &[Code::MissingTensor],
        "missing field" => &[Code::MissingKey],
        "shape mismatch" => &[Code::Shape],
        "invalid value" => &[Code::InvalidValue],
        "error" | "load" => &[],
        other => panic!("unknown error_kind {other}"),
    }
}

#[test]
fn every_case_behaves_as_its_case_json_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hostile");
    let (mut loaded, mut refused, mut wrong) = (0, 0, Vec::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let folder = entry.unwrap().path();
        let json = std::fs::read(folder.join("case.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let name = json["case"].as_str().unwrap();
        // The folder holds the golden too, so the file is named.
        let mut files = json["files"].as_array().unwrap().iter();
        let file = files.find(|file| !file.as_str().unwrap().ends_with(".json"));
        let path = folder.join(file.unwrap().as_str().unwrap());
        let opened = Sae::open(&path, &OpenOptions::default());
        let expects_load = json["expect"] == "load";
        match opened {
            Ok(sae) if expects_load => {
                let case = case::read(&folder);
                let reading = reading(&case);
                let (found, y) = case::results(&case, &sae);
                let golden = case.golden("features").unwrap();
                let golden_y = case.golden("recon").unwrap();
                for row in 0..case.n {
                    let x = case.row(row);
                    let differences = case::differences(
                        &reading,
                        &x,
                        &found[row],
                        &y[row],
                        &golden[row],
                        &golden_y[row],
                    );
                    if let Some(first) = differences.first() {
                        wrong.push(format!("{name}: row {row}, {first}"));
                    }
                }
                loaded += 1;
            }
            Ok(_) => wrong.push(format!("{name}: it opened")),
            Err(error) if expects_load => wrong.push(format!("{name}: {error}")),
            Err(error) => {
                let also = json["also_accept"].as_array().into_iter().flatten();
                let mut kinds = [&json["error_kind"]].into_iter().chain(also);
                let right = kinds.any(|kind| codes(kind.as_str().unwrap()).contains(&error.code()));
                if !right {
                    wrong.push(format!("{name}: {:?}: {error}", error.code()));
                }
                refused += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((loaded, refused), (26, 56));
    assert!(!Path::new("HOSTILE_PICKLE_RAN").exists());
}
