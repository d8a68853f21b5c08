//! Adapters and devices: which one, what it can do, and what went wrong with it.

use crate::error::{DeviceFailure, Error};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use core::task::{Context, Poll, Waker};
use std::sync::{Mutex, PoisonError};

/// Which kind of adapter is preferred where several are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Power {
    /// The fastest: discrete GPUs first, then integrated ones.
    #[default]
    High,
    /// The most frugal: integrated GPUs first.
    Low,
}

/// Which adapter a [`Device`] is opened on, and how much of it may be used.
#[derive(Clone, Debug, Default)]
pub struct DeviceOptions {
    name: Option<String>,
    power: Power,
    software: bool,
    most_binding_bytes: Option<u64>,
}

impl DeviceOptions {
    /// Only adapters whose name holds this text, in any case. The environment is not read.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Which kind comes first.
    #[must_use]
    pub fn power(mut self, power: Power) -> Self {
        self.power = power;
        self
    }

    /// Whether a renderer that runs on the CPU (lavapipe, WARP) is taken if there is nothing else, or
    /// if the name asks for it. It is slower than the library's own kernels, and good for tests.
    #[must_use]
    pub fn software(mut self, allowed: bool) -> Self {
        self.software = allowed;
        self
    }

    /// The most bytes that one binding has, below what the adapter allows: weights and work space are
    /// cut into pieces of this size.
    #[must_use]
    pub fn most_binding_bytes(mut self, bytes: u64) -> Self {
        self.most_binding_bytes = Some(bytes);
        self
    }
}

/// An adapter, as [`adapters`] lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdapterInfo {
    /// Its name.
    pub name: String,
    /// `vulkan`, `metal`, `dx12`.
    pub backend: String,
    /// `discrete`, `integrated`, `virtual`, `software`, `other`.
    pub kind: &'static str,
    /// The driver, with its version.
    pub driver: String,
    /// The most bytes of one binding.
    pub most_binding_bytes: u64,
}

impl AdapterInfo {
    fn of(adapter: &wgpu::Adapter) -> Self {
        let info = adapter.get_info();
        AdapterInfo {
            backend: info.backend.to_string(),
            kind: match info.device_type {
                wgpu::DeviceType::DiscreteGpu => "discrete",
                wgpu::DeviceType::IntegratedGpu => "integrated",
                wgpu::DeviceType::VirtualGpu => "virtual",
                wgpu::DeviceType::Cpu => "software",
                wgpu::DeviceType::Other => "other",
            },
            driver: format!("{} {}", info.driver, info.driver_info)
                .trim()
                .into(),
            most_binding_bytes: adapter.limits().max_storage_buffer_binding_size,
            name: info.name,
        }
    }
}

/// The adapters of this machine.
pub async fn adapters_async() -> Vec<AdapterInfo> {
    let Some(instance) = instance() else {
        return Vec::new();
    };
    let found = instance.enumerate_adapters(wgpu::Backends::all()).await;
    found.iter().map(AdapterInfo::of).collect()
}

/// The adapters of this machine; blocks.
pub fn adapters() -> Vec<AdapterInfo> {
    pollster::block_on(adapters_async())
}

/// An entry to the drivers, if this build has one for this system.
fn instance() -> Option<wgpu::Instance> {
    if wgpu::Instance::enabled_backend_features().is_empty() {
        return None;
    }
    let descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    Some(wgpu::Instance::new(descriptor))
}

/// A number for what was uploaded, which tells its streams from those of all else.
pub(super) fn next_upload() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What went wrong on a device since it was last asked.
#[derive(Debug, Default)]
struct Faults {
    lost: Mutex<Option<String>>,
    last: Mutex<Option<wgpu::Error>>,
    /// How many there were: another thread may have taken the last one.
    count: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is guarded is replaced whole: nothing half-written is seen after a panic of the holder.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An open device. Clones share it; it can be used from several threads.
///
/// Every failure of the device is an error that names its adapter. A model and its CPU verbs are
/// never part of a device: they go on after any of these errors.
#[derive(Clone, Debug)]
pub struct Device {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    info: Arc<AdapterInfo>,
    faults: Arc<Faults>,
}

impl Device {
    /// Opens a device; blocks.
    ///
    /// # Errors
    /// [`Error::NoAdapter`], [`Error::AdapterLimit`], [`Error::AdapterFeature`], [`Error::Device`].
    pub fn open(options: &DeviceOptions) -> Result<Self, Error> {
        pollster::block_on(Self::open_async(options))
    }

