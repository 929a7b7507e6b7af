/* SPDX-License-Identifier: MIT */
#include "ops/cpu/ternary_dense.h"

#include "ops/cpu/simd.h"

enum { FIFTH = 85 };

BB_SIMD_INLINE void pack_block_body(uint8_t *dense, const uint8_t *block, const uint8_t *fifth, int place) {
#pragma omp simd
    for (int j = 0; j < BB_BLOCK_BYTES; j++) {
        int x = block[j];
        dense[j] =
            (uint8_t)(FIFTH * (fifth[j] >> 2 * place & 3) + (x & 3) + 3 * (x >> 2 & 3) + 9 * (x >> 4 & 3) + 27 * (x >> 6));
    }
}
BB_SIMD_VARIANTS(pack_block, (uint8_t * dense, const uint8_t *block, const uint8_t *fifth, int place),
                 (dense, block, fifth, place))

void bb_ternary_dense_pack(bb_cpu_level level, uint8_t *dense, const uint8_t *panel, int64_t blocks) {
    pack_block_kernel *pack = pack_block_for(level);
    for (; blocks >= BB_DENSE_OF; blocks -= BB_DENSE_OF, panel += BB_DENSE_OF * BB_BLOCK_BYTES)
        for (int i = 0; i < BB_DENSE_IN; i++, dense += BB_BLOCK_BYTES)
            pack(dense, panel + i * BB_BLOCK_BYTES, panel + BB_DENSE_IN * BB_BLOCK_BYTES, i);
    memcpy(dense, panel, (size_t)(blocks * BB_BLOCK_BYTES));
}

#if defined(__x86_64__)

#include "ops/cpu/ternary_dot_simd.h"

#define VBMI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi"), UNINSTRUMENTED))
#define VBMI_INLINE static inline __attribute__((always_inline)) VBMI

enum {
    vectors = VECTORS,
    RUN = 8 * BB_DENSE_OF, /* blocks that are unpacked at a time for several rows: in the first-level cache with these */
    LONG_RUN = 8000        /* blocks; a fifth of them give at most 4 * 4 * 170 * 127 each, which is a 6,200th of 2^31 */
};
_Static_assert(LONG_RUN % BB_DENSE_OF == 0, "a run ends with five blocks");

bool bb_ternary_dense_pays(bb_cpu_level level) {
    return level >= BB_CPU_AVX512_VNNI && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_is("amd");
}

/* Byte n, n < 81: its digits in base 3 as four codes. */
typedef struct digits {
    __m512i low, high;
} digits;

VBMI_INLINE digits load_digits(void) {
#define ROW3(n) (n), (n) + 1, (n) + 2
#define ROW9(n) ROW3(n), ROW3((n) + 4), ROW3((n) + 8)
#define ROW27(n) ROW9(n), ROW9((n) + 16), ROW9((n) + 32)
    static const uint8_t codes[2 * 64] __attribute__((aligned(64))) = {ROW27(0), ROW27(64), ROW27(128)};
    return (digits){_mm512_load_si512(codes), _mm512_load_si512(codes + 64)};
}

/* A byte's remainder when divided by 85: twice the smaller of x and x - 85, which wraps where it would be negative. */
VBMI_INLINE __m512i remainder_of(__m512i x) {
    const __m512i fifth = _mm512_set1_epi8(FIFTH);
    x = _mm512_min_epu8(x, _mm512_sub_epi8(x, fifth));
    return _mm512_min_epu8(x, _mm512_sub_epi8(x, fifth));
}

VBMI_INLINE __m512i codes_of(digits d, __m512i number) { return _mm512_permutex2var_epi8(d.low, number, d.high); }

VBMI const uint8_t *bb_ternary_dense_unpack(uint8_t *panel, const uint8_t *dense, int64_t blocks) {
    const digits d = load_digits();
    for (; blocks >= BB_DENSE_OF; blocks -= BB_DENSE_OF, panel += BB_BLOCK_BYTES) {
        __m512i fifth[VECTORS];
        EACH_VECTOR(v) fifth[v] = _mm512_setzero_si512();
        for (int i = 0; i < BB_DENSE_IN; i++, dense += BB_BLOCK_BYTES, panel += BB_BLOCK_BYTES) {
            EACH_VECTOR(v) {
                __builtin_prefetch(dense + AHEAD + 64 * v);
                __m512i x = _mm512_loadu_si512(dense + 64 * v), number = remainder_of(x);
                _mm512_storeu_si512(panel + 64 * v, codes_of(d, number));
                /* 85 is 01010101: x - number has the code at each of its four places */
                __m512i place = _mm512_set1_epi8((char)(3 << 2 * i));
                fifth[v] = _mm512_or_si512(fifth[v], _mm512_and_si512(_mm512_sub_epi8(x, number), place));
            }
        }
        EACH_VECTOR(v) _mm512_storeu_si512(panel + 64 * v, fifth[v]);
    }
    memcpy(panel, dense, (size_t)(blocks * BB_BLOCK_BYTES));
    return dense + blocks * BB_BLOCK_BYTES;
}

