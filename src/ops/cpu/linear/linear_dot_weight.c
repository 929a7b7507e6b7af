// SPDX-License-Identifier: MIT
/* dW of the ternary linear layer by dot products: x is B; dy, times its token's scale, is A. If x is int8 and there is no AMX
 * (whose bf16 is fast enough), dy is quantized to int8 too, column by column over a run of tokens; otherwise both are in bf16.
 * However the work is partitioned, every sum runs over the tokens in the same order.
 *
 * Runs have 256 tokens, each with its own scales, and are added in f32. This makes the error of one batch's gradient 2.0% of
 * its norm, against 0.9% in bf16 and 500% between batches; runs of 128 would give 1.3%. docs/PERFORMANCE.md says what that
 * costs. */
#include "core/arena.h"
#include "core/math.h"
#include "ops/cpu/linear/dot.h"
#include "ops/cpu/linear/linear_kernels.h"

#if defined(__x86_64__)

enum {
    SLAB_BYTES = 8000000,  /* of x packed at a time: fits in the last-level cache */
    MIN_TILES = 6,         /* fewer tiles of dW than this are divided further, */
    MIN_ROWS = 96,         /* down to this many rows */
    MIN_COLUMNS = 192,     /* and columns */
    PACK_TOKENS = 64,      /* tokens of x packed at a time */
    RUN_TOKENS = 256,      /* tokens of dy, in int8, that share a scale */
    SLAB_RUNS = 8,         /* runs packed at a time: they and a panel of x stay in the second-level cache */
    MIN_PARALLEL = 1 << 18 /* multiplications that justify waking the threads */
};

static const void *row_of(const void *rows, bb_dtype dtype, int64_t row, int64_t length, int64_t column) {
    return (const uint8_t *)rows + (size_t)(row * length + column) * bb_dtype_bytes(dtype);
}

/* ---- in bf16 --------------------------------------------------------------------------------------------------------- */

/* For a run of tokens: x is B, in panels of 64 columns with tokens in pairs; dy is A, packed tile by tile, scaled by the
 * token's s. */
typedef struct weight_gradient {
    bb_device *dev;
    const bb_dot_set *set;
    float *dw;
    bool add; /* accumulate into dw */
    const uint8_t *dy;
    bb_dtype dy_dtype;
    bb_rows x;
    int64_t N, K, tokens, k_steps;
    const float *s; /* (tokens) or NULL */
    uint32_t *packed_x;
} weight_gradient;

/* Packs PACK_TOKENS tokens from m0 on, all columns of x; zeros past the last token. */
static void pack_x(const weight_gradient *g, int64_t m0) {
    int64_t tokens = bb_min(g->tokens - m0, PACK_TOKENS), pairs = (tokens + 1) / 2;
    int64_t zeros = bb_min(g->k_steps - m0 / 2, PACK_TOKENS / 2) - pairs;
    for (int64_t k = 0; k < g->K; k += BB_PANEL) {
        uint32_t *dst = g->packed_x + k * g->k_steps + m0 / 2 * BB_PANEL;
        bb_dot_pack_pairs(dst, BB_PANEL, row_of(g->x.data, g->x.dtype, m0, g->K, k), g->x.dtype, g->K, NULL, tokens,
                          bb_min(g->K - k, BB_PANEL));
        memset(dst + pairs * BB_PANEL, 0, (size_t)(zeros * BB_PANEL) * sizeof *dst);
    }
}

/* The size of the tiles of dW; smaller if there would be few. */
typedef struct weight_partition {
    int64_t rows, columns, row_tiles, tiles;
} weight_partition;

static weight_partition partition_weights(const weight_gradient *g) {
    weight_partition c = {.rows = g->set->rows, .columns = bb_min(g->set->columns, bb_round_up(g->K, BB_PANEL))};
    for (;;) {
        c.row_tiles = bb_ceil_div(g->N, c.rows);
        c.tiles = c.row_tiles * bb_ceil_div(g->K, c.columns);
        if (c.tiles >= MIN_TILES || g->set->columns == INT64_MAX) return c;
        if (c.rows > MIN_ROWS && c.rows >= c.columns / 2)
            c.rows /= 2;
        else if (c.columns > MIN_COLUMNS)
            c.columns = bb_round_up(c.columns / 2, BB_PANEL);
        else
            return c;
    }
}

