/*
 * sae.h - sparse-autoencoder (SAE) inference on the CPU: the C interface of libsae.
 *
 * A published SAE checkpoint is opened as it was downloaded and mapped, not read. Three verbs
 * work on rows of activations (one row = one token, or one image patch):
 *
 *     encode   rows  ->  the features that fire, sparse, with their values
 *     decode   features  ->  reconstructed rows
 *     readout  rows  ->  the values of a few chosen features, dense
 *
 * The same rows give the same bits on every machine, instruction set and number of threads.
 *
 * How every function behaves
 *   - Arguments come in the order: the object, inputs, outputs, error.
 *   - A function that can fail returns a `sae_status`; 0 is success. Details go to an optional
 *     `sae_error` of the caller (NULL if not wanted). Nothing is printed.
 *   - On failure, a handle output is set to NULL; other outputs hold unspecified values.
 *   - NULL is an error (SAE_STATUS_NULL_ARGUMENT), not a crash, wherever the comment does not
 *     allow it. An array may be NULL if its count is 0. Closing or destroying NULL does nothing.
 *   - A handle of another kind is an error (SAE_STATUS_WRONG_HANDLE). A handle that was closed or
 *     destroyed must not be used again, as with free().
 *   - Strings are UTF-8 and end with a zero byte. Those that come in are copied where needed and
 *     may be freed after the call.
 *   - The floating-point modes of the calling thread (rounding, flush-to-zero, denormals-are-zero,
 *     exception masks and flags) neither matter nor change.
 *
 * Threads
 *   A `sae_model` and a `sae_set` are immutable: any number of threads may use them at once. The
 *   exceptions are `sae_model_prepare` and closing, which need the model to themselves. A
 *   `sae_scratch` and a `sae_features` belong to one call at a time; two threads that pass the
 *   same one at once get SAE_STATUS_IN_USE. The library starts no threads and takes no locks.
 *
 * Memory
 *   encode, decode and readout allocate nothing once the scratch exists and the features handle
 *   has grown to the size that the rows need.
 *
 * How this header grows
 *   Numbers of enumerators never change and are never reused. Functions are only added. Structs
 *   that begin with `struct_size` may grow at the end: the caller stores the size it was compiled
 *   with, so old programs run with new libraries. A program built against a newer header gets
 *   SAE_STATUS_INVALID_ARGUMENT from an older library if it uses a field that is not known there.
 *   All other structs keep their layout.
 */
#ifndef SAE_H
#define SAE_H

#include <stddef.h>
#include <stdint.h>

/* Programs that use a library whose functions have a prefix (SAE_SYMBOL_PREFIX of the CMake build)
 * define SAE_PREFIXED. */
#ifdef SAE_PREFIXED
#include "sae_prefix.h"
#endif

/* Marks what the library exports. Windows programs that link the DLL define SAE_SHARED. */
#ifndef SAE_API
#if defined(_WIN32) && defined(SAE_SHARED)
#define SAE_API __declspec(dllimport)
#else
#define SAE_API
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------ */
/* Version                                                                                     */
/* ------------------------------------------------------------------------------------------ */

/* The version of this header. */
#define SAE_VERSION_MAJOR 0
#define SAE_VERSION_MINOR 1
#define SAE_VERSION_PATCH 0
#define SAE_VERSION "0.1.0"

/* The version as one number that can be compared: 0x00MMmmpp. */
#define SAE_VERSION_NUMBER 0x000100

/* Counts incompatible changes of this interface. Additions do not change it. */
#define SAE_ABI_VERSION 1

/* The version of the library that runs, "major.minor.patch". Any thread. */
SAE_API const char *sae_version(void);

/* The SAE_ABI_VERSION of the library that runs. A program that loads the library at run time
 * compares it with the macro. Any thread. */
SAE_API uint32_t sae_abi_version(void);

/* ------------------------------------------------------------------------------------------ */
/* Status and errors                                                                           */
/* ------------------------------------------------------------------------------------------ */

/* The outcome of a call: one of the numbers below. Later versions may return further numbers. */
typedef int32_t sae_status;

enum {
    /* Success. */
    SAE_STATUS_OK = 0,
    /* A pointer is NULL that must not be. */
    SAE_STATUS_NULL_ARGUMENT = 1,
    /* The operating system refused: no such file, no permission, ... */
    SAE_STATUS_IO = 2,
    /* The file is no checkpoint, or of no publisher that the library knows. */
    SAE_STATUS_NOT_A_CHECKPOINT = 3,
    /* The file breaks the rules of its format. */
    SAE_STATUS_MALFORMED = 4,
    /* The file ends early. */
    SAE_STATUS_TRUNCATED = 5,
    /* A checksum in the file does not match its bytes. */
    SAE_STATUS_CORRUPT = 6,
    /* A size goes beyond one of the library's limits. */
    SAE_STATUS_LIMIT = 7,
    /* Valid, but not read by this library: a dtype, a compression, an architecture. */
    SAE_STATUS_UNSUPPORTED = 8,
    /* A pickle that holds more than tensors and plain data. Nothing of it was run. */
    SAE_STATUS_UNSAFE_PICKLE = 9,
    /* A tensor that the model needs is missing. */
    SAE_STATUS_MISSING_TENSOR = 10,
    /* A floating-point tensor that nobody knows: it might change the maths. */
    SAE_STATUS_UNKNOWN_TENSOR = 11,
    /* A tensor has another shape than the model needs. */
    SAE_STATUS_SHAPE = 12,
    /* A value that is not allowed, in a tensor or in the config. */
    SAE_STATUS_INVALID_VALUE = 13,
    /* The config lacks a key that is needed; `settings` can give it. */
    SAE_STATUS_MISSING_KEY = 14,
    /* The config has a key that nobody reads (only under `strict`). */
    SAE_STATUS_UNKNOWN_KEY = 15,
    /* An argument has the wrong length or width. */
    SAE_STATUS_LENGTH = 16,
    /* A feature index is not below d_sae. */
    SAE_STATUS_FEATURE_OUT_OF_RANGE = 17,
    /* An argument is outside its allowed range, misaligned, or overlaps another. */
    SAE_STATUS_INVALID_ARGUMENT = 18,
    /* The CPU, or this build, lacks the level that was asked for. */
    SAE_STATUS_LEVEL_UNAVAILABLE = 19,
    /* Memory could not be had. */
    SAE_STATUS_OUT_OF_MEMORY = 20,
    /* There is no GPU adapter, or it lacks something, or is too small (sae_gpu.h). */
    SAE_STATUS_NO_ADAPTER = 21,
    /* A GPU device failed or was lost (sae_gpu.h). The model goes on on the CPU. */
    SAE_STATUS_DEVICE = 22,
    /* 23 to 29: kept for further kinds of errors. */
    /* The handle is of another kind, or was destroyed. */
    SAE_STATUS_WRONG_HANDLE = 30,
    /* A defect of the library was caught at its boundary. Please report it. */
    SAE_STATUS_PANIC = 31,
    /* The scratch or the features are in use by a call on another thread. */
    SAE_STATUS_IN_USE = 32
};

