// SPDX-License-Identifier: MIT
/* Turns the caller's files and folders into one list of files, the same on every machine. */
#include "data/packer_inputs.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "core/file.h"
#include "data/packer_dir.h"

typedef struct file_id {
    dev_t device;
    ino_t inode;
} file_id;

typedef struct walk {
    bb_pack_job *job;
    bb_pack_inputs *out;
    void *seen; /* tsearch tree of file_id: files packed and folders entered */
    file_id out_dir;
} walk;

static int compare_ids(const void *a, const void *b) {
    const file_id *x = a, *y = b;
    if (x->device != y->device) return x->device < y->device ? -1 : 1;
    return x->inode == y->inode ? 0 : x->inode < y->inode ? -1 : 1;
}

static file_id id_of(const struct stat *st) { return (file_id){st->st_dev, st->st_ino}; }

static bb_status no_memory(bb_error *err) { return bb_fail(err, BB_ERR_MEMORY, "no memory for the list of input files"); }

/* *is_new: the file has not been found before, by this or another path. */
static bb_status remember(walk *w, const struct stat *st, bool *is_new, bb_error *err) {
    file_id *id = malloc(sizeof *id);
    if (!id) return no_memory(err);
    *id = id_of(st);
    file_id **found = tsearch(id, &w->seen, compare_ids);
    *is_new = found && *found == id;
    if (!*is_new) free(id);
    return found ? BB_OK : no_memory(err);
}

/* ---- What a name says ------------------------------------------------------------------------------------------------- */

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Returns the last extension of name[0..length), or NULL; *ext_length excludes the dot. */
static const char *extension(const char *name, size_t length, size_t *ext_length) {
    size_t dot = length;
    while (dot > 0 && name[dot - 1] != '.') dot--;
    if (dot == 0) return NULL;
    *ext_length = length - dot;
    return name + dot;
}

static bool same_ext(const char *ext, size_t length, const char *word) {
    return strlen(word) == length && strncasecmp(ext, word, length) == 0;
}

static bool is_compression_ext(const char *ext, size_t length) {
    static const char *const exts[] = {"gz", "zst", "zstd", "xz", "bz2"};
    for (size_t i = 0; i < sizeof exts / sizeof *exts; i++)
        if (same_ext(ext, length, exts[i])) return true;
    return false;
}

/* Returns the extension that tells the content: for a.txt.gz, txt. */
static const char *content_extension(const char *path, size_t *ext_length) {
    const char *name = base_name(path);
    const char *ext = extension(name, strlen(name), ext_length);
    if (ext && ext - 1 > name && is_compression_ext(ext, *ext_length))
        ext = extension(name, (size_t)(ext - 1 - name), ext_length);
    return ext;
}

static bb_pack_kind kind_of(const bb_pack_options *options, const char *path) {
    size_t length = 0;
    const char *ext = content_extension(path, &length);
    switch (options->input_format) {
    case BB_INPUT_TEXT: return BB_PACK_RAW;
    case BB_INPUT_JSON_LINES: return BB_PACK_JSON_LINES;
    case BB_INPUT_JSON: return BB_PACK_JSON;
    case BB_INPUT_AUTO: break;
    }
    if (!ext || options->json_key_count == 0) return BB_PACK_RAW;
    if (same_ext(ext, length, "json")) return BB_PACK_JSON;
    if (same_ext(ext, length, "jsonl") || same_ext(ext, length, "ndjson")) return BB_PACK_JSON_LINES;
    return BB_PACK_RAW;
}

static bool is_wanted(const bb_pack_options *options, const char *path) {
    size_t inner_length = 0, outer_length = 0;
    const char *inner = content_extension(path, &inner_length);
    const char *name = base_name(path), *outer = extension(name, strlen(name), &outer_length);
    for (int i = 0; i < options->ext_count; i++) {
        const char *wanted = options->exts[i];
        if (strcmp(wanted, "*") == 0 || strcmp(wanted, "all") == 0) return true;
        if (*wanted == '.') wanted++;
        if (inner && same_ext(inner, inner_length, wanted)) return true;
        if (outer && same_ext(outer, outer_length, wanted)) return true;
    }
    return false;
}

