//! A model in f64 and what it computes, formula by formula. Nothing is rounded to f32 here.

use super::read::{Array, Arrays};
use serde_json::Value;

/// What is done to a row before anything else.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Normalization {
    /// Nothing.
    None,
    /// t = (x - mean) / (sigma + 1e-5), sigma with d - 1.
    LayerNorm,
    /// t = x sqrt(d) / |x|.
    ConstantNorm,
}

/// Which features fire, and with what value. `pre` is scale * (W x') + bias.
#[derive(Clone, Debug)]
pub(crate) enum Activation {
    /// pre where pre > 0.
    Relu,
    /// tanh(pre) where pre > 0.
    TanhRelu,
    /// pre where pre > threshold and pre > 0.
    JumpRelu {
        /// One per feature.
        threshold: Vec<f64>,
    },
    /// pre where W x' + gate_bias > 0 and pre > 0. (scale is exp(r_mag), bias b_mag)
    Gated {
        /// One per feature.
        gate_bias: Vec<f64>,
    },
    /// The k largest pre, the lowest index winning a tie; of those, pre where pre > 0.
    TopK(usize),
    /// The k largest |pre|, the lowest index winning a tie; of those, pre where pre != 0.
    AbsTopK(usize),
}

/// An SAE or a transcoder. Matrices are row-major with one row per feature.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) d_in: usize,
    pub(crate) d_sae: usize,
    pub(crate) d_out: usize,
    pub(crate) normalization: Normalization,
    /// Whether decode undoes the normalisation: transcoders of SAELens do not.
    pub(crate) undo_normalization: bool,
    /// Subtracted from the normalised row, `[d_in]`.
    pub(crate) centre: Option<Vec<f64>>,
    /// `[d_sae, d_in]`
    pub(crate) w_enc: Vec<f64>,
    /// `[d_sae]`; absent is 1.
    pub(crate) scale: Option<Vec<f64>>,
    /// `[d_sae]`
    pub(crate) bias: Vec<f64>,
    pub(crate) activation: Activation,
    /// `[d_sae]`: a feature's value is multiplied by it before it is decoded; absent is 1.
    pub(crate) decoder_scale: Option<Vec<f64>>,
    /// `[d_sae, d_out]`
    pub(crate) w_dec: Vec<f64>,
    /// `[d_out]`
    pub(crate) b_dec: Vec<f64>,
    /// `[d_out, d_in]`: y += w_skip x, with the row as it came.
    pub(crate) w_skip: Option<Vec<f64>>,
}

