//! NEON (Advanced SIMD): two f64 to a vector, in the baseline of every AArch64 build.

use core::arch::aarch64::*;

use super::two::{self, Eight, Two};
use super::{BF16, CANONICAL_NAN, F16, F32, Kernels, Level, edit};

pub(super) static KERNELS: Kernels = Kernels {
    level: Level::Neon,
    dot_rows: [
        two::dot_rows::<Neon, F32, 32>,
        two::dot_rows::<Neon, F16, 16>,
        two::dot_rows::<Neon, BF16, 16>,
    ],
    dot_columns: [
        two::dot_columns::<Neon, F32, 32>,
        two::dot_columns::<Neon, F16, 16>,
        two::dot_columns::<Neon, BF16, 16>,
    ],
    add_scaled_rows: [
        two::add_scaled_rows::<Neon, F32, 32>,
        two::add_scaled_rows::<Neon, F16, 16>,
        two::add_scaled_rows::<Neon, BF16, 16>,
    ],
    widen: [
        two::widen::<Neon, F32, 32>,
        two::widen::<Neon, F16, 16>,
        two::widen::<Neon, BF16, 16>,
    ],
    sum: two::sum::<Neon>,
    sum_squares_about: two::sum_squares_about::<Neon>,
    edit: &edit::two::table::<Neon>(),
};

/// Two f64 values.
#[derive(Clone, Copy)]
pub(super) struct Neon(float64x2_t);

impl Two for Neon {
    #[inline]
    fn splat(value: f64) -> Self {
        // SAFETY: NEON is in the target's baseline (see the `cfg` of this module).
        Self(unsafe { vdupq_n_f64(value) })
    }

    #[inline]
    fn load(values: &[f64; 2]) -> Self {
        // SAFETY: NEON is in the baseline; the array has the 16 bytes.
        Self(unsafe { vld1q_f64(values.as_ptr()) })
    }

    #[inline]
    fn store(self, to: &mut [f64; 2]) {
        // SAFETY: NEON is in the baseline; the array has the 16 bytes.
        unsafe { vst1q_f64(to.as_mut_ptr(), self.0) }
    }

    #[inline]
    fn add(self, other: Self) -> Self {
        // SAFETY: NEON is in the baseline.
        Self(unsafe { vaddq_f64(self.0, other.0) })
    }

    #[inline]
    fn subtract(self, other: Self) -> Self {
        // SAFETY: NEON is in the baseline.
        Self(unsafe { vsubq_f64(self.0, other.0) })
    }

    #[inline]
    fn multiply(self, other: Self) -> Self {
        // SAFETY: NEON is in the baseline.
        Self(unsafe { vmulq_f64(self.0, other.0) })
    }

    #[inline]
    fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: NEON is in the baseline.
        Self(unsafe { vfmaq_f64(self.0, a.0, b.0) })
    }

    #[inline]
    fn canonical(self) -> Self {
        // SAFETY: NEON is in the baseline.
        Self(unsafe { canonical_two(self.0) })
    }

    #[inline]
    fn widen_input(values: &[f32; 8]) -> Eight<Self> {
        // SAFETY: the eight values are 32 bytes, and every byte is a u8.
        Self::widen_f32(unsafe { &*values.as_ptr().cast() })
    }

    #[inline]
    fn widen_f32(values: &[u8; 32]) -> Eight<Self> {
        let [low, high] = [load_bytes(&values[..16]), load_bytes(&values[16..])];
        // SAFETY: NEON is in the baseline.
        unsafe { widen_singles(vreinterpretq_f32_u8(low), vreinterpretq_f32_u8(high)) }
    }

    #[inline]
    fn widen_f16(values: &[u8; 16]) -> Eight<Self> {
        // SAFETY: NEON is in the baseline.
        unsafe { widen_halves(load_bytes(values)) }
    }

    #[inline]
    fn widen_bf16(values: &[u8; 16]) -> Eight<Self> {
        // SAFETY: NEON is in the baseline.
        unsafe { widen_upper_halves(load_bytes(values)) }
    }

    #[inline]
    fn within(self, limit: Self) -> Self {
        // SAFETY: NEON is in the baseline.
        Self(unsafe { vreinterpretq_f64_u64(vcaltq_f64(self.0, limit.0)) })
    }

    #[inline]
    fn and(self, other: Self) -> Self {
        // SAFETY: NEON is in the baseline.
        Self(unsafe { and_two(self.0, other.0) })
    }

    #[inline]
    fn all(self) -> bool {
        // SAFETY: NEON is in the baseline.
        unsafe { all_two(self.0) }
    }

    #[inline]
    fn keep_equal(self, old: Self) -> Self {
        // SAFETY: NEON is in the baseline.
        Self(unsafe { vbslq_f64(vceqq_f64(self.0, old.0), old.0, self.0) })
    }

    #[inline]
    fn store_f32(values: Eight<Self>, to: &mut [u8; 32]) {
        // SAFETY: NEON is in the baseline.
        unsafe { store_singles(values, to) }
    }

    #[inline]
    fn prefetch(address: *const u8) {
        // SAFETY: a prefetch faults at no address, and changes nothing that Rust can see.
        unsafe {
            core::arch::asm!(
                "prfm pldl1keep, [{address}]",
                address = in(reg) address,
                options(nostack, preserves_flags, readonly)
            );
        }
    }
}

