// SPDX-License-Identifier: MIT
/* The model's life: parameters, gradients, prepared weights and the workspace, each one range of memory. */
#include "model/bitbytelm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STAGING = 1 << 16 }; /* elements moved between host and device at a time */

static const int segment_params[] = {BB_P_Q, BB_P_K, BB_P_V};

static int64_t head_size(const bb_config *c) { return c->d_model / c->n_head; }

/* ---- prepared weights ------------------------------------------------------------------------------------------------ */

/* The codes of all blocks lie one behind the other, in the order of the parameters; behind them the scales. */
static void carve_weights(bb_block *blocks, bb_arena *arena, bb_device *dev, const bb_config *c, bool for_inference) {
    int64_t C = c->d_model, kv = c->n_kv_head * head_size(c), F = c->d_ff;
    for (int l = 0; l < c->n_layer; l++) {
        bb_block *b = &blocks[l];
        b->qkv = (bb_ternary){.n = C + 2 * kv, .k = C, .segments = 3, .segment_end = {C, C + kv, C + 2 * kv}};
        b->o = (bb_ternary){.n = C, .k = C, .segments = 1, .segment_end = {C}};
        b->gate_up = (bb_ternary){.n = 2 * F, .k = C, .segments = 1, .segment_end = {2 * F}};
        b->down = (bb_ternary){.n = C, .k = F, .segments = 1, .segment_end = {C}};
        bb_ternary *all[] = {&b->qkv, &b->o, &b->gate_up, &b->down};
        for (int i = 0; i < 4; i++) {
            all[i]->dense = for_inference && dev->ops->ternary_dense(dev);
            all[i]->data = bb_arena_take(arena, dev->ops->ternary_bytes(dev, all[i]));
        }
    }
    for (int l = 0; l < c->n_layer; l++) {
        bb_ternary *all[] = {&blocks[l].qkv, &blocks[l].o, &blocks[l].gate_up, &blocks[l].down};
        for (int i = 0; i < 4; i++) {
            all[i]->scale = bb_arena_take(arena, (size_t)all[i]->segments * sizeof(float));
            all[i]->next = i < 3 ? all[i + 1] : l + 1 < c->n_layer ? &blocks[l + 1].qkv : NULL;
        }
    }
}

size_t bb_quantized_measure(bb_device *device, const bb_config *config, bool for_inference) {
    bb_arena measure = {0};
    bb_block block;
    bb_config one = *config;
    one.n_layer = 1;
    carve_weights(&block, &measure, device, &one, for_inference);
    return measure.used * (size_t)config->n_layer;
}

static float *place(float *base, const bb_param_table *t, int index) {
    return base && t->entries[index].offset >= 0 ? base + t->entries[index].offset : NULL;
}

static void point_blocks(bb_model *m) {
    for (int l = 0; l < m->config.n_layer; l++) {
        int first = BB_PARAM_FIRST_BLOCK + l * BB_PARAMS_PER_BLOCK;
        bb_block *b = &m->blocks[l];
        b->n1 = place(m->params, &m->table, first + BB_P_N1);
        b->n2 = place(m->params, &m->table, first + BB_P_N2);
        b->w_qkv = place(m->params, &m->table, first + segment_params[0]);
        b->w_o = place(m->params, &m->table, first + BB_P_O);
        b->w_gate_up = place(m->params, &m->table, first + BB_P_GATE_UP);
        b->w_down = place(m->params, &m->table, first + BB_P_DOWN);
        b->dn1 = place(m->grads, &m->table, first + BB_P_N1);
        b->dn2 = place(m->grads, &m->table, first + BB_P_N2);
        b->dw_qkv = place(m->grads, &m->table, first + segment_params[0]);
        b->dw_o = place(m->grads, &m->table, first + BB_P_O);
        b->dw_gate_up = place(m->grads, &m->table, first + BB_P_GATE_UP);
        b->dw_down = place(m->grads, &m->table, first + BB_P_DOWN);
    }
}