    /// Opens a device.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub async fn open_async(options: &DeviceOptions) -> Result<Self, Error> {
        let asked = || match &options.name {
            Some(name) => format!("`{name}`"),
            None if options.software => "any".into(),
            None => "any that is not a CPU".into(),
        };
        let Some(instance) = instance() else {
            return Err(Error::NoAdapter {
                asked: asked(),
                found: "no backend for this system".into(),
            });
        };
        let all = instance.enumerate_adapters(wgpu::Backends::all()).await;
        let mut found: Vec<(u32, wgpu::Adapter)> = Vec::new();
        let mut names = Vec::new();
        for adapter in all {
            let info = AdapterInfo::of(&adapter);
            names.push(format!("{} ({}, {})", info.name, info.backend, info.kind));
            if let Some(order) = order(options, &info) {
                found.push((order, adapter));
            }
        }
        // The sort is stable: among equals the driver's own order decides.
        found.sort_by_key(|(order, _)| *order);
        let Some((_, adapter)) = found.into_iter().next() else {
            return Err(Error::NoAdapter {
                asked: asked(),
                found: match names.is_empty() {
                    true => "none".into(),
                    false => names.join("; "),
                },
            });
        };
        Self::on(&adapter, options).await
    }

    async fn on(adapter: &wgpu::Adapter, options: &DeviceOptions) -> Result<Self, Error> {
        let info = AdapterInfo::of(adapter);
        let capabilities = adapter.get_downlevel_capabilities();
        if !capabilities
            .flags
            .contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
        {
            return Err(Error::AdapterFeature {
                adapter: info.name,
                feature: "compute shaders",
            });
        }
        let limits = needed(&info.name, &adapter.limits(), options.most_binding_bytes)?;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("sae"),
            required_limits: limits,
            ..wgpu::DeviceDescriptor::default()
        };
        let failed = |message: String| Error::Device {
            adapter: info.name.clone(),
            failure: DeviceFailure::Open,
            message,
        };
        let opened = adapter.request_device(&descriptor).await;
        let (device, queue) = opened.map_err(|error| failed(error.to_string()))?;
        let faults = Arc::new(Faults::default());
        let to = Arc::clone(&faults);
        device.on_uncaptured_error(Arc::new(move |error| {
            to.count.fetch_add(1, Ordering::Release);
            lock(&to.last).get_or_insert(error);
        }));
        let to = Arc::clone(&faults);
        device.set_device_lost_callback(move |reason, message| {
            let message = match message.is_empty() {
                true => format!("{reason:?}"),
                false => message,
            };
            lock(&to.lost).get_or_insert(message);
        });
        Ok(Device {
            device,
            queue,
            info: Arc::new(info),
            faults,
        })
    }

    /// The adapter that it was opened on.
    pub fn adapter(&self) -> &AdapterInfo {
        &self.info
    }

    /// The most bytes of one binding.
    pub fn most_binding_bytes(&self) -> u64 {
        let limits = self.device.limits();
        limits
            .max_storage_buffer_binding_size
            .min(limits.max_buffer_size)
    }

    /// Gives the device up, for all clones and whatever was uploaded: from here on their calls fail
    /// with [`Error::Device`]. The models go on on the CPU.
    pub fn destroy(&self) {
        lock(&self.faults.lost).get_or_insert_with(|| "it was destroyed".into());
        self.device.destroy();
    }

    /// How many calls failed so far, on any thread.
    pub(super) fn faults(&self) -> u64 {
        self.faults.count.load(Ordering::Acquire)
    }

    /// [`Self::check`], and an error if any call failed since there were so many faults: what was asked
    /// for in between may not have been done, also where another thread took the reason.
    pub(super) fn check_since(
        &self,
        before: u64,
        what: &'static str,
        bytes: u64,
    ) -> Result<(), Error> {
        self.check(what, bytes)?;
        match self.faults() == before {
            true => Ok(()),
            false => Err(self.failed(
                DeviceFailure::Call,
                format!("{what}: a call on this device failed meanwhile"),
            )),
        }
    }

    pub(super) fn failed(&self, failure: DeviceFailure, message: impl Into<String>) -> Error {
        Error::Device {
            adapter: self.info.name.clone(),
            failure,
            message: message.into(),
        }
    }

    /// A buffer could not be mapped; why, if that is known.
    pub(super) fn mapping_failed(&self, message: impl Into<String>) -> Error {
        let known = self.check("mapping a buffer", 0);
        known
            .err()
            .unwrap_or_else(|| self.failed(DeviceFailure::Mapping, message))
    }

    /// Whether the device has failed since this was last asked, while it was doing `what`.
    pub(super) fn check(&self, what: &'static str, bytes: u64) -> Result<(), Error> {
        if let Some(message) = &*lock(&self.faults.lost) {
            return Err(self.failed(DeviceFailure::Lost, message.clone()));
        }
        match lock(&self.faults.last).take() {
            None => Ok(()),
            Some(wgpu::Error::OutOfMemory { .. }) => Err(Error::DeviceMemory {
                adapter: self.info.name.clone(),
                what,
                bytes,
            }),
            Some(error) => Err(self.failed(DeviceFailure::Call, format!("{what}: {error}"))),
        }
    }

    /// A buffer of so many bytes.
    pub(super) fn buffer(
        &self,
        what: &'static str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer, Error> {
        let limits = self.device.limits();
        let (limit, most) = match usage.contains(wgpu::BufferUsages::STORAGE) {
            true => ("bytes of one binding", self.most_binding_bytes()),
            false => ("bytes of one buffer", limits.max_buffer_size),
        };
        if bytes > most {
            return Err(Error::AdapterLimit {
                adapter: self.info.name.clone(),
                limit,
                needed: bytes,
                found: most,
            });
        }
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            // A binding has at least one element; the largest is a group of four.
            size: bytes.next_multiple_of(16).max(16),
            usage,
            mapped_at_creation: false,
        });
        self.check(what, bytes)?;
        Ok(buffer)
    }

    /// A compute pipeline from WGSL.
    pub(super) fn pipeline(
        &self,
        name: &'static str,
        source: String,
    ) -> Result<wgpu::ComputePipeline, Error> {
        let module = self
            .device
            .create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(name),
                source: wgpu::ShaderSource::Wgsl(source.into()),
            });
        let pipeline = self
            .device
            .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(name),
                layout: None,
                module: &module,
                entry_point: Some(name),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Every kernel writes before it reads.
                    zero_initialize_workgroup_memory: false,
                    ..wgpu::PipelineCompilationOptions::default()
                },
                cache: None,
            });
        match self.check(name, 0) {
            Err(Error::Device {
                adapter,
                failure: DeviceFailure::Call,
                message,
            }) => Err(Error::Device {
                adapter,
                failure: DeviceFailure::Shader,
                message,
            }),
            checked => checked.map(|()| pipeline),
        }
    }

    /// Waits until what was written has arrived.
    pub(super) fn flush(&self, bytes: u64) -> Result<(), Error> {
        self.queue.submit([]);
        let polled = self.device.poll(wgpu::PollType::wait_indefinitely());
        self.check("weights", bytes)?;
        polled
            .map(|_| ())
            .map_err(|error| self.failed(DeviceFailure::Call, error.to_string()))
    }

    /// Waits until a mapping is there. With `block` this thread waits for the device; without, it is
    /// asked again each time that the future is polled.
    pub(super) async fn mapped(&self, mapping: &Mapping, block: bool) -> Result<(), Error> {
        if block {
            let waited = self.device.poll(wgpu::PollType::wait_indefinitely());
            waited.map_err(|error| self.failed(DeviceFailure::Call, error.to_string()))?;
        }
        MappingReady {
            device: self,
            mapping,
        }
        .await
    }

    /// Whether a mapping is there, without waiting.
    pub(super) fn is_mapped(&self, mapping: &Mapping) -> Result<bool, Error> {
        let polled = self.device.poll(wgpu::PollType::Poll);
        polled.map_err(|error| self.failed(DeviceFailure::Call, error.to_string()))?;
        match mapping.state.load(Ordering::Acquire) {
            Mapping::READY => Ok(true),
            Mapping::FAILED => Err(self.mapping_failed("a buffer could not be mapped")),
            _ => {
                self.check("waiting for a buffer", 0)?;
                Ok(false)
            }
        }
    }
}

