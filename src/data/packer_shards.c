// SPDX-License-Identifier: MIT
/* The stream of packed bytes, cut into shards. Until they are published, shards have names that no reader looks for. */
#include "data/packer_shards.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"

enum { BUFFER_BYTES = 1 << 20, MAX_SHARDS = 100000 }; /* five digits, so that names sort numerically */

void bb_pack_shard_name(char *name, size_t size, const char *prefix, int index) {
    snprintf(name, size, "%s_%05d.bin", prefix, index);
}

static char *shard_path(const bb_pack_writer *w, int index, bool whole) {
    char name[48];
    bb_pack_shard_name(name, sizeof name - 5, w->prefix, index);
    if (!whole) strcat(name, ".part");
    return bb_file_join(w->dir, name);
}

static bb_status fail_shard(const bb_pack_writer *w, int index, const char *what, int error, bb_error *err) {
    char name[48];
    bb_pack_shard_name(name, sizeof name, w->prefix, index);
    return bb_fail(err, error == ENOMEM ? BB_ERR_MEMORY : BB_ERR_IO, "%s/%s: cannot %s: %s", w->dir, name, what,
                   strerror(error));
}

bb_status bb_pack_writer_open(const char *dir, const char *prefix, int64_t shard_bytes, bb_pack_writer *out, bb_error *err) {
    *out = (bb_pack_writer){.dir = dir, .prefix = prefix, .shard_bytes = shard_bytes, .fd = -1};
    out->buffer = malloc(BUFFER_BYTES);
    out->hash = XXH3_createState();
    if (out->buffer && out->hash) {
        XXH3_64bits_reset(out->hash);
        return BB_OK;
    }
    bb_pack_writer_close(out, false);
    return bb_fail(err, BB_ERR_MEMORY, "no memory to write shards");
}

/* ---- Writing ---------------------------------------------------------------------------------------------------------- */

static bb_status flush(bb_pack_writer *w, bb_error *err) {
    for (size_t done = 0; done < w->buffered;) {
        ssize_t n = write(w->fd, w->buffer + done, w->buffered - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return fail_shard(w, w->count - 1, "write", n < 0 ? errno : ENOSPC, err);
        done += (size_t)n;
    }
    w->buffered = 0;
    return BB_OK;
}

static int open_part(const bb_pack_writer *w, int index, int flags) {
    char *path = shard_path(w, index, false);
    int fd = path ? open(path, flags | O_CLOEXEC, 0666) : -1;
    free(path);
    return fd;
}

static int sync_file(int fd) {
    int rc;
    do rc = fsync(fd);
    while (rc != 0 && errno == EINTR);
    return rc;
}

static bb_status close_shard(bb_pack_writer *w, bb_error *err) {
    if (w->fd < 0) return BB_OK;
    BB_TRY(flush(w, err));
    int rc = sync_file(w->fd), error = errno;
    close(w->fd);
    w->fd = -1;
    if (rc != 0) return fail_shard(w, w->count - 1, "flush to disk", error, err);
    w->shards[w->count - 1].xxh3 = XXH3_64bits_digest(w->hash);
    return BB_OK;
}

static bb_status next_shard(bb_pack_writer *w, bb_error *err) {
    BB_TRY(close_shard(w, err));
    if (w->count == MAX_SHARDS)
        return bb_fail(err, BB_ERR_ARGUMENT,
                       "shard_size_gb: the data fills more than %d shards of %" PRId64 " bytes; make them larger", MAX_SHARDS,
                       w->shard_bytes);
    if (w->count == w->capacity) {
        int capacity = w->capacity ? w->capacity * 2 : 16;
        bb_pack_shard *shards = realloc(w->shards, (size_t)capacity * sizeof *shards);
        if (!shards) return bb_fail(err, BB_ERR_MEMORY, "no memory for the list of shards");
        w->shards = shards;
        w->capacity = capacity;
    }
    w->fd = open_part(w, w->count, O_WRONLY | O_CREAT | O_TRUNC);
    if (w->fd < 0) return fail_shard(w, w->count, "create", errno, err);
    w->shards[w->count++] = (bb_pack_shard){0};
    XXH3_64bits_reset(w->hash);
    return BB_OK;
}

bb_status bb_pack_writer_write(bb_pack_writer *w, const void *data, size_t size, bb_error *err) {
    const uint8_t *next = data;
    while (size > 0) {
        if (w->fd < 0 || w->shards[w->count - 1].bytes == w->shard_bytes) BB_TRY(next_shard(w, err));
        bb_pack_shard *shard = &w->shards[w->count - 1];
        size_t n = BUFFER_BYTES - w->buffered < size ? BUFFER_BYTES - w->buffered : size;
        if ((int64_t)n > w->shard_bytes - shard->bytes) n = (size_t)(w->shard_bytes - shard->bytes);
        memcpy(w->buffer + w->buffered, next, n);
        XXH3_64bits_update(w->hash, next, n);
        w->buffered += n;
        shard->bytes += (int64_t)n;
        w->total += (int64_t)n;
        next += n;
        size -= n;
        if (w->buffered == BUFFER_BYTES) BB_TRY(flush(w, err));
    }
    return BB_OK;
}

bb_status bb_pack_writer_finish(bb_pack_writer *w, bb_error *err) { return close_shard(w, err); }

/* ---- Going back ------------------------------------------------------------------------------------------------------- */

bb_status bb_pack_mark_open(bb_pack_mark *mark, bb_error *err) {
    *mark = (bb_pack_mark){.hash = XXH3_createState()};
    return mark->hash ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "no memory to write shards");
}

