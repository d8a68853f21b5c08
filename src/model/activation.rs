//! Which features fire, and with what value: the rules, in canonical form.
//!
//! `S_i` is the exact dot product of row i of the encoder and the prepared input,
//! `p_i = scale_i * S_i + bias_i` in f64 and `pre_i = round32(p_i)`. Where the parts hold rank
//! weights, `rank_i = round32(w_i * p_i)`, else `rank_i = pre_i`. Comparisons are made in f32.
//!
//! | rule | paper |
//! |---|---|
//! | ReLU | Bricken et al. 2023; Cunningham et al., arXiv 2309.08600 |
//! | JumpReLU | Rajamanoharan et al., arXiv 2407.14435 |
//! | Gated | Rajamanoharan et al., arXiv 2404.16014 |
//! | TopK | Gao et al., arXiv 2406.04093 |
//! | AbsTopK | arXiv 2510.00404 |
//! | BatchTopK (at inference a JumpReLU with one threshold) | Bussmann et al., arXiv 2412.06410 |
//! | group-wise TopK, GroupMax | EleutherAI sparsify |
//! | top-AFA | "approximate feature activation", COLM 2025 (top-afa-sae) |
//! | HierarchicalTopK (a TopK of any k) | arXiv 2505.24473 |
//! | soft cap of the values | MSAE, Zaigrajew et al., arXiv 2502.20578 |
//! | Gradient SAE (a TopK with rank weights of the caller) | Olmo et al., arXiv 2411.10397 |
//! | mean head of a variational SAE (a ReLU or TopK) | arXiv 2509.22994 |
//! | tanh-ReLU, leaky ReLU | SAELens 5, ViT-Prisma |
//! | GLU encoder ([`Glu`](super::Glu)) | OpenMOSS' Language-Model-SAEs |

use super::Ensemble;
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
    /// `pre` if it is positive, else `round32(slope * p)`: every feature fires unless it is 0, so
    /// the result is as good as dense (ViT-Prisma, slope 0.01).
    LeakyRelu {
        /// Factor of what is not positive.
        slope: f64,
    },
    /// Fires if `rank > threshold_i` (with `inclusive`, `rank >= threshold_i`) and, with `relu`,
    /// `pre > 0`; value `pre`. A threshold of +inf switches a feature off. Without rank weights
    /// the rank is `pre`; with them a BatchTopK crosscoder, for one, gates on `f * codenorm`.
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
    /// TopK in each of `groups` groups of consecutive features apart: the k features of the
    /// highest rank in each. With k = 1 sparsify's GroupMax, of which every group can have its
    /// winner; with one group TopK.
    GroupTopK {
        /// Number of groups; it divides d_sae.
        groups: usize,
        /// How many are selected in each group, 1 to d_sae / groups.
        k: usize,
        /// What is ranked.
        rank: Rank,
        /// Whether only positive values are kept (ReLU after the selection).
        relu: bool,
    },
    /// As many of the highest ranks as it takes for their norm to come closest to that of the
    /// prepared input (top-AFA). With `a = relu(pre)`, the rank weights `|d_i|` (which this rule
    /// needs) and `r_i = a_i |d_i|`: the r are sorted in descending order, the lowest index first
    /// among equals; `cum_j = sqrt(r_1^2 + .. + r_j^2)`, except that of all d_sae entries the last
    /// is 10^4 (sqrt of 1e8, as in the published code); the first j that minimises
    /// `|cum_j - |x'||` is how many are kept. Values `a`; zeros are not stored.
    TopAfa,
    /// Matching pursuit and its relatives: features are found one after the other, each on what
    /// the ones before leave of the row. The dictionary is the decoder.
    Pursuit(Pursuit),
    /// Each member of an ensemble has its own rule.
    Ensemble(Ensemble),
}

