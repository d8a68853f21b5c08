//! Bags and chains of models, against hosts that run the members themselves.

use super::*;
use sae::model::{Ensemble, InputNorm, Router};
use sae::{Level, RowStatus};
use std::iter::zip;

const D: usize = 18;

/// Members of different rules, sizes and centres.
fn members(seed: u64, stored: Stored, norm: InputNorm) -> Vec<Sae<'static>> {
    let mut random = Random(seed);
    let rules = [
        Activation::Relu,
        top_k(7),
        jump(Thresholds::Scalar(0.5)),
        Activation::group_max(4),
    ];
    let member = |(i, rule): (usize, &Activation)| {
        let model = affine(&mut random, spread, D, 40 + 20 * i, D);
        let parts = Parts {
            input_norm: norm,
            // Small reconstructions, so that chains do not run away.
            decoder_scale: Some(vec![0.05; 40 + 20 * i]),
            ..model.parts(rule.clone(), stored)
        };
        Sae::from_parts(parts).unwrap()
    };
    let mut members: Vec<Sae<'static>> = rules.iter().enumerate().map(member).collect();
    if norm == InputNorm::None {
        members.push(
            members[0]
                .with_pursuit(Pursuit::matching_signed(5))
                .unwrap(),
        );
    }
    members
}

fn inputs(seed: u64, rows: usize) -> Vec<f32> {
    let mut random = Random(seed + 1000);
    (0..rows * D).map(|_| random.number()).collect()
}

/// An ensemble on every level and layout, row by row, read out: the same bits.
fn run(make: impl Fn(Stored) -> Sae<'static>, inputs: &[f32]) -> (Features, Vec<f32>) {
    let mut first: Option<(Features, Vec<f32>)> = None;
    for level in Level::available() {
        for stored in [Stored::Rows, Stored::Columns] {
            for prepare in [false, true] {
                let mut sae = make(stored).with_level(level).unwrap();
                if prepare {
                    sae = sae.prepare().unwrap();
                    assert!(!sae.prepare_cost().needed);
                }
                let found = encode_decode(&sae, rows(inputs, D));
                parts::assert_readouts(&sae, inputs, D, &found.0);
                for (row, input) in inputs.chunks_exact(D).enumerate() {
                    let mut memory = vec![0; Scratch::bytes_required(&sae) + 3];
                    let mut scratch = Scratch::from_memory(&sae, &mut memory[3..]).unwrap();
                    let mut one = Features::new();
                    sae.encode(rows(input, D), &mut scratch, &mut one).unwrap();
                    assert_eq!(one.row(0), found.0.row(row));
                }
                match &first {
                    None => first = Some(found),
                    Some(first) => {
                        assert_eq!(found.0, first.0);
                        assert_eq!(bits(&found.1), bits(&first.1));
                    }
                }
            }
        }
    }
    first.unwrap()
}

