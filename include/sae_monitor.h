/*
 * sae_monitor.h - monitoring with libsae: rules that watch features of activation rows, alerts,
 * statistics, in memory that is fixed when they are made.
 *
 * Rules are JSON text: see docs/rules. They are compiled once against a model; then a monitor
 * watches rows of many streams at the cost of the encoder rows of the features that the rules name,
 * keeps each stream's state, and emits events to a callback and to a ring that another thread reads.
 * Rows that may yet be rejected (speculative decoding) are proposed, and committed or rolled back.
 *
 * The rules of sae.h hold here too: order of arguments, errors, threads, memory. `sae_rules` and
 * `sae_event_ring` are shared by threads; a `sae_monitor` belongs to one call at a time. Watching
 * rows allocates nothing but to hold more infos than ever before, and takes no lock.
 */
#ifndef SAE_MONITOR_H
#define SAE_MONITOR_H

#include "sae.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------ */
/* Rules                                                                                       */
/* ------------------------------------------------------------------------------------------ */

/* Rules compiled for a model. Immutable. */
typedef struct sae_rules sae_rules;

/* Compiles rules for a model: checks them, and copies the encoder rows that they need.
 *   text     the rules, JSON.
 *   rules    receives the handle; release it with `sae_rules_destroy`. Monitors keep what they
 *            need of it.
 *   error    may be NULL. Its message names the place: `rules[3].release`.
 * Any thread. */
SAE_API sae_status sae_rules_compile(const sae_model *model, const char *text, sae_rules **rules,
                                     sae_error *error);

/* Destroys rules; NULL does nothing. No call may be using them. */
SAE_API void sae_rules_destroy(sae_rules *rules);

/* Number of rules; 0 if `rules` is none. Any thread. */
SAE_API size_t sae_rules_count(const sae_rules *rules);

/* The name of a rule, or NULL if there is none of this index. It lives as long as the rules.
 * Any thread. */
SAE_API const char *sae_rules_name(const sae_rules *rules, size_t index);

/* The label of a feature, or NULL if the rules give it none. It lives as long as the rules.
 * Any thread. */
SAE_API const char *sae_rules_label(const sae_rules *rules, uint32_t feature);

/* Bytes of weights that watching one row reads; 0 if `rules` is none. Any thread. */
SAE_API uint64_t sae_rules_bytes_per_row(const sae_rules *rules);

/* A number that tells models apart, the same on every machine; statistics carry it. 0 if `model` is
 * none. One pass over its biases. Any thread. */
SAE_API uint64_t sae_model_fingerprint(const sae_model *model);

/* ------------------------------------------------------------------------------------------ */
/* Events                                                                                      */
/* ------------------------------------------------------------------------------------------ */

/* Most features that an event names. */
#define SAE_MAX_CONTRIBUTIONS 8

/* A feature's part in an alert. */
typedef struct sae_contribution {
    /* The feature. */
    uint32_t feature;
    /* Its value: in the row, or pooled for a linear head that pools. */
    float value;
    /* By what contributions are ordered: the value, weight times value, or how lately it fired. */
    float weight;
} sae_contribution;

/* An alert. */
typedef struct sae_event {
    /* Index of the rule. */
    uint32_t rule;
    /* Number of contributions. */
    uint32_t n_contributions;
    /* The stream of the row at which the rule alerted. */
    uint64_t stream;
    /* The row's position in its stream. */
    uint64_t position;
    /* The rule's score there. */
    double score;
    /* The features behind it, the largest weight first; those beyond their number are 0. */
    sae_contribution contributions[SAE_MAX_CONTRIBUTIONS];
} sae_event;

/* Receives an event, in the thread that watches the row. It must not use the monitor. */
typedef void (*sae_on_event)(const sae_event *event, void *context);

/* A bounded queue of events between threads, without locks. */
typedef struct sae_event_ring sae_event_ring;

/* Makes a queue.
 *   capacity  events that fit, rounded up to a power of two. A full queue drops new events and
 *            counts them.
 *   ring     receives the handle; release it with `sae_event_ring_destroy`. Monitors that were
 *            given it keep its memory alive.
 *   error    may be NULL. */
