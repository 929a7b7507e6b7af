// SPDX-License-Identifier: MIT
/* Compiles ATTENTION_TILE, a header, once for each instruction set: the functions of set s end in _s. The including file
 * provides the functions for AMX, with the vocabulary of the last set. */
#ifndef BB_OPS_CPU_ATTENTION_SETS_H
#define BB_OPS_CPU_ATTENTION_SETS_H

#define ATTENTION_SET 0
#include "ops/cpu/attention/attention_simd.h"

#include "ops/cpu/attention/attention_gemm.h"

#include ATTENTION_TILE

#ifdef __x86_64__
#undef ATTENTION_SET
#define ATTENTION_SET 1
#include "ops/cpu/attention/attention_simd.h"

#include "ops/cpu/attention/attention_gemm.h"

#include ATTENTION_TILE

#undef ATTENTION_SET
#define ATTENTION_SET 2
#include "ops/cpu/attention/attention_simd.h"

#include "ops/cpu/attention/attention_gemm.h"

#include ATTENTION_TILE

#undef ATTENTION_SET
#define ATTENTION_SET 3
#include "ops/cpu/attention/attention_simd.h"

#include "ops/cpu/attention/attention_gemm.h"

#include ATTENTION_TILE

/* Defines name[bb_attention_set] from FUNCTIONS(set), an initializer. */
#define ATTENTION_TABLE(type, name, FUNCTIONS)                                                                                 \
    static const type name[] = {[BB_ATTENTION_GENERIC] = FUNCTIONS(generic),                                                   \
                                [BB_ATTENTION_AVX2] = FUNCTIONS(avx2),                                                         \
                                [BB_ATTENTION_AVX512] = FUNCTIONS(avx512),                                                     \
                                [BB_ATTENTION_AVX512_VNNI] = FUNCTIONS(avx512vnni),                                            \
                                [BB_ATTENTION_AVX512_AMX] = FUNCTIONS(avx512amx)};
#else
#define ATTENTION_TABLE(type, name, FUNCTIONS) static const type name[] = {[BB_ATTENTION_GENERIC] = FUNCTIONS(generic)};
#endif

#endif
