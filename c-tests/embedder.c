/* Vectors of texts: batches, statuses, strides, prompts, progress and cancellation, and every wrong argument. The model is
 * one that writes text, so a pooling is chosen. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

#define CANARY 77.5f
#define N 5

static sm_embedder *create(const sm_model *model, int32_t strategy, size_t n_ctx) {
    sm_embedder_params params;
    sm_embedder *embedder = NULL;
    CHECK_OK(sm_embedder_params_init(&params, sizeof params));
    CHECK(params.team == NULL && params.normalize == 1 && params.pooling == SM_POOLING_FILE);
    params.pooling = SM_POOLING_LAST;
    params.strategy = strategy;
    params.n_ctx = n_ctx;
    params.n_threads = 2;
    params.long_texts = SM_LONG_TEXTS_REFUSE;
    CHECK_OK(sm_embedder_create(model, &params, &embedder));
    return embedder;
}

static double length(const float *row, size_t width) {
    double sum = 0;
    for (size_t i = 0; i < width; i++) {
        sum += (double)row[i] * row[i];
    }
    return sqrt(sum);
}

static int is_zero(const float *row, size_t width) {
    for (size_t i = 0; i < width; i++) {
        if (row[i] != 0) {
            return 0;
        }
    }
    return 1;
}

/* A batch with bad texts: the good ones have the vectors that they have alone, to the bit. */
static void check_batch(sm_embedder *embedder, size_t width) {
    char nul[] = "a\0b";
    const char *texts[N] = {"The capital of France", "bad \xff text", nul, "", "too long: one two three four five six"};
    size_t bytes[N] = {21, 10, 3, 0, 0};
    int32_t statuses[N];
    const size_t stride = width + 2;
    float *rows = malloc((N - 1) * stride * sizeof *rows + width * sizeof *rows);
    float *alone = malloc(width * sizeof *alone);
    sm_embed_summary summary;
    bytes[4] = strlen(texts[4]);
    for (size_t i = 0; i < (N - 1) * stride + width; i++) {
        rows[i] = CANARY;
    }
    CHECK_OK(sm_embedder_embed(embedder, texts, bytes, N, rows, stride, statuses, &summary, sizeof summary));
    CHECK(statuses[0] == SM_TEXT_DONE && statuses[1] == SM_TEXT_NOT_UTF8 && statuses[2] == SM_TEXT_DONE);
    CHECK(statuses[3] == SM_TEXT_EMPTY && statuses[4] == SM_TEXT_TOO_LONG);
    CHECK(summary.n_with_vector == 2 && summary.n_tokens > 2 && summary.seconds > 0);
    for (size_t i = 0; i < N; i++) {
        CHECK(i == N - 1 || (rows[i * stride + width] == CANARY && rows[i * stride + width + 1] == CANARY));
        if (statuses[i] == SM_TEXT_DONE) {
            CHECK(fabs(length(rows + i * stride, width) - 1) < 1e-5);
            CHECK_OK(sm_embedder_embed(embedder, texts + i, bytes + i, 1, alone, width, NULL, NULL, 0));
            CHECK(memcmp(alone, rows + i * stride, width * sizeof *alone) == 0);
        } else {
            CHECK(is_zero(rows + i * stride, width));
        }
    }
    /* NUL-terminated, which cuts the third text off. */
    CHECK_OK(sm_embedder_embed(embedder, texts, NULL, 3, rows, stride, statuses, NULL, 0));
    CHECK(statuses[0] == SM_TEXT_DONE && statuses[1] == SM_TEXT_NOT_UTF8 && statuses[2] == SM_TEXT_DONE);
    CHECK(memcmp(alone, rows + 2 * stride, width * sizeof *alone) != 0);
    /* Nothing at all. */
    CHECK_OK(sm_embedder_embed(embedder, NULL, NULL, 0, NULL, 0, NULL, &summary, sizeof summary));
    CHECK(summary.n_passes == 0);
    free(alone);
    free(rows);
}

