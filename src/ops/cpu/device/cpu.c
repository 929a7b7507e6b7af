// SPDX-License-Identifier: MIT
/* What the operations share: memory, failures, the team of threads. */
#include "ops/cpu/device/cpu.h"

#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "core/arena.h"

#define HUGE_PAGE ((size_t)2 << 20)

static size_t round_up_to_pages(size_t bytes) { return (bytes + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1); }

void bb_cpu_fail(bb_device *dev, bb_status code, const char *fmt, ...) {
    bb_cpu *cpu = bb_cpu_of(dev);
    va_list args;
    va_start(args, fmt);
#pragma omp critical(bb_cpu_failure)
    if (cpu->failure.code == BB_OK) {
        cpu->failure.code = code;
        vsnprintf(cpu->failure.message, sizeof cpu->failure.message, fmt, args);
    }
    va_end(args);
}

/* Large blocks come from the system: zeroed, aligned to huge pages and backed by them where available. Small ones come from the
 * heap. */
void *bb_cpu_alloc(bb_device *dev, size_t bytes) {
    (void)dev;
    if (bytes > SIZE_MAX - 2 * HUGE_PAGE) return NULL;
    bytes = bb_align_up(bytes ? bytes : 1);
    if (bytes < HUGE_PAGE) {
        void *p = aligned_alloc(BB_ALIGN, bytes);
        return p ? memset(p, 0, bytes) : NULL;
    }
    size_t length = round_up_to_pages(bytes);
    uint8_t *p = mmap(NULL, length + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    size_t before = -(uintptr_t)p & (HUGE_PAGE - 1);
    if (before) (void)munmap(p, before);
    (void)munmap(p + before + length, HUGE_PAGE - before);
    p += before;
    (void)madvise(p, length, MADV_HUGEPAGE); /* only a hint: without huge pages it is just slower */
    return p;
}

void bb_cpu_free(bb_device *dev, void *p, size_t bytes) {
    (void)dev;
    bytes = bb_align_up(bytes ? bytes : 1);
    if (p && bytes >= HUGE_PAGE)
        (void)munmap(p, round_up_to_pages(bytes));
    else
        free(p);
}

/* Ensures at least `bytes` at *memory, which may move and lose its contents. */
static void *grow(bb_device *dev, void **memory, size_t *capacity, size_t bytes) {
    if (bytes > *capacity) {
        bb_cpu_free(dev, *memory, *capacity);
        *capacity = bytes;
        *memory = bb_cpu_alloc(dev, bytes);
        if (!*memory) {
            *capacity = 0;
            bb_cpu_fail(dev, BB_ERR_MEMORY, "no memory for %.1f MB of scratch", (double)bytes * 1e-6);
        }
    }
    return *memory;
}

void *bb_cpu_scratch(bb_device *dev, size_t bytes) {
    bb_cpu *cpu = bb_cpu_of(dev);
    int thread = omp_get_thread_num();
    return grow(dev, &cpu->scratch[thread], &cpu->scratch_bytes[thread], bytes);
}

void *bb_cpu_shared(bb_device *dev, size_t bytes) {
    bb_cpu *cpu = bb_cpu_of(dev);
    return grow(dev, &cpu->shared, &cpu->shared_bytes, bytes);
}

bb_team *bb_cpu_team(bb_device *dev) {
    bb_cpu *cpu = bb_cpu_of(dev);
    if (!cpu->team) cpu->team = bb_team_create(dev->threads);
    if (!cpu->team) bb_cpu_fail(dev, BB_ERR_MEMORY, "no memory for a team of %d threads", dev->threads);
    return cpu->team;
}
