/* A ternary matrix is stored as the codes that ternary_load takes. SPDX-License-Identifier: MIT */
#include <math.h>

#include "ops/ref/ref.h"

static int64_t row_bytes(const bb_ternary *t) { return (t->k + 3) / 4; }

size_t bb_ref_ternary_bytes(bb_device *dev, const bb_ternary *t) {
    (void)dev;
    return (size_t)(t->n * row_bytes(t));
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

void bb_ref_ternary_quant(bb_device *dev, const bb_ternary *t, const float *w) {
    (void)dev;
    int64_t first = 0;
    for (int i = 0; i < t->segments; i++) {
        int64_t end = t->segment_end[i] * t->k;
        double sum = 0;
        for (int64_t j = first; j < end; j++) sum += fabs((double)w[j]);
        float g = (float)fmax(sum / (double)(end - first), 1e-8);
        for (int64_t j = first; j < end; j++) put(t, j / t->k, j % t->k, (int8_t)rintf(fminf(fmaxf(w[j] / g, -1.0f), 1.0f)));
        t->scale[i] = g;
        first = end;
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
