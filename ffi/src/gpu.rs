//! Encoding on a GPU (feature `wgpu`): `include/sae_gpu.h`, and one file as its header is one.

use crate::boundary::{call, value};
use crate::failure::{Failure, Found};
use crate::features::sae_features;
use crate::handle::{Handle, Kind};
use crate::memory::{
    addresses, apart, load_sized, optional_text, rows as read_rows, slice_mut, store,
};
use crate::model::sae_model;
use crate::scratch::sae_scratch;
use crate::types::*;
use alloc::ffi::CString;
use core::ffi::{c_char, c_int};
use core::mem::offset_of;
use core::ptr::null_mut;
use sae::gpu::{
    DeviceOptions, DirectionStream, Directions, Mode, Model, Power, Stream, StreamOptions,
    UploadOptions, WeightFormat,
};

/// What is preferred among adapters.
#[allow(non_camel_case_types)]
type sae_gpu_power = i32;
/// How weights are held.
#[allow(non_camel_case_types)]
type sae_gpu_format = i32;
/// Whether the host computes what the device found.
#[allow(non_camel_case_types)]
type sae_gpu_mode = i32;

const SAE_GPU_POWER_HIGH: sae_gpu_power = 0;
const SAE_GPU_POWER_LOW: sae_gpu_power = 1;
const SAE_GPU_FORMAT_STORED: sae_gpu_format = 0;
const SAE_GPU_FORMAT_INT8: sae_gpu_format = 1;
const SAE_GPU_MODE_EXACT: sae_gpu_mode = 0;
const SAE_GPU_MODE_FAST: sae_gpu_mode = 1;

/// Which adapter a device is opened on.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_gpu_options {
    struct_size: u32,
    power: sae_gpu_power,
    software: u32,
    reserved: u32,
    most_binding_bytes: u64,
    name: *const c_char,
}

/// Bytes of a pointer.
const P: usize = size_of::<*const c_char>();

/// Its size in the first version of the header.
const GPU_OPTIONS_SIZE_1: usize = 24 + P;

const _: () = {
    assert!(size_of::<sae_gpu_options>() == (24 + P).next_multiple_of(align_of::<u64>()));
    assert!(offset_of!(sae_gpu_options, struct_size) == 0);
    assert!(offset_of!(sae_gpu_options, power) == 4);
    assert!(offset_of!(sae_gpu_options, software) == 8);
    assert!(offset_of!(sae_gpu_options, reserved) == 12);
    assert!(offset_of!(sae_gpu_options, most_binding_bytes) == 16);
    assert!(offset_of!(sae_gpu_options, name) == 24);
};

/// An open device.
pub struct Device {
    device: sae::gpu::Device,
    name: CString,
}

/// A device, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_gpu_device = Handle<Device>;

impl Kind for Device {
    const TAG: u64 = u64::from_le_bytes(*b"sae:gdev");
    const NAME: &'static str = "sae_gpu_device";
}

/// An encoder on a device.
pub struct Encoder(Model);

/// An encoder, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_gpu_encoder = Handle<Encoder>;

impl Kind for Encoder {
    const TAG: u64 = u64::from_le_bytes(*b"sae:genc");
    const NAME: &'static str = "sae_gpu_encoder";
}

/// The work space of one stream of batches.
pub struct Batches(Stream);

/// A stream, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_gpu_stream = Handle<Batches>;

impl Kind for Batches {
    const TAG: u64 = u64::from_le_bytes(*b"sae:gstr");
    const NAME: &'static str = "sae_gpu_stream";
}

/// Vectors on a device, with the work space of one thread.
pub struct Vectors {
    directions: Directions,
    stream: DirectionStream,
}

/// Directions, as C holds them.
#[allow(non_camel_case_types)]
pub type sae_gpu_directions = Handle<Vectors>;

impl Kind for Vectors {
    const TAG: u64 = u64::from_le_bytes(*b"sae:gdir");
    const NAME: &'static str = "sae_gpu_directions";
}

fn unknown(argument: &'static str, expected: &'static str, found: i32) -> Failure {
    Failure::Invalid {
        argument,
        expected,
        found: Found::Signed(found.into()),
    }
}