static void weight_tile(const weight_gradient *g, const weight_partition *c, int64_t index) {
    int64_t n0 = index % c->row_tiles * c->rows, k0 = index / c->row_tiles * c->columns;
    int64_t rows = bb_min(g->N - n0, c->rows), end = bb_min(g->K - k0, c->columns) + k0, max_tokens = g->set->tokens;
    uint32_t *left = bb_cpu_scratch(g->dev, (size_t)(bb_min(g->k_steps, max_tokens / 2) * g->set->rows) * sizeof *left);
    if (!left) return;
    for (int64_t m = 0; m < g->tokens; m += max_tokens) {
        int64_t k_steps = bb_min(g->k_steps - m / 2, max_tokens / 2);
        g->set->pack_left(left, row_of(g->dy, g->dy_dtype, m, g->N, n0), g->dy_dtype, g->N, g->s ? g->s + m : NULL,
                          bb_min(g->tokens - m, max_tokens), k_steps, rows);
        for (int64_t k = k0; k < end; k += BB_PANEL) {
            const uint32_t *panel = g->packed_x + k * g->k_steps + m / 2 * BB_PANEL;
            g->set->add(g->dw + n0 * g->K + k, g->add || m > 0, g->K, bb_min(g->K - k, BB_PANEL), left, rows, k_steps, panel,
                        k + BB_PANEL < end ? panel + BB_PANEL * g->k_steps : NULL);
        }
    }
}

static void weight_gradient_run(const weight_gradient *g) {
    int64_t runs = bb_ceil_div(g->tokens, PACK_TOKENS);
    weight_partition c = partition_weights(g);
#pragma omp parallel num_threads(g->dev->threads) if (g->tokens * g->N * g->K > MIN_PARALLEL)
    {
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < runs; i++) pack_x(g, i * PACK_TOKENS);
        g->set->open();
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < c.tiles; i++) weight_tile(g, &c, i);
        g->set->close();
    }
}

/* The number of tokens whose x is packed at once: within SLAB_BYTES, in runs of about the same length. */
static int64_t tokens_at_once(int64_t K, int64_t M) {
    int64_t columns = bb_panels_of(K) * BB_PANEL;
    int64_t max_tokens = bb_max(SLAB_BYTES / (columns * (int64_t)sizeof(bb_bf16)) / PACK_TOKENS, 1) * PACK_TOKENS;
    return bb_round_up(bb_ceil_div(M, bb_ceil_div(M, max_tokens)), PACK_TOKENS);
}

static void weight_gradient_bf16(bb_device *dev, float *dw, bool add, const void *dy, bb_dtype dy_dtype, bb_rows x,
                                 const bb_ternary *t, int64_t M) {
    weight_gradient g = {
        .dev = dev, .set = bb_cpu_of(dev)->kernels.dot, .dw = dw, .dy_dtype = dy_dtype, .x = x, .N = t->n, .K = t->k};
    int64_t at_once = tokens_at_once(t->k, M), max_tokens = bb_min(at_once, bb_round_up(M, 2 * g.set->k_steps));
    g.packed_x = bb_cpu_shared(dev, (size_t)(max_tokens * bb_panels_of(t->k) * BB_PANEL) * sizeof(bb_bf16));
    if (!g.packed_x) return;
    for (int64_t m = 0; m < M; m += at_once) {
        g.tokens = bb_min(M - m, at_once);
        g.k_steps = bb_round_up((g.tokens + 1) / 2, g.set->k_steps);
        g.dy = row_of(dy, dy_dtype, m, t->n, 0);
        g.s = x.scale ? x.scale + m : NULL;
        g.x.data = (void *)(uintptr_t)row_of(x.data, x.dtype, m, t->k, 0);
        g.add = add || m > 0;
        weight_gradient_run(&g);
    }
}

/* ---- in int8 --------------------------------------------------------------------------------------------------------- */

/* A slab of tokens. */
typedef struct int8_gradient {
    bb_device *dev;
    float *dw;
    bool add; /* accumulate into dw */
    const void *dy;
    bb_dtype dy_dtype;
    const int8_t *x;
    const float *s; /* (tokens) */
    int64_t N, K, tokens;
    uint8_t *packed_x; /* (panels, k-steps) */
} int8_gradient;

static int64_t slab_k_steps(const int8_gradient *g) { return bb_ceil_div(g->tokens, 4); }

/* The number of tokens in run r. */
static int64_t run_tokens(const int8_gradient *g, int64_t r) { return bb_min(g->tokens - r * RUN_TOKENS, RUN_TOKENS); }

static size_t quads_layout(bb_dot_quads a[SLAB_RUNS], void *memory) {
    bb_arena arena = {.base = memory};
    for (int r = 0; r < SLAB_RUNS; r++) {
        a[r].left = bb_arena_alloc(&arena, RUN_TOKENS / 4 * BB_DOT_QUAD_ROWS * sizeof *a[r].left);
        a[r].sums = bb_arena_alloc(&arena, BB_DOT_QUAD_ROWS * sizeof *a[r].sums);
        a[r].scales = bb_arena_alloc(&arena, BB_DOT_QUAD_ROWS * sizeof *a[r].scales);
    }
    return arena.used;
}

