//! Why a call failed: an error of the library, or one of the boundary itself.

use crate::types::{
    SAE_STATUS_IN_USE, SAE_STATUS_INVALID_ARGUMENT, SAE_STATUS_LENGTH, SAE_STATUS_NULL_ARGUMENT,
    SAE_STATUS_PANIC, SAE_STATUS_WRONG_HANDLE, sae_error, sae_status,
};
use core::fmt::{self, Write};

/// A failure on its way to the caller. Names are those of the parameters in `sae.h`.
pub(crate) enum Failure {
    /// A pointer is NULL.
    Null { argument: &'static str },
    /// A handle has another tag.
    WrongHandle { expected: &'static str },
    /// A scratch or features handle is in use by another thread.
    InUse { kind: &'static str },
    /// A pointer does not have the alignment of its type.
    Misaligned {
        argument: &'static str,
        alignment: usize,
    },
    /// Two arguments share memory.
    Overlap {
        first: &'static str,
        second: &'static str,
    },
    /// A length is not the one that the other arguments ask for.
    Length {
        argument: &'static str,
        expected: usize,
        found: usize,
    },
    /// An argument is outside its range.
    Invalid {
        argument: &'static str,
        expected: &'static str,
        found: Found,
    },
    /// The library panicked.
    #[cfg_attr(
        not(all(feature = "std", panic = "unwind")),
        allow(dead_code, reason = "panics are caught where they unwind")
    )]
    Panic { message: alloc::string::String },
    /// An error of the library.
    Library(sae::Error),
}

/// The value that was found in place of an allowed one.
pub(crate) enum Found {
    Unsigned(u64),
    Signed(i64),
    NotUtf8,
    Text(alloc::string::String),
}

impl From<sae::Error> for Failure {
    fn from(error: sae::Error) -> Self {
        Failure::Library(error)
    }
}

impl Failure {
    pub(crate) fn status(&self) -> sae_status {
        match self {
            Failure::Null { .. } => SAE_STATUS_NULL_ARGUMENT,
            Failure::WrongHandle { .. } => SAE_STATUS_WRONG_HANDLE,
            Failure::InUse { .. } => SAE_STATUS_IN_USE,
            Failure::Misaligned { .. } | Failure::Overlap { .. } | Failure::Invalid { .. } => {
                SAE_STATUS_INVALID_ARGUMENT
            }
            Failure::Length { .. } => SAE_STATUS_LENGTH,
            Failure::Panic { .. } => SAE_STATUS_PANIC,
            Failure::Library(error) => error.code() as sae_status,
        }
    }

    pub(crate) fn to_c(&self) -> sae_error {
        let mut length = Counter(0);
        // Writing into a counter and into a fixed buffer does not fail.
        let _ = write!(length, "{self}");
        let mut out = sae_error::NONE;
        out.code = self.status();
        out.message_length = u32::try_from(length.0).unwrap_or(u32::MAX);
        let mut message = Message::new(&mut out.message, length.0);
        let _ = write!(message, "{self}");
        out
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Null { argument } => write!(f, "`{argument}` is NULL"),
            Failure::WrongHandle { expected } => {
                write!(
                    f,
                    "expected a live `{expected}` handle, found something else"
                )
            }
            Failure::InUse { kind } => write!(f, "the `{kind}` handle is in use by another call"),
            Failure::Misaligned {
                argument,
                alignment,
            } => {
                write!(f, "`{argument}` is not aligned to {alignment} bytes")
            }
            Failure::Overlap { first, second } => write!(f, "`{first}` overlaps `{second}`"),
            Failure::Length {
                argument,
                expected,
                found,
            } => {
                write!(f, "`{argument}`: expected {expected}, found {found}")
            }
            Failure::Invalid {
                argument,
                expected,
                found,
            } => {
                write!(f, "`{argument}`: expected {expected}, found {found}")
            }
            Failure::Panic { message } => {
                f.write_str("a defect of the library was caught at its boundary: ")?;
                f.write_str(message)
            }
            Failure::Library(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Unsigned(number) => number.fmt(f),
            Found::Signed(number) => number.fmt(f),
            Found::NotUtf8 => f.write_str("bytes that are not UTF-8"),
            Found::Text(text) => write!(f, "`{text}`"),
        }
    }
}

/// Counts the bytes of a text.
struct Counter(usize);

impl Write for Counter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.saturating_add(text.len());
        Ok(())
    }
}

/// Stands for the part of a message that was left out.
const ELLIPSIS: &str = " ... ";
/// Bytes of a message that is too long which are kept from its beginning; the rest of the room
/// goes to its end, where the cause is.
const HEAD: usize = 80;

/// Writes a text of known length into the fixed buffer of a [`sae_error`], without allocation.
/// A text that does not fit loses its middle, at character boundaries.
struct Message<'b> {
    buffer: &'b mut [core::ffi::c_char],
    /// Bytes written to the buffer.
    written: usize,
    /// Bytes of the text seen so far.
    seen: usize,
    /// The range of the text that is left out.
    cut: core::ops::Range<usize>,
}

impl<'b> Message<'b> {
    fn new(buffer: &'b mut [core::ffi::c_char], length: usize) -> Self {
        let room = buffer.len().saturating_sub(1);
        let cut = if length <= room {
            length..length
        } else {
            let tail = room.saturating_sub(HEAD + ELLIPSIS.len());
            HEAD..length.saturating_sub(tail)
        };
        Message {
            buffer,
            written: 0,
            seen: 0,
            cut,
        }
    }

    fn store(&mut self, text: &str) {
        for byte in text.bytes() {
            // The last byte stays zero.
            if self.written + 1 < self.buffer.len()
                && let Some(place) = self.buffer.get_mut(self.written)
            {
                *place = byte as core::ffi::c_char;
                self.written += 1;
            }
        }
    }
}

impl Write for Message<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut utf8 = [0; 4];
        for character in text.chars() {
            let (start, end) = (self.seen, self.seen + character.len_utf8());
            self.seen = end;
            if end <= self.cut.start || start >= self.cut.end {
                // The first character after the cut brings the ellipsis with it. A zero byte
                // would end the string early.
                if start >= self.cut.end && !self.cut.is_empty() {
                    self.store(ELLIPSIS);
                    self.cut = start..start;
                }
                let character = if character == '\0' { ' ' } else { character };
                self.store(character.encode_utf8(&mut utf8));
            }
        }
        Ok(())
    }
}
