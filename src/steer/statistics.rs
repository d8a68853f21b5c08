//! What is known about features over a corpus: the scales that relative strengths refer to.

use crate::labels::Labels;
use alloc::collections::BTreeMap;

/// One feature's statistics over a corpus, in the units of [`encode`](crate::Sae::encode).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FeatureStatistics {
    /// Largest value.
    pub max: Option<f64>,
    /// Mean value, over whatever the paper that is followed averages over.
    pub mean: Option<f64>,
    /// Standard deviation, over the same.
    pub deviation: Option<f64>,
}

impl FeatureStatistics {
    /// Adds what is not here yet.
    pub(super) fn fill(&mut self, other: &FeatureStatistics) {
        self.max = self.max.or(other.max);
        self.mean = self.mean.or(other.mean);
        self.deviation = self.deviation.or(other.deviation);
    }
}

/// Statistics of features, by index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    features: BTreeMap<u32, FeatureStatistics>,
}

impl Statistics {
    /// Of no feature yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.features.is_empty()
    }

    /// Sets those of a feature, in place of what was there.
    pub fn insert(&mut self, feature: u32, statistics: FeatureStatistics) {
        self.features.insert(feature, statistics);
    }

    /// Those of a feature.
    pub fn of(&self, feature: u32) -> Option<&FeatureStatistics> {
        self.features.get(&feature)
    }

    /// All of them, feature ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &FeatureStatistics)> {
        self.features
            .iter()
            .map(|(&feature, statistics)| (feature, statistics))
    }

    /// Those that a labels file knows: the largest values, and means as far as it has histograms
    /// ([`Observed`](crate::labels::Observed) says of what and how exact). Deviations are not in
    /// such files.
    pub fn from_labels(labels: &Labels) -> Self {
        let known = labels.all_observed().filter_map(|it| {
            let found = FeatureStatistics {
                max: it.max,
                mean: it.mean,
                deviation: None,
            };
            (found != FeatureStatistics::default()).then_some((it.feature, found))
        });
        Statistics {
            features: known.collect(),
        }
    }

    /// Adds what is not here yet, number by number.
    pub fn fill_from(&mut self, others: &Statistics) {
        for (feature, statistics) in others.iter() {
            self.features.entry(feature).or_default().fill(statistics);
        }
    }
}
