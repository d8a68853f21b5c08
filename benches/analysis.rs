//! What comparing models costs: all cosines with the two nearest of each, against the same products by
//! `matrixmultiply` in f32; one-to-one matchings, against the dense Kuhn-Munkres of `pathfinding`; a row
//! of a correlation over all pairs of features.
//!
//! Answers are checked first. What is compared is timed in turns, and medians are told.
//! `cargo bench --bench analysis --features analysis`; `-- --test` checks answers at small sizes and
//! times nothing; `-- 16384` times matchings of as many features once instead, and `-- 16384 2304` of
//! vectors of that width (768 else). The log of what was measured is in `benches/NOTES.md`.

#![allow(unsafe_code)] // one call of matrixmultiply

mod common;

use common::model::Random;
use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix as Table;
use sae::analysis::{Correlation, Cosines, Matching, Vectors, nearest, pw_mcc, sae_match_with};
use sae::bytes::Bytes;
use sae::model::{Activation, FeatureAxis, Matrix, Parts};
use sae::tensor::Tensor;
use sae::{Dtype, Features, RowStatus, Sae};
use std::hint::black_box;
use std::time::Instant;

/// Rows of random values, `[n, d]`.
fn values(seed: u64, n: usize, d: usize) -> Vec<f32> {
    let mut random = Random(seed);
    (0..n * d).map(|_| random.value()).collect()
}

/// Pairs of models as they are met: nothing alike; half of the features shared, up to noise, in another
/// order, with thresholds that stretch them; and a third of one side dead.
const KINDS: [&str; 3] = ["unrelated", "half shared", "a third dead"];

fn pair(kind: usize, n: usize, d: usize) -> [Sae<'static>; 2] {
    let mut random = Random(0x5851_f42d_4c95_7f2d ^ kind as u64);
    // Directions of different strength, as activations have.
    let strength = |j: usize| 1.0 / (1.0 + j as f32 / (d as f32 / 12.0));
    let mut rows = || -> Vec<f32> {
        (0..n * d)
            .map(|at| random.value() * strength(at % d))
            .collect()
    };
    let (mut first, mut second) = (rows(), rows());
    if kind == 1 {
        for i in 0..n / 2 {
            let j = (i * 7 + 3) % n;
            for at in 0..d {
                second[j * d + at] = first[i * d + at] + 0.5 * second[j * d + at];
            }
        }
    }
    if kind == 2 {
        first[..n / 3 * d].fill(0.0);
    }
    let mut thresholds = || -> Vec<f32> { (0..n).map(|_| random.value().abs() + 0.25).collect() };
    let (a, b) = (thresholds(), thresholds());
    [jump(&first, n, d, a), jump(&second, n, d, b)]
}

fn jump(rows: &[f32], n: usize, d: usize, thresholds: Vec<f32>) -> Sae<'static> {
    let mut parts = model(rows, n, d).parts().clone();
    let threshold = sae::model::Thresholds::PerFeature(thresholds);
    parts.activation = Activation::JumpRelu {
        threshold,
        relu: true,
        inclusive: false,
    };
    Sae::from_parts(parts).expect("a model")
}

/// The largest sum of a dense table by another library, in units of 2^-40 of `most`.
fn dense(n: usize, value: &dyn Fn(usize, usize) -> f64, most: f64) -> f64 {
    let unit = 2f64.powi(40) / most;
    let whole = (0..n * n).map(|at| (value(at / n, at % n) * unit).round() as i64);
    let table = Table::from_vec(n, n, whole.collect()).expect("a table");
    kuhn_munkres(&table).0 as f64 / unit
}

fn sum(of: &Matching) -> f64 {
    of.pairs.iter().map(|pair| pair.value).sum()
}

