/* Every function with NULL, and with sizes and values that can't be. Each is a status and a message; nothing
 * is written, nothing breaks. A test of the package checks that no function of the header is missing here. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

#define HUGE_SIZE SIZE_MAX
#define NULL_POINTER SM_STATUS_NULL_POINTER
#define INVALID SM_STATUS_INVALID_ARGUMENT

static const size_t bad_struct_sizes[] = {0, 1, 7, 4097, SIZE_MAX / 2, SIZE_MAX};
#define FOR_EACH_BAD_SIZE(size)                                                                      \
    for (size_t i_ = 0, size = 0;                                                                    \
         i_ < sizeof bad_struct_sizes / sizeof bad_struct_sizes[0] && (size = bad_struct_sizes[i_], 1); i_++)

static void without_objects(void) {
    /* These can't fail. */
    CHECK(sm_abi_version() != 0);
    CHECK(sm_version() != NULL && sm_last_error() != NULL);
    CHECK(strcmp(sm_status_name(INT32_MIN), "unknown status") == 0);
    CHECK(strcmp(sm_status_name(INT32_MAX), "unknown status") == 0);

    CHECK_OK(sm_set_log_callback(NULL, NULL));
    CHECK_STATUS(sm_profile_enable(2), INVALID);
    CHECK_STATUS(sm_profile_enable(INT32_MIN), INVALID);
    CHECK(sm_last_error_copy(NULL, HUGE_SIZE, NULL) == strlen(sm_last_error()) + 1);
    CHECK_OK(sm_profile_reset());
    CHECK_STATUS(sm_profile_snapshot(NULL, 0, 0, NULL), NULL_POINTER);
    size_t count = 0;
    CHECK_STATUS(sm_profile_snapshot(NULL, sizeof(sm_method_stats), 5, &count), NULL_POINTER);
    sm_profile_info info;
    CHECK_STATUS(sm_profile_describe(NULL, sizeof info), NULL_POINTER);
    FOR_EACH_BAD_SIZE(size) {
        CHECK_STATUS(sm_profile_describe(&info, size), INVALID);
    }
    CHECK_STATUS(sm_profile_report(NULL, 0, NULL), NULL_POINTER);
    CHECK_STATUS(sm_profile_report(NULL, 5, &count), NULL_POINTER);
    CHECK_STATUS(sm_kernel_info(NULL, sizeof(sm_kernel), 5, &count), NULL_POINTER);
    CHECK_STATUS(sm_kernel_info(NULL, sizeof(sm_kernel), 0, NULL), NULL_POINTER);
    sm_kernel kernel;
    CHECK_STATUS(sm_kernel_info(&kernel, sizeof kernel, 1, &count), SM_STATUS_BUFFER_TOO_SMALL);

    /* Freeing nothing is fine. */
    CHECK_OK(sm_model_free(NULL));
    CHECK_OK(sm_context_free(NULL));
    CHECK_OK(sm_sampler_free(NULL));
}

static void parameters(const sm_model *model) {
    sm_model_params model_params;
    sm_context_params context_params;
    sm_sampler_params sampler_params;
    sm_generate_params generate_params;
    sm_gpt_params gpt_params;
    CHECK_STATUS(sm_gpt_params_init(NULL, sizeof gpt_params), NULL_POINTER);
    CHECK_STATUS(sm_model_params_init(NULL, sizeof model_params), NULL_POINTER);
    CHECK_STATUS(sm_context_params_init(NULL, sizeof context_params), NULL_POINTER);
    CHECK_STATUS(sm_sampler_params_init(NULL, sizeof sampler_params), NULL_POINTER);
    CHECK_STATUS(sm_generate_params_init(NULL, sizeof generate_params), NULL_POINTER);
    sm_model_info model_info;
    sm_special_tokens special;
    sm_memory_estimate memory;
    sm_model *other = NULL;
    sm_context *context = NULL;
    sm_sampler *sampler = NULL;
    FOR_EACH_BAD_SIZE(size) {
        CHECK_STATUS(sm_model_params_init(&model_params, size), INVALID);
        CHECK_STATUS(sm_context_params_init(&context_params, size), INVALID);
        CHECK_STATUS(sm_sampler_params_init(&sampler_params, size), INVALID);
        CHECK_STATUS(sm_generate_params_init(&generate_params, size), INVALID);
        CHECK_STATUS(sm_gpt_params_init(&gpt_params, size), INVALID);
        CHECK_STATUS(sm_model_describe(model, &model_info, size), INVALID);
        CHECK_STATUS(sm_model_special_tokens(model, &special, size), INVALID);
        CHECK_STATUS(sm_context_memory(model, NULL, &memory, size), INVALID);
        model_params.struct_size = context_params.struct_size = sampler_params.struct_size = size;
        gpt_params.struct_size = size;
        CHECK_STATUS(sm_model_load("x.gguf", &model_params, &other), INVALID);
        CHECK_STATUS(sm_model_create_random(NULL, &model_params, &other), INVALID);
        CHECK_STATUS(sm_model_create_random(&gpt_params, NULL, &other), INVALID);
        CHECK_STATUS(sm_context_create(model, &context_params, &context), INVALID);
        CHECK_STATUS(sm_sampler_create(model, &sampler_params, &sampler), INVALID);
    }
    CHECK(other == NULL && context == NULL && sampler == NULL);
}

