//! Bounds on JSON text before it is parsed: how long a text in it may be, and how deep it nests.
//! A parser that skips what it does not need still collects each text and remembers each bracket.

use super::limit;
use crate::error::Error;

/// Longest text anywhere in a file, in bytes as written. Embeddings, which exports hold as text,
/// take some kilobytes.
pub const MAX_STRING: usize = 1 << 20;

/// Longest number anywhere in a file, in digits as written: a parser that finds the nearest double
/// holds all of them.
pub const MAX_NUMBER: usize = 1 << 12;

/// Deepest nesting.
pub const MAX_DEPTH: usize = 32;

/// Most times that a gzipped export may grow when it is unpacked.
#[cfg(feature = "gzip")]
pub const MAX_RATIO: u64 = 100;

/// Where in the text it is.
#[derive(Default)]
pub(super) struct Guard {
    in_string: bool,
    escaped: bool,
    length: usize,
    digits: usize,
    depth: usize,
}

impl Guard {
    /// Looks at the next part of the text.
    pub(super) fn see(&mut self, part: &[u8]) -> Result<(), Error> {
        for &byte in part {
            if self.in_string {
                self.length += 1;
                if self.length > MAX_STRING {
                    limit("the length of a text", self.length, MAX_STRING)?;
                }
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
            } else {
                self.digits = match byte {
                    b'0'..=b'9' | b'.' => self.digits + 1,
                    _ => 0,
                };
                if self.digits > MAX_NUMBER {
                    limit("the length of a number", self.digits, MAX_NUMBER)?;
                }
                match byte {
                    b'"' => (self.in_string, self.length) = (true, 0),
                    b'[' | b'{' => {
                        self.depth += 1;
                        limit("the nesting", self.depth, MAX_DEPTH)?;
                    }
                    b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Unpacks gzip as it is read, under the guard's bounds and one on the whole.
#[cfg(feature = "gzip")]
pub(super) struct Unpacked<'a> {
    decoder: flate2::bufread::MultiGzDecoder<&'a [u8]>,
    guard: Guard,
    left: u64,
    limit: u64,
}

#[cfg(feature = "gzip")]
impl<'a> Unpacked<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let limit = (bytes.len() as u64).saturating_mul(MAX_RATIO);
        Unpacked {
            decoder: flate2::bufread::MultiGzDecoder::new(bytes),
            guard: Guard::default(),
            left: limit,
            limit,
        }
    }
}

#[cfg(feature = "gzip")]
impl std::io::Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            std::io::Error::other(Error::Limit {
                what: "the unpacked size of the gzip file".into(),
                limit: self.limit,
                found: self.limit + count as u64,
            })
        })?;
        let part = buffer.get(..count).unwrap_or_default();
        self.guard.see(part).map_err(std::io::Error::other)?;
        Ok(count)
    }
}
