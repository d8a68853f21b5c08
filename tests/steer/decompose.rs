//! Vectors as sums of decoder vectors, against the reference's pursuits and plain products.

use super::reference::pursuit;
use super::*;
use sae::model::{Ensemble, Pursuit};

/// Decoder vectors made unit vectors, and what the model multiplies a value by times their length.
fn atoms(model: &Model) -> (Vec<Vec<f64>>, Vec<f64>) {
    let atom = |feature: usize| {
        let row = model.decoder_row(feature);
        let norm = pursuit::norm(row);
        let scale = model.decoder_scale.as_ref().map_or(1.0, |all| all[feature]);
        (row.iter().map(|w| w / norm).collect(), norm * scale)
    };
    (0..model.d_sae).map(atom).unzip()
}

#[test]
fn a_vector_is_the_sum_that_the_pursuit_finds() {
    for made in all() {
        let sae = made.open(Level::best());
        let (units, lengths) = atoms(&made.model);
        let bytes = made.rows(Format::F32, 1, made.model.d_out, 5);
        let vector = Format::F32.widen(&bytes);
        let v: Vec<f64> = vector.iter().map(|&v| v.into()).collect();
        let norm = pursuit::norm(&v);
        for (rule, codes) in [
            (
                Pursuit::orthogonal(3, true),
                pursuit::orthogonal(&units, &v, 3, true),
            ),
            (
                Pursuit::orthogonal(3, false),
                pursuit::orthogonal(&units, &v, 3, false),
            ),
            (
                Pursuit::gradient(3, true),
                pursuit::gradient(&units, &v, 3, true),
            ),
            (Pursuit::matching_signed(3), pursuit::itda(&units, &v, 3)),
        ] {
            let found = sae.decompose(&vector, rule, 4).unwrap();
            assert!((found.norm - norm).abs() <= 1e-12 * norm);
            let mut lengths_found = vec![0.0; made.model.d_sae];
            for part in &found.parts {
                let feature = part.on.feature as usize;
                lengths_found[feature] = part.length;
                let strength = part.strength.unwrap();
                let error = (strength * lengths[feature] - part.length).abs();
                assert!(error <= 1e-12 * part.length.abs(), "{}", made.name);
            }
            let sizes: Vec<f64> = found.parts.iter().map(|part| part.length.abs()).collect();
            assert!(sizes.is_sorted_by(|a, b| a >= b));
            for (found, expected) in lengths_found.iter().zip(&codes) {
                let error = (found - expected).abs();
                assert!(error <= 1e-4 * norm, "{}: {found} {expected}", made.name);
            }
            let left = pursuit::norm(&pursuit::residual(&units, &codes, &v));
            assert!((found.explained - (1.0 - left * left / (norm * norm))).abs() < 1e-4);
            let sum = pursuit::residual(&units, &codes, &vec![0.0; v.len()]);
            let both: f64 = sum.iter().zip(&v).map(|(sum, v)| -sum * v).sum();
            let cosine = both / (norm * pursuit::norm(&sum));
            assert!((found.cosine - cosine).abs() < 1e-4, "{}", made.name);

            // Every feature's cosine, from the highest and from the lowest.
            let dot = |unit: &Vec<f64>| unit.iter().zip(&v).map(|(u, v)| u * v).sum::<f64>();
            let mut cosines: Vec<(f64, u32)> =
                units.iter().map(|unit| dot(unit) / norm).zip(0..).collect();
            cosines.sort_by(|a, b| b.0.total_cmp(&a.0));
            let lowest: Vec<_> = cosines.iter().rev().copied().collect();
            for (list, expected) in [(&found.along, &cosines), (&found.against, &lowest)] {
                assert_eq!(list.len(), 4);
                for (on, (cosine, feature)) in list.iter().zip(expected) {
                    assert_eq!(on.feature, *feature, "{}", made.name);
                    assert!((on.cosine - cosine).abs() < 1e-12);
                    assert!((on.projection - cosine * norm).abs() < 1e-12 * norm);
                }
            }
        }
    }
}

