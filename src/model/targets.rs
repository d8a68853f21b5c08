//! What features write where they write no multiples of one vector: multi-target coders.

use super::{Block, Layout, Matrix, Parts, Sae, check};
use crate::error::Error;
use alloc::vec::Vec;
use core::ops::Range;

/// A value of its own for each block of the decoder (EleutherAI's clt-training, `sparse_coder.py`
/// and `runner.py`):
///
/// ```text
/// v_i = (f_i + bias_i [f_i > 0]) scale_i        f64, two roundings, in place of f_i
/// ```
///
/// Coalesced, each output site selects anew: of all features that write to it, `k` for each block,
/// it keeps the k largest v, the lowest feature first among equals. Where fewer than k features of
/// a block fire, the rest of its k are zeros, which come before negative values.
#[derive(Clone, Debug)]
pub struct Targets {
    /// One for each block of the decoder, in its order; one for a decoder in one piece.
    pub each: Vec<Target>,
    /// k, if output sites select anew.
    pub coalesced: Option<usize>,
}

/// The affine map of one block, for each of its features.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// Added to values above 0; absent is 0.
    pub bias: Option<Vec<f64>>,
    /// A factor of the sum; absent is 1.
    pub scale: Option<Vec<f64>>,
}

impl Target {
    /// What the block's feature number `place` writes with in place of `value`.
    pub(crate) fn value(&self, place: usize, value: f64) -> f64 {
        let of = |values: &Option<Vec<f64>>, default: f64| match values {
            Some(values) => values.get(place).copied().unwrap_or(default),
            None => default,
        };
        let sum = match value > 0.0 {
            true => value + of(&self.bias, 0.0),
            false => value,
        };
        sum * of(&self.scale, 1.0)
    }
}

impl Targets {
    /// Whether they fit these parts.
    pub(super) fn check(&self, parts: &Parts<'_>) -> Result<(), Error> {
        let decoder = &parts.decoder;
        let count = match decoder.layout() {
            Layout::Blocks => decoder.blocks().len(),
            Layout::Rows | Layout::Columns => 1,
        };
        if self.each.len() != count {
            let expected = alloc::format!("one for each of {count} blocks of the decoder");
            return Err(check::invalid("targets", &expected, self.each.len()));
        }
        if parts.decoder_scale.is_some() {
            let expected = "a model without decoder scales (a target has its own)";
            return Err(check::invalid("targets", expected, "one with them"));
        }
        let site = decoder.width() / parts.output_sites.max(1);
        for (target, (features, columns, _)) in self.each.iter().zip(pieces(decoder)) {
            let vectors = [
                ("target_bias", &target.bias),
                ("target_scale", &target.scale),
            ];
            for (name, values) in vectors {
                if let Some(values) = values {
                    check::vector(name, values, features.len())?;
                }
            }
            let whole = columns.len() == site && columns.start.is_multiple_of(site);
            if self.coalesced.is_some() && !whole {
                let expected = "blocks that write to one output site each";
                return Err(check::invalid("coalesced targets", expected, "others"));
            }
        }
        match self.coalesced {
            Some(k) if k == 0 || k > decoder.features() => {
                let expected = alloc::format!("1 to {}", decoder.features());
                Err(check::invalid("k of coalesced targets", &expected, k))
            }
            _ => Ok(()),
        }
    }
}

/// The blocks of a decoder, or the one that it is: features, columns, weights.
pub(crate) fn pieces<'p, 'a>(
    decoder: &'p Matrix<'a>,
) -> impl Iterator<Item = (Range<usize>, Range<usize>, &'p Matrix<'a>)> + Clone {
    let whole = (decoder.layout() != Layout::Blocks)
        .then(|| (0..decoder.features(), 0..decoder.width(), decoder));
    let of = |block: &'p Block<'a>| (block.features(), block.columns(), &block.matrix);
    whole.into_iter().chain(decoder.blocks().iter().map(of))
}

impl Sae<'_> {
    /// For what takes features for multiples of one vector each.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if they are not.
    pub(crate) fn one_vector_each(&self, what: &'static str) -> Result<(), Error> {
        match self.parts.targets.is_some() || self.parts.transforms.is_some() {
            false => Ok(()),
            true => Err(Error::InvalidArgument {
                what,
                expected: "a model whose features write multiples of one vector each".into(),
                found: match self.parts.targets {
                    Some(_) => "a multi-target coder".into(),
                    None => "a mixture of transforms".into(),
                },
            }),
        }
    }
}
