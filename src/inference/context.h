// SPDX-License-Identifier: MIT
/* The text so far, and a KV cache of constant size over its newest bytes.
 * Positions count bytes from the beginning of the text, including bytes that were dropped. */
#ifndef BB_INFERENCE_CONTEXT_H
#define BB_INFERENCE_CONTEXT_H

#include "model/forward.h"

enum {
    BB_CONTEXT_ROWS = 16,        /* most rows of logits of one pass */
    BB_CONTEXT_PIECE = 256,      /* most bytes of one pass; pieces end at multiples of it in the window */
    BB_CONTEXT_MEMORY = 1 << 17, /* least bytes of text kept, however small the window */
    BB_CONTEXT_MAX_LENGTH = 1 << 24
};

/* A saved state of a context. */
typedef struct bb_context_mark {
    uint8_t *text; /* (end - base), NULL: no mark */
    int64_t base, end, first, cached, logits_at, restarts;
    float *logits; /* (V) */
} bb_context_mark;

typedef struct bb_context {
    bb_model *model;
    bb_kv_cache cache; /* covers bytes first .. first + cache.length - 1; bytes from there to `end` are unread */
    uint8_t *text;     /* (2 * memory): the bytes at base .. end - 1 */
    int64_t memory;    /* bytes of text that are always kept */
    int64_t base, end; /* the oldest byte kept, and where the next one goes */
    int64_t first;     /* position of the window, which is position 0 of the cache */
    float *logits;     /* (BB_CONTEXT_ROWS,V): of the latest read */
    int64_t logits_at; /* position that a single row of logits predicts; -1: none, or several rows */
    int rows;          /* of logits that the read in progress is for */
    int64_t to_read;   /* bytes of the read in progress; 0: none */
    int64_t restarts;  /* times that the full window slid */
    bb_context_mark mark;
    bool (*on_read)(void *user, int64_t done,
                    int64_t total); /* NULL, or called after each piece of a long read; false ends it */
    void *user;
} bb_context;

/* capacity: bytes of the window, 1 .. BB_CONTEXT_MAX_LENGTH. */
bb_status bb_context_open(bb_model *model, int64_t capacity, bb_kv_type type, bb_context *out, bb_error *err);
void bb_context_close(bb_context *c);

/* Bytes from a position on, base <= position < end. Valid until the next append. */
static inline const uint8_t *bb_context_at(const bb_context *c, int64_t position) { return c->text + (position - c->base); }
/* Bytes that can be read without the window sliding. */
int64_t bb_context_free(const bb_context *c);
/* Appends bytes to the text, unread. */
void bb_context_append(bb_context *c, const uint8_t *bytes, int64_t n);
/* Truncates the text at position `end` (base <= end <= c->end); drops a mark beyond it. */
void bb_context_cut(bb_context *c, int64_t end);
/* Sets c's text to another context's text followed by `count` more bytes, unread; the common prefix stays read. The texts are
 * known to agree before position `same`. Returns the position up to which they agree now. */
int64_t bb_context_follow(bb_context *c, const bb_context *other, int64_t same, const uint8_t *bytes, int64_t count);
/* Reading all unread bytes, in pieces, one a pass: begin; then, while next gives a piece, a pass over it and took. The logits
 * after the last `rows` bytes are then in c->logits, in order. rows > 1: all unread, only where the
 * unread bytes fit the window, and at most BB_CONTEXT_ROWS, unless the piece is given other memory for its logits. A full window slides: its older part is dropped and the rest is read again from position 0. Half a
 * window stays after one more byte, up to three quarters after many, so that positions stay within what training has seen. */
void bb_context_begin(bb_context *c, int rows);
/* False: everything has been read. */
bool bb_context_next(bb_context *c, bb_cached_rows *piece);
/* BB_ERR_INTERRUPTED: on_read stopped it; bytes that were not read are removed from the text. */
bb_status bb_context_took(bb_context *c, const bb_cached_rows *piece, bb_error *err);
/* All of that, alone. */
bb_status bb_context_read(bb_context *c, int rows, bb_error *err);
/* Saves the current state; return restores it, and reads again only if the window has slid since. */
bb_status bb_context_set_mark(bb_context *c, bb_error *err);
void bb_context_return(bb_context *c);
/* Drops all text. */
void bb_context_clear(bb_context *c);

#endif
