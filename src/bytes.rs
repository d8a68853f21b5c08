//! Bytes that a model reads its weights from: a caller's slice, or a shared owner such as a
//! memory map or an inflated archive entry. Cloning and slicing never copy.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

/// Something that owns bytes and can be shared between threads.
pub type Owner<'a> = Arc<dyn AsRef<[u8]> + Send + Sync + 'a>;

/// Rows of which few are read, wherever they are, until somebody reads them all.
pub trait Scattered: Send + Sync + fmt::Debug {
    /// All rows are about to be read: what lies around one may come with it again.
    fn read_all(&self);
}

#[derive(Clone)]
enum Storage<'a> {
    Borrowed(&'a [u8]),
    Shared(Owner<'a>),
}

/// A range of bytes with its owner. The lifetime is that of a borrowed slice; bytes that own
/// their storage have any lifetime.
#[derive(Clone)]
pub struct Bytes<'a> {
    storage: Storage<'a>,
    range: Range<usize>,
    /// Whether they were made in memory from what a file holds.
    copied: bool,
}

impl<'a> Bytes<'a> {
    /// Bytes of the caller.
    pub fn borrowed(bytes: &'a [u8]) -> Self {
        Bytes {
            range: 0..bytes.len(),
            storage: Storage::Borrowed(bytes),
            copied: false,
        }
    }

    /// Bytes kept alive by a shared owner.
    pub fn shared(owner: Owner<'a>) -> Self {
        Bytes {
            range: 0..(*owner).as_ref().len(),
            storage: Storage::Shared(owner),
            copied: false,
        }
    }

    /// Bytes in memory of their own, such as inflated ones.
    pub fn owned(bytes: Vec<u8>) -> Self {
        Bytes {
            copied: true,
            ..Self::shared(Arc::new(bytes))
        }
    }

    /// Whether they are in memory of their own ([`Bytes::owned`]) and not in a file or at the
    /// caller's.
    pub fn is_owned(&self) -> bool {
        self.copied
    }

    /// The bytes. Empty if the owner shrank since (an owner must not, but nothing is read outside).
    pub fn as_slice(&self) -> &[u8] {
        let all = match &self.storage {
            Storage::Borrowed(bytes) => bytes,
            Storage::Shared(owner) => (**owner).as_ref(),
        };
        all.get(self.range.clone()).unwrap_or(&[])
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// A part of these bytes, or `None` if the range lies outside them.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.range.len() {
            return None;
        }
        let start = self.range.start + range.start;
        Some(Bytes {
            storage: self.storage.clone(),
            range: start..start + range.len(),
            copied: self.copied,
        })
    }
}

impl fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.storage {
            Storage::Borrowed(_) => "borrowed",
            Storage::Shared(_) => "shared",
        };
        write!(f, "Bytes({kind}, {} bytes)", self.len())
    }
}
