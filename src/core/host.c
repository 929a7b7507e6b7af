// SPDX-License-Identifier: MIT
#include "core/host.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 2 * PATH_MAX };

/* Reads the number after `key` at the start of a line, e.g. "MemTotal:". An empty key matches the first line. */
static bool read_number(const char *path, const char *key, uint64_t *value) {
    FILE *file = fopen(path, "re");
    if (!file) return false;
    char line[256];
    bool found = false;
    while (!found && fgets(line, sizeof line, file))
        found = strncmp(line, key, strlen(key)) == 0 && sscanf(line + strlen(key), " %" SCNu64, value) == 1;
    fclose(file);
    return found;
}

static bool read_in(const char *dir, const char *name, const char *key, uint64_t *value) {
    char path[PATH_BYTES + 64];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    return read_number(path, key, value);
}

/* Whether `list`, "a,b,c", contains `name`. */
static bool list_has(const char *list, const char *name) {
    size_t n = strlen(name);
    for (const char *at = list; (at = strstr(at, name)); at += n)
        if ((at == list || at[-1] == ',') && (at[n] == ',' || at[n] == '\0')) return true;
    return false;
}

typedef struct limits {
    uint64_t total, free; /* bytes of memory */
    uint64_t cpus;
} limits;

static void apply_memory(limits *l, const char *dir, bool v2) {
    uint64_t limit, used, cache = 0;
    if (!read_in(dir, v2 ? "memory.max" : "memory.limit_in_bytes", "", &limit) ||
        !read_in(dir, v2 ? "memory.current" : "memory.usage_in_bytes", "", &used))
        return; /* "max", or no such controller */
    (void)read_in(dir, "memory.stat", v2 ? "inactive_file " : "total_inactive_file ", &cache);
    used -= cache < used ? cache : used;
    uint64_t left = limit > used ? limit - used : 0;
    if (limit < l->total) l->total = limit;
    if (left < l->free) l->free = left;
}

static void apply_cpus(limits *l, const char *dir, bool v2) {
    uint64_t quota, period; /* microseconds */
    if (v2) {
        char path[PATH_BYTES + 64];
        (void)snprintf(path, sizeof path, "%s/cpu.max", dir);
        FILE *file = fopen(path, "re");
        if (!file) return;
        int fields = fscanf(file, "%" SCNu64 " %" SCNu64, &quota, &period);
        fclose(file);
        if (fields != 2) return;
    } else if (!read_in(dir, "cpu.cfs_quota_us", "", &quota) || !read_in(dir, "cpu.cfs_period_us", "", &period)) {
        return;
    }
    if (period == 0 || quota == 0) return;
    uint64_t cpus = (quota - 1) / period + 1; /* v1 writes -1 for no quota, which is read as 2^64 - 1 */
    if (cpus < l->cpus) l->cpus = cpus;
}

/* The limits of a group's parents apply too. In a container the path may lie outside the visible tree: levels without files are
 * ignored. */
static void apply_group(limits *l, const char *mount, const char *group, bool v2, void (*apply)(limits *, const char *, bool)) {
    char dir[PATH_BYTES];
    int length = snprintf(dir, sizeof dir, "%s%s", mount, group);
    if (length < 0 || (size_t)length >= sizeof dir) return;
    size_t root_length = strlen(mount);
    for (;;) {
        apply(l, dir, v2);
        char *slash = strrchr(dir, '/');
        if (!slash || (size_t)(slash - dir) < root_length) return;
        *slash = '\0';
    }
}

static void apply_groups(limits *l, const char *root) {
    char path[PATH_MAX], line[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    if (!file) return;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        *controllers++ = '\0';
        *group++ = '\0';
        if (*controllers == '\0') {
            (void)snprintf(path, sizeof path, "%s/sys/fs/cgroup", root);
            apply_group(l, path, group, true, apply_memory);
            apply_group(l, path, group, true, apply_cpus);
        }
        if (list_has(controllers, "memory")) {
            (void)snprintf(path, sizeof path, "%s/sys/fs/cgroup/memory", root);
            apply_group(l, path, group, false, apply_memory);
        }
        if (list_has(controllers, "cpu")) {
            (void)snprintf(path, sizeof path, "%s/sys/fs/cgroup/cpu", root);
            apply_group(l, path, group, false, apply_cpus);
        }
    }
    fclose(file);
}

bb_affinity bb_host_affinity(bb_get_affinity *get) {
    bb_affinity a = {.cpus = 1};
    /* The kernel refuses a mask shorter than its own, which may be longer than the 1,024 processors of cpu_set_t. */
    for (int max_cpus = CPU_SETSIZE; max_cpus <= 1 << 20; max_cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)max_cpus);
        size_t size = CPU_ALLOC_SIZE((size_t)max_cpus);
        if (!set) return a;
        CPU_ZERO_S(size, set);
        int failure = get(0, size, set) == 0 ? 0 : errno;
        for (int i = 0; failure == 0 && i < max_cpus; i++)
            if (CPU_ISSET_S((size_t)i, size, set)) a.id = (a.id ^ (uint64_t)(i + 1)) * 0x100000001b3u; /* FNV-1a */
        if (failure == 0) a.cpus = CPU_COUNT_S(size, set);
        CPU_FREE(set);
        if (failure != EINVAL) return a;
    }
    return a;
}

int bb_host_cpus(const char *root) {
    limits l = {.total = UINT64_MAX, .free = UINT64_MAX, .cpus = (uint64_t)bb_host_affinity(sched_getaffinity).cpus};
    apply_groups(&l, root);
    return (int)l.cpus;
}

/* Returns 0 if OMP_NUM_THREADS is not set. It may be a list, whose first number is for the outermost parallel regions. */
static int threads_requested(void) {
    const char *text = getenv("OMP_NUM_THREADS");
    char *end;
    long n = text ? strtol(text, &end, 10) : 0;
    return n > 0 && (*end == '\0' || *end == ',' || *end == ' ') ? (int)(n < BB_MAX_THREADS ? n : BB_MAX_THREADS) : 0;
}

int bb_host_threads(const char *root, int sharers) {
    int asked = threads_requested(), cpus = bb_host_cpus(root) / (sharers > 0 ? sharers : 1);
    if (asked > 0) return asked;
    return cpus < 1 ? 1 : cpus < BB_MAX_THREADS ? cpus : BB_MAX_THREADS;
}

void bb_host_memory(const char *root, uint64_t *total_bytes, uint64_t *free_bytes) {
    char path[PATH_MAX];
    uint64_t total_kb, available_kb;
    *total_bytes = *free_bytes = 0;
    (void)snprintf(path, sizeof path, "%s/proc/meminfo", root);
    if (!read_number(path, "MemTotal:", &total_kb) || !read_number(path, "MemAvailable:", &available_kb)) return;
    limits l = {.total = total_kb * 1024, .free = available_kb * 1024, .cpus = UINT64_MAX};
    apply_groups(&l, root);
    *total_bytes = l.total;
    *free_bytes = l.free;
}

uint64_t bb_host_resident(void) {
    unsigned long long pages = 0, all = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fscanf(file, "%llu %llu", &all, &pages) != 2) pages = 0;
    if (file) (void)fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}