/// Opens a device.
///
/// # Safety
/// - `options` is NULL or an input with its size, whose `name` is a string; `device` and `error` are
///   outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_device_open(
    options: *const sae_gpu_options,
    device: *mut *mut sae_gpu_device,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `device` is an output.
        unsafe { store("device", device, null_mut()) }?;
        let mut chosen = DeviceOptions::default();
        if !options.is_null() {
            // SAFETY: not NULL; an input with its size by contract.
            let given = unsafe { load_sized("options", GPU_OPTIONS_SIZE_1, options) }?;
            chosen = match given.power {
                SAE_GPU_POWER_HIGH => chosen.power(Power::High),
                SAE_GPU_POWER_LOW => chosen.power(Power::Low),
                other => return Err(unknown("options.power", "a `sae_gpu_power`", other)),
            };
            chosen = chosen.software(given.software != 0);
            if given.most_binding_bytes != 0 {
                chosen = chosen.most_binding_bytes(given.most_binding_bytes);
            }
            // SAFETY: the caller guarantees that it is a string.
            if let Some(name) = unsafe { optional_text("options.name", given.name) }? {
                chosen = chosen.name(name);
            }
        }
        let opened = sae::gpu::Device::open(&chosen)?;
        // A driver's name has no zero bytes; if it does, it ends there.
        let name = opened
            .adapter()
            .name
            .split('\0')
            .next()
            .unwrap_or("")
            .into();
        let name = CString::new::<alloc::vec::Vec<u8>>(alloc::string::String::into_bytes(name));
        let handle = Handle::on_heap(Device {
            device: opened,
            name: name.unwrap_or_default(),
        })?;
        // SAFETY: the caller guarantees that `device` is an output.
        unsafe { store("device", device, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// The adapter's name.
///
/// # Safety
/// - `device` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_device_name(device: *const sae_gpu_device) -> *const c_char {
    value(c"".as_ptr(), || {
        // SAFETY: the caller guarantees that `device` is a handle.
        let device = unsafe { Handle::borrow("device", device) }?;
        Ok(device.name.as_ptr())
    })
}

/// Gives a device up, with all that was uploaded to it.
///
/// # Safety
/// - `device` is a handle; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_device_give_up(
    device: *const sae_gpu_device,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `device` is a handle.
        let device = unsafe { Handle::borrow("device", device) }?;
        device.device.destroy();
        Ok(())
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Closes a device.
///
/// # Safety
/// - `device` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_device_close(device: *mut sae_gpu_device) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(device) };
        Ok(())
    });
}

/// Uploads a model's encoder.
///
/// # Safety
/// - `model` and `device` are handles; `centre` is NULL or an input that describes one; `encoder` and
///   `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_encoder_create(
    model: *const sae_model,
    device: *const sae_gpu_device,
    format: sae_gpu_format,
    centre: *const sae_rows,
    encoder: *mut *mut sae_gpu_encoder,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `encoder` is an output.
        unsafe { store("encoder", encoder, null_mut()) }?;
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `device` is a handle.
        let device = unsafe { Handle::borrow("device", device) }?;
        let mut options = UploadOptions::default().format(match format {
            SAE_GPU_FORMAT_STORED => WeightFormat::Stored,
            SAE_GPU_FORMAT_INT8 => WeightFormat::Int8,
            other => return Err(unknown("format", "a `sae_gpu_format`", other)),
        });
        if !centre.is_null() {
            // SAFETY: the caller guarantees that `centre` is an input and describes one.
            let (rows, _) = unsafe { read_rows("centre", centre, model.sae.d_in()) }?;
            options = options.centre(rows);
        }
        let uploaded = device.device.upload(&model.sae, &options)?;
        let handle = Handle::on_heap(Encoder(uploaded))?;
        // SAFETY: the caller guarantees that `encoder` is an output.
        unsafe { store("encoder", encoder, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Bytes of an encoder on the device.
///
/// # Safety
/// - `encoder` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_encoder_device_bytes(encoder: *const sae_gpu_encoder) -> u64 {
    value(0, || {
        // SAFETY: the caller guarantees that `encoder` is a handle.
        let encoder = unsafe { Handle::borrow("encoder", encoder) }?;
        Ok(encoder.0.device_bytes())
    })
}

/// Bytes of the encoder that the host keeps.
///
/// # Safety
/// - `encoder` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_encoder_host_bytes(encoder: *const sae_gpu_encoder) -> u64 {
    value(0, || {
        // SAFETY: the caller guarantees that `encoder` is a handle.
        let encoder = unsafe { Handle::borrow("encoder", encoder) }?;
        Ok(encoder.0.host_bytes())
    })
}

/// Destroys an encoder.
///
/// # Safety
/// - `encoder` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_encoder_destroy(encoder: *mut sae_gpu_encoder) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(encoder) };
        Ok(())
    });
}

