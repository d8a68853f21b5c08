//! The vectors of features in one contiguous block.

use crate::error::Error;
use crate::kernels::{Kernels, WeightType};
use crate::model::{Activation, Matrix, Sae};
use alloc::string::ToString;
use alloc::vec::Vec;

/// Vectors of the second side that are multiplied at a time: they stay in cache.
const BLOCK: usize = 64;

/// Vectors of equal width, `[count, width]`, in f32. One copy of a matrix: count * width * 4 bytes.
#[derive(Clone, Debug)]
pub struct Vectors {
    values: Vec<f32>,
    count: usize,
    width: usize,
    kernels: &'static Kernels,
}

/// How vectors are scaled before they are rounded to f32.
#[derive(Clone, Copy)]
enum Scaling<'s> {
    Unit,
    By(&'s dyn Fn(usize) -> f64),
}

impl Vectors {
    /// The decoder vectors with their scales, of length 1; those of length 0 stay 0.
    ///
    /// # Errors
    /// [`Error::BadValue`] for a weight that is not finite, before or after; [`Error::OutOfMemory`].
    pub fn unit_decoder(sae: &Sae<'_>) -> Result<Self, Error> {
        sae.one_vector_each("model of decoder vectors")?;
        let parts = sae.parts();
        let scale = parts.decoder_scale.as_deref();
        Self::of(sae, &parts.decoder, scale, Scaling::Unit)
    }

    /// The encoder vectors with their scales, of length 1; those of length 0 stay 0.
    ///
    /// # Errors
    /// As [`Vectors::unit_decoder`].
    pub fn unit_encoder(sae: &Sae<'_>) -> Result<Self, Error> {
        let parts = sae.parts();
        Self::of(sae, &parts.encoder, parts.scale.as_deref(), Scaling::Unit)
    }

    /// The decoder vectors with their scales.
    ///
    /// # Errors
    /// As [`Vectors::unit_decoder`].
    pub fn decoder(sae: &Sae<'_>) -> Result<Self, Error> {
        sae.one_vector_each("model of decoder vectors")?;
        let parts = sae.parts();
        let scale = parts.decoder_scale.as_deref();
        Self::of(sae, &parts.decoder, scale, Scaling::By(&|_| 1.0))
    }

    /// The encoder vectors with their scales.
    ///
    /// # Errors
    /// As [`Vectors::unit_decoder`].
    pub fn encoder(sae: &Sae<'_>) -> Result<Self, Error> {
        let parts = sae.parts();
        let scale = parts.scale.as_deref();
        Self::of(sae, &parts.encoder, scale, Scaling::By(&|_| 1.0))
    }

    /// The decoder vectors times the thresholds (1 where a rule has none).
    ///
    /// # Errors
    /// As [`Vectors::unit_decoder`]; [`Error::BadValue`] for a threshold that is not finite and
    /// above 0, which cannot be folded.
    pub fn folded_decoder(sae: &Sae<'_>) -> Result<Self, Error> {
        sae.one_vector_each("model of decoder vectors")?;
        let parts = sae.parts();
        let thresholds = thresholds(sae)?;
        let by = |feature: usize| thresholds.get(feature).copied().unwrap_or(1.0);
        let scale = parts.decoder_scale.as_deref();
        Self::of(sae, &parts.decoder, scale, Scaling::By(&by))
    }

    /// The encoder vectors divided by the thresholds (1 where a rule has none).
    ///
    /// # Errors
    /// As [`Vectors::folded_decoder`].
    pub fn folded_encoder(sae: &Sae<'_>) -> Result<Self, Error> {
        let parts = sae.parts();
        let thresholds = thresholds(sae)?;
        let by = |feature: usize| 1.0 / thresholds.get(feature).copied().unwrap_or(1.0);
        let scale = parts.scale.as_deref();
        Self::of(sae, &parts.encoder, scale, Scaling::By(&by))
    }

