/* A host for the library without std: it lends memory, and counts it. Prints the features as
 * smoke.c does; the third argument is the config. */
#include "check.h"

void *sae_host_allocate(size_t size, size_t alignment);
void sae_host_free(void *memory, size_t size, size_t alignment);
_Noreturn void sae_host_panic(const char *message);

static size_t lent = 0;

void *sae_host_allocate(size_t size, size_t alignment) {
    lent += size;
    return aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

void sae_host_free(void *memory, size_t size, size_t alignment) {
    (void)alignment;
    lent -= size;
    free(memory);
}

_Noreturn void sae_host_panic(const char *message) {
    fprintf(stderr, "%s\n", message);
    abort();
}

int main(int argc, char **argv) {
    CHECK(argc == 4);
    sae_error error;
    sae_model *model;
    sae_scratch *scratch;
    sae_features *features;
    size_t n_bytes, n_config;
    unsigned char *bytes = read_file(argv[1], 0, &n_bytes);
    char *config = (char *)read_file(argv[3], 1, &n_config);
    config[n_config] = 0;
    CHECK_STATUS(SAE_STATUS_UNSUPPORTED, sae_model_open(argv[1], NULL, &model, &error));
    CHECK_OK(sae_model_open_memory(bytes, n_bytes, argv[1], config, NULL, &model, &error));
    CHECK_OK(sae_scratch_create(model, &scratch, &error));
    CHECK_OK(sae_features_create(0, 0, &features, &error));
    CHECK(lent > 0);
    sae_rows rows = read_rows(argv[2], model);
    CHECK_OK(sae_model_encode(model, &rows, scratch, features, &error));
    /* Once it has grown, encoding takes no memory. */
    size_t before = lent;
    CHECK_OK(sae_model_encode(model, &rows, scratch, features, &error));
    CHECK(lent == before);
    for (size_t row = 0; row < rows.n_rows; row++) {
        sae_row_features fired;
        CHECK_OK(sae_features_row(features, row, &fired, &error));
        for (size_t i = 0; i < fired.count; i++)
            printf("feature %zu %u %08x\n", row, (unsigned)fired.indices[i],
                   (unsigned)bits_of(fired.values[i]));
    }
    sae_features_destroy(features);
    sae_scratch_destroy(scratch);
    sae_model_close(model);
    CHECK(lent == 0);
    free((void *)rows.data);
    free(bytes);
    free(config);
    return 0;
}
