/* Training: a model of bytes memorises a sentence and writes it, a resumed training goes on to the bit, and every wrong
 * argument. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

#define SENTENCE "The quick brown fox jumps over the lazy dog and naps."
#define LENGTH (sizeof SENTENCE - 2)
#define STEPS 60

/* One layer, for sequences as long as the sentence. */
static sm_gpt_params shape(void) {
    sm_gpt_params gpt;
    CHECK_OK(sm_gpt_params_init(&gpt, sizeof gpt));
    gpt.context = LENGTH;
    gpt.dim = 32;
    gpt.layers = 1;
    gpt.heads = 2;
    return gpt;
}

static sm_trainer_params parameters(size_t threads) {
    sm_trainer_params params;
    CHECK_OK(sm_trainer_params_init(&params, sizeof params));
    CHECK(params.n_sequences == 1 && params.optimizer == SM_OPTIMIZER_ADAMW && params.team == NULL);
    params.n_threads = threads;
    params.learning_rate = 1e-2;
    return params;
}

/* The sentence's bytes, and those that follow them. */
static void fill(uint32_t *tokens, uint32_t *targets) {
    for (size_t i = 0; i < LENGTH; i++) {
        tokens[i] = (uint32_t)SENTENCE[i];
        targets[i] = (uint32_t)SENTENCE[i + 1];
    }
}

/* The likeliest byte after each, from the first one on, is the sentence. */
static void check_writes(const char *path) {
    sm_model *model = NULL;
    sm_context *context = NULL;
    const float *row = NULL;
    size_t rows = 0, columns = 0;
    char text[LENGTH + 2] = {SENTENCE[0]};
    CHECK_OK(sm_model_load(path, NULL, &model));
    CHECK_OK(sm_context_create(model, NULL, &context));
    for (size_t i = 0; i < LENGTH; i++) {
        const uint32_t token = (uint32_t)text[i];
        size_t best = 0;
        CHECK_OK(sm_decode(context, &token, 1, SM_LOGITS_LAST));
        CHECK_OK(sm_logits(context, &row, &rows, &columns));
        for (size_t j = 1; j < columns; j++) {
            best = row[j] > row[best] ? j : best;
        }
        text[i + 1] = (char)best;
    }
    CHECK(strcmp(text, SENTENCE) == 0);
    printf("trained: %s\n", text);
    CHECK_OK(sm_context_free(context));
    CHECK_OK(sm_model_free(model));
}

static void check_bad(sm_trainer *trainer, const char *folder) {
    sm_trainer *none = trainer;
    sm_trainer_params params = parameters(1);
    uint32_t tokens[LENGTH], targets[LENGTH];
    sm_train_report report;
    double loss = 0;
    fill(tokens, targets);
    CHECK_STATUS(sm_trainer_step(NULL, tokens, targets, LENGTH, NULL, 0), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_trainer_step(trainer, NULL, targets, LENGTH, NULL, 0), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_trainer_step(trainer, tokens, targets, LENGTH - 1, NULL, 0), SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_trainer_step(trainer, tokens, targets, 0, NULL, 0), SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_trainer_step(trainer, tokens, targets, LENGTH, &report, 3), SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_trainer_evaluate(trainer, tokens, targets, LENGTH, NULL), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_trainer_set_learning_rate(trainer, -1), SM_STATUS_INVALID_ARGUMENT);
    tokens[3] = 256;
    CHECK_STATUS(sm_trainer_step(trainer, tokens, targets, LENGTH, NULL, 0), SM_STATUS_INVALID_ARGUMENT);
    fill(tokens, targets);
    for (size_t i = 0; i < LENGTH; i++) {
        targets[i] = SM_NO_TARGET;
    }
    CHECK_STATUS(sm_trainer_evaluate(trainer, tokens, targets, LENGTH, &loss), SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_trainer_save_model(trainer, folder), SM_STATUS_IO);
    CHECK_STATUS(sm_trainer_save_model(trainer, NULL), SM_STATUS_NULL_POINTER);
    params.optimizer = 7;
    CHECK_STATUS(sm_trainer_create_random(NULL, &params, &none), SM_STATUS_INVALID_ARGUMENT);
    CHECK(none == NULL);
    params = parameters(0);
    CHECK_STATUS(sm_trainer_create_random(NULL, &params, &none), SM_STATUS_INVALID_ARGUMENT);
    params = parameters(1);
    params.n_ctx = 65;
    CHECK_STATUS(sm_trainer_create_random(NULL, &params, &none), SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_trainer_create("/nowhere.gguf", NULL, &none), SM_STATUS_IO);
    CHECK_STATUS(sm_trainer_create(NULL, NULL, &none), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_trainer_create_random(NULL, NULL, NULL), SM_STATUS_NULL_POINTER);
    CHECK_OK(sm_trainer_free(NULL));
}

