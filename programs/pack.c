// SPDX-License-Identifier: MIT
/* bitbyte pack: packs files and folders into shards of bytes. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "commands.h"
#include "common.h"
#include "json_out.h"
#include "progress.h"
#include "signals.h"

enum { MAX_JSON_KEYS = 64 };

typedef struct pack_args {
    bb_cli_list inputs, exts;
    const char *out_dir, *json_key;
    double shard_size_gb, val_frac;
    int sep_byte, input_format;
    bool strict, overwrite, json;
} pack_args;

static const char *const input_formats[] = {
    [BB_INPUT_AUTO] = "auto", [BB_INPUT_TEXT] = "text", [BB_INPUT_JSON_LINES] = "jsonl", [BB_INPUT_JSON] = "json", NULL};

static const bb_cli_option options[] = {
    {.help = "Input"},
    {.name = "inputs",
     .type = BB_CLI_LIST,
     .offset = offsetof(pack_args, inputs),
     .value = "PATH",
     .help = "files and folders, packed in this order; - for standard input. Folders are searched recursively, sorted by "
             "path, without hidden files. gzip, zstd, xz, bzip2 and UTF-16 are detected",
     .position = 1,
     .required = true},
    {.name = "exts",
     .type = BB_CLI_LIST,
     .offset = offsetof(pack_args, exts),
     .value = "EXT",
     .help = "extensions of files to take from folders (all: every file); files given by name are always taken",
     .default_text = "common text, markup, data and source code files"},
    {.name = "input_format",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(pack_args, input_format),
     .choices = input_formats,
     .help = "format of all inputs: text, JSON lines, or JSON. auto: .jsonl, .ndjson and .json are JSON, everything else is "
             "text"},
    {.name = "json_key",
     .type = BB_CLI_STRING,
     .offset = offsetof(pack_args, json_key),
     .value = "KEYS",
     .help = "keys that hold the text of JSON records; the first key found wins, nested objects are searched too; '' packs "
             "JSON unchanged"},
    {.name = "strict",
     .type = BB_CLI_FLAG,
     .offset = offsetof(pack_args, strict),
     .help = "stop at the first unreadable or malformed input"},
    {.help = "Output"},
    {.name = "out_dir",
     .type = BB_CLI_STRING,
     .offset = offsetof(pack_args, out_dir),
     .value = "DIR",
     .help = "output directory for shard_00000.bin, ..., val_00000.bin, ... and manifest.json",
     .required = true},
    {.name = "shard_size_gb",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(pack_args, shard_size_gb),
     .value = "X",
     .help = "shard size in GB (10^9 bytes); the last shard may be smaller",
     .range = BB_CLI_FROM_TO(1e-9, 1e9)},
    {.name = "sep_byte",
     .type = BB_CLI_INT,
     .offset = offsetof(pack_args, sep_byte),
     .value = "N",
     .help = "separator byte between documents, 0 to 255; -1: none",
     .range = BB_CLI_FROM_TO(-1, 255)},
    {.name = "val_frac",
     .type = BB_CLI_DOUBLE,
     .offset = offsetof(pack_args, val_frac),
     .value = "X",
     .help = "fraction of the data, from the end, that becomes val shards; less than 1",
     .range = BB_CLI_FROM_TO(0, 1)},
    {.name = "overwrite",
     .type = BB_CLI_FLAG,
     .offset = offsetof(pack_args, overwrite),
     .help = "replace an existing pack in out_dir once the new one is complete"},
    {.name = "json",
     .type = BB_CLI_FLAG,
     .offset = offsetof(pack_args, json),
     .help = "print one JSON object: files, documents, bytes, val_bytes, shards, val_shards, skipped, left_out, seconds, "
             "out_dir"},
};

static const bb_cli_command command = {
    .name = "pack",
    .summary =
        "packs files and folders into shards of bytes for training. Unreadable inputs are reported and skipped. The same "
        "inputs give the same shards.",
    .usage = "[--inputs] PATH… --out_dir DIR [options]",
    .options = options,
    .option_count = BB_CLI_COUNT(options),
    .examples = "  bitbyte pack --inputs texts/ more.jsonl.zst --out_dir data --val_frac 0.05\n"
                "  bitbyte pack src/ --out_dir data --exts c h md --sep_byte 10\n"
                "  curl https://example.org/dump.jsonl.zst | bitbyte pack - --input_format jsonl --out_dir data\n",
};

/* Splits text at commas, in place. Returns the number of keys, or -1 if there are too many. */
static int split_keys(char *text, const char **keys) {
    int count = 0;
    char *rest = NULL;
    for (char *key = strtok_r(text, ",", &rest); key; key = strtok_r(NULL, ",", &rest)) {
        if (count == MAX_JSON_KEYS) return -1;
        keys[count++] = key;
    }
    return count;
}

typedef struct pack_view {
    bb_progress progress;
    double start;
} pack_view;

static void on_progress(void *user, int64_t files_done, int64_t files_total, int64_t bytes_done) {
    pack_view *view = user;
    char detail[96];
    snprintf(detail, sizeof detail, "%lld of %lld files, %s packed", (long long)files_done, (long long)files_total,
             bb_text_bytes((uint64_t)bytes_done).s);
    /* the size of a single file is unknown if it is a pipe or compressed */
    const bb_progress_bar bar = {.what = "packing",
                                 .done = (double)files_done,
                                 .total = files_total > 1 ? (double)files_total : 0,
                                 .bytes = (double)bytes_done,
                                 .detail = detail};
    bb_progress_show(&view->progress, &bar);
}

