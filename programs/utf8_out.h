// SPDX-License-Identifier: MIT
/* Bytes as they come, shown on a terminal: whole UTF-8 characters only, and nothing that would steer the terminal. */
#ifndef BB_PROGRAMS_UTF8_OUT_H
#define BB_PROGRAMS_UTF8_OUT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct bb_utf8_out {
    FILE *out;          /* NULL: nothing is written, invalid places are counted */
    bool raw;           /* write every byte as it is, at once */
    bool keep_controls; /* not raw: control characters are written too */
    uint8_t pending[4]; /* the beginning of a character */
    int have, need;     /* bytes in pending; bytes of the whole character */
    int64_t invalid;    /* places that are no UTF-8, in either mode */
} bb_utf8_out;

/* Not raw: an incomplete character waits for its rest; invalid bytes and control characters except newline and tab are shown as
 * U+FFFD. */
void bb_utf8_out_open(bb_utf8_out *u, FILE *out, bool raw);
void bb_utf8_out_byte(bb_utf8_out *u, uint8_t byte);
/* What still waits is incomplete for good. */
void bb_utf8_out_end(bb_utf8_out *u);

#endif
