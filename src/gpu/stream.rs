//! Batches through a device, and what the host makes of what comes back.

mod batch;

use super::bounds;
use super::candidates::{Candidates, reserve, select};
use super::device::{Device, Mapping};
use super::model::Model;
use crate::encode::check_width;
use crate::error::Error;
use crate::features::{Features, RowStatus};
use crate::kernels::blocked::BlockedKernels;
use crate::model::Sae;
use crate::rows::Rows;
use crate::scratch::Scratch;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::ops::Range;

/// Batches that are in flight at once: the device works on one while the host finishes another.
const SLOTS: usize = 2;

/// Rows of a batch, where the caller does not say.
const ROWS: usize = 512;

// Flags of the shaders (common.wgsl).
const MAGNITUDE: u32 = 1;
const RANKED: u32 = 2;
const FAST: u32 = 4;

/// Whether the host computes what the device found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// The features and values of [`Sae::encode`], bit for bit: the device says which features the
    /// host has to compute.
    #[default]
    Exact,
    /// The device's own estimates: no weight is read on the host. Values differ from the exact ones by
    /// up to the bounds of the [module](super), and features near a threshold, or near the k-th
    /// rank, may differ.
    Fast,
}

/// How a [`Stream`] is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamOptions {
    mode: Mode,
    rows: Option<usize>,
    candidates: Option<usize>,
}

impl StreamOptions {
    /// Whether the host computes what the device found.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Rows that go to the device at once, 512 unless the device's bindings are too small for that.
    #[must_use]
    pub fn rows(mut self, rows: usize) -> Self {
        self.rows = Some(rows);
        self
    }

    /// Features of all rows of a batch, together, that the device may ask the host to look at. Rows
    /// beyond it are encoded by the host alone: only the time changes.
    #[must_use]
    pub fn candidates(mut self, candidates: usize) -> Self {
        self.candidates = Some(candidates);
        self
    }
}

/// What a dispatch is about (common.wgsl).
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Params {
    quads: u32,
    rows: u32,
    d_sae: u32,
    first: u32,
    features: u32,
    flags: u32,
    k: u32,
    capacity: u32,
}

/// The work space of one stream of batches: buffers on the device and memory on the host. One thread
/// at a time uses it; several streams can share a [`Model`].
#[derive(Debug)]
pub struct Stream {
    upload: usize,
    mode: Mode,
    /// Rows of a batch.
    rows: usize,
    /// Entries of a list.
    capacity: usize,
    inputs: wgpu::Buffer,
    spreads: wgpu::Buffer,
    /// One for each chunk of weights.
    params: Vec<wgpu::Buffer>,
    encode: Vec<wgpu::BindGroup>,
    rank: Option<wgpu::BindGroup>,
    ends: wgpu::Buffer,
    slots: [Slot; SLOTS],
    /// Entries that are fetched before it is known how many there are.
    fetched: usize,
    /// Rows less the centre, on their way.
    sent: Vec<f32>,
    sent_spreads: Vec<f32>,
    work: Candidates,
    counts: Counts,
    device_bytes: u64,
}

/// What the host did of an encode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Features that the device asked it to compute, of all rows together; with [`Mode::Fast`] those
    /// that were taken over.
    pub candidates: u64,
    /// Rows that it encoded alone: with huge values, or with more candidates than there was room for.
    pub host_rows: u64,
}

/// What a batch in flight has of its own.
#[derive(Debug)]
struct Slot {
    list: wgpu::Buffer,
    compact: wgpu::BindGroup,
    staging: wgpu::Buffer,
    mapping: Option<Mapping>,
    /// Entries that come with it.
    fetched: usize,
    /// Rows in flight.
    rows: Vec<Sent>,
    /// Rows of them on the device.
    on_device: usize,
    /// The prepared rows, `[rows, d_in]`.
    inputs: Vec<f32>,
}

/// What became of a row.
#[derive(Clone, Copy, Debug)]
enum Sent {
    /// It is not finite.
    NonFinite,
    /// The host encodes it.
    Host,
    /// It is the device's row of this number.
    Device(u32),
}

