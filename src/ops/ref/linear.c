// SPDX-License-Identifier: MIT
#include "ops/ref/ref.h"

/* s[m] * g[n] * sum_k x.q[m,k] * t.q[n,k]. The integer sum is exact; rounding happens only when the caller stores the
 * result. */
static double product(bb_rows x, const bb_ternary *t, int64_t m, int64_t n) {
    double g = (double)bb_ref_ternary_scale(t, n);
    if (x.dtype == BB_I8) {
        const int8_t *q = (const int8_t *)x.data + m * t->k;
        int32_t sum = 0;
        for (int64_t k = 0; k < t->k; k++) sum += q[k] * bb_ref_ternary_at(t, n, k);
        return (double)x.scale[m] * g * sum;
    }
    const float *f = (const float *)x.data + m * t->k;
    double sum = 0;
    for (int64_t k = 0; k < t->k; k++) sum += (double)f[k] * bb_ref_ternary_at(t, n, k);
    return g * sum;
}

void bb_ref_linear_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    (void)dev;
    for (int64_t m = 0; m < M; m++)
        for (int64_t n = 0; n < t->n; n++) {
            int64_t i = m * t->n + n;
            y[i] = (float)((residual ? (double)residual[i] : 0) + product(x, t, m, n));
        }
}

void bb_ref_linear_backward(bb_device *dev, void *dx, bb_layer_gradient g, bb_rows x, const bb_ternary *t, int64_t M) {
    (void)dev;
    const float *grad = g.dy; /* act is f32 here: the two types are the same */
    float *dw = g.dw;
    int64_t N = t->n, K = t->k;
    if (dx) {
        float *out = dx;
        for (int64_t m = 0; m < M; m++)
            for (int64_t k = 0; k < K; k++) {
                double sum = 0;
                for (int64_t n = 0; n < N; n++)
                    sum += (double)grad[m * N + n] * (double)bb_ref_ternary_scale(t, n) * bb_ref_ternary_at(t, n, k);
                out[m * K + k] = (float)sum;
            }
    }
    for (int64_t n = 0; n < N; n++)
        for (int64_t k = 0; k < K; k++) {
            double sum = g.add ? (double)dw[n * K + k] : 0;
            for (int64_t m = 0; m < M; m++) sum += (double)grad[m * N + n] * bb_ref_load(x, m, k, K);
            dw[n * K + k] = (float)sum;
        }
}
