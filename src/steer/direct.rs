//! The short way from a row to the edited row, for rows of f32: passes over the row that do all
//! that is needed at once ([`crate::kernels::edit`]), and no copy of it in f64. The numbers are
//! those of the long way (`change.rs`, `apply.rs`), to the bit.

use super::batch::{Batch, Outcome};
use super::compiled::CompiledPlan;
use super::scratch::SteerScratch;
use crate::dtype::Dtype;
use crate::encode::{RowNorm, load_row};
use crate::error::Error;
use crate::kernels::WeightType;
use crate::model::{InputNorm, Sae};

impl Sae<'_> {
    /// Whether rows can be read the short way: nothing asks for their values in f64.
    pub(super) fn reads_directly(&self, plan: &CompiledPlan, batch: &Batch<'_>) -> bool {
        batch.rows.dtype() == Dtype::F32
            && batch.inputs.is_none()
            && !self.attends
            && !self.writes_otherwise()
            && self.parts.input_norm == InputNorm::None
            && plan.directions.features() == 0
    }

    /// Reads the input and the length of a row at once: `None` if it is not finite.
    pub(super) fn read_directly(
        &self,
        batch: &Batch<'_>,
        row: usize,
        scratch: &mut SteerScratch,
    ) -> Result<Option<RowNorm>, Error> {
        let SteerScratch {
            model, row: state, ..
        } = scratch;
        let work = model.split(self)?;
        let center = self.parts.center.as_deref().unwrap_or(&[]);
        let bytes = batch.rows.row_bytes(row);
        let kernels = self.kernels;
        let sums = kernels.read_row(WeightType::F32, bytes, center, work.input);
        if !sums.finite {
            return Ok(None);
        }
        state.row_norm = libm::sqrt(sums.sum_squares);
        state.feature_norm = state.row_norm;
        let none = RowNorm {
            mean: 0.0,
            scale: 1.0,
        };
        Ok(Some(none))
    }

    /// Moves a row of f32 by the edits of all acting plans, held to their budget: its outcome, and
    /// how far it moved.
    pub(super) fn move_row(
        &self,
        plan: &CompiledPlan,
        batch: &mut Batch<'_>,
        row: usize,
        norm: RowNorm,
        factor: f64,
        scratch: &mut SteerScratch,
    ) -> Result<(Outcome, f64), Error> {
        scratch.list_amounts(plan, factor);
        let decoder = &plan.decoder;
        let bytes = batch.rows.row_bytes(row);
        // One decoder row is read into the row itself, unless the sum must be known apart.
        let alone = match (&*scratch.indices, &*scratch.amounts) {
            (&[index], &[amount]) => Some((index, amount)),
            _ => None,
        };
        let together =
            self.undoes_norm() || plan.directions.features() > 0 || batch.changes.is_some();
        let sums = match alone.filter(|_| !together) {
            Some((index, amount)) => self.kernels.add_scaled_to_row(
                decoder.weight_type(),
                decoder.bytes_from(index as usize),
                amount,
                bytes,
                &mut scratch.moved,
            ),
            None => {
                if !self.sum_changes(plan, norm, factor, scratch) {
                    return Ok((Outcome::Unchanged, 0.0));
                }
                let SteerScratch { change, moved, .. } = scratch;
                self.kernels.add_to_row(change, bytes, moved)
            }
        };
        let length = libm::sqrt(sums.sum_squares);
        if length == 0.0 {
            return Ok((Outcome::Unchanged, 0.0));
        }
        let relative = length / scratch.row.row_norm;
        let budget = plan.budget(&scratch.row);
        if budget.is_some_and(|budget| relative > budget.relative) {
            // Seldom, and then the row and its change are needed apart.
            let outputs = batch.rows.as_rows()?;
            load_row(self.kernels, outputs, row, &mut scratch.old);
            self.change(plan, norm, factor, scratch);
            return self.write(plan, batch, row, scratch);
        }
        if !sums.finite {
            return Ok((Outcome::Overflow, 0.0));
        }
        if !batch.dry_run {
            batch.rows.replace(row, &scratch.moved);
        }
        Ok((Outcome::Edited, relative))
    }
}
