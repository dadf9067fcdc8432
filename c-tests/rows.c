/* Elementwise functions, functions of rows, reductions, rotary embedding, transposition and conversion against values
 * that are known, written here with more digits than a float has; in place, strided, with canaries. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "test.h"

#define CANARY 12345.0f
#define N 5

/* |got - known| within a few units in the last place of the known value. */
static int near(float got, double known) {
    return fabs((double)got - known) <= 6.0 * FLT_EPSILON * fabs(known) + 1e-7;
}

static const float x[N] = {-1.0f, 0.0f, 0.5f, 1.0f, 3.0f};
static const float dy[N] = {1.0f, -1.0f, 2.0f, 0.5f, 3.0f};

static void check_known(const float *y, const double *known) {
    for (int i = 0; i < N; i++) {
        CHECK(near(y[i], known[i]));
    }
    CHECK(y[N] == CANARY);
}

static void functions(void) {
    typedef sm_status (*function)(const float *, size_t, float *);
    static const function all[5] = {sm_exp_f32, sm_tanh_f32, sm_erf_f32, sm_sigmoid_f32, sm_relu_f32};
    static const double known[5][N] = {
        {0.36787944117144233, 1.0, 1.6487212707001282, 2.718281828459045, 20.085536923187668},
        {-0.7615941559557649, 0.0, 0.46211715726000975, 0.7615941559557649, 0.9950547536867305},
        {-0.8427007929497149, 0.0, 0.5204998778130465, 0.8427007929497149, 0.9999779095030014},
        {0.2689414213699951, 0.5, 0.6224593312018546, 0.7310585786300049, 0.9525741268224334},
        {0.0, 0.0, 0.5, 1.0, 3.0},
    };
    for (int f = 0; f < 5; f++) {
        float y[N + 1] = {[N] = CANARY}, in_place[N];
        memcpy(in_place, x, sizeof x);
        CHECK_OK(all[f](x, N, y));
        CHECK_OK(all[f](in_place, N, in_place));
        check_known(y, known[f]);
        CHECK(memcmp(y, in_place, sizeof x) == 0);
    }
}

/* What flows back, against the slope between two close points of the function itself. */
static void check_slope(const float *dx, sm_status (*function)(const float *, size_t, float *)) {
    float above[N], below[N], f_above[N], f_below[N];
    for (int i = 0; i < N; i++) {
        above[i] = x[i] + 0.01f;
        below[i] = x[i] - 0.01f;
    }
    CHECK_OK(function(above, N, f_above));
    CHECK_OK(function(below, N, f_below));
    for (int i = 0; i < N; i++) {
        const double slope = ((double)f_above[i] - f_below[i]) / ((double)above[i] - below[i]);
        CHECK(fabs(dx[i] - dy[i] * slope) < 2e-4);
    }
    CHECK(dx[N] == CANARY);
}

static sm_status gelu_erf(const float *a, size_t n, float *y) {
    return sm_gelu_f32(a, n, SM_GELU_ERF, y);
}

static sm_status gelu_tanh(const float *a, size_t n, float *y) {
    return sm_gelu_f32(a, n, SM_GELU_TANH, y);
}

static void derivatives(void) {
    float dx[N + 1] = {[N] = CANARY};
    CHECK_OK(sm_tanh_backward_f32(x, dy, N, dx));
    check_slope(dx, sm_tanh_f32);
    CHECK_OK(sm_sigmoid_backward_f32(x, dy, N, dx));
    check_slope(dx, sm_sigmoid_f32);
    CHECK_OK(sm_silu_backward_f32(x, dy, N, dx));
    check_slope(dx, sm_silu_f32);
    CHECK_OK(sm_gelu_backward_f32(x, dy, N, SM_GELU_ERF, dx));
    check_slope(dx, gelu_erf);
    CHECK_OK(sm_gelu_backward_f32(x, dy, N, SM_GELU_TANH, dx));
    check_slope(dx, gelu_tanh);
    static const double relu[N] = {0.0, 0.0, 2.0, 0.5, 3.0};
    CHECK_OK(sm_relu_backward_f32(x, dy, N, dx));
    check_known(dx, relu);
}

