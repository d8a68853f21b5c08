//! Low-rank sparse attention: against the f64 reference, and its properties.

use super::*;
use reference::lorsa::Lorsa as Reference;
use sae::model::{Attention, ByParts, HeadNorm, InputNorm, Pairs, Rotary};
use sae::{Level, Lorsa, LorsaCache, RowStatus};
use std::iter::zip;

const D_IN: usize = 20;
const D_OUT: usize = 11;
const D_HEAD: usize = 6;

/// Sizes and kinds from a seed; weights that f32 holds.
pub(super) fn reference(seed: u64) -> Reference {
    let mut random = Random(seed);
    let heads = [1, 2, 5][random.below(3)];
    // Groups below and above the block that pre-activations are formed in.
    let features = heads * [1, 7, 60, 300][random.below(4)];
    let mut vectors =
        |count: usize| -> Vec<Vec<f64>> { (0..count).map(|_| spread(&mut random, D_IN)).collect() };
    let (query, key, value) = (
        vectors(heads * D_HEAD),
        vectors(heads * D_HEAD),
        vectors(features),
    );
    let width = heads * D_HEAD;
    Reference {
        heads,
        query,
        query_bias: spread(&mut random, width),
        key,
        key_bias: spread(&mut random, width),
        value,
        value_bias: spread(&mut random, features),
        scale: 6.0 + f64::from(random.number().abs()),
        norm: seed.is_multiple_of(3).then(|| {
            let weights = (spread(&mut random, width), spread(&mut random, width));
            (weights.0, weights.1, 1e-6)
        }),
        rotary: [
            None,
            Some((10_000.0, 6, true)),
            Some((500.0, 4, false)),
            Some((10_000.0, 4, true)),
        ][random.below(4)],
    }
}

pub(super) fn parts(of: &Reference, rule: Activation, stored: Stored) -> Parts<'static> {
    let mut random = Random(77);
    let outputs: Vec<Vec<f64>> = of
        .value
        .iter()
        .map(|_| spread(&mut random, D_OUT))
        .collect();
    // As the file has them: one matrix for each head.
    let stacked = |name: &str, vectors: &[Vec<f64>]| {
        let blocks = vectors.chunks_exact(D_HEAD).enumerate();
        let blocks = blocks.map(|(head, vectors)| Block {
            first_feature: head * D_HEAD,
            first_column: 0,
            matrix: matrix(name, vectors, stored),
        });
        Matrix::from_blocks(name, vectors.len(), D_IN, blocks.collect()).unwrap()
    };
    let attention = Attention {
        heads: of.heads,
        query: stacked("W_Q", &of.query),
        query_bias: Some(of.query_bias.clone()),
        key: stacked("W_K", &of.key),
        key_bias: Some(of.key_bias.clone()),
        input_scale: 1.0,
        score_scale: of.scale,
        norm: of
            .norm
            .clone()
            .map(|(query, key, eps)| HeadNorm { query, key, eps }),
        rotary: of.rotary.map(|(base, dims, adjacent)| {
            let pairs = [Pairs::Halves, Pairs::Adjacent][usize::from(adjacent)];
            Rotary::new(dims, base, pairs)
        }),
    };
    Parts {
        bias: Some(of.value_bias.clone()),
        decoder_bias: Some(spread(&mut random, D_OUT)),
        attention: Some(attention),
        ..Parts::new(
            matrix("W_V", &of.value, stored),
            rule,
            matrix("W_O", &outputs, stored),
        )
    }
}

fn rules(seed: u64, features: usize) -> Activation {
    match seed % 4 {
        0 => Activation::Relu,
        1 => top_k(features.div_ceil(3)),
        2 => jump(Thresholds::Scalar(0.75)),
        _ => Activation::TopK {
            k: features.div_ceil(5),
            rank: Rank::Magnitude,
            relu: false,
        },
    }
}

/// What the rule makes of pre-activations.
fn selected(pre: &[f64], rule: &Activation) -> Vec<f64> {
    match rule {
        Activation::Relu => formulas::relu(pre),
        Activation::TopK { k, relu: true, .. } => formulas::group_top_k(pre, 1, *k),
        Activation::TopK { k, .. } => {
            let sizes: Vec<f64> = pre.iter().map(|pre| pre.abs()).collect();
            formulas::keep(pre, formulas::descending(&sizes).into_iter().take(*k))
        }
        _ => formulas::jump_weighted(pre, &vec![1.0; pre.len()], &vec![0.75; pre.len()]),
    }
}

