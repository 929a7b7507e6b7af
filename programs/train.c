/* bitbyte train: opens what the run needs, says what it will be, trains.
 * SPDX-License-Identifier: MIT */
#include "train.h"

#include <signal.h>
#include <stdlib.h>

#include "signals.h"

typedef struct run {
    bb_device *device;
    bb_model *model;
    bb_optimizer *optimizer;
    bb_dataset *dataset;
    bb_trainer *trainer;
} run;

/* What the run takes at its longest sequences, and whether that is there: if need be, without the copy that checkpoints are
 * written from (*no_copy). A validation with longer windows needs its own. */
static bb_status check_memory(const bb_train_args *args, bb_device *device, const bb_config *config, bb_memory_estimate *memory,
                              uint64_t *free_bytes, bool *no_copy, bb_error *err) {
    const bb_train_options *o = &args->options;
    uint64_t total_bytes;
    int longest = bb_train_longest(o);
    bb_status status =
        bb_memory_predict(device, config, (bb_optimizer_kind)args->optim, o->batch_size, longest, o->recompute, memory, err);
    if (status == BB_OK && args->val_data && o->val_seq_len > longest) {
        bb_memory_estimate validation;
        status = bb_memory_predict(device, config, (bb_optimizer_kind)args->optim, 1, o->val_seq_len, o->recompute, &validation,
                                   err);
        if (status == BB_OK && validation.total > memory->total) *memory = validation;
    }
    if (status != BB_OK) return status;
    bb_device_memory(device, &total_bytes, free_bytes);
    *no_copy = o->save_sync || memory->total > *free_bytes;
    if (*no_copy) {
        memory->total -= memory->checkpoint_copy;
        memory->checkpoint_copy = 0;
    }
    if (memory->total <= *free_bytes) return BB_OK;
    char line[512];
    bb_memory_line(memory, line, sizeof line);
    err->code = BB_ERR_MEMORY;
    snprintf(err->message, sizeof err->message,
             "this run needs %s of memory, %s of %s is free: %s. Less of it: a smaller --batch_size (more --grad_accum), "
             "--seq_len_cap%s%s, or a smaller model",
             bb_text_bytes(memory->total).s, bb_text_bytes(*free_bytes).s, bb_text_bytes(total_bytes).s, line,
             o->recompute ? "" : ", no --no_ckpt", args->optim == BB_OPTIM_ADAMW ? ", --optim adamw8bit" : "");
    return err->code;
}

static bb_status open_run(const bb_train_args *args, bb_train_report *report, run *r, bb_error *err) {
    bb_config config;
    bb_memory_estimate memory;
    uint64_t free_bytes;
    bool no_copy;
    bb_status status;
    bb_model_args_config(&args->model, &config);
    if ((status = bb_device_args_open(&args->device, &r->device, err)) != BB_OK) return status;
    if ((status = check_memory(args, r->device, &config, &memory, &free_bytes, &no_copy, err)) != BB_OK) return status;
    /* Opened at the longest sequences first: data that is too short for them is found now, not halfway. */
    status =
        bb_byte_shard_dataset_open(args->data, bb_train_longest(&args->options), (uint64_t)args->seed, 0, 1, &r->dataset, err);
    if (status != BB_OK) return status;

    if (args->init)
        status = bb_model_load(r->device, args->init, &r->model, err);
    else
        status = bb_model_create(r->device, &config, (uint64_t)args->seed, &r->model, err);
    if (status != BB_OK) return status;

    bb_optimizer_options optimizer;
    bb_optimizer_options_default(&optimizer);
    optimizer.kind = (bb_optimizer_kind)args->optim;
    optimizer.lr = args->lr;
    optimizer.weight_decay = args->wd;
    optimizer.decay_all = args->wd_all;
    if ((status = bb_optimizer_create(r->model, &optimizer, &r->optimizer, err)) != BB_OK) return status;

    bb_train_options options = args->options;
    options.on_event = bb_train_report_event;
    options.user = report;
    options.save_sync = no_copy;
    if ((status = bb_trainer_create(r->model, r->optimizer, NULL, &options, &r->trainer, err)) != BB_OK) return status;
    report->trainer = r->trainer;
    if (args->checkpoint[0]) {
        status = bb_trainer_resume(r->trainer, args->checkpoint, !args->no_opt_state, err);
        if (status != BB_OK) return status;
    }
    int64_t step = bb_trainer_step(r->trainer);
    if (args->options.stop_at > 0 && args->options.stop_at <= step) {
        err->code = BB_ERR_ARGUMENT;
        snprintf(err->message, sizeof err->message, "--stop_at %lld: the run is at step %lld already",
                 (long long)args->options.stop_at, (long long)step);
        return err->code;
    }
    if (no_copy && !args->options.save_sync)
        bb_train_report_note(report, "no memory for a copy to save from: training will wait while a checkpoint is written");
    bb_dataset_info data = bb_dataset_get_info(r->dataset);
    bb_train_report_summary(report, r->device, &config, &memory, free_bytes, &data, step);
    return BB_OK;
}

static void close_run(run *r) {
    bb_trainer_free(r->trainer);
    bb_optimizer_free(r->optimizer);
    bb_model_free(r->model);
    bb_dataset_close(r->dataset);
    bb_device_close(r->device);
}

static void request_stop(void *trainer) { bb_trainer_request_stop(trainer); }

int bb_cmd_train(int argc, char **argv) {
    bb_train_args args;
    const bb_cli_command *command;
    int exit_status = bb_train_args_read(argc, argv, &args, &command);
    if (exit_status != BB_CLI_GO_ON) return exit_status;

    run r = {0};
    bb_error err;
    bb_train_report report;
    bb_train_report_open(&report, &args);
    bb_status status = open_run(&args, &report, &r, &err);
    if (status == BB_OK) {
        double start = bb_monotonic_seconds();
        signal(SIGPIPE, SIG_IGN); /* a closed standard output is met as an error of writing */
        bb_signals_install(request_stop, r.trainer,
                           report.progress.terminal ? "\r\033[Kfinishing the step, then saving (once more: stop at once)\n"
                                                    : "finishing the step, then saving (once more: stop at once)\n");
        status = bb_trainer_train(r.trainer, r.dataset, &err);
        bb_signals_release();
        if (status == BB_OK || status == BB_ERR_INTERRUPTED)
            bb_train_report_end(&report, status != BB_OK, bb_trainer_step(r.trainer), bb_monotonic_seconds() - start);
    }
    bb_progress_clear(&report.progress);
    exit_status = BB_EXIT_OK;
    if (status == BB_ERR_INTERRUPTED)
        exit_status = bb_signals_exit_status();
    else if (status != BB_OK)
        exit_status = bb_cli_fail(command, &err);
    close_run(&r);
    free(args.config_json);
    return exit_status;
}
