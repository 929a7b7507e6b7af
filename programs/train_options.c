// SPDX-License-Identifier: MIT
/* The options of `bitbyte train`, and the configuration that a resumed run or a model file brings. */
#include "train_options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli_json.h"
#include "json_out.h"
#include "train_resume.h"

enum { DEFAULT_OUT_TRIES = 999 };

static const char *const save_copy_choices[] = {
    [BB_SAVE_COPY_AUTO] = "auto", [BB_SAVE_COPY_YES] = "yes", [BB_SAVE_COPY_NO] = "no", NULL};
static const char *const reduce_choices[] = {[BB_REDUCE_FAST] = "fast", [BB_REDUCE_EXACT] = "exact", NULL};
static const char *const schedule_choices[] = {[BB_LR_COSINE] = "cosine", [BB_LR_CONSTANT] = "constant", NULL};

/* clang-format off: a table is read by rows */
static const bb_cli_option options[] = {
    {.help = "Data and run"},
    {.name = "data",
     .type = BB_CLI_STRING,
     .offset = offsetof(bb_train_args, data),
     .value = "DIR|GLOB|FILE",
     .help = "bytes to train on: a directory (its shard_*.bin), a glob in quotes, or one file (required, unless --resume DIR)",
     .saved = BB_CLI_SAVED_FUTURE},
    {.name = "out",
     .type = BB_CLI_STRING,
     .offset = offsetof(bb_train_args, out),
     .value = "DIR",
     .saved = BB_CLI_SAVED_CALL,
     .help = "run directory: config.json, metrics.jsonl, checkpoints; one that holds checkpoints is refused unless it is "
             "resumed or --allow_overwrite is given",
     .default_text = "runs/DATE-TIME; the same directory with --resume DIR"},
    {.name = "steps",
     .type = BB_CLI_INT64,
     .offset = offsetof(bb_train_args, options.steps),
     .value = "N",
     .range = BB_CLI_AT_LEAST(1),
     .help = "steps of the whole run; schedules are made for it",
     .saved = BB_CLI_SAVED_FUTURE},
    {.name = "stop_at",
     .type = BB_CLI_INT64,
     .offset = offsetof(bb_train_args, options.stop_at),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "save and stop after step N, to be resumed later; 0: off",
     .saved = BB_CLI_SAVED_CALL},
    {.name = "log_every",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_train_args, options.log_every),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "steps between lines here and in metrics.jsonl; 0: only the last",
     .saved = BB_CLI_SAVED_FREE},
    {.name = "save_every",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_train_args, options.save_every),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "steps between checkpoints; the last step always leaves one",
     .saved = BB_CLI_SAVED_FREE},
    {.name = "save_minutes",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(bb_train_args, options.save_minutes),
     .value = "X",
     .range = BB_CLI_AT_LEAST(0),
     .help = "a checkpoint also when the last one is so old; 0: off",
     .saved = BB_CLI_SAVED_FREE},
    {.name = "max_minutes",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(bb_train_args, options.max_minutes),
     .value = "X",
     .range = BB_CLI_AT_LEAST(0),
     .help =
         "save and end, with exit status 3, while there is still time for it before so many minutes: a queue's limit; 0: off",
     .saved = BB_CLI_SAVED_CALL},
    {.name = "keep",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_train_args, options.keep),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "newest checkpoints that are kept; 0: all",
     .saved = BB_CLI_SAVED_FREE},
    {.name = "keep_every",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_train_args, options.keep_every),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "with --keep, checkpoints of steps that N divides are kept for ever; 0: none is",
     .saved = BB_CLI_SAVED_FREE},
    {.name = "save_sync",
     .type = BB_CLI_FLAG,
     .offset = offsetof(bb_train_args, options.save_sync),
     .help = "wait while a checkpoint is written, instead of training on meanwhile",
     .saved = BB_CLI_SAVED_FREE},
    {.name = "save_copy",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(bb_train_args, save_copy),
     .choices = save_copy_choices,
     .help =
         "write checkpoints from a copy of weights and moments; without, an update waits until all is written. auto: a copy "
         "unless it takes more than an eighth of the memory",
     .saved = BB_CLI_SAVED_FREE},
    {.name = "allow_overwrite",
     .type = BB_CLI_FLAG,
     .offset = offsetof(bb_train_args, allow_overwrite),
     .saved = BB_CLI_SAVED_CALL,
     .help = "start afresh in a directory that holds checkpoints; they are removed"},
    {.name = "seed",
     .type = BB_CLI_INT64,
     .offset = offsetof(bb_train_args, seed),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "of the first weights and of the order of the data"},
    {.name = "json",
     .type = BB_CLI_FLAG,
     .offset = offsetof(bb_train_args, json),
     .saved = BB_CLI_SAVED_CALL,
     .help = "on standard output, each event as one line of JSON"},
    {.name = "profile",
     .type = BB_CLI_FLAG,
     .offset = offsetof(bb_train_args, profile),
     .saved = BB_CLI_SAVED_CALL,
     .help = "at the end, a table of the operations: calls, time, share, percent of the peaks measured at the start"},

    {.help = "Model"},
    {.group = &bb_model_group, .offset = offsetof(bb_train_args, model)},
    {.name = "init",
     .type = BB_CLI_STRING,
     .offset = offsetof(bb_train_args, init),
     .value = "FILE",
     .saved = BB_CLI_SAVED_CALL,
     .help = "start from the weights of a model file; its shape is taken too"},
    {.name = "use_sdpa",
     .type = BB_CLI_FLAG,
     .offset = offsetof(bb_train_args, use_sdpa),
     .saved = BB_CLI_SAVED_FREE,
     .help = "accepted and without effect: the tiled attention, which never holds a whole score matrix, is the only one"},

    {.help = "Batches"},
    {.name = "batch_size",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_train_args, options.batch_size),
     .value = "N",
     .range = BB_CLI_AT_LEAST(1),
     .help = "sequences computed at once; memory grows with it",
     .saved = BB_CLI_SAVED_FUTURE},
    {.name = "grad_accum",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_train_args, options.grad_accum),
     .value = "N",
     .range = BB_CLI_AT_LEAST(1),
     .help = "batches of each rank whose gradients make one step",
     .saved = BB_CLI_SAVED_FREE},
    {.name = "seq_len",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_train_args, options.seq_len),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "bytes a sequence, for every step",
     .default_text = "0: the curriculum, 2048 for the first 20% of the steps, 4096 up to 50%, then 8192",
     .saved = BB_CLI_SAVED_FUTURE},
    {.name = "seq_len_cap",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_train_args, options.seq_len_cap),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "longest sequence of the curriculum; 0: no cap",
     .saved = BB_CLI_SAVED_FUTURE},
    {.name = "no_ckpt",
     .type = BB_CLI_FLAG,
     .offset = offsetof(bb_train_args, no_ckpt),
     .help = "keep all activations instead of recomputing them in the backward pass: faster, more memory",
     .saved = BB_CLI_SAVED_FREE},

    {.help = "Learning"},
    {.name = "optim",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(bb_train_args, optim),
     .choices = bb_optim_choices,
     .help = "AdamW with moments in f32, or in blocks of 8 bits: a quarter of the memory"},
    {.name = "lr",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(bb_train_args, lr),
     .value = "X",
     .range = BB_CLI_ABOVE(0),
     .help = "highest learning rate; small models take more, up to about 3e-3",
     .saved = BB_CLI_SAVED_FUTURE},
    {.name = "lr_schedule",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(bb_train_args, lr_schedule),
     .choices = schedule_choices,
     .help = "after the warm-up",
     .saved = BB_CLI_SAVED_FUTURE},
    {.name = "lr_min_factor",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(bb_train_args, options.lr_min_factor),
     .value = "X",
     .range = BB_CLI_FROM_TO(0, 1),
     .help = "the cosine ends at this share of --lr",
     .saved = BB_CLI_SAVED_FUTURE},
    {.name = "warmup_frac",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(bb_train_args, options.warmup_frac),
     .value = "X",
     .range = BB_CLI_FROM_TO(0, 1),
     .help = "share of the steps in which the rate rises to --lr",
     .saved = BB_CLI_SAVED_FUTURE},
    {.name = "warmup_steps",
     .type = BB_CLI_INT64,
     .offset = offsetof(bb_train_args, options.warmup_steps),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "the same as a number of steps; it wins over --warmup_frac",
     .default_text = "warmup_frac of the steps",
     .saved = BB_CLI_SAVED_FUTURE},
    {.name = "wd",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(bb_train_args, wd),
     .value = "X",
     .range = BB_CLI_AT_LEAST(0),
     .help = "weight decay, on matrices",
     .saved = BB_CLI_SAVED_FUTURE},
    {.name = "wd_all",
     .type = BB_CLI_FLAG,
     .offset = offsetof(bb_train_args, wd_all),
     .help = "weight decay on norms too",
     .saved = BB_CLI_SAVED_FUTURE},
    {.name = "grad_clip",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(bb_train_args, options.grad_clip),
     .value = "X",
     .range = BB_CLI_AT_LEAST(0),
     .help = "greatest norm of the whole gradient; 0: no clipping",
     .saved = BB_CLI_SAVED_FUTURE},
    {.name = "spike_skip",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(bb_train_args, options.spike_skip),
     .value = "Z",
     .range = BB_CLI_AT_LEAST(0),
     .help = "leave a step out whose loss or gradient norm is Z standard deviations over the mean of the last 64, e.g. 6; 0: "
             "only what is not finite; ten in a row end the run",
     .saved = BB_CLI_SAVED_FUTURE},

    {.help = "Validation"},
    {.name = "val_data",
     .type = BB_CLI_STRING,
     .offset = offsetof(bb_train_args, val_data),
     .value = "DIR|GLOB|FILE",
     .saved = BB_CLI_SAVED_FREE,
     .help = "held-out bytes: a pack (its val_*.bin), a glob in quotes, or a file; they are scored at the last step too"},
    {.name = "val_every",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_train_args, options.val_every),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "steps between validations; 0: only the last",
     .saved = BB_CLI_SAVED_FREE},
    {.name = "val_batches",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_train_args, options.val_batches),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "batches a validation; 0: everything",
     .saved = BB_CLI_SAVED_FREE},
    {.name = "val_seq_len",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_train_args, options.val_seq_len),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "bytes a window of validation",
     .default_text = "0: as long as the sequences trained on, at most 2048",
     .saved = BB_CLI_SAVED_FREE},
    {.name = "strict_val",
     .type = BB_CLI_FLAG,
     .offset = offsetof(bb_train_args, options.strict_val),
     .help = "a validation that fails ends the run, after a save; without, it is reported, counted, and training goes on",
     .saved = BB_CLI_SAVED_FREE},

    {.help = "Going on"},
    {.name = "resume",
     .type = BB_CLI_STRING,
     .offset = offsetof(bb_train_args, resume),
     .value = "PATH",
     .saved = BB_CLI_SAVED_CALL,
     .help =
         "a run directory: its newest checkpoint that is not damaged and its configuration, the run goes on as if it had not "
         "stopped, or with the options given here for the steps to come (--steps makes it longer); or a checkpoint file: its "
         "weights, step, optimizer state and configuration, in a new --out"},
    {.name = "no_opt_state",
     .type = BB_CLI_FLAG,
     .offset = offsetof(bb_train_args, no_opt_state),
     .saved = BB_CLI_SAVED_CALL,
     .help = "resume with fresh optimizer moments"},

    {.help = "Machine"},
    {.group = &bb_device_group, .offset = offsetof(bb_train_args, device)},

    {.help = "Many processes"},
    {.name = "ddp",
     .type = BB_CLI_FLAG,
     .offset = offsetof(bb_train_args, ddp),
     .saved = BB_CLI_SAVED_CALL,
     .help =
         "train in the processes that mpirun or srun started, the ranks: each takes its part of every step, and all hold the "
         "same weights. Data and checkpoints must be under the same paths on every host"},
    {.name = "global_batch",
     .type = BB_CLI_INT64,
     .offset = offsetof(bb_train_args, options.global_batch),
     .value = "N",
     .range = BB_CLI_AT_LEAST(1),
     .help = "sequences of a step in all ranks together; instead of --grad_accum. A run keeps it when it goes on with another "
             "number of ranks",
     .default_text = "batch_size x grad_accum x ranks",
     .saved = BB_CLI_SAVED_FUTURE},
    {.name = "reduce",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(bb_train_args, reduce),
     .choices = reduce_choices,
     .saved = BB_CLI_SAVED_FREE,
     .help = "order of the sum of gradients. fast: within a rank, then over ranks. exact: by batch, so that 1, 2, 4, ... ranks "
             "give the same weights, bit for bit; costs memory where a rank has several batches a step"},
    {.name = "zero",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_train_args, zero),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .saved = BB_CLI_SAVED_FREE,
     .help =
         "1: the ranks share out the optimizer's moments, each holds and updates its part. 0: every rank holds and updates all "
         "of them, to the same results"},
    {.name = "dist_timeout",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_train_args, dist_timeout),
     .value = "SECONDS",
     .range = BB_CLI_AT_LEAST(1),
     .saved = BB_CLI_SAVED_FREE,
     .help = "seconds without a heartbeat from a rank after which the run ends; a busy rank still sends them"},
};
/* clang-format on */

