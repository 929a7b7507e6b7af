// SPDX-License-Identifier: MIT
/* The cache of keys and values, and attention to it. */
#include <math.h>

#include "ops/ref/ref.h"

/* Where the codes of a run begin, and the scale of a row of it. data, scales: the keys', or the values'. */
static uint8_t *run_of(float **scale, void *data, float *scales, const bb_kv *kv, int64_t h, int64_t position) {
    int64_t begin = bb_kv_run_begin(kv, position);
    *scale = (float *)(void *)((char *)scales + begin) + bb_kv_row(kv, h, position);
    return (uint8_t *)data + begin;
}

enum { SIX_BITS = 63, BIAS = 32 };

static uint32_t cell_of(const uint8_t *first) { return first[0] | (uint32_t)first[16] << 8 | (uint32_t)first[32] << 16; }

static int code_at(const uint8_t *run, const bb_kv *kv, bool values, int64_t row, int64_t d, int64_t D) {
    if (kv->type == BB_KV_INT8) return ((const int8_t *)run)[row * bb_kv_width(D) + d];
    int place;
    int64_t cell = bb_kv_cell(values, row, d, D, &place);
    return (int)(cell_of(run + cell) >> 6 * place & SIX_BITS) - BIAS;
}

static void set_code(uint8_t *run, const bb_kv *kv, bool values, int64_t row, int64_t d, int64_t D, int code) {
    if (kv->type == BB_KV_INT8) {
        ((int8_t *)run)[row * bb_kv_width(D) + d] = (int8_t)code;
        return;
    }
    int place;
    uint8_t *first = run + bb_kv_cell(values, row, d, D, &place);
    uint32_t mask = (uint32_t)SIX_BITS << 6 * place, bits = (uint32_t)(code + BIAS) << 6 * place & mask;
    uint32_t cell = (cell_of(first) & ~mask) | bits;
    for (int i = 0; i < 3; i++) first[16 * i] = (uint8_t)(cell >> 8 * i);
}

static void append(void *data, float *scales, const bb_kv *kv, bool values, int64_t position, const float *x, int64_t Hk,
                   int64_t D) {
    if (kv->type == BB_KV_F32) {
        memcpy((float *)data + position * Hk * D, x, (size_t)(Hk * D) * sizeof *x);
        return;
    }
    int64_t width = kv->type == BB_KV_INT8 ? bb_kv_width(D) : (D + 63) / 64 * 64;
    float limit = kv->type == BB_KV_INT8 ? 127.0f : 31.0f;
    for (int64_t h = 0; h < Hk; h++) {
        float *scale;
        uint8_t *run = run_of(&scale, data, scales, kv, h, position);
        *scale = bb_ref_scale(x + h * D, D, limit);
        for (int64_t d = 0; d < width; d++)
            set_code(run, kv, values, bb_kv_row(kv, h, position), d, D, d < D ? bb_ref_code(x[h * D + d], *scale, limit) : 0);
    }
}

void bb_ref_kv_append(bb_device *dev, const bb_kv *kv, int64_t first, const float *k, const float *v, int64_t stride, int64_t n,
                      int64_t Hk, int64_t D) {
    (void)dev;
    for (int64_t t = 0; t < n; t++) {
        append(kv->k, kv->k_scale, kv, false, first + t, k + t * stride, Hk, D);
        append(kv->v, kv->v_scale, kv, true, first + t, v + t * stride, Hk, D);
    }
}

/* Element d of a cached row. */
static double value_at(const bb_kv *kv, bool values, int64_t h, int64_t position, int64_t d, const bb_attention *a) {
    void *data = values ? kv->v : kv->k;
    if (kv->type == BB_KV_F32) return (double)((const float *)data)[(position * a->Hk + h) * a->D + d];
    float *scale;
    const uint8_t *run = run_of(&scale, data, values ? kv->v_scale : kv->k_scale, kv, h, position);
    return (double)*scale * code_at(run, kv, values, bb_kv_row(kv, h, position), d, a->D);
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
                dot += (double)q[t * a->q_stride + h * a->D + d] * value_at(kv, false, hk, j, d, a);
            p[j] = scale * dot;
            max = fmax(max, p[j]);
        }
        for (int64_t j = 0; j < seen; j++) sum += p[j] = exp(p[j] - max);
        for (int64_t d = 0; d < a->D; d++) {
            double weighted = 0;
            for (int64_t j = 0; j < seen; j++) weighted += p[j] * value_at(kv, true, hk, j, d, a);
            o[t * a->o_stride + h * a->D + d] = (float)(weighted / sum);
        }
    }
}
