/* The ternary linear layer: forward in integers, exact; backward in bf16 with f32 sums (f32 where the processor has no bf16).
 * SPDX-License-Identifier: MIT */
#include "core/arena.h"
#include "ops/cpu/simd.h"
#include "ops/cpu/ternary.h"

enum {
    ROW_TILE = 64,  /* rows of a forward or dx tile */
    DW_ROWS = 64,   /* rows of dW in a tile */
    DW_CHUNK = 1024 /* tokens whose products are added to dW at once */
};

static bb_dtype wide_dtype(bb_device *dev) { return bb_cpu_of(dev)->level >= BB_CPU_AVX512_BF16 ? BB_BF16 : BB_F32; }

static bb_gemm_kind wide_kind(bb_device *dev) { return wide_dtype(dev) == BB_BF16 ? BB_GEMM_BF16 : BB_GEMM_F32; }

static int64_t at_most(int64_t n, int64_t limit) { return n < limit ? n : limit; }

/* ---- row kernels ----------------------------------------------------------------------------------------------------- */

BB_SIMD_INLINE void to_unsigned_body(uint8_t *out, const int8_t *q, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) out[i] = (uint8_t)(q[i] ^ 0x80);
}
BB_SIMD_VARIANTS(to_unsigned, (uint8_t * out, const int8_t *q, int64_t n), (out, q, n))

/* y = s * g[n] * (acc - offset): y bf16, or y = residual + that in f32. */
BB_SIMD_INLINE void int_to_act_body(bb_bf16 *y, const int32_t *acc, const int32_t *offsets, const float *g, float s,
                                    int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = bb_bf16_from_f32(s * g[i] * (float)(acc[i] - offsets[i]));
}
BB_SIMD_VARIANTS(int_to_act, (bb_bf16 * y, const int32_t *acc, const int32_t *offsets, const float *g, float s, int64_t n),
                 (y, acc, offsets, g, s, n))

BB_SIMD_INLINE void int_add_body(float *y, const float *residual, const int32_t *acc, const int32_t *offsets, const float *g,
                                 float s, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = residual[i] + s * g[i] * (float)(acc[i] - offsets[i]);
}
BB_SIMD_VARIANTS(int_add,
                 (float *y, const float *residual, const int32_t *acc, const int32_t *offsets, const float *g, float s,
                  int64_t n),
                 (y, residual, acc, offsets, g, s, n))

/* The same from f32 sums. */
BB_SIMD_INLINE void float_to_act_body(bb_bf16 *y, const float *acc, const float *g, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = bb_bf16_from_f32(g[i] * acc[i]);
}
BB_SIMD_VARIANTS(float_to_act, (bb_bf16 * y, const float *acc, const float *g, int64_t n), (y, acc, g, n))

BB_SIMD_INLINE void float_add_body(float *y, const float *residual, const float *acc, const float *g, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = residual[i] + g[i] * acc[i];
}
BB_SIMD_VARIANTS(float_add, (float *y, const float *residual, const float *acc, const float *g, int64_t n),
                 (y, residual, acc, g, n))

BB_SIMD_INLINE void scale_to_act_body(bb_bf16 *y, const float *acc, float g, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) y[i] = bb_bf16_from_f32(g * acc[i]);
}
BB_SIMD_VARIANTS(scale_to_act, (bb_bf16 * y, const float *acc, float g, int64_t n), (y, acc, g, n))

/* out = x * factor (and * g[n] where g is given), from and to any of bf16, f32 and int8. */
#define CONVERT(name, from_type, load, to_type, store)                                                                         \
    BB_SIMD_INLINE void name##_body(void *out, const void *in, float factor, const float *g, int64_t n) {                      \
        const from_type *x = in;                                                                                               \
        to_type *y = out;                                                                                                      \
        if (g) {                                                                                                               \
            _Pragma("omp simd") for (int64_t i = 0; i < n; i++) y[i] = store(load(x[i]) * factor * g[i]);                      \
        } else {                                                                                                               \
            _Pragma("omp simd") for (int64_t i = 0; i < n; i++) y[i] = store(load(x[i]) * factor);                             \
        }                                                                                                                      \
    }                                                                                                                          \
    BB_SIMD_VARIANTS(name, (void *out, const void *in, float factor, const float *g, int64_t n), (out, in, factor, g, n))

