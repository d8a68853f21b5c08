/*
 * sae_ggml.h - libsae inside ggml and llama.cpp: features of every token, and edits, through the
 * evaluation callback (`cb_eval` of llama_context_params). Header-only, C11 and C++17; needs the
 * headers of ggml.
 *
 *     sae_ggml_hook *hook = NULL;
 *     sae_ggml_hook_create(&hook, &error);
 *     sae_ggml_tap tap = sae_ggml_tap_of(model);
 *     sae_ggml_site_find("blocks.12.hook_resid_post", "gemma2", n_layer, &tap.site, &error);
 *     tap.encode = 1, tap.on_rows = print_features;
 *     sae_ggml_hook_add(hook, &tap, NULL, &error);
 *     context_params.cb_eval = sae_ggml_eval, context_params.cb_eval_user_data = hook;
 *     ...
 *     sae_ggml_begin(hook, &batch);            // optional: what the rows are
 *     llama_decode(context, llama_batch);      // print_features is called meanwhile
 *     sae_ggml_end(hook, &error);              // says whether all went well
 *
 * The hook must live as long as the context, since llama.cpp keeps the callback;
 * `sae_ggml_hook_enable` switches it on and off. A hook belongs to one context and its thread;
 * models, sets and plans are shared.
 *
 * The callback answers "yes" only for the tensors of its taps, so the rest of the graph still runs
 * in one piece. Each hooked tensor costs one more synchronisation. Rows in host memory are read and
 * edited in place; rows on a device are copied, and only those that were edited are copied back.
 *
 * A model that writes at another site than it reads (a transcoder) has a second site, `site_out`: then
 * rows are edited there, by what it reads at the first.
 *
 * An edit at block L changes keys and values of the blocks above it for that position, for good:
 * switching steering off does not undo it for tokens in the cache.
 */
#ifndef SAE_GGML_H
#define SAE_GGML_H

#include "sae.h"
#include "sae_steer.h"

#include "ggml-backend.h"
#include "ggml.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------ */
/* Sites                                                                                       */
/* ------------------------------------------------------------------------------------------ */

/* A host's own test of a tensor. Only names, op, shape and sources may be looked at: it runs before
 * the tensor is computed. */
typedef bool (*sae_ggml_match)(const struct ggml_tensor *tensor, void *data);

/* Which tensor of a graph. What is "" or -1 or NULL is not asked for. */
typedef struct sae_ggml_site {
    /* The tensor's name, such as "l_out-12". */
    char name[GGML_MAX_NAME];
    /* Another name that it has in other versions of llama.cpp. */
    char other_name[GGML_MAX_NAME];
    /* The name of its first source: for tensors that have no name of their own. */
    char source[GGML_MAX_NAME];
    /* Its operation, an `enum ggml_op`; -1 for any. */
    int32_t op;
    /* Which of the tensors of one graph that match, from 0. */
    int32_t occurrence;
    /* How many match in one graph: one more is an error. 0: any number. */
    int32_t count;
    /* 1: it has rows only for the tokens whose output is wanted (`llama_batch.logits`), as in the
     * last block of llama.cpp's graphs. */
    int32_t outputs_only;
    /* The host's own test besides; NULL for none. */
    sae_ggml_match match;
    /* Handed to `match`. */
    void *match_data;
} sae_ggml_site;

/* A site that is not asked for anything yet. */
static inline sae_ggml_site sae_ggml_site_any(void) {
    sae_ggml_site site;
    memset(&site, 0, sizeof site);
    site.op = -1;
    return site;
}

/* Fills an error; returns its status. */
static inline sae_status sae_ggml_fail(sae_error *error, sae_status status, const char *format,
                                       ...) {
    if (error != NULL) {
        va_list list;
        va_start(list, format);
        memset(error, 0, sizeof *error);
        error->code = status;
        int length = vsnprintf(error->message, sizeof error->message, format, list);
        error->message_length = length < 0 ? 0 : (uint32_t)length;
        va_end(list);
    }
    return status;
}

static inline sae_status sae_ggml_ok(sae_error *error) {
    if (error != NULL) memset(error, 0, sizeof *error);
    return SAE_STATUS_OK;
}

static inline bool sae_ggml_begins(const char *text, const char *start) {
    return strncmp(text, start, strlen(start)) == 0;
}

/* The number behind the last '-' of a tensor's name; -1 if there is none. */
static inline int32_t sae_ggml_layer_of(const char *name) {
    const char *dash = strrchr(name, '-');
    if (dash == NULL || dash[1] == 0 || strspn(dash + 1, "0123456789") != strlen(dash + 1) ||
        strlen(dash + 1) > 6)
        return -1;
    return (int32_t)strtol(dash + 1, NULL, 10);
}

/* Finds the tensor of a hook in llama.cpp's graphs.
 *   hook     a publisher's hook name ("blocks.12.hook_resid_post", "model.layers.12"), or the name
 *            of a tensor ("l_out-12").
 *   architecture  the language model's `general.architecture` ("llama", "gemma2", ...).
 *   n_layer  its number of blocks.
 *   site     receives the site.
 *   error    may be NULL.
 * SAE_STATUS_INVALID_ARGUMENT for a hook that is unknown or means more than one tensor, or that
 * this architecture's graph does not name: then fill in a site by hand. */
