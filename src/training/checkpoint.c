// SPDX-License-Identifier: MIT
#include "training/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/host.h"
#include "core/json.h"
#include "model/config.h"
#include "modelfile/layouts.h"
#include "modelfile/safetensors.h"
#include "modelfile/verify.h"
#include "training/old_moments.h"

enum {
    PIECE_BYTES = 1 << 20,
    NAME_BYTES = 64,
    STATES_PER_TENSOR = 4,
    LARGE_COPY = 8 /* part of the host's memory */
};

/* What of a parameter a tensor of the file holds. */
typedef enum field { VALUES, M, V, M8, V8, M8_ABSMAX, V8_ABSMAX } field;

typedef struct entry {
    char name[NAME_BYTES];
    bb_file_tensor tensor;
    int param; /* of the table */
    field field;
} entry;

static void add_entry(entry *list, int *count, const char *prefix, const bb_param *p, int param, field what) {
    bool codes = what == M8 || what == V8, absmax = what == M8_ABSMAX || what == V8_ABSMAX;
    entry *e = &list[(*count)++];
    snprintf(e->name, sizeof e->name, "%s%s", prefix, p->name);
    e->param = param;
    e->field = what;
    e->tensor = (bb_file_tensor){.dtype = codes ? BB_FILE_U8 : BB_FILE_F32, .rank = absmax ? 1 : p->rank};
    int64_t blocks = bb_optimizer_blocks(p->count);
    memcpy(e->tensor.shape, absmax ? &blocks : p->shape, (size_t)e->tensor.rank * sizeof *p->shape);
    e->tensor.bytes = (uint64_t)(absmax ? blocks : p->count) * bb_file_dtype_bytes(e->tensor.dtype);
}

/* The one list of what a checkpoint holds, for writing and for reading: the parameters, then for each its moments. st: the file that
 * is read, which may be of an older version; NULL for writing. */
static bb_status list_entries(const bb_model *model, const bb_optimizer *optimizer, const bb_tensor_source *st, entry **out,
                              int *count, bb_error *err) {
    const bb_param_table *t = &model->table;
    entry *list = calloc((size_t)t->count * (1 + STATES_PER_TENSOR), sizeof *list);
    if (!list) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a list of %d tensors", t->count);
    *count = 0;
    for (int i = 0; i < t->count; i++) add_entry(list, count, "", &t->entries[i], i, VALUES);
    for (int i = 0; optimizer && i < t->count; i++) {
        const bb_param *p = &t->entries[i];
        if (bb_optimizer_packs(optimizer->options.kind, p) || (st && bb_old_moments_found(st, optimizer, p))) {
            add_entry(list, count, "opt.m8.", p, i, M8);
            add_entry(list, count, "opt.v8.", p, i, V8);
            add_entry(list, count, "opt.m8_absmax.", p, i, M8_ABSMAX);
            add_entry(list, count, "opt.v8_absmax.", p, i, V8_ABSMAX);
        } else {
            add_entry(list, count, "opt.m.", p, i, M);
            add_entry(list, count, "opt.v.", p, i, V);
        }
    }
    *out = list;
    return BB_OK;
}

/* ---- where the bytes of an entry are --------------------------------------------------------------------------------- */

/* On the device, or in a copy. */
typedef struct places {
    const bb_param_table *table;
    float *params;
    const bb_shards *shards;        /* of the optimizer; NULL: there is none */
    const bb_optimizer_slot *slots; /* one per piece */
} places;

/* A parameter's values are one part, its moments one from each piece. */
typedef struct part {
    void *data; /* NULL: another rank has it */
    size_t bytes;
    int rank; /* that has it, where data is NULL */
} part;

static places places_of(const bb_model *model, const bb_optimizer *optimizer) {
    return (places){.table = &model->table,
                    .params = model->params,
                    .shards = optimizer ? &optimizer->shards : NULL,
                    .slots = optimizer ? optimizer->slots : NULL};
}

