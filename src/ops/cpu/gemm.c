/* SPDX-License-Identifier: MIT */
#include "ops/cpu/gemm.h"

#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/arena.h"

/* What one thread hands to a primitive; its handles are set at each call. */
typedef struct arguments {
    dnnl_memory_t a, b, c, scratch;
} arguments;

struct bb_gemm_op {
    bb_gemm_shape shape;
    dnnl_primitive_t primitive;
    dnnl_memory_desc_t packed;
    size_t scratch_bytes;
    arguments *arguments; /* (threads) */
    bb_gemm_op *next;
};

struct bb_gemm {
    dnnl_engine_t engine;
    dnnl_stream_t *streams; /* (threads) */
    bb_gemm_op *ops;
    void *shared;
    size_t shared_bytes;
};

/* Any height gives the same packed form when asked for with this one. */
enum { CANONICAL_M = 64, VERSION_BYTES = 32, TRANSPOSE_TILE = 32 };

const char *bb_gemm_version(void) {
    static char text[VERSION_BYTES];
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, sizeof text, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
    return text;
}

/* oneDNN looks at the processor by itself; a lowered level lowers it too. Only before its first use in the process. */
static void lower_isa(bb_cpu_level level) {
    static const dnnl_cpu_isa_t isa[] = {[BB_CPU_GENERIC] = dnnl_cpu_isa_sse41,
                                         [BB_CPU_AVX2] = dnnl_cpu_isa_avx2,
                                         [BB_CPU_AVX512] = dnnl_cpu_isa_avx512_core,
                                         [BB_CPU_AVX512_VNNI] = dnnl_cpu_isa_avx512_core_vnni};
    if (level < BB_CPU_AVX512_BF16) dnnl_set_max_cpu_isa(isa[level]);
}

bb_status bb_gemm_open(bb_device *dev, bb_error *err) {
    bb_cpu *cpu = bb_cpu_of(dev);
    struct bb_gemm *g = calloc(1, sizeof *g);
    if (!g) return bb_fail(err, BB_ERR_MEMORY, "out of memory for the cpu device");
    cpu->gemm = g;
    lower_isa(cpu->level);
    g->streams = calloc((size_t)dev->threads, sizeof *g->streams);
    if (!g->streams) return bb_fail(err, BB_ERR_MEMORY, "out of memory for the cpu device");
    if (dnnl_engine_create(&g->engine, dnnl_cpu, 0) != dnnl_success)
        return bb_fail(err, BB_ERR_INTERNAL, "%s: no CPU engine", bb_gemm_version());
    for (int i = 0; i < dev->threads; i++)
        if (dnnl_stream_create(&g->streams[i], g->engine, dnnl_stream_default_flags) != dnnl_success)
            return bb_fail(err, BB_ERR_INTERNAL, "%s: no stream", bb_gemm_version());
    return BB_OK;
}

static void free_op(bb_gemm_op *op, int threads) {
    for (int i = 0; op->arguments && i < threads; i++) {
        dnnl_memory_destroy(op->arguments[i].a);
        dnnl_memory_destroy(op->arguments[i].b);
        dnnl_memory_destroy(op->arguments[i].c);
        dnnl_memory_destroy(op->arguments[i].scratch);
    }
    if (op->primitive) dnnl_primitive_destroy(op->primitive);
    free(op->arguments);
    free(op);
}

void bb_gemm_close(bb_device *dev) {
    struct bb_gemm *g = bb_cpu_of(dev)->gemm;
    if (!g) return;
    for (bb_gemm_op *op = g->ops, *next; op; op = next) {
        next = op->next;
        free_op(op, dev->threads);
    }
    for (int i = 0; g->streams && i < dev->threads; i++)
        if (g->streams[i]) dnnl_stream_destroy(g->streams[i]);
    if (g->engine) dnnl_engine_destroy(g->engine);
    free(g->streams);
    free(g->shared);
    free(g);
    bb_cpu_of(dev)->gemm = NULL;
}

static void types_of(bb_gemm_kind kind, dnnl_data_type_t *a, dnnl_data_type_t *b, dnnl_data_type_t *c) {
    *a = kind == BB_GEMM_INT8 ? dnnl_u8 : kind == BB_GEMM_BF16 ? dnnl_bf16 : dnnl_f32;
    *b = kind == BB_GEMM_INT8 ? dnnl_s8 : *a;
    *c = kind == BB_GEMM_INT8 ? dnnl_s32 : dnnl_f32;
}

