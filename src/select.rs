//! Selection: from exact products to features. The one place where ties, NaN and equality are
//! decided.
//!
//! For feature i with product `S_i`: `p_i = scale_i * S_i + bias_i` (two f64 roundings),
//! `pre_i = round32(p_i)`, `rank_i = round32(w_i * p_i)` with rank weights and `pre_i` without.
//! Thresholds are compared in f32, strictly unless a rule says otherwise. Among equal ranks the
//! lowest index wins. A NaN pre-activation is never selected. Zero values are never stored. Rules
//! select; nothing is ever multiplied by a mask.

use crate::error::Error;
use crate::features::{Features, RowStatus};
use crate::model::{Activation, Parts, Rank, ValueMap};

/// Room for candidates, in entries, that a rule needs: for TopK k, and as many again to work
/// through before they are cut back to k; with groups the winners of all groups besides.
pub(crate) fn candidate_room(parts: &Parts<'_>) -> usize {
    match parts.activation {
        Activation::TopK { k, .. } => k + k.max(256),
        Activation::GroupTopK { groups, k, .. } => groups * k + k.max(256),
        Activation::TopAfa => parts.encoder.features(),
        _ => 0,
    }
}

/// Where selected features go, row after row, ascending within a row.
pub(crate) trait Sink {
    /// A feature of the row at hand, with the rank that it was selected by.
    fn take(&mut self, feature: u32, value: f32, rank: f32) -> Result<(), Error>;
}

impl Sink for Features {
    #[inline]
    fn take(&mut self, feature: u32, value: f32, _rank: f32) -> Result<(), Error> {
        match value == 0.0 {
            true => Ok(()),
            false => self.push(feature, value),
        }
    }
}

/// What the selection found out about one feature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    /// Not selected.
    Off,
    /// Selected (or, under TopK, to be ranked by `rank`).
    On {
        /// What the host sees.
        value: f32,
        /// What TopK compares.
        rank: f32,
    },
    /// The pre-activation is NaN.
    Nan,
}

/// `p_i` in f64.
#[inline]
pub(crate) fn pre_f64(parts: &Parts<'_>, feature: usize, product: f64) -> f64 {
    let scaled = match &parts.scale {
        Some(scale) => scale.get(feature).copied().unwrap_or(0.0) * product,
        None => product,
    };
    match &parts.bias {
        Some(bias) => scaled + bias.get(feature).copied().unwrap_or(0.0),
        None => scaled,
    }
}

/// What becomes of a feature whose product is `product`. `gate` is its product with the gate,
/// which only models with one read.
#[inline]
pub(crate) fn judge_gated(parts: &Parts<'_>, feature: usize, product: f64, gate: f64) -> Fate {
    judge_by(&parts.activation, parts, feature, product, gate)
}

/// The same by another rule than the model's.
#[inline]
pub(crate) fn judge_by(
    rule: &Activation,
    parts: &Parts<'_>,
    feature: usize,
    product: f64,
    gate: f64,
) -> Fate {
    let p = pre_f64(parts, feature, product);
    match &parts.glu {
        None => judge_pre(rule, parts, feature, product, p),
        Some(glu) => {
            let bias = glu.bias.as_ref().and_then(|bias| bias.get(feature));
            let t = gate + bias.copied().unwrap_or(0.0);
            let sigmoid = 1.0 / (1.0 + libm::exp(-t));
            judge_pre(rule, parts, feature, product, p * sigmoid)
        }
    }
}

/// What becomes of a feature of a model without a gate.
#[inline]
pub(crate) fn judge(parts: &Parts<'_>, feature: usize, product: f64) -> Fate {
    let p = pre_f64(parts, feature, product);
    judge_pre(&parts.activation, parts, feature, product, p)
}

