// SPDX-License-Identifier: MIT
/* Ternary matrices, stored as the codes that ternary_load takes. */
#include <math.h>

#include "ops/ref/ref.h"

static int64_t row_bytes(const bb_ternary *t) { return (t->k + 3) / 4; }

size_t bb_ref_ternary_bytes(bb_device *dev, const bb_ternary *t) {
    (void)dev;
    return (size_t)(t->n * row_bytes(t));
}

bool bb_ref_ternary_dense(bb_device *dev) {
    (void)dev;
    return false;
}

int8_t bb_ref_ternary_at(const bb_ternary *t, int64_t n, int64_t k) {
    return (int8_t)((((const uint8_t *)t->data)[n * row_bytes(t) + k / 4] >> k % 4 * 2 & 3) - 1);
}

static void put(const bb_ternary *t, int64_t n, int64_t k, int8_t q) {
    uint8_t *byte = (uint8_t *)t->data + n * row_bytes(t) + k / 4;
    *byte = (uint8_t)((*byte & ~(3 << k % 4 * 2)) | (q + 1) << k % 4 * 2);
}

float bb_ref_ternary_scale(const bb_ternary *t, int64_t n) {
    int i = 0;
    while (n >= t->segment_end[i]) i++;
    return t->scale[i];
}

static double tile_sum(const float *w, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n && i < BB_NORM_TILE; i++) sum += fabs((double)w[i]);
    return sum;
}

void bb_ref_sum_abs(bb_device *dev, double *sums, const float *w, int64_t n) {
    (void)dev;
    for (int64_t i = 0; i < n; i += BB_NORM_TILE) sums[i / BB_NORM_TILE] = tile_sum(w + i, n - i);
}

void bb_ref_ternary_quant_rows(bb_device *dev, const bb_ternary *t, const float *w, int64_t first, int64_t rows) {
    (void)dev;
    for (int64_t n = first; n < first + rows; n++)
        for (int64_t k = 0; k < t->k; k++)
            put(t, n, k, (int8_t)rintf(fminf(fmaxf(w[n * t->k + k] / t->scale[0], -1.0f), 1.0f)));
}

void bb_ref_ternary_quant(bb_device *dev, const bb_ternary *t, const float *w) {
    for (int i = 0; i < t->segments; i++) {
        bb_ternary segment = bb_ternary_segment(dev, t, i);
        double sum = 0;
        int64_t n = segment.n * t->k;
        for (int64_t j = 0; j < n; j += BB_NORM_TILE) sum += tile_sum(w + j, n - j);
        *segment.scale = bb_absmean_scale(sum, n);
        bb_ref_ternary_quant_rows(dev, &segment, w, 0, segment.n);
        w += n;
    }
}

void bb_ref_ternary_unpack(bb_device *dev, int8_t *q, const bb_ternary *t) {
    (void)dev;
    for (int64_t n = 0; n < t->n; n++)
        for (int64_t k = 0; k < t->k; k++) q[n * t->k + k] = bb_ref_ternary_at(t, n, k);
}

void bb_ref_ternary_load(bb_device *dev, const bb_ternary *t, const uint8_t *codes) {
    memcpy(t->data, codes, bb_ref_ternary_bytes(dev, t));
}

void bb_ref_ste_clip(bb_device *dev, float *dw, const float *w, const bb_ternary *t) {
    (void)dev;
    for (int64_t n = 0; n < t->n; n++) {
        float g = bb_ref_ternary_scale(t, n);
        for (int64_t i = n * t->k; i < (n + 1) * t->k; i++)
            if (fabsf(w[i] / g) > 1.0f) dw[i] = 0.0f;
    }
}
