// SPDX-License-Identifier: MIT
/* safetensors: an 8-byte little-endian header length, a JSON header, raw little-endian data; with the checksums of
 * docs/FORMAT.md in the metadata. https://github.com/huggingface/safetensors */
#ifndef BB_MODELFILE_SAFETENSORS_H
#define BB_MODELFILE_SAFETENSORS_H

#include "modelfile/tensor_sink.h"
#include "modelfile/tensor_source.h"

/* Validates everything before returning: header length against the file size, JSON syntax, types, shapes against byte counts,
 * offsets, overlaps and gaps. Messages give path, tensor, offset, what was expected and what was found. */
bb_status bb_safetensors_open(const char *path, bb_tensor_source **out, bb_error *err);
/* Takes ownership of `input`, even on failure. */
bb_status bb_safetensors_open_input(bb_input *input, bb_tensor_source **out, bb_error *err);

typedef struct bb_file_metadata {
    const char *key, *value; /* value NULL: left out */
} bb_file_metadata;

/* Writes the header; computes offset and bytes of each tensor. */
bb_status bb_safetensors_create(const char *path, const bb_file_tensor *tensors, int count, const bb_file_metadata *metadata,
                                int metadata_count, bb_tensor_sink **out, bb_error *err);

#endif
