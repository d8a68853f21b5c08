/* What vectors are made of, against sums of this program's own over all decoder vectors (which
 * steering shows: adding a feature moves a row along its vector), and what goes wrong. */
#include "check.h"
#include "sae_steer.h"

#include <math.h>

static sae_error error;

static double dot(const double *a, const double *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static int close_to(double found, double expected, double bound) {
    if (fabs(found - expected) <= bound) return 1;
    fprintf(stderr, "%.17g is not %.17g\n", found, expected);
    return 0;
}

/* How a plan moves the first row. */
static void moves(const sae_model *model, const char *text, const sae_rows *inputs, double *by) {
    size_t d_out = sae_model_d_out(model);
    sae_plan *plan = NULL;
    sae_steer_scratch *scratch = NULL;
    CHECK_OK(sae_plan_compile(model, &text, 1, SAE_CONFLICTS_REFUSE, &plan, &error));
    CHECK_OK(sae_steer_scratch_create(model, plan, &scratch, &error));
    float *values = (float *)calloc(d_out, sizeof(float));
    sae_rows one = *inputs;
    one.n_rows = 1;
    memcpy(values, inputs->data, (d_out < inputs->width ? d_out : inputs->width) * sizeof(float));
    sae_rows_mut rows = {values, SAE_DTYPE_F32, 0, 1, d_out, 0};
    sae_steer_batch batch;
    memset(&batch, 0, sizeof batch);
    batch.struct_size = (uint32_t)sizeof batch;
    batch.dry_run = 1;
    batch.rows = &rows;
    batch.inputs = &one;
    batch.changes = by;
    batch.n_changes = d_out;
    CHECK_OK(sae_model_steer(model, plan, &batch, scratch, &error));
    free(values);
    sae_steer_scratch_destroy(scratch);
    sae_plan_destroy(plan);
}

/* The decoder vectors at length 1, [d_sae, d_out]. */
static double *atoms_of(const sae_model *model, const sae_rows *rows) {
    size_t d_sae = sae_model_d_sae(model), d_out = sae_model_d_out(model);
    double *atoms = (double *)malloc(d_sae * d_out * sizeof(double));
    for (size_t i = 0; i < d_sae; i++) {
        char text[96];
        snprintf(text, sizeof text,
                 "{\"edits\": [{\"feature\": %zu, \"rule\": \"add\", \"strength\": 1}]}", i);
        double *atom = atoms + i * d_out;
        moves(model, text, rows, atom);
        double length = sqrt(dot(atom, atom, d_out));
        CHECK(length > 0);
        for (size_t c = 0; c < d_out; c++) atom[c] /= length;
    }
    return atoms;
}

static sae_decomposed result_of(const sae_decomposition *found) {
    sae_decomposed result;
    result.struct_size = (uint32_t)sizeof result;
    CHECK_OK(sae_decomposition_result(found, &result, &error));
    return result;
}

/* The list is that of the highest cosines (times `sign`) of all features. */
static void ranked(const sae_projection *list, size_t n, const double *cosines, size_t d_sae,
                   double norm, double sign) {
    char *taken = (char *)calloc(d_sae, 1);
    for (size_t at = 0; at < n; at++) {
        size_t best = d_sae;
        for (size_t i = 0; i < d_sae; i++)
            if (!taken[i] && (best == d_sae || sign * cosines[i] > sign * cosines[best])) best = i;
        uint32_t feature = list[at].feature;
        CHECK(feature < d_sae && !taken[feature]);
        taken[feature] = 1;
        /* Another feature only where the two are as good as equal. */
        CHECK(close_to(cosines[feature], cosines[best], 1e-6));
        CHECK(close_to(list[at].cosine, cosines[feature], 1e-6));
        CHECK(close_to(list[at].projection, norm * list[at].cosine, 1e-6 * norm));
    }
    free(taken);
}

static void decomposes(const sae_model *model, const sae_rows *rows, const double *atoms,
                       const float *vector, const sae_pursuit *pursuit, size_t most) {
    size_t d_sae = sae_model_d_sae(model), d_out = sae_model_d_out(model);
    sae_decomposition *found = NULL;
    CHECK_OK(sae_model_decompose(model, vector, d_out, pursuit, most, &found, &error));
    sae_decomposed result = result_of(found);
    size_t expected = most < d_sae ? most : d_sae;
    CHECK(result.n_along == expected && result.n_against == expected);
    CHECK(result.n_parts >= 1 && result.n_parts <= (pursuit ? pursuit->steps : 16));
    double *v = (double *)malloc(d_out * sizeof(double));
    double *y = (double *)calloc(d_out, sizeof(double));
    double *cosines = (double *)malloc(d_sae * sizeof(double));
    for (size_t c = 0; c < d_out; c++) v[c] = (double)vector[c];
    double norm = sqrt(dot(v, v, d_out));
    CHECK(close_to(result.norm, norm, 1e-9 * norm));
    for (size_t i = 0; i < d_sae; i++) cosines[i] = dot(v, atoms + i * d_out, d_out) / norm;

    sae_vector_part *parts = (sae_vector_part *)malloc(result.n_parts * sizeof *parts);
    CHECK_OK(sae_decomposition_parts(found, parts, result.n_parts, &error));
    for (size_t i = 0; i < result.n_parts; i++) {
        const sae_vector_part *part = &parts[i];
        CHECK(part->feature < d_sae && part->reserved == 0);
        CHECK(i == 0 || fabs(part->length) <= fabs(parts[i - 1].length));
        CHECK(close_to(part->cosine, cosines[part->feature], 1e-6));
        CHECK(close_to(part->projection, norm * part->cosine, 1e-6 * norm));
        CHECK((part->strength > 0) == (part->length > 0));
        for (size_t c = 0; c < d_out; c++)
            y[c] += part->length * atoms[part->feature * d_out + c];
    }
    double left = 0;
    for (size_t c = 0; c < d_out; c++) left += (v[c] - y[c]) * (v[c] - y[c]);
    CHECK(close_to(result.explained, 1 - left / (norm * norm), 1e-5));
    CHECK(close_to(result.cosine, dot(v, y, d_out) / (norm * sqrt(dot(y, y, d_out))), 1e-5));

    sae_projection *list = (sae_projection *)malloc((expected + 1) * sizeof *list);
    CHECK_OK(sae_decomposition_along(found, list, expected, &error));
    ranked(list, expected, cosines, d_sae, norm, 1);
    CHECK_OK(sae_decomposition_against(found, list, expected, &error));
    ranked(list, expected, cosines, d_sae, norm, -1);
    /* Exact lengths, and nothing is written else. */
    memset(list, 0x55, (expected + 1) * sizeof *list);
    sae_projection before = list[0];
    CHECK_STATUS(SAE_STATUS_LENGTH, sae_decomposition_along(found, list, expected + 1, &error));
    CHECK_STATUS(SAE_STATUS_LENGTH, sae_decomposition_against(found, list, expected + 1, &error));
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_decomposition_parts(found, parts, result.n_parts - 1, &error));
    CHECK(memcmp(&before, list, sizeof before) == 0);

    /* The plan moves a row by what the parts add up to, where it has no other factor. */
    char text[8192];
    size_t size = 0;
    CHECK_OK(sae_decomposition_write_plan(found, "again", NULL, 0, &size, &error));
    CHECK(size > 1 && size <= sizeof text);
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_decomposition_write_plan(found, "again", text, size - 1, NULL, &error));
    CHECK_OK(sae_decomposition_write_plan(found, "again", text, size, NULL, &error));
    CHECK(strlen(text) + 1 == size && strstr(text, "\"again\"") != NULL);
    double *by = (double *)malloc(d_out * sizeof(double));
    moves(model, text, rows, by);
    double along = dot(by, y, d_out) / sqrt(dot(by, by, d_out) * dot(y, y, d_out));
    CHECK(close_to(along, 1, 1e-6));
    sae_plan *plan = NULL;
    const char *texts[] = {text};
    CHECK_OK(sae_plan_compile(model, texts, 1, SAE_CONFLICTS_REFUSE, &plan, &error));
    float *constant = (float *)malloc(d_out * sizeof(float));
    if (sae_model_plan_vector(model, plan, constant, d_out, &error) == SAE_STATUS_OK)
        for (size_t c = 0; c < d_out; c++) CHECK(close_to(constant[c], y[c], 1e-5 * norm));
    sae_plan_destroy(plan);
    free(constant);
    free(by);
    free(list);
    free(parts);
    free(cosines);
    free(v);
    free(y);
    sae_decomposition_destroy(found);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    sae_model *model = NULL;
    CHECK_OK(sae_model_open(argv[1], NULL, &model, &error));
    sae_rows rows = read_rows(argv[2], model);
    size_t d_out = sae_model_d_out(model);
    double *atoms = atoms_of(model, &rows);
    float *vector = (float *)malloc((d_out + 1) * sizeof(float));

    /* Less of one feature, and nothing else: one negative part. */
    for (size_t c = 0; c < d_out; c++) vector[c] = (float)(-2.5 * atoms[5 * d_out + c]);
    sae_decomposition *found = NULL;
    CHECK_OK(sae_model_decompose(model, vector, d_out, NULL, 1, &found, &error));
    sae_decomposed result = result_of(found);
    sae_vector_part first[16];
    CHECK_OK(sae_decomposition_parts(found, first, result.n_parts, &error));
    CHECK(first[0].feature == 5 && close_to(first[0].length, -2.5, 1e-5));
    CHECK(first[0].strength < 0 && close_to(first[0].cosine, -1, 1e-6));
    CHECK(result.explained > 0.999999 && result.cosine > 0.999999);
    sae_projection against;
    CHECK_OK(sae_decomposition_against(found, &against, 1, &error));
    CHECK(against.feature == 5 && close_to(against.projection, -2.5, 1e-5));
    sae_decomposition_destroy(found);

    /* More and less of some, and what no feature has. */
    for (size_t c = 0; c < d_out; c++) {
        double sum = 3 * atoms[1 * d_out + c] - 2 * atoms[4 * d_out + c] + atoms[7 * d_out + c];
        vector[c] = (float)(sum + 0.125 * (double)((int)(c * 7 % 5) - 2));
    }
    decomposes(model, &rows, atoms, vector, NULL, 3);
    decomposes(model, &rows, atoms, vector, NULL, 0);
    decomposes(model, &rows, atoms, vector, NULL, 1000000);
    static const struct {
        sae_pick pick;
        sae_refit refit;
    } WAYS[] = {{SAE_PICK_POSITIVE, SAE_REFIT_NOTHING},
                {SAE_PICK_POSITIVE, SAE_REFIT_GRADIENT},
                {SAE_PICK_POSITIVE, SAE_REFIT_LEAST_SQUARES},
                {SAE_PICK_MAGNITUDE, SAE_REFIT_NOTHING},
                {SAE_PICK_MAGNITUDE, SAE_REFIT_GRADIENT},
                {SAE_PICK_MAGNITUDE, SAE_REFIT_LEAST_SQUARES}};
    for (size_t way = 0; way < sizeof WAYS / sizeof *WAYS; way++) {
        sae_pursuit pursuit = SAE_PURSUIT_INIT(4);
        pursuit.pick = WAYS[way].pick;
        pursuit.refit = WAYS[way].refit;
        decomposes(model, &rows, atoms, vector, &pursuit, 2);
    }

    /* What goes wrong. */
    sae_decomposition *none = (sae_decomposition *)(void *)model;
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_model_decompose(model, vector, d_out + 1, NULL, 1, &none, &error));
    CHECK(none == NULL);
    sae_pursuit pursuit = SAE_PURSUIT_INIT(0);
    CHECK(sae_model_decompose(model, vector, d_out, &pursuit, 1, &none, &error) != SAE_STATUS_OK);
    pursuit.steps = 1;
    pursuit.pick = 17;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_decompose(model, vector, d_out, &pursuit, 1, &none, &error));
    pursuit.struct_size = 3;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_decompose(model, vector, d_out, &pursuit, 1, &none, &error));
    vector[1] = NAN;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_decompose(model, vector, d_out, NULL, 1, &none, &error));
    memset(vector, 0, d_out * sizeof(float));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_decompose(model, vector, d_out, NULL, 1, &none, &error));
    CHECK(none == NULL);
    sae_decomposition *wrong = (sae_decomposition *)(void *)model;
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE, sae_decomposition_result(wrong, &result, &error));
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE, sae_decomposition_parts(wrong, first, 1, &error));
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE, sae_decomposition_along(wrong, &against, 1, &error));
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE, sae_decomposition_against(wrong, &against, 1, &error));
    CHECK_STATUS(SAE_STATUS_WRONG_HANDLE,
                 sae_decomposition_write_plan(wrong, NULL, NULL, 0, NULL, &error));
    sae_decomposition_destroy(wrong);

    free(vector);
    free(atoms);
    free((void *)rows.data);
    sae_model_close(model);
    return 0;
}
