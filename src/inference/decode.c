// SPDX-License-Identifier: MIT
#include "inference/decode.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/math.h"
#include "core/options.h"

struct bb_decode_record {
    double logprob;
};

BB_OPTIONS_DEFAULTS(bb_generate_options, .max_new_bytes = 300, .repetition_penalty = 1, .repetition_window = 64,
                    .temperature = 0.9, .top_p = 1);

bb_status bb_decode_check(const bb_generate_options *o, const bb_sampler *sampler, bb_error *err) {
    BB_TRY(bb_sampler_check(sampler, err));
    if (o->speculate != BB_SPECULATE_OFF && o->speculate != BB_SPECULATE_AUTO && o->speculate != BB_SPECULATE_ALWAYS)
        return bb_fail(err, BB_ERR_ARGUMENT, "speculate %d is not known", (int)o->speculate);
    if (o->max_new_bytes < 0)
        return bb_fail(err, BB_ERR_ARGUMENT, "max_new_bytes %lld must not be negative", (long long)o->max_new_bytes);
    return BB_OK;
}

/* Adds the last byte to the repetition window and removes the oldest. */
static void count_seen(bb_decode *d) {
    const bb_context *c = d->context;
    int64_t left = c->end - 1 - d->options->repetition_window;
    d->seen[*bb_context_at(c, c->end - 1)]++;
    if (left >= c->base) d->seen[*bb_context_at(c, left)]--;
}

static void count_all_seen(bb_decode *d) {
    const bb_context *c = d->context;
    int64_t from = c->end - d->options->repetition_window;
    for (int64_t p = from > c->base ? from : c->base; p < c->end; p++) d->seen[*bb_context_at(c, p)]++;
}

/* Bytes that may begin a stop text are held back, which bounds the number of records. */
static bb_status open_records(bb_decode *d, bb_error *err) {
    size_t longest = 0;
    for (int i = 0; i < d->stop.count; i++)
        if (d->stop.texts[i].size > longest) longest = d->stop.texts[i].size;
    d->record_count = (int64_t)longest + 1;
    d->records = calloc(longest + 1, sizeof *d->records);
    if (d->hooks.top) d->tops = calloc((longest + 2) * (size_t)d->hooks.top, sizeof *d->tops);
    if (d->records && (d->tops || !d->hooks.top)) return BB_OK;
    return bb_fail(err, BB_ERR_MEMORY, "out of memory for the candidates of %zu bytes", longest + 1);
}

bb_status bb_decode_open(bb_context *c, bb_draft *draft, const bb_generate_options *o, const bb_decode_hooks *hooks,
                         uint64_t first_draw, bb_decode *d, bb_error *err) {
    *d = (bb_decode){.context = c,
                     .draft = o->speculate ? draft : NULL,
                     .options = o,
                     .hooks = hooks ? *hooks : (bb_decode_hooks){.on_byte = NULL},
                     .sampler = bb_sampler_from(o),
                     .drawn = first_draw,
                     .m.stop = -1};
    BB_TRY(bb_decode_check(o, &d->sampler, err));
    BB_TRY(bb_stop_open(o->stops, o->stop_count, &d->stop, err));
    bb_status status = d->hooks.on_byte ? open_records(d, err) : BB_OK;
    if (status != BB_OK) {
        bb_decode_close(d, false);
        return status;
    }
    d->reported = c->base;
    d->prompt_end = c->end;
    /* an empty text has nothing to predict from: start after a newline */
    if (c->end == 0) bb_context_append(c, (const uint8_t *)"\n", 1);
    count_all_seen(d);
    if (d->draft) bb_draft_reset(d->draft, c);
    d->shown = c->end;
    d->begin = bb_clock_seconds();
    return BB_OK;
}

/* ---- reporting ----------------------------------------------------------------------------------------------------------- */

/* Finds the likeliest bytes, in descending order; ties go to the lowest byte. */
static void find_top(bb_candidate *out, int count, const float *logits, int vocab, bb_normalizer n) {
    int found = 0;
    for (int id = 0; id < vocab; id++) {
        if (found == count && !(logits[id] > logits[out[found - 1].byte])) continue;
        int at = found < count ? found++ : count - 1;
        for (; at > 0 && logits[id] > logits[out[at - 1].byte]; at--) out[at] = out[at - 1];
        out[at].byte = (uint8_t)id;
    }
    for (int i = 0; i < found; i++) out[i].logprob = bb_normalizer_logprob(n, logits, out[i].byte);
}

static int top_of(const bb_decode *d, int vocab) { return d->hooks.top < vocab ? d->hooks.top : vocab; }

