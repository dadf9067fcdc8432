/* Adapter for ggml as llama.cpp's package has it: a graph of one operation, run by its CPU backend.
 *
 * usage: THREADS LIBGGML. The package comes without headers: what is used of them is declared here. */
#include "worker.h"

#include <dlfcn.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct ggml_tensor tensor;
struct init_params {
    size_t mem_size;
    void *mem_buffer;
    bool no_alloc;
};
enum { TYPE_F32 = 0, TYPE_F16 = 1, MINUS_INFINITY_F16 = 0xFC00, MASK_PAD = 64 };

static struct {
    const char *(*ggml_version)(void);
    void *(*ggml_init)(struct init_params);
    void (*ggml_free)(void *);
    tensor *(*ggml_new_tensor_4d)(void *, int, int64_t, int64_t, int64_t, int64_t);
    void *(*ggml_get_data)(const tensor *);
    void *(*ggml_new_graph)(void *);
    void (*ggml_build_forward_expand)(void *, tensor *);
    tensor *(*ggml_mul)(void *, tensor *, tensor *);
    tensor *(*ggml_add)(void *, tensor *, tensor *);
    tensor *(*ggml_soft_max)(void *, tensor *);
    tensor *(*ggml_norm)(void *, tensor *, float);
    tensor *(*ggml_rms_norm)(void *, tensor *, float);
    tensor *(*ggml_flash_attn_ext)(void *, tensor *, tensor *, tensor *, tensor *, float, float, float);
    void *(*ggml_backend_cpu_init)(void);
    void (*ggml_backend_cpu_set_n_threads)(void *, int);
    int (*ggml_backend_graph_compute)(void *, void *);
} api;

static void *library, *backend, *context, *graph;
static float *arena;

static int load(const char *name, void *into) { return (*(void **)into = dlsym(library, name)) != NULL; }

static int load_all(void)
{
    const struct {
        const char *name;
        void *into;
    } needed[] = {
        {"ggml_version", &api.ggml_version},
        {"ggml_init", &api.ggml_init},
        {"ggml_free", &api.ggml_free},
        {"ggml_new_tensor_4d", &api.ggml_new_tensor_4d},
        {"ggml_get_data", &api.ggml_get_data},
        {"ggml_new_graph", &api.ggml_new_graph},
        {"ggml_build_forward_expand", &api.ggml_build_forward_expand},
        {"ggml_mul", &api.ggml_mul},
        {"ggml_add", &api.ggml_add},
        {"ggml_soft_max", &api.ggml_soft_max},
        {"ggml_norm", &api.ggml_norm},
        {"ggml_rms_norm", &api.ggml_rms_norm},
        {"ggml_flash_attn_ext", &api.ggml_flash_attn_ext},
        {"ggml_backend_cpu_init", &api.ggml_backend_cpu_init},
        {"ggml_backend_cpu_set_n_threads", &api.ggml_backend_cpu_set_n_threads},
        {"ggml_backend_graph_compute", &api.ggml_backend_graph_compute},
    };
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!load(needed[i].name, needed[i].into))
            return 0;
    return 1;
}

const char *peer_open(int threads, int argc, char **argv)
{
    static char failure[256];
    library = argc == 1 ? dlopen(argv[0], RTLD_NOW | RTLD_GLOBAL) : NULL;
    if (library == NULL) {
        snprintf(failure, sizeof failure, "%s", argc == 1 ? dlerror() : "usage: THREADS LIBGGML");
        return failure;
    }
    if (!load_all())
        return "another version of ggml";
    backend = api.ggml_backend_cpu_init();
    api.ggml_backend_cpu_set_n_threads(backend, threads);
    return NULL;
}

void peer_describe(char *text, size_t capacity)
{
    int (*avx512)(void) = NULL;
    load("ggml_cpu_has_avx512", &avx512);
    snprintf(text, capacity, "%s, %s", api.ggml_version(),
             avx512 != NULL && avx512() ? "built with AVX-512" : "built without AVX-512");
}

static tensor *filled(const float *data, int64_t n0, int64_t n1, int64_t n2)
{
    tensor *made = api.ggml_new_tensor_4d(context, TYPE_F32, n0, n1, n2, 1);
    memcpy(api.ggml_get_data(made), data, (size_t)(n0 * n1 * n2) * sizeof(float));
    return made;
}

