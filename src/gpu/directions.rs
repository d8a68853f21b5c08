//! Sums of vectors on a device, always in f32: decoding, and adding directions to rows.
//!
//! There is no screen for a sum: every value of it is wanted. So what a device adds up is the device's,
//! and has its own bound; the exact sums are [`Sae::decode`] and the plans of [`crate::steer`], on the
//! CPU. These calls are for hosts that ask for them by name.
//!
//! With `n` entries in a row, `a_i` their amounts, `v_i` their vectors, and `y` the row that is
//! added to (0 for decoding), the device's value of output `j` is within
//!
//! ```text
//! (n + 3) e (1 + (n + 3) e) (|y_j| + sum_i |a_i v_ij|) + 2^-124 (n + sum_i (|a_i| + |v_ij|))    e = 2^-23
//! ```
//!
//! of the real sum, whatever WGSL allows (see [`super`]): a term takes part in at most `n + 1`
//! operations, amounts are rounded to f32 once, and each of at most `2 n` operations and `2 n` operands
//! loses at most 2^-126 to flushing. What follows in decoding (bias, normalisation, skip) is done by the
//! host in f64. Rows whose sums could overflow are the host's.

mod decode;

use super::device::{Device, Mapping, next_upload};
use super::model::{ON_THE_WAY, WeightFormat, source};
use super::stream::bind;
use crate::encode::{check_width, load_row};
use crate::error::Error;
use crate::features::{Features, FeaturesRow, RowStatus};
use crate::kernels::blocked::BlockedKernels;
use crate::kernels::{Kernels, WeightType};
use crate::model::{Matrix, Sae};
use crate::rows::Rows;
use crate::rows_mut::RowsMut;
use crate::scratch::{Scratch, Work};
use alloc::string::ToString;
use alloc::vec::Vec;

/// Vectors that are prepared at once.
const PIECE: usize = 128;

/// Rows of a batch, and entries of all of them, where the caller does not say.
const ROWS: usize = 512;
const ENTRIES: usize = 128 << 10;

/// Magnitudes up to this add up without overflow.
const MOST: f64 = 1e37;

/// Vectors on a device: a model's decoder, or directions of the caller.
#[derive(Debug)]
pub struct Directions {
    device: Device,
    /// Of the model whose decoder this is.
    identity: Option<usize>,
    /// Which directions these are, for their streams.
    upload: usize,
    count: usize,
    width: usize,
    quads: usize,
    chunks: Vec<Chunk>,
    add: wgpu::ComputePipeline,
    /// The largest magnitude of each vector; infinity for those that are not finite.
    largest: Vec<f32>,
    /// The caller's vectors, for rows that the device cannot add; none of a decoder.
    host: Vec<f32>,
    device_bytes: u64,
}

#[derive(Debug)]
struct Chunk {
    vectors: wgpu::Buffer,
    params: wgpu::Buffer,
}

/// `add.wgsl`
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Params {
    quads: u32,
    first: u32,
    vectors: u32,
    unused: u32,
}

/// The work space of one thread for [`Directions`].
#[derive(Debug)]
pub struct DirectionStream {
    upload: usize,
    rows: usize,
    entries: usize,
    ends: wgpu::Buffer,
    list: wgpu::Buffer,
    sums: wgpu::Buffer,
    staging: wgpu::Buffer,
    /// One for each chunk.
    groups: Vec<wgpu::BindGroup>,
    mapped: bool,
    // What is sent.
    sent_ends: Vec<u32>,
    sent_entries: Vec<[u32; 2]>,
    sent_sums: Vec<f32>,
    /// The row of each device row.
    places: Vec<usize>,
    device_bytes: u64,
}

impl Device {
    /// Uploads a model's decoder, for [`Directions::decode`].
    ///
    /// # Errors
    /// [`Error::UnsupportedArchitecture`] for ensembles, [`Error::InvalidArgument`] for a
    /// multi-target coder; [`Error::AdapterLimit`],
    /// [`Error::DeviceMemory`], [`Error::Device`], [`Error::OutOfMemory`].
    pub fn upload_decoder(&self, sae: &Sae<'_>) -> Result<Directions, Error> {
        if !sae.members().is_empty() {
            return Err(Error::UnsupportedArchitecture {
                architecture: "an ensemble's decoders on a GPU: upload those of its members".into(),
            });
        }
        sae.one_vector_each("decoder on a GPU")?;
        let decoder = &sae.parts.decoder;
        let mut directions = self.directions(decoder)?;
        directions.identity = Some(sae.identity);
        Ok(directions)
    }

