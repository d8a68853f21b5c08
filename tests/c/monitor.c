/* Monitoring: alerts by callback and by ring, streams, rolling back gives the bytes of never having
 * proposed, snapshots merge, quality is that of plain loops, texts fit or say what they need, whatever a caller does wrong is a
 * status and changes nothing. */
#include "check.h"
#include "sae_monitor.h"

static sae_error error;

/* What a callback hears. */
struct heard {
    size_t count;
    sae_event last;
};

static void hear(const sae_event *event, void *context) {
    struct heard *heard = context;
    heard->count++;
    heard->last = *event;
}

static sae_monitor_options options_of(const sae_event_ring *ring, struct heard *heard) {
    sae_monitor_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = (uint32_t)sizeof options;
    options.collect = SAE_COLLECT_WATCHED;
    options.top = 2;
    options.streams = 3;
    options.pending_rows = 4;
    options.ring = ring;
    options.on_event = hear;
    options.context = heard;
    return options;
}

/* Quality: the numbers of plain loops, snapshots that merge, an error model, wrong calls. */
static void quality(const sae_model *model, const sae_rows *rows, const sae_features *features,
                    sae_scratch *scratch) {
    const size_t d = rows->width, n = rows->n_rows;
    float *decoded = malloc(n * d * sizeof(float));
    sae_row_quality *each = calloc(n, sizeof *each);
    CHECK(decoded != NULL && each != NULL && n >= 4);
    CHECK_OK(sae_model_decode(model, features, rows, scratch, decoded, n * d, &error));
    sae_quality_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = (uint32_t)sizeof options;
    options.fit_errors = 1;
    sae_quality *all = NULL, *part = NULL, *none = NULL;
    CHECK_OK(sae_quality_create(model, &options, &all, &error));
    CHECK_OK(sae_quality_create(model, NULL, &part, &error));
    options.fit_errors = 2;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_quality_create(model, &options, &none, &error));
    options.fit_errors = 0;
    options.mean = decoded;
    options.n_mean = d - 1;
    CHECK_STATUS(SAE_STATUS_LENGTH, sae_quality_create(model, &options, &none, &error));
    CHECK(none == NULL);

    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_quality_add(all, rows, features, decoded, n * d - 1, NULL, 0, &error));
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_quality_add(all, rows, features, decoded, n * d, each, n - 1, &error));
    sae_quality_summary means, again;
    means.struct_size = again.struct_size = (uint32_t)sizeof means;
    CHECK_OK(sae_quality_summarize(all, &means, &error));
    CHECK(means.rows == 0 && means.non_finite == 0);
    CHECK_OK(sae_quality_add(all, rows, features, decoded, n * d, each, n, &error));
    CHECK_OK(sae_quality_summarize(all, &means, &error));
    double l0 = 0, l1 = 0, errors = 0, spread = 0;
    for (size_t row = 0; row < n; row++) {
        sae_row_features fired;
        CHECK_OK(sae_features_row(features, row, &fired, &error));
        for (size_t i = 0; i < fired.count; i++) l1 += (double)fired.values[i];
        l0 += (double)fired.count;
        CHECK(each[row].finite == 1 && each[row].l0 == (double)fired.count);
        CHECK(each[row].anomaly == 0 && each[row].reserved == 0);
    }
    for (size_t j = 0; j < d; j++) {
        double mean = 0;
        for (size_t row = 0; row < n; row++)
            mean += (double)((const float *)rows->data)[row * d + j] / (double)n;
        for (size_t row = 0; row < n; row++) {
            double x = (double)((const float *)rows->data)[row * d + j];
            double e = x - (double)decoded[row * d + j];
            errors += e * e;
            spread += (x - mean) * (x - mean);
        }
    }
