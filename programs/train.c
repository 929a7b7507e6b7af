// SPDX-License-Identifier: MIT
/* bitbyte train: opens a run, prints its summary, trains. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "commands.h"
#include "signals.h"
#include "train_options.h"
#include "train_outputs.h"
#include "train_ranks.h"

enum { LOSS_SCALE_STEPS = 2000 }; /* good steps after which it is doubled, as PyTorch's GradScaler does */

typedef struct run {
    bb_dist *dist;
    bb_device *device;   /* used by the model */
    bb_device *hardware; /* with --profile, the device that `device` wraps; else NULL */
    bb_model *model;
    bb_optimizer *optimizer;
    bb_loss_scaler *scaler;
    bb_dataset *dataset;
    bb_trainer *trainer;
    bb_train_report *report;
    bb_train_outputs outputs;
} run;

static void on_event(void *user, const bb_train_event *event) {
    run *r = user;
    bb_train_report_event(r->report, event);
    bb_train_outputs_event(&r->outputs, event);
}

/* Returns whether this rank's estimate fits, given that all ranks on the same memory need as much. */
static bool fits(uint64_t bytes, uint64_t copy, int ranks, uint64_t free_bytes) {
    return (bytes - copy) * (uint64_t)ranks + copy <= free_bytes; /* the copy is on rank 0 only */
}

/* Drops the checkpoint copy where there is no memory for it. */
static void fit_copy(bb_train_memory *m, int here) {
    bb_memory_estimate *e = &m->estimate;
    uint64_t *holder = e->own_memory ? &e->host_total : &e->total, free_bytes = m->free_bytes, total_bytes = 1;
    if (e->own_memory) bb_host_memory_bytes(&total_bytes, &free_bytes);
    m->no_copy = total_bytes > 0 && e->checkpoint_copy > 0 && !fits(*holder, e->checkpoint_copy, here, free_bytes);
    if (!m->no_copy) return;
    *holder -= e->checkpoint_copy;
    e->checkpoint_copy = 0;
}

/* Predicts the memory of the run at its longest sequences and checks that it is free, if necessary without a checkpoint copy.
 * Validation with longer windows may need more. */
static bb_status check_memory(const bb_train_args *args, bb_device *device, const bb_config *config,
                              const bb_optimizer_options *optimizer, bb_train_memory *out, bb_error *err) {
    bb_memory_estimate *memory = &out->estimate;
    const bb_train_options *o = &args->options;
    uint64_t total_bytes;
    int longest = bb_train_max_seq_len(o);
    bb_memory_request request = {.struct_size = sizeof(bb_memory_request),
                                 .optim = optimizer->kind,
                                 .batch_size = o->batch_size,
                                 .seq_len = longest,
                                 .recompute = o->recompute};
    bb_status status = bb_memory_predict(device, config, &request, memory, err);
    if (status == BB_OK && args->val_data && o->val_seq_len > longest) {
        bb_memory_estimate validation;
        request.batch_size = 1;
        request.seq_len = o->val_seq_len;
        status = bb_memory_predict(device, config, &request, &validation, err);
        if (status == BB_OK && validation.total > memory->total) *memory = validation;
    }
    if (status != BB_OK) return status;
    status = bb_memory_predict_rank(config, o, optimizer, memory, err);
    if (status != BB_OK) return status;
    bb_device_memory(device, &total_bytes, &out->free_bytes);
    if (total_bytes == 0) return BB_OK; /* unknown */
    int ranks = bb_dist_local_size(o->dist), here = memory->own_memory ? 1 : ranks;
    fit_copy(out, ranks);
    if (fits(memory->total, memory->own_memory ? 0 : memory->checkpoint_copy, here, out->free_bytes)) return BB_OK;
    char on_ranks[64] = "";
    if (here > 1) snprintf(on_ranks, sizeof on_ranks, " on each of the %d ranks of this host", here);
    char line[512];
    bb_memory_line(memory, line, sizeof line);
    err->code = BB_ERR_MEMORY;
    snprintf(err->message, sizeof err->message,
             "this run needs %s of %smemory%s, but only %s of %s is free: %s. To reduce it: a smaller --batch_size (and larger "
             "--grad_accum), %s%s%s, or a smaller model",
             bb_text_bytes(memory->total).s, memory->own_memory ? "the card's " : "", on_ranks,
             bb_text_bytes(out->free_bytes).s, bb_text_bytes(total_bytes).s, line,
             o->seq_len ? "a smaller --seq_len" : "--seq_len_cap", o->recompute ? "" : ", no --no_ckpt",
             args->optim == BB_OPTIM_ADAMW ? ", --optim muon or adamw8bit" : "");
    return err->code;
}

