// SPDX-License-Identifier: MIT
/* dx of the ternary linear layer in integers, on processors that linear_dot.c does not support: each row of dy, multiplied by
 * the scales of W, is quantized like activations, and the product is exact. Work is partitioned by shape alone. */
#include "core/arena.h"
#include "ops/cpu/linear/linear_kernels.h"
#include "ops/cpu/linear/ternary_dot.h"
#include "ops/cpu/vector/simd.h"

enum {
    ROW_TILE = 48,        /* rows of dy that use a panel while it is in the first-level cache */
    MIN_ROW_TILES = 16,   /* with fewer row tiles, columns are divided too */
    SLAB_BYTES = 4000000, /* of panels transposed at a time: fits in the last-level cache */
    SQUARE_BLOCKS = 4,    /* 64 columns of a panel */
    PARALLEL = 400000     /* multiplications that justify waking the threads */
};

/* W transposed: 64 of its columns make a panel, whose blocks run over the rows of W, one panel of W after the other. */
typedef struct input_gradient {
    bb_device *dev;
    bb_simd simd;
    bb_bf16 *dx;
    const uint8_t *dy;
    bb_dtype dy_dtype;
    const bb_ternary *t;
    int64_t M;
    int64_t source_panels; /* of W */
    int64_t stride;        /* bytes of a quantized row of dy, 64 for each panel of W */
    size_t panel_bytes;
    uint8_t *transposed;
} input_gradient;

/* ---- rows of dy ------------------------------------------------------------------------------------------------------ */

BB_SIMD_INLINE void widen(float *y, const void *x, bb_dtype dtype, float g, int64_t n) {
    if (dtype == BB_F32) { /* NOLINT(bugprone-branch-clone): the analyzer does not see through the pragma */
#pragma omp simd
        for (int64_t i = 0; i < n; i++) y[i] = ((const float *)x)[i] * g;
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) y[i] = bb_f32_from_bf16(((const bb_bf16 *)x)[i]) * g;
    }
}

/* Quantizes a row of dy, its segments padded with zeros to whole panels, to q * scale; sum: of q. buffer: (stride) */
BB_SIMD_INLINE void quantize_row_body(int8_t *q, float *scale, int32_t *sum, float *buffer, const uint8_t *dy, bb_dtype dtype,
                                      const bb_ternary *t, int64_t stride) {
    float *at = buffer;
    for (int i = 0; i < t->segments; i++) {
        int64_t begin = bb_segment_begin(t, i), n = t->segment_end[i] - begin, padded = bb_panels_of(n) * BB_PANEL;
        widen(at, dy + (size_t)begin * bb_dtype_bytes(dtype), dtype, t->scale[i], n);
        memset(at + n, 0, (size_t)(padded - n) * sizeof *at);
        at += padded;
    }
    *sum = 0;
    *scale = bb_simd_absmax(buffer, stride) / 127.0f;
    if (*scale < BB_MIN_GRADIENT_SCALE) {
        *scale = 0;
        memset(q, 0, (size_t)stride);
        return;
    }
    bb_simd_quantize_with_scale(q, buffer, *scale, stride);
    int32_t total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < stride; i++) total += q[i];
    *sum = total;
}
BB_SIMD_VARIANTS(quantize_row,
                 (int8_t * q, float *scale, int32_t *sum, float *buffer, const uint8_t *dy, bb_dtype dtype, const bb_ternary *t,
                  int64_t stride),
                 (q, scale, sum, buffer, dy, dtype, t, stride))

/* A thread's rows of dy. */
typedef struct row_tile {
    int8_t *q;        /* (ROW_TILE, stride) */
    float *buffer;    /* (stride) */
    float *scales;    /* (ROW_TILE) */
    int32_t *offsets; /* (ROW_TILE): the sums of the rows, which the biased codes q + 1 add to each product */
    int32_t *sums;    /* (ROW_TILE, BB_PANEL), of products */
    int64_t m0, rows;
} row_tile;

static size_t row_tile_layout(row_tile *tile, void *memory, int64_t stride) {
    bb_arena arena = {.base = memory};
    tile->q = bb_arena_alloc(&arena, (size_t)(ROW_TILE * stride));
    tile->buffer = bb_arena_alloc(&arena, (size_t)stride * sizeof(float));
    tile->scales = bb_arena_alloc(&arena, ROW_TILE * sizeof(float));
    tile->offsets = bb_arena_alloc(&arena, ROW_TILE * sizeof(int32_t));
    tile->sums = bb_arena_alloc(&arena, ROW_TILE * BB_PANEL * sizeof(int32_t));
    return arena.used;
}

static void load_rows(row_tile *tile, const input_gradient *g, int64_t index) {
    size_t row_bytes = (size_t)g->t->n * bb_dtype_bytes(g->dy_dtype);
    tile->m0 = index * ROW_TILE;
    tile->rows = g->M - tile->m0 < ROW_TILE ? g->M - tile->m0 : ROW_TILE;
    for (int64_t r = 0; r < tile->rows; r++)
        quantize_row_for(g->simd)(tile->q + r * g->stride, tile->scales + r, tile->offsets + r, tile->buffer,
                                  g->dy + (size_t)(tile->m0 + r) * row_bytes, g->dy_dtype, g->t, g->stride);
}

/* ---- the product ----------------------------------------------------------------------------------------------------- */

