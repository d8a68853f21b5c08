//! Hostile pickles and torch files: one test for each rejection of the reader, and what it does
//! read beside plain state dicts.
#![cfg(feature = "torch")]

use proptest::prelude::*;
use sae::bytes::Bytes;
use sae::container::{self, Archive, Check};
use sae::{Code, Dtype, Error};
use std::path::Path;

mod zip_file;
use zip_file::{Method, ZipFile};

fn read(bytes: &[u8]) -> Result<Archive<'_>, Error> {
    container::read(Bytes::borrowed(bytes), Check::Quick)
}

#[track_caller]
fn refused(bytes: &[u8], code: Code, words: &str) {
    let result = read(bytes);
    let error = match result {
        Ok(archive) => panic!("it was read: {archive:?}"),
        Err(error) => error,
    };
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(
        error.to_string().len() < 900,
        "a message without end: {error}"
    );
}

/// A pickle of protocol 2 with this body.
fn pickle(body: &[u8]) -> Vec<u8> {
    [b"\x80\x02", body, b"."].concat()
}

fn text(text: &str) -> Vec<u8> {
    [
        b"X",
        &(text.len() as u32).to_le_bytes()[..],
        text.as_bytes(),
    ]
    .concat()
}

fn int(number: i32) -> Vec<u8> {
    [b"J", &number.to_le_bytes()[..]].concat()
}

fn tuple(items: &[i32]) -> Vec<u8> {
    let items: Vec<_> = items.iter().flat_map(|&item| int(item)).collect();
    [b"(", &items[..], b"t"].concat()
}

/// A storage of floats.
fn storage(key: &str, elements: i32) -> Vec<u8> {
    let id = [
        &text("storage"),
        &b"ctorch\nFloatStorage\n"[..],
        &text(key),
        &text("cpu"),
    ]
    .concat();
    [b"(", &id[..], &int(elements), b"tQ"].concat()
}

fn tensor(storage: &[u8], offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let parts = [&int(offset), &tuple(shape)[..], &tuple(strides), b"\x89N"].concat();
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n(",
        storage,
        &parts,
        b"tR",
    ]
    .concat()
}

/// A dictionary of these names and values.
fn dict(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let pairs: Vec<_> = pairs
        .iter()
        .flat_map(|(key, value)| [text(key), value.clone()])
        .collect();
    [b"}(", &pairs.concat()[..], b"u"].concat()
}

/// A torch zip with this pickle and one storage of 24 bytes.
fn zip(pickle: &[u8]) -> Vec<u8> {
    ZipFile::new()
        .with("ae/data.pkl", Method::Stored, pickle)
        .with("ae/byteorder", Method::Stored, b"little")
        .with("ae/data/0", Method::Stored, &[0; 24])
        .with("ae/version", Method::Stored, b"3\n")
        .bytes()
}

fn one_tensor(offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let tensor = tensor(&storage("0", 6), offset, shape, strides);
    zip(&pickle(&dict(&[("a", tensor)])))
}

#[test]
fn sound_files_are_read() {
    let bytes = one_tensor(0, &[2, 3], &[3, 1]);
    let archive = read(&bytes).unwrap();
    assert_eq!(
        (archive.container, archive.entries[0].name()),
        ("torch", "a")
    );
    // A transposed view, a repeated row, one element, none.
    for (offset, shape, strides) in [
        (0, &[3, 2][..], &[1, 3][..]),
        (3, &[4, 3], &[0, 1]),
        (5, &[], &[]),
        (0, &[0, 7], &[7, 1]),
        (9, &[0], &[1]),
    ] {
        let bytes = one_tensor(offset, shape, strides);
        let tensor = read(&bytes).unwrap().take("a").unwrap().unwrap();
        assert_eq!(tensor.shape().len(), shape.len());
        assert_eq!(tensor.to_f64().unwrap().len(), tensor.len());
    }
}

#[test]
fn a_deflated_storage_is_inflated() {
    let values: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let program = pickle(&dict(&[(
        "a",
        tensor(&storage("0", 6), 1, &[2, 2], &[1, 2]),
    )]));
    let bytes = ZipFile::new()
        .with("data.pkl", Method::Deflated, &program)
        .with("data/0", Method::Deflated, &values)
        .bytes();
    let mut archive = read(&bytes).unwrap();
    assert_eq!(archive.entries[0].packing(), Some("deflated"));
    assert_eq!(archive.entries[0].dtype(), Dtype::F32);
    let tensor = archive.take("a").unwrap().unwrap();
    assert_eq!(tensor.to_f64().unwrap(), [1.0, 3.0, 2.0, 4.0]);
}

