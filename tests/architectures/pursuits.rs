//! Pursuits over random dictionaries, against the f64 formulas; properties and edge cases.

use super::*;

/// Random atoms of length 1, or not quite when `unit` is false.
fn atoms(random: &mut Random, count: usize, width: usize) -> Vec<Vec<f64>> {
    let atom = |_| {
        let atom = spread(random, width);
        let norm = pursuit::norm(&atom);
        atom.iter().map(|a| f64::from((a / norm) as f32)).collect()
    };
    (0..count).map(atom).collect()
}

/// The codes of one row, run in every way.
fn codes(atoms: &[Vec<f64>], rule: &Pursuit, x: &[f64]) -> Vec<f32> {
    let row: Vec<f32> = x.iter().map(|&x| x as f32).collect();
    let make = |stored| pursuit_parts(atoms, None, rule, stored);
    dense(&parts::run(make, &row, x.len()).0, atoms.len()).remove(0)
}

#[test]
fn every_pursuit_is_its_formula() {
    for seed in 0..25 {
        let mut random = Random(seed);
        let (width, count) = (random.below(30) + 3, random.below(400) + 4);
        let atoms = atoms(&mut random, count, width);
        let x = spread(&mut random, width);
        let steps = random.below(width.min(10)) + 1;
        let bound = 64.0 * TWO_24 * pursuit::norm(&x);
        let compare = |name: &str, rule: Pursuit, expected: Vec<f64>| {
            let found = codes(&atoms, &rule, &x);
            let place = format!("{name}, seed {seed}, {steps} steps");
            assert_values(&found, &expected, |_| bound, &place);
        };
        let matching = Pursuit::matching(steps, 0.2, seed % 2 == 0);
        let expected = pursuit::saelens(&atoms, &x, steps, 0.2, seed % 2 == 0);
        compare("matching", matching, expected);
        let expected = pursuit::overcomplete(&atoms, &x, steps);
        compare("any", Pursuit::matching_any(steps), expected);
        let expected = pursuit::itda(&atoms, &x, steps);
        compare("signed", Pursuit::matching_signed(steps), expected);
        for signed in [false, true] {
            let expected = pursuit::gradient(&atoms, &x, steps, signed);
            compare("gradient", Pursuit::gradient(steps, signed), expected);
            let expected = pursuit::orthogonal(&atoms, &x, steps, signed);
            compare("orthogonal", Pursuit::orthogonal(steps, signed), expected);
        }
    }
}

#[test]
fn non_negative_least_squares_meets_its_conditions() {
    for seed in 0..20 {
        let mut random = Random(seed);
        let (width, count) = (random.below(24) + 3, random.below(60) + 2);
        let atoms = atoms(&mut random, count, width);
        let x = spread(&mut random, width);
        let found = codes(&atoms, &Pursuit::non_negative(count, 1e-6), &x);
        let found: Vec<f64> = found.iter().map(|&value| value.into()).collect();
        let left = pursuit::residual(&atoms, &found, &x);
        for (atom, &value) in atoms.iter().zip(&found) {
            // Optimal: no atom helps, and those in use are done.
            let slope = dot(atom, &left);
            assert!(value >= 0.0 && slope <= 4e-6, "seed {seed}: {slope}");
            assert!(value == 0.0 || slope.abs() <= 4e-6, "seed {seed}: {slope}");
        }
        let views: Vec<&[f64]> = atoms.iter().map(|atom| &atom[..]).collect();
        let other = pursuit::non_negative(&views, &x);
        let best = pursuit::norm(&pursuit::residual(&atoms, &other, &x));
        assert!((pursuit::norm(&left) - best).abs() <= 1e-5, "seed {seed}");
    }
}