static void random_models(void) {
    sm_model *model = (sm_model *)(uintptr_t)8;
    CHECK_STATUS(sm_model_create_random(NULL, NULL, NULL), NULL_POINTER);
    sm_model_params load;
    CHECK_OK(sm_model_params_init(&load, sizeof load));
    load.isa = "z80";
    CHECK_STATUS(sm_model_create_random(NULL, &load, &model), INVALID);
    CHECK(model == NULL);

    sm_gpt_params params;
    CHECK_OK(sm_gpt_params_init(&params, sizeof params));
    size_t *fields[] = {&params.vocab, &params.context, &params.dim, &params.layers, &params.heads};
    const size_t wrong[] = {0, (size_t)1 << 30, HUGE_SIZE};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        size_t good = *fields[i];
        for (size_t j = 0; j < sizeof wrong / sizeof *wrong; j++) {
            *fields[i] = wrong[j];
            model = (sm_model *)(uintptr_t)8;
            CHECK_STATUS(sm_model_create_random(&params, NULL, &model), INVALID);
            CHECK(model == NULL);
        }
        *fields[i] = good;
    }
    params.heads = 3;
    CHECK_STATUS(sm_model_create_random(&params, NULL, &model), INVALID);
    CHECK(strstr(sm_last_error(), "no multiple of 3 heads") != NULL);
    params.heads = 1;
    params.dim = 2048;
    CHECK_STATUS(sm_model_create_random(&params, NULL, &model), INVALID);
    params.heads = 64;
    params.dim = 65536;
    CHECK_STATUS(sm_model_create_random(&params, NULL, &model), INVALID);
    CHECK(strstr(sm_last_error(), "parameters") != NULL);
}

static void models(const sm_model *model) {
    sm_model *other = (sm_model *)(uintptr_t)8;
    CHECK_STATUS(sm_model_load(NULL, NULL, &other), NULL_POINTER);
    CHECK(other == NULL);
    CHECK_STATUS(sm_model_load("x.gguf", NULL, NULL), NULL_POINTER);
    CHECK_STATUS(sm_model_load_builtin(NULL, NULL), NULL_POINTER);
    CHECK_STATUS(sm_model_load_memory(NULL, 100, NULL, &other), NULL_POINTER);
    CHECK_STATUS(sm_model_load_memory("GGUF", 4, NULL, NULL), NULL_POINTER);
    CHECK_STATUS(sm_model_load_memory("GGUF", HUGE_SIZE, NULL, &other), INVALID);
    CHECK_STATUS(sm_model_load_memory(NULL, 0, NULL, &other), SM_STATUS_FORMAT);

    sm_model_params params;
    CHECK_OK(sm_model_params_init(&params, sizeof params));
    params.memory_map = 2;
    CHECK_STATUS(sm_model_load("x.gguf", &params, &other), INVALID);
    params.memory_map = 0;
    params.default_pre_tokenizer = 2;
    CHECK_STATUS(sm_model_load("x.gguf", &params, &other), INVALID);
    params.default_pre_tokenizer = 0;
    params.activation_bits = 4;
    CHECK_STATUS(sm_model_load("x.gguf", &params, &other), INVALID);
    params.activation_bits = 0;
    params.isa = "z80";
    CHECK_STATUS(sm_model_load("x.gguf", &params, &other), INVALID);
    CHECK(strstr(sm_last_error(), "scalar") != NULL);
    params.isa = "\xff";
    CHECK_STATUS(sm_model_load("x.gguf", &params, &other), INVALID);

    sm_model_info info;
    CHECK_STATUS(sm_model_describe(NULL, &info, sizeof info), NULL_POINTER);
    CHECK_STATUS(sm_model_describe(model, NULL, sizeof info), NULL_POINTER);
}

