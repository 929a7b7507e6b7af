// SPDX-License-Identifier: MIT
/* Filling the cache of keys and values. */
#include "ops/cpu/attention/kv_int6.h"
#include "ops/cpu/device/entries.h"
#include "ops/cpu/vector/simd.h"

/* One row of one head: codes of the D elements from -limit to limit. */
BB_SIMD_INLINE void append_row_body(int8_t *codes, float *scale, const float *x, int64_t D, float limit) {
    *scale = bb_simd_quantize_to(codes, x, D, limit);
}
BB_SIMD_VARIANTS(append_row, (int8_t * codes, float *scale, const float *x, int64_t D, float limit),
                 (codes, scale, x, D, limit))

/* Row `row` of a run in six bits. codes: (D rounded up to 64) */
static void put_key(uint8_t *run, int64_t row, const int8_t *codes, int64_t row_bytes) {
    uint8_t *block = run + row * row_bytes;
    for (int64_t i = 0; i < row_bytes; i += BB_KV_BLOCK, block += BB_KV_BLOCK, codes += 64) {
        bb_int6_put(block, 0, codes);
        bb_int6_put(block, 1, codes + 16);
        bb_int6_put(block, 2, codes + 32);
        bb_int6_put(block, 3, codes + 48);
    }
}

static void put_value(uint8_t *run, int64_t row, const int8_t *codes, int64_t row_bytes) {
    uint8_t *block = run + row / BB_KV_ROWS * BB_KV_ROWS * row_bytes;
    for (int64_t i = 0; i < BB_KV_ROWS * row_bytes; i += BB_KV_BLOCK, block += BB_KV_BLOCK, codes += 16) {
        switch (row % BB_KV_ROWS) {
        case 0: bb_int6_put(block, 0, codes); break;
        case 1: bb_int6_put(block, 1, codes); break;
        case 2: bb_int6_put(block, 2, codes); break;
        default: bb_int6_put(block, 3, codes); break;
        }
    }
}

typedef struct appending {
    append_row_kernel *append_row;
    const bb_kv *kv;
    int64_t Hk, D;
    int8_t *codes; /* (D rounded up to 64), of a thread */
} appending;

/* One position of the keys, or of the values. x: (Hk*D) */
static void append(const appending *a, bool values, int64_t position, const float *x) {
    const bb_kv *kv = a->kv;
    int64_t Hk = a->Hk, D = a->D, begin = bb_kv_run_begin(kv, position), row_bytes = bb_kv_row_bytes(kv->type, D);
    uint8_t *run = (uint8_t *)(values ? kv->v : kv->k) + begin;
    float *scales = (float *)(void *)((char *)(values ? kv->v_scale : kv->k_scale) + begin);
    for (int64_t h = 0; h < Hk; h++) {
        int64_t row = bb_kv_row(kv, h, position);
        if (kv->type == BB_KV_INT8) {
            int8_t *codes = (int8_t *)run + row * row_bytes;
            a->append_row(codes, scales + row, x + h * D, D, 127.0f);
            memset(codes + D, 0, (size_t)(row_bytes - D));
        } else {
            a->append_row(a->codes, scales + row, x + h * D, D, (float)BB_INT6_MOST);
            (values ? put_value : put_key)(run, row, a->codes, row_bytes);
        }
    }
}

/* Positions group .. group + BB_KV_ROWS - 1, as far as they are among first .. first+n-1. */
static void append_group(bb_device *dev, const bb_kv *kv, int64_t group, int64_t first, const float *k, const float *v,
                         int64_t stride, int64_t n, int64_t Hk, int64_t D) {
    int64_t begin = group > first ? group : first, end = group + BB_KV_ROWS < first + n ? group + BB_KV_ROWS : first + n;
    size_t codes_bytes = (size_t)((D + 63) / 64 * 64);
    appending a = {append_row_for(bb_cpu_of(dev)->kernels.simd), kv, Hk, D, bb_cpu_scratch(dev, codes_bytes)};
    if (!a.codes) return;
    memset(a.codes, 0, codes_bytes);
    for (int64_t position = begin; position < end; position++) {
        append(&a, false, position, k + (position - first) * stride);
        append(&a, true, position, v + (position - first) * stride);
    }
}

void bb_cpu_kv_append(bb_device *dev, const bb_kv *kv, int64_t first, const float *k, const float *v, int64_t stride, int64_t n,
                      int64_t Hk, int64_t D) {
    if (kv->type == BB_KV_F32) {
        size_t bytes = (size_t)(Hk * D) * sizeof *k;
        for (int64_t t = 0; t < n; t++) {
            memcpy((float *)kv->k + (first + t) * Hk * D, k + t * stride, bytes);
            memcpy((float *)kv->v + (first + t) * Hk * D, v + t * stride, bytes);
        }
        return;
    }
    /* positions whose values share bytes are one thread's */
    int64_t lead = first % BB_KV_ROWS, elements = n <= BB_FEW_ROWS ? 0 : n * Hk * D;
    BB_SIMD_FOR(dev, elements, m, n + lead, BB_KV_ROWS, append_group(dev, kv, first - lead + m, first, k, v, stride, n, Hk, D))
}
