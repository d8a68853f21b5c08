//! Decoding: features become reconstructed rows.
//!
//! ```text
//! a_i = f_i * decoder_scale_i                       f64
//! sum_c = 0 + a_i1 * d_i1c + a_i2 * d_i2c + ..      f64, ascending feature, never fused
//! y_c = sum_c + b_dec_c ; undo the normalisation ; + (W_skip x)_c ; rounded once to f32
//! ```

use crate::encode::{RowNorm, RowSource, check_width, features_at_once, products};
use crate::error::Error;
use crate::features::{Features, FeaturesRow, RowStatus};
use crate::kernels::Kernels;
use crate::model::{InputNorm, Layout, Matrix, Sae, pieces};
use crate::rows::Rows;
use crate::scratch::{ROW_BLOCK, Scratch, Work};
use crate::written::Listed;

impl Sae<'_> {
    /// Reconstructs every row of `features` into `out`, `[rows, d_out]`, contiguous.
    ///
    /// `inputs` are the rows that were encoded; they are needed when
    /// [`Sae::needs_inputs_to_decode`] says so, else ignored. A row whose status is
    /// [`RowStatus::NonFinite`] or [`RowStatus::Skipped`] becomes NaN throughout. Prefer a decoder in rows
    /// ([`Sae::prepare`]): from columns, every value costs a cache line.
    ///
    /// # Errors
    /// [`Error::Length`] if `out`, `inputs` or the scratch have the wrong size,
    /// [`Error::InvalidArgument`] if inputs are needed and missing,
    /// [`Error::FeatureOutOfRange`] if the features are those of a wider model. `out` is left as
    /// it was then.
    pub fn decode(
        &self,
        features: &Features,
        inputs: Option<Rows<'_>>,
        scratch: &mut Scratch<'_>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        self.check_decoded(features, out)?;
        let inputs = self.decode_inputs(features, inputs)?;
        self.decode_all(features, inputs, scratch, out)
    }

    /// Whether the features fit the model, and `out` fits them.
    pub(crate) fn check_decoded(&self, features: &Features, out: &[f32]) -> Result<(), Error> {
        let expected = features.rows().saturating_mul(self.d_out());
        if out.len() != expected {
            return Err(Error::Length {
                what: "reconstructed values",
                expected: expected as u64,
                found: out.len() as u64,
            });
        }
        match features
            .indices()
            .iter()
            .find(|&&i| i as usize >= self.d_sae())
        {
            None => Ok(()),
            Some(&feature) => Err(Error::FeatureOutOfRange {
                feature: feature.into(),
                d_sae: self.d_sae() as u64,
            }),
        }
    }

    /// Decodes what was checked.
    pub(crate) fn decode_all(
        &self,
        features: &Features,
        inputs: Option<impl RowSource>,
        scratch: &mut Scratch<'_>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let d_out = self.d_out();
        let mut work = scratch.split(self)?;
        for (row, (found, out)) in features.iter().zip(out.chunks_exact_mut(d_out)).enumerate() {
            self.decode_row(found, inputs, row, &mut work, out);
        }
        Ok(())
    }

    pub(crate) fn decode_inputs<'r>(
        &self,
        features: &Features,
        inputs: Option<Rows<'r>>,
    ) -> Result<Option<Rows<'r>>, Error> {
        if !self.needs_inputs_to_decode() {
            return Ok(None);
        }
        let Some(rows) = inputs else {
            return Err(inputs_missing());
        };
        check_width(rows, self.d_in())?;
        if rows.rows() != features.rows() {
            return Err(Error::Length {
                what: "input rows of decode",
                expected: features.rows() as u64,
                found: rows.rows() as u64,
            });
        }
        Ok(Some(rows))
    }

    pub(crate) fn decode_row(
        &self,
        features: FeaturesRow<'_>,
        inputs: Option<impl RowSource>,
        row: usize,
        work: &mut Work<'_>,
        out: &mut [f32],
    ) {
        let sums = |work: &mut Work<'_>| self.add_decoder_rows(features, work);
        self.decode_sums(features.status, inputs, row, work, out, sums);
    }

    /// A reconstruction from `work.output = sum_i a_i d_i`, which `sums` writes.
    pub(crate) fn decode_sums(
        &self,
        status: RowStatus,
        inputs: Option<impl RowSource>,
        row: usize,
        work: &mut Work<'_>,
        out: &mut [f32],
        sums: impl FnOnce(&mut Work<'_>),
    ) {
        let mut ok = !matches!(status, RowStatus::NonFinite | RowStatus::Skipped);
        let mut norm = RowNorm {
            mean: 0.0,
            scale: 1.0,
        };
        if let Some(rows) = inputs {
            ok &= rows.load(self.kernels, row, work.raw);
            if ok && self.undoes_norm() {
                norm = self.row_norm(work.raw);
            }
        }
        if !ok {
            out.fill(CANONICAL_NAN);
            return;
        }
        sums(work);
        self.complete_row(norm, work);
        for (out, &sum) in out.iter_mut().zip(work.output.iter()) {
            let value = sum as f32;
            *out = if value.is_nan() { CANONICAL_NAN } else { value };
        }
    }

    /// From `work.output = sum_i a_i d_i` to the reconstruction, not yet rounded: adds the bias,
    /// undoes the normalisation, and adds the skip of the raw row in `work.input`.
    pub(crate) fn complete_row(&self, norm: RowNorm, work: &mut Work<'_>) {
        if let Some(bias) = &self.parts.decoder_bias {
            for (sum, bias) in work.output.iter_mut().zip(bias) {
                *sum += bias;
            }
        }
        if self.undoes_norm() {
            for sum in work.output.iter_mut() {
                *sum = match self.parts.input_norm {
                    InputNorm::LayerNorm => *sum * norm.scale + norm.mean,
                    InputNorm::ConstantNorm => *sum / norm.scale,
                    InputNorm::None => *sum,
                };
            }
        }
        self.add_skip(work);
    }

    /// `work.output = sum_i a_i d_i`.
    fn add_decoder_rows(&self, features: FeaturesRow<'_>, work: &mut Work<'_>) {
        work.output.fill(0.0);
        if self.writes_otherwise() {
            let (indices, values) = (features.indices, features.values);
            let scales = self.parts.decoder_scale.as_deref();
            self.add_written(Listed { indices, values }, scales, work);
            return;
        }
        self.add_decoder_part(&self.parts.decoder, 0, features, work.sums, work.output);
    }

    /// `output += sum_i a_i d_i` over the features that `decoder` covers, which is the whole
    /// decoder or a block of it; its first feature is the model's feature `offset`.
    pub(crate) fn add_decoder_part(
        &self,
        decoder: &Matrix<'_>,
        offset: usize,
        features: FeaturesRow<'_>,
        sums: &mut [f64],
        output: &mut [f64],
    ) {
        let amount = |feature: usize, value: f32| match &self.parts.decoder_scale {
            Some(scale) => f64::from(value) * scale.get(feature).copied().unwrap_or(0.0),
            None => f64::from(value),
        };
        match decoder.layout() {
            Layout::Rows => {
                let (ty, stride) = (decoder.weight_type(), decoder.stride_bytes());
                let mut places = [0u32; ROW_BLOCK];
                let blocks = features
                    .indices
                    .chunks(ROW_BLOCK)
                    .zip(features.values.chunks(ROW_BLOCK));
                for (indices, values) in blocks {
                    let (Some(amounts), Some(places)) = (
                        sums.get_mut(..indices.len()),
                        places.get_mut(..indices.len()),
                    ) else {
                        return;
                    };
                    let pairs = indices.iter().zip(values);
                    let to = amounts.iter_mut().zip(places.iter_mut());
                    for ((amount_of, place), (&index, &value)) in to.zip(pairs) {
                        *amount_of = amount(index as usize, value);
                        *place = index.wrapping_sub(offset as u32);
                    }
                    let bytes = decoder.bytes();
                    self.kernels
                        .add_scaled_rows(ty, bytes, stride, places, amounts, output);
                }
            }
            Layout::Columns => {
                for (column, sum) in output.iter_mut().enumerate() {
                    for (&index, &value) in features.indices.iter().zip(features.values) {
                        let feature = index as usize;
                        *sum += amount(feature, value) * decoder.weight(feature - offset, column);
                    }
                }
            }
            // Blocks are sorted by feature, so every column still adds in ascending order.
            Layout::Blocks => {
                for block in decoder.blocks() {
                    let part = features.within(block.features());
                    if let Some(output) = output.get_mut(block.columns()) {
                        self.add_decoder_part(
                            &block.matrix,
                            block.first_feature,
                            part,
                            sums,
                            output,
                        );
                    }
                }
            }
        }
    }

    /// Adds `W_skip x` of the raw row in `work.raw`.
    fn add_skip(&self, work: &mut Work<'_>) {
        let Some(skip) = &self.parts.skip else { return };
        for (input, &value) in work.input.iter_mut().zip(work.raw.iter()) {
            *input = value as f32; // exact: rows hold no wider values
        }
        for (outputs, inputs, skip) in pieces(skip) {
            let (Some(outputs), Some(input)) =
                (work.output.get_mut(outputs), work.input.get(inputs))
            else {
                return;
            };
            let step = features_at_once(skip);
            for (block, outputs) in outputs.chunks_mut(step).enumerate() {
                let Some(sums) = work.sums.get_mut(..outputs.len()) else {
                    return;
                };
                products(self.kernels, skip, block * step, input, work.lanes, sums);
                for (output, sum) in outputs.iter_mut().zip(sums.iter()) {
                    *output += sum;
                }
            }
        }
    }
}