#[test]
fn the_residual_never_grows_and_codes_extend() {
    for seed in 0..10 {
        let mut random = Random(seed);
        let atoms = atoms(&mut random, 200, 24);
        let x = spread(&mut random, 24);
        type Rule = fn(usize) -> Pursuit;
        let rules: [(&str, Rule); 6] = [
            ("matching", |steps| Pursuit::matching(steps, 0.0, false)),
            ("signed", Pursuit::matching_signed),
            ("gradient", |steps| Pursuit::gradient(steps, false)),
            ("signed gradient", |steps| Pursuit::gradient(steps, true)),
            ("orthogonal", |steps| Pursuit::orthogonal(steps, false)),
            ("signed orthogonal", |steps| {
                Pursuit::orthogonal(steps, true)
            }),
        ];
        for (name, rule) in rules {
            let mut before = pursuit::norm(&x);
            let mut support = 0;
            for steps in 1..12 {
                let found = codes(&atoms, &rule(steps), &x);
                let found: Vec<f64> = found.iter().map(|&value| value.into()).collect();
                let norm = pursuit::norm(&pursuit::residual(&atoms, &found, &x));
                assert!(norm <= before + 1e-6, "{name}: {norm} after {before}");
                let count = found.iter().filter(|&&value| value != 0.0).count();
                assert!(count <= steps && count + 3 >= support, "{name}");
                (before, support) = (norm, count);
            }
        }
    }
}

#[test]
fn duplicates_ties_and_negative_rows() {
    // The same atom three times, and another.
    let atoms = vec![
        vec![1.0, 0.0],
        vec![1.0, 0.0],
        vec![0.0, 1.0],
        vec![1.0, 0.0],
    ];
    let all: [Pursuit; 7] = [
        Pursuit::matching(4, 0.0, true),
        Pursuit::matching_any(4),
        Pursuit::matching_signed(4),
        Pursuit::gradient(4, false),
        Pursuit::gradient(4, true),
        Pursuit::orthogonal(4, false),
        Pursuit::orthogonal(4, true),
    ];
    for rule in &all {
        assert_eq!(
            codes(&atoms, rule, &[3.0, 2.0]),
            [3.0, 0.0, 2.0, 0.0],
            "{rule:?}"
        );
    }
    for rule in [&all[0], &all[3], &all[5]] {
        assert_eq!(codes(&atoms, rule, &[-3.0, -2.0]), [0.0; 4], "{rule:?}");
    }
    for rule in [&all[2], &all[4], &all[6]] {
        assert_eq!(
            codes(&atoms, rule, &[-3.0, -2.0]),
            [-3.0, 0.0, -2.0, 0.0],
            "{rule:?}"
        );
    }
    // overcomplete's takes the largest even below zero, and the atom again after it.
    let any = Pursuit::matching_any(1);
    assert_eq!(codes(&atoms, &any, &[-3.0, -2.0]), [0.0, 0.0, -2.0, 0.0]);
    // A zero row has no features.
    for rule in &all {
        assert_eq!(codes(&atoms, rule, &[0.0, 0.0]), [0.0; 4], "{rule:?}");
    }
}

#[test]
fn scaled_atoms_are_the_scaled_dictionary() {
    let mut random = Random(5);
    let atoms = atoms(&mut random, 90, 16);
    let halves: Vec<Vec<f64>> = atoms
        .iter()
        .map(|atom| atom.iter().map(|a| a / 2.0).collect())
        .collect();
    let row: Vec<f32> = (0..48).map(|_| random.number()).collect();
    let rules = [
        Pursuit::matching_signed(6),
        Pursuit::gradient(6, false),
        Pursuit::orthogonal(6, true),
    ];
    for rule in rules {
        let plain = parts::run(
            |stored| pursuit_parts(&atoms, None, &rule, stored),
            &row,
            16,
        );
        let scaled = |stored| Parts {
            decoder_scale: Some(vec![2.0; 90]),
            ..pursuit_parts(&halves, None, &rule, stored)
        };
        assert_eq!(parts::run(scaled, &row, 16), plain);
    }
}

#[test]
fn a_dictionary_that_diverges_ends_its_row_only() {
    // Atoms far longer than 1: matching pursuit overshoots more with every step.
    let atoms = vec![vec![1e12, 0.0], vec![0.0, 1.0]];
    let rule = Pursuit::matching_signed(40);
    let parts = pursuit_parts(&atoms, None, &rule, Stored::Rows);
    let sae = Sae::from_parts(parts).unwrap();
    let (features, y) = encode_decode(&sae, rows(&[1.0, 0.0, 0.0, 1.0], 2));
    let first = features.row(0).unwrap();
    assert_eq!(first.status, sae::RowStatus::NanPreActivation);
    assert!(first.indices.is_empty());
    assert_eq!(features.row(1).unwrap().values, [1.0]);
    assert_eq!(y, [0.0, 0.0, 0.0, 1.0]);
}

