// SPDX-License-Identifier: MIT
/* The ternary linear layer by dot products: rows of A are read in place if possible, B in panels. However the work is
 * partitioned, every sum runs over k in the same order. */
#include <math.h>

#include "core/arena.h"
#include "core/math.h"
#include "ops/cpu/linear/dot.h"
#include "ops/cpu/linear/linear_kernels.h"
#include "ops/cpu/vector/round.h"

#if defined(__x86_64__)

enum {
    ROW_TILE = 96,           /* rows of A in a tile; a multiple of the kernel's 6 */
    MIN_ROW_TILES = 8,       /* per thread; with fewer row tiles, columns are divided too */
    SLAB_BYTES = 8000000,    /* of panels expanded at a time: fits in the last-level cache */
    CACHED_BYTES = 12000000, /* of an output; a larger one is not read from the second-level caches */
    MAX_WHOLE_ROWS = 1536,   /* of W; its panels serve all their row tiles from the second-level cache as a whole */
    RUN_K_STEPS = 512,       /* otherwise: k-steps per run */
    MIN_PARALLEL = 1 << 18   /* multiplications that justify waking the threads */
};

static const bb_dot_set *set_of(bb_device *dev) { return bb_cpu_of(dev)->kernels.dot; }

/* ---- a product of rows with panels ----------------------------------------------------------------------------------- */

/* Divides the product into units of a row tile and a group of panels: all panels (a row tile stays in the second-level cache
 * while the panels stream past it), or fewer if there are few row tiles. */
typedef struct partition {
    int64_t M, panels, group, row_tiles, units;
} partition;

static partition partition_for(const bb_device *dev, int64_t M, int64_t panels) {
    partition c = {.M = M, .panels = panels, .group = bb_max(panels, 1), .row_tiles = bb_ceil_div(M, ROW_TILE)};
    int64_t min_tiles = (int64_t)MIN_ROW_TILES * dev->threads;
    if (c.row_tiles < min_tiles) c.group = bb_max(panels * c.row_tiles / min_tiles, 1);
    c.units = c.row_tiles * bb_ceil_div(panels, c.group);
    return c;
}

typedef struct unit {
    int64_t m0, rows, panel0, panel1;
} unit;

static unit unit_at(const partition *c, int64_t index) {
    int64_t m0 = index % c->row_tiles * ROW_TILE, panel0 = index / c->row_tiles * c->group;
    return (unit){m0, bb_min(c->M - m0, ROW_TILE), panel0, bb_min(panel0 + c->group, c->panels)};
}

/* ---- forward --------------------------------------------------------------------------------------------------------- */

static bb_dot_output output_at(float *y, const float *residual, int64_t N, int64_t m0, int64_t n0, int64_t columns,
                               bool non_temporal) {
    int64_t at = m0 * N + n0;
    return (bb_dot_output){y + at, BB_F32, residual ? residual + at : NULL, N, columns, non_temporal};
}

static void pad_rows(int8_t *padded, int64_t stride, const int8_t *a, int64_t rows, int64_t K) {
    for (int64_t r = 0; r < rows; r++) {
        memcpy(padded + r * stride, a + r * K, (size_t)K);
        memset(padded + r * stride + K, 0, (size_t)(stride - K));
    }
}

/* A tile of int8 rows, padded to whole k-steps. */
typedef struct int8_rows {
    const int8_t *a;
    int64_t stride;
    int32_t *sums; /* (ROW_TILE) */
} int8_rows;

static bool load_int8_rows(bb_device *dev, bb_rows x, const unit *u, int64_t K, int64_t k_steps, int8_rows *out) {
    int64_t stride = 4 * k_steps;
    size_t sums_bytes = ROW_TILE * sizeof(int32_t);
    uint8_t *scratch = bb_cpu_scratch(dev, sums_bytes + (stride == K ? 0 : (size_t)(ROW_TILE * stride)));
    if (!scratch) return false;
    *out = (int8_rows){(const int8_t *)x.data + u->m0 * K, stride, (int32_t *)(void *)scratch};
    bb_dot_row_sums(out->sums, out->a, u->rows, K);
    if (stride == K) return true;
    int8_t *padded = (int8_t *)scratch + sums_bytes;
    pad_rows(padded, stride, out->a, u->rows, K);
    out->a = padded;
    return true;
}

