//! Models made of models: bags (the mean of their reconstructions, all their features) and chains
//! (each member on what the ones before leave).
//!
//! ```text
//! bag:    z = (z_1, .., z_J), each of x        y = (1/J) sum_j (z_j D_j + b_j)
//! chain:  r_1 = x ;  z_j of r_j ;  r_{j+1} = round32(r_j - y_j)        y = sum_j (z_j D_j + b_j)
//! ```
//!
//! (Ensembling sparse autoencoders: naive bagging and boosting, arXiv 2505.16077; residual stacks
//! and SAE-boost, arXiv 2507.12990, are chains.) Feature i of member j is feature `i` plus the
//! sizes of the members before. `y_j` in the chain is the member's own reconstruction in f32, so a
//! chain gives the bits of a host that runs its members one after the other.
//!
//! The parts of an ensemble hold its encoders and decoders as blocks and its members' scales and
//! biases, with 1/J in them for a bag: decoding is that of any other model. What each member does
//! to its input stays with the member.

use super::{About, Activation, Block, InputNorm, Layout, Matrix, Parts, Sae};
use crate::error::Error;
use alloc::string::ToString;
use alloc::vec::Vec;

/// How members make up an ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ensemble {
    /// Every member reads the row; reconstructions are averaged.
    Bag,
    /// Every member reads what the ones before leave; reconstructions add up.
    Chain,
}

impl<'a> Sae<'a> {
    /// One model made of these, with the same verbs as any other; encoding costs what its members
    /// cost together, and a readout costs an encode. It runs on the first member's level.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no members, or they cannot be joined: different
    /// widths, weight formats or normalisations (a chain has none at all), a skip connection, or
    /// an ensemble among them; [`Error::OutOfMemory`].
    pub fn ensemble(members: Vec<Sae<'a>>, kind: Ensemble) -> Result<Self, Error> {
        let parts = join(&members, kind)?;
        let kernels = members.first().map(|first| first.kernels);
        let mut whole = Self::from_parts(parts)?;
        if let Some(kernels) = kernels {
            whole = whole.with_level(kernels.level())?;
        }
        let level = whole.level();
        let members = members.into_iter().map(|member| member.with_level(level));
        whole.members = members.collect::<Result<_, _>>()?;
        Ok(whole)
    }

    /// The members of an ensemble, in order; none if this is a model of its own.
    pub fn members(&self) -> &[Sae<'a>] {
        &self.members
    }

    /// Refuses an ensemble where a model of its own is needed.
    pub(crate) fn alone(&self, what: &'static str) -> Result<(), Error> {
        match self.parts.activation {
            Activation::Ensemble(_) => Err(Error::InvalidArgument {
                what,
                expected: "a model of its own".into(),
                found: self.parts.activation.describe(),
            }),
            _ => Ok(()),
        }
    }

    /// After its members were prepared: their matrices in the ensemble's blocks.
    pub(super) fn rejoin(&mut self) -> Result<(), Error> {
        if let Activation::Ensemble(kind) = self.parts.activation {
            let joined = join(&self.members, kind)?;
            self.parts.encoder = joined.encoder;
            self.parts.decoder = joined.decoder;
        }
        Ok(())
    }
}

fn join<'a>(members: &[Sae<'a>], kind: Ensemble) -> Result<Parts<'a>, Error> {
    let wrong = |expected: &str, found: &dyn ToString| Error::InvalidArgument {
        what: "members of an ensemble",
        expected: expected.into(),
        found: found.to_string(),
    };
    let Some(first) = members.first() else {
        return Err(wrong("at least one", &"none"));
    };
    let of_first = &first.parts;
    let norm = |parts: &Parts<'_>| (parts.input_norm, parts.undo_norm);
    for member in members {
        member.alone("members of an ensemble")?;
        let parts = &member.parts;
        let sizes = |sae: &Sae<'_>| (sae.d_in(), sae.d_out());
        if sizes(member) != sizes(first) {
            let (expected, found) = (sizes(first), sizes(member));
            return Err(wrong(
                &alloc::format!("d_in {}, d_out {}", expected.0, expected.1),
                &alloc::format!("d_in {}, d_out {}", found.0, found.1),
            ));
        }
        if norm(parts) != norm(of_first)
            || kind == Ensemble::Chain && parts.input_norm != InputNorm::None
        {
            let expected = match kind {
                Ensemble::Bag => of_first.input_norm.name(),
                Ensemble::Chain => InputNorm::None.name(),
            };
            return Err(wrong(expected, &parts.input_norm.name()));
        }
        if parts.skip.is_some() {
            return Err(wrong("no skip connection", &"one"));
        }
        if kind == Ensemble::Chain && sizes(member).0 != sizes(member).1 {
            return Err(wrong("d_out like d_in in a chain", &member.d_out()));
        }
    }
    let d_sae = members.iter().map(Sae::d_sae).sum();
    let blocks = |matrix: for<'p> fn(&'p Parts<'a>) -> &'p Matrix<'a>, name: &str| {
        let mut blocks = Vec::new();
        let mut offset = 0;
        for member in members {
            let matrix = matrix(&member.parts);
            let mut add = |first_feature: usize, first_column, matrix: &Matrix<'a>| {
                blocks.push(Block {
                    first_feature: offset + first_feature,
                    first_column,
                    matrix: matrix.clone(),
                });
            };
            match matrix.layout() {
                Layout::Rows | Layout::Columns => add(0, 0, matrix),
                Layout::Blocks => {
                    for block in matrix.blocks() {
                        add(block.first_feature, block.first_column, &block.matrix);
                    }
                }
            }
            offset += member.d_sae();
        }
        let width = matrix(of_first).width();
        Matrix::from_blocks(name, d_sae, width, blocks)
    };
    let share = match kind {
        Ensemble::Bag => members.len() as f64,
        Ensemble::Chain => 1.0,
    };
    let mut scale = Vec::new();
    let mut bias = alloc::vec![0.0; first.d_out()];
    for member in members {
        let parts = &member.parts;
        match &parts.decoder_scale {
            Some(scales) => scale.extend(scales.iter().map(|scale| scale / share)),
            None => scale.extend(core::iter::repeat_n(1.0 / share, member.d_sae())),
        }
        for (sum, bias) in bias.iter_mut().zip(parts.decoder_bias.iter().flatten()) {
            *sum += bias;
        }
    }
    bias.iter_mut().for_each(|bias| *bias /= share);
    let files = members.iter().flat_map(|member| &member.parts.about.files);
    Ok(Parts {
        input_norm: of_first.input_norm,
        undo_norm: of_first.undo_norm,
        decoder_scale: Some(scale),
        decoder_bias: Some(bias),
        input_sites: of_first.input_sites,
        output_sites: of_first.output_sites,
        about: About {
            architecture: match kind {
                Ensemble::Bag => "bag".into(),
                Ensemble::Chain => "chain".into(),
            },
            bytes_read: members
                .iter()
                .map(|member| member.parts.about.bytes_read)
                .sum(),
            files: files.cloned().collect(),
            ..of_first.about.clone()
        },
        ..Parts::new(
            blocks(|parts| &parts.encoder, "encoders")?,
            Activation::Ensemble(kind),
            blocks(|parts| &parts.decoder, "decoders")?,
        )
    })
}
