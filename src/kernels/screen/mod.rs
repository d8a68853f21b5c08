//! Integer products of quantised rows, and upper bounds from them: the inner loops of `screen`.
//!
//! # Panels
//!
//! Sixteen rows form a *panel*; columns are padded with zeros to *blocks* of 64. A panel is
//!
//! | bytes | content |
//! |---|---|
//! | 5 x 64 | `weight`, `offset`, `residual`, `other`, `threshold`: one f32 for each row |
//! | 16 for each block, padded to a multiple of 64 | block scales `m`, u8, one for each row |
//! | for each block, 1024 / 768 / 512 / 384 | codes `u` of 8, 6, 4 or 3 bits, unsigned |
//!
//! A *chunk* holds the codes of 16 rows and 4 neighbouring columns, row by row, so that the four
//! columns of a row are one 32-bit lane and no product is ever summed across lanes. In 8 bits a
//! chunk is 64 bytes. In 4 bits, two chunks share 64 bytes: the first has the low nibbles. In 6
//! bits, four chunks share 192 bytes: byte `i` of the first, second and third are the low six bits
//! of the bytes `i`, `64 + i`, `128 + i`, and the upper two bits of these are, in this order from
//! the lowest bits up, byte `i` of the fourth. In 3 bits, eight chunks share 192 bytes: chunks 0
//! and 1 are the low three bits and the next three of the bytes `i`, chunks 2 and 3 those of
//! `64 + i`, chunks 4 and 5 those of `128 + i`; chunk 6 is the upper two bits of byte `i` below bit
//! 6 of byte `128 + i`, chunk 7 those of byte `64 + i` below bit 7 of byte `128 + i`.
//!
//! # What is computed
//!
//! The input is an integer for each column, `z = low`, or `z = 256 high + low` with two planes,
//! each an i8. With `c_b` the block's correction (an i32), row by row:
//!
//! ```text
//! I_b   = c_b + sum over the columns j of block b of  u_j z_j          (exact, i32)
//! T     = sum over b, in order, of  m_b * I_b                          (f32: convert, *, +)
//! Q     = sum over b, in order, of  m_b * (m_b * square_b)             (f32, dithered only)
//! t     = T * step
//! e     = residual * spread   or, dithered,   residual * sqrt(Q)
//! m     = e + other * slack
//! upper = (weight * t + offset) + m
//! lower = (weight * t + offset) - m
//! keep  = not (upper < threshold)
//! ```
//!
//! Every f32 operation is rounded by itself, never fused, in this order: all levels give the same
//! bits. A NaN keeps the row.

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod avx2;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod avx512;
pub mod batch;
#[cfg(any(
    all(
        target_arch = "aarch64",
        target_feature = "neon",
        target_endian = "little"
    ),
    all(target_arch = "wasm32", target_feature = "simd128")
))]
mod four;
mod input;
#[cfg(all(
    target_arch = "aarch64",
    target_feature = "neon",
    target_endian = "little"
))]
mod neon;
mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;

use super::Level;

/// Rows of a panel.
pub const PANEL_ROWS: usize = 16;
/// Columns of a block.
pub const BLOCK_COLUMNS: usize = 64;
/// Bytes of the five vectors that start a panel.
pub const HEADER_BYTES: usize = 5 * 64;

/// How wide codes are, and how they are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CodeFormat {
    /// 3 bits.
    U3,
    /// 4 bits.
    U4,
    /// 6 bits.
    U6,
    /// 8 bits. Code 0 is not used.
    U8,
}

impl CodeFormat {
    /// All formats.
    pub const ALL: [CodeFormat; 4] = [
        CodeFormat::U3,
        CodeFormat::U4,
        CodeFormat::U6,
        CodeFormat::U8,
    ];

    /// Bits of one code.
    pub const fn bits(self) -> u32 {
        match self {
            CodeFormat::U3 => 3,
            CodeFormat::U4 => 4,
            CodeFormat::U6 => 6,
            CodeFormat::U8 => 8,
        }
    }

