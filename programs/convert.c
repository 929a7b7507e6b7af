// SPDX-License-Identifier: MIT
/* bitbyte convert and bitbyte export: one command under two names. They differ in the name of the format option, and in the
 * default format if the file name implies none. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "chat_template.h"
#include "commands.h"
#include "common.h"
#include "json_out.h"
#include "progress.h"
#include "signals.h"

typedef struct convert_args {
    bb_device_args device;
    bb_import_args import;
    const char *model, *out, *format, *type, *name, *description, *license, *chat_template;
    bool json, allow_overwrite;
} convert_args;

#define MODEL_HELP                                                                                                             \
    "model file of any format, checkpoint, Hugging Face folder, run directory (its latest valid checkpoint), or RUN/best"
#define OUT_HELP                                                                                                               \
    "output file, or for hf a new or empty folder; an existing file is replaced once the new one is complete; must not "       \
    "be "                                                                                                                      \
    "the source"
#define FORMAT_HELP                                                                                                            \
    "packed (2-bit ternary weights, for eval and generate), bitbyte (f32 weights, for train --init), safetensors (for "        \
    "load_state_dict of the PyTorch original), hf (a folder for Hugging Face transformers), gguf (for llama.cpp)"

static const bb_cli_option shared_options[] = {
    {.name = "type",
     .type = BB_CLI_STRING,
     .offset = offsetof(convert_args, type),
     .value = "TYPE",
     .help = "weight type, for formats with several; hf: f32 (default), bf16, bitnet (two bits); gguf: tq2_0 (two bits, the "
             "default where d_model and d_ff are multiples of 256), tq1_0, q2_0 (two bits, multiples of 64, new versions of "
             "llama.cpp), q8_0, f16, f32"},
    {.name = "name",
     .type = BB_CLI_STRING,
     .offset = offsetof(convert_args, name),
     .value = "TEXT",
     .help = "the model's name, for gguf and hf"},
    {.name = "description",
     .type = BB_CLI_STRING,
     .offset = offsetof(convert_args, description),
     .value = "TEXT",
     .help = "what the model is, for gguf and hf"},
    {.name = "license",
     .type = BB_CLI_STRING,
     .offset = offsetof(convert_args, license),
     .value = "TEXT",
     .help = "the model's license, for gguf and hf, e.g. mit"},
    {.name = "chat_template",
     .type = BB_CLI_STRING,
     .offset = offsetof(convert_args, chat_template),
     .value = "FILE|TEXT",
     .help = BB_CHAT_TEMPLATE_HELP "; '' omits it",
     .default_text = "the model's, if it has one"},
    {.group = &bb_import_group, .offset = offsetof(convert_args, import)},
    {.name = "allow_overwrite",
     .type = BB_CLI_FLAG,
     .offset = offsetof(convert_args, allow_overwrite),
     .help = "allow replacing a training checkpoint, or the config.json, latest or best of a run"},
    {.help = "Output and machine"},
    {.name = "json",
     .type = BB_CLI_FLAG,
     .offset = offsetof(convert_args, json),
     .help = "print one JSON object: model, out, format, bytes"},
    {.group = &bb_device_group, .offset = offsetof(convert_args, device)},
};
static const bb_cli_group shared_group = {shared_options, BB_CLI_COUNT(shared_options)};

static const bb_cli_option export_options[] = {
    {.help = "Model and format"},
    {.name = "model",
     .type = BB_CLI_STRING,
     .offset = offsetof(convert_args, model),
     .value = "MODEL",
     .help = MODEL_HELP,
     .position = 1,
     .required = true},
    {.name = "out",
     .type = BB_CLI_STRING,
     .offset = offsetof(convert_args, out),
     .value = "FILE",
     .help = OUT_HELP,
     .required = true},
    {.name = "format",
     .type = BB_CLI_STRING,
     .offset = offsetof(convert_args, format),
     .value = "NAME",
     .help = FORMAT_HELP,
     .default_text = "gguf for FILE.gguf, hf for FOLDER/, else packed"},
    {.group = &shared_group},
};

static const bb_cli_option convert_options[] = {
    {.help = "Model and format"},
    {.name = "in",
     .type = BB_CLI_STRING,
     .offset = offsetof(convert_args, model),
     .value = "IN",
     .help = MODEL_HELP,
     .position = 1,
     .required = true},
    {.name = "out",
     .type = BB_CLI_STRING,
     .offset = offsetof(convert_args, out),
     .value = "OUT",
     .help = OUT_HELP,
     .position = 2,
     .required = true},
    {.name = "to",
     .type = BB_CLI_STRING,
     .offset = offsetof(convert_args, format),
     .value = "NAME",
     .help = FORMAT_HELP,
     .default_text = "gguf for OUT.gguf, hf for FOLDER/, else bitbyte"},
    {.group = &shared_group},
};

/* A command's name for the format option, and its default format. */
typedef struct variant {
    const bb_cli_command *command;
    const char *fallback;
} variant;

