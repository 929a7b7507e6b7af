// SPDX-License-Identifier: MIT
/* safetensors: an 8-byte little-endian header length, a JSON header, raw little-endian data. The reader maps the file and
 * trusts nothing in it; the writer leaves a whole file or none, with the checksums of docs/FORMAT.md in its metadata. */
#ifndef BB_FORMAT_SAFETENSORS_H
#define BB_FORMAT_SAFETENSORS_H

#include "core/file.h"

typedef enum bb_st_dtype {
    BB_ST_F32 = 0,
    BB_ST_F16,
    BB_ST_BF16,
    BB_ST_F64,
    BB_ST_I8,
    BB_ST_U8,
    BB_ST_I32,
    BB_ST_I64,
    BB_ST_BOOL
} bb_st_dtype;

enum { BB_ST_MAX_RANK = 4 };

typedef struct bb_st_tensor {
    const char *name;
    bb_st_dtype dtype;
    int rank;
    int64_t shape[BB_ST_MAX_RANK];
    uint64_t offset, bytes; /* within the data section */
} bb_st_tensor;

typedef struct bb_safetensors bb_safetensors;

size_t bb_st_dtype_bytes(bb_st_dtype t);
const char *bb_st_dtype_name(bb_st_dtype t);

/* Checks everything before returning: header length against the file, JSON form, types, shapes against byte counts, offsets
 * inside the file, no overlap, no gap. Messages name the path, the tensor, the offset, what was expected and what was found. */
bb_status bb_safetensors_open(const char *path, bb_safetensors **out, bb_error *err);
void bb_safetensors_close(bb_safetensors *st);
int bb_safetensors_count(const bb_safetensors *st);
const bb_st_tensor *bb_safetensors_at(const bb_safetensors *st, int index);
const bb_st_tensor *bb_safetensors_find(const bb_safetensors *st, const char *name);
/* The text under __metadata__, NULL when absent. */
const char *bb_safetensors_metadata(const bb_safetensors *st, const char *key);
const char *bb_safetensors_path(const bb_safetensors *st);
uint64_t bb_safetensors_file_bytes(const bb_safetensors *st);

/* Finds `name` and checks dtype F32 and shape; shape errors say both shapes. */
bb_status bb_safetensors_require_f32(const bb_safetensors *st, const char *name, int rank, const int64_t *shape,
                                     const bb_st_tensor **out, bb_error *err);

/* Gives all of a tensor's bytes to `visit` (may be NULL), in pieces of 1 MiB but for the last. Where the file has a checksum of
 * the tensor, a sum that differs is BB_ERR_FORMAT. The first failure of `visit` ends it. */
typedef bb_status (*bb_st_visit)(void *user, const bb_st_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                                 bb_error *err);
bb_status bb_safetensors_scan(const bb_safetensors *st, const bb_st_tensor *t, bb_st_visit visit, void *user, bb_error *err);
/* The same, into `out`: t->bytes. */
bb_status bb_safetensors_read(const bb_safetensors *st, const bb_st_tensor *t, void *out, bb_error *err);
/* Whether the file has checksums, and whether its metadata are what the writer made of them. */
bool bb_safetensors_has_checksums(const bb_safetensors *st);
bb_status bb_safetensors_check_metadata(const bb_safetensors *st, bb_error *err);

typedef struct bb_safetensors_writer bb_safetensors_writer;
typedef struct bb_st_metadata {
    const char *key, *value;
} bb_st_metadata;

/* Writes the header; offset and bytes of the tensors are computed. Then give each tensor's data in this order, in pieces of any
 * size, and commit. */
bb_status bb_safetensors_create(const char *path, const bb_st_tensor *tensors, int count, const bb_st_metadata *metadata,
                                int metadata_count, bb_safetensors_writer **out, bb_error *err);
bb_status bb_safetensors_write(bb_safetensors_writer *w, const void *data, size_t bytes, bb_error *err);
/* Frees the writer, whatever the result; on failure nothing new is at path. */
bb_status bb_safetensors_commit(bb_safetensors_writer *w, bb_error *err);
void bb_safetensors_abort(bb_safetensors_writer *w);

#endif
