// SPDX-License-Identifier: MIT
/* THE selection table: which kernels run on which processor. A row names the features that its kernels require, best first,
 * portable last. A device takes each kernel from the first row that has it and whose features the processor has. */
#include "ops/cpu/kernels.h"

#include <dnnl.h>

#include "ops/cpu/attention/backward_set.h"
#include "ops/cpu/attention/training_set.h"
#include "ops/cpu/device/peaks.h"
#include "ops/cpu/elementwise/elementwise_set.h"
#include "ops/cpu/linear/dot.h"
#include "ops/cpu/linear/dot_bf16.h"
#include "ops/cpu/linear/head_set.h"
#include "ops/cpu/linear/linear_kernels.h"
#include "ops/cpu/linear/ternary_dense.h"
#include "ops/cpu/linear/ternary_dot.h"
#include "ops/cpu/linear/ternary_set.h"
#include "ops/cpu/optimizer/muon_set.h"
#include "ops/cpu/optimizer/optimizer_set.h"

enum {
    AVX512_VNNI = BB_CPU_AVX512 | BB_CPU_AVX512_VNNI,
    AVX512_BF16 = AVX512_VNNI | BB_CPU_AVX512_BF16,
    PERMUTE_BYTES = AVX512_VNNI | BB_CPU_AVX512_VBMI
};

