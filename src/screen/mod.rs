//! Screens: a low-precision copy of the encoder, with bounds, that names the few rows a token can
//! fire. A screen never decides a value: the caller computes the rows it names exactly (D1), and
//! the result has the bits of the dense scan.
//!
//! # What is bounded
//!
//! Row `i` has weights `w` (f32, f16 or bf16 values), an input `x'` has f32 values, and the
//! library forms, in f64 and in this order (D1),
//!
//! ```text
//! S = dot(w, x')        p = fl(fl(scale * S) + bias)        pre = round32(p)
//! ```
//!
//! A screen gives `lower <= p <= upper`. Rounding to f32 is monotone, so a feature with `upper`
//! below its threshold (an f32) cannot have `pre` above it.
//!
//! # The estimate
//!
//! 1. *Centre.* `y = fl(x' - c)`, with `c` fixed when the screen is built (the decoder's bias, if
//!    the model has not subtracted it already): `w . x' = w . c + w . (x' - c)`. Each column is
//!    then multiplied by a power of two, and the weight's column divided by it: exact.
//! 2. *Change of basis* (optional, see `transform`). `y` is rounded to 16-bit integers,
//!    `y = s1 z1 + e1`, and multiplied by a triangular matrix `R'` of signed bytes with one scale
//!    per row; rows were replaced by the solutions `w~` of `R'^T w~ = w`. Without it `w~ = w`, and
//!    the vector below is `y` itself, `e1 = 0`.
//!    `v = fl(R' s1 z1)`; the integer sums are exact.
//! 3. *Codes.* In blocks of 64 columns, `w~_j` is replaced by `q_j = s m_b (u_j - h_j)`, where `u`
//!    is an integer of 3 to 8 bits, `m_b` an 8-bit block scale, `s` the row's step and `h` a
//!    shift that all rows share. `v` is rounded to 16-bit integers: `v = s2 z2 + e2`.
//! 4. *Sum.* `T = sum_b m_b (sum_j u_j z2_j - g_b)` with `g_b = rint(sum_j h_j z2_j)`: integers
//!    within a block, f32 between blocks. The estimate of `p` is `scale s s2 T + (bias +
//!    scale w . c)`.
//!
//! # Theorem 1 (proven)
//!
//! For every finite input, with `|.|` the Euclidean norm and `r = w~ - q`,
//!
//! ```text
//! |p - estimate| <= |scale| ( |r| |v|  +  |q| A  +  |w~| B  +  |w| C  +  H D )  +  E
//! A = |e2| + eta |s2 z2|                      eta = (blocks + 16) 1.3e-7
//! B = (d + 64) 2.3e-16 |R'|_F |s1 z1| + 1e-15 |v|
//! C = |e1| + 3e-16 |y| + (d / 16 + 12) 2.5e-16 |x'|       (x', y, w in the scaled columns)
//! D = 1.01 s2,   H = (sum_b s m_b) / 2
//! E = 1e-15 d |w| |c| |scale| + 6e-7 (|bias| + |scale w . c| + |bias + scale w . c|) + 1e-30
//! ```
//!
//! *Proof.* Write `u53 = 2^-53`, `u24 = 2^-24`.
//!
//! *Exact chain.* In real arithmetic and for the computed `w~`, which solves `(R' + F)^T w~ = w`
//! with `|F| <= g |R'|` element by element, `g = (d + 1) u53 / (1 - (d + 1) u53)` (substitution in
//! any order of summation; Higham, *Accuracy and Stability of Numerical Algorithms*, theorem 8.5):
//!
//! ```text
//! w . y   = w . e1 + s1 w . z1                                |w . e1| <= |w| |e1|
//! s1 w.z1 = w~ . (R' s1 z1) + w~ . (F s1 z1)                  second term <= g |w~| |R'|_F |s1 z1|
//! w~ . (R' s1 z1) = w~ . v + w~ . (R' s1 z1 - v)              second term <= 2.1 u53 |w~| |v|
//! w~ . v  = q . v + r . v                                     |r . v| <= |r| |v|
//! q . v   = q . s2 z2 + q . e2                                |q . e2| <= |q| |e2|
//! ```
//!
//! by the Cauchy-Schwarz inequality in each line. The absolute values `|F|` and `|z1|` have the
//! norms of `F` and `z1`, so the second line holds too. `v` is the exact integer sum (below 2^53)
//! times `fl(scale_r s1)`: two roundings.
//!
//! *Subtraction.* `y = (x' - c)(1 + t)`, `|t| <= u53`: `|w . (x' - c) - w . y| <= 1.01 u53 |w| |y|`.
//! Computing `e1 = y - s1 z1` is one rounding since `s1 z1` is exact (an f32 times a 16-bit
//! integer); `e2` likewise. Norms are formed in f64 and multiplied by `1 + 1e-9`, more than the
//! error of a sum of four million squares.
//!
//! *D1 and p.* `|S - w . x'| <= (d / 16 + 5) u53 (1 + 1e-12) sum_j |w_j x'_j|`, the sum being at
//! most `|w| |x'|` in the scaled columns; forming `p` adds at most `2 u53 (|scale| |S| + |bias|)`,
//! and a rank weight two roundings more. The factor in `C` is over twice the sum of these.
//!
//! *Sum.* `g_b` is off by half a unit and by the f64 rounding of the sum, below 1e-6 of a unit: in
//! `w . x'` that is at most `1.01 s2 H`. The f32 sum over blocks has `blocks` conversions, products
//! and additions, so its error is at most `(blocks + 3) u24 sum_b m_b |I_b|` times `1 + 1e-5`, and
//! `s s2 sum_b m_b |I_b| <= sum_b |q_b| |s2 z2_b| + s2 H <= |q| |s2 z2| + s2 H`. The last few f32
//! operations (`T step`, `weight t`, `+ offset`, `+ margin`) and the rounding of `weight` each
//! add `u24` of a term: of `|q| |s2 z2|`, covered by the 16 in `eta` (1.3e-7 is over `2 u24`); of
//! the offset, covered by 6e-7, over `10 u24`; of the margin, covered by multiplying its
//! factors by `1 + 1e-6` each. Underflow to zero or to subnormals costs less than 1e-30.
//!
//! *Offset.* `w . c` is formed in f64 with an error of at most `1.01 d u53 |w| |c|`, in the scaled
//! columns again. `E` is added to the offset, so `upper` contains it; `lower` is lowered by twice
//! the largest `E` of all rows.
//!
//! *Grouping.* `|q| A + |w~| B + |w| C + H D <= sqrt(|q|^2 + |w~|^2 + (k1 |w|)^2 + (k2 H)^2)
//! sqrt(A^2 + B^2 + (C / k1)^2 + (D / k2)^2)` for any positive `k1`, `k2`: one number for each row
//! (`other`) and one for each input (`slack`). ∎
//!
//! *Range.* A row that is not finite, or whose `scale s` has fewer than 24 bits in f32, is always
//! kept. An input keeps every row if `s2 > 1e20`, or if `max other (|s2 z2| + slack) + max |offset|`,
//! which bounds every f32 value on the way to the estimate, exceeds 1e37. So no estimate
//! overflows, and a margin that does keeps its row: comparisons are written so that infinities and
//! NaN keep.
//!
//! # Theorem 2 (dithered)
//!
//! Let the shifts be `h_j = h + t_j` with `t_j` uniform in [-1/2, 1/2) and independent, drawn from
//! a seed when the screen is built, and let every `w~_j / (s m_b) + h_j` round to a code without
//! clipping. For any input chosen without knowledge of the `t_j`, with probability at least
//! `1 - 2^-n` for each row and input, the bound of theorem 1 holds with `|r| |v|` replaced by
//!
//! ```text
//! f s sqrt(sum_b m_b^2 |v_b|^2)          f = 1.0001 sqrt((n + 1) ln 2 / 6), 2.7406 for n = 64
//! ```
//!
//! *Proof.* With `a_j = w~_j / (s m_b) + h_j`, the residual is `r_j = s m_b (a_j - rint(a_j))`
//! (subtractive dither). `t_j` shifts `a_j` uniformly over an interval of length one, so `a_j -
//! rint(a_j)` is uniform in [-1/2, 1/2], whatever `w~_j` is, and for one row these are independent.
//! (`w~_j`, `s`, `m_b` and `v` do not depend on `t`.) A uniform variable of variance 1/12 is
//! strictly sub-Gaussian: `E exp(k x) <= exp(k^2 / 24)`. So is the sum `r . v`, with the proxy
//! `sum_b s^2 m_b^2 |v_b|^2 / 12`, and `P(|r . v| > t) <= 2 exp(-t^2 / (2 proxy))`, which is 2^-n
//! at `t = sqrt(2 ln 2^(n + 1) proxy) = sqrt((n + 1) ln 2 / 6) s sqrt(sum_b m_b^2 |v_b|^2)`. The rest
//! of the proof of theorem 1 does not use how codes were chosen.
//! The `t_j` are multiples of 2^-53 and `a_j` is formed with an error below 2^-44: that moves the
//! mean by at most 2^-43 and breaks some ties the other way, changes of a relative 2^-40 against
//! the 10^-4 by which `f` is larger. ∎
//!
//! `N` decisions on inputs chosen without knowledge of the seed miss a feature with probability at
//! most `N 2^-n`; n is 64 unless the caller says otherwise. For 16,384 features and a thousand tokens a second, that is one in 35,000 after
//! a year. It does not hold against someone who knows the
//! seed or has the codes and shapes inputs to fit; `proven` does.

