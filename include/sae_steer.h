/*
 * sae_steer.h - steering with libsae: edits of features, written into activation rows in place.
 *
 *     y' = y + g(x) * (sum over edited features of (f'_i - f_i(x)) d_i) + (sum of c_k v_k)
 *
 * x is the row at the input site, y the row at the output site (the same row, but for
 * transcoders), f_i the values that `sae_model_encode` reports, d_i the decoder rows, g what undoes
 * the normalisation of the input, v_k directions. The reconstruction error stays in the row
 * unless a plan drops it. All edits read the row as it was.
 *
 * A plan is JSON text (see docs/plans), by hand or from a `sae_plan_builder`. It is compiled once
 * against a model and then steers rows at the cost of the weight rows of the features that it
 * names, unless a rule needs all features (`sae_model_plan_cost` tells). The rules of sae.h hold
 * here too: order of arguments, errors, threads, memory. A `sae_plan` is immutable and shared by
 * threads; a `sae_plan_builder` and a `sae_steer_scratch` belong to one call at a time.
 */
#ifndef SAE_STEER_H
#define SAE_STEER_H

#include "sae_architectures.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------ */
/* Plans                                                                                       */
/* ------------------------------------------------------------------------------------------ */

/* Plans compiled for a model. Immutable. */
typedef struct sae_plan sae_plan;

/* What happens where several plans edit one feature of a row. `add` rules never conflict. */
typedef int32_t sae_conflicts;

enum {
    /* Plans for which it could happen do not compile. */
    SAE_CONFLICTS_REFUSE = 0,
    /* The first plan that acts on the row wins. */
    SAE_CONFLICTS_FIRST = 1,
    /* The last plan that acts on the row wins. */
    SAE_CONFLICTS_LAST = 2,
    /* All changes are added. */
    SAE_CONFLICTS_SUM = 3,
    /* Every row names the one plan that is for it (`sae_row_info.plan`). */
    SAE_CONFLICTS_ONE_PER_ROW = 4
};

/* Compiles plans for a model: checks them, and copies the weight rows that they need.
 *   plans, n_plans  JSON texts, at least one.
 *   conflicts  what happens where several plans meet.
 *   plan     receives the handle; release it with `sae_plan_destroy`.
 *   error    may be NULL. Its message names the place: `plans[1].edits[3].strength`.
 * Any thread. */
SAE_API sae_status sae_plan_compile(const sae_model *model, const char *const *plans,
                                    size_t n_plans, sae_conflicts conflicts, sae_plan **plan,
                                    sae_error *error);

/* The same, with what a labels file says of features (`sae_labels_observed`) for strengths that are
 * relative to a corpus maximum or mean. Statistics in a plan win.
 *   labels   of this model: SAE_STATUS_FEATURE_OUT_OF_RANGE for those of a wider one.
 * SAE_STATUS_INVALID_VALUE, with the place in the plan, for a statistic that neither has. */
SAE_API sae_status sae_plan_compile_with_labels(const sae_model *model, const char *const *plans,
                                                size_t n_plans, sae_conflicts conflicts,
                                                const sae_labels *labels, sae_plan **plan,
                                                sae_error *error);

/* Destroys compiled plans; NULL does nothing. No call may be using them. */
SAE_API void sae_plan_destroy(sae_plan *plan);

/* Number of plans that were compiled together; 0 if `plan` is no plan. Any thread. */
SAE_API size_t sae_plan_count(const sae_plan *plan);

/* What steering a row with a plan costs. */
typedef struct sae_plan_cost {
    /* sizeof(sae_plan_cost), stored by the caller before the call. */
    uint32_t struct_size;
    /* 1 if each row must be encoded in full (TopK models, strengths relative to the current
     * maximum, gates on the reconstruction, keep_only, scores, a dropped error), else 0. */
    uint32_t needs_encode;
    /* Encoder rows read besides. */
    uint64_t encoder_rows;
    /* Decoder rows of edited features. */
    uint64_t decoder_rows;
    /* Bytes of weights read per row at most, without decoder rows of features that no edit
     * names. */
    uint64_t bytes_per_row;
    /* Bytes that the compiled plan holds. */
    uint64_t bytes_held;
} sae_plan_cost;

