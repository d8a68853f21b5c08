//! Rows of several sites, apart or layer by layer. `include/sae_architectures.h`.

use crate::boundary::{call, value};
use crate::failure::Failure;
use crate::features::sae_features;
use crate::handle::{Handle, Kind};
use crate::memory::{addresses, apart, rows as read_rows, slice, slice_mut, store};
use crate::model::{Model, sae_model};
use crate::readout::sae_set;
use crate::scratch::sae_scratch;
use crate::types::*;
use alloc::vec::Vec;
use core::ops::Range;
use core::ptr::null_mut;
use sae::{LayerStream, Rows};

/// Number of sites of an input row.
///
/// # Safety
/// - `model` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_input_sites(model: *const sae_model) -> usize {
    value(0, || {
        // SAFETY: the caller guarantees that `model` is a handle.
        Ok(unsafe { Handle::borrow("model", model) }?.sae.input_sites())
    })
}

/// Number of sites of a reconstructed row.
///
/// # Safety
/// - `model` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_output_sites(model: *const sae_model) -> usize {
    value(0, || {
        // SAFETY: the caller guarantees that `model` is a handle.
        Ok(unsafe { Handle::borrow("model", model) }?
            .sae
            .output_sites())
    })
}

/// Sites that need no allocation.
const SITES: usize = 64;

