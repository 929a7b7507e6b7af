/* SPDX-License-Identifier: MIT */
#include "training/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/json.h"
#include "format/safetensors.h"
#include "model/config.h"
#include "modelfile/model_file.h"

enum { PIECE_BYTES = 1 << 20, NAME_BYTES = 64, STATES_PER_TENSOR = 4 };

/* One tensor of the file: its description, where its bytes are on the device, and their copy, if there is one. */
typedef struct entry {
    char name[NAME_BYTES];
    bb_st_tensor tensor;
    void *device_data;
    uint8_t *copy;
} entry;

static void add_entry(entry *list, int *count, const char *prefix, const char *name, bb_st_dtype dtype, int rank,
                      const int64_t *shape, void *device_data) {
    entry *e = &list[(*count)++];
    snprintf(e->name, sizeof e->name, "%s%s", prefix, name);
    e->tensor = (bb_st_tensor){.dtype = dtype, .rank = rank};
    uint64_t bytes = bb_st_dtype_bytes(dtype);
    for (int i = 0; i < rank; i++) {
        e->tensor.shape[i] = shape[i];
        bytes *= (uint64_t)shape[i];
    }
    e->tensor.bytes = bytes;
    e->device_data = device_data;
}

/* The one list of what a checkpoint holds, for writing and for reading: the parameters, then for each its moments. */
static bb_status list_entries(const bb_model *model, const bb_optimizer *optimizer, entry **out, int *count, bb_error *err) {
    const bb_param_table *t = &model->table;
    entry *list = calloc((size_t)t->count * (1 + STATES_PER_TENSOR), sizeof *list);
    if (!list) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a list of %d tensors", t->count);
    *count = 0;
    for (int i = 0; i < t->count; i++) {
        const bb_param *p = &t->entries[i];
        add_entry(list, count, "", p->name, BB_ST_F32, p->rank, p->shape, model->params + p->offset);
    }
    for (int i = 0; optimizer && i < t->count; i++) {
        const bb_param *p = &t->entries[i];
        const bb_optimizer_slot *s = &optimizer->slots[i];
        int64_t blocks = bb_optimizer_blocks(p->count);
        if (s->is_8bit) {
            add_entry(list, count, "opt.m8.", p->name, BB_ST_U8, p->rank, p->shape, s->q.m);
            add_entry(list, count, "opt.v8.", p->name, BB_ST_U8, p->rank, p->shape, s->q.v);
            add_entry(list, count, "opt.m8_absmax.", p->name, BB_ST_F32, 1, &blocks, s->q.m_absmax);
            add_entry(list, count, "opt.v8_absmax.", p->name, BB_ST_F32, 1, &blocks, s->q.v_absmax);
        } else {
            add_entry(list, count, "opt.m.", p->name, BB_ST_F32, p->rank, p->shape, s->m);
            add_entry(list, count, "opt.v.", p->name, BB_ST_F32, p->rank, p->shape, s->v);
        }
    }
    *out = list;
    return BB_OK;
}

/* ---- the state as JSON ----------------------------------------------------------------------------------------------- */

static json_t *window_to_json(const bb_spike_window *w) {
    json_t *loss = json_array(), *grad_norm = json_array();
    bool good = loss && grad_norm;
    for (int i = 0; i < w->count && good; i++)
        good = json_array_append_new(loss, json_real(w->loss[i])) == 0 &&
               json_array_append_new(grad_norm, json_real(w->grad_norm[i])) == 0;
    json_t *window = json_pack("{s:o, s:o}", "loss", loss, "grad_norm", grad_norm);
    if (good) return window;
    json_decref(window);
    return NULL;
}