/// What becomes of a feature with this `p`.
#[inline]
fn judge_pre(rule: &Activation, parts: &Parts<'_>, feature: usize, product: f64, p: f64) -> Fate {
    let p = match parts.value_map {
        ValueMap::Distance(from) => from - libm::sqrt((2.0 - 2.0 * p).max(0.0)),
        ValueMap::Identity | ValueMap::SoftCap(_) | ValueMap::One => p,
    };
    let pre = p as f32;
    let rank = match &parts.rank_weight {
        None => pre,
        Some(weight) => (weight.get(feature).copied().unwrap_or(0.0) * p) as f32,
    };
    if pre.is_nan() || rank.is_nan() {
        return Fate::Nan;
    }
    let fires = match rule {
        Activation::Relu | Activation::TanhRelu => pre > 0.0,
        Activation::LeakyRelu { .. } => true,
        Activation::JumpRelu {
            threshold,
            relu,
            inclusive,
        } => {
            let threshold = threshold.of(feature);
            let over = match inclusive {
                true => rank >= threshold,
                false => rank > threshold,
            };
            over && (!relu || pre > 0.0) && threshold != f32::INFINITY
        }
        Activation::Gated { gate_bias } => {
            let gate = (product + gate_bias.get(feature).copied().unwrap_or(0.0)) as f32;
            gate > 0.0 && pre > 0.0
        }
        // With ReLU after the selection a value that is not positive is never stored, and never
        // takes the place of one that is.
        Activation::TopK { rank: by, relu, .. } | Activation::GroupTopK { rank: by, relu, .. } => {
            *by == Rank::Magnitude || !relu || (pre > 0.0 && rank > 0.0)
        }
        Activation::TopAfa => pre > 0.0 && rank > 0.0,
        // Have their own loops, which ask for no judgement of single features.
        Activation::Pursuit(_) | Activation::Ensemble(_) => false,
    };
    if !fires {
        return Fate::Off;
    }
    let rank = match rule {
        Activation::TopK {
            rank: Rank::Magnitude,
            ..
        }
        | Activation::GroupTopK {
            rank: Rank::Magnitude,
            ..
        } => rank.abs(),
        _ => rank,
    };
    let before_map = match *rule {
        Activation::TanhRelu => libm::tanh(p),
        Activation::LeakyRelu { slope } if pre <= 0.0 => slope * p,
        _ => p,
    };
    let value = match parts.value_map {
        ValueMap::Identity | ValueMap::Distance(_) => before_map as f32,
        ValueMap::SoftCap(cap) => (cap * libm::tanh(before_map / cap)) as f32,
        ValueMap::One => 1.0,
    };
    // -0 becomes +0: a feature that is not reported reads as +0.
    let value = value + 0.0;
    Fate::On { value, rank }
}

/// Collects the selected features of one row. Products may arrive in blocks, in any order for
/// TopK without groups and top-AFA, with ascending features for the other rules.
///
/// Candidates of the group at hand lie behind the winners of the groups before:
/// `candidates[..start]` are final, `candidates[start..start + count]` are not.
pub(crate) struct Selector<'s> {
    parts: &'s Parts<'s>,
    candidates: &'s mut [[u64; 2]],
    start: usize,
    count: usize,
    mode: Mode,
    /// A candidate must rank above this to be among the k best of its group.
    floor: u64,
    nan: bool,
}

/// How candidates become features.
#[derive(Clone, Copy, Debug)]
enum Mode {
    /// Every feature that fires, at once.
    Direct,
    /// The k best of each group; the group at hand ends before feature `end`.
    Best { k: usize, end: usize, size: usize },
    /// As many of the best as top-AFA says for an input of this norm.
    Norm { target: f64 },
}

impl<'s> Selector<'s> {
    /// `norm` is that of the prepared input; top-AFA reads it.
    pub(crate) fn new(
        parts: &'s Parts<'s>,
        candidates: &'s mut [[u64; 2]],
        norm: impl FnOnce() -> f64,
    ) -> Self {
        let d_sae = parts.encoder.features();
        let mode = match parts.activation {
            Activation::TopK { k, .. } => Mode::Best {
                k,
                end: d_sae,
                size: d_sae,
            },
            Activation::GroupTopK { groups, k, .. } => {
                let size = d_sae / groups.max(1);
                Mode::Best { k, end: size, size }
            }
            Activation::TopAfa => Mode::Norm { target: norm() },
            _ => Mode::Direct,
        };
        Selector {
            parts,
            candidates,
            start: 0,
            count: 0,
            mode,
            floor: 0,
            nan: false,
        }
    }

    /// Judges the features `first ..`, whose products are given; `gates` are those with the gate,
    /// if the model has one.
    pub(crate) fn block<S: Sink>(
        &mut self,
        first: usize,
        products: &[f64],
        gates: &[f64],
        features: &mut S,
    ) -> Result<(), Error> {
        if self.parts.glu.is_some() {
            return self.gated_block(first, products, gates, features);
        }
        for (i, &product) in products.iter().enumerate() {
            let fate = judge(self.parts, first + i, product);
            self.take(first + i, fate, features)?;
        }
        Ok(())
    }

