/*
 * sae_architectures.h - what libsae does beyond one model and one row: models derived from models,
 * pursuits, ensembles, selection over a batch, rows of several sites, layers one after the other,
 * and two kinds of models that are no `sae_model`: low-rank sparse attention and mixtures of
 * transforms.
 *
 * A derived model is a model: every function of sae.h, sae_steer.h and this header takes it. It
 * shares the weights of the model that it was made of, which may be closed before it; bytes given
 * to `sae_model_open_memory` must stay until every derived model is closed, too. Close each with
 * `sae_model_close`. Derive first, then `sae_model_prepare`: a derived model has no screen of its
 * own until it is prepared.
 *
 * The rules of sae.h hold here too: order of arguments, errors, threads, memory.
 */
#ifndef SAE_ARCHITECTURES_H
#define SAE_ARCHITECTURES_H

#include "sae.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------ */
/* Derived models                                                                              */
/* ------------------------------------------------------------------------------------------ */

/* The same model selecting by another k: top-k rules, k per group with groups, the number of steps
 * of a pursuit. MSAE and HierarchicalTopK models are trained for every k.
 *   k        0 (no features) to d_sae (the features of a group).
 *   derived  receives the handle.
 *   error    may be NULL.
 * SAE_STATUS_INVALID_ARGUMENT for a model without k. Any thread. */
SAE_API sae_status sae_model_with_k(const sae_model *model, size_t k, sae_model **derived,
                                    sae_error *error);

/* The same model with top-k in place of its own rule: the k largest positive pre-activations, the
 * lowest index first among equals.
 *   k        1 to d_sae.
 *   derived  receives the handle.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_model_with_top_k(const sae_model *model, size_t k, sae_model **derived,
                                        sae_error *error);

/* The same model with one threshold in place of its own rule: a feature fires if its pre-activation
 * is above it and positive. For models that were trained with batch top-k and store no threshold.
 *   threshold  not NaN.
 *   derived    receives the handle.
 *   error      may be NULL.
 * Any thread. */
SAE_API sae_status sae_model_with_threshold(const sae_model *model, float threshold,
                                            sae_model **derived, sae_error *error);

/* The same model ranking features by weighted values; the values stay as they are.
 *   weights, n_weights  d_sae numbers, none negative; NULL and 0 to rank by the values.
 *   derived  receives the handle.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_model_with_rank_weights(const sae_model *model, const double *weights,
                                               size_t n_weights, sae_model **derived,
                                               sae_error *error);

/* The model of the first features, as Matryoshka models are nested. It reads that part of the
 * weights, so half the features cost half the time.
 *   count    1 to d_sae; a whole number of groups for rules with groups.
 *   derived  receives the handle.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_model_with_prefix(const sae_model *model, size_t count,
                                         sae_model **derived, sae_error *error);

/* The model of the features from `first` on, in place: an expert of a file that holds experts one
 * after the other, say. A rule that ranks ranks among them alone.
 *   first, count  at least one feature, within d_sae.
 *   derived  receives the handle.
 *   error    may be NULL.
 * SAE_STATUS_INVALID_ARGUMENT for rules with groups and weights in blocks, too. Any thread. */
SAE_API sae_status sae_model_with_range(const sae_model *model, size_t first, size_t count,
                                        sae_model **derived, sae_error *error);

/* The model of chosen features, in this order: feature i of it is features[i] of this one. Copies
 * their weights. With `sae_importance_order` its prefixes are progressively better codes.
 *   features, count  at least one, each once.
 *   derived  receives the handle.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_model_with_features(const sae_model *model, const uint32_t *features,
                                           size_t count, sae_model **derived, sae_error *error);

/* Which atom a step of a pursuit picks; p is the product of an atom and what is left of the row. */
typedef int32_t sae_pick;

enum {
    /* The largest p, if it is positive: no value is ever negative. */
    SAE_PICK_POSITIVE = 0,
    /* The largest p, whatever its sign. Only with SAE_REFIT_NOTHING. */
    SAE_PICK_ANY = 1,
    /* The largest |p|: values are signed. */
    SAE_PICK_MAGNITUDE = 2
};

