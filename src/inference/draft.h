// SPDX-License-Identifier: MIT
/* Speculative decoding: draft tokens (bytes) come from n-grams of the text so far, or from a smaller model that draws with the
 * same random numbers; a cost model decides how many to verify in one pass.
 * Drafts never change the output: each is compared with the byte that the sampler draws. */
#ifndef BB_INFERENCE_DRAFT_H
#define BB_INFERENCE_DRAFT_H

#include "inference/context.h"
#include "inference/ngrams.h"
#include "inference/sampler.h"

enum {
    BB_DRAFT_LEVELS = 12, /* buckets of confidence */
    BB_DRAFT_MAX = BB_CONTEXT_ROWS - 1,
    BB_DRAFT_SIZES = 8 /* pass sizes in rows: 1, 2, 3, 4, 6, 8, 12, 16 */
};

/* Acceptance rate by bucket of confidence, exponentially decayed. */
typedef struct bb_draft_rates {
    double hits[BB_DRAFT_LEVELS], tries[BB_DRAFT_LEVELS];
} bb_draft_rates;

typedef struct bb_draft {
    bb_ngrams ngrams;
    int64_t learned; /* the n-grams have seen the text up to here */
    bb_draft_rates by_ngrams, by_model;

    bb_context reader;          /* the draft model's context; reader.model NULL: there is no draft model */
    int64_t same;               /* the reader's text equals the main context's at least up to here */
    double acceptance_estimate; /* of the draft model, exponentially decayed */
    double draft_seconds;       /* per token of the draft model; 0: unknown */
    bool used_model;            /* for the latest drafts */
    double last_draft_seconds;  /* of its latest token, with the text that it had to read first */
    double seconds_since_draft; /* in passes of the main model since then */

    int64_t guessed_at; /* position of the first of the latest drafts */
    int guesses;
    uint8_t guessed[BB_DRAFT_MAX];
    int model_byte[BB_DRAFT_MAX], model_level[BB_DRAFT_MAX]; /* the draft model's byte, -1: not used; its bucket */

    double seconds;                   /* of a pass over one row; 0: unknown */
    double pass_cost[BB_DRAFT_SIZES]; /* time of a pass of each size beyond that of one row, relative to it */
    bool timed[BB_DRAFT_SIZES];       /* measured; else extrapolated from a smaller size */
    int singles;                      /* passes over one row that `seconds` is estimated from */

    double gained, spent; /* bytes that drafting passes produced, and their time in units of one-row passes, decayed */
    int resting, rest;    /* bytes left without drafts, and the length of the next such rest */
} bb_draft;

/* What drafts are for: the draws from number `index` on. */
typedef struct bb_draft_request {
    const bb_sampler *sampler;
    const int32_t *seen; /* (V), as in bb_sampler_draw */
    uint64_t index;
    int64_t max; /* bytes; BB_DRAFT_MAX is another limit */
    bool always; /* as many as are likely enough, whatever a pass costs; else as many as are worth verifying in one pass */
} bb_draft_request;

/* model: the draft model, or NULL. capacity: bytes of its window. */
bb_status bb_draft_open(bb_model *model, int64_t capacity, bb_draft *out, bb_error *err);
void bb_draft_close(bb_draft *d);
/* Call after any change of the text other than push. */
void bb_draft_reset(bb_draft *d, const bb_context *c);
/* The byte before c->end is new: updates the statistics. */
void bb_draft_push(bb_draft *d, const bb_context *c);
/* Drafts bytes into `out` (BB_DRAFT_MAX). */
bb_status bb_draft_guess(bb_draft *d, const bb_context *c, const bb_draft_request *request, uint8_t *out, int *count,
                         bb_error *err);
/* Reports a pass: its rows (one, or the drafts and the byte before them), the bytes that it produced, and its time. */
void bb_draft_timed(bb_draft *d, int rows, int64_t bytes, double seconds);

#endif
