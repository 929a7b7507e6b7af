// SPDX-License-Identifier: MIT
/* From a directory, a glob or a file name to bytes. */
#include "data/byte_source.h"

#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char shard_pattern[] = "shard_*.bin";

static int compare_paths(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static bb_status no_memory(const char *data, bb_error *err) {
    return bb_fail(err, BB_ERR_MEMORY, "%s: no memory for the list of its files", data);
}

/* `prefix` with the characters that glob() reads specially made plain, then "/" and `pattern`. */
static char *glob_below(const char *prefix, const char *pattern) {
    char *joined = malloc(2 * strlen(prefix) + strlen(pattern) + 2), *at = joined;
    if (!joined) return NULL;
    for (const char *p = prefix; *p; p++) {
        if (strchr("*?[]\\", *p)) *at++ = '\\';
        *at++ = *p;
    }
    if (at > joined && at[-1] != '/') *at++ = '/';
    strcpy(at, pattern);
    return joined;
}

/* ---- Reading ---------------------------------------------------------------------------------------------------------- */

static void close_least_used(bb_byte_source *source) {
    bb_byte_file *oldest = NULL;
    for (int i = 0; i < source->count; i++) {
        bb_byte_file *file = &source->files[i];
        if (file->fd >= 0 && (!oldest || file->used < oldest->used)) oldest = file;
    }
    if (!oldest) return;
    close(oldest->fd);
    oldest->fd = -1;
    source->open--;
}

static bb_status open_file(bb_byte_source *source, bb_byte_file *file, struct stat *st, bb_error *err) {
    if (source->open >= BB_BYTE_SOURCE_OPEN) close_least_used(source);
    BB_TRY(bb_file_open(file->path, &file->fd, st, err));
    source->open++;
    return BB_OK;
}

/* The file is still the one that was opened first, and as long. */
static bb_status check_unchanged(const bb_byte_file *file, const struct stat *st, bb_error *err) {
    if (st->st_dev != file->device || st->st_ino != file->inode)
        return bb_fail(err, BB_ERR_DATA, "%s: another file has taken its place while it was in use", file->path);
    if (file->named && st->st_nlink == 0)
        return bb_fail(err, BB_ERR_DATA, "%s: it was removed or replaced while it was in use", file->path);
    if (st->st_size < file->size)
        return bb_fail(err, BB_ERR_DATA, "%s: expected %lld bytes, found %lld: it shrank while it was in use", file->path,
                       (long long)file->size, (long long)st->st_size);
    return BB_OK;
}

bb_status bb_byte_source_read(bb_byte_source *source, int number, int64_t offset, void *bytes, size_t size, bb_error *err) {
    bb_byte_file *file = &source->files[number];
    if (file->owned) {
        memcpy(bytes, file->owned + offset, size);
        return BB_OK;
    }
    struct stat st;
    file->used = ++source->reads;
    if (file->fd < 0)
        BB_TRY(open_file(source, file, &st, err));
    else if (fstat(file->fd, &st) != 0)
        return bb_fail(err, BB_ERR_IO, "%s: cannot stat: %s", file->path, strerror(errno));
    BB_TRY(check_unchanged(file, &st, err));
    return bb_file_read_at(file->fd, file->path, (uint64_t)offset, bytes, size, err);
}

/* ---- Finding ---------------------------------------------------------------------------------------------------------- */

static bb_status add_file(const char *path, bb_byte_source *out, bb_error *err) {
    bb_byte_file *file = &out->files[out->count];
    struct stat st;
    *file = (bb_byte_file){.path = strdup(path), .fd = -1};
    if (!file->path) return no_memory(path, err);
    bb_status status = open_file(out, file, &st, err);
    if (status != BB_OK) {
        free(file->path);
        return status;
    }
    file->size = st.st_size;
    file->device = st.st_dev;
    file->inode = st.st_ino;
    file->named = st.st_nlink > 0;
    out->count++;
    out->total_bytes += file->size;
    return BB_OK;
}

static bb_status read_stdin(bb_byte_source *out, bb_error *err) {
    size_t size = 0;
    uint8_t *bytes = NULL;
    BB_TRY(bb_file_read_all("-", 0, &bytes, &size, err));
    out->files = calloc(1, sizeof *out->files);
    char *name = strdup("standard input");
    if (!out->files || !name) {
        free(bytes);
        free(name);
        return no_memory("standard input", err);
    }
    out->files[0] = (bb_byte_file){.path = name, .size = (int64_t)size, .owned = bytes, .fd = -1};
    out->count = 1;
    out->total_bytes = (int64_t)size;
    return BB_OK;
}

static bb_status open_matches(const char *data, const char *pattern, bb_byte_source *out, bb_error *err) {
    bb_status status = BB_OK;
    glob_t matches = {0};
    int rc = glob(pattern, GLOB_NOSORT, NULL, &matches); /* its own order follows the locale */
    if (rc == GLOB_NOSPACE || matches.gl_pathc > INT_MAX) {
        status = no_memory(data, err);
        goto done;
    }
    if (rc != 0 && rc != GLOB_NOMATCH) {
        status = bb_fail(err, BB_ERR_IO, "%s: cannot read the directories of this pattern", data);
        goto done;
    }
    if (rc == GLOB_NOMATCH || matches.gl_pathc == 0) {
        status = pattern == data ? bb_fail(err, BB_ERR_DATA, "%s: no file matches", data)
                                 : bb_fail(err, BB_ERR_DATA, "%s: the directory holds no %s", data, shard_pattern);
        goto done;
    }
    qsort(matches.gl_pathv, matches.gl_pathc, sizeof *matches.gl_pathv, compare_paths);
    out->files = calloc(matches.gl_pathc, sizeof *out->files);
    if (!out->files) {
        status = no_memory(data, err);
        goto done;
    }
    for (size_t i = 0; i < matches.gl_pathc; i++) {
        struct stat st;
        if (stat(matches.gl_pathv[i], &st) == 0 && S_ISDIR(st.st_mode)) continue;
        BB_TRY_GOTO(status, done, add_file(matches.gl_pathv[i], out, err));
    }
    if (out->count == 0) status = bb_fail(err, BB_ERR_DATA, "%s: matches directories, no file", data);
done:
    globfree(&matches);
    return status;
}

static bb_status open_any(const char *data, bool allow_stdin, bb_byte_source *out, bb_error *err) {
    if (strcmp(data, "-") == 0) {
        if (allow_stdin) return read_stdin(out, err);
        return bb_fail(err, BB_ERR_ARGUMENT, "-: standard input cannot be read at random places; name a file");
    }
    struct stat st;
    if (stat(data, &st) == 0) {
        if (!S_ISDIR(st.st_mode)) return bb_byte_source_open_file(data, out, err);
        char *pattern = glob_below(data, shard_pattern);
        if (!pattern) return no_memory(data, err);
        bb_status status = open_matches(data, pattern, out, err);
        free(pattern);
        return status;
    }
    if (errno != ENOENT && errno != ENOTDIR)
        return bb_fail(err, BB_ERR_IO, "%s: cannot be looked up: %s", data, strerror(errno));
    if (!strpbrk(data, "*?[")) return bb_fail(err, BB_ERR_DATA, "%s: no such file or directory", data);
    return open_matches(data, data, out, err);
}

bb_status bb_byte_source_open(const char *data, bool allow_stdin, bb_byte_source *out, bb_error *err) {
    *out = (bb_byte_source){0};
    if (!data || !*data) return bb_fail(err, BB_ERR_ARGUMENT, "data: expected a directory, a glob or a file, found nothing");
    bb_status status = open_any(data, allow_stdin, out, err);
    if (status != BB_OK) bb_byte_source_close(out);
    return status;
}

bb_status bb_byte_source_open_file(const char *path, bb_byte_source *out, bb_error *err) {
    *out = (bb_byte_source){0};
    if (!path || !*path) return bb_fail(err, BB_ERR_ARGUMENT, "data: expected the name of a file, found nothing");
    out->files = calloc(1, sizeof *out->files);
    if (!out->files) return no_memory(path, err);
    bb_status status = add_file(path, out, err);
    if (status != BB_OK) bb_byte_source_close(out);
    return status;
}

void bb_byte_source_close(bb_byte_source *source) {
    for (int i = 0; i < source->count; i++) {
        bb_byte_file *file = &source->files[i];
        if (file->fd >= 0) close(file->fd);
        free(file->owned);
        free(file->path);
    }
    free(source->files);
    *source = (bb_byte_source){0};
}
