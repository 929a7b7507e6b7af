// SPDX-License-Identifier: MIT
#include "pieces.h"

#include <stdlib.h>
#include <string.h>

#include "../signals.h"

bb_status bb_score_pieces_open(const char *path, size_t context, bool lines, bb_score_pieces *out, bb_error *err) {
    *out = (bb_score_pieces){.context = context, .lines = lines};
    return bb_text_reader_open(path, bb_signals_stop(), &out->reader, err);
}

void bb_score_pieces_close(bb_score_pieces *p) {
    bb_text_reader_close(p->reader);
    free(p->bytes);
    *p = (bb_score_pieces){.reader = NULL};
}

/* Whether to score what there is: the last read brought less than was asked, as a pipe's does when it is empty afterwards, and a line ended
 * in it. Lines that do not depend on those before them can be scored in any portions. */
static bool is_portion(const bb_score_pieces *p, size_t read, size_t asked) {
    return read < asked && p->lines && p->context == 0 && memchr(p->bytes + p->held - read, '\n', read);
}

/* Reads until `size` bytes follow those before the piece, a pipe's whole lines are there, or the text ends. */
static bb_status fill(bb_score_pieces *p, size_t size, bb_error *err) {
    if (p->before + size > p->capacity) {
        char *larger = realloc(p->bytes, p->before + size);
        if (!larger) {
            err->code = BB_ERR_MEMORY;
            strcpy(err->message, "out of memory for the text");
            return BB_ERR_MEMORY;
        }
        p->bytes = larger;
        p->capacity = p->before + size;
    }
    bb_status status = BB_OK;
    while (status == BB_OK && !p->ended && p->held < p->before + size) {
        size_t n = 0, asked = p->before + size - p->held;
        status = bb_text_reader_read(p->reader, p->bytes + p->held, asked, &n, err);
        p->held += n;
        p->ended = n == 0;
        if (status == BB_OK && is_portion(p, n, asked)) break;
    }
    return status;
}

/* Returns the bytes up to the last line end, or all of the last piece; 0: no line end. */
static size_t whole_lines(const bb_score_pieces *p) {
    size_t size = p->held - p->before;
    if (p->ended || !p->lines) return size;
    const char *newline = memrchr(p->bytes + p->before, '\n', size);
    return newline ? (size_t)(newline - (p->bytes + p->before)) + 1 : 0;
}

bb_status bb_score_pieces_next(bb_score_pieces *p, bb_error *err) {
    size_t used = p->before + p->size, kept = used < p->context ? used : p->context;
    if (used) memmove(p->bytes, p->bytes + used - kept, p->held - used + kept);
    p->held -= used - kept;
    p->before = kept;
    bb_status status = BB_OK;
    size_t size = BB_SCORE_PIECE_BYTES;
    do {
        status = fill(p, size, err);
        p->size = status == BB_OK ? whole_lines(p) : 0;
        size *= 2;
    } while (status == BB_OK && p->size == 0 && !p->ended);
    return status;
}
