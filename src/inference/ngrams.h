// SPDX-License-Identifier: MIT
/* Predicts the next byte from hashed contexts of several lengths, and tracks how often each length is right. */
#ifndef BB_INFERENCE_NGRAMS_H
#define BB_INFERENCE_NGRAMS_H

#include "core/status.h"

enum {
    BB_NGRAM_ORDERS = 9,      /* lengths of context */
    BB_NGRAM_MAX_LENGTH = 24, /* the longest context, in bytes */
    BB_NGRAM_BITS = 16,       /* log2 of a table's size */
    BB_NGRAM_COUNTS = 6       /* buckets of repetitions: 1, 2-3, 4-7, 8-15, 16-31, more */
};

typedef struct bb_ngram {
    uint16_t check; /* further bits of the context's hash */
    uint8_t byte, count;
} bb_ngram;

typedef struct bb_ngrams {
    bb_ngram *table;                                                                        /* (ORDERS, 1 << BITS) */
    double hits[BB_NGRAM_ORDERS][BB_NGRAM_COUNTS], tries[BB_NGRAM_ORDERS][BB_NGRAM_COUNTS]; /* decayed */
} bb_ngrams;

bb_status bb_ngrams_open(bb_ngrams *out, bb_error *err);
void bb_ngrams_close(bb_ngrams *g);
/* Returns the likeliest byte at `end`, given the `length` bytes before it; -1: unknown context. rate: how often such
 * predictions were right. */
int bb_ngrams_guess(const bb_ngrams *g, const uint8_t *end, int64_t length, double *rate);
/* Records that *end followed the `length` bytes before it. */
void bb_ngrams_learn(bb_ngrams *g, const uint8_t *end, int64_t length);

#endif