bb_ternary bb_model_ternary(const bb_model *m, int index) {
    const bb_block *b = &m->blocks[(index - BB_PARAM_FIRST_BLOCK) / BB_PARAMS_PER_BLOCK];
    switch ((index - BB_PARAM_FIRST_BLOCK) % BB_PARAMS_PER_BLOCK) {
    case BB_P_Q: return bb_ternary_segment(m->device, &b->qkv, 0);
    case BB_P_K: return bb_ternary_segment(m->device, &b->qkv, 1);
    case BB_P_V: return bb_ternary_segment(m->device, &b->qkv, 2);
    case BB_P_O: return b->o;
    case BB_P_GATE_UP: return b->gate_up;
    default: return b->down;
    }
}

float *bb_model_swap_gradients(bb_model *m, float *grads) {
    float *old = m->grads;
    m->grads = grads;
    point_blocks(m);
    return old;
}

void bb_model_parameters_changed(bb_model *model) { model->prepared = false; }

void bb_model_prepare(bb_model *m) {
    if (m->prepared || m->for_inference) return;
    const bb_ops *ops = m->device->ops;
    for (int l = 0; l < m->config.n_layer; l++) {
        bb_block *b = &m->blocks[l];
        ops->ternary_quant(m->device, &b->qkv, b->w_qkv);
        ops->ternary_quant(m->device, &b->o, b->w_o);
        ops->ternary_quant(m->device, &b->gate_up, b->w_gate_up);
        ops->ternary_quant(m->device, &b->down, b->w_down);
    }
    m->prepared = true;
}

/* ---- workspace ------------------------------------------------------------------------------------------------------- */

static void carve_workspace(bb_workspace *w, bb_arena *arena, bb_device *dev, const bb_config *c, int64_t B, int64_t T) {
    int64_t M = B * T, C = c->d_model, L = c->n_layer;
    bb_block_shape shape = {.B = B,
                            .T = T,
                            .C = C,
                            .H = c->n_head,
                            .Hk = c->n_kv_head,
                            .D = head_size(c),
                            .F = c->d_ff,
                            .rows = dev->forward_rows,
                            .act_quant = c->act_quant,
                            .training = w->training};
    size_t row_bytes = (size_t)M * sizeof(float);
    w->x = bb_arena_take(arena, (size_t)M);
    w->y = bb_arena_take(arena, (size_t)M);
    w->rope_cos = bb_arena_take(arena, (size_t)(w->positions * (shape.D / 2)) * sizeof(float));
    w->rope_sin = bb_arena_take(arena, (size_t)(w->positions * (shape.D / 2)) * sizeof(float));
    w->final_r = bb_arena_take(arena, row_bytes);
    w->h = bb_arena_take(arena, row_bytes * (size_t)C);
    w->logits = bb_arena_take(arena, row_bytes * (size_t)c->vocab_size);
    w->nll = bb_arena_take(arena, row_bytes);

    float *x = NULL;
    bb_block_saved saved = {0};
    for (int64_t l = 0; l <= L; l++) {
        if (w->training || l == 0) x = bb_arena_take(arena, row_bytes * (size_t)C);
        if (w->block_x) w->block_x[l] = x;
        if (l == L) break;
        if ((w->training && !w->recompute) || l == 0) bb_block_saved_carve(&saved, arena, dev->ops->act_dtype, &shape);
        if (w->saved) w->saved[l] = saved;
    }
    bb_block_scratch_carve(&w->scratch, arena, dev->ops->act_dtype, &shape);
    if (w->training) w->dx = bb_arena_take(arena, row_bytes * (size_t)C);
}

size_t bb_workspace_measure(bb_device *device, const bb_config *config, int batch_size, int seq_len, bool training,
                            bool recompute) {
    bb_arena measure = {0};
    bb_workspace w = {.training = training, .recompute = recompute, .positions = seq_len};
    carve_workspace(&w, &measure, device, config, batch_size, seq_len);
    return measure.used;
}