static json_t *state_to_json(const bb_training_state *s, const bb_optimizer *optimizer) {
    json_t *state =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:f, s:i, s:s}", "step", (json_int_t)s->step, "samples",
                  (json_int_t)s->samples, "bytes_seen", (json_int_t)s->bytes_seen, "skipped_steps",
                  (json_int_t)s->skipped_steps, "skipped_in_a_row", (json_int_t)s->skipped_in_a_row, "skipped_micro_batches",
                  (json_int_t)s->skipped_micro_batches, "optimizer_steps", (json_int_t)s->optimizer_steps, "trained_length",
                  s->trained_length, "scaler_scale", s->scaler_scale, "scaler_good_steps", s->scaler_good_steps, "optimizer",
                  !optimizer                        ? "none"
                  : bb_optimizer_is_8bit(optimizer) ? "adamw8bit"
                                                    : "adamw");
    if (s->spikes.count == 0 || json_object_set_new(state, "spike_window", window_to_json(&s->spikes)) == 0) return state;
    json_decref(state);
    return NULL;
}

/* The field's value, or an error that names it. */
static bb_status read_int(const json_t *object, const char *key, const char *path, json_int_t *out, bb_error *err) {
    const json_t *v = json_object_get(object, key);
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return bb_fail(err, BB_ERR_FORMAT, "%s: training state: %s should be an integer >= 0, is %s", path, key,
                       json_is_integer(v) ? "negative" : bb_json_type_name(v));
    *out = json_integer_value(v);
    return BB_OK;
}

/* Absent: an empty one. */
static bb_status read_window(const json_t *window, const char *path, bb_spike_window *out, bb_error *err) {
    const json_t *loss = json_object_get(window, "loss"), *grad_norm = json_object_get(window, "grad_norm");
    size_t count = json_array_size(loss);
    *out = (bb_spike_window){0};
    if (!window) return BB_OK;
    if (!json_is_array(loss) || count > BB_SPIKE_WINDOW || json_array_size(grad_norm) != count)
        return bb_fail(err, BB_ERR_FORMAT,
                       "%s: training state: spike_window should be two arrays of the same length, at most %d numbers", path,
                       BB_SPIKE_WINDOW);
    for (size_t i = 0; i < count; i++) {
        const json_t *l = json_array_get(loss, i), *g = json_array_get(grad_norm, i);
        if (!json_is_number(l) || !json_is_number(g))
            return bb_fail(err, BB_ERR_FORMAT, "%s: training state: spike_window: expected numbers", path);
        bb_spike_add(out, json_number_value(l), json_number_value(g));
    }
    return BB_OK;
}

static bb_status state_from_json(const char *text, const char *path, bb_training_state *out, char *optimizer,
                                 size_t optimizer_size, bb_error *err) {
    json_t *o;
    bb_status status = bb_json_parse(text, strlen(text), "training state", 0, &o, err);
    if (status != BB_OK) return bb_fail_prefix(err, status, "%s", path);
    json_int_t v[8];
    static const char *const keys[8] = {
        "step",           "samples",          "bytes_seen", "skipped_steps", "skipped_micro_batches", "optimizer_steps",
        "trained_length", "scaler_good_steps"};
    for (int i = 0; i < 8 && status == BB_OK; i++) status = read_int(o, keys[i], path, &v[i], err);
    json_int_t in_a_row = 0; /* files of version 0.1.0 have none */
    if (status == BB_OK && json_object_get(o, "skipped_in_a_row"))
        status = read_int(o, "skipped_in_a_row", path, &in_a_row, err);
    bb_spike_window spikes;
    if (status == BB_OK) status = read_window(json_object_get(o, "spike_window"), path, &spikes, err);
    const char *name = json_string_value(json_object_get(o, "optimizer"));
    if (status == BB_OK && !name) status = bb_fail(err, BB_ERR_FORMAT, "%s: training state: 'optimizer' is missing", path);
    if (status == BB_OK) {
        *out = (bb_training_state){.step = v[0],
                                   .samples = (uint64_t)v[1],
                                   .bytes_seen = v[2],
                                   .skipped_steps = v[3],
                                   .skipped_micro_batches = v[4],
                                   .optimizer_steps = v[5],
                                   .trained_length = (int)v[6],
                                   .scaler_scale = json_number_value(json_object_get(o, "scaler_scale")),
                                   .scaler_good_steps = (int)v[7],
                                   .skipped_in_a_row = in_a_row,
                                   .spikes = spikes};
        snprintf(optimizer, optimizer_size, "%s", name);
    }
    json_decref(o);
    return status;
}

/* ---- writing --------------------------------------------------------------------------------------------------------- */

