// SPDX-License-Identifier: MIT
/* Checks a library before it is used: its products must equal those of the kernels on this card, with this driver. The test
 * matrices hold numbers whose sums are exact in any order, so all three products must be equal bit for bit. */
#include <stdio.h>
#include <stdlib.h>

#include "ops/cuda/cublaslt.h"
#include "ops/cuda/entries.h"
#include "ops/cuda/gemm.h"

enum { THREADS = 256, ROWS = 128, OUTPUTS = 96, INPUTS = 160 };
enum { Y, DX, DW, RESULTS };

/* Returns a small pseudorandom integer in -limit .. limit. */
static __host__ __device__ inline int draw(int64_t i, int limit) {
    uint32_t h = (uint32_t)i * 2654435761u;
    return (int)((h ^ h >> 15) * 2246822519u >> 16) % (2 * limit + 1) - limit;
}

static __global__ void __launch_bounds__(THREADS) fill_int8(int8_t *to, int64_t n, int limit) {
    for (BB_CUDA_GRID_STRIDE(i, n)) to[i] = (int8_t)draw(i + 7, limit);
}

static __global__ void __launch_bounds__(THREADS) fill_f32(float *to, int64_t n, int limit, int at_least) {
    for (BB_CUDA_GRID_STRIDE(i, n)) to[i] = (float)max(draw(i + 3, limit), at_least);
}

/* All matrices are in one allocation on the card: inputs, then results. */
typedef struct matrices {
    bb_ternary t;
    bb_rows x, q;
    float *w, *dy, *result[RESULTS];
} matrices;

static size_t layout(matrices *m, char *base) {
    size_t used = 0;
    auto piece = [&](int64_t bytes) {
        char *at = base + used;
        used += (size_t)bb_round_up(bytes, 256);
        return (void *)at;
    };
    enum { F32 = sizeof(float) };
    *m = {};
    m->t.n = m->t.segment_end[0] = OUTPUTS;
    m->t.k = INPUTS;
    m->t.segments = 1;
    m->t.scale = (float *)piece(F32);
    m->t.data = piece((int64_t)bb_cuda_ternary_bytes(NULL, &m->t));
    m->x = {piece(ROWS * INPUTS), (float *)piece(ROWS * F32), BB_I8};
    m->q = {piece(ROWS * OUTPUTS), (float *)piece(ROWS * F32), BB_I8};
    m->w = (float *)piece(OUTPUTS * INPUTS * F32);
    m->dy = (float *)piece(ROWS * OUTPUTS * F32);
    m->result[Y] = (float *)piece(ROWS * OUTPUTS * F32);
    m->result[DX] = (float *)piece(ROWS * INPUTS * F32); /* activation type */
    m->result[DW] = (float *)piece(OUTPUTS * INPUTS * F32);
    return used;
}

static const int64_t counts[RESULTS] = {ROWS * OUTPUTS, ROWS *INPUTS, OUTPUTS *INPUTS};

static void fill(bb_device *dev, const matrices *m) {
    auto numbers = [&](float *to, int64_t n, int limit, int at_least) {
        BB_CUDA_LAUNCH(dev, fill_f32, bb_cuda_blocks(dev, n, THREADS), THREADS, 0, to, n, limit, at_least);
    };
    numbers(m->w, OUTPUTS * INPUTS, 2, -2);
    numbers(m->dy, ROWS * OUTPUTS, 7, -7);
    numbers(m->x.scale, ROWS, 3, 1);
    numbers(m->q.scale, ROWS, 3, 1);
    BB_CUDA_LAUNCH(dev, fill_int8, 16, THREADS, 0, (int8_t *)m->x.data, (int64_t)(ROWS * INPUTS), 127);
    BB_CUDA_LAUNCH(dev, fill_int8, 16, THREADS, 0, (int8_t *)m->q.data, (int64_t)(ROWS * OUTPUTS), 127);
    bb_cuda_ternary_quant(dev, &m->t, m->w);
}

/* Computes the three products and copies them to the host, one after the other. Returns false if `gemm` cannot compute one of
 * them. */
static bool compute(bb_device *dev, const bb_cuda_gemm *gemm, const matrices *m, float *host) {
    for (int i = 0; i < RESULTS; i++) /* old contents expose wrong additions and missing stores */
        BB_CUDA_LAUNCH(dev, fill_f32, 16, THREADS, 0, m->result[i], counts[i], 5, -5);
    bb_cuda_gradient dy = {m->dy, BB_F32, m->x.scale};
    bool done = gemm->forward(dev, m->result[Y], m->result[Y], m->x, &m->t, ROWS) &&
                gemm->input_gradient(dev, m->result[DX], m->q, &m->t, ROWS) &&
                gemm->weight_gradient(dev, m->result[DW], true, dy, m->x, &m->t, ROWS);
    for (int i = 0; i < RESULTS; host += counts[i++])
        dev->ops->copy_out(dev, host, m->result[i], (size_t)counts[i] * sizeof *host);
    return done;
}

/* Returns the first product that differs from the kernels', or the reason why nothing was compared; NULL: no difference. */
static const char *difference(bb_device *dev) {
    static const char *const names[RESULTS] = {"forward", "input gradient", "weight gradient"};
    const int64_t total = counts[Y] + counts[DX] + counts[DW];
    matrices m;
    size_t bytes = layout(&m, (char *)256); /* not NULL: an offset from NULL is undefined */
    void *memory = dev->ops->alloc(dev, bytes);
    float *mine = (float *)calloc(2 * (size_t)total, sizeof *mine), *theirs = mine ? mine + total : NULL;
    const char *wrong = memory && mine ? NULL : "too little memory";
    if (!wrong) {
        layout(&m, (char *)memory);
        fill(dev, &m);
        if (!compute(dev, &bb_cuda_gemm_kernels, &m, mine) || !compute(dev, &bb_cuda_gemm_library, &m, theirs))
            wrong = "it has no way for this card";
        bb_error failure;
        if (dev->ops->sync(dev, &failure) != BB_OK && !wrong) wrong = "it failed";
    }
    for (int64_t i = 0, at = 0; i < RESULTS && !wrong; at += counts[i++])
        if (memcmp(mine + at, theirs + at, (size_t)counts[i] * sizeof *mine) != 0) wrong = names[i];
    free(mine);
    if (memory) dev->ops->free(dev, memory, bytes);
    return wrong;
}

void bb_cuda_gemm_choose(bb_device *dev, char *text, size_t size) {
    bb_cuda *cuda = bb_cuda_of(dev);
    const char *asked = getenv("BITBYTE_CUDA_GEMM");
    cuda->gemm = &bb_cuda_gemm_kernels;
    if (asked && strcmp(asked, "kernels") == 0) return;
    cuda->blas = bb_cuda_blas_open();
    if (!cuda->blas) return;
    const char *wrong = difference(dev);
    if (wrong) {
        bb_cuda_blas_close(cuda->blas);
        cuda->blas = NULL;
        snprintf(text, size, "; cuBLASLt is not used: %s", wrong);
        return;
    }
    cuda->gemm = &bb_cuda_gemm_library;
    snprintf(text, size, ", cuBLASLt %zu", bb_cuda_blas_version(cuda->blas));
}
