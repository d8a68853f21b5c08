//! Readout: the values of a few chosen features, without encoding the rest.
//!
//! A [`FeatureSet`] gathers its m encoder vectors once, so reading it out costs m rows on every
//! layout. Under TopK a feature's value depends on all others: readout is exact there too, and
//! costs a full encode.

use crate::encode::{RowSource, SomeRows, check_width};
use crate::error::Error;
use crate::features::RowStatus;
use crate::kernels::{Kernels, fetch};
use crate::model::{Activation, Layout, Matrix, Sae};
use crate::rows::Rows;
use crate::scratch::{ROW_BLOCK, Scratch, Work};
use crate::select::{Chosen, Fate, judge_gated};
use alloc::vec::Vec;
use core::ops::Range;

/// Features compiled for readout: a watch list. Any order, duplicates allowed.
#[derive(Debug)]
pub struct FeatureSet {
    features: Vec<u32>,
    /// The gathered encoder vectors, in the order of `features`; none under TopK.
    encoder: Option<Gathered>,
    /// The same of the gate of a model that has one.
    gate: Option<Gathered>,
    identity: usize,
}

/// Vectors of a matrix, one row each; of blocks, each vector's own block.
#[derive(Debug)]
struct Gathered {
    matrix: Matrix<'static>,
    /// With blocks: which inputs each vector meets.
    inputs: Vec<Range<usize>>,
}

impl Gathered {
    /// Has the beginnings of the runs that the kernels read side by side come from memory while
    /// the input is prepared.
    fn fetch(&self) {
        let bytes = self.matrix.bytes();
        for run in bytes.chunks((bytes.len() / 4).max(1)).take(4) {
            fetch(run.get(..512).unwrap_or(run));
        }
    }

    fn new(matrix: &Matrix<'_>, features: &[u32]) -> Result<Self, Error> {
        let inputs = |&feature: &u32| match matrix.place(feature as usize) {
            Some((matrix, _, start)) => start..start + matrix.width(),
            None => 0..0,
        };
        Ok(Gathered {
            matrix: gather(matrix, features)?,
            inputs: match matrix.layout() {
                Layout::Blocks => features.iter().map(inputs).collect(),
                Layout::Rows | Layout::Columns => Vec::new(),
            },
        })
    }

    /// Products of the vectors from `first` on.
    fn products(&self, kernels: &Kernels, first: usize, input: &[f32], sums: &mut [f64]) {
        let (ty, stride) = (self.matrix.weight_type(), self.matrix.stride_bytes());
        if self.inputs.is_empty() {
            kernels.dot_rows(ty, self.matrix.bytes_from(first), stride, input, sums);
            return;
        }
        let inputs = self.inputs.get(first..).unwrap_or(&[]);
        for (at, (sum, range)) in sums.chunks_exact_mut(1).zip(inputs).enumerate() {
            let weights = self.matrix.bytes_from(first + at);
            let input = input.get(range.clone()).unwrap_or(&[]);
            kernels.dot_rows(ty, weights, stride, input, sum);
        }
    }
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
        let parts = sae.parts();
        let gate = match &self.gate {
            Some(gate) => gate.matrix.size_bytes(),
            None => parts.glu.as_ref().map_or(0, |glu| glu.matrix.size_bytes()),
        };
        let encoder = match &self.encoder {
            Some(encoder) => encoder.matrix.size_bytes(),
            None => parts.encoder.size_bytes(),
        };
        (encoder + gate) as u64
    }
}

