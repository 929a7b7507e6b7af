// SPDX-License-Identifier: MIT
/* n-gram embeddings: rows that are looked up, their gradient, and their update. Of a large table few rows have a gradient in a step; to
 * find them costs one read of it. */
#include "core/math.h"
#include "ops/cpu/device/entries.h"
#include "ops/cpu/vector/simd.h"

enum { TILE_ROWS = 16, TILE_COLUMNS = 64 };

BB_SIMD_INLINE float row_scale(const float *values, int64_t C) {
    return bb_f32_from_bf16(bb_bf16_from_f32(bb_simd_absmax(values, C) / 127));
}

/* s q is exact, so that fused and separate sums are the same. */
BB_SIMD_INLINE void add_values_body(float *x, const float *values, int64_t C) {
    float scale = row_scale(values, C);
    if (!(scale > 0)) return;
#pragma omp simd
    for (int64_t c = 0; c < C; c++) {
        int32_t q = bb_simd_round(values[c] / scale);
        q = q > 127 ? 127 : q;
        x[c] += scale * (float)(q < -127 ? -127 : q);
    }
}
BB_SIMD_VARIANTS(add_values, (float *x, const float *values, int64_t C), (x, values, C))

BB_SIMD_INLINE void add_codes_body(float *x, const int8_t *codes, float scale, int64_t C) {
#pragma omp simd
    for (int64_t c = 0; c < C; c++) x[c] += scale * (float)codes[c];
}
BB_SIMD_VARIANTS(add_codes, (float *x, const int8_t *codes, float scale, int64_t C), (x, codes, scale, C))

void bb_cpu_ngram_forward(bb_device *dev, float *x, const bb_ngram_table *t, const int32_t *index, int64_t M, int64_t K) {
    bb_simd simd = bb_cpu_of(dev)->kernels.simd;
    add_values_kernel *values_kernel = add_values_for(simd);
    add_codes_kernel *codes_kernel = add_codes_for(simd);
    int64_t C = t->C;
    BB_SIMD_FOR(dev, M * K * C, m, M, 1, {
        for (int64_t k = 0; k < K; k++) {
            int64_t row = index[m * K + k];
            if (row < 0) continue;
            if (t->values)
                values_kernel(x + m * C, t->values + row * C, C);
            else
                codes_kernel(x + m * C, t->codes + row * C, bb_f32_from_bf16(t->scales[row]), C);
        }
    })
}

/* Split by columns, as the embedding's. */
void bb_cpu_ngram_backward(bb_device *dev, float *d_table, const int32_t *index, const float *dx, int64_t M, int64_t K,
                           int64_t C) {
#pragma omp parallel for num_threads(dev->threads) if (M * K * C >= BB_SIMD_SERIAL)
    for (int64_t c0 = 0; c0 < C; c0 += TILE_COLUMNS) {
        int64_t n = C - c0 < TILE_COLUMNS ? C - c0 : TILE_COLUMNS;
        for (int64_t i = 0; i < M * K; i++) {
            if (index[i] < 0) continue;
            float *to = d_table + index[i] * C + c0;
            const float *from = dx + i / K * C + c0;
#pragma omp simd
            for (int64_t c = 0; c < n; c++) to[c] += from[c];
        }
    }
}

BB_SIMD_INLINE void quantize_rows_body(const bb_ngram_table *t, const float *values, int64_t first, int64_t begin,
                                       int64_t end) {
    for (int64_t r = begin; r < end; r++) {
        const float *row = values + r * t->C;
        float scale = row_scale(row, t->C);
        t->scales[first + r] = bb_bf16_from_f32(scale);
        if (scale > 0)
            bb_simd_quantize_with_scale(t->codes + (first + r) * t->C, row, scale, t->C);
        else
            memset(t->codes + (first + r) * t->C, 0, (size_t)t->C);
    }
}
BB_SIMD_VARIANTS(quantize_rows, (const bb_ngram_table *t, const float *values, int64_t first, int64_t begin, int64_t end),
                 (t, values, first, begin, end))

void bb_cpu_ngram_quant(bb_device *dev, const bb_ngram_table *t, const float *values, int64_t first, int64_t rows) {
    quantize_rows_kernel *kernel = quantize_rows_for(bb_cpu_of(dev)->kernels.simd);
    BB_SIMD_FOR(dev, rows * t->C, r, rows, TILE_ROWS, kernel(t, values, first, r, bb_min(rows, r + TILE_ROWS)))
}

typedef struct adagrad_constants {
    float lr, scale, eps;
} adagrad_constants;

BB_SIMD_INLINE void adagrad_rows_body(float *p, const float *g, float *v, int64_t rows, int64_t C, const adagrad_constants *k) {
    for (int64_t r = 0; r < rows; r++, p += C, g += C) {
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < C; c++) sum += g[c] * g[c];
        if (!(sum > 0)) continue;
        v[r] += sum * k->scale * k->scale / (float)C;
        float factor = k->lr * k->scale / (sqrtf(v[r]) + k->eps);
#pragma omp simd
        for (int64_t c = 0; c < C; c++) p[c] -= factor * g[c];
    }
}
BB_SIMD_VARIANTS(adagrad_rows, (float *p, const float *g, float *v, int64_t rows, int64_t C, const adagrad_constants *k),
                 (p, g, v, rows, C, k))

void bb_cpu_row_adagrad_step(bb_device *dev, float *p, const float *g, float *v, int64_t rows, int64_t C,
                             const bb_row_adagrad *h) {
    adagrad_rows_kernel *kernel = adagrad_rows_for(bb_cpu_of(dev)->kernels.simd);
    adagrad_constants k = {(float)h->lr, (float)h->grad_scale, (float)h->eps};
#pragma omp parallel for num_threads(dev->threads) if (rows * C >= BB_SIMD_SERIAL)
    for (int64_t r = 0; r < rows; r += TILE_ROWS) kernel(p + r * C, g + r * C, v + r, bb_min(rows - r, TILE_ROWS), C, &k);
}
