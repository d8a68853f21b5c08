/* Labels of features: from memory and from a file, several for one feature, and what goes wrong. */
#include "check.h"
#include "sae_steer.h"

#include <math.h>

static const char EXPORT[] =
    "{\"modelId\":\"gpt2-small\",\"layer\":\"6-res-jb\",\"index\":\"3\",\"description\":\"Mondays\","
    "\"explanationModelName\":\"gpt-4o-mini\",\"embedding\":\"[0.5]\"}\n"
    "{\"modelId\":\"gpt2-small\",\"layer\":\"6-res-jb\",\"index\":0,\"description\":\"\\u00fcber\"}\n"
    "{\"modelId\":\"gpt2-small\",\"layer\":\"6-res-jb\",\"index\":3,\"description\":\"days\"}\n";

static void has(const sae_labels *labels, uint32_t feature, size_t number, const char *text,
                const char *explainer) {
    CHECK(number < sae_labels_count_of(labels, feature));
    CHECK(strcmp(sae_labels_text(labels, feature, number), text) == 0);
    CHECK(strcmp(sae_labels_explainer(labels, feature, number), explainer) == 0);
}

static void whole(const sae_labels *labels) {
    CHECK(sae_labels_count(labels) == 3);
    CHECK(sae_labels_count_of(labels, 3) == 2);
    has(labels, 0, 0, "\xc3\xbc" "ber", "");
    has(labels, 3, 0, "Mondays", "gpt-4o-mini");
    has(labels, 3, 1, "days", "");
    for (uint32_t feature = 0; feature < 9; feature++)
        if (feature != 0 && feature != 3) {
            CHECK(sae_labels_count_of(labels, feature) == 0);
            CHECK(sae_labels_text(labels, feature, 0) == NULL);
            CHECK(sae_labels_explainer(labels, feature, 0) == NULL);
        }
    CHECK(sae_labels_text(labels, 3, 2) == NULL);
    CHECK(sae_labels_text(labels, 3, (size_t)-1) == NULL);
    CHECK(sae_labels_text(labels, UINT32_MAX, 0) == NULL);
}

static const char OBSERVED[] =
    "{\"index\": \"1\", \"maxActApprox\": 8, \"frac_nonzero\": 0.25,"
    " \"freq_hist_data_bar_heights\": [3, 1], \"freq_hist_data_bar_values\": [1, 5]}\n"
    "{\"index\": \"2\", \"maxActApprox\": 0, \"frac_nonzero\": 0}\n";

static sae_observed observed(const sae_labels *labels, uint32_t feature) {
    sae_error error;
    sae_observed found;
    found.struct_size = (uint32_t)sizeof found;
    CHECK_OK(sae_labels_observed(labels, feature, &found, &error));
    CHECK(found.reserved == 0);
    return found;
}

/* The hash of a plan, compiled with labels if there are any. */
static uint64_t hash_of(const sae_model *model, const char *text, const sae_labels *labels) {
    sae_error error;
    sae_plan *plan = NULL;
    if (labels)
        CHECK_OK(sae_plan_compile_with_labels(model, &text, 1, SAE_CONFLICTS_REFUSE, labels, &plan,
                                              &error));
    else
        CHECK_OK(sae_plan_compile(model, &text, 1, SAE_CONFLICTS_REFUSE, &plan, &error));
    sae_steer_scratch *scratch = NULL;
    sae_audit audit;
    audit.struct_size = (uint32_t)sizeof audit;
    CHECK_OK(sae_steer_scratch_create(model, plan, &scratch, &error));
    CHECK_OK(sae_steer_scratch_audit(scratch, 0, &audit, &error));
    sae_steer_scratch_destroy(scratch);
    sae_plan_destroy(plan);
    return audit.hash;
}

/* Statistics of features, and plans whose strengths are relative to them. */
static void statistics(const sae_model *model) {
    sae_error error;
    sae_labels *labels = NULL;
    CHECK_OK(sae_labels_open_memory(OBSERVED, sizeof OBSERVED - 1, &labels, &error));
    CHECK(sae_labels_count(labels) == 0);
    sae_observed one = observed(labels, 1), two = observed(labels, 2), none = observed(labels, 3);
    CHECK(one.max == 8 && one.density == 0.25 && one.mean == 0.5);
    CHECK(isnan(two.max) && two.density == 0 && isnan(two.mean));
    CHECK(isnan(none.max) && isnan(none.density) && isnan(none.mean));
    one.struct_size = 3;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_labels_observed(labels, 1, &one, &error));

