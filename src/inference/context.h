// SPDX-License-Identifier: MIT
/* The text so far, and the KV cache of its newest bytes, of constant size.
 * Positions count bytes from the beginning of the text, those that are forgotten included. */
#ifndef BB_INFERENCE_CONTEXT_H
#define BB_INFERENCE_CONTEXT_H

#include "model/forward.h"

enum {
    BB_CONTEXT_ROWS = 16,        /* logits that one pass can give */
    BB_CONTEXT_PIECE = 512,      /* bytes that one pass reads at most */
    BB_CONTEXT_MEMORY = 1 << 17, /* bytes of text that are kept at least, however small the window */
    BB_CONTEXT_MAX_LENGTH = 1 << 24
};

/* Where a context was, to come back to. */
typedef struct bb_context_mark {
    uint8_t *text; /* (end - base), NULL: no mark */
    int64_t base, end, first, cached, logits_at, restarts;
    float *logits; /* (V) */
} bb_context_mark;

typedef struct bb_context {
    bb_model *model;
    bb_kv_cache cache; /* of the bytes at first .. first + cache.length - 1; what follows up to `end` is unread */
    uint8_t *text;     /* (2 * memory): the bytes at base .. end - 1 */
    int64_t memory;    /* bytes of text that are always there, where there are as many */
    int64_t base, end; /* the oldest byte kept, and where the next one goes */
    int64_t first;     /* the window: position 0 of the cache */
    float *logits;     /* (BB_CONTEXT_ROWS,V): of the last read */
    int64_t logits_at; /* the byte that they predict, where there is one row of them; -1: none, or several rows */
    int64_t restarts;  /* how often the window was full and slid */
    bb_context_mark mark;
    bool (*on_read)(void *user, int64_t done,
                    int64_t total); /* NULL, or called after each piece of a long read; false ends it */
    void *user;
} bb_context;

/* capacity: bytes of the window, 1 .. BB_CONTEXT_MAX_LENGTH. */
bb_status bb_context_open(bb_model *model, int64_t capacity, bb_kv_type type, bb_context *out, bb_error *err);
void bb_context_close(bb_context *c);

/* The byte at a position, base <= position < end, and those after it. Until the next append. */
static inline const uint8_t *bb_context_at(const bb_context *c, int64_t position) { return c->text + (position - c->base); }
/* Bytes that can be read without the window sliding. */
int64_t bb_context_room(const bb_context *c);
/* Puts bytes at the end of the text, unread. */
void bb_context_append(bb_context *c, const uint8_t *bytes, int64_t n);
/* Forgets the text from position `end` on (base <= end <= c->end), and the mark if it lies after that. */
void bb_context_cut(bb_context *c, int64_t end);
/* Makes c's text that of another context followed by `count` more bytes, none of them read; what c has read of it stays read.
 * They are known to be the same before position `same`. Returns up to where they are the same now. */
int64_t bb_context_follow(bb_context *c, const bb_context *other, int64_t same, const uint8_t *bytes, int64_t count);
/* Reads what is unread. The logits after the last `rows` bytes are then in c->logits, in order; more than one row only of bytes
 * that were unread, rows <= BB_CONTEXT_ROWS, and only where all that is unread fits the window and one piece. Else, where the
 * window is full, its older part is dropped and the rest read again from position 0: after one more byte half a window is
 * left of it, after many up to three quarters, so that memory and positions stay in what training has seen. BB_ERR_INTERRUPTED:
 * on_read ended it; what was not read is no longer in the text. */
bb_status bb_context_read(bb_context *c, int rows, bb_error *err);
/* Remembers the present state; return goes back to it, reading again only if the window has slid since. */
bb_status bb_context_set_mark(bb_context *c, bb_error *err);
void bb_context_return(bb_context *c);
/* Forgets all text. */
void bb_context_clear(bb_context *c);

#endif
