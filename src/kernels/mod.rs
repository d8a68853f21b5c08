//! Numbers only: slices in, slices out. Knows no file, no model and no error type, and imports
//! nothing but `core`.
//!
//! # What a kernel computes
//!
//! Every sum of products that ends in a value of the library is one of these, and every level
//! ([`Level`]: one instruction set) returns the same bits. The definition of the dot product:
//!
//! ```text
//! lane[0..16] = +0                                  (f64)
//! for i in 0..n, increasing:   lane[i mod 16] += weight[i] * x[i]
//! for l in 0..8:   lane[l] += lane[l + 8]
//! for l in 0..4:   lane[l] += lane[l + 4]
//! for l in 0..2:   lane[l] += lane[l + 2]
//! result = lane[0] + lane[1];   if it is NaN: the canonical quiet NaN 0x7ff8000000000000
//! ```
//!
//! A weight is an F32, F16 or BF16 value and `x[i]` an f32 value, so their product in f64
//! has at most 48 bits and an exponent well inside f64: it is exact, never subnormal and never
//! infinite unless an operand is. A fused multiply-add and a multiplication followed by an addition
//! then round the same number once, which is why the width of a vector, and whether the machine
//! fuses, cannot be seen in the result. Where a product is *not* exact ([`Kernels::add_scaled_row`],
//! [`Kernels::sum_squares_about`]) it is rounded first and never fused.
//!
//! Two facts that the vector levels use: a lane starts at +0 and so is never -0 (a sum is -0 only
//! when both terms are), hence adding +0 to a lane changes nothing and the ragged end of a row may
//! be padded with zeros; and every NaN compares alike, so which NaN an operation returns does not
//! matter as long as the last step makes it canonical.
//!
//! All of this assumes round-to-nearest without flush-to-zero, which is what Rust code runs under;
//! callers that come from elsewhere set it first.
//!
//! # Lengths
//!
//! Lengths and strides are the caller's to check: it has errors to report them with. A call that
//! breaks its contract stops in debug builds; in release builds it writes zeros, or nothing where
//! the output is also an input, and never reads or writes outside the slices.
//!
//! # Weights
//!
//! Weights are little-endian bytes at any address: no kernel assumes an alignment.

#![allow(unsafe_code)] // calls through the table, vector loads and stores; see the files

#[cfg(all(target_arch = "x86", not(target_feature = "sse2")))]
compile_error!("without SSE2 an f64 sum is not rounded to f64, and results would differ");

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod avx2;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod avx512;
pub mod blocked;
mod detect;
pub mod edit;
#[cfg(all(
    target_arch = "aarch64",
    target_feature = "neon",
    target_endian = "little"
))]
mod neon;
mod scalar;
pub mod screen;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;
#[cfg(any(
    all(
        target_arch = "aarch64",
        target_feature = "neon",
        target_endian = "little"
    ),
    all(target_arch = "wasm32", target_feature = "simd128")
))]
mod two;
#[cfg(any(
    any(target_arch = "x86", target_arch = "x86_64"),
    all(
        target_arch = "aarch64",
        target_feature = "neon",
        target_endian = "little"
    ),
    all(target_arch = "wasm32", target_feature = "simd128")
))]
mod walk;

/// An instruction set for which this crate has a table of kernels.
///
/// Ordered by preference within one architecture. Every level gives the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Plain Rust, on every machine.
    Scalar,
    /// x86 with AVX2, FMA and F16C.
    Avx2,
    /// x86 with AVX-512 F, BW, VL and DQ.
    Avx512,
    /// AArch64 with its baseline vector unit.
    Neon,
    /// WebAssembly with 128-bit vectors.
    Simd128,
}

impl Level {
    /// Every level that has a name, in order, whether or not this build or machine has it.
    pub const ALL: [Level; 5] = [
        Level::Scalar,
        Level::Avx2,
        Level::Avx512,
        Level::Neon,
        Level::Simd128,
    ];

    /// The levels that this build has and this machine and operating system can run, in order.
    pub fn available() -> impl Iterator<Item = Level> {
        Level::ALL
            .into_iter()
            .filter(|&level| Kernels::for_level(level).is_some())
    }

    /// The preferred available level.
    pub fn best() -> Level {
        Kernels::best().level()
    }

    /// The level's name, as in options and environment variables.
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Neon => "neon",
            Level::Simd128 => "simd128",
        }
    }

    /// The level of that name.
    pub fn from_name(name: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.name() == name)
    }
}

impl core::fmt::Display for Level {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.pad(self.name())
    }
}