static int64_t prefill_rows(int64_t capacity) { return capacity < BB_PREFILL_ROWS ? capacity : BB_PREFILL_ROWS; }

size_t bb_cache_workspace_measure(bb_device *device, const bb_config *config, int64_t capacity) {
    bb_arena measure = {0};
    bb_workspace w = {.positions = capacity};
    carve_workspace(&w, &measure, device, config, 1, prefill_rows(capacity));
    return measure.used;
}

static void workspace_free(bb_model *m) {
    bb_workspace *w = &m->ws;
    if (w->memory) m->device->ops->free(m->device, w->memory, w->bytes);
    free(w->block_x);
    free(w->saved);
    free(w->host_nll);
    *w = (bb_workspace){0};
}

/* Angles in double: at position 10^5 an f32 product would be off by 10^-2 radians. */
static bb_status fill_rope(bb_model *m, bb_error *err) {
    int64_t T = m->ws.positions, half = head_size(&m->config) / 2;
    size_t n = (size_t)(T * half), bytes = n * sizeof(float);
    float *host = malloc(2 * bytes);
    if (!host) return bb_fail(err, BB_ERR_MEMORY, "out of memory for the rotary table of %lld positions", (long long)T);
    for (int64_t i = 0; i < half; i++) {
        double frequency = pow(m->config.rope_base, -(double)i / (double)half);
        for (int64_t t = 0; t < T; t++) {
            host[t * half + i] = (float)cos((double)t * frequency);
            host[(int64_t)n + t * half + i] = (float)sin((double)t * frequency);
        }
    }
    m->device->ops->copy_in(m->device, m->ws.rope_cos, host, bytes);
    m->device->ops->copy_in(m->device, m->ws.rope_sin, host + n, bytes);
    bb_status status = m->device->ops->sync(m->device, err);
    free(host);
    return status;
}

/* The workspace for (B,T) with so many positions, in place of the present one. */
static bb_status replace_workspace(bb_model *m, int64_t B, int64_t T, int64_t positions, bool training, bool recompute,
                                   bb_error *err) {
    bb_workspace *w = &m->ws;
    const bb_ops *ops = m->device->ops;
    bb_status status = BB_OK;
    workspace_free(m);
    w->training = training;
    w->recompute = training && recompute;
    w->positions = positions;
    bb_arena measure = {0};
    bb_workspace sizes = {.training = training, .recompute = w->recompute, .positions = positions};
    carve_workspace(&sizes, &measure, m->device, &m->config, B, T);
    w->bytes = measure.used;
    w->memory = ops->alloc(m->device, w->bytes);
    size_t layers = (size_t)m->config.n_layer;
    w->block_x = calloc(layers + 1, sizeof *w->block_x);
    w->saved = calloc(layers, sizeof *w->saved);
    w->host_nll = malloc((size_t)(B * T) * sizeof *w->host_nll);
    if (!w->memory || !w->block_x || !w->saved || !w->host_nll) {
        status = bb_fail(err, BB_ERR_MEMORY, "no memory for a workspace of %.1f MB (batch_size %lld, seq_len %lld%s)",
                         (double)w->bytes * 1e-6, (long long)B, (long long)T,
                         training && !recompute ? "; recomputing activations takes less" : "");
        goto fail;
    }
    bb_arena arena = {.base = w->memory};
    carve_workspace(w, &arena, m->device, &m->config, B, T);
    BB_TRY_GOTO(status, fail, fill_rope(m, err));
    w->max_rows = B * T;
    return BB_OK;
fail:
    workspace_free(m);
    return status;
}

