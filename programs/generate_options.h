// SPDX-License-Identifier: MIT
/* Generation options, shared by generate, --interactive and other callers. */
#ifndef BB_PROGRAMS_GENERATE_OPTIONS_H
#define BB_PROGRAMS_GENERATE_OPTIONS_H

#include "bitbyte.h"
#include "cli_option.h"

typedef struct bb_generation {
    bb_generate_options options; /* complete after bb_generation_resolve, except callbacks */
    int kv_cache, speculate;     /* bb_kv_type, bb_speculate */
    int64_t seed;
    bb_cli_list stops; /* as typed, with escapes */
    uint8_t *stop_bytes;
    bb_bytes *stop_texts;
} bb_generation;

extern const bb_cli_group bb_generation_group;

void bb_generation_default(bb_generation *generation);
/* Completes `options` after parsing. Call it once, and bb_generation_free in every case. */
bb_status bb_generation_resolve(bb_generation *generation, bb_error *err);
/* Returns the matching session options. */
void bb_generation_session(const bb_generation *generation, bb_session_options *out);
void bb_generation_free(bb_generation *generation);

/* Replaces \n, \r, \t, \\ and \xHH with their bytes. option: its name for messages. out: strlen(text) bytes. */
bb_status bb_unescape(const char *option, const char *text, uint8_t *out, size_t *length, bb_error *err);
/* Returns the value of a hexadecimal digit, or -1. */
int bb_hex_digit(char c);

#endif
