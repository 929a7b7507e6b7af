// SPDX-License-Identifier: MIT
/* bb_batch_*: a queue of requests before the decode loop. A request waits, then is active until it ends; its context (text and
 * cache) is kept for some time, for prompts that begin with the same text. */
#include <stdlib.h>
#include <string.h>

#include "core/math.h"
#include "core/options.h"
#include "inference/decode.h"

typedef struct text {
    struct text *next; /* in the queue */
    int64_t id;
    bb_batch_request request;
    bb_generate_options options;
    uint8_t *prompt;
    bb_bytes *stops; /* pointers and bytes, in the allocation of the prompt */
    int64_t capacity;
    bb_context context;
    bb_draft draft;
    bb_decode decode;
    double *hidden_sum; /* (C) */
    float *embedding;   /* (C) */
    int64_t shared;
    bool cancelled;
} text;

struct bb_batch {
    bb_model *model;
    bb_batch_options options;
    bb_pass pass;
    text *first, **last; /* the queue */
    int waiting;
    text **active; /* (max_sequences), in order of arrival */
    int active_count;
    bb_decode **decodes; /* (max_sequences) */
    bb_context *kept;    /* (keep), least recently used first */
    int kept_count;
    size_t cache_bytes; /* of active and kept contexts */
    int64_t next_id;
};

enum { CAPACITY_UNIT = 64 }; /* rounded, so that caches can be reused */

BB_OPTIONS_DEFAULTS(bb_batch_options, .max_sequences = 16, .keep = 8);
BB_OPTIONS_DEFAULTS(bb_batch_request);

bb_status bb_batch_open(bb_model *model, const bb_batch_options *given, bb_batch **out, bb_error *err) {
    BB_REQUIRE("out", out);
    *out = NULL;
    BB_REQUIRE("model, options", model, given);
    BB_OPTIONS_READ(bb_batch_options, o, given);
    if (o->max_sequences < 1 || o->max_sequences > BB_PASS_MAX)
        return bb_fail(err, BB_ERR_ARGUMENT, "max_sequences %d must be from 1 to %d", o->max_sequences, BB_PASS_MAX);
    if (o->keep < 0) return bb_fail(err, BB_ERR_ARGUMENT, "keep %d must not be negative", o->keep);
    bb_batch *b = calloc(1, sizeof *b);
    if (!b) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a batch");
    size_t max = (size_t)o->max_sequences;
    b->model = model;
    b->options = *o;
    b->last = &b->first;
    b->active = calloc(max, sizeof(text *));
    b->decodes = calloc(max, sizeof(bb_decode *));
    b->kept = calloc((size_t)o->keep + 1, sizeof *b->kept);
    bb_status status = BB_OK;
    if (!b->active || !b->decodes || !b->kept)
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory for a batch of %d texts", o->max_sequences);
    if (status == BB_OK) status = bb_pass_open(model, o->max_sequences, &b->pass, err);
    if (status == BB_OK)
        *out = b;
    else
        bb_batch_close(b);
    return status;
}

static void text_free(text *t) {
    bb_context_close(&t->context);
    bb_draft_close(&t->draft);
    free(t->hidden_sum);
    free(t->embedding);
    free(t->prompt);
    free(t->stops);
    free(t);
}

void bb_batch_close(bb_batch *b) {
    if (!b) return;
    for (text *t = b->first, *next; t; t = next) {
        next = t->next;
        text_free(t);
    }
    for (int i = 0; i < b->active_count; i++) {
        bb_decode_close(&b->active[i]->decode, false);
        text_free(b->active[i]);
    }
    for (int i = 0; i < b->kept_count; i++) bb_context_close(&b->kept[i]);
    bb_pass_close(&b->pass);
    free(b->active);
    free(b->decodes);
    free(b->kept);
    free(b);
}

/* ---- adding --------------------------------------------------------------------------------------------------------------- */

/* Copies prompt and stop texts. */
static bb_status copy_request(text *t, const bb_batch_request *r, bb_error *err) {
    const bb_generate_options *o = r->options;
    size_t size = r->prompt.size, count = o->stop_count > 0 ? (size_t)o->stop_count : 0;
    for (size_t i = 0; i < count; i++) size += o->stops[i].size;
    t->prompt = malloc(size + 1);
    t->stops = calloc(count + 1, sizeof *t->stops);
    if (!t->prompt || !t->stops) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a request of %zu bytes", size);
    if (r->prompt.size) memcpy(t->prompt, r->prompt.data, r->prompt.size);
    uint8_t *at = t->prompt + r->prompt.size;
    for (size_t i = 0; i < count; i++) {
        t->stops[i] = (bb_bytes){memcpy(at, o->stops[i].data, o->stops[i].size), o->stops[i].size};
        at += o->stops[i].size;
    }
    t->request = *r;
    t->request.prompt.data = t->prompt;
    t->options = *o;
    t->options.stops = t->stops;
    t->request.options = &t->options;
    return BB_OK;
}