/* Replaces control characters: a file name may contain line breaks and escape sequences. */
static void on_skip(void *user, const char *path, const char *reason) {
    pack_view *view = user;
    char line[1024];
    snprintf(line, sizeof line, "bitbyte pack: skipped %s: %s", path, reason);
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    bb_progress_line(&view->progress, "%s", line);
}

static void on_note(void *user, const char *message) {
    pack_view *view = user;
    bb_progress_line(&view->progress, "bitbyte pack: %s", message);
}

static void show(const pack_args *args, const bb_pack_result *r, double seconds) {
    if (args->json) {
        bb_json_line(json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:o}", "files", (json_int_t)r->files, "documents",
                               (json_int_t)r->documents, "bytes", (json_int_t)r->bytes, "val_bytes", (json_int_t)r->val_bytes,
                               "shards", (json_int_t)r->shards, "val_shards", (json_int_t)r->val_shards, "skipped",
                               (json_int_t)r->skipped, "left_out", (json_int_t)r->left_out, "seconds", seconds, "out_dir",
                               bb_json_path_string(args->out_dir)));
        return;
    }
    int64_t train_bytes = r->bytes - r->val_bytes;
    printf("%s: %lld documents from %lld file%s in %s\n", args->out_dir, (long long)r->documents, (long long)r->files,
           r->files == 1 ? "" : "s", bb_text_duration(seconds).s);
    printf("  training   %lld bytes in %lld shard%s\n", (long long)train_bytes, (long long)r->shards,
           r->shards == 1 ? "" : "s");
    if (args->val_frac > 0)
        printf("  validation %lld bytes in %lld shard%s\n", (long long)r->val_bytes, (long long)r->val_shards,
               r->val_shards == 1 ? "" : "s");
    if (r->skipped > 0) printf("  skipped    %lld (listed in %s/manifest.json)\n", (long long)r->skipped, args->out_dir);
}

static int pack_inputs(const pack_args *args) {
    bb_pack_options pack;
    bb_pack_options_default(&pack);
    const char *keys[MAX_JSON_KEYS];
    char *key_text = strdup(args->json_key);
    if (!key_text) return bb_cli_fail(&command, &(bb_error){BB_ERR_MEMORY, "out of memory"});
    pack.json_keys = keys;
    pack.json_key_count = split_keys(key_text, keys);
    if (pack.json_key_count < 0) {
        free(key_text);
        return bb_cli_usage_error(&command, "--json_key takes at most %d keys", MAX_JSON_KEYS);
    }
    if (args->input_format >= BB_INPUT_JSON_LINES && pack.json_key_count == 0) {
        free(key_text);
        return bb_cli_usage_error(&command, "--input_format %s needs --json_key, which is empty",
                                  input_formats[args->input_format]);
    }
    pack_view view = {.start = bb_monotonic_seconds()};
    bb_progress_open(&view.progress, stderr, 5);
    bb_signals_install(NULL, NULL, NULL);
    pack.inputs = args->inputs.items;
    pack.input_count = args->inputs.count;
    pack.out_dir = args->out_dir;
    pack.shard_size_gb = args->shard_size_gb;
    pack.sep_byte = args->sep_byte;
    pack.val_frac = args->val_frac;
    pack.strict = args->strict;
    pack.overwrite = args->overwrite;
    if (args->exts.count > 0) {
        pack.exts = args->exts.items;
        pack.ext_count = args->exts.count;
    }
    pack.on_progress = on_progress;
    pack.on_skip = on_skip;
    pack.on_note = on_note;
    pack.input_format = (bb_input_format)args->input_format;
    pack.user = &view;
    pack.stop = bb_signals_stop();

    bb_pack_result result;
    bb_error err;
    bb_status status = bb_pack(&pack, &result, &err);
    bb_progress_clear(&view.progress);
    free(key_text);
    if (status == BB_OK) {
        show(args, &result, bb_monotonic_seconds() - view.start);
        return BB_EXIT_OK;
    }
    if (status == BB_ERR_INTERRUPTED) {
        fprintf(stderr, "bitbyte pack: stopped; %s is unchanged\n", args->out_dir);
        return bb_signals_exit_status();
    }
    return bb_cli_fail(&command, &err);
}

static bool has_folder(const bb_cli_list *inputs) {
    struct stat st;
    for (int i = 0; i < inputs->count; i++)
        if (stat(inputs->items[i], &st) == 0 && S_ISDIR(st.st_mode)) return true;
    return false;
}

/* An option without effect is probably a mistake, so report it. */
static void note_unused(const bb_cli *cli, const pack_args *args) {
    if (args->input_format == BB_INPUT_TEXT) bb_cli_unused(cli, "json_key", "--input_format text packs JSON unchanged");
    if (!has_folder(&args->inputs))
        bb_cli_unused(cli, "exts", "no input is a folder, and files given by name are always taken");
}

int bb_cmd_pack(int argc, char **argv) {
    pack_args args;
    bb_pack_options defaults;
    bb_pack_options_default(&defaults);
    args = (pack_args){.shard_size_gb = defaults.shard_size_gb,
                       .val_frac = defaults.val_frac,
                       .sep_byte = defaults.sep_byte,
                       .json_key = "text,story,completion,content"};
    bb_cli cli;
    int exit_status = bb_cli_parse(&cli, &command, &args, argc, argv);
    if (exit_status == BB_CLI_CONTINUE) {
        note_unused(&cli, &args);
        exit_status = pack_inputs(&args);
    }
    bb_cli_free(&cli);
    return exit_status;
}
