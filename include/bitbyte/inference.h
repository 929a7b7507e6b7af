// SPDX-License-Identifier: MIT
/* Uses of a trained model: evaluation, generation, batches of many texts, scores. */
#ifndef BITBYTE_INFERENCE_H
#define BITBYTE_INFERENCE_H

#include "model.h"

/* ---- Evaluation ---------------------------------------------------------------------------------------------------------- */

/* Storage of the KV cache: 6 or 8 bits with one scale per position and head, or f32. */
typedef enum bb_kv_type { BB_KV_INT6 = 0, BB_KV_INT8, BB_KV_F32 } bb_kv_type;

typedef struct bb_eval_options {
    size_t struct_size;
    int seq_len, batch_size;
    bool sliding;        /* windows overlap: each byte has at least seq_len / 2 bytes of context, except at the start */
    bool cached;         /* evaluate through a KV cache, a few bytes at a time, as generation does; much slower */
    bb_kv_type kv_cache; /* used with `cached` */
    int64_t max_batches; /* 0: all data */
    void (*on_progress)(void *user, int64_t bytes_done, int64_t bytes_total, double bpb_so_far); /* total 0: unknown */
    void *user;
    const volatile int *stop;
} bb_eval_options;
typedef struct bb_eval_result {
    double bpb, loss, seconds;
    int64_t bytes, files; /* bytes scored */
    /* Pattern of the files scored in a directory: "val_*.bin" or "shard_*.bin"; NULL: not a directory. */
    const char *pattern;
} bb_eval_result;
BB_OPTIONS(bb_eval_options);
/* data: a directory (its val_*.bin, else its shard_*.bin), a glob, or input for bb_read_text. Scores every byte once, except
 * the first of each file. */
BB_API bb_status bb_evaluate(bb_model *model, const char *data, const bb_eval_options *options, bb_eval_result *result,
                             bb_error *err);

/* ---- Generation ---------------------------------------------------------------------------------------------------------- */

/* Speculative decoding: drafts bytes from the text or with a draft model, and verifies several in one pass. Same output. */
typedef enum bb_speculate {
    BB_SPECULATE_OFF = 0,
    BB_SPECULATE_AUTO,  /* adapts the number of draft bytes to the measured acceptance and cost; may be 0 */
    BB_SPECULATE_ALWAYS /* drafts even if slower */
} bb_speculate;

typedef struct bb_generate_options {
    size_t struct_size;
    int64_t max_new_bytes;
    /* Sampling, applied in this order. */
    /* 1: off. For bytes among the last repetition_window of the text, prompt included: positive logits are divided by it,
     * negative ones multiplied. */
    double repetition_penalty;
    int repetition_window; /* 1..65536 */
    double temperature;    /* divides the logits; 0: greedy, and the options below have no effect */
    int top_k;             /* keep the k most likely bytes; 0: off */
    double top_p;          /* keep the smallest set of most likely bytes with at least this probability; 1: off */
    double min_p;          /* keep bytes with at least this fraction of the highest probability; 0: off */
    uint64_t seed;         /* draw i depends only on (seed, i) and the logits */
    /* Generation ends when its output ends with one of these (the longest that matches), which is not part of the output. Bytes
     * that may begin one are held back until decided. */
    const bb_bytes *stops;
    int stop_count;
    bb_speculate speculate;
    int context_length; /* this and the next two members: see bb_session_options; a session's own apply in it, a batch's draft */
    bb_kv_type kv_cache;
    bb_model *draft;
    /* Called for each new byte; return false to stop after it. */
    bool (*on_byte)(void *user, uint8_t byte);
    void *user;
} bb_generate_options;
typedef struct bb_generate_metrics {
    int64_t prompt_bytes, new_bytes; /* new_bytes includes those of a stop text */
    int64_t context_restarts;        /* times that the full context dropped its older half */
    int stop;                        /* index of the stop text that ended generation; -1: none */
    int64_t passes;                  /* forward passes after the prompt */
    int64_t drafted, accepted;       /* draft bytes verified; those accepted */
    double prompt_seconds, decode_seconds, first_byte_seconds;
    double mean_logprob; /* mean log probability of the new bytes under the unmodified distribution, in nats */
} bb_generate_metrics;
BB_OPTIONS(bb_generate_options);

