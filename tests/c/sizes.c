/* Sizes off by one, misaligned and strided rows, all row formats, overlap, and scratch memory of
 * any alignment. Buffers are heap blocks of exactly the size that is needed, so that valgrind sees
 * every byte beyond. */
#include "check.h"

static sae_model *model;
static sae_scratch *scratch;
static sae_error error;

/* A heap copy of `size` bytes that starts `offset` bytes into its block. */
static void *displaced(const void *data, size_t size, size_t offset) {
    unsigned char *block = malloc(offset + size);
    CHECK(block != NULL);
    memcpy(block + offset, data, size);
    return block;
}

/* Exact conversion of a float whose bits fit. */
static uint16_t to_bf16(float value) {
    CHECK((bits_of(value) & 0xffff) == 0);
    return (uint16_t)(bits_of(value) >> 16);
}

static uint16_t to_f16(float value) {
    uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffff) == 0) return (uint16_t)(bits >> 16);
    uint32_t exponent = (bits >> 23 & 0xff) - 127 + 15;
    CHECK(exponent > 0 && exponent < 31 && (bits & 0x1fff) == 0);
    return (uint16_t)((bits >> 16 & 0x8000) | exponent << 10 | (bits >> 13 & 0x3ff));
}

static void rows_of_any_form(const sae_rows *rows) {
    sae_features *expected, *found;
    CHECK_OK(sae_features_create(0, 0, &expected, &error));
    CHECK_OK(sae_features_create(0, 0, &found, &error));
    size_t row_bytes = rows->width * sizeof(float);

    /* Any alignment. */
    CHECK_OK(sae_model_encode(model, rows, scratch, expected, &error));
    for (size_t offset = 1; offset < 9; offset++) {
        unsigned char *block = displaced(rows->data, rows->n_rows * row_bytes, offset);
        sae_rows moved = *rows;
        moved.data = block + offset;
        CHECK_OK(sae_model_encode(model, &moved, scratch, found, &error));
        CHECK(same_features(expected, found));
        free(block);
    }

    /* Any stride, odd ones too; the last row ends the block. */
    const size_t gaps[3] = {0, 1, 12};
    for (size_t g = 0; g < 3; g++) {
        size_t stride = row_bytes + gaps[g];
        unsigned char *block = malloc((rows->n_rows - 1) * stride + row_bytes);
        CHECK(block != NULL);
        for (size_t row = 0; row < rows->n_rows; row++)
            memcpy(block + row * stride, (const char *)rows->data + row * row_bytes, row_bytes);
        sae_rows strided = *rows;
        strided.data = block;
        strided.stride_bytes = stride;
        CHECK_OK(sae_model_encode(model, &strided, scratch, found, &error));
        CHECK(same_features(expected, found));
        free(block);
    }
    sae_rows bad = *rows;
    bad.stride_bytes = row_bytes - 1;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_encode(model, &bad, scratch, found, &error));
    CHECK(sae_features_n_rows(found) == 0);

    /* Splits of the rows give the same. */
    sae_rows part = *rows;
    part.n_rows = 1;
    for (size_t row = 0; row < rows->n_rows; row++) {
        part.data = (const char *)rows->data + row * row_bytes;
        CHECK_OK(sae_model_encode(model, &part, scratch, found, &error));
        sae_row_features a, b;
        CHECK_OK(sae_features_row(expected, row, &a, &error));
        CHECK_OK(sae_features_row(found, 0, &b, &error));
        CHECK(a.count == b.count && a.status == b.status);
        CHECK(memcmp(a.indices, b.indices, a.count * sizeof(uint32_t)) == 0);
        CHECK(memcmp(a.values, b.values, a.count * sizeof(float)) == 0);
    }

    /* The half formats: values that all three formats hold give the same features. */
    size_t n = rows->n_rows * rows->width;
    float *coarse = malloc(n * 4);
    uint16_t *half = malloc(n * 2), *brain = malloc(n * 2);
    CHECK(coarse != NULL && half != NULL && brain != NULL);
    for (size_t i = 0; i < n; i++) {
        coarse[i] = (float)((int)(i * 37 % 61) - 30) / 8;
        half[i] = to_f16(coarse[i]);
        brain[i] = to_bf16(coarse[i]);
    }
    sae_rows as_f32 = *rows, as_f16 = *rows, as_bf16 = *rows;
    as_f32.data = coarse;
    as_f16.data = half;
    as_f16.dtype = SAE_DTYPE_F16;
    as_bf16.data = brain;
    as_bf16.dtype = SAE_DTYPE_BF16;
    CHECK_OK(sae_model_encode(model, &as_f32, scratch, expected, &error));
    CHECK_OK(sae_model_encode(model, &as_f16, scratch, found, &error));
    CHECK(same_features(expected, found));
    CHECK_OK(sae_model_encode(model, &as_bf16, scratch, found, &error));
    CHECK(same_features(expected, found));
    free(coarse);
    free(half);
    free(brain);
    sae_features_destroy(expected);
    sae_features_destroy(found);
}

