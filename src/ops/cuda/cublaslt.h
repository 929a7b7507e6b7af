// SPDX-License-Identifier: MIT
/* Products of plain matrices by NVIDIA's cuBLASLt, where its library is there. It is looked for when a card is opened, and
 * nothing is linked. */
#ifndef BB_OPS_CUDA_CUBLASLT_H
#define BB_OPS_CUDA_CUBLASLT_H

#include "ops/cuda/device.h"

typedef struct bb_cuda_blas bb_cuda_blas;

/* Of c (M,N), with sums over K. */
typedef struct bb_cuda_product_shape {
    int64_t M, N, K;
} bb_cuda_product_shape;

enum { BB_CUDA_BLAS_ALIGNMENT = 16 /* what M, N and K are multiples of */, BB_CUDA_BLAS_WORKSPACE = 32 << 20 };

/* NULL: there is none that can be used. */
bb_cuda_blas *bb_cuda_blas_open(void);
void bb_cuda_blas_close(bb_cuda_blas *blas);
size_t bb_cuda_blas_version(const bb_cuda_blas *blas);

/* Whether it has a way for the shape. */
bool bb_cuda_blas_has(bb_device *dev, bool in_int8, bb_cuda_product_shape shape);

/* Each returns false where it has none. workspace: BB_CUDA_BLAS_WORKSPACE bytes of the card's memory.
 * c (M,N) int32 = a (M,K) b (N,K)^T of int8, exact. */
bool bb_cuda_blas_int8(bb_device *dev, int32_t *c, const int8_t *a, const int8_t *b, bb_cuda_product_shape shape,
                       void *workspace);
/* c (M,N) f32 (+)= a (K,M)^T b (K,N) of act, with sums in f32. */
bool bb_cuda_blas_act(bb_device *dev, float *c, bool add, const void *a, const void *b, bb_cuda_product_shape shape,
                      void *workspace);

#endif