/// What is taken away comes back as what is taken away, and the plan adds the vector.
#[test]
fn a_vector_of_two_features_comes_back_as_a_plan() {
    for made in all().filter(|made| made.name.contains(", none,")) {
        let sae = made.open(Level::best());
        let plan = Plan::new("two")
            .edit(Edit::add(3, 1.5))
            .edit(Edit::add(9, -2.0));
        let vector = sae
            .constant_vector(&sae.compile_plan(&plan).unwrap())
            .unwrap();
        let found = sae.decompose(&vector, Pursuit::orthogonal(made.model.d_out, true), 0);
        let found = found.unwrap();
        assert!(found.along.is_empty() && found.against.is_empty());
        assert!(found.explained > 1.0 - 1e-9, "{}: {found:?}", made.name);
        let back = sae.compile_plan(&found.plan("back")).unwrap();
        let back = sae.constant_vector(&back).unwrap();
        for (back, expected) in back.iter().zip(&vector) {
            let error = f64::from((back - expected).abs());
            assert!(error <= 1e-5 * found.norm, "{}", made.name);
        }
    }
    // By hand: (2, -3) is 2 d_0 - 3 d_1; d_2 = (-1, -1) has the cosine 1/sqrt(26).
    let (name, file, config) = tiny();
    let sae = Sae::from_bytes(&name, &file, Some(&config), &Default::default()).unwrap();
    let found = sae
        .decompose(&[2.0, -3.0], Pursuit::orthogonal(2, true), 5)
        .unwrap();
    let parts: Vec<_> = found
        .parts
        .iter()
        .map(|p| (p.on.feature, p.strength))
        .collect();
    assert_eq!(parts, [(1, Some(-3.0)), (0, Some(2.0))]);
    let order =
        |list: &[sae::steer::Projection]| list.iter().map(|p| p.feature).collect::<Vec<_>>();
    assert_eq!(order(&found.along), [0, 2, 1]);
    assert_eq!(order(&found.against), [1, 2, 0]);
    assert!((found.along[1].cosine - 1.0 / 26f64.sqrt()).abs() < 1e-12);
}

#[test]
fn what_cannot_be_decomposed_is_refused() {
    let made = Made::new("standard", "none", Format::F32, 21);
    let sae = made.open(Level::best());
    let width = made.model.d_out;
    let rule = Pursuit::orthogonal(2, true);
    let code = |vector: &[f32]| sae.decompose(vector, rule.clone(), 1).unwrap_err().code();
    assert_eq!(code(&vec![1.0; width + 1]), sae::Code::Length);
    for wrong in [0.0, f32::NAN, f32::INFINITY] {
        assert_eq!(code(&vec![wrong; width]), sae::Code::InvalidArgument);
    }
    let none = Pursuit::orthogonal(0, true);
    assert!(sae.decompose(&vec![1.0; width], none, 1).is_err());
}

/// The members' decoder vectors together, each with its share of the average.
#[test]
fn ensembles_are_decomposed_into_the_features_of_all_members() {
    let (one, other) = (tiny(), tiny());
    let open = |(name, file, config): &(String, Vec<u8>, String)| {
        let file = file.clone().leak();
        Sae::from_bytes(name, file, Some(config), &Default::default()).unwrap()
    };
    let bag = Sae::ensemble(vec![open(&one), open(&other)], Ensemble::Bag).unwrap();
    let found = bag
        .decompose(&[2.0, -3.0], Pursuit::orthogonal(2, true), 1)
        .unwrap();
    let parts: Vec<_> = found
        .parts
        .iter()
        .map(|p| (p.on.feature, p.strength))
        .collect();
    assert_eq!(parts, [(1, Some(-6.0)), (0, Some(4.0))]);
    let vector = bag
        .constant_vector(&bag.compile_plan(&found.plan("bag")).unwrap())
        .unwrap();
    assert_eq!(vector, [2.0, -3.0]);
}