static const bb_cli_command export_command = {
    .name = "export",
    .summary =
        "converts a model to another format. The default, packed, stores 2-bit ternary weights for eval and generate: 1/16 of "
        "the size, bit-identical predictions. Packed models cannot be trained; keep the checkpoint for that.",
    .usage = "MODEL --out FILE [options]",
    .options = export_options,
    .option_count = BB_CLI_COUNT(export_options),
    .examples = "  bitbyte export runs/small --out small.safetensors\n"
                "  bitbyte export runs/small --out small.gguf --format gguf\n"
                "  bitbyte generate small.safetensors --prompt 'Once'\n",
};

static const bb_cli_command convert_command = {
    .name = "convert",
    .summary =
        "converts a model between any two formats: checkpoints, files of the PyTorch original, Hugging Face folders, GGUF. "
        "The same as export, but without --to, *.safetensors keeps the f32 weights.",
    .usage = "IN OUT [--to NAME] [options]",
    .options = convert_options,
    .option_count = BB_CLI_COUNT(convert_options),
    .examples = "  bitbyte convert ckpt.pt small.safetensors\n"
                "  bitbyte convert runs/small small.gguf --type f16\n"
                "  bitbyte convert small.gguf small_hf/ --name Small --license mit\n",
};

static const variant as_export = {&export_command, "packed"}, as_convert = {&convert_command, "bitbyte"};

/* Arguments of convert_one, which bb_model_find calls for each candidate file. */
typedef struct convert_job {
    bb_device *device;
    const char *out;
    bb_export_options options;
    bb_progress progress;
    bb_error failure; /* of a source that is good */
} convert_job;

/* A failure that is not due to the source, such as a full disk, must not pass for damage, after which bb_model_find tries the
 * previous checkpoint. */
static bb_status convert_one(void *user, const char *path, bb_error *err) {
    convert_job *job = user;
    const bb_import_options import = {.struct_size = sizeof import, .n_head = job->options.n_head};
    char *text = NULL;
    bool good = false;
    bb_error ignored;
    bb_status status = bb_export(job->device, path, job->out, &job->options, err);
    if (status != BB_ERR_IO || bb_verify_file(path, &import, NULL, NULL, &good, &text, &ignored) != BB_OK) return status;
    bb_string_free(text);
    if (!good) return status;
    job->failure = *err;
    return err->code = BB_ERR_INTERRUPTED;
}

static void show_progress(void *user, int64_t done, int64_t total) {
    convert_job *job = user;
    const bb_progress_bar bar = {.what = "converting", .done = (double)done, .total = (double)total, .bytes = (double)done};
    bb_progress_show(&job->progress, &bar);
}

static void show_notice(void *user, const char *text) {
    convert_job *job = user;
    bb_progress_clear(&job->progress);
    fprintf(stderr, "note: %s\n", text);
}

/* Returns the size of a file, or of all files in a folder; 0 if it does not exist. */
static uint64_t bytes_at(const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) return 0;
    if (!S_ISDIR(st.st_mode)) return (uint64_t)st.st_size;
    uint64_t sum = 0;
    DIR *dir = opendir(path);
    for (const struct dirent *entry; dir && (entry = readdir(dir));)
        if (fstatat(dirfd(dir), entry->d_name, &st, 0) == 0 && S_ISREG(st.st_mode)) sum += (uint64_t)st.st_size;
    if (dir) closedir(dir);
    return sum;
}

