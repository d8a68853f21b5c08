//! The numbers of the theorem: integers, steps and norms.

use super::*;

/// The theorem's `h`, `T` and `U`.
pub(super) fn row_numbers(coded: &Coded, centre_norm: f64, d_in: usize, floor: f64) -> TileRow {
    let eta = (d_in as f64 / 16.0 + 64.0) * 2.3e-16;
    let both = coded.norm + coded.residual;
    let rounded = coded.residual + coded.norm * (0.5 * f64::from(f32::EPSILON));
    TileRow {
        step: coded.step,
        coded: (rounded + eta * (both + centre_norm)) * (1.0 + 1e-6),
        spread: both * (1.0 + 1e-6),
        floor,
    }
}

/// The theorem's `scale a`, `scale (w . c) + bias`, `Q`, `R` and `B` of a feature whose product
/// with the centre is given.
pub(super) fn set_feature(
    bounds: &mut PanelBounds,
    i: usize,
    asked: &Asked,
    coded: &Coded,
    product: f64,
) {
    let size = asked.scale.abs();
    bounds.weight[i] = asked.scale * coded.step;
    bounds.offset[i] = asked.scale * product + asked.bias;
    bounds.coded[i] = size * (coded.norm + coded.residual);
    bounds.residual[i] = size * coded.residual;
    bounds.slack[i] = 4e-15 * asked.bias.abs() + 1e-290;
    bounds.threshold[i] = f64::from(asked.threshold);
}

/// What [`quantise`] found out: upper bounds of norms, in the units of the values.
pub(super) struct Coded {
    pub(super) step: f64,
    pub(super) norm: f64,
    pub(super) residual: f64,
}

/// Values as integers. Where no step fits, the integers are zeros and the norms infinite.
pub(super) fn quantise(kernels: &BlockedKernels, values: &[f32], integers: &mut [i16]) -> Coded {
    let d = values.len() as f64;
    let [squares, largest] = kernels.measure(values);
    let norm = norm_up(squares);
    let room = LARGEST_NORM - 1.0 - 0.5 * libm::sqrt(d);
    let needed = (norm / room).max(largest / f64::from(LARGEST));
    // The smallest power of two that is not below; small values need no smaller step than 2^-100,
    // and 2^125 has a reciprocal that is a normal f32.
    let exponent = match needed > 0.0 {
        true => i32::max(exponent_above(needed), -100),
        false => -100,
    };
    if !norm.is_finite() || exponent > 125 {
        integers.fill(0);
        return Coded {
            step: 0.0,
            norm: f64::INFINITY,
            residual: f64::INFINITY,
        };
    }
    let step = power_of_two(exponent);
    let squares = kernels.quantise(values, power_of_two(-exponent) as f32, integers);
    let lanes = 1.0 + (d / 16.0 + 16.0) * 1.2e-7;
    Coded {
        step,
        norm,
        residual: (libm::sqrt(squares * lanes) * (1.0 + 1e-12) + 1e-15) * step,
    }
}

/// An upper bound of the root of a sum of squares.
pub(super) fn norm_up(squares: f64) -> f64 {
    libm::sqrt(squares * (1.0 + 1e-9))
}

pub(super) fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// The exponent of the smallest power of two that is not below a positive, normal number.
pub(super) fn exponent_above(value: f64) -> i32 {
    let bits = value.to_bits();
    let exponent = (bits >> 52) as i32 - 1023;
    exponent + i32::from(bits << 12 != 0)
}
