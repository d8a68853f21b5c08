// all-MiniLM-L6-v2 run by llama.cpp, hooked where the SAE of `sae demo` was trained: the features of
// every token of the sentences that are given, one per line.
//
//     minilm MODEL.gguf SAE SENTENCES.txt OUT     writes OUT/minilm.npy, OUT/minilm.txt and
//                                                 OUT/minilm-tokens.txt
#include "host.hpp"

#include <fstream>

int main(int argc, char **argv) {
    CHECK(argc == 5);
    language_model lm(argv[1]);
    const std::string out = argv[4];
    sae_model *sae = nullptr;
    CHECK_OK(sae_model_open(argv[2], nullptr, &sae, &error));
    // The checkpoint says where its rows come from.
    sae_ggml_tap tap = sae_ggml_tap_of(sae);
    const char *where = sae_model_text(sae, SAE_TEXT_HOOK_NAME);
    CHECK_OK(sae_ggml_site_find(where, lm.architecture.c_str(), lm.n_layer, &tap.site, &error));

    std::vector<std::vector<llama_token>> sentences;
    std::ifstream file(argv[3]);
    for (std::string line; std::getline(file, line);) {
        std::vector<llama_token> tokens(line.size() + 8);
        int32_t n = llama_tokenize(lm.vocab(), line.data(), static_cast<int32_t>(line.size()),
                                   tokens.data(), static_cast<int32_t>(tokens.size()), true, true);
        CHECK(n > 0);
        tokens.resize(static_cast<size_t>(n));
        sentences.push_back(tokens);
    }
    CHECK(!sentences.empty());

    auto run = [&](const sae_ggml_tap &with, sae_error *failure) {
        sae_ggml_hook *hook = nullptr;
        CHECK_OK(sae_ggml_hook_create(&hook, &error));
        CHECK_OK(sae_ggml_hook_add(hook, &with, nullptr, &error));
        llama_context *context = lm.context(512, sae_ggml_eval, hook, true);
        sae_status status = SAE_STATUS_OK;
        for (const auto &tokens : sentences) {
            tokens_batch batch(tokens, 0, true);
            std::vector<sae_row_info> infos(tokens.size());
            for (size_t i = 0; i < tokens.size(); i++) {
                std::memset(&infos[i], 0, sizeof infos[i]);
                infos[i].position = static_cast<uint32_t>(i);
                infos[i].plan = SAE_ALL_PLANS;
                infos[i].factor = 1;
                // [CLS] and [SEP] were left out of training.
                bool special = llama_vocab_is_control(lm.vocab(), tokens[i]);
                if (special && with.fit_rows > 0) infos[i].stage = SAE_STAGE_SKIPPED;
            }
            sae_ggml_batch about = batch.about();
            about.infos = infos.data();
            sae_ggml_begin(hook, &about);
            CHECK(llama_encode(context, batch.batch) == 0);
            status = sae_ggml_end(hook, failure);
            if (status != SAE_STATUS_OK) break;
        }
        char text[1024];
        if (sae_ggml_fit_text(hook, 0, text, sizeof text) > 0) std::printf("%s", text);
        llama_free(context);
        sae_ggml_hook_destroy(hook);
        return status;
    };

    collected found;
    tap.encode = 1;
    tap.on_rows = collected::on_rows;
    tap.data = &found;
    CHECK_OK(run(tap, &error));
    save_npy(out + "/minilm.npy", found.rows, found.width);
    found.save_features(out + "/minilm.txt");
    FILE *tokens_file = std::fopen((out + "/minilm-tokens.txt").c_str(), "w");
    CHECK(tokens_file != nullptr);
    for (const auto &tokens : sentences)
        for (llama_token token : tokens) std::fprintf(tokens_file, "%d\n", token);
    std::fclose(tokens_file);

    // A real model, and the fit check finds the block.
    sae_ggml_tap ignored = tap;
    ignored.on_rows = nullptr;
    ignored.fit_rows = 64;
    for (const char *block : {"encoder.layer.2", "encoder.layer.3", "encoder.layer.4"}) {
        CHECK_OK(sae_ggml_site_find(block, "bert", lm.n_layer, &ignored.site, &error));
        sae_error failure;
        sae_status status = run(ignored, &failure);
        if (std::strcmp(block, where) == 0) {
            CHECK(status == SAE_STATUS_OK);
        } else {
            std::printf("  refused: %s\n", failure.message);
            CHECK(status == SAE_STATUS_INVALID_VALUE);
            CHECK(std::strstr(failure.message, "this SAE fits the ADD of `norm_w-3`") != nullptr);
        }
    }
    sae_model_close(sae);
    return 0;
}
