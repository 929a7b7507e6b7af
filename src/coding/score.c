// SPDX-License-Identifier: MIT
/* bb_score: cuts texts into windows, batches windows of similar length, and adds the loss of each byte to its text. */
#include <stdlib.h>
#include <string.h>

#include "core/math.h"
#include "core/options.h"
#include "model/forward.h"

enum { MAX_WINDOW = 2048, BATCH_BYTES = 4096 };

/* Input bytes start .. start+length-1 of a context and its text; the predictions after the first `skip` bytes count. */
typedef struct window {
    int64_t text, start;
    int length, skip;
} window;

typedef struct scorer {
    bb_model *model;
    const bb_score_options *options;
    bb_score_text *texts;
    window *windows;
    int64_t count, capacity;
    int seq_len;
    uint8_t *x, *y; /* inputs and targets of a batch */
    float *logits;  /* (batch, V) if ranks are wanted, else NULL */
    int64_t done, total;
} scorer;

BB_OPTIONS_DEFAULTS(bb_score_options);

static bb_bytes context_of(const bb_score_text *t) {
    return t->context.size ? t->context : (bb_bytes){(const uint8_t *)"\n", 1};
}

static bb_status add_windows(scorer *s, int64_t index, bb_error *err) {
    const bb_score_text *t = &s->texts[index];
    int64_t before = (int64_t)context_of(t).size, end = before + (int64_t)t->text.size;
    for (int64_t from = before; from < end;) {
        if (s->count == s->capacity) {
            int64_t capacity = bb_max(2 * s->capacity, 256);
            window *grown = realloc(s->windows, (size_t)capacity * sizeof *grown);
            if (!grown) return bb_fail(err, BB_ERR_MEMORY, "out of memory for %lld windows", (long long)capacity);
            s->windows = grown;
            s->capacity = capacity;
        }
        int64_t start = bb_max(from - bb_max(s->seq_len / 2, 1), 0), length = bb_min(s->seq_len, end - 1 - start);
        s->windows[s->count++] =
            (window){.text = index, .start = start, .length = (int)length, .skip = (int)(from - 1 - start)};
        from = start + length + 1;
    }
    return BB_OK;
}

/* Longest first. */
static int by_length(const void *a, const void *b) {
    const window *v = a, *w = b;
    if (v->length != w->length) return v->length > w->length ? -1 : 1;
    if (v->text != w->text) return v->text < w->text ? -1 : 1;
    return (v->start > w->start) - (v->start < w->start);
}

/* Copies bytes first .. first+n-1 of the concatenation of context and text. */
static void copy_bytes(uint8_t *to, const bb_score_text *t, int64_t first, int64_t n) {
    bb_bytes context = context_of(t);
    int64_t size = (int64_t)context.size, of_context = bb_clamp(size - first, 0, n);
    if (of_context) memcpy(to, context.data + first, (size_t)of_context);
    if (n > of_context) memcpy(to + of_context, t->text.data + (first + of_context - size), (size_t)(n - of_context));
}

static uint8_t rank_of(const float *logits, int vocab, int id) {
    int rank = 0;
    for (int i = 0; i < vocab; i++) rank += logits[i] > logits[id] || (logits[i] >= logits[id] && i < id);
    return (uint8_t)rank;
}

/* Adds the predictions of row `row` of the batch to its text. */
static void add_row(const scorer *s, const window *w, int64_t row, int64_t row_length) {
    bb_score_text *t = &s->texts[w->text];
    int64_t before = (int64_t)context_of(t).size;
    int vocab = s->model->config.vocab_size;
    for (int64_t i = w->skip; i < w->length; i++) {
        int64_t at = row * row_length + i, position = w->start + i + 1 - before;
        double bits = bb_bits_per_byte((double)s->model->ws.host_nll[at]);
        t->bits += bits;
        if (t->byte_bits) t->byte_bits[position] = (float)bits;
        if (t->byte_ranks && s->logits) t->byte_ranks[position] = rank_of(s->logits + at * vocab, vocab, s->y[at]);
    }
}

