// SPDX-License-Identifier: MIT
/* Files: read-only maps, and writes that a reader never sees half of. */
#ifndef BB_CORE_FILE_H
#define BB_CORE_FILE_H

#include <stdio.h>
#include <sys/stat.h>

#include "core/status.h"

/* Opens a regular file for reading; close(*fd). */
bb_status bb_file_open(const char *path, int *fd, struct stat *st, bb_error *err);
/* The `size` bytes at `offset`. A file that ends before them is BB_ERR_DATA: the message says where it should not have ended.
 * Files are read so and never mapped: in a map, a file that shrinks or a disk that fails is a SIGBUS. */
bb_status bb_file_read_at(int fd, const char *path, uint64_t offset, void *data, size_t size, bb_error *err);

/* Writes beside the final name (path + ".tmp.PID"), then flushes to disk, renames and flushes the directory. A link stays a
 * link: what it leads to is replaced. Directories, devices and pipes are refused. */
typedef struct bb_file_writer {
    int fd;
    char *path, *tmp_path;
    uint64_t written;
} bb_file_writer;

bb_status bb_file_writer_open(const char *path, bb_file_writer *out, bb_error *err);
/* On failure the temporary file is gone already; whatever follows on this writer but abort fails too. */
bb_status bb_file_writer_write(bb_file_writer *w, const void *data, size_t size, bb_error *err);
/* Writes over bytes that were written before. */
bb_status bb_file_writer_patch(bb_file_writer *w, uint64_t offset, const void *data, size_t size, bb_error *err);
/* Makes the file real. The writer is closed afterwards, whatever the result; on failure the temporary file is gone and what
 * stood at path before still stands (but when only the flush of the directory fails, the new file is there, whole). */
bb_status bb_file_writer_commit(bb_file_writer *w, bb_error *err);
/* Removes the temporary file. Safe after commit and after a failed open. */
void bb_file_writer_abort(bb_file_writer *w);

/* A whole small file in one call, the same way. */
bb_status bb_file_replace(const char *path, const void *data, size_t size, bb_error *err);
/* Reads all of a file into memory, NUL-terminated past size; free() it. limit 0: none. */
bb_status bb_file_read_all(const char *path, size_t limit, uint8_t **data, size_t *size, bb_error *err);

bb_status bb_file_make_dirs(const char *path, bb_error *err);
/* path + "/" + name, malloc'd. NULL when out of memory. */
char *bb_file_join(const char *dir, const char *name);

#endif
