//! Hostile and odd files: every case of `tests/data/hostile` that a container has to judge, and
//! one test for each rejection of the readers that the cases do not reach.

use sae::bytes::Bytes;
use sae::container::{self, Archive, Check};
use sae::{Code, Error};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mod zip_file;
use zip_file::{Method, ZipFile};

fn hostile() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hostile")
}

fn read(bytes: &[u8]) -> Result<Archive<'_>, Error> {
    container::read(Bytes::borrowed(bytes), Check::Quick)
}

/// Reads the container and loads every tensor.
fn load_all(bytes: &[u8]) -> Result<(), Error> {
    let archive = read(bytes)?;
    for entry in &archive.entries {
        let tensor = entry.load()?;
        assert_eq!(tensor.dtype(), entry.dtype());
        assert_eq!(tensor.shape(), entry.shape());
        if tensor.dtype().is_float() {
            assert_eq!(tensor.to_f64()?.len(), tensor.len());
        } else {
            let _ = tensor.to_i64();
        }
    }
    Ok(())
}

#[track_caller]
fn refused(bytes: &[u8], code: Code, words: &str) {
    let error = load_all(bytes).expect_err("it was read");
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert!(
        error.to_string().len() < 600,
        "a message without end: {error}"
    );
}

/// Cases that only a convention can judge: their containers are sound.
const SOUND: &[&str] = &[
    "npz_bomb_like",
    "npz_missing_member",
    "npz_shape_mismatch",
    "st_b_dec_mismatch",
    "st_b_enc_mismatch",
    "st_inf_bias",
    "st_int_weights",
    "st_missing_w_dec",
    "st_nan_threshold",
    "st_nan_weight",
    "st_w_dec_transposed",
    "torch_int_weights",
];

#[test]
fn every_case_is_judged_as_its_case_json_says() {
    let mut judged = BTreeMap::new();
    for folder in std::fs::read_dir(hostile()).unwrap() {
        let folder = folder.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let container = name.split('_').next().unwrap();
        let is_torch = matches!(container, "torch" | "pickle") && name != "torch_html_error_page";
        if name.starts_with("cfg_") || is_torch && !cfg!(feature = "torch") {
            continue;
        }
        let case = std::fs::read(folder.join("case.json")).unwrap();
        let case: serde_json::Value = serde_json::from_slice(&case).unwrap();
        let file = case["files"].as_array().unwrap().iter().find_map(|file| {
            let file = file.as_str().unwrap();
            (!file.ends_with(".json")).then(|| folder.join(file))
        });
        let bytes = std::fs::read(file.unwrap()).unwrap();
        let result = load_all(&bytes);
        *judged.entry(container.to_owned()).or_insert(0) += 1;
        if case["expect"] == "load" || SOUND.contains(&name.as_str()) {
            assert!(result.is_ok(), "{name}: {result:?}");
            continue;
        }
        let accepted = case["also_accept"].as_array().cloned().unwrap_or_default();
        let mut kinds = vec![case["error_kind"].clone()];
        kinds.extend(accepted);
        let codes: Vec<_> = kinds
            .iter()
            .filter_map(|kind| code(kind.as_str()?))
            .collect();
        let error = result.expect_err(&name);
        assert!(
            codes.contains(&error.code()),
            "{name}: {error}, expected {kinds:?}"
        );
    }
    assert_eq!((judged["st"], judged["npz"]), (30, 18));
    assert!(!Path::new("HOSTILE_PICKLE_RAN").exists());
}

fn code(kind: &str) -> Option<Code> {
    Some(match kind {
        "malformed" => Code::Malformed,
        "truncated" => Code::Truncated,
        "corrupt" => Code::Corrupt,
        "unsupported" => Code::Unsupported,
        "unsafe pickle" => Code::UnsafePickle,
        "error" | "load" => return None,
        other => panic!("unknown error_kind {other}"),
    })
}

#[test]
fn a_bomb_is_judged_by_its_headers() {
    let bytes = std::fs::read(hostile().join("npz_bomb_like/params.npz")).unwrap();
    let archive = read(&bytes).unwrap();
    let entry = archive.entry("W_enc").unwrap();
    assert_eq!(entry.packing(), Some("deflated"));
    assert_eq!(entry.load_bytes(), 301_989_888);
}

