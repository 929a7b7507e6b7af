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
#define LATEST "latest"
#define BEST "best"
#define DAMAGED ".damaged"

enum { MAX_NOTE = 64 }; /* maximum size of LATEST and BEST in bytes */

static int ascending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Returns the step in "step-00002000.safetensors", or -1 for any other name. */
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

/* Lists the steps of all checkpoints, ascending, malloc'd. */
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

static char *checkpoint_path(const char *dir, int64_t step) {
    char name[64];
    snprintf(name, sizeof name, "step-%08lld.safetensors", (long long)step);
    return bb_file_join(dir, name);
}

char *bb_run_dir_checkpoint_path(const bb_run_dir *dir, int64_t step) { return checkpoint_path(dir->path, step); }

static bb_status remove_checkpoint(const bb_run_dir *dir, int64_t step, bb_error *err) {
    char *path = bb_run_dir_checkpoint_path(dir, step);
    if (!path) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    bb_status status = BB_OK;
    if (unlink(path) != 0 && errno != ENOENT)
        status = bb_fail(err, BB_ERR_IO, "%s: cannot remove the old checkpoint: %s", path, strerror(errno));
    free(path);
    return status;
}

/* Removes NAME.tmp.PID files, left by a process that was killed while writing. */
static void remove_temporaries(const bb_run_dir *dir) {
    static const char *const starts[] = {"step-", LATEST, BEST, BB_RUN_METRICS, CONFIG, "metrics.csv"}; /* of the program */
    DIR *d = opendir(dir->path);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));) {
        bool own = false;
        for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
            own = own || strncmp(e->d_name, starts[i], strlen(starts[i])) == 0;
        if (!own || !strstr(e->d_name, ".tmp.")) continue;
        char *path = bb_file_join(dir->path, e->d_name);
        if (path) unlink(path);
        free(path);
    }
    closedir(d);
}

static bb_status lock_dir(const char *path, int *fd, bb_error *err) {
    *fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0) return bb_fail(err, BB_ERR_IO, "%s: cannot open the run directory: %s", path, strerror(errno));
    if (flock(*fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: another process is training in this run directory", path);
    /* some file systems have no locks: continue without one */
    return BB_OK;
}

typedef struct run_file {
    const char *name;
    bb_status (*is_own)(const char *text, size_t size, bool *own, bb_error *err); /* whether a run wrote this text */
    bool replaced;                                                                /* this run will replace the file */
} run_file;

/* Returns the step of the checkpoint that the text of LATEST or BEST names, or -1. */
static int64_t step_in_note(const char *text, size_t size) {
    char name[MAX_NOTE];
    size_t length = strcspn(text, "\n");
    if (size >= sizeof name) return -1;
    memcpy(name, text, length);
    name[length] = '\0';
    return step_of(name);
}

static bb_status names_checkpoint(const char *text, size_t size, bool *own, bb_error *err) {
    (void)err;
    *own = step_in_note(text, size) >= 0;
    return BB_OK;
}

static bb_status holds_metrics(const char *text, size_t size, bool *own, bb_error *err) {
    (void)size;
    json_t *line;
    bb_status status = bb_json_parse(text, strcspn(text, "\n"), BB_RUN_METRICS, 0, &line, err);
    *own = json_is_integer(json_object_get(line, "step"));
    json_decref(line);
    return status == BB_ERR_FORMAT ? BB_OK : status;
}

static bb_status refuse_foreign_file(const char *path, const run_file *file, const bb_run_dir_use *use, bb_error *err) {
    struct stat st;
    if (lstat(path, &st) != 0) return BB_OK;
    bool found = stat(path, &st) == 0;
    if (!found && errno != ENOENT && errno != ELOOP)
        return bb_fail(err, BB_ERR_IO, "%s: cannot stat: %s", path, strerror(errno));
    if (!found || !S_ISREG(st.st_mode))
        return bb_fail(err, BB_ERR_ARGUMENT,
                       "%s: expected a file of a training run, found something other than a regular file: choose another "
                       "--out, or move it away",
                       path);
    if (use->allow_overwrite) return BB_OK;
    uint8_t *text;
    size_t size;
    BB_TRY(bb_file_read_all(path, 0, &text, &size, err));
    bool own = size == 0 || (file->is_own == bb_is_run_config && strcmp((const char *)text, use->config_json) == 0);
    bb_status status = own ? BB_OK : file->is_own((const char *)text, size, &own, err);
    free(text);
    if (own || status != BB_OK) return status;
    return bb_fail(
        err, BB_ERR_ARGUMENT,
        "%s: expected a file of a training run, found one of another program, which would be overwritten: choose another "
        "--out, or replace it with --allow_overwrite",
        path);
}

/* Other programs' folders may have a config.json and a link `latest`, too. */
static bb_status refuse_foreign_files(const char *dir, const bb_run_dir_use *use, bb_error *err) {
    bool begins = use->resume_step < 0;
    const run_file files[] = {{CONFIG, bb_is_run_config, begins && use->config_json},
                              {LATEST, names_checkpoint, begins},
                              {BB_RUN_METRICS, holds_metrics, begins},
                              {BEST, names_checkpoint, use->names_best}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (!files[i].replaced) continue;
        char *path = bb_file_join(dir, files[i].name);
        if (!path) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
        bb_status status = refuse_foreign_file(path, &files[i], use, err);
        free(path);
        if (status != BB_OK) return status;
    }
    return BB_OK;
}

/* Renames a damaged checkpoint, so that it can still be examined and the run can write this step again. */
static bb_status set_aside(const bb_run_dir *dir, int64_t step, bb_error *err) {
    char *path = bb_run_dir_checkpoint_path(dir, step), *aside = NULL;
    if (path && asprintf(&aside, "%s" DAMAGED, path) < 0) aside = NULL;
    bb_status status = BB_OK;
    if (!aside)
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory");
    else if (rename(path, aside) != 0)
        status = bb_fail(err, BB_ERR_IO, "%s: cannot rename the damaged checkpoint: %s", path, strerror(errno));
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
            status = set_aside(dir, steps[count - 1], err);
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
                             "%s: holds checkpoints up to step %lld, later than step %lld that this run continues from: choose "
                             "another --out, or replace them with --allow_overwrite",
                             dir->path, (long long)newest, (long long)resume_step);
    }
    for (int i = 0; i < count && status == BB_OK; i++)
        if (steps[i] > resume_step) status = remove_checkpoint(dir, steps[i], err);
