// SPDX-License-Identifier: MIT
#if defined(__x86_64__)

#include <immintrin.h>

#include "ops/cpu/optimizer/muon_blocks.h"
#include "ops/cpu/vector/transpose.h"

enum { LANES = 16, ROWS = 8 /* of a register tile, with two vectors of columns */ };

/* In assembler: GCC 12 copies the sums around the intrinsic. */
static inline __m512 dot2(__m512 sum, __m512i left, __m512i right) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(left), "v"(right));
    return sum;
}

static void multiply(float *c, bool add, const bb_bf16 *left, int64_t stride, const uint32_t *right, int64_t k_tiles) {
    for (int64_t r0 = 0; r0 < BB_MUON_SIDE; r0 += ROWS, left += ROWS * stride, c += ROWS * BB_MUON_SIDE) {
        __m512 sums[ROWS][2];
        const uint32_t *panel = right;
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < 2; v++)
                sums[r][v] = add ? _mm512_loadu_ps(c + r * BB_MUON_SIDE + v * LANES) : _mm512_setzero_ps();
        for (int64_t p = 0; p < k_tiles * LANES; p++, panel += BB_MUON_SIDE) {
            __m512i low = _mm512_loadu_si512(panel), high = _mm512_loadu_si512(panel + LANES);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                int32_t word;
                memcpy(&word, left + r * stride + 2 * p, sizeof word);
                __m512i pair = _mm512_set1_epi32(word);
                sums[r][0] = dot2(sums[r][0], pair, low);
                sums[r][1] = dot2(sums[r][1], pair, high);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < 2; v++) _mm512_storeu_ps(c + r * BB_MUON_SIDE + v * LANES, sums[r][v]);
    }
}

/* Transposes 16 words of 16 rows in registers on their way. */
static inline void store_transposed(uint32_t *to, int64_t stride, __m512i words[LANES]) {
    bb_transpose16(words);
    for (int i = 0; i < LANES; i++) _mm512_storeu_si512(to + i * stride, words[i]);
}

/* Row r of block c, rounded. */
static inline __m512i rounded_row(const float *c, int r) {
    const float *row = c + r * BB_MUON_SIDE;
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(row + LANES), _mm512_loadu_ps(row));
}

/* Rows 2p and 2p + 1 of block c, rounded and interleaved: columns 0..15 or, for `half` 1, 16..31. */
static inline __m512i rounded_pair(const float *c, int p, int half) {
    const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                                5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const float *row = c + 2 * p * BB_MUON_SIDE + half * LANES;
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(row + BB_MUON_SIDE), _mm512_loadu_ps(row));
    return _mm512_permutexvar_epi16(interleave, both);
}

static void store_rows(const bb_muon_symmetric *out, int64_t i, int64_t j, const float *c) {
    const int64_t stride = out->stride / 2;
    uint32_t *rows = (uint32_t *)(void *)out->rows, *to = rows + i * stride + j / 2;
    for (int r = 0; r < BB_MUON_SIDE; r++) _mm512_storeu_si512(to + r * stride, rounded_row(c, r));
    if (i == j) return;
    for (int half = 0; half < 2; half++) {
        __m512i words[LANES];
        for (int p = 0; p < LANES; p++) words[p] = rounded_pair(c, p, half);
        store_transposed(rows + (j + half * LANES) * stride + i / 2, stride, words);
    }
}

static void store_panels(const bb_muon_symmetric *out, int64_t i, int64_t j, const float *c) {
    uint32_t *to = out->panels + j / BB_MUON_SIDE * out->panel_words + i / 2 * BB_MUON_SIDE;
    for (int p = 0; p < LANES; p++)
        for (int half = 0; half < 2; half++)
            _mm512_storeu_si512(to + p * BB_MUON_SIDE + half * LANES, rounded_pair(c, p, half));
    if (i == j) return;
    to = out->panels + i / BB_MUON_SIDE * out->panel_words + j / 2 * BB_MUON_SIDE;
    for (int half = 0; half < 2; half++) {
        __m512i words[LANES];
        for (int r = 0; r < LANES; r++) words[r] = rounded_row(c, half * LANES + r);
        store_transposed(to + half * LANES, BB_MUON_SIDE, words);
    }
}

static void polynomial(float *c, const float *a, float diagonal) {
    const __m512 b = _mm512_set1_ps((float)BB_MUON_B), square = _mm512_set1_ps((float)BB_MUON_C);
    for (int e = 0; e < BB_MUON_BLOCK; e += LANES)
        _mm512_storeu_ps(c + e, _mm512_fmadd_ps(b, _mm512_loadu_ps(a + e), _mm512_mul_ps(square, _mm512_loadu_ps(c + e))));
    for (int d = 0; d < BB_MUON_SIDE; d++) c[d * BB_MUON_SIDE + d] += diagonal;
}

static void transpose(uint32_t *to, int64_t to_stride, const uint32_t *from, int64_t from_stride) {
    __m512i words[LANES];
    for (int i = 0; i < LANES; i++) words[i] = _mm512_loadu_si512(from + i * from_stride);
    store_transposed(to, to_stride, words);
}

const bb_muon_blocks bb_muon_blocks_avx512_bf16 = {.multiply = multiply};
const bb_muon_forms bb_muon_forms_avx512_bf16 = {
    .store_rows = store_rows, .store_panels = store_panels, .polynomial = polynomial, .transpose = transpose};

#endif
