// SPDX-License-Identifier: MIT
#include "ops/cpu/linear/dot_rows.h"

/* One k-step: 4 columns of 64 rows. The sum of four products of codes 0..2 and int8 fits in 16 bits. */
static inline void add_k_step(int32_t *restrict sums, const int8_t *restrict a, const uint8_t *restrict codes) {
    for (int n = 0; n < BB_DOT_COLUMNS; n++) {
        const uint8_t *four = codes + 4 * n;
        sums[n] += (int16_t)(a[0] * four[0] + a[1] * four[1] + a[2] * four[2] + a[3] * four[3]);
    }
}

static void finish_row(const bb_dot_output *out, int64_t row, const int32_t *sums, float scale) {
    float values[BB_DOT_COLUMNS];
    for (int n = 0; n < BB_DOT_COLUMNS; n++) values[n] = scale * (float)sums[n];
    if (out->dtype == BB_BF16) {
        bb_simd_round_to_bf16((bb_bf16 *)out->y + row * out->stride, values, out->columns);
        return;
    }
    const float *residual = out->residual ? out->residual + row * out->stride : NULL;
    float *y = (float *)out->y + row * out->stride;
    for (int64_t n = 0; n < out->columns; n++) y[n] = residual ? values[n] + residual[n] : values[n];
}

static void int8(bb_dot_output out, bb_dot_rows a, bb_dot_panel b) {
    enum { ROWS = 48 }; /* whose sums stay in the first-level cache */
    int32_t sums[ROWS][BB_DOT_COLUMNS];
    for (int64_t row = 0, rows; row < a.count; row += rows) {
        rows = bb_min(a.count - row, ROWS);
        for (int64_t r = 0; r < rows; r++)
            for (int n = 0; n < BB_DOT_COLUMNS; n++) sums[r][n] = -a.sums[row + r];
        for (int64_t i = 0; i < b.k_steps; i++)
            for (int64_t r = 0; r < rows; r++)
                add_k_step(sums[r], a.a + (row + r) * a.stride + 4 * i, b.codes + i * BB_DOT_K_STEP_BYTES);
        for (int64_t r = 0; r < rows; r++) finish_row(&out, row + r, sums[r], a.scales[row + r] * b.g);
    }
}

static void transpose(uint8_t *out, const uint8_t *k_steps, int64_t columns) {
    for (int64_t k = 0; k < columns; k += 4)
        for (int64_t n = 0; n < BB_DOT_COLUMNS; n += 4) { /* four rows by four columns */
            const uint8_t *src = k_steps + k / 4 * BB_DOT_K_STEP_BYTES + n * 4;
            uint8_t *dst = out + n / 4 * BB_DOT_K_STEP_BYTES + k * 4;
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) dst[4 * i + j] = src[4 * j + i];
        }
}

const bb_dot_set bb_dot_generic = {.k_steps = 1, .int8 = int8};
const bb_dot_operands bb_dot_operands_generic = {
    .row_sums = dot_row_sums, .absmax = dot_absmax, .quantize = dot_quantize, .transpose = transpose};