/// SAELens, version 6 and before: the tensors of `sae_weights.safetensors`, the text of
/// `cfg.json`, and what the file does not say.
pub(crate) fn saelens(tensors: &Arrays, config: &Value, given: &[(String, String)]) -> Model {
    let text = |key: &str, default: &str| match &config[key] {
        Value::Null => default.to_string(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let architecture = text("architecture", "standard");
    let transcoder = architecture.ends_with("transcoder");
    let vector = |name: &str| tensors[name].values.clone();
    let k = |config: &Value| config["k"].as_u64().unwrap() as usize;

    let w_enc = tensors["W_enc"].transposed();
    let mut model = plain(&w_enc, &tensors["W_dec"], vector("b_dec"));
    model.undo_normalization = !transcoder;
    model.w_skip = tensors.get("W_skip").map(|skip| skip.values.clone());

    let activation = text("activation_fn", &text("activation_fn_str", "relu"));
    model.activation = match architecture.as_str() {
        "gated" => Activation::Gated {
            gate_bias: vector("b_gate"),
        },
        "jumprelu" | "jumprelu_transcoder" | "jumprelu_skip_transcoder" => Activation::JumpRelu {
            threshold: vector("threshold"),
        },
        "topk" => Activation::TopK(k(config)),
        "abstopk" => Activation::AbsTopK(k(config)),
        "standard" | "transcoder" | "skip_transcoder" => match activation.as_str() {
            "relu" => Activation::Relu,
            "tanh-relu" => Activation::TanhRelu,
            "topk" => Activation::TopK(k(&config["activation_fn_kwargs"])),
            other => panic!("activation {other}"),
        },
        other => panic!("architecture {other}"),
    };
    if let Activation::Gated { .. } = model.activation {
        model.scale = Some(vector("r_mag").iter().map(|&r| libm::exp(r)).collect());
        model.bias = vector("b_mag");
    } else {
        model.bias = vector("b_enc");
    }

    let rescaled = config["rescale_acts_by_decoder_norm"] == true;
    if rescaled {
        // Values are in units of decoder length: pre |d|, and decoding divides by |d| again.
        let squares = |row: &[f64]| row.iter().map(|w| w * w).collect::<Vec<f64>>();
        let norm = |row| super::d1::sum(&squares(row)).sqrt();
        let norms: Vec<f64> = model.w_dec.chunks_exact(model.d_out).map(norm).collect();
        for (bias, norm) in std::iter::zip(&mut model.bias, &norms) {
            *bias *= norm;
        }
        model.decoder_scale = Some(norms.iter().map(|norm| 1.0 / norm).collect());
        model.scale = Some(norms);
    }
    match text("normalize_activations", "none").as_str() {
        // Whitening is folded into the weights when the file is written.
        "none" | "false" | "covariance_whitening" => {}
        "layer_norm" => model.normalization = Normalization::LayerNorm,
        "constant_norm_rescale" => model.normalization = Normalization::ConstantNorm,
        "expected_average_only_in" | "true" => {
            // W_enc s, W_dec / s, b_dec / s; b_enc and thresholds stay.
            let factor: f64 = given[0].1.parse().unwrap();
            model.b_dec.iter_mut().for_each(|b| *b /= factor);
            if rescaled {
                // The norms are those of W_dec / s: s and 1/s cancel, but not in the bias.
                model.bias.iter_mut().for_each(|b| *b /= factor);
            } else {
                let scale = model.scale.take().unwrap_or(vec![1.0; model.d_sae]);
                model.scale = Some(scale.iter().map(|scale| scale * factor).collect());
                model.decoder_scale = Some(vec![1.0 / factor; model.d_sae]);
            }
            if let Activation::Gated { gate_bias } = &mut model.activation {
                // s S + b > 0 where S + b / s > 0.
                gate_bias.iter_mut().for_each(|b| *b /= factor);
            }
        }
        other => panic!("normalize_activations {other}"),
    }
    if config["finetuning_scaling_factor"] == true {
        let scale = model.decoder_scale.take().unwrap_or(vec![1.0; model.d_sae]);
        let factors = vector("finetuning_scaling_factor");
        let products = std::iter::zip(&scale, &factors).map(|(scale, factor)| scale * factor);
        model.decoder_scale = Some(products.collect());
    }
    if text("apply_b_dec_to_input", "true") == "true" && !transcoder {
        model.centre = Some(model.b_dec.clone());
    }
    model
}

/// Gemma Scope 1: the arrays of `params.npz`. There is no config: b_dec is not subtracted, nothing
/// is normalised. `embedding` SAEs were trained on rows that are sqrt(d_in) shorter.
pub(crate) fn gemma_scope(arrays: &Arrays, embedding: bool) -> Model {
    let w_enc = arrays["W_enc"].transposed();
    let mut model = plain(&w_enc, &arrays["W_dec"], arrays["b_dec"].values.clone());
    model.bias = arrays["b_enc"].values.clone();
    model.activation = Activation::JumpRelu {
        threshold: arrays["threshold"].values.clone(),
    };
    if embedding {
        let root = (model.d_in as f64).sqrt();
        model.scale = Some(vec![1.0 / root; model.d_sae]);
        model.decoder_scale = Some(vec![root; model.d_sae]);
    }
    model
}

/// ReLU without normalisation, centre, bias or scales.
fn plain(w_enc: &Array, w_dec: &Array, b_dec: Vec<f64>) -> Model {
    assert_eq!(w_enc.shape[0], w_dec.shape[0]);
    assert_eq!(b_dec.len(), w_dec.shape[1]);
    Model {
        d_in: w_enc.shape[1],
        d_sae: w_enc.shape[0],
        d_out: w_dec.shape[1],
        normalization: Normalization::None,
        undo_normalization: true,
        centre: None,
        w_enc: w_enc.values.clone(),
        scale: None,
        bias: vec![0.0; w_enc.shape[0]],
        activation: Activation::Relu,
        decoder_scale: None,
        w_dec: w_dec.values.clone(),
        b_dec,
        w_skip: None,
    }
}

/// sum of a_j b_j, one after the other.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    std::iter::zip(a, b).map(|(a, b)| a * b).sum()
}

/// sum of |a_j b_j|: the scale of the rounding errors of [`dot`].
pub(crate) fn absolute_dot(a: &[f64], b: &[f64]) -> f64 {
    std::iter::zip(a, b).map(|(a, b)| (a * b).abs()).sum()
}

impl Model {
    /// Encoder row of a feature, `[d_in]`.
    pub(crate) fn encoder_row(&self, feature: usize) -> &[f64] {
        &self.w_enc[feature * self.d_in..][..self.d_in]
    }

    /// Decoder row of a feature, `[d_out]`.
    pub(crate) fn decoder_row(&self, feature: usize) -> &[f64] {
        &self.w_dec[feature * self.d_out..][..self.d_out]
    }

    /// scale_i, 1 if there is none.
    pub(crate) fn scale_of(&self, feature: usize) -> f64 {
        self.scale.as_ref().map_or(1.0, |scale| scale[feature])
    }

    /// Whether the input is centred or normalised.
    pub(crate) fn changes_input(&self) -> bool {
        self.centre.is_some() || self.normalization != Normalization::None
    }

    /// (offset, inwards, outwards): t = (x - offset) * inwards, and y * outwards + offset.
    fn normalizer(&self, x: &[f64]) -> (f64, f64, f64) {
        let d = x.len() as f64;
        match self.normalization {
            Normalization::None => (0.0, 1.0, 1.0),
            Normalization::LayerNorm => {
                let mean = x.iter().sum::<f64>() / d;
                let squares: f64 = x.iter().map(|x| (x - mean) * (x - mean)).sum();
                let sigma = (squares / (d - 1.0)).sqrt();
                (mean, 1.0 / (sigma + 1e-5), sigma)
            }
            Normalization::ConstantNorm => {
                let factor = d.sqrt() / dot(x, x).sqrt();
                (0.0, factor, 1.0 / factor)
            }
        }
    }

    /// x': the normalised and centred row.
    pub(crate) fn input(&self, x: &[f64]) -> Vec<f64> {
        let (offset, inwards, _) = self.normalizer(x);
        let centre = |j: usize| self.centre.as_ref().map_or(0.0, |centre| centre[j]);
        let numbered = x.iter().enumerate();
        numbered
            .map(|(j, x)| (x - offset) * inwards - centre(j))
            .collect()
    }

    /// pre of every feature, from x'.
    pub(crate) fn pre(&self, input: &[f64]) -> Vec<f64> {
        let pre = |i| self.scale_of(i) * dot(self.encoder_row(i), input) + self.bias[i];
        (0..self.d_sae).map(pre).collect()
    }

    /// The dense feature vector of a row, `[d_sae]`.
    pub(crate) fn encode(&self, x: &[f64]) -> Vec<f64> {
        let input = self.input(x);
        let pre = self.pre(&input);
        let features = 0..self.d_sae;
        match &self.activation {
            Activation::Relu => features.map(|i| pre[i].max(0.0)).collect(),
            Activation::TanhRelu => features.map(|i| pre[i].max(0.0).tanh()).collect(),
            Activation::JumpRelu { threshold } => features
                .map(|i| {
                    if pre[i] > threshold[i] {
                        pre[i].max(0.0)
                    } else {
                        0.0
                    }
                })
                .collect(),
            Activation::Gated { gate_bias } => features
                .map(|i| {
                    let open = dot(self.encoder_row(i), &input) + gate_bias[i] > 0.0;
                    if open { pre[i].max(0.0) } else { 0.0 }
                })
                .collect(),
            Activation::TopK(k) => {
                let chosen = largest(&pre, *k);
                let value = |i: usize| if chosen[i] { pre[i].max(0.0) } else { 0.0 };
                features.map(value).collect()
            }
            Activation::AbsTopK(k) => {
                let magnitudes: Vec<f64> = pre.iter().map(|pre| pre.abs()).collect();
                let chosen = largest(&magnitudes, *k);
                let value = |i: usize| if chosen[i] { pre[i] } else { 0.0 };
                features.map(value).collect()
            }
        }
    }

    /// How far pre-activation i is from the point where the feature switches on or off.
    pub(crate) fn distance_to_gate(&self, pre: &[f64], input: &[f64], i: usize) -> f64 {
        let from_zero = pre[i].abs();
        match &self.activation {
            Activation::Relu | Activation::TanhRelu => from_zero,
            Activation::JumpRelu { threshold } => from_zero.min((pre[i] - threshold[i]).abs()),
            Activation::Gated { gate_bias } => {
                let gate = dot(self.encoder_row(i), input) + gate_bias[i];
                from_zero.min(gate.abs())
            }
            Activation::TopK(k) => from_zero.min(distance_to_rank(pre, *k, i)),
            Activation::AbsTopK(k) => {
                let magnitudes: Vec<f64> = pre.iter().map(|pre| pre.abs()).collect();
                distance_to_rank(&magnitudes, *k, i)
            }
        }
    }

    /// The reconstruction, `[d_out]`, and for each entry the scale of its rounding errors.
    pub(crate) fn decode(&self, features: &[(u32, f64)], x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let mut y = self.b_dec.clone();
        let mut magnitude: Vec<f64> = y.iter().map(|y| y.abs()).collect();
        for &(index, value) in features {
            let index = index as usize;
            let a = value * self.decoder_scale.as_ref().map_or(1.0, |s| s[index]);
            for (c, w) in self.decoder_row(index).iter().enumerate() {
                y[c] += a * w;
                magnitude[c] += (a * w).abs();
            }
        }
        if self.undo_normalization {
            let (offset, _, outwards) = self.normalizer(x);
            for c in 0..self.d_out {
                y[c] = y[c] * outwards + offset;
                magnitude[c] = magnitude[c] * outwards + offset.abs();
            }
        }
        if let Some(skip) = &self.w_skip {
            for (c, row) in skip.chunks_exact(self.d_in).enumerate() {
                y[c] += dot(row, x);
                magnitude[c] += absolute_dot(row, x);
            }
        }
        (y, magnitude)
    }
}

/// Which entries are among the k largest; of equal ones the first.
fn largest(values: &[f64], k: usize) -> Vec<bool> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    let mut chosen = vec![false; values.len()];
    for &index in order.iter().take(k) {
        chosen[index] = true;
    }
    chosen
}

/// How far entry i is from entering or leaving the k largest.
fn distance_to_rank(values: &[f64], k: usize, i: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    if largest(values, k)[i] {
        sorted.get(k).map_or(f64::INFINITY, |next| values[i] - next)
    } else {
        sorted[k - 1] - values[i]
    }
}
