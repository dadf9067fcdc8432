/* Contexts that share a team: who holds it, who waits for whom, and what each computes all the same. */
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

#define BUSY SM_STATUS_BUSY
#define POSITIONS 64
#define VOCAB 256
#define N 96

static sm_context *create(const sm_model *model, size_t n_ctx, size_t threads, sm_team *team) {
    sm_context_params params;
    sm_context *context = NULL;
    CHECK_OK(sm_context_params_init(&params, sizeof params));
    CHECK(params.team == NULL);
    params.n_ctx = n_ctx;
    params.n_batch = 8;
    params.n_threads = threads;
    params.team = team;
    CHECK_OK(sm_context_create(model, &params, &context));
    return context;
}

/* The logits after a prompt of several passes, and tokens one by one behind it. */
static void decode(sm_context *context, float *logits) {
    uint32_t tokens[POSITIONS];
    size_t count = 0;
    for (size_t i = 0; i < POSITIONS; i++) {
        tokens[i] = (uint32_t)(i * 37 % VOCAB);
    }
    CHECK_OK(sm_context_clear(context));
    CHECK_OK(sm_decode(context, tokens, POSITIONS / 2, SM_LOGITS_NONE));
    for (size_t i = POSITIONS / 2; i < POSITIONS; i++) {
        CHECK_OK(sm_decode(context, tokens + i, 1, SM_LOGITS_LAST));
    }
    CHECK_OK(sm_logits_copy(context, logits, VOCAB, &count));
    CHECK(count == VOCAB);
}

static void check_holding(const sm_model *model) {
    sm_team *team = NULL;
    CHECK_OK(sm_team_create(2, &team));
    sm_context *first = create(model, 0, 0, team), *second = create(model, 0, 1, team);
    CHECK_STATUS(sm_team_free(team), BUSY);
    CHECK(strstr(sm_last_error(), "a context holds the team") != NULL);
    CHECK_OK(sm_context_free(first));
    CHECK_STATUS(sm_team_free(team), BUSY);
    CHECK_OK(sm_context_free(second));

    /* A context that isn't made doesn't hold it, nor does asking for the memory. */
    sm_context_params params;
    sm_memory_estimate shared, own;
    sm_context *none = NULL;
    CHECK_OK(sm_context_params_init(&params, sizeof params));
    params.n_threads = 2;
    CHECK_OK(sm_context_memory(model, &params, &own, sizeof own));
    params.n_threads = 0;
    CHECK_STATUS(sm_context_create(model, &params, &none), SM_STATUS_INVALID_ARGUMENT);
    params.team = team;
    CHECK_OK(sm_context_memory(model, &params, &shared, sizeof shared));
    CHECK(shared.total_bytes == own.total_bytes);
    params.n_ctx = POSITIONS + 1;
    CHECK_STATUS(sm_context_create(model, &params, &none), SM_STATUS_INVALID_ARGUMENT);
    CHECK(none == NULL);

    /* A host that was compiled before there was `team` doesn't hold one, whatever stands behind its structure. */
    CHECK_OK(sm_context_params_init(&params, offsetof(sm_context_params, team)));
    CHECK(params.struct_size == offsetof(sm_context_params, team));
    params.team = team;
    CHECK_OK(sm_context_create(model, &params, &none));
    CHECK_OK(sm_team_free(team));
    CHECK_OK(sm_context_free(none));
}

/* One host thread's part: a context of the team's, and what it computes alone. */
struct part {
    sm_context *context;
    float wanted[VOCAB];
};

static void *decode_often(void *data) {
    struct part *part = data;
    float logits[VOCAB];
    for (int i = 0; i < 20; i++) {
        decode(part->context, logits);
        CHECK(memcmp(logits, part->wanted, sizeof logits) == 0);
    }
    return NULL;
}

static float a[N * N], b[N * N], wanted[N * N], c[N * N];

static void *multiply_often(void *data) {
    sm_matmul_params params;
    CHECK_OK(sm_matmul_params_init(&params, sizeof params));
    params.m = params.n = params.k = N;
    params.team = data;
    for (int i = 0; i < 500; i++) {
        memset(c, 0, sizeof c);
        CHECK_OK(sm_matmul(&params, a, b, c));
        CHECK(memcmp(c, wanted, sizeof c) == 0);
    }
    return NULL;
}

