// SPDX-License-Identifier: MIT
#include <math.h>

#include "ops/cpu/device/entries.h"
#include "ops/cpu/linear/ternary_dense.h"
#include "ops/cpu/vector/simd.h"

#ifdef __x86_64__
#include <emmintrin.h>
#endif

enum { SUM_LANES = 16, QUANT_COLUMNS = 256, PREFETCH_ROWS = 4 };

bool bb_cpu_ternary_dense(bb_device *dev) { return bb_cpu_of(dev)->kernels.ternary_dot_dense != NULL; }

size_t bb_cpu_ternary_bytes(bb_device *dev, const bb_ternary *t) {
    (void)dev;
    return (size_t)bb_ternary_panels(t) * bb_ternary_panel_bytes(t);
}

/* The lanes fix the order of the sum for every instruction set. */
BB_SIMD_INLINE void abs_sum_body(double *sum, const float *w, int64_t n) {
    double lanes[SUM_LANES] = {0};
    int64_t i = 0;
    for (; i + SUM_LANES <= n; i += SUM_LANES)
        for (int l = 0; l < SUM_LANES; l++) lanes[l] += (double)fabsf(w[i + l]);
    for (; i < n; i++) lanes[i % SUM_LANES] += (double)fabsf(w[i]);
    for (int l = 1; l < SUM_LANES; l++) lanes[0] += lanes[l];
    *sum = lanes[0];
}
BB_SIMD_VARIANTS(abs_sum, (double *sum, const float *w, int64_t n), (sum, w, n))

void bb_cpu_sum_abs(bb_device *dev, double *sums, const float *w, int64_t n) {
    abs_sum_kernel *kernel = abs_sum_for(bb_cpu_of(dev)->kernels.simd);
#pragma omp parallel for num_threads(dev->threads) schedule(static) if (n >= BB_SIMD_SERIAL)
    for (int64_t i = 0; i < n; i += BB_NORM_TILE)
        kernel(&sums[i / BB_NORM_TILE], w + i, n - i < BB_NORM_TILE ? n - i : BB_NORM_TILE);
}

static float mean_abs(bb_device *dev, const float *w, int64_t n) {
    int64_t tiles = (n + BB_NORM_TILE - 1) / BB_NORM_TILE;
    double *sums = bb_cpu_shared(dev, (size_t)tiles * sizeof *sums), total = 0;
    if (!sums) return 0;
    bb_cpu_sum_abs(dev, sums, w, n);
    for (int64_t i = 0; i < tiles; i++) total += sums[i];
    return bb_absmean_scale(total, n);
}

/* The smallest x with x / g > limit in f32 division, so that a comparison decides exactly as the division would. The quotient
 * limit * g / g is exact for the limits used, 1/2 and 1. */
static float quotient_above(float limit, float g) {
    float x = limit * g;
    while (!(x / g > limit) && isfinite(x)) x = nextafterf(x, INFINITY);
    return x;
}

/* q + 1 for q = round_half_even(clip(w / g, -1, 1)): 1/2 becomes 0, NaN -1, both as in ref. */
BB_SIMD_INLINE void quantize_row_body(uint8_t *q, const float *w, float above_half, int64_t n) {
#pragma omp simd
    for (int64_t k = 0; k < n; k++) q[k] = (uint8_t)((w[k] >= above_half) + (w[k] > -above_half));
}
BB_SIMD_VARIANTS(quantize_row, (uint8_t * q, const float *w, float above_half, int64_t n), (q, w, above_half, n))

typedef uint32_t four_quads __attribute__((vector_size(16)));

/* Non-temporal if available: no panel is read before all are written, so its lines need not be loaded first. */
static inline void store(uint8_t *out, four_quads x) {
#ifdef __x86_64__
    _mm_stream_si128((__m128i *)(void *)out, (__m128i)x);
#else
    memcpy(out, &x, sizeof x);
#endif
}

/* Makes the stores visible to all threads. */
static inline void finish_stores(void) {
#ifdef __x86_64__
    _mm_sfence();
#endif
}

