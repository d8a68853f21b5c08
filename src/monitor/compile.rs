//! Checking rules against a model, and gathering what they read, once.

use super::detect::{Compiled, Kind, Slot, Trigger};
use super::json::CUSUM_DEVIATIONS;
use super::rules::{Detector, Input, Rule, Rules};
use crate::error::Error;
use crate::json::invalid;
use crate::model::Sae;
use crate::readout::FeatureSet;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Most alerts that a limit may allow.
const MAX_LIMIT: u32 = 64;

/// Rules compiled for a model: immutable, shared by any number of monitors and threads.
#[derive(Debug)]
pub struct CompiledRules {
    pub(super) name: String,
    pub(super) hash: u64,
    pub(super) model: u64,
    pub(super) identity: usize,
    pub(super) d_sae: u32,
    /// The features that are read, ascending.
    pub(super) features: Vec<u32>,
    pub(super) set: FeatureSet,
    pub(super) rules: Vec<Compiled>,
    pub(super) names: Vec<String>,
    pub(super) labels: BTreeMap<u32, String>,
    /// Words of state per stream.
    pub(super) words: usize,
    /// Whether a rule pools over the stream.
    pub(super) pools: bool,
    bytes_per_row: u64,
    reads_all: bool,
}

impl CompiledRules {
    /// What the rules are called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// [`Rules::hash`] of what was compiled.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// [`Sae::fingerprint`] of the model.
    pub fn model(&self) -> u64 {
        self.model
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The name of a rule; empty if there is no such rule.
    pub fn rule_name(&self, rule: usize) -> &str {
        self.names.get(rule).map_or("", String::as_str)
    }

    /// The features that are read, ascending.
    pub fn features(&self) -> &[u32] {
        &self.features
    }

    /// The name of a feature, if it has one.
    pub fn label(&self, feature: u32) -> Option<&str> {
        self.labels.get(&feature).map(String::as_str)
    }

    /// Bytes of weights that watching one row reads.
    pub fn bytes_per_row(&self) -> u64 {
        self.bytes_per_row
    }

    /// Whether watching a row reads the whole encoder (models whose rule ranks, as TopK).
    pub fn reads_all(&self) -> bool {
        self.reads_all
    }
}

impl Sae<'_> {
    /// Checks rules against this model and gathers the encoder rows that they read.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] with the path of what is wrong (`rules[3].release`): a feature out
    /// of range, thresholds that contradict each other, a number that is not finite, a baseline
    /// that is missing, another model; [`Error::OutOfMemory`].
    pub fn compile_rules(&self, rules: &Rules) -> Result<CompiledRules, Error> {
        let model = self.fingerprint();
        if let Some(d_sae) = rules.d_sae.filter(|&d_sae| d_sae as usize != self.d_sae()) {
            let expected = format!("{}, as the model has", self.d_sae());
            return Err(invalid("d_sae", expected, d_sae.to_string()));
        }
        if let Some(other) = rules.model.filter(|&other| other != model) {
            return Err(invalid(
                "model",
                format!("{model:016x}"),
                format!("{other:016x}"),
            ));
        }
        let features: Vec<u32> = rules.features().into_iter().collect();
        let mut words = 0;
        let mut compiled = Vec::new();
        for (number, rule) in rules.rules.iter().enumerate() {
            let checker = Checker {
                rules,
                rule,
                path: format!("rules[{number}]"),
                d_sae: self.d_sae(),
                features: &features,
            };
            let one = checker.compile(words)?;
            words += one.words();
            compiled.push(one);
        }
        let set = self.compile_set(&features)?;
        let reads_all = self.reads_all_for_one();
        Ok(CompiledRules {
            name: rules.name.clone(),
            hash: rules.hash(),
            model,
            identity: self.identity,
            d_sae: self.d_sae() as u32,
            bytes_per_row: set.bytes_per_row(self),
            reads_all: reads_all && !features.is_empty(),
            pools: compiled.iter().any(Compiled::pools),
            names: rules.rules.iter().map(|rule| rule.name.clone()).collect(),
            rules: compiled,
            labels: rules.labels.clone(),
            features,
            set,
            words,
        })
    }
}

struct Checker<'r> {
    rules: &'r Rules,
    rule: &'r Rule,
    path: String,
    d_sae: usize,
    features: &'r [u32],
}