/* Asks what a plan would cost, before it is paid.
 *   text     the plan, JSON.
 *   cost     `struct_size` in, the rest out.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_model_plan_cost(const sae_model *model, const char *text,
                                       sae_plan_cost *cost, sae_error *error);

/* The vector that the plans add to every row, for hosts that know constant vectors only.
 *   values, n_values  receives d_out values.
 *   error    may be NULL. SAE_STATUS_INVALID_VALUE if the plans do anything that depends on the
 *            row.
 * Any thread. */
SAE_API sae_status sae_model_plan_vector(const sae_model *model, const sae_plan *plan,
                                         float *values, size_t n_values, sae_error *error);

/* ------------------------------------------------------------------------------------------ */
/* Building plans without JSON                                                                 */
/* ------------------------------------------------------------------------------------------ */

/* A plan in the making. Belongs to one call at a time. */
typedef struct sae_plan_builder sae_plan_builder;

/* How the value f of a feature becomes f', with the strength c. */
typedef int32_t sae_rule;

enum {
    /* f' = c */
    SAE_RULE_SET = 0,
    /* f' = f + c; reads nothing */
    SAE_RULE_ADD = 1,
    /* f' = c f */
    SAE_RULE_SCALE = 2,
    /* f' = max(f, c) */
    SAE_RULE_MAX_CLAMP = 3,
    /* f' = min(f, c) */
    SAE_RULE_MIN_CAP = 4,
    /* f' = 0 */
    SAE_RULE_ZERO = 5,
    /* f' = -c where f > 0, else f */
    SAE_RULE_NEGATIVE_WHEN_ACTIVE = 6,
    /* f' = f - max(f, 0) + c */
    SAE_RULE_REPLACE_POSITIVE = 7,
    /* f' = f - max(min(f, c), 0): takes away at most c */
    SAE_RULE_REMOVE = 8,
    /* f' is the value in the source row */
    SAE_RULE_FROM_SOURCE = 9
};

/* What a strength is a multiple of. */
typedef int32_t sae_scale;

enum {
    /* 1: the units of `sae_model_encode`; for a direction, multiples of it. */
    SAE_SCALE_ABSOLUTE = 0,
    /* The feature's largest value over a corpus (`sae_plan_builder_statistics`). */
    SAE_SCALE_CORPUS_MAX = 1,
    /* The feature's mean value over a corpus. */
    SAE_SCALE_CORPUS_MEAN = 2,
    /* The largest value of any feature in the row. */
    SAE_SCALE_CURRENT_MAX = 3,
    /* The length of the output row. */
    SAE_SCALE_ROW_NORM = 4
};

/* Which value of a feature an edit reads. */
typedef int32_t sae_reads;

enum {
    /* The one that `sae_model_encode` reports, 0 if the feature does not fire. */
    SAE_READS_FEATURE = 0,
    /* The pre-activation, whether or not the feature fires. */
    SAE_READS_PRE_ACTIVATION = 1
};

/* One rule, for features or for a direction. Start with SAE_EDIT_INIT. */
typedef struct sae_edit {
    /* sizeof(sae_edit). */
    uint32_t struct_size;
    /* What is done. */
    sae_rule rule;
    /* What `strength` is a multiple of. */
    sae_scale of;
    /* Which value is read. */
    sae_reads reads;
    /* The number c of the rule; not used by SAE_RULE_ZERO and SAE_RULE_FROM_SOURCE. */
    double strength;
    /* So many standard deviations of the feature are added to it. */
    double deviations;
    /* Acts only where the value is above this, a multiple of `over_of`; NAN: no limit. */
    double over;
    /* Acts only where the value is below this, a multiple of `under_of`; NAN: no limit. */
    double under;
    /* The features that are edited; NULL if a direction is. */
    const uint32_t *features;
    /* How many. */
    size_t n_features;
    /* The name of a direction of the plan (`sae_plan_builder_direction`); NULL if features are. */
    const char *direction;
    /* One strength for each phase (step of a diffusion), in the place of `strength`; NULL if there
     * are none. */
    const double *phases;
    /* How many. */
    size_t n_phases;
    /* NULL. */
    const void *reserved;
    /* What `over` is a multiple of. */
    sae_scale over_of;
    /* What `under` is a multiple of. */
    sae_scale under_of;
    /* So many standard deviations of the feature are added to `over`. */
    double over_deviations;
    /* And to `under`. */
    double under_deviations;
    /* One limit for each phase, in the place of `over`; NULL if there are none. */
    const double *over_phases;
    /* How many. */
    size_t n_over_phases;
    /* One limit for each phase, in the place of `under`; NULL if there are none. */
    const double *under_phases;
    /* How many. */
    size_t n_under_phases;
} sae_edit;

