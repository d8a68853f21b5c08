// The C++ wrapper of sae_architectures.h: derived and composed models, batches, sites, layers, Lorsa
// and mixtures of transforms. Gets a model, its rows, a cross-layer transcoder, its rows, a Lorsa's
// folder and a mixture's, which hold rows. Built as C++17, as C++20 and without exceptions.
#include "sae.hpp"

#include "check.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace {

std::string read_text(const std::string &path) {
    std::size_t size = 0;
    unsigned char *bytes = read_file(path.c_str(), 0, &size);
    std::string text(reinterpret_cast<const char *>(bytes), size);
    std::free(bytes);
    return text;
}

std::vector<float> read_values(const std::string &path) {
    const std::string text = read_text(path);
    std::vector<float> values(text.size() / sizeof(float));
    std::memcpy(values.data(), text.data(), values.size() * sizeof(float));
    return values;
}

sae::features encode(const sae::model &model, const sae::rows &rows) {
    sae::scratch scratch = sae::scratch::try_create(model).value();
    sae::features features = sae::features::try_create().value();
    model.try_encode(rows, scratch, features).value();
    return features;
}

bool same(const sae::features &a, const sae::features &b) { return same_features(a.c(), b.c()); }

void derived(const char *path, const std::vector<float> &values) {
    sae::result<sae::model> half = sae::model::try_open("no/such/file");
    CHECK(!half);
    sae::model moved = [&] {
        sae::model model = sae::model::try_open(path).value();
        sae::model relu = model.try_with_threshold(0).value();
        return relu; // outlives the model that it was made of
    }();
    const std::size_t d_sae = moved.d_sae();
    sae::rows rows(values.data(), values.size() / moved.d_in(), moved.d_in());
    const sae::features all = encode(moved, rows);
    CHECK(all.count() > 0);

    sae::model top = moved.try_with_top_k(4).value();
    CHECK(same(encode(top.try_with_k(d_sae).value(), rows), all));
    CHECK(encode(top.try_with_k(0).value(), rows).count() == 0);
    CHECK(moved.try_with_k(4).code() == SAE_STATUS_INVALID_ARGUMENT);
    CHECK(top.try_with_k(d_sae + 1).code() == SAE_STATUS_INVALID_ARGUMENT);
    CHECK(top.try_with_top_k(0).code() == SAE_STATUS_INVALID_VALUE);
    half = moved.try_with_prefix(d_sae / 2);
    CHECK(half && half.value().d_sae() == d_sae / 2);
    sae::model other = moved.try_with_range(d_sae / 2, d_sae - d_sae / 2).value();
    CHECK(encode(half.value(), rows).count() + encode(other, rows).count() == all.count());
    CHECK(moved.try_with_range(1, d_sae).code() == SAE_STATUS_INVALID_ARGUMENT);
    const std::vector<double> weights(d_sae, 2.0), few(1, 2.0);
    CHECK(same(encode(top.try_with_rank_weights(weights).value(), rows), encode(top, rows)));
    CHECK(top.try_with_rank_weights({}));
    CHECK(top.try_with_rank_weights(few).code() == SAE_STATUS_SHAPE);

    sae::importance importance = sae::importance::try_create(moved).value();
    CHECK(importance.try_add(all));
    std::vector<std::uint32_t> order(d_sae);
    CHECK(importance.try_order(order));
    CHECK(encode(moved.try_with_features(order).value(), rows).count() == all.count());
    order.pop_back();
    CHECK(importance.try_order(order).code() == SAE_STATUS_LENGTH);
    sae_pursuit pursuit = SAE_PURSUIT_INIT(3);
    const sae::features found = encode(moved.try_with_pursuit(pursuit).value(), rows);
    CHECK(found.count() > 0 && found.count() <= 3 * rows.n_rows());
    pursuit.steps = 0;
    CHECK(moved.try_with_pursuit(pursuit).code() == SAE_STATUS_INVALID_VALUE);

    // A batch of one row is top-k.
    sae::batch batch = sae::batch::try_create(moved, SAE_BATCH_TOGETHER, 4, 2).value();
    sae::scratch scratch = sae::scratch::try_create(moved).value();
    sae::features chosen = sae::features::try_create().value();
    sae::rows first(values.data(), 1, moved.d_in());
    CHECK(moved.try_encode_batch(first, batch, scratch, chosen));
    CHECK(same(chosen, encode(top, first)));
    CHECK(moved.try_encode_batch(rows, batch, scratch, chosen).code() == SAE_STATUS_LENGTH);
    CHECK(sae::batch::try_create(moved, SAE_BATCH_TOGETHER, 0, 2).code() ==
          SAE_STATUS_INVALID_ARGUMENT);

    // Ensembles: a bag of one is its member; a router of two halves.
    const std::vector<const sae::model *> one = {&moved}, two = {&half.value(), &other};
    CHECK(same(encode(sae::model::try_ensemble(one, SAE_ENSEMBLE_BAG).value(), rows), all));
    CHECK(sae::model::try_ensemble(one, SAE_ENSEMBLE_ROUTED).code() ==
          SAE_STATUS_INVALID_ARGUMENT);
    const std::vector<const sae::model *> missing = {nullptr};
    CHECK(sae::model::try_ensemble(missing, SAE_ENSEMBLE_BAG).code() == SAE_STATUS_NULL_ARGUMENT);
    std::vector<float> vectors(2 * moved.d_in());
    vectors[moved.d_in()] = 1.0f;
    const sae::features routed =
        encode(sae::model::try_routed(two, vectors, {}, false).value(), rows);
    for (std::size_t row = 0; row < rows.n_rows(); row++) {
        const bool second = values[row * moved.d_in()] > 0;
        for (auto [index, value] : routed.try_row(row).value())
            CHECK((index >= d_sae / 2) == second && value > 0);
    }
    vectors.pop_back();
    CHECK(sae::model::try_routed(two, vectors, {}, true).code() == SAE_STATUS_LENGTH);
}

