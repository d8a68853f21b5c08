//! Compiling one plan: strengths become numbers, features become positions, and whatever does not
//! fit the model is refused with its path.

use super::compile::{Resolved, finite};
use super::compiled::{CompiledCondition, CompiledEdit, Member, Number, RowScale, Scores, Source};
use super::plan::{
    Condition, Conflicts, Direction, Edit, ErrorTerm, Mask, Plan, Reads, Rule, Scale, ScoreMode,
    Strength, Target,
};
use super::statistics::Statistics;
use crate::error::Error;
use crate::json::invalid;
use crate::kernels::WeightType;
use crate::model::{Activation, Matrix, Parts, Sae, Thresholds};
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

/// How far the squared length of a direction whose coefficient is read may be from 1.
const UNIT_TOLERANCE: f64 = 1e-3;

pub(super) struct MemberBuilder<'b> {
    sae: &'b Sae<'b>,
    plan: &'b Plan,
    prefix: &'b str,
    all: &'b mut Resolved,
    first_direction: usize,
    numbers: Vec<f64>,
    phases: Option<usize>,
    reads: BTreeSet<usize>,
    coefficients: BTreeSet<usize>,
    needs_encode: bool,
}

impl<'b> MemberBuilder<'b> {
    pub(super) fn new(
        sae: &'b Sae<'b>,
        plan: &'b Plan,
        prefix: &'b str,
        all: &'b mut Resolved,
    ) -> Self {
        MemberBuilder {
            sae,
            plan,
            prefix,
            first_direction: all.directions.len(),
            all,
            numbers: Vec::new(),
            phases: None,
            reads: BTreeSet::new(),
            coefficients: BTreeSet::new(),
            needs_encode: false,
        }
    }

    pub(super) fn build(&mut self) -> Result<Member, Error> {
        let (plan, prefix) = (self.plan, self.prefix);
        if let Some(d_sae) = plan.d_sae
            && d_sae as usize != self.sae.d_sae()
        {
            return Err(invalid(
                &format!("{prefix}d_sae"),
                format!("the model's {}", self.sae.d_sae()),
                d_sae.to_string(),
            ));
        }
        self.directions()?;
        let mut edits = Vec::new();
        for (i, edit) in plan.edits.iter().enumerate() {
            self.edit(edit, &format!("{prefix}edits[{i}]"), &mut edits)?;
        }
        if let Mask::Drop(features) = &plan.mask {
            let zero = Edit::on(Target::Features(features.clone()), Rule::Zero, 0.0);
            self.edit(&zero, &format!("{prefix}drop"), &mut edits)?;
        }
        self.own_conflicts(&edits)?;
        let keep_only = match &plan.mask {
            Mask::KeepOnly(features) => {
                let mut features = features.clone();
                features.sort_unstable();
                features.dedup();
                Some(features)
            }
            _ => None,
        };
        let scores = self.scores(&edits)?;
        let when = plan.when.as_ref().map(|when| self.condition(when));
        for (needed, what) in [
            (keep_only.is_some(), "keep_only"),
            (scores.is_some(), "scores"),
            (plan.error == ErrorTerm::Drop, "error"),
            (
                matches!(plan.when, Some(Condition::Reconstruction { .. })),
                "when",
            ),
        ] {
            self.encode_if(needed, what);
        }
        // What a feature of a multi-target coder writes depends on its value, and on others'.
        let written = self.sae.parts().targets.is_some() && !edits.is_empty();
        self.encode_if(written, "edits");
        self.encode_if(self.sae.attends, "the model");
        if let Some(budget) = &plan.budget
            && (!budget.relative.is_finite() || budget.relative < 0.0)
        {
            return Err(invalid(
                &format!("{prefix}budget.relative"),
                "a finite number, 0 or more",
                budget.relative.to_string(),
            ));
        }
        let rows = &plan.rows;
        let needs_info = match () {
            () if self.phases.is_some() || rows.phases.is_some() => Some("the phase"),
            () if rows.stage.is_some() => Some("the stage"),
            () if rows.classes.is_some() || !rows.skip_classes.is_empty() => Some("the class"),
            () => None,
        };
        Ok(Member {
            name: plan.name.clone(),
            hash: plan.hash(),
            edits,
            numbers: core::mem::take(&mut self.numbers),
            conflicts: plan.conflicts,
            keep_only,
            scores,
            error: plan.error,
            rows: rows.clone(),
            when,
            scope: plan.scope,
            budget: plan.budget,
            reads: core::mem::take(&mut self.reads).into_iter().collect(),
            coefficients: core::mem::take(&mut self.coefficients)
                .into_iter()
                .collect(),
            needs_encode: self.needs_encode,
            needs_sources: plan.edits.iter().any(|edit| edit.rule == Rule::FromSource),
            phases: self.phases,
            needs_info,
        })
    }

