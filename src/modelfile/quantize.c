// SPDX-License-Identifier: MIT
#include "modelfile/quantize.h"

#include <math.h>
#include <string.h>

#include "core/tensor.h"
#include "modelfile/dequantize.h"

uint16_t bb_f16_from_f32(float value) {
    uint32_t bits, sign;
    memcpy(&bits, &value, sizeof bits);
    sign = bits >> 16 & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);  /* NaN */
    if (bits >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and above */
    if (bits < 0x38800000u)                                     /* subnormal: a multiple of 2^-24 */
        return (uint16_t)(sign | (uint32_t)rintf(bb_f32_from_bits(bits) * 0x1p24f));
    return (uint16_t)(sign | ((bits - 0x38000000u + 0xfffu + (bits >> 13 & 1u)) >> 13));
}

float bb_quantized_scale(bb_file_dtype type, float scale) {
    if (type == BB_FILE_F32) return scale;
    return type == BB_FILE_Q8_0 ? 127 * bb_f32_from_f16(bb_f16_from_f32(scale / 127)) : bb_f32_from_f16(bb_f16_from_f32(scale));
}

static void put_u16(uint8_t *to, uint16_t v) {
    to[0] = (uint8_t)v;
    to[1] = (uint8_t)(v >> 8);
}

static void put_scale(uint8_t *to, const int8_t *q, int n, float scale) {
    bool zeros = true;
    for (int i = 0; i < n; i++) zeros = zeros && q[i] == 0;
    put_u16(to, zeros ? 0 : bb_f16_from_f32(scale));
}

static void quantize_q8_0(const int8_t *q, float scale, uint8_t *out) {
    put_scale(out, q, 32, scale / 127);
    for (int i = 0; i < 32; i++) out[2 + i] = (uint8_t)(q[i] * 127);
}

static void quantize_tq2_0(const int8_t *q, float scale, uint8_t *out) {
    memset(out, 0, 64);
    for (int i = 0; i < 256; i++) out[32 * (i / 128) + i % 32] |= (uint8_t)((q[i] + 1) << 2 * (i / 32 % 4));
    put_scale(out + 64, q, 256, scale);
}

static void quantize_q2_0(const int8_t *q, float scale, uint8_t *out) {
    put_scale(out, q, 64, scale);
    memset(out + 2, 0, 16);
    for (int i = 0; i < 64; i++) out[2 + i / 4] |= (uint8_t)((q[i] + 1) << 2 * (i % 4));
}

/* Packs up to five codes, `stride` apart, as base-3 digits; the first is the highest. */
static uint8_t base3(const int8_t *q, int stride, int count) {
    int v = 0;
    for (int i = 0; i < 5; i++) v = 3 * v + (i < count ? q[i * stride] + 1 : 0);
    return (uint8_t)((v * 256 + 242) / 243);
}

static void quantize_tq1_0(const int8_t *q, float scale, uint8_t *out) {
    for (int i = 0; i < 32; i++) out[i] = base3(q + i, 32, 5);
    for (int i = 0; i < 16; i++) out[32 + i] = base3(q + 160 + i, 16, 5);
    for (int i = 0; i < 4; i++) out[48 + i] = base3(q + 240 + i, 4, 4);
    put_scale(out + 52, q, 256, scale);
}

void bb_quantize_ternary(bb_file_dtype type, const int8_t *q, int64_t n, float scale, uint8_t *out) {
    int64_t size = (int64_t)bb_file_dtype_bytes(type), elements = bb_file_dtype_elements(type);
    for (int64_t i = 0; i < n / elements; i++, q += elements, out += size) {
        float value = scale * (float)*q;
        switch (type) {
        case BB_FILE_F32: memcpy(out, &value, sizeof value); break;
        case BB_FILE_F16: put_u16(out, bb_f16_from_f32(value)); break;
        case BB_FILE_Q8_0: quantize_q8_0(q, scale, out); break;
        case BB_FILE_TQ1_0: quantize_tq1_0(q, scale, out); break;
        case BB_FILE_TQ2_0: quantize_tq2_0(q, scale, out); break;
        case BB_FILE_Q2_0: quantize_q2_0(q, scale, out); break;
        case BB_FILE_BF16:
        case BB_FILE_F64:
        case BB_FILE_I8:
        case BB_FILE_U8:
        case BB_FILE_I32:
        case BB_FILE_I64:
        case BB_FILE_BOOL: break; /* not written by any exporter */
        }
    }
}