/* Checks in advance what the decoder checks, too, so that the caller gets the error immediately. */
static bb_status check_request(const bb_batch_request *r, int64_t window, bb_error *err) {
    const bb_generate_options *o = r->options;
    bb_sampler sampler = bb_sampler_from(o);
    bb_stop stop;
    BB_TRY(bb_decode_check(o, &sampler, err));
    BB_TRY(bb_stop_open(o->stops, o->stop_count, &stop, err));
    bb_stop_close(&stop);
    if (r->prompt.size > 0 && !r->prompt.data)
        return bb_fail(err, BB_ERR_ARGUMENT, "the prompt is NULL, and its size is %zu", r->prompt.size);
    if (r->prompt.size > INT64_MAX / 2 || window < 1 || window > BB_CONTEXT_MAX_LENGTH)
        return bb_fail(err, BB_ERR_ARGUMENT, "a prompt of %zu bytes and a context_length of %lld, which must be from 1 to %d",
                       r->prompt.size, (long long)window, BB_CONTEXT_MAX_LENGTH);
    if (r->top < 0 || r->top > BB_SAMPLER_MAX_VOCAB || (r->top > 0 && !r->on_byte))
        return bb_fail(err, BB_ERR_ARGUMENT, "top %d: expected 0 to %d, and 0 without on_byte", r->top, BB_SAMPLER_MAX_VOCAB);
    if (r->prompt_logprobs && !r->on_byte) return bb_fail(err, BB_ERR_ARGUMENT, "prompt_logprobs needs on_byte, which is NULL");
    if ((r->prompt_logprobs || r->embed) && (int64_t)r->prompt.size > window)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s needs a prompt within the context of %lld bytes; it has %zu",
                       r->embed ? "embed" : "prompt_logprobs", (long long)window, r->prompt.size);
    if (r->embed && !r->on_end) return bb_fail(err, BB_ERR_ARGUMENT, "embed needs on_end, which is NULL");
    return BB_OK;
}

/* Returns the positions that a text may need, at most its window: a long window is seldom fully used. */
static int64_t window_capacity(const bb_batch_request *r, int64_t window) {
    int64_t size = bb_max((int64_t)r->prompt.size, 1), new_bytes = r->options->max_new_bytes;
    return new_bytes >= window || size >= window - new_bytes ? window
                                                             : bb_min(bb_round_up(size + new_bytes, CAPACITY_UNIT), window);
}

bb_status bb_batch_add(bb_batch *b, const bb_batch_request *given, int64_t *id, bb_error *err) {
    BB_REQUIRE("batch, request, id", b, given, id);
    BB_OPTIONS_READ(bb_batch_request, r, given);
    BB_REQUIRE("options", r->options);
    BB_OPTIONS_READ(bb_generate_options, o, r->options);
    r_read.options = o;
    int64_t window = o->context_length ? o->context_length : b->model->trained_length;
    BB_TRY(check_request(r, window, err));
    int64_t capacity = window_capacity(r, window);
    size_t bytes = bb_kv_cache_bytes(b->model->device, &b->model->config, capacity, o->kv_cache);
    if (b->options.cache_bytes && bytes > b->options.cache_bytes)
        return bb_fail(err, BB_ERR_MEMORY, "a context of %lld bytes needs a KV cache of %.1f MB; the limit is %.1f MB",
                       (long long)capacity, 1e-6 * (double)bytes, 1e-6 * (double)b->options.cache_bytes);
    text *t = calloc(1, sizeof *t);
    if (!t) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a request");
    t->capacity = capacity;
    bb_status status = copy_request(t, r, err);
    size_t C = (size_t)b->model->config.d_model;
    if (status == BB_OK && r->embed) {
        t->hidden_sum = calloc(C, sizeof *t->hidden_sum);
        t->embedding = calloc(C, sizeof *t->embedding);
        if (!t->hidden_sum || !t->embedding) status = bb_fail(err, BB_ERR_MEMORY, "out of memory for an embedding");
    }
    if (status != BB_OK) {
        text_free(t);
        return status;
    }
    *id = t->id = ++b->next_id;
    *b->last = t;
    b->last = &t->next;
    b->waiting++;
    return BB_OK;
}

void bb_batch_cancel(bb_batch *b, int64_t id) {
    if (!b) return;
    for (text *t = b->first; t; t = t->next) t->cancelled |= t->id == id;
    for (int i = 0; i < b->active_count; i++)
        if (b->active[i]) b->active[i]->cancelled |= b->active[i]->id == id; /* NULL: see end_texts */
}

bb_batch_state bb_batch_get_state(const bb_batch *b) {
    return b ? (bb_batch_state){b->active_count, b->waiting, b->kept_count, b->cache_bytes} : (bb_batch_state){0};
}

