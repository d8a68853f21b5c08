//! Files as arrays of f64: every number format here widens to f64 exactly.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read as _;

/// An n-dimensional array, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

impl Array {
    /// Columns become rows.
    pub(crate) fn transposed(&self) -> Array {
        let [rows, columns] = self.shape[..] else {
            panic!("not a matrix: {:?}", self.shape)
        };
        let mut values = Vec::with_capacity(self.values.len());
        for column in 0..columns {
            for row in 0..rows {
                values.push(self.values[row * columns + column]);
            }
        }
        Array {
            shape: vec![columns, rows],
            values,
        }
    }

    /// The values as f32, which must be exact.
    pub(crate) fn f32_values(&self) -> Vec<f32> {
        self.values.iter().map(|&value| value as f32).collect()
    }
}

/// Named arrays.
pub(crate) type Arrays = BTreeMap<String, Array>;

/// The number that IEEE half-precision bits stand for.
pub(crate) fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 31);
    let fraction = f64::from(bits & 1023) / 1024.0;
    sign * match exponent {
        0 => fraction * 2f64.powi(-14),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction) * 2f64.powi(exponent - 15),
    }
}

/// The number that bfloat16 bits stand for: the upper half of an f32.
pub(crate) fn bfloat(bits: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits) << 16))
}

/// Little-endian numbers of a format named as in safetensors or numpy.
fn numbers(format: &str, bytes: &[u8]) -> Vec<f64> {
    fn all<const N: usize>(bytes: &[u8], one: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        assert_eq!(bytes.len() % N, 0);
        let chunks = bytes.chunks_exact(N);
        chunks.map(|chunk| one(chunk.try_into().unwrap())).collect()
    }
    match format {
        "F64" | "<f8" => all(bytes, f64::from_le_bytes),
        "F32" | "<f4" => all(bytes, |b| f64::from(f32::from_le_bytes(b))),
        "F16" | "<f2" => all(bytes, |b| half(u16::from_le_bytes(b))),
        "BF16" => all(bytes, |b| bfloat(u16::from_le_bytes(b))),
        "I64" | "<i8" => all(bytes, |b| i64::from_le_bytes(b) as f64),
        "<u4" => all(bytes, |b| f64::from(u32::from_le_bytes(b))),
        "I32" | "<i4" => all(bytes, |b| f64::from(i32::from_le_bytes(b))),
        other => panic!("number format {other}"),
    }
}

/// A safetensors file: u64 header length, JSON header, data.
pub(crate) fn safetensors(bytes: &[u8]) -> Arrays {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let data = &bytes[8 + length..];
    let mut arrays = Arrays::new();
    for (name, entry) in header.as_object().unwrap() {
        if name == "__metadata__" {
            continue;
        }
        let list = |key: &str| -> Vec<usize> {
            let items = entry[key].as_array().unwrap().iter();
            items.map(|item| item.as_u64().unwrap() as usize).collect()
        };
        let offsets = list("data_offsets");
        let array = Array {
            shape: list("shape"),
            values: numbers(
                entry["dtype"].as_str().unwrap(),
                &data[offsets[0]..offsets[1]],
            ),
        };
        assert_eq!(array.values.len(), array.shape.iter().product::<usize>());
        arrays.insert(name.clone(), array);
    }
    arrays
}

/// An npy file of version 1: magic, u16 header length, a Python dictionary, data.
pub(crate) fn npy(bytes: &[u8]) -> Array {
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    let after = |key: &str| header.split_once(key).expect(key).1;
    let fortran = after("'fortran_order': ").starts_with("True");
    let format = after("'descr': '").split_once('\'').unwrap().0;
    let shape = after("'shape': (").split_once(')').unwrap().0;
    let shape: Vec<usize> = shape
        .split(',')
        .filter(|size| !size.trim().is_empty())
        .map(|size| size.trim().parse().unwrap())
        .collect();
    let values = numbers(format, &bytes[10 + length..]);
    assert_eq!(values.len(), shape.iter().product::<usize>());
    if fortran && shape.len() == 2 {
        // Column after column: the rows of the transposed matrix.
        let shape = vec![shape[1], shape[0]];
        return Array { shape, values }.transposed();
    }
    Array { shape, values }
}

/// An npz file: a zip archive of npy files, named without the extension.
pub(crate) fn npz(bytes: &[u8]) -> Arrays {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
    let mut arrays = Arrays::new();
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).unwrap();
        let mut content = Vec::new();
        member.read_to_end(&mut content).unwrap();
        let name = member
            .name()
            .unwrap()
            .strip_suffix(".npy")
            .unwrap()
            .to_string();
        arrays.insert(name, npy(&content));
    }
    arrays
}
