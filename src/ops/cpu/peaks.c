/* The processor's limits: registers full of independent dot products, and a stream of reads. What every benchmark is held
 * against. SPDX-License-Identifier: MIT */
#include <omp.h>
#include <time.h>

#include "ops/cpu/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { ITERATIONS = 8000000, ACCUMULATORS = 12, REPEATS = 3 };

static const size_t read_bytes = (size_t)256 << 20; /* well past any cache */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Each kernel runs ITERATIONS x ACCUMULATORS dependent-only-on-themselves instructions; its result is returned so that nothing
 * is optimised away. */
typedef float (*kernel)(void);

#if defined(__x86_64__)
/* In variables of their own: an array would be kept in memory. */
#define KERNEL(name, isa, type, zero, one_input, step, finish)                                                                 \
    __attribute__((target(isa))) static float name(void) {                                                                     \
        type input = one_input, acc0 = zero, acc1 = zero, acc2 = zero, acc3 = zero, acc4 = zero, acc5 = zero, acc6 = zero,     \
             acc7 = zero, acc8 = zero, acc9 = zero, acc10 = zero, acc11 = zero;                                                \
        /* the sums are told apart, or the compiler would find them equal and keep one */                                      \
        __asm__ volatile("" : "+v"(acc0), "+v"(acc1), "+v"(acc2), "+v"(acc3), "+v"(acc4), "+v"(acc5));                         \
        __asm__ volatile("" : "+v"(acc6), "+v"(acc7), "+v"(acc8), "+v"(acc9), "+v"(acc10), "+v"(acc11));                       \
        for (int n = 0; n < ITERATIONS; n++) {                                                                                 \
            acc0 = step(acc0, input), acc1 = step(acc1, input), acc2 = step(acc2, input), acc3 = step(acc3, input);            \
            acc4 = step(acc4, input), acc5 = step(acc5, input), acc6 = step(acc6, input), acc7 = step(acc7, input);            \
            acc8 = step(acc8, input), acc9 = step(acc9, input), acc10 = step(acc10, input), acc11 = step(acc11, input);        \
            __asm__ volatile("" : "+v"(input)); /* a new input each time: nothing can be taken out of the loop */              \
        }                                                                                                                      \
        acc0 = finish(finish(finish(acc0, acc1), finish(acc2, acc3)), finish(finish(acc4, acc5), finish(acc6, acc7)));         \
        acc0 = finish(acc0, finish(finish(acc8, acc9), finish(acc10, acc11)));                                                 \
        float result;                                                                                                          \
        memcpy(&result, &acc0, sizeof result);                                                                                 \
        return result;                                                                                                         \
    }

#define FMA512(a, x) _mm512_fmadd_ps(x, x, a)
#define FMA256(a, x) _mm256_fmadd_ps(x, x, a)
#define DOT_BF16(a, x) _mm512_dpbf16_ps(a, (__m512bh)(x), (__m512bh)(x))
#define DOT_INT8(a, x) _mm512_dpbusd_epi32(a, x, x)
#define MADD_INT8(a, x) _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_maddubs_epi16(x, x), x))

KERNEL(f32_avx512, "avx512f", __m512, _mm512_setzero_ps(), _mm512_set1_ps(1e-3f), FMA512, _mm512_add_ps)
KERNEL(f32_avx2, "avx2,fma", __m256, _mm256_setzero_ps(), _mm256_set1_ps(1e-3f), FMA256, _mm256_add_ps)
KERNEL(bf16_avx512, "avx512f,avx512bf16", __m512, _mm512_setzero_ps(), _mm512_set1_ps(1e-3f), DOT_BF16, _mm512_add_ps)
KERNEL(int8_vnni, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), _mm512_set1_epi8(1), DOT_INT8, _mm512_add_epi32)
KERNEL(int8_avx2, "avx2", __m256i, _mm256_setzero_si256(), _mm256_set1_epi8(1), MADD_INT8, _mm256_add_epi32)
#endif

static float f32_generic(void) {
    float acc[ACCUMULATORS] = {0}, x = 1e-3f;
    for (int n = 0; n < ITERATIONS; n++)
        for (int i = 0; i < ACCUMULATORS; i++) {
            acc[i] += x * x;
            __asm__ volatile("" : "+r"(x));
        }
    float sum = 0;
    for (int i = 0; i < ACCUMULATORS; i++) sum += acc[i];
    return sum;
}

/* operations: by one call of one instruction. */
static double rate(bb_device *dev, kernel run, double operations) {
    double best = 0;
    volatile float sink = 0;
    for (int r = 0; r < REPEATS; r++) {
        double start = now();
#pragma omp parallel num_threads(dev->threads)
        {
            float result = run();
#pragma omp critical
            sink = sink + result;
        }
        double seconds = now() - start;
        double g = operations * ITERATIONS * ACCUMULATORS * dev->threads / seconds * 1e-9;
        if (g > best) best = g;
    }
    return best;
}

static double read_rate(bb_device *dev) {
    uint64_t *data = dev->ops->alloc(dev, read_bytes);
    if (!data) return 0;
    int64_t n = (int64_t)(read_bytes / sizeof *data), part = n / dev->threads;
    double best = 0;
    volatile uint64_t sink = 0;
#pragma omp parallel num_threads(dev->threads)
    { /* touched by the thread that will read it */
        uint64_t *mine = data + part * omp_get_thread_num();
        for (int64_t i = 0; i < part; i++) mine[i] = (uint64_t)i;
    }
    for (int r = 0; r < REPEATS; r++) {
        double start = now();
#pragma omp parallel num_threads(dev->threads)
        {
            const uint64_t *mine = data + part * omp_get_thread_num();
            uint64_t sum[8] = {0};
            for (int64_t i = 0; i + 8 <= part; i += 8)
                for (int j = 0; j < 8; j++) sum[j] ^= mine[i + j];
            for (int j = 1; j < 8; j++) sum[0] ^= sum[j];
#pragma omp critical
            sink = sink ^ sum[0];
        }
        double g = (double)read_bytes / (now() - start) * 1e-9;
        if (g > best) best = g;
    }
    dev->ops->free(dev, data, read_bytes);
    return best;
}

void bb_cpu_measure_peaks(bb_device *dev, bb_peaks *out) {
    *out = (bb_peaks){.read_gb = read_rate(dev)};
#if defined(__x86_64__)
    bb_cpu_level level = bb_cpu_of(dev)->level;
    if (level >= BB_CPU_AVX512) {
        out->f32 = rate(dev, f32_avx512, 32);
        out->int8 = level >= BB_CPU_AVX512_VNNI ? rate(dev, int8_vnni, 128) : rate(dev, int8_avx2, 64);
        out->bf16 = level >= BB_CPU_AVX512_BF16 ? rate(dev, bf16_avx512, 64) : 0;
        return;
    }
    if (level >= BB_CPU_AVX2) {
        out->f32 = rate(dev, f32_avx2, 16);
        out->int8 = rate(dev, int8_avx2, 64);
        return;
    }
#endif
    out->f32 = rate(dev, f32_generic, 2);
}