/// The features of row `row` of several models, side by side.
fn joined(members: &[Sae<'_>], found: &[Features], row: usize) -> (Vec<u32>, Vec<f32>) {
    let (mut indices, mut values, mut offset) = (vec![], vec![], 0);
    for (member, found) in zip(members, found) {
        let found = found.row(row).unwrap();
        indices.extend(found.indices.iter().map(|index| index + offset));
        values.extend(found.values);
        offset += member.d_sae() as u32;
    }
    (indices, values)
}

#[test]
fn a_bag_joins_features_and_averages_reconstructions() {
    for norm in [
        InputNorm::None,
        InputNorm::LayerNorm,
        InputNorm::ConstantNorm,
    ] {
        for seed in 0..4 {
            let inputs = inputs(seed, 4);
            let make = |stored| Sae::ensemble(members(seed, stored, norm), Ensemble::Bag).unwrap();
            let (features, y) = run(make, &inputs);
            let members = members(seed, Stored::Rows, norm);
            let apart: Vec<_> = members
                .iter()
                .map(|member| encode_decode(member, rows(&inputs, D)))
                .collect();
            let found: Vec<Features> = apart.iter().map(|(features, _)| features.clone()).collect();
            for row in 0..4 {
                let (indices, values) = joined(&members, &found, row);
                let bag = features.row(row).unwrap();
                assert_eq!(bag.indices, indices);
                assert_eq!(bits(bag.values), bits(&values));
                for c in 0..D {
                    let sum: f64 = apart.iter().map(|(_, y)| f64::from(y[row * D + c])).sum();
                    let expected = sum / members.len() as f64;
                    let error = (f64::from(y[row * D + c]) - expected).abs();
                    assert!(error <= 2e-6 * (1.0 + expected.abs()), "{error}");
                }
            }
        }
    }
}

#[test]
fn a_chain_is_a_host_that_runs_the_members_in_turn() {
    for seed in 0..8 {
        let inputs = inputs(seed, 4);
        let of = |stored| members(seed, stored, InputNorm::None);
        let make = |stored| Sae::ensemble(of(stored), Ensemble::Chain).unwrap();
        let (features, y) = run(make, &inputs);
        let members = of(Stored::Columns);
        let mut left = inputs.clone();
        let mut sum = vec![0.0; left.len()];
        let mut found = vec![];
        for member in &members {
            let (features, y) = encode_decode(member, rows(&left, D));
            found.push(features);
            for ((left, sum), y) in zip(zip(&mut left, &mut sum), &y) {
                *left -= y;
                *sum += f64::from(*y);
            }
        }
        for row in 0..4 {
            let (indices, values) = joined(&members, &found, row);
            let chain = features.row(row).unwrap();
            assert_eq!(chain.indices, indices);
            assert_eq!(bits(chain.values), bits(&values));
        }
        for (y, sum) in zip(&y, &sum) {
            assert!((f64::from(*y) - sum).abs() <= 1e-5 * (1.0 + sum.abs()));
        }
    }
}

#[test]
fn rows_that_are_not_finite_stand_alone() {
    for kind in [Ensemble::Bag, Ensemble::Chain] {
        let sae = Sae::ensemble(members(1, Stored::Rows, InputNorm::None), kind).unwrap();
        let mut inputs = inputs(1, 3);
        let expected = encode_decode(&sae, rows(&inputs, D));
        inputs[D + 2] = f32::NAN;
        let (found, y) = encode_decode(&sae, rows(&inputs, D));
        let bad = found.row(1).unwrap();
        assert_eq!((bad.status, bad.indices.len()), (RowStatus::NonFinite, 0));
        assert!(y[D..2 * D].iter().all(|y| y.is_nan()));
        for row in [0, 2] {
            assert_eq!(found.row(row), expected.0.row(row));
        }
    }
}

#[test]
fn an_ensemble_of_one_is_its_member() {
    let member = || members(2, Stored::Columns, InputNorm::None).remove(1);
    let inputs = inputs(2, 3);
    let alone = encode_decode(&member(), rows(&inputs, D));
    for kind in [Ensemble::Bag, Ensemble::Chain] {
        let sae = Sae::ensemble(vec![member()], kind).unwrap();
        let found = encode_decode(&sae, rows(&inputs, D));
        assert_eq!(found.0, alone.0);
        assert_eq!(bits(&found.1), bits(&alone.1));
        assert_eq!(sae.members().len(), 1);
    }
}

#[test]
fn members_that_cannot_be_joined_are_refused() {
    let plain = || members(3, Stored::Rows, InputNorm::None);
    let refused = |members: Vec<Sae<'static>>, kind| {
        let error = Sae::ensemble(members, kind).expect_err("this is refused");
        assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    };
    refused(vec![], Ensemble::Bag);
    refused(
        members(3, Stored::Rows, InputNorm::LayerNorm),
        Ensemble::Chain,
    );
    let mut mixed = plain();
    mixed.extend(members(3, Stored::Rows, InputNorm::LayerNorm));
    refused(mixed, Ensemble::Bag);
    let mut random = Random(5);
    let wide = affine(&mut random, spread, D + 1, 9, D + 1);
    let mut mixed = plain();
    mixed.push(Sae::from_parts(wide.parts(Activation::Relu, Stored::Rows)).unwrap());
    refused(mixed, Ensemble::Chain);
    let transcoder = affine(&mut random, spread, D, 9, 4);
    let transcoder = || Sae::from_parts(transcoder.parts(Activation::Relu, Stored::Rows)).unwrap();
    refused(vec![transcoder(), transcoder()], Ensemble::Chain);
    assert!(Sae::ensemble(vec![transcoder(), transcoder()], Ensemble::Bag).is_ok());
    let nested = Sae::ensemble(plain(), Ensemble::Bag).unwrap();
    assert!(nested.with_prefix(3).is_err() && nested.with_features(&[0]).is_err());
    assert!(nested.with_activation(Activation::Relu).is_err());
    assert!(nested.with_k(3).is_err() && nested.with_rank_weights(None).is_err());
    // Its decoder is as good a dictionary as any.
    assert!(nested.with_pursuit(Pursuit::gradient(3, false)).is_ok());
    refused(vec![nested], Ensemble::Bag);
}

