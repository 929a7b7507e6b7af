/* SPDX-License-Identifier: MIT */
#include "ops/ref/ref.h"

void bb_ref_rope(bb_device *dev, void *x, const float *cos, const float *sin, int64_t position0, bool inverse, int64_t B,
                 int64_t T, int64_t heads, int64_t D, int64_t stride) {
    (void)dev;
    int64_t half = D / 2;
    for (int64_t b = 0; b < B; b++)
        for (int64_t t = 0; t < T; t++)
            for (int64_t h = 0; h < heads; h++) {
                float *head = (float *)x + (b * T + t) * stride + h * D;
                for (int64_t i = 0; i < half; i++) {
                    double c = (double)cos[(position0 + t) * half + i], s = (double)sin[(position0 + t) * half + i];
                    double first = (double)head[i], second = (double)head[i + half];
                    if (inverse) s = -s;
                    head[i] = (float)(first * c - second * s);
                    head[i + half] = (float)(second * c + first * s);
                }
            }
}
