//! Models made of models: bags (the mean of their reconstructions, all their features), chains
//! (each member on what the ones before leave) and routed ones (one member for each row).
//!
//! ```text
//! bag:    z = (z_1, .., z_J), each of x        y = (1/J) sum_j (z_j D_j + b_j)
//! chain:  r_1 = x ;  z_j of r_j ;  r_{j+1} = round32(r_j - y_j)        y = sum_j (z_j D_j + b_j)
//! route:  h = R (x - c) ;  e the first of the largest h ;  z_e of x, times softmax(h)_e
//!                                                                      y = z_e D_e + b
//! ```
//!
//! (Ensembling sparse autoencoders: naive bagging and boosting, arXiv 2505.16077; residual stacks
//! and SAE-boost, arXiv 2507.12990, are chains; switch SAEs, arXiv 2410.08201, are routed.) Feature i of member j is feature `i` plus the
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
    /// A [`Router`] picks the one member that reads a row.
    Route,
}

/// What picks the member of a routed ensemble: `h = R round32(x - center)` in exact products; the
/// first member of the largest h. Its values are multiplied by `1 / sum_j exp(h_j - h_e)`, in f64,
/// and rounded once more, unless they keep their size.
#[derive(Clone, Debug)]
pub struct Router<'a> {
    /// One vector of d_in weights for each member.
    pub matrix: Matrix<'a>,
    /// Subtracted from the row, `[d_in]`.
    pub center: Option<Vec<f64>>,
    /// Whether values are multiplied by the member's probability.
    pub weighs: bool,
}

impl Router<'_> {
    /// The most members.
    pub const MOST: usize = 256;
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
        if kind == Ensemble::Route {
            return Err(Error::InvalidArgument {
                what: "kind of ensemble",
                expected: "a bag or a chain (`Sae::routed` takes a router)".into(),
                found: "routed".into(),
            });
        }
        Self::joined(members, kind)
    }

    /// One model of which each row reads one member, the one that the router picks: switch SAEs.
    /// Encoding costs the router and one member.
    ///
    /// # Errors
    /// As [`Sae::ensemble`]; [`Error::InvalidArgument`] for more than [`Router::MOST`] members or
    /// members with different decoder biases; [`Error::Shape`] or [`Error::BadValue`] for a router
    /// that does not fit.
    pub fn routed(members: Vec<Sae<'a>>, router: Router<'a>) -> Result<Self, Error> {
        let count = members.len();
        if count > Router::MOST {
            return Err(Error::InvalidArgument {
                what: "members of an ensemble",
                expected: alloc::format!("at most {}", Router::MOST),
                found: count.to_string(),
            });
        }
        let mut whole = Self::joined(members, Ensemble::Route)?;
        let matrix = &router.matrix;
        if (matrix.features(), matrix.width()) != (count, whole.d_in()) {
            return Err(Error::Shape {
                tensor: matrix.tensor().into(),
                expected: alloc::vec![count, whole.d_in()],
                found: alloc::vec![matrix.features(), matrix.width()],
            });
        }
        super::check::one_block_per_feature(matrix)?;
        if let Some(center) = &router.center {
            super::check::vector("router", center, whole.d_in())?;
        }
        matrix.check_finite()?;
        let all: Vec<u32> = (0..count as u32).collect();
        whole.router = Some(Router {
            // Rows of its own: small, and read for every row.
            matrix: matrix.gather_rows(&all)?,
            ..router
        });
        Ok(whole)
    }

    fn joined(members: Vec<Sae<'a>>, kind: Ensemble) -> Result<Self, Error> {
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
        if kind == Ensemble::Route && parts.decoder_bias != of_first.decoder_bias {
            return Err(wrong("the same decoder bias", &"different ones"));
        }
        if norm(parts) != norm(of_first)
            || kind == Ensemble::Chain && parts.input_norm != InputNorm::None
        {
            let expected = match kind {
                Ensemble::Bag | Ensemble::Route => of_first.input_norm.name(),
                Ensemble::Chain => InputNorm::None.name(),
            };
            return Err(wrong(expected, &parts.input_norm.name()));
        }
        if parts.skip.is_some() {
            return Err(wrong("no skip connection", &"one"));
        }
        member.one_vector_each("members of an ensemble")?;
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
        Ensemble::Chain | Ensemble::Route => 1.0,
    };
    let mut scale = Vec::new();
    let mut bias = alloc::vec![0.0; first.d_out()];
    for (at, member) in members.iter().enumerate() {
        let parts = &member.parts;
        match &parts.decoder_scale {
            Some(scales) => scale.extend(scales.iter().map(|scale| scale / share)),
            None => scale.extend(core::iter::repeat_n(1.0 / share, member.d_sae())),
        }
        // Routed members share theirs.
        if kind == Ensemble::Route && at > 0 {
            continue;
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
                Ensemble::Route => "routed".into(),
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