/* ---- ending --------------------------------------------------------------------------------------------------------------- */

static void notify_end(text *t, bb_finish finish, const bb_error *error) {
    bb_batch_end end = {.finish = finish, .metrics = t->decode.m, .shared_bytes = t->shared, .error = error};
    if (finish != BB_FINISH_CALLER && finish != BB_FINISH_ERROR) end.embedding = t->embedding;
    if (t->request.on_end) t->request.on_end(t->request.user, &end);
}

static void drop_kept(bb_batch *b, int i) {
    b->cache_bytes -= b->kept[i].cache.bytes;
    bb_context_close(&b->kept[i]);
    memmove(b->kept + i, b->kept + i + 1, (size_t)(--b->kept_count - i) * sizeof *b->kept);
}

/* Keeps the context of a finished text, unless its window has slid, because then no prompt begins with it. */
static void keep(bb_batch *b, text *t) {
    bb_context *c = &t->context;
    if (!c->model) return;
    if (c->first > 0 || c->cache.length == 0 || b->options.keep == 0) {
        b->cache_bytes -= c->cache.bytes;
        return; /* text_free closes it */
    }
    if (b->kept_count == b->options.keep) drop_kept(b, 0);
    c->on_read = NULL;
    b->kept[b->kept_count++] = *c;
    *c = (bb_context){.model = NULL};
}

static void end_text(bb_batch *b, text *t) {
    bb_decode *d = &t->decode;
    bool good = !t->cancelled && !d->refused;
    bb_decode_close(d, good);
    if (d->status != BB_OK) {
        b->cache_bytes -= t->context.cache.bytes;
        notify_end(t, BB_FINISH_ERROR, &d->error);
        text_free(t);
        return;
    }
    good &= !d->refused; /* the bytes held back are shown last */
    for (size_t i = 0; t->embedding && i < (size_t)b->model->config.d_model; i++)
        t->embedding[i] = (float)(t->hidden_sum[i] / (double)bb_max((int64_t)t->request.prompt.size, 1));
    notify_end(t, !good ? BB_FINISH_CALLER : d->m.stop >= 0 ? BB_FINISH_STOP : BB_FINISH_LENGTH, NULL);
    keep(b, t);
    text_free(t);
}

/* Ends the active texts that are over or cancelled. A callback may add and cancel requests, but not change which are active. */
static void end_texts(bb_batch *b) {
    int left = 0;
    for (int i = 0; i < b->active_count; i++) {
        text *t = b->active[i];
        b->active[i] = NULL;
        if (t->decode.over || t->cancelled)
            end_text(b, t);
        else
            b->active[left++] = t;
    }
    b->active_count = left;
}

static text *unqueue(bb_batch *b, text **at) {
    text *t = *at;
    *at = t->next;
    if (!*at) b->last = at;
    b->waiting--;
    return t;
}

static void drop_cancelled(bb_batch *b) {
    for (text **at = &b->first; *at;) {
        if (!(*at)->cancelled) {
            at = &(*at)->next;
            continue;
        }
        text *t = unqueue(b, at);
        t->decode.m.stop = -1;
        notify_end(t, BB_FINISH_CALLER, NULL);
        text_free(t);
    }
}

/* ---- joining -------------------------------------------------------------------------------------------------------------- */

/* Returns a kept context of this size that would have to be freed anyway, or -1. */
static int reusable(const bb_batch *b, const text *t) {
    for (int i = 0; i < b->kept_count && b->kept_count == b->options.keep; i++)
        if (b->kept[i].cache.kv.capacity == t->capacity && b->kept[i].cache.kv.type == t->options.kv_cache) return i;
    return -1;
}

/* A context for a text. *opened false: there is no memory now, but there will be when others have ended. */
static bb_status open_context(bb_batch *b, text *t, bool *opened, bb_error *err) {
    size_t bytes = bb_kv_cache_bytes(b->model->device, &b->model->config, t->capacity, t->options.kv_cache);
    int i = reusable(b, t);
    *opened = true;
    if (i >= 0) {
        t->context = b->kept[i];
        bb_context_clear(&t->context);
        memmove(b->kept + i, b->kept + i + 1, (size_t)(--b->kept_count - i) * sizeof *b->kept);
        return BB_OK;
    }
    while (b->options.cache_bytes && b->cache_bytes + bytes > b->options.cache_bytes && b->kept_count) drop_kept(b, 0);
    bb_status status = BB_ERR_MEMORY;
    if (!b->options.cache_bytes || b->cache_bytes + bytes <= b->options.cache_bytes)
        status = bb_context_open(b->model, t->capacity, t->options.kv_cache, &t->context, err);
    while (status == BB_ERR_MEMORY && b->kept_count) {
        drop_kept(b, 0);
        status = bb_context_open(b->model, t->capacity, t->options.kv_cache, &t->context, err);
    }
    if (status == BB_OK) b->cache_bytes += bytes;
    *opened = status == BB_OK;
    return status == BB_ERR_MEMORY && b->active_count ? BB_OK : status;
}