// safetensors

fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

const ONE: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;

#[test]
fn the_sound_safetensors_file_is_read() {
    load_all(&safetensors(ONE, 8)).unwrap();
    load_all(&safetensors("{}", 0)).unwrap();
}

#[test]
fn safetensors_header_beyond_the_limit() {
    let spaces = " ".repeat(container::safetensors::MAX_HEADER);
    refused(
        &safetensors(&format!("{{{spaces}}}"), 0),
        Code::Limit,
        "header",
    );
}

#[test]
fn safetensors_too_many_tensors() {
    let entry = r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
    let entries: Vec<_> = (0..=container::MAX_TENSORS)
        .map(|i| format!("\"{i:x}\":{entry}"))
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    refused(&safetensors(&header, 0), Code::Malformed, "more than 65536");
}

#[test]
fn safetensors_name_twice() {
    let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
    refused(&safetensors(header, 2), Code::Malformed, "`a` occurs twice");
}

#[test]
fn safetensors_field_twice() {
    let header = r#"{"a":{"dtype":"U8","dtype":"F32","shape":[1],"data_offsets":[0,1]}}"#;
    refused(&safetensors(header, 1), Code::Malformed, "duplicate field");
}

#[test]
fn safetensors_metadata_key_twice() {
    let header = r#"{"__metadata__":{"a":"1","a":"2"}}"#;
    refused(&safetensors(header, 0), Code::Malformed, "`a` occurs twice");
    let header = r#"{"__metadata__":{},"__metadata__":{}}"#;
    refused(
        &safetensors(header, 0),
        Code::Malformed,
        "`__metadata__` occurs twice",
    );
}

#[test]
fn safetensors_metadata_that_is_not_text() {
    let header = r#"{"__metadata__":{"a":1}}"#;
    refused(&safetensors(header, 0), Code::Malformed, "string");
}

#[test]
fn safetensors_too_many_dimensions() {
    let shape = format!("[{}2]", "1,".repeat(64));
    refused(
        &safetensors(&ONE.replace("[2]", &shape), 8),
        Code::Malformed,
        "64 dimensions",
    );
}

#[test]
fn safetensors_dtypes_are_named() {
    for dtype in ["F8_E4M3", "F4", "C64", "Q4_0"] {
        let header = ONE.replace("F32", dtype);
        refused(&safetensors(&header, 8), Code::Unsupported, dtype);
        refused(&safetensors(&header, 8), Code::Unsupported, "`a`");
    }
}

#[test]
fn safetensors_ranges() {
    let gap = ONE.replace("[0,8]", "[4,12]");
    refused(&safetensors(&gap, 12), Code::Malformed, "leave a gap");
    refused(
        &safetensors(ONE, 9),
        Code::Malformed,
        "end at 8, the data at 9",
    );
    refused(
        &safetensors(ONE, 7),
        Code::Truncated,
        "8 bytes, 7 are there",
    );
    let two = r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#;
    refused(&safetensors(two, 3), Code::Malformed, "overlap");
    let backwards = ONE.replace("[0,8]", "[8,0]");
    refused(&safetensors(&backwards, 8), Code::Malformed, "backwards");
    let huge = ONE.replace("[0,8]", "[0,18446744073709551615]");
    refused(&safetensors(&huge, 8), Code::Malformed, "does not fit");
    let number = ONE.replace("[0,8]", "[0,18446744073709551616]");
    refused(&safetensors(&number, 8), Code::Malformed, "header");
}

#[test]
fn safetensors_header_that_is_not_utf8() {
    let mut bytes = safetensors(ONE, 8);
    bytes[10] = 0xff;
    refused(&bytes, Code::Malformed, "header");
}

#[test]
fn long_texts_make_short_messages() {
    let long = "x".repeat(100_000);
    refused(
        &safetensors(&ONE.replace("F32", &long), 8),
        Code::Unsupported,
        "xxx",
    );
    refused(
        &safetensors(&ONE.replace("[2]", &format!("\"{long}\"")), 8),
        Code::Malformed,
        "xxx",
    );
    refused(
        &safetensors(&ONE.replace("\"a\"", &format!("\"{long}\"")), 7),
        Code::Truncated,
        "xxx",
    );
}

// npz

const ARRAY: &str = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n";

