// SPDX-License-Identifier: MIT
/* Reads the command line of `bitbyte train` and completes it from a resumed run or a model file. */
#include "train_options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli_json.h"
#include "json_out.h"
#include "train_plan.h"
#include "train_ranks.h"
#include "train_resume.h"

enum { DEFAULT_OUT_TRIES = 999 };

/* Applies the recipe to options that are not on the command line. cli NULL: none are. */
static void apply_recipe(const bb_cli *cli, bb_train_args *args) {
    bb_train_options train;
    bb_optimizer_options optimizer, adam;
    bb_train_options_default(&train);
    bb_optimizer_options_default(&optimizer);
    bb_optimizer_options_default(&adam);
    bb_recipe_options((bb_recipe)args->recipe, &train, &optimizer);
    bb_recipe_options(BB_RECIPE_ORIGINAL, NULL, &adam);
#define DEFAULT(name, to, value)                                                                                               \
    if (!cli || !bb_cli_given(cli, name)) to = value
    DEFAULT("optim", args->optim, (int)optimizer.kind);
    if (args->optim == BB_OPTIM_MUON) {
        bb_recipe_options(BB_RECIPE_BITBYTE, NULL, &optimizer);
        DEFAULT("lr", args->lr, optimizer.lr);
    } else {
        DEFAULT("lr", args->lr, adam.lr);
    }
    DEFAULT("lr_adam", args->lr_adam, optimizer.lr_adam);
    DEFAULT("lr_ngram", args->lr_ngram, optimizer.lr_ngram);
    DEFAULT("muon_momentum", args->muon_momentum, optimizer.momentum);
    DEFAULT("muon_iterations", args->muon_iterations, optimizer.muon_iterations);
    DEFAULT("wd", args->wd, optimizer.weight_decay);
    DEFAULT("lr_schedule", args->lr_schedule, (int)train.lr_schedule);
    DEFAULT("lr_min_factor", args->options.lr_min_factor, train.lr_min_factor);
    DEFAULT("cooldown_frac", args->options.cooldown_frac, train.cooldown_frac);
    DEFAULT("warmup_frac", args->options.warmup_frac, train.warmup_frac);
    DEFAULT("grad_clip", args->options.grad_clip, train.grad_clip);
#undef DEFAULT
}

static void set_defaults(bb_train_args *args) {
    memset(args, 0, sizeof *args);
    bb_train_options_default(&args->options);
    bb_model_args_default(&args->model);
    apply_recipe(NULL, args);
    args->options.val_every = 2000;
    args->reduce = (int)args->options.reduce;
    args->save_copy = (int)args->options.save_copy;
    args->zero = 1;
    args->loss_scale = 65536; /* as PyTorch's GradScaler begins */
    args->dist_timeout = 15;
}

/* Returns the absolute path, to be freed; NULL if `path` is already absolute, or if the working directory is unknown. */
static char *absolute(const char *path) {
    if (!path || path[0] == '/' || path[0] == '\0') return NULL;
    char *directory = getcwd(NULL, 0), *joined = NULL;
    if (directory && asprintf(&joined, "%s/%s", directory, path) < 0) joined = NULL;
    free(directory);
    return joined;
}

/* Returns whether it is standard input or a pipe, which cannot be read again. */
static bool reads_once(const char *path) {
    struct stat info;
    return strcmp(path, "-") == 0 || (stat(path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode));
}

/* Makes a path absolute, so that the run can be resumed from any directory; "-" is not a file. */
static void make_absolute(const char **path, char **memory) {
    *memory = *path && strcmp(*path, "-") == 0 ? NULL : absolute(*path);
    if (*memory) *path = *memory;
}

/* Rank 0 creates the directory at once, so that runs started in the same second get different ones. */
static void set_default_out(bb_train_args *args, const bb_dist *dist) {
    time_t now = time(NULL);
    struct tm parts;
    localtime_r(&now, &parts);
    size_t length = strftime(args->default_out, sizeof args->default_out, "runs/%Y%m%d-%H%M%S", &parts);
    args->out = args->default_out;
    if (bb_dist_rank(dist) > 0) return;
    (void)mkdir("runs", 0777); /* on failure, opening the run reports it */
    for (int i = 2; mkdir(args->default_out, 0777) != 0 && errno == EEXIST && i <= DEFAULT_OUT_TRIES; i++)
        snprintf(args->default_out + length, sizeof args->default_out - length, "-%d", i);
}

