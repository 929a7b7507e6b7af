// SPDX-License-Identifier: MIT
/* What the row-wise and element-wise kernels share. A kernel is written once, as plain loops in an always-inlined body that the
 * compiler vectorizes, and compiled once for each instruction set (BB_SIMD_VARIANTS).
 * Loops whose order of operations must stay free to vectorize say so (omp simd); nothing else may be reordered. */
#ifndef BB_OPS_CPU_SIMD_H
#define BB_OPS_CPU_SIMD_H

#include <math.h>

#include "ops/cpu/device/cpu.h"

#ifdef __clang__
#pragma clang diagnostic ignored "-Wpass-failed" /* omp simd loops that a sanitizer keeps scalar */
#endif

#define BB_SIMD_INLINE static inline __attribute__((always_inline))

/* Defines name_for(simd), a pointer to name_body compiled for that instruction set; a device's is kernels.simd. `params` and
 * `args` are in brackets. */
#ifdef __x86_64__
#define BB_SIMD_VARIANTS(name, params, args)                                                                                   \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))) static void name##_avx512 params { name##_body args; }       \
    __attribute__((target("avx2"))) static void name##_avx2 params { name##_body args; }                                       \
    static void name##_generic params { name##_body args; }                                                                    \
    typedef void name##_kernel params;                                                                                         \
    static name##_kernel *name##_for(bb_simd simd) {                                                                           \
        static name##_kernel *const variants[] = {                                                                             \
            [BB_SIMD_GENERIC] = name##_generic, [BB_SIMD_AVX2] = name##_avx2, [BB_SIMD_AVX512] = name##_avx512};               \
        return variants[simd];                                                                                                 \
    }
#else
#define BB_SIMD_VARIANTS(name, params, args)                                                                                   \
    static void name##_generic params { name##_body args; }                                                                    \
    typedef void name##_kernel params;                                                                                         \
    static name##_kernel *name##_for(bb_simd simd) {                                                                           \
        (void)simd;                                                                                                            \
        return name##_generic;                                                                                                 \
    }
#endif

/* Under this many elements a second thread costs more than it saves. */
enum { BB_SIMD_SERIAL = 16384 };

/* A statement for m = 0, step, 2 step, ... < M, by the threads where so many elements pay for it. (With an `if` clause OpenMP
 * makes a region, and its barrier's system call, for one thread as well: for a byte that is generated, 150 of them.) Never for
 * few rows: they come between products by a team of threads, which keep the processors that OpenMP's would need while they
 * wait. */
#define BB_SIMD_FOR(dev, elements, m, M, step, statement)                                                                      \
    if ((elements) < BB_SIMD_SERIAL || (M) <= BB_SMALL_BATCH_ROWS) {                                                           \
        for (int64_t m = 0; m < (M); m += (step)) statement;                                                                   \
    } else {                                                                                                                   \
        _Pragma("omp parallel for num_threads((dev)->threads)") for (int64_t m = 0; m < (M); m += (step)) statement;           \
    }

/* Asks for the lines of `bytes` bytes: processors foresee a stream, but not far enough, and not past the page. They need not be
 * there. to_write: a constant, as __builtin_prefetch has it. */
#define BB_SIMD_PREFETCH(p, bytes, to_write)                                                                                   \
    for (int64_t line = 0; line < (int64_t)(bytes); line += 64) __builtin_prefetch((const char *)(p) + line, to_write)

/* 1.5 * 2^23: adding it to |x| < 2^22 leaves x, rounded half to even, in the low bits of the sum. */
#define BB_SIMD_ROUNDER 0x1.8p23f

BB_SIMD_INLINE int32_t bb_simd_round(float x) {
    return (int32_t)(bb_bits_of_f32(x + BB_SIMD_ROUNDER) - bb_bits_of_f32(BB_SIMD_ROUNDER));
}

/* e^x, relative error below 2e-7; 0 below -87.3, infinity above 88.3, NaN for NaN. x = n ln 2 + t, ln 2 in two parts, the first
 * of so few bits that n times it is exact; then Taylor up to t^7/7!, |t| <= ln(2)/2. */
BB_SIMD_INLINE float bb_simd_exp(float x) {
    int32_t n = bb_simd_round(x * 1.44269504f);
    float t = x - (float)n * 0.693359375f + (float)n * 2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * t + 1.0f / 720;
    p = p * t + 1.0f / 120;
    p = p * t + 1.0f / 24;
    p = p * t + 1.0f / 6;
    p = p * t + 0.5f;
    p = p * t + 1.0f;
    p = p * t + 1.0f;
    p *= bb_f32_from_bits(((uint32_t)n + 127u) << 23);
    p = x > 88.3f ? INFINITY : p;
    return x < -87.3f ? 0.0f : p;
}

BB_SIMD_INLINE void bb_simd_round_to_bf16(bb_bf16 *y, const float *x, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = bb_bf16_from_f32(x[i]);
}

/* max |x[i]|. The bits of magnitudes are ordered as the magnitudes, NaN above all: it reaches the scale and is not lost. */
BB_SIMD_INLINE float bb_simd_absmax(const float *x, int64_t n) {
    uint32_t m = 0;
#pragma omp simd reduction(max : m)
    for (int64_t i = 0; i < n; i++) {
        uint32_t u = bb_bits_of_f32(x[i]) & 0x7fffffffu;
        m = u > m ? u : m;
    }
    return bb_f32_from_bits(m);
}

/* q[i] = clip(round_half_even(x[i]/s), -127, 127) */
BB_SIMD_INLINE void bb_simd_quantize_by(int8_t *q, const float *x, float s, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        int32_t v = bb_simd_round(x[i] / s);
        v = v > 127 ? 127 : v;
        q[i] = (int8_t)(v < -127 ? -127 : v);
    }
}

/* A row's q from x by s, which is returned: max(max|x|/limit, 1e-8). limit <= 127 */
BB_SIMD_INLINE float bb_simd_quantize_to(int8_t *q, const float *x, int64_t n, float limit) {
    float s = bb_simd_absmax(x, n) / limit;
    if (s < 1e-8f) s = 1e-8f;
    bb_simd_quantize_by(q, x, s, n);
    return s;
}

/* The activation quantizer for one row. */
BB_SIMD_INLINE float bb_simd_quantize(int8_t *q, const float *x, int64_t n) { return bb_simd_quantize_to(q, x, n, 127.0f); }

/* Row m of y becomes x, quantized or rounded as y.dtype says. x: (n) */
BB_SIMD_INLINE void bb_simd_store_row(bb_rows y, int64_t m, const float *x, int64_t n) {
    if (y.dtype == BB_I8) {
        y.scale[m] = bb_simd_quantize((int8_t *)y.data + m * n, x, n);
    } else if (y.dtype == BB_BF16) {
        bb_simd_round_to_bf16((bb_bf16 *)y.data + m * n, x, n);
    } else {
        memcpy((float *)y.data + m * n, x, (size_t)n * sizeof *x);
    }
}

#endif