fn npy(dictionary: &str, data: usize) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(dictionary.len() as u16).to_le_bytes());
    bytes.extend_from_slice(dictionary.as_bytes());
    bytes.resize(bytes.len() + data, 7);
    bytes
}

fn one_array() -> ZipFile {
    ZipFile::new().with("a.npy", Method::Stored, &npy(ARRAY, 8))
}

#[test]
fn the_sound_npz_file_is_read() {
    load_all(&one_array().bytes()).unwrap();
    let deflated = ZipFile::new().with("a.npy", Method::Deflated, &npy(ARRAY, 8));
    load_all(&deflated.bytes()).unwrap();
}

#[test]
fn npz_without_arrays() {
    let zip = ZipFile::new().with("readme.txt", Method::Stored, b"hello");
    refused(&zip.bytes(), Code::NotACheckpoint, "without `.npy`");
    refused(
        &ZipFile::new().bytes(),
        Code::NotACheckpoint,
        "without `.npy`",
    );
}

#[test]
fn npz_name_twice() {
    let zip = one_array().with("a.npy", Method::Stored, &npy(ARRAY, 8));
    refused(&zip.bytes(), Code::Malformed, "occurs twice");
}

#[test]
fn npz_name_that_is_not_utf8() {
    let zip = ZipFile::new().with_raw(b"\xff\xfe.npy", Method::Stored, &npy(ARRAY, 8));
    refused(&zip.bytes(), Code::Malformed, "UTF-8");
}

#[test]
fn npz_name_beyond_the_limit() {
    let zip = one_array().with(&"n".repeat(600), Method::Stored, b"");
    refused(&zip.bytes(), Code::Limit, "name");
}

#[test]
fn npz_encrypted() {
    let mut zip = one_array();
    zip.members[0].flags |= 1;
    refused(&zip.bytes(), Code::Unsupported, "encrypted");
}

#[test]
fn npz_other_compressions() {
    for (method, name) in [
        (12, "bzip2"),
        (93, "zstandard"),
        (9, "deflate64"),
        (77, "method 77"),
    ] {
        let mut zip = one_array();
        zip.members[0].method = method;
        refused(&zip.bytes(), Code::Unsupported, name);
    }
}

#[test]
fn npz_stored_sizes_differ() {
    let mut zip = one_array();
    zip.members[0].size += 1;
    refused(&zip.bytes(), Code::Malformed, "its size is given as");
}

#[test]
fn npz_deflated_size_beyond_what_deflate_can_do() {
    let mut zip = ZipFile::new().with("a.npy", Method::Deflated, &npy(ARRAY, 8));
    zip.members[0].size = 1 << 30;
    refused(&zip.bytes(), Code::Malformed, "cannot hold");
}

#[test]
fn npz_deflated_size_is_wrong() {
    let array = npy(ARRAY, 8);
    let mut shorter = ZipFile::new().with("a.npy", Method::Deflated, &array);
    shorter.members[0].size -= 4;
    // The header judges first: the array does not fit.
    refused(&shorter.bytes(), Code::Malformed, "does not fit");
    let longer = npy(&ARRAY.replace("(2,)", "(1,)"), 8);
    let mut longer = ZipFile::new().with("a.npy", Method::Deflated, &longer);
    longer.members[0].size -= 4;
    refused(&longer.bytes(), Code::Malformed, "inflates to more");
    let fewer = npy(&ARRAY.replace("(2,)", "(3,)"), 8);
    let mut fewer = ZipFile::new().with("a.npy", Method::Deflated, &fewer);
    fewer.members[0].size += 4;
    refused(&fewer.bytes(), Code::Malformed, "are needed");
}

#[test]
fn npz_deflate_stream_is_damaged() {
    let mut zip = ZipFile::new().with("a.npy", Method::Deflated, &npy(ARRAY, 8));
    zip.members[0].data[0] = 0xff;
    refused(&zip.bytes(), Code::Malformed, "deflate");
}

#[test]
fn npz_checksums() {
    for method in [Method::Stored, Method::Deflated] {
        let mut zip = ZipFile::new().with("a.npy", method, &npy(ARRAY, 8));
        zip.members[0].crc ^= 1;
        refused(&zip.bytes(), Code::Corrupt, "checksum");
    }
    let big = ARRAY.replace('<', ">");
    let mut zip = ZipFile::new().with("a.npy", Method::Stored, &npy(&big, 8));
    zip.members[0].crc ^= 1;
    refused(&zip.bytes(), Code::Corrupt, "checksum");
}