/* Scores windows first .. first+rows-1. The first is the longest; shorter ones are padded with zeros, whose results are
 * ignored. */
static bb_status score_batch(scorer *s, int64_t first, int64_t rows, bb_error *err) {
    const window *w = s->windows + first;
    int64_t T = w->length;
    memset(s->x, 0, (size_t)(rows * T));
    memset(s->y, 0, (size_t)(rows * T));
    for (int64_t r = 0; r < rows; r++) {
        copy_bytes(s->x + r * T, &s->texts[w[r].text], w[r].start, w[r].length);
        copy_bytes(s->y + r * T, &s->texts[w[r].text], w[r].start + 1, w[r].length);
    }
    double loss;
    bb_train_batch batch = {.x = s->x, .y = s->y, .batch_size = (int)rows, .seq_len = (int)T};
    BB_TRY(bb_model_loss(s->model, &batch, &loss, err));
    if (s->logits) BB_TRY(bb_model_copy_logits(s->model, rows * T, s->logits, err));
    for (int64_t r = 0; r < rows; r++) {
        add_row(s, &w[r], r, T);
        s->done += w[r].length - w[r].skip;
    }
    if (s->options->on_progress) s->options->on_progress(s->options->user, s->done, s->total);
    return BB_OK;
}

static bb_status score_all(scorer *s, bb_error *err) {
    size_t bytes = (size_t)bb_max(BATCH_BYTES, s->seq_len);
    bool ranks = false;
    for (int64_t first = 0; first < s->count; first++) ranks |= s->texts[s->windows[first].text].byte_ranks != NULL;
    s->x = malloc(bytes);
    s->y = malloc(bytes);
    s->logits = ranks ? malloc(bytes * (size_t)s->model->config.vocab_size * sizeof *s->logits) : NULL;
    if (!s->x || !s->y || (ranks && !s->logits))
        return bb_fail(err, BB_ERR_MEMORY, "out of memory for a batch of %zu bytes", bytes);
    if (s->count) qsort(s->windows, (size_t)s->count, sizeof *s->windows, by_length);
    for (int64_t first = 0, rows; first < s->count; first += rows) {
        if (s->options->stop && *s->options->stop)
            return bb_fail(err, BB_ERR_INTERRUPTED, "stopped after %lld of %lld bytes", (long long)s->done,
                           (long long)s->total);
        rows = bb_clamp(BATCH_BYTES / s->windows[first].length, 1, s->count - first);
        BB_TRY(score_batch(s, first, rows, err));
    }
    return BB_OK;
}

bb_status bb_score(bb_model *model, bb_score_text *texts, int64_t count, const bb_score_options *given, bb_error *err) {
    BB_REQUIRE("model, texts, options", model, texts, given);
    BB_OPTIONS_READ(bb_score_options, o, given);
    if (count < 0 || o->seq_len < 0 || o->seq_len == 1)
        return bb_fail(err, BB_ERR_ARGUMENT,
                       "count %lld must not be negative, and seq_len %d must be at least 2 (or 0: automatic)", (long long)count,
                       o->seq_len);
    scorer s = {.model = model, .options = o, .texts = texts};
    s.seq_len = o->seq_len ? o->seq_len : (int)bb_clamp(model->trained_length, 2, MAX_WINDOW);
    bb_status status = BB_OK;
    for (int64_t i = 0; i < count && status == BB_OK; i++) {
        texts[i].bits = 0;
        s.total += (int64_t)texts[i].text.size;
        if ((texts[i].text.size && !texts[i].text.data) || (texts[i].context.size && !texts[i].context.data))
            status = bb_fail(err, BB_ERR_ARGUMENT, "text %lld or its context is NULL", (long long)i);
        else
            status = add_windows(&s, i, err);
    }
    if (status == BB_OK) status = score_all(&s, err);
    free(s.windows);
    free(s.x);
    free(s.y);
    free(s.logits);
    return status;
}