/* A few words for a status, in English; never NULL. Any thread. */
SAE_API const char *sae_status_text(sae_status status);

/* Where a function that fails writes the details. Needs no initialisation; a call that succeeds
 * stores SAE_STATUS_OK and an empty message. */
typedef struct sae_error {
    /* The status that the function returned. */
    sae_status code;
    /* Length of the whole message in bytes, without the zero byte at the end. More than 255 means
     * that the message did not fit: its middle was replaced by " ... ". */
    uint32_t message_length;
    /* What happened, with the names and numbers: file, tensor, expected, found. */
    char message[256];
} sae_error;

/* ------------------------------------------------------------------------------------------ */
/* Models                                                                                      */
/* ------------------------------------------------------------------------------------------ */

/* An open SAE. Immutable and shared by threads; see "Threads" above. */
typedef struct sae_model sae_model;

/* How much of the weights is checked when a model opens. */
typedef int32_t sae_check;

enum {
    /* Headers, biases, thresholds and scales always; matrices and checksums only in files below
     * 16 MiB. The default. */
    SAE_CHECK_QUICK = 0,
    /* Every value and every checksum: reads the whole file once. */
    SAE_CHECK_FULL = 1
};

/* How to open. All fields but `struct_size` may be zero. */
typedef struct sae_open_options {
    /* sizeof(sae_open_options). */
    uint32_t struct_size;
    /* How much to check. */
    sae_check check;
    /* 1: a config key that no publisher's code reads is an error, not a note. Else 0. */
    uint32_t strict;
    /* 0. */
    uint32_t reserved;
    /* The instruction set to use, one of `sae_level_name`; NULL for the best there is. The level
     * changes the speed, never a result. */
    const char *level;
    /* What the checkpoint does not say, as "key=value" strings, for example "k=50". NULL if
     * `n_settings` is 0. */
    const char *const *settings;
    /* Number of strings in `settings`. */
    size_t n_settings;
    /* Which screen `sae_model_prepare` builds, so that encoding reads a fraction of the weights:
     *   "auto"      a proven one if it pays, else none; so does NULL;
     *   "proven"    a proven one wherever the selection rule allows a screen: what it rules out
     *               cannot fire, for any row;
     *   "dithered"  a smaller one wherever the rule allows a screen: each of its decisions (a
     *               feature, a row) is wrong with a probability of at most
     *               2^-screen_delta_exponent, for rows that were chosen without knowledge of its
     *               seed;
     *   "none"      none.
     * Apart from that, a screen changes the speed and never a result. */
    const char *screen;
    /* For "dithered": 1 to 1000; 0 for 64. */
    uint32_t screen_delta_exponent;
    /* 1: repeat every encode without the screen and compare; a difference is
     * SAE_STATUS_CORRUPT. Slow, and it allocates. Else 0. */
    uint32_t screen_check;
    /* For "dithered": the seed; 0 for one made from the weights. */
    uint64_t screen_seed;
} sae_open_options;

/* The default options, to initialise a variable with. */
#define SAE_OPEN_OPTIONS_INIT {sizeof(sae_open_options), 0, 0, 0, NULL, NULL, 0, NULL, 0, 0, 0}

/* Opens a checkpoint: a file, or the folder that was downloaded. The weights are mapped from the
 * file, which must not be changed or truncated while the model is open.
 *   path     the file or folder.
 *   options  NULL for the defaults.
 *   model    receives the handle; release it with `sae_model_close`.
 *   error    receives the details of a failure; may be NULL.
 * Any thread. SAE_STATUS_UNSUPPORTED in a library that was built without files. */
SAE_API sae_status sae_model_open(const char *path, const sae_open_options *options,
                                  sae_model **model, sae_error *error);

/* Opens a checkpoint from memory: the bytes of one file. They are used in place: they must stay
 * where they are, unchanged, until the model is closed. No alignment is needed.
 *   bytes, n_bytes  the file.
 *   name     the file's name or path, for messages and because some publishers keep facts in the
 *            names of folders; NULL if it has none.
 *   config   the text of the config that lies beside the file (cfg.json); NULL if there is none.
 *   options  NULL for the defaults.
 *   model    receives the handle; release it with `sae_model_close`.
 *   error    receives the details of a failure; may be NULL.
 * Any thread. */
