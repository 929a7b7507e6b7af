// SPDX-License-Identifier: MIT
/* bitbyte info: describes or verifies a model file, and predicts memory. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "commands.h"
#include "common.h"
#include "json_out.h"
#include "progress.h"

typedef struct info_args {
    bb_model_args model;
    bb_device_args device;
    const char *file, *size;
    int batch_size, seq_len, optim;
    bool memory, verify, no_ckpt, json;
} info_args;

/* clang-format off: a table is read by rows */
static const bb_cli_option options[] = {
    {.help = "Model"},
    {.name = "file",
     .type = BB_CLI_STRING,
     .offset = offsetof(info_args, file),
     .value = "FILE",
     .position = 1,
     .help = "model file of any format, checkpoint, Hugging Face folder, run directory (its latest valid checkpoint; with "
             "--verify, all checkpoints), or RUN/best"},
    {.name = "json", .type = BB_CLI_FLAG, .offset = offsetof(info_args, json), .help = "print one JSON object"},
    {.name = "verify",
     .type = BB_CLI_FLAG,
     .offset = offsetof(info_args, verify),
     .help = "read the whole file and check its checksums; exit status 1 if anything is damaged"},
    {.help = "Memory"},
    {.name = "memory",
     .type = BB_CLI_FLAG,
     .offset = offsetof(info_args, memory),
     .help = "predict training and inference memory for FILE's model, or for the options below"},
    {.name = "size",
     .type = BB_CLI_STRING,
     .offset = offsetof(info_args, size),
     .value = "1m|3m|10m|25m|85m|200m|680m",
     .help = "the model's shape by its number of parameters, as of train --size"},
    {.name = "batch_size",
     .type = BB_CLI_INT,
     .offset = offsetof(info_args, batch_size),
     .value = "N",
     .range = BB_CLI_AT_LEAST(1),
     .help = "sequences per micro-batch"},
    {.name = "seq_len",
     .type = BB_CLI_INT,
     .offset = offsetof(info_args, seq_len),
     .value = "N",
     .range = BB_CLI_AT_LEAST(1),
     .help = "bytes per sequence, and length of the KV cache"},
    {.name = "optim",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(info_args, optim),
     .choices = bb_optim_choices,
     .help = "optimizer"},
    {.name = "no_ckpt",
     .type = BB_CLI_FLAG,
     .offset = offsetof(info_args, no_ckpt),
     .help = "keep all activations instead of recomputing them"},
    {.group = &bb_model_group, .offset = offsetof(info_args, model)},
    {.group = &bb_device_group, .offset = offsetof(info_args, device)},
};
/* clang-format on */

static const bb_cli_command command = {
    .name = "info",
    .summary = "describes a compressed file, or a model or checkpoint: configuration, parameters, step, and scale and shares "
               "of -1, 0 and +1 of each "
               "ternary matrix. --verify checks for damage; --memory predicts the memory of a run.",
    .usage = "FILE [--verify] [--json] | --memory [FILE] [options]",
    .options = options,
    .option_count = BB_CLI_COUNT(options),
    .examples = "  bitbyte info runs/small\n"
                "  bitbyte info --verify runs/small\n"
                "  bitbyte info --memory --size 85m --batch_size 4 --seq_len 2048\n"
                "  bitbyte info --memory runs/small --json\n",
};

/* What bb_model_find reads, and how. */
typedef struct reading {
    bb_import_options options;
    json_t *json;
    bb_config config;
} reading;

static bool is_compressed(const char *path) {
    uint8_t head[16];
    FILE *file = fopen(path, "rb");
    size_t size = file ? fread(head, 1, sizeof head, file) : 0;
    if (file) (void)fclose(file);
    return bb_is_compressed(head, size);
}

static bb_status describe(void *user, const char *path, bb_error *err) {
    reading *r = user;
    char *text;
    bb_status status =
        is_compressed(path) ? bb_compressed_describe(path, &text, err) : bb_describe_file(path, &r->options, &text, err);
    if (status != BB_OK) return status;
    r->json = json_loads(text, 0, NULL);
    bb_string_free(text);
    if (r->json) return BB_OK;
    err->code = BB_ERR_INTERNAL;
    snprintf(err->message, sizeof err->message, "%.900s: the description is not valid JSON", path);
    return err->code;
}

static bb_status load_config(void *user, const char *path, bb_error *err) {
    reading *r = user;
    return bb_config_load(path, &r->options, &r->config, NULL, err);
}

/* ---- verify ----------------------------------------------------------------------------------------------------------- */

typedef struct verification {
    json_t *files;
    bb_import_options options;
    bb_progress progress;
    const char *path; /* file being read */
    int damaged;
} verification;

