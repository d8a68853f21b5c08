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
    taken: RefCell<Vec<String>>,
    bytes_read: Cell<u64>,
}

impl<'t, 'a> Tensors<'t, 'a> {
    pub(crate) fn new(archive: &'t Archive<'a>, who: &str) -> Self {
        Tensors {
            archive,
            who: who.into(),
            taken: RefCell::default(),
            bytes_read: Cell::new(0),
        }
    }

    /// Whether there is a tensor of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.archive.entry(name).is_some()
    }

    /// Checks the shape of a tensor that must be there, without reading it.
    pub(crate) fn check_shape(&self, name: &str, expected: &[usize]) -> Result<(), Error> {
        let tensor = self.need(name)?;
        if tensor.shape() == expected {
            return Ok(());
        }
        Err(Error::Shape {
            tensor: name.into(),
            expected: expected.to_vec(),
            found: tensor.shape().to_vec(),
        })
    }

    /// A tensor, if it is there: dtype and shape, its data not yet decoded.
    fn find(&self, name: &str) -> Option<&'t Entry<'a>> {
        let entry = self.archive.entry(name)?;
        self.taken.borrow_mut().push(name.into());
        Some(entry)
    }

    /// A tensor that must be there.
    fn need(&self, name: &str) -> Result<&'t Entry<'a>, Error> {
        self.find(name).ok_or_else(|| Error::MissingTensor {
            tensor: name.into(),
            convention: self.who.clone(),
        })
    }

    /// The shape of a tensor that must be two-dimensional.
    pub(crate) fn shape_2d(&self, name: &str) -> Result<[usize; 2], Error> {
        let tensor = self.need(name)?;
        match tensor.shape() {
            &[first, second] => Ok([first, second]),
            found => Err(Error::Shape {
                tensor: name.into(),
                expected: alloc::vec![0, 0],
                found: found.to_vec(),
            }),
        }
    }

    /// A matrix that must be there.
    pub(crate) fn matrix(
        &self,
        name: &str,
        axis: FeatureAxis,
        features: usize,
        width: usize,
    ) -> Result<Matrix<'a>, Error> {
        let entry = self.need(name)?;
        self.bytes_read
            .set(self.bytes_read.get() + entry.load_bytes());
        Matrix::new(&entry.clone().load()?, axis, features, width)
    }

    /// A vector of finite values that must be there.
    pub(crate) fn vector(&self, name: &str, length: usize) -> Result<Vec<f64>, Error> {
        let values = self.values(name, length)?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(index) => Err(Error::BadValue {
                tensor: name.into(),
                index: index as u64,
                found: values.get(index).copied().unwrap_or(f64::NAN),
            }),
        }
    }

    /// A vector of thresholds that must be there, rounded to f32. +inf (a feature switched off)
    /// is allowed; the model rejects NaN and -inf.
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

    /// Bytes of all vectors read so far.
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
    pub(crate) fn ignored(&self) -> Result<Vec<String>, Error> {
        let taken = self.taken.borrow();
        let mut ignored = Vec::new();
        for tensor in &self.archive.entries {
            if taken.iter().any(|name| name == tensor.name()) {
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
