/* Compiles ATTENTION_TILE, a header, once for each instruction set: the functions of set s end in _s. With ATTENTION_F32
 * defined all dot products are as exact as f32's, and set VNNI takes the place of BF16. The functions for AMX the including
 * file has, in the vocabulary of the last set.
 * SPDX-License-Identifier: MIT */
#ifndef BB_OPS_CPU_ATTENTION_SETS_H
#define BB_OPS_CPU_ATTENTION_SETS_H

#define ATTENTION_SET 0
#include "ops/cpu/attention_simd.h"

#include "ops/cpu/attention_gemm.h"

#include ATTENTION_TILE

#ifdef __x86_64__
#undef ATTENTION_SET
#define ATTENTION_SET 1
#include "ops/cpu/attention_simd.h"

#include "ops/cpu/attention_gemm.h"

#include ATTENTION_TILE

#undef ATTENTION_SET
#define ATTENTION_SET 2
#include "ops/cpu/attention_simd.h"

#include "ops/cpu/attention_gemm.h"

#include ATTENTION_TILE

#undef ATTENTION_SET
#ifdef ATTENTION_F32
#define ATTENTION_SET 3
#define ATTENTION_VNNI_SET(FUNCTIONS) FUNCTIONS(avx512vnni)
#define ATTENTION_BF16_SET(FUNCTIONS) FUNCTIONS(avx512vnni)
#else
#define ATTENTION_SET 4
#define ATTENTION_VNNI_SET(FUNCTIONS) FUNCTIONS(avx512)
#define ATTENTION_BF16_SET(FUNCTIONS) FUNCTIONS(avx512bf16)
#endif
#include "ops/cpu/attention_simd.h"

#include "ops/cpu/attention_gemm.h"

#include ATTENTION_TILE

/* Defines name[level] from FUNCTIONS(set), an initializer. */
#define ATTENTION_TABLE(type, name, FUNCTIONS)                                                                                 \
    static const type name[] = {[BB_CPU_GENERIC] = FUNCTIONS(generic),                                                         \
                                [BB_CPU_AVX2] = FUNCTIONS(avx2),                                                               \
                                [BB_CPU_AVX512] = FUNCTIONS(avx512),                                                           \
                                [BB_CPU_AVX512_VNNI] = ATTENTION_VNNI_SET(FUNCTIONS),                                          \
                                [BB_CPU_AVX512_BF16] = ATTENTION_BF16_SET(FUNCTIONS),                                          \
                                [BB_CPU_AVX512_AMX] = FUNCTIONS(avx512amx)};
#else
#define ATTENTION_TABLE(type, name, FUNCTIONS) static const type name[] = {[BB_CPU_GENERIC] = FUNCTIONS(generic)};
#endif

#endif
