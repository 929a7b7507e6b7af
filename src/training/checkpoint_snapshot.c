// SPDX-License-Identifier: MIT
#include "training/checkpoint_snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/host.h"
#include "core/json.h"
#include "model/config.h"

enum { SMALL_COPY_DIVISOR = 8 }; /* a small copy takes at most this fraction of the host's memory */

/* Lays out the copy. Without a base for the arena (the first call) this measures; with one it sets the addresses. */
static void layout_copy(bb_snapshot *s) {
    bb_arena arena = {.base = s->copy};
    s->memory.params = bb_arena_alloc(&arena, (size_t)s->model->table.total * sizeof(float));
    s->rank_offsets[0] = arena.used;
    for (int r = 0, ranks = s->dist ? s->dist->size : 1; r < ranks && s->optimizer; r++) {
        bb_optimizer_layout(&s->model->table, &s->optimizer->shards, r, s->optimizer->options.kind, s->slots, &arena);
        s->rank_offsets[r + 1] = arena.used;
    }
    s->copy_bytes = arena.used;
}

static bb_status alloc_copy(bb_snapshot *s, bb_error *err) {
    size_t pieces = s->optimizer ? (size_t)s->optimizer->shards.piece_count : 0;
    size_t ranks = s->dist ? (size_t)s->dist->size : 1;
    s->rank_offsets = calloc(ranks + 1, sizeof *s->rank_offsets);
    s->slots = calloc(pieces + 1, sizeof *s->slots);
    if (!s->rank_offsets || !s->slots) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a checkpoint");
    s->memory.slots = s->slots;
    layout_copy(s);
    s->copy = aligned_alloc(BB_ALIGN, s->copy_bytes);
    if (!s->copy)
        return bb_fail(err, BB_ERR_MEMORY, "no memory for a checkpoint and its copy: %.1f MB", (double)s->copy_bytes * 1e-6);
    memset(s->copy, 0xff, s->copy_bytes); /* touch the pages now rather than at the first save */
    layout_copy(s);
    return BB_OK;
}

bb_status bb_snapshot_create(const bb_model *model, const bb_optimizer *optimizer, bool copy, bb_snapshot **out,
                             bb_error *err) {
    *out = NULL;
    bb_status status = BB_OK;
    bb_snapshot *s = calloc(1, sizeof *s);
    if (!s) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a checkpoint");
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    s->released = true;
    s->model = model;
    s->optimizer = optimizer;
    s->device = model->device;
    s->dist = optimizer ? optimizer->dist : NULL;
    s->memory = bb_checkpoint_memory_of(model, optimizer);
    json_t *config = bb_config_to_json(&model->config);
    s->config_text = config ? bb_json_text(config, JSON_COMPACT) : NULL;
    json_decref(config);
    BB_TRY_GOTO(status, fail, bb_checkpoint_tensors_list(model, optimizer, NULL, &s->list, &s->count, err));
    s->tensors = calloc((size_t)s->count, sizeof *s->tensors);
    if (!s->config_text || !s->tensors) {
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory for a checkpoint");
        goto fail;
    }
    for (int i = 0; i < s->count; i++) {
        s->tensors[i] = s->list[i].tensor;
        s->tensors[i].name = s->list[i].name;
    }
    if (copy) BB_TRY_GOTO(status, fail, alloc_copy(s, err));
    *out = s;
    return BB_OK;
fail:
    bb_snapshot_free(s);
    return status;
}

static void free_texts(bb_snapshot *s) {
    free(s->state_text);
    free(s->data_text);
    free(s->run_config_text);
    s->state_text = s->data_text = s->run_config_text = NULL;
}

void bb_snapshot_free(bb_snapshot *s) {
    if (!s) return;
    free(s->list);
    free(s->tensors);
    free(s->copy);
    free(s->rank_offsets);
    free(s->slots);
    free(s->config_text);
    free_texts(s);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s);
}

/* Copies this rank's parameters and optimizer state. */
static void copy_own(const bb_snapshot *s) {
    bb_device *dev = s->device;
    dev->ops->copy_out(dev, s->copy, s->model->params, (size_t)s->model->table.total * sizeof(float));
    if (s->optimizer && s->optimizer->bytes > 0)
        dev->ops->copy_out(dev, s->copy + s->rank_offsets[0], s->optimizer->memory, s->optimizer->bytes);
}

/* Copies what another thread could not: from a device's own memory, and from other ranks (sent by bb_checkpoint_contribute). */
static bb_status begin_copy(const bb_snapshot *s, bb_error *err) {
    bb_device *dev = s->device;
    if (!dev->ops->host_memory) copy_own(s);
    BB_TRY(dev->ops->sync(dev, err));
    for (int r = 1; s->dist && r < s->dist->size; r++)
        for (size_t at = s->rank_offsets[r], end = s->rank_offsets[r + 1]; at < end; at += BB_SNAPSHOT_MESSAGE) {
            size_t n = end - at < BB_SNAPSHOT_MESSAGE ? end - at : (size_t)BB_SNAPSHOT_MESSAGE;
            BB_TRY(s->dist->engine->transfer(s->dist, s->copy + at, n, r, 0, err));
        }
    return BB_OK;
}

static void set_released(bb_snapshot *s, bool released) {
    pthread_mutex_lock(&s->lock);
    s->released = released;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

/* The state's texts may change as soon as the live arrays may. */
static bb_status capture_texts(bb_snapshot *s, const bb_training_state *state, bb_error *err) {
    free_texts(s);
    if (!state) return BB_OK;
    json_t *json = bb_training_state_to_json(state, bb_optimizer_name(s->optimizer));
    s->state_text = json ? bb_json_text(json, JSON_COMPACT) : NULL;
    json_decref(json);
    s->data_text = state->data ? strdup(state->data) : NULL;
    s->run_config_text = state->run_config ? strdup(state->run_config) : NULL;
    bool complete = s->state_text && !s->data_text == !state->data && !s->run_config_text == !state->run_config;
    return complete ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "out of memory while saving");
}

bb_status bb_snapshot_capture(bb_snapshot *s, const bb_training_state *state, bb_error *err) {
    BB_TRY(capture_texts(s, state, err));
    snprintf(s->length_text, sizeof s->length_text, "%d", s->model->trained_length);
    if (s->copy) BB_TRY(begin_copy(s, err));
    set_released(s, false);
    return BB_OK;
}

void bb_snapshot_finish_copy(bb_snapshot *s) {
    if (!s->copy) return;
    if (s->device->ops->host_memory) copy_own(s);
    set_released(s, true);
}

void bb_snapshot_release(bb_snapshot *s) { set_released(s, true); }

void bb_snapshot_wait(bb_snapshot *s) {
    pthread_mutex_lock(&s->lock);
    while (!s->released) pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

uint64_t bb_snapshot_bytes(const bb_snapshot *s) {
    uint64_t bytes = 0;
    for (int i = 0; i < s->count; i++) bytes += s->tensors[i].bytes;
    return bytes;
}

bool bb_snapshot_is_local(const bb_model *model, const bb_optimizer *optimizer) {
    return model->device->ops->host_memory && !(optimizer && optimizer->dist);
}

bool bb_snapshot_copy_is_small(uint64_t bytes) {
    uint64_t total, free;
    bb_host_memory("", &total, &free);
    /* If the host's memory is unknown (0) there is no copy: that only costs time, while running out of memory costs the run. */
    return bytes <= total / SMALL_COPY_DIVISOR;
}
