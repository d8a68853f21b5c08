//! Mixtures of linear transforms: models of their own kind, whose decoding reads the row.
//! `include/sae_architectures.h`.

use crate::boundary::{call, value};
use crate::failure::Failure;
use crate::features::sae_features;
use crate::handle::{Handle, Kind};
use crate::memory::{addresses, apart, rows as read_rows, slice, slice_mut, store};
use crate::open::{open_memory, open_path};
use crate::readout::{Set, sae_set};
use crate::status::level_text;
use crate::types::*;
use core::ffi::{c_char, c_void};
use core::ptr::null_mut;

/// A mixture of linear transforms.
pub struct Molt(pub(crate) sae::Molt<'static>);

/// The same, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_molt = Handle<Molt>;

impl Kind for Molt {
    const TAG: u64 = u64::from_le_bytes(*b"sae:molt");
    const NAME: &'static str = "sae_molt";
}

/// The work space of one thread.
pub struct MoltScratch(sae::MoltScratch);

/// The same, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_molt_scratch = Handle<MoltScratch>;

impl Kind for MoltScratch {
    const TAG: u64 = u64::from_le_bytes(*b"sae:mscr");
    const NAME: &'static str = "sae_molt_scratch";
}

/// Opens a mixture of transforms.
///
/// # Safety
/// - `path` is a string; `options` is an input whose pointers are strings; `molt` and `error` are
///   outputs.
/// - The file is not changed or truncated while the mixture is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_open(
    path: *const c_char,
    options: *const sae_open_options,
    molt: *mut *mut sae_molt,
    error: *mut sae_error,
) -> sae_status {
    // SAFETY: the caller guarantees what `open_path` needs.
    let body = || unsafe { open_path("molt", path, options, molt, Molt) };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Opens a mixture of transforms from the bytes of a file.
///
/// # Safety
/// - `bytes` is an input of `n_bytes` that stays unchanged until the mixture, and what was derived
///   of it, is closed.
/// - `name` and `config` are strings; `options` is an input whose pointers are strings; `molt` and
///   `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_open_memory(
    bytes: *const c_void,
    n_bytes: usize,
    name: *const c_char,
    config: *const c_char,
    options: *const sae_open_options,
    molt: *mut *mut sae_molt,
    error: *mut sae_error,
) -> sae_status {
    let bytes = (bytes, n_bytes);
    // SAFETY: the caller guarantees what `open_memory` needs.
    let body = || unsafe { open_memory("molt", bytes, name, config, options, molt, Molt) };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Closes a mixture of transforms.
///
/// # Safety
/// - `molt` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_close(molt: *mut sae_molt) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(molt) };
        Ok(())
    });
}

/// Width of the rows that go in.
///
/// # Safety
/// - `molt` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_d_in(molt: *const sae_molt) -> usize {
    value(0, || {
        // SAFETY: the caller guarantees that `molt` is a handle.
        Ok(unsafe { Handle::borrow("molt", molt) }?.0.d_in())
    })
}

/// Number of features.
///
/// # Safety
/// - `molt` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_d_sae(molt: *const sae_molt) -> usize {
    value(0, || {
        // SAFETY: the caller guarantees that `molt` is a handle.
        Ok(unsafe { Handle::borrow("molt", molt) }?.0.d_sae())
    })
}

/// Width of the rows that decoding gives.
///
/// # Safety
/// - `molt` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_d_out(molt: *const sae_molt) -> usize {
    value(0, || {
        // SAFETY: the caller guarantees that `molt` is a handle.
        Ok(unsafe { Handle::borrow("molt", molt) }?.0.d_out())
    })
}

/// Name of the instruction set in use.
///
/// # Safety
/// - `molt` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_level(molt: *const sae_molt) -> *const c_char {
    let text = value(c"", || {
        // SAFETY: the caller guarantees that `molt` is a handle.
        let molt = unsafe { Handle::borrow("molt", molt) }?;
        Ok(level_text(molt.0.level()))
    });
    text.as_ptr()
}

