//! Low-rank sparse attention: models of their own kind, and caches of sequences.
//! `include/sae_architectures.h`.

use crate::boundary::{call, value};
use crate::failure::Failure;
use crate::features::sae_features;
use crate::handle::{Handle, Kind};
use crate::memory::{addresses, apart, rows as read_rows, slice, slice_mut, store};
use crate::open::{open_memory, open_path};
use crate::scratch::{Scratch, sae_scratch};
use crate::status::level_text;
use crate::types::*;
use core::ffi::{c_char, c_void};
use core::ptr::null_mut;

/// A Lorsa.
pub struct Lorsa(pub(crate) sae::Lorsa<'static>);

/// A Lorsa, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_lorsa = Handle<Lorsa>;

impl Kind for Lorsa {
    const TAG: u64 = u64::from_le_bytes(*b"sae:lors");
    const NAME: &'static str = "sae_lorsa";
}

/// What the rows of a sequence leave for later ones.
pub struct Cache(sae::LorsaCache<'static>);

/// The same, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_lorsa_cache = Handle<Cache>;

impl Kind for Cache {
    const TAG: u64 = u64::from_le_bytes(*b"sae:cach");
    const NAME: &'static str = "sae_lorsa_cache";
}

/// Opens a Lorsa.
///
/// # Safety
/// - `path` is a string; `options` is an input whose pointers are strings; `lorsa` and `error` are
///   outputs.
/// - The file is not changed or truncated while the Lorsa is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_open(
    path: *const c_char,
    options: *const sae_open_options,
    lorsa: *mut *mut sae_lorsa,
    error: *mut sae_error,
) -> sae_status {
    // SAFETY: the caller guarantees what `open_path` needs.
    let body = || unsafe { open_path("lorsa", path, options, lorsa, Lorsa) };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Opens a Lorsa from the bytes of a file.
///
/// # Safety
/// - `bytes` is an input of `n_bytes` that stays unchanged until the Lorsa, and what was derived
///   of it, is closed.
/// - `name` and `config` are strings; `options` is an input whose pointers are strings; `lorsa` and
///   `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_open_memory(
    bytes: *const c_void,
    n_bytes: usize,
    name: *const c_char,
    config: *const c_char,
    options: *const sae_open_options,
    lorsa: *mut *mut sae_lorsa,
    error: *mut sae_error,
) -> sae_status {
    let bytes = (bytes, n_bytes);
    // SAFETY: the caller guarantees what `open_memory` needs.
    let body = || unsafe { open_memory("lorsa", bytes, name, config, options, lorsa, Lorsa) };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// The same Lorsa selecting by another k.
///
/// # Safety
/// - `lorsa` is a handle; `derived` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_with_k(
    lorsa: *const sae_lorsa,
    k: usize,
    derived: *mut *mut sae_lorsa,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `derived` is an output.
        unsafe { store("derived", derived, null_mut()) }?;
        // SAFETY: the caller guarantees that `lorsa` is a handle.
        let lorsa = unsafe { Handle::borrow("lorsa", lorsa) }?;
        let handle = Handle::on_heap(Lorsa(lorsa.0.with_k(k)?))?;
        // SAFETY: the caller guarantees that `derived` is an output.
        unsafe { store("derived", derived, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Closes a Lorsa.
///
/// # Safety
/// - `lorsa` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_close(lorsa: *mut sae_lorsa) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(lorsa) };
        Ok(())
    });
}

/// Width of the rows that go in.
///
/// # Safety
/// - `lorsa` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_d_in(lorsa: *const sae_lorsa) -> usize {
    value(0, || {
        // SAFETY: the caller guarantees that `lorsa` is a handle.
        Ok(unsafe { Handle::borrow("lorsa", lorsa) }?.0.d_in())
    })
}

/// Number of features.
///
/// # Safety
/// - `lorsa` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_d_sae(lorsa: *const sae_lorsa) -> usize {
    value(0, || {
        // SAFETY: the caller guarantees that `lorsa` is a handle.
        Ok(unsafe { Handle::borrow("lorsa", lorsa) }?.0.d_sae())
    })
}

/// Width of the rows that decoding gives.
///
/// # Safety
/// - `lorsa` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_d_out(lorsa: *const sae_lorsa) -> usize {
    value(0, || {
        // SAFETY: the caller guarantees that `lorsa` is a handle.
        Ok(unsafe { Handle::borrow("lorsa", lorsa) }?.0.d_out())
    })
}

/// Name of the instruction set in use.
///
/// # Safety
/// - `lorsa` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_level(lorsa: *const sae_lorsa) -> *const c_char {
    let text = value(c"", || {
        // SAFETY: the caller guarantees that `lorsa` is a handle.
        let lorsa = unsafe { Handle::borrow("lorsa", lorsa) }?;
        Ok(level_text(lorsa.0.level()))
    });
    text.as_ptr()
}