mod batch;
mod build;
mod numbers;
mod query;
mod refine;
mod stored;
mod transform;

pub(crate) use batch::Tiles;
pub use build::Basis;
pub use query::Bounds;
pub use stored::{STORED_HEADER_BYTES, STORED_SECTIONS, STORED_VERSION};

use crate::bytes::Bytes;
use crate::error::Error;
use crate::kernels::screen::{CodeFormat, ScreenKernels};
use alloc::sync::Arc;
use alloc::vec::Vec;
use build::{Balance, DITHERED_PART, PROVEN_PART};
use refine::Refinement;
use transform::Transform;

/// The rows of an encoder, one per feature.
pub trait EncoderRows {
    /// How many rows.
    fn features(&self) -> usize;
    /// Weights per row.
    fn width(&self) -> usize;
    /// Writes row `feature`, widened; `out` has [`EncoderRows::width`] values.
    fn row(&self, feature: usize, out: &mut [f64]);
}

/// On what a bound rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Certificate {
    /// A worst-case bound, for every finite input.
    Proven,
    /// A bound that fails with probability at most 2^-64 for each decision, for inputs chosen
    /// without knowledge of the dither.
    Dithered,
}

/// What is asked of the features: `p_i = scale_i * S_i + bias_i` rounded to f32 is compared with
/// a threshold, or ranked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules<'r> {
    /// One if `None`.
    pub scale: Option<&'r [f64]>,
    /// Zero if `None`.
    pub bias: Option<&'r [f64]>,
    /// A feature is dropped when its upper bound is below this; `None` keeps all, for TopK.
    pub threshold: Option<&'r [f32]>,
}