/* What a step of a pursuit does to the values found before. */
typedef int32_t sae_refit;

enum {
    /* Nothing: matching pursuit. */
    SAE_REFIT_NOTHING = 0,
    /* One exact line search along the gradient: gradient pursuit. */
    SAE_REFIT_GRADIENT = 1,
    /* Least squares on all atoms picked so far: orthogonal matching pursuit; non-negative with
     * SAE_PICK_POSITIVE. */
    SAE_REFIT_LEAST_SQUARES = 2
};

/* A pursuit: features are found one after the other, each on what the ones before leave. */
typedef struct sae_pursuit {
    /* sizeof(sae_pursuit). */
    uint32_t struct_size;
    /* Which atom a step picks. */
    sae_pick pick;
    /* What a step does to the values before. */
    sae_refit refit;
    /* 1: stops after a step that picked an atom picked before. Else 0. */
    uint32_t stop_on_repeat;
    /* The most steps, at least 1. */
    uint64_t steps;
    /* Stops after a step that leaves a residual shorter than this; 0 for no such test. */
    double stop_norm;
    /* Stops before a step whose best product is not above this; 0 or more. */
    double stop_rank;
    /* 0: rows are activations, off which the decoder bias is taken. 1: rows are directions, such as
     * steering vectors, and nothing is taken off or normalised. */
    uint32_t directions;
    /* 0. */
    uint32_t reserved;
} sae_pursuit;

/* Orthogonal matching pursuit of `steps` steps with non-negative values, to initialise a variable
 * with. */
#define SAE_PURSUIT_INIT(steps) {(uint32_t)sizeof(sae_pursuit), 0, 2, 0, (steps), 0, 0, 0, 0}

/* The decoder of a model as the dictionary of a pursuit (inference-time optimisation): the encoder
 * is not read, rows are those that the model reconstructs. Atoms are scaled to length 1. One pass
 * over the decoder now, and one for each step of each row, or a part of one once it is prepared.
 *   pursuit  how it goes about it.
 *   derived  receives the handle.
 *   error    may be NULL.
 * SAE_STATUS_INVALID_VALUE for a decoder with a row of zeros. Any thread. */
SAE_API sae_status sae_model_with_pursuit(const sae_model *model, const sae_pursuit *pursuit,
                                          sae_model **derived, sae_error *error);

/* How members make up an ensemble. */
typedef int32_t sae_ensemble_kind;

enum {
    /* Every member reads the row; reconstructions are averaged. */
    SAE_ENSEMBLE_BAG = 0,
    /* Every member reads what the ones before leave; reconstructions add up (boosting, residual
     * stacks, SAE-boost). */
    SAE_ENSEMBLE_CHAIN = 1,
    /* A router picks the one member that reads a row (switch SAEs): `sae_ensemble_create_routed`. */
    SAE_ENSEMBLE_ROUTED = 2
};

/* One model made of several: feature i of member j is feature i plus the sizes of the members
 * before.
 *   members, n_members  at least one, of equal d_in and d_out, none an ensemble itself.
 *   kind      SAE_ENSEMBLE_BAG or SAE_ENSEMBLE_CHAIN.
 *   ensemble  receives the handle; release it with `sae_model_close`.
 *   error     may be NULL.
 * SAE_STATUS_INVALID_ARGUMENT if the members cannot be joined. Any thread. */
SAE_API sae_status sae_ensemble_create(const sae_model *const *members, size_t n_members,
                                       sae_ensemble_kind kind, sae_model **ensemble,
                                       sae_error *error);

