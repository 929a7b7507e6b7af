// SPDX-License-Identifier: MIT
#include "compress_options.h"

#include <stdio.h>
#include <string.h>

static const bb_cli_option decompression_options[] = {
    {.help = "Decompression"},
    {.name = "range",
     .type = BB_CLI_STRING,
     .offset = offsetof(bb_compress_args, range),
     .value = "OFFSET:LENGTH",
     .help = "write only these bytes, to standard output or -o; reads only the blocks that contain them. OFFSET: means up to "
             "the end"},
    {.name = "blocks",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_compress_args, blocks),
     .value = "N",
     .range = BB_CLI_FROM_TO(0, 64),
     .help = "blocks decoded together: faster if blocks have few lanes; each takes memory",
     .default_text = "0: up to 64 MB and 64 lanes"},
};
static const bb_cli_group decompression_group = {.options = decompression_options,
                                                 .count = BB_CLI_COUNT(decompression_options)};

static const char *const mix_choices[] = {[BB_MIX_OF_LEVEL] = "auto", [BB_MIX_OFF] = "off", [BB_MIX_ON] = "on", NULL};

/* clang-format off: a table is read by rows */
#define FILES                                                                                                                  \
    {.help = "Files"},                                                                                                         \
        {.name = "inputs",                                                                                                     \
         .type = BB_CLI_LIST,                                                                                                  \
         .offset = offsetof(bb_compress_args, inputs),                                                                         \
         .value = "FILE",                                                                                                      \
         .position = 1,                                                                                                        \
         .help = "files, or - for standard input",                                                                             \
         .default_text = "standard input to standard output"},                                                                 \
        {.name = "model",                                                                                                      \
         .type = BB_CLI_STRING,                                                                                                \
         .offset = offsetof(bb_compress_args, model),                                                                          \
         .value = "MODEL",                                                                                                     \
         .help = "model file or run directory. A stream can be read only with the model that it was made with",                \
         .default_text = "the environment variable BITBYTE_MODEL"},                                                            \
        {.name = "stdout",                                                                                                     \
         .letter = 'c',                                                                                                        \
         .type = BB_CLI_FLAG,                                                                                                  \
         .offset = offsetof(bb_compress_args, to_stdout),                                                                      \
         .help = "write to standard output"},                                                                                  \
        {.name = "output",                                                                                                     \
         .letter = 'o',                                                                                                        \
         .type = BB_CLI_STRING,                                                                                                \
         .offset = offsetof(bb_compress_args, output),                                                                         \
         .value = "FILE",                                                                                                      \
         .help = "write to this file",                                                                                         \
         .default_text = "FILE.bby, or FILE without .bby"},                                                                    \
        {.name = "test",                                                                                                       \
         .letter = 't',                                                                                                        \
         .type = BB_CLI_FLAG,                                                                                                  \
         .offset = offsetof(bb_compress_args, test),                                                                           \
         .help = "decompress and verify, but write nothing"},                                                                  \
        {.name = "keep",                                                                                                       \
         .letter = 'k',                                                                                                        \
         .type = BB_CLI_FLAG,                                                                                                  \
         .offset = offsetof(bb_compress_args, keep),                                                                           \
         .help = "keep input files; this is the default"},                                                                     \
        {.name = "rm",                                                                                                         \
         .type = BB_CLI_FLAG,                                                                                                  \
         .offset = offsetof(bb_compress_args, remove),                                                                         \
         .help = "remove each input file once its output is written"},                                                         \
        {.name = "force",                                                                                                      \
         .letter = 'f',                                                                                                        \
         .type = BB_CLI_FLAG,                                                                                                  \
         .offset = offsetof(bb_compress_args, force),                                                                          \
         .help = "overwrite files, and write to a terminal"},                                                                  \
        {.name = "quiet",                                                                                                      \
         .letter = 'q',                                                                                                        \
         .type = BB_CLI_FLAG,                                                                                                  \
         .offset = offsetof(bb_compress_args, quiet),                                                                          \
         .help = "no progress and no summary"},                                                                                \
        {.name = "verbose",                                                                                                    \
         .letter = 'v',                                                                                                        \
         .type = BB_CLI_FLAG,                                                                                                  \
         .offset = offsetof(bb_compress_args, verbose),                                                                        \
         .help = "also print the settings and the speed"},                                                                     \
    {                                                                                                                          \
        .name = "json", .type = BB_CLI_FLAG, .offset = offsetof(bb_compress_args, json),                                       \
        .help = "print one JSON object per file on standard output"                                                            \
    }
#define MACHINE                                                                                                                \
    {.help = "Machine"},                                                                                                       \
        {.name = "threads",                                                                                                    \
         .letter = 'T',                                                                                                        \
         .type = BB_CLI_INT,                                                                                                   \
         .offset = offsetof(bb_compress_args, device.threads),                                                                 \
         .value = "N",                                                                                                         \
         .range = BB_CLI_FROM_TO(0, 1024),                                                                                     \
         .help = "number of threads; does not change the stream",                                                              \
         .default_text = "0: OMP_NUM_THREADS, else all processors available to the process"},                                  \
        {.name = "device",                                                                                                     \
         .type = BB_CLI_CHOICE,                                                                                                \
         .offset = offsetof(bb_compress_args, device.device),                                                                  \
         .choices = bb_device_choices,                                                                                         \
         .listed_choices = BB_NAMED_DEVICES,                                                                                   \
         .help = "cpu: fast; ref: slow scalar reference implementation"},                                                      \
    {                                                                                                                          \
        .group = &bb_import_group, .offset = offsetof(bb_compress_args, import)                                                \
    }

