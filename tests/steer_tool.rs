//! `sae steer`, run as a person or a script runs it.
#![cfg(feature = "cli")]

use sae::steer::Plan;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn steer(arguments: &[&str]) -> Output {
    let checkpoint = format!("{ROOT}/src/bin/sae/demo/sae");
    Command::new(env!("CARGO_BIN_EXE_sae"))
        .args(["steer", &checkpoint, &rows()])
        .args(arguments)
        .output()
        .unwrap()
}

fn rows() -> String {
    format!("{ROOT}/src/bin/sae/demo/activations.npy")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("steer_tool")
        .join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn file(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().into()
}

/// The data of an npy file of version 1.
fn data(path: &str) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let length = u16::from_le_bytes([bytes[8], bytes[9]]);
    bytes[10 + usize::from(length)..].to_vec()
}

#[test]
fn rows_are_steered_and_reported() {
    let folder = folder("steered");
    let plan_text = r#"{"name": "add", "edits": [{"feature": 5, "rule": "add", "strength": 2}],
        "rows": {"skip_first": 1}}"#;
    let plan = file(&folder, "plan.json", plan_text);
    let out = folder.join("out.npy").to_str().unwrap().to_string();
    let output = steer(&["--plan", &plan, "-o", &out, "--report"]);
    assert_eq!(text(&output.stderr), "");
    assert!(output.status.success());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let n = report["rows"].as_u64().unwrap();
    assert!(n > 1);
    assert_eq!(report["outcomes"]["filtered"], 1);
    assert_eq!(report["outcomes"]["edited"], n - 1);
    assert_eq!(report["plans"][0]["name"], "add");
    let hash = format!("{:016x}", Plan::from_json(plan_text).unwrap().hash());
    assert_eq!(report["plans"][0]["hash"], hash.as_str());
    assert_eq!(report["cost"]["decoder_rows"], 1);
    let (before, after) = (data(&rows()), data(&out));
    assert_eq!(before.len(), after.len());
    let width = before.len() / n as usize;
    assert_eq!(before[..width], after[..width]);
    for row in 1..n as usize {
        assert_ne!(
            before[row * width..][..width],
            after[row * width..][..width]
        );
    }
}

