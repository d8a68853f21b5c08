/*
 * sae_gpu.h - encoding on a GPU, with the bits of the CPU: Vulkan, Metal and DirectX 12, through
 * wgpu. Only in libraries that were built with it (`cargo build -p sae-ffi --features wgpu`).
 *
 * The device says which features the host has to look at; the host computes those from its own
 * weights. So `sae_gpu_encode` gives what `sae_model_encode` gives, on every device; only the time
 * differs. Sums (`sae_gpu_decode`, `sae_gpu_add_directions`) are the device's own, in f32, within
 * a bound that the Rust documentation of `sae::gpu` states; the exact ones are `sae_model_decode`
 * and the plans of sae_steer.h.
 *
 * Every failure of a device is SAE_STATUS_NO_ADAPTER, SAE_STATUS_DEVICE or
 * SAE_STATUS_OUT_OF_MEMORY, with the adapter's name in the message. The model goes on on the CPU
 * after any of them.
 *
 * Close and destroy in any order: a device lives as long as what was uploaded to it.
 *
 * The rules of sae.h hold here too: order of arguments, errors, threads. Devices and encoders may be
 * used by any number of threads at once, streams and directions by one call at a time. These
 * functions allocate, and drivers start threads.
 */
#ifndef SAE_GPU_H
#define SAE_GPU_H

#include "sae.h"
#include "sae_steer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* An open device. */
typedef struct sae_gpu_device sae_gpu_device;

/* A model's encoder on a device. */
typedef struct sae_gpu_encoder sae_gpu_encoder;

/* The work space of one stream of batches. */
typedef struct sae_gpu_stream sae_gpu_stream;

/* Vectors on a device: a model's decoder, or directions of the host. */
typedef struct sae_gpu_directions sae_gpu_directions;

/* Which kind of adapter comes first where several are there. */
typedef int32_t sae_gpu_power;

enum {
    /* Discrete GPUs. */
    SAE_GPU_POWER_HIGH = 0,
    /* Integrated GPUs. */
    SAE_GPU_POWER_LOW = 1
};

/* How a device holds an encoder's weights. */
typedef int32_t sae_gpu_format;

enum {
    /* As they are stored: f32, f16 or bf16. */
    SAE_GPU_FORMAT_STORED = 0,
    /* In eight bits: fewer bytes, and more features that the host looks at. */
    SAE_GPU_FORMAT_INT8 = 1
};

/* Whether the host computes what the device found. */
typedef int32_t sae_gpu_mode;

enum {
    /* The bits of `sae_model_encode`. */
    SAE_GPU_MODE_EXACT = 0,
    /* The device's own estimates: values within a bound of the exact ones, and features near a
     * threshold or the k-th rank may differ. */
    SAE_GPU_MODE_FAST = 1
};

/* Which adapter a device is opened on. May grow at the end. */
typedef struct sae_gpu_options {
    /* sizeof(sae_gpu_options). */
    uint32_t struct_size;
    /* Which kind comes first. */
    sae_gpu_power power;
    /* 1: a renderer that runs on the CPU will do, if there is nothing else. Else 0. */
    uint32_t software;
    /* 0. */
    uint32_t reserved;
    /* The most bytes of one binding; 0 for as many as the adapter allows. */
    uint64_t most_binding_bytes;
    /* Only adapters whose name holds this, in any case; NULL for any. */
    const char *name;
} sae_gpu_options;

/* Any adapter but those that run on the CPU, to initialise a variable with. */
#define SAE_GPU_OPTIONS_INIT {(uint32_t)sizeof(sae_gpu_options), 0, 0, 0, 0, NULL}

/* Opens a device.
 *   options  NULL for SAE_GPU_OPTIONS_INIT.
 *   device   receives the handle; release it with `sae_gpu_device_close`.
 *   error    may be NULL.
 * SAE_STATUS_NO_ADAPTER if there is none, or if it lacks something: the message names the adapters,
 * or the adapter and the limit. Any thread. */
SAE_API sae_status sae_gpu_device_open(const sae_gpu_options *options, sae_gpu_device **device,
                                       sae_error *error);

/* The name of the device's adapter, which lives as long as the handle; "" for NULL. Any thread. */
SAE_API const char *sae_gpu_device_name(const sae_gpu_device *device);

/* Gives the device up, with everything that was uploaded to it: calls that use it fail with
 * SAE_STATUS_DEVICE from here on.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_gpu_device_give_up(const sae_gpu_device *device, sae_error *error);

/* Closes a handle of a device. NULL does nothing. */
SAE_API void sae_gpu_device_close(sae_gpu_device *device);

/* Uploads a model's encoder, once for all batches.
 *   device   where to.
 *   format   how the device holds the weights.
 *   centre   rows as they will be encoded, about whose mean the bounds are formed: never another
 *            result, and less to do for the host; NULL for none.
 *   encoder  receives the handle; release it with `sae_gpu_encoder_destroy`.
 *   error    may be NULL.
 * SAE_STATUS_UNSUPPORTED for rules without a screen (see `sae_model_describe`). Any thread. */
SAE_API sae_status sae_gpu_encoder_create(const sae_model *model, const sae_gpu_device *device,
                                          sae_gpu_format format, const sae_rows *centre,
                                          sae_gpu_encoder **encoder, sae_error *error);

/* Bytes on the device; 0 for NULL. Any thread. */
SAE_API uint64_t sae_gpu_encoder_device_bytes(const sae_gpu_encoder *encoder);

/* Bytes of encoder weights that the host keeps, because every value comes from them; 0 for NULL. Any
 * thread. */
SAE_API uint64_t sae_gpu_encoder_host_bytes(const sae_gpu_encoder *encoder);

