//! Sound files: what the containers give back, how much of a file they touch, what the writers
//! write, and that no truncation or mutation makes a reader panic.

use proptest::prelude::*;
use sae::bytes::Bytes;
use sae::container::npy::read_npy;
use sae::container::npy_write::{NpzWriter, write_npy};
use sae::container::{self, Archive, Check};
use sae::mmap::Mapping;
use sae::tensor::Tensor;
use sae::{Code, Dtype, Error};
use std::path::{Path, PathBuf};

mod zip_file;
use zip_file::{Method, ZipFile};

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(path)
}

fn read(bytes: &[u8]) -> Result<Archive<'_>, Error> {
    container::read(Bytes::borrowed(bytes), Check::Quick)
}

/// The elements in row-major order, without gaps, as bytes.
fn row_major(tensor: &Tensor<'_>) -> Vec<u8> {
    let size = tensor.dtype().size();
    let bytes = tensor.bytes().as_slice();
    let mut all = Vec::new();
    let mut index = vec![0; tensor.shape().len()];
    for _ in 0..tensor.len() {
        let at: usize = index.iter().zip(tensor.strides()).map(|(i, s)| i * s).sum();
        all.extend_from_slice(&bytes[at * size..][..size]);
        for (i, &extent) in index.iter_mut().zip(tensor.shape()).rev() {
            *i += 1;
            if *i < extent {
                break;
            }
            *i = 0;
        }
    }
    all
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `tests/data/containers.json` was written by `tests/data/containers.py`, which reads the same
/// files with NumPy alone.
#[test]
fn every_tensor_is_what_an_independent_reader_finds() {
    use sha2::Digest;
    let expected = std::fs::read(data("containers.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    for (file, tensors) in expected.as_object().unwrap() {
        let torch = file.ends_with(".pt") || file.ends_with(".pth");
        if torch && !cfg!(feature = "torch") {
            continue;
        }
        let mapping = Mapping::open(&data(file)).unwrap().into_bytes();
        let mut archive = container::read(mapping, Check::Full).unwrap();
        for (name, expected) in tensors.as_object().unwrap() {
            let tensor = archive
                .take(name)
                .unwrap()
                .unwrap_or_else(|| panic!("{file}: {name}"));
            let digest = hex(&sha2::Sha256::digest(row_major(&tensor)));
            let found = serde_json::json!([tensor.dtype().name(), tensor.shape(), digest]);
            assert_eq!(&found, expected, "{file}: {name}");
        }
        let rest: Vec<_> = archive.entries.iter().map(|entry| entry.name()).collect();
        assert!(
            rest.is_empty(),
            "{file}: {rest:?} is more than the other reader finds"
        );
    }
}

#[test]
fn fortran_order_becomes_strides() {
    let bytes = std::fs::read(data("hostile/npz_fortran_order/params.npz")).unwrap();
    let tensor = read(&bytes).unwrap().take("W_enc").unwrap().unwrap();
    assert_eq!(
        (tensor.shape(), tensor.strides()),
        (&[16, 48][..], &[1, 16][..])
    );
}

#[test]
fn what_is_packed_says_so() {
    let packing = |case: &str| {
        let bytes = std::fs::read(data(&format!("hostile/{case}/params.npz"))).unwrap();
        let archive = read(&bytes).unwrap();
        let entry = archive.entry("W_enc").unwrap();
        (entry.packing(), entry.load_bytes())
    };
    assert_eq!(packing("npz_zip64_streamed"), (None, 0));
    assert_eq!(packing("npz_deflate"), (Some("deflated"), 16 * 48 * 4));
    assert_eq!(packing("npz_big_endian"), (Some("big-endian"), 16 * 48 * 4));
}

#[test]
fn extra_members_are_noted_and_not_written() {
    let bytes = std::fs::read(data("hostile/npz_path_traversal/params.npz")).unwrap();
    let archive = read(&bytes).unwrap();
    assert_eq!(archive.entries.len(), 5);
    assert_eq!(archive.notes, ["ignored archive member `../../evil.npy`"]);
}

#[test]
fn safetensors_metadata_is_text() {
    let bytes = std::fs::read(data("hostile/st_metadata_unicode/sae_weights.safetensors")).unwrap();
    let archive = read(&bytes).unwrap();
    assert_eq!(archive.value("format").and_then(|v| v.as_str()), Some("pt"));
    let note = archive.value("note").and_then(|v| v.as_str()).unwrap();
    assert!(!note.is_ascii(), "{note}");
}

#[test]
fn taking_removes() {
    let bytes = std::fs::read(data("hostile/npz_deflate/params.npz")).unwrap();
    let mut archive = read(&bytes).unwrap();
    assert!(archive.take("W_enc").unwrap().is_some());
    assert!(archive.take("W_enc").unwrap().is_none());
    assert!(archive.take("nothing").unwrap().is_none());
    assert_eq!(archive.entries.len(), 4);
}

#[test]
fn checksums_of_large_stored_files_wait_for_a_full_check() {
    let array = "{'descr': '|u1', 'fortran_order': False, 'shape': (16777216,), }\n";
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    npy.extend_from_slice(&(array.len() as u16).to_le_bytes());
    npy.extend_from_slice(array.as_bytes());
    npy.resize(npy.len() + (16 << 20), 0);
    let mut zip = ZipFile::new().with("a.npy", Method::Stored, &npy);
    zip.members[0].crc ^= 1;
    let bytes = zip.bytes();
    let archive = read(&bytes).unwrap();
    assert!(archive.notes[0].contains("1 stored arrays not verified"));
    let full = container::read(Bytes::borrowed(&bytes), Check::Full);
    assert_eq!(full.unwrap_err().code(), Code::Corrupt);
}

/// Where test files are written.
fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("containers");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

#[test]
fn mapping_what_is_no_file() {
    let open = |path: &Path| Mapping::open(path).unwrap_err();
    assert!(matches!(
        open(&data("nothing")),
        Error::Io {
            operation: "open",
            ..
        }
    ));
    assert!(
        open(&data("hostile"))
            .to_string()
            .contains("not a regular file")
    );
    let empty = scratch("empty");
    std::fs::write(&empty, b"").unwrap();
    assert!(Mapping::open(&empty).unwrap().as_ref().is_empty());
}

/// A sparse npz file of 300 MB, as `numpy.savez` would write it.
#[cfg(target_os = "linux")]
#[test]
fn opening_300_mb_touches_little() {
    use std::io::{Seek, SeekFrom, Write};
    let (d_in, d_sae) = (2304u32, 16384u32);
    let size = 4 * d_in * d_sae;
    let path = scratch("large.npz");
    let mut file = std::fs::File::create(&path).unwrap();
    let mut directory = Vec::new();
    for (name, shape) in [("W_enc.npy", [d_in, d_sae]), ("W_dec.npy", [d_sae, d_in])] {
        let header = format!(
            "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}\n",
            shape[0], shape[1]
        );
        let npy = 10 + header.len() as u32 + size;
        let mut common = b"\x14\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        common.extend_from_slice(&npy.to_le_bytes());
        common.extend_from_slice(&npy.to_le_bytes());
        common.extend_from_slice(&[name.len() as u8, 0, 0, 0]);
        let offset = file.stream_position().unwrap() as u32;
        file.write_all(b"PK\x03\x04").unwrap();
        file.write_all(&common).unwrap();
        file.write_all(name.as_bytes()).unwrap();
        file.write_all(b"\x93NUMPY\x01\x00").unwrap();
        file.write_all(&(header.len() as u16).to_le_bytes())
            .unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.seek(SeekFrom::Current(size.into())).unwrap();
        directory.extend_from_slice(b"PK\x01\x02\x14\0");
        directory.extend_from_slice(&common);
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&offset.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let start = file.stream_position().unwrap() as u32;
    file.write_all(&directory).unwrap();
    file.write_all(b"PK\x05\x06\0\0\0\0\x02\0\x02\0").unwrap();
    file.write_all(&(directory.len() as u32).to_le_bytes())
        .unwrap();
    file.write_all(&start.to_le_bytes()).unwrap();
    file.write_all(&[0, 0]).unwrap();
    drop(file);

    let mut fastest = f64::INFINITY;
    for _ in 0..5 {
        let started = std::time::Instant::now();
        let bytes = Mapping::open(&path).unwrap().into_bytes();
        let mut archive = container::read(bytes.clone(), Check::Quick).unwrap();
        let tensor = archive.take("W_enc").unwrap().unwrap();
        fastest = fastest.min(started.elapsed().as_secs_f64());
        assert_eq!(tensor.shape(), [2304, 16384]);
        assert_eq!(tensor.bytes().len(), size as usize);
        let resident = resident_kb(&path);
        assert!(resident < 1024, "{resident} KiB of the map were touched");
        drop(bytes);
    }
    std::fs::remove_file(&path).unwrap();
    assert!(fastest < 0.005, "opening took {fastest} s");
}

/// What of the map of this file is in memory of the process.
#[cfg(target_os = "linux")]
fn resident_kb(path: &Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let path = path.to_str().unwrap();
    let map = maps.split_once(path).unwrap().1;
    let line = map.lines().find(|line| line.starts_with("Rss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn writers_and_readers_agree() {
    let values: Vec<u8> = (0..24).collect();
    let path = scratch("array.npy");
    for (dtype, shape) in [
        (Dtype::F32, &[2, 3][..]),
        (Dtype::F64, &[3]),
        (Dtype::I64, &[1, 3, 1]),
        (Dtype::U8, &[24]),
        (Dtype::F16, &[3, 4]),
        (Dtype::Bool, &[24]),
    ] {
        write_npy(&path, dtype, shape, &values).unwrap();
        let bytes = Mapping::open(&path).unwrap().into_bytes();
        assert_eq!((bytes.len() - 24) % 64, 0);
        let tensor = read_npy(&bytes).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (dtype, shape));
        assert_eq!(tensor.bytes().as_slice(), values);
    }
    let path = scratch("arrays.npz");
    let mut writer = NpzWriter::create(&path).unwrap();
    writer.add("indptr", Dtype::I64, &[3], &values).unwrap();
    writer.add("empty", Dtype::F32, &[0, 7], &[]).unwrap();
    writer.add("scalar", Dtype::F32, &[], &values[..4]).unwrap();
    assert!(!path.exists());
    writer.finish().unwrap();
    let bytes = Mapping::open(&path).unwrap().into_bytes();
    let mut archive = container::read(bytes, Check::Full).unwrap();
    assert_eq!(archive.container, "npz");
    assert_eq!(
        archive.take("indptr").unwrap().unwrap().bytes().as_slice(),
        values
    );
    assert_eq!(archive.take("empty").unwrap().unwrap().shape(), [0, 7]);
    assert_eq!(
        archive.take("scalar").unwrap().unwrap().shape(),
        [0usize; 0]
    );
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn writers_refuse_and_leave_nothing() {
    let path = scratch("refused.npy");
    let wrong = write_npy(&path, Dtype::F32, &[3], &[0; 8]);
    assert_eq!(wrong.unwrap_err().code(), Code::Malformed);
    let bf16 = write_npy(&path, Dtype::BF16, &[4], &[0; 8]);
    assert_eq!(bf16.unwrap_err().code(), Code::Unsupported);
    let nowhere = write_npy(&scratch("no/such/folder.npy"), Dtype::U8, &[1], &[0]);
    assert_eq!(nowhere.unwrap_err().code(), Code::Io);
    let folder = scratch("unfinished");
    std::fs::create_dir_all(&folder).unwrap();
    let mut writer = NpzWriter::create(&folder.join("x.npz")).unwrap();
    writer.add("a", Dtype::U8, &[1], &[0]).unwrap();
    drop(writer);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    assert!(!path.exists());
}

/// Loads everything; errors are fine, panics are not.
fn exercise(bytes: &[u8]) {
    if let Ok(archive) = container::read(Bytes::borrowed(bytes), Check::Full) {
        for entry in &archive.entries {
            // A mutation can announce what deflate could hold, but no more.
            if entry.load_bytes() > 64 << 20 {
                continue;
            }
            if let Ok(tensor) = entry.load() {
                let _ = tensor.to_f64();
                let _ = tensor.to_i64();
            }
        }
    }
}

/// The small sound files that are cut and mutated.
fn seeds() -> Vec<Vec<u8>> {
    let files = [
        "hostile/st_odd_offsets/sae_weights.safetensors",
        "hostile/st_metadata_unicode/sae_weights.safetensors",
        "hostile/npz_mixed_methods/params.npz",
        "hostile/npz_zip64_streamed/params.npz",
        "hostile/npz_big_endian/params.npz",
        "hostile/npz_fortran_order/params.npz",
    ];
    files
        .iter()
        .map(|file| std::fs::read(data(file)).unwrap())
        .collect()
}

#[test]
fn no_truncation_passes_or_panics() {
    for bytes in seeds() {
        for length in 0..bytes.len() {
            let result = read(&bytes[..length]);
            let error = result.expect_err("a file that was cut was read");
            assert!(
                matches!(
                    error.code(),
                    Code::Truncated | Code::Malformed | Code::NotACheckpoint
                ),
                "{length} of {}: {error}",
                bytes.len()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn mutations_do_not_panic(
        seed in 0usize..6,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ends in any::<bool>(),
    ) {
        let mut bytes = seeds().swap_remove(seed);
        let length = bytes.len();
        for (index, value) in changes {
            // Half of the runs change the last 700 bytes: the directory of an archive.
            let at = if ends { length - 1 - index.index(700) } else { index.index(900) };
            bytes[at] = value;
        }
        exercise(&bytes);
    }

    #[test]
    fn noise_does_not_panic(
        magic in prop::sample::select(vec![&b"PK\x03\x04"[..], b"\x93NUMPY", b"\x40\0\0\0\0\0\0\0{"]),
        noise in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut bytes = magic.to_vec();
        bytes.extend_from_slice(&noise);
        exercise(&bytes);
        let _ = read_npy(&Bytes::borrowed(&bytes));
        bytes.extend_from_slice(b"PK\x05\x06");
        bytes.extend_from_slice(&noise);
        bytes.extend_from_slice(&[0; 22]);
        exercise(&bytes);
    }
}
