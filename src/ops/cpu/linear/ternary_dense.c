// SPDX-License-Identifier: MIT
#include "ops/cpu/linear/ternary_dense.h"

#include "ops/cpu/linear/ternary_dot.h"

enum { K_STEPS = 4, LINE = BB_DENSE_LINE, GROUPS = BB_DENSE_GROUPS, FIFTH = BB_DENSE_FIFTH };
_Static_assert(K_STEPS *LINE == BB_BLOCK_BYTES && GROUPS * LINE == BB_BLOCK_BYTES,
               "a line is a step of all groups, or a group");

void bb_ternary_dense_pack(const bb_ternary_set *set, uint8_t *dense, const uint8_t *panel, int64_t blocks) {
    for (; blocks >= BB_DENSE_BLOCKS; blocks -= BB_DENSE_BLOCKS, panel += BB_DENSE_BLOCKS * BB_BLOCK_BYTES)
        for (int i = 0; i < BB_DENSE_STORED_BLOCKS; i++)
            for (int s = 0; s < K_STEPS; s++, dense += LINE)
                set->pack_k_step(dense, panel + i * BB_BLOCK_BYTES, s, 3,
                                 panel + BB_DENSE_STORED_BLOCKS * BB_BLOCK_BYTES + s * LINE, i);
    for (; blocks > 0; blocks--, panel += BB_BLOCK_BYTES)
        for (int s = 0; s < K_STEPS; s++, dense += LINE) set->pack_k_step(dense, panel, s, 4, NULL, 0);
}

#if defined(__x86_64__)

#include "ops/cpu/linear/ternary_dot_simd.h"

#define TARGET __attribute__((target(VNNI ",avx512vbmi"), UNINSTRUMENTED))
#define INLINE static inline __attribute__((always_inline)) TARGET

enum {
    ROWS = 6,                  /* that are multiplied together */
    RUN = 4 * BB_DENSE_BLOCKS, /* blocks that are unpacked at a time: they stay in the first-level cache */
    LONG_RUN = 8000            /* blocks; 64 times what a group's codes give for one is at most 2^31 / 8,256 */
};
_Static_assert(RUN % BB_DENSE_BLOCKS == 0 && LONG_RUN % BB_DENSE_BLOCKS == 0, "a run ends with five blocks");

/* ---- a line ---------------------------------------------------------------------------------------------------------- */

/* Entry n < 81: the digits of n in base 3 as four codes of two bits. */
typedef struct digits {
    __m512i low, high;
} digits;

INLINE digits load_digits(void) {
#define ROW3(n) (n), (n) + 1, (n) + 2
#define ROW9(n) ROW3(n), ROW3((n) + 4), ROW3((n) + 8)
#define ROW27(n) ROW9(n), ROW9((n) + 16), ROW9((n) + 32)
    static const uint8_t codes[2 * LINE] __attribute__((aligned(LINE))) = {ROW27(0), ROW27(64), ROW27(128)};
    return (digits){_mm512_load_si512(codes), _mm512_load_si512(codes + LINE)};
}

/* Each byte modulo 85: twice the smaller of x and x - 85, which wraps if negative. */
INLINE __m512i remainder_of(__m512i x) {
    const __m512i fifth = _mm512_set1_epi8(FIFTH);
    x = _mm512_min_epu8(x, _mm512_sub_epi8(x, fifth));
    return _mm512_min_epu8(x, _mm512_sub_epi8(x, fifth));
}

INLINE __m512i codes_of(digits d, __m512i number) { return _mm512_permutex2var_epi8(d.low, number, d.high); }

/* Decodes a line to its codes. The quotient by 85 is the code of group s in the fifth block and goes to `fifth`: 85 is
 * 01010101, so it already stands at each of its four places. */
INLINE __m512i decode_line(digits d, const uint8_t *line, int s, __m512i *fifth) {
    __m512i x = _mm512_loadu_si512(line), number = remainder_of(x), place = _mm512_set1_epi8((char)(3 << 2 * s));
    *fifth = _mm512_or_si512(*fifth, _mm512_and_si512(_mm512_sub_epi8(x, number), place));
    return codes_of(d, number);
}

/* The codes of groups g and up, each at its place. */
INLINE __m512i groups_from(__m512i codes, int g) { return _mm512_and_si512(codes, _mm512_set1_epi8((char)(0xff << 2 * g))); }

/* ---- sums ------------------------------------------------------------------------------------------------------------ */

/* from_group_on[g]: the sum over groups g and up, 4^h times for group h. This way the codes of a byte need only masking, not
 * shifting. */
typedef struct nested {
    __m512i from_group_on[GROUPS];
} nested;

INLINE nested zero_sums(void) {
    __m512i zero = _mm512_setzero_si512();
    return (nested){{zero, zero, zero, zero}};
}

INLINE void add_line(nested *sums, __m512i codes, __m512i a) {
    sums->from_group_on[0] = add(sums->from_group_on[0], codes, a);
#pragma GCC unroll 4
    for (int g = 1; g < GROUPS; g++) sums->from_group_on[g] = add(sums->from_group_on[g], groups_from(codes, g), a);
}

/* Separates the groups and adds them: (BB_PANEL) += */
INLINE void add_groups(int32_t *sums, const nested *n) {
#pragma GCC unroll 4
    for (int g = 0; g < GROUPS; g++) {
        __m512i own = g + 1 < GROUPS ? _mm512_sub_epi32(n->from_group_on[g], n->from_group_on[g + 1]) : n->from_group_on[g];
        int32_t *dst = sums + g * 16;
        _mm512_storeu_si512(dst, _mm512_add_epi32(_mm512_loadu_si512(dst), _mm512_srai_epi32(own, (unsigned)(2 * g))));
    }
}