#[test]
fn a_bare_tensor_has_no_name() {
    let bytes = zip(&pickle(&tensor(&storage("0", 6), 0, &[6], &[1])));
    let archive = read(&bytes).unwrap();
    assert_eq!((archive.entries.len(), archive.entries[0].name()), (1, ""));
}

#[test]
fn plain_values_become_metadata() {
    let cfg = dict(&[
        ("k", int(5)),
        ("big", b"\x8a\x09\0\0\0\0\0\0\0\0\x01".to_vec()),
        ("flags", b"](\x88\x89Ne".to_vec()),
        ("lr", b"G\x3f\xf8\0\0\0\0\0\0".to_vec()),
        ("nan", b"G\x7f\xf8\0\0\0\0\0\0".to_vec()),
        ("pair", b"K\x01K\x02\x86".to_vec()),
        ("long", b"\x8a\x02\0\xff".to_vec()),
        ("dtype", b"ctorch\nfloat32\n".to_vec()),
        (
            "device",
            [b"ctorch\ndevice\n", &text("cuda")[..], b"\x85R"].concat(),
        ),
        ("size", b"ctorch\nSize\nK\x04\x85\x85R".to_vec()),
        (
            "ordered",
            b"ccollections\nOrderedDict\n](](K\x01K\x02ee\x85R".to_vec(),
        ),
        (
            "nested",
            [b"](", &dict(&[("x", int(-1))])[..], b"e"].concat(),
        ),
        ("set", b"\x8f(K\x03\x90".to_vec()),
    ]);
    let weights = tensor(&storage("0", 6), 0, &[6], &[1]);
    let layers = [b"](", &weights[..], &weights, b"e"].concat();
    let parameter = [
        b"ctorch._utils\n_rebuild_parameter\n",
        &weights[..],
        b"\x88N\x87R",
    ]
    .concat();
    // An attribute of an ordered dictionary, as `Module.state_dict` leaves it, is dropped.
    let ordered = [
        b"ccollections\nOrderedDict\n)R}".to_vec(),
        text("_metadata"),
        b"}sb".to_vec(),
    ];
    let bytes = zip(&pickle(&dict(&[
        ("cfg", cfg),
        ("layers", layers),
        ("parameter", parameter),
        ("empty", ordered.concat()),
    ])));
    let archive = read(&bytes).unwrap();
    let names: Vec<_> = archive.entries.iter().map(|entry| entry.name()).collect();
    assert_eq!(names, ["layers.0", "layers.1", "parameter"]);
    let found: Vec<_> = archive
        .metadata
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    let expected = [
        "cfg.k 5",
        "cfg.big null",
        "cfg.flags [true,false,null]",
        "cfg.lr 1.5",
        "cfg.nan \"NaN\"",
        "cfg.pair [1,2]",
        "cfg.long -256",
        "cfg.dtype \"torch.float32\"",
        "cfg.device \"cuda\"",
        "cfg.size [4]",
        "cfg.ordered.1 2",
        "cfg.nested [{\"x\":-1}]",
        "cfg.set [3]",
    ];
    assert_eq!(found, expected);
    assert_eq!(
        archive.notes,
        ["left out an integer of 9 bytes at `cfg.big`"]
    );
}

#[test]
fn globals_are_refused_by_name() {
    for (body, name) in [
        (&b"cos\nsystem\n"[..], "os.system"),
        (b"cbuiltins\neval\n", "builtins.eval"),
        (b"c__builtin__\nset\n", "__builtin__.set"),
        (b"ctorch\nload\n", "torch.load"),
        (
            b"csae_training.config\nLanguageModelSAERunnerConfig\n",
            "sae_training.config.LanguageModelSAERunnerConfig",
        ),
        (
            b"ctorch\nFloatStorage.__init__\n",
            "torch.FloatStorage.__init__",
        ),
        (
            b"cnumpy.core.multiarray\n_reconstruct\n",
            "numpy.core.multiarray._reconstruct",
        ),
        (b"X\x02\0\0\0osX\x06\0\0\0system\x93", "os.system"),
        (b"c\xff\nx\n", "refused"),
    ] {
        refused(&pickle(body), Code::UnsafePickle, name);
        refused(&zip(&pickle(body)), Code::UnsafePickle, name);
    }
    assert!(!Path::new("HOSTILE_PICKLE_RAN").exists());
}

