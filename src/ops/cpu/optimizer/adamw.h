// SPDX-License-Identifier: MIT
/* The AdamW update of one element (arXiv:1711.05101), however the moments are stored. */
#ifndef BB_OPS_CPU_ADAMW_H
#define BB_OPS_CPU_ADAMW_H

#include <math.h>

#include "ops/cpu/vector/simd.h"

/* bb_adamw with all that is constant across elements precomputed. */
typedef struct adamw_constants {
    float beta1, beta2, one_minus_beta1, one_minus_beta2, eps, grad_scale;
    float decay;      /* lr * weight_decay */
    float step_size;  /* lr / bias_correction1 */
    float inv_sqrt2;  /* 1 / sqrt(bias_correction2) */
    float min_root_v; /* sqrt(bb_adam8_min_v) */
} adamw_constants;

static inline adamw_constants adamw_prepare(const bb_adamw *h) {
    return (adamw_constants){
        .beta1 = (float)h->beta1,
        .beta2 = (float)h->beta2,
        .one_minus_beta1 = (float)(1 - h->beta1),
        .one_minus_beta2 = (float)(1 - h->beta2),
        .eps = (float)h->eps,
        .grad_scale = (float)h->grad_scale,
        .decay = (float)(h->lr * h->weight_decay),
        .step_size = (float)(h->lr / h->bias_correction1),
        .inv_sqrt2 = (float)(1 / sqrt(h->bias_correction2)),
        .min_root_v = (float)sqrt(bb_adam8_min_v(h)),
    };
}

BB_SIMD_INLINE void adamw_moments(float g, float *m, float *v, const adamw_constants *k) {
    g *= k->grad_scale;
    *m = k->beta1 * *m + k->one_minus_beta1 * g;
    *v = k->beta2 * *v + k->one_minus_beta2 * (g * g);
}

/* Returns the new p. The decay is subtracted as a separate product: 1 - lr*wd would round it to three digits. */
BB_SIMD_INLINE float adamw_apply(float p, float m, float v, const adamw_constants *k) {
    return p - (k->decay * p + k->step_size * m / (sqrtf(v) * k->inv_sqrt2 + k->eps));
}

#endif
