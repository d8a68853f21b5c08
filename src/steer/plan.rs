//! Plans as data: which features and directions are edited, how, where and when. Nothing here
//! knows a model; [`compile`](super::compile) checks a plan against one.

use super::statistics::Statistics;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

/// A set of edits with its conditions. Built in Rust, or read from JSON
/// ([`Plan::from_json`]).
///
/// ```
/// use sae::steer::{Condition, Edit, Plan, Strength};
/// let plan = Plan::new("calmer")
///     .edit(Edit::zero(1203))
///     .edit(Edit::max_clamp(77, Strength::corpus_max(1.5)))
///     .when(Condition::over(14, 2.0))
///     .skip_first(1);
/// assert_eq!(plan.edits.len(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What it is called in reports and audits.
    pub name: String,
    /// The width it was made for; refused with a model of another one.
    pub d_sae: Option<u32>,
    /// The edits. All of them read the row as it was.
    pub edits: Vec<Edit>,
    /// What several edits of one feature do to each other.
    pub conflicts: Conflicts,
    /// What becomes of the features that no edit names.
    pub mask: Mask,
    /// Whether the reconstruction error stays in the row.
    pub error: ErrorTerm,
    /// The rows it is for.
    pub rows: RowFilter,
    /// The condition under which it acts.
    pub when: Option<Condition>,
    /// Whether the condition is decided row by row or for all rows of a call together.
    pub scope: Scope,
    /// A limit on the change of a row.
    pub budget: Option<Budget>,
    /// What relative strengths refer to.
    pub statistics: Statistics,
    /// Directions that edits name.
    pub directions: BTreeMap<String, Direction>,
}

/// One rule, applied to features or to a direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// What is edited.
    pub target: Target,
    /// How.
    pub rule: Rule,
    /// The rule's number, c in [`Rule`].
    pub strength: Strength,
    /// Acts only if the value is above this.
    pub over: Option<Strength>,
    /// Acts only if the value is below this.
    pub under: Option<Strength>,
    /// Which value of a feature is read.
    pub reads: Reads,
}

/// What an edit edits.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// Each of these features.
    Features(Vec<u32>),
    /// A direction of the plan, by name: a vector v in the space of the output row y. Its value is
    /// the coefficient `<y, v>`, and it is written back as a multiple of v.
    Direction(String),
}

/// How a value f becomes f', with the strength c.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// `f' = c`
    Set,
    /// `f' = f + c`. Reads nothing, whatever the model.
    Add,
    /// `f' = c f`
    Scale,
    /// `f' = max(f, c)`
    MaxClamp,
    /// `f' = min(f, c)`
    MinCap,
    /// `f' = 0`
    Zero,
    /// `f' = -c` where `f > 0`, else `f`
    NegativeWhenActive,
    /// `f' = f - max(f, 0) + c`: for features that are never negative the same as `Set`, for a
    /// direction AxBench's subspace clamp
    ReplacePositive,
    /// `f' = f - max(min(f, c), 0)`: takes away at most c (SpARE)
    Remove,
    /// `f'` is the value in the source row (RAVEL-style interchange)
    FromSource,
}

/// The number of a rule: a value, or one per phase, and what it is a multiple of.
#[derive(Clone, Debug, PartialEq)]
pub struct Strength {
    /// One value, or one for each phase (diffusion step) 0, 1, ..
    pub values: Vec<f64>,
    /// What it is a multiple of.
    pub of: Scale,
    /// Adds so many standard deviations of the feature (SAIF: `mean + beta * deviation`).
    pub deviations: f64,
}

/// What a strength is a multiple of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scale {
    /// 1: it is in the units of `encode` (for a direction, in multiples of v).
    #[default]
    Absolute,
    /// The feature's largest value over a corpus.
    CorpusMax,
    /// The feature's mean value over a corpus.
    CorpusMean,
    /// The largest value of any feature in this row, 0 if none fires.
    CurrentMax,
    /// The length of the output row, `|y|` (for a feature divided by g, so that adding it moves
    /// the row by the strength times `|y| |d|`).
    RowNorm,
}

/// Which value of a feature an edit reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reads {
    /// The one that `encode` reports, 0 if the feature does not fire.
    #[default]
    Feature,
    /// The pre-activation, whether or not the feature fires (SpARE). One row of weights for any
    /// model.
    PreActivation,
}

/// What several edits of one feature do to each other. Edits with [`Rule::Add`] never conflict:
/// they are added to whatever the others give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conflicts {
    /// A plan in which it could happen does not compile.
    #[default]
    Refuse,
    /// The first that acts on the row wins.
    First,
    /// The last that acts on the row wins.
    Last,
    /// All changes are added.
    Sum,
    /// For several plans: every row must name the one plan that is for it.
    OnePerRow,
}

/// What becomes of the features that no edit names.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Mask {
    /// They stay.
    #[default]
    None,
    /// All but these become 0.
    KeepOnly(Vec<u32>),
    /// These become 0.
    Drop(Vec<u32>),
    /// Weights s in the place of a mask: the features are selected anew by `s z` (z the
    /// pre-activations), see [`ScoreMode`]. A plan with scores has no edits of features.
    Scores {
        /// What is reported.
        mode: ScoreMode,
        /// Weights by feature; the others have `default`.
        weights: BTreeMap<u32, f64>,
        /// Weight of the features that are not named.
        default: f64,
    },
}

/// How scores are used ("Precise Topic Alignment").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreMode {
    /// `f' = act(s z)`
    Weight,
    /// `f' = z` where `act(s z)` is not 0
    Swap,
}

/// Whether the reconstruction error stays in the row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorTerm {
    /// `y' = y + decode(f') - decode(f)`
    #[default]
    Keep,
    /// `y' = decode(f')`
    Drop,
}