/* No limits, no target: to initialise a variable with. Needs NAN of <math.h>. */
#define SAE_EDIT_INIT                                                                              \
    {(uint32_t)sizeof(sae_edit), 0, 0, 0, 0, 0, NAN, NAN, NULL, 0, NULL, NULL, 0, NULL,            \
     0, 0, 0, 0, NULL, 0, NULL, 0}

/* Starts a plan.
 *   name     what it is called in audits; NULL for no name.
 *   builder  receives the handle; release it with `sae_plan_builder_destroy`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_plan_builder_create(const char *name, sae_plan_builder **builder,
                                           sae_error *error);

/* Destroys a plan in the making; NULL does nothing. */
SAE_API void sae_plan_builder_destroy(sae_plan_builder *builder);

/* Adds an edit. Whether it fits a model is found when the plan is compiled.
 *   edit     what is copied.
 *   error    may be NULL. */
SAE_API sae_status sae_plan_builder_edit(sae_plan_builder *builder, const sae_edit *edit,
                                         sae_error *error);

/* Adds a direction for edits to name: a vector in the space of the output row.
 *   name      its name.
 *   values, n_values  the vector, of d_out values.
 *   normalize 1: divide it by its length. Else 0.
 *   error     may be NULL. */
SAE_API sae_status sae_plan_builder_direction(sae_plan_builder *builder, const char *name,
                                              const float *values, size_t n_values,
                                              uint32_t normalize, sae_error *error);

/* Gives the statistics of a feature, to which relative strengths refer; NAN for what is not known.
 *   feature   which.
 *   max, mean, deviation  over a corpus.
 *   error     may be NULL. */
SAE_API sae_status sae_plan_builder_statistics(sae_plan_builder *builder, uint32_t feature,
                                               double max, double mean, double deviation,
                                               sae_error *error);

/* Sets one of the plan's other keys, with the value that it has in JSON (docs/plans has them all):
 * "when", "rows", "budget", "error", "keep_only", "drop", "scores", "scope", "conflicts", "d_sae".
 * For example "rows" and "{\"skip_first\": 1}".
 *   key, value  texts.
 *   error     may be NULL. Its message names the place in the plan. */
SAE_API sae_status sae_plan_builder_set(sae_plan_builder *builder, const char *key,
                                        const char *value, sae_error *error);

/* The plan as JSON text, for `sae_plan_compile`, or to be kept.
 *   buffer, buffer_size  receives the text with a zero byte at the end; NULL and 0 to ask for the
 *                        size only.
 *   size     receives the bytes needed, with the zero byte; may be NULL.
 *   error    may be NULL.
 * SAE_STATUS_LENGTH if the buffer is too small: then nothing is written to it. */
SAE_API sae_status sae_plan_builder_write(const sae_plan_builder *builder, char *buffer,
                                          size_t buffer_size, size_t *size, sae_error *error);

/* ------------------------------------------------------------------------------------------ */
/* Rows                                                                                        */
/* ------------------------------------------------------------------------------------------ */

/* A batch of rows in memory of the caller, which are changed in place. As `sae_rows`; bytes between
 * rows keep their values. */
typedef struct sae_rows_mut {
    /* The first value of the first row; may be NULL if there are no rows. */
    void *data;
    /* Format of the values. */
    sae_dtype dtype;
    /* 0. */
    uint32_t reserved;
    /* Number of rows. */
    size_t n_rows;
    /* Values per row; must be the model's d_out. */
    size_t width;
    /* Bytes from one row to the next; 0 if the rows follow each other without gaps. */
    size_t stride_bytes;
} sae_rows_mut;

/* What became of a row. */
typedef uint8_t sae_outcome;

