/* Plans and rules of models of kinds of their own: steers rows of a Lorsa or of a mixture of
 * transforms and watches their features; prints what comes of it, bit for bit, and does what a
 * caller may do wrong. */
#include "check.h"
#include "sae_architectures.h"
#include "sae_monitor.h"
#include "sae_steer.h"

static sae_error error;

static const char *const plans[2] = {
    "{\"edits\": [{\"feature\": 1, \"rule\": \"add\", \"strength\": 0.5}]}",
    "{\"edits\": [{\"feature\": 3, \"rule\": \"set\", \"strength\": 2.0},"
    " {\"feature\": 4, \"rule\": \"zero\"}]}"};
static const char *const constant =
    "{\"directions\": {\"v\": {\"values\": [1, 2, 3, 4, 5]}},"
    " \"edits\": [{\"direction\": \"v\", \"rule\": \"add\", \"strength\": 2.0}]}";
static const char *const pre =
    "{\"edits\": [{\"feature\": 1, \"rule\": \"zero\", \"reads\": \"pre_activation\"}]}";
static const char *const rules_text =
    "{\"rules\": [{\"name\": \"fires\", \"kind\": \"threshold\", \"features\": [1],"
    " \"over\": 0.0}]}";

/* Watches features and prints what is known of one. */
static void watch(sae_monitor *monitor, const sae_features *features) {
    CHECK_OK(sae_monitor_observe_features(monitor, features, NULL, 0, &error));
    sae_feature_summary summary = {0};
    summary.struct_size = (uint32_t)sizeof summary;
    CHECK_OK(sae_monitor_feature(monitor, 1, &summary, &error));
    printf("events %llu fired %llu of %llu\n",
           (unsigned long long)sae_monitor_rule_events(monitor, 0),
           (unsigned long long)summary.fired, (unsigned long long)summary.rows);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    sae_lorsa *lorsa = NULL;
    sae_molt *molt = NULL;
    if (sae_lorsa_open(argv[1], NULL, &lorsa, &error) != SAE_STATUS_OK)
        CHECK_OK(sae_molt_open(argv[1], NULL, &molt, &error));
    size_t d_in = lorsa ? sae_lorsa_d_in(lorsa) : sae_molt_d_in(molt), size = 0;
    size_t d_out = lorsa ? sae_lorsa_d_out(lorsa) : sae_molt_d_out(molt);
    CHECK(d_out == 5);
    unsigned char *bytes = read_file(argv[2], 0, &size);
    sae_rows rows = {bytes, SAE_DTYPE_F32, 0, size / (d_in * sizeof(float)), d_in, 0};
    size_t n = rows.n_rows;
    sae_features *features = NULL;
    CHECK_OK(sae_features_create(0, 0, &features, &error));
    float *y = calloc(n * d_out, sizeof(float)), v[5];
    CHECK(y != NULL);
    for (size_t i = 0; i < n * d_out; i++) y[i] = 0.25f * (float)(i % 7) - 0.5f;

    sae_plan *plan = NULL, *vector = NULL, *none = NULL;
    sae_steer_scratch *scratch = NULL;
    sae_rules *rules = NULL;
    sae_monitor *monitor = NULL;
    sae_monitor_options options = {0};
    options.struct_size = (uint32_t)sizeof options;
    options.collect = SAE_COLLECT_ALL;
    sae_plan_cost cost = {0};
    cost.struct_size = (uint32_t)sizeof cost;
    sae_rows_mut to = {y, SAE_DTYPE_F32, 0, n, d_out, 0};
    sae_steer_batch batch = {0};
    batch.struct_size = (uint32_t)sizeof batch;
    batch.rows = &to;

    if (lorsa) {
        sae_scratch *work = NULL;
        sae_lorsa_cache *cache = NULL;
        CHECK_OK(sae_lorsa_scratch_create(lorsa, &work, &error));
        CHECK_OK(sae_lorsa_cache_create(lorsa, n, &cache, &error));
        CHECK_OK(sae_lorsa_encode(lorsa, &rows, cache, work, features, &error));
        sae_lorsa_cache_destroy(cache);
        sae_scratch_destroy(work);
        CHECK_OK(sae_lorsa_plan_compile(lorsa, plans, 2, SAE_CONFLICTS_SUM, &plan, &error));
        CHECK_OK(sae_lorsa_plan_compile(lorsa, &constant, 1, SAE_CONFLICTS_SUM, &vector, &error));
        CHECK_OK(sae_lorsa_plan_vector(lorsa, vector, v, 5, &error));
        CHECK_OK(sae_lorsa_plan_cost(lorsa, plans[1], &cost, &error));
        CHECK(cost.needs_encode == 1 && cost.encoder_rows == 0 && cost.decoder_rows == 2);
        CHECK_OK(sae_lorsa_steer_scratch_create(lorsa, plan, &scratch, &error));
        /* What a caller does wrong: nothing is steered. */
        CHECK_STATUS(SAE_STATUS_INVALID_VALUE,
                     sae_lorsa_plan_compile(lorsa, &pre, 1, SAE_CONFLICTS_SUM, &none, &error));
        CHECK(none == NULL && strstr(error.message, "edits[0].reads") != NULL);
        CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                     sae_lorsa_plan_compile(lorsa, NULL, 1, SAE_CONFLICTS_SUM, &none, &error));
        CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                     sae_lorsa_steer(lorsa, plan, NULL, NULL, &batch, scratch, &error));
        CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                     sae_lorsa_steer(lorsa, plan, features, NULL, NULL, scratch, &error));
        CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                     sae_lorsa_steer(lorsa, vector, features, NULL, &batch, scratch, &error));
        batch.inputs = &rows;
        CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                     sae_lorsa_steer(lorsa, plan, features, NULL, &batch, scratch, &error));
        batch.inputs = NULL;
        to.n_rows = n - 1;
        CHECK_STATUS(SAE_STATUS_LENGTH,
                     sae_lorsa_steer(lorsa, plan, features, NULL, &batch, scratch, &error));
        to.n_rows = n;
        CHECK_STATUS(SAE_STATUS_LENGTH, sae_lorsa_plan_vector(lorsa, vector, v, 4, &error));
        CHECK_OK(sae_lorsa_steer(lorsa, plan, features, features, &batch, scratch, &error));
        CHECK_OK(sae_lorsa_rules_compile(lorsa, rules_text, &rules, &error));
        CHECK_OK(sae_lorsa_monitor_create(lorsa, rules, &options, &monitor, &error));
        watch(monitor, features);
        sae_monitor_destroy(monitor);
        options.collect = SAE_COLLECT_WATCHED;
        CHECK_OK(sae_lorsa_monitor_create(lorsa, rules, &options, &monitor, &error));
    } else {
        sae_molt_scratch *work = NULL;
        CHECK_OK(sae_molt_scratch_create(molt, &work, &error));
        CHECK_OK(sae_molt_encode(molt, &rows, work, features, &error));
        sae_molt_scratch_destroy(work);
        CHECK_OK(sae_molt_plan_compile(molt, plans, 2, SAE_CONFLICTS_SUM, &plan, &error));
        CHECK_OK(sae_molt_plan_compile(molt, &constant, 1, SAE_CONFLICTS_SUM, &vector, &error));
        /* What a feature writes depends on the row. */
        CHECK_STATUS(SAE_STATUS_INVALID_VALUE, sae_molt_plan_vector(molt, plan, v, 5, &error));
        CHECK_OK(sae_molt_plan_vector(molt, vector, v, 5, &error));
        CHECK_OK(sae_molt_plan_cost(molt, plans[1], &cost, &error));
        CHECK(cost.decoder_rows == 0 && cost.bytes_per_row > cost.bytes_held);
        CHECK_OK(sae_molt_steer_scratch_create(molt, plan, &scratch, &error));
        /* What a caller does wrong: nothing is steered. */
        CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                     sae_molt_plan_compile(molt, NULL, 1, SAE_CONFLICTS_SUM, &none, &error));
        CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                     sae_molt_steer(molt, plan, NULL, scratch, &error));
        /* The rows at the input site are as wide as they are. */
        CHECK_STATUS(SAE_STATUS_LENGTH, sae_molt_steer(molt, plan, &batch, scratch, &error));
        batch.inputs = &rows;
        CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                     sae_molt_steer(molt, vector, &batch, scratch, &error));
        CHECK_OK(sae_molt_steer(molt, plan, &batch, scratch, &error));
        CHECK_OK(sae_molt_rules_compile(molt, rules_text, &rules, &error));
        CHECK_OK(sae_molt_monitor_create(molt, rules, &options, &monitor, &error));
        watch(monitor, features);
        sae_monitor_destroy(monitor);
        options.collect = SAE_COLLECT_WATCHED;
        CHECK_OK(sae_molt_monitor_create(molt, rules, &options, &monitor, &error));
    }
    watch(monitor, features);
    /* Once more: edits read the features, so the same change again. */
    for (size_t pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < n * d_out; i++)
            printf("steered %zu %08x\n", i, (unsigned)bits_of(y[i]));
        if (pass == 1) break;
        if (lorsa)
            CHECK_OK(sae_lorsa_steer(lorsa, plan, features, NULL, &batch, scratch, &error));
        else
            CHECK_OK(sae_molt_steer(molt, plan, &batch, scratch, &error));
    }
    for (size_t i = 0; i < 5; i++) CHECK(v[i] == 2.0f * (float)(i + 1));
    CHECK(sae_steer_scratch_count(scratch, SAE_OUTCOME_EDITED) == 2 * n);

    sae_monitor_destroy(monitor);
    sae_rules_destroy(rules);
    sae_steer_scratch_destroy(scratch);
    sae_plan_destroy(vector);
    sae_plan_destroy(plan);
    sae_features_destroy(features);
    sae_molt_close(molt);
    sae_lorsa_close(lorsa);
    free(y);
    free(bytes);
    return 0;
}
