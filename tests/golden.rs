//! The library against the goldens: what the publishers' own code computes from the same files.
//!
//! With S_i the dot product of encoder row i and the prepared input x', and
//! `m_i = |scale_i| sum_j |W_ij x'_j| + |bias_i|` the scale of pre-activation i:
//!
//! 1. Values: `|got - golden| <= 1e-5 m_i`, or a relative error of at most 1e-4.
//! 2. On and off: feature i may be on in one and off in the other only if its float64
//!    pre-activation is within `1e-5 m_i` of its gate.
//! 3. Reconstructions: `max |got - golden| <= 1e-4 max(1, max |golden row|)`, on rows without an
//!    allowed flip.
//! 4. A feature that is off is not there, so no stored value is 0.
//!
//! Those are wide enough for the f32 arithmetic of the goldens. Ours is f64, so it must also hold:
//!
//! 5. `|v - golden64| <= 2^-24 |v| + 2^-44 |scale_i| sum_j |W_ij x_j|`, plus
//!    `2^-23 |scale_i| sum_j |W_ij x'_j|` if the input was centred or normalised (x' is rounded to
//!    f32, the float64 golden's is not).
//! 6. `|v - v64| <= 2^-24 |v| + 2^-44 |scale_i| sum_j |W_ij x'_j|`, with v64 the plain f64 formula
//!    over the same rounded x'. A dot product in f32 fails this, which a test shows.
//! 7. Reconstructions against the plain f64 formula over the same features:
//!    `2^-24 |y| + 2^-44 (the sum of the magnitudes of all terms)`.
#![cfg(feature = "std")]

mod library;
mod reference;

use reference::fixture::{self, Case};
use reference::model::{Activation, Model, absolute_dot, dot};
use reference::{d1, digest};
use sae::model::ScreenKind;
use sae::{FeaturesRow, Level};

const TWO_24: f64 = 1.0 / (1u64 << 24) as f64;
const TWO_23: f64 = 1.0 / (1u64 << 23) as f64;
const TWO_44: f64 = 1.0 / (1u64 << 44) as f64;

#[test]
fn every_case_matches_its_golden() {
    let mut compared = 0;
    for case in fixture::cases() {
        let sae = library::open(&case.checkpoint, &case.given, Level::best());
        assert_eq!(
            (sae.d_in(), sae.d_sae(), sae.d_out()),
            (case.d_in, case.d_sae, case.d_out),
            "{}",
            case.name
        );
        let rows = library::rows(&case.rows, case.d_in);
        let (features, reconstructions) = library::encode_decode(&sae, rows);
        assert_eq!(features.rows(), case.n);
        assert_eq!(features.failed_rows(), 0);
        let check = Check::new(&case);
        for (row, found) in features.iter().enumerate() {
            let y = &reconstructions[row * case.d_out..][..case.d_out];
            check.row(row, found, y);
            compared += found.indices.len();
        }
    }
    assert!(compared > 20_000, "{compared} values");
}

/// A case with all that a row is compared with.
struct Check<'c> {
    case: &'c Case,
    model: Model,
    features: Vec<Vec<f64>>,
    reconstructions: Vec<Vec<f64>>,
    features64: Option<Vec<Vec<f64>>>,
}

impl<'c> Check<'c> {
    fn new(case: &'c Case) -> Self {
        Check {
            case,
            model: case.model(),
            features: case.golden("features").expect("features"),
            reconstructions: case.golden("recon").expect("recon"),
            features64: case.golden("features64"),
        }
    }

