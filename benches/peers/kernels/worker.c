/* The part of a worker that all libraries share: protocol, buffers, check, clock.
 *
 * Lines on stdin: "case OP M N K TRANSPOSED PACKED", answered by "ready WAY ERROR" or "none WHY"; "run",
 * answered by the nanoseconds of one call; "describe". The process ends with its stdin. */
#include "worker.h"
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* A figure: the median of batches of calls that take so long together, after a warm-up. Each library runs alone for
 * that time, so that how long its threads spin or sleep between two calls is its own affair. */
#define SAMPLE_NS 150e6
#define WARM_UP_NS 20e6
#define BATCH_NS 1.5e6
#define MAX_BATCHES 256
/* What an estimate takes. */
#define ESTIMATE_NS 1.25e6
#define HUGE_PAGE ((size_t)2 << 20)

static FILE *answers;
static struct task task;
static struct way chosen;
static long calls;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

struct block {
    void *base;
    size_t bytes;
};

/* Starts differ by odd numbers of lines, lest equal offsets in a page make loads wait for stores. */
float *worker_alloc(size_t floats)
{
    static size_t turn;
    size_t skew = 64 + (turn++ % 16) * 64 * 37;
    size_t bytes = (floats * sizeof(float) + skew + 4096 + HUGE_PAGE) / HUGE_PAGE * HUGE_PAGE;
    void *base;
    if (posix_memalign(&base, HUGE_PAGE, bytes) != 0)
        abort();
    madvise(base, bytes, MADV_HUGEPAGE);
    memset(base, 0, bytes);
    float *start = (float *)((char *)base + skew);
    memcpy((char *)start - sizeof(struct block), &(struct block){base, bytes}, sizeof(struct block));
    return start;
}

void worker_free(float *memory)
{
    if (memory == NULL)
        return;
    struct block block;
    memcpy(&block, (char *)memory - sizeof block, sizeof block);
    free(block.base);
}

/* The same numbers in every worker, even between -1 and 1, times `scale`. */
static float *numbers(size_t count, unsigned long seed, float scale)
{
    float *x = worker_alloc(count);
    unsigned long state = seed * 0x9E3779B97F4A7C15ul + 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 6364136223846793005ul + 1442695040888963407ul;
        x[i] = ((float)(state >> 40) * 0x1p-23f - 1.0f) * scale;
    }
    return x;
}

static void make_buffers(struct task *t)
{
    size_t m = (size_t)t->m, n = (size_t)t->n, k = (size_t)t->k;
    if (strcmp(t->op, "matmul") == 0) {
        t->a = numbers(m * k, 1, 1);
        t->b = numbers(k * n, 2, 1);
        t->c = worker_alloc(m * n);
    } else if (strcmp(t->op, "attention") == 0) {
        t->a = numbers(m * n * k, 1, 1);
        t->b = numbers(m * n * k, 2, 1);
        t->values = numbers(m * n * k, 3, 1);
        t->c = worker_alloc(m * n * k);
    } else {
        t->a = numbers(m * n, 1, 6);
        t->c = worker_alloc(m * n);
        t->weight = numbers(n, 4, 1);
        t->bias = numbers(n, 5, 1);
    }
}

static void free_buffers(struct task *t)
{
    float *all[] = {t->a, t->b, t->c, t->values, t->weight, t->bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        worker_free(all[i]);
    memset(t, 0, sizeof *t);
}

static double time_calls(const struct way *way, long count)
{
    double start = now();
    for (long i = 0; i < count; i++)
        way->run(&task);
    return (now() - start) / (double)count;
}

/* Nanoseconds of one call, best of a few samples after warming up. */
static double estimate(const struct way *way)
{
    way->run(&task);
    double once = time_calls(way, 1);
    long count = once > ESTIMATE_NS ? 1 : (long)(ESTIMATE_NS / once) + 1;
    double best = once;
    for (int i = 0; i < 3 && i * best * (double)count < 1e8; i++) {
        double sample = time_calls(way, count);
        best = sample < best ? sample : best;
    }
    return best;
}

static void begin_case(int threads, const char *line)
{
    free_buffers(&task);
    chosen.run = NULL;
    if (sscanf(line, "case %31s %ld %ld %ld %d %d", task.op, &task.m, &task.n, &task.k, &task.transposed,
               &task.packed) != 6) {
        fprintf(answers, "none misunderstood: %s\n", line);
        return;
    }
    task.threads = threads;
    make_buffers(&task);
    struct way ways[MAX_WAYS];
    const char *why_not = "not offered";
    int count = peer_prepare(&task, ways, &why_not);
    double best = 0, worst_error = 0;
    for (int i = 0; i < count; i++) {
        ways[i].run(&task);
        double error = check(&task);
        worst_error = error > worst_error || error != error ? error : worst_error;
        double ns = estimate(&ways[i]);
        if (i == 0 || ns < best) {
            best = ns;
            chosen = ways[i];
        }
    }
    if (count == 0) {
        fprintf(answers, "none %s\n", why_not);
        return;
    }
    calls = best >= BATCH_NS ? 1 : (long)(BATCH_NS / best) + 1;
    fprintf(answers, "ready %s %.3g\n", chosen.name, worst_error);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Others ran meanwhile: the warm-up refills caches and wakes threads before the clock starts. */
static void sample(void)
{
    if (chosen.run == NULL) {
        fprintf(answers, "none no case\n");
        return;
    }
    double start = now();
    do
        time_calls(&chosen, calls);
    while (now() - start < WARM_UP_NS);
    double batches[MAX_BATCHES];
    size_t count = 0;
    start = now();
    do
        batches[count++] = time_calls(&chosen, calls);
    while (count < MAX_BATCHES && now() - start < SAMPLE_NS);
    qsort(batches, count, sizeof *batches, ascending);
    fprintf(answers, "%.1f\n", batches[count / 2]);
}

/* Libraries print to stdout at will; the answers go where stdout was. */
static void separate_output(void)
{
    answers = fdopen(dup(STDOUT_FILENO), "w");
    dup2(STDERR_FILENO, STDOUT_FILENO);
    setvbuf(answers, NULL, _IOLBF, 0);
}

int main(int argc, char **argv)
{
    separate_output();
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    const char *failure = peer_open(threads, argc - 2, argv + 2);
    if (failure != NULL) {
        fprintf(answers, "none %s\n", failure);
        return 1;
    }
    fprintf(answers, "ready\n");
    char line[256];
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (strncmp(line, "case", 4) == 0) {
            begin_case(threads, line);
        } else if (strncmp(line, "run", 3) == 0) {
            sample();
        } else {
            char text[256] = "";
            peer_describe(text, sizeof text);
            fprintf(answers, "%s\n", text);
        }
    }
    return 0;
}