/// The same mixture selecting by another k.
///
/// # Safety
/// - `molt` is a handle; `derived` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_with_k(
    molt: *const sae_molt,
    k: usize,
    derived: *mut *mut sae_molt,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `derived` is an output.
        unsafe { store("derived", derived, null_mut()) }?;
        // SAFETY: the caller guarantees that `molt` is a handle.
        let molt = unsafe { Handle::borrow("molt", molt) }?;
        let handle = Handle::on_heap(Molt(molt.0.with_k(k)?))?;
        // SAFETY: the caller guarantees that `derived` is an output.
        unsafe { store("derived", derived, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Makes a scratch.
///
/// # Safety
/// - `molt` is a handle; `scratch` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_scratch_create(
    molt: *const sae_molt,
    scratch: *mut *mut sae_molt_scratch,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `scratch` is an output.
        unsafe { store("scratch", scratch, null_mut()) }?;
        // SAFETY: the caller guarantees that `molt` is a handle.
        let molt = unsafe { Handle::borrow("molt", molt) }?;
        let handle = Handle::on_heap(MoltScratch(molt.0.scratch()?))?;
        // SAFETY: the caller guarantees that `scratch` is an output.
        unsafe { store("scratch", scratch, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Destroys a scratch.
///
/// # Safety
/// - `scratch` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_scratch_destroy(scratch: *mut sae_molt_scratch) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(scratch) };
        Ok(())
    });
}

/// Encodes rows.
///
/// # Safety
/// - `molt`, `scratch` and `features` are handles; `rows` is an input and describes one; `error` is
///   an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_encode(
    molt: *const sae_molt,
    rows: *const sae_rows,
    scratch: *mut sae_molt_scratch,
    features: *mut sae_features,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `features` is a handle.
        let mut features = unsafe { Handle::exclusive("features", features) }?;
        features.0.clear();
        // SAFETY: the caller guarantees that `molt` is a handle.
        let molt = unsafe { Handle::borrow("molt", molt) }?;
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        // SAFETY: the caller guarantees that `rows` is an input and describes one.
        let (rows, _) = unsafe { read_rows("rows", rows, molt.0.d_in()) }?;
        Ok(molt.0.encode(rows, &mut scratch.0, &mut features.0)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Compiles a set.
///
/// # Safety
/// - `molt` is a handle; `features` is an input of `count`; `set` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_set_compile(
    molt: *const sae_molt,
    features: *const u32,
    count: usize,
    set: *mut *mut sae_set,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `set` is an output.
        unsafe { store("set", set, null_mut()) }?;
        // SAFETY: the caller guarantees that `molt` is a handle.
        let molt = unsafe { Handle::borrow("molt", molt) }?;
        // SAFETY: the caller guarantees that `features` is an input.
        let features = unsafe { slice("features", features, count) }?;
        let handle = Handle::on_heap(Set(molt.0.compile_set(features)?))?;
        // SAFETY: the caller guarantees that `set` is an output.
        unsafe { store("set", set, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Reads a set out of rows.
///
/// # Safety
/// - `molt`, `set` and `scratch` are handles; `rows` is an input and describes one; `values` (of
///   `n_values`), `status` (one for each row) and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_readout(
    molt: *const sae_molt,
    set: *const sae_set,
    rows: *const sae_rows,
    scratch: *mut sae_molt_scratch,
    values: *mut f32,
    n_values: usize,
    status: *mut sae_row_status,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `molt` is a handle.
        let molt = unsafe { Handle::borrow("molt", molt) }?;
        // SAFETY: the caller guarantees that `set` is a handle.
        let set = unsafe { Handle::borrow("set", set) }?;
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        // SAFETY: the caller guarantees that `rows` is an input and describes one.
        let (rows, span) = unsafe { read_rows("rows", rows, molt.0.d_in()) }?;
        let expected = rows.rows().saturating_mul(set.0.len());
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
        Ok(molt
            .0
            .readout(&set.0, rows, &mut scratch.0, values, status)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Decodes features of rows.
///
/// # Safety
/// - `molt`, `features` and `scratch` are handles; `inputs` is an input and describes one; `out` (of
///   `n_out`) and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_decode(
    molt: *const sae_molt,
    features: *const sae_features,
    inputs: *const sae_rows,
    scratch: *mut sae_molt_scratch,
    out: *mut f32,
    n_out: usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `molt` is a handle.
        let molt = unsafe { Handle::borrow("molt", molt) }?;
        // SAFETY: the caller guarantees that `features` is a handle.
        let features = unsafe { Handle::shared("features", features) }?;
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        // SAFETY: the caller guarantees that `inputs` is an input and describes one.
        let (inputs, span) = unsafe { read_rows("inputs", inputs, molt.0.d_in()) }?;
        let expected = features.0.rows().saturating_mul(molt.0.d_out());
        if n_out != expected {
            return Err(Failure::Length {
                argument: "n_out",
                expected,
                found: n_out,
            });
        }
        apart(("out", addresses(out, n_out)), ("inputs", span))?;
        // SAFETY: the caller guarantees that `out` is an output of `n_out`.
        let out = unsafe { slice_mut("out", out, n_out) }?;
        Ok(molt
            .0
            .decode(&features.0, Some(inputs), &mut scratch.0, out)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}
