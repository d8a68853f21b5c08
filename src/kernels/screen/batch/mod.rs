//! Products of many inputs with quantised rows: what [`super::ScreenKernels::screen`] computes for
//! one input, for six at a time.
//!
//! # Why
//!
//! One input is bound by the bytes of the codes: they are read, unpacked and used once. A batch
//! unpacks the codes of 64 rows once, into the second-level cache, and meets them with all inputs;
//! what counts is products per instruction. Inputs have one plane (8 bits): half the products of
//! two, for a bound that is wider by what the second one holds.
//!
//! # Layout
//!
//! A *group* is [`GROUP_PANELS`] panels of 16 rows, a *tile* [`TILE_INPUTS`] inputs, a *word* four
//! neighbouring columns.
//!
//! | what | layout |
//! |---|---|
//! | codes of a group | `[words][GROUP_PANELS][16 rows][4]` u8 |
//! | scales of a group | `[blocks][GROUP_ROWS]` f32 |
//! | a tile | `[words][TILE_INPUTS]` i32, four signed bytes each, in memory order |
//! | corrections of a tile | `[blocks][TILE_INPUTS]` i32 |
//! | factors of a tile | `[blocks][TILE_INPUTS]` f32, integers from 1 to 255 |
//! | totals | `[TILE_INPUTS][GROUP_ROWS]` f32 |
//!
//! # What is computed
//!
//! Inputs have block scales as rows do: what a unit of `I_b` is worth is a multiple `n_b` of the
//! input's step.
//!
//! ```text
//! T = sum over b, in order, of  (m_b * n_b) * I_b        (f32: exact product, convert, *, +)
//! ```
//!
//! `I_b`, `t`, `m`, `upper` and `lower` are as the documentation of [`super`] says. No operation is
//! fused: every level gives the same bits. With second codes `v` (see
//! [`super::ScreenKernels::refine_row`]) the code of a column is `4 u + v`.

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod avx512;
mod loops;
mod scalar;

use super::{BLOCK_COLUMNS, CodeFormat, PANEL_ROWS};
use crate::kernels::Level;

/// Panels of a group.
pub const GROUP_PANELS: usize = 4;
/// Rows of a group.
pub const GROUP_ROWS: usize = GROUP_PANELS * PANEL_ROWS;
/// Inputs of a tile.
pub const TILE_INPUTS: usize = 6;
/// Words of a block.
const WORDS: usize = BLOCK_COLUMNS / 4;

/// The codes of four columns of a group's rows.
pub type Word = [[u8; 4 * PANEL_ROWS]; GROUP_PANELS];
/// The totals of a tile and a group.
pub type Totals = [[f32; GROUP_ROWS]; TILE_INPUTS];

/// Numbers of a group's rows, by which totals become bounds.
#[derive(Clone, Debug)]
pub struct GroupBounds {
    /// What one unit of `t` is worth.
    pub weight: [f32; GROUP_ROWS],
    /// Added to it.
    pub offset: [f32; GROUP_ROWS],
    /// Multiplies [`TileInput::spread`].
    pub residual: [f32; GROUP_ROWS],
    /// Multiplies [`TileInput::slack`].
    pub other: [f32; GROUP_ROWS],
    /// A row whose upper bound is below this is dropped.
    pub threshold: [f32; GROUP_ROWS],
}

impl GroupBounds {
    /// Bounds that drop every row.
    pub const EMPTY: GroupBounds = GroupBounds {
        weight: [0.0; GROUP_ROWS],
        offset: [f32::NEG_INFINITY; GROUP_ROWS],
        residual: [0.0; GROUP_ROWS],
        other: [0.0; GROUP_ROWS],
        threshold: [f32::INFINITY; GROUP_ROWS],
    };
}

/// Numbers of an input in a tile.
#[derive(Clone, Copy, Debug, Default)]
pub struct TileInput {
    /// What one unit of `T` is worth.
    pub step: f32,
    /// Multiplies [`GroupBounds::residual`].
    pub spread: f32,
    /// Multiplies [`GroupBounds::other`].
    pub slack: f32,
    /// A row whose bound is below this is dropped, whatever its threshold.
    pub floor: f32,
}

impl TileInput {
    /// From four numbers that each were an f32.
    pub fn from_numbers(numbers: [f64; 4]) -> Self {
        let [step, spread, slack, floor] = numbers.map(|number| number as f32);
        TileInput {
            step,
            spread,
            slack,
            floor,
        }
    }
}

/// Six inputs.
#[derive(Clone, Copy, Debug)]
pub struct Tile<'t> {
    /// Four columns at a time.
    pub words: &'t [i32],
    /// What each block's sum starts from.
    pub corrections: &'t [i32],
    /// What it is worth.
    pub factors: &'t [f32],
}

impl<'t> Tile<'t> {
    /// Block by block: words, corrections and factors.
    #[inline(always)]
    fn blocks(&self) -> impl Iterator<Item = TileBlock<'t>> + use<'t> {
        let words = self
            .words
            .as_chunks::<TILE_INPUTS>()
            .0
            .as_chunks::<WORDS>()
            .0;
        let corrections = self.corrections.as_chunks::<TILE_INPUTS>().0;
        let factors = self.factors.as_chunks::<TILE_INPUTS>().0;
        let blocks = words.iter().zip(corrections).zip(factors);
        blocks.map(|((words, corrections), factors)| (words, corrections, factors))
    }
}

type TileBlock<'t> = (
    &'t [[i32; TILE_INPUTS]; WORDS],
    &'t [i32; TILE_INPUTS],
    &'t [f32; TILE_INPUTS],
);