static void on_progress(void *user, int64_t bytes_done, int64_t bytes_total) {
    verification *v = user;
    const bb_progress_bar bar = {.what = "verifying",
                                 .done = (double)bytes_done,
                                 .total = (double)bytes_total,
                                 .bytes = (double)bytes_done,
                                 .detail = v->path};
    bb_progress_show(&v->progress, &bar);
}

static bb_status verify_file(verification *v, const char *path, bb_error *err) {
    char *text;
    bool good;
    v->path = path;
    bb_status status = bb_verify_file(path, &v->options, on_progress, v, &good, &text, err);
    if (status != BB_OK) return status;
    if (!good) v->damaged++;
    json_array_append_new(v->files, json_loads(text, 0, NULL));
    bb_string_free(text);
    return BB_OK;
}

static bb_status verify_all(const info_args *args, verification *v, bb_error *err) {
    struct stat info;
    char path[4096];
    long long step;
    bb_status status;
    if (stat(args->file, &info) != 0 || !S_ISDIR(info.st_mode) || bb_is_hf_folder(args->file)) {
        status = bb_run_named_checkpoint(args->file, path, sizeof path, err);
        return status == BB_OK ? verify_file(v, path, err) : status;
    }
    status = bb_run_checkpoint_before(args->file, INT64_MAX, path, sizeof path, err);
    while (status == BB_OK) {
        if ((status = verify_file(v, path, err)) != BB_OK) return status;
        if (sscanf(path + strlen(args->file), "/step-%lld", &step) != 1) break;
        bb_error none_left;
        if (bb_run_checkpoint_before(args->file, step, path, sizeof path, &none_left) != BB_OK) break;
    }
    return status;
}

static int verify(const info_args *args, const bb_import_options *import) {
    verification v = {.files = json_array(), .options = *import};
    bb_error err;
    bb_progress_open(&v.progress, stderr, 0);
    bb_status status = verify_all(args, &v, &err);
    bb_progress_clear(&v.progress);
    size_t i, j;
    json_t *file, *failure;
    if (status != BB_OK) {
        json_decref(v.files);
        return bb_cli_fail(&command, &err);
    }
    if (args->json) {
        bb_json_line(json_pack("{s:b,s:o}", "good", v.damaged == 0, "files", v.files));
        return v.damaged ? BB_EXIT_FAILURE : BB_EXIT_OK;
    }
    json_array_foreach(v.files, i, file) {
        bool good = json_is_true(json_object_get(file, "good"));
        bool sums = json_is_true(json_object_get(file, "checksums"));
        printf("%s: %s, %lld tensors of %s%s\n", json_string_value(json_object_get(file, "file")), good ? "good" : "DAMAGED",
               (long long)json_integer_value(json_object_get(file, "tensors")),
               bb_text_bytes((uint64_t)json_integer_value(json_object_get(file, "bytes"))).s,
               good && !sums ? "; the file has no checksums to verify" : "");
        json_array_foreach(json_object_get(file, "failures"), j, failure)
            printf("  %s\n", json_string_value(json_object_get(failure, "reason")));
    }
    json_decref(v.files);
    return v.damaged ? BB_EXIT_FAILURE : BB_EXIT_OK;
}

static json_t *predict(const info_args *args, bb_error *err) {
    bb_config config;
    bb_device *device = NULL;
    bb_memory_estimate memory;
    const bb_memory_request request = {.struct_size = sizeof(bb_memory_request),
                                       .optim = (bb_optimizer_kind)args->optim,
                                       .batch_size = args->batch_size,
                                       .seq_len = args->seq_len,
                                       .recompute = !args->no_ckpt};
    json_t *json = NULL;
    bb_model_args_config(&args->model, &config);
    if (bb_device_args_open(&args->device, NULL, &device, err) != BB_OK) return NULL;
    if (bb_memory_predict(device, &config, &request, &memory, err) == BB_OK) {
        uint64_t total_bytes, free_bytes;
        bb_device_memory(device, &total_bytes, &free_bytes);
        json = bb_memory_json(&memory);
        bool known = total_bytes > 0;
        json_t *device_json = json_pack("{s:I,s:s,s:s,s:o,s:o}", "model_parameters", (json_int_t)bb_config_parameters(&config),
                                        "device", bb_device_name(device), "device_description", bb_device_description(device),
                                        "device_total", known ? json_integer((json_int_t)total_bytes) : json_null(),
                                        "device_free", known ? json_integer((json_int_t)free_bytes) : json_null());
        json_object_update(json, device_json);
        json_decref(device_json);
    }
    bb_device_close(device);
    return json;
}