const bb_cli_command bb_train_command = {
    .name = "train",
    .summary = "train a byte-level model with ternary weights, or go on training one.",
    .usage = "--data DIR|GLOB|FILE [--out DIR] [options]",
    .options = options,
    .option_count = BB_CLI_COUNT(options),
    .examples =
        "  A small model, minutes on two cores:\n"
        "    bitbyte train --data data --out runs/small --steps 1200 --n_layer 4 --d_model 256 --n_head 4 \\\n"
        "        --d_ff 704 --seq_len 256 --batch_size 8 --grad_accum 1 --lr 3e-3 --no_ckpt \\\n"
        "        --val_data 'data/val_*.bin' --val_every 200\n"
        "  Stop it with Ctrl-C: it finishes the step and saves. Then go on, exactly where it was:\n"
        "    bitbyte train --resume runs/small\n"
        "  Go on from a checkpoint with other data and another rate, in a new directory:\n"
        "    bitbyte train --resume runs/small/step-00001200.safetensors --data other --steps 2000 --seq_len 512 "
        "\\\n        --lr 5e-4 --out runs/other\n"
        "  Four processes, here or on several hosts (see docs/QUICK_START.md). --oversubscribe allows more of them than\n"
        "  cores; root, e.g. in a container, sets the two variables that Open MPI asks for:\n"
        "    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1\n"
        "    mpirun --oversubscribe -np 4 bitbyte train --ddp --data data --out runs/four\n"};