#[test]
fn instances_and_extensions_are_refused() {
    for body in [
        &b"ccollections\nOrderedDict\n)\x81"[..],
        b")})\x92",
        b"(ios\nsystem\n",
        b"(o",
    ] {
        refused(&pickle(body), Code::UnsafePickle, "instance");
    }
    for body in [&b"\x82\x01"[..], b"\x83\x01\0", b"\x84\x01\0\0\0"] {
        refused(&pickle(body), Code::UnsafePickle, "extension");
    }
    refused(&pickle(b"\x97"), Code::UnsafePickle, "buffer");
    let module = [b"(", &text("module")[..], b"NNNtQ"].concat();
    refused(&pickle(&module), Code::UnsafePickle, "`module`");
}

/// The class of a config that is read.
const CONFIG: &[u8] = b"csae_training.config\nViTSAERunnerConfig\n";

/// An instance of it with these attributes.
fn instance(attributes: &[u8]) -> Vec<u8> {
    [CONFIG, b")\x81", attributes, b"b"].concat()
}

#[test]
fn instances_of_config_classes_are_dictionaries() {
    let inner = instance(&dict(&[("k", int(5))]));
    let whole = instance(&dict(&[
        ("d_in", int(6)),
        ("model", inner),
        ("name", text("x")),
    ]));
    let bytes = pickle(&dict(&[("cfg", whole)]));
    let archive = read(&bytes).unwrap();
    for (name, value) in [("cfg.d_in", 6), ("cfg.model.k", 5)] {
        assert_eq!(archive.value(name), Some(&value.into()));
    }
    assert_eq!(archive.value("cfg.name"), Some(&"x".into()));
    // Attributes given in two steps, or not at all.
    let twice = [
        &instance(&dict(&[("a", int(1))]))[..],
        &dict(&[("b", int(2))]),
        b"b",
    ]
    .concat();
    let bytes = pickle(&dict(&[
        ("cfg", twice),
        ("none", [CONFIG, b")\x81"].concat()),
    ]));
    let archive = read(&bytes).unwrap();
    assert_eq!(
        (archive.value("cfg.a"), archive.value("cfg.b")),
        (Some(&1.into()), Some(&2.into()))
    );
    // What is refused inside of plain data is refused here.
    let body = instance(&dict(&[("f", b"cos\nsystem\n".to_vec())]));
    refused(
        &pickle(&dict(&[("cfg", body)])),
        Code::UnsafePickle,
        "os.system",
    );
}

#[test]
fn instances_of_config_classes_that_do_more() {
    for (body, code, words) in [
        // Arguments for the constructor; no tuple; called; keyword arguments.
        (&b"K\x01\x85\x81"[..], Code::UnsafePickle, "instance"),
        (b"]\x81", Code::UnsafePickle, "instance"),
        (b")R", Code::Malformed, "arguments it does not take"),
        (b")}\x92", Code::UnsafePickle, "instance"),
        // The state of a class with slots, or of its own `__setstate__`.
        (b")\x81}}\x86b", Code::Malformed, "attributes are a tuple"),
        (b")\x81K\x01b", Code::Malformed, "attributes are an integer"),
        // Attributes of the class itself.
        (b"}b", Code::Malformed, "attributes to a class or function"),
        // A list's or dictionary's methods.
        (
            b")\x81K\x01a",
            Code::Malformed,
            "adds items to a dictionary",
        ),
    ] {
        let value = [CONFIG, body].concat();
        refused(&pickle(&dict(&[("cfg", value.clone())])), code, words);
        refused(&zip(&pickle(&dict(&[("cfg", value)]))), code, words);
    }
    let twice = [
        &instance(&dict(&[("a", int(1))]))[..],
        &dict(&[("a", int(2))]),
        b"b",
    ]
    .concat();
    refused(
        &pickle(&dict(&[("cfg", twice)])),
        Code::Malformed,
        "occurs twice",
    );
    // The class for its own sake.
    refused(
        &pickle(&dict(&[("cfg", CONFIG.to_vec())])),
        Code::Malformed,
        "a class or function",
    );
    // Itself as its attribute.
    let cycle = [
        CONFIG,
        b")\x81q\0",
        &dict(&[("a", b"h\0".to_vec())])[..],
        b"b",
    ]
    .concat();
    refused(
        &pickle(&dict(&[("cfg", cycle)])),
        Code::Malformed,
        "nested deeper",
    );
}

