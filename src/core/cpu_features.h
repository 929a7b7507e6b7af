// SPDX-License-Identifier: MIT
/* The processor's instruction sets: features as bits, and the named sets of them that kernels are written for. The environment
 * variable BITBYTE_CPU selects a lesser set than the processor's best, so that every path can be tested on one machine. */
#ifndef BB_CORE_CPU_FEATURES_H
#define BB_CORE_CPU_FEATURES_H

#include <stdbool.h>

#include "core/status.h"

/* A bit is set if both the processor and the system support the feature. */
enum {
    BB_CPU_AVX2 = 1 << 0, /* AVX2, FMA and F16C */
    BB_CPU_AVX_VNNI = 1 << 1,
    BB_CPU_AVX512 = 1 << 2, /* F, BW, DQ, VL */
    BB_CPU_AVX512_VNNI = 1 << 3,
    BB_CPU_AVX512_VBMI = 1 << 4,
    BB_CPU_AVX512_BF16 = 1 << 5,
    BB_CPU_AMX = 1 << 6,                /* tiles of int8 and bf16 */
    BB_CPU_FAST_PERMUTE_BYTES = 1 << 7, /* permuting the bytes of two registers is one operation, as on AMD's processors */
    BB_CPU_NEON_DOTPROD = 1 << 8,
    BB_CPU_NEON_I8MM = 1 << 9
};

/* A set that BITBYTE_CPU may name. */
typedef struct bb_cpu_set {
    const char *name;
    unsigned features; /* all of them are required */
    unsigned optional; /* used as well if the processor has them */
} bb_cpu_set;

/* From the portable set, which has no features, to the best: a processor's own set is the last one whose features it has. */
#if defined(__x86_64__)
enum { BB_CPU_SETS = 7 };
#elif defined(__aarch64__)
enum { BB_CPU_SETS = 3 };
#else
enum { BB_CPU_SETS = 1 };
#endif
extern const bb_cpu_set bb_cpu_sets[BB_CPU_SETS];

/* The set in use. */
typedef struct bb_cpu_choice {
    const bb_cpu_set *set;
    unsigned features; /* the set's features, and the optional ones that the processor has */
    bool limited;      /* BITBYTE_CPU selected a lesser set than the processor's own */
} bb_cpu_choice;

/* The features of this processor, regardless of BITBYTE_CPU. */
unsigned bb_cpu_processor_features(void);
/* The set that BITBYTE_CPU names, or else the processor's own. */
bb_status bb_cpu_detect(bb_cpu_choice *out, bb_error *err);
/* Returns the set called `wanted`, for a processor with these features; the processor's own if wanted is NULL or "". An unknown
 * name is BB_ERR_ARGUMENT, a set that the processor lacks BB_ERR_UNSUPPORTED. */
bb_status bb_cpu_choose(unsigned features, const char *wanted, bb_cpu_choice *out, bb_error *err);

enum { BB_CPU_FEATURES_BYTES = 160 };
/* Writes the processor's features that kernels use, here or in oneDNN, regardless of BITBYTE_CPU: e.g. "sse2 sse4_1 avx avx2
 * fma f16c" (the names of /proc/cpuinfo) or "neon fp16 dotprod". At most size - 1 characters. */
void bb_cpu_features(char *out, size_t size);

#endif
