// SPDX-License-Identifier: MIT
/* The options of bitbyte compress and decompress. */
#ifndef BB_PROGRAMS_COMPRESS_OPTIONS_H
#define BB_PROGRAMS_COMPRESS_OPTIONS_H

#include <stdint.h>

#include "common.h"

enum { BB_MIX_OF_LEVEL = 0, BB_MIX_OFF, BB_MIX_ON };

typedef struct bb_compress_args {
    bb_device_args device;
    bb_import_args import;
    bb_cli_list inputs;
    const char *model, *output, *range;
    bool decompress, test, to_stdout, keep, force, quiet, verbose, remove, json;
    int level, lanes, block_kb, context_length, kv_cache, blocks, mix;
    uint64_t range_offset, range_length; /* parsed from `range` */
} bb_compress_args;

extern const bb_cli_command bb_compress_command, bb_decompress_command;

/* Returns what is wrong with a combination of options, or NULL. Parses --range. */
const char *bb_compress_contradiction(bb_compress_args *args);

#endif
