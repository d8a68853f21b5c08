//! Selecting through a screen: which features are computed exactly, and in which order.

use crate::encode::check_width;
use crate::error::Error;
use crate::kernels::screen::ScreenKernels;
use crate::model::{Activation, Rank, Sae};
use crate::rows::Rows;
use crate::scratch::Scratch;
use crate::screen::{Bounds, Screen};
use crate::select::{Selector, Sink};
use alloc::vec::Vec;
use core::ops::Range;

/// Bytes of rows fetched ahead of the one being computed: more would push each other out.
const AHEAD_BYTES: usize = 8192;
/// The most sample rows that a screen is chosen by.
const SAMPLE_ROWS: usize = 64;

/// What [`Sae::select_screened`] works in.
pub(crate) struct Work<'w> {
    /// [`Screen::work_len`] values.
    pub(crate) bounds: &'w mut [f64],
    /// For rules that rank: an entry for each feature; else empty.
    pub(crate) order: &'w mut [u64],
}

impl Sae<'_> {
    /// [`Sae::prepare`], with the screen chosen by what it does on these rows (the first ones of a
    /// text, for instance; 64 of them, evenly spread, are looked at). Rows that are not finite are
    /// passed over. The choice changes the time, never a result.
    ///
    /// # Errors
    /// [`Error::Length`] if the rows are not d_in wide; [`Error::OutOfMemory`].
    pub fn prepare_with(mut self, rows: Rows<'_>) -> Result<Self, Error> {
        self.prepare_in_place_with(rows)?;
        Ok(self)
    }

    /// [`Sae::prepare_with`] for a model that stays where it is.
    ///
    /// # Errors
    /// As [`Sae::prepare_with`]; the model may have its rows then, but no screen.
    pub fn prepare_in_place_with(&mut self, rows: Rows<'_>) -> Result<(), Error> {
        check_width(rows, self.d_in())?;
        self.prepare_rows()?;
        let mut inputs = Vec::new();
        if self.members.is_empty() {
            let mut scratch = Scratch::new(self)?;
            let mut work = scratch.split(self)?;
            let step = rows.rows().div_ceil(SAMPLE_ROWS).max(1);
            for row in (0..rows.rows()).step_by(step) {
                if self.prepare_row(rows, row, &mut work).is_some() {
                    inputs.push(work.input.to_vec());
                }
            }
        }
        self.build_screen(&inputs)
    }

    /// Rows of the encoder that are fetched ahead of the one being computed.
    fn ahead(&self) -> usize {
        (AHEAD_BYTES / self.parts.encoder.stride_bytes().max(1)).clamp(1, 8)
    }

    /// Length of the scratch that screened encoding needs, in f64 units: bounds and order.
    pub(crate) fn screen_lengths(&self) -> [usize; 2] {
        match &self.screen {
            None => [0, 0],
            Some(screen) => match self.parts.activation {
                Activation::TopK { .. } => [screen.work_len(), screen.features()],
                _ => [screen.work_len(), 0],
            },
        }
    }

    /// Selects from the features of a range that the screen does not rule out.
    pub(crate) fn select_screened<S: Sink>(
        &self,
        screen: &Screen<'_>,
        range: Range<usize>,
        (input, work): (&[f32], &mut Work<'_>),
        selector: &mut Selector<'_>,
        features: &mut S,
    ) -> Result<(), Error> {
        let kernels = self.screen_kernels();
        let ranked = match self.parts.activation {
            Activation::TopK { k, rank, relu } => Some((k, rank, relu)),
            _ => None,
        };
        let Some(bounds) = screen.bounds(kernels, input, ranked.is_some(), work.bounds) else {
            return self.exact(input, range, kernels, selector, features);
        };
        match ranked {
            None => {
                let kept = bounds.kept().skip_while(|&feature| feature < range.start);
                let kept = kept.take_while(|&feature| feature < range.end);
                self.exact(input, kept, kernels, selector, features)
            }
            Some((k, rank, relu)) => {
                let least = match relu && rank == Rank::Value {
                    true => 0.0,
                    false => f32::NEG_INFINITY,
                };
                let order = Order::new(&bounds, range, rank, least);
                let closer = |feature: usize| match rank {
                    Rank::Value => bounds.refined_upper(screen, kernels, feature),
                    Rank::Magnitude => f32::INFINITY,
                };
                let work = (&mut *work.order, k);
                self.in_order(input, order, closer, work, kernels, selector, features)
            }
        }
    }

    /// Judges `chosen` by their exact products.
    fn exact<S: Sink>(
        &self,
        input: &[f32],
        chosen: impl Iterator<Item = usize> + Clone,
        kernels: &ScreenKernels,
        selector: &mut Selector<'_>,
        features: &mut S,
    ) -> Result<(), Error> {
        let encoder = &self.parts.encoder;
        let mut ahead = chosen.clone();
        for feature in ahead.by_ref().take(self.ahead()) {
            kernels.prefetch(encoder.row(feature).unwrap_or(&[]));
        }
        for feature in chosen {
            if let Some(next) = ahead.next() {
                kernels.prefetch(encoder.row(next).unwrap_or(&[]));
            }
            let product = self.product(input, feature);
            selector.block(feature, &[product], &[], features)?;
        }
        Ok(())
    }

    /// The exact product of one feature, whose row is stored as one.
    fn product(&self, input: &[f32], feature: usize) -> f64 {
        let encoder = &self.parts.encoder;
        let mut product = [0.0];
        if let Some(row) = encoder.row(feature) {
            self.kernels
                .dot_rows(encoder.weight_type(), row, row.len(), input, &mut product);
        }
        let [product] = product;
        product
    }

    /// TopK: the k features of the highest upper bounds first; then, in descending order, every
    /// other one whose upper bound, and whose `closer` one, reaches the k-th rank found so far.
    // One more than clippy's seven: each is a piece of the caller's scratch or a different object.
    #[allow(clippy::too_many_arguments)]
    fn in_order<S: Sink>(
        &self,
        input: &[f32],
        order: Order<'_>,
        closer: impl Fn(usize) -> f32,
        (entries, k): (&mut [u64], usize),
        kernels: &ScreenKernels,
        selector: &mut Selector<'_>,
        features: &mut S,
    ) -> Result<(), Error> {
        let count = order.best(k, entries);
        let first = entries.get_mut(..count).unwrap_or(&mut []);
        let last = first.iter().min().copied().unwrap_or(0);
        let indices = first.iter().map(|&entry| feature_of(entry));
        self.exact(input, indices, kernels, selector, features)?;
        if count < k {
            // No other feature can rank.
            return Ok(());
        }
        let count = order.between(selector.least_rank(), last, entries);
        let others = entries.get_mut(..count).unwrap_or(&mut []);
        others.sort_unstable_by(|a, b| b.cmp(a));
        let fetched = self.ahead();
        for (i, &entry) in others.iter().enumerate() {
            if bound_of(entry) < selector.least_rank() {
                break;
            }
            if let Some(&next) = others.get(i + fetched) {
                kernels.prefetch(self.parts.encoder.row(feature_of(next)).unwrap_or(&[]));
            }
            let feature = feature_of(entry);
            if closer(feature) < selector.least_rank() {
                continue;
            }
            selector.block(feature, &[self.product(input, feature)], &[], features)?;
        }
        Ok(())
    }
}

