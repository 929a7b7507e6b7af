/* SPDX-License-Identifier: MIT */
#include "inference/sampler.h"

#include <math.h>
#include <stdlib.h>

#include "core/rng.h"

typedef struct candidate {
    int id;
    double weight; /* the logit, then its probability up to a factor */
} candidate;

/* Likeliest first; equals by id, so that the order is total. */
static int by_weight(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->weight > y->weight) return -1;
    if (x->weight < y->weight) return 1;
    return x->id - y->id;
}

bb_status bb_sampler_check(const bb_sampler *s, bb_error *err) {
    if (!(s->temperature >= 0) || !isfinite(s->temperature))
        return bb_fail(err, BB_ERR_ARGUMENT, "temperature %g must be 0 (greedy) or more", s->temperature);
    if (s->top_k < 0) return bb_fail(err, BB_ERR_ARGUMENT, "top_k %d must be 0 (off) or more", s->top_k);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return bb_fail(err, BB_ERR_ARGUMENT, "top_p %g must be above 0 and at most 1", s->top_p);
    return BB_OK;
}

int bb_sampler_draw(const bb_sampler *s, const float *logits, int vocab, uint64_t index) {
    candidate list[BB_SAMPLER_MAX_VOCAB];
    for (int i = 0; i < vocab; i++) list[i] = (candidate){.id = i, .weight = (double)logits[i]};
    qsort(list, (size_t)vocab, sizeof *list, by_weight);
    if (s->temperature <= 0) return list[0].id;

    double best = list[0].weight, total = 0;
    int n = s->top_k > 0 && s->top_k < vocab ? s->top_k : vocab;
    for (int i = 0; i < n; i++) total += list[i].weight = exp((list[i].weight - best) / s->temperature);
    if (s->top_p < 1) { /* the fewest whose probabilities reach top_p */
        double kept = 0;
        int i = 0;
        do kept += list[i++].weight;
        while (i < n && kept < s->top_p * total);
        n = i;
        total = kept;
    }
    double left = bb_rng_uniform(s->seed, BB_STREAM_SAMPLER, index) * total;
    for (int i = 0; i < n - 1; i++) {
        left -= list[i].weight;
        if (left < 0) return list[i].id;
    }
    return list[n - 1].id;
}

double bb_sampler_logprob(const float *logits, int vocab, int id) {
    double best = (double)logits[0], sum = 0;
    for (int i = 1; i < vocab; i++) best = fmax(best, (double)logits[i]);
    for (int i = 0; i < vocab; i++) sum += exp((double)logits[i] - best);
    return (double)logits[id] - best - log(sum);
}
