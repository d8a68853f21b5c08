//! The types and numbers of `include/sae.h`, in its order, with their layout asserted. `abi.c`
//! asserts the same on the other side. One file, as what the headers declare is one order.
#![allow(non_camel_case_types)] // the names are C's, and the header documents them

use core::ffi::{c_char, c_void};
use core::mem::{offset_of, size_of};

pub(crate) const SAE_ABI_VERSION: u32 = 1;

pub(crate) type sae_status = i32;
pub(crate) type sae_check = i32;
pub(crate) type sae_text = i32;
pub(crate) type sae_dtype = i32;
pub(crate) type sae_row_status = u8;
pub(crate) type sae_conflicts = i32;
pub(crate) type sae_stage = i32;
pub(crate) type sae_rule = i32;
pub(crate) type sae_scale = i32;
pub(crate) type sae_reads = i32;
pub(crate) type sae_outcome = u8;
pub(crate) type sae_unseen = i32;
pub(crate) type sae_collect = i32;
pub(crate) type sae_on_event = Option<unsafe extern "C" fn(*const sae_event, *mut c_void)>;
pub(crate) type sae_hook_point = i32;
pub(crate) type sae_verdict = i32;
pub(crate) type sae_log_level = i32;
pub(crate) type sae_pick = i32;
pub(crate) type sae_refit = i32;
pub(crate) type sae_ensemble_kind = i32;
pub(crate) type sae_batch_rule = i32;

pub(crate) const SAE_STATUS_OK: sae_status = 0;
pub(crate) const SAE_STATUS_NULL_ARGUMENT: sae_status = 1;
pub(crate) const SAE_STATUS_IO: sae_status = 2;
pub(crate) const SAE_STATUS_NOT_A_CHECKPOINT: sae_status = 3;
pub(crate) const SAE_STATUS_MALFORMED: sae_status = 4;
pub(crate) const SAE_STATUS_TRUNCATED: sae_status = 5;
pub(crate) const SAE_STATUS_CORRUPT: sae_status = 6;
pub(crate) const SAE_STATUS_LIMIT: sae_status = 7;
pub(crate) const SAE_STATUS_UNSUPPORTED: sae_status = 8;
pub(crate) const SAE_STATUS_UNSAFE_PICKLE: sae_status = 9;
pub(crate) const SAE_STATUS_MISSING_TENSOR: sae_status = 10;
pub(crate) const SAE_STATUS_UNKNOWN_TENSOR: sae_status = 11;
pub(crate) const SAE_STATUS_SHAPE: sae_status = 12;
pub(crate) const SAE_STATUS_INVALID_VALUE: sae_status = 13;
pub(crate) const SAE_STATUS_MISSING_KEY: sae_status = 14;
pub(crate) const SAE_STATUS_UNKNOWN_KEY: sae_status = 15;
pub(crate) const SAE_STATUS_LENGTH: sae_status = 16;
pub(crate) const SAE_STATUS_FEATURE_OUT_OF_RANGE: sae_status = 17;
pub(crate) const SAE_STATUS_INVALID_ARGUMENT: sae_status = 18;
pub(crate) const SAE_STATUS_LEVEL_UNAVAILABLE: sae_status = 19;
pub(crate) const SAE_STATUS_OUT_OF_MEMORY: sae_status = 20;
pub(crate) const SAE_STATUS_NO_ADAPTER: sae_status = 21;
pub(crate) const SAE_STATUS_DEVICE: sae_status = 22;
pub(crate) const SAE_STATUS_WRONG_HANDLE: sae_status = 30;
pub(crate) const SAE_STATUS_PANIC: sae_status = 31;
pub(crate) const SAE_STATUS_IN_USE: sae_status = 32;

pub(crate) const SAE_CHECK_QUICK: sae_check = 0;
pub(crate) const SAE_CHECK_FULL: sae_check = 1;

pub(crate) const SAE_TEXT_PUBLISHER: sae_text = 0;
pub(crate) const SAE_TEXT_CONVENTION: sae_text = 1;
pub(crate) const SAE_TEXT_ARCHITECTURE: sae_text = 2;
pub(crate) const SAE_TEXT_ACTIVATION: sae_text = 3;
pub(crate) const SAE_TEXT_NORMALIZATION: sae_text = 4;
pub(crate) const SAE_TEXT_HOOK_NAME: sae_text = 5;
pub(crate) const SAE_TEXT_MODEL_NAME: sae_text = 6;
pub(crate) const SAE_TEXT_HOOK_NAME_OUT: sae_text = 7;

pub(crate) const SAE_DTYPE_F32: sae_dtype = 0;
pub(crate) const SAE_DTYPE_F16: sae_dtype = 1;
pub(crate) const SAE_DTYPE_BF16: sae_dtype = 30;

pub(crate) const SAE_ROW_OK: sae_row_status = 0;
pub(crate) const SAE_ROW_NON_FINITE: sae_row_status = 1;
pub(crate) const SAE_ROW_NAN_PRE_ACTIVATION: sae_row_status = 2;
pub(crate) const SAE_ROW_SKIPPED: sae_row_status = 3;

