/* Adapter for libraries with the C interface of the BLAS: OpenBLAS, BLIS, MKL (also its vector functions),
 * AOCL.
 *
 * usage: THREADS LIBRARY KIND, where KIND is openblas, blis, mkl or aocl. */
#include "worker.h"

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112, PACKED = 151, PACK_B = 162 };

typedef void sgemm(int, int, int, int, int, int, float, const float *, int, const float *, int, float,
                   float *, int);
typedef void sgemv(int, int, int, int, float, const float *, int, const float *, int, float, float *, int);
typedef size_t pack_size(int, int, int, int);
typedef void pack(int, int, int, int, int, int, float, const float *, int, float *);
typedef void compute(int, int, int, int, int, int, const float *, int, const float *, int, float, float *,
                     int);
/* AOCL's low-precision family, which has f32, too. Its sizes are 64-bit; the last argument lists epilogues.
 */
typedef size_t reorder_size(char, char, char, int64_t, int64_t, void *);
typedef void reorder(char, char, char, const float *, float *, int64_t, int64_t, int64_t, void *);
typedef void lpgemm(char, char, char, int64_t, int64_t, int64_t, float, const float *, int64_t, char,
                    const float *, int64_t, char, float, float *, int64_t, void *);

/* MKL's vector functions; of its accuracies the middle one, about one unit in the last place. */
typedef void vector_function(int, const float *, float *, int64_t);
enum { LOW_ACCURACY = 1 };

static const char *kind;
static void *library;
static sgemm *gemm;
static sgemv *gemv;
static pack_size *packed_size;
static pack *pack_b;
static compute *multiply_packed;
static reorder_size *reordered_size;
static reorder *reorder_b;
static lpgemm *multiply_reordered;
static float *packed, *reordered;

static void *symbol(const char *name)
{
    void *found = dlsym(library, name);
    char prefixed[96];
    snprintf(prefixed, sizeof prefixed, "scipy_%s", name);
    return found != NULL ? found : dlsym(library, prefixed);
}

const char *peer_open(int threads, int argc, char **argv)
{
    static char failure[256];
    (void)threads; /* the environment says it, in each library's own variable */
    if (argc != 2)
        return "usage: THREADS LIBRARY KIND";
    kind = argv[1];
    library = dlopen(argv[0], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        snprintf(failure, sizeof failure, "%s", dlerror());
        return failure;
    }
    void (*init)(void) = (void (*)(void))symbol("bli_init");
    if (init != NULL)
        init();
    gemm = (sgemm *)symbol("cblas_sgemm");
    gemv = (sgemv *)symbol("cblas_sgemv");
    if (strcmp(kind, "mkl") == 0) { /* AOCL has the same three, slower than its own below */
        packed_size = (pack_size *)symbol("cblas_sgemm_pack_get_size");
        pack_b = (pack *)symbol("cblas_sgemm_pack");
        multiply_packed = (compute *)symbol("cblas_sgemm_compute");
    }
    reordered_size = (reorder_size *)symbol("aocl_get_reorder_buf_size_f32f32f32of32");
    reorder_b = (reorder *)symbol("aocl_reorder_f32f32f32of32");
    multiply_reordered = (lpgemm *)symbol("aocl_gemm_f32f32f32of32");
    return gemm != NULL && gemv != NULL ? NULL : "no cblas_sgemm in it";
}

void peer_describe(char *text, size_t capacity)
{
    if (strcmp(kind, "openblas") == 0) {
        const char *(*config)(void) = (const char *(*)(void))symbol("openblas_get_config");
        const char *(*core)(void) = (const char *(*)(void))symbol("openblas_get_corename");
        char version[64] = "";
        if (config != NULL)
            sscanf(config(), "OpenBLAS %63s", version);
        snprintf(text, capacity, "%s, %s kernels", version, core != NULL ? core() : "unknown");
    } else if (strcmp(kind, "mkl") == 0) {
        void (*version)(char *, int) = (void (*)(char *, int))symbol("mkl_get_version_string");
        char line[200] = "", number[64] = "";
        if (version != NULL)
            version(line, sizeof line - 1);
        const char *at = strstr(line, "Version ");
        if (at != NULL)
            sscanf(at, "Version %63s", number);
        snprintf(text, capacity, "%s", number);
    } else {
        const char *(*version)(void) = (const char *(*)(void))symbol("bli_info_get_version_str");
        int (*id)(void) = (int (*)(void))symbol("bli_arch_query_id");
        const char *(*name)(int) = (const char *(*)(int))symbol("bli_arch_string");
        snprintf(text, capacity, "%s, %s kernels", version != NULL ? version() : "",
                 id != NULL && name != NULL ? name(id()) : "unknown");
    }
}

