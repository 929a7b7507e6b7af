// SPDX-License-Identifier: MIT
/* The ternary linear layer on oneDNN, for any processor, in f32: forward and dx of unquantized inputs, and dW of any. The scale
 * of each row of W is folded in when it is expanded. */
#include "core/arena.h"
#include "core/math.h"
#include "ops/cpu/elementwise/elementwise_set.h"
#include "ops/cpu/linear/gemm.h"
#include "ops/cpu/linear/linear_kernels.h"
#include "ops/cpu/linear/ternary_set.h"
#include "ops/cpu/vector/simd.h"

enum {
    SLAB_BYTES = 4000000, /* of weights expanded at a time */
    WEIGHT_TILE = 64,     /* rows of dW in a tile */
    WEIGHT_TOKENS = 512   /* tokens whose products are added to dW at once */
};

/* ---- rows of numbers ------------------------------------------------------------------------------------------------- */

static const void *row_of(const void *rows, bb_dtype dtype, int64_t row, int64_t length, int64_t column) {
    return (const uint8_t *)rows + (size_t)(row * length + column) * bb_dtype_bytes(dtype);
}

/* Expands a panel's k-steps (ternary.h) into the thread's scratch. */
static const uint8_t *expand_panel(bb_device *dev, const bb_ternary *t, const bb_ternary_panel *p) {
    uint8_t *k_steps = bb_cpu_scratch(dev, (size_t)(bb_ternary_k_steps(t) * BB_K_STEP_BYTES));
    if (k_steps) bb_ternary_expand_panel(&bb_cpu_of(dev)->kernels, k_steps, t, p->data);
    return k_steps;
}

/* ---- forward --------------------------------------------------------------------------------------------------------- */

/* Columns n0 .. n0+width-1 of y, from the panels of W with these rows. */
typedef struct forward {
    const bb_cpu_kernels *kernels;
    bb_rows x;
    int64_t N, K, n0, width;
    float *y;
    const float *residual;
} forward;

static const void *forward_input(const void *context, int64_t m0, int64_t rows, void *buffer) {
    const forward *f = context;
    const void *x = row_of(f->x.data, f->x.dtype, m0, f->K, 0);
    if (f->x.dtype == BB_F32) return x;
    f->kernels->ternary->to_f32(buffer, x, f->x.dtype, 1.0f, rows * f->K);
    return buffer;
}

static void forward_output(const void *context, int64_t m0, int64_t rows, const void *c) {
    const forward *f = context;
    const float *row = c;
    for (int64_t r = 0; r < rows; r++, row += f->width) {
        int64_t at = (m0 + r) * f->N + f->n0;
        if (f->residual)
            f->kernels->elementwise->add(f->y + at, f->residual + at, row, f->width);
        else
            memcpy(f->y + at, row, (size_t)f->width * sizeof *row);
    }
}

/* Expands the panel's rows, times their scale, as columns of B (K, width). */
static void expand_columns(bb_device *dev, const forward *f, const bb_ternary *t, const bb_ternary_panel *p, float *b) {
    const uint8_t *k_steps = expand_panel(dev, t, p);
    if (!k_steps) return;
    int64_t at = p->first - f->n0;
    float g = t->scale[p->segment];
    for (int64_t r = 0; r < p->rows; r++)
        for (int64_t k = 0; k < f->K; k++) b[k * f->width + at + r] = (float)bb_ternary_value(k_steps, r, k) * g;
}

void bb_linear_gemm_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    int64_t K = t->k, panels = bb_ternary_panels(t);
    int64_t slab = bb_max(SLAB_BYTES / (K * BB_PANEL * (int64_t)sizeof(float)), 1);
    float *b = bb_cpu_shared(dev, (size_t)(slab * BB_PANEL * K) * sizeof *b);
    if (!b) return;
    forward f = {.kernels = &bb_cpu_of(dev)->kernels, .x = x, .N = t->n, .K = K, .y = y, .residual = residual};
    for (int64_t first = 0; first < panels; first += slab) {
        int64_t end = bb_min(first + slab, panels);
        bb_ternary_panel last = bb_ternary_panel_at(t, end - 1);
        f.n0 = bb_ternary_panel_at(t, first).first;
        f.width = last.first + last.rows - f.n0;
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic) if (f.width * K > BB_SIMD_SERIAL)
        for (int64_t i = first; i < end; i++) {
            bb_ternary_panel p = bb_ternary_panel_at(t, i);
            expand_columns(dev, &f, t, &p, b);
        }
        bb_gemm_shape shape = {.n = f.width, .k = K};
        bb_gemm_rows(dev, &shape, M, b, forward_input, forward_output, &f);
    }
}

/* ---- backward -------------------------------------------------------------------------------------------------------- */

/* Columns k0 .. k0+width-1 of dx. */
typedef struct input_gradient {
    const bb_cpu_kernels *kernels;
    bb_bf16 *dx;
    const void *dy;
    bb_dtype dy_dtype;
    int64_t N, K, k0, width;
} input_gradient;

static const void *dy_input(const void *context, int64_t m0, int64_t rows, void *buffer) {
    const input_gradient *g = context;
    const void *dy = row_of(g->dy, g->dy_dtype, m0, g->N, 0);
    if (g->dy_dtype == BB_F32) return dy;
    g->kernels->ternary->to_f32(buffer, dy, g->dy_dtype, 1.0f, rows * g->N);
    return buffer;
}

