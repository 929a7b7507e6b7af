// SPDX-License-Identifier: MIT
/* bitbyte bench: benchmarks training or inference at the standard shapes. */
#include <string.h>

#include "commands.h"
#include "common.h"
#include "json_out.h"
#include "progress.h"

enum { SHAPES = 3, ALL = SHAPES };
static const char *const shape_choices[] = {"S", "M", "L", "all", NULL};

typedef struct bench_args {
    bb_device_args device;
    int shape, batch_size, seq_len, repeats, optim;
    int kv_cache;
    bool decode, recompute, step_only, json;
} bench_args;

/* clang-format off: a table is read by rows */
static const bb_cli_option options[] = {
    {.help = "Benchmark"},
    {.name = "shape",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(bench_args, shape),
     .choices = shape_choices,
     .help = "S: 6 layers, width 384; M: 12 layers, 768; L: 24 layers, 1536"},
    {.name = "decode",
     .type = BB_CLI_FLAG,
     .offset = offsetof(bench_args, decode),
     .help = "benchmark inference: bytes/s from an empty context and at positions 1,024 and 4,096, reading 512 bytes, 16 "
             "sequences at once, "
             "loading, memory"},
    {.name = "kv_cache",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(bench_args, kv_cache),
     .choices = bb_kv_choices,
     .help = "with --decode: KV cache type"},
    {.name = "batch_size",
     .type = BB_CLI_INT,
     .offset = offsetof(bench_args, batch_size),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "sequences per step",
     .default_text = "0: 8 at S, 4 at M, 1 at L"},
    {.name = "seq_len",
     .type = BB_CLI_INT,
     .offset = offsetof(bench_args, seq_len),
     .value = "N",
     .range = BB_CLI_AT_LEAST(1),
     .help = "bytes per sequence"},
    {.name = "repeats",
     .type = BB_CLI_INT,
     .offset = offsetof(bench_args, repeats),
     .value = "N",
     .range = BB_CLI_AT_LEAST(1),
     .help = "number of measurements; the median is reported"},
    {.name = "optim",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(bench_args, optim),
     .choices = bb_optim_choices,
     .help = "optimizer"},
    {.name = "recompute",
     .type = BB_CLI_FLAG,
     .offset = offsetof(bench_args, recompute),
     .help = "recompute activations, as train does without --no_ckpt; the limit includes it"},
    {.name = "step_only",
     .type = BB_CLI_FLAG,
     .offset = offsetof(bench_args, step_only),
     .help = "time whole steps only, not single operations"},
    {.help = "Output and machine"},
    {.name = "json",
     .type = BB_CLI_FLAG,
     .offset = offsetof(bench_args, json),
     .help = "print a JSON array with one object per shape"},
    {.group = &bb_device_group, .offset = offsetof(bench_args, device)},
};
/* clang-format on */

static const bb_cli_command command = {
    .name = "bench",
    .summary = "times training steps and their operations, or inference, in bytes/s and percent of the peaks measured on this "
               "machine.",
    .usage = "[--shape S|M|L|all] [options]",
    .options = options,
    .option_count = BB_CLI_COUNT(options),
    .examples = "  bitbyte bench --shape S --threads 2\n"
                "  bitbyte bench --shape L --decode\n"
                "  bitbyte bench --shape all --repeats 5 --json >bench.json\n",
};

static void on_progress(void *user, const char *line) { bb_progress_update(user, "%s", line); }

static bb_status run_shape(const bench_args *args, bb_device *device, int shape, bb_progress *progress, json_t **out,
                           bb_error *err) {
    char *text;
    bb_status status;
    if (args->decode) {
        bb_decode_bench_options d;
        bb_decode_bench_options_default(&d);
        d.shape = shape_choices[shape];
        d.repeats = args->repeats;
        d.kv_cache = (bb_kv_type)args->kv_cache;
        d.on_progress = on_progress;
        d.user = progress;
        status = bb_bench_decode(device, &d, &text, err);
        goto done;
    }
    bb_bench_options o;
    bb_bench_options_default(&o);
    o.shape = shape_choices[shape];
    o.batch_size = args->batch_size;
    o.seq_len = args->seq_len;
    o.repeats = args->repeats;
    o.optim = (bb_optimizer_kind)args->optim;
    o.recompute = args->recompute;
    o.step_only = args->step_only;
    o.on_progress = on_progress;
    o.user = progress;
    status = bb_bench(device, &o, &text, err);
done:
    bb_progress_clear(progress);
    if (status != BB_OK) return status;
    *out = json_loads(text, 0, NULL);
    bb_string_free(text);
    if (*out) return BB_OK;
    err->code = BB_ERR_INTERNAL;
    strcpy(err->message, "the benchmark result is not valid JSON");
    return err->code;
}

static int bench(const bench_args *args) {
    bb_error err;
    bb_device *device = NULL;
    bb_progress progress;
    bb_progress_open(&progress, stderr, 10);
    json_t *all = json_array();
    bb_status status = bb_device_args_open(&args->device, NULL, &device, &err);
    int first = args->shape == ALL ? 0 : args->shape, last = args->shape == ALL ? SHAPES - 1 : args->shape;
    for (int shape = first; shape <= last && status == BB_OK; shape++) {
        json_t *one;
        status = run_shape(args, device, shape, &progress, &one, &err);
        if (status != BB_OK) break;
        if (!args->json) {
            if (shape > first) putchar('\n');
            bb_json_show(one, stdout);
            fflush(stdout);
        }
        json_array_append_new(all, one);
    }
    bb_device_close(device);
    if (status == BB_OK && args->json) bb_json_line(json_incref(all));
    json_decref(all);
    return status == BB_OK ? BB_EXIT_OK : bb_cli_fail(&command, &err);
}

static void note_unused(const bb_cli *cli, const bench_args *args) {
    static const char *const training[] = {"batch_size", "seq_len", "optim", "recompute", "step_only"};
    for (int i = 0; i < 5 && args->decode; i++)
        bb_cli_unused(cli, training[i], "it applies only to training; --decode benchmarks inference");
    if (!args->decode) bb_cli_unused(cli, "kv_cache", "only --decode uses a KV cache");
    bb_device_args_notes(cli, &args->device);
}

int bb_cmd_bench(int argc, char **argv) {
    bench_args args;
    bb_bench_options defaults;
    bb_bench_options_default(&defaults);
    args = (bench_args){.seq_len = defaults.seq_len, .repeats = defaults.repeats, .optim = (int)defaults.optim};
    bb_cli cli;
    int exit_status = bb_cli_parse(&cli, &command, &args, argc, argv);
    if (exit_status == BB_CLI_CONTINUE) {
        note_unused(&cli, &args);
        exit_status = bench(&args);
    }
    bb_cli_free(&cli);
    return exit_status;
}
