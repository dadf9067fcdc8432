/* Attention on plain buffers: against values that are known, and against a plain loop. */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

#define CANARY 12345.0f

/* Between -1 and 1, the same on every run. */
static float noise(unsigned *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(*seed >> 8) / (float)(1 << 23) - 1.0f;
}

static float *fill(size_t n, unsigned seed) {
    float *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        x[i] = noise(&seed);
    }
    return x;
}

static sm_attention_params shape(size_t n_head, size_t n_head_kv, size_t tokens_q, size_t tokens_kv,
                                 size_t head_dim) {
    sm_attention_params params;
    CHECK_OK(sm_attention_params_init(&params, sizeof params));
    params.n_head = n_head;
    params.n_head_kv = n_head_kv;
    params.tokens_q = tokens_q;
    params.tokens_kv = tokens_kv;
    params.head_dim = head_dim;
    return params;
}

/* Dense buffers of one sequence, computed with doubles. */
static void plainly(const sm_attention_params *p, const float *q, const float *k, const float *v, size_t t,
                    size_t h, double *out) {
    const size_t g = h / (p->n_head / p->n_head_kv), d = p->head_dim;
    const double scale = p->scale == 0.0f ? 1.0 / sqrt((double)d) : p->scale;
    const size_t here = t + 1 + p->tokens_kv - p->tokens_q;
    const size_t begin = p->window > 0 && here > p->window ? here - p->window : 0;
    double sum = 0.0;
    memset(out, 0, d * sizeof *out);
    for (size_t j = begin; j < (p->causal ? here : p->tokens_kv); j++) {
        double score = 0.0;
        for (size_t i = 0; i < d; i++) {
            score += (double)q[(t * p->n_head + h) * d + i] * k[(j * p->n_head_kv + g) * d + i];
        }
        score *= scale;
        if (p->soft_cap != 0.0f) {
            score = p->soft_cap * tanh(score / p->soft_cap);
        }
        if (p->slopes != NULL) {
            score -= p->slopes[h] * fabs((double)j - (double)here + 1.0);
        }
        if (p->mask != NULL) {
            score += p->mask[t * p->mask_strides.token + j];
        }
        const double weight = exp(score);
        sum += weight;
        for (size_t i = 0; i < d; i++) {
            out[i] += weight * v[(j * p->n_head_kv + g) * d + i];
        }
    }
    if (p->sinks != NULL) {
        sum += exp(p->sinks[h]);
    }
    for (size_t i = 0; i < d; i++) {
        out[i] = sum == 0.0 ? 0.0 : out[i] / sum;
    }
}

/* The same bits on teams of several sizes, the second call of which takes no memory. */
static void check_teams(const sm_attention_params *p, const float *q, const float *k, const float *v, size_t n_out,
                        const float *alone) {
    for (size_t threads = 1; threads <= 4; threads++) {
        sm_attention_params params = *p;
        CHECK_OK(sm_team_create(threads, &params.team));
        float *out = fill(n_out, 9);
        for (int again = 0; again < 2; again++) {
            CHECK_OK(sm_attention_f32(&params, q, k, v, out));
            CHECK(memcmp(out, alone, n_out * sizeof *out) == 0);
            memset(out, 0, n_out * sizeof *out);
        }
        free(out);
        CHECK_OK(sm_team_free(params.team));
    }
}

static void check_against_loops(const sm_attention_params *p) {
    const size_t n_q = p->tokens_q * p->n_head * p->head_dim, n_k = p->tokens_kv * p->n_head_kv * p->head_dim;
    float *q = fill(n_q, 1), *k = fill(n_k, 2), *v = fill(n_k, 3), *out = malloc((n_q + 1) * sizeof *out);
    double *want = malloc(p->head_dim * sizeof *want);
    out[n_q] = CANARY;
    CHECK_OK(sm_attention_f32(p, q, k, v, out));
    int wrong = out[n_q] != CANARY;
    for (size_t row = 0; row < p->tokens_q * p->n_head; row++) {
        plainly(p, q, k, v, row / p->n_head, row % p->n_head, want);
        for (size_t i = 0; i < p->head_dim; i++) {
            wrong += !(fabs(out[row * p->head_dim + i] - want[i]) <= 2e-5);
        }
    }
    CHECK(wrong == 0);
    check_teams(p, q, k, v, n_q, out);
    free(q);
    free(k);
    free(v);
    free(out);
    free(want);
}

