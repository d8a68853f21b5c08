//! Why a command ended early.

use sae::Error;
use std::fmt;
use std::io;

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
