//! Meeting the features as the file has them: quantised here, 64 at a time.

use super::*;

impl Batch<'_> {
    /// The centre, and the rows as tiles of integers.
    pub(super) fn quantise_rows(&mut self) {
        let finite = (0..self.rows).filter(|&row| self.is_encoded(row)).count();
        let share = 1.0 / finite.max(1) as f32;
        self.centre.fill(0.0);
        // Shares, so that no sum overflows; rows that are not finite are zeros.
        for input in self.inputs.chunks_exact(self.d_in).take(self.rows) {
            for (centre, value) in self.centre.iter_mut().zip(input) {
                *centre += value * share;
            }
        }
        self.centre_norm = norm_up(self.kernels.measure(self.centre)[0]);
        if !self.centre_norm.is_finite() {
            self.centre.fill(0.0);
            self.centre_norm = 0.0;
        }
        let floor = f64::from(self.floor());
        let tiles = self.tiles.chunks_exact_mut(TILE_ROWS * self.padded);
        for (t, tile) in tiles.enumerate() {
            let column = self.column.get_mut(..tile.len()).unwrap_or(&mut []);
            column.fill(0);
            for (r, integers) in column.chunks_exact_mut(self.padded).enumerate() {
                let row = t * TILE_ROWS + r;
                let mut numbers = TileRow {
                    floor,
                    ..TileRow::default()
                };
                let input = self.inputs.get(row * self.d_in..(row + 1) * self.d_in);
                if let (true, Some(input)) = (row < self.rows, input) {
                    for ((y, x), c) in self.line.iter_mut().zip(input).zip(&*self.centre) {
                        *y = x - c;
                    }
                    let coded = quantise(self.kernels, self.line, integers);
                    numbers = row_numbers(&coded, self.centre_norm, self.d_in, floor);
                }
                if let Some(to) = self.numbers.get_mut(row) {
                    *to = [numbers.step, numbers.coded, numbers.spread, numbers.floor];
                }
            }
            self.kernels.interleave_tile(column, tile);
        }
    }

    /// Copies the weights of the features `first .. first + features` out of columns, if they are
    /// stored so.
    pub(super) fn copy_rows(&mut self, first: usize, features: usize) {
        let encoder = &self.sae.parts.encoder;
        if encoder.layout() != Layout::Columns {
            return;
        }
        let (ty, bytes) = (encoder.weight_type(), encoder.bytes_from(first));
        let stride = self.copied.len() / COPIED_FEATURES;
        let to = self.copied.get_mut(..features * stride).unwrap_or(&mut []);
        let size = [self.d_in, features];
        let from = encoder.stride_bytes();
        self.kernels.transpose(ty, bytes, from, size, to);
    }

    /// Meets `features` features with all rows, from the one `skip` behind that which
    /// [`Batch::copy_rows`] was given.
    pub(super) fn run_panel(&mut self, skip: usize, start: usize, features: usize) {
        let (sae, first) = (self.sae, start + skip);
        let encoder = &sae.parts.encoder;
        let (ty, bytes) = (encoder.weight_type(), encoder.bytes_from(first));
        let row_bytes = self.d_in * ty.size();
        let copied: &mut [u8] = core::mem::take(&mut self.copied);
        let (weights, stride): (&[u8], usize) = match encoder.layout() {
            Layout::Columns => {
                let stride = copied.len() / COPIED_FEATURES;
                (copied.get(skip * stride..).unwrap_or(&[]), stride)
            }
            _ => (bytes, encoder.stride_bytes()),
        };
        let panel = Panel {
            ty,
            first,
            weights,
            stride,
            row_bytes,
        };

        let mut bounds = PanelBounds::EMPTY;
        if let Some(offsets) = bounds.offset.get_mut(..features) {
            sae.kernels
                .dot_rows(ty, weights, stride, self.centre, offsets);
        }
        let columns = self.panel.chunks_exact_mut(COLUMN_FEATURES * self.padded);
        for (c, column) in columns.enumerate() {
            self.column.fill(0);
            for (r, integers) in self.column.chunks_exact_mut(self.padded).enumerate() {
                let i = c * COLUMN_FEATURES + r;
                if i >= features {
                    break;
                }
                self.kernels.widen(ty, panel.row(i), self.line);
                let coded = quantise(self.kernels, self.line, integers);
                // `is_blocked` looked.
                let Some(asked) = asked(&sae.parts, first + i) else {
                    continue;
                };
                let product = bounds.offset[i];
                set_feature(&mut bounds, i, &asked, &coded, product);
            }
            self.kernels.interleave_column(self.column, column);
        }

        let magnitude = self.is_ranked_by_magnitude();
        let wanted = u64::MAX >> (PANEL_FEATURES - features);
        let mut products: Products = [[0; PANEL_FEATURES]; TILE_ROWS];
        for tile in 0..self.live.div_ceil(TILE_ROWS) {
            let at = tile * TILE_ROWS * self.padded;
            let integers = self.tiles.get(at..at + TILE_ROWS * self.padded);
            self.kernels
                .multiply(self.panel, integers.unwrap_or(&[]), &mut products);
            let mut numbers = [TileRow::default(); TILE_ROWS];
            let of_tile = self.numbers.iter().skip(tile * TILE_ROWS);
            for (to, &[step, coded, spread, floor]) in numbers.iter_mut().zip(of_tile) {
                *to = TileRow {
                    step,
                    coded,
                    spread,
                    floor,
                };
            }
            let kept = self.kernels.keep(&products, &numbers, &bounds, magnitude);
            self.note(tile, kept.map(|kept| kept & wanted));
        }
        self.survivors(&panel);
        self.copied = copied;
    }
}