    fn encode_if(&mut self, needed: bool, what: &str) {
        if needed {
            self.needs_encode = true;
            let reason = format!("{}{what}", self.prefix);
            if !self.all.reasons.contains(&reason) {
                self.all.reasons.push(reason);
            }
        }
    }

    fn directions(&mut self) -> Result<(), Error> {
        for (name, direction) in &self.plan.directions {
            let path = format!("{}directions.{name}.values", self.prefix);
            let unit = direction_values(direction, self.sae.d_out(), &path)?;
            self.all.directions.push(unit);
        }
        Ok(())
    }

    fn edit(
        &mut self,
        edit: &Edit,
        path: &str,
        edits: &mut Vec<CompiledEdit>,
    ) -> Result<(), Error> {
        match &edit.target {
            Target::Features(features) => {
                for &feature in features {
                    let edit = self.feature_edit(edit, feature, path)?;
                    edits.push(edit);
                }
            }
            Target::Direction(name) => edits.push(self.direction_edit(edit, name, path)?),
        }
        Ok(())
    }

    fn feature_edit(
        &mut self,
        edit: &Edit,
        feature: u32,
        path: &str,
    ) -> Result<CompiledEdit, Error> {
        if edit.reads == Reads::PreActivation && !self.has_pre_activations() {
            let expected = match self.sae.attends {
                false => "`feature`: this model has no pre-activations of its own",
                true => "`feature`: plans for a Lorsa see its features, not what they attend to",
            };
            return Err(invalid(
                &format!("{path}.reads"),
                expected,
                "pre_activation",
            ));
        }
        let source = match (reads_value(edit), edit.reads) {
            (false, _) => Source::Nothing,
            (true, Reads::Feature) => Source::Value(self.read(feature, path)),
            (true, Reads::PreActivation) => {
                let read = self.all.reads.binary_search(&feature).unwrap_or(0);
                self.all.reads_pre = true;
                self.reads.insert(read);
                Source::PreActivation(read)
            }
        };
        Ok(CompiledEdit {
            slot: self.all.edited.binary_search(&feature).unwrap_or(0),
            source,
            rule: edit.rule,
            strength: self.number(&edit.strength, Some(feature), &format!("{path}.strength"))?,
            over: self.limit(&edit.over, Some(feature), &format!("{path}.over"))?,
            under: self.limit(&edit.under, Some(feature), &format!("{path}.under"))?,
        })
    }

    fn direction_edit(
        &mut self,
        edit: &Edit,
        name: &str,
        path: &str,
    ) -> Result<CompiledEdit, Error> {
        let number = self.plan.directions.keys().position(|key| key == name);
        let Some(number) = number.map(|number| self.first_direction + number) else {
            return Err(invalid(
                &format!("{path}.direction"),
                "a name from `directions`",
                name,
            ));
        };
        if edit.rule == Rule::FromSource || edit.reads == Reads::PreActivation {
            let expected = "a rule on the coefficient of a direction";
            return Err(invalid(path, expected, "one on features"));
        }
        let source = match reads_value(edit) {
            false => Source::Nothing,
            true => {
                let values = self.all.directions.get(number);
                let square = values.map_or(0.0, |values| squared_length(values));
                if (square - 1.0).abs() > UNIT_TOLERANCE {
                    return Err(invalid(
                        &format!("{path}.direction"),
                        "a direction of length 1 (or with `normalize`)",
                        format!("length {}", libm::sqrt(square)),
                    ));
                }
                self.coefficients.insert(number);
                Source::Coefficient(number)
            }
        };
        Ok(CompiledEdit {
            slot: self.all.edited.len() + number,
            source,
            rule: edit.rule,
            strength: self.number(&edit.strength, None, &format!("{path}.strength"))?,
            over: self.limit(&edit.over, None, &format!("{path}.over"))?,
            under: self.limit(&edit.under, None, &format!("{path}.under"))?,
        })
    }

    /// Whether each feature has one number that its encoder row alone gives.
    fn has_pre_activations(&self) -> bool {
        let parts = self.sae.parts();
        let composed = matches!(
            parts.activation,
            Activation::Pursuit(_) | Activation::Ensemble(_)
        );
        !composed && parts.glu.is_none() && !self.sae.attends
    }

