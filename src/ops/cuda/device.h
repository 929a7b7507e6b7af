// SPDX-License-Identifier: MIT
/* State of the cuda backend, and helpers that its operations share: failures, scratch memory, kernel launches. All work of a
 * device is put on one stream, in order. */
#ifndef BB_OPS_CUDA_DEVICE_H
#define BB_OPS_CUDA_DEVICE_H

#include "ops/cuda/kernel.h"

typedef struct bb_cuda {
    bb_device base;
    int index;        /* of the card, as CUDA numbers them */
    int processors;   /* number of SMs */
    int major, minor; /* compute capability */
    cudaStream_t stream;
    char description[320];
    int64_t allocations; /* not freed yet */
    bb_error failure;    /* first failure since the last sync; code BB_OK: none */
    void *scratch;       /* on the card; allocated on first use, grown when needed */
    size_t scratch_bytes;
    void *staging;                               /* on the host, BB_CUDA_STAGING bytes */
    void *pinned;                                /* on the host, BB_CUDA_PINNED bytes: source of short copies to the card */
    size_t pinned_used;                          /* bytes used since the last stream synchronization */
    struct bb_cuda_ahead *ahead;                 /* copies.cu; NULL: not used yet */
    struct bb_cuda_passes *passes;               /* passes.cu: captured graphs, which hold addresses */
    void (*forget_passes)(struct bb_cuda *cuda); /* called when memory is freed, after a synchronization */
    int64_t *positions;                          /* on the card: positions of a captured pass, (BB_PASS_POSITIONS) */
    int recorded_positions;                      /* number of positions during a capture; else 0 */
    int rotations;                               /* rope_forward calls so far in the capture */
    const struct bb_cuda_gemm *gemm;             /* gemm.h */
    struct bb_cuda_blas *blas;                   /* cublaslt.h; NULL: not used */
    struct bb_cuda_peers *peers;                 /* nccl.cu; NULL: not requested */
} bb_cuda;

#define BB_CUDA_STAGING ((size_t)1 << 20)
#define BB_CUDA_PINNED ((size_t)1 << 20)

static inline bb_cuda *bb_cuda_of(const bb_device *dev) { return (bb_cuda *)(uintptr_t)dev; }

/* Describes the error of a call named `what`, and adds advice on what to do about it. */
void bb_cuda_describe_error(cudaError_t error, const char *what, bb_error *out);

/* Records the failure of a call named `what`, if it is the first. Returns true if the call succeeded. */
bool bb_cuda_check(bb_device *dev, cudaError_t error, const char *what);

/* Returns at least `bytes` of the card's memory, aligned to 256 bytes, with undefined contents, valid until the next call.
 * NULL: out of memory, and the failure is recorded. If the buffer has to grow, the function first waits for work that uses
 * it. */
void *bb_cuda_scratch(bb_device *dev, size_t bytes);

/* Returns a copy of the bytes, at most BB_CUDA_PINNED / 4, in pinned memory. It stays valid until the work that is started next
 * is done. NULL: too long. */
const void *bb_cuda_pin(bb_device *dev, const void *host, size_t bytes);

/* Makes the card current for the calling thread. Entries of the operation table call this first. */
bb_cuda *bb_cuda_enter(bb_device *dev);

/* Number of blocks, of `threads` threads each, for a BB_CUDA_GRID_STRIDE loop over n elements: a few per SM, fewer if there are
 * few elements. */
static inline unsigned bb_cuda_blocks(const bb_device *dev, int64_t n, int64_t threads) {
    return (unsigned)bb_clamp(bb_ceil_div(n, threads), 1, bb_cuda_of(dev)->processors * (int64_t)16);
}

/* Launches kernel<<<grid, block, shared>>>(...) on dev's stream. A kernel whose name contains a comma must be in
 * parentheses. */
#define BB_CUDA_LAUNCH(dev, kernel, grid, block, shared, ...)                                                                  \
    do {                                                                                                                       \
        LAUNCH(kernel, grid, block, shared, bb_cuda_of(dev)->stream, __VA_ARGS__);                                             \
        bb_cuda_check(dev, cudaGetLastError(), #kernel);                                                                       \
    } while (0)

#endif
