//! Plans written as JSON: in one form, without what is the default, so that
//! [`Plan::from_value`] gives the plan back and equal plans have equal texts.

use super::plan::{
    CONFLICTS, Condition, Direction, ERROR_TERMS, Edit, MODES, Mask, OVER_BUDGET, Plan, READS,
    RowFilter, SCOPES, STAGES, Scale, Strength, Target, name_of,
};
use super::statistics::{FeatureStatistics, Statistics};
use alloc::string::{String, ToString};
use serde_json::{Map, Value, json};

impl Plan {
    /// The plan as JSON: `Plan::from_value` gives it back. Values that are the default are left
    /// out.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| {
            map.insert(key.into(), value);
        };
        put("name", self.name.clone().into());
        if let Some(d_sae) = self.d_sae {
            put("d_sae", d_sae.into());
        }
        if !self.edits.is_empty() {
            put("edits", self.edits.iter().map(edit_json).collect());
        }
        if self.conflicts != Default::default() {
            put("conflicts", name_of(CONFLICTS, self.conflicts).into());
        }
        match &self.mask {
            Mask::None => {}
            Mask::KeepOnly(features) => put("keep_only", features.clone().into()),
            Mask::Drop(features) => put("drop", features.clone().into()),
            Mask::Scores {
                mode,
                weights,
                default,
            } => {
                let weights: Map<String, Value> = weights
                    .iter()
                    .map(|(feature, &weight)| (feature.to_string(), weight.into()))
                    .collect();
                let mode = name_of(MODES, *mode);
                put(
                    "scores",
                    json!({"mode": mode, "weights": weights, "default": default}),
                );
            }
        }
        if self.error != Default::default() {
            put("error", name_of(ERROR_TERMS, self.error).into());
        }
        if self.rows != RowFilter::default() {
            put("rows", row_filter_json(&self.rows));
        }
        if let Some(when) = &self.when {
            put("when", condition_json(when));
        }
        if self.scope != Default::default() {
            put("scope", name_of(SCOPES, self.scope).into());
        }
        if let Some(budget) = &self.budget {
            let over = name_of(OVER_BUDGET, budget.over);
            put("budget", json!({"relative": budget.relative, "over": over}));
        }
        if !self.statistics.is_empty() {
            put("statistics", self.statistics.to_json());
        }
        if !self.directions.is_empty() {
            let one = |(name, direction): (&String, &Direction)| {
                let value = json!({
                    "values": direction.values, "normalize": direction.normalize,
                });
                (name.clone(), value)
            };
            put(
                "directions",
                Value::Object(self.directions.iter().map(one).collect()),
            );
        }
        Value::Object(map)
    }
}

impl Statistics {
    /// The same as JSON.
    pub fn to_json(&self) -> Value {
        let one = |(feature, found): (u32, &FeatureStatistics)| {
            let mut map = Map::new();
            let values = [
                ("max", found.max),
                ("mean", found.mean),
                ("deviation", found.deviation),
            ];
            for (key, value) in values {
                if let Some(value) = value {
                    map.insert(key.into(), value.into());
                }
            }
            (feature.to_string(), Value::Object(map))
        };
        Value::Object(self.iter().map(one).collect())
    }
}

fn edit_json(edit: &Edit) -> Value {
    let mut map = Map::new();
    match &edit.target {
        Target::Features(features) => match features[..] {
            [feature] => map.insert("feature".into(), feature.into()),
            _ => map.insert("features".into(), features.clone().into()),
        },
        Target::Direction(name) => map.insert("direction".into(), name.clone().into()),
    };
    map.insert("rule".into(), edit.rule.name().into());
    if edit.rule.has_strength() {
        map.insert("strength".into(), strength_json(&edit.strength));
    }
    for (key, limit) in [("over", &edit.over), ("under", &edit.under)] {
        if let Some(limit) = limit {
            map.insert(key.into(), strength_json(limit));
        }
    }
    if edit.reads != Default::default() {
        map.insert("reads".into(), name_of(READS, edit.reads).into());
    }
    Value::Object(map)
}

fn strength_json(strength: &Strength) -> Value {
    let mut map = Map::new();
    match strength.values[..] {
        [value] if strength.of == Scale::Absolute && strength.deviations == 0.0 => {
            return value.into();
        }
        [value] => map.insert("value".into(), value.into()),
        _ => map.insert("by_phase".into(), strength.values.clone().into()),
    };
    map.insert("of".into(), strength.of.name().into());
    if strength.deviations != 0.0 {
        map.insert("deviations".into(), strength.deviations.into());
    }
    Value::Object(map)
}

fn row_filter_json(rows: &RowFilter) -> Value {
    let mut map = Map::new();
    let ranges = |ranges: &[(u32, u32)]| -> Value {
        ranges.iter().map(|&(from, to)| json!([from, to])).collect()
    };
    if rows.skip_first != 0 {
        map.insert("skip_first".into(), rows.skip_first.into());
    }
    if rows.last_only {
        map.insert("last_only".into(), true.into());
    }
    if let Some(stage) = rows.stage {
        map.insert("stage".into(), name_of(STAGES, stage).into());
    }
    if let Some(positions) = &rows.positions {
        map.insert("positions".into(), ranges(positions));
    }
    if let Some(classes) = &rows.classes {
        map.insert("classes".into(), classes.clone().into());
    }
    if !rows.skip_classes.is_empty() {
        map.insert("skip_classes".into(), rows.skip_classes.clone().into());
    }
    if let Some(phases) = &rows.phases {
        map.insert("phases".into(), ranges(phases));
    }
    Value::Object(map)
}

fn condition_json(condition: &Condition) -> Value {
    match condition {
        Condition::Over { feature, over } => json!({"feature": feature, "over": over}),
        Condition::Any(list) => json!({"any": list.iter().map(condition_json).collect::<Value>()}),
        Condition::All(list) => json!({"all": list.iter().map(condition_json).collect::<Value>()}),
        Condition::Not(inner) => json!({"not": condition_json(inner)}),
        Condition::Linear {
            weights,
            bias,
            over,
        } => {
            let weights: Value = weights
                .iter()
                .map(|(feature, weight)| json!({"feature": feature, "weight": weight}))
                .collect();
            json!({"linear": weights, "bias": bias, "over": over})
        }
        Condition::Reconstruction { edited, at_least } => {
            let which = if *edited { "edited" } else { "unedited" };
            json!({"reconstruction": which, "at_least": at_least})
        }
    }
}