bb_status bb_train_args_sync_out(bb_train_args *args, bb_dist *dist, bb_error *err) {
    unsigned long long date = 0, time_of_day = 0, number = 0; /* parts of the directory name */
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

/* For a run's `latest` or `best`, uses the checkpoint that it names, so that a run's origin does not change when the note
 * does. */
static int follow_note(const char **path, char **memory) {
    char named[4096];
    bb_error err;
    if (!*path) return BB_CLI_CONTINUE;
    if (bb_run_named_checkpoint(*path, named, sizeof named, &err) != BB_OK) return bb_cli_fail(&bb_train_command, &err);
    char *copy = strdup(named);
    if (!copy) return bb_cli_failure(&bb_train_command, "out of memory");
    free(*memory);
    *path = *memory = copy;
    return BB_CLI_CONTINUE;
}

/* Makes the text of config.json: all option values, and the run's origin, which is kept when a directory is resumed. The file
 * has absolute paths of `out` and `resume`; messages show them as typed. */
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
                                  "give --global_batch (sequences per step) or --grad_accum (micro-batches per step on each "
                                  "rank), not both");
    if (args->zero > 1)
        return bb_cli_usage_error(&bb_train_command,
                                  "--zero %d: expected 0 or 1; only the optimizer state can be sharded (stage 1), not "
                                  "gradients or weights",
                                  args->zero);
    if (args->resume && args->init)
        return bb_cli_usage_error(&bb_train_command,
                                  "give --resume (continue a run) or --init (start a new run from a model), not both");
    if (args->no_opt_state && !args->resume) return bb_cli_usage_error(&bb_train_command, "--no_opt_state requires --resume");
    if (args->resume && args->resume[0] == '\0')
        return bb_cli_usage_error(&bb_train_command, "--resume: expected a path, found ''");
    return BB_CLI_CONTINUE;
}

bool bb_train_has_ddp(int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--ddp") == 0) return true;
    return false;
}

/* An option without effect is probably a mistake, so report it. */
static void note_unused(const bb_cli *cli, const bb_train_args *args) {
    const bb_train_options *o = &args->options;
    static const char *const validation[] = {"val_every", "val_batches", "val_seq_len", "strict_val", "patience"};
    static const char *const ranks[] = {"reduce", "dist_timeout", "zero"};
    if (o->keep == 0) bb_cli_unused(cli, "keep_every", "without --keep, all checkpoints are kept");
    if (o->save_sync) bb_cli_unused(cli, "save_copy", "with --save_sync, training waits and no copy is made");
    if (o->seq_len > 0) bb_cli_unused(cli, "seq_len_cap", "--seq_len sets the length of all steps");
    if (o->lr_schedule == BB_LR_CONSTANT)
        bb_cli_unused(cli, "lr_min_factor", "with --lr_schedule constant, the learning rate does not decay");
    if (o->lr_schedule != BB_LR_LINEAR) bb_cli_unused(cli, "cooldown_frac", "it requires --lr_schedule linear");
    if (args->saved || args->file_config) bb_cli_unused(cli, "recipe", "a resumed run keeps its options");
    if (args->optim != BB_OPTIM_MUON) bb_cli_unused(cli, "lr_adam", "it requires --optim muon");
    if (args->optim != BB_OPTIM_MUON) bb_cli_unused(cli, "muon_momentum", "it requires --optim muon");
    if (args->optim != BB_OPTIM_MUON) bb_cli_unused(cli, "muon_iterations", "it requires --optim muon");
    bb_model_args_notes(cli, &args->model);
    if (bb_cli_given(cli, "warmup_steps")) bb_cli_unused(cli, "warmup_frac", "--warmup_steps overrides it");
    if (!(args->wd > 0)) bb_cli_unused(cli, "wd_all", "--wd is 0");
    int64_t most_steps = args->plan.steps > 0 ? args->plan.max_steps : o->steps; /* --minutes corrects the planned steps */
    if (o->stop_at >= most_steps) bb_cli_unused(cli, "stop_at", "--steps ends the run first");
    if (o->val_data && o->val_every == 0) bb_cli_unused(cli, "patience", "--val_every 0 validates only after the last step");
    if (o->val_data && o->val_every >= most_steps)
        bb_cli_unused(cli, "patience", "the run has no more steps than --val_every, and is validated only after the last");
    if (args->sample_every == 0) bb_cli_unused(cli, "sample_prompt", "it requires --sample_every");
    for (int i = 0; i < 5 && !o->val_data; i++) bb_cli_unused(cli, validation[i], "it requires --val_data");
    for (int i = 0; i < 3 && !args->ddp; i++) bb_cli_unused(cli, ranks[i], "it requires --ddp");
    if (o->val_data && bb_cli_given(cli, "val_seq_len") && o->val_seq_len > bb_train_max_seq_len(o))
        fprintf(stderr, "bitbyte train: note: --val_seq_len %d exceeds the longest training sequence, %d bytes\n",
                o->val_seq_len, bb_train_max_seq_len(o));
    bb_cli_unused(cli, "use_sdpa", "attention is always tiled");
    bool on_card = strncmp(bb_device_choices[args->device.device], "cuda", 4) == 0;
    if (!on_card && args->dtype == BB_DTYPE_BF16) bb_cli_unused(cli, "dtype", "--device cuda alone has a choice of types");
    if (!on_card || args->dtype == BB_DTYPE_BF16) bb_cli_unused(cli, "loss_scale", "it requires --dtype fp16");
    bb_device_args_notes(cli, &args->device);
}

