/* The host's floating-point modes change no bit of the results and are the same after every call.
 * Each mode is first shown to be in force. Run natively: valgrind ignores these modes. */
#include "check.h"

#include <fenv.h>

#if defined(__x86_64__) || defined(__i386__)
typedef uint32_t control;
static control read_control(void) {
    control value;
    __asm__ volatile("stmxcsr %0" : "=m"(value));
    return value;
}
static void write_control(control value) { __asm__ volatile("ldmxcsr %0" : : "m"(value)); }
#define HAS_MODES 1
#define FLUSH_OUTPUTS (1u << 15)
#define FLUSH_INPUTS (1u << 6)
#define ROUND_DOWN (1u << 13)
#define ROUND_UP (2u << 13)
#define ROUND_TO_ZERO (3u << 13)
#define ROUNDING (3u << 13)
#elif defined(__aarch64__)
typedef uint64_t control;
static control read_control(void) {
    control value;
    __asm__ volatile("mrs %0, fpcr" : "=r"(value));
    return value;
}
static void write_control(control value) { __asm__ volatile("msr fpcr, %0" : : "r"(value)); }
#define HAS_MODES 1
#define FLUSH_OUTPUTS (1u << 24) /* flushes inputs too */
#define FLUSH_INPUTS (1u << 24)
#define ROUND_UP (1u << 22)
#define ROUND_DOWN (2u << 22)
#define ROUND_TO_ZERO (3u << 22)
#define ROUNDING (3u << 22)
#endif

#ifdef HAS_MODES

/* What one pass over all the verbs gives. */
typedef struct result {
    sae_features *features;
    float *decoded, *values;
    size_t n_decoded, n_values;
} result;

static const char *path;

static result run(const sae_rows *rows) {
    sae_error error;
    sae_model *model;
    sae_scratch *scratch;
    sae_set *set;
    result r;
    control before = read_control();
    /* Opening computes derived vectors and reads numbers from the config. */
    CHECK_OK(sae_model_open(path, NULL, &model, &error));
    CHECK(read_control() == before);
    CHECK_OK(sae_scratch_create(model, &scratch, &error));
    CHECK(read_control() == before);
    CHECK_OK(sae_features_create(0, 0, &r.features, &error));
    CHECK_OK(sae_model_encode(model, rows, scratch, r.features, &error));
    CHECK(read_control() == before);
    r.n_decoded = rows->n_rows * sae_model_d_out(model);
    r.decoded = malloc(r.n_decoded * sizeof(float));
    CHECK(r.decoded != NULL);
    CHECK_OK(sae_model_decode(model, r.features, rows, scratch, r.decoded, r.n_decoded, &error));
    CHECK(read_control() == before);
    uint32_t chosen[8];
    for (uint32_t i = 0; i < 8; i++) chosen[i] = i;
    CHECK_OK(sae_set_compile(model, chosen, 8, &set, &error));
    r.n_values = rows->n_rows * 8;
    r.values = malloc(r.n_values * sizeof(float));
    CHECK(r.values != NULL);
    CHECK_OK(sae_model_readout(model, set, rows, scratch, r.values, r.n_values, NULL, &error));
    CHECK(read_control() == before);
    /* Errors restore the modes too. */
    CHECK_STATUS(SAE_STATUS_LENGTH,
                 sae_model_readout(model, set, rows, scratch, r.values, 1, NULL, &error));
    CHECK(read_control() == before);
    sae_set_destroy(set);
    sae_scratch_destroy(scratch);
    sae_model_close(model);
    CHECK(read_control() == before);
    return r;
}

static void release(result *r) {
    sae_features_destroy(r->features);
    free(r->decoded);
    free(r->values);
}

static void check_same(const result *a, const result *b) {
    CHECK(same_features(a->features, b->features));
    CHECK(a->n_decoded == b->n_decoded && a->n_values == b->n_values);
    CHECK(memcmp(a->decoded, b->decoded, a->n_decoded * sizeof(float)) == 0);
    CHECK(memcmp(a->values, b->values, a->n_values * sizeof(float)) == 0);
}

/* Arithmetic that the compiler cannot do in advance. */
static float product(float a, float b) {
    volatile float x = a, y = b;
    volatile float z = x * y;
    return z;
}

static float sum(float a, float b) {
    volatile float x = a, y = b;
    volatile float z = x + y;
    return z;
}

static void show_in_force(control modes) {
    const float smallest_normal = 0x1p-126f, subnormal = 0x1p-130f;
    CHECK((bits_of(product(smallest_normal, 0.5f)) == 0) == ((modes & FLUSH_OUTPUTS) != 0));
    CHECK((bits_of(product(subnormal, 0x1p40f)) == 0) == ((modes & FLUSH_INPUTS) != 0));
    CHECK((sum(1.0f, 0x1p-60f) > 1.0f) == ((modes & ROUNDING) == ROUND_UP));
    CHECK((sum(1.0f, -0x1p-60f) < 1.0f) ==
          ((modes & ROUNDING) == ROUND_DOWN || (modes & ROUNDING) == ROUND_TO_ZERO));
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    path = argv[1];
    sae_error error;
    sae_model *model;
    CHECK_OK(sae_model_open(path, NULL, &model, &error));
    sae_rows rows = read_rows(argv[2], model);
    sae_model_close(model);
    /* The rows as they are, and scaled down into the subnormals, where flushing would show. */
    size_t n = rows.n_rows * rows.width;
    float *tiny = malloc(n * sizeof(float));
    CHECK(tiny != NULL);
    for (size_t i = 0; i < n; i++) tiny[i] = ((const float *)rows.data)[i] * 0x1p-128f;
    sae_rows tiny_rows = rows;
    tiny_rows.data = tiny;

    const control standard = read_control();
    show_in_force(0);
    result expected = run(&rows), expected_tiny = run(&tiny_rows);
    const control modes[6] = {FLUSH_OUTPUTS, FLUSH_INPUTS, FLUSH_OUTPUTS | FLUSH_INPUTS,
                              ROUND_UP,      ROUND_DOWN,   ROUND_TO_ZERO | FLUSH_INPUTS};
    for (size_t i = 0; i < 6; i++) {
        write_control(standard | modes[i]);
        show_in_force(read_control());
        result found = run(&rows), found_tiny = run(&tiny_rows);
        show_in_force(standard | modes[i]);
        write_control(standard);
        check_same(&expected, &found);
        check_same(&expected_tiny, &found_tiny);
        release(&found);
        release(&found_tiny);
    }

    /* The same through the C library's own function. */
    CHECK(fesetround(FE_UPWARD) == 0);
    CHECK(sum(1.0f, 0x1p-60f) > 1.0f);
    result found = run(&rows);
    CHECK(fegetround() == FE_UPWARD);
    CHECK(fesetround(FE_TONEAREST) == 0);
    check_same(&expected, &found);
    release(&found);

#if defined(__x86_64__) || defined(__i386__)
    /* Exceptions unmasked: inexact operations trap in the host, and not inside of the library. */
    write_control(standard & ~0x1f80u);
    found = run(&rows);
    write_control(standard);
    check_same(&expected, &found);
    release(&found);
#endif

    release(&expected);
    release(&expected_tiny);
    free(tiny);
    free((void *)rows.data);
    printf("7 modes\n");
    return 0;
}

#else

int main(void) {
    printf("skipped: no floating-point modes known on this architecture\n");
    return 0;
}

#endif
