// SPDX-License-Identifier: MIT
#include "ops/ref/ref.h"

/* sign -1 rotates back. */
static void rotate(float *x, const float *cos, const float *sin, double sign, int64_t position0, int64_t B, int64_t T,
                   int64_t heads, int64_t D, int64_t width) {
    int64_t half = D / 2;
    for (int64_t b = 0; b < B; b++)
        for (int64_t t = 0; t < T; t++)
            for (int64_t h = 0; h < heads; h++) {
                float *head = x + (b * T + t) * width + h * D;
                for (int64_t i = 0; i < half; i++) {
                    double c = (double)cos[(position0 + t) * half + i], s = sign * (double)sin[(position0 + t) * half + i];
                    double first = (double)head[i], second = (double)head[i + half];
                    head[i] = (float)(first * c - second * s);
                    head[i + half] = (float)(second * c + first * s);
                }
            }
}

void bb_ref_rope_forward(bb_device *dev, float *x, void *kept, const float *cos, const float *sin, int64_t position0, int64_t B,
                         int64_t T, int64_t heads, int64_t D, int64_t width) {
    (void)dev;
    rotate(x, cos, sin, 1, position0, B, T, heads, D, width);
    if (kept) memcpy(kept, x, (size_t)(B * T * width) * sizeof *x);
}

void bb_ref_rope_backward(bb_device *dev, void *dx, const float *cos, const float *sin, int64_t B, int64_t T, int64_t heads,
                          int64_t D, int64_t width) {
    (void)dev;
    rotate(dx, cos, sin, -1, 0, B, T, heads, D, width);
}