static int part_count(const places *from, const entry *e) {
    return e->field == VALUES ? 1 : from->shards->first_piece[e->param + 1] - from->shards->first_piece[e->param];
}

static part part_of(const places *from, const entry *e, int index) {
    if (e->field == VALUES)
        return (part){.data = from->params + from->table->entries[e->param].offset, .bytes = (size_t)e->tensor.bytes};
    int i = from->shards->first_piece[e->param] + index;
    const bb_piece *p = &from->shards->pieces[i];
    const bb_optimizer_slot *s = &from->slots[i];
    size_t n = (size_t)p->count, blocks = (size_t)bb_optimizer_blocks(p->count);
    switch (e->field) {
    case M8: return (part){s->q.m, n, p->rank};
    case V8: return (part){s->q.v, n, p->rank};
    case M8_ABSMAX: return (part){s->q.m_absmax, blocks * sizeof(float), p->rank};
    case V8_ABSMAX: return (part){s->q.v_absmax, blocks * sizeof(float), p->rank};
    case M: return (part){s->m, n * sizeof(float), p->rank};
    default: return (part){s->v, n * sizeof(float), p->rank};
    }
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

static const char *const sampling_names[] = {
    [BB_SAMPLING_EPOCHS] = "epochs", [BB_SAMPLING_WITH_REPLACEMENT] = "with_replacement"};

static json_t *state_to_json(const bb_training_state *s, const bb_optimizer *optimizer) {
    json_t *state = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:f, s:i, s:s, s:s}", "step", (json_int_t)s->step, "samples",
        (json_int_t)s->samples, "bytes_seen", (json_int_t)s->bytes_seen, "skipped_steps", (json_int_t)s->skipped_steps,
        "skipped_in_a_row", (json_int_t)s->skipped_in_a_row, "skipped_micro_batches", (json_int_t)s->skipped_micro_batches,
        "optimizer_steps", (json_int_t)s->optimizer_steps, "trained_length", s->trained_length, "scaler_scale", s->scaler_scale,
        "scaler_good_steps", s->scaler_good_steps, "sampling", sampling_names[s->sampling], "optimizer",
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

/* Absent: the file is from before there were epochs. */
static bb_status read_sampling(const json_t *name, const char *path, bb_sampling *out, bb_error *err) {
    *out = BB_SAMPLING_WITH_REPLACEMENT;
    for (int i = BB_SAMPLING_EPOCHS; name && i <= BB_SAMPLING_WITH_REPLACEMENT; i++)
        if (json_is_string(name) && strcmp(json_string_value(name), sampling_names[i]) == 0) {
            *out = (bb_sampling)i;
            return BB_OK;
        }
    if (!name) return BB_OK;
    return bb_fail(err, BB_ERR_FORMAT, "%s: training state: sampling should be \"%s\" or \"%s\", is %s", path,
                   sampling_names[BB_SAMPLING_EPOCHS], sampling_names[BB_SAMPLING_WITH_REPLACEMENT],
                   json_is_string(name) ? json_string_value(name) : bb_json_type_name(name));
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
    const json_t *scale = json_object_get(o, "scaler_scale");
    if (status == BB_OK && (!json_is_number(scale) || json_number_value(scale) < 0))
        status = bb_fail(err, BB_ERR_FORMAT, "%s: training state: scaler_scale should be a number >= 0, is %s", path,
                         json_is_number(scale) ? "negative" : bb_json_type_name(scale));
    json_int_t in_a_row = 0; /* files of version 0.1.0 have none */
    if (status == BB_OK && json_object_get(o, "skipped_in_a_row"))
        status = read_int(o, "skipped_in_a_row", path, &in_a_row, err);
    bb_spike_window spikes;
    if (status == BB_OK) status = read_window(json_object_get(o, "spike_window"), path, &spikes, err);
    bb_sampling sampling = BB_SAMPLING_EPOCHS;
    if (status == BB_OK) status = read_sampling(json_object_get(o, "sampling"), path, &sampling, err);
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
                                   .scaler_scale = json_number_value(scale),
                                   .scaler_good_steps = (int)v[7],
                                   .skipped_in_a_row = in_a_row,
                                   .spikes = spikes,
                                   .sampling = sampling};
        snprintf(optimizer, optimizer_size, "%s", name);
    }
    json_decref(o);
    return status;
}

