// SPDX-License-Identifier: MIT
#include "inference/draft.h"

#include <math.h>
#include <string.h>

#include "core/clock.h"

/* Texts change, and the load of a machine: what an old guess or an old time counts beside a new one. */
static const double habit = 1 - 1.0 / 128, load = 1 - 1.0 / 16, burden = 1 - 1.0 / 2;
/* That a longer pass is dear is believed less with every byte on which it isn't tried: half as much after 2,800. */
static const double belief = 1 - 1.0 / 4096;
/* A pass is made longer when that promises at least this much more. */
static const double worth_it = 1.08;
/* The draft model is asked where that has not paid, to see whether it does by now, in this share of the time. */
static const double curiosity = 1.0 / 128;

/* What was hoped for is held against what came: where passes with guesses gave less than this for their time, none is made for
 * some bytes, twice as many each time. So the whole is never much slower, whatever is estimated wrongly. */
static const double enough = 1.03, judged = 12 /* passes' time */;
enum { SINGLES = 4, LEAST_REST = 64, MOST_REST = 4096 };

static const int sizes[BB_DRAFT_SIZES] = {1, 2, 3, 4, 6, 8, 12, 16};

static int level_of(double confidence) {
    int level = (int)(confidence * BB_DRAFT_LEVELS);
    return level < BB_DRAFT_LEVELS ? level : BB_DRAFT_LEVELS - 1;
}

static double rate_of(const bb_draft_rates *r, int level) { return r->hits[level] / r->tries[level]; }

static void count(bb_draft_rates *r, int level, bool hit) {
    r->hits[level] = habit * r->hits[level] + hit;
    r->tries[level] = habit * r->tries[level] + 1;
}

bb_status bb_draft_open(bb_model *model, int64_t capacity, bb_draft *d, bb_error *err) {
    *d = (bb_draft){.right = 0.7, .rest = LEAST_REST};
    for (int level = 0; level < BB_DRAFT_LEVELS; level++) { /* one try, and it was as good as it seemed */
        d->by_ngrams.tries[level] = d->by_model.tries[level] = 1;
        d->by_ngrams.hits[level] = d->by_model.hits[level] = (level + 0.5) / BB_DRAFT_LEVELS;
    }
    d->excess[1] = 0.05; /* the first pass tells */
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
    if (d->learned > c->end) d->learned = c->end; /* what another text has taught may be of use in this one */
    if (d->learned < c->base) d->learned = c->base;
    learn(d, c);
    d->same = 0;
    d->guesses = 0;
}

/* What the guess for place `n` of the last ones was worth, and those after it, now that the byte is known. */
static void count_guess(bb_draft *d, int n, uint8_t byte) {
    if (d->model_byte[n] >= 0) {
        bool hit = d->model_byte[n] == byte;
        count(&d->by_model, d->model_level[n], hit);
        d->right = habit * d->right + (1 - habit) * hit;
    }
    if (d->guessed[n] != byte) d->guesses = 0;
}

/* The passes with guesses so far, and the byte that each of them gives: whether to go on with them. */
static void judge(bb_draft *d) {
    if (d->taken < judged) return;
    if (d->gained < enough * d->taken) {
        d->resting = d->rest;
        d->rest = d->rest < MOST_REST ? 2 * d->rest : MOST_REST;
        d->gained = d->taken = 0;
    } else {
        d->rest = LEAST_REST;
        d->gained /= 2;
        d->taken /= 2;
    }
}

void bb_draft_push(bb_draft *d, const bb_context *c) {
    int64_t at = c->end - 1;
    uint8_t byte = *bb_context_at(c, at);
    double confidence;
    int guess = bb_ngrams_guess(&d->ngrams, bb_context_at(c, at), at - c->base, &confidence);
    if (guess >= 0) count(&d->by_ngrams, level_of(confidence), guess == byte);
    if (at >= d->guessed_at && at - d->guessed_at < d->guesses) count_guess(d, (int)(at - d->guessed_at), byte);
    for (int i = 1; i < BB_DRAFT_SIZES; i++) d->excess[i] *= belief;
    learn(d, c);
}

/* What a pass of a size takes above one over one byte. One that was never tried takes as much for each byte more as the
 * longest below it that was: a text whose guesses are poor never pays for the dear ones. */
static double excess_of(const bb_draft *d, int size) {
    int known = size;
    while (known > 1 && !d->timed[known]) known--;
    return d->excess[known] * (sizes[size] - 1) / (sizes[known] - 1);
}

/* The longest pass to consider: a size above the longest that was timed, as neither its time nor what guesses that far ahead
 * are worth is known yet. */
static int longest_size(const bb_draft *d) {
    int size = 1;
    while (size < BB_DRAFT_SIZES - 1 && d->timed[size]) size++;
    return size;
}

/* That one byte more in a pass takes after `rows` of them. */
static double excess_of_next(const bb_draft *d, int rows) {
    int size = 1;
    while (size < BB_DRAFT_SIZES - 1 && sizes[size] <= rows) size++;
    double below = size > 1 ? excess_of(d, size - 1) : 0;
    return fmax(excess_of(d, size) - below, 0) / (sizes[size] - sizes[size - 1]);
}