static void expand_int8(uint8_t *out, bb_simd simd, const bb_ternary *t, int64_t panel, int64_t k_steps) {
    int64_t available = bb_ternary_k_steps(t);
    bb_ternary_expand_panel(simd, out, t, bb_ternary_panel_at(t, panel).data);
    memset(out + available * BB_K_STEP_BYTES, 0, (size_t)((k_steps - available) * BB_K_STEP_BYTES));
}

/* Panel by panel: the thread that multiplies a panel also expands it, into its second-level cache, and applies it to all rows,
 * or to a group of them if there are few panels. */
static void forward_int8_by_panels(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    const bb_dot_set *set = set_of(dev);
    int64_t N = t->n, K = t->k, k_steps = bb_round_up(bb_ternary_k_steps(t), set->k_steps), stride = 4 * k_steps;
    int64_t panels = bb_ternary_panels(t), row_tiles = bb_ceil_div(M, ROW_TILE);
    int64_t groups = bb_min(bb_ceil_div((int64_t)MIN_ROW_TILES * dev->threads, panels), row_tiles);
    int64_t group_rows = bb_ceil_div(row_tiles, groups) * ROW_TILE;
    bool non_temporal = !residual && M * N * (int64_t)sizeof *y > CACHED_BYTES;
    size_t sums_bytes = bb_align_up((size_t)M * sizeof(int32_t));
    uint8_t *shared = bb_cpu_shared(dev, sums_bytes + (stride == K ? 0 : (size_t)(M * stride)));
    if (!shared) return;
    int32_t *sums = (int32_t *)(void *)shared;
    int8_t *padded = (int8_t *)shared + sums_bytes;
    const int8_t *a = stride == K ? (const int8_t *)x.data : padded;
#pragma omp parallel num_threads(dev->threads) if (M * N * K > MIN_PARALLEL)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < row_tiles; i++) {
            unit u = {.m0 = i * ROW_TILE, .rows = bb_min(M - i * ROW_TILE, ROW_TILE)};
            const int8_t *rows = (const int8_t *)x.data + u.m0 * K;
            bb_dot_row_sums(sums + u.m0, rows, u.rows, K);
            if (stride != K) pad_rows(padded + u.m0 * stride, stride, rows, u.rows, K);
        }
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < panels * groups; i++) {
            uint8_t *panel = bb_cpu_scratch(dev, (size_t)(k_steps * BB_K_STEP_BYTES));
            int64_t m0 = i % groups * group_rows, rows = bb_min(M - m0, group_rows);
            if (!panel || rows <= 0) continue;
            bb_ternary_panel p = bb_ternary_panel_at(t, i / groups);
            expand_int8(panel, bb_cpu_of(dev)->kernels.simd, t, i / groups, k_steps);
            set->int8(output_at(y, residual, N, m0, p.first, p.rows, non_temporal), a + m0 * stride, stride, rows, k_steps,
                      panel, sums + m0, x.scale + m0, t->scale[p.segment]);
        }
    }
}

/* Row tile by row tile: each stays in a second-level cache while the panels, expanded in slabs, stream past it. Faster when
 * products are so fast that streaming the rows would limit them. */
