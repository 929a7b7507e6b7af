// SPDX-License-Identifier: MIT
/* Bytes as they come into whole UTF-8 characters. Knows no stream and no terminal: what it gives goes anywhere. */
#ifndef BB_PROGRAMS_UTF8_H
#define BB_PROGRAMS_UTF8_H

#include <stddef.h>
#include <stdint.h>

#define BB_UTF8_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

enum { BB_UTF8_MAX_BYTES = 4 };

typedef struct bb_utf8 {
    uint8_t pending[BB_UTF8_MAX_BYTES]; /* the beginning of a character */
    int have, need;                     /* bytes in pending; bytes of the whole character */
    int64_t invalid;                    /* places that are not UTF-8, so far */
} bb_utf8;

/* Zeroed, a bb_utf8 is at the beginning of a text. */

/* What one more byte makes: `invalid` places that are not UTF-8, each for one U+FFFD, then a whole character of `size` bytes, or
 * none yet (0). */
typedef struct bb_utf8_result {
    int invalid, size;
    uint8_t character[BB_UTF8_MAX_BYTES];
} bb_utf8_result;

bb_utf8_result bb_utf8_byte(bb_utf8 *u, uint8_t byte);
/* The text ends: an incomplete character is invalid. Returns 1 then, else 0. */
int bb_utf8_end(bb_utf8 *u);

#endif
