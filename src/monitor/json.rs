//! Rules as JSON, read with a path to whatever is wrong, and written in one canonical form. The
//! schema for other programs is `docs/rules/schema.json`.

use super::pool::Pooling;
use super::rules::{DIRECTIONS, Detector, Direction, Input, Limit, POOLINGS, Rule, Rules};
use crate::error::Error;
use crate::json::{At, Object, hash, invalid, parse};
use crate::steer::Statistics;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde_json::{Map, Value, json};

/// The default of `over` for CUSUM, in deviations of the baseline.
pub(super) const CUSUM_DEVIATIONS: f64 = 5.0;

impl Rules {
    /// Reads rules from JSON text.
    ///
    /// ```
    /// use sae::monitor::Rules;
    /// let rules = Rules::from_json(r#"{"rules": [
    ///     {"name": "weapons", "kind": "threshold", "feature": 3, "over": 4.5}
    /// ]}"#);
    /// assert_eq!(rules.unwrap().rules.len(), 1);
    /// let wrong = Rules::from_json(r#"{"rules": [{"name": "weapons", "kind": "treshold"}]}"#);
    /// assert!(wrong.unwrap_err().to_string().starts_with("`rules[0].kind`: "));
    /// ```
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is not JSON; [`Error::InvalidValue`] or [`Error::MissingKey`]
    /// with the path to what is unknown, missing or of the wrong kind.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        Self::from_value(&parse(text)?)
    }

    /// Reads rules from a JSON value.
    ///
    /// # Errors
    /// As [`Rules::from_json`].
    pub fn from_value(value: &Value) -> Result<Self, Error> {
        let object = At::root(value, "the rules").object(&[
            "$schema", "name", "about", "d_sae", "model", "rules", "labels", "baseline",
        ])?;
        let get = |key| object.get(key);
        let labels = |at: At<'_>| at.any_object()?.features(At::string);
        Ok(Rules {
            name: get("name").map_or(Ok(String::new()), |at| at.string())?,
            d_sae: get("d_sae").map(|at| at.index()).transpose()?,
            model: get("model").map(|at| fingerprint(&at)).transpose()?,
            rules: object.need("rules", "a list of rules")?.list(rule)?,
            labels: get("labels")
                .map_or(Ok(Vec::new()), labels)?
                .into_iter()
                .collect(),
            baseline: get("baseline").map_or(Ok(Statistics::new()), |at| Statistics::read(&at))?,
        })
    }

    /// The rules as JSON that [`Rules::from_value`] reads back.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        map.insert("name".into(), self.name.as_str().into());
        if let Some(d_sae) = self.d_sae {
            map.insert("d_sae".into(), d_sae.into());
        }
        if let Some(model) = self.model {
            map.insert("model".into(), format!("{model:016x}").into());
        }
        map.insert(
            "rules".into(),
            self.rules.iter().map(rule_to_json).collect(),
        );
        if !self.labels.is_empty() {
            let labels = self.labels.iter();
            let labels =
                labels.map(|(feature, label)| (format!("{feature}"), label.as_str().into()));
            map.insert("labels".into(), Value::Object(labels.collect()));
        }
        if !self.baseline.is_empty() {
            map.insert("baseline".into(), self.baseline.to_json());
        }
        Value::Object(map)
    }

    /// A number that is the same for rules that say the same, on every machine.
    pub fn hash(&self) -> u64 {
        hash(&self.to_json())
    }
}

fn fingerprint(at: &At<'_>) -> Result<u64, Error> {
    let text = at.string()?;
    match u64::from_str_radix(&text, 16) {
        Ok(number) if text.len() == 16 => Ok(number),
        _ => Err(at.wrong("a fingerprint: 16 hexadecimal digits")),
    }
}

fn rule(at: &At<'_>) -> Result<Rule, Error> {
    let object = at.any_object()?;
    let kinds = [
        "threshold",
        "coactivation",
        "linear",
        "logistic",
        "cusum",
        "drift",
        "non_finite",
    ]
    .map(|name| (name, name));
    let kind = object.need("kind", "which detector")?.choice(&kinds)?;
    let own: &[&str] = match kind {
        "threshold" => &["feature", "features", "signal", "over", "release"],
        "coactivation" => &["features", "active_over", "at_least", "within"],
        "linear" | "logistic" => &["weights", "bias", "pooling", "binary", "over", "release"],
        "cusum" => &["feature", "signal", "target", "slack", "direction", "over"],
        "drift" => &[
            "feature",
            "signal",
            "half_life",
            "mean",
            "deviation",
            "direction",
            "over",
            "release",
        ],
        _ => &[],
    };
    let common = ["name", "kind", "run", "limit"];
    let keys: Vec<&str> = common.iter().chain(own).copied().collect();
    let object = at.object(&keys)?;
    let number = |key: &str| object.get(key).map(|at| at.number()).transpose();
    let over = || object.need("over", "the score to exceed")?.number();
    let (detector, over) = match kind {
        "threshold" => (
            Detector::Threshold {
                inputs: inputs(&object)?,
            },
            over()?,
        ),
        "coactivation" => {
            let at_least = object
                .need("at_least", "how many of the features")?
                .index()?;
            let within = object.need("within", "of how many rows")?.index()?.into();
            let detector = Detector::Coactivation {
                features: object.need("features", "a list of features")?.indices()?,
                active_over: number("active_over")?.unwrap_or(0.0),
                at_least,
                within,
            };
            (detector, f64::from(at_least) - 1.0)
        }
        "linear" | "logistic" => {
            let weight = |at: &At<'_>| {
                let object = at.object(&["feature", "weight"])?;
                let feature = object.need("feature", "the feature")?.index()?;
                Ok((feature, object.need("weight", "its weight")?.number()?))
            };
            let detector = Detector::Linear {
                weights: object
                    .need("weights", "features and weights")?
                    .list(weight)?,
                bias: number("bias")?.unwrap_or(0.0),
                pooling: object.choice::<Pooling>("pooling", POOLINGS)?,
                binary: number("binary")?,
                logistic: kind == "logistic",
            };
            (detector, over()?)
        }
        "cusum" => {
            let detector = Detector::Cusum {
                input: input(&object)?,
                target: number("target")?,
                slack: number("slack")?,
                direction: object.choice::<Direction>("direction", DIRECTIONS)?,
            };
            // Without a number it is told by the baseline when the rules are compiled.
            (detector, number("over")?.unwrap_or(f64::NAN))
        }
        "drift" => {
            let detector = Detector::Drift {
                input: input(&object)?,
                half_life: object.need("half_life", "in rows")?.number()?,
                mean: number("mean")?,
                deviation: number("deviation")?,
                direction: object.choice::<Direction>("direction", DIRECTIONS)?,
            };
            (detector, number("over")?.unwrap_or(3.0))
        }
        _ => (Detector::NonFinite, 0.0),
    };
    Ok(Rule {
        name: object.need("name", "what events call it")?.string()?,
        detector,
        over,
        release: number("release")?,
        run: object.get("run").map_or(Ok(1), |at| at.index())?,
        limit: object.get("limit").map(|at| limit(&at)).transpose()?,
    })
}

