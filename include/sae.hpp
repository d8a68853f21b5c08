// sae.hpp - libsae for C++17 and later: owners that release their handles, spans, and errors as
// exceptions or as results. Header-only, on top of sae.h, whose comments say what each function
// does; the rules for threads and memory are the same.
//
// Every wrapped function that can fail comes twice: `try_encode` returns a `sae::result`, `encode` throws
// a `sae::error`. In a build without exceptions only the first form exists.
//
//     sae::model model = sae::model::open("path/to/checkpoint");
//     sae::scratch scratch(model);
//     sae::features features;
//     model.encode(sae::rows(data, n_rows, width), scratch, features);
//     for (auto [index, value] : features.row(0)) ...
#ifndef SAE_HPP
#define SAE_HPP

#include "sae.h"
#include "sae_architectures.h"
#include "sae_steer.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#if __cplusplus >= 202002L || (defined(_MSVC_LANG) && _MSVC_LANG >= 202002L)
#include <span>
#endif

#if defined(__cpp_exceptions) || defined(_CPPUNWIND)
#define SAE_EXCEPTIONS 1
#include <stdexcept>
#else
#define SAE_EXCEPTIONS 0
#include <cstdlib>
#endif

namespace sae {

#if defined(__cpp_lib_span)
// A pointer and a length.
template <typename T> using span = std::span<T>;
#else
// A pointer and a length: the part of C++20's std::span that is needed here.
template <typename T> class span {
  public:
    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    // From anything that has data() and size(), as a std::vector or std::array.
    template <typename Container,
              typename = decltype(static_cast<T *>(std::declval<Container &>().data()))>
    constexpr span(Container &&container) noexcept
        : data_(container.data()), size_(container.size()) {}
    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t index) const noexcept { return data_[index]; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};
#endif

#if SAE_EXCEPTIONS
// What the throwing functions throw.
class error : public std::runtime_error {
  public:
    explicit error(const sae_error &details)
        : std::runtime_error(details.message[0] != 0 ? details.message
                                                     : sae_status_text(details.code)),
          code_(details.code) {}
    // One of SAE_STATUS_...
    sae_status code() const noexcept { return code_; }

  private:
    sae_status code_;
};
#endif

namespace detail {
[[noreturn]] inline void fail(const sae_error &details) {
#if SAE_EXCEPTIONS
    throw error(details);
#else
    (void)details;
    std::abort(); // value() of a result that holds an error, in a build without exceptions
#endif
}
} // namespace detail

// A value, or why there is none.
template <typename T> class [[nodiscard]] result {
  public:
    result(T value) : value_(std::make_unique<T>(std::move(value))), error_{} {}
    result(const sae_error &details) : error_(details) {}
    // Whether there is a value.
    explicit operator bool() const noexcept { return value_ != nullptr; }
    // SAE_STATUS_OK if there is a value.
    sae_status code() const noexcept { return error_.code; }
    // What happened; "" if there is a value.
    const char *message() const noexcept { return error_.message; }
    const sae_error &details() const noexcept { return error_; }
    // The value; without one: throws `sae::error`, or aborts in a build without exceptions.
    T &value() & {
        if (!value_) detail::fail(error_);
        return *value_;
    }
    T value() && {
        if (!value_) detail::fail(error_);
        return std::move(*value_);
    }

  private:
    std::unique_ptr<T> value_;
    sae_error error_;
};

// Success, or why not.
template <> class [[nodiscard]] result<void> {
  public:
    result() : error_{} {}
    result(const sae_error &details) : error_(details) {}
    explicit operator bool() const noexcept { return error_.code == SAE_STATUS_OK; }
    sae_status code() const noexcept { return error_.code; }
    const char *message() const noexcept { return error_.message; }
    const sae_error &details() const noexcept { return error_; }
    void value() const {
        if (error_.code != SAE_STATUS_OK) detail::fail(error_);
    }

  private:
    sae_error error_;
};

namespace detail {

template <typename T, void (*release)(T *)> struct releaser {
    void operator()(T *handle) const noexcept { release(handle); }
};

template <typename T, void (*release)(T *)>
using owner = std::unique_ptr<T, releaser<T, release>>;

// Runs a C function that ends with a sae_error.
template <typename Call> result<void> run(Call call) {
    sae_error details;
    if (call(&details) == SAE_STATUS_OK) return {};
    return details;
}

} // namespace detail

class model;
class lorsa;
class molt;

// A batch of activation rows of the caller, which are only read.
class rows {
  public:
    // Contiguous or strided f32 rows; stride_bytes 0 is contiguous.
    rows(const float *data, std::size_t n_rows, std::size_t width, std::size_t stride_bytes = 0)
        : rows(data, SAE_DTYPE_F32, n_rows, width, stride_bytes) {}
    // Rows in any format.
    rows(const void *data, sae_dtype dtype, std::size_t n_rows, std::size_t width,
         std::size_t stride_bytes = 0)
        : rows_{data, dtype, 0, n_rows, width, stride_bytes} {}
    // What worker `ith` of `nth` takes; no rows if `ith` is not below `nth`.
    rows part(std::size_t ith, std::size_t nth) const noexcept {
        rows out = *this;
        if (sae_rows_part(&rows_, ith, nth, &out.rows_, nullptr, nullptr) != SAE_STATUS_OK)
            out.rows_.n_rows = 0;
        return out;
    }
    const sae_rows *c() const noexcept { return &rows_; }
    std::size_t n_rows() const noexcept { return rows_.n_rows; }

  private:
    sae_rows rows_;
};

// One feature that fired.
struct feature {
    std::uint32_t index;
    float value;
};

// The features of one row, in place: valid until the features are filled again.
class row_features {
  public:
    explicit row_features(const sae_row_features &row) : row_(row) {}
    span<const std::uint32_t> indices() const { return {row_.indices, row_.count}; }
    span<const float> values() const { return {row_.values, row_.count}; }
    std::size_t size() const noexcept { return row_.count; }
    // One of SAE_ROW_...
    sae_row_status status() const noexcept { return row_.status; }
    feature operator[](std::size_t i) const { return {row_.indices[i], row_.values[i]}; }

    class iterator {
      public:
        iterator(const row_features *row, std::size_t at) : row_(row), at_(at) {}
        feature operator*() const { return (*row_)[at_]; }
        iterator &operator++() {
            ++at_;
            return *this;
        }
        bool operator!=(const iterator &other) const { return at_ != other.at_; }
        bool operator==(const iterator &other) const { return at_ == other.at_; }

      private:
        const row_features *row_;
        std::size_t at_;
    };
    iterator begin() const { return {this, 0}; }
    iterator end() const { return {this, row_.count}; }