/// Many instances that share large attributes cost what they copy.
#[test]
fn configs_by_reference() {
    let pairs: Vec<u8> = (0..2000)
        .flat_map(|i| [text(&i.to_string()), b"N".to_vec()].concat())
        .collect();
    let shared = [&b"}("[..], &pairs, b"uq\x000"].concat();
    let one = [CONFIG, b")\x81h\0b0"].concat();
    let body = [&shared[..], &one.repeat(200), b"}"].concat();
    refused(&pickle(&body), Code::Malformed, "more than 262144 values");
}

#[test]
fn other_protocols() {
    refused(b"\x80\x06N.       ", Code::NotACheckpoint, "first bytes");
    refused(&pickle(b"I1\n"), Code::Unsupported, "protocol 0");
    refused(&zip(b"N."), Code::Unsupported, "protocol 2 to 5");
    refused(&zip(b""), Code::Truncated, "instruction");
}

#[test]
fn broken_programs() {
    for (body, words) in [
        (&b"\xfe"[..], "unknown instruction 0xfe"),
        (b"0", "empty stack"),
        (b"N(0", "empty stack"),
        (b"t", "a mark that is not there"),
        (b"N(1t", "a mark that is not there"),
        (b"h\x05", "empty memo slot"),
        (b"Nr\xff\xff\xff\x7f", "beyond the limit"),
        (b"NN\x93", "STACK_GLOBAL"),
        (b"ctorch", "without an end"),
        (b"Nb", "empty stack"),
        (b"]Nb", "attributes to a list"),
        (b"]NNs", "adds items to a list"),
        (b"}Na", "adds items to a dictionary"),
        (b"}(Nu", "key without a value"),
        (b"N)R", "it calls None"),
        (b"ctorch\nSize\nNR", "not a tuple"),
        (b"ctorch\nSize\n)R", "does not take"),
        (
            b"ccollections\nOrderedDict\n](Ne\x85R",
            "something else than pairs",
        ),
        (b"NQ", "not a storage"),
        (b"(NNNNNtQ", "not a storage"),
        (b"X\x01\0\0\0\xff", "UTF-8"),
        (b"NN", "left on the stack"),
        (b"(N", "left on the stack"),
    ] {
        refused(&zip(&pickle(body)), Code::Malformed, words);
    }
    for body in [
        &b"X\xff\xff\xff\xffab"[..],
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab",
        b"J\0",
    ] {
        refused(
            &zip(&[b"\x80\x02", body].concat()),
            Code::Truncated,
            "instruction",
        );
    }
    refused(
        &zip(&[&pickle(b"}")[..], b"N."].concat()),
        Code::Malformed,
        "follow the pickle",
    );
}

#[test]
fn the_file_is_something_else() {
    for (body, words) in [
        (&b"]"[..], "a list"),
        (b"N", "None"),
        (b"K\x01", "an integer"),
        (b"ccollections\nOrderedDict\n", "a class or function"),
        (&storage("0", 6), "a storage without a tensor"),
    ] {
        refused(&zip(&pickle(body)), Code::Malformed, words);
    }
}

#[test]
fn too_many_values() {
    let many = [b"](", &b"N".repeat(1 << 18)[..], b"e"].concat();
    refused(
        &zip(&pickle(&dict(&[("a", many)]))),
        Code::Malformed,
        "262144 values",
    );
    let marks = b"(".repeat((1 << 18) + 1);
    refused(&pickle(&marks), Code::Malformed, "262144 values");
}

#[test]
fn bombs_of_references() {
    // Each tuple holds the one before twice.
    let mut body = b")q\0".to_vec();
    for i in 0..30u8 {
        body.extend_from_slice(&[b'h', i, b'h', i, 0x86, b'q', i + 1, b'0']);
    }
    body.extend_from_slice(b"0h\x1e");
    refused(
        &zip(&pickle(&dict(&[("a", body.clone())]))),
        Code::Malformed,
        "counting references",
    );
    // The same with dictionaries, which become names.
    let mut body = b"}q\0".to_vec();
    for i in 0..20u8 {
        let pair = [text("a"), vec![b'h', i], text("b"), vec![b'h', i]].concat();
        body.extend_from_slice(&[b"}(", &pair[..], &[b'u', b'q', i + 1, b'0']].concat());
    }
    body.extend_from_slice(b"0h\x14");
    refused(&zip(&pickle(&dict(&[("a", body)]))), Code::Malformed, "");
}

