// SPDX-License-Identifier: MIT
#include "training/run_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "modelfile/run_config.h"

#define CONFIG "config.json"
#define METRICS "metrics.jsonl"
#define LATEST "latest"
#define DAMAGED ".damaged"

static int ascending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The step in "step-00002000.safetensors"; -1 for any other name. */
static int64_t step_of(const char *name) {
    long long step;
    int end = 0;
    if (strlen(name) < 20 || sscanf(name, "step-%lld.safetensors%n", &step, &end) != 1 || end == 0 || name[end] != 0 ||
        step < 0)
        return -1;
    return step;
}

int64_t bb_run_dir_step_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return step_of(slash ? slash + 1 : path);
}

/* The steps of all checkpoints, ascending, malloc'd. */
static bb_status list_steps(const char *path, int64_t **steps, int *count, bb_error *err) {
    *steps = NULL;
    *count = 0;
    DIR *d = opendir(path);
    if (!d) return bb_fail(err, BB_ERR_IO, "%s: cannot read the run directory: %s", path, strerror(errno));
    int capacity = 0;
    for (struct dirent *e; (e = readdir(d));) {
        int64_t step = step_of(e->d_name);
        if (step < 0) continue;
        if (*count == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            int64_t *grown = realloc(*steps, (size_t)capacity * sizeof **steps);
            if (!grown) {
                closedir(d);
                free(*steps);
                return bb_fail(err, BB_ERR_MEMORY, "out of memory while reading %s", path);
            }
            *steps = grown;
        }
        (*steps)[(*count)++] = step;
    }
    closedir(d);
    if (*count) qsort(*steps, (size_t)*count, sizeof **steps, ascending);
    return BB_OK;
}

char *bb_run_dir_checkpoint_path(const bb_run_dir *dir, int64_t step) {
    char name[64];
    snprintf(name, sizeof name, "step-%08lld.safetensors", (long long)step);
    return bb_file_join(dir->path, name);
}

static bb_status remove_checkpoint(const bb_run_dir *dir, int64_t step, bb_error *err) {
    char *path = bb_run_dir_checkpoint_path(dir, step);
    if (!path) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    bb_status status = BB_OK;
    if (unlink(path) != 0 && errno != ENOENT)
        status = bb_fail(err, BB_ERR_IO, "%s: cannot remove the old checkpoint: %s", path, strerror(errno));
    free(path);
    return status;
}

/* NAME.tmp.PID, left by a process that was killed while writing. */
static void remove_temporaries(const bb_run_dir *dir) {
    DIR *d = opendir(dir->path);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));) {
        if (!strstr(e->d_name, ".tmp.")) continue;
        if (strncmp(e->d_name, "step-", 5) && strncmp(e->d_name, LATEST, 6) && strncmp(e->d_name, METRICS, 13) &&
            strncmp(e->d_name, CONFIG, 11))
            continue;
        char *path = bb_file_join(dir->path, e->d_name);
        if (path) unlink(path);
        free(path);
    }
    closedir(d);
}

static bb_status take_lock(const char *path, int *fd, bb_error *err) {
    *fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0) return bb_fail(err, BB_ERR_IO, "%s: cannot open the run directory: %s", path, strerror(errno));
    if (flock(*fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: another process is training in this run directory", path);
    /* some file systems have no locks: continue without */
    return BB_OK;
}

typedef struct run_file {
    const char *name;
    bb_status (*is_own)(const char *text, size_t size, bool *own, bb_error *err); /* whether a run wrote this text */
} run_file;

static bb_status names_checkpoint(const char *text, size_t size, bool *own, bb_error *err) {
    (void)err;
    char name[64];
    size_t length = strcspn(text, "\n");
    *own = false;
    if (size >= sizeof name) return BB_OK;
    memcpy(name, text, length);
    name[length] = '\0';
    *own = step_of(name) >= 0;
    return BB_OK;
}

static bb_status holds_metrics(const char *text, size_t size, bool *own, bb_error *err) {
    (void)size;
    json_t *line;
    bb_status status = bb_json_parse(text, strcspn(text, "\n"), METRICS, 0, &line, err);
    *own = json_is_integer(json_object_get(line, "step"));
    json_decref(line);
    return status == BB_ERR_FORMAT ? BB_OK : status;
}

static bb_status refuse_foreign_file(const char *path, const run_file *file, const bb_run_dir_use *use, bb_error *err) {
    struct stat st;
    if (lstat(path, &st) != 0) return BB_OK;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode))
        return bb_fail(err, BB_ERR_ARGUMENT,
                       "%s: expected a file of a training run, found no regular file: choose another --out, or move it away",
                       path);
    if (use->allow_overwrite) return BB_OK;
    uint8_t *text;
    size_t size;
    BB_TRY(bb_file_read_all(path, 0, &text, &size, err));
    bool own = size == 0 || (file->is_own == bb_is_run_config && strcmp((const char *)text, use->config_json) == 0);
    bb_status status = own ? BB_OK : file->is_own((const char *)text, size, &own, err);
    free(text);
    if (own || status != BB_OK) return status;
    return bb_fail(err, BB_ERR_ARGUMENT,
                   "%s: expected a file of a training run, found one of another program, which would be lost: choose another "
                   "--out, or replace it with --allow_overwrite",
                   path);
}

