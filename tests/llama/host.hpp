// What the llama.cpp tests share: checks, a language model, contexts, and rows as .npy files.
#pragma once
#include "sae_ggml.h"

#include "llama.h"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);           \
            std::exit(1);                                                                          \
        }                                                                                          \
    } while (0)

#define CHECK_OK(call)                                                                             \
    do {                                                                                           \
        if ((call) != SAE_STATUS_OK) {                                                             \
            std::fprintf(stderr, "%s:%d: %s\n  %s\n", __FILE__, __LINE__, #call, error.message);   \
            std::exit(1);                                                                          \
        }                                                                                          \
    } while (0)

inline thread_local sae_error error;

// A language model, closed at the end.
struct language_model {
    llama_model *model;
    int32_t n_layer, n_embd;
    std::string architecture;

    explicit language_model(const char *path) {
        llama_log_set(
            [](ggml_log_level level, const char *text, void *) {
                if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
            },
            nullptr);
        llama_backend_init();
        llama_model_params params = llama_model_default_params();
        params.n_gpu_layers = 0;
        model = llama_model_load_from_file(path, params);
        CHECK(model != nullptr);
        n_layer = llama_model_n_layer(model);
        n_embd = llama_model_n_embd(model);
        char name[64];
        CHECK(llama_model_meta_val_str(model, "general.architecture", name, sizeof name) > 0);
        architecture = name;
    }
    ~language_model() {
        llama_model_free(model);
        llama_backend_free();
    }
    language_model(const language_model &) = delete;
    language_model &operator=(const language_model &) = delete;
    const llama_vocab *vocab() const { return llama_model_get_vocab(model); }
    int32_t n_vocab() const { return llama_vocab_n_tokens(vocab()); }
    llama_context *context(uint32_t n_ubatch, ggml_backend_sched_eval_callback callback,
                           void *data, bool embeddings = false) const {
        llama_context_params params = llama_context_default_params();
        params.n_ctx = 512;
        params.n_batch = 512;
        params.n_ubatch = n_ubatch;
        params.n_threads = params.n_threads_batch = 1;
        params.embeddings = embeddings;
        params.cb_eval = callback;
        params.cb_eval_user_data = data;
        llama_context *context = llama_init_from_model(model, params);
        CHECK(context != nullptr);
        return context;
    }
};

// A batch of one sequence.
struct tokens_batch {
    llama_batch batch;
    explicit tokens_batch(const std::vector<llama_token> &tokens, int32_t first = 0,
                          bool all_outputs = false) {
        batch = llama_batch_init(static_cast<int32_t>(tokens.size()), 0, 1);
        batch.n_tokens = static_cast<int32_t>(tokens.size());
        for (int32_t i = 0; i < batch.n_tokens; i++) {
            batch.token[i] = tokens[static_cast<size_t>(i)];
            batch.pos[i] = first + i;
            batch.n_seq_id[i] = 1;
            batch.seq_id[i][0] = 0;
            batch.logits[i] = all_outputs || i + 1 == batch.n_tokens;
        }
    }
    ~tokens_batch() { llama_batch_free(batch); }
    tokens_batch(const tokens_batch &) = delete;
    tokens_batch &operator=(const tokens_batch &) = delete;
    sae_ggml_batch about() const {
        sae_ggml_batch out;
        std::memset(&out, 0, sizeof out);
        out.n_tokens = static_cast<size_t>(batch.n_tokens);
        out.positions = batch.pos;
        out.outputs = batch.logits;
        return out;
    }
};

// Tokens that look random and are the same everywhere.
inline std::vector<llama_token> some_tokens(size_t count, int32_t n_vocab, uint32_t seed = 1) {
    std::vector<llama_token> tokens(count);
    for (llama_token &token : tokens) {
        seed = seed * 1664525u + 1013904223u;
        token = static_cast<llama_token>((seed >> 8) % static_cast<uint32_t>(n_vocab));
    }
    return tokens;
}

// Rows as a .npy file.
inline void save_npy(const std::string &path, const std::vector<float> &rows, size_t width) {
    char header[128];
    int length = std::snprintf(header, sizeof header,
                               "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }",
                               rows.size() / width, width);
    std::string text(header, static_cast<size_t>(length));
    while ((10 + text.size() + 1) % 64 != 0) text += ' ';
    text += '\n';
    FILE *file = std::fopen(path.c_str(), "wb");
    CHECK(file != nullptr);
    const unsigned char start[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0,
                                     static_cast<unsigned char>(text.size() & 255),
                                     static_cast<unsigned char>(text.size() >> 8)};
    std::fwrite(start, 1, sizeof start, file);
    std::fwrite(text.data(), 1, text.size(), file);
    CHECK(std::fwrite(rows.data(), sizeof(float), rows.size(), file) == rows.size());
    std::fclose(file);
}

// Everything that a tap found, in order.
struct collected {
    std::vector<float> rows;
    size_t width = 0;
    std::vector<uint32_t> counts, indices;
    std::vector<float> values;
    std::vector<size_t> tokens;
    std::vector<size_t> batches;
    std::vector<float> readout;

    static void on_rows(const sae_ggml_event *event, void *data) {
        auto &self = *static_cast<collected *>(data);
        const sae_rows &rows = *event->rows;
        CHECK(rows.dtype == SAE_DTYPE_F32);
        self.width = rows.width;
        self.batches.push_back(rows.n_rows);
        size_t stride = rows.stride_bytes != 0 ? rows.stride_bytes : rows.width * sizeof(float);
        for (size_t r = 0; r < rows.n_rows; r++) {
            size_t old = self.rows.size();
            self.rows.resize(old + rows.width);
            std::memcpy(self.rows.data() + old,
                        static_cast<const unsigned char *>(rows.data) + r * stride,
                        rows.width * sizeof(float));
            if (event->tokens != nullptr) self.tokens.push_back(event->tokens[r]);
            if (event->features != nullptr) {
                sae_row_features row;
                CHECK_OK(sae_features_row(event->features, r, &row, &error));
                self.counts.push_back(static_cast<uint32_t>(row.count));
                self.indices.insert(self.indices.end(), row.indices, row.indices + row.count);
                self.values.insert(self.values.end(), row.values, row.values + row.count);
            }
            if (event->values != nullptr)
                self.readout.insert(self.readout.end(), event->values + r * event->n_values,
                                    event->values + (r + 1) * event->n_values);
        }
    }
    bool same_features(const collected &other) const {
        return counts == other.counts && indices == other.indices &&
               values.size() == other.values.size() &&
               std::memcmp(values.data(), other.values.data(), values.size() * sizeof(float)) == 0;
    }
    // As text: row, feature, bits of the value.
    void save_features(const std::string &path) const {
        FILE *file = std::fopen(path.c_str(), "w");
        CHECK(file != nullptr);
        size_t at = 0;
        for (size_t row = 0; row < counts.size(); row++)
            for (uint32_t i = 0; i < counts[row]; i++, at++) {
                uint32_t bits;
                std::memcpy(&bits, &values[at], sizeof bits);
                std::fprintf(file, "%zu %u %u\n", row, indices[at], bits);
            }
        std::fclose(file);
    }
};
