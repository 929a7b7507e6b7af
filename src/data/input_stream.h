// SPDX-License-Identifier: MIT
/* Reads text from a file, a pipe or standard input from start to end: decompressed, and UTF-16 converted to UTF-8. */
#ifndef BB_DATA_INPUT_STREAM_H
#define BB_DATA_INPUT_STREAM_H

#include "data/decompress.h"

enum { BB_INPUT_STREAM_BYTES = 1 << 18 };

typedef struct bb_input_stream {
    int fd;
    const volatile int *stop;
    uint8_t *input; /* (BB_INPUT_STREAM_BYTES): bytes read from the file */
    size_t input_used, input_size;
    int64_t offset;     /* in the file, of the first byte of `input` */
    int64_t file_bytes; /* size of a regular file when it was opened; else 0 */
    bool ended;         /* the file has been read to its end */
    bool recognized;    /* the content has been recognized by the first bytes */
    bb_decompressor decompressor;
    uint8_t head[BB_CONTENT_HEAD]; /* the first decompressed bytes, until they are used */
    size_t head_used, head_size;
    bb_content text; /* content after decompression */
    uint8_t *utf16;  /* (BB_INPUT_STREAM_BYTES): bytes to be converted; only for UTF-16 */
    size_t utf16_used, utf16_size;
    uint8_t utf8[4]; /* converted bytes, for a reader whose buffer is shorter than a character */
    size_t utf8_used, utf8_size;
} bb_input_stream;

/* path "-": standard input. stop: may be NULL; nonzero ends waiting with BB_ERR_INTERRUPTED. Messages of the next two functions
 * do not name the path. */
bb_status bb_input_stream_open(const char *path, const volatile int *stop, bb_input_stream *out, bb_error *err);
/* Reads at least one byte; *size is 0 at the end. */
bb_status bb_input_stream_read(bb_input_stream *stream, uint8_t *buffer, size_t capacity, size_t *size, bb_error *err);
void bb_input_stream_close(bb_input_stream *stream);

#endif
