//! What the device may leave out: the numbers of the theorem in [`super`], for features and for rows.

use crate::model::Asked;

/// One unit in the last place, relative, of a normal f32: an operation that may round in either
/// direction errs by less.
const ULP: f64 = 1.0 / (1u64 << 23) as f64;

/// Operations on the four terms of a bound, and half as many again: see the theorem.
const LAST: f64 = 20.0 * ULP;

/// What is lost at most, in each operation, where subnormal numbers become zeros; twice that.
const FLUSHED: f64 = power_of_two(-125);

/// A bound on what the device's last operations lose to that, and a normal number with room below.
const LEAST_SLACK: f64 = power_of_two(-110);

/// Features and rows within these have bounds without overflow.
const MOST_NORM: f64 = power_of_two(40);
const MOST_SPREAD: f64 = power_of_two(60);
const MOST_WEIGHT: f64 = power_of_two(20);
const LEAST_WEIGHT: f64 = power_of_two(-60);
const MOST_OFFSET: f64 = power_of_two(100);
const MOST_MARGIN: f64 = power_of_two(60);

/// The widest rows: `(1 + ulp)^n - 1` stays near `n ulp`.
pub(super) const WIDEST: usize = 1 << 16;

/// The limit of a feature that the device leaves to the host. No key is above it.
pub(super) const OFF: u32 = u32::MAX;

/// Weights of a feature as the device has them, `w = step (w~ + r)`; upper bounds of norms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    pub(super) step: f64,
    /// `|w~|`.
    pub(super) norm: f64,
    /// `|step r|`.
    pub(super) residual: f64,
}

/// The centre that rows are less when they meet the device's weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Centre {
    /// The exact product with the feature.
    pub(super) product: f64,
    /// Its norm.
    pub(super) norm: f64,
}

/// `weight, offset, margin per spread, slack` of a feature, or `None` where they cannot be formed.
pub(super) fn feature(
    asked: &Asked,
    stored: &Stored,
    centre: &Centre,
    d_in: usize,
) -> Option<[f32; 4]> {
    let d = d_in as f64;
    // Products, additions, and additions of the zeros that rows are padded with.
    let n = d + 32.0;
    let any_order = n * ULP * (1.0 + n * ULP);
    let eta = (d / 16.0 + 64.0) * 2.3e-16;
    let size = asked.scale.abs();
    let weight = asked.scale * stored.step;
    let offset = asked.scale * centre.product + asked.bias;
    let coded = stored.step * stored.norm;
    let whole = coded + stored.residual;
    let root = libm::sqrt(d);
    let margin = size * (coded * (any_order + LAST) + stored.residual + whole * (ULP + eta))
        + weight.abs() * root * FLUSHED;
    let slack = weight.abs() * FLUSHED * (root * stored.norm + 2.0 * n)
        + size * whole * eta * centre.norm
        + LAST * offset.abs()
        + 4e-15 * asked.bias.abs()
        + LEAST_SLACK;
    let within = stored.norm <= MOST_NORM
        && (LEAST_WEIGHT..=MOST_WEIGHT).contains(&weight.abs())
        && offset.abs() <= MOST_OFFSET
        && margin <= MOST_MARGIN
        && slack <= MOST_OFFSET
        && d_in <= WIDEST;
    within.then(|| {
        [
            weight as f32,
            offset as f32,
            up(margin * (1.0 + LAST)).max(LEAST_SLACK as f32),
            up(slack * (1.0 + LAST)),
        ]
    })
}

/// The spread of a row less the centre, from the sum of its squares, or `None` for a row that the
/// host encodes.
pub(super) fn row(squares: f64) -> Option<f32> {
    let norm = norm_up(squares);
    // Written so that a NaN is refused.
    (norm <= MOST_SPREAD).then(|| up(norm).max(LEAST_WEIGHT as f32))
}

/// An upper bound of the root of a sum of squares, formed in f64 in 16 lanes.
pub(super) fn norm_up(squares: f64) -> f64 {
    libm::sqrt(squares * (1.0 + 1e-9))
}

/// A key that orders as floats do, the lower -0 below +0.
pub(super) fn key(value: f32) -> u32 {
    let bits = value.to_bits();
    match bits >> 31 {
        0 => bits | 1 << 31,
        _ => !bits,
    }
}

/// The float of a key.
pub(super) fn value(key: u32) -> f32 {
    f32::from_bits(match key >> 31 {
        0 => !key,
        _ => key & !(1 << 31),
    })
}

