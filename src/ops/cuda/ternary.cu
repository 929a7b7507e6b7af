// SPDX-License-Identifier: MIT
/* Ternary matrices: quantizing weights, loading codes, reading values back. */
#include "ops/cuda/ternary.h"

#include "ops/cuda/device.h"
#include "ops/cuda/entries.h"

enum { THREADS = 256 };

size_t bb_cuda_ternary_bytes(bb_device *dev, const bb_ternary *t) {
    (void)dev;
    return (size_t)(t->n * bb_cuda_row_words(t->k)) * sizeof(uint32_t);
}

/* The layout is already as dense as possible. */
bool bb_cuda_ternary_dense(bb_device *dev) {
    (void)dev;
    return false;
}

/* Computes *scale from the sums of a segment's tiles. One thread adds them in order, so the scale has the same bits for any
 * number of threads. */
static __global__ void absmean(float *scale, const double *__restrict__ sums, int64_t tiles, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < tiles; i++) sum += sums[i];
    *scale = bb_absmean_scale(sum, n);
}

/* One thread per word. Quantizes `rows` rows, starting at w and data. */
static __global__ void __launch_bounds__(THREADS) quantize(uint32_t *__restrict__ data, const float *__restrict__ w,
                                                           const float *__restrict__ scale, int64_t rows, int64_t K) {
    int64_t words = bb_cuda_row_words(K);
    float g = *scale;
    for (BB_CUDA_GRID_STRIDE(i, rows * words)) {
        int64_t first = i % words * BB_CUDA_WORD_CODES;
        const float *row = w + i / words * K;
        uint32_t word = 0;
        for (int c = 0; c < BB_CUDA_WORD_CODES; c++) {
            int q = first + c < K ? (int)rintf(fminf(fmaxf(row[first + c] / g, -1.0f), 1.0f)) : 0;
            word |= (uint32_t)(q + 1) << bb_cuda_code_shift(c);
        }
        data[i] = word;
    }
}

void bb_cuda_ternary_quant_rows(bb_device *dev, const bb_ternary *t, const float *w, int64_t first, int64_t rows) {
    bb_cuda_enter(dev);
    int64_t words = bb_cuda_row_words(t->k);
    BB_CUDA_LAUNCH(dev, quantize, bb_cuda_blocks(dev, rows * words, THREADS), THREADS, 0, (uint32_t *)t->data + first * words,
                   w + first * t->k, t->scale, rows, t->k);
}

void bb_cuda_ternary_quant(bb_device *dev, const bb_ternary *t, const float *w) {
    bb_cuda_enter(dev);
    for (int i = 0; i < t->segments; i++) {
        bb_ternary segment = bb_ternary_segment(dev, t, i);
        int64_t n = segment.n * t->k, tiles = bb_ceil_div(n, BB_NORM_TILE);
        double *sums = (double *)bb_cuda_scratch(dev, (size_t)tiles * sizeof *sums);
        if (!sums) return;
        bb_cuda_tile_sums(dev, sums, w, n, false);
        BB_CUDA_LAUNCH(dev, absmean, 1, 1, 0, segment.scale, sums, tiles, n);
        bb_cuda_ternary_quant_rows(dev, &segment, w, 0, segment.n);
        w += n;
    }
}

static __global__ void __launch_bounds__(THREADS)
    load(uint32_t *__restrict__ data, const uint8_t *__restrict__ codes, int64_t rows, int64_t K) {
    int64_t words = bb_cuda_row_words(K), row_bytes = (K + 3) / 4;
    for (BB_CUDA_GRID_STRIDE(i, rows * words)) {
        int64_t first = i % words * BB_CUDA_WORD_CODES;
        const uint8_t *row = codes + i / words * row_bytes;
        uint32_t word = 0;
        for (int c = 0; c < BB_CUDA_WORD_CODES; c++) {
            int64_t k = first + c;
            uint32_t code = k < K ? row[k / 4] >> (k % 4 * 2) & 3u : 1u;
            word |= code << bb_cuda_code_shift(c);
        }
        data[i] = word;
    }
}

void bb_cuda_ternary_load(bb_device *dev, const bb_ternary *t, const uint8_t *codes) {
    bb_cuda_enter(dev);
    BB_CUDA_LAUNCH(dev, load, bb_cuda_blocks(dev, t->n * bb_cuda_row_words(t->k), THREADS), THREADS, 0, (uint32_t *)t->data,
                   codes, t->n, t->k);
}

static __global__ void __launch_bounds__(THREADS)
    unpack(int8_t *__restrict__ q, const uint32_t *__restrict__ data, int64_t n, int64_t K) {
    int64_t words = bb_cuda_row_words(K);
    for (BB_CUDA_GRID_STRIDE(i, n)) {
        int64_t k = i % K;
        uint32_t word = data[i / K * words + k / BB_CUDA_WORD_CODES];
        q[i] = (int8_t)bb_cuda_value(word, (int)(k % BB_CUDA_WORD_CODES));
    }
}

void bb_cuda_ternary_unpack(bb_device *dev, int8_t *q, const bb_ternary *t) {
    bb_cuda_enter(dev);
    BB_CUDA_LAUNCH(dev, unpack, bb_cuda_blocks(dev, t->n * t->k, THREADS), THREADS, 0, q, (const uint32_t *)t->data,
                   t->n * t->k, t->k);
}

static __global__ void __launch_bounds__(THREADS)
    clip(float *__restrict__ dw, const float *__restrict__ w, bb_cuda_scales scales, int64_t n, int64_t K) {
    for (BB_CUDA_GRID_STRIDE(i, n))
        if (fabsf(w[i] / scales.at(i / K)) > 1.0f) dw[i] = 0.0f;
}

void bb_cuda_ste_clip(bb_device *dev, float *dw, const float *w, const bb_ternary *t) {
    bb_cuda_enter(dev);
    BB_CUDA_LAUNCH(dev, clip, bb_cuda_blocks(dev, t->n * t->k, THREADS), THREADS, 0, dw, w, bb_cuda_scales_of(t), t->n * t->k,
                   t->k);
}

void bb_cuda_sum_abs(bb_device *dev, double *sums, const float *w, int64_t n) {
    bb_cuda_enter(dev);
    bb_cuda_tile_sums(dev, sums, w, n, false);
}
