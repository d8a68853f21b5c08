//! The kernels of the levels whose vectors hold two f64: 16 values at a time, in eight vectors.

use super::super::two::{Eight, Two, add, load, load_weights, multiply, reduce, splat};
use super::super::{BF16, F16, F32, LANES, padded};
use super::{RowSums, TOO_LARGE, Table, scalar};

pub(in super::super) const fn table<V: Two>() -> Table {
    Table {
        read_row: [
            read_row::<V, F32, 32>,
            read_row::<V, F16, 16>,
            read_row::<V, BF16, 16>,
        ],
        add_to_row: add_to_row::<V>,
        add_scaled_to_row: [
            add_scaled_to_row::<V, F32, 32>,
            add_scaled_to_row::<V, F16, 16>,
            add_scaled_to_row::<V, BF16, 16>,
        ],
    }
}

/// How far ahead of what is being read weights are fetched, in bytes.
const AHEAD: usize = 512;

fn read_row<V: Two, const TYPE: u8, const EIGHT: usize>(
    bytes: &[u8],
    center: &[f64],
    input: &mut [f32],
) -> RowSums {
    let limit = V::splat(TOO_LARGE);
    let mut sums = [splat::<V>(0.0); 2];
    let mut fits = V::splat(0.0).within(limit);
    let blocks = bytes.as_chunks::<EIGHT>().0.as_chunks::<2>().0;
    let center_blocks = center.as_chunks::<8>().0.as_chunks::<2>().0;
    let (inputs, input_tail) = input.as_chunks_mut::<LANES>();
    for (i, (block, inputs)) in blocks.iter().zip(&mut *inputs).enumerate() {
        let center = match center_blocks.get(i) {
            Some([low, high]) => [load(low), load(high)],
            None => [splat(0.0); 2],
        };
        let inputs = inputs.as_chunks_mut::<8>().0;
        for (((bytes, center), sum), to) in block.iter().zip(center).zip(&mut sums).zip(inputs) {
            let x = load_weights::<V, TYPE, EIGHT>(bytes);
            *sum = add(*sum, multiply(x, x));
            let centered: Eight<V> = core::array::from_fn(|i| x[i].subtract(center[i]));
            fits = centered
                .iter()
                .fold(fits, |all, one| all.and(one.within(limit)));
            // SAFETY: the eight values are 32 bytes, and any bytes are an f32.
            V::store_f32(centered, unsafe { &mut *to.as_mut_ptr().cast() });
        }
    }
    let done = inputs.len() * LANES;
    let mut lanes = [0.0; LANES];
    let all_fit = scalar::read_tail::<TYPE>(
        bytes.get(done * (EIGHT / 8)..).unwrap_or(&[]),
        center.get(done..).unwrap_or(&[]),
        input_tail,
        &mut lanes,
    );
    RowSums::new(add_lanes(sums, &lanes), all_fit && fits.all())
}

fn add_to_row<V: Two>(change: &[f64], row: &[u8], out: &mut [u8]) -> RowSums {
    let mut sums = Sums::<V>::new();
    let changes = change.as_chunks::<8>().0.as_chunks::<2>().0;
    let rows = row.as_chunks::<32>().0.as_chunks::<2>().0;
    let outs = out.as_chunks_mut::<32>().0.as_chunks_mut::<2>().0;
    for ((change, row), out) in changes.iter().zip(rows).zip(outs) {
        sums.add([load(&change[0]), load(&change[1])], row, out);
    }
    let done = rows.len() * LANES;
    let tail = change.get(done..).unwrap_or(&[]).iter().copied();
    sums.finish(tail, done, row, out)
}

fn add_scaled_to_row<V: Two, const TYPE: u8, const EIGHT: usize>(
    weights: &[u8],
    scale: f64,
    row: &[u8],
    out: &mut [u8],
) -> RowSums {
    let scale_all = splat(scale);
    let mut sums = Sums::<V>::new();
    let blocks = weights.as_chunks::<EIGHT>().0.as_chunks::<2>().0;
    let rows = row.as_chunks::<32>().0.as_chunks::<2>().0;
    let outs = out.as_chunks_mut::<32>().0.as_chunks_mut::<2>().0;
    for ((block, row), out) in blocks.iter().zip(rows).zip(outs) {
        V::prefetch(block.as_ptr().cast::<u8>().wrapping_add(AHEAD));
        let change = [
            multiply(load_weights::<V, TYPE, EIGHT>(&block[0]), scale_all),
            multiply(load_weights::<V, TYPE, EIGHT>(&block[1]), scale_all),
        ];
        sums.add(change, row, out);
    }
    let done = rows.len() * LANES;
    let tail = weights.get(done * (EIGHT / 8)..).unwrap_or(&[]);
    let tail = super::super::scalar::values::<TYPE>(tail).map(|weight| scale * weight);
    sums.finish(tail, done, row, out)
}

/// What is known of the values written so far.
struct Sums<V> {
    squares: [Eight<V>; 2],
    /// All bits of each value, as long as all in its place fit an f32.
    fits: V,
}

impl<V: Two> Sums<V> {
    #[inline]
    fn new() -> Self {
        Sums {
            squares: [splat(0.0); 2],
            fits: V::splat(0.0).within(V::splat(TOO_LARGE)),
        }
    }

    /// Writes 16 sums.
    #[inline]
    fn add(&mut self, change: [Eight<V>; 2], row: &[[u8; 32]; 2], out: &mut [[u8; 32]; 2]) {
        let limit = V::splat(TOO_LARGE);
        for half in 0..2 {
            let change = change[half];
            self.squares[half] = add(self.squares[half], multiply(change, change));
            let old = V::widen_f32(&row[half]);
            let sum = add(old, change);
            self.fits = sum
                .iter()
                .fold(self.fits, |all, one| all.and(one.within(limit)));
            let new = core::array::from_fn(|i| sum[i].keep_equal(old[i]));
            V::store_f32(new, &mut out[half]);
        }
    }

    /// Adds the last values, from `done` on.
    #[inline]
    fn finish(
        self,
        tail: impl Iterator<Item = f64>,
        done: usize,
        row: &[u8],
        out: &mut [u8],
    ) -> RowSums {
        let mut lanes = [0.0; LANES];
        let row = row.get(done * 4..).unwrap_or(&[]);
        let out = out.get_mut(done * 4..).unwrap_or(&mut []);
        let all_fit = scalar::add_tail(tail, row, out, &mut lanes);
        let sum = add_lanes(self.squares, &lanes);
        RowSums::new(sum, all_fit && self.fits.all())
    }
}

/// The tree over sums and lanes of a tail: 0 added to a lane changes nothing.
#[inline]
fn add_lanes<V: Two>(sums: [Eight<V>; 2], lanes: &[f64; LANES]) -> f64 {
    let [low, high] = padded::<f64, 8>(lanes);
    reduce([add(sums[0], load(&low)), add(sums[1], load(&high))])
}
