// SPDX-License-Identifier: MIT
/* Files: reading at offsets, and writing so that no reader sees a partial file. */
#ifndef BB_CORE_FILE_H
#define BB_CORE_FILE_H

#include <stdio.h>
#include <sys/stat.h>

#include "core/status.h"

/* Opens a regular file for reading; close(*fd). */
bb_status bb_file_open(const char *path, int *fd, struct stat *st, bb_error *err);
/* Reads `size` bytes at `offset`. If the file ends before, BB_ERR_DATA with a message that says where. Files are never mapped:
 * with a mapping, a file that shrinks or a disk that fails is a SIGBUS. */
bb_status bb_file_read_at(int fd, const char *path, uint64_t offset, void *data, size_t size, bb_error *err);

/* Writes to a temporary file beside the final name (path + ".tmp.PID"), then flushes it to disk, renames it and flushes the
 * directory. If path is a symbolic link, its target is replaced and the link stays. Directories, devices and pipes are
 * refused. */
typedef struct bb_file_writer {
    int fd;
    char *path, *tmp_path;
    uint64_t written;
} bb_file_writer;

bb_status bb_file_writer_open(const char *path, bb_file_writer *out, bb_error *err);
/* A failure removes the temporary file; later calls on this writer, except abort, fail too. */
bb_status bb_file_writer_write(bb_file_writer *w, const void *data, size_t size, bb_error *err);
/* Overwrites bytes that were written before. */
bb_status bb_file_writer_patch(bb_file_writer *w, uint64_t offset, const void *data, size_t size, bb_error *err);
/* Renames the file to its final name and closes the writer, also on failure. A failure removes the temporary file and leaves
 * path as it was, except if only the flush of the directory fails: then path is the complete new file. */
bb_status bb_file_writer_commit(bb_file_writer *w, bb_error *err);
/* Removes the temporary file. Safe after commit and after a failed open. */
void bb_file_writer_abort(bb_file_writer *w);

/* Writes a small file in one call, in the same way. */
bb_status bb_file_replace(const char *path, const void *data, size_t size, bb_error *err);
/* Reads a whole file into memory, with a NUL after size bytes; the caller frees it. limit 0: none. */
bb_status bb_file_read_all(const char *path, size_t limit, uint8_t **data, size_t *size, bb_error *err);

bb_status bb_file_make_dirs(const char *path, bb_error *err);
/* Returns path + "/" + name, malloc'd, or NULL if out of memory. */
char *bb_file_join(const char *dir, const char *name);

#endif