static void note_import(void *report, const char *text) { bb_train_report_note(report, text); }

static bb_status load_init(const bb_train_args *args, bb_train_report *report, run *r, bb_error *err) {
    const bb_import_options options = {.struct_size = sizeof(bb_import_options),
                                       .n_head = args->import.n_head,
                                       .on_notice = bb_dist_rank(r->dist) == 0 ? note_import : NULL,
                                       .user = report};
    return bb_model_import(r->device, args->init, &options, &r->model, err);
}

/* Opens dataset, model, optimizer and trainer of this rank. */
static bb_status open_parts(const bb_train_args *args, bb_train_report *report, const bb_config *config,
                            const bb_optimizer_options *optimizer, bool no_copy, run *r, bb_error *err) {
    bb_status status;
    /* Opened with the longest sequence length, so that data that is too short is found now and not halfway. */
    status = bb_byte_shard_dataset_open(args->data, bb_train_max_seq_len(&args->options), (uint64_t)args->seed, 0, 1,
                                        &r->dataset, err);
    if (status != BB_OK) return status;

    if (args->init)
        status = load_init(args, report, r, err);
    else
        status = bb_model_create(r->device, config, (uint64_t)args->seed, &r->model, err);
    if (status != BB_OK) return status;

    if ((status = bb_optimizer_create(r->model, optimizer, &r->optimizer, err)) != BB_OK) return status;

    bb_train_options options = args->options;
    options.on_event = on_event;
    options.user = r;
    if (no_copy) options.save_copy = BB_SAVE_COPY_NO;
    bool scaled = strcmp(bb_device_activations(r->device), "fp16") == 0;
    if ((status = bb_loss_scaler_create(args->loss_scale, LOSS_SCALE_STEPS, scaled, &r->scaler, err)) != BB_OK) return status;
    if ((status = bb_trainer_create(r->model, r->optimizer, r->scaler, &options, &r->trainer, err)) != BB_OK) return status;
    report->trainer = r->trainer;
    r->report = report;
    r->outputs = bb_train_outputs_for(args, report, r->model, r->trainer);
    if (args->checkpoint[0]) {
        status = bb_trainer_resume(r->trainer, args->checkpoint, !args->no_opt_state, err);
        if (status != BB_OK) return status;
    }
    int64_t step = bb_trainer_step(r->trainer);
    r->outputs.first_step = step;
    if (args->saved_steps && args->options.steps <= step) {
        err->code = BB_ERR_ARGUMENT;
        snprintf(err->message, sizeof err->message,
                 "--steps %lld: the run is already at step %lld; --steps is the total, from step 0",
                 (long long)args->options.steps, (long long)step);
        return err->code;
    }
    if (args->options.stop_at > 0 && args->options.stop_at <= step) {
        err->code = BB_ERR_ARGUMENT;
        snprintf(err->message, sizeof err->message, "--stop_at %lld: the run is already at step %lld",
                 (long long)args->options.stop_at, (long long)step);
        return err->code;
    }
    return BB_OK;
}

/* Reports what changes in the resumed run. */
static void note_changes(const bb_train_args *args, bb_train_report *report, int64_t step) {
    const bb_train_options *o = &args->options;
    char message[1024];
    if (args->changes) {
        snprintf(message, sizeof message, "from step %lld on: %.900s", (long long)step + 1, args->changes);
        bb_train_report_note(report, message);
    }
    if (!args->saved_steps || step == 0) return;
    bb_lr_plan plan = bb_train_lr_plan(o, args->lr);
    snprintf(
        message, sizeof message,
        "the schedule now has %lld steps instead of %lld: step %lld has a learning rate of %.3g and sequences of %d bytes; "
        "warmup is the first %lld steps",
        (long long)o->steps, (long long)args->saved_steps, (long long)step + 1, bb_lr_for_step(&plan, step),
        o->seq_len ? o->seq_len : bb_seq_len_for_step(step, o->steps, o->seq_len_cap), (long long)plan.warmup_steps);
    bb_train_report_note(report, message);
}

