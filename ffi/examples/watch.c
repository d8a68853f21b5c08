/* Reads a few features out of every row of activations, and says when one of them fires: a watch
 * list. Costs as many rows of weights per token as there are features, whatever the model's size.
 *
 *     watch CHECKPOINT ROWS.f32 FEATURE[,FEATURE...] [LEAST]
 *
 * CHECKPOINT is a file or folder as it was downloaded; ROWS.f32 holds rows of d_in 32-bit floats.
 * Values of LEAST (0) or below are not shown. Exits with 1 after a failure, 2 for wrong arguments. */
#include "sae.h"

#include <stdio.h>
#include <stdlib.h>

#define MOST 256

int main(int argc, char **argv) {
    sae_error error;
    sae_model *model = NULL;
    sae_scratch *scratch = NULL;
    sae_set *set = NULL;
    uint32_t features[MOST];
    float values[MOST];
    size_t count = 0;
    sae_row_status status;
    int result = 1;
    float *row = NULL;
    FILE *file = argc == 4 || argc == 5 ? fopen(argv[2], "rb") : NULL;
    if (file == NULL) {
        fprintf(stderr, "usage: watch CHECKPOINT ROWS.f32 FEATURE[,FEATURE...] [LEAST]\n");
        return 2;
    }
    for (char *at = argv[3]; *at != 0 && count < MOST; at += *at == ',') {
        char *end;
        features[count++] = (uint32_t)strtoul(at, &end, 10);
        if (end == at || (*end != 0 && *end != ',')) {
            fprintf(stderr, "`%s` is no list of features\n", argv[3]);
            fclose(file);
            return 2;
        }
        at = end;
    }
    double least = argc == 5 ? strtod(argv[4], NULL) : 0;

    if (sae_model_open(argv[1], NULL, &model, &error) != SAE_STATUS_OK) goto failed;
    if (sae_scratch_create(model, &scratch, &error) != SAE_STATUS_OK) goto failed;
    if (sae_set_compile(model, features, count, &set, &error) != SAE_STATUS_OK) goto failed;

    size_t width = sae_model_d_in(model);
    row = malloc(width * sizeof(float));
    if (row == NULL) goto done;
    sae_rows rows = {row, SAE_DTYPE_F32, 0, 1, width, 0};
    for (size_t token = 0; fread(row, sizeof(float), width, file) == width; token++) {
        if (sae_model_readout(model, set, &rows, scratch, values, count, &status, &error) !=
            SAE_STATUS_OK)
            goto failed;
        if (status != SAE_ROW_OK) printf("row %zu: not finite\n", token);
        for (size_t i = 0; i < count; i++)
            if ((double)values[i] > least)
                printf("row %zu, feature %u: %g\n", token, (unsigned)features[i],
                       (double)values[i]);
    }
    result = 0;
    goto done;

failed:
    fprintf(stderr, "%s\n", error.message);
done:
    free(row);
    fclose(file);
    sae_set_destroy(set);
    sae_scratch_destroy(scratch);
    sae_model_close(model);
    return result;
}
