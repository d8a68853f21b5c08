/* Two threads share a model and a set, each with its own scratch and features, and get the same
 * bits as one. Two threads that share a scratch get statuses, not a crash. */
#include "check.h"

#include <pthread.h>

enum { TURNS = 20 };

static sae_model *model;
static sae_set *set;
static sae_rows rows;
static sae_features *expected;
static float *expected_values;

static void *work(void *argument) {
    (void)argument;
    sae_error error;
    sae_scratch *scratch;
    sae_features *features;
    CHECK_OK(sae_scratch_create(model, &scratch, &error));
    CHECK_OK(sae_features_create(0, 0, &features, &error));
    size_t n = rows.n_rows * sae_set_count(set);
    float *values = malloc(n * sizeof(float));
    CHECK(values != NULL);
    for (int turn = 0; turn < TURNS; turn++) {
        CHECK_OK(sae_model_encode(model, &rows, scratch, features, &error));
        CHECK(same_features(expected, features));
        CHECK_OK(sae_model_readout(model, set, &rows, scratch, values, n, NULL, &error));
        CHECK(memcmp(values, expected_values, n * sizeof(float)) == 0);
    }
    free(values);
    sae_features_destroy(features);
    sae_scratch_destroy(scratch);
    return NULL;
}

static sae_scratch *contended;

static void *contend(void *argument) {
    size_t *refused = argument;
    sae_error error;
    sae_features *features;
    CHECK_OK(sae_features_create(0, 0, &features, &error));
    for (int turn = 0; turn < TURNS; turn++) {
        sae_status status = sae_model_encode(model, &rows, contended, features, &error);
        CHECK(status == SAE_STATUS_OK || status == SAE_STATUS_IN_USE);
        if (status == SAE_STATUS_OK)
            CHECK(same_features(expected, features));
        else
            ++*refused;
    }
    sae_features_destroy(features);
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    sae_error error;
    sae_scratch *scratch;
    CHECK_OK(sae_model_open(argv[1], NULL, &model, &error));
    CHECK_OK(sae_scratch_create(model, &scratch, &error));
    CHECK_OK(sae_features_create(0, 0, &expected, &error));
    rows = read_rows(argv[2], model);
    CHECK_OK(sae_model_encode(model, &rows, scratch, expected, &error));
    const uint32_t chosen[3] = {0, 1, 2};
    CHECK_OK(sae_set_compile(model, chosen, 3, &set, &error));
    expected_values = malloc(rows.n_rows * 3 * sizeof(float));
    CHECK(expected_values != NULL);
    CHECK_OK(sae_model_readout(model, set, &rows, scratch, expected_values, rows.n_rows * 3, NULL,
                               &error));

    pthread_t threads[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, work, NULL) == 0);
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);

    contended = scratch;
    size_t refused[2] = {0, 0};
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, contend, &refused[i]) == 0);
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(refused[0] + refused[1] < 2 * TURNS);

    free(expected_values);
    free((void *)rows.data);
    sae_set_destroy(set);
    sae_features_destroy(expected);
    sae_scratch_destroy(scratch);
    sae_model_close(model);
    return 0;
}
