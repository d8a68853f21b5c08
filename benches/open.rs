//! Opening a 302 MB npz file in the form of Gemma Scope 1: how long it takes when the file is in
//! the page cache, and how much of the file is touched.
//!
//! *Touched* is told in two ways (Linux). Mapped: the resident pages of the file's mapping right
//! after opening, from `/proc/self/smaps`; the kernel maps up to 16 cached pages around each one
//! that is touched, so this is an upper bound. Read: what opening got through `read` calls, from
//! `/proc/self/io` (directory listings are not in it). With the page cache emptied of the file
//! first (`dd iflag=nocache`), `fincore` tells what the disk had to deliver, read-ahead included.

mod common;

use common::bandwidth;
use common::model::Random;
use criterion::Criterion;
use sae::container::npy_write::NpzWriter;
use sae::{Dtype, OpenOptions, Sae};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const D_IN: usize = 2304;
const D_SAE: usize = 16384;

fn main() {
    let path = checkpoint();
    let size = fs::metadata(&path).expect("the file is there").len();
    let open = || Sae::open(&path, &OpenOptions::default()).expect("it opens");

    // In the page cache, as a file is that was downloaded or used just before.
    let content = fs::read(&path).expect("it reads");
    let bandwidth = bandwidth::measure(&content, 1);
    drop(content);
    let (read_before, sae) = (read_calls(), open());
    let (read, mapped) = (read_calls() - read_before, mapped_bytes(&path));
    check(&sae);
    let stated = sae.description().bytes_read_at_open;
    drop(sae);

    let mut fastest = Duration::MAX;
    let mut criterion = Criterion::default().configure_from_args();
    criterion.bench_function("open npz 302 MB", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                let start = Instant::now();
                let sae = open();
                let elapsed = start.elapsed();
                check(&sae);
                fastest = fastest.min(elapsed);
                total += elapsed;
            }
            total
        });
    });
    criterion.final_summary();

    println!("\nread bandwidth, one thread: {:.2} GB/s", bandwidth / 1e9);
    println!(
        "open {:.1} MB npz, cached: {:.3} ms (goal 5 ms)",
        mega(size),
        1e3 * fastest.as_secs_f64()
    );
    let whole = size as f64 / bandwidth;
    println!(
        "  reading the whole file from memory would take {:.1} ms",
        1e3 * whole
    );
    println!("  stated by `inspect`: {:.3} MB", mega(stated));
    if cfg!(target_os = "linux") {
        println!(
            "  mapped pages: {:.3} MB, read calls: {:.3} MB (goal 1 MB)",
            mega(mapped),
            mega(read)
        );
    }
    match cold(&path, open) {
        Some((time, cached)) => println!(
            "  not cached: {:.3} ms, {:.3} MB came from disk, read-ahead included",
            1e3 * time.as_secs_f64(),
            mega(cached)
        ),
        None => println!("  not cached: skipped, `dd` or `fincore` is missing or did not evict"),
    }
}

fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn check(sae: &Sae<'_>) {
    assert_eq!((sae.d_in(), sae.d_sae(), sae.d_out()), (D_IN, D_SAE, D_IN));
    let description = sae.description();
    assert!(description.encoder.mapped && description.decoder.mapped);
}

/// The file, made on the first run and kept.
fn checkpoint() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("layer_12/width_16k/average_l0_82");
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("params.npz");
    if path.exists() {
        return path;
    }
    let mut random = Random(3);
    let mut values = |count: usize| -> Vec<f32> { (0..count).map(|_| random.value()).collect() };
    let threshold = vec![60.0_f32; D_SAE];
    let mut npz = NpzWriter::create(&path).expect("the folder can be written to");
    let mut add = |name: &str, shape: &[usize], values: &[f32]| {
        npz.add(name, Dtype::F32, shape, bytemuck::cast_slice(values))
            .expect("it is written");
    };
    add("W_dec", &[D_SAE, D_IN], &values(D_SAE * D_IN));
    add("W_enc", &[D_IN, D_SAE], &values(D_IN * D_SAE));
    add("b_dec", &[D_IN], &values(D_IN));
    add("b_enc", &[D_SAE], &values(D_SAE));
    add("threshold", &[D_SAE], &threshold);
    npz.finish().expect("it is written");
    path
}

/// Resident bytes of the mappings of `path` (0 where `/proc` does not tell).
fn mapped_bytes(path: &Path) -> u64 {
    let path = path
        .canonicalize()
        .unwrap_or_default()
        .display()
        .to_string();
    let (mut inside, mut kilobytes) = (false, 0);
    for line in fs::read_to_string("/proc/self/smaps")
        .unwrap_or_default()
        .lines()
    {
        if line.contains('-') && !line.contains(": ") {
            inside = line.ends_with(&path);
        } else if let Some(rest) = line.strip_prefix("Rss:").filter(|_| inside) {
            kilobytes += rest
                .trim()
                .trim_end_matches(" kB")
                .parse::<u64>()
                .unwrap_or(0);
        }
    }
    kilobytes * 1024
}

/// Bytes that this process got through read calls so far.
fn read_calls() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// The time of opening without the page cache, and how much of the file is cached after it.
fn cold<'a>(path: &Path, open: impl Fn() -> Sae<'a>) -> Option<(Duration, u64)> {
    let cached = || {
        let arguments = ["--bytes", "--noheadings", "--raw", "--output", "RES"];
        let output = Command::new("fincore")
            .args(arguments)
            .arg(path)
            .output()
            .ok()?;
        String::from_utf8(output.stdout)
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    // Pages that were never written to disk cannot be dropped.
    Command::new("sync").arg(path).status().ok()?;
    let input = format!("if={}", path.display());
    let drop_cache = ["iflag=nocache", "count=0", "status=none"];
    Command::new("dd")
        .arg(input)
        .args(drop_cache)
        .status()
        .ok()?;
    if cached()? != 0 {
        return None;
    }
    let start = Instant::now();
    let sae = open();
    let elapsed = start.elapsed();
    check(&sae);
    drop(sae);
    Some((elapsed, cached()?))
}
