//! The features that the bounds leave, which are computed exactly: feature by feature, so that the
//! weights of one stay in the first-level cache while its rows pass by.

use super::*;

/// How much of a row's inputs or a feature's weights is asked for before it is their turn; what
/// follows in order is fetched by the hardware.
const AHEAD_BYTES: usize = 2048;

/// What one call of [`Batch::survivors`] looks at.
#[derive(Clone, Copy)]
pub(super) struct Panel<'w> {
    pub(super) ty: WeightType,
    /// Its first feature.
    pub(super) first: usize,
    /// Its weights, and how far apart those of its features are.
    pub(super) weights: &'w [u8],
    pub(super) stride: usize,
    pub(super) row_bytes: usize,
}

impl<'w> Panel<'w> {
    pub(super) fn row(&self, i: usize) -> &'w [u8] {
        let start = i * self.stride;
        let row = self.weights.get(start..start + self.row_bytes);
        row.unwrap_or(&[])
    }
}

impl Batch<'_> {
    /// Notes the features of a panel that may be selected for the rows of a tile, a bit for each.
    pub(super) fn note(&mut self, tile: usize, kept: [u64; TILE_ROWS]) {
        for (r, kept) in kept.into_iter().enumerate() {
            let row = tile * TILE_ROWS + r;
            let encoded = self.is_encoded(row);
            if let Some(to) = self.kept.get_mut(row) {
                *to = if encoded { kept } else { 0 };
            }
        }
    }

    /// Takes the features that were noted.
    pub(super) fn survivors(&mut self, panel: &Panel<'_>) {
        // A word for each row with a bit for each feature becomes one for each feature.
        let blocks = self.kept.as_chunks_mut::<64>().0;
        blocks.iter_mut().for_each(transpose_bits);
        let blocks = self.kept.len() / 64;
        // Its weights and inputs are fetched while the one before is computed.
        let mut next = None;
        for i in 0..PANEL_FEATURES {
            let mut fetched = false;
            for block in 0..blocks {
                let mut rows = self.kept.get(block * 64 + i).copied().unwrap_or(0);
                while rows != 0 {
                    let row = block * 64 + rows.trailing_zeros() as usize;
                    rows &= rows - 1;
                    if !fetched {
                        self.fetch(panel.row(i));
                        fetched = true;
                    }
                    self.fetch(bytemuck::cast_slice(self.input(row)));
                    if let Some((row, i)) = next.replace((row, i)) {
                        self.exact(panel, row, i);
                    }
                }
            }
        }
        if let Some((row, i)) = next {
            self.exact(panel, row, i);
        }
        self.kept.fill(0);
    }

    fn fetch(&self, bytes: &[u8]) {
        let bytes = bytes.get(..AHEAD_BYTES).unwrap_or(bytes);
        self.kernels.prefetch(bytes);
    }

    fn input(&self, row: usize) -> &[f32] {
        let input = self.inputs.get(row * self.d_in..(row + 1) * self.d_in);
        input.unwrap_or(&[])
    }

    fn exact(&mut self, panel: &Panel<'_>, row: usize, i: usize) {
        if !self.is_encoded(row) {
            return;
        }
        let (weights, mut product) = (panel.row(i), [0.0]);
        let kernels = self.sae.kernels;
        let input = self.input(row);
        kernels.dot_rows(panel.ty, weights, weights.len(), input, &mut product);
        let fate = judge(&self.sae.parts, panel.first + i, product[0]);
        self.take(row, (panel.first + i) as u32, fate);
    }
}

/// Bit `j` of word `i` becomes bit `i` of word `j`: halves of ever smaller squares change places.
fn transpose_bits(words: &mut [u64; 64]) {
    let (mut half, mut mask) = (32, u64::MAX >> 32);
    while half > 0 {
        for i in (0..64).filter(|i| i & half == 0) {
            let swapped = (words[i] >> half ^ words[i + half]) & mask;
            words[i] ^= swapped << half;
            words[i + half] ^= swapped;
        }
        half /= 2;
        mask ^= mask << half;
    }
}

#[cfg(test)]
mod tests {
    use super::transpose_bits;

    #[test]
    fn bits_change_places() {
        let mut words = [0u64; 64];
        let mut state = 1u64;
        for word in &mut words {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            *word = state ^ state >> 29;
        }
        let before = words;
        transpose_bits(&mut words);
        for (i, word) in words.iter().enumerate() {
            for (j, before) in before.iter().enumerate() {
                assert_eq!(word >> j & 1, before >> i & 1, "{i} {j}");
            }
        }
    }
}
