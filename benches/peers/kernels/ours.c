/* Adapter for this library, through its C interface.
 *
 * usage: THREADS LIBRARY. Symbols are looked up by name, so that an older build says what it lacks. */
#include "worker.h"

#include <dlfcn.h>
#include <smallmind.h>
#include <stdio.h>
#include <string.h>

static struct {
    __typeof__(&sm_version) version;
    __typeof__(&sm_matmul_f32) matmul;
    __typeof__(&sm_gelu_f32) gelu;
    __typeof__(&sm_silu_f32) silu;
    __typeof__(&sm_softmax_f32) softmax;
    __typeof__(&sm_layer_norm_f32) layer_norm;
    __typeof__(&sm_rms_norm_f32) rms_norm;
} api;

static void *library;

const char *peer_open(int threads, int argc, char **argv)
{
    (void)threads;
    library = argc == 1 ? dlopen(argv[0], RTLD_NOW) : NULL;
    if (library == NULL)
        return "libsmallmind.so can't be opened";
    *(void **)&api.version = dlsym(library, "sm_version");
    return NULL;
}

void peer_describe(char *text, size_t capacity) { snprintf(text, capacity, "%s", api.version()); }

static void matmul(const struct task *t)
{
    size_t m = (size_t)t->m, n = (size_t)t->n, k = (size_t)t->k;
    api.matmul(m, n, k, t->a, k, t->b, t->transposed ? k : n, t->transposed, t->c, n);
}

static void gelu_tanh(const struct task *t) { api.gelu(t->a, (size_t)t->n, SM_GELU_TANH, t->c); }
static void gelu_erf(const struct task *t) { api.gelu(t->a, (size_t)t->n, SM_GELU_ERF, t->c); }
static void silu(const struct task *t) { api.silu(t->a, (size_t)t->n, t->c); }

static void softmax(const struct task *t)
{
    size_t n = (size_t)t->n;
    api.softmax((size_t)t->m, n, t->a, n, t->c, n);
}

static void layer_norm(const struct task *t)
{
    size_t n = (size_t)t->n;
    api.layer_norm((size_t)t->m, n, t->a, n, t->weight, t->bias, LAYER_NORM_EPS, t->c, n);
}

static void rms_norm(const struct task *t)
{
    size_t n = (size_t)t->n;
    api.rms_norm((size_t)t->m, n, t->a, n, t->weight, LAYER_NORM_EPS, t->c, n);
}

static const struct {
    const char *op, *symbol;
    void *slot;
    void (*run)(const struct task *);
} functions[] = {
    {"matmul", "sm_matmul_f32", &api.matmul, matmul},
    {"gelu_tanh", "sm_gelu_f32", &api.gelu, gelu_tanh},
    {"gelu_erf", "sm_gelu_f32", &api.gelu, gelu_erf},
    {"silu", "sm_silu_f32", &api.silu, silu},
    {"softmax", "sm_softmax_f32", &api.softmax, softmax},
    {"layer_norm", "sm_layer_norm_f32", &api.layer_norm, layer_norm},
    {"rms_norm", "sm_rms_norm_f32", &api.rms_norm, rms_norm},
};

int peer_prepare(const struct task *t, struct way *ways, const char **why_not)
{
    *why_not = "not in this build";
    if (t->packed || (t->threads > 1 && strcmp(t->op, "matmul") == 0))
        return 0;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        if (strcmp(t->op, functions[i].op) != 0)
            continue;
        *(void **)functions[i].slot = dlsym(library, functions[i].symbol);
        if (*(void **)functions[i].slot == NULL)
            return 0;
        ways[0] = (struct way){functions[i].symbol, functions[i].run};
        return 1;
    }
    return 0;
}