impl Model {
    /// Work space for batches.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no rows or no candidates; [`Error::AdapterLimit`] if not even
    /// one row fits a binding, [`Error::DeviceMemory`], [`Error::Device`].
    pub fn stream(&self, options: &StreamOptions) -> Result<Stream, Error> {
        for (what, given) in [
            ("rows of a batch", options.rows),
            ("candidates", options.candidates),
        ] {
            if given == Some(0) {
                return Err(Error::InvalidArgument {
                    what,
                    expected: "1 or more".into(),
                    found: "0".into(),
                });
            }
        }
        let device = &self.device;
        let most = device.most_binding_bytes() as usize;
        let groups = device.device.limits().max_compute_workgroups_per_dimension as usize;
        let wanted = options.rows.unwrap_or(ROWS);
        let fits = (most / (4 * self.d_sae)).min(most / (16 * self.quads));
        let rows = wanted.min(fits).min(groups).clamp(1, 1 << 20);
        let words = match options.mode {
            Mode::Exact => 1,
            Mode::Fast => 2,
        };
        let all = rows.saturating_mul(self.d_sae);
        let share = match self.ranked {
            Some((k, _)) => (4 * k).max(self.d_sae / 32),
            None => self.d_sae / 4,
        };
        let wanted = options
            .candidates
            .unwrap_or(rows.saturating_mul(share.max(256)));
        let capacity = wanted.min(all).min(most / (4 * words)).min(1 << 26);

        let storage = wgpu::BufferUsages::STORAGE;
        let copied = storage | wgpu::BufferUsages::COPY_DST;
        let read = storage | wgpu::BufferUsages::COPY_SRC;
        let dense = (all * 4) as u64;
        let mut device_bytes = 0;
        let mut buffer = |what, bytes: u64, usage| {
            device_bytes += bytes;
            device.buffer(what, bytes, usage)
        };
        let inputs = buffer("rows", (rows * self.quads * 16) as u64, copied)?;
        let spreads = buffer("spreads of rows", (rows * 4) as u64, copied)?;
        let upper = buffer("upper bounds", dense, storage)?;
        let has_lower = self.ranked.is_some() || options.mode == Mode::Fast;
        let lower = buffer("lower bounds", if has_lower { dense } else { 4 }, storage)?;
        let floors = buffer("floors of rows", (rows * 4) as u64, storage)?;
        let ends_bytes = ends_bytes(rows);
        let ends = buffer(
            "ends of rows",
            ends_bytes,
            read | wgpu::BufferUsages::COPY_DST,
        )?;
        let list_bytes = (capacity * words * 4) as u64;
        let uniform = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let mut params = Vec::new();
        let mut encode = Vec::new();
        for chunk in &self.chunks {
            let of = buffer("parameters", size_of::<Params>() as u64, uniform)?;
            encode.push(bind(
                device,
                &self.encode,
                &[
                    &chunk.weights,
                    &inputs,
                    &self.numbers,
                    &spreads,
                    &self.limits,
                    &upper,
                    &lower,
                    &of,
                ],
            ));
            params.push(of);
        }
        let first = params.first().ok_or_else(|| Error::Shape {
            tensor: "encoder".into(),
            expected: alloc::vec![1, 1],
            found: alloc::vec![0, self.d_in],
        })?;
        let keys = match options.mode {
            Mode::Exact => &lower,
            Mode::Fast => &upper,
        };
        let rank = self
            .ranked
            .map(|_| bind(device, &self.rank, &[keys, &floors, first]));
        let mut slot = || -> Result<Slot, Error> {
            let list = buffer("candidates", list_bytes, read)?;
            let staging = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
            let staging = buffer("candidates to fetch", ends_bytes + list_bytes, staging)?;
            let bound: [&wgpu::Buffer; 7] =
                [&upper, &lower, &self.limits, &floors, &ends, &list, first];
            Ok(Slot {
                compact: bind(device, &self.compact, &bound),
                list,
                staging,
                mapping: None,
                fetched: 0,
                rows: Vec::new(),
                on_device: 0,
                inputs: Vec::new(),
            })
        };
        let slots = [slot()?, slot()?];
        device.check("work space", device_bytes)?;
        Ok(Stream {
            upload: self.upload,
            mode: options.mode,
            rows,
            capacity,
            inputs,
            spreads,
            params,
            encode,
            rank,
            ends,
            slots,
            fetched: capacity.min(rows * 64),
            sent: Vec::new(),
            sent_spreads: Vec::new(),
            work: Candidates::default(),
            counts: Counts::default(),
            device_bytes,
        })
    }

    /// Encodes every row; blocks. The content of `features` is replaced. With [`Mode::Exact`] it has
    /// the bits of [`Sae::encode`].
    ///
    /// # Errors
    /// As [`Sae::encode`]; [`Error::InvalidArgument`] for a model or a stream of another upload;
    /// [`Error::Device`], [`Error::DeviceMemory`]. `features` is empty then, and `Sae::encode` goes
    /// on.
    pub fn encode(
        &self,
        sae: &Sae<'_>,
        rows: Rows<'_>,
        stream: &mut Stream,
        scratch: &mut Scratch<'_>,
        features: &mut Features,
    ) -> Result<(), Error> {
        pollster::block_on(self.encode_all(sae, rows, stream, scratch, features, true))
    }

    /// [`Model::encode`] for hosts with an executor. While the device works it is asked each time
    /// that the future is polled, and the future asks to be polled again: it never blocks, but needs
    /// an executor that runs other tasks meanwhile. Dropping it is fine.
    ///
    /// # Errors
    /// As [`Model::encode`].
    pub async fn encode_async(
        &self,
        sae: &Sae<'_>,
        rows: Rows<'_>,
        stream: &mut Stream,
        scratch: &mut Scratch<'_>,
        features: &mut Features,
    ) -> Result<(), Error> {
        self.encode_all(sae, rows, stream, scratch, features, false)
            .await
    }

