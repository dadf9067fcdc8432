/* Compares a task's result with f64, at up to a few hundred places spread over it, its last among them.
 *
 * This guards against timing a wrong call (a transposition, a leading dimension, a lower precision); what
 * the last bit is worth is for the project's own tests. */
#include "check.h"

#include <math.h>
#include <string.h>

/* f32 arithmetic in any order of sums stays well below; bf16 or tf32 products don't. */
#define TOLERANCE 2e-5
/* Of elementwise functions, beside a result of 1: less than the two forms of GELU differ. */
#define TOLERANCE_UNARY 1e-4
#define PLACES 307

static long place(long i, long count)
{
    return count <= PLACES ? i : (long)((double)i * (double)(count - 1) / (PLACES - 1));
}

static double worse(double so_far, double error) { return !(error <= so_far) ? error : so_far; }

static double matmul(const struct task *t)
{
    double worst = 0;
    long cells = t->m * t->n;
    for (long i = 0; i < PLACES && i < cells; i++) {
        long cell = place(i, cells), row = cell / t->n, column = cell % t->n;
        double sum = 0, size = 0;
        for (long p = 0; p < t->k; p++) {
            float b = t->transposed ? t->b[column * t->k + p] : t->b[p * t->n + column];
            double product = (double)t->a[row * t->k + p] * b;
            sum += product;
            size += fabs(product);
        }
        worst = worse(worst, fabs(t->c[cell] - sum) / (size * TOLERANCE));
    }
    return worst;
}

static double unary(const char *op, double x)
{
    if (strcmp(op, "exp") == 0)
        return exp(x);
    if (strcmp(op, "tanh") == 0)
        return tanh(x);
    if (strcmp(op, "gelu_erf") == 0)
        return x * erfc(-x * M_SQRT1_2) / 2;
    if (strcmp(op, "gelu_tanh") == 0)
        return x / (1 + exp(-2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    if (strcmp(op, "silu") == 0)
        return x / (1 + exp(-x));
    return NAN;
}

static double elements(const struct task *t)
{
    double worst = 0;
    for (long i = 0; i < PLACES && i < t->n; i++) {
        long at = place(i, t->n);
        double wanted = unary(t->op, t->a[at]);
        worst = worse(worst, fabs(t->c[at] - wanted) / ((fabs(wanted) + 1) * TOLERANCE_UNARY));
    }
    return worst;
}

static double softmax_row(const float *x, const float *y, long n)
{
    double sum = 0, worst = 0;
    for (long i = 0; i < n; i++)
        sum += exp(x[i]);
    for (long i = 0; i < n; i++) {
        double wanted = exp(x[i]) / sum;
        worst = worse(worst, fabs(y[i] - wanted) / (wanted * 10 * TOLERANCE));
    }
    return worst;
}

static double norm_row(const struct task *t, const float *x, const float *y, int centred)
{
    double mean = 0, square = 0, worst = 0;
    for (long i = 0; i < t->n; i++)
        mean += centred ? x[i] / (double)t->n : 0;
    for (long i = 0; i < t->n; i++)
        square += (x[i] - mean) * (x[i] - mean) / (double)t->n;
    for (long i = 0; i < t->n; i++) {
        double wanted =
            (x[i] - mean) / sqrt(square + LAYER_NORM_EPS) * t->weight[i] + (centred ? t->bias[i] : 0);
        worst = worse(worst, fabs(y[i] - wanted) / (2 * TOLERANCE));
    }
    return worst;
}

static double rows(const struct task *t)
{
    double worst = 0;
    for (long i = 0; i < 5 && i < t->m; i++) {
        long row = t->m <= 5 ? i : i * (t->m - 1) / 4;
        const float *x = t->a + row * t->n, *y = t->c + row * t->n;
        if (strcmp(t->op, "softmax") == 0)
            worst = worse(worst, softmax_row(x, y, t->n));
        else
            worst = worse(worst, norm_row(t, x, y, strcmp(t->op, "layer_norm") == 0));
    }
    return worst;
}

/* One query of one head. */
static double attention_row(const struct task *t, long head, long query)
{
    const float *q = t->a + (head * t->m + query) * t->n;
    const float *keys = t->b + head * t->m * t->n, *values = t->values + head * t->m * t->n;
    long visible = t->transposed ? query + 1 : t->m;
    double sum = 0, worst = 0, out[1024] = {0};
    for (long p = 0; p < visible; p++) {
        double score = 0;
        for (long d = 0; d < t->n; d++)
            score += (double)q[d] * keys[p * t->n + d];
        double weight = exp(score / sqrt((double)t->n));
        sum += weight;
        for (long d = 0; d < t->n && d < 1024; d++)
            out[d] += weight * values[p * t->n + d];
    }
    for (long d = 0; d < t->n && d < 1024; d++)
        worst = worse(worst, fabs(t->c[(head * t->m + query) * t->n + d] - out[d] / sum) / (2 * TOLERANCE));
    return worst;
}

static double attention(const struct task *t)
{
    double worst = 0;
    for (long i = 0; i < 16; i++)
        worst = worse(worst, attention_row(t, i % t->k, i * (t->m - 1) / 15));
    return worst;
}

double check(const struct task *t)
{
    if (strcmp(t->op, "matmul") == 0)
        return matmul(t);
    if (strcmp(t->op, "attention") == 0)
        return attention(t);
    if (strcmp(t->op, "softmax") == 0 || strcmp(t->op, "layer_norm") == 0 || strcmp(t->op, "rms_norm") == 0)
        return rows(t);
    if (isnan(unary(t->op, 0)))
        return 0; /* what the machine itself can do has no result */
    return elements(t);
}
