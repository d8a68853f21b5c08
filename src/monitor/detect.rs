//! Rules at work: one score per row, from the row and a few words of state per stream.

use super::event::{Contribution, Event};
use super::pool::{Pool, Pooling};
use super::rules::{Direction, Limit};

/// A number of a row.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slot {
    /// A place among the features that are read.
    Feature(usize),
    Signal,
}

/// What a compiled rule scores.
#[derive(Debug)]
pub(super) enum Kind {
    Threshold {
        slots: alloc::vec::Vec<Slot>,
    },
    Coactivation {
        slots: alloc::vec::Vec<usize>,
        active_over: f64,
        within: u64,
    },
    Linear {
        weights: alloc::vec::Vec<(usize, f64)>,
        bias: f64,
        pooling: Pooling,
        binary: Option<f64>,
        logistic: bool,
    },
    Cusum {
        slot: Slot,
        target: f64,
        slack: f64,
        direction: Direction,
    },
    Drift {
        slot: Slot,
        rate: f64,
        mean: f64,
        /// The deviation of the average in the long run.
        unit: f64,
        direction: Direction,
    },
    NonFinite,
}

/// When a score is an alert.
#[derive(Debug)]
pub(super) struct Trigger {
    pub(super) over: f64,
    pub(super) release: f64,
    pub(super) run: u64,
    pub(super) limit: Option<Limit>,
}

/// A compiled rule. Its state in a stream is words `at .. at + words()`: active, run, the rows of
/// the last alerts as the limit needs them, the place of the next of these, then those of the
/// kind. All zero is the state of a new stream.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) kind: Kind,
    pub(super) trigger: Trigger,
    pub(super) at: usize,
}

/// A row, as rules see it.
pub(super) struct View<'v> {
    /// Values of the features that are read.
    pub(super) values: &'v [f32],
    /// NaN: none.
    pub(super) signal: f64,
    /// The stream so far, with this row.
    pub(super) pool: Option<&'v Pool>,
    /// Number of the row in its stream, from 1.
    pub(super) row: u64,
    pub(super) finite: bool,
}

/// What a rule makes of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    Quiet,
    Alert(f64),
    /// An alert beyond the limit.
    Suppressed,
}

impl View<'_> {
    fn value(&self, slot: usize) -> f64 {
        self.values.get(slot).copied().unwrap_or(0.0).into()
    }

    /// `None`: the row has no such number.
    fn number(&self, slot: Slot) -> Option<f64> {
        match slot {
            Slot::Feature(slot) => Some(self.value(slot)),
            Slot::Signal => Some(self.signal).filter(|signal| !signal.is_nan()),
        }
    }

    fn pooled(&self, slot: usize, pooling: Pooling, binary: Option<f64>) -> f64 {
        let value = match (pooling, self.pool) {
            (Pooling::Last, _) | (_, None) => self.value(slot),
            (_, Some(pool)) => pool.value(slot, pooling),
        };
        match binary {
            None => value,
            Some(threshold) => f64::from(u8::from(value > threshold)),
        }
    }
}

impl Compiled {
    pub(super) fn words(&self) -> usize {
        let limit = self
            .trigger
            .limit
            .map_or(0, |limit| limit.events as usize + 1);
        2 + limit
            + match &self.kind {
                Kind::Threshold { .. } | Kind::Linear { .. } | Kind::NonFinite => 0,
                Kind::Coactivation { slots, .. } => slots.len(),
                Kind::Cusum { .. } => 2,
                // The distance of the average from the mean, so that zero is its beginning.
                Kind::Drift { .. } => 1,
            }
    }

    pub(super) fn pools(&self) -> bool {
        match &self.kind {
            Kind::Linear { pooling, .. } => *pooling != Pooling::Last,
            _ => false,
        }
    }

    /// Takes a row.
    pub(super) fn step(&self, state: &mut [u64], view: &View<'_>) -> Verdict {
        let limit = self
            .trigger
            .limit
            .map_or(0, |limit| limit.events as usize + 1);
        let Some((common, own)) = state
            .get_mut(self.at..self.at + self.words())
            .and_then(|state| state.split_at_mut_checked(2 + limit))
        else {
            return Verdict::Quiet;
        };
        let Some(score) = self.score(own, view) else {
            return Verdict::Quiet;
        };
        let verdict = self.trigger.decide(common, score, view.row);
        // A cumulative sum begins again, whether or not the limit let the alert through.
        if verdict != Verdict::Quiet && matches!(self.kind, Kind::Cusum { .. }) {
            own.fill(0);
            if let Some(active) = common.first_mut() {
                *active = 0;
            }
        }
        verdict
    }

