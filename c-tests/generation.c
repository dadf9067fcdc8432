/* The way a host in C goes from a file to text and a profile table. */
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

#define MAX_TOKENS 512

struct stream {
    char text[4096];
    size_t length;
    int calls;
    int stop_after; /* 0 for never */
    sm_context *context;
};

static int32_t on_text(void *user_data, uint32_t token, const char *text, size_t text_bytes) {
    struct stream *stream = user_data;
    (void)token;
    stream->calls++;
    CHECK(strlen(text) == text_bytes);
    if (stream->length + text_bytes < sizeof stream->text) {
        memcpy(stream->text + stream->length, text, text_bytes + 1);
        stream->length += text_bytes;
    }
    /* The context is the caller's own: every way back into it is closed, freeing included. */
    size_t n_past;
    CHECK_STATUS(sm_context_n_past(stream->context, &n_past), SM_STATUS_BUSY);
    CHECK_STATUS(sm_decode(stream->context, &token, 1, SM_LOGITS_LAST), SM_STATUS_BUSY);
    CHECK_STATUS(sm_context_free(stream->context), SM_STATUS_BUSY);
    fputs(text, stdout);
    fflush(stdout);
    return stream->stop_after != 0 && stream->calls >= stream->stop_after;
}

static int32_t on_progress(void *user_data, float fraction) {
    float *last = user_data;
    CHECK(fraction >= *last && fraction <= 1.0f);
    *last = fraction;
    return 0;
}

static size_t tokenize_chat(const sm_model *model, const char *question, uint32_t *tokens) {
    const sm_chat_message messages[] = {
        {"system", "You are a helpful assistant."},
        {"user", question},
    };
    char prompt[4096];
    size_t length = 0, asked = 0, count = 0;
    CHECK_OK(sm_chat_apply(model, messages, sizeof messages[0], 2, 1, NULL, 0, &asked));
    CHECK_OK(sm_chat_apply(model, messages, sizeof messages[0], 2, 1, prompt, sizeof prompt, &length));
    CHECK(asked == length && strlen(prompt) == length && strstr(prompt, question) != NULL);
    CHECK_STATUS(sm_chat_apply(model, messages, sizeof messages[0], 2, 1, prompt, length, &asked),
                 SM_STATUS_BUFFER_TOO_SMALL);
    CHECK_OK(sm_tokenize(model, prompt, length, 0, 1, tokens, MAX_TOKENS, &count));
    CHECK(count > 10);
    return count;
}

/* Each type of cache takes the memory that its elements do, and answers alike. */
/* A callback may cancel the generation that calls it: the one way into a context that is in use. */
static int32_t on_text_cancel(void *user_data, uint32_t token, const char *text, size_t text_bytes) {
    struct stream *stream = user_data;
    (void)token, (void)text, (void)text_bytes;
    if (++stream->calls == stream->stop_after) {
        CHECK_OK(sm_context_cancel(stream->context));
    }
    return 0;
}

static void check_cancel(sm_context *context, sm_sampler *sampler, const uint32_t *prompt, size_t n_prompt) {
    struct stream stream = {.stop_after = 3, .context = context};
    sm_generate_params params;
    size_t n_past = 0;
    CHECK_OK(sm_generate_params_init(&params, sizeof params));
    params.max_tokens = 8;
    params.on_text = on_text_cancel;
    params.user_data = &stream;
    CHECK_OK(sm_context_clear(context));
    CHECK_OK(sm_sampler_reset(sampler));
    /* Nothing runs yet: no effect. */
    CHECK_OK(sm_context_cancel(context));
    CHECK_STATUS(sm_generate(context, sampler, prompt, n_prompt, &params, NULL, 0), SM_STATUS_CANCELLED);
    CHECK(stream.calls == 3);
    /* What was written stays, the cancelled token is not there, and the context goes on. */
    CHECK_OK(sm_context_n_past(context, &n_past));
    CHECK(n_past == n_prompt + 2);
    CHECK_OK(sm_decode(context, prompt, 1, SM_LOGITS_LAST));
}

static int warnings;

static void on_warning(void *user_data, int32_t level, const char *message) {
    (void)user_data;
    if (level == SM_LOG_WARNING) {
        warnings++;
        CHECK(strstr(message, "trained on") != NULL);
    }
}

