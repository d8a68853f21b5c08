//! What features write where they write no multiple of a vector: the transforms of a mixture, and
//! the values of a multi-target coder, one for each block of the decoder ([`Targets`]), which each
//! output site selects from anew if they are coalesced.

use crate::decode::add_amounts;
use crate::encode::products;
use crate::model::{Matrix, Sae, Target, Targets, Transforms, pieces};
use crate::scratch::{ROW_BLOCK, Work};
use core::ops::Range;

/// Features of a row, ascending, with their values.
#[derive(Clone, Copy)]
pub(crate) struct Listed<'f, V> {
    pub(crate) indices: &'f [u32],
    pub(crate) values: &'f [V],
}

impl<'f, V: Copy + Into<f64>> Listed<'f, V> {
    /// Those of a range, each with its place in it.
    fn within(self, range: &Range<usize>) -> impl Iterator<Item = (usize, f64)> + Clone + 'f {
        let first = range.start;
        let place = |end: usize| self.indices.partition_point(|&i| (i as usize) < end);
        let part = place(range.start)..place(range.end);
        let indices = self.indices.get(part.clone()).unwrap_or(&[]);
        let values = self.values.get(part).unwrap_or(&[]);
        let pairs = indices.iter().zip(values);
        pairs.map(move |(&index, &value)| (index as usize - first, value.into()))
    }
}

impl Sae<'_> {
    /// Whether a feature writes anything but multiples of its decoder vector.
    pub(crate) fn writes_otherwise(&self) -> bool {
        self.parts.targets.is_some() || self.parts.transforms.is_some()
    }

    /// `work.output += ` what the listed features write in such a model. The row lies in `work.raw`
    /// for transforms. Values are multiplied with the scales first, if there are any.
    pub(crate) fn add_written<V: Copy + Into<f64>>(
        &self,
        listed: Listed<'_, V>,
        scales: Option<&[f64]>,
        work: &mut Work<'_>,
    ) {
        if let Some(targets) = &self.parts.targets {
            self.add_targets(targets, listed, work.sums, work.chosen, work.output);
        } else if let Some(transforms) = &self.parts.transforms {
            self.add_transforms(transforms, listed, scales, work);
        }
    }

    /// `work.output += sum_i f_i U_i (V_i x)`.
    fn add_transforms<V: Copy + Into<f64>>(
        &self,
        transforms: &Transforms<'_>,
        listed: Listed<'_, V>,
        scales: Option<&[f64]>,
        work: &mut Work<'_>,
    ) {
        for (input, &value) in work.input.iter_mut().zip(work.raw.iter()) {
            *input = value as f32; // exact: rows hold no wider values
        }
        for (&feature, &value) in listed.indices.iter().zip(listed.values) {
            let feature = feature as usize;
            let Some(one) = transforms.each.get(feature) else {
                continue;
            };
            let scale = scales.and_then(|scales| scales.get(feature));
            let value = value.into() * scale.copied().unwrap_or(1.0);
            for first in (0..one.rank()).step_by(ROW_BLOCK) {
                let count = ROW_BLOCK.min(one.rank() - first);
                let Some(amounts) = work.sums.get_mut(..count) else {
                    return;
                };
                products(
                    self.kernels,
                    &one.reads,
                    first,
                    work.input,
                    work.lanes,
                    amounts,
                );
                let mut places = [0u32; ROW_BLOCK];
                for (i, (place, amount)) in places.iter_mut().zip(amounts.iter_mut()).enumerate() {
                    *amount *= value;
                    *place = (first + i) as u32;
                }
                let places = places.get(..count).unwrap_or(&[]);
                add_amounts(self.kernels, &one.writes, places, amounts, work.output);
            }
        }
    }

    /// `output += sum_i v_i d_i`: what the listed features write, block by block, so that every
    /// value of the output adds in ascending order of features.
    pub(crate) fn add_targets<V: Copy + Into<f64>>(
        &self,
        targets: &Targets,
        listed: Listed<'_, V>,
        sums: &mut [f64],
        chosen: &mut [f64],
        output: &mut [f64],
    ) {
        let decoder = &self.parts.decoder;
        let all = || pieces(decoder).zip(&targets.each);
        let Some(k) = targets.coalesced else {
            for ((features, columns, matrix), target) in all() {
                if let Some(output) = output.get_mut(columns) {
                    let found = listed.within(&features);
                    let found = found.map(|(place, value)| (place, target.value(place, value)));
                    self.add_values(matrix, found, sums, output);
                }
            }
            return;
        };
        let width = (self.d_out() / self.output_sites()).max(1);
        for (site, output) in output.chunks_exact_mut(width).enumerate() {
            let of_site = || all().filter(|((_, columns, _), _)| columns.start == site * width);
            let mut kept = Kept::new(of_site(), listed, k, chosen);
            for ((features, _, matrix), target) in of_site() {
                let found = listed.within(&features);
                let found = found.map(|(place, value)| (place, target.value(place, value)));
                self.add_values(
                    matrix,
                    found.filter(|found| kept.keeps(found.1)),
                    sums,
                    output,
                );
            }
        }
    }

    /// `output += sum of value d_place` over the vectors of one block.
    fn add_values(
        &self,
        matrix: &Matrix<'_>,
        found: impl Iterator<Item = (usize, f64)>,
        sums: &mut [f64],
        output: &mut [f64],
    ) {
        let mut places = [0u32; ROW_BLOCK];
        let mut count = 0;
        let mut add = |places: &[u32], amounts: &[f64]| {
            add_amounts(self.kernels, matrix, places, amounts, output);
        };
        for (place, value) in found {
            if let (Some(to), Some(amount)) = (places.get_mut(count), sums.get_mut(count)) {
                (*to, *amount) = (place as u32, value);
                count += 1;
            }
            if count == ROW_BLOCK {
                add(&places, sums.get(..count).unwrap_or(&[]));
                count = 0;
            }
        }
        let (places, amounts) = (places.get(..count), sums.get(..count));
        if let (Some(places), Some(amounts)) = (places, amounts) {
            add(places, amounts);
        }
    }
}

