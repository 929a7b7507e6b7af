// SPDX-License-Identifier: MIT
/* AVX2: products of codes 0..2 and int8 in pairs (vpmaddubsw), summed in 16 bits as long as they cannot overflow. */
#if defined(__x86_64__)

#include "ops/cpu/linear/dot_256.h"

enum { ROWS = 4, RUN = 64 /* k-steps; each adds at most 2 * 2 * 127 to a 16-bit sum */ };
_Static_assert(RUN * 508 < 1 << 15, "the sums of a run fit");

typedef __m256i tile_sums[ROWS][VECTORS];

#define EACH_ROW(r) _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)

/* The addition is in assembler: GCC 12 would add in another order and need more sums than there are registers. */
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

/* ---- dW -------------------------------------------------------------------------------------------------------------- */

/* c += a * x, where the panel has bytes x + 128. The sum of two products of magnitudes up to 127 fits in 16 bits, so one factor
 * is made positive by moving its sign to the other. */
INLINE void add_tile(int rows, int64_t row, const bb_dot_sums *out, const bb_dot_quads *a, int64_t k_steps,
                     const uint8_t *panel) {
    const __m256i sign = _mm256_set1_epi8((char)0x80), ones = _mm256_set1_epi16(1);
    for (int64_t column = 0; column < out->columns; column += TILE_COLUMNS) {
        tile_sums sums;
        EACH_ROW(r) EACH_VECTOR(v) sums[r][v] = _mm256_setzero_si256();
        for (int64_t i = 0; i < k_steps; i++) {
            const uint8_t *step = panel + i * BB_DOT_K_STEP_BYTES + 4 * column;
            __m256i x[VECTORS], size[VECTORS];
            EACH_VECTOR(v) {
                x[v] = _mm256_xor_si256(load(step + 32 * v), sign);
                size[v] = _mm256_abs_epi8(x[v]);
            }
            EACH_ROW(r) {
                __m256i q = broadcast4(a->left + i * BB_DOT_QUAD_ROWS + row + r);
                EACH_VECTOR(v) {
                    __m256i pairs = _mm256_maddubs_epi16(size[v], _mm256_sign_epi8(q, x[v]));
                    sums[r][v] = _mm256_add_epi32(sums[r][v], _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        EACH_ROW(r) {
            float *c = out->c + (row + r) * out->stride + column;
            bb_dot_output to = {.y = c, .dtype = BB_F32, .residual = out->add ? c : NULL, .columns = out->columns - column};
            finish_row(&to, 0, 0, sums[r], a->scales[row + r]);
        }
    }
}

static UNINSTRUMENTED void add(bb_dot_sums out, const bb_dot_quads *a, int64_t k_steps, const uint8_t *panel) {
    int64_t row = 0;
    for (; row + ROWS <= a->rows; row += ROWS) add_tile(ROWS, row, &out, a, k_steps, panel);
    for (; row < a->rows; row++) add_tile(1, row, &out, a, k_steps, panel);
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
const bb_dot_weight bb_dot_weight_avx2 = {.pack_quads = dot_pack_quads, .pack_codes = dot_pack_codes, .add = add};

#endif
