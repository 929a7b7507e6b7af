// SPDX-License-Identifier: MIT
#include "modelfile/dequantize.h"

#include <math.h>
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

/* Blocks of 32: the scale d (f16), then 32 int8 q; values are d q. */
static void dequantize_q8_0(const uint8_t *block, float *out) {
    float d = bb_f32_from_f16(u16_at(block, 0));
    for (int i = 0; i < 32; i++) out[i] = d * (float)(int8_t)block[2 + i];
}

/* Blocks of 256: 64 bytes of 2-bit codes q + 1, then d (f16). Element 128h + 32n + m is in byte 32h + m, bits 2n and 2n + 1.
 * Code 3 is invalid and becomes NaN, which every reader of weights rejects. */
static void dequantize_tq2_0(const uint8_t *block, float *out) {
    float d = bb_f32_from_f16(u16_at(block + 64, 0));
    for (int h = 0; h < 2; h++)
        for (int n = 0; n < 4; n++)
            for (int m = 0; m < 32; m++) { /* no table, so that the loop vectorizes */
                int code = block[32 * h + m] >> 2 * n & 3;
                float value = code == 0 ? -d : code == 2 ? d : 0;
                out[128 * h + 32 * n + m] = code == 3 ? NAN : value;
            }
}

/* Returns digit n (0: the highest) of a byte that stores a base-3 number of five digits, x, as ceil(256 x / 243). */
static float tq1_0_digit(uint8_t byte, int n, const float *value) {
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    return value[(uint8_t)(byte * power[n]) * 3 >> 8];
}

/* Blocks of 256: 32 bytes with five codes q + 1 each, 32 elements apart; 16 bytes with five, 16 apart; 4 bytes with four, 4
 * apart; then d. */
static void dequantize_tq1_0(const uint8_t *block, float *out) {
    float d = bb_f32_from_f16(u16_at(block + 52, 0)), value[3] = {-d, 0, d};
    for (int i = 0; i < 160; i++) out[i] = tq1_0_digit(block[i % 32], i / 32, value);
    for (int i = 0; i < 80; i++) out[160 + i] = tq1_0_digit(block[32 + i % 16], i / 16, value);
    for (int i = 0; i < 16; i++) out[240 + i] = tq1_0_digit(block[48 + i % 4], i / 4, value);
}

/* Blocks of 64: the scale d (f16), then 16 bytes of codes q + 1 in two bits, the first element lowest; values are d q, up to 2 d. */
static void dequantize_q2_0(const uint8_t *block, float *out) {
    float d = bb_f32_from_f16(u16_at(block, 0));
    for (int i = 0; i < 64; i++) out[i] = d * (float)((block[2 + i / 4] >> 2 * (i % 4) & 3) - 1);
}

static void dequantize_blocks(bb_file_dtype type, void (*block)(const uint8_t *, float *), const uint8_t *bytes, int64_t n,
                              float *out) {
    int64_t size = (int64_t)bb_file_dtype_bytes(type), elements = bb_file_dtype_elements(type);
    for (int64_t i = 0; i < n / elements; i++) block(bytes + i * size, out + i * elements);
}

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
    case BB_FILE_Q8_0: dequantize_blocks(type, dequantize_q8_0, bytes, n, out); break;
    case BB_FILE_TQ1_0: dequantize_blocks(type, dequantize_tq1_0, bytes, n, out); break;
    case BB_FILE_TQ2_0: dequantize_blocks(type, dequantize_tq2_0, bytes, n, out); break;
    case BB_FILE_Q2_0: dequantize_blocks(type, dequantize_q2_0, bytes, n, out); break;
    }
}