static void wrong_rows(const sae_rows *rows) {
    sae_features *features;
    CHECK_OK(sae_features_create(0, 0, &features, &error));
    sae_rows bad = *rows;
    bad.width--;
    CHECK_STATUS(SAE_STATUS_LENGTH, sae_model_encode(model, &bad, scratch, features, &error));
    bad = *rows;
    bad.width++;
    bad.n_rows = 1;
    CHECK_STATUS(SAE_STATUS_LENGTH, sae_model_encode(model, &bad, scratch, features, &error));
    bad = *rows;
    bad.dtype = 2;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_encode(model, &bad, scratch, features, &error));
    bad = *rows;
    bad.reserved = 1;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_encode(model, &bad, scratch, features, &error));
    const size_t huge[3] = {(size_t)-1, (size_t)-1 / 2, (size_t)-1 / 16};
    for (size_t i = 0; i < 3; i++) {
        bad = *rows;
        bad.n_rows = huge[i];
        CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                     sae_model_encode(model, &bad, scratch, features, &error));
        bad = *rows;
        bad.width = huge[i];
        bad.n_rows = 2;
        CHECK_STATUS(SAE_STATUS_LENGTH, sae_model_encode(model, &bad, scratch, features, &error));
        bad = *rows;
        bad.stride_bytes = huge[i];
        bad.n_rows = 64;
        CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                     sae_model_encode(model, &bad, scratch, features, &error));
    }
    sae_features_destroy(features);
}

