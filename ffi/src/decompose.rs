//! What steering vectors are made of. `include/sae_steer.h`.

use crate::boundary::{call, value};
use crate::derive::read_pursuit;
use crate::failure::Failure;
use crate::handle::{Handle, Kind};
use crate::memory::{load_sized, optional_text, slice, slice_mut, store, store_sized, store_text};
use crate::model::sae_model;
use crate::types::*;
use alloc::string::ToString;
use core::ffi::c_char;
use core::ptr::null_mut;
use sae::model::Pursuit;
use sae::steer::Projection;

/// A vector as a sum of features.
pub struct Decomposition(sae::steer::Decomposition);

/// A vector as a sum of features, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_decomposition = Handle<Decomposition>;

impl Kind for Decomposition {
    const TAG: u64 = u64::from_le_bytes(*b"sae:deco");
    const NAME: &'static str = "sae_decomposition";
}

/// Steps of the pursuit that is used if none is given.
const STEPS: usize = 16;

/// Decomposes a vector.
///
/// # Safety
/// - `model` is a handle; `values` is an input of `n_values`; `pursuit` is NULL or an input with its
///   `struct_size`; `decomposition` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_decompose(
    model: *const sae_model,
    values: *const f32,
    n_values: usize,
    pursuit: *const sae_pursuit,
    most: usize,
    decomposition: *mut *mut sae_decomposition,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `decomposition` is an output.
        unsafe { store("decomposition", decomposition, null_mut()) }?;
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        length("n_values", model.sae.d_out(), n_values)?;
        // SAFETY: the caller guarantees that `values` is an input of `n_values`.
        let values = unsafe { slice("values", values, n_values) }?;
        let pursuit = match pursuit.is_null() {
            true => Pursuit::orthogonal(STEPS, true),
            // SAFETY: not NULL; an input with its size by contract.
            false => read_pursuit(&unsafe { load_sized("pursuit", PURSUIT_SIZE_1, pursuit) }?)?,
        };
        let found = model.sae.decompose(values, pursuit, most)?;
        let handle = Handle::on_heap(Decomposition(found))?;
        // SAFETY: the caller guarantees that `decomposition` is an output.
        unsafe { store("decomposition", decomposition, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Destroys a decomposition.
///
/// # Safety
/// - `decomposition` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_decomposition_destroy(decomposition: *mut sae_decomposition) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(decomposition) };
        Ok(())
    });
}

/// The numbers of the whole.
///
/// # Safety
/// - `decomposition` is a handle; `result` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_decomposition_result(
    decomposition: *const sae_decomposition,
    result: *mut sae_decomposed,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `decomposition` is a handle.
        let found = &unsafe { Handle::borrow("decomposition", decomposition) }?.0;
        let answer = sae_decomposed {
            struct_size: 0,
            reserved: 0,
            n_parts: found.parts.len() as u64,
            n_along: found.along.len() as u64,
            n_against: found.against.len() as u64,
            norm: found.norm,
            cosine: found.cosine,
            explained: found.explained,
        };
        // SAFETY: the caller guarantees that `result` is an output with its size.
        unsafe { store_sized("result", DECOMPOSED_SIZE_1, result, answer) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// The features that it is made of.
///
/// # Safety
/// - `decomposition` is a handle; `parts` (of `n_parts`) and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_decomposition_parts(
    decomposition: *const sae_decomposition,
    parts: *mut sae_vector_part,
    n_parts: usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `decomposition` is a handle.
        let found = &unsafe { Handle::borrow("decomposition", decomposition) }?.0;
        length("n_parts", found.parts.len(), n_parts)?;
        // SAFETY: the caller guarantees that `parts` is an output of `n_parts`.
        let parts = unsafe { slice_mut("parts", parts, n_parts) }?;
        for (part, found) in parts.iter_mut().zip(&found.parts) {
            *part = sae_vector_part {
                feature: found.on.feature,
                reserved: 0,
                cosine: found.on.cosine,
                projection: found.on.projection,
                length: found.length,
                strength: found.strength.unwrap_or(f64::NAN),
            };
        }
        Ok(())
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// The features that the vector points along the most.
///
/// # Safety
/// - `decomposition` is a handle; `projections` (of `n_projections`) and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_decomposition_along(
    decomposition: *const sae_decomposition,
    projections: *mut sae_projection,
    n_projections: usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `decomposition` is a handle.
        let found = &unsafe { Handle::borrow("decomposition", decomposition) }?.0;
        // SAFETY: the caller guarantees that `projections` is an output of `n_projections`.
        unsafe { copy(&found.along, projections, n_projections) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// The features that the vector points against the most.
///
/// # Safety
/// - `decomposition` is a handle; `projections` (of `n_projections`) and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_decomposition_against(
    decomposition: *const sae_decomposition,
    projections: *mut sae_projection,
    n_projections: usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `decomposition` is a handle.
        let found = &unsafe { Handle::borrow("decomposition", decomposition) }?.0;
        // SAFETY: the caller guarantees that `projections` is an output of `n_projections`.
        unsafe { copy(&found.against, projections, n_projections) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// A plan that adds the parts to every row, as JSON text.
///
/// # Safety
/// - `decomposition` is a handle; `name` is a string; `buffer` (of `buffer_size`), `size` and
///   `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_decomposition_write_plan(
    decomposition: *const sae_decomposition,
    name: *const c_char,
    buffer: *mut c_char,
    buffer_size: usize,
    size: *mut usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `decomposition` is a handle.
        let found = &unsafe { Handle::borrow("decomposition", decomposition) }?.0;
        // SAFETY: the caller guarantees that `name` is a string.
        let name = unsafe { optional_text("name", name) }?;
        let text = found.plan(name.unwrap_or_default()).to_json().to_string();
        // SAFETY: the caller guarantees that `buffer` and `size` are outputs.
        unsafe { store_text(text, buffer, buffer_size, size) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// # Safety
/// `projections` is an output of `n_projections`.
unsafe fn copy(
    found: &[Projection],
    projections: *mut sae_projection,
    n_projections: usize,
) -> Result<(), Failure> {
    length("n_projections", found.len(), n_projections)?;
    // SAFETY: the caller guarantees it.
    let projections = unsafe { slice_mut("projections", projections, n_projections) }?;
    for (projection, found) in projections.iter_mut().zip(found) {
        *projection = sae_projection {
            feature: found.feature,
            reserved: 0,
            cosine: found.cosine,
            projection: found.projection,
        };
    }
    Ok(())
}

fn length(argument: &'static str, expected: usize, found: usize) -> Result<(), Failure> {
    match expected == found {
        true => Ok(()),
        false => Err(Failure::Length {
            argument,
            expected,
            found,
        }),
    }
}