SAE_API sae_status sae_model_open_memory(const void *bytes, size_t n_bytes, const char *name,
                                         const char *config, const sae_open_options *options,
                                         sae_model **model, sae_error *error);

/* Closes a model; NULL does nothing. No call may be using it. Scratches, sets and features made
 * for it stay valid as memory and are destroyed on their own, before or after. */
SAE_API void sae_model_close(sae_model *model);

/* Width of the rows that go in; 0 if `model` is no model. Any thread. */
SAE_API size_t sae_model_d_in(const sae_model *model);

/* Number of features; 0 if `model` is no model. Any thread. */
SAE_API size_t sae_model_d_sae(const sae_model *model);

/* Width of the rows that decoding gives: d_in, or another width for transcoders; 0 if `model` is
 * no model. Any thread. */
SAE_API size_t sae_model_d_out(const sae_model *model);

/* 1 if `sae_model_decode` needs the rows that were encoded (the model normalises its input, or
 * has a skip connection), else 0. Any thread. */
SAE_API int32_t sae_model_decode_needs_inputs(const sae_model *model);

/* Name of the instruction set in use: "scalar", "avx2", ...; "" if `model` is no model. Any
 * thread. */
SAE_API const char *sae_model_level(const sae_model *model);

/* Which text `sae_model_text` returns. */
typedef int32_t sae_text;

enum {
    /* Who stores checkpoints this way, for example "SAELens". */
    SAE_TEXT_PUBLISHER = 0,
    /* The convention by which the file was read, for example "saelens". */
    SAE_TEXT_CONVENTION = 1,
    /* The architecture as the checkpoint names it, for example "jumprelu". */
    SAE_TEXT_ARCHITECTURE = 2,
    /* The activation function. */
    SAE_TEXT_ACTIVATION = 3,
    /* How rows are normalised before the encoder. */
    SAE_TEXT_NORMALIZATION = 4,
    /* Where in the language model the rows come from, for example
     * "blocks.12.hook_resid_post"; "" if the checkpoint does not say. */
    SAE_TEXT_HOOK_NAME = 5,
    /* The language model; "" if the checkpoint does not say. */
    SAE_TEXT_MODEL_NAME = 6,
    /* For transcoders: where the decoded rows belong; "" if the checkpoint does not say. */
    SAE_TEXT_HOOK_NAME_OUT = 7
};

/* One text about the model, valid until the model is closed; "" if there is none, if `item` is
 * unknown, or if `model` is no model. Any thread. */
SAE_API const char *sae_model_text(const sae_model *model, sae_text item);

/* Everything that is known about the model, as JSON text (what `sae inspect --json` prints).
 *   buffer, buffer_size  receives the text with a zero byte at the end; NULL and 0 to ask for the
 *                        size only.
 *   size     receives the bytes needed, with the zero byte; may be NULL.
 *   error    may be NULL.
 * SAE_STATUS_LENGTH if the buffer is too small: then nothing is written to it. Any thread. */
SAE_API sae_status sae_model_describe(const sae_model *model, char *buffer, size_t buffer_size,
                                      size_t *size, sae_error *error);

/* A place in a transformer block. Later versions may know further places. */
typedef int32_t sae_hook_point;

enum {
    /* The checkpoint does not say, or its name means more than one place. */
    SAE_HOOK_UNKNOWN = 0,
    /* The token embedding, before the first block. */
    SAE_HOOK_EMBEDDING = 1,
    /* The residual stream that enters the block. */
    SAE_HOOK_RESID_PRE = 2,
    /* The residual stream between attention and MLP. */
    SAE_HOOK_RESID_MID = 3,
    /* The residual stream that leaves the block. */
    SAE_HOOK_RESID_POST = 4,
    /* All attention heads, concatenated, before the output projection. */
    SAE_HOOK_HEADS = 5,
    /* What attention adds to the residual stream (after a norm behind it, if there is one). */
    SAE_HOOK_ATTN_OUT = 6,
    /* What the MLP reads: the residual stream after the norm before it, its weights applied. */
    SAE_HOOK_MLP_IN = 7,
    /* What the MLP adds to the residual stream (after a norm behind it, if there is one). */
    SAE_HOOK_MLP_OUT = 8
};

/* Reads the name of a hook as publishers write it: "blocks.12.hook_resid_post" of TransformerLens,
 * module paths of Hugging Face ("model.layers.12"), "resid_post_layer_12".
 *   name     the name.
 *   point    receives the place.
 *   layer    receives the number of the block, from 0.
 *   error    may be NULL.
 * Any thread. SAE_STATUS_INVALID_ARGUMENT if the name is not known or means more than one place. */
SAE_API sae_status sae_hook_parse(const char *name, sae_hook_point *point, int32_t *layer,
                                  sae_error *error);

/* Where the rows of a model come from, and what a host must do to them before they fit. The names
 * of the hooks and of the language model are texts: see `sae_text`. */
