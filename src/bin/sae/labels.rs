//! Labels of features, for the subcommands that show features.

use crate::failure::Failure;
use crate::progress::while_waiting;
use crate::style::count;
use sae::Labels;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct LabelsArg {
    /// What the features mean, in words: Neuronpedia's explanation export of this SAE, a file of
    /// JSON lines or JSON, gzipped or not, or the folder of its batches
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
}

impl LabelsArg {
    /// The labels that were asked for. A label of a feature that a model of `d_sae` features does
    /// not have is an error.
    pub(crate) fn open(&self, d_sae: usize) -> Result<Option<Labels>, Failure> {
        read(self.labels.as_deref(), d_sae)
    }
}

/// As [`LabelsArg::open`], of a file that another argument names.
pub(crate) fn read(path: Option<&Path>, d_sae: usize) -> Result<Option<Labels>, Failure> {
    let Some(path) = path else {
        return Ok(None);
    };
    let labels = while_waiting("reading the labels", || Labels::open(path))?;
    labels
        .check(d_sae)
        .map_err(|error| error.in_file(path.display().to_string()))?;
    Ok(Some(labels))
}

/// The labels of a feature on one line: the first, and how many more there are; "" if there is
/// none.
pub(crate) fn label(labels: &Labels, feature: u32) -> String {
    let mut all = labels.of(feature);
    let more = match all.len() {
        0 | 1 => String::new(),
        several => format!(" (and {} more)", several - 1),
    };
    all.next()
        .map_or(String::new(), |label| one_line(label.text) + &more)
}

/// A text from a file, safe for a terminal and on one line: what would move the cursor, change
/// colours or reverse the writing becomes a space.
pub(crate) fn one_line(text: &str) -> String {
    let shown = |c: char| match c {
        '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => ' ',
        c if c.is_control() => ' ',
        c => c,
    };
    text.chars().map(shown).collect()
}

/// What a table of labels is, as (key, value) lines.
pub(crate) fn about(labels: &Labels, d_sae: usize) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let (Some(model), Some(source)) = (labels.model(), labels.source()) {
        lines.push(("labels of", one_line(&format!("{model}/{source}"))));
    }
    lines.push((
        "labels",
        format!(
            "{}, for {} of {} features",
            count(labels.count() as u64),
            count(labels.features() as u64),
            count(d_sae as u64)
        ),
    ));
    lines
}

/// The same for programs.
pub(crate) fn to_json(labels: &Labels) -> Value {
    json!({
        "model": labels.model(),
        "source": labels.source(),
        "count": labels.count(),
        "features": labels.features(),
        "blank": labels.blank(),
    })
}