impl Checker<'_> {
    fn wrong(&self, key: &str, expected: impl Into<String>, found: impl ToString) -> Error {
        invalid(&format!("{}.{key}", self.path), expected, found.to_string())
    }

    fn finite(&self, key: &str, number: f64) -> Result<f64, Error> {
        match number.is_finite() {
            true => Ok(number),
            false => Err(self.wrong(key, "a finite number", number)),
        }
    }

    fn slot(&self, key: &str, feature: u32) -> Result<usize, Error> {
        if feature as usize >= self.d_sae {
            return Err(self.wrong(key, format!("a feature below {}", self.d_sae), feature));
        }
        Ok(self.features.binary_search(&feature).unwrap_or(0))
    }

    fn input(&self, key: &str, input: Input) -> Result<Slot, Error> {
        match input {
            Input::Feature(feature) => Ok(Slot::Feature(self.slot(key, feature)?)),
            Input::Signal => Ok(Slot::Signal),
        }
    }

    /// No two the same, at least one.
    fn list(&self, key: &str, features: &[u32]) -> Result<Vec<usize>, Error> {
        if features.is_empty() {
            return Err(self.wrong(key, "at least one feature", "none"));
        }
        let mut sorted = features.to_vec();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair.first() == pair.last()) {
            let twice = pair.first().copied().unwrap_or(0);
            return Err(self.wrong(key, "different features", format!("{twice} twice")));
        }
        let features = features.iter().enumerate();
        features
            .map(|(i, &feature)| self.slot(&format!("{key}[{i}]"), feature))
            .collect()
    }

    /// A number of the rule, or of the baseline of its feature.
    fn or_baseline(
        &self,
        key: &str,
        given: Option<f64>,
        input: Input,
        of: impl Fn(&crate::steer::FeatureStatistics) -> Option<f64>,
    ) -> Result<f64, Error> {
        let known = || match input {
            Input::Feature(feature) => self.rules.baseline.of(feature).and_then(&of),
            Input::Signal => None,
        };
        match given.or_else(known) {
            Some(number) => self.finite(key, number),
            None => Err(self.wrong(
                key,
                "a number, in the rule or from a baseline of its feature",
                "neither",
            )),
        }
    }

    fn compile(&self, at: usize) -> Result<Compiled, Error> {
        let rule = self.rule;
        let mut over = rule.over;
        let kind = match &rule.detector {
            Detector::Threshold { inputs } => {
                let features = rule.detector.features();
                let signals = inputs.len() - features.len();
                if signals == 0 {
                    let key = if features.len() == 1 {
                        "feature"
                    } else {
                        "features"
                    };
                    // For its errors.
                    match features[..] {
                        [one] => self.slot(key, one).map(drop)?,
                        _ => self.list(key, &features).map(drop)?,
                    }
                }
                let slots = inputs.iter().map(|&input| self.input("features", input));
                Kind::Threshold {
                    slots: slots.collect::<Result<_, _>>()?,
                }
            }
            Detector::Coactivation {
                features,
                active_over,
                at_least,
                within,
            } => {
                let slots = self.list("features", features)?;
                if *at_least == 0 || *at_least as usize > slots.len() {
                    let expected = format!("1 to {}, the number of features", slots.len());
                    return Err(self.wrong("at_least", expected, at_least));
                }
                if *within == 0 {
                    return Err(self.wrong("within", "1 or more rows", within));
                }
                over = f64::from(*at_least) - 1.0;
                Kind::Coactivation {
                    slots,
                    active_over: self.finite("active_over", *active_over)?,
                    within: *within,
                }
            }
            Detector::Linear {
                weights,
                bias,
                pooling,
                binary,
                logistic,
            } => {
                let features = rule.detector.features();
                let slots = self.list("weights", &features)?;
                for (i, (_, weight)) in weights.iter().enumerate() {
                    self.finite(&format!("weights[{i}].weight"), *weight)?;
                }
                if *logistic && !(rule.over > 0.0 && rule.over < 1.0) {
                    let expected = "a probability between 0 and 1";
                    return Err(self.wrong("over", expected, rule.over));
                }
                if let Some(binary) = binary {
                    self.finite("binary", *binary)?;
                }
                Kind::Linear {
                    weights: slots
                        .into_iter()
                        .zip(weights.iter().map(|pair| pair.1))
                        .collect(),
                    bias: self.finite("bias", *bias)?,
                    pooling: *pooling,
                    binary: *binary,
                    logistic: *logistic,
                }
            }
            Detector::Cusum {
                input,
                target,
                slack,
                direction,
            } => {
                let slot = self.input("feature", *input)?;
                let deviation = |times: f64| {
                    move |of: &crate::steer::FeatureStatistics| of.deviation.map(|d| times * d)
                };
                let slack = self.or_baseline("slack", *slack, *input, deviation(0.5))?;
                if slack < 0.0 {
                    return Err(self.wrong("slack", "0 or above", slack));
                }
                let given = Some(over).filter(|over| !over.is_nan());
                over = self.or_baseline("over", given, *input, deviation(CUSUM_DEVIATIONS))?;
                if over <= 0.0 {
                    return Err(self.wrong("over", "above 0", over));
                }
                Kind::Cusum {
                    slot,
                    target: self.or_baseline("target", *target, *input, |of| of.mean)?,
                    slack,
                    direction: *direction,
                }
            }
            Detector::Drift {
                input,
                half_life,
                mean,
                deviation,
                direction,
            } => {
                let slot = self.input("feature", *input)?;
                if !(half_life.is_finite() && *half_life > 0.0) {
                    return Err(self.wrong("half_life", "above 0, in rows", half_life));
                }
                let deviation =
                    self.or_baseline("deviation", *deviation, *input, |of| of.deviation)?;
                if deviation <= 0.0 {
                    return Err(self.wrong("deviation", "above 0", deviation));
                }
                let rate = 1.0 - libm::exp2(-1.0 / half_life);
                Kind::Drift {
                    slot,
                    rate,
                    mean: self.or_baseline("mean", *mean, *input, |of| of.mean)?,
                    unit: deviation * libm::sqrt(rate / (2.0 - rate)),
                    direction: *direction,
                }
            }
            Detector::NonFinite => Kind::NonFinite,
        };
        self.finite("over", over)?;
        let release = rule.release.unwrap_or(over);
        self.finite("release", release)?;
        if release > over {
            let expected = format!("at most {over}, the number to exceed");
            return Err(self.wrong("release", expected, release));
        }
        if rule.run == 0 {
            return Err(self.wrong("run", "1 or more rows", 0));
        }
        if let Some(limit) = rule.limit {
            if limit.events == 0 || limit.events > MAX_LIMIT {
                return Err(self.wrong("limit.events", format!("1 to {MAX_LIMIT}"), limit.events));
            }
            if limit.rows == 0 {
                return Err(self.wrong("limit.rows", "1 or more", 0));
            }
        }
        Ok(Compiled {
            kind,
            trigger: Trigger {
                over,
                release,
                run: rule.run.into(),
                limit: rule.limit,
            },
            at,
        })
    }
}
