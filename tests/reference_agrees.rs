//! The reference against the goldens of the publishers' own code, and its two forms against each
//! other and against the NumPy program: what the other tests compare the library with is itself
//! right.
#![cfg(feature = "std")]

mod reference;

use reference::{d1, digest, fixture, model};

/// In f64 nothing but the order of sums differs: 2^-44 of the sum's scale is plenty.
const ROUNDING: f64 = 1.0 / (1u64 << 44) as f64;

#[test]
fn formulas_give_the_float64_goldens() {
    let mut compared = 0;
    for case in fixture::cases() {
        let Some(features) = case.golden("features64") else {
            continue;
        };
        let reconstructions = case.golden("recon64").unwrap();
        let model = case.model();
        for row in 0..case.n {
            let x = case.row64(row);
            let input = model.input(&x);
            let ours = model.encode(&x);
            for i in 0..case.d_sae {
                let scale = model::absolute_dot(model.encoder_row(i), &input)
                    * model.scale_of(i).abs()
                    + model.bias[i].abs();
                let error = (ours[i] - features[row][i]).abs();
                assert!(
                    error <= ROUNDING * scale,
                    "{}: row {row} feature {i}",
                    case.name
                );
                compared += 1;
            }
            let sparse: Vec<(u32, f64)> = (0..).zip(ours).filter(|f| f.1 != 0.0).collect();
            let (y, scale) = model.decode(&sparse, &x);
            for c in 0..case.d_out {
                let error = (y[c] - reconstructions[row][c]).abs();
                // The features differ by their own rounding, which the decoder amplifies.
                let bound = 64.0 * ROUNDING * scale[c].max(1.0);
                assert!(
                    error <= bound,
                    "{}: row {row} column {c}: {error}",
                    case.name
                );
            }
        }
    }
    assert!(compared > 300_000, "{compared} values");
}

#[test]
fn d1_gives_the_digests_of_the_numpy_program() {
    let mut lines = digest::Lines::default();
    for case in fixture::cases() {
        for (name, given) in digest::runs(&case) {
            let model = case.model_with(&given);
            let encoded: Vec<_> = (0..case.n)
                .map(|row| d1::encode(&model, case.row(row)))
                .collect();
            let reconstructions: Vec<f32> = (0..case.n)
                .flat_map(|row| d1::decode(&model, &encoded[row], case.row(row)))
                .collect();
            let rows = encoded.iter();
            let rows = rows.map(|row| row.features().iter().copied().unzip());
            lines.add(&name, &digest::bytes(rows, reconstructions.iter()));
        }
    }
    let expected = fixture::digests();
    let [libm, expected @ ..] = &expected[..] else {
        panic!("digests.txt is empty");
    };
    assert_eq!(libm.0, "libm"); // that line is checked below
    assert_eq!(expected, lines.finish());
}

/// exp and tanh, 100,000 values each, from the crate `libm` and from the NumPy program's own.
#[test]
fn libm_gives_the_digest_of_the_numpy_program() {
    let mut state = 1u64;
    let mut bytes = vec![];
    for _ in 0..100_000 {
        for function in [libm::exp, libm::tanh] {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let unit = (state >> 11) as f64 / (1u64 << 53) as f64;
            bytes.extend(function(unit * 60.0 - 30.0).to_le_bytes());
        }
    }
    let expected = &fixture::digests()[0];
    assert_eq!(*expected, ("libm".to_string(), digest::sha256(&bytes)));
}
