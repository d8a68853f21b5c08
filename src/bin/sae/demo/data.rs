//! What the demo embeds; `README.md` in this folder says where it comes from.

use crate::labels::label;
use crate::rows::RowsFile;
use sae::{Error, Labels};
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
    /// By feature.
    labels: Vec<String>,
}

impl Data {
    pub(super) fn embedded() -> Result<Self, Error> {
        let tokens = parse("tokens.json", TOKENS)?;
        // In the form of Neuronpedia's exports, with a label for every feature.
        let labels = Labels::from_bytes(LABELS.as_bytes());
        let labels = labels.map_err(|error| error.in_file("labels.json"))?;
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
            Some((
                text(&tokens["model"])?,
                text(&tokens["point"])?,
                sentences.collect::<Option<Vec<_>>>()?,
                list.collect::<Option<Vec<_>>>()?,
            ))
        };
        let (model, point, sentences, tokens) =
            all().ok_or_else(|| malformed("tokens.json", "a field is missing"))?;
        let mut data = Data {
            model,
            point,
            sentences,
            tokens,
            activations: RowsFile::from_static("activations.npy", ACTIVATIONS)?,
            labels: Vec::new(),
        };
        data.relabel(&labels, labels.count());
        Ok(data)
    }

    /// Takes the labels of `features` features.
    pub(super) fn relabel(&mut self, labels: &Labels, features: usize) {
        self.labels = (0..features as u32).map(|i| label(labels, i)).collect();
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
