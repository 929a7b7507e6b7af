// SPDX-License-Identifier: MIT
/* A file of named tensors, opened for reading, in any format. Each format is one file that fills a bb_tensor_source;
 * model_source.h defines what the tensors mean to the model. */
#ifndef BB_MODELFILE_TENSOR_SOURCE_H
#define BB_MODELFILE_TENSOR_SOURCE_H

#include "core/input.h"

/* Element types of files. */
typedef enum bb_file_dtype {
    BB_FILE_F32 = 0,
    BB_FILE_F16,
    BB_FILE_BF16,
    BB_FILE_F64,
    BB_FILE_I8,
    BB_FILE_U8,
    BB_FILE_I32,
    BB_FILE_I64,
    BB_FILE_BOOL,
    BB_FILE_Q8_0, /* llama.cpp's block formats: see dequantize.c */
    BB_FILE_TQ1_0,
    BB_FILE_TQ2_0,
    BB_FILE_Q2_0
} bb_file_dtype;

enum { BB_FILE_MAX_RANK = 4, BB_SOURCE_PIECE_BYTES = 1 << 20 };

typedef struct bb_file_tensor {
    const char *name;
    bb_file_dtype dtype;
    int rank;
    int64_t shape[BB_FILE_MAX_RANK];
    uint64_t offset, bytes; /* offset: relative to data_start */
} bb_file_tensor;

/* Return the bytes and the elements of a block; one element for unquantized types. */
size_t bb_file_dtype_bytes(bb_file_dtype t);
int bb_file_dtype_elements(bb_file_dtype t);
/* Returns the number of elements in `bytes` bytes, which must be whole blocks. */
int64_t bb_file_elements(bb_file_dtype t, uint64_t bytes);
const char *bb_file_dtype_name(bb_file_dtype t); /* "F32" */
/* Computes the bytes for type and shape; returns false on overflow. */
bool bb_file_tensor_bytes(const bb_file_tensor *t, uint64_t *bytes);

typedef struct bb_shape_text {
    char text[96]; /* "(256, 64)" */
} bb_shape_text;
bb_shape_text bb_shape_format(int rank, const int64_t *shape);

/* Receives `size` bytes of t, starting at byte `at`. A failure ends the scan. */
typedef bb_status (*bb_tensor_visit)(void *user, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                                     bb_error *err);

typedef struct bb_tensor_source bb_tensor_source;

typedef struct bb_tensor_source_ops {
    const char *format; /* "safetensors" */
    void (*close)(bb_tensor_source *s);
    /* Returns the text under a key, or NULL. */
    const char *(*metadata)(const bb_tensor_source *s, const char *key);
    /* Reads `size` bytes of t, starting at byte `at`; the range lies inside t. */
    bb_status (*read)(const bb_tensor_source *s, const bb_file_tensor *t, uint64_t at, void *out, size_t size, bb_error *err);
    /* Returns the expected checksum of t (XXH3-64 as 16 hexadecimal digits), or NULL. The pointer is NULL if the format has no
     * checksums. */
    const char *(*checksum)(const bb_tensor_source *s, const bb_file_tensor *t);
    /* Verifies the metadata's checksum. The pointer is NULL if there is none. */
    bb_status (*check_metadata)(const bb_tensor_source *s, bb_error *err);
} bb_tensor_source_ops;

/* Each format's struct begins with this. close frees all of it. */
struct bb_tensor_source {
    const bb_tensor_source_ops *ops;
    bb_input input;
    uint64_t data_start; /* added to the tensors' offsets in messages */
    int count;
    bb_file_tensor *tensors;        /* (count), in file order */
    const bb_file_tensor **by_name; /* (count) */
};

/* For formats: sorts `tensors` into by_name; duplicate names are BB_ERR_FORMAT. */
bb_status bb_tensor_source_index(bb_tensor_source *s, bb_error *err);

/* Opens a model file of any known format, recognized by its first bytes. */
bb_status bb_tensor_source_open(const char *path, bb_tensor_source **out, bb_error *err);
/* The same for an input, whose ownership it takes, even on failure. */
bb_status bb_tensor_source_open_input(bb_input *input, bb_tensor_source **out, bb_error *err);
void bb_tensor_source_close(bb_tensor_source *s);
int bb_tensor_source_count(const bb_tensor_source *s);
const bb_file_tensor *bb_tensor_source_at(const bb_tensor_source *s, int index);
const bb_file_tensor *bb_tensor_source_find(const bb_tensor_source *s, const char *name); /* NULL: not found */
const char *bb_tensor_source_metadata(const bb_tensor_source *s, const char *key);        /* NULL: not found */
const char *bb_tensor_source_path(const bb_tensor_source *s);
uint64_t bb_tensor_source_file_bytes(const bb_tensor_source *s);

/* Finds `name` and checks its type and shape. */
bb_status bb_tensor_source_require(const bb_tensor_source *s, const char *name, bb_file_dtype dtype, int rank,
                                   const int64_t *shape, const bb_file_tensor **out, bb_error *err);

/* Passes all bytes of a tensor to `visit` (may be NULL), in pieces of whole blocks, at most BB_SOURCE_PIECE_BYTES long. If the
 * file has a checksum for the tensor, a mismatch is BB_ERR_FORMAT. */
bb_status bb_tensor_source_scan(const bb_tensor_source *s, const bb_file_tensor *t, bb_tensor_visit visit, void *user,
                                bb_error *err);
/* The same, into `out` (t->bytes). */
bb_status bb_tensor_source_read(const bb_tensor_source *s, const bb_file_tensor *t, void *out, bb_error *err);
/* Reads `size` bytes of t, starting at byte `at`, without verifying checksums. */
bb_status bb_tensor_source_read_range(const bb_tensor_source *s, const bb_file_tensor *t, uint64_t at, void *out, size_t size,
                                      bb_error *err);
/* A bb_tensor_visit, whose user is the source: checks that F32 values are finite. */
bb_status bb_tensor_check_finite(void *source, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                                 bb_error *err);
bool bb_tensor_source_has_checksums(const bb_tensor_source *s);
bb_status bb_tensor_source_check_metadata(const bb_tensor_source *s, bb_error *err);

#endif
