//! Encoding in batches, against the same rows one at a time and against a matrix product
//! (`matrixmultiply`) followed by a scan.
//!
//! `cargo bench --bench batch -- [MODEL ROWS.npy [LEVEL ...]]`
//!
//! Levels are those of `sae levels`, or `prepared` after one, as in `avx512-prepared`; all if none
//! are named. Without arguments a small model is made. Every answer is checked before it is timed: a batch
//! against its rows alone, bit for bit; the product's features against those of the batch, except
//! near the threshold.

#![allow(unsafe_code)] // one call of matrixmultiply

#[path = "common/model.rs"]
#[allow(dead_code)]
mod model;

use std::time::Instant;

use sae::kernels::{Kernels, Level, WeightType};
use sae::model::{Activation, Layout};
use sae::{Features, OpenOptions, Rows, Sae, Scratch};

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    match arguments.as_slice() {
        [path, rows, wanted @ ..] => {
            let (width, values) = read_npy(rows);
            let open = |level| {
                let options = OpenOptions::default().level(level);
                Sae::open(path, &options).expect("the model opens")
            };
            bench(path, &open, width, &values, wanted);
        }
        _ => {
            let made = model::Model::new(384, 3072, WeightType::F32);
            let mut random = model::Random(7);
            let values: Vec<f32> = (0..64 * 384).map(|_| random.value() * 3.0).collect();
            let open = |level| {
                let sae = made.open(&made.bytes);
                sae.with_level(level).expect("the level is there")
            };
            bench("made 384 x 3072", &open, 384, &values, &[]);
        }
    }
}

fn bench<'a>(
    name: &str,
    open: &dyn Fn(Level) -> Sae<'a>,
    width: usize,
    values: &[f32],
    wanted: &[String],
) {
    let rows = Rows::from_f32(values, width).expect("whole rows");
    let rows = rows.part(0, 512);
    println!("{name}: {} rows", rows.rows());
    let levels: Vec<Level> = Level::available().collect();
    let best = *levels.last().expect("scalar at least");
    let sae = open(best);
    assert_eq!(sae.d_in(), width);

    // One at a time: the reference for the bits, and the first figure.
    let mut scratch = Scratch::for_rows(&sae, 1).expect("memory");
    let mut alone = Features::new();
    let few = rows.part(0, 64);
    let one = time(3, || {
        sae.encode(few, &mut scratch, &mut alone).expect("encodes");
    }) / few.rows() as f64;
    sae.encode(rows, &mut scratch, &mut alone).expect("encodes");
    println!("one at a time, {best}: {:.3} ms/row", one * 1e3);

    let product = matrix_product(&sae, rows, &alone);
    for level in levels.iter().rev() {
        for prepared in [false, true] {
            let name = format!("{level}{}", if prepared { "-prepared" } else { "" });
            if !(wanted.is_empty() || wanted.contains(&name)) {
                continue;
            }
            let mut sae = open(*level);
            if prepared {
                sae.prepare_in_place().expect("memory");
            }
            for count in [2, 7, 64, 512] {
                if *level == Level::Scalar && count > 64 {
                    continue;
                }
                let part = rows.part(0, count);
                let mut scratch = Scratch::new(&sae).expect("memory");
                let mut features = Features::new();
                sae.encode(part, &mut scratch, &mut features)
                    .expect("encodes");
                assert_same(&features, &alone);
                let rounds = if count > 64 { 5 } else { 3 };
                let seconds = time(rounds, || {
                    sae.encode(part, &mut scratch, &mut features)
                        .expect("encodes");
                }) / part.rows() as f64;
                print!(
                    "{name}: {} rows, {:.3} ms/row, {:.1} times one at a time",
                    part.rows(),
                    seconds * 1e3,
                    one / seconds,
                );
                match product {
                    Some(product) => println!(", {:.2} times matrixmultiply", product / seconds),
                    None => println!(),
                }
            }
        }
    }
}