static bb_status open_run(const bb_train_args *args, bb_train_report *report, run *r, bb_error *err) {
    bb_config config;
    bb_train_memory memory = {0};
    bb_status status;
    bb_model_args_config(&args->model, &config);
    bb_optimizer_options optimizer = bb_train_optimizer_options(args, r->dist);
    status = bb_train_device_open(args, r->dist, &r->device, err);
    if (status == BB_OK && args->dtype != BB_DTYPE_AUTO)
        status = bb_device_set_activations(r->device, args->dtype == BB_DTYPE_FP16 ? "fp16" : "bf16", err);
    if (status == BB_OK && args->profile) {
        r->hardware = r->device;
        status = bb_profile_open(r->hardware, &r->device, err);
    }
    if (status == BB_OK) status = check_memory(args, r->device, &config, &optimizer, &memory, err);
    /* No rank allocates before all have checked free memory. */
    if ((status = bb_dist_agree(r->dist, status, err)) != BB_OK) return status;
    status = open_parts(args, report, &config, &optimizer, memory.no_copy, r, err);
    if ((status = bb_dist_agree(r->dist, status, err)) != BB_OK) return status;
    status = bb_train_report_memory(report, memory.estimate.total, bb_optimizer_state_bytes(r->optimizer), err);
    if (memory.no_copy)
        bb_train_report_note(report,
                             "not enough memory for a checkpoint copy: updates will wait while a checkpoint is written");
    if (status == BB_OK) bb_train_report_summary(report, r->device, &config, &memory, r->dataset, bb_trainer_step(r->trainer));
    if (status == BB_OK && args->ddp && bb_dist_size(r->dist) == 1)
        bb_train_report_note(report, "--ddp: this job has one rank; mpirun -np N or srun starts more");
    if (status == BB_OK && bb_dist_rank(r->dist) == 0) note_changes(args, report, bb_trainer_step(r->trainer));
    return status;
}

static void close_run(run *r) {
    bb_trainer_free(r->trainer);
    bb_loss_scaler_free(r->scaler);
    bb_optimizer_free(r->optimizer);
    bb_model_free(r->model);
    bb_dataset_close(r->dataset);
    bb_device_close(r->device);
    bb_device_close(r->hardware);
    bb_dist_close(r->dist);
}

/* Prints the table of --profile. */
static bb_status report_profile(bb_train_report *report, const run *r, bb_error *err) {
    char *profile;
    if (!r->hardware) return BB_OK;
    bb_status status = bb_profile_report(r->device, bb_model_config(r->model), &profile, err);
    if (status != BB_OK) return status;
    bb_train_report_profile(report, profile);
    bb_string_free(profile);
    return BB_OK;
}

static void request_stop(void *trainer) { bb_trainer_request_stop(trainer); }
static void request_save(void *trainer) { bb_trainer_request_save(trainer); }

/* Number of processes that an MPI launcher started, from its environment variables. */
static int launched(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *text = getenv(names[i]);
        if (text && atoi(text) > 1) return atoi(text);
    }
    return 1;
}

static int fail_alone(const char *message, int exit_status) {
    fprintf(stderr, "bitbyte train: %s\n", message);
    return exit_status;
}

/* Opens the job: this process, or all processes with --ddp. Only rank 0 writes to standard output. */
static int open_ranks(int argc, char **argv, bb_dist **out) {
    bb_error err;
    bool ranks = bb_train_has_ddp(argc, argv);
    if (!ranks && launched() > 1)
        return fail_alone("mpirun started several processes; add --ddp to train one model with all of them", BB_EXIT_USAGE);
    if (bb_dist_open(ranks ? "mpi" : "single", out, &err) != BB_OK) {
        fprintf(stderr, "bitbyte train: %s%s\n", ranks ? "--ddp: " : "", err.message);
        return BB_EXIT_FAILURE;
    }
    if (bb_dist_rank(*out) == 0) return BB_CLI_CONTINUE;
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (nowhere < 0 || dup2(nowhere, STDOUT_FILENO) < 0) return fail_alone("cannot open /dev/null", BB_EXIT_FAILURE);
    close(nowhere);
    return BB_CLI_CONTINUE;
}