/// Second codes of a group's rows: rows of bytes, `stride` apart, the codes of one from `start` on.
#[derive(Clone, Copy, Debug)]
pub struct SecondCodes<'c> {
    /// The rows, from the group's first.
    pub rows: &'c [u8],
    /// Bytes from one to the next.
    pub stride: usize,
    /// Where codes start in a row.
    pub start: usize,
}

impl SecondCodes<'_> {
    /// Four bytes for each row of a panel: `word[r]` holds those of the columns `4 i .. 4 i + 4`
    /// of each quarter of block `b`, the first quarter in the lowest bits of each byte.
    #[inline(always)]
    fn words(&self, panel: usize, b: usize) -> [[u32; PANEL_ROWS]; 4] {
        let mut words = [[0; PANEL_ROWS]; 4];
        for r in 0..PANEL_ROWS {
            let at = (panel * PANEL_ROWS + r) * self.stride + self.start + b * (BLOCK_COLUMNS / 4);
            let codes = self.rows.get(at..).and_then(|codes| codes.first_chunk());
            let codes: &[u8; BLOCK_COLUMNS / 4] = codes.unwrap_or(&[0; BLOCK_COLUMNS / 4]);
            for (word, bytes) in words.iter_mut().zip(codes.as_chunks::<4>().0) {
                word[r] = u32::from_le_bytes(*bytes);
            }
        }
        words
    }
}

/// `(panels, blocks, second, codes, scales)`
type Unpack = unsafe fn(&[u8], usize, Option<SecondCodes<'_>>, &mut [Word], &mut [f32]);
/// `(codes, scales, tile, totals)`
type Multiply = unsafe fn(&[Word], &[f32], &Tile<'_>, &mut Totals);
/// `(totals, inputs, group, lower_slack)`
type Keep =
    unsafe fn(&Totals, &[TileInput; TILE_INPUTS], &GroupBounds, Option<f32>) -> [u64; TILE_INPUTS];

/// One level's kernels for screening batches.
///
/// # Safety of the pointers
///
/// As for [`crate::kernels::Kernels`]: the one requirement is that the level was detected.
pub struct BatchKernels {
    level: Level,
    unpack: [Unpack; 4],
    multiply: Multiply,
    keep: Keep,
}

impl core::fmt::Debug for BatchKernels {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("BatchKernels")
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

impl BatchKernels {
    /// The kernels for a level, if it has such as are worth it: products of bytes, summed in 32
    /// bits.
    pub fn for_level(level: Level) -> Option<&'static BatchKernels> {
        match level {
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Level::Avx512
                if crate::kernels::detect::has_avx512()
                    && crate::kernels::detect::has_avx512_vnni() =>
            {
                Some(&avx512::KERNELS)
            }
            _ => None,
        }
    }

    /// What each level's kernels compute, in plain Rust.
    pub fn scalar() -> &'static BatchKernels {
        &scalar::KERNELS
    }

    /// The level whose instructions are used.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The codes, a byte each, and block scales of the panels of a group; of the rows behind the
    /// last panel they are zeros.
    pub fn unpack(
        &self,
        format: CodeFormat,
        panels: &[u8],
        blocks: usize,
        second: Option<SecondCodes<'_>>,
        codes: &mut [Word],
        scales: &mut [f32],
    ) {
        let fits = codes.len() == blocks * WORDS && scales.len() == blocks * GROUP_ROWS;
        if !fits || panels.len() > GROUP_PANELS * format.panel_bytes(blocks) {
            debug_assert!(false, "unpack: lengths disagree");
        } else {
            if panels.len() < GROUP_PANELS * format.panel_bytes(blocks) {
                codes.fill([[0; 4 * PANEL_ROWS]; GROUP_PANELS]);
                scales.fill(0.0);
            }
            // SAFETY: a table is handed out only after its level was detected.
            unsafe { (self.unpack[format as usize])(panels, blocks, second, codes, scales) }
        }
    }

    /// The totals `T` of a tile and a group.
    pub fn multiply(&self, codes: &[Word], scales: &[f32], tile: &Tile<'_>, totals: &mut Totals) {
        let blocks = codes.len() / WORDS;
        let fits = codes.len() == blocks * WORDS
            && scales.len() == blocks * GROUP_ROWS
            && tile.words.len() == codes.len() * TILE_INPUTS
            && tile.corrections.len() == blocks * TILE_INPUTS
            && tile.factors.len() == blocks * TILE_INPUTS;
        if !fits {
            debug_assert!(false, "multiply: lengths disagree");
            // What is not known is kept.
            *totals = [[f32::NAN; GROUP_ROWS]; TILE_INPUTS];
            return;
        }
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.multiply)(codes, scales, tile, totals) }
    }

    /// The lower and the upper bound of row `i` of a group, before lower ones are lowered.
    pub fn bounds(
        totals: &[f32; GROUP_ROWS],
        input: &TileInput,
        group: &GroupBounds,
        i: usize,
    ) -> [f32; 2] {
        let i = i % GROUP_ROWS;
        let [centre, margin] = loops::bound(group, input, totals, i);
        [centre - margin, centre + margin]
    }

    /// For each input of a tile, a bit for each row of the group that is kept:
    ///
    /// ```text
    /// keep = not (upper < threshold) and not (upper < floor)
    /// ```
    ///
    /// or, where magnitudes rank, with `lower` less `lower_slack`, `not (upper < floor and -lower <
    /// floor)`. A NaN keeps.
    pub fn keep(
        &self,
        totals: &Totals,
        inputs: &[TileInput; TILE_INPUTS],
        group: &GroupBounds,
        lower_slack: Option<f32>,
    ) -> [u64; TILE_INPUTS] {
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.keep)(totals, inputs, group, lower_slack) }
    }
}
