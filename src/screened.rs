//! Selecting through a screen: which features are computed exactly, and in which order.

use crate::encode::check_width;
use crate::error::Error;
use crate::kernels::screen::ScreenKernels;
use crate::model::{Activation, Matrix, Rank, Sae};
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

/// Bounds that are compared with the floor at once when features are ranked: what
/// [`ScreenKernels::above`] takes.
const BLOCK: usize = 32;

/// What [`Sae::select_screened`] works in.
pub(crate) struct Work<'w> {
    /// [`Screen::work_len`] values.
    pub(crate) bounds: &'w mut [f64],
    /// For rules that rank: an entry for each feature; else empty.
    pub(crate) order: &'w mut [u64],
}

impl Work<'_> {
    /// The same for a shorter time.
    pub(crate) fn reborrow(&mut self) -> Work<'_> {
        Work {
            bounds: self.bounds,
            order: self.order,
        }
    }
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
        ahead(&self.parts.encoder)
    }

    /// Length of the scratch that screened encoding needs, in f64 units: bounds and order.
    pub(crate) fn screen_lengths(&self) -> [usize; 2] {
        match &self.screen {
            None => [0, 0],
            Some(screen) => match self.parts.activation {
                Activation::TopK { .. } | Activation::Pursuit(_) => {
                    [screen.work_len(), screen.features()]
                }
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
                let order = Order::new(&bounds, range, (rank, least), kernels);
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

fn ahead(encoder: &Matrix<'_>) -> usize {
    (AHEAD_BYTES / encoder.stride_bytes().max(1)).clamp(1, 8)
}

/// What a screen knows of the ranks of the features for one input.
pub(crate) struct Ranked<'w> {
    screen: &'w Screen<'w>,
    kernels: &'static ScreenKernels,
    bounds: Bounds<'w>,
    entries: &'w mut [u64],
    rank: Rank,
}

impl<'w> Ranked<'w> {
    /// `None` if the work space is too short.
    pub(crate) fn new(
        screen: &'w Screen<'w>,
        kernels: &'static ScreenKernels,
        input: &[f32],
        rank: Rank,
        work: &'w mut Work<'_>,
    ) -> Option<Self> {
        Some(Ranked {
            bounds: screen.bounds(kernels, input, true, work.bounds)?,
            entries: work.order,
            screen,
            kernels,
            rank,
        })
    }

    /// Gives `judge` the features that can have the highest rank above `least`: first those of the
    /// `count` highest bounds, then, in descending order, every other one whose bound reaches the
    /// highest rank found so far, which `judge` says (`least` while there is none).
    pub(crate) fn candidates(
        self,
        encoder: &Matrix<'_>,
        least: f32,
        count: usize,
        mut judge: impl FnMut(usize) -> f32,
    ) {
        let features = 0..self.screen.features();
        let order = Order::new(&self.bounds, features, (self.rank, least), self.kernels);
        let fetch = |feature: usize| self.kernels.prefetch(encoder.row(feature).unwrap_or(&[]));
        let found = order.best(count, self.entries);
        let first = self.entries.get_mut(..found).unwrap_or(&mut []);
        let last = first.iter().min().copied().unwrap_or(0);
        let mut highest = least;
        for &entry in first.iter() {
            highest = judge(feature_of(entry));
        }
        if found < count {
            // No other feature can rank.
            return;
        }
        let found = order.between(highest, last, self.entries);
        let others = self.entries.get_mut(..found).unwrap_or(&mut []);
        others.sort_unstable_by(|a, b| b.cmp(a));
        let fetched = ahead(encoder);
        for (i, &entry) in others.iter().enumerate() {
            if bound_of(entry) < highest {
                break;
            }
            if let Some(&next) = others.get(i + fetched) {
                fetch(feature_of(next));
            }
            let feature = feature_of(entry);
            let closer = match self.rank {
                Rank::Value => self
                    .bounds
                    .refined_upper(self.screen, self.kernels, feature),
                Rank::Magnitude => f32::INFINITY,
            };
            if closer < highest {
                continue;
            }
            highest = judge(feature);
        }
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
    kernels: &'static ScreenKernels,
}

impl<'b> Order<'b> {
    fn new(
        bounds: &'b Bounds<'_>,
        range: Range<usize>,
        (rank, least): (Rank, f32),
        kernels: &'static ScreenKernels,
    ) -> Self {
        Order {
            first: range.start,
            upper: bounds.upper().get(range.clone()).unwrap_or(&[]),
            lower: match rank {
                Rank::Value => &[],
                Rank::Magnitude => bounds.lower().get(range).unwrap_or(&[]),
            },
            least,
            kernels,
        }
    }

    /// The blocks in order: the first feature of each, and the upper and lower bounds.
    fn blocks(&self) -> impl Iterator<Item = (usize, &[f32], &[f32])> {
        let lower = self.lower.chunks(BLOCK);
        let lower = lower.chain(core::iter::repeat(&[][..]));
        let firsts = (self.first..).step_by(BLOCK);
        let blocks = firsts.zip(self.upper.chunks(BLOCK)).zip(lower);
        blocks.map(|((first, upper), lower)| (first, upper, lower))
    }

    /// Calls `visit` with each feature of a rank that can be above `floor`, and the bound of its
    /// rank. `visit` says the floor from there on.
    fn above(&self, mut floor: f32, mut visit: impl FnMut(usize, f32) -> f32) {
        for (first, upper, lower) in self.blocks() {
            // A comparison without a branch for each feature.
            let mut above = self.kernels.above(upper, floor) | below(lower, -floor);
            while above != 0 {
                let i = above.trailing_zeros() as usize;
                above &= above - 1;
                let upper = upper.get(i).copied().unwrap_or(f32::INFINITY);
                let rank = rank(upper, lower.get(i));
                if rank > floor {
                    floor = visit(first + i, rank);
                }
            }
        }
    }

    /// A bound that at least `k` features reach, if that many blocks tell one: the k-th highest of
    /// the highest bounds of the blocks.
    fn reached(&self, k: usize, entries: &mut [u64]) -> Option<f32> {
        let mut count = 0;
        for ((first, upper, lower), slot) in self.blocks().zip(entries.iter_mut()) {
            *slot = entry(highest(upper, lower), first);
            count += 1;
        }
        match 0 < k && k < count {
            true => Some(cut(entries.get_mut(..count)?, k)),
            false => None,
        }
    }

    /// Writes the entries of the `k` highest bounds, and says how many there are.
    fn best(&self, k: usize, entries: &mut [u64]) -> usize {
        // Room to collect in before the best are picked again.
        let room = (2 * k + 64).min(entries.len());
        let floor = match self.reached(k, entries) {
            // Those that are equal to it may be among the best.
            Some(reached) => self.least.max(reached.next_down()),
            None => self.least,
        };
        let (mut count, mut current) = (0, floor);
        self.above(floor, |feature, rank| {
            if count == room {
                count = k;
                current = cut(&mut entries[..room], k).max(current);
                if rank <= current {
                    return current;
                }
            }
            entries[count] = entry(rank, feature);
            count += 1;
            current
        });
        if count > k {
            cut(&mut entries[..count], k);
            count = k;
        }
        count
    }

    /// Writes the entries of the bounds that are at least `rank` and whose entry is below `last`.
    fn between(&self, rank: f32, last: u64, entries: &mut [u64]) -> usize {
        let floor = self.least.max(rank.next_down());
        let mut count = 0;
        self.above(floor, |feature, bound| {
            let found = entry(bound, feature);
            if found < last
                && let Some(slot) = entries.get_mut(count)
            {
                *slot = found;
                count += 1;
            }
            floor
        });
        count
    }
}

/// The upper bound of the rank of a feature, from the bounds of its pre-activation; the lower one
/// where magnitudes rank.
fn rank(upper: f32, lower: Option<&f32>) -> f32 {
    // `max` drops a NaN; one that is alone bounds nothing.
    match upper.is_nan() {
        true => f32::INFINITY,
        false => upper.max(lower.map_or(f32::NEG_INFINITY, |&lower| -lower)),
    }
}

/// A bit for each lower bound of a block that is below `floor`: a magnitude above minus that.
fn below(lower: &[f32], floor: f32) -> u32 {
    let bits = lower.iter().enumerate();
    bits.fold(0, |bits, (i, &lower)| bits | u32::from(lower < floor) << i)
}

/// The highest rank of a block.
fn highest(upper: &[f32], lower: &[f32]) -> f32 {
    // Eight at a time: one after the other would wait for each comparison.
    let mut lanes = [f32::NEG_INFINITY; 8];
    for bounds in upper.chunks(8) {
        for (lane, &bound) in lanes.iter_mut().zip(bounds) {
            // A NaN is passed over: what is said to be reached is then reached all the more.
            *lane = if bound > *lane { bound } else { *lane };
        }
    }
    for bounds in lower.chunks(8) {
        for (lane, &bound) in lanes.iter_mut().zip(bounds) {
            *lane = if -bound > *lane { -bound } else { *lane };
        }
    }
    lanes.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Level;
    use alloc::vec;

    /// Bounds with ties, zeros of both signs, infinities and NaNs among them.
    fn bounds(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
            (state >> 33) as u32
        };
        let value = |_| match next() % 64 {
            0 => f32::INFINITY,
            1 => f32::NEG_INFINITY,
            2 => f32::NAN,
            3 => -0.0,
            4..=20 => (next() % 8) as f32 - 4.0,
            _ => (next() % 100_000) as f32 / 1e4 - 5.0,
        };
        (0..count).map(value).collect()
    }

    /// The entries that rank at all, highest first, by sorting all of them.
    fn sorted(order: &Order<'_>) -> Vec<u64> {
        let ranks = order.upper.iter().enumerate().map(|(i, &upper)| {
            let rank = rank(upper, order.lower.get(i));
            (rank, order.first + i)
        });
        let ranks = ranks.filter(|&(rank, _)| rank > order.least);
        let mut entries: Vec<u64> = ranks.map(|(rank, i)| entry(rank, i)).collect();
        entries.sort_unstable_by(|a, b| b.cmp(a));
        entries
    }

    #[test]
    fn ranking_by_blocks_is_ranking_by_sorting() {
        for level in Level::available() {
            ranking_at(ScreenKernels::for_level(level));
        }
    }

    fn ranking_at(kernels: &'static ScreenKernels) {
        for count in [0, 1, 31, 32, 33, 64, 100, 1000, 3072] {
            for (seed, least) in [(1, 0.0), (2, f32::NEG_INFINITY), (3, 4.0)] {
                let upper = bounds(count, seed);
                let lower = match seed {
                    1 => Vec::new(),
                    _ => bounds(count, seed + 10),
                };
                let order = Order {
                    first: 5,
                    upper: &upper,
                    lower: &lower,
                    least,
                    kernels,
                };
                let all = sorted(&order);
                for k in [0, 1, 2, 7, 32, 90, 200, 3072] {
                    let mut entries = vec![0; count];
                    let found = order.best(k, &mut entries);
                    let mut best = entries[..found].to_vec();
                    best.sort_unstable_by(|a, b| b.cmp(a));
                    assert_eq!(best, all[..k.min(all.len())], "{count} {seed} {k}");

                    let last = best.last().copied().unwrap_or(u64::MAX);
                    for rank in [f32::NEG_INFINITY, -1.0, -0.0, 0.0, 2.0, f32::INFINITY] {
                        let found = order.between(rank, last, &mut entries);
                        let mut between = entries[..found].to_vec();
                        between.sort_unstable_by(|a, b| b.cmp(a));
                        let expected = all.iter().copied();
                        let expected = expected.filter(|&e| e < last && bound_of(e) >= rank);
                        assert_eq!(between, expected.collect::<Vec<_>>(), "{count} {k} {rank}");
                    }
                }
            }
        }
    }
}
