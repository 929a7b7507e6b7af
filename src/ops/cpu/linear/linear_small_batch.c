// SPDX-License-Identifier: MIT
/* The forward pass of up to BB_SMALL_BATCH_ROWS rows: the matrix is read from memory once, packed, by a team of threads. Each
 * output is a sum over k in the same order for every M, so that row results are independent of batch size. */
#include "core/arena.h"
#include "ops/cpu/linear/dot.h"
#include "ops/cpu/linear/linear_kernels.h"
#include "ops/cpu/linear/ternary_dot.h"
#include "ops/cpu/linear/ternary_set.h"

enum {
    ROWS = BB_SMALL_BATCH_ROWS,
    PARALLEL = 400000,     /* multiplications that justify waking the threads */
    PARALLEL_TEAM = 100000 /* the same for a team */
};

/* A product, its kernels, and the rows of x as these read them. */
typedef struct int8_forward {
    bb_ternary_dot *dot;
    const bb_ternary_set *set;
    float *y;
    const float *residual;
    bb_rows x;
    const bb_ternary *t;
    int64_t M, blocks, stride; /* stride: of a row of x */
    const int8_t *rows;
    int32_t *offsets; /* (M): the sums of the rows, which the biased codes q + 1 add to each product */
    int32_t *sums;    /* (threads, ROWS, BB_PANEL), of products */
    int8_t *padded;   /* (M, stride), if K is not a multiple of a block */
} int8_forward;

static size_t int8_layout(int8_forward *f, void *memory, int threads) {
    bb_arena arena = {.base = memory};
    f->offsets = bb_arena_alloc(&arena, (size_t)f->M * sizeof *f->offsets);
    f->sums = bb_arena_alloc(&arena, (size_t)threads * ROWS * BB_PANEL * sizeof *f->sums);
    f->padded = f->stride == f->t->k ? NULL : bb_arena_alloc(&arena, (size_t)(f->M * f->stride));
    return arena.used;
}

static void multiply_panels(void *user, bb_team *team, int thread) {
    const int8_forward *f = user;
    int32_t *sums = f->sums + (int64_t)thread * ROWS * BB_PANEL;
    for (int64_t j = bb_team_next_unit(team, thread); j >= 0; j = bb_team_next_unit(team, thread)) {
        bb_ternary_panel p = bb_ternary_panel_at(f->t, j);
        float g = f->t->scale[p.segment];
        f->dot(sums, f->rows, f->stride, f->M, f->blocks, p.data);
        for (int64_t m = 0; m < f->M; m++) {
            int64_t at = m * f->t->n + p.first;
            f->set->finish_row(f->y + at, f->residual ? f->residual + at : NULL, sums + m * BB_PANEL, f->offsets[m],
                               f->x.scale[m] * g, p.rows);
        }
    }
}

static void int8_small_batch(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    const bb_cpu_kernels *kernels = &bb_cpu_of(dev)->kernels;
    int8_forward f = {.dot = t->dense ? kernels->ternary_dot_dense : kernels->ternary_dot,
                      .set = kernels->ternary,
                      .y = y,
                      .residual = residual,
                      .x = x,
                      .t = t,
                      .M = M,
                      .blocks = bb_ternary_blocks(t),
                      .stride = bb_ternary_blocks(t) * BB_BLOCK_COLUMNS,
                      .rows = x.data};
    bb_team *team = bb_cpu_team(dev);
    void *memory = bb_cpu_shared(dev, int8_layout(&f, NULL, dev->threads));
    if (!memory || !team) return;
    int8_layout(&f, memory, dev->threads);
    kernels->dot_operands->row_sums(f.offsets, f.rows, M, t->k);
    for (int64_t m = 0; m < M && f.padded; m++) {
        memcpy(f.padded + m * f.stride, f.rows + m * t->k, (size_t)t->k);
        memset(f.padded + m * f.stride + t->k, 0, (size_t)(f.stride - t->k));
    }
    if (f.padded) f.rows = f.padded;
    const bb_ternary *next = t->next;
    bb_team_prefetch next_data = {0};
    if (next) next_data = (bb_team_prefetch){next->data, bb_ternary_panels(next), (int64_t)bb_ternary_panel_bytes(next)};
    bb_team_run(team, M * t->n * t->k <= PARALLEL_TEAM, bb_ternary_panels(t), multiply_panels, &f, next_data);
}

/* ---- small batches that are not quantized ---------------------------------------------------------------------------- */

static void float_small_batch(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    const bb_cpu_kernels *kernels = &bb_cpu_of(dev)->kernels;
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
        bb_ternary_expand_panel(kernels, k_steps, t, p.data);
        kernels->ternary->columns(q, k_steps, K);
        for (int64_t m = 0; m < M; m++)
            kernels->ternary->float_row(y + m * N + p.first, residual ? residual + m * N + p.first : NULL, rows + m * K, q,
                                        t->scale[p.segment], K, p.rows);
    }
}

void bb_linear_small_batch_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    (x.dtype == BB_I8 ? int8_small_batch : float_small_batch)(dev, y, residual, x, t, M);
}
