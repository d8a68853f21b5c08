/* Mixtures of linear transforms: prints the features of rows and what they decode to, bit for bit;
 * readouts, another k, checkpoints in memory, and whatever a caller does wrong. */
#include "check.h"
#include "sae_architectures.h"

static sae_error error;

int main(int argc, char **argv) {
    CHECK(argc == 3);
    sae_molt *molt = NULL, *none = NULL;
    sae_model *model = NULL;
    CHECK_OK(sae_molt_open(argv[1], NULL, &molt, &error));
    /* It is no model, and a model is no mixture. */
    CHECK_STATUS(SAE_STATUS_UNSUPPORTED, sae_model_open(argv[1], NULL, &model, &error));
    CHECK(model == NULL && sae_model_d_in((const sae_model *)(const void *)molt) == 0);
    size_t d_in = sae_molt_d_in(molt), d_sae = sae_molt_d_sae(molt), size = 0;
    size_t d_out = sae_molt_d_out(molt);
    CHECK(d_in > 0 && d_sae > 0 && d_out > 0);
    unsigned char *bytes = read_file(argv[2], 0, &size);
    sae_rows rows = {bytes, SAE_DTYPE_F32, 0, size / (d_in * sizeof(float)), d_in, 0};
    size_t n = rows.n_rows;
    CHECK(n > 2 && n * d_in * sizeof(float) == size);

    sae_molt_scratch *scratch = NULL;
    sae_features *whole = NULL, *one = NULL;
    CHECK_OK(sae_molt_scratch_create(molt, &scratch, &error));
    CHECK_OK(sae_features_create(0, 0, &whole, &error));
    CHECK_OK(sae_features_create(0, 0, &one, &error));
    CHECK_OK(sae_molt_encode(molt, &rows, scratch, whole, &error));
    for (size_t row = 0; row < n; row++) {
        sae_row_features found;
        CHECK_OK(sae_features_row(whole, row, &found, &error));
        for (size_t i = 0; i < found.count; i++)
            printf("feature %zu %u %08x\n", row, (unsigned)found.indices[i],
                   (unsigned)bits_of(found.values[i]));
    }
    uint32_t wanted[2] = {(uint32_t)d_sae - 1, 0};
    sae_set *set = NULL, *no_set = NULL;
    CHECK_OK(sae_molt_set_compile(molt, wanted, 2, &set, &error));
    float *values = calloc(2 * n, sizeof(float)), *y = calloc(n * d_out, sizeof(float));
    sae_row_status *status = calloc(n, 1);
    CHECK(values != NULL && y != NULL && status != NULL);
    CHECK_OK(sae_molt_readout(molt, set, &rows, scratch, values, 2 * n, status, &error));
    for (size_t row = 0; row < n; row++)
        for (size_t i = 0; i < 2; i++)
            printf("readout %zu %u %08x\n", row, (unsigned)wanted[i],
                   (unsigned)bits_of(values[2 * row + i]));
    CHECK_OK(sae_molt_decode(molt, whole, &rows, scratch, y, n * d_out, &error));
    for (size_t i = 0; i < n * d_out; i++)
        printf("decoded %zu %08x\n", i, (unsigned)bits_of(y[i]));

    /* What a caller does wrong. */
    sae_rows narrow = rows, few = rows;
    narrow.width = d_in - 1;
    few.n_rows = n - 1;
    CHECK_STATUS(SAE_STATUS_LENGTH, sae_molt_encode(molt, &narrow, scratch, one, &error));
    CHECK(sae_features_n_rows(one) == 0);
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_molt_readout(molt, set, &rows, scratch, values, 2 * n - 1, status, &error));
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                 sae_molt_readout(molt, set, &rows, scratch, values, 2 * n, NULL, &error));
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                 sae_molt_readout(molt, NULL, &rows, scratch, values, 2 * n, status, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_molt_readout(molt, set, &rows, scratch, (float *)(void *)bytes, 2 * n, status,
                                  &error));
    wanted[0] = (uint32_t)d_sae;
    CHECK_STATUS(SAE_STATUS_FEATURE_OUT_OF_RANGE,
                 sae_molt_set_compile(molt, wanted, 2, &no_set, &error));
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                 sae_molt_set_compile(molt, NULL, 2, &no_set, &error));
    CHECK(no_set == NULL);
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                 sae_molt_decode(molt, whole, NULL, scratch, y, n * d_out, &error));
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_molt_decode(molt, whole, &few, scratch, y, n * d_out, &error));
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_molt_decode(molt, whole, &rows, scratch, y, n * d_out + 1, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_molt_decode(molt, whole, &rows, scratch, (float *)(void *)bytes, n * d_out,
                                 &error));
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT, sae_molt_encode(molt, &rows, NULL, one, &error));
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT, sae_molt_encode(molt, &rows, scratch, NULL, &error));
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE,
                 sae_molt_encode(molt, &rows, (sae_molt_scratch *)(void *)one, one, &error));

    /* Another k, which outlives the first; and from memory, on the simplest level. */
    sae_molt *fewer = NULL, *scalar = NULL;
    CHECK_OK(sae_molt_with_k(molt, 1, &fewer, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_molt_with_k(molt, d_sae + 1, &none, &error));
    char path[4096];
    size_t n_weights = 0, n_config = 0;
    CHECK(strlen(argv[1]) < sizeof path - 64);
    snprintf(path, sizeof path, "%s/sae_weights.safetensors", argv[1]);
    unsigned char *weights = read_file(path, 0, &n_weights);
    snprintf(path, sizeof path, "%s/config.json", argv[1]);
    unsigned char *config = read_file(path, 1, &n_config);
    config[n_config] = 0;
    sae_open_options options = SAE_OPEN_OPTIONS_INIT;
    options.level = "scalar";
    CHECK_OK(sae_molt_open_memory(weights, n_weights, "sae_weights.safetensors",
                                  (const char *)config, &options, &scalar, &error));
    CHECK(strcmp(sae_molt_level(scalar), "scalar") == 0 && sae_molt_level(molt)[0] != 0);
    CHECK(sae_molt_open_memory(weights, n_weights / 2, NULL, (const char *)config, NULL, &none,
                               &error) != SAE_STATUS_OK);
    CHECK(none == NULL);
    sae_molt_scratch *of_scalar = NULL, *of_fewer = NULL;
    CHECK_OK(sae_molt_scratch_create(scalar, &of_scalar, &error));
    CHECK_OK(sae_molt_encode(scalar, &rows, of_scalar, one, &error));
    CHECK(same_features(one, whole));
    float *same = calloc(n * d_out, sizeof(float));
    CHECK(same != NULL);
    CHECK_OK(sae_molt_decode(molt, whole, &rows, scratch, y, n * d_out, &error));
    CHECK_OK(sae_molt_decode(scalar, one, &rows, of_scalar, same, n * d_out, &error));
    CHECK(memcmp(same, y, n * d_out * sizeof(float)) == 0);
    free(same);
    sae_molt_scratch_destroy(of_scalar);
    sae_molt_close(scalar);
    free(weights);
    free(config);

    sae_molt_scratch_destroy(scratch);
    sae_molt_close(molt);
    CHECK_OK(sae_molt_scratch_create(fewer, &of_fewer, &error));
    CHECK_OK(sae_molt_encode(fewer, &rows, of_fewer, one, &error));
    CHECK(sae_features_count(one) > 0 && sae_features_count(one) <= n);
    sae_molt_scratch_destroy(of_fewer);
    sae_molt_close(fewer);

    free(values);
    free(y);
    free(status);
    sae_set_destroy(set);
    sae_features_destroy(one);
    sae_features_destroy(whole);
    free(bytes);
    return 0;
}