/* Other programs have a config.json and a link `latest` in their folders, too. */
static bb_status refuse_foreign_files(const char *dir, const bb_run_dir_use *use, bb_error *err) {
    static const run_file files[] = {{CONFIG, bb_is_run_config}, {LATEST, names_checkpoint}, {METRICS, holds_metrics}};
    for (size_t i = use->config_json ? 0 : 1; i < sizeof files / sizeof *files; i++) {
        char *path = bb_file_join(dir, files[i].name);
        if (!path) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
        bb_status status = refuse_foreign_file(path, &files[i], use, err);
        free(path);
        if (status != BB_OK) return status;
    }
    return BB_OK;
}

/* Renames a damaged checkpoint: it can still be examined, and the run can write this step again. */
static bb_status put_aside(const bb_run_dir *dir, int64_t step, bb_error *err) {
    char *path = bb_run_dir_checkpoint_path(dir, step), *aside = NULL;
    if (path && asprintf(&aside, "%s" DAMAGED, path) < 0) aside = NULL;
    bb_status status = BB_OK;
    if (!aside)
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory");
    else if (rename(path, aside) != 0)
        status = bb_fail(err, BB_ERR_IO, "%s: cannot put the damaged checkpoint aside: %s", path, strerror(errno));
    free(path);
    free(aside);
    return status;
}

static bb_status clear_old_checkpoints(const bb_run_dir *dir, const bb_run_dir_use *use, bb_error *err) {
    int64_t *steps, resume_step = use->resume_step;
    int count;
    BB_TRY(list_steps(dir->path, &steps, &count, err));
    bb_status status = BB_OK;
    int64_t newest = count ? steps[count - 1] : -1;
    if (newest <= use->damaged_step) {
        for (; count && steps[count - 1] > resume_step && status == BB_OK; count--)
            status = put_aside(dir, steps[count - 1], err);
        newest = count ? steps[count - 1] : -1;
    }
    if (status != BB_OK) goto done;
    if (newest > resume_step && !use->allow_overwrite) {
        if (resume_step < 0)
            status = bb_fail(err, BB_ERR_ARGUMENT,
                             "%s: holds checkpoints of another run (the newest of step %lld): resume it (--resume %s), choose "
                             "another --out, or replace it with --allow_overwrite",
                             dir->path, (long long)newest, dir->path);
        else
            status = bb_fail(err, BB_ERR_ARGUMENT,
                             "%s: holds checkpoints up to step %lld, later than step %lld that this run goes on from: choose "
                             "another --out, or replace them with --allow_overwrite",
                             dir->path, (long long)newest, (long long)resume_step);
    }
    for (int i = 0; i < count && status == BB_OK; i++)
        if (steps[i] > resume_step) status = remove_checkpoint(dir, steps[i], err);
done:
    free(steps);
    return status;
}

static bb_status write_latest(const bb_run_dir *dir, int64_t step, bb_error *err) {
    char name[64];
    int length = snprintf(name, sizeof name, "step-%08lld.safetensors\n", (long long)step);
    char *latest = bb_file_join(dir->path, LATEST);
    if (!latest) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    bb_status status = bb_file_replace(latest, name, (size_t)length, err);
    free(latest);
    return status;
}

bb_status bb_run_dir_open(const char *path, const bb_run_dir_use *use, bb_run_dir *out, bb_error *err) {
    *out = (bb_run_dir){.lock_fd = -1};
    bb_status status;
    BB_TRY_GOTO(status, fail, bb_file_make_dirs(path, err));
    out->path = strdup(path);
    if (!out->path) {
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory");
        goto fail;
    }
    BB_TRY_GOTO(status, fail, take_lock(path, &out->lock_fd, err));
    if (access(path, W_OK | X_OK) != 0) {
        status = bb_fail(err, BB_ERR_IO, "%s: cannot write to the run directory: %s", path, strerror(errno));
        goto fail;
    }
    if (use->resume_step < 0) BB_TRY_GOTO(status, fail, refuse_foreign_files(path, use, err));
    BB_TRY_GOTO(status, fail, clear_old_checkpoints(out, use, err));
    remove_temporaries(out);
    /* `latest` is out of date if the run was killed before writing it, or if its checkpoint was put aside. */
    if (use->resume_step >= 0) BB_TRY_GOTO(status, fail, write_latest(out, use->resume_step, err));
    return BB_OK;
fail:
    bb_run_dir_close(out);
    return status;
}

