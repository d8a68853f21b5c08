//! Quality of reconstructions. `include/sae_monitor.h`.

use crate::boundary::{call, value};
use crate::failure::{Failure, Found};
use crate::features::sae_features;
use crate::handle::{Handle, Kind};
use crate::memory::{
    addresses, apart, bytes as read_bytes, load_sized, rows as read_rows, slice, slice_mut, store,
    store_sized,
};
use crate::model::sae_model;
use crate::monitor_events::fits;
use crate::types::*;
use alloc::string::{String, ToString};
use core::ffi::{c_char, c_void};
use core::ptr::null_mut;
use sae::monitor::{ErrorFit, ErrorModel, RowQuality};

/// Streaming quality, and what a baseline of the errors is fitted from.
pub struct Quality {
    quality: sae::monitor::Quality,
    fit: Option<ErrorFit>,
}

/// Quality, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_quality = Handle<Quality>;

impl Kind for Quality {
    const TAG: u64 = u64::from_le_bytes(*b"sae:qual");
    const NAME: &'static str = "sae_quality";
}

/// Makes quality that has seen nothing.
///
/// # Safety
/// - `model` is a handle; `options` is NULL or an input with its size, whose `mean` is NULL or an
///   input of `n_mean`; `quality` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_quality_create(
    model: *const sae_model,
    options: *const sae_quality_options,
    quality: *mut *mut sae_quality,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `quality` is an output.
        unsafe { store("quality", quality, null_mut()) }?;
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        let mut mean: Option<&[f32]> = None;
        let mut fit = false;
        if !options.is_null() {
            // SAFETY: not NULL; the caller guarantees that it holds its size.
            let given = unsafe { load_sized("options", QUALITY_OPTIONS_SIZE_1, options) }?;
            if given.fit_errors > 1 {
                return Err(Failure::Invalid {
                    argument: "options.fit_errors",
                    expected: "0 or 1",
                    found: Found::Unsigned(given.fit_errors.into()),
                });
            }
            fit = given.fit_errors == 1;
            if !given.mean.is_null() || given.n_mean > 0 {
                // SAFETY: the caller guarantees that `mean` is an input of `n_mean`.
                mean = Some(unsafe { slice("options.mean", given.mean, given.n_mean) }?);
            }
        }
        let (sae, d) = (&model.sae, model.sae.d_out());
        let handle = Handle::on_heap(Quality {
            quality: match mean {
                None => sae::monitor::Quality::new(sae)?,
                Some(mean) => sae::monitor::Quality::about(sae, mean)?,
            },
            fit: if fit { Some(ErrorFit::new(d)?) } else { None },
        })?;
        // SAFETY: the caller guarantees that `quality` is an output.
        unsafe { store("quality", quality, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Destroys quality.
///
/// # Safety
/// - `quality` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_quality_destroy(quality: *mut sae_quality) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(quality) };
        Ok(())
    });
}

