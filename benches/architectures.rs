//! What architectures cost over the pass that they cannot do without: selecting the top k of 131,072
//! pre-activations against computing them, a step of a pursuit against one pass over its dictionary,
//! half a Matryoshka model against the whole.
//!
//! Every pass is timed in turn with what it is compared with, and medians are compared; answers are
//! checked first. `-- --test` checks answers at small sizes and times nothing.

mod common;
/// The pursuits in plain f64, of the tests.
#[allow(dead_code)] // the benches need a part of them
#[path = "../tests/reference/pursuit.rs"]
mod plain;

use common::bandwidth;
use common::model::Random;
use sae::bytes::Bytes;
use sae::kernels::{Kernels, WeightType};
use sae::model::{
    Activation, FeatureAxis, Matrix, Parts, Pursuit, Rank, ScreenKind, ScreenOptions, Thresholds,
};
use sae::tensor::Tensor;
use sae::{Dtype, Features, Rows, Sae, Scratch};
use std::hint::black_box;
use std::time::Instant;

/// A matrix of random f32 weights, one row per feature, of length 1 if `unit`.
fn matrix(features: usize, width: usize, unit: bool) -> Matrix<'static> {
    let mut random = Random(0x1234_5678_9abc_def1);
    // One prime number of values, again and again: no row repeats another.
    let pattern: Vec<f32> = (0..1_048_573).map(|_| random.value()).collect();
    let mut values: Vec<f32> = pattern
        .iter()
        .cycle()
        .take(features * width)
        .copied()
        .collect();
    if unit {
        for row in values.chunks_exact_mut(width) {
            let norm = row.iter().map(|w| w * w).sum::<f32>().sqrt();
            row.iter_mut().for_each(|w| *w /= norm);
        }
    }
    let bytes = Bytes::owned(bytemuck::cast_slice(&values).to_vec());
    let tensor = Tensor::new("weights", Dtype::F32, &[features, width], bytes).expect("a tensor");
    Matrix::new(&tensor, FeatureAxis::First, features, width).expect("a matrix")
}

/// What the plain pursuits are made of.
mod model {
    pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }
}

fn row(width: usize) -> Vec<f32> {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    (0..width).map(|_| random.value() * 3.0).collect()
}

