// SPDX-License-Identifier: MIT
#include "training/run_metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"

/* Reads metrics.jsonl; the text is empty if it does not exist. The caller frees *text and *path. */
static bb_status read_metrics(const char *dir, char **path, uint8_t **text, size_t *size, bb_error *err) {
    *text = NULL;
    *size = 0;
    *path = bb_file_join(dir, BB_RUN_METRICS);
    if (!*path) return bb_fail(err, BB_ERR_MEMORY, "out of memory");
    if (access(*path, F_OK) == 0) return bb_file_read_all(*path, 0, text, size, err);
    return errno == ENOENT ? BB_OK : bb_fail(err, BB_ERR_IO, "%s: cannot look it up: %s", *path, strerror(errno));
}

/* Returns the next line, or NULL if it is not JSON. *length: 0 after the last complete line. */
static json_t *next_line(const uint8_t *text, size_t size, size_t *length) {
    const uint8_t *end = size ? memchr(text, '\n', size) : NULL;
    *length = end ? (size_t)(end - text) + 1 : 0;
    return end ? json_loadb((const char *)text, *length, 0, NULL) : NULL;
}

bb_status bb_run_metrics_rewind(const bb_run_dir *dir, int64_t step, bb_error *err) {
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

bb_status bb_run_metrics_history(const char *dir, int64_t step, bb_val_history *out, bb_error *err) {
    char *path;
    uint8_t *text;
    size_t size, length;
    bb_status status = read_metrics(dir, &path, &text, &size, err);
    bb_val_history_clear(out);
    for (size_t at = 0; status == BB_OK; at += length) {
        json_t *line = next_line(text + at, size - at, &length);
        if (length == 0) break;
        const json_t *line_step = json_object_get(line, "step"), *bpb = json_object_get(line, "val_bpb");
        if (bpb && json_is_integer(line_step) && json_integer_value(line_step) <= step)
            (void)bb_val_history_add(out, json_integer_value(line_step), json_is_number(bpb) ? json_number_value(bpb) : NAN);
        json_decref(line);
    }
    free(text);
    free(path);
    return status;
}

/* Appends all of the text or nothing, so that there are no incomplete lines, and a retry does not write it twice. */
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
    if (before >= 0 && truncate(path, before) != 0) { /* a resumed run removes the rest */
    }
    return bb_fail(err, BB_ERR_IO, "%s: cannot write: %s", path, strerror(failure));
}

bb_status bb_run_metrics_append(const bb_run_dir *dir, json_t *line, bb_error *err) {
    char *text = line ? bb_json_text(line, JSON_COMPACT | JSON_REAL_PRECISION(BB_METRICS_DIGITS)) : NULL;
    char *path = bb_file_join(dir->path, BB_RUN_METRICS);
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
