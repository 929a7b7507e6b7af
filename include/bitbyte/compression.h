// SPDX-License-Identifier: MIT
/* Lossless compression with a model's predictions. */
#ifndef BITBYTE_COMPRESSION_H
#define BITBYTE_COMPRESSION_H

#include "inference.h"

/* ---- Compression --------------------------------------------------------------------------------------------------------- */

/* Lossless compression with a model's predictions (docs/FORMAT.md). The same stream on every processor and for any number of
 * threads; it can only be read with the same model. Any input; never more than 0.1% and 64 bytes larger. */
typedef struct bb_compress_options {
    size_t struct_size;
    int lanes;           /* parts of a block that are coded together, 1 to 64: more are faster, fewer are smaller */
    int block_bytes;     /* a power of two from 65536 to 16777216; memory is some times this */
    int context_length;  /* bytes that the model sees at once; 0: its trained length, at most 1024 */
    bb_kv_type kv_cache; /* these five: of bb_compressor_open; a stream knows its own */
    bool mix;            /* mix the predictions with contexts of the text itself: smaller, and a little slower; up to 128 MB */
    int blocks; /* decompression: blocks decoded side by side, at most 64; faster where they have few lanes. 0: automatic */
    /* Takes the output, in order; false ends the work with BB_ERR_IO. */
    bool (*on_output)(void *user, const uint8_t *bytes, size_t size);
    void (*on_progress)(void *user, int64_t bytes_done); /* uncompressed; may be NULL */
    void *user;
    const volatile int *stop; /* may be NULL; non-zero: BB_ERR_INTERRUPTED */
} bb_compress_options;
BB_OPTIONS(bb_compress_options); /* as level 5 */
/* Sets lanes, block_bytes, context_length and mix: 1 is the fastest, 9 the smallest. */
BB_API bb_status bb_compress_options_level(bb_compress_options *options, int level, bb_error *err);

typedef struct bb_compressor bb_compressor;
BB_API bb_status bb_compressor_open(bb_model *model, const bb_compress_options *options, bb_compressor **out, bb_error *err);
BB_API bb_status bb_compressor_write(bb_compressor *compressor, const uint8_t *bytes, size_t size, bb_error *err);
BB_API bb_status bb_compressor_finish(bb_compressor *compressor, bb_error *err); /* writes the rest and the end */
BB_API void bb_compressor_close(bb_compressor *compressor);

typedef struct bb_decompressor bb_decompressor;
BB_API bb_status bb_decompressor_open(bb_model *model, const bb_compress_options *options, bb_decompressor **out,
                                      bb_error *err);
/* BB_ERR_FORMAT says at which byte the stream is damaged, or that it was made with another model. Output is given block by block,
 * each checked, once as many blocks are there as are decoded side by side. */
BB_API bb_status bb_decompressor_write(bb_decompressor *decompressor, const uint8_t *bytes, size_t size, bb_error *err);
BB_API bb_status bb_decompressor_flush(bb_decompressor *decompressor, bb_error *err);  /* gives the blocks that are whole */
BB_API bb_status bb_decompressor_finish(bb_decompressor *decompressor, bb_error *err); /* fails if the stream is cut short */
BB_API void bb_decompressor_close(bb_decompressor *decompressor);
/* Decompresses a part of a file: bytes offset .. offset + length - 1 of the text, or fewer at its end. It reads, and checks, only the
 * blocks that hold them. BB_ERR_ARGUMENT: the file is a pipe, or the offset lies beyond the text. Messages do not name the path. */
BB_API bb_status bb_decompress_range(bb_model *model, const bb_compress_options *options, const char *path, uint64_t offset,
                                     uint64_t length, bb_error *err);
BB_API bool bb_is_compressed(const uint8_t *bytes, size_t size); /* whether a stream begins so */
/* JSON: format, version, model, parameters, bytes, compressed_bytes, bits_per_byte, blocks by kind, … Reads the heads of the blocks
 * only. Free it with bb_string_free. */
BB_API bb_status bb_compressed_describe(const char *path, char **json, bb_error *err);

#endif