    /// Uploads vectors, one in each row, for [`Directions::add`]. A copy stays on the host.
    ///
    /// # Errors
    /// As [`Device::upload_decoder`]; [`Error::Shape`] for no vectors.
    pub fn upload_directions(&self, vectors: Rows<'_>) -> Result<Directions, Error> {
        let (count, width) = (vectors.rows(), vectors.width());
        let mut host: Vec<f32> = Vec::new();
        let values = count.saturating_mul(width);
        host.try_reserve_exact(values)
            .map_err(|_| Error::OutOfMemory {
                what: "directions",
                bytes: values.saturating_mul(4) as u64,
            })?;
        host.resize(values, 0.0);
        let kernels = BlockedKernels::for_level(crate::Level::best());
        let ty = match vectors.dtype() {
            crate::Dtype::F16 => WeightType::F16,
            crate::Dtype::BF16 => WeightType::BF16,
            _ => WeightType::F32,
        };
        for (row, out) in host.chunks_exact_mut(width.max(1)).enumerate() {
            kernels.widen(ty, vectors.row_bytes(row), out);
        }
        let bytes = bytemuck::cast_slice(&host).to_vec();
        let matrix = Matrix::from_rows("directions", bytes, WeightType::F32, count, width);
        let mut directions = self.directions(&matrix)?;
        directions.host = host;
        Ok(directions)
    }

    fn directions(&self, matrix: &Matrix<'_>) -> Result<Directions, Error> {
        let (count, width, ty) = (matrix.features(), matrix.width(), matrix.weight_type());
        if count == 0 || width == 0 {
            return Err(Error::Shape {
                tensor: matrix.tensor().into(),
                expected: alloc::vec![1, 1],
                found: alloc::vec![count, width],
            });
        }
        let body = source(ty, WeightFormat::Stored, include_str!("shaders/add.wgsl"));
        let mut directions = Directions {
            device: self.clone(),
            identity: None,
            upload: next_upload(),
            count,
            width,
            quads: width.div_ceil(4),
            chunks: Vec::new(),
            add: self.pipeline("add", body)?,
            largest: Vec::new(),
            host: Vec::new(),
            device_bytes: 0,
        };
        directions.send(matrix)?;
        Ok(directions)
    }
}

impl Directions {
    /// How many vectors there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none; there always are.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Values of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Bytes on the device.
    pub fn device_bytes(&self) -> u64 {
        self.device_bytes
    }

    /// Bytes of a copy on the host.
    pub fn host_bytes(&self) -> u64 {
        (self.host.len() * 4 + self.largest.len() * 4) as u64
    }

    fn send(&mut self, matrix: &Matrix<'_>) -> Result<(), Error> {
        let ty = matrix.weight_type();
        let (row_bytes, held) = (self.width * ty.size(), self.quads * 4 * ty.size());
        let most = (self.device.most_binding_bytes() as usize / held).max(1);
        let storage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let uniform = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let kernels = BlockedKernels::for_level(crate::Level::best());
        let mut line = alloc::vec![0f32; self.width];
        let (mut rows, mut out) = (Vec::new(), Vec::new());
        let mut on_the_way = 0;
        for first in (0..self.count).step_by(most) {
            let count = most.min(self.count - first);
            let bytes = (count * held) as u64;
            let vectors = self.device.buffer("vectors", bytes, storage)?;
            for start in (first..first + count).step_by(PIECE) {
                let piece = PIECE.min(first + count - start);
                rows.clear();
                rows.resize(piece * row_bytes, 0u8);
                matrix.copy_rows(start, &mut rows);
                out.clear();
                out.resize(piece * held, 0u8);
                let each = rows.chunks_exact(row_bytes).zip(out.chunks_exact_mut(held));
                for (row, out) in each {
                    kernels.widen(ty, row, &mut line);
                    let [squares, largest] = kernels.measure(&line);
                    // A vector that is not finite stays zeros there and is the host's.
                    let finite = squares.is_finite();
                    if let (true, Some(out)) = (finite, out.get_mut(..row_bytes)) {
                        out.copy_from_slice(row);
                    }
                    self.largest.push(match finite {
                        true => largest as f32,
                        false => f32::INFINITY,
                    });
                }
                let queue = &self.device.queue;
                queue.write_buffer(&vectors, ((start - first) * held) as u64, &out);
                on_the_way += out.len() as u64;
                if on_the_way > ON_THE_WAY {
                    self.device.flush(on_the_way)?;
                    on_the_way = 0;
                }
            }
            let params = self.device.buffer("parameters", 16, uniform)?;
            let of = Params {
                quads: self.quads as u32,
                first: first as u32,
                vectors: count as u32,
                unused: 0,
            };
            self.device
                .queue
                .write_buffer(&params, 0, bytemuck::bytes_of(&of));
            self.device_bytes += bytes;
            self.chunks.push(Chunk { vectors, params });
        }
        self.device.flush(on_the_way)
    }

