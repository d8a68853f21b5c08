//! Plans built by calls instead of JSON text. `include/sae_steer.h`.

use crate::boundary::{call, value};
use crate::failure::{Failure, Found};
use crate::handle::{Handle, Kind};
use crate::memory::{load_sized, optional_text, slice, store, store_text};
use crate::types::*;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::ToString;
use core::ffi::c_char;
use core::ptr::null_mut;
use sae::steer::{Direction, Edit, FeatureStatistics, Plan, Reads, Rule, Scale, Strength, Target};

/// A plan in the making.
pub struct PlanBuilder(Plan);

/// A plan in the making, as C holds it.
#[allow(non_camel_case_types)]
pub type sae_plan_builder = Handle<PlanBuilder>;

impl Kind for PlanBuilder {
    const TAG: u64 = u64::from_le_bytes(*b"sae:plbu");
    const NAME: &'static str = "sae_plan_builder";
}

const RULES: [(sae_rule, Rule); 10] = [
    (SAE_RULE_SET, Rule::Set),
    (SAE_RULE_ADD, Rule::Add),
    (SAE_RULE_SCALE, Rule::Scale),
    (SAE_RULE_MAX_CLAMP, Rule::MaxClamp),
    (SAE_RULE_MIN_CAP, Rule::MinCap),
    (SAE_RULE_ZERO, Rule::Zero),
    (SAE_RULE_NEGATIVE_WHEN_ACTIVE, Rule::NegativeWhenActive),
    (SAE_RULE_REPLACE_POSITIVE, Rule::ReplacePositive),
    (SAE_RULE_REMOVE, Rule::Remove),
    (SAE_RULE_FROM_SOURCE, Rule::FromSource),
];
const SCALES: [(sae_scale, Scale); 5] = [
    (SAE_SCALE_ABSOLUTE, Scale::Absolute),
    (SAE_SCALE_CORPUS_MAX, Scale::CorpusMax),
    (SAE_SCALE_CORPUS_MEAN, Scale::CorpusMean),
    (SAE_SCALE_CURRENT_MAX, Scale::CurrentMax),
    (SAE_SCALE_ROW_NORM, Scale::RowNorm),
];
const READS: [(sae_reads, Reads); 2] = [
    (SAE_READS_FEATURE, Reads::Feature),
    (SAE_READS_PRE_ACTIVATION, Reads::PreActivation),
];

/// Starts a plan.
///
/// # Safety
/// - `name` is a string; `builder` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_plan_builder_create(
    name: *const c_char,
    builder: *mut *mut sae_plan_builder,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `builder` is an output.
        unsafe { store("builder", builder, null_mut()) }?;
        // SAFETY: the caller guarantees that `name` is a string.
        let name = unsafe { optional_text("name", name) }?;
        let handle = Handle::on_heap(PlanBuilder(Plan::new(name.unwrap_or_default())))?;
        // SAFETY: the caller guarantees that `builder` is an output.
        unsafe { store("builder", builder, handle) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Destroys a plan in the making.
///
/// # Safety
/// - `builder` is NULL or a handle that nobody uses, now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_plan_builder_destroy(builder: *mut sae_plan_builder) {
    value((), || {
        // SAFETY: the caller guarantees what `destroy` needs.
        unsafe { Handle::destroy(builder) };
        Ok(())
    });
}

