/* Encoding on a GPU from C: the bits of the CPU, waited for and started; what the functions do with
 * NULL, with the wrong handle and after the device is gone. Ends with 77 where no adapter is. */
#include "check.h"
#include "sae_gpu.h"

#include <assert.h>
#include <stddef.h>

#define P sizeof(void *)
static_assert(offsetof(sae_gpu_options, struct_size) == 0, "sae_gpu_options");
static_assert(offsetof(sae_gpu_options, power) == 4, "sae_gpu_options");
static_assert(offsetof(sae_gpu_options, software) == 8, "sae_gpu_options");
static_assert(offsetof(sae_gpu_options, reserved) == 12, "sae_gpu_options");
static_assert(offsetof(sae_gpu_options, most_binding_bytes) == 16, "sae_gpu_options");
static_assert(offsetof(sae_gpu_options, name) == 24, "sae_gpu_options");

static void same(const sae_features *a, const sae_features *b) {
    sae_error error;
    CHECK(sae_features_n_rows(a) == sae_features_n_rows(b));
    CHECK(sae_features_count(a) == sae_features_count(b));
    for (size_t row = 0; row < sae_features_n_rows(a); row++) {
        sae_row_features x, y;
        CHECK_OK(sae_features_row(a, row, &x, &error));
        CHECK_OK(sae_features_row(b, row, &y, &error));
        CHECK(x.count == y.count && x.status == y.status);
        CHECK(x.count == 0 || memcmp(x.indices, y.indices, x.count * sizeof(uint32_t)) == 0);
        CHECK(x.count == 0 || memcmp(x.values, y.values, x.count * sizeof(float)) == 0);
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    sae_error error;
    sae_gpu_device *device = NULL;
    sae_gpu_options options = SAE_GPU_OPTIONS_INIT;
    options.software = 1;
    options.name = "no such adapter";
    CHECK_STATUS(SAE_STATUS_NO_ADAPTER, sae_gpu_device_open(&options, &device, &error));
    CHECK(device == NULL && strstr(error.message, "no such adapter") != NULL);
    options.name = NULL;
    options.power = 7;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_gpu_device_open(&options, &device, &error));
    options.power = SAE_GPU_POWER_LOW;
    options.struct_size = 4;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_gpu_device_open(&options, &device, &error));
    options.struct_size = (uint32_t)sizeof(options);
    sae_status opened = sae_gpu_device_open(&options, &device, &error);
    if (opened == SAE_STATUS_NO_ADAPTER) {
        printf("%s\n", error.message);
        return 77;
    }
    CHECK(opened == SAE_STATUS_OK);
    printf("on %s\n", sae_gpu_device_name(device));
    CHECK(sae_gpu_device_name(device)[0] != 0);

    sae_model *model = NULL;
    sae_scratch *scratch = NULL;
    sae_features *expected = NULL, *features = NULL, *amounts = NULL;
    sae_gpu_encoder *encoder = NULL;
    sae_gpu_stream *stream = NULL;
    sae_gpu_directions *decoder = NULL, *directions = NULL;
    CHECK_OK(sae_model_open(argv[1], NULL, &model, &error));
    CHECK_OK(sae_scratch_create(model, &scratch, &error));
    CHECK_OK(sae_features_create(0, 0, &expected, &error));
    CHECK_OK(sae_features_create(0, 0, &features, &error));
    sae_rows rows = read_rows(argv[2], model);
    CHECK_OK(sae_model_encode(model, &rows, scratch, expected, &error));
    CHECK(sae_features_count(expected) > 0);

    /* The bits of the CPU, in both formats, waited for and started. */
    for (sae_gpu_format format = 0; format <= SAE_GPU_FORMAT_INT8; format++) {
        const sae_rows *centre = format == 0 ? NULL : &rows;
        CHECK_OK(sae_gpu_encoder_create(model, device, format, centre, &encoder, &error));
        CHECK(sae_gpu_encoder_device_bytes(encoder) > 0);
        CHECK(sae_gpu_encoder_host_bytes(encoder) > 0);
        CHECK_OK(sae_gpu_stream_create(encoder, SAE_GPU_MODE_EXACT, 0, &stream, &error));
        CHECK(sae_gpu_stream_n_rows(stream) >= rows.n_rows);
        CHECK_OK(sae_gpu_encode(model, encoder, &rows, stream, scratch, features, &error));
        same(features, expected);
        int ready = 9;
        CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                     sae_gpu_encode_ready(encoder, stream, &ready, &error));
        CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                     sae_gpu_encode_finish(model, encoder, stream, scratch, features, &error));
        CHECK_OK(sae_gpu_encode_start(model, encoder, &rows, stream, scratch, &error));
        for (ready = 0; !ready;) CHECK_OK(sae_gpu_encode_ready(encoder, stream, &ready, &error));
        CHECK_OK(sae_gpu_encode_finish(model, encoder, stream, scratch, features, &error));
        same(features, expected);
        sae_gpu_stream_destroy(stream);
        CHECK_OK(sae_gpu_stream_create(encoder, SAE_GPU_MODE_FAST, 3, &stream, &error));
        CHECK(sae_gpu_stream_n_rows(stream) == 3);
        CHECK_OK(sae_gpu_encode(model, encoder, &rows, stream, scratch, features, &error));
        CHECK(sae_features_n_rows(features) == rows.n_rows);
        sae_gpu_stream_destroy(stream);
        if (format == 0) sae_gpu_encoder_destroy(encoder);
    }
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_gpu_stream_create(encoder, 5, 0, &stream, &error));
    CHECK(stream == NULL);
    CHECK_OK(sae_gpu_stream_create(encoder, SAE_GPU_MODE_EXACT, 0, &stream, &error));

    /* Sums are near the exact ones. */
    size_t d_out = sae_model_d_out(model), n_out = rows.n_rows * d_out;
    float *exact = malloc(n_out * sizeof(float)), *near = malloc(n_out * sizeof(float));
    CHECK(exact != NULL && near != NULL);
    CHECK_OK(sae_model_decode(model, expected, &rows, scratch, exact, n_out, &error));
    CHECK_OK(sae_gpu_decoder_create(model, device, &decoder, &error));
    CHECK_OK(sae_gpu_decode(model, decoder, expected, &rows, scratch, near, n_out, &error));
    for (size_t i = 0; i < n_out; i++) {
        float far = exact[i] - near[i];
        CHECK((far < 0 ? -far : far) < 1e-3f);
    }
    CHECK_STATUS(SAE_STATUS_LENGTH, sae_gpu_decode(model, decoder, expected, &rows, scratch, near,
                                                   n_out - 1, &error));
    float vectors[6] = {1, 0, 0, 0, 2, 0}, edited[6] = {1, 1, 1, 5, 6, 7};
    CHECK_OK(sae_gpu_directions_create(device, vectors, 2, 3, &directions, &error));
    CHECK_OK(sae_features_create(0, 0, &amounts, &error));
    uint32_t both[2] = {0, 1};
    float half[2] = {0.5f, 0.25f};
    CHECK_OK(sae_features_append_row(amounts, both, half, 2, &error));
    CHECK_OK(sae_features_append_row(amounts, both, half, 0, &error));
    sae_rows_mut change = {edited, SAE_DTYPE_F32, 0, 2, 3, 0};
    CHECK_OK(sae_gpu_add_directions(directions, amounts, &change, &error));
    CHECK(edited[0] == 1.5f && edited[1] == 1.5f && edited[2] == 1 && edited[3] == 5);
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_gpu_decode(model, directions, expected, &rows, scratch, near, n_out, &error));

    /* NULL, and handles of another kind. */
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT, sae_gpu_device_open(NULL, NULL, &error));
    CHECK(sae_gpu_device_name(NULL)[0] == 0);
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT, sae_gpu_device_give_up(NULL, &error));
    sae_gpu_device_close(NULL);
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                 sae_gpu_encoder_create(NULL, device, 0, NULL, &(sae_gpu_encoder *){0}, &error));
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE,
                 sae_gpu_encoder_create(model, (const sae_gpu_device *)(const void *)model, 0, NULL,
                                        &(sae_gpu_encoder *){0}, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_gpu_encoder_create(model, device, 2, NULL, &(sae_gpu_encoder *){0}, &error));
    CHECK(sae_gpu_encoder_device_bytes(NULL) == 0 && sae_gpu_encoder_host_bytes(NULL) == 0);
    sae_gpu_encoder_destroy(NULL);
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT, sae_gpu_stream_create(encoder, 0, 0, NULL, &error));
    CHECK(sae_gpu_stream_n_rows(NULL) == 0);
    sae_gpu_stream_destroy(NULL);
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                 sae_gpu_encode(model, encoder, NULL, stream, scratch, features, &error));
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                 sae_gpu_encode_start(model, NULL, &rows, stream, scratch, &error));
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT, sae_gpu_encode_ready(encoder, stream, NULL, &error));
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                 sae_gpu_encode_finish(model, encoder, NULL, scratch, features, &error));
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT, sae_gpu_decoder_create(model, device, NULL, &error));
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                 sae_gpu_directions_create(device, NULL, 2, 3, &(sae_gpu_directions *){0}, &error));
    CHECK_STATUS(
        SAE_STATUS_INVALID_ARGUMENT,
        sae_gpu_directions_create(device, vectors, (size_t)-1, 3, &(sae_gpu_directions *){0}, &error));
    sae_gpu_directions_destroy(NULL);
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                 sae_gpu_decode(model, NULL, expected, &rows, scratch, near, n_out, &error));
    CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT,
                 sae_gpu_add_directions(directions, amounts, NULL, &error));

    /* Without the device: errors, no features, and the CPU goes on. */
    CHECK_OK(sae_gpu_encode_start(model, encoder, &rows, stream, scratch, &error));
    CHECK_OK(sae_gpu_device_give_up(device, &error));
    CHECK_STATUS(SAE_STATUS_DEVICE,
                 sae_gpu_encode_finish(model, encoder, stream, scratch, features, &error));
    CHECK(strstr(error.message, sae_gpu_device_name(device)) != NULL);
    CHECK(sae_features_n_rows(features) == 0);
    CHECK_STATUS(SAE_STATUS_DEVICE,
                 sae_gpu_encode(model, encoder, &rows, stream, scratch, features, &error));
    CHECK_STATUS(SAE_STATUS_DEVICE,
                 sae_gpu_decode(model, decoder, expected, &rows, scratch, near, n_out, &error));
    CHECK_STATUS(SAE_STATUS_DEVICE, sae_gpu_add_directions(directions, amounts, &change, &error));
    CHECK_OK(sae_model_encode(model, &rows, scratch, features, &error));
    same(features, expected);

    sae_gpu_device_close(device);
    sae_gpu_stream_destroy(stream);
    sae_gpu_encoder_destroy(encoder);
    sae_gpu_directions_destroy(directions);
    sae_gpu_directions_destroy(decoder);
    sae_features_destroy(amounts);
    sae_features_destroy(features);
    sae_features_destroy(expected);
    sae_scratch_destroy(scratch);
    sae_model_close(model);
    free(exact);
    free(near);
    free((void *)rows.data);
    return 0;
}
