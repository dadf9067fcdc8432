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
    __typeof__(&sm_team_create) team_create;
    __typeof__(&sm_matmul_params_init) matmul_params_init;
    __typeof__(&sm_matmul) matmul;
    __typeof__(&sm_matrix_pack) matrix_pack;
    __typeof__(&sm_matrix_free) matrix_free;
    __typeof__(&sm_matmul_packed) matmul_packed;
    __typeof__(&sm_attention_params_init) attention_params_init;
    __typeof__(&sm_attention_f32) attention;
    __typeof__(&sm_silu_f32) exp, tanh; /* of one form */
    __typeof__(&sm_gelu_f32) gelu;
    __typeof__(&sm_silu_f32) silu;
    __typeof__(&sm_softmax_f32) softmax;
    __typeof__(&sm_layer_norm_f32) layer_norm;
    __typeof__(&sm_rms_norm_f32) rms_norm;
} api;

static const struct {
    const char *name;
    void *into;
} symbols[] = {
    {"sm_version", &api.version},
    {"sm_team_create", &api.team_create},
    {"sm_matmul_params_init", &api.matmul_params_init},
    {"sm_matmul", &api.matmul},
    {"sm_matrix_pack", &api.matrix_pack},
    {"sm_matrix_free", &api.matrix_free},
    {"sm_matmul_packed", &api.matmul_packed},
    {"sm_attention_params_init", &api.attention_params_init},
    {"sm_attention_f32", &api.attention},
    {"sm_exp_f32", &api.exp},
    {"sm_tanh_f32", &api.tanh},
    {"sm_gelu_f32", &api.gelu},
    {"sm_silu_f32", &api.silu},
    {"sm_softmax_f32", &api.softmax},
    {"sm_layer_norm_f32", &api.layer_norm},
    {"sm_rms_norm_f32", &api.rms_norm},
};

static sm_team *team;
static sm_matrix *packed;
static sm_matmul_params product;
static sm_attention_params heads;

const char *peer_open(int threads, int argc, char **argv)
{
    void *library = argc == 1 ? dlopen(argv[0], RTLD_NOW) : NULL;
    if (library == NULL)
        return "libsmallmind.so can't be opened";
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++)
        *(void **)symbols[i].into = dlsym(library, symbols[i].name);
    if (api.team_create != NULL && api.team_create((size_t)threads, &team) != SM_STATUS_OK)
        return "no team of threads";
    return api.version != NULL ? NULL : "no sm_version in it";
}

void peer_describe(char *text, size_t capacity) { snprintf(text, capacity, "%s", api.version()); }

static void matmul(const struct task *t) { api.matmul(&product, t->a, t->b, t->c); }
static void matmul_packed(const struct task *t) { api.matmul_packed(&product, t->a, packed, t->c); }
static void attention(const struct task *t) { api.attention(&heads, t->a, t->b, t->values, t->c); }
static void exp_(const struct task *t) { api.exp(t->a, (size_t)t->n, t->c); }
static void tanh_(const struct task *t) { api.tanh(t->a, (size_t)t->n, t->c); }
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

static int prepare_matmul(const struct task *t, struct way *way)
{
    if (api.matmul == NULL || api.matmul_packed == NULL || api.matrix_pack == NULL)
        return 0;
    if (packed != NULL)
        api.matrix_free(packed);
    packed = NULL;
    api.matmul_params_init(&product, sizeof product);
    product.m = (size_t)t->m, product.n = (size_t)t->n, product.k = (size_t)t->k;
    product.b_transposed = t->transposed;
    product.team = team;
    *way = t->packed ? (struct way){"sm_matmul_packed", matmul_packed} : (struct way){"sm_matmul", matmul};
    return !t->packed || api.matrix_pack(product.k, product.n, t->b, 0, t->transposed, SM_TYPE_F32,
                                         &packed) == SM_STATUS_OK;
}

/* Head by head, as the buffers are: the elements of a head adjoin, then its positions. */
static int prepare_attention(const struct task *t, struct way *way)
{
    if (api.attention == NULL || t->threads > 1)
        return 0;
    size_t length = (size_t)t->m, head_dim = (size_t)t->n;
    sm_strides places = {.batch = 0, .token = head_dim, .head = length * head_dim};
    api.attention_params_init(&heads, sizeof heads);
    heads.n_head = (size_t)t->k;
    heads.tokens_q = heads.tokens_kv = length;
    heads.head_dim = head_dim;
    heads.causal = t->transposed;
    heads.q = heads.k = heads.v = heads.out = places;
    *way = (struct way){"sm_attention_f32", attention};
    return 1;
}

static int prepare_function(const struct task *t, struct way *way)
{
    const struct {
        const char *op;
        int there;
        struct way way;
    } functions[] = {
        {"exp", api.exp != NULL, {"sm_exp_f32", exp_}},
        {"tanh", api.tanh != NULL, {"sm_tanh_f32", tanh_}},
        {"gelu_tanh", api.gelu != NULL, {"sm_gelu_f32", gelu_tanh}},
        {"gelu_erf", api.gelu != NULL, {"sm_gelu_f32", gelu_erf}},
        {"silu", api.silu != NULL, {"sm_silu_f32", silu}},
        {"softmax", api.softmax != NULL, {"sm_softmax_f32", softmax}},
        {"layer_norm", api.layer_norm != NULL, {"sm_layer_norm_f32", layer_norm}},
        {"rms_norm", api.rms_norm != NULL, {"sm_rms_norm_f32", rms_norm}},
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        if (strcmp(t->op, functions[i].op) == 0) {
            *way = functions[i].way;
            return functions[i].there;
        }
    }
    return 0;
}

int peer_prepare(const struct task *t, struct way *ways, const char **why_not)
{
    *why_not = "not in this build";
    if (strcmp(t->op, "matmul") == 0)
        return prepare_matmul(t, ways);
    if (strcmp(t->op, "attention") == 0)
        return prepare_attention(t, ways);
    return prepare_function(t, ways);
}