/* Transposes 16 k-steps into 4 blocks. */
BB_SIMD_INLINE void transpose_square_body(uint8_t *blocks, const uint8_t *k_steps) {
    uint8_t transposed[16 * BB_K_STEP_BYTES];
    for (int k = 0; k < BB_PANEL; k += 4)
        for (int n = 0; n < BB_PANEL; n += 4) { /* four rows by four columns */
            const uint8_t *src = k_steps + k / 4 * BB_K_STEP_BYTES + n * 4;
            uint8_t *dst = transposed + n / 4 * BB_K_STEP_BYTES + k * 4;
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) dst[4 * i + j] = src[4 * j + i];
        }
    for (int b = 0; b < SQUARE_BLOCKS; b++) {
        const uint8_t *four = transposed + 4 * b * BB_K_STEP_BYTES;
#pragma omp simd
        for (int i = 0; i < BB_BLOCK_BYTES; i++)
            blocks[b * BB_BLOCK_BYTES + i] = (uint8_t)(four[i] | four[BB_K_STEP_BYTES + i] << 2 |
                                                       four[2 * BB_K_STEP_BYTES + i] << 4 | four[3 * BB_K_STEP_BYTES + i] << 6);
    }
}
BB_SIMD_VARIANTS(transpose_square, (uint8_t * blocks, const uint8_t *k_steps), (blocks, k_steps))

/* Transposes columns k0 .. k0+63 of panel s of W, zeros past K. */
static void expand_square(const input_gradient *g, uint8_t *blocks, int64_t s, int64_t k0) {
    uint8_t k_steps[16 * BB_K_STEP_BYTES];
    int64_t first = k0 / BB_BLOCK_COLUMNS, n = bb_ternary_blocks(g->t) - first;
    if (n > SQUARE_BLOCKS) n = SQUARE_BLOCKS;
    bb_ternary_expand(g->simd, k_steps, bb_ternary_panel_at(g->t, s).data + first * BB_BLOCK_BYTES, n);
    memset(k_steps + n * 4 * BB_K_STEP_BYTES, 0, (size_t)((SQUARE_BLOCKS - n) * 4 * BB_K_STEP_BYTES));
    transpose_square_for(g->simd)(blocks, k_steps);
}

BB_SIMD_INLINE void finish_row_body(bb_bf16 *y, const int32_t *sums, int32_t offset, float scale, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = bb_bf16_from_f32(scale * (float)(sums[i] - offset));
}
BB_SIMD_VARIANTS(finish_row, (bb_bf16 * y, const int32_t *sums, int32_t offset, float scale, int64_t n),
                 (y, sums, offset, scale, n))

/* Panels first .. first+panels-1 of columns. */
static void slab(const input_gradient *g, int64_t first, int64_t panels) {
    bb_ternary_dot *dot = bb_cpu_of(g->dev)->kernels.ternary_dot;
    finish_row_kernel *finish_row = finish_row_for(g->simd);
    int64_t K = g->t->k, tiles = (g->M + ROW_TILE - 1) / ROW_TILE, group = panels;
    if (tiles < MIN_ROW_TILES) group = panels * tiles / MIN_ROW_TILES > 1 ? panels * tiles / MIN_ROW_TILES : 1;
    int64_t units = tiles * ((panels + group - 1) / group);
#pragma omp parallel num_threads(g->dev->threads) if (g->M * g->t->n * K > PARALLEL)
    {
#pragma omp for schedule(dynamic)
        for (int64_t s = 0; s < g->source_panels; s++)
            for (int64_t j = 0; j < panels; j++)
                expand_square(g, g->transposed + (size_t)j * g->panel_bytes + s * SQUARE_BLOCKS * BB_BLOCK_BYTES, s,
                              (first + j) * BB_PANEL);
        row_tile tile;
        void *memory = bb_cpu_scratch(g->dev, row_tile_layout(&tile, NULL, g->stride));
        if (memory) row_tile_layout(&tile, memory, g->stride);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < units; i++) {
            if (!memory) continue;
            load_rows(&tile, g, i % tiles);
            int64_t begin = i / tiles * group, end = begin + group < panels ? begin + group : panels;
            for (int64_t j = begin; j < end; j++) {
                int64_t k0 = (first + j) * BB_PANEL, columns = K - k0 < BB_PANEL ? K - k0 : BB_PANEL;
                dot(tile.sums, tile.q, g->stride, tile.rows, g->source_panels * SQUARE_BLOCKS,
                    g->transposed + (size_t)j * g->panel_bytes);
                for (int64_t r = 0; r < tile.rows; r++)
                    finish_row(g->dx + (tile.m0 + r) * K + k0, tile.sums + r * BB_PANEL, tile.offsets[r], tile.scales[r],
                               columns);
            }
        }
    }
}

void bb_linear_int8_input_gradient(bb_device *dev, bb_bf16 *dx, const void *dy, bb_dtype dy_dtype, const bb_ternary *t,
                                   int64_t M) {
    input_gradient g = {
        .dev = dev, .simd = bb_cpu_of(dev)->kernels.simd, .dx = dx, .dy = dy, .dy_dtype = dy_dtype, .t = t, .M = M};
    g.source_panels = bb_ternary_panels(t);
    g.stride = g.source_panels * BB_PANEL;
    g.panel_bytes = (size_t)(g.source_panels * SQUARE_BLOCKS * BB_BLOCK_BYTES);
    int64_t panels = bb_panels_of(t->k), slab_panels = g.panel_bytes > 0 ? SLAB_BYTES / (int64_t)g.panel_bytes : 1;
    if (slab_panels < 1) slab_panels = 1;
    if (slab_panels > panels) slab_panels = panels;
    g.transposed = bb_cpu_shared(dev, (size_t)slab_panels * g.panel_bytes);
    if (!g.transposed) return;
    for (int64_t first = 0; first < panels; first += slab_panels)
        slab(&g, first, panels - first < slab_panels ? panels - first : slab_panels);
}