/* ---- writing --------------------------------------------------------------------------------------------------------- */

struct bb_checkpoint_image {
    bb_device *device;
    bb_dist *dist; /* that the optimizer's state is shared out over, or NULL */
    entry *list;
    bb_file_tensor *tensors; /* (count), the list's */
    int count;
    places from;
    uint8_t *copy;            /* the parameters, then the state of each rank as it lies there; NULL: tensors are read from the
                                 device while they are written */
    size_t copy_bytes, *ends; /* ends: (ranks + 1) in copy, of the parameters and of each rank's state */
    bb_optimizer_slot *slots; /* in copy */
    char *config_text, *state_text;
    const char *data_text, *run_config_text; /* the state's */
    char length_text[16];
};

/* Measures, or carves. */
static void lay_out_copy(bb_checkpoint_image *image, const bb_model *model, const bb_optimizer *optimizer) {
    bb_arena arena = {.base = image->copy};
    image->from.params = bb_arena_take(&arena, (size_t)model->table.total * sizeof(float));
    image->ends[0] = arena.used;
    for (int r = 0, ranks = image->dist ? image->dist->size : 1; r < ranks && optimizer; r++) {
        bb_optimizer_carve(&model->table, &optimizer->shards, r, optimizer->options.kind, image->slots, &arena);
        image->ends[r + 1] = arena.used;
    }
    image->copy_bytes = arena.used;
}

static bb_status make_copy(bb_checkpoint_image *image, const bb_model *model, const bb_optimizer *optimizer, bb_error *err) {
    size_t pieces = optimizer ? (size_t)optimizer->shards.piece_count : 0, ranks = image->dist ? (size_t)image->dist->size : 1;
    image->ends = calloc(ranks + 1, sizeof *image->ends);
    image->slots = calloc(pieces + 1, sizeof *image->slots);
    if (!image->ends || !image->slots) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a checkpoint");
    image->from.slots = image->slots;
    lay_out_copy(image, model, optimizer);
    image->copy = aligned_alloc(BB_ALIGN, image->copy_bytes);
    if (!image->copy)
        return bb_fail(err, BB_ERR_MEMORY, "no memory for a checkpoint and its copy: %.1f MB",
                       (double)image->copy_bytes * 1e-6);
    memset(image->copy, 0xff, image->copy_bytes); /* the pages are there now, and not at the first save */
    lay_out_copy(image, model, optimizer);
    return BB_OK;
}

bb_status bb_checkpoint_image_create(const bb_model *model, const bb_optimizer *optimizer, bool copy, bb_checkpoint_image **out,
                                     bb_error *err) {
    *out = NULL;
    bb_status status = BB_OK;
    bb_checkpoint_image *image = calloc(1, sizeof *image);
    if (!image) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a checkpoint");
    image->device = model->device;
    image->dist = optimizer ? optimizer->dist : NULL;
    image->from = places_of(model, optimizer);
    json_t *config = bb_config_to_json(&model->config);
    image->config_text = config ? bb_json_text(config, JSON_COMPACT) : NULL;
    json_decref(config);
    BB_TRY_GOTO(status, fail, list_entries(model, optimizer, NULL, &image->list, &image->count, err));
    image->tensors = calloc((size_t)image->count, sizeof *image->tensors);
    if (!image->config_text || !image->tensors) {
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory for a checkpoint");
        goto fail;
    }
    for (int i = 0; i < image->count; i++) {
        image->tensors[i] = image->list[i].tensor;
        image->tensors[i].name = image->list[i].name;
    }
    if (copy) BB_TRY_GOTO(status, fail, make_copy(image, model, optimizer, err));
    *out = image;
    return BB_OK;
fail:
    bb_checkpoint_image_free(image);
    return status;
}

