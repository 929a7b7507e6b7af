// SPDX-License-Identifier: MIT
/* Loads models: for training, every parameter in f32; for inference, tensor by tensor through one buffer, so that memory holds
 * little besides the packed model. */
#include <stdlib.h>
#include <string.h>

#include "core/math.h"
#include "core/options.h"
#include "model/model.h"
#include "modelfile/chat_template.h"
#include "modelfile/layouts.h"
#include "modelfile/output.h"
#include "modelfile/packed_codes.h"

typedef struct loader {
    bb_model_source weights;
    const bb_import_options *options;
    bb_model *model;
    uint8_t *staging; /* device buffer for the largest tensor to be quantized, as f32 or codes */
    size_t staging_bytes;
} loader;

/* Destination of values on the device. */
typedef struct destination {
    const loader *l;
    uint8_t *to;
    const float *factor; /* factor for every value; NULL: 1 */
    uint8_t *codes;      /* host (N, ceil(K/4)) */
    int64_t columns;
    bb_magnitudes *magnitudes;
} destination;

static bb_status copy_values(void *user, int64_t first, const float *values, int64_t n, bb_error *err) {
    const destination *d = user;
    bb_device *dev = d->l->model->device;
    float scaled[1024];
    if (!d->factor) {
        dev->ops->copy_in(dev, d->to + (size_t)first * sizeof *values, values, (size_t)n * sizeof *values);
        return BB_OK;
    }
    for (int64_t at = 0; at < n; at += (int64_t)(sizeof scaled / sizeof *scaled)) {
        int64_t count = bb_min(n - at, (int64_t)(sizeof scaled / sizeof *scaled));
        for (int64_t i = 0; i < count; i++) scaled[i] = values[at + i] * *d->factor;
        dev->ops->copy_in(dev, d->to + (size_t)(first + at) * sizeof *values, scaled, (size_t)count * sizeof *values);
        BB_TRY(dev->ops->sync(dev, err)); /* scaled is about to be reused */
    }
    return BB_OK;
}

static unsigned code_of(float v) { return (unsigned)(1 + (v > 0) - (v < 0)); }

/* Packs n columns of a row from column k on. */
static void pack_run(uint8_t *codes, int64_t k, const float *v, int64_t n) {
    int64_t i = 0;
    for (; i < n && (k + i) % 4; i++) codes[(k + i) / 4] |= (uint8_t)(code_of(v[i]) << (k + i) % 4 * 2);
    for (; i + 4 <= n;) { /* two loops, which the compiler vectorizes */
        uint8_t wide[256];
        int64_t count = bb_min((n - i) / 4 * 4, (int64_t)sizeof wide), to = (k + i) / 4;
        for (int64_t j = 0; j < count; j++) wide[j] = (uint8_t)code_of(v[i + j]);
        for (int64_t j = 0; j < count / 4; j++) {
            uint32_t four;
            memcpy(&four, wide + 4 * j, sizeof four);
            codes[to + j] = (uint8_t)(four * 0x01041040u >> 24); /* byte b of the four moves to bits 2b and 2b + 1 */
        }
        i += count;
    }
    for (; i < n; i++) codes[(k + i) / 4] |= (uint8_t)(code_of(v[i]) << (k + i) % 4 * 2);
}

/* Packs values -g, 0, g into codes and checks their magnitudes in the same pass. */
static bb_status pack_values(void *user, int64_t first, const float *values, int64_t n, bb_error *err) {
    const destination *d = user;
    int64_t row_bytes = (d->columns + 3) / 4;
    (void)err;
    bb_magnitudes_add(d->magnitudes, first, values, n);
    for (int64_t at = 0; at < n;) {
        int64_t row = (first + at) / d->columns, k = (first + at) % d->columns, count = bb_min(n - at, d->columns - k);
        pack_run(d->codes + row * row_bytes, k, values + at, count);
        at += count;
    }
    return BB_OK;
}

static bb_status copy_codes(void *user, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                            bb_error *err) {
    const destination *d = user;
    bb_device *dev = d->l->model->device;
    BB_TRY(bb_packed_check_codes(d->l->weights.source, t, at, piece, size, err));
    dev->ops->copy_in(dev, d->to + at, piece, size);
    return BB_OK;
}

static bb_status load_values(const loader *l, const bb_param *p, void *to, bb_error *err) {
    destination d = {.l = l, .to = to};
    bb_weight weight;
    BB_TRY(l->weights.layout->find(&l->weights, p, &weight, err));
    return bb_model_source_scan(&l->weights, p, &weight, copy_values, &d, err);
}

/* Loads masters from values g q. */
static bb_status load_masters(const loader *l, const bb_param *p, void *to, bb_latent_weights *latent, bb_error *err) {
    float factor;
    destination d = {.l = l, .to = to, .factor = &factor};
    bb_weight weight;
    bb_magnitudes magnitudes;
    BB_TRY(l->weights.layout->find(&l->weights, p, &weight, err));
    BB_TRY(bb_model_source_magnitudes(&l->weights, p, &weight, &magnitudes, err));
    bb_latent_weights_add(latent, p, &magnitudes);
    factor = bb_magnitudes_master_factor(&magnitudes, p->count);
    return bb_model_source_scan(&l->weights, p, &weight, copy_values, &d, err);
}

