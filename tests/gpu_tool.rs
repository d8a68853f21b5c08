//! `sae inspect --gpu`: what a device holds, and what the host keeps.

use serde_json::Value;
use std::process::{Command, Output};

fn inspect(arguments: &[&str]) -> Output {
    let root = env!("CARGO_MANIFEST_DIR");
    let model = format!("{root}/tests/data/fixtures/saelens_topk");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sae"));
    command.args(["inspect", &model]).args(arguments);
    command.output().unwrap()
}

#[test]
fn inspect_tells_what_is_held_where() {
    let output = inspect(&["--gpu"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("no GPU adapter") {
        println!("skipped: wgpu in the tool ({})", errors.trim());
        assert!(std::env::var_os("SAE_REQUIRE_TOOLS").is_none(), "{errors}");
        return;
    }
    assert!(output.status.success(), "{errors}");
    let plain = String::from_utf8(output.stdout).unwrap();
    let line = plain.lines().find(|line| line.starts_with("gpu: "));
    let line = line.expect("a line about the GPU");
    assert!(
        line.contains(" holds ") && line.contains("; the host keeps "),
        "{line}"
    );
    let json = inspect(&["--gpu", "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let (encoder, gpu) = (
        json["d_in"].as_u64().unwrap() * json["d_sae"].as_u64().unwrap(),
        &json["gpu"],
    );
    assert!(
        gpu["device_bytes"].as_u64().unwrap() >= encoder * 2,
        "{gpu}"
    );
    assert!(gpu["host_bytes"].as_u64().unwrap() >= encoder * 2, "{gpu}");
    assert!(line.contains(gpu["adapter"].as_str().unwrap()), "{line}");
}

#[test]
fn an_adapter_that_is_not_there_is_an_error() {
    let output = inspect(&["--gpu", "no such adapter"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    let start = "error: no GPU adapter: asked for `no such adapter`, found ";
    assert!(errors.contains(start), "{errors}");
    // Without the option nothing is opened.
    let plain = String::from_utf8(inspect(&[]).stdout).unwrap();
    assert!(!plain.contains("gpu: "), "{plain}");
}
