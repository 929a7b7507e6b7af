// SPDX-License-Identifier: MIT
/* Injects faults: the n-th allocation, or the n-th system call of a kind, fails. The linker replaces the library's calls by
 * these functions (--wrap), so the tested library itself is unmodified. */
#ifndef BB_TESTS_FAULTS_H
#define BB_TESTS_FAULTS_H

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef enum fault_kind {
    FAULT_NONE,
    FAULT_ALLOC,
    FAULT_OPEN,
    FAULT_WRITE,
    FAULT_FSYNC,
    FAULT_RENAME,
    FAULT_READ,
    FAULT_OTHER, /* what else may be refused: look-ups, maps, folders, removals, threads */
    FAULT_KINDS
} fault_kind;

static const char *const fault_names[] = {"none", "allocation", "open", "write", "fsync", "rename", "read", "other"};

static struct {
    fault_kind kind;
    bool for_good; /* all calls after the n-th fail too */
    atomic_long left;
    atomic_long hits;
} fault;

static void fault_arm(fault_kind kind, long n, bool for_good) {
    fault.kind = kind;
    fault.for_good = for_good;
    atomic_store(&fault.left, n);
    atomic_store(&fault.hits, 0);
}

/* True when something failed since it was armed. */
static bool fault_disarm(void) {
    fault.kind = FAULT_NONE;
    return atomic_load(&fault.hits) > 0;
}

static bool fault_strikes(fault_kind kind, int error) {
    if (fault.kind != kind) return false;
    long left = atomic_fetch_sub(&fault.left, 1) - 1;
    if (left > 0 || (left < 0 && !fault.for_good)) return false;
    atomic_fetch_add(&fault.hits, 1);
    errno = error;
    return true;
}

#define FAULT_WRAP(kind, error, failure, type, name, parameters, arguments)                                                    \
    type __real_##name parameters;                                                                                             \
    type __wrap_##name parameters;                                                                                             \
    type __wrap_##name parameters { return fault_strikes(kind, error) ? (failure) : __real_##name arguments; }

FAULT_WRAP(FAULT_ALLOC, ENOMEM, NULL, void *, malloc, (size_t n), (n))
FAULT_WRAP(FAULT_ALLOC, ENOMEM, NULL, void *, calloc, (size_t n, size_t size), (n, size))
FAULT_WRAP(FAULT_ALLOC, ENOMEM, NULL, void *, realloc, (void *p, size_t n), (p, n))
FAULT_WRAP(FAULT_ALLOC, ENOMEM, NULL, void *, aligned_alloc, (size_t alignment, size_t n), (alignment, n))
FAULT_WRAP(FAULT_ALLOC, ENOMEM, NULL, char *, strdup, (const char *s), (s))
FAULT_WRAP(FAULT_ALLOC, ENOMEM, NULL, char *, strndup, (const char *s, size_t n), (s, n))
FAULT_WRAP(FAULT_WRITE, ENOSPC, -1, ssize_t, write, (int fd, const void *p, size_t n), (fd, p, n))
FAULT_WRAP(FAULT_WRITE, ENOSPC, -1, ssize_t, pwrite, (int fd, const void *p, size_t n, off_t at), (fd, p, n, at))
FAULT_WRAP(FAULT_RENAME, EIO, -1, int, rename, (const char *from, const char *to), (from, to))
FAULT_WRAP(FAULT_READ, EIO, -1, ssize_t, read, (int fd, void *p, size_t n), (fd, p, n))
FAULT_WRAP(FAULT_READ, EIO, -1, ssize_t, pread, (int fd, void *p, size_t n, off_t at), (fd, p, n, at))
FAULT_WRAP(FAULT_OPEN, EMFILE, NULL, FILE *, fopen, (const char *path, const char *mode), (path, mode))
FAULT_WRAP(FAULT_OPEN, EMFILE, NULL, DIR *, opendir, (const char *path), (path))
FAULT_WRAP(FAULT_OTHER, ENOMEM, MAP_FAILED, void *, mmap, (void *p, size_t n, int prot, int flags, int fd, off_t at),
           (p, n, prot, flags, fd, at))
FAULT_WRAP(FAULT_OTHER, EIO, -1, int, unlink, (const char *path), (path))
FAULT_WRAP(FAULT_OTHER, ENOSPC, -1, int, mkdir, (const char *path, mode_t mode), (path, mode))
FAULT_WRAP(FAULT_OTHER, EIO, -1, int, access, (const char *path, int mode), (path, mode))
FAULT_WRAP(FAULT_OTHER, EIO, -1, int, stat, (const char *path, struct stat *st), (path, st))
FAULT_WRAP(FAULT_OTHER, EIO, -1, int, fstat, (int fd, struct stat *st), (fd, st))
FAULT_WRAP(FAULT_OTHER, ENOLCK, -1, int, flock, (int fd, int operation), (fd, operation))
FAULT_WRAP(FAULT_OTHER, EIO, -1, int, ftruncate, (int fd, off_t size), (fd, size))
FAULT_WRAP(FAULT_OTHER, EAGAIN, EAGAIN, int, pthread_create,
           (pthread_t * thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument),
           (thread, attributes, start, argument))

/* No test cuts the power, so nothing is really flushed: that would take minutes. */
int __wrap_fsync(int fd);
int __wrap_fsync(int fd) {
    (void)fd;
    return fault_strikes(FAULT_FSYNC, EIO) ? -1 : 0;
}

/* These really close, and then say that what was written got lost. */
int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd) {
    int rc = __real_close(fd);
    return fault_strikes(FAULT_WRITE, EIO) ? -1 : rc;
}

int __real_fclose(FILE *f);
int __wrap_fclose(FILE *f);
int __wrap_fclose(FILE *f) {
    int rc = __real_fclose(f);
    return fault_strikes(FAULT_WRITE, ENOSPC) ? EOF : rc;
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return fault_strikes(FAULT_OPEN, EMFILE) ? -1 : __real_open(path, flags, mode);
}

int __wrap_asprintf(char **out, const char *format, ...) __attribute__((format(printf, 2, 3)));
int __wrap_asprintf(char **out, const char *format, ...) {
    if (fault_strikes(FAULT_ALLOC, ENOMEM)) return -1;
    va_list arguments;
    va_start(arguments, format);
    int n = vasprintf(out, format, arguments);
    va_end(arguments);
    return n;
}

/* jansson is a library of its own: it takes its memory from here by its own means. Its parser does not bear a lack of memory
 * (an assertion fails), so there none is refused; bb_json_parse asks for it before. */
static _Thread_local int fault_parsing;

static void *fault_json_malloc(size_t n) { return fault_parsing ? __real_malloc(n) : __wrap_malloc(n); }
static void fault_include_jansson(void) { json_set_alloc_funcs(fault_json_malloc, free); }

json_t *__real_json_loadb(const char *text, size_t length, size_t flags, json_error_t *error);
json_t *__wrap_json_loadb(const char *text, size_t length, size_t flags, json_error_t *error);
json_t *__wrap_json_loadb(const char *text, size_t length, size_t flags, json_error_t *error) {
    fault_parsing++;
    json_t *json = __real_json_loadb(text, length, flags, error);
    fault_parsing--;
    return json;
}

#endif