/* The draft model's guess for the byte after the reader's text, which is followed by what was guessed before. */
static bb_status ask_model(bb_draft *d, bb_draft_draws draws, int n, bb_error *err) {
    bb_context *r = &d->reader;
    double begin = bb_clock_seconds();
    int64_t unread = r->end - r->first - r->cache.length;
    BB_TRY(bb_context_read(r, 1, err));
    int vocab = r->model->config.vocab_size;
    int byte = bb_sampler_draw(draws.sampler, r->logits, vocab, draws.seen, draws.index + (uint64_t)n);
    d->model_byte[n] = byte;
    d->model_level[n] = level_of(exp(bb_sampler_logprob(r->logits, vocab, byte)));
    double seconds = bb_clock_seconds() - begin;
    if (d->ask_seconds <= 0)
        d->ask_seconds = unread > 1 ? seconds / (double)unread : seconds; /* a first notion of it */
    else if (unread <= 1)
        d->ask_seconds = load * d->ask_seconds + (1 - load) * fmin(seconds, 4 * d->ask_seconds);
    d->last_ask = seconds;
    d->idle = 0;
    return BB_OK;
}

/* Whether the draft model's guess number n is worth its time, beside one of the n-grams with this rate: `all`, that it comes to
 * count, and `best`, the bytes that are had in the time of a pass over one. */
static bool worth_asking(const bb_draft *d, int n, double all, double rate, double best) {
    if (!d->reader.model) return false;
    if (n == 0 && d->idle * curiosity > d->last_ask) return true;
    double share = d->ask_seconds / d->seconds, better = 0.5 + 0.5 * d->right; /* where it is sure of it */
    return all * (better - rate) > share * best && all * fmax(d->right, rate) > (share + excess_of_next(d, n + 1)) * best;
}

bb_status bb_draft_guess(bb_draft *d, const bb_context *c, bb_draft_draws draws, int64_t most, bool always, uint8_t *out,
                         int *count_out, bb_error *err) {
    uint8_t text[BB_NGRAM_LONGEST + BB_DRAFT_MAX];
    int64_t held = c->end - c->base < BB_NGRAM_LONGEST ? c->end - c->base : BB_NGRAM_LONGEST;
    double expected = 1, all = 1, best = always ? 0 : worth_it,
           asked = 0; /* bytes of a pass, in the time of one over one byte */
    int rows = 1, n = 0;
    *count_out = d->guesses = 0;
    d->asked = false;
    d->guessed_at = c->end;
    if (!always && (d->singles < SINGLES || d->resting > 0)) return BB_OK;
    memcpy(text, bb_context_at(c, c->end - held), (size_t)held);
    if (!always && most > sizes[longest_size(d)] - 1) most = sizes[longest_size(d)] - 1;
    for (int size = 1; n < most && n < BB_DRAFT_MAX; n++) {
        double confidence, rate = 0;
        int byte = bb_ngrams_guess(&d->ngrams, text + held + n, held + n, &confidence);
        if (byte >= 0) rate = rate_of(&d->by_ngrams, level_of(confidence));
        d->model_byte[n] = -1;
        if (always ? d->reader.model != NULL : worth_asking(d, n, all, rate, best)) {
            d->same = bb_context_follow(&d->reader, c, d->same, out, n);
            BB_TRY(ask_model(d, draws, n, err));
            d->asked = true;
            asked += d->ask_seconds / d->seconds;
            d->taken += d->last_ask / d->seconds;
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
            double value = expected / (1 + excess_of(d, size++) + asked);
            if (value > best) {
                best = value;
                rows = n + 2;
            }
        }
        if (!always && all < best * excess_of_next(d, n + 2)) break; /* not even if the next one were certain */
    }
    *count_out = rows - 1;
    return BB_OK;
}

void bb_draft_timed(bb_draft *d, int rows, int64_t bytes, double seconds) {
    d->idle += seconds;
    if (d->resting > 0) d->resting -= bytes < d->resting ? (int)bytes : d->resting;
    if (rows == 1) { /* at first the fastest: the very first one finds the caches empty */
        d->seconds = d->singles >= SINGLES ? load * d->seconds + (1 - load) * fmin(seconds, 2 * d->seconds)
                     : d->singles > 0      ? fmin(seconds, d->seconds)
                                           : seconds;
        d->singles += d->singles < SINGLES;
    }
    if (rows > 1 || d->asked) {
        d->gained += (double)bytes;
        d->taken += d->seconds > 0 ? fmin(seconds / d->seconds, 2 * rows) : rows;
        judge(d);
    }
    for (int i = 1; i < BB_DRAFT_SIZES; i++) {
        if (sizes[i] != rows || d->seconds <= 0) continue;
        double excess = fmin(fmax(seconds / d->seconds - 1, 0), rows - 1);
        d->excess[i] = d->timed[i] ? burden * d->excess[i] + (1 - burden) * excess : excess;
        d->timed[i] = true;
    }
}
