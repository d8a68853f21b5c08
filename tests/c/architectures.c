/* Derived models, pursuits, ensembles, batches and sites: what must be the same is the same, bit for
 * bit, on any model; whatever a caller does wrong is a status. */
#include "check.h"
#include "sae_architectures.h"

#include <math.h>

static sae_error error;

/* The features of all rows under a model. */
static sae_features *encode(const sae_model *model, const sae_rows *rows) {
    sae_scratch *scratch = NULL;
    sae_features *features = NULL;
    CHECK_OK(sae_scratch_create(model, &scratch, &error));
    CHECK_OK(sae_features_create(0, 0, &features, &error));
    CHECK_OK(sae_model_encode(model, rows, scratch, features, &error));
    sae_scratch_destroy(scratch);
    return features;
}

static float *decode(const sae_model *model, const sae_features *features, const sae_rows *rows) {
    sae_scratch *scratch = NULL;
    size_t count = sae_features_n_rows(features) * sae_model_d_out(model);
    float *out = calloc(count + 1, sizeof(float));
    CHECK(out != NULL);
    CHECK_OK(sae_scratch_create(model, &scratch, &error));
    CHECK_OK(sae_model_decode(model, features, rows, scratch, out, count, &error));
    sae_scratch_destroy(scratch);
    return out;
}

/* Features below `limit` of every row, in a handle of their own. */
static sae_features *below(const sae_features *features, uint32_t limit) {
    sae_features *part = NULL;
    CHECK_OK(sae_features_create(0, 0, &part, &error));
    for (size_t row = 0; row < sae_features_n_rows(features); row++) {
        sae_row_features found;
        size_t count = 0;
        CHECK_OK(sae_features_row(features, row, &found, &error));
        while (count < found.count && found.indices[count] < limit) count++;
        CHECK_OK(sae_features_append_row(part, found.indices, found.values, count, &error));
    }
    return part;
}

