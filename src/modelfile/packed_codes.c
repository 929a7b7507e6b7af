// SPDX-License-Identifier: MIT
#include "modelfile/packed_codes.h"

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