    /// Bytes of a block's codes, 16 rows by 64 columns.
    pub const fn block_bytes(self) -> usize {
        self.bits() as usize * (PANEL_ROWS * BLOCK_COLUMNS / 8)
    }

    /// Bytes of the scales of so many blocks.
    pub const fn scale_bytes(blocks: usize) -> usize {
        (blocks * PANEL_ROWS).next_multiple_of(64)
    }

    /// Bytes of a panel with so many blocks.
    pub const fn panel_bytes(self, blocks: usize) -> usize {
        HEADER_BYTES + Self::scale_bytes(blocks) + blocks * self.block_bytes()
    }
}

const U3: u8 = CodeFormat::U3 as u8;
const U4: u8 = CodeFormat::U4 as u8;
const U6: u8 = CodeFormat::U6 as u8;
const U8: u8 = CodeFormat::U8 as u8;

/// A quantised input, and the numbers that turn its integer products into bounds.
#[derive(Clone, Copy, Debug)]
pub struct ScreenInput<'z> {
    /// The upper plane, four columns to an i32 in memory order; empty with one plane.
    pub high: &'z [i32],
    /// The lower plane.
    pub low: &'z [i32],
    /// `sum of z` over each block. 8-bit codes use it on levels that multiply signed bytes.
    pub sums: &'z [i32],
    /// `c_b`.
    pub corrections: &'z [i32],
    /// `square_b`; empty unless dithered.
    pub squares: &'z [f32],
    /// What one unit of `T` is worth.
    pub step: f32,
    /// Multiplies `residual`.
    pub spread: f32,
    /// Multiplies `other`.
    pub slack: f32,
}

/// Where bounds go. Slices hold one entry for each row of the panels; `upper` and `lower` may be
/// empty, `keep` has one bit for each row.
#[derive(Debug)]
pub struct ScreenOutput<'o> {
    /// Bit `r` of entry `p`: keep row `16 p + r`.
    pub keep: &'o mut [u16],
    /// Upper bounds.
    pub upper: &'o mut [f32],
    /// Lower bounds.
    pub lower: &'o mut [f32],
}

/// `(panels, blocks, input, output)`
type Screen = unsafe fn(&[u8], usize, &ScreenInput<'_>, &mut ScreenOutput<'_>);
/// `(codes, high, low, out)`
type DotBytes = unsafe fn(&[u8], &[i32], &[i32], &mut [i64; PANEL_ROWS]);
/// `(scales, codes, high, low)`
type Refine = unsafe fn(&[u8], &[u8], &[i8], &[i8]) -> i64;
/// `(x, centre, powers, y)`
type Centre = unsafe fn(&[f32], &[f64], &[f64], &mut [f64]) -> [f64; 3];
/// `(values, step, high, low, block_sums)`
type Quantise = unsafe fn(&[f64], f64, &mut [i8], &mut [i8], &mut [i32]) -> [f64; 2];
/// `(high, low, shift, out)`
type ShiftSums = unsafe fn(&[i8], &[i8], &[f64], &mut [f64]);
/// `(a, b, c, stride)`
type SubtractProducts = unsafe fn(Matrix<'_>, Matrix<'_>, &mut [f64], usize);

/// One level's screen kernels.
///
/// # Safety of the pointers
///
/// As for [`super::Kernels`]: the one requirement is that the level was detected.
pub struct ScreenKernels {
    level: Level,
    screen: [Screen; 4],
    dot_bytes: DotBytes,
    refine_row: Refine,
    above: unsafe fn(&[f32], f32) -> u32,
    centre: Centre,
    measure: unsafe fn(&[f64]) -> [f64; 2],
    quantise: Quantise,
    shift_sums: ShiftSums,
    subtract_products: SubtractProducts,
}

