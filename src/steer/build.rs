//! Plans built in Rust, call by call.

use super::plan::{
    Budget, Condition, Direction, Edit, ErrorTerm, Mask, OverBudget, Plan, Reads, Rule, Scale,
    Scope, Strength, Target,
};
use super::statistics::Statistics;
use alloc::string::String;
use alloc::vec::Vec;

impl Plan {
    /// A plan that does nothing yet.
    pub fn new(name: impl Into<String>) -> Self {
        Plan {
            name: name.into(),
            ..Plan::default()
        }
    }

    /// Adds an edit.
    #[must_use]
    pub fn edit(mut self, edit: Edit) -> Self {
        self.edits.push(edit);
        self
    }

    /// Adds a direction for edits to name, used as it is.
    #[must_use]
    pub fn direction(mut self, name: impl Into<String>, values: Vec<f32>) -> Self {
        let normalize = false;
        self.directions
            .insert(name.into(), Direction { values, normalize });
        self
    }

    /// Adds a direction for edits to name, divided by its length.
    #[must_use]
    pub fn unit_direction(mut self, name: impl Into<String>, values: Vec<f32>) -> Self {
        let normalize = true;
        self.directions
            .insert(name.into(), Direction { values, normalize });
        self
    }

    /// Sets all features to 0 but these.
    #[must_use]
    pub fn keep_only(mut self, features: &[u32]) -> Self {
        self.mask = Mask::KeepOnly(features.to_vec());
        self
    }

    /// Sets these features to 0.
    #[must_use]
    pub fn drop_features(mut self, features: &[u32]) -> Self {
        self.mask = Mask::Drop(features.to_vec());
        self
    }

    /// Leaves the reconstruction error out: `y' = decode(f')`.
    #[must_use]
    pub fn drop_error(mut self) -> Self {
        self.error = ErrorTerm::Drop;
        self
    }

    /// Acts only under a condition.
    #[must_use]
    pub fn when(mut self, condition: Condition) -> Self {
        self.when = Some(condition);
        self
    }

    /// Decides the condition for all rows of a call together.
    #[must_use]
    pub fn per_batch(mut self) -> Self {
        self.scope = Scope::Batch;
        self
    }

    /// Leaves the first rows of a sequence alone.
    #[must_use]
    pub fn skip_first(mut self, rows: u32) -> Self {
        self.rows.skip_first = rows;
        self
    }

    /// Acts on the last row of a sequence only.
    #[must_use]
    pub fn last_only(mut self) -> Self {
        self.rows.last_only = true;
        self
    }

    /// Limits the change of a row.
    #[must_use]
    pub fn budget(mut self, relative: f64, over: OverBudget) -> Self {
        self.budget = Some(Budget { relative, over });
        self
    }

    /// Gives what relative strengths refer to.
    #[must_use]
    pub fn statistics(mut self, statistics: Statistics) -> Self {
        self.statistics = statistics;
        self
    }

    /// Adds statistics of the features that are edited, as far as the plan has none: what is in
    /// the plan wins, number by number.
    pub fn fill_statistics(&mut self, from: &Statistics) {
        for edit in &self.edits {
            let Target::Features(features) = &edit.target else {
                continue;
            };
            for &feature in features {
                if let Some(found) = from.of(feature) {
                    let mut own = self.statistics.of(feature).copied().unwrap_or_default();
                    own.fill(found);
                    self.statistics.insert(feature, own);
                }
            }
        }
    }
}

impl Edit {
    /// A rule with a strength on a feature.
    pub fn new(feature: u32, rule: Rule, strength: impl Into<Strength>) -> Self {
        Self::on(Target::Features(alloc::vec![feature]), rule, strength)
    }

    /// A rule with a strength on any target.
    pub fn on(target: Target, rule: Rule, strength: impl Into<Strength>) -> Self {
        Edit {
            target,
            rule,
            strength: strength.into(),
            over: None,
            under: None,
            reads: Reads::Feature,
        }
    }

