//! What a call to steer is given, and what it reports.

use super::compiled::CompiledPlan;
use super::plan::{RowFilter, Stage};
use crate::error::Error;
use crate::rows::Rows;
use crate::rows_mut::RowsMut;
use alloc::string::String;
use alloc::vec::Vec;

/// What the host knows about a row besides its values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowInfo {
    /// Position in its sequence, from 0.
    pub position: u32,
    /// Prompt or generated.
    pub stage: Stage,
    /// Whether it is the last row of its sequence so far.
    pub last: bool,
    /// Class of its token, of the host's choosing (special, user, system, ..).
    pub class: u32,
    /// Phase, e.g. the step of a diffusion.
    pub phase: u32,
    /// The change is multiplied by this: a spatial mask, a scale per token. 0: leave the row.
    pub factor: f64,
    /// The plan that the row is for: its number among the compiled ones, [`RowInfo::ALL_PLANS`] or
    /// [`RowInfo::NO_PLAN`].
    pub plan: u32,
    /// Its row among [`Batch::sources`].
    pub source: u32,
}

impl RowInfo {
    /// The row is for every plan whose filters it passes.
    pub const ALL_PLANS: u32 = u32::MAX;
    /// The row is for no plan.
    pub const NO_PLAN: u32 = u32::MAX - 1;

    /// A row at a position, of which nothing else is known.
    pub fn at(position: u32) -> Self {
        RowInfo {
            position,
            stage: Stage::Unknown,
            last: false,
            class: 0,
            phase: 0,
            factor: 1.0,
            plan: Self::ALL_PLANS,
            source: position,
        }
    }
}

/// Rows to steer, in place, with what goes with them.
#[derive(Debug)]
pub struct Batch<'b> {
    /// The rows at the output site, `[n, d_out]`.
    pub rows: RowsMut<'b>,
    /// The rows at the input site, `[n, d_in]`, if they are others (transcoders). None: `rows`.
    pub inputs: Option<Rows<'b>>,
    /// About each row. None: the rows are one sequence from position 0 on, whose last row is the
    /// last of it, and nothing else is known of them.
    pub infos: Option<&'b [RowInfo]>,
    /// Rows at the input site that `from_source` edits read.
    pub sources: Option<Rows<'b>>,
    /// Whether to leave all rows as they are and only report.
    pub dry_run: bool,
    /// For each row, what became of it.
    pub outcomes: Option<&'b mut [Outcome]>,
    /// For each row, the change before it was rounded, `[n, d_out]`; 0 where nothing changes.
    pub changes: Option<&'b mut [f64]>,
}

impl<'b> Batch<'b> {
    /// Rows of a model that reads and writes at the same site.
    pub fn new(rows: RowsMut<'b>) -> Self {
        Batch {
            rows,
            inputs: None,
            infos: None,
            sources: None,
            dry_run: false,
            outcomes: None,
            changes: None,
        }
    }

    /// What is known of a row.
    pub(super) fn info(&self, row: usize) -> RowInfo {
        match self.infos {
            Some(infos) => infos.get(row).copied().unwrap_or(RowInfo {
                plan: RowInfo::NO_PLAN,
                ..RowInfo::at(0)
            }),
            None => RowInfo {
                last: row + 1 == self.rows.rows(),
                ..RowInfo::at(row as u32)
            },
        }
    }
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[repr(u8)]
pub enum Outcome {
    /// No plan is for it.
    #[default]
    Filtered = 0,
    /// A condition does not hold, or nothing changes: its bytes are as they were.
    Unchanged = 1,
    /// It was edited.
    Edited = 2,
    /// It was edited, by as much as the budget allows.
    Clipped = 3,
    /// The budget does not allow the edit: left as it was.
    Refused = 4,
    /// The row, its source, or a pre-activation is not finite: left as it was.
    NonFinite = 5,
    /// The result would not be finite in the format of the rows: left as it was.
    Overflow = 6,
}

impl Outcome {
    /// All outcomes, in the order of their numbers.
    pub const ALL: [Outcome; 7] = [
        Outcome::Filtered,
        Outcome::Unchanged,
        Outcome::Edited,
        Outcome::Clipped,
        Outcome::Refused,
        Outcome::NonFinite,
        Outcome::Overflow,
    ];