/* A context longer than trained is made with a warning; positions can be stretched to reach so far. */
static void check_rope(const sm_model *model, const sm_model_info *info, const uint32_t *prompt, size_t n_prompt) {
    const struct {
        float scale, base;
        int warnings;
    } cases[] = {{0.0f, 0.0f, 1}, {2.0f, 0.0f, 0}, {1.0f, 50000.0f, 1}};
    float first[3];
    for (int i = 0; i < 3; i++) {
        sm_context_params params;
        sm_context *context = NULL;
        const float *logits = NULL;
        CHECK_OK(sm_context_params_init(&params, sizeof params));
        CHECK(params.rope_scale == 0.0f && params.rope_base == 0.0f);
        params.n_ctx = 2 * (size_t)info->n_ctx_train;
        params.rope_scale = cases[i].scale;
        params.rope_base = cases[i].base;
        warnings = 0;
        CHECK_OK(sm_set_log_callback(on_warning, NULL));
        CHECK_OK(sm_context_create(model, &params, &context));
        CHECK_OK(sm_set_log_callback(NULL, NULL));
        CHECK(warnings == cases[i].warnings);
        CHECK_OK(sm_decode(context, prompt, n_prompt, SM_LOGITS_LAST));
        CHECK_OK(sm_logits(context, &logits, NULL, NULL));
        first[i] = logits[0];
        CHECK_OK(sm_context_free(context));
    }
    CHECK(first[0] != first[1] && first[0] != first[2]);
}

static void check_caches(const sm_model *model, const uint32_t *prompt, size_t n_prompt) {
    static const int32_t types[] = {SM_CACHE_F32, SM_CACHE_F16, SM_CACHE_Q8_0};
    /* 30 layers of 3 heads of 64, keys and values; a byte's run of 64 has a factor of 4 bytes. */
    static const uint64_t row_bytes[] = {256, 128, 68};
    size_t answers[3];
    for (size_t i = 0; i < 3; i++) {
        sm_context_params params;
        sm_memory_estimate memory;
        sm_context *context = NULL;
        const float *logits = NULL;
        size_t n_rows = 0, n_vocab = 0;
        CHECK_OK(sm_context_params_init(&params, sizeof params));
        CHECK(params.cache_type == SM_CACHE_F16);
        params.n_ctx = MAX_TOKENS;
        params.cache_type = types[i];
        CHECK_OK(sm_context_memory(model, &params, &memory, sizeof memory));
        CHECK(memory.cache_bytes == 2 * 30 * 3 * MAX_TOKENS * row_bytes[i]);
        CHECK_OK(sm_context_create(model, &params, &context));
        CHECK_OK(sm_decode(context, prompt, n_prompt, SM_LOGITS_LAST));
        CHECK_OK(sm_logits(context, &logits, &n_rows, &n_vocab));
        CHECK(n_rows == 1 && n_vocab == 49152);
        answers[i] = 0;
        for (size_t token = 1; token < n_vocab; token++) {
            answers[i] = logits[token] > logits[answers[i]] ? token : answers[i];
        }
        CHECK_OK(sm_context_free(context));
    }
    CHECK(answers[0] == answers[1] && answers[1] == answers[2]);
}

static void check_tokens(const sm_model *model) {
    const char *text = "Na\xc3\xafve caf\xc3\xa9 \xf0\x9f\x98\x80, twice.";
    uint32_t tokens[64];
    size_t count = 0, length = 0;
    char back[256];
    CHECK_OK(sm_tokenize(model, text, strlen(text), 0, 0, tokens, 64, &count));
    CHECK(count > 4);
    CHECK_OK(sm_detokenize(model, tokens, count, 0, back, sizeof back, &length));
    CHECK(length == strlen(text) && strcmp(back, text) == 0);

    /* The pieces, byte for byte, are the text again. */
    char joined[256] = "";
    size_t end = 0;
    for (size_t i = 0; i < count; i++) {
        CHECK_OK(sm_token_piece(model, tokens[i], joined + end, sizeof joined - end, &length));
        end += length;
    }
    CHECK(strcmp(joined, text) == 0);

    sm_special_tokens special;
    uint32_t kind = 0;
    CHECK_OK(sm_model_special_tokens(model, &special, sizeof special));
    CHECK(special.eos != SM_TOKEN_NONE);
    CHECK_OK(sm_token_kind(model, special.eos, &kind));
    CHECK(kind == (SM_TOKEN_CONTROL | SM_TOKEN_END));
    CHECK_OK(sm_token_kind(model, tokens[0], &kind));
    CHECK(kind == 0);
}

