// SPDX-License-Identifier: MIT
/* bitbyte eval: measures bits per byte on held-out data. */
#include <string.h>

#include "commands.h"
#include "common.h"
#include "json_out.h"
#include "progress.h"

enum { DEFAULT_MAX_SEQ_LEN = 2048, ROWS = 4096 };

typedef struct eval_args {
    bb_device_args device;
    bb_import_args import;
    const char *model, *data;
    int seq_len, batch_size;
    int64_t batches;
    bool sliding, json;
    int kv_cache;
} eval_args;

enum { NO_CACHE = 3 };
static const char *const kv_choices[] = {
    [BB_KV_INT6] = "int6", [BB_KV_INT8] = "int8", [BB_KV_F32] = "f32", [NO_CACHE] = "none", NULL};

static const bb_cli_option options[] = {
    {.help = "Input"},
    {.name = "model",
     .type = BB_CLI_STRING,
     .offset = offsetof(eval_args, model),
     .value = "MODEL",
     .help =
         "model file of any format, checkpoint, Hugging Face folder, run directory (its latest valid checkpoint), or RUN/best",
     .position = 1,
     .required = true},
    {.name = "data",
     .type = BB_CLI_STRING,
     .offset = offsetof(eval_args, data),
     .value = "DIR|GLOB|FILE",
     .help = "data to score: a directory (its val_*.bin, else its shard_*.bin), a quoted glob, a file, a pipe, or - for "
             "standard input. gzip, zstd, xz, bzip2 and UTF-16 are detected",
     .position = 2,
     .required = true},
    {.name = "seq_len",
     .type = BB_CLI_INT,
     .offset = offsetof(eval_args, seq_len),
     .value = "N",
     .help = "window length in bytes; each window is scored independently",
     .range = BB_CLI_AT_LEAST(0),
     .default_text = "0: trained length, at most 2048"},
    {.name = "sliding",
     .type = BB_CLI_FLAG,
     .offset = offsetof(eval_args, sliding),
     .help = "overlap windows by half and score the second half, like generate on a long text; takes twice as long"},
    {.name = "kv_cache",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(eval_args, kv_cache),
     .choices = kv_choices,
     .help = "evaluate through a KV cache of this type, as generate does; shows the cost of cache rounding; much slower"},
    {.name = "batches",
     .type = BB_CLI_INT64,
     .offset = offsetof(eval_args, batches),
     .value = "N",
     .help = "stop after N batches; 0: score everything",
     .range = BB_CLI_AT_LEAST(0)},
    {.name = "batch_size",
     .type = BB_CLI_INT,
     .offset = offsetof(eval_args, batch_size),
     .value = "N",
     .help = "windows per batch; changes speed and memory, not the result",
     .range = BB_CLI_AT_LEAST(0),
     .default_text = "0: about 4096 bytes per batch"},
    {.group = &bb_import_group, .offset = offsetof(eval_args, import)},
    {.help = "Output and machine"},
    {.name = "json",
     .type = BB_CLI_FLAG,
     .offset = offsetof(eval_args, json),
     .help = "print one JSON object: bpb, loss (nats), bytes, seconds, files, pattern (for a directory), seq_len, sliding, "
             "kv_cache, model, data"},
    {.group = &bb_device_group, .offset = offsetof(eval_args, device)},
};

static const bb_cli_command command = {
    .name = "eval",
    .summary = "measures bits per byte on held-out data. Scores every byte once, except the first of each file. Results are "
               "reproducible.",
    .usage = "MODEL DATA [options]",
    .options = options,
    .option_count = BB_CLI_COUNT(options),
    .examples = "  bitbyte eval runs/small data/val_00000.bin\n"
                "  bitbyte eval runs/small --data 'data/val_*.bin' --json\n"
                "  head -c 100000 book.txt | bitbyte eval runs/small -\n"
                "  bitbyte eval runs/small <(grep -v '^#' book.txt)\n",
};

static void on_progress(void *user, int64_t bytes_done, int64_t bytes_total, double bpb_so_far) {
    char detail[64];
    snprintf(detail, sizeof detail, "%.4f bits per byte so far", bpb_so_far);
    const bb_progress_bar bar = {.what = "scoring",
                                 .done = (double)bytes_done,
                                 .total = (double)bytes_total,
                                 .bytes = (double)bytes_done,
                                 .detail = detail};
    bb_progress_show(user, &bar);
}