void sites(const char *path, const std::vector<float> &values) {
    sae::model model = sae::model::try_open(path).value();
    const std::size_t n_sites = model.input_sites(), width = model.d_in() / n_sites;
    CHECK(n_sites > 1 && n_sites == model.output_sites());
    sae::rows rows(values.data(), values.size() / model.d_in(), model.d_in());
    const std::size_t n = rows.n_rows();
    const sae::features whole = encode(model, rows);
    sae::scratch scratch = sae::scratch::try_create(model).value();
    sae::features found = sae::features::try_create().value();
    std::vector<sae_rows> apart;
    for (std::size_t site = 0; site < n_sites; site++)
        apart.push_back(*sae::rows(values.data() + site * width, n, width,
                                   model.d_in() * sizeof(float))
                             .c());
    CHECK(model.try_encode_sites(apart, scratch, found));
    CHECK(same(found, whole));
    const std::vector<std::uint32_t> chosen = {0, 3};
    sae::set set = sae::set::try_compile(model, chosen).value();
    std::vector<float> read(2 * n), again(2 * n), y(n * model.d_out()), z(y.size());
    std::vector<sae_row_status> status(n);
    CHECK(model.try_readout(set, rows, scratch, read, status));
    CHECK(model.try_readout_sites(set, apart, scratch, again, status));
    CHECK(read == again);
    const sae_row_info info = SAE_ROW_INFO_INIT;
    std::vector<sae_row_info> infos(n, info);
    infos[0].stage = SAE_STAGE_SKIPPED;
    CHECK(model.try_readout(set, rows, infos, scratch, again, status));
    CHECK(status[0] == SAE_ROW_SKIPPED && again[0] == 0 && again[1] == 0);
    CHECK(std::equal(read.begin() + 2, read.end(), again.begin() + 2));
    status.pop_back();
    CHECK(model.try_readout_sites(set, apart, scratch, again, status).code() == SAE_STATUS_LENGTH);
    CHECK(model.try_decode(whole, &rows, scratch, y));
    CHECK(model.try_decode_sites(whole, apart, scratch, z));
    CHECK(y == z);

    sae::layer_stream stream = sae::layer_stream::try_create(model, n).value();
    CHECK(stream.try_restart(n));
    std::size_t count = 0;
    std::vector<float> out(n * model.d_out() / n_sites);
    for (std::size_t layer = 0; layer < n_sites; layer++) {
        sae::rows of_layer(values.data() + layer * width, n, width, model.d_in() * sizeof(float));
        CHECK(model.try_encode_layer(stream, layer, of_layer, scratch, found));
        count += found.count();
        CHECK(model.layer_features(layer).second > 0);
        CHECK(model.try_decode_layer(stream, layer, &of_layer, scratch, out));
        for (std::size_t row = 0; row < n; row++)
            CHECK(std::memcmp(&out[row * width], &y[row * model.d_out() + layer * width],
                              width * sizeof(float)) == 0);
    }
    CHECK(count == whole.count());
    CHECK(model.layer_features(n_sites).second == 0);
    CHECK(stream.try_restart(n + 1).code() == SAE_STATUS_LENGTH);
}