/* A growing text, fed and generated, with a KV cache of its last bytes. When the context is full, the older half is dropped
 * and the newer half is read again from position 0. If a feed does not fit, only its last bytes are read, up to 3/4 of the
 * context. A model may have several sessions; use one at a time. */
typedef struct bb_session bb_session;
typedef struct bb_session_options {
    size_t struct_size;
    int context_length; /* context window in bytes; 0: the model's trained length */
    bb_kv_type kv_cache;
    /* NULL, or a smaller model on any device, trained on similar text, which drafts bytes. It must outlive the session, and is
     * used whenever the session is. */
    bb_model *draft;
    /* May be NULL. Called while a long prompt is read; false cancels (BB_ERR_INTERRUPTED) and keeps what was read. */
    bool (*on_read)(void *user, int64_t done, int64_t total);
    void *user;
} bb_session_options;
BB_OPTIONS(bb_session_options);
BB_API bb_status bb_session_open(bb_model *model, const bb_session_options *options, bb_session **out, bb_error *err);
BB_API void bb_session_close(bb_session *session);
/* Appends bytes to the text and reads them; count may be 0. */
BB_API bb_status bb_session_feed(bb_session *session, const uint8_t *bytes, size_t count, bb_error *err);
/* Continues the text; an empty text starts as if after a newline. metrics (may be NULL): prompt_* count what was fed since the
 * session was opened or last generated. */
BB_API bb_status bb_session_generate(bb_session *session, const bb_generate_options *options, bb_generate_metrics *metrics,
                                     bb_error *err);
/* Returns the length of the text in bytes, including bytes dropped from the context. */
BB_API int64_t bb_session_length(const bb_session *session);
/* mark saves the current end of the text and replaces an earlier mark. rewind, any number of times, drops everything after it.
 * It is nearly free unless the context has been full since the mark; then the marked context is read again. */
BB_API bb_status bb_session_mark(bb_session *session, bb_error *err);
BB_API bb_status bb_session_rewind(bb_session *session, bb_error *err);
/* Empties the text and removes the mark. */
BB_API void bb_session_clear(bb_session *session);

/* Opens a session, feeds the prompt (length may be 0), generates, closes. */
BB_API bb_status bb_generate(bb_model *model, const uint8_t *prompt, size_t prompt_length, const bb_generate_options *options,
                             bb_generate_metrics *metrics, bb_error *err);

/* ---- Many texts at once -------------------------------------------------------------------------------------------------- */

/* Continues many texts together, one byte or more of each in a pass of the model. Requests join and leave between steps. Each
 * gets the same bytes and logprobs, bit for bit, as it would get alone. Prompts are read in pieces between the bytes of the
 * other texts; a common prefix of a prompt and another text in memory is copied, not read again. Callbacks may add and cancel
 * requests. */
typedef struct bb_batch bb_batch;
typedef struct bb_batch_options {
    size_t struct_size;
    int max_sequences;    /* maximum texts in a pass, 1 to 256; further requests wait in order of arrival */
    int keep;             /* finished texts kept for prompts that begin with them, e.g. turns of a conversation */
    uint64_t cache_bytes; /* limit for all KV caches; requests that do not fit wait; 0: no limit */
    bb_model *draft;      /* see bb_session_options */
} bb_batch_options;
BB_OPTIONS(bb_batch_options); /* 16 sequences, 8 kept, no limit */
BB_API bb_status bb_batch_open(bb_model *model, const bb_batch_options *options, bb_batch **out, bb_error *err);
/* Drops all requests without calling callbacks. Must not be called from a callback. */
BB_API void bb_batch_close(bb_batch *batch);

