/* The tied output head: f32 products, never quantized.
 * SPDX-License-Identifier: MIT */
#include "core/arena.h"
#include "ops/cpu/gemm.h"

enum { ROW_TILE = 64, CHUNK = 1024 };

static int64_t at_most(int64_t n, int64_t limit) { return n < limit ? n : limit; }

/* c (M,n) = a (M,k) b, b given by its strides; rows of c go through `store` when it is given (c is then scratch). */
static void product(bb_device *dev, float *c, bb_bf16 *c_act, const float *a, const float *b, int64_t b_row, int64_t b_col,
                    int64_t M, int64_t n, int64_t k) {
    bb_gemm_shape shape = {.kind = BB_GEMM_F32, .m = ROW_TILE, .n = n, .k = k, .a_row = k, .a_col = 1, .c_row = n};
    const bb_gemm_op *whole = M >= ROW_TILE ? bb_gemm_get(dev, &shape) : NULL, *last = NULL;
    shape.m = M % ROW_TILE;
    if (shape.m) last = bb_gemm_get(dev, &shape);
    const bb_gemm_op *any = whole ? whole : last;
    void *packed = any ? bb_gemm_shared(dev, bb_gemm_packed_bytes(any)) : NULL;
    if (!packed) return;
    bb_gemm_pack(dev, any, packed, b, b_row, b_col);
    int64_t tiles = (M + ROW_TILE - 1) / ROW_TILE;
    size_t c_bytes = c_act ? bb_align_up((size_t)(ROW_TILE * n) * sizeof(float)) : 0;
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic) if (tiles > 1)
    for (int64_t i = 0; i < tiles; i++) {
        int64_t m0 = i * ROW_TILE, rows = at_most(M - m0, ROW_TILE);
        const bb_gemm_op *op = rows == ROW_TILE ? whole : last;
        uint8_t *scratch = op ? bb_cpu_scratch(dev, c_bytes + bb_gemm_scratch_bytes(op) + BB_ALIGN) : NULL;
        if (!scratch) continue;
        float *acc = c_act ? (float *)(void *)scratch : c + m0 * n;
        bb_gemm_run(dev, op, acc, a + m0 * k, packed, scratch + c_bytes);
        for (int64_t j = 0; c_act && j < rows * n; j++) c_act[m0 * n + j] = bb_bf16_from_f32(acc[j]);
    }
}

void bb_cpu_head_forward(bb_device *dev, float *logits, const float *h, const float *e, int64_t M, int64_t V, int64_t C) {
    product(dev, logits, NULL, h, e, 1, C, M, V, C);
}

/* de (V,C) += dlogitsT (V, rows) h (rows, C), rows from m0 on. */
static void embedding_gradient(bb_device *dev, float *de, const float *dlogits, const float *h, int64_t rows, int64_t V,
                               int64_t C) {
    bb_gemm_shape shape = {.kind = BB_GEMM_F32,
                           .accumulate = true,
                           .m = at_most(V, ROW_TILE),
                           .n = C,
                           .k = rows,
                           .a_row = rows,
                           .a_col = 1,
                           .c_row = C};
    const bb_gemm_op *whole = bb_gemm_get(dev, &shape), *last = NULL;
    int64_t tile = shape.m;
    shape.m = V % tile;
    if (shape.m) last = bb_gemm_get(dev, &shape);
    void *packed = whole ? bb_gemm_shared(dev, bb_gemm_packed_bytes(whole)) : NULL;
    if (!packed) return;
    bb_gemm_pack(dev, whole, packed, h, C, 1);
    int64_t tiles = (V + tile - 1) / tile;
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic) if (tiles > 1)
    for (int64_t i = 0; i < tiles; i++) {
        const bb_gemm_op *op = (i + 1) * tile <= V ? whole : last;
        size_t a_bytes = bb_align_up((size_t)(tile * rows) * sizeof(float));
        uint8_t *scratch = op ? bb_cpu_scratch(dev, a_bytes + bb_gemm_scratch_bytes(op)) : NULL;
        if (!scratch) continue;
        bb_gemm_transpose(scratch, dlogits + i * tile, rows, at_most(V - i * tile, tile), V, sizeof(float));
        bb_gemm_run(dev, op, de + i * tile * C, scratch, packed, scratch + a_bytes);
    }
}

void bb_cpu_head_backward(bb_device *dev, void *dh, float *de, const float *dlogits, const float *h, const float *e, int64_t M,
                          int64_t V, int64_t C) {
    product(dev, NULL, dh, dlogits, e, C, 1, M, C, V);
    for (int64_t m0 = 0; m0 < M; m0 += CHUNK)
        embedding_gradient(dev, de, dlogits + m0 * V, h + m0 * C, at_most(M - m0, CHUNK), V, C);
}
