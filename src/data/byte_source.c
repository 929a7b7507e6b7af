// SPDX-License-Identifier: MIT
/* Resolves a directory, a glob or a file name, and reads the bytes of the files. */
#include "data/byte_source.h"

#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/math.h"
#include "data/packer_dir.h"

static const char shard_pattern[] = "shard_*.bin", val_pattern[] = "val_*.bin";

static int compare_paths(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static bb_status no_memory(const char *data, bb_error *err) {
    return bb_fail(err, BB_ERR_MEMORY, "%s: no memory for the list of its files", data);
}

/* `prefix` with the special characters of glob() escaped, then "/" and `pattern`. */
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

/* Checks that the file is the one opened first, and has not shrunk. */
static bb_status check_unchanged(const bb_byte_file *file, const struct stat *st, bb_error *err) {
    if (st->st_dev != file->device || st->st_ino != file->inode)
        return bb_fail(err, BB_ERR_DATA, "%s: the file was replaced while it was in use", file->path);
    if (file->named && st->st_nlink == 0)
        return bb_fail(err, BB_ERR_DATA, "%s: the file was removed or replaced while it was in use", file->path);
    if (st->st_size < file->size)
        return bb_fail(err, BB_ERR_DATA, "%s: expected %lld bytes, found %lld: the file shrank while it was in use", file->path,
                       (long long)file->size, (long long)st->st_size);
    return BB_OK;
}

bb_status bb_byte_source_read(bb_byte_source *source, int number, int64_t offset, void *bytes, size_t size, bb_error *err) {
    bb_byte_file *file = &source->files[number];
    struct stat st;
    file->used = ++source->reads;
    if (file->fd < 0)
        BB_TRY(open_file(source, file, &st, err));
    else if (fstat(file->fd, &st) != 0)
        return bb_fail(err, BB_ERR_IO, "%s: cannot stat: %s", file->path, strerror(errno));
    BB_TRY(check_unchanged(file, &st, err));
    return bb_file_read_at(file->fd, file->path, (uint64_t)offset, bytes, size, err);
}

static const char *shown_path(const bb_byte_file *file) { return strcmp(file->path, "-") == 0 ? "standard input" : file->path; }

static bb_status open_stream(bb_byte_source *source, const char *path, bb_error *err) {
    source->stream = malloc(sizeof *source->stream);
    if (!source->stream) return no_memory(path, err);
    bb_status status = bb_input_stream_open(path, source->stop, source->stream, err);
    if (status == BB_OK) return BB_OK;
    free(source->stream);
    source->stream = NULL;
    return status;
}

static void close_stream(bb_byte_source *source) {
    if (source->stream) bb_input_stream_close(source->stream);
    free(source->stream);
    source->stream = NULL;
}

static bb_status read_stream(bb_byte_source *source, const char *path, uint8_t *bytes, size_t size, size_t *got,
                             bb_error *err) {
    if (!source->stream) BB_TRY(open_stream(source, path, err));
    for (size_t n = 1; n > 0 && *got < size; *got += n)
        BB_TRY(bb_input_stream_read(source->stream, bytes + *got, size - *got, &n, err));
    return BB_OK;
}

bb_status bb_byte_source_read_on(bb_byte_source *source, int number, uint8_t *bytes, size_t size, size_t *got, bb_error *err) {
    const bb_byte_file *file = &source->files[number];
    if (source->current != number) {
        close_stream(source);
        source->current = number;
        source->position = 0;
    }
    *got = 0;
    if (file->is_stream) {
        bb_status status = read_stream(source, file->path, bytes, size, got, err);
        return status == BB_OK || status == BB_ERR_INTERRUPTED ? status : bb_fail_prefix(err, status, "%s", shown_path(file));
    }
    size_t n = (size_t)bb_min((int64_t)size, file->size - source->position);
    if (n > 0) BB_TRY(bb_byte_source_read(source, number, source->position, bytes, n, err));
    source->position += (int64_t)n;
    *got = n;
    return BB_OK;
}

/* ---- Finding ---------------------------------------------------------------------------------------------------------- */

static void quote_path(const char *path, char *out, size_t size) {
    bool plain = path[strspn(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+,=")] == '\0';
    snprintf(out, size, plain ? "%s" : "'%s'", path);
}

/* Training reads files at random offsets, so anything but plain bytes must be packed first. */
static bb_status refuse_for_training(const char *path, const char *found, bb_error *err) {
    char quoted[512];
    if (strcmp(path, "-") == 0)
        return bb_fail(err, BB_ERR_ARGUMENT,
                       "standard input cannot be read at random offsets; first: bitbyte pack - --out_dir DIR");
    quote_path(path, quoted, sizeof quoted);
    return bb_fail(err, BB_ERR_DATA,
                   "%s: found %s, which cannot be read at random offsets; first: bitbyte pack %s --out_dir DIR", path, found,
                   quoted);
}

static bool is_packed_shard(const char *path) {
    const char *slash = strrchr(path, '/');
    return bb_pack_name_kind(slash ? slash + 1 : path) == BB_PACK_NAME_WHOLE;
}

/* Recognizes the content by the first bytes. */
static bb_status check_content(bb_byte_source *source, bb_byte_file *file, bb_error *err) {
    uint8_t head[BB_CONTENT_HEAD];
    size_t size = (size_t)bb_min(file->size, (int64_t)sizeof head);
    if (is_packed_shard(file->path)) return BB_OK;
    BB_TRY(bb_file_read_at(file->fd, file->path, 0, head, size, err));
    bb_content content = bb_content_recognize(head, size);
    if (content.kind == BB_CONTENT_PLAIN) return BB_OK;
    if (content.kind == BB_CONTENT_REFUSED)
        return bb_fail(err, BB_ERR_DATA, "%s: expected text, found %s: %s", file->path, content.name, content.advice);
    if (source->use == BB_BYTES_TRAINING) return refuse_for_training(file->path, content.name, err);
    file->is_stream = true;
    return BB_OK;
}

static bb_status add_regular_file(bb_byte_source *out, bb_byte_file *file, bb_error *err) {
    struct stat st;
    BB_TRY(open_file(out, file, &st, err));
    file->size = st.st_size;
    file->device = st.st_dev;
    file->inode = st.st_ino;
    file->named = st.st_nlink > 0;
    bb_status status = check_content(out, file, err);
    if (status == BB_OK && !file->is_stream) return BB_OK;
    close(file->fd);
    file->fd = -1;
    out->open--;
    return status;
}

/* Returns whether it is neither a regular file nor a kind that is refused on opening. */
static bool is_pipe(const char *path) {
    struct stat st;
    return strcmp(path, "-") == 0 || (stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode));
}

static bb_status add_file(const char *path, bb_byte_source *out, bb_error *err) {
    bb_byte_file *file = &out->files[out->count];
    *file = (bb_byte_file){.path = strdup(path), .fd = -1};
    if (!file->path) return no_memory(path, err);
    bb_status status = BB_OK;
    if (!is_pipe(path))
        status = add_regular_file(out, file, err);
    else if (out->use == BB_BYTES_HELD_OUT)
        file->is_stream = true;
    else
        status = refuse_for_training(path, "a pipe or a device", err);
    if (status != BB_OK) {
        free(file->path);
        return status;
    }
    out->count++;
    if (file->is_stream)
        out->streams++;
    else
        out->total_bytes += file->size;
    return BB_OK;
}

static bb_status open_matches(const char *data, const char *pattern, bb_byte_source *out, bb_error *err) {
    bb_status status = BB_OK;
    glob_t matches = {0};
    int rc = glob(pattern, GLOB_NOSORT, NULL, &matches); /* its order depends on the locale */
    if (rc == GLOB_NOSPACE || matches.gl_pathc > INT_MAX) {
        status = no_memory(data, err);
        goto done;
    }
    if (rc != 0 && rc != GLOB_NOMATCH) {
        status = bb_fail(err, BB_ERR_IO, "%s: cannot read the directories of this pattern", data);
        goto done;
    }
    if (rc == GLOB_NOMATCH || matches.gl_pathc == 0) goto done;
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
    if (out->count == 0) status = bb_fail(err, BB_ERR_DATA, "%s: matches only directories", data);
done:
    globfree(&matches);
    return status;
}

static bb_status open_directory(const char *data, bb_byte_source *out, bb_error *err) {
    const char *patterns[] = {out->use == BB_BYTES_HELD_OUT ? val_pattern : shard_pattern, shard_pattern};
    for (size_t i = 0; i < 2 && out->count == 0; i++) {
        char *pattern = glob_below(data, patterns[i]);
        if (!pattern) return no_memory(data, err);
        bb_status status = open_matches(data, pattern, out, err);
        free(pattern);
        BB_TRY(status);
        out->pattern = patterns[i];
    }
    if (out->count > 0) return BB_OK;
    char quoted[512];
    quote_path(data, quoted, sizeof quoted);
    return bb_fail(err, BB_ERR_DATA, "%s: the directory holds no %s; if it holds texts, first: bitbyte pack %s --out_dir DIR",
                   data, shard_pattern, quoted);
}

static bb_status open_any(const char *data, bb_byte_source *out, bb_error *err) {
    struct stat st;
    if (strcmp(data, "-") != 0) {
        bool there = stat(data, &st) == 0;
        if (there && S_ISDIR(st.st_mode)) return open_directory(data, out, err);
        if (!there && errno != ENOENT && errno != ENOTDIR)
            return bb_fail(err, BB_ERR_IO, "%s: cannot look it up: %s", data, strerror(errno));
        if (!there && !strpbrk(data, "*?[")) return bb_fail(err, BB_ERR_DATA, "%s: no such file or directory", data);
        if (!there) {
            BB_TRY(open_matches(data, data, out, err));
            return out->count > 0 ? BB_OK : bb_fail(err, BB_ERR_DATA, "%s: no file matches", data);
        }
    }
    out->files = calloc(1, sizeof *out->files);
    return out->files ? add_file(data, out, err) : no_memory(data, err);
}

bb_status bb_byte_source_open(const char *data, bb_byte_use use, bb_byte_source *out, bb_error *err) {
    *out = (bb_byte_source){.use = use, .current = -1};
    if (!data || !*data) return bb_fail(err, BB_ERR_ARGUMENT, "data: expected a directory, a glob or a file, found nothing");
    bb_status status = open_any(data, out, err);
    if (status != BB_OK) bb_byte_source_close(out);
    return status;
}

bb_status bb_byte_source_open_file(const char *path, bb_byte_source *out, bb_error *err) {
    *out = (bb_byte_source){.use = BB_BYTES_TRAINING, .current = -1};
    if (!path || !*path) return bb_fail(err, BB_ERR_ARGUMENT, "data: expected the name of a file, found nothing");
    out->files = calloc(1, sizeof *out->files);
    if (!out->files) return no_memory(path, err);
    bb_status status = add_file(path, out, err);
    if (status != BB_OK) bb_byte_source_close(out);
    return status;
}

bb_status bb_byte_source_nothing_to_score(const bb_byte_source *source, const char *data, bb_error *err) {
    return bb_fail(err, BB_ERR_DATA, "%s: nothing to score: %d file%s, none of at least 2 bytes", data, source->count,
                   source->count == 1 ? "" : "s");
}

bb_status bb_byte_source_check_to_score(const bb_byte_source *source, const char *data, bb_error *err) {
    for (int i = 0; i < source->count; i++)
        if (source->files[i].is_stream || source->files[i].size >= 2) return BB_OK;
    return bb_byte_source_nothing_to_score(source, data, err);
}

void bb_byte_source_close(bb_byte_source *source) {
    close_stream(source);
    for (int i = 0; i < source->count; i++) {
        bb_byte_file *file = &source->files[i];
        if (file->fd >= 0) close(file->fd);
        free(file->path);
    }
    free(source->files);
    *source = (bb_byte_source){0};
}
