//! The work space of a thread that steers.

use super::apply::missing;
use super::compiled::CompiledPlan;
use crate::error::Error;
use crate::features::Features;
use crate::model::Sae;
use crate::scratch::Scratch;
use alloc::vec::Vec;

/// Work space for steering with one model and one compiled plan. Made before, so that steering
/// itself does not allocate.
#[derive(Debug)]
pub struct SteerScratch {
    pub(super) model: Scratch<'static>,
    /// The features of the row at hand, where it is encoded.
    pub(super) features: Features,
    /// The features selected with scores.
    pub(super) scored: Features,
    /// Features that the host knows, of a model that attends.
    pub(super) known: Known,
    pub(super) row: RowState,
    /// The output row as it was, and the same as f32.
    pub(super) old: Vec<f64>,
    pub(super) narrow: Vec<f32>,
    pub(super) new: Vec<f64>,
    pub(super) change: Vec<f64>,
    /// The output row as it becomes, where it is of f32 values.
    pub(super) moved: Vec<u8>,
    /// Decoder vectors to be added, and their amounts.
    pub(super) indices: Vec<u32>,
    pub(super) amounts: Vec<f64>,
}

/// The features of all rows of a batch, of which no row is encoded.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) features: Features,
    pub(super) sources: Features,
}

impl Known {
    /// Copies what the host knows; grows as needed.
    pub(super) fn copy(
        &mut self,
        features: &Features,
        sources: Option<&Features>,
    ) -> Result<(), Error> {
        self.features.clear();
        self.sources.clear();
        let pairs = [
            (&mut self.features, Some(features)),
            (&mut self.sources, sources),
        ];
        for (to, from) in pairs {
            for row in from.into_iter().flat_map(Features::iter) {
                for (&index, &value) in row.indices.iter().zip(row.values) {
                    to.push(index, value)?;
                }
                to.end_row(row.status)?;
            }
        }
        Ok(())
    }

    /// Whether it is what a batch of so many rows needs.
    pub(super) fn check(
        &self,
        sae: &Sae<'_>,
        plan: &CompiledPlan,
        rows: usize,
    ) -> Result<(), Error> {
        if self.features.rows() != rows {
            return Err(Error::Length {
                what: "rows of features",
                expected: rows as u64,
                found: self.features.rows() as u64,
            });
        }
        let all = [&self.features, &self.sources];
        let mut all = all.into_iter().flat_map(|features| features.indices());
        if let Some(&feature) = all.find(|&&feature| feature as usize >= sae.d_sae()) {
            return Err(Error::FeatureOutOfRange {
                feature: feature.into(),
                d_sae: sae.d_sae() as u64,
            });
        }
        let needed = plan.members.iter().any(|member| member.needs_sources);
        match needed && self.sources.rows() == 0 {
            true => Err(missing(
                "features of source rows",
                "features that `from_source` edits read",
            )),
            false => Ok(()),
        }
    }
}

/// What is known of the row at hand, and what is to be done with it.
#[derive(Debug)]
pub(super) struct RowState {
    /// Values of the read features.
    pub(super) values: Vec<f64>,
    /// Their pre-activations, where they were formed.
    pub(super) pre: Vec<f64>,
    /// Their values in the source row.
    pub(super) sources: Vec<f64>,
    /// Coefficients of directions.
    pub(super) coefficients: Vec<f64>,
    /// The edited features and directions.
    pub(super) slots: Vec<Slot>,
    /// Which plans pass the row's filters, and then which act.
    pub(super) acting: Vec<bool>,
    /// What plans with the scope of a batch decided.
    pub(super) decided: Vec<bool>,
    pub(super) phase: usize,
    /// `|y|`
    pub(super) row_norm: f64,
    /// `|y| / g`
    pub(super) feature_norm: f64,
    pub(super) current_max: f64,
}

/// What becomes of one feature or direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slot {
    /// The plan that set it, counted from 1; 0: none.
    pub(super) owner: usize,
    /// Value before (what the rule read), and after, without what is added.
    pub(super) before: f64,
    pub(super) after: f64,
    /// Whether something is added, and what.
    pub(super) adds: bool,
    pub(super) added: f64,
}

impl Slot {
    /// What the value changes by. 0 if nothing acts on it.
    pub(super) fn change(&self) -> f64 {
        match (self.owner, self.adds) {
            (0, false) => 0.0,
            (0, true) => self.added,
            (_, false) => self.after - self.before,
            (_, true) => (self.after - self.before) + self.added,
        }
    }
}

impl SteerScratch {
    /// Work space for this model and plan.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(sae: &Sae<'_>, plan: &CompiledPlan) -> Result<Self, Error> {
        let whole = plan.members.iter().any(|member| member.needs_encode);
        let all = if whole { sae.d_sae() } else { 0 };
        let amounts = plan.edited.len().saturating_add(all);
        let (reads, d_out) = (plan.reads.len(), sae.d_out());
        Ok(SteerScratch {
            model: Scratch::new(sae)?,
            features: Features::with_capacity(1, all)?,
            scored: Features::with_capacity(1, if plan.is_whole() { all } else { 0 })?,
            known: Known::default(),
            row: RowState {
                values: zeros(reads)?,
                pre: zeros(reads)?,
                sources: zeros(reads)?,
                coefficients: zeros(plan.directions.features())?,
                slots: alloc::vec![Slot::default(); plan.slots()],
                acting: alloc::vec![false; plan.members.len()],
                decided: alloc::vec![false; plan.members.len()],
                phase: 0,
                row_norm: 0.0,
                feature_norm: 0.0,
                current_max: 0.0,
            },
            old: zeros(d_out)?,
            narrow: {
                let mut narrow = reserved(d_out)?;
                narrow.resize(d_out, 0.0);
                narrow
            },
            new: zeros(d_out)?,
            change: zeros(d_out)?,
            moved: {
                let mut moved = reserved(d_out.saturating_mul(4))?;
                moved.resize(d_out.saturating_mul(4), 0);
                moved
            },
            indices: reserved(amounts)?,
            amounts: reserved(amounts)?,
        })
    }

    /// Whether it has the sizes that a plan needs.
    pub(super) fn fits(&self, sae: &Sae<'_>, plan: &CompiledPlan) -> Result<(), Error> {
        let whole = plan.members.iter().any(|member| member.needs_encode);
        let all = if whole { sae.d_sae() } else { 0 };
        let (reads, d_out) = (plan.reads.len(), sae.d_out());
        let pairs = [
            (reads, self.row.values.len()),
            (plan.directions.features(), self.row.coefficients.len()),
            (plan.slots(), self.row.slots.len()),
            (plan.members.len(), self.row.acting.len()),
            (d_out, self.old.len()),
        ];
        let amounts = plan.edited.len().saturating_add(all);
        let room = (amounts, self.amounts.capacity().min(amounts));
        let mut pairs = pairs.into_iter().chain([room]);
        match pairs.find(|(needed, found)| needed != found) {
            None => Ok(()),
            Some((needed, found)) => Err(Error::Length {
                what: "entries of work space for steering",
                expected: needed as u64,
                found: found as u64,
            }),
        }
    }
}

fn reserved<T>(length: usize) -> Result<Vec<T>, Error> {
    let mut memory = Vec::new();
    memory
        .try_reserve_exact(length)
        .map_err(|_| Error::OutOfMemory {
            what: "work space for steering",
            bytes: (length * size_of::<T>()) as u64,
        })?;
    Ok(memory)
}

fn zeros(length: usize) -> Result<Vec<f64>, Error> {
    let mut memory = reserved(length)?;
    memory.resize(length, 0.0);
    Ok(memory)
}