  private:
    sae_row_features row_;
};

// The features that fired in a batch of rows.
class features {
  public:
    static result<features> try_create(std::size_t n_rows = 0, std::size_t n_features = 0) {
        sae_features *handle = nullptr;
        sae_error details;
        if (sae_features_create(n_rows, n_features, &handle, &details) != SAE_STATUS_OK)
            return details;
        return features(handle);
    }
    result<row_features> try_row(std::size_t row) const {
        sae_row_features found;
        sae_error details;
        if (sae_features_row(c(), row, &found, &details) != SAE_STATUS_OK) return details;
        return row_features(found);
    }
    result<void> try_append_row(span<const std::uint32_t> indices, span<const float> values) {
        const std::size_t count = indices.size() < values.size() ? indices.size() : values.size();
        return detail::run([&](sae_error *e) {
            return sae_features_append_row(c(), indices.data(), values.data(), count, e);
        });
    }
    void clear() noexcept { sae_features_clear(c(), nullptr); }
    std::size_t n_rows() const noexcept { return sae_features_n_rows(c()); }
    std::size_t count() const noexcept { return sae_features_count(c()); }
    std::size_t failed_rows() const noexcept { return sae_features_failed_rows(c()); }
#if SAE_EXCEPTIONS
    explicit features(std::size_t n_rows = 0, std::size_t n_features = 0)
        : features(try_create(n_rows, n_features).value()) {}
    row_features row(std::size_t row) const { return try_row(row).value(); }
    void append_row(span<const std::uint32_t> indices, span<const float> values) {
        try_append_row(indices, values).value();
    }
#endif
    sae_features *c() const noexcept { return handle_.get(); }

  private:
    explicit features(sae_features *handle) : handle_(handle) {}
    detail::owner<sae_features, sae_features_destroy> handle_;
};

// The work space of one thread for one model.
class scratch {
  public:
    static result<scratch> try_create(const model &model);
    // In memory of the caller, of `model::scratch_size` bytes.
    static result<scratch> try_create_in(const model &model, void *memory, std::size_t n_bytes);
    static result<scratch> try_create(const lorsa &lorsa);
#if SAE_EXCEPTIONS
    explicit scratch(const model &model) : scratch(try_create(model).value()) {}
    scratch(const model &model, void *memory, std::size_t n_bytes)
        : scratch(try_create_in(model, memory, n_bytes).value()) {}
    explicit scratch(const lorsa &lorsa) : scratch(try_create(lorsa).value()) {}
#endif
    sae_scratch *c() const noexcept { return handle_.get(); }

  private:
    explicit scratch(sae_scratch *handle) : handle_(handle) {}
    detail::owner<sae_scratch, sae_scratch_destroy> handle_;
};

// Features compiled for readout.
class set {
  public:
    static result<set> try_compile(const model &model, span<const std::uint32_t> features);
    static result<set> try_compile(const molt &molt, span<const std::uint32_t> features);
#if SAE_EXCEPTIONS
    set(const model &model, span<const std::uint32_t> features)
        : set(try_compile(model, features).value()) {}
    set(const molt &molt, span<const std::uint32_t> features)
        : set(try_compile(molt, features).value()) {}
#endif
    std::size_t size() const noexcept { return sae_set_count(c()); }
    sae_set *c() const noexcept { return handle_.get(); }

  private:
    explicit set(sae_set *handle) : handle_(handle) {}
    detail::owner<sae_set, sae_set_destroy> handle_;
};

// What features are said to mean, in words: the table of one explanation export.
class labels {
  public:
    static result<labels> try_open(const std::string &path) {
        sae_labels *handle = nullptr;
        sae_error details;
        if (sae_labels_open(path.c_str(), &handle, &details) != SAE_STATUS_OK) return details;
        return labels(handle);
    }
    // From the bytes of a file, which may be freed afterwards.
    static result<labels> try_open(span<const std::uint8_t> bytes) {
        sae_labels *handle = nullptr;
        sae_error details;
        if (sae_labels_open_memory(bytes.data(), bytes.size(), &handle, &details) != SAE_STATUS_OK)
            return details;
        return labels(handle);
    }
#if SAE_EXCEPTIONS
    explicit labels(const std::string &path) : labels(try_open(path).value()) {}
#endif
    // Labels of all features together, and of one.
    std::size_t size() const noexcept { return sae_labels_count(c()); }
    std::size_t count_of(std::uint32_t feature) const noexcept {
        return sae_labels_count_of(c(), feature);
    }
    // Label `number` of a feature and who wrote it; null if there is none.
    const char *text(std::uint32_t feature, std::size_t number = 0) const noexcept {
        return sae_labels_text(c(), feature, number);
    }
    const char *explainer(std::uint32_t feature, std::size_t number = 0) const noexcept {
        return sae_labels_explainer(c(), feature, number);
    }
    // What the export says of a feature's values; NAN for what it does not say.
    result<sae_observed> try_observed(std::uint32_t feature) const {
        sae_observed observed{};
        observed.struct_size = sizeof observed;
        sae_error details;
        if (sae_labels_observed(c(), feature, &observed, &details) != SAE_STATUS_OK)
            return details;
        return observed;
    }
#if SAE_EXCEPTIONS
    sae_observed observed(std::uint32_t feature) const { return try_observed(feature).value(); }
#endif
    sae_labels *c() const noexcept { return handle_.get(); }

  private:
    explicit labels(sae_labels *handle) : handle_(handle) {}
    detail::owner<sae_labels, sae_labels_close> handle_;
};

// Counts how well a model fits the rows that it is fed.
class fit_check {
  public:
    static result<fit_check> try_create(const model &model);
    // `targets` may be nullptr unless input and output are two sites.
    result<void> try_add(const model &model, const rows &rows, const sae::rows *targets,
                         scratch &scratch);
    result<sae_fit> try_get() const {
        sae_fit fit{};
        fit.struct_size = sizeof fit;
        sae_error details;
        if (sae_fit_check_result(c(), &fit, &details) != SAE_STATUS_OK) return details;
        return fit;
    }
#if SAE_EXCEPTIONS
    explicit fit_check(const model &model) : fit_check(try_create(model).value()) {}
    void add(const model &model, const rows &rows, const sae::rows *targets, scratch &scratch) {
        try_add(model, rows, targets, scratch).value();
    }
    sae_fit get() const { return try_get().value(); }
#endif
    sae_fit_check *c() const noexcept { return handle_.get(); }

  private:
    explicit fit_check(sae_fit_check *handle) : handle_(handle) {}
    detail::owner<sae_fit_check, sae_fit_check_destroy> handle_;
};

// Scratches and parts for several threads: one row on all of them.
class workers {
  public:
    static result<workers> try_create(const model &model, std::size_t count);
#if SAE_EXCEPTIONS
    workers(const model &model, std::size_t count) : workers(try_create(model, count).value()) {}
#endif
    sae_workers *c() const noexcept { return handle_.get(); }

  private:
    explicit workers(sae_workers *handle) : handle_(handle) {}
    detail::owner<sae_workers, sae_workers_destroy> handle_;
};

// Plans compiled for a model.
class plan {
  public:
    // JSON texts, at least one.
    static result<plan> try_compile(const model &model, span<const char *const> texts,
                                    sae_conflicts conflicts = SAE_CONFLICTS_REFUSE);
    // With the statistics of labels, for strengths relative to a maximum or a mean.
    static result<plan> try_compile(const model &model, span<const char *const> texts,
                                    const labels &labels,
                                    sae_conflicts conflicts = SAE_CONFLICTS_REFUSE);
#if SAE_EXCEPTIONS
    plan(const model &model, span<const char *const> texts, const labels &labels,
         sae_conflicts conflicts = SAE_CONFLICTS_REFUSE)
        : plan(try_compile(model, texts, labels, conflicts).value()) {}
    plan(const model &model, span<const char *const> texts,
         sae_conflicts conflicts = SAE_CONFLICTS_REFUSE)
        : plan(try_compile(model, texts, conflicts).value()) {}
    plan(const model &model, const char *text)
        : plan(try_compile(model, span<const char *const>(&text, 1)).value()) {}
#endif
    std::size_t size() const noexcept { return sae_plan_count(c()); }
    sae_plan *c() const noexcept { return handle_.get(); }