bb_status bb_model_reserve(bb_model *m, int batch_size, int seq_len, bool training, bool recompute, bb_error *err) {
    if (batch_size < 1 || seq_len < 1)
        return bb_fail(err, BB_ERR_ARGUMENT, "batch_size %d and seq_len %d must be at least 1", batch_size, seq_len);
    int64_t rows = (int64_t)batch_size * seq_len;
    bb_workspace *w = &m->ws;
    if (rows <= w->max_rows && seq_len <= w->positions && (!training || (w->training && w->recompute == recompute)))
        return BB_OK;
    if (training && m->for_inference)
        return bb_fail(err, BB_ERR_ARGUMENT,
                       "a model that was loaded for inference can't be trained: it has no weights but the ternary ones");
    training = training || w->training;
    if (rows > INT32_MAX / 2)
        return bb_fail(err, BB_ERR_ARGUMENT, "batch_size %d x seq_len %d is more than one micro-batch can hold", batch_size,
                       seq_len);
    if (training && !m->grads) {
        workspace_free(m);
        m->grads = m->device->ops->alloc(m->device, (size_t)m->table.total * sizeof(float));
        if (!m->grads)
            return bb_fail(err, BB_ERR_MEMORY, "no memory for the gradients: %.1f MB", (double)m->table.total * 4e-6);
        point_blocks(m);
    }
    return replace_workspace(m, batch_size, seq_len, seq_len > w->positions ? seq_len : w->positions, training, recompute, err);
}

/* ---- the cache of keys and values ------------------------------------------------------------------------------------ */

/* Positions. A run's pages are taken, and cleared, all at once: before the first byte, and whenever a run is full. */
enum { KV_RUN_MOST = 2048 };

/* A layer's first run, which for f32 is the only one. */
static void carve_layer(bb_kv *kv, bb_arena *arena, const bb_config *c, int64_t capacity, bb_kv_type type) {
    bool codes = type != BB_KV_F32;
    int64_t unit = codes ? BB_KV_ROWS : 1, runs = codes ? (capacity + KV_RUN_MOST - 1) / KV_RUN_MOST : 1;
    if (runs > 1) unit = BB_KV_RUN;
    int64_t run = (capacity + runs * unit - 1) / (runs * unit) * unit, D = head_size(c), rows = run * c->n_kv_head;
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
    carve_layer(&kv, &measure, c, capacity, type);
    return (size_t)c->n_layer * measure.used * (size_t)((capacity + kv.run - 1) / kv.run);
}

bb_status bb_kv_cache_open(bb_model *m, int64_t capacity, bb_kv_type type, bb_kv_cache *out, bb_error *err) {
    int64_t rows = prefill_rows(capacity);
    *out = (bb_kv_cache){.device = m->device, .capacity = capacity, .layer_count = m->config.n_layer};
    if (capacity < 1 || (type != BB_KV_INT6 && type != BB_KV_INT8 && type != BB_KV_F32))
        return bb_fail(err, BB_ERR_ARGUMENT, "a cache of %lld positions, of type %d", (long long)capacity, (int)type);
    if (m->ws.max_rows < rows || m->ws.positions < capacity)
        BB_TRY(replace_workspace(m, 1, m->ws.max_rows > rows ? m->ws.max_rows : rows,
                                 m->ws.positions > capacity ? m->ws.positions : capacity, m->ws.training, m->ws.recompute,
                                 err));
    out->bytes = bb_kv_cache_bytes(&m->config, capacity, type);
    out->memory = m->device->ops->alloc(m->device, out->bytes);
    out->layers = calloc((size_t)out->layer_count, sizeof *out->layers);
    if (!out->memory || !out->layers) {
        bb_kv_cache_close(out);
        return bb_fail(err, BB_ERR_MEMORY, "no memory for a KV cache of %lld bytes of context: %.1f MB", (long long)capacity,
                       1e-6 * (double)bb_kv_cache_bytes(&m->config, capacity, type));
    }
    bb_arena arena = {.base = out->memory};
    for (int l = 0; l < out->layer_count; l++) carve_layer(&out->layers[l], &arena, &m->config, capacity, type);
    for (int l = 0; l < out->layer_count; l++) out->layers[l].run_bytes = (int64_t)arena.used;
    return BB_OK;
}

