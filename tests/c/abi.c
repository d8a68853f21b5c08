/* The layout and the numbers of the C headers, pinned. ffi/src/types.rs asserts the same on the other
 * side; tests/c_abi.rs compares the two lists. A line here is only ever added. */
#include "sae.h"
#include "sae_architectures.h"
#include "sae_monitor.h"
#include "sae_steer.h"

#include <assert.h>
#include <stddef.h>

#define P sizeof(void *)

static_assert(sizeof(size_t) == P, "size_t");
static_assert(sizeof(sae_status) == 4 && (sae_status)-1 < 0, "sae_status");
static_assert(sizeof(sae_check) == 4 && (sae_check)-1 < 0, "sae_check");
static_assert(sizeof(sae_text) == 4 && (sae_text)-1 < 0, "sae_text");
static_assert(sizeof(sae_dtype) == 4 && (sae_dtype)-1 < 0, "sae_dtype");
static_assert(sizeof(sae_row_status) == 1, "sae_row_status");
static_assert(sizeof(sae_hook_point) == 4 && (sae_hook_point)-1 < 0, "sae_hook_point");
static_assert(sizeof(sae_verdict) == 4 && (sae_verdict)-1 < 0, "sae_verdict");
static_assert(sizeof(sae_log_level) == 4 && (sae_log_level)-1 < 0, "sae_log_level");

static_assert(sizeof(sae_error) == 264, "sae_error");
static_assert(offsetof(sae_error, code) == 0, "sae_error");
static_assert(offsetof(sae_error, message_length) == 4, "sae_error");
static_assert(offsetof(sae_error, message) == 8, "sae_error");

static_assert(sizeof(sae_open_options) == 32 + 4 * P, "sae_open_options");
static_assert(offsetof(sae_open_options, struct_size) == 0, "sae_open_options");
static_assert(offsetof(sae_open_options, check) == 4, "sae_open_options");
static_assert(offsetof(sae_open_options, strict) == 8, "sae_open_options");
static_assert(offsetof(sae_open_options, reserved) == 12, "sae_open_options");
static_assert(offsetof(sae_open_options, level) == 16, "sae_open_options");
static_assert(offsetof(sae_open_options, settings) == 16 + P, "sae_open_options");
static_assert(offsetof(sae_open_options, n_settings) == 16 + 2 * P, "sae_open_options");
static_assert(offsetof(sae_open_options, screen) == 16 + 3 * P, "sae_open_options");
static_assert(offsetof(sae_open_options, screen_delta_exponent) == 16 + 4 * P, "sae_open_options");
static_assert(offsetof(sae_open_options, screen_check) == 20 + 4 * P, "sae_open_options");
static_assert(offsetof(sae_open_options, screen_seed) == 24 + 4 * P, "sae_open_options");

static_assert(sizeof(sae_site) == 64, "sae_site");
static_assert(offsetof(sae_site, struct_size) == 0, "sae_site");
static_assert(offsetof(sae_site, prepend_bos) == 4, "sae_site");
static_assert(offsetof(sae_site, context_size) == 8, "sae_site");
static_assert(offsetof(sae_site, mean_center) == 16, "sae_site");
static_assert(offsetof(sae_site, concatenated_heads) == 20, "sae_site");
static_assert(offsetof(sae_site, point) == 24, "sae_site");
static_assert(offsetof(sae_site, layer) == 28, "sae_site");
static_assert(offsetof(sae_site, point_out) == 32, "sae_site");
static_assert(offsetof(sae_site, layer_out) == 36, "sae_site");
static_assert(offsetof(sae_site, exclude_special_tokens) == 40, "sae_site");
static_assert(offsetof(sae_site, reserved) == 44, "sae_site");
static_assert(offsetof(sae_site, first_position) == 48, "sae_site");
static_assert(offsetof(sae_site, embedding_scale) == 56, "sae_site");

static_assert(sizeof(sae_fit) == 40, "sae_fit");
static_assert(offsetof(sae_fit, struct_size) == 0, "sae_fit");
static_assert(offsetof(sae_fit, verdict) == 4, "sae_fit");
static_assert(offsetof(sae_fit, rows) == 8, "sae_fit");
static_assert(offsetof(sae_fit, left_out) == 16, "sae_fit");
static_assert(offsetof(sae_fit, l0) == 24, "sae_fit");
static_assert(offsetof(sae_fit, fvu) == 32, "sae_fit");

