// SPDX-License-Identifier: MIT
/* The ternary linear layer. Forward: exact integer products. Backward: integer products of quantized rows of dy for dx and of
 * quantized columns for dW; dW is in bf16 with AMX, and in f32 on processors without integer products. Unquantized inputs are
 * in bf16 or f32 throughout: with --no_act_quant the model's inputs are bf16, which changes a layer's output by 1.7e-3. No
 * quantizer follows, so an error d costs no more than d; one copy serves both passes; f32 would double the kept memory and
 * leave bf16 products unused. */
#include "ops/cpu/linear/linear_kernels.h"

#include "ops/cpu/device/cpu.h"
#include "ops/cpu/device/entries.h"

#ifdef __x86_64__
/* Whether products of unquantized rows are in bf16 on this device. */
static bool in_bf16(bb_device *dev) { return bb_cpu_of(dev)->kernels.bf16 != NULL; }
#endif

void bb_cpu_linear_forward(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    if (M <= BB_SMALL_BATCH_ROWS)
        bb_linear_small_batch_forward(dev, y, residual, x, t, M);
    else if (x.dtype == BB_I8)
        bb_linear_int8_forward(dev, y, residual, x, t, M);
#ifdef __x86_64__
    else if (x.dtype == BB_BF16 && in_bf16(dev))
        bb_linear_bf16_forward(dev, y, residual, x, t, M);
#endif
    else
        bb_linear_gemm_forward(dev, y, residual, x, t, M);
}

static bb_weight_gradient_kernel *weight_gradient_for(bb_device *dev, bb_dtype x) {
    if (x == BB_I8) return bb_cpu_of(dev)->kernels.weight_gradient_i8;
#ifdef __x86_64__
    if (in_bf16(dev)) return bb_linear_bf16_weight_gradient;
#endif
    return bb_linear_gemm_weight_gradient;
}

void bb_cpu_linear_backward(bb_device *dev, void *dx, bb_layer_gradient g, bb_rows x, const bb_ternary *t, int64_t M) {
    weight_gradient_for(dev, x.dtype)(dev, &(bb_weight_gradient){g.dw, g.add, g.dy, g.dtype, x, t, M});
    if (!dx) return;
    if (x.dtype == BB_I8) bb_linear_int8_input_gradient(dev, dx, g.dy, g.dtype, t, M);
#ifdef __x86_64__
    else if (in_bf16(dev))
        bb_linear_bf16_input_gradient(dev, dx, g.dy, g.dtype, t, M);
#endif
    else
        bb_linear_gemm_input_gradient(dev, dx, g.dy, g.dtype, t, M);
}
