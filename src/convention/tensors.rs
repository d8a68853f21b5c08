//! Taking the tensors of an archive: every one is either used, known to be without meaning, or
//! refused by name.

use crate::container::{Archive, Entry};
use crate::error::Error;
use crate::model::{FeatureAxis, Matrix};
use crate::tensor::Tensor;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

/// The tensors of one archive, with a record of which were taken.
#[derive(Debug)]
pub(crate) struct Tensors<'t, 'a> {
    archive: &'t Archive<'a>,
    /// Convention and architecture, for messages.
    who: String,
    /// In front of every name that is asked for; what lies elsewhere is not looked at.
    prefix: String,
    taken: RefCell<Vec<String>>,
    bytes_read: Cell<u64>,
}

impl<'t, 'a> Tensors<'t, 'a> {
    pub(crate) fn new(archive: &'t Archive<'a>, who: &str) -> Self {
        Self::below(archive, who, "")
    }

    /// Those whose names begin with `prefix`, under the rest of their names.
    #[inline(never)]
    pub(crate) fn below(archive: &'t Archive<'a>, who: &str, prefix: &str) -> Self {
        Tensors {
            archive,
            who: who.into(),
            prefix: prefix.into(),
            taken: RefCell::default(),
            bytes_read: Cell::new(0),
        }
    }

    /// Whether there is a tensor of that name.
    #[inline(never)]
    pub(crate) fn has(&self, name: &str) -> bool {
        self.archive.entry(&self.name(name)).is_some()
    }

    /// The name in the file.
    fn name(&self, name: &str) -> String {
        alloc::format!("{}{name}", self.prefix)
    }

