// SPDX-License-Identifier: MIT
/* dW of the ternary linear layer in integers, with AVX2. x is int8; over a run of tokens each column of dy, times the tokens'
 * scales, is quantized to 16 bits with scale max/32767. The run's sum is exact. Twice as many products per instruction as in
 * f32. Work is partitioned by shape alone. */
#include "core/math.h"
#include "ops/cpu/linear/linear_kernels.h"
#include "ops/cpu/vector/simd.h"

#if defined(__x86_64__)

#include <immintrin.h>

enum {
    TOKENS = 512, /* per run: 512 * 127 * 32767 < 2^31 */
    MAX_CODE = 32767,
    TILE = 96,       /* rows of dW whose dy is packed at once */
    ROWS = 6,        /* of dW in a register tile */
    COLUMNS = 16,    /* and columns, two vectors */
    PACK_PAIRS = 32, /* pairs of tokens of x that a thread packs at a time */
    PARALLEL = 400000
};

#define TARGET __attribute__((target("avx2")))
#define INLINE static inline __attribute__((always_inline)) TARGET

/* One run: both operands have tokens in pairs, as vpmaddwd adds them; an odd last one is paired with zeros. */
typedef struct weight_gradient {
    bb_device *dev;
    float *dw;
    const uint8_t *dy;
    bb_dtype dy_dtype;
    const int8_t *x;
    const float *s; /* (tokens) */
    int64_t N, K, tokens, pairs, panels;
    uint32_t *packed_x; /* (panels, pairs, COLUMNS) */
} weight_gradient;

BB_SIMD_INLINE uint32_t pair_of(int32_t first, int32_t second) { return ((uint32_t)first & 0xffffu) | (uint32_t)second << 16; }

/* ---- packing --------------------------------------------------------------------------------------------------------- */

TARGET static void pack_x(const weight_gradient *g, int64_t first, int64_t end) {
    for (int64_t p = first; p < end; p++)
        for (int64_t j = 0; j < g->panels; j++) {
            int8_t padded[2][COLUMNS] = {{0}};
            int64_t k = j * COLUMNS, n = bb_min(g->K - k, COLUMNS);
            bool both = 2 * p + 1 < g->tokens;
            const int8_t *low = g->x + 2 * p * g->K + k, *high = low + g->K;
            if (n < COLUMNS || !both) {
                memcpy(padded[0], low, (size_t)n);
                if (both) memcpy(padded[1], high, (size_t)n);
                low = padded[0];
                high = padded[1];
            }
            uint32_t *dst = g->packed_x + (j * g->pairs + p) * COLUMNS;
#pragma omp simd
            for (int c = 0; c < COLUMNS; c++) dst[c] = pair_of(low[c], high[c]);
        }
}

/* row = columns n0 .. n0+n-1 of a token's dy, times its scale; the rest of TILE is unchanged. */
INLINE void scaled_row(float *row, const weight_gradient *g, int64_t token, int64_t n0, int64_t n) {
    const void *dy = g->dy + (size_t)(token * g->N + n0) * bb_dtype_bytes(g->dy_dtype);
    float s = g->s[token];
    if (g->dy_dtype == BB_F32) { /* NOLINT(bugprone-branch-clone): the analyzer does not see through the pragma */
#pragma omp simd
        for (int64_t i = 0; i < n; i++) row[i] = ((const float *)dy)[i] * s;
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) row[i] = bb_f32_from_bf16(((const bb_bf16 *)dy)[i]) * s;
    }
}

/* packed: (pairs, TILE); scales: (TILE) */
TARGET static void pack_dy(const weight_gradient *g, uint32_t *packed, float *scales, int64_t n0, int64_t n) {
    float low[TILE] = {0}, high[TILE] = {0}, inverse[TILE];
    uint32_t max_bits[TILE] = {0}; /* bit patterns: magnitudes compare as integers, with NaN largest */
    for (int64_t m = 0; m < g->tokens; m++) {
        scaled_row(low, g, m, n0, n);
#pragma omp simd
        for (int i = 0; i < TILE; i++) {
            uint32_t bits = bb_bits_of_f32(low[i]) & 0x7fffffffu;
            max_bits[i] = bits > max_bits[i] ? bits : max_bits[i];
        }
    }
    for (int i = 0; i < TILE; i++) {
        scales[i] = bb_f32_from_bits(max_bits[i]) / MAX_CODE;
        if (scales[i] < BB_MIN_GRADIENT_SCALE) scales[i] = 0;
        inverse[i] = scales[i] == 0 ? 0 : 1 / scales[i];
    }
    for (int64_t p = 0; p < g->pairs; p++, packed += TILE) {
        scaled_row(low, g, 2 * p, n0, n);
        if (2 * p + 1 < g->tokens)
            scaled_row(high, g, 2 * p + 1, n0, n);
        else
            memset(high, 0, sizeof high);
#pragma omp simd
        for (int i = 0; i < TILE; i++)
            packed[i] = pair_of(bb_simd_round(low[i] * inverse[i]), bb_simd_round(high[i] * inverse[i]));
    }
}

