// SPDX-License-Identifier: MIT
/* Rounding rows to bf16: the variants that kernels.c selects from. */
#ifndef BB_OPS_CPU_ROUND_H
#define BB_OPS_CPU_ROUND_H

#include "ops/cpu/device/kernel_set.h"

bb_round_kernel bb_round_generic;
#ifdef __x86_64__
bb_round_kernel bb_round_avx2;
bb_round_kernel bb_round_avx512;
bb_round_kernel bb_round_avx512bf16; /* uses the bf16 instruction, which flushes subnormals to zero */
#endif

#endif
