//! Steering: plans, their work space, and editing rows in place. `include/sae_steer.h`.

use crate::boundary::{call, value};
use crate::failure::{Failure, Found};
use crate::handle::{Handle, Kind};
use crate::labels::sae_labels;
use crate::memory::{
    addresses, apart, load_sized, optional_text, rows as read_rows, rows_mut, slice, slice_mut,
    store, store_sized,
};
use crate::model::sae_model;
use crate::rows::check_info;
use crate::types::*;
use alloc::vec::Vec;
use core::ffi::c_char;
use core::ptr::null_mut;
use sae::steer::{self, Outcome, RowInfo, Stage};

/// Compiled plans.
pub struct Plan(pub(crate) steer::CompiledPlan);

/// Compiled plans, as C holds them.
#[allow(non_camel_case_types)]
pub type sae_plan = Handle<Plan>;

impl Kind for Plan {
    const TAG: u64 = u64::from_le_bytes(*b"sae:plan");
    const NAME: &'static str = "sae_plan";
}

/// Work space for steering, and what was counted in it.
pub struct SteerScratch {
    pub(crate) scratch: steer::SteerScratch,
    pub(crate) report: steer::Report,
    pub(crate) infos: Vec<RowInfo>,
}

/// Work space for steering, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_steer_scratch = Handle<SteerScratch>;

impl SteerScratch {
    /// With nothing counted.
    pub(crate) fn of(scratch: steer::SteerScratch, plan: &steer::CompiledPlan) -> Self {
        SteerScratch {
            scratch,
            report: steer::Report::new(plan),
            infos: Vec::new(),
        }
    }
}

impl Kind for SteerScratch {
    const TAG: u64 = u64::from_le_bytes(*b"sae:stee");
    const NAME: &'static str = "sae_steer_scratch";
}

/// Compiles plans.
///
/// # Safety
/// - `model` is a handle; `plans` is an input of `n_plans` strings; `plan` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_plan_compile(
    model: *const sae_model,
    plans: *const *const c_char,
    n_plans: usize,
    conflicts: sae_conflicts,
    plan: *mut *mut sae_plan,
    error: *mut sae_error,
) -> sae_status {
    // SAFETY: the caller guarantees what `compile` needs.
    unsafe { compile(model, plans, n_plans, conflicts, plan, error, |_, _| Ok(())) }
}

/// Compiles plans, with statistics of labels.
///
/// # Safety
/// - `model` and `labels` are handles; `plans` is an input of `n_plans` strings; `plan` and `error`
///   are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_plan_compile_with_labels(
    model: *const sae_model,
    plans: *const *const c_char,
    n_plans: usize,
    conflicts: sae_conflicts,
    labels: *const sae_labels,
    plan: *mut *mut sae_plan,
    error: *mut sae_error,
) -> sae_status {
    let fill = |d_sae, plans: &mut [steer::Plan]| {
        // SAFETY: the caller guarantees that `labels` is a handle.
        let labels = &unsafe { Handle::borrow("labels", labels) }?.0;
        labels.check(d_sae)?;
        let statistics = steer::Statistics::from_labels(labels);
        for plan in plans {
            plan.fill_statistics(&statistics);
        }
        Ok(())
    };
    // SAFETY: the caller guarantees what `compile` needs.
    unsafe { compile(model, plans, n_plans, conflicts, plan, error, fill) }
}