static inline sae_status sae_ggml_site_find(const char *hook, const char *architecture,
                                            int32_t n_layer, sae_ggml_site *site,
                                            sae_error *error) {
    if (hook == NULL || architecture == NULL || site == NULL)
        return sae_ggml_fail(error, SAE_STATUS_NULL_ARGUMENT, "a NULL argument");
    *site = sae_ggml_site_any();
    site->count = 1;
    const char *a = architecture;
    bool gemma = sae_ggml_begins(a, "gemma"), llama = strcmp(a, "llama") == 0;
    bool gemma2 = strcmp(a, "gemma2") == 0, gemma3 = strcmp(a, "gemma3") == 0;
    bool plain = strcmp(a, "qwen2") == 0 || strcmp(a, "qwen3") == 0 || strcmp(a, "gpt2") == 0;
    bool bert = strcmp(a, "bert") == 0;
    sae_hook_point point = SAE_HOOK_UNKNOWN;
    int32_t layer = -1;
    const char *form = NULL;
    if (sae_hook_parse(hook, &point, &layer, NULL) != SAE_STATUS_OK) {
        /* A tensor's name has no dots. */
        if (hook[0] == 0 || strchr(hook, '.') != NULL || strlen(hook) >= GGML_MAX_NAME)
            return sae_ggml_fail(error, SAE_STATUS_INVALID_ARGUMENT,
                                 "`%.100s` is no hook that is known and means one tensor; give the "
                                 "name of the tensor",
                                 hook);
        layer = sae_ggml_layer_of(hook);
        if (llama && sae_ggml_begins(hook, "ffn_out-"))
            return sae_ggml_fail(error, SAE_STATUS_INVALID_ARGUMENT,
                                 "`%s` may name two tensors in the graphs of llama: say "
                                 "blocks.%d.hook_mlp_out for what the MLP adds, l_out-%d for the "
                                 "sum",
                                 hook, (int)layer, (int)layer);
        snprintf(site->name, sizeof site->name, "%s", hook);
        static const char *const late[] = {"l_out-",    "ffn_", "sa_out-", "attn_post_norm-",
                                           "result_norm"};
        for (size_t i = 0; i < sizeof late / sizeof late[0]; i++)
            if (sae_ggml_begins(hook, late[i]) && (layer == n_layer - 1 || layer < 0))
                site->outputs_only = 1;
        return sae_ggml_ok(error);
    }
    if (point != SAE_HOOK_EMBEDDING && layer >= n_layer)
        return sae_ggml_fail(error, SAE_STATUS_INVALID_ARGUMENT,
                             "`%.100s` is block %d, the model has %d", hook, (int)layer,
                             (int)n_layer);
    if (point == SAE_HOOK_RESID_PRE && layer > 0) {
        point = SAE_HOOK_RESID_POST;
        layer -= 1;
    }
    site->outputs_only = layer == n_layer - 1;
    switch (point) {
        case SAE_HOOK_RESID_POST:
            if (bert) {
                /* The sum behind the second norm of the block has no name of its own. */
                snprintf(site->source, sizeof site->source, "norm_w-%d", (int)layer);
                site->op = GGML_OP_ADD;
                site->occurrence = 1;
                site->count = 2;
                return sae_ggml_ok(error);
            }
            form = "l_out-%d";
            break;
        case SAE_HOOK_EMBEDDING:
        case SAE_HOOK_RESID_PRE:
            site->outputs_only = 0;
            if (gemma) {
                form = "inp_scaled";
            } else if (bert) {
                form = point == SAE_HOOK_RESID_PRE ? "inp_norm-0" : NULL;
            } else if (strcmp(a, "gpt2") == 0 && point == SAE_HOOK_RESID_PRE) {
                form = "inpL";
            } else {
                form = "embd";
                snprintf(site->other_name, sizeof site->other_name, "inp_embd");
            }
            break;
        case SAE_HOOK_RESID_MID:
            form = gemma ? "sa_out-%d" : bert ? NULL : "ffn_inp-%d";
            break;
        case SAE_HOOK_HEADS:
            site->outputs_only = 0;
            form = "kqv_out-%d";
            break;
        case SAE_HOOK_ATTN_OUT:
            site->outputs_only = site->outputs_only && gemma;
            form = gemma2 || gemma3 ? "attn_post_norm-%d" : llama ? "attn_out-%d" : NULL;
            break;
        case SAE_HOOK_MLP_IN:
            form = bert ? NULL : "ffn_norm-%d";
            break;
        case SAE_HOOK_MLP_OUT:
            if (gemma2) {
                /* Named without its block: the block is the number of the occurrence. */
                site->occurrence = layer;
                site->count = n_layer;
                form = "ffn_post_norm";
            } else if (gemma3) {
                form = "ffn_post_norm-%d";
            } else if (llama || plain) {
                /* With a control vector, llama's sum has this name too, and comes second. */
                site->count = llama ? 2 : 1;
                form = "ffn_out-%d";
            }
            break;
        default:
            break;
    }
    if (form == NULL)
        return sae_ggml_fail(error, SAE_STATUS_INVALID_ARGUMENT,
                             "the graph of `%.60s` has no name that means `%.100s`: fill in a site "
                             "by hand",
                             architecture, hook);
    const char *number = strstr(form, "%d");
    size_t head = number == NULL ? strlen(form) : (size_t)(number - form);
    memcpy(site->name, form, head);
    if (number != NULL) snprintf(site->name + head, sizeof site->name - head, "%d", (int)layer);
    return sae_ggml_ok(error);
}

/* ------------------------------------------------------------------------------------------ */
/* Taps                                                                                        */
/* ------------------------------------------------------------------------------------------ */

/* What a tap found in the rows of one tensor. Everything in it is valid during the call only. */
typedef struct sae_ggml_event {
    /* Number of the tap. */
    size_t tap;
    /* The tensor. */
    const struct ggml_tensor *tensor;
    /* The rows as the model read them: before steering, and after centring where its site needs
     * it. */
    const sae_rows *rows;
    /* Number of rows of this tap before these, since `sae_ggml_begin`. */
    size_t first_row;
    /* For each row its index in the batch; NULL if the batch is not known. */
    const size_t *tokens;
    /* The features that fire; NULL if the tap does not encode. */
    const sae_features *features;
    /* The values of the set, row after row; NULL if the tap has no set. */
    const float *values;
    /* Number of features of the set. */
    size_t n_values;
    /* What happened to each row of the readout; NULL if the tap has no set. */
    const sae_row_status *status;
} sae_ggml_event;

/* Receives what a tap found, on the thread that decodes. */
typedef void (*sae_ggml_on_rows)(const sae_ggml_event *event, void *data);

/* What is done at a site. */
typedef struct sae_ggml_tap {
    /* Which tensor. */
    sae_ggml_site site;
    /* The model. It must outlive the hook, as must set and plan. */
    const sae_model *model;
    /* 1: encode every row. */
    int32_t encode;
    /* Features to read out of every row; NULL for none. */
    const sae_set *set;
    /* For models that write at another site than they read (transcoders): the tensor that their
     * output belongs to, behind `site` in the graph. Needed for a plan and for the fit check; rows
     * of `site` are kept until it comes. Not asked for anything: one site. */
    sae_ggml_site site_out;
    /* Plans with which every row is steered, at the output site; NULL for none. */
    const sae_plan *plan;
    /* The first so many rows are used to check that the model fits the site (and what it gives, the
     * output site), better than the sites beside it; until then nothing is reported or steered. If
     * it does not fit, the tap stops and `sae_ggml_end` says what fits better. 0: no check. */
    size_t fit_rows;
    /* Receives what was found; may be NULL. */
    sae_ggml_on_rows on_rows;
    /* Handed to `on_rows`. */
    void *data;
    /* Runs the encoding on threads of the host (`sae_model_encode_parallel`), which are idle while
     * the callback runs; NULL: on the thread that decodes. */
    sae_parallel_for parallel_for;
    /* Handed to `parallel_for`. */
    void *parallel_host;
    /* Number of its threads. */
    size_t n_workers;
} sae_ggml_tap;

/* A tap that does nothing yet. */
static inline sae_ggml_tap sae_ggml_tap_of(const sae_model *model) {
    sae_ggml_tap tap;
    memset(&tap, 0, sizeof tap);
    tap.site = sae_ggml_site_any();
    tap.site_out = sae_ggml_site_any();
    tap.model = model;
    return tap;
}

/* What the host knows about the tokens of a batch. The arrays may be those of a `llama_batch`; they
 * must stay until `sae_ggml_end`. llama.cpp gives the rows of a context with one sequence, or with
 * `kv_unified`, in the order of the batch; with several sequences in separate caches it reorders
 * them, and then `positions`, `outputs` and `infos` must be NULL. */
typedef struct sae_ggml_batch {
    /* Number of tokens. */
    size_t n_tokens;
    /* Position of each in its sequence; NULL if not known. */
    const int32_t *positions;
    /* Not 0 for those whose output is wanted; NULL: only the last one's (as llama.cpp has it). */
    const int8_t *outputs;
    /* More about each; NULL for nothing. Positions in it count, not those above. */
    const sae_row_info *infos;
} sae_ggml_batch;

/* ------------------------------------------------------------------------------------------ */
/* Hooks                                                                                       */
/* ------------------------------------------------------------------------------------------ */

/* Rows of an input site that wait for those of the output site; not for the host. */
typedef struct sae_ggml_kept {
    unsigned char *bytes;
    size_t size;
    /* What `bytes` holds; its data is NULL while nothing waits. */
    sae_rows rows;
    /* Number of rows before these, since `sae_ggml_begin`. */
    size_t first;
} sae_ggml_kept;

