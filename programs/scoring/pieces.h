// SPDX-License-Identifier: MIT
/* Reads a text of any length in pieces, each with some of the bytes before it, in constant memory except for lines longer than
 * a piece. */
#ifndef BB_PROGRAMS_SCORING_PIECES_H
#define BB_PROGRAMS_SCORING_PIECES_H

#include "bitbyte.h"

enum { BB_SCORE_PIECE_BYTES = 4 << 20 };

typedef struct bb_score_pieces {
    bb_text_reader *reader;
    char *bytes; /* (held) of `capacity` */
    size_t held, capacity;
    size_t before, size; /* the piece is bytes[before .. before + size - 1] */
    size_t context;      /* maximum number of bytes kept before a piece */
    bool lines;          /* pieces end at line ends */
    bool ended;
} bb_score_pieces;

bb_status bb_score_pieces_open(const char *path, size_t context, bool lines, bb_score_pieces *out, bb_error *err);
/* Reads the next piece; size 0: end of the text. */
bb_status bb_score_pieces_next(bb_score_pieces *pieces, bb_error *err);
void bb_score_pieces_close(bb_score_pieces *pieces);

#endif
