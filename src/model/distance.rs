//! Encoders by distance, with several decoders that share the codes (VL-SAE).

use super::{Activation, Block, InputNorm, Matrix, Parts, Rank, ValueMap, check};
use crate::error::Error;
use alloc::vec::Vec;

impl<'a> Parts<'a> {
    /// The parts of a VL-SAE (arXiv 2510.21323): of unit vectors, the value of feature i is `from`
    /// less its distance to the row, the k nearest are kept where that is positive, and each
    /// modality has its own decoder.
    ///
    /// ```text
    /// u = x / |x| ;  w_i = encoder_i / |encoder_i|
    /// p_i = from - |u - w_i| = from - sqrt(2 - 2 u . w_i)          f = relu(top-k(p))
    /// y = f D_1, f D_2, .. side by side
    /// ```
    ///
    /// What the paper leaves open stays with the caller: `from` (its constant is not published),
    /// and the networks that align the embeddings of the modalities before they come here. Biases
    /// can be added to the parts.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] for an encoder with a row of zeros or decoders that cannot be joined;
    /// the rest is checked by [`Sae::from_parts`](crate::Sae::from_parts).
    pub fn distances(
        encoder: Matrix<'a>,
        decoders: Vec<Matrix<'a>>,
        k: usize,
        from: f64,
    ) -> Result<Self, Error> {
        let norms = encoder.norms()?;
        if let Some(row) = norms.iter().position(|&norm| norm == 0.0) {
            return Err(check::invalid(
                encoder.tensor(),
                "an encoder without rows of zeros",
                alloc::format!("row {row} of zeros"),
            ));
        }
        // The normalised input is sqrt(d_in) long; the scale makes unit vectors of both.
        let root = libm::sqrt(encoder.width() as f64);
        let scale = norms.iter().map(|norm| 1.0 / (norm * root)).collect();
        let (mut blocks, mut width) = (Vec::new(), 0);
        for matrix in decoders {
            let first_column = width;
            width += matrix.width();
            blocks.push(Block {
                first_feature: 0,
                first_column,
                matrix,
            });
        }
        let decoder = Matrix::from_blocks("decoders", encoder.features(), width, blocks)?;
        let rule = Activation::TopK {
            k,
            rank: Rank::Value,
            relu: true,
        };
        Ok(Parts {
            input_norm: InputNorm::ConstantNorm,
            undo_norm: false,
            scale: Some(scale),
            value_map: ValueMap::Distance(from),
            ..Parts::new(encoder, rule, decoder)
        })
    }
}
