// SPDX-License-Identifier: MIT
#include "inference/sampler.h"

#include <math.h>

#include "core/exact_math.h"
#include "core/rng.h"

/* Remaining candidates. weight: probability up to a common factor; the likeliest has weight 1. */
typedef struct candidates {
    int id[BB_SAMPLER_MAX_VOCAB];
    double weight[BB_SAMPLER_MAX_VOCAB];
    int count;
} candidates;

bb_sampler bb_sampler_from(const bb_generate_options *o) {
    return (bb_sampler){.repetition_penalty = o->repetition_penalty,
                        .repetition_window = o->repetition_window,
                        .temperature = o->temperature,
                        .top_k = o->top_k,
                        .top_p = o->top_p,
                        .min_p = o->min_p,
                        .seed = o->seed};
}

bb_status bb_sampler_check(const bb_sampler *s, bb_error *err) {
    if (!(s->repetition_penalty > 0) || !isfinite(s->repetition_penalty))
        return bb_fail(err, BB_ERR_ARGUMENT, "repetition_penalty %g must be above 0 (1: off)", s->repetition_penalty);
    if (s->repetition_window < 1 || s->repetition_window > BB_SAMPLER_MAX_WINDOW)
        return bb_fail(err, BB_ERR_ARGUMENT, "repetition_window %d must be from 1 to %d bytes", s->repetition_window,
                       BB_SAMPLER_MAX_WINDOW);
    if (!(s->temperature >= 0) || !isfinite(s->temperature))
        return bb_fail(err, BB_ERR_ARGUMENT, "temperature %g must be 0 (greedy) or more", s->temperature);
    if (s->top_k < 0) return bb_fail(err, BB_ERR_ARGUMENT, "top_k %d must be 0 (off) or more", s->top_k);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return bb_fail(err, BB_ERR_ARGUMENT, "top_p %g must be above 0 and at most 1", s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1)) return bb_fail(err, BB_ERR_ARGUMENT, "min_p %g must be from 0 (off) to 1", s->min_p);
    return BB_OK;
}

/* Keskar et al., "CTRL", 2019, adapted to the sign of the logit: a penalty above 1 always makes a seen byte less likely. */
static void penalize(const bb_sampler *s, double *logits, int vocab, const int32_t *seen) {
    for (int i = 0; i < vocab; i++)
        if (seen[i] > 0) logits[i] = logits[i] > 0 ? logits[i] / s->repetition_penalty : logits[i] * s->repetition_penalty;
}

static bool likelier(const candidates *c, int a, int b) {
    if (c->weight[a] > c->weight[b]) return true;
    return !(c->weight[a] < c->weight[b]) && c->id[a] < c->id[b];
}

static void swap(candidates *c, int a, int b) {
    int id = c->id[a];
    double weight = c->weight[a];
    c->id[a] = c->id[b];
    c->weight[a] = c->weight[b];
    c->id[b] = id;
    c->weight[b] = weight;
}

static void sift_down(candidates *c, int at, int count) {
    for (int child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && likelier(c, child + 1, child)) child++;
        if (!likelier(c, child, at)) return;
        swap(c, child, at);
    }
}

/* Keeps the likeliest candidates in descending order: no more than `max`, and no more than needed to reach `share` of their
 * total weight. It uses a heap: usually few are kept, and the rest is never sorted. */
static void keep_likeliest(candidates *c, int max, double share) {
    candidates kept;
    double total = 0, sum = 0;
    int left = c->count;
    kept.count = 0;
    for (int i = left / 2 - 1; i >= 0; i--) sift_down(c, i, left);
    bool early = max >= left; /* the total can be summed before anything is removed */
    if (early)
        for (int i = 0; i < left; i++) total += c->weight[i];
    while (left > 0 && kept.count < max && !(early && share < 1 && sum >= share * total)) {
        kept.id[kept.count] = c->id[0];
        kept.weight[kept.count] = c->weight[0];
        sum += c->weight[0];
        kept.count++;
        swap(c, 0, --left);
        sift_down(c, 0, left);
    }
    if (!early && share < 1) {
        total = sum;
        sum = 0;
        int n = 0;
        while (n < kept.count && (n == 0 || sum < share * total)) sum += kept.weight[n++];
        kept.count = n;
    }
    for (int i = 0; i < kept.count; i++) {
        c->id[i] = kept.id[i];
        c->weight[i] = kept.weight[i];
    }
    c->count = kept.count;
}

/* Exponential race: byte i arrives after an exponentially distributed time with rate weight_i, so it wins with probability
 * weight_i / total. The underlying unit-rate times depend only on the byte, so two similar distributions (a model and its
 * draft) usually have the same winner: in at least (1 - t) / (1 + t) of the draws, where t is their total variation distance.
 * Daliri, Musco, Suresh, "Coupling without communication and drafter-invariant speculative decoding", arXiv:2408.07978. */
static int race(const bb_sampler *s, const candidates *c, uint64_t index, int fallback) {
    uint32_t words[4] = {0};
    int64_t group = -1;
    int winner = fallback; /* if every weight is NaN */
    double first = INFINITY;
    for (int i = 0; i < c->count; i++) {
        if (c->weight[i] < s->min_p) continue; /* the likeliest has weight 1 */
        int id = c->id[i];
        if (id / 4 != group) {
            group = id / 4;
            bb_philox(s->seed, BB_STREAM_SAMPLER, index * (BB_SAMPLER_MAX_VOCAB / 4) + (uint64_t)group, words);
        }
        double u = words[id % 4] * 0x1p-32; /* the true u is less than 2^-32 above; -log(1 - u) >= u */
        if (!(u < first * c->weight[i])) continue;
        u += 0x1p-32 * bb_rng_uniform(s->seed, BB_STREAM_SAMPLER_REST, index * BB_SAMPLER_MAX_VOCAB + (uint64_t)id);
        double time = -bb_log1p(-u) / c->weight[i];
        if (time >= first) continue;
        first = time;
        winner = id;
    }
    return winner;
}

int bb_sampler_draw(const bb_sampler *s, const float *logits, int vocab, const int32_t *seen, uint64_t index) {
    double value[BB_SAMPLER_MAX_VOCAB];
    candidates c;
    for (int i = 0; i < vocab; i++) value[i] = (double)logits[i];
    if (s->repetition_penalty > 1 || s->repetition_penalty < 1) penalize(s, value, vocab, seen);
    int best = 0;
    for (int i = 1; i < vocab; i++)
        if (value[i] > value[best]) best = i;
    if (s->temperature <= 0) return best;

    for (int i = 0; i < vocab; i++) {
        c.id[i] = i;
        c.weight[i] = bb_exp((value[i] - value[best]) / s->temperature);
    }
    c.count = vocab;
    int max = s->top_k > 0 && s->top_k < vocab ? s->top_k : vocab;
    if (max < vocab || s->top_p < 1) keep_likeliest(&c, max, s->top_p);
    return race(s, &c, index, best);
}

bb_normalizer bb_sampler_normalizer(const float *logits, int vocab) {
    double best = (double)logits[0], sum = 0;
    for (int i = 1; i < vocab; i++) best = fmax(best, (double)logits[i]);
    for (int i = 0; i < vocab; i++) sum += bb_exp((double)logits[i] - best);
    return (bb_normalizer){.max = best, .log_sum = bb_log(sum)};
}

double bb_sampler_logprob(const float *logits, int vocab, int id) {
    return bb_normalizer_logprob(bb_sampler_normalizer(logits, vocab), logits, id);
}
