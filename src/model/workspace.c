// SPDX-License-Identifier: MIT
#include "model/workspace.h"

#include <stdlib.h>

#include "core/exact_math.h"
#include "model/ngram.h"

static void layout(bb_workspace *w, bb_arena *arena, bb_device *device, const bb_config *c, const bb_workspace_shape *ws) {
    int64_t M = ws->B * ws->T, C = c->d_model, L = c->n_layer, D = C / c->n_head;
    bb_dtype act = device->ops->act_dtype;
    bb_block_shape shape = {.B = ws->B,
                            .T = ws->T,
                            .C = C,
                            .H = c->n_head,
                            .Hk = c->n_kv_head,
                            .D = D,
                            .F = c->d_ff,
                            .rows = device->forward_rows,
                            .act_quant = c->act_quant,
                            .dense = c->dense,
                            .training = ws->training};
    size_t f32_rows = (size_t)M * sizeof(float), table_bytes = (size_t)(ws->positions * (D / 2)) * sizeof(float);
    w->x = bb_arena_alloc(arena, (size_t)M);
    w->y = bb_arena_alloc(arena, (size_t)M);
    if (c->ngram_max) w->ngram_index = bb_arena_alloc(arena, (size_t)(M * bb_ngram_count(c)) * sizeof *w->ngram_index);
    w->rope_cos = bb_arena_alloc(arena, table_bytes);
    w->rope_sin = bb_arena_alloc(arena, table_bytes);
    w->final_r = bb_arena_alloc(arena, f32_rows);
    w->h = bb_arena_alloc(arena, f32_rows * (size_t)C);
    w->logits = bb_arena_alloc(arena, f32_rows * (size_t)c->vocab_size);
    w->nll = bb_arena_alloc(arena, f32_rows);

    float *x = NULL;
    bb_block_saved saved = {0};
    for (int64_t l = 0; l <= L; l++) {
        if (ws->training || l == 0) x = bb_arena_alloc(arena, f32_rows * (size_t)C);
        if (w->block_x) w->block_x[l] = x;
        if (l == L) break;
        if ((ws->training && !ws->recompute) || l == 0) bb_block_saved_layout(&saved, arena, act, &shape);
        if (w->saved) w->saved[l] = saved;
    }
    bb_block_scratch_layout(&w->scratch, arena, act, &shape);
    if (ws->training) w->dx = bb_arena_alloc(arena, f32_rows * (size_t)C);
}

size_t bb_workspace_bytes(bb_device *device, const bb_config *config, const bb_workspace_shape *shape) {
    bb_arena measure = {0};
    bb_workspace w = {0};
    layout(&w, &measure, device, config, shape);
    return measure.used;
}

void bb_workspace_close(bb_workspace *w, bb_device *device) {
    if (w->memory) device->ops->free(device, w->memory, w->bytes);
    free(w->block_x);
    free(w->saved);
    free(w->host_nll);
    free(w->host_ngram_index);
    *w = (bb_workspace){0};
}

/* Angles in double: at position 10^5 an f32 product would be off by 10^-2 radians. */
static bb_status fill_rope(const bb_workspace *w, bb_device *device, const bb_config *c, bb_error *err) {
    int64_t T = w->positions, half = c->d_model / c->n_head / 2;
    size_t n = (size_t)(T * half), bytes = n * sizeof(float);
    float *host = malloc(2 * bytes);
    if (!host) return bb_fail(err, BB_ERR_MEMORY, "out of memory for the RoPE table of %lld positions", (long long)T);
    for (int64_t i = 0; i < half; i++) {
        double frequency = bb_pow(c->rope_base, -(double)i / (double)half);
        for (int64_t t = 0; t < T; t++) {
            double cos, sin;
            bb_cos_sin((double)t * frequency, &cos, &sin);
            host[t * half + i] = (float)cos;
            host[(int64_t)n + t * half + i] = (float)sin;
        }
    }
    device->ops->copy_in(device, w->rope_cos, host, bytes);
    device->ops->copy_in(device, w->rope_sin, host + n, bytes);
    bb_status status = device->ops->sync(device, err);
    free(host);
    return status;
}

bb_status bb_workspace_open(bb_workspace *w, bb_device *device, const bb_config *config, const bb_workspace_shape *shape,
                            bb_error *err) {
    bb_status status = BB_OK;
    size_t layers = (size_t)config->n_layer, rows = (size_t)(shape->B * shape->T);
    bb_workspace_close(w, device); /* close first: both workspaces may not fit at once */
    w->training = shape->training;
    w->recompute = shape->recompute;
    w->positions = shape->positions;
    w->bytes = bb_workspace_bytes(device, config, shape);
    w->memory = device->ops->alloc(device, w->bytes);
    w->block_x = calloc(layers + 1, sizeof *w->block_x);
    w->saved = calloc(layers, sizeof *w->saved);
    w->host_nll = malloc(rows * sizeof *w->host_nll);
    size_t index_bytes = rows * (size_t)bb_ngram_count(config) * sizeof *w->host_ngram_index;
    w->host_ngram_index = index_bytes ? malloc(index_bytes) : NULL;
    if (!w->memory || !w->block_x || !w->saved || !w->host_nll || (index_bytes && !w->host_ngram_index)) {
        status = bb_fail(err, BB_ERR_MEMORY, "no memory for a workspace of %.1f MB (batch_size %lld, seq_len %lld%s)",
                         (double)w->bytes * 1e-6, (long long)shape->B, (long long)shape->T,
                         shape->training && !shape->recompute ? "; recomputing activations needs less" : "");
        goto fail;
    }
    bb_arena arena = {.base = w->memory};
    layout(w, &arena, device, config, shape);
    BB_TRY_GOTO(status, fail, fill_rope(w, device, config, err));
    w->max_rows = (int64_t)rows;
    return BB_OK;
fail:
    bb_workspace_close(w, device);
    return status;
}