static void gated(void) {
    float y[N + 1] = {[N] = CANARY}, value[N], dgate[N + 1] = {[N] = CANARY}, dup[N + 1] = {[N] = CANARY};
    float slope[N];
    for (int form = -1; form < 2; form++) {
        if (form < 0) {
            CHECK_OK(sm_swiglu_f32(x, dy, N, y));
            CHECK_OK(sm_silu_f32(x, N, value));
            CHECK_OK(sm_silu_backward_f32(x, dy, N, slope));
            CHECK_OK(sm_swiglu_backward_f32(x, dy, dy, N, dgate, dup));
        } else {
            CHECK_OK(sm_geglu_f32(x, dy, N, form, y));
            CHECK_OK(sm_gelu_f32(x, N, form, value));
            CHECK_OK(sm_gelu_backward_f32(x, dy, N, form, slope));
            CHECK_OK(sm_geglu_backward_f32(x, dy, dy, N, form, dgate, dup));
        }
        for (int i = 0; i < N; i++) {
            CHECK(y[i] == value[i] * dy[i] && dup[i] == y[i] && near(dgate[i], (double)slope[i] * dy[i]));
        }
        CHECK(y[N] == CANARY && dgate[N] == CANARY && dup[N] == CANARY);
    }
}

static void sums(void) {
    float y[N + 1] = {[N] = CANARY};
    CHECK_OK(sm_add_f32(x, dy, N, y));
    check_known(y, (const double[N]){0.0, -1.0, 2.5, 1.5, 6.0});
    CHECK_OK(sm_mul_f32(x, dy, N, y));
    check_known(y, (const double[N]){-1.0, 0.0, 1.0, 0.5, 9.0});
    CHECK_OK(sm_scale_f32(x, N, -2.0f, y));
    check_known(y, (const double[N]){2.0, 0.0, -1.0, -2.0, -6.0});
    CHECK_OK(sm_axpy_f32(3.0f, dy, N, y));
    check_known(y, (const double[N]){5.0, -3.0, 5.0, -0.5, 3.0});
    float result = CANARY;
    CHECK_OK(sm_sum_f32(x, N, &result));
    CHECK(result == 3.5f);
    CHECK_OK(sm_dot_f32(x, dy, N, &result));
    CHECK(result == 9.5f);
    CHECK_OK(sm_max_f32(x, N, &result));
    CHECK(result == 3.0f);
    size_t index = 99;
    CHECK_OK(sm_argmax_f32(x, N, &index));
    CHECK(index == 4);
    CHECK_OK(sm_sum_f32(NULL, 0, &result));
    CHECK(result == 0.0f);
    CHECK_OK(sm_max_f32(NULL, 0, &result));
    CHECK(result == -INFINITY);
}

static void softmax(void) {
    /* Two rows of three, four apart. */
    const float rows[7] = {1, 2, 3, CANARY, 1, 2, 3}, mask[3] = {0, -INFINITY, 1};
    float y[8] = {CANARY, CANARY, CANARY, CANARY, CANARY, CANARY, CANARY, CANARY};
    const double e = 2.718281828459045;
    CHECK_OK(sm_masked_softmax_f32(2, 3, rows, 4, 0.5f, 3, mask, 0, y, 4));
    for (int r = 0; r < 2; r++) { /* exponents 0.5 and 2.5 */
        CHECK(near(y[4 * r], 1.0 / (1.0 + e * e)) && y[4 * r + 1] == 0.0f);
        CHECK(near(y[4 * r + 2], 1.0 - 1.0 / (1.0 + e * e)));
    }
    CHECK(y[3] == CANARY && y[7] == CANARY);
    CHECK_OK(sm_masked_softmax_f32(2, 3, rows, 4, 1.0f, 1, NULL, 0, y, 4));
    CHECK(y[0] == 1.0f && y[1] == 0.0f && y[2] == 0.0f && y[6] == 0.0f && near(y[4], 1.0 / (1.0 + e)));
    CHECK_OK(sm_log_softmax_f32(2, 3, rows, 4, y, 4));
    CHECK(near(y[0], -2.407605964444380) && near(y[4], -2.407605964444380) && near(y[6], -0.407605964444380));
    CHECK(y[3] == CANARY && y[7] == CANARY);
}

