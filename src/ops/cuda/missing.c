// SPDX-License-Identifier: MIT
/* Replaces the cuda backend in a build without CUDA. */
#include "ops/registry.h"

const char *bb_device_cuda_unavailable(void) {
    return "this build has no CUDA; build with -DBB_CUDA=on, or `make CUDA=1`, which needs nvcc 12 or later "
           "(scripts/install-deps --cuda)";
}

int bb_device_cuda_count(void) { return 0; }

bb_status bb_device_open_cuda(int index, int threads, bb_device **out, bb_error *err) {
    (void)threads;
    *out = NULL;
    return bb_fail(err, BB_ERR_UNSUPPORTED, "cuda:%d: %s", index, bb_device_cuda_unavailable());
}
