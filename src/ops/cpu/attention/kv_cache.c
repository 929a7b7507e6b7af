// SPDX-License-Identifier: MIT
/* Writes and reads a cache of keys and values; kv_layout.h describes its layout. */
#include "ops/cpu/attention/kv_int6.h"
#include "ops/cpu/attention/kv_layout.h"
#include "ops/cpu/device/entries.h"
#include "ops/cpu/elementwise/elementwise_set.h"
#include "ops/cpu/vector/simd.h"

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
    const bb_elementwise_set *elementwise;
} append_work;

/* `count` positions of a group of BB_KV_ROWS, from `position` on. */
typedef struct append_group {
    int64_t position, count;
    const float *x; /* (count, Hk*D), rows `stride` elements apart */
    int64_t stride;
} append_group;

/* Codes of one row in bytes; column d is `apart` bytes after column d-1. */
static void spread_codes(uint8_t *to, const int8_t *codes, int64_t n, int64_t apart) {
    for (int64_t d = 0; d < n; d++) to[d * apart] = (uint8_t)codes[d];
}

/* The four rows of a whole group, column by column. */
static void interleave_codes(uint8_t *restrict to, const int8_t *restrict codes, int64_t n) {
    for (int64_t d = 0; d < n; d++)
        for (int i = 0; i < BB_KV_ROWS; i++) to[BB_KV_ROWS * d + i] = (uint8_t)codes[i * n + d];
}

/* The keys, or the values, as codes. codes: (BB_KV_ROWS, D rounded up to 64), zeros past D */
static void append_codes(const append_work *w, const bb_kv *kv, const bb_kv_layer *to, bool values, const append_group *g,
                         int8_t *codes) {
    int64_t D = kv->D, begin = bb_kv_run_begin(to, g->position), row_bytes = bb_kv_row_bytes(kv->type, D);
    uint8_t *run = (uint8_t *)(values ? to->v : to->k) + begin;
    float *scales = (float *)(void *)((char *)(values ? to->v_scale : to->k_scale) + begin);
    bool int8 = kv->type == BB_KV_INT8, whole = int8 && values && g->count == BB_KV_ROWS;
    float limit = int8 ? 127.0f : (float)BB_INT6_MAX;
    for (int64_t h = 0; h < kv->Hk; h++) {
        int64_t row = bb_kv_row(to, h, g->position), width = bb_kv_width(D);
        uint8_t *group = run + row / BB_KV_ROWS * BB_KV_ROWS * row_bytes;
        for (int64_t i = 0; i < g->count; i++) {
            int8_t *row_codes = codes + (whole ? i * width : 0);
            scales[row + i] = w->elementwise->quantize_to_limit(row_codes, g->x + i * g->stride + h * D, D, limit);
            if (whole) memset(row_codes + D, 0, (size_t)(width - D)); /* after the last row, too */
            if (!int8)
                (values ? store_value : store_key)(run, row + i, row_codes, row_bytes);
            else if (!values)
                memcpy(run + (row + i) * row_bytes, row_codes, (size_t)row_bytes);
            else if (!whole)
                spread_codes(group + (row + i) % BB_KV_ROWS, row_codes, width, BB_KV_ROWS);
        }
        if (whole) interleave_codes(group, codes, width);
    }
}

/* Keys in f32. */
static void append_panel(const bb_kv *kv, const bb_kv_layer *to, const append_group *g) {
    int64_t D = kv->D, stride = g->stride;
    for (int64_t h = 0; h < kv->Hk; h++) {
        float *panel = bb_kv_panels(to, h, D) + g->position / BB_KV_PANEL * BB_KV_PANEL * D + g->position % BB_KV_PANEL;
        const float *x = g->x + h * D;
        if (g->count == BB_KV_ROWS)
            for (int64_t d = 0; d < D; d++)
                for (int i = 0; i < BB_KV_ROWS; i++) panel[d * BB_KV_PANEL + i] = x[i * stride + d];
        else
            for (int64_t i = 0; i < g->count; i++)
                for (int64_t d = 0; d < D; d++) panel[d * BB_KV_PANEL + i] = x[i * stride + d];
    }
}

