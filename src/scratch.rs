//! The work space of one thread. Its size follows from the model and can be asked for; nothing
//! on the hot path allocates.

use crate::error::Error;
use crate::features::Features;
use crate::kernels::Kernels;
use crate::model::Sae;
use crate::pursuit;
use crate::screened;
use crate::select::candidate_room;
use alloc::boxed::Box;
use bytemuck::allocation::try_zeroed_slice_box;

/// Rows of the encoder whose products are formed before they are selected from.
pub(crate) const ROW_BLOCK: usize = 256;

/// Work space for one thread and one model (or any smaller one). Owned, or in memory of the
/// caller.
///
/// With room for several rows, [`Sae::encode`] takes them through the encoder together. The result
/// has the same bits; how many rows go together depends on the memory, and rows beyond follow.
#[derive(Debug)]
pub struct Scratch<'m> {
    memory: Memory<'m>,
    /// One row of features, which readouts of ensembles fill; it grows as needed.
    row: Features,
}

/// Words of work space.
#[derive(Debug)]
pub(crate) enum Memory<'m> {
    Owned(Box<[f64]>),
    Borrowed(&'m mut [f64]),
}

/// Sizes of the parts, in f64 units.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    raw: usize,
    input: usize,
    sums: usize,
    gates: usize,
    lanes: usize,
    candidates: usize,
    gather: usize,
    output: usize,
    chosen: usize,
    pursuit: usize,
    /// Optional: without it a row is encoded by the dense scan.
    screen: [usize; 2],
}

impl Sizes {
    pub(crate) fn of(sae: &Sae<'_>) -> Sizes {
        let parts = &sae.parts;
        let (d_in, d_out) = (sae.d_in(), sae.d_out());
        let glu = parts.glu.as_ref().map(|glu| &glu.matrix);
        let gate = glu.is_some_and(|matrix| matrix.column_bytes() > 0);
        let encoder = parts.encoder.column_bytes() > 0 || gate;
        let skip = parts.skip.as_ref();
        let skip = skip.is_some_and(|skip| skip.column_bytes() > 0);
        let transforms = parts.transforms.as_ref();
        let transforms = transforms.is_some_and(|transforms| transforms.reads_columns());
        let skip = skip || transforms;
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
            gates: if glu.is_some() { block } else { 0 },
            lanes: if encoder || skip {
                Kernels::COLUMN_LANES * Kernels::COLUMN_TILE
            } else {
                0
            },
            candidates: 2 * (candidate_room(parts) + pursuit.candidates()),
            gather: if encoder {
                let gate = glu.map_or(0, |matrix| matrix.weight_type().size());
                (d_in * parts.encoder.weight_type().size().max(gate)).div_ceil(8)
            } else {
                0
            },
            output: d_out,
            chosen: match &parts.targets {
                Some(targets) if targets.coalesced.is_some() => sae.d_sae(),
                _ => 0,
            },
            pursuit: pursuit.total(),
            screen: sae.screen_lengths(),
        }
    }

    fn total(self) -> usize {
        let parts = [
            self.raw,
            self.input,
            self.sums,
            self.gates,
            self.lanes,
            self.candidates,
            self.gather,
            self.output,
            self.chosen,
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
    /// Products of the same features with the gate, or empty.
    pub(crate) gates: &'s mut [f64],
    /// Lanes of the column kernel, `[Kernels::COLUMN_LANES, Kernels::COLUMN_TILE]`, or empty.
    pub(crate) lanes: &'s mut [f64],
    /// Candidates of TopK: rank and value bits.
    pub(crate) candidates: &'s mut [[u64; 2]],
    /// One gathered encoder vector, or empty.
    pub(crate) gather: &'s mut [u8],
    /// Sums of the decoder, `[d_out]`.
    pub(crate) output: &'s mut [f64],
    /// Values that targets select from, `[d_sae]`, or empty.
    pub(crate) chosen: &'s mut [f64],
    /// What a pursuit needs besides.
    pub(crate) pursuit: &'s mut [f64],
    /// What the screen needs, if the model has one and the scratch was made for it.
    pub(crate) screen: Option<screened::Work<'s>>,
    /// What is left, for batches.
    pub(crate) rest: &'s mut [f64],
}

impl Scratch<'static> {
    /// Work space for this model, with room for batches of 512 rows (fewer where those would need
    /// more than 64 MB). Memory that no batch uses is reserved but not touched, which on most
    /// systems means that it is not held.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(sae: &Sae<'_>) -> Result<Self, Error> {
        Self::for_rows(sae, sae.batch_rows())
    }

    /// Work space for this model, with room for batches of so many rows. With one row it is as
    /// small as it can be.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn for_rows(sae: &Sae<'_>, rows: usize) -> Result<Self, Error> {
        Ok(Scratch {
            memory: Memory::new(words_for(sae, rows), "scratch")?,
            row: Features::new(),
        })
    }
}

