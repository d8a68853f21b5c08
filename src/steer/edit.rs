//! The rules: what an edit makes of the value that it reads, and how edits of one feature meet.

use super::compiled::{CompiledCondition, CompiledEdit, Member, Number, RowScale, Source};
use super::plan::{Conflicts, Rule};
use super::scratch::{RowState, Slot};

impl RowState {
    /// Whether a condition holds.
    pub(super) fn holds(&self, condition: &CompiledCondition) -> bool {
        let value = |read: usize| self.values.get(read).copied().unwrap_or(0.0);
        match condition {
            CompiledCondition::Over { read, over } => value(*read) > *over,
            CompiledCondition::Any(list) => list.iter().any(|one| self.holds(one)),
            CompiledCondition::All(list) => list.iter().all(|one| self.holds(one)),
            CompiledCondition::Not(inner) => !self.holds(inner),
            CompiledCondition::Linear {
                weights,
                bias,
                over,
            } => {
                let terms = weights.iter();
                let sum = terms.fold(*bias, |sum, &(read, weight)| sum + weight * value(read));
                sum > *over
            }
            CompiledCondition::Reconstruction { .. } => false,
        }
    }

    /// Applies the edits of a plan to the slots.
    pub(super) fn edit(&mut self, member: &Member, i: usize, between: Conflicts) {
        for edit in &member.edits {
            let (value, source) = match edit.source {
                Source::Nothing => (0.0, 0.0),
                Source::Value(at) => (of(&self.values, at), of(&self.sources, at)),
                Source::PreActivation(at) => (of(&self.pre, at), 0.0),
                Source::Coefficient(at) => (of(&self.coefficients, at), 0.0),
            };
            let beyond = edit
                .over
                .is_some_and(|limit| value <= self.number(member, limit))
                || edit
                    .under
                    .is_some_and(|limit| value >= self.number(member, limit));
            if beyond {
                continue;
            }
            let strength = self.number(member, edit.strength);
            if let Some(slot) = self.slots.get_mut(edit.slot) {
                slot.apply(
                    edit,
                    value,
                    strength,
                    source,
                    i + 1,
                    member.conflicts,
                    between,
                );
            }
        }
    }

    fn number(&self, member: &Member, number: Number) -> f64 {
        let phase = match number.count {
            1 => 0,
            count => self.phase.min(count - 1),
        };
        let value = of(&member.numbers, number.first + phase);
        match number.of {
            RowScale::One => value,
            RowScale::CurrentMax => value * self.current_max,
            RowScale::FeatureNorm => value * self.feature_norm,
            RowScale::RowNorm => value * self.row_norm,
        }
    }
}

impl Slot {
    #[allow(clippy::too_many_arguments)] // an edit and what it reads
    fn apply(
        &mut self,
        edit: &CompiledEdit,
        f: f64,
        c: f64,
        source: f64,
        owner: usize,
        within: Conflicts,
        between: Conflicts,
    ) {
        let after = match edit.rule {
            Rule::Add => {
                self.adds = true;
                self.added += c;
                return;
            }
            Rule::Set => c,
            Rule::Scale => c * f,
            Rule::MaxClamp if f < c => c,
            Rule::MinCap if f > c => c,
            Rule::MaxClamp | Rule::MinCap => f,
            Rule::Zero => 0.0,
            Rule::NegativeWhenActive if f > 0.0 => -c,
            Rule::NegativeWhenActive => f,
            Rule::ReplacePositive => f - f.max(0.0) + c,
            Rule::Remove => f - f.min(c).max(0.0),
            Rule::FromSource => source,
        };
        let policy = if self.owner == owner { within } else { between };
        match (self.owner, policy) {
            (0, _) | (_, Conflicts::Last) => {
                (self.owner, self.before, self.after) = (owner, f, after);
            }
            (_, Conflicts::Sum) => {
                self.after += after - f;
                self.owner = owner;
            }
            _ => {}
        }
    }
}

fn of(values: &[f64], at: usize) -> f64 {
    values.get(at).copied().unwrap_or(0.0)
}
