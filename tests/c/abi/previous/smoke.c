/* The whole way once: open, describe, encode, decode, compile a set, read it out, close. Prints
 * every result as bits, for the test to compare with the Rust API. */
#include "check.h"

int main(int argc, char **argv) {
    CHECK(argc == 3);
    sae_error error;
    sae_model *model = NULL;
    sae_scratch *scratch = NULL;
    sae_features *features = NULL;
    CHECK_OK(sae_model_open(argv[1], NULL, &model, &error));
    CHECK_OK(sae_scratch_create(model, &scratch, &error));
    CHECK_OK(sae_features_create(0, 0, &features, &error));

    CHECK(strcmp(sae_version(), SAE_VERSION) == 0);
    CHECK(sae_abi_version() == SAE_ABI_VERSION);
    printf("version %s\n", sae_version());
    printf("level %s\n", sae_model_level(model));
    printf("shape %zu %zu %zu\n", sae_model_d_in(model), sae_model_d_sae(model),
           sae_model_d_out(model));
    for (sae_text item = SAE_TEXT_PUBLISHER; item <= SAE_TEXT_HOOK_NAME_OUT; item++)
        printf("text %d %s\n", (int)item, sae_model_text(model, item));
    CHECK(sae_model_text(model, SAE_TEXT_PUBLISHER)[0] != 0);
    CHECK(strcmp(sae_model_text(model, -1), "") == 0);
    CHECK(strcmp(sae_model_text(model, 1000), "") == 0);

    size_t size = 0;
    CHECK_OK(sae_model_describe(model, NULL, 0, &size, &error));
    char *json = malloc(size);
    CHECK(json != NULL);
    CHECK_OK(sae_model_describe(model, json, size, &size, &error));
    CHECK(strlen(json) + 1 == size);
    printf("json %s\n", json);
    free(json);

    sae_rows rows = read_rows(argv[2], model);
    CHECK_OK(sae_model_encode(model, &rows, scratch, features, &error));
    CHECK(sae_features_n_rows(features) == rows.n_rows);
    CHECK(sae_features_failed_rows(features) == 0);
    size_t count = 0;
    for (size_t row = 0; row < rows.n_rows; row++) {
        sae_row_features fired;
        CHECK_OK(sae_features_row(features, row, &fired, &error));
        CHECK(fired.status == SAE_ROW_OK);
        for (size_t i = 0; i < fired.count; i++)
            printf("feature %zu %u %08x\n", row, (unsigned)fired.indices[i],
                   (unsigned)bits_of(fired.values[i]));
        count += fired.count;
    }
    CHECK(count == sae_features_count(features));
    CHECK(count > 0);

    size_t n_out = rows.n_rows * sae_model_d_out(model);
    float *out = malloc(n_out * sizeof(float));
    CHECK(out != NULL);
    CHECK_OK(sae_model_decode(model, features, &rows, scratch, out, n_out, &error));
    for (size_t i = 0; i < n_out; i++) printf("decoded %zu %08x\n", i, (unsigned)bits_of(out[i]));

    /* Any order, with a duplicate. */
    uint32_t chosen[4] = {3, 1, 3, (uint32_t)sae_model_d_sae(model) - 1};
    sae_set *set = NULL;
    CHECK_OK(sae_set_compile(model, chosen, 4, &set, &error));
    CHECK(sae_set_count(set) == 4);
    float *values = malloc(rows.n_rows * 4 * sizeof(float));
    sae_row_status *status = malloc(rows.n_rows);
    float *column = malloc(rows.n_rows * sizeof(float));
    CHECK(values != NULL && status != NULL && column != NULL);
    CHECK_OK(sae_model_readout(model, set, &rows, scratch, values, rows.n_rows * 4, status, &error));
    for (size_t row = 0; row < rows.n_rows; row++) {
        CHECK(status[row] == SAE_ROW_OK);
        for (size_t i = 0; i < 4; i++)
            printf("readout %zu %u %08x\n", row, (unsigned)chosen[i],
                   (unsigned)bits_of(values[row * 4 + i]));
    }
    for (size_t i = 0; i < 4; i++) {
        CHECK_OK(sae_model_readout_one(model, chosen[i], &rows, scratch, column, rows.n_rows, NULL,
                                       &error));
        for (size_t row = 0; row < rows.n_rows; row++)
            CHECK(bits_of(column[row]) == bits_of(values[row * 4 + i]));
    }

    /* Preparing changes no bit. */
    sae_prepare_cost cost;
    cost.struct_size = (uint32_t)sizeof cost;
    CHECK_OK(sae_model_prepare_cost(model, &cost, &error));
    CHECK(cost.struct_size == sizeof cost);
    CHECK((cost.needed == 1) == (cost.bytes > 0));
    sae_features *again = NULL;
    CHECK_OK(sae_features_create(rows.n_rows, count, &again, &error));
    CHECK_OK(sae_model_prepare(model, &error));
    CHECK_OK(sae_model_encode(model, &rows, scratch, again, &error));
    CHECK(same_features(features, again));
    float *out_again = malloc(n_out * sizeof(float));
    CHECK(out_again != NULL);
    CHECK_OK(sae_model_decode(model, again, &rows, scratch, out_again, n_out, &error));
    CHECK(memcmp(out, out_again, n_out * sizeof(float)) == 0);
    CHECK_OK(sae_model_readout(model, set, &rows, scratch, values, rows.n_rows * 4, NULL, &error));
    CHECK_OK(sae_model_prepare_cost(model, &cost, &error));
    CHECK(cost.needed == 0);

    free(out_again);
    free(out);
    free(values);
    free(status);
    free(column);
    free((void *)rows.data);
    sae_set_destroy(set);
    sae_features_destroy(again);
    sae_features_destroy(features);
    sae_scratch_destroy(scratch);
    sae_model_close(model);
    return 0;
}
