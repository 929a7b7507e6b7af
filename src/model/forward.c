// SPDX-License-Identifier: MIT
/* The passes over the whole model: forward, loss, backward, and the cached forward of generation.
 *
 * Values between two operations are f32 or integers. An error d before a quantizer of scale s flips a code with probability
 * d/s, so it costs sqrt(d s), not d: bf16 for q, k, v, attention's output or the gates changed the logits by 1%. With f32, all
 * backends give the same logits to 3e-7, and decoding with a cache equals the full pass up to the order of sums. The exception
 * is attention when a backward pass follows, which is in int8 on some processors, and in bf16 on cards. To keep f32 cheap, each half of a block
 * processes forward_rows rows at a time, so that wide rows are read while they are in the caches. */
#include "model/forward.h"

#include <math.h>
#include <string.h>
#include <xxhash.h>

#include "model/block.h"
#include "ops/optional.h"

static bb_block_shape shape_of(const bb_model *m, int64_t B, int64_t T) {
    const bb_config *c = &m->config;
    return (bb_block_shape){.B = B,
                            .T = T,
                            .C = c->d_model,
                            .H = c->n_head,
                            .Hk = c->n_kv_head,
                            .D = c->d_model / c->n_head,
                            .F = c->d_ff,
                            .rows = m->device->forward_rows,
                            .norm_eps = (float)c->norm_eps,
                            .act_quant = c->act_quant,
                            .dense = c->dense,
                            .rope_cos = m->ws.rope_cos,
                            .rope_sin = m->ws.rope_sin};
}

static const float *embedding(const bb_model *m) { return m->params + m->table.entries[BB_PARAM_TOK_EMB].offset; }

static const bb_param *norm_f(const bb_model *m) { return &m->table.entries[m->table.count - 1]; }

static bb_norm last_norm(const bb_model *m, int64_t rows) {
    return (bb_norm){.w = m->params + norm_f(m)->offset, .eps = (float)m->config.norm_eps, .M = rows, .C = m->config.d_model};
}

static bb_head head_of(const bb_model *m, int64_t rows) {
    return (bb_head){.e = embedding(m), .M = rows, .V = m->config.vocab_size, .C = m->config.d_model};
}

/* norm_f of the first rows of the residual, the head's input. */
static void normalize(bb_model *m, int64_t rows) {
    bb_workspace *w = &m->ws;
    const bb_norm norm = last_norm(m, rows);
    bb_rows h = {.data = w->h, .scale = NULL, .dtype = BB_F32};
    m->device->ops->rmsnorm_forward(m->device, h, w->final_r, w->block_x[m->config.n_layer], &norm);
}

/* Computes norm_f and the tied head over all rows of the residual. */
static void head(bb_model *m, int64_t rows) {
    const bb_head of_all = head_of(m, rows);
    normalize(m, rows);
    m->device->ops->head_forward(m->device, m->ws.logits, m->ws.h, &of_all);
}

static bb_block_pass pass_of(bb_model *m, int layer, const bb_block_shape *s) {
    return (bb_block_pass){.device = m->device,
                           .weights = &m->blocks[layer],
                           .saved = &m->ws.saved[layer],
                           .scratch = &m->ws.scratch,
                           .shape = s,
                           .layer = layer};
}

/* Runs the blocks from ws.x to the residual after the last block, in ws.block_x[L]. sequences (n): of a cached pass, otherwise
 * NULL. */
static void blocks_forward(bb_model *m, const bb_block_shape *s, const bb_kv_sequence *sequences, int64_t n) {
    bb_workspace *w = &m->ws;
    const bb_ops *ops = m->device->ops;
    bb_model_prepare(m);
    ops->embedding_forward(m->device, w->block_x[0], w->x, embedding(m), s->B * s->T, m->config.vocab_size, s->C);
    if (w->ngram_index)
        ops->ngram_forward(m->device, w->block_x[0], &m->ngram, w->ngram_index, s->B * s->T, bb_ngram_count(&m->config));
    for (int l = 0; l < m->config.n_layer; l++) {
        bb_block_pass pass = pass_of(m, l, s);
        pass.sequences = sequences;
        pass.sequence_count = n;
        bb_block_forward(&pass, w->block_x[l + 1], w->block_x[l]);
    }
}

static void gradients_done(const bb_model *m, int64_t first) {
    if (m->on_gradients) m->on_gradients(m->on_gradients_user, first);
}

