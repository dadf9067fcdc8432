/* Products in bfloat16: small integers, which it keeps, against sums that are exact; and what must be refused. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

#define CANARY 12345.0f

static float value(size_t i, size_t j) {
    return (float)((int)((i * 7 + j * 13) % 11) - 5);
}

static void check_product(size_t m, size_t n, size_t k, int32_t transposed, size_t gap, int with_bias,
                          int32_t accumulate) {
    const size_t ldx = k + gap, ldw = (transposed ? n : k) + gap, ldy = n + gap;
    float *x = calloc(m * ldx + 1, sizeof *x);
    float *w = calloc((transposed ? k : n) * ldw + 1, sizeof *w);
    float *bias = calloc(n + 1, sizeof *bias);
    float *y = malloc((m * ldy + 1) * sizeof *y);
    for (size_t p = 0; p < k; p++) {
        for (size_t i = 0; i < m; i++) {
            x[i * ldx + p] = value(i, p);
        }
        for (size_t j = 0; j < n; j++) {
            w[transposed ? p * ldw + j : j * ldw + p] = value(p, j + 3);
        }
    }
    for (size_t j = 0; j < n; j++) {
        bias[j] = value(j, 2);
    }
    for (size_t i = 0; i <= m * ldy; i++) {
        y[i] = CANARY;
    }
    sm_matrix_bf16 *matrix = NULL;
    CHECK_OK(sm_matrix_bf16_pack(n, k, w, ldw, transposed, &matrix));
    memset(w, 0xff, (transposed ? k : n) * ldw * sizeof *w); /* it isn't needed any more */
    CHECK_OK(sm_matrix_bf16_multiply(matrix, m, x, ldx, with_bias ? bias : NULL, accumulate, y, ldy));
    int wrong = 0;
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < ldy; j++) {
            float sum = (accumulate ? CANARY : 0.0f) + (with_bias ? value(j, 2) : 0.0f);
            for (size_t p = 0; p < k; p++) {
                sum += value(i, p) * value(p, j + 3);
            }
            wrong += y[i * ldy + j] != (j < n ? sum : CANARY);
        }
    }
    wrong += y[m * ldy] != CANARY;
    if (wrong != 0) {
        fprintf(stderr, "bf16 %zu x %zu x %zu, transposed %d, gap %zu\n", m, n, k, (int)transposed, gap);
    }
    CHECK(wrong == 0);
    CHECK_OK(sm_matrix_bf16_free(matrix));
    free(x);
    free(w);
    free(bias);
    free(y);
}

static void check_rounding(void) {
    /* 1 + 2^-8 is a tie and goes to 1; 1 + 3 * 2^-8 is one and goes to 1 + 2^-6. */
    const float w = 1.0f + 3.0f / 256.0f, x = 1.0f + 1.0f / 256.0f;
    float y = CANARY;
    sm_matrix_bf16 *matrix = NULL;
    CHECK_OK(sm_matrix_bf16_pack(1, 1, &w, 1, 0, &matrix));
    CHECK_OK(sm_matrix_bf16_multiply(matrix, 1, &x, 1, NULL, 0, &y, 1));
    CHECK(y == 1.0f + 1.0f / 64.0f);
    CHECK_OK(sm_matrix_bf16_free(matrix));
}

