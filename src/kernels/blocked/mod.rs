//! Products of many rows with many features in 16-bit integers, cache-blocked: the inner loops of
//! encoding in batches.
//!
//! # Why integers
//!
//! A batch needs `rows * features * d_in` products, so what counts is products per instruction. A
//! 512-bit register holds 16 f32 and 32 i16, and one instruction multiplies and adds either
//! (`vfmadd`, `vpdpwssd`). Sixteen bits are enough: values always come from the exact dot product
//! of `super::Kernels`, and the integers only tell which features need it. Integer sums have no
//! rounding and no order, so every level gives the same products, and the bound on what they
//! leave out is short to prove (`crate::blocked`, in the documentation of its source).
//!
//! # Layout
//!
//! A *tile* is [`TILE_ROWS`] rows; a *panel* is [`PANEL_FEATURES`] features, in
//! [`PANEL_FEATURES`] / 16 *columns* of 16. Two neighbouring inputs form a *pair*, the 32 bits
//! that one lane multiplies:
//!
//! | what | layout |
//! |---|---|
//! | tile | `[pairs][TILE_ROWS][2]` i16 |
//! | panel | `[PANEL_FEATURES / 16][pairs][16][2]` i16 |
//! | products | `[TILE_ROWS][PANEL_FEATURES]` i32 |
//!
//! A tile against a panel keeps all its sums in registers (with AVX-512, 24 of 32) and reads
//! everything in order: the panel from the second-level cache, the tile from the first.

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod avx2;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod avx512;
mod loops;
mod scalar;

use super::{Level, WeightType};

/// Rows of a tile.
pub const TILE_ROWS: usize = 6;
/// Features of a panel.
pub const PANEL_FEATURES: usize = 64;
/// Features side by side in a panel.
pub const COLUMN_FEATURES: usize = 16;

/// The largest magnitude of an integer: the sum of two products of such fits an i32.
pub const LARGEST: f32 = 32_767.0;

/// Two vectors of integers whose Euclidean norms are at most this have a product that fits an
/// i32: `46,340^2 < 2^31`.
pub const LARGEST_NORM: f64 = 46_340.0;

/// Numbers of a panel's features, by which products become bounds.
#[derive(Clone, Debug)]
pub struct PanelBounds {
    /// What one unit of the product is worth, for a row of step one.
    pub weight: [f64; PANEL_FEATURES],
    /// Added to it.
    pub offset: [f64; PANEL_FEATURES],
    /// Multiplies [`TileRow::coded`].
    pub coded: [f64; PANEL_FEATURES],
    /// Multiplies [`TileRow::spread`].
    pub residual: [f64; PANEL_FEATURES],
    /// Added to the margin.
    pub slack: [f64; PANEL_FEATURES],
    /// A feature whose bound is below this is dropped.
    pub threshold: [f64; PANEL_FEATURES],
}

impl PanelBounds {
    /// Bounds that drop every feature.
    pub const EMPTY: PanelBounds = PanelBounds {
        weight: [0.0; PANEL_FEATURES],
        offset: [f64::NEG_INFINITY; PANEL_FEATURES],
        coded: [0.0; PANEL_FEATURES],
        residual: [0.0; PANEL_FEATURES],
        slack: [0.0; PANEL_FEATURES],
        threshold: [f64::INFINITY; PANEL_FEATURES],
    };
}

/// Numbers of a row in a tile.
#[derive(Clone, Copy, Debug, Default)]
pub struct TileRow {
    /// The step of its integers.
    pub step: f64,
    /// Multiplies [`PanelBounds::coded`].
    pub coded: f64,
    /// Multiplies [`PanelBounds::residual`].
    pub spread: f64,
    /// A feature whose bound is below this is dropped, whatever its threshold.
    pub floor: f64,
}

/// Products of a tile and a panel.
pub type Products = [[i32; PANEL_FEATURES]; TILE_ROWS];

/// `(bytes, out)`
type Widen = unsafe fn(&[u8], &mut [f32]);
/// `(values, factor, out)`
type Quantise = unsafe fn(&[f32], f32, &mut [i16]) -> f64;
/// `(rows, stride, out)`
type Interleave = unsafe fn(&[i16], usize, &mut [i16]);
/// `(columns, stride_bytes, [inputs, features], rows)`
type Transpose = unsafe fn(&[u8], usize, [usize; 2], &mut [u8]);
/// `(panel, tile, products)`
type Multiply = unsafe fn(&[i16], &[i16], &mut Products);
/// `(products, rows, panel)`
type Keep = unsafe fn(&Products, &[TileRow; TILE_ROWS], &PanelBounds, bool) -> [u64; TILE_ROWS];

/// One level's kernels for batches.
///
/// # Safety of the pointers
///
/// As for [`super::Kernels`]: the one requirement is that the level was detected.
pub struct BlockedKernels {
    level: Level,
    widen: [Widen; 3],
    measure: unsafe fn(&[f32]) -> [f64; 2],
    quantise: Quantise,
    /// Of a tile, of a column.
    interleave: [Interleave; 2],
    /// Of weights of two bytes, of four.
    transpose: [Transpose; 2],
    multiply: Multiply,
    keep: Keep,
}

impl core::fmt::Debug for BlockedKernels {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("BlockedKernels")
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

impl BlockedKernels {
    /// The kernels for a level. A level without its own has those of a level below; the bits are
    /// the same.
    pub fn for_level(level: Level) -> &'static BlockedKernels {
        match level {
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Level::Avx512 if super::detect::has_avx512_vnni() => &avx512::VNNI,
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Level::Avx512 if super::detect::has_avx512() => &avx512::KERNELS,
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Level::Avx2 if super::detect::has_avx2() => &avx2::KERNELS,
            _ => &scalar::KERNELS,
        }
    }

