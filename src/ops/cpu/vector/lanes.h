// SPDX-License-Identifier: MIT
/* The vocabulary of the kernel files, which are compiled once for each instruction set with that set's flags: vf holds VL f32, vi
 * VL int32. What a function returns does not depend on the set, bit for bit, except where it says so: multiplications and
 * additions are fused where it says fma and nowhere else, and sums whose order matters run in SUMS partial sums, element i in
 * partial sum i % SUMS, which `vsum` adds in one fixed tree. */
#ifndef BB_OPS_CPU_LANES_H
#define BB_OPS_CPU_LANES_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "core/tensor.h"

#define LANES_INLINE static inline __attribute__((always_inline, unused))

/* For a function around a register block: inlined into more code, its sums would be spilled. */
#define LANES_APART static __attribute__((noinline))

/* A loop over registers, a constant number of times up to 16: GCC keeps an array in registers only if loops over it are gone early. */
#define LANES_EACH(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); i++)

#if defined(__AVX512F__)
#include "ops/cpu/vector/lanes_avx512.h"
#elif defined(__AVX2__)
#include "ops/cpu/vector/lanes_avx2.h"
#else
#include "ops/cpu/vector/lanes_portable.h"
#endif

/* The one table that a kernel file exports for each set: SET_NAME(name) is name_avx2 and so on. BB_SET comes from the build. */
#define SET_JOIN_(a, b) a##_##b
#define SET_JOIN(a, b) SET_JOIN_(a, b)
#define SET_NAME(name) SET_JOIN(name, BB_SET)

enum { SUMS = 16, VECTORS = SUMS / VL /* that hold SUMS elements */ };

/* SUMS numbers in VECTORS vectors. */
typedef struct vsums {
    vf v[VECTORS];
} vsums;

LANES_INLINE vsums vsums_zero(void) {
    vsums s;
    LANES_EACH(i, VECTORS) s.v[i] = vset1(0.0f);
    return s;
}

/* 2^t for t <= 1, with relative error below 1.5e-7; 2^0 is 1, and everything below -126 is 2^-126. NaN for NaN. On [0, 1] a minimax
 * polynomial in relative error. */
LANES_INLINE vf vexp2(vf t) {
    t = vmax(vset1(-126.0f), t);
    vf f = vfraction(t);
    vf p = vfma(f, vset1(0.00186713021f), vset1(0.00901703002f));
    p = vfma(p, f, vset1(0.0557999133f));
    p = vfma(p, f, vset1(0.24016445f));
    p = vfma(p, f, vset1(0.693151312f));
    return vscale2(vfma(p, f, vset1(1.0f)), t);
}

/* Prefetches `bytes` at p. Rows are a whole activation row apart, too far for hardware prefetching. */
LANES_INLINE void prefetch_row(const void *p, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64 /* a cache line */) __builtin_prefetch((const char *)p + i);
}

enum { PREFETCH_ROWS = 16 /* how far ahead rows are fetched */ };

/* The largest of n numbers, any of them if one is NaN. */
LANES_INLINE float row_max(const float *x, int64_t n) {
    enum { WAYS = 4 }; /* a maximum waits for the one before it */
    vf max[WAYS];
    int64_t i = 0;
    LANES_EACH(k, WAYS) max[k] = vset1(-INFINITY);
    for (; i + WAYS * VL <= n; i += WAYS * VL) LANES_EACH(k, WAYS) max[k] = vmax(max[k], vload(x + i + k * VL));
    for (; i + VL <= n; i += VL) max[0] = vmax(max[0], vload(x + i));
    if (i < n) max[1] = vmax(max[1], vkeep(vload_first(x + i, n - i), n - i, -INFINITY));
    return vreduce_max(vmax(vmax(max[0], max[1]), vmax(max[2], max[3])));
}

#endif