/* ---- What is left out ------------------------------------------------------------------------------------------------- */

/* Counts by lower-case extension. Long ones, which are more likely parts of names, and those beyond the limit count as
 * "other". */
static void leave_out(bb_pack_job *job, const char *path) {
    char name[sizeof job->left_out[0].ext] = "other";
    size_t length = 0;
    const char *ext = content_extension(path, &length);
    if (length < sizeof name) {
        for (size_t i = 0; i < length; i++) name[i] = (char)tolower((unsigned char)ext[i]);
        name[length] = '\0';
    }
    int at = 0;
    while (at < job->left_out_count && strcmp(job->left_out[at].ext, name) != 0) at++;
    if (at >= BB_PACK_EXTS_LEFT_OUT - 1) {
        at = BB_PACK_EXTS_LEFT_OUT - 1;
        strcpy(name, "other");
    }
    if (at == job->left_out_count) {
        strcpy(job->left_out[at].ext, name);
        job->left_out_count++;
    }
    job->left_out[at].count++;
    job->result->left_out++;
}

static int compare_left_out(const void *a, const void *b) {
    const bb_pack_left_out *x = a, *y = b;
    return x->count != y->count ? (x->count < y->count ? 1 : -1) : strcmp(x->ext, y->ext);
}

void bb_pack_left_out_text(const bb_pack_job *job, char *out, size_t size) {
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; i < job->left_out_count && used < size; i++) {
        const bb_pack_left_out *l = &job->left_out[i];
        used += (size_t)snprintf(out + used, size - used, "%s%" PRId64 " %s%s", i ? ", " : "", l->count,
                                 strcmp(l->ext, "other") == 0 || !l->ext[0] ? "" : ".",
                                 l->ext[0] ? l->ext : "without an extension");
    }
}

static void report_left_out(bb_pack_job *job) {
    const bb_pack_options *o = job->options;
    qsort(job->left_out, (size_t)job->left_out_count, sizeof *job->left_out, compare_left_out);
    if (job->result->left_out == 0 || !o->on_note) return;
    char files[512], note[768];
    bb_pack_left_out_text(job, files, sizeof files);
    snprintf(note, sizeof note, "%" PRId64 " files of the folders are skipped because of their extension (exts): %s",
             job->result->left_out, files);
    o->on_note(o->user, note);
}

/* ---- The list --------------------------------------------------------------------------------------------------------- */

