/* Crosscoders and cross-layer transcoders: rows whose sites lie apart give the bits of rows together,
 * and layers one after the other those of the whole. */
#include "check.h"
#include "sae_architectures.h"

static sae_error error;

/* The part of every row that belongs to a site, in memory of its own. */
static sae_rows part(const sae_rows *rows, size_t site, size_t sites) {
    size_t width = rows->width / sites;
    float *values = calloc(rows->n_rows * width + 1, sizeof(float));
    CHECK(values != NULL);
    for (size_t row = 0; row < rows->n_rows; row++)
        memcpy(values + row * width, (const float *)rows->data + row * rows->width + site * width,
               width * sizeof(float));
    sae_rows one = {values, SAE_DTYPE_F32, 0, rows->n_rows, width, 0};
    return one;
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    sae_model *model = NULL;
    sae_scratch *scratch = NULL;
    sae_features *whole = NULL, *found = NULL;
    CHECK_OK(sae_model_open(argv[1], NULL, &model, &error));
    sae_rows rows = read_rows(argv[2], model);
    size_t sites = sae_model_input_sites(model), n = rows.n_rows;
    CHECK(sites > 1 && sites == sae_model_output_sites(model));
    CHECK_OK(sae_scratch_create(model, &scratch, &error));
    CHECK_OK(sae_features_create(0, 0, &whole, &error));
    CHECK_OK(sae_features_create(0, 0, &found, &error));
    CHECK_OK(sae_model_encode(model, &rows, scratch, whole, &error));
    sae_rows *apart = calloc(sites, sizeof(sae_rows));
    CHECK(apart != NULL);
    for (size_t site = 0; site < sites; site++) apart[site] = part(&rows, site, sites);

    CHECK_OK(sae_model_encode_sites(model, apart, sites, scratch, found, &error));
    CHECK(same_features(whole, found));
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_model_encode_sites(model, apart, sites - 1, scratch, found, &error));
    CHECK(sae_features_n_rows(found) == 0);

    uint32_t chosen[3] = {5, 0, (uint32_t)sae_model_d_sae(model) - 1};
    sae_set *set = NULL;
    CHECK_OK(sae_set_compile(model, chosen, 3, &set, &error));
    float *values = calloc(3 * n, sizeof(float)), *again = calloc(3 * n, sizeof(float));
    sae_row_status *status = calloc(n, 1);
    CHECK(values != NULL && again != NULL && status != NULL);
    CHECK_OK(sae_model_readout(model, set, &rows, scratch, values, 3 * n, status, &error));
    CHECK_OK(sae_model_readout_sites(model, set, apart, sites, scratch, again, 3 * n, status,
                                     &error));
    CHECK(memcmp(values, again, 3 * n * sizeof(float)) == 0);
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_model_readout_sites(model, set, apart, sites, scratch, again, 3 * n - 1,
                                         status, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_readout_sites(model, set, apart, sites, scratch,
                                         (float *)apart[0].data, 3 * n, status, &error));

    size_t d_out = sae_model_d_out(model), width = d_out / sites;
    float *y = calloc(n * d_out, sizeof(float)), *one = calloc(n * width, sizeof(float));
    CHECK(y != NULL && one != NULL);
    CHECK_OK(sae_model_decode(model, whole, &rows, scratch, y, n * d_out, &error));
    float *of_sites = calloc(n * d_out, sizeof(float));
    CHECK(of_sites != NULL);
    CHECK_OK(sae_model_decode_sites(model, whole, apart, sites, scratch, of_sites, n * d_out,
                                    &error));
    CHECK(memcmp(of_sites, y, n * d_out * sizeof(float)) == 0);
    memset(of_sites, 0, n * d_out * sizeof(float));
    sae_status without = sae_model_decode_sites(model, whole, NULL, 0, scratch, of_sites,
                                                n * d_out, &error);
    if (sae_model_decode_needs_inputs(model)) {
        CHECK(without == SAE_STATUS_INVALID_ARGUMENT);
        CHECK_STATUS(SAE_STATUS_LENGTH,
                     sae_model_decode_sites(model, whole, apart, sites - 1, scratch, of_sites,
                                            n * d_out, &error));
        CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                     sae_model_decode_sites(model, whole, apart, sites, scratch,
                                            (float *)apart[0].data, n * d_out, &error));
    } else {
        CHECK(without == SAE_STATUS_OK);
        CHECK(memcmp(of_sites, y, n * d_out * sizeof(float)) == 0);
    }
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_model_decode_sites(model, whole, apart, sites, scratch, of_sites,
                                        n * d_out - 1, &error));
    free(of_sites);
    sae_layer_stream *stream = NULL;
    sae_status streams = sae_layer_stream_create(model, n, &stream, &error);
    if (streams == SAE_STATUS_OK) {
        for (int pass = 0; pass < 2; pass++) {
            CHECK_OK(sae_layer_stream_restart(stream, n, &error));
            size_t features = 0;
            for (size_t layer = 0; layer < sites; layer++) {
                uint32_t first = 0, count = 0;
                CHECK_OK(sae_model_layer_features(model, layer, &first, &count, &error));
                CHECK(count > 0 && first == layer * count);
                CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                             sae_model_decode_layer(model, stream, layer, NULL, scratch, one,
                                                    n * width, &error));
                CHECK_OK(sae_model_encode_layer(model, stream, layer, &apart[layer], scratch,
                                                found, &error));
                features += sae_features_count(found);
                CHECK_OK(sae_model_decode_layer(model, stream, layer, &apart[layer], scratch, one,
                                                n * width, &error));
                for (size_t row = 0; row < n; row++)
                    CHECK(memcmp(one + row * width, y + row * d_out + layer * width,
                                 width * sizeof(float)) == 0);
            }
            CHECK(features == sae_features_count(whole));
        }
        CHECK_STATUS(SAE_STATUS_LENGTH, sae_layer_stream_restart(stream, n + 1, &error));
    } else {
        CHECK(streams == SAE_STATUS_INVALID_ARGUMENT && stream == NULL);
    }
    printf("%s\n", streams == SAE_STATUS_OK ? "layers" : "no layers");

    sae_layer_stream_destroy(stream);
    for (size_t site = 0; site < sites; site++) free((void *)apart[site].data);
    free(apart);
    free(values);
    free(again);
    free(status);
    free(y);
    free(one);
    sae_set_destroy(set);
    sae_features_destroy(found);
    sae_features_destroy(whole);
    sae_scratch_destroy(scratch);
    sae_model_close(model);
    free((void *)rows.data);
    return 0;
}