static const bb_cli_option compress_options[] = {
    FILES,
    {.help = "Compression"},
    {.name = "decompress",
     .letter = 'd',
     .type = BB_CLI_FLAG,
     .offset = offsetof(bb_compress_args, decompress),
     .help = "the same as bitbyte decompress"},
    {.name = "level",
     .letter = '#',
     .type = BB_CLI_INT,
     .offset = offsetof(bb_compress_args, level),
     .value = "N",
     .range = BB_CLI_FROM_TO(1, 9),
     .help = "1: fastest; 9: smallest. Chooses lanes, block, context_length and mix"},
    {.name = "lanes",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_compress_args, lanes),
     .value = "N",
     .range = BB_CLI_FROM_TO(0, 64),
     .help = "parts of a block that are coded together: more are faster, above all to decompress, and each "
             "costs some 50 bytes, as it begins without a context",
     .default_text = "the level's"},
    {.name = "block",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_compress_args, block_kb),
     .value = "KB",
     .range = BB_CLI_FROM_TO(0, 16384),
     .help = "block size in KiB, a power of two from 64 to 16384; a block is written when it is full",
     .default_text = "the level's"},
    {.name = "context_length",
     .type = BB_CLI_INT,
     .offset = offsetof(bb_compress_args, context_length),
     .value = "N",
     .range = BB_CLI_AT_LEAST(0),
     .help = "bytes that the model sees at once",
     .default_text = "0: trained length, at most 1024"},
    {.name = "kv_cache",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(bb_compress_args, kv_cache),
     .choices = bb_kv_choices,
     .help = "KV cache type: 6 or 8 bits, or f32"},
    {.name = "mix",
     .type = BB_CLI_CHOICE,
     .offset = offsetof(bb_compress_args, mix),
     .choices = mix_choices,
     .help = "mix the model's predictions with what the file's own bytes say: smaller, above all where a file is unlike the "
             "training data or repeats itself, and slower by some microseconds a byte",
     .default_text = "auto: from level 7 on"},
    {.group = &decompression_group},
    MACHINE};
static const bb_cli_option decompress_options[] = {FILES, {.group = &decompression_group}, MACHINE};
/* clang-format on */

const bb_cli_command bb_compress_command = {
    .name = "compress",
    .summary =
        "compresses files with a model's predictions, losslessly. Whoever decompresses needs the same model. Files like the "
        "model's training data become a fraction of what other programs make of them; anything else, no larger than zstd's. "
        "Train a model on your own logs or texts, then compress what comes next.",
    .usage = "[FILE...] --model MODEL [-1 .. -9] [options]",
    .options = compress_options,
    .option_count = BB_CLI_COUNT(compress_options),
    .examples = "  bitbyte compress --model runs/logs today.log              # writes today.log.bby\n"
                "  export BITBYTE_MODEL=runs/logs\n"
                "  bitbyte compress -9 --rm *.log\n"
                "  tar c notes | bitbyte compress -c >notes.tar.bby\n"
                "  bitbyte decompress -c today.log.bby | less\n"
                "  bitbyte compress -t *.bby\n",
};
const bb_cli_command bb_decompress_command = {
    .name = "decompress",
    .summary =
        "decompresses what bitbyte compress wrote, with the model that it was made with. Every block is checked before it is "
        "written.",
    .usage = "[FILE.bby...] --model MODEL [options]",
    .options = decompress_options,
    .option_count = BB_CLI_COUNT(decompress_options),
    .examples = "  bitbyte decompress --model runs/logs today.log.bby\n"
                "  bitbyte decompress -t --model runs/logs *.bby\n",
};

/* OFFSET:LENGTH, or OFFSET: */
static bool read_range(bb_compress_args *args) {
    unsigned long long offset, length = UINT64_MAX;
    int used = 0;
    const char *text = args->range;
    if (strspn(text, "0123456789:") != strlen(text) || sscanf(text, "%19llu:%n", &offset, &used) != 1 || !used) return false;
    text += used;
    if (*text && (sscanf(text, "%19llu%n", &length, &used) != 1 || text[used])) return false;
    args->range_offset = offset;
    args->range_length = length;
    return true;
}

const char *bb_compress_contradiction(bb_compress_args *args) {
    if (args->keep && args->remove) return "give -k or --rm, not both";
    if (args->to_stdout && args->output) return "give -c or -o, not both";
    if (args->to_stdout && !args->decompress && args->inputs.count > 1)
        return "-c writes one stream, but there are several inputs; pack them with tar first, or compress each to its own file";
    if (args->output && args->inputs.count > 1) return "-o names one file, but there are several inputs";
    if (args->quiet && args->verbose) return "give -q or -v, not both";
    if (args->json && (args->to_stdout || ((args->inputs.count == 0 || args->range) && !args->output && !args->test)))
        return "--json prints on standard output, which would mix with the result; use -o";
    if (args->test && (args->output || args->remove || args->to_stdout)) return "-t writes nothing; omit -o, -c and --rm";
    if (args->range && !args->decompress) return "--range applies to decompression; add -d";
    if (args->range && args->inputs.count > 1) return "--range reads a part of one file";
    if (args->range && !read_range(args)) return "--range needs OFFSET:LENGTH, two numbers of bytes, or OFFSET:";
    if (args->range && (args->remove || args->test)) return "--range cannot be combined with --rm or -t";
    if (!args->model) return "--model MODEL is missing, and BITBYTE_MODEL is not set";
    return NULL;
}