/* Rows from .. to-1, all in one group, of a sequence whose first row in the batch is `first`. */
static void append_rows(const append_work *w, const bb_kv_sequence *s, int64_t first, int64_t from, int64_t to) {
    const bb_kv *kv = s->kv;
    bb_kv_layer layer = bb_kv_layer_of(kv, w->batch->layer);
    int64_t stride = w->batch->kv_stride, at = (first + from) * stride;
    const append_group keys = {s->length + from, to - from, w->k + at, stride},
                       values = {keys.position, keys.count, w->v + at, stride};
    if (kv->type == BB_KV_F32) {
        append_panel(kv, &layer, &keys);
        for (int64_t i = 0; i < values.count; i++)
            for (int64_t h = 0; h < kv->Hk; h++)
                memcpy(bb_kv_values(&layer, h, kv->D) + (values.position + i) * kv->D, values.x + i * stride + h * kv->D,
                       (size_t)kv->D * sizeof(float));
        return;
    }
    size_t codes_bytes = BB_KV_ROWS * (size_t)bb_round_up(kv->D, 64);
    int8_t *codes = bb_cpu_scratch(w->dev, codes_bytes);
    if (!codes) return;
    memset(codes, 0, codes_bytes);
    append_codes(w, kv, &layer, false, &keys, codes);
    memset(codes, 0, codes_bytes);
    append_codes(w, kv, &layer, true, &values, codes);
}

/* The number of groups of BB_KV_ROWS positions that contain a sequence's rows. Values in a group share bytes, so one thread
 * writes a whole group. */
static int64_t groups_of(const bb_kv_sequence *s) { return bb_ceil_div(s->length % BB_KV_ROWS + s->rows, BB_KV_ROWS); }

/* Group `group`, counted through all sequences. */
static void append_group_at(const append_work *w, int64_t group) {
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
    const append_work w = {dev, batch, k, v, bb_cpu_of(dev)->kernels.elementwise};
    int64_t groups = 0, rows = 0;
    for (int64_t b = 0; b < batch->B; b++) {
        groups += groups_of(&batch->sequences[b]);
        rows += batch->sequences[b].rows;
    }
    const bb_kv *kv = batch->sequences[0].kv;
    int64_t elements = rows <= BB_SMALL_BATCH_ROWS ? 0 : rows * kv->Hk * kv->D;
    BB_SIMD_FOR(dev, elements, m, groups * BB_KV_ROWS, BB_KV_ROWS, append_group_at(&w, m / BB_KV_ROWS))
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
            int64_t D = from->D, panels = bb_round_up(n, BB_KV_PANEL) * D;
            for (int64_t h = 0; h < from->Hk; h++) {
                memcpy(bb_kv_panels(&a, h, D), bb_kv_panels(&b, h, D), (size_t)panels * sizeof(float));
                memcpy(bb_kv_values(&a, h, D), bb_kv_values(&b, h, D), (size_t)(n * D) * sizeof(float));
            }
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
    int64_t D = kv->D, row_bytes = bb_kv_row_bytes(kv->type, D), place = row % BB_KV_ROWS;
    const uint8_t *group = run + (row - place) * row_bytes;
    int8_t codes[64];
    for (int64_t d = 0; d < D; d++) {
        if (kv->type == BB_KV_INT8) {
            out[d] = scale * (float)(int8_t)(values ? group[d * BB_KV_ROWS + place] : run[row * row_bytes + d]);
        } else if (values) {
            bb_int6_load_quads(codes, group + d / 16 * BB_KV_BLOCK);
            out[d] = scale * (float)codes[d % 16 * BB_KV_ROWS + place];
        } else {
            bb_int6_load(codes, 4, run + row * row_bytes + d / 64 * BB_KV_BLOCK);
            out[d] = scale * (float)codes[d % 64];
        }
    }
}

void bb_cpu_kv_unpack(bb_device *dev, float *k, float *v, const bb_kv *kv, int layer, int64_t first, int64_t n) {
    (void)dev;
    bb_kv_layer from = bb_kv_layer_of(kv, layer);
    int64_t D = kv->D;
    for (int64_t i = 0; i < n * kv->Hk; i++) {
        int64_t position = first + i / kv->Hk, h = i % kv->Hk;
        if (kv->type == BB_KV_F32) {
            const float *panel = bb_kv_panels(&from, h, D) + position / BB_KV_PANEL * BB_KV_PANEL * D + position % BB_KV_PANEL;
            for (int64_t d = 0; d < D; d++) k[i * D + d] = panel[d * BB_KV_PANEL];
            memcpy(v + i * D, bb_kv_values(&from, h, D) + position * D, (size_t)D * sizeof *v);
            continue;
        }
        int64_t begin = bb_kv_run_begin(&from, position), row = bb_kv_row(&from, h, position);
        float k_scale = ((const float *)(const void *)((const char *)from.k_scale + begin))[row];
        float v_scale = ((const float *)(const void *)((const char *)from.v_scale + begin))[row];
        unpack_row(k + i * D, kv, false, (const uint8_t *)from.k + begin, row, k_scale);
        unpack_row(v + i * D, kv, true, (const uint8_t *)from.v + begin, row, v_scale);
    }
}
