//! JumpReLU models of real shapes in SAELens' form, made in memory, and what they compute,
//! written plainly.

use half::{bf16, f16};
use sae::kernels::WeightType;
use sae::{OpenOptions, Sae};

/// `(d_in, d_sae)` of Gemma Scope 2B at 16k and of an SAE on MiniLM.
pub(crate) const SHAPES: [(usize, usize); 2] = [(2304, 16384), (384, 3072)];

/// Features that fire in [`Model::row`], about.
pub(crate) const L0: usize = 64;

/// The bytes of a checkpoint, with all its numbers beside them.
pub(crate) struct Model {
    pub(crate) d_in: usize,
    pub(crate) d_sae: usize,
    pub(crate) weight_type: WeightType,
    /// The safetensors file.
    pub(crate) bytes: Vec<u8>,
    /// `[d_in, d_sae]`, as in the file, widened.
    w_enc: Vec<f32>,
    b_enc: Vec<f32>,
    /// `[d_sae, d_in]`
    w_dec: Vec<f32>,
    b_dec: Vec<f32>,
    threshold: Vec<f32>,
}

impl Model {
    pub(crate) fn new(d_in: usize, d_sae: usize, weight_type: WeightType) -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ d_sae as u64);
        // One prime number of values, again and again: no row or column repeats another.
        let pattern: Vec<f32> = (0..1_048_573)
            .map(|_| round(random.value(), weight_type))
            .collect();
        let matrix = |start: usize| -> Vec<f32> {
            let values = pattern.iter().cycle().skip(start);
            values.take(d_in * d_sae).copied().collect()
        };
        let mut vector = |length: usize, scale: f32| -> Vec<f32> {
            let values = (0..length).map(|_| round(random.value() * scale, weight_type));
            values.collect()
        };
        // Weights have variance 1/3 and rows 3: pre-activations are normal with variance d_in.
        // About L0 of them lie beyond this many standard deviations.
        let deviations = if d_sae > 10_000 { 2.66 } else { 2.04 };
        let threshold = deviations * (d_in as f32).sqrt();
        let mut model = Model {
            d_in,
            d_sae,
            weight_type,
            bytes: Vec::new(),
            w_enc: matrix(0),
            b_enc: vector(d_sae, 0.1),
            w_dec: matrix(77_777),
            b_dec: vector(d_in, 0.5),
            threshold: vec![round(threshold, weight_type); d_sae],
        };
        model.bytes = model.file();
        model
    }

    fn file(&self) -> Vec<u8> {
        let (d_in, d_sae) = (self.d_in, self.d_sae);
        self.pack(&[
            ("W_dec", vec![d_sae, d_in], &self.w_dec),
            ("W_enc", vec![d_in, d_sae], &self.w_enc),
            ("b_dec", vec![d_in], &self.b_dec),
            ("b_enc", vec![d_sae], &self.b_enc),
            ("threshold", vec![d_sae], &self.threshold),
        ])
    }

    /// The same as a TopK model, with [`L0`] features of every row.
    pub(crate) fn top_k_file(&self) -> Vec<u8> {
        let (d_in, d_sae) = (self.d_in, self.d_sae);
        self.pack(&[
            ("W_dec", vec![d_sae, d_in], &self.w_dec),
            ("W_enc", vec![d_in, d_sae], &self.w_enc),
            ("b_dec", vec![d_in], &self.b_dec),
            ("b_enc", vec![d_sae], &self.b_enc),
        ])
    }

    /// Opens a copy of [`Model::top_k_file`].
    pub(crate) fn open_top_k<'b>(&self, bytes: &'b [u8]) -> Sae<'b> {
        let config = serde_json::json!({
            "architecture": "topk",
            "k": L0,
            "d_in": self.d_in,
            "d_sae": self.d_sae,
            "dtype": "float32",
            "apply_b_dec_to_input": true,
            "normalize_activations": "none",
            "metadata": { "hook_name": "blocks.12.hook_resid_post" },
        });
        let options = OpenOptions::default();
        Sae::from_bytes(
            "sae_weights.safetensors",
            bytes,
            Some(&config.to_string()),
            &options,
        )
        .expect("a model of the benches opens")
    }

    /// A safetensors file.
    fn pack(&self, tensors: &[(&str, Vec<usize>, &[f32])]) -> Vec<u8> {
        let name = match self.weight_type {
            WeightType::F32 => "F32",
            WeightType::F16 => "F16",
            WeightType::BF16 => "BF16",
        };
        let mut header = serde_json::Map::new();
        let mut start = 0;
        for (tensor, shape, values) in tensors {
            let end = start + values.len() * self.weight_type.size();
            header.insert(
                (*tensor).into(),
                serde_json::json!({ "dtype": name, "shape": shape, "data_offsets": [start, end] }),
            );
            start = end;
        }
        let header = serde_json::Value::from(header).to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.reserve_exact(start);
        for (_, _, values) in tensors {
            match self.weight_type {
                WeightType::F32 => bytes.extend_from_slice(bytemuck::cast_slice(values)),
                WeightType::F16 => {
                    let values = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes());
                    bytes.extend(values);
                }
                WeightType::BF16 => {
                    let values = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes());
                    bytes.extend(values);
                }
            }
        }
        bytes
    }

    /// The same encoder in Llama Scope's form, which stores it in rows.
    pub(crate) fn rows_file(&self) -> Vec<u8> {
        let (d_in, d_sae) = (self.d_in, self.d_sae);
        let mut encoder = vec![0.0; d_in * d_sae];
        for columns in (0..d_sae).step_by(64) {
            for (j, row) in self.w_enc.chunks_exact(d_sae).enumerate() {
                for feature in columns..(columns + 64).min(d_sae) {
                    encoder[feature * d_in + j] = row[feature];
                }
            }
        }
        self.pack(&[
            ("encoder.weight", vec![d_sae, d_in], &encoder),
            // of the right shape, and not looked at by an encode
            ("decoder.weight", vec![d_in, d_sae], &self.w_dec),
            ("decoder.bias", vec![d_in], &self.b_dec),
            ("encoder.bias", vec![d_sae], &self.b_enc),
        ])
    }

    /// Opens a copy of [`Model::rows_file`].
    pub(crate) fn open_rows<'b>(&self, bytes: &'b [u8]) -> Sae<'b> {
        let config = serde_json::json!({
            "act_fn": "jumprelu",
            "jump_relu_threshold": self.threshold[0],
            "d_model": self.d_in,
            "d_sae": self.d_sae,
            "apply_decoder_bias_to_pre_encoder": true,
            "norm_activation": "none",
        });
        let options = OpenOptions::default();
        Sae::from_bytes(
            "final.safetensors",
            bytes,
            Some(&config.to_string()),
            &options,
        )
        .expect("a model of the benches opens")
    }

    /// The bytes of the decoder's row of a feature in a copy of [`Model::bytes`].
    pub(crate) fn decoder_row_bytes<'b>(&self, file: &'b [u8], feature: u32) -> &'b [u8] {
        let header = u64::from_le_bytes(*file.first_chunk().expect("a header")) as usize;
        let row = self.d_in * self.weight_type.size();
        &file[8 + header + feature as usize * row..][..row]
    }

    /// Opens a copy of the file's bytes.
    pub(crate) fn open<'b>(&self, bytes: &'b [u8]) -> Sae<'b> {
        let config = serde_json::json!({
            "architecture": "jumprelu",
            "d_in": self.d_in,
            "d_sae": self.d_sae,
            "dtype": "float32",
            "apply_b_dec_to_input": true,
            "normalize_activations": "none",
            "metadata": { "hook_name": "blocks.12.hook_resid_post" },
        });
        let options = OpenOptions::default();
        Sae::from_bytes(
            "sae_weights.safetensors",
            bytes,
            Some(&config.to_string()),
            &options,
        )
        .expect("a model of the benches opens")
    }

    /// The decoder row of a feature.
    pub(crate) fn decoder_row(&self, feature: u32) -> &[f32] {
        &self.w_dec[feature as usize * self.d_in..][..self.d_in]
    }

    /// Bytes of one of the two matrices.
    pub(crate) fn matrix_bytes(&self) -> usize {
        self.d_in * self.d_sae * self.weight_type.size()
    }

    /// `2304x16384 F32`
    pub(crate) fn name(&self) -> String {
        format!("{}x{} {}", self.d_in, self.d_sae, self.weight_type.name())
    }

    /// An activation row.
    pub(crate) fn row(&self) -> Vec<f32> {
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        (0..self.d_in).map(|_| random.value() * 3.0).collect()
    }

    /// The features of a row: exact products added in 16 lanes, the lanes in a fixed tree, one
    /// rounding to f32, a strict threshold.
    pub(crate) fn encode(&self, row: &[f32]) -> Vec<(u32, f32)> {
        let mut lanes = vec![[0.0_f64; 16]; self.d_sae];
        for (i, (x, weights)) in row
            .iter()
            .zip(self.w_enc.chunks_exact(self.d_sae))
            .enumerate()
        {
            let x = f64::from((f64::from(*x) - f64::from(self.b_dec[i])) as f32);
            for (lanes, w) in lanes.iter_mut().zip(weights) {
                lanes[i % 16] += x * f64::from(*w);
            }
        }
        let mut features = Vec::new();
        for (feature, mut lanes) in lanes.into_iter().enumerate() {
            for half in [8, 4, 2, 1] {
                for lane in 0..half {
                    lanes[lane] += lanes[lane + half];
                }
            }
            let pre = (lanes[0] + f64::from(self.b_enc[feature])) as f32;
            if pre > self.threshold[feature] {
                features.push((feature as u32, pre));
            }
        }
        features
    }

    /// The reconstruction: in ascending order of the features, one rounding to f32.
    pub(crate) fn decode(&self, features: &[(u32, f32)]) -> Vec<f32> {
        let mut sums = vec![0.0_f64; self.d_in];
        for &(feature, value) in features {
            let weights = &self.w_dec[feature as usize * self.d_in..][..self.d_in];
            for (sum, w) in sums.iter_mut().zip(weights) {
                *sum += f64::from(value) * f64::from(*w);
            }
        }
        let sums = sums.iter().zip(&self.b_dec);
        sums.map(|(sum, bias)| (sum + f64::from(*bias)) as f32)
            .collect()
    }
}

fn round(value: f32, weight_type: WeightType) -> f32 {
    match weight_type {
        WeightType::F32 => value,
        WeightType::F16 => f16::from_f32(value).to_f32(),
        WeightType::BF16 => bf16::from_f32(value).to_f32(),
    }
}

/// A small generator of repeatable numbers (xorshift64*).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From -1 to 1.
    pub(crate) fn value(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// `count` different numbers below `limit`, ascending.
    pub(crate) fn distinct(&mut self, count: usize, limit: usize) -> Vec<u32> {
        let mut numbers = std::collections::BTreeSet::new();
        while numbers.len() < count {
            numbers.insert((self.next() % limit as u64) as u32);
        }
        numbers.into_iter().collect()
    }
}
