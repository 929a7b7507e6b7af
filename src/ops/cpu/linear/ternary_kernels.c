// SPDX-License-Identifier: MIT
/* Plain loops, which the compiler vectorizes for each instruction set. */
#include "ops/cpu/linear/ternary_set.h"

#include <math.h>

#include "ops/cpu/linear/ternary.h"
#include "ops/cpu/vector/lanes.h"

/* ---- quantization ------------------------------------------------------------------------------------------------------ */

/* The lanes fix the order of the sum for every instruction set. */
static double sum_abs(const float *w, int64_t n) {
    double lanes[SUMS] = {0};
    int64_t i = 0;
    for (; i + SUMS <= n; i += SUMS)
        for (int l = 0; l < SUMS; l++) lanes[l] += (double)fabsf(w[i + l]);
    for (; i < n; i++) lanes[i % SUMS] += (double)fabsf(w[i]);
    for (int l = 1; l < SUMS; l++) lanes[0] += lanes[l];
    return lanes[0];
}

/* 1/2 becomes 0, NaN -1, both as in ref. */
static void quantize_row(uint8_t *q, const float *w, float above_half, int64_t n) {
#pragma omp simd
    for (int64_t k = 0; k < n; k++) q[k] = (uint8_t)((w[k] >= above_half) + (w[k] > -above_half));
}

static void clip(float *dw, const float *w, float above_one, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) dw[i] = fabsf(w[i]) >= above_one ? 0.0f : dw[i];
}

/* ---- codes ------------------------------------------------------------------------------------------------------------- */

static void expand(uint8_t *k_steps, const uint8_t *panel, int64_t blocks) {
    for (int64_t i = 0; i < blocks; i++, panel += BB_BLOCK_BYTES)
        for (int step = 0; step < 4; step++, k_steps += BB_K_STEP_BYTES)
#pragma omp simd
            for (int j = 0; j < BB_K_STEP_BYTES; j++) k_steps[j] = (uint8_t)(panel[j] >> 2 * step & 3);
}

/* Converts four bytes of codes in column order to a row's four bytes of a block: a 4 x 4 transpose of bit pairs. */
LANES_INLINE uint32_t transpose_codes(uint32_t x) {
    uint32_t t = (x ^ x >> 6) & 0x00cc00ccu;
    x ^= t ^ t << 6;
    t = (x ^ x >> 12) & 0x0000f0f0u;
    return x ^ t ^ t << 12;
}

static void load_line(uint8_t *panel, const uint8_t *codes, int64_t row_bytes, int64_t rows) {
    enum { WORDS = BB_TERNARY_LINE / 4 };
    uint32_t words[BB_PANEL][WORDS];
    for (int64_t r = 0; r < rows; r++) {
        memcpy(words[r], codes + r * row_bytes, sizeof words[r]);
#pragma omp simd
        for (int i = 0; i < WORDS; i++) words[r][i] = transpose_codes(words[r][i]);
    }
    for (int i = 0; i < WORDS; i++, panel += BB_BLOCK_BYTES)
        for (int64_t r = 0; r < rows; r++) memcpy(panel + 4 * r, &words[r][i], sizeof words[r][i]);
}

static void pack_k_step(uint8_t *line, const uint8_t *block, int k_step, int base, const uint8_t *fifth, int place) {
#pragma omp simd
    for (int j = 0; j < BB_DENSE_LINE; j++) {
        int number = 0;
        for (int g = BB_DENSE_GROUPS - 1; g >= 0; g--)
            number = base * number + (block[g * BB_DENSE_LINE + j] >> 2 * k_step & 3);
        line[j] = (uint8_t)(number + (fifth ? BB_DENSE_FIFTH * (fifth[j] >> 2 * place & 3) : 0));
    }
}

/* ---- products of few rows ---------------------------------------------------------------------------------------------- */

static void finish_row(float *y, const float *residual, const int32_t *sums, int32_t offset, float scale, int64_t n) {
    if (residual) { /* NOLINT(bugprone-branch-clone): the analyzer does not see through the pragma */
#pragma omp simd
        for (int64_t i = 0; i < n; i++) y[i] = scale * (float)(sums[i] - offset) + residual[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) y[i] = scale * (float)(sums[i] - offset);
    }
}

static void columns(float *q, const uint8_t *k_steps, int64_t K) {
    for (int64_t k = 0; k < K; k++) {
        const uint8_t *codes = k_steps + k / 4 * BB_K_STEP_BYTES + k % 4;
        for (int n = 0; n < BB_PANEL; n++) q[k * BB_PANEL + n] = (float)(codes[4 * n] - 1);
    }
}

static void float_row(float *y, const float *residual, const float *x, const float *q, float g, int64_t K, int64_t n) {
    float sums[BB_PANEL] = {0};
    for (int64_t k = 0; k < K; k++, q += BB_PANEL)
        for (int i = 0; i < BB_PANEL; i++) sums[i] += x[k] * q[i];
    for (int64_t i = 0; i < n; i++) y[i] = (residual ? residual[i] : 0.0f) + g * sums[i];
}

static void to_f32(float *y, const void *x, bb_dtype dtype, float s, int64_t n) {
    if (dtype == BB_I8) { /* NOLINT(bugprone-branch-clone): the analyzer does not see through the pragma */
#pragma omp simd
        for (int64_t i = 0; i < n; i++) y[i] = (float)((const int8_t *)x)[i] * s;
    } else if (dtype == BB_BF16) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) y[i] = bb_f32_from_bf16(((const bb_bf16 *)x)[i]) * s;
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) y[i] = ((const float *)x)[i] * s;
    }
}

const bb_ternary_set SET_NAME(bb_ternary) = {.sum_abs = sum_abs,
                                             .quantize_row = quantize_row,
                                             .clip = clip,
                                             .expand = expand,
                                             .load_line = load_line,
                                             .pack_k_step = pack_k_step,
                                             .finish_row = finish_row,
                                             .columns = columns,
                                             .float_row = float_row,
                                             .to_f32 = to_f32};
