// SPDX-License-Identifier: MIT
/* The forward pass and dx of the ternary linear layer as exact integer products, on any processor. For dx each row of dy, times
 * the scales of W, is quantized like activations. */
#include <math.h>

#include "core/arena.h"
#include "core/math.h"
#include "ops/cpu/linear/dot.h"
#include "ops/cpu/linear/linear_kernels.h"
#include "ops/cpu/linear/slabs.h"
#include "ops/cpu/linear/ternary_set.h"

enum { CACHED_BYTES = 12000000 /* of an output; a larger one is not read from the second-level caches */ };

static const bb_cpu_kernels *kernels_of(const bb_slabs *s) { return &bb_cpu_of(s->dev)->kernels; }

/* ---- forward --------------------------------------------------------------------------------------------------------- */

typedef struct forward {
    bb_slabs slabs;
    float *y;
    const float *residual;
    bb_rows x;
    const bb_ternary *t;
    int64_t k_steps; /* of a panel */
    bool non_temporal;
} forward;

static void expand_panel(const bb_slabs *s, uint8_t *panel, int64_t index, int64_t piece) {
    (void)piece;
    const forward *f = (const forward *)s;
    int64_t available = bb_ternary_k_steps(f->t);
    bb_ternary_expand_panel(kernels_of(s), panel, f->t, bb_ternary_panel_at(f->t, index).data);
    memset(panel + available * BB_K_STEP_BYTES, 0, (size_t)((f->k_steps - available) * BB_K_STEP_BYTES));
}

/* A unit's rows of x, padded to whole k-steps. */
static bool load_rows(const forward *f, const bb_slab_unit *u, bb_dot_rows *out) {
    int64_t K = f->t->k, stride = 4 * f->k_steps;
    size_t sums_bytes = BB_SLAB_ROWS * sizeof(int32_t);
    uint8_t *scratch = bb_cpu_scratch(f->slabs.dev, sums_bytes + (stride == K ? 0 : (size_t)(BB_SLAB_ROWS * stride)));
    if (!scratch) return false;
    int32_t *sums = (int32_t *)(void *)scratch;
    int8_t *padded = (int8_t *)scratch + sums_bytes;
    const int8_t *x = (const int8_t *)f->x.data + u->m0 * K;
    kernels_of(&f->slabs)->dot_operands->row_sums(sums, x, u->rows, K);
    *out = (bb_dot_rows){stride == K ? x : padded, stride, u->rows, sums, f->x.scale + u->m0};
    for (int64_t r = 0; r < u->rows && stride != K; r++) {
        memcpy(padded + r * stride, x + r * K, (size_t)K);
        memset(padded + r * stride + K, 0, (size_t)(stride - K));
    }
    return true;
}

static void forward_unit(const bb_slabs *s, const bb_slab_unit *u) {
    const forward *f = (const forward *)s;
    bb_dot_rows rows;
    if (!load_rows(f, u, &rows)) return;
    for (int64_t j = 0; j < u->count; j++) {
        bb_ternary_panel p = bb_ternary_panel_at(f->t, u->first + j);
        int64_t at = u->m0 * f->t->n + p.first;
        bb_dot_output out = {f->y + at, BB_F32, f->residual ? f->residual + at : NULL, f->t->n, p.rows, f->non_temporal};
        bb_dot_panel panel = {u->panels + j * s->panel_bytes, f->k_steps, f->t->scale[p.segment]};
        kernels_of(s)->dot->int8(out, rows, panel);
    }
}

void bb_linear_int8_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    const bb_dot_set *dot = bb_cpu_of(dev)->kernels.dot;
    forward f = {.y = y, .residual = residual, .x = x, .t = t};
    f.k_steps = bb_round_up(bb_ternary_k_steps(t), dot->k_steps);
    f.non_temporal = !residual && M * t->n * (int64_t)sizeof *y > CACHED_BYTES;
    f.slabs = (bb_slabs){.dev = dev,
                         .M = M,
                         .panels = bb_ternary_panels(t),
                         .multiplications = M * t->n * t->k,
                         .panel_bytes = f.k_steps * BB_K_STEP_BYTES,
                         .pieces = 1,
                         .expand = expand_panel,
                         .multiply = forward_unit,
                         .open = dot->open,
                         .close = dot->close};
    bb_slabs_multiply(&f.slabs);
}

/* ---- dx -------------------------------------------------------------------------------------------------------------- */

/* W as B: a panel has 64 columns k of W, and its k-steps run over the rows of W, one panel of W after the other. */
typedef struct input_gradient {
    bb_slabs slabs; /* pieces: panels of W */
    bb_bf16 *dx;
    const uint8_t *dy;
    bb_dtype dy_dtype;
    const bb_ternary *t;
    int64_t stride; /* bytes of a quantized row of dy, 64 for each panel of W */
} input_gradient;

