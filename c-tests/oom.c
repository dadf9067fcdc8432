/* Out of memory is a status: each operation under limits on the address space from 20 to 400 MB above what is in use, each
 * pair in a process of its own. A process that dies, or a status that is none of a lack of memory, is a failure.
 * usage: oom MODEL.gguf FOLDER-TO-WRITE-TO [FROM TO STEP [OPERATION]] (in MB)
 * With SMALLMIND_PLANT in the environment, each operation aborts, which must be noticed. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

int failures = 0;

/* What an operation needs, made before the limit is set. */
struct world {
    const char *path;
    const char *folder;
    sm_model *model;
    sm_context *context;
    sm_sampler *sampler;
    char *text;
    size_t text_bytes;
};

/* The exit codes of a child. */
enum { DONE, NO_MEMORY, NO_THREADS, WRONG };

static int outcome(sm_status status) {
    switch (status) {
    case SM_STATUS_OK:
        return DONE;
    case SM_STATUS_OUT_OF_MEMORY:
        return NO_MEMORY;
    case SM_STATUS_NO_THREADS:
        return NO_THREADS;
    default:
        fprintf(stderr, "%s: %s\n", sm_status_name(status), sm_last_error());
        return WRONG;
    }
}

static sm_status load(struct world *world) { return sm_model_load(world->path, NULL, &world->model); }

static sm_status make_context(struct world *world) {
    sm_context_params params;
    sm_status status = sm_context_params_init(&params, sizeof params);
    params.n_threads = 4;
    return status == SM_STATUS_OK ? sm_context_create(world->model, &params, &world->context) : status;
}

static sm_status tokenize(struct world *world) {
    size_t count = 0;
    return sm_tokenize(world->model, world->text, world->text_bytes, 1, 1, NULL, 0, &count);
}

static sm_status generate(struct world *world) {
    const uint32_t prompt[] = {1, 2, 3};
    const char *stop[] = {"never written", "nor this"};
    sm_generate_params params;
    sm_status status = sm_generate_params_init(&params, sizeof params);
    params.max_tokens = 16;
    params.stop = stop;
    params.n_stop = 2;
    return status == SM_STATUS_OK ? sm_generate(world->context, world->sampler, prompt, 3, &params, NULL, 0) : status;
}

static sm_status chat(struct world *world) {
    const sm_chat_message messages[] = {{"system", "Be brief.<|im_end|>"}, {"user", world->text}};
    const size_t stride = sizeof messages[0];
    size_t count = 0;
    sm_status status = sm_chat_apply(world->model, messages, stride, 2, 1, NULL, 0, &count);
    return status == SM_STATUS_OK ? sm_chat_tokenize(world->model, messages, stride, 2, 1, 1, NULL, 0, &count) : status;
}

static sm_status profile(struct world *world) {
    size_t count = 0;
    (void)world;
    sm_status status = sm_profile_snapshot(NULL, sizeof(sm_method_stats), 0, &count);
    status = status == SM_STATUS_OK ? sm_profile_counters(NULL, sizeof(sm_zone_counters), 0, &count) : status;
    return status == SM_STATUS_OK ? sm_profile_report(NULL, 0, &count) : status;
}

static sm_status save(struct world *world) { return sm_profile_save(world->folder); }

static const struct operation {
    const char *name;
    sm_status (*run)(struct world *);
    /* What it needs. */
    int model, context, record;
} operations[] = {
    {"load", load, 0, 0, 0},         {"context", make_context, 1, 0, 0}, {"tokenize", tokenize, 1, 0, 0},
    {"generate", generate, 1, 1, 0}, {"chat", chat, 1, 0, 0},            {"profile", profile, 1, 1, 1},
    {"save", save, 1, 1, 1},
};

