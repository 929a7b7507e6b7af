// SPDX-License-Identifier: MIT
/* What the 256-bit sets of dot.h share: tiles of ROWS rows by 16 columns, two vectors. */
#ifndef BB_OPS_CPU_DOT_256_H
#define BB_OPS_CPU_DOT_256_H

#include <immintrin.h>

#include "ops/cpu/linear/dot_rows.h"

/* Sanitized tiles take clang minutes to compile. */
#if defined(__clang__)
#define UNINSTRUMENTED __attribute__((no_sanitize("address", "undefined")))
#else
#define UNINSTRUMENTED
#endif
#define INLINE static inline __attribute__((always_inline)) UNINSTRUMENTED

enum { LANES = 8, VECTORS = 2, TILE_COLUMNS = LANES * VECTORS };

#define EACH_VECTOR(v) _Pragma("GCC unroll 2") for (int v = 0; v < VECTORS; v++)

INLINE __m256i load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* Broadcasts the 4 bytes at p. */
INLINE __m256i broadcast4(const void *p) {
    int32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    return _mm256_set1_epi32(bytes);
}

/* 16 values rounded to bf16, half to even; NaN stays NaN. */
INLINE __m256i round_to_bf16(const __m256 x[VECTORS]) {
    __m256i half[VECTORS];
    EACH_VECTOR(v) {
        __m256i bits = _mm256_castps_si256(x[v]), high = _mm256_srli_epi32(bits, 16);
        __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
        __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
        __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x[v], x[v], _CMP_UNORD_Q));
        half[v] = _mm256_blendv_epi8(rounded, _mm256_or_si256(high, _mm256_set1_epi32(0x40)), nan);
    }
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(half[0], half[1]), 0xd8);
}

/* Stores a row's values of columns `column` .. column+15 of the panel. */
INLINE void store_row(const bb_dot_output *out, int64_t row, int64_t column, const __m256 values[VECTORS]) {
    int64_t at = row * out->stride + column, columns = bb_min(out->columns - column, TILE_COLUMNS);
    bool whole = columns == TILE_COLUMNS;
    if (out->dtype == BB_BF16) {
        __m256i rounded = round_to_bf16(values);
        if (whole)
            _mm256_storeu_si256((__m256i *)(void *)((bb_bf16 *)out->y + at), rounded);
        else
            memcpy((bb_bf16 *)out->y + at, &rounded, (size_t)columns * sizeof(bb_bf16));
        return;
    }
    float *y = (float *)out->y + at, part[TILE_COLUMNS];
    const float *residual = out->residual ? out->residual + at : NULL;
    if (whole) {
        EACH_VECTOR(v) {
            __m256 sum = values[v];
            if (residual) sum = _mm256_add_ps(sum, _mm256_loadu_ps(residual + LANES * v));
            _mm256_storeu_ps(y + LANES * v, sum);
        }
        return;
    }
    EACH_VECTOR(v) _mm256_storeu_ps(part + LANES * v, values[v]);
    for (int64_t i = 0; i < columns; i++) y[i] = residual ? part[i] + residual[i] : part[i];
}

/* The epilogue of a row: out = scale * sums */
INLINE void finish_row(const bb_dot_output *out, int64_t row, int64_t column, const __m256i sums[VECTORS], float scale) {
    __m256 values[VECTORS];
    EACH_VECTOR(v) values[v] = _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_cvtepi32_ps(sums[v]));
    store_row(out, row, column, values);
}

#endif
