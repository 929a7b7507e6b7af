// SPDX-License-Identifier: MIT
#include "page.h"

#include <string.h>

#include "../utf8.h"

enum { SHADES = 9 }; /* the last shade is for 8 bits and more */

static const char style[] =
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;color:#222;background:#fff}"
    "pre{font:14px/1.6 ui-monospace,monospace;white-space:pre-wrap;overflow-wrap:anywhere}"
    "h2{font-size:1em;margin:1.5em 0 .3em}small{color:#666}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#111}small{color:#999}}";

static void escape(FILE *page, const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        switch (text[i]) {
        case '<': fputs("&lt;", page); break;
        case '>': fputs("&gt;", page); break;
        case '&': fputs("&amp;", page); break;
        case '"': fputs("&quot;", page); break;
        default: putc(text[i], page);
        }
    }
}

static const char *const legend[SHADES] = {"0", "1", "2", "3", "4", "5", "6", "7", "8+"};

void bb_score_page_begin(FILE *page, const char *model) {
    fprintf(page, "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Surprise</title>\n<style>%s", style);
    for (int i = 0; i < SHADES; i++) fprintf(page, ".s%d{background:rgba(230,60,20,%.2f)}", i, 0.09 * i);
    fputs("</style>\n<h1>How surprising is each character?</h1>\n<p>Bits that ", page);
    for (const char *at = model; *at; at++) escape(page, at, 1);
    fputs(" needs for it: ", page);
    for (int i = 0; i < SHADES; i++) fprintf(page, "<span class=\"s%d\">&nbsp;%s&nbsp;</span>", i, legend[i]);
    fputs(". Point at a character for its number.</p>\n", page);
}

/* Adds a character, or an invalid byte (size 0). */
static void add_character(FILE *page, const bb_score_row *row, size_t first, size_t count, bool valid) {
    double bits = 0;
    for (size_t i = first; i < first + count; i++) bits += (double)row->byte_bits[i];
    int shade = bits < SHADES - 1 ? (int)bits : SHADES - 1;
    fprintf(page, "<span class=\"s%d\" title=\"%.2f bits, rank %d\">", shade, bits, row->byte_ranks[first] + 1);
    uint8_t byte = (uint8_t)row->text[first];
    if (!valid || (byte < 32 && byte != '\n' && byte != '\t') || byte == 127)
        for (size_t i = first; i < first + count; i++) fprintf(page, "\\x%02x", (uint8_t)row->text[i]);
    else
        escape(page, row->text + first, count);
    fputs("</span>", page);
}

void bb_score_page_add(FILE *page, const bb_score_row *row) {
    fputs("<h2>", page);
    escape(page, row->file, strlen(row->file));
    if (row->line) fprintf(page, ":%lld", (long long)row->line);
    fprintf(page, " <small>%.4f bits per byte, %zu bytes</small></h2>\n<pre>", row->size ? row->bits[0] / (double)row->size : 0,
            row->size);
    bb_utf8 utf8 = {.have = 0};
    size_t begin = 0; /* first byte of the incomplete character */
    for (size_t i = 0; i < row->size; i++) {
        bb_utf8_result r = bb_utf8_byte(&utf8, (uint8_t)row->text[i]);
        size_t character = (size_t)r.size, pending = (size_t)utf8.have, end = i + 1 - pending - character;
        if (r.invalid && end > begin) add_character(page, row, begin, end - begin, false);
        if (character) add_character(page, row, i + 1 - pending - character, character, true);
        begin = i + 1 - pending;
    }
    if (begin < row->size) add_character(page, row, begin, row->size - begin, false);
    fputs("</pre>\n", page);
}

void bb_score_page_end(FILE *page) { fputs("</html>\n", page); }