impl<'m> Scratch<'m> {
    /// Bytes that [`Scratch::from_memory`] needs for this model, with room for one row.
    pub fn bytes_required(sae: &Sae<'_>) -> usize {
        Self::bytes_for_rows(sae, 1)
    }

    /// Bytes with which batches of so many rows go through the encoder together.
    pub fn bytes_for_rows(sae: &Sae<'_>, rows: usize) -> usize {
        Memory::bytes(words_for(sae, rows))
    }

    /// Work space in memory of the caller, of any alignment. What is more than
    /// [`Scratch::bytes_required`] is used for batches.
    ///
    /// # Errors
    /// [`Error::Length`] if there are fewer than [`Scratch::bytes_required`] bytes.
    pub fn from_memory(sae: &Sae<'_>, memory: &'m mut [u8]) -> Result<Self, Error> {
        let words = words_of(sae).max(memory.len().saturating_sub(7) / 8);
        Ok(Scratch {
            memory: Memory::from_bytes(words, memory, "bytes of scratch")?,
            row: Features::new(),
        })
    }

    /// The parts for one call with this model.
    pub(crate) fn split(&mut self, sae: &Sae<'_>) -> Result<Work<'_>, Error> {
        cut(self.memory.words(), sae)
    }

    /// The parts for a chain, from which each member cuts its own.
    pub(crate) fn split_chain(&mut self, sae: &Sae<'_>) -> Result<Chain<'_>, Error> {
        let (needed, words) = (words_of(sae), self.memory.words());
        let found = words.len();
        let short = || Error::Length {
            what: "bytes of scratch",
            expected: (needed as u64).saturating_mul(8),
            found: found as u64 * 8,
        };
        let half = sae.d_in().div_ceil(2);
        let (residual, rest) = words.split_at_mut_checked(half).ok_or_else(short)?;
        let (reconstruction, rest) = rest.split_at_mut_checked(half).ok_or_else(short)?;
        let narrow = |words| bytemuck::cast_slice_mut::<f64, f32>(words);
        Ok(Chain {
            residual: narrow(residual).get_mut(..sae.d_in()).ok_or_else(short)?,
            reconstruction: narrow(reconstruction)
                .get_mut(..sae.d_in())
                .ok_or_else(short)?,
            rest,
        })
    }

    /// The row of features, which must be given back.
    pub(crate) fn take_row(&mut self) -> Features {
        core::mem::take(&mut self.row)
    }

    pub(crate) fn give_row(&mut self, row: Features) {
        self.row = row;
    }
}

/// What a chain keeps between its members.
pub(crate) struct Chain<'s> {
    /// What is left of the row.
    pub(crate) residual: &'s mut [f32],
    /// What a member makes of it.
    pub(crate) reconstruction: &'s mut [f32],
    rest: &'s mut [f64],
}

impl Chain<'_> {
    /// The parts for one call with a member.
    pub(crate) fn split(
        &mut self,
        member: &Sae<'_>,
    ) -> Result<(&mut [f32], &mut [f32], Work<'_>), Error> {
        Ok((self.residual, self.reconstruction, cut(self.rest, member)?))
    }
}

