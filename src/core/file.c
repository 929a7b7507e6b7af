// SPDX-License-Identifier: MIT
/* Files. Every message has the path and the system's reason. */
#include "core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bb_status fail_errno(bb_error *err, const char *path, const char *what, int error) {
    return bb_fail(err, error == ENOMEM ? BB_ERR_MEMORY : BB_ERR_IO, "%s: cannot %s: %s", path, what, strerror(error));
}

static const char *file_type_name(mode_t mode) {
    if (S_ISREG(mode)) return "a regular file";
    if (S_ISDIR(mode)) return "a directory";
    if (S_ISFIFO(mode)) return "a pipe";
    if (S_ISSOCK(mode)) return "a socket";
    return "a device";
}

/* ---- Reading ---------------------------------------------------------------------------------------------------------- */

bb_status bb_file_open(const char *path, int *fd, struct stat *st, bb_error *err) {
    bb_status status = BB_OK;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* opening a pipe without a writer would block */
    if (*fd < 0) return fail_errno(err, path, "open", errno);
    if (fstat(*fd, st) != 0)
        status = fail_errno(err, path, "stat", errno);
    else if (!S_ISREG(st->st_mode))
        status = bb_fail(err, BB_ERR_IO, "%s: expected a regular file, found %s", path, file_type_name(st->st_mode));
    if (status == BB_OK) return BB_OK;
    close(*fd);
    *fd = -1;
    return status;
}

