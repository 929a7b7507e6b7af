// SPDX-License-Identifier: MIT
/* Rounding rows to bf16. */
#ifndef BB_OPS_CPU_ROUND_H
#define BB_OPS_CPU_ROUND_H

#include "ops/cpu/device/cpu.h"

/* y = x in bf16, half to even, (n). Where the processor has an instruction for it (from BB_CPU_AVX512_BF16 on), what is
 * smaller than a normal number becomes zero. */
typedef void bb_round_kernel(bb_bf16 *y, const float *x, int64_t n);
bb_round_kernel *bb_round_for(bb_cpu_level level);

#endif
