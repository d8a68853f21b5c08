// libsae inside llama.cpp, on a small model with random weights.
//
//     embed dump MODEL.gguf HOOK OUT.npy    the rows of a hook, for making SAEs that fit them
//     embed check MODEL.gguf SAE FITTED NARROW OUT  the checks; leaves rows and features in the
//                                           folder OUT
//     embed transcoder MODEL.gguf SAE TRANSCODER  the checks of a model with two sites
#include "host.hpp"

#include "ggml-backend-impl.h" // for a buffer that is not host memory

#include <algorithm>
#include <thread>
#include <utility>

static sae_model *open_sae(const char *path) {
    sae_model *model = nullptr;
    CHECK_OK(sae_model_open(path, nullptr, &model, &error));
    return model;
}

static sae_plan *compile(const sae_model *model, const char *text) {
    sae_plan *plan = nullptr;
    CHECK_OK(sae_plan_compile(model, &text, 1, SAE_CONFLICTS_REFUSE, &plan, &error));
    return plan;
}

// A hook with one tap, which also looks at the tensor itself behind the hook's back.
struct hooked {
    sae_ggml_hook *hook = nullptr;
    collected found;
    std::string watched;
    std::vector<float> tensor; // its rows after the hook
    bool host_memory = true;

    explicit hooked(std::string watched = "") : watched(std::move(watched)) {
        CHECK_OK(sae_ggml_hook_create(&hook, &error));
    }
    ~hooked() { sae_ggml_hook_destroy(hook); }
    hooked(const hooked &) = delete;
    hooked &operator=(const hooked &) = delete;

    sae_ggml_tap tap_of(const language_model &lm, const sae_model *model, const char *where) {
        sae_ggml_tap tap = sae_ggml_tap_of(model);
        CHECK_OK(sae_ggml_site_find(where, lm.architecture.c_str(), lm.n_layer, &tap.site, &error));
        tap.on_rows = collected::on_rows;
        tap.data = &found;
        return tap;
    }
    void add(const sae_ggml_tap &tap) { CHECK_OK(sae_ggml_hook_add(hook, &tap, nullptr, &error)); }

    static bool eval(ggml_tensor *t, bool ask, void *data) {
        auto &self = *static_cast<hooked *>(data);
        bool mine = self.watched == t->name;
        bool answer = sae_ggml_eval(t, ask, self.hook);
        if (ask) return answer || mine;
        if (mine) {
            size_t old = self.tensor.size(), count = static_cast<size_t>(ggml_nelements(t));
            self.tensor.resize(old + count);
            ggml_backend_tensor_get(t, self.tensor.data() + old, 0, ggml_nbytes(t));
        }
        return answer;
    }
};

// The logits of the last token. Without a hook: as llama.cpp runs by itself.
static std::vector<float> decode(const language_model &lm, uint32_t n_ubatch, hooked *hook,
                                 const std::vector<llama_token> &tokens,
                                 const std::vector<float> *control_vector = nullptr,
                                 int32_t layer = 0) {
    llama_context *context = lm.context(n_ubatch, hook ? hooked::eval : nullptr, hook);
    if (control_vector != nullptr)
        CHECK(llama_set_adapter_cvec(context, control_vector->data(), control_vector->size(),
                                     lm.n_embd, layer, layer) == 0);
    tokens_batch batch(tokens);
    sae_ggml_batch about = batch.about();
    if (hook) sae_ggml_begin(hook->hook, &about);
    CHECK(llama_decode(context, batch.batch) == 0);
    if (hook) CHECK_OK(sae_ggml_end(hook->hook, &error));
    const float *logits = llama_get_logits_ith(context, -1);
    std::vector<float> out(logits, logits + lm.n_vocab());
    llama_free(context);
    return out;
}

