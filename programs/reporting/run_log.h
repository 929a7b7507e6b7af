// SPDX-License-Identifier: MIT
/* The training history of a run directory: the series of metrics.jsonl, its samples, config.json. */
#ifndef BB_PROGRAMS_RUN_LOG_H
#define BB_PROGRAMS_RUN_LOG_H

#include <jansson.h>

#include "bitbyte.h"

typedef enum bb_metric {
    BB_METRIC_LOSS,
    BB_METRIC_VAL_BPB,
    BB_METRIC_LR,
    BB_METRIC_GRAD_NORM,
    BB_METRIC_BYTES_PER_S,
    BB_METRIC_MEMORY,
    BB_METRIC_SKIPPED,
    BB_METRICS
} bb_metric;

/* Names of the metrics: keys of metrics.jsonl and of --plot; NULL-terminated. */
extern const char *const bb_metric_names[BB_METRICS + 1];
/* Titles of the plots, with the unit. */
extern const char *const bb_metric_titles[BB_METRICS];

typedef enum bb_axis { BB_AXIS_STEP, BB_AXIS_BYTES, BB_AXIS_TIME, BB_AXES } bb_axis;
extern const char *const bb_axis_names[BB_AXES + 1]; /* "step", "bytes", "time" */

/* A value and when it was measured: steps, bytes trained on, seconds of training. */
typedef struct bb_point {
    double at[BB_AXES], value;
} bb_point;

typedef struct bb_series {
    bb_point *points; /* (count), in the order of the file; values are finite */
    int count, capacity;
} bb_series;

typedef struct bb_run_log {
    char *path;
    const char *name; /* the last part of the path */
    json_t *config;   /* config.json; NULL: missing */
    json_t *samples;  /* array of the lines with "sample" */
    bb_series series[BB_METRICS];
    bb_point last; /* position of the last logged step; value: its step */
} bb_run_log;

/* Reads a run directory. An incomplete last line, and lines that are not JSON, are skipped. BB_ERR_IO: no metrics.jsonl. */
bb_status bb_run_log_read(const char *path, bb_run_log *out, bb_error *err);
void bb_run_log_free(bb_run_log *log);

#endif