    /// The position of a feature whose value is read.
    fn read(&mut self, feature: u32, path: &str) -> usize {
        let read = self.all.reads.binary_search(&feature).unwrap_or(0);
        self.reads.insert(read);
        if self.sae.ranks() {
            // Paths here begin with the prefix already.
            self.needs_encode = true;
            if !self.all.reasons.iter().any(|reason| reason == path) {
                self.all.reasons.push(path.into());
            }
        }
        read
    }

    fn limit(
        &mut self,
        limit: &Option<Strength>,
        feature: Option<u32>,
        path: &str,
    ) -> Result<Option<Number>, Error> {
        let limit = limit.as_ref();
        limit
            .map(|limit| self.number(limit, feature, path))
            .transpose()
    }

    fn number(
        &mut self,
        strength: &Strength,
        feature: Option<u32>,
        path: &str,
    ) -> Result<Number, Error> {
        let count = strength.values.len();
        if count == 0 {
            return Err(invalid(path, "at least one value", "none"));
        }
        if count > 1 {
            self.phases = Some(self.phases.map_or(count, |phases| phases.min(count)));
        }
        let statistics: &Statistics = &self.plan.statistics;
        let found = feature.and_then(|feature| statistics.of(feature));
        let need = |value: Option<f64>, what: &str| match (value, feature) {
            (Some(value), _) => finite(path, value).map(|()| value),
            (None, Some(feature)) => Err(invalid(
                path,
                format!("a {what} of feature {feature}, in `statistics` or from labels"),
                "none",
            )),
            (None, None) => Err(invalid(
                path,
                "a scale that does not need statistics of a feature",
                what,
            )),
        };
        let unit = match strength.of {
            Scale::CorpusMax => need(found.and_then(|found| found.max), "max")?,
            Scale::CorpusMean => need(found.and_then(|found| found.mean), "mean")?,
            _ => 1.0,
        };
        let of = match (strength.of, feature) {
            (Scale::CurrentMax, _) => {
                let path = path.get(self.prefix.len()..).unwrap_or(path);
                self.encode_if(true, path);
                RowScale::CurrentMax
            }
            (Scale::RowNorm, Some(_)) => RowScale::FeatureNorm,
            (Scale::RowNorm, None) => RowScale::RowNorm,
            _ => RowScale::One,
        };
        let more = match strength.deviations {
            0.0 => 0.0,
            _ if of != RowScale::One => {
                let expected = "`deviations` only with absolute and corpus scales";
                return Err(invalid(path, expected, strength.of.name()));
            }
            deviations => {
                finite(path, deviations)?;
                deviations * need(found.and_then(|found| found.deviation), "deviation")?
            }
        };
        let first = self.numbers.len();
        for value in &strength.values {
            let number = value * unit + more;
            finite(path, number)?;
            self.numbers.push(number);
        }
        Ok(Number { first, count, of })
    }

    /// Whether edits of this plan meet on a target, where that is refused.
    fn own_conflicts(&self, edits: &[CompiledEdit]) -> Result<(), Error> {
        match self.plan.conflicts {
            Conflicts::Refuse => {}
            Conflicts::OnePerRow => {
                let path = format!("{}conflicts", self.prefix);
                return Err(invalid(&path, "refuse, first, last or sum", "one_per_row"));
            }
            _ => return Ok(()),
        }
        let mut seen = BTreeSet::new();
        for edit in edits.iter().filter(|edit| edit.rule != Rule::Add) {
            if !seen.insert(edit.slot) {
                let found = match self.all.edited.get(edit.slot) {
                    Some(feature) => format!("feature {feature} twice"),
                    None => "a direction twice".into(),
                };
                return Err(invalid(
                    &format!("{}edits", self.prefix),
                    "at most one edit of a feature or direction besides `add` (or `conflicts`)",
                    found,
                ));
            }
        }
        Ok(())
    }

