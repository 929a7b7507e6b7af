// SPDX-License-Identifier: MIT
/* AVX2: products of codes 0..2 and int8 in pairs (vpmaddubsw), summed in 16 bits as long as they cannot overflow. */
#if defined(__x86_64__)

#include "ops/cpu/linear/dot_256.h"

enum { ROWS = 4, RUN = 64 /* k-steps; each adds at most 2 * 2 * 127 to a 16-bit sum */ };
_Static_assert(RUN * 508 < 1 << 15, "the sums of a run fit");
_Static_assert(BB_DOT_LEFT_ROWS % LANES == 0 && LANES == 2 * ROWS, "a vector of rows is two tiles");

typedef __m256i tile_sums[ROWS][VECTORS];

#define EACH_ROW(r) _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)

/* Additions are in assembler: GCC 12 would add in another order and need more sums than there are registers. */
INLINE __m256i add_pairs(__m256i sum, __m256i codes, __m256i a) {
    __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(_mm256_maddubs_epi16(codes, a)));
    return sum;
}

/* sums += a * panel, over a run of k-steps */
INLINE void multiply(int rows, tile_sums sums, const int8_t *a, int64_t a_stride, int64_t k_steps, const uint8_t *panel) {
    tile_sums pairs;
    EACH_ROW(r) EACH_VECTOR(v) pairs[r][v] = _mm256_setzero_si256();
    for (int64_t i = 0; i < k_steps; i++, a += 4, panel += BB_DOT_K_STEP_BYTES) {
        __m256i codes[VECTORS];
        EACH_VECTOR(v) codes[v] = load(panel + 32 * v);
        EACH_ROW(r) {
            __m256i bytes = broadcast4(a + r * a_stride);
            EACH_VECTOR(v) pairs[r][v] = add_pairs(pairs[r][v], codes[v], bytes);
        }
    }
    EACH_ROW(r)
    EACH_VECTOR(v)
    sums[r][v] = _mm256_add_epi32(sums[r][v], _mm256_madd_epi16(pairs[r][v], _mm256_set1_epi16(1)));
}

INLINE void int8_tile(int rows, int64_t row, const bb_dot_output *out, const bb_dot_rows *a, const bb_dot_panel *b) {
    for (int64_t column = 0; column < out->columns; column += TILE_COLUMNS) {
        tile_sums sums;
        EACH_ROW(r) EACH_VECTOR(v) sums[r][v] = _mm256_set1_epi32(-a->sums[row + r]);
        for (int64_t i = 0; i < b->k_steps; i += RUN)
            multiply(rows, sums, a->a + row * a->stride + 4 * i, a->stride, bb_min(b->k_steps - i, RUN),
                     b->codes + i * BB_DOT_K_STEP_BYTES + 4 * column);
        EACH_ROW(r) finish_row(out, row + r, column, sums[r], a->scales[row + r] * b->g);
    }
}

static UNINSTRUMENTED void int8(bb_dot_output out, bb_dot_rows a, bb_dot_panel b) {
    int64_t row = 0;
    for (; row + ROWS <= a.count; row += ROWS) int8_tile(ROWS, row, &out, &a, &b);
    switch (a.count - row) { /* constants: no registers are used for missing rows */
    case 1: int8_tile(1, row, &out, &a, &b); break;
    case 2: int8_tile(2, row, &out, &a, &b); break;
    case 3: int8_tile(3, row, &out, &a, &b); break;
    default: break;
    }
}

/* ---- dW, in int16: two products and their sum at once (vpmaddwd), and nothing to shift or to widen ------------------- */

enum { WORD_TOKENS = 2, PACK_STEPS = BB_DOT_PACK_TOKENS / WORD_TOKENS };

/* left: (BB_DOT_LEFT_ROWS / ROWS, k_steps, ROWS). Sums of 512 products fit; runs are shorter. */
static UNINSTRUMENTED void pack_left(bb_dot_left *a, const bb_dot_tokens *x) {
    float row[WORD_TOKENS][BB_DOT_LEFT_ROWS] = {{0}}, inverse[BB_DOT_LEFT_ROWS];
    int64_t k_steps = bb_ceil_div(x->tokens, WORD_TOKENS);
    dot_column_scales(a, inverse, x, INT16_MAX);
    for (int64_t k = 0; k < k_steps; k++) {
        for (int64_t i = 0; i < WORD_TOKENS; i++)
            if (k * WORD_TOKENS + i < x->tokens)
                dot_scaled_row(row[i], x, k * WORD_TOKENS + i);
            else
                memset(row[i], 0, sizeof row[i]);
        for (int64_t i = 0; i < BB_DOT_LEFT_ROWS; i += LANES) {
            __m256 f = _mm256_loadu_ps(inverse + i);
            __m256i even = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(row[0] + i), f));
            __m256i odd = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(row[1] + i), f));
            __m256i words = _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xaa);
            uint32_t *to = a->left + i * k_steps + k * ROWS;
            _mm_storeu_si128((__m128i *)(void *)to, _mm256_castsi256_si128(words));
            _mm_storeu_si128((__m128i *)(void *)(to + k_steps * ROWS), _mm256_extracti128_si256(words, 1));
        }
    }
}

