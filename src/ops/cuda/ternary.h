// SPDX-License-Identifier: MIT
/* Layout of ternary matrices: rows of two-bit codes q + 1, sixteen in a 32-bit word. Rows are padded with the code of 0 to a
 * multiple of 64 columns. Word i of a row holds columns 16 i .. 16 i + 15. Column 16 i + 4 j + b is in bits 8 b + 2 j
 * and 8 b + 2 j + 1, so a shift by 2 j and a mask give the four columns 4 j .. 4 j + 3 as four bytes. */
#ifndef BB_OPS_CUDA_TERNARY_H
#define BB_OPS_CUDA_TERNARY_H

#include "ops/cuda/kernel.h"

enum { BB_CUDA_WORD_CODES = 16, BB_CUDA_ROW_CODES = 64 };

/* Words in a row of K columns. */
__host__ __device__ static inline int64_t bb_cuda_row_words(int64_t K) {
    return (K + BB_CUDA_ROW_CODES - 1) / BB_CUDA_ROW_CODES * (BB_CUDA_ROW_CODES / BB_CUDA_WORD_CODES);
}

__host__ __device__ static inline int bb_cuda_code_shift(int column) { return column % 4 * 8 + column / 4 % 4 * 2; }

/* Value of column `column` of a row; `word` contains it. */
__device__ static inline int bb_cuda_value(uint32_t word, int column) {
    return (int)(word >> bb_cuda_code_shift(column) & 3u) - 1;
}

/* Columns 4 j .. 4 j + 3 of a word, as four bytes: the codes, and the values. */
__device__ static inline uint32_t bb_cuda_four_codes(uint32_t word, int j) { return word >> (2 * j) & 0x03030303u; }
__device__ static inline uint32_t bb_cuda_four_values(uint32_t word, int j) {
    return ((bb_cuda_four_codes(word, j) | 0x80808080u) - 0x01010101u) ^ 0x80808080u;
}

/* Scales of a matrix's rows, as an argument for kernels. */
typedef struct bb_cuda_scales {
    const float *scale;
    int64_t end[BB_MAX_SEGMENTS - 1]; /* of all segments but the last */

    __device__ float at(int64_t n) const { return scale[(n >= end[0]) + (n >= end[1])]; }
} bb_cuda_scales;

static inline bb_cuda_scales bb_cuda_scales_of(const bb_ternary *t) {
    bb_cuda_scales s = {t->scale, {INT64_MAX, INT64_MAX}};
    for (int i = 0; i + 1 < t->segments; i++) s.end[i] = t->segment_end[i];
    return s;
}

#endif