void attention(const std::string &folder) {
    sae::lorsa lorsa = sae::lorsa::try_open(folder).value();
    const std::vector<float> values = read_values(folder + "/rows.f32");
    sae::rows rows(values.data(), values.size() / lorsa.d_in(), lorsa.d_in());
    const std::size_t n = rows.n_rows();
    sae::scratch scratch = sae::scratch::try_create(lorsa).value();
    sae::lorsa_cache cache = sae::lorsa_cache::try_create(lorsa, n).value();
    sae::features whole = sae::features::try_create().value();
    sae::features found = sae::features::try_create().value();
    CHECK(lorsa.try_encode(rows, cache, scratch, whole));
    CHECK(cache.length() == n && whole.count() > 0);
    CHECK(lorsa.try_encode(rows, cache, scratch, found).code() == SAE_STATUS_LENGTH);
    CHECK(cache.try_truncate(0));
    const std::vector<std::uint32_t> wanted = {0};
    std::vector<float> read(n), y(n * lorsa.d_out());
    std::vector<sae_row_status> status(n);
    CHECK(lorsa.try_readout(wanted, rows, cache, scratch, read, status));
    status.pop_back();
    CHECK(lorsa.try_readout(wanted, rows, cache, scratch, read, status).code() ==
          SAE_STATUS_LENGTH);
    CHECK(lorsa.try_decode(whole, scratch, y));
    CHECK(cache.try_truncate(0));
    sae::lorsa fewer = lorsa.try_with_k(1).value();
    CHECK(fewer.try_encode(rows, cache, scratch, found));
    CHECK(found.count() <= n && found.count() > 0);
    CHECK(lorsa.try_with_k(lorsa.d_sae() + 1).code() == SAE_STATUS_INVALID_ARGUMENT);
    CHECK(sae::lorsa::try_open("no/such/folder").code() == SAE_STATUS_IO);

    const std::string bytes = read_text(folder + "/sae_weights.safetensors");
    const std::string config = read_text(folder + "/config.json");
    sae::open_options options;
    options.level = "scalar";
    sae::lorsa scalar = sae::lorsa::try_open_memory(bytes.data(), bytes.size(),
                                                    "sae_weights.safetensors", config.c_str(),
                                                    options)
                            .value();
    CHECK(std::string(scalar.level()) == "scalar");
    sae::lorsa_cache other = sae::lorsa_cache::try_create(scalar, n).value();
    CHECK(scalar.try_encode(rows, other, scratch, found));
    CHECK(same(found, whole));
}