/* Tokens have the vector of their text; bad ones have none. */
static void check_tokens(const sm_model *model, sm_embedder *embedder, size_t width) {
    const char *text = "The capital of France";
    uint32_t tokens[16], bad[] = {1, 0xffffffff};
    size_t count = 0;
    float *rows = malloc(3 * width * sizeof *rows), *wanted = malloc(width * sizeof *wanted);
    int32_t statuses[3];
    CHECK_OK(sm_tokenize(model, text, strlen(text), 1, 0, tokens, 16, &count));
    const uint32_t *spans[] = {tokens, bad, NULL};
    size_t lengths[] = {count, 2, 0};
    CHECK_OK(sm_embedder_embed_tokens(embedder, spans, lengths, 3, rows, width, statuses, NULL, 0));
    CHECK(statuses[0] == SM_TEXT_DONE && statuses[1] == SM_TEXT_BAD_TOKEN && statuses[2] == SM_TEXT_EMPTY);
    CHECK_OK(sm_embedder_embed(embedder, &text, NULL, 1, wanted, width, NULL, NULL, 0));
    CHECK(memcmp(rows, wanted, width * sizeof *rows) == 0);
    lengths[2] = 1;
    CHECK_STATUS(sm_embedder_embed_tokens(embedder, spans, lengths, 3, rows, width, statuses, NULL, 0),
                 SM_STATUS_NULL_POINTER);
    free(wanted);
    free(rows);
}

static void check_prompts(sm_embedder *embedder, size_t width) {
    const char *text = "France", *whole = "query: France";
    float *behind = malloc(width * sizeof *behind), *wanted = malloc(width * sizeof *wanted);
    CHECK_OK(sm_embedder_embed(embedder, &whole, NULL, 1, wanted, width, NULL, NULL, 0));
    CHECK_OK(sm_embedder_set_prompt_named(embedder, "e5:query"));
    CHECK_OK(sm_embedder_embed(embedder, &text, NULL, 1, behind, width, NULL, NULL, 0));
    CHECK(memcmp(behind, wanted, width * sizeof *wanted) == 0);
    CHECK_OK(sm_embedder_set_prompt(embedder, NULL));
    CHECK_OK(sm_embedder_embed(embedder, &text, NULL, 1, behind, width, NULL, NULL, 0));
    CHECK(memcmp(behind, wanted, width * sizeof *wanted) != 0);
    CHECK_OK(sm_embedder_set_prompt(embedder, "query: "));
    CHECK_OK(sm_embedder_embed(embedder, &text, NULL, 1, behind, width, NULL, NULL, 0));
    CHECK(memcmp(behind, wanted, width * sizeof *wanted) == 0);
    CHECK_STATUS(sm_embedder_set_prompt_named(embedder, "nothing"), SM_STATUS_INVALID_ARGUMENT);
    CHECK(strstr(sm_last_error(), "gemma:query") != NULL);
    CHECK_STATUS(sm_embedder_set_prompt(embedder, "\xff"), SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_embedder_set_prompt_named(embedder, NULL), SM_STATUS_NULL_POINTER);
    CHECK_OK(sm_embedder_set_prompt(embedder, NULL));
    free(wanted);
    free(behind);
}

/* What a progress callback is given, and does. */
struct watch {
    sm_embedder *embedder;
    int calls, cancels, status;
    float last;
};

static int32_t on_progress(void *user_data, float fraction) {
    struct watch *watch = user_data;
    size_t width;
    CHECK(fraction >= watch->last && fraction <= 1);
    watch->last = fraction;
    watch->calls++;
    watch->status = sm_embedder_width(watch->embedder, &width);
    if (watch->cancels == 2) {
        CHECK_OK(sm_embedder_cancel(watch->embedder));
    }
    return watch->cancels == 1;
}

