// SPDX-License-Identifier: MIT
/* Saves models: packed, as loaded for inference (two bits a ternary weight, a byte an element of n-gram embeddings, f32 for the
 * rest), or every parameter in f32. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/json.h"
#include "model/config.h"
#include "model/model.h"
#include "modelfile/chat_template.h"
#include "modelfile/layouts.h"
#include "modelfile/output.h"
#include "modelfile/safetensors.h"

enum { NAME_BYTES = 64 };

/* One tensor of the file: parameter `param` in f32 or packed, or its scale or scales. */
typedef struct entry {
    char name[NAME_BYTES];
    int param;
    bool packed, scale;
} entry;

static int list_entries(const bb_param_table *table, bool packed, entry *list, bb_file_tensor *tensors) {
    int n = 0;
    for (int i = 0; i < table->count; i++) {
        const bb_param *p = &table->entries[i];
        (void)snprintf(list[n].name, NAME_BYTES, "%s", p->name);
        list[n].param = i;
        tensors[n] =
            (bb_file_tensor){.name = list[n].name, .dtype = BB_FILE_F32, .rank = p->rank, .shape = {p->shape[0], p->shape[1]}};
        list[n].packed = (p->ternary || p->ngram) && packed;
        if (list[n].packed) {
            tensors[n].dtype = p->ngram ? BB_FILE_I8 : BB_FILE_U8;
            tensors[n].shape[1] = p->ngram ? p->shape[1] : (p->shape[1] + 3) / 4;
            n++;
            (void)snprintf(list[n].name, NAME_BYTES, "%s" BB_SCALE_SUFFIX, p->name);
            list[n].param = i;
            list[n].scale = true;
            tensors[n] = (bb_file_tensor){.name = list[n].name, .dtype = BB_FILE_F32, .rank = 1, .shape = {1}};
            if (p->ngram) tensors[n].dtype = BB_FILE_BF16, tensors[n].shape[0] = p->shape[0];
        }
        n++;
    }
    return n;
}

/* Packs q (N,K) into codes (N, ceil(K/4)) in place; the codes of a row are shorter than its q. */
static void codes_of(int8_t *q, int64_t N, int64_t K) {
    uint8_t *codes = (uint8_t *)q;
    int64_t row_bytes = (K + 3) / 4;
    for (int64_t n = 0; n < N; n++)
        for (int64_t i = 0; i < row_bytes; i++) {
            unsigned byte = 0;
            for (int64_t k = 4 * i; k < 4 * i + 4 && k < K; k++) byte |= (unsigned)(q[n * K + k] + 1) << k % 4 * 2;
            codes[n * row_bytes + i] = (uint8_t)byte;
        }
}

static bb_status write_ternary(const bb_model *m, int index, bb_tensor_sink *w, bb_error *err) {
    const bb_param *p = &m->table.entries[index];
    bb_device *dev = m->device;
    bb_ternary t = bb_model_ternary(m, index);
    size_t count = (size_t)p->count;
    bb_status status = BB_OK;
    int8_t *device_q = dev->ops->alloc(dev, count), *q = malloc(count);
    if (!device_q || !q) {
        status = bb_fail(err, BB_ERR_MEMORY, "no memory to write %s: %.1f MB", p->name, 2e-6 * (double)count);
        goto done;
    }
    dev->ops->ternary_unpack(dev, device_q, &t);
    dev->ops->copy_out(dev, q, device_q, count);
    BB_TRY_GOTO(status, done, dev->ops->sync(dev, err));
    codes_of(q, p->shape[0], p->shape[1]);
    status = bb_tensor_sink_write(w, q, (size_t)(p->shape[0] * ((p->shape[1] + 3) / 4)), err);
done:
    if (device_q) dev->ops->free(dev, device_q, count);
    free(q);
    return status;
}

