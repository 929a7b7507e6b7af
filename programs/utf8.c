// SPDX-License-Identifier: MIT
/* Incremental UTF-8 decoder. */
#include "utf8.h"

#include <stdbool.h>
#include <string.h>

/* Returns the length of a character that starts with `byte`, or 0 if it is invalid. */
static int length_of(uint8_t byte) {
    if (byte < 0x80) return 1;
    if (byte >= 0xC2 && byte <= 0xDF) return 2;
    if (byte >= 0xE0 && byte <= 0xEF) return 3;
    if (byte >= 0xF0 && byte <= 0xF4) return 4;
    return 0;
}

/* Unicode 15, table 3-7: the range of the second byte also excludes overlong forms, surrogates and values above U+10FFFF. */
static bool continues(const bb_utf8 *u, uint8_t byte) {
    if ((byte & 0xC0) != 0x80) return false;
    if (u->have != 1) return true;
    switch (u->pending[0]) {
    case 0xE0: return byte >= 0xA0;
    case 0xED: return byte <= 0x9F;
    case 0xF0: return byte >= 0x90;
    case 0xF4: return byte <= 0x8F;
    default: return true;
    }
}

int bb_utf8_end(bb_utf8 *u) {
    if (u->have == 0) return 0;
    u->invalid++;
    u->have = 0;
    return 1;
}

bb_utf8_result bb_utf8_byte(bb_utf8 *u, uint8_t byte) {
    bb_utf8_result result = {.size = 0};
    if (u->have > 0 && !continues(u, byte)) result.invalid += bb_utf8_end(u);
    if (u->have == 0 && (u->need = length_of(byte)) == 0) {
        u->invalid++;
        result.invalid++;
        return result;
    }
    u->pending[u->have++] = byte;
    if (u->have < u->need) return result;
    result.size = u->have;
    memcpy(result.character, u->pending, sizeof result.character);
    u->have = 0;
    return result;
}