/* Rows n0 on of dW: packs their columns of dy, run by run, then multiplies with panels first .. end-1 of x. */
static void int8_tile(const int8_gradient *g, int64_t n0, int64_t first, int64_t end) {
    int64_t rows = bb_min(g->N - n0, BB_DOT_QUAD_ROWS), runs = bb_ceil_div(g->tokens, RUN_TOKENS);
    bb_dot_quads a[SLAB_RUNS];
    void *memory = bb_cpu_scratch(g->dev, quads_layout(a, NULL));
    if (!memory) return;
    quads_layout(a, memory);
    for (int64_t r = 0; r < runs; r++)
        bb_dot_pack_quads(&a[r], row_of(g->dy, g->dy_dtype, r * RUN_TOKENS, g->N, n0), g->dy_dtype, g->N, g->s + r * RUN_TOKENS,
                          run_tokens(g, r), rows);
    for (int64_t j = first; j < end; j++) {
        const uint8_t *panel = g->packed_x + j * slab_k_steps(g) * BB_DOT_K_STEP_BYTES;
        int64_t k = j * BB_PANEL, columns = bb_min(g->K - k, BB_PANEL);
        for (int64_t r = 0; r < runs; r++)
            bb_dot_add_int8(g->dw + n0 * g->K + k, g->add || r > 0, g->K, columns, &a[r], rows,
                            bb_ceil_div(run_tokens(g, r), 4), panel + r * (RUN_TOKENS / 4) * BB_DOT_K_STEP_BYTES);
    }
}

static void int8_slab(const int8_gradient *g) {
    int64_t panels = bb_panels_of(g->K), packs = bb_ceil_div(g->tokens, PACK_TOKENS),
            row_tiles = bb_ceil_div(g->N, BB_DOT_QUAD_ROWS);
    int64_t groups = bb_min(bb_ceil_div(2 * (int64_t)g->dev->threads, row_tiles), panels), group = bb_ceil_div(panels, groups);
#pragma omp parallel num_threads(g->dev->threads) if (g->tokens * g->N * g->K > MIN_PARALLEL)
    {
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < packs; i++) {
            int64_t m = i * PACK_TOKENS, tokens = bb_min(g->tokens - m, PACK_TOKENS);
            for (int64_t j = 0; j < panels; j++)
                bb_dot_pack_codes(g->packed_x + (j * slab_k_steps(g) + m / 4) * BB_DOT_K_STEP_BYTES,
                                  g->x + m * g->K + j * BB_PANEL, g->K, tokens, bb_min(g->K - j * BB_PANEL, BB_PANEL));
        }
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < row_tiles * groups; i++) {
            int64_t first = i / row_tiles * group;
            int8_tile(g, i % row_tiles * BB_DOT_QUAD_ROWS, first, bb_min(first + group, panels));
        }
    }
}

static void weight_gradient_int8(bb_device *dev, float *dw, bool add, const void *dy, bb_dtype dy_dtype, bb_rows x,
                                 const bb_ternary *t, int64_t M) {
    int8_gradient g = {.dev = dev, .dw = dw, .dy_dtype = dy_dtype, .N = t->n, .K = t->k};
    int64_t row_bytes = bb_panels_of(t->k) * BB_PANEL;
    int64_t slab = bb_clamp(SLAB_BYTES / (row_bytes * RUN_TOKENS), 1, SLAB_RUNS) * RUN_TOKENS;
    g.packed_x = bb_cpu_shared(dev, (size_t)(bb_round_up(bb_min(M, slab), 4) * row_bytes));
    if (!g.packed_x) return;
    for (int64_t m = 0; m < M; m += slab) {
        g.add = add || m > 0;
        g.tokens = bb_min(M - m, slab);
        g.dy = row_of(dy, dy_dtype, m, t->n, 0);
        g.x = (const int8_t *)x.data + m * t->k;
        g.s = x.scale + m;
        int8_slab(&g);
    }
}

void bb_linear_dot_weight_gradient(bb_device *dev, float *dw, bool add, const void *dy, bb_dtype dy_dtype, bb_rows x,
                                   const bb_ternary *t, int64_t M) {
    bool int8 = x.dtype == BB_I8 && bb_cpu_of(dev)->kernels.dot->int8_weight_gradient;
    (int8 ? weight_gradient_int8 : weight_gradient_bf16)(dev, dw, add, dy, dy_dtype, x, t, M);
}

#endif
