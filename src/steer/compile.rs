//! Checking plans against a model, and gathering what they need of it, once.

use super::compiled::{CompiledPlan, Member, PlanCost};
use super::json::MAX_CONDITION_DEPTH;
use super::member::{MemberBuilder, reads_value};
use super::plan::{Condition, Conflicts, Mask, Plan, Rule, Target};
use crate::error::Error;
use crate::json::invalid;
use crate::kernels::WeightType;
use crate::model::{Matrix, Sae};
use crate::readout::gather;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

impl Sae<'_> {
    /// What steering with this plan costs. Gathers nothing.
    ///
    /// # Errors
    /// As [`Sae::compile_plan`], but for memory.
    pub fn plan_cost(&self, plan: &Plan) -> Result<PlanCost, Error> {
        Ok(Resolved::new(self, core::slice::from_ref(plan), Conflicts::Refuse)?.cost(self))
    }

    /// Checks a plan against this model and gathers the weights that it needs.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] with the path of what is wrong (`edits[3].strength`): a feature out
    /// of range, a number that is not finite, a statistic that is missing, edits that conflict;
    /// [`Error::OutOfMemory`].
    pub fn compile_plan(&self, plan: &Plan) -> Result<CompiledPlan, Error> {
        self.compile_plans(core::slice::from_ref(plan), Conflicts::Refuse)
    }

    /// Compiles several plans into one. A row is steered by all plans whose filters it passes, or
    /// by the one that its [`RowInfo`](super::RowInfo) names; `conflicts` says what happens where
    /// two plans edit one feature of a row. Plans that keep or drop whole sets of features, or
    /// drop the error, act alone on a row: the first or last acting plan, as `conflicts` says.
    ///
    /// # Errors
    /// As [`Sae::compile_plan`], with paths that begin with `plans[1].`.
    pub fn compile_plans(
        &self,
        plans: &[Plan],
        conflicts: Conflicts,
    ) -> Result<CompiledPlan, Error> {
        Resolved::new(self, plans, conflicts)?.gather(self)
    }

    /// Whether values are read from an encoded row: a feature depends on all others, or its value
    /// on more than its own product.
    pub(super) fn ranks(&self) -> bool {
        self.reads_all_for_one() || self.parts().glu.is_some() || self.attends
    }
}

/// Plans checked against a model, before anything is gathered.
pub(super) struct Resolved {
    pub(super) members: Vec<Member>,
    pub(super) conflicts: Conflicts,
    pub(super) reads: Vec<u32>,
    /// Whether a pre-activation is read.
    pub(super) reads_pre: bool,
    pub(super) edited: Vec<u32>,
    pub(super) directions: Vec<Vec<f32>>,
    pub(super) reasons: Vec<String>,
}

impl Resolved {
    fn new(sae: &Sae<'_>, plans: &[Plan], conflicts: Conflicts) -> Result<Self, Error> {
        let mut this = Resolved {
            members: Vec::new(),
            conflicts,
            reads: Vec::new(),
            reads_pre: false,
            edited: Vec::new(),
            directions: Vec::new(),
            reasons: Vec::new(),
        };
        let prefix = |i: usize| match plans.len() {
            1 => String::new(),
            _ => format!("plans[{i}]."),
        };
        // First which features, so that positions are known; features are checked here.
        let (mut reads, mut edited) = (BTreeSet::new(), BTreeSet::new());
        for (i, plan) in plans.iter().enumerate() {
            let names = Names::of(sae, plan, &prefix(i))?;
            reads.extend(names.reads);
            edited.extend(names.edited);
        }
        this.reads = reads.into_iter().collect();
        this.edited = edited.into_iter().collect();
        for (i, plan) in plans.iter().enumerate() {
            let prefix = prefix(i);
            let member = MemberBuilder::new(sae, plan, &prefix, &mut this).build()?;
            this.members.push(member);
        }
        this.check_conflicts()?;
        Ok(this)
    }

