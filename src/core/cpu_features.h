// SPDX-License-Identifier: MIT
/* The processor's instruction sets. The environment variable BITBYTE_CPU = generic | avx2 | avx512 | avx512_vnni |
 * avx512_bf16 | avx512_amx selects a lower level (each contains those before it), so that every path can be tested on one
 * machine. */
#ifndef BB_CORE_CPU_FEATURES_H
#define BB_CORE_CPU_FEATURES_H

#include "core/status.h"

typedef enum bb_cpu_level {
    BB_CPU_GENERIC = 0, /* plain C */
    BB_CPU_AVX2,        /* AVX2 + FMA + F16C */
    BB_CPU_AVX512,      /* F, BW, DQ, VL */
    BB_CPU_AVX512_VNNI,
    BB_CPU_AVX512_BF16, /* VNNI and BF16: Zen 4, Cooper Lake and later */
    BB_CPU_AVX512_AMX   /* tiles of int8 and bf16 too, and the system's permission to use them: Sapphire Rapids and later */
} bb_cpu_level;

/* The processor's level, or the lower one that BITBYTE_CPU asks for. */
bb_status bb_cpu_detect(bb_cpu_level *out, bb_error *err);
/* The level called `wanted`; `processor` if that is NULL or "". An unknown name is BB_ERR_ARGUMENT, a level that the processor
 * lacks BB_ERR_UNSUPPORTED. */
bb_status bb_cpu_lower(bb_cpu_level processor, const char *wanted, bb_cpu_level *out, bb_error *err);
const char *bb_cpu_level_name(bb_cpu_level level);

enum { BB_CPU_FEATURES_BYTES = 160 };
/* The processor's features that kernels use, here or in oneDNN, regardless of BITBYTE_CPU: e.g. "sse2 sse4_1 avx avx2 fma f16c"
 * (the names of /proc/cpuinfo) or "neon fp16 dotprod". At most size - 1 characters. */
void bb_cpu_features(char *out, size_t size);

#endif