static void tokens(const sm_model *model) {
    uint32_t token = 0, kind = 0;
    char text[8] = "1234567";
    size_t count = 0;
    CHECK_STATUS(sm_tokenize(NULL, "a", 1, 0, 0, &token, 1, &count), NULL_POINTER);
    CHECK_STATUS(sm_tokenize(model, NULL, 1, 0, 0, &token, 1, &count), NULL_POINTER);
    CHECK_STATUS(sm_tokenize(model, "a", 1, 0, 0, NULL, 1, &count), NULL_POINTER);
    CHECK_STATUS(sm_tokenize(model, "a", 1, 0, 0, &token, 1, NULL), NULL_POINTER);
    CHECK_STATUS(sm_tokenize(model, "a", HUGE_SIZE, 0, 0, &token, 1, &count), INVALID);
    CHECK_STATUS(sm_tokenize(model, "a", 1, 2, 0, &token, 1, &count), INVALID);
    CHECK_STATUS(sm_tokenize(model, "a", 1, 0, -1, &token, 1, &count), INVALID);
    CHECK_STATUS(sm_tokenize(model, "\xc3\x28", 2, 0, 0, &token, 1, &count), INVALID);
    CHECK_STATUS(sm_tokenize(model, "a b c d", 7, 0, 0, &token, 1, &count), SM_STATUS_BUFFER_TOO_SMALL);
    CHECK(count == 4 && token == 0);
    CHECK_OK(sm_tokenize(model, NULL, 0, 0, 0, NULL, 0, &count));
    CHECK(count == 0);

    CHECK_STATUS(sm_detokenize(NULL, &token, 1, 0, text, sizeof text, &count), NULL_POINTER);
    CHECK_STATUS(sm_detokenize(model, NULL, 1, 0, text, sizeof text, &count), NULL_POINTER);
    CHECK_STATUS(sm_detokenize(model, &token, 1, 0, NULL, 8, &count), NULL_POINTER);
    CHECK_STATUS(sm_detokenize(model, &token, 1, 0, text, sizeof text, NULL), NULL_POINTER);
    CHECK_STATUS(sm_detokenize(model, &token, HUGE_SIZE, 0, text, sizeof text, &count), INVALID);
    CHECK_STATUS(sm_detokenize(model, &token, 1, 7, text, sizeof text, &count), INVALID);
    token = SM_TOKEN_NONE;
    CHECK_STATUS(sm_detokenize(model, &token, 1, 0, text, sizeof text, &count), INVALID);
    CHECK_STATUS(sm_token_piece(NULL, 1, text, sizeof text, &count), NULL_POINTER);
    CHECK_STATUS(sm_token_piece(model, 1, NULL, 8, &count), NULL_POINTER);
    CHECK_STATUS(sm_token_piece(model, 1, text, sizeof text, NULL), NULL_POINTER);
    CHECK_STATUS(sm_token_piece(model, SM_TOKEN_NONE, text, sizeof text, &count), INVALID);
    CHECK_STATUS(sm_token_kind(NULL, 1, &kind), NULL_POINTER);
    CHECK_STATUS(sm_token_kind(model, 1, NULL), NULL_POINTER);
    CHECK_STATUS(sm_token_kind(model, SM_TOKEN_NONE, &kind), INVALID);
    sm_special_tokens special;
    CHECK_STATUS(sm_model_special_tokens(NULL, &special, sizeof special), NULL_POINTER);
    CHECK_STATUS(sm_model_special_tokens(model, NULL, sizeof special), NULL_POINTER);
    CHECK(strcmp(text, "1234567") == 0);
}