pub(crate) const SAE_CONFLICTS_REFUSE: sae_conflicts = 0;
pub(crate) const SAE_CONFLICTS_FIRST: sae_conflicts = 1;
pub(crate) const SAE_CONFLICTS_LAST: sae_conflicts = 2;
pub(crate) const SAE_CONFLICTS_SUM: sae_conflicts = 3;
pub(crate) const SAE_CONFLICTS_ONE_PER_ROW: sae_conflicts = 4;

pub(crate) const SAE_RULE_SET: sae_rule = 0;
pub(crate) const SAE_RULE_ADD: sae_rule = 1;
pub(crate) const SAE_RULE_SCALE: sae_rule = 2;
pub(crate) const SAE_RULE_MAX_CLAMP: sae_rule = 3;
pub(crate) const SAE_RULE_MIN_CAP: sae_rule = 4;
pub(crate) const SAE_RULE_ZERO: sae_rule = 5;
pub(crate) const SAE_RULE_NEGATIVE_WHEN_ACTIVE: sae_rule = 6;
pub(crate) const SAE_RULE_REPLACE_POSITIVE: sae_rule = 7;
pub(crate) const SAE_RULE_REMOVE: sae_rule = 8;
pub(crate) const SAE_RULE_FROM_SOURCE: sae_rule = 9;

pub(crate) const SAE_SCALE_ABSOLUTE: sae_scale = 0;
pub(crate) const SAE_SCALE_CORPUS_MAX: sae_scale = 1;
pub(crate) const SAE_SCALE_CORPUS_MEAN: sae_scale = 2;
pub(crate) const SAE_SCALE_CURRENT_MAX: sae_scale = 3;
pub(crate) const SAE_SCALE_ROW_NORM: sae_scale = 4;

pub(crate) const SAE_READS_FEATURE: sae_reads = 0;
pub(crate) const SAE_READS_PRE_ACTIVATION: sae_reads = 1;

pub(crate) const SAE_STAGE_UNKNOWN: sae_stage = 0;
pub(crate) const SAE_STAGE_PROMPT: sae_stage = 1;
pub(crate) const SAE_STAGE_GENERATION: sae_stage = 2;
pub(crate) const SAE_STAGE_SKIPPED: sae_stage = 3;

pub(crate) const SAE_HOOK_UNKNOWN: sae_hook_point = 0;
pub(crate) const SAE_HOOK_EMBEDDING: sae_hook_point = 1;
pub(crate) const SAE_HOOK_RESID_PRE: sae_hook_point = 2;
pub(crate) const SAE_HOOK_RESID_MID: sae_hook_point = 3;
pub(crate) const SAE_HOOK_RESID_POST: sae_hook_point = 4;
pub(crate) const SAE_HOOK_HEADS: sae_hook_point = 5;
pub(crate) const SAE_HOOK_ATTN_OUT: sae_hook_point = 6;
pub(crate) const SAE_HOOK_MLP_IN: sae_hook_point = 7;
pub(crate) const SAE_HOOK_MLP_OUT: sae_hook_point = 8;

pub(crate) const SAE_VERDICT_TOO_FEW_ROWS: sae_verdict = 0;
pub(crate) const SAE_VERDICT_FITS: sae_verdict = 1;
pub(crate) const SAE_VERDICT_DOUBTFUL: sae_verdict = 2;
pub(crate) const SAE_VERDICT_WRONG: sae_verdict = 3;

pub(crate) const SAE_LOG_INFO: sae_log_level = 0;
pub(crate) const SAE_LOG_WARNING: sae_log_level = 1;
#[cfg_attr(
    not(all(feature = "std", panic = "unwind")),
    allow(dead_code, reason = "defects are logged where panics are caught")
)]
pub(crate) const SAE_LOG_ERROR: sae_log_level = 2;

pub(crate) const SAE_OUTCOME_FILTERED: sae_outcome = 0;
pub(crate) const SAE_OUTCOME_UNCHANGED: sae_outcome = 1;
pub(crate) const SAE_OUTCOME_EDITED: sae_outcome = 2;
pub(crate) const SAE_OUTCOME_CLIPPED: sae_outcome = 3;
pub(crate) const SAE_OUTCOME_REFUSED: sae_outcome = 4;
pub(crate) const SAE_OUTCOME_NON_FINITE: sae_outcome = 5;
pub(crate) const SAE_OUTCOME_OVERFLOW: sae_outcome = 6;

pub(crate) const SAE_UNSEEN_EVICT: sae_unseen = 0;
pub(crate) const SAE_UNSEEN_REFUSE: sae_unseen = 1;

pub(crate) const SAE_COLLECT_NONE: sae_collect = 0;
pub(crate) const SAE_COLLECT_WATCHED: sae_collect = 1;
pub(crate) const SAE_COLLECT_ALL: sae_collect = 2;

/// SAE_MAX_CONTRIBUTIONS, which is a macro.
pub(crate) const MAX_CONTRIBUTIONS: usize = 8;
const _: () = assert!(MAX_CONTRIBUTIONS == sae::monitor::MAX_CONTRIBUTIONS);
pub(crate) const SAE_PICK_POSITIVE: sae_pick = 0;
pub(crate) const SAE_PICK_ANY: sae_pick = 1;
pub(crate) const SAE_PICK_MAGNITUDE: sae_pick = 2;