/* Greedy by hand, through logits and sampler, must be what sm_generate does. */
static void check_loop(sm_context *context, sm_sampler *sampler, const uint32_t *prompt, size_t n_prompt,
                       const sm_model *model, const char *expected) {
    char text[4096] = "";
    size_t length = 0;
    CHECK_OK(sm_context_clear(context));
    CHECK_OK(sm_sampler_reset(sampler));
    CHECK_OK(sm_decode(context, prompt, n_prompt, SM_LOGITS_LAST));
    for (int i = 0; i < 8; i++) {
        const float *logits = NULL;
        size_t n_rows = 0, n_vocab = 0, piece = 0;
        uint32_t token = SM_TOKEN_NONE, kind = 0;
        CHECK_OK(sm_logits(context, &logits, &n_rows, &n_vocab));
        CHECK(n_rows == 1 && isfinite(logits[0]));
        CHECK_OK(sm_sampler_sample(sampler, logits, n_vocab, &token));
        for (size_t other = 0; other < n_vocab; other++) {
            if (logits[other] > logits[token]) {
                CHECK(!"the greedy sampler took a token that isn't the likeliest");
                break;
            }
        }
        CHECK_OK(sm_sampler_accept(sampler, token));
        CHECK_OK(sm_token_kind(model, token, &kind));
        if (kind & SM_TOKEN_END) {
            break;
        }
        CHECK_OK(sm_token_piece(model, token, text + length, sizeof text - length, &piece));
        length += piece;
        CHECK_OK(sm_decode(context, &token, 1, SM_LOGITS_LAST));
    }
    CHECK(length > 0 && strncmp(text, expected, length) == 0);
}

static void check_rewind(sm_context *context, const uint32_t *prompt, size_t n_prompt, size_t n_vocab) {
    float *first = malloc(n_vocab * sizeof *first), *second = malloc(n_vocab * sizeof *second);
    size_t count = 0, n_past = 0, n_ctx = 0;
    CHECK(first != NULL && second != NULL);
    CHECK_OK(sm_context_clear(context));
    CHECK_OK(sm_decode(context, prompt, n_prompt, SM_LOGITS_LAST));
    CHECK_OK(sm_logits_copy(context, first, n_vocab, &count));
    CHECK(count == n_vocab);
    CHECK_OK(sm_context_rewind(context, n_prompt - 1));
    CHECK_OK(sm_logits_copy(context, NULL, 0, &count));
    CHECK(count == 0);
    CHECK_OK(sm_decode(context, prompt + n_prompt - 1, 1, SM_LOGITS_LAST));
    CHECK_OK(sm_logits_copy(context, second, n_vocab, &count));
    CHECK(memcmp(first, second, n_vocab * sizeof *first) == 0);
    CHECK_STATUS(sm_context_rewind(context, n_prompt + 1), SM_STATUS_INVALID_ARGUMENT);
    CHECK_OK(sm_context_keep(context));
    CHECK_OK(sm_context_n_past(context, &n_past));
    CHECK(n_past == n_prompt);
    CHECK_OK(sm_context_n_ctx(context, &n_ctx));
    CHECK(n_ctx == MAX_TOKENS);
    /* Two rows where one was reserved. */
    CHECK_STATUS(sm_decode(context, prompt, 2, SM_LOGITS_ALL), SM_STATUS_INVALID_ARGUMENT);
    free(first);
    free(second);
}