static void chat(const sm_model *model) {
    sm_chat_message message = {"user", "Hello"};
    const size_t stride = sizeof message;
    char text[8];
    size_t length = 0;
    CHECK_STATUS(sm_chat_apply(NULL, &message, stride, 1, 1, text, sizeof text, &length), NULL_POINTER);
    CHECK_STATUS(sm_chat_apply(model, NULL, stride, 1, 1, text, sizeof text, &length), NULL_POINTER);
    CHECK_STATUS(sm_chat_apply(model, &message, stride, 1, 1, NULL, 8, &length), NULL_POINTER);
    CHECK_STATUS(sm_chat_apply(model, &message, stride, 1, 1, text, sizeof text, NULL), NULL_POINTER);
    CHECK_STATUS(sm_chat_apply(model, &message, 0, 1, 1, text, sizeof text, &length), INVALID);
    CHECK_STATUS(sm_chat_apply(model, &message, stride, HUGE_SIZE, 1, text, sizeof text, &length), INVALID);
    CHECK_STATUS(sm_chat_apply(model, &message, HUGE_SIZE, 2, 1, text, sizeof text, &length), INVALID);
    CHECK_STATUS(sm_chat_apply(model, &message, stride, 1, 5, text, sizeof text, &length), INVALID);
    CHECK_STATUS(sm_chat_apply(model, &message, stride, 1, 1, text, sizeof text, &length),
                 SM_STATUS_BUFFER_TOO_SMALL);
    uint32_t token = 0;
    CHECK_STATUS(sm_chat_tokenize(NULL, &message, stride, 1, 1, 1, &token, 1, &length), NULL_POINTER);
    CHECK_STATUS(sm_chat_tokenize(model, NULL, stride, 1, 1, 1, &token, 1, &length), NULL_POINTER);
    CHECK_STATUS(sm_chat_tokenize(model, &message, stride, 1, 1, 1, NULL, 8, &length), NULL_POINTER);
    CHECK_STATUS(sm_chat_tokenize(model, &message, stride, 1, 1, 1, &token, 1, NULL), NULL_POINTER);
    CHECK_STATUS(sm_chat_tokenize(model, &message, 0, 1, 1, 1, &token, 1, &length), INVALID);
    CHECK_STATUS(sm_chat_tokenize(model, &message, stride, HUGE_SIZE, 1, 1, &token, 1, &length), INVALID);
    sm_chat_params params;
    CHECK_OK(sm_chat_params_init(&params, sizeof params));
    CHECK_STATUS(sm_chat_params_init(NULL, sizeof params), NULL_POINTER);
    CHECK_STATUS(sm_chat_tokenize_with(NULL, &message, stride, 1, &params, &token, 1, &length), NULL_POINTER);
    CHECK_STATUS(sm_chat_tokenize_with(model, NULL, stride, 1, &params, &token, 1, &length), NULL_POINTER);
    CHECK_STATUS(sm_chat_tokenize_with(model, &message, stride, 1, NULL, NULL, 8, &length), NULL_POINTER);
    static const char *const wrong[] = {"[]", "{", "{\"messages\": []}", "{\"a b\": 1}", "1", "\xff"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        params.arguments = wrong[i];
        CHECK_STATUS(sm_chat_tokenize_with(model, &message, stride, 1, &params, &token, 1, &length), INVALID);
    }
    params.arguments = NULL;
    params.prefix = "\xff";
    CHECK_STATUS(sm_chat_tokenize_with(model, &message, stride, 1, &params, &token, 1, &length), INVALID);
    params.prefix = NULL;
    params.add_bos = 2;
    CHECK_STATUS(sm_chat_tokenize_with(model, &message, stride, 1, &params, &token, 1, &length), INVALID);
    message.content = NULL;
    CHECK_STATUS(sm_chat_tokenize(model, &message, stride, 1, 1, 1, &token, 1, &length), NULL_POINTER);
    CHECK_STATUS(sm_chat_apply(model, &message, stride, 1, 1, text, sizeof text, &length), NULL_POINTER);
    message.content = "\xff\xfe";
    CHECK_STATUS(sm_chat_apply(model, &message, stride, 1, 1, text, sizeof text, &length), INVALID);
    message.role = NULL;
    CHECK_STATUS(sm_chat_apply(model, &message, stride, 1, 1, text, sizeof text, &length), NULL_POINTER);
}