done:
    free(steps);
    return status;
}

/* note: LATEST or BEST */
static bb_status write_note(const bb_run_dir *dir, const char *note, int64_t step, bb_error *err) {
    char name[MAX_NOTE];
    int length = snprintf(name, sizeof name, "step-%08lld.safetensors\n", (long long)step);
    char *path = bb_file_join(dir->path, note);
    if (!path) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    bb_status status = bb_file_replace(path, name, (size_t)length, err);
    free(path);
    return status;
}

/* Reads the step that a note names; -1 if `path` is not a note. */
static bb_status read_note(const char *path, int64_t *step, bb_error *err) {
    uint8_t *text;
    size_t size;
    struct stat st;
    *step = -1;
    if (stat(path, &st) != 0)
        return errno == ENOENT || errno == ENOTDIR ? BB_OK
                                                   : bb_fail(err, BB_ERR_IO, "%s: cannot stat: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return BB_OK;
    bb_status status = bb_file_read_all(path, MAX_NOTE, &text, &size, err);
    if (status == BB_ERR_FORMAT) return BB_OK; /* too long for a note */
    if (status != BB_OK) return status;
    *step = step_in_note((const char *)text, size);
    free(text);
    return BB_OK;
}

bool bb_run_dir_has_checkpoint(const char *path, int64_t step) {
    char *file = checkpoint_path(path, step);
    bool there = file && access(file, F_OK) == 0;
    free(file);
    return there;
}

bool bb_run_dir_best_is_late(const char *path, int64_t step) {
    char *note = bb_file_join(path, BEST);
    bb_error ignored;
    int64_t named = -1;
    if (note) (void)read_note(note, &named, &ignored);
    free(note);
    return named != step && bb_run_dir_has_checkpoint(path, step);
}

/* Reads which checkpoint `best` names, and removes `best` if that checkpoint is gone: replaced by another run, or damaged. */
static bb_status read_best(bb_run_dir *dir, bb_error *err) {
    char *path = bb_file_join(dir->path, BEST);
    if (!path) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    bb_status status = read_note(path, &dir->best, err);
    if (dir->best >= 0 && !bb_run_dir_has_checkpoint(dir->path, dir->best)) {
        dir->best = -1;
        if (unlink(path) != 0)
            status =
                bb_fail(err, BB_ERR_IO, "%s: cannot remove it, although its checkpoint is gone: %s", path, strerror(errno));
    }
    free(path);
    return status;
}

bb_status bb_run_dir_open(const char *path, const bb_run_dir_use *use, bb_run_dir *out, bb_error *err) {
    *out = (bb_run_dir){.lock_fd = -1, .best = -1};
    bb_status status;
    BB_TRY_GOTO(status, fail, bb_file_make_dirs(path, err));
    out->path = strdup(path);
    if (!out->path) {
        status = bb_fail(err, BB_ERR_MEMORY, "out of memory");
        goto fail;
    }
    BB_TRY_GOTO(status, fail, lock_dir(path, &out->lock_fd, err));
    if (access(path, W_OK | X_OK) != 0) {
        status = bb_fail(err, BB_ERR_IO, "%s: cannot write to the run directory: %s", path, strerror(errno));
        goto fail;
    }
    BB_TRY_GOTO(status, fail, refuse_foreign_files(path, use, err));
    BB_TRY_GOTO(status, fail, clear_old_checkpoints(out, use, err));
    remove_temporaries(out);
    /* `latest` is out of date if the run was killed before writing it, or if its checkpoint was renamed as damaged. */
    if (use->resume_step >= 0) BB_TRY_GOTO(status, fail, write_note(out, LATEST, use->resume_step, err));
    BB_TRY_GOTO(status, fail, read_best(out, err));
    return BB_OK;
fail:
    bb_run_dir_close(out);
    return status;
}

void bb_run_dir_close(bb_run_dir *dir) {
    if (dir->lock_fd >= 0) close(dir->lock_fd);
    free(dir->path);
    *dir = (bb_run_dir){.lock_fd = -1, .best = -1};
}

static bb_status remove_old(const bb_run_dir *dir, const bb_retention *keep, bb_error *err) {
    if (keep->newest <= 0) return BB_OK;
    int64_t *steps;
    int count;
    bb_status status = BB_OK;
    BB_TRY(list_steps(dir->path, &steps, &count, err));
    for (int i = 0; i < count - keep->newest && status == BB_OK; i++)
        if (steps[i] != dir->best && (keep->every <= 0 || steps[i] % keep->every != 0))
            status = remove_checkpoint(dir, steps[i], err);
    free(steps);
    return status;
}

bb_status bb_run_dir_checkpoint_saved(const bb_run_dir *dir, int64_t step, const bb_retention *keep, bb_error *err) {
    BB_TRY(write_note(dir, LATEST, step, err));
    return remove_old(dir, keep, err);
}

bb_status bb_run_dir_set_best(bb_run_dir *dir, int64_t step, const bb_retention *keep, bb_error *err) {
    if (dir->best == step) return BB_OK;
    BB_TRY(write_note(dir, BEST, step, err));
    dir->best = step;
    return remove_old(dir, keep, err);
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
        return bb_fail(err, BB_ERR_IO, "%s: a pack of data; expected a run directory (bitbyte train --data %s creates one)",
                       dir, dir);
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
    /* A checkpoint gets its name when it is complete, so the newest name is valid even if a run was killed before writing
     * `latest`. */
    int n = snprintf(path, path_size, "%s/step-%08lld.safetensors", run_dir, (long long)newest);
    if (n < 0 || (size_t)n >= path_size) return bb_fail(err, BB_ERR_ARGUMENT, "%s: the path is too long", run_dir);
    return BB_OK;
}

bb_status bb_run_named_checkpoint(const char *given, char *path, size_t path_size, bb_error *err) {
    BB_REQUIRE("given, path", given, path);
    const char *slash = strrchr(given, '/'), *base = slash ? slash + 1 : given;
    int64_t step = -1;
    if (strcmp(base, LATEST) == 0 || strcmp(base, BEST) == 0) BB_TRY(read_note(given, &step, err));
    int n = step < 0 ? snprintf(path, path_size, "%s", given)
                     : snprintf(path, path_size, "%.*sstep-%08lld.safetensors", (int)(base - given), given, (long long)step);
    if (n < 0 || (size_t)n >= path_size) return bb_fail(err, BB_ERR_ARGUMENT, "%.400s: the path is too long", given);
    if (step >= 0 && access(path, F_OK) != 0)
        return bb_fail(err, BB_ERR_IO, "%s: names %s, which cannot be found: %s", given, path + (base - given),
                       strerror(errno));
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