static bool same_bits(const std::vector<float> &a, const std::vector<float> &b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

static double distance(const std::vector<float> &a, const std::vector<float> &b) {
    CHECK(a.size() == b.size());
    double most = 0;
    for (size_t i = 0; i < a.size(); i++)
        most = std::fmax(most, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    return most;
}

// Rows of any ubatch size: the hook sees the tensor's bytes, and features do not depend on the split.
static void ubatches(const language_model &lm, const sae_model *sae, const std::string &out) {
    const auto tokens = some_tokens(100, lm.n_vocab());
    std::vector<float> rows_of_512;
    for (uint32_t n_ubatch : {512u, 7u, 1u}) {
        hooked hook("l_out-1");
        sae_ggml_tap tap = hook.tap_of(lm, sae, "blocks.1.hook_resid_post");
        tap.encode = 1;
        hook.add(tap);
        decode(lm, n_ubatch, &hook, tokens);
        const collected &found = hook.found;
        CHECK(found.rows.size() == tokens.size() * found.width);
        CHECK(same_bits(found.rows, hook.tensor));
        CHECK(found.batches.size() == (tokens.size() + n_ubatch - 1) / n_ubatch);
        for (size_t i = 0; i < tokens.size(); i++) CHECK(found.tokens[i] == i);
        CHECK(found.indices.size() > tokens.size());
        std::string name = out + "/ubatch-" + std::to_string(n_ubatch);
        save_npy(name + ".npy", found.rows, found.width);
        found.save_features(name + ".txt");

        // The same rows in other splits.
        sae_scratch *scratch = nullptr;
        sae_features *features = nullptr;
        CHECK_OK(sae_scratch_create(sae, &scratch, &error));
        CHECK_OK(sae_features_create(0, 0, &features, &error));
        for (size_t step : {size_t{1}, size_t{3}, tokens.size()}) {
            collected again;
            for (size_t first = 0; first < tokens.size(); first += step) {
                size_t n = std::min(step, tokens.size() - first);
                sae_rows rows = {found.rows.data() + first * found.width, SAE_DTYPE_F32, 0, n,
                                 found.width, 0};
                CHECK_OK(sae_model_encode(sae, &rows, scratch, features, &error));
                sae_ggml_event event;
                std::memset(&event, 0, sizeof event);
                event.rows = &rows;
                event.features = features;
                collected::on_rows(&event, &again);
            }
            CHECK(again.same_features(found));
        }
        sae_features_destroy(features);
        sae_scratch_destroy(scratch);
        if (n_ubatch == 512) rows_of_512 = found.rows;
        std::printf("ubatch %3u: features do not depend on the split; largest distance of "
                    "llama.cpp's own rows from those of ubatch 512: %.3g\n",
                    n_ubatch, distance(found.rows, rows_of_512));
    }
}

// In the last block only tokens with outputs have rows.
static void last_block(const language_model &lm, const sae_model *sae) {
    const auto tokens = some_tokens(40, lm.n_vocab());
    hooked hook("l_out-3");
    sae_ggml_tap tap = hook.tap_of(lm, sae, "blocks.3.hook_resid_post");
    tap.encode = 1;
    CHECK(tap.site.outputs_only == 1);
    hook.add(tap);
    llama_context *context = lm.context(16, hooked::eval, &hook);
    tokens_batch batch(tokens);
    const std::vector<size_t> wanted = {3, 17, 18, 39};
    for (size_t token : wanted) batch.batch.logits[token] = 1;
    sae_ggml_batch about = batch.about();
    sae_ggml_begin(hook.hook, &about);
    CHECK(llama_decode(context, batch.batch) == 0);
    CHECK_OK(sae_ggml_end(hook.hook, &error));
    CHECK(hook.found.tokens == wanted);
    CHECK(same_bits(hook.found.rows, hook.tensor));
    llama_free(context);
}

// Hooks that change nothing, and the switch.
static void untouched(const language_model &lm, const sae_model *sae) {
    const auto tokens = some_tokens(50, lm.n_vocab());
    const auto alone = decode(lm, 64, nullptr, tokens);
    hooked reading("l_out-1"), steering("l_out-1"), off;
    sae_ggml_tap tap = reading.tap_of(lm, sae, "blocks.1.hook_resid_post");
    tap.encode = 1;
    reading.add(tap);
    const auto read = decode(lm, 64, &reading, tokens);
    sae_plan *plan =
        compile(sae, "{\"edits\": [{\"feature\": 3, \"rule\": \"add\", \"strength\": 0}]}");
    tap = steering.tap_of(lm, sae, "blocks.1.hook_resid_post");
    tap.plan = plan;
    steering.add(tap);
    const auto steered = decode(lm, 64, &steering, tokens);
    CHECK(same_bits(read, steered));
    CHECK(same_bits(reading.tensor, steering.tensor));
    const sae_steer_scratch *counts = sae_ggml_steered(steering.hook, 0);
    CHECK(sae_steer_scratch_count(counts, SAE_OUTCOME_UNCHANGED) == tokens.size());
    std::printf("a hook that edits nothing: the logits of a read-only hook, bit for bit; those "
                "differ by %.3g from a run without a callback\n",
                distance(alone, read));

    tap = off.tap_of(lm, sae, "blocks.1.hook_resid_post");
    tap.encode = 1;
    off.add(tap);
    sae_ggml_hook_enable(off.hook, false);
    CHECK(same_bits(decode(lm, 64, &off, tokens), alone));
    CHECK(off.found.rows.empty());
    sae_ggml_hook_enable(off.hook, true);
    decode(lm, 64, &off, tokens);
    CHECK(off.found.same_features(reading.found));
    sae_plan_destroy(plan);
}

// An additive edit is the control vector that is made of it.
static void control_vector(const language_model &lm, const sae_model *sae) {
    const auto tokens = some_tokens(30, lm.n_vocab());
    sae_plan *plan =
        compile(sae, "{\"edits\": [{\"feature\": 3, \"rule\": \"add\", \"strength\": 2.5},"
                     "{\"feature\": 40, \"rule\": \"add\", \"strength\": -1}]}");
    size_t width = static_cast<size_t>(lm.n_embd);
    std::vector<float> data(width * static_cast<size_t>(lm.n_layer - 1));
    CHECK_OK(sae_ggml_control_vector(sae, plan, 1, lm.n_layer, data.data(), data.size(), &error));
    CHECK(sae_ggml_control_vector(sae, plan, 0, lm.n_layer, data.data(), data.size(), &error) ==
          SAE_STATUS_INVALID_ARGUMENT);
    hooked steering("l_out-1"), reading("l_out-1"), plain("l_out-1");
    sae_ggml_tap tap = steering.tap_of(lm, sae, "blocks.1.hook_resid_post");
    tap.plan = plan;
    steering.add(tap);
    decode(lm, 64, &steering, tokens);
    decode(lm, 64, &reading, tokens, &data, 1);
    decode(lm, 64, &plain, tokens);
    CHECK(distance(steering.tensor, plain.tensor) > 0.1);
    double worst = 0;
    for (size_t i = 0; i < steering.tensor.size(); i++) {
        // llama.cpp adds the vector after it was rounded to f32; the edit rounds once.
        double a = static_cast<double>(steering.tensor[i]);
        double b = static_cast<double>(reading.tensor[i]);
        double scale = std::fabs(a) + std::fabs(static_cast<double>(data[i % width]));
        worst = std::fmax(worst, std::fabs(a - b) / (scale + 1e-30));
    }
    CHECK(worst <= std::ldexp(1.0, -23));
    std::printf("an additive edit is its control vector: within %.2f units of 2^-24\n",
                worst * std::ldexp(1.0, 24));
    sae_plan_destroy(plan);
}

// Two contexts on two threads share one language model and one SAE.
static void two_contexts(const language_model &lm, const sae_model *sae) {
    const std::vector<std::vector<llama_token>> tokens = {some_tokens(60, lm.n_vocab(), 5),
                                                          some_tokens(60, lm.n_vocab(), 6)};
    collected alone[2], together[2];
    auto run = [&](size_t i, collected &out) {
        hooked hook("l_out-1");
        sae_ggml_tap tap = hook.tap_of(lm, sae, "blocks.1.hook_resid_post");
        tap.encode = 1;
        hook.add(tap);
        decode(lm, 16, &hook, tokens[i]);
        out = hook.found;
    };
    for (size_t i = 0; i < 2; i++) run(i, alone[i]);
    std::thread other([&] { run(1, together[1]); });
    run(0, together[0]);
    other.join();
    for (size_t i = 0; i < 2; i++) {
        CHECK(same_bits(alone[i].rows, together[i].rows));
        CHECK(alone[i].same_features(together[i]));
    }
    CHECK(!alone[0].same_features(alone[1]));
}

// Several taps: two sites, two SAEs, a readout; generation token by token.
static void several_taps(const language_model &lm, const sae_model *sae, const sae_model *fitted) {
    const auto tokens = some_tokens(20, lm.n_vocab());
    hooked hook;
    collected second, watch;
    sae_ggml_tap tap = hook.tap_of(lm, sae, "blocks.1.hook_resid_post");
    tap.encode = 1;
    hook.add(tap);
    tap = hook.tap_of(lm, fitted, "blocks.1.hook_resid_mid");
    tap.encode = 1;
    tap.data = &second;
    hook.add(tap);
    const uint32_t chosen[3] = {7, 1, 900};
    sae_set *set = nullptr;
    CHECK_OK(sae_set_compile(sae, chosen, 3, &set, &error));
    tap = hook.tap_of(lm, sae, "blocks.2.hook_resid_pre");
    tap.set = set;
    tap.data = &watch;
    hook.add(tap);
    llama_context *context = lm.context(64, sae_ggml_eval, hook.hook);
    for (size_t i = 0; i < tokens.size(); i++) {
        tokens_batch one({tokens[i]}, static_cast<int32_t>(i));
        sae_ggml_batch about = one.about();
        sae_ggml_begin(hook.hook, &about);
        CHECK(llama_decode(context, one.batch) == 0);
        CHECK_OK(sae_ggml_end(hook.hook, &error));
    }
    llama_free(context);
    CHECK(hook.found.counts.size() == tokens.size() && second.counts.size() == tokens.size());
    CHECK(same_bits(hook.found.rows, watch.rows) && !same_bits(hook.found.rows, second.rows));
    CHECK(watch.readout.size() == 3 * tokens.size());
    size_t at = 0;
    for (size_t row = 0; row < tokens.size(); row++) {
        float expected[3] = {0, 0, 0};
        for (uint32_t i = 0; i < hook.found.counts[row]; i++, at++)
            for (size_t j = 0; j < 3; j++)
                if (hook.found.indices[at] == chosen[j]) expected[j] = hook.found.values[at];
        CHECK(std::memcmp(expected, &watch.readout[3 * row], sizeof expected) == 0);
    }
    sae_set_destroy(set);
}

// Rows that are left out have no features and are not edited.
static void skipped_rows(const language_model &lm, const sae_model *sae) {
    const auto tokens = some_tokens(30, lm.n_vocab());
    sae_plan *plan =
        compile(sae, "{\"edits\": [{\"feature\": 3, \"rule\": \"add\", \"strength\": 2.5}]}");
    hooked hook("l_out-1"), plain("l_out-1");
    sae_ggml_tap tap = hook.tap_of(lm, sae, "blocks.1.hook_resid_post");
    tap.encode = 1;
    tap.plan = plan;
    hook.add(tap);
    llama_context *context = lm.context(7, hooked::eval, &hook);
    tokens_batch batch(tokens);
    std::vector<sae_row_info> infos(tokens.size());
    for (size_t i = 0; i < infos.size(); i++) {
        std::memset(&infos[i], 0, sizeof infos[i]);
        infos[i].position = static_cast<uint32_t>(i);
        infos[i].plan = SAE_ALL_PLANS;
        infos[i].factor = 1;
        infos[i].stage = i < 20 ? SAE_STAGE_SKIPPED : SAE_STAGE_PROMPT;
    }
    sae_ggml_batch about = batch.about();
    about.infos = infos.data();
    sae_ggml_begin(hook.hook, &about);
    CHECK(llama_decode(context, batch.batch) == 0);
    CHECK_OK(sae_ggml_end(hook.hook, &error));
    llama_free(context);
    decode(lm, 7, &plain, tokens);
    size_t width = hook.found.width;
    for (size_t i = 0; i < tokens.size(); i++) {
        CHECK((hook.found.counts[i] == 0) == (i < 20));
        bool same = std::memcmp(&hook.tensor[i * width], &plain.tensor[i * width],
                                width * sizeof(float)) == 0;
        CHECK(same == (i < 20));
    }
    sae_plan_destroy(plan);
}

// The fit check finds the block that an SAE belongs to, and refuses its neighbours.
static void fit(const language_model &lm, const sae_model *fitted) {
    const auto tokens = some_tokens(64, lm.n_vocab());
    for (int32_t layer = 0; layer < 3; layer++) {
        hooked hook;
        std::string where = "blocks." + std::to_string(layer) + ".hook_resid_post";
        sae_ggml_tap tap = hook.tap_of(lm, fitted, where.c_str());
        tap.encode = 1;
        tap.fit_rows = 64;
        hook.add(tap);
        llama_context *context = lm.context(32, sae_ggml_eval, hook.hook);
        sae_status status = SAE_STATUS_OK;
        for (int32_t round = 0; round < 2 && status == SAE_STATUS_OK; round++) {
            llama_memory_clear(llama_get_memory(context), true);
            tokens_batch batch(tokens, 0, true);
            sae_ggml_batch about = batch.about();
            sae_ggml_begin(hook.hook, &about);
            CHECK(llama_decode(context, batch.batch) == 0);
            status = sae_ggml_end(hook.hook, &error);
            // Nothing is shown before the verdict.
            if (round == 0) CHECK(hook.found.rows.empty());
        }
        llama_free(context);
        char text[1024];
        CHECK(sae_ggml_fit_text(hook.hook, 0, text, sizeof text) > 0);
        std::printf("hooked at block %d:\n%s", static_cast<int>(layer), text);
        if (layer == 1) {
            CHECK(status == SAE_STATUS_OK && hook.found.counts.size() == tokens.size());
        } else {
            std::printf("  refused: %s\n", error.message);
            CHECK(status == SAE_STATUS_INVALID_VALUE && hook.found.counts.empty());
            std::string expected = "this SAE fits l_out-1 ";
            CHECK(std::strncmp(error.message, expected.c_str(), expected.size()) == 0);
            std::string hooked_at = "you hooked l_out-" + std::to_string(layer);
            CHECK(std::strstr(error.message, hooked_at.c_str()) != nullptr);
        }
    }
}

// What a host does wrong is told, and the graph goes on.
static void mistakes(const language_model &lm, const sae_model *sae, const char *narrow) {
    const auto tokens = some_tokens(10, lm.n_vocab());
    auto attempt = [&](const sae_ggml_tap &tap) {
        hooked hook;
        hook.add(tap);
        llama_context *context = lm.context(64, sae_ggml_eval, hook.hook);
        tokens_batch batch(tokens);
        sae_ggml_batch about = batch.about();
        sae_ggml_begin(hook.hook, &about);
        CHECK(llama_decode(context, batch.batch) == 0);
        sae_status status = sae_ggml_end(hook.hook, &error);
        std::printf("told: %s\n", error.message);
        llama_free(context);
        return status;
    };
    hooked maker;
    sae_ggml_tap tap = maker.tap_of(lm, sae, "l_out-9");
    tap.encode = 1;
    CHECK(attempt(tap) == SAE_STATUS_INVALID_ARGUMENT);
    sae_model *other = open_sae(narrow);
    tap = maker.tap_of(lm, other, "l_out-1");
    tap.encode = 1;
    CHECK(attempt(tap) == SAE_STATUS_LENGTH);
    sae_model_close(other);
    // Two norms of a block match, where one was expected.
    tap = sae_ggml_tap_of(sae);
    tap.encode = 1;
    std::snprintf(tap.site.source, sizeof tap.site.source, "norm-1");
    tap.site.count = 1;
    CHECK(attempt(tap) == SAE_STATUS_INVALID_ARGUMENT);
    // Names that mean no tensor, or more than one.
    sae_ggml_site site;
    const char *architecture = lm.architecture.c_str();
    CHECK(sae_ggml_site_find("ffn_out-1", architecture, 4, &site, &error) ==
          SAE_STATUS_INVALID_ARGUMENT);
    CHECK(sae_ggml_site_find("blocks.9.hook_resid_post", architecture, 4, &site, &error) ==
          SAE_STATUS_INVALID_ARGUMENT);
    CHECK(sae_ggml_site_find("blocks.1.hook_mlp_in", architecture, 4, &site, &error) ==
          SAE_STATUS_INVALID_ARGUMENT);
    CHECK(sae_ggml_site_find(nullptr, architecture, 4, &site, &error) == SAE_STATUS_NULL_ARGUMENT);
    tap = sae_ggml_tap_of(sae);
    CHECK(sae_ggml_hook_add(maker.hook, &tap, nullptr, &error) == SAE_STATUS_INVALID_ARGUMENT);
    // Gemma 2 names what its MLPs add without the block.
    CHECK_OK(sae_ggml_site_find("blocks.5.hook_mlp_out", "gemma2", 26, &site, &error));
    CHECK(std::strcmp(site.name, "ffn_post_norm") == 0 && site.occurrence == 5 && site.count == 26);
    CHECK_OK(sae_ggml_site_find("blocks.5.hook_mlp_out", "gemma3", 26, &site, &error));
    CHECK(std::strcmp(site.name, "ffn_post_norm-5") == 0);
    CHECK_OK(sae_ggml_site_find("blocks.0.hook_resid_pre", "gemma2", 26, &site, &error));
    CHECK(std::strcmp(site.name, "inp_scaled") == 0 && site.outputs_only == 0);
    CHECK_OK(sae_ggml_site_find("model.layers.2.self_attn.o_proj.input", "gemma3", 26, &site,
                                &error));
    CHECK(std::strcmp(site.name, "kqv_out-2") == 0);
}

// Every hook name of this graph finds a tensor of the right width.
static void names(const language_model &lm, const sae_model *sae) {
    const auto tokens = some_tokens(5, lm.n_vocab());
    for (const char *where :
         {"blocks.0.hook_resid_pre", "hook_embed", "blocks.2.hook_resid_mid",
          "blocks.2.hook_resid_post", "blocks.2.attn.hook_z", "blocks.2.hook_attn_out",
          "blocks.2.hook_mlp_out", "model.layers.2.pre_feedforward_layernorm.output",
          "transformer.h.1", "attn_norm-2"}) {
        hooked hook;
        sae_ggml_tap tap = hook.tap_of(lm, sae, where);
        tap.encode = 1;
        hook.add(tap);
        decode(lm, 64, &hook, tokens);
        CHECK(hook.found.counts.size() == tokens.size());
    }
    // What the MLP adds is the difference of the residual streams around it, with a control vector
    // (whose sum has the same name) or without.
    std::vector<float> zero(static_cast<size_t>(lm.n_embd) * static_cast<size_t>(lm.n_layer - 1));
    for (const std::vector<float> *vector : {static_cast<const std::vector<float> *>(nullptr),
                                             static_cast<const std::vector<float> *>(&zero)}) {
        hooked mid, out, post;
        std::pair<hooked *, const char *> sites[3] = {{&mid, "blocks.2.hook_resid_mid"},
                                                      {&out, "blocks.2.hook_mlp_out"},
                                                      {&post, "blocks.2.hook_resid_post"}};
        for (auto &[hook, where] : sites) {
            sae_ggml_tap tap = hook->tap_of(lm, sae, where);
            tap.encode = 1;
            hook->add(tap);
            decode(lm, 64, hook, tokens, vector, 2);
        }
        for (size_t i = 0; i < post.found.rows.size(); i++)
            CHECK(std::fabs(mid.found.rows[i] + out.found.rows[i] - post.found.rows[i]) < 1e-4f);
    }
}

// Memory that is not the host's: a buffer that only lets itself be read and written.
static size_t device_writes;
static void count_write(ggml_backend_buffer_t buffer, ggml_tensor *t, const void *data,
                        size_t offset, size_t size) {
    (void)buffer;
    device_writes++;
    std::memcpy(static_cast<char *>(t->data) + offset, data, size);
}

static void device_memory(const language_model &lm, const sae_model *sae) {
    ggml_backend_buffer_type type = *ggml_backend_cpu_buffer_type();
    type.iface.is_host = nullptr;
    ggml_init_params params = {size_t{1} << 20, nullptr, true};
    ggml_context *context = ggml_init(params);
    const int64_t n = 6, width = lm.n_embd;
    ggml_tensor *t = ggml_new_tensor_2d(context, GGML_TYPE_F32, width, n);
    ggml_set_name(t, "l_out-1");
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors_from_buft(context, &type);
    CHECK(buffer != nullptr && !ggml_backend_buffer_is_host(buffer));
    buffer->iface.set_tensor = count_write;
    std::vector<float> rows(static_cast<size_t>(n * width));
    uint32_t seed = 9;
    for (float &value : rows) {
        seed = seed * 1664525u + 1013904223u;
        value = static_cast<float>(seed >> 8) / 8388608.0f - 1.0f;
    }
    std::memcpy(t->data, rows.data(), rows.size() * sizeof(float));
    sae_plan *plan =
        compile(sae, "{\"edits\": [{\"feature\": 3, \"rule\": \"add\", \"strength\": 2}]}");
    hooked hook;
    sae_ggml_tap tap = hook.tap_of(lm, sae, "l_out-1");
    tap.encode = 1;
    tap.plan = plan;
    hook.add(tap);
    std::vector<sae_row_info> infos(static_cast<size_t>(n));
    for (size_t i = 0; i < infos.size(); i++) {
        std::memset(&infos[i], 0, sizeof infos[i]);
        infos[i].plan = SAE_ALL_PLANS;
        infos[i].factor = i == 2 || i == 4 ? 1 : 0;
    }
    sae_ggml_batch about;
    std::memset(&about, 0, sizeof about);
    about.n_tokens = infos.size();
    about.infos = infos.data();
    sae_ggml_begin(hook.hook, &about);
    CHECK(sae_ggml_eval(t, true, hook.hook) && sae_ggml_eval(t, false, hook.hook));
    CHECK_OK(sae_ggml_end(hook.hook, &error));
    CHECK(same_bits(hook.found.rows, rows));
    // Only the two rows that were edited went back.
    CHECK(device_writes == 2);
    for (size_t i = 0; i < infos.size(); i++) {
        const size_t bytes = static_cast<size_t>(width) * sizeof(float);
        const char *now = static_cast<const char *>(t->data) + i * bytes;
        bool same = std::memcmp(now, &rows[i * static_cast<size_t>(width)], bytes) == 0;
        CHECK(same == (infos[i].factor == 0.0));
    }
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
    sae_plan_destroy(plan);
}

// Transcoders: rows are read at one tensor and written at another.
static const char MLP_IN[] = "model.layers.%d.pre_feedforward_layernorm.output";
static const char MLP_OUT[] = "blocks.%d.hook_mlp_out";

static sae_ggml_site site_of(const language_model &lm, const char *form, int32_t layer) {
    char name[96];
    std::snprintf(name, sizeof name, form, static_cast<int>(layer));
    sae_ggml_site site;
    CHECK_OK(sae_ggml_site_find(name, lm.architecture.c_str(), lm.n_layer, &site, &error));
    return site;
}

static sae_ggml_tap transcoder_tap(const language_model &lm, hooked &hook, const sae_model *model,
                                   int32_t layer) {
    sae_ggml_tap tap = sae_ggml_tap_of(model);
    tap.site = site_of(lm, MLP_IN, layer);
    tap.site_out = site_of(lm, MLP_OUT, layer);
    tap.encode = 1;
    tap.on_rows = collected::on_rows;
    tap.data = &hook.found;
    return tap;
}

// Edits are those that the library makes of the rows of both tensors, whatever the ubatch.
static void transcoder_steers(const language_model &lm, const sae_model *model) {
    const auto tokens = some_tokens(40, lm.n_vocab());
    sae_plan *plan = compile(model, "{\"edits\": [{\"feature\": 3, \"rule\": \"set\","
                                    " \"strength\": 2.5}, {\"feature\": 40, \"rule\": \"scale\","
                                    " \"strength\": -1}], \"rows\": {\"skip_first\": 2}}");
    for (uint32_t n_ubatch : {64u, 7u}) {
        hooked reading("ffn_out-1"), steering("ffn_out-1");
        sae_ggml_tap tap = transcoder_tap(lm, reading, model, 1);
        reading.add(tap);
        decode(lm, n_ubatch, &reading, tokens);
        tap = transcoder_tap(lm, steering, model, 1);
        tap.plan = plan;
        steering.add(tap);
        decode(lm, n_ubatch, &steering, tokens);
        // What was read is the same: the edit comes behind it.
        CHECK(same_bits(reading.found.rows, steering.found.rows));
        CHECK(reading.found.same_features(steering.found));
        const size_t width = reading.found.width;
        sae_rows inputs = {reading.found.rows.data(), SAE_DTYPE_F32, 0, tokens.size(), width, 0};
        std::vector<float> expected = reading.tensor;
        sae_rows_mut rows = {expected.data(), SAE_DTYPE_F32, 0, tokens.size(), width, 0};
        sae_steer_batch batch;
        std::memset(&batch, 0, sizeof batch);
        batch.struct_size = sizeof batch;
        batch.rows = &rows;
        batch.inputs = &inputs;
        sae_steer_scratch *scratch = nullptr;
        CHECK_OK(sae_steer_scratch_create(model, plan, &scratch, &error));
        CHECK_OK(sae_model_steer(model, plan, &batch, scratch, &error));
        CHECK(same_bits(steering.tensor, expected));
        CHECK(!same_bits(steering.tensor, reading.tensor));
        const sae_steer_scratch *counts = sae_ggml_steered(steering.hook, 0);
        for (sae_outcome outcome : {SAE_OUTCOME_EDITED, SAE_OUTCOME_FILTERED})
            CHECK(sae_steer_scratch_count(counts, outcome) ==
                  sae_steer_scratch_count(scratch, outcome));
        CHECK(sae_steer_scratch_count(counts, SAE_OUTCOME_FILTERED) == 2);
        sae_steer_scratch_destroy(scratch);
    }
    // The last block has rows for outputs only, at both sites.
    hooked last("ffn_out-3");
    sae_ggml_tap tap = transcoder_tap(lm, last, model, 3);
    tap.plan = plan;
    last.add(tap);
    llama_context *context = lm.context(16, hooked::eval, &last);
    tokens_batch batch(tokens);
    const std::vector<size_t> wanted = {3, 17, 18, 39};
    for (size_t token : wanted) batch.batch.logits[token] = 1;
    sae_ggml_batch about = batch.about();
    sae_ggml_begin(last.hook, &about);
    CHECK(llama_decode(context, batch.batch) == 0);
    CHECK_OK(sae_ggml_end(last.hook, &error));
    llama_free(context);
    CHECK(last.found.tokens == wanted);
    const sae_steer_scratch *counts = sae_ggml_steered(last.hook, 0);
    CHECK(sae_steer_scratch_count(counts, SAE_OUTCOME_EDITED) == wanted.size());
    sae_plan_destroy(plan);
    std::puts("a transcoder steers what its MLP gives: the bits of sae_model_steer");
}

// The fit check finds the block, and the side of the norm, that a transcoder belongs to.
static void transcoder_fits(const language_model &lm, const sae_model *model) {
    const auto tokens = some_tokens(64, lm.n_vocab());
    for (int32_t attempt = 0; attempt < 5; attempt++) {
        hooked hook;
        const int32_t layer = attempt < 3 ? attempt : 1;
        sae_ggml_tap tap = transcoder_tap(lm, hook, model, layer);
        if (attempt == 3) tap.site = site_of(lm, "blocks.%d.hook_resid_mid", 1);
        if (attempt == 4) tap.site_out = site_of(lm, MLP_OUT, 2);
        tap.fit_rows = 64;
        hook.add(tap);
        llama_context *context = lm.context(32, sae_ggml_eval, hook.hook);
        sae_status status = SAE_STATUS_OK;
        for (int32_t round = 0; round < 2 && status == SAE_STATUS_OK; round++) {
            llama_memory_clear(llama_get_memory(context), true);
            tokens_batch batch(tokens, 0, true);
            sae_ggml_batch about = batch.about();
            sae_ggml_begin(hook.hook, &about);
            CHECK(llama_decode(context, batch.batch) == 0);
            status = sae_ggml_end(hook.hook, &error);
            if (round == 0) CHECK(hook.found.rows.empty());
        }
        llama_free(context);
        char text[2048];
        CHECK(sae_ggml_fit_text(hook.hook, 0, text, sizeof text) > 0);
        std::printf("%s%s\n", text, error.message);
        if (attempt == 1) {
            CHECK(status == SAE_STATUS_OK && hook.found.counts.size() == tokens.size());
            continue;
        }
        CHECK(status == SAE_STATUS_INVALID_VALUE && hook.found.counts.empty());
        const char *found = attempt == 4 ? "does not fit ffn_norm-1 -> ffn_out-2"
                                         : "this SAE fits ffn_norm-1 -> ffn_out-1 ";
        CHECK(std::strstr(error.message, found) != nullptr);
    }
}

static void transcoder_mistakes(const language_model &lm, const sae_model *model,
                                const sae_model *one_site) {
    const auto tokens = some_tokens(10, lm.n_vocab());
    sae_plan *plan =
        compile(model, "{\"edits\": [{\"feature\": 3, \"rule\": \"add\", \"strength\": 1}]}");
    auto attempt = [&](const sae_ggml_tap &tap) {
        hooked hook;
        hook.add(tap);
        llama_context *context = lm.context(64, sae_ggml_eval, hook.hook);
        tokens_batch batch(tokens);
        sae_ggml_batch about = batch.about();
        sae_ggml_begin(hook.hook, &about);
        CHECK(llama_decode(context, batch.batch) == 0);
        sae_status status = sae_ggml_end(hook.hook, &error);
        std::printf("told: %s\n", error.message);
        llama_free(context);
        return status;
    };
    hooked maker;
    // Without a site for the output: features are read, but nothing is steered or checked.
    sae_ggml_tap tap = transcoder_tap(lm, maker, model, 1);
    tap.site_out = sae_ggml_site_any();
    maker.add(tap);
    tap.plan = plan;
    CHECK(sae_ggml_hook_add(maker.hook, &tap, nullptr, &error) == SAE_STATUS_INVALID_ARGUMENT);
    CHECK(std::strstr(error.message, "it writes at blocks.1.hook_mlp_out") != nullptr);
    tap.plan = nullptr;
    tap.fit_rows = 32;
    CHECK(sae_ggml_hook_add(maker.hook, &tap, nullptr, &error) == SAE_STATUS_INVALID_ARGUMENT);
    tap = sae_ggml_tap_of(one_site);
    tap.site = site_of(lm, MLP_OUT, 1);
    tap.site_out = tap.site;
    CHECK(sae_ggml_hook_add(maker.hook, &tap, nullptr, &error) == SAE_STATUS_INVALID_ARGUMENT);
    // The wrong way round, no such tensor, other rows.
    tap = transcoder_tap(lm, maker, model, 1);
    tap.plan = plan;
    std::swap(tap.site, tap.site_out);
    CHECK(attempt(tap) == SAE_STATUS_INVALID_ARGUMENT);
    CHECK(std::strstr(error.message, "comes before what the model reads") != nullptr);
    tap = transcoder_tap(lm, maker, model, 1);
    tap.plan = plan;
    std::snprintf(tap.site_out.name, sizeof tap.site_out.name, "no_such-1");
    CHECK(attempt(tap) == SAE_STATUS_INVALID_ARGUMENT);
    CHECK(std::strstr(error.message, "no tensor of the graph is no_such-1") != nullptr);
    tap.fit_rows = 32;
    CHECK(attempt(tap) == SAE_STATUS_INVALID_ARGUMENT);
    tap = transcoder_tap(lm, maker, model, 2);
    tap.plan = plan;
    tap.site_out = site_of(lm, MLP_OUT, 3);
    CHECK(attempt(tap) == SAE_STATUS_LENGTH);
    tap = transcoder_tap(lm, maker, model, 1);
    tap.plan = plan;
    std::snprintf(tap.site_out.name, sizeof tap.site_out.name, "result_output");
    tap.site_out.count = 0;
    tap.site_out.outputs_only = 1;
    CHECK(attempt(tap) == SAE_STATUS_LENGTH);
    CHECK(std::strstr(error.message, "the model writes 256") != nullptr);
    sae_plan_destroy(plan);
}

int main(int argc, char **argv) {
    if (argc == 5 && std::strcmp(argv[1], "transcoder") == 0) {
        language_model lm(argv[2]);
        sae_model *sae = open_sae(argv[3]), *transcoder = open_sae(argv[4]);
        transcoder_steers(lm, transcoder);
        transcoder_fits(lm, transcoder);
        transcoder_mistakes(lm, transcoder, sae);
        sae_model_close(transcoder);
        sae_model_close(sae);
        std::puts("ok");
        return 0;
    }
    if (argc == 5 && std::strcmp(argv[1], "dump") == 0) {
        language_model lm(argv[2]);
        sae_ggml_site site;
        CHECK_OK(sae_ggml_site_find(argv[3], lm.architecture.c_str(), lm.n_layer, &site, &error));
        hooked hook(site.name);
        const auto tokens = some_tokens(500, lm.n_vocab());
        decode(lm, 512, &hook, tokens);
        save_npy(argv[4], hook.tensor, static_cast<size_t>(lm.n_embd));
        return 0;
    }
    CHECK(argc == 7 && std::strcmp(argv[1], "check") == 0);
    language_model lm(argv[2]);
    sae_model *sae = open_sae(argv[3]), *fitted = open_sae(argv[4]);
    ubatches(lm, sae, argv[6]);
    last_block(lm, sae);
    untouched(lm, sae);
    control_vector(lm, sae);
    two_contexts(lm, sae);
    several_taps(lm, sae, fitted);
    skipped_rows(lm, sae);
    names(lm, sae);
    device_memory(lm, sae);
    fit(lm, fitted);
    mistakes(lm, sae, argv[5]);
    sae_model_close(fitted);
    sae_model_close(sae);
    std::puts("ok");
    return 0;
}
