/* The general matrix product through sm_matmul_params, packed matrices of every kind and batches: every way to store
 * the operands, against sums of small integers, which are exact, or within a derived bound; what must be refused, with
 * nothing written. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

#define CANARY 12345.0f

static float value(size_t i, size_t j) {
    return (float)((int)((i * 7 + j * 13) % 11) - 5);
}

/* A matrix as it is stored: rows x columns or its transpose, `gap` floats behind each line. */
static float *store(size_t rows, size_t columns, int32_t transposed, size_t gap, size_t shift, size_t *ld) {
    const size_t lines = transposed ? columns : rows, line = transposed ? rows : columns;
    *ld = line + gap;
    float *data = calloc(lines * *ld + 1, sizeof *data);
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < columns; j++) {
            data[transposed ? j * *ld + i : i * *ld + j] = value(i, j + shift);
        }
    }
    return data;
}

/* 2 AB - C + bias + residual. */
static float expected(size_t i, size_t j, size_t k) {
    float sum = 0.0f;
    for (size_t p = 0; p < k; p++) {
        sum += value(i, p) * value(p, j + 3);
    }
    return 2.0f * sum - value(i, j + 1) + value(j, 0) + value(i, j + 2);
}

static void check(size_t m, size_t n, size_t k, int32_t a_transposed, int32_t b_transposed, sm_team *team) {
    sm_matmul_params params;
    CHECK_OK(sm_matmul_params_init(&params, sizeof params));
    params.m = m, params.n = n, params.k = k;
    params.a_transposed = a_transposed, params.b_transposed = b_transposed;
    params.alpha = 2.0f, params.beta = -1.0f;
    params.team = team;
    float *a = store(m, k, a_transposed, 1, 0, &params.lda);
    float *b = store(k, n, b_transposed, 2, 3, &params.ldb);
    float *residual = store(m, n, 0, 1, 2, &params.ld_residual);
    float *bias = calloc(n, sizeof *bias);
    for (size_t j = 0; j < n; j++) {
        bias[j] = value(j, 0);
    }
    params.bias = bias, params.residual = residual;
    sm_matrix *matrix[2] = {NULL, NULL};
    CHECK_OK(sm_matrix_pack(k, n, b, params.ldb, b_transposed, SM_TYPE_F32, &matrix[0]));
    sm_matrix_params bf16;
    CHECK_OK(sm_matrix_params_init(&bf16, sizeof bf16));
    bf16.k = k, bf16.n = n, bf16.ldb = params.ldb, bf16.b_transposed = b_transposed, bf16.bf16_products = 1;
    bf16.team = team;
    CHECK_OK(sm_matrix_create(&bf16, b, &matrix[1]));
    for (int packed = 0; packed < 3; packed++) {
        float *c = store(m, n, 0, 3, 1, &params.ldc);
        for (size_t i = 0; i < m; i++) {
            for (size_t j = n; j < params.ldc; j++) {
                c[i * params.ldc + j] = CANARY;
            }
        }
        if (packed) {
            CHECK_OK(sm_matmul_packed(&params, a, matrix[packed - 1], c));
        } else {
            CHECK_OK(sm_matmul(&params, a, b, c));
        }
        int wrong = 0;
        for (size_t i = 0; i < m; i++) {
            for (size_t j = 0; j < params.ldc; j++) {
                wrong += c[i * params.ldc + j] != (j < n ? expected(i, j, k) : CANARY);
            }
        }
        if (wrong != 0) {
            fprintf(stderr, "%zu x %zu x %zu, A %d, B %d, packed %d: %d wrong\n", m, n, k, (int)a_transposed,
                    (int)b_transposed, packed, wrong);
        }
        CHECK(wrong == 0);
        free(c);
    }
    CHECK_OK(sm_matrix_free(matrix[0]));
    CHECK_OK(sm_matrix_free(matrix[1]));
    free(a);
    free(b);
    free(bias);
    free(residual);
}