/* packed: the form that B has, or NULL to let oneDNN choose. */
static dnnl_status_t describe(const struct bb_gemm *g, const bb_gemm_shape *s, int64_t m, const dnnl_memory_desc_t *packed,
                              dnnl_memory_desc_t *a, dnnl_memory_desc_t *c, dnnl_primitive_desc_t *out) {
    dnnl_data_type_t at, bt, ct;
    types_of(s->kind, &at, &bt, &ct);
    dnnl_dims_t a_dims = {m, s->k}, b_dims = {s->k, s->n}, c_dims = {m, s->n};
    dnnl_dims_t a_strides = {s->a_row, s->a_col}, c_strides = {s->c_row, 1};
    dnnl_memory_desc_t b;
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t post = NULL;
    dnnl_status_t status = dnnl_memory_desc_init_by_strides(a, 2, a_dims, at, a_strides);
    if (!status) status = dnnl_memory_desc_init_by_strides(c, 2, c_dims, ct, c_strides);
    if (!status && !packed) status = dnnl_memory_desc_init_by_tag(&b, 2, b_dims, bt, dnnl_format_tag_any);
    if (!status) status = dnnl_matmul_desc_init(&matmul, a, packed ? packed : &b, NULL, c);
    if (!status) status = dnnl_primitive_attr_create(&attributes);
    if (!status) status = dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user);
    if (!status && s->accumulate) {
        status = dnnl_post_ops_create(&post);
        if (!status) status = dnnl_post_ops_append_sum(post, 1.0f);
        if (!status) status = dnnl_primitive_attr_set_post_ops(attributes, post);
    }
    if (!status) status = dnnl_primitive_desc_create(out, &matmul, attributes, g->engine, NULL);
    if (post) dnnl_post_ops_destroy(post);
    if (attributes) dnnl_primitive_attr_destroy(attributes);
    return status;
}

static dnnl_status_t make_op(const struct bb_gemm *g, bb_gemm_op *op, int threads) {
    dnnl_memory_desc_t a, c;
    dnnl_primitive_desc_t canonical = NULL, desc = NULL;
    bb_gemm_shape form = op->shape; /* of which the packed form must not depend */
    form.accumulate = false;
    form.a_row = form.k;
    form.a_col = 1;
    form.c_row = form.n;
    dnnl_status_t status = describe(g, &form, CANONICAL_M, NULL, &a, &c, &canonical);
    if (!status) {
        op->packed = *dnnl_primitive_desc_query_md(canonical, dnnl_query_weights_md, 0);
        status = describe(g, &op->shape, op->shape.m, &op->packed, &a, &c, &desc);
    }
    if (!status) status = dnnl_primitive_create(&op->primitive, desc);
    if (!status) {
        const dnnl_memory_desc_t *scratch = dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
        op->scratch_bytes = dnnl_memory_desc_get_size(scratch);
        for (int i = 0; i < threads && !status; i++) {
            arguments *args = &op->arguments[i];
            status = dnnl_memory_create(&args->a, &a, g->engine, DNNL_MEMORY_NONE);
            if (!status) status = dnnl_memory_create(&args->b, &op->packed, g->engine, DNNL_MEMORY_NONE);
            if (!status) status = dnnl_memory_create(&args->c, &c, g->engine, DNNL_MEMORY_NONE);
            if (!status) status = dnnl_memory_create(&args->scratch, scratch, g->engine, DNNL_MEMORY_NONE);
        }
    }
    if (desc) dnnl_primitive_desc_destroy(desc);
    if (canonical) dnnl_primitive_desc_destroy(canonical);
    return status;
}

static bool same_shape(const bb_gemm_shape *a, const bb_gemm_shape *b) {
    return a->kind == b->kind && a->accumulate == b->accumulate && a->m == b->m && a->n == b->n && a->k == b->k &&
           a->a_row == b->a_row && a->a_col == b->a_col && a->c_row == b->c_row;
}

const bb_gemm_op *bb_gemm_get(bb_device *dev, const bb_gemm_shape *shape) {
    struct bb_gemm *g = bb_cpu_of(dev)->gemm;
    for (bb_gemm_op *op = g->ops; op; op = op->next)
        if (same_shape(&op->shape, shape)) return op;
    bb_gemm_op *op = calloc(1, sizeof *op);
    if (op) op->arguments = calloc((size_t)dev->threads, sizeof *op->arguments);
    if (!op || !op->arguments) {
        free(op);
        bb_cpu_fail(dev, BB_ERR_MEMORY, "out of memory for a matrix product");
        return NULL;
    }
    op->shape = *shape;
    int threads = omp_get_max_threads();
    omp_set_num_threads(1); /* a primitive is made for the threads that it will run on: one */
    dnnl_status_t status = make_op(g, op, dev->threads);
    omp_set_num_threads(threads);
    if (status != dnnl_success) {
        free_op(op, dev->threads);
        bb_cpu_fail(dev, BB_ERR_INTERNAL, "%s has no product of kind %d, %lld x %lld x %lld (status %d)", bb_gemm_version(),
                    (int)shape->kind, (long long)shape->m, (long long)shape->n, (long long)shape->k, (int)status);
        return NULL;
    }
    op->next = g->ops;
    g->ops = op;
    return op;
}

