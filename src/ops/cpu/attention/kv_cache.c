// SPDX-License-Identifier: MIT
/* Writes and reads a cache of keys and values; kv_layout.h describes its layout. */
#include "ops/cpu/attention/kv_int6.h"
#include "ops/cpu/attention/kv_layout.h"
#include "ops/cpu/device/entries.h"
#include "ops/cpu/vector/simd.h"

/* One row of one head: codes of the D elements from -limit to limit. */
BB_SIMD_INLINE void append_row_body(int8_t *codes, float *scale, const float *x, int64_t D, float limit) {
    *scale = bb_simd_quantize_to_limit(codes, x, D, limit);
}
BB_SIMD_VARIANTS(append_row, (int8_t * codes, float *scale, const float *x, int64_t D, float limit),
                 (codes, scale, x, D, limit))

/* Stores row `row` of a run in six bits. codes: (D rounded up to 64) */
static void store_key(uint8_t *run, int64_t row, const int8_t *codes, int64_t row_bytes) {
    uint8_t *block = run + row * row_bytes;
    for (int64_t i = 0; i < row_bytes; i += BB_KV_BLOCK, block += BB_KV_BLOCK, codes += 64) {
        bb_int6_store(block, 0, codes);
        bb_int6_store(block, 1, codes + 16);
        bb_int6_store(block, 2, codes + 32);
        bb_int6_store(block, 3, codes + 48);
    }
}

static void store_value(uint8_t *run, int64_t row, const int8_t *codes, int64_t row_bytes) {
    uint8_t *block = run + row / BB_KV_ROWS * BB_KV_ROWS * row_bytes;
    for (int64_t i = 0; i < BB_KV_ROWS * row_bytes; i += BB_KV_BLOCK, block += BB_KV_BLOCK, codes += 16) {
        switch (row % BB_KV_ROWS) {
        case 0: bb_int6_store(block, 0, codes); break;
        case 1: bb_int6_store(block, 1, codes); break;
        case 2: bb_int6_store(block, 2, codes); break;
        default: bb_int6_store(block, 3, codes); break;
        }
    }
}

size_t bb_cpu_kv_bytes(bb_device *dev, const bb_kv *kv) {
    (void)dev;
    bb_kv shape = *kv;
    shape.data = NULL;
    bb_kv_layer layer = bb_kv_layer_of(&shape, 0);
    return (size_t)(layer.run_bytes * bb_ceil_div(kv->capacity, layer.run));
}

typedef struct append_work {
    bb_device *dev;
    const bb_kv_batch *batch;
    const float *k, *v;
    append_row_kernel *append_row;
} append_work;

/* One position of the keys, or of the values, as codes. x: (Hk*D); codes: (D rounded up to 64), zeros past D */
static void append_codes(const append_work *w, const bb_kv *kv, const bb_kv_layer *to, bool values, int64_t position,
                         const float *x, int8_t *codes) {
    int64_t D = kv->D, begin = bb_kv_run_begin(to, position), row_bytes = bb_kv_row_bytes(kv->type, D);
    uint8_t *run = (uint8_t *)(values ? to->v : to->k) + begin;
    float *scales = (float *)(void *)((char *)(values ? to->v_scale : to->k_scale) + begin);
    for (int64_t h = 0; h < kv->Hk; h++) {
        int64_t row = bb_kv_row(to, h, position);
        if (kv->type == BB_KV_INT8) {
            int8_t *row_codes = (int8_t *)run + row * row_bytes;
            w->append_row(row_codes, scales + row, x + h * D, D, 127.0f);
            memset(row_codes + D, 0, (size_t)(row_bytes - D));
        } else {
            w->append_row(codes, scales + row, x + h * D, D, (float)BB_INT6_MAX);
            (values ? store_value : store_key)(run, row, codes, row_bytes);
        }
    }
}

/* Rows from .. to-1 of a sequence whose first row in the batch is `first`. */
static void append_rows(const append_work *w, const bb_kv_sequence *s, int64_t first, int64_t from, int64_t to) {
    const bb_kv *kv = s->kv;
    bb_kv_layer layer = bb_kv_layer_of(kv, w->batch->layer);
    int64_t stride = w->batch->kv_stride, width = kv->Hk * kv->D;
    const float *k = w->k + first * stride, *v = w->v + first * stride;
    if (kv->type == BB_KV_F32) {
        for (int64_t t = from; t < to; t++) {
            memcpy((float *)layer.k + (s->length + t) * width, k + t * stride, (size_t)width * sizeof *k);
            memcpy((float *)layer.v + (s->length + t) * width, v + t * stride, (size_t)width * sizeof *v);
        }
        return;
    }
    size_t codes_forward_bytes = (size_t)bb_round_up(kv->D, 64);
    int8_t *codes = bb_cpu_scratch(w->dev, codes_forward_bytes);
    if (!codes) return;
    memset(codes, 0, codes_forward_bytes);
    for (int64_t t = from; t < to; t++) {
        append_codes(w, kv, &layer, false, s->length + t, k + t * stride, codes);
        append_codes(w, kv, &layer, true, s->length + t, v + t * stride, codes);
    }
}

/* The number of groups of BB_KV_ROWS positions that contain a sequence's rows. Values in a group share bytes, so one thread
 * writes a whole group. */
static int64_t groups_of(const bb_kv_sequence *s) { return bb_ceil_div(s->length % BB_KV_ROWS + s->rows, BB_KV_ROWS); }

