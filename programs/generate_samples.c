// SPDX-License-Identifier: MIT
#include "generate_samples.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"
#include "generate_report.h"
#include "json_out.h"
#include "ordered_batch.h"
#include "progress.h"
#include "replacement.h"
#include "signals.h"
#include "text_out.h"

typedef struct writer {
    const bb_samples *args;
    bb_text_out text;
    bb_sample *samples; /* (count) */
    int made;           /* samples that have ended, including one that a signal stopped */
    bb_status failed;   /* status of the sample that ended the run */
    bb_error error;
    bb_progress progress;
    bool terminal;
} writer;

static bool next_sample(void *user, bb_ordered_item *item) {
    const writer *w = user;
    if (item->number == w->args->count) return false;
    item->prompt = w->args->prompt;
    item->options = w->args->generation->options;
    item->options.seed += (uint64_t)item->number;
    return true;
}

/* See no-color.org. */
static bool takes_escapes(void) {
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    return (!no_color || !*no_color) && !(term && strcmp(term, "dumb") == 0);
}

static void show_prompt(writer *w) {
    if (w->args->prompt.size == 0) return;
    bool dim = w->terminal && takes_escapes();
    if (dim) fputs("\033[2m", stdout);
    for (size_t i = 0; i < w->args->prompt.size; i++) bb_text_out_byte(&w->text, w->args->prompt.data[i]);
    if (dim) fputs("\033[0m", stdout);
    fflush(stdout);
}

static void begin_sample(void *user, bb_ordered_item *item) {
    writer *w = user;
    const bb_samples *args = w->args;
    if (args->count > 1 && !args->json)
        printf("--- sample %d of %d, seed %llu ---\n", (int)item->number + 1, args->count,
               (unsigned long long)item->options.seed);
    /* with --json nothing is printed here, but invalid UTF-8 is counted */
    bb_text_out_open(&w->text, args->json ? NULL : stdout, args->json || !w->terminal);
    if (!args->json && (args->echo || (w->terminal && !args->no_echo))) show_prompt(w);
    w->text.utf8.invalid = 0;
}

static void on_byte(void *user, bb_ordered_item *item, uint8_t byte) {
    writer *w = user;
    bb_text_out_byte(&w->text, byte);
    if (w->args->json)
        bb_progress_update(&w->progress, "sample %d of %d: %zu bytes", (int)item->number + 1, w->args->count, item->length);
    else
        fflush(stdout);
}

static void end_sample(void *user, bb_ordered_item *item) {
    writer *w = user;
    const bb_samples *args = w->args;
    bb_sample *s = &w->samples[w->made++];
    bb_text_out_end(&w->text);
    if (!args->json && (w->terminal || args->count > 1)) fputc('\n', stdout);
    fflush(stdout);
    s->seed = item->options.seed;
    s->metrics = item->metrics;
    s->invalid_utf8 = w->text.utf8.invalid;
    s->text = item->text; /* now owned by the sample */
    s->length = item->length;
    item->text = NULL;
    if (item->finish == BB_FINISH_ERROR && w->failed == BB_OK) {
        w->failed = w->error.code = item->failure;
        memcpy(w->error.message, item->error, sizeof w->error.message);
    }
    if (args->metrics && item->finish != BB_FINISH_ERROR) {
        bb_progress_clear(&w->progress);
        bb_generate_report_show(s, stderr);
    }
}

static void on_read(void *user, int64_t done, int64_t total) {
    writer *w = user;
    bb_progress_update(&w->progress, "reading the prompt: %lld of %lld bytes", (long long)done, (long long)total);
    if (done == total) bb_progress_clear(&w->progress);
}

static bool stopped(void *user) {
    const writer *w = user;
    return *bb_signals_stop() || ferror(stdout) || w->failed != BB_OK;
}

static bb_status write_metrics(const char *path, const bb_generate_report *r, bb_error *err) {
    json_t *json = bb_generate_report_json(r);
    char *text = json ? bb_json_dump(json, JSON_INDENT(2)) : NULL;
    json_decref(json);
    if (!text) {
        snprintf(err->message, sizeof err->message, "out of memory for the metrics");
        return err->code = BB_ERR_MEMORY;
    }
    bb_replacement file;
    bb_status status = bb_replacement_open_stream(&file, path, err);
    if (status == BB_OK) {
        fprintf(file.stream, "%s\n", text);
        status = bb_replacement_close(&file, BB_OK, err);
    }
    free(text);
    return status;
}

static bb_status report(const writer *w, bb_error *err) {
    const bb_samples *args = w->args;
    bb_generate_report r = {.model = args->model_path,
                            .options = &args->generation->options,
                            .samples = w->samples,
                            .count = w->made,
                            .prompt_seconds = w->samples[0].metrics.prompt_seconds,
                            .prompt_bytes = (int64_t)args->prompt.size};
    bb_status status = args->metrics_json ? write_metrics(args->metrics_json, &r, err) : BB_OK;
    r.with_text = true;
    if (args->json) bb_json_line(bb_generate_report_json(&r));
    return status;
}

bb_status bb_generate_samples(const bb_samples *args, bb_error *err) {
    writer w = {.args = args, .terminal = isatty(STDOUT_FILENO) == 1};
    const bb_ordered ordered = {.next = next_sample,
                                .on_begin = begin_sample,
                                .on_byte = on_byte,
                                .on_end = end_sample,
                                .on_read = on_read,
                                .stopped = stopped,
                                .user = &w,
                                .keep = args->json};
    w.samples = calloc((size_t)args->count, sizeof *w.samples);
    if (!w.samples) {
        err->code = BB_ERR_MEMORY;
        strcpy(err->message, "out of memory for the samples");
        return err->code;
    }
    bb_progress_open(&w.progress, stderr, 0);
    bb_status status = bb_ordered_batch_run(&ordered, args->model, args->batch, err);
    bb_progress_clear(&w.progress);
    if (status == BB_OK && w.failed != BB_OK) {
        status = w.failed;
        *err = w.error;
    }
    if (status == BB_OK && w.made > 0) status = report(&w, err);
    for (int i = 0; i < w.made; i++) free(w.samples[i].text);
    free(w.samples);
    return status;
}
