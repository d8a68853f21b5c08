//! Compiled sets, and reading features out of rows.

use crate::boundary::{call, value};
use crate::failure::Failure;
use crate::features::{check_infos, is_wanted};
use crate::handle::{Handle, Kind};
use crate::memory::{addresses, apart, rows as read_rows, slice, slice_mut, store};
use crate::model::{Model, sae_model};
use crate::scratch::sae_scratch;
use crate::types::*;
use core::ptr::{null, null_mut};

/// A compiled set.
pub struct Set(pub(crate) sae::FeatureSet);

/// A compiled set, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_set = Handle<Set>;

impl Kind for Set {
    const TAG: u64 = u64::from_le_bytes(*b"sae:sets");
    const NAME: &'static str = "sae_set";
}

/// Compiles a set.
///
/// # Safety
/// - `model` is a handle; `features` is an input of `count`; `set` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_set_compile(
    model: *const sae_model,
    features: *const u32,
    count: usize,
    set: *mut *mut sae_set,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `set` is an output.
        unsafe { store("set", set, null_mut()) }?;
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `features` is an input.
        let features = unsafe { slice("features", features, count) }?;
        let handle = Handle::on_heap(Set(model.sae.compile_set(features)?))?;
        // SAFETY: the caller guarantees that `set` is an output.
        unsafe { store("set", set, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Destroys a set.
///
/// # Safety
/// - `set` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_set_destroy(set: *mut sae_set) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(set) };
        Ok(())
    });
}

/// Number of features in the set.
///
/// # Safety
/// - `set` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_set_count(set: *const sae_set) -> usize {
    // SAFETY: the caller guarantees that `set` is a handle.
    value(0, || Ok(unsafe { Handle::borrow("set", set) }?.0.len()))
}

/// Reads a set out of rows.
///
/// # Safety
/// - `model`, `set`, `scratch` are handles; `rows` is an input and describes one; `values` (of
///   `n_values`), `status` (one for each row) and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_readout(
    model: *const sae_model,
    set: *const sae_set,
    rows: *const sae_rows,
    scratch: *mut sae_scratch,
    values: *mut f32,
    n_values: usize,
    status: *mut sae_row_status,
    error: *mut sae_error,
) -> sae_status {
    // SAFETY: the caller guarantees the same; no infos are an input of none.
    unsafe {
        sae_model_readout_with(
            model,
            set,
            rows,
            null(),
            0,
            scratch,
            values,
            n_values,
            status,
            error,
        )
    }
}

/// Reads a set out of the rows that the host does not leave out.
///
/// # Safety
/// - As for [`sae_model_readout`]; `infos` is an input of `n_infos`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_readout_with(
    model: *const sae_model,
    set: *const sae_set,
    rows: *const sae_rows,
    infos: *const sae_row_info,
    n_infos: usize,
    scratch: *mut sae_scratch,
    values: *mut f32,
    n_values: usize,
    status: *mut sae_row_status,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `set` is a handle.
        let set = unsafe { Handle::borrow("set", set) }?;
        let width = set.0.len();
        let infos = match infos.is_null() && n_infos == 0 {
            true => None,
            // SAFETY: the caller guarantees that `infos` is an input of `n_infos`.
            false => Some(unsafe { slice("infos", infos, n_infos) }?),
        };
        // Rows come in order, in parts where the caller does not want their status.
        let mut first = 0;
        let one = |model: &Model,
                   rows: sae::Rows<'_>,
                   scratch: &mut sae::Scratch<'_>,
                   values: &mut [f32],
                   status: &mut [sae::RowStatus]| {
            let Some(infos) = infos else {
                return model.sae.readout(&set.0, rows, scratch, values, status);
            };
            let wanted = |row: usize| is_wanted(infos, first + row);
            let (model, set) = (&model.sae, &set.0);
            let read = model.readout_where(set, rows, &wanted, scratch, values, status);
            first += rows.rows();
            read
        };
        // SAFETY: the caller guarantees what `read_out` needs.
        unsafe {
            read_out(
                model, rows, infos, scratch, width, values, n_values, status, one,
            )
        }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Reads one feature out of rows.
///
/// # Safety
/// - As for [`sae_model_readout`], without a set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_readout_one(
    model: *const sae_model,
    feature: u32,
    rows: *const sae_rows,
    scratch: *mut sae_scratch,
    values: *mut f32,
    n_values: usize,
    status: *mut sae_row_status,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        let one = |model: &Model,
                   rows: sae::Rows<'_>,
                   scratch: &mut sae::Scratch<'_>,
                   values: &mut [f32],
                   status: &mut [sae::RowStatus]| {
            model
                .sae
                .readout_one(feature, rows, scratch, values, status)
        };
        // SAFETY: the caller guarantees what `read_out` needs.
        unsafe { read_out(model, rows, None, scratch, 1, values, n_values, status, one) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Rows that are read out at a time where the caller does not want their status.
const ROWS_AT_A_TIME: usize = 64;

/// Checks the arguments and runs `one` over the rows.
///
/// # Safety
/// As for [`sae_model_readout`].
#[allow(clippy::too_many_arguments)] // those of the C functions
unsafe fn read_out(
    model: *const sae_model,
    rows: *const sae_rows,
    infos: Option<&[sae_row_info]>,
    scratch: *mut sae_scratch,
    width: usize,
    values: *mut f32,
    n_values: usize,
    status: *mut sae_row_status,
    mut one: impl FnMut(
        &Model,
        sae::Rows<'_>,
        &mut sae::Scratch<'_>,
        &mut [f32],
        &mut [sae::RowStatus],
    ) -> Result<(), sae::Error>,
) -> Result<(), Failure> {
    // SAFETY: the caller guarantees that `model` is a handle.
    let model = unsafe { Handle::borrow("model", model) }?;
    // SAFETY: the caller guarantees that `scratch` is a handle.
    let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
    // SAFETY: the caller guarantees that `rows` is an input and describes one.
    let (rows, span) = unsafe { read_rows("rows", rows, model.sae.d_in()) }?;
    if let Some(infos) = infos {
        check_infos(infos, rows.rows())?;
    }
    let expected = rows.rows().saturating_mul(width);
    if n_values != expected {
        return Err(Failure::Length {
            argument: "n_values",
            expected,
            found: n_values,
        });
    }
    let value_bytes = addresses(values, n_values);
    apart(("values", value_bytes.clone()), ("rows", span.clone()))?;
    // SAFETY: the caller guarantees that `values` is an output of `n_values`.
    let values = unsafe { slice_mut("values", values, n_values) }?;
    if !status.is_null() {
        let status_bytes = addresses(status, rows.rows());
        apart(("status", status_bytes.clone()), ("values", value_bytes))?;
        apart(("status", status_bytes), ("rows", span))?;
        // A row status is one byte, and 0 is one of its values.
        let status = status.cast::<sae::RowStatus>();
        // SAFETY: the caller guarantees that `status` is an output of one byte for each row.
        let status = unsafe { slice_mut("status", status, rows.rows()) }?;
        return Ok(one(model, rows, &mut scratch.0, values, status)?);
    }
    let mut status = [sae::RowStatus::Ok; ROWS_AT_A_TIME];
    let mut first = 0;
    loop {
        let count = (rows.rows() - first).min(ROWS_AT_A_TIME);
        let values = values
            .get_mut(first * width..(first + count) * width)
            .unwrap_or_default();
        let status = status.get_mut(..count).unwrap_or_default();
        one(
            model,
            rows.part(first, count),
            &mut scratch.0,
            values,
            status,
        )?;
        first += count;
        if first >= rows.rows() {
            return Ok(());
        }
    }
}
