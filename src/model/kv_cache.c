// SPDX-License-Identifier: MIT
#include "model/kv_cache.h"

#include <stdlib.h>

/* Positions. A run's pages are taken, and cleared, all at once: before the first byte, and whenever a run is full. */
enum { MAX_RUN = 2048 };

/* A layer's first run, which for f32 is the only one. */
static void layer_layout(bb_kv *kv, bb_arena *arena, const bb_config *c, int64_t capacity, bb_kv_type type) {
    bool codes = type != BB_KV_F32;
    int64_t unit = codes ? BB_KV_ROWS : 1, runs = codes ? bb_ceil_div(capacity, MAX_RUN) : 1;
    if (runs > 1) unit = BB_KV_RUN;
    int64_t run = bb_ceil_div(capacity, runs * unit) * unit, D = c->d_model / c->n_head, rows = run * c->n_kv_head;
    size_t bytes = (size_t)rows * (codes ? (size_t)bb_kv_row_bytes(type, D) : (size_t)D * sizeof(float));
    *kv = (bb_kv){.type = type, .run = run};
    kv->k = bb_arena_take(arena, bytes);
    kv->v = bb_arena_take(arena, bytes);
    if (!codes) return;
    kv->k_scale = bb_arena_take(arena, (size_t)rows * sizeof(float));
    kv->v_scale = bb_arena_take(arena, (size_t)rows * sizeof(float));
}

size_t bb_kv_cache_bytes(const bb_config *c, int64_t capacity, bb_kv_type type) {
    bb_arena measure = {0};
    bb_kv kv;
    layer_layout(&kv, &measure, c, capacity, type);
    return (size_t)c->n_layer * measure.used * (size_t)bb_ceil_div(capacity, kv.run);
}

static int64_t prefill_rows(int64_t capacity) { return bb_min(capacity, BB_PREFILL_ROWS); }

size_t bb_kv_cache_workspace_bytes(bb_device *device, const bb_config *config, int64_t capacity) {
    bb_workspace_shape shape = {.B = 1, .T = prefill_rows(capacity), .positions = capacity};
    return bb_workspace_bytes(device, config, &shape);
}

bb_status bb_kv_cache_open(bb_model *m, int64_t capacity, bb_kv_type type, bb_kv_cache *out, bb_error *err) {
    BB_DEVICE_SCOPE(m->device);
    *out = (bb_kv_cache){.device = m->device, .capacity = capacity, .layer_count = m->config.n_layer};
    if (capacity < 1 || (type != BB_KV_INT6 && type != BB_KV_INT8 && type != BB_KV_F32))
        return bb_fail(err, BB_ERR_ARGUMENT, "a cache of %lld positions, of type %d", (long long)capacity, (int)type);
    BB_TRY(bb_model_reserve_rows(m, prefill_rows(capacity), capacity, err));
    out->bytes = bb_kv_cache_bytes(&m->config, capacity, type);
    out->memory = m->device->ops->alloc(m->device, out->bytes);
    out->layers = calloc((size_t)out->layer_count, sizeof *out->layers);
    if (!out->memory || !out->layers) {
        bb_kv_cache_close(out);
        return bb_fail(err, BB_ERR_MEMORY, "no memory for a KV cache of %lld bytes of context: %.1f MB", (long long)capacity,
                       1e-6 * (double)bb_kv_cache_bytes(&m->config, capacity, type));
    }
    bb_arena arena = {.base = out->memory};
    for (int l = 0; l < out->layer_count; l++) layer_layout(&out->layers[l], &arena, &m->config, capacity, type);
    for (int l = 0; l < out->layer_count; l++) out->layers[l].run_bytes = (int64_t)arena.used;
    return BB_OK;
}

void bb_kv_cache_close(bb_kv_cache *cache) {
    if (cache->memory) {
        BB_DEVICE_SCOPE(cache->device);
        cache->device->ops->free(cache->device, cache->memory, cache->bytes);
    }
    free(cache->layers);
    *cache = (bb_kv_cache){0};
}