SAE_API sae_status sae_event_ring_create(size_t capacity, sae_event_ring **ring, sae_error *error);

/* Destroys a queue; NULL does nothing. No call may be using it. */
SAE_API void sae_event_ring_destroy(sae_event_ring *ring);

/* Takes the oldest event: returns 1 and stores it, or returns 0 if there is none. Any thread. */
SAE_API uint32_t sae_event_ring_pop(const sae_event_ring *ring, sae_event *event);

/* Events that were dropped because the queue was full. Any thread. */
SAE_API uint64_t sae_event_ring_dropped(const sae_event_ring *ring);

/* Writes an event as one line of JSON, without a line break, and a zero byte.
 *   buffer, n_bytes  receives as much as fits; NULL and 0 to ask for the size.
 *   needed   receives the bytes of all of it, with the zero byte.
 *   error    may be NULL. SAE_STATUS_LENGTH if it does not fit.
 * Any thread. Allocates. */
SAE_API sae_status sae_event_json(const sae_rules *rules, const sae_event *event, char *buffer,
                                  size_t n_bytes, size_t *needed, sae_error *error);

/* ------------------------------------------------------------------------------------------ */
/* Monitors                                                                                    */
/* ------------------------------------------------------------------------------------------ */

/* Rules at work on many streams. */
typedef struct sae_monitor sae_monitor;

/* What becomes of a row whose stream has no place, when all places are taken. */
typedef int32_t sae_unseen;

enum {
    /* The stream that waited longest without pending rows is forgotten, and counted. */
    SAE_UNSEEN_EVICT = 0,
    /* The row is refused, and counted. */
    SAE_UNSEEN_REFUSE = 1
};

/* Which features statistics are collected of. */
typedef int32_t sae_collect;

enum {
    /* Of none. */
    SAE_COLLECT_NONE = 0,
    /* Of those that the rules name. */
    SAE_COLLECT_WATCHED = 1,
    /* Of all: every row is encoded in full. */
    SAE_COLLECT_ALL = 2
};

/* How a monitor is made. Only `struct_size` is needed; the rest may be zero. */
typedef struct sae_monitor_options {
    /* sizeof(sae_monitor_options). */
    uint32_t struct_size;
    /* What becomes of streams beyond the room for them. */
    sae_unseen unseen;
    /* Which features statistics are collected of. */
    sae_collect collect;
    /* With statistics: rows of the largest values that are kept per feature. */
    uint32_t top;
    /* Streams watched at once; 0: 64. */
    size_t streams;
    /* Rows of a stream that can wait for a commit. */
    size_t pending_rows;
    /* With SAE_COLLECT_ALL: active features that a waiting row has room for; 0: 1024. */
    size_t pending_features;
    /* Where events go; NULL: into no queue. */
    const sae_event_ring *ring;
    /* Receives events; NULL: nobody does. */
    sae_on_event on_event;
    /* Passed to it. */
    void *context;
    /* With statistics: 1: histograms of the values, 48 bins per feature. */
    uint32_t histogram;
    /* 0. */
    uint32_t reserved;
} sae_monitor_options;

/* For `sae_monitor_row.flags`: the row has a signal. */
#define SAE_ROW_HAS_SIGNAL 1u

/* What the host knows about a row besides its values. */
typedef struct sae_monitor_row {
    /* The stream (sequence, request) that it belongs to. */
    uint64_t stream;
    /* Its position there. */
    uint64_t position;
    /* A number of the host's own that rules can watch, if the flag is set. */
    double signal;
    /* SAE_ROW_HAS_SIGNAL or 0. */
    uint32_t flags;
    /* 0. */
    uint32_t reserved;
} sae_monitor_row;

/* Makes a monitor.
 *   model    the model.
 *   rules    compiled for it.
 *   options  NULL: all of them zero.
 *   monitor  receives the handle; release it with `sae_monitor_destroy`.
 *   error    may be NULL. */
SAE_API sae_status sae_monitor_create(const sae_model *model, const sae_rules *rules,
                                      const sae_monitor_options *options, sae_monitor **monitor,
                                      sae_error *error);