/* Packs rows first .. first+3 of a block: 16 columns of each, as bytes, from `column` on; a quad is four of them. */
static inline void pack_rows(uint8_t *block, uint8_t rows[BB_PANEL][QUANT_COLUMNS], int64_t first, int64_t column) {
    four_quads r[4];
    for (int i = 0; i < 4; i++) memcpy(&r[i], &rows[first + i][column], sizeof r[i]);
    four_quads low01 = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5),
               high01 = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
    four_quads low23 = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5),
               high23 = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
    store(block + 4 * first, __builtin_shufflevector(low01, low23, 0, 1, 4, 5) |
                                 __builtin_shufflevector(low01, low23, 2, 3, 6, 7) << 2 |
                                 __builtin_shufflevector(high01, high23, 0, 1, 4, 5) << 4 |
                                 __builtin_shufflevector(high01, high23, 2, 3, 6, 7) << 6);
}

/* Hardware prefetching follows the columns, but does not anticipate the next row. */
static inline void prefetch(const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) __builtin_prefetch(x + i);
}

static void quantize_panel(bb_simd simd, const bb_ternary_panel *p, uint8_t *panel, const float *w, int64_t K,
                           float above_half) {
    quantize_row_kernel *quantize_row = quantize_row_for(simd);
    _Alignas(64) uint8_t rows[BB_PANEL][QUANT_COLUMNS];
    memset(rows, 0, sizeof rows);
    for (int64_t k0 = 0; k0 < K; k0 += QUANT_COLUMNS) {
        int64_t columns = K - k0 < QUANT_COLUMNS ? K - k0 : QUANT_COLUMNS;
        for (int64_t r = 0; r < p->rows; r++) {
            if (r + PREFETCH_ROWS < p->rows) prefetch(w + (p->first + r + PREFETCH_ROWS) * K + k0, columns);
            quantize_row(rows[r], w + (p->first + r) * K + k0, above_half, columns);
            memset(rows[r] + columns, 0, (size_t)(-columns & 15));
        }
        for (int64_t k = 0; k < columns; k += BB_BLOCK_COLUMNS)
            for (int64_t r = 0; r < BB_PANEL; r += 4)
                pack_rows(panel + (k0 + k) / BB_BLOCK_COLUMNS * BB_BLOCK_BYTES, rows, r, k);
    }
    finish_stores();
}

/* Where a panel is packed at two bits: in its final place, or in scratch for finish_panel to convert to the dense layout. NULL
 * when out of memory. */
static uint8_t *begin_panel(bb_device *dev, const bb_ternary *t, const bb_ternary_panel *p) {
    if (!t->dense) return p->data;
    size_t bytes = (size_t)(bb_ternary_blocks(t) * BB_BLOCK_BYTES);
    uint8_t *panel = bb_cpu_scratch(dev, bytes);
    if (panel && p->rows < BB_PANEL) memset(panel, 0, bytes);
    return panel;
}

static void finish_panel(bb_device *dev, const bb_ternary *t, const bb_ternary_panel *p, const uint8_t *panel) {
    if (t->dense) bb_ternary_dense_pack(bb_cpu_of(dev)->kernels.simd, p->data, panel, bb_ternary_blocks(t));
}

/* Panels begin .. end-1; above_half is indexed by segment. */
static void quantize_panels(bb_device *dev, const bb_ternary *t, const float *w, const float *above_half, int64_t begin,
                            int64_t end) {
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic) if ((end - begin) * BB_PANEL * t->k > BB_SIMD_SERIAL)
    for (int64_t i = begin; i < end; i++) {
        bb_ternary_panel p = bb_ternary_panel_at(t, i);
        uint8_t *panel = begin_panel(dev, t, &p);
        if (!panel) continue;
        quantize_panel(bb_cpu_of(dev)->kernels.simd, &p, panel, w, t->k, above_half[p.segment]);
        finish_panel(dev, t, &p, panel);
    }
}

void bb_cpu_ternary_quant(bb_device *dev, const bb_ternary *t, const float *w) {
    float above_half[BB_MAX_SEGMENTS];
    for (int i = 0; i < t->segments; i++) {
        int64_t begin = bb_segment_begin(t, i) * t->k;
        t->scale[i] = mean_abs(dev, w + begin, t->segment_end[i] * t->k - begin);
        above_half[i] = quotient_above(0.5f, t->scale[i]);
    }
    quantize_panels(dev, t, w, above_half, 0, bb_ternary_panels(t));
}

_Static_assert(BB_TERNARY_ROWS % BB_PANEL == 0, "rows begin in the middle of a panel");

void bb_cpu_ternary_quant_rows(bb_device *dev, const bb_ternary *t, const float *w, int64_t first, int64_t rows) {
    float above_half = quotient_above(0.5f, *t->scale);
    quantize_panels(dev, t, w, &above_half, first / BB_PANEL, bb_panels_of(first + rows));
}

