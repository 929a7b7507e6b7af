// SPDX-License-Identifier: MIT
/* Bytes as they come, shown on a terminal: whole UTF-8 characters only, and nothing that would steer the terminal. */
#include "utf8_out.h"

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

void bb_utf8_out_open(bb_utf8_out *u, FILE *out, bool raw) { *u = (bb_utf8_out){.out = out, .raw = raw}; }

/* Bytes of the character that starts with `byte`, 0: none does. */
static int length_of(uint8_t byte) {
    if (byte < 0x80) return 1;
    if (byte >= 0xC2 && byte <= 0xDF) return 2;
    if (byte >= 0xE0 && byte <= 0xEF) return 3;
    if (byte >= 0xF0 && byte <= 0xF4) return 4;
    return 0;
}

/* Unicode 15, table 3-7: the second byte also rules out overlong forms, surrogates and what lies above U+10FFFF. */
static bool continues(const bb_utf8_out *u, uint8_t byte) {
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

static void invalid(bb_utf8_out *u) {
    u->invalid++;
    u->have = 0;
    if (!u->raw && u->out) fputs(replacement, u->out);
}

static bool steers(const bb_utf8_out *u) {
    uint8_t first = u->pending[0];
    if (u->need == 1) return (first < 0x20 && first != '\n' && first != '\t') || first == 0x7F;
    return u->need == 2 && first == 0xC2 && u->pending[1] < 0xA0; /* U+0080 to U+009F */
}

void bb_utf8_out_byte(bb_utf8_out *u, uint8_t byte) {
    if (u->raw && u->out) fputc(byte, u->out);
    if (u->have > 0 && !continues(u, byte)) invalid(u);
    if (u->have == 0) {
        u->need = length_of(byte);
        if (u->need == 0) {
            invalid(u);
            return;
        }
    }
    u->pending[u->have++] = byte;
    if (u->have < u->need) return;
    if (!u->raw && u->out) {
        if (steers(u) && !u->keep_controls)
            fputs(replacement, u->out);
        else
            fwrite(u->pending, 1, (size_t)u->have, u->out);
    }
    u->have = 0;
}

void bb_utf8_out_end(bb_utf8_out *u) {
    if (u->have > 0) invalid(u);
}
