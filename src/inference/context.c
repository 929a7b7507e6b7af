// SPDX-License-Identifier: MIT
#include "inference/context.h"

#include <stdlib.h>
#include <string.h>

#include "core/math.h"

bb_status bb_context_open(bb_model *model, int64_t capacity, bb_kv_type type, bb_context *c, bb_error *err) {
    *c = (bb_context){.model = model, .logits_at = -1};
    if (capacity < 1 || capacity > BB_CONTEXT_MAX_LENGTH)
        return bb_fail(err, BB_ERR_ARGUMENT, "context_length %lld must be from 1 to %d", (long long)capacity,
                       BB_CONTEXT_MAX_LENGTH);
    c->memory = capacity > BB_CONTEXT_MEMORY ? capacity : BB_CONTEXT_MEMORY;
    c->text = malloc(2 * (size_t)c->memory);
    c->logits = malloc(BB_CONTEXT_ROWS * (size_t)model->config.vocab_size * sizeof *c->logits);
    bb_status status = BB_OK;
    if (!c->text || !c->logits)
        status = bb_fail(err, BB_ERR_MEMORY, "no memory for %lld bytes of context", (long long)capacity);
    else
        status = bb_kv_cache_open(model, capacity, type, &c->cache, err);
    if (status != BB_OK) bb_context_close(c);
    return status;
}

static void drop_mark(bb_context *c) {
    free(c->mark.text);
    free(c->mark.logits);
    c->mark = (bb_context_mark){.text = NULL};
}

void bb_context_close(bb_context *c) {
    bb_kv_cache_close(&c->cache);
    free(c->text);
    free(c->logits);
    drop_mark(c);
    *c = (bb_context){.model = NULL};
}

int64_t bb_context_free(const bb_context *c) { return c->cache.kv.capacity - (c->end - c->first); }

void bb_context_append(bb_context *c, const uint8_t *bytes, int64_t n) {
    int64_t capacity = 2 * c->memory, held = c->end - c->base;
    if (held + n > capacity) { /* keep the newest bytes of both */
        int64_t skipped = n > c->memory ? n - c->memory : 0, keep = c->memory - (n - skipped);
        if (keep > held) keep = held;
        memmove(c->text, c->text + held - keep, (size_t)keep);
        if (skipped) { /* bytes that would be dropped immediately are never copied */
            c->end += skipped;
            bytes += skipped;
            n -= skipped;
        }
        c->base = c->end - keep;
        held = keep;
    }
    memcpy(c->text + held, bytes, (size_t)n);
    c->end += n;
}

void bb_context_cut(bb_context *c, int64_t end) {
    c->end = end;
    if (c->mark.text && c->mark.end > end) drop_mark(c);
    if (c->first >= end) { /* nothing of the window is left: read the text before it again */
        c->first = end - bb_min(end - c->base, c->cache.kv.capacity - c->cache.kv.capacity / 4);
        c->cache.length = 0;
    }
    c->cache.length = bb_min(c->cache.length, end - c->first);
}

int64_t bb_context_follow(bb_context *c, const bb_context *other, int64_t same, const uint8_t *bytes, int64_t count) {
    if (c->end < other->base || c->base > other->end || c->end == c->base) { /* nothing in common */
        bb_context_clear(c);
        c->base = c->end = c->first = other->base;
    }
    int64_t from = same > c->base ? same : c->base, end = bb_min(c->end, other->end);
    if (from < other->base) from = other->base;
    while (from < end && *bb_context_at(c, from) == *bb_context_at(other, from)) from++;
    if (from > end) from = end;
    int64_t more = 0;
    if (from == other->end)
        while (more < count && from + more < c->end && *bb_context_at(c, from + more) == bytes[more]) more++;
    bb_context_cut(c, from + more);
    if (from < other->end) bb_context_append(c, bb_context_at(other, from), other->end - from);
    bb_context_append(c, bytes + more, count - more);
    return other->end;
}

