// SPDX-License-Identifier: MIT
/* Guessing the next bytes: from what stood in the text before, or by a smaller model that draws with the same random numbers.
 * And how many guesses are worth reading in one pass.
 * Nothing here changes what is written: every guess is compared with the byte that the sampler draws. */
#ifndef BB_INFERENCE_DRAFT_H
#define BB_INFERENCE_DRAFT_H

#include "inference/context.h"
#include "inference/ngrams.h"
#include "inference/sampler.h"

enum {
    BB_DRAFT_LEVELS = 12, /* of confidence that are told apart */
    BB_DRAFT_MAX = BB_CONTEXT_ROWS - 1,
    BB_DRAFT_SIZES = 8 /* rows of a pass that are considered: 1, 2, 3, 4, 6, 8, 12, 16 */
};

/* How often guesses were right by how sure they were, fading. */
typedef struct bb_draft_rates {
    double hits[BB_DRAFT_LEVELS], tries[BB_DRAFT_LEVELS];
} bb_draft_rates;

typedef struct bb_draft {
    bb_ngrams ngrams;
    int64_t learned; /* the n-grams know the text before it */
    bb_draft_rates by_ngrams, by_model;

    bb_context reader;     /* the draft model's, of the same text; reader.model NULL: there is none */
    int64_t same;          /* its text is the other's up to here, at least */
    double right;          /* share of all its guesses, fading */
    double ask_seconds;    /* that one of them takes; 0: not known */
    bool asked;            /* for the last guesses */
    double last_ask, idle; /* seconds: of the last one with what had to be read before it; of passes since then */

    int64_t guessed_at; /* the place of the first of the last guesses */
    int guesses;
    uint8_t guessed[BB_DRAFT_MAX];
    int model_byte[BB_DRAFT_MAX], model_level[BB_DRAFT_MAX]; /* the draft model's; -1: it was not asked */

    double seconds;                /* that a pass over one byte takes; 0: not known */
    double excess[BB_DRAFT_SIZES]; /* what a pass of each size takes above that, as a share of it */
    bool timed[BB_DRAFT_SIZES];    /* by a pass; else by a size below it */
    int singles;                   /* passes over one byte that `seconds` is made of */

    double gained, taken; /* bytes of the passes that guessing was a part of, and their time in passes over one byte, fading */
    int resting, rest;    /* bytes for which nothing is guessed, and for how many next time that it does not pay */
} bb_draft;

/* What a guess is for: the draws from number `index` on. */
typedef struct bb_draft_draws {
    const bb_sampler *sampler;
    const int32_t *seen; /* (V), as in bb_sampler_draw */
    uint64_t index;
} bb_draft_draws;

/* model: NULL, or what guesses, over the bytes that `model` is for, seen through a window of at most `capacity`. */
bb_status bb_draft_open(bb_model *model, int64_t capacity, bb_draft *out, bb_error *err);
void bb_draft_close(bb_draft *d);
/* The text was changed other than by push. */
void bb_draft_reset(bb_draft *d, const bb_context *c);
/* The text's last byte, before `end`, is new: counts whether it was the guess. */
void bb_draft_push(bb_draft *d, const bb_context *c);
/* Bytes guessed to come next, at most min(most, BB_DRAFT_MAX), into `out`: as many as should be read ahead now, or with
 * `always` as many as are likelier than not to be of use to somebody to whom passes cost nothing. */
bb_status bb_draft_guess(bb_draft *d, const bb_context *c, bb_draft_draws draws, int64_t most, bool always, uint8_t *out,
                         int *count, bb_error *err);
/* A pass over one byte, or over all that was guessed and the byte before it, took this long and gave so many bytes. */
void bb_draft_timed(bb_draft *d, int rows, int64_t bytes, double seconds);

#endif