/// A model whose decoding needs the inputs got none.
pub(crate) fn inputs_missing() -> Error {
    Error::InvalidArgument {
        what: "inputs of decode",
        expected: "the encoded rows (this model undoes a normalisation, has a skip or transforms)"
            .into(),
        found: "none".into(),
    }
}

/// The quiet NaN with no payload.
pub(crate) const CANONICAL_NAN: f32 = f32::from_bits(0x7fc0_0000);

/// `sums += sum_i amounts_i d_i`, in the order given; amounts hold the decoder scales already.
pub(crate) fn add_amounts(
    kernels: &Kernels,
    decoder: &Matrix<'_>,
    indices: &[u32],
    amounts: &[f64],
    sums: &mut [f64],
) {
    match decoder.layout() {
        Layout::Rows => {
            let (ty, stride) = (decoder.weight_type(), decoder.stride_bytes());
            kernels.add_scaled_rows(ty, decoder.bytes(), stride, indices, amounts, sums);
        }
        Layout::Columns => {
            for (column, sum) in sums.iter_mut().enumerate() {
                for (&index, &amount) in indices.iter().zip(amounts) {
                    *sum += amount * decoder.weight(index as usize, column);
                }
            }
        }
        Layout::Blocks => {
            for block in decoder.blocks() {
                let Some(sums) = sums.get_mut(block.columns()) else {
                    continue;
                };
                for (&index, amount) in indices.iter().zip(amounts) {
                    if block.features().contains(&(index as usize)) {
                        let place = [index - block.first_feature as u32];
                        let amount = core::slice::from_ref(amount);
                        add_amounts(kernels, &block.matrix, &place, amount, sums);
                    }
                }
            }
        }
    }
}
