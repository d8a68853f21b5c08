//! One row of a sequence: what it adds to the cache, what it attends to, what fires.

use super::Lorsa;
use super::cache::{Sizes, Space};
use crate::encode::products;
use crate::error::Error;
use crate::features::{Features, RowStatus};
use crate::kernels::{Kernels, WeightType};
use crate::model::{Activation, HeadNorm, Matrix, Pairs, Rotary};
use crate::scratch::Work;
use crate::select::{Fate, Selector, judge, pre_f64};
use alloc::vec::Vec;
use core::ops::Range;

/// One row of a sequence.
pub(super) struct Run<'r, 'c> {
    pub(super) lorsa: &'r Lorsa<'r>,
    pub(super) space: Space<'c>,
    pub(super) sizes: Sizes,
    pub(super) work: Work<'c>,
    /// The row's place in the sequence.
    pub(super) position: usize,
}

impl Run<'_, '_> {
    fn kernels(&self) -> &'static Kernels {
        self.lorsa.sae.kernels
    }

    /// Writes keys and values of the prepared row to the cache, and its queries beside it.
    pub(super) fn add_row(&mut self) -> Result<(), Error> {
        let attention = &self.lorsa.attention;
        let weights = |norm: fn(&HeadNorm) -> &[f64]| {
            let of = attention.norm.as_ref();
            of.map(|found| (norm(found), found.eps))
        };
        let query_norm = weights(|norm| &norm.query);
        let key_norm = weights(|norm| &norm.key);
        self.project(&attention.query, &attention.query_bias, query_norm);
        let wide = self.space.wide.iter();
        for (to, &from) in self.space.query.iter_mut().zip(wide) {
            *to = from as f32;
        }
        self.project(&attention.key, &attention.key_bias, key_norm);
        let range = row(self.position, self.sizes.keys);
        let keys = self.space.keys.get_mut(range).unwrap_or(&mut []);
        for (to, &from) in keys.iter_mut().zip(self.space.wide.iter()) {
            *to = from as f32;
        }
        let range = row(self.position, self.sizes.values);
        let values = self.space.values.get_mut(range).unwrap_or(&mut []);
        let (sae, work) = (&self.lorsa.sae, &mut self.work);
        let (sums, gates, lanes) = (&mut *work.sums, &mut *work.gates, &mut *work.lanes);
        let all = 0..sae.d_sae();
        sae.for_products(all, work.input, sums, gates, lanes, |first, sums, _| {
            let to = values.get_mut(first..).unwrap_or(&mut []);
            for (i, (to, &sum)) in to.iter_mut().zip(sums).enumerate() {
                *to = pre_f64(sae.parts(), first + i, sum) as f32;
            }
            Ok(())
        })
    }

    /// Queries or keys of the prepared row: products, biases, norm, rotation; in `space.wide`.
    fn project(
        &mut self,
        matrix: &Matrix<'_>,
        bias: &Option<Vec<f64>>,
        norm: Option<(&[f64], f64)>,
    ) {
        let kernels = self.kernels();
        let attention = &self.lorsa.attention;
        let step = self.sizes.at_once();
        let Space { wide, lanes, .. } = &mut self.space;
        for (block, wide) in wide.chunks_mut(step).enumerate() {
            products(kernels, matrix, block * step, self.work.input, lanes, wide);
            wide.iter_mut()
                .for_each(|value| *value *= attention.input_scale);
        }
        if let Some(bias) = bias {
            for (to, bias) in wide.iter_mut().zip(bias) {
                *to += bias;
            }
        }
        let d_head = attention.d_head().max(1);
        for (head, values) in wide.chunks_exact_mut(d_head).enumerate() {
            if let Some((weights, eps)) = norm {
                let square = kernels.sum_squares_about(values, 0.0) / d_head as f64;
                let length = libm::sqrt(square + eps);
                let weights = weights.get(head * d_head..).unwrap_or(&[]);
                for (value, weight) in values.iter_mut().zip(weights) {
                    *value = *value / length * weight;
                }
            }
            if let Some(rotary) = &attention.rotary {
                turn(rotary, self.position as f64, values);
            }
        }
    }

    /// Writes the attention of a head to `space.weights`.
    fn attend(&mut self, head: usize) {
        let d_head = self.lorsa.attention.d_head();
        let scale = self.lorsa.attention.score_scale;
        let kernels = self.kernels();
        let Space {
            marks,
            weights,
            query,
            keys,
            ..
        } = &mut self.space;
        let count = self.position + 1;
        let part = head * d_head..(head + 1) * d_head;
        let (Some(weights), Some(query), Some(keys)) = (
            weights.get_mut(..count),
            query.get(part.clone()),
            keys.get(part.start..count * self.sizes.keys),
        ) else {
            return;
        };
        let bytes = bytemuck::cast_slice(keys);
        kernels.dot_rows(WeightType::F32, bytes, self.sizes.keys * 4, query, weights);
        let mut most = f64::NEG_INFINITY;
        for (weight, &mark) in weights.iter_mut().zip(marks.iter()) {
            *weight /= scale;
            // A NaN stays: it shall reach the pre-activation.
            if mark != 0.0 && (*weight > most || weight.is_nan()) {
                most = *weight;
            }
        }
        let mut sum = 0.0;
        for (weight, &mark) in weights.iter_mut().zip(marks.iter()) {
            if mark != 0.0 {
                *weight = libm::exp(*weight - most);
                sum += *weight;
            }
        }
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }

    /// Pre-activations of some features of the head whose attention is at hand, in `work.sums`.
    fn mix(&mut self, features: Range<usize>) {
        let kernels = self.kernels();
        let Space {
            marks,
            weights,
            values,
            ..
        } = &mut self.space;
        let Some(sums) = self.work.sums.get_mut(..features.len()) else {
            return;
        };
        sums.fill(0.0);
        let positions = weights.iter().zip(marks.iter()).take(self.position + 1);
        for (position, (&weight, &mark)) in positions.enumerate() {
            let start = position * self.sizes.values;
            let range = start + features.start..start + features.end;
            if let (true, Some(values)) = (mark != 0.0, values.get(range)) {
                let bytes = bytemuck::cast_slice(values);
                kernels.add_scaled_row(WeightType::F32, bytes, weight, sums);
            }
        }
    }

    /// Features per head.
    fn group(&self) -> usize {
        self.sizes.values / self.lorsa.attention.heads.max(1)
    }

    /// Gives `take` the pre-activations of all features, block by block.
    fn all(
        &mut self,
        mut take: impl FnMut(&mut Self, Range<usize>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (group, step) = (self.group(), self.work.sums.len().max(1));
        for head in 0..self.lorsa.attention.heads {
            self.attend(head);
            let end = (head + 1) * group;
            for first in (head * group..end).step_by(step) {
                let range = first..end.min(first + step);
                self.mix(range.clone());
                take(self, range)?;
            }
        }
        Ok(())
    }

    /// Selects from all features of the row.
    pub(super) fn select(&mut self, features: &mut Features) -> Result<RowStatus, Error> {
        let candidates = core::mem::take(&mut self.work.candidates);
        let result = self.select_with(
            candidates,
            features,
            |selector: Selector<'_>, features: &mut Features| selector.finish(features),
        );
        self.work.candidates = candidates;
        result
    }

    /// Offers all features to a selector, which `finish` ends.
    fn select_with(
        &mut self,
        candidates: &mut [[u64; 2]],
        features: &mut Features,
        finish: impl FnOnce(Selector<'_>, &mut Features) -> Result<(), Error>,
    ) -> Result<RowStatus, Error> {
        let mut selector = Selector::new(&self.lorsa.rule, candidates, || 0.0);
        self.all(|run, range| {
            let sums = run.work.sums.get(..range.len()).unwrap_or(&[]);
            selector.block(range.start, sums, &[], features)
        })?;
        let status = selector.status();
        finish(selector, features)?;
        Ok(status)
    }

    /// Reads out chosen features of the row.
    pub(super) fn read(&mut self, wanted: &[u32], values: &mut [f32]) -> Result<RowStatus, Error> {
        let rule = &self.lorsa.rule;
        if let Activation::TopK { .. } | Activation::GroupTopK { .. } = rule.activation {
            let candidates = core::mem::take(&mut self.work.candidates);
            let write = |mut selector: Selector<'_>, _: &mut Features| {
                let chosen = selector.chosen();
                for (value, &feature) in values.iter_mut().zip(wanted) {
                    *value = chosen.value(feature);
                }
                Ok(())
            };
            let result = self.select_with(candidates, &mut Features::new(), write);
            self.work.candidates = candidates;
            return result;
        }
        let (mut status, mut at_hand) = (RowStatus::Ok, None);
        for (value, &feature) in values.iter_mut().zip(wanted) {
            let feature = feature as usize;
            let head = feature / self.group().max(1);
            if at_hand != Some(head) {
                self.attend(head);
                at_hand = Some(head);
            }
            self.mix(feature..feature + 1);
            let pre = self.work.sums.first().copied().unwrap_or(0.0);
            match judge(rule, feature, pre) {
                Fate::Off => {}
                Fate::Nan => status = RowStatus::NanPreActivation,
                Fate::On { value: found, .. } => *value = found,
            }
        }
        Ok(status)
    }
}

/// The values of a position.
fn row(position: usize, width: usize) -> Range<usize> {
    position * width..(position + 1) * width
}

/// Turns the pairs of one head's values.
fn turn(rotary: &Rotary, position: f64, values: &mut [f64]) {
    let count = rotary.periods.len();
    for (i, period) in rotary.periods.iter().enumerate() {
        let (a, b) = match rotary.pairs {
            Pairs::Halves => (i, i + count),
            _ => (2 * i, 2 * i + 1),
        };
        let angle = position / period;
        let (sine, cosine) = libm::sincos(angle);
        if let (Some(&first), Some(&second)) = (values.get(a), values.get(b)) {
            let turned = [
                (a, first * cosine - second * sine),
                (b, second * cosine + first * sine),
            ];
            for (at, value) in turned {
                if let Some(to) = values.get_mut(at) {
                    *to = value;
                }
            }
        }
    }
}