static void check_progress(sm_embedder *embedder, int32_t strategy, size_t width) {
    enum { MANY = 300 };
    const char *texts[MANY];
    int32_t statuses[MANY];
    float *rows = malloc(MANY * width * sizeof *rows);
    for (size_t i = 0; i < MANY; i++) {
        texts[i] = i % 2 ? "one two three four" : "five six";
    }
    for (int cancels = 0; cancels < 3; cancels++) {
        struct watch watch = {embedder, 0, cancels, SM_STATUS_OK, 0};
        size_t done = 0, undone = 0;
        CHECK_OK(sm_embedder_set_progress(embedder, on_progress, &watch));
        CHECK_STATUS(sm_embedder_embed(embedder, texts, NULL, MANY, rows, width, statuses, NULL, 0),
                     cancels ? SM_STATUS_CANCELLED : SM_STATUS_OK);
        CHECK(watch.calls > 0 && watch.status == SM_STATUS_BUSY);
        for (size_t i = 0; i < MANY; i++) {
            done += statuses[i] == SM_TEXT_DONE;
            undone += statuses[i] == SM_TEXT_NOT_DONE;
        }
        /* Another thread may do all passes that are left while the callback's thread has one. */
        CHECK(done + undone == MANY && (cancels || (undone == 0 && watch.last == 1)));
        CHECK(!cancels || strategy == SM_STRATEGY_COARSE || (done > 0 && undone > 0));
    }
    CHECK_OK(sm_embedder_set_progress(embedder, NULL, NULL));
    free(rows);
}

static void check_bad_arguments(const sm_model *model, sm_embedder *embedder, size_t width) {
    const char *texts[] = {"a", NULL};
    size_t bytes[] = {1, 1}, n;
    float *rows = malloc(2 * width * sizeof *rows);
    sm_embedder_params params;
    sm_embedder *none = embedder;
    sm_memory_estimate fine, both;
    CHECK_STATUS(sm_embedder_embed(embedder, texts, bytes, 2, rows, width, NULL, NULL, 0), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_embedder_embed(embedder, NULL, bytes, 1, rows, width, NULL, NULL, 0), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_embedder_embed(embedder, texts, bytes, 1, NULL, width, NULL, NULL, 0), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_embedder_embed(NULL, texts, bytes, 1, rows, width, NULL, NULL, 0), SM_STATUS_NULL_POINTER);
    texts[1] = "b";
    CHECK_STATUS(sm_embedder_embed(embedder, texts, bytes, 2, rows, width - 1, NULL, NULL, 0),
                 SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_embedder_embed(embedder, texts, bytes, 2, rows, (size_t)-1, NULL, NULL, 0),
                 SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_embedder_embed(embedder, texts, bytes, (size_t)-1, rows, width, NULL, NULL, 0),
                 SM_STATUS_INVALID_ARGUMENT);
    sm_embed_summary summary;
    CHECK_STATUS(sm_embedder_embed(embedder, texts, bytes, 2, rows, width, NULL, &summary, 3),
                 SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_embedder_rerank(embedder, "q", 1, texts, bytes, 2, rows, NULL, NULL, 0), SM_STATUS_UNSUPPORTED);
    const size_t sizes[] = {0, 7, sizeof params - 1, 4097, SIZE_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        CHECK_STATUS(sm_embedder_params_init(&params, sizes[i]), SM_STATUS_INVALID_ARGUMENT);
        CHECK_OK(sm_embedder_params_init(&params, sizeof params));
        params.struct_size = sizes[i];
        CHECK_STATUS(sm_embedder_create(model, &params, &none), SM_STATUS_INVALID_ARGUMENT);
        CHECK_STATUS(sm_embedder_memory(model, &params, &fine, sizeof fine), SM_STATUS_INVALID_ARGUMENT);
    }
    CHECK_STATUS(sm_embedder_params_init(NULL, sizeof params), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_embedder_create(NULL, NULL, &none), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_embedder_create(model, NULL, NULL), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_embedder_set_prompt(NULL, "a"), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_embedder_set_progress(NULL, NULL, NULL), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_embedder_embed_tokens(NULL, NULL, NULL, 0, NULL, 0, NULL, NULL, 0), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_embedder_rerank(NULL, "q", 1, texts, bytes, 1, rows, NULL, NULL, 0), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_embedder_rerank(embedder, "q", SIZE_MAX, texts, bytes, 1, rows, NULL, NULL, 0),
                 SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_embedder_width(embedder, NULL), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_embedder_width(NULL, &n), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_embedder_cancel(NULL), SM_STATUS_NULL_POINTER);
    CHECK_OK(sm_embedder_cancel(embedder));

    /* The file states no pooling. */
    CHECK_STATUS(sm_embedder_create(model, NULL, &none), SM_STATUS_UNSUPPORTED);
    CHECK(none == NULL && strstr(sm_last_error(), "pooling") != NULL);
    int32_t *fields[] = {&params.pooling, &params.long_texts, &params.strategy, &params.normalize, &params.cache_type};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        CHECK_OK(sm_embedder_params_init(&params, sizeof params));
        params.pooling = SM_POOLING_LAST;
        *fields[i] = 99;
        CHECK_STATUS(sm_embedder_create(model, &params, &none), SM_STATUS_INVALID_ARGUMENT);
    }
    CHECK_OK(sm_embedder_params_init(&params, sizeof params));
    params.pooling = SM_POOLING_RANK;
    CHECK_STATUS(sm_embedder_create(model, &params, &none), SM_STATUS_UNSUPPORTED);
    params.pooling = SM_POOLING_LAST;
    params.dimensions = 1 << 20;
    CHECK_STATUS(sm_embedder_create(model, &params, &none), SM_STATUS_INVALID_ARGUMENT);
    params.dimensions = 0;
    params.n_threads = 2;
    params.n_ctx = 64;
    params.strategy = SM_STRATEGY_FINE;
    CHECK_OK(sm_embedder_memory(model, &params, &fine, sizeof fine));
    params.strategy = SM_STRATEGY_AUTO;
    CHECK_OK(sm_embedder_memory(model, &params, &both, sizeof both));
    CHECK(fine.total_bytes > 0 && both.total_bytes > 2 * fine.total_bytes);
    free(rows);
}