fn inputs(seed: u64, rows: usize) -> Vec<f32> {
    let mut random = Random(seed + 500);
    (0..rows * D_IN).map(|_| random.number()).collect()
}

/// A sequence in pieces of so many rows.
fn run(lorsa: &Lorsa<'_>, inputs: &[f32], pieces: &[usize]) -> Vec<Vec<f32>> {
    let mut cache = LorsaCache::new(lorsa, inputs.len() / D_IN).unwrap();
    let (mut all, mut start) = (vec![], 0);
    let mut scratch = lorsa.scratch().unwrap();
    let mut features = Features::new();
    for &piece in pieces {
        let part = &inputs[start * D_IN..(start + piece) * D_IN];
        let rows = rows(part, D_IN);
        lorsa
            .encode(rows, &mut cache, &mut scratch, &mut features)
            .unwrap();
        assert_eq!(features.rows(), piece);
        all.extend(dense(&features, lorsa.d_sae()));
        start += piece;
        assert_eq!(cache.len(), start);
    }
    all
}

fn all_bits(rows: &[Vec<f32>]) -> Vec<Vec<u32>> {
    rows.iter().map(|row| bits(row)).collect()
}

#[test]
fn pre_activations_are_the_formula_s() {
    for seed in 0..24 {
        let of = reference(seed);
        let rule = rules(seed, of.value.len());
        let inputs = inputs(seed, 9);
        let lorsa = Lorsa::from_parts(parts(&of, rule.clone(), Stored::Columns)).unwrap();
        let found = run(&lorsa, &inputs, &[9]);
        let x: Vec<Vec<f64>> = inputs
            .chunks_exact(D_IN)
            .map(|row| row.iter().map(|&x| x.into()).collect())
            .collect();
        for (row, (found, pre)) in zip(&found, of.pre(&x)).enumerate() {
            let expected = selected(&pre, &rule);
            for (i, (&found, &expected)) in zip(found, &expected).enumerate() {
                // Queries, keys and values are rounded to f32 once each.
                let error = (f64::from(found) - expected).abs();
                let near = expected.abs() < 1e-4
                    || (pre[i] - 0.75).abs() < 1e-4
                    || matches!(rule, Activation::TopK { .. }) && rank_is_close(&pre, i);
                assert!(
                    error <= 2e-5 || near,
                    "seed {seed}, row {row}, feature {i}: {found}, not {expected}"
                );
            }
        }
    }
}

/// Whether another pre-activation is so close that rounding may swap the two.
fn rank_is_close(pre: &[f64], i: usize) -> bool {
    let close = |(j, other): (usize, &f64)| j != i && (other.abs() - pre[i].abs()).abs() < 1e-4;
    pre.iter().enumerate().any(close)
}

