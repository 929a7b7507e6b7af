// SPDX-License-Identifier: MIT
/* Evaluation: scores every byte of each file except the first once, in windows that do not overlap or overlap by half. */
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/options.h"
#include "data/byte_source.h"
#include "model/forward.h"

typedef struct walk {
    bb_model *model;
    const bb_eval_options *options;
    int rows, row_length; /* windows collected so far, each of row_length bytes */
    int skip;             /* bytes at the start of each window that the previous window scored */
    uint8_t *x, *y;       /* (batch_size, seq_len) */
    uint8_t *window;      /* (seq_len + 1) */
    size_t have;          /* number of bytes in window */
    bb_kv_cache cache;    /* only with options->cached; then nll has the nats of each byte */
    float *nll;           /* (seq_len) */
    double nats;          /* sum over scored bytes */
    int64_t scored, batches;
    int64_t total; /* 0: unknown */
} walk;

BB_OPTIONS_DEFAULTS(bb_eval_options, .seq_len = 2048, .batch_size = 1);

static bool enough(const walk *w) { return w->options->max_batches > 0 && w->batches >= w->options->max_batches; }

/* Adds the nats of the collected windows to w->nats. */
static bb_status score(walk *w, bb_error *err) {
    int64_t length = w->row_length;
    if (w->options->cached) {
        for (int64_t r = 0; r < w->rows; r++) {
            BB_TRY(bb_model_nll_cached(w->model, &w->cache, w->x + r * length, w->y + r * length, length, w->nll, err));
            for (int64_t t = w->skip; t < length; t++) w->nats += (double)w->nll[t];
        }
        return BB_OK;
    }
    double loss;
    bb_train_batch batch = {.x = w->x, .y = w->y, .batch_size = w->rows, .seq_len = w->row_length};
    BB_TRY(bb_model_loss(w->model, &batch, &loss, err));
    if (w->skip == 0) {
        w->nats += loss * (double)(w->rows * length);
    } else {
        for (int64_t r = 0; r < w->rows; r++)
            for (int64_t t = w->skip; t < length; t++) w->nats += (double)w->model->ws.host_nll[r * length + t];
    }
    return BB_OK;
}

/* Scores the collected windows. */
static bb_status flush(walk *w, bb_error *err) {
    if (w->rows == 0) return BB_OK;
    const bb_eval_options *o = w->options;
    if (o->stop && *o->stop) return bb_fail(err, BB_ERR_INTERRUPTED, "stopped after %lld bytes", (long long)w->scored);
    BB_TRY(score(w, err));
    w->scored += (int64_t)w->rows * (w->row_length - w->skip);
    w->batches++;
    w->rows = 0;
    if (o->on_progress) o->on_progress(o->user, w->scored, w->total, bb_bits_per_byte(w->nats / (double)w->scored));
    return BB_OK;
}

/* Advances the window: keeps its last `kept` bytes, and fills it up to seq_len + 1 bytes or the end of the file. */
static bb_status move_window(walk *w, bb_byte_source *source, int file, size_t kept, bb_error *err) {
    size_t size = (size_t)w->options->seq_len + 1, got;
    memmove(w->window, w->window + w->have - kept, kept);
    BB_TRY(bb_byte_source_read_on(source, file, w->window + kept, size - kept, &got, err));
    w->have = kept + got;
    return BB_OK;
}

static bb_status walk_file(walk *w, bb_byte_source *source, int file, bb_error *err) {
    const bb_eval_options *o = w->options;
    int skip = 0;
    w->have = 0;
    BB_TRY(move_window(w, source, file, 0, err));
    while (w->have > (size_t)skip + 1 && !enough(w)) {
        int n = (int)w->have - 1;
        if (n != w->row_length || skip != w->skip) BB_TRY(flush(w, err));
        w->row_length = n;
        w->skip = skip;
        memcpy(w->x + (size_t)w->rows * (size_t)n, w->window, (size_t)n);
        memcpy(w->y + (size_t)w->rows * (size_t)n, w->window + 1, (size_t)n);
        if (++w->rows == o->batch_size) BB_TRY(flush(w, err));
        if (n < o->seq_len) break;
        skip = o->sliding ? o->seq_len / 2 : 0;
        BB_TRY(move_window(w, source, file, (size_t)skip + 1, err));
    }
    return BB_OK;
}

bb_status bb_evaluate(bb_model *model, const char *data, const bb_eval_options *given, bb_eval_result *result, bb_error *err) {
    BB_REQUIRE("model, data, options, result", model, data, given, result);
    BB_OPTIONS_READ(bb_eval_options, options, given);
    if (options->seq_len < 1 || options->batch_size < 1)
        return bb_fail(err, BB_ERR_ARGUMENT, "seq_len %d and batch_size %d must be at least 1", options->seq_len,
                       options->batch_size);
    if (options->max_batches < 0)
        return bb_fail(err, BB_ERR_ARGUMENT, "max_batches %lld must not be negative (0: all)", (long long)options->max_batches);
    if (options->sliding && options->seq_len < 2)
        return bb_fail(err, BB_ERR_ARGUMENT, "seq_len %d: a window that slides by half its length needs at least 2 bytes",
                       options->seq_len);
    bb_byte_source source;
    bb_status status;
    size_t rows = (size_t)options->batch_size * (size_t)options->seq_len;
    walk w = {.model = model, .options = options};
    double start = bb_clock_seconds();
    BB_TRY(bb_byte_source_open(data, BB_BYTES_HELD_OUT, &source, err));
    source.stop = options->stop;
    BB_TRY_GOTO(status, done, bb_byte_source_check_to_score(&source, data, err));
    int64_t longest = 0;
    for (int i = 0; i < source.count; i++) {
        int64_t scored = source.files[i].size ? source.files[i].size - 1 : 0;
        w.total += scored;
        if (scored > longest) longest = scored;
    }
    if (source.streams > 0) {
        w.total = 0;
        longest = options->seq_len;
    }
    w.x = malloc(rows);
    w.y = malloc(rows);
    w.window = malloc((size_t)options->seq_len + 1);
    w.nll = malloc((size_t)options->seq_len * sizeof *w.nll);
    if (!w.x || !w.y || !w.window || !w.nll) {
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory for a batch of %zu bytes", rows);
        goto done;
    }
    int seq_len = longest < options->seq_len ? (int)longest : options->seq_len;
    if (options->cached)
        BB_TRY_GOTO(status, done, bb_kv_cache_open(model, seq_len, options->kv_cache, &w.cache, err));
    else
        BB_TRY_GOTO(status, done, bb_model_reserve(model, options->batch_size, seq_len, false, false, err));
    for (int i = 0; i < source.count && !enough(&w); i++) BB_TRY_GOTO(status, done, walk_file(&w, &source, i, err));
    if (!enough(&w)) BB_TRY_GOTO(status, done, flush(&w, err));
    if (w.scored == 0) {
        status = bb_byte_source_nothing_to_score(&source, data, err);
        goto done;
    }
    double loss = w.nats / (double)w.scored;
    *result = (bb_eval_result){.bpb = bb_bits_per_byte(loss),
                               .loss = loss,
                               .bytes = w.scored,
                               .files = source.count,
                               .pattern = source.pattern,
                               .seconds = bb_clock_seconds() - start};
    status = BB_OK;
done:
    free(w.x);
    free(w.y);
    free(w.window);
    free(w.nll);
    bb_kv_cache_close(&w.cache);
    bb_byte_source_close(&source);
    return status;
}