static void set_defaults(bb_train_args *args) {
    memset(args, 0, sizeof *args);
    bb_train_options_default(&args->options);
    bb_model_args_default(&args->model);
    bb_optimizer_options optimizer;
    bb_optimizer_options_default(&optimizer);
    args->lr = optimizer.lr;
    args->wd = optimizer.weight_decay;
    args->optim = BB_OPTIM_ADAMW8BIT;
    args->options.val_every = 2000;
    args->reduce = (int)args->options.reduce;
    args->save_copy = (int)args->options.save_copy;
    args->zero = 1;
    args->dist_timeout = 15;
}

/* The same path from the root on; free() it. NULL where that is what `path` is already, or where the working directory has no
 * name: then what was typed stays. */
static char *absolute(const char *path) {
    if (!path || path[0] == '/' || path[0] == '\0') return NULL;
    char *directory = getcwd(NULL, 0), *joined = NULL;
    if (directory && asprintf(&joined, "%s/%s", directory, path) < 0) joined = NULL;
    free(directory);
    return joined;
}

/* Standard input, or a pipe: what is read is gone. */
static bool reads_once(const char *path) {
    struct stat info;
    return strcmp(path, "-") == 0 || (stat(path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode));
}

/* Data and files are kept by absolute paths, so that a run can be resumed from anywhere; "-" is no file. */
static void make_absolute(const char **path, char **memory) {
    *memory = *path && strcmp(*path, "-") == 0 ? NULL : absolute(*path);
    if (*memory) *path = *memory;
}

