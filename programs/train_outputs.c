// SPDX-License-Identifier: MIT
#include "train_outputs.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json_out.h"
#include "signals.h"

enum { SAMPLE_BYTES = 256 };

bb_train_outputs bb_train_outputs_for(const bb_train_args *args, bb_train_report *report, bb_model *model,
                                      bb_trainer *trainer) {
    return (bb_train_outputs){.args = args, .report = report, .model = model, .trainer = trainer, .command = {.fd = -1}};
}

__attribute__((format(printf, 2, 3))) static void note(bb_train_outputs *o, const char *fmt, ...) {
    char message[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    bb_train_report_note(o->report, message);
}

/* ---- metrics.csv -------------------------------------------------------------------------------------------------------- */

static const char csv_head[] = "step,loss,bpb,lr,seq_len,grad_norm,bytes,bytes_per_s,skipped,skipped_micro,val_bpb\n";

/* Returns whether the run continues one in its own directory, rather than from a checkpoint of another. */
static bool continues_here(const bb_train_outputs *o) {
    const char *from = bb_trainer_resumed_from(o->trainer), *slash = from ? strrchr(from, '/') : NULL;
    char directory[4096] = ".";
    struct stat theirs, ours;
    if (slash) snprintf(directory, sizeof directory, "%.*s", (int)(slash + 1 - from), from);
    return from && stat(directory, &theirs) == 0 && stat(o->args->out, &ours) == 0 && theirs.st_dev == ours.st_dev &&
           theirs.st_ino == ours.st_ino;
}

/* Keeps the lines up to the step that the run continues from, as metrics.jsonl does. */
static void open_csv(bb_train_outputs *o) {
    char path[4096], aside[4200], line[512];
    snprintf(path, sizeof path, "%s/metrics.csv", o->args->out);
    snprintf(aside, sizeof aside, "%s.tmp.%d", path, (int)getpid());
    FILE *before = continues_here(o) ? fopen(path, "r") : NULL, *file = fopen(aside, "w");
    if (file) fputs(csv_head, file);
    while (file && before && fgets(line, sizeof line, before)) {
        char *end = NULL;
        long long step = strtoll(line, &end, 10);
        if (end > line && *end == ',' && step <= o->first_step) fputs(line, file);
    }
    if (before) fclose(before);
    bool written = file && !ferror(file);
    if (file) written = fclose(file) == 0 && written;
    written = written && rename(aside, path) == 0;
    o->csv = written ? fopen(path, "a") : NULL;
    int reason = errno;
    if (file && !written) (void)unlink(aside);
    errno = reason;
    if (!o->csv) note(o, "warning: %s: cannot write: %s; the run continues without it", path, strerror(errno));
}

/* Non-finite numbers become empty fields. */
static void put_number(FILE *file, double value) {
    if (isfinite(value)) fprintf(file, "%.9g", value);
}

static void write_csv(bb_train_outputs *o, const bb_train_event *e) {
    FILE *f = o->csv;
    if (!f) return;
    fprintf(f, "%lld,", (long long)e->step);
    if (e->kind == BB_TRAIN_STEP) {
        const double values[] = {e->loss, e->bpb, e->lr, e->seq_len, e->grad_norm};
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
            put_number(f, values[i]);
            fputc(',', f);
        }
        fprintf(f, "%lld,%.9g,%lld,%lld,", (long long)e->bytes_seen, e->bytes_per_second, (long long)e->skipped_steps,
                (long long)e->skipped_micro_batches);
    } else {
        fputs(",,,,,,,,,", f);
        put_number(f, e->val_bpb);
    }
    fputc('\n', f);
    if (fflush(f) == 0) return;
    note(o, "warning: metrics.csv: cannot write: %s; the run continues without it", strerror(errno));
    fclose(f);
    o->csv = NULL;
}

/* ---- TensorBoard -------------------------------------------------------------------------------------------------------- */

