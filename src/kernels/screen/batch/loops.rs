//! Plain loops that each level compiles with its own instructions. Nothing is fused.

use super::{GROUP_ROWS, GroupBounds, TILE_INPUTS, TileInput, Totals};

#[inline(always)]
pub(super) fn keep(
    totals: &Totals,
    inputs: &[TileInput; TILE_INPUTS],
    group: &GroupBounds,
    lower_slack: Option<f32>,
) -> [u64; TILE_INPUTS] {
    let mut out = [0; TILE_INPUTS];
    for ((out, totals), input) in out.iter_mut().zip(totals).zip(inputs) {
        let mut kept = [0u8; GROUP_ROWS];
        match lower_slack {
            None => {
                for (i, kept) in kept.iter_mut().enumerate() {
                    let [centre, margin] = bound(group, input, totals, i);
                    let upper = centre + margin;
                    let below = (upper < group.threshold[i]) | (upper < input.floor);
                    *kept = u8::from(!below);
                }
            }
            Some(slack) => {
                for (i, kept) in kept.iter_mut().enumerate() {
                    let [centre, margin] = bound(group, input, totals, i);
                    let (upper, lower) = (centre + margin, (centre - margin) - slack);
                    let below = (upper < input.floor) & (-lower < input.floor);
                    // A row of padding has a threshold that nothing reaches.
                    let padding = group.threshold[i] == f32::INFINITY;
                    *kept = u8::from(!(below | padding));
                }
            }
        }
        for (i, kept) in kept.into_iter().enumerate() {
            *out |= u64::from(kept) << i;
        }
    }
    out
}

/// The estimate and the margin.
#[inline(always)]
pub(super) fn bound(
    group: &GroupBounds,
    input: &TileInput,
    totals: &[f32; GROUP_ROWS],
    i: usize,
) -> [f32; 2] {
    let t = totals[i] * input.step;
    let margin = group.residual[i] * input.spread + group.other[i] * input.slack;
    [group.weight[i] * t + group.offset[i], margin]
}
