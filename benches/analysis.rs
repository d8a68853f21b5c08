//! What comparing models costs: all cosines with the two nearest of each, against the same products by
//! `matrixmultiply` in f32; a one-to-one matching; a row of a correlation over all pairs of features.
//!
//! Answers are checked first. What is compared is timed in turns, and medians are told.
//! `cargo bench --bench analysis --features analysis`; `-- --test` checks answers at small sizes and
//! times nothing.

#![allow(unsafe_code)] // one call of matrixmultiply

mod common;

use common::model::Random;
use sae::analysis::{Correlation, Vectors, nearest, pw_mcc};
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
    println!(
        "two nearest of each, exact: {:.0} ms, {:.1} times matrixmultiply's product alone in f32 ({:.0} ms)",
        near * 1e3,
        near / product,
        product * 1e3
    );
    println!("PW-MCC of {matched} features: {:.0} ms", matching * 1e3);
    println!(
        "a row of a correlation, 64 active features on each side: {:.1} us",
        correlated * 1e6 / 32.0
    );
}
