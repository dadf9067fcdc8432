/* Tokens that leave the middle of a context, and generations longer than it. */
#include <stdlib.h>

#include "test.h"

/* Tokens leave the middle of a context, those behind them move up, and a full context shifts. */
void check_shift(const sm_model *model, sm_context *context, const uint32_t *prompt, size_t n_prompt) {
    size_t n_past = 0, dropped = 0;
    sm_context *rounded = NULL;
    sm_context_params params;
    CHECK(n_prompt > 4);
    CHECK_OK(sm_context_clear(context));
    CHECK_OK(sm_decode(context, prompt, n_prompt, SM_LOGITS_NONE));
    CHECK_OK(sm_context_remove_range(context, 1, 3));
    CHECK_OK(sm_context_n_past(context, &n_past));
    CHECK(n_past == n_prompt - 2);
    CHECK_STATUS(sm_context_remove_range(context, 0, n_past + 1), SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_context_remove_range(context, 2, 1), SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_context_remove_range(NULL, 0, 0), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_context_shift(NULL, 0, &dropped), SM_STATUS_NULL_POINTER);
    CHECK_OK(sm_context_shift(context, n_past - 2, &dropped));
    CHECK(dropped == 1);
    CHECK_STATUS(sm_context_shift(context, n_past, NULL), SM_STATUS_INVALID_ARGUMENT);
    CHECK_OK(sm_decode(context, prompt, 1, SM_LOGITS_LAST));
    CHECK_OK(sm_context_params_init(&params, sizeof params));
    params.n_ctx = 32;
    params.cache_type = SM_CACHE_Q8_0;
    CHECK_OK(sm_context_create(model, &params, &rounded));
    CHECK_OK(sm_decode(rounded, prompt, 4, SM_LOGITS_NONE));
    CHECK_STATUS(sm_context_remove_range(rounded, 1, 2), SM_STATUS_UNSUPPORTED);
    CHECK_OK(sm_context_remove_range(rounded, 1, 4));
    CHECK_OK(sm_context_free(rounded));
}

/* A generation is longer than its context, where that may shift. */
void check_long(const sm_model *model, const uint32_t *prompt, size_t n_prompt) {
    sm_context *context = NULL;
    sm_sampler *sampler = NULL;
    sm_context_params params;
    sm_sampler_params sampling;
    sm_generate_params options;
    sm_generate_summary summary;
    CHECK_OK(sm_context_params_init(&params, sizeof params));
    params.n_ctx = n_prompt + 8;
    CHECK_OK(sm_context_create(model, &params, &context));
    CHECK_OK(sm_sampler_params_init(&sampling, sizeof sampling));
    sampling.temperature = 0;
    CHECK_OK(sm_sampler_create(model, &sampling, &sampler));
    CHECK_OK(sm_generate_params_init(&options, sizeof options));
    CHECK(options.context_shift == -1);
    options.max_tokens = 20;
    CHECK_OK(sm_generate(context, sampler, prompt, n_prompt, &options, &summary, sizeof summary));
    CHECK(summary.n_generated == 9 ? summary.stop_reason == SM_STOP_CONTEXT_FULL : summary.n_generated < 9);
    int full = summary.stop_reason == SM_STOP_CONTEXT_FULL;
    options.context_shift = 1;
    CHECK_OK(sm_context_clear(context));
    CHECK_OK(sm_sampler_reset(sampler));
    CHECK_OK(sm_generate(context, sampler, prompt, n_prompt, &options, &summary, sizeof summary));
    CHECK(!full || (summary.n_generated > 9 && summary.stop_reason != SM_STOP_CONTEXT_FULL));
    CHECK_OK(sm_context_clear(context));
    options.context_shift = -2;
    CHECK_STATUS(sm_generate(context, sampler, prompt, n_prompt, &options, NULL, 0), SM_STATUS_INVALID_ARGUMENT);
    options.context_shift = (int64_t)params.n_ctx - 1;
    CHECK_STATUS(sm_generate(context, sampler, prompt, n_prompt, &options, NULL, 0), SM_STATUS_INVALID_ARGUMENT);
    CHECK_OK(sm_sampler_free(sampler));
    CHECK_OK(sm_context_free(context));
}
