/* Products and attention with NULL, and with sizes and strides that can't be. Each is a status and a message, and nothing is
 * written. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

#define HUGE_SIZE SIZE_MAX
#define NULL_POINTER SM_STATUS_NULL_POINTER
#define INVALID SM_STATUS_INVALID_ARGUMENT

static void kernels(void) {
    float a[16] = {0}, b[16] = {0}, c[16] = {0};
    const size_t big = HUGE_SIZE, half = SIZE_MAX / 2 + 1;
    CHECK_STATUS(sm_matmul_f32(2, 2, 2, NULL, 2, b, 2, 0, c, 2), NULL_POINTER);
    CHECK_STATUS(sm_matmul_f32(2, 2, 2, a, 2, NULL, 2, 0, c, 2), NULL_POINTER);
    CHECK_STATUS(sm_matmul_f32(2, 2, 2, a, 2, b, 2, 0, NULL, 2), NULL_POINTER);
    CHECK_STATUS(sm_matmul_f32(big, 2, 2, a, 2, b, 2, 0, c, 2), INVALID);
    CHECK_STATUS(sm_matmul_f32(2, big, 2, a, 2, b, big, 0, c, big), INVALID);
    CHECK_STATUS(sm_matmul_f32(2, 2, big, a, big, b, 2, 0, c, 2), INVALID);
    CHECK_STATUS(sm_matmul_f32(half, half, half, a, half, b, half, 0, c, half), INVALID);
    CHECK_STATUS(sm_matmul_f32(2, 2, 2, a, half, b, 2, 0, c, 2), INVALID);
    CHECK_STATUS(sm_matmul_f32(2, 2, 3, a, 2, b, 2, 0, c, 2), INVALID); /* lda < k */
    CHECK_STATUS(sm_matmul_f32(2, 3, 2, a, 2, b, 2, 0, c, 3), INVALID); /* ldb < n */
    CHECK_STATUS(sm_matmul_f32(2, 2, 3, a, 3, b, 2, 1, c, 2), INVALID); /* ldb < k, transposed */
    CHECK_STATUS(sm_matmul_f32(2, 3, 2, a, 2, b, 3, 0, c, 2), INVALID); /* ldc < n */
    CHECK_STATUS(sm_matmul_f32(2, 2, 2, a, 2, b, 2, 2, c, 2), INVALID); /* no flag */
    CHECK_STATUS(sm_matmul_f32(2, 2, 2, a, 2, b, 2, 0, a, 2), INVALID); /* C is A */
    CHECK_STATUS(sm_matmul_f32(2, 2, 2, a, 2, b, 2, 0, b + 3, 2), INVALID);

    CHECK_STATUS(sm_gelu_f32(NULL, 4, SM_GELU_ERF, c), NULL_POINTER);
    CHECK_STATUS(sm_gelu_f32(a, 4, SM_GELU_ERF, NULL), NULL_POINTER);
    CHECK_STATUS(sm_gelu_f32(a, big, SM_GELU_ERF, c), INVALID);
    CHECK_STATUS(sm_gelu_f32(a, 4, 2, c), INVALID);
    CHECK_STATUS(sm_gelu_f32(a, 8, SM_GELU_TANH, a + 1), INVALID);
    CHECK_STATUS(sm_silu_f32(NULL, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_silu_f32(a, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_silu_f32(a, big, c), INVALID);
    CHECK_STATUS(sm_silu_f32(a + 1, 8, a), INVALID);
    CHECK_STATUS(sm_softmax_f32(2, 4, NULL, 4, c, 4), NULL_POINTER);
    CHECK_STATUS(sm_softmax_f32(2, 4, a, 4, NULL, 4), NULL_POINTER);
    CHECK_STATUS(sm_softmax_f32(big, big, a, big, c, big), INVALID);
    CHECK_STATUS(sm_softmax_f32(half, 4, a, 4, c, 4), INVALID);
    CHECK_STATUS(sm_softmax_f32(2, 4, a, 3, c, 4), INVALID);
    CHECK_STATUS(sm_softmax_f32(2, 4, a, 4, c, 3), INVALID);
    CHECK_STATUS(sm_softmax_f32(2, 4, a, 4, a + 2, 4), INVALID);
    CHECK_STATUS(sm_softmax_f32(2, 4, a, 4, a, 5), INVALID);
    CHECK_STATUS(sm_layer_norm_f32(2, 4, NULL, 4, b, b, 1e-5f, c, 4), NULL_POINTER);
    CHECK_STATUS(sm_layer_norm_f32(2, 4, a, 4, b, b, 1e-5f, NULL, 4), NULL_POINTER);
    CHECK_STATUS(sm_layer_norm_f32(2, big, a, big, b, b, 1e-5f, c, big), INVALID);
    CHECK_STATUS(sm_layer_norm_f32(2, 4, a, 3, b, b, 1e-5f, c, 4), INVALID);
    CHECK_STATUS(sm_layer_norm_f32(2, 4, a, 4, b, b, NAN, c, 4), INVALID);
    CHECK_STATUS(sm_layer_norm_f32(2, 4, a, 4, b, b, -1.0f, c, 4), INVALID);
    CHECK_STATUS(sm_layer_norm_f32(2, 4, a, 4, b, b, 1e-5f, b, 4), INVALID);
    CHECK_STATUS(sm_rms_norm_f32(2, 4, NULL, 4, b, 1e-5f, c, 4), NULL_POINTER);
    CHECK_STATUS(sm_rms_norm_f32(2, 4, a, 4, b, 1e-5f, NULL, 4), NULL_POINTER);
    CHECK_STATUS(sm_rms_norm_f32(big, 4, a, 4, b, 1e-5f, c, 4), INVALID);
    CHECK_STATUS(sm_rms_norm_f32(2, 4, a, 4, b, INFINITY, c, 4), INVALID);
    CHECK_STATUS(sm_rms_norm_f32(2, 4, a, 4, b, 1e-5f, b + 2, 4), INVALID);

    /* No elements, so nothing to point to. */
    CHECK_OK(sm_matmul_f32(0, 2, 2, NULL, 2, NULL, 2, 0, NULL, 2));
    CHECK_OK(sm_matmul_f32(2, 0, 2, NULL, 2, NULL, 2, 0, NULL, 2));
    CHECK_OK(sm_gelu_f32(NULL, 0, SM_GELU_ERF, NULL));
    CHECK_OK(sm_silu_f32(NULL, 0, NULL));
    CHECK_OK(sm_softmax_f32(0, 4, NULL, 4, NULL, 4));
    CHECK_OK(sm_softmax_f32(4, 0, NULL, 0, NULL, 0));
    CHECK_OK(sm_layer_norm_f32(0, 4, NULL, 4, b, b, 1e-5f, NULL, 4));
    CHECK_OK(sm_rms_norm_f32(4, 0, NULL, 0, NULL, 1e-5f, NULL, 0));
    for (size_t i = 0; i < 16; i++) {
        CHECK(a[i] == 0.0f && b[i] == 0.0f && c[i] == 0.0f);
    }
}

static void attention(void) {
    float q[64], k[64], v[64], out[64];
    for (int i = 0; i < 64; i++) {
        q[i] = k[i] = v[i] = 1.0f;
        out[i] = 7.0f;
    }
    sm_attention_params good, p;
    CHECK_OK(sm_attention_params_init(&good, sizeof good));
    good.n_head = good.tokens_q = 2;
    good.n_head_kv = 1;
    good.tokens_kv = 3;
    good.head_dim = 8;
    CHECK_STATUS(sm_attention_params_init(NULL, sizeof p), NULL_POINTER);
    CHECK_STATUS(sm_attention_params_init(&p, 3), INVALID);
    CHECK_STATUS(sm_attention_f32(NULL, q, k, v, out), NULL_POINTER);
    CHECK_STATUS(sm_attention_f32(&good, NULL, k, v, out), NULL_POINTER);
    CHECK_STATUS(sm_attention_f32(&good, q, NULL, v, out), NULL_POINTER);
    CHECK_STATUS(sm_attention_f32(&good, q, k, NULL, out), NULL_POINTER);
    CHECK_STATUS(sm_attention_f32(&good, q, k, v, NULL), NULL_POINTER);
    CHECK_STATUS(sm_attention_f32(&good, q, k, v, q), INVALID);
    CHECK_STATUS(sm_attention_f32(&good, q, k, v, v + 3), INVALID);
#define REFUSED(change)                                            \
    do {                                                           \
        p = good;                                                  \
        change;                                                    \
        CHECK_STATUS(sm_attention_f32(&p, q, k, v, out), INVALID); \
    } while (0)
    REFUSED(p.struct_size = 2);
    REFUSED(p.n_head_kv = 3);
    REFUSED(p.causal = 2);
    REFUSED(p.scale = NAN);
    REFUSED(p.scale = INFINITY);
    REFUSED(p.tokens_q = HUGE_SIZE);
    REFUSED(p.tokens_kv = HUGE_SIZE);
    REFUSED(p.head_dim = HUGE_SIZE / 2);
    REFUSED(p.batch = HUGE_SIZE);
    REFUSED(p.q.batch = HUGE_SIZE; p.batch = 2);
    REFUSED(p.out.token = 8);
    REFUSED(p.mask = out);
    REFUSED(p.slopes = out);
    REFUSED(p.sinks = out + 15);
    REFUSED(p.soft_cap = NAN);
    REFUSED(p.soft_cap = -1.0f);
    REFUSED(p.soft_cap = 1e31f);
    p = good;
    p.reserved = 1;
    CHECK_STATUS(sm_attention_f32(&p, q, k, v, out), SM_STATUS_UNSUPPORTED);
    for (int i = 0; i < 64; i++) {
        CHECK(out[i] == 7.0f);
    }
    /* Nothing to do, and nothing to see. */
    p = good;
    p.tokens_q = 0;
    CHECK_OK(sm_attention_f32(&p, NULL, NULL, NULL, NULL));
    p = good;
    p.head_dim = 0;
    CHECK_OK(sm_attention_f32(&p, NULL, NULL, NULL, NULL));
    p = good;
    p.tokens_kv = 0;
    CHECK_OK(sm_attention_f32(&p, q, NULL, NULL, out));
    CHECK(out[0] == 0.0f && out[31] == 0.0f && out[32] == 7.0f);
}

void test_bad_kernels(void) {
    kernels();
    attention();
}
