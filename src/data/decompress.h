// SPDX-License-Identifier: MIT
/* Streaming decompression: gzip (RFC 1952), zstd (RFC 8878), xz and bzip2, each with one or more members or frames. */
#ifndef BB_DATA_DECOMPRESS_H
#define BB_DATA_DECOMPRESS_H

#include <bzlib.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "data/content.h"

typedef struct bb_decompressor {
    bb_content content; /* kind PLAIN: closed */
    z_stream gzip;
    bz_stream bzip2;
    lzma_stream xz;
    ZSTD_DStream *zstd;
    bool inside;  /* in the middle of a member or a frame */
    bool started; /* at least one has begun */
    bool full;    /* the last step filled its output; more may be available without further input */
} bb_decompressor;

/* Input and output of a step, which advances the pointers. */
typedef struct bb_decompress_step {
    const uint8_t *in;
    size_t in_size;
    uint8_t *out;
    size_t out_size;
} bb_decompress_step;

bb_status bb_decompress_open(bb_content content, bb_decompressor *out, bb_error *err);
/* May produce no output before the end of the input. Messages do not name the file or the offset. */
bb_status bb_decompress(bb_decompressor *d, bb_decompress_step *step, bb_error *err);
/* Must be called at the end of the input; fails if it is incomplete. */
bb_status bb_decompress_end(bb_decompressor *d, bb_error *err);
void bb_decompress_close(bb_decompressor *d);

#endif
