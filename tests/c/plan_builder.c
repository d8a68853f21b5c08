/* Plans built by calls: they say what JSON says, steer to the same bits, and mistakes are refused
 * without a trace in the plan. */
#include "check.h"
#include "sae_steer.h"

#include <math.h>

static sae_error error;

static char *written(const sae_plan_builder *builder) {
    size_t size = 0;
    CHECK_OK(sae_plan_builder_write(builder, NULL, 0, &size, &error));
    char *text = malloc(size);
    CHECK(text != NULL && size > 2);
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_plan_builder_write(builder, text, size - 1, NULL, &error));
    CHECK_OK(sae_plan_builder_write(builder, text, size, &size, &error));
    CHECK(strlen(text) + 1 == size);
    return text;
}

/* Steers the rows with a plan and returns its hash. */
static uint64_t steer(const sae_model *model, const char *text, const sae_rows *inputs,
                      const sae_rows_mut *out) {
    sae_plan *plan = NULL;
    sae_steer_scratch *scratch = NULL;
    CHECK_OK(sae_plan_compile(model, &text, 1, SAE_CONFLICTS_REFUSE, &plan, &error));
    CHECK_OK(sae_steer_scratch_create(model, plan, &scratch, &error));
    sae_steer_batch batch;
    memset(&batch, 0, sizeof batch);
    batch.struct_size = (uint32_t)sizeof batch;
    batch.rows = out;
    batch.inputs = inputs;
    CHECK_OK(sae_model_steer(model, plan, &batch, scratch, &error));
    sae_audit audit;
    audit.struct_size = (uint32_t)sizeof audit;
    CHECK_OK(sae_steer_scratch_audit(scratch, 0, &audit, &error));
    sae_steer_scratch_destroy(scratch);
    sae_plan_destroy(plan);
    return audit.hash;
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    sae_model *model = NULL;
    CHECK_OK(sae_model_open(argv[1], NULL, &model, &error));
    sae_rows rows = read_rows(argv[2], model);
    size_t n = rows.n_rows, d_out = sae_model_d_out(model), count = n * d_out;

    sae_plan_builder *builder = NULL;
    CHECK_OK(sae_plan_builder_create("built", &builder, &error));
    const uint32_t features[] = {1, 3};
    sae_edit edit = SAE_EDIT_INIT;
    edit.rule = SAE_RULE_MAX_CLAMP;
    edit.of = SAE_SCALE_CORPUS_MAX;
    edit.strength = 0.5;
    edit.features = features;
    edit.n_features = 2;
    CHECK_OK(sae_plan_builder_edit(builder, &edit, &error));
    CHECK_OK(sae_plan_builder_statistics(builder, 1, 8.0, NAN, NAN, &error));
    CHECK_OK(sae_plan_builder_statistics(builder, 3, 6.0, 2.0, 1.0, &error));
    float *direction = calloc(d_out, sizeof(float));
    CHECK(direction != NULL);
    direction[0] = 2.0f;
    CHECK_OK(sae_plan_builder_direction(builder, "v", direction, d_out, 1, &error));
    sae_edit push = SAE_EDIT_INIT;
    push.rule = SAE_RULE_ADD;
    push.of = SAE_SCALE_ROW_NORM;
    push.strength = 0.25;
    push.direction = "v";
    CHECK_OK(sae_plan_builder_edit(builder, &push, &error));
    CHECK_OK(sae_plan_builder_set(builder, "rows", "{\"skip_first\": 1}", &error));

    /* Mistakes, none of which changes the plan. */
    char *text = written(builder);
    sae_edit wrong = edit;
    wrong.rule = 99;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_plan_builder_edit(builder, &wrong, &error));
    wrong = edit;
    wrong.of = -1;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_plan_builder_edit(builder, &wrong, &error));
    wrong = edit;
    wrong.reads = 2;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_plan_builder_edit(builder, &wrong, &error));
    wrong = edit;
    wrong.strength = INFINITY;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_plan_builder_edit(builder, &wrong, &error));
    wrong = edit;
    wrong.direction = "v";
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_plan_builder_edit(builder, &wrong, &error));
    wrong = edit;
    wrong.n_features = 0;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_plan_builder_edit(builder, &wrong, &error));
    wrong = edit;
    wrong.struct_size = 8;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_plan_builder_edit(builder, &wrong, &error));
    wrong = edit;
    wrong.reserved = &wrong;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_plan_builder_edit(builder, &wrong, &error));
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT, sae_plan_builder_edit(builder, NULL, &error));
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT, sae_plan_builder_edit(NULL, &edit, &error));
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE,
                 sae_plan_builder_edit((sae_plan_builder *)model, &edit, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_plan_builder_direction(builder, "w", direction, d_out, 2, &error));
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                 sae_plan_builder_direction(builder, NULL, direction, d_out, 0, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_plan_builder_statistics(builder, 0, INFINITY, NAN, NAN, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_plan_builder_set(builder, "edits", "[]", &error));
    CHECK_STATUS(SAE_STATUS_INVALID_VALUE,
                 sae_plan_builder_set(builder, "rows", "{\"skip\": 1}", &error));
    CHECK(strstr(error.message, "`rows`") != NULL);
    CHECK_STATUS(SAE_STATUS_MALFORMED, sae_plan_builder_set(builder, "when", "{", &error));
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                 sae_plan_builder_set(builder, "rows", NULL, &error));
    char *again = written(builder);
    CHECK(strcmp(text, again) == 0);
    free(again);

    /* The same plan by hand. */
    size_t room = 400 + 8 * d_out;
    char *json = malloc(room);
    CHECK(json != NULL);
    int at = snprintf(json, room,
                      "{\"name\": \"built\", \"edits\": [{\"features\": [1, 3], \"rule\": "
                      "\"max_clamp\", \"strength\": {\"value\": 0.5, \"of\": \"corpus_max\"}}, "
                      "{\"direction\": \"v\", \"rule\": \"add\", \"strength\": {\"value\": 0.25, "
                      "\"of\": \"row_norm\"}}], \"rows\": {\"skip_first\": 1}, \"statistics\": "
                      "{\"1\": {\"max\": 8}, \"3\": {\"max\": 6, \"mean\": 2, \"deviation\": 1}}, "
                      "\"directions\": {\"v\": {\"normalize\": true, \"values\": [2");
    for (size_t i = 1; i < d_out; i++)
        at += snprintf(json + at, room - (size_t)at, ", 0");
    snprintf(json + at, room - (size_t)at, "]}}}");

    float *built = calloc(count, sizeof(float)), *by_hand = calloc(count, sizeof(float));
    CHECK(built != NULL && by_hand != NULL);
    int same_site = rows.width == d_out;
    for (size_t i = 0; i < count; i++) built[i] = (float)(i % 7) - 3.0f;
    if (same_site) memcpy(built, rows.data, count * sizeof(float));
    memcpy(by_hand, built, count * sizeof(float));
    sae_rows_mut one = {built, SAE_DTYPE_F32, 0, n, d_out, 0};
    sae_rows_mut other = {by_hand, SAE_DTYPE_F32, 0, n, d_out, 0};
    const sae_rows *inputs = same_site ? NULL : &rows;
    uint64_t hash = steer(model, text, inputs, &one);
    CHECK(hash == steer(model, json, inputs, &other));
    CHECK(memcmp(built, by_hand, count * sizeof(float)) == 0);
    if (same_site) {
        CHECK(memcmp(built, rows.data, d_out * sizeof(float)) == 0); /* the first row is skipped */
        CHECK(n == 1 || memcmp(built + d_out, (const float *)rows.data + d_out,
                               (n - 1) * d_out * sizeof(float)) != 0);
    }

    free(built);
    free(by_hand);
    free(json);
    free(text);
    free(direction);
    free((void *)rows.data);
    sae_plan_builder_destroy(builder);
    sae_model_close(model);
    return 0;
}