/* Activations that are computed again change no bit. */
static void check_recompute(void) {
    uint32_t tokens[LENGTH], targets[LENGTH];
    double losses[2] = {0, 0};
    fill(tokens, targets);
    for (int again = 0; again < 2; again++) {
        sm_gpt_params gpt = shape();
        sm_trainer_params params = parameters(2);
        sm_trainer *trainer = NULL;
        params.recompute = again;
        CHECK_OK(sm_trainer_create_random(&gpt, &params, &trainer));
        CHECK_OK(sm_trainer_step(trainer, tokens, targets, LENGTH, NULL, 0));
        CHECK_OK(sm_trainer_evaluate(trainer, tokens, targets, LENGTH, &losses[again]));
        CHECK_OK(sm_trainer_free(trainer));
        params.recompute = 2;
        CHECK_STATUS(sm_trainer_create_random(&gpt, &params, &trainer), SM_STATUS_INVALID_ARGUMENT);
        params.recompute = 0;
        params.reserved2 = 1;
        CHECK_STATUS(sm_trainer_create_random(&gpt, &params, &trainer), SM_STATUS_UNSUPPORTED);
        /* A program that was compiled before there was this field: its bytes aren't read. */
        params.recompute = 7;
        params.struct_size = offsetof(sm_trainer_params, recompute);
        CHECK_OK(sm_trainer_create_random(&gpt, &params, &trainer));
        CHECK_OK(sm_trainer_free(trainer));
    }
    CHECK(losses[0] > 0 && losses[0] == losses[1]);
}

/* An adapter of a model learns the sentence, goes on after a break, and changes the model when both are loaded. */
static void check_adapter(const char *folder) {
    char base[4096], adapter[4096], state[4096];
    snprintf(base, sizeof base, "%s/base.gguf", folder);
    snprintf(adapter, sizeof adapter, "%s/adapter.gguf", folder);
    snprintf(state, sizeof state, "%s/adapter.state", folder);
    sm_gpt_params gpt = shape();
    sm_trainer_params params = parameters(2);
    sm_model_params load;
    sm_trainer *trainer = NULL, *resumed = NULL;
    sm_model *model = NULL;
    uint32_t tokens[LENGTH], targets[LENGTH];
    double before = 0, after = 0, again = 0;
    const char *paths[2] = {adapter, adapter};
    float scales[2] = {0.25f, 0.75f};
    fill(tokens, targets);
    CHECK_OK(sm_trainer_create_random(&gpt, &params, &trainer));
    CHECK_OK(sm_trainer_save_model(trainer, base));
    CHECK_OK(sm_trainer_free(trainer));
    CHECK(params.lora_rank == 0 && params.lora_alpha == 0 && params.lora_targets == NULL);
    CHECK(params.recompute == 0 && params.reserved2 == 0);
    params.lora_rank = 8;
    params.lora_targets = "attn_qkv, ffn_up,ffn_down";
    CHECK_OK(sm_trainer_create(base, &params, &trainer));
    CHECK_OK(sm_trainer_evaluate(trainer, tokens, targets, LENGTH, &before));
    for (size_t i = 0; i < STEPS; i++) {
        CHECK_OK(sm_trainer_step(trainer, tokens, targets, LENGTH, NULL, 0));
    }
    CHECK_OK(sm_trainer_evaluate(trainer, tokens, targets, LENGTH, &after));
    /* Embeddings and head stay random. */
    CHECK(after < 0.7 * before);
    CHECK_OK(sm_trainer_save_state(trainer, state));
    CHECK_OK(sm_trainer_save_model(trainer, adapter));
    CHECK_STATUS(sm_trainer_resume(state, &params, &resumed), SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_trainer_resume_adapter(NULL, state, &params, &resumed), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_trainer_resume_adapter(base, base, &params, &resumed), SM_STATUS_FORMAT);
    CHECK_OK(sm_trainer_resume_adapter(base, state, &params, &resumed));
    CHECK_OK(sm_trainer_evaluate(resumed, tokens, targets, LENGTH, &again));
    CHECK(after == again);
    CHECK_OK(sm_trainer_free(resumed));
    CHECK_OK(sm_trainer_free(trainer));
    params.lora_targets = "attn_q";
    CHECK_STATUS(sm_trainer_create(base, &params, &trainer), SM_STATUS_INVALID_ARGUMENT);
    params.lora_targets = NULL;
    params.lora_alpha = -1;
    CHECK_STATUS(sm_trainer_create(base, &params, &trainer), SM_STATUS_INVALID_ARGUMENT);

    CHECK_OK(sm_model_params_init(&load, sizeof load));
    CHECK(load.n_adapters == 0 && load.adapters == NULL && load.adapter_scales == NULL);
    load.adapters = paths;
    load.n_adapters = 1;
    CHECK_OK(sm_model_load(base, &load, &model));
    CHECK_OK(sm_model_free(model));
    load.adapter_scales = scales;
    load.n_adapters = 2;
    CHECK_OK(sm_model_load(base, &load, &model));
    CHECK_OK(sm_model_free(model));
    scales[1] = NAN;
    CHECK_STATUS(sm_model_load(base, &load, &model), SM_STATUS_INVALID_ARGUMENT);
    load.n_adapters = 65;
    CHECK_STATUS(sm_model_load(base, &load, &model), SM_STATUS_INVALID_ARGUMENT);
    load.n_adapters = 1;
    paths[0] = NULL;
    CHECK_STATUS(sm_model_load(base, &load, &model), SM_STATUS_NULL_POINTER);
    paths[0] = base;
    CHECK_STATUS(sm_model_load(base, &load, &model), SM_STATUS_FORMAT);
    load.adapters = NULL;
    CHECK_STATUS(sm_model_load(base, &load, &model), SM_STATUS_NULL_POINTER);
    CHECK(model == NULL);
    /* A program that was compiled before there were adapters. */
    load.struct_size = offsetof(sm_model_params, adapters);
    CHECK_OK(sm_model_load(base, &load, &model));
    CHECK_OK(sm_model_free(model));
    CHECK(remove(base) == 0 && remove(adapter) == 0 && remove(state) == 0);
}

