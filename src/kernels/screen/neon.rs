//! NEON: four rows to a vector; `sdot` where the CPU has it, `smull` and pairwise additions where
//! not. The same bits either way: the sums are integers.

use core::arch::aarch64::*;

use super::four::{self, Four};
use super::{ScreenKernels, U3, U4, U6, U8, input};
use crate::kernels::Level;

/// With `sdot`.
pub(super) static DOT_PRODUCT: ScreenKernels = table::<true>();
/// Without.
pub(super) static BASELINE: ScreenKernels = table::<false>();

const fn table<const SDOT: bool>() -> ScreenKernels {
    ScreenKernels {
        level: Level::Neon,
        screen: [
            four::screen::<Neon<SDOT>, U3>,
            four::screen::<Neon<SDOT>, U4>,
            four::screen::<Neon<SDOT>, U6>,
            four::screen::<Neon<SDOT>, U8>,
        ],
        dot_bytes: four::dot_bytes::<Neon<SDOT>>,
        refine_row: four::refine_row::<Neon<SDOT>>,
        above: input::above,
        centre: input::centre,
        measure: input::measure,
        quantise: input::quantise,
        shift_sums: input::shift_sums,
        subtract_products: four::subtract_products,
    }
}

#[derive(Clone, Copy)]
struct Neon<const SDOT: bool>;

impl<const SDOT: bool> Four for Neon<SDOT> {
    type Ints = int32x4_t;
    type Floats = float32x4_t;

    #[inline]
    fn load_bytes(bytes: &[u8; 16]) -> int32x4_t {
        // SAFETY: NEON is in the target's baseline; the array has the 16 bytes.
        unsafe { vreinterpretq_s32_u8(vld1q_u8(bytes.as_ptr())) }
    }

    #[inline]
    fn load_floats(bytes: &[u8; 16]) -> float32x4_t {
        // SAFETY: NEON is in the baseline.
        unsafe { vreinterpretq_f32_s32(Self::load_bytes(bytes)) }
    }

    #[inline]
    fn store_floats(to: &mut [f32; 4], values: float32x4_t) {
        // SAFETY: NEON is in the baseline; the array has the 16 bytes.
        unsafe { vst1q_f32(to.as_mut_ptr(), values) }
    }

    #[inline]
    fn store_ints(to: &mut [i32; 4], values: int32x4_t) {
        // SAFETY: NEON is in the baseline; the array has the 16 bytes.
        unsafe { vst1q_s32(to.as_mut_ptr(), values) }
    }

    #[inline]
    fn bytes(byte: u8) -> int32x4_t {
        // SAFETY: NEON is in the baseline.
        unsafe { vreinterpretq_s32_u8(vdupq_n_u8(byte)) }
    }

    #[inline]
    fn ints(value: i32) -> int32x4_t {
        // SAFETY: NEON is in the baseline.
        unsafe { vdupq_n_s32(value) }
    }

    #[inline]
    fn floats(value: f32) -> float32x4_t {
        // SAFETY: NEON is in the baseline.
        unsafe { vdupq_n_f32(value) }
    }

    #[inline]
    fn and(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        // SAFETY: NEON is in the baseline.
        unsafe { vandq_s32(a, b) }
    }

    #[inline]
    fn or(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        // SAFETY: NEON is in the baseline.
        unsafe { vorrq_s32(a, b) }
    }

    #[inline]
    fn xor(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        // SAFETY: NEON is in the baseline.
        unsafe { veorq_s32(a, b) }
    }

    #[inline]
    fn shift_right<const BITS: u32>(a: int32x4_t) -> int32x4_t {
        // SAFETY: NEON is in the baseline.
        unsafe {
            let by = vdupq_n_s8(-(BITS as i8));
            vreinterpretq_s32_u8(vshlq_u8(vreinterpretq_u8_s32(a), by))
        }
    }

    #[inline]
    fn shift_left<const BITS: u32>(a: int32x4_t) -> int32x4_t {
        // SAFETY: NEON is in the baseline.
        unsafe {
            let by = vdupq_n_s8(BITS as i8);
            vreinterpretq_s32_u8(vshlq_u8(vreinterpretq_u8_s32(a), by))
        }
    }

    #[inline]
    fn add(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        // SAFETY: NEON is in the baseline.
        unsafe { vaddq_s32(a, b) }
    }

    #[inline]
    fn multiply(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        // SAFETY: NEON is in the baseline.
        unsafe { vmulq_s32(a, b) }
    }

    #[inline]
    fn dot(sums: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        if SDOT {
            // SAFETY: this table is handed out only after `sdot` was detected.
            unsafe { signed_dot(sums, a, b) }
        } else {
            // SAFETY: NEON is in the baseline.
            unsafe { widening_dot(sums, a, b) }
        }
    }

    #[inline]
    fn to_floats(a: int32x4_t) -> float32x4_t {
        // SAFETY: NEON is in the baseline.
        unsafe { vcvtq_f32_s32(a) }
    }

    #[inline]
    fn add_floats(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is in the baseline.
        unsafe { vaddq_f32(a, b) }
    }

    #[inline]
    fn subtract_floats(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is in the baseline.
        unsafe { vsubq_f32(a, b) }
    }

    #[inline]
    fn multiply_floats(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is in the baseline.
        unsafe { vmulq_f32(a, b) }
    }

    #[inline]
    fn root(a: float32x4_t) -> float32x4_t {
        // SAFETY: NEON is in the baseline.
        unsafe { vsqrtq_f32(a) }
    }
}

/// `sdot`: its intrinsic is not stable yet.
///
/// # Safety
///
/// The CPU must have the dot product extension.
#[inline]
unsafe fn signed_dot(mut sums: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    // SAFETY: this function's contract; registers only.
    unsafe {
        core::arch::asm!(
            ".arch_extension dotprod",
            "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

#[target_feature(enable = "neon")]
#[inline]
fn widening_dot(sums: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    let (a, b) = (vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b));
    let low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    let high = vpaddlq_s16(vmull_high_s8(a, b));
    vaddq_s32(sums, vpaddq_s32(low, high))
}