static void norms(void) {
    const float add[6] = {1, 1, 1, 1, 1, 1}, weight[3] = {1, 2, 3}, row[3] = {1, 10, 100};
    float sum[6] = {0, 1, 2, 3, 4, 5}, y[6], plain[6], mean[3] = {0, 0, CANARY}, rstd[3] = {0, 0, CANARY};
    sm_add_norm_params params;
    CHECK_OK(sm_add_norm_params_init(&params, sizeof params));
    CHECK(params.eps == 1e-5f && params.team == NULL);
    params.rows = 2;
    params.cols = 3;
    params.weight = weight;
    params.eps = 0.0f;
    params.mean = mean;
    params.rstd = rstd;
    CHECK_OK(sm_add_layer_norm_f32(&params, sum, add, y));
    CHECK(sum[0] == 1.0f && sum[5] == 6.0f && mean[0] == 2.0f && mean[1] == 5.0f);
    CHECK(near(rstd[0], 1.224744871391589) && near(rstd[1], 1.224744871391589));
    CHECK(mean[2] == CANARY && rstd[2] == CANARY);
    CHECK_OK(sm_layer_norm_f32(2, 3, sum, 3, weight, NULL, 0.0f, plain, 3));
    CHECK(memcmp(y, plain, sizeof y) == 0);
    params.mean = NULL;
    CHECK_OK(sm_add_rms_norm_f32(&params, sum, NULL, y));
    CHECK_OK(sm_rms_norm_f32(2, 3, sum, 3, weight, 0.0f, plain, 3));
    CHECK(memcmp(y, plain, sizeof y) == 0 && near(rstd[0], 0.4629100498862757) && sum[0] == 1.0f);
    CHECK_OK(sm_add_row_f32(2, 3, sum, 3, row, sum, 3));
    CHECK(sum[0] == 2.0f && sum[1] == 12.0f && sum[2] == 103.0f && sum[5] == 106.0f);
}

#define U 5.9604644775390625e-8 /* 2^-24: half a unit in the last place of 1 */

/* Rows between -8 and 8, the same on every run, with canaries between them. */
static float *noise(size_t rows, size_t cols, size_t ld, unsigned seed) {
    float *filled = malloc(rows * ld * sizeof *filled);
    for (size_t i = 0; i < rows * ld; i++) {
        seed = seed * 1664525u + 1013904223u;
        filled[i] = i % ld < cols ? (float)(seed >> 8) / (float)(1 << 20) - 8.0f : CANARY;
    }
    return filled;
}

/* Softmax of the elements that a row sees, and its logarithm, computed with doubles, within the bounds of docs/kernels.md:
 * with n elements, sums of at least 16 parts are off by (n / 16 + 8) U, an exponential by 4 units in the last place and
 * one more for each power of two below the largest, since the exponent was rounded. */
static void check_softmax(const float *x, const float *mask, double scale, size_t seen, size_t cols, const float *y,
                          const float *log_y) {
    double largest = -INFINITY, sum = 0.0, *z = malloc(cols * sizeof *z);
    int wrong = 0;
    for (size_t j = 0; j < cols; j++) {
        z[j] = scale * x[j] + (mask != NULL ? mask[j] : 0.0);
        largest = j < seen && z[j] > largest ? z[j] : largest;
    }
    for (size_t j = 0; j < seen; j++) {
        sum += exp(z[j] - largest);
    }
    const double sum_bound = (double)cols / 16.0 + 8.0;
    for (size_t j = 0; j < cols; j++) {
        const double below = largest - z[j], want = j < seen ? exp(-below) / sum : 0.0;
        /* A rounded exponent: scale * x, the sum with the mask, and the difference, for this and for the largest. */
        const double moved = 4.0 * (fabs(z[j]) + fabs(largest) + fabs(scale * x[j]) + below);
        wrong += !(fabs(y[j] - want) <= want * (8.0 + 2.0 * below / log(2.0) + moved + sum_bound) * U + FLT_MIN);
        if (log_y != NULL) {
            const double bound = (sum_bound + 8.0 + 2.0 * below + 6.0 * log((double)cols)) * U;
            wrong += !(fabs(log_y[j] - (z[j] - largest - log(sum))) <= bound);
        }
    }
    CHECK(wrong == 0);
    free(z);
}