bb_status bb_file_read_at(int fd, const char *path, uint64_t offset, void *data, size_t size, bb_error *err) {
    uint8_t *next = data;
    while (size > 0) {
        ssize_t n = pread(fd, next, size < SSIZE_MAX ? size : SSIZE_MAX, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return bb_fail(err, BB_ERR_IO, "%s: cannot read %zu bytes at byte %llu: %s", path, size, (unsigned long long)offset,
                           strerror(errno));
        if (n == 0)
            return bb_fail(err, BB_ERR_DATA,
                           "%s: expected %zu more bytes at byte %llu, found the end of the file: it shrank while in use", path,
                           size, (unsigned long long)offset);
        next += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return BB_OK;
}

bb_status bb_file_read_all(const char *path, size_t limit, uint8_t **data, size_t *size, bb_error *err) {
    bb_status status = BB_OK;
    size_t used = 0, capacity = 0;
    uint8_t *buffer = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail_errno(err, path, "open", errno);
    for (;;) {
        if (capacity - used < 2) { /* one byte is kept for the NUL */
            size_t larger = capacity ? capacity * 2 : 1 << 16;
            uint8_t *moved = larger > capacity ? realloc(buffer, larger) : NULL;
            if (!moved) {
                status = bb_fail(err, BB_ERR_MEMORY, "%s: no memory for %zu bytes", path, larger);
                goto done;
            }
            buffer = moved;
            capacity = larger;
        }
        ssize_t n = read(fd, buffer + used, capacity - used - 1);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            status = fail_errno(err, path, "read", errno);
            goto done;
        }
        if (n == 0) break;
        used += (size_t)n;
        if (limit && used > limit) {
            status = bb_fail(err, BB_ERR_FORMAT, "%s: expected at most %zu bytes, found more", path, limit);
            goto done;
        }
    }
    buffer[used] = '\0';
    *data = buffer;
    *size = used;
    buffer = NULL;
done:
    free(buffer);
    close(fd);
    return status;
}

/* ---- Writing ---------------------------------------------------------------------------------------------------------- */

/* Returns the name to rename to: the target of a link, so that the link survives. A rename would replace a device or a pipe by
 * a file, so those are refused. */
static bb_status resolve_target(const char *path, char **target, bb_error *err) {
    struct stat st;
    *target = NULL;
    if (stat(path, &st) == 0) {
        if (!S_ISREG(st.st_mode))
            return bb_fail(err, BB_ERR_IO, "%s: cannot replace it: expected a regular file, found %s", path,
                           file_type_name(st.st_mode));
        *target = realpath(path, NULL);
    } else if (errno == ENOENT && lstat(path, &st) != 0) {
        *target = strdup(path);
    }
    return *target ? BB_OK : fail_errno(err, path, "create", errno);
}

bb_status bb_file_writer_open(const char *path, bb_file_writer *out, bb_error *err) {
    bb_status status;
    *out = (bb_file_writer){.fd = -1};
    char *target = NULL, *tmp = NULL;
    BB_TRY_GOTO(status, done, resolve_target(path, &target, err));
    if (asprintf(&tmp, "%s.tmp.%ld", target, (long)getpid()) < 0) {
        tmp = NULL;
        status = bb_fail(err, BB_ERR_MEMORY, "%s: no memory for its name", path);
        goto done;
    }
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
    int fd = open(tmp, flags, 0666);
    /* Left by a killed process that had the same process id. */
    if (fd < 0 && errno == EEXIST && unlink(tmp) == 0) fd = open(tmp, flags, 0666);
    if (fd < 0) {
        int error = errno;
        status = fail_errno(err, path, access(target, F_OK) == 0 ? "create a temporary file beside it" : "create", error);
        goto done;
    }
    *out = (bb_file_writer){.fd = fd, .path = target, .tmp_path = tmp};
    return BB_OK;
done:
    free(target);
    free(tmp);
    return status;
}

/* offset -1: at the end. */
static bb_status write_all(bb_file_writer *w, int64_t offset, const void *data, size_t size, bb_error *err) {
    if (w->fd < 0) return bb_fail(err, BB_ERR_INTERNAL, "write to a file that is closed or failed earlier");
    const uint8_t *next = data;
    size_t left = size;
    while (left > 0) {
        size_t chunk = left < SSIZE_MAX ? left : SSIZE_MAX;
        ssize_t n = offset < 0 ? write(w->fd, next, chunk) : pwrite(w->fd, next, chunk, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            bb_status status = fail_errno(err, w->path, "write", n < 0 ? errno : ENOSPC);
            bb_file_writer_abort(w);
            return status;
        }
        next += n;
        left -= (size_t)n;
        if (offset >= 0) offset += n;
    }
    return BB_OK;
}

bb_status bb_file_writer_write(bb_file_writer *w, const void *data, size_t size, bb_error *err) {
    BB_TRY(write_all(w, -1, data, size, err));
    w->written += size;
    return BB_OK;
}

bb_status bb_file_writer_patch(bb_file_writer *w, uint64_t offset, const void *data, size_t size, bb_error *err) {
    if (offset > w->written || size > w->written - offset)
        return bb_fail(err, BB_ERR_INTERNAL, "a patch beyond the bytes written");
    return write_all(w, (int64_t)offset, data, size, err);
}

static int flush_to_disk(int fd) {
    int rc;
    do rc = fsync(fd);
    while (rc != 0 && errno == EINTR);
    return rc;
}

/* Without this, a power failure may undo the rename, although the data is on disk. */
static bb_status flush_directory_of(const char *path, bb_error *err) {
    const char *slash = strrchr(path, '/');
    char *dir = !slash ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (!dir) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory for its name", path);
    bb_status status = BB_OK;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* A directory may be writable but not readable, and some file systems cannot flush one: ignored. */
    if (fd < 0 && errno != EACCES) status = fail_errno(err, dir, "open", errno);
    if (fd >= 0 && flush_to_disk(fd) != 0 && errno != EINVAL && errno != ENOTSUP)
        status = fail_errno(err, dir, "flush the directory", errno);
    if (fd >= 0) close(fd);
    free(dir);
    return status;
}

bb_status bb_file_writer_commit(bb_file_writer *w, bb_error *err) {
    if (w->fd < 0) return bb_fail(err, BB_ERR_INTERNAL, "commit of a file that is closed or failed earlier");
    bb_status status = BB_OK;
    if (flush_to_disk(w->fd) != 0) {
        status = fail_errno(err, w->path, "flush to disk", errno);
        goto done;
    }
    int closed = close(w->fd);
    w->fd = -1;
    if (closed != 0 && errno != EINTR) {
        status = fail_errno(err, w->path, "close", errno);
        goto done;
    }
    if (rename(w->tmp_path, w->path) != 0) {
        status = fail_errno(err, w->path, "replace", errno);
        goto done;
    }
    free(w->tmp_path);
    w->tmp_path = NULL;
    status = flush_directory_of(w->path, err);
done:
    bb_file_writer_abort(w);
    return status;
}

void bb_file_writer_abort(bb_file_writer *w) {
    if (w->fd >= 0) close(w->fd);
    if (w->tmp_path) unlink(w->tmp_path);
    free(w->tmp_path);
    free(w->path);
    *w = (bb_file_writer){.fd = -1};
}

bb_status bb_file_replace(const char *path, const void *data, size_t size, bb_error *err) {
    bb_file_writer w;
    BB_TRY(bb_file_writer_open(path, &w, err));
    BB_TRY(bb_file_writer_write(&w, data, size, err));
    return bb_file_writer_commit(&w, err);
}

/* ---- Names ------------------------------------------------------------------------------------------------------------ */

static bb_status make_one_dir(const char *path, bb_error *err) {
    if (mkdir(path, 0777) == 0) return BB_OK;
    int error = errno;
    struct stat st; /* read-only file systems report EROFS, not EEXIST, for existing directories */
    if (stat(path, &st) == 0) {
        if (S_ISDIR(st.st_mode)) return BB_OK;
        return bb_fail(err, BB_ERR_IO, "%s: expected a directory, found %s", path, file_type_name(st.st_mode));
    }
    return fail_errno(err, path, "create the directory", error);
}

bb_status bb_file_make_dirs(const char *path, bb_error *err) {
    if (!*path) return bb_fail(err, BB_ERR_ARGUMENT, "the name of a directory is empty");
    char *copy = strdup(path);
    if (!copy) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory for its name", path);
    bb_status status = BB_OK;
    for (char *at = copy + 1; *at && status == BB_OK; at++) {
        if (*at != '/') continue;
        *at = '\0';
        status = make_one_dir(copy, err);
        *at = '/';
    }
    if (status == BB_OK) status = make_one_dir(copy, err);
    free(copy);
    return status;
}

char *bb_file_join(const char *dir, const char *name) {
    char *joined;
    size_t length = strlen(dir);
    const char *slash = length > 0 && dir[length - 1] != '/' ? "/" : "";
    return asprintf(&joined, "%s%s%s", dir, slash, name) < 0 ? NULL : joined;
}
