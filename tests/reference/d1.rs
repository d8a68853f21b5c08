//! Design decision D1, to the bit: the order of every sum and the place of every rounding.
//! `tests/data/d1.py` is the same in NumPy, written apart.

use super::model::{Activation, Model, Normalization};

/// Adds up the products of a sum: 16 lanes, then one tree.
fn reduce(products: impl Iterator<Item = f64>) -> f64 {
    let mut lanes = [0.0; 16];
    for (i, product) in products.enumerate() {
        lanes[i % 16] += product;
    }
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

/// The dot product. Products of f32 values are exact in f64.
pub(crate) fn dot(w: &[f64], x: &[f64]) -> f64 {
    assert_eq!(w.len(), x.len());
    reduce(std::iter::zip(w, x).map(|(w, x)| w * x))
}

/// The plain sum, in the same order.
pub(crate) fn sum(values: &[f64]) -> f64 {
    reduce(values.iter().copied())
}

/// What decode needs to undo the normalisation of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Undo {
    /// Nothing to undo.
    Nothing,
    /// y sigma + mean
    LayerNorm { sigma: f64, mean: f64 },
    /// y / factor
    ConstantNorm { factor: f64 },
}

/// x' of a row, f32, and how to undo its normalisation.
pub(crate) fn input(model: &Model, row: &[f32]) -> (Vec<f32>, Undo) {
    let x: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
    let width = x.len() as f64;
    let squares = |values: &[f64]| sum(&values.iter().map(|v| v * v).collect::<Vec<f64>>());
    let (t, undo) = match model.normalization {
        Normalization::None => (x, Undo::Nothing),
        Normalization::LayerNorm => {
            let mean = sum(&x) / width;
            let centred: Vec<f64> = x.iter().map(|x| x - mean).collect();
            let sigma = (squares(&centred) / (width - 1.0)).sqrt();
            let t = centred.iter().map(|c| c / (sigma + 1e-5)).collect();
            (t, Undo::LayerNorm { sigma, mean })
        }
        Normalization::ConstantNorm => {
            let factor = width.sqrt() / squares(&x).sqrt();
            let t = x.iter().map(|x| x * factor).collect();
            (t, Undo::ConstantNorm { factor })
        }
    };
    let rounded = match &model.centre {
        None => t.iter().map(|&t| t as f32).collect(),
        Some(centre) => std::iter::zip(&t, centre)
            .map(|(t, c)| (t - c) as f32)
            .collect(),
    };
    (rounded, undo)
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Encoded {
    /// The features that fire: index and value, index ascending.
    Features(Vec<(u32, f32)>),
    /// The row, or x', has a value that is not finite.
    NonFinite,
}

impl Encoded {
    /// The features; none for a row that is not finite.
    pub(crate) fn features(&self) -> &[(u32, f32)] {
        match self {
            Encoded::Features(features) => features,
            Encoded::NonFinite => &[],
        }
    }
}

/// The features of a row.
pub(crate) fn encode(model: &Model, row: &[f32]) -> Encoded {
    let finite = |row: &[f32]| row.iter().all(|x| x.is_finite());
    if !finite(row) {
        return Encoded::NonFinite;
    }
    let (x, _) = input(model, row);
    if !finite(&x) {
        return Encoded::NonFinite;
    }
    let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    let dots: Vec<f64> = (0..model.d_sae)
        .map(|i| dot(model.encoder_row(i), &x))
        .collect();
    // Two roundings, never a fused multiply and add.
    let sums: Vec<f64> = (0..model.d_sae)
        .map(|i| match &model.scale {
            None => dots[i] + model.bias[i],
            Some(scale) => {
                let scaled = scale[i] * dots[i];
                scaled + model.bias[i]
            }
        })
        .collect();
    let pre: Vec<f32> = sums.iter().map(|&sum| sum as f32).collect();
    let positive = |i: &usize| pre[*i] > 0.0;
    let all = 0..model.d_sae;
    let value = |i: usize| (i as u32, pre[i]);
    let features: Vec<(u32, f32)> = match &model.activation {
        Activation::Relu => all.filter(positive).map(value).collect(),
        Activation::TanhRelu => all
            .filter(positive)
            .map(|i| (i as u32, libm::tanh(sums[i]) as f32))
            .collect(),
        Activation::JumpRelu { threshold } => all
            .filter(|&i| pre[i] > threshold[i] as f32)
            .filter(positive)
            .map(value)
            .collect(),
        Activation::Gated { gate_bias } => all
            .filter(|&i| (dots[i] + gate_bias[i]) as f32 > 0.0)
            .filter(positive)
            .map(value)
            .collect(),
        Activation::TopK(k) => largest(&pre, *k).filter(positive).map(value).collect(),
        Activation::AbsTopK(k) => {
            let magnitudes: Vec<f32> = pre.iter().map(|pre| pre.abs()).collect();
            largest(&magnitudes, *k)
                .filter(|&i| pre[i] != 0.0)
                .map(value)
                .collect()
        }
    };
    // Zero is never stored: tanh of a tiny sum can round to it.
    let nonzero = features.into_iter().filter(|&(_, value)| value != 0.0);
    Encoded::Features(nonzero.collect())
}

/// Indices of the k largest, ascending; of equal ones the first, NaN never.
fn largest(values: &[f32], k: usize) -> impl Iterator<Item = usize> {
    let mut order: Vec<usize> = (0..values.len()).filter(|&i| !values[i].is_nan()).collect();
    // A stable sort on a comparison that takes -0 and +0 as equal.
    order.sort_by(|&a, &b| values[b].partial_cmp(&values[a]).unwrap());
    order.truncate(k);
    order.sort_unstable();
    order.into_iter()
}

/// The reconstruction of a row, `[d_out]`: NaN throughout for one that is not finite.
pub(crate) fn decode(model: &Model, encoded: &Encoded, row: &[f32]) -> Vec<f32> {
    let features = match encoded {
        Encoded::Features(features) => features,
        Encoded::NonFinite => return vec![canonical(f32::NAN); model.d_out],
    };
    let mut y = vec![0.0f64; model.d_out];
    for &(index, value) in features {
        let index = index as usize;
        let mut a = f64::from(value);
        if let Some(scale) = &model.decoder_scale {
            a *= scale[index];
        }
        for (y, w) in std::iter::zip(&mut y, model.decoder_row(index)) {
            let product = a * w;
            *y += product;
        }
    }
    let undo = match model.undo_normalization {
        true => input(model, row).1,
        false => Undo::Nothing,
    };
    let x: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
    for c in 0..model.d_out {
        y[c] += model.b_dec[c];
        match undo {
            Undo::Nothing => {}
            Undo::LayerNorm { sigma, mean } => {
                let scaled = y[c] * sigma;
                y[c] = scaled + mean;
            }
            Undo::ConstantNorm { factor } => y[c] /= factor,
        }
        if let Some(skip) = &model.w_skip {
            y[c] += dot(&skip[c * model.d_in..][..model.d_in], &x);
        }
    }
    y.iter().map(|&y| canonical(y as f32)).collect()
}

/// Every NaN is the quiet NaN 0x7fc00000.
pub(crate) fn canonical(value: f32) -> f32 {
    if value.is_nan() {
        f32::from_bits(0x7fc0_0000)
    } else {
        value
    }
}