/* Where a model reads and writes in a graph, and what of it was found; not for the host. */
typedef struct sae_ggml_place {
    sae_ggml_site site;
    sae_ggml_site site_out;
    /* Tensors that matched in this graph. */
    int32_t matches;
    int32_t matches_out;
    bool wanted;
    bool wanted_out;
    /* Rows seen since `sae_ggml_begin`. */
    size_t rows_seen;
    size_t rows_seen_out;
    sae_ggml_kept kept;
} sae_ggml_place;

/* A candidate of the fit check: the tap's site or one beside it. */
typedef struct sae_ggml_candidate {
    sae_ggml_place place;
    sae_fit_check *check;
} sae_ggml_candidate;

/* Most sites that a fit check compares. */
#define SAE_GGML_CANDIDATES 5

/* A tap with its work space; not for the host. */
typedef struct sae_ggml_state {
    sae_ggml_tap tap;
    sae_site site;
    size_t d_in;
    size_t d_out;
    /* Whether the model writes at another site than it reads. */
    bool two_sites;
    sae_scratch *scratch;
    sae_features *features;
    sae_steer_scratch *steer;
    sae_workers *workers;
    sae_ggml_place place;
    bool stopped;
    bool fitting;
    sae_ggml_candidate candidates[SAE_GGML_CANDIDATES];
    size_t n_candidates;
    sae_fit found[SAE_GGML_CANDIDATES];
    /* Buffers that grow: rows from a device, centred rows, values, numbers for each row. */
    unsigned char *copied;
    size_t copied_size;
    float *centred;
    size_t centred_size;
    float *values;
    size_t values_size;
    sae_row_info *infos;
    size_t infos_size;
    size_t *tokens;
    size_t tokens_size;
    sae_row_status *status;
    size_t status_size;
    sae_outcome *outcomes;
    size_t outcomes_size;
} sae_ggml_state;

/* Taps at tensors of one context. */
typedef struct sae_ggml_hook {
    sae_ggml_state **states;
    size_t n_states;
    bool disabled;
    bool in_graph;
    char first_name[GGML_MAX_NAME];
    enum ggml_op first_op;
    sae_ggml_batch batch;
    bool has_batch;
    sae_error failure;
} sae_ggml_hook;

/* Makes a hook without taps; release it with `sae_ggml_hook_destroy`. */
static inline sae_status sae_ggml_hook_create(sae_ggml_hook **hook, sae_error *error) {
    if (hook == NULL) return sae_ggml_fail(error, SAE_STATUS_NULL_ARGUMENT, "`hook` is NULL");
    *hook = (sae_ggml_hook *)calloc(1, sizeof(sae_ggml_hook));
    if (*hook == NULL) return sae_ggml_fail(error, SAE_STATUS_OUT_OF_MEMORY, "no memory");
    return sae_ggml_ok(error);
}

static inline void sae_ggml_state_destroy(sae_ggml_state *state) {
    for (size_t i = 0; i < state->n_candidates; i++) {
        sae_fit_check_destroy(state->candidates[i].check);
        free(state->candidates[i].place.kept.bytes);
    }
    free(state->place.kept.bytes);
    sae_scratch_destroy(state->scratch);
    sae_features_destroy(state->features);
    sae_steer_scratch_destroy(state->steer);
    sae_workers_destroy(state->workers);
    free(state->copied);
    free(state->centred);
    free(state->values);
    free(state->infos);
    free(state->tokens);
    free(state->status);
    free(state->outcomes);
    free(state);
}

/* Destroys a hook; NULL does nothing. The context that uses it must be freed before. */
static inline void sae_ggml_hook_destroy(sae_ggml_hook *hook) {
    if (hook == NULL) return;
    for (size_t i = 0; i < hook->n_states; i++) sae_ggml_state_destroy(hook->states[i]);
    free(hook->states);
    free(hook);
}

/* Switches a hook on or off: at once, without another graph. Hooks begin switched on. */
static inline void sae_ggml_hook_enable(sae_ggml_hook *hook, bool enabled) {
    hook->disabled = !enabled;
}

/* Another site of the same kind `by` blocks away, if the tensor has a block. */
static inline bool sae_ggml_neighbour(const sae_ggml_site *site, int32_t by, sae_ggml_site *out) {
    *out = *site;
    char *name = site->name[0] != 0 ? out->name : out->source;
    int32_t layer = sae_ggml_layer_of(name);
    if (strcmp(name, "ffn_post_norm") == 0) {
        /* Gemma 2 names it without its block. */
        out->occurrence += by;
        return out->occurrence >= 0 && out->occurrence < site->count;
    }
    if (layer < 0 || layer + by < 0 || site->match != NULL) return false;
    char *dash = strrchr(name, '-');
    snprintf(dash, GGML_MAX_NAME - (size_t)(dash - name), "-%d", (int)(layer + by));
    out->outputs_only = 0;
    return true;
}

static inline sae_status sae_ggml_add_candidate(sae_ggml_state *state, const sae_ggml_site *site,
                                                const sae_ggml_site *site_out, sae_error *error) {
    sae_ggml_candidate *candidate = &state->candidates[state->n_candidates];
    sae_status status = sae_fit_check_create(state->tap.model, &candidate->check, error);
    if (status != SAE_STATUS_OK) return status;
    candidate->place.site = *site;
    candidate->place.site_out = *site_out;
    state->n_candidates++;
    return SAE_STATUS_OK;
}

/* Whether a site asks for anything. */
static inline bool sae_ggml_asks(const sae_ggml_site *site) {
    return site->name[0] != 0 || site->source[0] != 0 || site->match != NULL;
}

