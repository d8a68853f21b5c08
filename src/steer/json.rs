//! Plans as JSON, read with a path to whatever is wrong, and written in one canonical form. The
//! schema for other programs is `docs/plans/schema.json`.

use super::plan::{
    Budget, CONFLICTS, Condition, Direction, ERROR_TERMS, Edit, MODES, Mask, OVER_BUDGET, Plan,
    READS, RULES, RowFilter, Rule, SCALES, SCOPES, STAGES, Strength, Target,
};
use super::statistics::{FeatureStatistics, Statistics};
use crate::error::Error;
use crate::json::{At, Object, invalid, parse};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde_json::Value;

/// How deep conditions may be nested.
pub(crate) const MAX_CONDITION_DEPTH: usize = 32;

impl Plan {
    /// Reads a plan from JSON text.
    ///
    /// ```
    /// use sae::steer::Plan;
    /// let plan = Plan::from_json(r#"{
    ///     "edits": [{"feature": 3, "rule": "set", "strength": 4.5}]
    /// }"#);
    /// assert_eq!(plan.unwrap().edits.len(), 1);
    /// let wrong = Plan::from_json(r#"{"edits": [{"feature": 3, "rule": "sett"}]}"#);
    /// assert!(wrong.unwrap_err().to_string().starts_with("`edits[0].rule`: "));
    /// ```
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is not JSON; [`Error::InvalidValue`] or [`Error::MissingKey`]
    /// with the path to what is unknown, missing or of the wrong kind.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let value = parse(text)?;
        Self::from_value(&value)
    }

    /// Reads a plan from a JSON value.
    ///
    /// # Errors
    /// As [`Plan::from_json`].
    pub fn from_value(value: &Value) -> Result<Self, Error> {
        let at = At::root(value, "the plan");
        let object = at.object(&[
            "$schema",
            "name",
            "about",
            "d_sae",
            "edits",
            "conflicts",
            "keep_only",
            "drop",
            "scores",
            "error",
            "rows",
            "when",
            "scope",
            "budget",
            "statistics",
            "directions",
        ])?;
        let get = |key| object.get(key);
        Ok(Plan {
            name: get("name").map_or(Ok(String::new()), |at| at.string())?,
            d_sae: get("d_sae").map(|at| at.index()).transpose()?,
            edits: get("edits").map_or(Ok(Vec::new()), |at| at.list(edit))?,
            conflicts: object.choice("conflicts", CONFLICTS)?,
            mask: mask(&object)?,
            error: object.choice("error", ERROR_TERMS)?,
            rows: get("rows").map_or(Ok(RowFilter::default()), |at| row_filter(&at))?,
            when: get("when").map(|at| condition(&at, 0)).transpose()?,
            scope: object.choice("scope", SCOPES)?,
            budget: get("budget").map(|at| budget(&at)).transpose()?,
            statistics: get("statistics").map_or(Ok(Statistics::new()), |at| statistics(&at))?,
            directions: get("directions").map_or(Ok(BTreeMap::new()), |at| directions(&at))?,
        })
    }
}

impl Statistics {
    /// Reads `{"17": {"max": 9.5, "mean": 1.2, "deviation": 0.8}, ..}`; each of the three may be
    /// missing.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is not JSON, else [`Error::InvalidValue`] with a path.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let value = parse(text)?;
        Self::read(&At::root(&value, "the statistics"))
    }

    pub(crate) fn read(at: &At<'_>) -> Result<Self, Error> {
        statistics(at)
    }
}

