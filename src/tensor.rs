//! A named tensor inside a container: type, shape, strides and bytes, checked once.

use crate::bytes::Bytes;
use crate::dtype::Dtype;
use crate::error::Error;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// A named tensor whose bytes lie in a container. Creating one checks that every element that
/// shape and strides can reach is inside the bytes, so later reads need no further checks.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    strides: Vec<usize>,
    bytes: Bytes<'a>,
}

impl<'a> Tensor<'a> {
    /// A row-major tensor. `bytes` must hold exactly its elements.
    ///
    /// # Errors
    /// [`Error::TensorSize`] if the product of the shape overflows or does not match the bytes.
    pub fn new(
        name: impl Into<String>,
        dtype: Dtype,
        shape: &[usize],
        bytes: Bytes<'a>,
    ) -> Result<Self, Error> {
        let name = name.into();
        let expected = shape
            .iter()
            .try_fold(dtype.size(), |size, &n| size.checked_mul(n))
            .filter(|&size| size == bytes.len());
        if expected.is_none() {
            return Err(Error::TensorSize {
                tensor: name,
                dtype,
                shape: shape.to_vec(),
                found: bytes.len() as u64,
            });
        }
        let mut strides = vec![1usize; shape.len()];
        for i in (0..shape.len().saturating_sub(1)).rev() {
            strides[i] = strides[i + 1].saturating_mul(shape[i + 1].max(1));
        }
        Ok(Tensor {
            name,
            dtype,
            shape: shape.to_vec(),
            strides,
            bytes,
        })
    }

    /// A tensor with strides, in elements: element (i, j, ..) lies i times the first stride plus j
    /// times the second and so on into `bytes`, which may hold more.
    ///
    /// # Errors
    /// [`Error::TensorSize`] if shape and strides reach outside the bytes or disagree in length.
    pub fn with_strides(
        name: impl Into<String>,
        dtype: Dtype,
        shape: &[usize],
        strides: &[usize],
        bytes: Bytes<'a>,
    ) -> Result<Self, Error> {
        let name = name.into();
        let reach = if shape.contains(&0) {
            Some(0)
        } else {
            shape
                .iter()
                .zip(strides)
                .try_fold(1usize, |sum, (&n, &stride)| {
                    (n - 1)
                        .checked_mul(stride)
                        .and_then(|last| sum.checked_add(last))
                })
        };
        let elements = shape.iter().try_fold(1usize, |all, &n| all.checked_mul(n));
        let fits = elements
            .and(reach)
            .and_then(|elements| elements.checked_mul(dtype.size()))
            .is_some_and(|size| size <= bytes.len());
        if !fits || shape.len() != strides.len() {
            return Err(Error::TensorSize {
                tensor: name,
                dtype,
                shape: shape.to_vec(),
                found: bytes.len() as u64,
            });
        }
        Ok(Tensor {
            name,
            dtype,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            bytes,
        })
    }

