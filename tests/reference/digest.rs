//! What the digests of `tests/data/digests.txt` are taken over; `tests/data/d1.py` says it in words.

use super::d1::canonical;
use super::fixture::Case;
use sha2::{Digest as _, Sha256};

/// What the caller gives for a run of a case.
pub(crate) type Given = Vec<(String, String)>;

/// The runs of a case by name: as it is, and with other values of what the caller gives.
pub(crate) fn runs(case: &Case) -> Vec<(String, Given)> {
    let mut runs = vec![(case.name.clone(), case.given.clone())];
    if case.name == "saelens_standard_expected_average" {
        let given = ("norm_scaling_factor".to_string(), "0.37".to_string());
        runs.push((
            format!("{}+{}={}", case.name, given.0, given.1),
            vec![given],
        ));
    }
    runs
}

/// The bytes of a run: for each row the number of its features, indices, values; then all
/// reconstructions.
pub(crate) fn bytes<'r>(
    rows: impl Iterator<Item = (Vec<u32>, Vec<f32>)>,
    reconstructions: impl Iterator<Item = &'r f32>,
) -> Vec<u8> {
    let mut bytes = vec![];
    for (indices, values) in rows {
        bytes.extend((indices.len() as u32).to_le_bytes());
        bytes.extend(indices.iter().flat_map(|index| index.to_le_bytes()));
        bytes.extend(values.iter().flat_map(|&v| canonical(v).to_le_bytes()));
    }
    bytes.extend(reconstructions.flat_map(|&y| canonical(y).to_le_bytes()));
    bytes
}

/// Digests of runs, one a run and one over all.
#[derive(Default)]
pub(crate) struct Lines {
    lines: Vec<(String, String)>,
    all: Sha256,
}

impl Lines {
    /// Adds a run.
    pub(crate) fn add(&mut self, name: &str, bytes: &[u8]) {
        self.all.update(bytes);
        self.lines.push((name.to_string(), sha256(bytes)));
    }

    /// The runs and, last, all of them.
    pub(crate) fn finish(mut self) -> Vec<(String, String)> {
        let all = hexadecimal(&self.all.finalize());
        self.lines.push(("all".to_string(), all));
        self.lines
    }
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
