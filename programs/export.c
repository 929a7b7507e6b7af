// SPDX-License-Identifier: MIT
/* bitbyte export: converts a model to another format. */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "commands.h"
#include "common.h"
#include "json_out.h"
#include "progress.h"

typedef struct export_args {
    bb_device_args device;
    const char *model, *out, *format, *type, *name, *description, *license;
    int n_head;
    bool json, allow_overwrite;
} export_args;

static const bb_cli_option options[] = {
    {.help = "Model and format"},
    {.name = "model",
     .type = BB_CLI_STRING,
     .offset = offsetof(export_args, model),
     .value = "MODEL",
     .help = "model file, checkpoint, or run directory (its latest valid checkpoint)",
     .position = 1,
     .required = true},
    {.name = "out",
     .type = BB_CLI_STRING,
     .offset = offsetof(export_args, out),
     .value = "FILE",
     .help = "output file, or a new or empty folder with --format hf; a file is replaced if it exists, once the new one is "
             "complete; must not be MODEL",
     .required = true},
    {.name = "format",
     .type = BB_CLI_STRING,
     .offset = offsetof(export_args, format),
     .value = "NAME",
     .help =
         "packed (2-bit ternary weights, for eval and generate), bitbyte (f32 weights, for train --init), safetensors "
         "(for load_state_dict of the PyTorch original), hf (a folder for Hugging Face transformers), gguf (for llama.cpp)"},
    {.name = "type",
     .type = BB_CLI_STRING,
     .offset = offsetof(export_args, type),
     .value = "TYPE",
     .help = "weight type, for formats with several; hf: f32 (default), bf16; gguf: tq2_0 (default, two bits), tq1_0, q8_0, "
             "f16, f32"},
    {.name = "name",
     .type = BB_CLI_STRING,
     .offset = offsetof(export_args, name),
     .value = "TEXT",
     .help = "the model's name, for gguf"},
    {.name = "description",
     .type = BB_CLI_STRING,
     .offset = offsetof(export_args, description),
     .value = "TEXT",
     .help = "what the model is, for gguf"},
    {.name = "license",
     .type = BB_CLI_STRING,
     .offset = offsetof(export_args, license),
     .value = "TEXT",
     .help = "the model's license, for gguf, e.g. mit"},
    {.name = "n_head",
     .type = BB_CLI_INT,
     .offset = offsetof(export_args, n_head),
     .help = "attention heads, if MODEL does not store them"},
    {.name = "allow_overwrite",
     .type = BB_CLI_FLAG,
     .offset = offsetof(export_args, allow_overwrite),
     .help = "allow FILE to replace a training checkpoint, or the config.json or latest of a run"},
    {.help = "Output and machine"},
    {.name = "json",
     .type = BB_CLI_FLAG,
     .offset = offsetof(export_args, json),
     .help = "print one JSON object: model, out, bytes"},
    {.group = &bb_device_group, .offset = offsetof(export_args, device)},
};

static const bb_cli_command command = {
    .name = "export",
    .summary =
        "converts a model to another format. The default, packed, stores 2-bit ternary weights for eval and generate: 1/16 of "
        "the size, bit-identical predictions. Packed models cannot be trained; keep the checkpoint for that.",
    .usage = "MODEL --out FILE [options]",
    .options = options,
    .option_count = BB_CLI_COUNT(options),
    .examples = "  bitbyte export runs/small --out small.safetensors\n"
                "  bitbyte export runs/small --out small.gguf --format gguf\n"
                "  bitbyte generate small.safetensors --prompt 'Once'\n",
};

/* Arguments of export_one, which bb_model_find calls for each candidate file. */
typedef struct export_job {
    bb_device *device;
    const char *out;
    bb_export_options options;
    bb_progress progress;
} export_job;

static bb_status export_one(void *user, const char *path, bb_error *err) {
    const export_job *job = user;
    return bb_export(job->device, path, job->out, &job->options, err);
}

static void show_progress(void *user, int64_t done, int64_t total) {
    export_job *job = user;
    bb_progress_update(&job->progress, "exporting  %d%%", total > 0 ? (int)(100 * done / total) : 100);
}

/* Of a file, or of all files of a folder; 0 where it is not there. */
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

static int export(const export_args *args) {
    char path[4096];
    bb_error err;
    export_job job = {.out = args->out};
    if (strcmp(args->out, "-") == 0)
        return bb_cli_usage_error(&command, "--out -: cannot write a model to standard output; name a file: --out "
                                            "model.safetensors");
    bb_export_options_default(&job.options);
    job.options.format = args->format;
    job.options.type = args->type;
    job.options.name = args->name;
    job.options.description = args->description;
    job.options.license = args->license;
    job.options.n_head = args->n_head;
    job.options.on_progress = show_progress;
    job.options.user = &job;
    bb_progress_open(&job.progress, stderr, 10);
    bb_status status = bb_device_args_open(&args->device, &job.device, &err);
    if (status == BB_OK && !args->allow_overwrite) {
        status = bb_output_check(args->out, &err);
        if (status != BB_OK)
            snprintf(err.message + strlen(err.message), sizeof err.message - strlen(err.message), ", or --allow_overwrite");
    }
    if (status == BB_OK) status = bb_model_find(args->model, export_one, &job, path, sizeof path, &err);
    bb_progress_clear(&job.progress);
    if (status == BB_OK && args->json) {
        bb_json_line(json_pack("{s:o,s:o,s:I}", "model", bb_json_path_string(path), "out", bb_json_path_string(args->out),
                               "bytes", (json_int_t)bytes_at(args->out)));
    } else if (status == BB_OK) {
        printf("%s: %s, from %s of %s\n", args->out, bb_text_bytes(bytes_at(args->out)).s, path,
               bb_text_bytes(bytes_at(path)).s);
    }
    int exit_status = status == BB_OK ? BB_EXIT_OK : bb_cli_fail(&command, &err);
    bb_device_close(job.device);
    return exit_status;
}

/* An option without effect is probably a mistake, so report it. */
static void note_unused(const bb_cli *cli, const char *format, const bb_device_args *device) {
    if (strcmp(format, "hf") == 0) bb_cli_unused(cli, "allow_overwrite", "format hf writes a new folder, and replaces nothing");
    if (strcmp(format, "bitbyte") != 0 && strcmp(format, "safetensors") != 0) {
        bb_device_args_notes(cli, device);
        return;
    }
    bb_cli_unused(cli, "device", "this format takes the weights as they are, without computing");
    bb_cli_unused(cli, "threads", "this format takes the weights as they are, without computing");
}

int bb_cmd_export(int argc, char **argv) {
    export_args args = {.json = false};
    bb_cli cli;
    int exit_status = bb_cli_parse(&cli, &command, &args, argc, argv);
    if (exit_status == BB_CLI_CONTINUE) {
        note_unused(&cli, args.format ? args.format : "packed", &args.device);
        exit_status = export(&args);
    }
    bb_cli_free(&cli);
    return exit_status;
}