/* A norm of a row, computed with doubles. With s = n / 16 + 10, the factor is off by (s / 2 + 6) U, relatively, and a
 * mean by s U times the mean magnitude. */
static void check_norm(int layer, const float *x, const float *weight, const float *bias, size_t cols, const float *y,
                       double got_mean, double got_rstd) {
    double mean = 0.0, magnitude = 0.0, squares = 0.0;
    const double n = (double)cols, s = n / 16.0 + 10.0;
    for (size_t j = 0; j < cols; j++) {
        mean += layer ? x[j] / n : 0.0;
        magnitude += fabs(x[j]) / n;
    }
    for (size_t j = 0; j < cols; j++) {
        squares += (x[j] - mean) * (x[j] - mean) / n;
    }
    const double rstd = 1.0 / sqrt(squares + 1e-3), mean_bound = layer ? s * U * magnitude : 0.0;
    int wrong = !(fabs(got_rstd - rstd) <= (s / 2.0 + 6.0) * U * rstd);
    wrong += !(fabs(got_mean - mean) <= mean_bound);
    for (size_t j = 0; j < cols; j++) {
        const double scaled = (x[j] - mean) * rstd * weight[j], want = scaled + bias[j];
        const double bound = fabs(scaled) * (s / 2.0 + 10.0) * U + rstd * fabs(weight[j]) * mean_bound + fabs(want) * U;
        wrong += !(fabs(y[j] - want) <= bound + FLT_MIN);
    }
    CHECK(wrong == 0);
}

enum { T_ROWS = 301, T_COLS = 270, LDX = 273, LDY = 271, T_SIZE = T_ROWS * LDY };

static sm_rows_params team_rows(sm_team *team) {
    sm_rows_params params;
    CHECK_OK(sm_rows_params_init(&params, sizeof params));
    CHECK(params.rows == 0 && params.cols == 0 && params.ldx == 0 && params.ldy == 0 && params.team == NULL);
    params.rows = T_ROWS;
    params.cols = T_COLS;
    params.ldx = LDX;
    params.ldy = LDY;
    params.team = team;
    return params;
}

/* The gaps between the rows of y. */
static void check_gaps(const float *y) {
    int wrong = 0;
    for (size_t r = 0; r < T_ROWS; r++) {
        wrong += y[r * LDY + T_COLS] != CANARY;
    }
    CHECK(wrong == 0);
}

/* Softmax of rows on a team: the bits of one thread, which are near those of plain loops. */
static void softmax_on(sm_team *team, const float *x, const float *mask, float *alone, float *shared) {
    const sm_rows_params params = team_rows(team);
    CHECK_OK(sm_softmax_f32(T_ROWS, T_COLS, x, LDX, alone, LDY));
    CHECK_OK(sm_softmax(&params, x, shared));
    CHECK(memcmp(alone, shared, T_SIZE * sizeof *alone) == 0);
    float *log_alone = noise(T_ROWS, T_COLS, LDY, 9);
    CHECK_OK(sm_log_softmax_f32(T_ROWS, T_COLS, x, LDX, log_alone, LDY));
    CHECK_OK(sm_log_softmax(&params, x, shared));
    CHECK(memcmp(log_alone, shared, T_SIZE * sizeof *alone) == 0);
    for (size_t r = 0; r < T_ROWS; r++) {
        check_softmax(x + r * LDX, NULL, 1.0, T_COLS, T_COLS, alone + r * LDY, log_alone + r * LDY);
    }
    check_gaps(alone);
    free(log_alone);
    CHECK_OK(sm_masked_softmax_f32(T_ROWS, T_COLS, x, LDX, 0.25f, 7, mask, LDX, alone, LDY));
    CHECK_OK(sm_masked_softmax(&params, x, 0.25f, 7, mask, LDX, shared));
    CHECK(memcmp(alone, shared, T_SIZE * sizeof *alone) == 0);
    for (size_t r = 0; r < T_ROWS; r++) {
        const size_t seen = 7 + r < T_COLS ? 7 + r : T_COLS;
        check_softmax(x + r * LDX, mask + r * LDX, 0.25, seen, T_COLS, alone + r * LDY, NULL);
    }
    check_gaps(shared);
}