  private:
    explicit plan(sae_plan *handle) : handle_(handle) {}
    detail::owner<sae_plan, sae_plan_destroy> handle_;
};

// A plan in the making; start edits with SAE_EDIT_INIT.
class plan_builder {
  public:
    static result<plan_builder> try_create(const std::string &name = "") {
        sae_plan_builder *handle = nullptr;
        sae_error details;
        if (sae_plan_builder_create(name.c_str(), &handle, &details) != SAE_STATUS_OK)
            return details;
        return plan_builder(handle);
    }
    result<void> try_edit(const sae_edit &edit) {
        return detail::run([&](sae_error *e) { return sae_plan_builder_edit(c(), &edit, e); });
    }
    // A vector of d_out values for edits to name; divided by its length if `normalize`.
    result<void> try_direction(const std::string &name, span<const float> values,
                               bool normalize = false) {
        return detail::run([&](sae_error *e) {
            return sae_plan_builder_direction(c(), name.c_str(), values.data(), values.size(),
                                              normalize ? 1 : 0, e);
        });
    }
    // What relative strengths refer to; NAN for what is not known.
    result<void> try_statistics(std::uint32_t feature, double max, double mean, double deviation) {
        return detail::run([&](sae_error *e) {
            return sae_plan_builder_statistics(c(), feature, max, mean, deviation, e);
        });
    }
    // One of the plan's other keys, with its value in JSON.
    result<void> try_set(const std::string &key, const std::string &value) {
        return detail::run([&](sae_error *e) {
            return sae_plan_builder_set(c(), key.c_str(), value.c_str(), e);
        });
    }
    // The plan as JSON text.
    result<std::string> try_text() const {
        std::size_t size = 0;
        sae_error details;
        if (sae_plan_builder_write(c(), nullptr, 0, &size, &details) != SAE_STATUS_OK)
            return details;
        std::string text(size, '\0');
        if (sae_plan_builder_write(c(), text.data(), size, nullptr, &details) != SAE_STATUS_OK)
            return details;
        text.pop_back();
        return text;
    }
#if SAE_EXCEPTIONS
    explicit plan_builder(const std::string &name = "") : plan_builder(try_create(name).value()) {}
    void edit(const sae_edit &edit) { try_edit(edit).value(); }
    void direction(const std::string &name, span<const float> values, bool normalize = false) {
        try_direction(name, values, normalize).value();
    }
    void statistics(std::uint32_t feature, double max, double mean, double deviation) {
        try_statistics(feature, max, mean, deviation).value();
    }
    void set(const std::string &key, const std::string &value) { try_set(key, value).value(); }
    std::string text() const { return try_text().value(); }
#endif
    sae_plan_builder *c() const noexcept { return handle_.get(); }

  private:
    explicit plan_builder(sae_plan_builder *handle) : handle_(handle) {}
    detail::owner<sae_plan_builder, sae_plan_builder_destroy> handle_;
};

// What a steering vector is made of.
class decomposition {
  public:
    // `pursuit` may be nullptr: orthogonal, signed, 16 steps. Lists the `most` features that the
    // vector points along, and as many against.
    static result<decomposition> try_create(const model &model, span<const float> vector,
                                            const sae_pursuit *pursuit = nullptr,
                                            std::size_t most = 8);
#if SAE_EXCEPTIONS
    decomposition(const model &model, span<const float> vector,
                  const sae_pursuit *pursuit = nullptr, std::size_t most = 8)
        : decomposition(try_create(model, vector, pursuit, most).value()) {}
#endif
    sae_decomposed summary() const noexcept {
        sae_decomposed result{};
        result.struct_size = sizeof result;
        sae_decomposition_result(c(), &result, nullptr);
        return result;
    }
    // The features that it is made of, the longest first.
    std::vector<sae_vector_part> parts() const {
        std::vector<sae_vector_part> parts(summary().n_parts);
        sae_decomposition_parts(c(), parts.data(), parts.size(), nullptr);
        return parts;
    }
    std::vector<sae_projection> along() const {
        std::vector<sae_projection> list(summary().n_along);
        sae_decomposition_along(c(), list.data(), list.size(), nullptr);
        return list;
    }
    std::vector<sae_projection> against() const {
        std::vector<sae_projection> list(summary().n_against);
        sae_decomposition_against(c(), list.data(), list.size(), nullptr);
        return list;
    }
    // A plan that adds the parts to every row, as JSON text.
    std::string plan_text(const std::string &name = "") const {
        std::size_t size = 0;
        sae_decomposition_write_plan(c(), name.c_str(), nullptr, 0, &size, nullptr);
        std::string text(size, '\0');
        sae_decomposition_write_plan(c(), name.c_str(), text.data(), size, nullptr, nullptr);
        if (!text.empty()) text.pop_back();
        return text;
    }
    sae_decomposition *c() const noexcept { return handle_.get(); }

  private:
    explicit decomposition(sae_decomposition *handle) : handle_(handle) {}
    detail::owner<sae_decomposition, sae_decomposition_destroy> handle_;
};

// The work space of one thread for one model and its plans; also counts what was done.
class steer_scratch {
  public:
    static result<steer_scratch> try_create(const model &model, const plan &plan);
#if SAE_EXCEPTIONS
    steer_scratch(const model &model, const plan &plan)
        : steer_scratch(try_create(model, plan).value()) {}
#endif
    // Rows that had an outcome, one of SAE_OUTCOME_...
    std::uint64_t count(sae_outcome outcome) const noexcept {
        return sae_steer_scratch_count(c(), outcome);
    }
    result<sae_audit> try_audit(std::size_t index) const {
        sae_audit audit{};
        audit.struct_size = sizeof audit;
        sae_error details;
        if (sae_steer_scratch_audit(c(), index, &audit, &details) != SAE_STATUS_OK) return details;
        return audit;
    }
#if SAE_EXCEPTIONS
    sae_audit audit(std::size_t index) const { return try_audit(index).value(); }
#endif
    sae_steer_scratch *c() const noexcept { return handle_.get(); }

