//! Each kernel at every available level, in shapes of real autoencoders: time, bytes of weights
//! read, and the ratio to the read bandwidth measured in the same run.
//!
//! Every call is first checked, bit for bit, against the scalar level. Weights lie in a buffer of
//! half a gigabyte and each iteration reads the next copy, so that they come from memory, as the
//! weights of a model that is not the only thing running do. `cargo bench --bench kernels -- avx2`
//! runs the entries whose name contains `avx2`.

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use common::{bandwidth, only_checked};
use criterion::{Criterion, SamplingMode, Throughput};
use sae::kernels::{Kernels, Level, WeightType};

const BUFFER_BYTES: usize = 512 << 20;
/// Bytes of the largest matrix, which is all that checking the answers needs.
const LARGEST: usize = 2304 * 16384 * 4;
/// `(d_in, d_sae)`
const SHAPES: [(usize, usize); 2] = [(2304, 16384), (384, 3072)];
/// Rows of one decode.
const L0: usize = 64;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut records = Vec::new();
    let bytes = if only_checked() {
        LARGEST
    } else {
        BUFFER_BYTES
    };
    let mut buffer = vec![0u8; bytes];

    for ty in WeightType::ALL {
        fill(&mut buffer, ty, &mut random);
        for (d_in, d_sae) in SHAPES {
            let x: Vec<f32> = (0..d_in).map(|_| random.value() * 3.0).collect();
            let mut bench = Bench {
                criterion: &mut criterion,
                records: &mut records,
                ty,
            };
            bench.rows(&buffer, &x, d_sae);
            bench.columns(&buffer, &x, d_sae);
            bench.decode(&buffer, d_in, &mut random);
        }
    }
    criterion.final_summary();
    if only_checked() {
        println!("{} answers are right", records.len());
        return;
    }

    let best = records
        .iter()
        .map(|record: &Record| record.bandwidth)
        .fold(0.0, f64::max);
    println!(
        "\nread bandwidth, one thread, best of the run: {:.2} GB/s",
        best / 1e9
    );
    println!("ratio: to the bandwidth measured beside the entry / to the best of the run");
    for Record {
        name,
        bytes,
        seconds,
        bandwidth,
    } in &records
    {
        println!(
            "{name:<40} {:>9.1} us {:>8.2} MB {:>6.2} GB/s  {:.2} / {:.2}",
            seconds * 1e6,
            *bytes as f64 / 1e6,
            *bytes as f64 / seconds / 1e9,
            *bytes as f64 / seconds / bandwidth,
            *bytes as f64 / seconds / best,
        );
    }
}

/// One line of the table: the fastest sample.
struct Record {
    name: String,
    bytes: usize,
    seconds: f64,
    bandwidth: f64,
}

struct Bench<'a> {
    criterion: &'a mut Criterion,
    records: &'a mut Vec<Record>,
    ty: WeightType,
}

