// SPDX-License-Identifier: MIT
/* The tied output head: f32 products, never quantized. */
#include "core/arena.h"
#include "core/math.h"
#include "ops/cpu/device/entries.h"
#include "ops/cpu/elementwise/elementwise_set.h"
#include "ops/cpu/linear/gemm.h"
#include "ops/cpu/linear/head_set.h"
#include "ops/cpu/vector/simd.h"

/* dE is summed in at most PARTS parts, each over consecutive runs of at most RUN tokens. */
enum { PARTS = 8, RUN = 512 };

/* Rows of a (M,k) to rows of y (M,n). */
typedef struct rows_product {
    const bb_elementwise_set *elementwise;
    const float *a;
    bb_bf16 *y;
    int64_t n, k;
} rows_product;

static const void *input_rows(const void *context, int64_t m0, int64_t rows, void *buffer) {
    const rows_product *p = context;
    (void)rows;
    (void)buffer;
    return p->a + m0 * p->k;
}

static void output_rows(const void *context, int64_t m0, int64_t rows, const void *c) {
    const rows_product *p = context;
    p->elementwise->round(p->y + m0 * p->n, c, rows * p->n);
}

enum { UNIT_SYMBOLS = 8, TASK_ROWS = 48 };

typedef struct small_batch_logits {
    const bb_head_set *set;
    const bb_head_product *p;
} small_batch_logits;

static void small_batch_symbols(void *user, bb_team *team, int thread) {
    const small_batch_logits *w = user;
    for (int64_t i = bb_team_next_unit(team, thread); i >= 0; i = bb_team_next_unit(team, thread))
        w->set->product(w->p, 0, w->p->M, i * UNIT_SYMBOLS, bb_min((i + 1) * UNIT_SYMBOLS, w->p->V));
}

void bb_cpu_head_forward(bb_device *dev, float *logits, const float *h, const bb_head *head) {
    int64_t M = head->M, V = head->V, C = head->C;
    const bb_head_product p = {logits, h, head->e, M, V, C};
    const bb_head_set *set = bb_cpu_of(dev)->kernels.head;
    if (M <= BB_SMALL_BATCH_ROWS) {
        small_batch_logits w = {set, &p};
        bb_team *team = bb_cpu_team(dev);
        if (team)
            bb_team_run(team, M * V * C <= BB_SIMD_SERIAL, bb_ceil_div(V, UNIT_SYMBOLS), small_batch_symbols, &w,
                        (bb_team_prefetch){0});
        return;
    }
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic)
    for (int64_t m = 0; m < M; m += TASK_ROWS) set->product(&p, m, bb_min(m + TASK_ROWS, M), 0, V);
}

static size_t sum_stride(int64_t V, int64_t C) { return bb_align_up((size_t)(V * C) * sizeof(float)) / sizeof(float); }

size_t bb_cpu_head_scratch(int64_t M, int64_t V, int64_t C) {
    return (size_t)(M < PARTS ? M : PARTS) * sum_stride(V, C) * sizeof(float);
}

/* de (V,C) += dlogitsT (V,M) h (M,C) */
static void embedding_gradient(bb_device *dev, float *de, const float *dlogits, const float *h, int64_t M, int64_t V,
                               int64_t C) {
    int64_t part = (M + PARTS - 1) / PARTS, whole_run = part < RUN ? part : RUN;
    int64_t parts = (M + part - 1) / part;
    bb_gemm_shape shape = {.accumulate = true, .a_transposed = true, .m = V, .n = C, .k = whole_run};
    /* a part is runs of whole_run tokens and one shorter run; the last part may be shorter than the others */
    int64_t lengths[3] = {whole_run, part % whole_run, (M - (parts - 1) * part) % whole_run};
    const bb_gemm_op *ops[3] = {NULL};
    for (int i = 0; i < 3; i++) {
        shape.k = lengths[i];
        if (shape.k && !(ops[i] = bb_gemm_get(dev, &shape))) return;
    }
    size_t stride = sum_stride(V, C);
    float *sums = bb_cpu_shared(dev, (size_t)parts * stride * sizeof *sums);
    if (!sums) return;
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic) if (parts > 1)
    for (int64_t i = 0; i < parts; i++) {
        float *sum = sums + (size_t)i * stride;
        memset(sum, 0, (size_t)(V * C) * sizeof *sum);
        int64_t end = (i + 1) * part < M ? (i + 1) * part : M;
        for (int64_t m = i * part, run; m < end; m += run) {
            run = end - m < whole_run ? end - m : whole_run;
            const bb_gemm_op *op = run == lengths[0] ? ops[0] : run == lengths[1] ? ops[1] : ops[2];
            bb_gemm_run(dev, op, sum, dlogits + m * V, h + m * C);
        }
    }
    const bb_elementwise_set *set = bb_cpu_of(dev)->kernels.elementwise;
#pragma omp parallel for num_threads(dev->threads) schedule(static) if (V * C > BB_SIMD_SERIAL)
    for (int64_t v = 0; v < V; v++)
        for (int64_t i = 0; i < parts; i++) set->add(de + v * C, de + v * C, sums + (size_t)i * stride + v * C, C);
}

void bb_cpu_head_backward(bb_device *dev, void *dh, float *de, const float *dlogits, const float *h, const bb_head *head) {
    rows_product p = {.elementwise = bb_cpu_of(dev)->kernels.elementwise, .a = dlogits, .y = dh, .n = head->C, .k = head->V};
    bb_gemm_shape shape = {.n = head->C, .k = head->V};
    bb_gemm_rows(dev, &shape, head->M, head->e, input_rows, output_rows, &p);
    embedding_gradient(dev, de, dlogits, h, head->M, head->V, head->C);
}