void transforms(const std::string &folder) {
    sae::molt molt = sae::molt::try_open(folder).value();
    const std::vector<float> values = read_values(folder + "/rows.f32");
    sae::rows rows(values.data(), values.size() / molt.d_in(), molt.d_in());
    const std::size_t n = rows.n_rows();
    sae::molt_scratch scratch = sae::molt_scratch::try_create(molt).value();
    sae::features whole = sae::features::try_create().value();
    sae::features found = sae::features::try_create().value();
    CHECK(molt.try_encode(rows, scratch, whole));
    CHECK(whole.count() > 0);
    std::vector<float> y(n * molt.d_out()), z(y.size()), read(n);
    CHECK(molt.try_decode(whole, rows, scratch, y));
    y.pop_back();
    CHECK(molt.try_decode(whole, rows, scratch, y).code() == SAE_STATUS_LENGTH);
    y.resize(z.size());
    CHECK(molt.try_decode(whole, rows, scratch, y));
    const std::vector<std::uint32_t> wanted = {0};
    sae::set set = sae::set::try_compile(molt, wanted).value();
    std::vector<sae_row_status> status(n);
    CHECK(molt.try_readout(set, rows, scratch, read, status));
    status.clear();
    CHECK(molt.try_readout(set, rows, scratch, read, status).code() == SAE_STATUS_LENGTH);
    CHECK(molt.try_with_k(molt.d_sae() + 1).code() == SAE_STATUS_INVALID_ARGUMENT);
    CHECK(molt.try_with_k(0));

    const std::string bytes = read_text(folder + "/sae_weights.safetensors");
    const std::string config = read_text(folder + "/config.json");
    sae::open_options options;
    options.level = "scalar";
    sae::molt scalar = sae::molt::try_open_memory(bytes.data(), bytes.size(),
                                                  "sae_weights.safetensors", config.c_str(),
                                                  options)
                           .value();
    CHECK(std::string(scalar.level()) == "scalar");
    sae::molt_scratch other = sae::molt_scratch::try_create(scalar).value();
    CHECK(scalar.try_encode(rows, other, found));
    CHECK(same(found, whole));
    CHECK(scalar.try_decode(found, rows, other, z));
    CHECK(z == y);
}

#if SAE_EXCEPTIONS

// The first feature, as a list of one.
sae::span<const std::uint32_t> span_of_one() {
    static const std::uint32_t zero = 0;
    return sae::span<const std::uint32_t>(&zero, 1);
}

