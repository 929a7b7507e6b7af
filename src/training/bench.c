// SPDX-License-Identifier: MIT
/* Times training steps and the operations within them, and compares them with peaks measured just before. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/cpu_features.h"
#include "core/json.h"
#include "core/options.h"
#include "core/rng.h"
#include "model/config.h"
#include "training/optim.h"
#include "training/profile.h"

typedef struct bench {
    bb_device *device; /* times its operations */
    bb_model *model;
    bb_optimizer *optimizer;
    bb_config config;
    bool recompute;
    int64_t B, T, M;
    int repeats;
} bench;

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, ascending);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static void fill_text(uint8_t *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = (uint8_t)(' ' + bb_rng_below(1, BB_STREAM_BENCH, (uint64_t)i, 90));
}

static bb_status one_step(bench *b, const uint8_t *x, bb_error *err) {
    double loss, norm;
    bool applied;
    BB_TRY(bb_model_zero_gradients(b->model, err));
    bb_train_batch batch = {.x = x, .y = x + 1, .batch_size = (int)b->B, .seq_len = (int)b->T};
    BB_TRY(bb_model_loss_backward(b->model, &batch, 1, &loss, err));
    return bb_optimizer_step(b->optimizer, 1e-5, 1, 1, &norm, &applied, err);
}

static void report_progress(const bb_bench_options *o, const char *line) {
    if (o->on_progress) o->on_progress(o->user, line);
}

static bb_status timed_step(bench *b, const uint8_t *x, double *seconds, bb_error *err) {
    double start = bb_clock_seconds();
    BB_TRY(one_step(b, x, err));
    *seconds = bb_clock_seconds() - start;
    return BB_OK;
}

/* *limit: minimum seconds of a step's operations at the peaks. *step: measured seconds. */
static bb_status measure_steps(bench *b, const uint8_t *x, double *times, double *limit, double *step, bb_error *err) {
    bb_timed_start(b->device);
    BB_TRY(one_step(b, x, err)); /* warms up, and counts the work */
    bb_timed_stop(b->device);
    *limit = bb_profile_limit_seconds(bb_timed_timings(b->device));
    for (int r = 0; r < b->repeats; r++) BB_TRY(timed_step(b, x, &times[r], err));
    *step = median(times, b->repeats);
    return BB_OK;
}

/* Times the operations of `repeats` steps, and reports those of the median step. */
static bb_status measure_operations(bench *b, const uint8_t *x, double *times, json_t *root, bb_error *err) {
    bb_status status = BB_OK;
    bb_timings *each = malloc((size_t)b->repeats * sizeof *each);
    if (!each) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    for (int r = 0; r < b->repeats; r++) {
        bb_timed_start(b->device);
        BB_TRY_GOTO(status, done, timed_step(b, x, &times[r], err));
        each[r] = *bb_timed_timings(b->device);
    }
    int middle = 0;
    for (int r = 0; r < b->repeats; r++) { /* the median: half of the steps are faster */
        int faster = 0;
        for (int i = 0; i < b->repeats; i++) faster += times[i] < times[r] || (times[i] == times[r] && i < r);
        if (faster == b->repeats / 2) middle = r;
    }
    json_object_set_new(root, "operations", bb_profile_operations(&each[middle], &b->config, times[middle], "percent_of_step"));
    json_object_set_new(root, "shares", bb_profile_shares(&each[middle], times[middle]));
done:
    bb_timed_stop(b->device);
    free(each);
    return status;
}

