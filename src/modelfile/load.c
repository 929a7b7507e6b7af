// SPDX-License-Identifier: MIT
/* Loading models: for training, every parameter in f32; for inference tensor by tensor through one buffer, so that memory holds
 * the packed model and little else. */
#include "model/model.h"
#include "modelfile/model_file.h"

typedef struct loader {
    bb_model *model;
    const bb_tensor_source *st;
    uint8_t *staging; /* device: the largest tensor of the file */
    size_t staging_bytes;
} loader;

/* Where a tensor's pieces go on the device, and what is checked of them. */
typedef struct visitor {
    const loader *l;
    uint8_t *to;
    bool codes;
} visitor;

static bb_status take_piece(void *user, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                            bb_error *err) {
    const visitor *v = user;
    const char *path = bb_tensor_source_path(v->l->st);
    if (v->codes)
        BB_TRY(bb_model_file_check_codes(path, t, at, piece, size, err));
    else
        BB_TRY(bb_model_file_check_finite((void *)path, t, at, piece, size, err));
    bb_device *dev = v->l->model->device;
    dev->ops->copy_in(dev, v->to + at, piece, size);
    return BB_OK;
}

static bb_status read_tensor(const loader *l, const bb_file_tensor *t, void *to, bool codes, bb_error *err) {
    visitor v = {.l = l, .to = to, .codes = codes};
    return bb_tensor_source_scan(l->st, t, take_piece, &v, err);
}

static bb_status load_ternary(const loader *l, int index, bb_error *err) {
    const bb_param *p = &l->model->table.entries[index];
    bb_device *dev = l->model->device;
    bb_ternary t = bb_model_ternary(l->model, index);
    const bb_file_tensor *tensor = bb_tensor_source_find(l->st, p->name);
    if (tensor && tensor->dtype == BB_FILE_U8) {
        float scale;
        BB_TRY(bb_model_file_packed_tensor(l->st, p, &tensor, &scale, err));
        BB_TRY(read_tensor(l, tensor, l->staging, true, err));
        dev->ops->copy_in(dev, t.scale, &scale, sizeof scale);
        dev->ops->ternary_load(dev, &t, l->staging);
    } else {
        BB_TRY(bb_tensor_source_require(l->st, p->name, BB_FILE_F32, p->rank, p->shape, &tensor, err));
        BB_TRY(read_tensor(l, tensor, l->staging, false, err));
        dev->ops->ternary_quant(dev, &t, (const float *)(const void *)l->staging);
    }
    return dev->ops->sync(dev, err);
}

static bb_status load_tensors(loader *l, bb_error *err) {
    const bb_param_table *table = &l->model->table;
    bb_device *dev = l->model->device;
    for (int i = 0; i < table->count; i++) {
        const bb_file_tensor *t = bb_tensor_source_find(l->st, table->entries[i].name);
        if (t && table->entries[i].ternary && t->bytes > l->staging_bytes) l->staging_bytes = t->bytes;
    }
    if (l->staging_bytes) {
        l->staging = dev->ops->alloc(dev, l->staging_bytes);
        if (!l->staging)
            return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to read it: %.1f MB", bb_tensor_source_path(l->st),
                           (double)l->staging_bytes * 1e-6);
    }
    bb_status status = BB_OK;
    for (int i = 0; i < table->count && status == BB_OK; i++) {
        const bb_param *p = &table->entries[i];
        const bb_file_tensor *t;
        if (p->ternary) {
            status = load_ternary(l, i, err);
            continue;
        }
        status = bb_tensor_source_require(l->st, p->name, BB_FILE_F32, p->rank, p->shape, &t, err);
        if (status == BB_OK) status = read_tensor(l, t, l->model->params + p->offset, false, err);
    }
    if (l->staging) dev->ops->free(dev, l->staging, l->staging_bytes);
    return status;
}

bb_status bb_model_load_for_inference(bb_device *device, const char *path, bb_model **out, bb_error *err) {
    *out = NULL;
    loader l = {0};
    bb_tensor_source *st;
    bb_config config;
    BB_TRY(bb_tensor_source_open(path, &st, err));
    bb_status status = bb_tensor_source_check_metadata(st, err);
    if (status == BB_OK) status = bb_model_file_config(st, &config, err);
    if (status == BB_OK) status = bb_model_create_for_inference(device, &config, &l.model, err);
    l.st = st;
    if (status == BB_OK) status = load_tensors(&l, err);
    if (status == BB_OK) {
        l.model->trained_length = bb_model_file_trained_length(st);
        *out = l.model;
    } else {
        bb_model_free(l.model);
    }
    bb_tensor_source_close(st);
    return status;
}

static bb_status check_shapes(const loader *l, bb_error *err) {
    const bb_param_table *table = &l->model->table;
    const bb_file_tensor *t;
    for (int i = 0; i < table->count; i++) {
        const bb_param *p = &table->entries[i];
        BB_TRY(bb_tensor_source_require(l->st, p->name, BB_FILE_F32, p->rank, p->shape, &t, err));
    }
    return BB_OK;
}

static bb_status load_parameters(const loader *l, bb_error *err) {
    const bb_param_table *table = &l->model->table;
    for (int i = 0; i < table->count; i++) {
        const bb_param *p = &table->entries[i];
        const bb_file_tensor *t;
        BB_TRY(bb_tensor_source_require(l->st, p->name, BB_FILE_F32, p->rank, p->shape, &t, err));
        BB_TRY(read_tensor(l, t, l->model->params + p->offset, false, err));
    }
    return l->model->device->ops->sync(l->model->device, err);
}

bb_status bb_model_load(bb_device *device, const char *path, bb_model **out, bb_error *err) {
    *out = NULL;
    loader l = {0};
    bb_tensor_source *st;
    bb_config config;
    BB_TRY(bb_tensor_source_open(path, &st, err));
    bb_status status = bb_model_file_config(st, &config, err);
    if (status == BB_OK) status = bb_model_file_refuse_packed(st, err);
    if (status == BB_OK) status = bb_model_create_empty(device, &config, &l.model, err);
    l.st = st;
    if (status == BB_OK) status = check_shapes(&l, err);
    if (status == BB_OK) status = bb_tensor_source_check_metadata(st, err);
    if (status == BB_OK) status = load_parameters(&l, err);
    if (status == BB_OK) {
        l.model->trained_length = bb_model_file_trained_length(st);
        bb_model_parameters_changed(l.model);
        *out = l.model;
    } else {
        bb_model_free(l.model);
    }
    bb_tensor_source_close(st);
    return status;
}
