// What a hook costs per generated token.
//
//     bench dump MODEL.gguf HOOK OUT.npy       rows, for making an SAE that fires on them
//     bench cost MODEL.gguf HOOK SAE [TOKENS]  the table
//
// Every variant generates in a context of its own, in turns, so that a disturbance of the machine
// meets all of them. The time inside of the callback is measured apart from the token's; reading the
// clock around every question takes time itself, which is measured and taken off.
#include "host.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

using clock_type = std::chrono::steady_clock;

// A host's pool of one more thread, which sleeps between calls.
class pool {
  public:
    pool() : thread_([this] { loop(); }) {}
    ~pool() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            task_ = nullptr;
            state_ = 2;
        }
        wake_.notify_one();
        thread_.join();
    }
    static void run(void *host, size_t count, sae_task task, void *data) {
        auto &self = *static_cast<pool *>(host);
        CHECK(count == 2);
        {
            std::lock_guard<std::mutex> lock(self.mutex_);
            self.task_ = task;
            self.data_ = data;
            self.done_.store(false, std::memory_order_relaxed);
            self.state_ = 1;
        }
        self.wake_.notify_one();
        task(data, 0);
        while (!self.done_.load(std::memory_order_acquire)) {
        }
    }

  private:
    void loop() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [this] { return state_ != 0; });
            if (state_ == 2) return;
            state_ = 0;
            task_(data_, 1);
            done_.store(true, std::memory_order_release);
        }
    }
    std::mutex mutex_;
    std::condition_variable wake_;
    sae_task task_ = nullptr;
    void *data_ = nullptr;
    int state_ = 0;
    std::atomic<bool> done_{false};
    std::thread thread_;
};

struct variant {
    const char *name;
    pool *threads = nullptr;
    const sae_model *sae = nullptr;
    bool encode = false;
    const sae_set *set = nullptr;
    const sae_plan *plan = nullptr;
    bool callback = true;
    sae_ggml_hook *hook = nullptr;
    llama_context *context = nullptr;
    double inside = 0; // microseconds of the token that runs
    size_t calls = 0;
    std::vector<double> tokens, insides;
    size_t fired = 0;

    static bool eval(ggml_tensor *t, bool ask, void *data) {
        auto &self = *static_cast<variant *>(data);
        auto start = clock_type::now();
        bool answer = sae_ggml_eval(t, ask, self.hook);
        self.calls++;
        self.inside += std::chrono::duration<double, std::micro>(clock_type::now() - start).count();
        return answer;
    }
    static void count(const sae_ggml_event *event, void *data) {
        if (event->features != nullptr)
            static_cast<variant *>(data)->fired += sae_features_count(event->features);
    }
};

// What reading the clock twice adds to the time between, in microseconds.
static double clock_cost() {
    double sum = 0;
    const int n = 20000;
    for (int i = 0; i < n; i++) {
        auto start = clock_type::now();
        sum += std::chrono::duration<double, std::micro>(clock_type::now() - start).count();
    }
    return sum / n;
}

static double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

static llama_context *make_context(const language_model &lm,
                                   ggml_backend_sched_eval_callback callback, void *data) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = 512;
    params.n_batch = params.n_ubatch = 512;
    params.n_threads = params.n_threads_batch = 2;
    params.cb_eval = callback;
    params.cb_eval_user_data = data;
    llama_context *context = llama_init_from_model(lm.model, params);
    CHECK(context != nullptr);
    return context;
}

static void decode(const language_model &lm, llama_context *context, sae_ggml_hook *hook,
                   const std::vector<llama_token> &tokens, size_t first) {
    (void)lm;
    tokens_batch batch(tokens, static_cast<int32_t>(first));
    sae_ggml_batch about = batch.about();
    if (hook != nullptr) sae_ggml_begin(hook, &about);
    CHECK(llama_decode(context, batch.batch) == 0);
    if (hook != nullptr) CHECK_OK(sae_ggml_end(hook, &error));
}

static sae_ggml_tap tap_at(const language_model &lm, const sae_model *sae, const char *where) {
    sae_ggml_tap tap = sae_ggml_tap_of(sae);
    CHECK_OK(sae_ggml_site_find(where, lm.architecture.c_str(), lm.n_layer, &tap.site, &error));
    return tap;
}

struct dump_rows {
    std::string name;
    std::vector<float> rows;
    static bool eval(ggml_tensor *t, bool ask, void *data) {
        auto &self = *static_cast<dump_rows *>(data);
        bool mine = self.name == t->name;
        if (ask || !mine) return mine || !ask;
        self.rows.resize(static_cast<size_t>(ggml_nelements(t)));
        ggml_backend_tensor_get(t, self.rows.data(), 0, ggml_nbytes(t));
        return true;
    }
};

