/* The cache of keys and values, and attention to it.
 * SPDX-License-Identifier: MIT */
#include <math.h>

#include "ops/ref/ref.h"

/* Row `position` of head h: its codes' place among those of all rows, with one scale each. */
static int64_t row_of(const bb_kv *kv, int64_t h, int64_t position) { return h * kv->capacity + position; }

static void append(void *data, float *scale, const bb_kv *kv, int64_t position, const float *x, int64_t Hk, int64_t D) {
    int64_t width = bb_kv_width(D);
    if (kv->dtype == BB_F32) {
        memcpy((float *)data + position * Hk * D, x, (size_t)(Hk * D) * sizeof *x);
        return;
    }
    for (int64_t h = 0; h < Hk; h++) {
        int64_t row = row_of(kv, h, position);
        int8_t *codes = (int8_t *)data + row * width;
        bb_ref_store_row((bb_rows){.data = codes, .scale = scale + row, .dtype = BB_I8}, 0, x + h * D, D);
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
static double value_at(const void *data, const float *scale, const bb_kv *kv, int64_t h, int64_t position, int64_t d,
                       const bb_attention *a) {
    if (kv->dtype == BB_F32) return (double)((const float *)data)[(position * a->Hk + h) * a->D + d];
    int64_t row = row_of(kv, h, position);
    return (double)scale[row] * ((const int8_t *)data)[row * bb_kv_width(a->D) + d];
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