/* One model made of several, of which each row reads one: the first of the largest
 * vector_j . (row - center). Encoding costs the router and one member. The experts of a file are
 * made with `sae_model_with_range`.
 *   members, n_members  1 to 256, of equal d_in, d_out and decoder bias, none an ensemble itself.
 *   vectors, n_vectors  the router: d_in numbers for each member, one after the other; copied.
 *   center, n_center    d_in numbers that are taken off the row; NULL and 0 for none.
 *   weighs    1: values are multiplied by the member's probability, the softmax of the products.
 *             0: they keep their size.
 *   ensemble  receives the handle; release it with `sae_model_close`.
 *   error     may be NULL.
 * SAE_STATUS_INVALID_ARGUMENT if the members cannot be joined. Any thread. */
SAE_API sae_status sae_ensemble_create_routed(const sae_model *const *members, size_t n_members,
                                              const float *vectors, size_t n_vectors,
                                              const double *center, size_t n_center,
                                              uint32_t weighs, sae_model **ensemble,
                                              sae_error *error);

/* ------------------------------------------------------------------------------------------ */
/* Importance                                                                                  */
/* ------------------------------------------------------------------------------------------ */

/* How much each feature has contributed to reconstructions so far: the sum over rows of the squared
 * length of what it adds. Belongs to one call at a time. */
typedef struct sae_importance sae_importance;

/* Nothing seen yet. One pass over the decoder.
 *   importance  receives the handle; release it with `sae_importance_destroy`.
 *   error       may be NULL.
 * Any thread. */
SAE_API sae_status sae_importance_create(const sae_model *model, sae_importance **importance,
                                         sae_error *error);

/* Destroys it; NULL does nothing. */
SAE_API void sae_importance_destroy(sae_importance *importance);

/* Adds what the features of some rows contribute.
 *   features  of the model that it was made for.
 *   error     may be NULL. */
SAE_API sae_status sae_importance_add(sae_importance *importance, const sae_features *features,
                                      sae_error *error);

/* All features, the most important first, the lowest index first among equals.
 *   order, n_order  receives d_sae numbers; n_order must be exactly that.
 *   error           may be NULL. */
SAE_API sae_status sae_importance_order(const sae_importance *importance, uint32_t *order,
                                        size_t n_order, sae_error *error);

/* ------------------------------------------------------------------------------------------ */
/* Selection over a batch                                                                      */
/* ------------------------------------------------------------------------------------------ */

/* How a batch is selected from. Only positive values are kept; among equals the lowest row wins,
 * then the lowest feature. */
typedef int32_t sae_batch_rule;

enum {
    /* The budget times n_rows highest of all features of all rows together: true batch top-k, and
     * Mutual Choice. */
    SAE_BATCH_TOGETHER = 0,
    /* Each feature on as many rows as the budget says, where it is highest: Feature Choice. */
    SAE_BATCH_PER_FEATURE = 1
};

/* Work space for selection over a batch. Belongs to one call at a time. */
typedef struct sae_batch sae_batch;

/* Makes the work space.
 *   rule     a sae_batch_rule.
 *   budget   features per row on average (1 to d_sae), or rows per feature (1 to n_rows).
 *   n_rows   the most rows of a batch.
 *   batch    receives the handle; release it with `sae_batch_destroy`.
 *   error    may be NULL.
 * SAE_STATUS_INVALID_ARGUMENT for pursuits and ensembles. Any thread. */
SAE_API sae_status sae_batch_create(const sae_model *model, sae_batch_rule rule, size_t budget,
                                    size_t n_rows, sae_batch **batch, sae_error *error);

/* Destroys the work space; NULL does nothing. */
SAE_API void sae_batch_destroy(sae_batch *batch);

/* Encodes a batch and selects from all of it at once, in place of the model's own rule. Rows that
 * are not finite take no part.
 *   rows      of width d_in, at most as many as the work space was made for.
 *   batch     made for this model.
 *   scratch   of this thread, made for this model.
 *   features  what it held is replaced.
 *   error     may be NULL.
 * Any thread; batch, scratch and features are for this call alone. */
SAE_API sae_status sae_model_encode_batch(const sae_model *model, const sae_rows *rows,
                                          sae_batch *batch, sae_scratch *scratch,
                                          sae_features *features, sae_error *error);

/* ------------------------------------------------------------------------------------------ */
/* Rows of several sites                                                                       */
/* ------------------------------------------------------------------------------------------ */

