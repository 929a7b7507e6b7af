// SPDX-License-Identifier: MIT
/* Validation: files from start to end in windows that do not overlap, or overlap by half, every byte but the first of each
 * scored once. */
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "data/byte_source.h"
#include "model/forward.h"

typedef struct walk {
    bb_model *model;
    const bb_eval_options *options;
    int rows, row_length; /* windows gathered so far, all of row_length */
    int skip;             /* the first bytes of each were scored in the window before it */
    uint8_t *x, *y;       /* (batch_size, seq_len) */
    uint8_t *window;      /* (seq_len + 1) */
    bb_kv_cache cache;    /* where options->cached, with the nats of each byte: */
    float *nll;           /* (seq_len) */
    double nats;          /* sum over scored bytes */
    int64_t scored, total, batches;
} walk;

void bb_eval_options_default(bb_eval_options *o) { *o = (bb_eval_options){.seq_len = 2048, .batch_size = 1}; }

static bool enough(const walk *w) { return w->options->max_batches > 0 && w->batches >= w->options->max_batches; }

/* The nats of the scored bytes of the windows gathered so far, which are added to w->nats. */
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
    BB_TRY(bb_model_loss(w->model, w->x, w->y, w->rows, w->row_length, &loss, err));
    if (w->skip == 0) {
        w->nats += loss * (double)(w->rows * length);
    } else {
        for (int64_t r = 0; r < w->rows; r++)
            for (int64_t t = w->skip; t < length; t++) w->nats += (double)w->model->ws.host_nll[r * length + t];
    }
    return BB_OK;
}

/* Scores the windows gathered so far. */
static bb_status flush(walk *w, bb_error *err) {
    if (w->rows == 0) return BB_OK;
    const bb_eval_options *o = w->options;
    if (o->stop && *o->stop)
        return bb_fail(err, BB_ERR_INTERRUPTED, "stopped after %lld of %lld bytes", (long long)w->scored, (long long)w->total);
    BB_TRY(score(w, err));
    w->scored += (int64_t)w->rows * (w->row_length - w->skip);
    w->batches++;
    w->rows = 0;
    if (o->on_progress) o->on_progress(o->user, w->scored, w->total, bb_bits_per_byte(w->nats / (double)w->scored));
    return BB_OK;
}

static bb_status walk_file(walk *w, bb_byte_source *source, int file, bb_error *err) {
    const bb_eval_options *o = w->options;
    int64_t size = source->files[file].size;
    int64_t scored = 0; /* of the file's size - 1 bytes */
    while (scored + 1 < size && !enough(w)) {
        int skip = o->sliding && scored > 0 ? o->seq_len / 2 : 0;
        int64_t at = scored - skip, left = size - 1 - at;
        int n = left < o->seq_len ? (int)left : o->seq_len;
        if (n != w->row_length || skip != w->skip) BB_TRY(flush(w, err));
        w->row_length = n;
        w->skip = skip;
        BB_TRY(bb_byte_source_read(source, file, at, w->window, (size_t)n + 1, err));
        memcpy(w->x + (size_t)w->rows * (size_t)n, w->window, (size_t)n);
        memcpy(w->y + (size_t)w->rows * (size_t)n, w->window + 1, (size_t)n);
        scored = at + n;
        if (++w->rows == o->batch_size) BB_TRY(flush(w, err));
    }
    return BB_OK;
}

bb_status bb_evaluate(bb_model *model, const char *data, const bb_eval_options *options, bb_eval_result *result,
                      bb_error *err) {
    if (options->seq_len < 1 || options->batch_size < 1)
        return bb_fail(err, BB_ERR_ARGUMENT, "seq_len %d and batch_size %d must be at least 1", options->seq_len,
                       options->batch_size);
    if (options->sliding && options->seq_len < 2)
        return bb_fail(err, BB_ERR_ARGUMENT, "seq_len %d: a window that slides by half of it has at least 2", options->seq_len);
    bb_byte_source source;
    bb_status status;
    size_t rows = (size_t)options->batch_size * (size_t)options->seq_len;
    walk w = {.model = model, .options = options};
    double start = bb_clock_seconds();
    BB_TRY(bb_byte_source_open(data, true, &source, err));
    int64_t longest = 0;
    for (int i = 0; i < source.count; i++) {
        int64_t scored = source.files[i].size ? source.files[i].size - 1 : 0;
        w.total += scored;
        if (scored > longest) longest = scored;
    }
    if (w.total == 0) {
        status = bb_fail(err, BB_ERR_DATA, "%s: nothing to score: %d file%s, none of at least 2 bytes", data, source.count,
                         source.count == 1 ? "" : "s");
        goto done;
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
    double loss = w.nats / (double)w.scored;
    *result = (bb_eval_result){.bpb = bb_bits_per_byte(loss),
                               .loss = loss,
                               .bytes = w.scored,
                               .files = source.count,
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
