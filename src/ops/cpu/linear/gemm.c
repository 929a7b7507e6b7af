// SPDX-License-Identifier: MIT
#include "ops/cpu/linear/gemm.h"

#include <dnnl.h>
#include <omp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/arena.h"

enum { ROW_TILE = 96, VERSION_BYTES = 32 };

/* What one thread passes to a primitive; its handles are set at each call. */
typedef struct arguments {
    dnnl_memory_t a, b, c, scratch;
} arguments;

struct bb_gemm_op {
    bb_gemm_shape shape;
    dnnl_primitive_t primitive;
    arguments *arguments; /* (threads) */
    bb_gemm_op *next;
};

struct bb_gemm {
    dnnl_engine_t engine;
    dnnl_stream_t *streams; /* (threads) */
    bb_gemm_op *ops;
};

const char *bb_gemm_version(void) {
    static char text[VERSION_BYTES];
    const dnnl_version_t *v = dnnl_version();
    (void)snprintf(text, sizeof text, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
    return text;
}

bb_status bb_gemm_open(bb_device *dev, bb_error *err) {
    bb_cpu *cpu = bb_cpu_of(dev);
    struct bb_gemm *g = calloc(1, sizeof *g);
    if (!g) return bb_fail(err, BB_ERR_MEMORY, "out of memory for the cpu device");
    cpu->gemm = g;
    /* oneDNN detects the processor itself; a lowered level lowers oneDNN too. This works only before its first use in the
     * process. */
    if (cpu->kernels.onednn_isa != BB_ONEDNN_ANY) dnnl_set_max_cpu_isa((dnnl_cpu_isa_t)cpu->kernels.onednn_isa);
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
    free(g);
    bb_cpu_of(dev)->gemm = NULL;
}

static dnnl_status_t describe_matrix(dnnl_memory_desc_t *out, int64_t rows, int64_t columns, bool transposed,
                                     dnnl_data_type_t type) {
    dnnl_dims_t dims = {rows, columns};
    return dnnl_memory_desc_init_by_tag(out, 2, dims, type, transposed ? dnnl_ba : dnnl_ab);
}

static dnnl_status_t make_attributes(dnnl_primitive_attr_t *out, bool accumulate) {
    dnnl_post_ops_t post = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(out);
    if (!status) status = dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user);
    if (!status && accumulate) {
        status = dnnl_post_ops_create(&post);
        if (!status) status = dnnl_post_ops_append_sum(post, 1.0f);
        if (!status) status = dnnl_primitive_attr_set_post_ops(*out, post);
        if (post) dnnl_post_ops_destroy(post);
    }
    return status;
}

static dnnl_status_t make_arguments(arguments *out, dnnl_engine_t engine, const dnnl_memory_desc_t *a,
                                    const dnnl_memory_desc_t *b, const dnnl_memory_desc_t *c,
                                    const dnnl_memory_desc_t *scratch) {
    dnnl_status_t status = dnnl_memory_create(&out->a, a, engine, DNNL_MEMORY_NONE);
    if (!status) status = dnnl_memory_create(&out->b, b, engine, DNNL_MEMORY_NONE);
    if (!status) status = dnnl_memory_create(&out->c, c, engine, DNNL_MEMORY_NONE);
    if (!status) status = dnnl_memory_create(&out->scratch, scratch, engine, DNNL_MEMORY_ALLOCATE);
    return status;
}

static dnnl_status_t make_op(const struct bb_gemm *g, bb_gemm_op *op, int threads) {
    const bb_gemm_shape *s = &op->shape;
    dnnl_memory_desc_t a, b, c;
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t status = describe_matrix(&a, s->m, s->k, s->a_transposed, dnnl_f32);
    if (!status) status = describe_matrix(&b, s->k, s->n, s->b_transposed, dnnl_f32);
    if (!status) status = describe_matrix(&c, s->m, s->n, false, dnnl_f32);
    if (!status) status = dnnl_matmul_desc_init(&matmul, &a, &b, NULL, &c);
    if (!status) status = make_attributes(&attributes, s->accumulate);
    if (!status) status = dnnl_primitive_desc_create(&desc, &matmul, attributes, g->engine, NULL);
    if (!status) status = dnnl_primitive_create(&op->primitive, desc);
    for (int i = 0; i < threads && !status; i++)
        status = make_arguments(&op->arguments[i], g->engine, &a, &b, &c,
                                dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0));
    if (desc) dnnl_primitive_desc_destroy(desc);
    if (attributes) dnnl_primitive_attr_destroy(attributes);
    return status;
}