/* Destroys an encoder. NULL does nothing. */
SAE_API void sae_gpu_encoder_destroy(sae_gpu_encoder *encoder);

/* Makes the work space of a stream of batches.
 *   mode     whether the host computes what the device found.
 *   n_rows   rows that go to the device at once; 0 for 512. Fewer where bindings are small.
 *   stream   receives the handle; release it with `sae_gpu_stream_destroy`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_gpu_stream_create(const sae_gpu_encoder *encoder, sae_gpu_mode mode,
                                         size_t n_rows, sae_gpu_stream **stream,
                                         sae_error *error);

/* Rows that go to the device at once; 0 for NULL. */
SAE_API size_t sae_gpu_stream_n_rows(const sae_gpu_stream *stream);

/* Destroys a stream. NULL does nothing. */
SAE_API void sae_gpu_stream_destroy(sae_gpu_stream *stream);

/* Encodes any number of rows; waits for the device.
 *   model    whose encoder was uploaded.
 *   encoder  the upload.
 *   rows     as for `sae_model_encode`.
 *   stream   of this encoder.
 *   scratch  of this model.
 *   features receives the features; what was there is replaced. Empty after an error.
 *   error    may be NULL.
 * SAE_STATUS_INVALID_ARGUMENT for a model or a stream of another upload. Any thread; stream, scratch
 * and features are for this call alone. */
SAE_API sae_status sae_gpu_encode(const sae_model *model, const sae_gpu_encoder *encoder,
                                  const sae_rows *rows, sae_gpu_stream *stream,
                                  sae_scratch *scratch, sae_features *features,
                                  sae_error *error);

/* Sends one batch to the device and returns at once; `sae_gpu_encode_finish` takes it. The rows may
 * be freed after the call. A batch that was started and not finished is given up.
 *   model    whose encoder was uploaded.
 *   encoder  the upload.
 *   rows     at most `sae_gpu_stream_n_rows`.
 *   stream   of this encoder.
 *   scratch  of this model.
 *   error    may be NULL.
 * Any thread; stream and scratch are for this call alone. */
SAE_API sae_status sae_gpu_encode_start(const sae_model *model, const sae_gpu_encoder *encoder,
                                        const sae_rows *rows, sae_gpu_stream *stream,
                                        sae_scratch *scratch, sae_error *error);

/* Whether the batch that was started can be finished without waiting for the device.
 *   encoder  the upload.
 *   stream   with a batch that was started.
 *   ready    receives 1 or 0.
 *   error    may be NULL.
 * Any thread; the stream is for this call alone. */
SAE_API sae_status sae_gpu_encode_ready(const sae_gpu_encoder *encoder,
                                        const sae_gpu_stream *stream, int *ready,
                                        sae_error *error);

/* Takes the batch that was started; waits for it if need be.
 *   model    whose encoder was uploaded.
 *   encoder  the upload.
 *   stream   with a batch that was started.
 *   scratch  of this model.
 *   features receives the features; what was there is replaced. Empty after an error.
 *   error    may be NULL.
 * Any thread; stream, scratch and features are for this call alone. */
SAE_API sae_status sae_gpu_encode_finish(const sae_model *model, const sae_gpu_encoder *encoder,
                                         sae_gpu_stream *stream, sae_scratch *scratch,
                                         sae_features *features, sae_error *error);

/* Uploads a model's decoder, for `sae_gpu_decode`.
 *   device      where to.
 *   directions  receives the handle; release it with `sae_gpu_directions_destroy`.
 *   error       may be NULL.
 * Any thread. */
SAE_API sae_status sae_gpu_decoder_create(const sae_model *model, const sae_gpu_device *device,
                                          sae_gpu_directions **directions, sae_error *error);

/* Uploads vectors of the host, for `sae_gpu_add_directions`.
 *   device      where to.
 *   vectors     `n_vectors` times `width` values, one vector after the other; they are copied.
 *   directions  receives the handle; release it with `sae_gpu_directions_destroy`.
 *   error       may be NULL.
 * Any thread. */
SAE_API sae_status sae_gpu_directions_create(const sae_gpu_device *device, const float *vectors,
                                             size_t n_vectors, size_t width,
                                             sae_gpu_directions **directions, sae_error *error);

/* Destroys directions, or a decoder. NULL does nothing. */
SAE_API void sae_gpu_directions_destroy(sae_gpu_directions *directions);

/* As `sae_model_decode`, with the device's sums of the decoder's vectors.
 *   model       whose decoder was uploaded.
 *   directions  the upload.
 *   features    of every row.
 *   inputs      the encoded rows, where decoding needs them; else ignored.
 *   scratch     of this model.
 *   out, n_out  receive the rows, d_out values each; n_out must be exactly n_rows * d_out.
 *   error       may be NULL.
 * Any thread; directions and scratch are for this call alone. */
SAE_API sae_status sae_gpu_decode(const sae_model *model, sae_gpu_directions *directions,
                                  const sae_features *features, const sae_rows *inputs,
                                  sae_scratch *scratch, float *out, size_t n_out,
                                  sae_error *error);

/* Adds to every row its entries of `amounts`: indices of vectors, with what each is multiplied by.
 * Rows without entries, and rows that are not finite or would not be, stay as they are.
 *   amounts  one row for each row; `sae_features_append_row` makes them.
 *   rows     are changed in place.
 *   error    may be NULL.
 * Any thread; the directions are for this call alone. */
SAE_API sae_status sae_gpu_add_directions(sae_gpu_directions *directions,
                                          const sae_features *amounts, const sae_rows_mut *rows,
                                          sae_error *error);

#ifdef __cplusplus
}
#endif

#endif
