// SPDX-License-Identifier: MIT
/* Access to six-bit blocks of the cache: 16 cells of four codes each in 48 bytes (kv_layout.h). */
#ifndef BB_OPS_CPU_KV_INT6_H
#define BB_OPS_CPU_KV_INT6_H

#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <immintrin.h>
#endif

enum { BB_INT6_BIAS = 32, BB_INT6_MAX = 31 };

typedef uint8_t bb_int6_bytes __attribute__((vector_size(16)));

/* The first, second and third bytes of a block's cells. */
typedef struct bb_int6_block {
    bb_int6_bytes low, middle, high;
} bb_int6_block;

#define BB_INT6_INLINE static inline __attribute__((always_inline))

BB_INT6_INLINE bb_int6_bytes bb_int6_biased(const int8_t *values) {
    bb_int6_bytes x;
    memcpy(&x, values, sizeof x);
    return (x + BB_INT6_BIAS) & 63;
}

/* Stores 16 values at place 0..3 of the cells, a constant; the other places are unchanged. */
BB_INT6_INLINE void bb_int6_store(void *block, int place, const int8_t *values) {
    bb_int6_block b;
    memcpy(&b, block, sizeof b);
    bb_int6_bytes u = bb_int6_biased(values);
    if (place == 0) {
        b.low = (b.low & 0xc0) | u;
    } else if (place == 1) {
        b.low = (b.low & 0x3f) | (u << 6);
        b.middle = (b.middle & 0xf0) | (u >> 2);
    } else if (place == 2) {
        b.middle = (b.middle & 0x0f) | (u << 4);
        b.high = (b.high & 0xfc) | (u >> 4);
    } else {
        b.high = (b.high & 0x03) | (u << 2);
    }
    memcpy(block, &b, sizeof b);
}

/* The four places of a block's cells, biased. */
BB_INT6_INLINE void bb_int6_places(bb_int6_bytes u[4], const void *block) {
    bb_int6_block b;
    memcpy(&b, block, sizeof b);
    u[0] = b.low & 63;
    u[1] = ((b.low >> 6) | (b.middle << 2)) & 63;
    u[2] = ((b.middle >> 4) | (b.high << 4)) & 63;
    u[3] = b.high >> 2;
}

/* Loads the first `places` places, one after another. values: (4, 16) */
BB_INT6_INLINE void bb_int6_load(int8_t *values, int64_t places, const void *block) {
    bb_int6_bytes u[4];
    bb_int6_places(u, block);
    for (int64_t i = 0; i < places; i++) {
        bb_int6_bytes x = u[i] - BB_INT6_BIAS;
        memcpy(values + i * 16, &x, sizeof x);
    }
}

/* Loads all cells, one after another. values: (16, 4) */
BB_INT6_INLINE void bb_int6_load_quads(int8_t *values, const void *block) {
    bb_int6_bytes u[4];
    bb_int6_places(u, block);
#ifdef __SSE2__
    for (int i = 0; i < 4; i++) u[i] -= BB_INT6_BIAS;
    __m128i a = (__m128i)u[0], b = (__m128i)u[1], c = (__m128i)u[2], d = (__m128i)u[3];
    __m128i ab = _mm_unpacklo_epi8(a, b), cd = _mm_unpacklo_epi8(c, d), more_ab = _mm_unpackhi_epi8(a, b),
            more_cd = _mm_unpackhi_epi8(c, d),
            out[4] = {_mm_unpacklo_epi16(ab, cd), _mm_unpackhi_epi16(ab, cd), _mm_unpacklo_epi16(more_ab, more_cd),
                      _mm_unpackhi_epi16(more_ab, more_cd)};
    memcpy(values, out, sizeof out);
#else
    for (int c = 0; c < 16; c++)
        for (int i = 0; i < 4; i++) values[4 * c + i] = (int8_t)(u[i][c] - BB_INT6_BIAS);
#endif
}

#ifdef __AVX512VBMI__
/* The codes of a block, biased: those of cell c in bytes 4c .. 4c+3. Reads 64 bytes: more of the cache follows. */
BB_INT6_INLINE __m512i bb_int6_block_codes(const void *block) {
#define CELLS(c) (c), (c) + 16, (c) + 32, (c) + 1, (c) + 17, (c) + 33, 0, 0
    /* brings the bytes of two cells at a time together in 64 bits */
    static const uint8_t order[64] = {CELLS(0), CELLS(2), CELLS(4), CELLS(6), CELLS(8), CELLS(10), CELLS(12), CELLS(14)};
#undef CELLS
    __m512i x = _mm512_permutexvar_epi8(_mm512_loadu_si512(order), _mm512_loadu_si512(block));
    x = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x2a241e18120c0600), x);
    return _mm512_and_si512(x, _mm512_set1_epi8(63));
}
#endif

#endif