    fn gated_block<S: Sink>(
        &mut self,
        first: usize,
        products: &[f64],
        gates: &[f64],
        features: &mut S,
    ) -> Result<(), Error> {
        for (i, (&product, &gate)) in products.iter().zip(gates).enumerate() {
            let fate = judge_gated(self.parts, first + i, product, gate);
            self.take(first + i, fate, features)?;
        }
        Ok(())
    }

    #[inline]
    fn take<S: Sink>(&mut self, feature: usize, fate: Fate, features: &mut S) -> Result<(), Error> {
        match fate {
            Fate::Off => {}
            Fate::Nan => self.nan = true,
            Fate::On { value, rank } => self.offer(feature as u32, value, rank, features)?,
        }
        Ok(())
    }

    /// Takes a feature that fires, or, if the rule ranks, a candidate.
    #[inline]
    pub(crate) fn offer<S: Sink>(
        &mut self,
        feature: u32,
        value: f32,
        rank: f32,
        features: &mut S,
    ) -> Result<(), Error> {
        match self.mode {
            Mode::Direct => features.take(feature, value, rank)?,
            Mode::Best { .. } | Mode::Norm { .. } => self.rank(feature as usize, value, rank),
        }
        Ok(())
    }

    fn rank(&mut self, feature: usize, value: f32, rank: f32) {
        let key = rank_key(rank, feature as u32);
        if let Mode::Best { k, end, size } = self.mode {
            if feature >= end {
                self.close_group(k);
                let end = (feature / size + 1) * size;
                self.mode = Mode::Best { k, end, size };
            }
            if k == 0 || key <= self.floor {
                return;
            }
            if self.start + self.count == self.candidates.len() {
                self.cut(k);
                if key <= self.floor {
                    return;
                }
            }
        }
        if let Some(slot) = self.candidates.get_mut(self.start + self.count) {
            *slot = [key, u64::from(value.to_bits())];
            self.count += 1;
        }
    }

    /// Keeps the k best candidates of the group and raises the floor to the worst of them.
    fn cut(&mut self, k: usize) {
        let found = self
            .candidates
            .get_mut(self.start..self.start + self.count)
            .unwrap_or(&mut []);
        if k == 0 || found.len() < k {
            return;
        }
        let (_, kth, _) = found.select_nth_unstable_by(k - 1, |a, b| b[0].cmp(&a[0]));
        self.floor = kth[0];
        self.count = k;
    }

    /// TopK without groups: a feature of a lower rank than this cannot be selected any more.
    pub(crate) fn least_rank(&mut self) -> f32 {
        match self.mode {
            Mode::Best { k, .. } if self.count >= k => {
                self.cut(k);
                rank_of(self.floor)
            }
            _ => f32::NEG_INFINITY,
        }
    }

    /// Makes the k best candidates of the group final.
    fn close_group(&mut self, k: usize) {
        self.cut(k);
        self.start += self.count;
        self.count = 0;
        self.floor = 0;
    }

    /// Ends the row: writes what is left to write.
    pub(crate) fn finish<S: Sink>(mut self, features: &mut S) -> Result<(), Error> {
        self.chosen().give(features)
    }

    /// Ends a part of the row: writes what another part can still displace, for top-AFA all
    /// candidates.
    pub(crate) fn finish_part<S: Sink>(mut self, features: &mut S) -> Result<(), Error> {
        match self.mode {
            Mode::Norm { .. } => {
                let found = self.candidates.get_mut(..self.count).unwrap_or(&mut []);
                Chosen::of(found).give(features)
            }
            Mode::Direct | Mode::Best { .. } => self.chosen().give(features),
        }
    }