/// 16 bytes, at any address.
#[inline]
fn load_bytes(bytes: &[u8]) -> uint8x16_t {
    let Some(bytes) = bytes.first_chunk::<16>() else {
        // SAFETY: NEON is in the baseline.
        return unsafe { vdupq_n_u8(0) };
    };
    // SAFETY: NEON is in the baseline; the array has the 16 bytes.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[target_feature(enable = "neon")]
#[inline]
fn canonical_two(values: float64x2_t) -> float64x2_t {
    vbslq_f64(
        vceqq_f64(values, values),
        values,
        vdupq_n_f64(CANONICAL_NAN),
    )
}

#[target_feature(enable = "neon")]
#[inline]
fn and_two(a: float64x2_t, b: float64x2_t) -> float64x2_t {
    let bits = vandq_u64(vreinterpretq_u64_f64(a), vreinterpretq_u64_f64(b));
    vreinterpretq_f64_u64(bits)
}

/// Whether every bit is set.
#[target_feature(enable = "neon")]
#[inline]
fn all_two(mask: float64x2_t) -> bool {
    let bits = vreinterpretq_u64_f64(mask);
    vgetq_lane_u64::<0>(bits) & vgetq_lane_u64::<1>(bits) == u64::MAX
}

#[target_feature(enable = "neon")]
#[inline]
fn store_singles([a, b, c, d]: Eight<Neon>, to: &mut [u8; 32]) {
    let low = vcvt_high_f32_f64(vcvt_f32_f64(a.0), b.0);
    let high = vcvt_high_f32_f64(vcvt_f32_f64(c.0), d.0);
    // SAFETY: the array has the first 16 bytes; a store of bytes needs no alignment.
    unsafe { vst1q_u8(to.as_mut_ptr(), vreinterpretq_u8_f32(low)) };
    // SAFETY: as before, for the last 16 bytes.
    unsafe { vst1q_u8(to[16..].as_mut_ptr(), vreinterpretq_u8_f32(high)) };
}

#[target_feature(enable = "neon")]
#[inline]
fn widen_singles(low: float32x4_t, high: float32x4_t) -> Eight<Neon> {
    [
        Neon(vcvt_f64_f32(vget_low_f32(low))),
        Neon(vcvt_high_f64_f32(low)),
        Neon(vcvt_f64_f32(vget_low_f32(high))),
        Neon(vcvt_high_f64_f32(high)),
    ]
}

#[target_feature(enable = "neon")]
#[inline]
fn widen_halves(stored: uint8x16_t) -> Eight<Neon> {
    let stored = vreinterpretq_u16_u8(stored);
    let low = vreinterpret_f16_u16(vget_low_u16(stored));
    let high = vreinterpret_f16_u16(vget_high_u16(stored));
    widen_singles(vcvt_f32_f16(low), vcvt_f32_f16(high))
}

/// A BF16 is the upper half of an f32.
#[target_feature(enable = "neon")]
#[inline]
fn widen_upper_halves(stored: uint8x16_t) -> Eight<Neon> {
    let stored = vreinterpretq_u16_u8(stored);
    let low = vshll_n_u16::<16>(vget_low_u16(stored));
    let high = vshll_n_u16::<16>(vget_high_u16(stored));
    widen_singles(vreinterpretq_f32_u32(low), vreinterpretq_f32_u32(high))
}