static void run_gemm(const struct task *t)
{
    int m = (int)t->m, n = (int)t->n, k = (int)t->k;
    gemm(ROW_MAJOR, NO_TRANS, t->transposed ? TRANS : NO_TRANS, m, n, k, 1, t->a, k, t->b,
         t->transposed ? k : n, 0, t->c, n);
}

static void run_gemv(const struct task *t)
{
    int n = (int)t->n, k = (int)t->k;
    if (t->transposed)
        gemv(ROW_MAJOR, NO_TRANS, n, k, 1, t->b, k, t->a, 1, 0, t->c, 1);
    else
        gemv(ROW_MAJOR, TRANS, k, n, 1, t->b, n, t->a, 1, 0, t->c, 1);
}

static void run_packed(const struct task *t)
{
    int m = (int)t->m, n = (int)t->n, k = (int)t->k;
    multiply_packed(ROW_MAJOR, NO_TRANS, PACKED, m, n, k, t->a, k, packed, n, 0, t->c, n);
}

static void run_lpgemm(const struct task *t)
{
    int64_t ldb = t->transposed && !t->packed ? t->k : t->n;
    multiply_reordered('r', 'n', t->transposed && !t->packed ? 't' : 'n', t->m, t->n, t->k, 1, t->a, t->k,
                       'n', t->packed ? reordered : t->b, ldb, t->packed ? 'r' : 'n', 0, t->c, t->n, NULL);
}

static void make_packed(const struct task *t)
{
    int m = (int)t->m, n = (int)t->n, k = (int)t->k;
    packed = worker_alloc(packed_size(PACK_B, m, n, k) / sizeof(float) + 16);
    pack_b(ROW_MAJOR, PACK_B, t->transposed ? TRANS : NO_TRANS, m, n, k, 1, t->b, t->transposed ? k : n,
           packed);
}

static void make_reordered(const struct task *t)
{
    char trans = t->transposed ? 't' : 'n';
    reordered = worker_alloc(reordered_size('r', trans, 'B', t->k, t->n, NULL) / sizeof(float) + 16);
    reorder_b('r', trans, 'B', t->b, reordered, t->k, t->n, t->transposed ? t->k : t->n, NULL);
}

static vector_function *elementwise;

static void run_elementwise(const struct task *t) { elementwise((int)t->n, t->a, t->c, LOW_ACCURACY); }

static int prepare_elementwise(const struct task *t, struct way *ways, const char **why_not)
{
    const char *name = strcmp(t->op, "exp") == 0 ? "vmsExp" : strcmp(t->op, "tanh") == 0 ? "vmsTanh" : NULL;
    *why_not = "not offered";
    elementwise = name != NULL ? (vector_function *)symbol(name) : NULL;
    if (elementwise == NULL)
        return 0;
    ways[0] = (struct way){name, run_elementwise};
    return 1;
}

int peer_prepare(const struct task *t, struct way *ways, const char **why_not)
{
    int count = 0;
    worker_free(packed);
    worker_free(reordered);
    packed = reordered = NULL;
    if (strcmp(t->op, "matmul") != 0)
        return prepare_elementwise(t, ways, why_not);
    if (t->packed) {
        *why_not = "packs nothing ahead";
        if (multiply_packed != NULL) {
            make_packed(t);
            ways[count++] = (struct way){"sgemm_compute", run_packed};
        }
        if (multiply_reordered != NULL && reorder_b != NULL) {
            make_reordered(t);
            ways[count++] = (struct way){"lpgemm", run_lpgemm};
        }
        return count;
    }
    ways[count++] = (struct way){"sgemm", run_gemm};
    if (t->m == 1)
        ways[count++] = (struct way){"sgemv", run_gemv};
    if (multiply_reordered != NULL)
        ways[count++] = (struct way){"lpgemm", run_lpgemm};
    return count;
}
