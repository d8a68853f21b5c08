//! Models derived from a model.

use super::*;
use sae::Importance;
use std::iter::zip;

fn model(seed: u64) -> (Affine, Vec<f32>) {
    let mut random = Random(seed);
    let model = affine(&mut random, spread, 24, 300, 24);
    let inputs = (0..24 * 5).map(|_| random.number()).collect();
    (model, inputs)
}

fn sae(model: &Affine, rule: Activation, stored: Stored) -> Sae<'static> {
    Sae::from_parts(model.parts(rule, stored)).unwrap()
}

fn features(sae: &Sae<'_>, inputs: &[f32]) -> Features {
    encode_decode(sae, rows(inputs, sae.d_in())).0
}

#[test]
fn k_at_run_time() {
    let (model, inputs) = model(1);
    for stored in [Stored::Rows, Stored::Columns] {
        let sae = sae(&model, top_k(30), stored);
        for k in [1, 7, 30, 200, 300] {
            let expected = super::knobs::sae(&model, top_k(k), stored);
            let derived = sae.with_k(k).unwrap();
            assert_eq!(features(&derived, &inputs), features(&expected, &inputs));
        }
        let none = sae.with_k(0).unwrap();
        assert!(features(&none, &inputs).is_empty());
        assert_eq!(features(&none, &inputs).rows(), 5);
        parts::assert_readouts(&none, &inputs, 24, &features(&none, &inputs));
        assert!(matches!(
            sae.with_k(301),
            Err(Error::InvalidArgument { .. })
        ));
    }
    let relu = sae(&model, Activation::Relu, Stored::Rows);
    assert!(matches!(relu.with_k(3), Err(Error::InvalidArgument { .. })));
    // Groups count for each, pursuits count steps.
    let groups = sae(&model, Activation::group_max(10), Stored::Rows);
    assert_eq!(
        features(&groups.with_k(30).unwrap(), &inputs),
        features(&relu, &inputs)
    );
    assert!(groups.with_k(31).is_err());
    assert!(features(&groups.with_k(0).unwrap(), &inputs).is_empty());
    let pursuit = relu.with_pursuit(Pursuit::orthogonal(4, false)).unwrap();
    let shorter = relu.with_pursuit(Pursuit::orthogonal(2, false)).unwrap();
    assert_eq!(
        features(&pursuit.with_k(2).unwrap(), &inputs),
        features(&shorter, &inputs)
    );
    assert!(features(&pursuit.with_k(0).unwrap(), &inputs).is_empty());
    // A threshold model under TopK instead.
    let swapped = relu.with_activation(top_k(5)).unwrap();
    let expected = sae(&model, top_k(5), Stored::Rows);
    assert_eq!(features(&swapped, &inputs), features(&expected, &inputs));
}

#[test]
fn the_prefix_of_the_full_model_is_the_model_of_the_prefix() {
    let (model, inputs) = model(2);
    let mut random = Random(4);
    let theta: Vec<f32> = (0..300).map(|_| random.number().abs()).collect();
    let gate_bias = spread(&mut random, 300);
    let rules = [
        Activation::Relu,
        jump(Thresholds::PerFeature(theta)),
        Activation::Gated { gate_bias },
    ];
    for rule in rules {
        for stored in [Stored::Rows, Stored::Columns] {
            let parts = Parts {
                scale: Some((0..300).map(|i| 1.0 + f64::from(i) / 256.0).collect()),
                decoder_scale: Some((0..300).map(|i| 2.0 - f64::from(i) / 256.0).collect()),
                rank_weight: Some(vec![0.75; 300]),
                glu: None,
                ..model.parts(rule.clone(), stored)
            };
            let sae = Sae::from_parts(parts).unwrap();
            let all = features(&sae, &inputs);
            for count in [1, 64, 299, 300] {
                let prefix = sae.with_prefix(count).unwrap();
                assert_eq!(prefix.d_sae(), count);
                let (found, y) = encode_decode(&prefix, rows(&inputs, 24));
                parts::assert_readouts(&prefix, &inputs, 24, &found);
                for (found, all) in zip(found.iter(), all.iter()) {
                    assert_eq!(found, all.within(0..count));
                }
                // The whole model decodes them to the same bits.
                let mut scratch = Scratch::new(&sae).unwrap();
                let mut whole = vec![0.0; y.len()];
                sae.decode(&found, None, &mut scratch, &mut whole).unwrap();
                assert_eq!(bits(&whole), bits(&y));
            }
            assert!(sae.with_prefix(0).is_err() && sae.with_prefix(301).is_err());
        }
    }
    // TopK ranks within the prefix.
    let sae = sae(&model, top_k(40), Stored::Columns);
    let prefix = sae.with_prefix(20).unwrap();
    for row in features(&prefix, &inputs).iter() {
        assert!(row.indices.iter().all(|&index| index < 20));
    }
    let groups = sae.with_activation(Activation::group_max(10)).unwrap();
    assert!(groups.with_prefix(31).is_err());
    let three = groups.with_prefix(90).unwrap();
    for (found, all) in zip(
        features(&three, &inputs).iter(),
        features(&groups, &inputs).iter(),
    ) {
        assert_eq!(found, all.within(0..90));
    }
}