    /// The score, or `None` if the rule leaves the row alone.
    fn score(&self, own: &mut [u64], view: &View<'_>) -> Option<f64> {
        if let Kind::NonFinite = self.kind {
            return Some(f64::from(u8::from(!view.finite)));
        }
        if !view.finite {
            return None;
        }
        match &self.kind {
            Kind::Threshold { slots } => {
                let numbers = slots.iter().filter_map(|&slot| view.number(slot));
                numbers.reduce(f64::max)
            }
            Kind::Coactivation {
                slots,
                active_over,
                within,
            } => {
                let mut count = 0u32;
                for (&slot, last) in slots.iter().zip(own) {
                    if view.value(slot) > *active_over {
                        *last = view.row;
                    }
                    count += u32::from(*last > 0 && view.row - *last < *within);
                }
                Some(count.into())
            }
            Kind::Linear {
                weights,
                bias,
                pooling,
                binary,
                logistic,
            } => {
                let mut sum = *bias;
                for &(slot, weight) in weights {
                    sum += weight * view.pooled(slot, *pooling, *binary);
                }
                Some(match logistic {
                    true => 1.0 / (1.0 + libm::exp(-sum)),
                    false => sum,
                })
            }
            Kind::Cusum {
                slot,
                target,
                slack,
                direction,
            } => {
                let distance = view.number(*slot)? - target;
                let mut best: f64 = 0.0;
                let ways = [
                    (distance, *direction != Direction::Down),
                    (-distance, *direction != Direction::Up),
                ];
                for (word, (distance, counts)) in own.iter_mut().zip(ways) {
                    if counts {
                        let sum = (f64::from_bits(*word) + distance - slack).max(0.0);
                        // An infinite value alerts and begins again.
                        *word = sum.to_bits();
                        best = best.max(sum);
                    }
                }
                Some(best)
            }
            Kind::Drift {
                slot,
                rate,
                mean,
                unit,
                direction,
            } => {
                let distance = view.number(*slot)? - mean;
                let word = own.first_mut()?;
                let old = f64::from_bits(*word);
                let new = old + rate * (distance - old);
                // An infinite value would stay for ever.
                if !new.is_finite() {
                    return Some(f64::INFINITY);
                }
                *word = new.to_bits();
                Some(match direction {
                    Direction::Up => new / unit,
                    Direction::Down => -new / unit,
                    Direction::Both => new.abs() / unit,
                })
            }
            Kind::NonFinite => None,
        }
    }

    /// The features behind an alert, the largest contribution first.
    pub(super) fn contributions(
        &self,
        state: &[u64],
        view: &View<'_>,
        features: &[u32],
        event: &mut Event,
    ) {
        let feature = |slot: usize| features.get(slot).copied().unwrap_or(0);
        let mut add = |slot: usize, value: f64, weight: f64| {
            event.add(Contribution {
                feature: feature(slot),
                value: value as f32,
                weight: weight as f32,
            });
        };
        let mut number = |slot: Slot| {
            if let Slot::Feature(slot) = slot {
                add(slot, view.value(slot), view.value(slot));
            }
        };
        match &self.kind {
            Kind::Threshold { slots } => {
                let over =
                    |slot: &&Slot| view.number(**slot).is_some_and(|x| x > self.trigger.over);
                slots.iter().filter(over).for_each(|&slot| number(slot));
            }
            Kind::Coactivation { slots, within, .. } => {
                let own = self.words() - slots.len();
                let lasts = state
                    .get(self.at + own..self.at + self.words())
                    .unwrap_or(&[]);
                for (&slot, &last) in slots.iter().zip(lasts) {
                    if last > 0 && view.row - last < *within {
                        // The later it fired the more it contributes; its value is of this row.
                        add(
                            slot,
                            view.value(slot),
                            1.0 / (1.0 + (view.row - last) as f64),
                        );
                    }
                }
            }
            Kind::Linear {
                weights,
                pooling,
                binary,
                ..
            } => {
                for &(slot, weight) in weights {
                    let value = view.pooled(slot, *pooling, *binary);
                    if value != 0.0 {
                        add(slot, value, weight * value);
                    }
                }
            }
            Kind::Cusum { slot, .. } | Kind::Drift { slot, .. } => number(*slot),
            Kind::NonFinite => {}
        }
    }
}

impl Trigger {
    fn decide(&self, state: &mut [u64], score: f64, row: u64) -> Verdict {
        let [active, run, limit @ ..] = state else {
            return Verdict::Quiet;
        };
        if *active != 0 {
            if score > self.release {
                return Verdict::Quiet;
            }
            (*active, *run) = (0, 0);
        }
        // Of a score that is NaN too.
        let above = score > self.over;
        if !above {
            *run = 0;
            return Verdict::Quiet;
        }
        *run += 1;
        if *run < self.run {
            return Verdict::Quiet;
        }
        (*active, *run) = (1, 0);
        let Some((next, rows)) = limit.split_last_mut() else {
            return Verdict::Alert(score);
        };
        let within = self.limit.map_or(0, |limit| limit.rows);
        // The oldest of the last alerts stands where the next one goes.
        let count = rows.len() as u64;
        let Some(oldest) = rows.get_mut((*next % count.max(1)) as usize) else {
            return Verdict::Alert(score);
        };
        if *oldest != 0 && row - *oldest < within {
            return Verdict::Suppressed;
        }
        *oldest = row;
        *next = (*next + 1) % count.max(1);
        Verdict::Alert(score)
    }
}