fn edit(at: &At<'_>) -> Result<Edit, Error> {
    let object = at.object(&[
        "feature",
        "features",
        "direction",
        "rule",
        "strength",
        "over",
        "under",
        "reads",
    ])?;
    let targets = ["feature", "features", "direction"];
    let given: Vec<At<'_>> = targets.iter().filter_map(|key| object.get(key)).collect();
    let target = match &given[..] {
        [_] => match object.get("direction") {
            Some(name) => Target::Direction(name.string()?),
            None => match object.get("feature") {
                Some(feature) => Target::Features(alloc::vec![feature.index()?]),
                None => Target::Features(object.need("features", "")?.indices()?),
            },
        },
        [] => {
            return Err(Error::MissingKey {
                key: object.path_of("feature"),
                hint: "what is edited: `feature`, `features` or `direction`".into(),
            });
        }
        _ => return Err(at.wrong("one of feature, features, direction")),
    };
    let rule: Rule = object.need("rule", "how it is edited")?.choice(RULES)?;
    let given = object.get("strength");
    let strength = match (rule.has_strength(), given) {
        (true, Some(at)) => strength(&at)?,
        (false, None) => Strength::absolute(0.0),
        (true, None) => object
            .need("strength", "the number of the rule")
            .and_then(|at| strength(&at))?,
        (false, Some(at)) => return Err(at.wrong("nothing: this rule has no strength")),
    };
    Ok(Edit {
        target,
        rule,
        strength,
        over: object
            .get("over")
            .map(|at| self::strength(&at))
            .transpose()?,
        under: object
            .get("under")
            .map(|at| self::strength(&at))
            .transpose()?,
        reads: object.choice("reads", READS)?,
    })
}

fn strength(at: &At<'_>) -> Result<Strength, Error> {
    if at.value.is_number() {
        return Ok(Strength::absolute(at.number()?));
    }
    let object = at.object(&["value", "by_phase", "of", "deviations"])?;
    let values = match (object.get("value"), object.get("by_phase")) {
        (Some(value), None) => alloc::vec![value.number()?],
        (None, Some(values)) => values.list(At::number)?,
        _ => return Err(at.wrong("either `value` or `by_phase`")),
    };
    Ok(Strength {
        values,
        of: object.choice("of", SCALES)?,
        deviations: object.get("deviations").map_or(Ok(0.0), |at| at.number())?,
    })
}

fn mask(object: &Object<'_>) -> Result<Mask, Error> {
    let given: Vec<&str> = ["keep_only", "drop", "scores"]
        .into_iter()
        .filter(|key| object.map.contains_key(*key))
        .collect();
    if given.len() > 1 {
        return Err(invalid(
            "the plan",
            "at most one of keep_only, drop, scores",
            given.join(", "),
        ));
    }
    if let Some(at) = object.get("keep_only") {
        return Ok(Mask::KeepOnly(at.indices()?));
    }
    if let Some(at) = object.get("drop") {
        return Ok(Mask::Drop(at.indices()?));
    }
    let Some(at) = object.get("scores") else {
        return Ok(Mask::None);
    };
    let scores = at.object(&["mode", "weights", "default"])?;
    let weights = scores.need("weights", "scores by feature")?;
    Ok(Mask::Scores {
        mode: scores.need("mode", "`weight` or `swap`")?.choice(MODES)?,
        weights: weights
            .any_object()?
            .features(At::number)?
            .into_iter()
            .collect(),
        default: scores.get("default").map_or(Ok(0.0), |at| at.number())?,
    })
}

fn range(at: &At<'_>) -> Result<(u32, u32), Error> {
    match at.indices()?[..] {
        [from, to] if from <= to => Ok((from, to)),
        _ => Err(at.wrong("[from, to] with from <= to")),
    }
}

fn row_filter(at: &At<'_>) -> Result<RowFilter, Error> {
    let object = at.object(&[
        "skip_first",
        "last_only",
        "stage",
        "positions",
        "classes",
        "skip_classes",
        "phases",
    ])?;
    let get = |key| object.get(key);
    Ok(RowFilter {
        skip_first: get("skip_first").map_or(Ok(0), |at| at.index())?,
        last_only: get("last_only").map_or(Ok(false), |at| at.boolean())?,
        stage: get("stage").map(|at| at.choice(STAGES)).transpose()?,
        positions: get("positions").map(|at| at.list(range)).transpose()?,
        classes: get("classes").map(|at| at.indices()).transpose()?,
        skip_classes: get("skip_classes").map_or(Ok(Vec::new()), |at| at.indices())?,
        phases: get("phases").map(|at| at.list(range)).transpose()?,
    })
}