uint64_t bb_checkpoint_image_bytes(const bb_checkpoint_image *image) {
    uint64_t bytes = 0;
    for (int i = 0; i < image->count; i++) bytes += image->tensors[i].bytes;
    return bytes;
}

void bb_checkpoint_image_free(bb_checkpoint_image *image) {
    if (!image) return;
    free(image->list);
    free(image->tensors);
    free(image->copy);
    free(image->ends);
    free(image->slots);
    free(image->config_text);
    free(image->state_text);
    free(image);
}

/* What is here, to the copy. */
static void copy_own(const bb_checkpoint_image *image, const bb_model *model, const bb_optimizer *optimizer) {
    bb_device *dev = image->device;
    dev->ops->copy_out(dev, image->copy, model->params, (size_t)model->table.total * sizeof(float));
    if (optimizer && optimizer->bytes > 0)
        dev->ops->copy_out(dev, image->copy + image->ends[0], optimizer->memory, optimizer->bytes);
}

static bb_status take_copy(const bb_checkpoint_image *image, const bb_model *model, const bb_optimizer *optimizer,
                           bb_error *err) {
    bb_device *dev = image->device;
    if (!dev->ops->host_memory) copy_own(image, model, optimizer);
    BB_TRY(dev->ops->sync(dev, err));
    for (int r = 1; image->dist && r < image->dist->size; r++)
        BB_TRY(image->dist->engine->transfer(image->dist, image->copy + image->ends[r], image->ends[r + 1] - image->ends[r], r,
                                             0, err));
    return BB_OK;
}

void bb_checkpoint_image_copy(bb_checkpoint_image *image, const bb_model *model, const bb_optimizer *optimizer) {
    if (image->copy && image->device->ops->host_memory) copy_own(image, model, optimizer);
}

bb_status bb_checkpoint_image_take(bb_checkpoint_image *image, const bb_model *model, const bb_optimizer *optimizer,
                                   const bb_training_state *state, bb_error *err) {
    free(image->state_text);
    image->state_text = NULL;
    image->data_text = state ? state->data : NULL;
    image->run_config_text = state ? state->run_config : NULL;
    if (state) {
        json_t *json = state_to_json(state, optimizer);
        image->state_text = json ? bb_json_text(json, JSON_COMPACT) : NULL;
        json_decref(json);
        if (!image->state_text) return bb_fail(err, BB_ERR_MEMORY, "out of memory while saving");
    }
    snprintf(image->length_text, sizeof image->length_text, "%d", model->trained_length);
    return image->copy ? take_copy(image, model, optimizer, err) : BB_OK;
}

/* A part that is not in a copy, through a buffer: to the file, on the rank that writes it; else (writer NULL) to that rank. */
static bb_status move_part(bb_tensor_sink *writer, bb_device *dev, bb_dist *dist, const part *p, uint8_t *buffer,
                           bb_error *err) {
    for (size_t at = 0; at < p->bytes; at += PIECE_BYTES) {
        size_t n = p->bytes - at < PIECE_BYTES ? p->bytes - at : (size_t)PIECE_BYTES;
        if (p->data) {
            dev->ops->copy_out(dev, buffer, (const uint8_t *)p->data + at, n);
            BB_TRY(dev->ops->sync(dev, err));
        }
        if (!p->data || !writer) BB_TRY(dist->engine->transfer(dist, buffer, n, p->rank, 0, err));
        if (writer) BB_TRY(bb_tensor_sink_write(writer, buffer, n, err));
    }
    return BB_OK;
}