static tensor *causal_mask(int64_t length)
{
    int64_t lines = (length + MASK_PAD - 1) / MASK_PAD * MASK_PAD;
    tensor *mask = api.ggml_new_tensor_4d(context, TYPE_F16, length, lines, 1, 1);
    uint16_t *cells = api.ggml_get_data(mask);
    for (int64_t i = 0; i < lines * length; i++)
        cells[i] = i % length > i / length ? MINUS_INFINITY_F16 : 0;
    return mask;
}

static tensor *attention(const struct task *t)
{
    tensor *q = filled(t->a, t->n, t->m, t->k), *k = filled(t->b, t->n, t->m, t->k),
           *v = filled(t->values, t->n, t->m, t->k);
    tensor *mask = t->transposed ? causal_mask(t->m) : NULL;
    return api.ggml_flash_attn_ext(context, q, k, v, mask, 1 / sqrtf((float)t->n), 0, 0);
}

/* Its result goes position by position; the check wants head by head. */
static void store_attention(const struct task *t, const float *result)
{
    for (long head = 0; head < t->k; head++)
        for (long position = 0; position < t->m; position++)
            memcpy(t->c + (head * t->m + position) * t->n, result + (position * t->k + head) * t->n,
                   (size_t)t->n * sizeof(float));
}

static tensor *unary(const struct task *t)
{
    static const char *names[][2] = {{"exp", "ggml_exp"},
                                     {"tanh", "ggml_tanh"},
                                     {"gelu_tanh", "ggml_gelu"},
                                     {"gelu_erf", "ggml_gelu_erf"},
                                     {"silu", "ggml_silu"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        tensor *(*f)(void *, tensor *) = NULL;
        if (strcmp(t->op, names[i][0]) == 0 && load(names[i][1], &f))
            return f(context, filled(t->a, t->n, 1, 1));
    }
    return NULL;
}

static tensor *rows(const struct task *t)
{
    if (strcmp(t->op, "softmax") == 0)
        return api.ggml_soft_max(context, filled(t->a, t->n, t->m, 1));
    if (strcmp(t->op, "rms_norm") == 0)
        return api.ggml_mul(context, api.ggml_rms_norm(context, filled(t->a, t->n, t->m, 1), LAYER_NORM_EPS),
                            filled(t->weight, t->n, 1, 1));
    if (strcmp(t->op, "layer_norm") != 0)
        return NULL;
    tensor *scaled =
        api.ggml_mul(context, api.ggml_norm(context, filled(t->a, t->n, t->m, 1), LAYER_NORM_EPS),
                     filled(t->weight, t->n, 1, 1));
    return api.ggml_add(context, scaled, filled(t->bias, t->n, 1, 1));
}

static void run(const struct task *t)
{
    (void)t;
    api.ggml_backend_graph_compute(backend, graph);
}

int peer_prepare(const struct task *t, struct way *ways, const char **why_not)
{
    if (context != NULL)
        api.ggml_free(context);
    worker_free(arena);
    context = NULL;
    arena = NULL;
    *why_not = "not compared";
    if (strcmp(t->op, "matmul") == 0)
        return 0;
    int is_attention = strcmp(t->op, "attention") == 0;
    size_t cells = (size_t)(t->m * t->n),
           floats = is_attention ? 6 * cells * (size_t)t->k + (size_t)(t->m * (t->m + MASK_PAD)) : 6 * cells;
    floats += (size_t)4 << 20;
    arena = worker_alloc(floats);
    context = api.ggml_init((struct init_params){floats * sizeof(float), arena, false});
    tensor *result = is_attention ? attention(t) : unary(t);
    if (result == NULL)
        result = rows(t);
    if (result == NULL)
        return 0;
    graph = api.ggml_new_graph(context);
    api.ggml_build_forward_expand(graph, result);
    run(t);
    if (is_attention)
        store_attention(t, api.ggml_get_data(result));
    else
        memcpy(t->c, api.ggml_get_data(result), cells * sizeof(float));
    ways[0] = (struct way){"graph", run};
    return 1;
}