static_assert(sizeof(sae_prepare_cost) == 24, "sae_prepare_cost");
static_assert(offsetof(sae_prepare_cost, struct_size) == 0, "sae_prepare_cost");
static_assert(offsetof(sae_prepare_cost, needed) == 4, "sae_prepare_cost");
static_assert(offsetof(sae_prepare_cost, bytes) == 8, "sae_prepare_cost");
static_assert(offsetof(sae_prepare_cost, reads) == 16, "sae_prepare_cost");

static_assert(sizeof(sae_rows) == 8 + 4 * P, "sae_rows");
static_assert(offsetof(sae_rows, data) == 0, "sae_rows");
static_assert(offsetof(sae_rows, dtype) == P, "sae_rows");
static_assert(offsetof(sae_rows, reserved) == 4 + P, "sae_rows");
static_assert(offsetof(sae_rows, n_rows) == 8 + P, "sae_rows");
static_assert(offsetof(sae_rows, width) == 8 + 2 * P, "sae_rows");
static_assert(offsetof(sae_rows, stride_bytes) == 8 + 3 * P, "sae_rows");

static_assert(sizeof(sae_row_features) == 8 + 3 * P, "sae_row_features");
static_assert(offsetof(sae_row_features, indices) == 0, "sae_row_features");
static_assert(offsetof(sae_row_features, values) == P, "sae_row_features");
static_assert(offsetof(sae_row_features, count) == 2 * P, "sae_row_features");
static_assert(offsetof(sae_row_features, status) == 3 * P, "sae_row_features");
static_assert(offsetof(sae_row_features, reserved) == 1 + 3 * P, "sae_row_features");

static_assert(sizeof(sae_features_view) == 6 * P, "sae_features_view");
static_assert(offsetof(sae_features_view, row_ends) == 0, "sae_features_view");
static_assert(offsetof(sae_features_view, row_status) == P, "sae_features_view");
static_assert(offsetof(sae_features_view, indices) == 2 * P, "sae_features_view");
static_assert(offsetof(sae_features_view, values) == 3 * P, "sae_features_view");
static_assert(offsetof(sae_features_view, n_rows) == 4 * P, "sae_features_view");
static_assert(offsetof(sae_features_view, count) == 5 * P, "sae_features_view");

static_assert(SAE_STATUS_OK == 0, "sae_status");
static_assert(SAE_STATUS_NULL_ARGUMENT == 1, "sae_status");
static_assert(SAE_STATUS_IO == 2, "sae_status");
static_assert(SAE_STATUS_NOT_A_CHECKPOINT == 3, "sae_status");
static_assert(SAE_STATUS_MALFORMED == 4, "sae_status");
static_assert(SAE_STATUS_TRUNCATED == 5, "sae_status");
static_assert(SAE_STATUS_CORRUPT == 6, "sae_status");
static_assert(SAE_STATUS_LIMIT == 7, "sae_status");
static_assert(SAE_STATUS_UNSUPPORTED == 8, "sae_status");
static_assert(SAE_STATUS_UNSAFE_PICKLE == 9, "sae_status");
static_assert(SAE_STATUS_MISSING_TENSOR == 10, "sae_status");
static_assert(SAE_STATUS_UNKNOWN_TENSOR == 11, "sae_status");
static_assert(SAE_STATUS_SHAPE == 12, "sae_status");
static_assert(SAE_STATUS_INVALID_VALUE == 13, "sae_status");
static_assert(SAE_STATUS_MISSING_KEY == 14, "sae_status");
static_assert(SAE_STATUS_UNKNOWN_KEY == 15, "sae_status");
static_assert(SAE_STATUS_LENGTH == 16, "sae_status");
static_assert(SAE_STATUS_FEATURE_OUT_OF_RANGE == 17, "sae_status");
static_assert(SAE_STATUS_INVALID_ARGUMENT == 18, "sae_status");
static_assert(SAE_STATUS_LEVEL_UNAVAILABLE == 19, "sae_status");
static_assert(SAE_STATUS_OUT_OF_MEMORY == 20, "sae_status");
static_assert(SAE_STATUS_NO_ADAPTER == 21, "sae_status");
static_assert(SAE_STATUS_DEVICE == 22, "sae_status");
static_assert(SAE_STATUS_WRONG_HANDLE == 30, "sae_status");
static_assert(SAE_STATUS_PANIC == 31, "sae_status");
static_assert(SAE_STATUS_IN_USE == 32, "sae_status");