    /// Work space for batches of up to so many rows, 512 unless it is said, fewer where the device's
    /// bindings are small.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no rows; [`Error::AdapterLimit`], [`Error::DeviceMemory`],
    /// [`Error::Device`].
    pub fn stream(&self, rows: Option<usize>) -> Result<DirectionStream, Error> {
        if rows == Some(0) {
            return Err(Error::InvalidArgument {
                what: "rows of a batch",
                expected: "1 or more".into(),
                found: "0".into(),
            });
        }
        let device = &self.device;
        let most = device.most_binding_bytes() as usize;
        let groups = device.device.limits().max_compute_workgroups_per_dimension as usize;
        let row_bytes = self.quads * 16;
        let rows = rows
            .unwrap_or(ROWS)
            .min(most / row_bytes)
            .min(groups)
            .max(1);
        let entries = ENTRIES.min(most / 8);
        let read = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let mut device_bytes = 0;
        let mut buffer = |what, bytes: usize, usage| {
            device_bytes += bytes as u64;
            device.buffer(what, bytes as u64, usage)
        };
        let ends = buffer("ends of rows", (rows + 1) * 4, read)?;
        let list = buffer("entries", entries * 8, read)?;
        let copied = read | wgpu::BufferUsages::COPY_SRC;
        let sums = buffer("sums", rows * row_bytes, copied)?;
        let staging = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = buffer("sums to fetch", rows * row_bytes, staging)?;
        let of = |chunk: &Chunk| {
            let bound = [&chunk.vectors, &ends, &list, &sums, &chunk.params];
            bind(device, &self.add, &bound)
        };
        let groups = self.chunks.iter().map(of).collect();
        device.check("work space", device_bytes)?;
        Ok(DirectionStream {
            upload: self.upload,
            rows,
            entries,
            groups,
            ends,
            list,
            sums,
            staging,
            mapped: false,
            sent_ends: Vec::new(),
            sent_entries: Vec::new(),
            sent_sums: Vec::new(),
            places: Vec::new(),
            device_bytes,
        })
    }

    /// Adds to every row its entries of `amounts`: indices of vectors, with what each is multiplied
    /// by; blocks. Rows without entries, rows that are not finite or would not be, and rows whose
    /// status is not [`RowStatus::Ok`] keep their bits; so does every value that does not change.
    ///
    /// # Errors
    /// [`Error::Length`] if rows and amounts do not fit, [`Error::FeatureOutOfRange`] for an index
    /// that there is no vector of, [`Error::InvalidArgument`] for a decoder or another's stream;
    /// [`Error::Device`], [`Error::DeviceMemory`]: some rows may then have been added to.
    pub fn add(
        &self,
        amounts: &Features,
        rows: &mut RowsMut<'_>,
        stream: &mut DirectionStream,
    ) -> Result<(), Error> {
        pollster::block_on(self.add_all(amounts, rows, stream, true))
    }

    /// [`Directions::add`] for hosts with an executor; see
    /// [`Model::encode_async`](super::Model::encode_async).
    ///
    /// # Errors
    /// As [`Directions::add`].
    pub async fn add_async(
        &self,
        amounts: &Features,
        rows: &mut RowsMut<'_>,
        stream: &mut DirectionStream,
    ) -> Result<(), Error> {
        self.add_all(amounts, rows, stream, false).await
    }