/* Warns if the validations that --patience compares with were measured differently. */
static void note_other_validation(const bb_cli *cli, const bb_train_args *args) {
    static const char *const names[] = {"val_data", "val_batches", "val_seq_len"};
    json_t *now = bb_cli_to_json(cli, false);
    for (size_t i = 0; i < sizeof names / sizeof *names && args->saved && args->val_data && args->options.patience > 0; i++)
        if (!json_equal(json_object_get(now, names[i]), json_object_get(args->saved, names[i])))
            fprintf(stderr,
                    "bitbyte train: note: --%s has changed since the earlier validations, which --patience compares with\n",
                    names[i]);
    json_decref(now);
}

/* A command line as it is read. */
typedef struct reading {
    int argc;
    char **argv;
    bb_dist *dist;
    bb_train_args *args;
    bb_cli cli;
} reading;

/* The file that the model's shape comes from, or "". */
static const char *model_file_of(const bb_train_args *args) { return args->init ? args->init : args->checkpoint; }

/* Parses the command line, and completes it with what a resumed run, a model file or a size determine. */
static int parse(void *user) {
    reading *r = user;
    bb_cli *cli = &r->cli;
    bb_train_args *args = r->args;
    int status = bb_cli_parse(cli, &bb_train_command, args, r->argc, r->argv);
    if (status == BB_CLI_CONTINUE) status = check(cli, args);
    if (status != BB_CLI_CONTINUE) return status;
    make_absolute(&args->data, &args->absolute[0]);
    make_absolute(&args->val_data, &args->absolute[1]);
    make_absolute(&args->init, &args->absolute[2]);
    status = follow_note(&args->init, &args->absolute[2]);
    if (status != BB_CLI_CONTINUE) return status;

    apply_recipe(cli, args);
    if (args->resume) status = bb_train_resume(cli, args);
    if (status != BB_CLI_CONTINUE) return status;
    if (!args->data) return bb_cli_usage_error(&bb_train_command, "--data DIR|GLOB|FILE is missing");
    if (args->val_data && reads_once(args->val_data))
        return bb_cli_usage_error(&bb_train_command,
                                  "--val_data is read at each validation, but %s can be read only once; name a file",
                                  strcmp(args->val_data, "-") == 0 ? "standard input" : args->val_data);
    if (!args->out) set_default_out(args, r->dist);

    const char *model_file = model_file_of(args);
    bb_config config;
    bb_error err;
    if (model_file[0] && !args->saved) {
        args->import.n_head = bb_cli_given(cli, "n_head") ? args->model.n_head : 0;
        const bb_import_options import = bb_import_args_options(&args->import);
        if (bb_config_load(model_file, &import, &config, NULL, &err) != BB_OK) return bb_cli_fail(&bb_train_command, &err);
        status = bb_model_args_from_file(cli, &args->model, model_file, &config);
        if (status != BB_CLI_CONTINUE) return status;
    }
    status = bb_train_size(cli, args);
    return status == BB_CLI_CONTINUE ? bb_train_plan_check(cli, args) : status;
}

/* Completes the options of the library once the plan has decided what was left open. */
static int complete(void *user) {
    reading *r = user;
    const bb_cli *cli = &r->cli;
    bb_train_args *args = r->args;
    bb_dist *dist = r->dist;
    bb_config config;
    bb_error err;
    bb_model_args_config(&args->model, &config);
    if (bb_config_check(&config, &err) != BB_OK) return bb_cli_fail(&bb_train_command, &err);

    args->options.dist = dist;
    if (bb_cli_given(cli, "grad_accum")) args->options.global_batch = 0; /* overrides the resumed run */
    /* Old configurations without global_batch were for a single rank. */
    if (args->options.global_batch == 0)
        args->options.global_batch = (int64_t)args->options.batch_size * args->options.grad_accum *
                                     (args->saved && !bb_cli_given(cli, "grad_accum") ? 1 : bb_dist_size(dist));
    int status = make_config_json(cli, args);
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
    if (bb_dist_rank(dist) == 0) {
        note_unused(cli, args);
        note_other_validation(cli, args);
    }
    return BB_CLI_CONTINUE;
}

int bb_train_args_read(int argc, char **argv, bb_dist *dist, bb_train_args *args) {
    reading r = {.argc = argc, .argv = argv, .dist = dist, .args = args};
    bb_error err;
    set_defaults(args);
    int status = bb_train_agree(dist, parse, &r);
    if (status == BB_CLI_CONTINUE && bb_train_plan(&r.cli, dist, model_file_of(args)[0] != 0, args, &err) != BB_OK)
        status = bb_train_fail_together(dist, &err);
    if (status == BB_CLI_CONTINUE) status = bb_train_agree(dist, complete, &r);
    bb_cli_free(&r.cli);
    return status;
}

void bb_train_args_free(bb_train_args *args) {
    for (size_t i = 0; i < sizeof args->absolute / sizeof *args->absolute; i++) free(args->absolute[i]);
    free(args->config_json);
    free(args->checkpoint_config_json);
    free(args->changes);
    json_decref(args->saved);
    json_decref(args->file_config);
    if (args->default_out[0]) (void)rmdir(args->default_out); /* removes it only if it is empty */
}

int bb_train_max_seq_len(const bb_train_options *o) {
    return o->seq_len ? o->seq_len : bb_seq_len_for_step(o->steps - 1, o->steps, o->seq_len_cap);
}