int main(int argc, char **argv) {
    CHECK(argc == 5 || argc == 6);
    language_model lm(argv[2]);
    const char *where = argv[3];
    if (std::strcmp(argv[1], "dump") == 0) {
        sae_ggml_site site;
        CHECK_OK(sae_ggml_site_find(where, lm.architecture.c_str(), lm.n_layer, &site, &error));
        dump_rows dump{site.name, {}};
        llama_context *context = make_context(lm, dump_rows::eval, &dump);
        decode(lm, context, nullptr, some_tokens(128, lm.n_vocab()), 0);
        save_npy(argv[4], dump.rows, static_cast<size_t>(lm.n_embd));
        llama_free(context);
        return 0;
    }
    const size_t n_tokens = argc == 6 ? static_cast<size_t>(std::atoi(argv[5])) : 40;
    sae_model *mapped = nullptr, *prepared = nullptr;
    CHECK_OK(sae_model_open(argv[4], nullptr, &mapped, &error));
    CHECK_OK(sae_model_open(argv[4], nullptr, &prepared, &error));
    CHECK_OK(sae_model_prepare(prepared, &error));
    std::vector<uint32_t> chosen;
    const size_t d_sae = sae_model_d_sae(mapped);
    for (size_t i = 0; i < 32; i++) chosen.push_back(static_cast<uint32_t>(i * d_sae / 32));
    sae_set *set = nullptr;
    CHECK_OK(sae_set_compile(mapped, chosen.data(), chosen.size(), &set, &error));
    const char *text = "{\"edits\": [{\"feature\": 5, \"rule\": \"scale\", \"strength\": 2},"
                       "{\"feature\": 9, \"rule\": \"set\", \"strength\": 0}]}";
    sae_plan *plan = nullptr;
    CHECK_OK(sae_plan_compile(mapped, &text, 1, SAE_CONFLICTS_REFUSE, &plan, &error));

    pool threads;
    std::vector<variant> variants(7);
    variants[0].name = "no callback";
    variants[0].callback = false;
    variants[1].name = "a hook that looks at nothing";
    variants[2].name = "full encode, weights as stored";
    variants[2].encode = true;
    variants[3].name = "full encode, prepared (screen)";
    variants[3].encode = true;
    variants[3].sae = prepared;
    variants[4].name = "readout of 32 features";
    variants[4].set = set;
    variants[5].name = "a plan of two features";
    variants[5].plan = plan;
    variants[6].name = "full encode, prepared, 2 threads";
    variants[6].encode = true;
    variants[6].sae = prepared;
    variants[6].threads = &threads;
    for (variant &v : variants) {
        if (v.callback) {
            CHECK_OK(sae_ggml_hook_create(&v.hook, &error));
            sae_ggml_tap tap = tap_at(lm, v.sae != nullptr ? v.sae : mapped, where);
            tap.encode = v.encode;
            tap.set = v.set;
            tap.plan = v.plan;
            tap.on_rows = variant::count;
            tap.data = &v;
            if (v.threads != nullptr) {
                tap.parallel_for = pool::run;
                tap.parallel_host = v.threads;
                tap.n_workers = 2;
            }
            CHECK_OK(sae_ggml_hook_add(v.hook, &tap, nullptr, &error));
        }
        v.context = make_context(lm, v.callback ? variant::eval : nullptr, &v);
    }
    const auto tokens = some_tokens(n_tokens + 8, lm.n_vocab());
    const double per_call = clock_cost();
    for (size_t i = 0; i < tokens.size(); i++) {
        for (size_t j = 0; j < variants.size(); j++) {
            variant &v = variants[(i + j) % variants.size()];
            v.inside = 0;
            v.calls = 0;
            auto start = clock_type::now();
            decode(lm, v.context, v.hook, {tokens[i]}, i);
            double took =
                std::chrono::duration<double, std::micro>(clock_type::now() - start).count();
            if (i < 8) continue;
            v.tokens.push_back(took);
            v.insides.push_back(v.inside - static_cast<double>(v.calls) * per_call);
        }
    }
    // The answers, before the times are believed: both encodes found the same.
    CHECK(variants[2].fired == variants[3].fired && variants[2].fired > 0);
    CHECK(variants[2].fired == variants[6].fired);
    const double alone = median(variants[0].tokens);
    std::printf("%s, %zu features of width %zu at %s, level %s, 2 threads for llama.cpp, "
                "median of %zu tokens\n",
                argv[2], d_sae, sae_model_d_in(mapped), where, sae_model_level(mapped), n_tokens);
    std::printf("| | ms per token | in the callback, ms | share of the token without it |\n");
    std::printf("|---|---|---|---|\n");
    for (const variant &v : variants) {
        std::printf("| %s | %.2f | %.3f | %.2f%% |\n", v.name, median(v.tokens) / 1e3,
                    median(v.insides) / 1e3, 100 * median(v.insides) / alone);
    }
    std::printf("%.1f features fire per token\n",
                static_cast<double>(variants[2].fired) / static_cast<double>(tokens.size()));
    for (variant &v : variants) {
        llama_free(v.context);
        sae_ggml_hook_destroy(v.hook);
    }
    sae_plan_destroy(plan);
    sae_set_destroy(set);
    sae_model_close(prepared);
    sae_model_close(mapped);
    return 0;
}
