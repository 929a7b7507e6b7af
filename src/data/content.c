// SPDX-License-Identifier: MIT
/* Recognizes the content of a file. Text must never be mistaken for another format, so short or printable signatures are
 * verified further. */
#include "data/content.h"

#include <string.h>

typedef struct mark {
    bb_content content;
    const char *bytes;
    size_t size;
} mark;

#define MARK(bytes) (bytes), sizeof(bytes) - 1

static const mark marks[] = {
    {{BB_CONTENT_GZIP, "gzip data", NULL}, MARK("\x1f\x8b\x08")},
    {{BB_CONTENT_ZSTD, "zstd data", NULL}, MARK("\x28\xb5\x2f\xfd")},
    {{BB_CONTENT_XZ, "xz data", NULL},
     MARK("\xfd"
          "7zXZ\0")},
    {{BB_CONTENT_REFUSED, "a zip archive", "unpack it first"}, MARK("PK\x03\x04")},
    {{BB_CONTENT_REFUSED, "a 7z archive", "unpack it first"}, MARK("7z\xbc\xaf\x27\x1c")},
    {{BB_CONTENT_REFUSED, "a rar archive", "unpack it first"}, MARK("Rar!\x1a\x07")},
    {{BB_CONTENT_REFUSED, "lz4 data", "decompress it first (lz4 -d)"}, MARK("\x04\x22\x4d\x18")},
    {{BB_CONTENT_REFUSED, "a Parquet table", "write its text as JSON lines first"}, MARK("PAR1\x15")},
    {{BB_CONTENT_REFUSED, "UTF-32 text", "convert it first (iconv -f UTF-32 -t UTF-8)"}, MARK("\xff\xfe\0\0")},
    {{BB_CONTENT_REFUSED, "UTF-32 text", "convert it first (iconv -f UTF-32 -t UTF-8)"}, MARK("\0\0\xfe\xff")},
};

static bool is_skippable_zstd_frame(const uint8_t *head, size_t size) {
    return size >= 4 && head[0] >> 4 == 5 && memcmp(head + 1, "\x2a\x4d\x18", 3) == 0;
}

/* "BZh1" to "BZh9", then the signature of a block or of the end. */
static bool is_bzip2(const uint8_t *head, size_t size) {
    return size >= 10 && memcmp(head, "BZh", 3) == 0 && head[3] >= '1' && head[3] <= '9' &&
           (memcmp(head + 4, "1AY&SY", 6) == 0 || memcmp(head + 4, "\x17\x72\x45\x38\x50\x90", 6) == 0);
}

/* An 8-byte header length of at most 100 MB, followed by a JSON object. */
static bool is_safetensors(const uint8_t *head, size_t size) {
    return size >= 10 && memcmp(head + 4, "\0\0\0\0", 4) == 0 && head[3] < 8 && head[8] == '{' &&
           (head[9] == '"' || head[9] == '}' || head[9] == ' ');
}

/* A version from 1 to 255 in either byte order. */
static bool is_gguf(const uint8_t *head, size_t size) {
    return size >= 8 && memcmp(head, "GGUF", 4) == 0 &&
           (memcmp(head + 5, "\0\0\0", 3) == 0 || memcmp(head + 4, "\0\0\0", 3) == 0);
}

static bool is_tar(const uint8_t *head, size_t size) { return size >= 265 && memcmp(head + 257, "ustar", 5) == 0; }

/* Two bytes prove little, but other data that begins with them soon turns out to be invalid UTF-16. */
static bool is_utf16(const uint8_t *head, size_t size, bool little) {
    if (size < 2 || head[0] != (little ? 0xff : 0xfe) || head[1] != (little ? 0xfe : 0xff)) return false;
    bool high = false; /* the previous unit was a high surrogate */
    for (size_t i = 2; i + 1 < size; i += 2) {
        unsigned unit = little ? head[i] | (unsigned)head[i + 1] << 8 : head[i + 1] | (unsigned)head[i] << 8;
        bool low = unit >= 0xdc00 && unit < 0xe000;
        if (low != high || unit == 0 || unit >= 0xfffe) return false;
        high = unit >= 0xd800 && unit < 0xdc00;
    }
    return true;
}

bb_content bb_content_recognize(const uint8_t *head, size_t size) {
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (size >= marks[i].size && memcmp(head, marks[i].bytes, marks[i].size) == 0) return marks[i].content;
    if (is_skippable_zstd_frame(head, size)) return (bb_content){BB_CONTENT_ZSTD, "zstd data", NULL};
    if (is_bzip2(head, size)) return (bb_content){BB_CONTENT_BZIP2, "bzip2 data", NULL};
    if (is_safetensors(head, size)) return (bb_content){BB_CONTENT_REFUSED, "a safetensors file", "this is a model, not text"};
    if (is_gguf(head, size)) return (bb_content){BB_CONTENT_REFUSED, "a GGUF file", "this is a model, not text"};
    if (is_tar(head, size)) return (bb_content){BB_CONTENT_REFUSED, "a tar archive", "unpack it first"};
    if (is_utf16(head, size, true)) return (bb_content){BB_CONTENT_UTF16_LE, "UTF-16 text", NULL};
    if (is_utf16(head, size, false)) return (bb_content){BB_CONTENT_UTF16_BE, "UTF-16 text", NULL};
    return (bb_content){BB_CONTENT_PLAIN, "bytes", NULL};
}
