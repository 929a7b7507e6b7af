// SPDX-License-Identifier: MIT
/* Generation options, shared by generate, --interactive and other callers. */
#include "generate_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

static const char *const speculate_choices[] = {
    [BB_SPECULATE_OFF] = "off", [BB_SPECULATE_AUTO] = "auto", [BB_SPECULATE_ALWAYS] = "always", NULL};

/* clang-format off: a table is read by rows */
static const bb_cli_option generation_options[] = {
    {.help = "Generation"},
    {.name = "max_new_bytes",
     .type = BB_CLI_INT64,
     .offset = offsetof(bb_generation, options.max_new_bytes),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "maximum number of bytes to generate"},
    {.name = "stop",
     .type = BB_CLI_LIST,
     .one_each = true,
     .offset = offsetof(bb_generation, stops),
     .value = "TEXT",
     .help = "end generation at this text, which is not printed; may be repeated. Escapes: \\n, \\r, \\t, \\\\ and \\xHH. "
             "Output that may begin it is held back until decided"},
    {.name = "context_length",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_generation, options.context_length),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "context window in bytes. When it is full, the older half is dropped, so generation can continue in constant "
             "memory",
     .default_text = "0: the model's trained length"},
    {.name = "kv_cache",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(bb_generation, kv_cache),
     .choices = bb_kv_choices,
     .help = "KV cache type: 6 or 8 bits, or f32; int6 is fastest for long contexts"},
    {.name = "speculate",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(bb_generation, speculate),
     .choices = speculate_choices,
     .help = "speculative decoding: draft bytes from repeats in the text (or with --draft), and verify several in one pass. "
             "Never changes the output. auto: when faster; always: even if slower"},
    {.help = "Sampling, applied in this order"},
    {.name = "repetition_penalty",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(bb_generation, options.repetition_penalty),
     .value = "X",
     .range = BB_CLI_ABOVE(0),
     .help = "divide positive logits of recently used bytes by X, multiply negative ones; 1: off. Bytes are letters: 1.05 is "
             "already strong"},
    {.name = "repetition_window",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_generation, options.repetition_window),
     .value = "N",
     .range = BB_CLI_FROM_TO(1, 65536),
     .help = "number of last bytes it considers, including the prompt"},
    {.name = "temperature",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(bb_generation, options.temperature),
     .value = "X",
     .range = BB_CLI_AT_LEAST(0),
     .help = "lower is more predictable, higher more varied; 0: always the most likely byte"},
    {.name = "top_k",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_generation, options.top_k),
     .value = "N",
     .range = BB_CLI_FROM_TO(0, 256),
     .help = "sample only from the N most likely bytes; 0: off"},
    {.name = "top_p",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(bb_generation, options.top_p),
     .value = "X",
     .range = BB_CLI_ABOVE_TO(0, 1),
     .help = "sample from the smallest set of most likely bytes with total probability X; 1: off"},
    {.name = "min_p",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(bb_generation, options.min_p),
     .value = "X",
     .range = BB_CLI_FROM_TO(0, 1),
     .help = "drop bytes less likely than X times the most likely one; 0: off"},
    {.name = "seed",
     .type = BB_CLI_INT64,
     .offset = offsetof(bb_generation, seed),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "random seed; the same seed gives the same text"},
};
/* clang-format on */

const bb_cli_group bb_generation_group = {generation_options, BB_CLI_COUNT(generation_options)};

void bb_generation_default(bb_generation *generation) {
    *generation = (bb_generation){.speculate = BB_SPECULATE_AUTO};
    bb_generate_options_default(&generation->options);
}

int bb_hex_digit(char c) {
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
        } else if (at[1] == 'x' && bb_hex_digit(at[2]) >= 0 && bb_hex_digit(at[3]) >= 0) {
            out[n++] = (uint8_t)(16 * bb_hex_digit(at[2]) + bb_hex_digit(at[3]));
            at += 3;
        } else {
            err->code = BB_ERR_ARGUMENT;
            snprintf(err->message, sizeof err->message,
                     "--%s: unknown escape '%.2s' in '%s'; use \\n, \\r, \\t, \\\\ or \\xHH (two hexadecimal digits)", option,
                     at, text);
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
    o->kv_cache = (bb_kv_type)generation->kv_cache;
    return BB_OK;
}

void bb_generation_session(const bb_generation *generation, bb_session_options *out) {
    bb_session_options_default(out);
    out->context_length = generation->options.context_length;
    out->kv_cache = generation->options.kv_cache;
}

void bb_generation_free(bb_generation *generation) {
    free(generation->stop_bytes);
    free(generation->stop_texts);
}