/* A snapshot goes on bit for bit, in the same context and in a smaller one; a damaged one changes nothing. */
static void check_snapshot(const sm_model *model, sm_context *context, const uint32_t *prompt, size_t n_prompt,
                           size_t n_vocab) {
    float *first = malloc(n_vocab * sizeof *first), *second = malloc(n_vocab * sizeof *second);
    size_t bytes = 0, count = 0, n_past = 0;
    CHECK(first != NULL && second != NULL && n_prompt < MAX_TOKENS / 4);
    CHECK_OK(sm_context_clear(context));
    CHECK_OK(sm_decode(context, prompt, n_prompt - 1, SM_LOGITS_NONE));
    CHECK_OK(sm_context_save_memory(context, NULL, 0, &bytes));
    uint8_t *snapshot = malloc(bytes);
    CHECK(snapshot != NULL);
    CHECK_STATUS(sm_context_save_memory(context, snapshot, bytes - 1, &count), SM_STATUS_BUFFER_TOO_SMALL);
    CHECK_OK(sm_context_save_memory(context, snapshot, bytes, &count));
    CHECK(count == bytes);
    CHECK_OK(sm_decode(context, prompt + n_prompt - 1, 1, SM_LOGITS_LAST));
    CHECK_OK(sm_logits_copy(context, first, n_vocab, &count));

    sm_context_params params;
    sm_context *other = NULL;
    CHECK_OK(sm_context_params_init(&params, sizeof params));
    params.n_ctx = MAX_TOKENS / 2;
    params.n_threads = 1;
    CHECK_OK(sm_context_create(model, &params, &other));
    CHECK_OK(sm_context_load_memory(other, snapshot, bytes));
    CHECK_OK(sm_context_n_past(other, &n_past));
    CHECK(n_past == n_prompt - 1);
    CHECK_OK(sm_decode(other, prompt + n_prompt - 1, 1, SM_LOGITS_LAST));
    CHECK_OK(sm_logits_copy(other, second, n_vocab, &count));
    CHECK(memcmp(first, second, n_vocab * sizeof *first) == 0);

    CHECK_STATUS(sm_context_load_memory(other, snapshot, bytes - 1), SM_STATUS_FORMAT);
    snapshot[bytes / 2] ^= 1;
    CHECK_STATUS(sm_context_load_memory(other, snapshot, bytes), SM_STATUS_FORMAT);
    CHECK_OK(sm_context_n_past(other, &n_past));
    CHECK(n_past == n_prompt);
    CHECK_OK(sm_context_free(other));
    free(snapshot);
    free(first);
    free(second);
}

/* The text ends before the first stop string, wherever tokens end; bad ones are refused and change nothing. */
static void check_stops(sm_context *context, sm_sampler *sampler, const uint32_t *prompt, size_t n_prompt,
                        const char *whole) {
    static struct stream stream;
    sm_generate_params params;
    sm_generate_summary summary;
    stream.context = context;
    CHECK_OK(sm_generate_params_init(&params, sizeof params));
    CHECK(params.stop == NULL && params.n_stop == 0);
    params.max_tokens = 32;
    params.on_text = on_text;
    params.user_data = &stream;

    /* Two within the answer and one that isn't; the earlier ends it, amid a word. */
    const char *within[] = {"never in it", "s", "ari"};
    const char *paris = strstr(whole, "Paris"), *first_s = strstr(whole, "s");
    CHECK(paris != NULL && first_s != NULL);
    const size_t before_ari = (size_t)(paris + 1 - whole), before_s = (size_t)(first_s - whole);
    for (size_t n_stop = 1; n_stop <= 3; n_stop++) {
        /* The last n_stop of them. */
        const int has_s = n_stop >= 2;
        const size_t expected = has_s && before_s < before_ari ? before_s : before_ari;
        stream.length = 0;
        params.stop = within + 3 - n_stop;
        params.n_stop = n_stop;
        CHECK_OK(sm_context_clear(context));
        CHECK_OK(sm_sampler_reset(sampler));
        CHECK_OK(sm_generate(context, sampler, prompt, n_prompt, &params, &summary, sizeof summary));
        CHECK(summary.stop_reason == SM_STOP_STRING);
        CHECK(stream.length == expected && strncmp(stream.text, whole, expected) == 0);
    }
    /* A host that was compiled before there were any asks for none. */
    stream.length = 0;
    params.struct_size = offsetof(sm_generate_params, stop);
    CHECK_OK(sm_context_clear(context));
    CHECK_OK(sm_sampler_reset(sampler));
    CHECK_OK(sm_generate(context, sampler, prompt, n_prompt, &params, &summary, sizeof summary));
    CHECK(summary.stop_reason != SM_STOP_STRING && strcmp(stream.text, whole) == 0);
    params.struct_size = sizeof params;

    static char longest[1026];
    memset(longest, 'x', sizeof longest - 1);
    const char *const bad[] = {"", "\xff", "a\xe2\x82", longest, NULL};
    CHECK_OK(sm_context_clear(context));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const char *stops[] = {"fine", bad[i]};
        params.stop = stops;
        params.n_stop = 2;
        CHECK_STATUS(sm_generate(context, sampler, prompt, n_prompt, &params, NULL, 0),
                     bad[i] == NULL ? SM_STATUS_NULL_POINTER : SM_STATUS_INVALID_ARGUMENT);
    }
    params.stop = NULL;
    CHECK_STATUS(sm_generate(context, sampler, prompt, n_prompt, &params, NULL, 0), SM_STATUS_NULL_POINTER);
    params.stop = within;
    for (params.n_stop = 65; params.n_stop != 0; params.n_stop *= 4) {
        CHECK_STATUS(sm_generate(context, sampler, prompt, n_prompt, &params, NULL, 0),
                     SM_STATUS_INVALID_ARGUMENT);
    }
    size_t n_past = 1;
    CHECK_OK(sm_context_n_past(context, &n_past));
    CHECK(n_past == 0);
}