    /// The first of several names under which a tensor may be stored; the first of all if none
    /// is there.
    #[inline(never)]
    pub(crate) fn either<'n>(&self, names: &[&'n str]) -> &'n str {
        let found = names.iter().find(|name| self.has(name));
        found.or(names.first()).copied().unwrap_or("")
    }

    /// The shape of a tensor that must be there.
    #[inline(never)]
    pub(crate) fn shape(&self, name: &str) -> Result<&'t [usize], Error> {
        Ok(self.need(name)?.shape())
    }

    /// Checks the shape of a tensor that must be there, without reading it.
    #[inline(never)]
    pub(crate) fn check_shape(&self, name: &str, expected: &[usize]) -> Result<(), Error> {
        let tensor = self.need(name)?;
        if tensor.shape() == expected {
            return Ok(());
        }
        Err(Error::Shape {
            tensor: self.name(name),
            expected: expected.to_vec(),
            found: tensor.shape().to_vec(),
        })
    }

    /// A tensor, if it is there: dtype and shape, its data not yet decoded.
    fn find(&self, name: &str) -> Option<&'t Entry<'a>> {
        let name = self.name(name);
        let entry = self.archive.entry(&name)?;
        self.taken.borrow_mut().push(name);
        Some(entry)
    }

    /// A tensor that must be there.
    fn need(&self, name: &str) -> Result<&'t Entry<'a>, Error> {
        self.find(name).ok_or_else(|| self.missing(name))
    }

    /// An error for a tensor that must be there and is not.
    #[inline(never)]
    pub(crate) fn missing(&self, name: &str) -> Error {
        Error::MissingTensor {
            tensor: self.name(name),
            convention: self.who.clone(),
        }
    }

    /// The shape of a tensor that must be two-dimensional, without an empty dimension: the other
    /// could be of any size then.
    #[inline(never)]
    pub(crate) fn shape_2d(&self, name: &str) -> Result<[usize; 2], Error> {
        match self.shape(name)? {
            &[first, second] if first > 0 && second > 0 => Ok([first, second]),
            found => Err(self.dimensions(name, 2, found)),
        }
    }

    /// The same for three dimensions.
    #[inline(never)]
    pub(crate) fn shape_3d(&self, name: &str) -> Result<[usize; 3], Error> {
        match self.shape(name)? {
            &[first, second, third] if first > 0 && second > 0 && third > 0 => {
                Ok([first, second, third])
            }
            found => Err(self.dimensions(name, 3, found)),
        }
    }

    /// A matrix that must be there.
    #[inline(never)]
    pub(crate) fn matrix(
        &self,
        name: &str,
        axis: FeatureAxis,
        features: usize,
        width: usize,
    ) -> Result<Matrix<'a>, Error> {
        Matrix::new(&self.weights(name)?, axis, features, width)
    }

    /// A matrix whose features are the first of any number of dimensions, the others side by
    /// side in its rows: `[features, a, b]` as `[features, a * b]`.
    #[inline(never)]
    pub(crate) fn flat_rows(&self, name: &str) -> Result<Matrix<'a>, Error> {
        let tensor = self.weights(name)?;
        let &[features, ref rest @ ..] = tensor.shape() else {
            return Err(self.dimensions(name, 2, tensor.shape()));
        };
        let width = product(rest);
        Matrix::new(
            &reshaped(&tensor, features, width)?,
            FeatureAxis::First,
            features,
            width,
        )
    }

    /// A matrix whose features are the last of any number of dimensions: `[a, b, features]` as
    /// `[a * b, features]`.
    #[inline(never)]
    pub(crate) fn flat_columns(&self, name: &str) -> Result<Matrix<'a>, Error> {
        let tensor = self.weights(name)?;
        let &[ref rest @ .., features] = tensor.shape() else {
            return Err(self.dimensions(name, 2, tensor.shape()));
        };
        let width = product(rest);
        Matrix::new(
            &reshaped(&tensor, width, features)?,
            FeatureAxis::Second,
            features,
            width,
        )
    }

    /// The tensor of a matrix, decoded if it has to be.
    #[inline(never)]
    pub(crate) fn weights(&self, name: &str) -> Result<Tensor<'a>, Error> {
        let entry = self.need(name)?;
        self.bytes_read
            .set(self.bytes_read.get() + entry.load_bytes());
        entry.load()
    }

    /// An error for a tensor that has not as many dimensions as it should.
    #[inline(never)]
    pub(crate) fn dimensions(&self, name: &str, wanted: usize, found: &[usize]) -> Error {
        Error::Shape {
            tensor: self.name(name),
            expected: alloc::vec![1; wanted],
            found: found.to_vec(),
        }
    }

    /// The names of all tensors, without the prefix.
    #[inline(never)]
    pub(crate) fn names(&self) -> impl Iterator<Item = &'t str> {
        let names = self.archive.entries.iter().map(|entry| entry.name());
        names.filter_map(|name| name.strip_prefix(self.prefix.as_str()))
    }

    /// Marks a tensor as known, whatever it holds.
    #[inline(never)]
    pub(crate) fn skip(&self, name: &str) {
        self.taken.borrow_mut().push(self.name(name));
    }

    /// The values of an integer tensor, in row-major order.
    #[inline(never)]
    pub(crate) fn integers(&self, name: &str) -> Result<Vec<i64>, Error> {
        self.load(self.need(name)?)?.to_i64()
    }

    /// The values of a tensor of any shape, in row-major order.
    #[inline(never)]
    pub(crate) fn flat_values(&self, name: &str) -> Result<Vec<f64>, Error> {
        self.load(self.need(name)?)?.to_f64()
    }

    /// A vector of finite values that must be there.
    #[inline(never)]
    pub(crate) fn vector(&self, name: &str, length: usize) -> Result<Vec<f64>, Error> {
        let values = self.values(name, length)?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(index) => Err(Error::BadValue {
                tensor: self.name(name),
                index: index as u64,
                found: values.get(index).copied().unwrap_or(f64::NAN),
            }),
        }
    }

    /// A vector of thresholds that must be there, rounded to f32. +inf (a feature switched off)
    /// is allowed; the model rejects NaN and -inf.
    #[inline(never)]
    pub(crate) fn thresholds(&self, name: &str, length: usize) -> Result<Vec<f32>, Error> {
        Ok(self
            .values(name, length)?
            .into_iter()
            .map(|value| value as f32)
            .collect())
    }

    fn values(&self, name: &str, length: usize) -> Result<Vec<f64>, Error> {
        self.check_shape(name, &[length])?;
        self.load(self.need(name)?)?.to_f64()
    }

    /// The single value of a tensor of one element, if the tensor is there.
    #[inline(never)]
    pub(crate) fn scalar(&self, name: &str) -> Result<Option<f64>, Error> {
        let Some(entry) = self.find(name) else {
            return Ok(None);
        };
        let tensor = self.load(entry)?;
        match (tensor.len(), tensor.dtype().is_float()) {
            (1, true) => Ok(tensor.to_f64()?.first().copied()),
            (1, false) => Ok(tensor.to_i64()?.first().map(|&value| value as f64)),
            _ => Err(Error::Shape {
                tensor: name.into(),
                expected: Vec::new(),
                found: tensor.shape().to_vec(),
            }),
        }
    }

    /// The same where it counts something: a whole number that is not negative.
    #[inline(never)]
    pub(crate) fn count(&self, name: &str) -> Result<Option<usize>, Error> {
        // Whole numbers up to there are exact in f64.
        const MOST: f64 = 9e15;
        let Some(found) = self.scalar(name)? else {
            return Ok(None);
        };
        match (0.0..=MOST).contains(&found) && found == libm::trunc(found) {
            true => Ok(Some(found as usize)),
            false => Err(Error::BadValue {
                tensor: self.name(name),
                index: 0,
                found,
            }),
        }
    }

    /// Adds bytes that a pass over a matrix has read.
    #[inline(never)]
    pub(crate) fn count_read(&self, bytes: usize) {
        self.bytes_read.set(self.bytes_read.get() + bytes as u64);
    }

    /// Bytes of all vectors read so far.
    #[inline(never)]
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read.get()
    }

    /// The data of a vector.
    fn load(&self, entry: &Entry<'a>) -> Result<Tensor<'a>, Error> {
        let tensor = entry.clone().load()?;
        let bytes = tensor.len() * tensor.dtype().size();
        self.bytes_read.set(self.bytes_read.get() + bytes as u64);
        Ok(tensor)
    }

    /// The tensors that nobody took: integers and bools are listed, a floating-point one is an
    /// error.
    #[inline(never)]
    pub(crate) fn ignored(&self) -> Result<Vec<String>, Error> {
        let taken = self.taken.borrow();
        let mut ignored = Vec::new();
        for tensor in &self.archive.entries {
            let elsewhere = !tensor.name().starts_with(&self.prefix);
            if elsewhere || taken.iter().any(|name| name == tensor.name()) {
                continue;
            }
            if tensor.dtype().is_float() {
                return Err(Error::UnknownTensor {
                    tensor: tensor.name().into(),
                    dtype: tensor.dtype(),
                    shape: tensor.shape().to_vec(),
                    convention: self.who.clone(),
                });
            }
            ignored.push(tensor.name().to_string());
        }
        Ok(ignored)
    }
}

/// The product of dimensions, which are those of a tensor that exists.
fn product(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// A row-major tensor as a matrix of that many rows and columns, in place.
fn reshaped<'a>(tensor: &Tensor<'a>, rows: usize, columns: usize) -> Result<Tensor<'a>, Error> {
    if !tensor.is_row_major() {
        return Err(Error::UnsupportedContainer {
            container: "tensor",
            what: alloc::format!("`{}` is not stored in row-major order", tensor.name()),
        });
    }
    let strides = [columns, 1];
    let bytes = tensor.bytes().clone();
    Tensor::with_strides(
        tensor.name(),
        tensor.dtype(),
        &[rows, columns],
        &strides,
        bytes,
    )
}
