/* AVX-512 with VNNI: unsigned codes times signed activations, four products and their sum an instruction (vpdpbusd).
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
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"), UNINSTRUMENTED))
#define INLINE static inline __attribute__((always_inline)) TARGET

enum {
    VECTORS = 4, /* a panel's 64 rows, 16 a vector */
    CRUMBS = 4,
    ROWS = 6,    /* of a in a tile: 24 sums */
    AHEAD = 3072 /* bytes that a panel is fetched ahead; panels follow each other */
};

typedef __m512i tile_sums[ROWS][CRUMBS][VECTORS];

#define EACH_ROW(r) _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++)
#define EACH_VECTOR(v) _Pragma("GCC unroll 4") for (int v = 0; v < VECTORS; v++)
#define EACH_CRUMB(c) _Pragma("GCC unroll 4") for (int c = 0; c < CRUMBS; c++)

INLINE __m512i crumb(__m512i x, int c) { return _mm512_and_si512(c ? _mm512_srli_epi16(x, 2 * c) : x, _mm512_set1_epi8(3)); }

/* Written as assembler: GCC 12 copies the sums around the intrinsic. */
INLINE __m512i add(__m512i sum, __m512i codes, __m512i a) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(a));
    return sum;
}

/* Four columns; `chain` says to which of a row's sums they go. */
INLINE void step(int rows, int chain, tile_sums acc, const int8_t *a, int64_t a_stride, const __m512i *codes) {
    EACH_ROW(r) {
        int32_t bytes;
        memcpy(&bytes, a + r * a_stride, sizeof bytes);
        __m512i x = _mm512_set1_epi32(bytes);
        EACH_VECTOR(v) acc[r][chain][v] = add(acc[r][chain][v], codes[v], x);
    }
}

/* sums += what the blocks give for `rows` rows. `panel` is the panel's bytes, or its steps where they are expanded. Few rows
 * have several sums each, so that no product waits for the one before it. expanded, rows and chains are constants. */
INLINE void tile(bool expanded, int rows, int chains, int32_t *sums, const int8_t *a, int64_t a_stride, int64_t blocks,
                 const uint8_t *panel) {
    tile_sums acc;
    __m512i codes[VECTORS], x[VECTORS];
    EACH_ROW(r) for (int c = 0; c < chains; c++) EACH_VECTOR(v) acc[r][c][v] = _mm512_setzero_si512();
    for (int64_t i = 0; i < blocks; i++, a += BB_BLOCK_COLUMNS, panel += expanded ? CRUMBS * BB_STEP_BYTES : BB_BLOCK_BYTES) {
        if (!expanded) EACH_VECTOR(v) {
                x[v] = _mm512_loadu_si512(panel + 64 * v);
                _mm_prefetch((const char *)panel + AHEAD + 64 * v, _MM_HINT_T0);
            }
        EACH_CRUMB(c) {
            EACH_VECTOR(v) codes[v] = expanded ? _mm512_loadu_si512(panel + c * BB_STEP_BYTES + 64 * v) : crumb(x[v], c);
            step(rows, c % chains, acc, a + 4 * c, a_stride, codes);
        }
    }
    EACH_ROW(r) EACH_VECTOR(v) {
        int32_t *to = sums + r * BB_PANEL + 16 * v;
        __m512i sum = _mm512_add_epi32(_mm512_loadu_si512(to), acc[r][0][v]);
        for (int c = 1; c < chains; c++) sum = _mm512_add_epi32(sum, acc[r][c][v]);
        _mm512_storeu_si512(to, sum);
    }
}

INLINE void run(bool expanded, int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks,
                const uint8_t *panel) {
    for (; rows >= ROWS; rows -= ROWS, sums += ROWS * BB_PANEL, a += ROWS * a_stride)
        tile(expanded, ROWS, 1, sums, a, a_stride, blocks, panel);
    switch (rows) {
    case 1: tile(expanded, 1, 4, sums, a, a_stride, blocks, panel); break;
    case 2: tile(expanded, 2, 2, sums, a, a_stride, blocks, panel); break;
    case 3: tile(expanded, 3, 2, sums, a, a_stride, blocks, panel); break;
    case 4: tile(expanded, 4, 1, sums, a, a_stride, blocks, panel); break;
    case 5: tile(expanded, 5, 1, sums, a, a_stride, blocks, panel); break;
    default: break;
    }
}

TARGET void bb_ternary_dot_vnni(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks,
                                const uint8_t *panel) {
    memset(sums, 0, (size_t)(rows * BB_PANEL) * sizeof *sums);
    if (rows < BB_TERNARY_DOT_MANY) {
        run(false, sums, a, a_stride, rows, blocks, panel);
        return;
    }
    for (int64_t left = blocks; left > 0; left -= BB_TERNARY_DOT_RUN) {
        _Alignas(64) uint8_t steps[BB_TERNARY_DOT_RUN * 4 * BB_STEP_BYTES];
        int64_t n = left < BB_TERNARY_DOT_RUN ? left : BB_TERNARY_DOT_RUN;
        bb_ternary_expand(BB_CPU_AVX512, steps, panel, n);
        run(true, sums, a, a_stride, rows, n, steps);
        a += n * BB_BLOCK_COLUMNS;
        panel += n * BB_BLOCK_BYTES;
    }
}

#endif