static_assert(SAE_CHECK_QUICK == 0, "sae_check");
static_assert(SAE_CHECK_FULL == 1, "sae_check");

static_assert(SAE_TEXT_PUBLISHER == 0, "sae_text");
static_assert(SAE_TEXT_CONVENTION == 1, "sae_text");
static_assert(SAE_TEXT_ARCHITECTURE == 2, "sae_text");
static_assert(SAE_TEXT_ACTIVATION == 3, "sae_text");
static_assert(SAE_TEXT_NORMALIZATION == 4, "sae_text");
static_assert(SAE_TEXT_HOOK_NAME == 5, "sae_text");
static_assert(SAE_TEXT_MODEL_NAME == 6, "sae_text");
static_assert(SAE_TEXT_HOOK_NAME_OUT == 7, "sae_text");

static_assert(SAE_DTYPE_F32 == 0, "sae_dtype");
static_assert(SAE_DTYPE_F16 == 1, "sae_dtype");
static_assert(SAE_DTYPE_BF16 == 30, "sae_dtype");

static_assert(SAE_ROW_OK == 0, "sae_row_status");
static_assert(SAE_ROW_NON_FINITE == 1, "sae_row_status");
static_assert(SAE_ROW_NAN_PRE_ACTIVATION == 2, "sae_row_status");
static_assert(SAE_ROW_SKIPPED == 3, "sae_row_status");

static_assert(SAE_HOOK_UNKNOWN == 0, "sae_hook_point");
static_assert(SAE_HOOK_EMBEDDING == 1, "sae_hook_point");
static_assert(SAE_HOOK_RESID_PRE == 2, "sae_hook_point");
static_assert(SAE_HOOK_RESID_MID == 3, "sae_hook_point");
static_assert(SAE_HOOK_RESID_POST == 4, "sae_hook_point");
static_assert(SAE_HOOK_HEADS == 5, "sae_hook_point");
static_assert(SAE_HOOK_ATTN_OUT == 6, "sae_hook_point");
static_assert(SAE_HOOK_MLP_IN == 7, "sae_hook_point");
static_assert(SAE_HOOK_MLP_OUT == 8, "sae_hook_point");

static_assert(SAE_VERDICT_TOO_FEW_ROWS == 0, "sae_verdict");
static_assert(SAE_VERDICT_FITS == 1, "sae_verdict");
static_assert(SAE_VERDICT_DOUBTFUL == 2, "sae_verdict");
static_assert(SAE_VERDICT_WRONG == 3, "sae_verdict");

static_assert(SAE_LOG_INFO == 0, "sae_log_level");
static_assert(SAE_LOG_WARNING == 1, "sae_log_level");
static_assert(SAE_LOG_ERROR == 2, "sae_log_level");

static_assert(sizeof(sae_rows_mut) == 8 + 4 * P, "sae_rows_mut");
static_assert(offsetof(sae_rows_mut, data) == 0, "sae_rows_mut");
static_assert(offsetof(sae_rows_mut, dtype) == P, "sae_rows_mut");
static_assert(offsetof(sae_rows_mut, reserved) == 4 + P, "sae_rows_mut");
static_assert(offsetof(sae_rows_mut, n_rows) == 8 + P, "sae_rows_mut");
static_assert(offsetof(sae_rows_mut, width) == 8 + 2 * P, "sae_rows_mut");
static_assert(offsetof(sae_rows_mut, stride_bytes) == 8 + 3 * P, "sae_rows_mut");

static_assert(sizeof(sae_row_info) == 40, "sae_row_info");
static_assert(offsetof(sae_row_info, position) == 0, "sae_row_info");
static_assert(offsetof(sae_row_info, stage) == 4, "sae_row_info");
static_assert(offsetof(sae_row_info, last) == 8, "sae_row_info");
static_assert(offsetof(sae_row_info, token_class) == 12, "sae_row_info");
static_assert(offsetof(sae_row_info, phase) == 16, "sae_row_info");
static_assert(offsetof(sae_row_info, plan) == 20, "sae_row_info");
static_assert(offsetof(sae_row_info, source) == 24, "sae_row_info");
static_assert(offsetof(sae_row_info, stream) == 28, "sae_row_info");
static_assert(offsetof(sae_row_info, factor) == 32, "sae_row_info");

