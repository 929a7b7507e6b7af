// SPDX-License-Identifier: MIT
/* Finds Hugging Face folders on disk and opens their files. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/file.h"
#include "modelfile/hf.h"
#include "modelfile/run_config.h"

enum { MAX_CONFIG_BYTES = 1 << 20 };

/* The folder's own path with links resolved. */
typedef struct folder {
    const char *given;
    char *real;
} folder;

static bool is_inside(const char *path, const char *root) {
    size_t n = strlen(root);
    return strncmp(path, root, n) == 0 && (root[n - 1] == '/' || path[n] == '/');
}

static bb_status open_file(void *user, const char *name, bool *found, bb_input *out, bb_error *err) {
    const folder *f = user;
    struct stat st;
    char *path = bb_file_join(f->given, name), *real = NULL;
    bb_status status = BB_OK;
    *found = false;
    if (!path) return bb_fail(err, BB_ERR_MEMORY, "%s: no memory to open it", f->given);
    if (lstat(path, &st) != 0) {
        if (errno != ENOENT) status = bb_fail(err, BB_ERR_IO, "%s: %s", path, strerror(errno));
    } else if (!(real = realpath(path, NULL))) {
        status = bb_fail(err, BB_ERR_IO, "%s: %s", path, strerror(errno));
    } else if (!is_inside(real, f->real)) {
        status =
            bb_fail(err, BB_ERR_FORMAT,
                    "%s: expected a file in this folder, found a link to %s; copy the folder with its link targets (cp -rL)",
                    path, real);
    } else {
        *found = true;
        status = bb_input_open_file(path, out, err);
    }
    free(real);
    free(path);
    return status;
}

bb_status bb_hf_open_folder(const char *path, bb_tensor_source **out, bb_error *err) {
    folder f = {.given = path, .real = realpath(path, NULL)};
    *out = NULL;
    if (!f.real) return bb_fail(err, BB_ERR_IO, "%s: %s", path, strerror(errno));
    bb_hf_files files = {.path = path, .open = open_file, .user = &f};
    bb_status status = bb_hf_open(&files, out, err);
    free(f.real);
    return status;
}

static bool has_run_config(const char *path) {
    uint8_t *text = NULL;
    size_t size = 0;
    bool is = false;
    bb_error ignored;
    if (bb_file_read_all(path, MAX_CONFIG_BYTES, &text, &size, &ignored) != BB_OK) return false;
    (void)bb_is_run_config((const char *)text, size, &is, &ignored);
    free(text);
    return is;
}

/* A library user may have put a different config.json into a run. */
static bool holds_checkpoints(const char *path) {
    bool found = false;
    DIR *dir = opendir(path);
    for (const struct dirent *entry; dir && !found && (entry = readdir(dir));) {
        const char *end = strrchr(entry->d_name, '.');
        found = strncmp(entry->d_name, "step-", 5) == 0 && end && strcmp(end, ".safetensors") == 0;
    }
    if (dir) closedir(dir);
    return found;
}

bool bb_is_hf_folder(const char *path) {
    struct stat st;
    char *config = path ? bb_file_join(path, BB_HF_CONFIG) : NULL;
    bool is = config && stat(config, &st) == 0 && S_ISREG(st.st_mode) && !has_run_config(config) && !holds_checkpoints(path);
    free(config);
    return is;
}