/* Eight products of 3 x 5 x 4, side by side in memory and anywhere, with one B for all. */
static void check_batches(sm_team *team) {
    enum { BATCH = 8, M = 3, N = 5, K = 4 };
    float a[BATCH][M][K], b[K][N], c[BATCH][M][N], again[BATCH][M][N];
    const float *as[BATCH], *bs[BATCH];
    float *cs[BATCH];
    for (size_t p = 0; p < K; p++) {
        for (size_t j = 0; j < N; j++) {
            b[p][j] = value(p, j);
        }
    }
    for (size_t l = 0; l < BATCH; l++) {
        for (size_t i = 0; i < M; i++) {
            for (size_t p = 0; p < K; p++) {
                a[l][i][p] = value(i + l, p + 2);
            }
        }
        as[l] = a[l][0], bs[l] = b[0], cs[BATCH - 1 - l] = again[BATCH - 1 - l][0];
    }
    sm_matmul_params params;
    CHECK_OK(sm_matmul_params_init(&params, sizeof params));
    params.m = M, params.n = N, params.k = K, params.batch = BATCH, params.stride_a = M * K, params.team = team;
    CHECK_OK(sm_matmul(&params, a[0][0], b[0], c[0][0]));
    CHECK_OK(sm_matmul_batched(&params, as, bs, cs));
    for (size_t l = 0; l < BATCH; l++) {
        for (size_t i = 0; i < M; i++) {
            for (size_t j = 0; j < N; j++) {
                float sum = 0.0f;
                for (size_t p = 0; p < K; p++) {
                    sum += a[l][i][p] * b[p][j];
                }
                CHECK(c[l][i][j] == sum && again[l][i][j] == sum);
            }
        }
    }
    cs[3] = cs[4]; /* two results in one place */
    CHECK_STATUS(sm_matmul_batched(&params, as, bs, cs), SM_STATUS_INVALID_ARGUMENT);
    cs[3] = NULL;
    CHECK_STATUS(sm_matmul_batched(&params, as, bs, cs), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_matmul_batched(&params, as, NULL, cs), SM_STATUS_NULL_POINTER);
    params.stride_c = M * N - 1;
    CHECK_STATUS(sm_matmul(&params, a[0][0], b[0], c[0][0]), SM_STATUS_INVALID_ARGUMENT);
    params.stride_c = 0, params.batch = SIZE_MAX / 8;
    CHECK_STATUS(sm_matmul(&params, a[0][0], b[0], c[0][0]), SM_STATUS_INVALID_ARGUMENT);
    params.batch = 0;
    CHECK_OK(sm_matmul(&params, NULL, NULL, NULL));
}

/* (AB) * f(gate) and f(AB + bias), for one product that is known: AB = 2. */
static void check_epilogues(void) {
    const float a[2] = {1, 1}, b[2] = {1, 1}, bias = 1.0f, gate = 3.0f;
    /* SiLU, GELU by erf and by tanh, ReLU, of 3. */
    const struct {
        int32_t activation;
        double of_three;
    } known[] = {{SM_ACTIVATION_NONE, 3.0},
                 {SM_ACTIVATION_SILU, 2.8577223804672998},
                 {SM_ACTIVATION_GELU_ERF, 2.99595030590511},
                 {SM_ACTIVATION_GELU_TANH, 2.996362607918227},
                 {SM_ACTIVATION_RELU, 3.0}};
    sm_matmul_params params;
    CHECK_OK(sm_matmul_params_init(&params, sizeof params));
    params.m = params.n = 1, params.k = 2;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        float c = CANARY;
        params.activation = known[i].activation;
        params.bias = &bias, params.gate = NULL;
        CHECK_OK(sm_matmul(&params, a, b, &c));
        CHECK(fabs((double)c - known[i].of_three) <= 4.0 * FLT_EPSILON * known[i].of_three);
        params.bias = NULL, params.gate = &gate;
        CHECK_OK(sm_matmul(&params, a, b, &c));
        CHECK(fabs((double)c - 2.0 * known[i].of_three) <= 8.0 * FLT_EPSILON * known[i].of_three);
    }
}

