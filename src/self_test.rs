//! The self-test of a pack, and its checksums.

use crate::error::Error;
use crate::features::Features;
use crate::model::{Checksum, Sae};
use crate::rows::Rows;
use crate::scratch::Scratch;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Parts of the names of tensors that opening does not read: matrices, and the screen's codes.
const MATRICES: [&str; 7] = [
    "w_enc", "w_glu", "w_dec", "w_skip", "basis", "panels", "codes",
];

impl Sae<'_> {
    /// Runs the self-test of a pack: encodes and decodes the rows that the pack holds and compares
    /// every index and every bit of every value with what they gave when the pack was written.
    /// Returns the number of rows.
    ///
    /// It costs as many encodes and decodes as there are rows, and reads the weights that those
    /// read: damage elsewhere is found by checksums
    /// ([`Check::Full`](crate::container::Check::Full)).
    ///
    /// # Errors
    /// [`Error::SelfTest`] with the first row that differs; [`Error::MissingKey`] if the model has
    /// no self-test: it does not come from a pack, or was derived from another model;
    /// [`Error::Shape`] if the self-test does not fit the model, [`Error::OutOfMemory`].
    pub fn self_test(&self) -> Result<usize, Error> {
        let Some(test) = &self.packed.self_test else {
            return Err(Error::MissingKey {
                key: "self_test".into(),
                hint: "only a pack has one, as `sae pack` writes it".into(),
            });
        };
        let n = match test.rows.shape() {
            &[n, _] => n,
            _ => 0,
        };
        let total = test.indices.len();
        for (tensor, expected) in [
            (&test.rows, alloc::vec![n, self.d_in()]),
            (&test.ends, alloc::vec![n]),
            (&test.indices, alloc::vec![total]),
            (&test.values, alloc::vec![total]),
            (&test.reconstructions, alloc::vec![n, self.d_out()]),
        ] {
            if tensor.shape() != expected {
                return Err(Error::Shape {
                    tensor: tensor.name().into(),
                    expected,
                    found: tensor.shape().to_vec(),
                });
            }
        }
        let single = |tensor: &crate::tensor::Tensor<'_>| -> Result<Vec<f32>, Error> {
            let values = tensor.to_f64()?.into_iter();
            Ok(values.map(|value| value as f32).collect())
        };
        let rows = single(&test.rows)?;
        let (values, outputs) = (single(&test.values)?, single(&test.reconstructions)?);
        let (ends, indices) = (test.ends.to_i64()?, test.indices.to_i64()?);
        if rows.is_empty() {
            return Ok(0);
        }

        let rows = Rows::from_f32(&rows, self.d_in())?;
        let (features, reconstructions) = self.encode_and_decode(rows)?;
        let mut start = 0;
        for (row, found) in features.iter().enumerate() {
            let end = ends.get(row).and_then(|&end| usize::try_from(end).ok());
            let range = start..end.unwrap_or(usize::MAX);
            start = range.end;
            let expected = indices.get(range.clone()).zip(values.get(range));
            let Some((indices, values)) = expected else {
                return Err(differs(row, &"ends within the features", &"others"));
            };
            if indices.len() != found.indices.len() {
                let (expected, found) = (indices.len(), found.indices.len());
                let count = |n: usize| alloc::format!("{n} features");
                return Err(differs(row, &count(expected), &count(found)));
            }
            let expected = indices.iter().zip(values);
            for ((&index, &value), (&i, &v)) in expected.zip(found.indices.iter().zip(found.values))
            {
                if index != i64::from(i) || value.to_bits() != v.to_bits() {
                    let feature = |index: &dyn ToString, value: f32| {
                        alloc::format!("feature {} with {value:e}", index.to_string())
                    };
                    return Err(differs(row, &feature(&index, value), &feature(&i, v)));
                }
            }
        }
        let pairs = outputs.iter().zip(&reconstructions);
        let wrong = |(expected, found): (&f32, &f32)| expected.to_bits() != found.to_bits();
        if let Some(at) = pairs.clone().position(wrong) {
            let (row, column) = (at / self.d_out(), at % self.d_out());
            let value = |values: &[f32]| -> String {
                let value = values.get(at).copied().unwrap_or(f32::NAN);
                alloc::format!("output {column} to be {value:e}")
            };
            return Err(differs(row, &value(&outputs), &value(&reconstructions)));
        }
        Ok(n)
    }

    /// Features and reconstructions of rows, with memory of their own.
    pub(crate) fn encode_and_decode(&self, rows: Rows<'_>) -> Result<(Features, Vec<f32>), Error> {
        let mut scratch = Scratch::new(self)?;
        let mut features = Features::new();
        self.encode(rows, &mut scratch, &mut features)?;
        let length = rows.rows().saturating_mul(self.d_out());
        let mut outputs = Vec::new();
        outputs
            .try_reserve_exact(length)
            .map_err(|_| Error::OutOfMemory {
                what: "reconstructions",
                bytes: (length as u64).saturating_mul(4),
            })?;
        outputs.resize(length, 0.0);
        let inputs = self.needs_inputs_to_decode().then_some(rows);
        self.decode(&features, inputs, &mut scratch, &mut outputs)?;
        Ok((features, outputs))
    }

    /// Compares the tensors of a pack with their checksums: all of them, or those that opening
    /// reads anyway.
    ///
    /// # Errors
    /// [`Error::Checksum`] with the first tensor that differs.
    pub(crate) fn check_checksums(&self, all: bool) -> Result<(), Error> {
        for checksum in &self.packed.checksums {
            if all || !is_matrix(checksum) {
                check(checksum)?;
            }
        }
        Ok(())
    }
}

fn is_matrix(checksum: &Checksum<'_>) -> bool {
    let mut parts = checksum.tensor.split('.');
    parts.any(|part| MATRICES.contains(&part))
}

fn check(checksum: &Checksum<'_>) -> Result<(), Error> {
    let found = crc32fast::hash(checksum.bytes.as_slice());
    match found == checksum.crc32 {
        true => Ok(()),
        false => Err(Error::Checksum {
            member: checksum.tensor.clone(),
            expected: checksum.crc32,
            found,
        }),
    }
}

fn differs(row: usize, expected: &dyn ToString, found: &dyn ToString) -> Error {
    Error::SelfTest {
        row: row as u64,
        expected: expected.to_string(),
        found: found.to_string(),
    }
}