void bb_run_dir_close(bb_run_dir *dir) {
    if (dir->lock_fd >= 0) close(dir->lock_fd);
    free(dir->path);
    *dir = (bb_run_dir){.lock_fd = -1};
}

bb_status bb_run_dir_checkpoint_saved(const bb_run_dir *dir, int64_t step, const bb_keep *keep, bb_error *err) {
    bb_status status = write_latest(dir, step, err);
    if (status != BB_OK || keep->newest <= 0) return status;
    int64_t *steps;
    int count;
    BB_TRY(list_steps(dir->path, &steps, &count, err));
    for (int i = 0; i < count - keep->newest && status == BB_OK; i++)
        if (keep->every <= 0 || steps[i] % keep->every != 0) status = remove_checkpoint(dir, steps[i], err);
    free(steps);
    return status;
}

static bool holds(const char *dir, const char *name) {
    char *path = bb_file_join(dir, name);
    bool there = path && access(path, F_OK) == 0;
    free(path);
    return there;
}

static bb_status no_checkpoint(const char *dir, bb_error *err) {
    if (holds(dir, CONFIG) &&
        (holds(dir, "model.safetensors") || holds(dir, "model.safetensors.index.json") || holds(dir, "pytorch_model.bin")))
        return bb_fail(
            err, BB_ERR_IO,
            "%s: a model in the layout of Hugging Face's transformers; expected a run of bitbyte train, or a model file", dir);
    if (holds(dir, "manifest.json"))
        return bb_fail(err, BB_ERR_IO,
                       "%s: a pack, which is data; expected a run directory (bitbyte train --data %s makes one)", dir, dir);
    return bb_fail(err, BB_ERR_IO, "%s: no checkpoint (step-*.safetensors) in this run directory", dir);
}

bb_status bb_run_dir_count(const bb_run_dir *dir, int *count, bb_error *err) {
    int64_t *steps;
    BB_TRY(list_steps(dir->path, &steps, count, err));
    free(steps);
    return BB_OK;
}

bb_status bb_run_checkpoint_before(const char *run_dir, int64_t before, char *path, size_t path_size, bb_error *err) {
    BB_REQUIRE("run_dir, path", run_dir, path);
    int64_t *steps;
    int count;
    BB_TRY(list_steps(run_dir, &steps, &count, err));
    while (count && steps[count - 1] >= before) count--;
    int64_t newest = count ? steps[count - 1] : -1;
    free(steps);
    if (newest < 0) return no_checkpoint(run_dir, err);
    /* A checkpoint gets its name when it is complete, so the newest name is right, even if a run was killed before writing
     * `latest`. */
    int n = snprintf(path, path_size, "%s/step-%08lld.safetensors", run_dir, (long long)newest);
    if (n < 0 || (size_t)n >= path_size) return bb_fail(err, BB_ERR_ARGUMENT, "%s: the path is too long", run_dir);
    return BB_OK;
}

bb_status bb_run_latest_checkpoint(const char *run_dir, char *path, size_t path_size, bb_error *err) {
    BB_REQUIRE("run_dir, path", run_dir, path);
    return bb_run_checkpoint_before(run_dir, INT64_MAX, path, path_size, err);
}

bb_status bb_run_latest_valid(const char *run_dir, bb_status (*load)(void *user, const char *path, bb_error *err),
                              void (*on_damaged)(void *user, const char *path, const char *reason), void *user, bb_error *err) {
    BB_REQUIRE("run_dir", run_dir);
    if (!load) return bb_fail(err, BB_ERR_ARGUMENT, "bb_run_latest_valid: load is NULL");
    char path[4096];
    bb_error first = {.code = BB_OK}, failure;
    for (int64_t before = INT64_MAX;; before = bb_run_dir_step_of(path)) {
        bb_status status = bb_run_checkpoint_before(run_dir, before, path, sizeof path, &failure);
        if (status == BB_OK)
            status = load(user, path, &failure);
        else if (first.code != BB_OK && status == BB_ERR_IO)
            return bb_fail(err, first.code, "%s: every checkpoint is damaged; the newest: %.800s", run_dir, first.message);
        else
            return bb_fail(err, status, "%s", failure.message);
        if (status == BB_OK) return BB_OK;
        if (!bb_status_is_damage(status)) return bb_fail(err, status, "%s", failure.message);
        if (on_damaged) on_damaged(user, path, failure.message);
        if (first.code == BB_OK) first = failure;
    }
}

