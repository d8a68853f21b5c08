//! Features: the sparse result of encoding, read without a copy; encode and decode.

use crate::boundary::{call, value};
use crate::failure::{Failure, Found};
use crate::handle::{Handle, Kind};
use crate::memory::{addresses, apart, rows as read_rows, slice, slice_mut, store};
use crate::model::sae_model;
use crate::rows::check_info;
use crate::scratch::sae_scratch;
use crate::types::*;
use core::ptr::null_mut;

/// Features of a batch.
pub struct Features(pub(crate) sae::Features);

/// Features, as C holds them.
#[allow(non_camel_case_types)]
pub type sae_features = Handle<Features>;

impl Kind for Features {
    const TAG: u64 = u64::from_le_bytes(*b"sae:feat");
    const NAME: &'static str = "sae_features";
}

/// Makes an empty features handle.
///
/// # Safety
/// - `features` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_features_create(
    n_rows: usize,
    n_features: usize,
    features: *mut *mut sae_features,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `features` is an output.
        unsafe { store("features", features, null_mut()) }?;
        let value = Features(sae::Features::with_capacity(n_rows, n_features)?);
        let handle = Handle::on_heap(value)?;
        // SAFETY: the caller guarantees that `features` is an output.
        unsafe { store("features", features, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Destroys features.
///
/// # Safety
/// - `features` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_features_destroy(features: *mut sae_features) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(features) };
        Ok(())
    });
}

/// Number of rows.
///
/// # Safety
/// - `features` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_features_n_rows(features: *const sae_features) -> usize {
    value(0, || {
        // SAFETY: the caller guarantees that `features` is a handle.
        let features = unsafe { Handle::shared("features", features) }?;
        Ok(features.0.rows())
    })
}

/// Number of features of all rows together.
///
/// # Safety
/// - `features` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_features_count(features: *const sae_features) -> usize {
    value(0, || {
        // SAFETY: the caller guarantees that `features` is a handle.
        let features = unsafe { Handle::shared("features", features) }?;
        Ok(features.0.len())
    })
}

/// Number of rows that are not OK.
///
/// # Safety
/// - `features` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_features_failed_rows(features: *const sae_features) -> usize {
    value(0, || {
        // SAFETY: the caller guarantees that `features` is a handle.
        let features = unsafe { Handle::shared("features", features) }?;
        Ok(features.0.failed_rows())
    })
}

