//! Selection over a whole batch, as BatchTopK, Mutual Choice and Feature Choice train: which
//! features a row keeps depends on the other rows. At inference these models use thresholds
//! instead ([`Activation::JumpRelu`]); this is for comparing, for calibrating thresholds, and for
//! checkpoints that never stored one.
//!
//! | rule | paper |
//! |---|---|
//! | BatchTopK | Bussmann et al., arXiv 2412.06410 |
//! | Mutual Choice, Feature Choice | Ayonrinde, arXiv 2411.02124 |

use crate::encode::check_width;
use crate::error::Error;
use crate::features::{Features, RowStatus};
use crate::model::{Activation, Rank, Sae};
use crate::rows::Rows;
use crate::scratch::{Scratch, Work};
use crate::select::{Fate, feature_of, judge_by, rank_key};
use alloc::string::ToString;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// How a batch is selected from. Only positive values are kept; ranks are those of the model
/// (`pre`, weighted where it has rank weights). Among equals the lowest row wins, then the lowest
/// feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchRule {
    /// The k * B highest of all features of all rows together, B the number of finite rows: true
    /// BatchTopK, and Mutual Choice with a budget of k per row.
    Together {
        /// Features per row, on average.
        k: usize,
    },
    /// Each feature on the m rows where it is highest: Feature Choice with the same budget for
    /// every feature.
    PerFeature {
        /// Rows per feature.
        m: usize,
    },
}

/// Work space for batches of up to so many rows. Encoding with it allocates nothing more than
/// [`Features`] needs.
#[derive(Clone, Debug)]
pub struct BatchSpace {
    rule: BatchRule,
    most_rows: usize,
    d_sae: usize,
    /// Together: candidates. Per feature: m places for each.
    entries: Vec<Entry>,
    /// Per feature: how many of its places are taken.
    taken: Vec<u32>,
    status: Vec<RowStatus>,
}

/// Rank and feature as a key, row, value.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    key: u64,
    row: u32,
    value: f32,
}

impl Entry {
    /// Better ones first: the higher rank, then the lower row, then the lower feature.
    fn order(&self, other: &Entry) -> Ordering {
        let rank = (other.key >> 32).cmp(&(self.key >> 32));
        let feature = feature_of(self.key).cmp(&feature_of(other.key));
        rank.then(self.row.cmp(&other.row)).then(feature)
    }
}

impl BatchSpace {
    /// Space for batches of up to `rows` rows of this model.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if k or m is 0 or above d_sae or the number of rows, or for a
    /// pursuit or an ensemble; [`Error::OutOfMemory`].
    pub fn new(sae: &Sae<'_>, rule: BatchRule, rows: usize) -> Result<Self, Error> {
        let d_sae = sae.d_sae();
        let invalid = |what, most: usize, found: usize| Error::InvalidArgument {
            what,
            expected: alloc::format!("1 to {most}"),
            found: found.to_string(),
        };
        if rows == 0 || rows > u32::MAX as usize {
            return Err(invalid("rows of a batch", u32::MAX as usize, rows));
        }
        if let Activation::Pursuit(_) | Activation::Ensemble(_) = sae.parts().activation {
            return Err(Error::InvalidArgument {
                what: "selection over a batch",
                expected: "a model that ranks features".into(),
                found: sae.parts().activation.describe(),
            });
        }
        let (entries, features) = match rule {
            BatchRule::Together { k } if (1..=d_sae).contains(&k) => {
                let kept = k.saturating_mul(rows);
                (kept.saturating_add(kept.max(4096)), 0)
            }
            BatchRule::Together { k } => return Err(invalid("k", d_sae, k)),
            BatchRule::PerFeature { m } if (1..=rows).contains(&m) => {
                (d_sae.saturating_mul(m), d_sae)
            }
            BatchRule::PerFeature { m } => return Err(invalid("m", rows, m)),
        };
        Ok(BatchSpace {
            rule,
            most_rows: rows,
            d_sae,
            entries: reserved(entries)?,
            taken: reserved(features)?,
            status: reserved(rows)?,
        })
    }
}

/// So many default values.
fn reserved<T: Clone + Default>(length: usize) -> Result<Vec<T>, Error> {
    let mut values = Vec::new();
    values
        .try_reserve_exact(length)
        .map_err(|_| Error::OutOfMemory {
            what: "a batch",
            bytes: (length as u64).saturating_mul(size_of::<T>() as u64),
        })?;
    values.resize(length, T::default());
    Ok(values)
}

