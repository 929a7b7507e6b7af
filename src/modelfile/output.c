// SPDX-License-Identifier: MIT
#include "modelfile/output.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/file.h"
#include "modelfile/run_config.h"
#include "modelfile/tensor_source.h"

enum { MAX_SMALL_FILE = 1 << 20 }; /* config.json, latest and best of a run are smaller */

void bb_model_set_source(bb_model *model, const char *path) {
    struct stat st;
    model->has_source = stat(path, &st) == 0 && S_ISREG(st.st_mode);
    if (!model->has_source) return;
    model->source_device = st.st_dev;
    model->source_inode = st.st_ino;
}

static bb_status same_file(const char *path, bb_error *err) {
    return bb_fail(err, BB_ERR_ARGUMENT,
                   "%s: this is the file that the model was loaded from and would be overwritten: choose another name", path);
}

bb_status bb_output_check_source(const bb_model *model, const char *path, bb_error *err) {
    struct stat st;
    if (!model->has_source || stat(path, &st) != 0) return BB_OK;
    return st.st_dev == model->source_device && st.st_ino == model->source_inode ? same_file(path, err) : BB_OK;
}

/* Returns whether a folder contains the file *wanted. */
static bool holds(const char *folder, const struct stat *wanted) {
    struct stat st;
    bool found = false;
    DIR *dir = opendir(folder);
    for (const struct dirent *entry; dir && !found && (entry = readdir(dir));)
        found = fstatat(dirfd(dir), entry->d_name, &st, 0) == 0 && st.st_dev == wanted->st_dev && st.st_ino == wanted->st_ino;
    if (dir) closedir(dir);
    return found;
}

/* Returns the folder of a Hugging Face model, which may have been given as its config.json; NULL if the source is one file. */
static char *source_folder(const char *source, const struct stat *st) {
    const char *slash = strrchr(source, '/'), *base = slash ? slash + 1 : source;
    size_t n = strlen(base);
    if (S_ISDIR(st->st_mode)) return strdup(source);
    if (n < 5 || strcmp(base + n - 5, ".json") != 0) return NULL;
    return slash ? strndup(source, slash == source ? 1 : (size_t)(slash - source)) : strdup(".");
}

bb_status bb_output_check_same(const char *source, const char *path, bb_error *err) {
    struct stat a, b;
    if (stat(source, &a) != 0 || stat(path, &b) != 0) return BB_OK;
    bool same = a.st_dev == b.st_dev && a.st_ino == b.st_ino && S_ISREG(a.st_mode);
    char *folder = S_ISREG(b.st_mode) ? source_folder(source, &a) : NULL;
    if (folder) same = holds(folder, &b);
    free(folder);
    return same ? same_file(path, err) : BB_OK;
}

static bool is_checkpoint(const char *path, const char *base) {
    bb_tensor_source *st;
    bb_error ignored;
    if (bb_tensor_source_open(path, &st, &ignored) != BB_OK) /* possibly damaged; judge by the name */
        return strncmp(base, "step-", 5) == 0 && strstr(base, ".safetensors");
    bool is = bb_tensor_source_metadata(st, "training_state") != NULL;
    bb_tensor_source_close(st);
    return is;
}

bb_status bb_output_check(const char *path, bb_error *err) {
    BB_REQUIRE("path", path);
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) return BB_OK;
    char *real = realpath(path, NULL);
    if (!real) return BB_OK;
    const char *base = strrchr(real, '/') ? strrchr(real, '/') + 1 : real, *what = NULL;
    bool config = strcmp(base, "config.json") == 0, latest = strcmp(base, "latest") == 0, best = strcmp(base, "best") == 0;
    uint8_t *text = NULL;
    size_t size;
    bb_error ignored;
    if (config || latest || best) {
        if (bb_file_read_all(real, MAX_SMALL_FILE, &text, &size, &ignored) == BB_OK) {
            bool run = false;
            if (config && (bb_is_run_config((const char *)text, size, &run, &ignored) != BB_OK || run))
                what = "the configuration of a run";
            if (latest && strncmp((const char *)text, "step-", 5) == 0) what = "the pointer to a run's newest checkpoint";
            if (best && strncmp((const char *)text, "step-", 5) == 0) what = "the pointer to a run's best checkpoint";
        }
    } else if (is_checkpoint(real, base)) {
        what = "a checkpoint with training state";
    }
    free(text);
    free(real);
    if (!what) return BB_OK;
    return bb_fail(err, BB_ERR_ARGUMENT, "%s: this is %s and would be overwritten: choose another name", path, what);
}