/* Group `group`, counted through all sequences. */
static void append_group(const append_work *w, int64_t group) {
    const bb_kv_sequence *s = w->batch->sequences;
    int64_t first = 0;
    for (; group >= groups_of(s); s++) {
        group -= groups_of(s);
        first += s->rows;
    }
    int64_t from = group * BB_KV_ROWS - s->length % BB_KV_ROWS;
    append_rows(w, s, first, bb_max(from, 0), bb_min(from + BB_KV_ROWS, s->rows));
}

void bb_cpu_kv_append(bb_device *dev, const bb_kv_batch *batch, const float *k, const float *v) {
    const append_work w = {dev, batch, k, v, append_row_for(bb_cpu_of(dev)->kernels.simd)};
    int64_t groups = 0, rows = 0;
    for (int64_t b = 0; b < batch->B; b++) {
        groups += groups_of(&batch->sequences[b]);
        rows += batch->sequences[b].rows;
    }
    const bb_kv *kv = batch->sequences[0].kv;
    int64_t elements = rows <= BB_SMALL_BATCH_ROWS ? 0 : rows * kv->Hk * kv->D;
    BB_SIMD_FOR(dev, elements, m, groups * BB_KV_ROWS, BB_KV_ROWS, append_group(&w, m / BB_KV_ROWS))
}

/* Positions first .. first+n-1 of one matrix, which lie in one run of each cache. n is a multiple of BB_KV_ROWS, since values in
 * a group of that many share bytes. */
static void copy_rows(const bb_kv *kv, const bb_kv_layer *to, const bb_kv_layer *from, bool values, int64_t first, int64_t n) {
    int64_t row_bytes = bb_kv_row_bytes(kv->type, kv->D);
    char *codes = (char *)(values ? to->v : to->k) + bb_kv_run_begin(to, first);
    char *scales = (char *)(values ? to->v_scale : to->k_scale) + bb_kv_run_begin(to, first);
    const char *from_codes = (const char *)(values ? from->v : from->k) + bb_kv_run_begin(from, first);
    const char *from_scales = (const char *)(values ? from->v_scale : from->k_scale) + bb_kv_run_begin(from, first);
    for (int64_t h = 0; h < kv->Hk; h++) {
        int64_t row = bb_kv_row(to, h, first), from_row = bb_kv_row(from, h, first);
        memcpy(codes + row * row_bytes, from_codes + from_row * row_bytes, (size_t)(n * row_bytes));
        memcpy(scales + row * (int64_t)sizeof(float), from_scales + from_row * (int64_t)sizeof(float),
               (size_t)n * sizeof(float));
    }
}

void bb_cpu_kv_copy(bb_device *dev, const bb_kv *to, const bb_kv *from, int64_t n) {
    (void)dev;
    for (int layer = 0; layer < from->layers; layer++) {
        bb_kv_layer a = bb_kv_layer_of(to, layer), b = bb_kv_layer_of(from, layer);
        if (from->type == BB_KV_F32) {
            size_t bytes = (size_t)(n * from->Hk * from->D) * sizeof(float);
            memcpy(a.k, b.k, bytes);
            memcpy(a.v, b.v, bytes);
            continue;
        }
        for (int64_t at = 0, rows; at < n && a.k_scale && a.v_scale; at += rows) {
            int64_t left = bb_min(a.run - at % a.run, b.run - at % b.run);
            rows = bb_min(bb_round_up(n - at, BB_KV_ROWS), left); /* runs hold whole groups */
            copy_rows(from, &a, &b, false, at, rows);
            copy_rows(from, &a, &b, true, at, rows);
        }
    }
}

/* The D values of a row, given its run and its index in the run. */
static void unpack_row(float *out, const bb_kv *kv, bool values, const uint8_t *run, int64_t row, float scale) {
    int64_t D = kv->D, row_bytes = bb_kv_row_bytes(kv->type, D);
    for (int64_t d = 0; d < D; d++) {
        int8_t codes[64];
        if (kv->type == BB_KV_INT8) {
            out[d] = scale * (float)((const int8_t *)run)[row * row_bytes + d];
        } else if (values) {
            bb_int6_load(codes, 16, 4, run + row / BB_KV_ROWS * BB_KV_ROWS * row_bytes + d / 16 * BB_KV_BLOCK);
            out[d] = scale * (float)codes[row % BB_KV_ROWS * 16 + d % 16];
        } else {
            bb_int6_load(codes, 16, 4, run + row * row_bytes + d / 64 * BB_KV_BLOCK);
            out[d] = scale * (float)codes[d % 64];
        }
    }
}

void bb_cpu_kv_unpack(bb_device *dev, float *k, float *v, const bb_kv *kv, int layer, int64_t first, int64_t n) {
    (void)dev;
    bb_kv_layer from = bb_kv_layer_of(kv, layer);
    int64_t D = kv->D, width = kv->Hk * D;
    if (kv->type == BB_KV_F32) {
        memcpy(k, (float *)from.k + first * width, (size_t)(n * width) * sizeof *k);
        memcpy(v, (float *)from.v + first * width, (size_t)(n * width) * sizeof *v);
        return;
    }
    for (int64_t i = 0; i < n * kv->Hk; i++) {
        int64_t position = first + i / kv->Hk, begin = bb_kv_run_begin(&from, position);
        int64_t row = bb_kv_row(&from, i % kv->Hk, position);
        float k_scale = ((const float *)(const void *)((const char *)from.k_scale + begin))[row];
        float v_scale = ((const float *)(const void *)((const char *)from.v_scale + begin))[row];
        unpack_row(k + i * D, kv, false, (const uint8_t *)from.k + begin, row, k_scale);
        unpack_row(v + i * D, kv, true, (const uint8_t *)from.v + begin, row, v_scale);
    }
}