/* Rank 0 makes the directory at once: of runs that begin within the same second, each has its own. */
static void set_default_out(bb_train_args *args, const bb_dist *dist) {
    time_t now = time(NULL);
    struct tm parts;
    localtime_r(&now, &parts);
    size_t length = strftime(args->default_out, sizeof args->default_out, "runs/%Y%m%d-%H%M%S", &parts);
    args->out = args->default_out;
    if (bb_dist_rank(dist) > 0) return;
    (void)mkdir("runs", 0777); /* what fails here fails again, with a message, when the run is opened */
    for (int i = 2; mkdir(args->default_out, 0777) != 0 && errno == EEXIST && i <= DEFAULT_OUT_TRIES; i++)
        snprintf(args->default_out + length, sizeof args->default_out - length, "-%d", i);
}

bb_status bb_train_args_share_out(bb_train_args *args, bb_dist *dist, bb_error *err) {
    unsigned long long date = 0, time_of_day = 0, number = 0; /* digits of the name */
    uint64_t *all = calloc((size_t)bb_dist_size(dist), sizeof *all);
    if (!all) {
        snprintf(err->message, sizeof err->message, "out of memory");
        return err->code = BB_ERR_MEMORY;
    }
    (void)sscanf(args->default_out, "runs/%8llu-%6llu-%llu", &date, &time_of_day, &number);
    bb_status status = bb_dist_all_gather_u64(dist, (date * 1000000 + time_of_day) * 10000 + number, all, err);
    if (status == BB_OK && args->out == args->default_out && all[0] != 0) {
        number = all[0] % 10000;
        int length = snprintf(args->default_out, sizeof args->default_out, "runs/%08llu-%06llu",
                              (unsigned long long)(all[0] / 10000 / 1000000), (unsigned long long)(all[0] / 10000 % 1000000));
        if (number) snprintf(args->default_out + length, sizeof args->default_out - (size_t)length, "-%llu", number);
    }
    free(all);
    return status;
}