#[test]
fn what_a_pursuit_cannot_use_is_refused_at_construction() {
    let atoms = vec![vec![1.0, 0.0], vec![0.0, 0.0]];
    let good = vec![vec![1.0, 0.0], vec![0.0, 1.0]];
    let refused = |atoms: &[Vec<f64>], rule: &Pursuit| {
        let parts = pursuit_parts(atoms, None, rule, Stored::Columns);
        match Sae::from_parts(parts).expect_err("this is refused") {
            Error::InvalidValue { key, .. } => key,
            other => panic!("{other}"),
        }
    };
    assert_eq!(refused(&atoms, &Pursuit::matching_any(2)), "dictionary");
    assert_eq!(refused(&good, &Pursuit::matching_any(0)), "steps");
    let not_a_number = Pursuit {
        stop_norm: Some(f64::NAN),
        ..Pursuit::matching_any(2)
    };
    assert_eq!(refused(&good, &not_a_number), "residual_threshold");
    assert_eq!(refused(&good, &Pursuit::non_negative(2, -1.0)), "tolerance");
    let mixed = Pursuit {
        pick: sae::model::Pick::Any,
        ..Pursuit::orthogonal(2, true)
    };
    assert_eq!(refused(&good, &mixed), "pick");
    let mut parts = pursuit_parts(&good, None, &Pursuit::matching_any(2), Stored::Rows);
    parts.bias = Some(vec![0.0; 2]);
    assert!(Sae::from_parts(parts).is_err());
}

/// A prepared model looks at the atoms that its screen leaves in the running: the same ones are picked,
/// with the same bits, whatever the rule; with atoms twice, ranks that tie, and rank weights too.
#[test]
fn a_screen_changes_no_pursuit() {
    use sae::model::{ScreenKind, ScreenOptions};
    let mut random = Random(77);
    for (width, count) in [(24, 700), (520, 900)] {
        let mut atoms = atoms(&mut random, count, width);
        for at in (0..count).step_by(50) {
            atoms[at + 1] = atoms[at].clone();
            atoms[at + 2] = atoms[at].iter().map(|a| -a).collect();
        }
        // Sums of a few atoms, noise, zeros, and one row that is not finite.
        let mut inputs = Vec::new();
        for row in 0..6 {
            let mut x = spread(&mut random, width);
            for (at, &atom) in [3, 50, 51, 400].iter().enumerate().take(row) {
                for (x, a) in x.iter_mut().zip(&atoms[atom]) {
                    *x = *x * 0.5 + a * (40.0 - 9.0 * at as f64);
                }
            }
            inputs.extend(x.iter().map(|&x| x as f32));
        }
        inputs.extend(std::iter::repeat_n(0.0, width));
        inputs.extend(std::iter::repeat_n(f32::NAN, width));
        let all = rows(&inputs, width);
        for rule in [
            Pursuit::matching(12, 0.5, true),
            Pursuit::matching_any(6),
            Pursuit::matching_signed(12),
            Pursuit::gradient(7, false),
            Pursuit::gradient(7, true),
            Pursuit::orthogonal(9, false),
            Pursuit::orthogonal(9, true),
            Pursuit::non_negative(15, 0.25),
        ] {
            for weighted in [false, true] {
                let mut parts = pursuit_parts(&atoms, None, &rule, Stored::Columns);
                let scales = (0..count).map(|i| 0.5 + (i % 7) as f64 / 8.0);
                parts.decoder_scale = Some(scales.collect());
                let weights = (0..count).map(|i| ((i * 5) % 11) as f64 / 10.0);
                parts.rank_weight = weighted.then(|| weights.collect());
                let plain = Sae::from_parts(parts).unwrap();
                let (expected, y) = encode_decode(&plain, all);
                assert!(!expected.is_empty());
                for kind in [ScreenKind::Proven, ScreenKind::Dithered] {
                    let mut options = ScreenOptions::from(kind);
                    options.check = true;
                    let screened = plain.share().with_screen_options(options);
                    let screened = screened.prepare().unwrap();
                    assert!(screened.screen().is_some(), "{rule:?}");
                    let (found, again) = encode_decode(&screened, all);
                    assert_eq!(found, expected, "{rule:?}, {kind:?}, {weighted}");
                    assert_eq!(bits(&again), bits(&y));
                    assert_eq!(found.row(7).unwrap().status, sae::RowStatus::NonFinite);
                }
            }
        }
    }
}
