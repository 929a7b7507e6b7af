// SPDX-License-Identifier: MIT
/* How a text is generated, as options: what generate, its conversation and everything else that generates share. */
#include "generate_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

static const char *const speculate_choices[] = {
    [BB_SPECULATE_OFF] = "off", [BB_SPECULATE_AUTO] = "auto", [BB_SPECULATE_ALWAYS] = "always", NULL};

/* clang-format off: a table is read by rows */
static const bb_cli_option generation_options[] = {
    {.help = "How much is written, and how it is computed"},
    {.name = "max_new_bytes",
     .type = BB_CLI_INT64,
     .offset = offsetof(bb_generation, options.max_new_bytes),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "bytes to write, at most"},
    {.name = "stop",
     .type = BB_CLI_LIST,
     .one_each = true,
     .offset = offsetof(bb_generation, stops),
     .value = "TEXT",
     .help =
         "end where this text comes, which is not written; may be given several times. \\n, \\r, \\t, \\\\ and \\xHH stand for "
         "their bytes. What may be the beginning of it is written once it is clear that it is not"},
    {.name = "context_length",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_generation, options.context_length),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "bytes that the model sees at once; when they are full the older half is dropped, so that writing can go on for "
             "ever in the same memory",
     .default_text = "0: the length it was trained on"},
    {.name = "kv_cache",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(bb_generation, kv_cache),
     .choices = bb_kv_choices,
     .help = "what the model keeps of those bytes, in 6 or 8 bits or as it is; with 6, long contexts are fastest"},
    {.name = "speculate",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(bb_generation, speculate),
     .choices = speculate_choices,
     .help =
         "guess bytes from what stood in the text before (or with --draft), and verify several at once: not one byte of the "
         "text changes. auto: where it is faster; always: whatever it costs"},
    {.help = "How bytes are chosen, in this order"},
    {.name = "repetition_penalty",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(bb_generation, options.repetition_penalty),
     .value = "X",
     .range = BB_CLI_ABOVE(0),
     .help = "the logit of every byte that stands among the last ones is divided by it, or multiplied where it is negative; 1: "
             "off. "
             "Bytes are letters: 1.05 is much"},
    {.name = "repetition_window",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_generation, options.repetition_window),
     .value = "N",
     .range = BB_CLI_FROM_TO(1, 65536),
     .help = "how many last bytes that looks at, the prompt's among them"},
    {.name = "temperature",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(bb_generation, options.temperature),
     .value = "X",
     .range = BB_CLI_AT_LEAST(0),
     .help = "below 1 safer, above 1 wilder; 0 always takes the likeliest byte"},
    {.name = "top_k",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_generation, options.top_k),
     .value = "N",
     .range = BB_CLI_FROM_TO(0, 256),
     .help = "only the N likeliest bytes; 0: all"},
    {.name = "top_p",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(bb_generation, options.top_p),
     .value = "X",
     .range = BB_CLI_ABOVE_TO(0, 1),
     .help = "of those the likeliest that together have this share of their probability; 1: all"},
    {.name = "min_p",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(bb_generation, options.min_p),
     .value = "X",
     .range = BB_CLI_FROM_TO(0, 1),
     .help = "of those the ones that are at least X times as likely as the likeliest; 0: all"},
    {.name = "seed",
     .type = BB_CLI_INT64,
     .offset = offsetof(bb_generation, seed),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "same seed, same text"},
};
/* clang-format on */

const bb_cli_group bb_generation_group = {generation_options, BB_CLI_COUNT(generation_options)};

void bb_generation_default(bb_generation *generation) {
    *generation = (bb_generation){.speculate = BB_SPECULATE_AUTO};
    bb_generate_options_default(&generation->options);
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bb_status bb_unescape(const char *option, const char *text, uint8_t *out, size_t *length, bb_error *err) {
    static const char letters[] = "nrt\\", values[] = "\n\r\t\\";
    size_t n = 0;
    for (const char *at = text; *at; at++) {
        const char *letter = *at == '\\' && at[1] ? strchr(letters, at[1]) : NULL;
        if (*at != '\\') {
            out[n++] = (uint8_t)*at;
        } else if (letter) {
            out[n++] = (uint8_t)values[letter - letters];
            at++;
        } else if (at[1] == 'x' && hex_digit(at[2]) >= 0 && hex_digit(at[3]) >= 0) {
            out[n++] = (uint8_t)(16 * hex_digit(at[2]) + hex_digit(at[3]));
            at += 3;
        } else {
            err->code = BB_ERR_ARGUMENT;
            snprintf(err->message, sizeof err->message,
                     "--%s: unknown escape '%.2s' in '%s'; known are \\n, \\r, \\t, \\\\ and \\xHH (two hexadecimal digits)",
                     option, at, text);
            return err->code;
        }
    }
    *length = n;
    return BB_OK;
}

bb_status bb_generation_resolve(bb_generation *generation, bb_error *err) {
    bb_generate_options *o = &generation->options;
    size_t size = 1;
    for (int i = 0; i < generation->stops.count; i++) size += strlen(generation->stops.items[i]);
    uint8_t *at = generation->stop_bytes = malloc(size);
    bb_bytes *stops = generation->stop_texts = calloc((size_t)generation->stops.count + 1, sizeof *stops);
    if (!at || !stops) {
        err->code = BB_ERR_MEMORY;
        strcpy(err->message, "out of memory for the stop texts");
        return err->code;
    }
    for (int i = 0; i < generation->stops.count; i++) {
        stops[i].data = at;
        bb_status status = bb_unescape("stop", generation->stops.items[i], at, &stops[i].size, err);
        if (status != BB_OK) return status;
        at += stops[i].size;
    }
    o->stops = stops;
    o->stop_count = generation->stops.count;
    o->seed = (uint64_t)generation->seed;
    o->speculate = (bb_speculate)generation->speculate;
    return BB_OK;
}

void bb_generation_session(const bb_generation *generation, bb_session_options *out) {
    bb_session_options_default(out);
    out->context_length = generation->options.context_length;
    out->kv_cache = (bb_kv_type)generation->kv_cache;
}

void bb_generation_free(bb_generation *generation) {
    free(generation->stop_bytes);
    free(generation->stop_texts);
}
