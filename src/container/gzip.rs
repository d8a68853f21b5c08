//! gzip around a checkpoint (`.pkl.gz`) or a text (`.json.gz`). Nothing in it can be mapped, so
//! the whole is unpacked into memory, after a first pass has measured it and compared its
//! checksum: a bomb is refused before memory is asked for.

use super::entry::reserve;
use crate::error::Error;
use alloc::format;
use alloc::vec::Vec;
use std::io::Read;

const CONTAINER: &str = "gzip";

/// The first bytes of the format.
pub const MAGIC: &[u8] = b"\x1f\x8b";

/// Most times that a checkpoint may grow when it is unpacked. Weights hardly shrink.
pub const MAX_RATIO: u64 = 100;

/// The unpacked bytes, at most `limit` of them.
///
/// # Errors
/// [`Error::Limit`] beyond `limit`, [`Error::Malformed`] for damaged data,
/// [`Error::OutOfMemory`].
pub fn gunzip(bytes: &[u8], limit: u64) -> Result<Vec<u8>, Error> {
    let mut size = 0;
    inflate(bytes, |part| {
        size += part.len() as u64;
        if size <= limit {
            return Ok(());
        }
        Err(Error::Limit {
            what: "the unpacked size of the gzip file".into(),
            limit,
            found: size,
        })
    })?;
    let mut memory = reserve(size, "an unpacked gzip file")?;
    inflate(bytes, |part| {
        memory.extend_from_slice(part);
        Ok(())
    })?;
    Ok(memory)
}

fn inflate(bytes: &[u8], mut visit: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
    let mut decoder = flate2::bufread::MultiGzDecoder::new(bytes);
    let mut chunk = [0; 16 << 10];
    loop {
        let count = decoder.read(&mut chunk).map_err(|error| Error::Malformed {
            container: CONTAINER,
            what: format!("{error}"),
        })?;
        match chunk.get(..count) {
            Some(part) if count > 0 => visit(part)?,
            _ => return Ok(()),
        }
    }
}
