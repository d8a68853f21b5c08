//! Rules as data: what is watched, and when it is an alert. Nothing here knows a model;
//! [`compile`](super::compile) checks rules against one.

use super::accumulator::Accumulator;
use super::pool::Pooling;
use crate::steer::Statistics;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

/// What to watch. Built in Rust, or read from JSON ([`Rules::from_json`]).
///
/// ```
/// use sae::monitor::{Rule, Rules};
/// let rules = Rules::new("safety")
///     .rule(Rule::threshold("weapons", &[1203, 77], 4.0).release(2.0).run(3))
///     .rule(Rule::coactivation("plan to deceive", &[14, 15, 92], 2, 16).limit(1, 100))
///     .label(1203, "firearms");
/// assert_eq!(rules.rules.len(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// What they are called.
    pub name: String,
    /// The width they were made for; refused with a model of another one.
    pub d_sae: Option<u32>,
    /// [`fingerprint`](crate::Sae::fingerprint) of the model they were made for; refused with
    /// another one.
    pub model: Option<u64>,
    /// The rules, each with its own state per stream.
    pub rules: Vec<Rule>,
    /// Names of features, for events.
    pub labels: BTreeMap<u32, String>,
    /// Mean and deviation of features, which drift is measured against.
    pub baseline: Statistics,
}

/// One rule: a score for every row of a stream, and when it is an alert.
///
/// A rule is quiet until its score was above `over` in `run` rows in a row: then it alerts, once,
/// and is active until a score is at or below `release`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What it is called in events.
    pub name: String,
    /// What is scored.
    pub detector: Detector,
    /// The score to exceed. Set by `at_least` for co-activation, and without meaning for
    /// `NonFinite`.
    pub over: f64,
    /// At or below this the rule is quiet again; `None`: `over`.
    pub release: Option<f64>,
    /// Rows in a row above `over` before it alerts, at least 1.
    pub run: u32,
    /// At most so many alerts.
    pub limit: Option<Limit>,
}

/// At most `events` alerts of one rule in any `rows` rows of a stream; the others are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// From 1 to 64.
    pub events: u32,
    /// At least 1.
    pub rows: u64,
}

/// A number of each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// A feature's value, 0 where it is inactive.
    Feature(u32),
    /// The host's own number, [`RowInfo::signal`](super::RowInfo::signal). Rules leave rows
    /// without one alone.
    Signal,
}

/// Which way drift counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Larger values.
    #[default]
    Up,
    /// Smaller values.
    Down,
    /// Either.
    Both,
}

/// What a rule scores.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Detector {
    /// The largest of these numbers.
    Threshold {
        /// The numbers.
        inputs: Vec<Input>,
    },
    /// How many of these features were above `active_over` at least once in the last `within` rows
    /// of the stream; alerts at `at_least` of them.
    Coactivation {
        /// The features.
        features: Vec<u32>,
        /// 0: whenever it fires.
        active_over: f64,
        /// From 1 to their number.
        at_least: u32,
        /// At least 1: the row itself.
        within: u64,
    },
    /// `bias + sum of weight * pooled value`, over the stream so far, in the order of the weights;
    /// for a logistic head `1 / (1 + exp(-that))`.
    Linear {
        /// Features and weights.
        weights: Vec<(u32, f64)>,
        /// Added first.
        bias: f64,
        /// How the rows so far become one value. `Last` is the row itself.
        pooling: Pooling,
        /// Values above this become 1, others 0.
        binary: Option<f64>,
        /// Whether the score is a probability.
        logistic: bool,
    },
    /// Cumulative sum (Page): `s = max(0, s + (x - target) - slack)`, from 0, and 0 again after an
    /// alert. Downwards with the sign of `x - target` turned; both ways the larger of the two.
    Cusum {
        /// x.
        input: Input,
        /// `None`: the mean of the baseline.
        target: Option<f64>,
        /// `None`: half a deviation of the baseline.
        slack: Option<f64>,
        /// Which way.
        direction: Direction,
    },
    /// Exponential average against a baseline: `e = e + a (x - e)` from the mean, with
    /// `a = 1 - 2^(-1 / half_life)`; the score is `|e - mean|` (or one side of it) in units of
    /// the deviation that e has in the long run, `deviation * sqrt(a / (2 - a))`.
    Drift {
        /// x.
        input: Input,
        /// In rows.
        half_life: f64,
        /// `None`: that of the baseline.
        mean: Option<f64>,
        /// `None`: that of the baseline.
        deviation: Option<f64>,
        /// Which way.
        direction: Direction,
    },
    /// Rows with a NaN or an infinity: 1 for such a row, else 0.
    NonFinite,
}