    fn scores(&self, edits: &[CompiledEdit]) -> Result<Option<Box<Scores>>, Error> {
        let Mask::Scores {
            mode,
            weights,
            default,
        } = &self.plan.mask
        else {
            return Ok(None);
        };
        let path = format!("{}scores", self.prefix);
        let features = self.all.edited.len();
        if edits.iter().any(|edit| edit.slot < features) {
            return Err(invalid(
                &path,
                "a plan without edits of features",
                "edits of features",
            ));
        }
        if !self.has_pre_activations() {
            let expected = "a model with pre-activations";
            let found = match self.sae.attends {
                false => self.sae.parts().activation.describe(),
                true => "a Lorsa, of which plans see the features".into(),
            };
            return Err(invalid(&path, expected, found));
        }
        let score = |feature: usize| weights.get(&(feature as u32)).copied().unwrap_or(*default);
        let weights: Vec<f64> = (0..self.sae.d_sae()).map(score).collect();
        if let Some(wrong) = weights.iter().find(|w| !w.is_finite() || **w < 0.0) {
            return Err(invalid(
                &path,
                "finite scores, 0 or more",
                wrong.to_string(),
            ));
        }
        let model = self.sae.parts();
        let product = |vector: &Option<Vec<f64>>| -> Vec<f64> {
            match vector {
                None => weights.clone(),
                Some(vector) => vector.iter().zip(&weights).map(|(a, b)| a * b).collect(),
            }
        };
        let nothing = || {
            let d_sae = self.sae.d_sae();
            Matrix::from_rows("scores", Vec::new(), WeightType::F32, d_sae, 0)
        };
        let activation = match (&model.activation, mode) {
            (Activation::TanhRelu, ScoreMode::Swap) => {
                return Err(invalid(&format!("{path}.mode"), "weight", "swap"));
            }
            // Plain ReLU does not look at ranks; as a JumpReLU at 0 it does.
            (Activation::Relu, ScoreMode::Swap) => Activation::JumpRelu {
                threshold: Thresholds::Scalar(0.0),
                relu: true,
                inclusive: false,
            },
            (rule, _) => rule.clone(),
        };
        let mut parts = Parts::new(nothing(), activation, nothing());
        parts.value_map = model.value_map;
        match mode {
            ScoreMode::Weight => {
                parts.scale = Some(product(&model.scale));
                parts.bias = model.bias.as_ref().map(|_| product(&model.bias));
                parts.rank_weight = model.rank_weight.clone();
            }
            ScoreMode::Swap => {
                parts.scale = model.scale.clone();
                parts.bias = model.bias.clone();
                parts.rank_weight = Some(product(&model.rank_weight));
            }
        }
        Ok(Some(Box::new(Scores { parts, weights })))
    }

    fn condition(&mut self, condition: &Condition) -> CompiledCondition {
        let each = |this: &mut Self, list: &[Condition]| {
            list.iter().map(|one| this.condition(one)).collect()
        };
        let path = format!("{}when", self.prefix);
        match condition {
            &Condition::Over { feature, over } => CompiledCondition::Over {
                read: self.read(feature, &path),
                over,
            },
            Condition::Any(list) => CompiledCondition::Any(each(self, list)),
            Condition::All(list) => CompiledCondition::All(each(self, list)),
            Condition::Not(inner) => CompiledCondition::Not(Box::new(self.condition(inner))),
            Condition::Linear {
                weights,
                bias,
                over,
            } => CompiledCondition::Linear {
                weights: weights
                    .iter()
                    .map(|&(feature, weight)| (self.read(feature, &path), weight))
                    .collect(),
                bias: *bias,
                over: *over,
            },
            &Condition::Reconstruction { edited, at_least } => {
                CompiledCondition::Reconstruction { edited, at_least }
            }
        }
    }
}

/// Whether an edit needs the value of its target.
pub(super) fn reads_value(edit: &Edit) -> bool {
    edit.rule != Rule::Add || edit.over.is_some() || edit.under.is_some()
}

/// The direction's values as they are used.
fn direction_values(direction: &Direction, d_out: usize, path: &str) -> Result<Vec<f32>, Error> {
    let values = &direction.values;
    if values.len() != d_out {
        return Err(invalid(
            path,
            format!("{d_out} values"),
            values.len().to_string(),
        ));
    }
    if let Some(wrong) = values.iter().find(|value| !value.is_finite()) {
        return Err(invalid(path, "finite numbers", wrong.to_string()));
    }
    if !direction.normalize {
        return Ok(values.clone());
    }
    let length = libm::sqrt(squared_length(values));
    if length == 0.0 {
        return Err(invalid(path, "a direction that is not zero", "zero"));
    }
    let unit = values
        .iter()
        .map(|&value| (f64::from(value) / length) as f32);
    Ok(unit.collect())
}

fn squared_length(values: &[f32]) -> f64 {
    let squares = values
        .iter()
        .map(|&value| f64::from(value) * f64::from(value));
    squares.sum()
}
