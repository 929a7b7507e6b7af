// SPDX-License-Identifier: MIT
#include "ops/ref/ref.h"

void bb_ref_head_forward(bb_device *dev, float *logits, const float *h, const bb_head *head) {
    (void)dev;
    const float *e = head->e;
    int64_t M = head->M, V = head->V, C = head->C;
    for (int64_t m = 0; m < M; m++)
        for (int64_t v = 0; v < V; v++) {
            double sum = 0;
            for (int64_t c = 0; c < C; c++) sum += (double)h[m * C + c] * (double)e[v * C + c];
            logits[m * V + v] = (float)sum;
        }
}

void bb_ref_head_backward(bb_device *dev, void *dh, float *de, const float *dlogits, const float *h, const bb_head *head) {
    (void)dev;
    const float *e = head->e;
    int64_t M = head->M, V = head->V, C = head->C;
    float *out = dh;
    for (int64_t m = 0; m < M; m++)
        for (int64_t c = 0; c < C; c++) {
            double sum = 0;
            for (int64_t v = 0; v < V; v++) sum += (double)dlogits[m * V + v] * (double)e[v * C + c];
            out[m * C + c] = (float)sum;
        }
    for (int64_t v = 0; v < V; v++)
        for (int64_t c = 0; c < C; c++) {
            double sum = (double)de[v * C + c];
            for (int64_t m = 0; m < M; m++) sum += (double)dlogits[m * V + v] * (double)h[m * C + c];
            de[v * C + c] = (float)sum;
        }
}
