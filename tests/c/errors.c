/* What goes wrong has a status of its own and a message with names and numbers. The last argument
 * is a file that holds the first half of the checkpoint. */
#include "check.h"
#include <stddef.h>

static void mentions(const sae_error *error, const char *text) {
    if (strstr(error->message, text) == NULL) {
        fprintf(stderr, "message lacks `%s`: %s\n", text, error->message);
        exit(1);
    }
    CHECK(error->message_length < sizeof error->message
              ? strlen(error->message) == error->message_length
              : strstr(error->message, " ... ") != NULL);
}

int main(int argc, char **argv) {
    CHECK(argc == 4);
    sae_error error;
    sae_model *model = (sae_model *)&error;

    /* Files. */
    CHECK_STATUS(SAE_STATUS_IO, sae_model_open("no/such/file.safetensors", NULL, &model, &error));
    CHECK(model == NULL);
    mentions(&error, "no/such/file.safetensors");
    char long_path[1024];
    memset(long_path, 'x', sizeof long_path);
    for (size_t i = 100; i < sizeof long_path; i += 100) long_path[i] = '/';
    memcpy(long_path, "beginning", 9);
    long_path[sizeof long_path - 1] = 0;
    CHECK_STATUS(SAE_STATUS_IO, sae_model_open(long_path, NULL, &model, &error));
    mentions(&error, "beginning");
    mentions(&error, "No such file");
    CHECK(error.message_length > 1000);
    CHECK(strlen(error.message) <= 255);
    CHECK_STATUS(SAE_STATUS_TRUNCATED, sae_model_open(argv[3], NULL, &model, &error));
    mentions(&error, "half");
    CHECK(sae_model_open("", NULL, &model, &error) != SAE_STATUS_OK);
    CHECK_STATUS(SAE_STATUS_NOT_A_CHECKPOINT,
                 sae_model_open_memory("what is this?", 13, "odd.bin", NULL, NULL, &model, &error));
    mentions(&error, "odd.bin");
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_open_memory("x", 1, "\xff\xfe", NULL, NULL, &model, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_open_memory("x", 1, "n", "\xff\xfe", NULL, &model, &error));
    CHECK_STATUS(SAE_STATUS_MALFORMED,
                 sae_model_open_memory("x", 1, "n", "{not json", NULL, &model, &error));

    /* Options. */
    sae_open_options options = SAE_OPEN_OPTIONS_INIT;
    CHECK_OK(sae_model_open(argv[1], &options, &model, &error));
    sae_model_close(model);
    options.struct_size = 0;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_open(argv[1], &options, &model, &error));
    mentions(&error, "struct_size");
    options.struct_size = (uint32_t)offsetof(sae_open_options, screen) - 1;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_open(argv[1], &options, &model, &error));
    options.struct_size = 0xffffffffu;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_open(argv[1], &options, &model, &error));
    struct {
        sae_open_options known;
        uint64_t later;
    } newer = {SAE_OPEN_OPTIONS_INIT, 0};
    newer.known.struct_size = (uint32_t)sizeof newer;
    CHECK_OK(sae_model_open(argv[1], &newer.known, &model, &error));
    sae_model_close(model);
    newer.later = 1;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_open(argv[1], &newer.known, &model, &error));
    CHECK(model == NULL);

    /* The struct as it was before it had a screen. */
    options = (sae_open_options)SAE_OPEN_OPTIONS_INIT;
    options.struct_size = (uint32_t)offsetof(sae_open_options, screen);
    CHECK_OK(sae_model_open(argv[1], &options, &model, &error));
    sae_model_close(model);

    options = (sae_open_options)SAE_OPEN_OPTIONS_INIT;
    options.screen = "blurred";
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_open(argv[1], &options, &model, &error));
    mentions(&error, "blurred");
    options.screen = "dithered";
    options.screen_delta_exponent = 1001;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_open(argv[1], &options, &model, &error));
    mentions(&error, "1001");
    options.screen_delta_exponent = 40;
    options.screen_check = 2;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_open(argv[1], &options, &model, &error));
    mentions(&error, "screen_check");
    options.screen_check = 1;
    CHECK_OK(sae_model_open(argv[1], &options, &model, &error));
    CHECK_OK(sae_model_prepare(model, &error));
    sae_model_close(model);

    options = (sae_open_options)SAE_OPEN_OPTIONS_INIT;
    options.check = 77;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_open(argv[1], &options, &model, &error));
    mentions(&error, "77");
    options.check = SAE_CHECK_FULL;
    options.strict = 2;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_open(argv[1], &options, &model, &error));
    options.strict = 0;
    options.reserved = 1;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_open(argv[1], &options, &model, &error));
    options.reserved = 0;
    options.level = "mmx";
    CHECK_STATUS(SAE_STATUS_LEVEL_UNAVAILABLE, sae_model_open(argv[1], &options, &model, &error));
    mentions(&error, "mmx");
    mentions(&error, "scalar");
    options.level = "scalar";
    CHECK_OK(sae_model_open(argv[1], &options, &model, &error));
    CHECK(strcmp(sae_model_level(model), "scalar") == 0);
    sae_model_close(model);
    options.level = NULL;
    const char *settings[1] = {"no equals sign"};
    options.settings = settings;
    options.n_settings = 1;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_open(argv[1], &options, &model, &error));
    mentions(&error, "no equals sign");
    for (size_t i = 0; sae_level_name(i) != NULL; i++) {
        options.level = sae_level_name(i);
        options.n_settings = 0;
        CHECK_OK(sae_model_open(argv[1], &options, &model, &error));
        CHECK(strcmp(sae_model_level(model), sae_level_name(i)) == 0);
        sae_model_close(model);
    }

    /* Handles of the wrong kind. */
    sae_scratch *scratch = NULL;
    sae_features *features = NULL;
    sae_set *set = NULL;
    CHECK_OK(sae_model_open(argv[1], NULL, &model, &error));
    CHECK_OK(sae_scratch_create(model, &scratch, &error));
    CHECK_OK(sae_features_create(0, 0, &features, &error));
    uint32_t first = 0;
    CHECK_OK(sae_set_compile(model, &first, 1, &set, &error));
    sae_rows rows = read_rows(argv[2], model);
    float *values = malloc(rows.n_rows * sizeof(float));
    CHECK(values != NULL);
    sae_model *not_model = (sae_model *)(void *)scratch;
    sae_scratch *not_scratch = (sae_scratch *)(void *)features;
    sae_features *not_features = (sae_features *)(void *)set;
    sae_set *not_set = (sae_set *)(void *)model;
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE,
                 sae_model_encode(not_model, &rows, scratch, features, &error));
    mentions(&error, "sae_model");
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE,
                 sae_model_encode(model, &rows, not_scratch, features, &error));
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE,
                 sae_model_encode(model, &rows, scratch, not_features, &error));
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE, sae_model_readout(model, not_set, &rows, scratch, values,
                                                            rows.n_rows, NULL, &error));
    char stack[64] = {0};
    sae_model *misaligned = (sae_model *)(void *)(stack + ((uintptr_t)stack % 2 == 0));
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE,
                 sae_model_encode(misaligned, &rows, scratch, features, &error));
    CHECK(sae_model_d_in(not_model) == 0);
    CHECK(sae_set_count(not_set) == 0);
    CHECK(sae_features_n_rows(not_features) == 0);
    CHECK(strcmp(sae_model_level(not_model), "") == 0);
    sae_model_close(not_model);
    sae_scratch_destroy(not_scratch);
    sae_features_destroy(not_features);
    sae_set_destroy(not_set);
    CHECK_OK(sae_model_encode(model, &rows, scratch, features, &error));

    /* Features out of range, rows out of range, sets of another model. */
    uint32_t d_sae = (uint32_t)sae_model_d_sae(model);
    uint32_t outside[3] = {0, d_sae, d_sae + 5};
    sae_set *no_set = NULL;
    CHECK_STATUS(SAE_STATUS_FEATURE_OUT_OF_RANGE,
                 sae_set_compile(model, outside, 3, &no_set, &error));
    char number[16];
    snprintf(number, sizeof number, "%u", (unsigned)d_sae);
    mentions(&error, number);
    CHECK_STATUS(SAE_STATUS_FEATURE_OUT_OF_RANGE,
                 sae_model_readout_one(model, d_sae, &rows, scratch, values, rows.n_rows, NULL,
                                       &error));
    sae_row_features fired;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_features_row(features, rows.n_rows, &fired, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_features_row(features, (size_t)-1, &fired, &error));
    sae_model *other = NULL;
    CHECK_OK(sae_model_open(argv[1], NULL, &other, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_readout(other, set, &rows, scratch, values,
                                                                rows.n_rows, NULL, &error));
    sae_model_close(other);

    /* Features made by hand. */
    const uint32_t unsorted[3] = {1, 5, 5};
    const float ones[3] = {1, 1, 1};
    CHECK_OK(sae_features_clear(features, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_features_append_row(features, unsorted, ones, 3, &error));
    CHECK(sae_features_n_rows(features) == 0 && sae_features_count(features) == 0);
    CHECK_OK(sae_features_append_row(features, outside, ones, 2, &error));
    size_t d_out = sae_model_d_out(model);
    float *out = malloc(d_out * sizeof(float));
    CHECK(out != NULL);
    sae_rows one = rows;
    one.n_rows = 1;
    CHECK_STATUS(SAE_STATUS_FEATURE_OUT_OF_RANGE,
                 sae_model_decode(model, features, &one, scratch, out, d_out, &error));
    CHECK_STATUS(SAE_STATUS_OUT_OF_MEMORY,
                 sae_features_create((size_t)-1, 0, (sae_features **)&not_features, &error));

    /* A row that is not finite: a status of its own, and the others go on. */
    float *spoilt = malloc(2 * rows.width * sizeof(float));
    CHECK(spoilt != NULL);
    memcpy(spoilt, rows.data, rows.width * sizeof(float));
    memcpy(spoilt + rows.width, rows.data, rows.width * sizeof(float));
    uint32_t nan_bits = 0x7fc00000u;
    memcpy(spoilt + 1, &nan_bits, 4);
    sae_rows two = {spoilt, SAE_DTYPE_F32, 0, 2, rows.width, 0};
    CHECK_OK(sae_model_encode(model, &two, scratch, features, &error));
    CHECK(sae_features_failed_rows(features) == 1);
    CHECK_OK(sae_features_row(features, 0, &fired, &error));
    CHECK(fired.status == SAE_ROW_NON_FINITE && fired.count == 0);
    CHECK_OK(sae_features_row(features, 1, &fired, &error));
    CHECK(fired.status == SAE_ROW_OK && fired.count > 0);
    sae_row_status status[2] = {9, 9};
    float read[2] = {9, 9};
    CHECK_OK(sae_model_readout(model, set, &two, scratch, read, 2, status, &error));
    CHECK(status[0] == SAE_ROW_NON_FINITE && status[1] == SAE_ROW_OK && read[0] == 0);

    /* Every status has a text of its own. */
    for (sae_status a = 0; a <= SAE_STATUS_DEVICE; a++) {
        CHECK(strcmp(sae_status_text(a), sae_status_text(12345)) != 0);
        for (sae_status b = 0; b < a; b++)
            CHECK(strcmp(sae_status_text(a), sae_status_text(b)) != 0);
    }

    free(spoilt);
    free(out);
    free(values);
    free((void *)rows.data);
    sae_set_destroy(set);
    sae_features_destroy(features);
    sae_scratch_destroy(scratch);
    sae_model_close(model);
    return 0;
}