/// PW-MCC and SAE Match of `n` features: what they take, and that a dense assignment finds no more,
/// where one is affordable.
fn matchings(n: usize, d: usize, checked: bool, timed_too: bool) {
    let quiet = &mut |_: usize, _: usize| {};
    for (kind, name) in KINDS.into_iter().enumerate() {
        let [a, b] = pair(kind, n, d);
        let vectors = |of: &Sae<'_>| {
            let encoder = Vectors::unit_encoder(of).expect("vectors");
            (encoder, Vectors::unit_decoder(of).expect("vectors"))
        };
        let ((ea, da), (eb, db)) = (vectors(&a), vectors(&b));
        let mut cosines = None;
        let estimated = timed(|| cosines = Some(Cosines::new(&da, &db, quiet).expect("they fit")));
        let (decoders, encoders) = (
            cosines.expect("made"),
            Cosines::new(&ea, &eb, quiet).expect("they fit"),
        );
        let mut found = None;
        let mcc = timed(|| found = Some(decoders.pw_mcc(quiet).expect("they fit")));
        let mut folded = None;
        let matched = timed(|| {
            folded = Some(sae_match_with(&a, &b, &encoders, &decoders, quiet).expect("they fit"));
        });
        let (found, folded) = (found.expect("made"), folded.expect("made"));
        assert_eq!((found.pairs.len(), folded.pairs.len()), (n, n));
        let mut by_other = 0.0;
        if checked {
            let mut best = 0.0;
            by_other = timed(|| best = dense(n, &|i, j| da.dot(i, &db, j).abs(), 1.0));
            assert!((sum(&found) - best).abs() < 1e-9 * n as f64, "another sum");
            let of = |of: &Sae<'_>| {
                let encoder = Vectors::folded_encoder(of).expect("vectors");
                (encoder, Vectors::folded_decoder(of).expect("vectors"))
            };
            let ((ea, da), (eb, db)) = (of(&a), of(&b));
            let squares = |of: &Vectors| -> Vec<f64> { (0..n).map(|i| of.dot(i, of, i)).collect() };
            let all = [&ea, &eb, &da, &db].map(squares);
            let value = |i: usize, j: usize| {
                let one = |x: &Vectors, y: &Vectors, p: f64, q: f64| {
                    (p + q - 2.0 * x.dot(i, y, j)).max(0.0)
                };
                -one(&ea, &eb, all[0][i], all[1][j]) - one(&da, &db, all[2][i], all[3][j])
            };
            let most: f64 = all.iter().flatten().fold(0.0_f64, |m, &x| m.max(x)) * 8.0;
            let best = dense(n, &value, most);
            let bound = 1e-11 * most * n as f64;
            assert!((sum(&folded) + best).abs() < bound, "another distance");
        }
        if timed_too {
            let dense = match checked {
                true => format!("; dense Kuhn-Munkres for PW-MCC {by_other:.2} s"),
                false => String::new(),
            };
            println!(
                "{n} x {d}, {name}: estimates {estimated:.2} s, PW-MCC {mcc:.2} s, SAE Match \
                 {matched:.2} s{dense}"
            );
        }
    }
}