static_assert(sizeof(sae_steer_batch) == 8 + 9 * P, "sae_steer_batch");
static_assert(offsetof(sae_steer_batch, struct_size) == 0, "sae_steer_batch");
static_assert(offsetof(sae_steer_batch, dry_run) == 4, "sae_steer_batch");
static_assert(offsetof(sae_steer_batch, rows) == 8, "sae_steer_batch");
static_assert(offsetof(sae_steer_batch, inputs) == 8 + P, "sae_steer_batch");
static_assert(offsetof(sae_steer_batch, sources) == 8 + 2 * P, "sae_steer_batch");
static_assert(offsetof(sae_steer_batch, infos) == 8 + 3 * P, "sae_steer_batch");
static_assert(offsetof(sae_steer_batch, n_infos) == 8 + 4 * P, "sae_steer_batch");
static_assert(offsetof(sae_steer_batch, outcomes) == 8 + 5 * P, "sae_steer_batch");
static_assert(offsetof(sae_steer_batch, n_outcomes) == 8 + 6 * P, "sae_steer_batch");
static_assert(offsetof(sae_steer_batch, changes) == 8 + 7 * P, "sae_steer_batch");
static_assert(offsetof(sae_steer_batch, n_changes) == 8 + 8 * P, "sae_steer_batch");

static_assert(sizeof(sae_observed) == 32, "sae_observed");
static_assert(offsetof(sae_observed, struct_size) == 0, "sae_observed");
static_assert(offsetof(sae_observed, reserved) == 4, "sae_observed");
static_assert(offsetof(sae_observed, max) == 8, "sae_observed");
static_assert(offsetof(sae_observed, density) == 16, "sae_observed");
static_assert(offsetof(sae_observed, mean) == 24, "sae_observed");

static_assert(sizeof(sae_decomposed) == 56, "sae_decomposed");
static_assert(offsetof(sae_decomposed, struct_size) == 0, "sae_decomposed");
static_assert(offsetof(sae_decomposed, reserved) == 4, "sae_decomposed");
static_assert(offsetof(sae_decomposed, n_parts) == 8, "sae_decomposed");
static_assert(offsetof(sae_decomposed, n_along) == 16, "sae_decomposed");
static_assert(offsetof(sae_decomposed, n_against) == 24, "sae_decomposed");
static_assert(offsetof(sae_decomposed, norm) == 32, "sae_decomposed");
static_assert(offsetof(sae_decomposed, cosine) == 40, "sae_decomposed");
static_assert(offsetof(sae_decomposed, explained) == 48, "sae_decomposed");

static_assert(sizeof(sae_projection) == 24, "sae_projection");
static_assert(offsetof(sae_projection, feature) == 0, "sae_projection");
static_assert(offsetof(sae_projection, reserved) == 4, "sae_projection");
static_assert(offsetof(sae_projection, cosine) == 8, "sae_projection");
static_assert(offsetof(sae_projection, projection) == 16, "sae_projection");

static_assert(sizeof(sae_vector_part) == 40, "sae_vector_part");
static_assert(offsetof(sae_vector_part, feature) == 0, "sae_vector_part");
static_assert(offsetof(sae_vector_part, reserved) == 4, "sae_vector_part");
static_assert(offsetof(sae_vector_part, cosine) == 8, "sae_vector_part");
static_assert(offsetof(sae_vector_part, projection) == 16, "sae_vector_part");
static_assert(offsetof(sae_vector_part, length) == 24, "sae_vector_part");
static_assert(offsetof(sae_vector_part, strength) == 32, "sae_vector_part");

static_assert(sizeof(sae_plan_cost) == 40, "sae_plan_cost");
static_assert(offsetof(sae_plan_cost, struct_size) == 0, "sae_plan_cost");
static_assert(offsetof(sae_plan_cost, needs_encode) == 4, "sae_plan_cost");
static_assert(offsetof(sae_plan_cost, encoder_rows) == 8, "sae_plan_cost");
static_assert(offsetof(sae_plan_cost, decoder_rows) == 16, "sae_plan_cost");
static_assert(offsetof(sae_plan_cost, bytes_per_row) == 24, "sae_plan_cost");
static_assert(offsetof(sae_plan_cost, bytes_held) == 32, "sae_plan_cost");

