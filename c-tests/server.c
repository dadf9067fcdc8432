/* Many generations at once: 100 requests with different samplers, some of them cancelled, the results of each beside those
 * that it has alone, calls from other threads, and every wrong argument. */
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

#define REQUESTS 100
/* The request whose text follows a JSON schema; it is one that isn't cancelled. */
#define CONSTRAINED 41
#define MAX_PROMPT 64
#define MAX_TEXT 1024

/* A request and what became of it. */
struct job {
    uint32_t prompt[MAX_PROMPT];
    size_t n_prompt;
    sm_sampler_params sampling;
    uint64_t request;
    size_t max_tokens;
    int32_t priority;
    int cancelled;
    char text[MAX_TEXT];
    size_t length;
    uint32_t tokens[64];
    size_t n_tokens;
    sm_server_event last;
};

static struct job jobs[REQUESTS];

static const char *const prompts[] = {"Once upon a time", "The capital of France is", "Water boils at",
                                      "In the beginning", "My favourite colour is"};

/* Lets a text follow a JSON schema, if this build has grammars. */
static void constrain(const sm_model *model, sm_sampler_params *sampling) {
    sm_sampler_params constrained = *sampling;
    sm_sampler *sampler = NULL;
    constrained.grammar_kind = SM_GRAMMAR_JSON_SCHEMA;
    constrained.grammar = "{\"enum\": [\"Paris\", \"Rome\", \"Oslo\"]}";
    const sm_status status = sm_sampler_create(model, &constrained, &sampler);
    CHECK(status == SM_STATUS_OK || status == SM_STATUS_UNSUPPORTED);
    if (status == SM_STATUS_OK) {
        *sampling = constrained;
    }
    CHECK_OK(sm_sampler_free(sampler));
}

static void fill(const sm_model *model, struct job *job, size_t i) {
    const char *prompt = prompts[i % 5];
    memset(job, 0, sizeof *job);
    CHECK_OK(sm_tokenize(model, prompt, strlen(prompt), 0, 1, job->prompt, MAX_PROMPT, &job->n_prompt));
    CHECK_OK(sm_sampler_params_init(&job->sampling, sizeof job->sampling));
    job->sampling.seed = i;
    job->sampling.temperature = (float)(i % 4) * 0.5f;
    job->sampling.top_k = i % 3 * 20;
    job->sampling.top_p = i % 2 ? 0.9f : 1.0f;
    job->sampling.repetition_penalty = i % 7 == 0 ? 1.2f : 1.0f;
    job->max_tokens = 8 + i % 17;
    job->priority = (int32_t)(i % 3);
    if (i == CONSTRAINED) {
        constrain(model, &job->sampling);
    }
}

static void submit(const sm_model *model, sm_server *server, struct job *job) {
    const char *const stop[] = {"\n\n"};
    sm_request_params params;
    sm_sampler *sampler = NULL;
    CHECK_OK(sm_request_params_init(&params, sizeof params));
    CHECK(params.max_tokens == 256 && params.needs_text == 1 && params.priority == 0);
    params.max_tokens = job->max_tokens;
    params.priority = job->priority;
    params.stop = stop;
    params.n_stop = 1;
    CHECK_OK(sm_sampler_create(model, &job->sampling, &sampler));
    CHECK_OK(sm_server_submit(server, sampler, job->prompt, job->n_prompt, &params, &job->request));
}

static struct job *job_of(uint64_t request) {
    for (size_t i = 0; i < REQUESTS; i++) {
        if (jobs[i].request == request) {
            return jobs + i;
        }
    }
    return NULL;
}

/* Takes all events that are there. */
static void poll(sm_server *server) {
    for (;;) {
        sm_server_event event;
        char text[256];
        size_t bytes = 0;
        CHECK_OK(sm_server_poll(server, &event, sizeof event, text, sizeof text, &bytes));
        CHECK(text[bytes] == 0);
        if (event.kind == SM_EVENT_NONE) {
            return;
        }
        struct job *job = job_of(event.request);
        CHECK(job != NULL && job->last.kind == SM_EVENT_NONE);
        if (job == NULL) {
            return;
        }
        if (event.kind == SM_EVENT_OUTPUT) {
            CHECK(job->length + bytes < MAX_TEXT && job->n_tokens < 64);
            memcpy(job->text + job->length, text, bytes + 1);
            job->length += bytes;
            job->tokens[job->n_tokens] = event.token;
            job->n_tokens += event.is_new;
        } else {
            CHECK(event.kind == SM_EVENT_FINISHED ? event.status == SM_STATUS_OK : strcmp(text, "cancelled") == 0);
            job->last = event;
        }
    }
}