static void dx_output(const void *context, int64_t m0, int64_t rows, const void *c) {
    const input_gradient *g = context;
    for (int64_t r = 0; r < rows; r++)
        g->kernels->elementwise->round(g->dx + (m0 + r) * g->K + g->k0, (const float *)c + r * g->width, g->width);
}

static void input_gradient_all(bb_device *dev, input_gradient *g, const bb_ternary *t, int64_t M) {
    int64_t slab = bb_max(SLAB_BYTES / (g->N * (int64_t)sizeof(float)) / BB_PANEL, 1) * BB_PANEL;
    float *b = bb_cpu_shared(dev, (size_t)(g->N * slab) * sizeof *b);
    if (!b) return;
    int64_t panels = bb_ternary_panels(t);
    for (g->k0 = 0; g->k0 < g->K; g->k0 += slab) {
        g->width = bb_min(g->K - g->k0, slab);
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic) if (g->N * g->width > BB_SIMD_SERIAL)
        for (int64_t i = 0; i < panels; i++) {
            bb_ternary_panel p = bb_ternary_panel_at(t, i);
            const uint8_t *k_steps = expand_panel(dev, t, &p);
            for (int64_t r = 0; k_steps && r < p.rows; r++)
                for (int64_t k = 0; k < g->width; k++)
                    b[(p.first + r) * g->width + k] = (float)bb_ternary_value(k_steps, r, g->k0 + k) * t->scale[p.segment];
        }
        bb_gemm_shape shape = {.n = g->width, .k = g->N};
        bb_gemm_rows(dev, &shape, M, b, dy_input, dx_output, g);
    }
}

/* dw (N,K) += the product over a run of tokens. */
typedef struct weight_run {
    bb_device *dev;
    float *dw;
    const void *dy;
    bb_dtype dy_dtype;
    const float *s; /* (tokens), or NULL for ones */
    const float *x; /* (tokens, K) */
    int64_t tokens, N, K;
} weight_run;

/* a (columns, tokens) = transpose of dy's columns from n0 on, each row times its token's scale */
static void transpose_scaled(const weight_run *w, float *a, int64_t n0, int64_t columns) {
    for (int64_t r = 0; r < w->tokens; r++) {
        float row[WEIGHT_TILE], scale = w->s ? w->s[r] : 1.0f;
        bb_cpu_of(w->dev)->kernels.ternary->to_f32(row, row_of(w->dy, w->dy_dtype, r, w->N, n0), w->dy_dtype, scale, columns);
        for (int64_t c = 0; c < columns; c++) a[c * w->tokens + r] = row[c];
    }
}

static void weight_gradient_run(const weight_run *w) {
    bb_gemm_shape shape = {.accumulate = true, .m = WEIGHT_TILE, .n = w->K, .k = w->tokens};
    const bb_gemm_op *whole = w->N >= WEIGHT_TILE ? bb_gemm_get(w->dev, &shape) : NULL, *last = NULL;
    shape.m = w->N % WEIGHT_TILE;
    if (shape.m) last = bb_gemm_get(w->dev, &shape);
#pragma omp parallel for num_threads(w->dev->threads) schedule(dynamic) if (w->N > WEIGHT_TILE)
    for (int64_t n = 0; n < w->N; n += WEIGHT_TILE) {
        int64_t columns = bb_min(w->N - n, WEIGHT_TILE);
        const bb_gemm_op *op = columns == WEIGHT_TILE ? whole : last;
        float *a = op ? bb_cpu_scratch(w->dev, (size_t)(WEIGHT_TILE * w->tokens) * sizeof *a) : NULL;
        if (!a) continue;
        transpose_scaled(w, a, n, columns);
        bb_gemm_run(w->dev, op, w->dw + n * w->K, a, w->x);
    }
}

void bb_linear_gemm_input_gradient(bb_device *dev, bb_bf16 *dx, const void *dy, bb_dtype dy_dtype, const bb_ternary *t,
                                   int64_t M) {
    input_gradient g = {.kernels = &bb_cpu_of(dev)->kernels, .dx = dx, .dy = dy, .dy_dtype = dy_dtype, .N = t->n, .K = t->k};
    input_gradient_all(dev, &g, t, M);
}

void bb_linear_gemm_weight_gradient(bb_device *dev, const bb_weight_gradient *w) {
    int64_t N = w->t->n, K = w->t->k, max_tokens = bb_min(w->M, WEIGHT_TOKENS);
    const bb_ternary_set *set = bb_cpu_of(dev)->kernels.ternary;
    if (!w->add) dev->ops->zero(dev, w->dw, (size_t)(N * K) * sizeof *w->dw);
    float *wide = bb_cpu_shared(dev, (size_t)(max_tokens * K) * sizeof *wide);
    if (!wide) return;
    weight_run run = {.dev = dev, .dw = w->dw, .dy_dtype = w->dy_dtype, .x = wide, .N = N, .K = K};
    for (int64_t m = 0; m < w->M; m += WEIGHT_TOKENS) {
        run.tokens = bb_min(w->M - m, WEIGHT_TOKENS);
        run.dy = row_of(w->dy, w->dy_dtype, m, N, 0);
        run.s = w->x.scale ? w->x.scale + m : NULL;
#pragma omp parallel for num_threads(dev->threads) schedule(static) if (run.tokens * K > BB_SIMD_SERIAL)
        for (int64_t r = 0; r < run.tokens; r++)
            set->to_f32(wide + r * K, row_of(w->x.data, w->x.dtype, m + r, K, 0), w->x.dtype, 1.0f, K);
        weight_gradient_run(&run);
    }
}