size_t bb_gemm_packed_bytes(const bb_gemm_op *op) { return bb_align_up(dnnl_memory_desc_get_size(&op->packed)); }

size_t bb_gemm_scratch_bytes(const bb_gemm_op *op) { return bb_align_up(op->scratch_bytes); }

void bb_gemm_pack(bb_device *dev, const bb_gemm_op *op, void *packed, const void *b, int64_t b_row, int64_t b_col) {
    struct bb_gemm *g = bb_cpu_of(dev)->gemm;
    dnnl_data_type_t at, bt, ct;
    types_of(op->shape.kind, &at, &bt, &ct);
    dnnl_dims_t dims = {op->shape.k, op->shape.n}, strides = {b_row, b_col};
    dnnl_memory_desc_t plain;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_memory_t from = NULL, to = NULL;
    int threads = omp_get_max_threads();
    omp_set_num_threads(dev->threads);
    dnnl_status_t status = dnnl_memory_desc_init_by_strides(&plain, 2, dims, bt, strides);
    if (!status) status = dnnl_reorder_primitive_desc_create(&desc, &plain, g->engine, &op->packed, g->engine, NULL);
    if (!status) status = dnnl_primitive_create(&reorder, desc);
    if (!status) status = dnnl_memory_create(&from, &plain, g->engine, (void *)(uintptr_t)b);
    if (!status) status = dnnl_memory_create(&to, &op->packed, g->engine, packed);
    if (!status) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
        status = dnnl_primitive_execute(reorder, g->streams[0], 2, args);
    }
    if (status != dnnl_success)
        bb_cpu_fail(dev, BB_ERR_INTERNAL, "%s cannot pack a matrix (status %d)", bb_gemm_version(), (int)status);
    omp_set_num_threads(threads);
    if (from) dnnl_memory_destroy(from);
    if (to) dnnl_memory_destroy(to);
    if (reorder) dnnl_primitive_destroy(reorder);
    if (desc) dnnl_primitive_desc_destroy(desc);
}

void bb_gemm_run(bb_device *dev, const bb_gemm_op *op, void *c, const void *a, const void *packed, void *scratch) {
    struct bb_gemm *g = bb_cpu_of(dev)->gemm;
    int thread = omp_get_thread_num();
    arguments *args = &op->arguments[thread];
    dnnl_memory_set_data_handle(args->a, (void *)(uintptr_t)a);
    dnnl_memory_set_data_handle(args->b, (void *)(uintptr_t)packed);
    dnnl_memory_set_data_handle(args->c, c);
    dnnl_memory_set_data_handle(args->scratch, scratch);
    dnnl_exec_arg_t list[] = {
        {DNNL_ARG_SRC, args->a}, {DNNL_ARG_WEIGHTS, args->b}, {DNNL_ARG_DST, args->c}, {DNNL_ARG_SCRATCHPAD, args->scratch}};
    /* oneDNN counts its threads anew at each run, and takes a region of one thread for none */
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    dnnl_status_t status = dnnl_primitive_execute(op->primitive, g->streams[thread], 4, list);
    omp_set_num_threads(threads);
    if (status != dnnl_success)
        bb_cpu_fail(dev, BB_ERR_INTERNAL, "%s failed in a matrix product (status %d)", bb_gemm_version(), (int)status);
}

#define TRANSPOSE(type)                                                                                                        \
    for (int64_t r0 = 0; r0 < rows; r0 += TRANSPOSE_TILE)                                                                      \
        for (int64_t c = 0; c < columns; c++)                                                                                  \
            for (int64_t r = r0; r < rows && r < r0 + TRANSPOSE_TILE; r++)                                                     \
                ((type *)to)[c * rows + r] = ((const type *)from)[r * from_row + c];

void bb_gemm_transpose(void *to, const void *from, int64_t rows, int64_t columns, int64_t from_row, size_t element) {
    if (element == sizeof(uint16_t)) {
        TRANSPOSE(uint16_t)
    } else {
        TRANSPOSE(uint32_t)
    }
}

void *bb_gemm_shared(bb_device *dev, size_t bytes) {
    struct bb_gemm *g = bb_cpu_of(dev)->gemm;
    if (bytes > g->shared_bytes) {
        free(g->shared);
        g->shared_bytes = bb_align_up(bytes);
        g->shared = aligned_alloc(BB_ALIGN, g->shared_bytes);
        if (!g->shared) {
            g->shared_bytes = 0;
            bb_cpu_fail(dev, BB_ERR_MEMORY, "no memory for %.1f MB of scratch", (double)bytes * 1e-6);
        }
    }
    return g->shared;
}