/* Loads values g q as exactly the codes q and the scale g; other values are refused. */
static bb_status load_quantized(const loader *l, const bb_param *p, const bb_weight *weight, const bb_ternary *t,
                                bb_error *err) {
    bb_device *dev = l->model->device;
    size_t bytes = (size_t)(p->shape[0] * ((p->shape[1] + 3) / 4));
    bb_magnitudes m;
    destination d = {.l = l, .codes = calloc(1, bytes), .columns = p->shape[1], .magnitudes = &m};
    if (!d.codes) return bb_fail(err, BB_ERR_MEMORY, "no memory to read %s: %.1f MB", p->name, (double)bytes * 1e-6);
    bb_magnitudes_begin(&m);
    bb_status status = bb_model_source_scan(&l->weights, p, weight, pack_values, &d, err);
    if (status == BB_OK && !m.ternary) status = bb_latent_weights_refuse(&l->weights, p, &m, err);
    if (status == BB_OK) {
        dev->ops->copy_in(dev, l->staging, d.codes, bytes);
        dev->ops->copy_in(dev, t->scale, &m.g, sizeof m.g);
        dev->ops->ternary_load(dev, t, l->staging);
        status = dev->ops->sync(dev, err);
    }
    free(d.codes);
    return status;
}

static bb_status load_ternary(const loader *l, int index, bb_error *err) {
    const bb_param *p = &l->model->table.entries[index];
    bb_device *dev = l->model->device;
    bb_ternary t = bb_model_ternary(l->model, index);
    destination d = {.l = l, .to = l->staging};
    bb_weight weight;
    BB_TRY(l->weights.layout->find(&l->weights, p, &weight, err));
    if (weight.packed) {
        BB_TRY(bb_tensor_source_scan(l->weights.source, weight.parts[0], copy_codes, &d, err));
        dev->ops->copy_in(dev, t.scale, &weight.scale, sizeof weight.scale);
        dev->ops->ternary_load(dev, &t, l->staging);
    } else if (l->weights.layout->quantized) {
        return load_quantized(l, p, &weight, &t, err);
    } else {
        BB_TRY(bb_model_source_scan(&l->weights, p, &weight, copy_values, &d, err));
        dev->ops->ternary_quant(dev, &t, (const float *)(const void *)l->staging);
    }
    return dev->ops->sync(dev, err);
}

static bb_status copy_row_codes(void *user, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                                bb_error *err) {
    const destination *d = user;
    bb_device *dev = d->l->model->device;
    BB_TRY(bb_packed_check_row_codes(d->l->weights.source, t, at, piece, size, err));
    dev->ops->copy_in(dev, d->to + at, piece, size);
    return BB_OK;
}

/* Reads row scales, which must be finite and at least 0. The caller frees *out. */
static bb_status read_row_scales(const bb_model_source *w, const bb_weight *weight, bb_bf16 **out, bb_error *err) {
    const bb_file_tensor *t = weight->row_scales;
    bb_bf16 *scales = malloc((size_t)t->bytes);
    *out = NULL;
    if (!scales)
        return bb_fail(err, BB_ERR_MEMORY, "%s: tensor '%s': no memory to read it", bb_tensor_source_path(w->source), t->name);
    bb_status status = bb_tensor_source_read(w->source, t, scales, err);
    if (status == BB_OK) status = bb_packed_check_row_scales(w->source, t, 0, (const uint8_t *)scales, (size_t)t->bytes, err);
    if (status == BB_OK)
        *out = scales;
    else
        free(scales);
    return status;
}

/* Loads n-gram embeddings as codes and scales. */
static bb_status load_ngrams(const loader *l, const bb_param *p, bb_error *err) {
    bb_device *dev = l->model->device;
    const bb_ngram_table *table = &l->model->ngram;
    bb_weight weight;
    BB_TRY(l->weights.layout->find(&l->weights, p, &weight, err));
    if (!weight.row_scales) {
        destination d = {.l = l, .to = l->staging};
        BB_TRY(bb_model_source_scan(&l->weights, p, &weight, copy_values, &d, err));
        dev->ops->ngram_quant(dev, table, (const float *)(const void *)l->staging, 0, p->shape[0]);
        return dev->ops->sync(dev, err);
    }
    destination d = {.l = l, .to = (uint8_t *)table->codes};
    bb_bf16 *scales;
    BB_TRY(bb_tensor_source_scan(l->weights.source, weight.parts[0], copy_row_codes, &d, err));
    BB_TRY(read_row_scales(&l->weights, &weight, &scales, err));
    dev->ops->copy_in(dev, table->scales, scales, (size_t)p->shape[0] * sizeof *scales);
    bb_status status = dev->ops->sync(dev, err);
    free(scales);
    return status;
}