/* Every option as it will be, and where the run came from: of a resumed directory, that stays what it was. Messages name `out`
 * and `resume` as they were typed, the file names them so that they are found from anywhere. */
static int make_config_json(const bb_cli *cli, bb_train_args *args) {
    static const char *const origins[] = {"init", "resume"};
    const char *typed_out = args->out, *typed_resume = args->resume;
    if (args->model.n_kv_head == 0) args->model.n_kv_head = args->model.n_head;
    char *out = absolute(args->out), *resume = absolute(args->resume);
    if (out) args->out = out;
    if (resume) args->resume = resume;
    json_t *values = bb_cli_to_json(cli, false), *results = bb_cli_to_json(cli, true);
    args->out = typed_out;
    args->resume = typed_resume;
    free(out);
    free(resume);
    json_t *object =
        json_pack("{s:s,s:i,s:s}", "format", "bitbyte-run", "version", BB_RUN_CONFIG_VERSION, "program", bb_version());
    bool good = object && values && json_object_update(object, values) == 0;
    for (size_t i = 0; good && i < sizeof origins / sizeof *origins; i++) {
        json_t *origin = json_object_get(args->saved, origins[i]);
        if (origin) good = json_object_set(object, origins[i], origin) == 0;
    }
    char *text = good ? bb_json_dump(object, JSON_INDENT(2)) : NULL;
    if (text && asprintf(&args->config_json, "%s\n", text) < 0) args->config_json = NULL;
    free(text);
    args->checkpoint_config_json = results ? bb_json_dump(results, JSON_COMPACT) : NULL;
    json_decref(results);
    json_decref(object);
    json_decref(values);
    return args->config_json && args->checkpoint_config_json
               ? BB_CLI_CONTINUE
               : bb_cli_failure(&bb_train_command, "cannot write config.json: out of memory");
}