    fn row(&self, row: usize, found: FeaturesRow<'_>, y: &[f32]) {
        let (case, model) = (self.case, &self.model);
        let place = |i: usize| format!("{}: row {row}, feature {i}", case.name);
        assert!(found.indices.is_sorted_by(|a, b| a < b));
        let mut values = vec![0.0f32; case.d_sae];
        for (&index, &value) in std::iter::zip(found.indices, found.values) {
            assert!(value != 0.0, "{}: a stored zero", place(index as usize));
            values[index as usize] = value;
        }

        let raw = case.row64(row);
        let exact_input = model.input(&raw);
        let exact_pre = model.pre(&exact_input);
        let rounded: Vec<f64> = d1::input(model, case.row(row))
            .0
            .iter()
            .map(|&x| x.into())
            .collect();
        let mut flips = 0;
        for i in 0..case.d_sae {
            let (got, golden) = (f64::from(values[i]), self.features[row][i]);
            let weights = model.encoder_row(i);
            let scale = model.scale_of(i).abs();
            let prepared = scale * absolute_dot(weights, &rounded);
            let m = prepared + model.bias[i].abs();
            // Rules 1 and 2.
            if (got != 0.0) != (golden != 0.0) {
                let distance = model.distance_to_gate(&exact_pre, &exact_input, i);
                assert!(distance <= 1e-5 * m, "{}: {got}, not {golden}", place(i));
                flips += 1;
                continue;
            }
            let error = (got - golden).abs();
            assert!(
                error <= 1e-5 * m || error <= 1e-4 * golden.abs(),
                "{}: {got}, not {golden}",
                place(i)
            );
            if got == 0.0 {
                continue;
            }
            // Rule 5.
            if let Some(features64) = &self.features64 {
                let golden = features64[row][i];
                let mut bound = TWO_24 * got.abs() + TWO_44 * scale * absolute_dot(weights, &raw);
                if model.changes_input() {
                    bound += TWO_23 * prepared;
                }
                let error = (got - golden).abs();
                assert!(error <= bound, "{}: {got}, not {golden}", place(i));
            }
            // Rule 6.
            let formula = value64(model, i, dot(weights, &rounded));
            let error = (got - formula).abs();
            let bound = TWO_24 * got.abs() + TWO_44 * prepared;
            assert!(error <= bound, "{}: {got}, not {formula}", place(i));
        }

        // Rules 3 and 7.
        let golden = &self.reconstructions[row];
        let largest = golden.iter().fold(1.0f64, |most, y| most.max(y.abs()));
        let ours: Vec<(u32, f64)> = std::iter::zip(found.indices, found.values)
            .map(|(&index, &value)| (index, value.into()))
            .collect();
        let (formula, magnitude) = model.decode(&ours, &raw);
        for c in 0..case.d_out {
            let got = f64::from(y[c]);
            let place = format!("{}: row {row}, column {c}", case.name);
            let close = (got - golden[c]).abs() <= 1e-4 * largest;
            assert!(close || flips > 0, "{place}: {got}, not {}", golden[c]);
            let bound = TWO_24 * got.abs() + TWO_44 * magnitude[c];
            let error = (got - formula[c]).abs();
            assert!(error <= bound, "{place}: {got}, not {}", formula[c]);
        }
    }
}

/// The value of a feature that is on, in f64, from its dot product.
fn value64(model: &Model, i: usize, product: f64) -> f64 {
    let pre = model.scale_of(i) * product + model.bias[i];
    match model.activation {
        Activation::TanhRelu => pre.tanh(),
        _ => pre,
    }
}

/// Rule 6 tells f64 from f32 accumulation: the same dot products summed in f32, one after the
/// other or in 16 lanes, break it in every case.
#[test]
fn accumulating_in_f32_fails_the_bound() {
    for case in fixture::cases() {
        let model = case.model();
        let mut broken = [0, 0];
        let mut compared = 0;
        for row in 0..case.n {
            let (input, _) = d1::input(&model, case.row(row));
            let wide: Vec<f64> = input.iter().map(|&x| x.into()).collect();
            for &(i, value) in d1::encode(&model, case.row(row)).features() {
                let i = i as usize;
                let weights = model.encoder_row(i);
                let formula = value64(&model, i, dot(weights, &wide));
                let prepared = model.scale_of(i).abs() * absolute_dot(weights, &wide);
                let bound = TWO_24 * f64::from(value).abs() + TWO_44 * prepared;
                let weights: Vec<f32> = weights.iter().map(|&w| w as f32).collect();
                let mut lanes = [0.0f32; 16];
                let mut running = 0.0f32;
                for (j, (w, x)) in std::iter::zip(&weights, &input).enumerate() {
                    running += w * x;
                    lanes[j % 16] += w * x;
                }
                for (kind, sum) in [running, lanes.iter().sum()].into_iter().enumerate() {
                    let got = f64::from(value64(&model, i, sum.into()) as f32);
                    broken[kind] += usize::from((got - formula).abs() > bound);
                }
                compared += 1;
            }
        }
        // Measured: 39 to 94 of 100 values, by case and order of the sum.
        for broken in broken {
            assert!(
                broken * 3 > compared,
                "{}: {broken} of {compared}",
                case.name
            );
        }
    }
}

/// Every level, and rows-per-feature copies instead of the file's columns, give the same bits.
#[test]
fn levels_and_layouts_give_the_same_bits() {
    for case in fixture::cases() {
        let rows = library::rows(&case.rows, case.d_in);
        let run = |level: Level, prepare: Option<ScreenKind>| {
            let mut sae = library::open(&case.checkpoint, &case.given, level);
            assert_eq!(sae.level(), level);
            if let Some(kind) = prepare {
                let columns = sae.description().encoder.layout == "columns";
                assert_eq!(sae.prepare_cost().needed, columns, "{}", case.name);
                sae = sae.with_screen_options(kind.into()).prepare().unwrap();
                assert!(!sae.prepare_cost().needed);
                assert_eq!(sae.description().encoder.layout, "rows");
            }
            let (features, reconstructions) = library::encode_decode(&sae, rows);
            let each = features.iter();
            let each = each.map(|row| (row.indices.to_vec(), row.values.to_vec()));
            digest::bytes(each, reconstructions.iter())
        };
        let expected = run(Level::Scalar, None);
        for level in Level::available() {
            let kinds = [ScreenKind::Auto, ScreenKind::Proven, ScreenKind::Dithered];
            for prepare in [None].into_iter().chain(kinds.map(Some)) {
                if (level, prepare) == (Level::Scalar, None) {
                    continue;
                }
                let found = run(level, prepare);
                assert!(found == expected, "{}: {level} {prepare:?}", case.name);
            }
        }
    }
}
