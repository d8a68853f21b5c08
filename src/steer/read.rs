//! What the acting plans need of a row: the row itself, the values and pre-activations of the
//! features that are read, coefficients of directions, lengths.

use super::batch::{Batch, RowInfo};
use super::compiled::CompiledPlan;
use super::scratch::{RowState, Slot, SteerScratch};
use crate::encode::{RowNorm, RowSource, load_row};
use crate::error::Error;
use crate::features::{Features, FeaturesRow, RowStatus};
use crate::kernels::{Kernels, fetch};
use crate::model::{Activation, InputNorm, Sae};
use crate::rows::Rows;
use crate::scratch::Scratch;
use crate::select::{Fate, judge, pre_f64};

impl Sae<'_> {
    /// Reads what the acting plans need of a row: `None` if it is not finite.
    pub(super) fn read(
        &self,
        plan: &CompiledPlan,
        batch: &Batch<'_>,
        row: usize,
        info: &RowInfo,
        scratch: &mut SteerScratch,
    ) -> Result<Option<RowNorm>, Error> {
        let acting = || {
            let pairs = plan.members.iter().zip(&scratch.row.acting);
            pairs.filter(|pair| *pair.1).map(|pair| pair.0)
        };
        let encode = acting().any(|member| member.needs_encode);
        let sources = acting().any(|member| member.needs_sources);
        if !encode && !sources && self.reads_directly(plan, batch) {
            let norm = self.read_directly(batch, row, scratch)?;
            let SteerScratch {
                model,
                features,
                row: state,
                ..
            } = scratch;
            features.clear();
            state.phase = info.phase as usize;
            state.current_max = 0.0;
            state.slots.fill(Slot::default());
            let finite = norm.is_some()
                && self.read_features(plan, model.split(self)?.input, features, state);
            return Ok(norm.filter(|_| finite));
        }
        let SteerScratch {
            model,
            features,
            known,
            row: state,
            old,
            narrow,
            ..
        } = scratch;
        let outputs = batch.rows.as_rows()?;
        if !load_row(self.kernels, outputs, row, old) {
            return Ok(None);
        }
        if sources {
            let source = info.source as usize;
            let read = match (self.attends, batch.sources) {
                (true, _) => self.read_known(plan, &known.sources, source, features, state)?,
                (false, None) => None,
                (false, Some(sources)) => {
                    let from = (sources, source, None);
                    self.read_values(plan, from, encode, model, features, state)?
                }
            };
            if read.is_none() {
                return Ok(None);
            }
            state.sources.copy_from_slice(&state.values);
        }
        // A row that is input and output is widened and judged once.
        let from = match batch.inputs {
            Some(inputs) => (inputs, row, None),
            None => (outputs, row, Some(&**old)),
        };
        let norm = match self.attends {
            true => self.read_known(plan, &known.features, row, features, state)?,
            false => self.read_values(plan, from, encode, model, features, state)?,
        };
        let Some(norm) = norm else {
            return Ok(None);
        };
        state.phase = info.phase as usize;
        state.row_norm = libm::sqrt(self.kernels.sum_squares_about(old, 0.0));
        state.feature_norm = match self.parts.input_norm {
            InputNorm::LayerNorm if self.undoes_norm() => state.row_norm / norm.scale,
            InputNorm::ConstantNorm if self.undoes_norm() => state.row_norm * norm.scale,
            _ => state.row_norm,
        };
        let found = features.values().iter();
        let max = found.map(|&value| f64::from(value)).reduce(f64::max);
        state.current_max = if encode { max.unwrap_or(0.0) } else { 0.0 };
        let RowState {
            acting,
            coefficients,
            ..
        } = state;
        for (member, _) in plan.members.iter().zip(acting).filter(|pair| *pair.1) {
            if !member.coefficients.is_empty() {
                for (narrow, &old) in narrow.iter_mut().zip(old.iter()) {
                    *narrow = old as f32;
                }
            }
            for &direction in &member.coefficients {
                let Some(to) = coefficients.get_mut(direction..=direction) else {
                    continue;
                };
                let directions = &plan.directions;
                let (ty, stride) = (directions.weight_type(), directions.stride_bytes());
                self.kernels
                    .dot_rows(ty, directions.bytes_from(direction), stride, narrow, to);
            }
        }
        state.slots.fill(Slot::default());
        Ok(Some(norm))
    }

    /// The values and pre-activations that the acting plans read, of one row at the input site,
    /// which comes with its finite values if it was loaded before.
    fn read_values(
        &self,
        plan: &CompiledPlan,
        (rows, row, loaded): (Rows<'_>, usize, Option<&[f64]>),
        encode: bool,
        model: &mut Scratch<'_>,
        features: &mut Features,
        state: &mut RowState,
    ) -> Result<Option<RowNorm>, Error> {
        features.clear();
        let members = match self.parts.activation {
            Activation::Ensemble(kind) if encode => {
                Some(self.encode_members(kind, rows, row, model, features)?)
            }
            _ => None,
        };
        let work = &mut model.split(self)?;
        let norm = match loaded {
            Some(values) => self.prepare_row(Loaded(values), row, work),
            None => self.prepare_row(rows, row, work),
        };
        let Some(norm) = norm else {
            return Ok(None);
        };
        if encode {
            let status = match members {
                Some(status) => status,
                None => self.encode_row(work, features)?,
            };
            features.end_row(status)?;
            if status != RowStatus::Ok {
                return Ok(None);
            }
        }
        let finite = self.read_features(plan, work.input, features, state);
        Ok(finite.then_some(norm))
    }

    /// The values that the acting plans read, of a row whose features the host knows.
    fn read_known(
        &self,
        plan: &CompiledPlan,
        known: &Features,
        row: usize,
        features: &mut Features,
        state: &mut RowState,
    ) -> Result<Option<RowNorm>, Error> {
        features.clear();
        let Some(found) = known.row(row).filter(|row| row.status == RowStatus::Ok) else {
            return Ok(None);
        };
        for (&index, &value) in found.indices.iter().zip(found.values) {
            features.push(index, value)?;
        }
        features.end_row(RowStatus::Ok)?;
        let finite = self.read_features(plan, &[], features, state);
        let none = RowNorm {
            mean: 0.0,
            scale: 1.0,
        };
        Ok(finite.then_some(none))
    }

    /// The values and pre-activations that the acting plans read, of a prepared input, or from the
    /// features of the row. Whether none is NaN.
    fn read_features(
        &self,
        plan: &CompiledPlan,
        input: &[f32],
        features: &Features,
        state: &mut RowState,
    ) -> bool {
        let RowState {
            acting,
            values,
            pre,
            ..
        } = state;
        let mut finite = true;
        for (member, _) in plan.members.iter().zip(acting).filter(|pair| *pair.1) {
            let rows = |read: usize| plan.encoder.as_ref().map(|all| (all.bytes_from(read), all));
            for (&read, next) in member.reads.iter().zip(1..) {
                // The next row comes while this one is read.
                if let Some((bytes, all)) = member.reads.get(next).and_then(|&next| rows(next)) {
                    fetch(bytes.get(..all.stride_bytes().min(FETCHED)).unwrap_or(&[]));
                }
                let feature = plan.reads.get(read).copied().unwrap_or(0);
                let (Some(value), Some(pre)) = (values.get_mut(read), pre.get_mut(read)) else {
                    continue;
                };
                if let Some(encoder) = &plan.encoder {
                    let (ty, stride) = (encoder.weight_type(), encoder.stride_bytes());
                    let (weights, mut sum) = (encoder.bytes_from(read), [0.0]);
                    let inputs = plan.inputs.get(read).cloned().unwrap_or(0..0);
                    let input = input.get(inputs).unwrap_or(&[]);
                    self.kernels.dot_rows(ty, weights, stride, input, &mut sum);
                    let product = sum[0];
                    *pre = f64::from(pre_f64(&self.parts, feature as usize, product) as f32);
                    finite &= !pre.is_nan();
                    if !plan.ranks {
                        *value = match judge(&self.parts, feature as usize, product) {
                            Fate::On { value, .. } => f64::from(value),
                            Fate::Off => 0.0,
                            Fate::Nan => {
                                finite = false;
                                0.0
                            }
                        };
                    }
                }
                if plan.ranks {
                    let row = features.row(0);
                    *value = row.map_or(0.0, |row| f64::from(value_of(row, feature)));
                }
            }
        }
        finite
    }
}

/// Bytes of a row that are asked for ahead, at most: more than a few hundred lines of memory would
/// only wait for each other.
pub(super) const FETCHED: usize = 16 << 10;

/// A row that was widened before, and found finite.
#[derive(Clone, Copy)]
struct Loaded<'r>(&'r [f64]);

impl RowSource for Loaded<'_> {
    fn count(self) -> usize {
        1
    }

    fn load(self, _kernels: &Kernels, _row: usize, raw: &mut [f64]) -> bool {
        let fits = raw.len() == self.0.len();
        if fits {
            raw.copy_from_slice(self.0);
        }
        fits
    }
}

fn value_of(row: FeaturesRow<'_>, feature: u32) -> f32 {
    match row.indices.binary_search(&feature) {
        Ok(at) => row.values.get(at).copied().unwrap_or(0.0),
        Err(_) => 0.0,
    }
}
