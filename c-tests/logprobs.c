/* Log-probabilities of generated tokens: with a callback, and as a server's events. */
#include <math.h>
#include <string.h>

#include "test.h"

#define TOP 5
#define TOKENS 8

/* What came for each token. */
struct told {
    sm_token_logprob of_token[TOKENS][1 + TOP];
    size_t n_tokens;
};

/* A token's own, then those of the likeliest, in order; `n` in all. */
static void check_one(const sm_token_logprob *of_token, size_t n, uint32_t token) {
    double sum = 0;
    CHECK(n == 1 + TOP && of_token[0].token == token);
    int among = 0;
    for (size_t i = 1; i < n; i++) {
        CHECK(i == 1 || of_token[i].logprob <= of_token[i - 1].logprob);
        sum += exp(of_token[i].logprob);
        if (of_token[i].token == token) {
            among = 1;
            CHECK(of_token[i].logprob == of_token[0].logprob);
        }
    }
    /* Each is rounded to a float, and so are the weights that they come from. */
    CHECK(sum > 0 && sum <= 1 + 1e-5);
    CHECK(among || of_token[0].logprob <= of_token[n - 1].logprob);
}

static void keep(struct told *told, const sm_token_logprob *of_token, size_t n, uint32_t token) {
    CHECK(told->n_tokens < TOKENS);
    check_one(of_token, n, token);
    if (told->n_tokens < TOKENS && n == 1 + TOP) {
        memcpy(told->of_token[told->n_tokens++], of_token, n * sizeof *of_token);
    }
}

static int32_t on_token(void *user_data, const sm_token_event *event) {
    if (event->is_new) {
        keep(user_data, event->logprobs, event->n_logprobs, event->token);
    } else {
        CHECK(event->logprobs == NULL && event->n_logprobs == 0);
    }
    return 0;
}

static int32_t without(void *user_data, const sm_token_event *event) {
    CHECK(event->logprobs == NULL && event->n_logprobs == 0);
    ++*(size_t *)user_data;
    return 0;
}

static int32_t on_text(void *user_data, uint32_t token, const char *text, size_t text_bytes) {
    (void)user_data, (void)token, (void)text, (void)text_bytes;
    return 0;
}

static sm_sampler *sampler_of(const sm_model *model) {
    sm_sampler *sampler = NULL;
    sm_sampler_params params;
    CHECK_OK(sm_sampler_params_init(&params, sizeof params));
    /* Hot, so that tokens come that aren't among the likeliest. */
    params.temperature = 3.0f;
    params.seed = 5;
    CHECK_OK(sm_sampler_create(model, &params, &sampler));
    return sampler;
}

static void generate(const sm_model *model, const uint32_t *prompt, size_t n_prompt, struct told *told) {
    sm_context *context = NULL;
    sm_context_params params;
    sm_generate_params options;
    size_t calls = 0;
    sm_sampler *sampler = sampler_of(model);
    CHECK_OK(sm_context_params_init(&params, sizeof params));
    params.n_ctx = 64;
    CHECK_OK(sm_context_create(model, &params, &context));
    CHECK_OK(sm_generate_params_init(&options, sizeof options));
    CHECK(options.n_logprobs == -1);
    options.max_tokens = TOKENS;
    options.on_token = without;
    options.user_data = &calls;
    CHECK_OK(sm_generate(context, sampler, prompt, n_prompt, &options, NULL, 0));
    CHECK(calls > 0);
    options.on_token = on_token;
    options.user_data = told;
    for (int64_t bad = -2; bad < 102; bad += 103) {
        options.n_logprobs = bad;
        CHECK_STATUS(sm_generate(context, sampler, prompt, n_prompt, &options, NULL, 0), SM_STATUS_INVALID_ARGUMENT);
    }
    options.n_logprobs = TOP;
    options.on_token = NULL;
    CHECK_STATUS(sm_generate(context, sampler, prompt, n_prompt, &options, NULL, 0), SM_STATUS_INVALID_ARGUMENT);
    options.on_text = on_text;
    CHECK_STATUS(sm_generate(context, sampler, prompt, n_prompt, &options, NULL, 0), SM_STATUS_INVALID_ARGUMENT);
    options.on_text = NULL;
    options.on_token = on_token;
    CHECK_OK(sm_context_clear(context));
    CHECK_OK(sm_sampler_reset(sampler));
    CHECK_OK(sm_generate(context, sampler, prompt, n_prompt, &options, NULL, 0));
    CHECK(told->n_tokens > 0);
    CHECK_OK(sm_sampler_free(sampler));
    CHECK_OK(sm_context_free(context));
}

