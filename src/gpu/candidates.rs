//! What the host makes of what a device found.

use super::bounds;
use crate::error::Error;
use crate::features::{Features, RowStatus};
use crate::kernels::blocked::BlockedKernels;
use crate::model::{Activation, Sae, asked};
use crate::scratch::Work;
use crate::select::Selector;
use alloc::vec::Vec;

/// Features to look at.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Feature and device row, as one number each; with [`Mode::Fast`] in the order of `estimates`.
    keys: Vec<u64>,
    estimates: Vec<u32>,
    /// For each row, where its features end in `sorted`.
    ends: Vec<usize>,
    /// Row after row: a feature and its product.
    sorted: Vec<(u32, f64)>,
    products: Vec<f64>,
    row: Vec<u8>,
    /// Device rows whose candidates had no room.
    pub(super) overflowed: Vec<bool>,
}

/// Room for so many elements in all, without aborting.
pub(super) fn reserve<T>(
    values: &mut Vec<T>,
    count: usize,
    what: &'static str,
) -> Result<(), Error> {
    let more = count.saturating_sub(values.len());
    values.try_reserve(more).map_err(|_| Error::OutOfMemory {
        what,
        bytes: count.saturating_mul(size_of::<T>()) as u64,
    })
}

impl Candidates {
    pub(super) fn clear(&mut self, rows: usize, count: usize) -> Result<(), Error> {
        self.keys.clear();
        self.estimates.clear();
        self.overflowed.clear();
        reserve(&mut self.keys, count, "candidates")?;
        reserve(&mut self.estimates, count, "candidates")?;
        reserve(&mut self.overflowed, rows, "candidates")?;
        self.overflowed.resize(rows, false);
        Ok(())
    }

