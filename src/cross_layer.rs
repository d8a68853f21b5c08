//! Cross-layer transcoders, one layer after the other, as a host's forward pass reaches them.
//!
//! ```text
//! layer l:   z_l = rule(W_enc_l x_l + b_l)              features l of the whole model
//! output t:  y_t = sum_{l <= t} z_l W_dec_{l -> t} + b_dec_t (+ W_skip_t x_t)
//! ```
//!
//! (Circuit tracing, Ameisen et al. 2025.) The whole model is one [`Sae`] in blocks, which encodes
//! and decodes rows of all layers side by side. A [`LayerStream`] gives the same bits layer by
//! layer: [`Sae::encode_layer`] adds what a layer's features write into sums for the later layers,
//! [`Sae::decode_layer`] finishes the sum of one. Sums are f64 and grow in ascending order of
//! features, as they do in one piece.

use crate::decode::CANONICAL_NAN;
use crate::encode::{check_width, features_at_once, load_row, products};
use crate::error::Error;
use crate::features::{Features, FeaturesRow, RowStatus};
use crate::model::{Activation, InputNorm, Layout, Matrix, Sae};
use crate::rows::Rows;
use crate::scratch::{Scratch, Work};
use crate::select::Selector;
use crate::written::Listed;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::ops::Range;

/// The state of a batch of rows between the layers: `rows * d_out` sums in f64. It belongs to the
/// caller and is reused from batch to batch.
#[derive(Clone, Debug)]
pub struct LayerStream {
    identity: usize,
    rows: usize,
    most_rows: usize,
    d_out: usize,
    /// The layer that comes next.
    next: usize,
    sums: Vec<f64>,
    /// Rows that were not finite at some layer.
    failed: Vec<bool>,
}

impl LayerStream {
    /// Goes back to the first layer, for a batch of `rows` rows.
    ///
    /// # Errors
    /// [`Error::Length`] for more rows than the stream was made for.
    pub fn restart(&mut self, rows: usize) -> Result<(), Error> {
        if rows > self.most_rows {
            return Err(Error::Length {
                what: "rows of a stream, at most",
                expected: self.most_rows as u64,
                found: rows as u64,
            });
        }
        self.rows = rows;
        self.next = 0;
        self.sums.fill(0.0);
        self.failed.fill(false);
        Ok(())
    }

    /// The layer that [`Sae::encode_layer`] takes next.
    pub fn next_layer(&self) -> usize {
        self.next
    }

    fn sums_of(&mut self, row: usize) -> &mut [f64] {
        let range = row * self.d_out..(row + 1) * self.d_out;
        self.sums.get_mut(range).unwrap_or(&mut [])
    }
}

