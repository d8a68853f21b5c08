//! What the demo embeds; `README.md` in this folder says where it comes from.

use crate::rows::RowsFile;
use sae::Error;
use serde_json::Value;

pub(super) const WEIGHTS_NAME: &str = "sae_weights.safetensors";
pub(super) const WEIGHTS: &[u8] = include_bytes!("sae/sae_weights.safetensors");
pub(super) const CONFIG: &str = include_str!("sae/cfg.json");
const ACTIVATIONS: &[u8] = include_bytes!("activations.npy");
const TOKENS: &str = include_str!("tokens.json");
const LABELS: &str = include_str!("labels.json");

/// One row of the activations.
pub(super) struct Token {
    pub(super) sentence: usize,
    pub(super) text: String,
    /// [CLS] or [SEP]: the SAE was not trained on these.
    pub(super) special: bool,
}

/// The embedded files, read.
pub(super) struct Data {
    pub(super) model: String,
    pub(super) point: String,
    pub(super) sentences: Vec<String>,
    pub(super) tokens: Vec<Token>,
    pub(super) activations: RowsFile,
    labels: Vec<String>,
}

impl Data {
    pub(super) fn embedded() -> Result<Self, Error> {
        let tokens = parse("tokens.json", TOKENS)?;
        let labels = parse("labels.json", LABELS)?;
        let text = |value: &Value| value.as_str().map(str::to_string);
        let token = |value: &Value| {
            Some(Token {
                sentence: usize::try_from(value["sentence"].as_u64()?).ok()?,
                text: text(&value["token"])?,
                special: value["special"].as_bool()?,
            })
        };
        let all = || {
            let sentences = tokens["sentences"].as_array()?.iter().map(text);
            let list = tokens["tokens"].as_array()?.iter().map(token);
            // In order of their index: the list holds every feature.
            let labels = labels
                .as_array()?
                .iter()
                .map(|label| text(&label["description"]));
            Some((
                text(&tokens["model"])?,
                text(&tokens["point"])?,
                sentences.collect::<Option<Vec<_>>>()?,
                list.collect::<Option<Vec<_>>>()?,
                labels.collect::<Option<Vec<_>>>()?,
            ))
        };
        let (model, point, sentences, tokens, labels) =
            all().ok_or_else(|| malformed("tokens.json", "a field is missing"))?;
        Ok(Data {
            model,
            point,
            sentences,
            tokens,
            activations: RowsFile::from_static("activations.npy", ACTIVATIONS)?,
            labels,
        })
    }

    pub(super) fn label(&self, feature: u32) -> &str {
        self.labels.get(feature as usize).map_or("", String::as_str)
    }
}

fn parse(name: &str, text: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(|error| malformed(name, &error.to_string()))
}

fn malformed(name: &str, what: &str) -> Error {
    Error::Malformed {
        container: "json",
        what: what.into(),
    }
    .in_file(name)
}
