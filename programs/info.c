/* bitbyte info: what a model file is, and the memory that a model takes.
 * SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "common.h"
#include "progress.h"

static struct {
    bb_model_args model;
    bb_device_args device;
    const char *file;
    int batch_size, seq_len, optim;
    bool memory, no_ckpt, json;
} args;

/* clang-format off: a table is read by rows */
static bb_cli_option options[] = {
    {.help = "What"},
    {.name = "file",
     .type = BB_CLI_STRING,
     .target = &args.file,
     .value = "FILE",
     .position = 1,
     .help = "model file, checkpoint, or run directory (its newest checkpoint)"},
    {.name = "json", .type = BB_CLI_FLAG, .target = &args.json, .help = "as one JSON object"},
    {.help = "Memory"},
    {.name = "memory",
     .type = BB_CLI_FLAG,
     .target = &args.memory,
     .help = "predict what training and inference take, by purpose, for FILE's model or for the options below"},
    {.name = "batch_size",
     .type = BB_CLI_INT,
     .target = &args.batch_size,
     .value = "N",
     .range = BB_CLI_AT_LEAST(1),
     .help = "sequences computed at once"},
    {.name = "seq_len",
     .type = BB_CLI_INT,
     .target = &args.seq_len,
     .value = "N",
     .range = BB_CLI_AT_LEAST(1),
     .help = "bytes a sequence; also the length of the key/value cache"},
    {.name = "optim", .type = BB_CLI_CHOICE, .target = &args.optim, .choices = bb_optim_choices, .help = "optimizer"},
    {.name = "no_ckpt",
     .type = BB_CLI_FLAG,
     .target = &args.no_ckpt,
     .help = "keep all activations instead of recomputing them"},
    BB_MODEL_ROWS(args.model),
    BB_DEVICE_ROWS(args.device),
};
/* clang-format on */

static const bb_cli_command command = {
    .name = "info",
    .summary = "what a model or checkpoint is: configuration, parameters, step, share of -1, 0 and +1 in each ternary matrix, "
               "scales, sizes. With --memory, what a run would take.",
    .usage = "FILE [--json] | --memory [FILE] [options]",
    .options = options,
    .option_count = BB_CLI_COUNT(options),
    .examples = "  bitbyte info runs/small\n"
                "  bitbyte info --memory --n_layer 12 --d_model 768 --d_ff 2048 --batch_size 4 --seq_len 2048\n"
                "  bitbyte info --memory runs/small --json\n",
};

static json_t *describe(const char *path, bb_error *err) {
    char *text;
    if (bb_describe_file(path, &text, err) != BB_OK) return NULL;
    json_t *json = json_loads(text, 0, NULL);
    bb_string_free(text);
    if (!json) {
        err->code = BB_ERR_INTERNAL;
        snprintf(err->message, sizeof err->message, "%.900s: the description is no JSON", path);
    }
    return json;
}

static json_t *predict(bb_error *err) {
    bb_config config;
    bb_device *device = NULL;
    bb_memory_estimate memory;
    json_t *json = NULL;
    bb_model_args_config(&args.model, &config);
    if (bb_device_args_open(&args.device, &device, err) != BB_OK) return NULL;
    if (bb_memory_predict(device, &config, (bb_optimizer_kind)args.optim, args.batch_size, args.seq_len, !args.no_ckpt, &memory,
                          err) == BB_OK) {
        uint64_t total_bytes, free_bytes;
        bb_device_memory(device, &total_bytes, &free_bytes);
        json = bb_memory_json(&memory);
        json_t *device_json = json_pack("{s:I,s:I,s:I}", "model_parameters", (json_int_t)bb_config_parameters(&config),
                                        "device_total", (json_int_t)total_bytes, "device_free", (json_int_t)free_bytes);
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

static void show_memory(const json_t *memory) {
    printf("%s parameters\n", bb_text_count((uint64_t)json_integer_value(json_object_get(memory, "model_parameters"))).s);
    char title[160];
    snprintf(title, sizeof title, "training, batch_size %d, seq_len %d, %s, %s", args.batch_size, args.seq_len,
             bb_optim_choices[args.optim], args.no_ckpt ? "all activations kept" : "activations recomputed");
    show_bytes(json_object_get(memory, "training"), title);
    snprintf(title, sizeof title, "generating, up to %d bytes", args.seq_len);
    show_bytes(json_object_get(memory, "inference"), title);
    printf("this machine: %s, %s free\n",
           bb_text_bytes((uint64_t)json_integer_value(json_object_get(memory, "device_total"))).s,
           bb_text_bytes((uint64_t)json_integer_value(json_object_get(memory, "device_free"))).s);
}

/* An option that would change nothing is a mistake that is better said. */
static int check(void) {
    if (!args.file && !args.memory) return bb_cli_usage_error(&command, "FILE is missing: bitbyte info %s", command.usage);
    for (int i = 0; i < command.option_count && !args.memory; i++) {
        const bb_cli_option *option = &options[i];
        if (option->given && option->target != &args.file && option->target != &args.json)
            return bb_cli_usage_error(&command, "--%s only means something with --memory", option->name);
    }
    return BB_CLI_GO_ON;
}

int bb_cmd_info(int argc, char **argv) {
    bb_model_args_default(&args.model);
    args.batch_size = 1;
    args.seq_len = 2048;
    args.optim = BB_OPTIM_ADAMW8BIT;
    int exit_status = bb_cli_parse(&command, argc, argv);
    if (exit_status == BB_CLI_GO_ON) exit_status = check();
    if (exit_status != BB_CLI_GO_ON) return exit_status;

    char path[4096];
    bb_error err;
    bb_config config;
    json_t *json = NULL;
    if (args.file && bb_model_path(args.file, path, sizeof path, &err) != BB_OK) return bb_cli_fail(&command, &err);
    if (args.memory && args.file) {
        if (bb_config_load(path, &config, NULL, &err) != BB_OK) return bb_cli_fail(&command, &err);
        exit_status = bb_model_args_from_file(&command, &args.model, path, &config);
        if (exit_status != BB_CLI_GO_ON) return exit_status;
    }
    json = args.memory ? predict(&err) : describe(path, &err);
    if (!json) return bb_cli_fail(&command, &err);
    if (args.json) {
        bb_json_line(json);
        return BB_EXIT_OK;
    }
    if (args.memory)
        show_memory(json);
    else
        bb_json_show(json, stdout);
    json_decref(json);
    return BB_EXIT_OK;
}
