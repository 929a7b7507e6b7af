// SPDX-License-Identifier: MIT
/* The cuda backend's state, and what its operations share: failures, scratch memory, starting a kernel. All work of a device
 * is put on one stream, in order. */
#ifndef BB_OPS_CUDA_DEVICE_H
#define BB_OPS_CUDA_DEVICE_H

#include "ops/cuda/kernel.h"

typedef struct bb_cuda {
    bb_device base;
    int index;        /* of the card, as CUDA counts them */
    int processors;   /* SMs */
    int major, minor; /* compute capability */
    cudaStream_t stream;
    char description[320];
    int64_t allocations; /* in use */
    bb_error failure;    /* the first since the last sync; code BB_OK if none */
    void *scratch;       /* on the card; grown on first use and kept */
    size_t scratch_bytes;
    void *staging;                 /* on the host, BB_CUDA_STAGING bytes */
    void *pinned;                  /* on the host, BB_CUDA_PINNED bytes: what short copies to the card are read from */
    size_t pinned_used;            /* since the stream was last waited for */
    struct bb_cuda_ahead *ahead;   /* copies.cu; NULL: not used yet */
    struct bb_cuda_passes *passes; /* passes.cu: recordings, which hold addresses */
    void (*forget_passes)(struct bb_cuda *cuda); /* called when memory is freed, after a wait */
    int64_t *positions;                          /* on the card: of a recorded pass, (BB_PASS_POSITIONS) */
    int recorded_positions;                      /* while one is recorded: how many; else 0 */
    int rotations;                               /* then the calls of rope_forward so far */
    const struct bb_cuda_gemm *gemm;             /* gemm.h */
    struct bb_cuda_blas *blas;                   /* cublaslt.h; NULL: not used */
    struct bb_cuda_peers *peers;                 /* nccl.cu; NULL: not asked for */
} bb_cuda;

#define BB_CUDA_STAGING ((size_t)1 << 20)
#define BB_CUDA_PINNED ((size_t)1 << 20)

static inline bb_cuda *bb_cuda_of(const bb_device *dev) { return (bb_cuda *)(uintptr_t)dev; }

/* The error of a call named `what`, with what can be done about it. */
void bb_cuda_describe_error(cudaError_t error, const char *what, bb_error *out);

/* Records the first failure of a call named `what`. Returns whether there was none. */
bool bb_cuda_check(bb_device *dev, cudaError_t error, const char *what);

/* At least `bytes` of the card's memory, aligned to 256, with undefined contents, until the next call; NULL (and a recorded
 * failure) without memory. Work that used it before is done first, where it has to grow. */
void *bb_cuda_scratch(bb_device *dev, size_t bytes);

/* A copy of up to BB_CUDA_PINNED / 4 bytes in pinned memory, which stays until work that is started next is done; NULL: too long. */
const void *bb_cuda_pin(bb_device *dev, const void *host, size_t bytes);

/* Makes the card the calling thread's; entries of the operation table begin with it. */
bb_cuda *bb_cuda_enter(bb_device *dev);

/* Blocks for a loop over n elements by BB_CUDA_GRID_STRIDE with `threads` threads each: a few for each processor, fewer for
 * few elements. */
static inline unsigned bb_cuda_blocks(const bb_device *dev, int64_t n, int64_t threads) {
    return (unsigned)bb_clamp(bb_ceil_div(n, threads), 1, bb_cuda_of(dev)->processors * (int64_t)16);
}

/* Starts kernel<<<grid, block, shared>>>(...) on dev's stream. A kernel with a comma in its name goes into parentheses. */
#define BB_CUDA_LAUNCH(dev, kernel, grid, block, shared, ...)                                                                  \
    do {                                                                                                                       \
        LAUNCH(kernel, grid, block, shared, bb_cuda_of(dev)->stream, __VA_ARGS__);                                             \
        bb_cuda_check(dev, cudaGetLastError(), #kernel);                                                                       \
    } while (0)

#endif