/// How a pursuit goes about its steps. The atoms are `a_i = decoder_scale_i d_i`; the row that is
/// decomposed is the prepared input `x'`, the first residual `r`.
///
/// Each step forms `p_i = decoder_scale_i (d_i . round32(r))`, an exact dot product (kernels) and
/// one f64 rounding, picks the atom of the highest rank `round32(w_i p_i)` (the lowest index among
/// equals; w are the rank weights, 1 without), gives it `p_i`, and updates the residual in f64.
/// Every operation has one place in one order, so results have the same bits everywhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Pursuit {
    /// The most steps, at least 1.
    pub steps: usize,
    /// Which atom a step picks.
    pub pick: Pick,
    /// What a step does to the values found before.
    pub refit: Refit,
    /// Stops after a step that leaves a residual with a norm below this.
    pub stop_norm: Option<f64>,
    /// Stops after a step that picked an atom picked before (SAELens).
    pub stop_on_repeat: bool,
    /// Stops before a step whose best rank is not above this. 0 or more; with [`Pick::Any`] no
    /// such test is made.
    pub stop_rank: f32,
}

/// Which atom a step of a [`Pursuit`] picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pick {
    /// The largest `p`, if it is positive: no value is ever negative.
    Positive,
    /// The largest `p`, whatever its sign (overcomplete).
    Any,
    /// The largest `|p|`: values are signed (ITDA, steering vectors).
    Magnitude,
}

/// What a step of a [`Pursuit`] does to the values found before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refit {
    /// Nothing: `z_i += p_i`, `r -= p_i a_i` (matching pursuit). An atom can be picked again.
    Nothing,
    /// One exact line search along the gradient on the atoms picked so far, S (gradient pursuit,
    /// Blumensath and Davies 2008): `g_j = a_j . r` for j in S, `c = sum_j g_j a_j`,
    /// `z_S += (c . r / c . c) g`; with [`Pick::Positive`] clipped at 0; `r = x' - sum_j z_j a_j`.
    Gradient,
    /// The least-squares solution on the atoms picked so far (orthogonal matching pursuit); with
    /// [`Pick::Positive`] the non-negative one (Lawson and Hanson 1974). An atom that depends on
    /// the ones before, such as a duplicate, gets 0. No atom is picked twice.
    LeastSquares,
}

impl Pursuit {
    const fn new(steps: usize, pick: Pick, refit: Refit) -> Self {
        Pursuit {
            steps,
            pick,
            refit,
            stop_norm: None,
            stop_on_repeat: false,
            stop_rank: 0.0,
        }
    }

    /// MP-SAE as SAELens runs it (arXiv 2506.03093): non-negative matching pursuit of at most
    /// `steps` steps, until `|r| < stop_norm` (if that is positive), until an atom comes back (if
    /// `stop_on_repeat`), or until no atom correlates positively.
    pub fn matching(steps: usize, stop_norm: f64, stop_on_repeat: bool) -> Self {
        Pursuit {
            stop_norm: (stop_norm > 0.0).then_some(stop_norm),
            stop_on_repeat,
            ..Self::new(steps, Pick::Positive, Refit::Nothing)
        }
    }

    /// MP-SAE as overcomplete runs it: exactly `steps` steps on the largest correlation, which
    /// may be negative.
    pub fn matching_any(steps: usize) -> Self {
        Self::new(steps, Pick::Any, Refit::Nothing)
    }

    /// ITDA (arXiv 2505.17769): signed matching pursuit on the largest `|p|`.
    pub fn matching_signed(steps: usize) -> Self {
        Self::new(steps, Pick::Magnitude, Refit::Nothing)
    }

    /// Orthogonal matching pursuit; with `signed` false the values stay non-negative.
    pub fn orthogonal(steps: usize, signed: bool) -> Self {
        Self::new(steps, Pick::signed(signed), Refit::LeastSquares)
    }

    /// Gradient pursuit, as in inference-time optimisation of SAE dictionaries (Smith 2024); with
    /// `signed` false the values stay non-negative.
    pub fn gradient(steps: usize, signed: bool) -> Self {
        Self::new(steps, Pick::signed(signed), Refit::Gradient)
    }

