// SPDX-License-Identifier: MIT
/* Progress output: one live line on a terminal, plain lines elsewhere. Also formats quantities. */
#ifndef BB_PROGRAMS_PROGRESS_H
#define BB_PROGRAMS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct bb_progress {
    FILE *stream;
    bool terminal, shown;
    double plain_interval; /* seconds between lines without a terminal; 0: none */
    double last;           /* time of the last update */
} bb_progress;

void bb_progress_open(bb_progress *progress, FILE *stream, double plain_interval);
/* Replaces the live line, at most ten times per second, or prints a plain line when due. */
void bb_progress_update(bb_progress *progress, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints a permanent line. */
void bb_progress_line(bb_progress *progress, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Erases the live line; updates may follow. */
void bb_progress_clear(bb_progress *progress);

typedef struct bb_text {
    char s[32];
} bb_text;

bb_text bb_text_bytes(uint64_t bytes);    /* "1.25 GB" (10^9) */
bb_text bb_text_count(uint64_t count);    /* "1.8 M" */
bb_text bb_text_duration(double seconds); /* "3m 12s" */
double bb_monotonic_seconds(void);

#endif