/* The backward pass accumulates the gradients of tensors that are not ternary; it can overwrite those of ternary ones. */
static void zero_small_gradients(bb_model *m) {
    for (int i = 0; i < m->table.count; i++) {
        const bb_param *p = &m->table.entries[i];
        if (!p->ternary) m->device->ops->zero(m->device, m->grads + p->offset, (size_t)p->count * sizeof(float));
    }
}

/* Propagates gradients from ws.logits (which holds dlogits) down to the embedding. */
static void backward(bb_model *m, const bb_block_shape *s) {
    bb_workspace *w = &m->ws;
    const bb_ops *ops = m->device->ops;
    int64_t M = s->B * s->T, C = s->C;
    int L = m->config.n_layer;
    const bb_norm norm = last_norm(m, M);
    const bb_head of_all = head_of(m, M);
    float *d_embedding = m->grads + m->table.entries[BB_PARAM_TOK_EMB].offset;
    void *dh = w->scratch.d_narrow;

    if (!s->add_gradients) zero_small_gradients(m);
    ops->head_backward(m->device, dh, d_embedding, w->logits, w->h, &of_all);
    ops->zero(m->device, w->dx, (size_t)(M * C) * sizeof(float));
    ops->rmsnorm_backward(m->device, w->dx, m->grads + norm_f(m)->offset, dh, w->block_x[L], w->final_r, &norm);
    gradients_done(m, norm_f(m)->offset);
    for (int l = L - 1; l >= 0; l--) {
        bb_block_pass pass = pass_of(m, l, s);
        /* the last block's activations are still available from the forward pass */
        if (w->recompute && l != L - 1) bb_block_forward(&pass, NULL, w->block_x[l]);
        bb_block_backward(&pass, w->dx, w->block_x[l]);
        /* a mask: applying it again to gradients of earlier micro-batches does not change them */
        if (m->config.ste == BB_STE_CLIPPED) bb_weights_clip_gradients(m->device, &m->blocks[l]);
        gradients_done(m, m->table.entries[m->table.first_block + l * BB_PARAMS_PER_BLOCK].offset);
    }
    ops->embedding_backward(m->device, d_embedding, w->x, w->dx, M, m->config.vocab_size, C);
    if (w->ngram_index)
        ops->ngram_backward(m->device, m->grads + m->table.entries[m->table.ngram].offset, w->ngram_index, w->dx, M,
                            bb_ngram_count(&m->config), C);
    gradients_done(m, 0);
}

/* Finds the n-grams of rows row … row+n-1 of the pass: of text[0..n-1], which follows `before` bytes of the same sequence. */
static void find_ngrams(bb_model *m, int64_t row, const uint8_t *text, int64_t before, int64_t n) {
    bb_workspace *w = &m->ws;
    int64_t at = row * bb_ngram_count(&m->config), count = n * bb_ngram_count(&m->config);
    if (count == 0) return;
    bb_ngram_index(&m->config, text, before, n, w->host_ngram_index + at);
    m->device->ops->copy_in(m->device, w->ngram_index + at, w->host_ngram_index + at, (size_t)count * sizeof *w->ngram_index);
}

/* ---- passes that a backend may record (ops/optional.h) ------------------------------------------------------------------- */

typedef enum pass_kind { FORWARD = 1, BACKWARD, CACHED } pass_kind;

static uint64_t hash(uint64_t seed, const uint64_t *values, size_t bytes) { return XXH3_64bits_withSeed(values, bytes, seed); }

/* Hashes what determines the operations of a pass, except for positions. */
static uint64_t pass_key(const bb_model *m, pass_kind kind, const bb_block_shape *s) {
    const uint64_t of[] = {(uintptr_t)m,   (uintptr_t)m->ws.memory, (uintptr_t)m->grads, (uint64_t)kind,
                           (uint64_t)s->B, (uint64_t)s->T,          s->training,         s->add_gradients};
    return hash(0, of, sizeof of);
}

/* What a pass over whole sequences reads, which may be copied while those before still compute. */
static void take_batch(bb_model *m, const bb_block_shape *s, const uint8_t *x, const uint8_t *y) {
    bb_workspace *w = &m->ws;
    int64_t M = s->B * s->T, ngrams = bb_ngram_count(&m->config);
    bb_copy_ahead(m->device, w->x, x, (size_t)M);
    for (int64_t b = 0; b < s->B && ngrams > 0; b++)
        bb_ngram_index(&m->config, x + b * s->T, 0, s->T, w->host_ngram_index + b * s->T * ngrams);
    if (ngrams > 0)
        bb_copy_ahead(m->device, w->ngram_index, w->host_ngram_index, (size_t)(M * ngrams) * sizeof *w->ngram_index);
    if (y) bb_copy_ahead(m->device, w->y, y, (size_t)M);
}

