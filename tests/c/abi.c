/* The layout and the numbers of sae.h, pinned. ffi/src/types.rs asserts the same on the other
 * side; tests/c_abi.rs compares the two lists. A line here is only ever added. */
#include "sae.h"

#include <assert.h>
#include <stddef.h>

#define P sizeof(void *)

static_assert(sizeof(size_t) == P, "size_t");
static_assert(sizeof(sae_status) == 4 && (sae_status)-1 < 0, "sae_status");
static_assert(sizeof(sae_check) == 4 && (sae_check)-1 < 0, "sae_check");
static_assert(sizeof(sae_text) == 4 && (sae_text)-1 < 0, "sae_text");
static_assert(sizeof(sae_dtype) == 4 && (sae_dtype)-1 < 0, "sae_dtype");
static_assert(sizeof(sae_row_status) == 1, "sae_row_status");

static_assert(sizeof(sae_error) == 264, "sae_error");
static_assert(offsetof(sae_error, code) == 0, "sae_error");
static_assert(offsetof(sae_error, message_length) == 4, "sae_error");
static_assert(offsetof(sae_error, message) == 8, "sae_error");

static_assert(sizeof(sae_open_options) == 16 + 3 * P, "sae_open_options");
static_assert(offsetof(sae_open_options, struct_size) == 0, "sae_open_options");
static_assert(offsetof(sae_open_options, check) == 4, "sae_open_options");
static_assert(offsetof(sae_open_options, strict) == 8, "sae_open_options");
static_assert(offsetof(sae_open_options, reserved) == 12, "sae_open_options");
static_assert(offsetof(sae_open_options, level) == 16, "sae_open_options");
static_assert(offsetof(sae_open_options, settings) == 16 + P, "sae_open_options");
static_assert(offsetof(sae_open_options, n_settings) == 16 + 2 * P, "sae_open_options");

static_assert(sizeof(sae_site) == 24, "sae_site");
static_assert(offsetof(sae_site, struct_size) == 0, "sae_site");
static_assert(offsetof(sae_site, prepend_bos) == 4, "sae_site");
static_assert(offsetof(sae_site, context_size) == 8, "sae_site");
static_assert(offsetof(sae_site, mean_center) == 16, "sae_site");
static_assert(offsetof(sae_site, concatenated_heads) == 20, "sae_site");

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

static_assert(SAE_VERSION_NUMBER ==
                  SAE_VERSION_MAJOR * 0x10000 + SAE_VERSION_MINOR * 0x100 + SAE_VERSION_PATCH,
              "the composed number");

int main(void) {
    return 0;
}
