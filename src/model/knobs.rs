//! Run-time knobs: models derived from a model. They share its weights, take the same calls and
//! have no special cases; making one copies per-feature vectors only, unless it says otherwise.
//! A derived model has no screen of its own until it is prepared.

use super::{Activation, InputNorm, Layout, Matrix, Parts, Pursuit, Sae, Thresholds};
use crate::error::Error;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::ops::Range;

impl<'a> Sae<'a> {
    /// The same model selecting by another k: TopK rules, k per group with groups, the number of
    /// steps of a pursuit. 0 gives no features. HierarchicalTopK (arXiv 2505.24473) and MSAE are
    /// trained for every k.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the rule has no k, or k is above the number of features (of
    /// a group).
    pub fn with_k(&self, k: usize) -> Result<Self, Error> {
        self.alone("k")?;
        let mut parts = self.parts.clone();
        let d_sae = self.d_sae();
        let most = match &mut parts.activation {
            Activation::TopK { k: old, .. } => {
                *old = k;
                d_sae
            }
            Activation::GroupTopK { groups, k: old, .. } => {
                *old = k;
                d_sae / *groups
            }
            Activation::Pursuit(pursuit) => {
                pursuit.steps = k;
                usize::MAX
            }
            other => {
                return Err(Error::InvalidArgument {
                    what: "k",
                    expected: "a model that selects by k".into(),
                    found: other.describe(),
                });
            }
        };
        if k > most {
            return Err(Error::InvalidArgument {
                what: "k",
                expected: alloc::format!("0 to {most}"),
                found: k.to_string(),
            });
        }
        // What sites keep follows what layers give them.
        if let Some(targets) = &mut parts.targets {
            targets.coalesced = targets.coalesced.map(|_| k);
        }
        Ok(self.derived(parts))
    }

    /// The same model with another rule, for instance TopK in place of a threshold.
    ///
    /// # Errors
    /// As [`Sae::from_parts`].
    pub fn with_activation(&self, activation: Activation) -> Result<Self, Error> {
        self.alone("another rule")?;
        let mut parts = self.parts.clone();
        parts.activation = activation;
        self.checked(parts)
    }

    /// The same model ranking by other weights, one per feature: g-SAE (arXiv 2411.10397) ranks
    /// by the size of each feature's effect, which the caller knows. `None` ranks by the values.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::BadValue`] if there are not d_sae weights, none negative.
    pub fn with_rank_weights(&self, weights: Option<&[f64]>) -> Result<Self, Error> {
        self.alone("rank weights")?;
        let mut parts = self.parts.clone();
        parts.rank_weight = weights.map(<[f64]>::to_vec);
        self.checked(parts)
    }

    /// The model of the first `count` features, as Matryoshka models are nested (Bussmann et al.,
    /// arXiv 2503.17547): it reads that part of the weights. Under a threshold rule its features are those of the whole model below
    /// `count`; a rule that ranks ranks among them alone. Groups stay whole.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless `count` is 1 to d_sae, and a whole number of groups.
    pub fn with_prefix(&self, count: usize) -> Result<Self, Error> {
        self.alone("a prefix")?;
        self.one_vector_each("model of a prefix")?;
        let out_of_range = |expected| Error::InvalidArgument {
            what: "features of a prefix",
            expected,
            found: count.to_string(),
        };
        if count == 0 || count > self.d_sae() {
            return Err(out_of_range(alloc::format!("1 to {}", self.d_sae())));
        }
        let mut parts = self.parts.clone();
        match &mut parts.activation {
            Activation::TopK { k, .. } => *k = count.min(*k),
            Activation::GroupTopK { groups, .. } => {
                let size = self.d_sae() / *groups;
                if !count.is_multiple_of(size) {
                    return Err(out_of_range(alloc::format!("a multiple of {size}")));
                }
                *groups = count / size;
            }
            Activation::Gated { gate_bias } => gate_bias.truncate(count),
            Activation::JumpRelu {
                threshold: Thresholds::PerFeature(thresholds),
                ..
            } => thresholds.truncate(count),
            _ => {}
        }
        parts.encoder = parts.encoder.prefix(count)?;
        parts.decoder = parts.decoder.prefix(count)?;
        if let Some(glu) = &mut parts.glu {
            glu.matrix = glu.matrix.prefix(count)?;
        }
        parts.per_feature(|values| values.truncate(count));
        Ok(self.derived(parts))
    }

