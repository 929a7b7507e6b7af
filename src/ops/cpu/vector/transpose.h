// SPDX-License-Identifier: MIT
#ifndef BB_OPS_CPU_TRANSPOSE_H
#define BB_OPS_CPU_TRANSPOSE_H

#if defined(__x86_64__)

#include <immintrin.h>

/* Transposes 16 rows of 16 words of 32 bits. */
__attribute__((target("avx512f"), always_inline)) static inline void bb_transpose16(__m512i x[16]) {
    __m512i t[16];
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        x[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        x[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        x[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        x[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(x[i], x[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(x[i], x[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_i32x4(x[8 + i], x[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(x[8 + i], x[12 + i], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        x[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        x[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
        x[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        x[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

/* Interleaves two rows of 32 elements of 16 bits into words that pair them: columns 0..15 in low, 16..31 in high. */
__attribute__((target("avx512f,avx512bw"), always_inline)) static inline void bb_pair_rows16(__m512i *low, __m512i *high,
                                                                                             __m512i x, __m512i y) {
    const __m512i first = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5,
                                           36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    *low = _mm512_permutex2var_epi16(x, first, y);
    *high = _mm512_permutex2var_epi16(x, _mm512_add_epi16(first, _mm512_set1_epi16(16)), y);
}

#endif

#endif