pub(crate) const SAE_REFIT_NOTHING: sae_refit = 0;
pub(crate) const SAE_REFIT_GRADIENT: sae_refit = 1;
pub(crate) const SAE_REFIT_LEAST_SQUARES: sae_refit = 2;

pub(crate) const SAE_ENSEMBLE_BAG: sae_ensemble_kind = 0;
pub(crate) const SAE_ENSEMBLE_CHAIN: sae_ensemble_kind = 1;
pub(crate) const SAE_ENSEMBLE_ROUTED: sae_ensemble_kind = 2;

pub(crate) const SAE_BATCH_TOGETHER: sae_batch_rule = 0;
pub(crate) const SAE_BATCH_PER_FEATURE: sae_batch_rule = 1;

/// The library's own numbers, so that an outcome needs no translation.
const _: () = {
    use sae::steer::{Outcome, RowInfo};
    assert!(SAE_OUTCOME_FILTERED == Outcome::Filtered as u8);
    assert!(SAE_OUTCOME_UNCHANGED == Outcome::Unchanged as u8);
    assert!(SAE_OUTCOME_EDITED == Outcome::Edited as u8);
    assert!(SAE_OUTCOME_CLIPPED == Outcome::Clipped as u8);
    assert!(SAE_OUTCOME_REFUSED == Outcome::Refused as u8);
    assert!(SAE_OUTCOME_NON_FINITE == Outcome::NonFinite as u8);
    assert!(SAE_OUTCOME_OVERFLOW == Outcome::Overflow as u8);
    // SAE_ALL_PLANS and SAE_NO_PLAN, which are macros.
    assert!(RowInfo::ALL_PLANS == 0xffff_ffff);
    assert!(RowInfo::NO_PLAN == 0xffff_fffe);
};

/// The library's own numbers, so that a row status needs no translation.
const _: () = {
    assert!(SAE_ROW_OK == sae::RowStatus::Ok as u8);
    assert!(SAE_ROW_NON_FINITE == sae::RowStatus::NonFinite as u8);
    assert!(SAE_ROW_NAN_PRE_ACTIVATION == sae::RowStatus::NanPreActivation as u8);
    assert!(SAE_ROW_SKIPPED == sae::RowStatus::Skipped as u8);
};

/// The statuses of the library's errors are its codes.
const _: () = {
    use sae::Code;
    assert!(SAE_STATUS_IO == Code::Io as i32);
    assert!(SAE_STATUS_NOT_A_CHECKPOINT == Code::NotACheckpoint as i32);
    assert!(SAE_STATUS_MALFORMED == Code::Malformed as i32);
    assert!(SAE_STATUS_TRUNCATED == Code::Truncated as i32);
    assert!(SAE_STATUS_CORRUPT == Code::Corrupt as i32);
    assert!(SAE_STATUS_LIMIT == Code::Limit as i32);
    assert!(SAE_STATUS_UNSUPPORTED == Code::Unsupported as i32);
    assert!(SAE_STATUS_UNSAFE_PICKLE == Code::UnsafePickle as i32);
    assert!(SAE_STATUS_MISSING_TENSOR == Code::MissingTensor as i32);
    assert!(SAE_STATUS_UNKNOWN_TENSOR == Code::UnknownTensor as i32);
    assert!(SAE_STATUS_SHAPE == Code::Shape as i32);
    assert!(SAE_STATUS_INVALID_VALUE == Code::InvalidValue as i32);
    assert!(SAE_STATUS_MISSING_KEY == Code::MissingKey as i32);
    assert!(SAE_STATUS_UNKNOWN_KEY == Code::UnknownKey as i32);
    assert!(SAE_STATUS_LENGTH == Code::Length as i32);
    assert!(SAE_STATUS_FEATURE_OUT_OF_RANGE == Code::FeatureOutOfRange as i32);
    assert!(SAE_STATUS_INVALID_ARGUMENT == Code::InvalidArgument as i32);
    assert!(SAE_STATUS_LEVEL_UNAVAILABLE == Code::LevelUnavailable as i32);
    assert!(SAE_STATUS_OUT_OF_MEMORY == Code::OutOfMemory as i32);
    assert!(SAE_STATUS_NO_ADAPTER == Code::NoAdapter as i32);
    assert!(SAE_STATUS_DEVICE == Code::Device as i32);
};

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_error {
    pub code: sae_status,
    pub message_length: u32,
    pub message: [c_char; 256],
}

