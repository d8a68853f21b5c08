//! The number formats of ggml, as GGUF files name them, and what their quantised blocks mean.
//!
//! A block holds 32 or 256 values: small integers, one or two f16 scales, and in the formats
//! called `K` six-bit scales of sub-blocks. Values are computed in f32 with each operation
//! rounded, in the order of the formula beside each format, so they are the same everywhere.
//! `d` and `m` are the block's f16 scale and minimum, `q` the stored integer.

use crate::dtype::Dtype;
use alloc::vec::Vec;

/// A ggml type that is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum GgmlType {
    Plain(Dtype),
    Quantised(Quantisation),
}

/// A format whose values are decoded to f32.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(non_camel_case_types)] // the names that everybody uses
pub(super) enum Quantisation {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
}

use Quantisation::*;

impl GgmlType {
    /// The type of that number in a file.
    pub(super) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => GgmlType::Plain(Dtype::F32),
            1 => GgmlType::Plain(Dtype::F16),
            2 => GgmlType::Quantised(Q4_0),
            3 => GgmlType::Quantised(Q4_1),
            6 => GgmlType::Quantised(Q5_0),
            7 => GgmlType::Quantised(Q5_1),
            8 => GgmlType::Quantised(Q8_0),
            10 => GgmlType::Quantised(Q2_K),
            11 => GgmlType::Quantised(Q3_K),
            12 => GgmlType::Quantised(Q4_K),
            13 => GgmlType::Quantised(Q5_K),
            14 => GgmlType::Quantised(Q6_K),
            20 => GgmlType::Quantised(IQ4_NL),
            24 => GgmlType::Plain(Dtype::I8),
            25 => GgmlType::Plain(Dtype::I16),
            26 => GgmlType::Plain(Dtype::I32),
            27 => GgmlType::Plain(Dtype::I64),
            28 => GgmlType::Plain(Dtype::F64),
            30 => GgmlType::Plain(Dtype::BF16),
            _ => return None,
        })
    }

    /// The number of a plain type; `None` for unsigned integers and bool, which ggml lacks.
    #[cfg(feature = "std")]
    pub(super) fn number(dtype: Dtype) -> Option<u32> {
        let numbers = [0, 1, 24, 25, 26, 27, 28, 30];
        let is_it = |&number: &u32| Self::from_number(number) == Some(GgmlType::Plain(dtype));
        numbers.into_iter().find(is_it)
    }

    /// The name of any ggml type, for messages.
    pub(super) fn name(number: u32) -> &'static str {
        match number {
            9 => "Q8_1",
            15 => "Q8_K",
            16 => "IQ2_XXS",
            17 => "IQ2_XS",
            18 => "IQ3_XXS",
            19 => "IQ1_S",
            21 => "IQ3_S",
            22 => "IQ2_S",
            23 => "IQ4_XS",
            29 => "IQ1_M",
            34 => "TQ1_0",
            35 => "TQ2_0",
            39 => "MXFP4",
            number => match Self::from_number(number) {
                Some(GgmlType::Plain(dtype)) => dtype.name(),
                Some(GgmlType::Quantised(quantisation)) => quantisation.name(),
                None => "an unknown ggml type",
            },
        }
    }

    /// Values and bytes of one block.
    pub(super) fn block(self) -> (usize, usize) {
        match self {
            GgmlType::Plain(dtype) => (1, dtype.size()),
            GgmlType::Quantised(quantisation) => quantisation.block(),
        }
    }
}

impl Quantisation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Q4_0 => "Q4_0",
            Q4_1 => "Q4_1",
            Q5_0 => "Q5_0",
            Q5_1 => "Q5_1",
            Q8_0 => "Q8_0",
            Q2_K => "Q2_K",
            Q3_K => "Q3_K",
            Q4_K => "Q4_K",
            Q5_K => "Q5_K",
            Q6_K => "Q6_K",
            IQ4_NL => "IQ4_NL",
        }
    }

    fn block(self) -> (usize, usize) {
        match self {
            Q4_0 | IQ4_NL => (32, 18),
            Q4_1 => (32, 20),
            Q5_0 => (32, 22),
            Q5_1 => (32, 24),
            Q8_0 => (32, 34),
            Q2_K => (256, 84),
            Q3_K => (256, 110),
            Q4_K => (256, 144),
            Q5_K => (256, 176),
            Q6_K => (256, 210),
        }
    }

    /// Appends the values of whole blocks to `out`, as little-endian f32.
    pub(super) fn decode(self, blocks: &[u8], out: &mut Vec<u8>) {
        let (values, size) = self.block();
        let mut decoded = [0.0f32; 256];
        for block in blocks.chunks_exact(size) {
            let decoded = decoded.get_mut(..values).unwrap_or_default();
            self.decode_block(Block(block), decoded);
            for value in decoded {
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
    }

    fn decode_block(self, block: Block<'_>, out: &mut [f32]) {
        for (i, value) in out.iter_mut().enumerate() {
            *value = match self {
                // d, 16 bytes of two: low halves first. (q - 8) d
                Q4_0 => (block.nibble(2, i) - 8.0) * block.half(0),
                // d, m, as above. q d + m
                Q4_1 => block.nibble(4, i) * block.half(0) + block.half(2),
                // d, 32 fifth bits, as above. (q - 16) d
                Q5_0 => (block.nibble(6, i) + 16.0 * block.bit(2, i) - 16.0) * block.half(0),
                // d, m, 32 fifth bits, as above. q d + m
                Q5_1 => {
                    (block.nibble(8, i) + 16.0 * block.bit(4, i)) * block.half(0) + block.half(2)
                }
                // d, 32 signed bytes. q d
                Q8_0 => block.signed(2 + i) * block.half(0),
                // d, 16 bytes of two indices into a table. table[q] d
                IQ4_NL => IQ4_VALUES
                    .get(block.nibble(2, i) as usize)
                    .map_or(0.0, |&value| f32::from(value) * block.half(0)),
                Q2_K => block.q2_k(i),
                Q3_K => block.q3_k(i),
                Q4_K => {
                    let q = block.wide_nibble(16, i);
                    block.scaled_minus_minimum(i, q)
                }
                Q5_K => {
                    let fifth = block.byte(16 + i % 32) >> (i / 32) & 1;
                    let q = block.wide_nibble(48, i) + 16.0 * f32::from(fifth);
                    block.scaled_minus_minimum(i, q)
                }
                Q6_K => block.q6_k(i),
            };
        }
    }
}

/// The values of IQ4_NL, about evenly spread over a normal distribution.
const IQ4_VALUES: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// The bytes of one block.
#[derive(Clone, Copy)]
struct Block<'b>(&'b [u8]);

