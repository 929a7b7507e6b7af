// SPDX-License-Identifier: MIT
/* What a trained model is used for: evaluation, generation, many texts at once, scores. */
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
    bb_kv_type kv_cache; /* with `cached` */
    int64_t max_batches; /* 0: all */
    void (*on_progress)(void *user, int64_t bytes_done, int64_t bytes_total, double bpb_so_far); /* total 0: unknown */
    void *user;
    const volatile int *stop;
} bb_eval_options;
typedef struct bb_eval_result {
    double bpb, loss, seconds;
    int64_t bytes, files; /* bytes scored */
    const char *pattern;  /* files scored in a directory: "val_*.bin" or "shard_*.bin"; NULL: not a directory */
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
    BB_SPECULATE_ALWAYS /* even if slower */
} bb_speculate;

typedef struct bb_generate_options {
    size_t struct_size;
    int64_t max_new_bytes;
    /* Sampling, applied in this order. */
    double repetition_penalty; /* 1: off. For bytes among the last repetition_window of the text, prompt included: positive
                                * logits are divided by it, negative ones multiplied */
    int repetition_window;     /* 1..65536 */
    double temperature;        /* divides the logits; 0: greedy, and the options below have no effect */
    int top_k;                 /* keep the k most likely bytes; 0: off */
    double top_p;              /* keep the smallest set of most likely bytes with at least this probability; 1: off */
    double min_p;              /* keep bytes with at least this fraction of the highest probability; 0: off */
    uint64_t seed;             /* draw i depends only on (seed, i) and the logits */
    /* Generation ends when its output ends with one of these (the longest that matches), which is not part of the output. Bytes
     * that may begin one are held back until decided. */
    const bb_bytes *stops;
    int stop_count;
    bb_speculate speculate;
    int context_length; /* these three: bb_generate only; see bb_session_options */
    bb_kv_type kv_cache;
    bb_model *draft;
    /* Called for each new byte; return false to stop after it. */
    bool (*on_byte)(void *user, uint8_t byte);
    void *user;
} bb_generate_options;
typedef struct bb_generate_metrics {
    int64_t prompt_bytes, new_bytes; /* new_bytes includes those of a stop text */
    int64_t context_restarts;        /* times that the context was full and its older half dropped */
    int stop;                        /* index of the stop text that ended generation; -1: none */
    int64_t passes;                  /* forward passes after the prompt */
    int64_t drafted, accepted;       /* draft bytes verified; those accepted */
    double prompt_seconds, decode_seconds, first_byte_seconds;
    double mean_logprob; /* of the new bytes under the unmodified distribution, in nats */
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
     * in use whenever the session is. */
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
/* Continues the text, or starts one as if after a newline. metrics (may be NULL): prompt_* count what was fed since the session
 * was opened or last generated. */
BB_API bb_status bb_session_generate(bb_session *session, const bb_generate_options *options, bb_generate_metrics *metrics,
                                     bb_error *err);
/* Length of the text in bytes, including bytes dropped from the context. */
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

/* Continues many texts together, one byte or more of each in a pass of the model. Requests join and leave between steps. Each gets
 * the bytes and logprobs that it would get alone, bit for bit. Prompts are read in pieces between the bytes of the other texts; a
 * beginning that a prompt shares with another text in memory is copied, not read again. Callbacks may add and cancel requests. */
typedef struct bb_batch bb_batch;
typedef struct bb_batch_options {
    size_t struct_size;
    int max_sequences;    /* texts in a pass, 1 to 256; further requests wait in the order in which they came */
    int keep;             /* texts kept after their end for prompts that begin with them, e.g. turns of a conversation */
    uint64_t cache_bytes; /* limit of all KV caches; what does not fit waits; 0: none */
    bb_model *draft;      /* see bb_session_options */
} bb_batch_options;
BB_OPTIONS(bb_batch_options); /* 16 sequences, 8 kept, no limit */
BB_API bb_status bb_batch_open(bb_model *model, const bb_batch_options *options, bb_batch **out, bb_error *err);
/* Drops all requests without a callback. Not from a callback. */
BB_API void bb_batch_close(bb_batch *batch);

typedef struct bb_candidate {
    uint8_t byte;
    double logprob; /* nats, under the unmodified distribution */
} bb_candidate;
typedef struct bb_batch_byte {
    uint8_t byte;
    bool prompt;    /* a byte of the prompt, see prompt_logprobs */
    double logprob; /* NAN for the first byte of a prompt, which nothing predicts */
    const bb_candidate *top;
    int top_count; /* the likeliest bytes, likeliest first */
} bb_batch_byte;

typedef enum bb_finish {
    BB_FINISH_LENGTH = 0, /* max_new_bytes were generated */
    BB_FINISH_STOP,       /* a stop text; see metrics.stop */
    BB_FINISH_CALLER,     /* cancelled, or a callback returned false */
    BB_FINISH_ERROR       /* see error */
} bb_finish;
typedef struct bb_batch_end {
    bb_finish finish;
    bb_generate_metrics metrics;
    int64_t shared_bytes;   /* of the prompt, copied from other texts */
    const float *embedding; /* (d_model): mean of the last hidden states over the prompt; NULL unless asked for */
    const bb_error *error;  /* NULL unless finish is BB_FINISH_ERROR */
} bb_batch_end;

/* Callbacks run in bb_batch_step and may be NULL. */
typedef struct bb_batch_request {
    size_t struct_size;
    bb_bytes prompt;                    /* copied; may be empty */
    const bb_generate_options *options; /* copied, with its stop texts; draft and on_byte are not used */
    bool prompt_logprobs;               /* report the prompt's bytes to on_byte too; it must fit the context */
    bool embed;                         /* compute an embedding; the prompt must fit the context */
    int top;                            /* number of candidates for on_byte, 0 to 256 */
    bool (*on_byte)(void *user, const bb_batch_byte *byte);   /* each byte that is final; false ends the text after it */
    void (*on_logits)(void *user, float *logits);             /* (256) before each draw: may change them */
    bool (*on_read)(void *user, int64_t done, int64_t total); /* see bb_session_options */
    void (*on_end)(void *user, const bb_batch_end *end);      /* called once, last */
    void *user;
} bb_batch_request;
BB_OPTIONS(bb_batch_request);
BB_API bb_status bb_batch_add(bb_batch *batch, const bb_batch_request *request, int64_t *id, bb_error *err);
/* Ends a request at the next step; unknown ids are ignored. */
BB_API void bb_batch_cancel(bb_batch *batch, int64_t id);
/* One pass over all texts. *more: whether any request is left. A text that fails ends with BB_FINISH_ERROR; the others go on, and get
 * what they would get without it. */
BB_API bb_status bb_batch_step(bb_batch *batch, bool *more, bb_error *err);

typedef struct bb_batch_state {
    int active, waiting, kept; /* texts */
    uint64_t cache_bytes;      /* allocated for KV caches */
} bb_batch_state;
BB_API bb_batch_state bb_batch_get_state(const bb_batch *batch);

/* ---- Scoring ------------------------------------------------------------------------------------------------------------- */

/* How well a model predicts a text: bits, which divided by its bytes are bits per byte. */
typedef struct bb_score_text {
    bb_bytes context; /* read before it, not scored; empty: a newline */
    bb_bytes text;
    double bits;         /* out */
    float *byte_bits;    /* out: (text.size), or NULL */
    uint8_t *byte_ranks; /* out: (text.size), or NULL; how many bytes the model thought likelier. Slower */
} bb_score_text;
typedef struct bb_score_options {
    size_t struct_size;
    int seq_len; /* bytes that the model sees at once, at least 2; 0: its trained length, at most 2048. In longer texts each byte
                  * has at least half of that before it */
    void (*on_progress)(void *user, int64_t bytes_done, int64_t bytes_total); /* may be NULL */
    void *user;
    const volatile int *stop; /* may be NULL; non-zero: stop with BB_ERR_INTERRUPTED */
} bb_score_options;
BB_OPTIONS(bb_score_options);
/* Scores many texts at once; short ones share passes of the model. */
BB_API bb_status bb_score(bb_model *model, bb_score_text *texts, int64_t count, const bb_score_options *options, bb_error *err);

#endif