typedef struct sae_site {
    /* sizeof(sae_site), stored by the caller before the call. */
    uint32_t struct_size;
    /* Whether the training rows came from texts that began with a BOS token: 1 yes, 0 no, -1 the
     * checkpoint does not say. */
    int32_t prepend_bos;
    /* Tokens per training context; 0 if the checkpoint does not say. */
    uint64_t context_size;
    /* 1: subtract its mean from each row first (the language model's weights were centred before
     * training). Else 0. */
    uint32_t mean_center;
    /* 1: a row is the concatenation of all attention heads, before the output projection. */
    uint32_t concatenated_heads;
    /* The place that the hook name means. */
    sae_hook_point point;
    /* Its block, from 0; -1 if `point` is unknown. */
    int32_t layer;
    /* For transcoders: the place where decoded rows belong. Else SAE_HOOK_UNKNOWN. */
    sae_hook_point point_out;
    /* Its block; -1 if `point_out` is unknown. */
    int32_t layer_out;
    /* Whether rows of special tokens (BOS, padding, ..) were left out of training: 1 yes, 0 no, -1
     * the checkpoint does not say. Give such rows SAE_STAGE_SKIPPED. */
    int32_t exclude_special_tokens;
    /* 0. */
    uint32_t reserved;
    /* Rows at positions below this were left out of training: SAE_STAGE_SKIPPED for them too. */
    uint64_t first_position;
    /* What rows of the embedding matrix are multiplied with before they are rows of this site:
     * sqrt(d_in) at the embedding of Gemma models, else 1. */
    double embedding_scale;
} sae_site;

/* Asks what a host must do to its rows.
 *   site     `struct_size` in, the rest out.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_model_site(const sae_model *model, sae_site *site, sae_error *error);

/* What `sae_model_prepare` would cost. */
typedef struct sae_prepare_cost {
    /* sizeof(sae_prepare_cost), stored by the caller before the call. */
    uint32_t struct_size;
    /* 1 if there are weights to copy, else 0. */
    uint32_t needed;
    /* Bytes of memory that the model holds afterwards, beyond the mapped file, the expected bytes
     * of a screen among them. */
    uint64_t bytes;
    /* Bytes that are read from the file meanwhile. */
    uint64_t reads;
} sae_prepare_cost;

/* Asks what `sae_model_prepare` would cost, before it is paid.
 *   cost     `struct_size` in, the rest out.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_model_prepare_cost(const sae_model *model, sae_prepare_cost *cost,
                                          sae_error *error);

/* Makes a copy of the weights that is stored per feature, where the file stores them the other
 * way, and builds a screen (`sae_open_options.screen`). Results stay the same; encoding, decoding
 * and reading single features become faster. On failure the model stays open, with the same
 * results; its weights may be stored per feature then.
 * Needs the model to itself: no other call may use it meanwhile. Scratches and sets that were made
 * before stay usable; a scratch made afterwards has room for the screen. */
SAE_API sae_status sae_model_prepare(sae_model *model, sae_error *error);

/* The instruction sets that this machine and this build have, from the plainest to the best:
 * the name of number `index`, or NULL if there are not so many. Any thread. */
SAE_API const char *sae_level_name(size_t index);

/* ------------------------------------------------------------------------------------------ */
/* Rows                                                                                        */
/* ------------------------------------------------------------------------------------------ */

/* Number format of rows. The numbers are those of ggml_type and of GGUF files. */
typedef int32_t sae_dtype;

enum {
    /* IEEE binary32, `float`. */
    SAE_DTYPE_F32 = 0,
    /* IEEE binary16. */
    SAE_DTYPE_F16 = 1,
    /* bfloat16. */
    SAE_DTYPE_BF16 = 30
};

/* A batch of rows in memory of the caller, which is only read: value j of row r lies at
 * data + r * stride_bytes + j * (bytes per value). No alignment is needed. Nothing between the
 * first and the last value may be written during a call, the gaps between rows included. To process
 * some rows of a batch, or to split it between threads, pass another `data` and `n_rows`. */
typedef struct sae_rows {
    /* The first value of the first row; may be NULL if there are no rows. */
    const void *data;
    /* Format of the values. */
    sae_dtype dtype;
    /* 0. */
    uint32_t reserved;
    /* Number of rows. */
    size_t n_rows;
    /* Values per row; must be the model's d_in. */
    size_t width;
    /* Bytes from one row to the next; 0 if the rows follow each other without gaps. */
    size_t stride_bytes;
} sae_rows;

/* `sae_model_prepare`, with the screen chosen by what it does on rows of the host.
 *   rows     of width d_in, typical ones; 64 of them, evenly spread, are looked at.
 * Otherwise as `sae_model_prepare`. */
SAE_API sae_status sae_model_prepare_with(sae_model *model, const sae_rows *rows,
                                          sae_error *error);

/* The rows that worker `ith` of `nth` takes of a batch: as many for each as can be, in order. For
 * hosts that call on all their threads at once, as in a custom operation of ggml: every worker takes
 * its part, and encodes, reads out or steers it with a scratch of its own. Results do not depend on
 * the split.
 *   rows     the batch; its values are not looked at.
 *   ith, nth  the worker, 0 .. nth - 1, and the number of workers.
 *   part     receives the worker's rows; there may be none.
 *   first    receives the number of its first row in the batch; may be NULL.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_rows_part(const sae_rows *rows, size_t ith, size_t nth, sae_rows *part,
                                 size_t *first, sae_error *error);

/* Where a row stands in its text. */
typedef int32_t sae_stage;

enum {
    /* The host does not say. */
    SAE_STAGE_UNKNOWN = 0,
    /* A token of the prompt. */
    SAE_STAGE_PROMPT = 1,
    /* A generated token. */
    SAE_STAGE_GENERATION = 2,
    /* Left out: no features, no edit. For BOS tokens, padding, rejected drafts. */
    SAE_STAGE_SKIPPED = 3
};

/* For `sae_row_info.plan`: the row is for every plan whose filters it passes. */
#define SAE_ALL_PLANS 0xffffffffu

/* For `sae_row_info.plan`: the row is for no plan. */
#define SAE_NO_PLAN 0xfffffffeu

/* What the host knows about a row besides its values. Start with SAE_ROW_INFO_INIT: with all zero, the
 * row is for plan 0 alone, and `factor` leaves it as it is. */