    async fn add_all(
        &self,
        amounts: &Features,
        rows: &mut RowsMut<'_>,
        stream: &mut DirectionStream,
        block: bool,
    ) -> Result<(), Error> {
        check_width(rows.as_rows()?, self.width)?;
        self.check(amounts, rows.rows().saturating_mul(self.width), stream)?;
        if self.identity.is_some() {
            return Err(Error::InvalidArgument {
                what: "directions",
                expected: "those of `upload_directions`".into(),
                found: "a decoder".into(),
            });
        }
        let kernels = Kernels::best();
        let mut old = zeros(self.width)?;
        let mut new = zeros(self.width)?;
        let mut narrow: Vec<f32> = Vec::new();
        let unscaled = |_, value: f32| f64::from(value);
        let mut next = 0;
        while next < amounts.rows() {
            stream.begin();
            while let Some(of) = amounts.row(next) {
                let finite = load_row(kernels, rows.as_rows()?, next, &mut old);
                if of.status != RowStatus::Ok || of.indices.is_empty() || !finite {
                    next += 1;
                    continue;
                }
                let largest = old.iter().fold(0f64, |a, v| a.max(v.abs()));
                if !self.fits(of, largest, unscaled) || of.indices.len() > stream.entries {
                    self.add_on_host(of, &old, &mut new);
                    rows.store(next, &old, &new);
                    next += 1;
                    continue;
                }
                // Rows hold no wider values.
                narrow.clear();
                narrow.extend(old.iter().map(|&value| value as f32));
                if !stream.push(next, of, &narrow, self.quads * 4, unscaled)? {
                    break;
                }
                next += 1;
            }
            let place = |place: usize, sums: &[f32]| {
                if let Ok(read) = rows.as_rows() {
                    load_row(kernels, read, place, &mut old);
                }
                for (new, &sum) in new.iter_mut().zip(sums) {
                    *new = f64::from(sum);
                }
                rows.store(place, &old, &new);
            };
            self.run(stream, block, place).await?;
        }
        Ok(())
    }

    fn check(&self, of: &Features, values: usize, stream: &DirectionStream) -> Result<(), Error> {
        if stream.upload != self.upload {
            return Err(Error::InvalidArgument {
                what: "stream",
                expected: "that of these directions".into(),
                found: "another".into(),
            });
        }
        let expected = of.rows().saturating_mul(self.width);
        if values != expected {
            return Err(Error::Length {
                what: "values of rows",
                expected: expected as u64,
                found: values as u64,
            });
        }
        match of.indices().iter().find(|&&i| i as usize >= self.count) {
            None => Ok(()),
            Some(&feature) => Err(Error::FeatureOutOfRange {
                feature: feature.into(),
                d_sae: self.count as u64,
            }),
        }
    }

    /// Whether the sums of a row cannot overflow.
    fn fits(&self, of: FeaturesRow<'_>, largest: f64, amount: impl Fn(u32, f32) -> f64) -> bool {
        let pairs = of.indices.iter().zip(of.values);
        let sum = pairs.fold(largest, |sum, (&index, &value)| {
            let largest = self.largest.get(index as usize).copied();
            let amount = amount(index, value).abs();
            // Amounts go to the device as f32.
            let room = if amount < MOST { 0.0 } else { f64::INFINITY };
            sum + amount * f64::from(largest.unwrap_or(f32::INFINITY)) + room
        });
        // A NaN does not fit either.
        sum < MOST
    }

    /// In f64.
    fn add_on_host(&self, of: FeaturesRow<'_>, old: &[f64], new: &mut [f64]) {
        for (j, (old, new)) in old.iter().zip(new).enumerate() {
            let pairs = of.indices.iter().zip(of.values);
            *new = pairs.fold(*old, |sum, (&index, &amount)| {
                let at = index as usize * self.width + j;
                sum + f64::from(amount) * f64::from(self.host.get(at).copied().unwrap_or(0.0))
            });
        }
    }

