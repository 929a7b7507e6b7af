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
    int64_t learned; /* the n-grams have learned the text up to this position */
    bb_draft_rates by_ngrams, by_model;

    bb_context reader;          /* the draft model's context; reader.model is NULL without a draft model */
    int64_t same;               /* the reader's text equals the main context's at least up to this position */
    double acceptance_estimate; /* acceptance rate of the draft model, exponentially decayed */
    double draft_seconds;       /* per draft token; 0: unknown */
    bool used_model;            /* the latest drafts used the draft model */
    double last_draft_seconds;  /* time of its latest token, including the text that it had to read first */
    double seconds_since_draft; /* time of the main model's passes since then */

    int64_t guessed_at; /* position of the first of the latest drafts */
    int guesses;
    uint8_t guessed[BB_DRAFT_MAX];
    int model_byte[BB_DRAFT_MAX], model_level[BB_DRAFT_MAX]; /* the draft model's byte, -1: not used; its bucket */

    double seconds;                   /* time of a pass over one row; 0: unknown */
    double pass_cost[BB_DRAFT_SIZES]; /* time of a pass of each size beyond that of one row, relative to it */
    bool timed[BB_DRAFT_SIZES];       /* measured; else extrapolated from a smaller size */
    int singles;                      /* number of one-row passes behind the estimate `seconds` */

    double gained, spent;  /* bytes that drafting passes produced, and their time in units of one-row passes, decayed */
    int pause_left, pause; /* bytes left without drafts, and the length of the next pause */
} bb_draft;

/* Describes the draws that drafts are for: those from index `index` on. */
typedef struct bb_draft_request {
    const bb_sampler *sampler;
    const int32_t *seen; /* (V), as in bb_sampler_draw */
    uint64_t index;
    int64_t max; /* maximum number of drafts, besides BB_DRAFT_MAX */
    bool always; /* draft all likely bytes, whatever a pass costs; else as many as are worth verifying in one pass */
} bb_draft_request;

/* model: the draft model, or NULL. capacity: bytes of its window. */
bb_status bb_draft_open(bb_model *model, int64_t capacity, bb_draft *out, bb_error *err);
void bb_draft_close(bb_draft *d);
/* Must be called after any change of the text other than push. */
void bb_draft_reset(bb_draft *d, const bb_context *c);
/* Updates the statistics with the new byte before c->end. */
void bb_draft_push(bb_draft *d, const bb_context *c);
/* Drafts bytes into `out` (BB_DRAFT_MAX). */
bb_status bb_draft_guess(bb_draft *d, const bb_context *c, const bb_draft_request *request, uint8_t *out, int *count,
                         bb_error *err);
/* Reports a pass: its rows (one, or the drafts and the byte before them), the bytes that it produced, and its time. */
void bb_draft_timed(bb_draft *d, int rows, int64_t bytes, double seconds);

#endif