/* An embedder holds the team that it was given, as a context does. */
static void check_team(const sm_model *model) {
    sm_team *team = NULL;
    sm_embedder_params params;
    sm_embedder *embedder = NULL;
    CHECK_OK(sm_team_create(2, &team));
    CHECK_OK(sm_embedder_params_init(&params, sizeof params));
    params.pooling = SM_POOLING_MEAN;
    params.n_ctx = 32;
    params.team = team;
    CHECK_OK(sm_embedder_create(model, &params, &embedder));
    CHECK_STATUS(sm_team_free(team), SM_STATUS_BUSY);
    CHECK_OK(sm_embedder_free(embedder));
    CHECK_OK(sm_team_free(team));
}

void test_embedder(const char *model_path) {
    sm_model *model = NULL;
    const int32_t strategies[] = {SM_STRATEGY_FINE, SM_STRATEGY_COARSE};
    CHECK_OK(sm_model_load(model_path, NULL, &model));
    for (size_t i = 0; i < 2; i++) {
        sm_embedder *embedder = create(model, strategies[i], 8);
        size_t width = 0;
        CHECK_OK(sm_embedder_width(embedder, &width));
        CHECK(width > 0);
        check_batch(embedder, width);
        check_tokens(model, embedder, width);
        check_prompts(embedder, width);
        check_progress(embedder, strategies[i], width);
        check_bad_arguments(model, embedder, width);
        CHECK_OK(sm_embedder_free(embedder));
    }
    check_team(model);
    CHECK_OK(sm_embedder_free(NULL));
    CHECK_OK(sm_model_free(model));
}
