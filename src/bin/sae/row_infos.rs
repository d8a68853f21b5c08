//! What is known of activation rows besides their values, from a JSON file.

use sae::Error;
use sae::steer::{RowInfo, Stage};
use serde_json::{Map, Value};

/// Reads a list with an object for each of `rows` rows. What an object does not say is as if there
/// were no file: the rows are one sequence from position 0 on, whose last row is the last.
pub(crate) fn read(text: &str, rows: usize) -> Result<Vec<RowInfo>, Error> {
    let value: Value = serde_json::from_str(text).map_err(|error| Error::Malformed {
        container: "json",
        what: error.to_string(),
    })?;
    let Value::Array(list) = &value else {
        return Err(wrong(
            "the infos",
            "a list with an object for each row",
            &value,
        ));
    };
    if list.len() != rows {
        return Err(Error::Length {
            what: "infos of rows",
            expected: rows as u64,
            found: list.len() as u64,
        });
    }
    let infos = list.iter().enumerate().map(|(row, value)| {
        let Value::Object(object) = value else {
            return Err(wrong(&format!("[{row}]"), "an object", value));
        };
        one(object, row, row + 1 == rows)
    });
    infos.collect()
}

fn one(object: &Map<String, Value>, row: usize, last: bool) -> Result<RowInfo, Error> {
    let mut info = RowInfo {
        last,
        ..RowInfo::at(row as u32)
    };
    let mut source = None;
    for (key, value) in object {
        let path = format!("[{row}].{key}");
        let number = || {
            let found = value.as_u64().and_then(|found| u32::try_from(found).ok());
            found.ok_or_else(|| wrong(&path, "a whole number below 2^32", value))
        };
        match key.as_str() {
            "position" => info.position = number()?,
            "stage" => {
                info.stage = match value.as_str() {
                    Some("unknown") => Stage::Unknown,
                    Some("prompt") => Stage::Prompt,
                    Some("generation") => Stage::Generation,
                    _ => return Err(wrong(&path, "unknown, prompt or generation", value)),
                };
            }
            "last" => {
                let found = value.as_bool();
                info.last = found.ok_or_else(|| wrong(&path, "true or false", value))?;
            }
            "class" => info.class = number()?,
            "phase" => info.phase = number()?,
            "factor" => {
                let found = value.as_f64();
                info.factor = found.ok_or_else(|| wrong(&path, "a number", value))?;
            }
            "plan" => {
                info.plan = match value {
                    Value::Null => RowInfo::NO_PLAN,
                    _ => number()?,
                };
            }
            "source" => source = Some(number()?),
            _ => {
                let keys = "position, stage, last, class, phase, factor, plan or source";
                return Err(wrong(&path, keys, &Value::String(key.clone())));
            }
        }
    }
    info.source = source.unwrap_or(row as u32);
    Ok(info)
}

fn wrong(path: &str, expected: &str, found: &Value) -> Error {
    Error::InvalidValue {
        key: path.into(),
        expected: expected.into(),
        found: found.to_string().chars().take(60).collect(),
    }
}
