//! Encoding on a GPU (feature `wgpu`): the device is one more screen.
//!
//! ```no_run
//! # fn main() -> Result<(), sae::Error> {
//! use sae::gpu::{Device, DeviceOptions, StreamOptions, UploadOptions};
//! use sae::{Features, OpenOptions, Rows, Sae, Scratch};
//! let sae = Sae::open("layer_12", &OpenOptions::default())?;
//! let device = Device::open(&DeviceOptions::default())?;
//! let model = device.upload(&sae, &UploadOptions::default())?; // once
//! let mut stream = model.stream(&StreamOptions::default())?; // one per thread
//! let (mut scratch, mut features) = (Scratch::new(&sae)?, Features::new());
//! let rows = vec![0.5; 512 * sae.d_in()];
//! let rows = Rows::from_f32(&rows, sae.d_in())?;
//! model.encode(&sae, rows, &mut stream, &mut scratch, &mut features)?;
//! # Ok(())
//! # }
//! ```
//!
//! The device multiplies a batch of rows with the whole encoder in f32, and says which features can
//! fire, or be among the k best; the host computes those exactly, from its own weights. So the
//! features have the bits of [`Sae::encode`](crate::Sae::encode), on every device and with every
//! driver that keeps to the specification of WGSL, which fixes neither the direction of rounding nor
//! the order of sums, and lets subnormal numbers become zeros. Rows and features whose numbers are
//! too large for bounds without overflow are the host's. [`Mode::Fast`] takes the device's
//! estimates instead.
//!
//! # What is bounded
//!
//! Feature `i` has weights `w` (f32, f16 or bf16 values), which the device holds as `w~` with `w = a
//! w~ + r` (`a = 1`, `r = 0` unless in eight bits). A prepared row `x'` less the centre `c`, rounded
//! to f32, is `y`. With `scale` and `bias` as the rule asks (the rank is `p = scale S + bias` before
//! it is rounded to f32, `S` the exact product), the host forms in f64 and rounds to f32
//!
//! ```text
//! s = scale a                o = scale (w . c) + bias
//! m = |scale| (a |w~| (G + 20 e) + |r| + W (e + eta)) + |s| sqrt(d) z
//! b = |s| z (sqrt(d) |w~| + 2 n) + |scale| W eta |c| + 20 e |o| + 4e-15 |bias| + 2^-110
//! t = |y|
//!
//! e = 2^-23   n = d + 32   G = n e (1 + n e)   z = 2^-125   eta = (d / 16 + 64) 2.3e-16
//! W = a |w~| + |r|
//! ```
//!
//! (`|.|` is the Euclidean norm, rounded up; `m` and `b` are multiplied by `1 + 20 e` and rounded
//! up). The device forms, in f32, `A` = the sum of all `w~_j y_j`, and
//!
//! ```text
//! upper = s A + o + (m t + b)        lower = s A + o - (m t + b)
//! ```
//!
//! # Theorem
//!
//! If every operation on f32 gives one of the two neighbours of its exact result, operations may be
//! fused and sums reordered, and subnormal operands and results may become zeros, then `lower <= p
//! <= upper`, for rows with `t <= 2^60` and features with `|w~| <= 2^40`, `2^-60 <= |s| <= 2^20`,
//! `|o| <= 2^100`, `m <= 2^60`, `b <= 2^100` and `d <= 65,536`.
//!
//! *Proof.* *No overflow.* Every partial sum of `A` is at most `sum_j |w~_j y_j| <= |w~| |y| <= 2^100`
//! times `1 + G < 1.01`; `|s A| <= 2^121`, `m t <= 2^121`, and all four terms together stay below
//! 2^124, in any order. So no infinity and no NaN arises, of which WGSL says nothing.
//!
//! *The sum.* Neighbours of a real number in the normal range are within a relative `e` of it. `A` has
//! `d` products and fewer than `n` additions, those of padding zeros included; a term takes part in at
//! most `n` operations, whatever the order, so `|A - w~ . y| <= ((1 + e)^n - 1) sum_j |w~_j y_j|`,
//! and `(1 + e)^n - 1 <= n e (1 + n e) = G` as `n e < 0.01`. A fused operation has fewer roundings.
//! *Flushing.* A subnormal is below 2^-126. As an operand of product `j` it takes away at most `2^-126
//! |y_j|` or `2^-126 |w~_j|`; as a result, of at most `2 n` operations, 2^-126 each. Together, with
//! sums over `j` at most `sqrt(d)` times the norm, and with what later roundings make of it (a factor
//! below 1.01, where `z` has 2): `z (sqrt(d) |y| + sqrt(d) |w~| + 2 n)`.
//!
//! *Weights, rows, f64.* In real arithmetic `w . x' = w . c + a w~ . y + r . y + w . (x' - c - y)`.
//! By the Cauchy-Schwarz inequality the last two are at most `|r| |y|` and `e |w| |y|`, as `y` is one
//! rounding of `x' - c` to f32. `S` and `w . c` are sums in f64 in 16 lanes, and `p` and `o` add a
//! few operations each: `eta W (|y| + |c|)` and `4e-15 |bias|` bound all of it, as in module
//! `blocked`, where the same terms are counted.
//!
//! *The last operations.* `s A + o + (m t + b)` has two products and three sums: in any order, an error
//! of at most `5.1 e` times the sum of the magnitudes of its four terms; rounding `s` and `o` to f32 adds `e / 2`
//! of `|s A|` and of `|o|`. That is below `6 e (|s A| + |o| + m t + b)`, and `|s A| <= |s| (1 + G) |w~|
//! |y|` plus what was flushed. The `20 e` in `m`, in `b` and in the factor on both are over three times
//! that. What these operations flush is below 2^-120, of which `b` holds 2^-110; `m` and `t` are kept
//! at normal numbers.
//!
//! So `p` differs from `s A + o`, with the device's `A`, by at most what `m t + b` is without the terms
//! in `20 e`, and those pay for the last operations, on either side. ∎
//!
//! # Selection
//!
//! Bounds become integer keys that order as floats do; from there on the device works with integers.
//! A threshold rule keeps the features with `upper > threshold`: one that fires has `p > threshold`
//! (`round32(p) > threshold` needs that, thresholds being f32). TopK first finds the k-th largest
//! `lower` of the row, `f`. Then k features have `round32(p) >= f`, as `f` is an f32 and rounding is
//! monotone; one with `upper < f` has `round32(p) <= upper < f`, so it is not among the k best, not
//! even by a tie. The others are listed. A list that has no room for a row's features says so, and the
//! host encodes that row. Magnitudes rank by `|s A + o|`, whose error is no larger.
//!
//! # In the fast mode
//!
//! A value's pre-activation is within `m t + b` of the exact one, and features are selected by it.

mod bounds;
mod candidates;
mod device;
mod directions;
mod model;
mod stream;

pub use device::{AdapterInfo, Device, DeviceOptions, Power, adapters, adapters_async};
pub use directions::{DirectionStream, Directions};
pub use model::{Model, UploadOptions, WeightFormat};
pub use stream::{Counts, Mode, Stream, StreamOptions};
