// SPDX-License-Identifier: MIT
/* Reports of bitbyte generate, as JSON or as text. */
#ifndef BB_PROGRAMS_GENERATE_REPORT_H
#define BB_PROGRAMS_GENERATE_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "bitbyte.h"

/* One continuation of the prompt. */
typedef struct bb_sample {
    uint64_t seed;
    bb_generate_metrics metrics;
    int64_t invalid_utf8; /* number of sequences that are not UTF-8 */
    uint8_t *text;        /* output, malloc'd */
    size_t length, capacity;
} bb_sample;

/* The samples and what they have in common. */
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
/* Prints speed and likelihood of one sample as text. */
void bb_generate_report_show(const bb_sample *sample, FILE *out);

#endif
