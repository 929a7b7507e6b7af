// SPDX-License-Identifier: MIT
/* A file that appears complete or not at all: it is written beside its final name, flushed to disk and then renamed. A link keeps
 * pointing to it. A device or a pipe, which a rename would replace by a file, is written in place. */
#ifndef BITBYTE_REPLACEMENT_H
#define BITBYTE_REPLACEMENT_H

#include <stdio.h>
#include <sys/stat.h>

#include "bitbyte.h"

enum { BB_REPLACEMENT_PATH = 4096 };
typedef struct bb_replacement {
    int fd;                                 /* to write to */
    FILE *stream;                           /* the same as a stream: see bb_replacement_open_stream; else NULL */
    char target[BB_REPLACEMENT_PATH];       /* final name */
    char partial[BB_REPLACEMENT_PATH + 32]; /* name until it is complete; empty: written in place */
} bb_replacement;

/* Refuses to write a file that is an input of the command (`read`; entries may be NULL) or belongs to a run. */
bb_status bb_replacement_check(const char *path, const char *const read[], int count, bb_error *err);
bool bb_written_in_place(const struct stat *info);
/* mode: of a new file, before umask. */
bb_status bb_replacement_open(bb_replacement *r, const char *path, mode_t mode, bb_error *err);
/* The same, to be written through `stream`. */
bb_status bb_replacement_open_stream(bb_replacement *r, const char *path, bb_error *err);
/* Closes the file. Gives it its final name if `status` is BB_OK, else removes it. Returns `status`, or what failed. */
bb_status bb_replacement_close(bb_replacement *r, bb_status status, bb_error *err);

#endif