/* ---- the product ----------------------------------------------------------------------------------------------------- */

/* dw, rows K apart, += scales * sum over pairs */
TARGET static void add_tile(float *dw, int64_t K, int64_t rows, int64_t columns, const uint32_t *dy, const float *scales,
                            const uint32_t *x, int64_t pairs) {
    __m256i sums[ROWS][2];
    for (int r = 0; r < ROWS; r++) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
    for (int64_t p = 0; p < pairs; p++, dy += TILE, x += COLUMNS) {
        __m256i x0 = _mm256_loadu_si256((const __m256i *)(const void *)x);
        __m256i x1 = _mm256_loadu_si256((const __m256i *)(const void *)(x + 8));
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++) {
            __m256i a = _mm256_set1_epi32((int32_t)dy[r]);
            sums[r][0] = _mm256_add_epi32(sums[r][0], _mm256_madd_epi16(a, x0));
            sums[r][1] = _mm256_add_epi32(sums[r][1], _mm256_madd_epi16(a, x1));
        }
    }
    float values[ROWS][COLUMNS];
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++) {
        __m256 scale = _mm256_set1_ps(scales[r]);
        _mm256_storeu_ps(values[r], _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sums[r][0])));
        _mm256_storeu_ps(values[r] + 8, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sums[r][1])));
    }
    for (int64_t r = 0; r < rows; r++, dw += K) {
        if (columns == COLUMNS)
            for (int c = 0; c < COLUMNS; c++) dw[c] += values[r][c];
        else
            for (int64_t c = 0; c < columns; c++) dw[c] += values[r][c];
    }
}

static void weight_tile(const weight_gradient *g, int64_t n0) {
    int64_t n = bb_min(g->N - n0, TILE);
    size_t dy_bytes = (size_t)(g->pairs * TILE) * sizeof(uint32_t);
    uint8_t *scratch = bb_cpu_scratch(g->dev, dy_bytes + TILE * sizeof(float));
    if (!scratch) return;
    uint32_t *dy = (uint32_t *)(void *)scratch;
    float *scales = (float *)(void *)(scratch + dy_bytes);
    pack_dy(g, dy, scales, n0, n);
    for (int64_t j = 0; j < g->panels; j++) /* a panel stays in the first-level cache */
        for (int64_t r = 0; r < n; r += ROWS)
            add_tile(g->dw + (n0 + r) * g->K + j * COLUMNS, g->K, bb_min(n - r, ROWS), bb_min(g->K - j * COLUMNS, COLUMNS),
                     dy + r, scales + r, g->packed_x + j * g->pairs * COLUMNS, g->pairs);
}

static void run(const weight_gradient *g) {
    int64_t tiles = (g->N + TILE - 1) / TILE;
#pragma omp parallel num_threads(g->dev->threads) if (g->tokens * g->N * g->K > PARALLEL)
    {
#pragma omp for schedule(dynamic)
        for (int64_t p = 0; p < g->pairs; p += PACK_PAIRS) pack_x(g, p, bb_min(p + PACK_PAIRS, g->pairs));
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < tiles; i++) weight_tile(g, i * TILE);
    }
}

void bb_linear_int16_weight_gradient(bb_device *dev, const bb_weight_gradient *w) {
    int64_t N = w->t->n, K = w->t->k;
    weight_gradient g = {.dev = dev, .dw = w->dw, .dy_dtype = w->dy_dtype, .N = N, .K = K};
    if (!w->add) dev->ops->zero(dev, w->dw, (size_t)(N * K) * sizeof *w->dw);
    g.panels = (K + COLUMNS - 1) / COLUMNS;
    g.packed_x = bb_cpu_shared(dev, (size_t)(g.panels * COLUMNS * ((bb_min(w->M, TOKENS) + 1) / 2)) * sizeof *g.packed_x);
    if (!g.packed_x) return;
    for (int64_t m = 0; m < w->M; m += TOKENS) {
        g.tokens = bb_min(w->M - m, TOKENS);
        g.pairs = (g.tokens + 1) / 2;
        g.dy = (const uint8_t *)w->dy + (size_t)(m * N) * bb_dtype_bytes(w->dy_dtype);
        g.x = (const int8_t *)w->x.data + m * K;
        g.s = w->x.scale + m;
        run(&g);
    }
}

#endif
