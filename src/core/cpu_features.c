/* SPDX-License-Identifier: MIT */
#include "core/cpu_features.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"generic", "avx2", "avx512", "avx512_vnni", "avx512_bf16"};

const char *bb_cpu_level_name(bb_cpu_level level) { return names[level]; }

static bb_cpu_level of_processor(void) {
#if defined(__x86_64__)
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return BB_CPU_GENERIC;
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
          __builtin_cpu_supports("avx512vl")))
        return BB_CPU_AVX2;
    if (!__builtin_cpu_supports("avx512vnni")) return BB_CPU_AVX512;
    return __builtin_cpu_supports("avx512bf16") ? BB_CPU_AVX512_BF16 : BB_CPU_AVX512_VNNI;
#else
    return BB_CPU_GENERIC;
#endif
}

bb_cpu_level bb_cpu_detect(void) {
    bb_cpu_level level = of_processor();
    const char *wanted = getenv("BITBYTE_CPU");
    for (int i = 0; wanted && i < (int)level; i++) /* it lowers the level, it never raises it */
        if (strcmp(wanted, names[i]) == 0) return (bb_cpu_level)i;
    return level;
}