#[test]
fn a_dry_run_writes_nothing() {
    let folder = folder("dry");
    let plan = file(&folder, "plan.json", r#"{"error": "drop"}"#);
    let output = steer(&["--plan", &plan, "--dry-run"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["cost"]["needs_encode"], true);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}

#[test]
fn mistakes_are_told_with_file_and_place() {
    let folder = folder("mistakes");
    let out = folder.join("out.npy").to_str().unwrap().to_string();
    let run = |content: &str| {
        let plan = file(&folder, "plan.json", content);
        let output = steer(&["--plan", &plan, "-o", &out]);
        assert_eq!(output.status.code(), Some(1));
        let message = text(&output.stderr);
        assert!(
            message.starts_with(&format!("error: {plan}: ")),
            "{message}"
        );
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(!Path::new(&out).exists());
        message
    };
    assert!(run("{").contains("malformed json"));
    assert!(run(r#"{"edits": [{"feature": 99999999, "rule": "zero"}]}"#).contains("`edits[0]"));
    assert!(run(r#"{"edit": []}"#).contains("edit"));
    let relative = r#"{"edits": [{"feature": 1, "rule": "set",
        "strength": {"value": 2, "of": "corpus_max"}}]}"#;
    assert!(run(relative).contains("`edits[0].strength`"));
    // The statistics may come from a file of their own.
    let plan = file(&folder, "plan.json", relative);
    let statistics = file(&folder, "statistics.json", r#"{"1": {"max": 3.5}}"#);
    let output = steer(&["--plan", &plan, "--statistics", &statistics, "-o", &out]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    // Two plans for one feature, and a policy.
    let both = [
        "--plan",
        &plan,
        "--plan",
        &plan,
        "--statistics",
        &statistics,
    ];
    let output = steer(&[&both[..], &["-o", &out]].concat());
    assert!(text(&output.stderr).contains("`plans[1].edits`"));
    let output = steer(&[&both[..], &["-o", &out, "--conflicts", "last"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    // Never over an input.
    let output = steer(&["--plan", &plan, "--statistics", &statistics, "-o", &plan]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read_to_string(&plan).unwrap(), relative);
}

fn decompose(vector: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sae"))
        .args(["decompose", &format!("{ROOT}/src/bin/sae/demo/sae"), vector])
        .args(arguments)
        .output()
        .unwrap()
}

/// A vector that adds a feature and takes another away, as a file for llama.cpp and as npy.
#[test]
fn vectors_are_decomposed() {
    let folder = folder("decompose");
    let options = sae::OpenOptions::default();
    let sae = sae::Sae::open(format!("{ROOT}/src/bin/sae/demo/sae"), &options).unwrap();
    let plan = Plan::from_json(
        r#"{"edits": [{"feature": 5, "rule": "add", "strength": 3},
            {"feature": 40, "rule": "add", "strength": -2}]}"#,
    );
    let plan = sae.compile_plan(&plan.unwrap()).unwrap();
    let vector = sae.constant_vector(&plan).unwrap();
    let control = folder.join("control.gguf");
    let mut file = sae::control_vector::ControlVector::default();
    file.directions.insert(12, vector.clone());
    file.write(&control).unwrap();
    let npy = folder.join("vectors.npy");
    let opposite = vector.iter().map(|value| -value);
    let both: Vec<f32> = vector.iter().copied().chain(opposite).collect();
    let bytes: Vec<u8> = both.iter().flat_map(|value| value.to_le_bytes()).collect();
    sae::container::npy_write::write_npy(&npy, sae::Dtype::F32, &[2, vector.len()], &bytes)
        .unwrap();
    let (control, npy) = (control.to_str().unwrap(), npy.to_str().unwrap());

    let check = |output: Output, sign: f64| {
        assert_eq!(text(&output.stderr), "");
        assert!(output.status.success());
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        for (place, feature, strength) in [(0, 5, 3.0), (1, 40, -2.0)] {
            let parts = found["parts"].as_array().unwrap();
            let part = parts.iter().find(|part| part["feature"] == feature);
            let part = part.unwrap_or_else(|| panic!("no feature {feature}, place {place}"));
            let error = part["strength"].as_f64().unwrap() - sign * strength;
            assert!(error.abs() < 1e-3, "{part}");
            assert_eq!(
                part["cosine"].as_f64().unwrap() > 0.0,
                sign * strength > 0.0
            );
        }
        assert!(found["explained"].as_f64().unwrap() > 0.999);
        assert_eq!(found["along"].as_array().unwrap().len(), 8);
        assert!(found["against"][0]["cosine"].as_f64().unwrap() < 0.0);
    };
    check(decompose(control, &["--json"]), 1.0);
    check(decompose(npy, &["--row", "1", "--json"]), -1.0);

    // The plan adds the vector again.
    let plan = folder.join("plan.json");
    let plan = plan.to_str().unwrap();
    let output = decompose(npy, &["--row", "0", "--plan", plan, "--top", "2"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(
        table.contains("feature\tlength\tstrength\tcosine\n"),
        "{table}"
    );
    assert!(
        table.contains("\nagainst\nfeature\tcosine\tprojection\n"),
        "{table}"
    );
    let read = Plan::from_json(&fs::read_to_string(plan).unwrap()).unwrap();
    let back = sae
        .constant_vector(&sae.compile_plan(&read).unwrap())
        .unwrap();
    for (back, expected) in back.iter().zip(&vector) {
        assert!((back - expected).abs() < 1e-3);
    }

    // Mistakes name the file.
    for (vector, arguments) in [
        (npy, vec![]),
        (npy, vec!["--row", "2"]),
        (npy, vec!["--layer", "12"]),
        (control, vec!["--layer", "13"]),
        (&*rows(), vec![]),
    ] {
        let output = decompose(vector, &arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let message = text(&output.stderr);
        assert!(
            message.starts_with(&format!("error: {vector}: ")),
            "{message}"
        );
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let output = decompose(npy, &["--row", "0", "--plan", npy]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(decompose(npy, &["-k", "0"]).status.code(), Some(2));
}