/// The limits that a device is opened with: what the kernels need, and large bindings.
fn needed(
    name: &str,
    found: &wgpu::Limits,
    most_binding_bytes: Option<u64>,
) -> Result<wgpu::Limits, Error> {
    let least = |limit: &'static str, needed: u64, found: u64| match found < needed {
        true => Err(Error::AdapterLimit {
            adapter: name.into(),
            limit,
            needed,
            found,
        }),
        false => Ok(()),
    };
    const WORKGROUP_BYTES: u32 = 8 << 10;
    const THREADS: u32 = 256;
    const BUFFERS: u32 = 7;
    const LEAST_BINDING_BYTES: u64 = 1 << 16;
    least(
        "storage buffers of a shader",
        BUFFERS.into(),
        found.max_storage_buffers_per_shader_stage.into(),
    )?;
    least(
        "bytes of workgroup memory",
        WORKGROUP_BYTES.into(),
        found.max_compute_workgroup_storage_size.into(),
    )?;
    least(
        "threads of a workgroup",
        THREADS.into(),
        found.max_compute_invocations_per_workgroup.into(),
    )?;
    let binding = found
        .max_storage_buffer_binding_size
        .min(most_binding_bytes.unwrap_or(u64::MAX));
    // Indices in shaders are 32 bits; bindings are whole groups of four f32.
    let binding = binding.min(1 << 31) & !15;
    least("bytes of one binding", LEAST_BINDING_BYTES, binding)?;
    Ok(wgpu::Limits {
        max_storage_buffers_per_shader_stage: BUFFERS,
        max_compute_workgroup_storage_size: WORKGROUP_BYTES,
        max_compute_invocations_per_workgroup: THREADS,
        max_compute_workgroup_size_x: THREADS,
        max_storage_buffer_binding_size: binding,
        max_buffer_size: found.max_buffer_size,
        max_compute_workgroups_per_dimension: found.max_compute_workgroups_per_dimension,
        min_storage_buffer_offset_alignment: found.min_storage_buffer_offset_alignment,
        min_uniform_buffer_offset_alignment: found.min_uniform_buffer_offset_alignment,
        ..wgpu::Limits::downlevel_defaults()
    }
    .or_worse_values_from(found))
}