    /// Every set of kernels that this machine can run: a level can have more than one.
    pub fn all() -> impl Iterator<Item = &'static BlockedKernels> {
        let sets: [(bool, &'static BlockedKernels); _] = [
            (true, &scalar::KERNELS),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            (super::detect::has_avx2(), &avx2::KERNELS),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            (super::detect::has_avx512(), &avx512::KERNELS),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            (super::detect::has_avx512_vnni(), &avx512::VNNI),
        ];
        sets.into_iter()
            .filter_map(|(available, kernels)| available.then_some(kernels))
    }

    /// The level whose instructions are used.
    pub fn level(&self) -> Level {
        self.level
    }

    /// `out[i]` = weight `i` of `bytes`, exactly, in f32.
    pub fn widen(&self, ty: WeightType, bytes: &[u8], out: &mut [f32]) {
        if bytes.len() != out.len() * ty.size() {
            debug_assert!(false, "widen: lengths disagree");
            out.fill(0.0);
            return;
        }
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.widen[ty as usize])(bytes, out) }
    }

    /// The sum of squares (f64, 16 lanes and a fixed tree), and the largest magnitude of those
    /// that are not NaN.
    pub fn measure(&self, values: &[f32]) -> [f64; 2] {
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.measure)(values) }
    }

    /// `out[i] = rint(values[i] * factor)`; the rest of `out` becomes zeros. Returns the sum of
    /// the squares of `values[i] * factor - out[i]` (f32, 16 lanes and a fixed tree). No
    /// `values[i] * factor` is above [`LARGEST`] in magnitude.
    pub fn quantise(&self, values: &[f32], factor: f32, out: &mut [i16]) -> f64 {
        let Some((out, rest)) = out.split_at_mut_checked(values.len()) else {
            debug_assert!(false, "quantise: lengths disagree");
            out.fill(0);
            return f64::INFINITY;
        };
        rest.fill(0);
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.quantise)(values, factor, out) }
    }

    /// [`TILE_ROWS`] rows of integers, one after the other, as a tile.
    pub fn interleave_tile(&self, rows: &[i16], tile: &mut [i16]) {
        self.interleave::<TILE_ROWS>(0, rows, tile);
    }

    /// [`COLUMN_FEATURES`] rows of integers, one after the other, as a column of a panel.
    pub fn interleave_column(&self, rows: &[i16], column: &mut [i16]) {
        self.interleave::<COLUMN_FEATURES>(1, rows, column);
    }

    fn interleave<const WIDTH: usize>(&self, which: usize, rows: &[i16], out: &mut [i16]) {
        if rows.len() != out.len() || !rows.len().is_multiple_of(2 * WIDTH) {
            debug_assert!(false, "interleave: lengths disagree");
            out.fill(0);
            return;
        }
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.interleave[which])(rows, rows.len() / WIDTH, out) }
    }

    /// Copies `features` columns of weights into rows: the weight of input `j` and feature `f` is
    /// at byte `j * stride_bytes + f * ty.size()` of `columns`. Rows have an equal share of `rows`
    /// each, `inputs` weights and what is left, which stays as it is.
    pub fn transpose(
        &self,
        ty: WeightType,
        columns: &[u8],
        stride_bytes: usize,
        [inputs, features]: [usize; 2],
        rows: &mut [u8],
    ) {
        let held = super::extent(inputs, stride_bytes, features, ty);
        let share = rows.len() / features.max(1);
        let fits = share * features == rows.len() && inputs <= share / ty.size();
        if held.is_none_or(|bytes| bytes > columns.len()) || !fits {
            debug_assert!(false, "transpose: the weights do not hold all columns");
            rows.fill(0);
            return;
        }
        let which = usize::from(ty.size() == 4);
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.transpose[which])(columns, stride_bytes, [inputs, features], rows) }
    }

    /// Asks for the cache lines of `bytes`, which are read soon.
    #[inline]
    pub fn prefetch(&self, bytes: &[u8]) {
        loops::prefetch(bytes);
    }

    /// `products[r][f]` = the sum over all inputs of the integers of row `r` times those of
    /// feature `f`. Sums wrap; those whose result fits an i32 are exact.
    pub fn multiply(&self, panel: &[i16], tile: &[i16], products: &mut Products) {
        let pairs = tile.len() / (2 * TILE_ROWS);
        if tile.len() != pairs * 2 * TILE_ROWS || panel.len() != pairs * 2 * PANEL_FEATURES {
            debug_assert!(false, "multiply: lengths disagree");
            *products = [[0; PANEL_FEATURES]; TILE_ROWS];
            return;
        }
        if pairs == 0 {
            // The kernels cut panels into pieces, which must not be empty.
            *products = [[0; PANEL_FEATURES]; TILE_ROWS];
            return;
        }
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.multiply)(panel, tile, products) }
    }

    /// For each row of a tile, a bit for each feature that is kept: with `I` its product,
    ///
    /// ```text
    /// estimate = weight * step * I + offset
    /// margin   = coded * coded' + residual * spread + slack          (' of the row)
    /// keep     = not (estimate + margin < max(threshold, floor))
    /// ```
    ///
    /// or, with `magnitude`, the same for `|estimate|`. In f64; a NaN keeps.
    pub fn keep(
        &self,
        products: &Products,
        rows: &[TileRow; TILE_ROWS],
        panel: &PanelBounds,
        magnitude: bool,
    ) -> [u64; TILE_ROWS] {
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.keep)(products, rows, panel, magnitude) }
    }
}
