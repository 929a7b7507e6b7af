// SPDX-License-Identifier: MIT
/* The ternary linear layer. Forward: exact integer products. Backward: integer products of quantized rows of dy for dx and of
 * quantized columns for dW; dW is in bf16 with AMX, and in f32 on processors without integer products. Unquantized inputs are
 * in bf16 or f32 throughout: with --no_act_quant the model's inputs are bf16, which changes a layer's output by 1.7e-3. No
 * quantizer follows, so an error d costs no more than d; one copy serves both passes; f32 would double the kept memory and
 * leave bf16 products unused. */
#include "ops/cpu/linear/linear_kernels.h"

#include "ops/cpu/device/cpu.h"
#include "ops/cpu/device/entries.h"

void bb_cpu_linear_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    const bb_cpu_kernels *kernels = &bb_cpu_of(dev)->kernels;
    bool small_batch = M <= BB_SMALL_BATCH_ROWS;
    if (kernels->linear_forward && x.dtype != BB_F32 && !small_batch)
        kernels->linear_forward(dev, y, residual, x, t, M);
    else if (x.dtype == BB_I8)
        bb_linear_int8_forward(dev, y, residual, x, t, M);
    else if (small_batch)
        bb_linear_small_batch_forward(dev, y, residual, x, t, M);
    else
        bb_linear_gemm_forward(dev, y, residual, x, t, M);
}

static void backward_by_parts(bb_device *dev, bb_bf16 *dx, float *dw, bool add, const void *dy, bb_dtype dy_dtype, bb_rows x,
                              const bb_ternary *t, int64_t M) {
    bool int8 = x.dtype == BB_I8;
    (int8 ? bb_cpu_of(dev)->kernels.weight_gradient_i8 : bb_linear_gemm_weight_gradient)(dev, dw, add, dy, dy_dtype, x, t, M);
    if (dx) (int8 ? bb_linear_int8_input_gradient : bb_linear_gemm_input_gradient)(dev, dx, dy, dy_dtype, t, M);
}

void bb_cpu_linear_backward(bb_device *dev, void *dx, float *dw, bool add, const void *dy, bb_dtype dy_dtype, bb_rows x,
                            const bb_ternary *t, int64_t M) {
    bb_linear_backward_kernel *whole = bb_cpu_of(dev)->kernels.linear_backward;
    (whole ? whole : backward_by_parts)(dev, dx, dw, add, dy, dy_dtype, x, t, M);
}