struct bb_checkpoint_image {
    bb_device *device;
    entry *list;
    bb_st_tensor *tensors; /* (count), the list's */
    int count;
    uint8_t *copy; /* of all tensors; NULL: they are read from the device while they are written */
    char *config_text, *state_text;
    char length_text[16];
};

bb_status bb_checkpoint_image_create(const bb_model *model, const bb_optimizer *optimizer, bool copy, bb_checkpoint_image **out,
                                     bb_error *err) {
    *out = NULL;
    bb_status status = BB_OK;
    bb_checkpoint_image *image = calloc(1, sizeof *image);
    if (!image) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a checkpoint");
    image->device = model->device;
    json_t *config = bb_config_to_json(&model->config);
    image->config_text = config ? bb_json_text(config, JSON_COMPACT) : NULL;
    json_decref(config);
    BB_TRY_GOTO(status, fail, list_entries(model, optimizer, &image->list, &image->count, err));
    image->tensors = calloc((size_t)image->count, sizeof *image->tensors);
    size_t bytes = 0;
    for (int i = 0; i < image->count; i++) bytes += (size_t)image->list[i].tensor.bytes;
    if (copy) image->copy = malloc(bytes);
    if (!image->config_text || !image->tensors || (copy && !image->copy)) {
        status = bb_fail(err, BB_ERR_MEMORY, "no memory for a checkpoint%s: %.1f MB", copy ? " and its copy" : "",
                         copy ? (double)bytes * 1e-6 : 0.0);
        goto fail;
    }
    if (copy) memset(image->copy, 0xff, bytes); /* the pages are there now, and not at the first save */
    uint8_t *at = image->copy;
    for (int i = 0; i < image->count; i++) {
        entry *e = &image->list[i];
        image->tensors[i] = e->tensor;
        image->tensors[i].name = e->name;
        if (!copy) continue;
        e->copy = at;
        at += e->tensor.bytes;
    }
    *out = image;
    return BB_OK;
fail:
    bb_checkpoint_image_free(image);
    return status;
}

void bb_checkpoint_image_free(bb_checkpoint_image *image) {
    if (!image) return;
    free(image->list);
    free(image->tensors);
    free(image->copy);
    free(image->config_text);
    free(image->state_text);
    free(image);
}

bb_status bb_checkpoint_image_take(bb_checkpoint_image *image, const bb_model *model, const bb_optimizer *optimizer,
                                   const bb_training_state *state, bb_error *err) {
    free(image->state_text);
    image->state_text = NULL;
    if (state) {
        json_t *json = state_to_json(state, optimizer);
        image->state_text = json ? bb_json_text(json, JSON_COMPACT) : NULL;
        json_decref(json);
        if (!image->state_text) return bb_fail(err, BB_ERR_MEMORY, "out of memory while saving");
    }
    snprintf(image->length_text, sizeof image->length_text, "%d", model->trained_length);
    if (!image->copy) return BB_OK;
    bb_device *dev = image->device;
    for (int i = 0; i < image->count; i++)
        dev->ops->copy_out(dev, image->list[i].copy, image->list[i].device_data, (size_t)image->list[i].tensor.bytes);
    return dev->ops->sync(dev, err);
}

static bb_status write_from_device(bb_safetensors_writer *w, bb_device *dev, const entry *e, uint8_t *piece, bb_error *err) {
    for (uint64_t at = 0; at < e->tensor.bytes; at += PIECE_BYTES) {
        uint64_t left = e->tensor.bytes - at;
        size_t n = left < PIECE_BYTES ? (size_t)left : (size_t)PIECE_BYTES;
        dev->ops->copy_out(dev, piece, (const uint8_t *)e->device_data + at, n);
        BB_TRY(dev->ops->sync(dev, err));
        BB_TRY(bb_safetensors_write(w, piece, n, err));
    }
    return BB_OK;
}

