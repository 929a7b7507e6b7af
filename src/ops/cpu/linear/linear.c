// SPDX-License-Identifier: MIT
/* The ternary linear layer: forward in integers, exact; backward likewise, of quantized rows of dy for dx and quantized columns
 * for dW, the latter in bf16 with AMX and in f32 on processors without integer products. What is not quantized is in bf16 or
 * f32 throughout. */
#include "ops/cpu/linear/linear.h"

void bb_cpu_linear_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    bool few = M <= BB_FEW_ROWS;
#if defined(__x86_64__)
    if (bb_cpu_of(dev)->level >= BB_CPU_AVX512_BF16 && x.dtype != BB_F32 && !few) {
        bb_linear_dot_forward(dev, y, residual, x, t, M);
        return;
    }
#endif
    if (x.dtype == BB_I8)
        bb_linear_int8_forward(dev, y, residual, x, t, M);
    else if (few)
        bb_linear_few_forward(dev, y, residual, x, t, M);
    else
        bb_linear_gemm_forward(dev, y, residual, x, t, M);
}

/* dW on processors without BF16. Where there is AVX-512 without VNNI, oneDNN's vectors of f32 are twice as wide as those in
 * linear_int16.c. */
static void weight_gradient(bb_device *dev, float *dw, bool add, const void *dy, bb_dtype dy_dtype, bb_rows x,
                            const bb_ternary *t, int64_t M) {
#if defined(__x86_64__)
    bb_cpu_level level = bb_cpu_of(dev)->level;
    if (x.dtype == BB_I8 && level >= BB_CPU_AVX512_VNNI) {
        bb_linear_dot_weight_gradient(dev, dw, add, dy, dy_dtype, x, t, M);
        return;
    }
#endif
    if (!add) dev->ops->zero(dev, dw, (size_t)(t->n * t->k) * sizeof *dw);
#if defined(__x86_64__)
    if (x.dtype == BB_I8 && level == BB_CPU_AVX2) {
        bb_linear_int16_weight_gradient(dev, dw, dy, dy_dtype, x, t, M);
        return;
    }
#endif
    bb_linear_gemm_weight_gradient(dev, dw, dy, dy_dtype, x, t, M);
}

void bb_cpu_linear_backward(bb_device *dev, void *dx, float *dw, bool add, const void *dy, bb_dtype dy_dtype, bb_rows x,
                            const bb_ternary *t, int64_t M) {
#if defined(__x86_64__)
    if (bb_cpu_of(dev)->level >= BB_CPU_AVX512_BF16) {
        bb_linear_dot_backward(dev, dx, dw, add, dy, dy_dtype, x, t, M);
        return;
    }
#endif
    weight_gradient(dev, dw, add, dy, dy_dtype, x, t, M);
    if (!dx) return;
    if (x.dtype == BB_I8)
        bb_linear_int8_input_gradient(dev, dx, dy, dy_dtype, t, M);
    else
        bb_linear_gemm_input_gradient(dev, dx, dy, dy_dtype, t, M);
}
