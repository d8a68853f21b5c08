//! Plans and rules of models of kinds of their own. `include/sae_steer.h`, `include/sae_monitor.h`.

use crate::boundary::call;
use crate::failure::{Failure, Found};
use crate::features::sae_features;
use crate::handle::Handle;
use crate::lorsa::sae_lorsa;
use crate::memory::{load_sized, slice_mut, store, store_sized};
use crate::molt::sae_molt;
use crate::monitor::{self, sae_monitor};
use crate::monitor_events::{self, sae_rules};
use crate::steer::{
    Plan, SteerScratch, cost_of, length, read_batch, read_plan, read_plans, sae_plan,
    sae_steer_scratch,
};
use crate::types::*;
use core::ffi::c_char;
use core::ptr::null_mut;

/// Compiles plans for a Lorsa.
///
/// # Safety
/// - `lorsa` is a handle; `plans` is an input of `n_plans` strings; `plan` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_plan_compile(
    lorsa: *const sae_lorsa,
    plans: *const *const c_char,
    n_plans: usize,
    conflicts: sae_conflicts,
    plan: *mut *mut sae_plan,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `plan` is an output.
        unsafe { store("plan", plan, null_mut()) }?;
        // SAFETY: the caller guarantees that `lorsa` is a handle.
        let lorsa = unsafe { Handle::borrow("lorsa", lorsa) }?;
        // SAFETY: the caller guarantees that `plans` is an input of strings.
        let (read, conflicts) = unsafe { read_plans(plans, n_plans, conflicts) }?;
        let handle = Handle::on_heap(Plan(lorsa.0.compile_plans(&read, conflicts)?))?;
        // SAFETY: the caller guarantees that `plan` is an output.
        unsafe { store("plan", plan, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// What a plan costs with a Lorsa.
///
/// # Safety
/// - `lorsa` is a handle; `text` is a string; `cost` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_plan_cost(
    lorsa: *const sae_lorsa,
    text: *const c_char,
    cost: *mut sae_plan_cost,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `lorsa` is a handle.
        let lorsa = unsafe { Handle::borrow("lorsa", lorsa) }?;
        // SAFETY: the caller guarantees that `text` is a string.
        let plan = unsafe { read_plan("text", text) }?;
        let answer = cost_of(&lorsa.0.plan_cost(&plan)?);
        // SAFETY: the caller guarantees that `cost` is an output with its size.
        unsafe { store_sized("cost", PLAN_COST_SIZE_1, cost, answer) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// The vector that plans add to every row of a Lorsa.
///
/// # Safety
/// - `lorsa` and `plan` are handles; `values` (of `n_values`) and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_plan_vector(
    lorsa: *const sae_lorsa,
    plan: *const sae_plan,
    values: *mut f32,
    n_values: usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `lorsa` is a handle.
        let lorsa = unsafe { Handle::borrow("lorsa", lorsa) }?;
        // SAFETY: the caller guarantees that `plan` is a handle.
        let plan = unsafe { Handle::borrow("plan", plan) }?;
        length("n_values", lorsa.0.d_out(), n_values)?;
        // SAFETY: the caller guarantees that `values` is an output of `n_values`.
        let values = unsafe { slice_mut("values", values, n_values) }?;
        values.copy_from_slice(&lorsa.0.constant_vector(&plan.0)?);
        Ok(())
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Makes work space for steering with a Lorsa.
///
/// # Safety
/// - `lorsa` and `plan` are handles; `scratch` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_steer_scratch_create(
    lorsa: *const sae_lorsa,
    plan: *const sae_plan,
    scratch: *mut *mut sae_steer_scratch,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `scratch` is an output.
        unsafe { store("scratch", scratch, null_mut()) }?;
        // SAFETY: the caller guarantees that `lorsa` is a handle.
        let lorsa = unsafe { Handle::borrow("lorsa", lorsa) }?;
        // SAFETY: the caller guarantees that `plan` is a handle.
        let plan = unsafe { Handle::borrow("plan", plan) }?;
        let space = lorsa.0.steer_scratch(&plan.0)?;
        let handle = Handle::on_heap(SteerScratch::of(space, &plan.0))?;
        // SAFETY: the caller guarantees that `scratch` is an output.
        unsafe { store("scratch", scratch, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Compiles rules for a Lorsa.
///
/// # Safety
/// - `lorsa` is a handle; `text` is a string; `rules` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_rules_compile(
    lorsa: *const sae_lorsa,
    text: *const c_char,
    rules: *mut *mut sae_rules,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `rules` is an output.
        unsafe { store("rules", rules, null_mut()) }?;
        // SAFETY: the caller guarantees that `lorsa` is a handle.
        let lorsa = unsafe { Handle::borrow("lorsa", lorsa) }?;
        // SAFETY: the caller guarantees that `text` is a string.
        let handle = unsafe { monitor_events::make(text, &|plain| lorsa.0.compile_rules(plain)) }?;
        // SAFETY: the caller guarantees that `rules` is an output.
        unsafe { store("rules", rules, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Makes a monitor of the features of a Lorsa.
///
/// # Safety
/// - `lorsa` and `rules` are handles; `options` is NULL or an input with its size, whose `ring` is
///   NULL or a handle; `monitor` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_monitor_create(
    lorsa: *const sae_lorsa,
    rules: *const sae_rules,
    options: *const sae_monitor_options,
    monitor: *mut *mut sae_monitor,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `monitor` is an output.
        unsafe { store("monitor", monitor, null_mut()) }?;
        // SAFETY: the caller guarantees that `lorsa` is a handle.
        let lorsa = unsafe { Handle::borrow("lorsa", lorsa) }?;
        // SAFETY: the caller guarantees that `rules` is a handle.
        let rules = unsafe { Handle::borrow("rules", rules) }?;
        let collect = |features: Option<&[u32]>| match features {
            Some(features) => lorsa.0.collect_features(features),
            None => lorsa.0.collect_all(),
        };
        // SAFETY: the caller guarantees what `options` is.
        let handle = unsafe { monitor::make(rules, options, &collect) }?;
        // SAFETY: the caller guarantees that `monitor` is an output.
        unsafe { store("monitor", monitor, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Steers rows of a Lorsa in place, by features that are known.
///
/// # Safety
/// - `lorsa`, `plan`, `features` and `scratch` are handles; `sources` is NULL or one; `batch` is as
///   for `sae_model_steer`; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_lorsa_steer(
    lorsa: *const sae_lorsa,
    plan: *const sae_plan,
    features: *const sae_features,
    sources: *const sae_features,
    batch: *const sae_steer_batch,
    scratch: *mut sae_steer_scratch,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `lorsa` is a handle.
        let lorsa = unsafe { Handle::borrow("lorsa", lorsa) }?;
        // SAFETY: the caller guarantees that `plan` is a handle.
        let plan = unsafe { Handle::borrow("plan", plan) }?;
        // SAFETY: the caller guarantees that `features` is a handle.
        let features = unsafe { Handle::shared("features", features) }?;
        let sources = match sources.is_null() {
            true => None,
            // SAFETY: not NULL; the caller guarantees that it is a handle.
            false => Some(unsafe { Handle::shared("sources", sources) }?),
        };
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        if batch.is_null() {
            return Err(Failure::Null { argument: "batch" });
        }
        // SAFETY: not NULL; the caller guarantees that it holds its size.
        let batch = unsafe { load_sized("batch", STEER_BATCH_SIZE_1, batch) }?;
        for (argument, rows) in [
            ("batch.inputs", batch.inputs),
            ("batch.sources", batch.sources),
        ] {
            if !rows.is_null() {
                return Err(Failure::Invalid {
                    argument,
                    expected: "NULL: a Lorsa is steered by features",
                    found: Found::Text("rows".into()),
                });
            }
        }
        let SteerScratch {
            scratch,
            report,
            infos,
        } = &mut *scratch;
        let widths = (lorsa.0.d_in(), lorsa.0.d_out());
        // SAFETY: the caller guarantees what the batch describes.
        let batch = unsafe { read_batch(&batch, widths, infos) }?;
        let sources = sources.as_ref().map(|sources| &sources.0);
        let of_rows = &features.0;
        Ok(lorsa
            .0
            .steer(&plan.0, of_rows, sources, batch, scratch, report)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Compiles plans for a mixture of transforms.
///
/// # Safety
/// - `molt` is a handle; `plans` is an input of `n_plans` strings; `plan` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_plan_compile(
    molt: *const sae_molt,
    plans: *const *const c_char,
    n_plans: usize,
    conflicts: sae_conflicts,
    plan: *mut *mut sae_plan,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `plan` is an output.
        unsafe { store("plan", plan, null_mut()) }?;
        // SAFETY: the caller guarantees that `molt` is a handle.
        let molt = unsafe { Handle::borrow("molt", molt) }?;
        // SAFETY: the caller guarantees that `plans` is an input of strings.
        let (read, conflicts) = unsafe { read_plans(plans, n_plans, conflicts) }?;
        let handle = Handle::on_heap(Plan(molt.0.compile_plans(&read, conflicts)?))?;
        // SAFETY: the caller guarantees that `plan` is an output.
        unsafe { store("plan", plan, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// What a plan costs with a mixture of transforms.
///
/// # Safety
/// - `molt` is a handle; `text` is a string; `cost` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_plan_cost(
    molt: *const sae_molt,
    text: *const c_char,
    cost: *mut sae_plan_cost,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `molt` is a handle.
        let molt = unsafe { Handle::borrow("molt", molt) }?;
        // SAFETY: the caller guarantees that `text` is a string.
        let plan = unsafe { read_plan("text", text) }?;
        let answer = cost_of(&molt.0.plan_cost(&plan)?);
        // SAFETY: the caller guarantees that `cost` is an output with its size.
        unsafe { store_sized("cost", PLAN_COST_SIZE_1, cost, answer) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// The vector that plans add to every row of a mixture of transforms.
///
/// # Safety
/// - `molt` and `plan` are handles; `values` (of `n_values`) and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_plan_vector(
    molt: *const sae_molt,
    plan: *const sae_plan,
    values: *mut f32,
    n_values: usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `molt` is a handle.
        let molt = unsafe { Handle::borrow("molt", molt) }?;
        // SAFETY: the caller guarantees that `plan` is a handle.
        let plan = unsafe { Handle::borrow("plan", plan) }?;
        length("n_values", molt.0.d_out(), n_values)?;
        // SAFETY: the caller guarantees that `values` is an output of `n_values`.
        let values = unsafe { slice_mut("values", values, n_values) }?;
        values.copy_from_slice(&molt.0.constant_vector(&plan.0)?);
        Ok(())
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Makes work space for steering with a mixture of transforms.
///
/// # Safety
/// - `molt` and `plan` are handles; `scratch` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_steer_scratch_create(
    molt: *const sae_molt,
    plan: *const sae_plan,
    scratch: *mut *mut sae_steer_scratch,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `scratch` is an output.
        unsafe { store("scratch", scratch, null_mut()) }?;
        // SAFETY: the caller guarantees that `molt` is a handle.
        let molt = unsafe { Handle::borrow("molt", molt) }?;
        // SAFETY: the caller guarantees that `plan` is a handle.
        let plan = unsafe { Handle::borrow("plan", plan) }?;
        let space = molt.0.steer_scratch(&plan.0)?;
        let handle = Handle::on_heap(SteerScratch::of(space, &plan.0))?;
        // SAFETY: the caller guarantees that `scratch` is an output.
        unsafe { store("scratch", scratch, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Compiles rules for a mixture of transforms.
///
/// # Safety
/// - `molt` is a handle; `text` is a string; `rules` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_rules_compile(
    molt: *const sae_molt,
    text: *const c_char,
    rules: *mut *mut sae_rules,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `rules` is an output.
        unsafe { store("rules", rules, null_mut()) }?;
        // SAFETY: the caller guarantees that `molt` is a handle.
        let molt = unsafe { Handle::borrow("molt", molt) }?;
        // SAFETY: the caller guarantees that `text` is a string.
        let handle = unsafe { monitor_events::make(text, &|plain| molt.0.compile_rules(plain)) }?;
        // SAFETY: the caller guarantees that `rules` is an output.
        unsafe { store("rules", rules, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Makes a monitor of the features of a mixture of transforms.
///
/// # Safety
/// - `molt` and `rules` are handles; `options` is NULL or an input with its size, whose `ring` is
///   NULL or a handle; `monitor` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_monitor_create(
    molt: *const sae_molt,
    rules: *const sae_rules,
    options: *const sae_monitor_options,
    monitor: *mut *mut sae_monitor,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `monitor` is an output.
        unsafe { store("monitor", monitor, null_mut()) }?;
        // SAFETY: the caller guarantees that `molt` is a handle.
        let molt = unsafe { Handle::borrow("molt", molt) }?;
        // SAFETY: the caller guarantees that `rules` is a handle.
        let rules = unsafe { Handle::borrow("rules", rules) }?;
        let collect = |features: Option<&[u32]>| match features {
            Some(features) => molt.0.collect_features(features),
            None => molt.0.collect_all(),
        };
        // SAFETY: the caller guarantees what `options` is.
        let handle = unsafe { monitor::make(rules, options, &collect) }?;
        // SAFETY: the caller guarantees that `monitor` is an output.
        unsafe { store("monitor", monitor, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Steers rows of a mixture of transforms in place.
///
/// # Safety
/// - As for `sae_model_steer`, with `molt` in the place of the model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_molt_steer(
    molt: *const sae_molt,
    plan: *const sae_plan,
    batch: *const sae_steer_batch,
    scratch: *mut sae_steer_scratch,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `molt` is a handle.
        let molt = unsafe { Handle::borrow("molt", molt) }?;
        // SAFETY: the caller guarantees that `plan` is a handle.
        let plan = unsafe { Handle::borrow("plan", plan) }?;
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let mut scratch = unsafe { Handle::exclusive("scratch", scratch) }?;
        if batch.is_null() {
            return Err(Failure::Null { argument: "batch" });
        }
        // SAFETY: not NULL; the caller guarantees that it holds its size.
        let batch = unsafe { load_sized("batch", STEER_BATCH_SIZE_1, batch) }?;
        let SteerScratch {
            scratch,
            report,
            infos,
        } = &mut *scratch;
        let widths = (molt.0.d_in(), molt.0.d_out());
        // SAFETY: the caller guarantees what the batch describes.
        let batch = unsafe { read_batch(&batch, widths, infos) }?;
        Ok(molt.0.steer(&plan.0, batch, scratch, report)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}
