/* What the C test programs share: checks that end the program with the place and the details, and
 * reading rows. Each program gets: a checkpoint, and a file of raw f32 rows. */
#ifndef CHECK_H
#define CHECK_H

#include "sae.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* Checks the status of a call; `error` is the sae_error that was passed to it. */
#define CHECK_STATUS(expected, call)                                                               \
    do {                                                                                           \
        sae_status found_ = (call);                                                                \
        if (found_ != (expected)) {                                                                \
            fprintf(stderr, "%s:%d: %s\n  status %d (%s), expected %d\n  message: %s\n", __FILE__, \
                    __LINE__, #call, (int)found_, sae_status_text(found_), (int)(expected),        \
                    error.message);                                                                \
            exit(1);                                                                               \
        }                                                                                          \
        CHECK(error.code == found_);                                                               \
        CHECK((error.message[0] == 0) == (found_ == SAE_STATUS_OK));                               \
    } while (0)

#define CHECK_OK(call) CHECK_STATUS(SAE_STATUS_OK, call)

/* Reads a whole file; `extra` bytes more are allocated than the file has. */
static inline unsigned char *read_file(const char *path, size_t extra, size_t *size) {
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    CHECK(fseek(file, 0, SEEK_END) == 0);
    long end = ftell(file);
    CHECK(end >= 0);
    rewind(file);
    unsigned char *bytes = (unsigned char *)malloc((size_t)end + extra + 1);
    CHECK(bytes != NULL);
    CHECK(fread(bytes, 1, (size_t)end, file) == (size_t)end);
    fclose(file);
    *size = (size_t)end;
    return bytes;
}

/* The rows of a file, contiguous f32 of the model's width. */
static inline sae_rows read_rows(const char *path, const sae_model *model) {
    size_t size = 0;
    unsigned char *bytes = read_file(path, 0, &size);
    size_t width = sae_model_d_in(model);
    CHECK(width > 0 && size % (width * sizeof(float)) == 0);
    sae_rows rows = {bytes, SAE_DTYPE_F32, 0, size / (width * sizeof(float)), width, 0};
    return rows;
}

/* Whether two features handles hold the same rows, bit for bit. */
static inline int same_features(const sae_features *a, const sae_features *b) {
    sae_error error;
    sae_features_view x, y;
    CHECK_OK(sae_features_all(a, &x, &error));
    CHECK_OK(sae_features_all(b, &y, &error));
    return x.n_rows == y.n_rows && x.count == y.count &&
           memcmp(x.row_ends, y.row_ends, x.n_rows * sizeof(size_t)) == 0 &&
           memcmp(x.row_status, y.row_status, x.n_rows) == 0 &&
           memcmp(x.indices, y.indices, x.count * sizeof(uint32_t)) == 0 &&
           memcmp(x.values, y.values, x.count * sizeof(float)) == 0;
}

static inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

#endif
