// SPDX-License-Identifier: MIT
#include "model/attention.h"

/* The rows of qkv hold H query heads, then Hk key heads, then Hk value heads, D elements each. */
typedef struct qkv_layout {
    int64_t width, k, v; /* row length; where keys and values begin */
} qkv_layout;

static qkv_layout layout_of(const bb_block_shape *s) {
    return (qkv_layout){.width = (s->H + 2 * s->Hk) * s->D, .k = s->H * s->D, .v = (s->H + s->Hk) * s->D};
}

static void *act_at(const bb_device *dev, void *base, int64_t element) {
    return bb_rows_at(base, dev->ops->act_dtype, element, 1);
}

static bb_attention description_of(const bb_block_shape *s) {
    int64_t width = layout_of(s).width;
    return (bb_attention){.B = s->B,
                          .Tq = s->T,
                          .Tk = s->T,
                          .H = s->H,
                          .Hk = s->Hk,
                          .D = s->D,
                          .q_stride = width,
                          .kv_stride = width,
                          .kv_batch_stride = s->T * width,
                          .o_stride = s->C};
}

/* Sequences b .. b+n-1. */
static void forward_sequences(bb_device *dev, const bb_block *block, bb_block_saved *sv, const bb_block_scratch *scratch,
                              float *y, const float *x, const bb_block_shape *s, const bb_kv_view *kv, int64_t b, int64_t n) {
    const bb_ops *ops = dev->ops;
    int64_t m = b * s->T, M = n * s->T, C = s->C;
    qkv_layout row = layout_of(s);
    bb_attention a = description_of(s);
    float *qkv = scratch->wide, *att = scratch->att;
    bb_rows in = bb_rows_from(sv->a1, m, C), out = bb_rows_from(sv->a2, m, C);
    a.B = n;

    ops->rmsnorm_forward(dev, in, sv->r1 + m, x + m * C, block->n1, s->norm_eps, M, C);
    ops->linear_forward(dev, qkv, NULL, in, &block->qkv, M);
    ops->rope_forward(dev, qkv, bb_rows_at(sv->qkv, ops->act_dtype, m, row.width), s->rope_cos, s->rope_sin,
                      kv ? kv->length : 0, n, s->T, s->H + s->Hk, s->D, row.width);
    if (kv) {
        ops->kv_append(dev, &kv->kv, kv->length, qkv + row.k, qkv + row.v, row.width, M, s->Hk, s->D);
        a.Tk = kv->length + s->T;
        ops->attention_cached(dev, att, qkv, &kv->kv, &a);
    } else {
        /* an evaluation between steps of training is the same as any other */
        void *kept = s->training ? bb_rows_at(sv->att, ops->act_dtype, m, C) : NULL;
        ops->attention_forward(dev, att, kept, s->training ? sv->lse + m * s->H : NULL, qkv, qkv + row.k, qkv + row.v, &a);
    }
    ops->act_quant(dev, out, att, M, C);
    ops->linear_forward(dev, y + m * C, x + m * C, out, &block->o, M);
}

void bb_attention_block_forward(bb_device *dev, const bb_block *block, bb_block_saved *saved, const bb_block_scratch *scratch,
                                float *y, const float *x, const bb_block_shape *s, const bb_kv_view *kv) {
    int64_t most = bb_block_sequences(s);
    for (int64_t b = 0; b < s->B; b += most)
        forward_sequences(dev, block, saved, scratch, y, x, s, kv, b, s->B - b < most ? s->B - b : most);
}

void bb_attention_block_backward(bb_device *dev, const bb_block *block, const bb_block_saved *sv,
                                 const bb_block_scratch *scratch, float *dx, const float *x, const bb_block_shape *s) {
    const bb_ops *ops = dev->ops;
    int64_t M = s->B * s->T;
    qkv_layout row = layout_of(s);
    bb_attention a = description_of(s);
    void *d_qkv = scratch->d_wide, *d_att = scratch->d_narrow, *d_norm = scratch->d_narrow;

    ops->linear_backward(dev, d_att, block->dw_o, s->add_gradients, dx, BB_F32, sv->a2, &block->o, M);
    ops->attention_backward(dev, d_qkv, act_at(dev, d_qkv, row.k), act_at(dev, d_qkv, row.v), d_att, sv->qkv,
                            act_at(dev, sv->qkv, row.k), act_at(dev, sv->qkv, row.v), sv->att, sv->lse, &a);
    ops->rope_backward(dev, d_qkv, s->rope_cos, s->rope_sin, s->B, s->T, s->H + s->Hk, s->D, row.width);
    ops->linear_backward(dev, d_norm, block->dw_qkv, s->add_gradients, d_qkv, ops->act_dtype, sv->a1, &block->qkv, M);
    ops->rmsnorm_backward(dev, dx, block->dn1, d_norm, x, block->n1, sv->r1, M, s->C);
}