/* Halves are widened exactly: 1.5 is 0x3E00 as IEEE half and 0x3FC0 as bfloat16. */
static void check_halves(void) {
    const uint16_t halves[2][3] = {{0x3E00, 0x3E00, 0x3E00}, {0x3FC0, 0x3FC0, 0x3FC0}};
    const int32_t types[2] = {SM_TYPE_F16, SM_TYPE_BF16};
    const float a[3] = {1, 2, 4};
    for (int i = 0; i < 2; i++) {
        sm_matrix *matrix = NULL;
        sm_matmul_params params;
        float c = CANARY;
        CHECK_OK(sm_matrix_pack(3, 1, halves[i], 0, 0, types[i], &matrix));
        CHECK_OK(sm_matmul_params_init(&params, sizeof params));
        params.m = 1;
        CHECK_OK(sm_matmul_packed(&params, a, matrix, &c));
        CHECK(c == 10.5f);
        params.k = 4;
        CHECK_STATUS(sm_matmul_packed(&params, a, matrix, &c), SM_STATUS_INVALID_ARGUMENT);
        CHECK_OK(sm_matrix_free(matrix));
    }
}

/* n rows of k elements as Q8_0 stores them: blocks of an IEEE half, here 1, and 32 signed bytes. */
static unsigned char *q8_0_rows(size_t n, size_t k) {
    unsigned char *rows = malloc(n * k / 32 * 34 + 1), *at = rows;
    for (size_t j = 0; j < n; j++) {
        for (size_t p = 0; p < k; p++) {
            if (p % 32 == 0) {
                *at++ = 0x00;
                *at++ = 0x3C;
            }
            *at++ = (unsigned char)(signed char)value(p, j);
        }
    }
    return rows;
}

/* Quantised weights with activations of 16 and 8 bits: integers whose largest of each block is 127 stay as they are, so
 * 2 AB - C + bias, then ReLU, is exact. A batch of 2 that share B, on a team and on none. */
static void check_quantised(size_t m, size_t n, size_t k, sm_team *team) {
    static const int32_t bits[] = {0, 8, 16, SM_ACTIVATION_BITS_AUTO};
    unsigned char *rows = q8_0_rows(n, k);
    float *a = calloc(2 * m * k + 1, sizeof *a), *bias = calloc(n, sizeof *bias);
    for (size_t i = 0; i < 2 * m; i++) {
        for (size_t p = 0; p < k; p++) {
            a[i * k + p] = p % 32 == 7 ? 127.0f : value(i, p);
        }
    }
    for (size_t j = 0; j < n; j++) {
        bias[j] = value(j, 0);
    }
    for (size_t mode = 0; mode < sizeof bits / sizeof bits[0]; mode++) {
        sm_matrix_params how;
        sm_matrix *matrix = NULL;
        CHECK_OK(sm_matrix_params_init(&how, sizeof how));
        how.k = k, how.n = n, how.type = SM_TYPE_Q8_0, how.b_transposed = 1, how.activation_bits = bits[mode];
        how.team = team;
        CHECK_OK(sm_matrix_create(&how, rows, &matrix));
        sm_matmul_params params;
        CHECK_OK(sm_matmul_params_init(&params, sizeof params));
        params.m = m, params.batch = 2, params.stride_a = m * k, params.beta = -1.0f, params.team = team;
        params.alpha = 2.0f, params.bias = bias, params.activation = SM_ACTIVATION_RELU;
        float *c = malloc(2 * m * n * sizeof *c + 1);
        for (size_t i = 0; i < 2 * m * n; i++) {
            c[i] = value(i / n, i % n + 1);
        }
        CHECK_OK(sm_matmul_packed(&params, a, matrix, c));
        int wrong = 0;
        for (size_t i = 0; i < 2 * m; i++) {
            for (size_t j = 0; j < n; j++) {
                float sum = 0.0f;
                for (size_t p = 0; p < k; p++) {
                    sum += a[i * k + p] * value(p, j);
                }
                const float x = 2.0f * sum - value(i, j + 1) + bias[j];
                wrong += c[i * n + j] != (x > 0.0f ? x : 0.0f);
            }
        }
        if (wrong != 0) {
            fprintf(stderr, "Q8_0, %d bits, %zu x %zu x %zu: %d wrong\n", (int)bits[mode], m, n, k, wrong);
        }
        CHECK(wrong == 0);
        CHECK_OK(sm_matrix_free(matrix));
        free(c);
    }
    free(rows);
    free(a);
    free(bias);
}