/// How a screen is built.
#[derive(Clone, Copy, Debug)]
pub struct Options<'o> {
    /// On what bounds rest.
    pub certificate: Certificate,
    /// Bits of a code.
    pub format: CodeFormat,
    /// Whether rows are quantised in the basis of the encoder's Gram matrix.
    pub whiten: bool,
    /// Subtracted from inputs before they meet the quantised rows.
    pub centre: Option<&'o [f64]>,
    /// Whether rows have two more bits, read for those that pass the first bound.
    pub refine: bool,
    /// Where the dither comes from; from a hash of the weights if `None`.
    pub seed: Option<u64>,
    /// Dithered bounds fail with probability at most `2^-delta_exponent` for each decision: 64
    /// ([`DELTA_EXPONENT`]) unless there is a reason. 1 to 1000; proven bounds do not read it.
    pub delta_exponent: u32,
}

/// The exponent of delta that is used unless another one is asked for.
pub const DELTA_EXPONENT: u32 = 64;

/// Packed bytes at an address that is a multiple of 64 (a cache line); large ones, with `std`, in huge
/// pages where the system has them (a sixth of the time of a row, see `benches/NOTES.md`).
#[derive(Debug)]
enum Weights {
    Vec {
        memory: Vec<u8>,
        start: usize,
        len: usize,
    },
    #[cfg(feature = "std")]
    Map(crate::mmap::Anonymous),
}

