// SPDX-License-Identifier: MIT
/* AVX2: products of codes 0..2 and int8 in pairs (vpmaddubsw), summed in 16 bits as long as they cannot overflow. */
#include "ops/cpu/linear/ternary_dot.h"
#include "ops/cpu/linear/ternary_set.h"

#if defined(__x86_64__)

#include <immintrin.h>

/* Sanitized tiles take clang minutes to compile. */
#if defined(__clang__)
#define UNINSTRUMENTED no_sanitize("address", "undefined")
#else
#define UNINSTRUMENTED
#endif
#define TARGET __attribute__((target("avx2"), UNINSTRUMENTED))
#define INLINE static inline __attribute__((always_inline)) TARGET

enum {
    VECTORS = 8, /* a panel's 64 rows, 8 per vector */
    K_STEPS = 4,
    ROWS = 4,             /* of a in a tile */
    PREFETCH_BYTES = 3072 /* how far ahead of use; panels are contiguous */
};

/* A k-step adds at most 2 * 2 * 127 to a 16-bit sum. */
_Static_assert(BB_TERNARY_DOT_RUN * 4 * 508 < 1 << 15, "the sums of a run fit");

typedef __m256i tile_sums[ROWS][VECTORS];

#define EACH_ROW(r) _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)
#define EACH_VECTOR(v) _Pragma("GCC unroll 8") for (int v = 0; v < vectors; v++)
#define EACH_K_STEP(c) _Pragma("GCC unroll 4") for (int c = 0; c < K_STEPS; c++)

INLINE __m256i load(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)(const void *)p); }

/* Broadcasts 4 bytes to 8 rows. */
INLINE __m256i broadcast4(const int8_t *a) {
    int32_t bytes;
    memcpy(&bytes, a, sizeof bytes);
    return _mm256_set1_epi32(bytes);
}

INLINE __m256i codes_at(__m256i x, int c) { return _mm256_and_si256(c ? _mm256_srli_epi16(x, 2 * c) : x, _mm256_set1_epi8(3)); }

/* The addition is in assembler: GCC 12 would add in another order and need more sums than there are registers. */
INLINE __m256i add(__m256i sum, __m256i codes, __m256i a) {
    __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(_mm256_maddubs_epi16(codes, a)));
    return sum;
}

INLINE void prefetch(const uint8_t *panel, int vectors) {
    for (int i = 0; i < 32 * vectors; i += 64) _mm_prefetch((const char *)panel + PREFETCH_BYTES + i, _MM_HINT_T0);
}

/* One block, one row of a: each vector is loaded once. */
INLINE void block_of_one_row(__m256i *sums, int vectors, const int8_t *a, const uint8_t *panel) {
    __m256i a0 = broadcast4(a), a1 = broadcast4(a + 4), a2 = broadcast4(a + 8), a3 = broadcast4(a + 12);
    EACH_VECTOR(v) {
        __m256i x = load(panel + 32 * v);
        __m256i low = add(_mm256_maddubs_epi16(codes_at(x, 0), a0), codes_at(x, 1), a1);
        __m256i high = add(_mm256_maddubs_epi16(codes_at(x, 2), a2), codes_at(x, 3), a3);
        sums[v] = _mm256_add_epi16(sums[v], _mm256_add_epi16(low, high));
    }
}

INLINE void k_step(int rows, int vectors, tile_sums acc, const int8_t *a, int64_t a_stride, const __m256i *codes) {
    EACH_ROW(r) {
        __m256i x = broadcast4(a + r * a_stride);
        EACH_VECTOR(v) acc[r][v] = add(acc[r][v], codes[v], x);
    }
}

/* Rows of a, and blocks of a run. */
typedef struct run_rows {
    const int8_t *a;
    int64_t stride, blocks;
} run_rows;

/* sums += product of a run of blocks with `rows` rows and 8 * vectors of the panel's rows. `panel` is the panel's bytes, or its
 * k-steps if expanded. expanded, rows and vectors are constants. */
INLINE void tile(bool expanded, int rows, int vectors, int32_t *sums, const run_rows *r0, const uint8_t *panel) {
    const int8_t *a = r0->a;
    int64_t a_stride = r0->stride, blocks = r0->blocks;
    tile_sums acc;
    __m256i codes[VECTORS];
    EACH_ROW(r) EACH_VECTOR(v) acc[r][v] = _mm256_setzero_si256();
    for (int64_t i = 0; i < blocks;
         i++, a += BB_BLOCK_COLUMNS, panel += expanded ? K_STEPS * BB_K_STEP_BYTES : BB_BLOCK_BYTES) {
        if (!expanded) prefetch(panel, vectors);
        if (!expanded && rows == 1) {
            block_of_one_row(acc[0], vectors, a, panel);
            continue;
        }
        EACH_K_STEP(c) {
            EACH_VECTOR(v)
            codes[v] = expanded ? load(panel + c * BB_K_STEP_BYTES + 32 * v) : codes_at(load(panel + 32 * v), c);
            k_step(rows, vectors, acc, a + 4 * c, a_stride, codes);
        }
    }
    EACH_ROW(r) EACH_VECTOR(v) {
        __m256i *dst = (__m256i *)(void *)(sums + r * BB_PANEL + 8 * v);
        __m256i pairs = _mm256_madd_epi16(acc[r][v], _mm256_set1_epi16(1));
        _mm256_storeu_si256(dst, _mm256_add_epi32(_mm256_loadu_si256(dst), pairs));
    }
}

/* `rows` and `vectors` are chosen so that a tile's sums fit in registers. */
INLINE void row_group(bool expanded, int rows, int vectors, int32_t *sums, const run_rows *a, const uint8_t *panel) {
    for (int v = 0; v < VECTORS; v += vectors) tile(expanded, rows, vectors, sums + 8 * v, a, panel + 32 * v);
}

INLINE void run(bool expanded, int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks,
                const uint8_t *panel) {
    run_rows at = {a, a_stride, blocks};
    for (; rows >= ROWS; rows -= ROWS, sums += ROWS * BB_PANEL, at.a += ROWS * a_stride)
        row_group(expanded, ROWS, 2, sums, &at, panel);
    switch (rows) {
    case 1: row_group(expanded, 1, 8, sums, &at, panel); break;
    case 2: row_group(expanded, 2, 4, sums, &at, panel); break;
    case 3: row_group(expanded, 3, 2, sums, &at, panel); break;
    default: break;
    }
}

TARGET void bb_ternary_dot_avx2(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks,
                                const uint8_t *panel) {
    memset(sums, 0, (size_t)(rows * BB_PANEL) * sizeof *sums);
    /* a run stays in the first-level cache */
    for (int64_t left = blocks; left > 0; left -= BB_TERNARY_DOT_RUN) {
        int64_t n = left < BB_TERNARY_DOT_RUN ? left : BB_TERNARY_DOT_RUN;
        if (rows < BB_TERNARY_DOT_EXPAND_ROWS) {
            run(false, sums, a, a_stride, rows, n, panel);
        } else {
            _Alignas(64) uint8_t k_steps[BB_TERNARY_DOT_RUN * 4 * BB_K_STEP_BYTES];
            bb_ternary_avx2.expand(k_steps, panel, n);
            run(true, sums, a, a_stride, rows, n, k_steps);
        }
        a += n * BB_BLOCK_COLUMNS;
        panel += n * BB_BLOCK_BYTES;
    }
}

#endif
