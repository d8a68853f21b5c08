//! `include/sae_gpu.h` is what a library with the feature `wgpu` adds, and nothing of it is in one
//! without: header, source and exported symbols agree, and a C program runs it on a device.
#![cfg(feature = "wgpu")]

#[path = "c/support.rs"]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use support::{NATIVE_LIBRARIES, WARNINGS, cases, folder, root, run, tool};

/// The folder with a libsae that has the feature, built beside this test, which has it too.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "-p", "sae-ffi", "--features", "wgpu"]);
        run(cargo.env("CARGO_TARGET_DIR", target).current_dir(root()));
        target.join("debug")
    })
}

/// The words behind `start` in a text.
fn names(text: &str, start: &str) -> BTreeSet<String> {
    let name = |rest: &str| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        format!("sae_gpu_{}", &rest[..end.unwrap_or(rest.len())])
    };
    text.split(start).skip(1).map(name).collect()
}

fn header() -> String {
    fs::read_to_string(root().join("include/sae_gpu.h")).unwrap()
}

/// The functions of the header.
fn declared() -> BTreeSet<String> {
    let text = header();
    let functions = text.split("SAE_API ").skip(1);
    let prototype = |text: &str| text.split(';').next().unwrap().to_string();
    let heads: Vec<String> = functions.map(prototype).collect();
    heads
        .iter()
        .flat_map(|head| names(head.split('(').next().unwrap(), "sae_gpu_"))
        .collect()
}

#[test]
fn header_source_and_symbols_agree() {
    let declared = declared();
    assert!(declared.len() > 15, "does the reader still work?");
    let source = fs::read_to_string(root().join("ffi/src/gpu.rs")).unwrap();
    assert_eq!(
        declared,
        names(&source, "pub unsafe extern \"C\" fn sae_gpu_")
    );
    // Parameters, by name and in order.
    let flat = |text: &str| -> Vec<String> {
        let word = |one: &str| {
            let one = one.trim();
            let start = one.rfind(|c: char| !c.is_alphanumeric() && c != '_');
            one[start.map_or(0, |start| start + 1)..].to_string()
        };
        text.split(',')
            .map(str::trim)
            .filter(|one| !one.is_empty())
            .map(word)
            .collect()
    };
    let header = header();
    for name in &declared {
        let in_c = header.split(&format!("{name}(")).nth(1).unwrap();
        let in_c = flat(in_c.split(')').next().unwrap());
        let in_rust = source.split(&format!("fn {name}(")).nth(1).unwrap();
        let in_rust = in_rust.split(") ").next().unwrap().trim_end_matches(')');
        let before_type = |one: &str| one.split(':').next().unwrap().to_string();
        let in_rust: String = in_rust
            .split(',')
            .map(before_type)
            .collect::<Vec<_>>()
            .join(",");
        assert_eq!(in_c, flat(&in_rust), "{name}");
    }
    let Some(nm) = tool("nm") else { return };
    let file = library().join("libsae.so");
    let symbols = run(Command::new(nm).args(["-D", "--defined-only"]).arg(file));
    let exported = symbols.lines().map(|line| line.rsplit(' ').next().unwrap());
    let exported: BTreeSet<String> = exported
        .filter(|name| name.starts_with("sae_gpu_"))
        .map(str::to_string)
        .collect();
    assert_eq!(exported, declared);
}

#[test]
fn every_function_has_a_comment_and_compiles_without_a_warning() {
    let text = header();
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let item = line.starts_with("SAE_API") || line.starts_with("typedef");
        let commented = at > 0 && lines[at - 1].trim_end().ends_with("*/");
        assert!(!item || commented, "`{line}` has no comment");
    }
    for (compiler, language, standard) in [("cc", "c", "c11"), ("c++", "c++", "c++17")] {
        let Some(compiler) = tool(compiler) else {
            continue;
        };
        let mut command = Command::new(compiler);
        command.arg(format!("-std={standard}")).args(WARNINGS);
        command.args(["-fsyntax-only", "-x", language, "-I"]);
        command.arg(root().join("include"));
        run(command.arg(root().join("include/sae_gpu.h")));
    }
}

#[test]
fn a_c_program_encodes_on_a_device() {
    let Some(compiler) = tool("cc") else { return };
    let out = folder("programs").join("gpu");
    let mut command = Command::new(compiler);
    command
        .args(["-std=c11", "-g", "-Wstrict-prototypes"])
        .args(WARNINGS)
        .arg("-I");
    command.arg(root().join("include"));
    command.arg(root().join("tests/c/gpu.c"));
    command.arg(library().join("libsae.a"));
    run(command.args(NATIVE_LIBRARIES).arg("-o").arg(&out));
    for case in cases() {
        let output = Command::new(&out)
            .arg(&case.file)
            .arg(&case.rows)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.code() == Some(77) {
            println!("skipped: wgpu from C ({})", text.trim());
            assert!(
                std::env::var_os("SAE_REQUIRE_TOOLS").is_none(),
                "a GPU adapter is required"
            );
            return;
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {text}\n{errors}", case.name);
        println!("{}: {}", case.name, text.trim());
    }
}