/// The publisher's own nested widths.
#[test]
fn matryoshka_prefixes_are_dictionary_learning_s() {
    let case = Case::new("dl_matryoshka");
    // W_enc is stored transposed, its strides are (1, 64).
    let part = |storage: &str, shape: &[usize]| case.torch("ae.pt", storage, shape);
    let b_dec = part("data/3", &[64]).values;
    let model = Affine {
        encoder: rows_of(&part("data/0", &[256, 64])),
        bias: part("data/1", &[256]).values,
        center: Some(b_dec.clone()),
        decoder: rows_of(&part("data/2", &[256, 64])),
        decoder_bias: b_dec,
    };
    let threshold = part("data/5", &[1]).values[0] as f32;
    let sae = sae(&model, jump(Thresholds::Scalar(threshold)), Stored::Columns);
    let inputs = case.rows.f32_values();
    for (groups, width) in [(1, 32), (2, 96)] {
        let golden = case.golden(&format!("features_groups{groups}"));
        let recon = case.golden(&format!("recon_groups{groups}"));
        let prefix = sae.with_prefix(width).unwrap();
        let (found, y) = encode_decode(&prefix, rows(&inputs, 64));
        for (row, found) in dense(&found, width).iter().enumerate() {
            // f32 goldens.
            let bound = |i: usize| 1e-5 * absolute_dot(&model.encoder[i], case.row(row));
            assert_values(found, &golden[row][..width], bound, &format!("row {row}"));
            assert!(golden[row][width..].iter().all(|&value| value == 0.0));
            for (y, expected) in zip(&y[row * 64..][..64], &recon[row]) {
                assert!((f64::from(*y) - expected).abs() <= 1e-4);
            }
        }
    }
}

#[test]
fn a_model_of_chosen_features() {
    let (model, inputs) = model(3);
    let rule = || {
        jump(Thresholds::PerFeature(
            (0..300).map(|i| i as f32 / 300.0).collect(),
        ))
    };
    for stored in [Stored::Rows, Stored::Columns] {
        let sae = sae(&model, rule(), stored);
        let all = dense(&features(&sae, &inputs), 300);
        let chosen: Vec<u32> = (0..60).map(|i| (i * 7 + 5) % 300).collect();
        let some = sae.with_features(&chosen).unwrap();
        let found = features(&some, &inputs);
        parts::assert_readouts(&some, &inputs, 24, &found);
        for (found, all) in zip(dense(&found, 60), &all) {
            let expected: Vec<f32> = chosen
                .iter()
                .map(|&feature| all[feature as usize])
                .collect();
            assert_eq!(bits(&found), bits(&expected));
        }
        assert!(matches!(
            sae.with_features(&[1, 2, 1]),
            Err(Error::InvalidArgument { .. })
        ));
        assert!(matches!(
            sae.with_features(&[300]),
            Err(Error::FeatureOutOfRange { .. })
        ));
        assert!(sae.with_features(&[]).is_err());
        let groups = sae.with_activation(Activation::group_max(3)).unwrap();
        assert!(groups.with_features(&[1, 2]).is_err());
    }
    // With all features in another order TopK chooses the same ones, but for ties.
    let sae = sae(&model, top_k(12), Stored::Columns);
    let backwards: Vec<u32> = (0..300).rev().collect();
    let turned = sae.with_features(&backwards).unwrap();
    for (found, all) in zip(
        dense(&features(&turned, &inputs), 300),
        dense(&features(&sae, &inputs), 300),
    ) {
        let back: Vec<f32> = found.into_iter().rev().collect();
        assert_eq!(bits(&back), bits(&all));
    }
}

