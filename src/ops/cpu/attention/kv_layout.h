// SPDX-License-Identifier: MIT
/* The layout of a cache of keys and values in this backend.
 *
 * Positions are stored in runs of up to BB_KV_MAX_RUN. The first runs of all layers come first, then all second runs, so that
 * memory is touched only as the cache fills. In a run a layer has k, v, k_scale and v_scale; F32 has one run and no scales.
 *
 * F32: k is (Hk, run / 16, D, 16): element d of 16 positions at a time, as products read it. v is (Hk, run, D).
 * INT8: k is codes (Hk, run, W), W being D rounded up to 16, zeros past D. v is (Hk, run/4, W, 4): each column of four rows.
 * INT6: four codes, each biased by 32, make a cell of three bytes, the first code lowest: bits 0-5 of the first byte. Sixteen
 * cells make a block of 48 bytes: all first bytes, all second bytes, all third bytes. k is (Hk, run, W/64) blocks, W being D
 * rounded up to 64: cell c has columns c, c+16, c+32 and c+48 of a row. v is (Hk, run/4, W/16) blocks: cell c has column c of
 * four rows, which are read together. Columns past D are zeros. The layout is made for `vpmultishiftqb`
 * (forward_int6_kernels.c). */
#ifndef BB_OPS_CPU_KV_LAYOUT_H
#define BB_OPS_CPU_KV_LAYOUT_H

#include "core/arena.h"
#include "core/math.h"
#include "ops/ops.h"

/* BB_KV_ROWS: positions whose values share bytes. If there are several runs, their length is a multiple of BB_KV_RUN. */
enum { BB_KV_MAX_RUN = 2048, BB_KV_RUN = 512, BB_KV_ROWS = 4, BB_KV_PANEL = 16, BB_KV_BLOCK = 48 };

/* One layer of a cache. */
typedef struct bb_kv_layer {
    void *k, *v;              /* in the first run */
    float *k_scale, *v_scale; /* (Hk, run); NULL for F32 */
    bb_kv_type type;
    int64_t run, run_bytes; /* positions in a run; bytes from one run to the next */
} bb_kv_layer;

static inline int64_t bb_kv_width(int64_t D) { return bb_round_up(D, 16); }
/* Bytes of a row of D codes, in k or v. */
static inline int64_t bb_kv_row_bytes(bb_kv_type type, int64_t D) {
    return type == BB_KV_INT6 ? bb_ceil_div(D, 64) * BB_KV_BLOCK : bb_kv_width(D);
}

/* kv->data may be NULL if only run and run_bytes are needed. */
static inline bb_kv_layer bb_kv_layer_of(const bb_kv *kv, int layer) {
    bool codes = kv->type != BB_KV_F32;
    int64_t runs = codes ? bb_ceil_div(kv->capacity, BB_KV_MAX_RUN) : 1;
    int64_t unit = runs > 1 ? BB_KV_RUN : codes ? BB_KV_ROWS : BB_KV_PANEL;
    int64_t run = bb_ceil_div(kv->capacity, runs * unit) * unit, rows = run * kv->Hk;
    int64_t row_bytes = codes ? bb_kv_row_bytes(kv->type, kv->D) : kv->D * (int64_t)sizeof(float);
    size_t matrix_bytes = bb_align_up((size_t)(rows * row_bytes));
    size_t scale_bytes = codes ? bb_align_up((size_t)rows * sizeof(float)) : 0;
    size_t layer_bytes = 2 * (matrix_bytes + scale_bytes);
    bb_kv_layer out = {.type = kv->type, .run = run, .run_bytes = (int64_t)layer_bytes * kv->layers};
#ifndef __clang_analyzer__ /* it would follow the NULLs of measuring into caches in use */
    if (!kv->data) return out;
#endif
    char *memory = (char *)kv->data + layer_bytes * (size_t)layer;
    out.k = memory;
    out.v = memory + matrix_bytes;
    if (codes) {
        out.k_scale = (float *)(void *)(memory + 2 * matrix_bytes);
        out.v_scale = (float *)(void *)(memory + 2 * matrix_bytes + scale_bytes);
    }
    return out;
}

/* The panels of the keys of one head, and its values. F32 only. */
static inline float *bb_kv_panels(const bb_kv_layer *kv, int64_t h, int64_t D) { return (float *)kv->k + h * kv->run * D; }

static inline float *bb_kv_values(const bb_kv_layer *kv, int64_t h, int64_t D) { return (float *)kv->v + h * kv->run * D; }

/* Where a position's run begins, in bytes from the pointers of bb_kv_layer, and a row's index in its run. Not for F32. */
static inline int64_t bb_kv_run_begin(const bb_kv_layer *kv, int64_t position) { return position / kv->run * kv->run_bytes; }
static inline int64_t bb_kv_row(const bb_kv_layer *kv, int64_t h, int64_t position) { return h * kv->run + position % kv->run; }

#endif
