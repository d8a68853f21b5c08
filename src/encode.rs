//! Encoding: rows become features.
//!
//! For each row: widen to f64, normalise and centre there, round once to f32 (`x'`); form the
//! exact products `S = W_enc x'` block by block in whatever orientation the file stores; select
//! from each block at once, so nothing dense of size d_sae is ever written.

use crate::Dtype;
use crate::error::Error;
use crate::features::{Features, RowStatus};
use crate::kernels::{Kernels, WeightType};
use crate::model::{Activation, InputNorm, Layout, Matrix, Parts, Pursuit, Sae};
use crate::rows::Rows;
use crate::scratch::{ROW_BLOCK, Scratch, Work};
use crate::select::{Selector, Sink};
use alloc::vec::Vec;
use core::ops::Range;

/// What normalisation found out about a row; decoding undoes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowNorm {
    /// Subtracted from the row.
    pub(crate) mean: f64,
    /// The standard deviation (LayerNorm), or the factor (ConstantNorm).
    pub(crate) scale: f64,
}

impl Sae<'_> {
    /// Encodes every row; the content of `features` is replaced.
    ///
    /// Values are the publisher's (see [`Description`](crate::Description)); a row with a
    /// non-finite value, before or after centring and normalisation, has no features and says so
    /// in its status, and the other rows proceed. The result has the same bits on every CPU, for
    /// every split of the rows, in every batch.
    ///
    /// # Errors
    /// [`Error::Length`] if the rows are not d_in wide or the scratch was made for a smaller
    /// model, [`Error::OutOfMemory`] if `features` cannot grow. `features` is empty then.
    pub fn encode(
        &self,
        rows: Rows<'_>,
        scratch: &mut Scratch<'_>,
        features: &mut Features,
    ) -> Result<(), Error> {
        self.encode_where(rows, &|_| true, scratch, features)
    }

    /// As [`Sae::encode`], but only the rows whose number `wanted` says yes to: the others have no
    /// features and the status [`RowStatus::Skipped`].
    ///
    /// # Errors
    /// As [`Sae::encode`].
    pub fn encode_where(
        &self,
        rows: Rows<'_>,
        wanted: &dyn Fn(usize) -> bool,
        scratch: &mut Scratch<'_>,
        features: &mut Features,
    ) -> Result<(), Error> {
        features.clear();
        check_width(rows, self.d_in())?;
        self.encode_all(SomeRows { rows, wanted }, scratch, features)
    }

    /// Encodes rows whose width was checked; `features` is empty, and so it is after an error.
    pub(crate) fn encode_all(
        &self,
        rows: impl RowSource,
        scratch: &mut Scratch<'_>,
        features: &mut Features,
    ) -> Result<(), Error> {
        let result = self.encode_each(rows, scratch, features);
        if result.is_err() {
            features.clear();
        }
        result
    }

    fn encode_each(
        &self,
        rows: impl RowSource,
        scratch: &mut Scratch<'_>,
        features: &mut Features,
    ) -> Result<(), Error> {
        if let Activation::Ensemble(kind) = self.parts.activation {
            for row in 0..rows.count() {
                let status = match rows.wanted(row) {
                    true => self.encode_members(kind, rows, row, scratch, features)?,
                    false => RowStatus::Skipped,
                };
                features.end_row(status)?;
            }
            return Ok(());
        }
        let done = self.encode_blocks(rows, &(0..self.d_sae()), scratch, features)?;
        let mut work = scratch.split(self)?;
        for row in done..rows.count() {
            let status = if !rows.wanted(row) {
                RowStatus::Skipped
            } else {
                match self.prepare_row(rows, row, &mut work) {
                    None => RowStatus::NonFinite,
                    Some(_) => self.encode_row(&mut work, features)?,
                }
            };
            features.end_row(status)?;
        }
        Ok(())
    }

    /// Encodes the prepared row in `work.input`, by reading every row of the encoder.
    pub(crate) fn encode_row(
        &self,
        work: &mut Work<'_>,
        features: &mut Features,
    ) -> Result<RowStatus, Error> {
        if let Activation::Pursuit(pursuit) = &self.parts.activation {
            let before = features.len();
            let (status, chosen) = self.pursue(pursuit, work);
            for (feature, value) in chosen.iter() {
                features.push(feature, value)?;
            }
            if self.screen_options().check && self.screen.is_some() {
                self.compare_pursuits(pursuit, work, features, before)?;
            }
            return Ok(status);
        }
        let before = features.len();
        let selector = self.select_all(work, features)?;
        let status = selector.status();
        selector.finish(features)?;
        if self.screen_options().check && self.screen.is_some() {
            self.compare_with_dense(work, features, before)?;
        }
        Ok(status)
    }

    /// Encodes the prepared row once more, without the screen, and compares bits with the features
    /// from `before` on.
    fn compare_with_dense(
        &self,
        work: &mut Work<'_>,
        features: &Features,
        before: usize,
    ) -> Result<(), Error> {
        let mut dense = Features::new();
        let screen = work.screen.take();
        let selector = self.select_all(work, &mut dense);
        let finished = selector.and_then(|selector| selector.finish(&mut dense));
        work.screen = screen;
        finished?;
        same(features, before, &dense)
    }

    /// The same for a pursuit, which has left its last residual in `work.input`.
    fn compare_pursuits(
        &self,
        pursuit: &Pursuit,
        work: &mut Work<'_>,
        features: &Features,
        before: usize,
    ) -> Result<(), Error> {
        for (to, from) in work.input.iter_mut().zip(work.raw.iter()) {
            *to = *from as f32;
        }
        let mut dense = Features::new();
        let screen = work.screen.take();
        let (_, chosen) = self.pursue(pursuit, work);
        for (feature, value) in chosen.iter() {
            dense.push(feature, value)?;
        }
        work.screen = screen;
        same(features, before, &dense)
    }

    /// Forms every product of the prepared row and selects from them. Threshold rules write to
    /// `features` at once; TopK keeps its candidates in the selector.
    pub(crate) fn select_all<'w>(
        &'w self,
        work: &'w mut Work<'_>,
        features: &mut Features,
    ) -> Result<Selector<'w>, Error> {
        self.select_all_by(&self.parts, work, features)
    }

    /// [`Sae::select_all`] for the features of a range.
    pub(crate) fn select_within<'w, S: Sink>(
        &'w self,
        range: Range<usize>,
        work: &'w mut Work<'_>,
        features: &mut S,
    ) -> Result<Selector<'w>, Error> {
        self.select_within_by(&self.parts, range, work, features)
    }

    /// [`Sae::select_all`] with the biases, scales and selection rule of other parts, whose
    /// matrices are not looked at.
    pub(crate) fn select_all_by<'w>(
        &'w self,
        rule: &'w Parts<'w>,
        work: &'w mut Work<'_>,
        features: &mut Features,
    ) -> Result<Selector<'w>, Error> {
        self.select_within_by(rule, 0..self.d_sae(), work, features)
    }

    fn select_within_by<'w, S: Sink>(
        &'w self,
        rule: &'w Parts<'w>,
        range: Range<usize>,
        work: &'w mut Work<'_>,
        features: &mut S,
    ) -> Result<Selector<'w>, Error> {
        let Work {
            raw,
            input,
            sums,
            gates,
            lanes,
            candidates,
            screen,
            ..
        } = work;
        let norm = || self.input_norm(raw);
        let mut selector = Selector::new(rule, candidates, norm);
        // A screen is of the model's own rule.
        let own = core::ptr::eq::<Parts<'_>>(rule, &self.parts);
        if let (true, Some(screen), Some(work)) = (own, &self.screen, screen) {
            let input = (&**input, work);
            self.select_screened(screen, range, input, &mut selector, features)?;
            return Ok(selector);
        }
        self.for_products(range, input, sums, gates, lanes, |first, sums, gates| {
            selector.block(first, sums, gates, features)
        })?;
        Ok(selector)
    }

    /// Forms the products of a prepared row with the features of a range, block by block:
    /// `take(first, products, gates)`, where `gates` is empty unless the model has a gate.
    pub(crate) fn for_products(
        &self,
        range: Range<usize>,
        input: &[f32],
        sums: &mut [f64],
        gates: &mut [f64],
        lanes: &mut [f64],
        mut take: impl FnMut(usize, &[f64], &[f64]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let encoder = &self.parts.encoder;
        let gate = self.parts.glu.as_ref().map(|glu| &glu.matrix);
        let block = features_at_once(encoder).min(gate.map_or(usize::MAX, features_at_once));
        for first in range.clone().step_by(block) {
            let count = block.min(range.end - first);
            let Some(sums) = sums.get_mut(..count) else {
                break;
            };
            products(self.kernels, encoder, first, input, lanes, sums);
            match gate {
                None => take(first, sums, &[])?,
                Some(gate) => {
                    let Some(gates) = gates.get_mut(..count) else {
                        break;
                    };
                    products(self.kernels, gate, first, input, lanes, gates);
                    take(first, sums, gates)?;
                }
            }
        }
        Ok(())
    }

    /// Writes `x'` of row `row` into `work.input`, or returns `None` if the row is not finite, or
    /// becomes so when it is centred and normalised.
    pub(crate) fn prepare_row(
        &self,
        rows: impl RowSource,
        row: usize,
        work: &mut Work<'_>,
    ) -> Option<RowNorm> {
        let kernels = self.kernels;
        let Work { raw, input, .. } = work;
        let norm = rows.load(kernels, row, raw).then(|| self.row_norm(raw))?;
        match self.parts.input_norm {
            InputNorm::None => {}
            InputNorm::LayerNorm => {
                let divisor = norm.scale + 1e-5;
                for value in raw.iter_mut() {
                    *value = (*value - norm.mean) / divisor;
                }
            }
            InputNorm::ConstantNorm => {
                for value in raw.iter_mut() {
                    *value *= norm.scale;
                }
            }
        }
        if let Some(center) = &self.parts.center {
            for (value, center) in raw.iter_mut().zip(center) {
                *value -= center;
            }
        }
        if self.parts.input_norm == InputNorm::None && self.parts.center.is_none() {
            // Values of rows are f32 or narrower, and were found finite: nothing is rounded.
            for (input, value) in input.iter_mut().zip(raw.iter()) {
                *input = *value as f32;
            }
            return Some(norm);
        }
        let mut finite = true;
        for (input, value) in input.iter_mut().zip(raw.iter_mut()) {
            *input = *value as f32;
            *value = f64::from(*input);
            finite &= input.is_finite();
        }
        finite.then_some(norm)
    }

    /// The norm of a prepared row.
    pub(crate) fn input_norm(&self, raw: &[f64]) -> f64 {
        libm::sqrt(self.kernels.sum_squares_about(raw, 0.0))
    }

    /// What the normalisation of this raw row subtracts and multiplies by.
    pub(crate) fn row_norm(&self, raw: &[f64]) -> RowNorm {
        let d = raw.len() as f64;
        match self.parts.input_norm {
            InputNorm::None => RowNorm {
                mean: 0.0,
                scale: 1.0,
            },
            InputNorm::LayerNorm => {
                let mean = self.kernels.sum(raw) / d;
                let variance = self.kernels.sum_squares_about(raw, mean) / (d - 1.0);
                RowNorm {
                    mean,
                    scale: libm::sqrt(variance),
                }
            }
            InputNorm::ConstantNorm => {
                let norm = libm::sqrt(self.kernels.sum_squares_about(raw, 0.0));
                RowNorm {
                    mean: 0.0,
                    scale: libm::sqrt(d) / norm,
                }
            }
        }
    }
}