/// The place of an adapter in the order of preference, or `None` if it is not to be used.
fn order(options: &DeviceOptions, info: &AdapterInfo) -> Option<u32> {
    if let Some(name) = &options.name {
        let holds = info.name.to_lowercase().contains(&name.to_lowercase());
        return holds.then_some(0);
    }
    let kinds = match options.power {
        Power::High => ["discrete", "virtual", "integrated", "other"],
        Power::Low => ["integrated", "virtual", "discrete", "other"],
    };
    match kinds.iter().position(|&kind| kind == info.kind) {
        Some(at) => Some(at as u32),
        None => options.software.then_some(kinds.len() as u32),
    }
}

/// A buffer that is being mapped.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapping {
    state: Arc<AtomicU32>,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Mapping {
    const READY: u32 = 1;
    const FAILED: u32 = 2;

    /// Asks for the bytes of a slice.
    pub(super) fn of(slice: &wgpu::BufferSlice<'_>) -> Self {
        let mapping = Mapping::default();
        let to = mapping.clone();
        slice.map_async(wgpu::MapMode::Read, move |mapped| {
            let state = match mapped {
                Ok(()) => Self::READY,
                Err(_) => Self::FAILED,
            };
            to.state.store(state, Ordering::Release);
            if let Some(waker) = lock(&to.waker).take() {
                waker.wake();
            }
        });
        mapping
    }
}

struct MappingReady<'d> {
    device: &'d Device,
    mapping: &'d Mapping,
}

