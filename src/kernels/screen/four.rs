//! The screen kernels of the levels whose vectors hold four 32-bit numbers: NEON and simd128.
//!
//! A vector of codes is four rows by four columns. Codes of 4 and 6 bits are signed bytes as they
//! are; codes of 8 bits are made signed, `u - 128`, and `128 * sum of z` is added at the end.
//! A product of signed bytes is at most 128 x 128, two of them fit an i16 pair sum in 32 bits.

use super::{
    CodeFormat, Matrix, PANEL_ROWS, ScreenInput, ScreenOutput, U3, U4, U6, U8, scalar, split_panel,
};

/// What an instruction set provides.
pub(super) trait Four: Copy {
    /// 16 bytes, or four i32.
    type Ints: Copy;
    /// Four f32.
    type Floats: Copy;

    fn load_bytes(bytes: &[u8; 16]) -> Self::Ints;
    fn load_floats(bytes: &[u8; 16]) -> Self::Floats;
    fn store_floats(to: &mut [f32; 4], values: Self::Floats);
    fn store_ints(to: &mut [i32; 4], values: Self::Ints);
    /// A byte in all places.
    fn bytes(byte: u8) -> Self::Ints;
    /// An i32 in all places.
    fn ints(value: i32) -> Self::Ints;
    fn floats(value: f32) -> Self::Floats;
    fn and(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    fn or(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    fn xor(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// Each byte shifted right by `BITS`.
    fn shift_right<const BITS: u32>(a: Self::Ints) -> Self::Ints;
    /// Each byte shifted left by `BITS`.
    fn shift_left<const BITS: u32>(a: Self::Ints) -> Self::Ints;
    /// Four i32 sums, wrapping.
    fn add(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// Four i32, each multiplied, wrapping.
    fn multiply(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// `sums[i] +` the four products of the signed bytes `4 i ..`.
    fn dot(sums: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// i32 to f32, rounded.
    fn to_floats(a: Self::Ints) -> Self::Floats;
    fn add_floats(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn subtract_floats(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn multiply_floats(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    fn root(a: Self::Floats) -> Self::Floats;
}

/// Words (four columns) of a block.
const WORDS: usize = 16;
/// Vectors of 16 rows.
const VECTORS: usize = 4;

#[inline]
pub(super) fn screen<F: Four, const FORMAT: u8>(
    panels: &[u8],
    blocks: usize,
    input: &ScreenInput<'_>,
    output: &mut ScreenOutput<'_>,
) {
    if input.high.is_empty() {
        screen_all::<F, FORMAT, 1>(panels, blocks, input, output);
    } else {
        screen_all::<F, FORMAT, 2>(panels, blocks, input, output);
    }
}

#[inline]
fn screen_all<F: Four, const FORMAT: u8, const PLANES: usize>(
    panels: &[u8],
    blocks: usize,
    input: &ScreenInput<'_>,
    output: &mut ScreenOutput<'_>,
) {
    let format = CodeFormat::ALL[FORMAT as usize];
    let planes = [input.low, input.high].map(|plane| plane.as_chunks::<WORDS>().0);
    let dithered = !input.squares.is_empty();
    let panels = panels.chunks_exact(format.panel_bytes(blocks));
    for (p, (panel, keep)) in panels.zip(output.keep.iter_mut()).enumerate() {
        let (header, scales, codes) = split_panel(panel, blocks);
        let Some(header) = header.first_chunk::<5>() else {
            continue;
        };
        let mut totals = [F::floats(0.0); VECTORS];
        let mut squares = [F::floats(0.0); VECTORS];
        let codes = codes.chunks_exact(format.block_bytes());
        for (b, (codes, scales)) in codes.zip(scales).enumerate() {
            let words: [Option<&[i32; WORDS]>; PLANES] =
                core::array::from_fn(|plane| planes[plane].get(b));
            let Some(&correction) = input.corrections.get(b) else {
                break;
            };
            let mut start = correction;
            if FORMAT == U8 {
                let sum = input.sums.get(b).copied().unwrap_or(0);
                start = start.wrapping_add(sum.wrapping_mul(128));
            }
            let sums = block_sums::<F, FORMAT, PLANES>(codes, words);
            let by = input.squares.get(b).copied();
            for (v, scales) in scales.as_chunks::<4>().0.iter().enumerate() {
                let mut sum = F::add(sums[0][v], F::ints(start));
                if let Some(high) = sums.get(1) {
                    sum = F::add(sum, F::multiply(high[v], F::ints(256)));
                }
                let scale = F::to_floats(widen::<F>(*scales));
                totals[v] = F::add_floats(totals[v], F::multiply_floats(scale, F::to_floats(sum)));
                if let Some(by) = by {
                    let by = F::multiply_floats(scale, F::multiply_floats(scale, F::floats(by)));
                    squares[v] = F::add_floats(squares[v], by);
                }
            }
        }
        *keep = 0;
        for v in 0..VECTORS {
            let vector = |n: usize| F::load_floats(&header[n].as_chunks::<16>().0[v]);
            let t = F::multiply_floats(totals[v], F::floats(input.step));
            let centre = F::add_floats(F::multiply_floats(vector(0), t), vector(1));
            let spread = if dithered {
                F::root(squares[v])
            } else {
                F::floats(input.spread)
            };
            let margin = F::add_floats(
                F::multiply_floats(vector(2), spread),
                F::multiply_floats(vector(3), F::floats(input.slack)),
            );
            let (mut upper, mut lower, mut threshold) = ([0.0; 4], [0.0; 4], [0.0; 4]);
            F::store_floats(&mut upper, F::add_floats(centre, margin));
            F::store_floats(&mut lower, F::subtract_floats(centre, margin));
            F::store_floats(&mut threshold, vector(4));
            for (row, (upper, threshold)) in upper.iter().zip(threshold).enumerate() {
                let below = *upper < threshold;
                *keep |= u16::from(!below) << (4 * v + row);
            }
            if let Some(out) = output.upper.as_chunks_mut().0.get_mut(VECTORS * p + v) {
                *out = upper;
            }
            if let Some(out) = output.lower.as_chunks_mut().0.get_mut(VECTORS * p + v) {
                *out = lower;
            }
        }
    }
}

/// Four bytes as i32.
#[inline]
fn widen<F: Four>(bytes: [u8; 4]) -> F::Ints {
    let mut wide = [0; 16];
    for (wide, byte) in wide.iter_mut().step_by(4).zip(bytes) {
        *wide = byte;
    }
    F::load_bytes(&wide)
}

/// For each plane: the sums of `u z` over a block; in 8 bits, of `(u - 128) z`.
#[inline]
fn block_sums<F: Four, const FORMAT: u8, const PLANES: usize>(
    codes: &[u8],
    planes: [Option<&[i32; WORDS]>; PLANES],
) -> [[F::Ints; VECTORS]; PLANES] {
    let mut sums = [[F::ints(0); VECTORS]; PLANES];
    for quarter in 0..WORDS / 4 {
        for v in 0..VECTORS {
            let codes = quarter_codes::<F, FORMAT>(codes, quarter, v);
            for (sums, plane) in sums.iter_mut().zip(planes) {
                let Some(plane) = plane else { continue };
                for (word, codes) in codes.into_iter().enumerate() {
                    let z = F::ints(plane[quarter * 4 + word]);
                    sums[v] = F::dot(sums[v], codes, z);
                }
            }
        }
    }
    sums
}

/// Four words of a block for the rows `4 v ..`: a signed code to a byte.
#[inline]
fn quarter_codes<F: Four, const FORMAT: u8>(
    codes: &[u8],
    quarter: usize,
    v: usize,
) -> [F::Ints; 4] {
    // vectors of codes, four to a line of 64 bytes
    let lines = codes.as_chunks::<16>().0.as_chunks::<VECTORS>().0;
    match FORMAT {
        U3 => {
            let Some(lines) = lines.as_chunks::<3>().0.get(quarter / 2) else {
                return [F::ints(0); 4];
            };
            let [a, b, c] = lines.each_ref().map(|line| F::load_bytes(&line[v]));
            let three = |codes| F::and(codes, F::bytes(7));
            let last = |low, high| {
                let high = F::and(high, F::bytes(4));
                F::or(F::shift_right::<6>(low), high)
            };
            if quarter.is_multiple_of(2) {
                [
                    three(a),
                    three(F::shift_right::<3>(a)),
                    three(b),
                    three(F::shift_right::<3>(b)),
                ]
            } else {
                [
                    three(c),
                    three(F::shift_right::<3>(c)),
                    last(a, F::shift_right::<4>(c)),
                    last(b, F::shift_right::<5>(c)),
                ]
            }
        }
        U4 => {
            let Some([a, b]) = lines.as_chunks::<2>().0.get(quarter) else {
                return [F::ints(0); 4];
            };
            let (a, b) = (F::load_bytes(&a[v]), F::load_bytes(&b[v]));
            let mask = F::bytes(15);
            [
                F::and(a, mask),
                F::shift_right::<4>(a),
                F::and(b, mask),
                F::shift_right::<4>(b),
            ]
        }
        U6 => {
            let Some(lines) = lines.as_chunks::<3>().0.get(quarter) else {
                return [F::ints(0); 4];
            };
            let [a, b, c] = lines.each_ref().map(|line| F::load_bytes(&line[v]));
            let mask = F::bytes(63);
            let fourth = F::or(
                F::or(
                    F::shift_right::<6>(a),
                    F::shift_left::<2>(F::shift_right::<6>(b)),
                ),
                F::shift_left::<4>(F::shift_right::<6>(c)),
            );
            [F::and(a, mask), F::and(b, mask), F::and(c, mask), fourth]
        }
        _ => {
            let Some(lines) = lines.as_chunks::<4>().0.get(quarter) else {
                return [F::ints(0); 4];
            };
            let sign = F::bytes(128);
            lines
                .each_ref()
                .map(|line| F::xor(F::load_bytes(&line[v]), sign))
        }
    }
}

#[inline]
pub(super) fn dot_bytes<F: Four>(
    codes: &[u8],
    high: &[i32],
    low: &[i32],
    out: &mut [i64; PANEL_ROWS],
) {
    let sign = F::bytes(128);
    let mut sums = [[F::ints(0); VECTORS]; 2];
    let mut plane_sums = [0i64; 2];
    let codes = codes.as_chunks::<16>().0.as_chunks::<VECTORS>().0;
    for (codes, (low, high)) in codes.iter().zip(low.iter().zip(high)) {
        for (plane, &z) in [low, high].into_iter().enumerate() {
            let sum: i32 = z.to_le_bytes().iter().map(|&z| i32::from(z as i8)).sum();
            plane_sums[plane] += i64::from(sum);
            for (sum, codes) in sums[plane].iter_mut().zip(codes) {
                *sum = F::dot(*sum, F::xor(F::load_bytes(codes), sign), F::ints(z));
            }
        }
    }
    let start = 128 * (plane_sums[0] + 256 * plane_sums[1]);
    for (v, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let [low, high] = [sums[0][v], sums[1][v]].map(|sums| {
            let mut lanes = [0; 4];
            F::store_ints(&mut lanes, sums);
            lanes
        });
        for (out, (low, high)) in out.iter_mut().zip(low.into_iter().zip(high)) {
            *out = start + i64::from(low) + 256 * i64::from(high);
        }
    }
}

/// Scales multiply each block's lanes, at most 4 x 4 x 3 x 128 x 255 in magnitude, and i32 holds
/// 1,370 of those.
#[inline]
pub(super) fn refine_row<F: Four>(scales: &[u8], codes: &[u8], high: &[i8], low: &[i8]) -> i64 {
    let mut sums = [F::ints(0); 2];
    let mask = F::bytes(3);
    let planes = [low, high].map(|plane| plane.as_chunks::<16>().0.as_chunks::<4>().0);
    let rows = codes.as_chunks::<16>().0.iter().zip(scales);
    for (block, (codes, &scale)) in rows.enumerate() {
        let codes = F::load_bytes(codes);
        let codes = [
            F::and(codes, mask),
            F::and(F::shift_right::<2>(codes), mask),
            F::and(F::shift_right::<4>(codes), mask),
            F::shift_right::<6>(codes),
        ];
        let scale = F::ints(i32::from(scale));
        for (sum, plane) in sums.iter_mut().zip(planes) {
            let Some(plane) = plane.get(block) else {
                continue;
            };
            let mut part = F::ints(0);
            for (codes, z) in codes.into_iter().zip(plane) {
                part = F::dot(part, codes, F::load_bytes(&z.map(|z| z as u8)));
            }
            *sum = F::add(*sum, F::multiply(part, scale));
        }
    }
    let [low, high] = sums.map(|sum| {
        let mut lanes = [0; 4];
        F::store_ints(&mut lanes, sum);
        lanes.iter().map(|&lane| i64::from(lane)).sum::<i64>()
    });
    256 * high + low
}

/// The tile of the scalar level: its loops are vectorised as they are.
#[inline]
pub(super) fn subtract_products(a: Matrix<'_>, b: Matrix<'_>, c: &mut [f64], stride: usize) {
    scalar::subtract_products(a, b, c, stride);
}
