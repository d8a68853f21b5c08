//! Every selection rule, pursuit and composition: against goldens of the publishers' code or
//! formulas, against the f64 reference over random models, and its properties and edge cases.
//! The parts are made of plain arrays here; the conventions have tests of their own.
#![cfg(feature = "std")]

#[path = "../library/mod.rs"]
mod library;
#[path = "../reference/mod.rs"]
mod reference;

mod batches;
mod ensembles;
mod files;
mod goldens;
mod kinds;
mod knobs;
mod layers;
mod lorsa;
mod monitoring;
mod multi_target;
mod properties;
mod pursuits;
mod rules;
mod sites;
mod steering;

use library::parts::{self, Stored, dense, matrix, tensor};
use library::{bits, encode_decode, rows};
use reference::arrays::{Case, norms, rows_of};
use reference::model::{absolute_dot, dot};
use reference::random::Random;
use reference::read::Array;
use reference::{pursuit, rules as formulas};
use sae::model::{Activation, Block, Glu, Matrix, Parts, Pursuit, Rank, Thresholds, ValueMap};
use sae::{Error, Features, Sae, Scratch};

const TWO_24: f64 = 1.0 / (1u64 << 24) as f64;

/// The golden values, within the rounding of the result to f32 and of the prepared input.
fn assert_values(found: &[f32], golden: &[f64], bound: impl Fn(usize) -> f64, place: &str) {
    assert_eq!(found.len(), golden.len());
    for (i, (&found, &golden)) in found.iter().zip(golden).enumerate() {
        let error = (f64::from(found) - golden).abs();
        let allowed = TWO_24 * golden.abs() + bound(i);
        assert!(error <= allowed, "{place}, {i}: {found}, not {golden}");
        assert_eq!(
            found == 0.0,
            golden == 0.0,
            "{place}, {i}: {found}, not {golden}"
        );
    }
}

/// An affine model with a ReLU, from arrays named as most publishers do; columns of `encoder` are
/// features.
struct Affine {
    encoder: Vec<Vec<f64>>,
    bias: Vec<f64>,
    center: Option<Vec<f64>>,
    decoder: Vec<Vec<f64>>,
    decoder_bias: Vec<f64>,
}

impl Affine {
    /// The prepared row, exactly.
    fn input(&self, x: &[f64]) -> Vec<f64> {
        let center = |j: usize| self.center.as_ref().map_or(0.0, |center| center[j]);
        (0..x.len()).map(|j| x[j] - center(j)).collect()
    }

    /// pre of every feature.
    fn pre(&self, x: &[f64]) -> Vec<f64> {
        let input = self.input(x);
        let pre = |(row, bias): (&Vec<f64>, &f64)| dot(row, &input) + bias;
        self.encoder.iter().zip(&self.bias).map(pre).collect()
    }

    /// Its parts with a rule.
    fn parts(&self, activation: Activation, stored: Stored) -> Parts<'static> {
        let encoder = matrix("encoder", &self.encoder, stored);
        let decoder = matrix("decoder", &self.decoder, stored);
        Parts {
            center: self.center.clone(),
            bias: Some(self.bias.clone()),
            decoder_bias: Some(self.decoder_bias.clone()),
            ..Parts::new(encoder, activation, decoder)
        }
    }

    /// Compares with the goldens of a case.
    fn check(&self, case: &Case, make: impl Fn(Stored) -> Parts<'static>) -> Features {
        let (features, reconstructions) =
            parts::run(make, &case.rows.f32_values(), case.rows.shape[1]);
        let golden = case.golden("features64");
        let recon = case.golden("recon64");
        let d_out = recon[0].len();
        for (row, found) in dense(&features, golden[0].len()).iter().enumerate() {
            let x = case.row(row);
            let place = format!("{}, row {row}", case.name);
            // Centring rounds the input to f32.
            let rounding = if self.center.is_some() {
                2.0 * TWO_24
            } else {
                1e-12
            };
            let centred = |j: usize| x[j] - self.center.as_ref().map_or(0.0, |c| c[j]);
            let centred: Vec<f64> = (0..x.len()).map(centred).collect();
            let bound = |i: usize| rounding * absolute_dot(&self.encoder[i], &centred);
            assert_values(found, &golden[row], bound, &place);
            let largest = recon[row].iter().fold(1.0f64, |most, y| most.max(y.abs()));
            for (c, y) in reconstructions[row * d_out..][..d_out].iter().enumerate() {
                let error = (f64::from(*y) - recon[row][c]).abs();
                assert!(error <= 2e-6 * largest, "{place}, column {c}");
            }
        }
        features
    }
}

/// The k largest, ReLU after.
fn top_k(k: usize) -> Activation {
    Activation::TopK {
        k,
        rank: Rank::Value,
        relu: true,
    }
}