/// A model whose encoder and decoder are the same matrix.
fn model(matrix: &Matrix<'static>, activation: Activation) -> Sae<'static> {
    let parts = Parts::new(matrix.clone(), activation, matrix.clone());
    Sae::from_parts(parts).expect("a model")
}

/// Every product of the matrix and a row, block by block as an encoder forms them.
fn products(kernels: &Kernels, matrix: &Matrix<'_>, row: &[f32], sums: &mut [f64]) {
    let stride = matrix.stride_bytes();
    for (block, bytes) in matrix.bytes().chunks(256 * stride).enumerate() {
        let count = bytes.len() / stride;
        let sums = &mut sums[block * 256..][..count];
        kernels.dot_rows(WeightType::F32, bytes, stride, row, sums);
    }
}

/// Medians of calls made in turn.
fn medians(rounds: usize, calls: &mut [&mut dyn FnMut()]) -> Vec<f64> {
    let mut times = vec![Vec::with_capacity(rounds); calls.len()];
    for _ in 0..=rounds {
        for (call, times) in calls.iter_mut().zip(&mut times) {
            let start = Instant::now();
            call();
            times.push(start.elapsed().as_secs_f64());
        }
    }
    for times in &mut times {
        times.remove(0); // the first round warms up
        times.sort_by(f64::total_cmp);
    }
    times.iter().map(|times| times[times.len() / 2]).collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let timed = arguments.iter().any(|argument| argument == "--bench")
        && !arguments.iter().any(|argument| argument == "--test");
    let buffer: Vec<u8> = match timed {
        true => (0..256usize << 20).map(|i| i as u8 | 1).collect(),
        false => vec![1; 1 << 20],
    };
    let speed = bandwidth::measure(&buffer, 1);
    drop(buffer);
    if timed {
        println!("read bandwidth, one thread: {:.2} GB/s", speed / 1e9);
    }
    top_k(timed, speed);
    pursuits(timed, speed);
    prefixes(timed, speed);
    if !timed {
        println!("answers are right");
    }
}

fn top_k(timed: bool, speed: f64) {
    let (d_in, d_sae, k) = if timed {
        (768, 131_072, 64)
    } else {
        (96, 4_096, 64)
    };
    let weights = matrix(d_sae, d_in, false);
    let rule = |k| Activation::TopK {
        k,
        rank: Rank::Value,
        relu: true,
    };
    let sae = model(&weights, rule(k));
    let input = row(d_in);
    let rows = Rows::from_f32(&input, d_in).expect("a row");
    let (mut scratch, mut features) = (Scratch::new(&sae).expect("memory"), Features::new());
    let kernels = Kernels::best();
    let mut sums = vec![0.0; d_sae];

    // The answer: the k largest products, the lowest index first among equals.
    sae.encode(rows, &mut scratch, &mut features)
        .expect("it encodes");
    products(kernels, &weights, &input, &mut sums);
    let mut order: Vec<u32> = (0..d_sae as u32).collect();
    let pre = |i: u32| sums[i as usize] as f32;
    order.sort_by(|&a, &b| pre(b).total_cmp(&pre(a)).then(a.cmp(&b)));
    order.truncate(k);
    order.sort_unstable();
    assert_eq!(features.indices(), order);
    let values: Vec<u32> = order.iter().map(|&i| pre(i).to_bits()).collect();
    let found = features.values().iter().map(|value| value.to_bits());
    assert_eq!(found.collect::<Vec<_>>(), values);
    if !timed {
        return;
    }
    // The same selection over rows of one weight, where the products are a small part of the time
    // and are timed apart.
    let thin_weights = matrix(d_sae, 1, false);
    let thin = model(&thin_weights, rule(k));
    let one = [1.5];
    let thin_rows = Rows::from_f32(&one, 1).expect("a row");
    let mut thin_scratch = Scratch::new(&thin).expect("memory");
    let (mut thin_features, mut thin_sums) = (Features::new(), vec![0.0; d_sae]);
    let times = medians(
        41,
        &mut [
            &mut || products(kernels, &weights, black_box(&input), &mut sums),
            &mut || {
                sae.encode(black_box(rows), &mut scratch, &mut features)
                    .expect("it encodes")
            },
            &mut || products(kernels, &thin_weights, black_box(&one), &mut thin_sums),
            &mut || {
                thin.encode(black_box(thin_rows), &mut thin_scratch, &mut thin_features)
                    .expect("it encodes")
            },
        ],
    );
    let bytes = weights.size_bytes() as f64;
    println!(
        "\ntop {k} of {d_sae} pre-activations, d_in {d_in}, f32, {:.0} MB",
        bytes / 1e6
    );
    let line = |name: &str, time: f64| {
        println!(
            "  {name:<42} {:>9.1} us  {:>6.2} GB/s, {:.2} of the bandwidth",
            time * 1e6,
            bytes / time / 1e9,
            bytes / time / speed
        );
    };
    line("computing them", times[0]);
    line("computing and selecting (encode)", times[1]);
    let (added, apart) = (times[1] - times[0], times[3] - times[2]);
    println!(
        "  selecting / computing: {:.3} by the difference of the two, {:.3} by rows of one weight \
         ({:.1} us) (goal below 0.10)",
        added / times[0],
        apart / times[0],
        apart * 1e6
    );
}

fn pursuits(timed: bool, speed: f64) {
    let (d, n, steps) = if timed {
        (2304, 16_384, 16)
    } else {
        (64, 600, 8)
    };
    let dictionary = matrix(n, d, true);
    let input = row(d);
    let rows = Rows::from_f32(&input, d).expect("a row");
    let kernels = Kernels::best();
    let mut sums = vec![0.0; n];
    type Plain = fn(&[Vec<f64>], &[f64], usize) -> Vec<f64>;
    let rules: [(&str, Pursuit, Plain); 4] = [
        (
            "matching pursuit",
            Pursuit::matching(steps, 0.0, false),
            |atoms, x, steps| plain::saelens(atoms, x, steps, 0.0, false),
        ),
        (
            "matching pursuit, signed",
            Pursuit::matching_signed(steps),
            plain::itda,
        ),
        (
            "gradient pursuit",
            Pursuit::gradient(steps, false),
            |atoms, x, steps| plain::gradient(atoms, x, steps, false),
        ),
        (
            "orthogonal matching pursuit",
            Pursuit::orthogonal(steps, false),
            |atoms, x, steps| plain::orthogonal(atoms, x, steps, false),
        ),
    ];
    // Every atom and every value of every pursuit, by the plain f64 code of the tests.
    let wide = |values: &[f32]| values.iter().map(|&v| v.into()).collect::<Vec<f64>>();
    let x = wide(&input);
    let atoms: Vec<Vec<f64>> = bytemuck::cast_slice::<u8, f32>(dictionary.bytes())
        .chunks_exact(d)
        .map(wide)
        .collect();
    let bound = plain::norm(&x) * 64.0 / f64::from(1 << 24);
    for (name, rule, plain) in &rules {
        let sae = model(&dictionary, Activation::Pursuit(rule.clone()));
        let (mut scratch, mut features) = (Scratch::new(&sae).expect("memory"), Features::new());
        sae.encode(rows, &mut scratch, &mut features)
            .expect("it encodes");
        let codes = plain(&atoms, &x, steps);
        let support: Vec<u32> = (0..n as u32)
            .filter(|&i| codes[i as usize] != 0.0)
            .collect();
        assert_eq!(features.indices(), support, "{name}");
        for (&i, &value) in support.iter().zip(features.values()) {
            let error = (f64::from(value) - codes[i as usize]).abs();
            assert!(error <= bound, "{name}, atom {i}: {error}");
        }
    }
    drop(atoms);
    if !timed {
        return;
    }
    println!("\na step of a pursuit, {d} x {n}, f32, {steps} steps, every atom and value checked");
    let dense = model(
        &dictionary,
        Activation::TopK {
            k: steps,
            rank: Rank::Value,
            relu: true,
        },
    );
    for (name, rule, _) in rules {
        let sae = model(&dictionary, Activation::Pursuit(rule));
        let (mut scratch, mut features) = (Scratch::new(&sae).expect("memory"), Features::new());
        let (mut other, mut found) = (Scratch::new(&dense).expect("memory"), Features::new());
        // With a screen, which must change no bit.
        let options = ScreenOptions::from(ScreenKind::Proven);
        let screened = sae.share().with_screen_options(options).prepare();
        let screened = screened.expect("memory");
        let mut third = Scratch::new(&screened).expect("memory");
        let mut same = Features::new();
        sae.encode(rows, &mut scratch, &mut features)
            .expect("it encodes");
        screened
            .encode(rows, &mut third, &mut same)
            .expect("it encodes");
        assert_eq!(features, same, "{name}, screened");
        let times = medians(
            15,
            &mut [
                &mut || products(kernels, &dictionary, black_box(&input), &mut sums),
                &mut || {
                    dense
                        .encode(black_box(rows), &mut other, &mut found)
                        .expect("it encodes")
                },
                &mut || {
                    sae.encode(black_box(rows), &mut scratch, &mut features)
                        .expect("it encodes")
                },
                &mut || {
                    screened
                        .encode(black_box(rows), &mut third, &mut same)
                        .expect("it encodes")
                },
            ],
        );
        let step = times[2] / steps as f64;
        let quick = times[3] / steps as f64;
        println!(
            "  {name:<28} {:>8.1} us: {:.3} of the products alone ({:.1} us), {:.3} of an encode by \
             top {steps} ({:.1} us); {:.2} of the bandwidth; prepared {:.1} us, {:.3} of that encode",
            step * 1e6,
            step / times[0],
            times[0] * 1e6,
            step / times[1],
            times[1] * 1e6,
            dictionary.size_bytes() as f64 / step / speed,
            quick * 1e6,
            quick / times[1]
        );
    }
}

fn prefixes(timed: bool, speed: f64) {
    let (d_in, d_sae) = if timed { (2304, 16_384) } else { (64, 1_200) };
    let whole = model(
        &matrix(d_sae, d_in, false),
        Activation::JumpRelu {
            threshold: Thresholds::Scalar(150.0),
            relu: true,
            inclusive: false,
        },
    );
    let half = whole.with_prefix(d_sae / 2).expect("a prefix");
    let input = row(d_in);
    let rows = Rows::from_f32(&input, d_in).expect("a row");
    let mut scratch = Scratch::new(&whole).expect("memory");
    let (mut all, mut first) = (Features::new(), Features::new());
    whole
        .encode(rows, &mut scratch, &mut all)
        .expect("it encodes");
    half.encode(rows, &mut scratch, &mut first)
        .expect("it encodes");
    let expected = all.row(0).expect("a row").within(0..d_sae / 2);
    assert_eq!(first.row(0), Some(expected));
    if !timed {
        return;
    }
    let mut other = Scratch::new(&whole).expect("memory");
    let times = medians(
        21,
        &mut [
            &mut || {
                whole
                    .encode(rows, &mut scratch, &mut all)
                    .expect("it encodes")
            },
            &mut || {
                half.encode(rows, &mut other, &mut first)
                    .expect("it encodes")
            },
        ],
    );
    let bytes = whole.parts().encoder.size_bytes() as f64;
    println!("\nprefix of half the features, {d_in} x {d_sae}, f32");
    println!(
        "  whole {:.1} us, half {:.1} us: {:.3} of it (goal 0.5); {:.2} of the bandwidth",
        times[0] * 1e6,
        times[1] * 1e6,
        times[1] / times[0],
        bytes / 2.0 / times[1] / speed
    );
}
