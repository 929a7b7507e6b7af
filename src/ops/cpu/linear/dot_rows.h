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

/* Four tokens from t on; those that are missing are zeros. */
typedef struct dot_tokens4 {
    const void *row[4];
    float s[4];
} dot_tokens4;

static inline dot_tokens4 dot_tokens_at(const bb_dot_tokens *x, int64_t t) {
    enum { PREFETCH_TOKENS = 32 };
    static const float zeros[BB_DOT_LEFT_ROWS];
    const int64_t element = (int64_t)bb_dtype_bytes(x->dtype), row_bytes = x->stride * element;
    dot_tokens4 four;
    for (int i = 0; i < 4; i++) {
        const uint8_t *row = (const uint8_t *)x->x + (t + i) * row_bytes;
        four.row[i] = t + i < x->tokens ? row : (const void *)zeros;
        four.s[i] = t + i < x->tokens ? x->s[t + i] : 0;
        if (t + i + PREFETCH_TOKENS < x->tokens) /* rows are too far apart for hardware prefetching */
            BB_SIMD_PREFETCH(row + PREFETCH_TOKENS * row_bytes, x->columns * element, 0);
    }
    return four;
}

/* dtype: a constant, so that each type has its own loop */
static inline __attribute__((always_inline)) float dot_scaled(const dot_tokens4 *x, bb_dtype dtype, int token, int64_t column) {
    if (dtype == BB_F32) return ((const float *)x->row[token])[column] * x->s[token];
    return bb_f32_from_bf16(((const bb_bf16 *)x->row[token])[column]) * x->s[token];
}

/* Bit patterns: magnitudes compare as integers, with NaN largest. */
static inline __attribute__((always_inline)) void dot_max_columns(uint32_t *max_bits, const bb_dot_tokens *x, bb_dtype dtype) {
    for (int64_t t = 0; t < x->tokens; t += 4) {
        const dot_tokens4 four = dot_tokens_at(x, t);
#pragma omp simd
        for (int64_t c = 0; c < x->columns; c++) {
            uint32_t m = max_bits[c];
            for (int i = 0; i < 4; i++) {
                uint32_t bits = bb_bits_of_f32(dot_scaled(&four, dtype, i, c)) & 0x7fffffffu;
                m = bits > m ? bits : m;
            }
            max_bits[c] = m;
        }
    }
}

/* a's rows and scales, max/limit of each column of x, and the inverse of each, 0 where that would be out of range. */
static inline void dot_column_scales(bb_dot_left *a, float inverse[BB_DOT_LEFT_ROWS], const bb_dot_tokens *x, float limit) {
    uint32_t max_bits[BB_DOT_LEFT_ROWS] = {0};
    if (x->dtype == BB_F32)
        dot_max_columns(max_bits, x, BB_F32);
    else
        dot_max_columns(max_bits, x, BB_BF16);
    a->rows = x->columns;
    for (int i = 0; i < BB_DOT_LEFT_ROWS; i++) {
        a->scales[i] = bb_f32_from_bits(max_bits[i]) * (1.0f / limit);
        if (a->scales[i] < BB_MIN_GRADIENT_SCALE) a->scales[i] = 0;
        inverse[i] = a->scales[i] == 0 ? 0 : 1 / a->scales[i];
    }
}

static inline __attribute__((always_inline)) void dot_pack_columns(bb_dot_left *a, const float *inverse, const bb_dot_tokens *x,
                                                                   bb_dtype dtype) {
    uint32_t *left = a->left;
    memset(a->sums, 0, BB_DOT_LEFT_ROWS * sizeof *a->sums);
    for (int64_t t = 0; t < x->tokens; t += 4, left += BB_DOT_LEFT_ROWS) {
        const dot_tokens4 four = dot_tokens_at(x, t);
        memset(left + x->columns, 0, (size_t)(BB_DOT_LEFT_ROWS - x->columns) * sizeof *left);
#pragma omp simd
        for (int64_t c = 0; c < x->columns; c++) {
            uint32_t word = 0;
            int32_t sum = 0;
            for (int i = 0; i < 4; i++) {
                /* of a NaN some code, whose sums do not overflow: the scale is NaN as well */
                int8_t q = (int8_t)bb_simd_round(dot_scaled(&four, dtype, i, c) * inverse[c]);
                sum += q;
                word |= (uint32_t)(uint8_t)q << (8 * i);
            }
            a->sums[c] += sum;
            left[c] = word;
        }
    }
}

static inline void dot_pack_left(bb_dot_left *a, const bb_dot_tokens *x) {
    float inverse[BB_DOT_LEFT_ROWS];
    dot_column_scales(a, inverse, x, INT8_MAX);
    if (x->dtype == BB_F32)
        dot_pack_columns(a, inverse, x, BB_F32);
    else
        dot_pack_columns(a, inverse, x, BB_BF16);
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