enum {
    /* No plan is for it. */
    SAE_OUTCOME_FILTERED = 0,
    /* A condition does not hold, or nothing changes: its bytes are as they were. */
    SAE_OUTCOME_UNCHANGED = 1,
    /* It was edited. */
    SAE_OUTCOME_EDITED = 2,
    /* It was edited, by as much as the budget allows. */
    SAE_OUTCOME_CLIPPED = 3,
    /* The budget does not allow the edit: left as it was. */
    SAE_OUTCOME_REFUSED = 4,
    /* The row, its source or a pre-activation is not finite: left as it was. */
    SAE_OUTCOME_NON_FINITE = 5,
    /* The result would not be finite in the format of the rows: left as it was. */
    SAE_OUTCOME_OVERFLOW = 6
};

/* Rows to steer, with what goes with them. Only `struct_size` and `rows` are needed; the rest may
 * be zero. No two arrays may overlap. */
typedef struct sae_steer_batch {
    /* sizeof(sae_steer_batch). */
    uint32_t struct_size;
    /* 1: leave all rows as they are and only report. Else 0. */
    uint32_t dry_run;
    /* The rows at the output site. */
    const sae_rows_mut *rows;
    /* The rows at the input site, as many; NULL where they are `rows`. */
    const sae_rows *inputs;
    /* Rows at the input site that `from_source` edits read; NULL if there are none. */
    const sae_rows *sources;
    /* About each row. NULL: the rows are one sequence from position 0 on, whose last row is the
     * last, and nothing else is known of them. */
    const sae_row_info *infos;
    /* Number of infos: that of the rows. */
    size_t n_infos;
    /* Receives what became of each row; NULL if not wanted. */
    sae_outcome *outcomes;
    /* Number of outcomes: that of the rows. */
    size_t n_outcomes;
    /* Receives the change of each value before it was rounded; NULL if not wanted. */
    double *changes;
    /* Number of changes: rows times d_out. */
    size_t n_changes;
} sae_steer_batch;

/* ------------------------------------------------------------------------------------------ */
/* Steering                                                                                    */
/* ------------------------------------------------------------------------------------------ */

/* The work space of one thread for one model and its plans; also counts what was done. */
typedef struct sae_steer_scratch sae_steer_scratch;

/* Makes work space for steering.
 *   model    the model.
 *   plan     plans that were compiled for it.
 *   scratch  receives the handle; release it with `sae_steer_scratch_destroy`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_steer_scratch_create(const sae_model *model, const sae_plan *plan,
                                            sae_steer_scratch **scratch, sae_error *error);

/* Destroys work space; NULL does nothing. */
SAE_API void sae_steer_scratch_destroy(sae_steer_scratch *scratch);

/* Steers every row of the batch in place. On failure no row was changed.
 *   plan     plans that were compiled for the model.
 *   batch    the rows, and what goes with them.
 *   scratch  made for the model and these plans; counts what is done.
 *   error    may be NULL.
 * Any thread, each with its own scratch. Allocates only to hold more infos than ever before. */
SAE_API sae_status sae_model_steer(const sae_model *model, const sae_plan *plan,
                                   const sae_steer_batch *batch, sae_steer_scratch *scratch,
                                   sae_error *error);

/* How many rows had an outcome, over all calls with this scratch; 0 if it is no scratch. */
SAE_API uint64_t sae_steer_scratch_count(const sae_steer_scratch *scratch, sae_outcome outcome);

/* What one plan did, over all calls with a scratch. */
typedef struct sae_audit {
    /* sizeof(sae_audit), stored by the caller before the call. */
    uint32_t struct_size;
    /* 0. */
    uint32_t reserved;
    /* Hash of the plan: the same for plans that say the same, on every machine. */
    uint64_t hash;
    /* Rows that it edited, alone or with others. */
    uint64_t rows;
    /* Mean of |y' - y| / |y| over these rows, before rounding; 0 if there are none. */
    double mean_relative;
    /* The largest of these. */
    double max_relative;
} sae_audit;

/* Asks what one plan did.
 *   index    the plan's number, in the order in which they were compiled.
 *   audit    `struct_size` in, the rest out.
 *   error    may be NULL. */