static void check_bad_arguments(void) {
    const sm_status null_pointer = SM_STATUS_NULL_POINTER, invalid = SM_STATUS_INVALID_ARGUMENT;
    const size_t big = SIZE_MAX, half = SIZE_MAX / 2;
    float w[6] = {1, 2, 3, 4, 5, 6}, x[6] = {1, 2, 3, 4, 5, 6}, y[6] = {7, 7, 7, 7, 7, 7};
    sm_matrix_bf16 *none = (sm_matrix_bf16 *)w, *matrix = NULL, *empty = NULL;
    CHECK_STATUS(sm_matrix_bf16_pack(2, 3, w, 3, 0, NULL), null_pointer);
    CHECK_STATUS(sm_matrix_bf16_pack(2, 3, NULL, 3, 0, &none), null_pointer);
    CHECK(none == NULL);
    CHECK_STATUS(sm_matrix_bf16_pack(2, 3, w, 2, 0, &none), invalid); /* ldw < k */
    CHECK_STATUS(sm_matrix_bf16_pack(2, 3, w, 1, 1, &none), invalid); /* ldw < n, transposed */
    CHECK_STATUS(sm_matrix_bf16_pack(2, 3, w, 3, 2, &none), invalid); /* no flag */
    CHECK_STATUS(sm_matrix_bf16_pack(2, big, w, big, 0, &none), invalid);
    CHECK_STATUS(sm_matrix_bf16_pack(half, half, w, half, 0, &none), invalid);
    CHECK_STATUS(sm_matrix_bf16_pack(2, 3, (float *)((char *)w + 1), 3, 0, &none), invalid);
    CHECK(none == NULL);

    CHECK_OK(sm_matrix_bf16_pack(2, 3, w, 3, 0, &matrix));
    CHECK_STATUS(sm_matrix_bf16_multiply(NULL, 2, x, 3, NULL, 0, y, 2), null_pointer);
    CHECK_STATUS(sm_matrix_bf16_multiply(matrix, 2, NULL, 3, NULL, 0, y, 2), null_pointer);
    CHECK_STATUS(sm_matrix_bf16_multiply(matrix, 2, x, 3, NULL, 0, NULL, 2), null_pointer);
    CHECK_STATUS(sm_matrix_bf16_multiply(matrix, 2, x, 2, NULL, 0, y, 2), invalid); /* ldx < k */
    CHECK_STATUS(sm_matrix_bf16_multiply(matrix, 2, x, 3, NULL, 0, y, 1), invalid); /* ldy < n */
    CHECK_STATUS(sm_matrix_bf16_multiply(matrix, big, x, 3, NULL, 0, y, 2), invalid);
    CHECK_STATUS(sm_matrix_bf16_multiply(matrix, 2, x, half, NULL, 0, y, 2), invalid);
    CHECK_STATUS(sm_matrix_bf16_multiply(matrix, 2, x, 3, NULL, 2, y, 2), invalid); /* no flag */
    CHECK_STATUS(sm_matrix_bf16_multiply(matrix, 2, x, 3, NULL, 0, x + 2, 2), invalid); /* Y overlaps X */
    CHECK_STATUS(sm_matrix_bf16_multiply(matrix, 2, x, 3, y + 1, 0, y, 2), invalid);    /* and the bias */
    CHECK_STATUS(sm_matrix_bf16_multiply(matrix, 2, x, 3, (float *)((char *)w + 1), 0, y, 2), invalid);
    for (int i = 0; i < 6; i++) {
        CHECK(y[i] == 7.0f);
    }
    CHECK_OK(sm_matrix_bf16_multiply(matrix, 0, NULL, 3, NULL, 0, NULL, 2));
    CHECK_OK(sm_matrix_bf16_free(matrix));
    CHECK_OK(sm_matrix_bf16_free(NULL));

    CHECK_OK(sm_matrix_bf16_pack(0, 3, NULL, 3, 0, &empty));
    CHECK_OK(sm_matrix_bf16_multiply(empty, 2, x, 3, NULL, 0, NULL, 0));
    CHECK_OK(sm_matrix_bf16_free(empty));
    CHECK_OK(sm_matrix_bf16_pack(2, 0, NULL, 0, 0, &empty)); /* no products: the bias */
    CHECK_OK(sm_matrix_bf16_multiply(empty, 2, NULL, 0, w, 0, y, 2));
    CHECK(y[0] == 1.0f && y[1] == 2.0f && y[2] == 1.0f && y[3] == 2.0f && y[4] == 7.0f);
    CHECK_OK(sm_matrix_bf16_free(empty));
}

void test_bf16(void) {
    static const size_t sizes[] = {1, 2, 15, 33, 65};
    const size_t n_sizes = sizeof sizes / sizeof sizes[0];
    int variant = 0;
    for (size_t i = 0; i < n_sizes; i++) {
        for (size_t j = 0; j < n_sizes; j++) {
            for (size_t p = 0; p < n_sizes; p++, variant++) {
                check_product(sizes[i], sizes[j], sizes[p], variant & 1, variant % 3, variant & 2, variant >> 2 & 1);
            }
        }
    }
    check_product(600, 40, 9, 0, 1, 1, 0);
    check_rounding();
    check_bad_arguments();
}
