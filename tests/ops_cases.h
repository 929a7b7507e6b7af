// SPDX-License-Identifier: MIT
/* Shared by the tests of operations: device memory for the duration of one case, and data that is the same for every device:
 * drawn from Philox and representable in bf16 and in fp16, so that every backend's activations hold it exactly. */
#ifndef BB_TESTS_OPS_CASES_H
#define BB_TESTS_OPS_CASES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

#include "core/rng.h"
#include "ops/ops.h"

enum { OPS_MAX_HELD = 96 };

typedef struct ops_session {
    bb_device *dev;
    uint64_t seed, drawn;
    bool dense; /* ternary matrices are laid out for forward products alone, where the device has a layout for these */
    int held_count, host_count;
    struct {
        void *p;
        size_t bytes;
    } held[OPS_MAX_HELD];     /* of the device */
    void *host[OPS_MAX_HELD]; /* malloc'd */
} ops_session;

static inline ops_session ops_begin(bb_device *dev, uint64_t seed) { return (ops_session){.dev = dev, .seed = seed}; }

static inline void ops_end(ops_session *s) {
    bb_error err;
    if (s->dev->ops->sync(s->dev, &err) != BB_OK) fail_msg("%s: %s", s->dev->ops->name, err.message);
    for (int i = 0; i < s->held_count; i++) s->dev->ops->free(s->dev, s->held[i].p, s->held[i].bytes);
    for (int i = 0; i < s->host_count; i++) free(s->host[i]);
}

/* Device memory, zeroed. */
static inline void *ops_room(ops_session *s, size_t bytes) {
    assert_true(s->held_count < OPS_MAX_HELD);
    void *p = s->dev->ops->alloc(s->dev, bytes);
    assert_non_null(p);
    s->held[s->held_count].p = p;
    s->held[s->held_count++].bytes = bytes;
    return p;
}

static inline void *ops_put(ops_session *s, const void *host, size_t bytes) {
    void *p = ops_room(s, bytes);
    s->dev->ops->copy_in(s->dev, p, host, bytes);
    return p;
}

static inline float *ops_put_f32(ops_session *s, const float *host, int64_t n) {
    return ops_put(s, host, (size_t)n * sizeof *host);
}

static inline void *ops_put_act(ops_session *s, const float *host, int64_t n) {
    void *p = ops_room(s, (size_t)n * bb_dtype_bytes(s->dev->ops->act_dtype));
    s->dev->ops->act_in(s->dev, p, host, n);
    return p;
}

static inline void *ops_host(ops_session *s, size_t bytes) {
    assert_true(s->host_count < OPS_MAX_HELD);
    void *p = calloc(1, bytes);
    assert_non_null(p);
    return s->host[s->host_count++] = p;
}

static inline float *ops_host_f32(ops_session *s, int64_t n) { return ops_host(s, (size_t)n * sizeof(float)); }

static inline void *ops_get(ops_session *s, const void *device, size_t bytes) {
    void *p = ops_host(s, bytes);
    s->dev->ops->copy_out(s->dev, p, device, bytes);
    return p;
}

static inline float *ops_get_f32(ops_session *s, const float *device, int64_t n) {
    return ops_get(s, device, (size_t)n * sizeof *device);
}

static inline float *ops_get_act(ops_session *s, const void *device, int64_t n) {
    float *p = ops_host_f32(s, n);
    s->dev->ops->act_out(s->dev, p, device, n);
    return p;
}

static inline float ops_to_bf16(double x) { return bb_f32_from_bf16(bb_bf16_from_f32((float)x)); }

/* The nearest of fp16: 11 bits, multiples of 2^-24, infinite from where the one after 65504 would be nearest. */
static inline float ops_to_f16(double x) {
    int exponent;
    (void)frexp((double)(float)x, &exponent);
    double unit = ldexp(1, (exponent < -13 ? -13 : exponent) - 11), rounded = nearbyint((double)(float)x / unit) * unit;
    return (float)(fabs(rounded) > 65504 ? copysign((double)INFINITY, x) : rounded);
}

/* The value that an activation of this device has where it is given x. */
static inline float ops_to_act(const ops_session *s, double x) {
    bb_dtype act = s->dev->ops->act_dtype;
    return act == BB_F16 ? ops_to_f16(x) : act == BB_BF16 ? ops_to_bf16(x) : (float)x;
}

/* n of N(0, scale^2), each a bf16 and an fp16. */
static inline float *ops_normal(ops_session *s, int64_t n, double scale) {
    float *x = ops_host_f32(s, n);
    for (int64_t i = 0; i < n; i++)
        x[i] = ops_to_f16((double)ops_to_bf16(scale * bb_rng_normal(s->seed, BB_STREAM_TEST, s->drawn++)));
    return x;
}

/* n of N(0, scale^2), not rounded: for what every backend keeps in f32. */
static inline float *ops_normal_f32(ops_session *s, int64_t n, double scale) {
    float *x = ops_host_f32(s, n);
    for (int64_t i = 0; i < n; i++) x[i] = (float)(scale * bb_rng_normal(s->seed, BB_STREAM_TEST, s->drawn++));
    return x;
}

/* n of 0 .. limit-1, limit <= 256. */
static inline uint8_t *ops_bytes(ops_session *s, int64_t n, uint64_t limit) {
    uint8_t *x = ops_host(s, (size_t)n);
    for (int64_t i = 0; i < n; i++) x[i] = (uint8_t)bb_rng_below(s->seed, BB_STREAM_TEST, s->drawn++, limit);
    return x;
}

/* Device memory for M rows of K: I8, act or f32. */
static inline bb_rows ops_rows(ops_session *s, int64_t M, int64_t K, bb_dtype dtype) {
    return (bb_rows){.data = ops_room(s, (size_t)(M * K) * bb_dtype_bytes(dtype)),
                     .scale = dtype == BB_I8 ? ops_room(s, (size_t)M * sizeof(float)) : NULL,
                     .dtype = dtype};
}

/* Where segment i of a matrix of N rows ends. */
static inline int64_t ops_segment_end(int64_t N, int segments, int i) {
    return i + 1 < segments ? N * (i + 1) / (segments + 1) + 1 : N;
}

/* Device memory for a matrix of up to three segments, quantized from w: host (N,K). */
static inline bb_ternary ops_ternary(ops_session *s, int64_t N, int64_t K, int segments, const float *w) {
    bb_ternary t = {.n = N, .k = K, .segments = segments, .dense = s->dense && s->dev->ops->ternary_dense(s->dev)};
    for (int i = 0; i < segments; i++) t.segment_end[i] = ops_segment_end(N, segments, i);
    t.scale = ops_room(s, BB_MAX_SEGMENTS * sizeof(float));
    t.data = ops_room(s, s->dev->ops->ternary_bytes(s->dev, &t));
    s->dev->ops->ternary_quant(s->dev, &t, ops_put_f32(s, w, N * K));
    return t;
}

static inline void ops_assert_near(double found, double expected, double tolerance, const char *what, int64_t i) {
    if (!(fabs(found - expected) <= tolerance))
        fail_msg("%s[%lld]: found %.9g, expected %.9g within %.2g", what, (long long)i, found, expected, tolerance);
}

#endif
