//! WebAssembly's 128-bit vectors: two f64 to a vector. A module either has them or does not: there
//! is nothing to detect.

use core::arch::wasm32::*;

use super::two::{self, Eight, Two};
use super::{BF16, CANONICAL_NAN, F16, F32, Kernels, Level, edit};

pub(super) static KERNELS: Kernels = Kernels {
    level: Level::Simd128,
    dot_rows: [
        two::dot_rows::<Simd128, F32, 32>,
        two::dot_rows::<Simd128, F16, 16>,
        two::dot_rows::<Simd128, BF16, 16>,
    ],
    dot_columns: [
        two::dot_columns::<Simd128, F32, 32>,
        two::dot_columns::<Simd128, F16, 16>,
        two::dot_columns::<Simd128, BF16, 16>,
    ],
    add_scaled_rows: [
        two::add_scaled_rows::<Simd128, F32, 32>,
        two::add_scaled_rows::<Simd128, F16, 16>,
        two::add_scaled_rows::<Simd128, BF16, 16>,
    ],
    widen: [
        two::widen::<Simd128, F32, 32>,
        two::widen::<Simd128, F16, 16>,
        two::widen::<Simd128, BF16, 16>,
    ],
    sum: two::sum::<Simd128>,
    sum_squares_about: two::sum_squares_about::<Simd128>,
    edit: &edit::two::table::<Simd128>(),
};

/// Two f64 values.
#[derive(Clone, Copy)]
struct Simd128(v128);

impl Two for Simd128 {
    #[inline]
    fn splat(value: f64) -> Self {
        Self(f64x2_splat(value))
    }

    #[inline]
    fn load(values: &[f64; 2]) -> Self {
        // SAFETY: the array has the 16 bytes; the load needs no alignment.
        Self(unsafe { v128_load(values.as_ptr().cast()) })
    }

    #[inline]
    fn store(self, to: &mut [f64; 2]) {
        // SAFETY: the array has the 16 bytes; the store needs no alignment.
        unsafe { v128_store(to.as_mut_ptr().cast(), self.0) }
    }

    #[inline]
    fn add(self, other: Self) -> Self {
        Self(f64x2_add(self.0, other.0))
    }

    #[inline]
    fn subtract(self, other: Self) -> Self {
        Self(f64x2_sub(self.0, other.0))
    }

    #[inline]
    fn multiply(self, other: Self) -> Self {
        Self(f64x2_mul(self.0, other.0))
    }

    #[inline]
    fn add_product(self, a: Self, b: Self) -> Self {
        Self(f64x2_add(self.0, f64x2_mul(a.0, b.0)))
    }

    #[inline]
    fn canonical(self) -> Self {
        let is_number = f64x2_eq(self.0, self.0);
        Self(v128_bitselect(
            self.0,
            f64x2_splat(CANONICAL_NAN),
            is_number,
        ))
    }

    #[inline]
    fn widen_input(values: &[f32; 8]) -> Eight<Self> {
        // SAFETY: the eight values are 32 bytes, and every byte is a u8.
        Self::widen_f32(unsafe { &*values.as_ptr().cast() })
    }

    #[inline]
    fn widen_f32(values: &[u8; 32]) -> Eight<Self> {
        widen_singles(load_bytes(&values[..16]), load_bytes(&values[16..]))
    }

    #[inline]
    fn widen_f16(values: &[u8; 16]) -> Eight<Self> {
        let stored = load_bytes(values);
        widen_singles(
            halves_to_singles(u32x4_extend_low_u16x8(stored)),
            halves_to_singles(u32x4_extend_high_u16x8(stored)),
        )
    }

    #[inline]
    fn widen_bf16(values: &[u8; 16]) -> Eight<Self> {
        // a BF16 is the upper half of an f32
        let stored = load_bytes(values);
        widen_singles(
            i32x4_shl(u32x4_extend_low_u16x8(stored), 16),
            i32x4_shl(u32x4_extend_high_u16x8(stored), 16),
        )
    }

    #[inline]
    fn within(self, limit: Self) -> Self {
        Self(f64x2_lt(f64x2_abs(self.0), limit.0))
    }

    #[inline]
    fn and(self, other: Self) -> Self {
        Self(v128_and(self.0, other.0))
    }

    #[inline]
    fn all(self) -> bool {
        i64x2_all_true(self.0)
    }

    #[inline]
    fn keep_equal(self, old: Self) -> Self {
        Self(v128_bitselect(old.0, self.0, f64x2_eq(self.0, old.0)))
    }

    #[inline]
    fn store_f32([a, b, c, d]: Eight<Self>, to: &mut [u8; 32]) {
        let four = |a: Self, b: Self| {
            let (low, high) = (f32x4_demote_f64x2_zero(a.0), f32x4_demote_f64x2_zero(b.0));
            i64x2_shuffle::<0, 2>(low, high)
        };
        // SAFETY: the array has the first 16 bytes; the store needs no alignment.
        unsafe { v128_store(to.as_mut_ptr().cast(), four(a, b)) };
        // SAFETY: as before, for the last 16 bytes.
        unsafe { v128_store(to[16..].as_mut_ptr().cast(), four(c, d)) };
    }

    #[inline]
    fn prefetch(_address: *const u8) {
        // WebAssembly has no such instruction.
    }
}

/// 16 bytes, at any address.
#[inline]
fn load_bytes(bytes: &[u8]) -> v128 {
    let Some(bytes) = bytes.first_chunk::<16>() else {
        return u8x16_splat(0);
    };
    // SAFETY: the array has the 16 bytes; the load needs no alignment.
    unsafe { v128_load(bytes.as_ptr().cast()) }
}

#[inline]
fn widen_singles(low: v128, high: v128) -> Eight<Simd128> {
    let upper = |four: v128| i64x2_shuffle::<1, 1>(four, four);
    [
        Simd128(f64x2_promote_low_f32x4(low)),
        Simd128(f64x2_promote_low_f32x4(upper(low))),
        Simd128(f64x2_promote_low_f32x4(high)),
        Simd128(f64x2_promote_low_f32x4(upper(high))),
    ]
}

/// Four F16 values, each in the low half of 32 bits, as f32 values. There is no instruction for
/// it. Shifted to where an f32 has its exponent and fraction, a half is `2^-112` of its value:
/// the product is exact, for subnormal halves too. An infinity or NaN gets the largest exponent.
#[inline]
fn halves_to_singles(halves: v128) -> v128 {
    let magnitude = i32x4_shl(v128_and(halves, u32x4_splat(0x7fff)), 13);
    let sign = i32x4_shl(v128_and(halves, u32x4_splat(0x8000)), 16);
    let value = f32x4_mul(magnitude, f32x4_splat(f32::from_bits((127 + 112) << 23)));
    let not_finite = u32x4_ge(magnitude, u32x4_splat(0x7c00 << 13));
    let exponent = v128_and(not_finite, u32x4_splat(0x7f80_0000));
    v128_or(v128_or(value, exponent), sign)
}