/// Switch SAEs: experts one after the other in one file, a router with a centre of its own.
#[test]
fn a_router_picks_one_expert() {
    let (experts, each, k) = (5, 12, 4);
    for (seed, weighs) in [(1, true), (2, false), (3, true)] {
        let mut random = Random(seed);
        let n = experts * each;
        let model = Affine {
            bias: vec![0.0; n],
            ..affine(&mut random, spread, D, n, D)
        };
        let vectors: Vec<Vec<f64>> = (0..experts).map(|_| spread(&mut random, D)).collect();
        let center = spread(&mut random, D);
        let inputs = inputs(seed, 6);
        let make = |stored| {
            let wide = Sae::from_parts(model.parts(top_k(k), stored)).unwrap();
            let expert = |e: usize| wide.with_range(e * each..(e + 1) * each).unwrap();
            let router = Router {
                matrix: matrix("router", &vectors, stored),
                center: Some(center.clone()),
                weighs,
            };
            Sae::routed((0..experts).map(expert).collect(), router).unwrap()
        };
        let (features, y) = run(make, &inputs);
        let mut used = std::collections::BTreeSet::new();
        for (row, found) in dense(&features, n).iter().enumerate() {
            let x: Vec<f64> = inputs[row * D..][..D].iter().map(|&x| x.into()).collect();
            let centred: Vec<f64> = zip(&x, &center).map(|(x, c)| x - c).collect();
            let scores: Vec<f64> = vectors.iter().map(|v| dot(v, &centred)).collect();
            let best = (0..experts)
                .reduce(|a, b| if scores[b] > scores[a] { b } else { a })
                .unwrap();
            used.insert(best);
            let total: f64 = scores.iter().map(|s| s.exp()).sum();
            let weight = if weighs {
                scores[best].exp() / total
            } else {
                1.0
            };
            // relu(pre) p of the expert, the k largest.
            let pre = model.pre(&x);
            let of_expert = |i: usize| {
                if i / each == best {
                    pre[i].max(0.0) * weight
                } else {
                    0.0
                }
            };
            let all: Vec<f64> = (0..n).map(of_expert).collect();
            let expected = formulas::keep(&all, formulas::descending(&all).into_iter().take(k));
            for (found, expected) in zip(found, &expected) {
                let error = (f64::from(*found) - expected).abs();
                assert!(
                    error <= 2e-6 * (1.0 + expected.abs()),
                    "{found}, not {expected}"
                );
            }
            for c in 0..D {
                let sum: f64 = (0..n)
                    .map(|i| f64::from(found[i]) * model.decoder[i][c])
                    .sum();
                let error = f64::from(y[row * D + c]) - sum - model.decoder_bias[c];
                assert!(error.abs() <= 1e-4);
            }
        }
        assert!(used.len() > 1, "one expert for all rows");
    }
}

#[test]
fn routers_that_do_not_fit_are_refused() {
    let mut random = Random(9);
    let model = affine(&mut random, spread, D, 20, D);
    let plain = |stored| Sae::from_parts(model.parts(top_k(3), stored)).unwrap();
    let halves = || {
        let wide = plain(Stored::Columns);
        vec![
            wide.with_range(0..10).unwrap(),
            wide.with_range(10..20).unwrap(),
        ]
    };
    let router = |count: usize, width: usize| Router {
        matrix: matrix("router", &vec![vec![1.0; width]; count], Stored::Rows),
        center: None,
        weighs: true,
    };
    assert!(Sae::routed(halves(), router(2, D)).is_ok());
    for wrong in [router(3, D), router(2, D + 1)] {
        let error = Sae::routed(halves(), wrong).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
    }
    let mut nan = router(2, D);
    nan.center = Some(vec![f64::NAN; D]);
    let error = Sae::routed(halves(), nan).unwrap_err();
    assert!(matches!(error, Error::BadValue { .. }), "{error}");
    let mut other = halves();
    other.push({
        let parts = Parts {
            decoder_bias: None,
            ..model.parts(top_k(3), Stored::Rows)
        };
        Sae::from_parts(parts).unwrap()
    });
    let error = Sae::routed(other, router(3, D)).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    let error = Sae::ensemble(halves(), Ensemble::Route).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    // Ranges.
    let wide = plain(Stored::Rows);
    assert!(wide.with_range(5..5).is_err() && wide.with_range(15..21).is_err());
    let groups = wide.with_activation(Activation::group_max(2)).unwrap();
    assert!(groups.with_range(0..10).is_err());
    for stored in [Stored::Rows, Stored::Columns] {
        let relu = plain(stored).with_activation(Activation::Relu).unwrap();
        let some = relu.with_range(4..17).unwrap();
        let inputs = inputs(9, 3);
        let all = encode_decode(&relu, rows(&inputs, D)).0;
        let found = encode_decode(&some, rows(&inputs, D)).0;
        for (all, found) in zip(dense(&all, 20), dense(&found, 13)) {
            assert_eq!(bits(&all[4..17]), bits(&found));
        }
    }
}
