// SPDX-License-Identifier: MIT
/* The decode loop. A bb_decode continues one text: it drafts, draws, watches for stop texts and reports bytes. bb_decode_step runs
 * one pass of the model for many of them; sessions and batches are built on it. What a text gets does not depend on the others. */
#ifndef BB_INFERENCE_DECODE_H
#define BB_INFERENCE_DECODE_H

#include "inference/draft.h"
#include "inference/stop.h"

/* What a caller may ask for besides bytes. All optional; see bb_batch_request. */
typedef struct bb_decode_hooks {
    bool (*on_byte)(void *user, const bb_batch_byte *byte); /* NULL: options->on_byte */
    void (*on_logits)(void *user, float *logits);
    void *user;
    int top; /* candidates per byte */
    bool prompt_logprobs;
    double *hidden_sum; /* (C): the sum of the prompt's hidden states is added; NULL: none */
} bb_decode_hooks;

/* What is remembered of a drawn byte until it is shown. */
typedef struct bb_decode_record bb_decode_record;

typedef struct bb_decode {
    bb_context *context;
    bb_draft *draft; /* NULL: no drafts */
    const bb_generate_options *options;
    bb_decode_hooks hooks;
    bb_sampler sampler;
    bb_stop stop;
    int32_t seen[BB_SAMPLER_MAX_VOCAB]; /* counts among the last repetition_window bytes */
    uint64_t drawn;                     /* number of the next draw */
    int64_t prompt_end, reported;       /* positions: where drawing begins; the next byte of the prompt to report */
    int64_t shown;                      /* text up to here went to on_byte */
    double begin, logprobs;
    bool reads_prompt;  /* the prompt is read, and timed, by the steps */
    bool reading;       /* pieces of a read are left */
    bool waits;         /* the next step leaves it out */
    bool over, refused; /* ended; ended by a callback */
    bool interrupted;   /* by the context's on_read */
    bb_status status;   /* why it ended, if it failed */
    bb_error error;     /* of a failure, or an interruption */
    /* the pass that is under way */
    int64_t at;
    int guesses;
    bool slides, later;
    bb_decode_record *records; /* (record_count), by position; NULL without hooks.on_byte */
    bb_candidate *tops;        /* (record_count + 1, top) */
    int64_t record_count;
    bb_generate_metrics m;
} bb_decode;

bb_status bb_decode_check(const bb_generate_options *options, const bb_sampler *sampler, bb_error *err);
/* The context holds the text so far, read or not; an empty one begins with a newline. options, draft (may be NULL), hooks' targets
 * and the stop texts must outlive *d. first_draw: number of the first draw. */
bb_status bb_decode_open(bb_context *c, bb_draft *draft, const bb_generate_options *options, const bb_decode_hooks *hooks,
                         uint64_t first_draw, bb_decode *d, bb_error *err);
/* Shows what is held back, if the generation ended well, and cuts the text after what was shown. */
void bb_decode_close(bb_decode *d, bool good);

/* Memory of passes over up to `count` texts. */
typedef struct bb_pass {
    bb_model *model;
    int count;
    bb_cached_rows *pieces; /* (count) */
    bb_decode **members;    /* (count) */
    float *logits;          /* (BB_CONTEXT_PIECE, V); NULL until a prompt's logprobs are wanted */
    float *hidden;          /* (BB_CONTEXT_PIECE, C); likewise */
} bb_pass;

enum { BB_PASS_MAX = 256 };
/* count: at most BB_PASS_MAX. Reserves the model's workspace. */
bb_status bb_pass_open(bb_model *model, int count, bb_pass *out, bb_error *err);
void bb_pass_close(bb_pass *pass);

/* One pass for those that are neither over nor waiting: each that has been read draws, and one piece of a prompt or a window is
 * read, or several short ones. One that fails is over, and has a status; if a pass fails, each text is tried alone. count: at most
 * pass->count. */
void bb_decode_step(bb_pass *pass, bb_decode *const *decodes, int count);

#endif
