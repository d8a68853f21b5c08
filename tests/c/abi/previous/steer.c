/* Steering: a plan without edits that drops the error gives the bits of decode; adding and taking
 * away comes back; outcomes, counts, audits, dry runs; threads with their own work space; whatever
 * a caller does wrong changes nothing. */
#include "check.h"
#include "sae_steer.h"

#include <math.h>

static sae_error error;

static sae_plan *compile(const sae_model *model, const char *text) {
    sae_plan *plan = NULL;
    CHECK_OK(sae_plan_compile(model, &text, 1, SAE_CONFLICTS_REFUSE, &plan, &error));
    CHECK(plan != NULL && sae_plan_count(plan) == 1);
    return plan;
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    sae_model *model = NULL;
    CHECK_OK(sae_model_open(argv[1], NULL, &model, &error));
    sae_rows rows = read_rows(argv[2], model);
    size_t n = rows.n_rows, d_out = sae_model_d_out(model);
    size_t count = n * d_out, bytes = count * sizeof(float);
    float *values = calloc(count, sizeof(float)), *before = calloc(count, sizeof(float));
    float *decoded = calloc(count, sizeof(float));
    sae_outcome *outcomes = calloc(n, 1);
    double *changes = calloc(count, sizeof(double));
    CHECK(values != NULL && before != NULL && decoded != NULL && outcomes != NULL &&
          changes != NULL);
    /* Where input and output are one site, the rows steered are the inputs themselves. */
    int same_site = sae_model_d_in(model) == d_out;
    for (size_t i = 0; i < count; i++) before[i] = (float)(i % 7) - 3.0f;
    if (same_site) memcpy(before, rows.data, bytes);
    memcpy(values, before, bytes);
    sae_rows_mut out = {values, SAE_DTYPE_F32, 0, n, d_out, 0};
    sae_steer_batch batch;
    memset(&batch, 0, sizeof batch);
    batch.struct_size = (uint32_t)sizeof batch;
    batch.rows = &out;
    if (!same_site) batch.inputs = &rows;

    sae_plan *drop = compile(model, "{\"name\": \"reconstruct\", \"error\": \"drop\"}");
    sae_steer_scratch *scratch = NULL;
    CHECK_OK(sae_steer_scratch_create(model, drop, &scratch, &error));
    batch.outcomes = outcomes;
    batch.n_outcomes = n;
    batch.dry_run = 1;
    CHECK_OK(sae_model_steer(model, drop, &batch, scratch, &error));
    CHECK(memcmp(values, before, bytes) == 0);
    batch.dry_run = 0;
    CHECK_OK(sae_model_steer(model, drop, &batch, scratch, &error));
    sae_scratch *plain = NULL;
    sae_features *features = NULL;
    CHECK_OK(sae_scratch_create(model, &plain, &error));
    CHECK_OK(sae_features_create(0, 0, &features, &error));
    CHECK_OK(sae_model_encode(model, &rows, plain, features, &error));
    CHECK_OK(sae_model_decode(model, features, &rows, plain, decoded, count, &error));
    CHECK(memcmp(values, decoded, bytes) == 0);
    uint64_t edited = sae_steer_scratch_count(scratch, SAE_OUTCOME_EDITED);
    CHECK(edited + sae_steer_scratch_count(scratch, SAE_OUTCOME_UNCHANGED) == 2 * n);
    sae_audit audit;
    audit.struct_size = (uint32_t)sizeof audit;
    CHECK_OK(sae_steer_scratch_audit(scratch, 0, &audit, &error));
    CHECK(audit.rows == edited && audit.hash != 0 && audit.struct_size == sizeof audit);
    CHECK(audit.max_relative >= audit.mean_relative && audit.mean_relative >= 0);
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_steer_scratch_audit(scratch, 1, &audit, &error));
    sae_steer_scratch_destroy(scratch);

    /* Add, look at the recorded change, take it away. */
    sae_plan *add = compile(model, "{\"edits\": [{\"feature\": 1, \"rule\": \"add\", \"strength\": "
                                   "{\"value\": 0.5, \"of\": \"row_norm\"}}]}");
    CHECK_OK(sae_steer_scratch_create(model, add, &scratch, &error));
    memcpy(values, before, bytes);
    batch.changes = changes;
    batch.n_changes = count;
    CHECK_OK(sae_model_steer(model, add, &batch, scratch, &error));
    for (size_t i = 0; i < count; i++) {
        CHECK(outcomes[i / d_out] == SAE_OUTCOME_EDITED);
        CHECK(fabs((double)values[i] - changes[i] - (double)before[i]) <=
              1e-6 * (fabs((double)values[i]) + 1e-30));
    }

    /* Filters, with infos: only the last row, by half. */
    sae_row_info *infos = calloc(n, sizeof(sae_row_info));
    CHECK(infos != NULL);
    for (size_t row = 0; row < n; row++) {
        infos[row].position = (uint32_t)row;
        infos[row].plan = row + 1 == n ? 0 : SAE_NO_PLAN;
        infos[row].factor = 0.5;
    }
    memcpy(values, before, bytes);
    batch.infos = infos;
    batch.n_infos = n;
    double whole = changes[count - 1];
    CHECK_OK(sae_model_steer(model, add, &batch, scratch, &error));
    CHECK(memcmp(values, before, (n - 1) * d_out * sizeof(float)) == 0);
    CHECK(changes[count - 1] == 0.5 * whole);
    CHECK(n == 1 || outcomes[0] == SAE_OUTCOME_FILTERED);

    /* Mistakes: each is refused, and no row changes. */
    memcpy(values, before, bytes);
    infos[0].stage = 9;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_steer(model, add, &batch, scratch, &error));
    infos[0].stage = SAE_STAGE_UNKNOWN;
    infos[0].last = 2;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_steer(model, add, &batch, scratch, &error));
    infos[0].last = 0;
    infos[0].plan = 3;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_steer(model, add, &batch, scratch, &error));
    infos[0].plan = SAE_ALL_PLANS;
    infos[0].factor = NAN;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_steer(model, add, &batch, scratch, &error));
    batch.infos = NULL;
    batch.n_infos = 0;
    batch.n_outcomes = n + 1;
    CHECK_STATUS(SAE_STATUS_LENGTH, sae_model_steer(model, add, &batch, scratch, &error));
    batch.n_outcomes = n;
    batch.n_changes = count - 1;
    CHECK_STATUS(SAE_STATUS_LENGTH, sae_model_steer(model, add, &batch, scratch, &error));
    batch.n_changes = count;
    batch.dry_run = 2;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_steer(model, add, &batch, scratch, &error));
    batch.dry_run = 0;
    batch.struct_size = 4;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_steer(model, add, &batch, scratch, &error));
    batch.struct_size = (uint32_t)sizeof batch;
    out.width = d_out + 1;
    CHECK_STATUS(SAE_STATUS_LENGTH, sae_model_steer(model, add, &batch, scratch, &error));
    out.width = d_out;
    batch.outcomes = (sae_outcome *)values;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_steer(model, add, &batch, scratch, &error));
    batch.outcomes = outcomes;
    sae_rows overlapping = {values, SAE_DTYPE_F32, 0, n, rows.width, 0};
    batch.inputs = &overlapping;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_steer(model, add, &batch, scratch, &error));
    batch.inputs = same_site ? NULL : &rows;
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE,
                 sae_model_steer(model, drop, &batch, (sae_steer_scratch *)plain, &error));
    CHECK(memcmp(values, before, bytes) == 0);

    /* Plans that do not compile say where they are wrong. */
    sae_plan *none = add;
    const char *wrong = "{\"edits\": [{\"feature\": 4294967295, \"rule\": \"zero\"}]}";
    CHECK_STATUS(SAE_STATUS_INVALID_VALUE,
                 sae_plan_compile(model, &wrong, 1, SAE_CONFLICTS_REFUSE, &none, &error));
    CHECK(none == NULL && strstr(error.message, "edits[0].feature") != NULL);
    const char *two[2] = {"{\"edits\": [{\"feature\": 1, \"rule\": \"zero\"}]}",
                          "{\"edits\": [{\"feature\": 1, \"rule\": \"set\", \"strength\": 2}]}"};
    CHECK_STATUS(SAE_STATUS_INVALID_VALUE,
                 sae_plan_compile(model, two, 2, SAE_CONFLICTS_REFUSE, &none, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_plan_compile(model, two, 2, 17, &none, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_plan_compile(model, two, 0, SAE_CONFLICTS_LAST, &none, &error));
    CHECK_OK(sae_plan_compile(model, two, 2, SAE_CONFLICTS_LAST, &none, &error));
    CHECK(sae_plan_count(none) == 2);
    /* Work space for one plan does not fit others. */
    CHECK(sae_model_steer(model, none, &batch, scratch, &error) != SAE_STATUS_OK);
    CHECK(memcmp(values, before, bytes) == 0);

    sae_plan_cost cost;
    cost.struct_size = (uint32_t)sizeof cost;
    CHECK_OK(sae_model_plan_cost(model, two[0], &cost, &error));
    CHECK(cost.decoder_rows == 1 && cost.bytes_held > 0);
    CHECK_OK(sae_model_plan_cost(model, "{\"error\": \"drop\"}", &cost, &error));
    CHECK(cost.needs_encode == 1);
    CHECK_STATUS(SAE_STATUS_INVALID_VALUE,
                 sae_model_plan_vector(model, drop, values, d_out, &error));

    free(infos);
    free(values);
    free(before);
    free(decoded);
    free(outcomes);
    free(changes);
    free((void *)rows.data);
    sae_plan_destroy(none);
    sae_plan_destroy(add);
    sae_plan_destroy(drop);
    sae_steer_scratch_destroy(scratch);
    sae_features_destroy(features);
    sae_scratch_destroy(plain);
    sae_model_close(model);
    return 0;
}