impl Rules {
    /// No rules yet.
    pub fn new(name: impl Into<String>) -> Self {
        Rules {
            name: name.into(),
            ..Rules::default()
        }
    }

    /// Adds a rule.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Names a feature.
    #[must_use]
    pub fn label(mut self, feature: u32, label: impl Into<String>) -> Self {
        self.labels.insert(feature, label.into());
        self
    }

    /// Takes mean and deviation of the features that drift rules name, where the rules do not say
    /// them, from statistics of a time that was normal.
    #[must_use]
    pub fn baseline(mut self, of: &Accumulator) -> Self {
        let features: Vec<u32> = self.features().into_iter().collect();
        self.baseline.fill_from(&of.statistics(&features));
        self
    }

    /// The features that the rules name.
    pub fn features(&self) -> BTreeSet<u32> {
        let rules = self.rules.iter();
        rules.flat_map(|rule| rule.detector.features()).collect()
    }
}

impl Detector {
    /// The features that it names, in order.
    pub fn features(&self) -> Vec<u32> {
        let of = |input: &Input| match input {
            Input::Feature(feature) => Some(*feature),
            Input::Signal => None,
        };
        match self {
            Detector::Threshold { inputs } => inputs.iter().filter_map(of).collect(),
            Detector::Coactivation { features, .. } => features.clone(),
            Detector::Linear { weights, .. } => weights.iter().map(|pair| pair.0).collect(),
            Detector::Cusum { input, .. } | Detector::Drift { input, .. } => {
                of(input).into_iter().collect()
            }
            Detector::NonFinite => Vec::new(),
        }
    }

    /// Its name in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Detector::Threshold { .. } => "threshold",
            Detector::Coactivation { .. } => "coactivation",
            Detector::Linear {
                logistic: false, ..
            } => "linear",
            Detector::Linear { logistic: true, .. } => "logistic",
            Detector::Cusum { .. } => "cusum",
            Detector::Drift { .. } => "drift",
            Detector::NonFinite => "non_finite",
        }
    }
}

impl Rule {
    /// A rule that alerts as soon as a score is above `over`.
    pub fn new(name: impl Into<String>, detector: Detector, over: f64) -> Self {
        Rule {
            name: name.into(),
            detector,
            over,
            release: None,
            run: 1,
            limit: None,
        }
    }

    /// The largest of some features' values is above a number.
    pub fn threshold(name: impl Into<String>, features: &[u32], over: f64) -> Self {
        let inputs = features.iter().map(|&feature| Input::Feature(feature));
        let inputs = inputs.collect();
        Self::new(name, Detector::Threshold { inputs }, over)
    }

    /// At least so many of some features fire within so many rows.
    pub fn coactivation(
        name: impl Into<String>,
        features: &[u32],
        at_least: u32,
        within: u64,
    ) -> Self {
        let detector = Detector::Coactivation {
            features: features.to_vec(),
            active_over: 0.0,
            at_least,
            within,
        };
        Self::new(name, detector, f64::from(at_least) - 1.0)
    }

    /// A linear head on pooled features.
    pub fn linear(
        name: impl Into<String>,
        weights: &[(u32, f64)],
        bias: f64,
        pooling: Pooling,
        over: f64,
    ) -> Self {
        let detector = Detector::Linear {
            weights: weights.to_vec(),
            bias,
            pooling,
            binary: None,
            logistic: false,
        };
        Self::new(name, detector, over)
    }

    /// Quiet again at or below this.
    #[must_use]
    pub fn release(mut self, release: f64) -> Self {
        self.release = Some(release);
        self
    }

    /// Alerts only after so many rows in a row.
    #[must_use]
    pub fn run(mut self, rows: u32) -> Self {
        self.run = rows;
        self
    }

    /// At most `events` alerts in any `rows` rows of a stream.
    #[must_use]
    pub fn limit(mut self, events: u32, rows: u64) -> Self {
        self.limit = Some(Limit { events, rows });
        self
    }
}

/// Names of enum values in JSON; the tables are the one place where they stand.
pub(super) const POOLINGS: &[(&str, Pooling)] = &[
    ("last", Pooling::Last),
    ("max", Pooling::Max),
    ("sum", Pooling::Sum),
    ("mean", Pooling::Mean),
];
pub(super) const DIRECTIONS: &[(&str, Direction)] = &[
    ("up", Direction::Up),
    ("down", Direction::Down),
    ("both", Direction::Both),
];