/* Two contexts of different models and a kernel, each on a thread of its own: none is refused, and each computes what
 * it does alone. */
static void check_turns(const sm_model *const models[2]) {
    static struct part parts[2];
    pthread_t threads[3];
    sm_team *team = NULL;
    CHECK_OK(sm_team_create(2, &team));
    for (int i = 0; i < 2; i++) {
        sm_context *alone = create(models[i], 0, 1, NULL);
        decode(alone, parts[i].wanted);
        CHECK_OK(sm_context_free(alone));
        parts[i].context = create(models[i], 0, 0, team);
    }
    CHECK(memcmp(parts[0].wanted, parts[1].wanted, sizeof parts[0].wanted) != 0);
    for (size_t i = 0; i < N * N; i++) {
        a[i] = (float)(i % 7) - 3.0f;
        b[i] = (float)(i % 11) - 5.0f;
    }
    CHECK_OK(sm_matmul_f32(N, N, N, a, N, b, N, 0, wanted, N));
    CHECK(pthread_create(&threads[0], NULL, decode_often, &parts[0]) == 0);
    CHECK(pthread_create(&threads[1], NULL, decode_often, &parts[1]) == 0);
    CHECK(pthread_create(&threads[2], NULL, multiply_often, team) == 0);
    for (int i = 0; i < 3; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK_STATUS(sm_team_free(team), BUSY);
    CHECK_OK(sm_context_free(parts[0].context));
    CHECK_OK(sm_context_free(parts[1].context));
    CHECK_OK(sm_team_free(team));
}

/* What a text callback uses while its own context generates on the same team. */
struct inside {
    struct part part;
    sm_team *team;
    int calls;
};

static int32_t on_text(void *user_data, uint32_t token, const char *text, size_t text_bytes) {
    struct inside *inside = user_data;
    float logits[VOCAB];
    (void)token, (void)text, (void)text_bytes;
    inside->calls++;
    decode(inside->part.context, logits);
    CHECK(memcmp(logits, inside->part.wanted, sizeof logits) == 0);
    CHECK_STATUS(sm_team_free(inside->team), BUSY);
    return 0;
}

static void check_callback(const sm_model *model, const char *model_path) {
    static struct inside inside;
    const char *text = "Once upon a time";
    uint32_t prompt[32];
    size_t n_prompt = 0;
    sm_model *writer = NULL;
    sm_sampler *sampler = NULL;
    sm_generate_params params;
    CHECK_OK(sm_team_create(2, &inside.team));
    inside.part.context = create(model, 0, 0, inside.team);
    decode(inside.part.context, inside.part.wanted);

    CHECK_OK(sm_model_load(model_path, NULL, &writer));
    CHECK_OK(sm_tokenize(writer, text, strlen(text), 0, 0, prompt, 32, &n_prompt));
    CHECK_OK(sm_sampler_create(writer, NULL, &sampler));
    sm_context *context = create(writer, POSITIONS, 0, inside.team);
    CHECK_OK(sm_generate_params_init(&params, sizeof params));
    params.max_tokens = 4;
    params.on_text = on_text;
    params.user_data = &inside;
    CHECK_OK(sm_generate(context, sampler, prompt, n_prompt, &params, NULL, 0));
    CHECK(inside.calls >= 4);

    CHECK_OK(sm_sampler_free(sampler));
    CHECK_OK(sm_context_free(context));
    CHECK_OK(sm_model_free(writer));
    CHECK_OK(sm_context_free(inside.part.context));
    CHECK_OK(sm_team_free(inside.team));
}

void test_team(const char *model_path) {
    sm_gpt_params params;
    sm_model *models[2] = {NULL, NULL};
    CHECK_OK(sm_gpt_params_init(&params, sizeof params));
    CHECK(params.vocab == VOCAB && params.context == POSITIONS);
    for (int i = 0; i < 2; i++) {
        params.seed = (uint64_t)i;
        CHECK_OK(sm_model_create_random(&params, NULL, &models[i]));
    }
    check_holding(models[0]);
    check_turns((const sm_model *const *)models);
    check_callback(models[0], model_path);
    CHECK_OK(sm_model_free(models[0]));
    CHECK_OK(sm_model_free(models[1]));
}
