/* The functions of elementwise.rs to layout.rs with NULL, sizes that can't be, and buffers that overlap. Each is a status
 * and a message, and nothing is written. */
#include <math.h>
#include <stdlib.h>

#include "test.h"

#define HUGE_SIZE SIZE_MAX
#define NULL_POINTER SM_STATUS_NULL_POINTER
#define INVALID SM_STATUS_INVALID_ARGUMENT

static float a[16], b[16], c[16], d[16];

static void elementwise(void) {
    CHECK_STATUS(sm_exp_f32(NULL, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_exp_f32(a, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_exp_f32(a, HUGE_SIZE, c), INVALID);
    CHECK_STATUS(sm_exp_f32(a + 1, 8, a), INVALID);
    CHECK_OK(sm_exp_f32(NULL, 0, NULL));
    CHECK_STATUS(sm_tanh_f32(NULL, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_tanh_f32(a, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_tanh_f32(a, HUGE_SIZE, c), INVALID);
    CHECK_STATUS(sm_tanh_f32(a + 1, 8, a), INVALID);
    CHECK_OK(sm_tanh_f32(NULL, 0, NULL));
    CHECK_STATUS(sm_erf_f32(NULL, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_erf_f32(a, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_erf_f32(a, HUGE_SIZE, c), INVALID);
    CHECK_STATUS(sm_erf_f32(a + 1, 8, a), INVALID);
    CHECK_OK(sm_erf_f32(NULL, 0, NULL));
    CHECK_STATUS(sm_sigmoid_f32(NULL, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_sigmoid_f32(a, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_sigmoid_f32(a, HUGE_SIZE, c), INVALID);
    CHECK_STATUS(sm_sigmoid_f32(a + 1, 8, a), INVALID);
    CHECK_OK(sm_sigmoid_f32(NULL, 0, NULL));
    CHECK_STATUS(sm_relu_f32(NULL, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_relu_f32(a, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_relu_f32(a, HUGE_SIZE, c), INVALID);
    CHECK_STATUS(sm_relu_f32(a + 1, 8, a), INVALID);
    CHECK_OK(sm_relu_f32(NULL, 0, NULL));
    CHECK_STATUS(sm_tanh_backward_f32(NULL, b, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_tanh_backward_f32(a, NULL, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_tanh_backward_f32(a, b, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_tanh_backward_f32(a, b, HUGE_SIZE, c), INVALID);
    CHECK_STATUS(sm_tanh_backward_f32(a, b, 8, a + 1), INVALID);
    CHECK_STATUS(sm_tanh_backward_f32(a, b + 1, 8, b), INVALID);
    CHECK_OK(sm_tanh_backward_f32(NULL, NULL, 0, NULL));
    CHECK_STATUS(sm_sigmoid_backward_f32(NULL, b, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_sigmoid_backward_f32(a, NULL, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_sigmoid_backward_f32(a, b, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_sigmoid_backward_f32(a, b, HUGE_SIZE, c), INVALID);
    CHECK_STATUS(sm_sigmoid_backward_f32(a, b, 8, a + 1), INVALID);
    CHECK_STATUS(sm_sigmoid_backward_f32(a, b + 1, 8, b), INVALID);
    CHECK_OK(sm_sigmoid_backward_f32(NULL, NULL, 0, NULL));
    CHECK_STATUS(sm_gelu_backward_f32(NULL, b, 4, SM_GELU_ERF, c), NULL_POINTER);
    CHECK_STATUS(sm_gelu_backward_f32(a, NULL, 4, SM_GELU_ERF, c), NULL_POINTER);
    CHECK_STATUS(sm_gelu_backward_f32(a, b, 4, SM_GELU_ERF, NULL), NULL_POINTER);
    CHECK_STATUS(sm_gelu_backward_f32(a, b, HUGE_SIZE, SM_GELU_ERF, c), INVALID);
    CHECK_STATUS(sm_gelu_backward_f32(a, b, 8, SM_GELU_ERF, a + 1), INVALID);
    CHECK_STATUS(sm_gelu_backward_f32(a, b + 1, 8, SM_GELU_ERF, b), INVALID);
    CHECK_OK(sm_gelu_backward_f32(NULL, NULL, 0, SM_GELU_ERF, NULL));
    CHECK_STATUS(sm_silu_backward_f32(NULL, b, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_silu_backward_f32(a, NULL, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_silu_backward_f32(a, b, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_silu_backward_f32(a, b, HUGE_SIZE, c), INVALID);
    CHECK_STATUS(sm_silu_backward_f32(a, b, 8, a + 1), INVALID);
    CHECK_STATUS(sm_silu_backward_f32(a, b + 1, 8, b), INVALID);
    CHECK_OK(sm_silu_backward_f32(NULL, NULL, 0, NULL));
    CHECK_STATUS(sm_relu_backward_f32(NULL, b, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_relu_backward_f32(a, NULL, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_relu_backward_f32(a, b, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_relu_backward_f32(a, b, HUGE_SIZE, c), INVALID);
    CHECK_STATUS(sm_relu_backward_f32(a, b, 8, a + 1), INVALID);
    CHECK_STATUS(sm_relu_backward_f32(a, b + 1, 8, b), INVALID);
    CHECK_OK(sm_relu_backward_f32(NULL, NULL, 0, NULL));
    CHECK_STATUS(sm_add_f32(NULL, b, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_add_f32(a, NULL, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_add_f32(a, b, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_add_f32(a, b, HUGE_SIZE, c), INVALID);
    CHECK_STATUS(sm_add_f32(a, b, 8, a + 1), INVALID);
    CHECK_STATUS(sm_add_f32(a, b + 1, 8, b), INVALID);
    CHECK_OK(sm_add_f32(NULL, NULL, 0, NULL));
    CHECK_STATUS(sm_mul_f32(NULL, b, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_mul_f32(a, NULL, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_mul_f32(a, b, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_mul_f32(a, b, HUGE_SIZE, c), INVALID);
    CHECK_STATUS(sm_mul_f32(a, b, 8, a + 1), INVALID);
    CHECK_STATUS(sm_mul_f32(a, b + 1, 8, b), INVALID);
    CHECK_OK(sm_mul_f32(NULL, NULL, 0, NULL));
    CHECK_STATUS(sm_swiglu_f32(NULL, b, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_swiglu_f32(a, NULL, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_swiglu_f32(a, b, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_swiglu_f32(a, b, HUGE_SIZE, c), INVALID);
    CHECK_STATUS(sm_swiglu_f32(a, b, 8, a + 1), INVALID);
    CHECK_STATUS(sm_swiglu_f32(a, b + 1, 8, b), INVALID);
    CHECK_OK(sm_swiglu_f32(NULL, NULL, 0, NULL));
    CHECK_STATUS(sm_geglu_f32(NULL, b, 4, SM_GELU_TANH, c), NULL_POINTER);
    CHECK_STATUS(sm_geglu_f32(a, NULL, 4, SM_GELU_TANH, c), NULL_POINTER);
    CHECK_STATUS(sm_geglu_f32(a, b, 4, SM_GELU_TANH, NULL), NULL_POINTER);
    CHECK_STATUS(sm_geglu_f32(a, b, HUGE_SIZE, SM_GELU_TANH, c), INVALID);
    CHECK_STATUS(sm_geglu_f32(a, b, 8, SM_GELU_TANH, a + 1), INVALID);
    CHECK_STATUS(sm_geglu_f32(a, b + 1, 8, SM_GELU_TANH, b), INVALID);
    CHECK_OK(sm_geglu_f32(NULL, NULL, 0, SM_GELU_TANH, NULL));
    CHECK_STATUS(sm_gelu_backward_f32(a, b, 4, 2, c), INVALID);
    CHECK_STATUS(sm_geglu_f32(a, b, 4, -1, c), INVALID);
    CHECK_STATUS(sm_scale_f32(NULL, 4, 1.0f, c), NULL_POINTER);
    CHECK_STATUS(sm_scale_f32(a, 4, 1.0f, NULL), NULL_POINTER);
    CHECK_STATUS(sm_scale_f32(a, HUGE_SIZE, 1.0f, c), INVALID);
    CHECK_STATUS(sm_scale_f32(a, 8, 1.0f, a + 3), INVALID);
    CHECK_OK(sm_scale_f32(NULL, 0, 1.0f, NULL));
    CHECK_STATUS(sm_axpy_f32(1.0f, NULL, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_axpy_f32(1.0f, a, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_axpy_f32(1.0f, a, HUGE_SIZE, c), INVALID);
    CHECK_STATUS(sm_axpy_f32(1.0f, a, 8, a + 3), INVALID);
    CHECK_OK(sm_axpy_f32(1.0f, NULL, 0, NULL));
    CHECK_STATUS(sm_swiglu_backward_f32(NULL, a, b, 4, c, d), NULL_POINTER);
    CHECK_STATUS(sm_swiglu_backward_f32(a, NULL, b, 4, c, d), NULL_POINTER);
    CHECK_STATUS(sm_swiglu_backward_f32(a, b, NULL, 4, c, d), NULL_POINTER);
    CHECK_STATUS(sm_swiglu_backward_f32(a, b, b, 4, NULL, d), NULL_POINTER);
    CHECK_STATUS(sm_swiglu_backward_f32(a, b, b, 4, c, NULL), NULL_POINTER);
    CHECK_STATUS(sm_swiglu_backward_f32(a, b, b, HUGE_SIZE, c, d), INVALID);
    CHECK_STATUS(sm_swiglu_backward_f32(a, b, b, 4, c, c), INVALID);
    CHECK_STATUS(sm_swiglu_backward_f32(a, b, b, 4, c, c + 2), INVALID);
    CHECK_STATUS(sm_swiglu_backward_f32(a, b, b, 4, a + 1, d), INVALID);
    CHECK_OK(sm_swiglu_backward_f32(NULL, NULL, NULL, 0, NULL, NULL));
    CHECK_STATUS(sm_geglu_backward_f32(NULL, a, b, 4, SM_GELU_TANH, c, d), NULL_POINTER);
    CHECK_STATUS(sm_geglu_backward_f32(a, NULL, b, 4, SM_GELU_TANH, c, d), NULL_POINTER);
    CHECK_STATUS(sm_geglu_backward_f32(a, b, NULL, 4, SM_GELU_TANH, c, d), NULL_POINTER);
    CHECK_STATUS(sm_geglu_backward_f32(a, b, b, 4, SM_GELU_TANH, NULL, d), NULL_POINTER);
    CHECK_STATUS(sm_geglu_backward_f32(a, b, b, 4, SM_GELU_TANH, c, NULL), NULL_POINTER);
    CHECK_STATUS(sm_geglu_backward_f32(a, b, b, HUGE_SIZE, SM_GELU_TANH, c, d), INVALID);
    CHECK_STATUS(sm_geglu_backward_f32(a, b, b, 4, SM_GELU_TANH, c, c), INVALID);
    CHECK_STATUS(sm_geglu_backward_f32(a, b, b, 4, SM_GELU_TANH, c, c + 2), INVALID);
    CHECK_STATUS(sm_geglu_backward_f32(a, b, b, 4, SM_GELU_TANH, a + 1, d), INVALID);
    CHECK_OK(sm_geglu_backward_f32(NULL, NULL, NULL, 0, SM_GELU_TANH, NULL, NULL));
    CHECK_STATUS(sm_geglu_backward_f32(a, b, b, 4, 2, c, d), INVALID);
}

static void rows(void) {
    const size_t big = HUGE_SIZE, all = 4;
    CHECK_STATUS(sm_masked_softmax_f32(2, 4, NULL, 4, 1.0f, all, b, 4, c, 4), NULL_POINTER);
    CHECK_STATUS(sm_masked_softmax_f32(2, 4, a, 4, 1.0f, all, b, 4, NULL, 4), NULL_POINTER);
    CHECK_STATUS(sm_masked_softmax_f32(2, 4, a, 4, NAN, all, b, 4, c, 4), INVALID);
    CHECK_STATUS(sm_masked_softmax_f32(2, 4, a, 4, INFINITY, all, NULL, 0, c, 4), INVALID);
    CHECK_STATUS(sm_masked_softmax_f32(2, 4, a, 4, 1.0f, all, b, 3, c, 4), INVALID);
    CHECK_STATUS(sm_masked_softmax_f32(2, 4, a, 4, 1.0f, all, c + 2, 0, c, 4), INVALID);
    CHECK_STATUS(sm_masked_softmax_f32(2, 4, a, 3, 1.0f, all, b, 4, c, 4), INVALID);
    CHECK_STATUS(sm_masked_softmax_f32(big, big, a, big, 1.0f, 1, NULL, 0, c, big), INVALID);
    CHECK_STATUS(sm_masked_softmax_f32(2, 4, a, 4, 1.0f, 1, NULL, 0, a + 1, 4), INVALID);
    CHECK_OK(sm_masked_softmax_f32(0, 4, NULL, 4, 1.0f, all, NULL, 0, NULL, 4));
    CHECK_STATUS(sm_log_softmax_f32(2, 4, NULL, 4, c, 4), NULL_POINTER);
    CHECK_STATUS(sm_log_softmax_f32(2, 4, a, 4, NULL, 4), NULL_POINTER);
    CHECK_STATUS(sm_log_softmax_f32(2, 4, a, 4, c, 3), INVALID);
    CHECK_STATUS(sm_log_softmax_f32(2, 4, a, 4, a, 5), INVALID);
    CHECK_OK(sm_log_softmax_f32(4, 0, NULL, 0, NULL, 0));
    CHECK_STATUS(sm_add_row_f32(2, 4, NULL, 4, b, c, 4), NULL_POINTER);
    CHECK_STATUS(sm_add_row_f32(2, 4, a, 4, NULL, c, 4), NULL_POINTER);
    CHECK_STATUS(sm_add_row_f32(2, 4, a, 4, b, NULL, 4), NULL_POINTER);
    CHECK_STATUS(sm_add_row_f32(2, 4, a, 3, b, c, 4), INVALID);
    CHECK_STATUS(sm_add_row_f32(2, 4, a, 4, c + 5, c, 4), INVALID);
    CHECK_OK(sm_add_row_f32(0, 4, NULL, 4, NULL, NULL, 4));
}

/* The functions that take their shape, and a team, as a structure. */
static void rows_with_params(void) {
    sm_rows_params good, p;
    CHECK_STATUS(sm_rows_params_init(NULL, sizeof good), NULL_POINTER);
    CHECK_STATUS(sm_rows_params_init(&good, 3), INVALID);
    CHECK_OK(sm_rows_params_init(&good, sizeof good));
    good.rows = 2;
    good.cols = 4;
    CHECK_STATUS(sm_softmax(NULL, a, c), NULL_POINTER);
    CHECK_STATUS(sm_softmax(&good, NULL, c), NULL_POINTER);
    CHECK_STATUS(sm_softmax(&good, a, NULL), NULL_POINTER);
    CHECK_STATUS(sm_softmax(&good, a + 1, a), INVALID);
    CHECK_STATUS(sm_masked_softmax(NULL, a, 1.0f, 4, NULL, 0, c), NULL_POINTER);
    CHECK_STATUS(sm_masked_softmax(&good, a, NAN, 4, NULL, 0, c), INVALID);
    CHECK_STATUS(sm_masked_softmax(&good, a, 1.0f, 4, b, 3, c), INVALID);
    CHECK_STATUS(sm_masked_softmax(&good, a, 1.0f, 4, c + 2, 0, c), INVALID);
    CHECK_STATUS(sm_log_softmax(NULL, a, c), NULL_POINTER);
    CHECK_STATUS(sm_log_softmax(&good, NULL, c), NULL_POINTER);
    CHECK_STATUS(sm_log_softmax(&good, a, NULL), NULL_POINTER);
    CHECK_STATUS(sm_layer_norm(NULL, a, b, b, 1e-5f, c), NULL_POINTER);
    CHECK_STATUS(sm_layer_norm(&good, NULL, b, b, 1e-5f, c), NULL_POINTER);
    CHECK_STATUS(sm_layer_norm(&good, a, b, b, 1e-5f, NULL), NULL_POINTER);
    CHECK_STATUS(sm_layer_norm(&good, a, b, b, -1.0f, c), INVALID);
    CHECK_STATUS(sm_layer_norm(&good, a, c + 7, b, 1e-5f, c), INVALID);
    CHECK_STATUS(sm_layer_norm(&good, a, b, c, 1e-5f, c), INVALID);
    CHECK_STATUS(sm_rms_norm(NULL, a, b, 1e-5f, c), NULL_POINTER);
    CHECK_STATUS(sm_rms_norm(&good, NULL, b, 1e-5f, c), NULL_POINTER);
    CHECK_STATUS(sm_rms_norm(&good, a, b, 1e-5f, NULL), NULL_POINTER);
    CHECK_STATUS(sm_rms_norm(&good, a, b, INFINITY, c), INVALID);
#define REFUSED(change)                                                     \
    do {                                                                    \
        p = good;                                                           \
        change;                                                             \
        CHECK_STATUS(sm_softmax(&p, a, c), INVALID);                        \
        CHECK_STATUS(sm_masked_softmax(&p, a, 1.0f, 1, NULL, 0, c), INVALID); \
        CHECK_STATUS(sm_log_softmax(&p, a, c), INVALID);                    \
        CHECK_STATUS(sm_layer_norm(&p, a, b, b, 1e-5f, c), INVALID);        \
        CHECK_STATUS(sm_rms_norm(&p, a, b, 1e-5f, c), INVALID);             \
    } while (0)
    REFUSED(p.struct_size = 2);
    REFUSED(p.ldx = 3);
    REFUSED(p.ldy = 3);
    REFUSED(p.rows = HUGE_SIZE);
    REFUSED(p.cols = HUGE_SIZE);
    REFUSED(p.ldx = HUGE_SIZE);
#undef REFUSED
    p = good;
    p.rows = 0;
    CHECK_OK(sm_softmax(&p, NULL, NULL));
    CHECK_OK(sm_layer_norm(&p, NULL, NULL, NULL, 1e-5f, NULL));
    p = good;
    p.cols = 0;
    CHECK_OK(sm_log_softmax(&p, NULL, NULL));
    CHECK_OK(sm_rms_norm(&p, NULL, NULL, 1e-5f, NULL));
}

static void sums_with_params(void) {
    sm_add_norm_params good, p;
    CHECK_STATUS(sm_add_norm_params_init(NULL, sizeof good), NULL_POINTER);
    CHECK_STATUS(sm_add_norm_params_init(&good, 3), INVALID);
    CHECK_OK(sm_add_norm_params_init(&good, sizeof good));
    good.rows = 2;
    good.cols = 4;
    good.weight = good.bias = b;
    good.mean = d;
    good.rstd = d + 2;
    CHECK_STATUS(sm_add_layer_norm_f32(NULL, a, b, c), NULL_POINTER);
    CHECK_STATUS(sm_add_layer_norm_f32(&good, NULL, b, c), NULL_POINTER);
    CHECK_STATUS(sm_add_layer_norm_f32(&good, a, b, NULL), NULL_POINTER);
    CHECK_STATUS(sm_add_layer_norm_f32(&good, NULL, NULL, c), NULL_POINTER);
    CHECK_STATUS(sm_add_layer_norm_f32(&good, a, b, a), INVALID); /* y is x, the sum */
    CHECK_STATUS(sm_add_layer_norm_f32(&good, a, a, c), INVALID);
    CHECK_STATUS(sm_add_layer_norm_f32(&good, a, c + 4, c), INVALID);
    CHECK_STATUS(sm_add_rms_norm_f32(&good, a, b, c), INVALID); /* a mean */
#define REFUSED(change)                                         \
    do {                                                        \
        p = good;                                               \
        change;                                                 \
        CHECK_STATUS(sm_add_layer_norm_f32(&p, a, b, c), INVALID); \
        p.mean = NULL;                                          \
        CHECK_STATUS(sm_add_rms_norm_f32(&p, a, b, c), INVALID); \
    } while (0)
    REFUSED(p.struct_size = 2);
    REFUSED(p.ldx = 3);
    REFUSED(p.ldadd = 3);
    REFUSED(p.ldy = 3);
    REFUSED(p.rows = p.ldx = p.ldadd = p.ldy = HUGE_SIZE);
    REFUSED(p.eps = NAN);
    REFUSED(p.eps = -1.0f);
    REFUSED(p.rstd = c + 7);
    REFUSED(p.rstd = b);
    REFUSED(p.rstd = a + 7);
    REFUSED(p.weight = c);
    REFUSED(p.bias = a);
#undef REFUSED
    p = good;
    p.rstd = d + 1; /* overlaps mean */
    CHECK_STATUS(sm_add_layer_norm_f32(&p, a, b, c), INVALID);
    p = good;
    p.mean = a; /* x is an input without add, and still no place for results */
    CHECK_STATUS(sm_add_layer_norm_f32(&p, a, NULL, c), INVALID);
    p = good;
    p.rows = 0;
    CHECK_OK(sm_add_layer_norm_f32(&p, NULL, NULL, NULL));
    p.rows = 4;
    p.cols = 0;
    CHECK_OK(sm_add_rms_norm_f32(&p, NULL, NULL, NULL));
    p = good;
    p.mean = p.rstd = NULL;
    p.weight = p.bias = NULL;
    CHECK_STATUS(sm_add_rms_norm_f32(&p, a, NULL, a + 1), INVALID);
}

static void others(void) {
    const size_t big = HUGE_SIZE;
    size_t index = 7;
    CHECK_STATUS(sm_sum_f32(NULL, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_sum_f32(a, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_sum_f32(a, big, c), INVALID);
    CHECK_STATUS(sm_dot_f32(NULL, b, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_dot_f32(a, NULL, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_dot_f32(a, b, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_dot_f32(a, b, big, c), INVALID);
    CHECK_STATUS(sm_max_f32(NULL, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_max_f32(a, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_argmax_f32(NULL, 4, &index), NULL_POINTER);
    CHECK_STATUS(sm_argmax_f32(a, 4, NULL), NULL_POINTER);
    CHECK(index == 7);

    static const uint32_t positions[2] = {0, 9};
    CHECK_STATUS(sm_rope_table_f32(2, 4, 1e4f, 1.0f, NULL, NULL), NULL_POINTER);
    CHECK_STATUS(sm_rope_table_f32(2, 3, 1e4f, 1.0f, NULL, c), INVALID);
    CHECK_STATUS(sm_rope_table_f32(2, 4, 0.0f, 1.0f, NULL, c), INVALID);
    CHECK_STATUS(sm_rope_table_f32(2, 4, 1e4f, NAN, NULL, c), INVALID);
    CHECK_STATUS(sm_rope_table_f32(2, 4, 1e4f, 1.0f, a, c), INVALID); /* factors of 0 */
    CHECK_STATUS(sm_rope_table_f32(2, 4, 1e4f, 1.0f, c + 1, c), INVALID);
    CHECK_STATUS(sm_rope_table_f32(big, 4, 1e4f, 1.0f, NULL, c), INVALID);
    CHECK_OK(sm_rope_table_f32(0, 4, 1e4f, 1.0f, NULL, NULL));
    CHECK_STATUS(sm_rope_f32(2, 1, 4, NULL, 4, positions, b, 4, 4, SM_ROPE_HALVES), NULL_POINTER);
    CHECK_STATUS(sm_rope_f32(2, 1, 4, c, 4, NULL, b, 4, 4, SM_ROPE_HALVES), NULL_POINTER);
    CHECK_STATUS(sm_rope_f32(2, 1, 4, c, 4, positions, NULL, 4, 4, SM_ROPE_HALVES), NULL_POINTER);
    CHECK_STATUS(sm_rope_f32(2, 1, 4, c, 4, positions, b, 4, 4, SM_ROPE_HALVES), INVALID); /* no position 9 */
    CHECK_STATUS(sm_rope_f32(1, 1, 4, c, 4, positions, b, 4, 4, 2), INVALID);
    CHECK_STATUS(sm_rope_f32(1, 1, 4, c, 4, positions, b, 2, 6, SM_ROPE_HALVES), INVALID); /* longer than a head */
    CHECK_STATUS(sm_rope_f32(1, 1, 4, c, 4, positions, b, 4, 3, SM_ROPE_HALVES), INVALID);
    CHECK_STATUS(sm_rope_f32(1, 2, 4, c, 4, positions, b, 4, 4, SM_ROPE_HALVES), INVALID); /* ldx < 8 */
    CHECK_STATUS(sm_rope_f32(1, big, 4, c, 4, positions, b, 4, 4, SM_ROPE_HALVES), INVALID);
    CHECK_STATUS(sm_rope_f32(1, 1, 4, c, 4, positions, c, 4, 4, SM_ROPE_HALVES), INVALID);
    CHECK_OK(sm_rope_f32(0, 1, 4, NULL, 4, NULL, NULL, 0, 4, SM_ROPE_ADJACENT));

    uint16_t half[16] = {0};
    CHECK_STATUS(sm_transpose_f32(2, 4, NULL, 4, c, 2), NULL_POINTER);
    CHECK_STATUS(sm_transpose_f32(2, 4, a, 4, NULL, 2), NULL_POINTER);
    CHECK_STATUS(sm_transpose_f32(2, 4, a, 3, c, 2), INVALID);
    CHECK_STATUS(sm_transpose_f32(2, 4, a, 4, c, 1), INVALID);
    CHECK_STATUS(sm_transpose_f32(2, 4, a, 4, a, 2), INVALID);
    CHECK_STATUS(sm_transpose_f32(big, big, a, big, c, big), INVALID);
    CHECK_OK(sm_transpose_f32(0, 4, NULL, 4, NULL, 0));
    CHECK_STATUS(sm_f32_to_f16(NULL, 4, half), NULL_POINTER);
    CHECK_STATUS(sm_f32_to_f16(a, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_f32_to_f16(a, big, half), INVALID);
    CHECK_STATUS(sm_f32_to_bf16(NULL, 4, half), NULL_POINTER);
    CHECK_STATUS(sm_f32_to_bf16(a, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_f32_to_bf16(a, 4, (uint16_t *)a), INVALID);
    CHECK_STATUS(sm_f16_to_f32(NULL, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_f16_to_f32(half, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_f16_to_f32((uint16_t *)c + 1, 4, c), INVALID);
    CHECK_STATUS(sm_bf16_to_f32(NULL, 4, c), NULL_POINTER);
    CHECK_STATUS(sm_bf16_to_f32(half, 4, NULL), NULL_POINTER);
    CHECK_STATUS(sm_bf16_to_f32(half, big, c), INVALID);
    CHECK_OK(sm_f32_to_f16(NULL, 0, NULL));
    CHECK_OK(sm_bf16_to_f32(NULL, 0, NULL));
}

void test_bad_rows(void) {
    elementwise();
    rows();
    rows_with_params();
    sums_with_params();
    others();
    for (size_t i = 0; i < 16; i++) {
        CHECK(a[i] == 0.0f && b[i] == 0.0f && c[i] == 0.0f && d[i] == 0.0f);
    }
}
