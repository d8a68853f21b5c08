//! The order in which the vector levels walk a matrix stored one row per input.
//!
//! A lane of [`dot_columns`](super::Kernels::dot_columns) is a vector of partial sums, one per
//! output. All inputs of a lane are added before the next lane starts, several per pass, so that
//! a pass reads a few long runs of memory and its lane stays in the cache. Lanes are taken in the
//! order in which a depth-first walk of the reduction tree meets them
//! (0, 8, 4, 12, 2, 10, 6, 14, 1, ...), and each is folded into its partner as soon as both are
//! complete: five vectors are alive at most, not sixteen. The tree's sums are the same; the two
//! terms of each may be swapped, which does not change a sum.

use super::LANES;

/// Inputs of one lane that a wide pass adds: enough runs side by side for the memory, each long.
pub(super) const PASS_ROWS: usize = 8;

/// One pass over one lane.
#[derive(Clone, Copy)]
pub(super) struct Pass {
    /// The first input; the others follow [`LANES`] apart.
    pub(super) first: usize,
    /// Inputs in this pass: [`PASS_ROWS`], 4, 1, or 0 for a lane that has none.
    pub(super) rows: usize,
    /// Which of the five vectors holds the lane.
    pub(super) slot: usize,
    /// Whether the lane starts here, from +0.
    pub(super) fresh: bool,
    /// Earlier vectors into which the lane is folded after this pass: into `slot - 1`, and the sum
    /// into `slot - 2`, and so on.
    pub(super) folds: usize,
}

/// The passes over `inputs` inputs.
pub(super) fn passes(inputs: usize) -> impl Iterator<Item = Pass> {
    let mut step = 0;
    let mut first = lane(step);
    let mut fresh = true;
    core::iter::from_fn(move || {
        if step == LANES {
            return None;
        }
        let left = inputs.saturating_sub(first).div_ceil(LANES);
        let rows = match left {
            PASS_ROWS.. => PASS_ROWS,
            4.. => 4,
            _ => left.min(1),
        };
        let last = left == rows;
        let pass = Pass {
            first,
            rows,
            // a complete vector is waiting for each set bit of `step`
            slot: step.count_ones() as usize,
            fresh,
            folds: if last {
                step.trailing_ones() as usize
            } else {
                0
            },
        };
        fresh = last;
        if last {
            step += 1;
            first = lane(step);
        } else {
            first += rows * LANES;
        }
        Some(pass)
    })
}

/// The lane of a step: its four bits reversed.
fn lane(step: usize) -> usize {
    (0..LANES.trailing_zeros()).fold(0, |lane, bit| lane << 1 | step >> bit & 1)
}