static inline sae_status sae_ggml_state_fill(sae_ggml_state *state, sae_error *error) {
    const sae_ggml_tap *tap = &state->tap;
    const sae_ggml_site *site = &tap->site;
    state->site.struct_size = (uint32_t)sizeof state->site;
    sae_status status = sae_model_site(tap->model, &state->site, error);
    if (status != SAE_STATUS_OK) return status;
    if (!sae_ggml_asks(site))
        return sae_ggml_fail(error, SAE_STATUS_INVALID_ARGUMENT,
                             "the site has no name, no source and no test: it would match anything");
    state->d_in = sae_model_d_in(tap->model);
    state->d_out = sae_model_d_out(tap->model);
    state->place.site = *site;
    state->place.site_out = tap->site_out;
    bool one_site = state->site.point_out == SAE_HOOK_UNKNOWN &&
                    sae_model_text(tap->model, SAE_TEXT_HOOK_NAME_OUT)[0] == 0 &&
                    sae_model_d_out(tap->model) == state->d_in;
    state->two_sites = !one_site;
    const char *name_out = sae_model_text(tap->model, SAE_TEXT_HOOK_NAME_OUT);
    if (one_site && sae_ggml_asks(&tap->site_out))
        return sae_ggml_fail(error, SAE_STATUS_INVALID_ARGUMENT,
                             "the model writes where it reads: leave `site_out` as it is");
    if (!one_site && !sae_ggml_asks(&tap->site_out) && (tap->plan != NULL || tap->fit_rows > 0))
        return sae_ggml_fail(error, SAE_STATUS_INVALID_ARGUMENT,
                             "steering and fit checks of a model that writes at another site than "
                             "it reads need `site_out`%s%.100s",
                             name_out[0] != 0 ? ": it writes at " : "", name_out);
    if (state->site.concatenated_heads != 0 && site->name[0] != 0 &&
        !sae_ggml_begins(site->name, "kqv_out"))
        return sae_ggml_fail(error, SAE_STATUS_INVALID_ARGUMENT,
                             "the model reads concatenated attention heads, `%s` is another tensor",
                             site->name);
    status = sae_scratch_create(tap->model, &state->scratch, error);
    if (status == SAE_STATUS_OK)
        status = sae_features_create(1, 0, &state->features, error);
    if (status == SAE_STATUS_OK && tap->plan != NULL)
        status = sae_steer_scratch_create(tap->model, tap->plan, &state->steer, error);
    if (status == SAE_STATUS_OK && tap->parallel_for != NULL)
        status = sae_workers_create(tap->model, tap->n_workers, &state->workers, error);
    if (status != SAE_STATUS_OK || tap->fit_rows == 0) return status;
    state->fitting = true;
    const sae_ggml_site *out = &tap->site_out;
    status = sae_ggml_add_candidate(state, site, out, error);
    sae_ggml_site other, other_out = *out;
    for (int32_t by = -1; by <= 1 && status == SAE_STATUS_OK; by += 2)
        if (sae_ggml_neighbour(site, by, &other) &&
            (one_site || sae_ggml_neighbour(out, by, &other_out)))
            status = sae_ggml_add_candidate(state, &other, &other_out, error);
    if (!one_site) {
        /* The same block, read before its norm in the place of behind it, or the other way round. */
        static const char *const PAIRS[][2] = {{"ffn_norm-", "ffn_inp-%d"},
                                               {"ffn_norm-", "sa_out-%d"},
                                               {"ffn_inp-", "ffn_norm-%d"},
                                               {"sa_out-", "ffn_norm-%d"}};
        for (size_t i = 0; i < sizeof PAIRS / sizeof *PAIRS && status == SAE_STATUS_OK; i++) {
            if (!sae_ggml_begins(site->name, PAIRS[i][0])) continue;
            int32_t layer = sae_ggml_layer_of(site->name);
            other = sae_ggml_site_any();
            size_t head = strlen(PAIRS[i][1]) - strlen("%d");
            memcpy(other.name, PAIRS[i][1], head);
            snprintf(other.name + head, sizeof other.name - head, "%d", (int)layer);
            status = sae_ggml_add_candidate(state, &other, out, error);
        }
        return status;
    }
    /* The norms that read the same residual stream. */
    if (sae_ggml_begins(site->name, "l_out-")) {
        int32_t layer = sae_ggml_layer_of(site->name);
        for (int32_t i = 0; i < 2 && status == SAE_STATUS_OK; i++) {
            other = sae_ggml_site_any();
            snprintf(other.name, sizeof other.name, i == 0 ? "ffn_norm-%d" : "attn_norm-%d",
                     (int)(i == 0 ? layer : layer + 1));
            status = sae_ggml_add_candidate(state, &other, out, error);
        }
    }
    return status;
}

/* Adds a tap to a hook; not while its context decodes.
 *   tap      what to do where; copied.
 *   number   receives its number, 0, 1, ..; may be NULL.
 *   error    may be NULL. */
static inline sae_status sae_ggml_hook_add(sae_ggml_hook *hook, const sae_ggml_tap *tap,
                                           size_t *number, sae_error *error) {
    if (hook == NULL || tap == NULL)
        return sae_ggml_fail(error, SAE_STATUS_NULL_ARGUMENT, "a NULL argument");
    sae_ggml_state **grown = (sae_ggml_state **)realloc(
        hook->states, (hook->n_states + 1) * sizeof(sae_ggml_state *));
    if (grown == NULL) return sae_ggml_fail(error, SAE_STATUS_OUT_OF_MEMORY, "no memory");
    hook->states = grown;
    sae_ggml_state *state = (sae_ggml_state *)calloc(1, sizeof(sae_ggml_state));
    if (state == NULL) return sae_ggml_fail(error, SAE_STATUS_OUT_OF_MEMORY, "no memory");
    state->tap = *tap;
    sae_status status = sae_ggml_state_fill(state, error);
    if (status != SAE_STATUS_OK) {
        sae_ggml_state_destroy(state);
        return status;
    }
    if (number != NULL) *number = hook->n_states;
    hook->states[hook->n_states++] = state;
    return SAE_STATUS_OK;
}

/* The work space with which a tap steers: what it counted and audited. NULL without a plan. */
static inline const sae_steer_scratch *sae_ggml_steered(const sae_ggml_hook *hook, size_t tap) {
    return tap < hook->n_states ? hook->states[tap]->steer : NULL;
}

/* ------------------------------------------------------------------------------------------ */
/* The fit check                                                                               */
/* ------------------------------------------------------------------------------------------ */

/* What to call a site in messages. */
static inline const char *sae_ggml_site_label(const sae_ggml_site *site, char *buffer,
                                              size_t size) {
    if (site->name[0] != 0) return site->name;
    if (site->source[0] != 0)
        snprintf(buffer, size, "the %s of `%s`, number %d",
                 site->op < 0 ? "result" : ggml_op_name((enum ggml_op)site->op), site->source,
                 (int)site->occurrence);
    else
        snprintf(buffer, size, "the site");
    return buffer;
}

/* The same of a place: "ffn_norm-3 -> ffn_out-3" where there are two sites. */
static inline const char *sae_ggml_place_label(const sae_ggml_place *place, char *buffer,
                                               size_t size) {
    char label[2 * GGML_MAX_NAME], label_out[2 * GGML_MAX_NAME];
    const char *name = sae_ggml_site_label(&place->site, label, sizeof label);
    if (!sae_ggml_asks(&place->site_out))
        snprintf(buffer, size, "%s", name);
    else
        snprintf(buffer, size, "%s -> %s", name,
                 sae_ggml_site_label(&place->site_out, label_out, sizeof label_out));
    return buffer;
}

/* Writes what the fit check of a tap found, a line for each site, into a buffer. Returns the
 * length of the text, which may be more than fits. 0 if the check was not asked for or is not
 * done. */
static inline size_t sae_ggml_fit_text(const sae_ggml_hook *hook, size_t tap, char *buffer,
                                       size_t size) {
    if (size > 0) buffer[0] = 0;
    if (tap >= hook->n_states || hook->states[tap]->fitting) return 0;
    const sae_ggml_state *state = hook->states[tap];
    size_t length = 0;
    for (size_t i = 0; i < state->n_candidates; i++) {
        const sae_fit *fit = &state->found[i];
        char label[4 * GGML_MAX_NAME + 8];
        char line[6 * GGML_MAX_NAME];
        int n = fit->rows == 0
                    ? 0
                    : snprintf(line, sizeof line, "%-24s rows %4llu  FVU %7.3f  L0 %7.1f%s\n",
                               sae_ggml_place_label(&state->candidates[i].place, label,
                                                    sizeof label),
                               (unsigned long long)fit->rows, fit->fvu, fit->l0,
                               i == 0 ? "  <- hooked" : "");
        if (n <= 0) continue;
        if (length < size) snprintf(buffer + length, size - length, "%s", line);
        length += (size_t)n;
    }
    return length;
}

/* What the fit check of a tap counted at its own site so far.
 *   fit      `struct_size` in, the rest out.
 *   error    may be NULL. SAE_STATUS_INVALID_ARGUMENT if the tap has no fit check. */
static inline sae_status sae_ggml_fit(const sae_ggml_hook *hook, size_t tap, sae_fit *fit,
                                      sae_error *error) {
    if (hook == NULL) return sae_ggml_fail(error, SAE_STATUS_NULL_ARGUMENT, "`hook` is NULL");
    if (tap >= hook->n_states || hook->states[tap]->n_candidates == 0)
        return sae_ggml_fail(error, SAE_STATUS_INVALID_ARGUMENT, "no tap with a fit check");
    return sae_fit_check_result(hook->states[tap]->candidates[0].check, fit, error);
}

