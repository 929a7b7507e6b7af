// SPDX-License-Identifier: MIT
/* How a text is generated, as options: what generate, its conversation and everything else that generates share. */
#ifndef BB_PROGRAMS_GENERATE_OPTIONS_H
#define BB_PROGRAMS_GENERATE_OPTIONS_H

#include "bitbyte.h"
#include "cli_option.h"

typedef struct bb_generation {
    bb_generate_options options; /* complete after bb_generation_resolve, but for the callbacks */
    int kv_cache, speculate;     /* bb_kv_type, bb_speculate */
    int64_t seed;
    bb_cli_list stops; /* as typed, with escapes */
    uint8_t *stop_bytes;
    bb_bytes *stop_texts;
} bb_generation;

extern const bb_cli_group bb_generation_group;

void bb_generation_default(bb_generation *generation);
/* Fills `options` with what was given: call it once, when the options are read. bb_generation_free in every case. */
bb_status bb_generation_resolve(bb_generation *generation, bb_error *err);
/* The options of a session for such texts. */
void bb_generation_session(const bb_generation *generation, bb_session_options *out);
void bb_generation_free(bb_generation *generation);

/* \n, \r, \t, \\ and \xHH become the bytes that they stand for. `option` names it in messages. out: strlen(text) bytes. */
bb_status bb_unescape(const char *option, const char *text, uint8_t *out, size_t *length, bb_error *err);

#endif
