// SPDX-License-Identifier: MIT
/* The ternary linear layer's forward pass in integers, on any processor, and the forward pass of small unquantized batches.
 * Each output is a sum over k in the same order for every M, so that row results are independent of batch size. */
#include "core/arena.h"
#include "ops/cpu/linear/linear_kernels.h"
#include "ops/cpu/linear/ternary_dot.h"
#include "ops/cpu/vector/simd.h"

enum {
    ROW_TILE = 48,         /* rows of x that use a panel while it is in the first-level cache */
    PANEL_GROUP = 8,       /* panels that all row tiles process in turn, so that the matrix is read once */
    PARALLEL = 400000,     /* multiplications that justify waking the threads */
    PARALLEL_TEAM = 100000 /* the same for a team */
};

BB_SIMD_INLINE void row_sum_body(int32_t *sum, const int8_t *x, int64_t n) {
    int32_t total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t k = 0; k < n; k++) total += x[k];
    *sum = total;
}
BB_SIMD_VARIANTS(row_sum, (int32_t * sum, const int8_t *x, int64_t n), (sum, x, n))

/* y = residual + scale * (sums - offset); y may be residual; residual NULL means zeros. */
BB_SIMD_INLINE void finish_row_body(float *y, const float *residual, const int32_t *sums, int32_t offset, float scale,
                                    int64_t n) {
    if (residual) { /* NOLINT(bugprone-branch-clone): the analyzer does not see through the pragma */
#pragma omp simd
        for (int64_t i = 0; i < n; i++) y[i] = scale * (float)(sums[i] - offset) + residual[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) y[i] = scale * (float)(sums[i] - offset);
    }
}
BB_SIMD_VARIANTS(finish_row, (float *y, const float *residual, const int32_t *sums, int32_t offset, float scale, int64_t n),
                 (y, residual, sums, offset, scale, n))

/* A thread's rows of x, as the kernels read them. */
typedef struct row_tile {
    int32_t *sums;    /* (ROW_TILE, BB_PANEL), of products */
    int32_t *offsets; /* (ROW_TILE): the sums of the rows, which the biased codes q + 1 add to each product */
    int8_t *padded;   /* (ROW_TILE, stride), if K is not a multiple of a block */
    const int8_t *rows;
    int64_t index, count;
} row_tile;

static size_t row_tile_layout(row_tile *tile, void *memory, int64_t stride, bool in_place) {
    bb_arena arena = {.base = memory};
    *tile = (row_tile){.index = -1};
    tile->sums = bb_arena_alloc(&arena, ROW_TILE * BB_PANEL * sizeof(int32_t));
    tile->offsets = bb_arena_alloc(&arena, ROW_TILE * sizeof(int32_t));
    if (!in_place) tile->padded = bb_arena_alloc(&arena, (size_t)(ROW_TILE * stride));
    return arena.used;
}

static void load_rows(row_tile *tile, int64_t index, bb_simd simd, const int8_t *x, int64_t M, int64_t K, int64_t stride) {
    tile->index = index;
    tile->count = M - index * ROW_TILE < ROW_TILE ? M - index * ROW_TILE : ROW_TILE;
    tile->rows = x + index * ROW_TILE * K;
    for (int64_t r = 0; r < tile->count; r++) row_sum_for(simd)(&tile->offsets[r], tile->rows + r * K, K);
    if (!tile->padded) return;
    for (int64_t r = 0; r < tile->count; r++) {
        memcpy(tile->padded + r * stride, tile->rows + r * K, (size_t)K);
        memset(tile->padded + r * stride + K, 0, (size_t)(stride - K));
    }
    tile->rows = tile->padded;
}

/* A product and its kernels. */
typedef struct int8_forward {
    bb_ternary_dot *dot;
    finish_row_kernel *finish_row;
    float *y;
    const float *residual;
    bb_rows x;
    const bb_ternary *t;
    int64_t blocks, stride; /* of a row of x as the kernels read it */
} int8_forward;

static void multiply(const int8_forward *f, const row_tile *tile, int64_t panel) {
    bb_ternary_panel p = bb_ternary_panel_at(f->t, panel);
    float g = f->t->scale[p.segment];
    f->dot(tile->sums, tile->rows, f->stride, tile->count, f->blocks, p.data);
    for (int64_t r = 0; r < tile->count; r++) {
        int64_t m = tile->index * ROW_TILE + r, at = m * f->t->n + p.first;
        f->finish_row(f->y + at, f->residual ? f->residual + at : NULL, tile->sums + r * BB_PANEL, tile->offsets[r],
                      f->x.scale[m] * g, p.rows);
    }
}

/* ---- one row tile: the matrix is read from memory, by a team of threads ---------------------------------------------- */

typedef struct single_tile {
    const int8_forward *f;
    row_tile tile;
    int32_t *sums; /* (threads, ROW_TILE, BB_PANEL) */
} single_tile;

static void run_single_tile(void *user, bb_team *team, int thread) {
    const single_tile *w = user;
    row_tile tile = w->tile;
    tile.sums = w->sums + (int64_t)thread * ROW_TILE * BB_PANEL;
    for (int64_t j = bb_team_next_unit(team, thread); j >= 0; j = bb_team_next_unit(team, thread)) multiply(w->f, &tile, j);
}

