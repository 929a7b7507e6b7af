// SPDX-License-Identifier: MIT
/* Output of `bitbyte train`: summary, progress and result, as text or as lines of JSON. */
#include "train_report.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "json_out.h"

bb_status bb_train_report_open(bb_train_report *report, const bb_train_args *args, bb_error *err) {
    *report = (bb_train_report){.args = args};
    bb_progress_open(&report->progress, args->json ? stderr : stdout, 0);
    report->ranks = calloc((size_t)bb_dist_size(args->options.dist), sizeof *report->ranks);
    if (report->ranks) return BB_OK;
    snprintf(err->message, sizeof err->message, "out of memory");
    return err->code = BB_ERR_MEMORY;
}

void bb_train_report_close(bb_train_report *report) { free(report->ranks); }

/* Gathers one number from each rank. */
static bb_status gather(bb_train_report *report, uint64_t mine, size_t field, bb_error *err) {
    bb_dist *dist = report->args->options.dist;
    uint64_t *all = calloc((size_t)bb_dist_size(dist), sizeof *all);
    bb_status status = BB_ERR_MEMORY;
    if (all)
        status = bb_dist_all_gather_u64(dist, mine, all, err);
    else
        snprintf(err->message, sizeof err->message, "out of memory");
    for (int r = 0; r < bb_dist_size(dist) && status == BB_OK; r++)
        memcpy((unsigned char *)&report->ranks[r] + field, &all[r], sizeof all[r]);
    free(all);
    return err->code = status;
}

bb_status bb_train_report_memory(bb_train_report *report, uint64_t predicted, uint64_t optimizer, bb_error *err) {
    bb_status status = gather(report, predicted, offsetof(bb_rank_memory, predicted), err);
    return status == BB_OK ? gather(report, optimizer, offsetof(bb_rank_memory, optimizer), err) : status;
}

/* The data that the remaining steps will read. */
typedef struct planned {
    double bytes, epochs;
} planned;

/* Counts by phase of the curriculum; within a phase the sequence length is constant. */
static planned plan_from(const bb_train_options *o, const bb_dataset *dataset, int64_t first_step) {
    planned sum = {0};
    for (int64_t at = first_step; at < o->steps;) {
        int length = o->seq_len ? o->seq_len : bb_seq_len_for_step(at, o->steps, o->seq_len_cap);
        int64_t low = o->seq_len ? o->steps : at + 1, high = o->steps; /* the phase ends in [low, high] */
        while (low < high) {
            int64_t middle = low + (high - low) / 2;
            if (bb_seq_len_for_step(middle, o->steps, o->seq_len_cap) == length)
                low = middle + 1;
            else
                high = middle;
        }
        double sequences = (double)o->global_batch * (double)(low - at);
        sum.bytes += sequences * length;
        sum.epochs += bb_dataset_epochs(dataset, length, sequences);
        at = low;
    }
    return sum;
}

static const char *quote(const char *path) { return strpbrk(path, " \t\"'$`\\*?[]();&|<>#~!") ? "'" : ""; }

static json_t *ranks_json(const bb_train_report *report) {
    const bb_dist *dist = report->args->options.dist;
    json_t *ranks = json_array();
    for (int r = 0; r < bb_dist_size(dist); r++) {
        const bb_rank_memory *m = &report->ranks[r];
        json_array_append_new(ranks, json_pack("{s:i,s:s,s:I,s:I,s:o*}", "rank", r, "host", bb_dist_host(dist, r), "memory",
                                               (json_int_t)m->predicted, "optimizer", (json_int_t)m->optimizer, "memory_peak",
                                               m->peak ? json_integer((json_int_t)m->peak) : NULL));
    }
    return ranks;
}