impl Future for MappingReady<'_> {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        *lock(&self.mapping.waker) = Some(context.waker().clone());
        match self.device.is_mapped(self.mapping) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => {
                // Native drivers tell nobody when they are done: somebody has to ask.
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(name: &str, kind: &'static str) -> AdapterInfo {
        AdapterInfo {
            name: name.into(),
            backend: "vulkan".into(),
            kind,
            driver: String::new(),
            most_binding_bytes: 1 << 27,
        }
    }

    #[test]
    fn adapters_are_ordered_by_power_and_chosen_by_name() {
        let (big, small) = (adapter("Big", "discrete"), adapter("Small", "integrated"));
        let llvm = adapter("llvmpipe (LLVM 15)", "software");
        let high = DeviceOptions::default();
        assert!(order(&high, &big) < order(&high, &small));
        assert_eq!(order(&high, &llvm), None);
        let low = DeviceOptions::default().power(Power::Low).software(true);
        assert!(order(&low, &small) < order(&low, &big));
        assert!(order(&low, &big) < order(&low, &llvm));
        let named = DeviceOptions::default().name("LLVM");
        assert_eq!(order(&named, &llvm), Some(0));
        assert_eq!(order(&named, &big), None);
    }

    /// A device, or `None` after saying so.
    fn device() -> Option<Device> {
        match Device::open(&DeviceOptions::default().software(true)) {
            Ok(device) => Some(device),
            Err(error) => {
                std::println!("skipped: wgpu ({error})");
                assert!(std::env::var_os("SAE_REQUIRE_TOOLS").is_none(), "{error}");
                None
            }
        }
    }

    #[test]
    fn shaders_that_do_not_compile_are_errors() {
        let Some(device) = device() else { return };
        let good = "@compute @workgroup_size(1) fn it() {}";
        for (name, source, words) in [
            ("it", "fn it( {", "parsing error"),
            (
                "it",
                "@compute @workgroup_size(100000) fn it() {}",
                "is invalid",
            ),
            ("other", good, "other"),
        ] {
            let error = device.pipeline(name, source.into()).unwrap_err();
            let text = error.to_string();
            let start = format!(
                "GPU device `{}`, a shader was not compiled: ",
                device.info.name
            );
            assert!(text.starts_with(&start) && text.contains(words), "{text}");
        }
        // The device goes on.
        device.pipeline("it", good.into()).unwrap();
    }

    #[test]
    fn faults_become_errors_once() {
        let Some(device) = device() else { return };
        let source = || wgpu::ErrorSource::from("the driver's words");
        *lock(&device.faults.last) = Some(wgpu::Error::OutOfMemory { source: source() });
        let error = device.check("weights", 77).unwrap_err();
        let name = &device.info.name;
        let text = format!("GPU device `{name}` is out of memory: 77 bytes for weights");
        assert_eq!(error.to_string(), text);
        assert_eq!(error.code(), crate::Code::OutOfMemory);
        device.check("weights", 77).unwrap();
        *lock(&device.faults.last) = Some(wgpu::Error::Internal {
            source: source(),
            description: "something".into(),
        });
        let error = device.check("a batch", 0).unwrap_err();
        let text = format!("GPU device `{name}`, a call failed: a batch: something");
        assert_eq!(error.to_string(), text);
        // Bytes that no device has.
        let most = device.device.limits().max_buffer_size;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let error = device.buffer("too much", most + 16, usage).unwrap_err();
        assert!(
            matches!(error, Error::AdapterLimit { found, .. } if found == most),
            "{error}"
        );
        // Losing it is for good.
        device.destroy();
        for _ in 0..2 {
            let error = device.check("a batch", 0).unwrap_err();
            let text = format!("GPU device `{name}`, it was lost: it was destroyed");
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn limits_that_are_too_small_are_named() {
        let found = wgpu::Limits::default();
        let limits = needed("it", &found, Some(1 << 20)).unwrap();
        assert_eq!(limits.max_storage_buffer_binding_size, 1 << 20);
        let error = needed("it", &found, Some(100)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("`it`") && text.contains("bytes of one binding"),
            "{text}"
        );
        let poor = wgpu::Limits {
            max_compute_workgroup_storage_size: 1024,
            ..wgpu::Limits::default()
        };
        let text = needed("it", &poor, None).unwrap_err().to_string();
        assert!(
            text.contains("workgroup memory: 8192 are needed, it has 1024"),
            "{text}"
        );
        let poor = wgpu::Limits {
            max_storage_buffers_per_shader_stage: 4,
            ..wgpu::Limits::default()
        };
        assert!(needed("it", &poor, None).is_err());
        let poor = wgpu::Limits {
            max_compute_invocations_per_workgroup: 128,
            ..wgpu::Limits::default()
        };
        assert!(needed("it", &poor, None).is_err());
    }
}