static_assert(sizeof(sae_audit) == 40, "sae_audit");
static_assert(offsetof(sae_audit, struct_size) == 0, "sae_audit");
static_assert(offsetof(sae_audit, reserved) == 4, "sae_audit");
static_assert(offsetof(sae_audit, hash) == 8, "sae_audit");
static_assert(offsetof(sae_audit, rows) == 16, "sae_audit");
static_assert(offsetof(sae_audit, mean_relative) == 24, "sae_audit");
static_assert(offsetof(sae_audit, max_relative) == 32, "sae_audit");

static_assert(sizeof(sae_contribution) == 12, "sae_contribution");
static_assert(offsetof(sae_contribution, feature) == 0, "sae_contribution");
static_assert(offsetof(sae_contribution, value) == 4, "sae_contribution");
static_assert(offsetof(sae_contribution, weight) == 8, "sae_contribution");

static_assert(sizeof(sae_event) == 128, "sae_event");
static_assert(offsetof(sae_event, rule) == 0, "sae_event");
static_assert(offsetof(sae_event, n_contributions) == 4, "sae_event");
static_assert(offsetof(sae_event, stream) == 8, "sae_event");
static_assert(offsetof(sae_event, position) == 16, "sae_event");
static_assert(offsetof(sae_event, score) == 24, "sae_event");
static_assert(offsetof(sae_event, contributions) == 32, "sae_event");

static_assert(sizeof(sae_monitor_options) == 24 + 6 * P, "sae_monitor_options");
static_assert(offsetof(sae_monitor_options, struct_size) == 0, "sae_monitor_options");
static_assert(offsetof(sae_monitor_options, unseen) == 4, "sae_monitor_options");
static_assert(offsetof(sae_monitor_options, collect) == 8, "sae_monitor_options");
static_assert(offsetof(sae_monitor_options, top) == 12, "sae_monitor_options");
static_assert(offsetof(sae_monitor_options, streams) == 16, "sae_monitor_options");
static_assert(offsetof(sae_monitor_options, pending_rows) == 16 + P, "sae_monitor_options");
static_assert(offsetof(sae_monitor_options, pending_features) == 16 + 2 * P, "sae_monitor_options");
static_assert(offsetof(sae_monitor_options, ring) == 16 + 3 * P, "sae_monitor_options");
static_assert(offsetof(sae_monitor_options, on_event) == 16 + 4 * P, "sae_monitor_options");
static_assert(offsetof(sae_monitor_options, context) == 16 + 5 * P, "sae_monitor_options");
static_assert(offsetof(sae_monitor_options, histogram) == 16 + 6 * P, "sae_monitor_options");
static_assert(offsetof(sae_monitor_options, reserved) == 20 + 6 * P, "sae_monitor_options");

static_assert(sizeof(sae_quality_options) == 8 + 2 * P, "sae_quality_options");
static_assert(offsetof(sae_quality_options, struct_size) == 0, "sae_quality_options");
static_assert(offsetof(sae_quality_options, fit_errors) == 4, "sae_quality_options");
static_assert(offsetof(sae_quality_options, mean) == 8, "sae_quality_options");
static_assert(offsetof(sae_quality_options, n_mean) == 8 + P, "sae_quality_options");

static_assert(sizeof(sae_row_quality) == 96, "sae_row_quality");
static_assert(offsetof(sae_row_quality, l0) == 0, "sae_row_quality");
static_assert(offsetof(sae_row_quality, l1) == 8, "sae_row_quality");
static_assert(offsetof(sae_row_quality, l2) == 16, "sae_row_quality");
static_assert(offsetof(sae_row_quality, norm) == 24, "sae_row_quality");
static_assert(offsetof(sae_row_quality, reconstruction_norm) == 32, "sae_row_quality");
static_assert(offsetof(sae_row_quality, error_norm) == 40, "sae_row_quality");
static_assert(offsetof(sae_row_quality, cosine) == 48, "sae_row_quality");
static_assert(offsetof(sae_row_quality, norm_ratio) == 56, "sae_row_quality");
static_assert(offsetof(sae_row_quality, zf_deviation) == 64, "sae_row_quality");
static_assert(offsetof(sae_row_quality, afa_loss) == 72, "sae_row_quality");
static_assert(offsetof(sae_row_quality, anomaly) == 80, "sae_row_quality");
static_assert(offsetof(sae_row_quality, finite) == 88, "sae_row_quality");
static_assert(offsetof(sae_row_quality, reserved) == 92, "sae_row_quality");