    /// Sends one batch to the device and returns at once: up to [`Stream::rows`] rows, to be taken
    /// by [`Model::finish`]. A batch that was started before and not finished is given up.
    ///
    /// # Errors
    /// As [`Model::encode`]; [`Error::Length`] for more rows.
    pub fn start(
        &self,
        sae: &Sae<'_>,
        rows: Rows<'_>,
        stream: &mut Stream,
        scratch: &mut Scratch<'_>,
    ) -> Result<(), Error> {
        self.check(sae, stream)?;
        check_width(rows, self.d_in)?;
        if rows.rows() > stream.rows {
            return Err(Error::Length {
                what: "rows of a batch",
                expected: stream.rows as u64,
                found: rows.rows() as u64,
            });
        }
        stream.give_up();
        stream.counts = Counts::default();
        self.send(sae, rows, 0..rows.rows(), stream, 0, scratch)
    }

    /// Whether the batch that was started can be finished without waiting.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if none was started; [`Error::Device`].
    pub fn is_ready(&self, stream: &Stream) -> Result<bool, Error> {
        self.check_stream(stream)?;
        match stream.slots[0].mapping.as_ref() {
            Some(mapping) => self.device.is_mapped(mapping),
            None => Err(not_started()),
        }
    }

    /// Takes the batch that was started; waits for it if need be. The content of `features` is
    /// replaced.
    ///
    /// # Errors
    /// As [`Model::encode`]; [`Error::InvalidArgument`] if none was started.
    pub fn finish(
        &self,
        sae: &Sae<'_>,
        stream: &mut Stream,
        scratch: &mut Scratch<'_>,
        features: &mut Features,
    ) -> Result<(), Error> {
        features.clear();
        self.check(sae, stream)?;
        if stream.slots[0].mapping.is_none() {
            return Err(not_started());
        }
        let result = pollster::block_on(self.take(sae, stream, 0, scratch, features, true));
        if result.is_err() {
            features.clear();
        }
        stream.give_up();
        result
    }

    fn check(&self, sae: &Sae<'_>, stream: &Stream) -> Result<(), Error> {
        match sae.identity == self.identity {
            true => self.check_stream(stream),
            false => Err(of_another_upload("model")),
        }
    }

    fn check_stream(&self, stream: &Stream) -> Result<(), Error> {
        match stream.upload == self.upload {
            true => Ok(()),
            false => Err(of_another_upload("stream")),
        }
    }

    async fn encode_all(
        &self,
        sae: &Sae<'_>,
        rows: Rows<'_>,
        stream: &mut Stream,
        scratch: &mut Scratch<'_>,
        features: &mut Features,
        block: bool,
    ) -> Result<(), Error> {
        features.clear();
        self.check(sae, stream)?;
        check_width(rows, self.d_in)?;
        stream.give_up();
        stream.counts = Counts::default();
        let result = self
            .encode_batches(sae, rows, stream, scratch, features, block)
            .await;
        if result.is_err() {
            features.clear();
        }
        stream.give_up();
        result
    }

    async fn encode_batches(
        &self,
        sae: &Sae<'_>,
        rows: Rows<'_>,
        stream: &mut Stream,
        scratch: &mut Scratch<'_>,
        features: &mut Features,
        block: bool,
    ) -> Result<(), Error> {
        let batches = rows.rows().div_ceil(stream.rows);
        for batch in 0..=batches {
            if batch < batches {
                let first = batch * stream.rows;
                let range = first..rows.rows().min(first + stream.rows);
                self.send(sae, rows, range, stream, batch % SLOTS, scratch)?;
            }
            if let Some(before) = batch.checked_sub(1) {
                self.take(sae, stream, before % SLOTS, scratch, features, block)
                    .await?;
            }
        }
        Ok(())
    }
}

impl Mode {
    /// Words of an entry.
    fn words(self) -> usize {
        match self {
            Mode::Exact => 1,
            Mode::Fast => 2,
        }
    }
}

impl Stream {
    /// Rows that go to the device at once.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What it does with what the device finds.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What the host did of the last encode.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes on the device, besides the model's.
    pub fn device_bytes(&self) -> u64 {
        self.device_bytes
    }

    /// Leaves what is in flight.
    fn give_up(&mut self) {
        for slot in &mut self.slots {
            if slot.mapping.take().is_some() {
                slot.staging.unmap();
            }
        }
    }
}

fn of_another_upload(what: &'static str) -> Error {
    Error::InvalidArgument {
        what,
        expected: "that of this upload".into(),
        found: "another".into(),
    }
}

fn not_started() -> Error {
    Error::InvalidArgument {
        what: "stream",
        expected: "one with a batch that was started".into(),
        found: "one without".into(),
    }
}

/// Bytes of the ends of so many rows.
fn ends_bytes(rows: usize) -> u64 {
    (8 + 8 * rows) as u64
}

/// A bind group of whole buffers, numbered as they come.
pub(super) fn bind(
    device: &Device,
    pipeline: &wgpu::ComputePipeline,
    buffers: &[&wgpu::Buffer],
) -> wgpu::BindGroup {
    let entries: Vec<wgpu::BindGroupEntry<'_>> = buffers
        .iter()
        .zip(0..)
        .map(|(buffer, binding)| wgpu::BindGroupEntry {
            binding,
            resource: buffer.as_entire_binding(),
        })
        .collect();
    device.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries,
    })
}