static inline void sae_ggml_stop(sae_ggml_hook *hook, sae_ggml_state *state,
                                 const sae_error *error) {
    state->stopped = true;
    if (hook->failure.code == SAE_STATUS_OK) hook->failure = *error;
}

/* Decides whether the tap's site is the one that fits, once there are enough rows. */
static inline void sae_ggml_judge(sae_ggml_hook *hook, sae_ggml_state *state) {
    sae_error error;
    size_t best = 0;
    for (size_t i = 0; i < state->n_candidates; i++) {
        sae_fit *fit = &state->found[i];
        fit->struct_size = (uint32_t)sizeof *fit;
        if (sae_fit_check_result(state->candidates[i].check, fit, &error) != SAE_STATUS_OK) {
            sae_ggml_stop(hook, state, &error);
            return;
        }
        if (i == 0 && fit->rows < state->tap.fit_rows) return;
        /* Fewer rows than the site itself has (the last block) say too little. */
        if (fit->verdict != SAE_VERDICT_TOO_FEW_ROWS && fit->rows * 2 >= state->found[0].rows &&
            fit->fvu < state->found[best].fvu)
            best = i;
    }
    state->fitting = false;
    const sae_fit *own = &state->found[0], *other = &state->found[best];
    char label[4 * GGML_MAX_NAME + 8], label_other[4 * GGML_MAX_NAME + 8];
    const char *name = sae_ggml_place_label(&state->place, label, sizeof label);
    const char *name_other =
        sae_ggml_place_label(&state->candidates[best].place, label_other, sizeof label_other);
    if (best != 0 && other->fvu < 0.8 * own->fvu && other->fvu <= 0.9) {
        sae_ggml_fail(&error, SAE_STATUS_INVALID_VALUE,
                      "this SAE fits %s (FVU %.2f, L0 %.0f), you hooked %s (FVU %.2f, L0 %.0f)",
                      name_other, other->fvu, other->l0, name, own->fvu, own->l0);
        sae_ggml_stop(hook, state, &error);
    } else if (own->verdict == SAE_VERDICT_WRONG) {
        sae_ggml_fail(&error, SAE_STATUS_INVALID_VALUE,
                      "this SAE does not fit %s: FVU %.2f, L0 %.0f over %llu rows", name, own->fvu,
                      own->l0, (unsigned long long)own->rows);
        sae_ggml_stop(hook, state, &error);
    }
}

/* ------------------------------------------------------------------------------------------ */
/* Evaluation                                                                                  */
/* ------------------------------------------------------------------------------------------ */

static inline void sae_ggml_place_begin(sae_ggml_place *place) {
    place->rows_seen = place->rows_seen_out = 0;
    place->kept.rows.data = NULL;
}

/* Begins a decode: rows and graphs are counted from here on.
 *   batch    what the rows are; NULL if it is not known. Needed if the model leaves out rows by
 *            their position (`sae_site`). */
static inline void sae_ggml_begin(sae_ggml_hook *hook, const sae_ggml_batch *batch) {
    hook->in_graph = false;
    hook->has_batch = batch != NULL;
    if (batch != NULL) hook->batch = *batch;
    for (size_t i = 0; i < hook->n_states; i++) {
        sae_ggml_place_begin(&hook->states[i]->place);
        for (size_t j = 0; j < hook->states[i]->n_candidates; j++)
            sae_ggml_place_begin(&hook->states[i]->candidates[j].place);
    }
}

/* Whether the tap does anything at a site of its own for the output: not while it is checked, which
 * its candidates do. */
static inline bool sae_ggml_needs_output(const sae_ggml_state *state) {
    return state->two_sites && state->tap.plan != NULL && !state->fitting;
}

static inline bool sae_ggml_output(const sae_ggml_batch *batch, size_t token) {
    return batch->outputs == NULL ? token + 1 == batch->n_tokens : batch->outputs[token] != 0;
}

/* Ends a decode: says what went wrong in it, if anything did; a tap that failed has stopped. With a
 * batch, a site that no tensor of the graph matched is an error too. */
static inline sae_status sae_ggml_end(sae_ggml_hook *hook, sae_error *error) {
    if (hook == NULL) return sae_ggml_fail(error, SAE_STATUS_NULL_ARGUMENT, "`hook` is NULL");
    bool outputs = false;
    for (size_t token = 0; hook->has_batch && token < hook->batch.n_tokens; token++)
        outputs = outputs || sae_ggml_output(&hook->batch, token);
    for (size_t i = 0; i < hook->n_states && hook->failure.code == SAE_STATUS_OK; i++) {
        sae_ggml_state *state = hook->states[i];
        bool expected = hook->has_batch && hook->batch.n_tokens > 0 && !hook->disabled &&
                        !state->stopped;
        bool fits = state->fitting && state->two_sites;
        const sae_ggml_place *place = fits ? &state->candidates[0].place : &state->place;
        bool both = fits || sae_ggml_needs_output(state);
        char label[2 * GGML_MAX_NAME];
        if (expected && place->rows_seen == 0 && (outputs || !place->site.outputs_only))
            return sae_ggml_fail(error, SAE_STATUS_INVALID_ARGUMENT,
                                 "no tensor of the graph is %s",
                                 sae_ggml_site_label(&place->site, label, sizeof label));
        if (expected && both && place->rows_seen_out == 0 &&
            (outputs || !place->site_out.outputs_only))
            return sae_ggml_fail(error, SAE_STATUS_INVALID_ARGUMENT,
                                 "no tensor of the graph is %s",
                                 sae_ggml_site_label(&place->site_out, label, sizeof label));
        if (state->fitting && !state->stopped) sae_ggml_judge(hook, state);
    }
    if (hook->failure.code == SAE_STATUS_OK) return sae_ggml_ok(error);
    sae_error failure = hook->failure;
    memset(&hook->failure, 0, sizeof hook->failure);
    if (error != NULL) *error = failure;
    return failure.code;
}

/* Whether a tensor is that of a site; counts those that match. -1: more match than there may be. */
static inline int sae_ggml_is(const sae_ggml_site *site, const struct ggml_tensor *t,
                              int32_t *matches) {
    if (site->name[0] != 0 && strcmp(t->name, site->name) != 0 &&
        (site->other_name[0] == 0 || strcmp(t->name, site->other_name) != 0))
        return 0;
    if (site->op >= 0 && (int32_t)t->op != site->op) return 0;
    if (site->source[0] != 0 && (t->src[0] == NULL || strcmp(t->src[0]->name, site->source) != 0))
        return 0;
    if (site->match != NULL && !site->match(t, site->match_data)) return 0;
    int32_t number = (*matches)++;
    if (site->count > 0 && number >= site->count) return -1;
    return number == site->occurrence;
}

/* A buffer of at least `size` bytes; what it held is lost. */
static inline bool sae_ggml_grow(void **buffer, size_t *held, size_t size) {
    if (*held >= size && *buffer != NULL) return true;
    void *fresh = malloc(size == 0 ? 1 : size);
    if (fresh == NULL) return false;
    free(*buffer);
    *buffer = fresh;
    *held = size;
    return true;
}

/* The rows of a tensor, that of the output site if `out`, in its own memory or copied from a device,
 * centred if the model needs it. */
