// sae_monitor.hpp - sae_monitor.h for C++17 and later: rules, queues of events, monitors and quality
// that release their handles, in the manner of sae.hpp. Header-only; the comments of sae_monitor.h say
// what each function does, and its rules for threads and memory hold.
//
//     sae::rules rules(model, text);
//     sae::monitor monitor(model, rules, options);
//     monitor.observe(model, sae::rows(data, n_rows, width), scratch);
#ifndef SAE_MONITOR_HPP
#define SAE_MONITOR_HPP

#include "sae.hpp"
#include "sae_monitor.h"

#include <functional>

namespace sae {

namespace detail {

// A text of a C function that takes a buffer, its size and a place for the size needed.
template <typename Call> result<std::string> text(Call call) {
    std::size_t size = 0;
    sae_error details;
    if (call(nullptr, std::size_t{0}, &size, &details) != SAE_STATUS_OK) return details;
    std::string out(size, '\0');
    if (call(&out[0], size, &size, &details) != SAE_STATUS_OK) return details;
    // Without the zero byte.
    out.resize(size - 1);
    return out;
}

// The same for bytes.
template <typename Call> result<std::vector<std::uint8_t>> bytes(Call call) {
    std::size_t size = 0;
    sae_error details;
    if (call(nullptr, std::size_t{0}, &size, &details) != SAE_STATUS_OK) return details;
    std::vector<std::uint8_t> out(size);
    if (call(out.data(), size, &size, &details) != SAE_STATUS_OK) return details;
    return out;
}

} // namespace detail

// A number that tells models apart; statistics carry it.
inline std::uint64_t fingerprint(const model &model) noexcept {
    return sae_model_fingerprint(model.c());
}

// Rules compiled for a model.
class rules {
  public:
    // JSON text; what is wrong is told with its place: `rules[3].release`.
    static result<rules> try_compile(const model &model, const std::string &text) {
        sae_rules *handle = nullptr;
        sae_error details;
        if (sae_rules_compile(model.c(), text.c_str(), &handle, &details) != SAE_STATUS_OK)
            return details;
        return rules(handle);
    }
    std::size_t size() const noexcept { return sae_rules_count(c()); }
    // The name of a rule, the label of a feature; null if there is none.
    const char *name(std::size_t index) const noexcept { return sae_rules_name(c(), index); }
    const char *label(std::uint32_t feature) const noexcept {
        return sae_rules_label(c(), feature);
    }
    // Bytes of weights that watching one row reads.
    std::uint64_t bytes_per_row() const noexcept { return sae_rules_bytes_per_row(c()); }
    // An event as one line of JSON, without a line break.
    result<std::string> try_json(const sae_event &event) const {
        return detail::text([&](char *buffer, std::size_t size, std::size_t *needed,
                                sae_error *e) {
            return sae_event_json(c(), &event, buffer, size, needed, e);
        });
    }
#if SAE_EXCEPTIONS
    rules(const model &model, const std::string &text) : rules(try_compile(model, text).value()) {}
    std::string json(const sae_event &event) const { return try_json(event).value(); }
#endif
    sae_rules *c() const noexcept { return handle_.get(); }

  private:
    explicit rules(sae_rules *handle) : handle_(handle) {}
    detail::owner<sae_rules, sae_rules_destroy> handle_;
};

// A bounded queue of events between threads. Monitors that were given it keep its memory alive.
class event_ring {
  public:
    static result<event_ring> try_create(std::size_t capacity) {
        sae_event_ring *handle = nullptr;
        sae_error details;
        if (sae_event_ring_create(capacity, &handle, &details) != SAE_STATUS_OK) return details;
        return event_ring(handle);
    }
    // Takes the oldest event; false if there is none.
    bool pop(sae_event &event) const noexcept { return sae_event_ring_pop(c(), &event) != 0; }
    // Events that were dropped because the queue was full.
    std::uint64_t dropped() const noexcept { return sae_event_ring_dropped(c()); }
#if SAE_EXCEPTIONS
    explicit event_ring(std::size_t capacity) : event_ring(try_create(capacity).value()) {}
#endif
    sae_event_ring *c() const noexcept { return handle_.get(); }