static_assert(sizeof(sae_quality_summary) == 120, "sae_quality_summary");
static_assert(offsetof(sae_quality_summary, struct_size) == 0, "sae_quality_summary");
static_assert(offsetof(sae_quality_summary, reserved) == 4, "sae_quality_summary");
static_assert(offsetof(sae_quality_summary, rows) == 8, "sae_quality_summary");
static_assert(offsetof(sae_quality_summary, non_finite) == 16, "sae_quality_summary");
static_assert(offsetof(sae_quality_summary, overflows) == 24, "sae_quality_summary");
static_assert(offsetof(sae_quality_summary, anomalous) == 32, "sae_quality_summary");
static_assert(offsetof(sae_quality_summary, l0) == 40, "sae_quality_summary");
static_assert(offsetof(sae_quality_summary, l1) == 48, "sae_quality_summary");
static_assert(offsetof(sae_quality_summary, mse) == 56, "sae_quality_summary");
static_assert(offsetof(sae_quality_summary, fvu) == 64, "sae_quality_summary");
static_assert(offsetof(sae_quality_summary, explained_variance) == 72, "sae_quality_summary");
static_assert(offsetof(sae_quality_summary, cosine) == 80, "sae_quality_summary");
static_assert(offsetof(sae_quality_summary, norm_ratio) == 88, "sae_quality_summary");
static_assert(offsetof(sae_quality_summary, reconstruction_bias) == 96, "sae_quality_summary");
static_assert(offsetof(sae_quality_summary, zf_deviation) == 104, "sae_quality_summary");
static_assert(offsetof(sae_quality_summary, afa_loss) == 112, "sae_quality_summary");

static_assert(sizeof(sae_monitor_row) == 32, "sae_monitor_row");
static_assert(offsetof(sae_monitor_row, stream) == 0, "sae_monitor_row");
static_assert(offsetof(sae_monitor_row, position) == 8, "sae_monitor_row");
static_assert(offsetof(sae_monitor_row, signal) == 16, "sae_monitor_row");
static_assert(offsetof(sae_monitor_row, flags) == 24, "sae_monitor_row");
static_assert(offsetof(sae_monitor_row, reserved) == 28, "sae_monitor_row");

static_assert(sizeof(sae_monitor_counts) == 72, "sae_monitor_counts");
static_assert(offsetof(sae_monitor_counts, struct_size) == 0, "sae_monitor_counts");
static_assert(offsetof(sae_monitor_counts, streams) == 4, "sae_monitor_counts");
static_assert(offsetof(sae_monitor_counts, rows) == 8, "sae_monitor_counts");
static_assert(offsetof(sae_monitor_counts, non_finite) == 16, "sae_monitor_counts");
static_assert(offsetof(sae_monitor_counts, rolled_back) == 24, "sae_monitor_counts");
static_assert(offsetof(sae_monitor_counts, refused) == 32, "sae_monitor_counts");
static_assert(offsetof(sae_monitor_counts, evicted) == 40, "sae_monitor_counts");
static_assert(offsetof(sae_monitor_counts, events) == 48, "sae_monitor_counts");
static_assert(offsetof(sae_monitor_counts, suppressed) == 56, "sae_monitor_counts");
static_assert(offsetof(sae_monitor_counts, bytes) == 64, "sae_monitor_counts");