typedef struct bb_candidate {
    uint8_t byte;
    double logprob; /* in nats, under the unmodified distribution */
} bb_candidate;
typedef struct bb_batch_byte {
    uint8_t byte;
    bool prompt;    /* the byte belongs to the prompt, see prompt_logprobs */
    double logprob; /* NAN for the first byte of a prompt, which has no prediction */
    const bb_candidate *top;
    int top_count; /* the likeliest bytes, in descending order */
} bb_batch_byte;

typedef enum bb_finish {
    BB_FINISH_LENGTH = 0, /* generated max_new_bytes */
    BB_FINISH_STOP,       /* reached a stop text; see metrics.stop */
    BB_FINISH_CALLER,     /* cancelled, or a callback returned false */
    BB_FINISH_ERROR       /* failed; see error */
} bb_finish;
typedef struct bb_batch_end {
    bb_finish finish;
    bb_generate_metrics metrics;
    int64_t shared_bytes;   /* bytes of the prompt that were copied from other texts */
    const float *embedding; /* (d_model): mean of the last hidden states over the prompt; NULL unless requested */
    const bb_error *error;  /* NULL unless finish is BB_FINISH_ERROR */
} bb_batch_end;

/* Callbacks run in bb_batch_step and may be NULL. */
typedef struct bb_batch_request {
    size_t struct_size;
    bb_bytes prompt;                    /* copied; may be empty */
    const bb_generate_options *options; /* copied, with its stop texts; draft and on_byte are not used */
    bool prompt_logprobs;               /* also report the prompt's bytes to on_byte; the prompt must fit the context */
    bool embed;                         /* compute an embedding; the prompt must fit the context */
    int top;                            /* number of candidates for on_byte, 0 to 256 */
    /* Called for each final byte; returning false ends the text after it. */
    bool (*on_byte)(void *user, const bb_batch_byte *byte);
    void (*on_logits)(void *user, float *logits);             /* (256): called before each draw; may change the logits */
    bool (*on_read)(void *user, int64_t done, int64_t total); /* see bb_session_options */
    void (*on_end)(void *user, const bb_batch_end *end);      /* called once, as the last callback */
    void *user;
} bb_batch_request;
BB_OPTIONS(bb_batch_request);
BB_API bb_status bb_batch_add(bb_batch *batch, const bb_batch_request *request, int64_t *id, bb_error *err);
/* Ends a request at the next step; unknown ids are ignored. */
BB_API void bb_batch_cancel(bb_batch *batch, int64_t id);
/* Runs one pass over all texts. *more: whether any requests are left. A text that fails ends with BB_FINISH_ERROR; the others
 * continue with the results that they would have had without it. */
BB_API bb_status bb_batch_step(bb_batch *batch, bool *more, bb_error *err);

typedef struct bb_batch_state {
    int active, waiting, kept; /* number of texts */
    uint64_t cache_bytes;      /* memory allocated for KV caches */
} bb_batch_state;
BB_API bb_batch_state bb_batch_get_state(const bb_batch *batch);

/* ---- Scoring ------------------------------------------------------------------------------------------------------------- */

/* How well a model predicts a text. bits / text.size is the bits per byte. */
typedef struct bb_score_text {
    bb_bytes context; /* text before it, not scored; empty: a newline */
    bb_bytes text;
    double bits;         /* result */
    float *byte_bits;    /* result: (text.size), or NULL */
    uint8_t *byte_ranks; /* result: (text.size), or NULL; number of bytes that the model considered likelier. Slower */
} bb_score_text;
typedef struct bb_score_options {
    size_t struct_size;
    /* Context length in bytes, at least 2; 0: the model's trained length, at most 2048. In longer texts each byte has at least
     * half of that as context. */
    int seq_len;
    void (*on_progress)(void *user, int64_t bytes_done, int64_t bytes_total); /* may be NULL */
    void *user;
    const volatile int *stop; /* may be NULL; nonzero: stop with BB_ERR_INTERRUPTED */
} bb_score_options;
BB_OPTIONS(bb_score_options);
/* Scores many texts at once; short ones share passes of the model. */
BB_API bb_status bb_score(bb_model *model, bb_score_text *texts, int64_t count, const bb_score_options *options, bb_error *err);

#endif