static void open_board(bb_train_outputs *o) {
    o->board = bb_tensorboard_open(o->args->out, o->first_step);
    if (!o->board) {
        note(o, "warning: %s: cannot write an event file: %s; the run continues without it", o->args->out, strerror(errno));
        return;
    }
    json_t *options = json_loads(o->args->checkpoint_config_json, 0, NULL);
    bb_tensorboard_hparams(o->board, options);
    json_decref(options);
    if (bb_dist_size(o->args->options.dist) > 1 && o->args->zero)
        note(o, "--tensorboard: no histograms, because each rank updates only its part of the weights; use --zero 0 for "
                "histograms");
}

static void write_histograms(bb_train_outputs *o, int64_t step) {
    size_t largest = 0;
    bb_tensor_info info;
    bb_error err;
    int count = bb_model_tensor_count(o->model);
    for (int i = 0; i < count; i++)
        if (bb_model_tensor_info(o->model, i, &info, &err) == BB_OK) {
            size_t n = (size_t)(info.shape[0] * (info.rank == 2 ? info.shape[1] : 1));
            if (n > largest) largest = n;
        }
    float *values = malloc((largest ? largest : 1) * sizeof *values);
    for (int i = 0; values && i < count; i++) {
        char tag[160];
        if (bb_model_tensor_info(o->model, i, &info, &err) != BB_OK) continue;
        size_t n = (size_t)(info.shape[0] * (info.rank == 2 ? info.shape[1] : 1));
        if (bb_model_get_tensor(o->model, info.name, values, n, &err) != BB_OK) continue;
        snprintf(tag, sizeof tag, "weights/%s", info.name);
        bb_tensorboard_histogram(o->board, step, tag, values, (int64_t)n);
    }
    free(values);
}

static bool due(int64_t step, int64_t every, int64_t total) { return (every > 0 && step % every == 0) || step == total; }

static void write_board(bb_train_outputs *o, const bb_train_event *e) {
    if (!o->board) return;
    if (e->kind == BB_TRAIN_VALIDATION) {
        bb_tensorboard_scalar(o->board, e->step, "validation/bpb", e->val_bpb);
    } else {
        const struct {
            const char *tag;
            double value;
        } scalars[] = {{"train/loss", e->loss},
                       {"train/bpb", e->bpb},
                       {"train/lr", e->lr},
                       {"train/grad_norm", e->grad_norm},
                       {"train/bytes_per_s", e->bytes_per_second},
                       {"train/bytes", (double)e->bytes_seen},
                       {"train/skipped", (double)e->skipped_steps}};
        for (size_t i = 0; i < sizeof scalars / sizeof *scalars; i++)
            bb_tensorboard_scalar(o->board, e->step, scalars[i].tag, scalars[i].value);
    }
    if (bb_tensorboard_flush(o->board)) return;
    note(o, "warning: cannot write TensorBoard's event file: %s; the run continues without it", strerror(errno));
    (void)bb_tensorboard_close(o->board);
    o->board = NULL;
}

/* ---- the command -------------------------------------------------------------------------------------------------------- */

/* Releases `event`. */
static void send_event(bb_train_outputs *o, json_t *event) {
    char *line = o->command.pid && event ? bb_json_dump(event, JSON_COMPACT) : NULL;
    json_decref(event);
    if (line && !bb_metrics_command_send(&o->command, line))
        note(o, "warning: the command of --on_metrics no longer reads its input; the run continues without it");
    free(line);
}

/* ---- samples ------------------------------------------------------------------------------------------------------------ */

typedef struct sample {
    uint8_t text[SAMPLE_BYTES];
    size_t size;
} sample;

static bool keep_byte(void *user, uint8_t byte) {
    sample *s = user;
    if (s->size < sizeof s->text) s->text[s->size++] = byte;
    return !*bb_signals_stop();
}

