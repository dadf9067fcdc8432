/* Adapter for the Rust crates, by the entry points of crates/src/lib.rs.
 *
 * usage: THREADS LIBRARY CRATE VERSION, where CRATE is gemm, faer or matrixmultiply. */
#include "worker.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static void (*multiply)(size_t, size_t, size_t, size_t, const float *, const float *, int, float *);
static const char *version;

const char *peer_open(int threads, int argc, char **argv)
{
    (void)threads;
    if (argc != 3)
        return "usage: THREADS LIBRARY CRATE VERSION";
    char name[64];
    snprintf(name, sizeof name, "peer_%s", argv[1]);
    version = argv[2];
    void *library = dlopen(argv[0], RTLD_NOW);
    *(void **)&multiply = library != NULL ? dlsym(library, name) : NULL;
    return multiply != NULL ? NULL : "the crates weren't built";
}

void peer_describe(char *text, size_t capacity) { snprintf(text, capacity, "%s", version); }

static void run(const struct task *t)
{
    multiply((size_t)t->threads, (size_t)t->m, (size_t)t->n, (size_t)t->k, t->a, t->b, t->transposed, t->c);
}

int peer_prepare(const struct task *t, struct way *ways, const char **why_not)
{
    *why_not = strcmp(t->op, "matmul") == 0 ? "packs nothing ahead" : "matmul only";
    if (strcmp(t->op, "matmul") != 0 || t->packed)
        return 0;
    ways[0] = (struct way){"crate", run};
    return 1;
}
