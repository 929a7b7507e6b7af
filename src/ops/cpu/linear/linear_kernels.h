// SPDX-License-Identifier: MIT
/* The ways to a ternary linear layer's products: integers on any processor (linear_int8.c, for dx linear_int8_backward.c, for
 * dW linear_int16.c), own tiles of dot products where the processor has AVX-512 with VNNI and BF16 (linear_dot.c, and for dW
 * linear_dot_weight.c, of which VNNI is enough for int8), and oneDNN (linear_gemm.c) for what is not in integers elsewhere.
 * kernels.c chooses by the processor, linear.c by the operands. */
#ifndef BB_OPS_CPU_LINEAR_KERNELS_H
#define BB_OPS_CPU_LINEAR_KERNELS_H

#include "ops/cpu/linear/ternary.h"

/* x in int8. */
void bb_linear_int8_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M);
/* x not in int8; a row's result does not depend on M. */
void bb_linear_few_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M);
/* x not in int8. */
void bb_linear_gemm_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M);
void bb_linear_gemm_input_gradient(bb_device *dev, bb_bf16 *dx, const void *dy, bb_dtype dy_dtype, const bb_ternary *t,
                                   int64_t M);
bb_weight_gradient_kernel bb_linear_gemm_weight_gradient;

/* x in int8. */
void bb_linear_int8_input_gradient(bb_device *dev, bb_bf16 *dx, const void *dy, bb_dtype dy_dtype, const bb_ternary *t,
                                   int64_t M);

/* Of a quantized row of dy: smaller, and its reciprocal might be infinite. Such a row counts as zeros. */
#define BB_LEAST_GRADIENT_STEP 1e-30f

#if defined(__x86_64__)
/* AVX2; x in int8. */
bb_weight_gradient_kernel bb_linear_int16_weight_gradient;
/* AVX-512 with VNNI and BF16; forward for int8 and bf16 rows. */
bb_linear_forward_kernel bb_linear_dot_forward;
bb_linear_backward_kernel bb_linear_dot_backward;
/* x in int8 with AVX-512 VNNI, any with BF16 too. */
bb_weight_gradient_kernel bb_linear_dot_weight_gradient;
#endif

#endif
