//! Feature absorption: where a concept's own features are silent and others carry it.

use super::vectors::Vectors;
use crate::error::Error;
use crate::features::FeaturesRow;
use crate::model::Sae;
use alloc::vec::Vec;

/// What counts as absorption; the defaults are SAEBench's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AbsorptionOptions {
    /// Least cosine of an absorber with the probe: 0.1.
    pub cosine: f64,
    /// Least cosine of the strongest feature, for full absorption: 0.025.
    pub full_cosine: f64,
    /// Least share of the row's projection that absorbers carry: 0.4.
    pub share: f64,
    /// Most absorbers: 3.
    pub absorbers: usize,
}

impl Default for AbsorptionOptions {
    fn default() -> Self {
        AbsorptionOptions {
            cosine: 0.1,
            full_cosine: 0.025,
            share: 0.4,
            absorbers: 3,
        }
    }
}

/// Absorption in one row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Absorbed {
    /// Share of the concept that absorbers carry, from 0 to 1.
    pub fraction: f64,
    /// Whether the main features are all silent and one other feature carries the concept.
    pub full: bool,
}

/// A direction that stands for a concept (the weights of a linear probe), and the features that are
/// meant to carry it.
#[derive(Clone, Debug)]
pub struct Probe {
    unit: Vec<f64>,
    /// `cos(d_i, p)`
    cosines: Vec<f64>,
    main: Vec<u32>,
}

impl Probe {
    /// # Errors
    /// [`Error::Length`] unless the probe is d_out wide, [`Error::FeatureOutOfRange`],
    /// [`Error::InvalidArgument`] for a probe of length 0 or with values that are not finite; as
    /// [`Vectors::unit_decoder`].
    pub fn new(sae: &Sae<'_>, probe: &[f32], main: &[u32]) -> Result<Self, Error> {
        if probe.len() != sae.d_out() {
            return Err(Error::Length {
                what: "values of a probe",
                expected: sae.d_out() as u64,
                found: probe.len() as u64,
            });
        }
        if let Some(&feature) = main.iter().find(|&&f| f as usize >= sae.d_sae()) {
            return Err(Error::FeatureOutOfRange {
                feature: feature.into(),
                d_sae: sae.d_sae() as u64,
            });
        }
        let squares: f64 = probe.iter().map(|&p| f64::from(p) * f64::from(p)).sum();
        if !(squares > 0.0 && squares.is_finite()) {
            return Err(Error::InvalidArgument {
                what: "probe",
                expected: "finite values that are not all 0".into(),
                found: alloc::format!("a squared length of {squares}"),
            });
        }
        let unit: Vec<f64> = probe
            .iter()
            .map(|&p| f64::from(p) / libm::sqrt(squares))
            .collect();
        let vectors = Vectors::unit_decoder(sae)?;
        let cosine = |feature| project(vectors.row(feature), &unit);
        let mut main = main.to_vec();
        main.sort_unstable();
        main.dedup();
        Ok(Probe {
            cosines: (0..sae.d_sae()).map(cosine).collect(),
            unit,
            main,
        })
    }

    /// Cosine of a feature's decoder vector with the probe.
    pub fn cosine(&self, feature: u32) -> Option<f64> {
        self.cosines.get(feature as usize).copied()
    }

    /// Absorption in a row of the output site with these features. With `c_i = f_i cos(d_i, p)`, M the
    /// sum of c over the main features, P the row's projection `<x, p>`, and A the sum of the largest
    /// `absorbers` positive c of other features with a cosine of at least `cosine`: the fraction is 0
    /// if `M >= P` or `A / P < share`, 1 if `M <= 0`, else `a / (a + M)` with `a = min(A, P - M)`. Full
    /// absorption: no main feature is active, `P >= 0`, and the largest c has a cosine of at least
    /// `full_cosine` and is at least `share` of P.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::FeatureOutOfRange`].
    pub fn absorption(
        &self,
        row: &[f32],
        features: FeaturesRow<'_>,
        options: &AbsorptionOptions,
    ) -> Result<Absorbed, Error> {
        if row.len() != self.unit.len() {
            return Err(Error::Length {
                what: "values of a row",
                expected: self.unit.len() as u64,
                found: row.len() as u64,
            });
        }
        let projection = project(row, &self.unit);
        let (mut main, mut silent) = (0.0, true);
        let mut others: Vec<f64> = Vec::new();
        // Inactive features carry 0, with whatever cosine.
        let mut strongest = (0.0, f64::NEG_INFINITY);
        for (&index, &value) in features.indices.iter().zip(features.values) {
            let Some(cosine) = self.cosine(index) else {
                return Err(Error::FeatureOutOfRange {
                    feature: index.into(),
                    d_sae: self.cosines.len() as u64,
                });
            };
            let carried = f64::from(value) * cosine;
            if carried > strongest.0 {
                strongest = (carried, cosine);
            }
            if self.main.binary_search(&index).is_ok() {
                main += carried;
                silent &= value.abs() < 1e-8;
            } else if carried > 0.0 && cosine >= options.cosine {
                others.push(carried);
            }
        }
        others.sort_by(|a, b| b.total_cmp(a));
        let absorbed: f64 = others.iter().take(options.absorbers).sum();
        let fraction = if main >= projection || absorbed / projection < options.share {
            0.0
        } else if main <= 0.0 {
            1.0
        } else {
            let rest = absorbed.min(projection - main);
            (rest / (rest + main)).clamp(0.0, 1.0)
        };
        let full = silent
            && projection >= 0.0
            && strongest.1 >= options.full_cosine
            && strongest.0 / projection >= options.share;
        Ok(Absorbed { fraction, full })
    }
}

fn project(values: &[f32], unit: &[f64]) -> f64 {
    values
        .iter()
        .zip(unit)
        .map(|(&x, p)| f64::from(x) * p)
        .sum()
}