/// The number type of stored weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightType {
    /// IEEE single precision, 4 bytes.
    F32,
    /// IEEE half precision, 2 bytes.
    F16,
    /// The upper half of an f32, 2 bytes.
    BF16,
}

impl WeightType {
    /// All weight types.
    pub const ALL: [WeightType; 3] = [WeightType::F32, WeightType::F16, WeightType::BF16];

    /// Bytes of one weight.
    pub const fn size(self) -> usize {
        match self {
            WeightType::F32 => 4,
            WeightType::F16 | WeightType::BF16 => 2,
        }
    }

    /// The type's name, as in file headers.
    pub const fn name(self) -> &'static str {
        match self {
            WeightType::F32 => "F32",
            WeightType::F16 => "F16",
            WeightType::BF16 => "BF16",
        }
    }
}

// `WeightType` as a constant parameter: one body per ISA file is compiled once per weight type.
const F32: u8 = WeightType::F32 as u8;
const F16: u8 = WeightType::F16 as u8;
const BF16: u8 = WeightType::BF16 as u8;

/// Lanes of every sum: part of the definition, not a tuning parameter.
const LANES: usize = 16;

/// The NaN that every NaN result becomes.
const CANONICAL_NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0000);

/// `value`, or the canonical NaN.
#[inline]
fn canonical(value: f64) -> f64 {
    if value.is_nan() { CANONICAL_NAN } else { value }
}

/// `(weights, row_stride_bytes, x, out)`
type DotRows = unsafe fn(&[u8], usize, &[f32], &mut [f64]);
/// `(weights, row_stride_bytes, x, lanes, out)`
type DotColumns = unsafe fn(&[u8], usize, &[f32], &mut [f64], &mut [f64]);
/// `(matrix, row_stride_bytes, indices, scales, sums)`
type AddScaledRows = unsafe fn(&[u8], usize, &[u32], &[f64], &mut [f64]);
/// `(bytes, out)`
type Widen = unsafe fn(&[u8], &mut [f64]);

/// One level's kernels: the only list of what a level must provide.
///
/// Functions in arrays are indexed by [`WeightType`].
///
/// # Safety of the pointers
///
/// Their one requirement is that the CPU and the operating system support the level. They check
/// every slice access themselves, so lengths are a matter of right answers only. Tables are
/// handed out by [`Kernels::for_level`] and [`Kernels::best`], after detection.
pub struct Kernels {
    level: Level,
    dot_rows: [DotRows; 3],
    dot_columns: [DotColumns; 3],
    add_scaled_rows: [AddScaledRows; 3],
    widen: [Widen; 3],
    sum: unsafe fn(&[f64]) -> f64,
    sum_squares_about: unsafe fn(&[f64], f64) -> f64,
    edit: &'static edit::Table,
}

impl core::fmt::Debug for Kernels {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("Kernels")
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

impl Kernels {
    /// The tile width (`out.len()`) at which [`Kernels::dot_columns`] is fastest.
    ///
    /// Wide enough that the rows are read in long runs: each run starts on memory pages that the
    /// one before did not touch, and finding those costs more than their bytes. Narrow enough
    /// that the work space (320 kB) stays in the second-level cache.
    pub const COLUMN_TILE: usize = 8192;

    /// Values of work space that [`Kernels::dot_columns`] needs per output.
    pub const COLUMN_LANES: usize = 5;

    /// The table of the preferred available level. Detected once per process.
    ///
    /// ```
    /// use sae::kernels::{Kernels, WeightType};
    /// let weights: Vec<u8> = [1.0f32, 2.0, 3.0].iter().flat_map(|w| w.to_le_bytes()).collect();
    /// let mut out = [0.0];
    /// Kernels::best().dot_rows(WeightType::F32, &weights, 12, &[4.0, 5.0, 6.0], &mut out);
    /// assert_eq!(out, [32.0]);
    /// ```
    pub fn best() -> &'static Kernels {
        Level::ALL
            .into_iter()
            .rev()
            .find_map(Kernels::for_level)
            .unwrap_or(&scalar::KERNELS)
    }