/// Makes a scratch.
///
/// # Safety
/// - `lorsa` is a handle; `scratch` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_scratch_create(
    lorsa: *const sae_lorsa,
    scratch: *mut *mut sae_scratch,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `scratch` is an output.
        unsafe { store("scratch", scratch, null_mut()) }?;
        // SAFETY: the caller guarantees that `lorsa` is a handle.
        let lorsa = unsafe { Handle::borrow("lorsa", lorsa) }?;
        let handle = Handle::on_heap(Scratch(lorsa.0.scratch()?))?;
        // SAFETY: the caller guarantees that `scratch` is an output.
        unsafe { store("scratch", scratch, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Makes a cache.
///
/// # Safety
/// - `lorsa` is a handle; `cache` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_cache_create(
    lorsa: *const sae_lorsa,
    n_rows: usize,
    cache: *mut *mut sae_lorsa_cache,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `cache` is an output.
        unsafe { store("cache", cache, null_mut()) }?;
        // SAFETY: the caller guarantees that `lorsa` is a handle.
        let lorsa = unsafe { Handle::borrow("lorsa", lorsa) }?;
        let handle = Handle::on_heap(Cache(sae::LorsaCache::new(&lorsa.0, n_rows)?))?;
        // SAFETY: the caller guarantees that `cache` is an output.
        unsafe { store("cache", cache, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Destroys a cache.
///
/// # Safety
/// - `cache` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_cache_destroy(cache: *mut sae_lorsa_cache) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(cache) };
        Ok(())
    });
}

/// Rows of the sequence so far.
///
/// # Safety
/// - `cache` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_cache_length(cache: *const sae_lorsa_cache) -> usize {
    // SAFETY: the caller guarantees that `cache` is a handle.
    value(0, || Ok(unsafe { Handle::shared("cache", cache) }?.0.len()))
}

/// Takes rows back.
///
/// # Safety
/// - `cache` is a handle; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_cache_truncate(
    cache: *mut sae_lorsa_cache,
    length: usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `cache` is a handle.
        unsafe { Handle::exclusive("cache", cache) }?
            .0
            .truncate(length);
        Ok(())
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Encodes the next rows of a sequence.
///
/// # Safety
/// - `lorsa`, `cache`, `scratch` and `features` are handles; `rows` is an input and describes one;
///   `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_encode(
    lorsa: *const sae_lorsa,
    rows: *const sae_rows,
    cache: *mut sae_lorsa_cache,
    scratch: *mut sae_scratch,
    features: *mut sae_features,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `features` is a handle.
        let mut features = unsafe { Handle::exclusive("features", features) }?;
        features.0.clear();
        // SAFETY: the caller guarantees that `lorsa` is a handle.
        let lorsa = unsafe { Handle::borrow("lorsa", lorsa) }?;
        // SAFETY: the caller guarantees that `cache` is a handle.
        let mut cache = unsafe { Handle::exclusive("cache", cache) }?;
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        // SAFETY: the caller guarantees that `rows` is an input and describes one.
        let (rows, _) = unsafe { read_rows("rows", rows, lorsa.0.d_in()) }?;
        let (cache, scratch, features) = (&mut cache.0, &mut scratch.0, &mut features.0);
        Ok(lorsa.0.encode(rows, cache, scratch, features)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Reads chosen features out of the next rows of a sequence.
///
/// # Safety
/// - `lorsa`, `cache` and `scratch` are handles; `wanted` is an input of `n_wanted`; `rows` is an
///   input and describes one; `values` (of `n_values`), `status` (one for each row) and `error`
///   are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_readout(
    lorsa: *const sae_lorsa,
    wanted: *const u32,
    n_wanted: usize,
    rows: *const sae_rows,
    cache: *mut sae_lorsa_cache,
    scratch: *mut sae_scratch,
    values: *mut f32,
    n_values: usize,
    status: *mut sae_row_status,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `lorsa` is a handle.
        let lorsa = unsafe { Handle::borrow("lorsa", lorsa) }?;
        // SAFETY: the caller guarantees that `wanted` is an input of `n_wanted`.
        let wanted = unsafe { slice("wanted", wanted, n_wanted) }?;
        // SAFETY: the caller guarantees that `cache` is a handle.
        let mut cache = unsafe { Handle::exclusive("cache", cache) }?;
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        // SAFETY: the caller guarantees that `rows` is an input and describes one.
        let (rows, span) = unsafe { read_rows("rows", rows, lorsa.0.d_in()) }?;
        let expected = rows.rows().saturating_mul(n_wanted);
        if n_values != expected {
            return Err(Failure::Length {
                argument: "n_values",
                expected,
                found: n_values,
            });
        }
        if status.is_null() {
            return Err(Failure::Null { argument: "status" });
        }
        let (of_values, of_status) = (addresses(values, n_values), addresses(status, rows.rows()));
        apart(("values", of_values.clone()), ("rows", span.clone()))?;
        apart(("status", of_status.clone()), ("rows", span))?;
        apart(("status", of_status), ("values", of_values))?;
        // SAFETY: the caller guarantees that `values` is an output of `n_values`.
        let values = unsafe { slice_mut("values", values, n_values) }?;
        // A row status is one byte, and 0 is one of its values.
        let status = status.cast::<sae::RowStatus>();
        // SAFETY: the caller guarantees that `status` is an output of one byte for each row.
        let status = unsafe { slice_mut("status", status, rows.rows()) }?;
        let (cache, scratch) = (&mut cache.0, &mut scratch.0);
        Ok(lorsa
            .0
            .readout(wanted, rows, cache, scratch, values, status)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Decodes features.
///
/// # Safety
/// - `lorsa`, `features` and `scratch` are handles; `out` (of `n_out`) and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_decode(
    lorsa: *const sae_lorsa,
    features: *const sae_features,
    scratch: *mut sae_scratch,
    out: *mut f32,
    n_out: usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `lorsa` is a handle.
        let lorsa = unsafe { Handle::borrow("lorsa", lorsa) }?;
        // SAFETY: the caller guarantees that `features` is a handle.
        let features = unsafe { Handle::shared("features", features) }?;
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        let expected = features.0.rows().saturating_mul(lorsa.0.d_out());
        if n_out != expected {
            return Err(Failure::Length {
                argument: "n_out",
                expected,
                found: n_out,
            });
        }
        // SAFETY: the caller guarantees that `out` is an output of `n_out`.
        let out = unsafe { slice_mut("out", out, n_out) }?;
        Ok(lorsa.0.decode(&features.0, &mut scratch.0, out)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}
