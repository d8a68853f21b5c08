/* Prints an alert, as one line of JSON, for every row at which a rule alerts; then the counts, as
 * OpenMetrics text.
 *
 *     monitor CHECKPOINT ROWS.f32 RULES.json
 *
 * CHECKPOINT is a file or folder as it was downloaded; ROWS.f32 holds rows of d_in 32-bit floats,
 * one row after the other: one stream. docs/rules has worked rules. */
#include "sae_monitor.h"

#include <stdio.h>
#include <stdlib.h>

/* A file as a string. */
static char *read_text(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) return NULL;
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *text = size < 0 ? NULL : calloc((size_t)size + 1, 1);
    if (text != NULL && fread(text, 1, (size_t)size, file) != (size_t)size) text[0] = 0;
    fclose(file);
    return text;
}

/* Called for every alert, in the thread that watches. A server would rather read a ring. */
static void print_event(const sae_event *event, void *context) {
    const sae_rules *rules = context;
    char line[2048];
    size_t needed;
    if (sae_event_json(rules, event, line, sizeof line, &needed, NULL) == SAE_STATUS_OK)
        printf("%s\n", line);
}

int main(int argc, char **argv) {
    sae_error error;
    sae_model *model = NULL;
    sae_scratch *scratch = NULL;
    sae_rules *rules = NULL;
    sae_monitor *monitor = NULL;
    char *text = argc == 4 ? read_text(argv[3]) : NULL;
    FILE *file = argc == 4 ? fopen(argv[2], "rb") : NULL;
    if (text == NULL || file == NULL)
        return fprintf(stderr, "usage: monitor CHECKPOINT ROWS.f32 RULES.json\n"), 2;

    if (sae_model_open(argv[1], NULL, &model, &error) != SAE_STATUS_OK) goto failed;
    if (sae_scratch_create(model, &scratch, &error) != SAE_STATUS_OK) goto failed;
    if (sae_rules_compile(model, text, &rules, &error) != SAE_STATUS_OK) goto failed;
    sae_monitor_options options = {.struct_size = sizeof options,
                                   .collect = SAE_COLLECT_WATCHED,
                                   .on_event = print_event,
                                   .context = rules};
    if (sae_monitor_create(model, rules, &options, &monitor, &error) != SAE_STATUS_OK) goto failed;

    size_t width = sae_model_d_in(model);
    float *row = malloc(width * sizeof(float));
    if (row == NULL) return 1;
    sae_rows rows = {row, SAE_DTYPE_F32, 0, 1, width, 0};
    for (uint64_t token = 0; fread(row, sizeof(float), width, file) == width; token++) {
        sae_monitor_row info = {.stream = 1, .position = token};
        if (sae_monitor_observe(model, monitor, &rows, &info, 1, scratch, &error) != SAE_STATUS_OK)
            goto failed;
    }

    char metrics[16384];
    size_t needed;
    if (sae_monitor_open_metrics(monitor, metrics, sizeof metrics, &needed, &error) ==
        SAE_STATUS_OK)
        fputs(metrics, stdout);
    free(row);
    free(text);
    fclose(file);
    sae_monitor_destroy(monitor);
    sae_rules_destroy(rules);
    sae_scratch_destroy(scratch);
    sae_model_close(model);
    return 0;

failed:
    fprintf(stderr, "%s\n", error.message);
    return 1;
}
