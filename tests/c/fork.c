/* A forked child uses the handles of its parent, and new ones of its own. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    CHECK(argc == 3);
    sae_error error;
    sae_model *model;
    sae_scratch *scratch;
    sae_features *expected, *found;
    CHECK_OK(sae_model_open(argv[1], NULL, &model, &error));
    CHECK_OK(sae_scratch_create(model, &scratch, &error));
    CHECK_OK(sae_features_create(0, 0, &expected, &error));
    CHECK_OK(sae_features_create(0, 0, &found, &error));
    sae_rows rows = read_rows(argv[2], model);
    CHECK_OK(sae_model_encode(model, &rows, scratch, expected, &error));

    pid_t child = fork();
    CHECK(child >= 0);
    CHECK_OK(sae_model_encode(model, &rows, scratch, found, &error));
    CHECK(same_features(expected, found));
    if (child == 0) {
        sae_model *again;
        CHECK_OK(sae_model_open(argv[1], NULL, &again, &error));
        CHECK_OK(sae_model_encode(again, &rows, scratch, found, &error));
        CHECK(same_features(expected, found));
        sae_model_close(again);
    }
    sae_features_destroy(expected);
    sae_features_destroy(found);
    sae_scratch_destroy(scratch);
    sae_model_close(model);
    free((void *)rows.data);
    if (child == 0) return 0;
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return 0;
}