impl Block<'_> {
    /// A byte of the block; callers stay inside, and 0 stands for what would lie outside.
    fn byte(self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    fn signed(self, at: usize) -> f32 {
        f32::from(self.byte(at) as i8)
    }

    fn half(self, at: usize) -> f32 {
        half::f16::from_le_bytes([self.byte(at), self.byte(at + 1)]).to_f32()
    }

    /// Value `i` of 32 half bytes: 16 bytes whose low halves come first.
    fn nibble(self, start: usize, i: usize) -> f32 {
        let byte = self.byte(start + i % 16);
        f32::from(if i < 16 { byte & 15 } else { byte >> 4 })
    }

    /// Bit `i` of a row of bits.
    fn bit(self, start: usize, i: usize) -> f32 {
        f32::from(self.byte(start + i / 8) >> (i % 8) & 1)
    }

    /// Value `i` of 256 half bytes: in each 32 bytes the low halves come first.
    fn wide_nibble(self, start: usize, i: usize) -> f32 {
        let byte = self.byte(start + i / 64 * 32 + i % 32);
        f32::from(if i % 64 < 32 { byte & 15 } else { byte >> 4 })
    }

    /// 16 scales and minima of 4 bits, 64 bytes of four 2-bit values, d, m:
    /// (d scale) q - m minimum.
    fn q2_k(self, i: usize) -> f32 {
        let scales = self.byte(i / 16);
        let q = self.byte(16 + i / 128 * 32 + i % 32) >> (2 * (i % 128 / 32)) & 3;
        let scale = self.half(80) * f32::from(scales & 15);
        let minimum = self.half(82) * f32::from(scales >> 4);
        scale * f32::from(q) - minimum
    }

    /// 256 third bits, 64 bytes of four 2-bit values, 16 signed 6-bit scales in 12 bytes, d:
    /// (d scale) (q - 4 unless the third bit is set).
    fn q3_k(self, i: usize) -> f32 {
        let group = i / 16;
        let low = self.byte(96 + group % 8);
        let low = if group < 8 { low & 15 } else { low >> 4 };
        let high = self.byte(104 + group % 4) >> (2 * (group / 4)) & 3;
        let scale = f32::from(low | high << 4) - 32.0;
        let q = self.byte(32 + i / 128 * 32 + i % 32) >> (2 * (i % 128 / 32)) & 3;
        let third = self.byte(i % 32) >> (i / 32) & 1;
        let q = f32::from(q) - if third == 0 { 4.0 } else { 0.0 };
        self.half(108) * scale * q
    }

    /// Q4_K and Q5_K start with d, m and eight 6-bit scales and minima in 12 bytes:
    /// (d scale) q - m minimum.
    fn scaled_minus_minimum(self, i: usize, q: f32) -> f32 {
        let group = i / 32;
        let (scale, minimum) = if group < 4 {
            (self.byte(4 + group) & 63, self.byte(8 + group) & 63)
        } else {
            let low = self.byte(8 + group);
            (
                low & 15 | self.byte(group) >> 6 << 4,
                low >> 4 | self.byte(4 + group) >> 6 << 4,
            )
        };
        let scale = self.half(0) * f32::from(scale);
        let minimum = self.half(2) * f32::from(minimum);
        scale * q - minimum
    }

    /// 128 bytes of low half bytes, 64 bytes of 2 high bits, 16 signed scales, d:
    /// (d scale) (q - 32).
    fn q6_k(self, i: usize) -> f32 {
        let (part, rest) = (i / 128, i % 128);
        let low = self.byte(part * 64 + rest % 64);
        let low = if rest < 64 { low & 15 } else { low >> 4 };
        let high = self.byte(128 + part * 32 + rest % 32) >> (2 * (rest / 32)) & 3;
        let q = f32::from(low | high << 4) - 32.0;
        self.half(208) * self.signed(192 + i / 16) * q
    }
}
