//! Steering in its full form: all features of a row, edited, decoded, with the reconstruction
//! error added or not. In f64 throughout; nothing here knows that most features do not change.
//!
//! ```text
//! error kept:     y' = decode(f') + (y - decode(f))
//! error dropped:  y' = decode(f')
//! ```

use super::d1;
use super::model::Model;

/// Dense features of a row, `[d_sae]`: the values that encode reports, to the bit.
pub(crate) fn features(model: &Model, x: &[f32]) -> Vec<f64> {
    let mut dense = vec![0.0; model.d_sae];
    for &(index, value) in d1::encode(model, x).features() {
        dense[index as usize] = f64::from(value);
    }
    dense
}

/// Pre-activations of a row, rounded to f32 as the library reports them.
pub(crate) fn pre_activations(model: &Model, x: &[f32]) -> Vec<f64> {
    let input: Vec<f64> = d1::input(model, x).0.iter().map(|&x| x.into()).collect();
    let pre = |i| {
        let scaled = model.scale_of(i) * d1::dot(model.encoder_row(i), &input);
        f64::from((scaled + model.bias[i]) as f32)
    };
    (0..model.d_sae).map(pre).collect()
}

/// The steered row, and for each entry the scale of the rounding errors in it.
pub(crate) fn full(
    model: &Model,
    x: &[f32],
    y: &[f64],
    before: &[f64],
    after: &[f64],
    keep_error: bool,
) -> (Vec<f64>, Vec<f64>) {
    let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    let sparse = |dense: &[f64]| -> Vec<(u32, f64)> { (0..).zip(dense.iter().copied()).collect() };
    let (with, mut scale) = model.decode(&sparse(after), &x);
    if !keep_error {
        return (with, scale);
    }
    let (without, other) = model.decode(&sparse(before), &x);
    let steered = (0..y.len())
        .map(|c| with[c] + (y[c] - without[c]))
        .collect();
    for c in 0..y.len() {
        scale[c] += other[c] + y[c].abs();
    }
    (steered, scale)
}

/// A rule by the name it has in plans, on one value.
pub(crate) fn rule(name: &str, f: f64, c: f64) -> f64 {
    match name {
        "set" => c,
        "add" => f + c,
        "scale" => f * c,
        "max_clamp" => f.max(c),
        "min_cap" => f.min(c),
        "zero" => 0.0,
        "negative_when_active" => {
            if f > 0.0 {
                -c
            } else {
                f
            }
        }
        "replace_positive" => f - f.max(0.0) + c,
        "remove" => f - f.min(c).max(0.0),
        other => panic!("rule {other}"),
    }
}