/// Makes the work space of a stream of batches.
///
/// # Safety
/// - `encoder` is a handle; `stream` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_stream_create(
    encoder: *const sae_gpu_encoder,
    mode: sae_gpu_mode,
    n_rows: usize,
    stream: *mut *mut sae_gpu_stream,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `stream` is an output.
        unsafe { store("stream", stream, null_mut()) }?;
        // SAFETY: the caller guarantees that `encoder` is a handle.
        let encoder = unsafe { Handle::borrow("encoder", encoder) }?;
        let mut options = StreamOptions::default().mode(match mode {
            SAE_GPU_MODE_EXACT => Mode::Exact,
            SAE_GPU_MODE_FAST => Mode::Fast,
            other => return Err(unknown("mode", "a `sae_gpu_mode`", other)),
        });
        if n_rows > 0 {
            options = options.rows(n_rows);
        }
        let handle = Handle::on_heap(Batches(encoder.0.stream(&options)?))?;
        // SAFETY: the caller guarantees that `stream` is an output.
        unsafe { store("stream", stream, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Rows that go to the device at once.
///
/// # Safety
/// - `stream` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_stream_n_rows(stream: *const sae_gpu_stream) -> usize {
    value(0, || {
        // SAFETY: the caller guarantees that `stream` is a handle.
        let stream = unsafe { Handle::shared("stream", stream) }?;
        Ok(stream.0.rows())
    })
}

/// Destroys a stream.
///
/// # Safety
/// - `stream` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_stream_destroy(stream: *mut sae_gpu_stream) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(stream) };
        Ok(())
    });
}

