// SPDX-License-Identifier: MIT
/* Progress output: one live line on a terminal, plain lines elsewhere. Also formats quantities. All long commands show the same
 * line: what, bar, percent, rate, time left. */
#ifndef BB_PROGRAMS_PROGRESS_H
#define BB_PROGRAMS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct bb_progress {
    FILE *stream;
    bool terminal, utf8;
    int shown;             /* columns of the live line on the terminal; 0: none */
    double plain_interval; /* seconds between lines without a terminal; 0: none */
    double last;           /* time of the last update */
    double start;          /* time of the first bar, from which rates and the time left are computed */
} bb_progress;

/* The content of a bar. */
typedef struct bb_progress_bar {
    const char *what;   /* "packing" */
    double done, total; /* in any unit; total 0: unknown, so no bar is shown */
    double bytes;       /* done so far, for the rate; 0: no rate */
    double rate, eta;   /* bytes per second, and seconds; 0: computed from `bytes`, `done` and the time since the first bar */
    const char *detail; /* text at the end of the line, truncated first on a narrow terminal */
} bb_progress_bar;

void bb_progress_open(bb_progress *progress, FILE *stream, double plain_interval);
/* Replaces the live line, at most ten times per second, or prints a plain line when due. */
void bb_progress_update(bb_progress *progress, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same with a bar: "packing  ━━━━━━━────  58%  1.2 MB/s  3m 12s left  12 of 20 files". */
void bb_progress_show(bb_progress *progress, const bb_progress_bar *bar);
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

/* Draws a value over the course of a run as a line of small bars. */
enum { BB_SPARK_PARTS = 16 };
typedef struct bb_spark {
    double sum[BB_SPARK_PARTS];
    int count[BB_SPARK_PARTS];
} bb_spark;
/* part: 0 to 1, progress of the run. Non-finite values are ignored. */
void bb_spark_add(bb_spark *spark, double part, double value);
/* UTF-8 of at most BB_SPARK_PARTS characters; "" if there are fewer than two values. */
typedef struct bb_spark_text {
    char s[4 * BB_SPARK_PARTS + 1];
} bb_spark_text;
bb_spark_text bb_spark_show(const bb_spark *spark);

#endif