/// Seconds per row of a matrix product with `matrixmultiply` and a scan of its result, for models
/// of thresholds and f32 weights.
fn matrix_product(sae: &Sae<'_>, rows: Rows<'_>, features: &Features) -> Option<f64> {
    let parts = sae.parts();
    let Activation::JumpRelu { threshold, .. } = &parts.activation else {
        return None;
    };
    if parts.encoder.weight_type() != WeightType::F32 || parts.scale.is_some() {
        return None;
    }
    let (d_in, d_sae, n) = (sae.d_in(), sae.d_sae(), rows.rows());
    let weights: Vec<f32> = parts
        .encoder
        .bytes()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    let stride = (parts.encoder.stride_bytes() / 4) as isize;
    let (input_step, feature_step) = match parts.encoder.layout() {
        Layout::Columns => (stride, 1),
        _ => (1, stride),
    };
    let mut wide = vec![0f64; d_in];
    let mut inputs = Vec::with_capacity(n * d_in);
    for row in 0..n {
        Kernels::best().widen(WeightType::F32, rows.row_bytes(row), &mut wide);
        let centre = parts.center.as_deref().unwrap_or(&[]);
        let centre = centre.iter().copied().chain(std::iter::repeat(0.0));
        inputs.extend(wide.iter().zip(centre).map(|(x, c)| (x - c) as f32));
    }
    let limits: Vec<f32> = (0..d_sae)
        .map(|i| {
            let bias = parts.bias.as_ref().map_or(0.0, |bias| bias[i]);
            (f64::from(threshold.of(i)) - bias) as f32
        })
        .collect();
    let mut pre = vec![0f32; n * d_sae];
    let mut found: Vec<(u32, f32)> = Vec::new();
    let mut run = || {
        // SAFETY: the pointers cover the matrices that the sizes and strides describe.
        unsafe {
            matrixmultiply::sgemm(
                n,
                d_in,
                d_sae,
                1.0,
                inputs.as_ptr(),
                d_in as isize,
                1,
                weights.as_ptr(),
                input_step,
                feature_step,
                0.0,
                pre.as_mut_ptr(),
                d_sae as isize,
                1,
            );
        }
        found.clear();
        for pre in pre.chunks_exact(d_sae) {
            let over = pre.iter().zip(&limits).enumerate();
            let over = over.filter(|(_, (pre, limit))| pre > limit);
            found.extend(over.map(|(i, (pre, _))| (i as u32, *pre)));
        }
    };
    let seconds = time(2, &mut run) / n as f64;
    println!("matrixmultiply and a scan: {:.3} ms/row", seconds * 1e3);
    let differ = found.len().abs_diff(features.len());
    assert!(
        differ <= 2 + features.len() / 1000,
        "{} and {} features",
        found.len(),
        features.len()
    );
    Some(seconds)
}

/// The median of so many runs.
fn time(rounds: usize, mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[rounds / 2]
}

/// Whether the rows are the first of those.
fn assert_same(features: &Features, alone: &Features) {
    for (row, found) in features.iter().enumerate() {
        let expected = alone.row(row).expect("a row");
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
        assert_eq!(found.status, expected.status, "row {row}");
        assert_eq!(found.indices, expected.indices, "row {row}");
        assert_eq!(bits(found.values), bits(expected.values), "row {row}");
    }
}

/// Rows of a little-endian f4 or f2 .npy file.
fn read_npy(path: &str) -> (usize, Vec<f32>) {
    let bytes = std::fs::read(path).expect("rows");
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = String::from_utf8_lossy(&bytes[10..header]).into_owned();
    let shape = text.split("'shape': (").nth(1).expect("a shape");
    let width = shape.split([',', ')']).nth(1).expect("two dimensions");
    let width: usize = width.trim().parse().expect("a number");
    let data = &bytes[header..];
    let ty = match text.contains("<f4") {
        true => WeightType::F32,
        false => WeightType::F16,
    };
    let mut wide = vec![0f64; data.len() / ty.size()];
    Kernels::best().widen(ty, data, &mut wide);
    (width, wide.into_iter().map(|value| value as f32).collect())
}
