//! Steering rows: checks the batch, decides row by row which plans act, and writes once. The hot
//! path: nothing here or below allocates.

use super::batch::{Batch, Outcome, Report, RowInfo};
use super::compiled::{CompiledCondition, CompiledPlan, Member};
use super::plan::{Budget, Conflicts, OverBudget, Scope};
use super::read::FETCHED;
use super::scratch::{RowState, Slot, SteerScratch};
use crate::dtype::Dtype;
use crate::encode::{RowNorm, check_width};
use crate::error::Error;
use crate::features::Features;
use crate::kernels::fetch;
use crate::model::{Matrix, Sae};
use crate::rows_mut::fits;

impl Sae<'_> {
    /// Steers every row of the batch in place.
    ///
    /// All edits read the row as it was. A row that nothing changes keeps its bytes; so does one
    /// that is not finite, would not be finite, or would exceed its budget: `report` counts them,
    /// and [`Batch::outcomes`] tells which. The result of a row depends neither on the others of
    /// the batch (unless a plan has the scope of a batch) nor on the CPU.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the plan was compiled for another model, or rows, inputs,
    /// sources or infos that it needs are missing; [`Error::Length`] if a length does not match.
    /// No row is changed then.
    pub fn steer(
        &self,
        plan: &CompiledPlan,
        mut batch: Batch<'_>,
        scratch: &mut SteerScratch,
        report: &mut Report,
    ) -> Result<(), Error> {
        self.check_batch(plan, &batch, scratch, report)?;
        self.decide_for_batch(plan, &batch, scratch)?;
        for row in 0..batch.rows.rows() {
            let (outcome, relative) = self.steer_row(plan, &mut batch, row, scratch)?;
            report.add(outcome);
            if matches!(outcome, Outcome::Edited | Outcome::Clipped) {
                for (i, &acts) in scratch.row.acting.iter().enumerate() {
                    if acts {
                        report.edited(i, relative);
                    }
                }
            }
            if let Some(to) = batch.outcomes.as_mut().and_then(|all| all.get_mut(row)) {
                *to = outcome;
            }
            let width = self.d_out();
            let changes = batch.changes.as_mut();
            if let Some(to) = changes.and_then(|all| all.get_mut(row * width..(row + 1) * width)) {
                match outcome {
                    Outcome::Edited | Outcome::Clipped => to.copy_from_slice(&scratch.change),
                    _ => to.fill(0.0),
                }
            }
        }
        Ok(())
    }

    /// Steers rows whose features are known, and those of the source rows.
    pub(crate) fn steer_known(
        &self,
        plan: &CompiledPlan,
        (features, sources): (&Features, Option<&Features>),
        batch: Batch<'_>,
        scratch: &mut SteerScratch,
        report: &mut Report,
    ) -> Result<(), Error> {
        scratch.known.copy(features, sources)?;
        self.steer(plan, batch, scratch, report)
    }

    fn check_batch(
        &self,
        plan: &CompiledPlan,
        batch: &Batch<'_>,
        scratch: &SteerScratch,
        report: &Report,
    ) -> Result<(), Error> {
        let rows = batch.rows.rows();
        if plan.identity != self.identity {
            return Err(missing("plan", "a plan compiled for this model"));
        }
        if report.audits().len() != plan.members.len() {
            return Err(missing("report", "a report made for this plan"));
        }
        scratch.fits(self, plan)?;
        let length = |what, expected: usize, found: usize| match expected == found {
            true => Ok(()),
            false => Err(Error::Length {
                what,
                expected: expected as u64,
                found: found as u64,
            }),
        };
        length("values per steered row", self.d_out(), batch.rows.width())?;
        match batch.inputs {
            Some(inputs) => {
                check_width(inputs, self.d_in())?;
                length("input rows", rows, inputs.rows())?;
            }
            None if self.attends => {}
            None => check_width(batch.rows.as_rows()?, self.d_in())?,
        }
        if self.attends {
            scratch.known.check(self, plan, rows)?;
        } else if let Some(sources) = batch.sources {
            check_width(sources, self.d_in())?;
        } else if plan.members.iter().any(|member| member.needs_sources) {
            return Err(missing("source rows", "rows that `from_source` edits read"));
        }
        if let Some(outcomes) = &batch.outcomes {
            length("outcomes", rows, outcomes.len())?;
        }
        if let Some(changes) = &batch.changes {
            length("changes", rows * self.d_out(), changes.len())?;
        }
        match batch.infos {
            Some(infos) => length("infos of rows", rows, infos.len())?,
            None => {
                let needs = plan.members.iter().find_map(|member| member.needs_info);
                if let Some(expected) = needs {
                    return Err(missing("infos of rows", expected));
                }
            }
        }
        let sources = match self.attends {
            true => scratch.known.sources.rows(),
            false => batch.sources.map_or(0, |sources| sources.rows()),
        };
        (0..rows).try_for_each(|row| check_info(plan, sources, batch.info(row)))
    }

    /// Decides for plans whose condition is for all rows of the call together.
    fn decide_for_batch(
        &self,
        plan: &CompiledPlan,
        batch: &Batch<'_>,
        scratch: &mut SteerScratch,
    ) -> Result<(), Error> {
        for (i, member) in plan.members.iter().enumerate() {
            let Some(when) = member
                .when
                .as_ref()
                .filter(|_| member.scope == Scope::Batch)
            else {
                set(&mut scratch.row.decided, i, true);
                continue;
            };
            let (mut holds, mut sum, mut count) = (false, 0.0, 0usize);
            for row in 0..batch.rows.rows() {
                let info = batch.info(row);
                if !applies(plan, i, &info) {
                    continue;
                }
                scratch.row.acting.fill(false);
                set(&mut scratch.row.acting, i, true);
                let Some(norm) = self.read(plan, batch, row, &info, scratch)? else {
                    continue;
                };
                match when {
                    &CompiledCondition::Reconstruction { edited, .. } => {
                        self.reconstruct(plan, i, edited, batch, row, norm, scratch)?;
                        sum += self.squared_difference(scratch)?;
                        count += self.d_out();
                    }
                    condition => holds |= scratch.row.holds(condition),
                }
            }
            if let CompiledCondition::Reconstruction { at_least, .. } = when {
                holds = count > 0 && sum / count as f64 >= *at_least;
            }
            set(&mut scratch.row.decided, i, holds);
        }
        Ok(())
    }

    /// Steers one row: its outcome, and how far it moved.
    fn steer_row(
        &self,
        plan: &CompiledPlan,
        batch: &mut Batch<'_>,
        row: usize,
        scratch: &mut SteerScratch,
    ) -> Result<(Outcome, f64), Error> {
        let info = batch.info(row);
        let mut any = false;
        for (i, acts) in scratch.row.acting.iter_mut().enumerate() {
            *acts = applies(plan, i, &info);
            any |= *acts;
        }
        if !any {
            return Ok((Outcome::Filtered, 0.0));
        }
        if info.factor == 0.0 {
            return Ok((Outcome::Unchanged, 0.0));
        }
        plan.fetch_first(&scratch.row.acting);
        let Some(norm) = self.read(plan, batch, row, &info, scratch)? else {
            return Ok((Outcome::NonFinite, 0.0));
        };
        if !self.decide(plan, batch, row, norm, scratch)? {
            return Ok((Outcome::Unchanged, 0.0));
        }
        let whole = plan.alone(&mut scratch.row.acting);
        for (i, member) in plan.members.iter().enumerate() {
            if scratch.row.acting.get(i) == Some(&true) {
                scratch.row.edit(member, i, plan.conflicts);
            }
        }
        let changes = match whole {
            Some(i) => self.change_whole(plan, i, batch, row, norm, info.factor, scratch)?,
            None if self.writes_otherwise() => {
                self.change_written(plan, batch, row, norm, info.factor, scratch)?
            }
            None if batch.rows.dtype() == Dtype::F32 => {
                return self.move_row(plan, batch, row, norm, info.factor, scratch);
            }
            None => self.change(plan, norm, info.factor, scratch),
        };
        if !changes {
            return Ok((Outcome::Unchanged, 0.0));
        }
        self.write(plan, batch, row, scratch)
    }

    /// Which plans act on the row; whether any does.
    fn decide(
        &self,
        plan: &CompiledPlan,
        batch: &Batch<'_>,
        row: usize,
        norm: RowNorm,
        scratch: &mut SteerScratch,
    ) -> Result<bool, Error> {
        let mut any = false;
        for (i, member) in plan.members.iter().enumerate() {
            if scratch.row.acting.get(i) != Some(&true) {
                continue;
            }
            let holds = match (&member.when, member.scope) {
                (None, _) => true,
                (Some(_), Scope::Batch) => scratch.row.decided.get(i) == Some(&true),
                (&Some(CompiledCondition::Reconstruction { edited, at_least }), _) => {
                    self.reconstruct(plan, i, edited, batch, row, norm, scratch)?;
                    let sum = self.squared_difference(scratch)?;
                    sum / self.d_out() as f64 >= at_least
                }
                (Some(condition), Scope::Row) => scratch.row.holds(condition),
            };
            set(&mut scratch.row.acting, i, holds);
            any |= holds;
        }
        scratch.row.slots.fill(Slot::default());
        Ok(any)
    }

    /// Holds the change to the budget and writes the row.
    pub(super) fn write(
        &self,
        plan: &CompiledPlan,
        batch: &mut Batch<'_>,
        row: usize,
        scratch: &mut SteerScratch,
    ) -> Result<(Outcome, f64), Error> {
        let SteerScratch {
            row: state,
            old,
            new,
            change,
            ..
        } = scratch;
        let length = libm::sqrt(self.kernels.sum_squares_about(change, 0.0));
        let mut relative = match length {
            0.0 => 0.0,
            length => length / state.row_norm,
        };
        if length == 0.0 {
            return Ok((Outcome::Unchanged, 0.0));
        }
        let mut outcome = Outcome::Edited;
        if let Some(budget) = plan.budget(state)
            && relative > budget.relative
        {
            // What is not clipped is judged as it is written.
            if !new.iter().all(|value| value.is_finite()) {
                return Ok((Outcome::Overflow, 0.0));
            }
            // A row of zeros, or a length that overflows, cannot be scaled to a share of it.
            let shrink = budget.relative / relative;
            if budget.over == OverBudget::Refuse || !relative.is_finite() || shrink == 0.0 {
                return Ok((Outcome::Refused, 0.0));
            }
            for ((new, old), change) in new.iter_mut().zip(old.iter()).zip(change.iter_mut()) {
                *change *= shrink;
                *new = old + *change;
            }
            (outcome, relative) = (Outcome::Clipped, budget.relative);
        }
        let written = match batch.dry_run {
            true => fits(batch.rows.dtype(), new),
            false => batch.rows.store(row, old, new),
        };
        Ok(match written {
            true => (outcome, relative),
            false => (Outcome::Overflow, 0.0),
        })
    }
}

