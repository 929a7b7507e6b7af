// SPDX-License-Identifier: MIT
/* Converts elements of files to f32. */
#ifndef BB_MODELFILE_DEQUANTIZE_H
#define BB_MODELFILE_DEQUANTIZE_H

#include "modelfile/tensor_source.h"

/* Converts n elements of a numeric type; n must be a multiple of its block size. */
void bb_dequantize(bb_file_dtype type, const uint8_t *bytes, int64_t n, float *out);

float bb_f32_from_f16(uint16_t h);

#endif
