// SPDX-License-Identifier: MIT
#include "inference/draft.h"

#include <math.h>
#include <string.h>

#include "core/clock.h"

/* Exponential decay, per sample, of acceptance rates, of the time of one-row passes, and of the cost of longer ones. */
static const double acceptance_decay = 1 - 1.0 / 128, seconds_decay = 1 - 1.0 / 16, cost_decay = 1 - 1.0 / 2;
/* Per byte: old measurements of expensive long passes lose weight, half of it after 2,800 bytes, so that long passes are tried
 * again. */
static const double pass_cost_decay = 1 - 1.0 / 4096;
/* Minimum speedup that a longer pass must promise. */
static const double min_speedup = 1.08;
/* Share of the time spent on trying a draft model that has not paid off so far. */
static const double explore_rate = 1.0 / 128;

/* A safeguard against wrong estimates: if drafting passes produced fewer bytes than this for their time (in one-row passes),
 * drafting pauses for some bytes, twice as many each time, so that a wrong estimate never costs much. */
static const double min_gain = 1.03, check_after = 12 /* one-row passes */;
enum { SINGLES = 4, MIN_REST = 64, MAX_REST = 4096 };

static const int sizes[BB_DRAFT_SIZES] = {1, 2, 3, 4, 6, 8, 12, 16};

static int level_of(double confidence) {
    int level = (int)(confidence * BB_DRAFT_LEVELS);
    return level < BB_DRAFT_LEVELS ? level : BB_DRAFT_LEVELS - 1;
}

static double rate_of(const bb_draft_rates *r, int level) { return r->hits[level] / r->tries[level]; }

static void count(bb_draft_rates *r, int level, bool hit) {
    r->hits[level] = acceptance_decay * r->hits[level] + hit;
    r->tries[level] = acceptance_decay * r->tries[level] + 1;
}

bb_status bb_draft_open(bb_model *model, int64_t capacity, bb_draft *d, bb_error *err) {
    *d = (bb_draft){.acceptance_estimate = 0.7, .pause = MIN_REST};
    for (int level = 0; level < BB_DRAFT_LEVELS; level++) { /* prior: one try, as good as its confidence */
        d->by_ngrams.tries[level] = d->by_model.tries[level] = 1;
        d->by_ngrams.hits[level] = d->by_model.hits[level] = (level + 0.5) / BB_DRAFT_LEVELS;
    }
    d->pass_cost[1] = 0.05; /* assumed until one was timed */
    BB_TRY(bb_ngrams_open(&d->ngrams, err));
    bb_status status = BB_OK;
    if (model)
        status = bb_context_open(model, capacity < model->trained_length ? capacity : model->trained_length, BB_KV_INT6,
                                 &d->reader, err);
    if (status != BB_OK) {
        d->reader.model = NULL;
        bb_draft_close(d);
    }
    return status;
}

void bb_draft_close(bb_draft *d) {
    bb_ngrams_close(&d->ngrams);
    if (d->reader.model) bb_context_close(&d->reader);
}

static void learn(bb_draft *d, const bb_context *c) {
    for (; d->learned < c->end; d->learned++) bb_ngrams_learn(&d->ngrams, bb_context_at(c, d->learned), d->learned - c->base);
}

void bb_draft_reset(bb_draft *d, const bb_context *c) {
    if (d->learned > c->end) d->learned = c->end; /* n-grams of another text are kept, because they may still help */
    if (d->learned < c->base) d->learned = c->base;
    learn(d, c);
    d->same = 0;
    d->guesses = 0;
}

/* Updates the statistics when the byte for draft n is known; a miss invalidates the drafts after it. */
static void count_guess(bb_draft *d, int n, uint8_t byte) {
    if (d->model_byte[n] >= 0) {
        bool hit = d->model_byte[n] == byte;
        count(&d->by_model, d->model_level[n], hit);
        d->acceptance_estimate = acceptance_decay * d->acceptance_estimate + (1 - acceptance_decay) * hit;
    }
    if (d->guessed[n] != byte) d->guesses = 0;
}

