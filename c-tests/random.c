/* A model with random weights: made from nothing, decoded, and where it ends. */
#include <stdlib.h>
#include <string.h>

#include "test.h"

#define VOCAB 256
#define POSITIONS 64

/* The logits after all of some tokens, which go in `step` at a time. */
static void decode(const sm_model *model, size_t threads, size_t count, size_t step, float *logits) {
    sm_context_params params;
    sm_context *context = NULL;
    const float *row = NULL;
    size_t rows = 0, columns = 0;
    CHECK_OK(sm_context_params_init(&params, sizeof params));
    params.n_threads = threads;
    CHECK_OK(sm_context_create(model, &params, &context));
    uint32_t tokens[POSITIONS];
    for (size_t i = 0; i < POSITIONS; i++) {
        tokens[i] = (uint32_t)(i * 37 % VOCAB);
    }
    for (size_t at = 0; at < count; at += step) {
        CHECK_OK(sm_decode(context, tokens + at, step, SM_LOGITS_LAST));
    }
    CHECK_OK(sm_logits(context, &row, &rows, &columns));
    CHECK(rows == 1 && columns == VOCAB);
    memcpy(logits, row, VOCAB * sizeof *row);
    if (count == POSITIONS) {
        CHECK_STATUS(sm_decode(context, tokens, 1, SM_LOGITS_LAST), SM_STATUS_CONTEXT_FULL);
    }
    CHECK_OK(sm_context_free(context));
}

static sm_model *create(uint64_t seed) {
    sm_gpt_params params;
    sm_model *model = NULL;
    CHECK_OK(sm_gpt_params_init(&params, sizeof params));
    CHECK(params.vocab == VOCAB && params.context == POSITIONS && params.dim == 128);
    CHECK(params.layers == 2 && params.heads == 4 && params.seed == 42);
    params.seed = seed;
    CHECK_OK(sm_model_create_random(&params, NULL, &model));
    return model;
}

void test_random(void) {
    sm_model *model = create(42), *same = NULL, *other = create(43);
    CHECK_OK(sm_model_create_random(NULL, NULL, &same));

    sm_model_info info;
    CHECK_OK(sm_model_describe(model, &info, sizeof info));
    CHECK(info.n_parameters == 470528 && strcmp(info.architecture, "gpt2") == 0);
    CHECK(info.n_vocab == VOCAB && info.n_ctx_train == POSITIONS && info.n_ff == 512);
    CHECK(!info.has_tokenizer && !info.has_chat_template);
    size_t count = 0;
    CHECK_STATUS(sm_tokenize(model, "a", 1, 0, 0, NULL, 0, &count), SM_STATUS_UNSUPPORTED);

    static float wanted[VOCAB], logits[VOCAB];
    decode(model, 1, POSITIONS, POSITIONS, wanted);
    CHECK(wanted[0] != wanted[1] && wanted[0] == wanted[0]);
    decode(same, 2, POSITIONS, 1, logits);
    CHECK(memcmp(wanted, logits, sizeof wanted) == 0);
    decode(other, 1, POSITIONS, POSITIONS, logits);
    CHECK(memcmp(wanted, logits, sizeof wanted) != 0);

    sm_context_params params;
    sm_context *context = NULL;
    CHECK_OK(sm_context_params_init(&params, sizeof params));
    params.n_ctx = POSITIONS + 1;
    CHECK_STATUS(sm_context_create(model, &params, &context), SM_STATUS_INVALID_ARGUMENT);
    params.n_ctx = 0;
    params.rope_scale = 2.0f;
    CHECK_STATUS(sm_context_create(model, &params, &context), SM_STATUS_INVALID_ARGUMENT);
    CHECK(context == NULL);

    CHECK_OK(sm_model_free(model));
    CHECK_OK(sm_model_free(same));
    CHECK_OK(sm_model_free(other));
}