static bool same_shape(const bb_gemm_shape *a, const bb_gemm_shape *b) {
    return a->accumulate == b->accumulate && a->a_transposed == b->a_transposed && a->b_transposed == b->b_transposed &&
           a->m == b->m && a->n == b->n && a->k == b->k;
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
    omp_set_num_threads(1); /* a primitive is created for the number of threads it will run on: one */
    dnnl_status_t status = make_op(g, op, dev->threads);
    omp_set_num_threads(threads);
    if (status != dnnl_success) {
        free_op(op, dev->threads);
        bb_cpu_fail(dev, BB_ERR_INTERNAL, "%s has no product of %lld x %lld x %lld (status %d)", bb_gemm_version(),
                    (long long)shape->m, (long long)shape->n, (long long)shape->k, (int)status);
        return NULL;
    }
    op->next = g->ops;
    g->ops = op;
    return op;
}

/* oneDNN's f32 products below AVX-512 point the stack pointer into their scratch memory while they run (2.6.3:
 * jit_avx_gemm_f32): a signal handler called there would write its frame over the heap. So signals are blocked during a
 * product, except synchronous ones (SIGSEGV etc.), which cannot be. */
static sigset_t hold_signals(void) {
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    sigset_t held, before;
    sigfillset(&held);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) sigdelset(&held, own[i]);
    pthread_sigmask(SIG_SETMASK, &held, &before);
    return before;
}

void bb_gemm_run(bb_device *dev, const bb_gemm_op *op, void *c, const void *a, const void *b) {
    int thread = omp_get_thread_num();
    arguments *args = &op->arguments[thread];
    dnnl_memory_set_data_handle(args->a, (void *)(uintptr_t)a);
    dnnl_memory_set_data_handle(args->b, (void *)(uintptr_t)b);
    dnnl_memory_set_data_handle(args->c, c);
    dnnl_exec_arg_t list[] = {
        {DNNL_ARG_SRC, args->a}, {DNNL_ARG_WEIGHTS, args->b}, {DNNL_ARG_DST, args->c}, {DNNL_ARG_SCRATCHPAD, args->scratch}};
    /* oneDNN counts its threads at each run and does not recognize a region of one thread */
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    sigset_t before = hold_signals();
    dnnl_status_t status = dnnl_primitive_execute(op->primitive, bb_cpu_of(dev)->gemm->streams[thread], 4, list);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    omp_set_num_threads(threads);
    if (status != dnnl_success)
        bb_cpu_fail(dev, BB_ERR_INTERNAL, "%s failed in a matrix product (status %d)", bb_gemm_version(), (int)status);
}

static size_t input_bytes(int64_t k) { return bb_align_up((size_t)(ROW_TILE * k) * sizeof(float)); }

size_t bb_gemm_rows_scratch(int64_t n, int64_t k) { return input_bytes(k) + (size_t)(ROW_TILE * n) * sizeof(float); }

void bb_gemm_rows(bb_device *dev, const bb_gemm_shape *shape, int64_t M, const void *b, bb_gemm_input *input,
                  bb_gemm_output *output, const void *context) {
    bb_gemm_shape s = *shape;
    s.m = ROW_TILE;
    const bb_gemm_op *whole = M >= ROW_TILE ? bb_gemm_get(dev, &s) : NULL, *last = NULL;
    s.m = M % ROW_TILE;
    if (s.m) last = bb_gemm_get(dev, &s);
    int64_t tiles = (M + ROW_TILE - 1) / ROW_TILE;
    size_t a_bytes = input_bytes(s.k), bytes = bb_gemm_rows_scratch(s.n, s.k);
#pragma omp parallel for num_threads(dev->threads) schedule(dynamic) if (tiles > 1)
    for (int64_t i = 0; i < tiles; i++) {
        int64_t m0 = i * ROW_TILE, rows = M - m0 < ROW_TILE ? M - m0 : ROW_TILE;
        const bb_gemm_op *op = rows == ROW_TILE ? whole : last;
        uint8_t *buffer = op ? bb_cpu_scratch(dev, bytes) : NULL;
        if (!buffer) continue;
        bb_gemm_run(dev, op, buffer + a_bytes, input(context, m0, rows, buffer), b);
        output(context, m0, rows, buffer + a_bytes);
    }
}