static void forward_single_tile(bb_device *dev, const int8_forward *f, int64_t M) {
    const bb_ternary *t = f->t, *next = t->next;
    int64_t panels = bb_ternary_panels(t);
    bb_team *team = bb_cpu_team(dev);
    single_tile w = {.f = f};
    bool in_place = f->stride == t->k;
    size_t tile_bytes = bb_align_up(row_tile_layout(&w.tile, NULL, f->stride, in_place));
    char *memory = bb_cpu_shared(dev, tile_bytes + (size_t)dev->threads * ROW_TILE * BB_PANEL * sizeof *w.sums);
    if (!memory || !team) return;
    row_tile_layout(&w.tile, memory, f->stride, in_place);
    w.sums = (int32_t *)(void *)(memory + tile_bytes);
    load_rows(&w.tile, 0, bb_cpu_of(dev)->kernels.simd, f->x.data, M, t->k, f->stride);
    bb_team_prefetch next_data = {0};
    if (next) next_data = (bb_team_prefetch){next->data, bb_ternary_panels(next), (int64_t)bb_ternary_panel_bytes(next)};
    bb_team_run(team, M * t->n * t->k <= PARALLEL_TEAM, panels, run_single_tile, &w, next_data);
}

/* ---- many row tiles -------------------------------------------------------------------------------------------------- */

static void forward_tiles(bb_device *dev, const int8_forward *f, int64_t M) {
    int64_t K = f->t->k, panels = bb_ternary_panels(f->t), tiles = (M + ROW_TILE - 1) / ROW_TILE;
    int64_t units = (panels + PANEL_GROUP - 1) / PANEL_GROUP * tiles;
#pragma omp parallel num_threads(dev->threads) if (M * f->t->n * K > PARALLEL)
    {
        row_tile tile;
        bool in_place = f->stride == K;
        void *memory = bb_cpu_scratch(dev, row_tile_layout(&tile, NULL, f->stride, in_place));
        if (memory) row_tile_layout(&tile, memory, f->stride, in_place);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < units; i++) {
            if (!memory) continue;
            if (tile.index != i % tiles) load_rows(&tile, i % tiles, bb_cpu_of(dev)->kernels.simd, f->x.data, M, K, f->stride);
            int64_t first = i / tiles * PANEL_GROUP, end = first + PANEL_GROUP < panels ? first + PANEL_GROUP : panels;
            for (int64_t j = first; j < end; j++) multiply(f, &tile, j);
        }
    }
}

void bb_linear_int8_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    const bb_cpu_kernels *kernels = &bb_cpu_of(dev)->kernels;
    int8_forward f = {.dot = t->dense ? kernels->ternary_dot_dense : kernels->ternary_dot,
                      .finish_row = finish_row_for(kernels->simd),
                      .y = y,
                      .residual = residual,
                      .x = x,
                      .t = t,
                      .blocks = bb_ternary_blocks(t),
                      .stride = bb_ternary_blocks(t) * BB_BLOCK_COLUMNS};
    if (M <= ROW_TILE)
        forward_single_tile(dev, &f, M);
    else
        forward_tiles(dev, &f, M);
}

/* ---- small batches that are not quantized ---------------------------------------------------------------------------- */

/* q of a panel, (K, BB_PANEL) f32, from its k-steps */
BB_SIMD_INLINE void columns_body(float *q, const uint8_t *k_steps, int64_t K) {
    for (int64_t k = 0; k < K; k++) {
        const uint8_t *codes = k_steps + k / 4 * BB_K_STEP_BYTES + k % 4;
        for (int n = 0; n < BB_PANEL; n++) q[k * BB_PANEL + n] = (float)(codes[4 * n] - 1);
    }
}
BB_SIMD_VARIANTS(columns, (float *q, const uint8_t *k_steps, int64_t K), (q, k_steps, K))

BB_SIMD_INLINE void float_row_body(float *y, const float *residual, const float *x, const float *q, float g, int64_t K,
                                   int64_t n) {
    float sums[BB_PANEL] = {0};
    for (int64_t k = 0; k < K; k++, q += BB_PANEL)
        for (int i = 0; i < BB_PANEL; i++) sums[i] += x[k] * q[i];
    for (int64_t i = 0; i < n; i++) y[i] = (residual ? residual[i] : 0.0f) + g * sums[i];
}
BB_SIMD_VARIANTS(float_row, (float *y, const float *residual, const float *x, const float *q, float g, int64_t K, int64_t n),
                 (y, residual, x, q, g, K, n))

void bb_linear_small_batch_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    bb_simd simd = bb_cpu_of(dev)->kernels.simd;
    int64_t K = t->k, N = t->n, panels = bb_ternary_panels(t);
    const float *rows = x.data;
    if (x.dtype == BB_BF16) {
        float *wide = bb_cpu_shared(dev, (size_t)(M * K) * sizeof *wide);
        if (!wide) return;
        for (int64_t i = 0; i < M * K; i++) wide[i] = bb_f32_from_bf16(((const bb_bf16 *)x.data)[i]);
        rows = wide;
    }
#pragma omp parallel for num_threads(dev->threads) schedule(static) if (M * N * K > PARALLEL)
    for (int64_t j = 0; j < panels; j++) {
        bb_ternary_panel p = bb_ternary_panel_at(t, j);
        size_t q_bytes = (size_t)(K * BB_PANEL) * sizeof(float);
        float *q = bb_cpu_scratch(dev, q_bytes + (size_t)(bb_ternary_k_steps(t) * BB_K_STEP_BYTES));
        if (!q) continue;
        uint8_t *k_steps = (uint8_t *)q + q_bytes;
        bb_ternary_expand_panel(simd, k_steps, t, p.data);
        columns_for(simd)(q, k_steps, K);
        for (int64_t m = 0; m < M; m++)
            float_row_for(simd)(y + m * N + p.first, residual ? residual + m * N + p.first : NULL, rows + m * K, q,
                                t->scale[p.segment], K, p.rows);
    }
}