/* Compares the gain of drafting with its time, and pauses if it does not pay. */
static void update_pause(bb_draft *d) {
    if (d->spent < check_after) return;
    if (d->gained < min_gain * d->spent) {
        d->pause_left = d->pause;
        d->pause = d->pause < MAX_REST ? 2 * d->pause : MAX_REST;
        d->gained = d->spent = 0;
    } else {
        d->pause = MIN_REST;
        d->gained /= 2;
        d->spent /= 2;
    }
}

void bb_draft_push(bb_draft *d, const bb_context *c) {
    int64_t at = c->end - 1;
    uint8_t byte = *bb_context_at(c, at);
    double confidence;
    int guess = bb_ngrams_guess(&d->ngrams, bb_context_at(c, at), at - c->base, &confidence);
    if (guess >= 0) count(&d->by_ngrams, level_of(confidence), guess == byte);
    if (at >= d->guessed_at && at - d->guessed_at < d->guesses) count_guess(d, (int)(at - d->guessed_at), byte);
    for (int i = 1; i < BB_DRAFT_SIZES; i++) d->pass_cost[i] *= pass_cost_decay;
    learn(d, c);
}

/* Returns the cost of a pass of a size. An untried size is extrapolated per row from the largest smaller one that was timed, so
 * a text that drafts poorly never pays for long passes. */
static double pass_cost_of(const bb_draft *d, int size) {
    int known = size;
    while (known > 1 && !d->timed[known]) known--;
    return d->pass_cost[known] * (sizes[size] - 1) / (sizes[known] - 1);
}

/* Returns the largest size to consider: one above the largest that was timed. */
static int longest_size(const bb_draft *d) {
    int size = 1;
    while (size < BB_DRAFT_SIZES - 1 && d->timed[size]) size++;
    return size;
}

/* Returns the cost of one more row after `rows`. */
static double next_row_cost(const bb_draft *d, int rows) {
    int size = 1;
    while (size < BB_DRAFT_SIZES - 1 && sizes[size] <= rows) size++;
    double below = size > 1 ? pass_cost_of(d, size - 1) : 0;
    return fmax(pass_cost_of(d, size) - below, 0) / (sizes[size] - sizes[size - 1]);
}

/* Draws draft n with the draft model, whose context holds the text and the drafts before n. */
static bb_status draft_with_model(bb_draft *d, const bb_draft_request *request, int n, bb_error *err) {
    bb_context *r = &d->reader;
    double begin = bb_clock_seconds();
    int64_t unread = r->end - r->first - r->cache.length;
    BB_TRY(bb_context_read(r, 1, err));
    int vocab = r->model->config.vocab_size;
    int byte = bb_sampler_draw(request->sampler, r->logits, vocab, request->seen, request->index + (uint64_t)n);
    d->model_byte[n] = byte;
    d->model_level[n] = level_of(exp(bb_sampler_logprob(r->logits, vocab, byte)));
    double seconds = bb_clock_seconds() - begin;
    if (d->draft_seconds <= 0)
        d->draft_seconds = unread > 1 ? seconds / (double)unread : seconds; /* a first estimate */
    else if (unread <= 1)
        d->draft_seconds = seconds_decay * d->draft_seconds + (1 - seconds_decay) * fmin(seconds, 4 * d->draft_seconds);
    d->last_draft_seconds = seconds;
    d->seconds_since_draft = 0;
    return BB_OK;
}

/* Returns whether draft n of the draft model is worth its time compared with an n-gram's with acceptance `rate`. all: the
 * probability that drafts 0 .. n-1 are all accepted; best: bytes per one-row pass of the best choice so far. */
static bool model_pays(const bb_draft *d, int n, double all, double rate, double best) {
    if (!d->reader.model) return false;
    if (n == 0 && d->seconds_since_draft * explore_rate > d->last_draft_seconds) return true;
    double share = d->draft_seconds / d->seconds,
           better = 0.5 + 0.5 * d->acceptance_estimate; /* acceptance rate where the model is confident */
    return all * (better - rate) > share * best &&
           all * fmax(d->acceptance_estimate, rate) > (share + next_row_cost(d, n + 1)) * best;
}

