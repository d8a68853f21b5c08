//! Plans that add the same vector to every row, as that vector: for hosts that know constant
//! vectors only, and for files such as llama.cpp's control vectors.

use super::compiled::{CompiledPlan, Member, RowScale};
use super::plan::{RowFilter, Rule};
use crate::decode::add_amounts;
use crate::error::Error;
use crate::json::invalid;
use crate::model::Sae;
use alloc::format;
use alloc::vec::Vec;

impl Sae<'_> {
    /// The vector that the plan adds to every row, `[d_out]`, rounded once to f32: the sum of
    /// `c_i d_i` and `c_k v_k`.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] if the plan does anything else: another rule than `add`, a strength
    /// or condition that depends on the row, a row filter, a budget, a mask; or if the model undoes
    /// a normalisation, so that the change of a feature depends on the row.
    /// [`Error::InvalidArgument`] if the plan was compiled for another model.
    pub fn constant_vector(&self, plan: &CompiledPlan) -> Result<Vec<f32>, Error> {
        if plan.identity != self.identity {
            return Err(Error::InvalidArgument {
                what: "plan",
                expected: "a plan compiled for this model".into(),
                found: "one of another model".into(),
            });
        }
        for (number, member) in plan.members.iter().enumerate() {
            self.check_constant(plan, number, member)?;
        }
        let mut amounts = alloc::vec![0.0; plan.slots()];
        for member in &plan.members {
            for edit in &member.edits {
                let strength = member.numbers.get(edit.strength.first).copied();
                if let Some(amount) = amounts.get_mut(edit.slot) {
                    *amount += strength.unwrap_or(0.0);
                }
            }
        }
        let (features, directions) = amounts.split_at_mut(plan.edited.len());
        for (amount, scale) in features.iter_mut().zip(&plan.decoder_scale) {
            *amount *= scale;
        }
        let mut sums = alloc::vec![0.0; self.d_out()];
        for (matrix, amounts) in [(&plan.decoder, features), (&plan.directions, directions)] {
            let indices: Vec<u32> = (0..amounts.len() as u32).collect();
            add_amounts(self.kernels, matrix, &indices, amounts, &mut sums);
        }
        let rounded: Vec<f32> = sums.iter().map(|&sum| sum as f32).collect();
        match rounded.iter().find(|value| !value.is_finite()) {
            None => Ok(rounded),
            Some(wrong) => Err(invalid(
                "edits",
                "strengths whose sum fits f32",
                format!("{wrong}"),
            )),
        }
    }

    fn check_constant(
        &self,
        plan: &CompiledPlan,
        number: usize,
        member: &Member,
    ) -> Result<(), Error> {
        let refuse = |key: &str, found: &str| {
            let path = match plan.members.len() {
                1 => key.into(),
                _ => format!("plans[{number}].{key}"),
            };
            let expected = "a plan that adds the same vector to every row";
            Err(invalid(&path, expected, found))
        };
        if member.when.is_some() {
            return refuse("when", "a condition");
        }
        if member.rows != RowFilter::default() {
            return refuse("rows", "a filter");
        }
        if member.budget.is_some() {
            return refuse("budget", "a budget");
        }
        if member.keep_only.is_some() {
            return refuse("keep_only", "a mask");
        }
        if member.scores.is_some() {
            return refuse("scores", "scores");
        }
        if member.is_whole() {
            return refuse("error", "drop");
        }
        for edit in &member.edits {
            if edit.slot < plan.edited.len() && self.one_vector_each("plan").is_err() {
                return refuse("edits", "a feature that writes no multiple of one vector");
            }
            let strength = edit.strength;
            let feature = plan.edited.get(edit.slot);
            let on = match feature {
                Some(feature) => format!("on feature {feature}"),
                None => "on a direction".into(),
            };
            if edit.rule != Rule::Add {
                return refuse("edits", &format!("`{}` {on}", edit.rule.name()));
            }
            if strength.count != 1 {
                return refuse("edits", &format!("a strength for each phase {on}"));
            }
            let of = match strength.of {
                RowScale::One => None,
                RowScale::CurrentMax => Some("the largest value in the row"),
                RowScale::RowNorm | RowScale::FeatureNorm => Some("the length of the row"),
            };
            if let Some(of) = of {
                return refuse("edits", &format!("a strength relative to {of}, {on}"));
            }
            if edit.over.is_some() || edit.under.is_some() {
                return refuse("edits", &format!("a limit {on}"));
            }
            if feature.is_some() && self.undoes_norm() {
                let found = format!("an edit {on} of a model that normalises its input");
                return refuse("edits", &found);
            }
        }
        Ok(())
    }
}
