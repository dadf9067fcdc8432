// Writes llama.cpp's logits on a model file, for every position of a fixed list of tokens.
// CMakeLists.txt beside it builds it; suite.py and tests/goldens/recipes/families.py run it.
//
// usage: logits MODEL OUT [TOKENS] [--embeddings | --pooled]
//
// Token i is (37 i + 11 i^2 + 5) mod V of a vocabulary of V; TOKENS of them (40 by default) are decoded in one batch
// from position 0. OUT gets TOKENS x V little-endian f32, row i after tokens 0 to i. With --embeddings it gets
// TOKENS x width: the unpooled output of a model without a head; with --pooled one row, by the pooling of the file.
// Settings: f32 keys and values, no flash attention, one thread, plain CPU kernels (no repacked weights).
//
// Exit codes: 0 written; 1 an error; 2 not applicable (an encoder and a decoder, or no decoder at all).

#include "llama.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

[[noreturn]] void fail(int code, const char *why, const char *detail) {
    std::fprintf(stderr, "logits: %s%s\n", why, detail);
    std::exit(code);
}

/// Errors alone are shown.
void log_errors(ggml_log_level level, const char *text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) {
        std::fputs(text, stderr);
    }
}

llama_model *load(const char *path) {
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0;
    params.use_extra_bufts = false;
    llama_model *model = llama_model_load_from_file(path, params);
    if (model == nullptr) {
        fail(1, "llama.cpp can't load ", path);
    }
    return model;
}

llama_context *start(llama_model *model, uint32_t tokens, bool embeddings, bool pooled) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = tokens;
    params.n_batch = params.n_ubatch = params.n_outputs_max = tokens;
    params.n_threads = params.n_threads_batch = 1;
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.embeddings = embeddings;
    if (embeddings && !pooled) {
        params.pooling_type = LLAMA_POOLING_TYPE_NONE;
    }
    params.no_perf = true;
    llama_context *context = llama_init_from_model(model, params);
    if (context == nullptr) {
        fail(1, "llama.cpp can't make a context", "");
    }
    return context;
}

llama_batch fill(uint32_t tokens, uint64_t vocabulary) {
    llama_batch batch = llama_batch_init(static_cast<int32_t>(tokens), 0, 1);
    batch.n_tokens = static_cast<int32_t>(tokens);
    for (uint64_t i = 0; i < tokens; i++) {
        batch.token[i] = static_cast<llama_token>((37 * i + 11 * i * i + 5) % vocabulary);
        batch.pos[i] = static_cast<llama_pos>(i);
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    return batch;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 3) {
        fail(1, "usage: logits MODEL OUT [TOKENS] [--embeddings | --pooled]", "");
    }
    uint32_t tokens = 40;
    bool embeddings = false;
    bool pooled = false;
    for (int n = 3; n < argc; n++) {
        if (std::strcmp(argv[n], "--embeddings") == 0) {
            embeddings = true;
        } else if (std::strcmp(argv[n], "--pooled") == 0) {
            embeddings = pooled = true;
        } else {
            tokens = static_cast<uint32_t>(std::strtoul(argv[n], nullptr, 10));
        }
    }
    if (tokens == 0) {
        fail(1, "no tokens", "");
    }

    llama_log_set(log_errors, nullptr);
    llama_backend_init();
    llama_model *model = load(argv[1]);
    if (!embeddings && (llama_model_has_encoder(model) || !llama_model_has_decoder(model))) {
        fail(2, "n/a: the model has an encoder", "");
    }
    const int32_t vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    llama_context *context = start(model, tokens, embeddings, pooled);
    llama_batch batch = fill(tokens, static_cast<uint64_t>(vocabulary));
    if (llama_decode(context, batch) != 0) {
        fail(1, "llama_decode failed", "");
    }

    FILE *out = std::fopen(argv[2], "wb");
    if (out == nullptr) {
        fail(1, "can't write ", argv[2]);
    }
    size_t width = static_cast<size_t>(embeddings ? llama_model_n_embd_out(model) : vocabulary);
    if (llama_pooling_type(context) == LLAMA_POOLING_TYPE_RANK) {
        width = llama_model_n_cls_out(model);
    }
    const int32_t rows = pooled ? 1 : static_cast<int32_t>(tokens);
    for (int32_t i = 0; i < rows; i++) {
        const float *row = pooled       ? llama_get_embeddings_seq(context, 0)
                           : embeddings ? llama_get_embeddings_ith(context, i)
                                        : llama_get_logits_ith(context, i);
        if (row == nullptr || std::fwrite(row, sizeof(float), width, out) != width) {
            fail(1, "can't write ", argv[2]);
        }
    }
    if (std::fclose(out) != 0) {
        fail(1, "can't write ", argv[2]);
    }
    llama_batch_free(batch);
    llama_free(context);
    llama_model_free(model);
    return 0;
}
