// SPDX-License-Identifier: MIT
/* The cpu backend's own state, and what its operations share: failures, scratch memory, the team of threads. */
#ifndef BB_OPS_CPU_CPU_H
#define BB_OPS_CPU_CPU_H

#include "ops/cpu/device/kernel_set.h"
#include "ops/cpu/device/team.h"

struct bb_gemm; /* gemm.h: oneDNN's engine, stream, and primitives by shape */

typedef struct bb_cpu {
    bb_device base;
    bb_cpu_kernels kernels;
    char description[160];
    bb_error failure; /* the first since the last sync; code BB_OK if none */
    struct bb_gemm *gemm;
    bb_team *team;  /* created on first use */
    void **scratch; /* per thread; grown on first use and kept */
    size_t *scratch_bytes;
    void *shared; /* shared by all threads; likewise */
    size_t shared_bytes;
} bb_cpu;

static inline bb_cpu *bb_cpu_of(bb_device *dev) { return (bb_cpu *)dev; }

/* Records the first failure; callable from inside a parallel region. */
void bb_cpu_fail(bb_device *dev, bb_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* At least `bytes` of BB_ALIGN-aligned scratch for the calling OpenMP thread, with undefined contents; the same pointer until a
 * larger request. NULL (and a recorded failure) when out of memory. */
void *bb_cpu_scratch(bb_device *dev, size_t bytes);
/* Likewise, but one buffer for all threads of an operation; call outside parallel regions. */
void *bb_cpu_shared(bb_device *dev, size_t bytes);

/* The team for operations on small batches; call outside parallel regions. NULL (and a recorded failure) when out of memory. */
bb_team *bb_cpu_team(bb_device *dev);

/* BB_ALIGN-aligned, zeroed, in huge pages if large; NULL when out of memory. */
void *bb_cpu_alloc(bb_device *dev, size_t bytes);
void bb_cpu_free(bb_device *dev, void *p, size_t bytes);

#endif
