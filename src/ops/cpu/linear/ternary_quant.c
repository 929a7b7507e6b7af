// SPDX-License-Identifier: MIT
#include <math.h>

#include "ops/cpu/device/entries.h"
#include "ops/cpu/linear/ternary_dense.h"
#include "ops/cpu/linear/ternary_set.h"
#include "ops/cpu/vector/simd.h"

#ifdef __x86_64__
#include <emmintrin.h>
#endif

enum { QUANT_COLUMNS = 256, PREFETCH_ROWS = 4 };

bool bb_cpu_ternary_dense(bb_device *dev) { return bb_cpu_of(dev)->kernels.ternary_dot_dense != NULL; }

size_t bb_cpu_ternary_bytes(bb_device *dev, const bb_ternary *t) {
    (void)dev;
    return (size_t)bb_ternary_panels(t) * bb_ternary_panel_bytes(t);
}

void bb_cpu_sum_abs(bb_device *dev, double *sums, const float *w, int64_t n) {
    const bb_ternary_set *set = bb_cpu_of(dev)->kernels.ternary;
#pragma omp parallel for num_threads(dev->threads) schedule(static) if (n >= BB_SIMD_SERIAL)
    for (int64_t i = 0; i < n; i += BB_NORM_TILE)
        sums[i / BB_NORM_TILE] = set->sum_abs(w + i, n - i < BB_NORM_TILE ? n - i : BB_NORM_TILE);
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

static void quantize_panel(const bb_ternary_set *set, const bb_ternary_panel *p, uint8_t *panel, const float *w, int64_t K,
                           float above_half) {
    _Alignas(64) uint8_t rows[BB_PANEL][QUANT_COLUMNS];
    memset(rows, 0, sizeof rows);
    for (int64_t k0 = 0; k0 < K; k0 += QUANT_COLUMNS) {
        int64_t columns = K - k0 < QUANT_COLUMNS ? K - k0 : QUANT_COLUMNS;
        for (int64_t r = 0; r < p->rows; r++) {
            if (r + PREFETCH_ROWS < p->rows) prefetch(w + (p->first + r + PREFETCH_ROWS) * K + k0, columns);
            set->quantize_row(rows[r], w + (p->first + r) * K + k0, above_half, columns);
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
    if (t->dense) bb_ternary_dense_pack(bb_cpu_of(dev)->kernels.ternary, p->data, panel, bb_ternary_blocks(t));
}

/* Panels begin .. end-1; above_half is indexed by segment. */
static void quantize_panels(bb_device *dev, const bb_ternary *t, const float *w, const float *above_half, int64_t begin,
                            int64_t end) {
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic) if ((end - begin) * BB_PANEL * t->k > BB_SIMD_SERIAL)
    for (int64_t i = begin; i < end; i++) {
        bb_ternary_panel p = bb_ternary_panel_at(t, i);
        uint8_t *panel = begin_panel(dev, t, &p);
        if (!panel) continue;
        quantize_panel(bb_cpu_of(dev)->kernels.ternary, &p, panel, w, t->k, above_half[p.segment]);
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

void bb_ternary_expand_panel(const bb_cpu_kernels *kernels, uint8_t *k_steps, const bb_ternary *t, const uint8_t *panel) {
    (t->dense ? kernels->ternary_expand_dense : kernels->ternary->expand)(k_steps, panel, bb_ternary_blocks(t));
}

void bb_cpu_ternary_unpack(bb_device *dev, int8_t *q, const bb_ternary *t) {
    int64_t panels = bb_ternary_panels(t), K = t->k;
#pragma omp parallel for num_threads(dev->threads) schedule(static) if (t->n * K > BB_SIMD_SERIAL)
    for (int64_t i = 0; i < panels; i++) {
        bb_ternary_panel p = bb_ternary_panel_at(t, i);
        uint8_t *k_steps = bb_cpu_scratch(dev, (size_t)(bb_ternary_k_steps(t) * BB_K_STEP_BYTES));
        if (!k_steps) continue;
        bb_ternary_expand_panel(&bb_cpu_of(dev)->kernels, k_steps, t, p.data);
        for (int64_t r = 0; r < p.rows; r++)
            for (int64_t k = 0; k < K; k++) q[(p.first + r) * K + k] = bb_ternary_value(k_steps, r, k);
    }
}

/* Codes are read by cache lines; a panel's blocks are written whole. The last columns are padded with zeros in a line of their own. */
static void load_panel(const bb_ternary_set *set, const bb_ternary_panel *p, uint8_t *panel, const uint8_t *codes, int64_t K) {
    enum { LINE = BB_TERNARY_LINE, BLOCKS = LINE / 4 };
    int64_t row_bytes = (K + 3) / 4, blocks = (K + BB_BLOCK_COLUMNS - 1) / BB_BLOCK_COLUMNS, at = 0;
    codes += p->first * row_bytes;
    for (; 4 * (at + LINE) <= K; at += LINE) set->load_line(panel + at * BB_PANEL, codes + at, row_bytes, p->rows);
    if (4 * at >= K) return;
    uint8_t last[BB_PANEL * LINE] = {0}, out[BLOCKS * BB_BLOCK_BYTES] = {0};
    for (int64_t r = 0; r < p->rows; r++) {
        uint8_t *to = last + r * LINE;
        memcpy(to, codes + r * row_bytes + at, (size_t)(row_bytes - at));
        if (K % 4) to[row_bytes - at - 1] &= (uint8_t)((1 << 2 * (K % 4)) - 1);
    }
    set->load_line(out, last, LINE, p->rows);
    for (int64_t i = at / 4; i < blocks; i++)
        memcpy(panel + i * BB_BLOCK_BYTES, out + (i - at / 4) * BB_BLOCK_BYTES, (size_t)(4 * p->rows));
}

void bb_cpu_ternary_load(bb_device *dev, const bb_ternary *t, const uint8_t *codes) {
    int64_t panels = bb_ternary_panels(t), K = t->k;
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic) if (t->n * K > BB_SIMD_SERIAL)
    for (int64_t i = 0; i < panels; i++) {
        bb_ternary_panel p = bb_ternary_panel_at(t, i);
        uint8_t *panel = begin_panel(dev, t, &p);
        if (!panel) continue;
        load_panel(bb_cpu_of(dev)->kernels.ternary, &p, panel, codes, K);
        finish_panel(dev, t, &p, panel);
    }
}

void bb_cpu_ste_clip(bb_device *dev, float *dw, const float *w, const bb_ternary *t) {
    const bb_ternary_set *set = bb_cpu_of(dev)->kernels.ternary;
    for (int i = 0; i < t->segments; i++) {
        int64_t begin = bb_segment_begin(t, i), K = t->k;
        float above_one = quotient_above(1.0f, t->scale[i]);
#pragma omp parallel for num_threads(dev->threads) schedule(static) if (t->n * K > BB_SIMD_SERIAL)
        for (int64_t n = begin; n < t->segment_end[i]; n++) set->clip(dw + n * K, w + n * K, above_one, K);
    }
}
