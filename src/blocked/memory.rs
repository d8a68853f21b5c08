//! How the scratch of a batch is cut into its buffers.

use super::*;

/// Sizes of the buffers.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) d_in: usize,
    /// Inputs, padded to pairs; 0 if batches go through the screen.
    pub(super) padded: usize,
    /// Bytes of one copied row, if rows have to be copied out of columns.
    pub(super) copied: usize,
    /// Entries of TopK's heaps, for each row.
    pub(super) best: usize,
    /// The smallest pool: one row with every feature.
    pub(super) d_sae: usize,
    /// What batches that go through the screen need.
    pub(super) codes: Option<CodeSizes>,
}

impl Sizes {
    pub(super) fn of(sae: &Sae<'_>) -> Self {
        let encoder = &sae.parts.encoder;
        let codes = CodeSizes::of(sae);
        Sizes {
            d_in: sae.d_in(),
            padded: match codes {
                Some(_) => 0,
                None => sae.d_in().next_multiple_of(2),
            },
            copied: match encoder.layout() {
                Layout::Columns => apart(sae.d_in() * encoder.weight_type().size()),
                _ => 0,
            },
            best: match sae.parts.activation {
                Activation::TopK { k, .. } => k,
                _ => 0,
            },
            d_sae: sae.d_sae(),
            codes,
        }
    }

    /// Entries of the pool of features.
    pub(super) fn pool(&self, rows: usize) -> usize {
        match self.best {
            0 => {
                let most = self.d_sae.saturating_add(rows.saturating_mul(ROW_FEATURES));
                most.min(NONE as usize)
            }
            _ => 0,
        }
    }

    /// What does not depend on the number of rows, in f64 units: alignment, panel, a column before
    /// it is interleaved, a row in f32, the centre, the copied rows, masks of rows that do not exist.
    pub(super) fn fixed(&self) -> usize {
        let panel = (PANEL_FEATURES * self.padded).div_ceil(4);
        let column = (COLUMN_FEATURES * self.padded).div_ceil(4);
        let vectors = 2 * self.d_in.div_ceil(2);
        let codes = self.codes.map_or(0, |codes| codes.fixed());
        8 + 64 + codes + panel + column + vectors + COPIED_FEATURES * self.copied / 8
    }

    /// What a tile of rows needs: inputs, integers, numbers, heaps; status, masks and links.
    pub(super) fn tile(&self) -> usize {
        let row = self.d_in.div_ceil(2) + 4 + 2 * self.best + 1;
        let codes = self.codes.map_or(0, |codes| codes.tile());
        codes + TILE_ROWS * row + (TILE_ROWS * self.padded).div_ceil(4) + 4 * TILE_ROWS
    }

    pub(super) fn total(&self, rows: usize) -> usize {
        let tiles = rows.div_ceil(TILE_ROWS);
        let pool = self.pool(tiles * TILE_ROWS).saturating_mul(3).div_ceil(2);
        let tiles = tiles.saturating_mul(self.tile());
        self.fixed().saturating_add(tiles).saturating_add(pool)
    }

    /// The most rows that this much scratch is enough for.
    pub(super) fn rows(&self, words: usize) -> usize {
        let pool = match self.best {
            0 => TILE_ROWS * ROW_FEATURES * 3 / 2,
            _ => 0,
        };
        let one = self.total(TILE_ROWS);
        match words.checked_sub(one) {
            None => 0,
            // One word less for the halves that are rounded up.
            Some(rest) => (1 + rest.saturating_sub(1) / (self.tile() + pool)) * TILE_ROWS,
        }
    }
}

/// Bytes from one copied row to the next: an odd number of cache lines, so that the rows of a panel
/// are not in a few sets of the first-level cache while they are written side by side.
fn apart(row_bytes: usize) -> usize {
    (row_bytes.div_ceil(64) | 1) * 64
}

/// Cuts memory into parts.
pub(super) struct Cut<'w>(pub(super) &'w mut [f64]);

impl<'w> Cut<'w> {
    pub(super) fn words(&mut self, len: usize) -> Option<&'w mut [f64]> {
        let (part, rest) = core::mem::take(&mut self.0).split_at_mut_checked(len)?;
        self.0 = rest;
        Some(part)
    }

    /// `len` elements of a type whose size divides that of f64.
    pub(super) fn take<T: bytemuck::Pod>(&mut self, len: usize) -> Option<&'w mut [T]> {
        let words = (len * size_of::<T>()).div_ceil(8);
        bytemuck::cast_slice_mut(self.words(words)?).get_mut(..len)
    }
}