static void report(bb_decode *d, const bb_batch_byte *byte) { d->refused |= !d->hooks.on_byte(d->hooks.user, byte); }

/* Passes bytes before `end` to on_byte, which may stop the generation. */
static void show(bb_decode *d, int64_t end) {
    bb_context *c = d->context;
    int top = top_of(d, c->model->config.vocab_size);
    while (d->shown < end && !d->refused) {
        int64_t slot = d->records ? d->shown % d->record_count : 0;
        uint8_t byte = *bb_context_at(c, d->shown++);
        if (d->records)
            report(d, &(bb_batch_byte){.byte = byte,
                                       .logprob = d->records[slot].logprob,
                                       .top = d->tops ? d->tops + slot * d->hooks.top : NULL,
                                       .top_count = top});
        else
            d->refused = d->options->on_byte && !d->options->on_byte(d->options->user, byte);
    }
    d->over |= d->refused;
}

/* Reports the bytes of the prompt that the rows of a piece predict. first: position of the first row. */
static void report_prompt(bb_decode *d, const float *logits, int64_t first, int64_t rows) {
    int vocab = d->context->model->config.vocab_size, top = top_of(d, vocab);
    bb_candidate *tops = d->tops ? d->tops + d->record_count * d->hooks.top : NULL;
    if (d->reported == first && d->reported < d->prompt_end)
        report(d, &(bb_batch_byte){.byte = *bb_context_at(d->context, d->reported++), .prompt = true, .logprob = (double)NAN});
    for (int64_t i = 0; i < rows && !d->refused; i++, logits += vocab) {
        if (first + i + 1 != d->reported || d->reported >= d->prompt_end) continue;
        uint8_t byte = *bb_context_at(d->context, d->reported++);
        bb_normalizer n = bb_sampler_normalizer(logits, vocab);
        if (tops) find_top(tops, top, logits, vocab, n);
        report(d, &(bb_batch_byte){.byte = byte,
                                   .prompt = true,
                                   .logprob = bb_normalizer_logprob(n, logits, byte),
                                   .top = tops,
                                   .top_count = top});
    }
    d->over |= d->refused;
}

/* ---- drawing -------------------------------------------------------------------------------------------------------------- */

/* Handles a drawn byte that was appended to the text. */
static void on_drawn_byte(bb_decode *d) {
    bb_context *c = d->context;
    int64_t end = c->end;
    d->drawn++;
    d->m.new_bytes++;
    if (d->m.new_bytes == 1) d->m.first_byte_seconds = d->m.prompt_seconds + bb_clock_seconds() - d->begin;
    int stop = bb_stop_push(&d->stop, *bb_context_at(c, end - 1));
    if (stop >= 0) {
        d->m.stop = stop;
        show(d, end - (int64_t)d->options->stops[stop].size);
        d->over = true;
        return;
    }
    show(d, end - (int64_t)bb_stop_held(&d->stop));
    d->over |= d->m.new_bytes >= d->options->max_new_bytes;
    if (d->sampler.repetition_penalty > 1 || d->sampler.repetition_penalty < 1) count_seen(d);
    if (d->draft) bb_draft_push(d->draft, c);
}

static uint8_t draw(bb_decode *d, float *logits) {
    bb_context *c = d->context;
    int vocab = c->model->config.vocab_size;
    int64_t slot = d->records ? c->end % d->record_count : 0;
    bb_normalizer n = bb_sampler_normalizer(logits, vocab);
    float unmodified[BB_SAMPLER_MAX_VOCAB];
    const float *model_logits = logits;
    if (d->tops) find_top(d->tops + slot * d->hooks.top, top_of(d, vocab), logits, vocab, n);
    if (d->hooks.on_logits) {
        model_logits = memcpy(unmodified, logits, (size_t)vocab * sizeof *logits);
        d->hooks.on_logits(d->hooks.user, logits);
    }
    uint8_t byte = (uint8_t)bb_sampler_draw(&d->sampler, logits, vocab, d->seen, d->drawn);
    double logprob = bb_normalizer_logprob(n, model_logits, byte);
    d->logprobs += logprob;
    if (d->records) d->records[slot].logprob = logprob;
    return byte;
}

/* Draws the bytes from position `at` on, from the logits of the last rows read. The text and the cache already hold the drafts
 * from `at` on: drafts that match a draw stay, and the text ends with the first draw that differs or goes beyond them. */
