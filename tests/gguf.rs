//! GGUF: what llama.cpp's own package wrote, what our writer writes, and one test for each
//! rejection of the reader.

use proptest::prelude::*;
use sae::bytes::Bytes;
use sae::container::gguf_write::{GgufHeader, GgufValue};
use sae::container::{self, Archive, Check};
use sae::{Code, Dtype, Error};
use sha2::Digest;
use std::path::{Path, PathBuf};

fn data(path: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/gguf");
    std::fs::read(folder.join(path)).unwrap()
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gguf");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

fn read(bytes: &[u8]) -> Result<Archive<'_>, Error> {
    container::read(Bytes::borrowed(bytes), Check::Quick)
}

#[track_caller]
fn refused(bytes: &[u8], code: Code, words: &str) {
    let error = match read(bytes) {
        Ok(archive) => panic!("it was read: {archive:?}"),
        Err(error) => error,
    };
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(
        error.to_string().len() < 600,
        "a message without end: {error}"
    );
}

/// `types.json` holds what the package `gguf` decodes (`make.py` beside it).
#[test]
fn every_type_decodes_to_the_same_bits() {
    let bytes = data("types.gguf");
    let expected: serde_json::Value = serde_json::from_slice(&data("types.json")).unwrap();
    let mut archive = read(&bytes).unwrap();
    assert_eq!(archive.container, "gguf");
    assert_eq!(archive.entry("Q4_K").unwrap().packing(), Some("Q4_K"));
    assert_eq!(archive.entry("Q4_K").unwrap().load_bytes(), 3 * 512 * 4);
    assert_eq!(archive.entry("BF16").unwrap().packing(), None);
    for (name, expected) in expected.as_object().unwrap() {
        let tensor = archive.take(name).unwrap().unwrap();
        let digest = sha2::Sha256::digest(tensor.bytes().as_slice());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let found = serde_json::json!([tensor.dtype().name(), tensor.shape(), digest]);
        assert_eq!(&found, expected, "{name}");
    }
    assert!(archive.entries.is_empty());
}

