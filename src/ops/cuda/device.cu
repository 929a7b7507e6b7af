// SPDX-License-Identifier: MIT
#include "ops/cuda/device.h"

bool bb_cuda_check(bb_device *dev, cudaError_t error, const char *what) {
    if (error == cudaSuccess) return true;
    bb_error *failure = &bb_cuda_of(dev)->failure;
    if (failure->code == BB_OK)
        bb_fail(failure, error == cudaErrorMemoryAllocation ? BB_ERR_MEMORY : BB_ERR_INTERNAL, "cuda: %s: %s", what,
                cudaGetErrorString(error));
    return false;
}

bb_cuda *bb_cuda_enter(bb_device *dev) {
    bb_cuda *cuda = bb_cuda_of(dev);
    bb_cuda_check(dev, cudaSetDevice(cuda->index), "cudaSetDevice");
    return cuda;
}

void *bb_cuda_scratch(bb_device *dev, size_t bytes) {
    bb_cuda *cuda = bb_cuda_of(dev);
    if (bytes <= cuda->scratch_bytes) return cuda->scratch;
    bb_cuda_check(dev, cudaStreamSynchronize(cuda->stream), "cudaStreamSynchronize");
    bb_cuda_check(dev, cudaFree(cuda->scratch), "cudaFree");
    cuda->scratch = NULL;
    cuda->scratch_bytes = 0;
    cudaError_t error = cudaMalloc(&cuda->scratch, bytes);
    if (error == cudaSuccess) {
        cuda->scratch_bytes = bytes;
        return cuda->scratch;
    }
    (void)cudaGetLastError();
    cuda->scratch = NULL;
    if (cuda->failure.code == BB_OK)
        bb_fail(&cuda->failure, BB_ERR_MEMORY, "cuda: no memory for %.1f MB of scratch on the card", (double)bytes * 1e-6);
    return NULL;
}
