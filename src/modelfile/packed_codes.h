// SPDX-License-Identifier: MIT
/* Checks the codes of our packed files. docs/FORMAT.md. */
#ifndef BB_MODELFILE_PACKED_CODES_H
#define BB_MODELFILE_PACKED_CODES_H

#include "modelfile/tensor_source.h"

/* Checks a piece of packed ternary codes, four a byte, from byte `at` of the tensor: 3 is invalid. */
bb_status bb_packed_check_codes(const bb_tensor_source *s, const bb_file_tensor *t, uint64_t at, const uint8_t *piece,
                                size_t size, bb_error *err);

/* The same for n-gram embeddings: codes are from -127 to 127, and scales are bf16, finite and at least 0. */
bb_status bb_packed_check_row_codes(const bb_tensor_source *s, const bb_file_tensor *t, uint64_t at, const uint8_t *piece,
                                    size_t size, bb_error *err);
bb_status bb_packed_check_row_scales(const bb_tensor_source *s, const bb_file_tensor *t, uint64_t at, const uint8_t *piece,
                                     size_t size, bb_error *err);

#endif
