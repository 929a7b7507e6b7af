// SPDX-License-Identifier: MIT
/* One element's AdamW update (arXiv:1711.05101), whatever form the moments are kept in. */
#ifndef BB_OPS_CPU_ADAMW_H
#define BB_OPS_CPU_ADAMW_H

#include <math.h>

#include "ops/cpu/vector/simd.h"

/* bb_adamw with what does not change from element to element worked out. */
typedef struct adamw_constants {
    float beta1, beta2, one_minus_beta1, one_minus_beta2, eps, grad_scale;
    float decay;        /* lr * weight_decay */
    float step;         /* lr / bias_correction1 */
    float inv_sqrt2;    /* 1 / sqrt(bias_correction2) */
    float least_root_v; /* sqrt(bb_adam8_min_v) */
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
        .step = (float)(h->lr / h->bias_correction1),
        .inv_sqrt2 = (float)(1 / sqrt(h->bias_correction2)),
        .least_root_v = (float)sqrt(bb_adam8_min_v(h)),
    };
}

BB_SIMD_INLINE void adamw_moments(float g, float *m, float *v, const adamw_constants *k) {
    g *= k->grad_scale;
    *m = k->beta1 * *m + k->one_minus_beta1 * g;
    *v = k->beta2 * *v + k->one_minus_beta2 * (g * g);
}

/* Returns the new p. The decay is subtracted as a product of its own: 1 - lr*wd would round it away to three digits. */
BB_SIMD_INLINE float adamw_apply(float p, float m, float v, const adamw_constants *k) {
    return p - (k->decay * p + k->step * m / (sqrtf(v) * k->inv_sqrt2 + k->eps));
}

#endif
