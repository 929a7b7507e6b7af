// SPDX-License-Identifier: MIT
/* Model lifecycle: creation, memory, access to tensors. */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

#include "core/finite.h"
#include "model/config.h"

enum { STAGING = 1 << 16 }; /* elements of an initial parameter copied to the device at once */

/* ---- creation -------------------------------------------------------------------------------------------------------- */

static bb_status initialize(bb_model *m, uint64_t seed, bb_error *err) {
    float *staging = malloc(STAGING * sizeof(float));
    if (!staging) return bb_fail(err, BB_ERR_MEMORY, "out of memory for initial parameters");
    for (int i = 0; i < m->table.count; i++) {
        const bb_param *p = &m->table.entries[i];
        for (int64_t at = 0; at < p->count; at += STAGING) {
            int64_t n = bb_min(p->count - at, STAGING);
            bb_param_initial_values(&m->table, i, at, n, seed, staging);
            m->device->ops->copy_in(m->device, m->params + p->offset + at, staging, (size_t)n * sizeof(float));
        }
    }
    free(staging);
    return m->device->ops->sync(m->device, err);
}

static void bind_weights(bb_model *m) { bb_weights_bind(m->blocks, &m->table, m->config.n_layer, m->params, m->grads); }

static bb_status open_ngram(bb_model *m, bb_error *err) {
    if (m->table.ngram < 0) return BB_OK;
    const bb_param *p = &m->table.entries[m->table.ngram];
    m->ngram = (bb_ngram_table){.values = m->params + p->offset, .R = p->shape[0], .C = p->shape[1]};
    if (!m->for_inference) return BB_OK;
    m->ngram_memory = m->device->ops->alloc(m->device, bb_ngram_bytes(&m->config));
    m->ngram = bb_ngram_codes(&m->config, m->ngram_memory);
    if (m->ngram_memory) return BB_OK;
    return bb_fail(err, BB_ERR_MEMORY, "no memory for n-gram embeddings: %.1f MB", 1e-6 * (double)bb_ngram_bytes(&m->config));
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
    m->quantized_bytes = bb_weights_bytes(device, config, for_inference);
    m->blocks = calloc((size_t)config->n_layer, sizeof *m->blocks);
    m->params = device->ops->alloc(device, (size_t)m->table.held * sizeof(float));
    if (m->quantized_bytes) m->quantized = device->ops->alloc(device, m->quantized_bytes);
    if (!m->blocks || !m->params || (m->quantized_bytes && !m->quantized)) {
        status = bb_fail(err, BB_ERR_MEMORY, "no memory for a model of %lld parameters: %.1f MB and %.1f MB quantized",
                         (long long)m->table.total, (double)m->table.held * 4e-6, (double)m->quantized_bytes * 1e-6);
        goto fail;
    }
    BB_TRY_GOTO(status, fail, open_ngram(m, err));
    bb_arena arena = {.base = m->quantized};
    bb_weights_layout(m->blocks, &arena, device, config, for_inference);
    bind_weights(m);
    *out = m;
    return BB_OK;
fail:
    bb_model_free(m);
    return status;
}

bb_status bb_model_create_empty(bb_device *device, const bb_config *config, bb_model **out, bb_error *err) {
    BB_DEVICE_SCOPE(device);
    return create(device, config, false, out, err);
}

bb_status bb_model_create_for_inference(bb_device *device, const bb_config *config, bb_model **out, bb_error *err) {
    BB_DEVICE_SCOPE(device);
    return create(device, config, true, out, err);
}

bb_status bb_model_create(bb_device *device, const bb_config *config, uint64_t seed, bb_model **out, bb_error *err) {
    BB_REQUIRE("out", out);
    *out = NULL;
    BB_REQUIRE("device, config", device, config);
    BB_DEVICE_SCOPE(device);
    BB_TRY(bb_model_create_empty(device, config, out, err));
    bb_status status = initialize(*out, seed, err);
    if (status != BB_OK) {
        bb_model_free(*out);
        *out = NULL;
    }
    return status;
}