    /// The table of one level, or `None` when the build, the CPU or the operating system lacks it.
    pub fn for_level(level: Level) -> Option<&'static Kernels> {
        match level {
            Level::Scalar => Some(&scalar::KERNELS),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Level::Avx2 => detect::has_avx2().then_some(&avx2::KERNELS),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Level::Avx512 => detect::has_avx512().then_some(&avx512::KERNELS),
            #[cfg(all(
                target_arch = "aarch64",
                target_feature = "neon",
                target_endian = "little"
            ))]
            Level::Neon => Some(&neon::KERNELS),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Level::Simd128 => Some(&simd128::KERNELS),
            _ => None,
        }
    }

    /// The level these kernels belong to.
    pub fn level(&self) -> Level {
        self.level
    }

    /// `out[r]` = the dot product of `x` and row `r`, whose `x.len()` weights start at byte
    /// `r * row_stride_bytes`.
    ///
    pub fn dot_rows(
        &self,
        ty: WeightType,
        weights: &[u8],
        row_stride_bytes: usize,
        x: &[f32],
        out: &mut [f64],
    ) {
        let held = extent(out.len(), row_stride_bytes, x.len(), ty);
        if held.is_none_or(|bytes| bytes > weights.len()) {
            debug_assert!(false, "dot_rows: the weights do not hold all rows");
            out.fill(0.0);
            return;
        }
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.dot_rows[ty as usize])(weights, row_stride_bytes, x, out) }
    }

    /// The same sums as [`Kernels::dot_rows`], for weights stored one row per *input*:
    /// the weight of input `j` and output `f` is at byte `j * row_stride_bytes + f * ty.size()`.
    ///
    /// `lanes` is work space of at least [`Kernels::COLUMN_LANES`] values per output; what it holds
    /// before does not matter. To compute many outputs, call this for tiles of [`Kernels::COLUMN_TILE`] outputs,
    /// with `weights` starting at the tile's first column.
    pub fn dot_columns(
        &self,
        ty: WeightType,
        weights: &[u8],
        row_stride_bytes: usize,
        x: &[f32],
        lanes: &mut [f64],
        out: &mut [f64],
    ) {
        let held = extent(x.len(), row_stride_bytes, out.len(), ty);
        let needed = out.len().checked_mul(Self::COLUMN_LANES);
        let lanes = needed.and_then(|needed| lanes.get_mut(..needed));
        let (Some(lanes), Some(..)) = (lanes, held.filter(|&bytes| bytes <= weights.len())) else {
            debug_assert!(false, "dot_columns: the weights or the lanes are too short");
            out.fill(0.0);
            return;
        };
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.dot_columns[ty as usize])(weights, row_stride_bytes, x, lanes, out) }
    }

    /// `sums[c] += a * w[c]` with the product rounded to f64 before it is added.
    ///
    /// `a` may be any f64.
    pub fn add_scaled_row(&self, ty: WeightType, weights: &[u8], a: f64, sums: &mut [f64]) {
        self.add_scaled_rows(ty, weights, 0, &[0], &[a], sums);
    }

    /// [`Kernels::add_scaled_row`] for the rows `indices` of a matrix, in the order given:
    /// for each `c`, and then for each `i` in order, `sums[c] += scales[i] * w[indices[i]][c]`.
    ///
    /// Row `r` starts at byte `r * row_stride_bytes` of `matrix`. Rows are read with the next ones
    /// already being fetched, so one call is faster than a call per row.
    pub fn add_scaled_rows(
        &self,
        ty: WeightType,
        matrix: &[u8],
        row_stride_bytes: usize,
        indices: &[u32],
        scales: &[f64],
        sums: &mut [f64],
    ) {
        let last = indices.iter().max().map_or(0, |&last| last as usize);
        let rows = last.checked_add(usize::from(!indices.is_empty()));
        let held = rows.and_then(|rows| extent(rows, row_stride_bytes, sums.len(), ty));
        if held.is_none_or(|bytes| bytes > matrix.len()) || indices.len() != scales.len() {
            debug_assert!(
                false,
                "add_scaled_rows: a row is outside the matrix, or has no scale"
            );
            return;
        }
        // SAFETY: a table is handed out only after its level was detected.
        unsafe {
            (self.add_scaled_rows[ty as usize])(matrix, row_stride_bytes, indices, scales, sums);
        }
    }

    /// The sum of `x`, in the lanes and the tree of the dot product.
    pub fn sum(&self, x: &[f64]) -> f64 {
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.sum)(x) }
    }

    /// The sum of `(x[i] - mean)^2`: difference rounded, square rounded, then added, in the lanes
    /// and the tree of the dot product. A mean of 0 gives the squared norm.
    pub fn sum_squares_about(&self, x: &[f64], mean: f64) -> f64 {
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.sum_squares_about)(x, mean) }
    }

    /// `out[i]` = weight `i` of `bytes`, exactly; every NaN becomes the canonical one.
    pub fn widen(&self, ty: WeightType, bytes: &[u8], out: &mut [f64]) {
        let Some(bytes) = out
            .len()
            .checked_mul(ty.size())
            .and_then(|held| bytes.get(..held))
        else {
            debug_assert!(false, "widen: fewer weights than outputs");
            out.fill(0.0);
            return;
        };
        // SAFETY: a table is handed out only after its level was detected.
        unsafe { (self.widen[ty as usize])(bytes, out) }
    }
}