static void forward_int8_by_rows(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    const bb_dot_set *set = set_of(dev);
    int64_t N = t->n, k_steps = bb_round_up(bb_ternary_k_steps(t), set->k_steps), panels = bb_ternary_panels(t);
    int64_t panel_bytes = k_steps * BB_K_STEP_BYTES;
    int64_t slab = bb_min(bb_max(SLAB_BYTES / panel_bytes, 1), panels);
    bool non_temporal = !residual && M * N * (int64_t)sizeof *y > CACHED_BYTES;
    uint8_t *expanded = bb_cpu_shared(dev, (size_t)(slab * panel_bytes));
    if (!expanded) return;
    for (int64_t first = 0; first < panels; first += slab) {
        partition c = partition_for(dev, M, bb_min(panels - first, slab));
#pragma omp parallel num_threads(dev->threads) if (M * N * t->k > MIN_PARALLEL)
        {
#pragma omp for schedule(dynamic)
            for (int64_t j = 0; j < c.panels; j++)
                expand_int8(expanded + j * panel_bytes, bb_cpu_of(dev)->kernels.simd, t, first + j, k_steps);
            set->open();
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < c.units; i++) {
                unit u = unit_at(&c, i);
                int8_rows rows;
                if (!load_int8_rows(dev, x, &u, t->k, k_steps, &rows)) continue;
                for (int64_t j = u.panel0; j < u.panel1; j++) {
                    bb_ternary_panel p = bb_ternary_panel_at(t, first + j);
                    set->int8(output_at(y, residual, N, u.m0, p.first, p.rows, non_temporal), rows.a, rows.stride, u.rows,
                              k_steps, expanded + j * panel_bytes, rows.sums, x.scale + u.m0, t->scale[p.segment]);
                }
            }
            set->close();
        }
    }
}

/* Rows of bf16: in place, or copied with a trailing zero if K is odd. */
static const bb_bf16 *even_rows(const bb_bf16 *x, int64_t rows, int64_t K, bb_bf16 *buffer) {
    if (K % 2 == 0) return x;
    for (int64_t r = 0; r < rows; r++) {
        memcpy(buffer + r * (K + 1), x + r * K, (size_t)K * sizeof *x);
        buffer[r * (K + 1) + K] = 0;
    }
    return buffer;
}

static void forward_bf16(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    int64_t N = t->n, K = t->k, k_steps = (K + 1) / 2, panels = bb_ternary_panels(t);
    int64_t source_k_steps = bb_ternary_k_steps(t);
    size_t panel_bytes = (size_t)source_k_steps * BB_K_STEP_BYTES * sizeof(bb_bf16);
    int64_t slab = bb_min(bb_max(SLAB_BYTES / (int64_t)panel_bytes, 1), panels);
    uint8_t *expanded = bb_cpu_shared(dev, (size_t)slab * panel_bytes);
    if (!expanded) return;
    for (int64_t first = 0; first < panels; first += slab) {
        partition c = partition_for(dev, M, bb_min(panels - first, slab));
#pragma omp parallel num_threads(dev->threads) if (M * N * K > MIN_PARALLEL)
        {
#pragma omp for schedule(dynamic)
            for (int64_t j = 0; j < c.panels; j++) {
                uint8_t *codes = bb_cpu_scratch(dev, (size_t)(source_k_steps * BB_K_STEP_BYTES));
                if (!codes) continue;
                bb_ternary_expand_panel(bb_cpu_of(dev)->kernels.simd, codes, t, bb_ternary_panel_at(t, first + j).data);
                bb_dot_expand_panel((bb_bf16 *)(void *)(expanded + (size_t)j * panel_bytes), codes, source_k_steps);
            }
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < c.units; i++) {
                unit u = unit_at(&c, i);
                bb_bf16 *buffer = bb_cpu_scratch(dev, (size_t)(ROW_TILE * k_steps * 2) * sizeof *buffer);
                if (!buffer) continue;
                const bb_bf16 *a = even_rows((const bb_bf16 *)x.data + u.m0 * K, u.rows, K, buffer);
                for (int64_t j = u.panel0; j < u.panel1; j++) {
                    bb_ternary_panel p = bb_ternary_panel_at(t, first + j);
                    bb_dot_part part = {a, expanded + (size_t)j * panel_bytes, k_steps, t->scale[p.segment]};
                    bb_dot_bf16(output_at(y, residual, N, u.m0, p.first, p.rows, false), k_steps * 2, u.rows, &part, 1);
                }
            }
        }
    }
}