#[test]
fn a_long_text_by_reference() {
    let long = text(&"x".repeat(1 << 20));
    let body = [b"](", &long[..], b"q\x01", &b"h\x01".repeat(20), b"e"].concat();
    refused(
        &zip(&pickle(&dict(&[("a", body)]))),
        Code::Malformed,
        "bytes of text",
    );
}

#[test]
fn deep_nesting_and_cycles() {
    let lists = [b"]".repeat(40), b"a".repeat(39)].concat();
    refused(
        &zip(&pickle(&dict(&[("a", lists)]))),
        Code::Malformed,
        "deeper than 32",
    );
    let cycle = b"]q\x01h\x01a".to_vec();
    refused(
        &zip(&pickle(&dict(&[("a", cycle)]))),
        Code::Malformed,
        "deeper than 32",
    );
    let mut dicts = int(1);
    for _ in 0..40 {
        dicts = dict(&[("a", dicts)]);
    }
    refused(&zip(&pickle(&dicts)), Code::Malformed, "deeper than 32");
    let cycle = [b"}q\x01", &text("a")[..], b"h\x01s"].concat();
    refused(&zip(&pickle(&cycle)), Code::Malformed, "deeper than 32");
}

#[test]
fn names() {
    let weights = || tensor(&storage("0", 6), 0, &[6], &[1]);
    let twice = dict(&[("a", weights()), ("a", weights())]);
    refused(&zip(&pickle(&twice)), Code::Malformed, "`a` occurs twice");
    let dotted = dict(&[("a.b", weights()), ("a", dict(&[("b", weights())]))]);
    refused(
        &zip(&pickle(&dotted)),
        Code::Malformed,
        "`a.b` occurs twice",
    );
    let long = dict(&[(&"x".repeat(600), weights())]);
    refused(&zip(&pickle(&long)), Code::Limit, "length of the name");
    refused(&zip(&pickle(b"}NNs")), Code::Malformed, "None as a key");
    let inner = [b"]}(", &text("x")[..], b"N", &text("x"), b"Nua"].concat();
    refused(
        &zip(&pickle(&dict(&[("a", inner)]))),
        Code::Malformed,
        "a key occurs twice in `a`",
    );
    let inner = dict(&[("a", b"]}NNsa".to_vec())]);
    refused(
        &zip(&pickle(&inner)),
        Code::Malformed,
        "None as a key below `a`",
    );
    let hidden = [b"]](", &weights()[..], b"ea"].concat();
    refused(
        &zip(&pickle(&dict(&[("a", hidden)]))),
        Code::Malformed,
        "inside the plain data",
    );
}

#[test]
fn tensors_that_leave_their_storage() {
    for (offset, shape, strides, words) in [
        (1, &[6][..], &[1][..], "leaves its storage of 6"),
        (0, &[2, 3], &[4, 1], "leaves its storage of 6"),
        (6, &[1], &[1], "leaves its storage of 6"),
        (i32::MAX, &[1], &[1], "leaves its storage"),
        (0, &[2], &[i32::MAX], "leaves its storage"),
        (0, &[i32::MAX, i32::MAX], &[0, 0], "repeats its storage"),
        (0, &[5_000_000], &[0], "repeats its storage"),
        (
            0,
            &[i32::MAX, i32::MAX, i32::MAX],
            &[0, 0, 0],
            "too many elements",
        ),
        (0, &[6], &[1, 1], "one stride for each dimension"),
        (-1, &[6], &[1], "negative"),
        (0, &[-6], &[1], "negative"),
        (5, &[6], &[-1], "negative"),
        (0, &[1; 65], &[1; 65], "more than 64 dimensions"),
    ] {
        refused(&one_tensor(offset, shape, strides), Code::Malformed, words);
    }
    let big = tensor(&storage("0", 6), 0, &[1], &[1]);
    let body = dict(&[("a", big)]);
    let at = body
        .windows(5)
        .position(|part| part == b"J\0\0\0\0")
        .unwrap();
    let big = [
        &body[..at],
        b"\x8a\x09\0\0\0\0\0\0\0\0\x01",
        &body[at + 5..],
    ]
    .concat();
    refused(&zip(&pickle(&big)), Code::Malformed, "beyond 64 bits");
    let none = [&body[..at], b"N", &body[at + 5..]].concat();
    refused(
        &zip(&pickle(&none)),
        Code::Malformed,
        "in the place of a size",
    );
}