  private:
    explicit steer_scratch(sae_steer_scratch *handle) : handle_(handle) {}
    detail::owner<sae_steer_scratch, sae_steer_scratch_destroy> handle_;
};

// How to open a model.
struct open_options {
    bool full_check = false;
    bool strict = false;
    // An instruction set by name; empty for the best.
    std::string level;
    // "key=value": what the checkpoint does not say.
    std::vector<std::string> settings;
    // "auto", "proven", "dithered" or "none"; empty for "auto".
    std::string screen;
    // For "dithered": the exponent of delta (0: 64) and the seed (0: from the weights).
    std::uint32_t screen_delta_exponent = 0;
    std::uint64_t screen_seed = 0;
    // Compare every encode with the dense scan.
    bool screen_check = false;
};

namespace detail {
// The C form of the options, as long as they live.
struct c_options {
    explicit c_options(const open_options &from) {
        for (const std::string &setting : from.settings) settings.push_back(setting.c_str());
        options.check = from.full_check ? SAE_CHECK_FULL : SAE_CHECK_QUICK;
        options.strict = from.strict ? 1 : 0;
        options.level = from.level.empty() ? nullptr : from.level.c_str();
        options.settings = settings.data();
        options.n_settings = settings.size();
        options.screen = from.screen.empty() ? nullptr : from.screen.c_str();
        options.screen_delta_exponent = from.screen_delta_exponent;
        options.screen_seed = from.screen_seed;
        options.screen_check = from.screen_check ? 1 : 0;
    }
    std::vector<const char *> settings;
    sae_open_options options = SAE_OPEN_OPTIONS_INIT;
};

// A status span has one entry for each row.
inline result<void> wrong_status() {
    sae_error details{};
    details.code = SAE_STATUS_LENGTH;
    const char message[] = "`status`: expected one entry for each row";
    details.message_length = sizeof message - 1;
    for (std::size_t i = 0; i < sizeof message; i++) details.message[i] = message[i];
    return details;
}

// Opens through `open`, which takes options, a place for the handle and an error.
template <typename Handle, typename Open>
result<Handle *> opened(const open_options &options, Open open) {
    const c_options c(options);
    Handle *handle = nullptr;
    sae_error details;
    if (open(&c.options, &handle, &details) != SAE_STATUS_OK) return details;
    return handle;
}
} // namespace detail

// How much each feature contributes to reconstructions.
class importance {
  public:
    static result<importance> try_create(const model &model);
    result<void> try_add(const features &features) {
        return detail::run(
            [&](sae_error *e) { return sae_importance_add(c(), features.c(), e); });
    }
    // All d_sae features, the most important first.
    result<void> try_order(span<std::uint32_t> order) const {
        return detail::run([&](sae_error *e) {
            return sae_importance_order(c(), order.data(), order.size(), e);
        });
    }
#if SAE_EXCEPTIONS
    explicit importance(const model &model) : importance(try_create(model).value()) {}
    void add(const features &features) { try_add(features).value(); }
    void order(span<std::uint32_t> order) const { try_order(order).value(); }
#endif
    sae_importance *c() const noexcept { return handle_.get(); }

  private:
    explicit importance(sae_importance *handle) : handle_(handle) {}
    detail::owner<sae_importance, sae_importance_destroy> handle_;
};

// The work space for selection over a batch.
class batch {
  public:
    static result<batch> try_create(const model &model, sae_batch_rule rule, std::size_t budget,
                                    std::size_t n_rows);
#if SAE_EXCEPTIONS
    batch(const model &model, sae_batch_rule rule, std::size_t budget, std::size_t n_rows)
        : batch(try_create(model, rule, budget, n_rows).value()) {}
#endif
    sae_batch *c() const noexcept { return handle_.get(); }

  private:
    explicit batch(sae_batch *handle) : handle_(handle) {}
    detail::owner<sae_batch, sae_batch_destroy> handle_;
};

// What a cross-layer transcoder has written for the layers to come.
class layer_stream {
  public:
    static result<layer_stream> try_create(const model &model, std::size_t n_rows);
    result<void> try_restart(std::size_t n_rows) {
        return detail::run(
            [&](sae_error *e) { return sae_layer_stream_restart(c(), n_rows, e); });
    }
#if SAE_EXCEPTIONS
    layer_stream(const model &model, std::size_t n_rows)
        : layer_stream(try_create(model, n_rows).value()) {}
    void restart(std::size_t n_rows) { try_restart(n_rows).value(); }
#endif
    sae_layer_stream *c() const noexcept { return handle_.get(); }

  private:
    explicit layer_stream(sae_layer_stream *handle) : handle_(handle) {}
    detail::owner<sae_layer_stream, sae_layer_stream_destroy> handle_;
};

// An open SAE.
class model {
  public:
    static result<model> try_open(const std::string &path, const open_options &options = {}) {
        return made(detail::opened<sae_model>(
            options, [&](const sae_open_options *o, sae_model **out, sae_error *e) {
                return sae_model_open(path.c_str(), o, out, e);
            }));
    }
    // The bytes of a file, used in place: they must outlive the model. `config` may be nullptr.
    static result<model> try_open_memory(const void *bytes, std::size_t n_bytes,
                                         const std::string &name = "", const char *config = nullptr,
                                         const open_options &options = {}) {
        return made(detail::opened<sae_model>(
            options, [&](const sae_open_options *o, sae_model **out, sae_error *e) {
                return sae_model_open_memory(bytes, n_bytes, name.empty() ? nullptr : name.c_str(),
                                             config, o, out, e);
            }));
    }
    result<void> try_prepare() {
        return detail::run([&](sae_error *e) { return sae_model_prepare(c(), e); });
    }
    // Whether the model has every feature that is labelled.
    result<void> try_check_labels(const labels &labels) const {
        return detail::run(
            [&](sae_error *e) { return sae_model_check_labels(c(), labels.c(), e); });
    }
    result<sae_prepare_cost> try_prepare_cost() const {
        sae_prepare_cost cost{};
        cost.struct_size = sizeof cost;
        sae_error details;
        if (sae_model_prepare_cost(c(), &cost, &details) != SAE_STATUS_OK) return details;
        return cost;
    }
    result<sae_site> try_site() const {
        sae_site site{};
        site.struct_size = sizeof site;
        sae_error details;
        if (sae_model_site(c(), &site, &details) != SAE_STATUS_OK) return details;
        return site;
    }
    // Everything that is known about the model, as JSON.
    result<std::string> try_describe() const {
        std::size_t size = 0;
        sae_error details;
        if (sae_model_describe(c(), nullptr, 0, &size, &details) != SAE_STATUS_OK) return details;
        std::string text(size, '\0');
        if (sae_model_describe(c(), &text[0], size, nullptr, &details) != SAE_STATUS_OK)
            return details;
        text.resize(size - 1);
        return text;
    }
    result<std::size_t> try_scratch_size() const {
        std::size_t size = 0;
        sae_error details;
        if (sae_scratch_size(c(), &size, &details) != SAE_STATUS_OK) return details;
        return size;
    }
    result<void> try_encode(const rows &rows, scratch &scratch, features &features) const {
        return detail::run([&](sae_error *e) {
            return sae_model_encode(c(), rows.c(), scratch.c(), features.c(), e);
        });
    }
    // `infos` has one entry for each row.
    result<void> try_encode(const rows &rows, span<const sae_row_info> infos, scratch &scratch,
                            features &features) const {
        return detail::run([&](sae_error *e) {
            return sae_model_encode_with(c(), rows.c(), infos.data(), infos.size(), scratch.c(),
                                         features.c(), e);
        });
    }
    // On the caller's threads: `parallel_for(count, task)` calls task(i) once for each i below
    // count, on any threads, and returns when all have returned. It must not throw.
    template <typename ParallelFor>
    result<void> try_encode(const rows &rows, workers &workers, ParallelFor &&parallel_for,
                            features &features) const {
        using Host = typename std::remove_reference<ParallelFor>::type;
        const sae_parallel_for run = [](void *host, std::size_t count, sae_task task, void *data) {
            (*static_cast<Host *>(host))(count, [=](std::size_t i) { task(data, i); });
        };
        return detail::run([&](sae_error *e) {
            return sae_model_encode_parallel(c(), rows.c(), run,
                                             const_cast<void *>(static_cast<const void *>(
                                                 std::addressof(parallel_for))),
                                             workers.c(), features.c(), e);
        });
    }
    // Edits rows of width d_out in place. `batch.rows` is filled in here.
    // What steering a row with a plan, JSON text, would cost.
    result<sae_plan_cost> try_plan_cost(const std::string &text) const {
        sae_plan_cost cost{};
        cost.struct_size = sizeof cost;
        sae_error details;
        if (sae_model_plan_cost(c(), text.c_str(), &cost, &details) != SAE_STATUS_OK)
            return details;
        return cost;
    }
    // The vector that the plans add to every row, if that is all they do.
    result<std::vector<float>> try_plan_vector(const plan &plan) const {
        std::vector<float> values(d_out());
        sae_error details;
        if (sae_model_plan_vector(c(), plan.c(), values.data(), values.size(), &details) !=
            SAE_STATUS_OK)
            return details;
        return values;
    }
    result<void> try_steer(const plan &plan, const sae_rows_mut &rows, steer_scratch &scratch,
                           sae_steer_batch batch = {}) const {
        batch.struct_size = sizeof batch;
        batch.rows = &rows;
        return detail::run([&](sae_error *e) {
            return sae_model_steer(c(), plan.c(), &batch, scratch.c(), e);
        });
    }
    // `inputs` may be nullptr unless decode_needs_inputs().
    result<void> try_decode(const features &features, const rows *inputs, scratch &scratch,
                            span<float> out) const {
        return detail::run([&](sae_error *e) {
            return sae_model_decode(c(), features.c(), inputs ? inputs->c() : nullptr, scratch.c(),
                                    out.data(), out.size(), e);
        });
    }
    // `status` is empty or has one entry for each row.
    result<void> try_readout(const set &set, const rows &rows, scratch &scratch,
                             span<float> values, span<sae_row_status> status = {}) const {
        if (auto wrong = wrong_status(rows, status); !wrong) return wrong;
        return detail::run([&](sae_error *e) {
            return sae_model_readout(c(), set.c(), rows.c(), scratch.c(), values.data(),
                                     values.size(), status.empty() ? nullptr : status.data(), e);
        });
    }
    // `infos` has one entry for each row; rows of SAE_STAGE_SKIPPED are left out.
    result<void> try_readout(const set &set, const rows &rows, span<const sae_row_info> infos,
                             scratch &scratch, span<float> values,
                             span<sae_row_status> status = {}) const {
        if (auto wrong = wrong_status(rows, status); !wrong) return wrong;
        return detail::run([&](sae_error *e) {
            return sae_model_readout_with(c(), set.c(), rows.c(), infos.data(), infos.size(),
                                          scratch.c(), values.data(), values.size(),
                                          status.empty() ? nullptr : status.data(), e);
        });
    }
    result<void> try_readout_one(std::uint32_t feature, const rows &rows, scratch &scratch,
                                 span<float> values, span<sae_row_status> status = {}) const {
        if (auto wrong = wrong_status(rows, status); !wrong) return wrong;
        return detail::run([&](sae_error *e) {
            return sae_model_readout_one(c(), feature, rows.c(), scratch.c(), values.data(),
                                         values.size(), status.empty() ? nullptr : status.data(),
                                         e);
        });
    }

