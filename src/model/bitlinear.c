// SPDX-License-Identifier: MIT
/* A single BitLinear layer and the two quantizers on host arrays: the model's building blocks, for separate use. */
#include <math.h>
#include <stdlib.h>

#include "core/arena.h"
#include "core/finite.h"
#include "core/options.h"
#include "core/rng.h"
#include "ops/ops.h"

struct bb_bitlinear {
    bb_device *device;
    int64_t in, out;
    bool act_quant;
    bb_ste ste;
    float *weight, *dweight; /* (out, in) */
    bb_ternary ternary;
    void *memory; /* one allocation for all of the above */
    size_t bytes;
    /* rows of the last forward pass; allocated rows */
    int64_t rows, capacity;
    float *x, *y; /* (capacity, in), (capacity, out); dy reuses y's buffer */
    void *dx;     /* act (capacity, in) */
    bb_rows input;
    void *batch_memory;
    size_t batch_bytes;
};

static void layer_layout(bb_bitlinear *l, bb_arena *arena) {
    size_t bytes = (size_t)(l->in * l->out) * sizeof(float);
    l->weight = bb_arena_alloc(arena, bytes);
    l->dweight = bb_arena_alloc(arena, bytes);
    l->ternary.data = bb_arena_alloc(arena, l->device->ops->ternary_bytes(l->device, &l->ternary));
    l->ternary.scale = bb_arena_alloc(arena, sizeof(float));
}

static void batch_layout(bb_bitlinear *l, bb_arena *arena, int64_t rows) {
    size_t act = bb_dtype_bytes(l->device->ops->act_dtype);
    l->x = bb_arena_alloc(arena, (size_t)(rows * l->in) * sizeof(float));
    l->y = bb_arena_alloc(arena, (size_t)(rows * l->out) * sizeof(float));
    l->dx = bb_arena_alloc(arena, (size_t)(rows * l->in) * act);
    l->input.dtype = l->act_quant ? BB_I8 : l->device->ops->act_dtype;
    l->input.data = bb_arena_alloc(arena, (size_t)(rows * l->in) * bb_dtype_bytes(l->input.dtype));
    l->input.scale = l->act_quant ? bb_arena_alloc(arena, (size_t)rows * sizeof(float)) : NULL;
}

BB_OPTIONS_DEFAULTS(bb_bitlinear_options, .act_quant = true);

bb_status bb_bitlinear_create(bb_device *device, const bb_bitlinear_options *given, bb_bitlinear **out, bb_error *err) {
    BB_REQUIRE("out", out);
    *out = NULL;
    BB_REQUIRE("device, options", device, given);
    BB_OPTIONS_READ(bb_bitlinear_options, o, given);
    BB_DEVICE_SCOPE(device);
    if (o->in_features < 1 || o->out_features < 1)
        return bb_fail(err, BB_ERR_ARGUMENT, "a BitLinear layer of %d inputs and %d outputs: both must be at least 1",
                       o->in_features, o->out_features);
    if (o->ste != BB_STE_IDENTITY && o->ste != BB_STE_CLIPPED)
        return bb_fail(err, BB_ERR_ARGUMENT, "ste is %d; it must be identity (%d) or clipped (%d)", (int)o->ste,
                       BB_STE_IDENTITY, BB_STE_CLIPPED);
    bb_status status = BB_OK;
    bb_bitlinear *l = calloc(1, sizeof *l);
    float *init = malloc((size_t)o->in_features * (size_t)o->out_features * sizeof *init);
    if (l) l->device = device;
    if (!l || !init) {
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory for a BitLinear layer");
        goto done;
    }
    l->in = o->in_features;
    l->out = o->out_features;
    l->act_quant = o->act_quant;
    l->ste = o->ste;
    l->ternary = (bb_ternary){.n = l->out, .k = l->in, .segments = 1, .segment_end = {l->out}};
    bb_arena measure = {0};
    layer_layout(l, &measure);
    l->bytes = measure.used;
    l->memory = device->ops->alloc(device, l->bytes);
    if (!l->memory) {
        status = bb_fail(err, BB_ERR_MEMORY, "no memory for a BitLinear layer: %.1f MB", (double)l->bytes * 1e-6);
        goto done;
    }
    bb_arena arena = {.base = l->memory};
    layer_layout(l, &arena);
    double bound = 1 / sqrt((double)o->in_features);
    for (int64_t i = 0; i < l->in * l->out; i++)
        init[i] = (float)(bound * (2 * bb_rng_uniform(o->seed, BB_STREAM_BITLINEAR, (uint64_t)i) - 1));
    status = bb_bitlinear_set_weight(l, init, err);
done:
    free(init);
    if (status == BB_OK)
        *out = l;
    else
        bb_bitlinear_free(l);
    return status;
}