bb_status bb_checkpoint_image_write(const bb_checkpoint_image *image, const char *path, bb_error *err) {
    bb_safetensors_writer *writer = NULL;
    bb_status status;
    bb_st_metadata metadata[] = {{"format", BB_MODEL_FILE_FORMAT},
                                 {"config", image->config_text},
                                 {"trained_length", image->length_text},
                                 {"training_state", image->state_text}};
    uint8_t *piece = image->copy ? NULL : malloc(PIECE_BYTES);
    if (!image->copy && !piece) return bb_fail(err, BB_ERR_MEMORY, "out of memory while saving %s", path);
    BB_TRY_GOTO(status, done,
                bb_safetensors_create(path, image->tensors, image->count, metadata, image->state_text ? 4 : 3, &writer, err));
    for (int i = 0; i < image->count && status == BB_OK; i++) {
        const entry *e = &image->list[i];
        status = e->copy ? bb_safetensors_write(writer, e->copy, (size_t)e->tensor.bytes, err)
                         : write_from_device(writer, image->device, e, piece, err);
    }
    if (status == BB_OK)
        status = bb_safetensors_commit(writer, err);
    else
        bb_safetensors_abort(writer);
done:
    free(piece);
    return status;
}

bb_status bb_checkpoint_save(const char *path, const bb_model *model, const bb_optimizer *optimizer,
                             const bb_training_state *state, bb_error *err) {
    bb_checkpoint_image *image;
    BB_TRY(bb_checkpoint_image_create(model, optimizer, false, &image, err));
    bb_status status = bb_checkpoint_image_take(image, model, optimizer, state, err);
    if (status == BB_OK) status = bb_checkpoint_image_write(image, path, err);
    bb_checkpoint_image_free(image);
    return status;
}

bb_status bb_model_save(const bb_model *model, const char *path, bb_error *err) {
    if (model->for_inference)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: a model that was loaded for inference is saved by bb_model_export_packed",
                       path);
    return bb_checkpoint_save(path, model, NULL, NULL, err);
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

bb_status bb_checkpoint_read_state(const bb_safetensors *st, bb_training_state *out, char *optimizer, size_t optimizer_size,
                                   bb_error *err) {
    const char *text = bb_safetensors_metadata(st, "training_state");
    *out = (bb_training_state){0};
    snprintf(optimizer, optimizer_size, "none");
    return text ? state_from_json(text, bb_safetensors_path(st), out, optimizer, optimizer_size, err) : BB_OK;
}

/* Every tensor of the list is in the file with its type and shape: checked before anything is changed. */
static bb_status check_entries(const bb_safetensors *st, const entry *list, int count, bb_error *err) {
    for (int i = 0; i < count; i++) {
        const bb_st_tensor *want = &list[i].tensor, *found = NULL;
        if (want->dtype == BB_ST_F32) {
            BB_TRY(bb_safetensors_require_f32(st, list[i].name, want->rank, want->shape, &found, err));
            continue;
        }
        found = bb_safetensors_find(st, list[i].name);
        if (!found) return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s' is missing", bb_safetensors_path(st), list[i].name);
        if (found->dtype != want->dtype || found->bytes != want->bytes)
            return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': expected %llu bytes of %s, found %llu of %s",
                           bb_safetensors_path(st), list[i].name, (unsigned long long)want->bytes,
                           bb_st_dtype_name(want->dtype), (unsigned long long)found->bytes, bb_st_dtype_name(found->dtype));
    }
    return BB_OK;
}

/* All that the file holds of the list is as it was written, and finite: before anything is changed. */
static bb_status check_content(const bb_safetensors *st, const entry *list, int count, bb_error *err) {
    BB_TRY(bb_safetensors_check_metadata(st, err));
    for (int i = 0; i < count; i++)
        BB_TRY(bb_safetensors_scan(st, bb_safetensors_find(st, list[i].name), bb_model_file_check_finite,
                                   (void *)bb_safetensors_path(st), err));
    return BB_OK;
}

typedef struct destination {
    bb_device *device;
    uint8_t *data;
} destination;

static bb_status copy_piece(void *user, const bb_st_tensor *t, uint64_t at, const uint8_t *piece, size_t size, bb_error *err) {
    const destination *to = user;
    (void)t;
    to->device->ops->copy_in(to->device, to->data + at, piece, size);
    return to->device->ops->sync(to->device, err);
}

