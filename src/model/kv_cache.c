// SPDX-License-Identifier: MIT
#include "model/kv_cache.h"

#include <stdlib.h>
#include <string.h>

static bb_kv kv_of(const bb_config *c, int64_t capacity, bb_kv_type type) {
    return (bb_kv){.type = type, .layers = c->n_layer, .capacity = capacity, .Hk = c->n_kv_head, .D = c->d_model / c->n_head};
}

size_t bb_kv_cache_bytes(bb_device *device, const bb_config *config, int64_t capacity, bb_kv_type type) {
    bb_kv kv = kv_of(config, capacity, type);
    return device->ops->kv_bytes(device, &kv);
}

static int64_t prefill_rows(int64_t capacity) { return bb_min(capacity, BB_PREFILL_ROWS); }

size_t bb_kv_cache_workspace_bytes(bb_device *device, const bb_config *config, int64_t capacity) {
    bb_workspace_shape shape = {.B = 1, .T = prefill_rows(capacity), .positions = capacity};
    return bb_workspace_bytes(device, config, &shape);
}

bb_status bb_kv_cache_open(bb_model *m, int64_t capacity, bb_kv_type type, bb_kv_cache *out, bb_error *err) {
    BB_DEVICE_SCOPE(m->device);
    *out = (bb_kv_cache){.device = m->device, .kv = kv_of(&m->config, capacity, type)};
    if (capacity < 1 || (type != BB_KV_INT6 && type != BB_KV_INT8 && type != BB_KV_F32))
        return bb_fail(
            err, BB_ERR_ARGUMENT,
            "a KV cache of %lld positions and type %d: it needs at least 1 position, and type f32 (%d), int8 (%d) or int6 (%d)",
            (long long)capacity, (int)type, BB_KV_F32, BB_KV_INT8, BB_KV_INT6);
    BB_TRY(bb_model_reserve_rows(m, prefill_rows(capacity), capacity, err));
    out->bytes = m->device->ops->kv_bytes(m->device, &out->kv);
    out->kv.data = m->device->ops->alloc(m->device, out->bytes);
    if (m->config.ngram_max) out->text = malloc((size_t)capacity);
    if (!out->kv.data || (m->config.ngram_max && !out->text)) {
        bb_kv_cache_close(out);
        return bb_fail(err, BB_ERR_MEMORY, "no memory for a KV cache of %lld bytes of context: %.1f MB", (long long)capacity,
                       1e-6 * (double)bb_kv_cache_bytes(m->device, &m->config, capacity, type));
    }
    return BB_OK;
}

void bb_kv_cache_close(bb_kv_cache *cache) {
    if (cache->kv.data) {
        BB_DEVICE_SCOPE(cache->device);
        cache->device->ops->free(cache->device, cache->kv.data, cache->bytes);
    }
    free(cache->text);
    *cache = (bb_kv_cache){0};
}

void bb_kv_cache_copy(bb_kv_cache *to, const bb_kv_cache *from, int64_t n) {
    BB_DEVICE_SCOPE(to->device);
    to->device->ops->kv_copy(to->device, &to->kv, &from->kv, n);
    if (to->text) memcpy(to->text, from->text, (size_t)n);
    to->length = n;
}