/* Also logs to the run's errors.log, because the program that forwards standard error may itself have failed. */
static void log_failure(const char *dir, const char *message) {
    char path[4096], when[32];
    time_t now = time(NULL);
    struct tm utc;
    if (snprintf(path, sizeof path, "%s/errors.log", dir) >= (int)sizeof path || !gmtime_r(&now, &utc)) return;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
    FILE *log = fopen(path, "a");
    if (!log) return;
    fprintf(log, "%s %s\n", when, message);
    fclose(log);
}

/* Other ranks may be waiting for this one: reports the error and ends the job. */
static void end_job(const bb_train_args *args, bb_dist *dist, bb_error *err) {
    char message[sizeof err->message];
    bb_dist_wait_to_report(dist);
    snprintf(message, sizeof message, "%s", err->message);
    if (strncmp(message, "rank ", 5) != 0 && strncmp(message, "all ", 4) != 0) /* agreed errors already name a rank */
        snprintf(err->message, sizeof err->message, "rank %d on %s: %.800s", bb_dist_rank(dist),
                 bb_dist_host(dist, bb_dist_rank(dist)), message);
    log_failure(args->out, err->message);
    bb_dist_abort(dist, bb_cli_fail(&bb_train_command, err));
}

int bb_cmd_train(int argc, char **argv) {
    bb_train_args args;
    run r = {0};
    bb_signals_on_save(NULL, NULL); /* SIGUSR1 must not end a run that is still opening */
    int exit_status = open_ranks(argc, argv, &r.dist);
    if (exit_status != BB_CLI_CONTINUE) return exit_status;
    exit_status = bb_train_args_read(argc, argv, r.dist, &args);
    if (exit_status != BB_CLI_CONTINUE) {
        bb_train_args_free(&args);
        bb_dist_close(r.dist);
        return exit_status;
    }
    bb_dist_set_timeout(r.dist, args.dist_timeout);

    bb_error err;
    bb_train_report report;
    bb_status status = bb_dist_agree(r.dist, bb_train_report_open(&report, &args, &err), &err);
    if (status == BB_OK) status = bb_train_args_sync_out(&args, r.dist, &err);
    if (status == BB_OK) status = open_run(&args, &report, &r, &err);
    bool training = status == BB_OK, alone = bb_dist_size(r.dist) == 1;
    if (training) {
        double start = bb_monotonic_seconds();
        signal(SIGPIPE, SIG_IGN); /* a closed standard output becomes a write error */
        /* With several ranks, the trainer reports which rank got the signal: a launcher also sends signals when it ends a
         * job. */
        bb_signals_install(request_stop, r.trainer,
                           !alone                     ? NULL
                           : report.progress.terminal ? "\r\033[Kfinishing the step, then saving (again: stop immediately)\n"
                                                      : "finishing the step, then saving (again: stop immediately)\n");
        if (r.hardware) (void)bb_profile_start(r.device, &err); /* excludes setup */
        bb_signals_on_save(request_save, r.trainer);
        status = bb_trainer_train(r.trainer, r.dataset, &err);
        bb_signals_release();
        bb_train_outputs_close(&r.outputs);
        if (status == BB_OK || status == BB_ERR_INTERRUPTED) {
            bb_error unsaid;
            bb_status told = bb_train_report_end(&report, status != BB_OK, bb_trainer_step(r.trainer),
                                                 bb_monotonic_seconds() - start, &unsaid);
            if (told == BB_OK) told = report_profile(&report, &r, &unsaid); /* this rank only, so after the collective calls */
            if (told != BB_OK) {
                status = told;
                err = unsaid;
            }
        }
    }
    bb_progress_clear(&report.progress);
    exit_status = BB_EXIT_OK;
    if (status == BB_ERR_INTERRUPTED)
        exit_status = bb_signals_exit_status();
    else if (status == BB_OK && bb_trainer_out_of_time(r.trainer))
        exit_status = BB_EXIT_OUT_OF_TIME;
    else if (training && status != BB_OK && !alone)
        end_job(&args, r.dist, &err);
    else if (status != BB_OK)
        exit_status = bb_train_fail_together(r.dist, &err);
    close_run(&r);
    bb_train_report_close(&report);
    bb_train_args_free(&args);
    return exit_status;
}