bb_status bb_draft_guess(bb_draft *d, const bb_context *c, const bb_draft_request *request, uint8_t *out, int *count_out,
                         bb_error *err) {
    bool always = request->always;
    int64_t max = request->max;
    uint8_t text[BB_NGRAM_MAX_LENGTH + BB_DRAFT_MAX];
    int64_t held = c->end - c->base < BB_NGRAM_MAX_LENGTH ? c->end - c->base : BB_NGRAM_MAX_LENGTH;
    double expected = 1, all = 1, best = always ? 0 : min_speedup, asked = 0; /* bytes per pass; times in one-row passes */
    int rows = 1, n = 0;
    *count_out = d->guesses = 0;
    d->used_model = false;
    d->guessed_at = c->end;
    if (!always && (d->singles < SINGLES || d->pause_left > 0)) return BB_OK;
    memcpy(text, bb_context_at(c, c->end - held), (size_t)held);
    if (!always && max > sizes[longest_size(d)] - 1) max = sizes[longest_size(d)] - 1;
    for (int size = 1; n < max && n < BB_DRAFT_MAX; n++) {
        double confidence, rate = 0;
        int byte = bb_ngrams_guess(&d->ngrams, text + held + n, held + n, &confidence);
        if (byte >= 0) rate = rate_of(&d->by_ngrams, level_of(confidence));
        d->model_byte[n] = -1;
        if (always ? d->reader.model != NULL : model_pays(d, n, all, rate, best)) {
            d->same = bb_context_follow(&d->reader, c, d->same, out, n);
            BB_TRY(draft_with_model(d, request, n, err));
            d->used_model = true;
            asked += d->draft_seconds / d->seconds;
            d->spent += d->last_draft_seconds / d->seconds;
            double by_model = rate_of(&d->by_model, d->model_level[n]);
            if (byte < 0 || by_model > rate) {
                byte = d->model_byte[n];
                rate = by_model;
            }
        }
        if (byte < 0 || (always && n > 0 && all * rate < 0.2)) break;
        out[n] = d->guessed[n] = text[held + n] = (uint8_t)byte;
        d->guesses = n + 1;
        all *= rate;
        expected += all;
        if (always) {
            rows = n + 2;
        } else if (n + 2 == sizes[size]) {
            double value = expected / (1 + pass_cost_of(d, size++) + asked);
            if (value > best) {
                best = value;
                rows = n + 2;
            }
        }
        if (!always && all < best * next_row_cost(d, n + 2)) break; /* not even a certain draft would pay off */
    }
    *count_out = rows - 1;
    return BB_OK;
}

void bb_draft_timed(bb_draft *d, int rows, int64_t bytes, double seconds) {
    d->seconds_since_draft += seconds;
    if (d->pause_left > 0) d->pause_left -= bytes < d->pause_left ? (int)bytes : d->pause_left;
    if (rows == 1) { /* use the minimum at first: the very first pass has cold caches */
        d->seconds = d->singles >= SINGLES ? seconds_decay * d->seconds + (1 - seconds_decay) * fmin(seconds, 2 * d->seconds)
                     : d->singles > 0      ? fmin(seconds, d->seconds)
                                           : seconds;
        d->singles += d->singles < SINGLES;
    }
    if (rows > 1 || d->used_model) {
        d->gained += (double)bytes;
        d->spent += d->seconds > 0 ? fmin(seconds / d->seconds, 2 * rows) : rows;
        update_pause(d);
    }
    for (int i = 1; i < BB_DRAFT_SIZES; i++) {
        if (sizes[i] != rows || d->seconds <= 0) continue;
        double pass_cost = fmin(fmax(seconds / d->seconds - 1, 0), rows - 1);
        d->pass_cost[i] = d->timed[i] ? cost_decay * d->pass_cost[i] + (1 - cost_decay) * pass_cost : pass_cost;
        d->timed[i] = true;
    }
}
