// SPDX-License-Identifier: MIT
/* The implementations of a ternary linear layer: integers on any processor (linear_int8.c, for dx linear_int8_backward.c, for
 * dW linear_int16.c); tiles of dot products on processors with AVX-512 VNNI and BF16 (linear_dot.c, for dW linear_dot_weight.c,
 * whose int8 path needs only VNNI); and oneDNN (linear_gemm.c) for whatever is not in integers elsewhere. kernels.c selects by
 * processor, linear.c by operands. */
#ifndef BB_OPS_CPU_LINEAR_KERNELS_H
#define BB_OPS_CPU_LINEAR_KERNELS_H

#include "ops/cpu/linear/ternary.h"

/* x in int8. */
void bb_linear_int8_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M);
/* x not in int8; row results are independent of M. */
void bb_linear_small_batch_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M);
/* x not in int8. */
void bb_linear_gemm_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M);
void bb_linear_gemm_input_gradient(bb_device *dev, bb_bf16 *dx, const void *dy, bb_dtype dy_dtype, const bb_ternary *t,
                                   int64_t M);
bb_weight_gradient_kernel bb_linear_gemm_weight_gradient;

/* x in int8. */
void bb_linear_int8_input_gradient(bb_device *dev, bb_bf16 *dx, const void *dy, bb_dtype dy_dtype, const bb_ternary *t,
                                   int64_t M);

/* Minimum scale of a quantized row of dy; the reciprocal of a smaller one might be infinite. Rows below it count as zeros. */
#define BB_MIN_GRADIENT_SCALE 1e-30f

#if defined(__x86_64__)
/* AVX2; x in int8. */
bb_weight_gradient_kernel bb_linear_int16_weight_gradient;
/* AVX-512 with VNNI and BF16; forward for int8 and bf16 rows. */
bb_linear_forward_kernel bb_linear_dot_forward;
bb_linear_backward_kernel bb_linear_dot_backward;
/* x in int8 with AVX-512 VNNI; any x with BF16 too. */
bb_weight_gradient_kernel bb_linear_dot_weight_gradient;
#endif

#endif
