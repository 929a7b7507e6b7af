// SPDX-License-Identifier: MIT
/* The processor's limits: registers full of independent dot products, and a stream of reads. Benchmarks report against them. */
#include "ops/cpu/device/peaks.h"

#include <omp.h>

#include "core/clock.h"
#include "ops/cpu/device/cpu.h"
#include "ops/cpu/device/entries.h"
#include "ops/cpu/vector/amx.h"

/* The best of many short runs, since other load on the machine comes and goes. */
enum { ITERATIONS = 500000, SUMS = 24, REPEATS = 100, READ_REPEATS = 10, READ_AHEAD = 8192 };

static const size_t read_bytes = (size_t)512 << 20; /* larger than most caches */

/* A kernel runs ITERATIONS x SUMS dot products; each depends only on the previous value of its own sum. */
#define VECTOR_PEAK(run, operations)                                                                                           \
    { run, (double)(operations)*ITERATIONS *SUMS }

#if defined(__x86_64__)
/* By vector width: the registers of the sums (SUMS entries) and the clobber list. Zen 5 has 12 vdpbf16ps in flight, so 12 sums
 * are too few to reach its limit. */
#define IN_ymm "0,1,2,3,4,5,6,7,8,9,10,11,0,1,2,3,4,5,6,7,8,9,10,11"
#define IN_zmm "0,1,2,3,4,5,6,7,8,9,10,11,16,17,18,19,20,21,22,23,24,25,26,27"
#define TARGET_ymm "avx2"
#define TARGET_zmm "avx512f"
#define CLOBBERED_ymm                                                                                                          \
    "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm14", "xmm15"
#define CLOBBERED_zmm                                                                                                          \
    CLOBBERED_ymm, "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27"

/* All in assembler: GCC 12 copies the sums around the intrinsics and hoists equal products out of the loop. `step` adds to the
 * sum in register \\i a product of register 15, which is full of `input`; register 14 is free. */