/* Destroys a monitor; NULL does nothing. */
SAE_API void sae_monitor_destroy(sae_monitor *monitor);

/* Watches rows. Rows that are not finite are counted and left alone.
 *   rows     at the model's input site, d_in wide.
 *   infos, n_infos  about each row; NULL and 0: stream 0, one position after the other.
 *   scratch  made for the model.
 *   error    may be NULL. Nothing is watched then. SAE_STATUS_INVALID_ARGUMENT if a stream has
 *            rows that wait. */
SAE_API sae_status sae_monitor_observe(const sae_model *model, sae_monitor *monitor,
                                       const sae_rows *rows, const sae_monitor_row *infos,
                                       size_t n_infos, sae_scratch *scratch, sae_error *error);

/* Takes rows that may yet be rejected: they wait, in the order of their stream, and enter nothing.
 *   error    may be NULL. SAE_STATUS_LIMIT if a stream has no room for as many. */
SAE_API sae_status sae_monitor_propose(const sae_model *model, sae_monitor *monitor,
                                       const sae_rows *rows, const sae_monitor_row *infos,
                                       size_t n_infos, sae_scratch *scratch, sae_error *error);

/* Watches rows whose features are known. As `sae_monitor_observe`. */
SAE_API sae_status sae_monitor_observe_features(sae_monitor *monitor, const sae_features *features,
                                                const sae_monitor_row *infos, size_t n_infos,
                                                sae_error *error);

/* Takes rows whose features are known, and which may yet be rejected. As `sae_monitor_propose`. */
SAE_API sae_status sae_monitor_propose_features(sae_monitor *monitor, const sae_features *features,
                                                const sae_monitor_row *infos, size_t n_infos,
                                                sae_error *error);

/* Watches the first waiting rows of a stream; the others go on waiting.
 *   n_rows   how many; more than there are: all.
 *   committed  receives how many there were; may be NULL.
 *   error    may be NULL. */
SAE_API sae_status sae_monitor_commit(sae_monitor *monitor, uint64_t stream, size_t n_rows,
                                      size_t *committed, sae_error *error);

/* Forgets the last waiting rows of a stream: they were never there.
 *   n_rows   how many; more than there are: all.
 *   rolled_back  receives how many there were; may be NULL.
 *   error    may be NULL. */
SAE_API sae_status sae_monitor_rollback(sae_monitor *monitor, uint64_t stream, size_t n_rows,
                                        size_t *rolled_back, sae_error *error);

/* Forgets a stream, with its waiting rows, and frees its place. One that has none is no error. */
SAE_API sae_status sae_monitor_end_stream(sae_monitor *monitor, uint64_t stream, sae_error *error);

/* What a monitor has done. */
typedef struct sae_monitor_counts {
    /* sizeof(sae_monitor_counts), stored by the caller before the call. */
    uint32_t struct_size;
    /* Streams that have a place. */
    uint32_t streams;
    /* Rows that rules have seen, with those that were not finite. */
    uint64_t rows;
    /* Of these, rows that were not finite. */
    uint64_t non_finite;
    /* Rows that were rolled back. */
    uint64_t rolled_back;
    /* Rows refused because their stream had no place. */
    uint64_t refused;
    /* Streams forgotten to make room. */
    uint64_t evicted;
    /* Alerts. */
    uint64_t events;
    /* Alerts beyond the limit of their rule. */
    uint64_t suppressed;
    /* Bytes held, which never change. */
    uint64_t bytes;
} sae_monitor_counts;

/* Asks what a monitor has done.
 *   counts   `struct_size` in, the rest out.
 *   error    may be NULL. */
SAE_API sae_status sae_monitor_count(const sae_monitor *monitor, sae_monitor_counts *counts,
                                     sae_error *error);

/* Alerts of one rule; 0 if there is none of this index. */
SAE_API uint64_t sae_monitor_rule_events(const sae_monitor *monitor, size_t index);