impl Sae<'_> {
    /// Compiles features for readout: gathers their encoder vectors, `m * d_in` weights, once.
    ///
    /// # Errors
    /// [`Error::FeatureOutOfRange`], [`Error::OutOfMemory`].
    pub fn compile_set(&self, features: &[u32]) -> Result<FeatureSet, Error> {
        self.check_features(features)?;
        let gather = |matrix: &Matrix<'_>| match self.reads_all_for_one() {
            true => Ok(None),
            false => Gathered::new(matrix, features).map(Some),
        };
        let gate = match &self.parts.glu {
            Some(glu) => gather(&glu.matrix)?,
            None => None,
        };
        Ok(FeatureSet {
            features: features.to_vec(),
            encoder: gather(&self.parts.encoder)?,
            gate,
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
        check_width(rows, self.d_in())?;
        self.readout_from(set, rows, scratch, values, status)
    }

    /// As [`Sae::readout`], but only the rows whose number `wanted` says yes to: the others are
    /// not read, their values are 0 and their status is [`RowStatus::Skipped`].
    ///
    /// # Errors
    /// As for [`Sae::readout`].
    pub fn readout_where(
        &self,
        set: &FeatureSet,
        rows: Rows<'_>,
        wanted: &dyn Fn(usize) -> bool,
        scratch: &mut Scratch<'_>,
        values: &mut [f32],
        status: &mut [RowStatus],
    ) -> Result<(), Error> {
        check_width(rows, self.d_in())?;
        self.readout_from(set, SomeRows { rows, wanted }, scratch, values, status)
    }

    /// [`Sae::readout`] of rows whose width was checked.
    pub(crate) fn readout_from(
        &self,
        set: &FeatureSet,
        rows: impl RowSource,
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
        check_lengths(rows.count(), set.len(), values, status)?;
        if let Activation::Ensemble(kind) = self.parts.activation {
            for (row, status) in status.iter_mut().enumerate() {
                let values = values.get_mut(row * set.len()..(row + 1) * set.len());
                let values = values.unwrap_or(&mut []);
                *status = match rows.wanted(row) {
                    true => self.read_members(kind, &set.features, rows, row, scratch, values)?,
                    false => {
                        values.fill(0.0);
                        RowStatus::Skipped
                    }
                };
            }
            return Ok(());
        }
        let mut work = scratch.split(self)?;
        for (row, status) in status.iter_mut().enumerate() {
            let values = values
                .get_mut(row * set.len()..(row + 1) * set.len())
                .unwrap_or(&mut []);
            values.fill(0.0);
            if !rows.wanted(row) {
                *status = RowStatus::Skipped;
                continue;
            }
            if let Some(encoder) = &set.encoder {
                encoder.fetch();
            }
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
        check_width(rows, self.d_in())?;
        check_lengths(rows.rows(), 1, values, status)?;
        if let Activation::Ensemble(kind) = self.parts.activation {
            for (row, (value, status)) in values.iter_mut().zip(status).enumerate() {
                let value = core::slice::from_mut(value);
                *status = self.read_members(kind, &[feature], rows, row, scratch, value)?;
            }
            return Ok(());
        }
        let mut work = scratch.split(self)?;
        let all = self.reads_all_for_one();
        // With one matrix its vector is gathered once; with two they take turns in the buffer.
        let mut gathered = false;
        for (row, (value, status)) in values.iter_mut().zip(status).enumerate() {
            *value = 0.0;
            *status = match self.prepare_row(rows, row, &mut work) {
                None => RowStatus::NonFinite,
                Some(_) if all => {
                    self.read_chosen(&[feature], &mut work, core::slice::from_mut(value))?
                }
                Some(_) => {
                    let encoder = &self.parts.encoder;
                    let product = self.one_product(encoder, feature, &mut work, gathered);
                    gathered = self.parts.glu.is_none();
                    let gate = self.parts.glu.as_ref();
                    let gate = gate.map_or(0.0, |glu| {
                        self.one_product(&glu.matrix, feature, &mut work, false)
                    });
                    self.report(feature, product, gate, value)
                }
            };
        }
        Ok(())
    }

    /// The product of one vector and the prepared row. `gathered`: whether the vector is in the
    /// buffer already, if it must be gathered.
    fn one_product(
        &self,
        matrix: &Matrix<'_>,
        feature: u32,
        work: &mut Work<'_>,
        gathered: bool,
    ) -> f64 {
        let Some((matrix, place, start)) = matrix.place(feature as usize) else {
            return 0.0;
        };
        let weights = match matrix.row(place) {
            Some(row) => row,
            None => {
                let room = gather_room(work.gather, matrix);
                if !gathered {
                    matrix.gather(place, room);
                }
                room
            }
        };
        let input = work.input.get(start..start + matrix.width());
        let (ty, mut sum) = (matrix.weight_type(), [0.0]);
        let input = input.unwrap_or(&[]);
        self.kernels
            .dot_rows(ty, weights, weights.len(), input, &mut sum);
        sum[0]
    }

    /// Whether the value of one feature depends on all others.
    pub(crate) fn reads_all_for_one(&self) -> bool {
        match self.parts.activation {
            Activation::TopK { .. }
            | Activation::GroupTopK { .. }
            | Activation::TopAfa
            | Activation::Pursuit(_)
            | Activation::Ensemble(_) => true,
            Activation::Relu
            | Activation::TanhRelu
            | Activation::LeakyRelu { .. }
            | Activation::JumpRelu { .. }
            | Activation::Gated { .. } => false,
        }
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

    /// Reads out gathered rows, which depend on nothing else.
    fn read_rows(
        &self,
        encoder: &Gathered,
        set: &FeatureSet,
        work: &mut Work<'_>,
        values: &mut [f32],
    ) -> RowStatus {
        let mut status = RowStatus::Ok;
        let features = &set.features;
        let blocks = features.chunks(ROW_BLOCK).zip(values.chunks_mut(ROW_BLOCK));
        for (block, (features, values)) in blocks.enumerate() {
            let Some(sums) = work.sums.get_mut(..features.len()) else {
                break;
            };
            encoder.products(self.kernels, block * ROW_BLOCK, work.input, sums);
            let mut gates = &*sums;
            if let Some(gate) = &set.gate {
                let Some(sums) = work.gates.get_mut(..features.len()) else {
                    break;
                };
                gate.products(self.kernels, block * ROW_BLOCK, work.input, sums);
                gates = sums;
            }
            let products = sums.iter().zip(gates);
            for ((&feature, (&sum, &gate)), value) in features.iter().zip(products).zip(values) {
                if self.report(feature, sum, gate, value) != RowStatus::Ok {
                    status = RowStatus::NanPreActivation;
                }
            }
        }
        status
    }

    /// Writes the value of a feature whose products are known; `gate` matters to models with one.
    fn report(&self, feature: u32, product: f64, gate: f64, value: &mut f32) -> RowStatus {
        match judge_gated(&self.parts, feature as usize, product, gate) {
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

fn check_lengths(
    rows: usize,
    features: usize,
    values: &[f32],
    status: &[RowStatus],
) -> Result<(), Error> {
    let lengths = [
        (
            "values of a readout",
            rows.saturating_mul(features),
            values.len(),
        ),
        ("statuses of a readout", rows, status.len()),
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