impl<'m> Memory<'m> {
    /// So many words, all 0.
    pub(crate) fn new(words: usize, what: &'static str) -> Result<Self, Error> {
        let memory = try_zeroed_slice_box(words).map_err(|()| Error::OutOfMemory {
            what,
            bytes: (words as u64).saturating_mul(8),
        })?;
        Ok(Memory::Owned(memory))
    }

    /// Bytes that hold so many words at any alignment.
    pub(crate) fn bytes(words: usize) -> usize {
        words.saturating_mul(8).saturating_add(7)
    }

    /// So many words in memory of the caller.
    pub(crate) fn from_bytes(
        words: usize,
        memory: &'m mut [u8],
        what: &'static str,
    ) -> Result<Self, Error> {
        let (needed, found) = (Self::bytes(words), memory.len());
        let short = Error::Length {
            what,
            expected: needed as u64,
            found: found as u64,
        };
        if found < needed {
            return Err(short);
        }
        let skip = memory.as_ptr().align_offset(8);
        let aligned = memory
            .get_mut(skip..)
            .and_then(|rest| rest.get_mut(..words.saturating_mul(8)));
        match aligned.map(bytemuck::try_cast_slice_mut::<u8, f64>) {
            Some(Ok(words)) => Ok(Memory::Borrowed(words)),
            _ => Err(short),
        }
    }

    pub(crate) fn words(&mut self) -> &mut [f64] {
        match self {
            Memory::Owned(words) => words,
            Memory::Borrowed(words) => words,
        }
    }
}

/// Words with which batches of so many rows go through the encoder together.
fn words_for(sae: &Sae<'_>, rows: usize) -> usize {
    words_of(sae).saturating_add(sae.batch_words(rows))
}

/// Words that a model needs: an ensemble those of its hungriest member, and of itself to decode.
fn words_of(sae: &Sae<'_>) -> usize {
    let members = sae.members().iter().map(|member| Sizes::of(member).total());
    let chain = match members.len() {
        0 => 0,
        _ => 2 * sae.d_in().div_ceil(2),
    };
    let most = members.fold(Sizes::of(sae).total(), usize::max);
    most.saturating_add(chain)
}

fn cut<'s>(words: &'s mut [f64], sae: &Sae<'_>) -> Result<Work<'s>, Error> {
    let sizes = Sizes::of(sae);
    let found = words.len();
    let short = || Error::Length {
        what: "bytes of scratch",
        expected: (sizes.total() as u64).saturating_mul(8),
        found: found as u64 * 8,
    };
    let mut rest = words;
    let mut take = |length: usize| -> Result<&'s mut [f64], Error> {
        let (part, tail) = core::mem::take(&mut rest)
            .split_at_mut_checked(length)
            .ok_or_else(short)?;
        rest = tail;
        Ok(part)
    };
    let raw = take(sizes.raw)?;
    let input: &mut [f32] = bytemuck::cast_slice_mut(take(sizes.input)?);
    let mut work = Work {
        raw,
        input: input.get_mut(..sae.d_in()).unwrap_or(&mut []),
        sums: take(sizes.sums)?,
        gates: take(sizes.gates)?,
        lanes: take(sizes.lanes)?,
        candidates: bytemuck::cast_slice_mut(take(sizes.candidates)?),
        gather: bytemuck::cast_slice_mut(take(sizes.gather)?),
        output: take(sizes.output)?,
        chosen: take(sizes.chosen)?,
        pursuit: take(sizes.pursuit)?,
        screen: match (take(sizes.screen[0]), take(sizes.screen[1])) {
            (Ok(bounds), Ok(order)) => Some(screened::Work {
                bounds,
                order: bytemuck::cast_slice_mut(order),
            }),
            _ => None,
        },
        rest: &mut [],
    };
    work.rest = rest;
    Ok(work)
}