SAE_API sae_status sae_steer_scratch_audit(const sae_steer_scratch *scratch, size_t index,
                                           sae_audit *audit, sae_error *error);

/* ------------------------------------------------------------------------------------------ */
/* What a vector is made of                                                                    */
/* ------------------------------------------------------------------------------------------ */

/* A vector as a sum of decoder vectors. `a_i` is the decoder vector of feature i at length 1, v the
 * vector, `y = sum length_i a_i`. Immutable and shared by threads. */
typedef struct sae_decomposition sae_decomposition;

/* Decomposes a steering vector into features: by a pursuit on the decoder vectors, and by its cosine
 * with each of them. Encoding the vector would not do: it is no activation, and what it takes away
 * of a feature has no code (arXiv 2411.08790). Reads the decoder once, and once for each step.
 *   values, n_values  the vector, of d_out values.
 *   pursuit  how features are found; `directions` is not looked at. NULL: orthogonal matching
 *            pursuit with signed values, 16 steps.
 *   most     how many features to list that it points along the most, and as many against.
 *   decomposition  receives the handle; release it with `sae_decomposition_destroy`.
 *   error    may be NULL.
 * SAE_STATUS_INVALID_ARGUMENT for a vector that is not finite or has no length. Any thread. */
SAE_API sae_status sae_model_decompose(const sae_model *model, const float *values, size_t n_values,
                                       const sae_pursuit *pursuit, size_t most,
                                       sae_decomposition **decomposition, sae_error *error);

/* Destroys a decomposition; NULL does nothing. No call may be using it. */
SAE_API void sae_decomposition_destroy(sae_decomposition *decomposition);

/* The numbers of the whole. */
typedef struct sae_decomposed {
    /* sizeof(sae_decomposed), stored by the caller before the call. */
    uint32_t struct_size;
    /* 0. */
    uint32_t reserved;
    /* Features that the vector is made of: at most the steps of the pursuit. */
    uint64_t n_parts;
    /* Features listed that it points along. */
    uint64_t n_along;
    /* Features listed that it points against. */
    uint64_t n_against;
    /* |v| */
    double norm;
    /* <v, y> / (|v| |y|); 0 without parts. */
    double cosine;
    /* 1 - |v - y|^2 / |v|^2 */
    double explained;
} sae_decomposed;

/* Asks for the numbers of the whole.
 *   result   `struct_size` in, the rest out.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_decomposition_result(const sae_decomposition *decomposition,
                                            sae_decomposed *result, sae_error *error);

/* A feature that the vector is made of. */
typedef struct sae_vector_part {
    /* Which. */
    uint32_t feature;
    /* 0. */
    uint32_t reserved;
    /* <v, a_i> / |v| */
    double cosine;
    /* <v, a_i> */
    double projection;
    /* How much of a_i is in the sum; negative if it is taken away. */
    double length;
    /* The same in the units of the feature's values: what the rule `add` of a plan adds. NAN if the
     * model scales the feature by 0. */
    double strength;
} sae_vector_part;

/* Copies the features that the vector is made of, the longest first.
 *   parts, n_parts  receives them, exactly `n_parts` of the result.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_decomposition_parts(const sae_decomposition *decomposition,
                                           sae_vector_part *parts, size_t n_parts,
                                           sae_error *error);

/* How the vector lies to a feature. */
typedef struct sae_projection {
    /* Which. */
    uint32_t feature;
    /* 0. */
    uint32_t reserved;
    /* <v, a_i> / |v| */
    double cosine;
    /* <v, a_i> */
    double projection;
} sae_projection;

/* Copies the features that the vector points along the most, by cosine.
 *   projections, n_projections  receives them, exactly `n_along` of the result.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_decomposition_along(const sae_decomposition *decomposition,
                                           sae_projection *projections, size_t n_projections,
                                           sae_error *error);

/* Copies the features that the vector points against the most, by cosine.
 *   projections, n_projections  receives them, exactly `n_against` of the result.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_decomposition_against(const sae_decomposition *decomposition,
                                             sae_projection *projections, size_t n_projections,
                                             sae_error *error);

/* A plan that adds the parts to every row, as JSON text.
 *   name     what it is called; NULL for no name.
 *   buffer, buffer_size, size  as in `sae_plan_builder_write`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_decomposition_write_plan(const sae_decomposition *decomposition,
                                                const char *name, char *buffer,
                                                size_t buffer_size, size_t *size,
                                                sae_error *error);

/* ------------------------------------------------------------------------------------------ */
/* Models of kinds of their own                                                                */
/* ------------------------------------------------------------------------------------------ */

