// A language model run by llama.cpp, with the features of a sparse autoencoder for every token.
//
//     llama_features MODEL.gguf SAE... [OPTIONS]
//
//       --prompt TEXT        what to begin with ["The quick brown fox"]
//       --ids 1,2,3          token numbers instead, for models without a vocabulary
//       --tokens N           tokens to generate [16]; models that only encode generate none
//       --top N              features to show for each token, strongest first [3]
//       --hook NAME          where the SAE reads [what its checkpoint says], as
//                            blocks.12.hook_resid_post or l_out-12; one for each SAE
//       --hook-out NAME      where a transcoder writes, likewise; one for each SAE
//       --labels FILE        descriptions of features, as Neuronpedia exports them
//       --rules RULES.json   watch features of the first SAE and print alerts as they come
//       --steer PLAN.json    edit the rows of the first SAE with a plan
//       --against OTHER.gguf run the prompt through another file of the same language model too, as
//                            another quantisation, and report what changes
//       --threads N          threads of llama.cpp [its default]
//       --no-check           do not check that the SAE fits the place
//
// The prompt is run twice: first to check that each SAE reconstructs the rows of its place better
// than those beside it, then for the features. A prompt below 32 tokens is too short for the check.
#include "sae_ggml.h"
#include "sae_monitor.hpp"

#include "llama.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

