// SPDX-License-Identifier: MIT
/* Three layers: the descriptor, the decompression, and the text encoding. */
#include "data/input_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/math.h"

static bool must_stop(const bb_input_stream *s) { return s->stop && *s->stop; }

static bb_status stopped(bb_error *err) { return bb_fail(err, BB_ERR_INTERRUPTED, "stopped"); }

/* ---- The descriptor --------------------------------------------------------------------------------------------------- */

/* A pipe may stay silent for a long time, and a signal may not interrupt read(). So it polls with a timeout and checks for a
 * stop request. */
static bb_status wait_for_input(const bb_input_stream *s, bb_error *err) {
    struct pollfd wait = {.fd = s->fd, .events = POLLIN};
    for (;;) {
        if (must_stop(s)) return stopped(err);
        int rc = poll(&wait, 1, 100);
        if (rc > 0) return BB_OK; /* read() reports errors */
        if (rc < 0 && errno != EINTR && errno != EAGAIN)
            return bb_fail(err, BB_ERR_IO, "cannot wait for it: %s", strerror(errno));
    }
}

/* Reads until `wanted` bytes are buffered or the file ends. The buffer must be large enough. */
static bb_status fill(bb_input_stream *s, size_t wanted, bb_error *err) {
    if (s->input_used == s->input_size) {
        s->offset += (int64_t)s->input_size;
        s->input_used = s->input_size = 0;
    }
    while (!s->ended && s->input_size - s->input_used < wanted) {
        BB_TRY(wait_for_input(s, err));
        ssize_t n = read(s->fd, s->input + s->input_size, BB_INPUT_STREAM_BYTES - s->input_size);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (n < 0) return bb_fail(err, BB_ERR_IO, "cannot read: %s", strerror(errno));
        s->ended = n == 0;
        s->input_size += (size_t)n;
        int64_t found = s->offset + (int64_t)s->input_size;
        if (s->ended && found < s->file_bytes)
            return bb_fail(err, BB_ERR_IO, "expected %" PRId64 " bytes, found %" PRId64 ": the file shrank while it was read",
                           s->file_bytes, found);
    }
    return BB_OK;
}

/* Returns the N of /dev/fd/N or an equivalent name, or -1. */
static int named_descriptor(const char *path) {
    static const char *const folders[] = {"/dev/fd/", "/proc/self/fd/"};
    if (strcmp(path, "/dev/stdin") == 0) return STDIN_FILENO;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        size_t length = strlen(folders[i]);
        if (strncmp(path, folders[i], length) == 0 && path[length] >= '0' && path[length] <= '9') return atoi(path + length);
    }
    return -1;
}

static int open_path(const bb_input_stream *s, const char *path) {
    int fd;
    do fd = open(path, O_RDONLY | O_CLOEXEC); /* blocks until a pipe has a writer */
    while (fd < 0 && errno == EINTR && !must_stop(s));
    /* A socket cannot be opened by its name. Some programs pass one as standard input. */
    if (fd < 0 && errno == ENXIO && named_descriptor(path) >= 0) fd = fcntl(named_descriptor(path), F_DUPFD_CLOEXEC, 3);
    return fd;
}