static void contexts(const sm_model *model, sm_context *context) {
    sm_context *other = (sm_context *)(uintptr_t)8;
    sm_context_params params;
    sm_memory_estimate memory;
    CHECK_STATUS(sm_context_create(NULL, NULL, &other), NULL_POINTER);
    CHECK(other == NULL);
    CHECK_STATUS(sm_context_create(model, NULL, NULL), NULL_POINTER);
    CHECK_STATUS(sm_context_memory(NULL, NULL, &memory, sizeof memory), NULL_POINTER);
    CHECK_STATUS(sm_context_memory(model, NULL, NULL, sizeof memory), NULL_POINTER);
    size_t *const sizes[] = {&params.n_ctx, &params.n_batch, &params.n_output, &params.n_threads};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        CHECK_OK(sm_context_params_init(&params, sizeof params));
        *sizes[i] = HUGE_SIZE;
        sm_status status = sm_context_create(model, &params, &other);
        CHECK(status == INVALID || status == SM_STATUS_OUT_OF_MEMORY);
        status = sm_context_memory(model, &params, &memory, sizeof memory);
        CHECK(status == INVALID || status == SM_STATUS_OUT_OF_MEMORY);
    }
    CHECK_OK(sm_context_params_init(&params, sizeof params));
    params.n_threads = 0;
    CHECK_STATUS(sm_context_create(model, &params, &other), INVALID);
    static const int32_t types[] = {-1, 3, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        CHECK_OK(sm_context_params_init(&params, sizeof params));
        params.cache_type = types[i];
        CHECK_STATUS(sm_context_create(model, &params, &other), INVALID);
        CHECK(strstr(sm_last_error(), "SM_CACHE_") != NULL);
        memory.total_bytes = 99;
        CHECK_STATUS(sm_context_memory(model, &params, &memory, sizeof memory), INVALID);
        CHECK(memory.total_bytes == 99);
    }
    static const float factors[] = {-1.0f, INFINITY, -INFINITY, NAN};
    for (size_t i = 0; i < sizeof factors / sizeof factors[0]; i++) {
        CHECK_OK(sm_context_params_init(&params, sizeof params));
        params.rope_scale = factors[i];
        CHECK_STATUS(sm_context_create(model, &params, &other), INVALID);
        params.rope_scale = 0.0f;
        params.rope_base = factors[i];
        CHECK_STATUS(sm_context_create(model, &params, &other), INVALID);
        CHECK(strstr(sm_last_error(), "rope") != NULL);
    }
    CHECK(other == NULL);

    uint32_t token = 1;
    size_t count = 99, n_vocab = 0;
    const float *logits = NULL;
    CHECK_STATUS(sm_context_clear(NULL), NULL_POINTER);
    CHECK_STATUS(sm_context_cancel(NULL), NULL_POINTER);
    CHECK_STATUS(sm_context_cancel_generation(NULL, 1), NULL_POINTER);
    CHECK_STATUS(sm_context_cancel_generation(context, 0), INVALID);
    CHECK_STATUS(sm_context_tokens(NULL, &token, 1, &count), NULL_POINTER);
    CHECK_STATUS(sm_context_tokens(context, NULL, 1, &count), NULL_POINTER);
    CHECK_STATUS(sm_context_tokens(context, &token, 1, NULL), NULL_POINTER);
    CHECK_STATUS(sm_context_rewind(NULL, 0), NULL_POINTER);
    CHECK_STATUS(sm_context_keep(NULL), NULL_POINTER);
    CHECK_STATUS(sm_context_rewind(context, HUGE_SIZE), INVALID);
    CHECK_STATUS(sm_context_save(NULL, "snapshot"), NULL_POINTER);
    CHECK_STATUS(sm_context_save(context, NULL), NULL_POINTER);
    CHECK_STATUS(sm_context_save(context, ""), INVALID);
    CHECK_STATUS(sm_context_save(context, "/no/such/folder/snapshot"), SM_STATUS_IO);
    CHECK_STATUS(sm_context_load(NULL, "snapshot"), NULL_POINTER);
    CHECK_STATUS(sm_context_load(context, NULL), NULL_POINTER);
    CHECK_STATUS(sm_context_load(context, "/no/such/folder/snapshot"), SM_STATUS_IO);
    CHECK_STATUS(sm_context_save_memory(NULL, NULL, 0, &count), NULL_POINTER);
    CHECK_STATUS(sm_context_save_memory(context, NULL, 0, NULL), NULL_POINTER);
    CHECK_STATUS(sm_context_save_memory(context, NULL, 1, &count), NULL_POINTER);
    CHECK_STATUS(sm_context_load_memory(NULL, NULL, 0), NULL_POINTER);
    CHECK_STATUS(sm_context_load_memory(context, NULL, 1), NULL_POINTER);
    CHECK_STATUS(sm_context_load_memory(context, NULL, 0), SM_STATUS_FORMAT);
    CHECK_STATUS(sm_context_load_memory(context, (const uint8_t *)"smallkv", 7), SM_STATUS_FORMAT);
    CHECK_STATUS(sm_context_n_past(NULL, &count), NULL_POINTER);
    CHECK_STATUS(sm_context_n_past(context, NULL), NULL_POINTER);
    CHECK_STATUS(sm_context_n_ctx(NULL, &count), NULL_POINTER);
    CHECK_STATUS(sm_context_n_ctx(context, NULL), NULL_POINTER);
    CHECK_STATUS(sm_decode(NULL, &token, 1, SM_LOGITS_LAST), NULL_POINTER);
    CHECK_STATUS(sm_decode(context, NULL, 1, SM_LOGITS_LAST), NULL_POINTER);
    CHECK_STATUS(sm_decode(context, &token, 0, SM_LOGITS_LAST), INVALID);
    CHECK_STATUS(sm_decode(context, &token, HUGE_SIZE, SM_LOGITS_LAST), INVALID);
    CHECK_STATUS(sm_decode(context, &token, 1, 3), INVALID);
    token = SM_TOKEN_NONE;
    CHECK_STATUS(sm_decode(context, &token, 1, SM_LOGITS_LAST), INVALID);
    CHECK_STATUS(sm_logits(NULL, &logits, &count, &n_vocab), NULL_POINTER);
    CHECK_STATUS(sm_logits(context, NULL, &count, &n_vocab), NULL_POINTER);
    CHECK_OK(sm_logits(context, &logits, NULL, NULL));
    CHECK(logits == NULL);
    CHECK_STATUS(sm_logits_copy(NULL, NULL, 0, &count), NULL_POINTER);
    CHECK_STATUS(sm_logits_copy(context, NULL, 0, NULL), NULL_POINTER);
    CHECK_OK(sm_context_n_past(context, &count));
    CHECK(count == 0);
}

