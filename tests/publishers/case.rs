//! The cases of `tests/data/fixtures`.

use sae::bytes::Bytes;
use sae::container::{self, Check};
use sae::{Features, Rows, Sae, Scratch};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Formats whose cases `tests/golden.rs` compares, more strictly.
pub(crate) const ELSEWHERE: &[&str] = &["saelens", "gemma_scope_1"];

/// A tensor widened to f64, row-major.
#[derive(Clone, Debug)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

impl Array {
    /// The rows of a matrix.
    pub(crate) fn rows(&self) -> Vec<Vec<f64>> {
        let width = *self.shape.last().unwrap();
        self.values.chunks_exact(width).map(Vec::from).collect()
    }

    /// The columns of a matrix.
    pub(crate) fn columns(&self) -> Vec<Vec<f64>> {
        transposed(&self.rows())
    }
}

pub(crate) fn transposed(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let column = |c: usize| rows.iter().map(|row| row[c]).collect();
    (0..rows[0].len()).map(column).collect()
}

pub(crate) type Arrays = BTreeMap<String, Array>;

#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) json: Value,
    pub(crate) folder: PathBuf,
    pub(crate) checkpoint: PathBuf,
    pub(crate) given: Vec<(String, String)>,
    pub(crate) rows: Vec<f32>,
    pub(crate) n: usize,
    pub(crate) d_in: usize,
    pub(crate) d_sae: usize,
    pub(crate) d_out: usize,
    golden: Arrays,
}

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fixtures")
}

/// All cases, in order of name.
pub(crate) fn cases() -> Vec<Case> {
    let mut names: Vec<PathBuf> = fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|folder| folder.join("case.json").exists())
        .collect();
    names.sort();
    names.iter().map(|folder| read(folder)).collect()
}

/// The case of that name.
pub(crate) fn case(name: &str) -> Case {
    read(&fixtures().join(name))
}

pub(crate) fn read(folder: &Path) -> Case {
    let json: Value = serde_json::from_slice(&fs::read(folder.join("case.json")).unwrap()).unwrap();
    let files = match folder.file_name().unwrap() == "demo" && !folder.join("inputs.npy").exists() {
        // The tool embeds it.
        true => Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/sae/demo"),
        false => folder.to_path_buf(),
    };
    let rows = json["inputs"].as_str().unwrap_or("inputs.npy");
    let size = |key: &str| json[key].as_u64().unwrap() as usize;
    let inputs = npy(&files.join(rows));
    let given = json["open_with"].as_object().into_iter().flatten();
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Case {
        name: folder.file_name().unwrap().to_str().unwrap().into(),
        checkpoint: match json["checkpoint"].as_str() {
            Some(below) => files.join(below),
            None => files.clone(),
        },
        given: given.map(|(k, v)| (k.clone(), text(v))).collect(),
        rows: inputs.iter().map(|&x| x as f32).collect(),
        n: size("n"),
        d_in: size("d_in"),
        d_sae: size("d_sae"),
        d_out: size("d_out"),
        golden: tensors_of(&folder.join("golden.npz")),
        folder: files,
        json,
    }
}

/// The values of an npy file of f32.
fn npy(path: &Path) -> Vec<f64> {
    let bytes = fs::read(path).unwrap();
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let data = bytes[10 + header..].chunks_exact(4);
    data.map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
        .collect()
}

/// Every number tensor of a file, through the library's containers, which have tests of their own.
pub(crate) fn tensors_of(path: &Path) -> Arrays {
    let bytes = fs::read(path).unwrap();
    let archive = container::read(Bytes::borrowed(&bytes), Check::Full);
    let archive = archive.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut arrays = Arrays::new();
    for entry in &archive.entries {
        let tensor = entry.load().unwrap();
        let values = match tensor.dtype().is_float() {
            true => tensor.to_f64().unwrap(),
            false => tensor.to_i64().unwrap().iter().map(|&v| v as f64).collect(),
        };
        let shape = tensor.shape().to_vec();
        arrays.insert(entry.name().into(), Array { shape, values });
    }
    arrays
}

impl Case {
    pub(crate) fn row(&self, row: usize) -> Vec<f64> {
        let row = &self.rows[row * self.d_in..][..self.d_in];
        row.iter().map(|&x| x.into()).collect()
    }

