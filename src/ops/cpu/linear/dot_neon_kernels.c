// SPDX-License-Identifier: MIT
/* aarch64: products of bytes, four at a time for each sum (sdot), or eight for 2 x 2 sums (smmla, where there is I8MM). Codes are
 * 0..2, and fit signed bytes too. Compiled for both. */
#include "ops/cpu/linear/dot_rows.h"

#include <arm_neon.h>

#include "ops/cpu/linear/slabs.h"
#include "ops/cpu/linear/ternary.h"
#include "ops/cpu/linear/ternary_dot.h"
#include "ops/cpu/vector/lanes.h"

/* A tile's rows and vectors of four columns. A vector of a row holds STEPS k-steps; RUN of them are multiplied at a time. */
#if defined(__ARM_FEATURE_MATMUL_INT8)
enum { ROWS = 8, COLUMN_VECTORS = 2 };
#else
enum { ROWS = 4, COLUMN_VECTORS = 4 };
#endif
enum { TILE_COLUMNS = 4 * COLUMN_VECTORS, STEPS = 4, RUN = 64, MAX_ROWS = BB_DOT_LEFT_ROWS };
_Static_assert((int)MAX_ROWS >= (int)BB_SLAB_ROWS && MAX_ROWS % ROWS == 0, "there is room for all rows' sums");

LANES_INLINE int8x16_t load(const void *p) { return vld1q_s8(p); }

/* Rows of A, `count` of them, `stride` bytes apart. */
typedef struct left_rows {
    const int8_t *at;
    int64_t stride, count;
} left_rows;

/* A tile's rows from some k on; those that are missing repeat the last one. */
typedef struct tile_rows {
    const int8_t *row[ROWS];
} tile_rows;

LANES_INLINE tile_rows rows_at(const left_rows *a, int64_t row, int64_t k_step) {
    tile_rows t;
    LANES_EACH(r, ROWS) t.row[r] = a->at + bb_min(row + r, a->count - 1) * a->stride + 4 * k_step;
    return t;
}

/* sums += a * panel over k-steps first .. k_steps - 1, one by one. */
LANES_INLINE void multiply_rest(int32x4_t sums[ROWS][COLUMN_VECTORS], const tile_rows *a, int64_t first, int64_t k_steps,
                                const uint8_t *panel) {
    for (int64_t k = first; k < k_steps; k++) LANES_EACH(r, ROWS) {
            int32_t word;
            memcpy(&word, a->row[r] + 4 * k, sizeof word);
            int8x16_t left = vreinterpretq_s8_s32(vdupq_n_s32(word));
            LANES_EACH(n, COLUMN_VECTORS)
            sums[r][n] = vdotq_s32(sums[r][n], load(panel + k * BB_DOT_K_STEP_BYTES + 16 * n), left);
        }
}

#if defined(__ARM_FEATURE_MATMUL_INT8)
/* Pairs of columns, eight k each, of two k-steps after the other. */
typedef int8x16_t right_pairs[RUN / 2][2 * COLUMN_VECTORS];

LANES_INLINE void pack_right(right_pairs to, int64_t k_steps, const uint8_t *panel) {
    for (int64_t k = 0; k < k_steps / 2; k++, panel += 2 * BB_DOT_K_STEP_BYTES) LANES_EACH(n, COLUMN_VECTORS) {
            int32x4_t low = vreinterpretq_s32_s8(load(panel + 16 * n)),
                      high = vreinterpretq_s32_s8(load(panel + BB_DOT_K_STEP_BYTES + 16 * n));
            to[k][2 * n] = vreinterpretq_s8_s32(vzip1q_s32(low, high));
            to[k][2 * n + 1] = vreinterpretq_s8_s32(vzip2q_s32(low, high));
        }
}

