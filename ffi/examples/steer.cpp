// Steers rows of activations: one feature to a value, on every row that it is given, in place.
//
//     steer CHECKPOINT ROWS.f32 FEATURE VALUE OUT.f32
//
// ROWS.f32 holds rows of d_in 32-bit floats. Prints, for each row, the feature's value before and
// after (read out again from the steered row) and how far the row moved; then the audit.
#include "sae.hpp"
#include "sae_steer.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

namespace {

// Handles of sae_steer.h, released at the end of their scope.
template <auto release> struct releaser {
    template <typename T> void operator()(T *handle) const { release(handle); }
};
template <typename T, auto release> using owner = std::unique_ptr<T, releaser<release>>;

// Throws what a function reports.
template <typename Call> void check(Call call) {
    sae_error error;
    if (call(&error) != SAE_STATUS_OK) throw sae::error(error);
}

std::vector<float> read_rows(const char *path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(std::string("cannot read ") + path);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
    std::vector<float> values(bytes.size() / sizeof(float));
    std::copy_n(bytes.data(), values.size() * sizeof(float), reinterpret_cast<char *>(values.data()));
    return values;
}

// The value of one feature in each row.
std::vector<float> values_of(const sae::model &model, sae::scratch &scratch, std::uint32_t feature,
                             const std::vector<float> &rows) {
    const std::size_t width = sae_model_d_in(model.c());
    const sae_rows view = {rows.data(), SAE_DTYPE_F32, 0, rows.size() / width, width, 0};
    std::vector<float> values(view.n_rows);
    check([&](sae_error *error) {
        return sae_model_readout_one(model.c(), feature, &view, scratch.c(), values.data(),
                                     values.size(), nullptr, error);
    });
    return values;
}

int run(char **argv) {
    const sae::model model = sae::model::open(argv[1]);
    const std::size_t width = sae_model_d_in(model.c());
    if (width != sae_model_d_out(model.c()))
        throw std::runtime_error("this example steers models that read and write at one site");
    std::vector<float> rows = read_rows(argv[2]);
    const auto feature = static_cast<std::uint32_t>(std::strtoul(argv[3], nullptr, 10));

    // The plan: one edit, built by calls. JSON text would do as well.
    sae_plan_builder *building = nullptr;
    check([&](sae_error *error) { return sae_plan_builder_create("example", &building, error); });
    const owner<sae_plan_builder, sae_plan_builder_destroy> builder(building);
    sae_edit edit = SAE_EDIT_INIT;
    edit.rule = SAE_RULE_SET;
    edit.strength = std::strtod(argv[4], nullptr);
    edit.features = &feature;
    edit.n_features = 1;
    check([&](sae_error *error) { return sae_plan_builder_edit(builder.get(), &edit, error); });
    std::size_t size = 0;
    check([&](sae_error *error) {
        return sae_plan_builder_write(builder.get(), nullptr, 0, &size, error);
    });
    std::vector<char> text(size);
    check([&](sae_error *error) {
        return sae_plan_builder_write(builder.get(), text.data(), text.size(), nullptr, error);
    });
    std::printf("plan: %s\n", text.data());

    // What it costs, before it is paid.
    sae_plan_cost cost{};
    cost.struct_size = sizeof cost;
    check([&](sae_error *error) {
        return sae_model_plan_cost(model.c(), text.data(), &cost, error);
    });
    std::printf("cost: %llu encoder rows, %llu decoder rows%s\n",
                static_cast<unsigned long long>(cost.encoder_rows),
                static_cast<unsigned long long>(cost.decoder_rows),
                cost.needs_encode != 0 ? ", and a full encode" : "");

    const char *plans = text.data();
    sae_plan *compiled = nullptr;
    check([&](sae_error *error) {
        return sae_plan_compile(model.c(), &plans, 1, SAE_CONFLICTS_REFUSE, &compiled, error);
    });
    const owner<sae_plan, sae_plan_destroy> plan(compiled);
    sae_steer_scratch *work = nullptr;
    check([&](sae_error *error) {
        return sae_steer_scratch_create(model.c(), plan.get(), &work, error);
    });
    const owner<sae_steer_scratch, sae_steer_scratch_destroy> steering(work);

    sae::scratch scratch(model);
    const std::vector<float> before = values_of(model, scratch, feature, rows);
    const std::vector<float> original = rows;
    const sae_rows_mut view = {rows.data(), SAE_DTYPE_F32, 0, rows.size() / width, width, 0};
    sae_steer_batch batch{};
    batch.struct_size = sizeof batch;
    batch.rows = &view;
    check([&](sae_error *error) {
        return sae_model_steer(model.c(), plan.get(), &batch, steering.get(), error);
    });
    const std::vector<float> after = values_of(model, scratch, feature, rows);
    for (std::size_t row = 0; row < before.size(); row++) {
        double moved = 0, length = 0;
        for (std::size_t j = row * width; j < (row + 1) * width; j++) {
            const double change = static_cast<double>(rows[j]) - static_cast<double>(original[j]);
            moved += change * change;
            length += static_cast<double>(original[j]) * static_cast<double>(original[j]);
        }
        std::printf("row %zu: feature %u was %g, is %g; the row moved by %.2f%%\n", row, feature,
                    static_cast<double>(before[row]), static_cast<double>(after[row]),
                    100 * std::sqrt(moved / length));
    }

    sae_audit audit{};
    audit.struct_size = sizeof audit;
    check([&](sae_error *error) {
        return sae_steer_scratch_audit(steering.get(), 0, &audit, error);
    });
    std::printf("audit: plan %016llx edited %llu rows, by %.2f%% on average, %.2f%% at most\n",
                static_cast<unsigned long long>(audit.hash),
                static_cast<unsigned long long>(audit.rows), 100 * audit.mean_relative,
                100 * audit.max_relative);

    std::ofstream out(argv[5], std::ios::binary);
    out.write(reinterpret_cast<const char *>(rows.data()),
              static_cast<std::streamsize>(rows.size() * sizeof(float)));
    if (!out.flush()) throw std::runtime_error(std::string("cannot write ") + argv[5]);
    return 0;
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 6) {
        std::fprintf(stderr, "usage: steer CHECKPOINT ROWS.f32 FEATURE VALUE OUT.f32\n");
        return 2;
    }
    try {
        return run(argv);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