/// Runs `body` with one batch for each site, and calls `check` with the addresses that each spans.
///
/// # Safety
/// `sites` is an input of `n_sites`, each of which describes one.
unsafe fn with_sites<T>(
    model: &Model,
    sites: *const sae_rows,
    n_sites: usize,
    check: impl Fn(Range<usize>) -> Result<(), Failure>,
    body: impl FnOnce(&[Rows<'_>]) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let expected = model.sae.input_sites();
    if n_sites != expected {
        return Err(Failure::Length {
            argument: "n_sites",
            expected,
            found: n_sites,
        });
    }
    // SAFETY: the caller guarantees that `sites` is an input of `n_sites`.
    let sites = unsafe { slice("sites", sites, n_sites) }?;
    let width = model.sae.d_in() / expected.max(1);
    let mut few = [Rows::from_f32(&[], 0)?; SITES];
    let mut many = Vec::new();
    let room = match few.get_mut(..n_sites) {
        Some(room) => room,
        None => {
            many.resize(n_sites, Rows::from_f32(&[], 0)?);
            many.as_mut_slice()
        }
    };
    for (to, site) in room.iter_mut().zip(sites) {
        // SAFETY: the caller guarantees that every site describes an input.
        let (rows, span) = unsafe { read_rows("sites", site, width) }?;
        check(span)?;
        *to = rows;
    }
    body(room)
}

/// Encodes rows whose sites lie apart.
///
/// # Safety
/// - `model`, `scratch` and `features` are handles; `sites` is an input of `n_sites`, each of
///   which describes one; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_encode_sites(
    model: *const sae_model,
    sites: *const sae_rows,
    n_sites: usize,
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
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        let encode = |rows: &[Rows<'_>]| {
            let encoded = model
                .sae
                .encode_sites(rows, &mut scratch.0, &mut features.0);
            Ok(encoded?)
        };
        // SAFETY: the caller guarantees what `with_sites` needs.
        unsafe { with_sites(model, sites, n_sites, |_| Ok(()), encode) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Reads a set out of rows whose sites lie apart.
///
/// # Safety
/// - `model`, `set` and `scratch` are handles; `sites` is an input of `n_sites`, each of which
///   describes one; `values` (of `n_values`), `status` (one for each row) and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_readout_sites(
    model: *const sae_model,
    set: *const sae_set,
    sites: *const sae_rows,
    n_sites: usize,
    scratch: *mut sae_scratch,
    values: *mut f32,
    n_values: usize,
    status: *mut sae_row_status,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `set` is a handle.
        let set = unsafe { Handle::borrow("set", set) }?;
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        if status.is_null() {
            return Err(Failure::Null { argument: "status" });
        }
        let value_bytes = addresses(values, n_values);
        let separate = |span: Range<usize>| {
            let n_rows = n_values.checked_div(set.0.len()).unwrap_or(0);
            apart(("values", value_bytes.clone()), ("sites", span.clone()))?;
            apart(("status", addresses(status, n_rows)), ("sites", span))
        };
        let read = |rows: &[Rows<'_>]| {
            let n_rows = rows.first().map_or(0, Rows::rows);
            let expected = n_rows.saturating_mul(set.0.len());
            if n_values != expected {
                return Err(Failure::Length {
                    argument: "n_values",
                    expected,
                    found: n_values,
                });
            }
            apart(
                ("status", addresses(status, n_rows)),
                ("values", value_bytes.clone()),
            )?;
            // SAFETY: the caller guarantees that `values` is an output of `n_values`.
            let values = unsafe { slice_mut("values", values, n_values) }?;
            // A row status is one byte, and 0 is one of its values.
            let status = status.cast::<sae::RowStatus>();
            // SAFETY: the caller guarantees that `status` is an output of one byte for each row.
            let status = unsafe { slice_mut("status", status, n_rows) }?;
            let (set, scratch) = (&set.0, &mut scratch.0);
            Ok(model
                .sae
                .readout_sites(set, rows, scratch, values, status)?)
        };
        // SAFETY: the caller guarantees what `with_sites` needs.
        unsafe { with_sites(model, sites, n_sites, separate, read) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Decodes features, with inputs whose sites lie apart.
///
/// # Safety
/// - `model`, `features` and `scratch` are handles; `sites` is an input of `n_sites`, each of which
///   describes one; `out` (of `n_out`) and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_decode_sites(
    model: *const sae_model,
    features: *const sae_features,
    sites: *const sae_rows,
    n_sites: usize,
    scratch: *mut sae_scratch,
    out: *mut f32,
    n_out: usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `features` is a handle.
        let features = unsafe { Handle::shared("features", features) }?;
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        let expected = features.0.rows().saturating_mul(model.sae.d_out());
        if n_out != expected {
            return Err(Failure::Length {
                argument: "n_out",
                expected,
                found: n_out,
            });
        }
        let mut decode = |inputs: Option<&[Rows<'_>]>| {
            // SAFETY: the caller guarantees that `out` is an output of `n_out`.
            let out = unsafe { slice_mut("out", out, n_out) }?;
            Ok(model
                .sae
                .decode_sites(&features.0, inputs, &mut scratch.0, out)?)
        };
        if !model.sae.needs_inputs_to_decode() || sites.is_null() {
            return decode(None);
        }
        let separate = |span| apart(("out", addresses(out, n_out)), ("sites", span));
        let with_inputs = |rows: &[Rows<'_>]| decode(Some(rows));
        // SAFETY: the caller guarantees what `with_sites` needs.
        unsafe { with_sites(model, sites, n_sites, separate, with_inputs) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// The sums of a batch between the layers.
pub struct Stream(LayerStream);

/// The same, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_layer_stream = Handle<Stream>;

impl Kind for Stream {
    const TAG: u64 = u64::from_le_bytes(*b"sae:strm");
    const NAME: &'static str = "sae_layer_stream";
}

/// Makes a stream.
///
/// # Safety
/// - `model` is a handle; `stream` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_layer_stream_create(
    model: *const sae_model,
    n_rows: usize,
    stream: *mut *mut sae_layer_stream,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `stream` is an output.
        unsafe { store("stream", stream, null_mut()) }?;
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        let handle = Handle::on_heap(Stream(model.sae.layer_stream(n_rows)?))?;
        // SAFETY: the caller guarantees that `stream` is an output.
        unsafe { store("stream", stream, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Destroys a stream.
///
/// # Safety
/// - `stream` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_layer_stream_destroy(stream: *mut sae_layer_stream) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(stream) };
        Ok(())
    });
}

/// Goes back to the first layer.
///
/// # Safety
/// - `stream` is a handle; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_layer_stream_restart(
    stream: *mut sae_layer_stream,
    n_rows: usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `stream` is a handle.
        let mut stream = unsafe { Handle::exclusive("stream", stream) }?;
        Ok(stream.0.restart(n_rows)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// The features of one layer.
///
/// # Safety
/// - `model` is a handle; `first`, `count` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_layer_features(
    model: *const sae_model,
    layer: usize,
    first: *mut u32,
    count: *mut u32,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        let range = model.sae.layer_features(layer);
        // SAFETY: the caller guarantees that `first` is an output.
        unsafe { store("first", first, range.start as u32) }?;
        // SAFETY: the caller guarantees that `count` is an output.
        unsafe { store("count", count, range.len() as u32) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Width of the rows of one layer.
fn layer_width(model: &Model) -> usize {
    model.sae.d_in() / model.sae.input_sites().max(1)
}

/// Encodes the next layer.
///
/// # Safety
/// - `model`, `stream`, `scratch` and `features` are handles; `rows` is an input and describes
///   one; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_encode_layer(
    model: *const sae_model,
    stream: *mut sae_layer_stream,
    layer: usize,
    rows: *const sae_rows,
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
        // SAFETY: the caller guarantees that `stream` is a handle.
        let mut stream = unsafe { Handle::exclusive("stream", stream) }?;
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        // SAFETY: the caller guarantees that `rows` is an input and describes one.
        let (rows, _) = unsafe { read_rows("rows", rows, layer_width(model)) }?;
        let (stream, scratch, features) = (&mut stream.0, &mut scratch.0, &mut features.0);
        Ok(model
            .sae
            .encode_layer(stream, layer, rows, scratch, features)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Writes the output of one layer.
///
/// # Safety
/// - `model`, `stream` and `scratch` are handles; `inputs` is an input and describes one; `out`
///   (of `n_out`) and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_decode_layer(
    model: *const sae_model,
    stream: *mut sae_layer_stream,
    layer: usize,
    inputs: *const sae_rows,
    scratch: *mut sae_scratch,
    out: *mut f32,
    n_out: usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `stream` is a handle.
        let mut stream = unsafe { Handle::exclusive("stream", stream) }?;
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        let inputs = if inputs.is_null() || !model.sae.needs_inputs_to_decode() {
            None
        } else {
            // SAFETY: the caller guarantees that `inputs` is an input and describes one.
            let (rows, span) = unsafe { read_rows("inputs", inputs, layer_width(model)) }?;
            apart(("out", addresses(out, n_out)), ("inputs", span))?;
            Some(rows)
        };
        // SAFETY: the caller guarantees that `out` is an output of `n_out`.
        let out = unsafe { slice_mut("out", out, n_out) }?;
        let (stream, scratch) = (&mut stream.0, &mut scratch.0);
        Ok(model
            .sae
            .decode_layer(stream, layer, inputs, scratch, out)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}
