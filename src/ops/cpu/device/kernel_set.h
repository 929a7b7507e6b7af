// SPDX-License-Identifier: MIT
/* What differs from one instruction set to another: a row of the selection table (kernels.c), of which an open device has its own
 * copy, bb_cpu.kernels. Nothing else in the backend asks what processor it runs on. */
#ifndef BB_OPS_CPU_KERNEL_SET_H
#define BB_OPS_CPU_KERNEL_SET_H

#include "core/cpu_features.h"
#include "ops/ops.h"

/* The variant of each kernel that the compiler vectorizes (vector/simd.h). */
typedef enum bb_simd { BB_SIMD_GENERIC = 1, BB_SIMD_AVX2, BB_SIMD_AVX512 } bb_simd;

/* The variant of attention's tiles (attention/attention_sets.h). */
typedef enum bb_attention_set {
    BB_ATTENTION_GENERIC = 1,
    BB_ATTENTION_AVX2,
    BB_ATTENTION_AVX512,
    BB_ATTENTION_AVX512_VNNI,
    BB_ATTENTION_AVX512_AMX
} bb_attention_set;

/* y = x in bf16, half to even, (n). */
typedef void bb_round_kernel(bb_bf16 *y, const float *x, int64_t n);

/* sums[r,n] = sum_k a[r,k] * b[n,k] for the 64 rows n of a panel of a ternary matrix (ternary.h), b = q + 1, over `blocks` blocks
 * of columns k. sums: (rows, 64); a: int8, rows a_stride bytes apart, zeros past K. */
typedef void bb_ternary_dot(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks,
                            const uint8_t *panel);

/* As linear_forward and linear_backward of bb_ops, and the latter's dw alone. */
typedef void bb_linear_forward_kernel(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t,
                                      int64_t M);
typedef void bb_linear_backward_kernel(bb_device *dev, bb_bf16 *dx, float *dw, bool add, const void *dy, bb_dtype dy_dtype,
                                       bb_rows x, const bb_ternary *t, int64_t M);
typedef void bb_weight_gradient_kernel(bb_device *dev, float *dw, bool add, const void *dy, bb_dtype dy_dtype, bb_rows x,
                                       const bb_ternary *t, int64_t M);

/* Independent dot products, `operations` a run (a multiply and an add are two); what the benchmark measures a peak with. */
typedef struct bb_peak_kernel {
    void (*run)(void);
    double operations;
} bb_peak_kernel;

struct bb_dot_set; /* dot.h */

typedef struct bb_cpu_kernels {
    bb_cpu_level level; /* the row's name, and what BITBYTE_CPU lowers it to; not to choose by */
    bb_simd simd;
    bb_attention_set attention;
    bb_round_kernel *round;
    bb_ternary_dot *ternary_dot;
    bb_ternary_dot *ternary_dot_dense; /* of a panel in the dense layout (ternary_dense.h); NULL where that does not pay */
    bool vbmi;                         /* six-bit codes of a KV cache are read in place by byte permutations */
    const struct bb_dot_set *dot;      /* tiles of products by instructions for dot products; NULL: none */
    bb_linear_forward_kernel
        *linear_forward; /* for more than BB_SMALL_BATCH_ROWS rows of int8 or bf16; NULL: by parts (linear.c) */
    bb_linear_backward_kernel *linear_backward;             /* NULL: by parts */
    bb_weight_gradient_kernel *weight_gradient_i8;          /* where x is int8 and linear_backward is by parts */
    const bb_peak_kernel *peak_f32, *peak_bf16, *peak_int8; /* NULL: it has no such instruction */
    int64_t forward_rows;                                   /* of bb_device */
    int onednn_isa; /* the most that oneDNN may use, dnnl_cpu_isa_t; BB_ONEDNN_ANY: whatever it finds */
} bb_cpu_kernels;

enum { BB_ONEDNN_ANY = -1 };

#endif
