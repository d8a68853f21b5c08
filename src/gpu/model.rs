//! A model's encoder on a device.

use super::bounds::{self, Centre, OFF, Stored};
use super::device::{Device, next_upload};
use crate::encode::check_width;
use crate::error::Error;
use crate::kernels::WeightType;
use crate::kernels::blocked::BlockedKernels;
use crate::model::{Activation, Asked, Layout, Rank, Sae, asked, why_no_screen};
use crate::rows::Rows;
use crate::scratch::Scratch;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Features whose weights are prepared at once.
const PIECE: usize = 128;

/// Bytes on their way to the device before it is waited for.
pub(super) const ON_THE_WAY: u64 = 64 << 20;

/// The smallest scale of weights in eight bits: 2^-50.
const LEAST_STEP: f64 = 1.0 / (1u64 << 50) as f64;

/// How a device holds the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightFormat {
    /// As they are stored: f32, f16 or bf16. Sixteen bits are unpacked where they are used.
    #[default]
    Stored,
    /// In eight bits, with a scale for each feature: half or a quarter of the bytes, and more
    /// features that the host looks at.
    Int8,
}

/// How a model is uploaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct UploadOptions<'r> {
    format: WeightFormat,
    centre: Option<Rows<'r>>,
}

impl<'r> UploadOptions<'r> {
    /// How the device holds the weights.
    #[must_use]
    pub fn format(mut self, format: WeightFormat) -> Self {
        self.format = format;
        self
    }

    /// Rows as they will be encoded: bounds are formed about their mean. They never change a result;
    /// the closer rows are to the mean, the fewer features the host looks at.
    #[must_use]
    pub fn centre(mut self, rows: Rows<'r>) -> Self {
        self.centre = Some(rows);
        self
    }
}

/// Weights on the device that fit one binding.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) weights: wgpu::Buffer,
    pub(super) first: usize,
    pub(super) features: usize,
}

/// A model's encoder on a device: a screen, which tells the host which features it has to look at.
/// The host's weights stay where they are and give every value.
#[derive(Debug)]
pub struct Model {
    pub(super) device: Device,
    pub(super) identity: usize,
    /// Which upload it is: one model can be uploaded in several ways.
    pub(super) upload: usize,
    pub(super) d_in: usize,
    pub(super) d_sae: usize,
    /// Inputs of a row, in groups of four.
    pub(super) quads: usize,
    pub(super) chunks: Vec<Chunk>,
    pub(super) numbers: wgpu::Buffer,
    pub(super) limits: wgpu::Buffer,
    /// Features that the host looks at in every row.
    pub(super) always: Vec<u32>,
    /// Subtracted from prepared rows; empty without.
    pub(super) centre: Vec<f32>,
    pub(super) encode: wgpu::ComputePipeline,
    pub(super) rank: wgpu::ComputePipeline,
    pub(super) compact: wgpu::ComputePipeline,
    /// TopK's k, and whether magnitudes rank.
    pub(super) ranked: Option<(usize, bool)>,
    format: WeightFormat,
    device_bytes: u64,
    host_bytes: u64,
}

impl Device {
    /// Uploads a model's encoder, once for all batches; blocks while the weights are read.
    ///
    /// # Errors
    /// [`Error::UnsupportedArchitecture`] for rules that have no screen (see
    /// [`Sae::description`]'s), encoders made of blocks and rows wider than 65,536;
    /// [`Error::Length`] if rows for the centre have another width; [`Error::AdapterLimit`],
    /// [`Error::DeviceMemory`], [`Error::Device`], [`Error::OutOfMemory`].
    pub fn upload(&self, sae: &Sae<'_>, options: &UploadOptions<'_>) -> Result<Model, Error> {
        let parts = &sae.parts;
        if let Some(why) = refused(sae) {
            return Err(Error::UnsupportedArchitecture {
                architecture: format!("{} on a GPU ({why})", parts.activation.describe()),
            });
        }
        let before = self.faults();
        let format = options.format;
        let ty = parts.encoder.weight_type();
        let (d_in, d_sae, quads) = (sae.d_in(), sae.d_sae(), sae.d_in().div_ceil(4));
        let centre = match options.centre {
            None => Vec::new(),
            Some(rows) => mean(sae, rows)?,
        };
        let storage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let common = include_str!("shaders/common.wgsl");
        let of = |body: &str| format!("{common}{body}");
        let body = of(include_str!("shaders/encode.wgsl"));
        let encode = self.pipeline("encode", source(ty, format, &body))?;
        let rank = self.pipeline("rank", of(include_str!("shaders/rank.wgsl")))?;
        let compact = self.pipeline("compact", of(include_str!("shaders/compact.wgsl")))?;
        let mut model = Model {
            device: self.clone(),
            identity: sae.identity,
            upload: next_upload(),
            d_in,
            d_sae,
            quads,
            chunks: Vec::new(),
            numbers: self.buffer("numbers of features", d_sae as u64 * 16, storage)?,
            limits: self.buffer("limits of features", d_sae as u64 * 4, storage)?,
            always: Vec::new(),
            centre,
            encode,
            rank,
            compact,
            ranked: match parts.activation {
                Activation::TopK { k, rank, .. } => Some((k, rank == Rank::Magnitude)),
                _ => None,
            },
            format,
            device_bytes: d_sae as u64 * 20,
            host_bytes: parts.encoder.size_bytes() as u64,
        };
        model.send_weights(sae, storage)?;
        self.check_since(before, "weights", model.device_bytes)?;
        Ok(model)
    }
}

