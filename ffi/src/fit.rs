//! Checking that a model fits the rows it is fed, and reading hook names.

use crate::boundary::{call, value};
use crate::failure::{Failure, Found};
use crate::handle::{Handle, Kind};
use crate::memory::{optional_text, rows as read_rows, store, store_sized};
use crate::model::sae_model;
use crate::scratch::sae_scratch;
use crate::types::*;
use core::ffi::c_char;
use core::ptr::null_mut;
use sae::model::{Hook, HookPoint};

/// A fit check.
pub struct FitCheck(sae::FitCheck);

/// A fit check, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_fit_check = Handle<FitCheck>;

impl Kind for FitCheck {
    const TAG: u64 = u64::from_le_bytes(*b"sae:fitc");
    const NAME: &'static str = "sae_fit_check";
}

/// The number and layer by which C knows a hook.
pub(crate) fn hook_to_c(hook: Option<Hook>) -> (sae_hook_point, i32) {
    let Some(hook) = hook else {
        return (SAE_HOOK_UNKNOWN, -1);
    };
    let point = match hook.point {
        HookPoint::Embedding => SAE_HOOK_EMBEDDING,
        HookPoint::ResidPre => SAE_HOOK_RESID_PRE,
        HookPoint::ResidMid => SAE_HOOK_RESID_MID,
        HookPoint::ResidPost => SAE_HOOK_RESID_POST,
        HookPoint::Heads => SAE_HOOK_HEADS,
        HookPoint::AttnOut => SAE_HOOK_ATTN_OUT,
        HookPoint::MlpIn => SAE_HOOK_MLP_IN,
        HookPoint::MlpOut => SAE_HOOK_MLP_OUT,
        // A place that this interface has no number for yet.
        _ => SAE_HOOK_UNKNOWN,
    };
    (point, i32::try_from(hook.layer).unwrap_or(-1))
}

/// Reads a hook name.
///
/// # Safety
/// - `name` is a string; `point`, `layer` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_hook_parse(
    name: *const c_char,
    point: *mut sae_hook_point,
    layer: *mut i32,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `name` is a string.
        let name = unsafe { optional_text("name", name) }?;
        let name = name.ok_or(Failure::Null { argument: "name" })?;
        let hook = Hook::parse(name).ok_or_else(|| Failure::Invalid {
            argument: "name",
            expected: "the name of a known hook that means one place",
            found: Found::Text(name.into()),
        })?;
        let (number, block) = hook_to_c(Some(hook));
        // SAFETY: the caller guarantees that `point` is an output.
        unsafe { store("point", point, number) }?;
        // SAFETY: the caller guarantees that `layer` is an output.
        unsafe { store("layer", layer, block) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Makes a fit check.
///
/// # Safety
/// - `model` is a handle; `check` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_fit_check_create(
    model: *const sae_model,
    check: *mut *mut sae_fit_check,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `check` is an output.
        unsafe { store("check", check, null_mut()) }?;
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        let handle = Handle::on_heap(FitCheck(sae::FitCheck::new(&model.sae)?))?;
        // SAFETY: the caller guarantees that `check` is an output.
        unsafe { store("check", check, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Destroys a fit check.
///
/// # Safety
/// - `check` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_fit_check_destroy(check: *mut sae_fit_check) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(check) };
        Ok(())
    });
}

/// Adds rows to a fit check.
///
/// # Safety
/// - `model`, `check`, `scratch` are handles; `rows` and `targets` are inputs and describe one;
///   `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_check_fit(
    model: *const sae_model,
    check: *mut sae_fit_check,
    rows: *const sae_rows,
    targets: *const sae_rows,
    scratch: *mut sae_scratch,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `check` is a handle.
        let mut check = unsafe { Handle::exclusive("check", check) }?;
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        // SAFETY: the caller guarantees that `rows` is an input and describes one.
        let (rows, _) = unsafe { read_rows("rows", rows, model.sae.d_in()) }?;
        let targets = match targets.is_null() {
            true => None,
            // SAFETY: the caller guarantees that `targets` is an input and describes one.
            false => Some(unsafe { read_rows("targets", targets, model.sae.d_out()) }?.0),
        };
        Ok(check.0.add(&model.sae, rows, targets, &mut scratch.0)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// What a fit check knows.
///
/// # Safety
/// - `check` is a handle; `fit` (with its `struct_size`) and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_fit_check_result(
    check: *const sae_fit_check,
    fit: *mut sae_fit,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `check` is a handle.
        let check = unsafe { Handle::shared("check", check) }?;
        let found = check.0.result();
        let answer = sae_fit {
            struct_size: 0,
            verdict: match found.verdict {
                sae::Verdict::Fits => SAE_VERDICT_FITS,
                sae::Verdict::Doubtful => SAE_VERDICT_DOUBTFUL,
                sae::Verdict::Wrong => SAE_VERDICT_WRONG,
                _ => SAE_VERDICT_TOO_FEW_ROWS,
            },
            rows: found.rows,
            left_out: found.left_out,
            l0: found.l0,
            fvu: found.fvu,
        };
        // SAFETY: the caller guarantees that `fit` is an output; the struct has no padding.
        unsafe { store_sized("fit", FIT_SIZE_1, fit, answer) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}