/* Writes device memory unchanged. */
static bb_status write_bytes(const bb_model *m, const void *data, size_t bytes, bb_tensor_sink *w, bb_error *err) {
    enum { PIECE = 1 << 20 };
    size_t piece = bytes < PIECE ? bytes : (size_t)PIECE;
    uint8_t *host = malloc(piece);
    if (!host) return bb_fail(err, BB_ERR_MEMORY, "no memory to write %.1f MB", (double)piece * 1e-6);
    bb_status status = BB_OK;
    for (size_t i = 0; i < bytes && status == BB_OK; i += piece) {
        size_t n = bytes - i < piece ? bytes - i : piece;
        m->device->ops->copy_out(m->device, host, (const uint8_t *)data + i, n);
        status = m->device->ops->sync(m->device, err);
        if (status == BB_OK) status = bb_tensor_sink_write(w, host, n, err);
    }
    free(host);
    return status;
}

static bb_status write_entries(const bb_model *m, const entry *list, int count, bb_tensor_sink *w, bb_error *err) {
    for (int i = 0; i < count; i++) {
        const bb_param *p = &m->table.entries[list[i].param];
        if (list[i].packed && p->ngram)
            BB_TRY(write_bytes(m, m->ngram.codes, (size_t)p->count, w, err));
        else if (list[i].scale && p->ngram)
            BB_TRY(write_bytes(m, m->ngram.scales, (size_t)p->shape[0] * sizeof *m->ngram.scales, w, err));
        else if (list[i].scale)
            BB_TRY(write_bytes(m, bb_model_ternary(m, list[i].param).scale, sizeof(float), w, err));
        else if (list[i].packed)
            BB_TRY(write_ternary(m, list[i].param, w, err));
        else
            BB_TRY(write_bytes(m, m->params + p->offset, (size_t)p->count * sizeof(float), w, err));
    }
    return BB_OK;
}

/* Writes the tensors of `list` with the model's configuration. */
static bb_status write_file(const bb_model *m, const char *path, const char *format, const entry *list,
                            const bb_file_tensor *tensors, int count, bb_error *err) {
    json_t *config = bb_config_to_json(&m->config);
    char *config_text = config ? bb_json_text(config, JSON_COMPACT) : NULL, length_text[16];
    json_decref(config);
    if (!config_text) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to write it", path);
    (void)snprintf(length_text, sizeof length_text, "%d", m->trained_length);
    bb_file_metadata metadata[] = {
        {"format", format}, {"config", config_text}, {"trained_length", length_text}, {BB_CHAT_TEMPLATE, m->chat_template}};
    bb_tensor_sink *sink = NULL;
    bb_status status = bb_safetensors_create(path, tensors, count, metadata, 4, &sink, err);
    free(config_text);
    if (status != BB_OK) return status;
    status = write_entries(m, list, count, sink, err);
    if (status == BB_OK) return bb_tensor_sink_commit(sink, err);
    bb_tensor_sink_abort(sink);
    return status;
}

static bb_status save(const bb_model *m, const char *path, bool packed, bb_error *err) {
    size_t capacity = 2 * (size_t)m->table.count;
    entry *list = calloc(capacity, sizeof *list);
    bb_file_tensor *tensors = calloc(capacity, sizeof *tensors);
    bb_status status = BB_OK;
    if (!list || !tensors)
        status = bb_fail(err, BB_ERR_MEMORY, "%s: no memory to write it", path);
    else
        status = write_file(m, path, packed ? BB_PACKED_FILE_FORMAT : BB_MODEL_FILE_FORMAT, list, tensors,
                            list_entries(&m->table, packed, list, tensors), err);
    free(list);
    free(tensors);
    return status;
}

bb_status bb_model_export_packed(const bb_model *m, const char *path, bb_error *err) {
    BB_REQUIRE("model, path", m, path);
    BB_DEVICE_SCOPE(m->device);
    if (!m->for_inference) return bb_fail(err, BB_ERR_ARGUMENT, "%s: only a model loaded for inference can be packed", path);
    if (m->config.dense)
        return bb_fail(err, BB_ERR_UNSUPPORTED,
                       "%s: a dense model has no ternary weights to pack; use bb_model_save or format bitbyte", path);
    BB_TRY(bb_output_check_source(m, path, err));
    return save(m, path, true, err);
}

bb_status bb_model_save(const bb_model *m, const char *path, bb_error *err) {
    BB_REQUIRE("model, path", m, path);
    BB_DEVICE_SCOPE(m->device);
    if (m->for_inference)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: a model loaded for inference must be saved with bb_model_export_packed",
                       path);
    return save(m, path, false, err);
}