    /// Sends what was collected, and hands on the sums of each row.
    async fn run(
        &self,
        stream: &mut DirectionStream,
        block: bool,
        mut place: impl FnMut(usize, &[f32]),
    ) -> Result<(), Error> {
        let rows = stream.places.len();
        if rows == 0 {
            return Ok(());
        }
        let before = self.device.faults();
        let (device, queue) = (&self.device.device, &self.device.queue);
        queue.write_buffer(&stream.ends, 0, bytemuck::cast_slice(&stream.sent_ends));
        queue.write_buffer(&stream.list, 0, bytemuck::cast_slice(&stream.sent_entries));
        queue.write_buffer(&stream.sums, 0, bytemuck::cast_slice(&stream.sent_sums));
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&self.add);
            for group in &stream.groups {
                pass.set_bind_group(0, group, &[]);
                pass.dispatch_workgroups(self.quads.div_ceil(64) as u32, rows as u32, 1);
            }
        }
        let bytes = (rows * self.quads * 16) as u64;
        encoder.copy_buffer_to_buffer(&stream.sums, 0, &stream.staging, 0, bytes);
        queue.submit([encoder.finish()]);
        let slice = stream.staging.slice(0..bytes);
        let mapping = Mapping::of(&slice);
        stream.mapped = true;
        self.device
            .check_since(before, "a batch", stream.device_bytes)?;
        self.device.mapped(&mapping, block).await?;
        let mut sums = alloc::vec![0f32; self.quads * 4];
        {
            let failed = |error: wgpu::MapRangeError| self.device.mapping_failed(error.to_string());
            let view = slice.get_mapped_range().map_err(failed)?;
            for (row, &at) in view.chunks_exact(self.quads * 16).zip(&stream.places) {
                for (sum, word) in sums.iter_mut().zip(row.chunks_exact(4)) {
                    let word: [u8; 4] = word.try_into().unwrap_or_default();
                    *sum = f32::from_le_bytes(word);
                }
                place(at, &sums);
            }
        }
        stream.staging.unmap();
        stream.mapped = false;
        self.device.check("a batch", stream.device_bytes)
    }
}

impl DirectionStream {
    /// Rows that go to the device at once.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes on the device, besides those of the vectors.
    pub fn device_bytes(&self) -> u64 {
        self.device_bytes
    }

    fn begin(&mut self) {
        if core::mem::take(&mut self.mapped) {
            self.staging.unmap();
        }
        self.sent_ends.clear();
        self.sent_entries.clear();
        self.sent_sums.clear();
        self.places.clear();
        self.sent_ends.push(0);
    }

    /// Adds a row, or says that it has no room.
    fn push(
        &mut self,
        row: usize,
        of: FeaturesRow<'_>,
        start: &[f32],
        width: usize,
        amount: impl Fn(u32, f32) -> f64,
    ) -> Result<bool, Error> {
        let entries = self.sent_entries.len() + of.indices.len();
        if self.places.len() == self.rows || entries > self.entries {
            return Ok(false);
        }
        let memory = |bytes: usize| {
            move |_| Error::OutOfMemory {
                what: "rows of a batch",
                bytes: bytes as u64,
            }
        };
        self.sent_entries
            .try_reserve(of.indices.len())
            .map_err(memory(of.indices.len() * 8))?;
        self.sent_sums
            .try_reserve(width)
            .map_err(memory(width * 4))?;
        self.places.try_reserve(1).map_err(memory(8))?;
        self.sent_ends.try_reserve(1).map_err(memory(4))?;
        for (&index, &value) in of.indices.iter().zip(of.values) {
            self.sent_entries
                .push([index, (amount(index, value) as f32).to_bits()]);
        }
        self.sent_ends.push(self.sent_entries.len() as u32);
        let end = self.sent_sums.len() + width;
        self.sent_sums.extend_from_slice(start);
        self.sent_sums.resize(end, 0.0);
        self.places.push(row);
        Ok(true)
    }
}

fn zeros(count: usize) -> Result<Vec<f64>, Error> {
    let mut values = Vec::new();
    values
        .try_reserve_exact(count)
        .map_err(|_| Error::OutOfMemory {
            what: "a row",
            bytes: count.saturating_mul(8) as u64,
        })?;
    values.resize(count, 0.0);
    Ok(values)
}