static void knobs(const sae_model *model, const sae_rows *rows) {
    uint32_t d_sae = (uint32_t)sae_model_d_sae(model);
    sae_model *relu = NULL, *top = NULL, *other = NULL, *none = NULL;
    CHECK_OK(sae_model_with_threshold(model, 0.0f, &relu, &error));
    CHECK_OK(sae_model_with_top_k(model, 5, &top, &error));
    sae_features *all = encode(relu, rows), *five = encode(top, rows);
    CHECK(sae_features_count(five) <= 5 * rows->n_rows);

    /* All of them are those above 0; two steps to a k are one. */
    CHECK_OK(sae_model_with_k(top, d_sae, &other, &error));
    sae_features *every = encode(other, rows);
    CHECK(same_features(every, all));
    sae_features_destroy(every);
    sae_model *again = NULL;
    CHECK_OK(sae_model_with_k(other, 5, &again, &error));
    sae_features *same = encode(again, rows);
    CHECK(same_features(same, five));
    sae_features_destroy(same);
    sae_model_close(again);
    sae_model_close(other);
    CHECK_OK(sae_model_with_k(top, 0, &none, &error));
    sae_features *nothing = encode(none, rows);
    CHECK(sae_features_count(nothing) == 0 && sae_features_n_rows(nothing) == rows->n_rows);
    sae_features_destroy(nothing);
    sae_model_close(none);
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_with_k(top, d_sae + 1, &other, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_with_k(relu, 5, &other, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_VALUE, sae_model_with_top_k(model, 0, &other, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_VALUE, sae_model_with_threshold(model, NAN, &other, &error));
    CHECK(other == NULL);

    /* A prefix, and decoding it by the whole model. */
    CHECK_OK(sae_model_with_prefix(relu, d_sae / 2, &other, &error));
    CHECK(sae_model_d_sae(other) == d_sae / 2 && sae_model_d_in(other) == sae_model_d_in(model));
    sae_features *half = encode(other, rows), *expected = below(all, d_sae / 2);
    CHECK(same_features(half, expected));
    float *one = decode(other, half, rows), *two = decode(relu, half, rows);
    CHECK(memcmp(one, two, rows->n_rows * sae_model_d_out(model) * sizeof(float)) == 0);
    free(one);
    free(two);
    sae_features_destroy(half);
    sae_features_destroy(expected);
    sae_model_close(other);
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_with_prefix(model, d_sae + 1, &other, &error));

    /* Chosen features in an order; the order of importance. */
    sae_importance *importance = NULL;
    CHECK_OK(sae_importance_create(relu, &importance, &error));
    CHECK_OK(sae_importance_add(importance, all, &error));
    uint32_t *order = calloc(d_sae, sizeof(uint32_t));
    CHECK(order != NULL);
    CHECK_OK(sae_importance_order(importance, order, d_sae, &error));
    CHECK_STATUS(SAE_STATUS_LENGTH, sae_importance_order(importance, order, d_sae - 1, &error));
    CHECK_OK(sae_model_with_features(relu, order, d_sae, &other, &error));
    sae_features *sorted = encode(other, rows);
    CHECK(sae_features_count(sorted) == sae_features_count(all));
    sae_features_destroy(sorted);
    sae_model_close(other);
    order[1] = order[0];
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_with_features(relu, order, 2, &other, &error));
    order[1] = d_sae;
    CHECK_STATUS(SAE_STATUS_FEATURE_OUT_OF_RANGE,
                 sae_model_with_features(relu, order, 2, &other, &error));
    free(order);
    sae_importance_destroy(importance);

    /* Weights of the ranks: only one feature has any. */
    double *weights = calloc(d_sae, sizeof(double));
    CHECK(weights != NULL);
    weights[7] = 1.0;
    CHECK_OK(sae_model_with_rank_weights(top, weights, d_sae, &other, &error));
    sae_features *seventh = encode(other, rows);
    sae_features_view view;
    CHECK_OK(sae_features_all(seventh, &view, &error));
    for (size_t i = 0; i < view.count; i++) CHECK(view.indices[i] == 7);
    sae_features_destroy(seventh);
    sae_model_close(other);
    weights[0] = -1.0;
    CHECK_STATUS(SAE_STATUS_INVALID_VALUE,
                 sae_model_with_rank_weights(top, weights, d_sae, &other, &error));
    CHECK_STATUS(SAE_STATUS_SHAPE,
                 sae_model_with_rank_weights(top, weights, d_sae - 1, &other, &error));
    CHECK_OK(sae_model_with_rank_weights(top, NULL, 0, &other, &error));
    free(weights);
    sae_model_close(other);

    /* A batch of one row is top-k. */
    sae_batch *batch = NULL;
    sae_scratch *scratch = NULL;
    sae_features *selected = NULL;
    sae_rows first = *rows;
    first.n_rows = 1;
    CHECK_OK(sae_batch_create(model, SAE_BATCH_TOGETHER, 5, rows->n_rows, &batch, &error));
    CHECK_OK(sae_scratch_create(model, &scratch, &error));
    CHECK_OK(sae_features_create(0, 0, &selected, &error));
    CHECK_OK(sae_model_encode_batch(model, &first, batch, scratch, selected, &error));
    sae_features *of_one = encode(top, &first);
    CHECK(same_features(selected, of_one));
    CHECK_OK(sae_model_encode_batch(model, rows, batch, scratch, selected, &error));
    CHECK(sae_features_count(selected) <= 5 * rows->n_rows);
    CHECK(sae_features_count(selected) >= sae_features_count(five));
    sae_batch_destroy(batch);
    CHECK_OK(sae_batch_create(model, SAE_BATCH_PER_FEATURE, 1, 1, &batch, &error));
    CHECK_OK(sae_model_encode_batch(model, &first, batch, scratch, selected, &error));
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_model_encode_batch(model, rows, batch, scratch, selected, &error));
    CHECK(sae_features_n_rows(selected) == 0);
    sae_batch_destroy(batch);
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_batch_create(model, 2, 1, 1, &batch, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_batch_create(model, SAE_BATCH_TOGETHER, 0, 1, &batch, &error));
    sae_features_destroy(of_one);
    sae_features_destroy(selected);
    sae_scratch_destroy(scratch);
    sae_features_destroy(five);
    sae_features_destroy(all);
    sae_model_close(top);
    sae_model_close(relu);
}

