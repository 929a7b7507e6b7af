// SPDX-License-Identifier: MIT
/* Matrix products on oneDNN, in f32. Each call is one tile, computed by the calling thread alone inside our own parallel
 * region, so that results do not depend on the number of threads. */
#ifndef BB_OPS_CPU_GEMM_H
#define BB_OPS_CPU_GEMM_H

#include "ops/cpu/device/cpu.h"

/* C (m,n) = A (m,k) B (k,n), or C += if `accumulate`. All dense and row-major; A is stored (k,m) if `a_transposed`, B (n,k) if
 * `b_transposed`. (oneDNN 2.6 is fast only for dense matrices.) */
typedef struct bb_gemm_shape {
    bool accumulate, a_transposed, b_transposed;
    int64_t m, n, k;
} bb_gemm_shape;

typedef struct bb_gemm_op bb_gemm_op;

bb_status bb_gemm_open(bb_device *dev, bb_error *err);
void bb_gemm_close(bb_device *dev);
const char *bb_gemm_version(void);

/* The primitive for a shape, created on first use and kept; NULL with a recorded failure if oneDNN has none. Call outside
 * parallel regions. */
const bb_gemm_op *bb_gemm_get(bb_device *dev, const bb_gemm_shape *shape);
/* Call inside parallel regions of the device's threads, or outside of any. */
void bb_gemm_run(bb_device *dev, const bb_gemm_op *op, void *c, const void *a, const void *b);

/* A product of M rows in tiles: for each, `input` returns its rows of A, in place or copied to `buffer`, and `output` receives
 * its rows of C. Both are called from many threads at once, each with its own tiles. shape->m is ignored. */
typedef const void *bb_gemm_input(const void *context, int64_t m0, int64_t rows, void *buffer);
typedef void bb_gemm_output(const void *context, int64_t m0, int64_t rows, const void *c);
void bb_gemm_rows(bb_device *dev, const bb_gemm_shape *shape, int64_t M, const void *b, bb_gemm_input *input,
                  bb_gemm_output *output, const void *context);
/* The scratch of each thread for that. */
size_t bb_gemm_rows_scratch(int64_t n, int64_t k);

#endif
