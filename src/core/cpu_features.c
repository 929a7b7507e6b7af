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

bb_status bb_cpu_lower(bb_cpu_level processor, const char *wanted, bb_cpu_level *out, bb_error *err) {
    *out = processor;
    if (!wanted || !*wanted) return BB_OK;
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++) {
        if (strcmp(wanted, names[i])) continue;
        if (i > (int)processor)
            return bb_fail(err, BB_ERR_UNSUPPORTED, "BITBYTE_CPU asks for %s; this processor has no more than %s", wanted,
                           names[processor]);
        *out = (bb_cpu_level)i;
        return BB_OK;
    }
    return bb_fail(err, BB_ERR_ARGUMENT,
                   "BITBYTE_CPU is \"%s\"; it may be generic, avx2, avx512, avx512_vnni or avx512_bf16, or not set", wanted);
}

bb_status bb_cpu_detect(bb_cpu_level *out, bb_error *err) {
    return bb_cpu_lower(of_processor(), getenv("BITBYTE_CPU"), out, err);
}