/* Keeps the likeliest candidate's neighbours out; fails or lies where asked to. */
static int32_t on_candidates(void *user_data, sm_token_logit *candidates, size_t *n) {
    int32_t *how = user_data;
    if (*how == 2) {
        *n += 1;
    } else if (*how == 3) {
        candidates[0].token = SM_TOKEN_NONE;
    } else if (*how == 4) {
        candidates[0].logit = NAN;
    } else {
        candidates[0] = candidates[*n - 1];
        *n = 1;
    }
    return *how == 1;
}

static void sampler_lists(const sm_model *model) {
    sm_sampler *other = NULL;
    sm_sampler_params params;
    sm_logit_bias biases[2] = {{1, 2.0f}, {SM_TOKEN_NONE, 1.0f}};
    CHECK_OK(sm_sampler_params_init(&params, sizeof params));
    params.n_logit_bias = 2;
    CHECK_STATUS(sm_sampler_create(model, &params, &other), NULL_POINTER);
    params.logit_bias = biases;
    CHECK_STATUS(sm_sampler_create(model, &params, &other), INVALID);
    biases[1].token = 2;
    biases[1].bias = INFINITY;
    CHECK_STATUS(sm_sampler_create(model, &params, &other), INVALID);
    params.n_logit_bias = HUGE_SIZE;
    CHECK_STATUS(sm_sampler_create(model, &params, &other), INVALID);

    const int32_t twice[2] = {SM_STAGE_TOP_K, SM_STAGE_TOP_K}, none[1] = {99};
    CHECK_OK(sm_sampler_params_init(&params, sizeof params));
    params.order = twice;
    params.n_order = 2;
    CHECK_STATUS(sm_sampler_create(model, &params, &other), INVALID);
    params.order = none;
    params.n_order = 1;
    CHECK_STATUS(sm_sampler_create(model, &params, &other), INVALID);
    params.order = NULL;
    CHECK_STATUS(sm_sampler_create(model, &params, &other), NULL_POINTER);

    CHECK_OK(sm_sampler_params_init(&params, sizeof params));
    params.mirostat = 2;
    CHECK_STATUS(sm_sampler_create(model, &params, &other), INVALID);
    CHECK_OK(sm_sampler_params_init(&params, sizeof params));
    params.dry_multiplier = 1.0f;
    params.n_dry_breakers = HUGE_SIZE;
    CHECK_STATUS(sm_sampler_create(model, &params, &other), INVALID);
    CHECK(other == NULL);

    sm_model_info info;
    CHECK_OK(sm_model_describe(model, &info, sizeof info));
    float *logits = calloc(info.n_vocab, sizeof *logits);
    CHECK(logits != NULL);
    logits[3] = 9.0f;
    int32_t how = 0;
    uint32_t token = 0;
    CHECK_OK(sm_sampler_params_init(&params, sizeof params));
    params.on_candidates = on_candidates;
    params.user_data = &how;
    CHECK_OK(sm_sampler_create(model, &params, &other));
    CHECK_OK(sm_sampler_sample(other, logits, info.n_vocab, &token));
    for (how = 1; how <= 4; how++) {
        CHECK_STATUS(sm_sampler_sample(other, logits, info.n_vocab, &token), INVALID);
    }
    float logprob = 1.0f;
    sm_token_logprob best[2];
    CHECK_OK(sm_sampler_logprobs(other, logits, info.n_vocab, 3, &logprob, best, 2));
    CHECK(logprob < 0.0f && best[0].token == 3 && best[0].logprob == logprob && best[1].logprob < logprob);
    CHECK_OK(sm_sampler_logprobs(other, logits, info.n_vocab, 3, &logprob, NULL, 0));
    CHECK_STATUS(sm_sampler_logprobs(other, logits, info.n_vocab, 3, NULL, NULL, 0), NULL_POINTER);
    CHECK_STATUS(sm_sampler_logprobs(other, logits, info.n_vocab, SM_TOKEN_NONE, &logprob, NULL, 0), INVALID);
    CHECK_STATUS(sm_sampler_logprobs(other, logits, 1, 0, &logprob, NULL, 0), INVALID);
    CHECK_STATUS(sm_sampler_logprobs(other, logits, info.n_vocab, 3, &logprob, best, HUGE_SIZE), INVALID);
    CHECK_STATUS(sm_sampler_logprobs(NULL, logits, info.n_vocab, 3, &logprob, NULL, 0), NULL_POINTER);
    CHECK_OK(sm_sampler_free(other));
    free(logits);
}

