// SPDX-License-Identifier: MIT
/* Matrix products on oneDNN, in f32. Each call is one tile,
 * computed by the calling thread alone inside our own parallel region: so a result does not depend on the number of threads. */
#ifndef BB_OPS_CPU_GEMM_H
#define BB_OPS_CPU_GEMM_H

#include "ops/cpu/device/cpu.h"

/* C (m,n) = A (m,k) B (k,n), or C += where `accumulate`. All dense and row-major; A is stored (k,m) where `a_transposed`, B
 * (n,k) where `b_transposed`. (oneDNN 2.6 has fast products of dense matrices only.) */
typedef struct bb_gemm_shape {
    bool accumulate, a_transposed, b_transposed;
    int64_t m, n, k;
} bb_gemm_shape;

typedef struct bb_gemm_op bb_gemm_op;

bb_status bb_gemm_open(bb_device *dev, bb_error *err);
void bb_gemm_close(bb_device *dev);
const char *bb_gemm_version(void);

/* The primitive of a shape, made on first use and kept; NULL with a recorded failure where oneDNN has none. Outside parallel
 * regions. */
const bb_gemm_op *bb_gemm_get(bb_device *dev, const bb_gemm_shape *shape);
/* Inside parallel regions of the device's threads, or outside of any. */
void bb_gemm_run(bb_device *dev, const bb_gemm_op *op, void *c, const void *a, const void *b);

/* A product of M rows in tiles: for each, `input` gives its rows of A, in place or put into `room`, and `output` takes its rows
 * of C. Both are called from many threads at once, each with tiles of its own. shape->m is not read. */
typedef const void *bb_gemm_input(const void *context, int64_t m0, int64_t rows, void *room);
typedef void bb_gemm_output(const void *context, int64_t m0, int64_t rows, const void *c);
void bb_gemm_rows(bb_device *dev, const bb_gemm_shape *shape, int64_t M, const void *b, bb_gemm_input *input,
                  bb_gemm_output *output, const void *context);

#endif