/// Encodes rows.
///
/// # Safety
/// - `model`, `encoder`, `stream`, `scratch`, `features` are handles; `rows` is an input and
///   describes one; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_encode(
    model: *const sae_model,
    encoder: *const sae_gpu_encoder,
    rows: *const sae_rows,
    stream: *mut sae_gpu_stream,
    scratch: *mut sae_scratch,
    features: *mut sae_features,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `features` is a handle.
        let mut features = unsafe { Handle::exclusive("features", features) }?;
        features.0.clear();
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `encoder` is a handle.
        let encoder = unsafe { Handle::borrow("encoder", encoder) }?;
        // SAFETY: the caller guarantees that `stream` is a handle.
        let mut stream = unsafe { Handle::exclusive("stream", stream) }?;
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        // SAFETY: the caller guarantees that `rows` is an input and describes one.
        let (rows, _) = unsafe { read_rows("rows", rows, model.sae.d_in()) }?;
        let encoded = encoder.0.encode(
            &model.sae,
            rows,
            &mut stream.0,
            &mut scratch.0,
            &mut features.0,
        );
        Ok(encoded?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Sends a batch to the device.
///
/// # Safety
/// - As for [`sae_gpu_encode`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_encode_start(
    model: *const sae_model,
    encoder: *const sae_gpu_encoder,
    rows: *const sae_rows,
    stream: *mut sae_gpu_stream,
    scratch: *mut sae_scratch,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `encoder` is a handle.
        let encoder = unsafe { Handle::borrow("encoder", encoder) }?;
        // SAFETY: the caller guarantees that `stream` is a handle.
        let mut stream = unsafe { Handle::exclusive("stream", stream) }?;
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        // SAFETY: the caller guarantees that `rows` is an input and describes one.
        let (rows, _) = unsafe { read_rows("rows", rows, model.sae.d_in()) }?;
        let started = encoder
            .0
            .start(&model.sae, rows, &mut stream.0, &mut scratch.0);
        Ok(started?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Whether a batch can be finished without waiting.
///
/// # Safety
/// - `encoder` and `stream` are handles; `ready` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_encode_ready(
    encoder: *const sae_gpu_encoder,
    stream: *const sae_gpu_stream,
    ready: *mut c_int,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `ready` is an output.
        unsafe { store("ready", ready, 0) }?;
        // SAFETY: the caller guarantees that `encoder` is a handle.
        let encoder = unsafe { Handle::borrow("encoder", encoder) }?;
        // SAFETY: the caller guarantees that `stream` is a handle.
        let stream = unsafe { Handle::shared("stream", stream) }?;
        let is_ready = encoder.0.is_ready(&stream.0)?;
        // SAFETY: the caller guarantees that `ready` is an output.
        unsafe { store("ready", ready, c_int::from(is_ready)) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Takes a batch from the device.
///
/// # Safety
/// - `model`, `encoder`, `stream`, `scratch`, `features` are handles; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_encode_finish(
    model: *const sae_model,
    encoder: *const sae_gpu_encoder,
    stream: *mut sae_gpu_stream,
    scratch: *mut sae_scratch,
    features: *mut sae_features,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `features` is a handle.
        let mut features = unsafe { Handle::exclusive("features", features) }?;
        features.0.clear();
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `encoder` is a handle.
        let encoder = unsafe { Handle::borrow("encoder", encoder) }?;
        // SAFETY: the caller guarantees that `stream` is a handle.
        let mut stream = unsafe { Handle::exclusive("stream", stream) }?;
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        let finished = encoder
            .0
            .finish(&model.sae, &mut stream.0, &mut scratch.0, &mut features.0);
        Ok(finished?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// A handle of vectors, with its work space.
fn with_stream(directions: Directions) -> Result<*mut sae_gpu_directions, Failure> {
    let stream = directions.stream(None)?;
    Handle::on_heap(Vectors { directions, stream })
}

/// Uploads a model's decoder.
///
/// # Safety
/// - `model` and `device` are handles; `directions` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_decoder_create(
    model: *const sae_model,
    device: *const sae_gpu_device,
    directions: *mut *mut sae_gpu_directions,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `directions` is an output.
        unsafe { store("directions", directions, null_mut()) }?;
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `device` is a handle.
        let device = unsafe { Handle::borrow("device", device) }?;
        let handle = with_stream(device.device.upload_decoder(&model.sae)?)?;
        // SAFETY: the caller guarantees that `directions` is an output.
        unsafe { store("directions", directions, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Uploads vectors.
///
/// # Safety
/// - `device` is a handle; `vectors` is an input of `n_vectors * width`; `directions` and `error` are
///   outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_directions_create(
    device: *const sae_gpu_device,
    vectors: *const f32,
    n_vectors: usize,
    width: usize,
    directions: *mut *mut sae_gpu_directions,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `directions` is an output.
        unsafe { store("directions", directions, null_mut()) }?;
        // SAFETY: the caller guarantees that `device` is a handle.
        let device = unsafe { Handle::borrow("device", device) }?;
        let count = n_vectors.checked_mul(width).ok_or(Failure::Invalid {
            argument: "n_vectors",
            expected: "a number of vectors that fits memory",
            found: Found::Unsigned(n_vectors as u64),
        })?;
        // SAFETY: the caller guarantees that `vectors` is an input of so many.
        let values = unsafe { crate::memory::slice("vectors", vectors, count) }?;
        let rows = sae::Rows::from_f32(values, width)?;
        let handle = with_stream(device.device.upload_directions(rows)?)?;
        // SAFETY: the caller guarantees that `directions` is an output.
        unsafe { store("directions", directions, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Destroys directions.
///
/// # Safety
/// - `directions` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_directions_destroy(directions: *mut sae_gpu_directions) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(directions) };
        Ok(())
    });
}

/// Reconstructs rows with the device's sums.
///
/// # Safety
/// - `model`, `directions`, `features`, `scratch` are handles; `inputs` is NULL or an input that
///   describes one; `out` is an output of `n_out`; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_decode(
    model: *const sae_model,
    directions: *mut sae_gpu_directions,
    features: *const sae_features,
    inputs: *const sae_rows,
    scratch: *mut sae_scratch,
    out: *mut f32,
    n_out: usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `directions` is a handle.
        let mut directions = unsafe { Handle::exclusive("directions", directions) }?;
        // SAFETY: the caller guarantees that `features` is a handle.
        let features = unsafe { Handle::shared("features", features) }?;
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        let inputs = if inputs.is_null() || !model.sae.needs_inputs_to_decode() {
            None
        } else {
            // SAFETY: the caller guarantees that `inputs` is an input and describes one.
            let (rows, span) = unsafe { read_rows("inputs", inputs, model.sae.d_in()) }?;
            apart(("out", addresses(out, n_out)), ("inputs", span))?;
            Some(rows)
        };
        let expected = features.0.rows().saturating_mul(model.sae.d_out());
        if n_out != expected {
            return Err(Failure::Length {
                argument: "n_out",
                expected,
                found: n_out,
            });
        }
        // SAFETY: the caller guarantees that `out` is an output of `n_out`.
        let out = unsafe { slice_mut("out", out, n_out) }?;
        let Vectors { directions, stream } = &mut *directions;
        let decoded =
            directions.decode(&model.sae, &features.0, inputs, stream, &mut scratch.0, out);
        Ok(decoded?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Adds directions to rows.
///
/// # Safety
/// - `directions` and `amounts` are handles; `rows` describes rows that this call alone uses;
///   `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_gpu_add_directions(
    directions: *mut sae_gpu_directions,
    amounts: *const sae_features,
    rows: *const sae_rows_mut,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `directions` is a handle.
        let mut directions = unsafe { Handle::exclusive("directions", directions) }?;
        // SAFETY: the caller guarantees that `amounts` is a handle.
        let amounts = unsafe { Handle::shared("amounts", amounts) }?;
        let Vectors { directions, stream } = &mut *directions;
        // SAFETY: the caller guarantees that `rows` describes rows of its own.
        let (mut rows, _) = unsafe { crate::memory::rows_mut("rows", rows, directions.width()) }?;
        Ok(directions.add(&amounts.0, &mut rows, stream)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}