void bb_bitlinear_free(bb_bitlinear *l) {
    if (!l) return;
    BB_DEVICE_SCOPE(l->device);
    if (l->memory) l->device->ops->free(l->device, l->memory, l->bytes);
    if (l->batch_memory) l->device->ops->free(l->device, l->batch_memory, l->batch_bytes);
    free(l);
}

bb_status bb_bitlinear_get_weight(const bb_bitlinear *l, float *weight, bb_error *err) {
    BB_REQUIRE("layer, weight", l, weight);
    BB_DEVICE_SCOPE(l->device);
    l->device->ops->copy_out(l->device, weight, l->weight, (size_t)(l->in * l->out) * sizeof(float));
    return l->device->ops->sync(l->device, err);
}

/* Codes cannot represent NaN, so quantizing would hide it. */
static bb_status check_finite(const char *what, const float *x, int64_t rows, int64_t cols, bb_error *err) {
    int64_t i = bb_find_not_finite(x, rows * cols);
    if (i == rows * cols) return BB_OK;
    return bb_fail(err, BB_ERR_ARGUMENT, "%s: element %lld (row %lld, column %lld) is %s, expected a finite number", what,
                   (long long)i, (long long)(i / cols), (long long)(i % cols), bb_not_finite_name(x[i]));
}

bb_status bb_bitlinear_set_weight(bb_bitlinear *l, const float *weight, bb_error *err) {
    BB_REQUIRE("layer, weight", l, weight);
    BB_DEVICE_SCOPE(l->device);
    BB_TRY(check_finite("the weight of a BitLinear layer", weight, l->out, l->in, err));
    l->device->ops->copy_in(l->device, l->weight, weight, (size_t)(l->in * l->out) * sizeof(float));
    l->device->ops->ternary_quant(l->device, &l->ternary, l->weight);
    return l->device->ops->sync(l->device, err);
}

static bb_status reserve_rows(bb_bitlinear *l, int64_t rows, bb_error *err) {
    if (rows <= l->capacity) return BB_OK;
    if (l->batch_memory) l->device->ops->free(l->device, l->batch_memory, l->batch_bytes);
    bb_arena measure = {0};
    batch_layout(l, &measure, rows);
    l->capacity = l->rows = 0;
    l->batch_bytes = measure.used;
    l->batch_memory = l->device->ops->alloc(l->device, l->batch_bytes);
    if (!l->batch_memory)
        return bb_fail(err, BB_ERR_MEMORY, "no memory for %lld rows: %.1f MB", (long long)rows, (double)l->batch_bytes * 1e-6);
    bb_arena arena = {.base = l->batch_memory};
    batch_layout(l, &arena, rows);
    l->capacity = rows;
    return BB_OK;
}

bb_status bb_bitlinear_forward(bb_bitlinear *l, const float *x, int64_t rows, float *y, bb_error *err) {
    BB_REQUIRE("layer, x, y", l, x, y);
    BB_DEVICE_SCOPE(l->device);
    if (rows < 1 || rows > INT32_MAX)
        return bb_fail(err, BB_ERR_ARGUMENT, "rows %lld must be from 1 to %d", (long long)rows, INT32_MAX);
    BB_TRY(reserve_rows(l, rows, err));
    const bb_ops *ops = l->device->ops;
    l->rows = rows;
    size_t y_bytes = (size_t)(rows * l->out) * sizeof(float);
    ops->copy_in(l->device, l->x, x, (size_t)(rows * l->in) * sizeof(float));
    ops->act_quant(l->device, l->input, l->x, rows, l->in);
    ops->linear_forward(l->device, l->y, NULL, l->input, &l->ternary, rows);
    ops->copy_out(l->device, y, l->y, y_bytes);
    return ops->sync(l->device, err);
}

