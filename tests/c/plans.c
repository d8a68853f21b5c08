/* All that plans can say, from C: every rule with every scale, limits, conditions, filters, masks,
 * budgets and policies built by calls are the plans that JSON says (by their hash), and each stream
 * of a batch can have a plan of its own. */
#include "check.h"
#include "sae_steer.h"

#include <math.h>

static sae_error error;

static const char *const RULES[] = {"set",     "add",  "scale",
                                    "max_clamp", "min_cap", "zero",
                                    "negative_when_active", "replace_positive", "remove",
                                    "from_source"};
static const char *const SCALES[] = {"absolute", "corpus_max", "corpus_mean", "current_max",
                                     "row_norm"};
static const char STATISTICS[] =
    "\"statistics\": {\"1\": {\"max\": 8, \"mean\": 2, \"deviation\": 0.5}}";

static uint64_t hash_of(const sae_model *model, const char *text) {
    sae_plan *plan = NULL;
    sae_steer_scratch *scratch = NULL;
    sae_audit audit;
    audit.struct_size = (uint32_t)sizeof audit;
    CHECK_OK(sae_plan_compile(model, &text, 1, SAE_CONFLICTS_REFUSE, &plan, &error));
    CHECK_OK(sae_steer_scratch_create(model, plan, &scratch, &error));
    CHECK_OK(sae_steer_scratch_audit(scratch, 0, &audit, &error));
    sae_steer_scratch_destroy(scratch);
    sae_plan_destroy(plan);
    return audit.hash;
}

/* The builder's plan is the one that JSON says. */
static void same(const sae_model *model, sae_plan_builder *builder, const char *json) {
    char text[4096];
    CHECK_OK(sae_plan_builder_write(builder, text, sizeof text, NULL, &error));
    CHECK(hash_of(model, text) == hash_of(model, json));
    sae_plan_builder_destroy(builder);
}

static sae_plan_builder *start(void) {
    sae_plan_builder *builder = NULL;
    CHECK_OK(sae_plan_builder_create("plan", &builder, &error));
    CHECK_OK(sae_plan_builder_statistics(builder, 1, 8, 2, 0.5, &error));
    return builder;
}

static const uint32_t FEATURE = 1;

static sae_edit edit_of(sae_rule rule) {
    sae_edit edit = SAE_EDIT_INIT;
    edit.rule = rule;
    edit.features = &FEATURE;
    edit.n_features = 1;
    edit.strength = rule == SAE_RULE_ZERO || rule == SAE_RULE_FROM_SOURCE ? 0 : 0.75;
    return edit;
}

