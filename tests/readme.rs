//! The README's code, verbatim, in an empty folder: the Rust program as a project of its own that
//! depends on this crate, the C program against the header and the static library.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The target folder that this test was built in; what was built there is not built again.
fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

/// The README's first code block in a language.
fn block(language: &str) -> String {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let start = format!("```{language}\n");
    let code = text
        .split_once(&start)
        .expect("the README has such a block")
        .1;
    code.split_once("```").unwrap().0.to_string()
}

/// A new folder that holds the checkpoint under the path that the programs open.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    let checkpoint = folder.join("layer_12/width_16k/average_l0_82");
    fs::create_dir_all(&checkpoint).unwrap();
    let fixture = root().join("tests/data/fixtures/gemma_scope_1_res");
    let case = fs::read(fixture.join("case.json")).unwrap();
    let case: serde_json::Value = serde_json::from_slice(&case).unwrap();
    let weights = fixture.join(case["checkpoint"].as_str().unwrap());
    fs::copy(weights, checkpoint.join("params.npz")).unwrap();
    folder
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{text}\n{errors}");
    text
}

fn lists_features(text: &str) {
    assert!(!text.is_empty());
    for line in text.lines() {
        let rest = line
            .strip_prefix("feature ")
            .unwrap_or_else(|| panic!("`{line}`"));
        let (index, value) = rest.split_once(": ").unwrap();
        assert!(index.parse::<u32>().unwrap() < 1 << 20);
        assert!(value.parse::<f32>().unwrap() > 0.0);
    }
}

#[test]
fn the_rust_program_runs() {
    let folder = folder("readme-rust");
    let program = block("rust");
    assert!(
        program.lines().count() <= 14,
        "a newcomer needs no more than that"
    );
    fs::create_dir_all(folder.join("src")).unwrap();
    fs::write(folder.join("src/main.rs"), program).unwrap();
    let manifest = format!(
        "[package]\nname = \"newcomer\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\nsae = {{ path = {:?} }}\n\n[workspace]\n\n\
         [profile.dev]\nopt-level = 1\n",
        root()
    );
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let text = run(Command::new(env!("CARGO"))
        .args(["run", "--quiet"])
        .env("CARGO_TARGET_DIR", target())
        .current_dir(&folder));
    lists_features(&text);
}

#[test]
fn the_c_program_runs() {
    let Ok(_) = Command::new("cc").arg("--version").output() else {
        assert!(
            std::env::var_os("SAE_REQUIRE_TOOLS").is_none(),
            "no C compiler"
        );
        println!("skipped: the README's C program (no C compiler)");
        return;
    };
    let folder = folder("readme-c");
    run(Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "-p", "sae-ffi"])
        .env("CARGO_TARGET_DIR", target())
        .current_dir(root()));
    fs::write(folder.join("features.c"), block("c")).unwrap();
    run(Command::new("cc")
        .args([
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "-I",
        ])
        .arg(root().join("include"))
        .arg("features.c")
        .arg(target().join("release/libsae.a"))
        .args(["-lpthread", "-ldl", "-lm", "-o", "features"])
        .current_dir(&folder));
    lists_features(&run(Command::new("./features").current_dir(&folder)));
}