static void show_bytes(json_t *parts, const char *title) {
    const char *key;
    json_t *value;
    printf("%s\n", title);
    json_object_foreach(parts, key, value) printf("  %-18s %12s\n", key, bb_text_bytes((uint64_t)json_integer_value(value)).s);
}

static void show_memory(const info_args *args, const json_t *memory) {
    printf("%s parameters\n", bb_text_count((uint64_t)json_integer_value(json_object_get(memory, "model_parameters"))).s);
    char title[160];
    snprintf(title, sizeof title, "training, batch_size %d, seq_len %d, %s, %s", args->batch_size, args->seq_len,
             bb_optim_choices[args->optim], args->no_ckpt ? "all activations kept" : "activations recomputed");
    show_bytes(json_object_get(memory, "training"), title);
    snprintf(title, sizeof title, "generating, up to %d bytes", args->seq_len);
    show_bytes(json_object_get(memory, "inference"), title);
    printf("device: %s, %s\n", json_string_value(json_object_get(memory, "device")),
           json_string_value(json_object_get(memory, "device_description")));
    if (json_is_null(json_object_get(memory, "device_total")))
        puts("this machine: memory size unknown");
    else
        printf("this machine: %s, %s free\n",
               bb_text_bytes((uint64_t)json_integer_value(json_object_get(memory, "device_total"))).s,
               bb_text_bytes((uint64_t)json_integer_value(json_object_get(memory, "device_free"))).s);
}

static void note_unused(const bb_cli *cli, const info_args *args) {
    bb_model_args_notes(cli, &args->model);
    if (!args->model.dense) bb_cli_unused(cli, "ste", "memory does not depend on it");
    bb_cli_unused(cli, "rope_base", "memory does not depend on it");
    bb_device_args_notes(cli, &args->device);
}

/* An option without effect is probably a mistake, so report it. */
static int check(const bb_cli *cli, const info_args *args) {
    if (args->verify && (args->memory || !args->file))
        return bb_cli_usage_error(&command, args->file ? "give --verify or --memory, not both" : "--verify: FILE is missing");
    if (!args->file && !args->memory) return bb_cli_usage_error(&command, "FILE is missing: bitbyte info %s", command.usage);
    for (int i = 0; i < cli->row_count && !args->memory; i++) {
        const bb_cli_row *row = &cli->rows[i];
        if (row->given && row->target != &args->file && row->target != &args->json && row->target != &args->verify &&
            row->target != &args->model.n_head)
            return bb_cli_usage_error(&command, "--%s requires --memory", row->option->name);
    }
    if (args->file && args->size) return bb_cli_usage_error(&command, "give FILE or --size, not both");
    return BB_CLI_CONTINUE;
}

static int info(const bb_cli *cli, info_args *args) {
    int exit_status = check(cli, args);
    if (exit_status != BB_CLI_CONTINUE) return exit_status;

    char path[4096];
    bb_error err;
    const bb_import_args import = {.n_head = bb_cli_given(cli, "n_head") ? args->model.n_head : 0};
    reading r = {.options = bb_import_args_options(&import)};
    if (args->verify) return verify(args, &r.options);
    if (args->memory && args->file) {
        if (bb_model_find(args->file, load_config, &r, path, sizeof path, &err) != BB_OK) return bb_cli_fail(&command, &err);
        exit_status = bb_model_args_from_file(cli, &args->model, path, &r.config);
        if (exit_status != BB_CLI_CONTINUE) return exit_status;
    } else if (args->size) {
        exit_status = bb_model_args_of_size(cli, &args->model, args->size);
        if (exit_status != BB_CLI_CONTINUE) return exit_status;
    }
    if (args->memory) note_unused(cli, args);
    if (args->memory)
        r.json = predict(args, &err);
    else
        (void)bb_model_find(args->file, describe, &r, path, sizeof path, &err);
    json_t *json = r.json;
    if (!json) return bb_cli_fail(&command, &err);
    if (args->json) {
        bb_json_line(json);
        return BB_EXIT_OK;
    }
    if (args->memory)
        show_memory(args, json);
    else
        bb_json_show(json, stdout);
    json_decref(json);
    return BB_EXIT_OK;
}

int bb_cmd_info(int argc, char **argv) {
    info_args args = {.batch_size = 1, .seq_len = 2048, .optim = BB_OPTIM_MUON};
    bb_model_args_default(&args.model);
    bb_cli cli;
    int exit_status = bb_cli_parse(&cli, &command, &args, argc, argv);
    if (exit_status == BB_CLI_CONTINUE) exit_status = info(&cli, &args);
    bb_cli_free(&cli);
    return exit_status;
}
