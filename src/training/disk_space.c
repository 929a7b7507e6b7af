// SPDX-License-Identifier: MIT
#include "training/disk_space.h"

#include <stdio.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

#include "core/math.h"

/* Returns the number of multiples of n in (first, last]. */
static int64_t multiples(int64_t first, int64_t last, int64_t n) { return last / n - first / n; }

static int64_t gcd(int64_t a, int64_t b) {
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

int64_t bb_save_plan_peak(const bb_save_plan *p) {
    int64_t saves = 1, for_ever = 0; /* the last step is saved anyway and must not be counted twice */
    if (p->save_every > 0) saves += multiples(p->first_step, p->end - 1, p->save_every);
    if (p->best_every > 0) saves += multiples(p->first_step, p->end - 1, p->best_every);
    if (p->save_every > 0 && p->best_every > 0) /* steps at which both are due */
        saves -=
            multiples(p->first_step, p->end - 1, p->save_every / gcd(p->save_every, p->best_every) * (int64_t)p->best_every);
    if (p->keep.newest <= 0) return saves;
    if (p->keep.every > 0 && p->save_every > 0) {
        int64_t step = p->save_every / gcd(p->save_every, p->keep.every) * (int64_t)p->keep.every;
        for_ever = multiples(p->first_step, p->end - 1, step);
    }
    int64_t peak = for_ever + p->keep.newest + 1 + (p->best_every > 0) - bb_min(p->existing, p->keep.newest);
    return p->saves_by_time ? peak : bb_min(peak, saves);
}

typedef struct size_text {
    char s[32];
} size_text;

static size_text text_of(double bytes) {
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB", "PB", "EB"};
    size_text text;
    int unit = 0;
    for (; bytes >= 1000 && unit < 6; unit++) bytes /= 1000;
    snprintf(text.s, sizeof text.s, "%.*f %s", unit ? 1 : 0, bytes, units[unit]);
    return text;
}

bb_status bb_disk_space_check(const char *dir, uint64_t bytes, int64_t count, char *warning, size_t warning_size,
                              bb_error *err) {
    struct rlimit limit;
    struct statvfs disk;
    double size = (double)bytes;
    warning[0] = '\0';
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < bytes)
        return bb_fail(err, BB_ERR_IO, "%s: a checkpoint takes %s, but the file size limit is %s: raise it (ulimit -f)", dir,
                       text_of(size).s, text_of((double)limit.rlim_cur).s);
    if (statvfs(dir, &disk) != 0 || disk.f_blocks == 0) return BB_OK;
    double free_bytes = (double)disk.f_bavail * (double)disk.f_frsize;
    if (free_bytes < size)
        return bb_fail(err, BB_ERR_IO,
                       "%s: a checkpoint takes %s, but only %s are free: free some space, or choose another directory (--out)",
                       dir, text_of(size).s, text_of(free_bytes).s);
    if (free_bytes < size * (double)count)
        snprintf(warning, warning_size,
                 "%s: a checkpoint takes %s and up to %lld are kept at once (%s), but only %s are free, enough for %.0f: free "
                 "some space, or keep fewer (--keep)",
                 dir, text_of(size).s, (long long)count, text_of(size * (double)count).s, text_of(free_bytes).s,
                 size > 0 ? (double)(int64_t)(free_bytes / size) : 0);
    return BB_OK;
}