/* What the request has alone. */
struct alone {
    char text[MAX_TEXT];
    size_t length;
    uint32_t tokens[64];
    size_t n_tokens;
};

static int32_t on_token(void *user_data, const sm_token_event *event) {
    struct alone *alone = user_data;
    memcpy(alone->text + alone->length, event->text, event->text_bytes + 1);
    alone->length += event->text_bytes;
    alone->tokens[alone->n_tokens] = event->token;
    alone->n_tokens += event->is_new;
    return 0;
}

static void check_alone(const sm_model *model, sm_context *context, const struct job *job) {
    const char *const stop[] = {"\n\n"};
    struct alone alone = {.length = 0};
    sm_generate_params params;
    sm_generate_summary summary;
    sm_sampler *sampler = NULL;
    CHECK_OK(sm_context_clear(context));
    CHECK_OK(sm_sampler_create(model, &job->sampling, &sampler));
    CHECK_OK(sm_generate_params_init(&params, sizeof params));
    params.max_tokens = job->max_tokens;
    params.stop = stop;
    params.n_stop = 1;
    params.on_token = on_token;
    params.user_data = &alone;
    CHECK_OK(sm_generate(context, sampler, job->prompt, job->n_prompt, &params, &summary, sizeof summary));
    if (job->last.kind == SM_EVENT_FINISHED) {
        CHECK(alone.n_tokens == job->n_tokens && strcmp(alone.text, job->text) == 0);
        CHECK(summary.stop_reason == job->last.stop_reason && summary.n_generated == job->last.n_generated);
        CHECK(summary.last_token == job->last.token && summary.n_prompt == job->last.n_prompt);
    }
    CHECK(memcmp(alone.tokens, job->tokens, job->n_tokens * sizeof *job->tokens) == 0);
    CHECK_OK(sm_sampler_free(sampler));
}

static sm_server *create(const sm_model *model) {
    sm_server_params params;
    sm_memory_estimate memory;
    sm_server *server = NULL;
    CHECK_OK(sm_server_params_init(&params, sizeof params));
    CHECK(params.n_sequences == 16 && params.n_requests == 1024 && params.team == NULL);
    params.n_ctx = 256;
    /* 16 sequences would take twice as many. */
    params.n_positions = 1024;
    params.n_threads = 2;
    CHECK_OK(sm_server_memory(model, &params, &memory, sizeof memory));
    CHECK(memory.total_bytes == memory.cache_bytes + memory.arena_bytes);
    CHECK_OK(sm_server_create(model, &params, &server));
    return server;
}

