//! A compiled plan: what the hot path reads.
//!
//! It holds, for the m features that its plans read or edit, m encoder and m decoder vectors in
//! rows, whatever the layout of the file; strengths are resolved to numbers as far as they do not
//! depend on the row.

use super::plan::{Budget, Conflicts, ErrorTerm, RowFilter, Rule, Scope};
use crate::model::{Matrix, Parts};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

/// What steering one row with a plan costs, before it is paid.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PlanCost {
    /// Whether each row must be encoded in full.
    pub needs_encode: bool,
    /// Why, if so: the paths of what needs it.
    pub reasons: Vec<String>,
    /// Encoder vectors read besides.
    pub encoder_rows: usize,
    /// Decoder vectors read at most, besides those of the features that fire where a whole
    /// reconstruction is needed.
    pub decoder_rows: usize,
    /// Bytes of weights read per row at most, without decoder rows of features that no edit names.
    pub bytes_per_row: u64,
    /// Bytes that the compiled plan holds.
    pub bytes_held: u64,
}

/// One or several plans, compiled for a model. Immutable, shared freely between threads.
#[derive(Debug)]
pub struct CompiledPlan {
    pub(super) identity: usize,
    pub(super) members: Vec<Member>,
    pub(super) conflicts: Conflicts,
    /// Features whose value or pre-activation is read, ascending.
    pub(super) reads: Vec<u32>,
    /// Their encoder vectors; none where the values come from a full encode.
    pub(super) encoder: Option<Matrix<'static>>,
    /// The part of the input that each of them meets.
    pub(super) inputs: Vec<Range<usize>>,
    /// Whether values come from a full encode (pre-activations never do).
    pub(super) ranks: bool,
    /// Features that are edited, ascending.
    pub(super) edited: Vec<u32>,
    /// Their decoder vectors.
    pub(super) decoder: Matrix<'static>,
    /// Their decoder scales, or empty.
    pub(super) decoder_scale: Vec<f64>,
    /// Directions, one row each.
    pub(super) directions: Matrix<'static>,
    pub(super) cost: PlanCost,
}

/// One plan of a compiled plan.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) hash: u64,
    pub(super) edits: Vec<CompiledEdit>,
    /// The numbers of all strengths.
    pub(super) numbers: Vec<f64>,
    pub(super) conflicts: Conflicts,
    /// Features that stay, ascending; all others become 0.
    pub(super) keep_only: Option<Vec<u32>>,
    pub(super) scores: Option<Box<Scores>>,
    pub(super) error: ErrorTerm,
    pub(super) rows: RowFilter,
    pub(super) when: Option<CompiledCondition>,
    pub(super) scope: Scope,
    pub(super) budget: Option<Budget>,
    /// Positions in [`CompiledPlan::reads`], ascending.
    pub(super) reads: Vec<usize>,
    /// Directions whose coefficient is read, ascending.
    pub(super) coefficients: Vec<usize>,
    pub(super) needs_encode: bool,
    pub(super) needs_sources: bool,
    /// Phases that its tables have, if it has any.
    pub(super) phases: Option<usize>,
    /// What the host must say about rows, in words, or nothing.
    pub(super) needs_info: Option<&'static str>,
}

impl Member {
    /// Whether it changes features that no edit names, so that it needs them all and cannot be
    /// combined with other plans on a row.
    pub(super) fn is_whole(&self) -> bool {
        self.keep_only.is_some() || self.scores.is_some() || self.error == ErrorTerm::Drop
    }
}

/// One rule on one feature or direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct CompiledEdit {
    /// Position in [`CompiledPlan::edited`], or behind them the number of a direction.
    pub(super) slot: usize,
    /// Where the value is found.
    pub(super) source: Source,
    pub(super) rule: Rule,
    pub(super) strength: Number,
    pub(super) over: Option<Number>,
    pub(super) under: Option<Number>,
}

/// Where the value of an edit's target is found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// It is not read.
    Nothing,
    /// Value of a read feature.
    Value(usize),
    /// Pre-activation of a read feature.
    PreActivation(usize),
    /// Coefficient of a direction.
    Coefficient(usize),
}

/// A strength as far as it does not depend on the row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    /// First of its numbers in [`Member::numbers`], one per phase if there are several.
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) of: RowScale,
}

/// What a number is still to be multiplied by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum RowScale {
    One,
    CurrentMax,
    /// `|y| / g`
    FeatureNorm,
    /// `|y|`
    RowNorm,
}

/// A condition on values that are read.
#[derive(Clone, Debug)]
pub(super) enum CompiledCondition {
    Over {
        read: usize,
        over: f64,
    },
    Any(Vec<CompiledCondition>),
    All(Vec<CompiledCondition>),
    Not(Box<CompiledCondition>),
    Linear {
        weights: Vec<(usize, f64)>,
        bias: f64,
        over: f64,
    },
    Reconstruction {
        edited: bool,
        at_least: f64,
    },
}

/// Selection anew, with scores.
#[derive(Debug)]
pub(super) struct Scores {
    /// The model's rule with the scores folded in; its matrices are empty.
    pub(super) parts: Parts<'static>,
    /// By feature.
    pub(super) weights: Vec<f64>,
}

impl CompiledPlan {
    /// What steering a row costs.
    pub fn cost(&self) -> &PlanCost {
        &self.cost
    }

    /// Number of plans in it.
    pub fn plans(&self) -> usize {
        self.members.len()
    }

    /// Name of a plan.
    pub fn name(&self, plan: usize) -> Option<&str> {
        self.members.get(plan).map(|member| member.name.as_str())
    }

    /// Hash of a plan: the same for plans that say the same, on every machine.
    pub fn hash(&self, plan: usize) -> Option<u64> {
        self.members.get(plan).map(|member| member.hash)
    }

    /// Features that are edited, ascending.
    pub fn edited_features(&self) -> &[u32] {
        &self.edited
    }

    pub(super) fn slots(&self) -> usize {
        self.edited.len() + self.directions.features()
    }

    pub(super) fn is_whole(&self) -> bool {
        self.members.iter().any(Member::is_whole)
    }
}