    /// The name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number format.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The shape, outermost first; empty for a 0-dimensional tensor.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Steps between neighbours of each dimension, in elements.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// The bytes that hold the elements (with strides, possibly others too).
    pub fn bytes(&self) -> &Bytes<'a> {
        &self.bytes
    }

    /// The same tensor under another name.
    pub fn renamed(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The part of the tensor with this index along its first dimension, in place.
    pub fn at(&self, index: usize) -> Option<Self> {
        let (&count, shape) = self.shape.split_first()?;
        let (&step, strides) = self.strides.split_first()?;
        let start = index.checked_mul(step)?.checked_mul(self.dtype.size())?;
        if index >= count {
            return None;
        }
        let bytes = self.bytes.slice(start..self.bytes.len())?;
        Tensor::with_strides(self.name.clone(), self.dtype, shape, strides, bytes).ok()
    }

    /// Whether the elements lie row-major without gaps.
    pub fn is_row_major(&self) -> bool {
        let mut step = 1;
        self.shape
            .iter()
            .zip(&self.strides)
            .rev()
            .all(|(&n, &stride)| {
                let ok = n == 1 || stride == step;
                step = step.saturating_mul(n.max(1));
                ok
            })
    }

    /// The values in row-major order, widened to f64 (exact for every floating-point format).
    ///
    /// # Errors
    /// [`Error::UnsupportedDtype`] if the tensor is not a floating-point one.
    pub fn to_f64(&self) -> Result<Vec<f64>, Error> {
        if !self.dtype.is_float() {
            return Err(Error::UnsupportedDtype {
                tensor: self.name.clone(),
                found: self.dtype.name().into(),
            });
        }
        let mut values = Vec::with_capacity(self.len());
        self.for_each_offset(|at| values.push(self.float_at(at)));
        Ok(values)
    }

    /// The values in row-major order as i64.
    ///
    /// # Errors
    /// [`Error::UnsupportedDtype`] if the tensor is not an integer or bool one, or a value does
    /// not fit.
    pub fn to_i64(&self) -> Result<Vec<i64>, Error> {
        let unsupported = || Error::UnsupportedDtype {
            tensor: self.name.clone(),
            found: self.dtype.name().into(),
        };
        if self.dtype.is_float() {
            return Err(unsupported());
        }
        let mut values = Vec::with_capacity(self.len());
        let mut fits = true;
        self.for_each_offset(|at| {
            let value = self.integer_at(at);
            fits &= value.is_some();
            values.push(value.unwrap_or(0));
        });
        if fits { Ok(values) } else { Err(unsupported()) }
    }

    /// One element of a two-dimensional tensor of a floating-point format, widened; 0 outside.
    pub(crate) fn element(&self, first: usize, second: usize) -> f64 {
        match self.strides.as_slice() {
            &[by_first, by_second] => {
                self.float_at((first * by_first + second * by_second) * self.dtype.size())
            }
            _ => 0.0,
        }
    }

    fn for_each_offset(&self, mut visit: impl FnMut(usize)) {
        if self.is_empty() {
            return;
        }
        let mut index = vec![0usize; self.shape.len()];
        loop {
            let at: usize = index.iter().zip(&self.strides).map(|(i, s)| i * s).sum();
            visit(at * self.dtype.size());
            let mut dimension = self.shape.len();
            loop {
                if dimension == 0 {
                    return;
                }
                dimension -= 1;
                index[dimension] += 1;
                if index[dimension] < self.shape[dimension] {
                    break;
                }
                index[dimension] = 0;
            }
        }
    }

    fn array_at<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes
            .as_slice()
            .get(at..at + N)
            .and_then(|bytes| bytes.try_into().ok())
            .unwrap_or([0; N])
    }

    fn float_at(&self, at: usize) -> f64 {
        match self.dtype {
            Dtype::F32 => f64::from(f32::from_le_bytes(self.array_at(at))),
            Dtype::F16 => half::f16::from_le_bytes(self.array_at(at)).to_f64(),
            Dtype::BF16 => half::bf16::from_le_bytes(self.array_at(at)).to_f64(),
            _ => f64::from_le_bytes(self.array_at(at)),
        }
    }

    fn integer_at(&self, at: usize) -> Option<i64> {
        Some(match self.dtype {
            Dtype::I8 => i8::from_le_bytes(self.array_at(at)).into(),
            Dtype::I16 => i16::from_le_bytes(self.array_at(at)).into(),
            Dtype::I32 => i32::from_le_bytes(self.array_at(at)).into(),
            Dtype::U8 | Dtype::Bool => u8::from_le_bytes(self.array_at(at)).into(),
            Dtype::U16 => u16::from_le_bytes(self.array_at(at)).into(),
            Dtype::U32 => u32::from_le_bytes(self.array_at(at)).into(),
            Dtype::U64 => i64::try_from(u64::from_le_bytes(self.array_at(at))).ok()?,
            _ => i64::from_le_bytes(self.array_at(at)),
        })
    }
}