static bb_status write_entry(const bb_checkpoint_image *image, bb_tensor_sink *writer, const entry *e, uint8_t *buffer,
                             bb_error *err) {
    bool direct = image->copy || (!image->dist && image->device->ops->host_memory);
    for (int i = 0, parts = part_count(&image->from, e); i < parts; i++) {
        part p = part_of(&image->from, e, i);
        BB_TRY(direct ? bb_tensor_sink_write(writer, p.data, p.bytes, err)
                      : move_part(writer, image->device, image->dist, &p, buffer, err));
    }
    return BB_OK;
}

bool bb_checkpoint_is_here(const bb_model *model, const bb_optimizer *optimizer) {
    return model->device->ops->host_memory && !(optimizer && optimizer->dist);
}

bool bb_checkpoint_is_copied(uint64_t bytes) {
    uint64_t total, free;
    bb_host_memory("", &total, &free);
    /* Where that is not known, without a copy: it costs time, not the run. */
    return bytes <= total / LARGE_COPY;
}

bool bb_checkpoint_copies(const bb_train_options *o, uint64_t bytes, bool shared_out) {
    if (o->save_sync || o->save_copy != BB_SAVE_COPY_AUTO) return !o->save_sync && o->save_copy == BB_SAVE_COPY_YES;
    return shared_out || bb_checkpoint_is_copied(bytes);
}

bb_status bb_checkpoint_image_write(const bb_checkpoint_image *image, const char *path, void (*on_read)(void *user), void *user,
                                    bb_error *err) {
    bb_tensor_sink *writer = NULL;
    bb_status status;
    const bb_file_metadata all[] = {{"format", BB_MODEL_FILE_FORMAT},       {"config", image->config_text},
                                    {"trained_length", image->length_text}, {"training_state", image->state_text},
                                    {BB_CHECKPOINT_DATA, image->data_text}, {BB_CHECKPOINT_RUN_CONFIG, image->run_config_text}};
    enum { KEYS = sizeof all / sizeof *all };
    bb_file_metadata metadata[KEYS];
    int keys = 0;
    for (int i = 0; i < KEYS; i++)
        if (all[i].value) metadata[keys++] = all[i];
    uint8_t *buffer = image->copy ? NULL : malloc(PIECE_BYTES);
    if (!image->copy && !buffer) return bb_fail(err, BB_ERR_MEMORY, "out of memory while saving %s", path);
    BB_TRY_GOTO(status, done, bb_safetensors_create(path, image->tensors, image->count, metadata, keys, &writer, err));
    for (int i = 0; i < image->count && status == BB_OK; i++) status = write_entry(image, writer, &image->list[i], buffer, err);
    if (on_read) on_read(user);
    if (status == BB_OK)
        status = bb_tensor_sink_commit(writer, err);
    else
        bb_tensor_sink_abort(writer);
done:
    free(buffer);
    return status;
}

bb_status bb_checkpoint_contribute(const bb_optimizer *optimizer, bool copy, bb_error *err) {
    bb_dist *dist = optimizer->dist;
    if (copy) return dist->engine->transfer(dist, optimizer->memory, optimizer->bytes, dist->rank, 0, err);
    const bb_model *model = optimizer->model;
    places from = places_of(model, optimizer);
    entry *list = NULL;
    int count = 0;
    uint8_t *buffer = malloc(PIECE_BYTES);
    bb_status status = buffer ? list_entries(model, optimizer, NULL, &list, &count, err)
                              : bb_fail(err, BB_ERR_MEMORY, "out of memory while saving");
    for (int i = 0; i < count && status == BB_OK; i++)
        for (int j = 0, parts = part_count(&from, &list[i]); j < parts && status == BB_OK; j++) {
            part p = part_of(&from, &list[i], j);
            if (p.data && list[i].field != VALUES) status = move_part(NULL, model->device, dist, &p, buffer, err);
        }
    free(list);
    free(buffer);
    return status;
}

