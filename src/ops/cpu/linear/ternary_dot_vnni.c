// SPDX-License-Identifier: MIT
/* AVX-512 with VNNI: unsigned codes times signed activations, four products and their sum per instruction (vpdpbusd). */
#include "ops/cpu/linear/ternary_dot.h"

#if defined(__x86_64__)

#include "ops/cpu/linear/ternary_dot_simd.h"

#define TARGET __attribute__((target(VNNI), UNINSTRUMENTED))
#define INLINE VNNI_INLINE

enum {
    VECTORS = 4, /* a panel's 64 rows, 16 per vector */
    K_STEPS = 4,
    SUMS = 24,      /* maximum in a tile of packed codes */
    LONG_RUN = 8192 /* blocks; a block's sum is at most 4 * 192 * 127, which is 2^-15 of 2^32 */
};

#define EACH_ROW(r) _Pragma("GCC unroll 24") for (int r = 0; r < rows; r++)
#define EACH_SUM(i) _Pragma("GCC unroll 24") for (int i = 0; i < rows * chains; i++)
#define EACH_VECTOR(v) _Pragma("GCC unroll 4") for (int v = 0; v < vectors; v++)
#define EACH_K_STEP(c) _Pragma("GCC unroll 4") for (int c = 0; c < K_STEPS; c++)

/* The codes of k-step c, scaled by 4 for each place that they are not shifted down; sum c % chains of a row accumulates them at
 * that scale. More sums per row mean fewer shifts and shorter dependency chains. */
INLINE __m512i codes_at(__m512i x, int c, int chains) {
    int place = c % chains, shift = c - place;
    return _mm512_and_si512(shift ? _mm512_srli_epi16(x, 2 * shift) : x, _mm512_set1_epi8((char)(3 << 2 * place)));
}

/* Rows of a, and blocks of a run. */
typedef struct run_rows {
    const int8_t *a;
    int64_t stride, blocks;
} run_rows;

/* sums += product of a run of packed blocks with `rows` rows, `vectors` of the panel's vectors at a time. rows, chains, vectors
 * and to_l1 are constants; to_l1: prefetch into the first-level cache, otherwise the second. */
INLINE void packed(int rows, int chains, int vectors, bool to_l1, int32_t *sums, const run_rows *rows_of_run,
                   const uint8_t *run) {
    const int8_t *a = rows_of_run->a;
    int64_t a_stride = rows_of_run->stride, blocks = rows_of_run->blocks;
    const char *prefetch = (const char *)run + PREFETCH_BYTES;
    for (int first = 0; first < VECTORS; first += vectors, run += 64 * vectors, sums += 16 * vectors) {
        __m512i acc[SUMS][VECTORS];
        EACH_SUM(i) EACH_VECTOR(v) acc[i][v] = _mm512_setzero_si512();
        for (int64_t i = 0; i < blocks; i++, prefetch += 64 * vectors) {
            EACH_VECTOR(v) {
                if (to_l1)
                    _mm_prefetch(prefetch + 64 * v, _MM_HINT_T0);
                else
                    _mm_prefetch(prefetch + 64 * v, _MM_HINT_T1);
            }
            EACH_K_STEP(c) {
                __m512i codes[VECTORS];
                EACH_VECTOR(v) codes[v] = codes_at(_mm512_loadu_si512(run + i * BB_BLOCK_BYTES + 64 * v), c, chains);
                EACH_ROW(r) {
                    __m512i bytes = broadcast4(a + r * a_stride + i * BB_BLOCK_COLUMNS + 4 * c);
                    EACH_VECTOR(v) {
                        __m512i *sum = &acc[r * chains + c % chains][v];
                        *sum = add(*sum, codes[v], bytes);
                    }
                }
            }
        }
        EACH_ROW(r) EACH_VECTOR(v) {
            int32_t *dst = sums + r * BB_PANEL + 16 * v;
            __m512i sum = _mm512_add_epi32(_mm512_loadu_si512(dst), acc[r * chains][v]);
            for (int c = 1; c < chains; c++)
                sum = _mm512_add_epi32(sum, _mm512_srai_epi32(acc[r * chains + c][v], (unsigned)(2 * c)));
            _mm512_storeu_si512(dst, sum);
        }
    }
}