/* One line per rank; ranks with the same memory on the same host share a line. */
static void ranks_text(bb_train_report *report) {
    const bb_dist *dist = report->args->options.dist;
    for (int r = 0, size = bb_dist_size(dist), first = 0; r < size; r++) {
        const bb_rank_memory *m = &report->ranks[r];
        if (r + 1 < size && memcmp(&report->ranks[r + 1], &report->ranks[first], sizeof *m) == 0 &&
            strcmp(bb_dist_host(dist, r + 1), bb_dist_host(dist, first)) == 0)
            continue;
        char peak[128] = "", ranks[64];
        if (m->peak) snprintf(peak, sizeof peak, "peak resident %s, predicted ", bb_text_bytes(m->peak).s);
        snprintf(ranks, sizeof ranks, first == r ? "rank     %d" : "ranks    %d to %d", first, r);
        bb_progress_line(&report->progress, "%s on %s: %s%s of memory%s, optimizer state %s", ranks, bb_dist_host(dist, r),
                         peak, bb_text_bytes(m->predicted).s, first == r ? "" : " each", bb_text_bytes(m->optimizer).s);
        first = r + 1;
    }
}

/* docs/LEARNING.md */
static void note_repeated_data(bb_train_report *report, const bb_config *config, const planned *plan) {
    enum { FEW_EPOCHS = 3 };
    char message[256];
    if (config->ngram_max == 0 || plan->epochs <= FEW_EPOCHS || bb_dist_rank(report->args->options.dist) > 0) return;
    snprintf(message, sizeof message,
             "the run reads the data %.3g times; beyond about %d times, n-gram embeddings memorize passages, and --arch llama "
             "may predict other text better",
             plan->epochs, FEW_EPOCHS);
    bb_train_report_note(report, message);
}

/* A run of days is rarely intended. The speed is measured only if even the fastest processor would take hours. */
static void note_long_run(bb_train_report *report, bb_device *device, const bb_config *config, const planned *plan) {
    static const double fast = 1e12, hours = 4; /* operations per second of a thread, with a margin */
    const bb_train_options *o = &report->args->options;
    double operations = 6 * (double)bb_config_parameters(config) * plan->bytes, speed, days;
    int ranks = bb_dist_size(o->dist);
    bb_error ignored;
    if (bb_dist_rank(o->dist) > 0 || report->args->plan.steps > 0 ||
        operations < fast * bb_device_threads(device) * ranks * 3600 * hours)
        return;
    int seq_len = o->seq_len ? o->seq_len : bb_seq_len_for_step(0, o->steps, o->seq_len_cap);
    if (bb_training_speed(device, config, seq_len, &speed, &ignored) != BB_OK || !(speed > 0)) return;
    days = plan->bytes / (speed * ranks) / 86400;
    char message[256];
    snprintf(
        message, sizeof message,
        "at about %s/s this run takes %.3g days; --minutes 30 chooses a model and a number of steps that fit in half an hour",
        bb_text_bytes((uint64_t)(speed * ranks)).s, days);
    if (days > 1) bb_train_report_note(report, message);
}

/* Returns NULL if there is no plan. */
static json_t *plan_json(const bb_plan *plan) {
    json_t *lines = plan->steps > 0 ? json_array() : NULL;
    for (int i = 0; lines && i < BB_PLAN_LINES; i++) json_array_append_new(lines, json_string(plan->lines[i]));
    return lines;
}

static void summary_json(const bb_train_report *report, bb_device *device, const bb_config *config,
                         const bb_train_memory *memory, const bb_dataset_info *data, int64_t first_step, const planned *plan) {
    const bb_train_args *args = report->args;
    bb_json_line(json_pack(
        "{s:s,s:o,s:I,s:I,s:I,s:{s:i,s:i,s:i,s:i,s:i},s:s,s:i,s:I,s:I,s:I,s:f,s:f,s:o,s:o,s:o,s:o*}", "event", "start", "out",
        bb_json_path_string(args->out), "step", (json_int_t)first_step, "total_steps", (json_int_t)args->options.steps,
        "parameters", (json_int_t)bb_config_parameters(config), "model", "n_layer", config->n_layer, "d_model", config->d_model,
        "n_head", config->n_head, "n_kv_head", config->n_kv_head, "d_ff", config->d_ff, "device", bb_device_name(device),
        "threads", bb_device_threads(device), "data_shards", (json_int_t)data->shards, "data_bytes", (json_int_t)data->bytes,
        "data_skipped_shards", (json_int_t)data->skipped_shards, "run_bytes", plan->bytes, "epochs", plan->epochs, "ranks",
        ranks_json(report), "memory", bb_memory_json(&memory->estimate), "memory_free",
        memory->free_bytes > 0 ? json_integer((json_int_t)memory->free_bytes) : json_null(), "plan", plan_json(&args->plan)));
}