static inline sae_status sae_ggml_load(sae_ggml_state *state, const struct ggml_tensor *t,
                                       bool out, sae_rows *raw, sae_rows *rows, bool *on_host,
                                       sae_error *error) {
    if (t->type != GGML_TYPE_F32 && t->type != GGML_TYPE_F16 && t->type != GGML_TYPE_BF16)
        return sae_ggml_fail(error, SAE_STATUS_UNSUPPORTED, "`%s` is %s, not f32, f16 or bf16",
                             t->name, ggml_type_name(t->type));
    size_t width = out ? state->d_out : state->d_in;
    if ((size_t)t->ne[0] != width)
        return sae_ggml_fail(error, SAE_STATUS_LENGTH,
                             "the rows of `%s` have %lld values, the model %s %llu", t->name,
                             (long long)t->ne[0], out ? "writes" : "reads",
                             (unsigned long long)width);
    size_t n = (size_t)(t->ne[1] * t->ne[2] * t->ne[3]);
    bool even = (t->ne[2] == 1 || t->nb[2] == (size_t)t->ne[1] * t->nb[1]) &&
                (t->ne[3] == 1 || t->nb[3] == (size_t)t->ne[2] * t->nb[2]);
    if (t->nb[0] != ggml_type_size(t->type) || !even)
        return sae_ggml_fail(error, SAE_STATUS_UNSUPPORTED,
                             "the rows of `%s` do not lie at one distance", t->name);
    ggml_backend_buffer_t buffer = t->view_src != NULL ? t->view_src->buffer : t->buffer;
    *on_host = buffer == NULL || ggml_backend_buffer_is_host(buffer);
    void *data = t->data;
    if (!*on_host) {
        if (!sae_ggml_grow((void **)&state->copied, &state->copied_size, ggml_nbytes(t)))
            return sae_ggml_fail(error, SAE_STATUS_OUT_OF_MEMORY, "no memory");
        ggml_backend_tensor_get(t, state->copied, 0, ggml_nbytes(t));
        data = state->copied;
    }
    /* The numbers of sae_dtype are those of ggml_type. */
    memset(raw, 0, sizeof *raw);
    raw->data = data;
    raw->dtype = (sae_dtype)t->type;
    raw->n_rows = n;
    raw->width = width;
    raw->stride_bytes = t->nb[1];
    *rows = *raw;
    if (state->site.mean_center == 0) return SAE_STATUS_OK;
    size_t count = n * width;
    if (!sae_ggml_grow((void **)&state->centred, &state->centred_size, count * sizeof(float)))
        return sae_ggml_fail(error, SAE_STATUS_OUT_OF_MEMORY, "no memory");
    for (size_t r = 0; r < n; r++) {
        const unsigned char *from = (const unsigned char *)data + r * t->nb[1];
        float *to = state->centred + r * width;
        double sum = 0;
        for (size_t j = 0; j < width; j++) {
            if (t->type == GGML_TYPE_F32) {
                memcpy(&to[j], from + j * sizeof(float), sizeof(float));
            } else {
                uint16_t half;
                memcpy(&half, from + j * sizeof half, sizeof half);
                if (t->type == GGML_TYPE_F16) {
                    to[j] = ggml_fp16_to_fp32(half);
                } else {
                    ggml_bf16_t value;
                    value.bits = half;
                    to[j] = ggml_bf16_to_fp32(value);
                }
            }
            sum += (double)to[j];
        }
        double mean = sum / (double)width;
        for (size_t j = 0; j < width; j++) to[j] = (float)((double)to[j] - mean);
    }
    rows->data = state->centred;
    rows->dtype = SAE_DTYPE_F32;
    rows->stride_bytes = 0;
    return SAE_STATUS_OK;
}

/* What is known of `n` rows from row `first` of a decode on; NULL in `infos` if nothing is. */
static inline sae_status sae_ggml_infos(const sae_ggml_hook *hook, sae_ggml_state *state,
                                        bool outputs_only, size_t first, size_t n,
                                        const sae_row_info **infos, sae_error *error) {
    /* Positions below this were left out of the model's training. */
    uint64_t from = state->site.first_position;
    if (state->site.exclude_special_tokens == 1 && state->site.prepend_bos == 1 && from == 0)
        from = 1;
    *infos = NULL;
    const sae_ggml_batch *batch = &hook->batch;
    bool known = hook->has_batch && (batch->infos != NULL || batch->positions != NULL);
    if (!known && from > 0)
        return sae_ggml_fail(error, SAE_STATUS_INVALID_ARGUMENT,
                             "the model leaves out the first %llu position(s): give "
                             "sae_ggml_begin the positions of the batch",
                             (unsigned long long)from);
    if (!hook->has_batch) return SAE_STATUS_OK;
    if (!sae_ggml_grow((void **)&state->infos, &state->infos_size, n * sizeof(sae_row_info)) ||
        !sae_ggml_grow((void **)&state->tokens, &state->tokens_size, n * sizeof(size_t)))
        return sae_ggml_fail(error, SAE_STATUS_OUT_OF_MEMORY, "no memory");
    size_t row = 0, found = 0;
    for (size_t token = 0; token < batch->n_tokens && found < n; token++) {
        if (outputs_only && !sae_ggml_output(batch, token)) continue;
        if (row++ < first) continue;
        sae_row_info *info = &state->infos[found];
        state->tokens[found++] = token;
        memset(info, 0, sizeof *info);
        info->plan = SAE_ALL_PLANS;
        info->factor = 1;
        info->last = token + 1 == batch->n_tokens;
        if (batch->positions != NULL) info->position = (uint32_t)batch->positions[token];
        if (batch->infos != NULL) *info = batch->infos[token];
        if (info->position < from) info->stage = SAE_STAGE_SKIPPED;
    }
    if (found < n)
        return sae_ggml_fail(error, SAE_STATUS_LENGTH,
                             "the graph has more rows than the batch has %s",
                             outputs_only ? "outputs" : "tokens");
    if (known) *infos = state->infos;
    return SAE_STATUS_OK;
}

/* Keeps rows until those of the output site come: the input's memory may be another tensor's then. */
static inline sae_status sae_ggml_keep(sae_ggml_kept *kept, const sae_rows *rows, size_t first,
                                       sae_error *error) {
    size_t row = rows->width * (rows->dtype == SAE_DTYPE_F32 ? sizeof(float) : sizeof(uint16_t));
    size_t stride = rows->stride_bytes != 0 ? rows->stride_bytes : row;
    if (!sae_ggml_grow((void **)&kept->bytes, &kept->size, rows->n_rows * row))
        return sae_ggml_fail(error, SAE_STATUS_OUT_OF_MEMORY, "no memory");
    for (size_t r = 0; r < rows->n_rows; r++)
        memcpy(kept->bytes + r * row, (const unsigned char *)rows->data + r * stride, row);
    kept->rows = *rows;
    kept->rows.data = kept->bytes;
    kept->rows.stride_bytes = 0;
    kept->first = first;
    return SAE_STATUS_OK;
}

/* Checks that the rows which were kept belong to `n` rows of the output site. */
static inline sae_status sae_ggml_paired(const sae_ggml_place *place, const struct ggml_tensor *t,
                                         size_t n, sae_error *error) {
    char label[2 * GGML_MAX_NAME];
    const char *name = sae_ggml_site_label(&place->site, label, sizeof label);
    if (place->kept.rows.data == NULL)
        return sae_ggml_fail(error, SAE_STATUS_INVALID_ARGUMENT,
                             "`%s` comes before what the model reads, %s", t->name, name);
    if (place->kept.rows.n_rows != n)
        return sae_ggml_fail(error, SAE_STATUS_LENGTH, "`%s` has %llu rows, %s had %llu", t->name,
                             (unsigned long long)n, name,
                             (unsigned long long)place->kept.rows.n_rows);
    return SAE_STATUS_OK;
}