    /// The model of the features `range`, in place: an expert of a model whose experts lie one after
    /// the other, say. Under a rule that ranks it ranks among them alone, at most as many as there
    /// are.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an empty range, one beyond d_sae, a rule with groups or
    /// weights in blocks.
    pub fn with_range(&self, range: Range<usize>) -> Result<Self, Error> {
        self.alone("a range of features")?;
        self.one_vector_each("model of a range of features")?;
        let wrong = |expected: &str, found: &dyn ToString| Error::InvalidArgument {
            what: "features of a range",
            expected: expected.into(),
            found: found.to_string(),
        };
        if range.is_empty() || range.end > self.d_sae() {
            let expected = alloc::format!("a range within {}", self.d_sae());
            let found = alloc::format!("{}..{}", range.start, range.end);
            return Err(wrong(&expected, &found));
        }
        let slice = |matrix: &Matrix<'a>| {
            let found = matrix.slice(range.clone());
            found.ok_or_else(|| wrong("weights in one piece", &"ones made of blocks"))
        };
        let mut parts = self.parts.clone();
        match &mut parts.activation {
            Activation::TopK { k, .. } => *k = range.len().min(*k),
            Activation::GroupTopK { .. } => {
                let found = self.parts.activation.describe();
                return Err(wrong("a rule without groups", &found));
            }
            Activation::Gated { gate_bias } => *gate_bias = cut(gate_bias, &range),
            Activation::JumpRelu {
                threshold: Thresholds::PerFeature(thresholds),
                ..
            } => *thresholds = cut(thresholds, &range),
            _ => {}
        }
        parts.encoder = slice(&parts.encoder)?;
        parts.decoder = slice(&parts.decoder)?;
        if let Some(glu) = &mut parts.glu {
            glu.matrix = slice(&glu.matrix)?;
        }
        parts.per_feature(|values| *values = cut(values, &range));
        parts.tie();
        Ok(self.derived(parts))
    }

    /// The model of these features, in this order: feature i of it is `features[i]` of this one.
    /// Copies their weights, `m (d_in + d_out)` values. With an order of importance
    /// ([`Importance`](crate::Importance)) its prefixes are progressively better codes.
    ///
    /// # Errors
    /// [`Error::FeatureOutOfRange`]; [`Error::InvalidArgument`] if there are none or one comes
    /// twice, for a rule with groups, or for an encoder made of blocks; [`Error::OutOfMemory`].
    pub fn with_features(&self, features: &[u32]) -> Result<Self, Error> {
        self.alone("a choice of features")?;
        self.one_vector_each("model of a choice of features")?;
        let d_sae = self.d_sae();
        let wrong = |expected: &str, found: &dyn ToString| Error::InvalidArgument {
            what: "features of a model",
            expected: expected.into(),
            found: found.to_string(),
        };
        let mut seen = alloc::vec![false; d_sae];
        for &feature in features {
            match seen.get_mut(feature as usize) {
                None => {
                    return Err(Error::FeatureOutOfRange {
                        feature: feature.into(),
                        d_sae: d_sae as u64,
                    });
                }
                Some(seen) if *seen => return Err(wrong("each feature once", &feature)),
                Some(seen) => *seen = true,
            }
        }
        if features.is_empty() {
            return Err(wrong("at least one", &"none"));
        }
        if self.parts.encoder.layout() == Layout::Blocks {
            return Err(wrong("an encoder in one piece", &"one made of blocks"));
        }
        let mut parts = self.parts.clone();
        match &mut parts.activation {
            Activation::TopK { k, .. } => *k = features.len().min(*k),
            Activation::GroupTopK { .. } => {
                return Err(wrong(
                    "a rule without groups",
                    &self.parts.activation.describe(),
                ));
            }
            Activation::Gated { gate_bias } => *gate_bias = pick(gate_bias, features),
            Activation::JumpRelu {
                threshold: Thresholds::PerFeature(thresholds),
                ..
            } => *thresholds = pick(thresholds, features),
            _ => {}
        }
        parts.encoder = parts.encoder.gather_rows(features)?;
        parts.decoder = parts.decoder.gather_rows(features)?;
        if let Some(glu) = &mut parts.glu {
            glu.matrix = glu.matrix.gather_rows(features)?;
        }
        parts.per_feature(|values| *values = pick(values, features));
        parts.tie();
        Ok(self.derived(parts))
    }

    /// This model's decoder as the dictionary of a pursuit: codes found at inference time instead
    /// of the encoder's (inference-time optimisation, Smith 2024). Rows are those that the model
    /// reconstructs; its decoder bias is taken off them first. Atoms are scaled to length 1, so a
    /// value is the length of what it adds. Of a skip connection it knows nothing: take `W_skip x`
    /// off the rows first.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] for a pursuit that is out of range or a decoder with a row of
    /// zeros, [`Error::OutOfMemory`]. One pass over the decoder; one made of blocks is copied. Each
    /// step of a row costs another, or a part of one once the model is [prepared](Sae::prepare).
    pub fn with_pursuit(&self, pursuit: Pursuit) -> Result<Self, Error> {
        self.one_vector_each("model of a pursuit")?;
        let inverse = |norm: &f64| if *norm > 0.0 { 1.0 / norm } else { 0.0 };
        let scale = self.parts.decoder.norms()?.iter().map(inverse).collect();
        let bias = self.parts.decoder_bias.clone();
        let undo = self.parts.undo_norm;
        let mut decoder = self.parts.decoder.clone();
        if decoder.layout() == Layout::Blocks {
            let all: Vec<u32> = (0..self.d_sae() as u32).collect();
            decoder = decoder.gather_rows(&all)?;
        }
        self.checked(Parts {
            input_norm: match undo {
                true => self.parts.input_norm,
                false => InputNorm::None,
            },
            undo_norm: undo,
            center: bias.clone(),
            decoder_bias: bias,
            decoder_scale: Some(scale),
            input_sites: self.parts.output_sites,
            output_sites: self.parts.output_sites,
            about: self.parts.about.clone(),
            ..Parts::new(decoder.clone(), Activation::Pursuit(pursuit), decoder)
        })
    }

    /// The same for directions instead of rows: nothing is taken off and nothing normalised. What
    /// a steering vector is made of, say; with a signed pursuit values can be negative.
    ///
    /// # Errors
    /// As [`Sae::with_pursuit`].
    pub fn with_pursuit_of_directions(&self, pursuit: Pursuit) -> Result<Self, Error> {
        let rows = self.with_pursuit(pursuit)?;
        let mut parts = rows.parts.clone();
        parts.input_norm = InputNorm::None;
        parts.center = None;
        parts.decoder_bias = None;
        Ok(self.derived(parts))
    }

    /// The same model once more: its weights are shared, not copied. A screen is not: prepare the
    /// new model if it is to have one.
    #[must_use]
    pub fn share(&self) -> Self {
        let mut shared = self.derived(self.parts.clone());
        shared.members = self.members.iter().map(Sae::share).collect();
        shared.router = self.router.clone();
        shared
    }

    /// These parts, checked, on this model's level.
    fn checked(&self, parts: Parts<'a>) -> Result<Self, Error> {
        Self::from_parts(parts)?.with_level(self.level())
    }

    /// These parts, which are known to fit, on this model's level.
    fn derived(&self, parts: Parts<'a>) -> Self {
        Self::assemble(parts, self.kernels)
    }
}