#define NEAR(a, b) CHECK((a) - (b) < 1e-9 * (1 + (b)) && (b) - (a) < 1e-9 * (1 + (b)))
    CHECK(means.rows == n && means.non_finite == 0 && means.anomalous == 0);
    NEAR(means.l0, l0 / (double)n);
    NEAR(means.l1, l1 / (double)n);
    NEAR(means.fvu, errors / spread);
    NEAR(means.mse, errors / (double)(n * d));

    /* Twice through a snapshot: the same means over twice the rows. */
    size_t size = 0;
    CHECK_OK(sae_quality_snapshot(all, NULL, 0, &size, &error));
    unsigned char *bytes = malloc(size);
    CHECK(bytes != NULL);
    CHECK_STATUS(SAE_STATUS_LENGTH, sae_quality_snapshot(all, bytes, size - 1, &size, &error));
    CHECK_OK(sae_quality_snapshot(all, bytes, size, &size, &error));
    CHECK_STATUS(SAE_STATUS_TRUNCATED, sae_quality_merge(model, part, bytes, size - 1, &error));
    bytes[size / 2] ^= 1;
    CHECK_STATUS(SAE_STATUS_CORRUPT, sae_quality_merge(model, part, bytes, size, &error));
    bytes[size / 2] ^= 1;
    for (int time = 0; time < 2; time++)
        CHECK_OK(sae_quality_merge(model, part, bytes, size, &error));
    CHECK_OK(sae_quality_summarize(part, &again, &error));
    CHECK(again.rows == 2 * n && again.fvu == means.fvu && again.cosine == means.cosine);
    free(bytes);
    size_t needed = 0;
    CHECK_OK(sae_quality_json(all, NULL, 0, &needed, &error));
    char *json = malloc(needed);
    CHECK(json != NULL);
    CHECK_OK(sae_quality_json(all, json, needed, &needed, &error));
    CHECK(strlen(json) + 1 == needed && strstr(json, "\"fvu\":") != NULL);
    free(json);

    /* An error model of these few rows (the ridge makes it one), and what it says of them. */
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_quality_fit_errors(part, 1e-3, NULL, 0, &needed, &error));
    CHECK_OK(sae_quality_fit_errors(all, 1e-3, NULL, 0, &needed, &error));
    bytes = malloc(needed);
    CHECK(bytes != NULL);
    CHECK_OK(sae_quality_fit_errors(all, 1e-3, bytes, needed, &needed, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_quality_set_error_model(part, bytes, needed, 0, &error));
    CHECK_OK(sae_quality_create(model, NULL, &none, &error));
    CHECK_STATUS(SAE_STATUS_TRUNCATED,
                 sae_quality_set_error_model(none, bytes, needed - 1, 0, &error));
    CHECK_OK(sae_quality_set_error_model(none, bytes, needed, 0, &error));
    CHECK_OK(sae_quality_add(none, rows, features, decoded, n * d, each, n, &error));
    CHECK_OK(sae_quality_summarize(none, &again, &error));
    size_t above = 0;
    for (size_t row = 0; row < n; row++) above += each[row].anomaly > 0;
    CHECK(again.anomalous == above && above > 0 && above < n);
    free(bytes);
    sae_quality_destroy(all);
    sae_quality_destroy(part);
    sae_quality_destroy(none);
    free(decoded);
    free(each);
}

