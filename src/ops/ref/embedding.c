// SPDX-License-Identifier: MIT
#include "ops/ref/ref.h"

void bb_ref_embedding_forward(bb_device *dev, float *x, const uint8_t *idx, const float *e, int64_t M, int64_t V, int64_t C) {
    (void)dev;
    (void)V;
    for (int64_t m = 0; m < M; m++)
        for (int64_t c = 0; c < C; c++) x[m * C + c] = e[idx[m] * C + c];
}

void bb_ref_embedding_backward(bb_device *dev, float *de, const uint8_t *idx, const float *dx, int64_t M, int64_t V,
                               int64_t C) {
    (void)dev;
    for (int64_t v = 0; v < V; v++)
        for (int64_t c = 0; c < C; c++) {
            double sum = (double)de[v * C + c];
            for (int64_t m = 0; m < M; m++)
                if (idx[m] == v) sum += (double)dx[m * C + c];
            de[v * C + c] = (float)sum;
        }
}