/* Sums per row for each of the panel's columns: as many as fit in registers. */
#define CHAINS(n) ((n) <= SUMS / 4 ? 4 : (n) <= SUMS / 2 ? 2 : 1)
#define EACH_COUNT(CASE)                                                                                                       \
    CASE(1)                                                                                                                    \
    CASE(2)                                                                                                                    \
    CASE(3)                                                                                                                    \
    CASE(4)                                                                                                                    \
    CASE(5)                                                                                                                    \
    CASE(6)                                                                                                                    \
    CASE(7)                                                                                                                    \
    CASE(8)                                                                                                                    \
    CASE(9)                                                                                                                    \
    CASE(10)                                                                                                                   \
    CASE(11)                                                                                                                   \
    CASE(12)                                                                                                                   \
    CASE(13)                                                                                                                   \
    CASE(14)                                                                                                                   \
    CASE(15)                                                                                                                   \
    CASE(16)

typedef void small_batch_kernel(int32_t *sums, const run_rows *a, int64_t rows, const uint8_t *run);

/* Reads memory line by line, with as many of a panel's vectors at a time as fit. One thread of a Zen 4 reads 30 GB/s this way,
 * two read 39; in the other order 23 and 30. */
TARGET static void small_batch_by_lines(int32_t *sums, const run_rows *a, int64_t rows, const uint8_t *run) {
#define VECTORS_OF(n) ((n) <= SUMS / 4 ? 4 : (n) <= SUMS / 2 ? 2 : 1)
#define CASE(n)                                                                                                                \
    case n: packed(n, CHAINS((n)*VECTORS_OF(n)), VECTORS_OF(n), true, sums, a, run); break;
    switch (rows) {
        EACH_COUNT(CASE)
    default: break;
    }
#undef CASE
}

/* Processes a panel's vectors one after the other: the first reads every fourth line of the run, which lets the processor fetch
 * the others meanwhile. One thread of a Granite Rapids reads 21.5 GB/s this way, against 17 to 18.5 line by line. */
TARGET static void small_batch_by_vectors(int32_t *sums, const run_rows *a, int64_t rows, const uint8_t *run) {
#define CASE(n)                                                                                                                \
    case n: packed(n, CHAINS(n), 1, false, sums, a, run); break;
    switch (rows) {
        EACH_COUNT(CASE)
    default: break;
    }
#undef CASE
}

TARGET void bb_ternary_dot_vnni(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks,
                                const uint8_t *panel) {
    memset(sums, 0, (size_t)(rows * BB_PANEL) * sizeof *sums);
    bool by_vectors = __builtin_cpu_is("intel");
    small_batch_kernel *small_batch = by_vectors ? small_batch_by_vectors : small_batch_by_lines;
    /* a run stays in the first-level cache, unless it is read only once */
    bool once = !by_vectors && rows <= SUMS / VECTORS;
    int64_t max_run = once ? LONG_RUN : BB_TERNARY_DOT_RUN;
    int64_t part = rows > SUMS / 2 ? (rows + 1) / 2 : rows; /* above this, a part has registers for only one vector: split in
                                                             * two */
    for (int64_t left = blocks; left > 0; left -= max_run) {
        int64_t n = left < max_run ? left : max_run;
        for (int64_t r = 0; r < rows; r += part) {
            int64_t count = rows - r < part ? rows - r : part;
            small_batch(sums + r * BB_PANEL, &(run_rows){a + r * a_stride, a_stride, n}, count, panel);
        }
        a += n * BB_BLOCK_COLUMNS;
        panel += n * BB_BLOCK_BYTES;
    }
}

#endif
