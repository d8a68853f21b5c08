//! Output files that are whole or not there: written under another name, renamed when complete.

use crate::failure::file_error;
use sae::Error;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

/// An output file being written. Dropped before [`OutputFile::complete`], it leaves nothing, and
/// a file that had the name before stays as it was.
pub(crate) struct OutputFile {
    path: PathBuf,
    temporary: PathBuf,
    completed: bool,
}

impl OutputFile {
    /// Creates the file under its temporary name, next to its place. `inputs` are files being
    /// read: the output must not replace one.
    pub(crate) fn create(path: &Path, inputs: &[&Path]) -> Result<(Self, BufWriter<File>), Error> {
        let same = |input: &Path| match (path.canonicalize(), input.canonicalize()) {
            (Ok(output), Ok(input)) => output == input,
            _ => false,
        };
        if inputs.iter().any(|input| same(input)) {
            return Err(Error::InvalidArgument {
                what: "output file",
                expected: "a name of its own".into(),
                found: format!("`{}`, which is an input", path.display()),
            });
        }
        if path.is_dir() {
            return Err(file_error(
                "write",
                path,
                &io::ErrorKind::IsADirectory.into(),
            ));
        }
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.partial", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = File::create(&temporary).map_err(|error| file_error("write", path, &error))?;
        let this = OutputFile {
            path: path.to_path_buf(),
            temporary,
            completed: false,
        };
        Ok((this, BufWriter::new(file)))
    }

    /// The error of a failed write to this file.
    pub(crate) fn write_error(&self, error: &io::Error) -> Error {
        file_error("write", &self.path, error)
    }

    /// Puts the finished file in its place.
    pub(crate) fn complete(mut self, writer: BufWriter<File>) -> Result<(), Error> {
        let rename = |file: File| {
            drop(file);
            std::fs::rename(&self.temporary, &self.path)
        };
        writer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(rename)
            .map_err(|error| self.write_error(&error))?;
        self.completed = true;
        Ok(())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if !self.completed {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}