/// Adds an edit.
///
/// # Safety
/// - `builder` is a handle; `edit` is an input with its size, and so is what it points to; `error`
///   is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_plan_builder_edit(
    builder: *mut sae_plan_builder,
    edit: *const sae_edit,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `builder` is a handle.
        let mut builder = unsafe { Handle::exclusive("builder", builder) }?;
        if edit.is_null() {
            return Err(Failure::Null { argument: "edit" });
        }
        // SAFETY: not NULL; the caller guarantees that it holds its size.
        let edit = unsafe { load_sized("edit", EDIT_SIZE_1, edit) }?;
        if !edit.reserved.is_null() {
            return Err(invalid("edit.reserved", "NULL", "a pointer"));
        }
        // SAFETY: the caller guarantees that `features` is an input of `n_features`.
        let features = unsafe { slice("edit.features", edit.features, edit.n_features) }?;
        // SAFETY: the caller guarantees that `direction` is a string.
        let direction = unsafe { optional_text("edit.direction", edit.direction) }?;
        // SAFETY: the caller guarantees that `phases` is an input of `n_phases`.
        let phases = unsafe { slice("edit.phases", edit.phases, edit.n_phases) }?;
        let target = match (features, direction) {
            ([], Some(name)) => Target::Direction(name.to_owned()),
            ([_, ..], None) => Target::Features(features.to_vec()),
            ([], None) => return Err(invalid("edit", "features or a direction", "neither")),
            ([_, ..], Some(_)) => return Err(invalid("edit", "features or a direction", "both")),
        };
        let rule = choice("edit.rule", &RULES, edit.rule)?;
        let mut strength = match phases {
            [] => Strength::absolute(finite("edit.strength", edit.strength)?),
            [..] => {
                for &strength in phases {
                    finite("edit.phases", strength)?;
                }
                Strength::by_phase(phases)
            }
        };
        strength.of = choice("edit.of", &SCALES, edit.of)?;
        strength.deviations = finite("edit.deviations", edit.deviations)?;
        // SAFETY: the caller guarantees that `over_phases` is an input of `n_over_phases`.
        let phases = unsafe { slice("edit.over_phases", edit.over_phases, edit.n_over_phases) }?;
        let over = limit(
            [
                "edit.over",
                "edit.over_phases",
                "edit.over_of",
                "edit.over_deviations",
            ],
            (edit.over, phases),
            (edit.over_of, edit.over_deviations),
        )?;
        // SAFETY: the caller guarantees that `under_phases` is an input of `n_under_phases`.
        let phases = unsafe { slice("edit.under_phases", edit.under_phases, edit.n_under_phases) }?;
        let under = limit(
            [
                "edit.under",
                "edit.under_phases",
                "edit.under_of",
                "edit.under_deviations",
            ],
            (edit.under, phases),
            (edit.under_of, edit.under_deviations),
        )?;
        let mut made = Edit::on(target, rule, strength);
        made.reads = choice("edit.reads", &READS, edit.reads)?;
        (made.over, made.under) = (over, under);
        builder.0.edits.push(made);
        Ok(())
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Adds a direction.
///
/// # Safety
/// - `builder` is a handle; `name` is a string; `values` is an input of `n_values`; `error` is an
///   output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_plan_builder_direction(
    builder: *mut sae_plan_builder,
    name: *const c_char,
    values: *const f32,
    n_values: usize,
    normalize: u32,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `builder` is a handle.
        let mut builder = unsafe { Handle::exclusive("builder", builder) }?;
        // SAFETY: the caller guarantees that `name` is a string.
        let name = unsafe { optional_text("name", name) }?;
        let name = name.ok_or(Failure::Null { argument: "name" })?;
        // SAFETY: the caller guarantees that `values` is an input of `n_values`.
        let values = unsafe { slice("values", values, n_values) }?;
        if let Some(&wrong) = values.iter().find(|value| !value.is_finite()) {
            return Err(invalid("values", "finite numbers", &format!("{wrong}")));
        }
        let normalize = match normalize {
            0 => false,
            1 => true,
            other => return Err(invalid("normalize", "0 or 1", &format!("{other}"))),
        };
        let direction = Direction {
            values: values.to_vec(),
            normalize,
        };
        builder.0.directions.insert(name.to_owned(), direction);
        Ok(())
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Gives the statistics of a feature.
///
/// # Safety
/// - `builder` is a handle; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_plan_builder_statistics(
    builder: *mut sae_plan_builder,
    feature: u32,
    max: f64,
    mean: f64,
    deviation: f64,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `builder` is a handle.
        let mut builder = unsafe { Handle::exclusive("builder", builder) }?;
        let known = |argument, number: f64| match number.is_nan() {
            true => Ok(None),
            false => finite(argument, number).map(Some),
        };
        let statistics = FeatureStatistics {
            max: known("max", max)?,
            mean: known("mean", mean)?,
            deviation: known("deviation", deviation)?,
        };
        builder.0.statistics.insert(feature, statistics);
        Ok(())
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// Sets one of the plan's other keys.
///
/// # Safety
/// - `builder` is a handle; `key` and `value` are strings; `error` is an output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_plan_builder_set(
    builder: *mut sae_plan_builder,
    key: *const c_char,
    value: *const c_char,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `builder` is a handle.
        let mut builder = unsafe { Handle::exclusive("builder", builder) }?;
        // SAFETY: the caller guarantees that `key` is a string.
        let key = unsafe { optional_text("key", key) }?;
        let key = key.ok_or(Failure::Null { argument: "key" })?;
        // SAFETY: the caller guarantees that `value` is a string.
        let value = unsafe { optional_text("value", value) }?;
        let value = value.ok_or(Failure::Null { argument: "value" })?;
        let plan = &mut builder.0;
        // Read as a plan that has this key alone, so that errors name the place in the plan.
        let read = || Plan::from_json(&format!("{{\"{key}\": {value}}}"));
        match key {
            "when" => plan.when = read()?.when,
            "rows" => plan.rows = read()?.rows,
            "budget" => plan.budget = read()?.budget,
            "error" => plan.error = read()?.error,
            "keep_only" | "drop" | "scores" => plan.mask = read()?.mask,
            "scope" => plan.scope = read()?.scope,
            "conflicts" => plan.conflicts = read()?.conflicts,
            "d_sae" => plan.d_sae = read()?.d_sae,
            other => {
                return Err(invalid(
                    "key",
                    "one of the keys that sae_steer.h lists",
                    other,
                ));
            }
        }
        Ok(())
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// The plan as JSON text.
///
/// # Safety
/// - `builder` is a handle; `buffer` (of `buffer_size`), `size` and `error` are outputs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sae_plan_builder_write(
    builder: *const sae_plan_builder,
    buffer: *mut c_char,
    buffer_size: usize,
    size: *mut usize,
    error: *mut sae_error,
) -> sae_status {
    let body = || {
        // SAFETY: the caller guarantees that `builder` is a handle.
        let builder = unsafe { Handle::shared("builder", builder) }?;
        let text = builder.0.to_json().to_string();
        // SAFETY: the caller guarantees that `buffer` and `size` are outputs.
        unsafe { store_text(text, buffer, buffer_size, size) }
    };
    // SAFETY: the caller guarantees that `error` is an output.
    unsafe { call(error, body) }
}