/* Reads metrics.jsonl; an empty text if there is none. free(*text) and free(*path). */
static bb_status read_metrics(const char *dir, char **path, uint8_t **text, size_t *size, bb_error *err) {
    *text = NULL;
    *size = 0;
    *path = bb_file_join(dir, METRICS);
    if (!*path) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    if (access(*path, F_OK) == 0) return bb_file_read_all(*path, 0, text, size, err);
    return errno == ENOENT ? BB_OK : bb_fail(err, BB_ERR_IO, "%s: cannot look it up: %s", *path, strerror(errno));
}

/* The next line; NULL if it is not JSON. *length: 0 after the last complete line. */
static json_t *next_line(const uint8_t *text, size_t size, size_t *length) {
    const uint8_t *end = size ? memchr(text, '\n', size) : NULL;
    *length = end ? (size_t)(end - text) + 1 : 0;
    return end ? json_loadb((const char *)text, *length, 0, NULL) : NULL;
}

bb_status bb_run_dir_rewind_metrics(const bb_run_dir *dir, int64_t step, bb_error *err) {
    char *path;
    uint8_t *text;
    size_t size, length, kept = 0;
    bb_status status = read_metrics(dir->path, &path, &text, &size, err);
    for (size_t at = 0; status == BB_OK; at += length) {
        json_t *line = next_line(text + at, size - at, &length);
        if (length == 0) break;
        const json_t *line_step = json_object_get(line, "step");
        if (json_is_integer(line_step) && json_integer_value(line_step) <= step) {
            memmove(text + kept, text + at, length);
            kept += length;
        }
        json_decref(line);
    }
    if (status == BB_OK && kept < size) status = bb_file_replace(path, text, kept, err);
    free(text);
    free(path);
    return status;
}

bb_status bb_run_dir_was_validated(const char *dir, int64_t step, bool *validated, bb_error *err) {
    char *path;
    uint8_t *text;
    size_t size, length;
    bb_status status = read_metrics(dir, &path, &text, &size, err);
    *validated = false;
    for (size_t at = 0; status == BB_OK; at += length) {
        json_t *line = next_line(text + at, size - at, &length);
        if (length == 0) break;
        const json_t *line_step = json_object_get(line, "step");
        if (json_object_get(line, "val_bpb") && json_is_integer(line_step) && json_integer_value(line_step) == step)
            *validated = true;
        json_decref(line);
    }
    free(text);
    free(path);
    return status;
}

/* Appends all of the text or nothing, so that no line is incomplete, and a retry does not write it twice. */
static bb_status append_text(const char *path, const char *text, size_t size, bb_error *err) {
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) return bb_fail(err, BB_ERR_IO, "%s: cannot append: %s", path, strerror(errno));
    off_t before = lseek(fd, 0, SEEK_END);
    int failure = before < 0 ? errno : 0;
    for (size_t done = 0; done < size && failure == 0;) {
        ssize_t n = write(fd, text + done, size - done);
        if (n >= 0)
            done += (size_t)n;
        else if (errno != EINTR)
            failure = errno;
    }
    if (close(fd) != 0 && failure == 0) failure = errno;
    if (failure == 0) return BB_OK;
    if (before >= 0 && truncate(path, before) != 0) { /* a resumed run drops the rest */
    }
    return bb_fail(err, BB_ERR_IO, "%s: cannot write: %s", path, strerror(failure));
}

bb_status bb_run_dir_append_metrics(const bb_run_dir *dir, json_t *line, bb_error *err) {
    char *text = line ? bb_json_text(line, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    char *path = bb_file_join(dir->path, METRICS);
    char *whole = NULL;
    json_decref(line);
    bb_status status;
    if (text && path && asprintf(&whole, "%s\n", text) < 0) whole = NULL;
    if (whole)
        status = append_text(path, whole, strlen(whole), err);
    else
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory");
    free(whole);
    free(text);
    free(path);
    return status;
}

bb_status bb_run_dir_contains(const char *dir, const char *path, bool *contains, bb_error *err) {
    const char *slash = strrchr(path, '/');
    char *parent = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    struct stat a, b;
    bb_status status = BB_OK;
    *contains = false;
    if (!parent)
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory");
    else if (stat(parent, &a) != 0)
        status = bb_fail(err, BB_ERR_IO, "%s: cannot stat: %s", parent, strerror(errno));
    else if (stat(dir, &b) == 0)
        *contains = a.st_dev == b.st_dev && a.st_ino == b.st_ino;
    else if (errno != ENOENT)
        status = bb_fail(err, BB_ERR_IO, "%s: cannot stat: %s", dir, strerror(errno));
    free(parent);
    return status;
}