static void draw_rows(bb_decode *d) {
    bb_context *c = d->context;
    int vocab = c->model->config.vocab_size;
    uint8_t guessed[BB_DRAFT_MAX];
    for (int i = 0; i < d->guesses; i++) guessed[i] = *bb_context_at(c, d->at + i);
    c->end = d->at;
    bool right = true;
    int accepted = 0;
    for (int row = 0; right && row <= d->guesses && !d->over; row++) {
        uint8_t byte = draw(d, c->logits + row * vocab);
        right = row < d->guesses && byte == guessed[row];
        accepted += right;
        bb_context_append(c, &byte, 1);
        on_drawn_byte(d);
    }
    c->cache.length = d->at + accepted - c->first;
    d->m.accepted += accepted;
}

/* Draws after the context has been read. seconds: this text's share of the pass; negative: unknown. */
static void draw_next(bb_decode *d, double seconds) {
    d->reading = false;
    if (d->reads_prompt) {
        d->reads_prompt = false;
        d->m.prompt_seconds = bb_clock_seconds() - d->begin;
        d->begin += d->m.prompt_seconds;
    }
    if (d->over || d->m.new_bytes >= d->options->max_new_bytes) {
        d->over = true;
        return;
    }
    d->m.passes += d->later;
    d->m.drafted += d->guesses;
    draw_rows(d);
    if (d->draft && d->later && !d->slides && seconds >= 0)
        bb_draft_timed(d->draft, d->guesses + 1, d->context->end - d->at, seconds);
}

void bb_decode_close(bb_decode *d, bool good) {
    bb_context *c = d->context;
    if (good && d->m.stop < 0 && d->m.new_bytes > 0) show(d, c->end);
    if (d->shown > 0 && d->shown < c->end) bb_context_cut(c, d->shown);
    d->m.decode_seconds = bb_clock_seconds() - d->begin;
    d->m.mean_logprob = d->m.new_bytes ? d->logprobs / (double)d->m.new_bytes : 0;
    bb_stop_close(&d->stop);
    free(d->records);
    free(d->tops);
    d->records = NULL;
    d->tops = NULL;
}

/* ---- passes --------------------------------------------------------------------------------------------------------------- */

/* Drafts bytes and begins to read them. rows: maximum number of rows in the pass. */
static bb_status begin_pass(bb_decode *d, int rows, bb_error *err) {
    bb_context *c = d->context;
    uint8_t guess[BB_DRAFT_MAX];
    int64_t free_bytes = bb_context_free(c), left = d->options->max_new_bytes - d->m.new_bytes - 1;
    const bb_draft_request request = {.sampler = &d->sampler,
                                      .seen = d->seen,
                                      .index = d->drawn,
                                      .max = bb_min(bb_min(free_bytes, left), rows - 1),
                                      .always = d->options->speculate == BB_SPECULATE_ALWAYS};
    d->at = c->end;
    d->guesses = 0;
    d->slides = free_bytes < 0;
    d->later = d->m.new_bytes > 0;
    if (d->draft && d->later) BB_TRY(bb_draft_guess(d->draft, c, &request, guess, &d->guesses, err));
    if (d->guesses > 0) bb_context_append(c, guess, d->guesses);
    int64_t restarts = c->restarts;
    bb_context_begin(c, d->guesses + 1);
    d->m.context_restarts += c->restarts - restarts;
    d->reading = true;
    return BB_OK;
}

static bb_status reserve(bb_model *model, int64_t rows, bb_error *err) {
    BB_DEVICE_SCOPE(model->device);
    return bb_model_reserve_rows(model, rows, 1, err);
}

bb_status bb_pass_open(bb_model *model, int count, bb_pass *p, bb_error *err) {
    *p = (bb_pass){.model = model, .count = count};
    p->pieces = calloc((size_t)count, sizeof *p->pieces);
    p->members = calloc((size_t)count, sizeof(bb_decode *));
    bb_status status = BB_OK;
    if (!p->pieces || !p->members)
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory for passes over %d texts", count);
    else if (count > 1) /* opening a context has already reserved enough for one text */
        status = reserve(model, BB_CONTEXT_PIECE + bb_min(BB_PASS_MAX, (int64_t)BB_CONTEXT_ROWS * count), err);
    if (status != BB_OK) bb_pass_close(p);
    return status;
}

void bb_pass_close(bb_pass *p) {
    free(p->pieces);
    free(p->members);
    free(p->logits);
    free(p->hidden);
    *p = (bb_pass){.count = 0};
}

static bool wants_prompt(const bb_decode *d) {
    return d->hooks.hidden_sum || (d->hooks.prompt_logprobs && d->reported < d->prompt_end);
}