void bb_train_report_summary(bb_train_report *report, bb_device *device, const bb_config *config, const bb_train_memory *memory,
                             const bb_dataset *dataset, int64_t first_step) {
    const bb_train_args *args = report->args;
    const bb_train_options *o = &args->options;
    bb_dataset_info data = bb_dataset_get_info(dataset);
    planned plan = plan_from(o, dataset, first_step);
    if (args->json) {
        summary_json(report, device, config, memory, &data, first_step, &plan);
        note_long_run(report, device, config, &plan);
        note_repeated_data(report, config, &plan);
        return;
    }
    FILE *out = report->progress.stream;
    char line[512], lengths[64];
    char kv_heads[48] = "", ngrams[48] = "";
    if (config->n_kv_head != config->n_head)
        snprintf(kv_heads, sizeof kv_heads, " (%d for keys and values)", config->n_kv_head);
    if (config->ngram_max) snprintf(ngrams, sizeof ngrams, ", n-grams to %d of 2^%d", config->ngram_max, config->ngram_bits);
    fprintf(out, "model    %s parameters: %d layer%s, d_model %d, %d head%s%s, d_ff %d%s%s%s\n",
            bb_text_count(bb_config_parameters(config)).s, config->n_layer, config->n_layer == 1 ? "" : "s", config->d_model,
            config->n_head, config->n_head == 1 ? "" : "s", kv_heads, config->d_ff, ngrams,
            config->dense       ? ", dense"
            : config->act_quant ? ""
                                : ", inputs not quantized",
            config->ste == BB_STE_CLIPPED ? ", clipped gradients" : "");
    for (int i = 0; i < BB_PLAN_LINES && args->plan.steps > 0; i++) fprintf(out, "plan     %s\n", args->plan.lines[i]);
    if (args->init) fprintf(out, "weights  from %s\n", args->init);
    fprintf(out, "device   %s, %d thread%s: %s\n", bb_device_name(device), bb_device_threads(device),
            bb_device_threads(device) == 1 ? "" : "s", bb_device_description(device));
    bb_memory_line(&memory->estimate, line, sizeof line);
    if (memory->free_bytes > 0)
        fprintf(out, "memory   %s of %s free: %s\n", bb_text_bytes(memory->estimate.total).s,
                bb_text_bytes(memory->free_bytes).s, line);
    else
        fprintf(out, "memory   %s, free memory unknown: %s\n", bb_text_bytes(memory->estimate.total).s, line);
    if (bb_dist_size(o->dist) > 1) ranks_text(report);
    fprintf(out, "data     %s: %lld shard%s, %s\n", args->data, (long long)data.shards, data.shards == 1 ? "" : "s",
            bb_text_bytes((uint64_t)data.bytes).s);
    int first = o->seq_len ? o->seq_len : bb_seq_len_for_step(first_step, o->steps, o->seq_len_cap);
    int last = bb_train_max_seq_len(o);
    if (first == last)
        snprintf(lengths, sizeof lengths, "%d bytes", first);
    else
        snprintf(lengths, sizeof lengths, "%d bytes, growing to %d", first, last);
    fprintf(out, "a step   %d x %lld sequences of %s: %lld bytes\n", o->batch_size, (long long)o->global_batch / o->batch_size,
            lengths, (long long)o->global_batch * first);
    const char *unit = bb_trainer_sampling(report->trainer) == BB_SAMPLING_EPOCHS ? "epoch" : "time";
    bool one = plan.epochs > 0.995 && plan.epochs < 1.005;
    fprintf(out, "run      steps %lld to %lld, %s: %.3g %s%s %s; %s, lr %g\n", (long long)first_step + 1, (long long)o->steps,
            bb_text_bytes((uint64_t)plan.bytes).s, plan.epochs, unit, one ? "" : "s",
            unit[0] == 'e' ? "of the data" : "the data, windows drawn with replacement as in the resumed run",
            bb_optim_choices[args->optim], args->lr);
    fprintf(out, "out      %s\n", args->out);
    if (args->checkpoint[0])
        fprintf(out, "resumes  %s\n", bb_trainer_resumed_from(report->trainer));
    else if (args->resume)
        fprintf(out, "resumes  %s: no checkpoint yet, starts at step 0\n", args->resume);
    fflush(out);
    note_long_run(report, device, config, &plan);
    note_repeated_data(report, config, &plan);
}