    /// A golden matrix row by row, dense; None if it is not there.
    pub(crate) fn golden(&self, name: &str) -> Option<Vec<Vec<f64>>> {
        if let Some(dense) = self.golden.get(name) {
            return Some(dense.rows());
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

    /// The tensors of the checkpoint's files, one name space.
    pub(crate) fn tensors(&self) -> Arrays {
        let mut all = Arrays::new();
        for file in self.json["files"].as_array().unwrap() {
            let path = self.folder.join(file.as_str().unwrap());
            if file.as_str().unwrap().starts_with("training_checkpoint/") {
                continue;
            }
            let ending = path.extension().and_then(|ending| ending.to_str());
            let beside = ["dictionary.pt", "atom_indices.pt", "sae_module.pt"];
            let name = path.file_name().unwrap().to_str().unwrap();
            if matches!(ending, Some("pt" | "pth" | "safetensors" | "npz"))
                && !beside.contains(&name)
            {
                all.extend(tensors_of(&path));
            }
        }
        all
    }

    /// The first JSON side-car.
    pub(crate) fn config(&self) -> Value {
        let files = self.json["files"].as_array().unwrap().iter();
        let mut names = files.map(|file| file.as_str().unwrap());
        match names.find(|name| name.ends_with(".json")) {
            Some(name) => {
                serde_json::from_slice(&fs::read(self.folder.join(name)).unwrap()).unwrap()
            }
            None => Value::Null,
        }
    }

    /// A number that the caller gives.
    pub(crate) fn given(&self, key: &str) -> Option<f64> {
        let (_, value) = self.given.iter().find(|(name, _)| name == key)?;
        value.parse().ok()
    }
}

/// What the library computes: dense features and reconstructions, row by row.
pub(crate) fn results(case: &Case, sae: &Sae<'_>) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let rows = Rows::from_f32(&case.rows, case.d_in).unwrap();
    let mut scratch = Scratch::new(sae).unwrap();
    let mut features = Features::new();
    sae.encode(rows, &mut scratch, &mut features).unwrap();
    let mut y = vec![0.0; rows.rows() * sae.d_out()];
    let inputs = sae.needs_inputs_to_decode().then_some(rows);
    sae.decode(&features, inputs, &mut scratch, &mut y).unwrap();
    let dense = features.iter().map(|row| {
        let mut dense = vec![0.0; sae.d_sae()];
        for (&index, &value) in row.indices.iter().zip(row.values) {
            assert!(value != 0.0, "{}: a stored zero", case.name);
            dense[index as usize] = value.into();
        }
        dense
    });
    let wide = |row: &[f32]| row.iter().map(|&y| f64::from(y)).collect();
    (
        dense.collect(),
        y.chunks_exact(sae.d_out()).map(wide).collect(),
    )
}

/// What is different between results and a golden, as the fixtures' README compares them; empty
/// if nothing is.
pub(crate) fn differences(
    reading: &super::Reading,
    x: &[f64],
    found: &[f64],
    y: &[f64],
    golden: &[f64],
    golden_y: &[f64],
) -> Vec<String> {
    let input = reading.input(x);
    let pre = reading.pre(&input);
    let mut differences = Vec::new();
    let mut flips = 0;
    for i in 0..golden.len() {
        let (got, wanted) = (found[i], golden[i]);
        let m = reading.magnitude(&input, i);
        if (got != 0.0) != (wanted != 0.0) {
            // A near-tie shows in the value that the other side reports at its gate; the
            // committed cases have none, so only rounding at zero is forgiven.
            match pre[i].abs() <= 1e-5 * m {
                true => flips += 1,
                false => differences.push(format!("feature {i}: {got}, not {wanted}")),
            }
        } else {
            let error = (got - wanted).abs();
            if error.is_nan() || error > 1e-5 * m && error > 1e-4 * wanted.abs() {
                differences.push(format!("feature {i}: {got}, not {wanted}"));
            }
        }
    }
    let largest = golden_y.iter().fold(1.0f64, |most, y| most.max(y.abs()));
    for (c, (got, wanted)) in y.iter().zip(golden_y).enumerate() {
        let error = (got - wanted).abs();
        if flips == 0 && (error.is_nan() || error > 1e-4 * largest) {
            differences.push(format!("column {c}: {got}, not {wanted}"));
        }
    }
    if y.len() != golden_y.len() {
        differences.push(format!("{} columns, not {}", y.len(), golden_y.len()));
    }
    differences
}
