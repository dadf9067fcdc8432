// Token ids of texts by llama.cpp, a line a text. The file has a u32 number of texts, then of each a u32 number of bytes
// and the bytes; PRE replaces the vocabulary's pre-tokenizer. Built against llama.cpp's include/ and libllama.
// usage: tokenize VOCABULARY TEXTS ADD_SPECIAL PARSE_SPECIAL [PRE]
#include "llama.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

static uint32_t number(FILE * file) {
    uint32_t number = 0;
    if (fread(&number, sizeof number, 1, file) != 1) {
        exit(1);
    }
    return number;
}

int main(int argc, char ** argv) {
    if (argc < 5) {
        return 2;
    }
    llama_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    llama_backend_init();
    llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    llama_model_kv_override overrides[2] = {};
    if (argc > 5) {
        overrides[0].tag = LLAMA_KV_OVERRIDE_TYPE_STR;
        strcpy(overrides[0].key, "tokenizer.ggml.pre");
        snprintf(overrides[0].val_str, sizeof overrides[0].val_str, "%s", argv[5]);
        params.kv_overrides = overrides;
    }
    llama_model * model = llama_model_load_from_file(argv[1], params);
    FILE * file = fopen(argv[2], "rb");
    if (!model || !file) {
        return 1;
    }
    for (uint32_t left = number(file); left > 0; left--) {
        std::string text(number(file), '\0');
        if (fread(&text[0], 1, text.size(), file) != text.size()) {
            return 1;
        }
        std::vector<llama_token> ids(4 * text.size() + 16);
        const int count = llama_tokenize(llama_model_get_vocab(model), text.data(), text.size(), ids.data(), ids.size(),
                                         atoi(argv[3]), atoi(argv[4]));
        for (int i = 0; i < count; i++) {
            printf(i ? " %d" : "%d", ids[i]);
        }
        printf("\n");
    }
}