#define AS_IS(v) ((float)(v))
CONVERT(bf16_to_bf16, bb_bf16, bb_f32_from_bf16, bb_bf16, bb_bf16_from_f32)
CONVERT(bf16_to_f32, bb_bf16, bb_f32_from_bf16, float, AS_IS)
CONVERT(f32_to_bf16, float, AS_IS, bb_bf16, bb_bf16_from_f32)
CONVERT(f32_to_f32, float, AS_IS, float, AS_IS)
CONVERT(int8_to_bf16, int8_t, AS_IS, bb_bf16, bb_bf16_from_f32)
CONVERT(int8_to_f32, int8_t, AS_IS, float, AS_IS)

typedef bf16_to_bf16_kernel converter;

static converter *converter_for(bb_cpu_level level, bb_dtype from, bb_dtype to) {
    if (to == BB_BF16)
        return from == BB_I8 ? int8_to_bf16_for(level) : from == BB_BF16 ? bf16_to_bf16_for(level) : f32_to_bf16_for(level);
    return from == BB_I8 ? int8_to_f32_for(level) : from == BB_BF16 ? bf16_to_f32_for(level) : f32_to_f32_for(level);
}

/* ---- forward --------------------------------------------------------------------------------------------------------- */

typedef struct forward {
    bb_device *dev;
    bb_rows x;
    int64_t M, N, K;
    bb_ternary_parts parts;
    void *y;
    const float *residual; /* NULL: y is act, else y = residual + …, f32 */
} forward;

/* Adds one tile of sums (rows, width) at (m0, n0) to the output. */
static void store_int(const forward *f, const int32_t *acc, int64_t m0, int64_t rows, int64_t n0, int64_t width) {
    bb_cpu_level level = bb_cpu_of(f->dev)->level;
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = (m0 + r) * f->N + n0;
        const int32_t *offsets = f->parts.offsets + n0;
        const float *g = f->parts.scales + n0;
        float s = f->x.scale[m0 + r];
        if (f->residual)
            int_add_for(level)((float *)f->y + at, f->residual + at, acc + r * width, offsets, g, s, width);
        else
            int_to_act_for(level)((bb_bf16 *)f->y + at, acc + r * width, offsets, g, s, width);
    }
}

static void store_float(const forward *f, const float *acc, int64_t m0, int64_t rows, int64_t n0, int64_t width) {
    bb_cpu_level level = bb_cpu_of(f->dev)->level;
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = (m0 + r) * f->N + n0;
        const float *g = f->parts.scales + n0;
        if (f->residual)
            float_add_for(level)((float *)f->y + at, f->residual + at, acc + r * width, g, width);
        else
            float_to_act_for(level)((bb_bf16 *)f->y + at, acc + r * width, g, width);
    }
}

/* One slab of columns: its primitives for whole and last row tiles, and its packed weights. */
typedef struct slab {
    const bb_gemm_op *whole, *last;
    const void *packed;
    int64_t n0, width;
} slab;

static slab make_slab(const forward *f, bb_gemm_kind kind, int64_t n0, const void *packed) {
    slab s = {.packed = packed, .n0 = n0, .width = bb_slab_rows(f->N, n0)};
    bb_gemm_shape shape = {.kind = kind, .m = ROW_TILE, .n = s.width, .k = f->K, .a_row = f->K, .a_col = 1, .c_row = s.width};
    if (f->M >= ROW_TILE) s.whole = bb_gemm_get(f->dev, &shape);
    shape.m = f->M % ROW_TILE;
    if (shape.m) s.last = bb_gemm_get(f->dev, &shape);
    return s;
}

