//! Every fixture of every publisher outside SAELens and Gemma Scope 1 (those are in
//! `tests/golden.rs`), opened through the public API with what its `case.json` gives and compared
//! with what the publisher's own code computed, by the rules of the fixtures:
//!
//! 1. Values: `|got - golden| <= 1e-5 m_i`, or a relative error of at most 1e-4, with m_i the scale
//!    of the sum that forms pre-activation i.
//! 2. On and off agree (no committed case has a near-tie).
//! 3. Reconstructions: `max |got - golden| <= 1e-4 max(1, max |golden row|)`.
#![cfg(all(feature = "std", feature = "torch"))]

mod library;
mod publishers;

use publishers::case::{self, Case};
use publishers::readings;
use sae::{Level, Sae};

/// Cases whose maths the library does not have yet: each is refused by name.
const REFUSED: &[(&str, &str)] = &[
    (
        "circuit_tracer_clt",
        "all layers of a cross-layer transcoder",
    ),
    (
        "circuit_tracer_clt_jump",
        "all layers of a cross-layer transcoder",
    ),
    ("itda", "matching pursuit"),
    ("overcomplete_mp", "overcomplete MpSAE"),
    ("temporal", "temporal"),
];

fn results(case: &Case, sae: &Sae<'_>) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let rows = library::rows(&case.rows, case.d_in);
    let (features, reconstructions) = library::encode_decode(sae, rows);
    let dense = features.iter().map(|row| {
        let mut dense = vec![0.0; sae.d_sae()];
        for (&index, &value) in row.indices.iter().zip(row.values) {
            assert!(value != 0.0, "{}: a stored zero", case.name);
            dense[index as usize] = value.into();
        }
        dense
    });
    let wide = |row: &[f32]| row.iter().map(|&y| f64::from(y)).collect();
    let reconstructions = reconstructions.chunks_exact(sae.d_out()).map(wide);
    (dense.collect(), reconstructions.collect())
}

/// What differs from a golden, in any row.
fn compare(case: &Case, sae: &Sae<'_>, features: &str, reconstructions: &str) -> Vec<String> {
    let reading = readings::of(case).expect("a reading");
    let (found, y) = results(case, sae);
    let golden = case.golden(features).expect("features");
    let golden_y = case.golden(reconstructions).expect("recon");
    let mut all = Vec::new();
    for row in 0..case.n {
        let x = case.row(row);
        let (found, y) = (&found[row], &y[row]);
        let of_row = case::differences(&reading, &x, found, y, &golden[row], &golden_y[row]);
        all.extend(
            of_row
                .iter()
                .map(|what| format!("{}: row {row}, {what}", case.name)),
        );
    }
    all
}

/// Opens a case and compares it; what is wrong, in words.
fn check(case: &Case) -> Vec<String> {
    let options = library::options(&case.given, Level::best());
    let opened = Sae::open(&case.checkpoint, &options);
    if let Some((_, words)) = REFUSED.iter().find(|(name, _)| *name == case.name) {
        let error = opened.err().map(|error| error.to_string());
        let error = error.unwrap_or_else(|| "it opened".into());
        let by_name = error.contains("unsupported architecture") && error.contains(words);
        return if by_name { vec![] } else { vec![error] };
    }
    match opened {
        Err(error) => vec![error.to_string()],
        Ok(sae) => {
            let shape = (sae.d_in(), sae.d_sae(), sae.d_out());
            assert_eq!(shape, (case.d_in, case.d_sae, case.d_out), "{}", case.name);
            compare(case, &sae, "features", "recon")
        }
    }
}

#[test]
fn every_fixture_matches_its_golden_or_is_refused_by_name() {
    let cases = case::cases();
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let wrong = check(case);
            let first = wrong.first()?;
            Some(format!(
                "{}: {first} (and {} more)",
                case.name,
                wrong.len() - 1
            ))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(cases.len() - REFUSED.len(), 56);
}
