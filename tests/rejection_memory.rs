//! Rejecting a file, whatever it announces, takes less than 64 MB of memory beyond the file.
#![cfg(all(feature = "torch", feature = "gzip", feature = "yaml"))]

use sae::bytes::Bytes;
use sae::container::{self, Check};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

mod zip_file;
use zip_file::{Method, ZipFile};

/// The most that rejecting a file may cost.
const LIMIT: i64 = 64 << 20;

/// An allocator that knows how many bytes the thread holds and has held at most.
mod held {
    #![allow(unsafe_code)] // the trait is unsafe; every call is passed on as it came

    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    thread_local! {
        // Const-initialised and without a destructor: reading it never allocates.
        static NOW_AND_PEAK: Cell<(i64, i64)> = const { Cell::new((0, 0)) };
    }

    /// The highest number of bytes held during `work` beyond those held before.
    pub(crate) fn peak_of(work: impl FnOnce()) -> i64 {
        let (before, _) = NOW_AND_PEAK.get();
        NOW_AND_PEAK.set((before, before));
        work();
        NOW_AND_PEAK.get().1 - before
    }

    fn add(bytes: i64) {
        let (now, peak) = NOW_AND_PEAK.get();
        NOW_AND_PEAK.set((now + bytes, peak.max(now + bytes)));
    }

    struct Counting;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    // SAFETY: every method passes its arguments to `System` and returns what that returns.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            add(layout.size() as i64);
            // SAFETY: the caller keeps the contract of `alloc`, which is the same.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            add(-(layout.size() as i64));
            // SAFETY: the caller keeps the contract of `dealloc`, which is the same, and the
            // pointer came from `System`.
            unsafe { System.dealloc(pointer, layout) }
        }
    }
}

#[track_caller]
fn costs_little(what: &str, bytes: &[u8]) {
    let mut outcome = String::new();
    let peak = held::peak_of(|| {
        outcome = match container::read(Bytes::borrowed(bytes), Check::Full) {
            Ok(archive) => format!("read, {} entries", archive.entries.len()),
            Err(error) => error.to_string(),
        };
    });
    println!("{what}: {:.1} MB: {outcome}", peak as f64 / 1e6);
    assert!(peak < LIMIT, "{what}: {peak} bytes: {outcome}");
}

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
fn the_hostile_files() {
    let mut found = Vec::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hostile");
    files(&folder, &mut found);
    for path in found {
        costs_little(path.to_str().unwrap(), &fs::read(&path).unwrap());
    }
}

fn safetensors(header: &str) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes
}

/// `piece` with numbers for `#`, as often as fits into `size` bytes.
fn repeated(piece: &str, size: usize) -> String {
    let mut text = String::new();
    for i in 0.. {
        let next = piece.replace('#', &i.to_string());
        if text.len() + next.len() > size {
            break;
        }
        text.push_str(&next);
    }
    text
}

