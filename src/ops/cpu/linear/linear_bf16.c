// SPDX-License-Identifier: MIT
/* The ternary linear layer in bf16, on processors with AVX-512 BF16: unquantized inputs, and dW of any if that is faster than in
 * int8 (with AMX). Rows of A are read in place if possible. */
#include "core/arena.h"
#include "core/math.h"
#include "ops/cpu/elementwise/elementwise_set.h"
#include "ops/cpu/linear/dot_bf16.h"
#include "ops/cpu/linear/dot_product.h"
#include "ops/cpu/linear/linear_kernels.h"
#include "ops/cpu/linear/slabs.h"
#include "ops/cpu/linear/ternary_set.h"

#if defined(__x86_64__)

enum {
    MAX_WHOLE_ROWS = 1536, /* of W; its panels serve all their row tiles from the second-level cache as a whole */
    RUN_K_STEPS = 512      /* otherwise: k-steps per run */
};

static const bb_cpu_kernels *kernels_of(const bb_slabs *s) { return &bb_cpu_of(s->dev)->kernels; }

/* ---- forward --------------------------------------------------------------------------------------------------------- */

typedef struct forward {
    bb_slabs slabs;
    float *y;
    const float *residual;
    const bb_bf16 *x;
    const bb_ternary *t;
} forward;

static void expand_panel(const bb_slabs *s, uint8_t *panel, int64_t index, int64_t piece) {
    (void)piece;
    const bb_ternary *t = ((const forward *)s)->t;
    uint8_t *codes = bb_cpu_scratch(s->dev, (size_t)(bb_ternary_k_steps(t) * BB_K_STEP_BYTES));
    if (!codes) return;
    bb_ternary_expand_panel(kernels_of(s), codes, t, bb_ternary_panel_at(t, index).data);
    kernels_of(s)->bf16_operands->expand_panel((bb_bf16 *)(void *)panel, codes, bb_ternary_k_steps(t));
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

static void forward_unit(const bb_slabs *s, const bb_slab_unit *u) {
    const forward *f = (const forward *)s;
    int64_t N = f->t->n, K = f->t->k, k_steps = (K + 1) / 2;
    bb_bf16 *buffer = bb_cpu_scratch(s->dev, (size_t)(BB_SLAB_ROWS * k_steps * 2) * sizeof *buffer);
    if (!buffer) return;
    const bb_bf16 *a = even_rows(f->x + u->m0 * K, u->rows, K, buffer);
    for (int64_t j = 0; j < u->count; j++) {
        bb_ternary_panel p = bb_ternary_panel_at(f->t, u->first + j);
        int64_t at = u->m0 * N + p.first;
        bb_dot_output out = {f->y + at, BB_F32, f->residual ? f->residual + at : NULL, N, p.rows, false};
        bb_dot_part part = {a, u->panels + j * s->panel_bytes, k_steps, f->t->scale[p.segment]};
        kernels_of(s)->bf16_operands->multiply(out, k_steps * 2, u->rows, &part, 1);
    }
}

void bb_linear_bf16_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    forward f = {.y = y, .residual = residual, .x = x.data, .t = t};
    f.slabs = (bb_slabs){.dev = dev,
                         .M = M,
                         .panels = bb_ternary_panels(t),
                         .multiplications = M * t->n * t->k,
                         .panel_bytes = bb_ternary_k_steps(t) * BB_K_STEP_BYTES * (int64_t)sizeof(bb_bf16),
                         .pieces = 1,
                         .expand = expand_panel,
                         .multiply = forward_unit};
    bb_slabs_multiply(&f.slabs);
}

/* ---- dx -------------------------------------------------------------------------------------------------------------- */

/* W as B: a panel has 64 columns k of W, and each segment's rows in it are a part, padded to whole panels of W's rows. */
typedef struct input_gradient {
    bb_slabs slabs; /* pieces: panels of W */
    bb_bf16 *dx;
    const void *dy;
    bb_dtype dy_dtype;
    const bb_ternary *t;
    bool in_place;                       /* dy is bf16 and its parts are read in place */
    int64_t a_stride;                    /* between rows of A: of dy, or of its copy in scratch */
    int64_t part_rows[BB_MAX_SEGMENTS];  /* rows of W */
    int64_t part_begin[BB_MAX_SEGMENTS]; /* where they begin in a row of A */
} input_gradient;

enum { SQUARE_BYTES = BB_PANEL * BB_PANEL * sizeof(bb_bf16) };

static void expand_square(const bb_slabs *s, uint8_t *panel, int64_t index, int64_t piece) {
    enum { BLOCKS = BB_PANEL / BB_BLOCK_COLUMNS };
    const bb_ternary *t = ((const input_gradient *)s)->t;
    _Alignas(64) uint8_t square[BB_PANEL * BB_PANEL];
    int64_t block = index * BLOCKS;
    kernels_of(s)->ternary->expand(square, bb_ternary_panel_at(t, piece).data + block * BB_BLOCK_BYTES,
                                   bb_min(bb_ternary_blocks(t) - block, BLOCKS));
    kernels_of(s)->bf16_operands->expand_rows((bb_bf16 *)(void *)(panel + piece * SQUARE_BYTES), square,
                                              t->k - index * BB_PANEL);
}