/* If a pack has no val shards, its shards are training data. */
static void warn_of_training_data(const char *data, const bb_eval_result *result) {
    if (result->pattern && strcmp(result->pattern, "shard_*.bin") == 0)
        fprintf(stderr, "note: %s has no val_*.bin; scored its shard_*.bin, which are training data\n", data);
}

static void show(const eval_args *args, const char *path, const bb_eval_options *options_used, const bb_eval_result *result) {
    warn_of_training_data(args->data, result);
    if (args->json) {
        bb_json_line(json_pack("{s:f,s:f,s:I,s:f,s:I,s:s?,s:i,s:b,s:s,s:o,s:o}", "bpb", result->bpb, "loss", result->loss,
                               "bytes", (json_int_t)result->bytes, "seconds", result->seconds, "files",
                               (json_int_t)result->files, "pattern", result->pattern, "seq_len", options_used->seq_len,
                               "sliding", options_used->sliding, "kv_cache", kv_choices[args->kv_cache], "model",
                               bb_json_path_string(path), "data", bb_json_path_string(args->data)));
        return;
    }
    double rate = result->seconds > 0 ? (double)result->bytes / result->seconds : 0;
    printf("%.4f bits per byte (%.4f nats): %lld bytes of %lld file%s%s%s, windows of %d%s, in %s (%s/s)\n", result->bpb,
           result->loss, (long long)result->bytes, (long long)result->files, result->files == 1 ? "" : "s",
           result->pattern ? " " : "", result->pattern ? result->pattern : "", options_used->seq_len,
           options_used->sliding ? ", overlapping by half" : "", bb_text_duration(result->seconds).s,
           bb_text_bytes((uint64_t)rate).s);
}

static int eval(const eval_args *args) {
    int exit_status;
    bb_error err;
    bb_device *device = NULL;
    bb_found_model found = {.model = NULL};
    bb_eval_options eval_options;
    bb_eval_result result;
    bb_progress progress;
    bb_progress_open(&progress, stderr, 0);
    bb_eval_options_default(&eval_options);

    bb_status status = bb_device_args_open(&args->device, NULL, &device, &err);
    if (status == BB_OK) status = bb_model_open(device, args->model, &args->import, &found, &err);
    if (status == BB_OK) {
        int trained = bb_model_trained_length(found.model);
        eval_options.seq_len = args->seq_len ? args->seq_len : trained < DEFAULT_MAX_SEQ_LEN ? trained : DEFAULT_MAX_SEQ_LEN;
        eval_options.batch_size = args->batch_size              ? args->batch_size
                                  : eval_options.seq_len < ROWS ? ROWS / eval_options.seq_len
                                                                : 1;
        if (eval_options.seq_len > trained)
            fprintf(stderr, "note: windows of %d bytes exceed the trained length of %d; predictions get worse beyond it\n",
                    eval_options.seq_len, trained);
        eval_options.max_batches = args->batches;
        eval_options.sliding = args->sliding;
        eval_options.cached = args->kv_cache != NO_CACHE;
        if (eval_options.cached) eval_options.kv_cache = (bb_kv_type)args->kv_cache;
        eval_options.on_progress = on_progress;
        eval_options.user = &progress;
        status = bb_evaluate(found.model, args->data, &eval_options, &result, &err);
    }
    bb_progress_clear(&progress);
    if (status == BB_OK) {
        show(args, found.path, &eval_options, &result);
        exit_status = BB_EXIT_OK;
    } else {
        exit_status = bb_cli_fail(&command, &err);
    }
    bb_model_free(found.model);
    bb_device_close(device);
    return exit_status;
}

int bb_cmd_eval(int argc, char **argv) {
    eval_args args = {.kv_cache = NO_CACHE};
    bb_cli cli;
    int exit_status = bb_cli_parse(&cli, &command, &args, argc, argv);
    if (exit_status == BB_CLI_CONTINUE) {
        if (args.kv_cache != NO_CACHE && args.batches == 0)
            bb_cli_unused(&cli, "batch_size", "with --kv_cache, windows are scored one at a time");
        bb_device_args_notes(&cli, &args.device);
        exit_status = eval(&args);
    }
    bb_cli_free(&cli);
    return exit_status;
}
