/* Parts of a batch, rows that are left out, fit checks, hook names, the log: what a host needs to
 * feed the right rows. */
#include "check.h"
#include "sae_steer.h"

#include <math.h>
#include <pthread.h>

static sae_error error;

/* All features of a batch that was split between `nth` workers are those of the whole. */
static void parts_make_the_whole(const sae_model *model, const sae_rows *rows,
                                 const sae_features *whole, size_t nth) {
    sae_scratch *scratch = NULL;
    sae_features *features = NULL, *all = NULL;
    CHECK_OK(sae_scratch_create(model, &scratch, &error));
    CHECK_OK(sae_features_create(0, 0, &features, &error));
    CHECK_OK(sae_features_create(0, 0, &all, &error));
    size_t next = 0, smallest = (size_t)-1, largest = 0;
    for (size_t ith = 0; ith < nth; ith++) {
        sae_rows part;
        size_t first = 99;
        CHECK_OK(sae_rows_part(rows, ith, nth, &part, &first, &error));
        CHECK(first == next);
        next += part.n_rows;
        if (part.n_rows < smallest) smallest = part.n_rows;
        if (part.n_rows > largest) largest = part.n_rows;
        CHECK_OK(sae_model_encode(model, &part, scratch, features, &error));
        for (size_t r = 0; r < part.n_rows; r++) {
            sae_row_features row;
            CHECK_OK(sae_features_row(features, r, &row, &error));
            CHECK_OK(sae_features_append_row(all, row.indices, row.values, row.count, &error));
        }
    }
    CHECK(next == rows->n_rows && largest - smallest <= 1);
    CHECK(same_features(all, whole));
    sae_features_destroy(all);
    sae_features_destroy(features);
    sae_scratch_destroy(scratch);
}

/* A host's own threads: one for each task. */
struct call_ {
    sae_task task;
    void *data;
    size_t index;
};

static void *run_call(void *call) {
    struct call_ *one = call;
    one->task(one->data, one->index);
    return NULL;
}

static void on_threads(void *host, size_t count, sae_task task, void *data) {
    pthread_t threads[16];
    struct call_ calls[16];
    CHECK(count <= 16 && host == &error);
    for (size_t i = 0; i < count; i++) {
        calls[i].task = task;
        calls[i].data = data;
        calls[i].index = count - 1 - i;
        CHECK(pthread_create(&threads[i], NULL, run_call, &calls[i]) == 0);
    }
    for (size_t i = 0; i < count; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

static void all_but_the_last(void *host, size_t count, sae_task task, void *data) {
    (void)host;
    for (size_t i = 0; i + 1 < count; i++) task(data, i);
}

static void twice_and_beyond(void *host, size_t count, sae_task task, void *data) {
    (void)host;
    for (size_t i = 0; i < 2 * count; i++) task(data, i / 2);
    task(data, count);
    task(data, (size_t)-1);
}

/* Splits over features, by hand and on the host's threads, give the bits of the whole. */
static void features_in_parts(const sae_model *model, const sae_rows *rows,
                              const sae_features *whole, size_t nth) {
    sae_scratch *scratch = NULL;
    sae_features *features = NULL;
    sae_part *parts[16] = {NULL};
    sae_workers *workers = NULL;
    CHECK_OK(sae_scratch_create(model, &scratch, &error));
    CHECK_OK(sae_features_create(0, 0, &features, &error));
    for (size_t i = nth; i-- > 0;) {
        CHECK_OK(sae_part_create(&parts[i], &error));
        CHECK_OK(sae_model_encode_part(model, rows, i, nth, scratch, parts[i], &error));
    }
    const sae_part *const *list = (const sae_part *const *)parts;
    CHECK_OK(sae_model_encode_finish(model, list, nth, scratch, features, &error));
    CHECK(same_features(features, whole));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_encode_part(model, rows, nth, nth, scratch, parts[0], &error));
    if (nth > 1) {
        /* A part too few. */
        CHECK_OK(sae_model_encode_part(model, rows, 0, nth, scratch, parts[0], &error));
        CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                     sae_model_encode_finish(model, list, nth - 1, scratch, features, &error));
        CHECK(sae_features_n_rows(features) == 0);
    }
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_workers_create(model, 0, &workers, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_workers_create(model, 1025, &workers, &error));
    CHECK_OK(sae_workers_create(model, nth, &workers, &error));
    for (int again = 0; again < 2; again++) {
        CHECK_OK(sae_model_encode_parallel(model, rows, on_threads, &error, workers, features,
                                           &error));
        CHECK(same_features(features, whole));
        CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                     sae_model_encode_parallel(model, rows, all_but_the_last, NULL, workers,
                                               features, &error));
        CHECK(sae_features_n_rows(features) == 0);
        CHECK_OK(sae_model_encode_parallel(model, rows, twice_and_beyond, NULL, workers, features,
                                           &error));
        CHECK(same_features(features, whole));
    }
    sae_workers_destroy(workers);
    for (size_t i = 0; i < nth; i++) sae_part_destroy(parts[i]);
    sae_features_destroy(features);
    sae_scratch_destroy(scratch);
}