static const bb_bf16 *gradient_rows(const input_gradient *g, const bb_slab_unit *u, bb_bf16 *buffer) {
    int64_t N = g->t->n;
    if (g->in_place) return (const bb_bf16 *)g->dy + u->m0 * N;
    for (int64_t r = 0; r < u->rows; r++)
        for (int i = 0; i < g->t->segments; i++) {
            int64_t begin = bb_segment_begin(g->t, i), n = g->part_rows[i], src = (u->m0 + r) * N + begin;
            bb_bf16 *dst = buffer + r * g->a_stride + g->part_begin[i];
            if (g->dy_dtype == BB_F32)
                kernels_of(&g->slabs)->elementwise->round(dst, (const float *)g->dy + src, n);
            else
                memcpy(dst, (const bb_bf16 *)g->dy + src, (size_t)n * sizeof *dst);
            if (n % 2) dst[n] = 0;
        }
    return buffer;
}

/* One panel if W has many rows: run by run, so that each run of the panel serves all row tiles from the second-level cache. The
 * sums are kept in `sums` (ROW_TILE, BB_PANEL) meanwhile. */
static void gradient_by_runs(const input_gradient *g, bb_dot_output out, int64_t rows, const bb_dot_part *parts, float *sums) {
    memset(sums, 0, (size_t)(rows * BB_PANEL) * sizeof *sums);
    bb_dot_output sum = {sums, BB_F32, sums, BB_PANEL, BB_PANEL, false};
    for (int i = 0; i < g->t->segments; i++) {
        bb_dot_part run = parts[i];
        for (int64_t left = parts[i].k_steps; left > 0; left -= run.k_steps) {
            run.k_steps = bb_min(left, RUN_K_STEPS);
            kernels_of(&g->slabs)->bf16_operands->multiply(sum, g->a_stride, rows, &run, 1);
            run.a += 2 * run.k_steps;
            run.panel = (const uint8_t *)run.panel + run.k_steps * BB_DOT_K_STEP_BYTES;
        }
    }
    for (int64_t r = 0; r < rows; r++)
        kernels_of(&g->slabs)->elementwise->round((bb_bf16 *)out.y + r * out.stride, sums + r * BB_PANEL, out.columns);
}

static void gradient_unit(const bb_slabs *s, const bb_slab_unit *u) {
    const input_gradient *g = (const input_gradient *)s;
    const size_t sums_bytes = BB_SLAB_ROWS * BB_PANEL * sizeof(float);
    size_t a_bytes = g->in_place ? 0 : (size_t)(BB_SLAB_ROWS * g->a_stride) * sizeof(bb_bf16);
    uint8_t *scratch = bb_cpu_scratch(s->dev, sums_bytes + a_bytes);
    if (!scratch) return;
    const bb_bf16 *a = gradient_rows(g, u, (bb_bf16 *)(void *)(scratch + sums_bytes));
    int64_t K = g->t->k;
    for (int64_t j = 0; j < u->count; j++) {
        const uint8_t *panel = u->panels + j * s->panel_bytes;
        bb_dot_part parts[BB_MAX_SEGMENTS];
        for (int i = 0; i < g->t->segments; i++) {
            parts[i] = (bb_dot_part){a + g->part_begin[i], panel, (g->part_rows[i] + 1) / 2, g->t->scale[i]};
            panel += bb_panels_of(g->part_rows[i]) * SQUARE_BYTES;
        }
        int64_t k0 = (u->first + j) * BB_PANEL;
        bb_dot_output out = {g->dx + u->m0 * K + k0, BB_BF16, NULL, K, bb_min(K - k0, BB_PANEL), false};
        if (g->t->n <= MAX_WHOLE_ROWS)
            kernels_of(s)->bf16_operands->multiply(out, g->a_stride, u->rows, parts, g->t->segments);
        else
            gradient_by_runs(g, out, u->rows, parts, (float *)(void *)scratch);
    }
}

/* Sets where the segments' parts begin in a row of A. */
static void lay_parts(input_gradient *g) {
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

void bb_linear_bf16_input_gradient(bb_device *dev, bb_bf16 *dx, const void *dy, bb_dtype dy_dtype, const bb_ternary *t,
                                   int64_t M) {
    input_gradient g = {.dx = dx, .dy = dy, .dy_dtype = dy_dtype, .t = t};
    lay_parts(&g);
    g.slabs = (bb_slabs){.dev = dev,
                         .M = M,
                         .panels = bb_panels_of(t->k),
                         .multiplications = M * t->n * t->k,
                         .panel_bytes = bb_ternary_panels(t) * SQUARE_BYTES,
                         .pieces = bb_ternary_panels(t),
                         .expand = expand_square,
                         .multiply = gradient_unit};
    bb_slabs_multiply(&g.slabs);
}

/* ---- dW -------------------------------------------------------------------------------------------------------------- */

void bb_linear_bf16_weight_gradient(bb_device *dev, const bb_weight_gradient *w) {
    const bb_ternary *t = w->t;
    void *scratch = bb_cpu_shared(dev, bb_dot_product_scratch_bytes(dev, t->k, w->M));
    if (!scratch) return;
    bb_dot_product(dev, &(bb_dot_factors){.c = w->dw,
                                          .add = w->add,
                                          .a = w->dy,
                                          .a_dtype = w->dy_dtype,
                                          .s = w->x.scale,
                                          .b = w->x.data,
                                          .b_dtype = w->x.dtype,
                                          .rows = t->n,
                                          .columns = t->k,
                                          .k = w->M,
                                          .scratch = scratch});
}

#endif