/* Floats that sm_matrix_create encodes. An element of Q8_0 is off by half a step, which is the block's peak / 127, and
 * as the step is rounded to half precision, by 127 * 2^-11 of it more: 0.563 in all. An activation of 16 bits is off by
 * 1.01 / 256 of its own step. What sums are rounded by is far below the 0.01 that is added. */
static void check_encoded(int32_t b_transposed, sm_team *team) {
    enum { M = 3, N = 70, K = 256 };
    static float a[M * K], b[N * K], c[M * N];
    const double step = 1.0 / 127.0;
    for (size_t i = 0; i < M * K; i++) {
        a[i] = (float)sin((double)i);
    }
    for (size_t j = 0; j < N; j++) {
        for (size_t p = 0; p < K; p++) {
            b[b_transposed ? j * K + p : p * N + j] = (float)cos((double)(j * K + p));
        }
    }
    sm_matrix_params how;
    sm_matrix *matrix = NULL;
    CHECK_OK(sm_matrix_params_init(&how, sizeof how));
    how.k = K, how.n = N, how.b_transposed = b_transposed, how.kept_as = SM_TYPE_Q8_0, how.team = team;
    CHECK_OK(sm_matrix_create(&how, b, &matrix));
    sm_matmul_params params;
    CHECK_OK(sm_matmul_params_init(&params, sizeof params));
    params.m = M, params.team = team;
    CHECK_OK(sm_matmul_packed(&params, a, matrix, c));
    for (size_t i = 0; i < M; i++) {
        for (size_t j = 0; j < N; j++) {
            double sum = 0.0, bound = 0.01;
            for (size_t p = 0; p < K; p++) {
                const double x = a[i * K + p], w = b[b_transposed ? j * K + p : p * N + j];
                sum += x * w;
                bound += fabs(x) * 0.563 * step + fabs(w) * 1.01 / 256.0 * step;
            }
            CHECK(fabs((double)c[i * N + j] - sum) <= bound && bound < 2.0);
        }
    }
    CHECK_OK(sm_matrix_free(matrix));
}

