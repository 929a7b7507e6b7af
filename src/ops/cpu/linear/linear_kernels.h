// SPDX-License-Identifier: MIT
/* The implementations of a ternary linear layer: of a few rows (linear_small_batch.c); of int8 inputs in integers
 * (linear_int8.c, for dW linear_weight.c); in bf16 (linear_bf16.c); and on oneDNN (linear_gemm.c) for whatever
 * is in neither. kernels.c selects by processor, linear.c by operands. */
#ifndef BB_OPS_CPU_LINEAR_KERNELS_H
#define BB_OPS_CPU_LINEAR_KERNELS_H

#include "ops/cpu/linear/ternary.h"

/* Up to BB_SMALL_BATCH_ROWS rows of any type; row results are independent of M. */
void bb_linear_small_batch_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M);

/* x in int8. */
void bb_linear_int8_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M);
void bb_linear_int8_input_gradient(bb_device *dev, bb_bf16 *dx, const void *dy, bb_dtype dy_dtype, const bb_ternary *t,
                                   int64_t M);
bb_weight_gradient_kernel bb_linear_int8_weight_gradient; /* by kernels.dot_weight */

/* Forward: x not in int8. dW: any. */
void bb_linear_gemm_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M);
void bb_linear_gemm_input_gradient(bb_device *dev, bb_bf16 *dx, const void *dy, bb_dtype dy_dtype, const bb_ternary *t,
                                   int64_t M);
bb_weight_gradient_kernel bb_linear_gemm_weight_gradient;

/* Minimum scale of a quantized row of dy; the reciprocal of a smaller one might be infinite. Rows below it count as zeros. */
#define BB_MIN_GRADIENT_SCALE 1e-30f

#if defined(__x86_64__)
/* AVX-512 with BF16. Forward: x in bf16. dW: any. */
void bb_linear_bf16_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M);
void bb_linear_bf16_input_gradient(bb_device *dev, bb_bf16 *dx, const void *dy, bb_dtype dy_dtype, const bb_ternary *t,
                                   int64_t M);
bb_weight_gradient_kernel bb_linear_bf16_weight_gradient;
#endif

#endif
