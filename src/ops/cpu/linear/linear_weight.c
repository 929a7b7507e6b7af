// SPDX-License-Identifier: MIT
/* dW of the ternary linear layer in integers: x is B; dy, times its token's scale, is A, quantized to int8 or int16 column by column
 * over a run of tokens. However the work is partitioned, every sum runs over the tokens in the same order.
 *
 * Runs have 256 tokens, each with its own scales, and are added in f32. In int8 this makes the error of one batch's gradient 2.0% of
 * its norm, against 0.9% in bf16 and 500% between batches; runs of 128 would give 1.3%. docs/PERFORMANCE.md says what that
 * costs. */
#include "core/arena.h"
#include "core/math.h"
#include "ops/cpu/linear/dot.h"
#include "ops/cpu/linear/linear_kernels.h"

enum {
    SLAB_BYTES = 8000000,  /* of x packed at a time: fits in the last-level cache */
    SLAB_RUNS = 8,         /* runs packed at a time: they and a panel of x stay in the second-level cache */
    MIN_PARALLEL = 1 << 18 /* multiplications that justify waking the threads */
};

static const void *row_of(const void *rows, bb_dtype dtype, int64_t row, int64_t length, int64_t column) {
    return (const uint8_t *)rows + (size_t)(row * length + column) * bb_dtype_bytes(dtype);
}

/* A slab of tokens. */
typedef struct int8_gradient {
    bb_device *dev;
    const bb_dot_weight *set;
    float *dw;
    bool add; /* accumulate into dw */
    const void *dy;
    bb_dtype dy_dtype;
    const int8_t *x;
    const float *s; /* (tokens) */
    int64_t N, K, tokens;
    uint8_t *packed_x; /* (panels, k-steps) */
} int8_gradient;

static int64_t k_steps_of(const int8_gradient *g, int64_t tokens) { return bb_ceil_div(tokens, g->set->word_tokens); }

/* Token m of panel j. */
static uint8_t *packed_at(const int8_gradient *g, int64_t j, int64_t m) {
    return g->packed_x + (j * k_steps_of(g, g->tokens) + k_steps_of(g, m)) * BB_DOT_K_STEP_BYTES;
}

/* The number of tokens in run r. */
static int64_t run_tokens(const int8_gradient *g, int64_t r) {
    return bb_min(g->tokens - r * BB_DOT_RUN_TOKENS, BB_DOT_RUN_TOKENS);
}

static size_t left_layout(const int8_gradient *g, bb_dot_left a[SLAB_RUNS], void *memory) {
    bb_arena arena = {.base = memory};
    for (int r = 0; r < SLAB_RUNS; r++) {
        a[r].left = bb_arena_alloc(&arena, (size_t)k_steps_of(g, BB_DOT_RUN_TOKENS) * BB_DOT_LEFT_ROWS * sizeof *a[r].left);
        a[r].sums = bb_arena_alloc(&arena, BB_DOT_LEFT_ROWS * sizeof *a[r].sums);
        a[r].scales = bb_arena_alloc(&arena, BB_DOT_LEFT_ROWS * sizeof *a[r].scales);
    }
    return arena.used;
}

/* Rows n0 on of dW: packs their columns of dy, run by run, then multiplies with panels first .. end-1 of x. */
static void int8_tile(const int8_gradient *g, int64_t n0, int64_t first, int64_t end) {
    int64_t runs = bb_ceil_div(g->tokens, BB_DOT_RUN_TOKENS);
    bb_dot_left a[SLAB_RUNS];
    void *memory = bb_cpu_scratch(g->dev, left_layout(g, a, NULL));
    if (!memory) return;
    left_layout(g, a, memory);
    for (int64_t r = 0; r < runs; r++) {
        bb_dot_tokens run = {.x = row_of(g->dy, g->dy_dtype, r * BB_DOT_RUN_TOKENS, g->N, n0),
                             .dtype = g->dy_dtype,
                             .stride = g->N,
                             .s = g->s + r * BB_DOT_RUN_TOKENS,
                             .tokens = run_tokens(g, r),
                             .columns = bb_min(g->N - n0, BB_DOT_LEFT_ROWS)};
        g->set->pack_left(&a[r], &run);
    }
    for (int64_t j = first; j < end; j++) {
        int64_t k = j * BB_PANEL;
        for (int64_t r = 0; r < runs; r++) {
            bb_dot_sums out = {g->dw + n0 * g->K + k, g->add || r > 0, g->K, bb_min(g->K - k, BB_PANEL)};
            g->set->add(out, &a[r], k_steps_of(g, run_tokens(g, r)), packed_at(g, j, r * BB_DOT_RUN_TOKENS));
        }
    }
}

static void int8_slab(const int8_gradient *g) {
    int64_t panels = bb_panels_of(g->K), packs = bb_ceil_div(g->tokens, BB_DOT_PACK_TOKENS),
            row_tiles = bb_ceil_div(g->N, BB_DOT_LEFT_ROWS);
    int64_t groups = bb_min(bb_ceil_div(2 * (int64_t)g->dev->threads, row_tiles), panels), group = bb_ceil_div(panels, groups);
#pragma omp parallel num_threads(g->dev->threads) if (g->tokens * g->N * g->K > MIN_PARALLEL)
    {
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < packs; i++) {
            int64_t m = i * BB_DOT_PACK_TOKENS, tokens = bb_min(g->tokens - m, BB_DOT_PACK_TOKENS);
            for (int64_t j = 0; j < panels; j++)
                g->set->pack_codes(packed_at(g, j, m), g->x + m * g->K + j * BB_PANEL, g->K, tokens,
                                   bb_min(g->K - j * BB_PANEL, BB_PANEL));
        }
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < row_tiles * groups; i++) {
            int64_t first = i / row_tiles * group;
            int8_tile(g, i % row_tiles * BB_DOT_LEFT_ROWS, first, bb_min(first + group, panels));
        }
    }
}

void bb_linear_int8_weight_gradient(bb_device *dev, const bb_weight_gradient *w) {
    int64_t N = w->t->n, K = w->t->k;
    int8_gradient g = {
        .dev = dev, .set = bb_cpu_of(dev)->kernels.dot_weight, .dw = w->dw, .dy_dtype = w->dy_dtype, .N = N, .K = K};
    int64_t step_bytes = bb_panels_of(K) * BB_DOT_K_STEP_BYTES;
    int64_t slab = bb_clamp(SLAB_BYTES / (step_bytes * k_steps_of(&g, BB_DOT_RUN_TOKENS)), 1, SLAB_RUNS) * BB_DOT_RUN_TOKENS;
    g.packed_x = bb_cpu_shared(dev, (size_t)(k_steps_of(&g, bb_min(w->M, slab)) * step_bytes));
    if (!g.packed_x) return;
    for (int64_t m = 0; m < w->M; m += slab) {
        g.add = w->add || m > 0;
        g.tokens = bb_min(w->M - m, slab);
        g.dy = row_of(w->dy, w->dy_dtype, m, N, 0);
        g.x = (const int8_t *)w->x.data + m * K;
        g.s = w->x.scale + m;
        int8_slab(&g);
    }
}
