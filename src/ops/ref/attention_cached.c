/* The cache of keys and values, and attention to it.
 * SPDX-License-Identifier: MIT */
#include <math.h>

#include "ops/ref/ref.h"

/* The codes of row `position` of head h, and their scale. data, scales: the keys', or the values'. */
static int8_t *row_of(float **scale, void *data, float *scales, const bb_kv *kv, int64_t h, int64_t position, int64_t D) {
    int64_t begin = bb_kv_run_begin(kv, position), row = bb_kv_row(kv, h, position);
    *scale = (float *)(void *)((char *)scales + begin) + row;
    return (int8_t *)data + begin + row * bb_kv_width(D);
}

static void append(void *data, float *scales, const bb_kv *kv, int64_t position, const float *x, int64_t Hk, int64_t D) {
    int64_t width = bb_kv_width(D);
    if (kv->dtype == BB_F32) {
        memcpy((float *)data + position * Hk * D, x, (size_t)(Hk * D) * sizeof *x);
        return;
    }
    for (int64_t h = 0; h < Hk; h++) {
        float *scale;
        int8_t *codes = row_of(&scale, data, scales, kv, h, position, D);
        bb_ref_store_row((bb_rows){.data = codes, .scale = scale, .dtype = BB_I8}, 0, x + h * D, D);
        memset(codes + D, 0, (size_t)(width - D));
    }
}

void bb_ref_kv_append(bb_device *dev, const bb_kv *kv, int64_t first, const float *k, const float *v, int64_t stride, int64_t n,
                      int64_t Hk, int64_t D) {
    (void)dev;
    for (int64_t t = 0; t < n; t++) {
        append(kv->k, kv->k_scale, kv, first + t, k + t * stride, Hk, D);
        append(kv->v, kv->v_scale, kv, first + t, v + t * stride, Hk, D);
    }
}

/* Element d of a cached row. */
static double value_at(void *data, float *scales, const bb_kv *kv, int64_t h, int64_t position, int64_t d,
                       const bb_attention *a) {
    if (kv->dtype == BB_F32) return (double)((const float *)data)[(position * a->Hk + h) * a->D + d];
    float *scale;
    const int8_t *codes = row_of(&scale, data, scales, kv, h, position, a->D);
    return (double)*scale * codes[d];
}

void bb_ref_attention_cached(bb_device *dev, float *o, const float *q, const bb_kv *kv, const bb_attention *a) {
    double *p = bb_ref_scratch(dev, (size_t)a->Tk), scale = 1.0 / sqrt((double)a->D);
    if (!p) return;
    for (int64_t i = 0; i < a->H * a->Tq; i++) {
        int64_t h = i / a->Tq, t = i % a->Tq, hk = h / (a->H / a->Hk), seen = t + 1 + (a->Tk - a->Tq);
        double max = -INFINITY, sum = 0;
        for (int64_t j = 0; j < seen; j++) {
            double dot = 0;
            for (int64_t d = 0; d < a->D; d++)
                dot += (double)q[t * a->q_stride + h * a->D + d] * value_at(kv->k, kv->k_scale, kv, hk, j, d, a);
            p[j] = scale * dot;
            max = fmax(max, p[j]);
        }
        for (int64_t j = 0; j < seen; j++) sum += p[j] = exp(p[j] - max);
        for (int64_t d = 0; d < a->D; d++) {
            double weighted = 0;
            for (int64_t j = 0; j < seen; j++) weighted += p[j] * value_at(kv->v, kv->v_scale, kv, hk, j, d, a);
            o[t * a->o_stride + h * a->D + d] = (float)(weighted / sum);
        }
    }
}
