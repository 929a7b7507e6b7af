// SPDX-License-Identifier: MIT
/* What a file holds, by its first bytes and never by its name. */
#ifndef BB_DATA_CONTENT_H
#define BB_DATA_CONTENT_H

#include "core/status.h"

typedef enum bb_content_kind {
    BB_CONTENT_PLAIN, /* bytes to be taken as they are */
    BB_CONTENT_GZIP,
    BB_CONTENT_ZSTD,
    BB_CONTENT_XZ,
    BB_CONTENT_BZIP2,
    BB_CONTENT_UTF16_LE, /* text with a byte order mark */
    BB_CONTENT_UTF16_BE,
    BB_CONTENT_REFUSED /* no text: a model, an archive, a compression that no library here reads */
} bb_content_kind;

typedef struct bb_content {
    bb_content_kind kind;
    const char *name;   /* "gzip data", "a GGUF model" */
    const char *advice; /* BB_CONTENT_REFUSED: what to do instead */
} bb_content;

enum { BB_CONTENT_HEAD = 512 }; /* bytes that are looked at */

/* head: the first `size` bytes, BB_CONTENT_HEAD of them or all that there are. */
bb_content bb_content_recognize(const uint8_t *head, size_t size);

#endif
