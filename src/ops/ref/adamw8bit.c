/* SPDX-License-Identifier: MIT */
#include <math.h>

#include "core/adam8_map.h"
#include "ops/ref/ref.h"

/* The nearest entry, the lower one where two are equally near. */
static uint8_t code_of(const float *map, float x) {
    int best = 0;
    for (int i = 1; i < 256; i++)
        if (fabs((double)map[i] - (double)x) < fabs((double)map[best] - (double)x)) best = i;
    return (uint8_t)best;
}

static void decode(double *x, const uint8_t *code, float absmax, int64_t n, bool is_signed) {
    const float *map = bb_adam8_map(is_signed);
    for (int64_t i = 0; i < n; i++) x[i] = (double)(map[code[i]] * absmax);
}

/* In f32, as every backend does it. A block without a moment above 0 has the codes of zero. */
static float encode(uint8_t *code, const double *x, int64_t n, bool is_signed) {
    const float *map = bb_adam8_map(is_signed);
    float absmax = 0.0f;
    for (int64_t i = 0; i < n; i++) absmax = fmaxf(absmax, fabsf((float)x[i]));
    for (int64_t i = 0; i < n; i++) code[i] = code_of(map, absmax > 0.0f ? (float)x[i] / absmax : 0.0f);
    return absmax;
}

void bb_ref_adamw8bit_init(bb_device *dev, bb_adam8_state s, int64_t n) {
    (void)dev;
    memset(s.m, code_of(bb_adam8_map(true), 0.0f), (size_t)n);
    memset(s.v, code_of(bb_adam8_map(false), 0.0f), (size_t)n);
    for (int64_t i = 0; i * BB_ADAM8_BLOCK < n; i++) s.m_absmax[i] = s.v_absmax[i] = 0.0f;
}

void bb_ref_adamw8bit_step(bb_device *dev, float *p, const float *g, bb_adam8_state s, int64_t n, const bb_adamw *h) {
    (void)dev;
    double m[BB_ADAM8_BLOCK], v[BB_ADAM8_BLOCK];
    for (int64_t first = 0, block = 0; first < n; first += BB_ADAM8_BLOCK, block++) {
        int64_t count = n - first < BB_ADAM8_BLOCK ? n - first : BB_ADAM8_BLOCK;
        decode(m, s.m + first, s.m_absmax[block], count, true);
        decode(v, s.v + first, s.v_absmax[block], count, false);
        for (int64_t i = 0; i < count; i++)
            p[first + i] = (float)bb_ref_adamw_element((double)p[first + i], (double)g[first + i], &m[i], &v[i], h);
        s.m_absmax[block] = encode(s.m + first, m, count, true);
        s.v_absmax[block] = encode(s.v + first, v, count, false);
    }
}