/// relu(pre) where the rank is above the thresholds.
fn jump(threshold: Thresholds) -> Activation {
    Activation::JumpRelu {
        threshold,
        relu: true,
        inclusive: false,
    }
}

/// Small whole numbers, so that every sum is exact and ties are everywhere.
fn whole(random: &mut Random, count: usize) -> Vec<f64> {
    (0..count).map(|_| random.below(7) as f64 - 3.0).collect()
}

/// Numbers in (-2, 2).
fn spread(random: &mut Random, count: usize) -> Vec<f64> {
    (0..count).map(|_| f64::from(random.number())).collect()
}

/// A random model whose numbers come from `numbers`.
fn affine(
    random: &mut Random,
    numbers: fn(&mut Random, usize) -> Vec<f64>,
    d_in: usize,
    d_sae: usize,
    d_out: usize,
) -> Affine {
    let mut vectors = |count: usize, width: usize| {
        (0..count)
            .map(|_| numbers(random, width))
            .collect::<Vec<_>>()
    };
    let (encoder, decoder) = (vectors(d_sae, d_in), vectors(d_sae, d_out));
    Affine {
        encoder,
        decoder,
        bias: numbers(random, d_sae),
        center: (d_in == d_out && random.below(2) == 0).then(|| numbers(random, d_in)),
        decoder_bias: numbers(random, d_out),
    }
}

/// The dictionary of a pursuit, with its bias and whether the input is centred.
fn pursuit_parts(
    atoms: &[Vec<f64>],
    bias: Option<&[f64]>,
    rule: &Pursuit,
    stored: Stored,
) -> Parts<'static> {
    let dictionary = matrix("dictionary", atoms, stored);
    let rule = Activation::Pursuit(rule.clone());
    Parts {
        center: bias.map(<[f64]>::to_vec),
        decoder_bias: bias.map(<[f64]>::to_vec),
        ..Parts::new(dictionary.clone(), rule, dictionary)
    }
}

/// A cross-layer transcoder of circuit-tracer: block l of the encoder reads layer l, and its
/// features write to the layers from l on.
struct CrossLayer {
    layers: usize,
    d: usize,
    n: usize,
    encoders: Vec<Vec<Vec<f64>>>,
    decoders: Vec<Vec<Vec<f64>>>,
    bias: Vec<f64>,
    decoder_bias: Vec<f64>,
    threshold: Option<Vec<f32>>,
}

impl CrossLayer {
    fn of(case: &Case) -> Self {
        let (layers, d, n) = (3, 64, 200);
        let mut this = CrossLayer {
            layers,
            d,
            n,
            encoders: vec![],
            decoders: vec![],
            bias: vec![],
            decoder_bias: vec![],
            threshold: None,
        };
        for layer in 0..layers {
            let file = case.safetensors(&format!("W_enc_{layer}.safetensors"));
            this.encoders
                .push(rows_of(&file[&format!("W_enc_{layer}")]));
            this.bias.extend(&file[&format!("b_enc_{layer}")].values);
            this.decoder_bias
                .extend(&file[&format!("b_dec_{layer}")].values);
            if let Some(theta) = file.get(&format!("threshold_{layer}")) {
                let all = this.threshold.get_or_insert_default();
                all.extend(theta.f32_values());
            }
            let file = case.safetensors(&format!("W_dec_{layer}.safetensors"));
            let decoder = &file[&format!("W_dec_{layer}")];
            assert_eq!(decoder.shape, [n, layers - layer, d]);
            let width = (layers - layer) * d;
            this.decoders
                .push(decoder.values.chunks_exact(width).map(Vec::from).collect());
        }
        this
    }

    fn parts(&self, stored: Stored) -> Parts<'static> {
        let (d_in, d_sae) = (self.layers * self.d, self.layers * self.n);
        let blocks = |name: &str, matrices: &[Vec<Vec<f64>>]| {
            let blocks = matrices.iter().enumerate().map(|(layer, vectors)| Block {
                first_feature: layer * self.n,
                first_column: layer * self.d,
                matrix: matrix(name, vectors, stored),
            });
            Matrix::from_blocks(name, d_sae, d_in, blocks.collect()).unwrap()
        };
        let activation = match &self.threshold {
            None => Activation::Relu,
            Some(theta) => Activation::JumpRelu {
                threshold: Thresholds::PerFeature(theta.clone()),
                relu: true,
                inclusive: false,
            },
        };
        let encoder = blocks("W_enc", &self.encoders);
        Parts {
            bias: Some(self.bias.clone()),
            decoder_bias: Some(self.decoder_bias.clone()),
            ..Parts::new(encoder, activation, blocks("W_dec", &self.decoders))
        }
    }
}