/* All row tiles of one slab. */
static void run_slab(const forward *f, const slab *s, bb_gemm_kind kind) {
    bb_device *dev = f->dev;
    int64_t tiles = (f->M + ROW_TILE - 1) / ROW_TILE;
    bb_dtype in = kind == BB_GEMM_INT8 ? BB_U8 : kind == BB_GEMM_BF16 ? BB_BF16 : BB_F32;
    size_t a_bytes = bb_align_up((size_t)(ROW_TILE * f->K) * bb_dtype_bytes(in));
    size_t c_bytes = bb_align_up((size_t)(ROW_TILE * s->width) * sizeof(float));
    size_t from_bytes = bb_dtype_bytes(f->x.dtype);
    bb_cpu_level level = bb_cpu_of(dev)->level;
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic) if (tiles > 1)
    for (int64_t i = 0; i < tiles; i++) {
        int64_t m0 = i * ROW_TILE, rows = at_most(f->M - m0, ROW_TILE);
        const bb_gemm_op *op = rows == ROW_TILE ? s->whole : s->last;
        uint8_t *scratch = op ? bb_cpu_scratch(dev, a_bytes + c_bytes + bb_gemm_scratch_bytes(op)) : NULL;
        if (!scratch) continue;
        const uint8_t *x = (const uint8_t *)f->x.data + (size_t)(m0 * f->K) * from_bytes;
        void *acc = scratch + a_bytes;
        if (kind == BB_GEMM_INT8)
            to_unsigned_for(level)(scratch, (const int8_t *)x, rows * f->K);
        else
            converter_for(level, f->x.dtype, in)(scratch, x, 1.0f, NULL, rows * f->K);
        bb_gemm_run(dev, op, acc, scratch, s->packed, scratch + a_bytes + c_bytes);
        if (kind == BB_GEMM_INT8)
            store_int(f, acc, m0, rows, s->n0, s->width);
        else
            store_float(f, acc, m0, rows, s->n0, s->width);
    }
}

/* Weights of rows n0 .. n0+width-1 expanded and packed for a product with k = K, in shared memory. */
static const void *pack_expanded_slab(const forward *f, const bb_gemm_op *op, int64_t n0, int64_t width) {
    bb_device *dev = f->dev;
    bb_dtype dtype = f->x.dtype == BB_F32 ? BB_F32 : wide_dtype(dev); /* of the product's kind */
    size_t plain = bb_align_up((size_t)(width * f->K) * bb_dtype_bytes(dtype));
    uint8_t *memory = bb_gemm_shared(dev, plain + bb_gemm_packed_bytes(op));
    if (!memory) return NULL;
#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t r = 0; r < width; r++)
        bb_ternary_expand(&f->parts, f->K, n0 + r, 1, dtype, memory + (size_t)(r * f->K) * bb_dtype_bytes(dtype));
    bb_gemm_pack(dev, op, memory + plain, memory, 1, f->K);
    return memory + plain;
}

static void linear(bb_device *dev, void *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    forward f = {.dev = dev,
                 .x = x,
                 .M = M,
                 .N = t->n,
                 .K = t->k,
                 .parts = bb_ternary_locate(dev, t->data, t->n, t->k),
                 .y = y,
                 .residual = residual};
    bb_gemm_kind kind = x.dtype == BB_I8 ? BB_GEMM_INT8 : x.dtype == BB_F32 ? BB_GEMM_F32 : wide_kind(dev);
    for (int64_t i = 0; i < f.parts.slabs; i++) {
        slab s = make_slab(&f, kind, i * BB_SLAB, f.parts.packed + (size_t)i * f.parts.slab_bytes);
        const bb_gemm_op *any = s.whole ? s.whole : s.last;
        if (!any) return;
        if (kind != BB_GEMM_INT8) s.packed = pack_expanded_slab(&f, any, s.n0, s.width);
        if (s.packed) run_slab(&f, &s, kind);
    }
}

void bb_cpu_linear_forward(bb_device *dev, void *y, bb_rows x, const bb_ternary *t, int64_t M) {
    linear(dev, y, NULL, x, t, M);
}

void bb_cpu_linear_forward_add(bb_device *dev, float *y, const float *residual, bb_rows x, const bb_ternary *t, int64_t M) {
    linear(dev, y, residual, x, t, M);
}

/* ---- backward -------------------------------------------------------------------------------------------------------- */

