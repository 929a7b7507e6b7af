// SPDX-License-Identifier: MIT
/* Loops of independent dot products in registers, one per instruction set. */
#ifndef BB_OPS_CPU_PEAKS_H
#define BB_OPS_CPU_PEAKS_H

#include "ops/cpu/device/kernel_set.h"

extern const bb_peak_kernel bb_peak_f32_generic;
#ifdef __x86_64__
extern const bb_peak_kernel bb_peak_f32_avx2, bb_peak_int8_avx2, bb_peak_int8_avx_vnni, bb_peak_f32_avx512, bb_peak_int8_vnni,
    bb_peak_bf16_avx512, bb_peak_int8_amx, bb_peak_bf16_amx;
#endif

#endif