static json_t *number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

json_t *bb_train_event_json(const bb_train_event *e) {
    switch (e->kind) {
    case BB_TRAIN_STEP:
        return json_pack("{s:s,s:I,s:I,s:i,s:o,s:o,s:f,s:o,s:I,s:f,s:f,s:f,s:I,s:I,s:f,s:f,s:b,s:o*}", "event", "step", "step",
                         (json_int_t)e->step, "total_steps", (json_int_t)e->total_steps, "seq_len", e->seq_len, "loss",
                         number(e->loss), "bpb", number(e->bpb), "lr", e->lr, "grad_norm", number(e->grad_norm), "bytes",
                         (json_int_t)e->bytes_seen, "bytes_per_s", e->bytes_per_second, "elapsed_s", e->elapsed_seconds,
                         "eta_s", e->eta_seconds, "skipped", (json_int_t)e->skipped_steps, "skipped_micro",
                         (json_int_t)e->skipped_micro_batches, "wait_share", e->wait_share, "exposed_share", e->exposed_share,
                         "logged", (int)e->logged, "loss_scale", e->loss_scale > 0 ? json_real(e->loss_scale) : NULL);
    case BB_TRAIN_VALIDATION:
        return json_pack("{s:s,s:I,s:o,s:o*,s:o*}", "event", "validation", "step", (json_int_t)e->step, "val_bpb",
                         number(e->val_bpb), "best_step", e->best_step < 0 ? NULL : json_integer(e->best_step), "patience_left",
                         e->patience_left < 0 ? NULL : json_integer(e->patience_left));
    case BB_TRAIN_SAVED:
        return json_pack("{s:s,s:I,s:o,s:f}", "event", "saved", "step", (json_int_t)e->step, "path",
                         bb_json_path_string(e->path), "pause_s", e->pause_seconds);
    case BB_TRAIN_NOTICE:
        return json_pack("{s:s,s:I,s:o}", "event", "notice", "step", (json_int_t)e->step, "message",
                         bb_json_path_string(e->message));
    }
    return NULL;
}

static void skipped_text(const bb_train_event *e, char *out, size_t size) {
    out[0] = '\0';
    if (e->skipped_steps) snprintf(out, size, "  skipped %lld", (long long)e->skipped_steps);
    if (e->wait_share > 0) snprintf(out + strlen(out), size - strlen(out), "  waits %.1f%%", 100 * e->wait_share);
}

static void step_text(const bb_train_event *e, char *out, size_t size) {
    char skipped[80];
    skipped_text(e, skipped, sizeof skipped);
    snprintf(out, size, "step %lld/%lld  seq %d  loss %.4f  bpb %.4f  lr %.3g  grad %.3g  %s/s  eta %s%s", (long long)e->step,
             (long long)e->total_steps, e->seq_len, e->loss, e->bpb, e->lr, e->grad_norm,
             bb_text_bytes((uint64_t)e->bytes_per_second).s, bb_text_duration(e->eta_seconds).s, skipped);
}

