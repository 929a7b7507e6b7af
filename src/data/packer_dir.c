// SPDX-License-Identifier: MIT
/* The output directory: its lock, and the files of a previous pack. */
#include "data/packer_dir.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"

/* Returns the rest of a shard's name after its number, or NULL. */
static const char *after_shard_number(const char *name, const char *prefix) {
    size_t length = strlen(prefix);
    if (strncmp(name, prefix, length) != 0) return NULL;
    const char *digits = name + length;
    const char *end = digits;
    while (isdigit((unsigned char)*end)) end++;
    return end - digits >= 5 ? end : NULL;
}

bb_pack_name bb_pack_name_kind(const char *name) {
    size_t length = strlen(BB_PACK_MANIFEST);
    if (strncmp(name, BB_PACK_MANIFEST, length) == 0) {
        if (name[length] == '\0') return BB_PACK_NAME_WHOLE;
        return strncmp(name + length, ".tmp.", 5) == 0 ? BB_PACK_NAME_PARTIAL : BB_PACK_NAME_OTHER;
    }
    const char *rest = after_shard_number(name, "shard_");
    if (!rest) rest = after_shard_number(name, "val_");
    if (!rest) return BB_PACK_NAME_OTHER;
    return strcmp(rest, ".bin") == 0        ? BB_PACK_NAME_WHOLE
           : strcmp(rest, ".bin.part") == 0 ? BB_PACK_NAME_PARTIAL
                                            : BB_PACK_NAME_OTHER;
}

static bb_status fail_dir(const char *path, const char *what, bb_error *err) {
    return bb_fail(err, errno == ENOMEM ? BB_ERR_MEMORY : BB_ERR_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

static bb_status remove_file(const char *dir, const char *name, bb_error *err) {
    char *path = bb_file_join(dir, name);
    if (!path) return fail_dir(dir, "make a name", err);
    bb_status status = unlink(path) == 0 || errno == ENOENT ? BB_OK : fail_dir(path, "remove", err);
    free(path);
    return status;
}

/* Calls visit for every name of this kind until one fails. Lists the names first, because removing files while reading a
 * directory may skip some. */
static bb_status each_name(const char *dir, bb_pack_name kind,
                           bb_status (*visit)(const char *dir, const char *name, bb_error *err), bb_error *err) {
    struct dirent **entries = NULL;
    int count = scandir(dir, &entries, NULL, alphasort);
    if (count < 0) return fail_dir(dir, "read the directory", err);
    bb_status status = BB_OK;
    for (int i = 0; i < count; i++) {
        if (status == BB_OK && bb_pack_name_kind(entries[i]->d_name) == kind) status = visit(dir, entries[i]->d_name, err);
        free(entries[i]);
    }
    free(entries);
    return status;
}

static bb_status refuse_whole(const char *dir, const char *name, bb_error *err) {
    return bb_fail(err, BB_ERR_ARGUMENT, "%s: already holds a pack (%s); choose another directory, or overwrite it", dir, name);
}

static bb_status open_locked(bb_pack_dir *dir, bool overwrite, bb_error *err) {
    dir->lock = open(dir->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir->lock < 0) return fail_dir(dir->path, "open", err);
    /* Some network file systems cannot lock directories. Then it continues: the lock only guards against a second pack at the
     * same time. */
    if (flock(dir->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return bb_fail(err, BB_ERR_IO, "%s: another pack is writing there", dir->path);
    if (!overwrite) BB_TRY(each_name(dir->path, BB_PACK_NAME_WHOLE, refuse_whole, err));
    return each_name(dir->path, BB_PACK_NAME_PARTIAL, remove_file, err); /* no other pack is running, so these are left over */
}

bb_status bb_pack_dir_open(const char *path, bool overwrite, bb_pack_dir *out, bb_error *err) {
    struct stat st;
    *out = (bb_pack_dir){.path = path, .lock = -1, .created = stat(path, &st) != 0};
    BB_TRY(bb_file_make_dirs(path, err));
    bb_status status = open_locked(out, overwrite, err);
    if (status != BB_OK) bb_pack_dir_close(out, false);
    return status;
}

bb_status bb_pack_dir_clear(const bb_pack_dir *dir, bb_error *err) {
    BB_TRY(remove_file(dir->path, BB_PACK_MANIFEST, err));
    return each_name(dir->path, BB_PACK_NAME_WHOLE, remove_file, err);
}

void bb_pack_dir_close(bb_pack_dir *dir, bool keep) {
    if (dir->created && !keep) rmdir(dir->path);
    if (dir->lock >= 0) close(dir->lock);
    *dir = (bb_pack_dir){.lock = -1};
}
