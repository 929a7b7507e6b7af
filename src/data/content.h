// SPDX-License-Identifier: MIT
/* Recognizes the content of a file by its first bytes, never by its name. */
#ifndef BB_DATA_CONTENT_H
#define BB_DATA_CONTENT_H

#include "core/status.h"

typedef enum bb_content_kind {
    BB_CONTENT_PLAIN, /* plain bytes */
    BB_CONTENT_GZIP,
    BB_CONTENT_ZSTD,
    BB_CONTENT_XZ,
    BB_CONTENT_BZIP2,
    BB_CONTENT_UTF16_LE, /* text that begins with a byte order mark */
    BB_CONTENT_UTF16_BE,
    BB_CONTENT_REFUSED /* not text: a model, an archive, or an unsupported compression */
} bb_content_kind;

typedef struct bb_content {
    bb_content_kind kind;
    const char *name;   /* "gzip data", "a GGUF model" */
    const char *advice; /* BB_CONTENT_REFUSED: what to do instead */
} bb_content;

enum { BB_CONTENT_HEAD = 512 }; /* number of bytes examined */

/* head: the first `size` bytes, which are BB_CONTENT_HEAD bytes or the whole file. */
bb_content bb_content_recognize(const uint8_t *head, size_t size);

#endif