/// Rounded up to f32.
fn up(value: f64) -> f32 {
    let near = value as f32;
    match f64::from(near) < value {
        true => near.next_up(),
        false => near,
    }
}

const fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Kernels, Level, WeightType};
    use alloc::vec::Vec;

    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        /// From -1 to 1.
        fn value(&mut self) -> f64 {
            (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        }
    }

    /// How a device may round: up, down, or as it comes; and whether it flushes.
    #[derive(Clone, Copy, Debug)]
    struct Device {
        direction: u64,
        flush: bool,
    }

    impl Device {
        /// One of the two neighbours of a real number, or zero for a subnormal one.
        fn round(self, exact: f64, random: &mut Random) -> f32 {
            let near = exact as f32;
            let (below, above) = match f64::from(near) {
                n if n < exact => (near, near.next_up()),
                n if n > exact => (near.next_down(), near),
                _ => (near, near),
            };
            let rounded = match self.direction {
                0 => below,
                1 => above,
                2 => near,
                _ => [below, above][(random.next() & 1) as usize],
            };
            self.flushed(rounded)
        }

        fn flushed(self, value: f32) -> f32 {
            match self.flush && value.abs() < f32::MIN_POSITIVE {
                true => 0.0,
                false => value,
            }
        }

        fn multiply(self, a: f32, b: f32, random: &mut Random) -> f32 {
            let (a, b) = (self.flushed(a), self.flushed(b));
            self.round(f64::from(a) * f64::from(b), random)
        }

        fn add(self, a: f32, b: f32, random: &mut Random) -> f32 {
            // The sum of two f32 in f64 can be inexact, by a relative 2^-53: far below what the
            // bound leaves.
            let (a, b) = (self.flushed(a), self.flushed(b));
            self.round(f64::from(a) + f64::from(b), random)
        }

        /// A sum from left to right, or in a random order, fused here and there.
        fn dot(self, w: &[f32], y: &[f32], in_order: bool, random: &mut Random) -> f32 {
            if in_order {
                return w.iter().zip(y).fold(0.0, |sum, (&w, &y)| {
                    let product = self.multiply(w, y, random);
                    self.add(sum, product, random)
                });
            }
            let mut terms: Vec<f32> = Vec::new();
            for (&w, &y) in w.iter().zip(y) {
                match random.next() % 3 {
                    0 if !terms.is_empty() => {
                        let last = terms.len() - 1;
                        let (w, y) = (self.flushed(w), self.flushed(y));
                        let exact = f64::from(w) * f64::from(y) + f64::from(terms[last]);
                        terms[last] = self.round(exact, random);
                    }
                    _ => terms.push(self.multiply(w, y, random)),
                }
            }
            while terms.len() > 1 {
                let at = (random.next() % (terms.len() - 1) as u64) as usize;
                let b = terms.swap_remove(terms.len() - 1);
                terms[at] = self.add(terms[at], b, random);
            }
            terms.first().copied().unwrap_or(0.0)
        }
    }

    fn exact(weights: &[f32], x: &[f32]) -> f64 {
        let kernels = Kernels::for_level(Level::Scalar).expect("the scalar level");
        let mut out = [0.0];
        kernels.dot_rows(
            WeightType::F32,
            bytemuck::cast_slice(weights),
            0,
            x,
            &mut out,
        );
        out[0]
    }

    fn norm(values: &[f32]) -> f64 {
        let squares: f64 = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        norm_up(squares)
    }

    /// Whatever a device does that the theorem allows, the bounds hold; and they are not loose by
    /// orders of magnitude where all terms have one sign.
    #[test]
    fn no_device_leaves_the_bounds() {
        let mut random = Random(7);
        let mut worst = 0f64;
        let mut formed = 0;
        for case in 0..4000u64 {
            let d = [1, 2, 7, 33, 500, 2000][case as usize % 6];
            let size = [1.0, 1e-20, 1e8, 1e-38, 1e-3][case as usize / 6 % 5];
            let device = Device {
                direction: case % 4,
                flush: case % 5 < 3,
            };
            let one_sign = case % 7 < 3;
            let make = |size: f64, random: &mut Random| -> Vec<f32> {
                let value = |_| match one_sign {
                    true => ((random.value().abs() * 0.1 + 1.0) * size) as f32,
                    false => (random.value().powi(3) * size) as f32,
                };
                (0..d).map(value).collect()
            };
            let w = make(size, &mut random);
            let x = make([1.0, 1e4, 1e-35][case as usize / 30 % 3], &mut random);
            let centre: Vec<f32> = match case % 3 {
                0 => alloc::vec![0.0; d],
                _ => x.iter().map(|v| v * 0.9).collect(),
            };
            let y: Vec<f32> = x.iter().zip(&centre).map(|(x, c)| x - c).collect();
            let asked = Asked {
                scale: [1.0, -2.5, 0.001][case as usize / 90 % 3],
                bias: [0.0, 0.3, -1e5][case as usize / 270 % 3],
                threshold: 0.0,
            };
            // Weights as they are, or as bytes.
            let (step, held): (f64, Vec<f32>) = match case % 2 {
                0 => (1.0, w.clone()),
                _ => {
                    let largest = w.iter().fold(0f32, |a, v| a.max(v.abs()));
                    let step = f64::from(largest / 127.0).max(1e-30);
                    let held = w.iter().map(|v| libm::rint(f64::from(*v) / step) as f32);
                    (step, held.collect())
                }
            };
            let left = w.iter().zip(&held);
            let left: f64 = left
                .map(|(w, q)| libm::pow(f64::from(*w) - step * f64::from(*q), 2.0))
                .sum();
            let stored = Stored {
                step,
                norm: norm(&held),
                residual: norm_up(left),
            };
            let centre = Centre {
                product: exact(&w, &centre),
                norm: norm(&centre),
            };
            let squares: f64 = y.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
            let (Some([weight, offset, margin, slack]), Some(spread)) =
                (feature(&asked, &stored, &centre, d), row(squares))
            else {
                continue;
            };
            formed += 1;
            let sum = device.dot(&held, &y, case % 11 < 4, &mut random);
            let product = device.multiply(weight, sum, &mut random);
            let estimate = device.add(product, offset, &mut random);
            let spreads = device.multiply(margin, spread, &mut random);
            let all = device.add(spreads, slack, &mut random);
            let upper = device.add(estimate, all, &mut random);
            let lower = device.add(estimate, -all, &mut random);
            let p = asked.scale * exact(&w, &x) + asked.bias;
            assert!(f64::from(upper) >= p, "{case}: {upper} {p} {device:?}");
            assert!(f64::from(lower) <= p, "{case}: {lower} {p} {device:?}");
            if step == 1.0 {
                worst = worst.max((p - f64::from(estimate)).abs() / f64::from(all));
            }
        }
        assert!(formed > 2000, "{formed}");
        // Devices that add from left to right and round one way only reach this much of it.
        assert!(worst > 0.1, "{worst}");
    }

    #[test]
    fn keys_order_as_floats_do() {
        let ascending = [
            f32::NEG_INFINITY,
            -3.5,
            -1e-40,
            -0.0,
            0.0,
            1e-45,
            2.0,
            f32::INFINITY,
        ];
        for pair in ascending.windows(2) {
            assert!(key(pair[0]) < key(pair[1]));
        }
        for value_ in ascending {
            assert_eq!(value(key(value_)).to_bits(), value_.to_bits());
        }
        assert!(key(f32::INFINITY) < OFF);
    }

    #[test]
    fn what_cannot_be_bounded_is_the_hosts() {
        let asked = Asked {
            scale: 1.0,
            bias: 0.0,
            threshold: 0.0,
        };
        let stored = Stored {
            step: 1.0,
            norm: 1.0,
            residual: 0.0,
        };
        let centre = Centre {
            product: 0.0,
            norm: 0.0,
        };
        assert!(feature(&asked, &stored, &centre, 64).is_some());
        for scale in [0.0, 1e300, f64::NAN, 1e-30] {
            let asked = Asked { scale, ..asked };
            assert!(feature(&asked, &stored, &centre, 64).is_none(), "{scale}");
        }
        for norm in [f64::INFINITY, f64::NAN, 1e30] {
            let stored = Stored { norm, ..stored };
            assert!(feature(&asked, &stored, &centre, 64).is_none(), "{norm}");
        }
        for bias in [f64::INFINITY, f64::NAN, 1e60] {
            let asked = Asked { bias, ..asked };
            assert!(feature(&asked, &stored, &centre, 64).is_none(), "{bias}");
        }
        assert!(feature(&asked, &stored, &centre, WIDEST + 1).is_none());
        for squares in [f64::INFINITY, f64::NAN, 1e60] {
            assert!(row(squares).is_none(), "{squares}");
        }
        assert!(row(0.0).is_some_and(|spread| spread > 0.0));
    }
}
