// SPDX-License-Identifier: MIT
#include <math.h>

#include "core/adam8_map.h"
#include "ops/ref/ref.h"

static void decode(double *x, const uint8_t *code, float absmax, int64_t n, bool is_signed) {
    for (int64_t i = 0; i < n; i++) x[i] = (double)(bb_adam8_value(code[i], is_signed) * absmax);
}

/* In f32, like every backend. A NaN makes absmax NaN; the codes may then be anything. */
static float encode(uint8_t *code, const double *x, int64_t n, bool is_signed) {
    float absmax = 0.0f;
    for (int64_t i = 0; i < n; i++) {
        float a = fabsf((float)x[i]);
        if (a > absmax || isnan(a)) absmax = a;
    }
    for (int64_t i = 0; i < n; i++) code[i] = bb_adam8_code(bb_adam8_scale(absmax) * (float)x[i], is_signed);
    return absmax;
}

void bb_ref_adamw8bit_init(bb_device *dev, bb_adam8_state s, int64_t n) {
    (void)dev;
    memset(s.m, bb_adam8_code(0.0f, true), (size_t)n);
    memset(s.v, bb_adam8_code(0.0f, false), (size_t)n);
    for (int64_t i = 0; i * BB_ADAM8_BLOCK < n; i++) s.m_absmax[i] = s.v_absmax[i] = 0.0f;
}

void bb_ref_adamw8bit_step(bb_device *dev, float *p, const float *g, bb_adam8_state s, int64_t n, const bb_adamw *h) {
    (void)dev;
    double m[BB_ADAM8_BLOCK], v[BB_ADAM8_BLOCK], min_v = bb_adam8_min_v(h);
    for (int64_t first = 0, block = 0; first < n; first += BB_ADAM8_BLOCK, block++) {
        int64_t count = n - first < BB_ADAM8_BLOCK ? n - first : BB_ADAM8_BLOCK;
        decode(m, s.m + first, s.m_absmax[block], count, true);
        decode(v, s.v + first, s.v_absmax[block], count, false);
        for (int64_t i = 0; i < count; i++)
            p[first + i] = (float)bb_ref_adamw_element((double)p[first + i], (double)g[first + i], &m[i], &v[i], min_v, h);
        s.m_absmax[block] = encode(s.m + first, m, count, true);
        s.v_absmax[block] = encode(s.v + first, v, count, false);
    }
}
