//! Which features fire, and with what value: the rules, in canonical form.
//!
//! `S_i` is the exact dot product of row i of the encoder and the prepared input,
//! `p_i = scale_i * S_i + bias_i` in f64 and `pre_i = round32(p_i)`. Comparisons are made in f32.

use alloc::string::String;
use alloc::vec::Vec;

/// A selection rule with its parameters.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Activation {
    /// `relu(pre)`: fires if `pre > 0`, value `pre`.
    Relu,
    /// `tanh(relu(pre))`: fires if `pre > 0`, value `round32(tanh(p))`.
    TanhRelu,
    /// Fires if `pre > threshold_i` (with `inclusive`, `pre >= threshold_i`) and, with `relu`,
    /// `pre > 0`; value `pre`. A threshold of +inf switches a feature off.
    JumpRelu {
        /// One threshold per feature, or one for all.
        threshold: Thresholds,
        /// Whether a feature must be positive too (SAELens); matters below zero only.
        relu: bool,
        /// `>=` instead of `>` (overcomplete's BatchTopK).
        inclusive: bool,
    },
    /// Two branches on the same product (Rajamanoharan et al. 2024): fires if
    /// `round32(S_i + gate_bias_i) > 0` and `pre > 0`, value `pre`, where scale is `exp(r_mag)`
    /// and bias `b_mag`.
    Gated {
        /// Bias of the gate, `[d_sae]`.
        gate_bias: Vec<f64>,
    },
    /// The k features of the highest rank; ties go to the lowest index. Zero values are not
    /// stored, so a row can have fewer than k.
    TopK {
        /// How many are selected, 1 to d_sae.
        k: usize,
        /// What is ranked.
        rank: Rank,
        /// Whether only positive values are kept (ReLU after the selection).
        relu: bool,
    },
}

/// Thresholds in f32.
#[derive(Clone, Debug)]
pub enum Thresholds {
    /// The same for every feature.
    Scalar(f32),
    /// One per feature, `[d_sae]`.
    PerFeature(Vec<f32>),
}

impl Thresholds {
    /// The threshold of a feature.
    #[inline]
    pub fn of(&self, feature: usize) -> f32 {
        match self {
            Thresholds::Scalar(value) => *value,
            Thresholds::PerFeature(values) => values.get(feature).copied().unwrap_or(f32::INFINITY),
        }
    }
}

/// What TopK ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rank {
    /// `pre`.
    Value,
    /// `|pre|` (AbsTopK).
    Magnitude,
}

impl Activation {
    /// The rule in words, for `inspect`.
    pub fn describe(&self) -> String {
        match self {
            Activation::Relu => "relu".into(),
            Activation::TanhRelu => "tanh-relu".into(),
            Activation::JumpRelu {
                threshold,
                relu,
                inclusive,
            } => {
                let sign = if *inclusive { ">=" } else { ">" };
                let mut text = match threshold {
                    Thresholds::Scalar(value) => alloc::format!("jumprelu ({sign} {value})"),
                    Thresholds::PerFeature(_) => {
                        alloc::format!("jumprelu ({sign} threshold per feature)")
                    }
                };
                if !relu {
                    text.push_str(", without relu");
                }
                text
            }
            Activation::Gated { .. } => "gated".into(),
            Activation::TopK { k, rank, relu } => {
                let name = match rank {
                    Rank::Value => "topk",
                    Rank::Magnitude => "abstopk",
                };
                let tail = if *relu || *rank == Rank::Magnitude {
                    ""
                } else {
                    ", without relu"
                };
                alloc::format!("{name} (k = {k}){tail}")
            }
        }
    }
}
