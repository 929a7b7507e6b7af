// SPDX-License-Identifier: MIT
#include "model/attention.h"

#include "model/linear.h"

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

/* Of n sequences of `rows` rows: their query and key heads. */
static bb_rope rope_of(const bb_block_shape *s, int64_t n, int64_t rows) {
    return (bb_rope){.cos = s->rope_cos,
                     .sin = s->rope_sin,
                     .B = n,
                     .T = rows,
                     .heads = s->H + s->Hk,
                     .D = s->D,
                     .width = layout_of(s).width};
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

/* RoPE at each sequence's positions; then appends keys and values to the caches and attends over them. */
static void attend_cached(const bb_block_pass *pass, float *att, float *qkv) {
    bb_device *dev = pass->device;
    const bb_ops *ops = dev->ops;
    const bb_block_shape *s = pass->shape;
    qkv_layout row = layout_of(s);
    bb_kv_batch batch = {.sequences = pass->sequences,
                         .B = pass->sequence_count,
                         .H = s->H,
                         .layer = pass->layer,
                         .q_stride = row.width,
                         .kv_stride = row.width,
                         .o_stride = s->C};
    float *rows = qkv;
    for (int64_t b = 0; b < batch.B; b++) {
        const bb_kv_sequence *sequence = &batch.sequences[b];
        const bb_rope rope = rope_of(s, 1, sequence->rows);
        ops->rope_forward(dev, rows, NULL, sequence->length, &rope);
        rows += sequence->rows * row.width;
    }
    ops->kv_append(dev, &batch, qkv + row.k, qkv + row.v);
    ops->attention_cached(dev, att, qkv, &batch);
}

/* The same within the n sequences from b on, without caches. */
static void attend(const bb_block_pass *pass, float *att, float *qkv, int64_t b, int64_t n) {
    bb_device *dev = pass->device;
    const bb_ops *ops = dev->ops;
    const bb_block_saved *saved = pass->saved;
    const bb_block_shape *s = pass->shape;
    int64_t m = b * s->T;
    qkv_layout row = layout_of(s);
    bb_attention a = description_of(s);
    /* test s->training, not the pointers: evaluation in a training workspace must give the same bits as in any other */
    void *kept = s->training ? bb_rows_at(saved->att, ops->act_dtype, m, s->C) : NULL;
    float *lse = s->training ? saved->lse + m * s->H : NULL;
    a.B = n;
    const bb_rope rope = rope_of(s, n, s->T);
    ops->rope_forward(dev, qkv, bb_rows_at(saved->qkv, ops->act_dtype, m, row.width), 0, &rope);
    ops->attention_forward(dev, att, kept, lse, (bb_qkv){qkv, qkv + row.k, qkv + row.v}, &a);
}

/* Sequences b .. b+n-1 of the batch. */
static void forward_sequences(const bb_block_pass *pass, float *y, const float *x, int64_t b, int64_t n) {
    bb_device *dev = pass->device;
    const bb_ops *ops = dev->ops;
    const bb_block *block = pass->weights;
    const bb_block_saved *saved = pass->saved;
    const bb_block_shape *s = pass->shape;
    int64_t m = b * s->T, M = n * s->T, C = s->C;
    float *qkv = pass->scratch->wide, *att = pass->scratch->att;
    bb_rows in = bb_rows_from(saved->qkv_in, m, C), out = bb_rows_from(saved->o_in, m, C);

    ops->rmsnorm_forward(dev, in, saved->r1 + m, x + m * C, &(bb_norm){block->n1, s->norm_eps, M, C});
    bb_linear_forward(pass, bb_linear_qkv(block), qkv, NULL, in, M);
    if (pass->sequences)
        attend_cached(pass, att, qkv);
    else
        attend(pass, att, qkv, b, n);
    ops->act_quant(dev, out, att, M, C);
    bb_linear_forward(pass, bb_linear_o(block), y + m * C, x + m * C, out, M);
}

void bb_attention_block_forward(const bb_block_pass *pass, float *y, const float *x) {
    int64_t B = pass->shape->B, max_sequences = bb_block_sequences(pass->shape);
    for (int64_t b = 0; b < B; b += max_sequences) forward_sequences(pass, y, x, b, bb_min(B - b, max_sequences));
}

void bb_attention_block_backward(const bb_block_pass *pass, float *dx, const float *x) {
    bb_device *dev = pass->device;
    const bb_ops *ops = dev->ops;
    const bb_block *block = pass->weights;
    const bb_block_saved *saved = pass->saved;
    const bb_block_shape *s = pass->shape;
    int64_t M = s->B * s->T;
    qkv_layout row = layout_of(s);
    bb_attention a = description_of(s);
    void *d_qkv = pass->scratch->d_wide, *d_att = pass->scratch->d_narrow, *d_norm = pass->scratch->d_narrow;
    const bb_rope rope = rope_of(s, s->B, s->T);
    const bb_qkv qkv = {saved->qkv, act_at(dev, saved->qkv, row.k), act_at(dev, saved->qkv, row.v)};
    const bb_qkv_gradient d = {d_qkv, act_at(dev, d_qkv, row.k), act_at(dev, d_qkv, row.v)};

    bb_linear_backward(pass, bb_linear_o(block), d_att, dx, BB_F32, saved->o_in, M);
    ops->attention_backward(dev, d, d_att, qkv, saved->att, saved->lse, &a);
    ops->rope_backward(dev, d_qkv, &rope);
    bb_linear_backward(pass, bb_linear_qkv(block), d_norm, d_qkv, ops->act_dtype, saved->qkv_in, M);
    ops->rmsnorm_backward(dev, dx, block->dn1, d_norm, x, saved->r1, &(bb_norm){block->n1, s->norm_eps, M, s->C});
}