static void samplers(const sm_model *model, sm_sampler *sampler) {
    sm_sampler *other = (sm_sampler *)(uintptr_t)8;
    sm_sampler_params params;
    CHECK_STATUS(sm_sampler_create(NULL, NULL, &other), NULL_POINTER);
    CHECK(other == NULL);
    CHECK_STATUS(sm_sampler_create(model, NULL, NULL), NULL_POINTER);
    float *const fields[] = {&params.temperature,        &params.top_p,
                             &params.min_p,              &params.repetition_penalty,
                             &params.frequency_penalty,  &params.presence_penalty,
                             &params.temperature_range,  &params.temperature_exponent,
                             &params.top_n_sigma,        &params.typical_p,
                             &params.xtc_probability,    &params.xtc_threshold,
                             &params.dry_multiplier,     &params.dry_base,
                             &params.mirostat_tau,       &params.mirostat_eta};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        CHECK_OK(sm_sampler_params_init(&params, sizeof params));
        *fields[i] = NAN;
        CHECK_STATUS(sm_sampler_create(model, &params, &other), INVALID);
        *fields[i] = INFINITY;
        CHECK_STATUS(sm_sampler_create(model, &params, &other), INVALID);
    }
    CHECK_OK(sm_sampler_params_init(&params, sizeof params));
    params.temperature = -1.0f;
    CHECK_STATUS(sm_sampler_create(model, &params, &other), INVALID);
    CHECK_OK(sm_sampler_params_init(&params, sizeof params));
    params.penalty_last_n = HUGE_SIZE;
    CHECK_STATUS(sm_sampler_create(model, &params, &other), INVALID);
    sampler_lists(model);
    CHECK(other == NULL);

    uint32_t token = 5;
    float logits[4] = {0};
    CHECK_STATUS(sm_sampler_reset(NULL), NULL_POINTER);
    CHECK_STATUS(sm_sampler_accept(NULL, 1), NULL_POINTER);
    CHECK_STATUS(sm_sampler_accept(sampler, SM_TOKEN_NONE), INVALID);
    CHECK_STATUS(sm_sampler_sample(NULL, logits, 4, &token), NULL_POINTER);
    CHECK_STATUS(sm_sampler_sample(sampler, NULL, 4, &token), NULL_POINTER);
    CHECK_STATUS(sm_sampler_sample(sampler, logits, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_sampler_sample(sampler, logits, 4, &token), INVALID);
    CHECK_STATUS(sm_sampler_sample(sampler, logits, HUGE_SIZE, &token), INVALID);
    CHECK(token == 5);
}

