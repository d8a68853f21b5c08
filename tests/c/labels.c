/* Labels of features: from memory and from a file, several for one feature, and what goes wrong. */
#include "check.h"

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
    sae_labels_close(labels);
    return 0;
}
