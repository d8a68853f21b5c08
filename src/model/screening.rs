//! What a screen has to know of a model: which numbers are compared with what.
//!
//! A screen bounds `rank_i` before it is rounded to f32. Rounding is monotone and thresholds are
//! f32, so `rank_i > threshold` needs `p_i > threshold`, and `rank_i >= threshold` needs `p_i`
//! above the f32 below the threshold.

use super::{Activation, Layout, Matrix, Parts, Sae, ValueMap};
use crate::error::Error;
use crate::kernels::Kernels;
use crate::kernels::screen::{CodeFormat, ScreenKernels};
use crate::screen::{Certificate, DELTA_EXPONENT, EncoderRows, Options, Rules, Screen};
use alloc::vec::Vec;

/// The vectors that a screen is built with.
struct OwnedRules {
    scale: Option<Vec<f64>>,
    bias: Option<Vec<f64>>,
    threshold: Option<Vec<f32>>,
}

impl OwnedRules {
    fn borrowed(&self) -> Rules<'_> {
        Rules {
            scale: self.scale.as_deref(),
            bias: self.bias.as_deref(),
            threshold: self.threshold.as_deref(),
        }
    }
}

/// Whether a rule has a screen: it must be possible to tell from a bound on one feature that the
/// feature is not selected.
fn rules(parts: &Parts<'_>) -> Option<OwnedRules> {
    // A gate or a distance changes `p` after the bounds were formed.
    if parts.glu.is_some() || matches!(parts.value_map, ValueMap::Distance(_)) {
        return None;
    }
    let features = parts.encoder.features();
    let weight = |i: usize| parts.rank_weight.as_ref().map_or(1.0, |w| w[i]);
    let bias = |i: usize| parts.bias.as_ref().map_or(0.0, |b| b[i]);
    let scale = |i: usize| parts.scale.as_ref().map_or(1.0, |s| s[i]);
    let ranked = OwnedRules {
        scale: Some((0..features).map(|i| weight(i) * scale(i)).collect()),
        bias: Some((0..features).map(|i| weight(i) * bias(i)).collect()),
        threshold: None,
    };
    match &parts.activation {
        Activation::Relu | Activation::TanhRelu => Some(OwnedRules {
            scale: parts.scale.clone(),
            bias: parts.bias.clone(),
            threshold: Some((0..features).map(|_| 0.0).collect()),
        }),
        Activation::JumpRelu {
            threshold,
            relu,
            inclusive,
        } => {
            let least = |i: usize| {
                let threshold = match inclusive {
                    true => threshold.of(i).next_down(),
                    false => threshold.of(i),
                };
                // `pre > 0` and a positive weight make a rank above zero.
                match *relu && weight(i) > 0.0 {
                    true => threshold.max(0.0),
                    false => threshold,
                }
            };
            Some(OwnedRules {
                threshold: Some((0..features).map(least).collect()),
                ..ranked
            })
        }
        Activation::Gated { gate_bias } => Some(OwnedRules {
            // S > -gate_bias, and scale S > -bias: the quotient is raised by more than the rounding
            // of the product and of the division can take away.
            scale: None,
            bias: Some(
                gate_bias
                    .iter()
                    .enumerate()
                    .map(|(i, &gate)| match scale(i) > 0.0 {
                        true => {
                            let quotient = bias(i) / scale(i);
                            gate.min(quotient + quotient.abs() * 1e-15)
                        }
                        false => gate,
                    })
                    .collect(),
            ),
            threshold: Some((0..features).map(|_| 0.0).collect()),
        }),
        Activation::TopK { .. } => Some(ranked),
        Activation::LeakyRelu { .. }
        | Activation::GroupTopK { .. }
        | Activation::TopAfa
        | Activation::Pursuit(_)
        | Activation::Ensemble(_) => None,
    }
}

impl EncoderRows for Matrix<'_> {
    fn features(&self) -> usize {
        self.features()
    }

    fn width(&self) -> usize {
        self.width()
    }

    fn row(&self, feature: usize, out: &mut [f64]) {
        if let Some(row) = Matrix::row(self, feature) {
            Kernels::best().widen(self.weight_type(), row, out);
            return;
        }
        for (column, out) in out.iter_mut().enumerate() {
            *out = self.weight(feature, column);
        }
    }
}

