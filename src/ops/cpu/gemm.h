/* Matrix products on oneDNN. Each call is one tile, computed by the calling thread alone inside our own parallel region, with B
 * packed before: so a result does not depend on the number of threads.
 * SPDX-License-Identifier: MIT */
#ifndef BB_OPS_CPU_GEMM_H
#define BB_OPS_CPU_GEMM_H

#include "ops/cpu/cpu.h"

typedef enum bb_gemm_kind {
    BB_GEMM_INT8 = 0, /* u8 x s8 -> s32, exact */
    BB_GEMM_BF16,     /* bf16 x bf16 -> f32 */
    BB_GEMM_F32
} bb_gemm_kind;

/* C (m,n) = A (m,k) B (k,n), or C += where `accumulate`. Element (i,j) of A is at i*a_row + j*a_col, rows of C are c_row apart.
 * The packed form of B depends on kind, n and k alone, so that tiles of different heights share it. */
typedef struct bb_gemm_shape {
    bb_gemm_kind kind;
    bool accumulate;
    int64_t m, n, k, a_row, a_col, c_row;
} bb_gemm_shape;

typedef struct bb_gemm_op bb_gemm_op;

bb_status bb_gemm_open(bb_device *dev, bb_error *err);
void bb_gemm_close(bb_device *dev);
const char *bb_gemm_version(void);

/* The primitive of a shape, made on first use and kept; NULL with a recorded failure where oneDNN has none. Outside parallel
 * regions. */
const bb_gemm_op *bb_gemm_get(bb_device *dev, const bb_gemm_shape *shape);
size_t bb_gemm_packed_bytes(const bb_gemm_op *op);
/* B's element (i,j) is at i*b_row + j*b_col, of the kind's type. Outside parallel regions. */
void bb_gemm_pack(bb_device *dev, const bb_gemm_op *op, void *packed, const void *b, int64_t b_row, int64_t b_col);
/* Scratch that one call needs, from the caller's bb_cpu_scratch. */
size_t bb_gemm_scratch_bytes(const bb_gemm_op *op);
/* Inside or outside parallel regions. */
void bb_gemm_run(bb_device *dev, const bb_gemm_op *op, void *c, const void *a, const void *packed, void *scratch);

/* to (columns, rows) = the transpose of from (rows, columns), whose rows are from_row elements apart; elements of 2 or 4 bytes.
 * A with a_col != 1 would do without, but oneDNN has no fast product of such an A and a packed B. */
void bb_gemm_transpose(void *to, const void *from, int64_t rows, int64_t columns, int64_t from_row, size_t element);

/* Memory shared by all threads of one operation, kept between calls; contents undefined. */
void *bb_gemm_shared(bb_device *dev, size_t bytes);

#endif