/* Starts to compute the logits of batch x in ws.logits; with y, nll. */
static void start_forward(bb_model *m, const bb_block_shape *s, const uint8_t *x, const uint8_t *y) {
    bb_workspace *w = &m->ws;
    int64_t M = s->B * s->T;
    take_batch(m, s, x, y);
    bb_model_prepare(m);
    const uint64_t with_loss = y != NULL;
    if (!bb_pass_begin(m->device, hash(pass_key(m, FORWARD, s), &with_loss, sizeof with_loss), NULL, 0)) {
        blocks_forward(m, s, NULL, 0);
        head(m, M);
        if (y) m->device->ops->loss_forward(m->device, w->nll, w->logits, w->y, M, m->config.vocab_size);
        bb_pass_end(m->device);
    }
}

double bb_mean_nll(const float *nll, int64_t rows) {
    double sum = 0;
    for (int64_t i = 0; i < rows; i++) sum += (double)nll[i];
    return sum / (double)rows;
}

/* *loss: the mean negative log likelihood. */
static bb_status forward(bb_model *m, const bb_block_shape *s, const bb_train_batch *batch, double *loss, bb_error *err) {
    bb_workspace *w = &m->ws;
    int64_t M = s->B * s->T;
    start_forward(m, s, batch->x, batch->y);
    m->device->ops->copy_out(m->device, w->host_nll, w->nll, (size_t)M * sizeof(float));
    BB_TRY(m->device->ops->sync(m->device, err));
    *loss = bb_mean_nll(w->host_nll, M);
    return BB_OK;
}

bb_status bb_model_copy_logits(bb_model *m, int64_t rows, float *logits, bb_error *err) {
    BB_DEVICE_SCOPE(m->device);
    m->device->ops->copy_out(m->device, logits, m->ws.logits, (size_t)(rows * m->config.vocab_size) * sizeof(float));
    return m->device->ops->sync(m->device, err);
}

bb_status bb_model_forward(bb_model *m, const uint8_t *x, int batch_size, int seq_len, float *logits, bb_error *err) {
    BB_REQUIRE("model, x, logits", m, x, logits);
    BB_DEVICE_SCOPE(m->device);
    BB_TRY(bb_model_reserve(m, batch_size, seq_len, false, false, err));
    bb_block_shape s = shape_of(m, batch_size, seq_len);
    start_forward(m, &s, x, NULL);
    return bb_model_copy_logits(m, s.B * s.T, logits, err);
}

bb_status bb_model_loss(bb_model *m, const bb_train_batch *batch, double *loss, bb_error *err) {
    BB_REQUIRE("model, batch, loss", m, batch, loss);
    BB_REQUIRE("x, y", batch->x, batch->y);
    BB_DEVICE_SCOPE(m->device);
    BB_TRY(bb_model_reserve(m, batch->batch_size, batch->seq_len, false, false, err));
    bb_block_shape s = shape_of(m, batch->batch_size, batch->seq_len);
    return forward(m, &s, batch, loss, err);
}

/* The shape of a batch to train on, for which memory is reserved. */
static bb_status training_shape(bb_model *m, const bb_train_batch *batch, bb_block_shape *s, bb_error *err) {
    /* keeps the mode of an earlier reserve for training; without one, saves all activations */
    BB_TRY(bb_model_reserve(m, batch->batch_size, batch->seq_len, true, m->ws.training && m->ws.recompute, err));
    *s = shape_of(m, batch->batch_size, batch->seq_len);
    s->training = true;
    s->add_gradients = !m->gradients_empty;
    return BB_OK;
}

/* Of the batch that forward was given last. */
static void start_backward(bb_model *m, const bb_block_shape *s, double scale) {
    int64_t M = s->B * s->T;
    float factor = (float)(scale / (double)M);
    const uint64_t factor_bits = bb_bits_of_f32(factor);
    /* What is called in between may wait, so that such a pass is none. */
    bool whole = !m->on_gradients;
    if (!whole || !bb_pass_begin(m->device, hash(pass_key(m, BACKWARD, s), &factor_bits, sizeof factor_bits), NULL, 0)) {
        m->device->ops->loss_backward(m->device, m->ws.logits, m->ws.logits, m->ws.y, factor, M, m->config.vocab_size);
        backward(m, s);
        if (whole) bb_pass_end(m->device);
    }
    m->gradients_empty = false;
}