    // Derived models: they share the weights and may outlive this one.
    result<model> try_with_k(std::size_t k) const {
        return derived([&](sae_model **d, sae_error *e) { return sae_model_with_k(c(), k, d, e); });
    }
    result<model> try_with_top_k(std::size_t k) const {
        return derived(
            [&](sae_model **d, sae_error *e) { return sae_model_with_top_k(c(), k, d, e); });
    }
    result<model> try_with_threshold(float threshold) const {
        return derived([&](sae_model **d, sae_error *e) {
            return sae_model_with_threshold(c(), threshold, d, e);
        });
    }
    // d_sae weights; none to rank by the values.
    result<model> try_with_rank_weights(span<const double> weights) const {
        return derived([&](sae_model **d, sae_error *e) {
            return sae_model_with_rank_weights(c(), weights.data(), weights.size(), d, e);
        });
    }
    result<model> try_with_prefix(std::size_t count) const {
        return derived(
            [&](sae_model **d, sae_error *e) { return sae_model_with_prefix(c(), count, d, e); });
    }
    result<model> try_with_range(std::size_t first, std::size_t count) const {
        return derived([&](sae_model **d, sae_error *e) {
            return sae_model_with_range(c(), first, count, d, e);
        });
    }
    result<model> try_with_features(span<const std::uint32_t> features) const {
        return derived([&](sae_model **d, sae_error *e) {
            return sae_model_with_features(c(), features.data(), features.size(), d, e);
        });
    }
    // Made of SAE_PURSUIT_INIT(steps).
    result<model> try_with_pursuit(const sae_pursuit &pursuit) const {
        return derived([&](sae_model **d, sae_error *e) {
            return sae_model_with_pursuit(c(), &pursuit, d, e);
        });
    }
    // One model made of several: SAE_ENSEMBLE_BAG or SAE_ENSEMBLE_CHAIN.
    static result<model> try_ensemble(span<const model *const> members, sae_ensemble_kind kind) {
        const std::vector<const sae_model *> handles = handles_of(members);
        return derived([&](sae_model **d, sae_error *e) {
            return sae_ensemble_create(handles.data(), handles.size(), kind, d, e);
        });
    }
    // One model of which a router picks one member for each row. `vectors` has d_in numbers for each
    // member, `center` d_in or none.
    static result<model> try_routed(span<const model *const> members, span<const float> vectors,
                                    span<const double> center, bool weighs) {
        const std::vector<const sae_model *> handles = handles_of(members);
        return derived([&](sae_model **d, sae_error *e) {
            return sae_ensemble_create_routed(handles.data(), handles.size(), vectors.data(),
                                              vectors.size(), center.data(), center.size(),
                                              weighs ? 1 : 0, d, e);
        });
    }
    result<void> try_encode_batch(const rows &rows, batch &batch, scratch &scratch,
                                  features &features) const {
        return detail::run([&](sae_error *e) {
            return sae_model_encode_batch(c(), rows.c(), batch.c(), scratch.c(), features.c(), e);
        });
    }
    // Rows whose sites lie apart: one C struct for each of input_sites(), as `rows::c` gives.
    result<void> try_encode_sites(span<const sae_rows> sites, scratch &scratch,
                                  features &features) const {
        return detail::run([&](sae_error *e) {
            return sae_model_encode_sites(c(), sites.data(), sites.size(), scratch.c(),
                                          features.c(), e);
        });
    }
    // `status` has one entry for each row.
    result<void> try_readout_sites(const set &set, span<const sae_rows> sites, scratch &scratch,
                                   span<float> values, span<sae_row_status> status) const {
        const std::size_t n_rows = sites.empty() ? 0 : sites[0].n_rows;
        if (status.size() != n_rows) return detail::wrong_status();
        return detail::run([&](sae_error *e) {
            return sae_model_readout_sites(c(), set.c(), sites.data(), sites.size(), scratch.c(),
                                           values.data(), values.size(), status.data(), e);
        });
    }
    // `sites` may be empty unless decode_needs_inputs().
    result<void> try_decode_sites(const features &features, span<const sae_rows> sites,
                                  scratch &scratch, span<float> out) const {
        return detail::run([&](sae_error *e) {
            return sae_model_decode_sites(c(), features.c(), sites.data(), sites.size(),
                                          scratch.c(), out.data(), out.size(), e);
        });
    }
    // Cross-layer transcoders, layer by layer.
    result<void> try_encode_layer(layer_stream &stream, std::size_t layer, const rows &rows,
                                  scratch &scratch, features &features) const {
        return detail::run([&](sae_error *e) {
            return sae_model_encode_layer(c(), stream.c(), layer, rows.c(), scratch.c(),
                                          features.c(), e);
        });
    }
    // `inputs` may be nullptr unless decode_needs_inputs().
    result<void> try_decode_layer(layer_stream &stream, std::size_t layer, const rows *inputs,
                                  scratch &scratch, span<float> out) const {
        return detail::run([&](sae_error *e) {
            return sae_model_decode_layer(c(), stream.c(), layer, inputs ? inputs->c() : nullptr,
                                          scratch.c(), out.data(), out.size(), e);
        });
    }
    // First feature of a layer, and how many it has.
    std::pair<std::uint32_t, std::uint32_t> layer_features(std::size_t layer) const noexcept {
        std::pair<std::uint32_t, std::uint32_t> found{0, 0};
        sae_model_layer_features(c(), layer, &found.first, &found.second, nullptr);
        return found;
    }
    std::size_t input_sites() const noexcept { return sae_model_input_sites(c()); }
    std::size_t output_sites() const noexcept { return sae_model_output_sites(c()); }

