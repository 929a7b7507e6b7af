// SPDX-License-Identifier: MIT
#include "ops/cuda/device.h"

/* Advice on errors that are not caused by the program; NULL: there is none. After the first three errors, the card computes
 * nothing more for this process. */
static const char *advice(cudaError_t error) {
    switch (error) {
    case cudaErrorECCUncorrectable:
        return "the card's memory has an error that it could not correct: see nvidia-smi -q -d ECC, and reset the card, or "
               "replace it if that "
               "happens again";
    case cudaErrorUnknown:
    case cudaErrorLaunchFailure: return "the card stopped computing, or is gone: see what nvidia-smi and dmesg (NVRM: Xid) say";
    case cudaErrorDevicesUnavailable:
        return "another process has the card for itself (nvidia-smi shows which; compute mode EXCLUSIVE_PROCESS lets one in): "
               "end it, or take "
               "another card (--device cuda:1)";
    default: return NULL;
    }
}

void bb_cuda_describe_error(cudaError_t error, const char *what, bb_error *out) {
    const char *more = advice(error);
    bb_fail(out, error == cudaErrorMemoryAllocation ? BB_ERR_MEMORY : BB_ERR_INTERNAL, "cuda: %s: %s%s%s", what,
            cudaGetErrorString(error), more ? ": " : "", more ? more : "");
}

bool bb_cuda_check(bb_device *dev, cudaError_t error, const char *what) {
    if (error == cudaSuccess) return true;
    bb_error *failure = &bb_cuda_of(dev)->failure;
    if (failure->code == BB_OK) bb_cuda_describe_error(error, what, failure);
    return false;
}

bb_cuda *bb_cuda_enter(bb_device *dev) {
    bb_cuda *cuda = bb_cuda_of(dev);
    bb_cuda_check(dev, cudaSetDevice(cuda->index), "cudaSetDevice");
    return cuda;
}

const void *bb_cuda_pin(bb_device *dev, const void *host, size_t bytes) {
    bb_cuda *cuda = bb_cuda_of(dev);
    size_t rounded = (bytes + 255) & ~(size_t)255;
    if (rounded > BB_CUDA_PINNED / 4) return NULL;
    if (cuda->pinned_used + rounded > BB_CUDA_PINNED) {
        bb_cuda_check(dev, cudaStreamSynchronize(cuda->stream), "copies to the card");
        cuda->pinned_used = 0;
    }
    void *to = (char *)cuda->pinned + cuda->pinned_used;
    cuda->pinned_used += rounded;
    memcpy(to, host, bytes);
    return to;
}

void *bb_cuda_scratch(bb_device *dev, size_t bytes) {
    bb_cuda *cuda = bb_cuda_of(dev);
    if (bytes <= cuda->scratch_bytes) return cuda->scratch;
    bb_cuda_check(dev, cudaStreamSynchronize(cuda->stream), "cudaStreamSynchronize");
    cuda->forget_passes(cuda);
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
    size_t available = 0, total = 0;
    (void)cudaMemGetInfo(&available, &total);
    if (cuda->failure.code == BB_OK && error == cudaErrorMemoryAllocation)
        bb_fail(&cuda->failure, BB_ERR_MEMORY,
                "cuda: no memory for %.1f MB of scratch on the card, where %.1f of %.1f MB is free; a smaller --batch_size, "
                "--seq_len or "
                "--seq_len_cap needs less",
                (double)bytes * 1e-6, (double)available * 1e-6, (double)total * 1e-6);
    bb_cuda_check(dev, error, "cudaMalloc");
    return NULL;
}
