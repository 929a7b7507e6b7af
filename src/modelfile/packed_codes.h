// SPDX-License-Identifier: MIT
/* Ternary codes of our packed files, four a byte. docs/FORMAT.md. */
#ifndef BB_MODELFILE_PACKED_CODES_H
#define BB_MODELFILE_PACKED_CODES_H

#include "modelfile/tensor_source.h"

/* A piece of packed codes, from byte `at` of the tensor: none is 3. */
bb_status bb_packed_check_codes(const bb_tensor_source *s, const bb_file_tensor *t, uint64_t at, const uint8_t *piece,
                                size_t size, bb_error *err);

/* The same of n-gram embeddings: codes from -127 to 127, and scales in bf16, finite and at least 0. */
bb_status bb_packed_check_row_codes(const bb_tensor_source *s, const bb_file_tensor *t, uint64_t at, const uint8_t *piece,
                                    size_t size, bb_error *err);
bb_status bb_packed_check_row_scales(const bb_tensor_source *s, const bb_file_tensor *t, uint64_t at, const uint8_t *piece,
                                     size_t size, bb_error *err);

#endif
