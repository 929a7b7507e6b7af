// SPDX-License-Identifier: MIT
/* What the files of bitbyte generate share. */
#ifndef BB_PROGRAMS_GENERATE_H
#define BB_PROGRAMS_GENERATE_H

#include "common.h"
#include "progress.h"
#include "utf8_out.h"

/* One continuation of the prompt. */
typedef struct bb_sample {
    uint64_t seed;
    bb_generate_metrics metrics;
    int64_t invalid_utf8; /* places that are no UTF-8 */
    uint8_t *text;        /* what was shown; malloc */
    size_t length, room;
} bb_sample;

/* What a report says besides the samples. */
typedef struct bb_generate_report {
    const char *model;
    const bb_generate_options *options;
    const bb_sample *samples;
    int count;
    double prompt_seconds;
    int64_t prompt_bytes;
    bool with_text;
} bb_generate_report;

json_t *bb_generate_report_json(const bb_generate_report *report);
/* Speed and likelihood for people, one sample. */
void bb_generate_report_show(const bb_sample *sample, FILE *out);

/* Standard input where path is "-". *bytes: malloc. */
bb_status bb_generate_read_all(const char *path, uint8_t **bytes, size_t *length, bb_error *err);
/* \n, \r, \t, \\ and \xHH become the bytes that they stand for. `option` names it in messages. out: room for strlen(text)
 * bytes. */
bb_status bb_generate_unescape(const char *option, const char *text, uint8_t *out, size_t *length, bb_error *err);

typedef struct bb_interactive {
    bb_generate_options options;
    bb_session *session; /* with a text in it or without */
    bb_bytes line_prefix, line_suffix;
    bool metrics;
} bb_interactive;

/* What ends or interrupts a session's reading: call it before bb_session_open. */
void bb_interactive_prepare(bb_session_options *options);
/* Lines from standard input, each continued, until its end. Returns the exit status. */
int bb_interactive_run(bb_interactive *i, bb_error *err);

#endif
