// SPDX-License-Identifier: MIT
/* The decode loop. A bb_decode continues one text: it drafts, draws, checks for stop texts and reports bytes. bb_decode_step
 * runs one pass of the model for many of them; sessions and batches are built on it. The output for a text does not depend on
 * the other texts. */
#ifndef BB_INFERENCE_DECODE_H
#define BB_INFERENCE_DECODE_H

#include "inference/draft.h"
#include "inference/stop.h"

/* Optional requests of a caller besides bytes; see bb_batch_request. */
typedef struct bb_decode_hooks {
    bool (*on_byte)(void *user, const bb_batch_byte *byte); /* NULL: options->on_byte */
    void (*on_logits)(void *user, float *logits);
    void *user;
    int top; /* number of candidates reported per byte */
    bool prompt_logprobs;
    double *hidden_sum; /* (C): accumulates the hidden states of the prompt; NULL: not wanted */
} bb_decode_hooks;

/* What is kept of a drawn byte until it is shown. */
typedef struct bb_decode_record bb_decode_record;

typedef struct bb_decode {
    bb_context *context;
    bb_draft *draft; /* NULL: no drafts */
    const bb_generate_options *options;
    bb_decode_hooks hooks;
    bb_sampler sampler;
    bb_stop stop;
    int32_t seen[BB_SAMPLER_MAX_VOCAB]; /* how often each byte occurs among the last repetition_window bytes */
    uint64_t drawn;                     /* index of the next draw */
    int64_t prompt_end, reported;       /* positions: of the first drawn byte; of the next byte of the prompt to report */
    int64_t shown;                      /* text before this position was passed to on_byte */
    double begin, logprobs;
    bool reads_prompt;  /* the prompt is read, and timed, in decode steps */
    bool reading;       /* a read is in progress */
    bool waits;         /* excluded from the next step */
    bool over, refused; /* over: ended; refused: ended by a callback */
    bool interrupted;   /* ended by the context's on_read */
    bb_status status;   /* the error that ended it, if it failed */
    bb_error error;     /* message of a failure or an interruption */
    /* state of the current pass */
    int64_t at;
    int guesses;
    bool slides, later;
    bb_decode_record *records; /* (record_count), indexed by position; NULL without hooks.on_byte */
    bb_candidate *tops;        /* (record_count + 1, top) */
    int64_t record_count;
    bb_generate_metrics m;
} bb_decode;

bb_status bb_decode_check(const bb_generate_options *options, const bb_sampler *sampler, bb_error *err);
/* The context holds the text so far, read or unread; an empty one begins with a newline. options, draft (may be NULL), the
 * targets of hooks and the stop texts must outlive *d. first_draw: index of the first draw. */
bb_status bb_decode_open(bb_context *c, bb_draft *draft, const bb_generate_options *options, const bb_decode_hooks *hooks,
                         uint64_t first_draw, bb_decode *d, bb_error *err);
/* Shows the bytes held back, if the generation ended well, and truncates the text after the last byte shown. */
void bb_decode_close(bb_decode *d, bool good);

/* Memory for passes over up to `count` texts. */
typedef struct bb_pass {
    bb_model *model;
    int count;
    bb_cached_rows *pieces; /* (count) */
    bb_decode **members;    /* (count) */
    float *logits;          /* (BB_CONTEXT_PIECE, V); NULL until the logprobs of a prompt are requested */
    float *hidden;          /* (BB_CONTEXT_PIECE, C); NULL until hidden states are requested */
} bb_pass;

enum { BB_PASS_MAX = 256 };
/* count: at most BB_PASS_MAX. Reserves the model's workspace. */
bb_status bb_pass_open(bb_model *model, int count, bb_pass *out, bb_error *err);
void bb_pass_close(bb_pass *pass);

/* Runs one pass for the texts that are neither over nor excluded: each one that has been read draws, and one piece of a prompt
 * or window is read, or several short ones. A text that fails is over, and has a status; if a pass fails, each text is tried
 * alone. count: at most pass->count. */
void bb_decode_step(bb_pass *pass, bb_decode *const *decodes, int count);

#endif