/* What is known of a feature over all rows watched. */
typedef struct sae_feature_summary {
    /* sizeof(sae_feature_summary), stored by the caller before the call. */
    uint32_t struct_size;
    /* The feature. */
    uint32_t feature;
    /* Rows that were finite. */
    uint64_t rows;
    /* Rows in which it was active. */
    uint64_t fired;
    /* Mean over all rows, inactive ones as 0. */
    double mean;
    /* Variance over all rows, divided by their number. */
    double variance;
    /* Largest and smallest value over active rows; 0 if there are none. */
    float max;
    /* See `max`. */
    float min;
    /* The row of the largest: its stream. */
    uint64_t max_stream;
    /* The row of the largest: its position. */
    uint64_t max_position;
} sae_feature_summary;

/* Asks for the statistics of a feature.
 *   summary  `struct_size` in, the rest out.
 *   error    may be NULL. SAE_STATUS_INVALID_ARGUMENT if they are not collected. */
SAE_API sae_status sae_monitor_feature(const sae_monitor *monitor, uint32_t feature,
                                       sae_feature_summary *summary, sae_error *error);

/* The features that fired in none of the rows, ascending: of those that statistics are collected of.
 *   features, n_features  receives them; NULL and 0 to ask how many there are.
 *   count    receives their number.
 *   error    may be NULL. SAE_STATUS_LENGTH if they do not fit: none is written then.
 * Allocates. */
SAE_API sae_status sae_monitor_dead(const sae_monitor *monitor, uint32_t *features,
                                    size_t n_features, size_t *count, sae_error *error);

/* Description length of a row's features, in bits (MDL): for every feature the entropy of whether it
 * fires, and of the bin of its value if it does. For statistics with `histogram`.
 *   bits     receives it.
 *   error    may be NULL. SAE_STATUS_INVALID_ARGUMENT without histograms. */
SAE_API sae_status sae_monitor_description_length(const sae_monitor *monitor, double *bits,
                                                  sae_error *error);

/* Writes the statistics as JSON, to be read, and a zero byte. Features that never fired are left out.
 *   buffer, n_bytes  receives as much as fits; NULL and 0 to ask for the size.
 *   needed   receives the bytes of all of it, with the zero byte.
 *   error    may be NULL. SAE_STATUS_LENGTH if it does not fit.
 * Allocates. */
SAE_API sae_status sae_monitor_json(const sae_monitor *monitor, char *buffer, size_t n_bytes,
                                    size_t *needed, sae_error *error);

/* Writes counts and statistics as OpenMetrics text, and a zero byte, for hosts that serve /metrics.
 *   buffer, n_bytes  receives as much as fits; NULL and 0 to ask for the size.
 *   needed   receives the bytes of all of it, with the zero byte.
 *   error    may be NULL. SAE_STATUS_LENGTH if it does not fit.
 * Allocates nothing. */
SAE_API sae_status sae_monitor_open_metrics(const sae_monitor *monitor, char *buffer,
                                            size_t n_bytes, size_t *needed, sae_error *error);

/* Writes a snapshot of the statistics: the same bytes on every machine.
 *   buffer, n_bytes  receives it; NULL and 0 to ask for the size.
 *   needed   receives its bytes.
 *   error    may be NULL. SAE_STATUS_LENGTH if it does not fit: nothing is written then.
 * Allocates. */
SAE_API sae_status sae_monitor_snapshot(const sae_monitor *monitor, void *buffer, size_t n_bytes,
                                        size_t *needed, sae_error *error);

/* Adds the statistics of a snapshot, of the same model, features and options. Counts and sums have
 * the bits of one pass over the rows of both.
 *   bytes, n_bytes  the snapshot.
 *   error    may be NULL; nothing is added then. */
SAE_API sae_status sae_monitor_merge(sae_monitor *monitor, const void *bytes, size_t n_bytes,
                                     sae_error *error);

/* ------------------------------------------------------------------------------------------ */
/* Quality of reconstructions                                                                  */
/* ------------------------------------------------------------------------------------------ */

/* How well rows are reconstructed, streaming: x is a row of the model's output site, y its
 * reconstruction, f its features, b the decoder's bias. Memory is fixed. One call at a time. */
typedef struct sae_quality sae_quality;

