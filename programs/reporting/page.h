// SPDX-License-Identifier: MIT
/* Writes a page about one or several runs: plots, what was trained and how, samples. */
#ifndef BB_PROGRAMS_PAGE_H
#define BB_PROGRAMS_PAGE_H

#include "plot.h"

/* The initial view of the plots; the page can change the axes. */
typedef struct bb_page_options {
    bb_axis x;
    double smoothing;
    bool log_x, log_y;
    bool no_weights; /* do not read a checkpoint, which takes long if it is large */
} bb_page_options;

/* Writes a self-contained file without scripts. */
void bb_page_html(FILE *out, const bb_run_log *runs, int count, const bb_page_options *options);
/* Writes the content of its <main>, for a page that updates it during the runs. */
void bb_page_main(FILE *out, const bb_run_log *runs, int count, const bb_page_options *options);
/* Writes its style, for a <style> element. */
void bb_page_style(FILE *out);
/* Writes the controls that the style refers to; they must come before <main>. */
void bb_page_controls(FILE *out, const bb_page_options *options);
/* Draws the shares of -1, 0 and +1 of each ternary matrix, from the JSON of bb_describe_file. */
void bb_page_shares(FILE *out, const json_t *ternary);

#endif