impl Parts<'_> {
    /// Changes every vector that has one value per feature, the activation's apart.
    fn per_feature(&mut self, mut change: impl FnMut(&mut Vec<f64>)) {
        let glu = self.glu.as_mut().and_then(|glu| glu.bias.as_mut());
        let vectors = [
            self.scale.as_mut(),
            self.bias.as_mut(),
            self.rank_weight.as_mut(),
            self.decoder_scale.as_mut(),
            glu,
        ];
        vectors.into_iter().flatten().for_each(&mut change);
    }
}

fn cut<T: Copy>(values: &[T], range: &Range<usize>) -> Vec<T> {
    values.get(range.clone()).unwrap_or(&[]).to_vec()
}

fn pick<T: Copy>(values: &[T], features: &[u32]) -> Vec<T> {
    let value = |&feature: &u32| values.get(feature as usize).copied();
    features.iter().filter_map(value).collect()
}

impl<'a> Matrix<'a> {
    /// The first `count` vectors, in place.
    fn prefix(&self, count: usize) -> Result<Self, Error> {
        if self.layout() != Layout::Blocks {
            return Ok(self.shortened(count));
        }
        let mut blocks = self.blocks().to_vec();
        blocks.retain(|block| block.first_feature < count);
        for block in &mut blocks {
            let features = block.matrix.features();
            let kept = features.min(count - block.first_feature);
            block.matrix = block.matrix.shortened(kept);
        }
        Self::from_blocks(self.tensor(), count, self.width(), blocks)
    }
}
