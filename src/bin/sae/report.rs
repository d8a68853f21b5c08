//! What went not quite as hoped, collected over the rows and said on stderr at the end.

use sae::RowStatus;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// How many row numbers are named.
const NAMED: usize = 8;

/// The rows that failed.
pub(crate) struct Report {
    file: PathBuf,
    narrowed: bool,
    rows: usize,
    non_finite: Vec<usize>,
    nan_weights: Vec<usize>,
}

impl Report {
    /// For the rows of `file`, which held f64 if `narrowed`.
    pub(crate) fn new(file: &Path, narrowed: bool) -> Self {
        Report {
            file: file.to_path_buf(),
            narrowed,
            rows: 0,
            non_finite: Vec::new(),
            nan_weights: Vec::new(),
        }
    }

    /// The next row's status.
    pub(crate) fn add(&mut self, status: RowStatus) {
        match status {
            RowStatus::NonFinite => self.non_finite.push(self.rows),
            RowStatus::NanPreActivation => self.nan_weights.push(self.rows),
            _ => {}
        }
        self.rows += 1;
    }

    /// Says on stderr what there is to say.
    pub(crate) fn print(&self) {
        let file = self.file.display();
        let mut text = String::new();
        if self.narrowed {
            let _ = writeln!(text, "note: {file}: float64 rows were rounded to float32");
        }
        let mut rows = |failed: &[usize], why: &str| {
            if failed.is_empty() {
                return;
            }
            let named: Vec<_> = failed.iter().take(NAMED).map(usize::to_string).collect();
            let more = if failed.len() > NAMED { ", ..." } else { "" };
            let _ = writeln!(
                text,
                "warning: {file}: {} of {} rows {why}: {}{more}",
                failed.len(),
                self.rows,
                named.join(", "),
            );
        };
        rows(
            &self.non_finite,
            "hold a NaN or an infinity and have no features",
        );
        rows(
            &self.nan_weights,
            "meet a NaN in the weights, such features were left out",
        );
        let _ = io::stderr().write_all(text.as_bytes());
    }
}