#[test]
fn token_by_token_is_the_whole_prompt_bit_for_bit() {
    for seed in 0..12 {
        let of = reference(seed);
        let rule = rules(seed, of.value.len());
        let inputs = inputs(seed, 8);
        let mut first: Option<Vec<Vec<u32>>> = None;
        for level in Level::available() {
            for stored in [Stored::Rows, Stored::Columns] {
                let lorsa = Lorsa::from_parts(parts(&of, rule.clone(), stored)).unwrap();
                let lorsa = lorsa.with_level(level).unwrap();
                for pieces in [&[8][..], &[1; 8], &[3, 1, 4], &[7, 0, 1]] {
                    let found = all_bits(&run(&lorsa, &inputs, pieces));
                    let expected = first.get_or_insert_with(|| found.clone());
                    assert_eq!(
                        &found, expected,
                        "seed {seed}, {level}, {stored:?}, {pieces:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn it_is_causal_and_takes_rows_back() {
    let of = reference(4);
    let lorsa = Lorsa::from_parts(parts(&of, rules(0, 1), Stored::Rows)).unwrap();
    let inputs = inputs(4, 8);
    let whole = run(&lorsa, &inputs, &[8]);
    // Other rows behind do not change those before.
    let mut changed = inputs.clone();
    changed[5 * D_IN..].iter_mut().for_each(|x| *x = -*x);
    let other = run(&lorsa, &changed, &[8]);
    assert_eq!(all_bits(&whole[..5]), all_bits(&other[..5]));
    assert_ne!(all_bits(&whole[5..]), all_bits(&other[5..]));
    // Rejected rows leave nothing behind, and a cache begins anew.
    let mut memory = vec![0xa5; LorsaCache::bytes_required(&lorsa, 8) + 3];
    let mut cache = LorsaCache::from_memory(&lorsa, 8, &mut memory[3..]).unwrap();
    let (mut scratch, mut features) = (lorsa.scratch().unwrap(), Features::new());
    let mut encode = |cache: &mut LorsaCache<'_>, part: &[f32]| {
        let rows = rows(part, D_IN);
        lorsa
            .encode(rows, cache, &mut scratch, &mut features)
            .unwrap();
        all_bits(&dense(&features, lorsa.d_sae()))
    };
    for _ in 0..2 {
        assert!(cache.is_empty() && cache.capacity() == 8);
        encode(&mut cache, &changed);
        cache.truncate(5);
        cache.truncate(7);
        assert_eq!(cache.len(), 5);
        let found = encode(&mut cache, &inputs[5 * D_IN..]);
        assert_eq!(found, all_bits(&whole[5..]));
        cache.truncate(0);
    }
}

#[test]
fn a_sequence_of_one_row_is_a_plain_model() {
    for seed in 0..12 {
        let of = reference(seed);
        let rule = rules(seed, of.value.len());
        let inputs = inputs(seed, 1);
        let mut plain = parts(&of, rule.clone(), Stored::Rows);
        plain.attention = None;
        let sae = Sae::from_parts(plain).unwrap();
        let (expected, y) = encode_decode(&sae, rows(&inputs, D_IN));
        let lorsa = Lorsa::from_parts(parts(&of, rule, Stored::Rows)).unwrap();
        let mut cache = LorsaCache::new(&lorsa, 1).unwrap();
        let (mut scratch, mut features) = (lorsa.scratch().unwrap(), Features::new());
        lorsa
            .encode(rows(&inputs, D_IN), &mut cache, &mut scratch, &mut features)
            .unwrap();
        assert_eq!(features, expected, "seed {seed}");
        let mut out = vec![0.0; D_OUT];
        lorsa.decode(&features, &mut scratch, &mut out).unwrap();
        assert_eq!(bits(&out), bits(&y));
    }
}

#[test]
fn readouts_have_the_bits_of_encode() {
    for seed in 0..12 {
        let of = reference(seed);
        let n = of.value.len();
        let lorsa = Lorsa::from_parts(parts(&of, rules(seed, n), Stored::Rows)).unwrap();
        let inputs = inputs(seed, 6);
        let expected = run(&lorsa, &inputs, &[6]);
        let wanted: Vec<u32> = [n - 1, 0, n / 2, 0].map(|i| i as u32).to_vec();
        let mut cache = LorsaCache::new(&lorsa, 6).unwrap();
        let mut scratch = lorsa.scratch().unwrap();
        let (mut values, mut status) = (vec![f32::NAN; 24], vec![RowStatus::NonFinite; 6]);
        let rows = rows(&inputs, D_IN);
        lorsa
            .readout(
                &wanted,
                rows,
                &mut cache,
                &mut scratch,
                &mut values,
                &mut status,
            )
            .unwrap();
        for (row, values) in values.chunks_exact(4).enumerate() {
            let of_row = |&i: &u32| expected[row][i as usize];
            let of_row: Vec<f32> = wanted.iter().map(of_row).collect();
            assert_eq!(bits(values), bits(&of_row), "seed {seed}, row {row}");
            assert_eq!(status[row], RowStatus::Ok);
        }
        assert_eq!(cache.len(), 6);
    }
}

#[test]
fn rows_that_are_not_finite_keep_their_place_and_are_not_attended_to() {
    let mut of = reference(1);
    of.rotary = None;
    let lorsa = Lorsa::from_parts(parts(&of, Activation::Relu, Stored::Rows)).unwrap();
    let inputs = inputs(1, 5);
    let mut bad = inputs.clone();
    bad[2 * D_IN + 3] = f32::NAN;
    let mut cache = LorsaCache::new(&lorsa, 5).unwrap();
    let (mut scratch, mut features) = (lorsa.scratch().unwrap(), Features::new());
    lorsa
        .encode(rows(&bad, D_IN), &mut cache, &mut scratch, &mut features)
        .unwrap();
    assert_eq!(features.row(2).unwrap().status, RowStatus::NonFinite);
    assert!(features.row(2).unwrap().indices.is_empty());
    assert_eq!((features.failed_rows(), cache.len()), (1, 5));
    // Without rotation the others are a sequence of their own.
    let without = [&inputs[..2 * D_IN], &inputs[3 * D_IN..]].concat();
    let expected = run(&lorsa, &without, &[4]);
    let mut found = dense(&features, lorsa.d_sae());
    found.remove(2);
    assert_eq!(all_bits(&found), all_bits(&expected));
}

#[test]
fn constant_factors_and_k_at_run_time() {
    let of = reference(7);
    let n = of.value.len();
    let inputs = inputs(7, 5);
    // A factor on the input is the same as one on the rows, if it is a power of two.
    let mut scaled = parts(&of, top_k(n), Stored::Rows);
    scaled.attention.as_mut().unwrap().input_scale = 2.0;
    scaled.scale = Some(vec![2.0; n]);
    let scaled = Lorsa::from_parts(scaled).unwrap();
    let plain = Lorsa::from_parts(parts(&of, top_k(n), Stored::Rows)).unwrap();
    let twice: Vec<f32> = inputs.iter().map(|x| 2.0 * x).collect();
    assert_eq!(run(&scaled, &inputs, &[5]), run(&plain, &twice, &[5]));
    // Another k goes on with the same cache.
    let fewer = plain.with_k(1).unwrap();
    let mut cache = LorsaCache::new(&plain, 5).unwrap();
    let (mut scratch, mut features) = (plain.scratch().unwrap(), Features::new());
    let (begin, end) = inputs.split_at(3 * D_IN);
    let mut encode = |lorsa: &Lorsa<'_>, part| {
        let rows = rows(part, D_IN);
        lorsa
            .encode(rows, &mut cache, &mut scratch, &mut features)
            .unwrap();
        features.iter().map(|row| row.indices.len()).max().unwrap()
    };
    encode(&plain, begin);
    assert!(encode(&fewer, end) <= 1);
    assert!(plain.with_k(n + 1).is_err());
    assert!(
        Lorsa::from_parts(parts(&of, Activation::Relu, Stored::Rows))
            .unwrap()
            .with_k(1)
            .is_err()
    );
}

#[test]
fn periods_by_parts() {
    let parts = ByParts {
        factor: 8.0,
        low: 1.0,
        high: 4.0,
        old_context: 8192.0,
    };
    let plain = Rotary::new(128, 500_000.0, Pairs::Halves);
    let stretched = plain.clone().by_parts(parts);
    let (mut kept, mut longer, mut between) = (0, 0, 0);
    for (old, new) in zip(&plain.periods, &stretched.periods) {
        let wave = 2.0 * std::f64::consts::PI * old;
        if wave < 8192.0 / 4.0 {
            assert_eq!(old, new);
            kept += 1;
        } else if wave > 8192.0 {
            assert_eq!(8.0 * old, *new);
            longer += 1;
        } else {
            // Between the two, and continuous at both ends.
            let share = (8192.0 / wave - 1.0) / 3.0;
            let expected = 1.0 / ((1.0 - share) / (8.0 * old) + share / old);
            assert!((new - expected).abs() <= 1e-9 * expected && new > old && *new < 8.0 * old);
            between += 1;
        }
    }
    assert!(kept > 20 && longer > 20 && between > 2);
}

#[test]
fn what_cannot_attend_is_refused_at_construction() {
    let of = reference(2);
    let n = of.value.len();
    let error = |change: &dyn Fn(&mut Parts<'static>)| {
        let mut parts = parts(&of, Activation::Relu, Stored::Rows);
        change(&mut parts);
        Lorsa::from_parts(parts).expect_err("this is refused")
    };
    fn attention<'p>(parts: &'p mut Parts<'static>) -> &'p mut Attention<'static> {
        parts.attention.as_mut().unwrap()
    }
    let key = |error: Error| match error {
        Error::InvalidValue { key, .. } => key,
        Error::Shape { tensor, .. } | Error::BadValue { tensor, .. } => tensor,
        other => panic!("{other}"),
    };
    type Change<'c> = &'c dyn Fn(&mut Parts<'static>);
    let changes: [(Change<'_>, &str); 13] = [
        (&|parts| attention(parts).heads = 0, "heads"),
        (&|parts| attention(parts).heads = 7 * n, "heads"),
        (&|parts| attention(parts).score_scale = 0.0, "score_scale"),
        (
            &|parts| attention(parts).score_scale = f64::NAN,
            "score_scale",
        ),
        (
            &|parts| attention(parts).input_scale = f64::INFINITY,
            "input_scale",
        ),
        (
            &|parts| attention(parts).query_bias = Some(vec![0.0]),
            "query_bias",
        ),
        (
            &|parts| attention(parts).key_bias.as_mut().unwrap()[0] = f64::NAN,
            "key_bias",
        ),
        (
            &|parts| attention(parts).key = matrix("W_K", &[vec![1.0; D_IN]], Stored::Rows),
            "W_K",
        ),
        (
            &|parts| attention(parts).rotary = Some(Rotary::new(8, 10.0, Pairs::Adjacent)),
            "rotary",
        ),
        (&|parts| parts.activation = Activation::TopAfa, "activation"),
        (
            &|parts| {
                let gate_bias = vec![0.0; n];
                parts.activation = Activation::Gated { gate_bias };
            },
            "activation",
        ),
        (
            &|parts| parts.value_map = ValueMap::Distance(1.0),
            "attention",
        ),
        (
            &|parts| parts.input_norm = InputNorm::ConstantNorm,
            "attention",
        ),
    ];
    for (change, name) in changes {
        assert_eq!(key(error(change)), name);
    }
    assert!(matches!(
        error(&|parts| parts.attention = None),
        Error::InvalidArgument { .. }
    ));
    // A model without a sequence does not take it.
    let refused = Sae::from_parts(parts(&of, Activation::Relu, Stored::Rows)).unwrap_err();
    assert!(
        matches!(refused, Error::UnsupportedArchitecture { .. }),
        "{refused}"
    );
}

#[test]
fn caches_are_checked() {
    let (of, other) = (reference(2), reference(3));
    let lorsa = Lorsa::from_parts(parts(&of, Activation::Relu, Stored::Rows)).unwrap();
    let other = Lorsa::from_parts(parts(&other, Activation::Relu, Stored::Rows)).unwrap();
    let inputs = inputs(2, 4);
    let (mut scratch, mut features) = (lorsa.scratch().unwrap(), Features::new());
    let mut cache = LorsaCache::new(&lorsa, 3).unwrap();
    let mut encode = |lorsa: &Lorsa<'_>, cache: &mut LorsaCache<'_>, width| {
        lorsa.encode(rows(&inputs, width), cache, &mut scratch, &mut features)
    };
    assert!(matches!(
        encode(&lorsa, &mut cache, D_IN),
        Err(Error::Length { .. })
    ));
    assert!(matches!(
        encode(&lorsa, &mut cache, D_IN * 2),
        Err(Error::Length { .. })
    ));
    let wrong = encode(&other, &mut cache, D_IN);
    assert!(matches!(wrong, Err(Error::InvalidArgument { .. })));
    assert!(cache.is_empty());
    let mut memory = vec![0; LorsaCache::bytes_required(&lorsa, 3) - 1];
    let short = LorsaCache::from_memory(&lorsa, 3, &mut memory);
    assert!(matches!(short, Err(Error::Length { .. })));
    let (mut values, mut status) = ([0.0; 2], [RowStatus::Ok; 2]);
    let two = rows(&inputs[..2 * D_IN], D_IN);
    let far = [lorsa.d_sae() as u32];
    let found = lorsa.readout(
        &far,
        two,
        &mut cache,
        &mut scratch,
        &mut values,
        &mut status,
    );
    assert!(matches!(found, Err(Error::FeatureOutOfRange { .. })));
    let found = lorsa.readout(
        &[0],
        two,
        &mut cache,
        &mut scratch,
        &mut values[1..],
        &mut status,
    );
    assert!(matches!(found, Err(Error::Length { .. })));
    assert!(cache.is_empty());
}
