// SPDX-License-Identifier: MIT
/* What the cpu backend's selection table gives each set of features. The expected rows are written out here again, because a
 * wrong row is a slower program with correct results. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "levels.h"
#include "ops/cpu/attention/backward_set.h"
#include "ops/cpu/attention/training_set.h"
#include "ops/cpu/device/cpu.h"
#include "ops/cpu/device/peaks.h"
#include "ops/cpu/elementwise/elementwise_set.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/linear/dot.h"
#include "ops/cpu/linear/dot_bf16.h"
#include "ops/cpu/linear/head_set.h"
#include "ops/cpu/linear/linear_kernels.h"
#include "ops/cpu/linear/ternary_dot.h"
#include "ops/cpu/linear/ternary_set.h"
#include "ops/cpu/optimizer/muon_set.h"
#include "ops/cpu/optimizer/optimizer_set.h"

static void assert_row(unsigned features, const bb_cpu_kernels *expected) {
    bb_cpu_kernels k = bb_cpu_kernels_for(features);
    assert_int_equal(k.features, features);
    assert_ptr_equal(k.ternary, expected->ternary);
    assert_ptr_equal(k.head, expected->head);
    assert_ptr_equal(k.optimizer, expected->optimizer);
    assert_ptr_equal(k.attention_f32, expected->attention_f32);
    assert_ptr_equal(k.attention_codes, expected->attention_codes);
    assert_ptr_equal(k.attention_training, expected->attention_training);
    assert_ptr_equal(k.attention_backward, expected->attention_backward);
    assert_ptr_equal(k.elementwise, expected->elementwise);
    assert_ptr_equal(k.ternary_dot, expected->ternary_dot);
    assert_ptr_equal(k.dot, expected->dot);
    assert_ptr_equal(k.dot_operands, expected->dot_operands);
    assert_ptr_equal(k.dot_weight, expected->dot_weight);
    assert_ptr_equal(k.bf16, expected->bf16);
    assert_ptr_equal(k.bf16_operands, expected->bf16_operands);
    assert_ptr_equal(k.weight_gradient_i8, expected->weight_gradient_i8);
    assert_ptr_equal(k.muon, expected->muon);
    assert_ptr_equal(k.muon_blocks, expected->muon_blocks);
    assert_ptr_equal(k.peak_f32, expected->peak_f32);
    assert_ptr_equal(k.peak_bf16, expected->peak_bf16);
    assert_ptr_equal(k.peak_int8, expected->peak_int8);
    assert_int_equal(k.forward_rows, expected->forward_rows);
}

static void the_portable_row_has_all_that_every_processor_needs(void **state) {
    (void)state;
    const bb_cpu_kernels generic = {.ternary = &bb_ternary_generic,
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
                                    .forward_rows = 512};
    assert_row(0, &generic);
    bb_cpu_kernels k = bb_cpu_kernels_for(0);
    assert_null(k.attention_int6);
    assert_null(k.ternary_dot_dense);
}

#ifdef __x86_64__
enum {
    AVX512 = BB_CPU_AVX2 | BB_CPU_AVX512,
    AVX512_VNNI = AVX512 | BB_CPU_AVX512_VNNI,
    AVX512_BF16 = AVX512_VNNI | BB_CPU_AVX512_BF16,
    AVX512_AMX = AVX512_BF16 | BB_CPU_AMX,
    FAST_PERMUTE = BB_CPU_AVX512_VBMI | BB_CPU_FAST_PERMUTE_BYTES
};

static void each_level_overrides_what_it_does_better(void **state) {
    (void)state;
    bb_cpu_kernels k = {.ternary = &bb_ternary_avx2,
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
                        .forward_rows = 512};
    assert_row(BB_CPU_AVX2, &k);
    bb_cpu_kernels vnni = k;
    vnni.attention_training = &bb_training_avx_vnni;
    vnni.attention_backward = &bb_backward_avx_vnni;
    vnni.dot = &bb_dot_avx_vnni;
    vnni.dot_weight = &bb_dot_weight_avx_vnni;
    vnni.muon_blocks = &bb_muon_blocks_avx_vnni;
    vnni.peak_int8 = &bb_peak_int8_avx_vnni;
    assert_row(BB_CPU_AVX2 | BB_CPU_AVX_VNNI, &vnni);
    k.ternary = &bb_ternary_avx512;
    k.head = &bb_head_avx512;
    k.optimizer = &bb_optimizer_avx512;
    k.attention_f32 = &bb_f32_avx512;
    k.attention_codes = &bb_codes_avx512;
    k.elementwise = &bb_elementwise_avx512;
    k.muon = &bb_muon_avx512;
    k.muon_blocks = &bb_muon_blocks_avx512;
    k.peak_f32 = &bb_peak_f32_avx512;
    assert_row(AVX512, &k);
    k.attention_codes = &bb_codes_avx512_vnni;
    k.attention_training = &bb_training_avx512_vnni;
    k.attention_backward = &bb_backward_avx512_vnni;
    k.ternary_dot = bb_ternary_dot_vnni;
    k.dot = &bb_dot_vnni;
    k.dot_operands = &bb_dot_operands_vnni;
    k.dot_weight = &bb_dot_weight_vnni;
    k.muon_blocks = &bb_muon_blocks_avx512_vnni;
    k.peak_int8 = &bb_peak_int8_vnni;
    assert_row(AVX512_VNNI, &k);
    k.elementwise = &bb_elementwise_avx512_bf16;
    k.bf16 = &bb_bf16_avx512;
    k.bf16_operands = &bb_bf16_operands_avx512;
    k.muon = &bb_muon_avx512_bf16;
    k.muon_blocks = &bb_muon_blocks_avx512_bf16;
    k.peak_bf16 = &bb_peak_bf16_avx512;
    assert_row(AVX512_BF16, &k);
    k.attention_codes = &bb_codes_avx512_amx;
    k.attention_training = &bb_training_avx512_amx;
    k.attention_backward = &bb_backward_avx512_amx;
    k.ternary_dot = bb_ternary_dot_amx;
    k.dot = &bb_dot_amx;
    k.bf16 = &bb_bf16_amx;
    k.muon_blocks = &bb_muon_blocks_amx;
    k.weight_gradient_i8 = bb_linear_bf16_weight_gradient;
    k.peak_bf16 = &bb_peak_bf16_amx;
    k.peak_int8 = &bb_peak_int8_amx;
    k.forward_rows = 2048;
    assert_row(AVX512_AMX, &k);
}

/* Byte permutations are no level of their own: sets with VNNI use them where the processor has them. */
static void byte_permutations_are_used_where_the_processor_has_them(void **state) {
    (void)state;
    const unsigned sets[] = {AVX512_VNNI, AVX512_BF16, AVX512_AMX};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        bb_cpu_kernels without = bb_cpu_kernels_for(sets[i]), vbmi = bb_cpu_kernels_for(sets[i] | BB_CPU_AVX512_VBMI),
                       fast = bb_cpu_kernels_for(sets[i] | FAST_PERMUTE);
        assert_null(without.attention_int6);
        assert_null(without.ternary_dot_dense);
        assert_non_null(fast.ternary_expand_dense);
        assert_ptr_equal(vbmi.attention_int6, &bb_int6_avx512_vbmi);
        assert_null(vbmi.ternary_dot_dense);
        assert_ptr_equal(fast.attention_int6, &bb_int6_avx512_vbmi);
        assert_ptr_equal(fast.ternary_dot_dense, bb_ternary_dot_dense);
    }
    assert_null(bb_cpu_kernels_for(AVX512).attention_int6);
}