impl Weights {
    fn zeros(len: usize) -> Result<Self, Error> {
        #[cfg(feature = "std")]
        if let Some(map) = crate::mmap::Anonymous::huge(len) {
            return Ok(Weights::Map(map));
        }
        let memory: Vec<u8> = numbers::zeros(len + 63, "screen")?;
        let start = memory.as_ptr().align_offset(64).min(63);
        Ok(Weights::Vec { memory, start, len })
    }

    fn shared(self) -> Bytes<'static> {
        Bytes::shared(Arc::new(self))
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Weights::Vec { memory, start, len } => {
                memory.get_mut(*start..*start + *len).unwrap_or(&mut [])
            }
            #[cfg(feature = "std")]
            Weights::Map(map) => map.bytes_mut(),
        }
    }
}

impl AsRef<[u8]> for Weights {
    fn as_ref(&self) -> &[u8] {
        match self {
            Weights::Vec { memory, start, len } => memory.get(*start..*start + *len).unwrap_or(&[]),
            #[cfg(feature = "std")]
            Weights::Map(map) => map.bytes(),
        }
    }
}

/// A quantised encoder with bounds. `'a` is the lifetime of stored bytes that it reads in place.
#[derive(Debug)]
pub struct Screen<'a> {
    certificate: Certificate,
    format: CodeFormat,
    delta_exponent: u32,
    features: usize,
    d_in: usize,
    blocks: usize,
    /// Subtracted from inputs; padded to whole blocks, like all vectors over columns.
    centre: Vec<f64>,
    /// A power of two for each input, which it is multiplied by; the rows are divided.
    powers: Vec<f64>,
    transform: Option<Transform<'a>>,
    /// What codes are shifted by, for each column.
    codes_shift: Vec<f64>,
    /// The same for second codes; empty without.
    refined_shift: Vec<f64>,
    refinement: Option<Refinement>,
    refined: Bytes<'a>,
    balance: Balance,
    /// Twice the largest of what offsets were raised by.
    lower_slack: f32,
    /// The largest `other` and the largest magnitude of an offset.
    largest: (f32, f32),
    seed: u64,
    /// Of what it was built from.
    rows_hash: u64,
    rules_hash: u64,
    panels: Bytes<'a>,
}

