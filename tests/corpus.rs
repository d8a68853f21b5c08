//! Replays the corpora of the fuzz targets (`tests/fuzz/`), and every hostile file through every
//! target: a finding of the past stays found.
#![cfg(all(feature = "torch", feature = "gzip", feature = "yaml"))]

use std::fs;
use std::path::{Path, PathBuf};

#[path = "fuzz/exercise.rs"]
mod exercise;

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn the_corpora_pass() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut hostile = Vec::new();
    files(&tests.join("data/hostile"), &mut hostile);
    files(&tests.join("data/pack"), &mut hostile);
    for target in exercise::TARGETS {
        let mut corpus = Vec::new();
        let folder = tests.join("fuzz/corpus").join(target);
        if folder.exists() {
            files(&folder, &mut corpus);
        }
        for path in hostile.iter().chain(&corpus) {
            let data = fs::read(path).unwrap();
            let result = std::panic::catch_unwind(|| exercise::run(target, &data));
            assert!(result.is_ok(), "{target}: {}", path.display());
        }
    }
}

#[test]
fn every_target_is_replayed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/fuzz_targets");
    let mut targets: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    targets.sort();
    let mut replayed = exercise::TARGETS;
    replayed.sort();
    assert_eq!(targets, replayed);
}