impl CompiledPlan {
    /// The budget of the plans that act on a row: the tightest; of equal ones, one that refuses.
    pub(super) fn budget(&self, row: &RowState) -> Option<Budget> {
        let acting = self.members.iter().zip(&row.acting);
        let budgets = acting
            .filter(|pair| *pair.1)
            .filter_map(|pair| pair.0.budget);
        budgets.reduce(|one, other| match one.relative.total_cmp(&other.relative) {
            core::cmp::Ordering::Less => one,
            core::cmp::Ordering::Greater => other,
            core::cmp::Ordering::Equal if one.over == OverBudget::Refuse => one,
            core::cmp::Ordering::Equal => other,
        })
    }

    /// Asks for the first weights that the acting plans read, so that they come while the row
    /// itself is looked at.
    fn fetch_first(&self, acting: &[bool]) {
        let Some((member, _)) = self.members.iter().zip(acting).find(|pair| *pair.1) else {
            return;
        };
        let ask = |matrix: &Matrix<'_>, row: usize| {
            let bytes = matrix.bytes_from(row);
            fetch(
                bytes
                    .get(..matrix.stride_bytes().min(FETCHED))
                    .unwrap_or(&[]),
            );
        };
        if let (Some(encoder), Some(&read)) = (&self.encoder, member.reads.first()) {
            ask(encoder, read);
        }
        if let Some(edit) = member.edits.first()
            && edit.slot < self.edited.len()
        {
            ask(&self.decoder, edit.slot);
        }
    }

    /// If a whole plan acts, which plan acts alone; the others stop acting.
    fn alone(&self, acting: &mut [bool]) -> Option<usize> {
        let whole =
            |(i, member): (usize, &Member)| member.is_whole() && acting.get(i) == Some(&true);
        if !self.members.iter().enumerate().any(whole) {
            return None;
        }
        let chosen = match self.conflicts {
            Conflicts::Last => acting.iter().rposition(|&acts| acts),
            _ => acting.iter().position(|&acts| acts),
        }?;
        acting.fill(false);
        set(acting, chosen, true);
        self.members.get(chosen)?.is_whole().then_some(chosen)
    }
}