static bb_status begin_text(bb_batch *b, text *t, bb_error *err) {
    const bb_batch_request *r = &t->request;
    bb_context *c = &t->context;
    const bb_decode_hooks hooks = {.on_byte = r->on_byte,
                                   .on_logits = r->on_logits,
                                   .user = r->user,
                                   .top = r->top,
                                   .prompt_logprobs = r->prompt_logprobs,
                                   .hidden_sum = t->hidden_sum};
    c->on_read = r->on_read;
    c->user = r->user;
    t->options.on_byte = NULL;
    if (r->prompt.size) bb_context_append(c, t->prompt, (int64_t)r->prompt.size);
    if (t->options.speculate) BB_TRY(bb_draft_open(b->options.draft, c->cache.kv.capacity, &t->draft, err));
    BB_TRY(bb_decode_open(c, &t->draft, &t->options, &hooks, 0, &t->decode, err));
    t->decode.m.prompt_bytes = (int64_t)r->prompt.size;
    t->decode.reads_prompt = true;
    return BB_OK;
}

static void admit(bb_batch *b) {
    while (b->first && b->active_count < b->options.max_sequences) {
        text *t = b->first;
        bool opened = false;
        bb_error error;
        bb_status status = open_context(b, t, &opened, &error);
        if (status == BB_OK && !opened) return;
        (void)unqueue(b, &b->first);
        if (status == BB_OK) status = begin_text(b, t, &error);
        if (status == BB_OK) {
            b->active[b->active_count++] = t;
            continue;
        }
        if (opened) b->cache_bytes -= t->context.cache.bytes;
        t->decode.m.stop = -1;
        notify_end(t, BB_FINISH_ERROR, &error);
        text_free(t);
    }
}

/* ---- shared beginnings ---------------------------------------------------------------------------------------------------- */

enum { MIN_SHARED = 16 }; /* copying fewer bytes is not worthwhile */

/* Returns the unit of positions at which a copy may end. If the inputs of linear layers are quantized, the bits of a row do not
 * depend on the rows read with it (ops.h); otherwise the results match a separate read only at the ends of pieces. */
static int64_t share_unit(const bb_batch *b) { return b->model->config.act_quant ? 1 : BB_CONTEXT_PIECE; }

/* Returns the length of the common prefix of two texts; the reader keeps at least one byte to read. */
static int64_t common_prefix(const bb_context *reader, const bb_context *source, int64_t unit) {
    int64_t n = bb_min(reader->end - 1, source->end), i = 0;
    if (source->first > 0 || source->base > 0 || source->cache.kv.type != reader->cache.kv.type) return 0;
    while (i < n && reader->text[i] == source->text[i]) i++;
    return i - i % unit;
}

/* Copies the part of a prompt that another text has read, or waits for one that is reading it. */
static void share(bb_batch *b, int index) {
    text *t = b->active[index];
    bb_context *c = &t->context;
    t->decode.waits = false;
    if (!t->decode.reads_prompt || t->request.embed || t->request.prompt_logprobs) return;
    if (c->first > 0 || c->base > 0 || bb_context_free(c) < 0) return; /* its window no longer begins with the text */
    const bb_context *best = NULL;
    int64_t unit = share_unit(b), best_length = c->cache.length + MIN_SHARED - 1;
    for (int i = 0; i < b->kept_count + index; i++) {
        const bb_context *source = i < b->kept_count ? &b->kept[i] : &b->active[i - b->kept_count]->context;
        int64_t shared = common_prefix(c, source, unit), read = bb_min(shared, source->cache.length / unit * unit);
        if (read > best_length) {
            best = source;
            best_length = read;
        }
        if (i >= b->kept_count && b->active[i - b->kept_count]->decode.reads_prompt && shared > read &&
            shared >= c->cache.length + MIN_SHARED)
            t->decode.waits = true;
    }
    if (!best) return;
    t->shared += best_length - c->cache.length;
    bb_kv_cache_copy(&c->cache, &best->cache, best_length);
}

bb_status bb_batch_step(bb_batch *b, bool *more, bb_error *err) {
    BB_REQUIRE("batch, more", b, more);
    drop_cancelled(b);
    end_texts(b);
    admit(b);
    for (int i = 0; i < b->active_count; i++) {
        share(b, i);
        b->decodes[i] = &b->active[i]->decode;
    }
    if (b->active_count) bb_decode_step(&b->pass, b->decodes, b->active_count);
    end_texts(b);
    *more = b->active_count > 0 || b->first;
    return BB_OK;
}