/// A screen for these parts, or `None` if their rule has none or the encoder is not in rows.
pub(crate) fn build(
    parts: &Parts<'_>,
    certificate: Certificate,
    kernels: &ScreenKernels,
) -> Result<Option<Screen<'static>>, Error> {
    if parts.encoder.row(0).is_none() {
        return Ok(None);
    }
    let Some(rules) = rules(parts) else {
        return Ok(None);
    };
    let rules = rules.borrowed();
    let options = options(parts, certificate);
    Screen::build(&parts.encoder, &rules, &options, kernels).map(Some)
}

/// How an encoder's screen is built.
fn options<'p>(parts: &'p Parts<'_>, certificate: Certificate) -> Options<'p> {
    Options {
        certificate,
        seed: None,
        delta_exponent: DELTA_EXPONENT,
        format: CodeFormat::U6,
        whiten: parts.encoder.width() >= 512,
        refine: parts.encoder.width() >= 512,
        centre: match parts.center {
            Some(_) => None,
            None => parts
                .decoder_bias
                .as_deref()
                .filter(|bias| bias.len() == parts.encoder.width()),
        },
    }
}

/// Bytes of the screen that these parts get once their encoder is in rows; 0 if they get none.
pub(crate) fn bytes(parts: &Parts<'_>) -> u64 {
    let has_one = match parts.activation {
        Activation::Relu
        | Activation::TanhRelu
        | Activation::JumpRelu { .. }
        | Activation::Gated { .. }
        | Activation::TopK { .. } => {
            parts.glu.is_none() && !matches!(parts.value_map, ValueMap::Distance(_))
        }
        _ => false,
    };
    match has_one && parts.encoder.layout() != Layout::Blocks {
        true => {
            let (features, width) = (parts.encoder.features(), parts.encoder.width());
            Screen::bytes_of(&options(parts, Certificate::Proven), features, width)
        }
        false => 0,
    }
}

impl<'a> Sae<'a> {
    /// The screen that encoding reads, if there is one.
    pub fn screen(&self) -> Option<&Screen<'a>> {
        self.screen.as_ref()
    }

    /// The same model with a screen that was built before, for these very weights and rules
    /// ([`Screen::from_stored`]). The encoder must have one row per feature.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the screen has another shape or belongs to other biases, scales or
    /// thresholds. Whether it belongs to these weights is what [`Sae::check_screen`] tells.
    pub fn with_screen(mut self, screen: Screen<'a>) -> Result<Self, Error> {
        let unfit = |what: &str| Error::Malformed {
            container: "screen",
            what: what.into(),
        };
        if self.parts.encoder.row(0).is_none() {
            return Err(unfit("the encoder does not have one row per feature"));
        }
        let owned = rules(&self.parts);
        let owned = owned.ok_or_else(|| unfit("the selection rule has no screen"))?;
        screen.check_rules(&self.parts.encoder, &owned.borrowed())?;
        self.screen = Some(screen);
        self.describe();
        Ok(self)
    }

    /// A screen for this model, whose encoder has one row per feature; `None` if its rule has none.
    #[cfg(feature = "pack")]
    pub(crate) fn build_screen(
        &self,
        certificate: Certificate,
    ) -> Result<Option<Screen<'static>>, Error> {
        build(&self.parts, certificate, self.screen_kernels())
    }

    /// Builds the screen again from the weights and compares every byte; without a screen there is
    /// nothing to check. Takes as long as [`Sae::prepare`].
    ///
    /// # Errors
    /// [`Error::Malformed`] naming what differs; [`Error::OutOfMemory`].
    pub fn check_screen(&self) -> Result<(), Error> {
        match (&self.screen, rules(&self.parts)) {
            (Some(screen), Some(owned)) => {
                let kernels = self.screen_kernels();
                screen.check(&self.parts.encoder, &owned.borrowed(), kernels)
            }
            _ => Ok(()),
        }
    }
}