/* ---- small batches --------------------------------------------------------------------------------------------------- */

/* sums += product of a panel with `rows` rows, a constant. One row is limited by memory, three and more by the products;
 * decoding lines hides behind both. */
INLINE void dot_rows(int rows, int32_t *sums, const int8_t *a, int64_t a_stride, int64_t blocks, const uint8_t *dense) {
    const digits d = load_digits();
    nested n[ROWS];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) n[r] = zero_sums();
    for (; blocks >= BB_DENSE_BLOCKS; blocks -= BB_DENSE_BLOCKS, a += BB_DENSE_BLOCKS * BB_BLOCK_COLUMNS)
        for (int i = 0; i < BB_DENSE_STORED_BLOCKS; i++) {
            __m512i fifth = _mm512_setzero_si512();
#pragma GCC unroll 4
            for (int s = 0; s < K_STEPS; s++, dense += LINE) {
                _mm_prefetch((const char *)dense + PREFETCH_BYTES, _MM_HINT_T0);
                __m512i codes = decode_line(d, dense, s, &fifth);
#pragma GCC unroll 6
                for (int r = 0; r < rows; r++)
                    add_line(&n[r], codes, broadcast4(a + r * a_stride + i * BB_BLOCK_COLUMNS + 4 * s));
            }
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++)
                add_line(&n[r], fifth, broadcast4(a + r * a_stride + BB_DENSE_STORED_BLOCKS * BB_BLOCK_COLUMNS + 4 * i));
        }
    for (int64_t k_step = 0; k_step < blocks * K_STEPS; k_step++, dense += LINE) {
        __m512i codes = _mm512_loadu_si512(dense);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) add_line(&n[r], codes, broadcast4(a + r * a_stride + 4 * k_step));
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) add_groups(sums + r * BB_PANEL, &n[r]);
}

/* In parts of nearly equal size. */
INLINE void dot_all_rows(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks, const uint8_t *dense) {
    for (int64_t parts = (rows + ROWS - 1) / ROWS, n; parts > 0; parts--, rows -= n, sums += n * BB_PANEL, a += n * a_stride) {
        n = (rows + parts - 1) / parts;
        switch (n) {
        case 1: dot_rows(1, sums, a, a_stride, blocks, dense); break;
        case 2: dot_rows(2, sums, a, a_stride, blocks, dense); break;
        case 3: dot_rows(3, sums, a, a_stride, blocks, dense); break;
        case 4: dot_rows(4, sums, a, a_stride, blocks, dense); break;
        case 5: dot_rows(5, sums, a, a_stride, blocks, dense); break;
        default: dot_rows(ROWS, sums, a, a_stride, blocks, dense); break;
        }
    }
}

TARGET void bb_ternary_dot_dense(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks,
                                 const uint8_t *panel) {
    memset(sums, 0, (size_t)(rows * BB_PANEL) * sizeof *sums);
    for (; blocks > LONG_RUN; blocks -= LONG_RUN, a += LONG_RUN * BB_BLOCK_COLUMNS) {
        dot_all_rows(sums, a, a_stride, rows, LONG_RUN, panel);
        panel += LONG_RUN / BB_DENSE_BLOCKS * BB_DENSE_STORED_BLOCKS * BB_BLOCK_BYTES;
    }
    dot_all_rows(sums, a, a_stride, rows, blocks, panel);
}

/* ---- large batches, as in training ----------------------------------------------------------------------------------- */

/* lines: `blocks` blocks at two bits per code. Returns the end of the input consumed. */
INLINE const uint8_t *unpack(uint8_t *lines, const uint8_t *dense, int64_t blocks) {
    const digits d = load_digits();
    for (; blocks >= BB_DENSE_BLOCKS; blocks -= BB_DENSE_BLOCKS) {
        for (int i = 0; i < BB_DENSE_STORED_BLOCKS; i++, lines += BB_BLOCK_BYTES) {
            uint8_t *of_fifth = lines + (BB_DENSE_STORED_BLOCKS - i) * BB_BLOCK_BYTES + i * LINE;
            __m512i fifth = _mm512_setzero_si512();
#pragma GCC unroll 4
            for (int s = 0; s < K_STEPS; s++, dense += LINE) {
                _mm512_storeu_si512(lines + s * LINE, decode_line(d, dense, s, &fifth));
            }
            _mm512_storeu_si512(of_fifth, fifth);
        }
        lines += BB_BLOCK_BYTES;
    }
    memcpy(lines, dense, (size_t)(blocks * BB_BLOCK_BYTES));
    return dense + blocks * BB_BLOCK_BYTES;
}

TARGET void bb_ternary_dense_expand(uint8_t *k_steps, const uint8_t *dense, int64_t blocks) {
    _Alignas(LINE) uint8_t lines[RUN * BB_BLOCK_BYTES];
    for (int64_t n; blocks > 0; blocks -= n, k_steps += n * K_STEPS * BB_K_STEP_BYTES) {
        n = blocks < RUN ? blocks : RUN;
        dense = unpack(lines, dense, n);
        for (int64_t i = 0; i < n * K_STEPS; i++)
            for (int g = 0; g < GROUPS; g++)
#pragma omp simd
                for (int j = 0; j < LINE; j++)
                    k_steps[(i * GROUPS + g) * LINE + j] = (uint8_t)(lines[i * LINE + j] >> 2 * g & 3);
    }
}

#endif