/* How quality is made. Only `struct_size` is needed; the rest may be zero. */
typedef struct sae_quality_options {
    /* sizeof(sae_quality_options). */
    uint32_t struct_size;
    /* 1: keep what `sae_quality_fit_errors` needs, (d + 1)(d + 2)/2 sums, and as many additions for
     * every row: for offline use. */
    uint32_t fit_errors;
    /* The mean row that variances are about; NULL: that of the rows that are added. */
    const float *mean;
    /* Its length, d_out. */
    size_t n_mean;
} sae_quality_options;

/* Quality of one row; 0 where a quotient has no denominator. This struct never grows. */
typedef struct sae_row_quality {
    /* Number of active features. */
    double l0;
    /* sum f */
    double l1;
    /* |f| */
    double l2;
    /* |x| */
    double norm;
    /* |y| */
    double reconstruction_norm;
    /* |x - y| */
    double error_norm;
    /* <x, y> / (|x| |y|) */
    double cosine;
    /* |y| / |x| */
    double norm_ratio;
    /* (|y - b|^2 - |f|^2) / |f|^2: near 0 where decoder rows are orthonormal (ZF). */
    double zf_deviation;
    /* (|f| - |x - b|)^2, the AFA loss. */
    double afa_loss;
    /* (|x - y|^2 - a.x - c) / deviation with the error model's a, c, deviation: how far the error is
     * above what the row lets expect; 0 without one. A signal for rules. */
    double anomaly;
    /* 1 if row and reconstruction are finite; else all of the above is 0. */
    uint32_t finite;
    /* 0. */
    uint32_t reserved;
} sae_row_quality;

/* Means over rows, and what is formed from sums over all of them. */
typedef struct sae_quality_summary {
    /* sizeof(sae_quality_summary), stored by the caller before the call. */
    uint32_t struct_size;
    /* 0. */
    uint32_t reserved;
    /* Rows that entered. */
    uint64_t rows;
    /* Rows that were not finite, or whose reconstruction was not. */
    uint64_t non_finite;
    /* Rows with a norm of 2^30 and beyond, which entered nothing. */
    uint64_t overflows;
    /* Rows with an anomaly above the limit. */
    uint64_t anomalous;
    /* Mean number of active features. */
    double l0;
    /* Mean of sum f. */
    double l1;
    /* Mean squared error per value. */
    double mse;
    /* Fraction of variance unexplained, global: sum |x - y|^2 / sum |x - mean|^2. */
    double fvu;
    /* 1 - fvu */
    double explained_variance;
    /* Mean cosine. */
    double cosine;
    /* Mean of |y| / |x|. */
    double norm_ratio;
    /* mean |y|^2 / mean <x, y>; 1 is without bias. */
    double reconstruction_bias;
    /* Mean of `sae_row_quality.zf_deviation`. */
    double zf_deviation;
    /* Mean of `sae_row_quality.afa_loss`. */
    double afa_loss;
} sae_quality_summary;

/* Makes quality that has seen nothing.
 *   options  NULL: all of them zero.
 *   quality  receives the handle; release it with `sae_quality_destroy`.
 *   error    may be NULL. */
SAE_API sae_status sae_quality_create(const sae_model *model, const sae_quality_options *options,
                                      sae_quality **quality, sae_error *error);

/* Destroys quality; NULL does nothing. */
SAE_API void sae_quality_destroy(sae_quality *quality);

/* Adds rows.
 *   rows     at the model's output site, d_out wide.
 *   features  of the rows, from `sae_model_encode`.
 *   reconstructions, n_values  from `sae_model_decode`, rows * d_out values.
 *   each, n_each  receives the quality of each row; NULL and 0: nobody does.
 *   error    may be NULL. SAE_STATUS_LENGTH if there are not as many of each; nothing is added then.
 * Allocates nothing, but with `fit_errors`. */
SAE_API sae_status sae_quality_add(sae_quality *quality, const sae_rows *rows,
                                   const sae_features *features, const float *reconstructions,
                                   size_t n_values, sae_row_quality *each, size_t n_each,
                                   sae_error *error);

/* Asks for the means over all rows so far.
 *   summary  `struct_size` in, the rest out.
 *   error    may be NULL. */
SAE_API sae_status sae_quality_summarize(const sae_quality *quality, sae_quality_summary *summary,
                                         sae_error *error);

