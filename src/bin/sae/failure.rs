//! Why a command ended early.

use sae::Error;
use std::fmt;
use std::io;
use std::path::Path;

/// The error of work on a file, with the file's path.
pub(crate) fn named<T>(path: &Path, result: Result<T, Error>) -> Result<T, Error> {
    result.map_err(|error| error.in_file(path.display().to_string()))
}

/// Why a command ended early.
pub(crate) enum Failure {
    /// The library's error, or one in its words.
    Sae(Error),
    /// Standard output cannot be written.
    Output(io::Error),
    /// Whoever read standard output has enough (`sae demo | head`): not a failure.
    ReaderGone,
    /// What was verified is wrong; the findings are on stdout.
    Verdict,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Sae(error) => error.fmt(f),
            Failure::Output(error) => write!(f, "cannot write to stdout: {error}"),
            Failure::ReaderGone => f.write_str("stdout was closed"),
            Failure::Verdict => f.write_str("something is wrong"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Sae(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ReaderGone,
            _ => Failure::Output(error),
        }
    }
}