impl Sae<'_> {
    /// A stream for batches of up to `rows` rows.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if this is not a model that can go layer by layer: as many input
    /// as output sites, an encoder (and a skip) with a block for each, no normalisation, a rule
    /// that looks at one layer's features at a time, and a decoder that writes to no earlier
    /// layer, whose sites do not select anew from the features of all layers. [`Error::OutOfMemory`].
    pub fn layer_stream(&self, rows: usize) -> Result<LayerStream, Error> {
        self.check_layers()?;
        let length = rows.saturating_mul(self.d_out());
        let memory = |_| Error::OutOfMemory {
            what: "a stream of layers",
            bytes: (length as u64).saturating_mul(8),
        };
        let mut sums = Vec::new();
        sums.try_reserve_exact(length).map_err(memory)?;
        sums.resize(length, 0.0);
        let mut failed = Vec::new();
        failed.try_reserve_exact(rows).map_err(memory)?;
        failed.resize(rows, false);
        Ok(LayerStream {
            identity: self.identity,
            rows,
            most_rows: rows,
            d_out: self.d_out(),
            next: 0,
            sums,
            failed,
        })
    }

    /// The features of one layer.
    pub fn layer_features(&self, layer: usize) -> Range<usize> {
        let width = self.d_in() / self.input_sites().max(1);
        let mut blocks = self.parts.encoder.blocks().iter();
        let block = blocks.find(|block| block.first_column == layer * width);
        block.map_or(0..0, |block| block.features())
    }

    /// Encodes the next layer of every row: `rows` is `[rows, d_in / layers]`. The content of
    /// `features` is replaced by that layer's features, numbered as in the whole model; what they
    /// write is added to the sums of this layer and the later ones.
    ///
    /// A row with a non-finite value has no features at this layer and the later ones, and its
    /// outputs from this layer on are NaN.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `layer` is not the next one, or the stream is another model's;
    /// [`Error::Length`] for rows of another width or number, [`Error::OutOfMemory`] if `features`
    /// cannot grow: the stream must then be restarted.
    pub fn encode_layer(
        &self,
        stream: &mut LayerStream,
        layer: usize,
        rows: Rows<'_>,
        scratch: &mut Scratch<'_>,
        features: &mut Features,
    ) -> Result<(), Error> {
        features.clear();
        self.check_stream(stream)?;
        if layer != stream.next || layer >= self.input_sites() {
            return Err(Error::InvalidArgument {
                what: "layer",
                expected: stream.next.to_string(),
                found: layer.to_string(),
            });
        }
        let width = self.d_in() / self.input_sites();
        check_width(rows, width)?;
        check_rows(rows, stream.rows)?;
        let mut work = scratch.split(self)?;
        stream.next = layer + 1;
        for row in 0..rows.rows() {
            let before = features.len();
            let mut status = RowStatus::NonFinite;
            let failed = stream.failed.get(row).copied().unwrap_or(true);
            if !failed
                && self.prepare_layer(rows, row, layer * width..(layer + 1) * width, &mut work)
            {
                status = self.select_layer(layer * width, width, &mut work, features)?;
            } else if let Some(failed) = stream.failed.get_mut(row) {
                *failed = true;
            }
            features.end_row(status)?;
            let found = FeaturesRow {
                indices: features.indices().get(before..).unwrap_or(&[]),
                values: features.values().get(before..).unwrap_or(&[]),
                status,
            };
            let sums = stream.sums_of(row);
            match &self.parts.targets {
                None => self.add_decoder_part(&self.parts.decoder, 0, found, work.sums, sums),
                Some(targets) => {
                    let (indices, values) = (found.indices, found.values);
                    let listed = Listed { indices, values };
                    self.add_targets(targets, listed, work.sums, work.chosen, sums);
                }
            }
        }
        Ok(())
    }

    /// Writes the output of one layer, `[rows, d_out / layers]`, contiguous. The layer must have
    /// been encoded; `inputs` are its rows, needed if the model has a skip connection.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the layer was not encoded yet, the stream is another model's,
    /// or inputs are needed and missing; [`Error::Length`] for a wrong size.
    pub fn decode_layer(
        &self,
        stream: &mut LayerStream,
        layer: usize,
        inputs: Option<Rows<'_>>,
        scratch: &mut Scratch<'_>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        self.check_stream(stream)?;
        if layer >= stream.next {
            return Err(Error::InvalidArgument {
                what: "layer",
                expected: alloc::format!("one of the {} encoded", stream.next),
                found: layer.to_string(),
            });
        }
        let width = self.d_out() / self.output_sites();
        let expected = stream.rows.saturating_mul(width);
        if out.len() != expected {
            return Err(Error::Length {
                what: "reconstructed values",
                expected: expected as u64,
                found: out.len() as u64,
            });
        }
        let inputs = match (&self.parts.skip, inputs) {
            (None, _) => None,
            (Some(_), None) => {
                return Err(Error::InvalidArgument {
                    what: "inputs of decode",
                    expected: "the encoded rows (this model has a skip)".into(),
                    found: "none".into(),
                });
            }
            (Some(skip), Some(rows)) => {
                check_width(rows, self.d_in() / self.input_sites())?;
                check_rows(rows, stream.rows)?;
                Some((skip, rows))
            }
        };
        let mut work = scratch.split(self)?;
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let mut failed = stream.failed.get(row).copied().unwrap_or(true);
            let range = layer * width..(layer + 1) * width;
            let sums = stream.sums_of(row).get(range.clone()).unwrap_or(&[]);
            let Some(output) = work.output.get_mut(..width) else {
                break;
            };
            output.copy_from_slice(sums);
            if let Some(bias) = &self.parts.decoder_bias {
                for (sum, bias) in output.iter_mut().zip(bias.get(range).unwrap_or(&[])) {
                    *sum += bias;
                }
            }
            if let Some((skip, rows)) = inputs {
                let raw = work.raw.get_mut(..rows.width()).unwrap_or(&mut []);
                failed |= !load_row(self.kernels, rows, row, raw);
                for (input, &value) in work.input.iter_mut().zip(raw.iter()) {
                    *input = value as f32; // exact: rows hold no wider values
                }
                self.add_layer_skip(skip, layer, &mut work);
            }
            for (out, &sum) in out.iter_mut().zip(work.output.iter()) {
                let value = sum as f32;
                *out = match failed || value.is_nan() {
                    true => CANONICAL_NAN,
                    false => value,
                };
            }
        }
        Ok(())
    }

    /// Adds `W_skip_t x_t` of the row in `work.input` to `work.output`.
    fn add_layer_skip(&self, skip: &Matrix<'_>, layer: usize, work: &mut Work<'_>) {
        let width = self.d_out() / self.output_sites();
        let Some((block, _, _)) = skip.place(layer * width) else {
            return;
        };
        let input = work.input.get(..block.width()).unwrap_or(&[]);
        let step = features_at_once(block);
        for first in (0..width).step_by(step) {
            let count = step.min(width - first);
            let outputs = work.output.get_mut(first..first + count);
            let (Some(sums), Some(outputs)) = (work.sums.get_mut(..count), outputs) else {
                return;
            };
            products(self.kernels, block, first, input, work.lanes, sums);
            for (output, sum) in outputs.iter_mut().zip(sums.iter()) {
                *output += sum;
            }
        }
    }

    /// Writes the centred row of one layer into the front of `work.input`; false if it is not
    /// finite.
    fn prepare_layer(
        &self,
        rows: Rows<'_>,
        row: usize,
        columns: Range<usize>,
        work: &mut Work<'_>,
    ) -> bool {
        let Some(raw) = work.raw.get_mut(..columns.len()) else {
            return false;
        };
        if !load_row(self.kernels, rows, row, raw) {
            return false;
        }
        if let Some(center) = &self.parts.center {
            for (value, center) in raw.iter_mut().zip(center.get(columns).unwrap_or(&[])) {
                *value -= center;
            }
        }
        let mut finite = true;
        for (input, &value) in work.input.iter_mut().zip(raw.iter()) {
            *input = value as f32;
            finite &= input.is_finite();
        }
        finite
    }

    /// Selects from the features of the layer that reads the columns from `column` on.
    fn select_layer(
        &self,
        column: usize,
        width: usize,
        work: &mut Work<'_>,
        features: &mut Features,
    ) -> Result<RowStatus, Error> {
        let mut blocks = self.parts.encoder.blocks().iter();
        let Some(block) = blocks.find(|block| block.first_column == column) else {
            return Ok(RowStatus::Ok);
        };
        let input = work.input.get(..width).unwrap_or(&[]);
        let mut selector = Selector::new(&self.parts, work.candidates, || 0.0);
        let step = features_at_once(&block.matrix);
        for first in (0..block.matrix.features()).step_by(step) {
            let count = step.min(block.matrix.features() - first);
            let Some(sums) = work.sums.get_mut(..count) else {
                break;
            };
            products(self.kernels, &block.matrix, first, input, work.lanes, sums);
            selector.block(block.first_feature + first, sums, &[], features)?;
        }
        let status = selector.status();
        selector.finish(features)?;
        Ok(status)
    }

    fn check_stream(&self, stream: &LayerStream) -> Result<(), Error> {
        match stream.identity == self.identity {
            true => Ok(()),
            false => Err(Error::InvalidArgument {
                what: "stream of layers",
                expected: "one made for this model".into(),
                found: "one of another model".into(),
            }),
        }
    }

    /// Whether the model can go layer by layer.
    fn check_layers(&self) -> Result<(), Error> {
        let parts = &self.parts;
        let layers = parts.input_sites;
        let (d_in, d_out) = (self.d_in() / layers, self.d_out() / parts.output_sites);
        let per_layer = |matrix: &Matrix<'_>, rows_per_layer: Option<usize>| {
            matrix.layout() == Layout::Blocks
                && matrix.blocks().len() == layers
                && matrix.blocks().iter().enumerate().all(|(layer, block)| {
                    block.columns() == (layer * d_in..(layer + 1) * d_in)
                        && rows_per_layer.is_none_or(|rows| {
                            block.features() == (layer * rows..(layer + 1) * rows)
                        })
                })
        };
        let layer_of = |feature: usize| {
            let mut blocks = parts.encoder.blocks().iter();
            blocks.position(|block| block.features().contains(&feature))
        };
        let causal = match parts.decoder.layout() {
            Layout::Blocks => parts.decoder.blocks().iter().all(|block| {
                let features = block.features();
                // The last feature writes no earlier than its own layer.
                let last = features.end.checked_sub(1).and_then(layer_of);
                last.is_some_and(|layer| block.first_column >= layer * d_out)
            }),
            Layout::Rows | Layout::Columns => false,
        };
        let one_by_one = match parts.activation {
            Activation::TopK { .. }
            | Activation::TopAfa
            | Activation::Pursuit(_)
            | Activation::Ensemble(_) => false,
            Activation::GroupTopK { groups, .. } => {
                let size = self.d_sae() / groups;
                let mut blocks = parts.encoder.blocks().iter();
                blocks.all(|block| block.first_feature % size == 0)
            }
            _ => true,
        };
        let targets = parts.targets.as_ref();
        let coalesced = targets.is_some_and(|targets| targets.coalesced.is_some());
        let fits = layers > 1
            && parts.output_sites == layers
            && per_layer(&parts.encoder, None)
            && parts
                .skip
                .as_ref()
                .is_none_or(|skip| per_layer(skip, Some(d_out)))
            && causal
            && one_by_one
            && !coalesced
            && parts.glu.is_none()
            && parts.input_norm == InputNorm::None;
        match fits {
            true => Ok(()),
            false => Err(Error::InvalidArgument {
                what: "model",
                expected: "a cross-layer transcoder".into(),
                found: "one that cannot go layer by layer".into(),
            }),
        }
    }
}

fn check_rows(rows: Rows<'_>, expected: usize) -> Result<(), Error> {
    match rows.rows() == expected {
        true => Ok(()),
        false => Err(Error::Length {
            what: "rows of a stream",
            expected: expected as u64,
            found: rows.rows() as u64,
        }),
    }
}