bb_status bb_model_loss_backward(bb_model *m, const bb_train_batch *batch, double scale, double *loss, bb_error *err) {
    BB_REQUIRE("model, batch, loss", m, batch, loss);
    BB_REQUIRE("x, y", batch->x, batch->y);
    if (!isfinite(scale)) return bb_fail(err, BB_ERR_ARGUMENT, "scale %g must be finite", scale);
    BB_DEVICE_SCOPE(m->device);
    bb_block_shape s;
    BB_TRY(training_shape(m, batch, &s, err));
    BB_TRY(forward(m, &s, batch, loss, err));
    if (!isfinite(*loss)) return BB_OK;
    start_backward(m, &s, scale);
    return m->device->ops->sync(m->device, err);
}

bb_status bb_model_start_loss_backward(bb_model *m, const bb_train_batch *batch, double scale, float *nll, bb_error *err) {
    bb_block_shape s;
    BB_TRY(training_shape(m, batch, &s, err));
    start_forward(m, &s, batch->x, batch->y);
    m->device->ops->copy(m->device, nll, m->ws.nll, (size_t)(s.B * s.T) * sizeof *nll);
    start_backward(m, &s, scale);
    return BB_OK;
}

/* ---- cached passes ------------------------------------------------------------------------------------------------------- */

/* Moves the wanted rows to the front of the residual, and returns their number. A row never moves onto a later one. */
static int64_t gather_wanted(bb_model *m, const bb_cached_rows *parts, int64_t count) {
    int64_t C = m->config.d_model, row = 0, found = 0;
    float *x = m->ws.block_x[m->config.n_layer];
    for (int64_t i = 0; i < count; i++) {
        for (int64_t r = row + parts[i].rows - parts[i].wanted; r < row + parts[i].rows; r++, found++)
            if (r != found) m->device->ops->copy(m->device, x + found * C, x + r * C, (size_t)C * sizeof *x);
        row += parts[i].rows;
    }
    return found;
}

static uint64_t cached_key(const bb_model *m, const bb_block_shape *s, const bb_cached_rows *parts, int64_t count,
                           bool logits) {
    uint64_t key = pass_key(m, CACHED, s);
    for (int64_t i = 0; i < count; i++) {
        const bb_kv *kv = &parts[i].cache->kv;
        const uint64_t of[] = {(uintptr_t)kv->data,     (uint64_t)kv->type,        (uint64_t)kv->capacity,
                               (uint64_t)parts[i].rows, (uint64_t)parts[i].wanted, logits};
        key = hash(key, of, sizeof of);
    }
    return key;
}

/* Runs the operations of a cached pass on ws.x: see cached_pass. */
static void cached_operations(bb_model *m, const bb_block_shape *s, const bb_cached_rows *parts,
                              const bb_kv_sequence *sequences, int64_t count, bool logits) {
    bb_workspace *w = &m->ws;
    int64_t C = m->config.d_model, V = m->config.vocab_size;
    blocks_forward(m, s, sequences, count);
    int64_t wanted = gather_wanted(m, parts, count);
    if (wanted == 0) return;
    normalize(m, wanted);
    for (int64_t at = 0; at < wanted && logits; at += BB_SMALL_BATCH_ROWS) {
        const bb_head some = head_of(m, bb_min(wanted - at, BB_SMALL_BATCH_ROWS));
        m->device->ops->head_forward(m->device, w->logits + at * V, w->h + at * C, &some);
    }
}

/* Runs the rows of all parts through the blocks. ws.logits and ws.h then hold the wanted rows, in order: ws.h after the norm,
 * ws.logits only with `logits`. The head processes few rows at a time, so that no row depends on their number. */
static void cached_pass(bb_model *m, const bb_cached_rows *parts, int64_t count, int64_t rows, bool logits) {
    bb_workspace *w = &m->ws;
    bb_block_shape s = shape_of(m, 1, rows);
    bb_kv_sequence sequences[BB_CACHED_PARTS];
    int64_t positions[BB_PASS_POSITIONS], row = 0;
    sequences[0].rows = 0; /* gcc does not know that count >= 1 */
    for (int64_t i = 0; i < count; i++) {
        m->device->ops->copy_in(m->device, w->x + row, parts[i].bytes, (size_t)parts[i].rows);
        bb_kv_cache *cache = parts[i].cache;
        if (cache->text) {
            memcpy(cache->text + cache->length, parts[i].bytes, (size_t)parts[i].rows);
            find_ngrams(m, row, cache->text + cache->length, cache->length, parts[i].rows);
        }
        sequences[i] = (bb_kv_sequence){.kv = &parts[i].cache->kv, .length = parts[i].cache->length, .rows = parts[i].rows};
        if (i < BB_PASS_POSITIONS) positions[i] = parts[i].cache->length;
        row += parts[i].rows;
    }
    bb_model_prepare(m);
    /* Long passes never repeat, and launching their operations is not the bottleneck. */
    bool repeats = count <= BB_PASS_POSITIONS && rows <= count * BB_SMALL_BATCH_ROWS;
    if (!repeats || !bb_pass_begin(m->device, cached_key(m, &s, parts, count, logits), positions, (int)count)) {
        cached_operations(m, &s, parts, sequences, count, logits);
        if (repeats) bb_pass_end(m->device);
    }
    for (int64_t i = 0; i < count; i++) parts[i].cache->length += parts[i].rows;
}

