// SPDX-License-Identifier: MIT
#include "ordered_batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct bb_ordered_run {
    const bb_ordered *ordered;
    bb_batch *batch;
    bb_ordered_item *first, **last; /* unfinished items, in order */
    int in_flight;
    int64_t made;
    bool exhausted, stopping, no_memory;
} run;

static void pass_on(run *r, bb_ordered_item *item, const uint8_t *bytes, size_t count) {
    for (size_t i = 0; r->ordered->on_byte && i < count; i++) r->ordered->on_byte(r->ordered->user, item, bytes[i]);
}

static bool store(bb_ordered_item *item, uint8_t byte) {
    if (item->length == item->capacity) {
        size_t capacity = item->capacity ? 2 * item->capacity : 1024;
        uint8_t *larger = realloc(item->text, capacity);
        if (!larger) return false;
        item->text = larger;
        item->capacity = capacity;
    }
    item->text[item->length++] = byte;
    return true;
}

static bool on_byte(void *user, const bb_batch_byte *byte) {
    bb_ordered_item *item = user;
    run *r = item->run;
    if ((item != r->first || r->ordered->keep) && !store(item, byte->byte)) r->no_memory = true;
    if (item == r->first) pass_on(r, item, &byte->byte, 1);
    return !r->no_memory && !r->ordered->stopped(r->ordered->user);
}

static bool on_read(void *user, int64_t done, int64_t total) {
    bb_ordered_item *item = user;
    run *r = item->run;
    if (item->number == 0 && r->ordered->on_read) r->ordered->on_read(r->ordered->user, done, total);
    return !r->ordered->stopped(r->ordered->user);
}

static void fail_item(bb_ordered_item *item, const bb_error *err) {
    item->failure = err->code;
    memcpy(item->error, err->message, sizeof item->error);
}

static void on_end(void *user, const bb_batch_end *end) {
    bb_ordered_item *item = user;
    item->ended = true;
    item->finish = end->finish;
    item->metrics = end->metrics;
    if (end->error) fail_item(item, end->error);
    item->run->in_flight--;
}

static void begin_first(run *r) {
    bb_ordered_item *item = r->first;
    r->ordered->on_begin(r->ordered->user, item);
    pass_on(r, item, item->text, item->length);
    if (!r->ordered->keep) item->length = 0;
}

/* Delivers the finished items at the front, and starts streaming the next one. */
static void advance(run *r) {
    while (r->first && r->first->ended && !r->stopping) {
        bb_ordered_item *item = r->first;
        bool interrupted = item->finish == BB_FINISH_CALLER;
        r->ordered->on_end(r->ordered->user, item);
        r->first = item->next;
        if (!r->first) r->last = &r->first;
        free(item->text);
        free(item);
        r->stopping |= interrupted;
        if (r->first && !r->stopping) begin_first(r);
    }
}

/* Adds requests until `limit` are in flight. */
static bb_status fill(run *r, int limit, bb_error *err) {
    while (!r->exhausted && r->in_flight < limit) {
        bb_ordered_item *item = calloc(1, sizeof *item);
        bb_batch_request request;
        if (!item) {
            r->no_memory = true;
            return BB_OK;
        }
        item->run = r;
        item->number = r->made;
        if (!r->ordered->next(r->ordered->user, item)) {
            free(item);
            r->exhausted = true;
            return BB_OK;
        }
        r->made++;
        request = (bb_batch_request){.struct_size = sizeof(bb_batch_request),
                                     .prompt = item->prompt,
                                     .options = &item->options,
                                     .on_byte = on_byte,
                                     .on_read = on_read,
                                     .on_end = on_end,
                                     .user = item};
        item->ended = item->error[0] != '\0';
        item->finish = BB_FINISH_ERROR;
        *r->last = item;
        r->last = &item->next;
        if (!item->ended) {
            bb_status status = bb_batch_add(r->batch, &request, &item->id, err);
            if (status == BB_ERR_ARGUMENT || status == BB_ERR_MEMORY) { /* the error is that of this request */
                item->ended = true;
                fail_item(item, err);
            } else if (status != BB_OK) {
                return status;
            }
        }
        if (!item->ended) r->in_flight++;
        if (item == r->first) begin_first(r);
        advance(r);
    }
    return BB_OK;
}

bb_status bb_ordered_batch_run(const bb_ordered *o, bb_model *model, const bb_batch_options *options, bb_error *err) {
    run r = {.ordered = o};
    bool more = true;
    r.last = &r.first;
    bb_status status = bb_batch_open(model, options, &r.batch, err);
    /* twice as many, so that one long text does not leave the others without work */
    while (status == BB_OK && more && !r.no_memory && !o->stopped(o->user)) {
        status = fill(&r, 2 * options->max_sequences, err);
        if (status == BB_OK) status = bb_batch_step(r.batch, &more, err);
        if (status == BB_OK) advance(&r);
        more |= !r.exhausted;
    }
    if (status == BB_OK && r.no_memory) {
        err->code = status = BB_ERR_MEMORY;
        snprintf(err->message, sizeof err->message, "out of memory for the texts that are generated");
    }
    if (status == BB_OK && r.first) { /* stopped */
        for (bb_ordered_item *item = r.first; item; item = item->next) bb_batch_cancel(r.batch, item->id);
        status = bb_batch_step(r.batch, &more, err);
        if (status == BB_OK) advance(&r);
    }
    bb_batch_close(r.batch);
    while (r.first) {
        bb_ordered_item *next = r.first->next;
        if (o->drop) o->drop(o->user, r.first);
        free(r.first->text);
        free(r.first);
        r.first = next;
    }
    return status;
}