/* Checks that the file has every parameter, before memory is allocated for the model that its configuration describes. */
static bb_status check_shapes(loader *l, bb_error *err) {
    bb_param_table table;
    BB_TRY(bb_param_table_create(&l->weights.config, false, &table, err));
    bb_status status = BB_OK;
    for (int i = 0; i < table.count && status == BB_OK; i++) {
        const bb_param *p = &table.entries[i];
        bb_weight weight;
        status = l->weights.layout->find(&l->weights, p, &weight, err);
        if (status != BB_OK || !(p->ternary || p->ngram) || weight.row_scales) continue;
        size_t bytes = weight.packed ? (size_t)weight.parts[0]->bytes : (size_t)p->count * sizeof(float);
        if (bytes > l->staging_bytes) l->staging_bytes = bytes;
    }
    bb_param_table_free(&table);
    return status == BB_OK ? bb_tensor_source_check_metadata(l->weights.source, err) : status;
}

static bb_status load_for_inference(loader *l, bb_error *err) {
    const bb_param_table *table = &l->model->table;
    bb_device *dev = l->model->device;
    l->staging = l->staging_bytes ? dev->ops->alloc(dev, l->staging_bytes) : NULL;
    if (l->staging_bytes && !l->staging)
        return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to read it: %.1f MB", bb_tensor_source_path(l->weights.source),
                       (double)l->staging_bytes * 1e-6);
    bb_status status = BB_OK;
    for (int i = 0; i < table->count && status == BB_OK; i++) {
        const bb_param *p = &table->entries[i];
        status = p->ternary ? load_ternary(l, i, err)
                 : p->ngram ? load_ngrams(l, p, err)
                            : load_values(l, p, l->model->params + p->offset, err);
    }
    if (l->staging) dev->ops->free(dev, l->staging, l->staging_bytes);
    return status;
}

static bb_status load_for_training(loader *l, bb_error *err) {
    const bb_param_table *table = &l->model->table;
    bb_latent_weights latent = {0};
    for (int i = 0; i < table->count; i++) {
        const bb_param *p = &table->entries[i];
        void *to = l->model->params + p->offset;
        BB_TRY(p->ternary && l->weights.layout->quantized ? load_masters(l, p, to, &latent, err) : load_values(l, p, to, err));
    }
    bb_latent_weights_notify(&latent, &l->weights, l->options->on_notice, l->options->user);
    bb_model_parameters_changed(l->model);
    return l->model->device->ops->sync(l->model->device, err);
}

bb_status bb_model_load_source(bb_device *device, const bb_model_source *source, const bb_import_options *options,
                               bb_model **out, bb_error *err) {
    loader l = {.weights = *source, .options = options};
    bool for_inference = options->for_inference;
    *out = NULL;
    bb_status status = for_inference ? BB_OK : bb_model_source_refuse_packed(source, err);
    if (status == BB_OK) status = check_shapes(&l, err);
    if (status == BB_OK)
        status = for_inference ? bb_model_create_for_inference(device, &source->config, &l.model, err)
                               : bb_model_create_empty(device, &source->config, &l.model, err);
    if (status == BB_OK) status = for_inference ? load_for_inference(&l, err) : load_for_training(&l, err);
    if (status == BB_OK) status = bb_model_copy_chat_template(l.model, source->chat_template, err);
    if (status == BB_OK) {
        l.model->trained_length = source->trained_length;
        *out = l.model;
    } else {
        bb_model_free(l.model);
    }
    return status;
}

BB_OPTIONS_DEFAULTS(bb_import_options);

bb_status bb_model_import(bb_device *device, const char *path, const bb_import_options *given, bb_model **out, bb_error *err) {
    BB_REQUIRE("out", out);
    *out = NULL;
    BB_REQUIRE("device, path, options", device, path, given);
    BB_OPTIONS_READ(bb_import_options, options, given);
    BB_DEVICE_SCOPE(device);
    bb_model_source source;
    BB_TRY(bb_model_source_open(path, options, &source, err));
    bb_status status = bb_model_load_source(device, &source, options, out, err);
    if (status == BB_OK) bb_model_set_source(*out, path);
    bb_model_source_close(&source);
    return status;
}

bb_status bb_model_load(bb_device *device, const char *path, bb_model **out, bb_error *err) {
    BB_REQUIRE("out", out);
    *out = NULL;
    bb_import_options options;
    bb_import_options_default(&options);
    BB_REQUIRE("device, path", device, path);
    return bb_model_import(device, path, &options, out, err);
}

bb_status bb_model_load_for_inference(bb_device *device, const char *path, bb_model **out, bb_error *err) {
    BB_REQUIRE("out", out);
    *out = NULL;
    bb_import_options options;
    bb_import_options_default(&options);
    options.for_inference = true;
    BB_REQUIRE("device, path", device, path);
    return bb_model_import(device, path, &options, out, err);
}
