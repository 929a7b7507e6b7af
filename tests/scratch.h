// SPDX-License-Identifier: MIT
/* Scratch folders for tests, helpers without fault injection to read and write small files, and a small disk that fills up. */
#ifndef BB_TESTS_SCRATCH_H
#define BB_TESTS_SCRATCH_H

#include <dirent.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static char scratch_dir[200]; /* set by scratch_create */

static inline int scratch_create(void **state) {
    (void)state;
    const char *base = getenv("TMPDIR");
    (void)snprintf(scratch_dir, sizeof scratch_dir, "%s/bitbyte-test-XXXXXX", base && *base ? base : "/tmp");
    return mkdtemp(scratch_dir) ? 0 : -1;
}

static inline int scratch_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline int scratch_remove(void **state) {
    (void)state;
    return nftw(scratch_dir, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* The path of `name` in the folder. Valid until the eighth call after. */
static inline const char *scratch_path(const char *name) {
    static char paths[8][512];
    static int next;
    char *path = paths[next++ % 8];
    (void)snprintf(path, sizeof paths[0], "%.199s/%.300s", scratch_dir, name);
    return path;
}

static inline bool scratch_write(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    if (!f) return false;
    bool written = fwrite(data, 1, size, f) == size;
    return fclose(f) == 0 && written;
}

/* True when the file holds just these bytes. */
static inline bool scratch_holds(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    char *found = malloc(size + 1);
    bool same = found && fread(found, 1, size + 1, f) == size && memcmp(found, data, size) == 0;
    free(found);
    (void)fclose(f);
    return same;
}

/* Entries of a folder, without "." and ".."; -1 when it cannot be read. */
static inline int scratch_count_entries(const char *path) {
    DIR *dir = opendir(path);
    if (!dir) return -1;
    int count = 0;
    while (readdir(dir)) count++;
    closedir(dir);
    return count - 2;
}

/* Mounts a disk of size_kb on a new folder. False, said aloud, where that is not allowed: then the test should skip. */
static inline bool scratch_mount_disk(const char *path, int size_kb) {
    char options[32];
    (void)snprintf(options, sizeof options, "size=%dk", size_kb);
    if (mkdir(path, 0777) == 0 && mount("tmpfs", path, "tmpfs", 0, options) == 0) return true;
    perror("SKIPPED: a small disk cannot be mounted (needs root)");
    return false;
}

static inline bool scratch_unmount_disk(const char *path) { return umount(path) == 0; }

#endif