static void pursuits(const sae_model *model) {
    /* A direction made of two decoder rows comes back as those two rows. */
    size_t d_out = sae_model_d_out(model);
    sae_pursuit pursuit = SAE_PURSUIT_INIT(2);
    pursuit.pick = SAE_PICK_MAGNITUDE;
    pursuit.directions = 1;
    sae_model *atoms = NULL;
    CHECK_OK(sae_model_with_pursuit(model, &pursuit, &atoms, &error));
    sae_features *made = NULL, *found = NULL;
    CHECK_OK(sae_features_create(0, 0, &made, &error));
    uint32_t indices[2] = {3, 9};
    float values[2] = {2.0f, -1.5f};
    CHECK_OK(sae_features_append_row(made, indices, values, 2, &error));
    float *direction = decode(atoms, made, NULL);
    sae_rows rows = {direction, SAE_DTYPE_F32, 0, 1, d_out, 0};
    found = encode(atoms, &rows);
    sae_row_features row;
    CHECK_OK(sae_features_row(found, 0, &row, &error));
    CHECK(row.count == 2 && row.indices[0] == 3 && row.indices[1] == 9);
    CHECK(fabsf(row.values[0] - 2.0f) < 1e-5f && fabsf(row.values[1] + 1.5f) < 1e-5f);
    free(direction);
    sae_features_destroy(found);
    sae_features_destroy(made);
    sae_model_close(atoms);

    sae_model *none = NULL;
    pursuit.steps = 0;
    CHECK_STATUS(SAE_STATUS_INVALID_VALUE,
                 sae_model_with_pursuit(model, &pursuit, &none, &error));
    pursuit.steps = 1;
    pursuit.stop_norm = -1;
    CHECK_STATUS(SAE_STATUS_INVALID_VALUE,
                 sae_model_with_pursuit(model, &pursuit, &none, &error));
    pursuit.stop_norm = 0;
    pursuit.pick = 3;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_with_pursuit(model, &pursuit, &none, &error));
    pursuit.pick = SAE_PICK_POSITIVE;
    pursuit.refit = -1;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_with_pursuit(model, &pursuit, &none, &error));
    pursuit.refit = SAE_REFIT_GRADIENT;
    pursuit.directions = 2;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_with_pursuit(model, &pursuit, &none, &error));
    pursuit.directions = 0;
    pursuit.struct_size = 8;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_with_pursuit(model, &pursuit, &none, &error));
    CHECK(none == NULL);
}

