/* Guessing the next bytes from the text itself (prompt lookup): where the last bytes stood before, what followed then is likely
 * to follow again. And how many guesses are worth reading in one pass.
 * Nothing here changes what is written: every guess is compared with the byte that the sampler draws.
 * SPDX-License-Identifier: MIT */
#ifndef BB_INFERENCE_DRAFT_H
#define BB_INFERENCE_DRAFT_H

#include "inference/context.h"

enum {
    BB_DRAFT_NGRAM = 5,        /* fewest bytes that must agree */
    BB_DRAFT_MEMORY = 1 << 16, /* places that are found again, the newest; a power of two */
    BB_DRAFT_HASHES = 1 << 15, /* a power of two */
    BB_DRAFT_BUCKETS = 6,      /* lengths of agreement that are told apart */
    BB_DRAFT_MAX = BB_CONTEXT_ROWS - 1,
    BB_DRAFT_SIZES = 5 /* rows of a pass that are considered: 1, 2, 4, 8, 16 */
};

typedef struct bb_draft {
    int64_t *newest;   /* (BB_DRAFT_HASHES): the last place after an n-gram of this hash, 0: none */
    int64_t *previous; /* (BB_DRAFT_MEMORY): by place, the one before it of the same hash */
    int64_t source;    /* the byte here is the guess for the next one; -1: none */
    int64_t agree;     /* bytes before `source` that equal the text's last */
    double hits[BB_DRAFT_BUCKETS], tries[BB_DRAFT_BUCKETS]; /* of guesses, whether they were read ahead or not, fading */
    double seconds;                                         /* that a pass over one byte takes; 0: not known */
    double excess[BB_DRAFT_SIZES];                          /* what a pass of each size takes above that, as a share of it */
    bool timed[BB_DRAFT_SIZES];                             /* by a pass; else by the size before it */
} bb_draft;

bb_status bb_draft_open(bb_draft *out, bb_error *err);
void bb_draft_close(bb_draft *d);
/* The text was changed other than by push: everything is found anew. */
void bb_draft_reset(bb_draft *d, const bb_context *c);
/* The text's last byte, before `end`, is new: counts whether it was the guess, and finds the next one. */
void bb_draft_push(bb_draft *d, const bb_context *c);
/* Bytes guessed to come next, at most min(most, BB_DRAFT_MAX): as many as should be read ahead now, or with `always` as many as
 * agreed before. */
int bb_draft_guess(const bb_draft *d, const bb_context *c, int64_t most, bool always, uint8_t out[BB_DRAFT_MAX]);
/* A pass over one byte, or over all that was guessed and the byte before it, took this long. */
void bb_draft_timed(bb_draft *d, int rows, double seconds);

#endif