    /// Adds what the device found for a row: where its entries begin and how many, of `list`.
    pub(super) fn add_row(
        &mut self,
        row: usize,
        [begin, count]: [u32; 2],
        words: usize,
        list: &[u8],
        d_sae: usize,
    ) {
        // The device's numbers, which may be anything.
        let place = |at: u64| usize::try_from(at.saturating_mul(words as u64 * 4)).ok();
        let (from, to) = (u64::from(begin), u64::from(begin) + u64::from(count));
        let range = place(from).zip(place(to));
        let Some(entries) = range.and_then(|(from, to)| list.get(from..to)) else {
            if let Some(overflowed) = self.overflowed.get_mut(row) {
                *overflowed = count > 0;
            }
            return;
        };
        for entry in entries.chunks_exact(words * 4) {
            let word = |at: usize| {
                let bytes = entry.get(at * 4..at * 4 + 4);
                let bytes: [u8; 4] = bytes.and_then(|b| b.try_into().ok()).unwrap_or_default();
                u32::from_le_bytes(bytes)
            };
            let feature = word(0);
            if feature as usize >= d_sae {
                // A driver that made this up: the host does not believe the row.
                if let Some(overflowed) = self.overflowed.get_mut(row) {
                    *overflowed = true;
                }
                continue;
            }
            self.keys.push(u64::from(feature) << 32 | row as u64);
            if words == 2 {
                self.estimates.push(word(1));
            }
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Adds the features that the host looks at in every row.
    pub(super) fn add_always(&mut self, always: &[u32], rows: usize) -> Result<(), Error> {
        let more = always.len().saturating_mul(rows);
        let all = self.keys.len().saturating_add(more);
        reserve(&mut self.keys, all, "candidates")?;
        for &feature in always {
            let each = 0..rows as u64;
            self.keys
                .extend(each.map(|row| u64::from(feature) << 32 | row));
        }
        Ok(())
    }

    /// The exact products of all candidates, feature after feature, so that weights are read once.
    pub(super) fn compute(&mut self, sae: &Sae<'_>, inputs: &[&[f32]]) -> Result<(), Error> {
        self.keys.sort_unstable();
        self.products.clear();
        reserve(&mut self.products, self.keys.len(), "candidates")?;
        let mut exact = Exact::new(sae, &mut self.row)?;
        for (at, &key) in self.keys.iter().enumerate() {
            let next = self.keys.get(at + 8).map(|&key| (key >> 32) as usize);
            let input = inputs.get(key as u32 as usize).copied().unwrap_or(&[]);
            self.products
                .push(exact.product((key >> 32) as usize, input, next));
        }
        self.sort_by_row(inputs.len())
    }

    /// The device's estimates of the products.
    pub(super) fn estimate(&mut self, sae: &Sae<'_>, inputs: &[&[f32]]) -> Result<(), Error> {
        self.products.clear();
        reserve(&mut self.products, self.keys.len(), "candidates")?;
        let mut exact = Exact::new(sae, &mut self.row)?;
        let mut pairs: Vec<(u64, f64)> = Vec::new();
        reserve(&mut pairs, self.keys.len(), "candidates")?;
        for (at, &key) in self.keys.iter().enumerate() {
            let feature = (key >> 32) as usize;
            let product = match (self.estimates.get(at), asked(&sae.parts, feature)) {
                (Some(&estimate), Some(asked)) => {
                    (f64::from(bounds::value(estimate)) - asked.bias) / asked.scale
                }
                // The host's own features.
                _ => {
                    let input = inputs.get(key as u32 as usize).copied().unwrap_or(&[]);
                    exact.product(feature, input, None)
                }
            };
            pairs.push((key, product));
        }
        pairs.sort_unstable_by_key(|pair| pair.0);
        for (to, (key, product)) in self.keys.iter_mut().zip(pairs) {
            *to = key;
            self.products.push(product);
        }
        self.sort_by_row(inputs.len())
    }

    /// Sorts products by row; features ascend within each.
    fn sort_by_row(&mut self, rows: usize) -> Result<(), Error> {
        self.ends.clear();
        reserve(&mut self.ends, rows + 1, "candidates")?;
        self.ends.resize(rows + 1, 0);
        for &key in &self.keys {
            if let Some(count) = self.ends.get_mut(key as u32 as usize + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for end in &mut self.ends {
            sum += *end;
            *end = sum;
        }
        self.sorted.clear();
        reserve(&mut self.sorted, sum, "candidates")?;
        self.sorted.resize(sum, (0, 0.0));
        for (&key, &product) in self.keys.iter().zip(&self.products) {
            let Some(at) = self.ends.get_mut(key as u32 as usize) else {
                continue;
            };
            if let Some(to) = self.sorted.get_mut(*at) {
                *to = ((key >> 32) as u32, product);
            }
            *at += 1;
        }
        Ok(())
    }

    /// The candidates of a device row.
    pub(super) fn of_row(&self, row: usize) -> &[(u32, f64)] {
        // After sorting, the end of a row stands where its start was.
        let start = match row.checked_sub(1) {
            Some(before) => self.ends.get(before).copied().unwrap_or(0),
            None => 0,
        };
        let end = self.ends.get(row).copied().unwrap_or(0);
        self.sorted.get(start..end).unwrap_or(&[])
    }
}

/// Exact products from the host's weights.
struct Exact<'w> {
    sae: &'w Sae<'w>,
    kernels: &'static BlockedKernels,
    /// A vector out of columns, and whose.
    row: &'w mut [u8],
    held: Option<usize>,
}

impl<'w> Exact<'w> {
    fn new(sae: &'w Sae<'w>, row: &'w mut Vec<u8>) -> Result<Self, Error> {
        let encoder = &sae.parts.encoder;
        let bytes = encoder.width() * encoder.weight_type().size();
        row.clear();
        reserve(row, bytes, "a vector of the encoder")?;
        row.resize(bytes, 0);
        Ok(Exact {
            sae,
            kernels: BlockedKernels::for_level(sae.level()),
            row,
            held: None,
        })
    }

    /// The product of a feature with a prepared row. The vector of `next` is fetched meanwhile.
    fn product(&mut self, feature: usize, input: &[f32], next: Option<usize>) -> f64 {
        let encoder = &self.sae.parts.encoder;
        if let Some(row) = next.and_then(|next| encoder.row(next)) {
            self.kernels.prefetch(row);
        }
        let row = match encoder.row(feature) {
            Some(row) => row,
            None => {
                if self.held != Some(feature) {
                    encoder.gather(feature, self.row);
                    self.held = Some(feature);
                }
                &*self.row
            }
        };
        let mut product = [0.0];
        self.sae
            .kernels
            .dot_rows(encoder.weight_type(), row, row.len(), input, &mut product);
        let [product] = product;
        product
    }
}

/// Selects from the candidates of a row.
pub(super) fn select(
    sae: &Sae<'_>,
    candidates: &[(u32, f64)],
    work: &mut Work<'_>,
    features: &mut Features,
) -> Result<RowStatus, Error> {
    debug_assert!(!matches!(sae.parts.activation, Activation::TopAfa));
    // Only top-AFA asks for the norm.
    let mut selector = Selector::new(&sae.parts, work.candidates, || 0.0);
    for &(feature, product) in candidates {
        selector.block(feature as usize, &[product], &[], features)?;
    }
    let status = selector.status();
    selector.finish(features)?;
    Ok(status)
}