impl core::fmt::Debug for ScreenKernels {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("ScreenKernels")
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

impl ScreenKernels {
    /// The kernels for a level. A level without its own (AVX-512 without VNNI, for one) has those
    /// of the next level below; the bits are the same.
    pub fn for_level(level: Level) -> &'static ScreenKernels {
        match level {
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Level::Avx512 if super::detect::has_avx512() && super::detect::has_avx512_vnni() => {
                &avx512::KERNELS
            }
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Level::Avx2 | Level::Avx512 if super::detect::has_avx2() => &avx2::KERNELS,
            #[cfg(all(
                target_arch = "aarch64",
                target_feature = "neon",
                target_endian = "little"
            ))]
            Level::Neon if super::detect::has_dot_product() => &neon::DOT_PRODUCT,
            #[cfg(all(
                target_arch = "aarch64",
                target_feature = "neon",
                target_endian = "little"
            ))]
            Level::Neon => &neon::BASELINE,
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Level::Simd128 => &simd128::KERNELS,
            _ => &scalar::KERNELS,
        }
    }

    /// The level whose instructions are used.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Bounds for the rows of all `panels` (see the module's documentation).
    pub fn screen(
        &self,
        format: CodeFormat,
        panels: &[u8],
        blocks: usize,
        input: &ScreenInput<'_>,
        output: &mut ScreenOutput<'_>,
    ) {
        let words = blocks * (BLOCK_COLUMNS / 4);
        let count = panels.len() / format.panel_bytes(blocks);
        let planes =
            input.low.len() == words && (input.high.is_empty() || input.high.len() == words);
        let vectors = input.sums.len() == blocks
            && input.corrections.len() == blocks
            && (input.squares.is_empty() || input.squares.len() == blocks);
        let room = |len: usize| len == 0 || len == count * PANEL_ROWS;
        let outputs =
            output.keep.len() == count && room(output.upper.len()) && room(output.lower.len());
        if !(planes && vectors && outputs) {
            debug_assert!(false, "screen: lengths disagree");
            output.keep.fill(u16::MAX);
            output.upper.fill(f32::INFINITY);
            output.lower.fill(f32::NEG_INFINITY);
            return;
        }
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.screen[format as usize])(panels, blocks, input, output) }
    }

    /// `out[r]` = the sum of `code * z` over the columns of the given 8-bit blocks of one panel
    /// (no header, no scales, codes 1 to 255). Exact.
    pub fn dot_bytes(&self, codes: &[u8], high: &[i32], low: &[i32], out: &mut [i64; PANEL_ROWS]) {
        let words = codes.len() / 64;
        if low.len() != words || high.len() != words || !codes.len().is_multiple_of(64) {
            debug_assert!(false, "dot_bytes: lengths disagree");
            out.fill(0);
            return;
        }
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.dot_bytes)(codes, high, low, out) }
    }

    /// `sum over blocks b of m_b * sum over its columns j of v_j z_j`, exactly, for one row of
    /// 2-bit codes `v`, 16 bytes to a block: byte `i` holds the columns `i`, `16 + i`, `32 + i` and
    /// `48 + i` of its block, the first in the lowest bits. `scales` holds a byte for each block.
    pub fn refine_row(&self, scales: &[u8], codes: &[u8], high: &[i8], low: &[i8]) -> i64 {
        let columns = scales.len() * BLOCK_COLUMNS;
        if [4 * codes.len(), high.len(), low.len()] != [columns; 3] {
            debug_assert!(false, "refine_row: lengths disagree");
            return 0;
        }
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.refine_row)(scales, codes, high, low) }
    }

    /// A bit for each of up to 32 values that is not at most `floor`; so a NaN has one.
    #[inline]
    pub fn above(&self, values: &[f32], floor: f32) -> u32 {
        let values = values.get(..32).unwrap_or(values);
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.above)(values, floor) }
    }

    /// `y = (x - centre) * power`; returns the sum of `(x * power)^2`, the sum of `y^2` and the
    /// largest magnitude in `y`. All slices have one length, a multiple of eight.
    pub fn centre(&self, x: &[f32], centre: &[f64], powers: &[f64], y: &mut [f64]) -> [f64; 3] {
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.centre)(x, centre, powers, y) }
    }

    /// The sum of squares and the largest magnitude. The length is a multiple of eight.
    pub fn measure(&self, values: &[f64]) -> [f64; 2] {
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.measure)(values) }
    }

    /// `values = step * (256 high + low) + remainder`: writes the integers and their sums over
    /// blocks, returns the sums of squares of the remainder and of `step * (256 high + low)`.
    /// The magnitudes of `values` are at most `32,639 step`.
    pub fn quantise(
        &self,
        values: &[f64],
        step: f64,
        high: &mut [i8],
        low: &mut [i8],
        block_sums: &mut [i32],
    ) -> [f64; 2] {
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.quantise)(values, step, high, low, block_sums) }
    }

    /// For each block, the sum of `shift * (256 high + low)`.
    pub fn shift_sums(&self, high: &[i8], low: &[i8], shift: &[f64], out: &mut [f64]) {
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.shift_sums)(high, low, shift, out) }
    }

    /// Asks for the cache lines of `bytes`, which are read soon.
    #[inline]
    pub fn prefetch(&self, bytes: &[u8]) {
        #[cfg(target_arch = "x86_64")]
        for line in bytes.chunks(64) {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: SSE is part of x86-64; a prefetch faults at no address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
        }
        #[cfg(all(
            target_arch = "aarch64",
            target_feature = "neon",
            target_endian = "little"
        ))]
        for line in bytes.chunks(64) {
            use super::two::Two;
            super::neon::Neon::prefetch(line.as_ptr());
        }
        #[cfg(not(any(
            target_arch = "x86_64",
            all(
                target_arch = "aarch64",
                target_feature = "neon",
                target_endian = "little"
            )
        )))]
        let _ = bytes;
    }

    /// `c[i][j] -= sum over the rows r, in order, of a[r][i] * b[r][j]` for a tile of
    /// [`TILE_ROWS`] by [`TILE_COLUMNS`]. Offline work: building transforms.
    pub fn subtract_products(&self, a: Matrix<'_>, b: Matrix<'_>, c: &mut [f64], stride: usize) {
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.subtract_products)(a, b, c, stride) }
    }
}

