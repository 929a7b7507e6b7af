// SPDX-License-Identifier: MIT
/* Incremental UTF-8 decoder. */
#ifndef BB_PROGRAMS_UTF8_H
#define BB_PROGRAMS_UTF8_H

#include <stddef.h>
#include <stdint.h>

#define BB_UTF8_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

enum { BB_UTF8_MAX_BYTES = 4 };

typedef struct bb_utf8 {
    uint8_t pending[BB_UTF8_MAX_BYTES]; /* bytes of an incomplete character */
    int have, need;                     /* bytes in pending; length of the character */
    int64_t invalid;                    /* number of invalid sequences so far */
} bb_utf8;

/* A zeroed bb_utf8 is ready for a new text. */

/* The result of one byte: `invalid` invalid sequences, one U+FFFD each, then a character of `size` bytes, or none yet (0). */
typedef struct bb_utf8_result {
    int invalid, size;
    uint8_t character[BB_UTF8_MAX_BYTES];
} bb_utf8_result;

bb_utf8_result bb_utf8_byte(bb_utf8 *u, uint8_t byte);
/* Ends the text. Returns 1 if an incomplete character was pending, else 0. */
int bb_utf8_end(bb_utf8 *u);

#endif