bb_status bb_checkpoint_save(const char *path, const bb_model *model, const bb_optimizer *optimizer,
                             const bb_training_state *state, bb_error *err) {
    bb_checkpoint_image *image;
    BB_TRY(bb_checkpoint_image_create(model, optimizer, false, &image, err));
    bb_status status = bb_checkpoint_image_take(image, model, optimizer, state, err);
    if (status == BB_OK) status = bb_checkpoint_image_write(image, path, NULL, NULL, err);
    bb_checkpoint_image_free(image);
    return status;
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

bb_status bb_checkpoint_read_state(const bb_tensor_source *st, bb_training_state *out, char *optimizer, size_t optimizer_size,
                                   bb_error *err) {
    const char *text = bb_tensor_source_metadata(st, "training_state");
    *out = (bb_training_state){0};
    snprintf(optimizer, optimizer_size, "none");
    return text ? state_from_json(text, bb_tensor_source_path(st), out, optimizer, optimizer_size, err) : BB_OK;
}

/* Every tensor of the list is in the file with its type and shape: checked before anything is changed. */
static bb_status check_entries(const bb_tensor_source *st, const entry *list, int count, bb_error *err) {
    for (int i = 0; i < count; i++) {
        const bb_file_tensor *want = &list[i].tensor, *found = NULL;
        if (want->dtype == BB_FILE_F32) {
            BB_TRY(bb_tensor_source_require(st, list[i].name, BB_FILE_F32, want->rank, want->shape, &found, err));
            continue;
        }
        found = bb_tensor_source_find(st, list[i].name);
        if (!found) return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s' is missing", bb_tensor_source_path(st), list[i].name);
        if (found->dtype != want->dtype || found->bytes != want->bytes)
            return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': expected %llu bytes of %s, found %llu of %s",
                           bb_tensor_source_path(st), list[i].name, (unsigned long long)want->bytes,
                           bb_file_dtype_name(want->dtype), (unsigned long long)found->bytes, bb_file_dtype_name(found->dtype));
    }
    return BB_OK;
}

/* All that the file holds of the list is as it was written, and finite: before anything is changed. */
static bb_status check_content(const bb_tensor_source *st, const entry *list, int count, bb_error *err) {
    BB_TRY(bb_tensor_source_check_metadata(st, err));
    for (int i = 0; i < count; i++)
        BB_TRY(bb_tensor_source_scan(st, bb_tensor_source_find(st, list[i].name), bb_tensor_check_finite, (void *)st, err));
    return BB_OK;
}

typedef struct destination {
    bb_device *device;
    const places *to;
    const entry *entry;
} destination;

/* To each part that is here, what of the piece it holds. */
static bb_status copy_piece(void *user, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                            bb_error *err) {
    const destination *d = user;
    uint64_t begin = 0;
    (void)t;
    for (int i = 0, parts = part_count(d->to, d->entry); i < parts && begin < at + size; i++) {
        part p = part_of(d->to, d->entry, i);
        uint64_t from = begin > at ? begin : at, end = begin + p.bytes < at + size ? begin + p.bytes : at + size;
        if (p.data && from < end)
            d->device->ops->copy_in(d->device, (uint8_t *)p.data + (from - begin), piece + (from - at), (size_t)(end - from));
        begin += p.bytes;
    }
    return d->device->ops->sync(d->device, err);
}

/* p's moments, 8 bits in the file, to their places in f32. */
static bb_status copy_old_moments(const bb_tensor_source *st, const bb_optimizer *optimizer, int param, int64_t steps,
                                  bb_error *err) {
    const bb_model *model = optimizer->model;
    const bb_param *p = &model->table.entries[param];
    places to = places_of(model, optimizer);
    float *m, *v;
    BB_TRY(bb_old_moments_read(st, optimizer, p, steps, &m, &v, err));
    entry first = {.param = param, .field = M}, second = {.param = param, .field = V};
    destination to_m = {.device = model->device, .to = &to, .entry = &first}, to_v = to_m;
    to_v.entry = &second;
    size_t bytes = (size_t)p->count * sizeof *m;
    bb_status status = copy_piece(&to_m, NULL, 0, (const uint8_t *)m, bytes, err);
    if (status == BB_OK) status = copy_piece(&to_v, NULL, 0, (const uint8_t *)v, bytes, err);
    free(m);
    return status;
}

