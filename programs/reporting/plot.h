// SPDX-License-Identifier: MIT
/* Plots one metric of several runs together, as SVG or as CSV. */
#ifndef BB_PROGRAMS_PLOT_H
#define BB_PROGRAMS_PLOT_H

#include <stdio.h>

#include "run_log.h"

typedef struct bb_plot_options {
    bb_metric metric;
    bb_axis x;
    double smoothing; /* 0 to below 1: weight of earlier values in the exponential moving average; 0: none */
    bool log_x, log_y;
    bool standalone; /* with the style and the XML namespace that a separate file needs */
} bb_plot_options;

/* The style of plots within a page, for light and dark mode; goes into a <style> element. */
extern const char bb_plot_style[];

/* Curves have at most two points per pixel. A logarithmic axis omits values that are not above 0. */
void bb_plot_svg(FILE *out, const bb_run_log *runs, int count, const bb_plot_options *options);
/* Columns: run, step, bytes, seconds, value; with smoothing also smoothed. */
void bb_plot_csv(FILE *out, const bb_run_log *runs, int count, const bb_plot_options *options);
/* Writes text escaped for HTML or SVG. */
void bb_html_text(FILE *out, const char *text);

#endif