    /// Non-negative least squares over the whole dictionary, as for the coefficients of a
    /// semi-NMF: atoms enter one at a time until none correlates with the residual by more than
    /// `tolerance`, or until `steps` have entered.
    pub fn non_negative(steps: usize, tolerance: f32) -> Self {
        Pursuit {
            stop_rank: tolerance,
            ..Self::orthogonal(steps, false)
        }
    }

    fn describe(&self) -> String {
        let values = match self.pick {
            Pick::Positive => "non-negative ",
            Pick::Any => "",
            Pick::Magnitude => "signed ",
        };
        let name = match self.refit {
            Refit::Nothing => "matching pursuit",
            Refit::Gradient => "gradient pursuit",
            Refit::LeastSquares => "orthogonal matching pursuit",
        };
        let mut text = alloc::format!("{values}{name} (at most {} steps)", self.steps);
        if let Some(norm) = self.stop_norm {
            text.push_str(&alloc::format!(", until the residual is below {norm}"));
        }
        if self.stop_on_repeat {
            text.push_str(", until an atom comes back");
        }
        if self.stop_rank > 0.0 {
            text.push_str(&alloc::format!(", until none exceeds {}", self.stop_rank));
        }
        text
    }
}

impl Pick {
    const fn signed(signed: bool) -> Self {
        match signed {
            true => Pick::Magnitude,
            false => Pick::Positive,
        }
    }
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

/// What is made of a feature's `p` besides the rule.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum ValueMap {
    /// Nothing: the value is `pre`, or what the rule itself says.
    #[default]
    Identity,
    /// The value of a selected feature is `round32(c tanh(p / c))`: the soft cap of MSAE, where
    /// c = 30. Selection does not see it.
    SoftCap(f64),
    /// The value of a selected feature is 1: codebook features (Tamkin et al., arXiv 2310.17230),
    /// which are ranked by cosine and decode to the plain sum of their code vectors.
    One,
    /// `p` is a cosine and becomes `c - sqrt(2 - 2 p)` before anything else: c less the distance
    /// of two unit vectors (VL-SAE, arXiv 2510.21323, whose c is not published with the paper and
    /// must be given). It grows with the cosine.
    Distance(f64),
}

impl ValueMap {
    /// The map in words, for `inspect`; `None` if it does nothing.
    pub fn describe(self) -> Option<String> {
        match self {
            ValueMap::Identity => None,
            ValueMap::SoftCap(cap) => Some(alloc::format!("soft-capped at {cap}")),
            ValueMap::One => Some("each with the value 1".into()),
            ValueMap::Distance(from) => Some(alloc::format!("{from} less the distance")),
        }
    }
}

impl Activation {
    /// GroupMax: the largest of each of `groups` groups, if it is positive.
    pub fn group_max(groups: usize) -> Self {
        Activation::GroupTopK {
            groups,
            k: 1,
            rank: Rank::Value,
            relu: true,
        }
    }

    /// The rule in words, for `inspect`.
    pub fn describe(&self) -> String {
        match self {
            Activation::Relu => "relu".into(),
            Activation::TanhRelu => "tanh-relu".into(),
            Activation::LeakyRelu { slope } => alloc::format!("leaky-relu (slope {slope})"),
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
            Activation::GroupTopK {
                groups,
                k: 1,
                rank: Rank::Value,
                relu: true,
            } => alloc::format!("groupmax ({groups} groups)"),
            Activation::GroupTopK {
                groups,
                k,
                rank,
                relu,
            } => {
                let (k, rank, relu) = (*k, *rank, *relu);
                let one = Activation::TopK { k, rank, relu }.describe();
                alloc::format!("{one}, in each of {groups} groups")
            }
            Activation::TopAfa => "top-afa".into(),
            Activation::Pursuit(pursuit) => pursuit.describe(),
            Activation::Ensemble(Ensemble::Bag) => "each member's, in a bag".into(),
            Activation::Ensemble(Ensemble::Chain) => "each member's, in a chain".into(),
            Activation::Ensemble(Ensemble::Route) => "that of the member a router picks".into(),
        }
    }
}
