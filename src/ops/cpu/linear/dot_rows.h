// SPDX-License-Identifier: MIT
/* Preparation of int8 operands (dot.h) as plain loops, which the compiler vectorizes for each unit that includes this. */
#ifndef BB_OPS_CPU_DOT_ROWS_H
#define BB_OPS_CPU_DOT_ROWS_H

#include "core/math.h"
#include "ops/cpu/linear/dot.h"
#include "ops/cpu/linear/linear_kernels.h"
#include "ops/cpu/vector/simd.h"

static inline void dot_row_sums(int32_t *sums, const int8_t *a, int64_t rows, int64_t K) {
    for (int64_t r = 0; r < rows; r++, a += K) {
        int32_t sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t k = 0; k < K; k++) sum += a[k];
        sums[r] = sum;
    }
}

static inline float dot_absmax(const void *x, bb_dtype dtype, int64_t n) {
    if (dtype == BB_F32) return bb_simd_absmax(x, n);
    const bb_bf16 *half = x;
    uint16_t max_bits = 0; /* magnitudes compare as integers, with NaN largest */
#pragma omp simd reduction(max : max_bits)
    for (int64_t i = 0; i < n; i++) {
        uint16_t bits = half[i] & 0x7fffu;
        max_bits = bits > max_bits ? bits : max_bits;
    }
    return bb_f32_from_bf16(max_bits);
}

static inline int32_t dot_quantize(int8_t *q, const void *x, bb_dtype dtype, float scale, int64_t n) {
    int32_t sum = 0;
    if (dtype == BB_F32) {
        const float *whole = x;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++) {
            q[i] = (int8_t)bb_simd_round(whole[i] * scale);
            sum += q[i];
        }
        return sum;
    }
    const bb_bf16 *half = x;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        q[i] = (int8_t)bb_simd_round(bb_f32_from_bf16(half[i]) * scale);
        sum += q[i];
    }
    return sum;
}

/* out: (BB_DOT_LEFT_ROWS), columns of token t, times its scale; zeros past the last column */
static inline void dot_scaled_row(float *out, const bb_dot_tokens *x, int64_t t) {
    float s = x->s[t];
    if (x->dtype == BB_F32) { /* NOLINT(bugprone-branch-clone): the analyzer does not see through the pragma */
        const float *row = (const float *)x->x + t * x->stride;
#pragma omp simd
        for (int64_t i = 0; i < x->columns; i++) out[i] = row[i] * s;
    } else {
        const bb_bf16 *row = (const bb_bf16 *)x->x + t * x->stride;
#pragma omp simd
        for (int64_t i = 0; i < x->columns; i++) out[i] = bb_f32_from_bf16(row[i]) * s;
    }
}

/* a's rows and scales, max/limit of each column of x, and the inverse of each, 0 where that would be out of range. */
static inline void dot_column_scales(bb_dot_left *a, float inverse[BB_DOT_LEFT_ROWS], const bb_dot_tokens *x, float limit) {
    enum { ROWS = BB_DOT_LEFT_ROWS, PREFETCH_TOKENS = 32 };
    const int64_t element = (int64_t)bb_dtype_bytes(x->dtype);
    float row[ROWS] = {0};
    uint32_t max_bits[ROWS] = {0}; /* bit patterns: magnitudes compare as integers, with NaN largest */
    for (int64_t t = 0; t < x->tokens; t++) {
        if (t + PREFETCH_TOKENS < x->tokens) /* rows are too far apart for hardware prefetching */
            BB_SIMD_PREFETCH((const uint8_t *)x->x + (t + PREFETCH_TOKENS) * x->stride * element, x->columns * element, 0);
        dot_scaled_row(row, x, t);
#pragma omp simd
        for (int i = 0; i < ROWS; i++) {
            uint32_t bits = bb_bits_of_f32(row[i]) & 0x7fffffffu;
            max_bits[i] = bits > max_bits[i] ? bits : max_bits[i];
        }
    }
    a->rows = x->columns;
    for (int i = 0; i < ROWS; i++) {
        a->scales[i] = bb_f32_from_bits(max_bits[i]) * (1.0f / limit);
        if (a->scales[i] < BB_MIN_GRADIENT_SCALE) a->scales[i] = 0;
        inverse[i] = a->scales[i] == 0 ? 0 : 1 / a->scales[i];
    }
}

static inline void dot_pack_left(bb_dot_left *a, const bb_dot_tokens *x) {
    enum { ROWS = BB_DOT_LEFT_ROWS };
    float row[4][ROWS] = {{0}}, inverse[ROWS];
    dot_column_scales(a, inverse, x, INT8_MAX);
    memset(a->sums, 0, ROWS * sizeof *a->sums);
    uint32_t *left = a->left;
    for (int64_t t = 0; t < x->tokens; t += 4, left += ROWS) {
        for (int64_t i = 0; i < 4; i++)
            if (t + i < x->tokens)
                dot_scaled_row(row[i], x, t + i);
            else
                memset(row[i], 0, sizeof row[i]);
#pragma omp simd
        for (int i = 0; i < ROWS; i++) {
            /* of a NaN some code, whose sums do not overflow: the scale is NaN as well */
            int8_t q0 = (int8_t)bb_simd_round(row[0][i] * inverse[i]), q1 = (int8_t)bb_simd_round(row[1][i] * inverse[i]),
                   q2 = (int8_t)bb_simd_round(row[2][i] * inverse[i]), q3 = (int8_t)bb_simd_round(row[3][i] * inverse[i]);
            a->sums[i] += q0 + q1 + q2 + q3;
            left[i] =
                (uint32_t)(uint8_t)q0 | (uint32_t)(uint8_t)q1 << 8 | (uint32_t)(uint8_t)q2 << 16 | (uint32_t)(uint8_t)q3 << 24;
        }
    }
}

static inline void dot_pack_codes(uint8_t *panel, const int8_t *x, int64_t x_stride, int64_t tokens, int64_t columns) {
    uint8_t rows[4][BB_DOT_COLUMNS] = {{0}};
    for (int64_t t = 0; t < tokens; t += 4, panel += BB_DOT_K_STEP_BYTES) {
        for (int64_t i = 0; i < 4; i++)
            if (t + i < tokens)
                memcpy(rows[i], x + (t + i) * x_stride, (size_t)columns);
            else
                memset(rows[i], 0, sizeof rows[i]);
        uint32_t words[BB_DOT_COLUMNS];
#pragma omp simd
        for (int c = 0; c < BB_DOT_COLUMNS; c++)
            words[c] = 0x80808080u ^ ((uint32_t)rows[0][c] | (uint32_t)rows[1][c] << 8 | (uint32_t)rows[2][c] << 16 |
                                      (uint32_t)rows[3][c] << 24);
        memcpy(panel, words, sizeof words);
    }
}

#endif