static void rules_and_scales(const sae_model *model) {
    char json[1024];
    for (sae_rule rule = SAE_RULE_SET; rule <= SAE_RULE_FROM_SOURCE; rule++) {
        int counts = rule != SAE_RULE_ZERO && rule != SAE_RULE_FROM_SOURCE;
        for (sae_scale of = SAE_SCALE_ABSOLUTE; of <= (counts ? SAE_SCALE_ROW_NORM : 0); of++) {
            for (int deviations = 0; deviations <= (of == SAE_SCALE_CORPUS_MEAN); deviations++) {
                sae_plan_builder *builder = start();
                sae_edit edit = edit_of(rule);
                edit.of = of;
                edit.deviations = deviations * 1.5;
                CHECK_OK(sae_plan_builder_edit(builder, &edit, &error));
                char strength[160] = "";
                if (counts)
                    snprintf(strength, sizeof strength,
                             ", \"strength\": {\"value\": 0.75, \"of\": \"%s\"%s}", SCALES[of],
                             deviations ? ", \"deviations\": 1.5" : "");
                snprintf(json, sizeof json,
                         "{\"name\": \"plan\", \"edits\": [{\"feature\": 1, \"rule\": \"%s\"%s}], %s}",
                         RULES[rule], strength, STATISTICS);
                same(model, builder, json);
            }
        }
    }
    /* Limits, of every scale, by phase, on both sides; pre-activations. */
    for (sae_scale of = SAE_SCALE_ABSOLUTE; of <= SAE_SCALE_ROW_NORM; of++) {
        sae_plan_builder *builder = start();
        sae_edit edit = edit_of(SAE_RULE_SCALE);
        edit.over = 0.25;
        edit.over_of = of;
        edit.under = 4;
        edit.under_of = of;
        edit.under_deviations = of == SAE_SCALE_CORPUS_MEAN ? 2 : 0;
        CHECK_OK(sae_plan_builder_edit(builder, &edit, &error));
        snprintf(json, sizeof json,
                 "{\"name\": \"plan\", \"edits\": [{\"feature\": 1, \"rule\": \"scale\", "
                 "\"strength\": 0.75, \"over\": {\"value\": 0.25, \"of\": \"%s\"}, "
                 "\"under\": {\"value\": 4, \"of\": \"%s\"%s}}], %s}",
                 SCALES[of], SCALES[of],
                 of == SAE_SCALE_CORPUS_MEAN ? ", \"deviations\": 2" : "", STATISTICS);
        same(model, builder, json);
    }
    static const double factors[] = {-1.5, -0.5}, lows[] = {0.5, 0.25}, highs[] = {8, 4};
    sae_plan_builder *builder = start();
    sae_edit edit = edit_of(SAE_RULE_SCALE);
    edit.reads = SAE_READS_PRE_ACTIVATION;
    edit.phases = factors;
    edit.over_phases = lows;
    edit.under_phases = highs;
    edit.n_phases = edit.n_over_phases = edit.n_under_phases = 2;
    CHECK_OK(sae_plan_builder_edit(builder, &edit, &error));
    char text[2048];
    CHECK_OK(sae_plan_builder_write(builder, text, sizeof text, NULL, &error));
    /* What the text says, whether or not this model has pre-activations of one feature. */
    CHECK(strstr(text, "\"by_phase\":[-1.5,-0.5]") != NULL);
    CHECK(strstr(text, "\"by_phase\":[0.5,0.25]") != NULL);
    CHECK(strstr(text, "\"by_phase\":[8") != NULL && strstr(text, "pre_activation") != NULL);

    /* Mistakes in limits leave no trace. */
    sae_edit wrong = edit_of(SAE_RULE_SET);
    wrong.over_of = SAE_SCALE_ROW_NORM;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_plan_builder_edit(builder, &wrong, &error));
    CHECK(strstr(error.message, "edit.over_of") != NULL);
    wrong = edit_of(SAE_RULE_SET);
    wrong.under_deviations = 1;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_plan_builder_edit(builder, &wrong, &error));
    wrong = edit_of(SAE_RULE_SET);
    wrong.under = 1;
    wrong.under_of = 5;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_plan_builder_edit(builder, &wrong, &error));
    wrong.under_of = 0;
    wrong.under_deviations = NAN;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_plan_builder_edit(builder, &wrong, &error));
    wrong = edit_of(SAE_RULE_SET);
    wrong.n_over_phases = 1;
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT, sae_plan_builder_edit(builder, &wrong, &error));
    static const double infinite[] = {1, INFINITY};
    wrong.over_phases = infinite;
    wrong.n_over_phases = 2;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_plan_builder_edit(builder, &wrong, &error));
    char again[2048];
    CHECK_OK(sae_plan_builder_write(builder, again, sizeof again, NULL, &error));
    CHECK(strcmp(text, again) == 0);
    sae_plan_builder_destroy(builder);
    /* A struct of the size before limits had scales. */
    builder = start();
    edit = edit_of(SAE_RULE_SET);
    edit.struct_size = (uint32_t)offsetof(sae_edit, over_of);
    edit.over = 0.5;
    CHECK_OK(sae_plan_builder_edit(builder, &edit, &error));
    snprintf(json, sizeof json,
             "{\"name\": \"plan\", \"edits\": [{\"feature\": 1, \"rule\": \"set\", \"strength\": "
             "0.75, \"over\": 0.5}], %s}",
             STATISTICS);
    same(model, builder, json);
}

