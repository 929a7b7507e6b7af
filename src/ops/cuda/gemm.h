// SPDX-License-Identifier: MIT
/* Two implementations of the large products of ternary layers. The kernels of this backend (linear.cu, with product.h) read the
 * codes and finish the sums themselves. A library (gemm_library.cu, with cublaslt.h) multiplies plain matrices. If x is int8,
 * both give the same bits for forward and dx; dW differs in the order of its f32 sums.
 *
 * A card starts with the kernels. The library is used if its products of a few test matrices equal those of the kernels. */
#ifndef BB_OPS_CUDA_GEMM_H
#define BB_OPS_CUDA_GEMM_H

#include "ops/cuda/device.h"

/* dy (M,N), f32 or the activation type. If row_scale (M) is not NULL, each row is multiplied by its scale. */
typedef struct bb_cuda_gradient {
    const void *data;
    bb_dtype dtype;
    const float *row_scale;
} bb_cuda_gradient;

/* Each returns false, without having done anything, if it cannot compute this shape. x is I8; t is the matrix that rows are
 * multiplied with. */
typedef struct bb_cuda_gemm {
    const char *name;
    /* y[m,n] = residual[m,n] + s[m] g[n] sum over k of x[m,k] w[n,k] */
    bool (*forward)(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M);
    /* dx[m,k] = scale[m] sum over n of q[m,n] w[n,k].  dx: activation type */
    bool (*input_gradient)(bb_device *dev, void *dx, bb_rows q, const bb_ternary *t, int64_t M);
    /* dw[n,k] (+)= sum over m of dy[m,n] x[m,k] */
    bool (*weight_gradient)(bb_device *dev, float *dw, bool add, bb_cuda_gradient dy, bb_rows x, const bb_ternary *t,
                            int64_t M);
    /* Bytes of scratch for a product of M rows, N outputs and K inputs; 0: none. */
    size_t (*scratch)(int64_t M, int64_t N, int64_t K);
} bb_cuda_gemm;

extern const bb_cuda_gemm bb_cuda_gemm_kernels, bb_cuda_gemm_library;

/* gemm_check.cu: chooses an implementation and describes it in text. BITBYTE_CUDA_GEMM=kernels always chooses the kernels. */
void bb_cuda_gemm_choose(bb_device *dev, char *text, size_t size);

#endif
