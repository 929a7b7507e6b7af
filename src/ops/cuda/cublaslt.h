// SPDX-License-Identifier: MIT
/* Products of plain matrices by NVIDIA's cuBLASLt, if its library is installed. The library is loaded when a card is opened;
 * nothing is linked against it. */
#ifndef BB_OPS_CUDA_CUBLASLT_H
#define BB_OPS_CUDA_CUBLASLT_H

#include "ops/cuda/device.h"

typedef struct bb_cuda_blas bb_cuda_blas;

/* Shape of c (M,N), with sums over K. */
typedef struct bb_cuda_product_shape {
    int64_t M, N, K;
} bb_cuda_product_shape;

enum { BB_CUDA_BLAS_ALIGNMENT = 16 /* M, N and K must be multiples of it */, BB_CUDA_BLAS_WORKSPACE = 32 << 20 };

/* Returns NULL if there is no usable library. */
bb_cuda_blas *bb_cuda_blas_open(void);
void bb_cuda_blas_close(bb_cuda_blas *blas);
size_t bb_cuda_blas_version(const bb_cuda_blas *blas);

/* Returns whether the library can compute products of this shape. */
bool bb_cuda_blas_has(bb_device *dev, bool in_int8, bb_cuda_product_shape shape);

/* The next two return false if the library cannot compute the product. workspace: BB_CUDA_BLAS_WORKSPACE bytes on the card.
 * c (M,N) int32 = a (M,K) b (N,K)^T, both int8, exact. */
bool bb_cuda_blas_int8(bb_device *dev, int32_t *c, const int8_t *a, const int8_t *b, bb_cuda_product_shape shape,
                       void *workspace);
/* c (M,N) f32 (+)= a (K,M)^T b (K,N), both of the activation type, with f32 accumulators. */
bool bb_cuda_blas_act(bb_device *dev, float *c, bool add, const void *a, const void *b, bb_cuda_product_shape shape,
                      void *workspace);

#endif
