// SPDX-License-Identifier: MIT
#include "modelfile/packed_codes.h"

#include <math.h>
#include <string.h>

#include "core/tensor.h"

bb_status bb_packed_check_codes(const bb_tensor_source *s, const bb_file_tensor *t, uint64_t at, const uint8_t *piece,
                                size_t size, bb_error *err) {
    uint8_t any = 0;
    for (size_t i = 0; i < size; i++) any |= (uint8_t)(piece[i] & piece[i] >> 1 & 0x55);
    for (size_t i = 0; any && i < size; i++)
        if (piece[i] & piece[i] >> 1 & 0x55)
            return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': byte %llu is 0x%02x: expected codes 0 to 2, found a 3",
                           bb_tensor_source_path(s), t->name, (unsigned long long)(at + i), piece[i]);
    return BB_OK;
}

bb_status bb_packed_check_row_codes(const bb_tensor_source *s, const bb_file_tensor *t, uint64_t at, const uint8_t *piece,
                                    size_t size, bb_error *err) {
    const uint8_t *bad = memchr(piece, 0x80, size);
    if (!bad) return BB_OK;
    return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': byte %llu is -128, expected codes from -127 to 127",
                   bb_tensor_source_path(s), t->name, (unsigned long long)(at + (size_t)(bad - piece)));
}

bb_status bb_packed_check_row_scales(const bb_tensor_source *s, const bb_file_tensor *t, uint64_t at, const uint8_t *piece,
                                     size_t size, bb_error *err) {
    for (size_t i = 0; i + 2 <= size; i += 2) {
        bb_bf16 bits;
        memcpy(&bits, piece + i, sizeof bits);
        float scale = bb_f32_from_bf16(bits);
        if (!isfinite(scale) || signbit(scale))
            return bb_fail(err, BB_ERR_FORMAT, "%s: tensor '%s': element %llu is %g, expected a finite scale of at least 0",
                           bb_tensor_source_path(s), t->name, (unsigned long long)(at + i) / 2, (double)scale);
    }
    return BB_OK;
}