typedef struct sae_row_info {
    /* Position in its sequence, from 0. */
    uint32_t position;
    /* Prompt, generated, or left out. */
    sae_stage stage;
    /* 1 if it is the last row of its sequence so far, else 0. */
    uint32_t last;
    /* Class of its token, of the host's choosing. */
    uint32_t token_class;
    /* Phase, for example the step of a diffusion. */
    uint32_t phase;
    /* Number of the plan that the row is for, SAE_ALL_PLANS or SAE_NO_PLAN (steering). */
    uint32_t plan;
    /* Its row among the sources (steering). */
    uint32_t source;
    /* The sequence that it belongs to, of the host's choosing. */
    uint32_t stream;
    /* Steering multiplies the change by this: 1, or the value of a mask. 0 leaves the row as it
     * is. */
    double factor;
} sae_row_info;

/* A row of which nothing is known, to initialise a variable with. */
#define SAE_ROW_INFO_INIT {0, 0, 0, 0, 0, SAE_ALL_PLANS, 0, 0, 1.0}

/* What happened to a row. */
typedef uint8_t sae_row_status;

enum {
    /* Encoded. */
    SAE_ROW_OK = 0,
    /* The row holds a NaN or an infinity: it has no features, and readouts of it are 0. */
    SAE_ROW_NON_FINITE = 1,
    /* A pre-activation is NaN (NaN weights in a file that was not fully checked): that feature
     * was not selected. */
    SAE_ROW_NAN_PRE_ACTIVATION = 2,
    /* The host left it out (SAE_STAGE_SKIPPED): it has no features. */
    SAE_ROW_SKIPPED = 3
};

/* ------------------------------------------------------------------------------------------ */
/* Scratch                                                                                     */
/* ------------------------------------------------------------------------------------------ */

/* The work space of one thread for one model. */
typedef struct sae_scratch sae_scratch;

/* Bytes that `sae_scratch_create_in` needs for this model, at any alignment.
 *   size     receives the number of bytes.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_scratch_size(const sae_model *model, size_t *size, sae_error *error);

/* Makes a scratch in memory of the library.
 *   model    the model it is for.
 *   scratch  receives the handle; release it with `sae_scratch_destroy`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_scratch_create(const sae_model *model, sae_scratch **scratch,
                                      sae_error *error);

/* Makes a scratch in memory of the caller, of any alignment. The memory must stay where it is and
 * must not be touched until the scratch is destroyed; after that it is the caller's again.
 *   model    the model it is for.
 *   memory, n_bytes  at least `sae_scratch_size` bytes.
 *   scratch  receives the handle, which lies in `memory`.
 *   error    may be NULL.
 * Any thread. SAE_STATUS_LENGTH if there are too few bytes. */
SAE_API sae_status sae_scratch_create_in(const sae_model *model, void *memory, size_t n_bytes,
                                         sae_scratch **scratch, sae_error *error);

/* Destroys a scratch; NULL does nothing. Memory of the caller is not freed. No call may be using
 * the scratch. */
SAE_API void sae_scratch_destroy(sae_scratch *scratch);

/* ------------------------------------------------------------------------------------------ */
/* Features                                                                                    */
/* ------------------------------------------------------------------------------------------ */

/* The features that fired in a batch of rows: for each row a list of (index, value), ascending
 * index. Filled by `sae_model_encode`, or by hand with `sae_features_append_row`. */
typedef struct sae_features sae_features;

/* Makes an empty features handle. It grows when it must; a hint spares that.
 *   n_rows, n_features  room for so many rows and, of all rows together, features; may be 0.
 *   features  receives the handle; release it with `sae_features_destroy`.
 *   error     may be NULL.
 * Any thread. */
SAE_API sae_status sae_features_create(size_t n_rows, size_t n_features, sae_features **features,
                                       sae_error *error);

/* Destroys features and all pointers into them; NULL does nothing. */
SAE_API void sae_features_destroy(sae_features *features);

/* Number of rows; 0 if `features` is no features handle. */
SAE_API size_t sae_features_n_rows(const sae_features *features);

/* Number of features of all rows together; 0 if `features` is no features handle. */
SAE_API size_t sae_features_count(const sae_features *features);

/* Number of rows whose status is not SAE_ROW_OK; 0 if `features` is no features handle. */
SAE_API size_t sae_features_failed_rows(const sae_features *features);

/* The features of one row. The pointers are into the handle, without a copy: they are valid until
 * the handle is filled again, changed or destroyed. They are never NULL, but nothing may be read
 * through them if `count` is 0. */
typedef struct sae_row_features {
    /* Which features fired, ascending. */
    const uint32_t *indices;
    /* Their values, in the same order. */
    const float *values;
    /* How many. */
    size_t count;
    /* What happened to the row. */
    sae_row_status status;
    /* 0. */
    uint8_t reserved[7];
} sae_row_features;

/* Gives access to one row.
 *   row      0 .. sae_features_n_rows - 1.
 *   out      receives the pointers.
 *   error    may be NULL.
 * SAE_STATUS_INVALID_ARGUMENT if there is no such row. */
SAE_API sae_status sae_features_row(const sae_features *features, size_t row,
                                    sae_row_features *out, sae_error *error);

/* All rows at once, in compressed sparse row form: row r has the entries
 * row_ends[r - 1] .. row_ends[r] - 1 (the first row begins at 0). Pointers as in
 * `sae_row_features`. */
typedef struct sae_features_view {
    /* Where each row ends in `indices` and `values`; n_rows numbers. */
    const size_t *row_ends;
    /* What happened to each row; n_rows numbers. */
    const sae_row_status *row_status;
    /* Which features fired, row after row. */
    const uint32_t *indices;
    /* Their values, in the same order. */
    const float *values;
    /* Number of rows. */
    size_t n_rows;
    /* Number of features of all rows together. */
    size_t count;
} sae_features_view;

