/* The bare kernels against values that are known: integers, whose sums are exact, and functions whose values
 * are written here with more digits than a float has. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

#define CANARY 12345.0f

/* Small integers: every product and sum is exact, so the result must be, too. */
static float value(size_t i, size_t j) {
    return (float)((int)((i * 7 + j * 13) % 11) - 5);
}

static void check_matmul(size_t m, size_t n, size_t k, int32_t transposed, size_t gap) {
    const size_t lda = k + gap, ldb = (transposed ? k : n) + gap, ldc = n + gap;
    const size_t b_rows = transposed ? n : k;
    float *a = calloc(m * lda + 1, sizeof *a);
    float *b = calloc(b_rows * ldb + 1, sizeof *b);
    float *c = malloc((m * ldc + 1) * sizeof *c);
    for (size_t i = 0; i < m; i++) {
        for (size_t p = 0; p < k; p++) {
            a[i * lda + p] = value(i, p);
        }
    }
    for (size_t p = 0; p < k; p++) {
        for (size_t j = 0; j < n; j++) {
            b[transposed ? j * ldb + p : p * ldb + j] = value(p, j + 3);
        }
    }
    for (size_t i = 0; i <= m * ldc; i++) {
        c[i] = CANARY;
    }
    CHECK_OK(sm_matmul_f32(m, n, k, a, lda, b, ldb, transposed, c, ldc));
    int wrong = 0;
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < ldc; j++) {
            float sum = 0.0f;
            for (size_t p = 0; p < k; p++) {
                sum += value(i, p) * value(p, j + 3);
            }
            wrong += c[i * ldc + j] != (j < n ? sum : CANARY);
        }
    }
    wrong += c[m * ldc] != CANARY;
    if (wrong != 0) {
        fprintf(stderr, "matmul %zu x %zu x %zu, transposed %d, gap %zu\n", m, n, k, (int)transposed, gap);
    }
    CHECK(wrong == 0);
    free(a);
    free(b);
    free(c);
}

/* |got - known| within a few units in the last place of the known value. */
static int near(float got, double known) {
    return fabs((double)got - known) <= 4.0 * FLT_EPSILON * fabs(known) + 1e-30;
}

static void check_elementwise(void) {
    static const float x[5] = {-1.0f, 0.0f, 0.5f, 1.0f, 3.0f};
    /* x (1 + erf(x / sqrt 2)) / 2;  its tanh form;  x / (1 + exp(-x)). */
    static const double erf_form[5] = {-0.15865525393145705, 0.0, 0.34573123063700656, 0.8413447460685429,
                                       2.99595030590511};
    static const double tanh_form[5] = {-0.15880800939172324, 0.0, 0.34571400982514394, 0.8411919906082768,
                                        2.996362607918227};
    static const double silu[5] = {-0.2689414213699951, 0.0, 0.3112296656009273, 0.7310585786300049,
                                   2.8577223804672998};
    float y[6], in_place[5];
    const double *known[3] = {erf_form, tanh_form, silu};
    for (int f = 0; f < 3; f++) {
        y[5] = CANARY;
        memcpy(in_place, x, sizeof x);
        if (f < 2) {
            const int32_t form = f == 0 ? SM_GELU_ERF : SM_GELU_TANH;
            CHECK_OK(sm_gelu_f32(x, 5, form, y));
            CHECK_OK(sm_gelu_f32(in_place, 5, form, in_place));
        } else {
            CHECK_OK(sm_silu_f32(x, 5, y));
            CHECK_OK(sm_silu_f32(in_place, 5, in_place));
        }
        for (int i = 0; i < 5; i++) {
            CHECK(near(y[i], known[f][i]));
        }
        CHECK(y[5] == CANARY && memcmp(y, in_place, sizeof x) == 0);
    }
}

static void check_rows(void) {
    /* Two rows of three, five apart. */
    const float x[10] = {1, 2, 3, CANARY, CANARY, 1000, 1000, -1000, CANARY, CANARY};
    float y[10];
    for (int i = 0; i < 10; i++) {
        y[i] = CANARY;
    }
    CHECK_OK(sm_softmax_f32(2, 3, x, 5, y, 5));
    static const double soft[3] = {0.09003057317038046, 0.24472847105479764, 0.6652409557748218};
    for (int i = 0; i < 3; i++) {
        CHECK(near(y[i], soft[i]));
    }
    CHECK(y[5] == 0.5f && y[6] == 0.5f && y[7] == 0.0f);
    CHECK(y[3] == CANARY && y[4] == CANARY && y[8] == CANARY && y[9] == CANARY);

    /* Mean 2, variance 2/3; mean square 14/3; eps 0. */
    static const float weight[3] = {1, 2, 3}, bias[3] = {0, 10, 0};
    const double deviation = 1.224744871391589; /* 1 / sqrt(2/3) */
    const double inverse_rms = 0.4629100498862757; /* 1 / sqrt(14/3) */
    CHECK_OK(sm_layer_norm_f32(1, 3, x, 5, weight, bias, 0.0f, y, 5));
    CHECK(near(y[0], -deviation) && near(y[1], 10.0) && near(y[2], 3 * deviation));
    CHECK_OK(sm_rms_norm_f32(1, 3, x, 5, weight, 0.0f, y, 5));
    CHECK(near(y[0], inverse_rms) && near(y[1], 4 * inverse_rms) && near(y[2], 9 * inverse_rms));
    float in_place[3] = {1, 2, 3};
    CHECK_OK(sm_rms_norm_f32(1, 3, in_place, 3, weight, 0.0f, in_place, 3));
    CHECK(memcmp(in_place, y, sizeof in_place) == 0);
}

static void check_table(void) {
    size_t count = 0;
    int matmul = 0;
    CHECK_OK(sm_kernel_info(NULL, sizeof(sm_kernel), 0, &count));
    CHECK(count > 5);
    sm_kernel *kernels = malloc((count + 1) * sizeof *kernels);
    CHECK_OK(sm_kernel_info(kernels, sizeof *kernels, count, &count));
    for (size_t i = 0; i < count; i++) {
        CHECK(*kernels[i].op != 0 && *kernels[i].dtype != 0 && *kernels[i].isa != 0);
        CHECK(!kernels[i].chosen || kernels[i].available);
        matmul += strcmp(kernels[i].op, "matmul") == 0 && strcmp(kernels[i].dtype, "f32") == 0 && kernels[i].chosen;
    }
    CHECK(matmul == 1); /* one for each operation and type */
    free(kernels);
}

void test_kernels(void) {
    static const size_t sizes[] = {1, 2, 3, 7, 17, 33, 65};
    const size_t n_sizes = sizeof sizes / sizeof sizes[0];
    for (size_t i = 0; i < n_sizes; i++) {
        for (size_t j = 0; j < n_sizes; j++) {
            for (size_t p = 0; p < n_sizes; p++) {
                for (int32_t transposed = 0; transposed <= 1; transposed++) {
                    check_matmul(sizes[i], sizes[j], sizes[p], transposed, (i + j + p) % 3);
                }
            }
        }
    }
    check_matmul(5, 4, 0, 0, 1); /* no products: zeros */
    check_elementwise();
    check_rows();
    check_table();
}