static_assert(sizeof(sae_feature_summary) == 64, "sae_feature_summary");
static_assert(offsetof(sae_feature_summary, struct_size) == 0, "sae_feature_summary");
static_assert(offsetof(sae_feature_summary, feature) == 4, "sae_feature_summary");
static_assert(offsetof(sae_feature_summary, rows) == 8, "sae_feature_summary");
static_assert(offsetof(sae_feature_summary, fired) == 16, "sae_feature_summary");
static_assert(offsetof(sae_feature_summary, mean) == 24, "sae_feature_summary");
static_assert(offsetof(sae_feature_summary, variance) == 32, "sae_feature_summary");
static_assert(offsetof(sae_feature_summary, max) == 40, "sae_feature_summary");
static_assert(offsetof(sae_feature_summary, min) == 44, "sae_feature_summary");
static_assert(offsetof(sae_feature_summary, max_stream) == 48, "sae_feature_summary");
static_assert(offsetof(sae_feature_summary, max_position) == 56, "sae_feature_summary");
static_assert(sizeof(sae_edit) == 72 + 10 * P, "sae_edit");
static_assert(offsetof(sae_edit, struct_size) == 0, "sae_edit");
static_assert(offsetof(sae_edit, rule) == 4, "sae_edit");
static_assert(offsetof(sae_edit, of) == 8, "sae_edit");
static_assert(offsetof(sae_edit, reads) == 12, "sae_edit");
static_assert(offsetof(sae_edit, strength) == 16, "sae_edit");
static_assert(offsetof(sae_edit, deviations) == 24, "sae_edit");
static_assert(offsetof(sae_edit, over) == 32, "sae_edit");
static_assert(offsetof(sae_edit, under) == 40, "sae_edit");
static_assert(offsetof(sae_edit, features) == 48, "sae_edit");
static_assert(offsetof(sae_edit, n_features) == 48 + P, "sae_edit");
static_assert(offsetof(sae_edit, direction) == 48 + 2 * P, "sae_edit");
static_assert(offsetof(sae_edit, phases) == 48 + 3 * P, "sae_edit");
static_assert(offsetof(sae_edit, n_phases) == 48 + 4 * P, "sae_edit");
static_assert(offsetof(sae_edit, reserved) == 48 + 5 * P, "sae_edit");
static_assert(offsetof(sae_edit, over_of) == 48 + 6 * P, "sae_edit");
static_assert(offsetof(sae_edit, under_of) == 52 + 6 * P, "sae_edit");
static_assert(offsetof(sae_edit, over_deviations) == 56 + 6 * P, "sae_edit");
static_assert(offsetof(sae_edit, under_deviations) == 64 + 6 * P, "sae_edit");
static_assert(offsetof(sae_edit, over_phases) == 72 + 6 * P, "sae_edit");
static_assert(offsetof(sae_edit, n_over_phases) == 72 + 7 * P, "sae_edit");
static_assert(offsetof(sae_edit, under_phases) == 72 + 8 * P, "sae_edit");
static_assert(offsetof(sae_edit, n_under_phases) == 72 + 9 * P, "sae_edit");

static_assert(SAE_RULE_SET == 0, "SAE_RULE_SET");
static_assert(SAE_RULE_ADD == 1, "SAE_RULE_ADD");
static_assert(SAE_RULE_SCALE == 2, "SAE_RULE_SCALE");
static_assert(SAE_RULE_MAX_CLAMP == 3, "SAE_RULE_MAX_CLAMP");
static_assert(SAE_RULE_MIN_CAP == 4, "SAE_RULE_MIN_CAP");
static_assert(SAE_RULE_ZERO == 5, "SAE_RULE_ZERO");
static_assert(SAE_RULE_NEGATIVE_WHEN_ACTIVE == 6, "SAE_RULE_NEGATIVE_WHEN_ACTIVE");
static_assert(SAE_RULE_REPLACE_POSITIVE == 7, "SAE_RULE_REPLACE_POSITIVE");
static_assert(SAE_RULE_REMOVE == 8, "SAE_RULE_REMOVE");
static_assert(SAE_RULE_FROM_SOURCE == 9, "SAE_RULE_FROM_SOURCE");

static_assert(SAE_SCALE_ABSOLUTE == 0, "SAE_SCALE_ABSOLUTE");
static_assert(SAE_SCALE_CORPUS_MAX == 1, "SAE_SCALE_CORPUS_MAX");
static_assert(SAE_SCALE_CORPUS_MEAN == 2, "SAE_SCALE_CORPUS_MEAN");
static_assert(SAE_SCALE_CURRENT_MAX == 3, "SAE_SCALE_CURRENT_MAX");
static_assert(SAE_SCALE_ROW_NORM == 4, "SAE_SCALE_ROW_NORM");

static_assert(SAE_READS_FEATURE == 0, "SAE_READS_FEATURE");
static_assert(SAE_READS_PRE_ACTIVATION == 1, "SAE_READS_PRE_ACTIVATION");

static_assert(SAE_CONFLICTS_REFUSE == 0, "SAE_CONFLICTS_REFUSE");
static_assert(SAE_CONFLICTS_FIRST == 1, "SAE_CONFLICTS_FIRST");
static_assert(SAE_CONFLICTS_LAST == 2, "SAE_CONFLICTS_LAST");
static_assert(SAE_CONFLICTS_SUM == 3, "SAE_CONFLICTS_SUM");
static_assert(SAE_CONFLICTS_ONE_PER_ROW == 4, "SAE_CONFLICTS_ONE_PER_ROW");