// The throwing forms, each once, and what they throw.
void exceptions(char **argv) {
    const std::vector<float> values = read_values(argv[2]), of_sites = read_values(argv[4]);
    sae::model model = sae::model::open(argv[1]);
    sae::rows rows(values.data(), values.size() / model.d_in(), model.d_in());
    const std::size_t d_sae = model.d_sae();
    sae::model top = model.with_threshold(0).with_top_k(4).with_k(3);
    sae::features three = encode(top, rows);
    CHECK(three.count() > 0 && three.count() <= 3 * rows.n_rows());
    CHECK(top.with_prefix(d_sae / 2).with_range(1, 5).d_sae() == 5);
    const std::vector<std::uint32_t> chosen = {2, 0};
    CHECK(model.with_features(chosen).d_sae() == 2);
    CHECK(top.with_rank_weights({}).d_sae() == d_sae);
    const sae_pursuit pursuit = SAE_PURSUIT_INIT(2);
    CHECK(model.with_pursuit(pursuit).d_sae() == d_sae);
    const std::vector<const sae::model *> members = {&model, &model};
    CHECK(sae::model::ensemble(members, SAE_ENSEMBLE_CHAIN).d_sae() == 2 * d_sae);
    const std::vector<float> vectors(2 * model.d_in(), 1.0f);
    const std::vector<double> center(model.d_in(), 0.5);
    CHECK(sae::model::routed(members, vectors, center, true).d_sae() == 2 * d_sae);
    sae::scratch scratch(model);
    sae::features features;
    sae::batch batch(model, SAE_BATCH_TOGETHER, 2, rows.n_rows());
    model.encode_batch(rows, batch, scratch, features);
    CHECK(features.count() <= 2 * rows.n_rows());
    sae::importance importance(model);
    importance.add(features);
    std::vector<std::uint32_t> order(d_sae);
    importance.order(order);

    sae::model layers = sae::model::open(argv[3]);
    const std::size_t n_sites = layers.input_sites(), width = layers.d_in() / n_sites;
    const std::size_t n = of_sites.size() / layers.d_in();
    sae::scratch work(layers);
    std::vector<sae_rows> apart;
    for (std::size_t site = 0; site < n_sites; site++)
        apart.push_back(*sae::rows(&of_sites[site * width], n, width, layers.d_in() * 4).c());
    layers.encode_sites(apart, work, features);
    std::vector<float> y(n * layers.d_out()), read(n), out(n * width);
    std::vector<sae_row_status> status(n);
    layers.decode_sites(features, apart, work, y);
    sae::set set(layers, span_of_one());
    layers.readout_sites(set, apart, work, read, status);
    sae::layer_stream stream(layers, n);
    stream.restart(n);
    sae::rows first(of_sites.data(), n, width, layers.d_in() * sizeof(float));
    layers.encode_layer(stream, 0, first, work, features);
    layers.decode_layer(stream, 0, &first, work, out);

    const std::string folder = argv[5], other = argv[6];
    sae::lorsa lorsa = sae::lorsa::open(folder).with_k(2);
    const std::vector<float> sequence = read_values(folder + "/rows.f32");
    sae::rows tokens(sequence.data(), sequence.size() / lorsa.d_in(), lorsa.d_in());
    sae::lorsa_cache cache(lorsa, tokens.n_rows());
    sae::scratch attention(lorsa);
    lorsa.encode(tokens, cache, attention, features);
    cache.truncate(0);
    read.resize(tokens.n_rows());
    status.resize(tokens.n_rows());
    lorsa.readout(span_of_one(), tokens, cache, attention, read, status);
    y.resize(tokens.n_rows() * lorsa.d_out());
    lorsa.decode(features, attention, y);
    sae::molt molt = sae::molt::open(other).with_k(2);
    const std::vector<float> inputs = read_values(other + "/rows.f32");
    sae::rows in(inputs.data(), inputs.size() / molt.d_in(), molt.d_in());
    sae::molt_scratch mixture(molt);
    molt.encode(in, mixture, features);
    read.resize(in.n_rows());
    status.resize(in.n_rows());
    sae::set of_molt(molt, span_of_one());
    molt.readout(of_molt, in, mixture, read, status);
    y.resize(in.n_rows() * molt.d_out());
    molt.decode(features, in, mixture, y);

    int caught = 0;
    try {
        top.with_k(d_sae + 1);
    } catch (const sae::error &error) {
        caught += error.code() == SAE_STATUS_INVALID_ARGUMENT;
    }
    try {
        lorsa.encode(tokens, cache, attention, features);
    } catch (const sae::error &error) {
        caught += error.code() == SAE_STATUS_LENGTH;
    }
    try {
        sae::molt nothing = sae::molt::open(argv[1]);
    } catch (const sae::error &error) {
        caught += error.code() != SAE_STATUS_OK;
    }
    CHECK(caught == 3);
}

#endif

} // namespace

int main(int argc, char **argv) {
    CHECK(argc == 7);
    derived(argv[1], read_values(argv[2]));
    sites(argv[3], read_values(argv[4]));
    attention(argv[5]);
    transforms(argv[6]);
#if SAE_EXCEPTIONS
    exceptions(argv);
#endif
    return 0;
}
