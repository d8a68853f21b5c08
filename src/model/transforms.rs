//! What a mixture of linear transforms has in place of decoder vectors.

use super::{Matrix, check};
use crate::error::Error;
use alloc::vec::Vec;

/// The transforms of a [`Molt`](crate::Molt), one for each feature.
#[derive(Clone, Debug)]
pub struct Transforms<'a> {
    /// For each feature, in order.
    pub each: Vec<Transform<'a>>,
}

/// `U V`, of rank r: `[d_out, r]` times `[r, d_in]`.
#[derive(Clone, Debug)]
pub struct Transform<'a> {
    /// r vectors of d_in weights, which read the row.
    pub reads: Matrix<'a>,
    /// r vectors of d_out weights, which are written.
    pub writes: Matrix<'a>,
}

impl Transform<'_> {
    /// Its rank.
    pub fn rank(&self) -> usize {
        self.reads.features()
    }

    /// The Frobenius norm of `U V`: the square root of the sum over r and s of
    /// `(u_r . u_s) (v_r . v_s)`, in f64.
    pub fn norm(&self) -> f64 {
        let rank = self.rank();
        let mut square = 0.0;
        for r in 0..rank {
            for s in 0..rank {
                square += dot(&self.writes, r, s) * dot(&self.reads, r, s);
            }
        }
        libm::sqrt(square.max(0.0))
    }
}

fn dot(matrix: &Matrix<'_>, r: usize, s: usize) -> f64 {
    let terms = (0..matrix.width()).map(|c| matrix.weight(r, c) * matrix.weight(s, c));
    terms.sum()
}

impl Transforms<'_> {
    /// Whether any reads the row by columns.
    pub(crate) fn reads_columns(&self) -> bool {
        self.each.iter().any(|one| one.reads.column_bytes() > 0)
    }

    /// Whether there is one for each of `features`, and all fit rows of these widths.
    pub(crate) fn check(&self, features: usize, d_in: usize, d_out: usize) -> Result<(), Error> {
        if self.each.len() != features {
            return Err(check::invalid(
                "transforms",
                &alloc::format!("one for each of {features} features"),
                self.each.len(),
            ));
        }
        for one in &self.each {
            let rank = one.rank();
            if rank == 0 {
                return Err(check::invalid("rank", "at least 1", 0));
            }
            for (matrix, width) in [(&one.reads, d_in), (&one.writes, d_out)] {
                if (matrix.features(), matrix.width()) != (rank, width) {
                    return Err(Error::Shape {
                        tensor: matrix.tensor().into(),
                        expected: alloc::vec![rank, width],
                        found: alloc::vec![matrix.features(), matrix.width()],
                    });
                }
                check::one_block_per_feature(matrix)?;
            }
        }
        Ok(())
    }
}