static void generation(sm_context *context, sm_sampler *sampler) {
    uint32_t prompt[64] = {1};
    sm_generate_summary summary;
    const size_t size = sizeof summary;
    CHECK_STATUS(sm_generate(NULL, sampler, prompt, 1, NULL, &summary, size), NULL_POINTER);
    CHECK_STATUS(sm_generate(context, NULL, prompt, 1, NULL, &summary, size), NULL_POINTER);
    CHECK_STATUS(sm_generate(context, sampler, NULL, 1, NULL, &summary, size), NULL_POINTER);
    CHECK_STATUS(sm_generate(context, sampler, NULL, 0, NULL, &summary, size), INVALID);
    CHECK_STATUS(sm_generate(context, sampler, prompt, HUGE_SIZE, NULL, &summary, size), INVALID);
    CHECK_STATUS(sm_generate(context, sampler, prompt, 64, NULL, &summary, size), SM_STATUS_CONTEXT_FULL);
    sm_generate_params params;
    FOR_EACH_BAD_SIZE(bad) {
        CHECK_STATUS(sm_generate(context, sampler, prompt, 1, NULL, &summary, bad), INVALID);
        params.struct_size = bad;
        CHECK_STATUS(sm_generate(context, sampler, prompt, 1, &params, &summary, size), INVALID);
    }
    prompt[0] = SM_TOKEN_NONE;
    CHECK_STATUS(sm_generate(context, sampler, prompt, 1, NULL, &summary, size), INVALID);

    /* Until the context is full, and no further. */
    prompt[0] = 1;
    CHECK_OK(sm_generate_params_init(&params, sizeof params));
    params.max_tokens = HUGE_SIZE;
    CHECK_OK(sm_generate(context, sampler, prompt, 1, &params, &summary, size));
    size_t n_past = 0, n_ctx = 0;
    CHECK_OK(sm_context_n_past(context, &n_past));
    CHECK_OK(sm_context_n_ctx(context, &n_ctx));
    if (summary.stop_reason == SM_STOP_CONTEXT_FULL) {
        CHECK(n_past == n_ctx);
        CHECK_STATUS(sm_decode(context, prompt, 1, SM_LOGITS_LAST), SM_STATUS_CONTEXT_FULL);
    } else {
        CHECK(summary.stop_reason == SM_STOP_END_OF_TEXT);
    }
    CHECK_OK(sm_context_clear(context));
}

void test_bad_arguments(const char *model_path) {
    without_objects();
    sm_model *model = NULL;
    CHECK_OK(sm_model_load(model_path, NULL, &model));
    if (model == NULL) {
        return;
    }
    sm_context_params params;
    CHECK_OK(sm_context_params_init(&params, sizeof params));
    params.n_ctx = 32;
    sm_context *context = NULL;
    sm_sampler *sampler = NULL;
    CHECK_OK(sm_context_create(model, &params, &context));
    CHECK_OK(sm_sampler_create(model, NULL, &sampler));
    parameters(model);
    models(model);
    random_models();
    tokens(model);
    chat(model);
    contexts(model, context);
    samplers(model, sampler);
    generation(context, sampler);
    CHECK_OK(sm_sampler_free(sampler));
    CHECK_OK(sm_context_free(context));
    CHECK_OK(sm_model_free(model));
}
