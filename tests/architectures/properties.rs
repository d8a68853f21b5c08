//! Properties of every rule and pursuit, over random models.

use super::*;
use proptest::prelude::*;
use sae::{BatchRule, BatchSpace};
use std::iter::zip;

const D: usize = 12;

/// Every rule that stands alone, for a model of `n` features.
fn rules(random: &mut Random, n: usize) -> Vec<Activation> {
    let k = random.below(n) + 1;
    let spread32 = |random: &mut Random| -> Vec<f32> {
        let values = spread(random, n);
        values.iter().map(|&value| value as f32).collect()
    };
    let top = |rank, relu| Activation::TopK { k, rank, relu };
    vec![
        Activation::Relu,
        Activation::TanhRelu,
        Activation::LeakyRelu { slope: 0.01 },
        jump(Thresholds::Scalar(0.5)),
        jump(Thresholds::PerFeature(spread32(random))),
        Activation::Gated {
            gate_bias: spread(random, n),
        },
        top(Rank::Value, true),
        top(Rank::Value, false),
        top(Rank::Magnitude, false),
        Activation::TopAfa,
        Activation::Pursuit(Pursuit::matching(5, 0.1, true)),
        Activation::Pursuit(Pursuit::matching_any(4)),
        Activation::Pursuit(Pursuit::matching_signed(4)),
        Activation::Pursuit(Pursuit::gradient(4, false)),
        Activation::Pursuit(Pursuit::orthogonal(4, true)),
        Activation::Pursuit(Pursuit::non_negative(6, 1e-4)),
    ]
}

/// A model under a rule: encoder and decoder are the same unit rows, so that pursuits have it too.
fn model(random: &mut Random, n: usize, rule: &Activation) -> Sae<'static> {
    let stored = [Stored::Rows, Stored::Columns][random.below(2)];
    stored_model(random, n, rule, stored)
}

fn stored_model(random: &mut Random, n: usize, rule: &Activation, stored: Stored) -> Sae<'static> {
    let atoms: Vec<Vec<f64>> = (0..n)
        .map(|_| {
            let atom = spread(random, D);
            let norm = pursuit::norm(&atom);
            atom.iter().map(|a| a / norm).collect()
        })
        .collect();
    let bias = spread(random, D);
    let matrix = matrix("atoms", &atoms, stored);
    let pursues = matches!(rule, Activation::Pursuit(_));
    let mut parts = Parts {
        center: Some(bias.clone()),
        decoder_bias: Some(bias),
        ..Parts::new(matrix.clone(), rule.clone(), matrix)
    };
    if !pursues {
        parts.bias = Some(spread(random, n));
        parts.rank_weight = Some((0..n).map(|_| 0.5 + random.number().abs() as f64).collect());
    }
    Sae::from_parts(parts).unwrap()
}

fn inputs(random: &mut Random, rows: usize) -> Vec<f32> {
    (0..rows * D).map(|_| random.number()).collect()
}

fn encode(sae: &Sae<'_>, inputs: &[f32]) -> Features {
    encode_decode(sae, rows(inputs, D)).0
}