/* Writes the summary as JSON, and a zero byte.
 *   buffer, n_bytes  receives as much as fits; NULL and 0 to ask for the size.
 *   needed   receives the bytes of all of it, with the zero byte.
 *   error    may be NULL. SAE_STATUS_LENGTH if it does not fit.
 * Allocates. */
SAE_API sae_status sae_quality_json(const sae_quality *quality, char *buffer, size_t n_bytes,
                                    size_t *needed, sae_error *error);

/* Writes a snapshot: the same bytes on every machine.
 *   buffer, n_bytes  receives it; NULL and 0 to ask for the size.
 *   needed   receives its bytes.
 *   error    may be NULL. SAE_STATUS_LENGTH if it does not fit: nothing is written then.
 * Allocates. */
SAE_API sae_status sae_quality_snapshot(const sae_quality *quality, void *buffer, size_t n_bytes,
                                        size_t *needed, sae_error *error);

/* Adds a snapshot, of the same model, about the same mean, by the same error model: the bits of one
 * pass over the rows of both. What `sae_quality_fit_errors` needs is not in it.
 *   bytes, n_bytes  the snapshot.
 *   error    may be NULL; nothing is added then. */
SAE_API sae_status sae_quality_merge(const sae_model *model, sae_quality *quality,
                                     const void *bytes, size_t n_bytes, sae_error *error);

/* Fits an error model by least squares over all rows so far: |x - y|^2 is predicted as a.x + c.
 *   ridge    times the mean of the diagonal is added to it; 1e-9 does well.
 *   buffer, n_bytes  receives the model as bytes; NULL and 0 to ask for the size.
 *   needed   receives its bytes.
 *   error    may be NULL. SAE_STATUS_INVALID_ARGUMENT without `fit_errors` or with too few rows.
 * Allocates; takes d_out^3/3 operations. */
SAE_API sae_status sae_quality_fit_errors(const sae_quality *quality, double ridge, void *buffer,
                                          size_t n_bytes, size_t *needed, sae_error *error);

/* Scores all rows by an error model, from the first on, and counts those above a limit.
 *   bytes, n_bytes  the model.
 *   over     the limit.
 *   error    may be NULL. SAE_STATUS_INVALID_ARGUMENT once rows were added. */
SAE_API sae_status sae_quality_set_error_model(sae_quality *quality, const void *bytes,
                                               size_t n_bytes, double over, sae_error *error);

/* ------------------------------------------------------------------------------------------ */
/* Models of kinds of their own                                                                */
/* ------------------------------------------------------------------------------------------ */

/* A Lorsa and a mixture of transforms (sae_architectures.h) are watched by the same rules and
 * monitors, which are given their features: `sae_monitor_observe_features`,
 * `sae_monitor_propose_features`. */
struct sae_lorsa;

/* See sae_architectures.h. */
struct sae_molt;

/* As `sae_rules_compile`.
 *   rules    receives the handle; release it with `sae_rules_destroy`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_lorsa_rules_compile(const struct sae_lorsa *lorsa, const char *text,
                                           sae_rules **rules, sae_error *error);

/* As `sae_monitor_create`.
 *   monitor  receives the handle; release it with `sae_monitor_destroy`.
 *   error    may be NULL. */
SAE_API sae_status sae_lorsa_monitor_create(const struct sae_lorsa *lorsa, const sae_rules *rules,
                                            const sae_monitor_options *options,
                                            sae_monitor **monitor, sae_error *error);

/* As `sae_rules_compile`.
 *   rules    receives the handle; release it with `sae_rules_destroy`.
 *   error    may be NULL.
 * Any thread. */
SAE_API sae_status sae_molt_rules_compile(const struct sae_molt *molt, const char *text,
                                          sae_rules **rules, sae_error *error);

/* As `sae_monitor_create`.
 *   monitor  receives the handle; release it with `sae_monitor_destroy`.
 *   error    may be NULL. */
SAE_API sae_status sae_molt_monitor_create(const struct sae_molt *molt, const sae_rules *rules,
                                           const sae_monitor_options *options,
                                           sae_monitor **monitor, sae_error *error);

#ifdef __cplusplus
}
#endif

#endif