bb_status bb_input_stream_open(const char *path, const volatile int *stop, bb_input_stream *out, bb_error *err) {
    *out = (bb_input_stream){.fd = STDIN_FILENO, .stop = stop};
    if (strcmp(path, "-") != 0) out->fd = open_path(out, path);
    if (out->fd < 0) return must_stop(out) ? stopped(err) : bb_fail(err, BB_ERR_IO, "cannot open: %s", strerror(errno));
    struct stat st;
    if (fstat(out->fd, &st) == 0 && S_ISREG(st.st_mode) && out->fd != STDIN_FILENO) out->file_bytes = st.st_size;
    posix_fadvise(out->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    out->input = malloc(BB_INPUT_STREAM_BYTES);
    if (out->input) return BB_OK;
    bb_input_stream_close(out);
    return bb_fail(err, BB_ERR_MEMORY, "no memory to read it");
}

/* ---- Decompression ---------------------------------------------------------------------------------------------------- */

static bool is_compressed(const bb_input_stream *s) { return s->decompressor.content.kind != BB_CONTENT_PLAIN; }

static bb_status decompress(bb_input_stream *s, uint8_t *buffer, size_t capacity, size_t *size, bb_error *err) {
    bb_decompress_step step = {s->input + s->input_used, s->input_size - s->input_used, buffer, capacity};
    bb_status status = bb_decompress(&s->decompressor, &step, err);
    s->input_used = s->input_size - step.in_size;
    *size = capacity - step.out_size;
    if (status == BB_ERR_FORMAT) return bb_fail_prefix(err, status, "at byte %" PRId64, s->offset + (int64_t)s->input_used);
    return status;
}

/* Reads the next decompressed bytes: at least one, or 0 at the end. */
static bb_status read_bytes(bb_input_stream *s, uint8_t *buffer, size_t capacity, size_t *size, bb_error *err) {
    for (*size = 0; *size == 0;) {
        if (s->input_used == s->input_size && !s->decompressor.full) {
            BB_TRY(fill(s, 1, err));
            if (s->input_used == s->input_size) /* end of the file */
                return is_compressed(s) ? bb_decompress_end(&s->decompressor, err) : BB_OK;
        }
        if (is_compressed(s)) {
            BB_TRY(decompress(s, buffer, capacity, size, err));
        } else {
            *size = (size_t)bb_min((int64_t)(s->input_size - s->input_used), (int64_t)capacity);
            memcpy(buffer, s->input + s->input_used, *size);
            s->input_used += *size;
        }
        if (must_stop(s)) return stopped(err); /* check here, too: there may be no output for a long time */
    }
    return BB_OK;
}

/* ---- The text --------------------------------------------------------------------------------------------------------- */

static bb_status recognize(bb_input_stream *s, bb_error *err) {
    BB_TRY(fill(s, BB_CONTENT_HEAD, err));
    bb_content content = bb_content_recognize(s->input, s->input_size);
    if (content.kind >= BB_CONTENT_GZIP && content.kind <= BB_CONTENT_BZIP2)
        BB_TRY(bb_decompress_open(content, &s->decompressor, err));
    for (size_t n = 1; n > 0 && s->head_size < sizeof s->head; s->head_size += n)
        BB_TRY(read_bytes(s, s->head + s->head_size, sizeof s->head - s->head_size, &n, err));
    s->text = bb_content_recognize(s->head, s->head_size);
    s->recognized = true;
    if (s->text.kind == BB_CONTENT_REFUSED) return bb_fail(err, BB_ERR_FORMAT, "it is %s: %s", s->text.name, s->text.advice);
    if (s->text.kind != BB_CONTENT_UTF16_LE && s->text.kind != BB_CONTENT_UTF16_BE) return BB_OK;
    s->utf16 = malloc(BB_INPUT_STREAM_BYTES);
    if (!s->utf16) return bb_fail(err, BB_ERR_MEMORY, "no memory to convert it");
    s->head_used = 2; /* the byte order mark */
    return BB_OK;
}

static bb_status read_head_or_bytes(bb_input_stream *s, uint8_t *buffer, size_t capacity, size_t *size, bb_error *err) {
    if (s->head_used == s->head_size) return read_bytes(s, buffer, capacity, size, err);
    *size = (size_t)bb_min((int64_t)(s->head_size - s->head_used), (int64_t)capacity);
    memcpy(buffer, s->head + s->head_used, *size);
    s->head_used += *size;
    return BB_OK;
}

static size_t put_utf8(unsigned c, uint8_t *out) {
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    size_t size = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t first[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = size - 1; i > 0; i--, c >>= 6) out[i] = (uint8_t)(0x80 | (c & 0x3f));
    out[0] = (uint8_t)(first[size] | c);
    return size;
}

static unsigned utf16_unit(const bb_input_stream *s, size_t at) {
    const uint8_t *p = s->utf16 + at;
    return s->text.kind == BB_CONTENT_UTF16_LE ? p[0] | (unsigned)p[1] << 8 : p[1] | (unsigned)p[0] << 8;
}

/* Converts the available bytes, as far as the buffer has room. A lone surrogate becomes U+FFFD once it is certain that its
 * other half does not follow. */
static size_t convert(bb_input_stream *s, bool at_end, uint8_t *buffer, size_t capacity) {
    size_t size = 0;
    while (s->utf16_size - s->utf16_used >= 2 && capacity - size >= 4) {
        unsigned c = utf16_unit(s, s->utf16_used);
        size_t taken = 2;
        if (c >= 0xd800 && c < 0xdc00) {
            bool has_next = s->utf16_size - s->utf16_used >= 4;
            if (!has_next && !at_end) break;
            unsigned low = has_next ? utf16_unit(s, s->utf16_used + 2) : 0;
            bool paired = low >= 0xdc00 && low < 0xe000;
            c = paired ? 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00) : 0xfffd;
            if (paired) taken = 4;
        } else if (c >= 0xdc00 && c < 0xe000) {
            c = 0xfffd;
        }
        size += put_utf8(c, buffer + size);
        s->utf16_used += taken;
    }
    return size;
}

/* capacity must be at least 4. */
static bb_status convert_more(bb_input_stream *s, uint8_t *buffer, size_t capacity, size_t *size, bb_error *err) {
    bool at_end = false;
    for (;;) {
        *size = convert(s, at_end, buffer, capacity);
        if (*size > 0) return BB_OK;
        size_t left = s->utf16_size - s->utf16_used, n;
        if (at_end && left > 0) return bb_fail(err, BB_ERR_FORMAT, "UTF-16 text ends in the middle of a character");
        if (at_end) return BB_OK;
        memmove(s->utf16, s->utf16 + s->utf16_used, left);
        s->utf16_used = 0;
        BB_TRY(read_head_or_bytes(s, s->utf16 + left, BB_INPUT_STREAM_BYTES - left, &n, err));
        s->utf16_size = left + n;
        at_end = n == 0;
    }
}

