// SPDX-License-Identifier: MIT
/* Samples the next byte from logits: a pure function of (seed, index, logits, recent bytes). */
#ifndef BB_INFERENCE_SAMPLER_H
#define BB_INFERENCE_SAMPLER_H

#include "core/status.h"

enum { BB_SAMPLER_MAX_VOCAB = 256, BB_SAMPLER_MAX_WINDOW = 1 << 16 };

/* Applied in this order; see bb_generate_options. */
typedef struct bb_sampler {
    double repetition_penalty; /* 1: off */
    int repetition_window;     /* bytes that `seen` counts, at most BB_SAMPLER_MAX_WINDOW */
    double temperature;        /* 0: greedy; ties go to the lowest id */
    int top_k;                 /* 0: off; ties go to the lowest ids */
    double top_p;              /* 1: off */
    double min_p;              /* 0: off */
    uint64_t seed;
} bb_sampler;

bb_sampler bb_sampler_from(const bb_generate_options *options);
bb_status bb_sampler_check(const bb_sampler *sampler, bb_error *err);
/* logits: (vocab), vocab <= 256. seen: (vocab), counts of recent bytes; may be NULL without a penalty. index: number of the
 * draw, from 0. */
int bb_sampler_draw(const bb_sampler *sampler, const float *logits, int vocab, const int32_t *seen, uint64_t index);
/* Converts logits to log probabilities. */
typedef struct bb_normalizer {
    double max, log_sum;
} bb_normalizer;
bb_normalizer bb_sampler_normalizer(const float *logits, int vocab);
/* Returns ln p(id) under softmax(logits). */
static inline double bb_normalizer_logprob(bb_normalizer n, const float *logits, int id) {
    return (double)logits[id] - n.max - n.log_sum;
}
double bb_sampler_logprob(const float *logits, int vocab, int id);

#endif