/// Access to one row.
///
/// # Safety
/// - `features` is a handle; `out` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_features_row(
    features: *const sae_features,
    row: usize,
    out: *mut sae_row_features,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `features` is a handle.
        let features = unsafe { Handle::shared("features", features) }?;
        let found = features.0.row(row).ok_or(Failure::Invalid {
            argument: "row",
            expected: "a number below `sae_features_n_rows`",
            found: Found::Unsigned(row as u64),
        })?;
        let view = sae_row_features {
            indices: found.indices.as_ptr(),
            values: found.values.as_ptr(),
            count: found.indices.len(),
            status: found.status as u8,
            reserved: [0; 7],
        };
        // SAFETY: the caller guarantees that `out` is an output.
        unsafe { store("out", out, view) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Access to all rows.
///
/// # Safety
/// - `features` is a handle; `out` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_features_all(
    features: *const sae_features,
    out: *mut sae_features_view,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `features` is a handle.
        let features = unsafe { Handle::shared("features", features) }?;
        let features = &features.0;
        let view = sae_features_view {
            row_ends: features.row_ends().as_ptr(),
            // A row status is one byte with the numbers of `sae_row_status`.
            row_status: features.row_status().as_ptr().cast::<u8>(),
            indices: features.indices().as_ptr(),
            values: features.values().as_ptr(),
            n_rows: features.rows(),
            count: features.len(),
        };
        // SAFETY: the caller guarantees that `out` is an output.
        unsafe { store("out", out, view) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Removes all rows.
///
/// # Safety
/// - `features` is a handle; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_features_clear(
    features: *mut sae_features,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `features` is a handle.
        let mut features = unsafe { Handle::exclusive("features", features) }?;
        features.0.clear();
        Ok(())
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Appends a row.
///
/// # Safety
/// - `features` is a handle; `indices` and `values` are inputs of `count`, outside of the handle;
///   `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_features_append_row(
    features: *mut sae_features,
    indices: *const u32,
    values: *const f32,
    count: usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `features` is a handle.
        let mut features = unsafe { Handle::exclusive("features", features) }?;
        // SAFETY: the caller guarantees that `indices` is an input.
        let indices = unsafe { slice("indices", indices, count) }?;
        // SAFETY: the caller guarantees that `values` is an input.
        let values = unsafe { slice("values", values, count) }?;
        if let Some((_, next)) = indices
            .iter()
            .zip(indices.iter().skip(1))
            .find(|(one, next)| one >= next)
        {
            return Err(Failure::Invalid {
                argument: "indices",
                expected: "strictly ascending numbers",
                found: Found::Unsigned((*next).into()),
            });
        }
        // With room for all of it, nothing below fails and leaves half a row.
        features.0.reserve(1, count)?;
        for (&index, &value) in indices.iter().zip(values) {
            features.0.push(index, value)?;
        }
        Ok(features.0.end_row(sae::RowStatus::Ok)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Encodes rows.
///
/// # Safety
/// - `model`, `scratch`, `features` are handles; `rows` is an input and describes one; `error` is
///   an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_encode(
    model: *const sae_model,
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
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        // SAFETY: the caller guarantees that `rows` is an input and describes one.
        let (rows, _) = unsafe { read_rows("rows", rows, model.sae.d_in()) }?;
        let outcome = model.sae.encode(rows, &mut scratch.0, &mut features.0);
        if outcome.is_err() {
            features.0.clear();
        }
        Ok(outcome?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Encodes rows about which the host says more.
///
/// # Safety
/// - As for [`sae_model_encode`]; `infos` is an input of `n_infos`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_encode_with(
    model: *const sae_model,
    rows: *const sae_rows,
    infos: *const sae_row_info,
    n_infos: usize,
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
        // SAFETY: the caller guarantees that `rows` is an input and describes one.
        let (rows, _) = unsafe { read_rows("rows", rows, model.sae.d_in()) }?;
        let infos = match infos.is_null() && n_infos == 0 {
            true => None,
            // SAFETY: the caller guarantees that `infos` is an input of `n_infos`.
            false => Some(unsafe { slice("infos", infos, n_infos) }?),
        };
        let outcome = encode_some(&model.sae, rows, infos, &mut scratch.0, &mut features.0);
        if outcome.is_err() {
            features.0.clear();
        }
        outcome
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Encodes the rows that the host does not leave out.
fn encode_some(
    sae: &sae::Sae<'_>,
    rows: sae::Rows<'_>,
    infos: Option<&[sae_row_info]>,
    scratch: &mut sae::Scratch<'_>,
    features: &mut sae::Features,
) -> Result<(), Failure> {
    let Some(infos) = infos else {
        return Ok(sae.encode(rows, scratch, features)?);
    };
    check_infos(infos, rows.rows())?;
    let wanted = |row: usize| is_wanted(infos, row);
    Ok(sae.encode_where(rows, &wanted, scratch, features)?)
}

/// Checks what the host says about `rows` rows.
pub(crate) fn check_infos(infos: &[sae_row_info], rows: usize) -> Result<(), Failure> {
    if infos.len() != rows {
        return Err(Failure::Length {
            argument: "n_infos",
            expected: rows,
            found: infos.len(),
        });
    }
    infos.iter().try_for_each(check_info)
}

/// Whether the host does not leave a row out.
pub(crate) fn is_wanted(infos: &[sae_row_info], row: usize) -> bool {
    let info = infos.get(row);
    info.is_some_and(|info| info.stage != SAE_STAGE_SKIPPED)
}

/// Decodes features.
///
/// # Safety
/// - `model`, `features`, `scratch` are handles; `inputs` is an input and describes one; `out` (of
///   `n_out`) and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_decode(
    model: *const sae_model,
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
        Ok(model.sae.decode(&features.0, inputs, &mut scratch.0, out)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}