/* The most important fields come first, because a narrow terminal cuts the end. */
static void show_live(bb_train_report *report, const bb_train_event *e) {
    char what[64], detail[256], skipped[80];
    skipped_text(e, skipped, sizeof skipped);
    snprintf(what, sizeof what, "step %lld/%lld", (long long)e->step, (long long)e->total_steps);
    snprintf(detail, sizeof detail, "loss %.3f %s bpb %.3f lr %.2g grad %.2g seq %d%s", e->loss,
             report->progress.utf8 ? bb_spark_show(&report->losses).s : "", e->bpb, e->lr, e->grad_norm, e->seq_len, skipped);
    const bb_progress_bar bar = {.what = what,
                                 .done = (double)e->step,
                                 .total = (double)e->total_steps,
                                 .rate = e->bytes_per_second,
                                 .eta = e->eta_seconds,
                                 .detail = detail};
    bb_progress_show(&report->progress, &bar);
}

static void validation_text(const bb_train_event *e, char *out, size_t size) {
    int used = snprintf(out, size, "step %lld  validation bpb %.4f", (long long)e->step, e->val_bpb);
    if (e->patience_left < 0 || used < 0 || (size_t)used >= size) return;
    if (e->best_step == e->step)
        snprintf(out + used, size - (size_t)used, ", the best so far");
    else if (e->best_step >= 0)
        snprintf(out + used, size - (size_t)used, "; best at step %lld, patience %lld", (long long)e->best_step,
                 (long long)e->patience_left);
}

static void event_text(bb_train_report *report, const bb_train_event *e) {
    bb_progress *progress = &report->progress;
    char text[256];
    switch (e->kind) {
    case BB_TRAIN_STEP:
        bb_spark_add(&report->losses, (double)e->step / (double)e->total_steps, e->loss);
        if (e->logged) {
            step_text(e, text, sizeof text);
            bb_progress_line(progress, "%s", text);
        } else {
            show_live(report, e);
        }
        break;
    case BB_TRAIN_VALIDATION:
        validation_text(e, text, sizeof text);
        bb_progress_line(progress, "%s", text);
        break;
    case BB_TRAIN_SAVED: bb_progress_line(progress, "step %lld  saved %s", (long long)e->step, e->path); break;
    case BB_TRAIN_NOTICE:
        bb_progress_line(progress, strncmp(e->message, "warning: ", 9) == 0 ? "%s" : "note: %s", e->message);
        break;
    }
}

void bb_train_report_event(void *user, const bb_train_event *e) {
    bb_train_report *report = user;
    if (e->kind == BB_TRAIN_SAVED) snprintf(report->saved, sizeof report->saved, "%s", e->path);
    if (report->args->json)
        bb_json_line(bb_train_event_json(e));
    else
        event_text(report, e);
    /* If standard output is closed, e.g. by `| head`: stop and save, to keep the steps since the last checkpoint. */
    if (ferror(stdout)) bb_trainer_request_stop(report->trainer);
}

/* Makes a sample fit on one line: control characters are replaced. */
static void sample_text(const char *sample, char *out, size_t size) {
    size_t n = 0;
    const unsigned char *c = (const unsigned char *)sample;
    for (; *c && n + 1 < size; c++) {
        bool control = *c < 0x20 || *c == 0x7f || (*c == 0xC2 && c[1] < 0xA0); /* the last: U+0080 to U+009F */
        if (*c == 0xC2 && control) c++;
        out[n++] = (char)(control ? ' ' : *c);
    }
    while (n > 0 && (*c & 0xC0) == 0x80) { /* within a character */
        n--;
        c--;
    }
    out[n] = '\0';
}

void bb_train_report_sample(bb_train_report *report, json_t *event) {
    if (report->args->json) {
        bb_json_line(json_incref(event));
        return;
    }
    char text[120];
    sample_text(json_string_value(json_object_get(event, "sample")), text, sizeof text);
    bb_progress_line(&report->progress, "step %lld  sample: %s%s",
                     (long long)json_integer_value(json_object_get(event, "step")),
                     report->args->sample_prompt ? report->args->sample_prompt : "", text);
}