void bb_pack_mark_set(bb_pack_mark *mark, const bb_pack_writer *w) {
    mark->total = w->total;
    mark->count = w->count;
    mark->shard_bytes = w->count > 0 ? w->shards[w->count - 1].bytes : 0;
    XXH3_copyState(mark->hash, w->hash);
}

void bb_pack_mark_close(bb_pack_mark *mark) {
    XXH3_freeState(mark->hash);
    *mark = (bb_pack_mark){0};
}

/* Removes shards from `count` on. Nothing may be open or buffered. */
static void drop_shards(bb_pack_writer *w, int count) {
    if (w->fd >= 0) close(w->fd);
    w->fd = -1;
    w->buffered = 0;
    for (; w->count > count; w->count--) {
        char *path = shard_path(w, w->count - 1, w->count <= w->published);
        if (path) unlink(path);
        free(path);
    }
}

bb_status bb_pack_writer_rewind(bb_pack_writer *w, const bb_pack_mark *mark, bb_error *err) {
    if (w->total == mark->total) return BB_OK;
    int64_t unwanted = w->total - mark->total;
    if (w->count == mark->count && unwanted <= (int64_t)w->buffered) {
        w->buffered -= (size_t)unwanted;
    } else {
        drop_shards(w, mark->count);
        if (mark->count > 0) {
            w->fd = open_part(w, mark->count - 1, O_WRONLY);
            if (w->fd < 0) return fail_shard(w, mark->count - 1, "open again", errno, err);
            if (ftruncate(w->fd, mark->shard_bytes) != 0 || lseek(w->fd, 0, SEEK_END) < 0)
                return fail_shard(w, mark->count - 1, "shorten", errno, err);
        }
    }
    if (mark->count > 0) w->shards[mark->count - 1].bytes = mark->shard_bytes;
    w->total = mark->total;
    XXH3_copyState(w->hash, mark->hash);
    return BB_OK;
}

/* ---- Splitting -------------------------------------------------------------------------------------------------------- */

/* Copies fd, from its current offset to its end, to `to`; if `to` is NULL, only updates the hash. */
static bb_status read_on(bb_pack_writer *from, int index, int fd, bb_pack_writer *to, bb_pack_job *job, bb_error *err) {
    for (;;) {
        ssize_t n = read(fd, from->buffer, BUFFER_BYTES);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_shard(from, index, "read back", errno, err);
        if (n == 0) return BB_OK;
        if (to)
            BB_TRY(bb_pack_writer_write(to, from->buffer, (size_t)n, err));
        else
            XXH3_64bits_update(from->hash, from->buffer, (size_t)n);
        BB_TRY(bb_pack_tick(job, err));
    }
}

/* Moves the bytes of shard `index` after the first `keep`. A shard that is moved completely is removed later by drop_shards. */
static bb_status move_end_of_shard(bb_pack_writer *from, int index, int64_t keep, bb_pack_writer *to, bb_pack_job *job,
                                   bb_error *err) {
    bb_status status = BB_OK;
    int fd = open_part(from, index, O_RDWR);
    if (fd < 0 || lseek(fd, keep, SEEK_SET) < 0) {
        status = fail_shard(from, index, "open again", errno, err);
        goto done;
    }
    BB_TRY_GOTO(status, done, read_on(from, index, fd, to, job, err));
    if (ftruncate(fd, keep) != 0) status = fail_shard(from, index, "shorten", errno, err);
    if (status != BB_OK || keep == 0) goto done;
    from->shards[index].bytes = keep;
    XXH3_64bits_reset(from->hash);
    if (lseek(fd, 0, SEEK_SET) < 0 || sync_file(fd) != 0) {
        status = fail_shard(from, index, "flush to disk", errno, err);
        goto done;
    }
    BB_TRY_GOTO(status, done, read_on(from, index, fd, NULL, job, err));
    from->shards[index].xxh3 = XXH3_64bits_digest(from->hash);
done:
    if (fd >= 0) close(fd);
    return status;
}

/* The length of the stream is known only after everything has been read, so the bytes of `to` are first written to `from`. The
 * alternative, decompressing and parsing everything twice, costs more unless nearly all bytes go to `to`. Each shard is emptied
 * as it is moved, so the disk never holds more than one shard twice. */
bb_status bb_pack_writer_move_tail(bb_pack_writer *from, int64_t bytes, bb_pack_writer *to, bb_pack_job *job, bb_error *err) {
    int64_t kept = from->total - bytes;
    if (bytes == 0) return BB_OK;
    int first = (int)(kept / from->shard_bytes);
    for (int i = first; i < from->count; i++)
        BB_TRY(move_end_of_shard(from, i, i == first ? kept % from->shard_bytes : 0, to, job, err));
    drop_shards(from, kept % from->shard_bytes > 0 ? first + 1 : first);
    from->total = kept;
    return bb_pack_writer_finish(to, err);
}

/* ---- The end ---------------------------------------------------------------------------------------------------------- */

bb_status bb_pack_writer_publish(bb_pack_writer *w, bb_error *err) {
    for (; w->published < w->count; w->published++) {
        char *part = shard_path(w, w->published, false), *whole = shard_path(w, w->published, true);
        int rc = part && whole ? rename(part, whole) : -1, error = part && whole ? errno : ENOMEM;
        free(part);
        free(whole);
        if (rc != 0) return fail_shard(w, w->published, "give it its name", error, err);
    }
    return BB_OK;
}

void bb_pack_writer_close(bb_pack_writer *w, bool keep) {
    if (!keep) drop_shards(w, 0);
    free(w->shards);
    free(w->buffer);
    XXH3_freeState(w->hash);
    *w = (bb_pack_writer){.fd = -1};
}