static const bb_cpu_kernels rows[] = {
#ifdef __x86_64__
    {.features = AVX512_BF16 | BB_CPU_AMX,
     .attention_codes = &bb_codes_avx512_amx,
     .attention_training = &bb_training_avx512_amx,
     .attention_backward = &bb_backward_avx512_amx,
     .ternary_dot = bb_ternary_dot_amx,
     .dot = &bb_dot_amx,
     .bf16 = &bb_bf16_amx,
     .muon_blocks = &bb_muon_blocks_amx,
     .weight_gradient_i8 = bb_linear_bf16_weight_gradient, /* twice as exact, and fast enough */
     .peak_bf16 = &bb_peak_bf16_amx,
     .peak_int8 = &bb_peak_int8_amx,
     .forward_rows = 2048, /* synchronization costs more than re-reading what has left the caches */
     .onednn_isa = BB_ONEDNN_ANY},
    {.features = PERMUTE_BYTES | BB_CPU_FAST_PERMUTE_BYTES,
     .ternary_dot_dense = bb_ternary_dot_dense,
     .ternary_expand_dense = bb_ternary_dense_expand},
    {.features = PERMUTE_BYTES, .attention_int6 = &bb_int6_avx512_vbmi},
    {.features = AVX512_BF16,
     .elementwise = &bb_elementwise_avx512_bf16,
     .bf16 = &bb_bf16_avx512,
     .bf16_operands = &bb_bf16_operands_avx512,
     .muon = &bb_muon_avx512_bf16,
     .muon_blocks = &bb_muon_blocks_avx512_bf16,
     .peak_bf16 = &bb_peak_bf16_avx512,
     .onednn_isa = dnnl_cpu_isa_avx512_core_bf16},
    {.features = AVX512_VNNI,
     .attention_codes = &bb_codes_avx512_vnni,
     .attention_training = &bb_training_avx512_vnni,
     .attention_backward = &bb_backward_avx512_vnni,
     .ternary_dot = bb_ternary_dot_vnni,
     .dot = &bb_dot_vnni,
     .dot_operands = &bb_dot_operands_vnni,
     .dot_weight = &bb_dot_weight_vnni,
     .muon_blocks = &bb_muon_blocks_avx512_vnni,
     .peak_int8 = &bb_peak_int8_vnni,
     .onednn_isa = dnnl_cpu_isa_avx512_core_vnni},
    {.features = BB_CPU_AVX512,
     .ternary = &bb_ternary_avx512,
     .head = &bb_head_avx512,
     .optimizer = &bb_optimizer_avx512,
     .attention_f32 = &bb_f32_avx512,
     .attention_codes = &bb_codes_avx512,
     .elementwise = &bb_elementwise_avx512,
     .muon = &bb_muon_avx512,
     .muon_blocks = &bb_muon_blocks_avx512,
     .peak_f32 = &bb_peak_f32_avx512,
     .onednn_isa = dnnl_cpu_isa_avx512_core},
    {.features = BB_CPU_AVX2 | BB_CPU_AVX_VNNI,
     .attention_training = &bb_training_avx_vnni,
     .attention_backward = &bb_backward_avx_vnni,
     .dot = &bb_dot_avx_vnni,
     .dot_weight = &bb_dot_weight_avx_vnni,
     .muon_blocks = &bb_muon_blocks_avx_vnni,
     .peak_int8 = &bb_peak_int8_avx_vnni},
    {.features = BB_CPU_AVX2,
     .ternary = &bb_ternary_avx2,
     .head = &bb_head_avx2,
     .optimizer = &bb_optimizer_avx2,
     .attention_f32 = &bb_f32_avx2,
     .attention_codes = &bb_codes_avx2,
     .attention_training = &bb_training_avx2,
     .attention_backward = &bb_backward_avx2,
     .elementwise = &bb_elementwise_avx2,
     .ternary_dot = bb_ternary_dot_avx2,
     .dot = &bb_dot_avx2,
     .dot_operands = &bb_dot_operands_avx2,
     .dot_weight = &bb_dot_weight_avx2,
     .weight_gradient_i8 = bb_linear_int8_weight_gradient,
     .muon = &bb_muon_avx2,
     .muon_blocks = &bb_muon_blocks_avx2,
     .peak_f32 = &bb_peak_f32_avx2,
     .peak_int8 = &bb_peak_int8_avx2,
     .onednn_isa = dnnl_cpu_isa_avx2},
#elif defined(__aarch64__)
    {.features = BB_CPU_NEON_DOTPROD | BB_CPU_NEON_I8MM, .dot = &bb_dot_neon_i8mm, .dot_weight = &bb_dot_weight_neon_i8mm},
    {.features = BB_CPU_NEON_DOTPROD,
     .ternary_dot = bb_ternary_dot_neon_dotprod,
     .dot = &bb_dot_neon_dotprod,
     .dot_weight = &bb_dot_weight_neon_dotprod,
     .weight_gradient_i8 = bb_linear_int8_weight_gradient},
#endif
    {.features = 0,
     .ternary = &bb_ternary_generic,
     .head = &bb_head_generic,
     .optimizer = &bb_optimizer_generic,
     .attention_f32 = &bb_f32_generic,
     .attention_codes = &bb_codes_generic,
     .attention_backward = &bb_backward_generic_training,
     .elementwise = &bb_elementwise_generic,
     .ternary_dot = bb_ternary_dot_generic,
     .dot = &bb_dot_generic,
     .dot_operands = &bb_dot_operands_generic,
     .weight_gradient_i8 = bb_linear_gemm_weight_gradient,
     .muon = &bb_muon_generic_training,
     .muon_blocks = &bb_muon_blocks_generic_training,
     .peak_f32 = &bb_peak_f32_generic,
     .forward_rows = 512, /* wide f32 rows are read while they are still in the caches */
     .onednn_isa = dnnl_cpu_isa_sse41},
};

#define INHERIT(member)                                                                                                        \
    if (!k.member) k.member = rows[i].member

bb_cpu_kernels bb_cpu_kernels_for(unsigned features) {
    bb_cpu_kernels k = {.features = features};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].features & ~features) continue;
        INHERIT(attention_f32);
        INHERIT(attention_codes);
        INHERIT(attention_int6);
        INHERIT(attention_training);
        INHERIT(attention_backward);
        INHERIT(elementwise);
        INHERIT(ternary);
        INHERIT(head);
        INHERIT(ternary_dot);
        INHERIT(ternary_dot_dense);
        INHERIT(ternary_expand_dense);
        INHERIT(dot);
        INHERIT(dot_operands);
        INHERIT(dot_weight);
        INHERIT(bf16);
        INHERIT(bf16_operands);
        INHERIT(weight_gradient_i8);
        INHERIT(optimizer);
        INHERIT(muon);
        INHERIT(muon_blocks);
        INHERIT(peak_f32);
        INHERIT(peak_bf16);
        INHERIT(peak_int8);
        INHERIT(forward_rows);
        INHERIT(onednn_isa);
    }
    return k;
}