/* Gives access to all rows.
 *   out      receives the pointers.
 *   error    may be NULL. */
SAE_API sae_status sae_features_all(const sae_features *features, sae_features_view *out,
                                    sae_error *error);

/* Removes all rows and keeps the memory.
 *   error    may be NULL. */
SAE_API sae_status sae_features_clear(sae_features *features, sae_error *error);

/* Appends a row, for decoding features that no row of activations gave.
 *   indices, values, count  the features, strictly ascending; NULL and 0 for an empty row. They
 *                           must not lie in the handle itself.
 *   error    may be NULL.
 * SAE_STATUS_INVALID_ARGUMENT if the indices do not ascend: then nothing was appended. Whether an
 * index is below d_sae is checked by `sae_model_decode`. */
SAE_API sae_status sae_features_append_row(sae_features *features, const uint32_t *indices,
                                           const float *values, size_t count, sae_error *error);

/* ------------------------------------------------------------------------------------------ */
/* Encode and decode                                                                           */
/* ------------------------------------------------------------------------------------------ */

/* Encodes rows into the features that fire.
 *   rows      of width d_in.
 *   scratch   of this thread, made for this model.
 *   features  what it held is replaced.
 *   error     may be NULL.
 * A row with a NaN or an infinity has no features and a status of its own; the call succeeds and
 * the other rows are encoded. On failure the features hold no rows.
 * Any thread; scratch and features are for this call alone. */
SAE_API sae_status sae_model_encode(const sae_model *model, const sae_rows *rows,
                                    sae_scratch *scratch, sae_features *features,
                                    sae_error *error);

/* As `sae_model_encode`, for rows about which the host says more: rows of SAE_STAGE_SKIPPED are left
 * out, with no features and the status SAE_ROW_SKIPPED.
 *   infos, n_infos  about each row, as many as there are rows; NULL and 0: nothing is known.
 *   the others      as above.
 * Any thread; scratch and features are for this call alone. */
SAE_API sae_status sae_model_encode_with(const sae_model *model, const sae_rows *rows,
                                         const sae_row_info *infos, size_t n_infos,
                                         sae_scratch *scratch, sae_features *features,
                                         sae_error *error);

/* What one worker found in its share of the features. */
typedef struct sae_part sae_part;

/* Makes an empty part. It grows when it must.
 *   part     receives the handle; release it with `sae_part_destroy`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_part_create(sae_part **part, sae_error *error);

/* Destroys a part; NULL does nothing. No call may be using it. */
SAE_API void sae_part_destroy(sae_part *part);

/* Encodes rows as far as the features of worker `ith` of `nth` go: for hosts that want all threads
 * on one row. Every worker makes its part; when all are made, one calls `sae_model_encode_finish`.
 *   rows      the same for every worker, of width d_in.
 *   ith, nth  the worker, 0 .. nth - 1, and the number of workers.
 *   scratch   of this thread, made for this model.
 *   part      what it held is replaced.
 *   error     may be NULL.
 * Any thread; scratch and part are for this call alone. */
SAE_API sae_status sae_model_encode_part(const sae_model *model, const sae_rows *rows, size_t ith,
                                         size_t nth, sae_scratch *scratch, sae_part *part,
                                         sae_error *error);

/* Puts the parts of all workers together: the features of `sae_model_encode`, bit for bit.
 *   parts, n_parts  one for each worker, in their order.
 *   scratch   of this thread, made for this model.
 *   features  what it held is replaced.
 *   error     may be NULL.
 * Any thread, when no part is being made. SAE_STATUS_INVALID_ARGUMENT if the parts are not those of
 * one split of the same rows. On failure the features hold no rows. */
SAE_API sae_status sae_model_encode_finish(const sae_model *model, const sae_part *const *parts,
                                           size_t n_parts, sae_scratch *scratch,
                                           sae_features *features, sae_error *error);

/* Scratches and parts for several threads. */
typedef struct sae_workers sae_workers;

/* Makes work space for a number of threads.
 *   model    the model it is for.
 *   count    1 to 1024.
 *   workers  receives the handle; release it with `sae_workers_destroy`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_workers_create(const sae_model *model, size_t count, sae_workers **workers,
                                      sae_error *error);

/* Destroys workers; NULL does nothing. No call may be using them. */
SAE_API void sae_workers_destroy(sae_workers *workers);

/* A task of the library: called with the data that came with it and a number. */
typedef void (*sae_task)(void *data, size_t index);

/* A function of the host that calls `task(data, i)` once for each i below `count`, on any threads,
 * and returns when all have returned. */
typedef void (*sae_parallel_for)(void *host, size_t count, sae_task task, void *data);

/* As `sae_model_encode`, on the host's own threads: for one row, or few, on many cores.
 *   rows      of width d_in.
 *   parallel_for, host  runs one task for each worker; `host` is handed to it.
 *   workers   made for this model.
 *   features  what it held is replaced.
 *   error     may be NULL.
 * Any thread; workers and features are for this call alone. SAE_STATUS_INVALID_ARGUMENT if a task
 * was not run. */
SAE_API sae_status sae_model_encode_parallel(const sae_model *model, const sae_rows *rows,
                                             sae_parallel_for parallel_for, void *host,
                                             sae_workers *workers, sae_features *features,
                                             sae_error *error);