/* Prints the profile as a host would that makes its own table. */
static void print_profile(void) {
    size_t count = 0;
    CHECK_OK(sm_profile_snapshot(NULL, sizeof(sm_method_stats), 0, &count));
    CHECK(count > 5);
    sm_method_stats *stats = malloc((count + 1) * sizeof *stats);
    CHECK(stats != NULL);
    CHECK_OK(sm_profile_snapshot(stats, sizeof *stats, count, &count));
    sm_profile_info info;
    CHECK_OK(sm_profile_describe(&info, sizeof info));
    CHECK(info.wall_ns > 0 && info.dropped == 0);

    const char *const expected[] = {"load",   "tokenize", "detokenize", "chat_template", "context.create",
                                    "decode", "prefill",  "sample",     "linear.gate_up"};
    size_t seen = 0;
    uint64_t allocated = 0;
    printf("\n%-28s %8s %12s %12s %10s %10s %10s %8s\n", "method", "calls", "total ms", "self ms", "min us",
           "max us", "bytes", "GFLOPS");
    for (size_t i = 0; i < count; i++) {
        const sm_method_stats *s = &stats[i];
        CHECK(s->parent >= -1 && s->parent < (int64_t)i);
        CHECK(s->self_ns <= s->total_ns && s->min_ns <= s->max_ns && s->calls > 0);
        allocated += s->alloc_bytes;
        printf("%*s%-*s %8" PRIu64 " %12.3f %12.3f %10.1f %10.1f %10" PRIu64 " %8.2f\n", (int)(2 * s->depth),
               "", (int)(28 - 2 * s->depth), s->name, s->calls, (double)s->total_ns / 1e6,
               (double)s->self_ns / 1e6, (double)s->min_ns / 1e3, (double)s->max_ns / 1e3, s->alloc_bytes,
               s->gflops);
    }
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        size_t row = 0;
        while (row < count && strcmp(stats[row].name, expected[i]) != 0) {
            row++;
        }
        seen += row < count;
    }
    CHECK(seen == sizeof expected / sizeof expected[0]);
    /* The shipped library counts allocations, and loading a model makes some. */
    CHECK(allocated > 0);

    /* A caller with an older, shorter structure, and one with a newer, longer one. */
    unsigned char *bytes = malloc(count * 400);
    memset(bytes, 0xAA, count * 400);
    CHECK_OK(sm_profile_snapshot((sm_method_stats *)(void *)bytes, 400, count, &count));
    CHECK(memcmp(bytes + 400, &stats[1], sizeof(void *)) == 0 && bytes[399] == 0xAA);
    CHECK_OK(sm_profile_snapshot((sm_method_stats *)(void *)bytes, 16, count, &count));
    CHECK(memcmp(bytes + 16, &stats[1], 16) == 0);
    free(bytes);
    free(stats);

    size_t length = 0, written = 0;
    CHECK_OK(sm_profile_report(NULL, 0, &length));
    char *report = malloc(length + 64);
    CHECK_OK(sm_profile_report(report, length + 64, &written));
    CHECK(strstr(report, "decode") != NULL);
    free(report);
}

