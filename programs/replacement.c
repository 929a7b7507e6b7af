// SPDX-License-Identifier: MIT
#include "replacement.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bb_status fail(const char *path, int error, bb_error *err) {
    snprintf(err->message, sizeof err->message, "%.800s: cannot write it: %s", path, strerror(error));
    return err->code = BB_ERR_IO;
}

bb_status bb_replacement_check(const char *path, const char *const read[], int count, bb_error *err) {
    struct stat target, source;
    bool there = stat(path, &target) == 0;
    for (int i = 0; there && i < count; i++) {
        if (!read[i] || stat(read[i], &source) != 0) continue;
        if (source.st_dev != target.st_dev || source.st_ino != target.st_ino || !S_ISREG(source.st_mode)) continue;
        snprintf(err->message, sizeof err->message,
                 "%.400s: this is an input of this command (%.400s) and would be overwritten", path, read[i]);
        return err->code = BB_ERR_ARGUMENT;
    }
    return bb_output_check(path, err);
}

bool bb_written_in_place(const struct stat *info) { return S_ISCHR(info->st_mode) || S_ISFIFO(info->st_mode); }

bb_status bb_replacement_open(bb_replacement *r, const char *path, mode_t mode, bb_error *err) {
    struct stat info;
    bool there = stat(path, &info) == 0, in_place = there && bb_written_in_place(&info);
    char *real = there && !in_place ? realpath(path, NULL) : NULL;
    size_t length = (size_t)snprintf(r->target, sizeof r->target, "%s", real ? real : path);
    free(real);
    r->stream = NULL;
    r->partial[0] = '\0';
    if (length >= sizeof r->target) return fail(path, ENAMETOOLONG, err);
    if (!in_place) (void)snprintf(r->partial, sizeof r->partial, "%s.%ld.partial", r->target, (long)getpid());
    r->fd = in_place ? open(path, O_WRONLY | O_CLOEXEC) : open(r->partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    return r->fd < 0 ? fail(path, errno, err) : BB_OK;
}

bb_status bb_replacement_open_stream(bb_replacement *r, const char *path, bb_error *err) {
    bb_status status = bb_replacement_open(r, path, 0666, err);
    if (status != BB_OK) return status;
    r->stream = fdopen(r->fd, "wb");
    return r->stream ? BB_OK : bb_replacement_close(r, fail(path, errno, err), err);
}

static int flush_to_disk(int fd) {
    int result;
    do result = fsync(fd);
    while (result != 0 && errno == EINTR);
    return result;
}

/* Without this, a power failure may undo the rename. A folder may be unreadable, and some file systems cannot flush one: ignored. */
static bb_status flush_folder_of(const char *path, bb_error *err) {
    char folder[BB_REPLACEMENT_PATH];
    const char *slash = strrchr(path, '/');
    bb_status status = BB_OK;
    (void)snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && flush_to_disk(fd) != 0 && errno != EINVAL && errno != ENOTSUP) status = fail(path, errno, err);
    if (fd >= 0) (void)close(fd);
    return status;
}

/* Returns 0 or the reason why not all is written. */
static int finish(bb_replacement *r, bool keep) {
    int error = 0;
    if (r->stream && (fflush(r->stream) != 0 || ferror(r->stream))) error = errno ? errno : EIO;
    if (!error && keep && r->partial[0] && flush_to_disk(r->fd) != 0) error = errno;
    if ((r->stream ? fclose(r->stream) : close(r->fd)) != 0 && !error) error = errno;
    return error;
}

bb_status bb_replacement_close(bb_replacement *r, bb_status status, bb_error *err) {
    int error = finish(r, status == BB_OK);
    if (error && status == BB_OK) status = fail(r->target, error, err);
    if (!r->partial[0]) return status;
    if (status == BB_OK && rename(r->partial, r->target) != 0) status = fail(r->target, errno, err);
    if (status == BB_OK) return flush_folder_of(r->target, err);
    (void)unlink(r->partial);
    return status;
}