    /// The outcome's name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Filtered => "filtered",
            Outcome::Unchanged => "unchanged",
            Outcome::Edited => "edited",
            Outcome::Clipped => "clipped",
            Outcome::Refused => "refused",
            Outcome::NonFinite => "non_finite",
            Outcome::Overflow => "overflow",
        }
    }
}

/// What calls did, added up over all calls that it was passed to.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    counts: [u64; Outcome::ALL.len()],
    audits: Vec<Audit>,
}

/// What one plan did.
#[derive(Clone, Debug, PartialEq)]
pub struct Audit {
    /// The plan's name.
    pub name: String,
    /// The plan's hash.
    pub hash: u64,
    /// Rows that it edited (alone or with others).
    pub rows: u64,
    /// Sum of `|y' - y| / |y|` over these rows, before rounding.
    pub sum_relative: f64,
    /// The largest of these.
    pub max_relative: f64,
}

impl Audit {
    /// Mean of `|y' - y| / |y|` over the edited rows, 0 if there are none.
    pub fn mean_relative(&self) -> f64 {
        match self.rows {
            0 => 0.0,
            rows => self.sum_relative / rows as f64,
        }
    }
}

impl Report {
    /// An empty report for these plans.
    pub fn new(plan: &CompiledPlan) -> Self {
        let audit = |member: &super::compiled::Member| Audit {
            name: member.name.clone(),
            hash: member.hash,
            rows: 0,
            sum_relative: 0.0,
            max_relative: 0.0,
        };
        Report {
            counts: [0; Outcome::ALL.len()],
            audits: plan.members.iter().map(audit).collect(),
        }
    }

    /// How many rows had this outcome.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.counts.get(outcome as usize).copied().unwrap_or(0)
    }

    /// How many rows were looked at.
    pub fn rows(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What each plan did, in the order in which they were compiled.
    pub fn audits(&self) -> &[Audit] {
        &self.audits
    }

    /// Adds what another report of the same plans counted (of another thread).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it is a report of other plans.
    pub fn merge(&mut self, other: &Report) -> Result<(), Error> {
        let names = |report: &Report| -> Vec<u64> {
            report.audits.iter().map(|audit| audit.hash).collect()
        };
        if names(self) != names(other) {
            return Err(Error::InvalidArgument {
                what: "report",
                expected: "one of the same plans".into(),
                found: "one of others".into(),
            });
        }
        for (count, other) in self.counts.iter_mut().zip(other.counts) {
            *count += other;
        }
        for (audit, other) in self.audits.iter_mut().zip(&other.audits) {
            audit.rows += other.rows;
            audit.sum_relative += other.sum_relative;
            audit.max_relative = audit.max_relative.max(other.max_relative);
        }
        Ok(())
    }

    pub(super) fn add(&mut self, outcome: Outcome) {
        if let Some(count) = self.counts.get_mut(outcome as usize) {
            *count += 1;
        }
    }

    pub(super) fn edited(&mut self, plan: usize, relative: f64) {
        if let Some(audit) = self.audits.get_mut(plan) {
            audit.rows += 1;
            audit.sum_relative += relative;
            audit.max_relative = audit.max_relative.max(relative);
        }
    }
}

impl RowFilter {
    /// Whether a row passes.
    pub(super) fn passes(&self, info: &RowInfo) -> bool {
        let within = |ranges: &Option<Vec<(u32, u32)>>, value: u32| match ranges {
            None => true,
            Some(ranges) => ranges
                .iter()
                .any(|&(from, to)| from <= value && value <= to),
        };
        info.position >= self.skip_first
            && (!self.last_only || info.last)
            && self.stage.is_none_or(|stage| stage == info.stage)
            && within(&self.positions, info.position)
            && self
                .classes
                .as_ref()
                .is_none_or(|classes| classes.contains(&info.class))
            && !self.skip_classes.contains(&info.class)
            && within(&self.phases, info.phase)
    }
}
