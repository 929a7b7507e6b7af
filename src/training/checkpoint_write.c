// SPDX-License-Identifier: MIT
#include "training/checkpoint_write.h"

#include <stdlib.h>

#include "modelfile/chat_template.h"
#include "modelfile/layouts.h"
#include "modelfile/safetensors.h"

enum { BUFFER_BYTES = 1 << 20 };

/* Moves a part that is not in a copy through a buffer: into the file on the rank that writes, else (sink NULL) to that rank. */
static bb_status move_part(bb_tensor_sink *sink, bb_device *dev, bb_dist *dist, const bb_checkpoint_part *part, uint8_t *buffer,
                           bb_error *err) {
    for (size_t at = 0; at < part->bytes; at += BUFFER_BYTES) {
        size_t n = part->bytes - at < BUFFER_BYTES ? part->bytes - at : (size_t)BUFFER_BYTES;
        if (part->data) {
            dev->ops->copy_out(dev, buffer, (const uint8_t *)part->data + at, n);
            BB_TRY(dev->ops->sync(dev, err));
        }
        if (dist && (!part->data || !sink)) /* without ranks, all of it is here and goes into the file */
            BB_TRY(dist->engine->transfer(dist, buffer, n, part->rank, 0, err));
        if (sink) BB_TRY(bb_tensor_sink_write(sink, buffer, n, err));
    }
    return BB_OK;
}

static bb_status write_tensor(const bb_snapshot *s, bb_tensor_sink *sink, const bb_checkpoint_tensor *tensor, uint8_t *buffer,
                              bb_error *err) {
    bool direct = s->copy || (!s->dist && s->device->ops->host_memory);
    for (int i = 0, parts = bb_checkpoint_part_count(&s->memory, tensor); i < parts; i++) {
        bb_checkpoint_part part = bb_checkpoint_part_at(&s->memory, tensor, i);
        BB_TRY(direct ? bb_tensor_sink_write(sink, part.data, part.bytes, err)
                      : move_part(sink, s->device, s->dist, &part, buffer, err));
    }
    return BB_OK;
}

/* Creates the file and writes all of it; *sink stays open. */
static bb_status write_all(const bb_snapshot *s, const char *path, bb_tensor_sink **sink, bb_error *err) {
    const bb_file_metadata metadata[] = {{"format", BB_MODEL_FILE_FORMAT},
                                         {"config", s->config_text},
                                         {"trained_length", s->length_text},
                                         {BB_CHAT_TEMPLATE, s->model->chat_template},
                                         {BB_CHECKPOINT_STATE, s->state_text},
                                         {BB_CHECKPOINT_DATA, s->data_text},
                                         {BB_CHECKPOINT_RUN_CONFIG, s->run_config_text}};
    enum { KEYS = sizeof metadata / sizeof *metadata };
    uint8_t *buffer = s->copy ? NULL : malloc(BUFFER_BYTES);
    if (!s->copy && !buffer) return bb_fail(err, BB_ERR_MEMORY, "out of memory while saving %s", path);
    bb_status status = bb_safetensors_create(path, s->tensors, s->count, metadata, KEYS, sink, err);
    for (int i = 0; i < s->count && status == BB_OK; i++) status = write_tensor(s, *sink, &s->list[i], buffer, err);
    free(buffer);
    return status;
}

bb_status bb_checkpoint_write(bb_snapshot *s, const char *path, bb_error *err) {
    bb_tensor_sink *sink = NULL;
    bb_snapshot_finish_copy(s);
    bb_status status = write_all(s, path, &sink, err);
    bb_snapshot_release(s); /* also after a failure, because training continues */
    if (status == BB_OK) return bb_tensor_sink_commit(sink, err);
    if (sink) bb_tensor_sink_abort(sink);
    return status;
}

/* Sends all of this rank's state to rank 0's copy. */
static bb_status send_state(const bb_optimizer *o, bb_error *err) {
    bb_device *dev = o->model->device;
    bool host = dev->ops->host_memory;
    uint8_t *buffer = host ? NULL : malloc(BB_SNAPSHOT_MESSAGE);
    bb_status status = host || buffer ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "out of memory while saving");
    for (size_t at = 0; at < o->bytes && status == BB_OK; at += BB_SNAPSHOT_MESSAGE) {
        uint8_t *part = (uint8_t *)o->memory + at;
        size_t n = o->bytes - at < BB_SNAPSHOT_MESSAGE ? o->bytes - at : (size_t)BB_SNAPSHOT_MESSAGE;
        if (!host) {
            dev->ops->copy_out(dev, buffer, part, n);
            status = dev->ops->sync(dev, err);
        }
        if (status == BB_OK) status = o->dist->engine->transfer(o->dist, host ? part : buffer, n, o->dist->rank, 0, err);
    }
    free(buffer);
    return status;
}

bb_status bb_checkpoint_contribute(const bb_optimizer *optimizer, bool copy, bb_error *err) {
    bb_dist *dist = optimizer->dist;
    if (copy) return send_state(optimizer, err);
    const bb_model *model = optimizer->model;
    bb_checkpoint_memory memory = bb_checkpoint_memory_of(model, optimizer);
    bb_checkpoint_tensor *list = NULL;
    int count = 0;
    uint8_t *buffer = malloc(BUFFER_BYTES);
    bb_status status = buffer ? bb_checkpoint_tensors_list(model, optimizer, NULL, &list, &count, err)
                              : bb_fail(err, BB_ERR_MEMORY, "out of memory while saving");
    for (int i = 0; i < count && status == BB_OK; i++)
        for (int j = 0, parts = bb_checkpoint_part_count(&memory, &list[i]); j < parts && status == BB_OK; j++) {
            bb_checkpoint_part part = bb_checkpoint_part_at(&memory, &list[i], j);
            if (part.data && list[i].field != BB_FIELD_VALUES)
                status = move_part(NULL, model->device, dist, &part, buffer, err);
        }
    free(list);
    free(buffer);
    return status;
}

bb_status bb_checkpoint_save(const char *path, const bb_model *model, const bb_optimizer *optimizer,
                             const bb_training_state *state, bb_error *err) {
    bb_snapshot *snapshot;
    BB_TRY(bb_snapshot_create(model, optimizer, false, &snapshot, err));
    bb_status status = bb_snapshot_capture(snapshot, state, err);
    if (status == BB_OK) status = bb_checkpoint_write(snapshot, path, err);
    bb_snapshot_free(snapshot);
    return status;
}