fn condition(at: &At<'_>, depth: usize) -> Result<Condition, Error> {
    if depth >= MAX_CONDITION_DEPTH {
        return Err(at.wrong(format!("conditions at most {MAX_CONDITION_DEPTH} deep")));
    }
    let object = at.object(&[
        "feature",
        "over",
        "any",
        "all",
        "not",
        "linear",
        "bias",
        "reconstruction",
        "at_least",
    ])?;
    let only = |keys: &[&str]| -> Result<(), Error> {
        match object.map.keys().find(|key| !keys.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => Err(invalid(
                &at.path,
                format!("the keys {}", keys.join(", ")),
                key.clone(),
            )),
        }
    };
    if let Some(feature) = object.get("feature") {
        only(&["feature", "over"])?;
        return Ok(Condition::Over {
            feature: feature.index()?,
            over: object.get("over").map_or(Ok(0.0), |at| at.number())?,
        });
    }
    if let Some(list) = object.get("any") {
        only(&["any"])?;
        return Ok(Condition::Any(list.list(|at| condition(at, depth + 1))?));
    }
    if let Some(list) = object.get("all") {
        only(&["all"])?;
        return Ok(Condition::All(list.list(|at| condition(at, depth + 1))?));
    }
    if let Some(inner) = object.get("not") {
        only(&["not"])?;
        return Ok(Condition::Not(Box::new(condition(&inner, depth + 1)?)));
    }
    if let Some(weights) = object.get("linear") {
        only(&["linear", "bias", "over"])?;
        let weight = |at: &At<'_>| {
            let object = at.object(&["feature", "weight"])?;
            let feature = object.need("feature", "the feature")?.index()?;
            let weight = object.need("weight", "its weight")?.number()?;
            Ok((feature, weight))
        };
        return Ok(Condition::Linear {
            weights: weights.list(weight)?,
            bias: object.get("bias").map_or(Ok(0.0), |at| at.number())?,
            over: object.get("over").map_or(Ok(0.0), |at| at.number())?,
        });
    }
    if let Some(which) = object.get("reconstruction") {
        only(&["reconstruction", "at_least"])?;
        return Ok(Condition::Reconstruction {
            edited: which.choice(&[("edited", true), ("unedited", false)])?,
            at_least: object.need("at_least", "the threshold")?.number()?,
        });
    }
    Err(at.wrong("one of feature, any, all, not, linear, reconstruction"))
}

fn budget(at: &At<'_>) -> Result<Budget, Error> {
    let object = at.object(&["relative", "over"])?;
    Ok(Budget {
        relative: object
            .need("relative", "the limit of |y' - y| / |y|")?
            .number()?,
        over: object.choice("over", OVER_BUDGET)?,
    })
}

fn statistics(at: &At<'_>) -> Result<Statistics, Error> {
    let one = |at: &At<'_>| {
        let object = at.object(&["max", "mean", "deviation"])?;
        let number = |key| object.get(key).map(|at: At<'_>| at.number()).transpose();
        Ok(FeatureStatistics {
            max: number("max")?,
            mean: number("mean")?,
            deviation: number("deviation")?,
        })
    };
    let mut statistics = Statistics::new();
    for (feature, found) in at.any_object()?.features(one)? {
        statistics.insert(feature, found);
    }
    Ok(statistics)
}

fn directions(at: &At<'_>) -> Result<BTreeMap<String, Direction>, Error> {
    let one = |(name, at): (&String, At<'_>)| {
        let object = at.object(&["values", "normalize"])?;
        let values = object.need("values", "the vector")?;
        let values = values.list(|at| Ok(at.number()? as f32))?;
        let normalize = object.get("normalize");
        let normalize = normalize.map_or(Ok(false), |at| at.boolean())?;
        Ok((name.clone(), Direction { values, normalize }))
    };
    at.any_object()?.entries().map(one).collect()
}
