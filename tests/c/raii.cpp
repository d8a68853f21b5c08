// The C++ wrapper: the same results as the C functions, handles released on every way out, errors
// as exceptions and as results. Built as C++17, as C++20 and without exceptions.
#include "sae.hpp"

#include "check.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

namespace {

std::vector<float> read_values(const char *path) {
    std::size_t size = 0;
    unsigned char *bytes = read_file(path, 0, &size);
    std::vector<float> values(size / sizeof(float));
    std::memcpy(values.data(), bytes, values.size() * sizeof(float));
    std::free(bytes);
    return values;
}

void results(const char *path, const std::vector<float> &values) {
    auto none = sae::model::try_open("no/such/file.safetensors");
    CHECK(!none);
    CHECK(none.code() == SAE_STATUS_IO);
    CHECK(std::strstr(none.message(), "no/such/file") != nullptr);

    auto opened = sae::model::try_open(path);
    CHECK(opened);
    CHECK(opened.code() == SAE_STATUS_OK && opened.message()[0] == 0);
    sae::model model = std::move(opened).value();
    sae::scratch scratch = sae::scratch::try_create(model).value();
    sae::features features = sae::features::try_create(4, 100).value();
    sae::rows rows(values.data(), values.size() / model.d_in(), model.d_in());
    CHECK(model.try_encode(rows, scratch, features));
    CHECK(features.n_rows() == rows.n_rows() && features.failed_rows() == 0);
    CHECK(!features.try_row(rows.n_rows()));

    sae::rows narrow(values.data(), 1, model.d_in() - 1);
    auto failed = model.try_encode(narrow, scratch, features);
    CHECK(!failed && failed.code() == SAE_STATUS_LENGTH);
    CHECK(features.n_rows() == 0);

    const std::vector<std::uint32_t> chosen = {2, 0};
    sae::set set = sae::set::try_compile(model, chosen).value();
    CHECK(set.size() == 2);
    std::vector<float> read(rows.n_rows() * 2);
    std::vector<sae_row_status> status(rows.n_rows());
    CHECK(model.try_readout(set, rows, scratch, read, status));
    CHECK(model.try_readout(set, rows, scratch, read));
    status.pop_back();
    CHECK(model.try_readout(set, rows, scratch, read, status).code() == SAE_STATUS_LENGTH);
    CHECK(model.try_describe().value().front() == '{');
    CHECK(model.try_site().value().struct_size == sizeof(sae_site));

    // Infos, parts of the rows, the caller's threads.
    CHECK(model.try_encode(rows, scratch, features));
    sae::features others = sae::features::try_create().value();
    std::vector<sae_row_info> infos(rows.n_rows());
    for (sae_row_info &info : infos) {
        info = {};
        info.stage = SAE_STAGE_SKIPPED;
    }
    CHECK(model.try_encode(rows, infos, scratch, others));
    CHECK(others.count() == 0 && others.failed_rows() == rows.n_rows());
    CHECK(model.try_encode(rows.part(1, 2), scratch, others));
    CHECK(others.n_rows() == rows.n_rows() / 2);
    CHECK(rows.part(2, 2).n_rows() == 0);
    sae::workers workers = sae::workers::try_create(model, 3).value();
    const auto in_turn = [](std::size_t n, auto task) {
        for (std::size_t i = 0; i < n; i++) task(i);
    };
    CHECK(model.try_encode(rows, workers, in_turn, others));
    CHECK(others.count() == features.count());
    CHECK(model.try_encode(rows, workers, [](std::size_t, auto) {}, others).code() ==
          SAE_STATUS_INVALID_ARGUMENT);

    // Fit checks and steering.
    if (model.d_in() != model.d_out()) return;
    sae::fit_check check = sae::fit_check::try_create(model).value();
    CHECK(check.try_add(model, rows, nullptr, scratch));
    CHECK(check.try_get().value().rows == rows.n_rows());
    const char *text = "{\"edits\": [{\"feature\": 0, \"rule\": \"add\", \"strength\": 1}]}";
    sae::plan plan =
        sae::plan::try_compile(model, sae::span<const char *const>(&text, 1)).value();
    CHECK(plan.size() == 1);
    sae::steer_scratch steer = sae::steer_scratch::try_create(model, plan).value();
    std::vector<float> moved = values;
    sae_rows_mut out = {moved.data(), SAE_DTYPE_F32, 0, rows.n_rows(), model.d_out(), 0};
    CHECK(model.try_steer(plan, out, steer));
    CHECK(moved != values && steer.count(SAE_OUTCOME_EDITED) == rows.n_rows());
    CHECK(steer.try_audit(0).value().rows == rows.n_rows());
    // Statistics of labels, and what a vector is made of.
    const std::string observed = "{\"index\": 1, \"maxActApprox\": 4}";
    const std::vector<std::uint8_t> exported(observed.begin(), observed.end());
    sae::labels known = sae::labels::try_open(sae::span<const std::uint8_t>(exported)).value();
    CHECK(known.try_observed(1).value().max == 4);
    text = "{\"edits\": [{\"feature\": 1, \"rule\": \"add\", \"strength\": {\"value\": 0.5,"
           " \"of\": \"corpus_max\"}}]}";
    sae::span<const char *const> texts(&text, 1);
    CHECK(!sae::plan::try_compile(model, texts));
    CHECK(sae::plan::try_compile(model, texts, known));
    std::vector<float> vector(model.d_out(), 1.0f);
    vector[0] = -3;
    sae::decomposition made = sae::decomposition::try_create(model, vector).value();
    CHECK(made.parts().size() == made.summary().n_parts && made.parts().size() > 0);
    CHECK(made.along().size() == 8 && made.against().size() == 8);
    CHECK(made.along()[0].cosine > 0 && made.against()[0].cosine < 0);
    std::string again = made.plan_text("again");
    text = again.c_str();
    CHECK(again.find("again") != std::string::npos && sae::plan::try_compile(model, texts));
    CHECK(!sae::decomposition::try_create(model, sae::span<const float>(vector.data(), 1)));
    // Plans built by calls.
    sae::plan_builder builder = sae::plan_builder::try_create("built").value();
    sae_edit edit = SAE_EDIT_INIT;
    edit.rule = SAE_RULE_ADD;
    edit.of = SAE_SCALE_CORPUS_MAX;
    edit.strength = 0.5;
    const std::uint32_t one = 1;
    edit.features = &one;
    edit.n_features = 1;
    CHECK(builder.try_edit(edit));
    std::string built = builder.try_text().value();
    CHECK(!model.try_plan_cost(built));
    CHECK(builder.try_statistics(1, 4, NAN, NAN));
    CHECK(builder.try_direction("v", vector, true));
    edit.of = SAE_SCALE_ABSOLUTE;
    edit.features = nullptr;
    edit.n_features = 0;
    edit.direction = "v";
    CHECK(builder.try_edit(edit));
    built = builder.try_text().value();
    CHECK(model.try_plan_cost(built).value().decoder_rows == 1);
    CHECK(builder.try_set("rows", "{\"skip_first\": 1}"));
    CHECK(!builder.try_set("rows", "[]"));
    CHECK(builder.try_text().value() != built);
    text = "{\"edits\": [{\"direction\": \"v\", \"rule\": \"add\", \"strength\": 2}],"
           " \"directions\": {\"v\": {\"values\": [";
    std::string constant = text;
    for (std::size_t i = 0; i < model.d_out(); i++)
        constant += (i ? "," : "") + std::to_string(static_cast<int>(vector[i]));
    constant += "]}}}";
    text = constant.c_str();
    sae::plan adds = sae::plan::try_compile(model, texts).value();
    std::vector<float> added = model.try_plan_vector(adds).value();
    for (std::size_t i = 0; i < model.d_out(); i++) CHECK(added[i] == 2 * vector[i]);
    text = "{\"edits\": [{\"feature\": 1, \"rule\": \"zero\"}]}";
    CHECK(!model.try_plan_vector(sae::plan::try_compile(model, texts).value()));
    text = "not a plan";
    CHECK(!sae::plan::try_compile(model, sae::span<const char *const>(&text, 1)));
}

#if SAE_EXCEPTIONS

void exceptions(const char *path, const std::vector<float> &values) {
    sae::model model = sae::model::open(path);
    sae::scratch scratch(model);
    sae::features features;
    sae::rows rows(values.data(), values.size() / model.d_in(), model.d_in());
    model.encode(rows, scratch, features);

    // The same as through the C functions.
    std::size_t count = 0;
    for (std::size_t row = 0; row < features.n_rows(); row++) {
        sae_error error;
        sae_row_features expected;
        CHECK_OK(sae_features_row(features.c(), row, &expected, &error));
        sae::row_features found = features.row(row);
        CHECK(found.size() == expected.count && found.status() == expected.status);
        std::size_t i = 0;
        for (auto [index, value] : found) {
            CHECK(index == expected.indices[i] && value == expected.values[i]);
            CHECK(index == found.indices()[i] && value == found.values()[i]);
            i++;
        }
        CHECK(i == expected.count);
        count += i;
    }
    CHECK(count == features.count() && count > 0);

    std::vector<float> out(rows.n_rows() * model.d_out());
    model.decode(features, &rows, scratch, out);
    const std::vector<std::uint32_t> chosen = {1, 0, 2};
    sae::set set(model, chosen);
    std::vector<float> read(rows.n_rows() * 3), one(rows.n_rows());
    model.readout(set, rows, scratch, read);
    model.readout_one(1, rows, scratch, one);
    for (std::size_t row = 0; row < rows.n_rows(); row++) CHECK(one[row] == read[row * 3]);

    // Labels, from bytes and from a file.
    const std::string text = "{\"index\": 2, \"description\": \"two\"}";
    const std::vector<std::uint8_t> lines(text.begin(), text.end());
    sae::labels two = sae::labels::try_open(lines).value();
    CHECK(two.size() == 1 && two.count_of(2) == 1 && two.count_of(1) == 0);
    CHECK(std::string(two.text(2)) == "two" && std::string(two.explainer(2)).empty());
    CHECK(two.text(1) == nullptr && two.text(2, 1) == nullptr);
    CHECK(model.try_check_labels(two));
    CHECK(sae::labels::try_open("no/such/labels").code() == SAE_STATUS_IO);

    // Moves leave nothing behind that is released twice.
    sae::model moved = std::move(model);
    CHECK(moved.d_in() > 0 && model.d_in() == 0);
    moved.prepare();
    CHECK(moved.prepare_cost().needed == 0);
    std::vector<float> again(out.size());
    moved.decode(features, &rows, scratch, again);
    CHECK(again == out);

    // In memory of the caller, then released before the memory.
    std::vector<unsigned char> memory(moved.scratch_size());
    {
        sae::scratch inside(moved, memory.data(), memory.size());
        moved.encode(rows, inside, features);
    }

    // From memory.
    std::size_t size = 0;
    unsigned char *bytes = read_file(path, 0, &size);
    try {
        sae::model from_memory = sae::model::open_memory(bytes, size, "bytes");
        CHECK(from_memory.d_in() == moved.d_in());
    } catch (const sae::error &error) {
        // Checkpoints with a config beside them do not open without it.
        CHECK(error.code() != SAE_STATUS_OK);
    }
    std::free(bytes);

    // Exceptions carry the status and the message.
    const std::vector<std::uint32_t> ascending = {0, 1, 2}, outside = {0xffffffff};
    const std::vector<float> strengths = {1, 2, 3};
    features.clear();
    features.append_row(ascending, strengths);
    CHECK(features.count() == 3);
    int caught = 0;
    try {
        features.append_row(chosen, strengths);
    } catch (const sae::error &error) {
        caught += error.code() == SAE_STATUS_INVALID_ARGUMENT;
    }
    try {
        sae::set nothing(moved, outside);
    } catch (const sae::error &error) {
        caught += error.code() == SAE_STATUS_FEATURE_OUT_OF_RANGE;
        caught += std::strstr(error.what(), "4294967295") != nullptr;
    }
    try {
        sae::open_options options;
        options.level = "none";
        sae::model nothing = sae::model::open(path, options);
    } catch (const std::runtime_error &error) {
        caught += std::strstr(error.what(), "none") != nullptr;
    }
    CHECK(caught == 4);
}

#endif

} // namespace

int main(int argc, char **argv) {
    CHECK(argc == 3);
    const std::vector<float> values = read_values(argv[2]);
    results(argv[1], values);
#if SAE_EXCEPTIONS
    exceptions(argv[1], values);
#endif
    return 0;
}
