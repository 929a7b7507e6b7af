// SPDX-License-Identifier: MIT
#include <math.h>

#include "ops/ref/ref.h"

void bb_ref_sum_squares(bb_device *dev, double *sums, const float *x, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) {
        double *sum = &sums[i / BB_NORM_TILE];
        if (i % BB_NORM_TILE == 0) *sum = 0;
        *sum += (double)x[i] * (double)x[i];
    }
}

void bb_ref_add(bb_device *dev, float *y, const float *x, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

double bb_ref_adamw_element(double p, double g, double *m, double *v, double min_v, const bb_adamw *h) {
    double b1 = h->beta1, b2 = h->beta2, lr = h->lr;
    g *= h->grad_scale;
    *m = b1 * *m + (1.0 - b1) * g;
    *v = b2 * *v + (1.0 - b2) * g * g;
    if (min_v * *m * *m > *v) *v = min_v * *m * *m;
    double m_hat = *m / h->bias_correction1, v_hat = *v / h->bias_correction2;
    return p * (1.0 - lr * h->weight_decay) - lr * m_hat / (sqrt(v_hat) + h->eps);
}

void bb_ref_adamw_step(bb_device *dev, float *p, const float *g, float *m, float *v, int64_t n, const bb_adamw *h) {
    (void)dev;
    for (int64_t i = 0; i < n; i++) {
        double mi = (double)m[i], vi = (double)v[i];
        p[i] = (float)bb_ref_adamw_element((double)p[i], (double)g[i], &mi, &vi, 0, h);
        m[i] = (float)mi;
        v[i] = (float)vi;
    }
}

void bb_ref_row_adagrad_step(bb_device *dev, float *p, const float *g, float *v, int64_t rows, int64_t C,
                             const bb_row_adagrad *h) {
    (void)dev;
    for (int64_t r = 0; r < rows; r++) {
        const float *gr = g + r * C;
        double sum = 0;
        for (int64_t c = 0; c < C; c++) sum += (double)gr[c] * (double)gr[c];
        if (!(sum > 0)) continue;
        double v_r = (double)v[r] + sum * h->grad_scale * h->grad_scale / (double)C;
        v[r] = (float)v_r;
        for (int64_t c = 0; c < C; c++)
            p[r * C + c] = (float)((double)p[r * C + c] - h->lr * h->grad_scale * (double)gr[c] / (sqrt(v_r) + h->eps));
    }
}