/* All requests through one server, beside what some of them have alone. */
static void check_requests(const sm_model *model, sm_server *server) {
    sm_server_progress progress = {.n_waiting = 1};
    sm_server_stats stats;
    sm_context *context = NULL;
    sm_context_params params;
    char *table = NULL;
    size_t length = 0, cancelled = 0;
    CHECK_OK(sm_profile_reset());
    CHECK_OK(sm_profile_enable(1));
    for (size_t i = 0; i < REQUESTS; i++) {
        fill(model, jobs + i, i);
        submit(model, server, jobs + i);
    }
    for (size_t steps = 0; progress.n_running + progress.n_waiting > 0; steps++) {
        if (steps % 4 == 0 && steps / 4 * 9 < REQUESTS) {
            /* Some wait, some run, some have ended. */
            struct job *job = jobs + steps / 4 * 9;
            int32_t status = -1;
            CHECK_OK(sm_server_status(server, job->request, &status));
            CHECK(status == SM_REQUEST_ENDED || status == SM_REQUEST_WAITING || status == SM_REQUEST_RUNNING);
            job->cancelled = status != SM_REQUEST_ENDED;
            CHECK_OK(sm_server_cancel(server, job->request));
        }
        CHECK_OK(sm_server_step(server, &progress, sizeof progress));
        CHECK(progress.n_running <= 16 && progress.must_poll == 0);
        poll(server);
    }
    CHECK_OK(sm_profile_enable(0));
    CHECK_OK(sm_context_params_init(&params, sizeof params));
    params.n_ctx = 256;
    params.n_threads = 2;
    CHECK_OK(sm_context_create(model, &params, &context));
    for (size_t i = 0; i < REQUESTS; i++) {
        const struct job *job = jobs + i;
        const int ended = job->last.kind == SM_EVENT_FINISHED;
        printf("request %" PRIu64 ", priority %d, %s after %zu tokens: %s\n", job->request, (int)job->priority,
               ended ? "ended" : sm_status_name(job->last.status), job->n_tokens, job->text);
        CHECK(ended ? !job->cancelled : job->cancelled && job->last.status == SM_STATUS_CANCELLED);
        cancelled += !ended;
        if (i % 9 == 0 || i % 10 == 1) {
            check_alone(model, context, job);
        }
    }
    CHECK_OK(sm_context_free(context));
    if (jobs[CONSTRAINED].sampling.grammar_kind != SM_GRAMMAR_NONE) {
        const char *city = jobs[CONSTRAINED].text;
        CHECK(strcmp(city, "\"Paris\"") == 0 || strcmp(city, "\"Rome\"") == 0 || strcmp(city, "\"Oslo\"") == 0);
        CHECK(jobs[CONSTRAINED].last.stop_reason == SM_STOP_END_OF_TEXT);
    }
    CHECK_OK(sm_server_get_stats(server, &stats, sizeof stats));
    CHECK(stats.submitted == REQUESTS && stats.finished + stats.failed == REQUESTS);
    CHECK(stats.cancelled == cancelled && stats.failed == cancelled && cancelled > 0);
    CHECK(stats.n_running == 0 && stats.n_waiting == 0 && stats.n_events == 0 && stats.sampled > REQUESTS);
    CHECK_OK(sm_profile_report(NULL, 0, &length));
    table = malloc(length + 1);
    CHECK_OK(sm_profile_report(table, length + 1, &length));
    CHECK(strstr(table, "sample") != NULL);
    printf("%s\n%" PRIu64 " tokens in %" PRIu64 " passes\n", table, stats.computed, stats.passes);
    free(table);
}

struct shared {
    const sm_model *model;
    sm_server *server;
};

static void *submits(void *data) {
    const struct shared *shared = data;
    for (size_t i = 0; i < REQUESTS / 2; i++) {
        fill(shared->model, jobs + i, i);
        submit(shared->model, shared->server, jobs + i);
        if (i % 5 == 0) {
            CHECK_OK(sm_server_cancel(shared->server, jobs[i].request));
        }
    }
    return NULL;
}

