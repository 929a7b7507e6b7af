// SPDX-License-Identifier: MIT
/* Stores a row that a block computes as the input of a linear layer. */
#ifndef BB_OPS_CUDA_ROWS_H
#define BB_OPS_CUDA_ROWS_H

#include "ops/cuda/kernel.h"

enum { BB_CUDA_ROW_THREADS = 256, BB_CUDA_ROW_WARPS = BB_CUDA_ROW_THREADS / BB_CUDA_WARP };

/* Stores row m of y from value(k), k < K. If y is quantized, value is called twice for each k. */
template <class F> __device__ static void bb_cuda_store_row(bb_rows y, int64_t m, int64_t K, F value, uint32_t *partial) {
    if (y.dtype != BB_I8) {
        for (int64_t k = threadIdx.x; k < K; k += BB_CUDA_ROW_THREADS) {
            if (y.dtype == BB_BF16)
                ((bb_cuda_bf16 *)y.data)[m * K + k] = bb_cuda_act<bb_cuda_bf16>(value(k));
            else if (y.dtype == BB_F16)
                ((bb_cuda_f16 *)y.data)[m * K + k] = bb_cuda_act<bb_cuda_f16>(value(k));
            else
                ((float *)y.data)[m * K + k] = value(k);
        }
        return;
    }
    float absmax = 0;
    for (int64_t k = threadIdx.x; k < K; k += BB_CUDA_ROW_THREADS) absmax = bb_cuda_greater(absmax, value(k));
    float s = bb_cuda_scale(bb_cuda_block_absmax(absmax, partial), 127.0f);
    for (int64_t k = threadIdx.x; k < K; k += BB_CUDA_ROW_THREADS)
        ((int8_t *)y.data)[m * K + k] = bb_cuda_code(value(k), s, 127.0f);
    if (threadIdx.x == 0) y.scale[m] = s;
}

#endif