void bb_ternary_expand_panel(bb_simd simd, uint8_t *k_steps, const bb_ternary *t, const uint8_t *panel) {
    if (t->dense)
        bb_ternary_dense_expand(simd, k_steps, panel, bb_ternary_blocks(t));
    else
        bb_ternary_expand(simd, k_steps, panel, bb_ternary_blocks(t));
}

void bb_cpu_ternary_unpack(bb_device *dev, int8_t *q, const bb_ternary *t) {
    int64_t panels = bb_ternary_panels(t), K = t->k;
#pragma omp parallel for num_threads(dev->threads) schedule(static) if (t->n * K > BB_SIMD_SERIAL)
    for (int64_t i = 0; i < panels; i++) {
        bb_ternary_panel p = bb_ternary_panel_at(t, i);
        uint8_t *k_steps = bb_cpu_scratch(dev, (size_t)(bb_ternary_k_steps(t) * BB_K_STEP_BYTES));
        if (!k_steps) continue;
        bb_ternary_expand_panel(bb_cpu_of(dev)->kernels.simd, k_steps, t, p.data);
        for (int64_t r = 0; r < p.rows; r++)
            for (int64_t k = 0; k < K; k++) q[(p.first + r) * K + k] = bb_ternary_value(k_steps, r, k);
    }
}

/* Converts four bytes of codes in column order to a row's four bytes of a block: a 4 x 4 transpose of bit pairs. */
static inline uint32_t transpose_codes(uint32_t x) {
    uint32_t t = (x ^ x >> 6) & 0x00cc00ccu;
    x ^= t ^ t << 6;
    t = (x ^ x >> 12) & 0x0000f0f0u;
    return x ^ t ^ t << 12;
}

/* Zero past column K. */
static inline uint32_t load_codes(const uint8_t *row, int64_t bytes, int64_t at, int64_t K) {
    uint32_t x = 0;
    memcpy(&x, row + at, (size_t)(bytes - at < 4 ? bytes - at : 4));
    return K - 4 * at < 16 ? x & ((1u << 2 * (K - 4 * at)) - 1) : x;
}

/* Codes are read by cache lines; a panel's blocks are written whole. */
static void load_panel(const bb_ternary_panel *p, uint8_t *panel, const uint8_t *codes, int64_t row_bytes, int64_t K) {
    enum { LINE = 64 };
    for (int64_t at = 0; at < row_bytes; at += LINE)
        for (int64_t r = 0; r < p->rows; r++)
            for (int64_t i = at; i < at + LINE && i < row_bytes; i += 4) {
                uint32_t x = transpose_codes(load_codes(codes + (p->first + r) * row_bytes, row_bytes, i, K));
                memcpy(panel + (i * BB_PANEL) + 4 * r, &x, sizeof x);
            }
}

void bb_cpu_ternary_load(bb_device *dev, const bb_ternary *t, const uint8_t *codes) {
    int64_t panels = bb_ternary_panels(t), K = t->k, row_bytes = (K + 3) / 4;
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic) if (t->n * K > BB_SIMD_SERIAL)
    for (int64_t i = 0; i < panels; i++) {
        bb_ternary_panel p = bb_ternary_panel_at(t, i);
        uint8_t *panel = begin_panel(dev, t, &p);
        if (!panel) continue;
        load_panel(&p, panel, codes, row_bytes, K);
        finish_panel(dev, t, &p, panel);
    }
}

BB_SIMD_INLINE void clip_body(float *dw, const float *w, float above_one, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) dw[i] = fabsf(w[i]) >= above_one ? 0.0f : dw[i];
}
BB_SIMD_VARIANTS(clip, (float *dw, const float *w, float above_one, int64_t n), (dw, w, above_one, n))

void bb_cpu_ste_clip(bb_device *dev, float *dw, const float *w, const bb_ternary *t) {
    clip_kernel *clip = clip_for(bb_cpu_of(dev)->kernels.simd);
    for (int i = 0; i < t->segments; i++) {
        int64_t begin = bb_segment_begin(t, i), K = t->k;
        float above_one = quotient_above(1.0f, t->scale[i]);
#pragma omp parallel for num_threads(dev->threads) schedule(static) if (t->n * K > BB_SIMD_SERIAL)
        for (int64_t n = begin; n < t->segment_end[i]; n++) clip(dw + n * K, w + n * K, above_one, K);
    }
}