static int check(const bb_cli *cli, const bb_train_args *args) {
    if (bb_cli_given(cli, "global_batch") && bb_cli_given(cli, "grad_accum"))
        return bb_cli_usage_error(&bb_train_command,
                                  "--global_batch and --grad_accum exclude each other: the first says how many sequences "
                                  "make a step, the second how many batches of each rank");
    if (args->zero > 1)
        return bb_cli_usage_error(&bb_train_command,
                                  "--zero %d: expected 0 or 1; what is shared out is the optimizer's state (stage 1), not "
                                  "gradients or weights",
                                  args->zero);
    if (args->resume && args->init)
        return bb_cli_usage_error(&bb_train_command,
                                  "--resume and --init exclude each other: the first goes on with a run, the second "
                                  "begins one from a model's weights");
    if (args->no_opt_state && !args->resume)
        return bb_cli_usage_error(&bb_train_command, "--no_opt_state only means something with --resume");
    if (args->resume && args->resume[0] == '\0')
        return bb_cli_usage_error(&bb_train_command, "--resume: expected a path, found ''");
    return BB_CLI_CONTINUE;
}

bool bb_train_wants_ranks(int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--ddp") == 0) return true;
    return false;
}

/* An option that changes nothing is a mistake that is better said. */
static void note_unused(const bb_cli *cli, const bb_train_args *args) {
    const bb_train_options *o = &args->options;
    static const char *const validation[] = {"val_every", "val_batches", "val_seq_len"}, *const ranks[] = {"reduce",
                                                                                                           "dist_timeout"};
    if (o->keep == 0) bb_cli_unused(cli, "keep_every", "without --keep, all checkpoints are kept");
    if (o->save_sync) bb_cli_unused(cli, "save_copy", "with --save_sync, training waits and nothing is copied");
    if (o->seq_len > 0) bb_cli_unused(cli, "seq_len_cap", "--seq_len is the length for every step");
    if (o->lr_schedule == BB_LR_CONSTANT)
        bb_cli_unused(cli, "lr_min_factor", "with --lr_schedule constant, the rate does not fall");
    if (bb_cli_given(cli, "warmup_steps")) bb_cli_unused(cli, "warmup_frac", "--warmup_steps wins over it");
    if (!(args->wd > 0)) bb_cli_unused(cli, "wd_all", "--wd is 0");
    if (o->stop_at >= o->steps) bb_cli_unused(cli, "stop_at", "the run ends before, with --steps");
    for (int i = 0; i < 3 && !o->val_data; i++) bb_cli_unused(cli, validation[i], "there is no --val_data");
    for (int i = 0; i < 2 && !args->ddp; i++) bb_cli_unused(cli, ranks[i], "without --ddp there is one process");
    if (o->val_data && bb_cli_given(cli, "val_seq_len") && o->val_seq_len > bb_train_longest(o))
        fprintf(stderr, "bitbyte train: note: --val_seq_len %d is longer than the %d bytes that the model is trained on\n",
                o->val_seq_len, bb_train_longest(o));
    bb_cli_unused(cli, "use_sdpa", "the tiled attention is the only one");
    bb_device_args_notes(cli, &args->device);
}