    /// What could happen on some row under [`Conflicts::Refuse`].
    fn check_conflicts(&self) -> Result<(), Error> {
        let alone = matches!(
            self.conflicts,
            Conflicts::First | Conflicts::Last | Conflicts::OnePerRow
        );
        if self.members.len() < 2 || self.conflicts == Conflicts::OnePerRow {
            return Ok(());
        }
        if let Some(i) = self.members.iter().position(Member::is_whole)
            && !alone
        {
            return Err(invalid(
                &format!("plans[{i}]"),
                "the conflict policy `first`, `last` or `one_per_row`: it changes features that \
                 no edit names",
                "another policy",
            ));
        }
        if self.conflicts != Conflicts::Refuse {
            return Ok(());
        }
        let mut owners: Vec<Option<usize>> = alloc::vec![None; self.edited.len()];
        for (i, member) in self.members.iter().enumerate() {
            for edit in member.edits.iter().filter(|edit| edit.rule != Rule::Add) {
                let Some(owner) = owners.get_mut(edit.slot) else {
                    continue;
                };
                match owner {
                    Some(other) if *other != i => {
                        let feature = self.edited.get(edit.slot).copied().unwrap_or(0);
                        return Err(invalid(
                            &format!("plans[{i}].edits"),
                            format!("features that plans[{other}] does not edit"),
                            feature.to_string(),
                        ));
                    }
                    _ => *owner = Some(i),
                }
            }
        }
        Ok(())
    }

    fn reads_encoder(&self, sae: &Sae<'_>) -> bool {
        !self.reads.is_empty() && (!sae.ranks() || self.reads_pre)
    }

    fn cost(&self, sae: &Sae<'_>) -> PlanCost {
        let parts = sae.parts();
        let vector = |matrix: &Matrix<'_>| (matrix.width() * matrix.weight_type().size()) as u64;
        let encoder_rows = if self.reads_encoder(sae) {
            self.reads.len()
        } else {
            0
        };
        // What transforms and targets write is read where it is.
        let decoder_rows = match sae.writes_otherwise() {
            true => 0,
            false => self.edited.len(),
        };
        let written = match (&parts.transforms, &parts.targets) {
            (Some(transforms), _) => {
                let of = |&feature: &u32| transforms.each.get(feature as usize);
                let all = self.edited.iter().filter_map(of);
                all.map(|one| one.reads.size_bytes() + one.writes.size_bytes())
                    .sum::<usize>() as u64
            }
            (None, Some(_)) => {
                parts.decoder.size_bytes() as u64 / sae.d_sae() as u64 * self.edited.len() as u64
            }
            (None, None) => 0,
        };
        let directions = (self.directions.len() * sae.d_out() * 4) as u64;
        let held = encoder_rows as u64 * vector(&parts.encoder)
            + decoder_rows as u64 * vector(&parts.decoder)
            + directions;
        let needs_encode = self.members.iter().any(|member| member.needs_encode);
        let encode = match needs_encode {
            true => parts.encoder.size_bytes() as u64,
            false => 0,
        };
        PlanCost {
            needs_encode,
            reasons: self.reasons.clone(),
            encoder_rows,
            decoder_rows,
            bytes_per_row: held + written + encode,
            bytes_held: held,
        }
    }

    fn gather(self, sae: &Sae<'_>) -> Result<CompiledPlan, Error> {
        let parts = sae.parts();
        let cost = self.cost(sae);
        let encoder = match self.reads_encoder(sae) {
            true => Some(gather(&parts.encoder, &self.reads)?),
            false => None,
        };
        let inputs = self.reads.iter().map(|&feature| {
            let place = parts.encoder.place(feature as usize);
            place.map_or(0..0, |(matrix, _, first)| first..first + matrix.width())
        });
        let inputs = inputs.collect();
        let decoder = match sae.writes_otherwise() {
            true => gather_whole(&parts.decoder, &[])?,
            false => gather_whole(&parts.decoder, &self.edited)?,
        };
        let decoder_scale = parts.decoder_scale.as_ref().map_or(Vec::new(), |scale| {
            let of = |&feature: &u32| scale.get(feature as usize).copied().unwrap_or(0.0);
            self.edited.iter().map(of).collect()
        });
        let bytes = self.directions.iter().flatten();
        let bytes: Vec<u8> = bytes.flat_map(|value| value.to_le_bytes()).collect();
        let count = self.directions.len();
        Ok(CompiledPlan {
            identity: sae.identity,
            members: self.members,
            conflicts: self.conflicts,
            reads: self.reads,
            encoder,
            inputs,
            ranks: sae.ranks(),
            edited: self.edited,
            decoder,
            decoder_scale,
            directions: Matrix::from_rows("directions", bytes, WeightType::F32, count, sae.d_out()),
            cost,
        })
    }
}

/// The features that a plan reads and edits.
#[derive(Default)]
struct Names {
    reads: BTreeSet<u32>,
    edited: BTreeSet<u32>,
}