    std::size_t d_in() const noexcept { return sae_model_d_in(c()); }
    std::size_t d_sae() const noexcept { return sae_model_d_sae(c()); }
    std::size_t d_out() const noexcept { return sae_model_d_out(c()); }
    bool decode_needs_inputs() const noexcept { return sae_model_decode_needs_inputs(c()) != 0; }
    const char *level() const noexcept { return sae_model_level(c()); }
    const char *text(sae_text item) const noexcept { return sae_model_text(c(), item); }

#if SAE_EXCEPTIONS
    static model open(const std::string &path, const open_options &options = {}) {
        return try_open(path, options).value();
    }
    static model open_memory(const void *bytes, std::size_t n_bytes, const std::string &name = "",
                             const char *config = nullptr, const open_options &options = {}) {
        return try_open_memory(bytes, n_bytes, name, config, options).value();
    }
    void prepare() { try_prepare().value(); }
    sae_prepare_cost prepare_cost() const { return try_prepare_cost().value(); }
    sae_site site() const { return try_site().value(); }
    std::string describe() const { return try_describe().value(); }
    std::size_t scratch_size() const { return try_scratch_size().value(); }
    void encode(const rows &rows, scratch &scratch, features &features) const {
        try_encode(rows, scratch, features).value();
    }
    void encode(const rows &rows, span<const sae_row_info> infos, scratch &scratch,
                features &features) const {
        try_encode(rows, infos, scratch, features).value();
    }
    template <typename ParallelFor>
    void encode(const rows &rows, workers &workers, ParallelFor &&parallel_for,
                features &features) const {
        try_encode(rows, workers, std::forward<ParallelFor>(parallel_for), features).value();
    }
    sae_plan_cost plan_cost(const std::string &text) const { return try_plan_cost(text).value(); }
    std::vector<float> plan_vector(const plan &plan) const { return try_plan_vector(plan).value(); }
    void steer(const plan &plan, const sae_rows_mut &rows, steer_scratch &scratch,
               const sae_steer_batch &batch = {}) const {
        try_steer(plan, rows, scratch, batch).value();
    }
    void decode(const features &features, const rows *inputs, scratch &scratch,
                span<float> out) const {
        try_decode(features, inputs, scratch, out).value();
    }
    void readout(const set &set, const rows &rows, scratch &scratch, span<float> values,
                 span<sae_row_status> status = {}) const {
        try_readout(set, rows, scratch, values, status).value();
    }
    void readout(const set &set, const rows &rows, span<const sae_row_info> infos,
                 scratch &scratch, span<float> values, span<sae_row_status> status = {}) const {
        try_readout(set, rows, infos, scratch, values, status).value();
    }
    void readout_one(std::uint32_t feature, const rows &rows, scratch &scratch,
                     span<float> values, span<sae_row_status> status = {}) const {
        try_readout_one(feature, rows, scratch, values, status).value();
    }
    model with_k(std::size_t k) const { return try_with_k(k).value(); }
    model with_top_k(std::size_t k) const { return try_with_top_k(k).value(); }
    model with_threshold(float threshold) const { return try_with_threshold(threshold).value(); }
    model with_rank_weights(span<const double> weights) const {
        return try_with_rank_weights(weights).value();
    }
    model with_prefix(std::size_t count) const { return try_with_prefix(count).value(); }
    model with_range(std::size_t first, std::size_t count) const {
        return try_with_range(first, count).value();
    }
    model with_features(span<const std::uint32_t> features) const {
        return try_with_features(features).value();
    }
    model with_pursuit(const sae_pursuit &pursuit) const {
        return try_with_pursuit(pursuit).value();
    }
    static model ensemble(span<const model *const> members, sae_ensemble_kind kind) {
        return try_ensemble(members, kind).value();
    }
    static model routed(span<const model *const> members, span<const float> vectors,
                        span<const double> center, bool weighs) {
        return try_routed(members, vectors, center, weighs).value();
    }
    void encode_batch(const rows &rows, batch &batch, scratch &scratch, features &features) const {
        try_encode_batch(rows, batch, scratch, features).value();
    }
    void encode_sites(span<const sae_rows> sites, scratch &scratch, features &features) const {
        try_encode_sites(sites, scratch, features).value();
    }
    void readout_sites(const set &set, span<const sae_rows> sites, scratch &scratch,
                       span<float> values, span<sae_row_status> status) const {
        try_readout_sites(set, sites, scratch, values, status).value();
    }
    void decode_sites(const features &features, span<const sae_rows> sites, scratch &scratch,
                      span<float> out) const {
        try_decode_sites(features, sites, scratch, out).value();
    }
    void encode_layer(layer_stream &stream, std::size_t layer, const rows &rows, scratch &scratch,
                      features &features) const {
        try_encode_layer(stream, layer, rows, scratch, features).value();
    }
    void decode_layer(layer_stream &stream, std::size_t layer, const rows *inputs,
                      scratch &scratch, span<float> out) const {
        try_decode_layer(stream, layer, inputs, scratch, out).value();
    }
#endif
    sae_model *c() const noexcept { return handle_.get(); }

  private:
    explicit model(sae_model *handle) : handle_(handle) {}
    static result<model> made(result<sae_model *> opened) {
        if (!opened) return opened.details();
        return model(opened.value());
    }

    template <typename Make> static result<model> derived(Make make) {
        sae_model *handle = nullptr;
        sae_error details;
        if (make(&handle, &details) != SAE_STATUS_OK) return details;
        return model(handle);
    }

    static std::vector<const sae_model *> handles_of(span<const model *const> members) {
        std::vector<const sae_model *> handles;
        for (const model *member : members) handles.push_back(member ? member->c() : nullptr);
        return handles;
    }

    // A status span of another length than the rows would be written beyond its end.
    static result<void> wrong_status(const rows &rows, span<sae_row_status> status) {
        if (status.empty() || status.size() == rows.n_rows()) return {};
        return detail::wrong_status();
    }