bb_status bb_bitlinear_backward(bb_bitlinear *l, const float *dy, int64_t rows, float *dx, float *dweight, bb_error *err) {
    BB_REQUIRE("layer, dy", l, dy);
    BB_DEVICE_SCOPE(l->device);
    if (rows != l->rows || rows < 1)
        return bb_fail(err, BB_ERR_ARGUMENT, "backward of %lld rows after a forward of %lld", (long long)rows,
                       (long long)l->rows);
    const bb_ops *ops = l->device->ops;
    size_t weight_bytes = (size_t)(l->in * l->out) * sizeof(float);
    ops->copy_in(l->device, l->y, dy, (size_t)(rows * l->out) * sizeof(float));
    ops->linear_backward(l->device, dx ? l->dx : NULL, (bb_layer_gradient){l->y, BB_F32, l->dweight, false}, l->input,
                         &l->ternary, rows);
    if (l->ste == BB_STE_CLIPPED) ops->ste_clip(l->device, l->dweight, l->weight, &l->ternary);
    if (dx) ops->act_out(l->device, dx, l->dx, rows * l->in);
    if (dweight) ops->copy_out(l->device, dweight, l->dweight, weight_bytes);
    return ops->sync(l->device, err);
}

/* A temporary buffer in device memory for a single call. */
static bb_status alloc_temporary(bb_device *device, size_t bytes, void **out, bb_error *err) {
    *out = device->ops->alloc(device, bytes);
    if (!*out) return bb_fail(err, BB_ERR_MEMORY, "no memory for %.1f MB", (double)bytes * 1e-6);
    return BB_OK;
}

#define MAX_ELEMENTS ((int64_t)1 << 40)

static bb_status check_matrix(int64_t rows, int64_t cols, bb_error *err) {
    if (rows < 1 || cols < 1 || rows > MAX_ELEMENTS / cols)
        return bb_fail(err, BB_ERR_ARGUMENT, "a matrix of %lld x %lld: both must be at least 1, and their product at most 2^40",
                       (long long)rows, (long long)cols);
    return BB_OK;
}

bb_status bb_ternary_quantize(bb_device *device, const float *w, int64_t rows, int64_t cols, int8_t *q, float *scale,
                              bb_error *err) {
    BB_REQUIRE("device, w, q, scale", device, w, q, scale);
    BB_DEVICE_SCOPE(device);
    BB_TRY(check_matrix(rows, cols, err));
    BB_TRY(check_finite("the matrix to quantize", w, rows, cols, err));
    const bb_ops *ops = device->ops;
    size_t n = (size_t)(rows * cols), f32 = bb_align_up(n * sizeof(float)), i8 = bb_align_up(n);
    bb_ternary t = {.n = rows, .k = cols, .segments = 1, .segment_end = {rows}};
    size_t packed = bb_align_up(ops->ternary_bytes(device, &t)), bytes = f32 + i8 + packed + BB_ALIGN;
    void *memory;
    BB_TRY(alloc_temporary(device, bytes, &memory, err));
    bb_arena arena = {.base = memory};
    float *device_w = bb_arena_alloc(&arena, f32);
    int8_t *device_q = bb_arena_alloc(&arena, i8);
    t.data = bb_arena_alloc(&arena, packed);
    t.scale = bb_arena_alloc(&arena, sizeof(float));
    ops->copy_in(device, device_w, w, n * sizeof(float));
    ops->ternary_quant(device, &t, device_w);
    ops->ternary_unpack(device, device_q, &t);
    ops->copy_out(device, q, device_q, n);
    ops->copy_out(device, scale, t.scale, sizeof(float));
    bb_status status = ops->sync(device, err);
    ops->free(device, memory, bytes);
    return status;
}

bb_status bb_act_quantize(bb_device *device, const float *x, int64_t rows, int64_t cols, int8_t *q, float *scale,
                          bb_error *err) {
    BB_REQUIRE("device, x, q, scale", device, x, q, scale);
    BB_DEVICE_SCOPE(device);
    BB_TRY(check_matrix(rows, cols, err));
    BB_TRY(check_finite("the activations to quantize", x, rows, cols, err));
    const bb_ops *ops = device->ops;
    size_t n = (size_t)(rows * cols), f32 = bb_align_up(n * sizeof(float)), i8 = bb_align_up(n);
    size_t scales = bb_align_up((size_t)rows * sizeof(float)), bytes = f32 + i8 + scales;
    void *memory;
    BB_TRY(alloc_temporary(device, bytes, &memory, err));
    bb_arena arena = {.base = memory};
    float *device_x = bb_arena_alloc(&arena, f32);
    bb_rows y = {.data = bb_arena_alloc(&arena, i8), .scale = bb_arena_alloc(&arena, scales), .dtype = BB_I8};
    ops->copy_in(device, device_x, x, n * sizeof(float));
    ops->act_quant(device, y, device_x, rows, cols);
    ops->copy_out(device, q, y.data, n);
    ops->copy_out(device, scale, y.scale, (size_t)rows * sizeof(float));
    bb_status status = ops->sync(device, err);
    ops->free(device, memory, bytes);
    return status;
}
