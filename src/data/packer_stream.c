// SPDX-License-Identifier: MIT
/* A file's bytes, decompressed when it is gzip (RFC 1952) or zstd (RFC 8878): both may hold several members or frames. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/packer.h"

static bool must_stop(const bb_pack_stream *s) { return s->stop && *s->stop; }

/* A pipe may stay silent for long, and a caller's signal handler may restart reads: so the wait is one that ends. */
static bb_status wait_for_input(const bb_pack_stream *s, bb_error *err) {
    struct pollfd wait = {.fd = s->fd, .events = POLLIN};
    for (;;) {
        if (must_stop(s)) return bb_fail(err, BB_ERR_INTERRUPTED, "stopped");
        int rc = poll(&wait, 1, 100);
        if (rc > 0) return BB_OK; /* an error shows when reading */
        if (rc < 0 && errno != EINTR && errno != EAGAIN)
            return bb_fail(err, BB_ERR_IO, "cannot wait for it: %s", strerror(errno));
    }
}

/* Reads on until `wanted` bytes are there, or the file ends. Only called with room for them. */
static bb_status fill(bb_pack_stream *s, size_t wanted, bb_error *err) {
    if (s->input_used == s->input_size) {
        s->offset += (int64_t)s->input_size;
        s->input_used = s->input_size = 0;
    }
    while (!s->ended && s->input_size - s->input_used < wanted) {
        BB_TRY(wait_for_input(s, err));
        ssize_t n = read(s->fd, s->input + s->input_size, BB_PACK_STREAM_BYTES - s->input_size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return bb_fail(err, BB_ERR_IO, "cannot read: %s", strerror(errno));
        s->ended = n == 0;
        s->input_size += (size_t)n;
        int64_t found = s->offset + (int64_t)s->input_size;
        if (s->ended && found < s->file_bytes)
            return bb_fail(err, BB_ERR_IO, "expected %" PRId64 " bytes, found %" PRId64 ": it shrank while it was read",
                           s->file_bytes, found);
    }
    return BB_OK;
}

static bool has_zstd_magic(const uint8_t m[4]) {
    bool skippable = m[0] >> 4 == 5 && m[1] == 0x2a && m[2] == 0x4d && m[3] == 0x18;
    return skippable || memcmp(m, "\x28\xb5\x2f\xfd", 4) == 0;
}

static bb_status start_decompressor(bb_pack_stream *s, bb_error *err) {
    if (s->input_size >= 3 && memcmp(s->input, "\x1f\x8b\x08", 3) == 0) {
        if (inflateInit2(&s->gzip, 16 + MAX_WBITS) != Z_OK) return bb_fail(err, BB_ERR_MEMORY, "no memory to read gzip");
        s->compression = BB_PACK_GZIP;
    } else if (s->input_size >= 4 && has_zstd_magic(s->input)) {
        s->zstd = ZSTD_createDStream();
        if (!s->zstd || ZSTD_isError(ZSTD_initDStream(s->zstd))) return bb_fail(err, BB_ERR_MEMORY, "no memory to read zstd");
        s->compression = BB_PACK_ZSTD;
    }
    return BB_OK;
}

bb_status bb_pack_stream_open(const char *path, const volatile int *stop, bb_pack_stream *out, bb_error *err) {
    bb_status status = BB_OK;
    *out = (bb_pack_stream){.fd = STDIN_FILENO, .stop = stop};
    if (strcmp(path, "-") != 0) {
        do out->fd = open(path, O_RDONLY | O_CLOEXEC); /* waits for a pipe's writer: only a pipe given by name gets here */
        while (out->fd < 0 && errno == EINTR && !must_stop(out));
    }
    if (out->fd < 0) {
        status = must_stop(out) ? bb_fail(err, BB_ERR_INTERRUPTED, "stopped")
                                : bb_fail(err, BB_ERR_IO, "cannot open: %s", strerror(errno));
        goto failed;
    }
    struct stat st;
    if (fstat(out->fd, &st) == 0 && S_ISREG(st.st_mode) && out->fd != STDIN_FILENO) out->file_bytes = st.st_size;
    out->input = malloc(BB_PACK_STREAM_BYTES);
    if (!out->input) {
        status = bb_fail(err, BB_ERR_MEMORY, "no memory to read it");
        goto failed;
    }
    posix_fadvise(out->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    BB_TRY_GOTO(status, failed, fill(out, 4, err));
    BB_TRY_GOTO(status, failed, start_decompressor(out, err));
    return BB_OK;
failed:
    bb_pack_stream_close(out);
    return status;
}

static int64_t place(const bb_pack_stream *s) { return s->offset + (int64_t)s->input_used; }

static bb_status cut_short(const bb_pack_stream *s, const char *format, bb_error *err) {
    return bb_fail(err, BB_ERR_FORMAT, "%s data ends too early, after %" PRId64 " bytes", format, place(s));
}

static void skip_zero_padding(bb_pack_stream *s) {
    while (s->input_used < s->input_size && s->input[s->input_used] == 0) s->input_used++;
}

/* One step of decompression: *size may be 0 without being the end. */
static bb_status gunzip(bb_pack_stream *s, uint8_t *buffer, size_t capacity, size_t *size, bb_error *err) {
    if (!s->inside) {
        if (s->started) skip_zero_padding(s); /* tapes and some tools fill up with zeros; gzip allows it */
        if (s->input_used == s->input_size) return BB_OK;
        if (s->started) inflateReset(&s->gzip);
        s->inside = s->started = true;
    }
    s->gzip.next_in = s->input + s->input_used;
    s->gzip.avail_in = (uInt)(s->input_size - s->input_used);
    s->gzip.next_out = buffer;
    s->gzip.avail_out = (uInt)capacity;
    int rc = inflate(&s->gzip, Z_NO_FLUSH);
    s->input_used = s->input_size - s->gzip.avail_in;
    *size = capacity - s->gzip.avail_out;
    s->full = s->gzip.avail_out == 0;
    if (rc == Z_MEM_ERROR) return bb_fail(err, BB_ERR_MEMORY, "no memory to read gzip");
    if (rc == Z_STREAM_END) s->inside = s->full = false;
    if (rc == Z_OK || rc == Z_STREAM_END || rc == Z_BUF_ERROR) return BB_OK;
    return bb_fail(err, BB_ERR_FORMAT, "gzip data is damaged at byte %" PRId64 ": %s", place(s),
                   s->gzip.msg ? s->gzip.msg : "not expected there");
}

static bb_status unzstd(bb_pack_stream *s, uint8_t *buffer, size_t capacity, size_t *size, bb_error *err) {
    if (!s->inside && s->input_used == s->input_size) return BB_OK;
    ZSTD_inBuffer in = {s->input, s->input_size, s->input_used};
    ZSTD_outBuffer out = {buffer, capacity, 0};
    size_t rc = ZSTD_decompressStream(s->zstd, &out, &in);
    s->input_used = in.pos;
    *size = out.pos;
    if (ZSTD_isError(rc))
        return bb_fail(err, BB_ERR_FORMAT, "zstd data is damaged near byte %" PRId64 ": %s", place(s), ZSTD_getErrorName(rc));
    s->inside = rc != 0;
    s->full = s->inside && out.pos == capacity;
    return BB_OK;
}

bb_status bb_pack_stream_read(bb_pack_stream *s, uint8_t *buffer, size_t capacity, size_t *size, bb_error *err) {
    for (*size = 0; *size == 0;) {
        if (s->input_used == s->input_size && !s->full) {
            BB_TRY(fill(s, 1, err));
            if (s->input_used == s->input_size) { /* the end */
                if (!s->inside) return BB_OK;
                return cut_short(s, s->compression == BB_PACK_GZIP ? "gzip" : "zstd", err);
            }
        }
        s->full = false;
        if (s->compression == BB_PACK_PLAIN) {
            *size = s->input_size - s->input_used < capacity ? s->input_size - s->input_used : capacity;
            memcpy(buffer, s->input + s->input_used, *size);
            s->input_used += *size;
        } else if (s->compression == BB_PACK_GZIP) {
            BB_TRY(gunzip(s, buffer, capacity, size, err));
        } else {
            BB_TRY(unzstd(s, buffer, capacity, size, err));
        }
        if (must_stop(s)) return bb_fail(err, BB_ERR_INTERRUPTED, "stopped"); /* also when nothing comes out for long */
    }
    return BB_OK;
}

void bb_pack_stream_close(bb_pack_stream *s) {
    if (s->fd > STDERR_FILENO) close(s->fd);
    if (s->compression == BB_PACK_GZIP) inflateEnd(&s->gzip);
    ZSTD_freeDStream(s->zstd);
    free(s->input);
    *s = (bb_pack_stream){.fd = -1};
}