    /// What was selected from all products so far by a rule that ranks.
    pub(crate) fn chosen(&mut self) -> Chosen<'_> {
        match self.mode {
            Mode::Direct => {}
            Mode::Best { k, .. } => self.close_group(k),
            Mode::Norm { target } => self.keep_norm(target),
        }
        Chosen::of(self.candidates.get_mut(..self.start).unwrap_or(&mut []))
    }

    /// Makes as many candidates final as top-AFA keeps; see [`Activation::TopAfa`].
    fn keep_norm(&mut self, target: f64) {
        const LAST: f64 = 1e4;
        let d_sae = self.parts.encoder.features();
        let found = self.candidates.get_mut(..self.count).unwrap_or(&mut []);
        found.sort_unstable_by(|a, b| b[0].cmp(&a[0]));
        let (mut squares, mut nearest, mut keep) = (0.0, f64::INFINITY, 0);
        for (j, candidate) in found.iter().enumerate() {
            let rank = f64::from(rank_of(candidate[0]));
            squares += rank * rank;
            let norm = if j + 1 == d_sae {
                LAST
            } else {
                libm::sqrt(squares)
            };
            let distance = (norm - target).abs();
            if distance < nearest {
                (nearest, keep) = (distance, j + 1);
            }
        }
        // Behind them come the zeros: their norm is the last one again (0 if there was none),
        // until the very last entry.
        if found.is_empty() && d_sae > 1 {
            nearest = target;
        }
        if found.len() < d_sae && (LAST - target).abs() < nearest {
            keep = found.len();
        }
        (self.start, self.count) = (keep, 0);
    }

    /// What to report of the row.
    pub(crate) fn status(&self) -> RowStatus {
        if self.nan {
            RowStatus::NanPreActivation
        } else {
            RowStatus::Ok
        }
    }
}

/// The features that a ranking rule selected, ascending. Zero values are among them but never reported.
pub(crate) struct Chosen<'c>(&'c [[u64; 2]]);

impl<'c> Chosen<'c> {
    /// Hands all of them on.
    pub(crate) fn give<S: Sink>(&self, features: &mut S) -> Result<(), Error> {
        for &[key, bits] in self.0 {
            features.take(feature_of(key), f32::from_bits(bits as u32), rank_of(key))?;
        }
        Ok(())
    }

    /// Sorts entries of `!feature` and the bits of a value.
    pub(crate) fn of(entries: &'c mut [[u64; 2]]) -> Self {
        entries.sort_unstable_by_key(|entry| feature_of(entry[0]));
        Chosen(entries)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, f32)> {
        let pairs = self
            .0
            .iter()
            .map(|&[key, bits]| (feature_of(key), f32::from_bits(bits as u32)));
        pairs.filter(|&(_, value)| value != 0.0)
    }

    /// The value of a feature, 0 if it was not selected.
    pub(crate) fn value(&self, feature: u32) -> f32 {
        match self
            .0
            .binary_search_by_key(&feature, |candidate| feature_of(candidate[0]))
        {
            Ok(at) => self
                .0
                .get(at)
                .map_or(0.0, |candidate| f32::from_bits(candidate[1] as u32)),
            Err(_) => 0.0,
        }
    }
}

/// A key that orders candidates: higher ranks first, then lower indices; +0 and -0 are equal.
/// Never 0, so that a floor of 0 lets everything pass.
pub(crate) fn rank_key(rank: f32, feature: u32) -> u64 {
    // `+ 0.0` turns -0 into +0.
    let bits = (rank + 0.0).to_bits();
    let ordered = if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    };
    (u64::from(ordered) << 32) | u64::from(!feature)
}

pub(crate) fn feature_of(key: u64) -> u32 {
    !(key as u32)
}

/// The rank in a key.
pub(crate) fn rank_of(key: u64) -> f32 {
    let ordered = (key >> 32) as u32;
    f32::from_bits(match ordered >> 31 {
        0 => !ordered,
        _ => ordered & !(1 << 31),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_by_rank_then_lowest_index() {
        let ascending = [
            f32::NEG_INFINITY,
            -2.0,
            -1e-40,
            0.0,
            1e-45,
            1.0,
            f32::INFINITY,
        ];
        for pair in ascending.windows(2) {
            assert!(rank_key(pair[0], 0) < rank_key(pair[1], u32::MAX));
        }
        assert!(rank_key(1.0, 3) > rank_key(1.0, 4));
        assert_eq!(rank_key(0.0, 9), rank_key(-0.0, 9));
        assert_eq!(feature_of(rank_key(-3.5, 77)), 77);
        for rank in ascending {
            assert_eq!(rank_of(rank_key(rank, 5)), rank);
        }
    }
}