  private:
    explicit event_ring(sae_event_ring *handle) : handle_(handle) {}
    detail::owner<sae_event_ring, sae_event_ring_destroy> handle_;
};

// How a monitor is made.
struct monitor_options {
    // What becomes of streams beyond the room for them.
    sae_unseen unseen = SAE_UNSEEN_EVICT;
    // Which features statistics are collected of.
    sae_collect collect = SAE_COLLECT_NONE;
    // With statistics: rows of the largest values kept per feature; histograms of the values.
    std::uint32_t top = 0;
    bool histogram = false;
    // Streams watched at once; 0: 64.
    std::size_t streams = 0;
    // Rows of a stream that can wait for a commit; with SAE_COLLECT_ALL the active features that
    // each has room for, 0: 1024.
    std::size_t pending_rows = 0;
    std::size_t pending_features = 0;
    // Where events go, if anywhere.
    const event_ring *ring = nullptr;
    // Receives events, in the thread that watches. It must neither use the monitor nor throw: an
    // exception ends the program.
    std::function<void(const sae_event &)> on_event;
};

// Rules at work on many streams.
class monitor {
  public:
    static result<monitor> try_create(const model &model, const rules &rules,
                                      monitor_options options = {}) {
        // At one place however the monitor moves.
        auto on_event = std::make_unique<std::function<void(const sae_event &)>>(
            std::move(options.on_event));
        sae_monitor_options c{};
        c.struct_size = sizeof c;
        c.unseen = options.unseen;
        c.collect = options.collect;
        c.top = options.top;
        c.histogram = options.histogram ? 1 : 0;
        c.streams = options.streams;
        c.pending_rows = options.pending_rows;
        c.pending_features = options.pending_features;
        c.ring = options.ring ? options.ring->c() : nullptr;
        if (*on_event) {
            c.on_event = [](const sae_event *event, void *context) noexcept {
                (*static_cast<std::function<void(const sae_event &)> *>(context))(*event);
            };
            c.context = on_event.get();
        }
        sae_monitor *handle = nullptr;
        sae_error details;
        if (sae_monitor_create(model.c(), rules.c(), &c, &handle, &details) != SAE_STATUS_OK)
            return details;
        return monitor(handle, std::move(on_event));
    }
    // `infos` has one entry for each row, or none: stream 0, one position after the other.
    result<void> try_observe(const model &model, const rows &rows,
                             span<const sae_monitor_row> infos, scratch &scratch) {
        return detail::run([&](sae_error *e) {
            return sae_monitor_observe(model.c(), c(), rows.c(), infos.data(), infos.size(),
                                       scratch.c(), e);
        });
    }
    result<void> try_observe(const model &model, const rows &rows, scratch &scratch) {
        return try_observe(model, rows, {}, scratch);
    }
    result<void> try_observe(const features &features, span<const sae_monitor_row> infos = {}) {
        return detail::run([&](sae_error *e) {
            return sae_monitor_observe_features(c(), features.c(), infos.data(), infos.size(), e);
        });
    }
    // Rows that may yet be rejected: they wait, and enter nothing.
    result<void> try_propose(const model &model, const rows &rows,
                             span<const sae_monitor_row> infos, scratch &scratch) {
        return detail::run([&](sae_error *e) {
            return sae_monitor_propose(model.c(), c(), rows.c(), infos.data(), infos.size(),
                                       scratch.c(), e);
        });
    }
    result<void> try_propose(const model &model, const rows &rows, scratch &scratch) {
        return try_propose(model, rows, {}, scratch);
    }
    result<void> try_propose(const features &features, span<const sae_monitor_row> infos = {}) {
        return detail::run([&](sae_error *e) {
            return sae_monitor_propose_features(c(), features.c(), infos.data(), infos.size(), e);
        });
    }
    // Watches the first waiting rows of a stream; `committed` receives how many there were.
    result<void> try_commit(std::uint64_t stream, std::size_t n_rows,
                            std::size_t *committed = nullptr) {
        return detail::run([&](sae_error *e) {
            return sae_monitor_commit(c(), stream, n_rows, committed, e);
        });
    }
    // Forgets the last waiting rows of a stream; `rolled_back` receives how many there were.
    result<void> try_rollback(std::uint64_t stream, std::size_t n_rows,
                              std::size_t *rolled_back = nullptr) {
        return detail::run([&](sae_error *e) {
            return sae_monitor_rollback(c(), stream, n_rows, rolled_back, e);
        });
    }
    result<void> try_end_stream(std::uint64_t stream) {
        return detail::run(
            [&](sae_error *e) { return sae_monitor_end_stream(c(), stream, e); });
    }
    result<sae_monitor_counts> try_count() const {
        sae_monitor_counts counts{};
        counts.struct_size = sizeof counts;
        sae_error details;
        if (sae_monitor_count(c(), &counts, &details) != SAE_STATUS_OK) return details;
        return counts;
    }
    // Alerts of one rule; 0 if there is none of this index.
    std::uint64_t rule_events(std::size_t index) const noexcept {
        return sae_monitor_rule_events(c(), index);
    }
    result<sae_feature_summary> try_feature(std::uint32_t feature) const {
        sae_feature_summary summary{};
        summary.struct_size = sizeof summary;
        sae_error details;
        if (sae_monitor_feature(c(), feature, &summary, &details) != SAE_STATUS_OK)
            return details;
        return summary;
    }
    result<std::vector<std::uint32_t>> try_dead() const {
        std::size_t count = 0;
        sae_error details;
        if (sae_monitor_dead(c(), nullptr, 0, &count, &details) != SAE_STATUS_OK) return details;
        std::vector<std::uint32_t> found(count);
        if (sae_monitor_dead(c(), found.data(), count, &count, &details) != SAE_STATUS_OK)
            return details;
        return found;
    }
    result<double> try_description_length() const {
        double bits = 0;
        sae_error details;
        if (sae_monitor_description_length(c(), &bits, &details) != SAE_STATUS_OK) return details;
        return bits;
    }
    result<std::string> try_json() const {
        return detail::text([&](char *buffer, std::size_t size, std::size_t *needed,
                                sae_error *e) {
            return sae_monitor_json(c(), buffer, size, needed, e);
        });
    }
    // Into the caller's buffer, with a zero byte, without allocating; `needed` receives the bytes of
    // all of it.
    result<void> try_open_metrics(span<char> buffer, std::size_t &needed) const {
        return detail::run([&](sae_error *e) {
            return sae_monitor_open_metrics(c(), buffer.data(), buffer.size(), &needed, e);
        });
    }
    result<std::string> try_open_metrics() const {
        return detail::text([&](char *buffer, std::size_t size, std::size_t *needed,
                                sae_error *e) {
            return sae_monitor_open_metrics(c(), buffer, size, needed, e);
        });
    }
    result<std::vector<std::uint8_t>> try_snapshot() const {
        return detail::bytes([&](std::uint8_t *buffer, std::size_t size, std::size_t *needed,
                                 sae_error *e) {
            return sae_monitor_snapshot(c(), buffer, size, needed, e);
        });
    }
    result<void> try_merge(span<const std::uint8_t> snapshot) {
        return detail::run([&](sae_error *e) {
            return sae_monitor_merge(c(), snapshot.data(), snapshot.size(), e);
        });
    }
#if SAE_EXCEPTIONS
    monitor(const model &model, const rules &rules, monitor_options options = {})
        : monitor(try_create(model, rules, std::move(options)).value()) {}
    void observe(const model &model, const rows &rows, span<const sae_monitor_row> infos,
                 scratch &scratch) {
        try_observe(model, rows, infos, scratch).value();
    }
    void observe(const model &model, const rows &rows, scratch &scratch) {
        try_observe(model, rows, scratch).value();
    }
    void observe(const features &features, span<const sae_monitor_row> infos = {}) {
        try_observe(features, infos).value();
    }
    void propose(const model &model, const rows &rows, span<const sae_monitor_row> infos,
                 scratch &scratch) {
        try_propose(model, rows, infos, scratch).value();
    }
    void propose(const model &model, const rows &rows, scratch &scratch) {
        try_propose(model, rows, scratch).value();
    }
    void propose(const features &features, span<const sae_monitor_row> infos = {}) {
        try_propose(features, infos).value();
    }
    std::size_t commit(std::uint64_t stream, std::size_t n_rows) {
        std::size_t committed = 0;
        try_commit(stream, n_rows, &committed).value();
        return committed;
    }
    std::size_t rollback(std::uint64_t stream, std::size_t n_rows) {
        std::size_t rolled_back = 0;
        try_rollback(stream, n_rows, &rolled_back).value();
        return rolled_back;
    }
    void end_stream(std::uint64_t stream) { try_end_stream(stream).value(); }
    sae_monitor_counts count() const { return try_count().value(); }
    sae_feature_summary feature(std::uint32_t feature) const {
        return try_feature(feature).value();
    }
    std::vector<std::uint32_t> dead() const { return try_dead().value(); }
    double description_length() const { return try_description_length().value(); }
    std::string json() const { return try_json().value(); }
    std::string open_metrics() const { return try_open_metrics().value(); }
    std::vector<std::uint8_t> snapshot() const { return try_snapshot().value(); }
    void merge(span<const std::uint8_t> snapshot) { try_merge(snapshot).value(); }
#endif
    sae_monitor *c() const noexcept { return handle_.get(); }

