//! What the tests of the C library share: the built library, the tools that are installed, and
//! running a command.

#![allow(dead_code)] // each test program uses a part of it

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder for the outputs of one test.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c").join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A tool on the PATH. A missing one is named as skipped, or fails the test where
/// `SAE_REQUIRE_TOOLS` is set.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        let required = std::env::var_os("SAE_REQUIRE_TOOLS").is_some();
        assert!(!required, "`{name}` is not installed");
        println!("skipped: what needs `{name}` (not installed)");
    }
    found
}

/// Runs a command that must succeed and returns what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<&str> = text.lines().rev().take(5).collect();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{tail:?}\n{errors}",
        output.status
    );
    text
}

/// How the library is built.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    /// With overflow checks and debug assertions.
    Dev,
    /// As it ships.
    Release,
}

/// The folder with libsae.a and libsae.so, built once per process.
pub(crate) fn library(profile: Profile) -> &'static Path {
    static DEV: OnceLock<PathBuf> = OnceLock::new();
    static RELEASE: OnceLock<PathBuf> = OnceLock::new();
    let (built, folder, flags) = match profile {
        Profile::Dev => (&DEV, "debug", &[][..]),
        Profile::Release => (&RELEASE, "release", &["--release"][..]),
    };
    built.get_or_init(|| {
        // A target folder of its own, which the README's test uses too.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme-c-target");
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["build", "--quiet", "-p", "sae-ffi"])
            .args(flags);
        run(cargo.env("CARGO_TARGET_DIR", &target).current_dir(root()));
        target.join(folder)
    })
}

/// What a program that uses the static library is linked with besides.
pub(crate) const NATIVE_LIBRARIES: &[&str] = &["-lpthread", "-ldl", "-lm"];

/// Warnings that are errors in every C and C++ file here.
pub(crate) const WARNINGS: &[&str] = &["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// Builds a C or C++ program with the static library and returns its path; `None` without a
/// compiler.
pub(crate) fn program(
    source: &str,
    name: &str,
    profile: Profile,
    flags: &[&str],
) -> Option<PathBuf> {
    let cpp = source.ends_with(".cpp");
    let compiler = tool(if cpp { "c++" } else { "cc" })?;
    let out = folder("programs").join(name);
    let mut command = Command::new(compiler);
    if !cpp {
        command.args(["-std=c11", "-Wstrict-prototypes"]);
    }
    command.arg("-g").args(WARNINGS).args(flags).arg("-I");
    command.arg(root().join("include"));
    command.arg(root().join(source));
    command.arg(library(profile).join("libsae.a"));
    run(command.args(NATIVE_LIBRARIES).arg("-o").arg(&out));
    Some(out)
}

/// A checkpoint of the fixtures, with its rows as raw f32.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The checkpoint's weights file.
    pub(crate) file: PathBuf,
    /// The folder as it was downloaded.
    pub(crate) folder: PathBuf,
    /// The rows in a file.
    pub(crate) rows: PathBuf,
    pub(crate) values: Vec<f32>,
}

/// The cases that the programs run on: both containers, both layouts of the encoder, a threshold
/// and a top-k rule, and one whose decoding needs the inputs.
pub(crate) fn cases() -> Vec<Case> {
    [
        ("saelens_jumprelu", "sae_weights.safetensors"),
        ("saelens_topk", "sae_weights.safetensors"),
        ("saelens_standard_layer_norm", "sae_weights.safetensors"),
        (
            "gemma_scope_1_res",
            "layer_3/width_16k/average_l0_20/params.npz",
        ),
    ]
    .map(|(name, file)| case(name, file))
    .into()
}

/// One case; `file` is its weights file, or "" for its folder.
pub(crate) fn case(name: &'static str, file: &str) -> Case {
    let fixture = root().join("tests/data/fixtures").join(name);
    let file = fixture.join(file);
    let npy = fs::read(fixture.join("inputs.npy")).unwrap();
    // Version 1 of the format: magic, version, a 16-bit header length, the header, the data.
    let header = usize::from(u16::from_le_bytes([npy[8], npy[9]]));
    let text = String::from_utf8_lossy(&npy[10..10 + header]);
    assert!(text.contains("'<f4'") && text.contains("'fortran_order': False"));
    let data = &npy[10 + header..];
    let rows = folder("rows").join(format!("{name}.f32"));
    // Two test programs may write it at once: each its own file, moved into place.
    let mine = rows.with_extension(std::process::id().to_string());
    fs::write(&mine, data).unwrap();
    fs::rename(&mine, &rows).unwrap();
    let values = data
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    Case {
        name,
        folder: file.parent().unwrap().to_path_buf(),
        file,
        rows,
        values,
    }
}

/// Runs a program under valgrind, which fails on every error and leak.
pub(crate) fn valgrind(valgrind: &Path, program: &Path, arguments: &[&OsStr]) -> String {
    let flags = ["-q", "--error-exitcode=1", "--leak-check=full"];
    let mut command = Command::new(valgrind);
    command.args(flags).arg("--track-origins=yes");
    // A leak that is merely reachable at the end is one too.
    command.args(["--show-leak-kinds=all", "--errors-for-leak-kinds=all"]);
    run(command.arg(program).args(arguments))
}