/* Norms of rows on a team, also of a sum. */
static void norms_on(sm_team *team, const float *x, const float *add, float *alone, float *shared) {
    const float *weight = add, *bias = add + LDX;
    sm_rows_params params = team_rows(team);
    CHECK_OK(sm_layer_norm_f32(T_ROWS, T_COLS, x, LDX, weight, bias, 1e-3f, alone, LDY));
    CHECK_OK(sm_layer_norm(&params, x, weight, bias, 1e-3f, shared));
    CHECK(memcmp(alone, shared, T_SIZE * sizeof *alone) == 0);
    CHECK_OK(sm_rms_norm_f32(T_ROWS, T_COLS, x, LDX, weight, 1e-3f, alone, LDY));
    CHECK_OK(sm_rms_norm(&params, x, weight, 1e-3f, shared));
    CHECK(memcmp(alone, shared, T_SIZE * sizeof *alone) == 0);
    /* In place, where the leading dimension is y's. */
    float *rows = noise(T_ROWS, T_COLS, LDX, 1);
    params.ldy = LDX;
    CHECK_OK(sm_rms_norm(&params, rows, weight, 1e-3f, rows));
    int wrong = 0;
    for (size_t r = 0; r < T_ROWS; r++) {
        wrong += memcmp(rows + r * LDX, alone + r * LDY, T_COLS * sizeof *rows) != 0;
    }
    CHECK(wrong == 0);

    float mean[T_ROWS], rstd[T_ROWS];
    sm_add_norm_params sum;
    CHECK_OK(sm_add_norm_params_init(&sum, sizeof sum));
    sum.rows = T_ROWS;
    sum.cols = T_COLS;
    sum.ldx = sum.ldadd = LDX;
    sum.ldy = LDY;
    sum.weight = weight;
    sum.bias = bias;
    sum.eps = 1e-3f;
    sum.rstd = rstd;
    for (int layer = 0; layer < 2; layer++) {
        sm_status (*norm)(const sm_add_norm_params *, float *, const float *, float *) =
            layer ? sm_add_layer_norm_f32 : sm_add_rms_norm_f32;
        sum.mean = layer ? mean : NULL;
        sum.team = NULL;
        memcpy(rows, x, T_ROWS * LDX * sizeof *rows);
        CHECK_OK(norm(&sum, rows, add, alone));
        memcpy(rows, x, T_ROWS * LDX * sizeof *rows);
        sum.team = team;
        CHECK_OK(norm(&sum, rows, add, shared));
        CHECK(memcmp(alone, shared, T_SIZE * sizeof *alone) == 0);
        wrong = 0;
        for (size_t i = 0; i < T_ROWS * LDX; i++) {
            wrong += rows[i] != (i % LDX < T_COLS ? x[i] + add[i] : CANARY);
        }
        CHECK(wrong == 0);
        for (size_t r = 0; r < T_ROWS; r++) {
            check_norm(layer, rows + r * LDX, weight, bias, T_COLS, shared + r * LDY, layer ? mean[r] : 0.0, rstd[r]);
        }
        check_gaps(shared);
    }
    free(rows);
}