void test_trainer(const char *folder) {
    char model[4096], state[4096];
    snprintf(model, sizeof model, "%s/trained.gguf", folder);
    snprintf(state, sizeof state, "%s/training.state", folder);
    sm_gpt_params gpt = shape();
    sm_trainer_params params = parameters(2);
    sm_trainer *trainer = NULL, *resumed = NULL;
    uint32_t tokens[LENGTH], targets[LENGTH];
    sm_train_report report;
    size_t batch = 0, bytes = 0;
    double before = 0, after = 0;
    fill(tokens, targets);
    CHECK_OK(sm_trainer_create_random(&gpt, &params, &trainer));
    CHECK_OK(sm_trainer_batch_tokens(trainer, &batch));
    CHECK_OK(sm_trainer_memory(trainer, &bytes));
    CHECK(batch == LENGTH && bytes > 4 * 4 * 256 * 32);
    CHECK_OK(sm_trainer_evaluate(trainer, tokens, targets, LENGTH, &before));
    CHECK(fabs(before - log(256)) < 0.5);
    for (size_t i = 0; i < STEPS; i++) {
        CHECK_OK(sm_trainer_step(trainer, tokens, targets, LENGTH, &report, sizeof report));
        CHECK(report.step == i + 1 && report.loss > 0 && report.gradient_norm > 0);
    }
    CHECK_OK(sm_trainer_save_state(trainer, state));
    CHECK_OK(sm_trainer_set_learning_rate(trainer, 1e-3));
    CHECK_OK(sm_trainer_step(trainer, tokens, targets, LENGTH, &report, sizeof report));
    CHECK(report.learning_rate == 1e-3 && report.loss < 0.05);
    CHECK_OK(sm_trainer_evaluate(trainer, tokens, targets, LENGTH, &after));

    /* Another trainer goes on from the file, on another number of threads. */
    params = parameters(1);
    params.learning_rate = 1e-3;
    CHECK_OK(sm_trainer_resume(state, &params, &resumed));
    CHECK_OK(sm_trainer_step(resumed, tokens, targets, LENGTH, NULL, 0));
    CHECK_OK(sm_trainer_evaluate(resumed, tokens, targets, LENGTH, &before));
    CHECK(before == after);
    params.optimizer = SM_OPTIMIZER_SGD;
    CHECK_OK(sm_trainer_free(resumed));
    CHECK_STATUS(sm_trainer_resume(state, &params, &resumed), SM_STATUS_INVALID_ARGUMENT);

    CHECK_OK(sm_trainer_save_model(trainer, model));
    check_writes(model);
    CHECK_STATUS(sm_trainer_resume(model, NULL, &resumed), SM_STATUS_FORMAT);
    check_bad(trainer, folder);
    check_recompute();
    check_adapter(folder);
    CHECK_OK(sm_trainer_free(trainer));
    CHECK(remove(model) == 0 && remove(state) == 0);
}