/* A Lorsa and a mixture of transforms (sae_architectures.h) are steered with the same plans, work
 * space and batches; plans are compiled for the one that they steer. */
struct sae_lorsa;

/* See sae_architectures.h. */
struct sae_molt;

/* As `sae_plan_compile`. Plans that read pre-activations, or have scores, are refused with
 * SAE_STATUS_INVALID_VALUE and their path: features do not say what they attend to.
 *   plan     receives the handle; release it with `sae_plan_destroy`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_lorsa_plan_compile(const struct sae_lorsa *lorsa, const char *const *plans,
                                          size_t n_plans, sae_conflicts conflicts, sae_plan **plan,
                                          sae_error *error);

/* As `sae_model_plan_cost`; the features come from `sae_lorsa_encode` in any case.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_lorsa_plan_cost(const struct sae_lorsa *lorsa, const char *text,
                                       sae_plan_cost *cost, sae_error *error);

/* As `sae_model_plan_vector`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_lorsa_plan_vector(const struct sae_lorsa *lorsa, const sae_plan *plan,
                                         float *values, size_t n_values, sae_error *error);

/* As `sae_steer_scratch_create`.
 *   scratch  receives the handle; release it with `sae_steer_scratch_destroy`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_lorsa_steer_scratch_create(const struct sae_lorsa *lorsa,
                                                  const sae_plan *plan,
                                                  sae_steer_scratch **scratch, sae_error *error);

/* Steers rows of the attention layer's output in place, by the features that `sae_lorsa_encode`
 * gave: so a row enters its cache once, however much is done with it. On failure no row was changed.
 *   plan     plans that were compiled for this Lorsa.
 *   features  of the rows, as many; a row whose status is not SAE_ROW_STATUS_OK is left alone.
 *   sources  features of the rows that `from_source` edits read; NULL if there are none.
 *   batch    as for `sae_model_steer`, but for `inputs` and `sources`, which must be NULL.
 *   scratch  made for this Lorsa and these plans.
 *   error    may be NULL.
 * Any thread, each with its own scratch. Allocates only to hold more infos or features than ever
 * before. */
SAE_API sae_status sae_lorsa_steer(const struct sae_lorsa *lorsa, const sae_plan *plan,
                                   const sae_features *features, const sae_features *sources,
                                   const sae_steer_batch *batch, sae_steer_scratch *scratch,
                                   sae_error *error);

/* As `sae_plan_compile`.
 *   plan     receives the handle; release it with `sae_plan_destroy`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_molt_plan_compile(const struct sae_molt *molt, const char *const *plans,
                                         size_t n_plans, sae_conflicts conflicts, sae_plan **plan,
                                         sae_error *error);

/* As `sae_model_plan_cost`: the bytes of a feature are those of its transform.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_molt_plan_cost(const struct sae_molt *molt, const char *text,
                                      sae_plan_cost *cost, sae_error *error);

/* As `sae_model_plan_vector`, for plans of directions: what a feature writes depends on the row.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_molt_plan_vector(const struct sae_molt *molt, const sae_plan *plan,
                                        float *values, size_t n_values, sae_error *error);

/* As `sae_steer_scratch_create`.
 *   scratch  receives the handle; release it with `sae_steer_scratch_destroy`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_molt_steer_scratch_create(const struct sae_molt *molt, const sae_plan *plan,
                                                 sae_steer_scratch **scratch, sae_error *error);

/* As `sae_model_steer`: a feature writes its transform of the row among the inputs.
 *   error    may be NULL.
 * Any thread, each with its own scratch. */
SAE_API sae_status sae_molt_steer(const struct sae_molt *molt, const sae_plan *plan,
                                  const sae_steer_batch *batch, sae_steer_scratch *scratch,
                                  sae_error *error);

#ifdef __cplusplus
}
#endif

#endif
