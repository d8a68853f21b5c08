//! How well rows are reconstructed, summed over batches of them.

use super::Quality;
use crate::encode::load_row;
use crate::error::Error;
use crate::features::{Features, RowStatus};
use crate::model::Sae;
use crate::rows::Rows;
use crate::scratch::Scratch;
use alloc::vec::Vec;

/// Sums over rows.
pub(super) struct Sums {
    scratch: Scratch<'static>,
    features: Features,
    outputs: Vec<f32>,
    raw: Vec<f64>,
    /// Of the targets.
    mean: Vec<f64>,
    has_targets: bool,
    rows: usize,
    non_finite: usize,
    fired: usize,
    residual: f64,
    variance: f64,
    cosine: f64,
}

impl Sums {
    /// Takes the mean of the targets.
    pub(super) fn new(sae: &Sae<'_>, targets: Option<Rows<'_>>) -> Result<Self, Error> {
        let mut this = Sums {
            scratch: Scratch::new(sae)?,
            features: Features::new(),
            outputs: Vec::new(),
            raw: alloc::vec![0.0; sae.d_out()],
            mean: alloc::vec![0.0; sae.d_out()],
            has_targets: targets.is_some(),
            rows: 0,
            non_finite: 0,
            fired: 0,
            residual: 0.0,
            variance: 0.0,
            cosine: 0.0,
        };
        if let Some(targets) = targets {
            let mut count = 0usize;
            for row in 0..targets.rows() {
                if load_row(sae.kernels, targets, row, &mut this.raw) {
                    count += 1;
                    for (mean, value) in this.mean.iter_mut().zip(&this.raw) {
                        *mean += value;
                    }
                }
            }
            let count = count.max(1) as f64;
            this.mean.iter_mut().for_each(|mean| *mean /= count);
        }
        Ok(this)
    }

    /// Adds a batch of rows.
    pub(super) fn add(
        &mut self,
        sae: &Sae<'_>,
        rows: Rows<'_>,
        targets: Option<Rows<'_>>,
    ) -> Result<(), Error> {
        sae.encode(rows, &mut self.scratch, &mut self.features)?;
        let d_out = sae.d_out();
        self.outputs.resize(rows.rows() * d_out, 0.0);
        let inputs = sae.needs_inputs_to_decode().then_some(rows);
        sae.decode(&self.features, inputs, &mut self.scratch, &mut self.outputs)?;
        for (row, (found, output)) in self
            .features
            .iter()
            .zip(self.outputs.chunks_exact(d_out))
            .enumerate()
        {
            let finite =
                targets.is_none_or(|targets| load_row(sae.kernels, targets, row, &mut self.raw));
            if found.status == RowStatus::NonFinite || !finite {
                self.non_finite += 1;
                continue;
            }
            self.rows += 1;
            self.fired += found.indices.len();
            let (mut residual, mut variance) = (0.0, 0.0);
            let (mut dot, mut target_square, mut output_square) = (0.0, 0.0, 0.0);
            let values = self.raw.iter().zip(output).zip(&self.mean);
            for ((target, output), mean) in values {
                let output = f64::from(*output);
                residual += (target - output) * (target - output);
                variance += (target - mean) * (target - mean);
                dot += target * output;
                target_square += target * target;
                output_square += output * output;
            }
            self.residual += residual;
            self.variance += variance;
            let norms = libm::sqrt(target_square) * libm::sqrt(output_square);
            if norms > 0.0 {
                self.cosine += dot / norms;
            }
        }
        Ok(())
    }

    pub(super) fn quality(&self, expected_l0: Option<f64>) -> Quality {
        let rows = self.rows.max(1) as f64;
        let varies = self.has_targets && self.variance > 0.0;
        Quality {
            rows: self.rows,
            non_finite: self.non_finite,
            fvu: varies.then(|| self.residual / self.variance),
            cosine: self.has_targets.then_some(self.cosine / rows),
            l0: self.fired as f64 / rows,
            expected_l0,
        }
    }
}
