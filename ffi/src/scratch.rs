//! Scratch: the work space of one thread.

use crate::boundary::{call, value};
use crate::failure::Failure;
use crate::handle::{Handle, Kind};
use crate::memory::{slice_mut, store};
use crate::model::sae_model;
use crate::types::*;
use core::ffi::c_void;
use core::ptr::null_mut;

/// A scratch whose memory is its own or the caller's.
pub struct Scratch(pub(crate) sae::Scratch<'static>);

/// A scratch, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_scratch = Handle<Scratch>;

impl Kind for Scratch {
    const TAG: u64 = u64::from_le_bytes(*b"sae:scra");
    const NAME: &'static str = "sae_scratch";
}

/// Bytes that a scratch in the caller's memory needs besides the buffers: the handle itself, at
/// any alignment of the memory.
const HANDLE_BYTES: usize = size_of::<sae_scratch>() + align_of::<sae_scratch>() - 1;

/// Bytes that `sae_scratch_create_in` needs.
///
/// # Safety
/// - `model` is a handle; `size` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_scratch_size(
    model: *const sae_model,
    size: *mut usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        let needed = HANDLE_BYTES.saturating_add(sae::Scratch::bytes_required(&model.sae));
        // SAFETY: the caller guarantees that `size` is an output.
        unsafe { store("size", size, needed) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Makes a scratch in memory of the library.
///
/// # Safety
/// - `model` is a handle; `scratch` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_scratch_create(
    model: *const sae_model,
    scratch: *mut *mut sae_scratch,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `scratch` is an output.
        unsafe { store("scratch", scratch, null_mut()) }?;
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        let handle = Handle::on_heap(Scratch(sae::Scratch::new(&model.sae)?))?;
        // SAFETY: the caller guarantees that `scratch` is an output.
        unsafe { store("scratch", scratch, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Makes a scratch in memory of the caller.
///
/// # Safety
/// - `model` is a handle; `scratch` and `error` are outputs.
/// - `memory` is an output of `n_bytes` that nobody touches until the scratch is destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_scratch_create_in(
    model: *const sae_model,
    memory: *mut c_void,
    n_bytes: usize,
    scratch: *mut *mut sae_scratch,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `scratch` is an output.
        unsafe { store("scratch", scratch, null_mut()) }?;
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        if memory.is_null() {
            return Err(Failure::Null { argument: "memory" });
        }
        let buffers = sae::Scratch::bytes_required(&model.sae);
        let needed = HANDLE_BYTES.saturating_add(buffers);
        if n_bytes < needed {
            return Err(Failure::Length {
                argument: "n_bytes",
                expected: needed,
                found: n_bytes,
            });
        }
        let misaligned = memory.addr() % align_of::<sae_scratch>();
        let padding = (align_of::<sae_scratch>() - misaligned) % align_of::<sae_scratch>();
        // SAFETY: there are `HANDLE_BYTES`, which is more than the padding.
        let place = unsafe { memory.cast::<u8>().add(padding) }.cast::<sae_scratch>();
        // SAFETY: there are `HANDLE_BYTES`: the padding and the handle.
        let rest = unsafe { place.add(1) }.cast::<u8>();
        // SAFETY: `needed` bytes were there and at most `HANDLE_BYTES` of them are before `rest`.
        // The caller guarantees that the memory is the scratch's until it is destroyed, so that
        // the lifetime may be `'static` inside of the handle.
        let buffers: &'static mut [u8] = unsafe { slice_mut("memory", rest, buffers) }?;
        let value = Scratch(sae::Scratch::from_memory(&model.sae, buffers)?);
        // SAFETY: `place` is aligned by the padding, and apart from the buffers.
        let handle = unsafe { Handle::in_place(place, value) };
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
pub unsafe extern "C" fn sae_scratch_destroy(scratch: *mut sae_scratch) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(scratch) };
        Ok(())
    });
}
