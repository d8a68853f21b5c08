// Steers rows of activations: one feature to a value, on every row that it is given, in place.
//
//     steer CHECKPOINT ROWS.f32 FEATURE VALUE OUT.f32
//
// ROWS.f32 holds rows of d_in 32-bit floats. Prints, for each row, the feature's value before and
// after (read out again from the steered row) and how far the row moved; then the audit.
#include "sae.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace {

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
    const std::size_t count = rows.size() / model.d_in();
    std::vector<float> values(count);
    model.readout_one(feature, sae::rows(rows.data(), count, model.d_in()), scratch, values);
    return values;
}

int run(char **argv) {
    const sae::model model = sae::model::open(argv[1]);
    const std::size_t width = model.d_in();
    if (width != model.d_out())
        throw std::runtime_error("this example steers models that read and write at one site");
    std::vector<float> rows = read_rows(argv[2]);
    const auto feature = static_cast<std::uint32_t>(std::strtoul(argv[3], nullptr, 10));

    // The plan: one edit, built by calls. JSON text would do as well.
    sae::plan_builder builder("example");
    sae_edit edit = SAE_EDIT_INIT;
    edit.rule = SAE_RULE_SET;
    edit.strength = std::strtod(argv[4], nullptr);
    edit.features = &feature;
    edit.n_features = 1;
    builder.edit(edit);
    const std::string text = builder.text();
    std::printf("plan: %s\n", text.c_str());

    // What it costs, before it is paid.
    const sae_plan_cost cost = model.plan_cost(text);
    std::printf("cost: %llu encoder rows, %llu decoder rows%s\n",
                static_cast<unsigned long long>(cost.encoder_rows),
                static_cast<unsigned long long>(cost.decoder_rows),
                cost.needs_encode != 0 ? ", and a full encode" : "");

    const sae::plan plan(model, text.c_str());
    sae::steer_scratch steering(model, plan);
    sae::scratch scratch(model);
    const std::vector<float> before = values_of(model, scratch, feature, rows);
    const std::vector<float> original = rows;
    model.steer(plan, {rows.data(), SAE_DTYPE_F32, 0, rows.size() / width, width, 0}, steering);
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

    const sae_audit audit = steering.audit(0);
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
