/* Choosing the next byte from logits: temperature, top-k, top-p; a pure function of (seed, position).
 * SPDX-License-Identifier: MIT */
#ifndef BB_INFERENCE_SAMPLER_H
#define BB_INFERENCE_SAMPLER_H

#include "core/status.h"

enum { BB_SAMPLER_MAX_VOCAB = 256 };

typedef struct bb_sampler {
    double temperature; /* 0: greedy, the lowest id among equals */
    int top_k;          /* 0: off */
    double top_p;       /* 1: off */
    uint64_t seed;
} bb_sampler;

bb_status bb_sampler_check(const bb_sampler *sampler, bb_error *err);
/* logits: (vocab), vocab <= 256. index: the number of the draw, counted from 0. */
int bb_sampler_draw(const bb_sampler *sampler, const float *logits, int vocab, uint64_t index);
/* ln p(id) under softmax(logits), unmodified. */
double bb_sampler_logprob(const float *logits, int vocab, int id);

#endif