    detail::owner<sae_model, sae_model_close> handle_;
};

inline result<importance> importance::try_create(const model &model) {
    sae_importance *handle = nullptr;
    sae_error details;
    if (sae_importance_create(model.c(), &handle, &details) != SAE_STATUS_OK) return details;
    return importance(handle);
}

inline result<batch> batch::try_create(const model &model, sae_batch_rule rule, std::size_t budget,
                                       std::size_t n_rows) {
    sae_batch *handle = nullptr;
    sae_error details;
    if (sae_batch_create(model.c(), rule, budget, n_rows, &handle, &details) != SAE_STATUS_OK)
        return details;
    return batch(handle);
}

inline result<layer_stream> layer_stream::try_create(const model &model, std::size_t n_rows) {
    sae_layer_stream *handle = nullptr;
    sae_error details;
    if (sae_layer_stream_create(model.c(), n_rows, &handle, &details) != SAE_STATUS_OK)
        return details;
    return layer_stream(handle);
}

inline result<scratch> scratch::try_create(const model &model) {
    sae_scratch *handle = nullptr;
    sae_error details;
    if (sae_scratch_create(model.c(), &handle, &details) != SAE_STATUS_OK) return details;
    return scratch(handle);
}

inline result<workers> workers::try_create(const model &model, std::size_t count) {
    sae_workers *handle = nullptr;
    sae_error details;
    if (sae_workers_create(model.c(), count, &handle, &details) != SAE_STATUS_OK) return details;
    return workers(handle);
}

inline result<plan> plan::try_compile(const model &model, span<const char *const> texts,
                                      sae_conflicts conflicts) {
    sae_plan *handle = nullptr;
    sae_error details;
    if (sae_plan_compile(model.c(), texts.data(), texts.size(), conflicts, &handle, &details) !=
        SAE_STATUS_OK)
        return details;
    return plan(handle);
}

inline result<plan> plan::try_compile(const model &model, span<const char *const> texts,
                                      const labels &labels, sae_conflicts conflicts) {
    sae_plan *handle = nullptr;
    sae_error details;
    if (sae_plan_compile_with_labels(model.c(), texts.data(), texts.size(), conflicts, labels.c(),
                                     &handle, &details) != SAE_STATUS_OK)
        return details;
    return plan(handle);
}

inline result<decomposition> decomposition::try_create(const model &model,
                                                       span<const float> vector,
                                                       const sae_pursuit *pursuit,
                                                       std::size_t most) {
    sae_decomposition *handle = nullptr;
    sae_error details;
    if (sae_model_decompose(model.c(), vector.data(), vector.size(), pursuit, most, &handle,
                            &details) != SAE_STATUS_OK)
        return details;
    return decomposition(handle);
}

inline result<steer_scratch> steer_scratch::try_create(const model &model, const plan &plan) {
    sae_steer_scratch *handle = nullptr;
    sae_error details;
    if (sae_steer_scratch_create(model.c(), plan.c(), &handle, &details) != SAE_STATUS_OK)
        return details;
    return steer_scratch(handle);
}

inline result<fit_check> fit_check::try_create(const model &model) {
    sae_fit_check *handle = nullptr;
    sae_error details;
    if (sae_fit_check_create(model.c(), &handle, &details) != SAE_STATUS_OK) return details;
    return fit_check(handle);
}

inline result<void> fit_check::try_add(const model &model, const rows &rows,
                                       const sae::rows *targets, scratch &scratch) {
    return detail::run([&](sae_error *e) {
        return sae_model_check_fit(model.c(), c(), rows.c(), targets ? targets->c() : nullptr,
                                   scratch.c(), e);
    });
}

inline result<scratch> scratch::try_create_in(const model &model, void *memory,
                                              std::size_t n_bytes) {
    sae_scratch *handle = nullptr;
    sae_error details;
    if (sae_scratch_create_in(model.c(), memory, n_bytes, &handle, &details) != SAE_STATUS_OK)
        return details;
    return scratch(handle);
}

inline result<set> set::try_compile(const model &model, span<const std::uint32_t> features) {
    sae_set *handle = nullptr;
    sae_error details;
    if (sae_set_compile(model.c(), features.data(), features.size(), &handle, &details) !=
        SAE_STATUS_OK)
        return details;
    return set(handle);
}

// What the rows of one sequence leave for later ones.
class lorsa_cache {
  public:
    static result<lorsa_cache> try_create(const lorsa &lorsa, std::size_t n_rows);
    // Forgets all rows from this one on.
    result<void> try_truncate(std::size_t length) {
        return detail::run(
            [&](sae_error *e) { return sae_lorsa_cache_truncate(c(), length, e); });
    }
    std::size_t length() const noexcept { return sae_lorsa_cache_length(c()); }
#if SAE_EXCEPTIONS
    lorsa_cache(const lorsa &lorsa, std::size_t n_rows)
        : lorsa_cache(try_create(lorsa, n_rows).value()) {}
    void truncate(std::size_t length) { try_truncate(length).value(); }
#endif
    sae_lorsa_cache *c() const noexcept { return handle_.get(); }

  private:
    explicit lorsa_cache(sae_lorsa_cache *handle) : handle_(handle) {}
    detail::owner<sae_lorsa_cache, sae_lorsa_cache_destroy> handle_;
};

// Low-rank sparse attention: features that look at the rows before.
class lorsa {
  public:
    static result<lorsa> try_open(const std::string &path, const open_options &options = {}) {
        return made(detail::opened<sae_lorsa>(
            options, [&](const sae_open_options *o, sae_lorsa **out, sae_error *e) {
                return sae_lorsa_open(path.c_str(), o, out, e);
            }));
    }
    // The bytes of a file, used in place: they must outlive it. `config` may be nullptr.
    static result<lorsa> try_open_memory(const void *bytes, std::size_t n_bytes,
                                         const std::string &name = "", const char *config = nullptr,
                                         const open_options &options = {}) {
        return made(detail::opened<sae_lorsa>(
            options, [&](const sae_open_options *o, sae_lorsa **out, sae_error *e) {
                return sae_lorsa_open_memory(bytes, n_bytes, name.empty() ? nullptr : name.c_str(),
                                             config, o, out, e);
            }));
    }
    result<lorsa> try_with_k(std::size_t k) const {
        sae_lorsa *handle = nullptr;
        sae_error details;
        if (sae_lorsa_with_k(c(), k, &handle, &details) != SAE_STATUS_OK) return details;
        return lorsa(handle);
    }
    result<void> try_encode(const rows &rows, lorsa_cache &cache, scratch &scratch,
                            features &features) const {
        return detail::run([&](sae_error *e) {
            return sae_lorsa_encode(c(), rows.c(), cache.c(), scratch.c(), features.c(), e);
        });
    }
    // `status` has one entry for each row.
    result<void> try_readout(span<const std::uint32_t> wanted, const rows &rows,
                             lorsa_cache &cache, scratch &scratch, span<float> values,
                             span<sae_row_status> status) const {
        if (status.size() != rows.n_rows()) return detail::wrong_status();
        return detail::run([&](sae_error *e) {
            return sae_lorsa_readout(c(), wanted.data(), wanted.size(), rows.c(), cache.c(),
                                     scratch.c(), values.data(), values.size(), status.data(), e);
        });
    }
    result<void> try_decode(const features &features, scratch &scratch, span<float> out) const {
        return detail::run([&](sae_error *e) {
            return sae_lorsa_decode(c(), features.c(), scratch.c(), out.data(), out.size(), e);
        });
    }
    std::size_t d_in() const noexcept { return sae_lorsa_d_in(c()); }
    std::size_t d_sae() const noexcept { return sae_lorsa_d_sae(c()); }
    std::size_t d_out() const noexcept { return sae_lorsa_d_out(c()); }
    const char *level() const noexcept { return sae_lorsa_level(c()); }
#if SAE_EXCEPTIONS
    static lorsa open(const std::string &path, const open_options &options = {}) {
        return try_open(path, options).value();
    }
    static lorsa open_memory(const void *bytes, std::size_t n_bytes, const std::string &name = "",
                             const char *config = nullptr, const open_options &options = {}) {
        return try_open_memory(bytes, n_bytes, name, config, options).value();
    }
    lorsa with_k(std::size_t k) const { return try_with_k(k).value(); }
    void encode(const rows &rows, lorsa_cache &cache, scratch &scratch, features &features) const {
        try_encode(rows, cache, scratch, features).value();
    }
    void readout(span<const std::uint32_t> wanted, const rows &rows, lorsa_cache &cache,
                 scratch &scratch, span<float> values, span<sae_row_status> status) const {
        try_readout(wanted, rows, cache, scratch, values, status).value();
    }
    void decode(const features &features, scratch &scratch, span<float> out) const {
        try_decode(features, scratch, out).value();
    }
#endif
    sae_lorsa *c() const noexcept { return handle_.get(); }