/// Where rows come from: one buffer, or one for each site.
pub(crate) trait RowSource: Copy {
    /// Number of rows.
    fn count(self) -> usize;

    /// Widens row `row` into `raw` and says whether every value is finite.
    fn load(self, kernels: &Kernels, row: usize, raw: &mut [f64]) -> bool;

    /// Whether row `row` is to be encoded.
    fn wanted(self, _row: usize) -> bool {
        true
    }
}

/// Rows of which some are left out.
#[derive(Clone, Copy)]
pub(crate) struct SomeRows<'r, 'w> {
    pub(crate) rows: Rows<'r>,
    pub(crate) wanted: &'w dyn Fn(usize) -> bool,
}

impl RowSource for SomeRows<'_, '_> {
    fn count(self) -> usize {
        self.rows.rows()
    }

    fn load(self, kernels: &Kernels, row: usize, raw: &mut [f64]) -> bool {
        load_row(kernels, self.rows, row, raw)
    }

    fn wanted(self, row: usize) -> bool {
        (self.wanted)(row)
    }
}

impl RowSource for Rows<'_> {
    fn count(self) -> usize {
        self.rows()
    }

    fn load(self, kernels: &Kernels, row: usize, raw: &mut [f64]) -> bool {
        load_row(kernels, self, row, raw)
    }
}