/* A part of rows. */
static inline sae_rows sae_ggml_part(const sae_rows *rows, size_t first, size_t count) {
    sae_rows part = *rows;
    size_t row = rows->width * (rows->dtype == SAE_DTYPE_F32 ? sizeof(float) : sizeof(uint16_t));
    size_t stride = rows->stride_bytes != 0 ? rows->stride_bytes : row;
    part.data = (const unsigned char *)rows->data + first * stride;
    part.n_rows = count;
    return part;
}

/* Takes the rows that are not skipped to the fit check of a candidate, with what they should give
 * where that is at another site. */
static inline sae_status sae_ggml_fit_rows(const sae_ggml_hook *hook, sae_ggml_state *state,
                                           sae_ggml_candidate *candidate, const sae_rows *rows,
                                           const sae_rows *targets, size_t first,
                                           sae_error *error) {
    const sae_row_info *infos = NULL;
    sae_status status = sae_ggml_infos(hook, state, candidate->place.site.outputs_only != 0, first,
                                       rows->n_rows, &infos, error);
    size_t row = 0;
    while (status == SAE_STATUS_OK && row < rows->n_rows) {
        size_t end = row + 1;
        bool skipped = infos != NULL && infos[row].stage == SAE_STAGE_SKIPPED;
        while (end < rows->n_rows && infos != NULL &&
               skipped == (infos[end].stage == SAE_STAGE_SKIPPED))
            end++;
        if (infos == NULL) end = rows->n_rows;
        sae_rows part = sae_ggml_part(rows, row, end - row), part_out;
        if (targets != NULL) part_out = sae_ggml_part(targets, row, end - row);
        if (!skipped)
            status = sae_model_check_fit(state->tap.model, candidate->check, &part,
                                         targets != NULL ? &part_out : NULL, state->scratch,
                                         error);
        row = end;
    }
    return status;
}

/* A candidate's tensor: `out` if it is that of the output site. */
static inline sae_status sae_ggml_fit_tensor(const sae_ggml_hook *hook, sae_ggml_state *state,
                                             sae_ggml_candidate *candidate,
                                             const struct ggml_tensor *t, bool out,
                                             sae_error *error) {
    sae_ggml_place *place = &candidate->place;
    sae_rows raw, rows;
    bool on_host;
    sae_status status = sae_ggml_load(state, t, out, &raw, &rows, &on_host, error);
    if (status != SAE_STATUS_OK) return status;
    if (!out) {
        size_t first = place->rows_seen;
        place->rows_seen += rows.n_rows;
        return state->two_sites
                   ? sae_ggml_keep(&place->kept, &rows, first, error)
                   : sae_ggml_fit_rows(hook, state, candidate, &rows, NULL, first, error);
    }
    place->rows_seen_out += rows.n_rows;
    /* Only the tap's own sites must be a pair: others are guesses. */
    if (sae_ggml_paired(place, t, rows.n_rows, error) != SAE_STATUS_OK)
        return candidate == state->candidates ? error->code : SAE_STATUS_OK;
    status = sae_ggml_fit_rows(hook, state, candidate, &place->kept.rows, &rows,
                               place->kept.first, error);
    place->kept.rows.data = NULL;
    return status;
}

/* Steers the rows of a tensor; `inputs` are those that the model reads. */
static inline sae_status sae_ggml_steer(sae_ggml_state *state, struct ggml_tensor *t,
                                        const sae_rows *raw, const sae_rows *inputs, bool on_host,
                                        const sae_row_info *infos, sae_error *error) {
    sae_rows_mut out;
    memset(&out, 0, sizeof out);
    out.data = on_host ? t->data : (void *)state->copied;
    out.dtype = raw->dtype;
    out.n_rows = raw->n_rows;
    out.width = raw->width;
    out.stride_bytes = raw->stride_bytes;
    if (!sae_ggml_grow((void **)&state->outcomes, &state->outcomes_size, raw->n_rows))
        return sae_ggml_fail(error, SAE_STATUS_OUT_OF_MEMORY, "no memory");
    sae_steer_batch batch;
    memset(&batch, 0, sizeof batch);
    batch.struct_size = (uint32_t)sizeof batch;
    batch.rows = &out;
    if (inputs->data != raw->data) batch.inputs = inputs;
    batch.infos = infos;
    batch.n_infos = infos == NULL ? 0 : raw->n_rows;
    batch.outcomes = state->outcomes;
    batch.n_outcomes = raw->n_rows;
    sae_status status =
        sae_model_steer(state->tap.model, state->tap.plan, &batch, state->steer, error);
    if (status != SAE_STATUS_OK || on_host) return status;
    size_t row_bytes = raw->width * ggml_type_size(t->type);
    for (size_t r = 0; r < raw->n_rows; r++) {
        sae_outcome outcome = state->outcomes[r];
        if (outcome == SAE_OUTCOME_EDITED || outcome == SAE_OUTCOME_CLIPPED)
            ggml_backend_tensor_set(t, state->copied + r * raw->stride_bytes,
                                    r * raw->stride_bytes, row_bytes);
    }
    return SAE_STATUS_OK;
}

static inline sae_status sae_ggml_run(sae_ggml_hook *hook, size_t number, struct ggml_tensor *t,
                                      sae_error *error) {
    sae_ggml_state *state = hook->states[number];
    const sae_ggml_tap *tap = &state->tap;
    sae_rows raw, rows;
    bool on_host;
    sae_status status = sae_ggml_load(state, t, false, &raw, &rows, &on_host, error);
    if (status != SAE_STATUS_OK) return status;
    size_t n = rows.n_rows, first = state->place.rows_seen;
    state->place.rows_seen += n;
    if (n == 0 || state->fitting) return SAE_STATUS_OK;
    const sae_row_info *infos = NULL;
    status = sae_ggml_infos(hook, state, tap->site.outputs_only != 0, first, n, &infos, error);
    if (status != SAE_STATUS_OK) return status;
    sae_ggml_event event;
    memset(&event, 0, sizeof event);
    event.tap = number;
    event.tensor = t;
    event.rows = &rows;
    event.first_row = first;
    event.tokens = hook->has_batch ? state->tokens : NULL;
    bool skips = false;
    for (size_t r = 0; r < n && infos != NULL; r++)
        skips = skips || infos[r].stage == SAE_STAGE_SKIPPED;
    if (tap->encode != 0) {
        status = state->workers != NULL && !skips
                     ? sae_model_encode_parallel(tap->model, &rows, tap->parallel_for,
                                                 tap->parallel_host, state->workers,
                                                 state->features, error)
                     : sae_model_encode_with(tap->model, &rows, infos, infos == NULL ? 0 : n,
                                       state->scratch, state->features, error);
        if (status != SAE_STATUS_OK) return status;
        event.features = state->features;
    }
    if (tap->set != NULL) {
        event.n_values = sae_set_count(tap->set);
        if (!sae_ggml_grow((void **)&state->values, &state->values_size,
                           n * event.n_values * sizeof(float)) ||
            !sae_ggml_grow((void **)&state->status, &state->status_size, n))
            return sae_ggml_fail(error, SAE_STATUS_OUT_OF_MEMORY, "no memory");
        status = sae_model_readout_with(tap->model, tap->set, &rows, infos, infos == NULL ? 0 : n,
                                        state->scratch, state->values, n * event.n_values,
                                        state->status, error);
        if (status != SAE_STATUS_OK) return status;
        event.values = state->values;
        event.status = state->status;
    }
    if (tap->on_rows != NULL) tap->on_rows(&event, tap->data);
    if (tap->plan == NULL) return SAE_STATUS_OK;
    if (state->two_sites) return sae_ggml_keep(&state->place.kept, &rows, first, error);
    return sae_ggml_steer(state, t, &raw, &rows, on_host, infos, error);
}

