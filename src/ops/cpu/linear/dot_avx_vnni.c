// SPDX-License-Identifier: MIT
/* AVX-VNNI: four products and their sum per instruction (vpdpbusd) on 256 bits. */
#if defined(__x86_64__)

#include "ops/cpu/linear/dot_256.h"
#include "ops/cpu/vector/dot_words.h"

/* 6 x 16 sums take 12 of 16 registers; two hold a k-step of the columns, one a row's 4 bytes. */
enum { ROWS = 6 };

typedef __m256i tile_sums[ROWS][VECTORS];

#define EACH_ROW(r) _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++)

INLINE __m256i dot4(__m256i sum, __m256i codes, __m256i a) {
    BB_DOT_BYTES_256(sum, codes, a);
    return sum;
}

/* sums += a * panel. Rows of a are row_bytes apart, their k-steps k_step_bytes. */
INLINE void multiply(int rows, tile_sums sums, const uint8_t *a, int64_t row_bytes, int64_t k_step_bytes, int64_t k_steps,
                     const uint8_t *panel) {
    for (int64_t i = 0; i < k_steps; i++, a += k_step_bytes, panel += BB_DOT_K_STEP_BYTES) {
        __m256i b[VECTORS];
        EACH_VECTOR(v) b[v] = load(panel + 32 * v);
        EACH_ROW(r) {
            __m256i bytes = broadcast4(a + r * row_bytes);
            EACH_VECTOR(v) sums[r][v] = dot4(sums[r][v], b[v], bytes);
        }
    }
}

/* `rows` is a constant in each call, so that no registers are used for missing rows. */
#define TILES(tile, count, ...)                                                                                                \
    do {                                                                                                                       \
        int64_t row = 0;                                                                                                       \
        for (; row + ROWS <= (count); row += ROWS) tile(ROWS, row, __VA_ARGS__);                                               \
        switch ((count)-row) {                                                                                                 \
        case 1: tile(1, row, __VA_ARGS__); break;                                                                              \
        case 2: tile(2, row, __VA_ARGS__); break;                                                                              \
        case 3: tile(3, row, __VA_ARGS__); break;                                                                              \
        case 4: tile(4, row, __VA_ARGS__); break;                                                                              \
        case 5: tile(5, row, __VA_ARGS__); break;                                                                              \
        default: break;                                                                                                        \
        }                                                                                                                      \
    } while (0)

INLINE void int8_tile(int rows, int64_t row, const bb_dot_output *out, const bb_dot_rows *a, const bb_dot_panel *b) {
    for (int64_t column = 0; column < out->columns; column += TILE_COLUMNS) {
        tile_sums sums;
        EACH_ROW(r) EACH_VECTOR(v) sums[r][v] = _mm256_set1_epi32(-a->sums[row + r]);
        multiply(rows, sums, (const uint8_t *)a->a + row * a->stride, a->stride, 4, b->k_steps, b->codes + 4 * column);
        EACH_ROW(r) finish_row(out, row + r, column, sums[r], a->scales[row + r] * b->g);
    }
}

static UNINSTRUMENTED void int8(bb_dot_output out, bb_dot_rows a, bb_dot_panel b) { TILES(int8_tile, a.count, &out, &a, &b); }

INLINE void add_tile(int rows, int64_t row, const bb_dot_sums *out, const bb_dot_left *a, int64_t k_steps,
                     const uint8_t *panel) {
    for (int64_t column = 0; column < out->columns; column += TILE_COLUMNS) {
        tile_sums sums;
        EACH_ROW(r) _mm_prefetch((const char *)(out->c + (row + r) * out->stride + column), _MM_HINT_T0);
        EACH_ROW(r) EACH_VECTOR(v) sums[r][v] = _mm256_set1_epi32(-128 * a->sums[row + r]);
        multiply(rows, sums, (const uint8_t *)(a->left + row), 4, BB_DOT_LEFT_ROWS * 4, k_steps, panel + 4 * column);
        EACH_ROW(r) {
            float *c = out->c + (row + r) * out->stride + column;
            bb_dot_output to = {.y = c, .dtype = BB_F32, .residual = out->add ? c : NULL, .columns = out->columns - column};
            finish_row(&to, 0, 0, sums[r], a->scales[row + r]);
        }
    }
}

static UNINSTRUMENTED void add(bb_dot_sums out, const bb_dot_left *a, int64_t k_steps, const uint8_t *panel) {
    TILES(add_tile, a->rows, &out, a, k_steps, panel);
}

const bb_dot_set bb_dot_avx_vnni = {.k_steps = 1, .int8 = int8};
const bb_dot_weight bb_dot_weight_avx_vnni = {
    .word_tokens = 4, .pack_left = dot_pack_left, .pack_codes = dot_pack_codes, .add = add};

#endif
