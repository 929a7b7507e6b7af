// SPDX-License-Identifier: MIT
/* Lossless compression with a model's predictions. */
#ifndef BITBYTE_COMPRESSION_H
#define BITBYTE_COMPRESSION_H

#include "inference.h"

/* ---- Compression --------------------------------------------------------------------------------------------------------- */

/* Lossless compression with a model's predictions (docs/FORMAT.md). The stream is the same on every processor and for any
 * number of threads, and can be read only with the same model. Any input works; the output is never more than 0.1% and 64 bytes
 * larger. */
typedef struct bb_compress_options {
    size_t struct_size;
    int lanes;          /* parts of a block that are coded together, 1 to 64: more are faster, fewer compress better */
    int block_bytes;    /* a power of two from 65536 to 16777216; memory use is a small multiple of it */
    int context_length; /* context length in bytes; 0: the model's trained length, at most 1024 */
    /* lanes to mix are for bb_compressor_open; decompression reads them from the stream. */
    bb_kv_type kv_cache;
    bool mix;   /* mix the predictions with contexts of the text itself: smaller, slightly slower; takes up to 128 MB */
    int blocks; /* decompression: blocks decoded together, at most 64; faster if they have few lanes. 0: automatic */
    /* Receives the output in order; returning false ends the work with BB_ERR_IO. */
    bool (*on_output)(void *user, const uint8_t *bytes, size_t size);
    void (*on_progress)(void *user, int64_t bytes_done); /* uncompressed; may be NULL */
    void *user;
    const volatile int *stop; /* may be NULL; nonzero: BB_ERR_INTERRUPTED */
} bb_compress_options;
BB_OPTIONS(bb_compress_options); /* the default is level 5 */
/* Sets lanes, block_bytes, context_length and mix: 1 is the fastest, 9 compresses best. */
BB_API bb_status bb_compress_options_level(bb_compress_options *options, int level, bb_error *err);

typedef struct bb_compressor bb_compressor;
BB_API bb_status bb_compressor_open(bb_model *model, const bb_compress_options *options, bb_compressor **out, bb_error *err);
BB_API bb_status bb_compressor_write(bb_compressor *compressor, const uint8_t *bytes, size_t size, bb_error *err);
/* Writes the remaining data and the end record. */
BB_API bb_status bb_compressor_finish(bb_compressor *compressor, bb_error *err);
BB_API void bb_compressor_close(bb_compressor *compressor);

typedef struct bb_decompressor bb_decompressor;
BB_API bb_status bb_decompressor_open(bb_model *model, const bb_compress_options *options, bb_decompressor **out,
                                      bb_error *err);
/* BB_ERR_FORMAT: the stream is damaged (the message gives the byte), or was made with another model. Output comes in blocks,
 * each verified, as soon as the blocks that are decoded together are complete. */
BB_API bb_status bb_decompressor_write(bb_decompressor *decompressor, const uint8_t *bytes, size_t size, bb_error *err);
BB_API bb_status bb_decompressor_flush(bb_decompressor *decompressor, bb_error *err); /* emits the complete blocks */
/* Fails if the stream is truncated. */
BB_API bb_status bb_decompressor_finish(bb_decompressor *decompressor, bb_error *err);
BB_API void bb_decompressor_close(bb_decompressor *decompressor);
/* Decompresses a part of a file: bytes offset .. offset + length - 1 of the text, or fewer at its end. Reads and verifies only
 * the blocks that contain them. BB_ERR_ARGUMENT: the file is a pipe, or the offset lies beyond the text. Messages do not name
 * the path. */
BB_API bb_status bb_decompress_range(bb_model *model, const bb_compress_options *options, const char *path, uint64_t offset,
                                     uint64_t length, bb_error *err);
/* Returns whether these are the first bytes of a stream. */
BB_API bool bb_is_compressed(const uint8_t *bytes, size_t size);
/* Returns JSON: format, version, model, parameters, bytes, compressed_bytes, bits_per_byte, blocks by kind, … Reads only the
 * heads of the blocks. Free it with bb_string_free. */
BB_API bb_status bb_compressed_describe(const char *path, char **json, bb_error *err);

#endif