/// Rows of f64, `stride` apart.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'m> {
    /// The values, from the first one that is used.
    pub values: &'m [f64],
    /// Values from one row to the next.
    pub stride: usize,
    /// Number of rows.
    pub rows: usize,
}

/// Rows of the tiles that [`ScreenKernels::subtract_products`] works on.
pub const TILE_ROWS: usize = 8;
/// Columns of those tiles.
pub const TILE_COLUMNS: usize = 16;

/// The rows of two matrices that [`ScreenKernels::subtract_products`] multiplies.
#[inline]
fn row_pairs<'m>(
    a: Matrix<'m>,
    b: Matrix<'m>,
) -> impl Iterator<Item = (&'m [f64; TILE_ROWS], &'m [f64; TILE_COLUMNS])> {
    (0..a.rows.min(b.rows)).map_while(move |row| {
        let a = a.values.get(row * a.stride..)?.first_chunk()?;
        let b = b.values.get(row * b.stride..)?.first_chunk()?;
        Some((a, b))
    })
}

/// `c -= sums`, row by row.
#[inline]
fn subtract_tile(c: &mut [f64], stride: usize, sums: &[[f64; TILE_COLUMNS]; TILE_ROWS]) {
    for (row, sums) in sums.iter().enumerate() {
        if let Some(c) = c.get_mut(row * stride..) {
            for (c, sum) in c.iter_mut().zip(sums) {
                *c -= sum;
            }
        }
    }
}

/// The five vectors at the start of a panel, the scales and the codes.
#[inline]
fn split_panel(panel: &[u8], blocks: usize) -> (&[[u8; 64]], &[[u8; 16]], &[u8]) {
    let (header, rest) = panel.split_at_checked(HEADER_BYTES).unwrap_or((&[], &[]));
    let (scales, codes) = rest
        .split_at_checked(CodeFormat::scale_bytes(blocks))
        .unwrap_or((&[], &[]));
    (header.as_chunks().0, scales.as_chunks().0, codes)
}