/// A limit of an edit: a number, or one for each phase, of a scale and with deviations.
fn limit(
    [argument, of_phases, of_scale, of_deviations]: [&'static str; 4],
    (number, phases): (f64, &[f64]),
    (scale, deviations): (sae_scale, f64),
) -> Result<Option<Strength>, Failure> {
    let mut limit = match (number.is_nan(), phases) {
        (true, []) if scale != SAE_SCALE_ABSOLUTE => {
            return Err(invalid(
                of_scale,
                "0 where there is no limit",
                &format!("{scale}"),
            ));
        }
        (true, []) if deviations != 0.0 => {
            let found = format!("{deviations}");
            return Err(invalid(of_deviations, "0 where there is no limit", &found));
        }
        (true, []) => return Ok(None),
        (false, []) => Strength::absolute(finite(argument, number)?),
        (_, [..]) => {
            for &number in phases {
                finite(of_phases, number)?;
            }
            Strength::by_phase(phases)
        }
    };
    limit.of = choice(of_scale, &SCALES, scale)?;
    limit.deviations = finite(of_deviations, deviations)?;
    Ok(Some(limit))
}

fn choice<T: Copy>(argument: &'static str, table: &[(i32, T)], found: i32) -> Result<T, Failure> {
    let entry = table.iter().find(|entry| entry.0 == found);
    entry.map(|entry| entry.1).ok_or(Failure::Invalid {
        argument,
        expected: "one of the numbers that sae_steer.h lists",
        found: Found::Signed(found.into()),
    })
}

fn finite(argument: &'static str, number: f64) -> Result<f64, Failure> {
    match number.is_finite() {
        true => Ok(number),
        false => Err(invalid(argument, "a finite number", &format!("{number}"))),
    }
}

fn invalid(argument: &'static str, expected: &'static str, found: &str) -> Failure {
    Failure::Invalid {
        argument,
        expected,
        found: Found::Text(found.to_owned()),
    }
}
