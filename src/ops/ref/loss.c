// SPDX-License-Identifier: MIT
#include <math.h>

#include "ops/ref/ref.h"

static double logsumexp(const float *x, int64_t n) {
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) max = fmax(max, (double)x[i]);
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - max);
    return max + log(sum);
}

void bb_ref_loss_forward(bb_device *dev, float *nll, const float *logits, const uint8_t *y, int64_t M, int64_t V) {
    (void)dev;
    for (int64_t m = 0; m < M; m++) {
        const float *row = logits + m * V;
        nll[m] = (float)(logsumexp(row, V) - (double)row[y[m]]);
    }
}

void bb_ref_loss_backward(bb_device *dev, float *dlogits, const float *logits, const uint8_t *y, float scale, int64_t M,
                          int64_t V) {
    (void)dev;
    for (int64_t m = 0; m < M; m++) {
        const float *row = logits + m * V;
        double lse = logsumexp(row, V); /* computed before the row is overwritten: dlogits may be logits */
        for (int64_t v = 0; v < V; v++)
            dlogits[m * V + v] = (float)((double)scale * (exp((double)row[v] - lse) - (v == y[m] ? 1.0 : 0.0)));
    }
}
