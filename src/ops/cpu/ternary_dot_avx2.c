/* AVX2: products of codes 0..2 and int8 in pairs (vpmaddubsw), summed in 16 bits as long as they can't overflow.
 * SPDX-License-Identifier: MIT */
#include "ops/cpu/ternary_dot.h"

#if defined(__x86_64__)

#include <immintrin.h>

/* Instrumented tiles take clang minutes. */
#if defined(__clang__)
#define UNINSTRUMENTED no_sanitize("address", "undefined")
#else
#define UNINSTRUMENTED
#endif
#define TARGET __attribute__((target("avx2"), UNINSTRUMENTED))
#define INLINE static inline __attribute__((always_inline)) TARGET

enum {
    STEP_BYTES = 4 * BB_PANEL,
    VECTORS = 8, /* a panel's 64 rows, 8 a vector */
    CRUMBS = 4,
    ROWS = 4,       /* of a in a tile */
    RUN_STEPS = 64, /* each adds at most 2 * 2 * 127 to a sum: 64 * 508 < 2^15 */
    AHEAD = 3072    /* bytes that a packed panel is fetched ahead; panels follow each other */
};

typedef __m256i tile_sums[ROWS][VECTORS];

#define EACH_ROW(r) _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)
#define EACH_VECTOR(v) _Pragma("GCC unroll 8") for (int v = 0; v < vectors; v++)
#define EACH_CRUMB(c) _Pragma("GCC unroll 4") for (int c = 0; c < CRUMBS; c++)

INLINE __m256i load(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }

/* The same 4 bytes for each of 8 rows. */
INLINE __m256i four(const int8_t *a) {
    int32_t bytes;
    memcpy(&bytes, a, sizeof bytes);
    return _mm256_set1_epi32(bytes);
}

INLINE __m256i crumb(__m256i x, int c) { return _mm256_and_si256(c ? _mm256_srli_epi16(x, 2 * c) : x, _mm256_set1_epi8(3)); }

/* The sum is written as assembler: GCC 12 would add in another order, and have more sums than registers. */
INLINE __m256i add(__m256i sum, __m256i codes, __m256i a) {
    __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(_mm256_maddubs_epi16(codes, a)));
    return sum;
}

INLINE void fetch(const uint8_t *panel, int vectors) {
    for (int i = 0; i < 32 * vectors; i += 64) _mm_prefetch((const char *)panel + AHEAD + i, _MM_HINT_T0);
}

/* One packed block, 16 columns, one row of a: each vector is loaded once. */
INLINE void block_of_one(__m256i *sums, int vectors, const int8_t *a, const uint8_t *panel) {
    __m256i a0 = four(a), a1 = four(a + 4), a2 = four(a + 8), a3 = four(a + 12);
    EACH_VECTOR(v) {
        __m256i x = load(panel + 32 * v);
        __m256i low = add(_mm256_maddubs_epi16(crumb(x, 0), a0), crumb(x, 1), a1);
        __m256i high = add(_mm256_maddubs_epi16(crumb(x, 2), a2), crumb(x, 3), a3);
        sums[v] = _mm256_add_epi16(sums[v], _mm256_add_epi16(low, high));
    }
}

INLINE void step(int rows, int vectors, tile_sums acc, const int8_t *a, int64_t a_stride, const __m256i *codes) {
    EACH_ROW(r) {
        __m256i x = four(a + r * a_stride);
        EACH_VECTOR(v) acc[r][v] = add(acc[r][v], codes[v], x);
    }
}

/* sums += what at most RUN_STEPS steps give for `rows` rows and 8 * vectors columns; rows, vectors and packed are constants. */
INLINE void tile(bool packed, int rows, int vectors, int32_t *sums, const int8_t *a, int64_t a_stride, int64_t steps,
                 const uint8_t *panel) {
    tile_sums acc;
    __m256i codes[VECTORS];
    EACH_ROW(r) EACH_VECTOR(v) acc[r][v] = _mm256_setzero_si256();
    if (packed) {
        for (int64_t i = 0; i < steps; i += CRUMBS, a += 4 * CRUMBS, panel += STEP_BYTES) {
            fetch(panel, vectors);
            if (rows == 1) {
                block_of_one(acc[0], vectors, a, panel);
                continue;
            }
            EACH_CRUMB(c) {
                EACH_VECTOR(v) codes[v] = crumb(load(panel + 32 * v), c);
                step(rows, vectors, acc, a + 4 * c, a_stride, codes);
            }
        }
    } else {
        for (int64_t i = 0; i < steps; i++, a += 4, panel += STEP_BYTES) {
            EACH_VECTOR(v) codes[v] = load(panel + 32 * v);
            step(rows, vectors, acc, a, a_stride, codes);
        }
    }
    EACH_ROW(r) EACH_VECTOR(v) {
        __m256i *to = (__m256i *)(void *)(sums + r * BB_PANEL + 8 * v);
        __m256i pairs = _mm256_madd_epi16(acc[r][v], _mm256_set1_epi16(1));
        _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), pairs));
    }
}

/* A tile's sums find room in the registers: so many rows, so many vectors. */
INLINE void rows_of(bool packed, int rows, int vectors, int32_t *sums, const int8_t *a, int64_t a_stride, int64_t steps,
                    const uint8_t *panel) {
    for (int v = 0; v < VECTORS; v += vectors) tile(packed, rows, vectors, sums + 8 * v, a, a_stride, steps, panel + 32 * v);
}

INLINE void dot(bool packed, int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t steps,
                const uint8_t *panel) {
    memset(sums, 0, (size_t)(rows * BB_PANEL) * sizeof *sums);
    int64_t step_bytes = packed ? STEP_BYTES / CRUMBS : STEP_BYTES;
    for (int64_t done = 0; done < steps; done += RUN_STEPS) { /* a run of the panel stays in the first-level cache */
        int64_t run = steps - done < RUN_STEPS ? steps - done : RUN_STEPS;
        const uint8_t *p = panel + done * step_bytes;
        for (int64_t r = 0; r < rows; r += ROWS) {
            int32_t *s = sums + r * BB_PANEL;
            const int8_t *x = a + r * a_stride + 4 * done;
            switch (rows - r) {
            case 1: rows_of(packed, 1, 8, s, x, a_stride, run, p); break;
            case 2: rows_of(packed, 2, 4, s, x, a_stride, run, p); break;
            case 3: rows_of(packed, 3, 2, s, x, a_stride, run, p); break;
            default: rows_of(packed, ROWS, 2, s, x, a_stride, run, p); break;
            }
        }
    }
}

TARGET void bb_ternary_dot_avx2(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t steps,
                                const uint8_t *panel, bool packed) {
    if (packed)
        dot(true, sums, a, a_stride, rows, steps, panel);
    else
        dot(false, sums, a, a_stride, rows, steps, panel);
}

#endif
