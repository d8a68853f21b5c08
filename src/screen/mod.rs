//! Screens: a low-precision copy of the encoder, with bounds, that names the few rows a token can
//! fire. (Design decision D2; the theorems are here.)
//!
//! A screen never decides a value. It returns a superset of the features that can fire (or, for
//! TopK, an upper bound for each), the caller computes those exactly, and the result has the bits
//! of the dense scan.

mod build;
mod numbers;
mod query;
mod transform;

pub use query::Bounds;

use crate::error::Error;
use crate::kernels::screen::{CodeFormat, ScreenKernels};
use alloc::vec::Vec;
use build::Balance;
use transform::Transform;

/// The rows of an encoder, one per feature.
pub trait EncoderRows {
    /// How many rows.
    fn features(&self) -> usize;
    /// Weights per row.
    fn width(&self) -> usize;
    /// Writes row `feature`, widened; `out` has [`EncoderRows::width`] values.
    fn row(&self, feature: usize, out: &mut [f64]);
}

/// On what a bound rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Certificate {
    /// A worst-case bound, for every finite input.
    Proven,
    /// A bound that fails with probability at most 2^-64 for each decision, for inputs chosen
    /// without knowledge of the dither.
    Dithered,
}

/// What is asked of the features: `p_i = scale_i * S_i + bias_i` rounded to f32 is compared with
/// a threshold, or ranked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules<'r> {
    /// One if `None`.
    pub scale: Option<&'r [f64]>,
    /// Zero if `None`.
    pub bias: Option<&'r [f64]>,
    /// A feature is dropped when its upper bound is below this; `None` keeps all, for TopK.
    pub threshold: Option<&'r [f32]>,
}

/// How a screen is built.
#[derive(Clone, Copy, Debug)]
pub struct Options<'o> {
    /// On what bounds rest.
    pub certificate: Certificate,
    /// Bits of a code.
    pub format: CodeFormat,
    /// Whether rows are quantised in the basis of the encoder's Gram matrix.
    pub whiten: bool,
    /// Subtracted from inputs before they meet the quantised rows.
    pub centre: Option<&'o [f64]>,
}

/// Packed bytes at an address that is a multiple of 64 (a cache line).
#[derive(Debug)]
struct Weights {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Weights {
    fn zeros(len: usize) -> Result<Self, Error> {
        let memory: Vec<u8> = numbers::zeros(len + 63, "screen")?;
        let start = memory.as_ptr().align_offset(64).min(63);
        Ok(Weights { memory, start, len })
    }

    fn bytes(&self) -> &[u8] {
        self.memory
            .get(self.start..self.start + self.len)
            .unwrap_or(&[])
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory
            .get_mut(self.start..self.start + self.len)
            .unwrap_or(&mut [])
    }
}

/// A quantised encoder with bounds.
#[derive(Debug)]
pub struct Screen {
    certificate: Certificate,
    format: CodeFormat,
    features: usize,
    d_in: usize,
    blocks: usize,
    /// Empty if nothing is subtracted.
    centre: Vec<f64>,
    /// A power of two for each input: rows are multiplied, inputs divided.
    columns: Vec<f64>,
    transform: Option<Transform>,
    /// What codes are shifted by, for each column.
    codes_shift: Vec<f64>,
    balance: Balance,
    panels: Weights,
}

impl Screen {
    /// Quantises rows.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::Length`] if a vector does not fit the rows.
    pub fn build(
        rows: &dyn EncoderRows,
        rules: &Rules<'_>,
        options: &Options<'_>,
        kernels: &ScreenKernels,
    ) -> Result<Screen, Error> {
        let length = |what: &'static str, found: Option<usize>, expected: usize| match found {
            Some(found) if found != expected => Err(Error::Length {
                what,
                expected: expected as u64,
                found: found as u64,
            }),
            _ => Ok(()),
        };
        let features = rows.features();
        length("scales", rules.scale.map(<[f64]>::len), features)?;
        length("biases", rules.bias.map(<[f64]>::len), features)?;
        length("thresholds", rules.threshold.map(<[f32]>::len), features)?;
        length(
            "values of the centre",
            options.centre.map(<[f64]>::len),
            rows.width(),
        )?;
        build::build(rows, rules, options, kernels)
    }

    /// On what the bounds rest.
    pub fn certificate(&self) -> Certificate {
        self.certificate
    }

    /// Bytes held.
    pub fn bytes_held(&self) -> usize {
        let vectors = self.centre.len() + self.columns.len() + self.codes_shift.len();
        self.panels.len + vectors * 8 + self.transform.as_ref().map_or(0, Transform::bytes)
    }

    /// Bytes read for each input, before any row is computed exactly.
    pub fn bytes_read(&self) -> usize {
        self.bytes_held()
    }

    /// Number of features.
    pub fn features(&self) -> usize {
        self.features
    }
}
