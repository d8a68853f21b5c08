//! Models and rows of every kind that encoding in batches has to stand: huge, tiny, subnormal, equal,
//! not finite.

use super::bits;
use super::parts::{Stored, matrix};
use sae::model::{Activation, Parts, Rank, Thresholds};
use sae::{Features, Rows, Sae, Scratch};

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From -1 to 1.
    pub(crate) fn value(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    pub(crate) fn integers(&mut self, count: usize) -> Vec<i16> {
        (0..count)
            .map(|_| (self.next() as i16).max(-32_767) >> (self.next() % 3))
            .collect()
    }
}

/// The features of rows one at a time, through a scratch that has no room for batches.
pub(crate) fn alone(sae: &Sae<'_>, rows: Rows<'_>) -> Features {
    let mut scratch = Scratch::for_rows(sae, 1).unwrap();
    let mut features = Features::new();
    sae.encode(rows, &mut scratch, &mut features).unwrap();
    features
}

pub(crate) fn assert_same(found: &Features, expected: &Features, what: &str) {
    assert_eq!(found.row_ends(), expected.row_ends(), "{what}");
    assert_eq!(found.row_status(), expected.row_status(), "{what}");
    assert_eq!(found.indices(), expected.indices(), "{what}");
    assert_eq!(bits(found.values()), bits(expected.values()), "{what}");
}

pub(crate) const D_IN: usize = 33;
pub(crate) const D_SAE: usize = 203;

/// Weights with rows of every kind: usual, zero, huge, tiny, subnormal, equal to another.
pub(crate) fn weights(random: &mut Random) -> Vec<Vec<f64>> {
    let mut rows: Vec<Vec<f64>> = Vec::new();
    for i in 0..D_SAE {
        let size = match i % 50 {
            7 => 0.0,
            8 => 1e30,
            9 => 1e-30,
            10 => 1e-42,
            11 => 3e38,
            _ => 1.0,
        };
        rows.push(match i % 10 {
            6 => rows[i - 3].clone(),
            _ => (0..D_IN).map(|_| random.value() * size).collect(),
        });
    }
    rows
}

/// Rows of every kind.
pub(crate) fn inputs(random: &mut Random, count: usize) -> Vec<f32> {
    let mut values = Vec::new();
    for row in 0..count {
        let size = match row % 23 {
            3 => 0.0,
            4 => 1e30,
            5 => 1e-42,
            6 => 3e38,
            7 => 300.0,
            _ => 1.0,
        };
        let start = values.len();
        values.extend((0..D_IN).map(|_| (random.value() * size) as f32));
        match row % 29 {
            11 => values[start + 2] = f32::NAN,
            12 => values[start + 30] = f32::NEG_INFINITY,
            13 => values[start + 1] = 1e20,
            _ => {}
        }
    }
    values
}

pub(crate) fn rules() -> Vec<(&'static str, Activation)> {
    let jump = |relu, inclusive, low: f32| Activation::JumpRelu {
        threshold: Thresholds::PerFeature(
            (0..D_SAE)
                .map(|i| match i % 9 {
                    8 => f32::INFINITY,
                    _ => low + i as f32 * 0.01,
                })
                .collect(),
        ),
        relu,
        inclusive,
    };
    let top = |k, rank, relu| Activation::TopK { k, rank, relu };
    vec![
        ("relu", Activation::Relu),
        ("tanh", Activation::TanhRelu),
        ("jump", jump(true, false, 0.5)),
        ("jump below zero", jump(false, true, -1.0)),
        (
            "gated",
            Activation::Gated {
                gate_bias: (0..D_SAE).map(|i| 0.3 - i as f64 * 0.01).collect(),
            },
        ),
        ("top 1", top(1, Rank::Value, true)),
        ("top 9", top(9, Rank::Value, true)),
        ("top 9 of any sign", top(9, Rank::Value, false)),
        ("top 9 by magnitude", top(9, Rank::Magnitude, false)),
        ("all", top(D_SAE, Rank::Value, false)),
        ("leaky", Activation::LeakyRelu { slope: 0.01 }),
        (
            "groups",
            Activation::GroupTopK {
                groups: 7,
                k: 2,
                rank: Rank::Value,
                relu: true,
            },
        ),
    ]
}

pub(crate) fn model(activation: Activation, stored: Stored, weighted: bool) -> Sae<'static> {
    let mut random = Random(11);
    let encoder = weights(&mut random);
    let decoder = matrix("W_dec", &encoder, Stored::Rows);
    let mut parts = Parts::new(matrix("W_enc", &encoder, stored), activation, decoder);
    if weighted {
        let mut vector = |factor: f64| {
            Some(
                (0..D_SAE)
                    .map(|_| random.value() * factor)
                    .collect::<Vec<_>>(),
            )
        };
        parts.bias = vector(0.7);
        parts.scale = vector(2.0);
        if !matches!(
            parts.activation,
            Activation::Relu
                | Activation::TanhRelu
                | Activation::Gated { .. }
                | Activation::LeakyRelu { .. }
        ) {
            parts.rank_weight = vector(1.5).map(|w| w.iter().map(|w| w.abs()).collect());
        }
        parts.center = Some((0..D_IN).map(|_| random.value()).collect());
    }
    Sae::from_parts(parts).unwrap()
}