void bb_linear_dot_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    if (x.dtype == BB_I8 && set_of(dev)->int8_by_rows)
        forward_int8_by_rows(dev, y, residual, x, t, M);
    else if (x.dtype == BB_I8)
        forward_int8_by_panels(dev, y, residual, x, t, M);
    else
        forward_bf16(dev, y, residual, x, t, M);
}

/* ---- backward, dx ---------------------------------------------------------------------------------------------------- */

/* W as B: a panel has 64 columns k of W, and each segment's rows in it are a part, padded to whole panels of W's rows. In bf16,
 * or in int8 if the layer's input is int8: dy, multiplied by the scales of W, is then quantized row by row like activations,
 * and the product is exact. */
typedef struct input_gradient {
    bb_device *dev;
    const bb_dot_set *set;
    bb_bf16 *dx;
    const void *dy;
    bb_dtype dy_dtype;
    const bb_ternary *t;
    bool int8;
    bool in_place;                       /* dy is bf16 and its parts are read in place */
    int64_t a_stride;                    /* between rows of A: of dy, or of its copy in scratch */
    int64_t part_rows[BB_MAX_SEGMENTS];  /* rows of W */
    int64_t part_begin[BB_MAX_SEGMENTS]; /* where they begin in a row of A */
    int64_t source_panels, k_panels;     /* of W's rows, and of its columns */
    size_t panel_bytes;
    uint8_t *expanded;
} input_gradient;

static const bb_bf16 *input_gradient_rows(const input_gradient *g, const unit *u, bb_bf16 *buffer) {
    int64_t N = g->t->n;
    if (g->in_place) return (const bb_bf16 *)g->dy + u->m0 * N;
    for (int64_t r = 0; r < u->rows; r++)
        for (int i = 0; i < g->t->segments; i++) {
            int64_t begin = bb_segment_begin(g->t, i), n = g->part_rows[i], src = (u->m0 + r) * N + begin;
            bb_bf16 *dst = buffer + r * g->a_stride + g->part_begin[i];
            if (g->dy_dtype == BB_F32)
                bb_round_avx512bf16(dst, (const float *)g->dy + src, n);
            else
                memcpy(dst, (const bb_bf16 *)g->dy + src, (size_t)n * sizeof *dst);
            if (n % 2) dst[n] = 0;
        }
    return buffer;
}

/* One panel if W has many rows: run by run, so that each run of the panel serves all row tiles from the second-level cache. The
 * sums are kept in `sums` (ROW_TILE, BB_PANEL) meanwhile. */
static void input_gradient_by_runs(bb_dot_output out, int64_t a_stride, int64_t rows, const bb_dot_part *parts, int count,
                                   float *sums) {
    memset(sums, 0, (size_t)(rows * BB_PANEL) * sizeof *sums);
    bb_dot_output sum = {sums, BB_F32, sums, BB_PANEL, BB_PANEL, false};
    for (int i = 0; i < count; i++) {
        bb_dot_part run = parts[i];
        for (int64_t left = parts[i].k_steps; left > 0; left -= run.k_steps) {
            run.k_steps = bb_min(left, RUN_K_STEPS);
            bb_dot_bf16(sum, a_stride, rows, &run, 1);
            run.a += 2 * run.k_steps;
            run.panel = (const uint8_t *)run.panel + run.k_steps * BB_DOT_K_STEP_BYTES;
        }
    }
    for (int64_t r = 0; r < rows; r++) bb_round_avx512bf16((bb_bf16 *)out.y + r * out.stride, sums + r * BB_PANEL, out.columns);
}