/* A range is those features of the whole, and a router picks one of two halves for each row. */
static void experts(const sae_model *model, const sae_rows *rows) {
    size_t d_sae = sae_model_d_sae(model), half = d_sae / 2, d_in = sae_model_d_in(model);
    sae_model *relu = NULL, *halves[2] = {NULL, NULL}, *routed = NULL, *none = NULL;
    CHECK_OK(sae_model_with_threshold(model, 0.0f, &relu, &error));
    CHECK_OK(sae_model_with_range(relu, 0, half, &halves[0], &error));
    CHECK_OK(sae_model_with_range(relu, half, d_sae - half, &halves[1], &error));
    CHECK(sae_model_d_sae(halves[1]) == d_sae - half);
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_model_with_range(relu, 0, 0, &none, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_with_range(relu, half, d_sae, &none, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_model_with_range(relu, (size_t)-1, 2, &none, &error));
    sae_features *all = encode(relu, rows), *parts[2];
    for (size_t i = 0; i < 2; i++) parts[i] = encode(halves[i], rows);
    CHECK(sae_features_count(parts[0]) + sae_features_count(parts[1]) == sae_features_count(all));

    /* The second member where the first column is positive. */
    float *vectors = calloc(2 * d_in, sizeof(float));
    double *center = calloc(d_in, sizeof(double));
    CHECK(vectors != NULL && center != NULL);
    vectors[d_in] = 1.0f;
    const sae_model *members[2] = {halves[0], halves[1]};
    sae_status status = sae_ensemble_create_routed(members, 2, vectors, 2 * d_in, center, d_in, 0,
                                                   &routed, &error);
    /* Models with a skip connection cannot be joined. */
    if (status == SAE_STATUS_OK) {
        sae_features *found = encode(routed, rows);
        size_t used[2] = {0, 0};
        for (size_t row = 0; row < rows->n_rows; row++) {
            size_t member = ((const float *)rows->data)[row * d_in] > 0.0f ? 1 : 0;
            uint32_t offset = member == 1 ? (uint32_t)half : 0;
            sae_row_features one, expected;
            CHECK_OK(sae_features_row(found, row, &one, &error));
            CHECK_OK(sae_features_row(parts[member], row, &expected, &error));
            CHECK(one.count == expected.count);
            for (size_t i = 0; i < one.count; i++)
                CHECK(one.indices[i] == expected.indices[i] + offset &&
                      bits_of(one.values[i]) == bits_of(expected.values[i]));
            used[member]++;
        }
        CHECK(used[0] > 0 && used[1] > 0);
        /* Decoding is the whole model's. */
        float *a = decode(routed, found, rows), *b = decode(relu, found, rows);
        CHECK(memcmp(a, b, rows->n_rows * sae_model_d_out(model) * sizeof(float)) == 0);
        free(a);
        free(b);
        sae_features_destroy(found);
        sae_model_close(routed);
        /* With the member's probability values shrink, and none is lost. */
        CHECK_OK(sae_ensemble_create_routed(members, 2, vectors, 2 * d_in, NULL, 0, 1, &routed,
                                            &error));
        found = encode(routed, rows);
        sae_row_features one, expected;
        CHECK_OK(sae_features_row(found, 0, &one, &error));
        size_t member = ((const float *)rows->data)[0] > 0.0f ? 1 : 0;
        CHECK_OK(sae_features_row(parts[member], 0, &expected, &error));
        CHECK(one.count == expected.count && one.count > 0);
        for (size_t i = 0; i < one.count; i++)
            CHECK(one.values[i] < expected.values[i] && one.values[i] > 0.49f * expected.values[i]);
        sae_features_destroy(found);
        sae_model_close(routed);
        CHECK_STATUS(SAE_STATUS_LENGTH,
                     sae_ensemble_create_routed(members, 2, vectors, d_in, NULL, 0, 1, &none,
                                                &error));
        CHECK_STATUS(SAE_STATUS_SHAPE,
                     sae_ensemble_create_routed(members, 2, vectors, 2 * d_in, center, d_in - 1, 1,
                                                &none, &error));
        CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                     sae_ensemble_create_routed(members, 2, vectors, 2 * d_in, NULL, 0, 2, &none,
                                                &error));
        CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                     sae_ensemble_create_routed(members, 0, vectors, 0, NULL, 0, 1, &none, &error));
        vectors[0] = NAN;
        CHECK_STATUS(SAE_STATUS_INVALID_VALUE,
                     sae_ensemble_create_routed(members, 2, vectors, 2 * d_in, NULL, 0, 1, &none,
                                                &error));
        CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                     sae_ensemble_create(members, 2, SAE_ENSEMBLE_ROUTED, &none, &error));
        CHECK(strstr(error.message, "sae_ensemble_create_routed") != NULL);
    } else {
        CHECK(status == SAE_STATUS_INVALID_ARGUMENT);
    }
    CHECK(none == NULL);
    free(vectors);
    free(center);
    for (size_t i = 0; i < 2; i++) {
        sae_features_destroy(parts[i]);
        sae_model_close(halves[i]);
    }
    sae_features_destroy(all);
    sae_model_close(relu);
}