/* How many sites (layers, models) an input row is made of, side by side, equally wide: more than 1
 * for crosscoders and cross-layer transcoders; 0 if `model` is no model. Any thread. */
SAE_API size_t sae_model_input_sites(const sae_model *model);

/* How many sites a reconstructed row is made of; 0 if `model` is no model. Any thread. */
SAE_API size_t sae_model_output_sites(const sae_model *model);

/* `sae_model_encode` of rows whose sites lie apart, each in a buffer and a format of its own.
 *   sites, n_sites  one batch for each site, of width d_in / n_sites, with equally many rows.
 *   scratch   of this thread, made for this model.
 *   features  what it held is replaced.
 *   error     may be NULL.
 * Any thread; scratch and features are for this call alone. */
SAE_API sae_status sae_model_encode_sites(const sae_model *model, const sae_rows *sites,
                                          size_t n_sites, sae_scratch *scratch,
                                          sae_features *features, sae_error *error);

/* `sae_model_readout` of rows whose sites lie apart.
 *   set       compiled for this model.
 *   sites, n_sites  as above.
 *   scratch   of this thread, made for this model.
 *   values, n_values  receives n_rows * sae_set_count values; n_values must be exactly that. Apart
 *             from the sites.
 *   status    receives n_rows numbers: what happened to each row.
 *   error     may be NULL.
 * Any thread; the scratch is for this call alone. */
SAE_API sae_status sae_model_readout_sites(const sae_model *model, const sae_set *set,
                                           const sae_rows *sites, size_t n_sites,
                                           sae_scratch *scratch, float *values, size_t n_values,
                                           sae_row_status *status, sae_error *error);

/* `sae_model_decode` with inputs whose sites lie apart. The reconstructed rows are whole.
 *   features  of this model.
 *   sites, n_sites  the rows that were encoded, as above; needed if
 *             `sae_model_decode_needs_inputs`, else may be NULL and 0.
 *   scratch   of this thread, made for this model.
 *   out, n_out  receives n_rows * d_out values; n_out must be exactly that. Apart from the sites.
 *   error     may be NULL.
 * Any thread; the scratch is for this call alone. */
SAE_API sae_status sae_model_decode_sites(const sae_model *model, const sae_features *features,
                                          const sae_rows *sites, size_t n_sites,
                                          sae_scratch *scratch, float *out, size_t n_out,
                                          sae_error *error);

/* ------------------------------------------------------------------------------------------ */
/* Layers one after the other                                                                  */
/* ------------------------------------------------------------------------------------------ */

/* What a cross-layer transcoder has written so far for the layers to come: the state of a batch of
 * rows during one forward pass of the host. Belongs to one call at a time. */
typedef struct sae_layer_stream sae_layer_stream;

/* Makes a stream.
 *   n_rows   the most rows of a batch.
 *   stream   receives the handle; release it with `sae_layer_stream_destroy`.
 *   error    may be NULL.
 * SAE_STATUS_INVALID_ARGUMENT for a model that cannot go layer by layer. Any thread. */
SAE_API sae_status sae_layer_stream_create(const sae_model *model, size_t n_rows,
                                           sae_layer_stream **stream, sae_error *error);

/* Destroys a stream; NULL does nothing. */
SAE_API void sae_layer_stream_destroy(sae_layer_stream *stream);

/* Goes back to the first layer, for a batch of `n_rows` rows.
 *   error    may be NULL. */
SAE_API sae_status sae_layer_stream_restart(sae_layer_stream *stream, size_t n_rows,
                                            sae_error *error);

/* Which features belong to a layer: `count` from `first` on; none for a layer that is not there.
 *   first, count  receive the numbers.
 *   error         may be NULL.
 * Any thread. */
SAE_API sae_status sae_model_layer_features(const sae_model *model, size_t layer, uint32_t *first,
                                            uint32_t *count, sae_error *error);