impl Model {
    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes of weights and numbers on the device.
    pub fn device_bytes(&self) -> u64 {
        self.device_bytes
    }

    /// Bytes of encoder weights that the host keeps, for the values.
    pub fn host_bytes(&self) -> u64 {
        self.host_bytes
    }

    /// Features that the host looks at in every row, because the device cannot bound them: weights
    /// or biases that are not finite or huge, scales of zero.
    pub fn host_features(&self) -> &[u32] {
        &self.always
    }

    /// What is where, in one line, as `inspect` says it.
    pub fn memory_line(&self) -> String {
        format!(
            "gpu: {} holds {} bytes{}; the host keeps {} bytes of encoder, from which every value comes",
            self.device.adapter().name,
            self.device_bytes,
            match self.format {
                WeightFormat::Stored => "",
                WeightFormat::Int8 => " (int8)",
            },
            self.host_bytes,
        )
    }

    fn send_weights(&mut self, sae: &Sae<'_>, storage: wgpu::BufferUsages) -> Result<(), Error> {
        let encoder = &sae.parts.encoder;
        let ty = encoder.weight_type();
        let row_bytes = self.d_in * ty.size();
        let held = self.quads * 4 * held_size(ty, self.format);
        let most = self.device.most_binding_bytes() as usize / held.max(1);
        let groups = self.device.device.limits();
        let groups = groups.max_compute_workgroups_per_dimension as usize;
        let most = most.min(groups.saturating_mul(64)).max(1);
        // Whole tiles, where a chunk has at least one.
        let most = if most >= 64 { most / 64 * 64 } else { most };
        let memory = |bytes: usize| Error::OutOfMemory {
            what: "weights on their way to a GPU",
            bytes: bytes as u64,
        };
        let mut rows: Vec<u8> = Vec::new();
        let (piece, out_bytes) = (PIECE.min(self.d_sae), PIECE.min(self.d_sae) * held);
        rows.try_reserve_exact(piece * row_bytes)
            .map_err(|_| memory(piece * row_bytes))?;
        let mut out: Vec<u8> = Vec::new();
        out.try_reserve_exact(out_bytes)
            .map_err(|_| memory(out_bytes))?;
        let mut line = alloc::vec![0f32; self.d_in];
        let centre = Centre {
            product: 0.0,
            norm: norm(&self.centre),
        };
        let mut on_the_way = 0;
        for first in (0..self.d_sae).step_by(most) {
            let features = most.min(self.d_sae - first);
            let bytes = (features * held) as u64;
            let weights = self.device.buffer("weights", bytes, storage)?;
            for start in (first..first + features).step_by(piece) {
                let count = piece.min(first + features - start);
                rows.resize(count * row_bytes, 0);
                encoder.copy_rows(start, &mut rows);
                out.clear();
                out.resize(count * held, 0);
                let mut numbers = alloc::vec![[0f32; 4]; count];
                let mut limits = alloc::vec![OFF; count];
                let each = rows.chunks_exact(row_bytes).zip(out.chunks_exact_mut(held));
                for (i, (row, out)) in each.enumerate() {
                    // `refused` looked.
                    let Some(asked) = asked(&sae.parts, start + i) else {
                        continue;
                    };
                    let mut centre = centre;
                    if !self.centre.is_empty() {
                        let mut product = [0.0];
                        sae.kernels
                            .dot_rows(ty, row, row_bytes, &self.centre, &mut product);
                        [centre.product] = product;
                    }
                    let stored = pack(sae, ty, self.format, row, &mut line, out);
                    match bounds::feature(&asked, &stored, &centre, self.d_in) {
                        Some(of) => {
                            numbers[i] = of;
                            limits[i] = limit(&sae.parts.activation, &asked);
                        }
                        None => {
                            out.fill(0);
                            self.always.push((start + i) as u32);
                        }
                    }
                }
                let queue = &self.device.queue;
                queue.write_buffer(&weights, ((start - first) * held) as u64, &out);
                let at = start as u64;
                queue.write_buffer(&self.numbers, at * 16, bytemuck::cast_slice(&numbers));
                queue.write_buffer(&self.limits, at * 4, bytemuck::cast_slice(&limits));
                on_the_way += out.len() as u64;
                if on_the_way > ON_THE_WAY {
                    self.device.flush(on_the_way)?;
                    on_the_way = 0;
                }
            }
            self.device_bytes += bytes;
            self.chunks.push(Chunk {
                weights,
                first,
                features,
            });
        }
        self.device.flush(on_the_way)
    }
}