#[test]
fn npz_members_overlap() {
    let mut zip = one_array().with("b.npy", Method::Stored, &npy(ARRAY, 8));
    zip.members[0].compressed += 60;
    zip.members[0].size += 60;
    refused(&zip.bytes(), Code::Malformed, "overlaps");
}

#[test]
fn npz_member_reaches_into_the_directory() {
    let mut zip = one_array();
    zip.members[0].compressed += 10;
    zip.members[0].size += 10;
    refused(&zip.bytes(), Code::Malformed, "directory");
}

#[test]
fn npz_member_outside_the_file() {
    let mut zip = one_array();
    zip.members[0].compressed += 1 << 20;
    zip.members[0].size += 1 << 20;
    refused(&zip.bytes(), Code::Truncated, "`a.npy`");
    let mut zip = one_array();
    zip.members[0].offset = Some(0xffff_fff0);
    refused(&zip.bytes(), Code::Truncated, "`a.npy`");
}

#[test]
fn npz_offset_that_is_no_local_header() {
    let mut zip = one_array();
    zip.members[0].offset = Some(4);
    refused(&zip.bytes(), Code::Malformed, "directory");
}

#[test]
fn npz_local_header_disagrees() {
    let mut bytes = one_array().bytes();
    bytes[30] = b'z';
    refused(&bytes, Code::Malformed, "disagrees");
}

#[test]
fn npz_count_is_wrong() {
    for count in [0, 2, 9] {
        let mut zip = one_array();
        zip.count = Some(count);
        refused(&zip.bytes(), Code::Malformed, "announces");
    }
}

#[test]
fn npz_members_beyond_the_limit() {
    let mut zip = ZipFile::new();
    for i in 0..=container::MAX_TENSORS {
        zip = zip.with(&format!("{i}"), Method::Stored, b"");
    }
    // The count wraps to 1: what the directory lists is what counts.
    refused(&zip.bytes(), Code::Limit, "65537");
}

#[test]
fn npy_headers() {
    let magic = |bytes: &[u8]| {
        let zip = ZipFile::new().with("a.npy", Method::Stored, bytes);
        zip.bytes()
    };
    refused(&magic(b""), Code::Truncated, "the magic");
    refused(&magic(b"\x93NUM"), Code::Truncated, "the magic");
    refused(&magic(b"\x93NUMPY"), Code::Truncated, "the version");
    refused(&magic(b"\x93NUMPY\x01\x00\x01"), Code::Truncated, "length");
    refused(
        &magic(b"\x93NUMPY\x01\x00\xff\xff{}"),
        Code::Truncated,
        "header",
    );
    refused(
        &magic(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}"),
        Code::Limit,
        "header",
    );
    refused(
        &magic(b"\x93NUMPY\x09\x00\x02\x00{}"),
        Code::Unsupported,
        "version",
    );
    refused(&magic(b"not an array at all"), Code::Malformed, "magic");
    refused(&magic(&npy("{}", 0)), Code::Malformed, "missing");
    let array = |from: &str, to: &str| magic(&npy(&ARRAY.replace(from, to), 8));
    refused(&array("<f4", "|O"), Code::Unsupported, "pickle");
    refused(&array("'<f4'", "[('a', '<f4')]"), Code::Unsupported, "('a'");
    for other in ["<c8", "|V2", "<M8[ns]", "|S3", "<U3", "<f16", ">q", ""] {
        refused(&array("<f4", other), Code::Unsupported, other);
    }
    refused(&array("(2,)", "(3,)"), Code::Malformed, "does not fit");
    refused(&array("(2,)", "(1,)"), Code::Malformed, "does not fit");
    let product = "(9223372036854775807, 9223372036854775807)";
    refused(&array("(2,)", product), Code::Malformed, "does not fit");
    let ones = format!("({})", "1,".repeat(65));
    refused(&array("(2,)", &ones), Code::Malformed, "dimensions");
    refused(
        &array("(2,)", &format!("({}2)", "1,".repeat(30_000))),
        Code::Malformed,
        "dimensions",
    );
}