/// Compiles plans after `fill` has seen them, with the number of the model's features.
///
/// # Safety
/// As for [`sae_plan_compile`].
unsafe fn compile(
    model: *const sae_model,
    plans: *const *const c_char,
    n_plans: usize,
    conflicts: sae_conflicts,
    plan: *mut *mut sae_plan,
    error: *mut sae_error,
    fill: impl FnOnce(usize, &mut [steer::Plan]) -> Result<(), Failure>,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `plan` is an output.
        unsafe { store("plan", plan, null_mut()) }?;
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `plans` is an input of strings.
        let (mut read, conflicts) = unsafe { read_plans(plans, n_plans, conflicts) }?;
        fill(model.sae.d_sae(), &mut read)?;
        let compiled = model.sae.compile_plans(&read, conflicts)?;
        let handle = Handle::on_heap(Plan(compiled))?;
        // SAFETY: the caller guarantees that `plan` is an output.
        unsafe { store("plan", plan, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Plans from JSON, and what happens where they meet.
///
/// # Safety
/// - `plans` is an input of `n_plans` strings.
pub(crate) unsafe fn read_plans(
    plans: *const *const c_char,
    n_plans: usize,
    conflicts: sae_conflicts,
) -> Result<(Vec<steer::Plan>, steer::Conflicts), Failure> {
    // SAFETY: the caller guarantees that `plans` is an input of `n_plans`.
    let texts = unsafe { slice("plans", plans, n_plans) }?;
    let mut read = Vec::new();
    for &text in texts {
        // SAFETY: the caller guarantees that every entry is a string.
        read.push(unsafe { read_plan("plans", text) }?);
    }
    if read.is_empty() {
        return Err(Failure::Invalid {
            argument: "n_plans",
            expected: "1 or more",
            found: Found::Unsigned(0),
        });
    }
    Ok((read, conflicts_of(conflicts)?))
}

/// A plan from JSON.
///
/// # Safety
/// - `text` is a string.
pub(crate) unsafe fn read_plan(
    argument: &'static str,
    text: *const c_char,
) -> Result<steer::Plan, Failure> {
    // SAFETY: the caller guarantees that `text` is a string.
    let text = unsafe { optional_text(argument, text) }?;
    let text = text.ok_or(Failure::Null { argument })?;
    Ok(steer::Plan::from_json(text)?)
}

/// A cost, as C reads it.
pub(crate) fn cost_of(found: &steer::PlanCost) -> sae_plan_cost {
    sae_plan_cost {
        struct_size: 0,
        needs_encode: found.needs_encode.into(),
        encoder_rows: found.encoder_rows as u64,
        decoder_rows: found.decoder_rows as u64,
        bytes_per_row: found.bytes_per_row,
        bytes_held: found.bytes_held,
    }
}

/// Destroys compiled plans.
///
/// # Safety
/// - `plan` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_plan_destroy(plan: *mut sae_plan) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(plan) };
        Ok(())
    });
}

/// Number of plans.
///
/// # Safety
/// - `plan` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_plan_count(plan: *const sae_plan) -> usize {
    // SAFETY: the caller guarantees that `plan` is a handle.
    value(0, || Ok(unsafe { Handle::borrow("plan", plan) }?.0.plans()))
}

/// What a plan costs.
///
/// # Safety
/// - `model` is a handle; `text` is a string; `cost` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_plan_cost(
    model: *const sae_model,
    text: *const c_char,
    cost: *mut sae_plan_cost,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `text` is a string.
        let plan = unsafe { read_plan("text", text) }?;
        let answer = cost_of(&model.sae.plan_cost(&plan)?);
        // SAFETY: the caller guarantees that `cost` is an output with its size.
        unsafe { store_sized("cost", PLAN_COST_SIZE_1, cost, answer) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// The vector that a plan adds to every row.
///
/// # Safety
/// - `model` and `plan` are handles; `values` (of `n_values`) and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_plan_vector(
    model: *const sae_model,
    plan: *const sae_plan,
    values: *mut f32,
    n_values: usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `plan` is a handle.
        let plan = unsafe { Handle::borrow("plan", plan) }?;
        length("n_values", model.sae.d_out(), n_values)?;
        // SAFETY: the caller guarantees that `values` is an output of `n_values`.
        let values = unsafe { slice_mut("values", values, n_values) }?;
        values.copy_from_slice(&model.sae.constant_vector(&plan.0)?);
        Ok(())
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Makes work space for steering.
///
/// # Safety
/// - `model` and `plan` are handles; `scratch` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_steer_scratch_create(
    model: *const sae_model,
    plan: *const sae_plan,
    scratch: *mut *mut sae_steer_scratch,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `scratch` is an output.
        unsafe { store("scratch", scratch, null_mut()) }?;
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
        // SAFETY: the caller guarantees that `plan` is a handle.
        let plan = unsafe { Handle::borrow("plan", plan) }?;
        let space = steer::SteerScratch::new(&model.sae, &plan.0)?;
        let handle = Handle::on_heap(SteerScratch::of(space, &plan.0))?;
        // SAFETY: the caller guarantees that `scratch` is an output.
        unsafe { store("scratch", scratch, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Destroys work space for steering.
///
/// # Safety
/// - `scratch` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_steer_scratch_destroy(scratch: *mut sae_steer_scratch) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(scratch) };
        Ok(())
    });
}

