//! Readout: the values of a few chosen features, without encoding the rest.
//!
//! A [`FeatureSet`] gathers its m encoder vectors once, so reading it out costs m rows on every
//! layout. Under TopK a feature's value depends on all others: readout is exact there too, and
//! costs a full encode.

use crate::encode::check_width;
use crate::error::Error;
use crate::features::RowStatus;
use crate::model::{Activation, Layout, Matrix, Sae};
use crate::rows::Rows;
use crate::scratch::{ROW_BLOCK, Scratch, Work};
use crate::select::{Chosen, Fate, judge};
use alloc::vec::Vec;
use core::ops::Range;

/// Features compiled for readout: a watch list. Any order, duplicates allowed.
#[derive(Debug)]
pub struct FeatureSet {
    features: Vec<u32>,
    /// The gathered encoder vectors, in the order of `features`; none under TopK.
    encoder: Option<Matrix<'static>>,
    /// Where an encoder is made of blocks: which inputs each vector meets.
    inputs: Vec<Range<usize>>,
    identity: usize,
}

impl FeatureSet {
    /// The features, in the order in which they are read out.
    pub fn features(&self) -> &[u32] {
        &self.features
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.features.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.features.is_empty()
    }

    /// Bytes of weights that a readout of one row reads; for TopK those of the whole encoder.
    pub fn bytes_per_row(&self, sae: &Sae<'_>) -> u64 {
        self.encoder
            .as_ref()
            .unwrap_or(&sae.parts().encoder)
            .size_bytes() as u64
    }
}