static int level_called(const char *name) {
    for (int i = 0; i < BB_CPU_SETS; i++)
        if (strcmp(bb_cpu_sets[i].name, name) == 0) return i;
    fail_msg("no level is called %s", name);
    return -1;
}

static bool same_ternary(const bb_cpu_kernels *a, const bb_cpu_kernels *b) { return a->ternary == b->ternary; }

/* tests/levels.h: every set of kernels that a processor can run is tested once, at the highest level that has it. */
static void a_test_runs_each_set_of_kernels_once(void **state) {
    (void)state;
    const int generic = level_called("generic"), avx2 = level_called("avx2"), avx512 = level_called("avx512");
    assert_int_equal(highest_level_like(avx512, AVX512_AMX, same_ternary), level_called("avx512_amx"));
    assert_int_equal(highest_level_like(avx512, AVX512_VNNI, same_ternary), level_called("avx512_vnni"));
    assert_int_equal(highest_level_like(avx512, AVX512_AMX, NULL), avx512);
    assert_int_equal(highest_level_like(avx2, AVX512_AMX, same_ternary), avx2);
    assert_int_equal(highest_level_like(avx2, AVX512_AMX | BB_CPU_AVX_VNNI, same_ternary), level_called("avx_vnni"));
    assert_int_equal(highest_level_like(generic, 0, same_ternary), generic);
}
#elif defined(__aarch64__)
static void each_level_overrides_what_it_does_better(void **state) {
    (void)state;
    bb_cpu_kernels k = bb_cpu_kernels_for(0);
    k.ternary_dot = bb_ternary_dot_neon_dotprod;
    k.dot = &bb_dot_neon_dotprod;
    k.dot_weight = &bb_dot_weight_neon_dotprod;
    k.weight_gradient_i8 = bb_linear_int8_weight_gradient;
    assert_row(BB_CPU_NEON_DOTPROD, &k);
    k.dot = &bb_dot_neon_i8mm;
    k.dot_weight = &bb_dot_weight_neon_i8mm;
    assert_row(BB_CPU_NEON_DOTPROD | BB_CPU_NEON_I8MM, &k);
}
#endif

static void a_device_takes_the_row_of_its_level(void **state) {
    (void)state;
    bb_cpu_choice choice;
    bb_device *device;
    assert_int_equal(bb_cpu_detect(&choice, NULL), BB_OK);
    assert_int_equal(bb_device_open("cpu", 1, &device, NULL), BB_OK);
    assert_row(choice.features, &bb_cpu_of(device)->kernels);
    assert_int_equal(device->forward_rows, bb_cpu_of(device)->kernels.forward_rows);
    bb_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_portable_row_has_all_that_every_processor_needs),
#if defined(__x86_64__) || defined(__aarch64__)
        cmocka_unit_test(each_level_overrides_what_it_does_better),
#endif
#ifdef __x86_64__
        cmocka_unit_test(byte_permutations_are_used_where_the_processor_has_them),
        cmocka_unit_test(a_test_runs_each_set_of_kernels_once),
#endif
        cmocka_unit_test(a_device_takes_the_row_of_its_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