/// Why a model cannot be uploaded.
fn refused(sae: &Sae<'_>) -> Option<&'static str> {
    if let Some(why) = why_no_screen(&sae.parts) {
        return Some(why);
    }
    if let Activation::Pursuit(_) = sae.parts.activation {
        return Some("each step of a pursuit has an input of its own");
    }
    if sae.parts.encoder.layout() == Layout::Blocks {
        return Some("its encoder is made of blocks");
    }
    (sae.d_in() > bounds::WIDEST).then_some("its rows are too wide for the bounds")
}

/// What a key has to be above for the feature to be looked at.
fn limit(activation: &Activation, asked: &Asked) -> u32 {
    let least = match activation {
        Activation::TopK {
            rank: Rank::Value,
            relu: true,
            ..
        } => 0.0,
        // Every key is above this.
        Activation::TopK { .. } => return 0,
        _ => asked.threshold,
    };
    // `+ 0.0` turns -0 into +0: a bound of +0 is not above either.
    match least == f32::INFINITY {
        // Switched off; infinity itself is not above, and a NaN is the host's.
        true => bounds::key(f32::INFINITY),
        false => bounds::key(least + 0.0),
    }
}

/// The mean of the rows as they meet the weights; those that are not finite are left out.
fn mean(sae: &Sae<'_>, rows: Rows<'_>) -> Result<Vec<f32>, Error> {
    check_width(rows, sae.d_in())?;
    let mut scratch = Scratch::for_rows(sae, 1)?;
    let mut work = scratch.split(sae)?;
    let mut sums = alloc::vec![0f64; sae.d_in()];
    let mut count = 0u32;
    for row in 0..rows.rows() {
        if sae.prepare_row(rows, row, &mut work).is_some() {
            count += 1;
            for (sum, value) in sums.iter_mut().zip(work.input.iter()) {
                *sum += f64::from(*value);
            }
        }
    }
    let share = 1.0 / f64::from(count.max(1));
    let centre: Vec<f32> = sums.iter().map(|sum| (sum * share) as f32).collect();
    match centre.iter().all(|value| value.is_finite()) {
        true => Ok(centre),
        false => Ok(Vec::new()),
    }
}

/// The source of a shader whose `WEIGHTS` are in a number format.
pub(super) fn source(ty: WeightType, format: WeightFormat, body: &str) -> String {
    let (held, quad) = match (format, ty) {
        (WeightFormat::Int8, _) => ("u32", include_str!("shaders/int8.wgsl")),
        (_, WeightType::F32) => ("vec4<f32>", include_str!("shaders/f32.wgsl")),
        (_, WeightType::F16) => ("vec2<u32>", include_str!("shaders/f16.wgsl")),
        (_, WeightType::BF16) => ("vec2<u32>", include_str!("shaders/bf16.wgsl")),
    };
    format!(
        "{quad}{}",
        body.replace("array<WEIGHTS>", &format!("array<{held}>"))
    )
}

/// Bytes of a weight on the device.
fn held_size(ty: WeightType, format: WeightFormat) -> usize {
    match format {
        WeightFormat::Int8 => 1,
        WeightFormat::Stored => ty.size(),
    }
}

/// Writes a row as the device holds it.
fn pack(
    sae: &Sae<'_>,
    ty: WeightType,
    format: WeightFormat,
    row: &[u8],
    line: &mut [f32],
    out: &mut [u8],
) -> Stored {
    let kernels = BlockedKernels::for_level(sae.level());
    kernels.widen(ty, row, line);
    let [squares, largest] = kernels.measure(line);
    match format {
        WeightFormat::Stored => {
            if let Some(out) = out.get_mut(..row.len()) {
                out.copy_from_slice(row);
            }
            Stored {
                step: 1.0,
                norm: bounds::norm_up(squares),
                residual: 0.0,
            }
        }
        WeightFormat::Int8 => {
            // An f32, so that its products with bytes are exact; none is above 127 then. Smaller ones
            // would have no bounds: tiny weights are all remainder.
            let step = f64::from((largest / 127.0 * (1.0 + 1e-6)) as f32).max(LEAST_STEP);
            let (mut left, mut coded) = (0.0, 0.0);
            for (out, &weight) in out.iter_mut().zip(line.iter()) {
                let weight = f64::from(weight);
                let byte = libm::rint(weight / step);
                *out = byte as i8 as u8;
                let rest = weight - step * byte;
                left += rest * rest;
                coded += byte * byte;
            }
            Stored {
                step,
                norm: match squares.is_finite() {
                    true => bounds::norm_up(coded),
                    false => f64::INFINITY,
                },
                residual: bounds::norm_up(left),
            }
        }
    }
}

/// An upper bound of the norm.
fn norm(values: &[f32]) -> f64 {
    let squares: f64 = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
    bounds::norm_up(squares)
}