    fn of(
        sae: &Sae<'_>,
        matrix: &Matrix<'_>,
        scale: Option<&[f64]>,
        scaling: Scaling<'_>,
    ) -> Result<Self, Error> {
        let (count, width, ty) = (matrix.features(), matrix.width(), matrix.weight_type());
        let kernels = sae.kernels;
        let mut values = reserved(count.saturating_mul(width), "vectors of features")?;
        let mut bytes = alloc::vec![0; BLOCK * width * ty.size()];
        let mut wide = alloc::vec![0.0; width];
        for first in (0..count).step_by(BLOCK) {
            matrix.copy_rows(
                first,
                block(&mut bytes, (count - first).min(BLOCK) * width * ty.size()),
            );
            for (offset, row) in bytes
                .chunks_exact((width * ty.size()).max(1))
                .take(count - first)
                .enumerate()
            {
                let feature = first + offset;
                kernels.widen(ty, row, &mut wide);
                if let Some(at) = wide.iter().position(|value| !value.is_finite()) {
                    return Err(Error::BadValue {
                        tensor: matrix.tensor().to_string(),
                        index: (feature * width + at) as u64,
                        found: wide.get(at).copied().unwrap_or(f64::NAN),
                    });
                }
                let own = scale
                    .and_then(|scale| scale.get(feature))
                    .copied()
                    .unwrap_or(1.0);
                let factor = match scaling {
                    Scaling::By(by) => own * by(feature),
                    Scaling::Unit => {
                        let length = libm::sqrt(kernels.sum_squares_about(&wide, 0.0));
                        let sign = if own < 0.0 { -1.0 } else { 1.0 };
                        if length == 0.0 || own == 0.0 {
                            0.0
                        } else {
                            sign / length
                        }
                    }
                };
                for (at, value) in wide.iter().enumerate() {
                    let scaled = (value * factor) as f32;
                    if !scaled.is_finite() {
                        return Err(Error::BadValue {
                            tensor: matrix.tensor().to_string(),
                            index: (feature * width + at) as u64,
                            found: value * factor,
                        });
                    }
                    values.push(scaled);
                }
            }
        }
        Ok(Vectors {
            values,
            count,
            width,
            kernels,
        })
    }

    /// How many vectors there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Values per vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// One vector, empty if there is none of this number.
    pub fn row(&self, number: usize) -> &[f32] {
        if number >= self.count {
            return &[];
        }
        let start = number * self.width;
        self.values.get(start..start + self.width).unwrap_or(&[])
    }

    /// All of them, `[count, width]`.
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    /// The dot product of two vectors; 0 if one of them does not exist. Of unit vectors it is their
    /// cosine, within 2^-22.
    pub fn dot(&self, number: usize, other: &Vectors, of_other: usize) -> f64 {
        let (x, y) = (self.row(number), other.row(of_other));
        if x.len() != y.len() {
            return 0.0;
        }
        let mut out = [0.0];
        let bytes = bytemuck::cast_slice(y);
        self.kernels
            .dot_rows(WeightType::F32, bytes, 0, x, &mut out);
        out[0]
    }

    /// All dot products with the vectors of another side, block by block: the number here, the first
    /// number there, the products. `progress` is told how many blocks are done, of how many.
    pub(super) fn products(
        &self,
        other: &Vectors,
        progress: &mut dyn FnMut(usize, usize),
        each: &mut dyn FnMut(usize, usize, &[f64]),
    ) -> Result<(), Error> {
        if self.width != other.width {
            return Err(Error::Length {
                what: "values per vector of the two sides",
                expected: self.width as u64,
                found: other.width as u64,
            });
        }
        let mut out = [0.0; BLOCK];
        let blocks = other.count.div_ceil(BLOCK);
        for number in 0..blocks {
            let first = number * BLOCK;
            let held = (other.count - first).min(BLOCK);
            let start = first * self.width;
            let there = other.values.get(start..start + held * self.width);
            let bytes: &[u8] = bytemuck::cast_slice(there.unwrap_or(&[]));
            let out = out.get_mut(..held).unwrap_or(&mut []);
            for i in 0..self.count {
                let stride = self.width * 4;
                self.kernels
                    .dot_rows(WeightType::F32, bytes, stride, self.row(i), out);
                each(i, first, out);
            }
            progress(number + 1, blocks);
        }
        Ok(())
    }
}

fn block(bytes: &mut [u8], count: usize) -> &mut [u8] {
    let end = count.min(bytes.len());
    bytes.get_mut(..end).unwrap_or(&mut [])
}

/// The thresholds of a JumpReLU; none for the other rules.
fn thresholds(sae: &Sae<'_>) -> Result<Vec<f64>, Error> {
    let Activation::JumpRelu { threshold, .. } = &sae.parts().activation else {
        return Ok(Vec::new());
    };
    let all = (0..sae.d_sae()).map(|feature| {
        let value = threshold.of(feature);
        match value > 0.0 && value.is_finite() {
            true => Ok(f64::from(value)),
            false => Err(Error::BadValue {
                tensor: "threshold".into(),
                index: feature as u64,
                found: value.into(),
            }),
        }
    });
    all.collect()
}

/// An empty vector with room, or the library's error.
pub(super) fn reserved<T>(count: usize, what: &'static str) -> Result<Vec<T>, Error> {
    let mut values = Vec::new();
    values
        .try_reserve_exact(count)
        .map_err(|_| Error::OutOfMemory {
            what,
            bytes: (count as u64).saturating_mul(size_of::<T>() as u64),
        })?;
    Ok(values)
}
