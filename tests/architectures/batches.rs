//! Selection over whole batches.

use super::*;
use sae::{BatchRule, BatchSpace, RowStatus};

fn select(sae: &Sae<'_>, inputs: &[f32], rule: BatchRule) -> Features {
    let rows = rows(inputs, sae.d_in());
    let mut space = BatchSpace::new(sae, rule, rows.rows()).unwrap();
    let mut scratch = Scratch::new(sae).unwrap();
    let mut features = Features::new();
    for _ in 0..2 {
        // Twice: the space keeps nothing from one batch to the next.
        sae.encode_batch(rows, &mut space, &mut scratch, &mut features)
            .unwrap();
    }
    features
}

/// All pre-activations of a batch, row by row.
fn all_pre(model: &Affine, inputs: &[f64], d_in: usize) -> Vec<Vec<f64>> {
    inputs.chunks_exact(d_in).map(|x| model.pre(x)).collect()
}

#[test]
fn a_batch_keeps_its_largest_features() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let (d_in, d_sae, n) = (
            random.below(20) + 1,
            random.below(400) + 1,
            random.below(9) + 1,
        );
        let model = affine(&mut random, whole, d_in, d_sae, d_in);
        let inputs = whole(&mut random, n * d_in);
        let narrow: Vec<f32> = inputs.iter().map(|&x| x as f32).collect();
        let stored = [Stored::Rows, Stored::Columns][random.below(2)];
        let sae = Sae::from_parts(model.parts(Activation::Relu, stored)).unwrap();
        let pre = all_pre(&model, &inputs, d_in);
        let k = random.below(d_sae) + 1;
        let found = dense(&select(&sae, &narrow, BatchRule::Together { k }), d_sae);
        let flat = pre.concat();
        let order = formulas::descending(&flat).into_iter().take(k * n);
        let expected = formulas::relu(&formulas::keep(&flat, order));
        let found: Vec<f64> = found.concat().iter().map(|&value| value.into()).collect();
        assert_eq!(found, expected, "seed {seed}");

        let m = random.below(n) + 1;
        let found = dense(&select(&sae, &narrow, BatchRule::PerFeature { m }), d_sae);
        for feature in 0..d_sae {
            let column: Vec<f64> = pre.iter().map(|row| row[feature]).collect();
            let order = formulas::descending(&column).into_iter().take(m);
            let expected = formulas::relu(&formulas::keep(&column, order));
            let found: Vec<f64> = found.iter().map(|row| row[feature].into()).collect();
            assert_eq!(found, expected, "seed {seed}, feature {feature}");
        }
    }
}

#[test]
fn a_batch_of_one_is_top_k() {
    let mut random = Random(1);
    let model = affine(&mut random, spread, 16, 500, 16);
    let inputs: Vec<f32> = (0..16).map(|_| random.number()).collect();
    for k in [1, 20, 500] {
        let sae = Sae::from_parts(model.parts(top_k(k), Stored::Columns)).unwrap();
        let expected = encode_decode(&sae, rows(&inputs, 16)).0;
        assert_eq!(select(&sae, &inputs, BatchRule::Together { k }), expected);
    }
}

#[test]
fn the_order_of_the_rows_does_not_matter() {
    let mut random = Random(2);
    let model = affine(&mut random, spread, 16, 300, 16);
    let inputs: Vec<f32> = (0..16 * 7).map(|_| random.number()).collect();
    let backwards: Vec<f32> = inputs.chunks(16).rev().flatten().copied().collect();
    let sae = Sae::from_parts(model.parts(Activation::Relu, Stored::Rows)).unwrap();
    for rule in [
        BatchRule::Together { k: 11 },
        BatchRule::PerFeature { m: 2 },
    ] {
        let mut found = dense(&select(&sae, &backwards, rule), 300);
        found.reverse();
        assert_eq!(found, dense(&select(&sae, &inputs, rule), 300));
    }
}

#[test]
fn rows_that_are_not_finite_take_no_part() {
    let mut random = Random(3);
    let model = affine(&mut random, spread, 8, 60, 8);
    let mut inputs: Vec<f32> = (0..40).map(|_| random.number()).collect();
    let sae = Sae::from_parts(model.parts(Activation::Relu, Stored::Rows)).unwrap();
    let rule = BatchRule::Together { k: 5 };
    let four = [&inputs[..16], &inputs[24..]].concat();
    let expected = select(&sae, &four, rule);
    inputs[17] = f32::NAN;
    let found = select(&sae, &inputs, rule);
    assert_eq!(found.row(2).unwrap().status, RowStatus::NonFinite);
    for (row, other) in [(0, 0), (1, 1), (3, 2), (4, 3)] {
        assert_eq!(found.row(row), expected.row(other));
    }
}

#[test]
fn spaces_are_checked() {
    let mut random = Random(4);
    let model = affine(&mut random, spread, 8, 60, 8);
    let sae = Sae::from_parts(model.parts(Activation::Relu, Stored::Rows)).unwrap();
    for (rule, n) in [
        (BatchRule::Together { k: 0 }, 4),
        (BatchRule::Together { k: 61 }, 4),
        (BatchRule::PerFeature { m: 0 }, 4),
        (BatchRule::PerFeature { m: 5 }, 4),
        (BatchRule::Together { k: 1 }, 0),
    ] {
        assert!(BatchSpace::new(&sae, rule, n).is_err(), "{rule:?}");
    }
    let pursuit = sae.with_pursuit(Pursuit::matching_any(2)).unwrap();
    assert!(BatchSpace::new(&pursuit, BatchRule::Together { k: 1 }, 4).is_err());
    let mut space = BatchSpace::new(&sae, BatchRule::Together { k: 3 }, 2).unwrap();
    let mut scratch = Scratch::new(&sae).unwrap();
    let inputs = [0.5; 24];
    let mut run = |sae: &Sae<'_>, inputs: &[f32]| {
        sae.encode_batch(
            rows(inputs, 8),
            &mut space,
            &mut scratch,
            &mut Features::new(),
        )
    };
    assert!(run(&sae, &inputs[..16]).is_ok());
    assert!(matches!(run(&sae, &inputs), Err(Error::Length { .. })));
    let smaller = sae.with_prefix(30).unwrap();
    assert!(matches!(
        run(&smaller, &inputs[..16]),
        Err(Error::Length { .. })
    ));
}