/// Whether plan `i` is for a row.
fn applies(plan: &CompiledPlan, i: usize, info: &RowInfo) -> bool {
    let named = info.plan == RowInfo::ALL_PLANS || info.plan as usize == i;
    named
        && plan
            .members
            .get(i)
            .is_some_and(|member| member.rows.passes(info))
}

fn check_info(plan: &CompiledPlan, sources: usize, info: RowInfo) -> Result<(), Error> {
    let members = plan.members.len();
    let all = info.plan == RowInfo::ALL_PLANS;
    if all && members > 1 && plan.conflicts == Conflicts::OnePerRow {
        return Err(missing("plan of a row", "one plan for every row"));
    }
    let named = all || info.plan == RowInfo::NO_PLAN || (info.plan as usize) < members;
    if !named {
        return Err(missing("plan of a row", "a plan that was compiled"));
    }
    if !info.factor.is_finite() {
        return Err(missing("factor of a row", "a finite number"));
    }
    for (i, member) in plan.members.iter().enumerate() {
        if !applies(plan, i, &info) {
            continue;
        }
        if member
            .phases
            .is_some_and(|phases| info.phase as usize >= phases)
        {
            return Err(missing(
                "phase of a row",
                "a phase that the plan's tables have",
            ));
        }
        if member.needs_sources && info.source as usize >= sources {
            return Err(missing("source of a row", "a row among the sources"));
        }
    }
    Ok(())
}

pub(super) fn missing(what: &'static str, expected: &str) -> Error {
    Error::InvalidArgument {
        what,
        expected: expected.into(),
        found: "none, or another".into(),
    }
}

fn set(flags: &mut [bool], at: usize, value: bool) {
    if let Some(flag) = flags.get_mut(at) {
        *flag = value;
    }
}