/* Guesses change no token: by the context's own text, and by another context of the same model. */
static void check_drafts(const sm_model *model, const uint32_t *prompt, size_t n_prompt) {
    sm_context *contexts[2] = {NULL, NULL};
    sm_context_params room;
    CHECK_OK(sm_context_params_init(&room, sizeof room));
    room.n_ctx = 256;
    room.n_output = 7;
    for (int i = 0; i < 2; i++) CHECK_OK(sm_context_create(model, &room, &contexts[i]));
    struct stream streams[3];
    memset(streams, 0, sizeof streams);
    for (int i = 0; i < 3; i++) {
        sm_sampler *sampler = NULL;
        sm_sampler_params sampling;
        CHECK_OK(sm_sampler_params_init(&sampling, sizeof sampling));
        sampling.seed = 5;
        CHECK_OK(sm_sampler_create(model, &sampling, &sampler));
        sm_generate_params params;
        CHECK_OK(sm_generate_params_init(&params, sizeof params));
        streams[i].context = contexts[0];
        params.on_text = on_text;
        params.user_data = &streams[i];
        params.max_tokens = 24;
        params.n_draft = i == 0 ? 0 : 6;
        params.draft = i == 2 ? contexts[1] : NULL;
        sm_generate_summary summary;
        CHECK_OK(sm_context_clear(contexts[0]));
        CHECK_OK(sm_generate(contexts[0], sampler, prompt, n_prompt, &params, &summary, sizeof summary));
        CHECK(summary.n_accepted <= summary.n_drafted && (i == 0) <= (summary.n_drafted == 0));
        CHECK(i < 2 || summary.n_accepted > 0);
        CHECK(strcmp(streams[i].text, streams[0].text) == 0);
        params.n_draft = 65;
        CHECK_STATUS(sm_generate(contexts[0], sampler, prompt, n_prompt, &params, NULL, 0),
                     SM_STATUS_INVALID_ARGUMENT);
        params.n_draft = 1;
        params.draft = contexts[0];
        CHECK_STATUS(sm_generate(contexts[0], sampler, prompt, n_prompt, &params, NULL, 0), SM_STATUS_BUSY);
        CHECK_OK(sm_sampler_free(sampler));
    }
    puts("");
    for (int i = 0; i < 2; i++) CHECK_OK(sm_context_free(contexts[i]));
}

/* No file, no download: the library's own model tells a story. */
void test_builtin(void) {
    sm_model *model = NULL;
    sm_context *context = NULL;
    sm_sampler *sampler = NULL;
    uint32_t tokens[64];
    size_t count = 0;
    const char *begin = "Once upon a time";
    CHECK_OK(sm_model_load_builtin(NULL, &model));
    CHECK_OK(sm_context_create(model, NULL, &context));
    sm_sampler_params greedy;
    CHECK_OK(sm_sampler_params_init(&greedy, sizeof greedy));
    greedy.temperature = 0;
    CHECK_OK(sm_sampler_create(model, &greedy, &sampler));
    CHECK_OK(sm_tokenize(model, begin, strlen(begin), 1, 0, tokens, 64, &count));
    struct stream stream = {.context = context};
    sm_generate_params params;
    CHECK_OK(sm_generate_params_init(&params, sizeof params));
    params.on_text = on_text;
    params.user_data = &stream;
    params.max_tokens = 24;
    CHECK_OK(sm_generate(context, sampler, tokens, count, &params, NULL, 0));
    /* So begin nearly all stories that it has read. */
    CHECK(strncmp(stream.text, ", there was a ", 14) == 0);
    puts("");
    CHECK_OK(sm_sampler_free(sampler));
    CHECK_OK(sm_context_free(context));
    CHECK_OK(sm_model_free(model));
    CHECK_STATUS(sm_model_load_builtin(NULL, NULL), SM_STATUS_NULL_POINTER);
}