impl Sae<'_> {
    /// Encodes a batch and selects from all of it at once; the model's own rule is not used, its
    /// scales, weights and maps are. The content of `features` is replaced. With one row,
    /// [`BatchRule::Together`] is TopK.
    ///
    /// # Errors
    /// [`Error::Length`] if the rows are not d_in wide, more than the space was made for, or the
    /// space or the scratch was made for another size of model; [`Error::OutOfMemory`] if
    /// `features` cannot grow. `features` is empty then.
    pub fn encode_batch(
        &self,
        rows: Rows<'_>,
        space: &mut BatchSpace,
        scratch: &mut Scratch<'_>,
        features: &mut Features,
    ) -> Result<(), Error> {
        features.clear();
        check_width(rows, self.d_in())?;
        for (what, expected, found) in [
            ("features of the batch's space", self.d_sae(), space.d_sae),
            (
                "rows of the batch, at most",
                space.most_rows,
                rows.rows().max(space.most_rows),
            ),
        ] {
            if expected != found {
                let (expected, found) = (expected as u64, found as u64);
                return Err(Error::Length {
                    what,
                    expected,
                    found,
                });
            }
        }
        let mut work = scratch.split(self)?;
        let finite = (0..rows.rows())
            .filter(|&row| self.prepare_row(rows, row, &mut work).is_some())
            .count();
        let mut chosen = Choice::new(space, finite);
        for row in 0..rows.rows() {
            let status = match self.prepare_row(rows, row, &mut work) {
                None => RowStatus::NonFinite,
                Some(_) => self.offer_row(row as u32, &mut work, &mut chosen)?,
            };
            if let Some(to) = chosen.space.status.get_mut(row) {
                *to = status;
            }
        }
        let result = chosen.finish(rows.rows(), features);
        if result.is_err() {
            features.clear();
        }
        result
    }

    fn offer_row(
        &self,
        row: u32,
        work: &mut Work<'_>,
        chosen: &mut Choice<'_>,
    ) -> Result<RowStatus, Error> {
        const RULE: Activation = Activation::TopK {
            k: 1,
            rank: Rank::Value,
            relu: true,
        };
        let mut status = RowStatus::Ok;
        let (sums, gates, lanes) = (&mut *work.sums, &mut *work.gates, &mut *work.lanes);
        self.for_products(
            0..self.d_sae(),
            work.input,
            sums,
            gates,
            lanes,
            |first, sums, gates| {
                for (i, &sum) in sums.iter().enumerate() {
                    let gate = gates.get(i).copied().unwrap_or(0.0);
                    match judge_by(&RULE, &self.parts, first + i, sum, gate) {
                        Fate::Off => {}
                        Fate::Nan => status = RowStatus::NanPreActivation,
                        Fate::On { value, rank } => chosen.offer(Entry {
                            key: rank_key(rank, (first + i) as u32),
                            row,
                            value,
                        }),
                    }
                }
                Ok(())
            },
        )?;
        Ok(status)
    }
}

/// The selection of one batch.
struct Choice<'s> {
    space: &'s mut BatchSpace,
    /// Together: how many to keep, how many there are, and the worst of the best so far.
    keep: usize,
    count: usize,
    floor: Option<Entry>,
}

impl<'s> Choice<'s> {
    fn new(space: &'s mut BatchSpace, rows: usize) -> Self {
        space.taken.fill(0);
        let keep = match space.rule {
            BatchRule::Together { k } => k * rows,
            BatchRule::PerFeature { .. } => 0,
        };
        Choice {
            space,
            keep,
            count: 0,
            floor: None,
        }
    }

    fn offer(&mut self, entry: Entry) {
        match self.space.rule {
            BatchRule::Together { .. } => self.offer_together(entry),
            BatchRule::PerFeature { m } => self.offer_feature(entry, m),
        }
    }

    fn offer_together(&mut self, entry: Entry) {
        let worse = |floor: &Entry| entry.order(floor) == Ordering::Greater;
        if self.floor.as_ref().is_some_and(worse) {
            return;
        }
        if self.count == self.space.entries.len() {
            self.cut();
        }
        if let Some(slot) = self.space.entries.get_mut(self.count) {
            *slot = entry;
            self.count += 1;
        }
    }

    /// Keeps the best and remembers the worst of them.
    fn cut(&mut self) {
        let found = self.space.entries.get_mut(..self.count).unwrap_or(&mut []);
        if self.keep > 0 && found.len() > self.keep {
            let (_, worst, _) = found.select_nth_unstable_by(self.keep - 1, Entry::order);
            self.floor = Some(*worst);
            self.count = self.keep;
        }
    }

    /// Puts an entry at its place among the m best rows of its feature.
    fn offer_feature(&mut self, entry: Entry, m: usize) {
        let feature = feature_of(entry.key) as usize;
        let places = self.space.entries.get_mut(feature * m..(feature + 1) * m);
        let (Some(places), Some(taken)) = (places, self.space.taken.get_mut(feature)) else {
            return;
        };
        let best = places.get(..*taken as usize).unwrap_or(&[]);
        // Rows come in order, so an equal one stays behind.
        let at = best.partition_point(|other| other.order(&entry) == Ordering::Less);
        if at >= m {
            return;
        }
        *taken = (*taken + 1).min(m as u32);
        let places = places.get_mut(at..*taken as usize).unwrap_or(&mut []);
        places.rotate_right(1);
        if let Some(place) = places.first_mut() {
            *place = entry;
        }
    }

    /// Writes what was chosen, row by row.
    fn finish(mut self, rows: usize, features: &mut Features) -> Result<(), Error> {
        let count = match self.space.rule {
            BatchRule::Together { .. } => {
                self.cut();
                self.count
            }
            BatchRule::PerFeature { m } => {
                // Close the gaps behind features with free places.
                let mut count = 0;
                for (feature, &taken) in self.space.taken.iter().enumerate() {
                    let start = feature * m;
                    let taken = taken as usize;
                    self.space.entries.copy_within(start..start + taken, count);
                    count += taken;
                }
                count
            }
        };
        let chosen = self.space.entries.get_mut(..count).unwrap_or(&mut []);
        chosen.sort_unstable_by_key(|entry| (entry.row, feature_of(entry.key)));
        let mut entries = chosen.iter().peekable();
        for (row, &status) in self.space.status.iter().enumerate().take(rows) {
            while let Some(entry) = entries.next_if(|entry| entry.row as usize == row) {
                if entry.value != 0.0 {
                    features.push(feature_of(entry.key), entry.value)?;
                }
            }
            features.end_row(status)?;
        }
        Ok(())
    }
}
