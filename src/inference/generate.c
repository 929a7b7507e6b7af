/* Generation with a KV cache of constant size.
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "inference/sampler.h"
#include "model/bitbytelm.h"

/* The bytes in the cache, and the cache. When the window is full, its newer half is read again from position 0: every byte is
 * predicted from at least half a window of context, at positions that training has seen, and memory stays what it was. */
typedef struct context {
    bb_model *model;
    bb_kv_cache cache;
    uint8_t *bytes; /* (capacity), those at positions 0 .. cache.length-1 */
    float *logits;  /* (V), after the last byte */
    int64_t restarts;
} context;

void bb_generate_options_default(bb_generate_options *o) {
    *o = (bb_generate_options){.max_new_bytes = 300, .temperature = 0.9, .top_p = 1};
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void context_close(context *c) {
    bb_kv_cache_close(&c->cache);
    free(c->bytes);
    free(c->logits);
}

static bb_status context_open(bb_model *model, int64_t capacity, context *c, bb_error *err) {
    *c = (context){.model = model};
    c->bytes = malloc((size_t)capacity);
    c->logits = malloc((size_t)model->config.vocab_size * sizeof *c->logits);
    bb_status status = BB_OK;
    if (!c->bytes || !c->logits)
        status = bb_fail(err, BB_ERR_MEMORY, "no memory for %lld bytes of context", (long long)capacity);
    else
        status = bb_kv_cache_open(model, capacity, &c->cache, err);
    if (status != BB_OK) context_close(c);
    return status;
}

/* Reads n bytes; their last one's prediction is then in c->logits. */
static bb_status context_read(context *c, const uint8_t *bytes, int64_t n, bb_error *err) {
    while (n > 0) {
        int64_t capacity = c->cache.capacity, room = capacity - c->cache.length;
        if (room == 0) {
            int64_t keep = capacity / 2;
            memmove(c->bytes, c->bytes + capacity - keep, (size_t)keep);
            c->cache.length = 0;
            c->restarts++;
            if (keep > 0) BB_TRY(bb_model_forward_cached(c->model, &c->cache, c->bytes, keep, false, c->logits, err));
            continue;
        }
        int64_t take = n < room ? n : room;
        memcpy(c->bytes + c->cache.length, bytes, (size_t)take);
        BB_TRY(bb_model_forward_cached(c->model, &c->cache, bytes, take, false, c->logits, err));
        bytes += take;
        n -= take;
    }
    return BB_OK;
}

/* The prompt's part that is read: all of it where it fits; of a longer one the last bytes, so that between half a window and a
 * window of it is the context. */
static int64_t prompt_start(int64_t length, int64_t capacity) {
    if (length <= capacity) return 0;
    return length - (capacity - capacity / 4);
}

bb_status bb_generate(bb_model *model, const uint8_t *prompt, size_t prompt_length, const bb_generate_options *o,
                      bb_generate_metrics *metrics, bb_error *err) {
    /* a text begins after a newline as well as after anything: with no prompt there is nothing else to predict from */
    static const uint8_t newline = '\n';
    bb_sampler sampler = {.temperature = o->temperature, .top_k = o->top_k, .top_p = o->top_p, .seed = o->seed};
    int vocab = model->config.vocab_size;
    int64_t capacity = o->context_length ? o->context_length : model->trained_length;
    context c;
    bb_generate_metrics m = {.prompt_bytes = (int64_t)prompt_length};
    BB_TRY(bb_sampler_check(&sampler, err));
    if (o->max_new_bytes < 0)
        return bb_fail(err, BB_ERR_ARGUMENT, "max_new_bytes %lld must not be negative", (long long)o->max_new_bytes);
    if (capacity < 1 || capacity > 1 << 24)
        return bb_fail(err, BB_ERR_ARGUMENT, "context_length %lld must be from 1 to %d", (long long)capacity, 1 << 24);
    BB_TRY(context_open(model, capacity, &c, err));

    bb_status status = BB_OK;
    double start = now(), logprobs = 0;
    int64_t from = prompt_start((int64_t)prompt_length, capacity);
    if (prompt_length)
        BB_TRY_GOTO(status, done, context_read(&c, prompt + from, (int64_t)prompt_length - from, err));
    else
        BB_TRY_GOTO(status, done, context_read(&c, &newline, 1, err));
    double prompt_end = now();
    m.prompt_seconds = prompt_end - start;
    for (int64_t i = 0; i < o->max_new_bytes; i++) {
        uint8_t next = (uint8_t)bb_sampler_draw(&sampler, c.logits, vocab, (uint64_t)i);
        logprobs += bb_sampler_logprob(c.logits, vocab, next);
        m.new_bytes++;
        if (i == 0) m.first_byte_seconds = now() - start;
        if (o->on_byte && !o->on_byte(o->user, next)) break;
        if (i + 1 < o->max_new_bytes) BB_TRY_GOTO(status, done, context_read(&c, &next, 1, err));
    }
    m.decode_seconds = now() - prompt_end;
    m.context_restarts = c.restarts;
    m.mean_logprob = m.new_bytes ? logprobs / (double)m.new_bytes : 0;
    if (metrics) *metrics = m;
done:
    context_close(&c);
    return status;
}