/// Widens row `row` into `raw` and says whether every value is finite.
pub(crate) fn load_row(kernels: &Kernels, rows: Rows<'_>, row: usize, raw: &mut [f64]) -> bool {
    let bytes = rows.row_bytes(row);
    kernels.widen(row_type(rows.dtype()), bytes, raw);
    // without an early exit, which would keep this from being done several at a time
    raw.iter().fold(true, |all, value| all & value.is_finite())
}

/// The weight type that rows of this dtype are read with ([`Rows`] admits no others).
fn row_type(dtype: Dtype) -> WeightType {
    match dtype {
        Dtype::F16 => WeightType::F16,
        Dtype::BF16 => WeightType::BF16,
        _ => WeightType::F32,
    }
}

/// Whether the features from `before` on are those of the dense scan, bit for bit.
fn same(features: &Features, before: usize, dense: &Features) -> Result<(), Error> {
    let indices = features.indices().get(before..).unwrap_or(&[]);
    let values = features.values().get(before..).unwrap_or(&[]);
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    if indices == dense.indices() && bits(values) == bits(dense.values()) {
        return Ok(());
    }
    Err(Error::ScreenMismatch {
        screened: indices.len() as u64,
        dense: dense.len() as u64,
    })
}

/// How many features are best asked of [`products`] at once.
pub(crate) fn features_at_once(matrix: &Matrix<'_>) -> usize {
    match matrix.column_bytes() {
        0 => ROW_BLOCK,
        _ => Kernels::COLUMN_TILE,
    }
}