/// How many rows had an outcome.
///
/// # Safety
/// - `scratch` is a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_steer_scratch_count(
    scratch: *const sae_steer_scratch,
    outcome: sae_outcome,
) -> u64 {
    value(0, || {
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let scratch = unsafe { Handle::shared("scratch", scratch) }?;
        let outcome = Outcome::ALL.get(usize::from(outcome));
        Ok(outcome.map_or(0, |&outcome| scratch.report.count(outcome)))
    })
}

/// What one plan did.
///
/// # Safety
/// - `scratch` is a handle; `audit` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_steer_scratch_audit(
    scratch: *const sae_steer_scratch,
    index: usize,
    audit: *mut sae_audit,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `scratch` is a handle.
        let scratch = unsafe { Handle::shared("scratch", scratch) }?;
        let audits = scratch.report.audits();
        let Some(found) = audits.get(index) else {
            return Err(Failure::Invalid {
                argument: "index",
                expected: "the number of a compiled plan",
                found: Found::Unsigned(index as u64),
            });
        };
        let answer = sae_audit {
            struct_size: 0,
            reserved: 0,
            hash: found.hash,
            rows: found.rows,
            mean_relative: found.mean_relative(),
            max_relative: found.max_relative,
        };
        // SAFETY: the caller guarantees that `audit` is an output with its size.
        unsafe { store_sized("audit", AUDIT_SIZE_1, audit, answer) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Steers rows in place.
///
/// # Safety
/// - `model`, `plan`, `scratch` are handles; `batch` is an input with its size, and so is whatever
///   it points to, except that the rows it describes, `outcomes` and `changes` are outputs (the
///   rows are initialised); `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_model_steer(
    model: *const sae_model,
    plan: *const sae_plan,
    batch: *const sae_steer_batch,
    scratch: *mut sae_steer_scratch,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `model` is a handle.
        let model = unsafe { Handle::borrow("model", model) }?;
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
        let widths = (model.sae.d_in(), model.sae.d_out());
        // SAFETY: the caller guarantees what the batch describes.
        let batch = unsafe { read_batch(&batch, widths, infos) }?;
        Ok(model.sae.steer(&plan.0, batch, scratch, report)?)
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// The batch that C describes. Infos are translated into `infos`.
///
/// # Safety
/// As for [`sae_model_steer`], for as long as `'m`.
pub(crate) unsafe fn read_batch<'m>(
    batch: &sae_steer_batch,
    (d_in, d_out): (usize, usize),
    infos: &'m mut Vec<RowInfo>,
) -> Result<steer::Batch<'m>, Failure> {
    if batch.dry_run > 1 {
        return Err(Failure::Invalid {
            argument: "batch.dry_run",
            expected: "0 or 1",
            found: Found::Unsigned(batch.dry_run.into()),
        });
    }
    // SAFETY: the caller guarantees that the rows are described and writable.
    let (rows, span) = unsafe { rows_mut("batch.rows", batch.rows, d_out) }?;
    let n = rows.rows();
    let given = |argument, pointer: bool, count: usize| match pointer {
        true => Ok(false),
        false => length(argument, n, count).map(|()| true),
    };
    let mut out = steer::Batch::new(rows);
    out.dry_run = batch.dry_run == 1;
    for (argument, rows, to) in [
        ("batch.inputs", batch.inputs, &mut out.inputs),
        ("batch.sources", batch.sources, &mut out.sources),
    ] {
        if !rows.is_null() {
            // SAFETY: not NULL; the caller guarantees that the rows are described and readable.
            let (rows, other) = unsafe { read_rows(argument, rows, d_in) }?;
            apart((argument, other), ("batch.rows", span.clone()))?;
            *to = Some(rows);
        }
    }
    let outputs = [
        (
            "batch.outcomes",
            addresses(batch.outcomes, batch.n_outcomes),
        ),
        ("batch.changes", addresses(batch.changes, batch.n_changes)),
    ];
    for output in &outputs {
        apart(output.clone(), ("batch.rows", span.clone()))?;
        for (name, rows) in [
            ("batch.inputs", batch.inputs),
            ("batch.sources", batch.sources),
        ] {
            if !rows.is_null() {
                // SAFETY: as above; it was read before.
                let (_, other) = unsafe { read_rows(name, rows, d_in) }?;
                apart(output.clone(), (name, other))?;
            }
        }
    }
    let [outcomes, changes] = outputs;
    apart(outcomes, changes)?;
    if given("batch.n_infos", batch.infos.is_null(), batch.n_infos)? {
        // SAFETY: the caller guarantees that `infos` is an input of `n_infos`.
        let read = unsafe { slice("batch.infos", batch.infos, n) }?;
        infos.clear();
        infos.try_reserve(n).map_err(|_| sae::Error::OutOfMemory {
            what: "infos of rows",
            bytes: size_of_val(read) as u64,
        })?;
        for info in read {
            infos.push(info_of(info)?);
        }
        out.infos = Some(infos);
    }
    if given(
        "batch.n_outcomes",
        batch.outcomes.is_null(),
        batch.n_outcomes,
    )? {
        // An outcome is one byte, and 0 is one of its values.
        let outcomes = batch.outcomes.cast::<Outcome>();
        // SAFETY: the caller guarantees that `outcomes` is an output of one byte for each row.
        out.outcomes = Some(unsafe { slice_mut("batch.outcomes", outcomes, n) }?);
    }
    if !batch.changes.is_null() {
        let expected = n.saturating_mul(d_out);
        length("batch.n_changes", expected, batch.n_changes)?;
        // SAFETY: the caller guarantees that `changes` is an output of `n_changes`.
        out.changes = Some(unsafe { slice_mut("batch.changes", batch.changes, expected) }?);
    }
    Ok(out)
}

