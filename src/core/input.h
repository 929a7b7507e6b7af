// SPDX-License-Identifier: MIT
/* Input for reads at random offsets: a file, or a block of memory (for fuzzing, and archives inside archives). */
#ifndef BB_CORE_INPUT_H
#define BB_CORE_INPUT_H

#include "core/status.h"

typedef struct bb_input {
    char *path;            /* for messages */
    int fd;                /* -1: memory */
    const uint8_t *memory; /* the caller's, which outlives this */
    uint64_t size;
} bb_input;

/* A regular file. On failure *out can still be closed. */
bb_status bb_input_open_file(const char *path, bb_input *out, bb_error *err);
bb_status bb_input_open_memory(const char *name, const void *data, size_t size, bb_input *out, bb_error *err);
/* Safe to call twice, and on zeroed memory with fd -1. */
void bb_input_close(bb_input *in);

/* Reads `size` bytes at `offset`. A range past the end is BB_ERR_DATA (the file shrank): check sizes against in->size first. */
bb_status bb_input_read(const bb_input *in, uint64_t offset, void *data, size_t size, bb_error *err);

#endif