/* What follows from the options that were given. */
static int complete(const bb_cli *cli, bb_dist *dist, bb_train_args *args) {
    int status = check(cli, args);
    if (status != BB_CLI_CONTINUE) return status;
    make_absolute(&args->data, &args->absolute[0]);
    make_absolute(&args->val_data, &args->absolute[1]);
    make_absolute(&args->init, &args->absolute[2]);

    if (args->resume) status = bb_train_resume(cli, args);
    if (status != BB_CLI_CONTINUE) return status;
    if (!args->data) return bb_cli_usage_error(&bb_train_command, "--data DIR|GLOB|FILE is missing");
    if (args->val_data && reads_once(args->val_data))
        return bb_cli_usage_error(&bb_train_command,
                                  "--val_data is read again at each validation, which %s cannot be: name a file",
                                  strcmp(args->val_data, "-") == 0 ? "standard input" : args->val_data);
    if (!args->out) set_default_out(args, dist);

    const char *model_file = args->init ? args->init : args->checkpoint;
    bb_config config;
    bb_error err;
    if (model_file[0] && !args->saved) {
        if (bb_config_load(model_file, &config, NULL, &err) != BB_OK) return bb_cli_fail(&bb_train_command, &err);
        status = bb_model_args_from_file(cli, &args->model, model_file, &config);
        if (status != BB_CLI_CONTINUE) return status;
    }
    bb_model_args_config(&args->model, &config);
    if (bb_config_check(&config, &err) != BB_OK) return bb_cli_fail(&bb_train_command, &err);

    args->options.dist = dist;
    if (bb_cli_given(cli, "grad_accum")) args->options.global_batch = 0; /* not what the resumed run had */
    /* A configuration from before there were ranks is one rank's. */
    if (args->options.global_batch == 0)
        args->options.global_batch = (int64_t)args->options.batch_size * args->options.grad_accum *
                                     (args->saved && !bb_cli_given(cli, "grad_accum") ? 1 : bb_dist_size(dist));
    status = make_config_json(cli, args);
    if (status != BB_CLI_CONTINUE) return status;
    args->options.recompute = !args->no_ckpt;
    args->options.reduce = (bb_reduce)args->reduce;
    args->options.save_copy = (bb_save_copy)args->save_copy;
    args->options.lr_schedule = (bb_lr_schedule)args->lr_schedule;
    args->options.out_dir = args->out;
    args->options.allow_overwrite = args->allow_overwrite;
    args->options.run_config_json = args->config_json;
    args->options.checkpoint_config_json = args->checkpoint_config_json;
    args->options.val_data = args->val_data;
    if (bb_dist_rank(dist) == 0) note_unused(cli, args);
    return BB_CLI_CONTINUE;
}

int bb_train_args_read(int argc, char **argv, bb_dist *dist, bb_train_args *args) {
    bb_cli cli;
    set_defaults(args);
    int status = bb_cli_parse(&cli, &bb_train_command, args, argc, argv);
    if (status == BB_CLI_CONTINUE) status = complete(&cli, dist, args);
    bb_cli_free(&cli);
    return status;
}

void bb_train_args_free(bb_train_args *args) {
    for (size_t i = 0; i < sizeof args->absolute / sizeof *args->absolute; i++) free(args->absolute[i]);
    free(args->config_json);
    free(args->checkpoint_config_json);
    free(args->changes);
    json_decref(args->saved);
    json_decref(args->file_config);
    if (args->default_out[0]) (void)rmdir(args->default_out); /* where nothing came of the run: only an empty one goes */
}

int bb_train_longest(const bb_train_options *o) {
    return o->seq_len ? o->seq_len : bb_seq_len_for_step(o->steps - 1, o->steps, o->seq_len_cap);
}
