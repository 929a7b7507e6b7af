// SPDX-License-Identifier: MIT
#include "ops/cpu/linear/ternary_dense.h"

#include "ops/cpu/linear/ternary_dot.h"
#include "ops/cpu/vector/simd.h"

enum { STEPS = 4, LINE = 64, GROUPS = 4, FIFTH = 85 };
_Static_assert(STEPS *LINE == BB_BLOCK_BYTES && GROUPS * LINE == BB_BLOCK_BYTES, "a line is a step of all groups, or a group");

/* A step's line from a block of ternary.h: its codes as digits to the base 3 or 4, and 85 times those of the fifth block's line
 * at `place`, where there is one. */
BB_SIMD_INLINE void pack_step_body(uint8_t *line, const uint8_t *block, int step, int base, const uint8_t *fifth, int place) {
#pragma omp simd
    for (int j = 0; j < LINE; j++) {
        int number = 0;
        for (int g = GROUPS - 1; g >= 0; g--) number = base * number + (block[g * LINE + j] >> 2 * step & 3);
        line[j] = (uint8_t)(number + (fifth ? FIFTH * (fifth[j] >> 2 * place & 3) : 0));
    }
}
BB_SIMD_VARIANTS(pack_step, (uint8_t * line, const uint8_t *block, int step, int base, const uint8_t *fifth, int place),
                 (line, block, step, base, fifth, place))

void bb_ternary_dense_pack(bb_simd simd, uint8_t *dense, const uint8_t *panel, int64_t blocks) {
    pack_step_kernel *pack = pack_step_for(simd);
    for (; blocks >= BB_DENSE_OF; blocks -= BB_DENSE_OF, panel += BB_DENSE_OF * BB_BLOCK_BYTES)
        for (int i = 0; i < BB_DENSE_IN; i++)
            for (int s = 0; s < STEPS; s++, dense += LINE)
                pack(dense, panel + i * BB_BLOCK_BYTES, s, 3, panel + BB_DENSE_IN * BB_BLOCK_BYTES + s * LINE, i);
    for (; blocks > 0; blocks--, panel += BB_BLOCK_BYTES)
        for (int s = 0; s < STEPS; s++, dense += LINE) pack(dense, panel, s, 4, NULL, 0);
}

#if defined(__x86_64__)

#include "ops/cpu/linear/ternary_dot_simd.h"

#define TARGET __attribute__((target(VNNI ",avx512vbmi"), UNINSTRUMENTED))
#define INLINE static inline __attribute__((always_inline)) TARGET

enum {
    ROWS = 6,              /* that are multiplied together */
    RUN = 4 * BB_DENSE_OF, /* blocks that are unpacked at a time: they stay in the first-level cache */
    LONG_RUN = 8000        /* blocks; 64 times what a group's codes give for one is at most 2^31 / 8,256 */
};
_Static_assert(RUN % BB_DENSE_OF == 0 && LONG_RUN % BB_DENSE_OF == 0, "a run ends with five blocks");

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

/* What is left of each byte when 85 goes into it: twice the smaller of x and x - 85, which wraps where it would be negative. */
INLINE __m512i remainder_of(__m512i x) {
    const __m512i fifth = _mm512_set1_epi8(FIFTH);
    x = _mm512_min_epu8(x, _mm512_sub_epi8(x, fifth));
    return _mm512_min_epu8(x, _mm512_sub_epi8(x, fifth));
}

INLINE __m512i codes_of(digits d, __m512i number) { return _mm512_permutex2var_epi8(d.low, number, d.high); }

/* The codes of a line; what is left of it is the code of group s in the fifth block, and is put there in `fifth`: 85 is
 * 01010101, so it stands at each of its four places. */
INLINE __m512i part_line(digits d, const uint8_t *line, int s, __m512i *fifth) {
    __m512i x = _mm512_loadu_si512(line), number = remainder_of(x), place = _mm512_set1_epi8((char)(3 << 2 * s));
    *fifth = _mm512_or_si512(*fifth, _mm512_and_si512(_mm512_sub_epi8(x, number), place));
    return codes_of(d, number);
}

/* The codes of the groups from g on, each at its place. */
INLINE __m512i from_group(__m512i codes, int g) { return _mm512_and_si512(codes, _mm512_set1_epi8((char)(0xff << 2 * g))); }

/* ---- sums ------------------------------------------------------------------------------------------------------------ */

/* of[g]: what the groups from g on give, 4^h times for group h. A byte's codes need no parting but that. */
typedef struct nested {
    __m512i of[GROUPS];
} nested;

INLINE nested no_sums(void) {
    __m512i zero = _mm512_setzero_si512();
    return (nested){{zero, zero, zero, zero}};
}

INLINE void add_line(nested *sums, __m512i codes, __m512i a) {
    sums->of[0] = add(sums->of[0], codes, a);
#pragma GCC unroll 4
    for (int g = 1; g < GROUPS; g++) sums->of[g] = add(sums->of[g], from_group(codes, g), a);
}

/* Of the groups, one after the other: (BB_PANEL) += */
INLINE void add_groups(int32_t *sums, const nested *n) {
#pragma GCC unroll 4
    for (int g = 0; g < GROUPS; g++) {
        __m512i own = g + 1 < GROUPS ? _mm512_sub_epi32(n->of[g], n->of[g + 1]) : n->of[g];
        int32_t *to = sums + g * 16;
        _mm512_storeu_si512(to, _mm512_add_epi32(_mm512_loadu_si512(to), _mm512_srai_epi32(own, (unsigned)(2 * g))));
    }
}

