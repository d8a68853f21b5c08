//! WebAssembly's 128-bit vectors: four rows to a vector.

use core::arch::wasm32::*;

use super::four::{self, Four};
use super::{ScreenKernels, U3, U4, U6, U8, input};
use crate::kernels::Level;

pub(super) static KERNELS: ScreenKernels = ScreenKernels {
    level: Level::Simd128,
    screen: [
        four::screen::<Simd128, U3>,
        four::screen::<Simd128, U4>,
        four::screen::<Simd128, U6>,
        four::screen::<Simd128, U8>,
    ],
    dot_bytes: four::dot_bytes::<Simd128>,
    refine_row: four::refine_row::<Simd128>,
    above: input::above,
    centre: input::centre,
    measure: input::measure,
    quantise: input::quantise,
    shift_sums: input::shift_sums,
    subtract_products: four::subtract_products,
};

#[derive(Clone, Copy)]
struct Simd128;

impl Four for Simd128 {
    type Ints = v128;
    type Floats = v128;

    #[inline]
    fn load_bytes(bytes: &[u8; 16]) -> v128 {
        // SAFETY: the array has the 16 bytes; the load needs no alignment.
        unsafe { v128_load(bytes.as_ptr().cast()) }
    }

    #[inline]
    fn load_floats(bytes: &[u8; 16]) -> v128 {
        Self::load_bytes(bytes)
    }

    #[inline]
    fn store_floats(to: &mut [f32; 4], values: v128) {
        // SAFETY: the array has the 16 bytes; the store needs no alignment.
        unsafe { v128_store(to.as_mut_ptr().cast(), values) }
    }

    #[inline]
    fn store_ints(to: &mut [i32; 4], values: v128) {
        // SAFETY: the array has the 16 bytes; the store needs no alignment.
        unsafe { v128_store(to.as_mut_ptr().cast(), values) }
    }

    #[inline]
    fn bytes(byte: u8) -> v128 {
        u8x16_splat(byte)
    }

    #[inline]
    fn ints(value: i32) -> v128 {
        i32x4_splat(value)
    }

    #[inline]
    fn floats(value: f32) -> v128 {
        f32x4_splat(value)
    }

    #[inline]
    fn and(a: v128, b: v128) -> v128 {
        v128_and(a, b)
    }

    #[inline]
    fn or(a: v128, b: v128) -> v128 {
        v128_or(a, b)
    }

    #[inline]
    fn xor(a: v128, b: v128) -> v128 {
        v128_xor(a, b)
    }

    #[inline]
    fn shift_right<const BITS: u32>(a: v128) -> v128 {
        u8x16_shr(a, BITS)
    }

    #[inline]
    fn shift_left<const BITS: u32>(a: v128) -> v128 {
        i8x16_shl(a, BITS)
    }

    #[inline]
    fn add(a: v128, b: v128) -> v128 {
        i32x4_add(a, b)
    }

    #[inline]
    fn multiply(a: v128, b: v128) -> v128 {
        i32x4_mul(a, b)
    }

    #[inline]
    fn dot(sums: v128, a: v128, b: v128) -> v128 {
        let low = i32x4_extadd_pairwise_i16x8(i16x8_extmul_low_i8x16(a, b));
        let high = i32x4_extadd_pairwise_i16x8(i16x8_extmul_high_i8x16(a, b));
        let first = i32x4_shuffle::<0, 2, 4, 6>(low, high);
        let second = i32x4_shuffle::<1, 3, 5, 7>(low, high);
        i32x4_add(sums, i32x4_add(first, second))
    }

    #[inline]
    fn to_floats(a: v128) -> v128 {
        f32x4_convert_i32x4(a)
    }

    #[inline]
    fn add_floats(a: v128, b: v128) -> v128 {
        f32x4_add(a, b)
    }

    #[inline]
    fn subtract_floats(a: v128, b: v128) -> v128 {
        f32x4_sub(a, b)
    }

    #[inline]
    fn multiply_floats(a: v128, b: v128) -> v128 {
        f32x4_mul(a, b)
    }

    #[inline]
    fn root(a: v128) -> v128 {
        f32x4_sqrt(a)
    }
}