impl<'a> Screen<'a> {
    /// Quantises rows.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; [`Error::Length`] if a vector does not fit the rows.
    pub fn build(
        rows: &dyn EncoderRows,
        rules: &Rules<'_>,
        options: &Options<'_>,
        kernels: &ScreenKernels,
    ) -> Result<Screen<'static>, Error> {
        let basis = Basis::build(rows, options.whiten, kernels)?;
        Screen::build_on(&basis, rows, rules, options, kernels)
    }

    /// [`Screen::build`] in a basis that was built before, for these rows or for more that they
    /// are a sample of; `options.whiten` is not read.
    ///
    /// # Errors
    /// As [`Screen::build`]; [`Error::Length`] too if the basis has another width.
    pub fn build_on(
        basis: &Basis,
        rows: &dyn EncoderRows,
        rules: &Rules<'_>,
        options: &Options<'_>,
        kernels: &ScreenKernels,
    ) -> Result<Screen<'static>, Error> {
        let length = |what: &'static str, found: Option<usize>, expected: usize| match found {
            Some(found) if found != expected => Err(Error::Length {
                what,
                expected: expected as u64,
                found: found as u64,
            }),
            _ => Ok(()),
        };
        let features = rows.features();
        length("scales", rules.scale.map(<[f64]>::len), features)?;
        length("biases", rules.bias.map(<[f64]>::len), features)?;
        length("thresholds", rules.threshold.map(<[f32]>::len), features)?;
        length(
            "values of the centre",
            options.centre.map(<[f64]>::len),
            rows.width(),
        )?;
        length("values of the basis", Some(basis.width()), rows.width())?;
        let dithered = options.certificate == Certificate::Dithered;
        if dithered && !(1..=1000).contains(&options.delta_exponent) {
            return Err(Error::InvalidArgument {
                what: "exponent of delta",
                expected: "1 to 1000".into(),
                found: alloc::string::ToString::to_string(&options.delta_exponent),
            });
        }
        build::build(basis, rows, rules, options, kernels)
    }

    /// Bits of a first code.
    pub fn format(&self) -> CodeFormat {
        self.format
    }

    /// Whether rows are quantised in the basis of the encoder's Gram matrix.
    pub fn whitened(&self) -> bool {
        self.transform.is_some()
    }

    /// Whether rows have second codes.
    pub fn refines(&self) -> bool {
        self.refinement.is_some()
    }

    /// A dithered bound fails with probability at most two to the minus this; 0 if proven.
    pub fn delta_exponent(&self) -> u32 {
        self.delta_exponent
    }

    /// On what the bounds rest.
    pub fn certificate(&self) -> Certificate {
        self.certificate
    }

    /// The seed of the dither; 0 without.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Bytes held.
    pub fn bytes_held(&self) -> usize {
        self.bytes_read() + self.refined.len()
    }

    /// Bytes read for each input, before any row is refined or computed exactly.
    pub fn bytes_read(&self) -> usize {
        let vectors = [
            &self.centre,
            &self.powers,
            &self.codes_shift,
            &self.refined_shift,
        ];
        let vectors: usize = vectors.iter().map(|vector| vector.len()).sum();
        self.panels.len() + vectors * 8 + self.transform.as_ref().map_or(0, Transform::bytes)
    }

    /// Bytes read for each row that is refined.
    pub fn bytes_refined(&self) -> usize {
        self.refinement.map_or(0, |refinement| refinement.stride)
    }

    fn refined_part(&self) -> f64 {
        match self.certificate {
            Certificate::Proven => PROVEN_PART,
            Certificate::Dithered => DITHERED_PART,
        }
    }

    /// Number of features.
    pub fn features(&self) -> usize {
        self.features
    }
}

/// A hash of all weights (FNV-1a on their f64 bits).
fn hash_rows(rows: &dyn EncoderRows) -> Result<u64, Error> {
    let mut row = numbers::zeros(rows.width(), "screen")?;
    let mut hash = Hash::new();
    for feature in 0..rows.features() {
        rows.row(feature, &mut row);
        row.iter().for_each(|value| hash.add(value.to_bits()));
    }
    Ok(hash.0)
}

/// A hash of what is asked of the features.
fn hash_rules(features: usize, rules: &Rules<'_>) -> u64 {
    let mut hash = Hash::new();
    for feature in 0..features {
        let of = |values: Option<&[f64]>, default: f64| match values {
            None => default,
            Some(values) => values.get(feature).copied().unwrap_or(default),
        };
        hash.add(of(rules.scale, 1.0).to_bits());
        hash.add(of(rules.bias, 0.0).to_bits());
        let threshold = rules.threshold.and_then(|t| t.get(feature).copied());
        hash.add(u64::from(threshold.unwrap_or(f32::NEG_INFINITY).to_bits()));
    }
    hash.0
}

struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Hash(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        self.0 ^= self.0 >> 29;
    }
}
