//! Models made of plain arrays, run in every way that must not make a difference.

use super::{bits, encode_decode, rows};
use sae::bytes::Bytes;
use sae::model::ScreenKind;
use sae::model::{FeatureAxis, Matrix, Parts};
use sae::tensor::Tensor;
use sae::{Dtype, Features, Level, Part, RowStatus, Rows, Sae, Scratch};

/// How a matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Stored {
    Rows,
    Columns,
}

/// A tensor of f32 values in memory.
pub(crate) fn tensor(
    name: &str,
    shape: &[usize],
    values: impl IntoIterator<Item = f64>,
) -> Tensor<'static> {
    let bytes: Vec<u8> = values
        .into_iter()
        .flat_map(|value| (value as f32).to_le_bytes())
        .collect();
    // As a caller has them: these bytes are not a copy of the library's.
    let bytes = Bytes::shared(std::sync::Arc::new(bytes));
    Tensor::new(name, Dtype::F32, shape, bytes).unwrap()
}

/// A matrix with one vector per feature.
pub(crate) fn matrix(name: &str, vectors: &[Vec<f64>], stored: Stored) -> Matrix<'static> {
    let (features, width) = (vectors.len(), vectors[0].len());
    let (axis, shape, values): (_, _, Vec<f64>) = match stored {
        Stored::Rows => (FeatureAxis::First, [features, width], vectors.concat()),
        Stored::Columns => {
            let column = |j: usize| vectors.iter().map(move |vector| vector[j]);
            let values = (0..width).flat_map(column).collect();
            (FeatureAxis::Second, [width, features], values)
        }
    };
    Matrix::new(&tensor(name, &shape, values), axis, features, width).unwrap()
}

/// Encodes and decodes on every level, in both layouts, prepared and not, in one batch and row by
/// row, and reads every feature out: all give the same bits.
pub(crate) fn run(
    make: impl Fn(Stored) -> Parts<'static>,
    inputs: &[f32],
    width: usize,
) -> (Features, Vec<f32>) {
    let mut first: Option<(Features, Vec<f32>)> = None;
    for level in Level::available() {
        for stored in [Stored::Rows, Stored::Columns] {
            for prepare in [false, true] {
                let mut sae = Sae::from_parts(make(stored))
                    .unwrap()
                    .with_level(level)
                    .unwrap();
                if prepare {
                    sae = sae
                        .with_screen_options(ScreenKind::Proven.into())
                        .prepare()
                        .unwrap();
                }
                let found = encode_decode(&sae, rows(inputs, width));
                match &first {
                    None => {
                        assert_rows_alone(&sae, inputs, width, &found);
                        assert_readouts(&sae, inputs, width, &found.0);
                        first = Some(found);
                    }
                    Some(first) => {
                        assert_eq!(found.0, first.0, "{level} {stored:?} {prepare}");
                        assert_eq!(
                            bits(&found.1),
                            bits(&first.1),
                            "{level} {stored:?} {prepare}"
                        );
                        assert_readouts(&sae, inputs, width, &found.0);
                    }
                }
            }
        }
    }
    first.unwrap()
}

/// Every row alone gives what it gives in the batch.
fn assert_rows_alone(sae: &Sae<'_>, inputs: &[f32], width: usize, found: &(Features, Vec<f32>)) {
    assert_parts(sae, rows(inputs, width), &found.0);
    for (row, input) in inputs.chunks_exact(width).enumerate() {
        let (one, y) = encode_decode(sae, rows(input, width));
        assert_eq!(one.row(0), found.0.row(row));
        assert_eq!(bits(&y), bits(&found.1[row * sae.d_out()..][..sae.d_out()]));
    }
}

/// Encoding split over features gives what encoding gives.
fn assert_parts(sae: &Sae<'_>, rows: Rows<'_>, features: &Features) {
    let mut scratch = Scratch::new(sae).unwrap();
    for cut in [0, 1, sae.d_sae() / 2, sae.d_sae()] {
        let (mut low, mut high) = (Part::new(), Part::new());
        sae.encode_part(rows, 0..cut, &mut scratch, &mut low)
            .unwrap();
        sae.encode_part(rows, cut..sae.d_sae(), &mut scratch, &mut high)
            .unwrap();
        let mut found = Features::new();
        sae.encode_finish(&[&low, &high], &mut scratch, &mut found)
            .unwrap();
        assert_eq!(found, *features, "cut at {cut}");
    }
}

/// Reading out gives what encoding gives.
pub(crate) fn assert_readouts(sae: &Sae<'_>, inputs: &[f32], width: usize, features: &Features) {
    let all: Vec<u32> = (0..sae.d_sae() as u32).rev().collect();
    let set = sae.compile_set(&all).unwrap();
    let n = inputs.len() / width;
    let mut scratch = Scratch::new(sae).unwrap();
    let mut values = vec![f32::NAN; n * all.len()];
    let mut status = vec![RowStatus::NonFinite; n];
    let rows = rows(inputs, width);
    sae.readout(&set, rows, &mut scratch, &mut values, &mut status)
        .unwrap();
    let expected = dense(features, sae.d_sae());
    for row in 0..n {
        let mut found = values[row * all.len()..][..all.len()].to_vec();
        found.reverse();
        assert_eq!(bits(&found), bits(&expected[row]), "row {row}");
        assert_eq!(status[row], features.row(row).unwrap().status);
    }
    let mut column = vec![f32::NAN; n];
    for feature in [0, sae.d_sae() as u32 - 1] {
        sae.readout_one(feature, rows, &mut scratch, &mut column, &mut status)
            .unwrap();
        let expected: Vec<f32> = expected.iter().map(|row| row[feature as usize]).collect();
        assert_eq!(bits(&column), bits(&expected));
    }
}

/// Features as dense rows.
pub(crate) fn dense(features: &Features, d_sae: usize) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    for row in features.iter() {
        assert!(row.indices.is_sorted_by(|a, b| a < b));
        let mut values = vec![0.0; d_sae];
        for (&index, &value) in row.indices.iter().zip(row.values) {
            assert!(value != 0.0);
            values[index as usize] = value;
        }
        all.push(values);
    }
    all
}