static void input_gradient_unit(const input_gradient *g, const unit *u, int64_t first_panel) {
    const size_t sums_bytes = ROW_TILE * BB_PANEL * sizeof(float);
    size_t a_bytes = g->in_place ? 0 : (size_t)(ROW_TILE * g->a_stride) * sizeof(bb_bf16);
    uint8_t *scratch = bb_cpu_scratch(g->dev, sums_bytes + a_bytes);
    if (!scratch) return;
    const bb_bf16 *a = input_gradient_rows(g, u, (bb_bf16 *)(void *)(scratch + sums_bytes));
    int64_t K = g->t->k;
    for (int64_t j = u->panel0; j < u->panel1; j++) {
        const uint8_t *panel = g->expanded + (size_t)j * g->panel_bytes;
        bb_dot_part parts[BB_MAX_SEGMENTS];
        for (int i = 0; i < g->t->segments; i++) {
            parts[i] = (bb_dot_part){a + g->part_begin[i], panel, (g->part_rows[i] + 1) / 2, g->t->scale[i]};
            panel += bb_panels_of(g->part_rows[i]) * BB_PANEL * BB_PANEL * (int64_t)sizeof(bb_bf16);
        }
        int64_t k0 = (first_panel + j) * BB_PANEL;
        bb_dot_output out = {g->dx + u->m0 * K + k0, BB_BF16, NULL, K, bb_min(K - k0, BB_PANEL), false};
        if (g->t->n <= MAX_WHOLE_ROWS)
            bb_dot_bf16(out, g->a_stride, u->rows, parts, g->t->segments);
        else
            input_gradient_by_runs(out, g->a_stride, u->rows, parts, g->t->segments, (float *)(void *)scratch);
    }
}

/* Computes quantized rows of A, their sums and scales. */
static void int8_gradient_rows(const input_gradient *g, const unit *u, int8_t *a, int32_t *sums, float *scales) {
    const bb_ternary *t = g->t;
    size_t element = bb_dtype_bytes(g->dy_dtype);
    memset(a, 0, (size_t)(u->rows * g->a_stride));
    for (int64_t r = 0; r < u->rows; r++, a += g->a_stride) {
        const uint8_t *row = (const uint8_t *)g->dy + (size_t)((u->m0 + r) * t->n) * element;
        float max_abs = 0;
        for (int i = 0; i < t->segments; i++) {
            int64_t begin = bb_segment_begin(t, i);
            float m = t->scale[i] * bb_dot_absmax(row + (size_t)begin * element, g->dy_dtype, t->segment_end[i] - begin);
            if (m > max_abs || isnan(m)) max_abs = m; /* a NaN is kept */
        }
        scales[r] = max_abs / 127.0f;
        if (scales[r] < BB_MIN_GRADIENT_SCALE) scales[r] = 0;
        sums[r] = 0;
        int8_t *dst = a;
        for (int i = 0; i < t->segments && scales[r] > 0; i++) {
            int64_t begin = bb_segment_begin(t, i), n = t->segment_end[i] - begin;
            sums[r] += bb_dot_quantize(dst, row + (size_t)begin * element, g->dy_dtype, t->scale[i] / scales[r], n);
            dst += bb_panels_of(n) * BB_PANEL;
        }
    }
}

static void int8_gradient_unit(const input_gradient *g, const unit *u, int64_t first_panel) {
    size_t a_bytes = bb_align_up((size_t)(ROW_TILE * g->a_stride));
    uint8_t *scratch = bb_cpu_scratch(g->dev, a_bytes + ROW_TILE * (sizeof(int32_t) + sizeof(float)));
    if (!scratch) return;
    int8_t *a = (int8_t *)scratch;
    int32_t *sums = (int32_t *)(void *)(scratch + a_bytes);
    float *scales = (float *)(void *)(sums + ROW_TILE);
    int8_gradient_rows(g, u, a, sums, scales);
    int64_t K = g->t->k;
    for (int64_t j = u->panel0; j < u->panel1; j++) {
        int64_t k0 = (first_panel + j) * BB_PANEL;
        bb_dot_output out = {g->dx + u->m0 * K + k0, BB_BF16, NULL, K, bb_min(K - k0, BB_PANEL), false};
        g->set->int8(out, a, g->a_stride, u->rows, g->a_stride / 4, g->expanded + (size_t)j * g->panel_bytes, sums, scales,
                     1.0f);
    }
}