/* Writes samples/step-%08d.txt: the prompt and the sample, byte for byte. */
static void write_sample_file(bb_train_outputs *o, int64_t step, const char *prompt, const sample *s) {
    char path[4096];
    snprintf(path, sizeof path, "%s/samples", o->args->out);
    (void)mkdir(path, 0777); /* if it fails, opening the file says why */
    snprintf(path, sizeof path, "%s/samples/step-%08lld.txt", o->args->out, (long long)step);
    FILE *file = fopen(path, "wb");
    bool good =
        file && fwrite(prompt, 1, strlen(prompt), file) == strlen(prompt) && fwrite(s->text, 1, s->size, file) == s->size;
    if (file) good = fclose(file) == 0 && good;
    if (!good) note(o, "warning: %s: cannot write: %s", path, strerror(errno));
}

static void on_sample(bb_train_outputs *o, int64_t step) {
    const char *prompt = o->args->sample_prompt ? o->args->sample_prompt : "";
    bb_generate_options options;
    sample s = {.size = 0};
    bb_error err;
    bb_generate_options_default(&options);
    options.max_new_bytes = SAMPLE_BYTES;
    options.seed = (uint64_t)o->args->seed;
    options.on_byte = keep_byte;
    options.user = &s;
    bb_status status = bb_generate(o->model, (const uint8_t *)prompt, strlen(prompt), &options, NULL, &err);
    if (*bb_signals_stop()) return; /* interrupted within the sample */
    json_t *event = json_pack("{s:s,s:I}", "event", "sample", "step", (json_int_t)step), *text = json_object();
    if (status == BB_OK && event && text) {
        json_object_set_new(event, "prompt", bb_json_path_string(prompt));
        bb_json_add_bytes(text, s.text, s.size);
        json_object_set(event, "sample", json_object_get(text, "text"));
        const char *shown = json_string_value(json_object_get(event, "sample"));
        const char *asked = json_string_value(json_object_get(event, "prompt"));
        status = bb_trainer_log_sample(o->trainer, asked, shown, &err);
        if (o->board && shown) bb_tensorboard_text(o->board, step, "sample", shown);
        write_sample_file(o, step, prompt, &s);
        bb_train_report_sample(o->report, event);
    }
    if (status != BB_OK) note(o, "warning: no sample at step %lld: %.800s", (long long)step, err.message);
    json_decref(text);
    send_event(o, event);
}

/* ---- together ----------------------------------------------------------------------------------------------------------- */

static void open_all(bb_train_outputs *o) {
    o->opened = true;
    if (o->args->metrics_csv) open_csv(o);
    if (o->args->tensorboard) open_board(o);
    if (o->args->on_metrics && !bb_metrics_command_open(&o->command, o->args->on_metrics))
        note(o, "warning: --on_metrics: cannot start sh: %s; the run continues without it", strerror(errno));
}

void bb_train_outputs_event(bb_train_outputs *o, const bb_train_event *e) {
    bool step = e->kind == BB_TRAIN_STEP, validation = e->kind == BB_TRAIN_VALIDATION;
    if (!o->opened && (step || validation)) open_all(o);
    if ((step && e->logged) || validation) {
        write_csv(o, e);
        write_board(o, e);
    }
    if (o->command.pid && (!step || e->logged)) send_event(o, bb_train_event_json(e));
    if (!step) return;
    bool ranks = bb_dist_size(o->args->options.dist) > 1 && o->args->zero;
    if (o->board && !ranks && due(e->step, o->args->options.save_every, e->total_steps)) write_histograms(o, e->step);
    if (o->args->sample_every > 0 && due(e->step, o->args->sample_every, e->total_steps)) on_sample(o, e->step);
}

void bb_train_outputs_close(bb_train_outputs *o) {
    if (o->csv && fclose(o->csv) != 0) note(o, "warning: metrics.csv: cannot write: %s", strerror(errno));
    if (o->board && !bb_tensorboard_close(o->board)) note(o, "warning: cannot write TensorBoard's event file");
    bool ran = o->command.pid != 0;
    int status = bb_metrics_command_close(&o->command);
    if (o->command.dropped)
        note(o, "warning: the command of --on_metrics was too slow: %lld lines were dropped", (long long)o->command.dropped);
    if (ran && status < 0)
        note(o, "the command of --on_metrics is still running; its standard input is closed");
    else if (status > 0)
        note(o, "warning: the command of --on_metrics ended with status %d", status);
}
