// SPDX-License-Identifier: MIT
/* The text so far, and a KV cache of constant size over its newest bytes.
 * Positions count bytes from the beginning of the text, including bytes that were dropped. */
#ifndef BB_INFERENCE_CONTEXT_H
#define BB_INFERENCE_CONTEXT_H

#include "model/forward.h"

enum {
    BB_CONTEXT_ROWS = 16,        /* maximum rows of logits of one pass */
    BB_CONTEXT_PIECE = 256,      /* maximum bytes of one pass; pieces end at multiples of it in the window */
    BB_CONTEXT_MEMORY = 1 << 17, /* minimum bytes of text kept, however small the window */
    BB_CONTEXT_MAX_LENGTH = 1 << 24
};

/* A saved state of a context. */
typedef struct bb_context_mark {
    uint8_t *text; /* (end - base); NULL: no mark */
    int64_t base, end, first, cached, logits_at, restarts;
    float *logits; /* (V) */
} bb_context_mark;

typedef struct bb_context {
    bb_model *model;
    bb_kv_cache cache; /* covers bytes first .. first + cache.length - 1; bytes from there to `end` are unread */
    uint8_t *text;     /* (2 * memory): the bytes at base .. end - 1 */
    int64_t memory;    /* minimum bytes of text that are kept */
    int64_t base, end; /* positions of the oldest byte kept and of the next byte */
    int64_t first;     /* position of the first byte of the window, which is position 0 of the cache */
    float *logits;     /* (BB_CONTEXT_ROWS,V): logits of the latest read */
    int64_t logits_at; /* position that a single row of logits predicts; -1: none, or several rows */
    int rows;          /* rows of logits requested from the current read */
    int64_t to_read;   /* bytes of the current read; 0: none */
    int64_t restarts;  /* number of times that the full window slid */
    bb_context_mark mark;
    bool (*on_read)(void *user, int64_t done,
                    int64_t total); /* may be NULL; called after each piece of a long read; false stops the read */
    void *user;
} bb_context;

/* capacity: bytes of the window, 1 .. BB_CONTEXT_MAX_LENGTH. */
bb_status bb_context_open(bb_model *model, int64_t capacity, bb_kv_type type, bb_context *out, bb_error *err);
void bb_context_close(bb_context *c);

/* Returns the bytes from a position on; base <= position < end. Valid until the next append. */
static inline const uint8_t *bb_context_at(const bb_context *c, int64_t position) { return c->text + (position - c->base); }
/* Returns how many bytes can be read before the window slides. */
int64_t bb_context_free(const bb_context *c);
/* Appends bytes to the text, unread. */
void bb_context_append(bb_context *c, const uint8_t *bytes, int64_t n);
/* Truncates the text at position `end` (base <= end <= c->end); drops a mark beyond it. */
void bb_context_cut(bb_context *c, int64_t end);
/* Sets the text of c to another context's text followed by `count` more bytes, unread; the common prefix stays read. The texts
 * must agree before position `same`. Returns the position up to which they agree now. */
int64_t bb_context_follow(bb_context *c, const bb_context *other, int64_t same, const uint8_t *bytes, int64_t count);
/* Read all unread bytes, in pieces of one pass each: call begin; then, while next returns a piece, run a pass over it and call
 * advance. Afterwards the logits of the last `rows` bytes are in c->logits, in order. rows > 1 requires that all unread bytes get
 * logits, that they fit the window, and that there are at most BB_CONTEXT_ROWS, unless the piece gets other memory for its
 * logits. A full window slides: its older part is dropped and the rest is read again from position 0. Half a window stays after
 * one more byte, up to three quarters after many, so that positions stay within the range seen in training. */
void bb_context_begin(bb_context *c, int rows);
/* Returns false when everything has been read. */
bool bb_context_next(bb_context *c, bb_cached_rows *piece);
/* BB_ERR_INTERRUPTED: on_read stopped the read; unread bytes are removed from the text. */
bb_status bb_context_advance(bb_context *c, const bb_cached_rows *piece, bb_error *err);
/* Performs a whole read: begin, all pieces, advance. */
bb_status bb_context_read(bb_context *c, int rows, bb_error *err);
/* Saves the current state. bb_context_return restores it, and reads again only if the window has slid since. */
bb_status bb_context_set_mark(bb_context *c, bb_error *err);
void bb_context_return(bb_context *c);
/* Drops all text. */
void bb_context_clear(bb_context *c);

#endif
