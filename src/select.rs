//! Selection: from exact products to features. The one place where ties, NaN and equality are
//! decided.
//!
//! For feature i with product `S_i`: `p_i = scale_i * S_i + bias_i` (two f64 roundings),
//! `pre_i = round32(p_i)`. Thresholds are compared in f32, strictly unless a rule says otherwise.
//! Among equal ranks the lowest index wins, in whatever order the products arrive. A NaN
//! pre-activation is never selected. Zero values are never stored. Rules select; nothing is ever
//! multiplied by a mask.

use crate::error::Error;
use crate::features::{Features, RowStatus};
use crate::model::{Activation, Parts, Rank};

/// Room for candidates, in entries, that TopK needs: k, and as many again to work through before
/// they are cut back to k.
pub(crate) fn candidate_room(activation: &Activation) -> usize {
    match activation {
        Activation::TopK { k, .. } => k + (*k).max(256),
        _ => 0,
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

/// What becomes of a feature whose product is `product`.
#[inline]
pub(crate) fn judge(parts: &Parts<'_>, feature: usize, product: f64) -> Fate {
    let p = pre_f64(parts, feature, product);
    let pre = p as f32;
    if pre.is_nan() {
        return Fate::Nan;
    }
    let on = |fires: bool, value: f32| match fires {
        true => Fate::On { value, rank: value },
        false => Fate::Off,
    };
    match &parts.activation {
        Activation::Relu => on(pre > 0.0, pre),
        Activation::TanhRelu if pre > 0.0 => on(true, libm::tanh(p) as f32),
        Activation::TanhRelu => Fate::Off,
        Activation::JumpRelu {
            threshold,
            relu,
            inclusive,
        } => {
            let threshold = threshold.of(feature);
            let over = if *inclusive {
                pre >= threshold
            } else {
                pre > threshold
            };
            on(
                over && pre != 0.0 && (!relu || pre > 0.0) && threshold != f32::INFINITY,
                pre,
            )
        }
        Activation::Gated { gate_bias } => {
            let gate = (product + gate_bias.get(feature).copied().unwrap_or(0.0)) as f32;
            on(gate > 0.0 && pre > 0.0, pre)
        }
        Activation::TopK { rank, relu, .. } => match rank {
            // With ReLU after the selection a value that is not positive is never stored, and
            // never takes the place of one that is.
            Rank::Value if *relu && pre <= 0.0 => Fate::Off,
            Rank::Value => Fate::On {
                value: pre,
                rank: pre,
            },
            Rank::Magnitude => Fate::On {
                value: pre,
                rank: pre.abs(),
            },
        },
    }
}

/// Collects the selected features of one row. Products may arrive in blocks, in any order for
/// TopK, with ascending features for the other rules.
pub(crate) struct Selector<'s> {
    parts: &'s Parts<'s>,
    candidates: &'s mut [[u64; 2]],
    count: usize,
    /// TopK: how many to keep; no more than this many are ever better than `floor`.
    k: Option<usize>,
    /// TopK: a candidate must rank above this.
    floor: u64,
    nan: bool,
}

impl<'s> Selector<'s> {
    pub(crate) fn new(parts: &'s Parts<'s>, candidates: &'s mut [[u64; 2]]) -> Self {
        let k = match parts.activation {
            Activation::TopK { k, .. } => Some(k),
            _ => None,
        };
        Selector {
            parts,
            candidates,
            count: 0,
            k,
            floor: 0,
            nan: false,
        }
    }

    /// Judges the features `first ..`, whose products are given.
    pub(crate) fn block(
        &mut self,
        first: usize,
        products: &[f64],
        features: &mut Features,
    ) -> Result<(), Error> {
        for (i, &product) in products.iter().enumerate() {
            let feature = first + i;
            match judge(self.parts, feature, product) {
                Fate::Off => {}
                Fate::Nan => self.nan = true,
                Fate::On { value, rank } => match self.k {
                    None => features.push(feature as u32, value)?,
                    Some(k) => self.rank(feature as u32, value, rank, k),
                },
            }
        }
        Ok(())
    }

    fn rank(&mut self, feature: u32, value: f32, rank: f32, k: usize) {
        let key = rank_key(rank, feature);
        if key <= self.floor {
            return;
        }
        if self.count == self.candidates.len() {
            self.cut(k);
            if key <= self.floor {
                return;
            }
        }
        if let Some(slot) = self.candidates.get_mut(self.count) {
            *slot = [key, u64::from(value.to_bits())];
            self.count += 1;
        }
    }

    /// Keeps the k best candidates and raises the floor to the worst of them.
    fn cut(&mut self, k: usize) {
        let Some(found) = self.candidates.get_mut(..self.count) else {
            return;
        };
        if k == 0 || found.len() < k {
            return;
        }
        let (_, kth, _) = found.select_nth_unstable_by(k - 1, |a, b| b[0].cmp(&a[0]));
        self.floor = kth[0];
        self.count = k;
    }

    /// Ends the row: writes what is left to write.
    pub(crate) fn finish(mut self, features: &mut Features) -> Result<(), Error> {
        for (feature, value) in self.chosen().iter() {
            features.push(feature, value)?;
        }
        Ok(())
    }

    /// What TopK selected from all products so far.
    pub(crate) fn chosen(&mut self) -> Chosen<'_> {
        self.cut(self.k.unwrap_or(0));
        let chosen = self.candidates.get_mut(..self.count).unwrap_or(&mut []);
        chosen.sort_unstable_by_key(|candidate| feature_of(candidate[0]));
        Chosen(chosen)
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

/// The features that TopK selected, ascending. Zero values are among them but never reported.
pub(crate) struct Chosen<'c>(&'c [[u64; 2]]);

impl Chosen<'_> {
    fn iter(&self) -> impl Iterator<Item = (u32, f32)> {
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
fn rank_key(rank: f32, feature: u32) -> u64 {
    // `+ 0.0` turns -0 into +0.
    let bits = (rank + 0.0).to_bits();
    let ordered = if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    };
    (u64::from(ordered) << 32) | u64::from(!feature)
}

fn feature_of(key: u64) -> u32 {
    !(key as u32)
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
    }
}