/// `sums[i] = S_(first + i)`, whatever the layout. `lanes` is used for columns only. A feature of
/// a block meets the part of the input that its block covers, and no other.
pub(crate) fn products(
    kernels: &Kernels,
    matrix: &Matrix<'_>,
    first: usize,
    input: &[f32],
    lanes: &mut [f64],
    sums: &mut [f64],
) {
    let (ty, bytes, stride) = (
        matrix.weight_type(),
        matrix.bytes_from(first),
        matrix.stride_bytes(),
    );
    match matrix.layout() {
        Layout::Rows => kernels.dot_rows(ty, bytes, stride, input, sums),
        Layout::Columns => kernels.dot_columns(ty, bytes, stride, input, lanes, sums),
        Layout::Blocks => {
            for block in matrix.blocks() {
                let features = block.features();
                let start = features.start.max(first);
                let end = features.end.min(first + sums.len());
                let sums = sums.get_mut(start.saturating_sub(first)..end.saturating_sub(first));
                if let (true, Some(sums), Some(input)) =
                    (start < end, sums, input.get(block.columns()))
                {
                    let start = start - block.first_feature;
                    products(kernels, &block.matrix, start, input, lanes, sums);
                }
            }
        }
    }
}

/// Whether rows have the width that the model reads.
pub(crate) fn check_width(rows: Rows<'_>, width: usize) -> Result<(), Error> {
    if rows.width() == width {
        return Ok(());
    }
    Err(Error::Length {
        what: "values per row",
        expected: width as u64,
        found: rows.width() as u64,
    })
}