static void other_keys(const sae_model *model) {
    static const char *const keys[][2] = {
        {"when", "{\"feature\": 2, \"over\": 0.5}"},
        {"when", "{\"any\": [{\"feature\": 2, \"over\": 0.5}, {\"feature\": 0, \"over\": 1}]}"},
        {"when", "{\"all\": [{\"feature\": 2, \"over\": 0.5}, {\"feature\": 0, \"over\": 1}]}"},
        {"when", "{\"not\": {\"feature\": 2, \"over\": 0.5}}"},
        {"when", "{\"linear\": [{\"feature\": 0, \"weight\": 0.5}, {\"feature\": 2, \"weight\": -1}], "
                 "\"bias\": 0.25, \"over\": 1}"},
        {"when", "{\"reconstruction\": \"edited\", \"at_least\": 0.5}"},
        {"when", "{\"reconstruction\": \"unedited\", \"at_least\": 0.5}"},
        {"rows", "{\"skip_first\": 1}"},
        {"rows", "{\"last_only\": true}"},
        {"rows", "{\"stage\": \"prompt\"}"},
        {"rows", "{\"stage\": \"generation\"}"},
        {"rows", "{\"positions\": [[0, 3], [7, 9]]}"},
        {"rows", "{\"classes\": [1, 2]}"},
        {"rows", "{\"skip_classes\": [3]}"},
        {"rows", "{\"phases\": [[0, 10]]}"},
        {"budget", "{\"relative\": 0.5, \"over\": \"clip\"}"},
        {"budget", "{\"relative\": 0.5, \"over\": \"refuse\"}"},
        {"error", "\"drop\""},
        {"keep_only", "[0, 1]"},
        {"drop", "[0, 2]"},
        {"conflicts", "\"first\""},
        {"conflicts", "\"last\""},
        {"conflicts", "\"sum\""},
    };
    char json[1024];
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        sae_plan_builder *builder = start();
        sae_edit edit = edit_of(SAE_RULE_SET);
        CHECK_OK(sae_plan_builder_edit(builder, &edit, &error));
        CHECK_OK(sae_plan_builder_set(builder, keys[i][0], keys[i][1], &error));
        snprintf(json, sizeof json,
                 "{\"name\": \"plan\", \"edits\": [{\"feature\": 1, \"rule\": \"set\", "
                 "\"strength\": 0.75}], %s, \"%s\": %s}",
                 STATISTICS, keys[i][0], keys[i][1]);
        same(model, builder, json);
    }
    /* A plan whose condition is for the whole call; one that selects by scores. */
    sae_plan_builder *builder = start();
    sae_edit edit = edit_of(SAE_RULE_SET);
    CHECK_OK(sae_plan_builder_edit(builder, &edit, &error));
    CHECK_OK(sae_plan_builder_set(builder, "when", "{\"feature\": 2, \"over\": 0.5}", &error));
    CHECK_OK(sae_plan_builder_set(builder, "scope", "\"batch\"", &error));
    snprintf(json, sizeof json,
             "{\"name\": \"plan\", \"edits\": [{\"feature\": 1, \"rule\": \"set\", \"strength\": "
             "0.75}], %s, \"when\": {\"feature\": 2, \"over\": 0.5}, \"scope\": \"batch\"}",
             STATISTICS);
    same(model, builder, json);
}