/* Decodes features into rows of activations.
 *   features  of this model.
 *   inputs    the rows that were encoded, one for each row of features. Needed if
 *             `sae_model_decode_needs_inputs`; else not looked at, and may be NULL.
 *   scratch   of this thread, made for this model.
 *   out, n_out  receives n_rows * d_out values, row after row; n_out must be exactly that. Aligned
 *             as `float` is, and apart from the inputs.
 *   error     may be NULL.
 * A row whose status is SAE_ROW_NON_FINITE or SAE_ROW_SKIPPED becomes NaN throughout.
 * Any thread; the scratch is for this call alone. */
SAE_API sae_status sae_model_decode(const sae_model *model, const sae_features *features,
                                    const sae_rows *inputs, sae_scratch *scratch, float *out,
                                    size_t n_out, sae_error *error);

/* ------------------------------------------------------------------------------------------ */
/* Sets and readout                                                                            */
/* ------------------------------------------------------------------------------------------ */

/* A few chosen features of a model, compiled: their weights lie together, so that reading them out
 * costs as many rows of weights as there are features. Immutable and shared by threads. */
typedef struct sae_set sae_set;

/* Compiles a set.
 *   features, count  the features, in any order; duplicates are allowed.
 *   set       receives the handle; release it with `sae_set_destroy`.
 *   error     may be NULL.
 * Any thread. SAE_STATUS_FEATURE_OUT_OF_RANGE names the first index that is not below d_sae. */
SAE_API sae_status sae_set_compile(const sae_model *model, const uint32_t *features, size_t count,
                                   sae_set **set, sae_error *error);

/* Destroys a set; NULL does nothing. No call may be using it. */
SAE_API void sae_set_destroy(sae_set *set);

/* Number of features in the set; 0 if `set` is no set. Any thread. */
SAE_API size_t sae_set_count(const sae_set *set);

/* Reads the values of the set's features from rows: the same values that `sae_model_encode` gives,
 * 0 where a feature is off. For models whose features compete (top-k) the answer is exact too, and
 * costs as much as encoding.
 *   set       compiled for this model.
 *   rows      of width d_in.
 *   scratch   of this thread, made for this model.
 *   values, n_values  receives n_rows * sae_set_count values, row after row in the order of the
 *             set; n_values must be exactly that. Aligned as `float` is, and apart from the rows.
 *   status    receives n_rows numbers: what happened to each row; may be NULL.
 *   error     may be NULL.
 * Any thread; the scratch is for this call alone. */
SAE_API sae_status sae_model_readout(const sae_model *model, const sae_set *set,
                                     const sae_rows *rows, sae_scratch *scratch, float *values,
                                     size_t n_values, sae_row_status *status, sae_error *error);

/* As `sae_model_readout`, for rows about which the host says more: rows of SAE_STAGE_SKIPPED are left
 * out, with values of 0 and the status SAE_ROW_SKIPPED.
 *   infos, n_infos  about each row, as many as there are rows; NULL and 0: nothing is known.
 *   the others      as above.
 * Any thread; the scratch is for this call alone. */
SAE_API sae_status sae_model_readout_with(const sae_model *model, const sae_set *set,
                                          const sae_rows *rows, const sae_row_info *infos,
                                          size_t n_infos, sae_scratch *scratch, float *values,
                                          size_t n_values, sae_row_status *status,
                                          sae_error *error);

/* Reads the value of one feature from rows, without a set. Slower than a set where the file stores
 * the weights of a feature apart from each other.
 *   feature   below d_sae.
 *   rows, scratch  as above.
 *   values, n_values  receives n_rows values; n_values must be exactly that. As above.
 *   status    receives n_rows numbers; may be NULL.
 *   error     may be NULL.
 * Any thread; the scratch is for this call alone. */
SAE_API sae_status sae_model_readout_one(const sae_model *model, uint32_t feature,
                                         const sae_rows *rows, sae_scratch *scratch, float *values,
                                         size_t n_values, sae_row_status *status,
                                         sae_error *error);

/* ------------------------------------------------------------------------------------------ */
/* Labels                                                                                      */
/* ------------------------------------------------------------------------------------------ */

/* What features are said to mean, in words: the table of one explanation export, as Neuronpedia
 * publishes them. It belongs to no model and changes no number. Immutable and shared by
 * threads. */
typedef struct sae_labels sae_labels;

/* Reads an explanation export: a file of JSON lines or JSON (gzipped if the library was built with
 * gzip), or a folder of batches, of `explanations` (labels) or of `features` (statistics, see
 * `sae_labels_observed`). Nothing of the file is used afterwards.
 *   path     the file or folder.
 *   labels   receives the handle; release it with `sae_labels_close`.
 *   error    receives the details of a failure; may be NULL.
 * Any thread. SAE_STATUS_UNSUPPORTED in a library that was built without files. */
SAE_API sae_status sae_labels_open(const char *path, sae_labels **labels, sae_error *error);

/* Reads an explanation export from memory: the bytes of one file, which may be freed after the
 * call.
 *   bytes, n_bytes  the file.
 *   labels   receives the handle; release it with `sae_labels_close`.
 *   error    receives the details of a failure; may be NULL.
 * Any thread. */
SAE_API sae_status sae_labels_open_memory(const void *bytes, size_t n_bytes, sae_labels **labels,
                                          sae_error *error);

/* Closes labels and all texts of them; NULL does nothing. No call may be using them. */
SAE_API void sae_labels_close(sae_labels *labels);

/* Number of labels, of all features together; 0 if `labels` is no labels handle. Any thread. */
SAE_API size_t sae_labels_count(const sae_labels *labels);

/* Number of labels of one feature, often 0 or 1; 0 if `labels` is no labels handle. Any thread. */
SAE_API size_t sae_labels_count_of(const sae_labels *labels, uint32_t feature);