static uint64_t submit(const sm_model *model, sm_server *server, const uint32_t *prompt, size_t n, int64_t top) {
    sm_request_params limits;
    sm_sampler *sampler = sampler_of(model);
    uint64_t request = 0;
    CHECK_OK(sm_request_params_init(&limits, sizeof limits));
    CHECK(limits.n_logprobs == -1);
    limits.max_tokens = TOKENS;
    for (int64_t bad = -2; bad < 102; bad += 103) {
        limits.n_logprobs = bad;
        CHECK_STATUS(sm_server_submit(server, sampler, prompt, n, &limits, &request), SM_STATUS_INVALID_ARGUMENT);
    }
    limits.n_logprobs = top;
    CHECK_OK(sm_server_submit(server, sampler, prompt, n, &limits, &request));
    return request;
}

/* An event stays until its text and its log-probabilities fit; both counts are told whichever doesn't. */
static void check_room(sm_server *server) {
    sm_server_event event = {.kind = 7};
    sm_token_logprob top[1 + TOP];
    char text[256];
    size_t bytes = 77, n = 77;
    CHECK_STATUS(sm_server_poll_logprobs(server, &event, sizeof event, text, 256, &bytes, top, TOP, &n),
                 SM_STATUS_BUFFER_TOO_SMALL);
    CHECK(n == 1 + TOP && bytes < 256);
    n = 77;
    CHECK_STATUS(sm_server_poll_logprobs(server, &event, sizeof event, text, 0, &bytes, top, 1 + TOP, &n),
                 SM_STATUS_BUFFER_TOO_SMALL);
    CHECK(n == 1 + TOP);
    CHECK_OK(sm_server_poll_logprobs(server, &event, sizeof event, text, 256, &bytes, NULL, 0, &n));
    CHECK(n == 1 + TOP);
    CHECK_OK(sm_server_poll_logprobs(server, &event, sizeof event, NULL, 0, &bytes, top, 1 + TOP, &n));
    CHECK_STATUS(sm_server_poll_logprobs(server, &event, sizeof event, text, 256, &bytes, NULL, 6, &n),
                 SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_server_poll_logprobs(server, &event, sizeof event, text, 256, &bytes, top, 1 + TOP, NULL),
                 SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_server_poll_logprobs(server, NULL, sizeof event, text, 256, &bytes, top, 1 + TOP, &n),
                 SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_server_poll_logprobs(server, &event, 3, text, 256, &bytes, top, 1 + TOP, &n),
                 SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_server_poll_logprobs(NULL, &event, sizeof event, text, 256, &bytes, top, 1 + TOP, &n),
                 SM_STATUS_NULL_POINTER);
    CHECK(event.kind == 7);
}

/* A request has what `sm_generate` gives; one that doesn't ask has none. */
void check_logprobs(const sm_model *model, sm_server *server) {
    const uint32_t prompt[] = {1, 2, 3};
    static struct told alone, served;
    sm_server_progress progress = {.n_waiting = 1};
    generate(model, prompt, 3, &alone);
    const uint64_t asks = submit(model, server, prompt, 3, TOP);
    submit(model, server, prompt, 3, -1);
    int tried = 0;
    while (progress.n_running + progress.n_waiting > 0) {
        CHECK_OK(sm_server_step(server, &progress, sizeof progress));
        sm_server_event event = {.kind = SM_EVENT_OUTPUT};
        while (event.kind != SM_EVENT_NONE) {
            sm_token_logprob top[1 + TOP];
            char text[256];
            size_t bytes = 0, n = 77;
            if (!tried) {
                /* The first event there is, once one is there, is a token of the request that asks: it came first. */
                CHECK_OK(sm_server_poll_logprobs(server, &event, sizeof event, text, 256, &bytes, NULL, 0, &n));
                if (n == 1 + TOP) {
                    check_room(server);
                    tried = 1;
                } else {
                    break;
                }
            }
            CHECK_OK(sm_server_poll_logprobs(server, &event, sizeof event, text, 256, &bytes, top, 1 + TOP, &n));
            if (event.kind == SM_EVENT_OUTPUT && event.is_new && event.request == asks) {
                keep(&served, top, n, event.token);
            } else {
                CHECK(n == 0);
            }
        }
    }
    CHECK(tried && served.n_tokens == alone.n_tokens);
    CHECK(memcmp(served.of_token, alone.of_token, sizeof alone.of_token) == 0);
}