typedef struct backward {
    bb_device *dev;
    const uint8_t *dy;
    bb_dtype dy_dtype, wide;
    bb_gemm_kind kind;
    bb_rows x;
    int64_t M, N, K;
    const bb_ternary *t;
    bb_ternary_parts parts;
} backward;

static const uint8_t *dy_row(const backward *b, int64_t m) { return b->dy + (size_t)(m * b->N) * bb_dtype_bytes(b->dy_dtype); }

/* dx columns k0 .. k0+width-1: dy (M,N) times W (N, width). */
static void dx_slab(const backward *b, bb_bf16 *dx, int64_t k0, int64_t width, const uint8_t *weights) {
    bb_device *dev = b->dev;
    size_t element = bb_dtype_bytes(b->wide);
    bb_gemm_shape shape = {.kind = b->kind, .m = ROW_TILE, .n = width, .k = b->N, .a_row = b->N, .a_col = 1, .c_row = width};
    const bb_gemm_op *whole = b->M >= ROW_TILE ? bb_gemm_get(dev, &shape) : NULL, *last = NULL;
    shape.m = b->M % ROW_TILE;
    if (shape.m) last = bb_gemm_get(dev, &shape);
    const bb_gemm_op *any = whole ? whole : last;
    if (!any) return;
    /* the expanded weights stand at the start of the shared memory; the packed slab behind them */
    size_t plain = bb_align_up((size_t)(b->N * b->K) * element);
    uint8_t *packed = (uint8_t *)(uintptr_t)weights + plain;
    bb_gemm_pack(dev, any, packed, weights + (size_t)k0 * element, b->K, 1);

    bool fold = b->t->segments > 1; /* several scales: they go into dy; one: into the result */
    bool direct = !fold && b->dy_dtype == b->wide;
    size_t a_bytes = direct ? 0 : bb_align_up((size_t)(ROW_TILE * b->N) * element);
    size_t c_bytes = bb_align_up((size_t)(ROW_TILE * width) * sizeof(float));
    int64_t tiles = (b->M + ROW_TILE - 1) / ROW_TILE;
    bb_cpu_level level = bb_cpu_of(dev)->level;
    converter *convert = converter_for(level, b->dy_dtype, b->wide);
    float g = fold ? 1.0f : b->t->scale[0];
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic) if (tiles > 1)
    for (int64_t i = 0; i < tiles; i++) {
        int64_t m0 = i * ROW_TILE, rows = at_most(b->M - m0, ROW_TILE);
        const bb_gemm_op *op = rows == ROW_TILE ? whole : last;
        uint8_t *scratch = op ? bb_cpu_scratch(dev, a_bytes + c_bytes + bb_gemm_scratch_bytes(op)) : NULL;
        if (!scratch) continue;
        const uint8_t *a = dy_row(b, m0);
        float *acc = (float *)(void *)(scratch + a_bytes);
        if (!direct) {
            for (int64_t r = 0; r < rows; r++)
                convert(scratch + (size_t)(r * b->N) * element, dy_row(b, m0 + r), 1.0f, fold ? b->parts.scales : NULL, b->N);
            a = scratch;
        }
        bb_gemm_run(dev, op, acc, a, packed, scratch + a_bytes + c_bytes);
        for (int64_t r = 0; r < rows; r++) scale_to_act_for(level)(dx + (m0 + r) * b->K + k0, acc + r * width, g, width);
    }
}

static void backward_input(const backward *b, bb_bf16 *dx) {
    bb_device *dev = b->dev;
    size_t element = bb_dtype_bytes(b->wide), plain = bb_align_up((size_t)(b->N * b->K) * element);
    bb_gemm_shape shape = {
        .kind = b->kind, .m = 1, .n = at_most(b->K, BB_SLAB), .k = b->N, .a_row = b->N, .a_col = 1, .c_row = 1};
    shape.c_row = shape.n;
    const bb_gemm_op *sizing = bb_gemm_get(dev, &shape);
    uint8_t *weights = sizing ? bb_gemm_shared(dev, plain + bb_gemm_packed_bytes(sizing)) : NULL;
    if (!weights) return;
#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t n = 0; n < b->N; n++)
        bb_ternary_expand(&b->parts, b->K, n, 1, b->wide, weights + (size_t)(n * b->K) * element);
    for (int64_t k0 = 0; k0 < b->K; k0 += BB_SLAB) dx_slab(b, dx, k0, at_most(b->K - k0, BB_SLAB), weights);
}