/* Two plans, and rows of three streams: one has the first, one the second, one none. */
static void a_plan_for_each_stream(const sae_model *model, const sae_rows *rows) {
    static const char *const plans[2] = {
        "{\"name\": \"one\", \"edits\": [{\"feature\": 1, \"rule\": \"set\", \"strength\": 2}]}",
        "{\"name\": \"other\", \"edits\": [{\"feature\": 1, \"rule\": \"set\", \"strength\": -3}, "
        "{\"feature\": 0, \"rule\": \"add\", \"strength\": 1}]}"};
    size_t n = rows->n_rows, d_out = sae_model_d_out(model), count = n * d_out;
    int same_site = rows->width == d_out;
    float *values[3];
    for (int i = 0; i < 3; i++) {
        values[i] = calloc(count, sizeof(float));
        CHECK(values[i] != NULL);
        for (size_t j = 0; j < count; j++) values[i][j] = (float)(j % 7) - 3.0f;
        if (same_site) memcpy(values[i], rows->data, count * sizeof(float));
    }
    float *before = calloc(count, sizeof(float));
    sae_row_info *infos = calloc(n, sizeof(sae_row_info));
    sae_outcome *outcomes = calloc(n, 1);
    CHECK(before != NULL && infos != NULL && outcomes != NULL);
    memcpy(before, values[0], count * sizeof(float));
    for (size_t row = 0; row < n; row++) {
        infos[row].position = (uint32_t)row;
        infos[row].factor = 1;
        infos[row].plan = row % 3 == 2 ? SAE_NO_PLAN : (uint32_t)(row % 3);
    }
    uint64_t rows_of[2] = {0, 0};
    for (int i = 0; i < 3; i++) {
        /* The plans alone on all rows, then both with a plan for each row. */
        sae_plan *plan = NULL;
        sae_steer_scratch *scratch = NULL;
        CHECK_OK(sae_plan_compile(model, i < 2 ? &plans[i] : plans, i < 2 ? 1 : 2,
                                  i < 2 ? SAE_CONFLICTS_REFUSE : SAE_CONFLICTS_ONE_PER_ROW, &plan,
                                  &error));
        CHECK_OK(sae_steer_scratch_create(model, plan, &scratch, &error));
        sae_rows_mut out = {values[i], SAE_DTYPE_F32, 0, n, d_out, 0};
        sae_steer_batch batch;
        memset(&batch, 0, sizeof batch);
        batch.struct_size = (uint32_t)sizeof batch;
        batch.rows = &out;
        batch.inputs = same_site ? NULL : rows;
        if (i == 2) {
            /* Rows that name no plan of their own are refused. */
            CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                         sae_model_steer(model, plan, &batch, scratch, &error));
            batch.infos = infos;
            batch.n_infos = n;
            batch.outcomes = outcomes;
            batch.n_outcomes = n;
        }
        CHECK_OK(sae_model_steer(model, plan, &batch, scratch, &error));
        for (size_t k = 0; i == 2 && k < 2; k++) {
            sae_audit audit;
            audit.struct_size = (uint32_t)sizeof audit;
            CHECK_OK(sae_steer_scratch_audit(scratch, k, &audit, &error));
            rows_of[k] = audit.rows;
        }
        sae_steer_scratch_destroy(scratch);
        sae_plan_destroy(plan);
    }
    uint64_t edited[2] = {0, 0};
    for (size_t row = 0; row < n; row++) {
        size_t at = row * d_out;
        const float *expected = row % 3 == 2 ? before : values[row % 3];
        CHECK(memcmp(values[2] + at, expected + at, d_out * sizeof(float)) == 0);
        CHECK((row % 3 == 2) == (outcomes[row] == SAE_OUTCOME_FILTERED));
        if (outcomes[row] == SAE_OUTCOME_EDITED) edited[row % 3]++;
    }
    CHECK(edited[0] == rows_of[0] && edited[1] == rows_of[1]);
    CHECK(memcmp(values[0], values[1], count * sizeof(float)) != 0);
    for (int i = 0; i < 3; i++) free(values[i]);
    free(before);
    free(infos);
    free(outcomes);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    sae_model *model = NULL;
    CHECK_OK(sae_model_open(argv[1], NULL, &model, &error));
    sae_rows rows = read_rows(argv[2], model);
    rules_and_scales(model);
    other_keys(model);
    a_plan_for_each_stream(model, &rows);
    free((void *)rows.data);
    sae_model_close(model);
    return 0;
}