static int messages;

static void listen(sae_log_level level, const char *message, void *data) {
    CHECK(level == SAE_LOG_INFO || level == SAE_LOG_WARNING);
    CHECK(message[0] != 0 && strchr(message, '\n') == NULL);
    CHECK(data == &messages);
    messages++;
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    sae_set_log(listen, &messages);
    sae_model *model = NULL;
    CHECK_OK(sae_model_open(argv[1], NULL, &model, &error));
    CHECK(messages > 0);
    sae_set_log(NULL, NULL);
    int heard = messages;
    sae_model *again = NULL;
    CHECK_OK(sae_model_open(argv[1], NULL, &again, &error));
    CHECK(messages == heard);
    sae_model_close(again);

    sae_rows rows = read_rows(argv[2], model);
    size_t n = rows.n_rows, d_out = sae_model_d_out(model);
    sae_scratch *scratch = NULL;
    sae_features *whole = NULL, *features = NULL;
    CHECK_OK(sae_scratch_create(model, &scratch, &error));
    CHECK_OK(sae_features_create(0, 0, &whole, &error));
    CHECK_OK(sae_features_create(0, 0, &features, &error));
    CHECK_OK(sae_model_encode(model, &rows, scratch, whole, &error));
    for (size_t nth = 1; nth <= n + 3; nth++) parts_make_the_whole(model, &rows, whole, nth);
    for (size_t nth = 1; nth <= 16; nth += 5) features_in_parts(model, &rows, whole, nth);
    sae_rows part;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_rows_part(&rows, 0, 0, &part, NULL, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_rows_part(&rows, 2, 2, &part, NULL, &error));
    sae_rows wrong = rows;
    wrong.dtype = 7;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_rows_part(&wrong, 0, 2, &part, NULL, &error));
    wrong = rows;
    wrong.stride_bytes = (size_t)-1 / 2;
    wrong.n_rows = (size_t)-1;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_rows_part(&wrong, 1, 2, &part, NULL, &error));

    /* Every third row is left out. */
    sae_row_info *infos = calloc(n, sizeof *infos);
    CHECK(infos != NULL);
    const sae_row_info unknown = SAE_ROW_INFO_INIT;
    for (size_t r = 0; r < n; r++) {
        infos[r] = unknown;
        infos[r].position = (uint32_t)r;
        infos[r].stream = (uint32_t)(r % 2);
        infos[r].stage = r % 3 == 0 ? SAE_STAGE_SKIPPED : SAE_STAGE_PROMPT;
    }
    CHECK_OK(sae_model_encode_with(model, &rows, infos, n, scratch, features, &error));
    CHECK(sae_features_n_rows(features) == n);
    CHECK(sae_features_failed_rows(features) >= (n + 2) / 3);
    for (size_t r = 0; r < n; r++) {
        sae_row_features found, expected;
        CHECK_OK(sae_features_row(features, r, &found, &error));
        CHECK_OK(sae_features_row(whole, r, &expected, &error));
        if (r % 3 == 0) {
            CHECK(found.count == 0 && found.status == SAE_ROW_SKIPPED);
        } else {
            CHECK(found.count == expected.count && found.status == expected.status);
            CHECK(memcmp(found.indices, expected.indices, found.count * sizeof(uint32_t)) == 0);
            CHECK(memcmp(found.values, expected.values, found.count * sizeof(float)) == 0);
        }
    }
    float *decoded = calloc(n * d_out, sizeof(float));
    CHECK(decoded != NULL);
    CHECK_OK(sae_model_decode(model, features, &rows, scratch, decoded, n * d_out, &error));
    for (size_t r = 0; r < n; r++) CHECK((isnan(decoded[r * d_out]) != 0) == (r % 3 == 0));
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_model_encode_with(model, &rows, infos, n - 1, scratch, features, &error));
    CHECK(sae_features_n_rows(features) == 0);

    /* Readouts leave the same rows out, with and without their status. */
    const uint32_t chosen[2] = {1, 0};
    sae_set *set = NULL;
    CHECK_OK(sae_set_compile(model, chosen, 2, &set, &error));
    float *values = calloc(2 * n, sizeof(float)), *some = calloc(2 * n, sizeof(float));
    sae_row_status *status = calloc(n, 1);
    CHECK(values != NULL && some != NULL && status != NULL);
    CHECK_OK(sae_model_readout(model, set, &rows, scratch, values, 2 * n, NULL, &error));
    for (int told = 0; told < 2; told++) {
        for (size_t i = 0; i < 2 * n; i++) some[i] = 7;
        CHECK_OK(sae_model_readout_with(model, set, &rows, infos, n, scratch, some, 2 * n,
                                        told ? status : NULL, &error));
        for (size_t i = 0; i < 2 * n; i++)
            CHECK(some[i] == (i / 2 % 3 == 0 ? 0 : values[i]));
    }
    for (size_t r = 0; r < n; r++) CHECK((status[r] == SAE_ROW_SKIPPED) == (r % 3 == 0));
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_model_readout_with(model, set, &rows, infos, n - 1, scratch, some, 2 * n, status,
                                        &error));
    infos[1].stage = 4;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_readout_with(model, set, &rows, infos, n, scratch, some, 2 * n, status,
                                        &error));
    free(values);
    free(some);
    free(status);
    sae_set_destroy(set);
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_encode_with(model, &rows, infos, n, scratch, features, &error));
    infos[1].stage = SAE_STAGE_PROMPT;
    infos[1].last = 2;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_encode_with(model, &rows, infos, n, scratch, features, &error));
    infos[1].last = 0;

    /* Steering leaves them as they are, to the bit. */
    if (sae_model_d_in(model) == d_out) {
        const char *text = "{\"edits\": [{\"feature\": 0, \"rule\": \"add\", \"strength\": 5}]}";
        sae_plan *plan = NULL;
        sae_steer_scratch *steer = NULL;
        CHECK_OK(sae_plan_compile(model, &text, 1, SAE_CONFLICTS_REFUSE, &plan, &error));
        CHECK_OK(sae_steer_scratch_create(model, plan, &steer, &error));
        memcpy(decoded, rows.data, n * d_out * sizeof(float));
        sae_rows_mut steered = {decoded, SAE_DTYPE_F32, 0, n, d_out, 0};
        sae_steer_batch batch;
        memset(&batch, 0, sizeof batch);
        batch.struct_size = (uint32_t)sizeof batch;
        batch.rows = &steered;
        batch.infos = infos;
        batch.n_infos = n;
        CHECK_OK(sae_model_steer(model, plan, &batch, steer, &error));
        for (size_t r = 0; r < n; r++) {
            const float *before = (const float *)rows.data + r * d_out;
            int same = memcmp(decoded + r * d_out, before, d_out * sizeof(float)) == 0;
            CHECK(same == (r % 3 == 0));
        }
        sae_steer_scratch_destroy(steer);
        sae_plan_destroy(plan);
    }

    /* The fit: that of the reconstruction, computed here in the plainest way. */
    sae_fit_check *check = NULL;
    sae_fit fit;
    memset(&fit, 0, sizeof fit);
    fit.struct_size = (uint32_t)sizeof fit;
    CHECK_OK(sae_fit_check_create(model, &check, &error));
    CHECK_OK(sae_fit_check_result(check, &fit, &error));
    CHECK(fit.verdict == SAE_VERDICT_TOO_FEW_ROWS && fit.rows == 0 && isnan(fit.fvu));
    if (sae_model_d_in(model) == d_out) {
        for (size_t r = 0; r < n; r += 5) {
            sae_rows some = rows;
            some.data = (const float *)rows.data + r * d_out;
            some.n_rows = n - r < 5 ? n - r : 5;
            CHECK_OK(sae_model_check_fit(model, check, &some, NULL, scratch, &error));
        }
        CHECK_OK(sae_model_decode(model, whole, &rows, scratch, decoded, n * d_out, &error));
        double wrong_sum = 0, spread = 0;
        for (size_t j = 0; j < d_out; j++) {
            double mean = 0;
            for (size_t r = 0; r < n; r++)
                mean += (double)((const float *)rows.data)[r * d_out + j] / (double)n;
            for (size_t r = 0; r < n; r++) {
                double x = (double)((const float *)rows.data)[r * d_out + j];
                wrong_sum += pow(x - (double)decoded[r * d_out + j], 2);
                spread += pow(x - mean, 2);
            }
        }
        CHECK_OK(sae_fit_check_result(check, &fit, &error));
        CHECK(fit.rows == n && fit.left_out == 0);
        CHECK(fabs(fit.fvu - wrong_sum / spread) <= 1e-9 * fit.fvu);
        CHECK(fabs(fit.l0 - (double)sae_features_count(whole) / (double)n) < 1e-9);
        CHECK((fit.verdict == SAE_VERDICT_TOO_FEW_ROWS) == (n < 32));
        /* A row that is not finite is not counted. */
        memcpy(decoded, rows.data, n * d_out * sizeof(float));
        decoded[0] = NAN;
        sae_rows bad = {decoded, SAE_DTYPE_F32, 0, 2, d_out, 0};
        CHECK_OK(sae_model_check_fit(model, check, &bad, NULL, scratch, &error));
        CHECK_OK(sae_fit_check_result(check, &fit, &error));
        CHECK(fit.rows == n + 1 && fit.left_out == 1);
        bad.n_rows = 1;
        CHECK_STATUS(SAE_STATUS_LENGTH,
                     sae_model_check_fit(model, check, &rows, &bad, scratch, &error));
    }
    fit.struct_size = 8;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_fit_check_result(check, &fit, &error));
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE,
                 sae_model_check_fit(model, (sae_fit_check *)(void *)scratch, &rows, NULL, scratch,
                                     &error));

    /* Hook names, and the site. */
    sae_hook_point point = 99;
    int32_t layer = 99;
    CHECK_OK(sae_hook_parse("blocks.12.hook_resid_post", &point, &layer, &error));
    CHECK(point == SAE_HOOK_RESID_POST && layer == 12);
    CHECK_OK(sae_hook_parse("model.layers.2.self_attn.o_proj.input", &point, &layer, &error));
    CHECK(point == SAE_HOOK_HEADS && layer == 2);
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_hook_parse("blocks.1.ln2.hook_normalized", &point, &layer, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_hook_parse("", &point, &layer, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_hook_parse("\xff", &point, &layer, &error));
    sae_site site;
    memset(&site, 0, sizeof site);
    site.struct_size = (uint32_t)sizeof site;
    CHECK_OK(sae_model_site(model, &site, &error));
    const char *name = sae_model_text(model, SAE_TEXT_HOOK_NAME);
    if (name[0] != 0) {
        CHECK_OK(sae_hook_parse(name, &point, &layer, &error));
        CHECK(site.point == point && site.layer == layer);
    } else {
        CHECK(site.point == SAE_HOOK_UNKNOWN && site.layer == -1);
    }
    CHECK(site.point_out == SAE_HOOK_UNKNOWN && site.layer_out == -1);
    CHECK(site.embedding_scale >= 1 && site.first_position < 4096 && site.reserved == 0);

    sae_fit_check_destroy(check);
    sae_features_destroy(features);
    sae_features_destroy(whole);
    sae_scratch_destroy(scratch);
    sae_model_close(model);
    free(decoded);
    free(infos);
    free((void *)rows.data);
    return 0;
}