static bb_status measure(bench *b, const uint8_t *x, const bb_bench_options *o, json_t *root, bb_error *err) {
    double *times = malloc((size_t)b->repeats * sizeof *times), step, limit;
    if (!times) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    bb_status status;
    char line[160];
    report_progress(o, "whole steps");
    BB_TRY_GOTO(status, done, measure_steps(b, x, times, &limit, &step, err));
    double bytes = (double)b->M;
    json_object_set_new(root, "step",
                        json_pack("{s:f, s:f, s:f, s:f}", "ms", step * 1e3, "bytes_per_s", bytes / step, "limit_bytes_per_s",
                                  bytes / limit, "percent_of_limit", 100 * limit / step));
    if (!o->step_only) {
        report_progress(o, "their operations");
        BB_TRY_GOTO(status, done, measure_operations(b, x, times, root, err));
    }
    snprintf(line, sizeof line, "step %.1f ms, %.0f bytes/s, %.0f%% of the limit", step * 1e3, bytes / step,
             100 * limit / step);
    report_progress(o, line);
done:
    free(times);
    return status;
}

BB_OPTIONS_DEFAULTS(bb_bench_options, .shape = "S", .seq_len = 512, .repeats = 3, .optim = BB_OPTIM_MUON);

bb_status bb_bench(bb_device *device, const bb_bench_options *given, char **json, bb_error *err) {
    BB_REQUIRE("json", json);
    *json = NULL;
    BB_REQUIRE("device, options", device, given);
    BB_OPTIONS_READ(bb_bench_options, o, given);
    BB_DEVICE_SCOPE(device);
    bb_config c;
    int batch_size;
    BB_TRY(bb_config_of_shape(o->shape, &c, &batch_size, err));
    if (o->batch_size < 0 || o->seq_len < 0 || o->repeats < 1)
        return bb_fail(err, BB_ERR_ARGUMENT, "batch_size %d, seq_len %d, repeats %d: expected 0 or more, and 1 or more",
                       o->batch_size, o->seq_len, o->repeats);
    bench b = {.B = o->batch_size ? o->batch_size : batch_size,
               .T = o->seq_len ? o->seq_len : 512,
               .repeats = o->repeats,
               .recompute = o->recompute};
    b.M = b.B * b.T;
    b.config = c;
    bb_optimizer_options options;
    bb_optimizer_options_default(&options);
    options.kind = o->optim;
    uint8_t *x = malloc((size_t)b.M + 1);
    json_t *root = NULL;
    bb_status status;
    char processor[BB_CPU_FEATURES_BYTES];
    bb_cpu_features(processor, sizeof processor);
    if (!x) {
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory");
        goto done;
    }
    fill_text(x, b.M + 1);
    report_progress(o, "measuring the peaks");
    BB_TRY_GOTO(status, done, bb_timed_open(device, &b.device, err));
    bb_peaks peaks;
    b.device->ops->measure_peaks(b.device, &peaks); /* before the model is created: it needs memory of its own */
    BB_TRY_GOTO(status, done, bb_model_create(b.device, &c, 1, &b.model, err));
    BB_TRY_GOTO(status, done, bb_model_reserve(b.model, (int)b.B, (int)b.T, true, o->recompute, err));
    BB_TRY_GOTO(status, done, bb_optimizer_create(b.model, &options, &b.optimizer, err));
    root = json_pack("{s:s, s:s, s:s, s:i, s:s, s:I, s:I, s:b, s:I, s:{s:f, s:f, s:f, s:f}}", "processor", processor, "device",
                     device->ops->name, "description", bb_device_description(device), "threads", device->threads, "shape",
                     o->shape, "batch_size", (json_int_t)b.B, "seq_len", (json_int_t)b.T, "recompute", (int)b.recompute,
                     "parameters", (json_int_t)b.model->table.total, "peaks", "f32", peaks.f32, "bf16", peaks.bf16, "int8",
                     peaks.int8, "read_gb", peaks.read_gb);
    BB_TRY_GOTO(status, done, measure(&b, x, o, root, err));
    *json = bb_json_text(root, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    if (!*json) status = bb_fail(err, BB_ERR_MEMORY, "out of memory");
done:
    json_decref(root);
    bb_optimizer_free(b.optimizer);
    bb_model_free(b.model);
    bb_device_close(b.device);
    free(x);
    return status;
}
