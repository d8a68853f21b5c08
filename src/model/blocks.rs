//! Matrices made of blocks: crosscoders, cross-layer transcoders, ensembles. What no block covers
//! is 0, and is neither stored nor read.

use super::{Layout, Matrix};
use crate::error::Error;
use crate::tensor::Tensor;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::ops::Range;

/// A rectangle of a larger matrix: it holds the columns from `first_column` on of the vectors from
/// `first_feature` on.
#[derive(Clone, Debug)]
pub struct Block<'a> {
    /// The feature whose vector is the block's first.
    pub first_feature: usize,
    /// Position of the block's first weight within the larger vectors.
    pub first_column: usize,
    /// The weights, in rows or columns.
    pub matrix: Matrix<'a>,
}

impl Block<'_> {
    /// The features it covers.
    pub(crate) fn features(&self) -> Range<usize> {
        self.first_feature..self.first_feature + self.matrix.features()
    }

    /// The positions that it covers within their vectors.
    pub(crate) fn columns(&self) -> Range<usize> {
        self.first_column..self.first_column + self.matrix.width()
    }
}

impl<'a> Matrix<'a> {
    /// A matrix of `features` vectors of `width` weights made of blocks that do not overlap. One
    /// block that covers it all is that matrix itself.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] if there are no blocks, or if one lies outside, overlaps another,
    /// is made of blocks itself, or has another dtype than the first.
    pub fn from_blocks(
        tensor: &str,
        features: usize,
        width: usize,
        mut blocks: Vec<Block<'a>>,
    ) -> Result<Self, Error> {
        blocks.sort_by_key(|block| (block.first_feature, block.first_column));
        let wrong = |expected: &str, found: &dyn ToString| Error::InvalidValue {
            key: alloc::format!("blocks of `{tensor}`"),
            expected: expected.into(),
            found: found.to_string(),
        };
        let ty = match blocks.first() {
            Some(first) => first.matrix.weight_type(),
            None => return Err(wrong("at least one", &"none")),
        };
        for (at, block) in blocks.iter().enumerate() {
            let end = |first: usize, count: usize| first.checked_add(count);
            let inside = end(block.first_feature, block.matrix.features())
                .is_some_and(|end| end <= features)
                && end(block.first_column, block.matrix.width()).is_some_and(|end| end <= width);
            if !inside {
                let expected = alloc::format!("inside {features} vectors of {width} weights");
                return Err(wrong(&expected, &block.matrix.tensor()));
            }
            if block.matrix.layout() == Layout::Blocks || block.matrix.weight_type() != ty {
                let expected = alloc::format!("rows or columns of {}", ty.name());
                return Err(wrong(&expected, &block.matrix.tensor()));
            }
            let overlaps = |other: &Block<'_>| {
                intersect(&block.features(), &other.features())
                    && intersect(&block.columns(), &other.columns())
            };
            if let Some(other) = blocks.iter().take(at).find(|other| overlaps(other)) {
                let names = [block.matrix.tensor(), other.matrix.tensor()].join(", ");
                return Err(wrong("blocks that do not overlap", &names));
            }
        }
        if let [only] = blocks.as_slice()
            && (only.matrix.features(), only.matrix.width()) == (features, width)
        {
            return Ok(only.matrix.clone());
        }
        Ok(Self::made_of(tensor, features, width, ty, blocks))
    }

    /// The matrix in a tensor `[parts, features, width]`: for each feature the vectors of all
    /// parts side by side, read in place.
    ///
    /// # Errors
    /// As [`Matrix::new`].
    pub fn side_by_side(tensor: &Tensor<'a>, features: usize, width: usize) -> Result<Self, Error> {
        let shape = || Error::Shape {
            tensor: tensor.name().into(),
            expected: alloc::vec![1, features, width],
            found: tensor.shape().to_vec(),
        };
        let &[parts, ..] = tensor.shape() else {
            return Err(shape());
        };
        let mut blocks = Vec::new();
        for part in 0..parts {
            let one = tensor.at(part).ok_or_else(shape)?;
            blocks.push(Block {
                first_feature: 0,
                first_column: part * width,
                matrix: Matrix::new(&one, super::FeatureAxis::First, features, width)?,
            });
        }
        Self::from_blocks(tensor.name(), features, parts.saturating_mul(width), blocks)
    }

    /// The plain matrix that holds the vector of a feature, the feature's place in it, and where
    /// its weights begin within the larger vector. For matrices whose features lie in one block
    /// each.
    pub(crate) fn place(&self, feature: usize) -> Option<(&Matrix<'a>, usize, usize)> {
        if self.layout() != Layout::Blocks {
            return (feature < self.features()).then_some((self, feature, 0));
        }
        let mut blocks = self.blocks().iter();
        let block = blocks.find(|block| block.features().contains(&feature))?;
        let place = feature - block.first_feature;
        Some((&block.matrix, place, block.first_column))
    }

    /// Whether every feature lies in exactly one block.
    pub(crate) fn has_one_block_per_feature(&self) -> bool {
        if self.layout() != Layout::Blocks {
            return true;
        }
        let mut next = 0;
        self.blocks().iter().all(|block| {
            let follows = block.first_feature == next;
            next = block.features().end;
            follows
        }) && next == self.features()
    }
}

fn intersect(one: &Range<usize>, other: &Range<usize>) -> bool {
    one.start < other.end && other.start < one.end
}
