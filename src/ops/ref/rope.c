// SPDX-License-Identifier: MIT
#include "ops/ref/ref.h"

/* sign -1 rotates back. */
static void rotate(float *x, double sign, int64_t position0, const bb_rope *r) {
    int64_t half = r->D / 2;
    for (int64_t b = 0; b < r->B; b++)
        for (int64_t t = 0; t < r->T; t++)
            for (int64_t h = 0; h < r->heads; h++) {
                float *head = x + (b * r->T + t) * r->width + h * r->D;
                for (int64_t i = 0; i < half; i++) {
                    int64_t angle = (position0 + t) * half + i;
                    double c = (double)r->cos[angle], s = sign * (double)r->sin[angle];
                    double first = (double)head[i], second = (double)head[i + half];
                    head[i] = (float)(first * c - second * s);
                    head[i + half] = (float)(second * c + first * s);
                }
            }
}

void bb_ref_rope_forward(bb_device *dev, float *x, void *kept, int64_t position0, const bb_rope *rope) {
    (void)dev;
    rotate(x, 1, position0, rope);
    if (kept) memcpy(kept, x, (size_t)(rope->B * rope->T * rope->width) * sizeof *x);
}

void bb_ref_rope_backward(bb_device *dev, void *dx, const bb_rope *rope) {
    (void)dev;
    rotate(dx, -1, 0, rope);
}
