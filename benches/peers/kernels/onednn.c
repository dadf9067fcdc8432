/* Adapter for oneDNN, by its C interface of version 3: the matmul primitive, and those for rows. */
#include "worker.h"

#include <dnnl.h>
#include <stdio.h>
#include <string.h>

#define MAX_ARGS 8

static dnnl_engine_t engine;
static dnnl_stream_t stream;
static dnnl_primitive_t primitive;
static dnnl_exec_arg_t args[MAX_ARGS];
static int n_args;
static float *packed;

const char *peer_open(int threads, int argc, char **argv)
{
    (void)threads; /* OMP_NUM_THREADS says it */
    (void)argc, (void)argv;
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success)
        return "no CPU engine";
    return dnnl_stream_create(&stream, engine, dnnl_stream_in_order) == dnnl_success ? NULL : "no stream";
}

void peer_describe(char *text, size_t capacity)
{
    const dnnl_version_t *v = dnnl_version();
    const char *isa = "an older ISA";
    dnnl_cpu_isa_t id = dnnl_get_effective_cpu_isa();
    if ((id & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core)
        isa = "AVX-512";
    else if ((id & dnnl_cpu_isa_avx2) == dnnl_cpu_isa_avx2)
        isa = "AVX2";
    snprintf(text, capacity, "%d.%d.%d, %s", v->major, v->minor, v->patch, isa);
}

static dnnl_memory_desc_t matrix(long rows, long columns, dnnl_format_tag_t tag)
{
    dnnl_memory_desc_t desc = NULL;
    dnnl_memory_desc_create_with_tag(&desc, 2, (dnnl_dims_t){rows, columns}, dnnl_f32, tag);
    return desc;
}

static void give(int index, const_dnnl_memory_desc_t desc, const float *data)
{
    dnnl_memory_t memory = NULL;
    dnnl_memory_create(&memory, desc, engine, (void *)data);
    args[n_args++] = (dnnl_exec_arg_t){index, memory};
}

static void drop_all(void)
{
    for (int i = 0; i < n_args; i++)
        dnnl_memory_destroy(args[i].memory);
    n_args = 0;
    if (primitive != NULL)
        dnnl_primitive_destroy(primitive);
    primitive = NULL;
    worker_free(packed);
    packed = NULL;
}

static void run(const struct task *t)
{
    (void)t;
    dnnl_primitive_execute(primitive, stream, n_args, args);
    dnnl_stream_wait(stream);
}

/* B in the layout that the primitive asks for. */
static void reorder_weights(const struct task *t, dnnl_memory_desc_t stored, const_dnnl_memory_desc_t wanted)
{
    packed = worker_alloc(dnnl_memory_desc_get_size(wanted) / sizeof(float) + 16);
    dnnl_memory_t from = NULL, to = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_memory_create(&from, stored, engine, t->b);
    dnnl_memory_create(&to, wanted, engine, packed);
    dnnl_reorder_primitive_desc_create(&desc, stored, engine, wanted, engine, NULL);
    dnnl_primitive_create(&reorder, desc);
    dnnl_primitive_execute(reorder, stream, 2, (dnnl_exec_arg_t[]){{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
    dnnl_stream_wait(stream);
    dnnl_primitive_destroy(reorder);
    dnnl_primitive_desc_destroy(desc);
    dnnl_memory_destroy(from);
    dnnl_memory_destroy(to);
}

static dnnl_status_t matmul(const struct task *t)
{
    dnnl_memory_desc_t a = matrix(t->m, t->k, dnnl_ab), c = matrix(t->m, t->n, dnnl_ab);
    dnnl_memory_desc_t stored = matrix(t->k, t->n, t->transposed ? dnnl_ba : dnnl_ab);
    dnnl_memory_desc_t b = t->packed ? matrix(t->k, t->n, dnnl_format_tag_any) : stored;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t status = dnnl_matmul_primitive_desc_create(&desc, engine, a, b, NULL, c, NULL);
    if (status == dnnl_success)
        status = dnnl_primitive_create(&primitive, desc);
    if (status == dnnl_success) {
        const_dnnl_memory_desc_t wanted = dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0);
        if (t->packed)
            reorder_weights(t, stored, wanted);
        give(DNNL_ARG_SRC, a, t->a);
        give(DNNL_ARG_WEIGHTS, wanted, t->packed ? packed : t->b);
        give(DNNL_ARG_DST, c, t->c);
    }
    if (desc != NULL)
        dnnl_primitive_desc_destroy(desc);
    if (t->packed)
        dnnl_memory_desc_destroy(b);
    dnnl_memory_desc_destroy(a);
    dnnl_memory_desc_destroy(c);
    dnnl_memory_desc_destroy(stored);
    return status;
}

static int elementwise(const char *op, dnnl_alg_kind_t *kind)
{
    static const struct {
        const char *op;
        dnnl_alg_kind_t kind;
    } known[] = {{"exp", dnnl_eltwise_exp},
                 {"tanh", dnnl_eltwise_tanh},
                 {"gelu_tanh", dnnl_eltwise_gelu_tanh},
                 {"gelu_erf", dnnl_eltwise_gelu_erf},
                 {"silu", dnnl_eltwise_swish}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(op, known[i].op) == 0) {
            *kind = known[i].kind;
            return 1;
        }
    return 0;
}

static dnnl_status_t describe_rows(const struct task *t, dnnl_memory_desc_t x, dnnl_primitive_desc_t *desc)
{
    dnnl_alg_kind_t kind;
    if (elementwise(t->op, &kind))
        return dnnl_eltwise_forward_primitive_desc_create(desc, engine, dnnl_forward_inference, kind, x, x, 1,
                                                          0, NULL);
    if (strcmp(t->op, "softmax") == 0)
        return dnnl_softmax_forward_primitive_desc_create(desc, engine, dnnl_forward_inference,
                                                          dnnl_softmax_accurate, x, x, 1, NULL);
    unsigned flags = dnnl_use_scale | dnnl_use_shift;
    if (strcmp(t->op, "rms_norm") == 0)
#if DNNL_VERSION_MAJOR == 3 && DNNL_VERSION_MINOR < 8
        return dnnl_unimplemented;
#else
        flags = dnnl_use_scale | dnnl_rms_norm;
#endif
    return dnnl_layer_normalization_forward_primitive_desc_create(desc, engine, dnnl_forward_inference, x, x,
                                                                  NULL, LAYER_NORM_EPS, flags, NULL);
}

static dnnl_status_t rows(const struct task *t)
{
    dnnl_memory_desc_t x = matrix(t->m, t->n, dnnl_ab), line = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_memory_desc_create_with_tag(&line, 1, (dnnl_dims_t){t->n}, dnnl_f32, dnnl_a);
    dnnl_status_t status = describe_rows(t, x, &desc);
    if (status == dnnl_success)
        status = dnnl_primitive_create(&primitive, desc);
    if (status == dnnl_success) {
        give(DNNL_ARG_SRC, x, t->a);
        give(DNNL_ARG_DST, x, t->c);
        if (strstr(t->op, "norm") != NULL)
            give(DNNL_ARG_SCALE, line, t->weight);
        if (strcmp(t->op, "layer_norm") == 0)
            give(DNNL_ARG_SHIFT, line, t->bias);
    }
    if (desc != NULL)
        dnnl_primitive_desc_destroy(desc);
    dnnl_memory_desc_destroy(x);
    dnnl_memory_desc_destroy(line);
    return status;
}

int peer_prepare(const struct task *t, struct way *ways, const char **why_not)
{
    drop_all();
    if (strcmp(t->op, "attention") == 0) {
        *why_not = "no primitive for it on a CPU";
        return 0;
    }
    dnnl_status_t status = strcmp(t->op, "matmul") == 0 ? matmul(t) : rows(t);
    if (status != dnnl_success) {
        *why_not = "not implemented in this version";
        return 0;
    }
    ways[0] = (struct way){"primitive", run};
    return 1;
}
