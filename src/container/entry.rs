//! One tensor of a container before its data is needed: in the file as it is, or still packed.

use super::ggml::Quantisation;
use super::npy::NpyHeader;
use super::zip::Member;
use crate::bytes::Bytes;
use crate::dtype::Dtype;
use crate::error::Error;
use crate::tensor::Tensor;
use alloc::string::String;
use alloc::vec::Vec;

/// A named tensor whose dtype and shape are known and checked, and whose data may still have to
/// be decoded. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    name: String,
    source: Source<'a>,
}

/// Where the data of an entry is.
#[derive(Clone, Debug)]
enum Source<'a> {
    /// In place.
    Tensor(Tensor<'a>),
    /// An archive member with a `.npy` in it that has to be inflated, byte-swapped or both.
    Npy(Member<'a>, NpyHeader),
    /// Blocks of a quantised format, decoded to f32.
    Quantised(Quantisation, Vec<usize>, Bytes<'a>),
    /// A view of a storage that has to be inflated.
    #[cfg(feature = "torch")]
    Storage(Member<'a>, View),
}

/// Dtype, shape, strides and first byte over a storage.
#[cfg(feature = "torch")]
#[derive(Clone, Debug)]
struct View {
    dtype: Dtype,
    shape: Vec<usize>,
    strides: Vec<usize>,
    start: usize,
}

impl<'a> Entry<'a> {
    /// An entry that needs no decoding.
    pub(super) fn in_place(tensor: Tensor<'a>) -> Self {
        Entry {
            name: tensor.name().into(),
            source: Source::Tensor(tensor),
        }
    }

    /// An entry that [`load`](Entry::load) decodes from an archive member.
    pub(super) fn npy(name: String, member: Member<'a>, header: NpyHeader) -> Self {
        Entry {
            name,
            source: Source::Npy(member, header),
        }
    }

    /// An entry that [`load`](Entry::load) decodes from quantised blocks.
    pub(super) fn quantised(
        name: String,
        kind: Quantisation,
        shape: Vec<usize>,
        blocks: Bytes<'a>,
    ) -> Self {
        Entry {
            name,
            source: Source::Quantised(kind, shape, blocks),
        }
    }

    /// An entry that [`load`](Entry::load) views in an inflated storage.
    #[cfg(feature = "torch")]
    pub(super) fn storage(
        name: String,
        member: Member<'a>,
        dtype: Dtype,
        shape: Vec<usize>,
        strides: Vec<usize>,
        start: usize,
    ) -> Self {
        let view = View {
            dtype,
            shape,
            strides,
            start,
        };
        Entry {
            name,
            source: Source::Storage(member, view),
        }
    }

    /// The same entry under another name; [`load`](Entry::load) keeps the tensor's own.
    pub(crate) fn renamed(mut self, name: String) -> Self {
        self.name = name;
        self
    }

    /// The name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number format that [`load`](Entry::load) gives.
    pub fn dtype(&self) -> Dtype {
        match &self.source {
            Source::Tensor(tensor) => tensor.dtype(),
            Source::Npy(_, header) => header.dtype,
            Source::Quantised(..) => Dtype::F32,
            #[cfg(feature = "torch")]
            Source::Storage(_, view) => view.dtype,
        }
    }

    /// The shape, outermost first; empty for a 0-dimensional tensor.
    pub fn shape(&self) -> &[usize] {
        match &self.source {
            Source::Tensor(tensor) => tensor.shape(),
            Source::Npy(_, header) => &header.shape,
            Source::Quantised(_, shape, _) => shape,
            #[cfg(feature = "torch")]
            Source::Storage(_, view) => &view.shape,
        }
    }

    /// How the data lies in the file when it has to be decoded (`deflated`, `big-endian`, `Q8_0`);
    /// `None` for data that is used in place.
    pub fn packing(&self) -> Option<&'static str> {
        match &self.source {
            Source::Tensor(_) => None,
            Source::Npy(member, _) if member.is_deflated() => Some("deflated"),
            Source::Npy(..) => Some("big-endian"),
            Source::Quantised(kind, ..) => Some(kind.name()),
            #[cfg(feature = "torch")]
            Source::Storage(..) => Some("deflated"),
        }
    }

    /// Bytes of memory of its own that [`load`](Entry::load) needs: 0 for data in place.
    pub fn load_bytes(&self) -> u64 {
        match &self.source {
            Source::Tensor(_) => 0,
            Source::Npy(_, header) => header.data_bytes,
            // The blocks are in the file, so the shape's product does not overflow; a block
            // takes at least a quarter of a byte for a value.
            Source::Quantised(_, shape, _) => shape
                .iter()
                .fold(4, |size: u64, &n| size.saturating_mul(n as u64)),
            #[cfg(feature = "torch")]
            Source::Storage(member, _) => member.size,
        }
    }

    /// The tensor, under the same name: as it lies in the file where that is possible, else
    /// decoded into memory.
    ///
    /// # Errors
    /// [`Error::Checksum`] or [`Error::Malformed`] if packed data is damaged,
    /// [`Error::OutOfMemory`] if there is no room for it, and [`Error::UnsupportedContainer`] for
    /// deflated data without the feature `std`.
    pub fn load(&self) -> Result<Tensor<'a>, Error> {
        match &self.source {
            Source::Tensor(tensor) => Ok(tensor.clone()),
            Source::Npy(member, header) => {
                let bytes = member.inflate(header.data_start, header.data_bytes)?;
                header.tensor(&self.name, bytes)
            }
            Source::Quantised(kind, shape, blocks) => {
                let mut values = reserve(self.load_bytes(), "a dequantised tensor")?;
                kind.decode(blocks.as_slice(), &mut values);
                Tensor::new(&self.name, Dtype::F32, shape, Bytes::owned(values))
            }
            #[cfg(feature = "torch")]
            Source::Storage(member, view) => {
                let all = Bytes::owned(member.inflate(0, member.size)?);
                // The view was checked against the size; an empty tensor may start anywhere.
                let part = all.slice(view.start..all.len());
                let part = part.unwrap_or(Bytes::borrowed(&[]));
                Tensor::with_strides(&self.name, view.dtype, &view.shape, &view.strides, part)
            }
        }
    }
}

/// Memory of a known size, asked for without aborting when there is none.
pub(super) fn reserve(bytes: u64, what: &'static str) -> Result<Vec<u8>, Error> {
    let mut memory = Vec::new();
    let fits = usize::try_from(bytes)
        .ok()
        .and_then(|size| memory.try_reserve_exact(size).ok());
    match fits {
        Some(()) => Ok(memory),
        None => Err(Error::OutOfMemory { what, bytes }),
    }
}

/// Reverses the bytes of every element.
pub(super) fn swap_bytes(bytes: &mut [u8], size: usize) {
    for element in bytes.chunks_exact_mut(size.max(1)) {
        element.reverse();
    }
}

/// A copy of bytes that can be changed.
pub(super) fn copied(bytes: &Bytes<'_>, what: &'static str) -> Result<Vec<u8>, Error> {
    let mut memory = reserve(bytes.len() as u64, what)?;
    memory.extend_from_slice(bytes.as_slice());
    Ok(memory)
}