static bb_status check_fits(const bb_kv_cache *cache, int64_t rows, bb_error *err) {
    if (rows >= 1 && cache->length >= 0 && cache->length + rows <= cache->kv.capacity) return BB_OK;
    return bb_fail(err, BB_ERR_ARGUMENT, "%lld bytes at position %lld do not fit a cache of %lld", (long long)rows,
                   (long long)cache->length, (long long)cache->kv.capacity);
}

bb_status bb_model_forward_parts(bb_model *m, const bb_cached_rows *parts, int64_t count, bb_error *err) {
    BB_DEVICE_SCOPE(m->device);
    const bb_ops *ops = m->device->ops;
    int64_t rows = 0, at = 0, C = m->config.d_model, V = m->config.vocab_size;
    bool logits = false;
    for (int64_t i = 0; i < count; i++) {
        BB_TRY(check_fits(parts[i].cache, parts[i].rows, err));
        rows += parts[i].rows;
        logits |= parts[i].wanted > 0 && parts[i].logits;
    }
    if (count < 1 || count > BB_CACHED_PARTS || rows > m->ws.max_rows)
        return bb_fail(err, BB_ERR_INTERNAL, "a pass of %lld sequences and %lld rows: at most %d and %lld are reserved",
                       (long long)count, (long long)rows, BB_CACHED_PARTS, (long long)m->ws.max_rows);
    cached_pass(m, parts, count, rows, logits);
    for (int64_t i = 0; i < count; i++) {
        const bb_cached_rows *p = &parts[i];
        if (p->wanted && p->logits)
            ops->copy_out(m->device, p->logits, m->ws.logits + at * V, (size_t)(p->wanted * V) * sizeof *p->logits);
        if (p->wanted && p->hidden)
            ops->copy_out(m->device, p->hidden, m->ws.h + at * C, (size_t)(p->wanted * C) * sizeof *p->hidden);
        at += p->wanted;
    }
    return ops->sync(m->device, err);
}

bb_status bb_model_forward_cached(bb_model *m, bb_kv_cache *cache, const uint8_t *bytes, int64_t n, bool all, float *logits,
                                  bb_error *err) {
    BB_TRY(check_fits(cache, n, err));
    for (int64_t at = 0; at < n; at += BB_PREFILL_ROWS) {
        int64_t rows = bb_min(n - at, BB_PREFILL_ROWS);
        bb_cached_rows part = {
            .cache = cache, .bytes = bytes + at, .rows = rows, .wanted = all ? rows : at + rows == n, .logits = logits};
        BB_TRY(bb_model_forward_parts(m, &part, 1, err));
        logits += part.wanted * m->config.vocab_size;
    }
    return BB_OK;
}

bb_status bb_model_nll_cached(bb_model *m, bb_kv_cache *cache, const uint8_t *x, const uint8_t *y, int64_t n, float *nll,
                              bb_error *err) {
    BB_DEVICE_SCOPE(m->device);
    const bb_ops *ops = m->device->ops;
    cache->length = 0;
    for (int64_t at = 0; at < n; at += BB_SMALL_BATCH_ROWS) {
        int64_t rows = bb_min(n - at, BB_SMALL_BATCH_ROWS);
        const bb_cached_rows part = {.cache = cache, .bytes = x + at, .rows = rows, .wanted = rows};
        cached_pass(m, &part, 1, rows, true);
        ops->copy_in(m->device, m->ws.y, y + at, (size_t)rows);
        ops->loss_forward(m->device, m->ws.nll, m->ws.logits, m->ws.y, rows, m->config.vocab_size);
        ops->copy_out(m->device, nll + at, m->ws.nll, (size_t)rows * sizeof(float));
        BB_TRY(ops->sync(m->device, err));
    }
    return BB_OK;
}
