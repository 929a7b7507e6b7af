// SPDX-License-Identifier: MIT
/* AVX-512 with VNNI: unsigned codes times signed activations, four products and their sum an instruction (vpdpbusd). */
#include "ops/cpu/linear/ternary_dot.h"

#if defined(__x86_64__)

#include "ops/cpu/linear/ternary_dot_simd.h"

#define TARGET __attribute__((target(VNNI), UNINSTRUMENTED))
#define INLINE VNNI_INLINE

enum {
    VECTORS = 4, /* a panel's 64 rows, 16 a vector */
    CRUMBS = 4,
    ROWS = 6,       /* of a in a tile of expanded steps: 24 sums */
    SUMS = 24,      /* of a tile of packed ones, at most */
    LONG_RUN = 8192 /* blocks; a sum of a block is at most 4 * 192 * 127, which is a 2^15th of 2^32 */
};

#define EACH_ROW(r) _Pragma("GCC unroll 24") for (int r = 0; r < rows; r++)
#define EACH_SUM(i) _Pragma("GCC unroll 24") for (int i = 0; i < rows * chains; i++)
#define EACH_VECTOR(v) _Pragma("GCC unroll 4") for (int v = 0; v < vectors; v++)
#define EACH_CRUMB(c) _Pragma("GCC unroll 4") for (int c = 0; c < CRUMBS; c++)

/* Column group c's codes, times 4 for each place that they are not shifted down: a row's sum c % chains takes them so. The more
 * sums a row has the fewer shifts there are, and the fewer products wait for the one before. */
INLINE __m512i crumb(__m512i x, int c, int chains) {
    int place = c % chains, shift = c - place;
    return _mm512_and_si512(shift ? _mm512_srli_epi16(x, 2 * shift) : x, _mm512_set1_epi8((char)(3 << 2 * place)));
}

/* sums += what a run of packed blocks gives for `rows` rows, so many of the panel's vectors at a time. rows, chains, vectors
 * and near are constants; near: into which cache to fetch. */
INLINE void packed(int rows, int chains, int vectors, bool near, int32_t *sums, const int8_t *a, int64_t a_stride,
                   int64_t blocks, const uint8_t *run) {
    const char *ahead = (const char *)run + AHEAD;
    for (int first = 0; first < VECTORS; first += vectors, run += 64 * vectors, sums += 16 * vectors) {
        __m512i acc[SUMS][VECTORS];
        EACH_SUM(i) EACH_VECTOR(v) acc[i][v] = _mm512_setzero_si512();
        for (int64_t i = 0; i < blocks; i++, ahead += 64 * vectors) {
            EACH_VECTOR(v) {
                if (near)
                    _mm_prefetch(ahead + 64 * v, _MM_HINT_T0);
                else
                    _mm_prefetch(ahead + 64 * v, _MM_HINT_T1);
            }
            EACH_CRUMB(c) {
                __m512i codes[VECTORS];
                EACH_VECTOR(v) codes[v] = crumb(_mm512_loadu_si512(run + i * BB_BLOCK_BYTES + 64 * v), c, chains);
                EACH_ROW(r) {
                    __m512i bytes = four(a + r * a_stride + i * BB_BLOCK_COLUMNS + 4 * c);
                    EACH_VECTOR(v) {
                        __m512i *sum = &acc[r * chains + c % chains][v];
                        *sum = add(*sum, codes[v], bytes);
                    }
                }
            }
        }
        EACH_ROW(r) EACH_VECTOR(v) {
            int32_t *to = sums + r * BB_PANEL + 16 * v;
            __m512i sum = _mm512_add_epi32(_mm512_loadu_si512(to), acc[r * chains][v]);
            for (int c = 1; c < chains; c++)
                sum = _mm512_add_epi32(sum, _mm512_srai_epi32(acc[r * chains + c][v], (unsigned)(2 * c)));
            _mm512_storeu_si512(to, sum);
        }
    }
}

/* How many sums a row has in each of a panel's columns: as many as find room. */
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

typedef void few_rows(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks, const uint8_t *run);

/* Memory line by line, and as many of a panel's vectors at a time as find room. One thread of a Zen 4 reads 30 GB/s that way,
 * two 39; in the other order 23 and 30. */
