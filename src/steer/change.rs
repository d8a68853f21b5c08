//! From edits to the change of a row: through the decoder rows of the edited features alone, or,
//! for plans that change features that no edit names or drop the error, through whole lists of
//! features.

use super::batch::Batch;
use super::compiled::{CompiledPlan, Member, Scores};
use super::plan::ErrorTerm;
use super::scratch::{RowState, Slot, SteerScratch};
use crate::decode::add_amounts;
use crate::encode::{RowNorm, load_row};
use crate::error::Error;
use crate::features::{FeaturesRow, RowStatus};
use crate::model::{InputNorm, Sae};
use crate::scratch::Work;
use crate::written::Listed;

impl Sae<'_> {
    /// `change = g sum_i change_i d_i + directions`, `new = old + change`; whether anything does.
    pub(super) fn change(
        &self,
        plan: &CompiledPlan,
        norm: RowNorm,
        factor: f64,
        scratch: &mut SteerScratch,
    ) -> bool {
        scratch.list_amounts(plan, factor);
        let any = self.sum_changes(plan, norm, factor, scratch);
        let SteerScratch {
            old, new, change, ..
        } = scratch;
        for ((new, old), change) in new.iter_mut().zip(old.iter()).zip(change.iter()) {
            *new = old + change;
        }
        any
    }

    /// `change = g sum_i change_i d_i + directions` of the listed amounts; whether anything does.
    pub(super) fn sum_changes(
        &self,
        plan: &CompiledPlan,
        norm: RowNorm,
        factor: f64,
        scratch: &mut SteerScratch,
    ) -> bool {
        let SteerScratch {
            row,
            indices,
            amounts,
            change,
            ..
        } = scratch;
        let mut any = !indices.is_empty();
        change.fill(0.0);
        let decoder = &plan.decoder;
        let (ty, stride) = (decoder.weight_type(), decoder.stride_bytes());
        self.kernels
            .add_scaled_rows(ty, decoder.bytes(), stride, indices, amounts, change);
        self.scale_out(norm, change);
        any |= self.add_directions(plan, row, factor, change);
        any
    }

    /// The same for a plan that changes features that no edit names, or drops the error.
    #[allow(clippy::too_many_arguments)] // a row and what was found out about it
    pub(super) fn change_whole(
        &self,
        plan: &CompiledPlan,
        i: usize,
        batch: &Batch<'_>,
        row: usize,
        norm: RowNorm,
        factor: f64,
        scratch: &mut SteerScratch,
    ) -> Result<bool, Error> {
        let Some(member) = plan.members.get(i) else {
            return Ok(false);
        };
        self.select_scored(member, batch, row, scratch)?;
        let mut any = true;
        if member.error == ErrorTerm::Drop {
            self.list_whole(plan, member, true, true, 1.0, scratch);
            self.decode_list(batch, row, norm, scratch)?;
            let SteerScratch {
                row: state,
                old,
                new,
                change,
                ..
            } = scratch;
            if factor != 1.0 {
                for (new, old) in new.iter_mut().zip(old.iter()) {
                    *new = old + factor * (*new - old);
                }
            }
            self.add_directions(plan, state, factor, new);
            difference(new, old, change);
        } else {
            any = self.change_features(plan, member, batch, row, factor, scratch)?;
            any |= self.finish_change(plan, norm, factor, scratch);
        }
        Ok(any)
    }

    /// The change of a row by edits of features that write no multiple of one vector.
    pub(super) fn change_written(
        &self,
        plan: &CompiledPlan,
        batch: &Batch<'_>,
        row: usize,
        norm: RowNorm,
        factor: f64,
        scratch: &mut SteerScratch,
    ) -> Result<bool, Error> {
        // None of the acting plans is whole, so any of them says what becomes of other features.
        let acting = scratch.row.acting.iter().position(|&acts| acts);
        let Some(member) = acting.and_then(|i| plan.members.get(i)) else {
            return Ok(false);
        };
        let any = self.change_features(plan, member, batch, row, factor, scratch)?;
        Ok(self.finish_change(plan, norm, factor, scratch) || any)
    }

    /// `change = ` what f' writes less what f writes, times the factor; whether anything does.
    fn change_features(
        &self,
        plan: &CompiledPlan,
        member: &Member,
        batch: &Batch<'_>,
        row: usize,
        factor: f64,
        scratch: &mut SteerScratch,
    ) -> Result<bool, Error> {
        if self.parts.targets.is_none() {
            self.list_whole(plan, member, true, false, factor, scratch);
            self.write_list(batch, row, scratch)?;
            return Ok(!scratch.indices.is_empty());
        }
        // What a value writes is no multiple of it: f and f' are written apart.
        self.list_whole(plan, member, false, true, 1.0, scratch);
        self.write_list(batch, row, scratch)?;
        core::mem::swap(&mut scratch.new, &mut scratch.change);
        self.list_whole(plan, member, true, true, 1.0, scratch);
        self.write_list(batch, row, scratch)?;
        let mut any = false;
        for (change, before) in scratch.change.iter_mut().zip(&scratch.new) {
            *change = (*change - before) * factor;
            any |= *change != 0.0;
        }
        Ok(any)
    }

    /// `change = ` what the listed amounts write.
    fn write_list(
        &self,
        batch: &Batch<'_>,
        row: usize,
        scratch: &mut SteerScratch,
    ) -> Result<(), Error> {
        let mut work = scratch.model.split(self)?;
        if self.parts.transforms.is_some() {
            let inputs = batch.inputs.map_or_else(|| batch.rows.as_rows(), Ok)?;
            load_row(self.kernels, inputs, row, work.raw);
        }
        self.add_listed(&scratch.indices, &scratch.amounts, &mut work);
        scratch.change.copy_from_slice(work.output);
        Ok(())
    }

    /// `work.output = ` what the listed amounts write; transforms read `work.raw`.
    fn add_listed(&self, indices: &[u32], amounts: &[f64], work: &mut Work<'_>) {
        work.output.fill(0.0);
        if self.writes_otherwise() {
            let values = amounts;
            self.add_written(Listed { indices, values }, None, work);
            return;
        }
        let decoder = &self.parts.decoder;
        add_amounts(self.kernels, decoder, indices, amounts, work.output);
    }

    /// `change = g change + directions`, `new = old + change`; whether there are directions.
    fn finish_change(
        &self,
        plan: &CompiledPlan,
        norm: RowNorm,
        factor: f64,
        scratch: &mut SteerScratch,
    ) -> bool {
        let SteerScratch {
            row: state,
            old,
            new,
            change,
            ..
        } = scratch;
        self.scale_out(norm, change);
        let any = self.add_directions(plan, state, factor, change);
        for ((new, old), change) in new.iter_mut().zip(old.iter()).zip(change.iter()) {
            *new = old + change;
        }
        any
    }

    /// `new = decode(f')` with the edits of one plan, or `decode(f)`.
    #[allow(clippy::too_many_arguments)] // a row and what was found out about it
    pub(super) fn reconstruct(
        &self,
        plan: &CompiledPlan,
        i: usize,
        edited: bool,
        batch: &Batch<'_>,
        row: usize,
        norm: RowNorm,
        scratch: &mut SteerScratch,
    ) -> Result<(), Error> {
        let Some(member) = plan.members.get(i) else {
            return Ok(());
        };
        scratch.row.slots.fill(Slot::default());
        if edited {
            scratch.row.edit(member, i, plan.conflicts);
            self.select_scored(member, batch, row, scratch)?;
        }
        self.list_whole(plan, member, edited, true, 1.0, scratch);
        self.decode_list(batch, row, norm, scratch)
    }

    /// Sum of the squares of `new - old`.
    pub(super) fn squared_difference(&self, scratch: &mut SteerScratch) -> Result<f64, Error> {
        let SteerScratch {
            old, new, change, ..
        } = scratch;
        difference(new, old, change);
        Ok(self.kernels.sum_squares_about(change, 0.0))
    }

    /// Selects anew with a plan's scores, into `scored`.
    pub(super) fn select_scored(
        &self,
        member: &Member,
        batch: &Batch<'_>,
        row: usize,
        scratch: &mut SteerScratch,
    ) -> Result<(), Error> {
        let Some(scores) = &member.scores else {
            return Ok(());
        };
        let Scores { parts, weights: _ } = &**scores;
        let mut work = scratch.model.split(self)?;
        let inputs = batch.inputs.map_or_else(|| batch.rows.as_rows(), Ok)?;
        scratch.scored.clear();
        if self.prepare_row(inputs, row, &mut work).is_some() {
            let selector = self.select_all_by(parts, &mut work, &mut scratch.scored)?;
            selector.finish(&mut scratch.scored)?;
        }
        scratch.scored.end_row(RowStatus::Ok)
    }

    /// Lists features and amounts, ascending: of f' (`total`), or of f' - f. Without `edited`, f'
    /// is f.
    pub(super) fn list_whole(
        &self,
        plan: &CompiledPlan,
        member: &Member,
        edited: bool,
        total: bool,
        factor: f64,
        scratch: &mut SteerScratch,
    ) {
        let SteerScratch {
            features,
            scored,
            row,
            indices,
            amounts,
            ..
        } = scratch;
        indices.clear();
        amounts.clear();
        let scale = self.parts.decoder_scale.as_ref();
        let mut push = |feature: u32, amount: f64| {
            let mut amount = amount * factor;
            if let Some(scale) = scale {
                amount *= scale.get(feature as usize).copied().unwrap_or(0.0);
            }
            if amount != 0.0 {
                indices.push(feature);
                amounts.push(amount);
            }
        };
        let none = FeaturesRow {
            indices: &[],
            values: &[],
            status: RowStatus::Ok,
        };
        let found = features.row(0).unwrap_or(none);
        if let (Some(scores), true) = (&member.scores, edited) {
            let after = scored.row(0).unwrap_or(none);
            merge(found, after, |feature, before, after| {
                // act(0) is 0 for every rule: no score, no feature.
                let scored = scores.weights.get(feature as usize) != Some(&0.0);
                let after = if scored { after } else { 0.0 };
                push(feature, if total { after } else { after - before });
            });
            return;
        }
        // Where the edited features are, two ascending lists are merged; slots of features that no
        // edit touched count as not edited.
        let slots: &[Slot] = row.slots.get(..plan.edited.len()).unwrap_or(&[]);
        let mut slots = plan
            .edited
            .iter()
            .zip(slots)
            .filter(|(_, slot)| edited && (slot.owner != 0 || slot.adds))
            .peekable();
        let mut fired = found.indices.iter().zip(found.values).peekable();
        loop {
            let next_slot = slots.peek().map(|next| *next.0);
            let next_fired = fired.peek().map(|next| *next.0);
            let feature = match (next_slot, next_fired) {
                (None, None) => break,
                (Some(one), None) | (None, Some(one)) => one,
                (Some(one), Some(other)) => one.min(other),
            };
            let value = match next_fired == Some(feature) {
                true => fired.next().map_or(0.0, |next| f64::from(*next.1)),
                false => 0.0,
            };
            if next_slot == Some(feature) {
                let slot = slots.next().map_or(Slot::default(), |next| *next.1);
                push(
                    feature,
                    match (total, slot.owner) {
                        (false, _) => slot.change(),
                        (true, owner) if owner != 0 && slot.before == value => {
                            slot.after + slot.added
                        }
                        (true, _) => value + slot.change(),
                    },
                );
                continue;
            }
            let kept = !edited
                || member
                    .keep_only
                    .as_ref()
                    .is_none_or(|kept| kept.binary_search(&feature).is_ok());
            match (total, kept) {
                (true, true) => push(feature, value),
                (false, false) => push(feature, -value),
                _ => {}
            }
        }
    }

    /// `new` = the reconstruction from the listed amounts, as decode forms it.
    pub(super) fn decode_list(
        &self,
        batch: &Batch<'_>,
        row: usize,
        norm: RowNorm,
        scratch: &mut SteerScratch,
    ) -> Result<(), Error> {
        let mut work = scratch.model.split(self)?;
        if self.needs_inputs_to_decode() {
            let inputs = batch.inputs.map_or_else(|| batch.rows.as_rows(), Ok)?;
            load_row(self.kernels, inputs, row, work.raw);
        }
        self.add_listed(&scratch.indices, &scratch.amounts, &mut work);
        self.complete_row(norm, &mut work);
        scratch.new.copy_from_slice(work.output);
        Ok(())
    }

    /// Multiplies by g.
    pub(super) fn scale_out(&self, norm: RowNorm, change: &mut [f64]) {
        if !self.undoes_norm() {
            return;
        }
        for value in change {
            *value = match self.parts.input_norm {
                InputNorm::LayerNorm => *value * norm.scale,
                InputNorm::ConstantNorm => *value / norm.scale,
                InputNorm::None => *value,
            };
        }
    }

    /// Adds the changes of directions; whether there are any.
    pub(super) fn add_directions(
        &self,
        plan: &CompiledPlan,
        row: &RowState,
        factor: f64,
        sums: &mut [f64],
    ) -> bool {
        let directions = &plan.directions;
        let slots = row.slots.get(plan.edited.len()..).unwrap_or(&[]);
        let mut any = false;
        for (i, slot) in slots.iter().enumerate() {
            let amount = slot.change() * factor;
            if amount != 0.0 {
                let bytes = directions.bytes_from(i);
                self.kernels
                    .add_scaled_row(directions.weight_type(), bytes, amount, sums);
                any = true;
            }
        }
        any
    }
}