/* The unread bytes do not fit the window: starts a new window with the newest bytes, read from position 0. */
static void slide(bb_context *c) {
    int64_t capacity = c->cache.kv.capacity, unread = c->end - (c->first + c->cache.length);
    int64_t max = capacity > 1 ? capacity - capacity / 4 : 1, keep = bb_min(capacity / 2 + unread, max);
    if (c->cache.length > 0) c->restarts++;
    c->first = c->end - bb_min(keep, c->end - c->base);
    c->cache.length = 0;
}

static int64_t unread_of(const bb_context *c) { return c->end - (c->first + c->cache.length); }

void bb_context_begin(bb_context *c, int rows) {
    if (bb_context_free(c) < 0) slide(c);
    if (unread_of(c) == 0 && c->logits_at != c->end && c->end > c->first)
        c->cache.length--; /* after a cut: read the last byte again */
    c->to_read = unread_of(c);
    c->rows = rows;
}

bool bb_context_next(bb_context *c, bb_cached_rows *piece) {
    int64_t unread = c->to_read ? unread_of(c) : 0, n = unread;
    if (unread < 1) return false;
    if (c->rows == 1) n = bb_min(unread, BB_CONTEXT_PIECE - c->cache.length % BB_CONTEXT_PIECE);
    *piece = (bb_cached_rows){.cache = &c->cache,
                              .bytes = bb_context_at(c, c->first + c->cache.length),
                              .rows = n,
                              .wanted = n == unread ? c->rows : 0,
                              .logits = c->logits};
    return true;
}

bb_status bb_context_advance(bb_context *c, const bb_cached_rows *piece, bb_error *err) {
    int64_t at = c->first + c->cache.length, done = c->to_read - unread_of(c), total = c->to_read;
    c->logits_at = piece->wanted == 1 ? at : -1;
    if (at == c->end) c->to_read = 0;
    if (!c->on_read || total <= BB_CONTEXT_PIECE || c->on_read(c->user, done, total)) return BB_OK;
    bb_context_cut(c, at);
    c->to_read = 0;
    return bb_fail(err, BB_ERR_INTERRUPTED, "stopped after reading %lld of %lld bytes", (long long)done, (long long)total);
}

bb_status bb_context_read(bb_context *c, int rows, bb_error *err) {
    bb_cached_rows piece;
    bb_context_begin(c, rows);
    while (bb_context_next(c, &piece)) {
        BB_TRY(bb_model_forward_parts(c->model, &piece, 1, err));
        BB_TRY(bb_context_advance(c, &piece, err));
    }
    return BB_OK;
}

bb_status bb_context_set_mark(bb_context *c, bb_error *err) {
    size_t bytes = (size_t)(c->end - c->base), logits = (size_t)c->model->config.vocab_size * sizeof *c->logits;
    drop_mark(c);
    bb_context_mark m = {.base = c->base,
                         .end = c->end,
                         .first = c->first,
                         .cached = c->cache.length,
                         .logits_at = c->logits_at,
                         .restarts = c->restarts,
                         .text = malloc(bytes + 1),
                         .logits = malloc(logits)};
    c->mark = m;
    if (!m.text || !m.logits) {
        drop_mark(c);
        return bb_fail(err, BB_ERR_MEMORY, "out of memory for a mark of %zu bytes", bytes);
    }
    memcpy(m.text, c->text, bytes);
    memcpy(m.logits, c->logits, logits);
    return BB_OK;
}

void bb_context_return(bb_context *c) {
    bb_context_mark *m = &c->mark;
    memcpy(c->text, m->text, (size_t)(m->end - m->base));
    memcpy(c->logits, m->logits, (size_t)c->model->config.vocab_size * sizeof *c->logits);
    c->base = m->base;
    c->end = m->end;
    c->logits_at = m->logits_at;
    /* the cache still holds the mark's bytes unless another window was read over them */
    bool same = c->first == m->first && c->restarts == m->restarts && c->cache.length >= m->cached;
    c->first = m->first;
    c->cache.length = same ? m->cached : 0;
    if (same || m->end == m->first) return;
    c->logits_at = -1;
    m->restarts = c->restarts; /* the window is read again and then matches the mark */
}

void bb_context_clear(bb_context *c) {
    drop_mark(c);
    c->base = c->end = c->first = 0;
    c->cache.length = 0;
    c->logits_at = -1;
}
