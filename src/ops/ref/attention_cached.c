// SPDX-License-Identifier: MIT
/* The KV cache and attention over it. A layer holds k and v, (capacity, Hk, D): f32, or int8 codes followed by the scales of k
 * and of v, f32 (capacity, Hk). */
#include <math.h>

#include "core/arena.h"
#include "ops/ref/ref.h"

/* The keys or the values of one layer. */
typedef struct cached_matrix {
    float *values; /* F32; otherwise */
    int8_t *codes; /* INT8 and INT6 codes with scales */
    float *scale;
} cached_matrix;

static cached_matrix matrix_layout(bb_arena *arena, const bb_kv *kv) {
    size_t rows = (size_t)(kv->capacity * kv->Hk), count = rows * (size_t)kv->D;
    cached_matrix m = {0};
    if (kv->type == BB_KV_F32) {
        m.values = bb_arena_alloc(arena, count * sizeof *m.values);
    } else {
        m.codes = bb_arena_alloc(arena, count);
        m.scale = bb_arena_alloc(arena, rows * sizeof *m.scale);
    }
    return m;
}

size_t bb_ref_kv_bytes(bb_device *dev, const bb_kv *kv) {
    bb_arena measure = {0};
    (void)dev;
    matrix_layout(&measure, kv);
    return 2 * measure.used * (size_t)kv->layers;
}

static cached_matrix matrix_of(const bb_kv *kv, int layer, bool values) {
    bb_arena arena = {0};
    matrix_layout(&arena, kv);
    arena.base = kv->data;
    arena.used *= 2 * (size_t)layer + values;
    return matrix_layout(&arena, kv);
}

/* x: (Hk, D), one position */
static void append(cached_matrix m, const bb_kv *kv, int64_t position, const float *x) {
    float limit = kv->type == BB_KV_INT8 ? 127.0f : 31.0f;
    for (int64_t h = 0; h < kv->Hk; h++) {
        int64_t row = position * kv->Hk + h;
        const float *src = x + h * kv->D;
        if (kv->type == BB_KV_F32) {
            memcpy(m.values + row * kv->D, src, (size_t)kv->D * sizeof *src);
            continue;
        }
        m.scale[row] = bb_ref_scale(src, kv->D, limit);
        for (int64_t d = 0; d < kv->D; d++) m.codes[row * kv->D + d] = bb_ref_code(src[d], m.scale[row], limit);
    }
}

void bb_ref_kv_append(bb_device *dev, const bb_kv_batch *batch, const float *k, const float *v) {
    (void)dev;
    for (int64_t b = 0, row = 0; b < batch->B; b++) {
        const bb_kv_sequence *s = &batch->sequences[b];
        cached_matrix keys = matrix_of(s->kv, batch->layer, false), values = matrix_of(s->kv, batch->layer, true);
        for (int64_t t = 0; t < s->rows; t++, row++) {
            append(keys, s->kv, s->length + t, k + row * batch->kv_stride);
            append(values, s->kv, s->length + t, v + row * batch->kv_stride);
        }
    }
}

void bb_ref_kv_copy(bb_device *dev, const bb_kv *to, const bb_kv *from, int64_t n) {
    size_t rows = (size_t)(n * from->Hk), count = rows * (size_t)from->D;
    (void)dev;
    for (int i = 0; i < 2 * from->layers; i++) {
        cached_matrix a = matrix_of(to, i / 2, i % 2), b = matrix_of(from, i / 2, i % 2);
        if (a.values && b.values) memcpy(a.values, b.values, count * sizeof *a.values);
        if (a.codes && b.codes) memcpy(a.codes, b.codes, count);
        if (a.scale && b.scale) memcpy(a.scale, b.scale, rows * sizeof *a.scale);
    }
}

/* Element i of (capacity, Hk, D), dequantized. */
static double value_at(cached_matrix m, const bb_kv *kv, int64_t i) {
    return kv->type == BB_KV_F32 ? (double)m.values[i] : (double)m.scale[i / kv->D] * m.codes[i];
}

void bb_ref_kv_unpack(bb_device *dev, float *k, float *v, const bb_kv *kv, int layer, int64_t first, int64_t n) {
    (void)dev;
    cached_matrix keys = matrix_of(kv, layer, false), values = matrix_of(kv, layer, true);
    int64_t width = kv->Hk * kv->D;
    for (int64_t i = 0; i < n * width; i++) {
        k[i] = (float)value_at(keys, kv, first * width + i);
        v[i] = (float)value_at(values, kv, first * width + i);
    }
}

/* Attention of one query over the first `seen` positions of head hk. p: scratch (seen) */
static void attend(float *o, const float *q, const bb_kv_sequence *s, int layer, int64_t hk, int64_t seen, double *p) {
    const bb_kv *kv = s->kv;
    cached_matrix keys = matrix_of(kv, layer, false), values = matrix_of(kv, layer, true);
    int64_t D = kv->D;
    double scale = 1.0 / sqrt((double)D), max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < seen; j++) {
        double dot = 0;
        for (int64_t d = 0; d < D; d++) dot += (double)q[d] * value_at(keys, kv, (j * kv->Hk + hk) * D + d);
        p[j] = scale * dot;
        max = fmax(max, p[j]);
    }
    for (int64_t j = 0; j < seen; j++) sum += p[j] = exp(p[j] - max);
    for (int64_t d = 0; d < D; d++) {
        double weighted = 0;
        for (int64_t j = 0; j < seen; j++) weighted += p[j] * value_at(values, kv, (j * kv->Hk + hk) * D + d);
        o[d] = (float)(weighted / sum);
    }
}

void bb_ref_attention_cached(bb_device *dev, float *o, const float *q, const bb_kv_batch *batch) {
    for (int64_t b = 0, row = 0; b < batch->B; b++) {
        const bb_kv_sequence *s = &batch->sequences[b];
        int64_t D = s->kv->D, group = batch->H / s->kv->Hk;
        double *p = bb_ref_scratch(dev, (size_t)(s->length + s->rows));
        if (!p) return;
        for (int64_t t = 0; t < s->rows; t++, row++)
            for (int64_t h = 0; h < batch->H; h++)
                attend(o + row * batch->o_stride + h * D, q + row * batch->q_stride + h * D, s, batch->layer, h / group,
                       s->length + t + 1, p);
    }
}