fn model(rows: &[f32], n: usize, d: usize) -> Sae<'static> {
    let matrix = |name: &str| {
        let bytes = Bytes::owned(bytemuck::cast_slice(rows).to_vec());
        let tensor = Tensor::new(name, Dtype::F32, &[n, d], bytes).expect("a tensor");
        Matrix::new(&tensor, FeatureAxis::First, n, d).expect("a matrix")
    };
    let parts = Parts::new(matrix("encoder"), Activation::Relu, matrix("decoder"));
    Sae::from_parts(parts).expect("a model")
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn main() {
    let only_checked = common::only_checked();
    let sizes: Vec<usize> = std::env::args()
        .filter_map(|text| text.parse().ok())
        .collect();
    if let Some(&n) = sizes.first() {
        let d = sizes.get(1).copied().unwrap_or(768);
        matchings(n, d, n <= 2048, true);
        return;
    }
    let (n, d, turns) = match only_checked {
        true => (130, 24, 0),
        false => (4096, 768, 7),
    };
    let (first, second) = (values(0x9e37_79b9, n, d), values(0x85eb_ca6b, n, d));
    let (a, b) = (model(&first, n, d), model(&second, n, d));
    let (va, vb) = (
        Vectors::unit_decoder(&a).expect("vectors"),
        Vectors::unit_decoder(&b).expect("vectors"),
    );
    let quiet = &mut |_: usize, _: usize| {};

    // All cosines, by another library.
    let units = |of: &Vectors| -> Vec<f32> { (0..n).flat_map(|i| of.row(i).to_vec()).collect() };
    let (ua, ub) = (units(&va), units(&vb));
    let mut products = vec![0.0_f32; n * n];
    let multiply = |out: &mut [f32]| {
        // SAFETY: the three matrices are as large as the sizes and strides say.
        unsafe {
            matrixmultiply::sgemm(
                n,
                d,
                n,
                1.0,
                ua.as_ptr(),
                d as isize,
                1,
                ub.as_ptr(),
                1,
                d as isize,
                0.0,
                out.as_mut_ptr(),
                n as isize,
                1,
            );
        }
    };
    multiply(&mut products);
    let lists = nearest(&va, &vb, 2, false, quiet).expect("they fit");
    for (list, row) in lists.iter().zip(products.chunks_exact(n)) {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let found = list[0].cosine;
        assert!((found - f64::from(most)).abs() < 1e-5, "another neighbour");
        let there = f64::from(row[list[0].feature as usize]);
        assert!((found - there).abs() < 1e-5, "another cosine");
    }

    // A model whose features are those of the first in another order.
    let matched = n.min(1024);
    let order: Vec<usize> = (0..matched).map(|i| (i * 7 + 3) % matched).collect();
    let part = |order: &dyn Fn(usize) -> usize| -> Vec<f32> {
        let row = |i: usize| first[order(i) * d..(order(i) + 1) * d].to_vec();
        (0..matched).flat_map(row).collect()
    };
    let (straight, turned) = (part(&|i| i), part(&|i| order[i]));
    let vectors = |rows: &[f32]| Vectors::unit_decoder(&model(rows, matched, d)).expect("vectors");
    let (straight, turned) = (vectors(&straight), vectors(&turned));
    let found = pw_mcc(&turned, &straight, quiet).expect("they fit");
    let partners = found.pairs.iter().map(|pair| pair.second as usize);
    assert!(partners.eq(order.iter().copied()), "another matching");

    // Rows with 64 active features on each side.
    let mut random = Random(0x1234_5678_9abc_def1);
    let features: Vec<u32> = (0..n as u32).collect();
    let mut rows = [Features::new(), Features::new()];
    for _ in 0..32 {
        for side in &mut rows {
            let mut active = random.distinct(64.min(n / 2), n);
            active.sort_unstable();
            for index in active {
                side.push(index, random.value().abs() + 0.5)
                    .expect("memory");
            }
            side.end_row(RowStatus::Ok).expect("memory");
        }
    }
    let mut correlation = Correlation::new(&features, &features).expect("memory");
    let feed = |correlation: &mut Correlation| {
        for (x, y) in rows[0].iter().zip(rows[1].iter()) {
            correlation.add(x, y);
        }
    };
    feed(&mut correlation);
    assert_eq!(correlation.rows(), (32, 0));
    let dense = |side: &Features, feature: u32| -> Vec<f64> {
        let value = |row: sae::FeaturesRow<'_>| {
            let at = row.indices.binary_search(&feature);
            at.map_or(0.0, |at| f64::from(row.values[at]))
        };
        side.iter().map(value).collect()
    };
    for best in correlation.best().iter().take(20) {
        let (x, y) = (dense(&rows[0], best.feature), dense(&rows[1], best.partner));
        let expected = sae::analysis::pearson(&x, &y).expect("as many");
        assert!(
            (best.correlation - expected).abs() < 1e-9,
            "another correlation"
        );
    }
    matchings(if only_checked { 96 } else { 512 }, d, true, false);
    println!("answers are right");
    if only_checked {
        return;
    }

    let mut times = [const { Vec::<f64>::new() }; 4];
    for _ in 0..turns {
        times[0].push(timed(|| multiply(black_box(&mut products))));
        times[1].push(timed(|| {
            black_box(nearest(&va, &vb, 2, false, quiet).expect("they fit"));
        }));
        times[2].push(timed(|| {
            black_box(pw_mcc(&straight, &turned, quiet).expect("they fit"));
        }));
        times[3].push(timed(|| feed(black_box(&mut correlation))));
    }
    let [product, near, matching, correlated] = times.map(median);
    println!("medians of {turns} turns, one thread, {n} x {d} against {n} x {d}:");
    let products = 2.0 * (n * n * d) as f64;
    println!(
        "two nearest of each, exact: {:.0} ms, {:.1} GFLOP/s, {:.2} times matrixmultiply's product alone in f32 \
         ({:.0} ms, {:.1} GFLOP/s)",
        near * 1e3,
        products / near * 1e-9,
        near / product,
        product * 1e3,
        products / product * 1e-9
    );
    println!(
        "PW-MCC of {matched} features, permuted: {:.0} ms",
        matching * 1e3
    );
    println!(
        "a row of a correlation, 64 active features on each side: {:.1} us",
        correlated * 1e6 / 32.0
    );
    for n in [1024, 4096] {
        matchings(n, 768, n <= 1024, true);
    }
}