void test_generation(const char *model_path) {
    CHECK_OK(sm_profile_reset());
    CHECK_OK(sm_profile_enable(1));

    float progress = 0.0f;
    sm_model_params model_params;
    CHECK_OK(sm_model_params_init(&model_params, sizeof model_params));
    model_params.progress = on_progress;
    model_params.user_data = &progress;
    sm_model *model = NULL;
    CHECK_OK(sm_model_load(model_path, &model_params, &model));
    CHECK(progress == 1.0f);

    sm_model_info info;
    CHECK_OK(sm_model_describe(model, &info, sizeof info));
    printf("%s: %s, on %s, %" PRIu64 " parameters\n", info.name, info.architecture, info.isa,
           info.n_parameters);
    CHECK(info.n_layer == 30 && info.n_vocab == 49152 && info.has_tokenizer && info.has_chat_template);
    check_tokens(model);

    sm_context_params context_params;
    sm_memory_estimate memory;
    CHECK_OK(sm_context_params_init(&context_params, sizeof context_params));
    context_params.n_ctx = MAX_TOKENS;
    CHECK_OK(sm_context_memory(model, &context_params, &memory, sizeof memory));
    CHECK(memory.total_bytes == memory.cache_bytes + memory.arena_bytes && memory.cache_bytes > 1000000);
    sm_context *context = NULL;
    CHECK_OK(sm_context_create(model, &context_params, &context));

    sm_sampler_params sampler_params;
    CHECK_OK(sm_sampler_params_init(&sampler_params, sizeof sampler_params));
    sampler_params.temperature = 0.0f;
    sm_sampler *sampler = NULL;
    CHECK_OK(sm_sampler_create(model, &sampler_params, &sampler));

    uint32_t prompt[MAX_TOKENS];
    size_t n_prompt = tokenize_chat(model, "What is the capital of France?", prompt);

    static struct stream stream;
    stream.context = context;
    sm_generate_params params;
    sm_generate_summary summary;
    CHECK_OK(sm_generate_params_init(&params, sizeof params));
    params.max_tokens = 32;
    params.on_text = on_text;
    params.user_data = &stream;
    CHECK_OK(sm_generate(context, sampler, prompt, n_prompt, &params, &summary, sizeof summary));
    printf("\n%" PRIu64 " tokens of prompt at %.1f/s, %" PRIu64 " generated at %.1f/s\n", summary.n_prompt,
           summary.prefill_rate, summary.n_generated, summary.decode_rate);
    CHECK(summary.n_prompt == n_prompt && summary.n_generated >= 3);
    CHECK(strstr(stream.text, "Paris") != NULL);

    char whole[sizeof stream.text];
    memcpy(whole, stream.text, sizeof whole);
    check_loop(context, sampler, prompt, n_prompt, model, whole);
    check_stops(context, sampler, prompt, n_prompt, whole);
    check_rewind(context, prompt, n_prompt, info.n_vocab);
    check_shift(model, context, prompt, n_prompt);
    check_long(model, prompt, n_prompt);
    check_snapshot(model, context, prompt, n_prompt, (size_t)info.n_vocab);
    check_drafts(model, prompt, n_prompt);
    check_caches(model, prompt, n_prompt);
    check_cancel(context, sampler, prompt, n_prompt);
    check_rope(model, &info, prompt, n_prompt);

    /* The callback stops it; the same beginning comes out. */
    stream.length = 0;
    stream.calls = 0;
    stream.stop_after = 2;
    CHECK_OK(sm_context_clear(context));
    CHECK_OK(sm_sampler_reset(sampler));
    CHECK_OK(sm_generate(context, sampler, prompt, n_prompt, &params, &summary, sizeof summary));
    CHECK(summary.stop_reason == SM_STOP_CALLBACK && summary.n_generated == 2 && stream.calls == 2);
    CHECK(strncmp(stream.text, whole, stream.length) == 0);

    /* A context lives on without its model. */
    CHECK_OK(sm_model_free(model));
    CHECK_OK(sm_context_clear(context));
    params.max_tokens = 1;
    stream.stop_after = 0;
    CHECK_OK(sm_generate(context, sampler, prompt, n_prompt, &params, NULL, 0));

    CHECK_OK(sm_profile_enable(0));
    print_profile();
    CHECK_OK(sm_sampler_free(sampler));
    CHECK_OK(sm_context_free(context));
}
