/* Prints the features that fire for rows of activations.
 *
 *     features CHECKPOINT ROWS.f32
 *
 * CHECKPOINT is a file or folder as it was downloaded; ROWS.f32 holds rows of d_in 32-bit floats,
 * one row after the other. */
#include "sae.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    sae_error error;
    sae_model *model = NULL;
    sae_scratch *scratch = NULL;
    sae_features *features = NULL;
    sae_row_features fired;
    FILE *file = argc == 3 ? fopen(argv[2], "rb") : NULL;
    if (file == NULL) return fprintf(stderr, "usage: features CHECKPOINT ROWS.f32\n"), 2;

    if (sae_model_open(argv[1], NULL, &model, &error) != SAE_STATUS_OK) goto failed;
    if (sae_scratch_create(model, &scratch, &error) != SAE_STATUS_OK) goto failed;
    if (sae_features_create(1, 100, &features, &error) != SAE_STATUS_OK) goto failed;

    size_t width = sae_model_d_in(model);
    float *row = malloc(width * sizeof(float));
    if (row == NULL) return 1;
    sae_rows rows = {row, SAE_DTYPE_F32, 0, 1, width, 0};
    for (size_t token = 0; fread(row, sizeof(float), width, file) == width; token++) {
        if (sae_model_encode(model, &rows, scratch, features, &error) != SAE_STATUS_OK) goto failed;
        if (sae_features_row(features, 0, &fired, &error) != SAE_STATUS_OK) goto failed;
        for (size_t i = 0; i < fired.count; i++)
            printf("row %zu, feature %u: %g\n", token, (unsigned)fired.indices[i],
                   fired.values[i]);
    }

    free(row);
    fclose(file);
    sae_features_destroy(features);
    sae_scratch_destroy(scratch);
    sae_model_close(model);
    return 0;

failed:
    fprintf(stderr, "%s\n", error.message);
    return 1;
}