static void ensembles(const sae_model *model, const sae_rows *rows) {
    const sae_model *members[2] = {model, model};
    sae_model *bag = NULL, *one = NULL;
    sae_status status = sae_ensemble_create(members, 2, SAE_ENSEMBLE_BAG, &bag, &error);
    /* Models with a skip connection cannot be joined. */
    if (status != SAE_STATUS_OK) {
        CHECK(status == SAE_STATUS_INVALID_ARGUMENT);
        return;
    }
    CHECK(sae_model_d_sae(bag) == 2 * sae_model_d_sae(model));
    sae_features *alone = encode(model, rows), *both = encode(bag, rows);
    CHECK(sae_features_count(both) == 2 * sae_features_count(alone));
    sae_features *first = below(both, (uint32_t)sae_model_d_sae(model));
    CHECK(same_features(first, alone));
    CHECK_OK(sae_ensemble_create(members, 1, SAE_ENSEMBLE_BAG, &one, &error));
    sae_features *same = encode(one, rows);
    CHECK(same_features(same, alone));
    sae_model_close(one);
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_ensemble_create(NULL, 0, SAE_ENSEMBLE_BAG, &one, &error));
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT, sae_ensemble_create(members, 1, 9, &one, &error));
    CHECK(one == NULL);
    members[1] = bag;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_ensemble_create(members, 2, SAE_ENSEMBLE_BAG, &one, &error));
    sae_features_destroy(first);
    sae_features_destroy(same);
    sae_features_destroy(both);
    sae_features_destroy(alone);
    sae_model_close(bag);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    sae_model *model = NULL, *derived = NULL, *one = NULL;
    CHECK_OK(sae_model_open(argv[1], NULL, &model, &error));
    sae_rows rows = read_rows(argv[2], model);
    knobs(model, &rows);
    pursuits(model);
    ensembles(model, &rows);
    experts(model, &rows);

    /* One site is the row itself. */
    CHECK(sae_model_input_sites(model) == 1 && sae_model_output_sites(model) == 1);
    sae_scratch *scratch = NULL;
    sae_features *features = NULL, *expected = encode(model, &rows);
    CHECK_OK(sae_scratch_create(model, &scratch, &error));
    CHECK_OK(sae_features_create(0, 0, &features, &error));
    CHECK_OK(sae_model_encode_sites(model, &rows, 1, scratch, features, &error));
    CHECK(same_features(features, expected));
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_model_encode_sites(model, &rows, 0, scratch, features, &error));
    sae_layer_stream *stream = NULL;
    CHECK_STATUS(SAE_STATUS_INVALID_ARGUMENT,
                 sae_layer_stream_create(model, 1, &stream, &error));

    /* What was derived outlives what it was made of. */
    CHECK_OK(sae_model_with_prefix(model, sae_model_d_sae(model), &derived, &error));
    const sae_model *members[1] = {derived};
    sae_status joined = sae_ensemble_create(members, 1, SAE_ENSEMBLE_BAG, &one, &error);
    sae_model_close(model);
    sae_features *after = encode(derived, &rows);
    CHECK(same_features(after, expected));
    sae_features_destroy(after);
    CHECK_OK(sae_model_prepare(derived, &error));
    sae_model_close(derived);
    if (joined == SAE_STATUS_OK) {
        after = encode(one, &rows);
        CHECK(same_features(after, expected));
        sae_features_destroy(after);
    }
    sae_model_close(one);
    sae_features_destroy(expected);
    sae_features_destroy(features);
    sae_scratch_destroy(scratch);
    free((void *)rows.data);
    return 0;
}
