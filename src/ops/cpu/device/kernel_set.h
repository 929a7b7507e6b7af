// SPDX-License-Identifier: MIT
/* What differs between instruction sets: a row of the selection table (kernels.c). An open device has its own, complete one:
 * bb_cpu.kernels. Nothing else in the backend asks what processor it runs on. */
#ifndef BB_OPS_CPU_KERNEL_SET_H
#define BB_OPS_CPU_KERNEL_SET_H

#include "core/cpu_features.h"
#include "ops/ops.h"

/* sums[r,n] = sum_k a[r,k] * b[n,k] for the 64 rows n of a panel of a ternary matrix (ternary.h), b = q + 1, over `blocks`
 * blocks of columns k. sums: (rows, 64); a: int8, rows a_stride bytes apart, zeros past K. */
typedef void bb_ternary_dot(int32_t *sums, const int8_t *a, int64_t a_stride, int64_t rows, int64_t blocks,
                            const uint8_t *panel);

/* dw (+)= sum_m dy[m,n] * (s[m] * x.q[m,k]), as linear_backward of bb_ops. */
typedef struct bb_weight_gradient {
    float *dw;
    bool add;
    const void *dy;
    bb_dtype dy_dtype;
    bb_rows x;
    const bb_ternary *t;
    int64_t M;
} bb_weight_gradient;

typedef void bb_weight_gradient_kernel(bb_device *dev, const bb_weight_gradient *w);

/* Independent dot products, `operations` per run (a multiply and an add count as two), to measure a peak. */
typedef struct bb_peak_kernel {
    void (*run)(void);
    double operations;
} bb_peak_kernel;

struct bb_elementwise_set; /* elementwise/elementwise_set.h */
struct bb_ternary_set;     /* linear/ternary_set.h */
struct bb_head_set;        /* linear/head_set.h */
struct bb_f32_set;         /* attention/forward_set.h */
struct bb_codes_set;
struct bb_training_set; /* attention/training_set.h */
struct bb_backward_set; /* attention/backward_set.h */
struct bb_dot_set;      /* linear/dot.h */
struct bb_dot_operands;
struct bb_dot_weight;
struct bb_bf16_set; /* linear/dot_bf16.h */
struct bb_bf16_operands;
struct bb_optimizer_set; /* optimizer/optimizer_set.h */
struct bb_muon_set;      /* optimizer/muon_set.h */
struct bb_muon_blocks;

typedef struct bb_cpu_kernels {
    unsigned features; /* in the table: what the row's kernels require; of a device: what it may use. Do not select by it */
    int onednn_isa;    /* the highest instruction set oneDNN may use (dnnl_cpu_isa_t); BB_ONEDNN_ANY: no limit */
    const struct bb_f32_set *attention_f32;           /* attention over f32 */
    const struct bb_codes_set *attention_codes;       /* over caches of codes */
    const struct bb_codes_set *attention_int6;        /* for its unit of six-bit codes; NULL: attention_codes */
    const struct bb_training_set *attention_training; /* where a backward pass follows; NULL: attention_f32 */
    const struct bb_backward_set *attention_backward;
    const struct bb_elementwise_set *elementwise;
    const struct bb_ternary_set *ternary;
    const struct bb_head_set *head;
    bb_ternary_dot *ternary_dot;
    bb_ternary_dot *ternary_dot_dense; /* for panels in the dense layout (ternary_dense.h); NULL if that does not pay */
    void (*ternary_expand_dense)(uint8_t *k_steps, const uint8_t *dense, int64_t blocks); /* with it */
    const struct bb_dot_set *dot;                  /* int8 products of more than BB_SMALL_BATCH_ROWS rows: forward and dx */
    const struct bb_dot_operands *dot_operands;    /* what prepares them */
    const struct bb_dot_weight *dot_weight;        /* for dW in int8; NULL: no instruction that gains by it */
    const struct bb_bf16_set *bf16;                /* products in bf16; NULL: no such instruction */
    const struct bb_bf16_operands *bf16_operands;  /* with bf16 */
    bb_weight_gradient_kernel *weight_gradient_i8; /* dW, if x is int8 */
    const struct bb_optimizer_set *optimizer;
    const struct bb_muon_set *muon;
    const struct bb_muon_blocks *muon_blocks;               /* in the elements of muon */
    const bb_peak_kernel *peak_f32, *peak_bf16, *peak_int8; /* NULL: no such instruction */
    int64_t forward_rows;                                   /* of bb_device */
} bb_cpu_kernels;

enum { BB_ONEDNN_ANY = -1 };

#endif
