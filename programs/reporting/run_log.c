// SPDX-License-Identifier: MIT
#include "run_log.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const bb_metric_names[BB_METRICS + 1] = {[BB_METRIC_LOSS] = "loss",
                                                     [BB_METRIC_VAL_BPB] = "val_bpb",
                                                     [BB_METRIC_LR] = "lr",
                                                     [BB_METRIC_GRAD_NORM] = "grad_norm",
                                                     [BB_METRIC_BYTES_PER_S] = "bytes_per_s",
                                                     [BB_METRIC_MEMORY] = "memory_mb",
                                                     [BB_METRIC_SKIPPED] = "skipped",
                                                     NULL};
const char *const bb_metric_titles[BB_METRICS] = {[BB_METRIC_LOSS] = "Training loss, nats per byte",
                                                  [BB_METRIC_VAL_BPB] = "Validation, bits per byte",
                                                  [BB_METRIC_LR] = "Learning rate",
                                                  [BB_METRIC_GRAD_NORM] = "Gradient norm before clipping",
                                                  [BB_METRIC_BYTES_PER_S] = "Bytes per second",
                                                  [BB_METRIC_MEMORY] = "Memory of the process, MB",
                                                  [BB_METRIC_SKIPPED] = "Skipped steps"};
const char *const bb_axis_names[BB_AXES + 1] = {
    [BB_AXIS_STEP] = "step", [BB_AXIS_BYTES] = "bytes", [BB_AXIS_TIME] = "time", NULL};

static bb_status failed(bb_error *err, bb_status code, const char *path, const char *what) {
    err->code = code;
    snprintf(err->message, sizeof err->message, "%.800s: %s", path, what);
    return code;
}

static bool add_point(bb_series *series, const bb_point *point) {
    if (series->count == series->capacity) {
        int capacity = series->capacity ? 2 * series->capacity : 64;
        bb_point *grown = realloc(series->points, (size_t)capacity * sizeof *grown);
        if (!grown) return false;
        series->points = grown;
        series->capacity = capacity;
    }
    series->points[series->count++] = *point;
    return true;
}

/* Advances `last` to a logged step. The file has no timestamps: the time is computed from the bytes since the previous line and
 * their rate. */
static void move_on(bb_run_log *log, const json_t *line, double step) {
    double bytes = json_number_value(json_object_get(line, "bytes"));
    double rate = json_number_value(json_object_get(line, "bytes_per_s"));
    double more = bytes - log->last.at[BB_AXIS_BYTES];
    if (more > 0 && rate > 0) log->last.at[BB_AXIS_TIME] += more / rate;
    log->last.at[BB_AXIS_BYTES] = bytes;
    log->last.at[BB_AXIS_STEP] = log->last.value = step;
}

static bool add_line(bb_run_log *log, json_t *line) {
    const json_t *step = json_object_get(line, "step");
    bool good = true;
    if (!json_is_integer(step)) return true;
    if (json_is_string(json_object_get(line, "sample"))) return json_array_append(log->samples, line) == 0;
    if (json_object_get(line, "bytes")) move_on(log, line, json_number_value(step));
    bb_point point = log->last;
    point.at[BB_AXIS_STEP] = json_number_value(step);
    for (int i = 0; i < BB_METRICS && good; i++) {
        const json_t *value = json_object_get(line, bb_metric_names[i]);
        point.value = json_number_value(value);
        if (json_is_number(value) && isfinite(point.value)) good = add_point(&log->series[i], &point);
    }
    return good;
}

/* Validations between two logged steps get the bytes and the time of the first; the true values lie between. */
static void place_between(bb_series *series, const bb_series *steps) {
    for (int i = 0, next = 0; i < series->count; i++) {
        bb_point *p = &series->points[i];
        while (next < steps->count && steps->points[next].at[BB_AXIS_STEP] < p->at[BB_AXIS_STEP]) next++;
        if (next == 0 || next == steps->count) continue;
        const bb_point *a = &steps->points[next - 1], *b = &steps->points[next];
        double part = (p->at[BB_AXIS_STEP] - a->at[BB_AXIS_STEP]) / (b->at[BB_AXIS_STEP] - a->at[BB_AXIS_STEP]);
        for (int axis = BB_AXIS_BYTES; axis < BB_AXES; axis++) p->at[axis] = a->at[axis] + part * (b->at[axis] - a->at[axis]);
    }
}

static bb_status read_metrics(const char *path, bb_run_log *log, bb_error *err) {
    FILE *file = fopen(path, "rb");
    if (!file) return failed(err, BB_ERR_IO, path, strerror(errno));
    char *line = NULL;
    size_t capacity = 0;
    bool good = true;
    for (ssize_t length; good && (length = getline(&line, &capacity, file)) > 0;) {
        if (line[length - 1] != '\n') break; /* the line is still being written */
        json_t *json = json_loadb(line, (size_t)length, 0, NULL);
        good = add_line(log, json);
        json_decref(json);
    }
    bool unread = ferror(file) != 0;
    free(line);
    fclose(file);
    if (unread) return failed(err, BB_ERR_IO, path, "cannot read");
    if (!good) return failed(err, BB_ERR_MEMORY, path, "out of memory");
    place_between(&log->series[BB_METRIC_VAL_BPB], &log->series[BB_METRIC_LOSS]);
    return BB_OK;
}

bb_status bb_run_log_read(const char *path, bb_run_log *out, bb_error *err) {
    char *metrics = NULL, *config = NULL;
    *out = (bb_run_log){.path = strdup(path), .samples = json_array()};
    bb_status status = BB_ERR_MEMORY;
    if (!out->path || !out->samples || asprintf(&metrics, "%s/metrics.jsonl", path) < 0 ||
        asprintf(&config, "%s/config.json", path) < 0) {
        failed(err, BB_ERR_MEMORY, path, "out of memory");
    } else {
        for (size_t n = strlen(out->path); n > 1 && out->path[n - 1] == '/'; n--) out->path[n - 1] = '\0';
        const char *slash = strrchr(out->path, '/');
        out->name = slash && slash[1] ? slash + 1 : out->path;
        out->config = json_load_file(config, 0, NULL);
        status = read_metrics(metrics, out, err);
    }
    free(metrics);
    free(config);
    if (status != BB_OK) bb_run_log_free(out);
    return status;
}

void bb_run_log_free(bb_run_log *log) {
    for (int i = 0; i < BB_METRICS; i++) free(log->series[i].points);
    json_decref(log->config);
    json_decref(log->samples);
    free(log->path);
    *log = (bb_run_log){.path = NULL};
}