/* sums[c] += what the codes at each place, times 4 for each place before, give for a block's columns. */
VBMI_INLINE void add_block(__m512i sums[CRUMBS][VECTORS], const __m512i codes[VECTORS], const int8_t *a) {
    EACH_CRUMB(c) {
        __m512i bytes = four(a + 4 * c), place = _mm512_set1_epi8((char)(3 << 2 * c));
        EACH_VECTOR(v) sums[c][v] = add(sums[c][v], _mm512_and_si512(codes[v], place), bytes);
    }
}

/* sums += what a run gives for one row of a. What is left of a byte without its number is 85 times the fifth block's code, and
 * is multiplied as it is. */
VBMI_INLINE const uint8_t *one_row(int32_t *sums, const int8_t *a, int64_t blocks, const uint8_t *dense) {
    const digits d = load_digits();
    __m512i acc[CRUMBS][VECTORS], fifth[VECTORS], codes[VECTORS];
    EACH_VECTOR(v) {
        fifth[v] = _mm512_setzero_si512();
        EACH_CRUMB(c) acc[c][v] = _mm512_setzero_si512();
    }
    for (; blocks >= BB_DENSE_OF; blocks -= BB_DENSE_OF, a += BB_DENSE_OF * BB_BLOCK_COLUMNS)
        _Pragma("GCC unroll 4") for (int i = 0; i < BB_DENSE_IN; i++, dense += BB_BLOCK_BYTES) {
            __m512i bytes = four(a + BB_DENSE_IN * BB_BLOCK_COLUMNS + 4 * i);
            EACH_VECTOR(v) {
                _mm_prefetch((const char *)dense + AHEAD + 64 * v, _MM_HINT_T0);
                __m512i x = _mm512_loadu_si512(dense + 64 * v), number = remainder_of(x);
                fifth[v] = add(fifth[v], _mm512_sub_epi8(x, number), bytes);
                codes[v] = codes_of(d, number);
            }
            add_block(acc, codes, a + i * BB_BLOCK_COLUMNS);
        }
    for (; blocks > 0; blocks--, dense += BB_BLOCK_BYTES, a += BB_BLOCK_COLUMNS) {
        EACH_VECTOR(v) {
            _mm_prefetch((const char *)dense + AHEAD + 64 * v, _MM_HINT_T0);
            codes[v] = _mm512_loadu_si512(dense + 64 * v);
        }
        add_block(acc, codes, a);
    }
    const __m512i reciprocal = _mm512_set1_epi32((int32_t)0xfcfcfcfd); /* of 85, modulo 2^32: exact where 85 divides */
    EACH_VECTOR(v) {
        __m512i sum = _mm512_add_epi32(_mm512_loadu_si512(sums + 16 * v), _mm512_mullo_epi32(fifth[v], reciprocal));
        EACH_CRUMB(c) sum = _mm512_add_epi32(sum, _mm512_srai_epi32(acc[c][v], (unsigned)(2 * c)));
        _mm512_storeu_si512(sums + 16 * v, sum);
    }
    return dense;
}

VBMI void bb_ternary_dot_dense(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks,
                               const uint8_t *panel) {
    memset(sums, 0, (size_t)(rows * BB_PANEL) * sizeof *sums);
    for (int64_t n; blocks > 0; blocks -= n, a += n * BB_BLOCK_COLUMNS) {
        int64_t most = rows == 1 ? LONG_RUN : RUN;
        n = blocks < most ? blocks : most;
        if (rows == 1) {
            panel = one_row(sums, a, n, panel);
        } else {
            _Alignas(64) uint8_t run[RUN * BB_BLOCK_BYTES];
            panel = bb_ternary_dense_unpack(run, panel, n);
            bb_ternary_dot_vnni_add(sums, a, a_stride, rows, n, run, 0);
        }
    }
}

#else

bool bb_ternary_dense_pays(bb_cpu_level level) {
    (void)level;
    return false;
}

/* Never called: nothing is dense here. */
const uint8_t *bb_ternary_dense_unpack(uint8_t *panel, const uint8_t *dense, int64_t blocks) {
    (void)panel, (void)blocks;
    return dense;
}

#endif
