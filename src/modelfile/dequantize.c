// SPDX-License-Identifier: MIT
#include "modelfile/dequantize.h"

#include <string.h>

#include "core/tensor.h"

float bb_f32_from_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 0x1fu, mantissa = h & 0x3ffu;
    if (exponent == 0x1f) return bb_f32_from_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent) return bb_f32_from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    float value = (float)mantissa * 0x1p-24f; /* subnormal */
    return sign ? -value : value;
}

static uint16_t u16_at(const uint8_t *bytes, int64_t i) { return (uint16_t)(bytes[2 * i] | bytes[2 * i + 1] << 8); }

void bb_dequantize(bb_file_dtype type, const uint8_t *bytes, int64_t n, float *out) {
    double d;
    int32_t i32;
    int64_t i64;
    switch (type) {
    case BB_FILE_F32: memcpy(out, bytes, (size_t)n * sizeof *out); break;
    case BB_FILE_F16:
        for (int64_t i = 0; i < n; i++) out[i] = bb_f32_from_f16(u16_at(bytes, i));
        break;
    case BB_FILE_BF16:
        for (int64_t i = 0; i < n; i++) out[i] = bb_f32_from_bf16(u16_at(bytes, i));
        break;
    case BB_FILE_F64:
        for (int64_t i = 0; i < n; i++) {
            memcpy(&d, bytes + 8 * i, sizeof d);
            out[i] = (float)d;
        }
        break;
    case BB_FILE_I8:
        for (int64_t i = 0; i < n; i++) out[i] = (float)(int8_t)bytes[i];
        break;
    case BB_FILE_U8:
    case BB_FILE_BOOL:
        for (int64_t i = 0; i < n; i++) out[i] = (float)bytes[i];
        break;
    case BB_FILE_I32:
        for (int64_t i = 0; i < n; i++) {
            memcpy(&i32, bytes + 4 * i, sizeof i32);
            out[i] = (float)i32;
        }
        break;
    case BB_FILE_I64:
        for (int64_t i = 0; i < n; i++) {
            memcpy(&i64, bytes + 8 * i, sizeof i64);
            out[i] = (float)i64;
        }
        break;
    }
}