void bb_model_free(bb_model *m) {
    if (!m) return;
    BB_DEVICE_SCOPE(m->device);
    const bb_ops *ops = m->device->ops;
    size_t range = (size_t)m->table.held * sizeof(float);
    bb_workspace_close(&m->ws, m->device);
    if (m->params) ops->free(m->device, m->params, range);
    if (m->grads) ops->free(m->device, m->grads, range);
    if (m->quantized) ops->free(m->device, m->quantized, m->quantized_bytes);
    if (m->ngram_memory) ops->free(m->device, m->ngram_memory, bb_ngram_bytes(&m->config));
    free(m->chat_template);
    free(m->blocks);
    bb_param_table_free(&m->table);
    free(m);
}

/* ---- prepared weights and gradients ---------------------------------------------------------------------------------- */

bb_ternary bb_model_ternary(const bb_model *m, int index) {
    return bb_weights_ternary(m->device, m->blocks, index - m->table.first_block);
}

void bb_model_parameters_changed(bb_model *model) { model->prepared = false; }

void bb_model_prepare(bb_model *m) {
    if (m->prepared || m->for_inference || m->config.dense) return;
    bb_weights_quantize(m->device, m->blocks, m->config.n_layer);
    m->prepared = true;
}

float *bb_model_swap_gradients(bb_model *m, float *grads) {
    float *old = m->grads;
    m->grads = grads;
    bind_weights(m);
    return old;
}

bb_status bb_model_zero_gradients(bb_model *m, bb_error *err) {
    BB_REQUIRE("model", m);
    (void)err;
    m->gradients_empty = true;
    return BB_OK;
}

bb_status bb_model_settle_gradients(bb_model *m, bb_error *err) {
    if (!m->gradients_empty) return BB_OK;
    m->gradients_empty = false;
    if (m->grads) m->device->ops->zero(m->device, m->grads, (size_t)m->table.total * sizeof(float));
    return m->device->ops->sync(m->device, err);
}

/* ---- reserving memory ------------------------------------------------------------------------------------------------ */

bb_status bb_model_reserve(bb_model *m, int batch_size, int seq_len, bool training, bool recompute, bb_error *err) {
    BB_REQUIRE("model", m);
    BB_DEVICE_SCOPE(m->device);
    if (batch_size < 1 || seq_len < 1)
        return bb_fail(err, BB_ERR_ARGUMENT, "batch_size %d and seq_len %d must be at least 1", batch_size, seq_len);
    int64_t rows = (int64_t)batch_size * seq_len;
    bb_workspace *w = &m->ws;
    if (rows <= w->max_rows && seq_len <= w->positions && (!training || (w->training && w->recompute == recompute)))
        return BB_OK;
    if (training && m->for_inference)
        return bb_fail(err, BB_ERR_ARGUMENT,
                       "a model loaded for inference cannot be trained: its ternary weights have no f32 masters");
    training = training || w->training;
    if (rows > INT32_MAX / 2)
        return bb_fail(err, BB_ERR_ARGUMENT, "batch_size %d x seq_len %d exceeds the maximum size of a micro-batch", batch_size,
                       seq_len);
    bb_workspace_shape shape = {.B = batch_size,
                                .T = seq_len,
                                .positions = bb_max(seq_len, w->positions),
                                .training = training,
                                .recompute = training && recompute};
    if (training && !m->grads) {
        bb_workspace_close(w, m->device); /* close first: both workspaces may not fit at once */
        m->grads = m->device->ops->alloc(m->device, (size_t)m->table.total * sizeof(float));
        if (!m->grads)
            return bb_fail(err, BB_ERR_MEMORY, "no memory for the gradients: %.1f MB", (double)m->table.total * 4e-6);
        bind_weights(m);
    }
    return bb_workspace_open(w, m->device, &m->config, &shape, err);
}

bb_status bb_model_reserve_rows(bb_model *m, int64_t rows, int64_t positions, bb_error *err) {
    bb_workspace *w = &m->ws;
    if (rows <= w->max_rows && positions <= w->positions) return BB_OK;
    bb_workspace_shape shape = {.B = 1,
                                .T = bb_max(rows, w->max_rows),
                                .positions = bb_max(positions, w->positions),
                                .training = w->training,
                                .recompute = w->recompute};
    return bb_workspace_open(w, m->device, &m->config, &shape, err);
}