    /// `f' = c`
    pub fn set(feature: u32, strength: impl Into<Strength>) -> Self {
        Self::new(feature, Rule::Set, strength)
    }

    /// `f' = f + c`
    pub fn add(feature: u32, strength: impl Into<Strength>) -> Self {
        Self::new(feature, Rule::Add, strength)
    }

    /// `f' = c f`
    pub fn scale(feature: u32, strength: impl Into<Strength>) -> Self {
        Self::new(feature, Rule::Scale, strength)
    }

    /// `f' = max(f, c)`
    pub fn max_clamp(feature: u32, strength: impl Into<Strength>) -> Self {
        Self::new(feature, Rule::MaxClamp, strength)
    }

    /// `f' = min(f, c)`
    pub fn min_cap(feature: u32, strength: impl Into<Strength>) -> Self {
        Self::new(feature, Rule::MinCap, strength)
    }

    /// `f' = 0`
    pub fn zero(feature: u32) -> Self {
        Self::new(feature, Rule::Zero, 0.0)
    }

    /// `f' = -c` where `f > 0`
    pub fn negative_when_active(feature: u32, strength: impl Into<Strength>) -> Self {
        Self::new(feature, Rule::NegativeWhenActive, strength)
    }

    /// Adds a multiple of a direction of the plan: `y' = y + c v`.
    pub fn add_direction(name: impl Into<String>, strength: impl Into<Strength>) -> Self {
        Self::on(Target::Direction(name.into()), Rule::Add, strength)
    }

    /// Takes a direction of the plan out of the row: `y' = y - <y, v> v`.
    pub fn project_out(name: impl Into<String>) -> Self {
        Self::on(Target::Direction(name.into()), Rule::Zero, 0.0)
    }

    /// Acts only if the value is above this.
    #[must_use]
    pub fn over(mut self, limit: impl Into<Strength>) -> Self {
        self.over = Some(limit.into());
        self
    }

    /// Acts only if the value is below this.
    #[must_use]
    pub fn under(mut self, limit: impl Into<Strength>) -> Self {
        self.under = Some(limit.into());
        self
    }

    /// Reads the pre-activation in the place of the feature's value.
    #[must_use]
    pub fn of_pre_activation(mut self) -> Self {
        self.reads = Reads::PreActivation;
        self
    }
}

impl Strength {
    /// A multiple of something.
    pub fn of(value: f64, of: Scale) -> Self {
        Strength {
            values: alloc::vec![value],
            of,
            deviations: 0.0,
        }
    }

    /// In the units of `encode`.
    pub fn absolute(value: f64) -> Self {
        Self::of(value, Scale::Absolute)
    }

    /// A multiple of the feature's largest value over a corpus.
    pub fn corpus_max(value: f64) -> Self {
        Self::of(value, Scale::CorpusMax)
    }

    /// A multiple of the feature's mean value over a corpus.
    pub fn corpus_mean(value: f64) -> Self {
        Self::of(value, Scale::CorpusMean)
    }

    /// A multiple of the largest value of any feature in the row.
    pub fn current_max(value: f64) -> Self {
        Self::of(value, Scale::CurrentMax)
    }

    /// A multiple of the length of the row.
    pub fn row_norm(value: f64) -> Self {
        Self::of(value, Scale::RowNorm)
    }

    /// One absolute value for each phase.
    pub fn by_phase(values: &[f64]) -> Self {
        Strength {
            values: values.to_vec(),
            of: Scale::Absolute,
            deviations: 0.0,
        }
    }

    /// So many standard deviations more.
    #[must_use]
    pub fn plus_deviations(mut self, deviations: f64) -> Self {
        self.deviations = deviations;
        self
    }
}

impl From<f64> for Strength {
    fn from(value: f64) -> Self {
        Strength::absolute(value)
    }
}

impl Condition {
    /// The feature's value is above a number.
    pub fn over(feature: u32, over: f64) -> Self {
        Condition::Over { feature, over }
    }
}