static bb_status copy_entries(const bb_safetensors *st, bb_device *dev, const entry *list, int count, bb_error *err) {
    for (int i = 0; i < count; i++) {
        destination to = {.device = dev, .data = list[i].device_data};
        BB_TRY(bb_safetensors_scan(st, bb_safetensors_find(st, list[i].name), copy_piece, &to, err));
    }
    return BB_OK;
}

static bb_status load_entries(const bb_safetensors *st, bb_model *model, bb_optimizer *optimizer, bb_error *err) {
    entry *list = NULL;
    int count = 0;
    if (bb_model_file_is_packed(st))
        return bb_fail(
            err, BB_ERR_ARGUMENT,
            "%s: its weights are packed at two bits, for eval and generate; training needs the checkpoint that it was "
            "exported from",
            bb_safetensors_path(st));
    BB_TRY(list_entries(model, optimizer, &list, &count, err));
    bb_status status = check_entries(st, list, count, err);
    if (status == BB_OK) status = check_content(st, list, count, err);
    if (status == BB_OK) status = copy_entries(st, model->device, list, count, err);
    free(list);
    if (status == BB_OK) {
        model->trained_length = bb_model_file_trained_length(st);
        bb_model_parameters_changed(model);
    }
    return status;
}

bb_status bb_model_load(bb_device *device, const char *path, bb_model **out, bb_error *err) {
    *out = NULL;
    bb_safetensors *st;
    bb_config config;
    bb_status status;
    BB_TRY(bb_safetensors_open(path, &st, err));
    BB_TRY_GOTO(status, done, bb_model_file_config(st, &config, err));
    BB_TRY_GOTO(status, done, bb_model_create_empty(device, &config, out, err));
    status = load_entries(st, *out, NULL, err);
    if (status != BB_OK) {
        bb_model_free(*out);
        *out = NULL;
    }
done:
    bb_safetensors_close(st);
    return status;
}

static bb_status same_config(const char *path, const bb_config *file, const bb_config *model, bb_error *err) {
    const struct {
        const char *name;
        double file, model;
    } values[] = {{"n_layer", file->n_layer, model->n_layer},
                  {"d_model", file->d_model, model->d_model},
                  {"n_head", file->n_head, model->n_head},
                  {"n_kv_head", file->n_kv_head, model->n_kv_head},
                  {"d_ff", file->d_ff, model->d_ff},
                  {"rope_base", file->rope_base, model->rope_base},
                  {"norm_eps", file->norm_eps, model->norm_eps},
                  {"act_quant", file->act_quant, model->act_quant},
                  {"ste (0 identity, 1 clipped)", file->ste, model->ste}};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        if (values[i].file < values[i].model || values[i].file > values[i].model)
            return bb_fail(err, BB_ERR_ARGUMENT, "%s: its model has %s %g, this one has %g", path, values[i].name,
                           values[i].file, values[i].model);
    return BB_OK;
}

bb_status bb_checkpoint_load(const char *path, bb_model *model, bb_optimizer *optimizer, bb_training_state *state,
                             bb_error *err) {
    bb_safetensors *st;
    bb_config config;
    bb_training_state read;
    char kind[16];
    bb_status status;
    BB_TRY(bb_safetensors_open(path, &st, err));
    BB_TRY_GOTO(status, done, bb_model_file_config(st, &config, err));
    BB_TRY_GOTO(status, done, same_config(path, &config, &model->config, err));
    BB_TRY_GOTO(status, done, bb_checkpoint_read_state(st, &read, kind, sizeof kind, err));
    if (optimizer) {
        const char *want = bb_optimizer_is_8bit(optimizer) ? "adamw8bit" : "adamw";
        if (strcmp(kind, want) != 0) {
            status = bb_fail(err, BB_ERR_ARGUMENT,
                             "%s: its optimizer state is '%s', this run's is '%s'; start the moments afresh without its state "
                             "(--no_opt_state)%s",
                             path, kind, want, strcmp(kind, "none") ? ", or use the same optimizer" : "");
            goto done;
        }
    }
    BB_TRY_GOTO(status, done, load_entries(st, model, optimizer, err));
    if (optimizer) optimizer->steps = read.optimizer_steps;
    if (state) *state = read;
done:
    bb_safetensors_close(st);
    return status;
}
