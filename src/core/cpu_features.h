// SPDX-License-Identifier: MIT
/* What the processor has. The environment variable BITBYTE_CPU = generic | avx2 | avx512 | avx512_vnni | avx512_bf16 |
 * avx512_amx lowers it (each level contains those before it), so that every path can be tested on one machine. */
#ifndef BB_CORE_CPU_FEATURES_H
#define BB_CORE_CPU_FEATURES_H

#include "core/status.h"

typedef enum bb_cpu_level {
    BB_CPU_GENERIC = 0, /* plain C */
    BB_CPU_AVX2,        /* AVX2 + FMA + F16C */
    BB_CPU_AVX512,      /* F, BW, DQ, VL */
    BB_CPU_AVX512_VNNI,
    BB_CPU_AVX512_BF16, /* VNNI and BF16: Zen 4, Cooper Lake and later */
    BB_CPU_AVX512_AMX   /* tiles of int8 and bf16 too, and the system's leave to use them: Sapphire Rapids and later */
} bb_cpu_level;

/* The processor's level, or the lower one that BITBYTE_CPU asks for. */
bb_status bb_cpu_detect(bb_cpu_level *out, bb_error *err);
/* `processor`, or the level that is called `wanted` (NULL or "": none). A name that isn't one is BB_ERR_ARGUMENT, a level that
 * the processor lacks BB_ERR_UNSUPPORTED. */
bb_status bb_cpu_lower(bb_cpu_level processor, const char *wanted, bb_cpu_level *out, bb_error *err);
const char *bb_cpu_level_name(bb_cpu_level level);

enum { BB_CPU_FEATURES_BYTES = 160 };
/* What the processor has of the instruction sets that kernels, ours or a library's, are written for, whatever BITBYTE_CPU says:
 * e.g. "sse2 sse4_1 avx avx2 fma f16c" (the kernel's names) or "neon fp16 dotprod". At most size - 1 characters. */
void bb_cpu_features(char *out, size_t size);

#endif