impl Sae<'_> {
    /// Compiles features for readout: gathers their encoder vectors, `m * d_in` weights, once.
    ///
    /// # Errors
    /// [`Error::FeatureOutOfRange`], [`Error::OutOfMemory`].
    pub fn compile_set(&self, features: &[u32]) -> Result<FeatureSet, Error> {
        self.check_features(features)?;
        let encoder = match self.reads_all_for_one() {
            true => None,
            false => Some(gather(&self.parts.encoder, features)?),
        };
        let inputs = match self.parts.encoder.layout() {
            Layout::Blocks => self.inputs_of(features),
            Layout::Rows | Layout::Columns => Vec::new(),
        };
        Ok(FeatureSet {
            features: features.to_vec(),
            encoder,
            inputs,
            identity: self.identity,
        })
    }

    /// Writes the values of the set's features for every row: `values` is `[rows, set.len()]`,
    /// contiguous; a feature that does not fire is 0. `status` has one entry per row. Each value
    /// has the bits that [`Sae::encode`] gives it.
    ///
    /// Reads the set's m encoder rows; under TopK the whole encoder.
    ///
    /// # Errors
    /// [`Error::Length`] if a buffer or the scratch has the wrong size,
    /// [`Error::InvalidArgument`] if the set was compiled for another model.
    pub fn readout(
        &self,
        set: &FeatureSet,
        rows: Rows<'_>,
        scratch: &mut Scratch<'_>,
        values: &mut [f32],
        status: &mut [RowStatus],
    ) -> Result<(), Error> {
        if set.identity != self.identity {
            return Err(Error::InvalidArgument {
                what: "feature set",
                expected: "a set compiled for this model".into(),
                found: "one of another model".into(),
            });
        }
        let mut work = scratch.split(self)?;
        self.check_readout(rows, set.len(), values, status)?;
        for (row, status) in status.iter_mut().enumerate() {
            let values = values
                .get_mut(row * set.len()..(row + 1) * set.len())
                .unwrap_or(&mut []);
            values.fill(0.0);
            *status = match self.prepare_row(rows, row, &mut work) {
                None => RowStatus::NonFinite,
                Some(_) => match &set.encoder {
                    Some(encoder) => self.read_rows(encoder, set, &mut work, values),
                    None => self.read_chosen(&set.features, &mut work, values)?,
                },
            };
        }
        Ok(())
    }

    /// Writes the value of one feature, any of them, for every row: `values` and `status` have
    /// one entry per row.
    ///
    /// Gathers that feature's vector first: one row of an encoder in rows; a column costs about
    /// 25 times as much. Under TopK it reads the whole encoder. Compile a set for features that
    /// are read again.
    ///
    /// # Errors
    /// [`Error::FeatureOutOfRange`]; [`Error::Length`] if a buffer or the scratch has the wrong
    /// size.
    pub fn readout_one(
        &self,
        feature: u32,
        rows: Rows<'_>,
        scratch: &mut Scratch<'_>,
        values: &mut [f32],
        status: &mut [RowStatus],
    ) -> Result<(), Error> {
        self.check_features(&[feature])?;
        let mut work = scratch.split(self)?;
        self.check_readout(rows, 1, values, status)?;
        let all = self.reads_all_for_one();
        let Some((encoder, place, start)) = self.parts.encoder.place(feature as usize) else {
            return Ok(());
        };
        let inputs = start..start + encoder.width();
        let in_place = encoder.row(place);
        if in_place.is_none() && !all {
            encoder.gather(place, gather_room(work.gather, encoder));
        }
        for (row, (value, status)) in values.iter_mut().zip(status).enumerate() {
            *value = 0.0;
            *status = match self.prepare_row(rows, row, &mut work) {
                None => RowStatus::NonFinite,
                Some(_) if all => {
                    self.read_chosen(&[feature], &mut work, core::slice::from_mut(value))?
                }
                Some(_) => {
                    let weights = match in_place {
                        Some(row) => row,
                        None => gather_room(work.gather, encoder),
                    };
                    let mut sum = [0.0];
                    let (ty, stride) = (encoder.weight_type(), weights.len());
                    let input = work.input.get(inputs.clone()).unwrap_or(&[]);
                    self.kernels.dot_rows(ty, weights, stride, input, &mut sum);
                    self.report(feature, sum[0], value)
                }
            };
        }
        Ok(())
    }

    /// Whether the value of one feature depends on all others.
    pub(crate) fn reads_all_for_one(&self) -> bool {
        match self.parts.activation {
            Activation::TopK { .. }
            | Activation::GroupTopK { .. }
            | Activation::TopAfa
            | Activation::Pursuit(_) => true,
            Activation::Relu
            | Activation::TanhRelu
            | Activation::JumpRelu { .. }
            | Activation::Gated { .. } => false,
        }
    }

    /// Which inputs the encoder vectors of these features meet.
    fn inputs_of(&self, features: &[u32]) -> Vec<Range<usize>> {
        let inputs = |&feature: &u32| match self.parts.encoder.place(feature as usize) {
            Some((matrix, _, start)) => start..start + matrix.width(),
            None => 0..0,
        };
        features.iter().map(inputs).collect()
    }

    fn check_features(&self, features: &[u32]) -> Result<(), Error> {
        match features
            .iter()
            .find(|&&feature| feature as usize >= self.d_sae())
        {
            None => Ok(()),
            Some(&feature) => Err(Error::FeatureOutOfRange {
                feature: feature.into(),
                d_sae: self.d_sae() as u64,
            }),
        }
    }

    fn check_readout(
        &self,
        rows: Rows<'_>,
        features: usize,
        values: &[f32],
        status: &[RowStatus],
    ) -> Result<(), Error> {
        check_width(rows, self.d_in())?;
        let lengths = [
            (
                "values of a readout",
                rows.rows().saturating_mul(features),
                values.len(),
            ),
            ("statuses of a readout", rows.rows(), status.len()),
        ];
        for (what, expected, found) in lengths {
            if expected != found {
                let (expected, found) = (expected as u64, found as u64);
                return Err(Error::Length {
                    what,
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }

    /// Reads out gathered rows, which depend on nothing else.
    fn read_rows(
        &self,
        encoder: &Matrix<'_>,
        set: &FeatureSet,
        work: &mut Work<'_>,
        values: &mut [f32],
    ) -> RowStatus {
        let mut status = RowStatus::Ok;
        let stride = encoder.stride_bytes();
        for (at, (inputs, value)) in set.inputs.iter().zip(values.iter_mut()).enumerate() {
            let input = work.input.get(inputs.clone()).unwrap_or(&[]);
            let mut sum = [0.0];
            let (ty, weights) = (encoder.weight_type(), encoder.bytes_from(at));
            self.kernels.dot_rows(ty, weights, stride, input, &mut sum);
            let feature = set.features.get(at).copied().unwrap_or(0);
            if self.report(feature, sum[0], value) != RowStatus::Ok {
                status = RowStatus::NanPreActivation;
            }
        }
        if !set.inputs.is_empty() {
            return status;
        }
        let features = &set.features;
        let blocks = features.chunks(ROW_BLOCK).zip(values.chunks_mut(ROW_BLOCK));
        for (block, (features, values)) in blocks.enumerate() {
            let Some(sums) = work.sums.get_mut(..features.len()) else {
                break;
            };
            let weights = encoder.bytes_from(block * ROW_BLOCK);
            self.kernels
                .dot_rows(encoder.weight_type(), weights, stride, work.input, sums);
            for ((&feature, &sum), value) in features.iter().zip(sums.iter()).zip(values) {
                if self.report(feature, sum, value) != RowStatus::Ok {
                    status = RowStatus::NanPreActivation;
                }
            }
        }
        status
    }

    /// Writes the value of a feature whose product is known.
    fn report(&self, feature: u32, product: f64, value: &mut f32) -> RowStatus {
        match judge(&self.parts, feature as usize, product) {
            Fate::Off => RowStatus::Ok,
            Fate::Nan => RowStatus::NanPreActivation,
            Fate::On { value: found, .. } => {
                *value = found;
                RowStatus::Ok
            }
        }
    }

    /// Reads out features whose values depend on all products (TopK).
    fn read_chosen(
        &self,
        features: &[u32],
        work: &mut Work<'_>,
        values: &mut [f32],
    ) -> Result<RowStatus, Error> {
        let write = |chosen: Chosen<'_>| {
            for (&feature, value) in features.iter().zip(values) {
                *value = chosen.value(feature);
            }
        };
        if let Activation::Pursuit(pursuit) = &self.parts.activation {
            let (status, chosen) = self.pursue(pursuit, work);
            write(chosen);
            return Ok(status);
        }
        let mut selector = self.select_all(work, &mut crate::Features::new())?;
        write(selector.chosen());
        Ok(selector.status())
    }
}

/// The vectors of these features, one row each; of blocks, each vector's own block.
pub(crate) fn gather(matrix: &Matrix<'_>, features: &[u32]) -> Result<Matrix<'static>, Error> {
    let place = |feature: u32| matrix.place(feature as usize);
    let widths = features.iter().filter_map(|&feature| place(feature));
    let width = widths.map(|(matrix, ..)| matrix.width()).max();
    let width = width.unwrap_or(matrix.width());
    let size = matrix.weight_type().size();
    let bytes = features.len().saturating_mul(width * size);
    let mut rows: Vec<u8> = Vec::new();
    rows.try_reserve_exact(bytes)
        .map_err(|_| Error::OutOfMemory {
            what: "a compiled set",
            bytes: bytes as u64,
        })?;
    rows.resize(bytes, 0);
    for (row, &feature) in rows.chunks_exact_mut(width * size).zip(features) {
        if let Some((matrix, feature, _)) = place(feature)
            && let Some(row) = row.get_mut(..matrix.width() * size)
        {
            matrix.gather(feature, row);
        }
    }
    Ok(Matrix::from_rows(
        matrix.tensor(),
        rows,
        matrix.weight_type(),
        features.len(),
        width,
    ))
}

/// The part of the gather buffer that one encoder vector fills.
fn gather_room<'s>(gather: &'s mut [u8], encoder: &Matrix<'_>) -> &'s mut [u8] {
    gather
        .get_mut(..encoder.width() * encoder.weight_type().size())
        .unwrap_or(&mut [])
}
