/* Adapter for the machine itself: how fast it multiplies and adds, reads and copies, beside the libraries.
 *
 * Cases, each done by every thread: fma (K floating-point operations), read (N floats, K times over),
 * copy (N floats, K times over). Built once for the CPU and once for AVX2 alone. */
#include "worker.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define MAX_THREADS 256

#if defined(__AVX512F__)
#define BYTES 64
#define ISA "AVX-512"
#elif defined(__AVX2__)
#define BYTES 32
#define ISA "AVX2"
#else
#define BYTES 16
#define ISA "128-bit vectors"
#endif
#define LANES (BYTES / (long)sizeof(float))
/* Enough chains for two units of four to five cycles' latency, few enough for 16 registers. */
#define CHAINS 12

typedef float vector __attribute__((vector_size(BYTES)));

static volatile float sink;

const char *peer_open(int threads, int argc, char **argv)
{
    (void)argc, (void)argv;
    return threads <= MAX_THREADS ? NULL : "too many threads";
}

void peer_describe(char *text, size_t capacity) { snprintf(text, capacity, "%s", ISA); }

/* Compiled to one fused multiply-add a line. */
static void fma_chains(const struct task *t)
{
    vector sums[CHAINS], y = (vector){0} + t->a[0], x = y + 1.0f;
    for (int i = 0; i < CHAINS; i++)
        sums[i] = x + (float)i;
    for (long step = 0; step < t->k / (2 * CHAINS * LANES); step++)
        for (int i = 0; i < CHAINS; i++)
            sums[i] = sums[i] * y + x;
    for (int i = 1; i < CHAINS; i++)
        sums[0] += sums[i];
    sink = sums[0][0];
}

static void read_all(const struct task *t)
{
    vector sums[8] = {{0}};
    for (long pass = 0; pass < t->k; pass++)
        for (long i = 0; i + 8 * LANES <= t->n; i += 8 * LANES)
            for (int j = 0; j < 8; j++)
                sums[j] += *(const vector *)(t->a + i + j * LANES);
    for (int j = 1; j < 8; j++)
        sums[0] += sums[j];
    sink = sums[0][0];
}

static void copy_all(const struct task *t)
{
    for (long pass = 0; pass < t->k; pass++)
        memcpy(t->c, t->a, (size_t)t->n * sizeof(float));
}

static void work(const struct task *t)
{
    if (strcmp(t->op, "fma") == 0)
        fma_chains(t);
    else if (strcmp(t->op, "read") == 0)
        read_all(t);
    else
        copy_all(t);
}

/* Buffers of the threads beyond the first, which uses the task's own. */
static struct task shares[MAX_THREADS];

static void *work_share(void *share)
{
    work(share);
    return NULL;
}

static void run(const struct task *t)
{
    pthread_t others[MAX_THREADS];
    for (int i = 1; i < t->threads; i++)
        pthread_create(&others[i], NULL, work_share, &shares[i]);
    work(t);
    for (int i = 1; i < t->threads; i++)
        pthread_join(others[i], NULL);
}

int peer_prepare(const struct task *t, struct way *ways, const char **why_not)
{
    if (strcmp(t->op, "fma") != 0 && strcmp(t->op, "read") != 0 && strcmp(t->op, "copy") != 0) {
        *why_not = "computes nothing";
        return 0;
    }
    t->a[0] = 0.5f;
    for (int i = 1; i < t->threads; i++) {
        worker_free(shares[i].a);
        worker_free(shares[i].c);
        shares[i] = *t;
        shares[i].a = worker_alloc((size_t)(t->m * t->n));
        shares[i].c = worker_alloc((size_t)(t->m * t->n));
        shares[i].a[0] = 0.5f;
    }
    ways[0] = (struct way){ISA, run};
    return 1;
}
