// SPDX-License-Identifier: MIT
/* AVX-512 with BF16: vdpbf16ps on 512 bits. */
#if defined(__x86_64__)

#include "ops/cpu/linear/dot_512_pairs.h"
#include "ops/cpu/linear/dot_512_tile.h"

enum { LEFT_ROWS = 96 };

/* ---- rows times panels ---------------------------------------------------------------------------------------------- */

INLINE __m512i scaled(__m512i v, __m512 scale) { return _mm512_castps_si512(_mm512_mul_ps(_mm512_castsi512_ps(v), scale)); }

INLINE void bf16_tile(int rows, bool whole, int64_t row, const bb_dot_output *out, int64_t a_stride, const bb_dot_part *parts,
                      int count) {
    sums acc;
    EACH_ROW(r) EACH_VECTOR(v) acc[r][v] = _mm512_setzero_si512();
    for (int i = 0; i < count; i++) {
        if (i > 0) { /* the sums are in units of the previous part's scale */
            __m512 ratio = _mm512_set1_ps(parts[i - 1].g / parts[i].g);
            EACH_ROW(r) EACH_VECTOR(v) acc[r][v] = scaled(acc[r][v], ratio);
        }
        multiply(DOT_BF16, rows, acc, (left_operand){parts[i].a + row * a_stride, a_stride * 2, 4}, parts[i].k_steps,
                 parts[i].panel);
    }
    __m512 scale = _mm512_set1_ps(parts[count - 1].g);
    EACH_ROW(r) {
        __m512 values[VECTORS];
        EACH_VECTOR(v) values[v] = _mm512_mul_ps(scale, _mm512_castsi512_ps(acc[r][v]));
        store_row(whole, out, row + r, values);
    }
}

static UNINSTRUMENTED void multiply_rows(bb_dot_output out, int64_t a_stride, int64_t rows, const bb_dot_part *parts,
                                         int count) {
    TILES(bf16_tile, rows, out.columns, &out, a_stride, parts, count);
}

INLINE void add_tile(int rows, bool whole, int64_t row, const bb_dot_sums *out, const uint32_t *left, int64_t k_steps,
                     const uint8_t *panel) {
    sums acc;
    float *c = out->c + row * out->stride;
    EACH_ROW(r) EACH_VECTOR(v) acc[r][v] = _mm512_setzero_si512();
    EACH_ROW(r) EACH_VECTOR(v) _mm_prefetch((const char *)(c + r * out->stride + LANES * v), _MM_HINT_T0);
    multiply(DOT_BF16, rows, acc, (left_operand){left + row, 4, LEFT_ROWS * 4}, k_steps, panel);
    EACH_ROW(r) EACH_VECTOR(v) {
        __mmask16 lanes = whole ? (__mmask16)0xffff : lanes16(out->columns, LANES * v);
        float *at = c + r * out->stride + LANES * v;
        __m512 before = out->add ? _mm512_maskz_loadu_ps(lanes, at) : _mm512_setzero_ps();
        _mm512_mask_storeu_ps(at, lanes, _mm512_add_ps(_mm512_castsi512_ps(acc[r][v]), before));
    }
}

static UNINSTRUMENTED void add(bb_dot_sums out, const uint32_t *left, int64_t rows, int64_t k_steps, const void *panel,
                               const void *next) {
    (void)next;
    TILES(add_tile, rows, out.columns, &out, left, k_steps, panel);
}

/* ---- packing --------------------------------------------------------------------------------------------------------------- */

static void pack_left(uint32_t *left, const bb_dot_tokens *x, int64_t k_steps) {
    (void)k_steps; /* pairs need no padding */
    pack_pairs(left, LEFT_ROWS, x);
}

/* Converts bytes q + 1 in the low halves of 32 words, whose high halves are zero, to q in bf16; 3 gives zero too. */
INLINE __m512i ternary_words(__m512i words) {
    /* both bytes of a word index the same table: the low one 0..3 for the low byte of the result, the high one 4..7 */
    const __m512i table = _mm512_set1_epi64((int64_t)0x003f00bf00800080);
    __m512i both = _mm512_or_si512(words, _mm512_slli_epi16(words, 8));
    return _mm512_shuffle_epi8(table, _mm512_add_epi8(both, _mm512_set1_epi16(0x0400)));
}

static UNINSTRUMENTED void expand_panel(bb_bf16 *out, const uint8_t *from, int64_t k_steps) {
    const __m512i low = _mm512_set1_epi32(0xffff);
    for (int64_t i = 0; i < k_steps; i++, from += BB_DOT_K_STEP_BYTES, out += BB_DOT_K_STEP_BYTES) {
        EACH_VECTOR(v) {
            __m512i four = _mm512_loadu_si512(from + 64 * v); /* 16 columns of 4 k */
            __m512i first = _mm512_and_si512(four, low), second = _mm512_srli_epi32(four, 16);
            /* (k, k+1) from bytes to words */
            first = _mm512_or_si512(_mm512_and_si512(first, _mm512_set1_epi32(0xff)),
                                    _mm512_slli_epi32(_mm512_srli_epi32(first, 8), 16));
            second = _mm512_or_si512(_mm512_and_si512(second, _mm512_set1_epi32(0xff)),
                                     _mm512_slli_epi32(_mm512_srli_epi32(second, 8), 16));
            _mm512_storeu_si512(out + 32 * v, ternary_words(first));
            _mm512_storeu_si512(out + BB_DOT_K_STEP_BYTES / 2 + 32 * v, ternary_words(second));
        }
    }
}

static UNINSTRUMENTED void expand_rows(bb_bf16 *out, const uint8_t *from, int64_t columns) {
    /* in 8 bytes, two rows of 4 k each: from (row, k) to (k, row) */
    const int64_t first = 0x0703060205010400, second = 0x0f0b0e0a0d090c08;
    const __m256i interleave = _mm256_set_epi64x(second, first, second, first);
    for (int64_t k = 0; k < BB_DOT_COLUMNS; k += 4, from += BB_DOT_K_STEP_BYTES) {
        if (k >= columns) {
            for (int64_t pair = 0; pair < 32; pair++) memset(out + pair * 128 + k * 2, 0, 16);
            continue;
        }
        for (int64_t pair = 0; pair < 32; pair += 4) { /* pairs of rows */
            __m256i rows = _mm256_loadu_si256((const __m256i *)(const void *)(from + pair * 8));
            __m512i words = ternary_words(_mm512_cvtepu8_epi16(_mm256_shuffle_epi8(rows, interleave)));
            bb_bf16 *to = out + pair * 128 + k * 2;
            _mm_storeu_si128((__m128i *)(void *)to, _mm512_castsi512_si128(words));
            _mm_storeu_si128((__m128i *)(void *)(to + 128), _mm512_extracti32x4_epi32(words, 1));
            _mm_storeu_si128((__m128i *)(void *)(to + 256), _mm512_extracti32x4_epi32(words, 2));
            _mm_storeu_si128((__m128i *)(void *)(to + 384), _mm512_extracti32x4_epi32(words, 3));
        }
    }
}

const bb_bf16_operands bb_bf16_operands_avx512 = {
    .multiply = multiply_rows, .pack_pairs = pack_pairs, .expand_panel = expand_panel, .expand_rows = expand_rows};
const bb_bf16_set bb_bf16_avx512 = {
    .k_steps = 1, .rows = LEFT_ROWS, .columns = INT64_MAX, .tokens = 2048, .add = add, .pack_left = pack_left};

#endif