/* Encodes the next layer of every row, and adds what its features write to this and the later
 * layers. Features are numbered as in the whole model.
 *   stream    made for this model.
 *   layer     0, then 1, and so on.
 *   rows      of width d_in / sites, as many as the stream was restarted (or made) for.
 *   scratch   of this thread, made for this model.
 *   features  what it held is replaced.
 *   error     may be NULL.
 * Any thread; stream, scratch and features are for this call alone. */
SAE_API sae_status sae_model_encode_layer(const sae_model *model, sae_layer_stream *stream,
                                          size_t layer, const sae_rows *rows, sae_scratch *scratch,
                                          sae_features *features, sae_error *error);

/* Writes the output of a layer that was encoded: the bits that decoding the whole row gives it.
 *   stream    made for this model.
 *   layer     which.
 *   inputs    the rows of that layer; needed if `sae_model_decode_needs_inputs`, else may be NULL.
 *   scratch   of this thread, made for this model.
 *   out, n_out  receives n_rows * d_out / sites values; n_out must be exactly that.
 *   error     may be NULL.
 * Any thread; stream and scratch are for this call alone. */
SAE_API sae_status sae_model_decode_layer(const sae_model *model, sae_layer_stream *stream,
                                          size_t layer, const sae_rows *inputs,
                                          sae_scratch *scratch, float *out, size_t n_out,
                                          sae_error *error);

/* ------------------------------------------------------------------------------------------ */
/* Low-rank sparse attention                                                                   */
/* ------------------------------------------------------------------------------------------ */

/* A Lorsa: a sparse dictionary in place of an attention layer. Its features look at the rows
 * before, so it is no `sae_model`. Immutable and shared by threads. */
typedef struct sae_lorsa sae_lorsa;

/* What the rows of one sequence leave for later ones: keys and values, 4 bytes times (the width of
 * all keys + d_sae) per row. Belongs to one call at a time. */
typedef struct sae_lorsa_cache sae_lorsa_cache;

/* Opens a checkpoint, as `sae_model_open` does.
 *   path     the file or folder.
 *   options  NULL for the defaults.
 *   lorsa    receives the handle; release it with `sae_lorsa_close`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_lorsa_open(const char *path, const sae_open_options *options,
                                  sae_lorsa **lorsa, sae_error *error);

/* Opens a checkpoint from the bytes of a file, as `sae_model_open_memory` does.
 *   bytes, n_bytes  used in place: they must stay until the Lorsa, and all that was derived of it,
 *            is closed.
 *   name     how the file is called; NULL if that is not known.
 *   config   the text of the side-car; NULL without one.
 *   options  NULL for the defaults.
 *   lorsa    receives the handle; release it with `sae_lorsa_close`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_lorsa_open_memory(const void *bytes, size_t n_bytes, const char *name,
                                         const char *config, const sae_open_options *options,
                                         sae_lorsa **lorsa, sae_error *error);

/* The same Lorsa selecting by another k; it takes the caches of this one. It shares the weights, and
 * may outlive the first.
 *   k        0 (no features) to d_sae.
 *   derived  receives the handle; release it with `sae_lorsa_close`.
 *   error    may be NULL.
 * SAE_STATUS_INVALID_ARGUMENT for one without k. Any thread. */
SAE_API sae_status sae_lorsa_with_k(const sae_lorsa *lorsa, size_t k, sae_lorsa **derived,
                                    sae_error *error);

/* Closes a Lorsa; NULL does nothing. No call may be using it. */
SAE_API void sae_lorsa_close(sae_lorsa *lorsa);

/* Width of the rows that go in; 0 if `lorsa` is none. Any thread. */
SAE_API size_t sae_lorsa_d_in(const sae_lorsa *lorsa);

/* Number of features; 0 if `lorsa` is none. Any thread. */
SAE_API size_t sae_lorsa_d_sae(const sae_lorsa *lorsa);

/* Width of the rows that decoding gives; 0 if `lorsa` is none. Any thread. */
SAE_API size_t sae_lorsa_d_out(const sae_lorsa *lorsa);