/// Bytes from the first weight of the first row to the last weight of the last row, or `None`
/// when that overflows.
fn extent(rows: usize, row_stride_bytes: usize, row_len: usize, ty: WeightType) -> Option<usize> {
    let row_bytes = row_len.checked_mul(ty.size())?;
    if rows == 0 || row_bytes == 0 {
        return Some(0);
    }
    (rows - 1)
        .checked_mul(row_stride_bytes)?
        .checked_add(row_bytes)
}

/// Row `row` of `matrix`, or an empty slice when the matrix does not hold it.
///
/// The callers' lengths were checked; this keeps the kernels free of any other way to address
/// weights.
#[inline]
fn row_bytes(matrix: &[u8], row: usize, row_stride_bytes: usize, bytes: usize) -> &[u8] {
    let start = row.wrapping_mul(row_stride_bytes);
    matrix
        .get(start..)
        .and_then(|rest| rest.get(..bytes))
        .unwrap_or(&[])
}

/// Asks for the lines of memory that hold `bytes`, a few dozen at most, and does not wait for them.
pub(crate) fn fetch(bytes: &[u8]) {
    #[cfg(all(target_arch = "x86_64", target_feature = "sse"))]
    for line in bytes.chunks(64) {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the address is that of a byte of a slice, and a prefetch changes no state.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "sse")))]
    let _ = bytes;
}

// -- what the vector levels share ----------------------------------------------------------------

/// The address `at` bytes after the start of `row`; past its end, that much after the start of
/// the row that is read next. Only for prefetches.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
#[inline]
fn at_or_next(row: &[u8], next_row: *const u8, at: usize) -> *const u8 {
    if at < row.len() {
        row.as_ptr().wrapping_add(at)
    } else {
        next_row.wrapping_add(at - row.len())
    }
}

/// The rows in blocks of 16 weights, and how many of them, at most `most`, every row has.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
#[inline(always)] // a call in each vector loop, which closures of `map` would be
fn blocks_of<const EIGHT: usize, const ROWS: usize>(
    rows: [&[u8]; ROWS],
    most: usize,
) -> ([&[[[u8; EIGHT]; 2]]; ROWS], usize) {
    let mut blocks: [&[[[u8; EIGHT]; 2]]; ROWS] = [&[]; ROWS];
    let mut count = most;
    for (blocks, row) in blocks.iter_mut().zip(rows) {
        *blocks = row.as_chunks::<EIGHT>().0.as_chunks::<2>().0;
        count = count.min(blocks.len());
    }
    (blocks, count)
}

/// Whether block `i` is the first to reach into a line of memory, so that one fetch per line is
/// asked for.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
#[inline]
fn starts_line<const EIGHT: usize>(i: usize) -> bool {
    2 * EIGHT >= 64 || i.is_multiple_of(64 / (2 * EIGHT))
}

/// The 16 values from `at` on.
#[cfg(any(
    any(target_arch = "x86", target_arch = "x86_64"),
    all(
        target_arch = "aarch64",
        target_feature = "neon",
        target_endian = "little"
    ),
    all(target_arch = "wasm32", target_feature = "simd128")
))]
#[inline]
fn block(values: &[f64], at: usize) -> Option<&[[f64; 8]; 2]> {
    values.get(at..)?.as_chunks::<8>().0.first_chunk()
}

/// The 16 values from `at` on, to be written.
#[cfg(any(
    any(target_arch = "x86", target_arch = "x86_64"),
    all(
        target_arch = "aarch64",
        target_feature = "neon",
        target_endian = "little"
    ),
    all(target_arch = "wasm32", target_feature = "simd128")
))]
#[inline]
fn block_mut(values: &mut [f64], at: usize) -> Option<&mut [[f64; 8]; 2]> {
    values
        .get_mut(at..)?
        .as_chunks_mut::<8>()
        .0
        .first_chunk_mut()
}

/// The ragged end of a row as 16 values, the rest zeros.
#[cfg(any(
    any(target_arch = "x86", target_arch = "x86_64"),
    all(
        target_arch = "aarch64",
        target_feature = "neon",
        target_endian = "little"
    ),
    all(target_arch = "wasm32", target_feature = "simd128")
))]
#[inline]
fn padded<T: Copy + Default, const N: usize>(tail: &[T]) -> [[T; N]; 2] {
    let mut block = [[T::default(); N]; 2];
    for (to, &from) in block.as_flattened_mut().iter_mut().zip(tail) {
        *to = from;
    }
    block
}