static void check_bad_matrices(void) {
    static float storage[34];
    unsigned char *const rows = (unsigned char *)storage; /* 4 blocks of Q8_0, or 16 floats */
    const size_t half = SIZE_MAX / 2 + 1;
    sm_matrix_params floats, good;
    CHECK_OK(sm_matrix_params_init(&floats, sizeof floats));
    CHECK_STATUS(sm_matrix_params_init(NULL, sizeof floats), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_matrix_params_init(&floats, 3), SM_STATUS_INVALID_ARGUMENT);
    floats.k = 4, floats.n = 4;
    good = floats;
    good.k = 32, good.type = SM_TYPE_Q8_0, good.b_transposed = 1;
#define NO_MATRIX(from, change, data, status)                      \
    do {                                                           \
        sm_matrix_params params = from;                            \
        sm_matrix *matrix = (sm_matrix *)rows;                     \
        change;                                                    \
        CHECK_STATUS(sm_matrix_create(&params, data, &matrix), status); \
        CHECK(matrix == NULL);                                     \
    } while (0)
    NO_MATRIX(good, params.b_transposed = 0, rows, SM_STATUS_INVALID_ARGUMENT);
    NO_MATRIX(good, params.b_transposed = 2, rows, SM_STATUS_INVALID_ARGUMENT);
    NO_MATRIX(good, params.ldb = 33, rows, SM_STATUS_INVALID_ARGUMENT);
    NO_MATRIX(good, params.k = 33, rows, SM_STATUS_INVALID_ARGUMENT);
    NO_MATRIX(good, (params.k = half, params.n = half), rows, SM_STATUS_INVALID_ARGUMENT);
    NO_MATRIX(good, params.type = 104, rows, SM_STATUS_INVALID_ARGUMENT);
    NO_MATRIX(good, params.type = SM_TYPE_AS_GIVEN, rows, SM_STATUS_INVALID_ARGUMENT);
    NO_MATRIX(good, params.bf16_products = 1, rows, SM_STATUS_INVALID_ARGUMENT);
    NO_MATRIX(good, params.kept_as = SM_TYPE_Q4_0, rows, SM_STATUS_INVALID_ARGUMENT);
    NO_MATRIX(good, params.activation_bits = 9, rows, SM_STATUS_INVALID_ARGUMENT);
    NO_MATRIX(good, params.struct_size = 1, rows, SM_STATUS_INVALID_ARGUMENT);
    NO_MATRIX(good, (void)0, NULL, SM_STATUS_NULL_POINTER);
    NO_MATRIX(floats, params.bf16_products = 2, rows, SM_STATUS_INVALID_ARGUMENT);
    NO_MATRIX(floats, params.ldb = 3, rows, SM_STATUS_INVALID_ARGUMENT);
    NO_MATRIX(floats, params.kept_as = 77, rows, SM_STATUS_INVALID_ARGUMENT);
    NO_MATRIX(floats, params.kept_as = SM_TYPE_F16, rows, SM_STATUS_INVALID_ARGUMENT);
    NO_MATRIX(floats, params.kept_as = SM_TYPE_IQ2_S, rows, SM_STATUS_UNSUPPORTED);
    NO_MATRIX(floats, params.kept_as = SM_TYPE_Q8_0, rows, SM_STATUS_INVALID_ARGUMENT); /* k = 4 is no block */
    NO_MATRIX(floats, params.type = SM_TYPE_F16, rows + 1, SM_STATUS_INVALID_ARGUMENT);
    NO_MATRIX(floats, (void)0, NULL, SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_matrix_create(&good, rows, NULL), SM_STATUS_NULL_POINTER);
    sm_matrix *matrix = NULL;
    CHECK_OK(sm_matrix_create(NULL, NULL, &matrix)); /* the defaults: no rows, no columns */
    CHECK_OK(sm_matrix_free(matrix));
    CHECK_OK(sm_matrix_create(&good, rows, &matrix));
    float a[2 * 32] = {0}, c[8] = {CANARY};
    sm_matmul_params params;
    CHECK_OK(sm_matmul_params_init(&params, sizeof params));
    params.m = 2, params.lda = 31;
    CHECK_STATUS(sm_matmul_packed(&params, a, matrix, c), SM_STATUS_INVALID_ARGUMENT);
    params.lda = 0;
    CHECK_STATUS(sm_matmul_packed(&params, NULL, matrix, c), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_matmul_packed(&params, a, matrix, a + 60), SM_STATUS_INVALID_ARGUMENT);
    CHECK(c[0] == CANARY);
    CHECK_OK(sm_matmul_packed(&params, a, matrix, c));
    CHECK(c[0] == 0.0f && c[7] == 0.0f);
    CHECK_OK(sm_matrix_free(matrix));
}