static void on_teams(void) {
    float *x = noise(T_ROWS, T_COLS, LDX, 1), *y = noise(T_ROWS, T_COLS, LDX, 2);
    float *alone = noise(T_ROWS, T_COLS, LDY, 3), *shared = noise(T_ROWS, T_COLS, LDY, 4);
    for (size_t threads = 1; threads <= 3; threads++) {
        sm_team *team = NULL;
        CHECK_OK(sm_team_create(threads, &team));
        softmax_on(team, x, y, alone, shared);
        norms_on(team, x, y, alone, shared);
        CHECK_OK(sm_team_free(team));
    }
    free(x);
    free(y);
    free(alone);
    free(shared);
}

static void rotation(void) {
    float table[3 * 4], rows[12] = {0};
    const uint32_t positions[2] = {2, 0};
    CHECK_OK(sm_rope_table_f32(3, 4, 100.0f, 1.0f, NULL, table));
    for (int pairing = 0; pairing < 2; pairing++) {
        for (int i = 0; i < 12; i++) {
            rows[i] = i % 6 < 5 ? 1.0f : CANARY;
        }
        CHECK_OK(sm_rope_f32(2, 1, 5, rows, 6, positions, table, 3, 4, pairing));
        /* Angles 2 and 0.2; the fifth element of the head stays. */
        const int second = pairing == SM_ROPE_ADJACENT ? 1 : 2, third = pairing == SM_ROPE_ADJACENT ? 2 : 1;
        CHECK(near(rows[0], cos(2.0) - sin(2.0)) && near(rows[second], cos(2.0) + sin(2.0)));
        CHECK(near(rows[third], cos(0.2) - sin(0.2)) && near(rows[3], cos(0.2) + sin(0.2)));
        CHECK(rows[4] == 1.0f && rows[5] == CANARY && rows[6] == 1.0f && rows[11] == CANARY);
    }
}

static void layout(void) {
    enum { ROWS = 37, COLS = 19 };
    static float a[ROWS * COLS], b[COLS * (ROWS + 1)];
    static uint16_t half[ROWS * COLS + 1];
    static float back[ROWS * COLS];
    for (int i = 0; i < ROWS * COLS; i++) {
        a[i] = (float)i - 300.0f;
    }
    for (int i = 0; i < COLS * (ROWS + 1); i++) {
        b[i] = CANARY;
    }
    CHECK_OK(sm_transpose_f32(ROWS, COLS, a, COLS, b, ROWS + 1));
    int wrong = 0;
    for (int j = 0; j < COLS; j++) {
        for (int i = 0; i <= ROWS; i++) {
            wrong += b[j * (ROWS + 1) + i] != (i < ROWS ? a[i * COLS + j] : CANARY);
        }
    }
    CHECK(wrong == 0);
    half[ROWS * COLS] = 0xabcd;
    CHECK_OK(sm_f32_to_f16(a, ROWS * COLS, half));
    CHECK_OK(sm_f16_to_f32(half, ROWS * COLS, back));
    CHECK(memcmp(a, back, sizeof a) == 0 && half[ROWS * COLS] == 0xabcd);
    const float edges[4] = {1.00390625f, 1.01171875f, NAN, FLT_MAX}; /* half-way between two bfloat16, twice */
    CHECK_OK(sm_f32_to_bf16(edges, 4, half));
    CHECK(half[0] == 0x3f80 && half[1] == 0x3f82 && (half[2] & 0x7fff) > 0x7f80 && half[3] == 0x7f80);
    CHECK_OK(sm_bf16_to_f32(half, 4, back));
    CHECK(back[0] == 1.0f && back[1] == 1.015625f && isnan(back[2]) && isinf(back[3]));
    CHECK_OK(sm_f32_to_f16(edges, 4, half));
    CHECK((half[2] & 0x7fff) > 0x7c00 && half[3] == 0x7c00);
}

void test_rows(void) {
    functions();
    derivatives();
    gated();
    sums();
    softmax();
    norms();
    on_teams();
    rotation();
    layout();
}
