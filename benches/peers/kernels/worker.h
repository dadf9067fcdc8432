/* One library in a process of its own: what worker.c asks of the adapter that it is linked with.
 *
 * worker.c reads cases from stdin, makes the same buffers in every process, checks the result against
 * f64 and times calls; an adapter (ours.c, blas.c, …) says how its library computes a case. */
#ifndef WORKER_H
#define WORKER_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LAYER_NORM_EPS 1e-5f

/* A case. Matmul: c (m × n) = a (m × k) times b (k × n; n × k where `transposed`). Unary functions: c = f(a),
 * n elements. Rows: m rows of n columns from a to c, with `weight` and `bias` of n. Attention: m queries and
 * keys of n elements in each of k heads, a = queries, b = keys, values = values, each head × position ×
 * element. */
struct task {
    char op[32];
    long m, n, k;
    /* Matmul: B is stored transposed, or may be rearranged ahead. Attention: the first means causal. */
    int transposed, packed;
    int threads;
    float *a, *b, *c, *values, *weight, *bias;
};

/* One way to compute the task, run over and over. */
struct way {
    const char *name;
    void (*run)(const struct task *);
};

#define MAX_WAYS 4

/* Opens the library, from the arguments behind the number of threads; returns NULL, or what failed. */
const char *peer_open(int threads, int argc, char **argv);

/* Version and instruction set as the library itself tells them. */
void peer_describe(char *text, size_t capacity);

/* Readies `task` and lists the ways that are worth trying, the fastest of which counts. Returns their
 * number, or 0 with `*why_not` set. Whatever the task before took is freed first. */
int peer_prepare(const struct task *task, struct way *ways, const char **why_not);

/* Memory as every worker has it: on huge pages where the system gives them, starts spread over the cache's
 * sets. */
float *worker_alloc(size_t floats);
void worker_free(float *memory);

#ifdef __cplusplus
}
#endif

#endif
