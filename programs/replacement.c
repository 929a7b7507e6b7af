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

bool bb_written_in_place(const struct stat *info) { return S_ISCHR(info->st_mode) || S_ISFIFO(info->st_mode); }

bb_status bb_replacement_open(bb_replacement *r, const char *path, mode_t mode, bb_error *err) {
    struct stat info;
    bool there = stat(path, &info) == 0, in_place = there && bb_written_in_place(&info);
    char *real = there && !in_place ? realpath(path, NULL) : NULL;
    size_t length = (size_t)snprintf(r->target, sizeof r->target, "%s", real ? real : path);
    free(real);
    r->partial[0] = '\0';
    if (length >= sizeof r->target) return fail(path, ENAMETOOLONG, err);
    if (!in_place) (void)snprintf(r->partial, sizeof r->partial, "%s.%ld.partial", r->target, (long)getpid());
    r->fd = in_place ? open(path, O_WRONLY | O_CLOEXEC) : open(r->partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    return r->fd < 0 ? fail(path, errno, err) : BB_OK;
}

bb_status bb_replacement_close(bb_replacement *r, bb_status status, bb_error *err) {
    if (close(r->fd) != 0 && status == BB_OK) status = fail(r->target, errno, err);
    if (!r->partial[0]) return status;
    if (status == BB_OK && rename(r->partial, r->target) != 0) status = fail(r->target, errno, err);
    if (status != BB_OK) (void)unlink(r->partial);
    return status;
}
