// SPDX-License-Identifier: MIT
/* Who computes the large products of ternary layers: this backend's kernels (linear.cu, over product.h), which read the codes
 * and finish the sums themselves, or a library's (gemm_library.cu, over cublaslt.h), which takes plain matrices. Where x is int8, forward
 * and dx have the same bits from both, and dW differs by the order of its sums in f32.
 *
 * A card begins with the kernels. The library is used when its products of a few matrices equal theirs. */
#ifndef BB_OPS_CUDA_GEMM_H
#define BB_OPS_CUDA_GEMM_H

#include "ops/cuda/device.h"

/* dy (M,N), f32 or act; with row_scale, (M), times the scale of its row. */
typedef struct bb_cuda_gradient {
    const void *data;
    bb_dtype dtype;
    const float *row_scale;
} bb_cuda_gradient;

/* Each returns false, and has done nothing, where it has no way for this shape. x is I8; a matrix that is multiplied by rows. */
typedef struct bb_cuda_gemm {
    const char *name;
    /* y[m,n] = residual[m,n] + s[m] g[n] sum over k of x[m,k] w[n,k] */
    bool (*forward)(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M);
    /* dx[m,k] = scale[m] sum over n of q[m,n] w[n,k].  dx: act */
    bool (*input_gradient)(bb_device *dev, void *dx, bb_rows q, const bb_ternary *t, int64_t M);
    /* dw[n,k] (+)= sum over m of dy[m,n] x[m,k] */
    bool (*weight_gradient)(bb_device *dev, float *dw, bool add, bb_cuda_gradient dy, bb_rows x, const bb_ternary *t,
                            int64_t M);
    /* Bytes of scratch that a product of M rows, N outputs and K inputs takes; 0: none. */
    size_t (*scratch)(int64_t M, int64_t N, int64_t K);
} bb_cuda_gemm;

extern const bb_cuda_gemm bb_cuda_gemm_kernels, bb_cuda_gemm_library;

/* gemm_check.cu: chooses, and says so in text. BITBYTE_CUDA_GEMM=kernels keeps to these. */
void bb_cuda_gemm_choose(bb_device *dev, char *text, size_t size);

#endif