#[test]
fn storages() {
    let with = |key, elements| {
        let tensor = tensor(&storage(key, elements), 0, &[1], &[1]);
        zip(&pickle(&dict(&[("a", tensor)])))
    };
    refused(
        &with("1", 6),
        Code::Malformed,
        "storage `1` is not in the archive",
    );
    refused(
        &with("0", 7),
        Code::Malformed,
        "has 24 bytes, the pickle says 7",
    );
    refused(
        &with("0", 5),
        Code::Malformed,
        "has 24 bytes, the pickle says 5",
    );
    refused(&with("0", -1), Code::Malformed, "negative");
    let bare = pickle(&dict(&[("a", tensor(&storage("0", 6), 0, &[6], &[1]))]));
    refused(&bare, Code::Malformed, "not in the pickle");
}

#[test]
fn archives() {
    let program = pickle(&dict(&[("a", tensor(&storage("0", 6), 0, &[6], &[1]))]));
    let file = |order: &[u8]| {
        ZipFile::new()
            .with("ae/data.pkl", Method::Stored, &program)
            .with("ae/byteorder", Method::Stored, order)
            .with("ae/data/0", Method::Stored, &[0; 24])
    };
    refused(&file(b"big").bytes(), Code::Unsupported, "byte order `big`");
    let mut damaged = file(b"little");
    damaged.members[2].crc ^= 1;
    refused(&damaged.bytes(), Code::Corrupt, "ae/data/0");
    let mut damaged = file(b"little");
    damaged.members[0].crc ^= 1;
    refused(&damaged.bytes(), Code::Corrupt, "data.pkl");
    let large = [&program[..], &vec![0; 16 << 20]].concat();
    let large = ZipFile::new().with("ae/data.pkl", Method::Deflated, &large);
    refused(&large.bytes(), Code::Limit, "data.pkl");
    let two = file(b"little").with("b/data.pkl", Method::Stored, &program);
    refused(&two.bytes(), Code::Malformed, "two pickles");
    let odd = file(b"little")
        .with("ae/code/x.py", Method::Stored, b"")
        .with("ae/data/7", Method::Stored, b"");
    let bytes = odd.bytes();
    let expected = [
        "ignored archive member `ae/code/x.py`",
        "no tensor uses storage `7`",
    ];
    assert_eq!(read(&bytes).unwrap().notes, expected);
}