#[test]
fn headers_of_safetensors() {
    let size = container::safetensors::MAX_HEADER - 200;
    let tensor = r##""#":{"dtype":"U8","shape":[],"data_offsets":[0,0]},"##;
    let tensors = repeated(tensor, size);
    costs_little(
        "many tensors",
        &safetensors(&format!("{{{tensors}\"x\":0}}")),
    );
    let shape = "1,".repeat(size / 2);
    let shape = format!(r#"{{"a":{{"dtype":"U8","shape":[{shape}1],"data_offsets":[0,1]}}}}"#);
    costs_little("a long shape", &safetensors(&shape));
    let texts = repeated(r##""#":"","##, size);
    let texts = format!(r#"{{"__metadata__":{{{texts}"x":""}},"x":0}}"#);
    costs_little("many texts", &safetensors(&texts));
    let texts = repeated(r##""#":"","##, size);
    let texts = format!(r#"{{"__metadata__":{{{texts}"x":""}}}}"#);
    costs_little("many texts, read", &safetensors(&texts));
    let name = "\\u0001".repeat(size / 6);
    costs_little("a long name", &safetensors(&format!(r#"{{"{name}":0}}"#)));
    costs_little("noise", &safetensors(&format!("{{{}", "[".repeat(size))));
}

#[test]
fn directories_of_zip_files() {
    let array = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (), }";
    let mut many = ZipFile::new();
    for i in 0..65_000 {
        many = many.with(&format!("{i:0>500}.npy"), Method::Stored, b"");
    }
    costs_little("many members", &many.bytes());
    many = many
        .with("0.npy", Method::Stored, array)
        .with("0.npy", Method::Stored, array);
    costs_little("many members, the last one twice", &many.bytes());
    let bomb = [&array[..], &vec![b' '; 1 << 20]].concat();
    let mut bombs = ZipFile::new();
    for i in 0..2_000 {
        bombs = bombs.with(&format!("{i}.npy"), Method::Deflated, &bomb);
    }
    costs_little("many bombs", &bombs.bytes());
}

fn pickled(body: &[u8]) -> Vec<u8> {
    [b"\x80\x02", body].concat()
}

#[test]
fn pickles() {
    let many = 1 << 18;
    let cases: [(&str, Vec<u8>); 9] = [
        ("many lists", b"]".repeat(many)),
        (
            "many lists of one",
            [b"]N", &b"a0]N".repeat(many / 2)[..]].concat(),
        ),
        ("many dictionaries", b"}NNs0".repeat(many / 3)),
        ("many tuples", b"NNN\x87".repeat(many / 4)),
        ("many marks", b"(".repeat(many)),
        ("many memo slots", b"N\x94".repeat(many)),
        ("a memo slot far away", b"Nr\xff\xff\x03\0".to_vec()),
        (
            "a long text",
            [b"X\0\0\0\x01", &vec![b'x'; 1 << 24][..]].concat(),
        ),
        (
            "one list, filled",
            [b"](", &b"N".repeat(many - 10)[..], b"e."].concat(),
        ),
    ];
    for (what, body) in cases {
        costs_little(what, &pickled(&body));
    }
    // A dictionary of dictionaries that share their content: names and values by reference.
    let mut body = b"}q\0".to_vec();
    for i in 0..16u8 {
        let long = [&b"X\x1c\0\0\0"[..], &[b'a'; 28]].concat();
        let other = [&b"X\x1c\0\0\0"[..], &[b'b'; 28]].concat();
        let pairs = [&long[..], &[b'h', i], &other, &[b'h', i]].concat();
        body.extend_from_slice(&[b"}(", &pairs[..], &[b'u', b'q', i + 1, b'0']].concat());
    }
    body.extend_from_slice(b"0h\x10.");
    costs_little("names by reference", &pickled(&body));
    let text = [b"X\0\0\x10\0", &vec![b'x'; 1 << 20][..], b"q\0"].concat();
    let body = [
        b"}X\x01\0\0\0a](",
        &text[..],
        &b"h\0".repeat(200_000),
        b"es.",
    ]
    .concat();
    costs_little("texts by reference", &pickled(&body));
    let body = [b"}X\x01\0\0\0a](", &b"C\x01x".repeat(200_000)[..], b"es."].concat();
    costs_little("bytes left out", &pickled(&body));
    let mut body = b"}(".to_vec();
    for i in 0..60_000 {
        let key = format!("{i:0>500}");
        body.extend_from_slice(&[&[b'X', 0xf4, 1, 0, 0][..], key.as_bytes(), b"N"].concat());
    }
    body.extend_from_slice(b"u.");
    costs_little("long names", &pickled(&body));
}

#[test]
fn headers_of_gguf() {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let start = |tensors: u64, keys: u64| {
        let counts = [tensors.to_le_bytes(), keys.to_le_bytes()].concat();
        [b"GGUF\x03\0\0\0", &counts[..]].concat()
    };
    let mut bytes = start(1, 65_000);
    for i in 0..65_000 {
        bytes.extend(text(&format!("{i:0>500}")));
        bytes.extend([0, 0, 0, 0, 1]);
    }
    costs_little("many keys", &bytes);
    let mut bytes = start(65_536, 0);
    for i in 0..65_536 {
        bytes.extend(text(&format!("{i:0>500}")));
        bytes.extend([0; 16]);
    }
    costs_little("many tensors", &bytes);
    let mut bytes = start(1, 5_000);
    for i in 0..5_000u32 {
        bytes.extend(text(&i.to_string()));
        let length = if i == 0 { 65_000 } else { 1_000_000 };
        bytes.extend([9, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(u64::to_le_bytes(length));
        bytes.extend(std::iter::repeat_n(0, length as usize).take(if i < 50 {
            usize::MAX
        } else {
            0
        }));
    }
    costs_little("long arrays", &bytes);
    let mut bytes = start(1, 1_000);
    for i in 0..1_000 {
        bytes.extend(text(&i.to_string()));
        bytes.extend([8, 0, 0, 0]);
        bytes.extend(text(&"x".repeat(50_000)));
    }
    costs_little("long texts", &bytes);
}

#[test]
fn gzip_and_yaml() {
    let level = flate2::Compression::best();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    for _ in 0..256 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    costs_little("a bomb", &encoder.finish().unwrap());
    let size = container::yaml::MAX_BYTES;
    let anchors = format!(
        "a: &a [{}]\n{}",
        "x,".repeat(1000),
        repeated("b#: *a\n", size / 2)
    );
    for (what, yaml) in [
        ("a list", "- x\n".repeat(size / 4)),
        ("a flow", format!("[{}]", "1,".repeat(size / 2 - 2))),
        ("nesting", "[".repeat(size)),
        ("blocks", "- ".repeat(size / 2)),
        ("keys", repeated("#: 1\n", size)),
        ("references", anchors),
        ("a long text", "x".repeat(size)),
        ("comments", "#\n".repeat(size / 2)),
        ("anchors", repeated("- &a# x\n", size)),
    ] {
        let mut outcome = String::new();
        let peak = held::peak_of(|| {
            outcome = match container::yaml::read(yaml.as_bytes()) {
                Ok(_) => "read".into(),
                Err(error) => error.to_string(),
            };
        });
        println!("yaml, {what}: {:.1} MB: {outcome}", peak as f64 / 1e6);
        assert!(peak < LIMIT, "{what}: {peak} bytes: {outcome}");
    }
}

/// The counter is the thread's, so it is the labels that are judged here, not the whole test.
fn labels_cost_little(what: &str, bytes: &[u8]) {
    let mut outcome = String::new();
    let peak = held::peak_of(|| {
        outcome = match sae::Labels::from_bytes(bytes) {
            Ok(labels) => panic!("{what}: read, {} labels", labels.count()),
            Err(error) => error.to_string(),
        };
    });
    println!("labels, {what}: {:.1} MB: {outcome}", peak as f64 / 1e6);
    assert!(peak < LIMIT, "{what}: {peak} bytes: {outcome}");
}

#[test]
fn labels() {
    let gzip = |bytes: &[u8]| {
        let level = flate2::Compression::best();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let size = 80 << 20;
    let sound = repeated(
        "{\"index\":#,\"description\":\"what feature # means\"}\n",
        size,
    );
    let long = format!("{{\"index\":1,\"x\":\"{}\"}}", "x".repeat(size));
    let escapes = format!("{{\"index\":1,\"x\":\"{}\"}}", "\\u0001".repeat(size / 6));
    let waiting = format!(
        "{{\"explanations\":[{}",
        format!("{{\"description\":\"{}\"}},", "x".repeat(60_000)).repeat(1000)
    );
    let names = repeated(
        &format!(
            "{{\"index\":1,\"description\":\"x\",\"typeName\":\"#{}\"}}",
            "n".repeat(400)
        ),
        size,
    );
    for (what, text) in [
        ("sound ones before a broken one", sound + "{"),
        ("a long text", long),
        ("escapes", escapes),
        ("nesting", "[".repeat(size)),
        ("objects", "{\"x\":".repeat(size / 5)),
        ("explanations without a feature", waiting),
        ("names", names),
        ("spaces", " ".repeat(size)),
        ("a long number", "9".repeat(size)),
        ("a long key", format!("{{\"{}", "k".repeat(size))),
    ] {
        labels_cost_little(what, text.as_bytes());
        labels_cost_little(&format!("{what}, gzipped"), &gzip(text.as_bytes()));
    }
}
