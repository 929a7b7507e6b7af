// SPDX-License-Identifier: MIT
/* A page on one or several runs: pictures, what was trained and how, samples. */
#ifndef BB_PROGRAMS_PAGE_H
#define BB_PROGRAMS_PAGE_H

#include "plot.h"

/* How the pictures are shown first; the page can change the axes. */
typedef struct bb_page_options {
    bb_axis x;
    double smoothing;
    bool log_x, log_y;
    bool no_weights; /* reads no checkpoint, which takes long for a large one */
} bb_page_options;

/* One file, without a script, that needs no other. */
void bb_page_html(FILE *out, const bb_run_log *runs, int count, const bb_page_options *options);
/* What stands in its <main>, for a page that replaces it as the runs go on. */
void bb_page_main(FILE *out, const bb_run_log *runs, int count, const bb_page_options *options);
/* Its style, for a <style> element. */
void bb_page_style(FILE *out);
/* The controls that the style reads; they stand before <main>. */
void bb_page_controls(FILE *out, const bb_page_options *options);
/* Shares of -1, 0 and +1 of each ternary matrix, from the JSON of bb_describe_file. */
void bb_page_shares(FILE *out, const json_t *ternary);

#endif