/// Adds rows.
///
/// # Safety
/// - `quality` and `features` are handles; `rows` is an input and describes one; `reconstructions`
///   is an input of `n_values`; `each` is NULL or an output of `n_each`; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_quality_add(
    quality: *mut sae_quality,
    rows: *const sae_rows,
    features: *const sae_features,
    reconstructions: *const f32,
    n_values: usize,
    each: *mut sae_row_quality,
    n_each: usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `quality` is a handle.
        let mut quality = unsafe { Handle::exclusive("quality", quality) }?;
        let Quality { quality, fit } = &mut *quality;
        // SAFETY: the caller guarantees that `rows` is an input and describes one.
        let (rows, span) = unsafe { read_rows("rows", rows, quality.d_out()) }?;
        // SAFETY: the caller guarantees that `features` is a handle.
        let features = unsafe { Handle::shared("features", features) }?;
        // SAFETY: the caller guarantees that `reconstructions` is an input of `n_values`.
        let decoded = unsafe { slice("reconstructions", reconstructions, n_values) }?;
        let out = ("each", addresses(each, n_each));
        apart(out.clone(), ("rows", span))?;
        let values = addresses(reconstructions, n_values);
        apart(out, ("reconstructions", values))?;
        let count = rows.rows();
        if n_each > 0 && n_each != count {
            return Err(Failure::Length {
                argument: "n_each",
                expected: count,
                found: n_each,
            });
        }
        // SAFETY: the caller guarantees that `each` is an output of `n_each`.
        let each = unsafe { slice_mut("each", each, n_each) }?;
        let mut tell = |number: usize, found: &RowQuality| {
            if let Some(out) = each.get_mut(number) {
                *out = to_c(found);
            }
        };
        let d = quality.d_out();
        let Some(fit) = fit else {
            return Ok(quality.add_all(rows, &features.0, decoded, &mut tell)?);
        };
        let mut wide = alloc::vec::Vec::new();
        wide.try_reserve_exact(d)
            .map_err(|_| sae::Error::OutOfMemory {
                what: "a row",
                bytes: 4 * d as u64,
            })?;
        wide.resize(d, 0.0f32);
        let mut failed = Ok(());
        quality.add_all(rows, &features.0, decoded, &mut |number, found| {
            tell(number, found);
            rows.read(number, &mut wide);
            if let Err(error) = fit.add(&wide, found) {
                failed = Err(error);
            }
        })?;
        Ok(failed?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

fn to_c(found: &RowQuality) -> sae_row_quality {
    sae_row_quality {
        l0: found.l0,
        l1: found.l1,
        l2: found.l2,
        norm: found.norm,
        reconstruction_norm: found.reconstruction_norm,
        error_norm: found.error_norm,
        cosine: found.cosine,
        norm_ratio: found.norm_ratio,
        zf_deviation: found.zf_deviation,
        afa_loss: found.afa_loss,
        anomaly: found.anomaly,
        finite: found.finite.into(),
        reserved: 0,
    }
}

/// Means over all rows so far.
///
/// # Safety
/// - `quality` is a handle; `summary` is an output with its size; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_quality_summarize(
    quality: *const sae_quality,
    summary: *mut sae_quality_summary,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `quality` is a handle.
        let quality = unsafe { Handle::shared("quality", quality) }?;
        let found = quality.quality.summary();
        let answer = sae_quality_summary {
            struct_size: 0,
            reserved: 0,
            rows: found.rows,
            non_finite: found.non_finite,
            overflows: found.overflows,
            anomalous: found.anomalous,
            l0: found.l0,
            l1: found.l1,
            mse: found.mse,
            fvu: found.fvu,
            explained_variance: found.explained_variance,
            cosine: found.cosine,
            norm_ratio: found.norm_ratio,
            reconstruction_bias: found.reconstruction_bias,
            zf_deviation: found.zf_deviation,
            afa_loss: found.afa_loss,
        };
        // SAFETY: the caller guarantees that `summary` is an output with its size.
        unsafe { store_sized("summary", QUALITY_SUMMARY_SIZE_1, summary, answer) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Writes the summary as JSON.
///
/// # Safety
/// - `quality` is a handle; `buffer` (of `n_bytes`), `needed` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_quality_json(
    quality: *const sae_quality,
    buffer: *mut c_char,
    n_bytes: usize,
    needed: *mut usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `quality` is a handle.
        let quality = unsafe { Handle::shared("quality", quality) }?;
        let text = quality.quality.to_json().to_string();
        // SAFETY: the caller guarantees that `buffer` (of `n_bytes`) and `needed` are outputs.
        unsafe { give_text(text, buffer, n_bytes, needed) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Writes a text and a zero byte: as much as fits.
///
/// # Safety
/// - `buffer` (of `n_bytes`) and `needed` are outputs.
pub(crate) unsafe fn give_text(
    mut text: String,
    buffer: *mut c_char,
    n_bytes: usize,
    needed: *mut usize,
) -> Result<(), Failure> {
    apart(
        ("buffer", addresses(buffer, n_bytes)),
        ("needed", addresses(needed, 1)),
    )?;
    text.push('\0');
    // SAFETY: the caller guarantees that `buffer` is an output of `n_bytes`.
    let buffer = unsafe { slice_mut("buffer", buffer.cast::<u8>(), n_bytes) }?;
    for (to, byte) in buffer.iter_mut().zip(text.bytes()) {
        *to = byte;
    }
    // SAFETY: the caller guarantees that `needed` is an output.
    unsafe { fits(buffer, text.len(), needed) }
}

/// Writes bytes of a known length: all of them or none.
///
/// # Safety
/// - `buffer` (of `n_bytes`) and `needed` are outputs.
pub(crate) unsafe fn give_bytes(
    length: usize,
    make: impl FnOnce() -> Result<alloc::vec::Vec<u8>, sae::Error>,
    buffer: *mut c_void,
    n_bytes: usize,
    needed: *mut usize,
) -> Result<(), Failure> {
    apart(
        ("buffer", addresses(buffer.cast::<u8>(), n_bytes)),
        ("needed", addresses(needed, 1)),
    )?;
    // SAFETY: the caller guarantees that `needed` is an output.
    unsafe { store("needed", needed, length) }?;
    if n_bytes == 0 {
        return Ok(());
    }
    if n_bytes < length {
        return Err(Failure::Length {
            argument: "n_bytes",
            expected: length,
            found: n_bytes,
        });
    }
    let bytes = make()?;
    // SAFETY: the caller guarantees that `buffer` is an output of `n_bytes`.
    let buffer = unsafe { slice_mut("buffer", buffer.cast::<u8>(), n_bytes) }?;
    for (to, byte) in buffer.iter_mut().zip(bytes) {
        *to = byte;
    }
    Ok(())
}

/// Writes a snapshot.
///
/// # Safety
/// - `quality` is a handle; `buffer` (of `n_bytes`), `needed` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_quality_snapshot(
    quality: *const sae_quality,
    buffer: *mut c_void,
    n_bytes: usize,
    needed: *mut usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `quality` is a handle.
        let quality = unsafe { Handle::shared("quality", quality) }?;
        let quality = &quality.quality;
        let make = || quality.to_bytes();
        // SAFETY: the caller guarantees that `buffer` (of `n_bytes`) and `needed` are outputs.
        unsafe { give_bytes(quality.snapshot_len(), make, buffer, n_bytes, needed) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Adds a snapshot.
///
/// # Safety
/// - `model` and `quality` are handles; `bytes` is an input of `n_bytes`; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_quality_merge(
    model: *const sae_model,
    quality: *mut sae_quality,
    bytes: *const c_void,
    n_bytes: usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `quality` is a handle.
        let mut quality = unsafe { Handle::exclusive("quality", quality) }?;
        // SAFETY: the caller guarantees that `bytes` is an input of `n_bytes`.
        let bytes = unsafe { read_bytes("bytes", bytes, n_bytes) }?;
        let other = sae::monitor::Quality::from_bytes(bytes, &model.sae)?;
        Ok(quality.quality.merge(&other)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Fits a baseline of the errors.
///
/// # Safety
/// - `quality` is a handle; `buffer` (of `n_bytes`), `needed` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_quality_fit_errors(
    quality: *const sae_quality,
    ridge: f64,
    buffer: *mut c_void,
    n_bytes: usize,
    needed: *mut usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `quality` is a handle.
        let quality = unsafe { Handle::shared("quality", quality) }?;
        let fit = quality.fit.as_ref().ok_or(Failure::Invalid {
            argument: "quality",
            expected: "one that was made with `fit_errors`",
            found: Found::Text("one that was not".into()),
        })?;
        let length = ErrorModel::snapshot_len_of(quality.quality.d_out());
        let make = || fit.solve(ridge)?.to_bytes();
        // SAFETY: the caller guarantees that `buffer` (of `n_bytes`) and `needed` are outputs.
        unsafe { give_bytes(length, make, buffer, n_bytes, needed) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Sets the baseline of the errors.
///
/// # Safety
/// - `quality` is a handle; `bytes` is an input of `n_bytes`; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_quality_set_error_model(
    quality: *mut sae_quality,
    bytes: *const c_void,
    n_bytes: usize,
    over: f64,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `quality` is a handle.
        let mut quality = unsafe { Handle::exclusive("quality", quality) }?;
        // SAFETY: the caller guarantees that `bytes` is an input of `n_bytes`.
        let bytes = unsafe { read_bytes("bytes", bytes, n_bytes) }?;
        let model = ErrorModel::from_bytes(bytes)?;
        Ok(quality.quality.set_error_model(model, over)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}