/// The features of a row by the upper bounds of their ranks.
struct Order<'b> {
    /// The feature of the first bound.
    first: usize,
    upper: &'b [f32],
    /// Empty unless magnitudes rank.
    lower: &'b [f32],
    /// A feature whose bound is not above this does not rank.
    least: f32,
}

impl<'b> Order<'b> {
    fn new(bounds: &'b Bounds<'_>, range: Range<usize>, rank: Rank, least: f32) -> Self {
        Order {
            first: range.start,
            upper: bounds.upper().get(range.clone()).unwrap_or(&[]),
            lower: match rank {
                Rank::Value => &[],
                Rank::Magnitude => bounds.lower().get(range).unwrap_or(&[]),
            },
            least,
        }
    }

    /// Each feature with the upper bound of its rank.
    fn ranks(&self) -> impl Iterator<Item = (usize, f32)> {
        let lower = self.lower.iter().map(|&lower| -lower);
        let lower = lower.chain(core::iter::repeat(f32::NEG_INFINITY));
        // `max` drops a NaN; one that is alone bounds nothing.
        let both = self.upper.iter().zip(lower);
        let ranks = both.map(|(&upper, lower)| match upper.is_nan() {
            true => f32::INFINITY,
            false => upper.max(lower),
        });
        (self.first..).zip(ranks)
    }

    /// Writes the entries of the `k` highest bounds, and says how many there are.
    fn best(&self, k: usize, entries: &mut [u64]) -> usize {
        // Room to collect in before the best are picked again.
        let room = (2 * k + 64).min(entries.len());
        let (mut count, mut floor) = (0, self.least);
        for (feature, rank) in self.ranks() {
            if rank > floor {
                if count == room {
                    count = k;
                    floor = cut(&mut entries[..room], k);
                    if rank <= floor {
                        continue;
                    }
                }
                entries[count] = entry(rank, feature);
                count += 1;
            }
        }
        if count > k {
            cut(&mut entries[..count], k);
            count = k;
        }
        count
    }

    /// Writes the entries of the bounds that are at least `rank` and whose entry is below `last`.
    fn between(&self, rank: f32, last: u64, entries: &mut [u64]) -> usize {
        let mut count = 0;
        for (feature, bound) in self.ranks() {
            if bound >= rank
                && bound > self.least
                && entry(bound, feature) < last
                && let Some(slot) = entries.get_mut(count)
            {
                *slot = entry(bound, feature);
                count += 1;
            }
        }
        count
    }
}

/// Moves the `k` largest to the front and returns the bound of the smallest of them.
fn cut(entries: &mut [u64], k: usize) -> f32 {
    let Some(last) = k.checked_sub(1).filter(|&last| last < entries.len()) else {
        return f32::NEG_INFINITY;
    };
    let (_, kth, _) = entries.select_nth_unstable_by(last, |a, b| b.cmp(a));
    bound_of(*kth)
}

/// Orders by bound, then by lower index.
fn entry(bound: f32, feature: usize) -> u64 {
    let bits = (bound + 0.0).to_bits();
    let ordered = match bits >> 31 {
        0 => bits | 1 << 31,
        _ => !bits,
    };
    u64::from(ordered) << 32 | u64::from(!(feature as u32))
}

fn feature_of(entry: u64) -> usize {
    !(entry as u32) as usize
}

fn bound_of(entry: u64) -> f32 {
    let ordered = (entry >> 32) as u32;
    f32::from_bits(match ordered >> 31 {
        0 => !ordered,
        _ => ordered & !(1 << 31),
    })
}