/* dw (N,K) += sum over `rows` tokens from m0 on: the token's scale goes into dy, the codes are exact as they are. */
static void backward_weight_chunk(const backward *b, float *dw, int64_t m0, int64_t rows) {
    bb_device *dev = b->dev;
    bb_cpu_level level = bb_cpu_of(dev)->level;
    size_t element = bb_dtype_bytes(b->wide), x_element = bb_dtype_bytes(b->x.dtype);
    bb_gemm_shape shape = {
        .kind = b->kind, .accumulate = true, .m = DW_ROWS, .n = b->K, .k = rows, .a_row = rows, .a_col = 1, .c_row = b->K};
    const bb_gemm_op *whole = b->N >= DW_ROWS ? bb_gemm_get(dev, &shape) : NULL, *last = NULL;
    shape.m = b->N % DW_ROWS;
    if (shape.m) last = bb_gemm_get(dev, &shape);
    const bb_gemm_op *any = whole ? whole : last;
    if (!any) return;
    size_t dy_bytes = bb_align_up((size_t)(rows * b->N) * element), x_bytes = bb_align_up((size_t)(rows * b->K) * element);
    uint8_t *dy = bb_gemm_shared(dev, dy_bytes + x_bytes + bb_gemm_packed_bytes(any));
    if (!dy) return;
    uint8_t *x = dy + dy_bytes, *packed = x + x_bytes;
    converter *convert_dy = converter_for(level, b->dy_dtype, b->wide), *convert_x = converter_for(level, b->x.dtype, b->wide);
#pragma omp parallel for num_threads(dev->threads) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        int64_t m = m0 + r;
        convert_dy(dy + (size_t)(r * b->N) * element, dy_row(b, m), b->x.scale ? b->x.scale[m] : 1.0f, NULL, b->N);
        convert_x(x + (size_t)(r * b->K) * element, (const uint8_t *)b->x.data + (size_t)(m * b->K) * x_element, 1.0f, NULL,
                  b->K);
    }
    bb_gemm_pack(dev, any, packed, x, b->K, 1);
    int64_t tiles = (b->N + DW_ROWS - 1) / DW_ROWS;
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic) if (tiles > 1)
    for (int64_t i = 0; i < tiles; i++) {
        const bb_gemm_op *op = (i + 1) * DW_ROWS <= b->N ? whole : last;
        size_t a_bytes = bb_align_up((size_t)(DW_ROWS * rows) * element);
        uint8_t *scratch = op ? bb_cpu_scratch(dev, a_bytes + bb_gemm_scratch_bytes(op)) : NULL;
        if (!scratch) continue;
        bb_gemm_transpose(scratch, dy + (size_t)(i * DW_ROWS) * element, rows, at_most(b->N - i * DW_ROWS, DW_ROWS), b->N,
                          element);
        bb_gemm_run(dev, op, dw + i * DW_ROWS * b->K, scratch, packed, scratch + a_bytes);
    }
}

void bb_cpu_linear_backward(bb_device *dev, void *dx, float *dw, const void *dy, bb_dtype dy_dtype, bb_rows x,
                            const bb_ternary *t, int64_t M) {
    backward b = {.dev = dev,
                  .dy = dy,
                  .dy_dtype = dy_dtype,
                  .wide = wide_dtype(dev),
                  .kind = wide_kind(dev),
                  .x = x,
                  .M = M,
                  .N = t->n,
                  .K = t->k,
                  .t = t,
                  .parts = bb_ternary_locate(dev, t->data, t->n, t->k)};
    for (int64_t m0 = 0; m0 < M; m0 += DW_CHUNK) backward_weight_chunk(&b, dw, m0, at_most(M - m0, DW_CHUNK));
    if (dx) backward_input(&b, dx);
}