  private:
    using receiver = std::unique_ptr<std::function<void(const sae_event &)>>;
    monitor(sae_monitor *handle, receiver on_event)
        : on_event_(std::move(on_event)), handle_(handle) {}
    // Outlives the handle, which calls it.
    receiver on_event_;
    detail::owner<sae_monitor, sae_monitor_destroy> handle_;
};

// How well rows are reconstructed, streaming.
class quality {
  public:
    // `mean`: the mean row that variances are about, or that of the rows that are added.
    // `fit_errors`: keep what `fit_errors` needs, for offline use.
    static result<quality> try_create(const model &model, span<const float> mean = {},
                                      bool fit_errors = false) {
        sae_quality_options options{};
        options.struct_size = sizeof options;
        options.fit_errors = fit_errors ? 1 : 0;
        options.mean = mean.empty() ? nullptr : mean.data();
        options.n_mean = mean.size();
        sae_quality *handle = nullptr;
        sae_error details;
        if (sae_quality_create(model.c(), &options, &handle, &details) != SAE_STATUS_OK)
            return details;
        return quality(handle);
    }
    // `rows` at the output site, their features and their reconstructions. `each` receives the
    // quality of each row, or is empty.
    result<void> try_add(const rows &rows, const features &features,
                         span<const float> reconstructions, span<sae_row_quality> each = {}) {
        return detail::run([&](sae_error *e) {
            return sae_quality_add(c(), rows.c(), features.c(), reconstructions.data(),
                                   reconstructions.size(), each.data(), each.size(), e);
        });
    }
    result<sae_quality_summary> try_summarize() const {
        sae_quality_summary summary{};
        summary.struct_size = sizeof summary;
        sae_error details;
        if (sae_quality_summarize(c(), &summary, &details) != SAE_STATUS_OK) return details;
        return summary;
    }
    result<std::string> try_json() const {
        return detail::text([&](char *buffer, std::size_t size, std::size_t *needed,
                                sae_error *e) {
            return sae_quality_json(c(), buffer, size, needed, e);
        });
    }
    result<std::vector<std::uint8_t>> try_snapshot() const {
        return detail::bytes([&](std::uint8_t *buffer, std::size_t size, std::size_t *needed,
                                 sae_error *e) {
            return sae_quality_snapshot(c(), buffer, size, needed, e);
        });
    }
    result<void> try_merge(const model &model, span<const std::uint8_t> snapshot) {
        return detail::run([&](sae_error *e) {
            return sae_quality_merge(model.c(), c(), snapshot.data(), snapshot.size(), e);
        });
    }
    // An error model over all rows so far, as bytes.
    result<std::vector<std::uint8_t>> try_fit_errors(double ridge = 1e-9) const {
        return detail::bytes([&](std::uint8_t *buffer, std::size_t size, std::size_t *needed,
                                 sae_error *e) {
            return sae_quality_fit_errors(c(), ridge, buffer, size, needed, e);
        });
    }
    // Scores all rows by an error model, from the first on; rows above `over` are counted.
    result<void> try_set_error_model(span<const std::uint8_t> bytes, double over) {
        return detail::run([&](sae_error *e) {
            return sae_quality_set_error_model(c(), bytes.data(), bytes.size(), over, e);
        });
    }
#if SAE_EXCEPTIONS
    explicit quality(const model &model, span<const float> mean = {}, bool fit_errors = false)
        : quality(try_create(model, mean, fit_errors).value()) {}
    void add(const rows &rows, const features &features, span<const float> reconstructions,
             span<sae_row_quality> each = {}) {
        try_add(rows, features, reconstructions, each).value();
    }
    sae_quality_summary summarize() const { return try_summarize().value(); }
    std::string json() const { return try_json().value(); }
    std::vector<std::uint8_t> snapshot() const { return try_snapshot().value(); }
    void merge(const model &model, span<const std::uint8_t> snapshot) {
        try_merge(model, snapshot).value();
    }
    std::vector<std::uint8_t> fit_errors(double ridge = 1e-9) const {
        return try_fit_errors(ridge).value();
    }
    void set_error_model(span<const std::uint8_t> bytes, double over) {
        try_set_error_model(bytes, over).value();
    }
#endif
    sae_quality *c() const noexcept { return handle_.get(); }

  private:
    explicit quality(sae_quality *handle) : handle_(handle) {}
    detail::owner<sae_quality, sae_quality_destroy> handle_;
};

} // namespace sae

#endif // SAE_MONITOR_HPP