static void expand_square(const bb_slabs *s, uint8_t *panel, int64_t index, int64_t piece) {
    enum { BLOCKS = BB_PANEL / BB_BLOCK_COLUMNS };
    const bb_ternary *t = ((const input_gradient *)s)->t;
    _Alignas(64) uint8_t square[BB_PANEL * BB_PANEL];
    int64_t block = index * BLOCKS;
    kernels_of(s)->ternary->expand(square, bb_ternary_panel_at(t, piece).data + block * BB_BLOCK_BYTES,
                                   bb_min(bb_ternary_blocks(t) - block, BLOCKS));
    kernels_of(s)->dot_operands->transpose(panel + piece * BB_PANEL * BB_PANEL, square,
                                           bb_min(t->k - index * BB_PANEL, BB_PANEL));
}

/* Quantizes a row of dy; each segment's codes begin a panel. */
static void quantize_row(const input_gradient *g, int8_t *q, int32_t *sum, float *scale, const uint8_t *row) {
    const bb_dot_operands *operands = kernels_of(&g->slabs)->dot_operands;
    const bb_ternary *t = g->t;
    size_t element = bb_dtype_bytes(g->dy_dtype);
    float max_abs = 0;
    for (int i = 0; i < t->segments; i++) {
        int64_t begin = bb_segment_begin(t, i);
        float m = t->scale[i] * operands->absmax(row + (size_t)begin * element, g->dy_dtype, t->segment_end[i] - begin);
        if (m > max_abs || isnan(m)) max_abs = m; /* a NaN is kept */
    }
    *scale = max_abs / 127.0f;
    if (*scale < BB_MIN_GRADIENT_SCALE) *scale = 0;
    *sum = 0;
    memset(q, 0, (size_t)g->stride);
    for (int i = 0; i<t->segments && * scale> 0; i++) {
        int64_t begin = bb_segment_begin(t, i), n = t->segment_end[i] - begin;
        *sum += operands->quantize(q, row + (size_t)begin * element, g->dy_dtype, t->scale[i] / *scale, n);
        q += bb_panels_of(n) * BB_PANEL;
    }
}

static void gradient_unit(const bb_slabs *s, const bb_slab_unit *u) {
    const input_gradient *g = (const input_gradient *)s;
    int64_t K = g->t->k, row_bytes = g->t->n * (int64_t)bb_dtype_bytes(g->dy_dtype);
    size_t q_bytes = bb_align_up((size_t)(BB_SLAB_ROWS * g->stride));
    uint8_t *scratch = bb_cpu_scratch(s->dev, q_bytes + BB_SLAB_ROWS * (sizeof(int32_t) + sizeof(float)));
    if (!scratch) return;
    int8_t *q = (int8_t *)scratch;
    int32_t *sums = (int32_t *)(void *)(scratch + q_bytes);
    float *scales = (float *)(void *)(sums + BB_SLAB_ROWS);
    for (int64_t r = 0; r < u->rows; r++)
        quantize_row(g, q + r * g->stride, sums + r, scales + r, g->dy + (u->m0 + r) * row_bytes);
    for (int64_t j = 0; j < u->count; j++) {
        int64_t k0 = (u->first + j) * BB_PANEL;
        bb_dot_output out = {g->dx + u->m0 * K + k0, BB_BF16, NULL, K, bb_min(K - k0, BB_PANEL), false};
        bb_dot_panel panel = {u->panels + j * s->panel_bytes, g->stride / 4, 1.0f};
        kernels_of(s)->dot->int8(out, (bb_dot_rows){q, g->stride, u->rows, sums, scales}, panel);
    }
}

void bb_linear_int8_input_gradient(bb_device *dev, bb_bf16 *dx, const void *dy, bb_dtype dy_dtype, const bb_ternary *t,
                                   int64_t M) {
    const bb_dot_set *dot = bb_cpu_of(dev)->kernels.dot;
    int64_t source_panels = bb_ternary_panels(t);
    input_gradient g = {.dx = dx, .dy = dy, .dy_dtype = dy_dtype, .t = t, .stride = source_panels * BB_PANEL};
    g.slabs = (bb_slabs){.dev = dev,
                         .M = M,
                         .panels = bb_panels_of(t->k),
                         .multiplications = M * t->n * t->k,
                         .panel_bytes = source_panels * BB_PANEL * BB_PANEL,
                         .pieces = source_panels,
                         .expand = expand_square,
                         .multiply = gradient_unit,
                         .open = dot->open,
                         .close = dot->close};
    bb_slabs_multiply(&g.slabs);
}
