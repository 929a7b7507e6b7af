// SPDX-License-Identifier: MIT
/* The text of a file, a pipe or standard input from start to end: decompressed, UTF-16 turned into UTF-8, whatever its name. */
#ifndef BB_DATA_INPUT_STREAM_H
#define BB_DATA_INPUT_STREAM_H

#include "data/decompress.h"

enum { BB_INPUT_STREAM_BYTES = 1 << 18 };

typedef struct bb_input_stream {
    int fd;
    const volatile int *stop;
    uint8_t *input; /* (BB_INPUT_STREAM_BYTES): as read from the file */
    size_t input_used, input_size;
    int64_t offset;     /* in the file, of the first byte of `input` */
    int64_t file_bytes; /* of a regular file, when it was opened; else 0 */
    bool ended;         /* the file is read to its end */
    bool recognized;    /* the first read has looked at the first bytes */
    bb_decompressor decompressor;
    uint8_t head[BB_CONTENT_HEAD]; /* the first decompressed bytes, until they are taken */
    size_t head_used, head_size;
    bb_content text; /* of what was decompressed */
    uint8_t *utf16;  /* (BB_INPUT_STREAM_BYTES), where text is UTF-16: what is not yet converted */
    size_t utf16_used, utf16_size;
    uint8_t utf8[4]; /* converted, for a reader with room for less than a character */
    size_t utf8_used, utf8_size;
} bb_input_stream;

/* path "-": standard input. stop: may be NULL; non-zero makes a wait end with BB_ERR_INTERRUPTED. Messages of these two lack the
 * path. */
bb_status bb_input_stream_open(const char *path, const volatile int *stop, bb_input_stream *out, bb_error *err);
/* At least one byte, or *size 0 at the end. */
bb_status bb_input_stream_read(bb_input_stream *stream, uint8_t *buffer, size_t capacity, size_t *size, bb_error *err);
void bb_input_stream_close(bb_input_stream *stream);

#endif
