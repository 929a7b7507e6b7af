// SPDX-License-Identifier: MIT
/* Rounding and packing rows in bf16, for the units with AVX-512 BF16. */
#ifndef BB_OPS_CPU_DOT_512_PAIRS_H
#define BB_OPS_CPU_DOT_512_PAIRS_H

#include "ops/cpu/linear/dot_512.h"
#include "ops/cpu/linear/dot_bf16.h"

INLINE __m512i round_two(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

/* Packs two rows at a time while prefetching the pair PREFETCH_ROWS later: the rows of a tile are too far apart for hardware
 * prefetching. */
INLINE void pack_typed_pairs(uint32_t *pairs, int64_t pairs_stride, const bb_dot_tokens *from, bb_dtype dtype) {
    const uint8_t *x = from->x;
    const float *s = from->s;
    int64_t rows = from->tokens, n = from->columns, x_bytes = from->stride * (int64_t)bb_dtype_bytes(dtype);
    const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                                5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    int64_t row_bytes = n * (int64_t)bb_dtype_bytes(dtype);
    for (int64_t r = 0; r < rows; r += 2, x += 2 * x_bytes, pairs += pairs_stride) {
        bool both = r + 1 < rows;
        if (r + PREFETCH_ROWS + 1 < rows)
            for (int64_t i = 0; i < row_bytes; i += 64) {
                _mm_prefetch((const char *)(x + PREFETCH_ROWS * x_bytes + i), _MM_HINT_T0);
                _mm_prefetch((const char *)(x + (PREFETCH_ROWS + 1) * x_bytes + i), _MM_HINT_T0);
            }
        __m512 s0 = _mm512_set1_ps(s ? s[r] : 1.0f), s1 = _mm512_set1_ps(s && both ? s[r + 1] : 1.0f);
        for (int64_t i = 0; i < n; i += LANES) {
            __mmask16 lanes = lanes16(n, (int)i);
            __m512 low = _mm512_mul_ps(load_row(x, dtype, i, lanes), s0);
            __m512 high = _mm512_mul_ps(load_row(x + x_bytes, dtype, i, both ? lanes : (__mmask16)0), s1);
            _mm512_storeu_si512(pairs + i, _mm512_permutexvar_epi16(interleave, round_two(low, high)));
        }
    }
}

static UNINSTRUMENTED void pack_pairs(uint32_t *pairs, int64_t pairs_stride, const bb_dot_tokens *x) {
    if (x->dtype == BB_I8) /* a constant for each type, so that each has its own loop */
        pack_typed_pairs(pairs, pairs_stride, x, BB_I8);
    else if (x->dtype == BB_BF16)
        pack_typed_pairs(pairs, pairs_stride, x, BB_BF16);
    else
        pack_typed_pairs(pairs, pairs_stride, x, BB_F32);
}

#endif
