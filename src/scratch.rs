//! The work space of one thread. Its size follows from the model and can be asked for; nothing
//! on the hot path allocates.

use crate::error::Error;
use crate::kernels::Kernels;
use crate::model::Sae;
use crate::pursuit;
use crate::screened;
use crate::select::candidate_room;
use alloc::vec::Vec;

/// Rows of the encoder whose products are formed before they are selected from.
pub(crate) const ROW_BLOCK: usize = 256;

/// Work space for one thread and one model (or any smaller one). Owned, or in memory of the
/// caller.
#[derive(Debug)]
pub struct Scratch<'m> {
    memory: Memory<'m>,
}

#[derive(Debug)]
enum Memory<'m> {
    Owned(Vec<f64>),
    Borrowed(&'m mut [f64]),
}

/// Sizes of the parts, in f64 units.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    raw: usize,
    input: usize,
    sums: usize,
    lanes: usize,
    candidates: usize,
    gather: usize,
    output: usize,
    pursuit: usize,
    /// Optional: without it a row is encoded by the dense scan.
    screen: [usize; 2],
}

impl Sizes {
    pub(crate) fn of(sae: &Sae<'_>) -> Sizes {
        let parts = &sae.parts;
        let (d_in, d_out) = (sae.d_in(), sae.d_out());
        let encoder = parts.encoder.column_bytes() > 0;
        let skip = parts.skip.as_ref();
        let skip = skip.is_some_and(|skip| skip.column_bytes() > 0);
        let block = if encoder || skip {
            Kernels::COLUMN_TILE.max(ROW_BLOCK)
        } else {
            ROW_BLOCK
        };
        let pursuit = pursuit::Sizes::of(parts);
        Sizes {
            raw: d_in,
            input: d_in.div_ceil(2),
            sums: block,
            lanes: if encoder || skip {
                Kernels::COLUMN_LANES * Kernels::COLUMN_TILE
            } else {
                0
            },
            candidates: 2 * (candidate_room(parts) + pursuit.candidates()),
            gather: if encoder {
                (d_in * parts.encoder.weight_type().size()).div_ceil(8)
            } else {
                0
            },
            output: d_out,
            pursuit: pursuit.total(),
            screen: sae.screen_lengths(),
        }
    }

    fn total(self) -> usize {
        let parts = [
            self.raw,
            self.input,
            self.sums,
            self.lanes,
            self.candidates,
            self.gather,
            self.output,
            self.pursuit,
            self.screen[0],
            self.screen[1],
        ];
        parts.into_iter().fold(0, usize::saturating_add)
    }
}

/// The scratch, cut up for one call.
pub(crate) struct Work<'s> {
    /// The row as read, then the prepared row, widened, `[d_in]`.
    pub(crate) raw: &'s mut [f64],
    /// The prepared row, which meets the weights, `[d_in]`.
    pub(crate) input: &'s mut [f32],
    /// Products of a block of features.
    pub(crate) sums: &'s mut [f64],
    /// Lanes of the column kernel, `[Kernels::COLUMN_LANES, Kernels::COLUMN_TILE]`, or empty.
    pub(crate) lanes: &'s mut [f64],
    /// Candidates of TopK: rank and value bits.
    pub(crate) candidates: &'s mut [[u64; 2]],
    /// One gathered encoder vector, or empty.
    pub(crate) gather: &'s mut [u8],
    /// Sums of the decoder, `[d_out]`.
    pub(crate) output: &'s mut [f64],
    /// What a pursuit needs besides.
    pub(crate) pursuit: &'s mut [f64],
    /// What the screen needs, if the model has one and the scratch was made for it.
    pub(crate) screen: Option<screened::Work<'s>>,
}

impl Scratch<'static> {
    /// Work space for this model.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(sae: &Sae<'_>) -> Result<Self, Error> {
        let length = Sizes::of(sae).total();
        let mut memory = Vec::new();
        memory
            .try_reserve_exact(length)
            .map_err(|_| Error::OutOfMemory {
                what: "scratch",
                bytes: length as u64 * 8,
            })?;
        memory.resize(length, 0.0);
        Ok(Scratch {
            memory: Memory::Owned(memory),
        })
    }
}

impl<'m> Scratch<'m> {
    /// Bytes that [`Scratch::from_memory`] needs for this model.
    pub fn bytes_required(sae: &Sae<'_>) -> usize {
        // Seven more, so that memory of any alignment will do.
        Sizes::of(sae).total() * 8 + 7
    }

    /// Work space in memory of the caller, of any alignment.
    ///
    /// # Errors
    /// [`Error::Length`] if there are fewer than [`Scratch::bytes_required`] bytes.
    pub fn from_memory(sae: &Sae<'_>, memory: &'m mut [u8]) -> Result<Self, Error> {
        let (needed, found) = (Self::bytes_required(sae), memory.len());
        let short = Error::Length {
            what: "bytes of scratch",
            expected: needed as u64,
            found: found as u64,
        };
        if found < needed {
            return Err(short);
        }
        let skip = memory.as_ptr().align_offset(8);
        let length = (needed - 7) / 8 * 8;
        let aligned = memory
            .get_mut(skip..)
            .and_then(|rest| rest.get_mut(..length));
        match aligned.map(bytemuck::try_cast_slice_mut::<u8, f64>) {
            Some(Ok(words)) => Ok(Scratch {
                memory: Memory::Borrowed(words),
            }),
            _ => Err(short),
        }
    }

    /// The parts for one call with this model.
    pub(crate) fn split(&mut self, sae: &Sae<'_>) -> Result<Work<'_>, Error> {
        let sizes = Sizes::of(sae);
        let words: &mut [f64] = match &mut self.memory {
            Memory::Owned(words) => words,
            Memory::Borrowed(words) => words,
        };
        let found = words.len();
        let short = || Error::Length {
            what: "bytes of scratch",
            expected: sizes.total() as u64 * 8,
            found: found as u64 * 8,
        };
        let mut rest = words;
        let mut take = |length: usize| -> Result<&mut [f64], Error> {
            let (part, tail) = core::mem::take(&mut rest)
                .split_at_mut_checked(length)
                .ok_or_else(short)?;
            rest = tail;
            Ok(part)
        };
        let raw = take(sizes.raw)?;
        let input: &mut [f32] = bytemuck::cast_slice_mut(take(sizes.input)?);
        Ok(Work {
            raw,
            input: input.get_mut(..sae.d_in()).unwrap_or(&mut []),
            sums: take(sizes.sums)?,
            lanes: take(sizes.lanes)?,
            candidates: bytemuck::cast_slice_mut(take(sizes.candidates)?),
            gather: bytemuck::cast_slice_mut(take(sizes.gather)?),
            output: take(sizes.output)?,
            pursuit: take(sizes.pursuit)?,
            screen: match (take(sizes.screen[0]), take(sizes.screen[1])) {
                (Ok(bounds), Ok(order)) => Some(screened::Work {
                    bounds,
                    order: bytemuck::cast_slice_mut(order),
                }),
                _ => None,
            },
        })
    }
}