/* In assembler: GCC 12 copies the sums around the intrinsic. */
LANES_INLINE int32x4_t dot_pairs(int32x4_t sum, int8x16_t rows, int8x16_t columns) {
    __asm__("smmla %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(rows), "w"(columns));
    return sum;
}

/* Pairs of rows by pairs of columns; their 2 x 2 sums become rows at the end. */
LANES_INLINE void multiply(int32x4_t sums[ROWS][COLUMN_VECTORS], const tile_rows *a, int64_t k_steps, const right_pairs right) {
    int32x4_t pairs[ROWS / 2][2 * COLUMN_VECTORS];
    LANES_EACH(r, ROWS / 2) LANES_EACH(n, 2 * COLUMN_VECTORS) pairs[r][n] = vdupq_n_s32(0);
    for (int64_t k = 0; k < k_steps; k += STEPS) LANES_EACH(r, ROWS / 2) {
            int64x2_t x = vreinterpretq_s64_s8(load(a->row[2 * r] + 4 * k));
            int64x2_t y = vreinterpretq_s64_s8(load(a->row[2 * r + 1] + 4 * k));
            int8x16_t low = vreinterpretq_s8_s64(vzip1q_s64(x, y)), high = vreinterpretq_s8_s64(vzip2q_s64(x, y));
            LANES_EACH(n, 2 * COLUMN_VECTORS)
            pairs[r][n] = dot_pairs(dot_pairs(pairs[r][n], low, right[k / 2][n]), high, right[k / 2 + 1][n]);
        }
    LANES_EACH(r, ROWS / 2) LANES_EACH(n, COLUMN_VECTORS) {
        int64x2_t x = vreinterpretq_s64_s32(pairs[r][2 * n]), y = vreinterpretq_s64_s32(pairs[r][2 * n + 1]);
        sums[2 * r][n] = vaddq_s32(sums[2 * r][n], vreinterpretq_s32_s64(vzip1q_s64(x, y)));
        sums[2 * r + 1][n] = vaddq_s32(sums[2 * r + 1][n], vreinterpretq_s32_s64(vzip2q_s64(x, y)));
    }
}
#else
LANES_INLINE void multiply(int32x4_t sums[ROWS][COLUMN_VECTORS], const tile_rows *a, int64_t k_steps, const uint8_t *panel) {
    int32x4_t acc[ROWS][COLUMN_VECTORS];
    LANES_EACH(r, ROWS) LANES_EACH(n, COLUMN_VECTORS) acc[r][n] = sums[r][n];
    for (int64_t k = 0; k < k_steps; k += STEPS, panel += STEPS * BB_DOT_K_STEP_BYTES) {
        int8x16_t left[ROWS], right[COLUMN_VECTORS];
        LANES_EACH(r, ROWS) left[r] = load(a->row[r] + 4 * k);
#define STEP(i)                                                                                                                \
    LANES_EACH(n, COLUMN_VECTORS) right[n] = load(panel + (i)*BB_DOT_K_STEP_BYTES + 16 * n);                                   \
    LANES_EACH(r, ROWS) LANES_EACH(n, COLUMN_VECTORS) acc[r][n] = vdotq_laneq_s32(acc[r][n], right[n], left[r], i);
        STEP(0) STEP(1) STEP(2) STEP(3)
#undef STEP
    }
    LANES_EACH(r, ROWS) LANES_EACH(n, COLUMN_VECTORS) sums[r][n] = acc[r][n];
}
#endif

/* The epilogue of a row: out = scale * sums, columns `column` on. */
LANES_INLINE void finish_row(const bb_dot_output *out, int64_t row, int64_t column, const int32x4_t *sums, float scale) {
    int64_t at = row * out->stride + column, columns = bb_min(out->columns - column, TILE_COLUMNS);
    for (int64_t n = 0; n < columns; n += 4) {
        int64_t there = bb_min(columns - n, 4);
        vf x = (vf)vcvtq_f32_s32(sums[n / 4]) * vset1(scale);
        if (out->dtype == BB_BF16) {
            vstore_bf16((bb_bf16 *)out->y + at + n, x, there);
            continue;
        }
        if (out->residual) x = x + vload_first(out->residual + at + n, there);
        vstore_first((float *)out->y + at + n, x, there);
    }
}

/* out = scales[r] * g * (a * panel - offsets[r]), by row; offsets: NULL for zeros. */
typedef struct epilogue {
    const int32_t *offsets;
    const float *scales;
    float g;
} epilogue;

LANES_INLINE void product(const bb_dot_output *out, const left_rows *a, int64_t k_steps, const uint8_t *panel,
                          const epilogue *e) {
    for (int64_t column = 0; column < out->columns; column += TILE_COLUMNS, panel += 4 * TILE_COLUMNS) {
        int32x4_t sums[MAX_ROWS][COLUMN_VECTORS];
        for (int64_t r = 0; r < bb_round_up(a->count, ROWS); r++)
            LANES_EACH(n, COLUMN_VECTORS) sums[r][n] = vdupq_n_s32(e->offsets && r < a->count ? -e->offsets[r] : 0);
        for (int64_t k = 0; k < k_steps; k += RUN) {
            int64_t steps = bb_min(k_steps - k, RUN), whole = steps / STEPS * STEPS;
            const uint8_t *b = panel + k * BB_DOT_K_STEP_BYTES;
#if defined(__ARM_FEATURE_MATMUL_INT8)
            right_pairs right;
            pack_right(right, whole, b);
#else
            const uint8_t *right = b;
#endif
            for (int64_t r = 0; r < a->count; r += ROWS) {
                tile_rows rows = rows_at(a, r, k);
                multiply(sums + r, &rows, whole, right);
                multiply_rest(sums + r, &rows, whole, steps, b);
            }
        }
        for (int64_t r = 0; r < a->count; r++) finish_row(out, r, column, sums[r], e->scales[r] * e->g);
    }
}

/* ---- forward and dx -------------------------------------------------------------------------------------------------- */

static void int8(bb_dot_output out, bb_dot_rows a, bb_dot_panel b) {
    const left_rows rows = {a.a, a.stride, a.count};
    const epilogue e = {a.sums, a.scales, b.g};
    product(&out, &rows, b.k_steps, b.codes, &e);
}

/* ---- few rows: codes are expanded in registers ------------------------------------------------------------------------- */

/* Sums of one row with half a panel, 32 rows of it. */
LANES_INLINE void dot_half(int32_t *sums, const int8_t *a, int64_t blocks, const uint8_t *panel) {
    enum { VECTORS_OF_HALF = BB_PANEL / 8 };
    int32x4_t acc[VECTORS_OF_HALF];
    const uint8x16_t mask = vdupq_n_u8(3);
    LANES_EACH(v, VECTORS_OF_HALF) acc[v] = vdupq_n_s32(0);
    for (int64_t i = 0; i < blocks; i++, a += BB_BLOCK_COLUMNS, panel += BB_BLOCK_BYTES) {
        int8x16_t x = load(a);
        LANES_EACH(v, VECTORS_OF_HALF) {
            uint8x16_t codes = vld1q_u8(panel + 16 * v);
            acc[v] = vdotq_laneq_s32(acc[v], vreinterpretq_s8_u8(vandq_u8(codes, mask)), x, 0);
            acc[v] = vdotq_laneq_s32(acc[v], vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(codes, 2), mask)), x, 1);
            acc[v] = vdotq_laneq_s32(acc[v], vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(codes, 4), mask)), x, 2);
            acc[v] = vdotq_laneq_s32(acc[v], vreinterpretq_s8_u8(vshrq_n_u8(codes, 6)), x, 3);
        }
    }
    LANES_EACH(v, VECTORS_OF_HALF) vst1q_s32(sums + 4 * v, acc[v]);
}