#[test]
fn prefixes_in_the_order_of_importance_improve() {
    let (model, inputs) = model(4);
    let sae = sae(&model, Activation::Relu, Stored::Rows);
    let all = features(&sae, &inputs);
    let mut importance = Importance::new(&sae).unwrap();
    importance.add(&all).unwrap();
    let values = dense(&all, 300);
    for (i, &sum) in importance.sums().iter().enumerate() {
        let squares: f64 = values.iter().map(|row| f64::from(row[i]).powi(2)).sum();
        let expected = squares * dot(&model.decoder[i], &model.decoder[i]);
        assert!((sum - expected).abs() <= 1e-9 * (1.0 + expected));
    }
    let order = importance.order();
    assert!(order.is_sorted_by(|&a, &b| {
        let sum = |i: u32| importance.sums()[i as usize];
        sum(a) > sum(b) || sum(a) == sum(b) && a < b
    }));
    let ordered = sae.with_features(&order).unwrap();
    let mut before = 0.0;
    for count in [10, 50, 150, 300] {
        let prefix = ordered.with_prefix(count).unwrap();
        let mut seen = Importance::new(&prefix).unwrap();
        seen.add(&features(&prefix, &inputs)).unwrap();
        let energy: f64 = seen.sums().iter().sum();
        assert!(energy >= before);
        before = energy;
    }
    let total: f64 = importance.sums().iter().sum();
    assert!((before - total).abs() <= 1e-9 * total);
    assert!(
        Importance::new(&sae.with_prefix(2).unwrap())
            .unwrap()
            .add(&all)
            .is_err()
    );
}

#[test]
fn weights_of_the_caller_rank() {
    let (model, inputs) = model(5);
    let sae = sae(&model, top_k(9), Stored::Columns);
    let mut random = Random(8);
    let weights: Vec<f64> = (0..300).map(|_| random.number().abs().into()).collect();
    let weighted = sae.with_rank_weights(Some(&weights)).unwrap();
    let expected = Sae::from_parts(Parts {
        rank_weight: Some(weights),
        ..model.parts(top_k(9), Stored::Columns)
    })
    .unwrap();
    assert_eq!(features(&weighted, &inputs), features(&expected, &inputs));
    assert_ne!(features(&weighted, &inputs), features(&sae, &inputs));
    let back = weighted.with_rank_weights(None).unwrap();
    assert_eq!(features(&back, &inputs), features(&sae, &inputs));
    assert!(sae.with_rank_weights(Some(&[1.0])).is_err());
}

#[test]
fn inference_time_optimisation_reconstructs_better() {
    // Any decoder: atoms are scaled to length 1, the decoder bias is taken off first.
    let (model, inputs) = model(6);
    for stored in [Stored::Rows, Stored::Columns] {
        let sae = sae(&model, Activation::Relu, stored);
        let better = sae.with_pursuit(Pursuit::orthogonal(10, false)).unwrap();
        let (found, y) = encode_decode(&better, rows(&inputs, 24));
        let units: Vec<Vec<f64>> = model
            .decoder
            .iter()
            .map(|atom| atom.iter().map(|a| a / pursuit::norm(atom)).collect())
            .collect();
        for (row, found) in dense(&found, 300).iter().enumerate() {
            let x: Vec<f64> = inputs[row * 24..][..24].iter().map(|&x| x.into()).collect();
            let centred: Vec<f64> = zip(&x, &model.decoder_bias).map(|(x, b)| x - b).collect();
            let expected = pursuit::orthogonal(&units, &centred, 10, false);
            let bound = 64.0 * TWO_24 * pursuit::norm(&centred);
            assert_values(found, &expected, |_| bound, &format!("row {row}"));
            let left: Vec<f64> = zip(&y[row * 24..][..24], &x)
                .map(|(y, x)| f64::from(*y) - x)
                .collect();
            assert!(pursuit::norm(&left) < 0.5 * pursuit::norm(&centred));
        }
        // A steering vector made of two features comes back as those two.
        let vector: Vec<f64> = zip(&units[17], &units[203])
            .map(|(a, b)| 3.0 * a - 2.0 * b)
            .collect();
        let narrow: Vec<f32> = vector.iter().map(|&v| v as f32).collect();
        let signed = Pursuit {
            stop_norm: Some(1e-5),
            ..Pursuit::orthogonal(24, true)
        };
        let directions = sae.with_pursuit_of_directions(signed).unwrap();
        let (found, y) = encode_decode(&directions, rows(&narrow, 24));
        for (y, v) in zip(&y, &vector) {
            assert!((f64::from(*y) - v).abs() < 1e-5);
        }
        assert!(found.len() >= 2);
    }
}
