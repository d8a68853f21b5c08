//! What a Lorsa has besides the parts of a sparse autoencoder: queries and keys.

use super::{Activation, InputNorm, Matrix, Parts, ValueMap, check};
use crate::error::Error;
use alloc::string::ToString;
use alloc::vec::Vec;

/// The attention of a [`Lorsa`](crate::Lorsa): `heads` pairs of query and key, each for as many
/// neighbouring features.
#[derive(Clone, Debug)]
pub struct Attention<'a> {
    /// Number of heads; it divides d_sae and the number of query vectors.
    pub heads: usize,
    /// `heads * d_head` vectors of d_in weights, a head's after the head's before.
    pub query: Matrix<'a>,
    /// `[heads * d_head]`
    pub query_bias: Option<Vec<f64>>,
    /// As `query`.
    pub key: Matrix<'a>,
    /// `[heads * d_head]`
    pub key_bias: Option<Vec<f64>>,
    /// Factor of the products with queries and keys, before their biases: a constant
    /// normalisation of the input that the publisher did not fold into the weights. Else 1.
    pub input_scale: f64,
    /// What scores are divided by, usually the square root of d_head.
    pub score_scale: f64,
    /// Normalisation of each head's query and key.
    pub norm: Option<HeadNorm>,
    /// Rotary position embedding.
    pub rotary: Option<Rotary>,
}

/// `q_j = w_j q_j / sqrt(mean over the head of q^2 + eps)`, and the same of keys.
#[derive(Clone, Debug)]
pub struct HeadNorm {
    /// Weights of queries, `[heads * d_head]`.
    pub query: Vec<f64>,
    /// Weights of keys, `[heads * d_head]`.
    pub key: Vec<f64>,
    /// Added to the mean square.
    pub eps: f64,
}

/// Rotary position embedding: pair i of the first `2 * periods.len()` values of every head turns
/// by the angle `position / periods[i]`.
#[derive(Clone, Debug)]
pub struct Rotary {
    /// For each pair how many positions make one radian.
    pub periods: Vec<f64>,
    /// Which values make a pair.
    pub pairs: Pairs,
}

/// Which values of a head a rotation pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pairs {
    /// 0 and 1, 2 and 3, .. (GPT-J).
    Adjacent,
    /// 0 and n / 2, 1 and n / 2 + 1, .. of n values that turn (GPT-NeoX, Llama).
    Halves,
}

/// How "NTK by parts" stretches the periods of a longer context (Peng et al., arXiv 2309.00071).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByParts {
    /// How much longer the slowest periods become.
    pub factor: f64,
    /// Wavelengths above `old_context / low` are stretched in full.
    pub low: f64,
    /// Wavelengths below `old_context / high` stay.
    pub high: f64,
    /// Tokens of the context before.
    pub old_context: f64,
}

impl Rotary {
    /// Periods `base^(i / (dims / 2))` for `dims` values that turn.
    pub fn new(dims: usize, base: f64, pairs: Pairs) -> Self {
        let count = dims / 2;
        let period = |i: usize| libm::pow(base, i as f64 / count as f64);
        Rotary {
            periods: (0..count).map(period).collect(),
            pairs,
        }
    }

    /// The same periods, stretched by parts: with wavelength `w = 2 pi p`, a period p above
    /// `old_context / low` becomes `factor p`, one below `old_context / high` stays, and between
    /// them `1 / p` becomes `(1 - s) / (factor p) + s / p`,
    /// `s = (old_context / w - low) / (high - low)`.
    #[must_use]
    pub fn by_parts(mut self, parts: ByParts) -> Self {
        for period in &mut self.periods {
            let wave = 2.0 * core::f64::consts::PI * *period;
            let slow = wave > parts.old_context / parts.low;
            let fast = wave < parts.old_context / parts.high;
            let share = (parts.old_context / wave - parts.low) / (parts.high - parts.low);
            *period = match (slow, fast) {
                (true, _) => *period * parts.factor,
                (_, true) => *period,
                _ => 1.0 / ((1.0 - share) / (*period * parts.factor) + share / *period),
            };
        }
        self
    }
}

impl Attention<'_> {
    /// Queries (or keys) of all heads together.
    pub(crate) fn width(&self) -> usize {
        self.query.features()
    }

    /// Values per head.
    pub(crate) fn d_head(&self) -> usize {
        self.width() / self.heads.max(1)
    }

    /// Whether it fits these parts, and the parts are of a kind that can attend.
    pub(crate) fn check(&self, parts: &Parts<'_>) -> Result<(), Error> {
        let (d_in, d_sae) = (parts.encoder.width(), parts.encoder.features());
        let width = self.query.features();
        for (key, of) in [("heads", d_sae), ("heads", width)] {
            if self.heads == 0 || !of.is_multiple_of(self.heads) {
                let expected = alloc::format!("a divisor of {of}");
                return Err(check::invalid(key, &expected, self.heads));
            }
        }
        for matrix in [&self.query, &self.key] {
            if (matrix.features(), matrix.width()) != (width, d_in) {
                return Err(Error::Shape {
                    tensor: matrix.tensor().into(),
                    expected: alloc::vec![width, d_in],
                    found: alloc::vec![matrix.features(), matrix.width()],
                });
            }
            check::one_block_per_feature(matrix)?;
        }
        let biases = [
            ("query_bias", &self.query_bias),
            ("key_bias", &self.key_bias),
        ];
        for (name, bias) in biases {
            if let Some(bias) = bias {
                check::vector(name, bias, width)?;
            }
        }
        for (key, number) in [
            ("input_scale", self.input_scale),
            ("score_scale", self.score_scale),
        ] {
            if !(number.is_finite() && number > 0.0) {
                return Err(check::invalid(key, "a positive number", number));
            }
        }
        if let Some(norm) = &self.norm {
            check::vector("query_norm", &norm.query, width)?;
            check::vector("key_norm", &norm.key, width)?;
            if !(norm.eps.is_finite() && norm.eps >= 0.0) {
                return Err(check::invalid(
                    "eps",
                    "a number that is not negative",
                    norm.eps,
                ));
            }
        }
        if let Some(rotary) = &self.rotary {
            check::vector("rotary", &rotary.periods, rotary.periods.len())?;
            if 2 * rotary.periods.len() > self.d_head() {
                let expected = alloc::format!("at most {} values of a head", self.d_head());
                return Err(check::invalid(
                    "rotary",
                    &expected,
                    2 * rotary.periods.len(),
                ));
            }
            if let Some(at) = rotary.periods.iter().position(|&period| period <= 0.0) {
                return Err(check::invalid(
                    "rotary",
                    "positive periods",
                    rotary.periods[at],
                ));
            }
        }
        let rule = matches!(
            parts.activation,
            Activation::Relu
                | Activation::TanhRelu
                | Activation::LeakyRelu { .. }
                | Activation::JumpRelu { .. }
                | Activation::TopK { .. }
                | Activation::GroupTopK { .. }
        );
        let plain = parts.glu.is_none()
            && !matches!(parts.value_map, ValueMap::Distance(_))
            && parts.skip.is_none()
            && !(parts.undo_norm && parts.input_norm != InputNorm::None);
        match (rule, plain) {
            (true, true) => Ok(()),
            (false, _) => Err(check::invalid(
                "activation",
                "one that looks at pre-activations alone",
                parts.activation.describe(),
            )),
            (true, false) => Err(check::invalid(
                "attention",
                "a model without gate, distances and skip that leaves its output as it is",
                "one with them".to_string(),
            )),
        }
    }
}
