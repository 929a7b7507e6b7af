// SPDX-License-Identifier: MIT
/* Converts ternary weights to elements of files, the inverse of dequantize.h. */
#ifndef BB_MODELFILE_QUANTIZE_H
#define BB_MODELFILE_QUANTIZE_H

#include "modelfile/tensor_source.h"

/* Rounds to f16, half to even; overflow becomes infinite. */
uint16_t bb_f16_from_f32(float value);

/* Returns the value that dequantizing gives for `scale`: F16 and the block types round it to f16. It is 0 or infinite if scale
 * is out of f16's range. */
float bb_quantized_scale(bb_file_dtype type, float scale);

/* Writes the values scale * q of n elements, a multiple of the block size, as F32, F16, Q8_0, TQ1_0, TQ2_0 or Q2_0. A block of
 * zeros gets scale 0, as in llama.cpp. */
void bb_quantize_ternary(bb_file_dtype type, const int8_t *q, int64_t n, float scale, uint8_t *out);

#endif