/* Steers at the output site of a model that reads at another. */
static inline sae_status sae_ggml_run_out(sae_ggml_hook *hook, size_t number,
                                          struct ggml_tensor *t, sae_error *error) {
    sae_ggml_state *state = hook->states[number];
    sae_ggml_place *place = &state->place;
    sae_rows raw, rows;
    bool on_host;
    sae_status status = sae_ggml_load(state, t, true, &raw, &rows, &on_host, error);
    if (status != SAE_STATUS_OK) return status;
    place->rows_seen_out += raw.n_rows;
    if (raw.n_rows == 0) return SAE_STATUS_OK;
    status = sae_ggml_paired(place, t, raw.n_rows, error);
    if (status != SAE_STATUS_OK) return status;
    const sae_row_info *infos = NULL;
    status = sae_ggml_infos(hook, state, place->site_out.outputs_only != 0, place->kept.first,
                            raw.n_rows, &infos, error);
    if (status == SAE_STATUS_OK)
        status = sae_ggml_steer(state, t, &raw, &place->kept.rows, on_host, infos, error);
    place->kept.rows.data = NULL;
    return status;
}

static inline void sae_ggml_place_graph(sae_ggml_place *place) {
    place->matches = place->matches_out = 0;
    place->wanted = place->wanted_out = false;
    place->kept.rows.data = NULL;
}

static inline bool sae_ggml_ask(sae_ggml_hook *hook, struct ggml_tensor *t) {
    /* A graph begins when its first node is asked for again. */
    /* The name comes first: it lies apart from the operation, and tensors are seldom in the cache. */
    if (!hook->in_graph || (strcmp(t->name, hook->first_name) == 0 && t->op == hook->first_op)) {
        hook->in_graph = true;
        hook->first_op = t->op;
        memcpy(hook->first_name, t->name, sizeof hook->first_name);
        for (size_t i = 0; i < hook->n_states; i++) {
            sae_ggml_state *state = hook->states[i];
            sae_ggml_place_graph(&state->place);
            if (state->fitting && !state->stopped) sae_ggml_judge(hook, state);
            for (size_t j = 0; j < state->n_candidates; j++)
                sae_ggml_place_graph(&state->candidates[j].place);
        }
    }
    bool wanted = false;
    for (size_t i = 0; i < hook->n_states; i++) {
        sae_ggml_state *state = hook->states[i];
        if (state->stopped) continue;
        sae_ggml_place *place = &state->place;
        int is = sae_ggml_is(&place->site, t, &place->matches);
        int is_out = sae_ggml_needs_output(state)
                         ? sae_ggml_is(&place->site_out, t, &place->matches_out)
                         : 0;
        if (is < 0 || is_out < 0) {
            sae_error error;
            sae_ggml_fail(&error, SAE_STATUS_INVALID_ARGUMENT,
                          "more than %d tensor(s) of the graph are `%s`",
                          (int)(is < 0 ? place->site.count : place->site_out.count), t->name);
            sae_ggml_stop(hook, state, &error);
            continue;
        }
        place->wanted = is > 0;
        place->wanted_out = is_out > 0;
        wanted = wanted || is > 0 || is_out > 0;
        for (size_t j = 0; state->fitting && j < state->n_candidates; j++) {
            place = &state->candidates[j].place;
            size_t width = (size_t)t->ne[0];
            place->wanted = sae_ggml_is(&place->site, t, &place->matches) > 0 &&
                            width == state->d_in;
            place->wanted_out = state->two_sites &&
                                sae_ggml_is(&place->site_out, t, &place->matches_out) > 0 &&
                                width == state->d_out;
            wanted = wanted || place->wanted || place->wanted_out;
        }
    }
    return wanted;
}

/* The evaluation callback: set `cb_eval` to it and `cb_eval_user_data` to the hook. It never stops
 * the graph; what goes wrong stops the tap and is told by `sae_ggml_end`. */
static inline bool sae_ggml_eval(struct ggml_tensor *t, bool ask, void *user_data) {
    sae_ggml_hook *hook = (sae_ggml_hook *)user_data;
    if (hook->disabled) return !ask;
    if (ask) return sae_ggml_ask(hook, t);
    for (size_t i = 0; i < hook->n_states; i++) {
        sae_ggml_state *state = hook->states[i];
        sae_error error;
        sae_status status = SAE_STATUS_OK;
        for (size_t j = 0; j < state->n_candidates && status == SAE_STATUS_OK; j++) {
            sae_ggml_place *place = &state->candidates[j].place;
            for (int32_t out = 0; out < 2 && status == SAE_STATUS_OK; out++) {
                bool *wanted = out == 0 ? &place->wanted : &place->wanted_out;
                if (!*wanted || state->stopped) continue;
                *wanted = false;
                status = sae_ggml_fit_tensor(hook, state, &state->candidates[j], t, out != 0,
                                             &error);
            }
        }
        if (status == SAE_STATUS_OK && state->place.wanted && !state->stopped) {
            state->place.wanted = false;
            status = sae_ggml_run(hook, i, t, &error);
        }
        if (status == SAE_STATUS_OK && state->place.wanted_out && !state->stopped) {
            state->place.wanted_out = false;
            status = sae_ggml_run_out(hook, i, t, &error);
        }
        if (status != SAE_STATUS_OK) sae_ggml_stop(hook, state, &error);
    }
    return true;
}

/* ------------------------------------------------------------------------------------------ */
/* Control vectors                                                                             */
/* ------------------------------------------------------------------------------------------ */

/* Writes plans that add the same vector to every row as a control vector for
 * `llama_set_adapter_cvec(context, data, n_data, d_out, layer, layer)`: then no callback is needed.
 *   layer    the block behind which it is added, 1 or more (llama.cpp has none behind block 0).
 *   n_layer  number of blocks.
 *   data, n_data  receives d_out * (n_layer - 1) values, zeros but for the block.
 *   error    may be NULL. SAE_STATUS_INVALID_VALUE if the plans depend on the row. */
static inline sae_status sae_ggml_control_vector(const sae_model *model, const sae_plan *plan,
                                                 int32_t layer, int32_t n_layer, float *data,
                                                 size_t n_data, sae_error *error) {
    size_t width = sae_model_d_out(model);
    if (data == NULL) return sae_ggml_fail(error, SAE_STATUS_NULL_ARGUMENT, "`data` is NULL");
    if (layer < 1 || layer >= n_layer)
        return sae_ggml_fail(error, SAE_STATUS_INVALID_ARGUMENT,
                             "llama.cpp adds control vectors behind blocks 1 to %d, not %d",
                             (int)n_layer - 1, (int)layer);
    if (n_data != width * (size_t)(n_layer - 1))
        return sae_ggml_fail(error, SAE_STATUS_LENGTH, "`n_data`: expected %llu, found %llu",
                             (unsigned long long)(width * (size_t)(n_layer - 1)),
                             (unsigned long long)n_data);
    memset(data, 0, n_data * sizeof(float));
    return sae_model_plan_vector(model, plan, data + width * (size_t)(layer - 1), width, error);
}

#ifdef __cplusplus
}
#endif

#endif /* SAE_GGML_H */