  private:
    explicit lorsa(sae_lorsa *handle) : handle_(handle) {}
    static result<lorsa> made(result<sae_lorsa *> opened) {
        if (!opened) return opened.details();
        return lorsa(opened.value());
    }
    detail::owner<sae_lorsa, sae_lorsa_close> handle_;
};

// The work space of one thread for one mixture of transforms.
class molt_scratch {
  public:
    static result<molt_scratch> try_create(const molt &molt);
#if SAE_EXCEPTIONS
    explicit molt_scratch(const molt &molt) : molt_scratch(try_create(molt).value()) {}
#endif
    sae_molt_scratch *c() const noexcept { return handle_.get(); }

  private:
    explicit molt_scratch(sae_molt_scratch *handle) : handle_(handle) {}
    detail::owner<sae_molt_scratch, sae_molt_scratch_destroy> handle_;
};

// A mixture of linear transforms, whose decoding reads the row.
class molt {
  public:
    static result<molt> try_open(const std::string &path, const open_options &options = {}) {
        return made(detail::opened<sae_molt>(
            options, [&](const sae_open_options *o, sae_molt **out, sae_error *e) {
                return sae_molt_open(path.c_str(), o, out, e);
            }));
    }
    // The bytes of a file, used in place: they must outlive it. `config` may be nullptr.
    static result<molt> try_open_memory(const void *bytes, std::size_t n_bytes,
                                        const std::string &name = "", const char *config = nullptr,
                                        const open_options &options = {}) {
        return made(detail::opened<sae_molt>(
            options, [&](const sae_open_options *o, sae_molt **out, sae_error *e) {
                return sae_molt_open_memory(bytes, n_bytes, name.empty() ? nullptr : name.c_str(),
                                            config, o, out, e);
            }));
    }
    result<molt> try_with_k(std::size_t k) const {
        sae_molt *handle = nullptr;
        sae_error details;
        if (sae_molt_with_k(c(), k, &handle, &details) != SAE_STATUS_OK) return details;
        return molt(handle);
    }
    result<void> try_encode(const rows &rows, molt_scratch &scratch, features &features) const {
        return detail::run([&](sae_error *e) {
            return sae_molt_encode(c(), rows.c(), scratch.c(), features.c(), e);
        });
    }
    // `status` has one entry for each row.
    result<void> try_readout(const set &set, const rows &rows, molt_scratch &scratch,
                             span<float> values, span<sae_row_status> status) const {
        if (status.size() != rows.n_rows()) return detail::wrong_status();
        return detail::run([&](sae_error *e) {
            return sae_molt_readout(c(), set.c(), rows.c(), scratch.c(), values.data(),
                                    values.size(), status.data(), e);
        });
    }
    // `inputs` are the rows that were encoded.
    result<void> try_decode(const features &features, const rows &inputs, molt_scratch &scratch,
                            span<float> out) const {
        return detail::run([&](sae_error *e) {
            return sae_molt_decode(c(), features.c(), inputs.c(), scratch.c(), out.data(),
                                   out.size(), e);
        });
    }
    std::size_t d_in() const noexcept { return sae_molt_d_in(c()); }
    std::size_t d_sae() const noexcept { return sae_molt_d_sae(c()); }
    std::size_t d_out() const noexcept { return sae_molt_d_out(c()); }
    const char *level() const noexcept { return sae_molt_level(c()); }
#if SAE_EXCEPTIONS
    static molt open(const std::string &path, const open_options &options = {}) {
        return try_open(path, options).value();
    }
    static molt open_memory(const void *bytes, std::size_t n_bytes, const std::string &name = "",
                            const char *config = nullptr, const open_options &options = {}) {
        return try_open_memory(bytes, n_bytes, name, config, options).value();
    }
    molt with_k(std::size_t k) const { return try_with_k(k).value(); }
    void encode(const rows &rows, molt_scratch &scratch, features &features) const {
        try_encode(rows, scratch, features).value();
    }
    void readout(const set &set, const rows &rows, molt_scratch &scratch, span<float> values,
                 span<sae_row_status> status) const {
        try_readout(set, rows, scratch, values, status).value();
    }
    void decode(const features &features, const rows &inputs, molt_scratch &scratch,
                span<float> out) const {
        try_decode(features, inputs, scratch, out).value();
    }
#endif
    sae_molt *c() const noexcept { return handle_.get(); }

  private:
    explicit molt(sae_molt *handle) : handle_(handle) {}
    static result<molt> made(result<sae_molt *> opened) {
        if (!opened) return opened.details();
        return molt(opened.value());
    }
    detail::owner<sae_molt, sae_molt_close> handle_;
};

inline result<lorsa_cache> lorsa_cache::try_create(const lorsa &lorsa, std::size_t n_rows) {
    sae_lorsa_cache *handle = nullptr;
    sae_error details;
    if (sae_lorsa_cache_create(lorsa.c(), n_rows, &handle, &details) != SAE_STATUS_OK)
        return details;
    return lorsa_cache(handle);
}

inline result<molt_scratch> molt_scratch::try_create(const molt &molt) {
    sae_molt_scratch *handle = nullptr;
    sae_error details;
    if (sae_molt_scratch_create(molt.c(), &handle, &details) != SAE_STATUS_OK) return details;
    return molt_scratch(handle);
}

inline result<scratch> scratch::try_create(const lorsa &lorsa) {
    sae_scratch *handle = nullptr;
    sae_error details;
    if (sae_lorsa_scratch_create(lorsa.c(), &handle, &details) != SAE_STATUS_OK) return details;
    return scratch(handle);
}

inline result<set> set::try_compile(const molt &molt, span<const std::uint32_t> features) {
    sae_set *handle = nullptr;
    sae_error details;
    if (sae_molt_set_compile(molt.c(), features.data(), features.size(), &handle, &details) !=
        SAE_STATUS_OK)
        return details;
    return set(handle);
}

} // namespace sae

#endif // SAE_HPP
