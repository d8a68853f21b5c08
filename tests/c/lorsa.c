/* Low-rank sparse attention: prints the features of a sequence, bit for bit, which are the same row by
 * row and as a whole; readouts, decoding, rows taken back, and whatever a caller does wrong. */
#include "check.h"
#include "sae_architectures.h"

static sae_error error;

int main(int argc, char **argv) {
    CHECK(argc == 3);
    sae_lorsa *lorsa = NULL;
    sae_model *model = NULL;
    CHECK_OK(sae_lorsa_open(argv[1], NULL, &lorsa, &error));
    /* It is no model, and a model is no Lorsa. */
    CHECK_STATUS(SAE_STATUS_UNSUPPORTED, sae_model_open(argv[1], NULL, &model, &error));
    CHECK(model == NULL && sae_model_d_in((const sae_model *)(const void *)lorsa) == 0);
    size_t d_in = sae_lorsa_d_in(lorsa), d_sae = sae_lorsa_d_sae(lorsa), size = 0;
    size_t d_out = sae_lorsa_d_out(lorsa);
    CHECK(d_in > 0 && d_sae > 0 && d_out > 0);
    unsigned char *bytes = read_file(argv[2], 0, &size);
    sae_rows rows = {bytes, SAE_DTYPE_F32, 0, size / (d_in * sizeof(float)), d_in, 0};
    size_t n = rows.n_rows;
    CHECK(n > 2 && n * d_in * sizeof(float) == size);

    sae_scratch *scratch = NULL;
    sae_lorsa_cache *cache = NULL;
    sae_features *whole = NULL, *one = NULL, *all = NULL;
    CHECK_OK(sae_lorsa_scratch_create(lorsa, &scratch, &error));
    CHECK_OK(sae_lorsa_cache_create(lorsa, n, &cache, &error));
    CHECK_OK(sae_features_create(0, 0, &whole, &error));
    CHECK_OK(sae_features_create(0, 0, &one, &error));
    CHECK_OK(sae_features_create(0, 0, &all, &error));
    CHECK_OK(sae_lorsa_encode(lorsa, &rows, cache, scratch, whole, &error));
    CHECK(sae_lorsa_cache_length(cache) == n && sae_features_n_rows(whole) == n);
    for (size_t row = 0; row < n; row++) {
        sae_row_features found;
        CHECK_OK(sae_features_row(whole, row, &found, &error));
        for (size_t i = 0; i < found.count; i++)
            printf("feature %zu %u %08x\n", row, (unsigned)found.indices[i],
                   (unsigned)bits_of(found.values[i]));
    }
    /* No room for more. */
    sae_rows last = rows;
    last.n_rows = 1;
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_lorsa_encode(lorsa, &last, cache, scratch, one, &error));
    CHECK(sae_lorsa_cache_length(cache) == n && sae_features_n_rows(one) == 0);

    /* Row by row; from the third row on after taking the others back. */
    for (size_t pass = 0; pass < 2; pass++) {
        size_t first = pass == 0 ? 0 : 2;
        CHECK_OK(sae_lorsa_cache_truncate(cache, first, &error));
        if (pass == 0) CHECK_OK(sae_features_clear(all, &error));
        for (size_t row = first; row < n; row++) {
            sae_row_features found, expected;
            last.data = bytes + row * d_in * sizeof(float);
            CHECK_OK(sae_lorsa_encode(lorsa, &last, cache, scratch, one, &error));
            CHECK_OK(sae_features_row(one, 0, &found, &error));
            CHECK_OK(sae_features_row(whole, row, &expected, &error));
            CHECK(found.count == expected.count && found.status == expected.status);
            CHECK(memcmp(found.indices, expected.indices, found.count * sizeof(uint32_t)) == 0);
            CHECK(memcmp(found.values, expected.values, found.count * sizeof(float)) == 0);
            if (pass == 0)
                CHECK_OK(sae_features_append_row(all, found.indices, found.values, found.count,
                                                 &error));
        }
    }
    CHECK(same_features(all, whole));

    /* Readouts, which add the rows too. */
    uint32_t wanted[2] = {(uint32_t)d_sae - 1, 0};
    float *values = calloc(2 * n, sizeof(float)), *y = calloc(n * d_out, sizeof(float));
    sae_row_status *status = calloc(n, 1);
    CHECK(values != NULL && y != NULL && status != NULL);
    CHECK_OK(sae_lorsa_cache_truncate(cache, 0, &error));
    CHECK_OK(sae_lorsa_readout(lorsa, wanted, 2, &rows, cache, scratch, values, 2 * n, status,
                               &error));
    CHECK(sae_lorsa_cache_length(cache) == n);
    for (size_t row = 0; row < n; row++)
        for (size_t i = 0; i < 2; i++)
            printf("readout %zu %u %08x\n", row, (unsigned)wanted[i],
                   (unsigned)bits_of(values[2 * row + i]));
    CHECK_OK(sae_lorsa_cache_truncate(cache, 0, &error));
    CHECK_STATUS(SAE_STATUS_LENGTH, sae_lorsa_readout(lorsa, wanted, 2, &rows, cache, scratch,
                                                      values, 2 * n - 1, status, &error));
    wanted[0] = (uint32_t)d_sae;
    CHECK_STATUS(SAE_STATUS_FEATURE_OUT_OF_RANGE,
                 sae_lorsa_readout(lorsa, wanted, 2, &rows, cache, scratch, values, 2 * n, status,
                                   &error));
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                 sae_lorsa_readout(lorsa, wanted, 2, &rows, cache, scratch, values, 2 * n, NULL,
                                   &error));
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                 sae_lorsa_encode(lorsa, &rows, NULL, scratch, one, &error));
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE,
                 sae_lorsa_encode(lorsa, &rows, (sae_lorsa_cache *)(void *)one, scratch, one,
                                  &error));
    CHECK(sae_lorsa_cache_length(cache) == 0);

    CHECK_OK(sae_lorsa_decode(lorsa, whole, scratch, y, n * d_out, &error));
    for (size_t i = 0; i < n * d_out; i++)
        printf("decoded %zu %08x\n", i, (unsigned)bits_of(y[i]));
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_lorsa_decode(lorsa, whole, scratch, y, n * d_out + 1, &error));

    /* Another k: as many features at most; the caches of the first. */
    sae_lorsa *fewer = NULL, *nothing = NULL;
    CHECK_OK(sae_lorsa_with_k(lorsa, 2, &fewer, &error));
    CHECK_OK(sae_lorsa_cache_truncate(cache, 0, &error));
    CHECK_OK(sae_lorsa_encode(fewer, &rows, cache, scratch, one, &error));
    CHECK(sae_features_count(one) > 0 && sae_features_count(one) <= 2 * n);
    for (size_t row = 0; row < n; row++) {
        sae_row_features some, more;
        CHECK_OK(sae_features_row(one, row, &some, &error));
        CHECK_OK(sae_features_row(whole, row, &more, &error));
        CHECK(some.count == (more.count < 2 ? more.count : 2));
    }
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_lorsa_with_k(lorsa, d_sae + 1, &nothing, &error));
    CHECK(nothing == NULL);

    /* From memory, on the simplest level: the same bits. */
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
    sae_lorsa *scalar = NULL;
    CHECK_OK(sae_lorsa_open_memory(weights, n_weights, "sae_weights.safetensors",
                                   (const char *)config, &options, &scalar, &error));
    CHECK(strcmp(sae_lorsa_level(scalar), "scalar") == 0 && sae_lorsa_level(lorsa)[0] != 0);
    sae_lorsa_cache *other = NULL;
    sae_scratch *again = NULL;
    CHECK_OK(sae_lorsa_cache_create(scalar, n, &other, &error));
    CHECK_OK(sae_lorsa_scratch_create(scalar, &again, &error));
    CHECK_OK(sae_lorsa_encode(scalar, &rows, other, again, one, &error));
    CHECK(same_features(one, whole));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_lorsa_encode(scalar, &rows, cache, again, one, &error));
    CHECK(sae_lorsa_open_memory(weights, n_weights / 2, NULL, (const char *)config, NULL, &nothing,
                                &error) != SAE_STATUS_OK);
    CHECK(nothing == NULL);
    sae_scratch_destroy(again);
    sae_lorsa_cache_destroy(other);
    sae_lorsa_close(scalar);
    sae_lorsa_close(fewer);
    free(weights);
    free(config);

    free(values);
    free(y);
    free(status);
    sae_features_destroy(all);
    sae_features_destroy(one);
    sae_features_destroy(whole);
    sae_lorsa_cache_destroy(cache);
    sae_scratch_destroy(scratch);
    sae_lorsa_close(lorsa);
    free(bytes);
    return 0;
}