/* Takes ownership of path. */
static bb_status add(walk *w, char *path, bb_error *err) {
    bb_pack_inputs *list = w->out;
    if (list->count == list->capacity) {
        int64_t capacity = list->capacity ? list->capacity * 2 : 64;
        bb_pack_input *items = realloc(list->items, (size_t)capacity * sizeof *items);
        if (!items) {
            free(path);
            return no_memory(err);
        }
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = (bb_pack_input){.path = path, .kind = kind_of(w->job->options, path)};
    return BB_OK;
}

static bb_status skip_errno(walk *w, const char *path, const char *what, bb_error *err) {
    bb_fail(err, BB_ERR_IO, "cannot %s: %s", what, strerror(errno));
    return bb_pack_skip_input(w->job, path, 1, BB_ERR_IO, err);
}

/* Sorted, so that every machine uses the same one of two paths to a folder. */
static int compare_entries(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

static int not_hidden(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static bb_status walk_folder(walk *w, const char *path, const struct stat *folder, bool is_input, bb_error *err);

static bb_status visit(walk *w, const char *path, bool inside_out_dir, bb_error *err) {
    struct stat st;
    if (stat(path, &st) != 0) return skip_errno(w, path, "read", err);
    if (S_ISDIR(st.st_mode)) return walk_folder(w, path, &st, false, err);
    if (!S_ISREG(st.st_mode)) return BB_OK;
    if (inside_out_dir && bb_pack_name_kind(base_name(path)) != BB_PACK_NAME_OTHER) return BB_OK;
    if (!is_wanted(w->job->options, path)) {
        leave_out(w->job, path);
        return BB_OK;
    }
    char *copy = strdup(path);
    return copy ? add(w, copy, err) : no_memory(err);
}

/* The output folder is skipped if it lies below an input. If it is an input itself, only the files of packs are skipped. */
static bb_status walk_folder(walk *w, const char *path, const struct stat *folder, bool is_input, bb_error *err) {
    file_id id = id_of(folder);
    bool is_out_dir = compare_ids(&id, &w->out_dir) == 0, is_new = false;
    if (is_out_dir && !is_input) return BB_OK;
    BB_TRY(remember(w, folder, &is_new, err));
    if (!is_new) return BB_OK;
    BB_TRY(bb_pack_tick(w->job, err));
    struct dirent **entries = NULL;
    int count = scandir(path, &entries, not_hidden, compare_entries);
    if (count < 0) return skip_errno(w, path, "read the folder", err);
    bb_status status = BB_OK;
    for (int i = 0; i < count; i++) {
        if (status == BB_OK) {
            char *child = bb_file_join(path, entries[i]->d_name);
            status = child ? visit(w, child, is_out_dir, err) : no_memory(err);
            free(child);
        }
        free(entries[i]);
    }
    free(entries);
    return status;
}

static int compare_inputs(const void *a, const void *b) {
    const bb_pack_input *x = a, *y = b;
    return strcmp(x->path, y->path);
}

/* Sorts the entries from `first` on, and removes files that are already in the list. */
static bb_status close_folder(walk *w, int64_t first, bb_error *err) {
    bb_pack_inputs *list = w->out;
    if (list->count > first) qsort(list->items + first, (size_t)(list->count - first), sizeof *list->items, compare_inputs);
    int64_t kept = first, i = first;
    bb_status status = BB_OK;
    for (; i < list->count; i++) {
        struct stat st;
        bool is_new = true; /* a file that has disappeared is reported on opening */
        if (stat(list->items[i].path, &st) == 0) BB_TRY_GOTO(status, done, remember(w, &st, &is_new, err));
        if (is_new) {
            list->items[kept++] = list->items[i];
        } else {
            free(list->items[i].path);
            list->duplicates++;
        }
    }
done:
    for (; i < list->count; i++) list->items[kept++] = list->items[i];
    list->count = kept;
    return status;
}

static bb_status take_input(walk *w, const char *path, bb_error *err) {
    struct stat st;
    bool is_stdin = strcmp(path, "-") == 0;
    if (!is_stdin && stat(path, &st) != 0) return skip_errno(w, path, "read", err);
    int64_t first = w->out->count;
    if (!is_stdin && S_ISDIR(st.st_mode)) {
        BB_TRY(walk_folder(w, path, &st, true, err));
        return close_folder(w, first, err);
    }
    char *copy = strdup(path);
    if (!copy) return no_memory(err);
    BB_TRY(add(w, copy, err));
    return is_stdin ? BB_OK : close_folder(w, first, err);
}

bb_status bb_pack_find_inputs(bb_pack_job *job, bb_pack_inputs *out, bb_error *err) {
    bb_status status = BB_OK;
    struct stat st;
    walk w = {.job = job, .out = out};
    *out = (bb_pack_inputs){0};
    if (stat(job->options->out_dir, &st) == 0) w.out_dir = id_of(&st);
    for (int i = 0; i < job->options->input_count; i++) BB_TRY_GOTO(status, done, take_input(&w, job->options->inputs[i], err));
    report_left_out(job);
done:
    tdestroy(w.seen, free);
    if (status != BB_OK) bb_pack_inputs_free(out);
    return status;
}

void bb_pack_inputs_free(bb_pack_inputs *inputs) {
    for (int64_t i = 0; i < inputs->count; i++) free(inputs->items[i].path);
    free(inputs->items);
    *inputs = (bb_pack_inputs){0};
}