impl sae_error {
    /// No error.
    pub const NONE: Self = sae_error {
        code: SAE_STATUS_OK,
        message_length: 0,
        message: [0; 256],
    };
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_open_options {
    pub struct_size: u32,
    pub check: sae_check,
    pub strict: u32,
    pub reserved: u32,
    pub level: *const c_char,
    pub settings: *const *const c_char,
    pub n_settings: usize,
    pub screen: *const c_char,
    pub screen_delta_exponent: u32,
    pub screen_check: u32,
    pub screen_seed: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_site {
    pub struct_size: u32,
    pub prepend_bos: i32,
    pub context_size: u64,
    pub mean_center: u32,
    pub concatenated_heads: u32,
    pub point: sae_hook_point,
    pub layer: i32,
    pub point_out: sae_hook_point,
    pub layer_out: i32,
    pub exclude_special_tokens: i32,
    pub reserved: u32,
    pub first_position: u64,
    pub embedding_scale: f64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_fit {
    pub struct_size: u32,
    pub verdict: sae_verdict,
    pub rows: u64,
    pub left_out: u64,
    pub l0: f64,
    pub fvu: f64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_prepare_cost {
    pub struct_size: u32,
    pub needed: u32,
    pub bytes: u64,
    pub reads: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_rows {
    pub data: *const c_void,
    pub dtype: sae_dtype,
    pub reserved: u32,
    pub n_rows: usize,
    pub width: usize,
    pub stride_bytes: usize,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_row_features {
    pub indices: *const u32,
    pub values: *const f32,
    pub count: usize,
    pub status: sae_row_status,
    pub reserved: [u8; 7],
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_features_view {
    pub row_ends: *const usize,
    pub row_status: *const sae_row_status,
    pub indices: *const u32,
    pub values: *const f32,
    pub n_rows: usize,
    pub count: usize,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_rows_mut {
    pub data: *mut c_void,
    pub dtype: sae_dtype,
    pub reserved: u32,
    pub n_rows: usize,
    pub width: usize,
    pub stride_bytes: usize,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_row_info {
    pub position: u32,
    pub stage: sae_stage,
    pub last: u32,
    pub token_class: u32,
    pub phase: u32,
    pub plan: u32,
    pub source: u32,
    pub stream: u32,
    pub factor: f64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_steer_batch {
    pub struct_size: u32,
    pub dry_run: u32,
    pub rows: *const sae_rows_mut,
    pub inputs: *const sae_rows,
    pub sources: *const sae_rows,
    pub infos: *const sae_row_info,
    pub n_infos: usize,
    pub outcomes: *mut sae_outcome,
    pub n_outcomes: usize,
    pub changes: *mut f64,
    pub n_changes: usize,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_observed {
    pub struct_size: u32,
    pub reserved: u32,
    pub max: f64,
    pub density: f64,
    pub mean: f64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_decomposed {
    pub struct_size: u32,
    pub reserved: u32,
    pub n_parts: u64,
    pub n_along: u64,
    pub n_against: u64,
    pub norm: f64,
    pub cosine: f64,
    pub explained: f64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_projection {
    pub feature: u32,
    pub reserved: u32,
    pub cosine: f64,
    pub projection: f64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_vector_part {
    pub feature: u32,
    pub reserved: u32,
    pub cosine: f64,
    pub projection: f64,
    pub length: f64,
    pub strength: f64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_plan_cost {
    pub struct_size: u32,
    pub needs_encode: u32,
    pub encoder_rows: u64,
    pub decoder_rows: u64,
    pub bytes_per_row: u64,
    pub bytes_held: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_edit {
    pub struct_size: u32,
    pub rule: sae_rule,
    pub of: sae_scale,
    pub reads: sae_reads,
    pub strength: f64,
    pub deviations: f64,
    pub over: f64,
    pub under: f64,
    pub features: *const u32,
    pub n_features: usize,
    pub direction: *const c_char,
    pub phases: *const f64,
    pub n_phases: usize,
    pub reserved: *const c_void,
    pub over_of: sae_scale,
    pub under_of: sae_scale,
    pub over_deviations: f64,
    pub under_deviations: f64,
    pub over_phases: *const f64,
    pub n_over_phases: usize,
    pub under_phases: *const f64,
    pub n_under_phases: usize,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_audit {
    pub struct_size: u32,
    pub reserved: u32,
    pub hash: u64,
    pub rows: u64,
    pub mean_relative: f64,
    pub max_relative: f64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_contribution {
    pub feature: u32,
    pub value: f32,
    pub weight: f32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_event {
    pub rule: u32,
    pub n_contributions: u32,
    pub stream: u64,
    pub position: u64,
    pub score: f64,
    pub contributions: [sae_contribution; MAX_CONTRIBUTIONS],
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_monitor_options {
    pub struct_size: u32,
    pub unseen: sae_unseen,
    pub collect: sae_collect,
    pub top: u32,
    pub streams: usize,
    pub pending_rows: usize,
    pub pending_features: usize,
    pub ring: *const crate::monitor_events::sae_event_ring,
    pub on_event: sae_on_event,
    pub context: *mut c_void,
    pub histogram: u32,
    pub reserved: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_quality_options {
    pub struct_size: u32,
    pub fit_errors: u32,
    pub mean: *const f32,
    pub n_mean: usize,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_row_quality {
    pub l0: f64,
    pub l1: f64,
    pub l2: f64,
    pub norm: f64,
    pub reconstruction_norm: f64,
    pub error_norm: f64,
    pub cosine: f64,
    pub norm_ratio: f64,
    pub zf_deviation: f64,
    pub afa_loss: f64,
    pub anomaly: f64,
    pub finite: u32,
    pub reserved: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_quality_summary {
    pub struct_size: u32,
    pub reserved: u32,
    pub rows: u64,
    pub non_finite: u64,
    pub overflows: u64,
    pub anomalous: u64,
    pub l0: f64,
    pub l1: f64,
    pub mse: f64,
    pub fvu: f64,
    pub explained_variance: f64,
    pub cosine: f64,
    pub norm_ratio: f64,
    pub reconstruction_bias: f64,
    pub zf_deviation: f64,
    pub afa_loss: f64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_monitor_row {
    pub stream: u64,
    pub position: u64,
    pub signal: f64,
    pub flags: u32,
    pub reserved: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_monitor_counts {
    pub struct_size: u32,
    pub streams: u32,
    pub rows: u64,
    pub non_finite: u64,
    pub rolled_back: u64,
    pub refused: u64,
    pub evicted: u64,
    pub events: u64,
    pub suppressed: u64,
    pub bytes: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_feature_summary {
    pub struct_size: u32,
    pub feature: u32,
    pub rows: u64,
    pub fired: u64,
    pub mean: f64,
    pub variance: f64,
    pub max: f32,
    pub min: f32,
    pub max_stream: u64,
    pub max_position: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct sae_pursuit {
    pub struct_size: u32,
    pub pick: sae_pick,
    pub refit: sae_refit,
    pub stop_on_repeat: u32,
    pub steps: u64,
    pub stop_norm: f64,
    pub stop_rank: f64,
    pub directions: u32,
    pub reserved: u32,
}

/// Bytes of a pointer and of `size_t`.
const P: usize = size_of::<*const c_void>();

/// Size in the first version of this header of the structs that grow: what a caller must have at
/// least. These numbers stay when the structs grow.
pub(crate) const OPEN_OPTIONS_SIZE_1: usize = 16 + 3 * P;
pub(crate) const SITE_SIZE_1: usize = 24;
pub(crate) const FIT_SIZE_1: usize = 40;
pub(crate) const PREPARE_COST_SIZE_1: usize = 24;
pub(crate) const STEER_BATCH_SIZE_1: usize = 8 + 9 * P;
pub(crate) const PLAN_COST_SIZE_1: usize = 40;
pub(crate) const AUDIT_SIZE_1: usize = 40;
pub(crate) const MONITOR_OPTIONS_SIZE_1: usize = 16 + 6 * P;
pub(crate) const QUALITY_OPTIONS_SIZE_1: usize = 8 + 2 * P;
pub(crate) const QUALITY_SUMMARY_SIZE_1: usize = 120;
pub(crate) const MONITOR_COUNTS_SIZE_1: usize = 72;
pub(crate) const FEATURE_SUMMARY_SIZE_1: usize = 64;
pub(crate) const EDIT_SIZE_1: usize = 48 + 6 * P;
pub(crate) const PURSUIT_SIZE_1: usize = 48;
pub(crate) const OBSERVED_SIZE_1: usize = 32;
pub(crate) const DECOMPOSED_SIZE_1: usize = 56;

const _: () = {
    assert!(size_of::<usize>() == P);
    assert!(size_of::<sae::RowStatus>() == 1);

    assert!(size_of::<sae_error>() == 264);
    assert!(offset_of!(sae_error, code) == 0);
    assert!(offset_of!(sae_error, message_length) == 4);
    assert!(offset_of!(sae_error, message) == 8);

    assert!(size_of::<sae_open_options>() == 32 + 4 * P);
    assert!(offset_of!(sae_open_options, struct_size) == 0);
    assert!(offset_of!(sae_open_options, check) == 4);
    assert!(offset_of!(sae_open_options, strict) == 8);
    assert!(offset_of!(sae_open_options, reserved) == 12);
    assert!(offset_of!(sae_open_options, level) == 16);
    assert!(offset_of!(sae_open_options, settings) == 16 + P);
    assert!(offset_of!(sae_open_options, n_settings) == 16 + 2 * P);
    assert!(offset_of!(sae_open_options, screen) == 16 + 3 * P);
    assert!(offset_of!(sae_open_options, screen_delta_exponent) == 16 + 4 * P);
    assert!(offset_of!(sae_open_options, screen_check) == 20 + 4 * P);
    assert!(offset_of!(sae_open_options, screen_seed) == 24 + 4 * P);

    assert!(size_of::<sae_site>() == 64);
    assert!(offset_of!(sae_site, struct_size) == 0);
    assert!(offset_of!(sae_site, prepend_bos) == 4);
    assert!(offset_of!(sae_site, context_size) == 8);
    assert!(offset_of!(sae_site, mean_center) == 16);
    assert!(offset_of!(sae_site, concatenated_heads) == 20);
    assert!(offset_of!(sae_site, point) == 24);
    assert!(offset_of!(sae_site, layer) == 28);
    assert!(offset_of!(sae_site, point_out) == 32);
    assert!(offset_of!(sae_site, layer_out) == 36);
    assert!(offset_of!(sae_site, exclude_special_tokens) == 40);
    assert!(offset_of!(sae_site, reserved) == 44);
    assert!(offset_of!(sae_site, first_position) == 48);
    assert!(offset_of!(sae_site, embedding_scale) == 56);

    assert!(size_of::<sae_fit>() == 40);
    assert!(offset_of!(sae_fit, struct_size) == 0);
    assert!(offset_of!(sae_fit, verdict) == 4);
    assert!(offset_of!(sae_fit, rows) == 8);
    assert!(offset_of!(sae_fit, left_out) == 16);
    assert!(offset_of!(sae_fit, l0) == 24);
    assert!(offset_of!(sae_fit, fvu) == 32);

    assert!(size_of::<sae_prepare_cost>() == 24);
    assert!(offset_of!(sae_prepare_cost, struct_size) == 0);
    assert!(offset_of!(sae_prepare_cost, needed) == 4);
    assert!(offset_of!(sae_prepare_cost, bytes) == 8);
    assert!(offset_of!(sae_prepare_cost, reads) == 16);

    assert!(size_of::<sae_rows>() == 8 + 4 * P);
    assert!(offset_of!(sae_rows, data) == 0);
    assert!(offset_of!(sae_rows, dtype) == P);
    assert!(offset_of!(sae_rows, reserved) == 4 + P);
    assert!(offset_of!(sae_rows, n_rows) == 8 + P);
    assert!(offset_of!(sae_rows, width) == 8 + 2 * P);
    assert!(offset_of!(sae_rows, stride_bytes) == 8 + 3 * P);

    assert!(size_of::<sae_row_features>() == 8 + 3 * P);
    assert!(offset_of!(sae_row_features, indices) == 0);
    assert!(offset_of!(sae_row_features, values) == P);
    assert!(offset_of!(sae_row_features, count) == 2 * P);
    assert!(offset_of!(sae_row_features, status) == 3 * P);
    assert!(offset_of!(sae_row_features, reserved) == 1 + 3 * P);

    assert!(size_of::<sae_features_view>() == 6 * P);
    assert!(offset_of!(sae_features_view, row_ends) == 0);
    assert!(offset_of!(sae_features_view, row_status) == P);
    assert!(offset_of!(sae_features_view, indices) == 2 * P);
    assert!(offset_of!(sae_features_view, values) == 3 * P);
    assert!(offset_of!(sae_features_view, n_rows) == 4 * P);
    assert!(offset_of!(sae_features_view, count) == 5 * P);

    assert!(size_of::<sae_rows_mut>() == 8 + 4 * P);
    assert!(offset_of!(sae_rows_mut, data) == 0);
    assert!(offset_of!(sae_rows_mut, dtype) == P);
    assert!(offset_of!(sae_rows_mut, reserved) == 4 + P);
    assert!(offset_of!(sae_rows_mut, n_rows) == 8 + P);
    assert!(offset_of!(sae_rows_mut, width) == 8 + 2 * P);
    assert!(offset_of!(sae_rows_mut, stride_bytes) == 8 + 3 * P);

    assert!(size_of::<sae_row_info>() == 40);
    assert!(offset_of!(sae_row_info, position) == 0);
    assert!(offset_of!(sae_row_info, stage) == 4);
    assert!(offset_of!(sae_row_info, last) == 8);
    assert!(offset_of!(sae_row_info, token_class) == 12);
    assert!(offset_of!(sae_row_info, phase) == 16);
    assert!(offset_of!(sae_row_info, plan) == 20);
    assert!(offset_of!(sae_row_info, source) == 24);
    assert!(offset_of!(sae_row_info, stream) == 28);
    assert!(offset_of!(sae_row_info, factor) == 32);

    assert!(size_of::<sae_steer_batch>() == 8 + 9 * P);
    assert!(offset_of!(sae_steer_batch, struct_size) == 0);
    assert!(offset_of!(sae_steer_batch, dry_run) == 4);
    assert!(offset_of!(sae_steer_batch, rows) == 8);
    assert!(offset_of!(sae_steer_batch, inputs) == 8 + P);
    assert!(offset_of!(sae_steer_batch, sources) == 8 + 2 * P);
    assert!(offset_of!(sae_steer_batch, infos) == 8 + 3 * P);
    assert!(offset_of!(sae_steer_batch, n_infos) == 8 + 4 * P);
    assert!(offset_of!(sae_steer_batch, outcomes) == 8 + 5 * P);
    assert!(offset_of!(sae_steer_batch, n_outcomes) == 8 + 6 * P);
    assert!(offset_of!(sae_steer_batch, changes) == 8 + 7 * P);
    assert!(offset_of!(sae_steer_batch, n_changes) == 8 + 8 * P);

    assert!(size_of::<sae_observed>() == 32);
    assert!(offset_of!(sae_observed, struct_size) == 0);
    assert!(offset_of!(sae_observed, reserved) == 4);
    assert!(offset_of!(sae_observed, max) == 8);
    assert!(offset_of!(sae_observed, density) == 16);
    assert!(offset_of!(sae_observed, mean) == 24);

    assert!(size_of::<sae_decomposed>() == 56);
    assert!(offset_of!(sae_decomposed, struct_size) == 0);
    assert!(offset_of!(sae_decomposed, reserved) == 4);
    assert!(offset_of!(sae_decomposed, n_parts) == 8);
    assert!(offset_of!(sae_decomposed, n_along) == 16);
    assert!(offset_of!(sae_decomposed, n_against) == 24);
    assert!(offset_of!(sae_decomposed, norm) == 32);
    assert!(offset_of!(sae_decomposed, cosine) == 40);
    assert!(offset_of!(sae_decomposed, explained) == 48);

    assert!(size_of::<sae_projection>() == 24);
    assert!(offset_of!(sae_projection, feature) == 0);
    assert!(offset_of!(sae_projection, reserved) == 4);
    assert!(offset_of!(sae_projection, cosine) == 8);
    assert!(offset_of!(sae_projection, projection) == 16);

    assert!(size_of::<sae_vector_part>() == 40);
    assert!(offset_of!(sae_vector_part, feature) == 0);
    assert!(offset_of!(sae_vector_part, reserved) == 4);
    assert!(offset_of!(sae_vector_part, cosine) == 8);
    assert!(offset_of!(sae_vector_part, projection) == 16);
    assert!(offset_of!(sae_vector_part, length) == 24);
    assert!(offset_of!(sae_vector_part, strength) == 32);

    assert!(size_of::<sae_plan_cost>() == 40);
    assert!(offset_of!(sae_plan_cost, struct_size) == 0);
    assert!(offset_of!(sae_plan_cost, needs_encode) == 4);
    assert!(offset_of!(sae_plan_cost, encoder_rows) == 8);
    assert!(offset_of!(sae_plan_cost, decoder_rows) == 16);
    assert!(offset_of!(sae_plan_cost, bytes_per_row) == 24);
    assert!(offset_of!(sae_plan_cost, bytes_held) == 32);

    assert!(size_of::<sae_edit>() == 72 + 10 * P);
    assert!(offset_of!(sae_edit, struct_size) == 0);
    assert!(offset_of!(sae_edit, rule) == 4);
    assert!(offset_of!(sae_edit, of) == 8);
    assert!(offset_of!(sae_edit, reads) == 12);
    assert!(offset_of!(sae_edit, strength) == 16);
    assert!(offset_of!(sae_edit, deviations) == 24);
    assert!(offset_of!(sae_edit, over) == 32);
    assert!(offset_of!(sae_edit, under) == 40);
    assert!(offset_of!(sae_edit, features) == 48);
    assert!(offset_of!(sae_edit, n_features) == 48 + P);
    assert!(offset_of!(sae_edit, direction) == 48 + 2 * P);
    assert!(offset_of!(sae_edit, phases) == 48 + 3 * P);
    assert!(offset_of!(sae_edit, n_phases) == 48 + 4 * P);
    assert!(offset_of!(sae_edit, reserved) == 48 + 5 * P);
    assert!(offset_of!(sae_edit, over_of) == 48 + 6 * P);
    assert!(offset_of!(sae_edit, under_of) == 52 + 6 * P);
    assert!(offset_of!(sae_edit, over_deviations) == 56 + 6 * P);
    assert!(offset_of!(sae_edit, under_deviations) == 64 + 6 * P);
    assert!(offset_of!(sae_edit, over_phases) == 72 + 6 * P);
    assert!(offset_of!(sae_edit, n_over_phases) == 72 + 7 * P);
    assert!(offset_of!(sae_edit, under_phases) == 72 + 8 * P);
    assert!(offset_of!(sae_edit, n_under_phases) == 72 + 9 * P);

    assert!(size_of::<sae_audit>() == 40);
    assert!(offset_of!(sae_audit, struct_size) == 0);
    assert!(offset_of!(sae_audit, reserved) == 4);
    assert!(offset_of!(sae_audit, hash) == 8);
    assert!(offset_of!(sae_audit, rows) == 16);
    assert!(offset_of!(sae_audit, mean_relative) == 24);
    assert!(offset_of!(sae_audit, max_relative) == 32);

    assert!(size_of::<sae_contribution>() == 12);
    assert!(offset_of!(sae_contribution, feature) == 0);
    assert!(offset_of!(sae_contribution, value) == 4);
    assert!(offset_of!(sae_contribution, weight) == 8);

    assert!(size_of::<sae_event>() == 128);
    assert!(offset_of!(sae_event, rule) == 0);
    assert!(offset_of!(sae_event, n_contributions) == 4);
    assert!(offset_of!(sae_event, stream) == 8);
    assert!(offset_of!(sae_event, position) == 16);
    assert!(offset_of!(sae_event, score) == 24);
    assert!(offset_of!(sae_event, contributions) == 32);

    assert!(size_of::<sae_monitor_options>() == 24 + 6 * P);
    assert!(offset_of!(sae_monitor_options, struct_size) == 0);
    assert!(offset_of!(sae_monitor_options, unseen) == 4);
    assert!(offset_of!(sae_monitor_options, collect) == 8);
    assert!(offset_of!(sae_monitor_options, top) == 12);
    assert!(offset_of!(sae_monitor_options, streams) == 16);
    assert!(offset_of!(sae_monitor_options, pending_rows) == 16 + P);
    assert!(offset_of!(sae_monitor_options, pending_features) == 16 + 2 * P);
    assert!(offset_of!(sae_monitor_options, ring) == 16 + 3 * P);
    assert!(offset_of!(sae_monitor_options, on_event) == 16 + 4 * P);
    assert!(offset_of!(sae_monitor_options, context) == 16 + 5 * P);
    assert!(offset_of!(sae_monitor_options, histogram) == 16 + 6 * P);
    assert!(offset_of!(sae_monitor_options, reserved) == 20 + 6 * P);

    assert!(size_of::<sae_quality_options>() == 8 + 2 * P);
    assert!(offset_of!(sae_quality_options, struct_size) == 0);
    assert!(offset_of!(sae_quality_options, fit_errors) == 4);
    assert!(offset_of!(sae_quality_options, mean) == 8);
    assert!(offset_of!(sae_quality_options, n_mean) == 8 + P);

    assert!(size_of::<sae_row_quality>() == 96);
    assert!(offset_of!(sae_row_quality, l0) == 0);
    assert!(offset_of!(sae_row_quality, l1) == 8);
    assert!(offset_of!(sae_row_quality, l2) == 16);
    assert!(offset_of!(sae_row_quality, norm) == 24);
    assert!(offset_of!(sae_row_quality, reconstruction_norm) == 32);
    assert!(offset_of!(sae_row_quality, error_norm) == 40);
    assert!(offset_of!(sae_row_quality, cosine) == 48);
    assert!(offset_of!(sae_row_quality, norm_ratio) == 56);
    assert!(offset_of!(sae_row_quality, zf_deviation) == 64);
    assert!(offset_of!(sae_row_quality, afa_loss) == 72);
    assert!(offset_of!(sae_row_quality, anomaly) == 80);
    assert!(offset_of!(sae_row_quality, finite) == 88);
    assert!(offset_of!(sae_row_quality, reserved) == 92);

    assert!(size_of::<sae_quality_summary>() == 120);
    assert!(offset_of!(sae_quality_summary, struct_size) == 0);
    assert!(offset_of!(sae_quality_summary, reserved) == 4);
    assert!(offset_of!(sae_quality_summary, rows) == 8);
    assert!(offset_of!(sae_quality_summary, non_finite) == 16);
    assert!(offset_of!(sae_quality_summary, overflows) == 24);
    assert!(offset_of!(sae_quality_summary, anomalous) == 32);
    assert!(offset_of!(sae_quality_summary, l0) == 40);
    assert!(offset_of!(sae_quality_summary, l1) == 48);
    assert!(offset_of!(sae_quality_summary, mse) == 56);
    assert!(offset_of!(sae_quality_summary, fvu) == 64);
    assert!(offset_of!(sae_quality_summary, explained_variance) == 72);
    assert!(offset_of!(sae_quality_summary, cosine) == 80);
    assert!(offset_of!(sae_quality_summary, norm_ratio) == 88);
    assert!(offset_of!(sae_quality_summary, reconstruction_bias) == 96);
    assert!(offset_of!(sae_quality_summary, zf_deviation) == 104);
    assert!(offset_of!(sae_quality_summary, afa_loss) == 112);

    assert!(size_of::<sae_monitor_row>() == 32);
    assert!(offset_of!(sae_monitor_row, stream) == 0);
    assert!(offset_of!(sae_monitor_row, position) == 8);
    assert!(offset_of!(sae_monitor_row, signal) == 16);
    assert!(offset_of!(sae_monitor_row, flags) == 24);
    assert!(offset_of!(sae_monitor_row, reserved) == 28);

    assert!(size_of::<sae_monitor_counts>() == 72);
    assert!(offset_of!(sae_monitor_counts, struct_size) == 0);
    assert!(offset_of!(sae_monitor_counts, streams) == 4);
    assert!(offset_of!(sae_monitor_counts, rows) == 8);
    assert!(offset_of!(sae_monitor_counts, non_finite) == 16);
    assert!(offset_of!(sae_monitor_counts, rolled_back) == 24);
    assert!(offset_of!(sae_monitor_counts, refused) == 32);
    assert!(offset_of!(sae_monitor_counts, evicted) == 40);
    assert!(offset_of!(sae_monitor_counts, events) == 48);
    assert!(offset_of!(sae_monitor_counts, suppressed) == 56);
    assert!(offset_of!(sae_monitor_counts, bytes) == 64);

    assert!(size_of::<sae_feature_summary>() == 64);
    assert!(offset_of!(sae_feature_summary, struct_size) == 0);
    assert!(offset_of!(sae_feature_summary, feature) == 4);
    assert!(offset_of!(sae_feature_summary, rows) == 8);
    assert!(offset_of!(sae_feature_summary, fired) == 16);
    assert!(offset_of!(sae_feature_summary, mean) == 24);
    assert!(offset_of!(sae_feature_summary, variance) == 32);
    assert!(offset_of!(sae_feature_summary, max) == 40);
    assert!(offset_of!(sae_feature_summary, min) == 44);
    assert!(offset_of!(sae_feature_summary, max_stream) == 48);
    assert!(offset_of!(sae_feature_summary, max_position) == 56);
    assert!(size_of::<sae_pursuit>() == 48);
    assert!(offset_of!(sae_pursuit, struct_size) == 0);
    assert!(offset_of!(sae_pursuit, pick) == 4);
    assert!(offset_of!(sae_pursuit, refit) == 8);
    assert!(offset_of!(sae_pursuit, stop_on_repeat) == 12);
    assert!(offset_of!(sae_pursuit, steps) == 16);
    assert!(offset_of!(sae_pursuit, stop_norm) == 24);
    assert!(offset_of!(sae_pursuit, stop_rank) == 32);
    assert!(offset_of!(sae_pursuit, directions) == 40);
    assert!(offset_of!(sae_pursuit, reserved) == 44);
};