fn limit(at: &At<'_>) -> Result<Limit, Error> {
    let object = at.object(&["events", "rows"])?;
    Ok(Limit {
        events: object.need("events", "at most so many alerts")?.index()?,
        rows: object.need("rows", "in so many rows")?.index()?.into(),
    })
}

fn inputs(object: &Object<'_>) -> Result<Vec<Input>, Error> {
    match object.get("features") {
        None => Ok(alloc::vec![input(object)?]),
        Some(at) => {
            let both = ["feature", "signal"]
                .iter()
                .find(|key| object.get(key).is_some());
            if let Some(other) = both {
                let path = object.path_of(other);
                return Err(invalid(
                    &path,
                    "one of feature, features, signal",
                    "two of them",
                ));
            }
            Ok(at.indices()?.into_iter().map(Input::Feature).collect())
        }
    }
}

fn input(object: &Object<'_>) -> Result<Input, Error> {
    match (object.get("feature"), object.get("signal")) {
        (Some(at), None) => Ok(Input::Feature(at.index()?)),
        (None, Some(at)) if at.boolean()? => Ok(Input::Signal),
        (None, Some(at)) => Err(at.wrong("true, or the key left out")),
        (Some(_), Some(at)) => Err(at.wrong("one of feature, signal")),
        (None, None) => Err(Error::MissingKey {
            key: object.path_of("feature"),
            hint: "what is watched: a feature, or `signal`".into(),
        }),
    }
}

fn rule_to_json(rule: &Rule) -> Value {
    let mut value = json!({"name": rule.name, "kind": rule.detector.name()});
    let mut set = |key: &str, found: Value| {
        if let Some(map) = value.as_object_mut() {
            map.insert(key.into(), found);
        }
    };
    let name = crate::steer::name_of::<Direction>;
    let input = |input: &Input| match input {
        Input::Feature(feature) => ("feature", Value::from(*feature)),
        Input::Signal => ("signal", true.into()),
    };
    match &rule.detector {
        Detector::Threshold { inputs } => {
            match inputs[..] {
                [one] => {
                    let (key, found) = input(&one);
                    set(key, found);
                }
                _ => set("features", rule.detector.features().into()),
            }
            set("over", rule.over.into());
        }
        Detector::Coactivation {
            features,
            active_over,
            at_least,
            within,
        } => {
            set("features", features.as_slice().into());
            set("active_over", (*active_over).into());
            set("at_least", (*at_least).into());
            set("within", (*within).into());
        }
        Detector::Linear {
            weights,
            bias,
            pooling,
            binary,
            ..
        } => {
            let weights = weights.iter();
            let weights = weights
                .map(|(feature, weight)| json!({"feature": feature, "weight": weight}))
                .collect();
            set("weights", weights);
            set("bias", (*bias).into());
            set("pooling", crate::steer::name_of(POOLINGS, *pooling).into());
            if let Some(binary) = binary {
                set("binary", (*binary).into());
            }
            set("over", rule.over.into());
        }
        Detector::Cusum {
            input: from,
            target,
            slack,
            direction,
        } => {
            let (key, found) = input(from);
            set(key, found);
            for (key, number) in [("target", *target), ("slack", *slack)] {
                if let Some(number) = number {
                    set(key, number.into());
                }
            }
            set("direction", name(DIRECTIONS, *direction).into());
            if !rule.over.is_nan() {
                set("over", rule.over.into());
            }
        }
        Detector::Drift {
            input: from,
            half_life,
            mean,
            deviation,
            direction,
        } => {
            let (key, found) = input(from);
            set(key, found);
            set("half_life", (*half_life).into());
            for (key, number) in [("mean", *mean), ("deviation", *deviation)] {
                if let Some(number) = number {
                    set(key, number.into());
                }
            }
            set("direction", name(DIRECTIONS, *direction).into());
            set("over", rule.over.into());
        }
        Detector::NonFinite => {}
    }
    if let Some(release) = rule.release {
        set("release", release.into());
    }
    if rule.run != 1 {
        set("run", rule.run.into());
    }
    if let Some(limit) = rule.limit {
        set("limit", json!({"events": limit.events, "rows": limit.rows}));
    }
    value
}