fn dense_bits(sae: &Sae<'_>, inputs: &[f32]) -> Vec<Vec<u32>> {
    let rows = dense(&encode(sae, inputs), sae.d_sae());
    rows.iter().map(|row| bits(row)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The order of the rows is the order of the results.
    #[test]
    fn rows_are_encoded_each_for_itself(seed: u64, n in 2..90usize, rows in 2..6usize) {
        let mut random = Random(seed);
        for rule in rules(&mut random, n) {
            let sae = model(&mut random, n, &rule);
            let inputs = inputs(&mut random, rows);
            let backwards: Vec<f32> = inputs.chunks_exact(D).rev().flatten().copied().collect();
            let mut found = dense_bits(&sae, &backwards);
            found.reverse();
            prop_assert_eq!(found, dense_bits(&sae, &inputs), "{:?}", rule);
        }
    }

    /// Features in another order are the same features in that order.
    #[test]
    fn permuting_the_dictionary_permutes_the_features(seed: u64, n in 2..90usize) {
        let mut random = Random(seed);
        for rule in rules(&mut random, n) {
            let sae = model(&mut random, n, &rule);
            let inputs = inputs(&mut random, 3);
            let mut order: Vec<u32> = (0..n as u32).collect();
            for i in (1..n).rev() {
                order.swap(i, random.below(i + 1));
            }
            let permuted = sae.with_features(&order).unwrap();
            let all = dense_bits(&sae, &inputs);
            for (found, all) in zip(dense_bits(&permuted, &inputs), all) {
                let expected: Vec<u32> = order.iter().map(|&i| all[i as usize]).collect();
                prop_assert_eq!(found, expected, "{:?}", rule);
            }
        }
    }

    /// The k best of a part of the features that holds the k best of all are those.
    #[test]
    fn the_best_of_a_part_that_holds_the_best(seed: u64, n in 2..200usize) {
        let mut random = Random(seed);
        let k = random.below(n) + 1;
        for (rank, relu) in [(Rank::Value, true), (Rank::Value, false), (Rank::Magnitude, false)] {
            let sae = model(&mut random, n, &Activation::TopK { k, rank, relu });
            let inputs = inputs(&mut random, 1);
            let all = encode(&sae, &inputs);
            let best = all.indices().to_vec();
            let mut part: Vec<u32> = (0..n as u32)
                .filter(|i| best.contains(i) || i % 3 == 0)
                .collect();
            if part.len() < k {
                part = (0..n as u32).collect();
            }
            let found = encode(&sae.with_features(&part).unwrap(), &inputs);
            let indices: Vec<u32> = found.indices().iter().map(|&i| part[i as usize]).collect();
            prop_assert_eq!((indices, bits(found.values())), (best, bits(all.values())));
        }
    }

    /// Under a threshold the prefix of the features is the features of the prefix, and both models
    /// decode it alike.
    #[test]
    fn a_prefix_of_the_full_is_the_full_of_the_prefix(seed: u64, n in 2..300usize) {
        let mut random = Random(seed);
        let direct = rules(&mut random, n);
        for rule in direct.iter().take(6) {
            let sae = model(&mut random, n, rule);
            let inputs = inputs(&mut random, 2);
            let count = random.below(n) + 1;
            let prefix = sae.with_prefix(count).unwrap();
            let (found, y) = encode_decode(&prefix, rows(&inputs, D));
            for (found, all) in zip(found.iter(), encode(&sae, &inputs).iter()) {
                prop_assert_eq!(found, all.within(0..count));
            }
            let (mut scratch, mut whole) = (Scratch::new(&sae).unwrap(), vec![0.0; y.len()]);
            sae.decode(&found, None, &mut scratch, &mut whole).unwrap();
            prop_assert_eq!(bits(&whole), bits(&y));
        }
    }

    /// Signed rules without biases answer the negated row with negated values.
    #[test]
    fn signed_rules_are_symmetric(seed: u64, n in 2..200usize) {
        let mut random = Random(seed);
        let k = random.below(n) + 1;
        let rules = [
            Activation::TopK { k, rank: Rank::Magnitude, relu: false },
            Activation::Pursuit(Pursuit::matching_signed(5)),
            Activation::Pursuit(Pursuit::gradient(5, true)),
            Activation::Pursuit(Pursuit::orthogonal(5, true)),
        ];
        for rule in rules {
            let mut parts = model(&mut random, n, &rule).parts().clone();
            (parts.center, parts.bias, parts.decoder_bias) = (None, None, None);
            let sae = Sae::from_parts(parts).unwrap();
            let inputs = inputs(&mut random, 2);
            let negated: Vec<f32> = inputs.iter().map(|x| -x).collect();
            let (one, other) = (encode(&sae, &inputs), encode(&sae, &negated));
            prop_assert_eq!(one.indices(), other.indices());
            let back: Vec<f32> = other.values().iter().map(|value| -value).collect();
            prop_assert_eq!(bits(one.values()), bits(&back), "{:?}", rule);
        }
    }

    /// Selecting together from a batch of one row is TopK; from a batch of n copies with the whole
    /// budget it is each row's.
    #[test]
    fn a_batch_of_one_row_is_top_k(seed: u64, n in 2..300usize) {
        let mut random = Random(seed);
        let k = random.below(n) + 1;
        let sae = model(&mut random, n, &top_k(k));
        let inputs = inputs(&mut random, 1);
        let mut space = BatchSpace::new(&sae, BatchRule::Together { k }, 1).unwrap();
        let (mut scratch, mut found) = (Scratch::new(&sae).unwrap(), Features::new());
        sae.encode_batch(rows(&inputs, D), &mut space, &mut scratch, &mut found).unwrap();
        prop_assert_eq!(found, encode(&sae, &inputs));
    }

    /// With unit atoms no step makes the residual longer.
    #[test]
    fn pursuit_residuals_never_grow(seed: u64, n in 2..120usize) {
        type Rule = fn(usize) -> Pursuit;
        let rules: [Rule; 6] = [
            |steps| Pursuit::matching(steps, 0.0, false),
            Pursuit::matching_signed,
            |steps| Pursuit::gradient(steps, false),
            |steps| Pursuit::gradient(steps, true),
            |steps| Pursuit::orthogonal(steps, false),
            |steps| Pursuit::orthogonal(steps, true),
        ];
        let mut random = Random(seed);
        for rule in rules {
            let sae = model(&mut random, n, &Activation::Pursuit(rule(1)));
            let inputs = inputs(&mut random, 1);
            let x: Vec<f64> = inputs.iter().map(|&x| x.into()).collect();
            let center = sae.parts().center.clone().unwrap();
            let mut before = pursuit::norm(&zip(&x, &center).map(|(x, c)| x - c).collect::<Vec<_>>());
            for steps in 1..9 {
                let longer = sae.with_k(steps).unwrap();
                let (found, y) = encode_decode(&longer, rows(&inputs, D));
                let left: Vec<f64> = zip(&x, &y).map(|(x, &y)| x - f64::from(y)).collect();
                let norm = pursuit::norm(&left);
                // Values and reconstruction are rounded to f32.
                prop_assert!(norm <= before + 4e-6, "{:?}: {} after {}", rule(steps), norm, before);
                prop_assert!(found.len() <= steps);
                before = norm;
            }
        }
    }
}

/// Selection keeps no dense row: what a thread needs besides the row itself does not grow with the
/// number of features, but for rules that must sort them all.
#[test]
fn no_buffer_grows_with_the_number_of_features() {
    let size = |n: usize, rule: fn(usize) -> Activation| {
        let mut random = Random(1);
        let sae = stored_model(&mut random, n, &rule(n), Stored::Columns);
        Scratch::bytes_required(&sae)
    };
    let direct: [fn(usize) -> Activation; 8] = [
        |_| Activation::Relu,
        |_| Activation::TanhRelu,
        |_| jump(Thresholds::Scalar(0.5)),
        |n| Activation::Gated {
            gate_bias: vec![0.0; n],
        },
        |_| top_k(20),
        |_| Activation::TopK {
            k: 20,
            rank: Rank::Magnitude,
            relu: false,
        },
        |_| Activation::group_max(8),
        |_| Activation::Pursuit(Pursuit::matching_signed(20)),
    ];
    for rule in direct {
        let (few, many) = (size(400, rule), size(40_000, rule));
        assert_eq!(few, many, "{:?}", rule(400).describe());
        assert!(many < 40_000 * 4 || many < 400 * 1024, "{many}");
    }
    // Top-AFA sorts all that are positive.
    let afa: fn(usize) -> Activation = |_| Activation::TopAfa;
    assert!(size(40_000, afa) > size(400, afa) + 39_600 * 8);
}
