//! Cases of `tests/data/fixtures` as plain arrays: checkpoints whose maths is tested apart
//! from the convention that names their tensors.

use super::read::{self, Array, Arrays};
use std::fs;
use std::io::Read as _;
use std::path::PathBuf;

/// A case: rows, goldens, and where its files are.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) rows: Array,
    golden: Arrays,
}

impl Case {
    pub(crate) fn new(name: &str) -> Case {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let folder = root.join("tests/data/fixtures").join(name);
        Case {
            name: name.into(),
            rows: read::npy(&fs::read(folder.join("inputs.npy")).unwrap()),
            golden: read::npz(&fs::read(folder.join("golden.npz")).unwrap()),
            folder,
        }
    }

    pub(crate) fn n(&self) -> usize {
        self.rows.shape[0]
    }

    /// Row `row`, in f64.
    pub(crate) fn row(&self, row: usize) -> &[f64] {
        let width = self.rows.shape[1];
        &self.rows.values[row * width..][..width]
    }

    pub(crate) fn safetensors(&self, file: &str) -> Arrays {
        read::safetensors(&fs::read(self.folder.join(file)).unwrap())
    }

    /// A storage of a torch zip file that is known to be f32 of this shape.
    pub(crate) fn torch(&self, file: &str, storage: &str, shape: &[usize]) -> Array {
        let bytes = fs::read(self.folder.join(file)).unwrap();
        let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
        for index in 0..archive.len() {
            let mut member = archive.by_index(index).unwrap();
            if member.name().unwrap().ends_with(storage) {
                let mut content = Vec::new();
                member.read_to_end(&mut content).unwrap();
                let number = |b: &[u8]| f64::from(f32::from_le_bytes(b.try_into().unwrap()));
                let values: Vec<f64> = content.chunks_exact(4).map(number).collect();
                assert_eq!(values.len(), shape.iter().product::<usize>());
                let shape = shape.to_vec();
                return Array { shape, values };
            }
        }
        panic!("{file} has no {storage}");
    }

    /// A golden matrix row by row, dense.
    pub(crate) fn golden(&self, name: &str) -> Vec<Vec<f64>> {
        if let Some(dense) = self.golden.get(name) {
            let width = dense.shape[1];
            return dense.values.chunks_exact(width).map(Vec::from).collect();
        }
        let part = |part: &str| &self.golden[&format!("{name}_{part}")].values;
        let width = part("shape")[1] as usize;
        let mut rows = Vec::new();
        for ends in part("indptr").windows(2) {
            let mut row = vec![0.0; width];
            for entry in ends[0] as usize..ends[1] as usize {
                row[part("indices")[entry] as usize] = part("values")[entry];
            }
            rows.push(row);
        }
        rows
    }
}

/// The rows of a matrix.
pub(crate) fn rows_of(array: &Array) -> Vec<Vec<f64>> {
    let width = *array.shape.last().unwrap();
    array.values.chunks_exact(width).map(Vec::from).collect()
}

/// The norm of every row.
pub(crate) fn norms(rows: &[Vec<f64>]) -> Vec<f64> {
    rows.iter().map(|row| super::pursuit::norm(row)).collect()
}