static bb_status read_utf16(bb_input_stream *s, uint8_t *buffer, size_t capacity, size_t *size, bb_error *err) {
    if (s->utf8_used == s->utf8_size) {
        if (capacity >= sizeof s->utf8) return convert_more(s, buffer, capacity, size, err);
        s->utf8_used = 0;
        BB_TRY(convert_more(s, s->utf8, sizeof s->utf8, &s->utf8_size, err));
    }
    *size = (size_t)bb_min((int64_t)(s->utf8_size - s->utf8_used), (int64_t)capacity);
    memcpy(buffer, s->utf8 + s->utf8_used, *size);
    s->utf8_used += *size;
    return BB_OK;
}

bb_status bb_input_stream_read(bb_input_stream *s, uint8_t *buffer, size_t capacity, size_t *size, bb_error *err) {
    *size = 0;
    if (!s->recognized) BB_TRY(recognize(s, err));
    return s->utf16 ? read_utf16(s, buffer, capacity, size, err) : read_head_or_bytes(s, buffer, capacity, size, err);
}

void bb_input_stream_close(bb_input_stream *s) {
    if (s->fd > STDERR_FILENO) close(s->fd);
    if (is_compressed(s)) bb_decompress_close(&s->decompressor);
    free(s->input);
    free(s->utf16);
    *s = (bb_input_stream){.fd = -1};
}

/* ---- All of it -------------------------------------------------------------------------------------------------------- */

static bb_status read_all(bb_input_stream *s, char **text, size_t *size, bb_error *err) {
    size_t capacity = 0, n = 1;
    for (*size = 0; n > 0; *size += n) {
        if (capacity - *size < 2) { /* one byte is reserved for the NUL */
            size_t larger = capacity ? capacity * 2 : 1 << 16;
            char *moved = larger > capacity ? realloc(*text, larger) : NULL;
            if (!moved) return bb_fail(err, BB_ERR_MEMORY, "no memory for %zu bytes", larger);
            *text = moved;
            capacity = larger;
        }
        BB_TRY(bb_input_stream_read(s, (uint8_t *)*text + *size, capacity - *size - 1, &n, err));
    }
    (*text)[*size] = '\0';
    return BB_OK;
}

bb_status bb_read_text(const char *path, const volatile int *stop, char **text, size_t *size, bb_error *err) {
    BB_REQUIRE("path, text, size", path, text, size);
    bb_input_stream stream;
    *text = NULL;
    bb_status status = bb_input_stream_open(path, stop, &stream, err);
    if (status == BB_OK) {
        status = read_all(&stream, text, size, err);
        bb_input_stream_close(&stream);
    }
    if (status == BB_OK) return BB_OK;
    free(*text);
    *text = NULL;
    *size = 0;
    return bb_fail_prefix(err, status, "%s", strcmp(path, "-") == 0 ? "standard input" : path);
}

/* ---- Pieces ----------------------------------------------------------------------------------------------------------- */

struct bb_text_reader {
    bb_input_stream stream;
    char *name;
};

static bb_status name_it(const bb_text_reader *r, bb_status status, bb_error *err) {
    return status == BB_OK ? status : bb_fail_prefix(err, status, "%s", r->name);
}

bb_status bb_text_reader_open(const char *path, const volatile int *stop, bb_text_reader **out, bb_error *err) {
    BB_REQUIRE("out", out);
    *out = NULL;
    BB_REQUIRE("path", path);
    bb_text_reader *r = calloc(1, sizeof *r);
    if (r) r->name = strdup(strcmp(path, "-") == 0 ? "standard input" : path);
    if (!r || !r->name) {
        free(r);
        return bb_fail(err, BB_ERR_MEMORY, "out of memory for a reader");
    }
    bb_status status = bb_input_stream_open(path, stop, &r->stream, err);
    if (status == BB_OK) {
        *out = r;
        return BB_OK;
    }
    status = name_it(r, status, err);
    free(r->name);
    free(r);
    return status;
}

bb_status bb_text_reader_read(bb_text_reader *r, char *buffer, size_t capacity, size_t *size, bb_error *err) {
    BB_REQUIRE("reader, buffer, size", r, buffer, size);
    if (capacity == 0) return bb_fail(err, BB_ERR_ARGUMENT, "capacity is 0");
    return name_it(r, bb_input_stream_read(&r->stream, (uint8_t *)buffer, capacity, size, err), err);
}

void bb_text_reader_close(bb_text_reader *r) {
    if (!r) return;
    bb_input_stream_close(&r->stream);
    free(r->name);
    free(r);
}