/* Which features are dead, the description length, and the statistics as JSON. */
static void statistics(const sae_model *model, const sae_rules *rules, const sae_rows *rows,
                       const sae_features *features, sae_scratch *scratch) {
    sae_monitor_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = (uint32_t)sizeof options;
    options.collect = SAE_COLLECT_ALL;
    options.histogram = 2;
    sae_monitor *monitor = NULL;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_monitor_create(model, rules, &options, &monitor, &error));
    options.histogram = 1;
    CHECK_OK(sae_monitor_create(model, rules, &options, &monitor, &error));
    CHECK_OK(sae_monitor_observe(model, monitor, rows, NULL, 0, scratch, &error));
    size_t count = 0, fired = 0;
    CHECK_OK(sae_monitor_dead(monitor, NULL, 0, &count, &error));
    uint32_t *dead = calloc(count + 1, sizeof *dead);
    CHECK(dead != NULL);
    if (count > 1)
        CHECK_STATUS(SAE_STATUS_LENGTH, sae_monitor_dead(monitor, dead, count - 1, &count, &error));
    CHECK_OK(sae_monitor_dead(monitor, dead, count, &count, &error));
    sae_features_view view;
    CHECK_OK(sae_features_all(features, &view, &error));
    size_t next = 0;
    for (uint32_t feature = 0; feature < sae_model_d_sae(model); feature++) {
        int found = 0;
        for (size_t i = 0; i < view.count; i++) found |= view.indices[i] == feature;
        fired += (size_t)found;
        if (!found) CHECK(next < count && dead[next++] == feature);
    }
    CHECK(next == count && fired + count == sae_model_d_sae(model));
    free(dead);
    double bits = 0;
    CHECK_OK(sae_monitor_description_length(monitor, &bits, &error));
    CHECK(bits > 0);
    size_t needed = 0;
    CHECK_OK(sae_monitor_json(monitor, NULL, 0, &needed, &error));
    char *json = malloc(needed);
    CHECK(json != NULL);
    CHECK_OK(sae_monitor_json(monitor, json, needed, &needed, &error));
    CHECK(strlen(json) + 1 == needed && strstr(json, "\"description_length\":") != NULL);
    CHECK(strstr(json, "\"label\":\"a \\\"label\\\"\"") != NULL);
    CHECK_STATUS(SAE_STATUS_LENGTH, sae_monitor_json(monitor, json, 9, &needed, &error));
    CHECK(strlen(json) == 8);
    free(json);
    sae_monitor_destroy(monitor);
}