static_assert(SAE_STAGE_UNKNOWN == 0, "SAE_STAGE_UNKNOWN");
static_assert(SAE_STAGE_PROMPT == 1, "SAE_STAGE_PROMPT");
static_assert(SAE_STAGE_GENERATION == 2, "SAE_STAGE_GENERATION");
static_assert(SAE_STAGE_SKIPPED == 3, "SAE_STAGE_SKIPPED");

static_assert(SAE_OUTCOME_FILTERED == 0, "SAE_OUTCOME_FILTERED");
static_assert(SAE_OUTCOME_UNCHANGED == 1, "SAE_OUTCOME_UNCHANGED");
static_assert(SAE_OUTCOME_EDITED == 2, "SAE_OUTCOME_EDITED");
static_assert(SAE_OUTCOME_CLIPPED == 3, "SAE_OUTCOME_CLIPPED");
static_assert(SAE_OUTCOME_REFUSED == 4, "SAE_OUTCOME_REFUSED");
static_assert(SAE_OUTCOME_NON_FINITE == 5, "SAE_OUTCOME_NON_FINITE");
static_assert(SAE_OUTCOME_OVERFLOW == 6, "SAE_OUTCOME_OVERFLOW");

static_assert(SAE_UNSEEN_EVICT == 0, "SAE_UNSEEN_EVICT");
static_assert(SAE_UNSEEN_REFUSE == 1, "SAE_UNSEEN_REFUSE");

static_assert(SAE_COLLECT_NONE == 0, "SAE_COLLECT_NONE");
static_assert(SAE_COLLECT_WATCHED == 1, "SAE_COLLECT_WATCHED");
static_assert(SAE_COLLECT_ALL == 2, "SAE_COLLECT_ALL");

static_assert(8 == SAE_MAX_CONTRIBUTIONS && 1u == SAE_ROW_HAS_SIGNAL, "monitoring");
static_assert(0xffffffffu == SAE_ALL_PLANS && 0xfffffffeu == SAE_NO_PLAN, "plans");

static_assert(sizeof(sae_pursuit) == 48, "sae_pursuit");
static_assert(offsetof(sae_pursuit, struct_size) == 0, "sae_pursuit");
static_assert(offsetof(sae_pursuit, pick) == 4, "sae_pursuit");
static_assert(offsetof(sae_pursuit, refit) == 8, "sae_pursuit");
static_assert(offsetof(sae_pursuit, stop_on_repeat) == 12, "sae_pursuit");
static_assert(offsetof(sae_pursuit, steps) == 16, "sae_pursuit");
static_assert(offsetof(sae_pursuit, stop_norm) == 24, "sae_pursuit");
static_assert(offsetof(sae_pursuit, stop_rank) == 32, "sae_pursuit");
static_assert(offsetof(sae_pursuit, directions) == 40, "sae_pursuit");
static_assert(offsetof(sae_pursuit, reserved) == 44, "sae_pursuit");

static_assert(SAE_PICK_POSITIVE == 0, "SAE_PICK_POSITIVE");
static_assert(SAE_PICK_ANY == 1, "SAE_PICK_ANY");
static_assert(SAE_PICK_MAGNITUDE == 2, "SAE_PICK_MAGNITUDE");
static_assert(SAE_REFIT_NOTHING == 0, "SAE_REFIT_NOTHING");
static_assert(SAE_REFIT_GRADIENT == 1, "SAE_REFIT_GRADIENT");
static_assert(SAE_REFIT_LEAST_SQUARES == 2, "SAE_REFIT_LEAST_SQUARES");
static_assert(SAE_ENSEMBLE_BAG == 0, "SAE_ENSEMBLE_BAG");
static_assert(SAE_ENSEMBLE_CHAIN == 1, "SAE_ENSEMBLE_CHAIN");
static_assert(SAE_ENSEMBLE_ROUTED == 2, "SAE_ENSEMBLE_ROUTED");
static_assert(SAE_BATCH_TOGETHER == 0, "SAE_BATCH_TOGETHER");
static_assert(SAE_BATCH_PER_FEATURE == 1, "SAE_BATCH_PER_FEATURE");

static_assert(SAE_VERSION_NUMBER ==
                  SAE_VERSION_MAJOR * 0x10000 + SAE_VERSION_MINOR * 0x100 + SAE_VERSION_PATCH,
              "the composed number");

int main(void) {
    return 0;
}