/* An option without effect is probably a mistake, so report it. */
static void note_unused(const bb_cli *cli, const char *format, const bb_device_args *device) {
    if (strcmp(format, "hf") == 0) bb_cli_unused(cli, "allow_overwrite", "format hf writes a new folder and replaces nothing");
    if (strcmp(format, "bitbyte") != 0 && strcmp(format, "safetensors") != 0) {
        bb_device_args_notes(cli, device);
        return;
    }
    bb_cli_unused(cli, "device", "this format copies the weights without computation");
    bb_cli_unused(cli, "threads", "this format copies the weights without computation");
}

static int convert(const variant *v, const bb_cli *cli, const convert_args *args) {
    char path[4096];
    bb_error err;
    convert_job job = {.out = args->out};
    if (strcmp(args->out, "-") == 0)
        return bb_cli_usage_error(v->command, "--out -: cannot write a model to standard output; name a file: --out "
                                              "model.safetensors");
    bb_import_options import = bb_import_args_options(&args->import);
    bb_export_options_default(&job.options);
    const char *named = bb_export_format_for(args->out);
    job.options.format = args->format ? args->format : named ? named : v->fallback;
    char *chat_template = NULL;
    if (args->chat_template && *args->chat_template &&
        bb_chat_template_read(args->chat_template, &chat_template, &err) != BB_OK)
        return bb_cli_fail(v->command, &err);
    note_unused(cli, job.options.format, &args->device);
    job.options.type = args->type;
    job.options.name = args->name;
    job.options.description = args->description;
    job.options.license = args->license;
    job.options.chat_template = chat_template ? chat_template : args->chat_template; /* NULL, or empty */
    job.options.n_head = import.n_head;
    job.options.on_notice = show_notice;
    job.options.on_progress = show_progress;
    job.options.stop = bb_signals_stop();
    job.options.user = &job;
    bb_progress_open(&job.progress, stderr, 10);
    bb_signals_install(NULL, NULL, NULL);
    bb_status status = bb_device_args_open(&args->device, NULL, &job.device, &err);
    if (status == BB_OK && !args->allow_overwrite) {
        status = bb_output_check(args->out, &err);
        if (status != BB_OK)
            snprintf(err.message + strlen(err.message), sizeof err.message - strlen(err.message), ", or --allow_overwrite");
    }
    if (status == BB_OK) status = bb_model_find(args->model, convert_one, &job, path, sizeof path, &err);
    if (job.failure.code != BB_OK) err = job.failure;
    bb_progress_clear(&job.progress);
    if (status == BB_OK && args->json) {
        bb_json_line(json_pack("{s:o,s:o,s:s,s:I}", "model", bb_json_path_string(path), "out", bb_json_path_string(args->out),
                               "format", job.options.format, "bytes", (json_int_t)bytes_at(args->out)));
    } else if (status == BB_OK) {
        printf("%s: %s, %s, from %s of %s\n", args->out, job.options.format, bb_text_bytes(bytes_at(args->out)).s, path,
               bb_text_bytes(bytes_at(path)).s);
    }
    bool stopped = status == BB_ERR_INTERRUPTED && job.failure.code == BB_OK;
    int exit_status = status == BB_OK ? BB_EXIT_OK : stopped ? bb_signals_exit_status() : bb_cli_fail(v->command, &err);
    bb_device_close(job.device);
    free(chat_template);
    return exit_status;
}

static int run(const variant *v, int argc, char **argv) {
    convert_args args = {.json = false};
    bb_cli cli;
    int exit_status = bb_cli_parse(&cli, v->command, &args, argc, argv);
    if (exit_status == BB_CLI_CONTINUE) exit_status = convert(v, &cli, &args);
    bb_cli_free(&cli);
    return exit_status;
}

int bb_cmd_export(int argc, char **argv) { return run(&as_export, argc, argv); }
int bb_cmd_convert(int argc, char **argv) { return run(&as_convert, argc, argv); }