/// A stream of the old format: magic, protocol, system, object, keys, storages.
fn legacy(protocol: &[u8], system: &[u8], object: &[u8], keys: &[u8], data: &[u8]) -> Vec<u8> {
    let magic = pickle(b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19");
    [
        &magic,
        &pickle(protocol),
        &pickle(system),
        &pickle(object),
        &pickle(keys),
        data,
    ]
    .concat()
}

fn legacy_storage(key: &str, elements: i32, view: &[u8]) -> Vec<u8> {
    let id = storage(key, elements);
    [&id[..id.len() - 2], view, b"tQ"].concat()
}

#[test]
fn legacy_streams() {
    let protocol = &b"M\xe9\x03"[..];
    let system = &dict(&[("little_endian", b"\x88".to_vec())])[..];
    let object = |view: &[u8]| {
        let tensor = tensor(&legacy_storage("7", 6, view), 1, &[2], &[1]);
        dict(&[("a", tensor)])
    };
    let plain = object(b"N");
    let keys = [b"]", &text("7")[..], b"a"].concat();
    let values: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let data = [&6u64.to_le_bytes()[..], &values].concat();

    let sound = legacy(protocol, system, &plain, &keys, &data);
    let tensor = read(&sound).unwrap().take("a").unwrap().unwrap();
    assert_eq!(tensor.to_f64().unwrap(), [1.0, 2.0]);
    let viewed = object(&[&text("v")[..], &int(3), &int(3), b"\x87"].concat());
    let viewed = legacy(protocol, system, &viewed, &keys, &data);
    let tensor = read(&viewed).unwrap().take("a").unwrap().unwrap();
    assert_eq!(tensor.to_f64().unwrap(), [4.0, 5.0]);
    let outside = object(&[&text("v")[..], &int(3), &int(4), b"\x87"].concat());
    let outside = legacy(protocol, system, &outside, &keys, &data);
    refused(&outside, Code::Malformed, "view that leaves its storage");
    let odd = legacy(protocol, system, &object(b"K\x01"), &keys, &data);
    refused(&odd, Code::Malformed, "not three values");

    let other = legacy(b"M\xea\x03", system, &plain, &keys, &data);
    refused(&other, Code::Unsupported, "1001");
    let big = dict(&[("little_endian", b"\x89".to_vec())]);
    refused(
        &legacy(protocol, &big, &plain, &keys, &data),
        Code::Unsupported,
        "big",
    );
    refused(
        &legacy(protocol, b"}", &plain, &keys, &data),
        Code::Malformed,
        "byte order",
    );
    refused(
        &legacy(protocol, system, &plain, b"}", &data),
        Code::Malformed,
        "list of storages",
    );
    refused(
        &legacy(protocol, system, &plain, b"]Na", &data),
        Code::Malformed,
        "without a name",
    );
    let unknown = [b"]", &text("8")[..], b"a"].concat();
    refused(
        &legacy(protocol, system, &plain, &unknown, &data),
        Code::Malformed,
        "no tensor uses",
    );
    refused(
        &legacy(protocol, system, &plain, b"]", b""),
        Code::Malformed,
        "not in the file",
    );
    let wrong = [&5u64.to_le_bytes()[..], &values].concat();
    refused(
        &legacy(protocol, system, &plain, &keys, &wrong),
        Code::Malformed,
        "has 5 elements",
    );
    let twice = [b"](", &text("7")[..], &text("7"), b"e"].concat();
    let data_twice = [&data[..], &data].concat();
    let twice = legacy(protocol, system, &plain, &twice, &data_twice);
    refused(&twice, Code::Malformed, "occurs twice");
    let behind = legacy(protocol, system, &plain, &keys, &[&data[..], b"x"].concat());
    assert_eq!(
        read(&behind).unwrap().notes,
        ["ignored 1 bytes behind the data"]
    );
    for length in 0..sound.len() {
        let error = read(&sound[..length]).expect_err("a file that was cut was read");
        let codes = [
            Code::Truncated,
            Code::Malformed,
            Code::NotACheckpoint,
            Code::Unsupported,
        ];
        assert!(codes.contains(&error.code()), "{length}: {error}");
    }
}

/// A storage as `pickle.dump` writes it.
fn storage_inside(stream: &[u8]) -> Vec<u8> {
    let length = (stream.len() as u32).to_le_bytes();
    [
        b"ctorch.storage\n_load_from_bytes\nB",
        &length[..],
        stream,
        b"\x85R",
    ]
    .concat()
}

/// The stream of a storage of six floats.
fn six() -> Vec<u8> {
    let system = dict(&[("little_endian", b"\x88".to_vec())]);
    let keys = [b"]", &text("7")[..], b"a"].concat();
    let values: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let data = [&6u64.to_le_bytes()[..], &values].concat();
    legacy(
        b"M\xe9\x03",
        &system,
        &legacy_storage("7", 6, b"N"),
        &keys,
        &data,
    )
}

#[test]
fn storages_inside_of_pickles() {
    let inside = |stream: &[u8]| {
        let tensor = tensor(&storage_inside(stream), 1, &[2], &[3]);
        pickle(&dict(&[("a", tensor)]))
    };
    let sound = inside(&six());
    let mut archive = read(&sound).unwrap();
    let tensor = archive.take("a").unwrap().unwrap();
    assert_eq!(tensor.to_f64().unwrap(), [1.0, 4.0]);
    // In place: the tensor's bytes are the file's.
    let file = sound.as_ptr_range();
    assert!(file.contains(&tensor.bytes().as_slice().as_ptr()));

    for length in 0..six().len() {
        let error = read(&inside(&six()[..length])).expect_err("a storage that was cut was read");
        let codes = [Code::Truncated, Code::Malformed, Code::Unsupported];
        assert!(codes.contains(&error.code()), "{length}: {error}");
    }
    refused(&inside(b"x"), Code::Malformed, "no file of the old format");
    refused(
        &inside(&pickle(b"}")),
        Code::Malformed,
        "no file of the old format",
    );
    // A whole state dict in the place of a storage; and in that place again.
    let system = dict(&[("little_endian", b"\x88".to_vec())]);
    let other = |object: &[u8]| legacy(b"M\xe9\x03", &system, object, b"]", b"");
    refused(&inside(&other(b"}")), Code::Malformed, "something else");
    let deeper = other(&storage_inside(&six()));
    refused(
        &inside(&deeper),
        Code::Malformed,
        "inside of the description",
    );
    let command = other(b"cos\nsystem\n");
    refused(&inside(&command), Code::UnsafePickle, "os.system");
    // The same bytes by reference: each would be read again.
    let bytes = [
        b"B",
        &(six().len() as u32).to_le_bytes()[..],
        &six(),
        b"q\0",
    ]
    .concat();
    let load = &b"ctorch.storage\n_load_from_bytes\nh\0\x85R"[..];
    let again = [b"}0", &bytes[..], b"0", &load.repeat(20), b"N"].concat();
    refused(&pickle(&again), Code::Malformed, "again and again");
    // Not bytes; and storages of a file that belong outside of its pickle.
    let number = [&b"ctorch.storage\n_load_from_bytes\nK\x01\x85R"[..]].concat();
    refused(
        &pickle(&number),
        Code::Malformed,
        "arguments it does not take",
    );
    refused(&zip(&sound), Code::Malformed, "lies in the pickle");
    let object = dict(&[("a", tensor_of_six())]);
    let stream = legacy(b"M\xe9\x03", &system, &object, b"]", b"");
    refused(&stream, Code::Malformed, "lies in the pickle");
}

fn tensor_of_six() -> Vec<u8> {
    tensor(&storage_inside(&six()), 0, &[6], &[1])
}

#[cfg(feature = "gzip")]
mod gzip {
    use super::*;
    use sae::container::gzip::gunzip;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_is_inside_is_read() {
        let program = pickle(&dict(&[("cfg", dict(&[("k", int(5))]))]));
        let bytes = gzip(&program);
        let archive = read(&bytes).unwrap();
        assert_eq!(archive.value("cfg.k"), Some(&5.into()));
        assert!(archive.notes[0].contains("of gzip into memory"));
        let safetensors = [&b"\x02\0\0\0\0\0\0\0{}"[..]].concat();
        assert_eq!(read(&gzip(&safetensors)).unwrap().container, "safetensors");
        assert_eq!(gunzip(&gzip(b"text"), 4).unwrap(), b"text");
        // Two members, one text.
        assert_eq!(
            gunzip(&[gzip(b"a"), gzip(b"b")].concat(), 2).unwrap(),
            b"ab"
        );
    }

    #[test]
    fn rejections() {
        let bomb = gzip(&vec![0; 64 << 20]);
        refused(&bomb, Code::Limit, "unpacked size");
        refused(
            &gzip(&gzip(b"x")),
            Code::NotACheckpoint,
            "a gzip file in a gzip file",
        );
        refused(&gzip(b""), Code::Truncated, "an empty file");
        let sound = gzip(&pickle(b"}"));
        for length in 2..sound.len() {
            let error = read(&sound[..length]).expect_err("a file that was cut was read");
            assert_eq!(error.code(), Code::Malformed, "{length}: {error}");
        }
        let mut damaged = sound.clone();
        let crc = sound.len() - 8;
        damaged[crc] ^= 1;
        refused(&damaged, Code::Malformed, "gzip");
        assert_eq!(gunzip(&gzip(b"text"), 3).unwrap_err().code(), Code::Limit);
    }
}

/// Loads everything; errors are fine, panics are not.
fn exercise(bytes: &[u8]) {
    if let Ok(archive) = read(bytes) {
        for entry in &archive.entries {
            if entry.load_bytes() < 64 << 20
                && let Ok(tensor) = entry.load()
            {
                let _ = (tensor.to_f64(), tensor.to_i64());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn mutated_pickles_do_not_panic(
        seed in prop::sample::select(vec![
            "torch_views", "torch_legacy_stream", "torch_nested_state_dict",
            "torch_ordered_dict_proto4", "torch_parameters", "torch_shared_storage",
        ]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hostile");
        let file = std::fs::read(folder.join(seed).join("ae.pt")).unwrap();
        // The pickle of a zip is taken out and put into a new one, so that checksums fit.
        let start = file.windows(2).position(|part| part == b"\x80\x02" || part == b"\x80\x04");
        let mut program = file[start.unwrap()..].to_vec();
        let is_zip = file.starts_with(b"PK");
        if is_zip {
            let end = program.windows(3).position(|part| part == b"u.P").unwrap_or(700) + 2;
            program.truncate(end);
        }
        let reach = program.len().min(900);
        for (index, value) in changes {
            program[index.index(reach)] = value;
        }
        if is_zip {
            exercise(&zip(&program));
        } else {
            exercise(&program);
        }
    }

    #[test]
    fn random_programs_do_not_panic(
        body in prop::collection::vec(
            prop::sample::select(b"](}){}tualesqh\x85\x86\x87NKM\x88\x94Rb012\0\x01\x02Q\x93".to_vec()),
            0..200,
        ),
    ) {
        exercise(&zip(&pickle(&body)));
        exercise(&pickle(&dict(&[("a", body)])));
    }
}