void bb_kv_cache_close(bb_kv_cache *cache) {
    if (cache->memory) cache->device->ops->free(cache->device, cache->memory, cache->bytes);
    free(cache->layers);
    *cache = (bb_kv_cache){0};
}

/* ---- creation -------------------------------------------------------------------------------------------------------- */

static bb_status initialise(bb_model *m, uint64_t seed, bb_error *err) {
    float *staging = malloc(STAGING * sizeof(float));
    if (!staging) return bb_fail(err, BB_ERR_MEMORY, "out of memory while initialising");
    for (int i = 0; i < m->table.count; i++) {
        const bb_param *p = &m->table.entries[i];
        for (int64_t at = 0; at < p->count; at += STAGING) {
            int64_t n = p->count - at < STAGING ? p->count - at : STAGING;
            bb_param_initial_values(&m->table, i, at, n, seed, staging);
            m->device->ops->copy_in(m->device, m->params + p->offset + at, staging, (size_t)n * sizeof(float));
        }
    }
    free(staging);
    return m->device->ops->sync(m->device, err);
}

static bb_status create(bb_device *device, const bb_config *config, bool for_inference, bb_model **out, bb_error *err) {
    *out = NULL;
    BB_TRY(bb_config_check(config, err));
    bb_status status = BB_OK;
    bb_model *m = calloc(1, sizeof *m);
    if (!m) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a model");
    m->device = device;
    m->config = *config;
    m->trained_length = BB_DEFAULT_TRAINED_LENGTH;
    m->for_inference = for_inference;
    BB_TRY_GOTO(status, fail, bb_param_table_create(config, for_inference, &m->table, err));
    m->quantized_bytes = bb_quantized_measure(device, config, for_inference);
    m->blocks = calloc((size_t)config->n_layer, sizeof *m->blocks);
    m->params = device->ops->alloc(device, (size_t)m->table.held * sizeof(float));
    m->quantized = device->ops->alloc(device, m->quantized_bytes);
    if (!m->blocks || !m->params || !m->quantized) {
        status = bb_fail(err, BB_ERR_MEMORY, "no memory for a model of %lld parameters: %.1f MB and %.1f MB quantized",
                         (long long)m->table.total, (double)m->table.held * 4e-6, (double)m->quantized_bytes * 1e-6);
        goto fail;
    }
    bb_arena arena = {.base = m->quantized};
    carve_weights(m->blocks, &arena, device, config, for_inference);
    point_blocks(m);
    *out = m;
    return BB_OK;
fail:
    bb_model_free(m);
    return status;
}

bb_status bb_model_create_empty(bb_device *device, const bb_config *config, bb_model **out, bb_error *err) {
    return create(device, config, false, out, err);
}

bb_status bb_model_create_for_inference(bb_device *device, const bb_config *config, bb_model **out, bb_error *err) {
    return create(device, config, true, out, err);
}

bb_status bb_model_create(bb_device *device, const bb_config *config, uint64_t seed, bb_model **out, bb_error *err) {
    BB_TRY(bb_model_create_empty(device, config, out, err));
    bb_status status = initialise(*out, seed, err);
    if (status != BB_OK) {
        bb_model_free(*out);
        *out = NULL;
    }
    return status;
}

void bb_model_free(bb_model *m) {
    if (!m) return;
    const bb_ops *ops = m->device->ops;
    size_t range = (size_t)m->table.held * sizeof(float);
    workspace_free(m);
    if (m->params) ops->free(m->device, m->params, range);
    if (m->grads) ops->free(m->device, m->grads, range);
    if (m->quantized) ops->free(m->device, m->quantized, m->quantized_bytes);
    free(m->blocks);
    bb_param_table_free(&m->table);
    free(m);
}

/* ---- access ---------------------------------------------------------------------------------------------------------- */