impl SteerScratch {
    /// Lists the edited features whose amount is not 0, ascending, with their amounts.
    pub(super) fn list_amounts(&mut self, plan: &CompiledPlan, factor: f64) {
        let SteerScratch {
            row,
            indices,
            amounts,
            ..
        } = self;
        let slots = row.slots.get(..plan.edited.len()).unwrap_or(&[]);
        indices.clear();
        amounts.clear();
        for (i, slot) in slots.iter().enumerate() {
            let mut amount = slot.change() * factor;
            if let Some(scale) = plan.decoder_scale.get(i) {
                amount *= scale;
            }
            if amount != 0.0 {
                indices.push(i as u32);
                amounts.push(amount);
            }
        }
    }
}

/// Both rows' features in ascending order, with the values that each has.
fn merge(before: FeaturesRow<'_>, after: FeaturesRow<'_>, mut take: impl FnMut(u32, f64, f64)) {
    let (mut i, mut j) = (0, 0);
    loop {
        let (one, other) = (before.indices.get(i), after.indices.get(j));
        let feature = match (one, other) {
            (None, None) => return,
            (Some(&one), None) => one,
            (None, Some(&other)) => other,
            (Some(&one), Some(&other)) => one.min(other),
        };
        let value = |row: FeaturesRow<'_>, at: &mut usize| match row.indices.get(*at) {
            Some(&found) if found == feature => {
                *at += 1;
                row.values
                    .get(*at - 1)
                    .map_or(0.0, |&value| f64::from(value))
            }
            _ => 0.0,
        };
        let (from, to) = (value(before, &mut i), value(after, &mut j));
        take(feature, from, to);
    }
}

fn difference(new: &[f64], old: &[f64], change: &mut [f64]) {
    for ((change, new), old) in change.iter_mut().zip(new).zip(old) {
        *change = new - old;
    }
}