/// Which values an output site keeps.
struct Kept {
    positive: Limit,
    negative: Limit,
}

/// All values above one, and so many that are equal to it.
struct Limit {
    above: f64,
    equal: usize,
}

impl Kept {
    /// The k largest of these, with zeros for what does not fire of k for each block.
    fn new<'p, 'a: 'p, V: Copy + Into<f64>>(
        blocks: impl Iterator<Item = ((Range<usize>, Range<usize>, &'p Matrix<'a>), &'p Target)> + Clone,
        listed: Listed<'_, V>,
        k: usize,
        chosen: &mut [f64],
    ) -> Self {
        let collect = |chosen: &mut [f64], wanted: fn(f64) -> bool| {
            let (mut count, mut fired) = (0, 0);
            for ((features, ..), target) in blocks.clone() {
                for (place, value) in listed.within(&features) {
                    fired += 1;
                    let value = target.value(place, value);
                    if let (true, Some(to)) = (wanted(value), chosen.get_mut(count)) {
                        *to = value;
                        count += 1;
                    }
                }
            }
            (count, fired)
        };
        let (negatives, fired) = collect(chosen, |value| value < 0.0);
        let (positives, _) = collect(chosen, |value| value > 0.0);
        let positive = Limit::new(chosen.get_mut(..positives).unwrap_or(&mut []), k);
        let candidates = k.saturating_mul(blocks.clone().count()).max(fired);
        let zeros = candidates - (positives + negatives);
        let left = k.saturating_sub(positives).saturating_sub(zeros);
        let negative = match left {
            0 => Limit::new(&mut [], 0),
            left => {
                let (count, _) = collect(chosen, |value| value < 0.0);
                Limit::new(chosen.get_mut(..count).unwrap_or(&mut []), left)
            }
        };
        Kept { positive, negative }
    }

    /// Asked in ascending order of features.
    fn keeps(&mut self, value: f64) -> bool {
        match value {
            value if value > 0.0 => self.positive.keeps(value),
            value if value < 0.0 => self.negative.keeps(value),
            // A zero writes nothing.
            _ => false,
        }
    }
}

impl Limit {
    /// The `keep` largest.
    fn new(values: &mut [f64], keep: usize) -> Self {
        let count = values.len();
        match keep {
            0 => Limit {
                above: f64::INFINITY,
                equal: 0,
            },
            keep if keep >= count => Limit {
                above: f64::NEG_INFINITY,
                equal: count,
            },
            keep => {
                let (larger, &mut above, _) =
                    values.select_nth_unstable_by(keep - 1, |one, other| other.total_cmp(one));
                let larger = larger.iter().filter(|&&value| value > above).count();
                Limit {
                    above,
                    equal: keep - larger,
                }
            }
        }
    }

    fn keeps(&mut self, value: f64) -> bool {
        if value > self.above {
            return true;
        }
        let keeps = value == self.above && self.equal > 0;
        self.equal -= usize::from(keeps);
        keeps
    }
}