const bb_config *bb_model_config(const bb_model *m) { return &m->config; }
uint64_t bb_model_parameters(const bb_model *m) { return (uint64_t)m->table.total; }
int bb_model_trained_length(const bb_model *m) { return m->trained_length; }
int bb_model_tensor_count(const bb_model *m) { return m->table.count; }

bb_status bb_model_tensor_info(const bb_model *m, int index, bb_tensor_info *out, bb_error *err) {
    if (index < 0 || index >= m->table.count)
        return bb_fail(err, BB_ERR_ARGUMENT, "tensor index %d is not below %d", index, m->table.count);
    const bb_param *p = &m->table.entries[index];
    *out = (bb_tensor_info){
        .name = p->name, .rank = p->rank, .shape = {p->shape[0], p->shape[1]}, .decays = p->decays, .ternary = p->ternary};
    return BB_OK;
}

static bb_status find_tensor(const bb_model *m, const char *name, size_t count, const bb_param **out, bb_error *err) {
    *out = bb_param_find(&m->table, name);
    if (!*out) return bb_fail(err, BB_ERR_ARGUMENT, "the model has no tensor named '%s'", name);
    if ((size_t)(*out)->count != count)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s has %lld elements, not %zu", name, (long long)(*out)->count, count);
    return BB_OK;
}

/* g * q of a ternary tensor. */
static bb_status get_ternary(const bb_model *m, const bb_param *p, float *out, bb_error *err) {
    bb_device *dev = m->device;
    bb_ternary t = bb_model_ternary(m, (int)(p - m->table.entries));
    size_t count = (size_t)p->count;
    float scale = 0;
    bb_status status = BB_OK;
    int8_t *device_q = dev->ops->alloc(dev, count), *q = malloc(count);
    if (!device_q || !q) {
        status = bb_fail(err, BB_ERR_MEMORY, "no memory to unpack %s: %.1f MB", p->name, 2e-6 * (double)count);
        goto done;
    }
    dev->ops->ternary_unpack(dev, device_q, &t);
    dev->ops->copy_out(dev, q, device_q, count);
    dev->ops->copy_out(dev, &scale, t.scale, sizeof scale);
    BB_TRY_GOTO(status, done, dev->ops->sync(dev, err));
    for (size_t i = 0; i < count; i++) out[i] = scale * (float)q[i];
done:
    if (device_q) dev->ops->free(dev, device_q, count);
    free(q);
    return status;
}

bb_status bb_model_get_tensor(const bb_model *m, const char *name, float *out, size_t count, bb_error *err) {
    const bb_param *p;
    BB_TRY(find_tensor(m, name, count, &p, err));
    if (p->offset < 0) return get_ternary(m, p, out, err);
    m->device->ops->copy_out(m->device, out, m->params + p->offset, count * sizeof(float));
    return m->device->ops->sync(m->device, err);
}

bb_status bb_model_set_tensor(bb_model *m, const char *name, const float *values, size_t count, bb_error *err) {
    const bb_param *p;
    BB_TRY(find_tensor(m, name, count, &p, err));
    if (p->offset < 0)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s is ternary in a model that was loaded for inference: it can't be set", name);
    m->device->ops->copy_in(m->device, m->params + p->offset, values, count * sizeof(float));
    bb_model_parameters_changed(m);
    return m->device->ops->sync(m->device, err);
}

bb_status bb_model_get_gradient(const bb_model *m, const char *name, float *out, size_t count, bb_error *err) {
    const bb_param *p;
    BB_TRY(find_tensor(m, name, count, &p, err));
    if (!m->grads) return bb_fail(err, BB_ERR_ARGUMENT, "the model has no gradients: nothing was trained yet");
    if (m->gradients_empty)
        memset(out, 0, count * sizeof *out);
    else
        m->device->ops->copy_out(m->device, out, m->grads + p->offset, count * sizeof(float));
    return m->device->ops->sync(m->device, err);
}
