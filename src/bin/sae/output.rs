//! What is checked about an output file before the work for it begins. The file itself is written
//! by the library, under a temporary name, and renamed when it is complete.

use sae::Error;
use std::io;
use std::path::Path;

/// Refuses a folder, and a file that is an input: it would be replaced.
pub(crate) fn check(output: &Path, inputs: &[&Path]) -> Result<(), Error> {
    if output.is_dir() {
        let error = io::Error::from(io::ErrorKind::IsADirectory);
        return Err(Error::Io {
            operation: "write",
            message: error.to_string(),
        }
        .in_file(output.display().to_string()));
    }
    let is_output = |input: &&Path| match (output.canonicalize(), input.canonicalize()) {
        // Inside a checkpoint's folder it is an input too, if it is there already.
        (Ok(output), Ok(input)) => output.starts_with(input),
        _ => false,
    };
    if inputs.iter().any(is_output) {
        return Err(Error::InvalidArgument {
            what: "output file",
            expected: "a name of its own".into(),
            found: "a file that is read".into(),
        }
        .in_file(output.display().to_string()));
    }
    Ok(())
}