static void check_strides(void) {
    /* Two sequences of two heads, [batch][head][token][dim], with a gap; all keys equal: means of the values. */
    float q[2 * 2 * 3 * 9], k[2 * 2 * 4 * 9], v[2 * 2 * 4 * 9], out[2 * 2 * 3 * 9];
    for (size_t i = 0; i < sizeof k / sizeof *k; i++) {
        k[i] = 1.0f;
        v[i] = (float)(i / 9 % 4);
    }
    for (size_t i = 0; i < sizeof q / sizeof *q; i++) {
        q[i] = 1.0f;
        out[i] = CANARY;
    }
    sm_attention_params p = shape(2, 2, 3, 4, 8);
    p.batch = 2;
    p.causal = 1;
    p.q = p.out = (sm_strides){.batch = 54, .head = 27, .token = 9};
    p.k = p.v = (sm_strides){.batch = 72, .head = 36, .token = 9};
    CHECK_OK(sm_attention_f32(&p, q, k, v, out));
    for (size_t i = 0; i < sizeof out / sizeof *out; i++) {
        /* Token t sees the values 0 to t + 1. */
        const float mean = (float)(i / 9 % 3 + 1) / 2.0f;
        CHECK(i % 9 == 8 ? out[i] == CANARY : fabsf(out[i] - mean) < 1e-6f);
    }
}

/* A host that was compiled before there was `team` has none, whatever stands behind its structure. */
static void check_older_host(void) {
    const float one[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    float out[8];
    sm_attention_params p;
    memset(&p, 0xff, sizeof p);
    CHECK_OK(sm_attention_params_init(&p, offsetof(sm_attention_params, team)));
    CHECK(p.struct_size == offsetof(sm_attention_params, team));
    p.tokens_q = p.tokens_kv = 1;
    p.head_dim = 8;
    CHECK_OK(sm_attention_f32(&p, one, one, one, out));
    CHECK(memcmp(out, one, sizeof out) == 0);
    /* And one from before there were slopes. */
    memset(&p, 0xff, sizeof p);
    CHECK_OK(sm_attention_params_init(&p, offsetof(sm_attention_params, slopes)));
    p.tokens_q = p.tokens_kv = 1;
    p.head_dim = 8;
    CHECK_OK(sm_attention_f32(&p, one, one, one, out));
    CHECK(memcmp(out, one, sizeof out) == 0);
}

void test_attention(void) {
    check_older_host();
    sm_attention_params p = shape(4, 2, 50, 200, 64);
    check_against_loops(&p);
    p.causal = 1;
    check_against_loops(&p);
    p.window = 30;
    p.scale = 0.3f;
    check_against_loops(&p);
    const float slopes[4] = {0.25f, 0.125f, 0.0f, 0.5f}, sinks[4] = {1.0f, -INFINITY, 3.0f, -2.0f};
    p.soft_cap = 0.5f;
    check_against_loops(&p);
    p.sinks = sinks;
    check_against_loops(&p);
    p.slopes = slopes;
    check_against_loops(&p);
    p.causal = 0;
    p.window = 0;
    check_against_loops(&p);
    p = shape(3, 1, 7, 7, 24);
    float *mask = fill(7 * 9, 4);
    for (int i = 0; i < 7 * 9; i += 3) {
        mask[i] = -INFINITY;
    }
    for (int i = 0; i < 7; i++) {
        mask[4 * 9 + i] = -INFINITY;
    }
    p.mask = mask;
    p.mask_strides.token = 9;
    check_against_loops(&p);
    free(mask);
    check_strides();
}