#define EDIT(feature, of)                                                                          \
    "{\"feature\": " feature ", \"rule\": \"add\", \"strength\": {\"value\": 2, \"of\": \"" of "\"}}"
    const char *relative = "{\"edits\": [" EDIT("1", "corpus_max") ", " EDIT("1", "corpus_mean") "]}";
    const char *whole = "{\"edits\": [" EDIT("1", "corpus_max") ", " EDIT("1", "corpus_mean") "],"
                        " \"statistics\": {\"1\": {\"max\": 8, \"mean\": 0.5}}}";
    const char *own = "{\"edits\": [" EDIT("1", "corpus_max") "],"
                      " \"statistics\": {\"1\": {\"max\": 3, \"mean\": 0.5}}}";
    CHECK(hash_of(model, relative, labels) == hash_of(model, whole, NULL));
    /* A plan's own win. */
    CHECK(hash_of(model, own, labels) == hash_of(model, own, NULL));
    sae_plan *plan = NULL;
    CHECK_STATUS(SAE_STATUS_INVALID_VALUE,
                 sae_plan_compile(model, &relative, 1, SAE_CONFLICTS_REFUSE, &plan, &error));
    CHECK(strstr(error.message, "edits[0].strength") != NULL);
    const char *missing = "{\"edits\": [" EDIT("1", "corpus_max") ", " EDIT("2", "corpus_max") "]}";
    CHECK_STATUS(SAE_STATUS_INVALID_VALUE,
                 sae_plan_compile_with_labels(model, &missing, 1, SAE_CONFLICTS_REFUSE, labels,
                                              &plan, &error));
    CHECK(strstr(error.message, "edits[1].strength") != NULL);
    CHECK(strstr(error.message, "a max of feature 2") != NULL);
    const char *both[] = {whole, missing};
    CHECK_STATUS(SAE_STATUS_INVALID_VALUE,
                 sae_plan_compile_with_labels(model, both, 2, SAE_CONFLICTS_SUM, labels, &plan,
                                              &error));
    CHECK(strstr(error.message, "plans[1].edits[1].strength") != NULL);
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE,
                 sae_plan_compile_with_labels(model, both, 1, SAE_CONFLICTS_SUM,
                                              (const sae_labels *)(const void *)model, &plan,
                                              &error));
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE,
                 sae_labels_observed((const sae_labels *)(const void *)model, 1, &two, &error));
    CHECK(plan == NULL);
    sae_labels_close(labels);

    /* Those of a wider model. */
    char text[80];
    snprintf(text, sizeof text, "{\"index\": %zu, \"maxActApprox\": 1}", sae_model_d_sae(model));
    CHECK_OK(sae_labels_open_memory(text, strlen(text), &labels, &error));
    CHECK_STATUS(SAE_STATUS_FEATURE_OUT_OF_RANGE,
                 sae_plan_compile_with_labels(model, &whole, 1, SAE_CONFLICTS_REFUSE, labels, &plan,
                                              &error));
    sae_labels_close(labels);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    sae_error error;
    sae_model *model = NULL;
    CHECK_OK(sae_model_open(argv[1], NULL, &model, &error));

    /* The bytes may go once the labels are read. */
    sae_labels *labels = NULL;
    char *copy = (char *)malloc(sizeof EXPORT);
    CHECK(copy != NULL);
    memcpy(copy, EXPORT, sizeof EXPORT);
    CHECK_OK(sae_labels_open_memory(copy, sizeof EXPORT - 1, &labels, &error));
    memset(copy, 'x', sizeof EXPORT);
    free(copy);
    whole(labels);
    CHECK_OK(sae_model_check_labels(model, labels, &error));

    statistics(model);

    /* A handle of another kind. */
    sae_labels *wrong = (sae_labels *)(void *)model;
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE, sae_model_check_labels(model, wrong, &error));
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE,
                 sae_model_check_labels((sae_model *)(void *)labels, labels, &error));
    CHECK(sae_labels_count(wrong) == 0 && sae_labels_count_of(wrong, 0) == 0);
    CHECK(sae_labels_text(wrong, 0, 0) == NULL && sae_labels_explainer(wrong, 0, 0) == NULL);
    sae_labels_close(wrong);
    sae_labels_close(labels);

    /* The library's own zero byte ends the bytes, so it is one byte too many. */
    labels = wrong;
    CHECK_STATUS(SAE_STATUS_MALFORMED,
                 sae_labels_open_memory(EXPORT, sizeof EXPORT, &labels, &error));
    CHECK(labels == NULL);
    static const char MISFIT[] = "{\"index\": -1, \"description\": \"x\"}";
    CHECK_STATUS(SAE_STATUS_MALFORMED,
                 sae_labels_open_memory(MISFIT, sizeof MISFIT - 1, &labels, &error));
    CHECK(strstr(error.message, "-1") != NULL);
    CHECK_STATUS(SAE_STATUS_IO, sae_labels_open("no/such/labels.jsonl", &labels, &error));
    CHECK(strstr(error.message, "no/such/labels.jsonl") != NULL);
    CHECK(sae_labels_open(argv[1], &labels, &error) != SAE_STATUS_OK);
    CHECK(labels == NULL);

    /* A feature that the model does not have. */
    char text[80];
    snprintf(text, sizeof text, "{\"index\": %zu, \"description\": \"x\"}", sae_model_d_sae(model));
    CHECK_OK(sae_labels_open_memory(text, strlen(text), &labels, &error));
    CHECK_STATUS(SAE_STATUS_FEATURE_OUT_OF_RANGE, sae_model_check_labels(model, labels, &error));
    snprintf(text, sizeof text, "%zu", sae_model_d_sae(model));
    CHECK(strstr(error.message, text) != NULL);
    sae_labels_close(labels);
    sae_model_close(model);

    /* The embedded labels of the demo are of the same form. */
    CHECK_OK(sae_labels_open("src/bin/sae/demo/labels.json", &labels, &error));
    CHECK(sae_labels_count(labels) > 3000 && sae_labels_count_of(labels, 0) == 1);
    CHECK(observed(labels, 0).max > 4 && isnan(observed(labels, 0).density));
    sae_labels_close(labels);
    return 0;
}
