// SPDX-License-Identifier: MIT
#include <math.h>

#include "ops/ref/ref.h"

void bb_ref_embedding_forward(bb_device *dev, float *x, const uint8_t *idx, const float *e, int64_t M, int64_t V, int64_t C) {
    (void)dev;
    (void)V;
    for (int64_t m = 0; m < M; m++)
        for (int64_t c = 0; c < C; c++) x[m * C + c] = e[idx[m] * C + c];
}

void bb_ref_embedding_backward(bb_device *dev, float *de, const uint8_t *idx, const float *dx, int64_t M, int64_t V,
                               int64_t C) {
    (void)dev;
    for (int64_t v = 0; v < V; v++)
        for (int64_t c = 0; c < C; c++) {
            double sum = (double)de[v * C + c];
            for (int64_t m = 0; m < M; m++)
                if (idx[m] == v) sum += (double)dx[m * C + c];
            de[v * C + c] = (float)sum;
        }
}

static bb_bf16 row_scale(const float *values, int64_t C) {
    float max = 0;
    for (int64_t c = 0; c < C; c++) max = fmaxf(max, fabsf(values[c]));
    return bb_bf16_from_f32(max / 127);
}

static float code_of(float value, float scale) { return scale > 0 ? fminf(fmaxf(rintf(value / scale), -127), 127) : 0; }

void bb_ref_ngram_forward(bb_device *dev, float *x, const bb_ngram_table *t, const int32_t *index, int64_t M, int64_t K) {
    (void)dev;
    for (int64_t m = 0; m < M; m++)
        for (int64_t k = 0; k < K; k++) {
            int64_t row = index[m * K + k];
            if (row < 0) continue;
            const float *values = t->values ? t->values + row * t->C : NULL;
            float scale = bb_f32_from_bf16(values ? row_scale(values, t->C) : t->scales[row]);
            for (int64_t c = 0; c < t->C; c++) {
                float code = values ? code_of(values[c], scale) : (float)t->codes[row * t->C + c];
                x[m * t->C + c] += scale * code;
            }
        }
}

void bb_ref_ngram_backward(bb_device *dev, float *d_table, const int32_t *index, const float *dx, int64_t M, int64_t K,
                           int64_t C) {
    (void)dev;
    for (int64_t i = 0; i < M * K; i++)
        for (int64_t c = 0; c < C && index[i] >= 0; c++) d_table[index[i] * C + c] += dx[i / K * C + c];
}

void bb_ref_ngram_quant(bb_device *dev, const bb_ngram_table *t, const float *values, int64_t first, int64_t rows) {
    (void)dev;
    for (int64_t r = 0; r < rows; r++) {
        t->scales[first + r] = row_scale(values + r * t->C, t->C);
        float scale = bb_f32_from_bf16(t->scales[first + r]);
        for (int64_t c = 0; c < t->C; c++) t->codes[(first + r) * t->C + c] = (int8_t)code_of(values[r * t->C + c], scale);
    }
}