/* Name of the instruction set in use, which `options` chose; "" if `lorsa` is none. Any thread. */
SAE_API const char *sae_lorsa_level(const sae_lorsa *lorsa);

/* Makes the work space of one thread.
 *   scratch  receives the handle; release it with `sae_scratch_destroy`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_lorsa_scratch_create(const sae_lorsa *lorsa, sae_scratch **scratch,
                                            sae_error *error);

/* Makes a cache for sequences of up to `n_rows` rows.
 *   cache    receives the handle; release it with `sae_lorsa_cache_destroy`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_lorsa_cache_create(const sae_lorsa *lorsa, size_t n_rows,
                                          sae_lorsa_cache **cache, sae_error *error);

/* Destroys a cache; NULL does nothing. */
SAE_API void sae_lorsa_cache_destroy(sae_lorsa_cache *cache);

/* Rows of the sequence so far; 0 if `cache` is none. */
SAE_API size_t sae_lorsa_cache_length(const sae_lorsa_cache *cache);

/* Forgets all rows from position `length` on: 0 begins a new sequence, less than the length takes
 * rejected rows back.
 *   error    may be NULL. */
SAE_API sae_status sae_lorsa_cache_truncate(sae_lorsa_cache *cache, size_t length,
                                            sae_error *error);

/* Encodes the next rows of a sequence, and adds them to its cache: one at a time or a whole prompt,
 * with the same bits. A row that is not finite keeps its place, and no later row attends to it.
 *   rows      of width d_in, at most as many as the cache has room for.
 *   cache     of the sequence, made for this Lorsa.
 *   scratch   of this thread, made for this Lorsa.
 *   features  what it held is replaced.
 *   error     may be NULL.
 * On failure the cache is as it was. Any thread. */
SAE_API sae_status sae_lorsa_encode(const sae_lorsa *lorsa, const sae_rows *rows,
                                    sae_lorsa_cache *cache, sae_scratch *scratch,
                                    sae_features *features, sae_error *error);

/* Reads chosen features out of the next rows of a sequence, and adds these to its cache: a row goes
 * through `sae_lorsa_encode` or through this.
 *   wanted, n_wanted  the features, in any order.
 *   rows, cache, scratch  as above.
 *   values, n_values  receives n_rows * n_wanted values; n_values must be exactly that.
 *   status    receives n_rows numbers.
 *   error     may be NULL.
 * Any thread. */
SAE_API sae_status sae_lorsa_readout(const sae_lorsa *lorsa, const uint32_t *wanted,
                                     size_t n_wanted, const sae_rows *rows,
                                     sae_lorsa_cache *cache, sae_scratch *scratch, float *values,
                                     size_t n_values, sae_row_status *status, sae_error *error);

/* Decodes features into rows of the layer's output. Needs no cache.
 *   out, n_out  receives n_rows * d_out values; n_out must be exactly that.
 *   error       may be NULL.
 * Any thread. */
SAE_API sae_status sae_lorsa_decode(const sae_lorsa *lorsa, const sae_features *features,
                                    sae_scratch *scratch, float *out, size_t n_out,
                                    sae_error *error);

/* ------------------------------------------------------------------------------------------ */
/* Mixtures of linear transforms                                                               */
/* ------------------------------------------------------------------------------------------ */

/* A mixture of linear transforms in place of an MLP, of which each row uses a few. A feature that
 * fires adds a low-rank transform of the row, so it is no `sae_model`. Immutable and shared by
 * threads. */
typedef struct sae_molt sae_molt;

/* The work space of one thread for one mixture. Belongs to one call at a time. */
typedef struct sae_molt_scratch sae_molt_scratch;