/// A vector in the space of the output row.
#[derive(Clone, Debug, PartialEq)]
pub struct Direction {
    /// Its values, `[d_out]`.
    pub values: Vec<f32>,
    /// Whether to divide it by its length first. A direction whose coefficient is read must have
    /// length 1, by itself or by this.
    pub normalize: bool,
}

/// Where a row stands in its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Stage {
    /// The host does not say.
    #[default]
    Unknown = 0,
    /// A token of the prompt.
    Prompt = 1,
    /// A generated token.
    Generation = 2,
}

/// The rows that a plan is for: all that pass every filter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowFilter {
    /// Leaves the positions below this alone (1: the first row, a BOS token).
    pub skip_first: u32,
    /// Only the last row of its sequence.
    pub last_only: bool,
    /// Only rows of this stage.
    pub stage: Option<Stage>,
    /// Only these positions, from and to (inclusive).
    pub positions: Option<Vec<(u32, u32)>>,
    /// Only rows of these token classes.
    pub classes: Option<Vec<u32>>,
    /// Only rows that are not of these token classes.
    pub skip_classes: Vec<u32>,
    /// Only these phases (diffusion steps), from and to (inclusive).
    pub phases: Option<Vec<(u32, u32)>>,
}

/// A condition on the unedited row.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Condition {
    /// The feature's value is above a number.
    Over {
        /// The feature.
        feature: u32,
        /// The number.
        over: f64,
    },
    /// One of them holds.
    Any(Vec<Condition>),
    /// All of them hold.
    All(Vec<Condition>),
    /// It does not hold.
    Not(Box<Condition>),
    /// `bias + sum of weight * value > over`, summed in the order given.
    Linear {
        /// Features and their weights.
        weights: Vec<(u32, f64)>,
        /// Added first.
        bias: f64,
        /// The number to exceed.
        over: f64,
    },
    /// The mean squared difference between the row and a reconstruction of it is at least this
    /// (Interpret-then-Deactivate). With [`Scope::Batch`] the mean is over all rows of the call
    /// that pass the filters. Stands alone: not inside `Any`, `All` or `Not`.
    Reconstruction {
        /// Whether the reconstruction is that of the edited features, `decode(f')`, or of f.
        edited: bool,
        /// The smallest mean squared difference at which the plan acts.
        at_least: f64,
    },
}

/// What a condition is decided for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Each row by itself.
    #[default]
    Row,
    /// All rows of a call together (they are one sequence, or one image): if any row that passes
    /// the filters meets the condition, all of them are edited.
    Batch,
}

/// A limit on `|y' - y| / |y|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// The limit.
    pub relative: f64,
    /// What happens to a row beyond it.
    pub over: OverBudget,
}

/// What happens to a row beyond its budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverBudget {
    /// The change is scaled down to the limit.
    #[default]
    Clip,
    /// The row is left as it is.
    Refuse,
}

/// Names of enum values in JSON; the tables are the one place where they stand.
pub(crate) const RULES: &[(&str, Rule)] = &[
    ("set", Rule::Set),
    ("add", Rule::Add),
    ("scale", Rule::Scale),
    ("max_clamp", Rule::MaxClamp),
    ("min_cap", Rule::MinCap),
    ("zero", Rule::Zero),
    ("negative_when_active", Rule::NegativeWhenActive),
    ("replace_positive", Rule::ReplacePositive),
    ("remove", Rule::Remove),
    ("from_source", Rule::FromSource),
];
pub(crate) const SCALES: &[(&str, Scale)] = &[
    ("absolute", Scale::Absolute),
    ("corpus_max", Scale::CorpusMax),
    ("corpus_mean", Scale::CorpusMean),
    ("current_max", Scale::CurrentMax),
    ("row_norm", Scale::RowNorm),
];
pub(crate) const READS: &[(&str, Reads)] = &[
    ("feature", Reads::Feature),
    ("pre_activation", Reads::PreActivation),
];
pub(crate) const CONFLICTS: &[(&str, Conflicts)] = &[
    ("refuse", Conflicts::Refuse),
    ("first", Conflicts::First),
    ("last", Conflicts::Last),
    ("sum", Conflicts::Sum),
    ("one_per_row", Conflicts::OnePerRow),
];
pub(crate) const MODES: &[(&str, ScoreMode)] =
    &[("weight", ScoreMode::Weight), ("swap", ScoreMode::Swap)];
pub(crate) const ERROR_TERMS: &[(&str, ErrorTerm)] =
    &[("keep", ErrorTerm::Keep), ("drop", ErrorTerm::Drop)];
pub(crate) const STAGES: &[(&str, Stage)] = &[
    ("unknown", Stage::Unknown),
    ("prompt", Stage::Prompt),
    ("generation", Stage::Generation),
];
pub(crate) const SCOPES: &[(&str, Scope)] = &[("row", Scope::Row), ("batch", Scope::Batch)];
pub(crate) const OVER_BUDGET: &[(&str, OverBudget)] =
    &[("clip", OverBudget::Clip), ("refuse", OverBudget::Refuse)];

impl Rule {
    /// The rule's name in JSON.
    pub fn name(self) -> &'static str {
        name_of(RULES, self)
    }

    /// Whether the rule uses its strength.
    pub(crate) fn has_strength(self) -> bool {
        !matches!(self, Rule::Zero | Rule::FromSource)
    }
}

impl Scale {
    /// The scale's name in JSON.
    pub fn name(self) -> &'static str {
        name_of(SCALES, self)
    }
}

/// The name of a value in one of the tables above.
pub(crate) fn name_of<T: PartialEq + Copy>(table: &[(&'static str, T)], value: T) -> &'static str {
    table
        .iter()
        .find(|entry| entry.1 == value)
        .map_or("", |entry| entry.0)
}