/* A piece: (BB_DOT_COLUMNS / TILE_COLUMNS, its k-steps, TILE_COLUMNS) words. */
static UNINSTRUMENTED void pack_codes(uint8_t *panel, const int8_t *x, int64_t x_stride, int64_t tokens, int64_t columns) {
    int8_t part[WORD_TOKENS][BB_DOT_COLUMNS] = {{0}};
    int64_t k_steps = bb_ceil_div(tokens, WORD_TOKENS);
    for (int64_t k = 0; k < k_steps; k++, x += WORD_TOKENS * x_stride) {
        const int8_t *token[WORD_TOKENS] = {x, x + x_stride};
        for (int64_t i = 0; i < WORD_TOKENS; i++) {
            bool missing = k * WORD_TOKENS + i >= tokens;
            if (!missing && columns == BB_DOT_COLUMNS) continue;
            if (missing)
                memset(part[i], 0, sizeof part[i]);
            else
                memcpy(part[i], token[i], (size_t)columns);
            token[i] = part[i];
        }
        for (int64_t c = 0; c < BB_DOT_COLUMNS; c += TILE_COLUMNS) {
            __m128i even = _mm_loadu_si128((const __m128i *)(const void *)(token[0] + c));
            __m128i odd = _mm_loadu_si128((const __m128i *)(const void *)(token[1] + c));
            __m256i *to = (__m256i *)(void *)(panel + 4 * (c * k_steps + k * TILE_COLUMNS));
            _mm256_storeu_si256(to, _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(even, odd)));
            _mm256_storeu_si256(to + 1, _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(even, odd)));
        }
    }
}

INLINE __m256i add_words(__m256i sum, __m256i codes, __m256i q) {
    __asm__("vpaddd %1, %0, %0" : "+x"(sum) : "x"(_mm256_madd_epi16(codes, q)));
    return sum;
}

INLINE void add_tile(int64_t row, int64_t column, const bb_dot_sums *out, const bb_dot_left *a, int64_t k_steps,
                     const uint8_t *panel) {
    const int rows = ROWS; /* those that are missing are zeros */
    int64_t there = bb_min(a->rows - row, ROWS);
    tile_sums sums;
    for (int64_t r = 0; r < there; r++) _mm_prefetch((const char *)(out->c + (row + r) * out->stride + column), _MM_HINT_T0);
    EACH_ROW(r) EACH_VECTOR(v) sums[r][v] = _mm256_setzero_si256();
    const uint32_t *left = a->left + row * k_steps;
    for (int64_t first = 0; first < k_steps; first += PACK_STEPS) {
        int64_t steps = bb_min(k_steps - first, PACK_STEPS);
        const uint8_t *x = panel + first * BB_DOT_K_STEP_BYTES + 4 * column * steps;
#pragma GCC unroll 2
        for (int64_t i = 0; i < steps; i++, left += ROWS, x += 4 * TILE_COLUMNS) {
            __m256i codes[VECTORS];
            EACH_VECTOR(v) codes[v] = load(x + 32 * v);
            EACH_ROW(r) {
                __m256i q = broadcast4(left + r);
                EACH_VECTOR(v) sums[r][v] = add_words(sums[r][v], codes[v], q);
            }
        }
    }
    EACH_ROW(r) if (r < there) {
        float *c = out->c + (row + r) * out->stride + column;
        bb_dot_output to = {.y = c, .dtype = BB_F32, .residual = out->add ? c : NULL, .columns = out->columns - column};
        finish_row(&to, 0, 0, sums[r], a->scales[row + r]);
    }
}

/* The columns of a tile stay in the first-level cache for all rows. */
static UNINSTRUMENTED void add(bb_dot_sums out, const bb_dot_left *a, int64_t k_steps, const uint8_t *panel) {
    for (int64_t column = 0; column < out.columns; column += TILE_COLUMNS)
        for (int64_t row = 0; row < a->rows; row += ROWS) add_tile(row, column, &out, a, k_steps, panel);
}

/* Eight rows of W by 4 columns at a time: 4 x 4 transposes. */
static UNINSTRUMENTED void transpose(uint8_t *out, const uint8_t *k_steps, int64_t columns) {
    const __m128i order = _mm_set_epi8(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    for (int64_t k = 0; k < columns; k += 4, k_steps += BB_DOT_K_STEP_BYTES)
        for (int64_t n = 0; n < BB_DOT_COLUMNS; n += LANES) {
            __m256i rows = _mm256_shuffle_epi8(load(k_steps + 4 * n), _mm256_broadcastsi128_si256(order));
            uint8_t *to = out + n / 4 * BB_DOT_K_STEP_BYTES + k * 4;
            _mm_storeu_si128((__m128i *)(void *)to, _mm256_castsi256_si128(rows));
            _mm_storeu_si128((__m128i *)(void *)(to + BB_DOT_K_STEP_BYTES), _mm256_extracti128_si256(rows, 1));
        }
}

const bb_dot_set bb_dot_avx2 = {.k_steps = 1, .int8 = int8};
const bb_dot_operands bb_dot_operands_avx2 = {
    .row_sums = dot_row_sums, .absmax = dot_absmax, .quantize = dot_quantize, .transpose = transpose};
const bb_dot_weight bb_dot_weight_avx2 = {
    .word_tokens = WORD_TOKENS, .pack_left = pack_left, .pack_codes = pack_codes, .add = add};

#endif