/* ---- access ---------------------------------------------------------------------------------------------------------- */

const bb_config *bb_model_config(const bb_model *m) { return m ? &m->config : NULL; }
uint64_t bb_model_parameters(const bb_model *m) { return m ? (uint64_t)m->table.total : 0; }
int bb_model_trained_length(const bb_model *m) { return m ? m->trained_length : 0; }
int bb_model_tensor_count(const bb_model *m) { return m ? m->table.count : 0; }

bb_status bb_model_tensor_info(const bb_model *m, int index, bb_tensor_info *out, bb_error *err) {
    BB_REQUIRE("model, out", m, out);
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

/* Returns the dequantized values of a ternary tensor. */
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

/* Returns the dequantized values of n-gram embeddings that are held as codes. */
static bb_status get_ngram(const bb_model *m, float *out, bb_error *err) {
    bb_device *dev = m->device;
    int64_t rows = bb_config_ngram_rows(&m->config), C = m->ngram.C;
    int8_t *codes = malloc((size_t)(rows * C));
    bb_bf16 *scales = malloc((size_t)rows * sizeof *scales);
    bb_status status = codes && scales ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "no memory to unpack n-gram embeddings");
    if (status == BB_OK) {
        dev->ops->copy_out(dev, codes, m->ngram.codes, (size_t)(rows * C));
        dev->ops->copy_out(dev, scales, m->ngram.scales, (size_t)rows * sizeof *scales);
        status = dev->ops->sync(dev, err);
    }
    for (int64_t i = 0; i < rows * C && status == BB_OK; i++) out[i] = bb_f32_from_bf16(scales[i / C]) * (float)codes[i];
    free(codes);
    free(scales);
    return status;
}

bb_status bb_model_get_tensor(const bb_model *m, const char *name, float *out, size_t count, bb_error *err) {
    BB_REQUIRE("model, name, out", m, name, out);
    BB_DEVICE_SCOPE(m->device);
    const bb_param *p;
    BB_TRY(find_tensor(m, name, count, &p, err));
    if (p->offset < 0) return p->ngram ? get_ngram(m, out, err) : get_ternary(m, p, out, err);
    m->device->ops->copy_out(m->device, out, m->params + p->offset, count * sizeof(float));
    return m->device->ops->sync(m->device, err);
}

bb_status bb_model_set_tensor(bb_model *m, const char *name, const float *values, size_t count, bb_error *err) {
    BB_REQUIRE("model, name, values", m, name, values);
    BB_DEVICE_SCOPE(m->device);
    const bb_param *p;
    BB_TRY(find_tensor(m, name, count, &p, err));
    if (p->offset < 0)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s is quantized, because the model was loaded for inference, and cannot be set",
                       name);
    int64_t bad = bb_find_not_finite(values, p->count);
    if (bad < p->count)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: element %lld is %s, expected a finite number", name, (long long)bad,
                       bb_not_finite_name(values[bad]));
    m->device->ops->copy_in(m->device, m->params + p->offset, values, count * sizeof(float));
    bb_model_parameters_changed(m);
    return m->device->ops->sync(m->device, err);
}

bb_status bb_model_get_gradient(const bb_model *m, const char *name, float *out, size_t count, bb_error *err) {
    BB_REQUIRE("model, name, out", m, name, out);
    BB_DEVICE_SCOPE(m->device);
    const bb_param *p;
    BB_TRY(find_tensor(m, name, count, &p, err));
    if (!m->grads) return bb_fail(err, BB_ERR_ARGUMENT, "the model has no gradients: nothing was trained yet");
    if (m->gradients_empty)
        memset(out, 0, count * sizeof *out);
    else
        m->device->ops->copy_out(m->device, out, m->grads + p->offset, count * sizeof(float));
    return m->device->ops->sync(m->device, err);
}