static void prepare(struct world *world, const struct operation *operation) {
    /* Words that no cache knows yet, and a long one. */
    world->text_bytes = 300000;
    world->text = malloc(world->text_bytes + 1);
    CHECK(world->text != NULL);
    for (size_t i = 0; i < world->text_bytes; i++) {
        world->text[i] = i > 100000 && i % 7 == 0 ? ' ' : (char)('a' + (i * i / 11 + i) % 26);
    }
    world->text[world->text_bytes] = 0;
    if (operation->record) {
        CHECK_OK(sm_profile_enable(1));
        CHECK_OK(sm_profile_count(SM_COUNT_EVERYTHING));
        CHECK_OK(sm_profile_trace_start(300));
    }
    if (operation->model) {
        CHECK_OK(load(world));
    }
    if (operation->context) {
        CHECK_OK(make_context(world));
        CHECK_OK(sm_sampler_create(world->model, NULL, &world->sampler));
    }
    if (operation->record) {
        CHECK_OK(generate(world));
    }
}

/* Limits the address space to so many bytes more than are in use; SIZE_MAX lifts the limit. */
static void limit(size_t room) {
    struct rlimit limits;
    CHECK(getrlimit(RLIMIT_AS, &limits) == 0);
    limits.rlim_cur = limits.rlim_max;
    if (room != SIZE_MAX) {
        unsigned long pages = 0;
        FILE *statm = fopen("/proc/self/statm", "r");
        CHECK(statm != NULL && fscanf(statm, "%lu", &pages) == 1);
        fclose(statm);
        limits.rlim_cur = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + room;
    }
    CHECK(setrlimit(RLIMIT_AS, &limits) == 0);
}

static int child(const struct operation *operation, const char *path, const char *folder, size_t room) {
    failures = 0;
    struct world world = {.path = path, .folder = folder};
    prepare(&world, operation);
    limit(room);
    if (getenv("SMALLMIND_PLANT") != NULL) {
        abort();
    }
    const int first = outcome(operation->run(&world));
    /* The library works on afterwards. */
    limit(SIZE_MAX);
    if (first != DONE) {
        CHECK_OK(operation->run(&world));
    }
    CHECK_OK(sm_context_free(world.context));
    CHECK_OK(sm_sampler_free(world.sampler));
    CHECK_OK(sm_model_free(world.model));
    return failures == 0 ? first : WRONG;
}

int main(int argc, char **argv) {
    if (argc != 3 && argc != 6 && argc != 7) {
        fprintf(stderr, "usage: %s MODEL.gguf FOLDER-TO-WRITE-TO [FROM TO STEP [OPERATION]]\n", argv[0]);
        return 2;
    }
    const size_t from = argc > 3 ? strtoul(argv[3], NULL, 10) : 20;
    const size_t to = argc > 3 ? strtoul(argv[4], NULL, 10) : 400;
    const size_t step = argc > 3 ? strtoul(argv[5], NULL, 10) : 5;
    size_t runs = 0, dead = 0;
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) {
        const struct operation *operation = &operations[i];
        size_t counts[4] = {0};
        if (argc > 6 && strcmp(argv[6], operation->name) != 0) {
            continue;
        }
        for (size_t mb = from; step > 0 && mb <= to; mb += step, runs++) {
            fflush(NULL);
            const pid_t pid = fork();
            if (pid == 0) {
                alarm(120);
                _exit(child(operation, argv[1], argv[2], mb << 20));
            }
            int status = -1;
            CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
            if (!WIFEXITED(status)) {
                fprintf(stderr, "%s at %zu MB: signal %d\n", operation->name, mb, WTERMSIG(status));
                dead++;
            } else if (WEXITSTATUS(status) >= WRONG) {
                fprintf(stderr, "%s at %zu MB: wrong\n", operation->name, mb);
                counts[WRONG]++;
            } else {
                counts[WEXITSTATUS(status)]++;
            }
        }
        printf("%-9s %3zu done, %3zu out of memory, %3zu without threads, %3zu wrong\n", operation->name, counts[DONE],
               counts[NO_MEMORY], counts[NO_THREADS], counts[WRONG]);
        failures += (int)counts[WRONG];
    }
    printf("%zu runs, %zu dead, %d failures\n", runs, dead, failures);
    return failures == 0 && dead == 0 && runs > 0 ? 0 : 1;
}