/* Sends all rows of a piece of such a prompt to the pass's own memory, from row `first` on. */
static bb_status widen(bb_pass *p, const bb_decode *d, bb_cached_rows *piece, int64_t first, bb_error *err) {
    size_t V = (size_t)p->model->config.vocab_size, C = (size_t)p->model->config.d_model;
    if (!p->logits) p->logits = malloc(BB_CONTEXT_PIECE * V * sizeof *p->logits);
    if (d->hooks.hidden_sum && !p->hidden) p->hidden = malloc(BB_CONTEXT_PIECE * C * sizeof *p->hidden);
    if (!p->logits || (d->hooks.hidden_sum && !p->hidden))
        return bb_fail(err, BB_ERR_MEMORY, "out of memory for the logits of a prompt");
    piece->wanted = piece->rows;
    piece->logits = d->hooks.prompt_logprobs || d->options->max_new_bytes > 0 ? p->logits + (size_t)first * V : NULL;
    if (d->hooks.hidden_sum) piece->hidden = p->hidden + (size_t)first * C;
    return BB_OK;
}

/* Processes the results of a piece: reports the rows of a prompt, and draws if everything has been read. */
static void finish_piece(bb_decode *d, bb_cached_rows *piece, double seconds) {
    bb_context *c = d->context;
    size_t V = (size_t)c->model->config.vocab_size, C = (size_t)c->model->config.d_model;
    bool last = c->first + c->cache.length == c->end;
    if (piece->hidden)
        for (size_t i = 0; i < (size_t)piece->rows * C; i++) d->hooks.hidden_sum[i % C] += (double)piece->hidden[i];
    if (piece->logits != c->logits) { /* see widen */
        if (piece->logits && d->hooks.prompt_logprobs)
            report_prompt(d, piece->logits, c->first + c->cache.length - piece->rows, piece->rows);
        if (piece->logits && last) memcpy(c->logits, piece->logits + (size_t)(piece->rows - 1) * V, V * sizeof *c->logits);
        piece->wanted = last;
    }
    if (bb_context_advance(c, piece, &d->error) != BB_OK) d->over = d->refused = d->interrupted = true;
    if (last) draw_next(d, seconds);
}

/* Returns false if the text has failed, and ends it. */
static bool continues(bb_decode *d, bb_status status, const bb_error *error) {
    if (status == BB_OK) return true;
    d->status = status;
    d->error = *error;
    d->over = d->refused = true;
    return false;
}

/* Runs a pass over n pieces. Returns the number that succeeded; they and their texts are moved to the front. */
static int run_pass(bb_pass *p, int n) {
    int64_t lengths[BB_PASS_MAX];
    bb_error error;
    int left = 0;
    for (int i = 0; i < n; i++) lengths[i] = p->pieces[i].cache->length;
    bb_status status = bb_model_forward_parts(p->model, p->pieces, n, &error);
    if (status == BB_OK) return n;
    for (int i = 0; i < n; i++) p->pieces[i].cache->length = lengths[i];
    for (int i = 0; i < n; i++) {
        if (n > 1) status = bb_model_forward_parts(p->model, &p->pieces[i], 1, &error);
        if (!continues(p->members[i], status, &error)) {
            p->pieces[i].cache->length = lengths[i];
            continue;
        }
        p->pieces[left] = p->pieces[i];
        p->members[left++] = p->members[i];
    }
    return left;
}

void bb_decode_step(bb_pass *p, bb_decode *const *decodes, int count) {
    bb_error error;
    int64_t read = 0, rows = 0;
    int n = 0, max_rows = (int)bb_min(BB_PASS_MAX / bb_max(count, 1), BB_CONTEXT_ROWS);
    for (int i = 0; i < count; i++) {
        bb_decode *d = decodes[i];
        bb_cached_rows *piece = &p->pieces[n];
        if (d->over || d->waits) continue;
        if (!d->reading && !continues(d, begin_pass(d, max_rows, &error), &error)) continue;
        if (!bb_context_next(d->context, piece)) { /* its logits are available already */
            draw_next(d, -1);
            continue;
        }
        if (!d->later || d->slides) { /* a text that reads: the pass has room for one piece */
            if (read > 0 && read + piece->rows > BB_CONTEXT_PIECE) continue;
            if (wants_prompt(d) && !continues(d, widen(p, d, piece, read, &error), &error)) continue;
            read += piece->rows;
        }
        rows += piece->rows;
        p->members[n++] = d;
    }
    if (n == 0) return;
    double begin = bb_clock_seconds();
    n = run_pass(p, n);
    double seconds = bb_clock_seconds() - begin;
    for (int i = 0; i < n; i++) {
        bb_decode *d = p->members[i];
        /* each text is charged the pass that it would have had if the others had not drafted */
        double share = read ? -1 : seconds * (double)(n + d->guesses) / (double)rows;
        finish_piece(d, &p->pieces[i], share);
    }
}
