//! The library, driven the way a caller would: shared by the tests that compare it with the
//! reference.

#![allow(dead_code)] // every test program uses a part of it

pub(crate) mod kinds;
pub(crate) mod parts;

use sae::{Features, Level, OpenOptions, Rows, Sae, Scratch};
use std::path::Path;

/// Opens a checkpoint at a level.
pub(crate) fn open(path: &Path, given: &[(String, String)], level: Level) -> Sae<'static> {
    Sae::open(path, &options(given, level)).unwrap_or_else(|error| panic!("{error}"))
}

/// Options with a level and what the file does not say.
pub(crate) fn options(given: &[(String, String)], level: Level) -> OpenOptions {
    let options = OpenOptions::default().level(level);
    given
        .iter()
        .fold(options, |options, (key, value)| options.set(key, value))
}

/// Rows that are contiguous f32 values.
pub(crate) fn rows(values: &[f32], width: usize) -> Rows<'_> {
    Rows::from_f32(values, width).unwrap()
}

/// The features of all rows, and their reconstructions.
pub(crate) fn encode_decode(sae: &Sae<'_>, rows: Rows<'_>) -> (Features, Vec<f32>) {
    let mut scratch = Scratch::new(sae).unwrap();
    let mut features = Features::new();
    sae.encode(rows, &mut scratch, &mut features).unwrap();
    let mut reconstructions = vec![0.0; rows.rows() * sae.d_out()];
    let inputs = sae.needs_inputs_to_decode().then_some(rows);
    sae.decode(&features, inputs, &mut scratch, &mut reconstructions)
        .unwrap();
    (features, reconstructions)
}

/// The bits of floats, to compare them exactly.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