static void outputs(const sae_rows *rows) {
    sae_features *features;
    CHECK_OK(sae_features_create(0, 0, &features, &error));
    CHECK_OK(sae_model_encode(model, rows, scratch, features, &error));

    /* decode: one value too few, one too many, misaligned, over the inputs. */
    size_t n = rows->n_rows * sae_model_d_out(model);
    float *out = malloc(n * sizeof(float));
    CHECK(out != NULL);
    CHECK_OK(sae_model_decode(model, features, rows, scratch, out, n, &error));
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_model_decode(model, features, rows, scratch, out, n - 1, &error));
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_model_decode(model, features, rows, scratch, out, n + 1, &error));
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_model_decode(model, features, rows, scratch, out, 0, &error));
    unsigned char *block = malloc(n * sizeof(float) + 1);
    CHECK(block != NULL);
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_decode(model, features, rows, scratch, (float *)(void *)(block + 1), n,
                                  &error));
    free(block);
    sae_rows over = *rows;
    over.data = (char *)out + 4;
    over.n_rows = 1;
    if (sae_model_decode_needs_inputs(model)) {
        CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                     sae_model_decode(model, features, &over, scratch, out, n, &error));
        sae_rows fewer = *rows;
        fewer.n_rows--;
        CHECK_STATUS(SAE_STATUS_LENGTH,
                     sae_model_decode(model, features, &fewer, scratch, out, n, &error));
    }
    free(out);

    /* readout: the same, and without a status the same values for many rows. */
    const uint32_t chosen[3] = {0, 2, 1};
    sae_set *set;
    CHECK_OK(sae_set_compile(model, chosen, 3, &set, &error));
    enum { MANY = 150 };
    size_t row_bytes = rows->width * sizeof(float);
    unsigned char *many = malloc(MANY * row_bytes);
    CHECK(many != NULL);
    for (size_t row = 0; row < MANY; row++)
        memcpy(many + row * row_bytes, (const char *)rows->data + row % rows->n_rows * row_bytes,
               row_bytes);
    sae_rows long_rows = *rows;
    long_rows.data = many;
    long_rows.n_rows = MANY;
    n = MANY * 3;
    float *values = malloc(n * sizeof(float)), *again = malloc(n * sizeof(float));
    sae_row_status *status = malloc(MANY);
    CHECK(values != NULL && again != NULL && status != NULL);
    CHECK_OK(sae_model_readout(model, set, &long_rows, scratch, values, n, status, &error));
    CHECK_OK(sae_model_readout(model, set, &long_rows, scratch, again, n, NULL, &error));
    CHECK(memcmp(values, again, n * sizeof(float)) == 0);
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_model_readout(model, set, &long_rows, scratch, values, n - 1, status, &error));
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_model_readout(model, set, &long_rows, scratch, values, n + 1, status, &error));
    CHECK_STATUS(SAE_STATUS_LENGTH, sae_model_readout_one(model, 0, &long_rows, scratch, values,
                                                          MANY + 1, status, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_readout(model, set, &long_rows, scratch,
                                   (float *)(void *)((char *)values + 1), n, status, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_readout(model, set, &long_rows, scratch, (float *)(void *)many, n,
                                   status, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_readout(model, set, &long_rows, scratch, values, n,
                                   (sae_row_status *)values, &error));
    uint32_t *list = malloc(3 * sizeof(uint32_t) + 1);
    sae_set *no_set;
    CHECK(list != NULL);
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_set_compile(model, (uint32_t *)(void *)((char *)list + 1), 3, &no_set,
                                 &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_set_compile(model, list, (size_t)-1 / 4, &no_set, &error));
    free(list);
    free(many);
    free(values);
    free(again);
    free(status);
    sae_set_destroy(set);
    sae_features_destroy(features);
}

static void scratch_memory(const sae_rows *rows) {
    sae_features *expected, *found;
    CHECK_OK(sae_features_create(0, 0, &expected, &error));
    CHECK_OK(sae_features_create(0, 0, &found, &error));
    CHECK_OK(sae_model_encode(model, rows, scratch, expected, &error));
    size_t size = 0;
    CHECK_OK(sae_scratch_size(model, &size, &error));
    CHECK(size > 0);
    for (size_t offset = 0; offset < 17; offset++) {
        unsigned char *block = malloc(offset + size);
        CHECK(block != NULL);
        sae_scratch *inside = NULL;
        CHECK_STATUS(SAE_STATUS_LENGTH,
                     sae_scratch_create_in(model, block + offset, size - 1, &inside, &error));
        CHECK(inside == NULL);
        CHECK_OK(sae_scratch_create_in(model, block + offset, size, &inside, &error));
        CHECK_OK(sae_model_encode(model, rows, inside, found, &error));
        CHECK(same_features(expected, found));
        sae_scratch_destroy(inside);
        free(block);
    }
    sae_features_destroy(expected);
    sae_features_destroy(found);
}

static void description(void) {
    size_t size = 0, again = 0;
    CHECK_OK(sae_model_describe(model, NULL, 0, &size, &error));
    char *text = malloc(size);
    CHECK(text != NULL);
    text[0] = 'x';
    CHECK_STATUS(SAE_STATUS_LENGTH, sae_model_describe(model, text, size - 1, &again, &error));
    CHECK(again == size && text[0] == 'x');
    CHECK_OK(sae_model_describe(model, text, size, NULL, &error));
    CHECK(strlen(text) == size - 1);
    free(text);

    /* Structs of an older and of a newer caller. */
    struct {
        sae_site known;
        uint32_t later;
    } site;
    memset(&site, 7, sizeof site);
    site.later = 7;
    site.known.struct_size = (uint32_t)sizeof site;
    CHECK_OK(sae_model_site(model, &site.known, &error));
    CHECK(site.later == 7 && site.known.struct_size == sizeof site);
    CHECK(site.known.mean_center <= 1 && site.known.concatenated_heads <= 1);
    CHECK(site.known.prepend_bos >= -1 && site.known.prepend_bos <= 1);
    /* The first version had 24 bytes: what came later is not touched then. */
    memset(&site, 7, sizeof site);
    site.known.struct_size = 24;
    CHECK_OK(sae_model_site(model, &site.known, &error));
    CHECK(site.known.struct_size == 24 && site.known.concatenated_heads <= 1);
    CHECK(site.known.point == 0x07070707 && site.known.layer_out == 0x07070707);
    site.known.struct_size = 23;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_site(model, &site.known, &error));
    sae_prepare_cost cost = {0, 0, 0, 0};
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_prepare_cost(model, &cost, &error));
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    CHECK_OK(sae_model_open(argv[1], NULL, &model, &error));
    CHECK_OK(sae_scratch_create(model, &scratch, &error));
    sae_rows rows = read_rows(argv[2], model);
    CHECK(rows.n_rows > 1);
    rows_of_any_form(&rows);
    wrong_rows(&rows);
    outputs(&rows);
    scratch_memory(&rows);
    description();
    free((void *)rows.data);
    sae_scratch_destroy(scratch);
    sae_model_close(model);
    return 0;
}