impl Names {
    fn of(sae: &Sae<'_>, plan: &Plan, prefix: &str) -> Result<Self, Error> {
        let mut names = Names::default();
        for (i, edit) in plan.edits.iter().enumerate() {
            if let Target::Features(features) = &edit.target {
                let path = format!("{prefix}edits[{i}].feature");
                check_features(sae, &path, features)?;
                names.edited.extend(features);
                if reads_value(edit) {
                    names.reads.extend(features);
                }
            }
        }
        match &plan.mask {
            Mask::None => {}
            Mask::KeepOnly(features) => {
                check_features(sae, &format!("{prefix}keep_only"), features)?;
            }
            Mask::Drop(features) => {
                check_features(sae, &format!("{prefix}drop"), features)?;
                names.edited.extend(features);
                names.reads.extend(features);
            }
            Mask::Scores { weights, .. } => {
                let features: Vec<u32> = weights.keys().copied().collect();
                check_features(sae, &format!("{prefix}scores.weights"), &features)?;
            }
        }
        if let Some(when) = &plan.when {
            names.condition(sae, when, &format!("{prefix}when"), 0)?;
        }
        Ok(names)
    }

    fn condition(
        &mut self,
        sae: &Sae<'_>,
        condition: &Condition,
        path: &str,
        depth: usize,
    ) -> Result<(), Error> {
        if depth >= MAX_CONDITION_DEPTH {
            let expected = format!("conditions at most {MAX_CONDITION_DEPTH} deep");
            return Err(invalid(path, expected, "deeper ones"));
        }
        let lists = |names: &mut Self, list: &[Condition], key: &str| {
            let mut each = list.iter().enumerate();
            each.try_for_each(|(i, one)| {
                names.condition(sae, one, &format!("{path}.{key}[{i}]"), depth + 1)
            })
        };
        match condition {
            Condition::Over { feature, over } => {
                check_features(sae, &format!("{path}.feature"), &[*feature])?;
                finite(&format!("{path}.over"), *over)?;
                self.reads.insert(*feature);
            }
            Condition::Any(list) => lists(self, list, "any")?,
            Condition::All(list) => lists(self, list, "all")?,
            Condition::Not(inner) => {
                self.condition(sae, inner, &format!("{path}.not"), depth + 1)?;
            }
            Condition::Linear {
                weights,
                bias,
                over,
            } => {
                for (i, (feature, weight)) in weights.iter().enumerate() {
                    let path = format!("{path}.linear[{i}]");
                    check_features(sae, &format!("{path}.feature"), &[*feature])?;
                    finite(&format!("{path}.weight"), *weight)?;
                    self.reads.insert(*feature);
                }
                finite(&format!("{path}.bias"), *bias)?;
                finite(&format!("{path}.over"), *over)?;
            }
            Condition::Reconstruction { at_least, .. } => {
                finite(&format!("{path}.at_least"), *at_least)?;
                if depth > 0 {
                    return Err(invalid(
                        path,
                        "a condition on features (a gate on the reconstruction stands alone)",
                        "reconstruction",
                    ));
                }
            }
        }
        Ok(())
    }
}

fn check_features(sae: &Sae<'_>, path: &str, features: &[u32]) -> Result<(), Error> {
    let d_sae = sae.d_sae();
    match features.iter().find(|&&feature| feature as usize >= d_sae) {
        None => Ok(()),
        Some(wrong) => Err(invalid(
            path,
            format!("a feature below {d_sae}"),
            wrong.to_string(),
        )),
    }
}

pub(super) fn finite(path: &str, number: f64) -> Result<(), Error> {
    match number.is_finite() {
        true => Ok(()),
        false => Err(invalid(path, "a finite number", number.to_string())),
    }
}

/// The vectors of these features, one whole row each: of blocks with the zeros between them.
fn gather_whole(matrix: &Matrix<'_>, features: &[u32]) -> Result<Matrix<'static>, Error> {
    let (ty, width) = (matrix.weight_type(), matrix.width());
    let stride = width * ty.size();
    let bytes = features.len().saturating_mul(stride);
    let mut rows: Vec<u8> = Vec::new();
    rows.try_reserve_exact(bytes)
        .map_err(|_| Error::OutOfMemory {
            what: "a compiled plan",
            bytes: bytes as u64,
        })?;
    rows.resize(bytes, 0);
    for (row, &feature) in rows.chunks_exact_mut(stride).zip(features) {
        matrix.gather(feature as usize, row);
    }
    let tensor = matrix.tensor();
    Ok(Matrix::from_rows(tensor, rows, ty, features.len(), width))
}