#define KERNEL(name, r, input, step)                                                                                           \
    __attribute__((target(TARGET_##r))) static void name(void) {                                                               \
        int n = ITERATIONS;                                                                                                    \
        __asm__ volatile("vmovd %1, %%xmm15\n vpbroadcastd %%xmm15, %%" #r "15\n"                                              \
                         ".irp i," IN_##r "\n vpsubd %%" #r "\\i, %%" #r "\\i, %%" #r "\\i\n .endr\n"                          \
                                          ".p2align 6\n 1: .irp i," IN_##r "\n" step "\n .endr\n"                              \
                                                                           "decl %0\n jnz 1b\n vzeroupper"                     \
                         : "+&r"(n)                                                                                            \
                         : "r"(input)                                                                                          \
                         : CLOBBERED_##r);                                                                                     \
    }

enum { ONE_F32 = 0x3f800000, ONES_BF16 = 0x3f803f80, ONES_INT8 = 0x01010101 };

KERNEL(f32_avx512, zmm, ONE_F32, "vfmadd231ps %%zmm15, %%zmm15, %%zmm\\i")
KERNEL(bf16_avx512, zmm, ONES_BF16, "vdpbf16ps %%zmm15, %%zmm15, %%zmm\\i")
KERNEL(int8_vnni, zmm, ONES_INT8, "vpdpbusd %%zmm15, %%zmm15, %%zmm\\i")
KERNEL(int8_avx_vnni, ymm, ONES_INT8, "%{vex%} vpdpbusd %%ymm15, %%ymm15, %%ymm\\i")
KERNEL(f32_avx2, ymm, ONE_F32, "vfmadd231ps %%ymm15, %%ymm15, %%ymm\\i")
KERNEL(int8_avx2, ymm, ONES_INT8,
       "vpmaddubsw %%ymm15, %%ymm15, %%ymm14\n vpmaddwd %%ymm15, %%ymm14, %%ymm14\n vpaddd %%ymm14, %%ymm\\i, %%ymm\\i")

/* Tiles of 16 x 64 bytes: four of sums, two for each operand, as in dot_amx.c. */
enum { TILE_ITERATIONS = ITERATIONS / 8, TILE_PRODUCTS = 4 };

#define TILE_KERNEL(name, instruction)                                                                                         \
    static void name(void) {                                                                                                   \
        int n = TILE_ITERATIONS;                                                                                               \
        bb_amx_open();                                                                                                         \
        __asm__ volatile("tilezero %%tmm0\n tilezero %%tmm1\n tilezero %%tmm2\n tilezero %%tmm3\n tilezero %%tmm4\n"           \
                         "tilezero %%tmm5\n tilezero %%tmm6\n tilezero %%tmm7\n .p2align 6\n 1:\n" instruction                 \
                         " %%tmm6, %%tmm4, %%tmm0\n" instruction " %%tmm7, %%tmm4, %%tmm1\n" instruction                       \
                         " %%tmm6, %%tmm5, %%tmm2\n" instruction " %%tmm7, %%tmm5, %%tmm3\n decl %0\n jnz 1b\n"                \
                         : "+&r"(n)                                                                                            \
                         :                                                                                                     \
                         : "cc");                                                                                              \
        bb_amx_close();                                                                                                        \
    }

TILE_KERNEL(int8_amx, "tdpbsud")
TILE_KERNEL(bf16_amx, "tdpbf16ps")

#define TILE_PEAK(run, k)                                                                                                      \
    { run, 2.0 * 16 * 16 * (k)*TILE_PRODUCTS *TILE_ITERATIONS }

const bb_peak_kernel bb_peak_f32_avx2 = VECTOR_PEAK(f32_avx2, 16);
const bb_peak_kernel bb_peak_int8_avx2 = VECTOR_PEAK(int8_avx2, 64);
const bb_peak_kernel bb_peak_int8_avx_vnni = VECTOR_PEAK(int8_avx_vnni, 64);
const bb_peak_kernel bb_peak_f32_avx512 = VECTOR_PEAK(f32_avx512, 32);
const bb_peak_kernel bb_peak_int8_vnni = VECTOR_PEAK(int8_vnni, 128);
const bb_peak_kernel bb_peak_bf16_avx512 = VECTOR_PEAK(bf16_avx512, 64);
const bb_peak_kernel bb_peak_int8_amx = TILE_PEAK(int8_amx, 64);
const bb_peak_kernel bb_peak_bf16_amx = TILE_PEAK(bf16_amx, 32);
#endif

typedef float f32x4 __attribute__((vector_size(16)));

static void f32_generic(void) {
    enum { HALF = SUMS / 2 }; /* as many as fit in 16 registers */
    f32x4 acc[HALF], sum = {0}, x = {0.5f, 0.5f, 0.5f, 0.5f};
    for (int i = 0; i < HALF; i++) acc[i] = (float)i * x; /* different values, or the compiler would keep only one sum */
    for (int n = 0; n < 2 * ITERATIONS; n++)
        for (int i = 0; i < HALF; i++) acc[i] = acc[i] * x + x;
    for (int i = 0; i < HALF; i++) sum += acc[i];
    volatile f32x4 sink = sum;
    (void)sink;
}

const bb_peak_kernel bb_peak_f32_generic = VECTOR_PEAK(f32_generic, 8);

/* 10^9 operations per second on all threads; 0 if kernel is NULL. */
static double rate(bb_device *dev, const bb_peak_kernel *kernel) {
    double best = 0;
    for (int r = 0; r < REPEATS && kernel; r++) {
        double start = bb_clock_seconds();
#pragma omp parallel num_threads(dev->threads)
        kernel->run();
        best = fmax(best, kernel->operations * dev->threads / (bb_clock_seconds() - start) * 1e-9);
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
    { /* first touched by the thread that will read it */
        uint64_t *mine = data + part * omp_get_thread_num();
        for (int64_t i = 0; i < part; i++) mine[i] = (uint64_t)i;
    }
    for (int r = 0; r < READ_REPEATS; r++) {
        double start = bb_clock_seconds();
#pragma omp parallel num_threads(dev->threads)
        {
            const uint64_t *mine = data + part * omp_get_thread_num();
            uint64_t sum[8] = {0};
            for (int64_t i = 0; i + 8 <= part; i += 8) {
                /* hardware prefetching alone leaves up to a quarter of the rate unused */
                if (r % 2) __builtin_prefetch((const char *)(mine + i) + READ_AHEAD, 0, 2);
                for (int j = 0; j < 8; j++) sum[j] ^= mine[i + j];
            }
            for (int j = 1; j < 8; j++) sum[0] ^= sum[j];
#pragma omp critical
            sink = sink ^ sum[0];
        }
        double g = (double)read_bytes / (bb_clock_seconds() - start) * 1e-9;
        if (g > best) best = g;
    }
    dev->ops->free(dev, data, read_bytes);
    return best;
}

void bb_cpu_measure_peaks(bb_device *dev, bb_peaks *out) {
    const bb_cpu_kernels *k = &bb_cpu_of(dev)->kernels;
    *out = (bb_peaks){.f32 = rate(dev, k->peak_f32),
                      .bf16 = rate(dev, k->peak_bf16),
                      .int8 = rate(dev, k->peak_int8),
                      .read_gb = read_rate(dev)};
}