/* ---- few rows ------------------------------------------------------------------------------------------------------- */

/* sums += what a panel gives for `rows` rows, a constant. With one row memory takes the time, with three and more the products:
 * taking lines apart hides behind both. */
INLINE void some_rows(int rows, int32_t *sums, const int8_t *a, int64_t a_stride, int64_t blocks, const uint8_t *dense) {
    const digits d = load_digits();
    nested n[ROWS];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) n[r] = no_sums();
    for (; blocks >= BB_DENSE_OF; blocks -= BB_DENSE_OF, a += BB_DENSE_OF * BB_BLOCK_COLUMNS)
        for (int i = 0; i < BB_DENSE_IN; i++) {
            __m512i fifth = _mm512_setzero_si512();
#pragma GCC unroll 4
            for (int s = 0; s < STEPS; s++, dense += LINE) {
                _mm_prefetch((const char *)dense + AHEAD, _MM_HINT_T0);
                __m512i codes = part_line(d, dense, s, &fifth);
#pragma GCC unroll 6
                for (int r = 0; r < rows; r++) add_line(&n[r], codes, four(a + r * a_stride + i * BB_BLOCK_COLUMNS + 4 * s));
            }
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++)
                add_line(&n[r], fifth, four(a + r * a_stride + BB_DENSE_IN * BB_BLOCK_COLUMNS + 4 * i));
        }
    for (int64_t step = 0; step < blocks * STEPS; step++, dense += LINE) {
        __m512i codes = _mm512_loadu_si512(dense);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) add_line(&n[r], codes, four(a + r * a_stride + 4 * step));
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) add_groups(sums + r * BB_PANEL, &n[r]);
}

/* In parts as even as can be. */
INLINE void all_rows(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks, const uint8_t *dense) {
    for (int64_t parts = (rows + ROWS - 1) / ROWS, n; parts > 0; parts--, rows -= n, sums += n * BB_PANEL, a += n * a_stride) {
        n = (rows + parts - 1) / parts;
        switch (n) {
        case 1: some_rows(1, sums, a, a_stride, blocks, dense); break;
        case 2: some_rows(2, sums, a, a_stride, blocks, dense); break;
        case 3: some_rows(3, sums, a, a_stride, blocks, dense); break;
        case 4: some_rows(4, sums, a, a_stride, blocks, dense); break;
        case 5: some_rows(5, sums, a, a_stride, blocks, dense); break;
        default: some_rows(ROWS, sums, a, a_stride, blocks, dense); break;
        }
    }
}

TARGET void bb_ternary_dot_dense(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks,
                                 const uint8_t *panel) {
    memset(sums, 0, (size_t)(rows * BB_PANEL) * sizeof *sums);
    for (; blocks > LONG_RUN; blocks -= LONG_RUN, a += LONG_RUN * BB_BLOCK_COLUMNS) {
        all_rows(sums, a, a_stride, rows, LONG_RUN, panel);
        panel += LONG_RUN / BB_DENSE_OF * BB_DENSE_IN * BB_BLOCK_BYTES;
    }
    all_rows(sums, a, a_stride, rows, blocks, panel);
}

/* ---- many: as training has them ---------------------------------------------------------------------------------------- */

/* lines: of `blocks` blocks, two bits a code. Returns where what was unpacked ends. */
INLINE const uint8_t *unpack(uint8_t *lines, const uint8_t *dense, int64_t blocks) {
    const digits d = load_digits();
    for (; blocks >= BB_DENSE_OF; blocks -= BB_DENSE_OF) {
        for (int i = 0; i < BB_DENSE_IN; i++, lines += BB_BLOCK_BYTES) {
            uint8_t *of_fifth = lines + (BB_DENSE_IN - i) * BB_BLOCK_BYTES + i * LINE;
            __m512i fifth = _mm512_setzero_si512();
#pragma GCC unroll 4
            for (int s = 0; s < STEPS; s++, dense += LINE) {
                _mm512_storeu_si512(lines + s * LINE, part_line(d, dense, s, &fifth));
            }
            _mm512_storeu_si512(of_fifth, fifth);
        }
        lines += BB_BLOCK_BYTES;
    }
    memcpy(lines, dense, (size_t)(blocks * BB_BLOCK_BYTES));
    return dense + blocks * BB_BLOCK_BYTES;
}

BB_SIMD_INLINE void part_groups_body(uint8_t *steps, const uint8_t *lines, int64_t count) {
    for (int64_t i = 0; i < count; i++, lines += LINE)
        for (int g = 0; g < GROUPS; g++, steps += LINE)
#pragma omp simd
            for (int j = 0; j < LINE; j++) steps[j] = (uint8_t)(lines[j] >> 2 * g & 3);
}
BB_SIMD_VARIANTS(part_groups, (uint8_t * steps, const uint8_t *lines, int64_t count), (steps, lines, count))

TARGET void bb_ternary_dense_expand(bb_simd simd, uint8_t *steps, const uint8_t *dense, int64_t blocks) {
    _Alignas(LINE) uint8_t lines[RUN * BB_BLOCK_BYTES];
    for (int64_t n; blocks > 0; blocks -= n, steps += n * STEPS * BB_STEP_BYTES) {
        n = blocks < RUN ? blocks : RUN;
        dense = unpack(lines, dense, n);
        part_groups_for(simd)(steps, lines, n * STEPS);
    }
}

#else

/* Never called: nothing is dense here. */
void bb_ternary_dense_expand(bb_simd simd, uint8_t *steps, const uint8_t *dense, int64_t blocks) {
    (void)simd, (void)steps, (void)dense, (void)blocks;
}

#endif