/* Bytes of 64 rows of W in a panel. */
static size_t square_bytes(const input_gradient *g) {
    return BB_PANEL * BB_PANEL * (g->int8 ? sizeof(int8_t) : sizeof(bb_bf16));
}

static void input_gradient_slab(const input_gradient *g, int64_t M, int64_t first, int64_t panels) {
    partition c = partition_for(g->dev, M, panels);
#pragma omp parallel num_threads(g->dev->threads) if (M * g->t->n * g->t->k > MIN_PARALLEL)
    {
#pragma omp for schedule(dynamic)
        for (int64_t s = 0; s < g->source_panels; s++) {
            const uint8_t *src = bb_ternary_panel_at(g->t, s).data;
            for (int64_t j = 0; j < panels; j++) {
                enum { BLOCKS = BB_PANEL / BB_BLOCK_COLUMNS };
                _Alignas(64) uint8_t square[BB_PANEL * BB_PANEL];
                uint8_t *dst = g->expanded + (size_t)j * g->panel_bytes + (size_t)s * square_bytes(g);
                int64_t block = (first + j) * BLOCKS, columns = g->t->k - (first + j) * BB_PANEL;
                bb_ternary_expand(bb_cpu_of(g->dev)->kernels.simd, square, src + block * BB_BLOCK_BYTES,
                                  bb_min(bb_ternary_blocks(g->t) - block, BLOCKS));
                if (g->int8)
                    bb_dot_expand_rows_int8(dst, square, columns);
                else
                    bb_dot_expand_rows((bb_bf16 *)(void *)dst, square, columns);
            }
        }
        g->set->open();
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < c.units; i++) {
            unit u = unit_at(&c, i);
            if (g->int8)
                int8_gradient_unit(g, &u, first);
            else
                input_gradient_unit(g, &u, first);
        }
        g->set->close();
    }
}

/* Sets where the segments' parts begin in a row of A, in bf16. */
static void parts_layout(input_gradient *g) {
    const bb_ternary *t = g->t;
    g->in_place = g->dy_dtype == BB_BF16;
    for (int i = 0; i < t->segments; i++) g->in_place = g->in_place && t->segment_end[i] % 2 == 0;
    for (int i = 0; i < t->segments; i++) {
        int64_t begin = bb_segment_begin(t, i);
        g->part_rows[i] = t->segment_end[i] - begin;
        g->part_begin[i] = g->in_place ? begin : g->a_stride;
        g->a_stride += (g->part_rows[i] + 1) / 2 * 2;
    }
}

static void input_gradient_all(input_gradient *g, int64_t M) {
    g->source_panels = bb_ternary_panels(g->t);
    g->k_panels = bb_panels_of(g->t->k);
    g->panel_bytes = (size_t)g->source_panels * square_bytes(g);
    if (g->int8)
        g->a_stride = g->source_panels * BB_PANEL;
    else
        parts_layout(g);
    int64_t slab = bb_min(bb_max(SLAB_BYTES / bb_max((int64_t)g->panel_bytes, 1), 1), g->k_panels);
    g->expanded = bb_cpu_shared(g->dev, (size_t)slab * g->panel_bytes);
    if (!g->expanded) return;
    for (int64_t first = 0; first < g->k_panels; first += slab)
        input_gradient_slab(g, M, first, bb_min(g->k_panels - first, slab));
}

/* ---- backward -------------------------------------------------------------------------------------------------------- */

void bb_linear_dot_backward(bb_device *dev, bb_bf16 *dx, float *dw, bool add, const void *dy, bb_dtype dy_dtype, bb_rows x,
                            const bb_ternary *t, int64_t M) {
    bb_linear_dot_weight_gradient(dev, dw, add, dy, dy_dtype, x, t, M);
    if (!dx) return;
    input_gradient g = {
        .dev = dev, .set = set_of(dev), .dx = dx, .dy = dy, .dy_dtype = dy_dtype, .t = t, .int8 = x.dtype == BB_I8};
    input_gradient_all(&g, M);
}

#endif