TARGET static void few_by_lines(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks,
                                const uint8_t *run) {
#define VECTORS_OF(n) ((n) <= SUMS / 4 ? 4 : (n) <= SUMS / 2 ? 2 : 1)
#define CASE(n)                                                                                                                \
    case n: packed(n, CHAINS((n)*VECTORS_OF(n)), VECTORS_OF(n), true, sums, a, a_stride, blocks, run); break;
    switch (rows) {
        EACH_COUNT(CASE)
    default: break;
    }
#undef CASE
}

/* A panel's vectors one after the other: the first reads every fourth line of the run, which lets the processor fetch the
 * others meanwhile. One thread of a Granite Rapids reads 21.5 GB/s that way, and 17 to 18.5 line by line. */
TARGET static void few_by_vectors(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks,
                                  const uint8_t *run) {
#define CASE(n)                                                                                                                \
    case n: packed(n, CHAINS(n), 1, false, sums, a, a_stride, blocks, run); break;
    switch (rows) {
        EACH_COUNT(CASE)
    default: break;
    }
#undef CASE
}

/* sums += what expanded steps give for `rows` rows, a constant. */
INLINE void expanded(int rows, int32_t *sums, const int8_t *a, int64_t a_stride, int64_t blocks, const uint8_t *steps) {
    enum { vectors = VECTORS };
    __m512i acc[ROWS][VECTORS];
    EACH_ROW(r) EACH_VECTOR(v) acc[r][v] = _mm512_loadu_si512(sums + r * BB_PANEL + 16 * v);
    for (int64_t i = 0; i < blocks * CRUMBS; i++, a += 4, steps += BB_STEP_BYTES) {
        __m512i codes[VECTORS];
        EACH_VECTOR(v) codes[v] = _mm512_loadu_si512(steps + 64 * v);
        EACH_ROW(r) {
            __m512i bytes = four(a + r * a_stride);
            EACH_VECTOR(v) acc[r][v] = add(acc[r][v], codes[v], bytes);
        }
    }
    EACH_ROW(r) EACH_VECTOR(v) _mm512_storeu_si512(sums + r * BB_PANEL + 16 * v, acc[r][v]);
}

INLINE void many(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks, const uint8_t *steps) {
    for (; rows >= ROWS; rows -= ROWS, sums += ROWS * BB_PANEL, a += ROWS * a_stride)
        expanded(ROWS, sums, a, a_stride, blocks, steps);
    switch (rows) {
    case 1: expanded(1, sums, a, a_stride, blocks, steps); break;
    case 2: expanded(2, sums, a, a_stride, blocks, steps); break;
    case 3: expanded(3, sums, a, a_stride, blocks, steps); break;
    case 4: expanded(4, sums, a, a_stride, blocks, steps); break;
    case 5: expanded(5, sums, a, a_stride, blocks, steps); break;
    default: break;
    }
}

TARGET void bb_ternary_dot_vnni(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks,
                                const uint8_t *panel) {
    memset(sums, 0, (size_t)(rows * BB_PANEL) * sizeof *sums);
    bool by_vectors = __builtin_cpu_is("intel");
    few_rows *few = by_vectors ? few_by_vectors : few_by_lines;
    /* a run stays in the first-level cache, unless it is read once */
    bool once = !by_vectors && rows <= SUMS / VECTORS;
    int64_t most = once ? LONG_RUN : BB_TERNARY_DOT_RUN;
    int64_t part = rows > SUMS / 2 ? (rows + 1) / 2 : rows; /* more rows at once have registers for one vector each alone */
    for (int64_t left = blocks; left > 0; left -= most) {
        int64_t n = left < most ? left : most;
        if (rows <= BB_TERNARY_DOT_MANY) {
            for (int64_t r = 0; r < rows; r += part) {
                int64_t count = rows - r < part ? rows - r : part;
                few(sums + r * BB_PANEL, a + r * a_stride, a_stride, count, n, panel);
            }
        } else {
            _Alignas(64) uint8_t steps[BB_TERNARY_DOT_RUN * 4 * BB_STEP_BYTES];
            bb_ternary_expand(BB_SIMD_AVX512, steps, panel, n);
            many(sums, a, a_stride, rows, n, steps);
        }
        a += n * BB_BLOCK_COLUMNS;
        panel += n * BB_BLOCK_BYTES;
    }
}

#endif