/* Label `number` of a feature, 0 .. sae_labels_count_of - 1 in the order of the file, valid until
 * the labels are closed; NULL if there is none, or if `labels` is no labels handle. The text comes
 * from the file as it is: clean it of control characters before a terminal sees it. Any thread. */
SAE_API const char *sae_labels_text(const sae_labels *labels, uint32_t feature, size_t number);

/* Who wrote that label, for example "gpt-4o-mini"; "" if the file does not say; NULL as in
 * `sae_labels_text`. Any thread. */
SAE_API const char *sae_labels_explainer(const sae_labels *labels, uint32_t feature,
                                         size_t number);

/* What an export says of the values of one feature over its corpus, in the units of
 * `sae_model_encode`; NAN for what it does not say. */
typedef struct sae_observed {
    /* sizeof(sae_observed), stored by the caller before the call. */
    uint32_t struct_size;
    /* 0. */
    uint32_t reserved;
    /* The largest value (`maxActApprox`), over the texts that the exporter looked at. */
    double max;
    /* The share of tokens at which the feature fires (`frac_nonzero`). */
    double density;
    /* The mean over all tokens, estimated from the export's histogram: off by at most half a bin
     * times the density, and by what was rounded in the file. */
    double mean;
} sae_observed;

/* Asks what the export says of a feature's values: NAN throughout if nothing, as in exports of
 * explanations alone. `sae_plan_compile_with_labels` of sae_steer.h uses it.
 *   observed  `struct_size` in, the rest out.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_labels_observed(const sae_labels *labels, uint32_t feature,
                                       sae_observed *observed, sae_error *error);

/* Checks that a model has every feature that is labelled: labels of another, wider SAE are found
 * out so; those of another SAE of the same width are not.
 *   error    may be NULL.
 * SAE_STATUS_FEATURE_OUT_OF_RANGE names the highest feature. Any thread. */
SAE_API sae_status sae_model_check_labels(const sae_model *model, const sae_labels *labels,
                                          sae_error *error);

/* ------------------------------------------------------------------------------------------ */
/* Does the model fit the rows?                                                                */
/* ------------------------------------------------------------------------------------------ */

/* Counts how well a model reconstructs the rows that it is fed, to notice that they are those of
 * another tensor, layer or model: then features come out, and mean nothing. */
typedef struct sae_fit_check sae_fit_check;

/* Whether rows look like those that the model was trained on. Rules of thumb: see the numbers. */
typedef int32_t sae_verdict;

enum {
    /* Fewer than 32 rows so far, or all the same. */
    SAE_VERDICT_TOO_FEW_ROWS = 0,
    /* FVU at most 0.5. */
    SAE_VERDICT_FITS = 1,
    /* FVU between 0.5 and 0.9: another quantisation, other texts, or another tensor nearby. */
    SAE_VERDICT_DOUBTFUL = 2,
    /* FVU above 0.9, or nothing fires. */
    SAE_VERDICT_WRONG = 3
};

/* What a check found so far. */
typedef struct sae_fit {
    /* sizeof(sae_fit), stored by the caller before the call. */
    uint32_t struct_size;
    /* The verdict. */
    sae_verdict verdict;
    /* Rows that were counted. */
    uint64_t rows;
    /* Rows that were not: they are not finite. */
    uint64_t left_out;
    /* Features that fire, per row. */
    double l0;
    /* Fraction of variance unexplained: sum |y - decoded|^2 / sum |y - mean of y|^2. NaN while the
     * rows have no variance. */
    double fvu;
} sae_fit;

/* Makes an empty check.
 *   model    the model it is for.
 *   check    receives the handle; release it with `sae_fit_check_destroy`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_fit_check_create(const sae_model *model, sae_fit_check **check,
                                        sae_error *error);

/* Destroys a check; NULL does nothing. No call may be using it. */
SAE_API void sae_fit_check_destroy(sae_fit_check *check);

/* Encodes and decodes rows, and counts them. Leave out rows that the model was not trained on
 * (`sae_site`): a few BOS rows can outweigh all others.
 *   check    made for this model.
 *   rows     of width d_in.
 *   targets  for transcoders, the rows at the output site, as many, of width d_out; NULL: the rows
 *            themselves.
 *   scratch  of this thread, made for this model.
 *   error    may be NULL.
 * Any thread; check and scratch are for this call alone. */
SAE_API sae_status sae_model_check_fit(const sae_model *model, sae_fit_check *check,
                                       const sae_rows *rows, const sae_rows *targets,
                                       sae_scratch *scratch, sae_error *error);

/* Asks what a check found so far.
 *   fit      `struct_size` in, the rest out.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_fit_check_result(const sae_fit_check *check, sae_fit *fit,
                                        sae_error *error);

/* ------------------------------------------------------------------------------------------ */
/* Log                                                                                         */
/* ------------------------------------------------------------------------------------------ */

/* How much a message matters. */
typedef int32_t sae_log_level;

enum {
    /* What was opened. */
    SAE_LOG_INFO = 0,
    /* What of a checkpoint was passed over, and what its user should know. */
    SAE_LOG_WARNING = 1,
    /* A defect of the library, with its place. */
    SAE_LOG_ERROR = 2
};

/* A function of the host that receives messages, in English, without a line end. It runs on the
 * thread of the call that the message is about and must not call the library. */
typedef void (*sae_log_callback)(sae_log_level level, const char *message, void *data);

/* Sets the function that receives messages, for the whole process; NULL for none, as at the start.
 * encode, decode, readout and steering never send one, except for a defect. No other call may run
 * meanwhile.
 *   callback  the function.
 *   data      is handed to it. */
SAE_API void sae_set_log(sae_log_callback callback, void *data);

#ifdef __cplusplus
}
#endif

#endif /* SAE_H */