static bb_status copy_entries(const bb_tensor_source *st, bb_model *model, bb_optimizer *optimizer, const entry *list,
                              int count, bb_training_state *state, bb_error *err) {
    places to = places_of(model, optimizer);
    for (int i = 0; i < count; i++) {
        destination d = {.device = model->device, .to = &to, .entry = &list[i]};
        if (optimizer && list[i].field != VALUES && bb_old_moments_found(st, optimizer, &model->table.entries[list[i].param])) {
            if (list[i].field != M8) continue; /* the others come with them */
            BB_TRY(copy_old_moments(st, optimizer, list[i].param, state->optimizer_steps, err));
            state->moments_widened = true;
            continue;
        }
        BB_TRY(bb_tensor_source_scan(st, bb_tensor_source_find(st, list[i].name), copy_piece, &d, err));
    }
    return BB_OK;
}

static bb_status load_entries(const bb_model_source *w, bb_model *model, bb_optimizer *optimizer, bb_training_state *state,
                              bb_error *err) {
    const bb_tensor_source *st = w->source;
    entry *list = NULL;
    int count = 0;
    BB_TRY(bb_model_source_refuse_packed(w, err));
    BB_TRY(list_entries(model, optimizer, st, &list, &count, err));
    bb_status status = check_entries(st, list, count, err);
    if (status == BB_OK) status = check_content(st, list, count, err);
    if (status == BB_OK) status = copy_entries(st, model, optimizer, list, count, state, err);
    free(list);
    if (status == BB_OK) {
        model->trained_length = w->trained_length;
        bb_model_parameters_changed(model);
    }
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
    BB_DEVICE_SCOPE(model->device);
    bb_model_source w;
    bb_training_state read;
    char kind[16];
    bb_status status;
    BB_TRY(bb_model_source_open(path, NULL, &w, err));
    BB_TRY_GOTO(status, done, same_config(path, &w.config, &model->config, err));
    BB_TRY_GOTO(status, done, bb_checkpoint_read_state(w.source, &read, kind, sizeof kind, err));
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
    BB_TRY_GOTO(status, done, load_entries(&w, model, optimizer, &read, err));
    if (optimizer) optimizer->steps = read.optimizer_steps;
    if (state) *state = read;
done:
    bb_model_source_close(&w);
    return status;
}

static bb_status check_state(const bb_tensor_source *st, bb_error *err) {
    bb_training_state state;
    char optimizer[16];
    return bb_checkpoint_read_state(st, &state, optimizer, sizeof optimizer, err);
}

bb_status bb_verify_file(const char *path, void (*on_progress)(void *user, int64_t bytes_done, int64_t bytes_total), void *user,
                         bool *good, char **json, bb_error *err) {
    BB_REQUIRE("path, good, json", path, good, json);
    bb_verify_progress progress = {.call = on_progress, .user = user};
    return bb_model_file_verify(path, check_state, &progress, good, json, err);
}

bb_status bb_checkpoint_text(const char *path, const char *key, char **out, bb_error *err) {
    bb_tensor_source *st;
    *out = NULL;
    BB_TRY(bb_tensor_source_open(path, &st, err));
    const char *text = bb_tensor_source_metadata(st, key);
    bb_status status = BB_OK;
    if (text && !(*out = strdup(text))) status = bb_fail(err, BB_ERR_MEMORY, "out of memory for the metadata of %s", path);
    bb_tensor_source_close(st);
    return status;
}

bb_status bb_checkpoint_config(const char *path, char **text, bb_error *err) {
    BB_REQUIRE("path, text", path, text);
    return bb_checkpoint_text(path, BB_CHECKPOINT_RUN_CONFIG, text, err);
}
