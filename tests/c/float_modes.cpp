// A C++17 host's floating-point modes change no bit of what the wrapper gives, and are the same after
// every call, one that throws included. Each mode is first shown to be in force. Run natively:
// valgrind ignores these modes.
#include "sae.hpp"

#include "check.h"

#include <cfenv>
#include <cstdlib>
#include <cstring>
#include <string>

#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>
#define HAS_FLUSHING 1
constexpr unsigned flush_outputs = 1u << 15, flush_inputs = 1u << 6;
#endif

namespace {

struct result {
    std::vector<std::uint32_t> indices;
    std::vector<float> values, decoded, read;

    bool same(const result &other) const {
        return indices == other.indices && same_bits(values, other.values) &&
               same_bits(decoded, other.decoded) && same_bits(read, other.read);
    }

    static bool same_bits(const std::vector<float> &a, const std::vector<float> &b) {
        return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
    }
};

result run(const char *path, const std::vector<float> &values) {
    sae::model model = sae::model::open(path);
    sae::scratch scratch(model);
    sae::features features;
    sae::rows rows(values.data(), values.size() / model.d_in(), model.d_in());
    model.encode(rows, scratch, features);
    result found;
    for (std::size_t row = 0; row < features.n_rows(); row++) {
        for (auto [index, value] : features.row(row)) {
            found.indices.push_back(index);
            found.values.push_back(value);
        }
    }
    found.decoded.resize(rows.n_rows() * model.d_out());
    model.decode(features, &rows, scratch, found.decoded);
    const std::vector<std::uint32_t> chosen = {0, 1, 2, 3, 4, 5, 6, 7};
    found.read.resize(rows.n_rows() * chosen.size());
    model.readout(sae::set(model, chosen), rows, scratch, found.read);
    bool caught = false;
    try {
        std::vector<float> short_by_one(found.read.size() - 1);
        model.readout(sae::set(model, chosen), rows, scratch, short_by_one);
    } catch (const sae::error &error) {
        caught = error.code() == SAE_STATUS_LENGTH;
    }
    CHECK(caught);
    return found;
}

// Arithmetic that the compiler cannot do in advance.
float product(float a, float b) {
    volatile float x = a, y = b;
    volatile float z = x * y;
    return z;
}

float sum(float a, float b) {
    volatile float x = a, y = b;
    volatile float z = x + y;
    return z;
}

bool outputs_are_flushed() { return bits_of(product(0x1p-126f, 0.5f)) == 0; }
bool inputs_are_flushed() { return bits_of(product(0x1p-130f, 0x1p40f)) == 0; }
bool rounds_up() { return sum(1.0f, 0x1p-60f) > 1.0f; }
bool rounds_down() { return sum(1.0f, -0x1p-60f) < 1.0f; }

} // namespace

int main(int argc, char **argv) {
    CHECK(argc == 3);
    std::size_t size = 0;
    unsigned char *bytes = read_file(argv[2], 0, &size);
    std::vector<float> rows(size / sizeof(float)), tiny;
    std::memcpy(rows.data(), bytes, rows.size() * sizeof(float));
    std::free(bytes);
    // Scaled down into the subnormals, where flushing would show.
    for (float value : rows) tiny.push_back(value * 0x1p-128f);

    CHECK(!outputs_are_flushed() && !inputs_are_flushed() && !rounds_up() && !rounds_down());
    const result expected = run(argv[1], rows), expected_tiny = run(argv[1], tiny);
    int modes = 0;
    for (int rounding : {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
        CHECK(std::fesetround(rounding) == 0);
        CHECK(rounds_up() == (rounding == FE_UPWARD) && rounds_down() == (rounding != FE_UPWARD));
        const result found = run(argv[1], rows), found_tiny = run(argv[1], tiny);
        CHECK(std::fegetround() == rounding);
        CHECK(std::fesetround(FE_TONEAREST) == 0);
        CHECK(found.same(expected) && found_tiny.same(expected_tiny));
        modes++;
    }
#ifdef HAS_FLUSHING
    const unsigned standard = _mm_getcsr();
    for (unsigned flushed : {flush_outputs, flush_inputs, flush_outputs | flush_inputs}) {
        _mm_setcsr(standard | flushed);
        CHECK(outputs_are_flushed() == ((flushed & flush_outputs) != 0));
        CHECK(inputs_are_flushed() == ((flushed & flush_inputs) != 0));
        const result found = run(argv[1], rows), found_tiny = run(argv[1], tiny);
        CHECK(((_mm_getcsr() ^ flushed) & (flush_outputs | flush_inputs)) == 0);
        _mm_setcsr(standard);
        CHECK(found.same(expected) && found_tiny.same(expected_tiny));
        modes++;
    }
#endif
    std::printf("%d modes\n", modes);
    return 0;
}