impl Bench<'_> {
    /// Encode, one row of weights per feature.
    fn rows(&mut self, buffer: &[u8], x: &[f32], d_sae: usize) {
        let ty = self.ty;
        let (stride, bytes) = (x.len() * ty.size(), x.len() * ty.size() * d_sae);
        let name = format!("rows {}x{d_sae}", x.len());
        self.levels(&name, buffer, bytes, d_sae, |kernels, copy, out| {
            kernels.dot_rows(ty, matrix(buffer, copy, bytes), stride, x, out);
        });
    }

    /// Encode, one row of weights per input, in tiles.
    fn columns(&mut self, buffer: &[u8], x: &[f32], d_sae: usize) {
        let ty = self.ty;
        let (stride, bytes) = (d_sae * ty.size(), x.len() * ty.size() * d_sae);
        let tile_width = std::env::var("TILE")
            .ok()
            .and_then(|v| v.parse().ok())
            .unwrap_or(Kernels::COLUMN_TILE);
        let mut lanes = vec![0.0; Kernels::COLUMN_LANES * tile_width];
        let name = format!("columns {}x{d_sae}", x.len());
        self.levels(&name, buffer, bytes, d_sae, |kernels, copy, out| {
            let weights = matrix(buffer, copy, bytes);
            for (tile, out) in out.chunks_mut(tile_width).enumerate() {
                let weights = &weights[tile * tile_width * ty.size()..];
                kernels.dot_columns(ty, weights, stride, x, &mut lanes, out);
            }
        });
    }

    /// Decode: `L0` rows, others each time.
    fn decode(&mut self, buffer: &[u8], d_out: usize, random: &mut Random) {
        let ty = self.ty;
        let stride = d_out * ty.size();
        let rows = buffer.len() / stride;
        let sets: Vec<Vec<u32>> = (0..(256 << 20) / (stride * L0))
            .map(|_| {
                let mut set: Vec<u32> = (0..L0)
                    .map(|_| (random.next() % rows as u64) as u32)
                    .collect();
                set.sort_unstable();
                set
            })
            .collect();
        let scales: Vec<f64> = (0..L0).map(|_| f64::from(random.value()) / 3.0).collect();
        let name = format!("decode {L0} of {d_out}");
        self.levels(&name, buffer, stride * L0, d_out, |kernels, copy, sums| {
            sums.fill(0.0);
            let set = &sets[copy % sets.len()];
            kernels.add_scaled_rows(ty, buffer, stride, set, &scales, sums);
        });
    }

    /// Checks `call(kernels, copy, out)` on every level against scalar, then times it.
    fn levels(
        &mut self,
        name: &str,
        buffer: &[u8],
        bytes: usize,
        out_len: usize,
        mut call: impl FnMut(&Kernels, usize, &mut [f64]),
    ) {
        let mut expected = vec![0.0; out_len];
        let mut out = vec![f64::NAN; out_len];
        call(Kernels::for_level(Level::Scalar).unwrap(), 0, &mut expected);
        let checked = &buffer[..buffer.len().min(1 << 20)];
        let bandwidth = bandwidth::measure(if only_checked() { checked } else { buffer }, 1);
        for level in Level::available() {
            let kernels = Kernels::for_level(level).unwrap();
            call(kernels, 0, &mut out);
            assert!(
                expected
                    .iter()
                    .zip(&out)
                    .all(|(a, b)| a.to_bits() == b.to_bits()),
                "{name}: {level} differs from scalar"
            );
            let mut group = self.criterion.benchmark_group(name);
            group.sampling_mode(SamplingMode::Flat).sample_size(10);
            group.warm_up_time(Duration::from_millis(100));
            group.measurement_time(Duration::from_millis(500));
            group.throughput(Throughput::Bytes(bytes as u64));
            let (mut fastest, mut copy) = (f64::INFINITY, 0);
            group.bench_function(format!("{} {level}", self.ty.name()), |bencher| {
                bencher.iter_custom(|iterations| {
                    let mut total = Duration::ZERO;
                    for _ in 0..iterations {
                        copy += 1;
                        let start = Instant::now();
                        call(black_box(kernels), copy, &mut out);
                        let elapsed = start.elapsed();
                        black_box(&mut out);
                        fastest = fastest.min(elapsed.as_secs_f64());
                        total += elapsed;
                    }
                    total
                });
            });
            group.finish();
            if fastest.is_finite() {
                let name = format!("{name} {} {level}", self.ty.name());
                self.records.push(Record {
                    name,
                    bytes,
                    seconds: fastest,
                    bandwidth,
                });
            }
        }
    }
}

/// The next of the copies of a matrix that the buffer holds.
fn matrix(buffer: &[u8], copy: usize, bytes: usize) -> &[u8] {
    let copies = buffer.len() / bytes;
    &buffer[copy % copies * bytes..][..bytes]
}

/// Fills the buffer with ordinary weights of type `ty`: magnitudes from 2^-7 to 2, random signs.
fn fill(buffer: &mut [u8], ty: WeightType, random: &mut Random) {
    let pattern: Vec<u8> = (0..1 << 20)
        .flat_map(|_| {
            let bits = random.next();
            let (sign, fraction) = (bits >> 63, bits & 0x7f_ffff);
            let octave = bits >> 32 & 7;
            match ty {
                WeightType::F32 => ((sign << 31 | (120 + octave) << 23 | fraction) as u32)
                    .to_le_bytes()
                    .to_vec(),
                WeightType::F16 => ((sign << 15 | (8 + octave) << 10 | fraction >> 13) as u16)
                    .to_le_bytes()
                    .into(),
                WeightType::BF16 => ((sign << 15 | (120 + octave) << 7 | fraction >> 16) as u16)
                    .to_le_bytes()
                    .into(),
            }
        })
        .collect();
    for part in buffer.chunks_mut(pattern.len()) {
        part.copy_from_slice(&pattern[..part.len()]);
    }
}

/// A small generator of repeatable numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From -1 to 1.
    fn value(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}