namespace {

[[noreturn]] void fail(const std::string &what) {
    std::fprintf(stderr, "llama_features: %s\n", what.c_str());
    std::exit(1);
}

void check(sae_status status, const sae_error &error, const std::string &about = "") {
    if (status != SAE_STATUS_OK) fail((about.empty() ? "" : about + ": ") + error.message);
}

// The value, or the end with the reason.
template <typename T> T take(sae::result<T> result, const std::string &about = "") {
    check(result.code(), result.details(), about);
    return std::move(result).value();
}

std::string read_file(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) fail("cannot read " + path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

struct options {
    std::string model, against, prompt = "The quick brown fox", labels, steer, rules;
    std::vector<std::string> saes, hooks, hooks_out;
    std::vector<llama_token> ids;
    int tokens = 16, top = 3, threads = 0;
    bool check = true;
};

int number(const std::string &option, const char *text) {
    char *end = nullptr;
    long value = std::strtol(text, &end, 10);
    if (end == text || *end != 0 || value < 0 || value > 1000000)
        fail("`" + option + "` takes a number, not `" + text + "`");
    return static_cast<int>(value);
}

options read_options(int argc, char **argv) {
    options out;
    for (int i = 1; i < argc; i++) {
        std::string arg = argv[i];
        if (arg == "--help" || arg == "-h") {
            std::puts("usage: llama_features MODEL.gguf SAE... [--prompt TEXT | --ids 1,2,3] "
                      "[--tokens N]\n         [--top N] [--hook NAME]... [--hook-out NAME]... "
                      "[--labels FILE]\n         [--rules RULES.json] [--steer PLAN.json] "
                      "[--against OTHER.gguf] [--threads N] [--no-check]");
            std::exit(0);
        }
        if (arg == "--no-check") {
            out.check = false;
            continue;
        }
        if (arg.rfind("--", 0) != 0) {
            if (out.model.empty())
                out.model = arg;
            else
                out.saes.push_back(arg);
            continue;
        }
        if (i + 1 == argc) fail("`" + arg + "` needs a value");
        const char *value = argv[++i];
        if (arg == "--prompt") {
            out.prompt = value;
        } else if (arg == "--ids") {
            std::stringstream list(value);
            for (std::string one; std::getline(list, one, ',');)
                out.ids.push_back(number(arg, one.c_str()));
        } else if (arg == "--tokens") {
            out.tokens = number(arg, value);
        } else if (arg == "--top") {
            out.top = number(arg, value);
        } else if (arg == "--threads") {
            out.threads = number(arg, value);
        } else if (arg == "--hook") {
            out.hooks.push_back(value);
        } else if (arg == "--hook-out") {
            out.hooks_out.push_back(value);
        } else if (arg == "--labels") {
            out.labels = value;
        } else if (arg == "--rules") {
            out.rules = value;
        } else if (arg == "--steer") {
            out.steer = value;
        } else if (arg == "--against") {
            out.against = value;
        } else {
            fail("unknown option `" + arg + "`; --help lists them");
        }
    }
    if (out.saes.empty()) fail("give a model and at least one SAE; --help says how");
    if (std::max(out.hooks.size(), out.hooks_out.size()) > out.saes.size()) fail("more hooks than SAEs");
    return out;
}

// A text of a file, made harmless for a terminal.
std::string one_line(std::string text) {
    for (char &c : text)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
    return text;
}

// The first description of a feature with a space before it; "" if there is none.
std::string label_of(const sae_labels *labels, uint32_t feature) {
    const char *text = labels == nullptr ? nullptr : sae_labels_text(labels, feature, 0);
    return text == nullptr ? "" : " " + one_line(text);
}

// Rules at work on the rows of one SAE, and the alerts that are not printed yet.
class watcher {
  public:
    watcher(const sae::model &model, const std::string &path)
        : model_(model), rules_(take(sae::rules::try_compile(model, read_file(path)), path)),
          scratch_(take(sae::scratch::try_create(model))),
          monitor_(take(sae::monitor::try_create(model, rules_, hear()), path)) {}
    // The monitor calls this object.
    watcher(const watcher &) = delete;
    watcher &operator=(const watcher &) = delete;

    // Reads no more of the SAE than the features that the rules name.
    void watch(const sae_rows *rows, size_t number, size_t position) {
        const size_t bytes = rows->stride_bytes != 0
                                 ? rows->stride_bytes
                                 : rows->width * (rows->dtype == SAE_DTYPE_F32 ? 4 : 2);
        const void *data = static_cast<const char *>(rows->data) + number * bytes;
        const sae::rows row(data, rows->dtype, 1, rows->width, bytes);
        sae_monitor_row info{};
        info.position = position;
        const auto done = monitor_.try_observe(model_, row, {&info, 1}, scratch_);
        check(done.code(), done.details());
    }

    // Prints the alerts at a position.
    void print(size_t position, const sae_labels *labels) const {
        for (const sae_event &event : alerts_) {
            if (event.position != position) continue;
            std::printf("%16s  %s, score %.2f:", "ALERT", rules_.name(event.rule),
                        event.score);
            for (uint32_t i = 0; i < event.n_contributions; i++) {
                const sae_contribution &one = event.contributions[i];
                const char *own = rules_.label(one.feature);
                std::printf("  %u %.2f%s", one.feature, static_cast<double>(one.value),
                            own != nullptr ? (" " + one_line(own)).c_str()
                                           : label_of(labels, one.feature).c_str());
            }
            std::printf("\n");
        }
    }

    void print_counts() const {
        const sae_monitor_counts counts = take(monitor_.try_count());
        std::printf("\nwatched %llu rows, %llu bytes of weights each: %llu alerts\n",
                    static_cast<unsigned long long>(counts.rows),
                    static_cast<unsigned long long>(rules_.bytes_per_row()),
                    static_cast<unsigned long long>(counts.events));
        for (size_t i = 0; i < rules_.size(); i++)
            std::printf("  %s: %llu\n", rules_.name(i),
                        static_cast<unsigned long long>(monitor_.rule_events(i)));
    }

  private:
    sae::monitor_options hear() {
        sae::monitor_options options;
        options.on_event = [this](const sae_event &event) { alerts_.push_back(event); };
        return options;
    }

    const sae::model &model_;
    // Of a server, a ring (`sae::event_ring`) that another thread reads.
    std::vector<sae_event> alerts_;
    sae::rules rules_;
    sae::scratch scratch_;
    sae::monitor monitor_;
};

// One SAE, and what was found with it: for each token the features that fired.
struct reader {
    std::string path, hook, hook_out;
    std::optional<sae::model> sae;
    std::vector<std::map<uint32_t, float>> rows;
    // Watches its rows; NULL: nobody does.
    watcher *watch = nullptr;
    // Of the batch that runs: the position of its first token, and which tokens mean little.
    size_t first = 0;
    std::vector<bool> skipped;

    static void on_rows(const sae_ggml_event *event, void *data) {
        auto &self = *static_cast<reader *>(data);
        sae_error error;
        for (size_t r = 0; r < event->rows->n_rows; r++) {
            sae_row_features row;
            check(sae_features_row(event->features, r, &row, &error), error);
            std::map<uint32_t, float> fired;
            for (size_t i = 0; i < row.count; i++) fired[row.indices[i]] = row.values[i];
            self.rows.push_back(fired);
            const size_t token = event->tokens != nullptr ? event->tokens[r] : event->first_row + r;
            if (self.watch != nullptr && !self.skipped[token])
                self.watch->watch(event->rows, r, self.first + token);
        }
    }
};

// A language model with the SAEs hooked into it.
class session {
  public:
    session(const std::string &path, const options &about, std::vector<reader> &readers)
        : about_(about), readers_(readers) {
        llama_model_params params = llama_model_default_params();
        model_ = llama_model_load_from_file(path.c_str(), params);
        if (model_ == nullptr) fail("llama.cpp cannot load " + path);
        vocab_ = llama_model_get_vocab(model_);
        named_ = llama_vocab_type(vocab_) != LLAMA_VOCAB_TYPE_NONE;
        char name[128];
        if (llama_model_meta_val_str(model_, "general.architecture", name, sizeof name) < 0)
            fail(path + " does not say its architecture");
        architecture_ = name;
        // Models that only encode (BERT) give no next token.
        encodes_ = architecture_.find("bert") != std::string::npos;
    }
    ~session() {
        close();
        llama_model_free(model_);
    }
    session(const session &) = delete;
    session &operator=(const session &) = delete;

    bool encodes() const { return encodes_; }

    std::vector<llama_token> tokenize() const {
        if (!about_.ids.empty()) {
            for (llama_token id : about_.ids)
                if (id >= llama_vocab_n_tokens(vocab_)) fail("a token number is too large");
            return about_.ids;
        }
        if (!named_) fail("this model has no vocabulary: give --ids instead of a prompt");
        std::vector<llama_token> tokens(about_.prompt.size() + 8);
        int n = llama_tokenize(vocab_, about_.prompt.data(),
                               static_cast<int32_t>(about_.prompt.size()), tokens.data(),
                               static_cast<int32_t>(tokens.size()), true, true);
        if (n <= 0) fail("the prompt has no tokens");
        tokens.resize(static_cast<size_t>(n));
        return tokens;
    }

    std::string piece(llama_token token) const {
        if (!named_) return std::to_string(token);
        char text[256];
        int n = llama_token_to_piece(vocab_, token, text, sizeof text, 0, true);
        std::string out(text, n > 0 ? static_cast<size_t>(n) : 0);
        for (char &c : out)
            if (c == '\n' || c == '\r' || c == '\t') c = ' ';
        return out;
    }

    // Opens a context whose hook has a tap for each SAE. `fit_rows` 0: features. Else: fit checks.
    void open(size_t n_tokens, size_t fit_rows, const sae_plan *plan) {
        close();
        sae_error error;
        check(sae_ggml_hook_create(&hook_, &error), error);
        for (reader &one : readers_) {
            sae_ggml_tap tap = sae_ggml_tap_of(one.sae->c());
            check(sae_ggml_site_find(one.hook.c_str(), architecture_.c_str(),
                                     llama_model_n_layer(model_), &tap.site, &error),
                  error, one.path);
            if (!one.hook_out.empty())
                check(sae_ggml_site_find(one.hook_out.c_str(), architecture_.c_str(),
                                         llama_model_n_layer(model_), &tap.site_out, &error),
                      error, one.path);
            tap.encode = 1;
            tap.on_rows = reader::on_rows;
            tap.data = &one;
            tap.fit_rows = fit_rows;
            tap.plan = &one == &readers_.front() ? plan : nullptr;
            check(sae_ggml_hook_add(hook_, &tap, nullptr, &error), error, one.path);
        }
        llama_context_params params = llama_context_default_params();
        params.n_ctx = static_cast<uint32_t>(n_tokens) + 8;
        params.n_batch = params.n_ubatch = params.n_ctx;
        if (about_.threads > 0) params.n_threads = params.n_threads_batch = about_.threads;
        params.embeddings = encodes_;
        params.cb_eval = sae_ggml_eval;
        params.cb_eval_user_data = hook_;
        context_ = llama_init_from_model(model_, params);
        if (context_ == nullptr) fail("llama.cpp cannot make a context");
    }

    // Runs tokens from position `first` on. False with the reason if a tap failed.
    bool run(const std::vector<llama_token> &tokens, size_t first, sae_error *error) {
        llama_batch batch = llama_batch_init(static_cast<int32_t>(tokens.size()), 0, 1);
        batch.n_tokens = static_cast<int32_t>(tokens.size());
        std::vector<sae_row_info> infos(tokens.size());
        std::vector<bool> skipped(tokens.size());
        for (size_t i = 0; i < tokens.size(); i++) {
            batch.token[i] = tokens[i];
            batch.pos[i] = static_cast<llama_pos>(first + i);
            batch.n_seq_id[i] = 1;
            batch.seq_id[i][0] = 0;
            // Every row of every block is wanted.
            batch.logits[i] = 1;
            std::memset(&infos[i], 0, sizeof infos[i]);
            infos[i].position = static_cast<uint32_t>(first + i);
            infos[i].plan = SAE_ALL_PLANS;
            infos[i].factor = 1;
            infos[i].last = i + 1 == tokens.size();
            infos[i].stage = first == 0 ? SAE_STAGE_PROMPT : SAE_STAGE_GENERATION;
            // SAEs are seldom trained on BOS and the like, and there they mean little.
            skipped[i] = named_ && llama_vocab_is_control(vocab_, tokens[i]);
            if (skipped[i]) infos[i].stage = SAE_STAGE_SKIPPED;
        }
        for (reader &one : readers_) {
            one.first = first;
            one.skipped = skipped;
        }
        sae_ggml_batch about{};
        about.n_tokens = tokens.size();
        about.outputs = batch.logits;
        about.infos = infos.data();
        sae_ggml_begin(hook_, &about);
        int status = encodes_ ? llama_encode(context_, batch) : llama_decode(context_, batch);
        llama_batch_free(batch);
        if (status != 0) fail("llama.cpp failed with " + std::to_string(status));
        return sae_ggml_end(hook_, error) == SAE_STATUS_OK;
    }

    // Checks that every SAE fits its place, and prints what was found.
    void check_fit(const std::vector<llama_token> &tokens) {
        if (tokens.size() < 33) {
            std::printf("(the prompt is too short to check that the SAE fits: %zu tokens)\n\n",
                        tokens.size());
            return;
        }
        // BOS is left out.
        open(tokens.size(), std::min<size_t>(64, tokens.size() - 2), nullptr);
        sae_error error;
        bool fits = run(tokens, 0, &error);
        for (size_t i = 0; i < readers_.size(); i++) {
            char text[2048];
            sae_ggml_fit_text(hook_, i, text, sizeof text);
            std::printf("%s\n%s\n", readers_[i].path.c_str(), text);
        }
        if (!fits) fail(std::string(error.message) + " (--no-check goes on all the same)");
    }

    llama_token next() const {
        const float *logits = llama_get_logits_ith(context_, -1);
        const float *end = logits + llama_vocab_n_tokens(vocab_);
        return static_cast<llama_token>(std::max_element(logits, end) - logits);
    }
    bool ends(llama_token token) const { return named_ && llama_vocab_is_eog(vocab_, token); }
    const sae_ggml_hook *hook() const { return hook_; }

  private:
    void close() {
        if (context_ != nullptr) llama_free(context_);
        sae_ggml_hook_destroy(hook_);
        context_ = nullptr;
        hook_ = nullptr;
    }

    const options &about_;
    std::vector<reader> &readers_;
    llama_model *model_ = nullptr;
    const llama_vocab *vocab_ = nullptr;
    std::string architecture_;
    bool named_ = false, encodes_ = false;
    llama_context *context_ = nullptr;
    sae_ggml_hook *hook_ = nullptr;
};

void print_rows(const session &lm, const std::vector<llama_token> &tokens,
                const std::vector<reader> &readers, size_t first, const options &about,
                const sae_labels *labels) {
    for (size_t row = first; row < tokens.size(); row++) {
        std::printf("%16s", lm.piece(tokens[row]).c_str());
        for (const reader &one : readers) {
            if (row >= one.rows.size()) continue;
            std::vector<std::pair<uint32_t, float>> fired(one.rows[row].begin(),
                                                          one.rows[row].end());
            std::sort(fired.begin(), fired.end(),
                      [](const auto &a, const auto &b) { return a.second > b.second; });
            std::printf("  %3zu fire:", fired.size());
            for (size_t i = 0; i < fired.size() && i < static_cast<size_t>(about.top); i++) {
                std::printf("  %u %.2f", fired[i].first, static_cast<double>(fired[i].second));
                std::printf("%s", label_of(labels, fired[i].first).c_str());
            }
        }
        std::printf("\n");
        for (const reader &one : readers)
            if (one.watch != nullptr) one.watch->print(row, labels);
    }
    std::fflush(stdout);
}

// Runs the prompt through another file of the same language model and says what changes.
void compare(const options &about, std::vector<reader> &readers,
             const std::vector<llama_token> &tokens) {
    std::vector<std::vector<std::map<uint32_t, float>>> before;
    std::vector<sae_fit> fits[2];
    for (reader &one : readers) before.push_back(one.rows);
    for (int side = 0; side < 2; side++) {
        session lm(side == 0 ? about.model : about.against, about, readers);
        if (lm.tokenize() != tokens) fail(about.against + " has another vocabulary");
        for (reader &one : readers) one.rows.clear();
        // Taps that only check, and wait for more rows than there are: the numbers are wanted, not
        // a verdict.
        lm.open(tokens.size(), tokens.size() + 1, nullptr);
        sae_error error;
        if (!lm.run(tokens, 0, &error)) fail(error.message);
        for (size_t i = 0; i < readers.size(); i++) {
            sae_fit fit{};
            fit.struct_size = sizeof fit;
            check(sae_ggml_fit(lm.hook(), i, &fit, &error), error);
            fits[side].push_back(fit);
        }
        if (side == 1) {
            lm.open(tokens.size(), 0, nullptr);
            if (!lm.run(tokens, 0, &error)) fail(error.message);
        }
    }
    std::printf("\n%s against %s, %zu tokens\n", about.model.c_str(), about.against.c_str(),
                tokens.size());
    std::printf("%-28s %10s %10s %10s %10s %9s %9s\n", "hook", "fire", "on only", "off only",
                "flipped", "FVU", "FVU there");
    for (size_t i = 0; i < readers.size(); i++) {
        size_t on = 0, only = 0, missing = 0;
        for (size_t row = 0; row < before[i].size() && row < readers[i].rows.size(); row++) {
            const auto &a = before[i][row], &b = readers[i].rows[row];
            on += a.size();
            for (const auto &[feature, value] : a) only += b.count(feature) == 0;
            for (const auto &[feature, value] : b) missing += a.count(feature) == 0;
        }
        const double share =
            on == 0 ? 0 : 50.0 * static_cast<double>(only + missing) / static_cast<double>(on);
        std::printf("%-28s %10zu %10zu %10zu %9.2f%% %9.4f %9.4f\n", readers[i].hook.c_str(), on,
                    only, missing, share, fits[0][i].fvu, fits[1][i].fvu);
    }
    std::printf("\nflipped: features that fire in one only, as a share of those that fire. FVU: "
                "fraction of\nvariance unexplained by the SAE. A large rise means that features of "
                "the second file say\nless.\n");
}

} // namespace

int main(int argc, char **argv) {
    const options about = read_options(argc, argv);
    llama_log_set(
        [](ggml_log_level level, const char *text, void *) {
            if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
        },
        nullptr);
    llama_backend_init();

    sae_error error;
    std::vector<reader> readers(about.saes.size());
    for (size_t i = 0; i < readers.size(); i++) {
        reader &one = readers[i];
        one.path = about.saes[i];
        one.sae = take(sae::model::try_open(one.path));
        one.hook = i < about.hooks.size() ? about.hooks[i]
                                          : sae_model_text(one.sae->c(), SAE_TEXT_HOOK_NAME);
        one.hook_out = i < about.hooks_out.size()
                           ? about.hooks_out[i]
                           : sae_model_text(one.sae->c(), SAE_TEXT_HOOK_NAME_OUT);
        if (one.hook.empty()) fail(one.path + " does not say where it reads: give --hook");
    }
    std::optional<sae::labels> labels;
    if (!about.labels.empty()) {
        labels = take(sae::labels::try_open(about.labels));
        const auto fit = readers[0].sae->try_check_labels(*labels);
        check(fit.code(), fit.details(), about.labels);
    }
    const sae_labels *table = labels ? labels->c() : nullptr;
    std::unique_ptr<watcher> watch;
    if (!about.rules.empty()) watch.reset(new watcher(*readers[0].sae, about.rules));
    std::optional<sae::plan> plan;
    if (!about.steer.empty()) {
        const std::string text = read_file(about.steer);
        const char *texts = text.c_str();
        const sae::span<const char *const> list(&texts, 1);
        // Strengths may be multiples of the maxima that the labels know.
        plan = take(labels ? sae::plan::try_compile(*readers[0].sae, list, *labels)
                           : sae::plan::try_compile(*readers[0].sae, list),
                    about.steer);
    }

    std::vector<llama_token> prompt;
    {
        session lm(about.model, about, readers);
        std::vector<llama_token> tokens = prompt = lm.tokenize();
        if (about.check) lm.check_fit(tokens);
        readers[0].watch = watch.get();
        const bool generates = !lm.encodes() && about.against.empty();
        lm.open(tokens.size() + static_cast<size_t>(about.tokens), 0, plan ? plan->c() : nullptr);
        if (!lm.run(tokens, 0, &error)) fail(error.message);
        print_rows(lm, tokens, readers, 0, about, table);
        for (int i = 0; generates && i < about.tokens; i++) {
            llama_token token = lm.next();
            if (lm.ends(token)) break;
            tokens.push_back(token);
            if (!lm.run({token}, tokens.size() - 1, &error)) fail(error.message);
            print_rows(lm, tokens, readers, tokens.size() - 1, about, table);
        }
        if (watch) watch->print_counts();
        // The same rows are not watched twice.
        readers[0].watch = nullptr;
        if (plan) {
            const sae_steer_scratch *steered = sae_ggml_steered(lm.hook(), 0);
            sae_audit audit{};
            audit.struct_size = sizeof audit;
            check(sae_steer_scratch_audit(steered, 0, &audit, &error), error);
            std::printf("\nsteered %llu rows, which moved by %.2f%% on average, %.2f%% at most\n",
                        static_cast<unsigned long long>(audit.rows), 100 * audit.mean_relative,
                        100 * audit.max_relative);
        }
    }
    if (!about.against.empty()) compare(about, readers, prompt);
    readers.clear();
    llama_backend_free();
    return 0;
}