#[test]
fn keys_keep_their_values() {
    let bytes = data("types.gguf");
    let archive = read(&bytes).unwrap();
    let found: Vec<_> = archive
        .metadata
        .iter()
        .map(|(key, v)| format!("{key} {v}"))
        .collect();
    let expected = [
        "general.architecture \"sae\"",
        "k.u8 250",
        "k.i8 -5",
        "k.u16 65535",
        "k.i16 -300",
        "k.u32 4000000000",
        "k.i32 -2000000000",
        "k.f32 0.5",
        "k.bool true",
        "k.text \"größe\"",
        "k.u64 18446744073709551615",
        "k.i64 -9223372036854775808",
        "k.f64 1e+300",
        "k.nan \"NaN\"",
        "k.ints [1,2,3]",
        "k.texts [\"a\",\"\",\"c\"]",
        "k.floats [0.5,1.5]",
        "k.bools [true,false]",
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_is_written_is_read() {
    let path = scratch("written.gguf");
    let mut header = GgufHeader::new();
    let keys = [
        ("u8", GgufValue::U8(1)),
        ("i8", GgufValue::I8(-1)),
        ("u16", GgufValue::U16(2)),
        ("i16", GgufValue::I16(-2)),
        ("u32", GgufValue::U32(3)),
        ("i32", GgufValue::I32(-3)),
        ("f32", GgufValue::F32(0.25)),
        ("bool", GgufValue::Bool(false)),
        ("text", GgufValue::Text("sae".into())),
        ("u64", GgufValue::U64(u64::MAX)),
        ("i64", GgufValue::I64(i64::MIN)),
        ("f64", GgufValue::F64(-0.5)),
        ("u8s", GgufValue::U8s(vec![1, 2])),
        ("i8s", GgufValue::I8s(vec![-1])),
        ("u16s", GgufValue::U16s(vec![7])),
        ("i16s", GgufValue::I16s(vec![-7])),
        ("u32s", GgufValue::U32s(vec![])),
        ("i32s", GgufValue::I32s(vec![9, -9])),
        ("f32s", GgufValue::F32s(vec![0.5, 1.5])),
        ("bools", GgufValue::Bools(vec![true, false])),
        ("texts", GgufValue::Texts(vec!["".into(), "ü".into()])),
        ("u64s", GgufValue::U64s(vec![1])),
        ("i64s", GgufValue::I64s(vec![-1])),
        ("f64s", GgufValue::F64s(vec![2.5])),
    ];
    for (key, value) in &keys {
        header.key(key, value).unwrap();
    }
    let values: Vec<u8> = (0..240).collect();
    let tensors = [
        ("a", Dtype::F32, vec![3, 5]),
        ("b", Dtype::BF16, vec![7]),
        ("empty", Dtype::F32, vec![0, 4]),
        ("c", Dtype::I8, vec![2, 3, 4, 1]),
        ("d", Dtype::F64, vec![1]),
        ("e", Dtype::F16, vec![1]),
    ];
    for (name, dtype, shape) in &tensors {
        header.tensor(name, *dtype, shape).unwrap();
    }
    let mut file = header.create(&path).unwrap();
    for (_, dtype, shape) in &tensors {
        let size = dtype.size() * shape.iter().product::<usize>();
        // In two pieces.
        file.write(&values[..size / 2]).unwrap();
        file.write(&values[size / 2..size]).unwrap();
    }
    assert!(!path.exists());
    file.finish().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut archive = read(&bytes).unwrap();
    assert_eq!(archive.value("general.alignment"), Some(&64.into()));
    assert_eq!(archive.metadata.len(), keys.len() + 1);
    assert_eq!(archive.value("texts"), Some(&serde_json::json!(["", "ü"])));
    assert_eq!(archive.value("i64"), Some(&i64::MIN.into()));
    for (name, dtype, shape) in &tensors {
        let tensor = archive.take(name).unwrap().unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (*dtype, &shape[..]));
        let found = tensor.bytes().as_slice();
        assert_eq!(found, &values[..found.len()]);
        let offset = found.as_ptr() as usize - bytes.as_ptr() as usize;
        assert!(
            tensor.is_empty() || offset.is_multiple_of(64),
            "{name} at {offset}"
        );
    }
}

#[test]
fn the_writer_refuses() {
    let mut header = GgufHeader::new();
    let one = GgufValue::U8(1);
    header.key("k", &one).unwrap();
    assert_eq!(
        header.key("k", &one).unwrap_err().code(),
        Code::InvalidArgument
    );
    assert!(header.key("general.alignment", &one).is_err());
    header.tensor("a", Dtype::U8, &[1]).unwrap_err();
    header.tensor("a", Dtype::F32, &[]).unwrap_err();
    header.tensor("a", Dtype::F32, &[1; 5]).unwrap_err();
    header
        .tensor("a", Dtype::F32, &[usize::MAX, 2])
        .unwrap_err();
    header
        .tensor(&"n".repeat(64), Dtype::F32, &[1])
        .unwrap_err();
    header.tensor("a", Dtype::F32, &[2]).unwrap();
    header.tensor("a", Dtype::F32, &[2]).unwrap_err();

    let folder = scratch("refused");
    std::fs::create_dir_all(&folder).unwrap();
    let mut file = header.clone().create(&folder.join("x.gguf")).unwrap();
    assert_eq!(file.write(&[0; 9]).unwrap_err().code(), Code::Length);
    file.write(&[0; 4]).unwrap();
    assert_eq!(file.finish().unwrap_err().code(), Code::Length);
    drop(header.create(&folder.join("y.gguf")).unwrap());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}

/// A file: version, keys as (name, type and value), tensors as (name, dimensions, type, offset).
struct File {
    version: u32,
    keys: Vec<(Vec<u8>, Vec<u8>)>,
    tensors: Vec<(Vec<u8>, Vec<u64>, u32, u64)>,
    data: usize,
    counts: Option<(u64, u64)>,
}

fn file() -> File {
    File {
        version: 3,
        keys: vec![(
            b"k".to_vec(),
            [&4u32.to_le_bytes()[..], &[1, 0, 0, 0]].concat(),
        )],
        tensors: vec![
            (b"a".to_vec(), vec![2, 4], 0, 0),
            (b"b".to_vec(), vec![32], 8, 32),
        ],
        data: 66,
        counts: None,
    }
}

impl File {
    fn bytes(&self) -> Vec<u8> {
        let text = |text: &[u8]| [&(text.len() as u64).to_le_bytes()[..], text].concat();
        let mut bytes = b"GGUF".to_vec();
        bytes.extend_from_slice(&self.version.to_le_bytes());
        let counts = (self.tensors.len() as u64, self.keys.len() as u64);
        let (tensors, keys) = self.counts.unwrap_or(counts);
        bytes.extend_from_slice(&tensors.to_le_bytes());
        bytes.extend_from_slice(&keys.to_le_bytes());
        for (key, value) in &self.keys {
            bytes.extend(text(key));
            bytes.extend_from_slice(value);
        }
        for (name, dimensions, kind, offset) in &self.tensors {
            bytes.extend(text(name));
            bytes.extend_from_slice(&(dimensions.len() as u32).to_le_bytes());
            for dimension in dimensions {
                bytes.extend_from_slice(&dimension.to_le_bytes());
            }
            bytes.extend_from_slice(&kind.to_le_bytes());
            bytes.extend_from_slice(&offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(32) + self.data, 0);
        bytes
    }

    fn key(mut self, kind: u32, value: &[u8]) -> Self {
        let name = format!("key{}", self.keys.len()).into_bytes();
        self.keys
            .push((name, [&kind.to_le_bytes()[..], value].concat()));
        self
    }

    fn tensor(mut self, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        self.tensors[0] = (b"a".to_vec(), dimensions.to_vec(), kind, offset);
        self
    }
}

#[test]
fn the_sound_file_is_read_and_no_part_of_it() {
    let bytes = file().bytes();
    let archive = read(&bytes).unwrap();
    assert_eq!(archive.entries[0].shape(), [4, 2]);
    assert_eq!(archive.entries[1].load().unwrap().len(), 32);
    for length in 0..bytes.len() {
        let error = read(&bytes[..length]).expect_err("a file that was cut was read");
        let code = error.code();
        assert!(
            matches!(code, Code::Truncated | Code::NotACheckpoint),
            "{length}: {error}"
        );
    }
    read(
        &File {
            version: 2,
            ..file()
        }
        .bytes(),
    )
    .unwrap();
}

#[test]
fn versions_and_byte_orders() {
    let version = |version| File { version, ..file() }.bytes();
    refused(&version(1), Code::Unsupported, "version 1");
    refused(&version(4), Code::Unsupported, "version 4");
    refused(&version(3 << 24), Code::Unsupported, "big-endian");
    refused(&version(2 << 24), Code::Unsupported, "big-endian");
}

#[test]
fn counts() {
    let counts = |tensors, keys| {
        let counts = Some((tensors, keys));
        File { counts, ..file() }.bytes()
    };
    refused(&counts(u64::MAX, 1), Code::Limit, "tensors");
    refused(&counts(2, u64::MAX), Code::Limit, "keys");
    let (counts, data) = (Some((60_000, 1)), 0);
    let many = File {
        counts,
        data,
        ..file()
    };
    refused(&many.bytes(), Code::Truncated, "");
}

#[test]
fn keys() {
    let mut twice = file();
    twice.keys.push(twice.keys[0].clone());
    refused(&twice.bytes(), Code::Malformed, "`k` occurs twice");
    let mut name = file();
    name.keys[0].0 = vec![0xff];
    refused(&name.bytes(), Code::Malformed, "UTF-8");
    name.keys[0].0 = vec![b'n'; 600];
    refused(&name.bytes(), Code::Limit, "length of a key");
    refused(
        &file().key(13, &[0; 8]).bytes(),
        Code::Malformed,
        "unknown type 13",
    );
    refused(&file().key(7, &[2]).bytes(), Code::Malformed, "a bool of 2");
    let array = |kind: u32, length: u64| {
        let start = [&kind.to_le_bytes()[..], &length.to_le_bytes()].concat();
        file().key(9, &start).bytes()
    };
    refused(&array(9, 1), Code::Malformed, "unknown type 9");
    refused(&array(99, 1), Code::Malformed, "unknown type 99");
    for kind in [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12] {
        let error = read(&array(kind, u64::MAX)).map(|_| ()).unwrap_err();
        assert_eq!(error.code(), Code::Truncated, "{error}");
    }
    let text = |bytes: &[u8]| {
        let start = (bytes.len() as u64).to_le_bytes();
        file().key(8, &[&start[..], bytes].concat()).bytes()
    };
    refused(&text(&[0xff]), Code::Malformed, "not UTF-8");
    let long = text(&vec![b'x'; (1 << 20) + 1]);
    assert_eq!(
        read(&long).unwrap().notes,
        ["left out the long value of key `key1`"]
    );
    let long = [
        &4u32.to_le_bytes()[..],
        &65537u64.to_le_bytes(),
        &[0; 4 * 65537],
    ]
    .concat();
    let long = file().key(9, &long).bytes();
    assert_eq!(
        read(&long).unwrap().notes,
        ["left out the long value of key `key1`"]
    );
    let words = [
        &8u32.to_le_bytes()[..],
        &65537u64.to_le_bytes(),
        &[0; 8 * 65537],
    ]
    .concat();
    let words = file().key(9, &words).bytes();
    assert_eq!(
        read(&words).unwrap().notes,
        ["left out the long value of key `key1`"]
    );
}

#[test]
fn alignments() {
    let align = |kind: u32, value: &[u8]| {
        let mut file = file();
        file.keys[0] = (
            b"general.alignment".to_vec(),
            [&kind.to_le_bytes()[..], value].concat(),
        );
        file.bytes()
    };
    for alignment in [0u32, 3, 1 << 21] {
        refused(
            &align(4, &alignment.to_le_bytes()),
            Code::Malformed,
            "general.alignment",
        );
    }
    refused(&align(8, &[0; 8]), Code::Malformed, "general.alignment");
    refused(
        &align(4, &64u32.to_le_bytes()),
        Code::Malformed,
        "not a multiple of 64",
    );
}

#[test]
fn tensors() {
    let mut twice = file();
    twice.tensors[1].0 = b"a".to_vec();
    refused(&twice.bytes(), Code::Malformed, "`a` occurs twice");
    let mut name = file();
    name.tensors[0].0 = vec![0xff];
    refused(&name.bytes(), Code::Malformed, "UTF-8");
    name.tensors[0].0 = vec![b'n'; 600];
    refused(&name.bytes(), Code::Limit, "length of a tensor name");
    refused(
        &file().tensor(&[1; 5], 0, 0).bytes(),
        Code::Malformed,
        "5 dimensions",
    );
    refused(
        &file().tensor(&[8], 19, 0).bytes(),
        Code::Unsupported,
        "IQ1_S",
    );
    refused(
        &file().tensor(&[8], 4, 0).bytes(),
        Code::Unsupported,
        "unknown ggml type (4)",
    );
    refused(
        &file().tensor(&[8], 0, 8).bytes(),
        Code::Malformed,
        "multiple of 32",
    );
    refused(
        &file().tensor(&[31, 32], 8, 0).bytes(),
        Code::Malformed,
        "whole blocks of 32",
    );
    refused(
        &file().tensor(&[1 << 33, 1 << 33], 0, 0).bytes(),
        Code::Malformed,
        "overflow",
    );
    refused(
        &file().tensor(&[1 << 62], 0, 0).bytes(),
        Code::Malformed,
        "overflow",
    );
    refused(
        &file().tensor(&[9], 0, 0).bytes(),
        Code::Malformed,
        "overlaps",
    );
    refused(
        &file().tensor(&[8], 0, 1 << 40).bytes(),
        Code::Truncated,
        "`a`",
    );
    refused(&file().tensor(&[8], 0, !31).bytes(), Code::Truncated, "`a`");
    let empty = file().tensor(&[0, 1 << 40, 1 << 40], 0, 0);
    refused(&empty.bytes(), Code::Malformed, "does not fit");
    // Not rejections: no elements, no dimensions.
    read(&file().tensor(&[1 << 40, 0], 0, 0).bytes()).unwrap();
    read(&file().tensor(&[], 0, 0).bytes()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn mutations_do_not_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        large in any::<bool>(),
    ) {
        let mut bytes = if large { data("types.gguf") } else { file().bytes() };
        let reach = bytes.len().min(2600);
        for (index, value) in changes {
            bytes[index.index(reach)] = value;
        }
        if let Ok(archive) = read(&bytes) {
            for entry in archive.entries {
                prop_assert!(entry.load_bytes() < 1 << 20);
                let tensor = entry.load().unwrap();
                let _ = (tensor.to_f64(), tensor.to_i64());
            }
        }
    }
}
