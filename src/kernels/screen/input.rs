//! What happens to an input before it meets the panels: plain loops over eight lanes, which each
//! level compiles with its own instructions. Nothing is fused and the lanes are part of the
//! definition, so all levels give the same bits.

use super::BLOCK_COLUMNS;

const LANES: usize = 8;

/// Adding and taking away 1.5 * 2^52 rounds a number below 2^51 to the nearest integer; before it
/// is taken away, the low 32 bits are that integer.
const MAGIC: f64 = 6_755_399_441_055_744.0;

#[inline(always)]
fn total(lanes: [f64; LANES]) -> f64 {
    lanes.iter().sum()
}

#[inline(always)]
fn largest(lanes: [f64; LANES]) -> f64 {
    lanes
        .iter()
        .fold(0.0, |a: f64, &b| if a > b { a } else { b })
}

/// `y = (x - centre) * power`; returns the sum of `(x * power)^2`, the sum of `y^2`, and the
/// largest magnitude in `y`. All slices have one length, a multiple of eight.
#[inline(always)]
pub(super) fn centre(x: &[f32], centre: &[f64], powers: &[f64], y: &mut [f64]) -> [f64; 3] {
    let (mut raw, mut sums, mut max) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    let lines = y.as_chunks_mut::<LANES>().0.iter_mut();
    let lines = lines.zip(x.as_chunks::<LANES>().0);
    let fixed = centre.as_chunks::<LANES>().0.iter();
    let fixed = fixed.zip(powers.as_chunks::<LANES>().0);
    for ((y, x), (centre, powers)) in lines.zip(fixed) {
        for i in 0..LANES {
            let wide = f64::from(x[i]);
            let scaled = wide * powers[i];
            raw[i] += scaled * scaled;
            let value = (wide - centre[i]) * powers[i];
            sums[i] += value * value;
            let size = value.abs();
            max[i] = if size > max[i] { size } else { max[i] };
            y[i] = value;
        }
    }
    [total(raw), total(sums), largest(max)]
}

/// The sum of squares and the largest magnitude.
#[inline(always)]
pub(super) fn measure(values: &[f64]) -> [f64; 2] {
    let (mut sums, mut max) = ([0.0; LANES], [0.0; LANES]);
    for values in values.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            sums[i] += values[i] * values[i];
            let size = values[i].abs();
            max[i] = if size > max[i] { size } else { max[i] };
        }
    }
    [total(sums), largest(max)]
}

/// `values = step * (256 high + low)` and a remainder: the integers, their sums over blocks, and
/// the sums of squares of the remainder and of what the integers stand for.
#[inline(always)]
pub(super) fn quantise(
    values: &[f64],
    step: f64,
    high: &mut [i8],
    low: &mut [i8],
    block_sums: &mut [i32],
) -> [f64; 2] {
    let inverse = 1.0 / step;
    let (mut left, mut coded) = ([0.0; LANES], [0.0; LANES]);
    let planes = high.as_chunks_mut::<BLOCK_COLUMNS>().0.iter_mut();
    let planes = planes.zip(low.as_chunks_mut::<BLOCK_COLUMNS>().0);
    let blocks = values.as_chunks::<BLOCK_COLUMNS>().0.iter().zip(block_sums);
    for ((values, block_sum), (high, low)) in blocks.zip(planes) {
        let mut integers = [0i32; BLOCK_COLUMNS];
        let values = values.as_chunks::<LANES>().0;
        for (values, integers) in values.iter().zip(integers.as_chunks_mut::<LANES>().0) {
            for i in 0..LANES {
                let shifted = values[i] * inverse + MAGIC;
                integers[i] = shifted.to_bits() as u32 as i32;
                let value = (shifted - MAGIC) * step;
                let error = values[i] - value;
                left[i] += error * error;
                coded[i] += value * value;
            }
        }
        let mut sum = 0;
        for (i, &integer) in integers.iter().enumerate() {
            sum += integer;
            let upper = (integer + 128) >> 8;
            high[i] = upper as i8;
            low[i] = (integer - 256 * upper) as i8;
        }
        *block_sum = sum;
    }
    [total(left), total(coded)]
}

/// A bit for each value that is not at most `floor`.
#[inline(always)]
#[allow(clippy::neg_cmp_op_on_partial_ord)] // a NaN has a bit
pub(super) fn above(values: &[f32], floor: f32) -> u32 {
    let bits = values.iter().enumerate();
    bits.fold(0, |bits, (i, &value)| {
        bits | u32::from(!(value <= floor)) << i
    })
}

/// For each block, the sum of `shift * z`.
#[inline(always)]
pub(super) fn shift_sums(high: &[i8], low: &[i8], shift: &[f64], out: &mut [f64]) {
    let planes = high.as_chunks::<BLOCK_COLUMNS>().0.iter();
    let planes = planes.zip(low.as_chunks::<BLOCK_COLUMNS>().0);
    let blocks = shift.as_chunks::<BLOCK_COLUMNS>().0.iter().zip(out);
    for ((shift, out), (high, low)) in blocks.zip(planes) {
        let mut sums = [0.0; LANES];
        for at in (0..BLOCK_COLUMNS).step_by(LANES) {
            for i in 0..LANES {
                let z = 256 * i32::from(high[at + i]) + i32::from(low[at + i]);
                sums[i] += f64::from(z) * shift[at + i];
            }
        }
        *out = total(sums);
    }
}
