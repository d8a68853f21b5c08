//! Tiny checkpoints in every container, for tests: tensors of given or made-up values.

#![allow(dead_code)] // every test program uses a part of it

use crate::zip_file::{Method, ZipFile};
use std::fmt::Write as _;

/// A named tensor of f32.
#[derive(Clone, Debug)]
pub(crate) struct Tiny {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// A tensor of values between -1 and 1 that its name and shape determine, all different.
pub(crate) fn made(name: &str, shape: &[usize]) -> Tiny {
    let mut state = name.bytes().fold(0x9e37_79b9_7f4a_7c15u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let count = shape.iter().product();
    let values = (0..count).map(|_| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    });
    filled(name, shape, values.collect())
}

pub(crate) fn filled(name: &str, shape: &[usize], values: Vec<f32>) -> Tiny {
    assert_eq!(values.len(), shape.iter().product::<usize>());
    Tiny {
        name: name.into(),
        shape: shape.to_vec(),
        values,
    }
}

pub(crate) fn constant(name: &str, shape: &[usize], value: f32) -> Tiny {
    filled(name, shape, vec![value; shape.iter().product()])
}

impl Tiny {
    fn bytes(&self) -> Vec<u8> {
        self.values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }
}

pub(crate) fn safetensors(tensors: &[Tiny]) -> Vec<u8> {
    let (mut header, mut data) = (String::from("{"), Vec::new());
    for tensor in tensors {
        let start = data.len();
        data.extend(tensor.bytes());
        let comma = if start == 0 { "" } else { "," };
        write!(
            header,
            "{comma}\"{}\":{{\"dtype\":\"F32\",\"shape\":{:?},\"data_offsets\":[{start},{}]}}",
            tensor.name,
            tensor.shape,
            data.len()
        )
        .unwrap();
    }
    header.push('}');
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.into_bytes());
    bytes.extend(data);
    bytes
}

pub(crate) fn npz(tensors: &[Tiny]) -> Vec<u8> {
    let mut zip = ZipFile::new();
    for tensor in tensors {
        let shape: Vec<String> = tensor.shape.iter().map(|n| format!("{n},")).collect();
        let shape = shape.concat();
        let mut header =
            format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
        while (10 + header.len() + 1) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.into_bytes());
        bytes.extend(tensor.bytes());
        zip = zip.with(&format!("{}.npy", tensor.name), Method::Stored, &bytes);
    }
    zip.bytes()
}

/// A plain value of a pickle.
#[derive(Clone, Debug)]
pub(crate) enum Plain {
    Int(i32),
    Float(f64),
    Text(&'static str),
    Bool(bool),
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = b"X".to_vec();
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

fn int(number: usize) -> Vec<u8> {
    let mut bytes = b"J".to_vec();
    bytes.extend((number as i32).to_le_bytes());
    bytes
}

fn tuple(numbers: &[usize]) -> Vec<u8> {
    let numbers = numbers.iter().flat_map(|&number| int(number));
    [b"(".to_vec(), numbers.collect(), b"t".to_vec()].concat()
}

/// What `torch.save` of a dictionary writes. Names with a dot in front of which another tensor's
/// name ends are keys of the same dictionary: `nested` puts the tensors into one below this key.
pub(crate) fn torch(tensors: &[Tiny], nested: Option<&str>, plain: &[(&str, Plain)]) -> Vec<u8> {
    let mut zip = ZipFile::new();
    let mut entries = Vec::new();
    for (key, tensor) in tensors.iter().enumerate() {
        let mut strides = vec![1; tensor.shape.len()];
        for i in (1..strides.len()).rev() {
            strides[i - 1] = strides[i] * tensor.shape[i];
        }
        let storage = [
            b"(".to_vec(),
            text("storage"),
            b"ctorch\nFloatStorage\n".to_vec(),
            text(&key.to_string()),
            text("cpu"),
            int(tensor.values.len()),
            b"tQ".to_vec(),
        ];
        entries.extend(text(&tensor.name));
        entries.extend(b"ctorch._utils\n_rebuild_tensor_v2\n(");
        entries.extend(storage.concat());
        entries.extend([int(0), tuple(&tensor.shape), tuple(&strides)].concat());
        entries.extend(b"\x89NtR");
        zip = zip.with(
            &format!("archive/data/{key}"),
            Method::Stored,
            &tensor.bytes(),
        );
    }
    let mut pickle = b"\x80\x02}(".to_vec();
    match nested {
        Some(key) => {
            pickle.extend(text(key));
            pickle.extend(b"}(");
            pickle.extend(entries);
            pickle.extend(b"u");
        }
        None => pickle.extend(entries),
    }
    for (name, value) in plain {
        pickle.extend(text(name));
        match value {
            Plain::Int(number) => {
                pickle.extend(b"J");
                pickle.extend(number.to_le_bytes());
            }
            Plain::Float(number) => {
                pickle.extend(b"G");
                pickle.extend(number.to_be_bytes());
            }
            Plain::Text(value) => pickle.extend(text(value)),
            Plain::Bool(value) => pickle.push(if *value { 0x88 } else { 0x89 }),
        }
    }
    pickle.extend(b"u.");
    zip.with("archive/data.pkl", Method::Stored, &pickle)
        .with("archive/version", Method::Stored, b"3\n")
        .bytes()
}