fn info_of(info: &sae_row_info) -> Result<RowInfo, Failure> {
    check_info(info)?;
    let skipped = info.stage == SAE_STAGE_SKIPPED;
    Ok(RowInfo {
        position: info.position,
        stage: match info.stage {
            SAE_STAGE_PROMPT => Stage::Prompt,
            SAE_STAGE_GENERATION => Stage::Generation,
            _ => Stage::Unknown,
        },
        last: info.last == 1,
        class: info.token_class,
        phase: info.phase,
        factor: info.factor,
        plan: if skipped { RowInfo::NO_PLAN } else { info.plan },
        source: info.source,
    })
}

fn conflicts_of(conflicts: sae_conflicts) -> Result<steer::Conflicts, Failure> {
    Ok(match conflicts {
        SAE_CONFLICTS_REFUSE => steer::Conflicts::Refuse,
        SAE_CONFLICTS_FIRST => steer::Conflicts::First,
        SAE_CONFLICTS_LAST => steer::Conflicts::Last,
        SAE_CONFLICTS_SUM => steer::Conflicts::Sum,
        SAE_CONFLICTS_ONE_PER_ROW => steer::Conflicts::OnePerRow,
        other => {
            return Err(Failure::Invalid {
                argument: "conflicts",
                expected: "one of SAE_CONFLICTS_...",
                found: Found::Signed(other.into()),
            });
        }
    })
}

pub(crate) fn length(argument: &'static str, expected: usize, found: usize) -> Result<(), Failure> {
    match expected == found {
        true => Ok(()),
        false => Err(Failure::Length {
            argument,
            expected,
            found,
        }),
    }
}