void bb_train_report_note(bb_train_report *report, const char *message) {
    bb_train_event e = {.kind = BB_TRAIN_NOTICE, .step = bb_trainer_step(report->trainer), .message = message};
    bb_train_report_event(report, &e);
}

void bb_train_report_profile(bb_train_report *report, const char *profile) {
    json_t *root = json_loads(profile, 0, NULL);
    if (report->args->json) {
        if (root) json_object_set_new(root, "event", json_string("profile"));
        bb_json_line(root);
        return;
    }
    bb_progress_line(&report->progress, "profile:");
    bb_json_show(root, stdout);
    json_decref(root);
}

bb_status bb_train_report_end(bb_train_report *report, bool interrupted, int64_t step, double seconds, bb_error *err) {
    const bb_train_args *args = report->args;
    int64_t total = bb_trainer_total_steps(report->trainer);
    bool out_of_patience = bb_trainer_out_of_patience(report->trainer);
    bool complete = (step >= total || out_of_patience) && !interrupted && !bb_trainer_out_of_time(report->trainer);
    struct rusage used;
    double wait_share, exposed_share;
    bb_trainer_wait_shares(report->trainer, &wait_share, &exposed_share);
    uint64_t peak = getrusage(RUSAGE_SELF, &used) == 0 ? (uint64_t)used.ru_maxrss * 1024 : 0;
    bb_status status = gather(report, peak, offsetof(bb_rank_memory, peak), err);
    if (status != BB_OK) return status;
    long long failed_validations = (long long)bb_trainer_failed_validations(report->trainer);
    if (args->json) {
        bb_json_line(json_pack(
            "{s:s,s:I,s:I,s:b,s:o,s:f,s:f,s:f,s:I,s:o}", "event",
            interrupted ? "interrupted"
            : complete  ? "done"
                        : "stopped",
            "step", (json_int_t)step, "total_steps", (json_int_t)total, "out_of_patience", (int)out_of_patience, "checkpoint",
            report->saved[0] ? bb_json_path_string(report->saved) : json_null(), "seconds", seconds, "wait_share", wait_share,
            "exposed_share", exposed_share, "failed_validations", (json_int_t)failed_validations, "ranks", ranks_json(report)));
        return BB_OK;
    }
    const char *q = quote(args->out);
    if (bb_dist_size(args->options.dist) > 1) {
        ranks_text(report);
        bb_progress_line(&report->progress, "waiting  %.1f%% of the time, %.1f%% for communication not hidden by computation",
                         100 * wait_share, 100 * exposed_share);
    }
    if (failed_validations)
        bb_progress_line(&report->progress, "%lld validation%s failed: see the notes above", failed_validations,
                         failed_validations == 1 ? "" : "s");
    double best_bpb = NAN;
    int64_t best_step = bb_trainer_best_step(report->trainer, &best_bpb);
    bool best = best_step >= 0;
    if (complete && out_of_patience)
        bb_progress_line(&report->progress,
                         "done: %lld of %lld steps, %s; %d validation%s in a row (--patience) %s not better than the best one",
                         (long long)step, (long long)total, bb_text_duration(seconds).s, args->options.patience,
                         args->options.patience == 1 ? "" : "s", args->options.patience == 1 ? "was" : "were");
    else if (complete)
        bb_progress_line(&report->progress, "done: %lld steps, %s", (long long)step, bb_text_duration(seconds).s);
    if (best) bb_progress_line(&report->progress, "best: step %lld, bpb %.4f", (long long)best_step, best_bpb);
    if (complete) {
        bb_progress_line(&report->progress, "generate:  bitbyte generate %s%s%s%s --prompt 'TEXT'", q, args->out,
                         best ? "/best" : "", q);
    } else {
        bb_progress_line(&report->progress, "stopped after step %lld of %lld, %s", (long long)step, (long long)total,
                         report->saved[0] ? "saved" : "nothing new to save");
        bb_progress_line(&report->progress, "resume:  bitbyte train --resume %s%s%s", q, args->out, q);
    }
    return BB_OK;
}
