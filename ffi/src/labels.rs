//! Labels of features.

use crate::boundary::{call, value};
use crate::failure::Failure;
use crate::handle::{Handle, Kind};
use crate::memory::{bytes as read_bytes, store, store_sized};
use crate::model::sae_model;
use crate::types::*;
use core::ffi::{CStr, c_char, c_void};
use core::ptr::{null, null_mut};

/// A table of labels.
pub struct Labels(pub(crate) sae::Labels);

/// A table of labels, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_labels = Handle<Labels>;

impl Kind for Labels {
    const TAG: u64 = u64::from_le_bytes(*b"sae:labl");
    const NAME: &'static str = "sae_labels";
}

/// Reads an explanation export from a file or folder.
///
/// # Safety
/// - `path` is a string; `labels` and `error` are outputs.
/// - The file is not changed or truncated during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_labels_open(
    path: *const c_char,
    labels: *mut *mut sae_labels,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `labels` is an output.
        unsafe { store("labels", labels, null_mut()) }?;
        if path.is_null() {
            return Err(Failure::Null { argument: "path" });
        }
        // SAFETY: not NULL; a string by contract.
        let table = unsafe { open_path(path) }?;
        let handle = Handle::on_heap(Labels(table))?;
        // SAFETY: the caller guarantees that `labels` is an output.
        unsafe { store("labels", labels, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Reads an explanation export from the bytes of a file.
///
/// # Safety
/// - `bytes` is an input of `n_bytes`; `labels` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_labels_open_memory(
    bytes: *const c_void,
    n_bytes: usize,
    labels: *mut *mut sae_labels,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `labels` is an output.
        unsafe { store("labels", labels, null_mut()) }?;
        // SAFETY: the caller guarantees that `bytes` is an input.
        let bytes = unsafe { read_bytes("bytes", bytes, n_bytes) }?;
        let handle = Handle::on_heap(Labels(sae::Labels::from_bytes(bytes)?))?;
        // SAFETY: the caller guarantees that `labels` is an output.
        unsafe { store("labels", labels, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Closes labels.
///
/// # Safety
/// - `labels` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_labels_close(labels: *mut sae_labels) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(labels) };
        Ok(())
    });
}

/// Number of labels.
///
/// # Safety
/// - `labels` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_labels_count(labels: *const sae_labels) -> usize {
    value(0, || {
        // SAFETY: the caller guarantees that `labels` is a handle.
        let labels = unsafe { Handle::borrow("labels", labels) }?;
        Ok(labels.0.count())
    })
}

/// Number of labels of one feature.
///
/// # Safety
/// - `labels` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_labels_count_of(labels: *const sae_labels, feature: u32) -> usize {
    value(0, || {
        // SAFETY: the caller guarantees that `labels` is a handle.
        let labels = unsafe { Handle::borrow("labels", labels) }?;
        Ok(labels.0.of(feature).len())
    })
}

/// One label of a feature.
///
/// # Safety
/// - `labels` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_labels_text(
    labels: *const sae_labels,
    feature: u32,
    number: usize,
) -> *const c_char {
    value(null(), || {
        // SAFETY: the caller guarantees that `labels` is a handle.
        let labels = unsafe { Handle::borrow("labels", labels) }?;
        let label = labels.0.to_c(feature, number);
        Ok(label.map_or(null(), |(text, _)| CStr::as_ptr(text)))
    })
}

/// Who wrote a label.
///
/// # Safety
/// - `labels` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_labels_explainer(
    labels: *const sae_labels,
    feature: u32,
    number: usize,
) -> *const c_char {
    value(null(), || {
        // SAFETY: the caller guarantees that `labels` is a handle.
        let labels = unsafe { Handle::borrow("labels", labels) }?;
        let label = labels.0.to_c(feature, number);
        Ok(label.map_or(null(), |(_, explainer)| CStr::as_ptr(explainer)))
    })
}

/// What the export says of a feature's values.
///
/// # Safety
/// - `labels` is a handle; `observed` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_labels_observed(
    labels: *const sae_labels,
    feature: u32,
    observed: *mut sae_observed,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `labels` is a handle.
        let labels = unsafe { Handle::borrow("labels", labels) }?;
        let found = labels.0.observed(feature);
        let number = |of: fn(&sae::labels::Observed) -> Option<f64>| {
            found.as_ref().and_then(of).unwrap_or(f64::NAN)
        };
        let answer = sae_observed {
            struct_size: 0,
            reserved: 0,
            max: number(|it| it.max),
            density: number(|it| it.density),
            mean: number(|it| it.mean),
        };
        // SAFETY: the caller guarantees that `observed` is an output with its size.
        unsafe { store_sized("observed", OBSERVED_SIZE_1, observed, answer) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Whether a model has every feature that is labelled.
///
/// # Safety
/// - `model` and `labels` are handles; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_check_labels(
    model: *const sae_model,
    labels: *const sae_labels,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `labels` is a handle.
        let labels = unsafe { Handle::borrow("labels", labels) }?;
        Ok(labels.0.check(model.sae.d_sae())?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// # Safety
/// `path` is a string and not NULL.
#[cfg(feature = "std")]
unsafe fn open_path(path: *const c_char) -> Result<sae::Labels, Failure> {
    // SAFETY: the caller guarantees it.
    let path = unsafe { crate::open::path_of(path) }?;
    Ok(sae::Labels::open(path)?)
}

/// # Safety
/// None needed.
#[cfg(not(feature = "std"))]
unsafe fn open_path(_path: *const c_char) -> Result<sae::Labels, Failure> {
    Err(Failure::Library(crate::open::no_files()))
}