/* One thread submits and cancels while another one steps: no call waits for a pass, or is refused. */
static void check_threads(const sm_model *model, sm_server *server) {
    struct shared shared = {model, server};
    pthread_t thread;
    sm_server_stats stats = {.submitted = 0};
    sm_server_stats before;
    CHECK_OK(sm_server_get_stats(server, &before, sizeof before));
    CHECK(pthread_create(&thread, NULL, submits, &shared) == 0);
    do {
        sm_server_event event;
        char text[256];
        size_t bytes;
        CHECK_OK(sm_server_step(server, NULL, 0));
        do {
            CHECK_OK(sm_server_poll(server, &event, sizeof event, text, sizeof text, &bytes));
        } while (event.kind != SM_EVENT_NONE);
        CHECK_OK(sm_server_get_stats(server, &stats, sizeof stats));
    } while (stats.finished + stats.failed < before.submitted + REQUESTS / 2 || stats.n_events > 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

static void check_bad(const sm_model *model, sm_server *server) {
    const uint32_t outside = UINT32_MAX, token = 1;
    uint32_t *const many = calloc(257, sizeof *many);
    const char *const empty[] = {""};
    sm_server *none = server;
    sm_server_params params;
    sm_request_params limits;
    sm_sampler *sampler = NULL;
    sm_server_event event = {.kind = 7};
    sm_server_stats stats;
    uint64_t request = 77;
    size_t bytes = 0;
    int32_t status = 0;
    char text[2];
    CHECK_OK(sm_sampler_create(model, NULL, &sampler));
    CHECK_OK(sm_request_params_init(&limits, sizeof limits));
    CHECK_STATUS(sm_server_submit(NULL, sampler, &token, 1, NULL, &request), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_server_submit(server, NULL, &token, 1, NULL, &request), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_server_submit(server, sampler, NULL, 1, NULL, &request), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_server_submit(server, sampler, &token, 1, NULL, NULL), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_server_submit(server, sampler, &token, 0, NULL, &request), SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_server_submit(server, sampler, &outside, 1, NULL, &request), SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_server_submit(server, sampler, many, 257, NULL, &request), SM_STATUS_CONTEXT_FULL);
    limits.stop = empty;
    limits.n_stop = 1;
    CHECK_STATUS(sm_server_submit(server, sampler, &token, 1, &limits, &request), SM_STATUS_INVALID_ARGUMENT);
    limits.n_stop = 65;
    CHECK_STATUS(sm_server_submit(server, sampler, &token, 1, &limits, &request), SM_STATUS_INVALID_ARGUMENT);
    limits.n_stop = 0;
    limits.needs_text = 2;
    CHECK_STATUS(sm_server_submit(server, sampler, &token, 1, &limits, &request), SM_STATUS_INVALID_ARGUMENT);
    limits.needs_text = 1;
    limits.struct_size = 3;
    CHECK_STATUS(sm_server_submit(server, sampler, &token, 1, &limits, &request), SM_STATUS_INVALID_ARGUMENT);
    CHECK(request == 77);
    CHECK_STATUS(sm_server_step(NULL, NULL, 0), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_server_step(server, (sm_server_progress *)(void *)many, 3), SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_server_poll(server, NULL, sizeof event, text, 2, &bytes), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_server_poll(server, &event, sizeof event, text, 2, NULL), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_server_status(server, 1, NULL), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_server_cancel(NULL, 1), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_server_get_stats(server, NULL, sizeof stats), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_server_get_stats(server, &stats, 9), SM_STATUS_INVALID_ARGUMENT);
    CHECK_OK(sm_server_cancel(server, UINT64_MAX));
    CHECK_OK(sm_server_status(server, UINT64_MAX, &status));
    CHECK(status == SM_REQUEST_ENDED);

    /* An event stays until its text fits. */
    limits.struct_size = sizeof limits;
    limits.max_tokens = 1;
    CHECK_OK(sm_server_submit(server, sampler, &token, 1, &limits, &request));
    CHECK_OK(sm_server_cancel(server, request));
    CHECK_OK(sm_server_step(server, NULL, 0));
    CHECK_STATUS(sm_server_poll(server, &event, sizeof event, text, 2, &bytes), SM_STATUS_BUFFER_TOO_SMALL);
    CHECK(bytes == strlen("cancelled") && event.kind == 7);
    CHECK_OK(sm_server_poll(server, &event, sizeof event, NULL, 0, &bytes));
    CHECK(bytes == strlen("cancelled") && event.kind == 7);
    CHECK_OK(sm_server_poll(server, &event, sizeof event, (char *)many, 64, &bytes));
    CHECK(event.kind == SM_EVENT_FAILED && event.status == SM_STATUS_CANCELLED && event.request == request);
    CHECK_OK(sm_server_poll(server, &event, sizeof event, text, 2, &bytes));
    CHECK(event.kind == SM_EVENT_NONE && bytes == 0 && text[0] == 0);

    CHECK_OK(sm_server_params_init(&params, sizeof params));
    params.n_ctx = 256;
    params.n_positions = 255;
    CHECK_STATUS(sm_server_create(model, &params, &none), SM_STATUS_INVALID_ARGUMENT);
    CHECK(none == NULL);
    params.n_positions = 0;
    params.n_sequences = 0;
    CHECK_STATUS(sm_server_create(model, &params, &none), SM_STATUS_INVALID_ARGUMENT);
    params.n_sequences = SIZE_MAX;
    CHECK_STATUS(sm_server_create(model, &params, &none), SM_STATUS_INVALID_ARGUMENT);
    params.n_sequences = 1;
    params.cache_type = 9;
    CHECK_STATUS(sm_server_create(model, &params, &none), SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_server_create(NULL, NULL, &none), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_server_create(model, NULL, NULL), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_server_memory(model, NULL, NULL, 0), SM_STATUS_NULL_POINTER);
    CHECK_OK(sm_server_free(NULL));
    free(many);
}

void test_server(const char *model_path) {
    sm_model *model = NULL;
    CHECK_OK(sm_model_load(model_path, NULL, &model));
    sm_server *server = create(model);
    check_requests(model, server);
    check_threads(model, server);
    check_bad(model, server);
    check_logprobs(model, server);
    /* With requests that wait and run. */
    submit(model, server, jobs);
    submit(model, server, jobs + 1);
    CHECK_OK(sm_server_step(server, NULL, 0));
    CHECK_OK(sm_model_free(model));
    CHECK_OK(sm_server_free(server));
}
