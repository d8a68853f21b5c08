//! The meaning of each kernel in plain Rust.

use super::{
    BlockedKernels, COLUMN_FEATURES, PANEL_FEATURES, PanelBounds, Products, TILE_ROWS, TileRow,
    loops,
};
use crate::kernels::scalar::values;
use crate::kernels::{BF16, F16, F32, Level};

pub(super) static KERNELS: BlockedKernels = BlockedKernels {
    level: Level::Scalar,
    widen: [widen::<F32>, widen::<F16>, widen::<BF16>],
    measure,
    quantise,
    interleave: [interleave::<TILE_ROWS>, interleave::<COLUMN_FEATURES>],
    transpose: [transpose::<2>, transpose::<4>],
    multiply,
    keep,
};

/// Every weight is an f32, so narrowing what was widened changes nothing.
fn widen<const TYPE: u8>(bytes: &[u8], out: &mut [f32]) {
    for (out, weight) in out.iter_mut().zip(values::<TYPE>(bytes)) {
        *out = weight as f32;
    }
}

fn measure(values: &[f32]) -> [f64; 2] {
    loops::measure(values)
}

fn quantise(values: &[f32], factor: f32, out: &mut [i16]) -> f64 {
    loops::quantise(values, factor, out)
}

fn interleave<const WIDTH: usize>(rows: &[i16], stride: usize, out: &mut [i16]) {
    loops::interleave::<WIDTH>(rows, stride, out);
}

fn transpose<const SIZE: usize>(columns: &[u8], stride: usize, size: [usize; 2], rows: &mut [u8]) {
    loops::transpose::<SIZE>(columns, stride, size, rows);
}

fn multiply(panel: &[i16], tile: &[i16], products: &mut Products) {
    *products = [[0; PANEL_FEATURES]; TILE_ROWS];
    let columns = panel.chunks_exact(panel.len() / (PANEL_FEATURES / COLUMN_FEATURES));
    for (column, panel) in columns.enumerate() {
        let features = column * COLUMN_FEATURES..(column + 1) * COLUMN_FEATURES;
        let lines = panel.as_chunks::<{ 2 * COLUMN_FEATURES }>().0;
        for (line, tile) in lines.iter().zip(tile.as_chunks::<{ 2 * TILE_ROWS }>().0) {
            for (products, row) in products.iter_mut().zip(tile.as_chunks::<2>().0) {
                let [a, b] = row.map(i32::from);
                let products = products.get_mut(features.clone()).unwrap_or(&mut []);
                for (product, pair) in products.iter_mut().zip(line.as_chunks::<2>().0) {
                    let [c, d] = pair.map(i32::from);
                    *product = product.wrapping_add(a * c + b * d);
                }
            }
        }
    }
}

fn keep(
    products: &Products,
    rows: &[TileRow; TILE_ROWS],
    panel: &PanelBounds,
    magnitude: bool,
) -> [u64; TILE_ROWS] {
    loops::keep(products, rows, panel, magnitude)
}
