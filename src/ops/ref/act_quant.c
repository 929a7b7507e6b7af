// SPDX-License-Identifier: MIT
#include <math.h>

#include "ops/ref/ref.h"

/* In f32 throughout, unlike sums elsewhere: the codes are integers, and all backends must agree on them. A NaN makes the scale
 * NaN, so that it is not lost. */
float bb_ref_scale(const float *x, int64_t K, float limit) {
    float absmax = 0.0f;
    for (int64_t k = 0; k < K; k++)
        if (fabsf(x[k]) > absmax || isnan(x[k])) absmax = fabsf(x[k]);
    float s = absmax / limit;
    return s < 1e-8f ? 1e-8f : s;
}

int8_t bb_ref_code(float x, float s, float limit) { return (int8_t)fminf(fmaxf(rintf(x / s), -limit), limit); }

static float quantize_row(int8_t *q, const float *x, int64_t K) {
    float s = bb_ref_scale(x, K, 127.0f);
    for (int64_t k = 0; k < K; k++) q[k] = bb_ref_code(x[k], s, 127.0f);
    return s;
}

void bb_ref_store_row(bb_rows y, int64_t m, const float *x, int64_t K) {
    if (y.dtype == BB_I8)
        y.scale[m] = quantize_row((int8_t *)y.data + m * K, x, K);
    else
        memcpy((float *)y.data + m * K, x, (size_t)K * sizeof(float));
}

double bb_ref_load(bb_rows x, int64_t m, int64_t k, int64_t K) {
    int64_t i = m * K + k;
    return x.dtype == BB_I8 ? (double)x.scale[m] * ((const int8_t *)x.data)[i] : (double)((const float *)x.data)[i];
}

void bb_ref_act_quant(bb_device *dev, bb_rows y, const float *x, int64_t M, int64_t K) {
    (void)dev;
    for (int64_t m = 0; m < M; m++) bb_ref_store_row(y, m, x + m * K, K);
}
