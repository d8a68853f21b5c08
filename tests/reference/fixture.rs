//! The cases of `tests/data/fixtures`: checkpoint, rows, goldens.

use super::model::{self, Model};
use super::read::{self, Arrays};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// One case.
#[derive(Debug)]
pub(crate) struct Case {
    /// Path of its folder below `fixtures`, with `/`.
    pub(crate) name: String,
    /// What `Sae::open` is given.
    pub(crate) checkpoint: PathBuf,
    /// `case.json`
    pub(crate) json: Value,
    /// What the caller gives (`OpenOptions::set`).
    pub(crate) given: Vec<(String, String)>,
    /// The activation rows, `[n, d_in]`.
    pub(crate) rows: Vec<f32>,
    pub(crate) n: usize,
    pub(crate) d_in: usize,
    pub(crate) d_sae: usize,
    pub(crate) d_out: usize,
    golden: Arrays,
}

/// Architectures of the cases that [`cases`] leaves out, with the reason.
const NOT_A_DOT_PRODUCT: &str = "matching_pursuit"; // an iteration; it has a reference of its own

/// Formats that this reference reads; `tests/conventions.rs` has the others.
const FORMATS: &[&str] = &["saelens", "gemma_scope_1"];

/// `tests/data`
fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// A line `digest  name` of digests.txt.
pub(crate) fn digests() -> Vec<(String, String)> {
    let text = fs::read_to_string(data().join("digests.txt")).unwrap();
    let line = |line: &str| {
        let (digest, name) = line.split_once("  ").unwrap();
        (name.to_string(), digest.to_string())
    };
    text.lines().map(line).collect()
}

/// All cases in order of name.
pub(crate) fn cases() -> Vec<Case> {
    let mut folders = Vec::new();
    let root = data().join("fixtures");
    collect(&root, &mut folders);
    let mut cases: Vec<Case> = folders
        .iter()
        .filter_map(|folder| read_case(&root, folder))
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!cases.is_empty());
    cases
}

/// The case of that name.
pub(crate) fn case(name: &str) -> Case {
    let root = data().join("fixtures");
    read_case(&root, &root.join(name)).expect(name)
}

/// Folders below `folder` that hold a `case.json`.
fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    if folder.join("case.json").exists() {
        found.push(folder.to_path_buf());
        return;
    }
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        }
    }
}

fn read_case(root: &Path, folder: &Path) -> Option<Case> {
    let json: Value = serde_json::from_slice(&fs::read(folder.join("case.json")).unwrap()).unwrap();
    let read = FORMATS.contains(&json["format"].as_str().unwrap());
    if !read || json["architecture"] == NOT_A_DOT_PRODUCT {
        return None;
    }
    let name = folder.strip_prefix(root).unwrap().to_str().unwrap();
    let name = name.replace('\\', "/");
    let first = json["files"][0].as_str().unwrap();
    let files = match folder.join(first).exists() {
        true => folder.to_path_buf(),
        // The tool embeds this one.
        false => Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/bin/sae")
            .join(&name),
    };
    let text = |key: &str, default: &str| json[key].as_str().unwrap_or(default).to_string();
    let rows = read::npy(&fs::read(files.join(text("inputs", "inputs.npy"))).unwrap());
    let size = |key: &str| json[key].as_u64().unwrap() as usize;
    assert_eq!(rows.shape, [size("n"), size("d_in")]);
    let given = json["open_with"].as_object().into_iter().flatten();
    Some(Case {
        checkpoint: match text("checkpoint", "").as_str() {
            "" => files.clone(),
            below => files.join(below),
        },
        given: given.map(|(k, v)| (k.clone(), v.to_string())).collect(),
        rows: rows.f32_values(),
        n: size("n"),
        d_in: size("d_in"),
        d_sae: size("d_sae"),
        d_out: size("d_out"),
        golden: read::npz(&fs::read(folder.join("golden.npz")).unwrap()),
        name,
        json,
    })
}

impl Case {
    /// Row `row`.
    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.rows[row * self.d_in..][..self.d_in]
    }

    /// The same, widened.
    pub(crate) fn row64(&self, row: usize) -> Vec<f64> {
        self.row(row).iter().map(|&x| f64::from(x)).collect()
    }

    /// A golden matrix row by row, dense, whichever way it is stored; None if it is not there.
    pub(crate) fn golden(&self, name: &str) -> Option<Vec<Vec<f64>>> {
        if let Some(dense) = self.golden.get(name) {
            assert_eq!(dense.shape[0], self.n, "{}: {name}", self.name);
            let width = dense.shape[1];
            return Some(dense.values.chunks_exact(width).map(Vec::from).collect());
        }
        let part = |part: &str| self.golden.get(&format!("{name}_{part}"));
        let width = part("shape")?.values[1] as usize;
        let (ends, indices) = (&part("indptr")?.values, &part("indices")?.values);
        let values = &part("values")?.values;
        let rows = ends.windows(2).map(|ends| {
            let mut row = vec![0.0; width];
            for entry in ends[0] as usize..ends[1] as usize {
                row[indices[entry] as usize] = values[entry];
            }
            row
        });
        Some(rows.collect())
    }

    /// The reference model, from the same files.
    pub(crate) fn model(&self) -> Model {
        self.model_with(&self.given)
    }

    /// The reference model, with other values given by the caller.
    pub(crate) fn model_with(&self, given: &[(String, String)]) -> Model {
        match self.json["format"].as_str().unwrap() {
            "saelens" => {
                let file = |name: &str| fs::read(self.checkpoint.join(name)).unwrap();
                let config = serde_json::from_slice(&file("cfg.json")).unwrap();
                let tensors = read::safetensors(&file("sae_weights.safetensors"));
                model::saelens(&tensors, &config, given)
            }
            "gemma_scope_1" => {
                let arrays = read::npz(&fs::read(&self.checkpoint).unwrap());
                let parts = self.checkpoint.components();
                let embedding = parts.map(|part| part.as_os_str()).any(|p| p == "embedding");
                model::gemma_scope(&arrays, embedding)
            }
            other => panic!("{}: no reference for the format {other}", self.name),
        }
    }
}
