/* Every function with every pointer NULL, one at a time and all at once. */
#include "check.h"
#include "sae_architectures.h"
#include "sae_monitor.h"
#include "sae_steer.h"

#define NULL_ARGUMENT(call) CHECK_STATUS(SAE_STATUS_NULL_ARGUMENT, call)

static void one_by_one(void *host, size_t count, sae_task task, void *data) {
    (void)host;
    for (size_t i = 0; i < count; i++) task(data, i);
}

/* Plans and rules of models of kinds of their own; what works is in kinds.c. */
static void kinds(const sae_plan *plan, const sae_steer_batch *batch) {
    sae_error error;
    const char *text = "{}";
    sae_plan *no_plan = NULL;
    sae_steer_scratch *no_scratch = NULL;
    sae_rules *no_rules = NULL;
    sae_monitor *no_monitor = NULL;
    sae_plan_cost cost = {0};
    float value = 0;
    NULL_ARGUMENT(sae_lorsa_plan_compile(NULL, &text, 1, SAE_CONFLICTS_REFUSE, &no_plan, &error));
    NULL_ARGUMENT(sae_lorsa_plan_compile(NULL, &text, 1, SAE_CONFLICTS_REFUSE, NULL, NULL));
    NULL_ARGUMENT(sae_lorsa_plan_cost(NULL, text, &cost, &error));
    NULL_ARGUMENT(sae_lorsa_plan_vector(NULL, plan, &value, 1, &error));
    NULL_ARGUMENT(sae_lorsa_steer_scratch_create(NULL, plan, &no_scratch, &error));
    NULL_ARGUMENT(sae_lorsa_rules_compile(NULL, text, &no_rules, &error));
    NULL_ARGUMENT(sae_lorsa_monitor_create(NULL, NULL, NULL, &no_monitor, &error));
    NULL_ARGUMENT(sae_molt_plan_compile(NULL, &text, 1, SAE_CONFLICTS_REFUSE, &no_plan, &error));
    NULL_ARGUMENT(sae_molt_plan_compile(NULL, &text, 1, SAE_CONFLICTS_REFUSE, NULL, NULL));
    NULL_ARGUMENT(sae_molt_plan_cost(NULL, text, &cost, &error));
    NULL_ARGUMENT(sae_molt_plan_vector(NULL, plan, &value, 1, &error));
    NULL_ARGUMENT(sae_molt_steer_scratch_create(NULL, plan, &no_scratch, &error));
    NULL_ARGUMENT(sae_molt_rules_compile(NULL, text, &no_rules, &error));
    NULL_ARGUMENT(sae_molt_monitor_create(NULL, NULL, NULL, &no_monitor, &error));
    NULL_ARGUMENT(sae_lorsa_steer(NULL, plan, NULL, NULL, batch, NULL, &error));
    NULL_ARGUMENT(sae_molt_steer(NULL, plan, batch, NULL, &error));
    CHECK(no_plan == NULL && no_scratch == NULL && no_rules == NULL && no_monitor == NULL);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    sae_error error;
    sae_model *model = NULL, *no_model = NULL;
    sae_scratch *scratch = NULL, *no_scratch = NULL;
    sae_features *features = NULL;
    sae_set *set = NULL, *no_set = NULL;
    size_t size = 0, n_bytes = 0;
    unsigned char *bytes = read_file(argv[1], 0, &n_bytes);
    sae_open_options options = SAE_OPEN_OPTIONS_INIT;

    /* sae_model_open: path, options (allowed), model, error (allowed). */
    NULL_ARGUMENT(sae_model_open(NULL, &options, &no_model, &error));
    CHECK(no_model == NULL);
    NULL_ARGUMENT(sae_model_open(argv[1], &options, NULL, &error));
    CHECK(sae_model_open(NULL, NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK_OK(sae_model_open(argv[1], NULL, &model, &error));
    sae_model_close(model);
    CHECK(sae_model_open(argv[1], NULL, &model, NULL) == SAE_STATUS_OK);
    options.n_settings = 1;
    NULL_ARGUMENT(sae_model_open(argv[1], &options, &no_model, &error));
    const char *no_text = NULL;
    options.settings = &no_text;
    NULL_ARGUMENT(sae_model_open(argv[1], &options, &no_model, &error));

    /* sae_model_open_memory: a checkpoint that opens, or not, without name and config. */
    sae_model *from_memory = NULL;
    NULL_ARGUMENT(sae_model_open_memory(NULL, n_bytes, "n", "{}", NULL, &no_model, &error));
    NULL_ARGUMENT(sae_model_open_memory(NULL, 0, "n", "{}", NULL, &no_model, &error));
    NULL_ARGUMENT(sae_model_open_memory(bytes, n_bytes, "n", "{}", NULL, NULL, &error));
    CHECK(sae_model_open_memory(NULL, 0, NULL, NULL, NULL, NULL, NULL) ==
          SAE_STATUS_NULL_ARGUMENT);
    sae_status found =
        sae_model_open_memory(bytes, n_bytes, NULL, NULL, NULL, &from_memory, &error);
    CHECK((found == SAE_STATUS_OK) == (from_memory != NULL));
    sae_model_close(from_memory);
    CHECK(sae_model_open_memory(bytes, 0, NULL, NULL, NULL, &from_memory, NULL) != SAE_STATUS_OK);
    CHECK(from_memory == NULL);

    /* Getters. */
    CHECK(sae_model_d_in(NULL) == 0);
    CHECK(sae_model_d_sae(NULL) == 0);
    CHECK(sae_model_d_out(NULL) == 0);
    CHECK(sae_model_decode_needs_inputs(NULL) == 0);
    CHECK(strcmp(sae_model_level(NULL), "") == 0);
    CHECK(strcmp(sae_model_text(NULL, SAE_TEXT_PUBLISHER), "") == 0);
    CHECK(sae_status_text(-5) != NULL && sae_status_text(SAE_STATUS_OK) != NULL);
    CHECK(sae_level_name(0) != NULL && strcmp(sae_level_name(0), "scalar") == 0);
    CHECK(sae_level_name((size_t)-1) == NULL);
    CHECK(sae_version() != NULL && sae_abi_version() != 0);

    /* sae_model_describe: model, buffer (allowed with size 0), size (allowed). */
    char buffer[16];
    NULL_ARGUMENT(sae_model_describe(NULL, buffer, sizeof buffer, &size, &error));
    NULL_ARGUMENT(sae_model_describe(model, NULL, 1, &size, &error));
    CHECK_OK(sae_model_describe(model, NULL, 0, NULL, &error));
    CHECK(sae_model_describe(NULL, NULL, 0, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);

    /* sae_model_site, sae_model_prepare_cost, sae_model_prepare. */
    sae_site site;
    site.struct_size = (uint32_t)sizeof site;
    NULL_ARGUMENT(sae_model_site(NULL, &site, &error));
    NULL_ARGUMENT(sae_model_site(model, NULL, &error));
    CHECK(sae_model_site(NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_model_site(model, &site, NULL) == SAE_STATUS_OK);
    sae_prepare_cost cost;
    cost.struct_size = (uint32_t)sizeof cost;
    NULL_ARGUMENT(sae_model_prepare_cost(NULL, &cost, &error));
    NULL_ARGUMENT(sae_model_prepare_cost(model, NULL, &error));
    CHECK(sae_model_prepare_cost(NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    NULL_ARGUMENT(sae_model_prepare(NULL, &error));
    CHECK(sae_model_prepare(NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_model_prepare(model, NULL) == SAE_STATUS_OK);
    sae_rows no_rows = {0};
    NULL_ARGUMENT(sae_model_prepare_with(NULL, &no_rows, &error));
    NULL_ARGUMENT(sae_model_prepare_with(model, NULL, &error));

    /* sae_hook_parse, sae_set_log. */
    sae_hook_point point;
    int32_t layer;
    NULL_ARGUMENT(sae_hook_parse(NULL, &point, &layer, &error));
    NULL_ARGUMENT(sae_hook_parse("blocks.1.hook_resid_post", NULL, &layer, &error));
    NULL_ARGUMENT(sae_hook_parse("blocks.1.hook_resid_post", &point, NULL, &error));
    CHECK(sae_hook_parse(NULL, NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_hook_parse("blocks.1.hook_resid_post", &point, &layer, NULL) == SAE_STATUS_OK);
    sae_set_log(NULL, NULL);

    /* Scratch. */
    NULL_ARGUMENT(sae_scratch_size(NULL, &size, &error));
    NULL_ARGUMENT(sae_scratch_size(model, NULL, &error));
    CHECK(sae_scratch_size(NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_scratch_size(model, &size, NULL) == SAE_STATUS_OK);
    NULL_ARGUMENT(sae_scratch_create(NULL, &no_scratch, &error));
    NULL_ARGUMENT(sae_scratch_create(model, NULL, &error));
    CHECK(sae_scratch_create(NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    NULL_ARGUMENT(sae_scratch_create_in(NULL, buffer, sizeof buffer, &no_scratch, &error));
    NULL_ARGUMENT(sae_scratch_create_in(model, NULL, size, &no_scratch, &error));
    NULL_ARGUMENT(sae_scratch_create_in(model, buffer, sizeof buffer, NULL, &error));
    CHECK(sae_scratch_create_in(NULL, NULL, 0, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(no_scratch == NULL);
    CHECK(sae_scratch_create(model, &scratch, NULL) == SAE_STATUS_OK);

    /* Features. */
    NULL_ARGUMENT(sae_features_create(1, 1, NULL, &error));
    CHECK(sae_features_create(1, 1, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_features_create(1, 1, &features, NULL) == SAE_STATUS_OK);
    CHECK(sae_features_n_rows(NULL) == 0);
    CHECK(sae_features_count(NULL) == 0);
    CHECK(sae_features_failed_rows(NULL) == 0);
    uint32_t index = 0;
    float value = 1;
    NULL_ARGUMENT(sae_features_append_row(NULL, &index, &value, 1, &error));
    NULL_ARGUMENT(sae_features_append_row(features, NULL, &value, 1, &error));
    NULL_ARGUMENT(sae_features_append_row(features, &index, NULL, 1, &error));
    CHECK(sae_features_append_row(NULL, NULL, NULL, 1, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_features_n_rows(features) == 0);
    CHECK_OK(sae_features_append_row(features, NULL, NULL, 0, &error));
    CHECK(sae_features_append_row(features, &index, &value, 1, NULL) == SAE_STATUS_OK);
    CHECK(sae_features_n_rows(features) == 2 && sae_features_count(features) == 1);
    sae_row_features fired;
    NULL_ARGUMENT(sae_features_row(NULL, 0, &fired, &error));
    NULL_ARGUMENT(sae_features_row(features, 0, NULL, &error));
    CHECK(sae_features_row(NULL, 0, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_features_row(features, 0, &fired, NULL) == SAE_STATUS_OK);
    CHECK(fired.count == 0 && fired.indices != NULL && fired.values != NULL);
    sae_features_view view;
    NULL_ARGUMENT(sae_features_all(NULL, &view, &error));
    NULL_ARGUMENT(sae_features_all(features, NULL, &error));
    CHECK(sae_features_all(NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    NULL_ARGUMENT(sae_features_clear(NULL, &error));
    CHECK(sae_features_clear(NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_features_clear(features, NULL) == SAE_STATUS_OK);
    CHECK_OK(sae_features_all(features, &view, &error));
    CHECK(view.row_ends != NULL && view.row_status != NULL && view.indices != NULL &&
          view.values != NULL && view.n_rows == 0 && view.count == 0);

    /* Encode and decode. */
    sae_rows rows = read_rows(argv[2], model);
    sae_rows no_data = rows;
    no_data.data = NULL;
    NULL_ARGUMENT(sae_model_encode(NULL, &rows, scratch, features, &error));
    NULL_ARGUMENT(sae_model_encode(model, NULL, scratch, features, &error));
    NULL_ARGUMENT(sae_model_encode(model, &no_data, scratch, features, &error));
    NULL_ARGUMENT(sae_model_encode(model, &rows, NULL, features, &error));
    NULL_ARGUMENT(sae_model_encode(model, &rows, scratch, NULL, &error));
    CHECK(sae_model_encode(NULL, NULL, NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_model_encode(model, &rows, scratch, features, NULL) == SAE_STATUS_OK);
    sae_rows none = no_data;
    none.n_rows = 0;
    sae_features *empty = NULL;
    CHECK_OK(sae_features_create(0, 0, &empty, &error));
    CHECK_OK(sae_model_encode(model, &none, scratch, empty, &error));
    CHECK(sae_features_n_rows(empty) == 0);
    CHECK_OK(sae_model_decode(model, empty, &none, scratch, NULL, 0, &error));
    NULL_ARGUMENT(sae_model_encode_with(NULL, &rows, NULL, 0, scratch, features, &error));
    NULL_ARGUMENT(sae_model_encode_with(model, NULL, NULL, 0, scratch, features, &error));
    NULL_ARGUMENT(sae_model_encode_with(model, &rows, NULL, rows.n_rows, scratch, features, &error));
    NULL_ARGUMENT(sae_model_encode_with(model, &rows, NULL, 0, NULL, features, &error));
    NULL_ARGUMENT(sae_model_encode_with(model, &rows, NULL, 0, scratch, NULL, &error));
    CHECK(sae_model_encode_with(NULL, NULL, NULL, 0, NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK_OK(sae_model_encode_with(model, &rows, NULL, 0, scratch, features, &error));
    sae_rows part;
    size_t first_row = 0;
    NULL_ARGUMENT(sae_rows_part(NULL, 0, 1, &part, &first_row, &error));
    NULL_ARGUMENT(sae_rows_part(&rows, 0, 1, NULL, &first_row, &error));
    CHECK(sae_rows_part(NULL, 0, 0, NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_rows_part(&rows, 0, 1, &part, NULL, NULL) == SAE_STATUS_OK);

    /* Parts and workers. */
    sae_part *piece = NULL;
    sae_workers *workers = NULL, *no_workers = NULL;
    NULL_ARGUMENT(sae_part_create(NULL, &error));
    CHECK(sae_part_create(NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_part_create(&piece, NULL) == SAE_STATUS_OK);
    NULL_ARGUMENT(sae_model_encode_part(NULL, &rows, 0, 1, scratch, piece, &error));
    NULL_ARGUMENT(sae_model_encode_part(model, NULL, 0, 1, scratch, piece, &error));
    NULL_ARGUMENT(sae_model_encode_part(model, &no_data, 0, 1, scratch, piece, &error));
    NULL_ARGUMENT(sae_model_encode_part(model, &rows, 0, 1, NULL, piece, &error));
    NULL_ARGUMENT(sae_model_encode_part(model, &rows, 0, 1, scratch, NULL, &error));
    CHECK(sae_model_encode_part(NULL, NULL, 0, 0, NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_model_encode_part(model, &rows, 0, 1, scratch, piece, NULL) == SAE_STATUS_OK);
    const sae_part *pieces[2] = {piece, NULL};
    NULL_ARGUMENT(sae_model_encode_finish(NULL, pieces, 1, scratch, features, &error));
    NULL_ARGUMENT(sae_model_encode_finish(model, NULL, 1, scratch, features, &error));
    NULL_ARGUMENT(sae_model_encode_finish(model, pieces, 2, scratch, features, &error));
    NULL_ARGUMENT(sae_model_encode_finish(model, pieces, 1, NULL, features, &error));
    NULL_ARGUMENT(sae_model_encode_finish(model, pieces, 1, scratch, NULL, &error));
    CHECK(sae_model_encode_finish(NULL, NULL, 0, NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_model_encode_finish(model, pieces, 1, scratch, features, NULL) == SAE_STATUS_OK);
    NULL_ARGUMENT(sae_workers_create(NULL, 1, &no_workers, &error));
    NULL_ARGUMENT(sae_workers_create(model, 1, NULL, &error));
    CHECK(sae_workers_create(NULL, 0, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(no_workers == NULL);
    CHECK(sae_workers_create(model, 2, &workers, NULL) == SAE_STATUS_OK);
    NULL_ARGUMENT(sae_model_encode_parallel(NULL, &rows, one_by_one, NULL, workers, features,
                                            &error));
    NULL_ARGUMENT(sae_model_encode_parallel(model, NULL, one_by_one, NULL, workers, features,
                                            &error));
    NULL_ARGUMENT(sae_model_encode_parallel(model, &rows, NULL, NULL, workers, features, &error));
    NULL_ARGUMENT(sae_model_encode_parallel(model, &rows, one_by_one, NULL, NULL, features,
                                            &error));
    NULL_ARGUMENT(sae_model_encode_parallel(model, &rows, one_by_one, NULL, workers, NULL,
                                            &error));
    CHECK(sae_model_encode_parallel(NULL, NULL, NULL, NULL, NULL, NULL, NULL) ==
          SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_model_encode_parallel(model, &rows, one_by_one, NULL, workers, features, NULL) ==
          SAE_STATUS_OK);
    sae_workers_destroy(NULL);
    sae_workers_destroy(workers);
    sae_part_destroy(NULL);
    sae_part_destroy(piece);

    /* Fit checks. */
    sae_fit_check *check = NULL, *no_check = NULL;
    sae_fit fit;
    fit.struct_size = (uint32_t)sizeof fit;
    NULL_ARGUMENT(sae_fit_check_create(NULL, &no_check, &error));
    NULL_ARGUMENT(sae_fit_check_create(model, NULL, &error));
    CHECK(sae_fit_check_create(NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(no_check == NULL);
    CHECK(sae_fit_check_create(model, &check, NULL) == SAE_STATUS_OK);
    NULL_ARGUMENT(sae_model_check_fit(NULL, check, &rows, NULL, scratch, &error));
    NULL_ARGUMENT(sae_model_check_fit(model, NULL, &rows, NULL, scratch, &error));
    NULL_ARGUMENT(sae_model_check_fit(model, check, NULL, NULL, scratch, &error));
    NULL_ARGUMENT(sae_model_check_fit(model, check, &no_data, NULL, scratch, &error));
    NULL_ARGUMENT(sae_model_check_fit(model, check, &rows, NULL, NULL, &error));
    CHECK(sae_model_check_fit(NULL, NULL, NULL, NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_model_check_fit(model, check, &rows, &rows, scratch, NULL) == SAE_STATUS_OK);
    NULL_ARGUMENT(sae_fit_check_result(NULL, &fit, &error));
    NULL_ARGUMENT(sae_fit_check_result(check, NULL, &error));
    CHECK(sae_fit_check_result(NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_fit_check_result(check, &fit, NULL) == SAE_STATUS_OK);
    sae_fit_check_destroy(NULL);
    sae_fit_check_destroy(check);
    size_t n_out = rows.n_rows * sae_model_d_out(model);
    float *out = calloc(n_out, sizeof(float));
    CHECK(out != NULL);
    NULL_ARGUMENT(sae_model_decode(NULL, features, &rows, scratch, out, n_out, &error));
    NULL_ARGUMENT(sae_model_decode(model, NULL, &rows, scratch, out, n_out, &error));
    CHECK_STATUS(sae_model_decode_needs_inputs(model) ? SAE_STATUS_NULL_ARGUMENT : SAE_STATUS_OK,
                 sae_model_decode(model, features, &no_data, scratch, out, n_out, &error));
    NULL_ARGUMENT(sae_model_decode(model, features, &rows, NULL, out, n_out, &error));
    NULL_ARGUMENT(sae_model_decode(model, features, &rows, scratch, NULL, n_out, &error));
    CHECK(sae_model_decode(NULL, NULL, NULL, NULL, NULL, 0, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_model_decode(model, features, &rows, scratch, out, n_out, NULL) == SAE_STATUS_OK);
    CHECK_STATUS(sae_model_decode_needs_inputs(model) ? SAE_STATUS_INVALID_ARGUMENT : SAE_STATUS_OK,
                 sae_model_decode(model, features, NULL, scratch, out, n_out, &error));

    /* Sets and readout. */
    NULL_ARGUMENT(sae_set_compile(NULL, &index, 1, &no_set, &error));
    NULL_ARGUMENT(sae_set_compile(model, NULL, 1, &no_set, &error));
    NULL_ARGUMENT(sae_set_compile(model, &index, 1, NULL, &error));
    CHECK(sae_set_compile(NULL, NULL, 0, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(no_set == NULL);
    CHECK(sae_set_compile(model, &index, 1, &set, NULL) == SAE_STATUS_OK);
    CHECK(sae_set_count(NULL) == 0);
    sae_set *empty_set = NULL;
    CHECK_OK(sae_set_compile(model, NULL, 0, &empty_set, &error));
    CHECK(sae_set_count(empty_set) == 0);
    CHECK_OK(sae_model_readout(model, empty_set, &rows, scratch, NULL, 0, NULL, &error));
    size_t n = rows.n_rows;
    float *values = calloc(n, sizeof(float));
    sae_row_status *status = calloc(n, 1);
    CHECK(values != NULL && status != NULL);
    NULL_ARGUMENT(sae_model_readout(NULL, set, &rows, scratch, values, n, status, &error));
    NULL_ARGUMENT(sae_model_readout(model, NULL, &rows, scratch, values, n, status, &error));
    NULL_ARGUMENT(sae_model_readout(model, set, NULL, scratch, values, n, status, &error));
    NULL_ARGUMENT(sae_model_readout(model, set, &no_data, scratch, values, n, status, &error));
    NULL_ARGUMENT(sae_model_readout(model, set, &rows, NULL, values, n, status, &error));
    NULL_ARGUMENT(sae_model_readout(model, set, &rows, scratch, NULL, n, status, &error));
    CHECK(sae_model_readout(NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL) ==
          SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_model_readout(model, set, &rows, scratch, values, n, NULL, NULL) == SAE_STATUS_OK);
    NULL_ARGUMENT(sae_model_readout_with(NULL, set, &rows, NULL, 0, scratch, values, n, status,
                                         &error));
    NULL_ARGUMENT(sae_model_readout_with(model, NULL, &rows, NULL, 0, scratch, values, n, status,
                                         &error));
    NULL_ARGUMENT(sae_model_readout_with(model, set, NULL, NULL, 0, scratch, values, n, status,
                                         &error));
    NULL_ARGUMENT(sae_model_readout_with(model, set, &rows, NULL, n, scratch, values, n, status,
                                         &error));
    NULL_ARGUMENT(sae_model_readout_with(model, set, &rows, NULL, 0, NULL, values, n, status,
                                         &error));
    NULL_ARGUMENT(sae_model_readout_with(model, set, &rows, NULL, 0, scratch, NULL, n, status,
                                         &error));
    CHECK(sae_model_readout_with(NULL, NULL, NULL, NULL, 0, NULL, NULL, 0, NULL, NULL) ==
          SAE_STATUS_NULL_ARGUMENT);
    CHECK_OK(sae_model_readout_with(model, set, &rows, NULL, 0, scratch, values, n, NULL, &error));
    NULL_ARGUMENT(sae_model_readout_one(NULL, 0, &rows, scratch, values, n, status, &error));
    NULL_ARGUMENT(sae_model_readout_one(model, 0, NULL, scratch, values, n, status, &error));
    NULL_ARGUMENT(sae_model_readout_one(model, 0, &no_data, scratch, values, n, status, &error));
    NULL_ARGUMENT(sae_model_readout_one(model, 0, &rows, NULL, values, n, status, &error));
    NULL_ARGUMENT(sae_model_readout_one(model, 0, &rows, scratch, NULL, n, status, &error));
    CHECK(sae_model_readout_one(NULL, 0, NULL, NULL, NULL, 0, NULL, NULL) ==
          SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_model_readout_one(model, 0, &rows, scratch, values, n, NULL, NULL) == SAE_STATUS_OK);

    /* Plans and steering. */
    sae_plan *plan = NULL, *no_plan = NULL;
    const char *text = "{\"edits\": [{\"feature\": 0, \"rule\": \"add\", \"strength\": 0}]}";
    NULL_ARGUMENT(sae_plan_compile(NULL, &text, 1, SAE_CONFLICTS_REFUSE, &no_plan, &error));
    NULL_ARGUMENT(sae_plan_compile(model, NULL, 1, SAE_CONFLICTS_REFUSE, &no_plan, &error));
    NULL_ARGUMENT(sae_plan_compile(model, &no_text, 1, SAE_CONFLICTS_REFUSE, &no_plan, &error));
    NULL_ARGUMENT(sae_plan_compile(model, &text, 1, SAE_CONFLICTS_REFUSE, NULL, &error));
    CHECK(sae_plan_compile(NULL, NULL, 0, 0, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(no_plan == NULL);
    CHECK(sae_plan_compile(model, &text, 1, SAE_CONFLICTS_REFUSE, &plan, NULL) == SAE_STATUS_OK);
    CHECK(sae_plan_count(NULL) == 0);
    sae_plan_builder *builder = NULL;
    NULL_ARGUMENT(sae_plan_builder_create("name", NULL, &error));
    CHECK(sae_plan_builder_create(NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_plan_builder_create(NULL, &builder, NULL) == SAE_STATUS_OK);
    sae_edit edit;
    memset(&edit, 0, sizeof edit);
    edit.struct_size = (uint32_t)sizeof edit;
    NULL_ARGUMENT(sae_plan_builder_edit(NULL, &edit, &error));
    NULL_ARGUMENT(sae_plan_builder_edit(builder, NULL, &error));
    edit.n_features = 1;
    NULL_ARGUMENT(sae_plan_builder_edit(builder, &edit, &error));
    edit.n_features = 0;
    edit.n_phases = 1;
    NULL_ARGUMENT(sae_plan_builder_edit(builder, &edit, &error));
    CHECK(sae_plan_builder_edit(NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    NULL_ARGUMENT(sae_plan_builder_direction(NULL, "v", out, 1, 0, &error));
    NULL_ARGUMENT(sae_plan_builder_direction(builder, NULL, out, 1, 0, &error));
    NULL_ARGUMENT(sae_plan_builder_direction(builder, "v", NULL, 1, 0, &error));
    NULL_ARGUMENT(sae_plan_builder_statistics(NULL, 0, 1, 1, 1, &error));
    CHECK(sae_plan_builder_statistics(builder, 0, 1, 1, 1, NULL) == SAE_STATUS_OK);
    NULL_ARGUMENT(sae_plan_builder_set(NULL, "d_sae", "1", &error));
    NULL_ARGUMENT(sae_plan_builder_set(builder, NULL, "1", &error));
    NULL_ARGUMENT(sae_plan_builder_set(builder, "d_sae", NULL, &error));
    NULL_ARGUMENT(sae_plan_builder_write(NULL, NULL, 0, NULL, &error));
    NULL_ARGUMENT(sae_plan_builder_write(builder, NULL, 1, NULL, &error));
    CHECK(sae_plan_builder_write(builder, NULL, 0, NULL, NULL) == SAE_STATUS_OK);
    sae_plan_builder_destroy(NULL);
    sae_plan_builder_destroy(builder);
    sae_plan_cost plan_cost;
    plan_cost.struct_size = (uint32_t)sizeof plan_cost;
    NULL_ARGUMENT(sae_model_plan_cost(NULL, text, &plan_cost, &error));
    NULL_ARGUMENT(sae_model_plan_cost(model, NULL, &plan_cost, &error));
    NULL_ARGUMENT(sae_model_plan_cost(model, text, NULL, &error));
    CHECK(sae_model_plan_cost(NULL, NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_model_plan_cost(model, text, &plan_cost, NULL) == SAE_STATUS_OK);
    NULL_ARGUMENT(sae_model_plan_vector(NULL, plan, out, sae_model_d_out(model), &error));
    NULL_ARGUMENT(sae_model_plan_vector(model, NULL, out, sae_model_d_out(model), &error));
    NULL_ARGUMENT(sae_model_plan_vector(model, plan, NULL, sae_model_d_out(model), &error));
    CHECK(sae_model_plan_vector(NULL, NULL, NULL, 0, NULL) == SAE_STATUS_NULL_ARGUMENT);
    sae_steer_scratch *steer = NULL, *no_steer = NULL;
    NULL_ARGUMENT(sae_steer_scratch_create(NULL, plan, &no_steer, &error));
    NULL_ARGUMENT(sae_steer_scratch_create(model, NULL, &no_steer, &error));
    NULL_ARGUMENT(sae_steer_scratch_create(model, plan, NULL, &error));
    CHECK(sae_steer_scratch_create(NULL, NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(no_steer == NULL);
    CHECK(sae_steer_scratch_create(model, plan, &steer, NULL) == SAE_STATUS_OK);
    CHECK(sae_steer_scratch_count(NULL, SAE_OUTCOME_EDITED) == 0);
    CHECK(sae_steer_scratch_count(steer, 200) == 0);
    sae_audit audit;
    audit.struct_size = (uint32_t)sizeof audit;
    NULL_ARGUMENT(sae_steer_scratch_audit(NULL, 0, &audit, &error));
    NULL_ARGUMENT(sae_steer_scratch_audit(steer, 0, NULL, &error));
    CHECK(sae_steer_scratch_audit(NULL, 0, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    sae_rows_mut steered = {out, SAE_DTYPE_F32, 0, rows.n_rows, sae_model_d_out(model), 0};
    sae_steer_batch batch;
    memset(&batch, 0, sizeof batch);
    batch.struct_size = (uint32_t)sizeof batch;
    batch.inputs = &rows;
    NULL_ARGUMENT(sae_model_steer(model, plan, &batch, steer, &error));
    batch.rows = &steered;
    NULL_ARGUMENT(sae_model_steer(NULL, plan, &batch, steer, &error));
    NULL_ARGUMENT(sae_model_steer(model, NULL, &batch, steer, &error));
    NULL_ARGUMENT(sae_model_steer(model, plan, NULL, steer, &error));
    NULL_ARGUMENT(sae_model_steer(model, plan, &batch, NULL, &error));
    CHECK(sae_model_steer(NULL, NULL, NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_model_steer(model, plan, &batch, steer, NULL) == SAE_STATUS_OK);

    /* Decompositions: model, vector, handle, outputs; the pursuit, the name and the error are
     * allowed. */
    sae_decomposition *made = NULL, *no_made = NULL;
    size_t d_out = sae_model_d_out(model);
    out[0] = 1;
    NULL_ARGUMENT(sae_model_decompose(NULL, out, d_out, NULL, 1, &no_made, &error));
    NULL_ARGUMENT(sae_model_decompose(model, NULL, d_out, NULL, 1, &no_made, &error));
    NULL_ARGUMENT(sae_model_decompose(model, out, d_out, NULL, 1, NULL, &error));
    CHECK(sae_model_decompose(NULL, NULL, 0, NULL, 0, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(no_made == NULL);
    CHECK(sae_model_decompose(model, out, d_out, NULL, 1, &made, NULL) == SAE_STATUS_OK);
    sae_decomposed decomposed;
    decomposed.struct_size = (uint32_t)sizeof decomposed;
    sae_projection projection;
    NULL_ARGUMENT(sae_decomposition_result(NULL, &decomposed, &error));
    NULL_ARGUMENT(sae_decomposition_result(made, NULL, &error));
    CHECK(sae_decomposition_result(NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_decomposition_result(made, &decomposed, NULL) == SAE_STATUS_OK);
    NULL_ARGUMENT(sae_decomposition_parts(NULL, NULL, 0, &error));
    NULL_ARGUMENT(sae_decomposition_parts(made, NULL, decomposed.n_parts, &error));
    NULL_ARGUMENT(sae_decomposition_along(NULL, &projection, 1, &error));
    NULL_ARGUMENT(sae_decomposition_along(made, NULL, 1, &error));
    CHECK(sae_decomposition_along(made, &projection, 1, NULL) == SAE_STATUS_OK);
    NULL_ARGUMENT(sae_decomposition_against(NULL, &projection, 1, &error));
    NULL_ARGUMENT(sae_decomposition_against(made, NULL, 1, &error));
    CHECK(sae_decomposition_against(made, &projection, 1, NULL) == SAE_STATUS_OK);
    NULL_ARGUMENT(sae_decomposition_write_plan(NULL, NULL, NULL, 0, NULL, &error));
    NULL_ARGUMENT(sae_decomposition_write_plan(made, NULL, NULL, 1, NULL, &error));
    CHECK(sae_decomposition_write_plan(made, NULL, NULL, 0, NULL, NULL) == SAE_STATUS_OK);
    sae_decomposition_destroy(NULL);
    sae_decomposition_destroy(made);

    /* Labels: path or bytes, labels, error (allowed). */
    sae_labels *labels = NULL, *no_labels = NULL;
    const char *json = "{\"index\": 1, \"description\": \"one\"}";
    NULL_ARGUMENT(sae_labels_open(NULL, &no_labels, &error));
    CHECK(no_labels == NULL);
    NULL_ARGUMENT(sae_labels_open(argv[1], NULL, &error));
    CHECK(sae_labels_open(NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    NULL_ARGUMENT(sae_labels_open_memory(NULL, 5, &no_labels, &error));
    NULL_ARGUMENT(sae_labels_open_memory(NULL, 0, &no_labels, &error));
    CHECK(no_labels == NULL);
    NULL_ARGUMENT(sae_labels_open_memory(json, strlen(json), NULL, &error));
    CHECK(sae_labels_open_memory(NULL, 0, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_labels_open_memory(json, 0, &no_labels, NULL) == SAE_STATUS_MALFORMED);
    CHECK(no_labels == NULL);
    CHECK(sae_labels_open_memory(json, strlen(json), &labels, NULL) == SAE_STATUS_OK);
    CHECK(sae_labels_count(NULL) == 0);
    CHECK(sae_labels_count_of(NULL, 1) == 0);
    CHECK(sae_labels_text(NULL, 1, 0) == NULL);
    CHECK(sae_labels_explainer(NULL, 1, 0) == NULL);
    NULL_ARGUMENT(sae_model_check_labels(NULL, labels, &error));
    NULL_ARGUMENT(sae_model_check_labels(model, NULL, &error));
    CHECK(sae_model_check_labels(NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_model_check_labels(model, labels, NULL) == SAE_STATUS_OK);
    sae_observed observed;
    observed.struct_size = (uint32_t)sizeof observed;
    NULL_ARGUMENT(sae_labels_observed(NULL, 1, &observed, &error));
    NULL_ARGUMENT(sae_labels_observed(labels, 1, NULL, &error));
    CHECK(sae_labels_observed(NULL, 1, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(sae_labels_observed(labels, 1, &observed, NULL) == SAE_STATUS_OK);
    sae_plan *with = NULL;
    sae_conflicts refuse = SAE_CONFLICTS_REFUSE;
    NULL_ARGUMENT(sae_plan_compile_with_labels(NULL, &text, 1, refuse, labels, &with, &error));
    NULL_ARGUMENT(sae_plan_compile_with_labels(model, NULL, 1, refuse, labels, &with, &error));
    NULL_ARGUMENT(sae_plan_compile_with_labels(model, &text, 1, refuse, NULL, &with, &error));
    NULL_ARGUMENT(sae_plan_compile_with_labels(model, &text, 1, refuse, labels, NULL, &error));
    CHECK(with == NULL);
    CHECK(sae_plan_compile_with_labels(model, &text, 1, refuse, labels, &with, NULL) ==
          SAE_STATUS_OK);
    sae_plan_destroy(with);
    sae_labels_close(labels);
    sae_labels_close(NULL);

    /* Rules, events, monitors. */
    sae_rules *rules = NULL, *no_rules = NULL;
    text = "{\"rules\": [{\"name\": \"a\", \"kind\": \"threshold\", \"feature\": 0, \"over\": 0}]}";
    NULL_ARGUMENT(sae_rules_compile(NULL, text, &no_rules, &error));
    NULL_ARGUMENT(sae_rules_compile(model, NULL, &no_rules, &error));
    NULL_ARGUMENT(sae_rules_compile(model, text, NULL, &error));
    CHECK(sae_rules_compile(NULL, NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    CHECK(no_rules == NULL);
    CHECK(sae_rules_compile(model, text, &rules, NULL) == SAE_STATUS_OK);
    CHECK(sae_rules_count(NULL) == 0 && sae_rules_bytes_per_row(NULL) == 0);
    CHECK(sae_rules_name(NULL, 0) == NULL && sae_rules_name(rules, 1) == NULL);
    CHECK(sae_rules_label(NULL, 0) == NULL && sae_rules_label(rules, 0) == NULL);
    CHECK(sae_model_fingerprint(NULL) == 0);
    sae_event_ring *ring = NULL;
    NULL_ARGUMENT(sae_event_ring_create(4, NULL, &error));
    CHECK(sae_event_ring_create(4, &ring, NULL) == SAE_STATUS_OK);
    sae_event event;
    memset(&event, 0, sizeof event);
    CHECK(sae_event_ring_pop(NULL, &event) == 0 && sae_event_ring_pop(ring, NULL) == 0);
    CHECK(sae_event_ring_dropped(NULL) == 0);
    char line[200];
    size_t needed = 0;
    NULL_ARGUMENT(sae_event_json(NULL, &event, line, sizeof line, &needed, &error));
    NULL_ARGUMENT(sae_event_json(rules, NULL, line, sizeof line, &needed, &error));
    NULL_ARGUMENT(sae_event_json(rules, &event, NULL, sizeof line, &needed, &error));
    NULL_ARGUMENT(sae_event_json(rules, &event, line, sizeof line, NULL, &error));
    sae_monitor *monitor = NULL, *no_monitor = NULL;
    NULL_ARGUMENT(sae_monitor_create(NULL, rules, NULL, &no_monitor, &error));
    NULL_ARGUMENT(sae_monitor_create(model, NULL, NULL, &no_monitor, &error));
    NULL_ARGUMENT(sae_monitor_create(model, rules, NULL, NULL, &error));
    CHECK(no_monitor == NULL);
    CHECK(sae_monitor_create(model, rules, NULL, &monitor, NULL) == SAE_STATUS_OK);
    NULL_ARGUMENT(sae_monitor_observe(NULL, monitor, &rows, NULL, 0, scratch, &error));
    NULL_ARGUMENT(sae_monitor_observe(model, NULL, &rows, NULL, 0, scratch, &error));
    NULL_ARGUMENT(sae_monitor_observe(model, monitor, NULL, NULL, 0, scratch, &error));
    NULL_ARGUMENT(sae_monitor_observe(model, monitor, &rows, NULL, 1, scratch, &error));
    NULL_ARGUMENT(sae_monitor_observe(model, monitor, &rows, NULL, 0, NULL, &error));
    NULL_ARGUMENT(sae_monitor_propose(NULL, monitor, &rows, NULL, 0, scratch, &error));
    NULL_ARGUMENT(sae_monitor_propose(model, NULL, &rows, NULL, 0, scratch, &error));
    NULL_ARGUMENT(sae_monitor_observe_features(NULL, features, NULL, 0, &error));
    NULL_ARGUMENT(sae_monitor_observe_features(monitor, NULL, NULL, 0, &error));
    NULL_ARGUMENT(sae_monitor_propose_features(NULL, features, NULL, 0, &error));
    NULL_ARGUMENT(sae_monitor_propose_features(monitor, NULL, NULL, 0, &error));
    NULL_ARGUMENT(sae_monitor_commit(NULL, 0, 1, NULL, &error));
    NULL_ARGUMENT(sae_monitor_rollback(NULL, 0, 1, NULL, &error));
    NULL_ARGUMENT(sae_monitor_end_stream(NULL, 0, &error));
    sae_monitor_counts counts;
    counts.struct_size = (uint32_t)sizeof counts;
    NULL_ARGUMENT(sae_monitor_count(NULL, &counts, &error));
    NULL_ARGUMENT(sae_monitor_count(monitor, NULL, &error));
    CHECK(sae_monitor_rule_events(NULL, 0) == 0 && sae_monitor_rule_events(monitor, 9) == 0);
    sae_feature_summary summary;
    summary.struct_size = (uint32_t)sizeof summary;
    NULL_ARGUMENT(sae_monitor_feature(NULL, 0, &summary, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_monitor_feature(monitor, 0, &summary, &error));
    NULL_ARGUMENT(sae_monitor_open_metrics(NULL, line, sizeof line, &needed, &error));
    NULL_ARGUMENT(sae_monitor_open_metrics(monitor, NULL, sizeof line, &needed, &error));
    NULL_ARGUMENT(sae_monitor_open_metrics(monitor, line, sizeof line, NULL, &error));
    NULL_ARGUMENT(sae_monitor_snapshot(NULL, line, sizeof line, &needed, &error));
    NULL_ARGUMENT(sae_monitor_merge(NULL, line, sizeof line, &error));
    NULL_ARGUMENT(sae_monitor_merge(monitor, NULL, sizeof line, &error));
    double bits = 0;
    NULL_ARGUMENT(sae_monitor_dead(NULL, NULL, 0, &needed, &error));
    NULL_ARGUMENT(sae_monitor_description_length(NULL, &bits, &error));
    NULL_ARGUMENT(sae_monitor_json(NULL, line, sizeof line, &needed, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_monitor_dead(monitor, NULL, 0, &needed, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_monitor_description_length(monitor, &bits, &error));

    /* Quality. */
    sae_quality *quality = NULL, *no_quality = NULL;
    NULL_ARGUMENT(sae_quality_create(NULL, NULL, &no_quality, &error));
    NULL_ARGUMENT(sae_quality_create(model, NULL, NULL, &error));
    CHECK(no_quality == NULL);
    CHECK(sae_quality_create(model, NULL, &quality, NULL) == SAE_STATUS_OK);
    float decoded = 0;
    NULL_ARGUMENT(sae_quality_add(NULL, &rows, features, &decoded, 1, NULL, 0, &error));
    NULL_ARGUMENT(sae_quality_add(quality, NULL, features, &decoded, 1, NULL, 0, &error));
    NULL_ARGUMENT(sae_quality_add(quality, &rows, NULL, &decoded, 1, NULL, 0, &error));
    NULL_ARGUMENT(sae_quality_add(quality, &rows, features, NULL, 1, NULL, 0, &error));
    sae_quality_summary means;
    means.struct_size = (uint32_t)sizeof means;
    NULL_ARGUMENT(sae_quality_summarize(NULL, &means, &error));
    NULL_ARGUMENT(sae_quality_summarize(quality, NULL, &error));
    NULL_ARGUMENT(sae_quality_json(NULL, line, sizeof line, &needed, &error));
    NULL_ARGUMENT(sae_quality_json(quality, NULL, sizeof line, &needed, &error));
    NULL_ARGUMENT(sae_quality_json(quality, line, sizeof line, NULL, &error));
    NULL_ARGUMENT(sae_quality_snapshot(NULL, line, sizeof line, &needed, &error));
    NULL_ARGUMENT(sae_quality_snapshot(quality, line, sizeof line, NULL, &error));
    NULL_ARGUMENT(sae_quality_merge(NULL, quality, line, sizeof line, &error));
    NULL_ARGUMENT(sae_quality_merge(model, NULL, line, sizeof line, &error));
    NULL_ARGUMENT(sae_quality_merge(model, quality, NULL, sizeof line, &error));
    NULL_ARGUMENT(sae_quality_fit_errors(NULL, 0, line, sizeof line, &needed, &error));
    NULL_ARGUMENT(sae_quality_set_error_model(NULL, line, sizeof line, 1, &error));
    NULL_ARGUMENT(sae_quality_set_error_model(quality, NULL, sizeof line, 1, &error));
    sae_quality_destroy(NULL);
    sae_quality_destroy(quality);

    sae_rules_destroy(NULL);
    sae_event_ring_destroy(NULL);
    sae_monitor_destroy(NULL);
    sae_monitor_destroy(monitor);
    sae_event_ring_destroy(ring);
    sae_rules_destroy(rules);

    /* Derived models, ensembles, importance. */
    sae_model *derived = NULL;
    sae_pursuit pursuit = SAE_PURSUIT_INIT(1);
    uint32_t *order = calloc(sae_model_d_sae(model), sizeof(uint32_t));
    CHECK(order != NULL);
    NULL_ARGUMENT(sae_model_with_k(NULL, 1, &derived, &error));
    NULL_ARGUMENT(sae_model_with_k(model, 1, NULL, &error));
    NULL_ARGUMENT(sae_model_with_top_k(NULL, 1, &derived, &error));
    NULL_ARGUMENT(sae_model_with_top_k(model, 1, NULL, &error));
    NULL_ARGUMENT(sae_model_with_threshold(NULL, 1, &derived, &error));
    NULL_ARGUMENT(sae_model_with_threshold(model, 1, NULL, &error));
    NULL_ARGUMENT(sae_model_with_rank_weights(NULL, NULL, 0, &derived, &error));
    NULL_ARGUMENT(sae_model_with_rank_weights(model, NULL, 1, &derived, &error));
    NULL_ARGUMENT(sae_model_with_rank_weights(model, NULL, 0, NULL, &error));
    NULL_ARGUMENT(sae_model_with_prefix(NULL, 1, &derived, &error));
    NULL_ARGUMENT(sae_model_with_prefix(model, 1, NULL, &error));
    NULL_ARGUMENT(sae_model_with_range(NULL, 0, 1, &derived, &error));
    NULL_ARGUMENT(sae_model_with_range(model, 0, 1, NULL, &error));
    NULL_ARGUMENT(sae_model_with_features(NULL, order, 1, &derived, &error));
    NULL_ARGUMENT(sae_model_with_features(model, NULL, 1, &derived, &error));
    NULL_ARGUMENT(sae_model_with_features(model, order, 1, NULL, &error));
    NULL_ARGUMENT(sae_model_with_pursuit(NULL, &pursuit, &derived, &error));
    NULL_ARGUMENT(sae_model_with_pursuit(model, NULL, &derived, &error));
    NULL_ARGUMENT(sae_model_with_pursuit(model, &pursuit, NULL, &error));
    CHECK(sae_model_with_pursuit(NULL, NULL, NULL, NULL) == SAE_STATUS_NULL_ARGUMENT);
    const sae_model *members[2] = {model, NULL};
    NULL_ARGUMENT(sae_ensemble_create(NULL, 1, SAE_ENSEMBLE_BAG, &derived, &error));
    NULL_ARGUMENT(sae_ensemble_create(members, 2, SAE_ENSEMBLE_BAG, &derived, &error));
    NULL_ARGUMENT(sae_ensemble_create(members, 1, SAE_ENSEMBLE_BAG, NULL, &error));
    const float vector[1] = {0.0f};
    size_t width = sae_model_d_in(model);
    NULL_ARGUMENT(
        sae_ensemble_create_routed(NULL, 1, vector, 1, NULL, 0, 1, &derived, &error));
    NULL_ARGUMENT(
        sae_ensemble_create_routed(members, 2, vector, 1, NULL, 0, 1, &derived, &error));
    NULL_ARGUMENT(
        sae_ensemble_create_routed(members, 1, NULL, width, NULL, 0, 1, &derived, &error));
    NULL_ARGUMENT(
        sae_ensemble_create_routed(members, 1, vector, 1, NULL, width, 1, &derived, &error));
    NULL_ARGUMENT(sae_ensemble_create_routed(members, 1, vector, 1, NULL, 0, 1, NULL, &error));
    CHECK(derived == NULL);
    sae_importance *importance = NULL;
    NULL_ARGUMENT(sae_importance_create(NULL, &importance, &error));
    NULL_ARGUMENT(sae_importance_create(model, NULL, &error));
    CHECK(sae_importance_create(model, &importance, NULL) == SAE_STATUS_OK);
    NULL_ARGUMENT(sae_importance_add(NULL, features, &error));
    NULL_ARGUMENT(sae_importance_add(importance, NULL, &error));
    NULL_ARGUMENT(sae_importance_order(NULL, order, sae_model_d_sae(model), &error));
    NULL_ARGUMENT(sae_importance_order(importance, NULL, sae_model_d_sae(model), &error));
    CHECK(sae_importance_order(importance, order, sae_model_d_sae(model), NULL) == SAE_STATUS_OK);

    /* Batches, sites, layers. */
    sae_batch *chosen = NULL;
    NULL_ARGUMENT(sae_batch_create(NULL, SAE_BATCH_TOGETHER, 1, 1, &chosen, &error));
    NULL_ARGUMENT(sae_batch_create(model, SAE_BATCH_TOGETHER, 1, 1, NULL, &error));
    CHECK(sae_batch_create(model, SAE_BATCH_TOGETHER, 1, rows.n_rows, &chosen, NULL) ==
          SAE_STATUS_OK);
    NULL_ARGUMENT(sae_model_encode_batch(NULL, &rows, chosen, scratch, features, &error));
    NULL_ARGUMENT(sae_model_encode_batch(model, NULL, chosen, scratch, features, &error));
    NULL_ARGUMENT(sae_model_encode_batch(model, &rows, NULL, scratch, features, &error));
    NULL_ARGUMENT(sae_model_encode_batch(model, &rows, chosen, NULL, features, &error));
    NULL_ARGUMENT(sae_model_encode_batch(model, &rows, chosen, scratch, NULL, &error));
    CHECK(sae_model_encode_batch(model, &rows, chosen, scratch, features, NULL) == SAE_STATUS_OK);
    CHECK(sae_model_input_sites(NULL) == 0 && sae_model_output_sites(NULL) == 0);
    NULL_ARGUMENT(sae_model_encode_sites(NULL, &rows, 1, scratch, features, &error));
    NULL_ARGUMENT(sae_model_encode_sites(model, NULL, 1, scratch, features, &error));
    NULL_ARGUMENT(sae_model_encode_sites(model, &rows, 1, NULL, features, &error));
    NULL_ARGUMENT(sae_model_encode_sites(model, &rows, 1, scratch, NULL, &error));
    size_t n_read = rows.n_rows * sae_set_count(set);
    NULL_ARGUMENT(sae_model_readout_sites(NULL, set, &rows, 1, scratch, values, n_read, status,
                                          &error));
    NULL_ARGUMENT(sae_model_readout_sites(model, NULL, &rows, 1, scratch, values, n_read, status,
                                          &error));
    NULL_ARGUMENT(sae_model_readout_sites(model, set, NULL, 1, scratch, values, n_read, status,
                                          &error));
    NULL_ARGUMENT(
        sae_model_readout_sites(model, set, &rows, 1, NULL, values, n_read, status, &error));
    NULL_ARGUMENT(
        sae_model_readout_sites(model, set, &rows, 1, scratch, NULL, n_read, status, &error));
    NULL_ARGUMENT(
        sae_model_readout_sites(model, set, &rows, 1, scratch, values, n_read, NULL, &error));
    NULL_ARGUMENT(sae_model_decode_sites(NULL, features, &rows, 1, scratch, out, 1, &error));
    NULL_ARGUMENT(sae_model_decode_sites(model, NULL, &rows, 1, scratch, out, 1, &error));
    NULL_ARGUMENT(sae_model_decode_sites(model, features, &rows, 1, NULL, out, 1, &error));
    CHECK_OK(sae_model_encode(model, &rows, scratch, features, &error));
    size_t n_decoded = sae_features_n_rows(features) * sae_model_d_out(model);
    NULL_ARGUMENT(
        sae_model_decode_sites(model, features, &rows, 1, scratch, NULL, n_decoded, &error));
    sae_layer_stream *stream = NULL;
    uint32_t first = 0, in_layer = 0;
    NULL_ARGUMENT(sae_layer_stream_create(NULL, 1, &stream, &error));
    NULL_ARGUMENT(sae_layer_stream_create(model, 1, NULL, &error));
    NULL_ARGUMENT(sae_layer_stream_restart(NULL, 1, &error));
    NULL_ARGUMENT(sae_model_layer_features(NULL, 0, &first, &in_layer, &error));
    NULL_ARGUMENT(sae_model_layer_features(model, 0, NULL, &in_layer, &error));
    NULL_ARGUMENT(sae_model_layer_features(model, 0, &first, NULL, &error));
    NULL_ARGUMENT(sae_model_encode_layer(NULL, NULL, 0, &rows, scratch, features, &error));
    NULL_ARGUMENT(sae_model_encode_layer(model, NULL, 0, &rows, scratch, features, &error));
    NULL_ARGUMENT(sae_model_decode_layer(NULL, NULL, 0, &rows, scratch, out, 1, &error));
    NULL_ARGUMENT(sae_model_decode_layer(model, NULL, 0, &rows, scratch, out, 1, &error));

    /* Low-rank sparse attention; what works is in lorsa.c. */
    sae_lorsa *lorsa = NULL;
    sae_lorsa_cache *cache = NULL;
    NULL_ARGUMENT(sae_lorsa_open(NULL, NULL, &lorsa, &error));
    NULL_ARGUMENT(sae_lorsa_open(argv[1], NULL, NULL, &error));
    NULL_ARGUMENT(sae_lorsa_open_memory(NULL, n_bytes, "n", "{}", NULL, &lorsa, &error));
    NULL_ARGUMENT(sae_lorsa_open_memory(bytes, n_bytes, "n", "{}", NULL, NULL, &error));
    NULL_ARGUMENT(sae_lorsa_with_k(NULL, 1, &lorsa, &error));
    NULL_ARGUMENT(sae_lorsa_with_k(NULL, 1, NULL, &error));
    CHECK(strcmp(sae_lorsa_level(NULL), "") == 0);
    CHECK(sae_lorsa_d_in(NULL) == 0 && sae_lorsa_d_sae(NULL) == 0 && sae_lorsa_d_out(NULL) == 0);
    NULL_ARGUMENT(sae_lorsa_scratch_create(NULL, &no_scratch, &error));
    NULL_ARGUMENT(sae_lorsa_cache_create(NULL, 1, &cache, &error));
    CHECK(sae_lorsa_cache_length(NULL) == 0);
    NULL_ARGUMENT(sae_lorsa_cache_truncate(NULL, 0, &error));
    NULL_ARGUMENT(sae_lorsa_encode(NULL, &rows, NULL, scratch, features, &error));
    NULL_ARGUMENT(sae_lorsa_readout(NULL, NULL, 0, &rows, NULL, scratch, values, 0, status, &error));
    NULL_ARGUMENT(sae_lorsa_decode(NULL, features, scratch, out, 1, &error));
    sae_lorsa_close(NULL);
    sae_lorsa_cache_destroy(NULL);
    CHECK(lorsa == NULL && cache == NULL && no_scratch == NULL);

    /* Mixtures of transforms; what works is in molt.c. */
    sae_molt *molt = NULL;
    sae_molt_scratch *molt_scratch = NULL;
    NULL_ARGUMENT(sae_molt_open(NULL, NULL, &molt, &error));
    NULL_ARGUMENT(sae_molt_open(argv[1], NULL, NULL, &error));
    NULL_ARGUMENT(sae_molt_open_memory(NULL, n_bytes, "n", "{}", NULL, &molt, &error));
    NULL_ARGUMENT(sae_molt_open_memory(bytes, n_bytes, "n", "{}", NULL, NULL, &error));
    CHECK(sae_molt_d_in(NULL) == 0 && sae_molt_d_sae(NULL) == 0 && sae_molt_d_out(NULL) == 0);
    CHECK(strcmp(sae_molt_level(NULL), "") == 0);
    NULL_ARGUMENT(sae_molt_with_k(NULL, 1, &molt, &error));
    NULL_ARGUMENT(sae_molt_scratch_create(NULL, &molt_scratch, &error));
    NULL_ARGUMENT(sae_molt_encode(NULL, &rows, NULL, features, &error));
    NULL_ARGUMENT(sae_molt_set_compile(NULL, order, 1, &no_set, &error));
    NULL_ARGUMENT(sae_molt_readout(NULL, set, &rows, NULL, values, 0, status, &error));
    NULL_ARGUMENT(sae_molt_decode(NULL, features, &rows, NULL, out, 1, &error));
    sae_molt_scratch_destroy(NULL);
    sae_molt_close(NULL);
    CHECK(molt == NULL && molt_scratch == NULL && no_set == NULL);

    kinds(plan, &batch);

    /* Destroying NULL does nothing. */
    sae_layer_stream_destroy(NULL);
    sae_batch_destroy(NULL);
    sae_importance_destroy(NULL);
    sae_batch_destroy(chosen);
    sae_importance_destroy(importance);
    free(order);
    sae_plan_destroy(NULL);
    sae_steer_scratch_destroy(NULL);
    sae_set_destroy(NULL);
    sae_features_destroy(NULL);
    sae_scratch_destroy(NULL);
    sae_model_close(NULL);

    sae_steer_scratch_destroy(steer);
    sae_plan_destroy(plan);
    sae_set_destroy(empty_set);
    sae_set_destroy(set);
    sae_features_destroy(empty);
    sae_features_destroy(features);
    sae_scratch_destroy(scratch);
    sae_model_close(model);
    free(values);
    free(status);
    free(out);
    free((void *)rows.data);
    free(bytes);
    return 0;
}
