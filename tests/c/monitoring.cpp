// The C++ wrapper of monitoring: what the C functions give, handles released on every way out,
// callbacks that survive a move. Built as C++17, as C++20 and without exceptions.
#include "sae_monitor.hpp"

#include "check.h"

#include <cstdlib>
#include <cstring>
#include <set>

namespace {

std::vector<float> read_values(const char *path) {
    std::size_t size = 0;
    unsigned char *bytes = read_file(path, 0, &size);
    std::vector<float> values(size / sizeof(float));
    std::memcpy(values.data(), bytes, values.size() * sizeof(float));
    std::free(bytes);
    return values;
}

bool same(const std::vector<std::uint8_t> &a, const std::vector<std::uint8_t> &b) {
    return a == b && !a.empty();
}

// Alerts when a feature fires; labels it.
std::string rules_of(std::uint32_t feature) {
    const std::string number = std::to_string(feature);
    return "{\"rules\": [{\"name\": \"fires\", \"kind\": \"threshold\", \"feature\": " + number +
           ", \"over\": 0}], \"labels\": {\"" + number + "\": \"one\"}}";
}

struct example {
    sae::model model;
    sae::scratch scratch;
    sae::features features;
    sae::rows rows;
    std::uint32_t watched;

    example(const char *path, const std::vector<float> &values)
        : model(sae::model::try_open(path).value()),
          scratch(sae::scratch::try_create(model).value()),
          features(sae::features::try_create().value()),
          rows(values.data(), values.size() / model.d_in(), model.d_in()), watched(0) {
        CHECK(model.try_encode(rows, scratch, features));
        CHECK(features.count() > 0 && rows.n_rows() >= 4);
        for (std::size_t row = 0; row < rows.n_rows(); row++) {
            const sae::row_features found = features.try_row(row).value();
            if (found.size() > 0) {
                watched = found[0].index;
                return;
            }
        }
    }
    // Rows in which the watched feature fires.
    std::size_t firing() const {
        std::size_t count = 0;
        for (std::size_t row = 0; row < rows.n_rows(); row++)
            for (auto [index, value] : features.try_row(row).value())
                count += index == watched && value > 0;
        return count;
    }
};

void monitors(example &of) {
    CHECK(sae::fingerprint(of.model) == sae_model_fingerprint(of.model.c()));
    auto wrong = sae::rules::try_compile(of.model, "{\"rules\": [{}]}");
    CHECK(!wrong && std::strstr(wrong.message(), "rules[0]") != nullptr);
    sae::rules rules = sae::rules::try_compile(of.model, rules_of(of.watched)).value();
    CHECK(rules.size() == 1 && std::string(rules.name(0)) == "fires" && rules.name(1) == nullptr);
    CHECK(std::string(rules.label(of.watched)) == "one" && rules.bytes_per_row() > 0);

    sae::event_ring ring = sae::event_ring::try_create(2).value();
    std::vector<sae_event> heard;
    sae::monitor_options options;
    options.collect = SAE_COLLECT_ALL;
    options.histogram = true;
    options.top = 2;
    options.pending_rows = 4;
    options.ring = &ring;
    options.on_event = [&](const sae_event &event) { heard.push_back(event); };
    sae::monitor made = sae::monitor::try_create(of.model, rules, options).value();
    // The callback goes where the monitor goes.
    sae::monitor monitor = std::move(made);
    CHECK(made.c() == nullptr);
    const sae::features &features = of.features;
    // Each row of a stream of its own: every one that fires alerts.
    std::vector<sae_monitor_row> infos(of.rows.n_rows());
    for (std::size_t row = 0; row < infos.size(); row++) infos[row].stream = row;
    CHECK(monitor.try_observe(of.model, of.rows, infos, of.scratch));
    CHECK(heard.size() == of.firing() && heard.size() > 0);
    CHECK(monitor.rule_events(0) == heard.size() && monitor.rule_events(1) == 0);
    const sae_monitor_counts counts = monitor.try_count().value();
    CHECK(counts.rows == of.rows.n_rows() && counts.events == heard.size());
    sae_event event;
    std::size_t popped = 0;
    for (; ring.pop(event); popped++) CHECK(event.stream == heard[popped].stream);
    CHECK(popped + ring.dropped() == heard.size());
    const std::string line = rules.try_json(heard[0]).value();
    CHECK(line.front() == '{' && line.back() == '}');

    // Statistics, in each of their forms.
    CHECK(monitor.try_feature(of.watched).value().fired == heard.size());
    std::set<std::uint32_t> fired;
    for (std::size_t row = 0; row < of.rows.n_rows(); row++)
        for (auto [index, value] : features.try_row(row).value()) fired.insert(index);
    const std::vector<std::uint32_t> dead = monitor.try_dead().value();
    CHECK(dead.size() + fired.size() == of.model.d_sae());
    CHECK(monitor.try_description_length().value() > 0);
    CHECK(monitor.try_json().value().find("\"one\"") != std::string::npos);
    const std::string metrics = monitor.try_open_metrics().value();
    std::vector<char> buffer(metrics.size() + 1);
    std::size_t needed = 0;
    CHECK(monitor.try_open_metrics(buffer, needed));
    CHECK(needed == buffer.size() && metrics == buffer.data());
    buffer.pop_back();
    CHECK(monitor.try_open_metrics(buffer, needed).code() == SAE_STATUS_LENGTH);

    // Proposed, kept in part and rolled back: the bytes of never having proposed the rest.
    const sae::rows four(static_cast<const float *>(of.rows.c()->data), 4, of.model.d_in());
    const sae::rows two(static_cast<const float *>(of.rows.c()->data), 2, of.model.d_in());
    options.on_event = nullptr;
    options.ring = nullptr;
    sae::monitor direct = sae::monitor::try_create(of.model, rules, options).value();
    sae::monitor waits = sae::monitor::try_create(of.model, rules, options).value();
    CHECK(direct.try_observe(of.model, two, of.scratch));
    CHECK(waits.try_propose(of.model, four, of.scratch));
    CHECK(waits.try_propose(of.model, two, of.scratch).code() == SAE_STATUS_LIMIT);
    std::size_t count = 0;
    CHECK(waits.try_commit(0, 2, &count) && count == 2);
    CHECK(waits.try_rollback(0, 9, &count) && count == 2);
    CHECK(waits.try_commit(0, 1));
    const std::vector<std::uint8_t> bytes = direct.try_snapshot().value();
    CHECK(same(bytes, waits.try_snapshot().value()));
    CHECK(waits.try_merge(bytes));
    CHECK(waits.try_feature(0).value().rows == 4);
    std::vector<std::uint8_t> cut = bytes;
    cut.pop_back();
    CHECK(waits.try_merge(cut).code() == SAE_STATUS_TRUNCATED);
    CHECK(direct.try_end_stream(0));

    // By features, with infos.
    for (sae_monitor_row &info : infos) info.stream %= 2;
    CHECK(direct.try_observe(features, infos));
    CHECK(direct.try_count().value().streams == 2);
    infos.pop_back();
    CHECK(direct.try_observe(features, infos).code() == SAE_STATUS_LENGTH);
    CHECK(direct.try_observe(of.model, of.rows, infos, of.scratch).code() == SAE_STATUS_LENGTH);
    CHECK(direct.try_propose(features).code() ==
          (of.rows.n_rows() > 4 ? SAE_STATUS_LIMIT : SAE_STATUS_OK));

    options.collect = SAE_COLLECT_NONE;
    options.histogram = false;
    options.top = 0;
    sae::monitor none = sae::monitor::try_create(of.model, rules, options).value();
    CHECK(!none.try_feature(of.watched) && !none.try_dead() && !none.try_description_length());
}

void quality(example &of) {
    if (of.model.d_in() != of.model.d_out()) return;
    std::vector<float> decoded(of.rows.n_rows() * of.model.d_out());
    CHECK(of.model.try_decode(of.features, &of.rows, of.scratch, decoded));
    sae::quality quality = sae::quality::try_create(of.model, {}, true).value();
    std::vector<sae_row_quality> each(of.rows.n_rows());
    CHECK(quality.try_add(of.rows, of.features, decoded, each));
    CHECK(quality.try_summarize().value().rows == of.rows.n_rows() && each[0].finite == 1);
    CHECK(quality.try_json().value().find("\"fvu\":") != std::string::npos);
    const std::vector<std::uint8_t> bytes = quality.try_snapshot().value();
    sae::quality twice = sae::quality::try_create(of.model).value();
    CHECK(twice.try_merge(of.model, bytes) && twice.try_merge(of.model, bytes));
    CHECK(twice.try_summarize().value().rows == 2 * of.rows.n_rows());
    const std::vector<std::uint8_t> errors = quality.try_fit_errors(1e-3).value();
    sae::quality scored = sae::quality::try_create(of.model).value();
    CHECK(scored.try_set_error_model(errors, 0));
    CHECK(scored.try_add(of.rows, of.features, decoded));
    CHECK(scored.try_summarize().value().anomalous > 0);
    CHECK(twice.try_set_error_model(errors, 0).code() == SAE_STATUS_INVALID_ARGUMENT);
    decoded.pop_back();
    CHECK(quality.try_add(of.rows, of.features, decoded).code() == SAE_STATUS_LENGTH);
    const std::vector<float> mean(of.model.d_out() - 1);
    CHECK(sae::quality::try_create(of.model, mean).code() == SAE_STATUS_LENGTH);
}

#if SAE_EXCEPTIONS

void exceptions(example &of) {
    sae::rules rules(of.model, rules_of(of.watched));
    sae::event_ring ring(8);
    sae::monitor_options options;
    options.collect = SAE_COLLECT_WATCHED;
    options.pending_rows = 2;
    options.ring = &ring;
    sae::monitor monitor(of.model, rules, options);
    monitor.observe(of.model, of.rows, of.scratch);
    monitor.observe(of.features);
    CHECK(monitor.count().rows == 2 * of.rows.n_rows());
    const sae::rows one(static_cast<const float *>(of.rows.c()->data), 1, of.model.d_in());
    const sae_monitor_row info = {9, 0, 0, 0, 0};
    monitor.propose(of.model, one, {&info, 1}, of.scratch);
    CHECK(monitor.commit(9, 1) == 1 && monitor.rollback(9, 1) == 0);
    monitor.end_stream(9);
    CHECK(monitor.feature(of.watched).fired >= 2 * of.firing());
    CHECK(monitor.open_metrics().find("sae_rows_total") != std::string::npos);
    const std::vector<std::uint8_t> bytes = monitor.snapshot();
    monitor.merge(bytes);
    CHECK(monitor.count().rows > 0 && !monitor.json().empty() && monitor.dead().empty());
    sae_event event;
    CHECK(ring.pop(event) && rules.json(event).find("\"fires\"") != std::string::npos);
    int caught = 0;
    try {
        sae::rules nothing(of.model, "not rules");
    } catch (const sae::error &error) {
        caught += error.code() != SAE_STATUS_OK;
    }
    try {
        (void)monitor.description_length();
    } catch (const sae::error &error) {
        caught += error.code() == SAE_STATUS_INVALID_ARGUMENT;
    }
    try {
        const std::vector<std::uint8_t> none;
        monitor.merge(none);
    } catch (const sae::error &error) {
        caught += error.code() != SAE_STATUS_OK;
    }
    CHECK(caught == 3);
}

#endif

} // namespace

int main(int argc, char **argv) {
    CHECK(argc == 3);
    const std::vector<float> values = read_values(argv[2]);
    example of(argv[1], values);
    monitors(of);
    quality(of);
#if SAE_EXCEPTIONS
    exceptions(of);
#endif
    return 0;
}