static unsigned char *snapshot(const sae_monitor *monitor, size_t *size) {
    CHECK_OK(sae_monitor_snapshot(monitor, NULL, 0, size, &error));
    unsigned char *bytes = calloc(*size, 1);
    CHECK(bytes != NULL);
    CHECK_STATUS(SAE_STATUS_LENGTH, sae_monitor_snapshot(monitor, bytes, *size - 1, size, &error));
    CHECK_OK(sae_monitor_snapshot(monitor, bytes, *size, size, &error));
    return bytes;
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    sae_model *model = NULL;
    CHECK_OK(sae_model_open(argv[1], NULL, &model, &error));
    sae_rows rows = read_rows(argv[2], model);
    sae_scratch *scratch = NULL;
    sae_features *features = NULL;
    CHECK_OK(sae_scratch_create(model, &scratch, &error));
    CHECK_OK(sae_features_create(0, 0, &features, &error));
    CHECK_OK(sae_model_encode(model, &rows, scratch, features, &error));
    sae_features_view view;
    CHECK_OK(sae_features_all(features, &view, &error));
    CHECK(view.count > 0 && rows.n_rows >= 4);
    /* A feature that fires, watched for any value. */
    unsigned watched = (unsigned)view.indices[0];
    char text[600];
    snprintf(text, sizeof text,
             "{\"rules\": [{\"name\": \"fires\", \"kind\": \"threshold\", \"feature\": %u, \"over\": 0},"
             "{\"name\": \"far\", \"kind\": \"threshold\", \"signal\": true, \"over\": 2}],"
             "\"labels\": {\"%u\": \"a \\\"label\\\"\"}}",
             watched, watched);
    sae_rules *rules = NULL;
    CHECK_OK(sae_rules_compile(model, text, &rules, &error));
    CHECK(sae_rules_count(rules) == 2 && sae_rules_bytes_per_row(rules) > 0);
    CHECK(strcmp(sae_rules_name(rules, 1), "far") == 0);
    CHECK(strcmp(sae_rules_label(rules, watched), "a \"label\"") == 0);
    CHECK(sae_model_fingerprint(model) != 0);
    sae_rules *wrong = NULL;
    CHECK_STATUS(SAE_STATUS_INVALID_VALUE,
                 sae_rules_compile(model,
                                   "{\"rules\": [{\"name\": \"a\", \"kind\": \"threshold\", "
                                   "\"feature\": 4000000000, \"over\": 1}]}",
                                   &wrong, &error));
    CHECK(wrong == NULL && strstr(error.message, "rules[0].feature") != NULL);

    sae_event_ring *ring = NULL;
    CHECK_OK(sae_event_ring_create(2, &ring, &error));
    struct heard heard = {0, {0}}, other_heard = {0, {0}};
    sae_monitor_options options = options_of(ring, &heard);
    sae_monitor *monitor = NULL, *other = NULL;
    CHECK_OK(sae_monitor_create(model, rules, &options, &monitor, &error));
    sae_monitor_options bad = options;
    bad.collect = 7;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_monitor_create(model, rules, &bad, &other, &error));
    bad = options;
    bad.struct_size = 3;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_monitor_create(model, rules, &bad, &other, &error));
    CHECK(other == NULL);

    /* Every row alone, of its own stream: each that fires alerts. */
    size_t firing = 0;
    for (size_t row = 0; row < rows.n_rows; row++) {
        sae_rows one = rows;
        one.data = (const char *)rows.data + row * rows.width * sizeof(float);
        one.n_rows = 1;
        sae_monitor_row info = {row, 7, row == 1 ? 2.5 : 0, row == 1 ? SAE_ROW_HAS_SIGNAL : 0, 0};
        CHECK_OK(sae_monitor_observe(model, monitor, &one, &info, 1, scratch, &error));
        sae_row_features fired;
        CHECK_OK(sae_features_row(features, row, &fired, &error));
        for (size_t i = 0; i < fired.count; i++) {
            if (fired.indices[i] == watched) {
                firing++;
                CHECK(heard.last.stream == row || row == 1);
                CHECK(heard.last.position == 7);
            }
        }
    }
    CHECK(firing > 0 && heard.count == firing + 1);
    CHECK(sae_monitor_rule_events(monitor, 0) == firing);
    CHECK(sae_monitor_rule_events(monitor, 1) == 1);
    sae_monitor_counts counts;
    counts.struct_size = (uint32_t)sizeof counts;
    CHECK_OK(sae_monitor_count(monitor, &counts, &error));
    CHECK(counts.rows == rows.n_rows && counts.events == heard.count && counts.streams == 3);
    CHECK(counts.evicted == rows.n_rows - 3 && counts.bytes > 0);
    sae_event event;
    size_t popped = 0;
    while (sae_event_ring_pop(ring, &event)) popped++;
    CHECK(popped == (heard.count < 2 ? heard.count : 2));
    CHECK(sae_event_ring_dropped(ring) == heard.count - popped);

    /* An event as JSON, in a buffer of the right size and of the wrong one. */
    size_t needed = 0;
    CHECK_OK(sae_event_json(rules, &heard.last, NULL, 0, &needed, &error));
    char *line = malloc(needed);
    CHECK(line != NULL);
    CHECK_OK(sae_event_json(rules, &heard.last, line, needed, &needed, &error));
    CHECK(strlen(line) + 1 == needed && line[0] == '{' && line[needed - 2] == '}');
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_event_json(rules, &heard.last, line, 10, &needed, &error));
    CHECK(strlen(line) == 9);
    event.n_contributions = 9;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_event_json(rules, &event, line, 10, &needed, &error));
    free(line);

    /* Statistics are those of the features. */
    sae_feature_summary summary;
    summary.struct_size = (uint32_t)sizeof summary;
    CHECK_OK(sae_monitor_feature(monitor, watched, &summary, &error));
    CHECK(summary.fired == firing && summary.rows == rows.n_rows && summary.max > 0);
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_monitor_feature(monitor, watched + 1, &summary, &error));

    /* Two monitors, the second of which proposes, keeps and rejects. */
    sae_monitor *direct = NULL;
    options = options_of(NULL, &other_heard);
    CHECK_OK(sae_monitor_create(model, rules, &options, &direct, &error));
    CHECK_OK(sae_monitor_create(model, rules, &options, &other, &error));
    sae_rows four = rows, two = rows;
    four.n_rows = 4;
    two.n_rows = 2;
    CHECK_OK(sae_monitor_observe(model, direct, &two, NULL, 0, scratch, &error));
    size_t alerts = other_heard.count;
    CHECK_OK(sae_monitor_propose(model, other, &four, NULL, 0, scratch, &error));
    CHECK(other_heard.count == alerts);
    CHECK_STATUS(SAE_STATUS_LIMIT,
                 sae_monitor_propose(model, other, &two, NULL, 0, scratch, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_monitor_observe(model, other, &two, NULL, 0, scratch, &error));
    size_t committed = 0, rolled_back = 0;
    CHECK_OK(sae_monitor_commit(other, 0, 2, &committed, &error));
    CHECK_OK(sae_monitor_rollback(other, 0, SIZE_MAX, &rolled_back, &error));
    CHECK(committed == 2 && rolled_back == 2 && other_heard.count == 2 * alerts);
    size_t size = 0, other_size = 0;
    unsigned char *bytes = snapshot(direct, &size), *others = snapshot(other, &other_size);
    CHECK(size == other_size && memcmp(bytes, others, size) == 0);
    free(others);

    /* Merged, they are twice the one; a broken snapshot changes nothing. */
    bytes[size / 2] ^= 1;
    CHECK_STATUS(SAE_STATUS_CORRUPT, sae_monitor_merge(other, bytes, size, &error));
    CHECK_STATUS(SAE_STATUS_TRUNCATED, sae_monitor_merge(other, bytes, size - 1, &error));
    bytes[size / 2] ^= 1;
    CHECK_OK(sae_monitor_feature(other, watched, &summary, &error));
    uint64_t once = summary.fired;
    CHECK_OK(sae_monitor_merge(other, bytes, size, &error));
    CHECK_OK(sae_monitor_feature(other, watched, &summary, &error));
    CHECK(summary.fired == 2 * once && summary.rows == 4);
    free(bytes);

    /* From features, the same events; a stream that ends leaves its place. */
    CHECK_OK(sae_monitor_end_stream(direct, 0, &error));
    alerts = other_heard.count;
    CHECK_OK(sae_monitor_observe_features(direct, features, NULL, 0, &error));
    CHECK(other_heard.count > alerts);
    CHECK_STATUS(SAE_STATUS_LIMIT, sae_monitor_propose_features(
                                       direct, features, NULL, rows.n_rows > 4 ? 0 : 1, &error));

    /* Metrics. */
    CHECK_OK(sae_monitor_open_metrics(monitor, NULL, 0, &needed, &error));
    char *metrics = malloc(needed);
    CHECK(metrics != NULL);
    CHECK_OK(sae_monitor_open_metrics(monitor, metrics, needed, &needed, &error));
    CHECK(strlen(metrics) + 1 == needed && strstr(metrics, "sae_rows_total") != NULL);
    CHECK(strstr(metrics, "label=\"a \\\"label\\\"\"") != NULL);
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_monitor_open_metrics(monitor, metrics, 20, &needed, &error));
    CHECK(strlen(metrics) == 19);
    free(metrics);

    statistics(model, rules, &rows, features, scratch);
    quality(model, &rows, features, scratch);

    sae_monitor_destroy(monitor);
    sae_monitor_destroy(direct);
    sae_monitor_destroy(other);
    sae_event_ring_destroy(ring);
    sae_rules_destroy(rules);
    sae_features_destroy(features);
    sae_scratch_destroy(scratch);
    sae_model_close(model);
    free((void *)(uintptr_t)rows.data);
    return 0;
}