/* Opens a checkpoint, as `sae_model_open` does.
 *   path     the file or folder.
 *   options  NULL for the defaults.
 *   molt     receives the handle; release it with `sae_molt_close`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_molt_open(const char *path, const sae_open_options *options,
                                 sae_molt **molt, sae_error *error);

/* Opens a checkpoint from the bytes of a file, as `sae_model_open_memory` does.
 *   bytes, n_bytes  used in place: they must stay until the mixture, and all that was derived of it,
 *            is closed.
 *   name     how the file is called; NULL if that is not known.
 *   config   the text of the side-car; NULL without one.
 *   options  NULL for the defaults.
 *   molt     receives the handle; release it with `sae_molt_close`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_molt_open_memory(const void *bytes, size_t n_bytes, const char *name,
                                        const char *config, const sae_open_options *options,
                                        sae_molt **molt, sae_error *error);

/* Closes a mixture; NULL does nothing. No call may be using it. */
SAE_API void sae_molt_close(sae_molt *molt);

/* Width of the rows that go in; 0 if `molt` is none. Any thread. */
SAE_API size_t sae_molt_d_in(const sae_molt *molt);

/* Number of features, each with a transform; 0 if `molt` is none. Any thread. */
SAE_API size_t sae_molt_d_sae(const sae_molt *molt);

/* Width of the rows that decoding gives; 0 if `molt` is none. Any thread. */
SAE_API size_t sae_molt_d_out(const sae_molt *molt);

/* Name of the instruction set in use, which `options` chose; "" if `molt` is none. Any thread. */
SAE_API const char *sae_molt_level(const sae_molt *molt);

/* The same mixture selecting by another k. It shares the weights, and may outlive the first.
 *   k        0 (no features) to d_sae.
 *   derived  receives the handle; release it with `sae_molt_close`.
 *   error    may be NULL.
 * SAE_STATUS_INVALID_ARGUMENT for one without k. Any thread. */
SAE_API sae_status sae_molt_with_k(const sae_molt *molt, size_t k, sae_molt **derived,
                                   sae_error *error);

/* Makes the work space of one thread.
 *   scratch  receives the handle; release it with `sae_molt_scratch_destroy`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_molt_scratch_create(const sae_molt *molt, sae_molt_scratch **scratch,
                                           sae_error *error);

/* Destroys the work space; NULL does nothing. */
SAE_API void sae_molt_scratch_destroy(sae_molt_scratch *scratch);

/* Encodes rows, as `sae_model_encode` does.
 *   rows      of width d_in.
 *   scratch   of this thread, made for this mixture.
 *   features  what it held is replaced.
 *   error     may be NULL.
 * Any thread; scratch and features are for this call alone. */
SAE_API sae_status sae_molt_encode(const sae_molt *molt, const sae_rows *rows,
                                   sae_molt_scratch *scratch, sae_features *features,
                                   sae_error *error);

/* Compiles features for readout, as `sae_set_compile` does.
 *   features, count  in any order, also twice.
 *   set      receives the handle; release it with `sae_set_destroy`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_molt_set_compile(const sae_molt *molt, const uint32_t *features,
                                        size_t count, sae_set **set, sae_error *error);

/* Reads a set out of rows, as `sae_model_readout` does.
 *   set       compiled for this mixture.
 *   rows, scratch  as above.
 *   values, n_values  receives n_rows * sae_set_count values; n_values must be exactly that.
 *   status    receives n_rows numbers: what happened to each row.
 *   error     may be NULL.
 * Any thread; the scratch is for this call alone. */
SAE_API sae_status sae_molt_readout(const sae_molt *molt, const sae_set *set, const sae_rows *rows,
                                    sae_molt_scratch *scratch, float *values, size_t n_values,
                                    sae_row_status *status, sae_error *error);

/* Decodes features into rows of the layer's output.
 *   features  of this mixture.
 *   inputs    the rows that were encoded, as many.
 *   scratch   of this thread, made for this mixture.
 *   out, n_out  receives n_rows * d_out values; n_out must be exactly that. Apart from the inputs.
 *   error     may be NULL.
 * Any thread; the scratch is for this call alone. */
SAE_API sae_status sae_molt_decode(const sae_molt *molt, const sae_features *features,
                                   const sae_rows *inputs, sae_molt_scratch *scratch, float *out,
                                   size_t n_out, sae_error *error);

#ifdef __cplusplus
}
#endif

#endif /* SAE_ARCHITECTURES_H */