static void check_refusals(void) {
    float a[16] = {0}, b[16] = {0}, c[16] = {0};
    sm_matmul_params good;
    CHECK_OK(sm_matmul_params_init(&good, sizeof good));
    good.m = good.n = good.k = 2;
    CHECK_OK(sm_matmul(&good, a, b, c));
    const size_t half = SIZE_MAX / 2 + 1;
#define REFUSED(change, status)                                    \
    do {                                                           \
        sm_matmul_params params = good;                            \
        change;                                                    \
        CHECK_STATUS(sm_matmul(&params, a, b, c), status);         \
    } while (0)
    REFUSED(params.m = half, SM_STATUS_INVALID_ARGUMENT);
    REFUSED(params.k = half, SM_STATUS_INVALID_ARGUMENT);
    REFUSED(params.lda = 1, SM_STATUS_INVALID_ARGUMENT);
    REFUSED(params.ldb = 1, SM_STATUS_INVALID_ARGUMENT);
    REFUSED(params.ldc = 1, SM_STATUS_INVALID_ARGUMENT);
    REFUSED(params.ldc = half, SM_STATUS_INVALID_ARGUMENT);
    REFUSED(params.a_transposed = 2, SM_STATUS_INVALID_ARGUMENT);
    REFUSED(params.b_transposed = -1, SM_STATUS_INVALID_ARGUMENT);
    REFUSED(params.activation = 5, SM_STATUS_INVALID_ARGUMENT);
    REFUSED(params.bias = c, SM_STATUS_INVALID_ARGUMENT);
    REFUSED(params.gate = c, SM_STATUS_INVALID_ARGUMENT);
    REFUSED(params.residual = c + 3, SM_STATUS_INVALID_ARGUMENT);
    REFUSED((params.residual = a, params.ld_residual = 1), SM_STATUS_INVALID_ARGUMENT);
    REFUSED(params.struct_size = 3, SM_STATUS_INVALID_ARGUMENT);
    REFUSED(params.bias = (const float *)((const char *)a + 1), SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_matmul(&good, NULL, b, c), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_matmul(&good, a, NULL, c), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_matmul(&good, a, b, NULL), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_matmul(&good, a, b, a), SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_matmul(&good, a, b, b + 3), SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_matmul_packed(&good, a, NULL, c), SM_STATUS_NULL_POINTER);
    sm_matrix *matrix = (sm_matrix *)a;
    CHECK_STATUS(sm_matrix_pack(2, 2, b, 0, 0, 9, &matrix), SM_STATUS_INVALID_ARGUMENT);
    CHECK(matrix == NULL);
    CHECK_STATUS(sm_matrix_pack(2, 2, NULL, 0, 0, SM_TYPE_F32, &matrix), SM_STATUS_NULL_POINTER);
    CHECK_STATUS(sm_matrix_pack(half, half, b, 0, 0, SM_TYPE_F32, &matrix), SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_matrix_pack(2, 2, b, 1, 0, SM_TYPE_F32, &matrix), SM_STATUS_INVALID_ARGUMENT);
    CHECK_STATUS(sm_matrix_pack(2, 2, b, 0, 0, SM_TYPE_F32, NULL), SM_STATUS_NULL_POINTER);
    CHECK_OK(sm_matrix_free(NULL));
    sm_team *team = (sm_team *)a;
    CHECK_STATUS(sm_team_create(0, &team), SM_STATUS_INVALID_ARGUMENT);
    CHECK(team == NULL);
    CHECK_STATUS(sm_team_create(1, NULL), SM_STATUS_NULL_POINTER);
    CHECK_OK(sm_team_free(NULL));
    for (int i = 0; i < 16; i++) {
        CHECK(a[i] == 0.0f && b[i] == 0.0f && c[i] == 0.0f);
    }
}

void test_products(void) {
    static const size_t sizes[][3] = {{1, 1, 1},   {1, 70, 9},   {2, 3, 300}, {7, 65, 33},
                                      {13, 17, 5}, {65, 129, 40}, {4, 4, 0},   {90, 200, 70}};
    sm_team *team = NULL;
    CHECK_OK(sm_team_create(2, &team));
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int way = 0; way < 8; way++) {
            check(sizes[i][0], sizes[i][1], sizes[i][2], way & 1, way >> 1 & 1, way & 4 ? team : NULL);
        }
    }
    check_batches(NULL);
    check_batches(team);
    for (int shared = 0; shared < 2; shared++) {
        check_quantised(1, 1, 32, shared ? team : NULL);
        check_quantised(7, 70, 96, shared ? team : NULL);
        check_quantised(90, 200, 256, shared ? team : NULL);
        check_encoded(shared, shared ? team : NULL);
    }
    check_bad_matrices();
    CHECK_OK(sm_team_free(team));
    check_epilogues();
    check_halves();
    check_refusals();
}
