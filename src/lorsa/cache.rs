//! What the rows of a sequence leave for later ones.

use super::Lorsa;
use crate::error::Error;
use crate::kernels::Kernels;
use crate::scratch::Memory;

/// What the rows of a sequence leave for later ones. It belongs to the caller, in memory of its
/// own or of the caller, and to one sequence at a time.
#[derive(Debug)]
pub struct LorsaCache<'m> {
    pub(super) memory: Memory<'m>,
    pub(super) origin: usize,
    pub(super) capacity: usize,
    pub(super) length: usize,
    pub(super) sizes: Sizes,
}

/// f32 per row, or per position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Keys (and queries) of all heads.
    pub(super) keys: usize,
    pub(super) values: usize,
}

/// The cache, cut up.
pub(super) struct Space<'c> {
    /// 1 for a row that takes part, 0 for one that was not finite, `[capacity]`.
    pub(super) marks: &'c mut [f64],
    /// Attention of one head, `[capacity]`.
    pub(super) weights: &'c mut [f64],
    /// Queries or keys of one row before they are rounded.
    pub(super) wide: &'c mut [f64],
    /// Lanes of the column kernel, for as many of them as are formed at once.
    pub(super) lanes: &'c mut [f64],
    /// Queries of one row.
    pub(super) query: &'c mut [f32],
    /// `[capacity, keys]`
    pub(super) keys: &'c mut [f32],
    /// `[capacity, values]`
    pub(super) values: &'c mut [f32],
}

impl Sizes {
    pub(super) fn of(lorsa: &Lorsa<'_>) -> Self {
        Sizes {
            keys: lorsa.attention.width(),
            values: lorsa.d_sae(),
        }
    }

    /// Queries or keys that are formed at once.
    pub(super) fn at_once(self) -> usize {
        self.keys.clamp(1, Kernels::COLUMN_TILE)
    }

    fn lanes(self) -> usize {
        Kernels::COLUMN_LANES * self.at_once()
    }

    /// f64 words for so many rows.
    fn words(self, capacity: usize) -> usize {
        let rows = |width: usize| capacity.saturating_mul(width).div_ceil(2);
        [
            capacity,
            capacity,
            self.keys,
            self.lanes(),
            self.keys.div_ceil(2),
            rows(self.keys),
            rows(self.values),
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }

    pub(super) fn cut(self, words: &mut [f64], capacity: usize) -> Option<Space<'_>> {
        let mut rest = words;
        let mut take = |length: usize| {
            let (part, tail) = core::mem::take(&mut rest).split_at_mut_checked(length)?;
            rest = tail;
            Some(part)
        };
        let narrow = |words| bytemuck::cast_slice_mut::<f64, f32>(words);
        Some(Space {
            marks: take(capacity)?,
            weights: take(capacity)?,
            wide: take(self.keys)?,
            lanes: take(self.lanes())?,
            query: narrow(take(self.keys.div_ceil(2))?).get_mut(..self.keys)?,
            keys: narrow(take((capacity * self.keys).div_ceil(2))?),
            values: narrow(take((capacity * self.values).div_ceil(2))?),
        })
    }
}

impl LorsaCache<'static> {
    /// A cache for sequences of up to `rows` rows.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(lorsa: &Lorsa<'_>, rows: usize) -> Result<Self, Error> {
        let words = Sizes::of(lorsa).words(rows);
        let memory = Memory::new(words, "a cache")?;
        Ok(LorsaCache::of(lorsa, rows, memory))
    }
}

impl<'m> LorsaCache<'m> {
    /// Bytes that [`LorsaCache::from_memory`] needs for so many rows.
    pub fn bytes_required(lorsa: &Lorsa<'_>, rows: usize) -> usize {
        Memory::bytes(Sizes::of(lorsa).words(rows))
    }

    /// A cache in memory of the caller, of any alignment and content.
    ///
    /// # Errors
    /// [`Error::Length`] if there are fewer than [`LorsaCache::bytes_required`] bytes.
    pub fn from_memory(
        lorsa: &Lorsa<'_>,
        rows: usize,
        memory: &'m mut [u8],
    ) -> Result<Self, Error> {
        let words = Sizes::of(lorsa).words(rows);
        let memory = Memory::from_bytes(words, memory, "bytes of a cache")?;
        Ok(LorsaCache::of(lorsa, rows, memory))
    }

    fn of(lorsa: &Lorsa<'_>, capacity: usize, memory: Memory<'m>) -> Self {
        LorsaCache {
            memory,
            origin: lorsa.origin,
            capacity,
            length: 0,
            sizes: Sizes::of(lorsa),
        }
    }

    /// Rows of the sequence so far; the next one has this position.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether the sequence is empty.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many rows a sequence can have.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all rows from position `length` on: 0 begins a new sequence, less than
    /// [`LorsaCache::len`] takes rows back that a host has rejected. More changes nothing.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}