void SET_NAME(bb_ternary_dot)(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks,
                              const uint8_t *panel) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t half = 0; half < 2; half++)
            dot_half(sums + r * BB_PANEL + half * BB_PANEL / 2, a + r * a_stride, blocks, panel + half * BB_BLOCK_BYTES / 2);
}

/* ---- dW ---------------------------------------------------------------------------------------------------------------- */

/* left: (BB_DOT_LEFT_ROWS, k_steps), rows as they are multiplied */
static void pack_left(bb_dot_left *a, const bb_dot_tokens *x) {
    uint32_t words[BB_DOT_RUN_TOKENS / 4 * BB_DOT_LEFT_ROWS];
    bb_dot_left by_step = {words, a->sums, a->scales, 0};
    int64_t k_steps = bb_ceil_div(x->tokens, 4);
    dot_pack_left(&by_step, x);
    a->rows = by_step.rows;
    for (int64_t r = 0; r < BB_DOT_LEFT_ROWS; r++)
        for (int64_t k = 0; k < k_steps; k++) a->left[r * k_steps + k] = words[k * BB_DOT_LEFT_ROWS + r];
}

static void pack_codes(uint8_t *panel, const int8_t *x, int64_t x_stride, int64_t tokens, int64_t columns) {
    int8_t part[4][BB_DOT_COLUMNS] = {{0}};
    for (int64_t t = 0; t < tokens; t += 4, panel += BB_DOT_K_STEP_BYTES) {
        for (int64_t i = 0; i < 4; i++)
            if (t + i < tokens)
                memcpy(part[i], x + (t + i) * x_stride, (size_t)columns);
            else
                memset(part[i], 0, sizeof part[i]);
        for (int64_t c = 0; c < BB_DOT_COLUMNS; c += 16) {
            int8x16x4_t rows = {{load(part[0] + c), load(part[1] + c), load(part[2] + c), load(part[3] + c)}};
            vst4q_s8((int8_t *)panel + 4 * c, rows);
        }
    }
}

static void add(bb_dot_sums out, const bb_dot_left *a, int64_t k_steps, const uint8_t *panel) {
    const bb_dot_output to = {
        .y = out.c, .dtype = BB_F32, .residual = out.add ? out.c : NULL, .stride = out.stride, .columns = out.columns};
    const left_rows rows = {(const int8_t *)a->left, 4 * k_steps, a->rows};
    const epilogue e = {NULL, a->scales, 1.0f};
    product(&to, &rows, k_steps, panel, &e);
}

const bb_dot_set SET_NAME(bb_dot) = {.k_steps = STEPS, .int8 = int8};
const bb_dot_weight SET_NAME(bb_dot_weight) = {.word_tokens = 4, .pack_left = pack_left, .pack_codes = pack_codes, .add = add};
