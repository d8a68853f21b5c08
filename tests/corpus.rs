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

/// Snapshots of everything there is to collect, whole, cut and with each byte changed.
#[test]
fn snapshots_with_any_byte_changed_pass() {
    use sae::monitor::{Accumulator, Bins, Collect, RowInfo};
    let (name, bytes, config) = sae::doc_example::tiny();
    let options = sae::OpenOptions::default();
    let model = sae::Sae::from_bytes(&name, &bytes, Some(&config), &options).unwrap();
    let log = Bins::Log {
        split: 0,
        first: -2,
        end: 2,
    };
    let everything = Collect::all(&model)
        .histogram(log)
        .top(2)
        .cooccurrence(&[0, 2])
        .conditions(3)
        .label()
        .thresholds(&[0.0, 1.0])
        .half_life(4.0);
    for collect in [Collect::features(&model, &[1]), everything] {
        let mut statistics = Accumulator::new(collect).unwrap();
        let mut features = sae::Features::new();
        for row in 0..9u32 {
            features.push(row % 3, row as f32 / 4.0).unwrap();
            features.end_row(sae::RowStatus::Ok).unwrap();
        }
        let info = |row: u64| {
            RowInfo::new(0, row)
                .label(row as f64 / 8.0)
                .condition(row as u32 % 3)
        };
        let infos: Vec<RowInfo> = (0..9).map(info).collect();
        statistics.add_all(&features, &infos).unwrap();
        changed("snapshot", &statistics.to_bytes().unwrap());
    }
}

/// Whole, cut at every byte, and with each byte changed.
fn changed(target: &str, snapshot: &[u8]) {
    exercise::run(target, snapshot);
    for at in 0..snapshot.len() {
        exercise::run(target, &snapshot[..at]);
        for change in [1, 0x80, 0xff] {
            let mut changed = snapshot.to_vec();
            changed[at] ^= change;
            exercise::run(target, &changed);
        }
    }
}

/// Those of the corpora, which hold what there is: quality about a streamed mean, about a known one,
/// scored by a baseline; baselines; samples; monosemanticity.
#[test]
fn other_snapshots_with_any_byte_changed_pass() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let mut held = Vec::new();
    for target in ["quality", "snapshot"] {
        let mut found = Vec::new();
        files(&corpus.join(target), &mut found);
        for path in found {
            let bytes = fs::read(&path).unwrap();
            held.push(String::from_utf8_lossy(&bytes[..8.min(bytes.len())]).into_owned());
            changed(target, &bytes);
        }
    }
    for magic in ["SAEQUALI", "SAEERROR", "SAESAMPL", "SAEMONOS", "SAESTATS"] {
        assert!(held.iter().any(|found| found == magic), "no {magic}");
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
