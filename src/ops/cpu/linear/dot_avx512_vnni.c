// SPDX-License-Identifier: MIT
/* AVX-512 with VNNI: vpdpbusd on 512 bits. */
#if defined(__x86_64__)

#include "ops/cpu/linear/dot_512_tile.h"
#include "ops/cpu/linear/linear_kernels.h"

enum { LEFT_ROWS = BB_DOT_LEFT_ROWS };

/* 16 values rounded to bf16, half to even; NaN stays NaN. */
INLINE __m256i round16(__m512 x) {
    __m512i bits = _mm512_castps_si512(x), high = _mm512_srli_epi32(bits, 16);
    __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd), 16);
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40)));
}

/* 32 values */
INLINE __m512i round_two(__m512 low, __m512 high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(round16(low)), round16(high), 1);
}

/* ---- forward and dx -------------------------------------------------------------------------------------------------------- */

INLINE void int8_tile(int rows, bool whole, int64_t row, const bb_dot_output *out, const bb_dot_rows *a,
                      const bb_dot_panel *b) {
    sums acc;
    EACH_ROW(r) EACH_VECTOR(v) acc[r][v] = _mm512_set1_epi32(-a->sums[row + r]);
    if (out->residual) EACH_ROW(r) prefetch_row(out, row + r);
    multiply(DOT_INT8, rows, acc, (left_operand){a->a + row * a->stride, a->stride, 4}, b->k_steps, b->codes);
    EACH_ROW(r) {
        __m512 scale = _mm512_set1_ps(a->scales[row + r] * b->g), values[VECTORS];
        EACH_VECTOR(v) values[v] = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(acc[r][v]));
        store_row(whole, out, row + r, values);
    }
}

static UNINSTRUMENTED void int8(bb_dot_output out, bb_dot_rows a, bb_dot_panel b) {
    TILES(int8_tile, a.count, out.columns, &out, &a, &b);
}

static UNINSTRUMENTED void row_sums(int32_t *out, const int8_t *a, int64_t rows, int64_t K) {
    const __m512i ones = _mm512_set1_epi8(1);
    for (int64_t r = 0; r < rows; r++) {
        __m512i acc = _mm512_setzero_si512();
        int64_t k = 0;
        for (; k + 64 <= K; k += 64) acc = _mm512_dpbusd_epi32(acc, ones, _mm512_loadu_si512(a + r * K + k));
        if (k < K) {
            __mmask64 lanes = ((__mmask64)1 << (K - k)) - 1;
            acc = _mm512_dpbusd_epi32(acc, ones, _mm512_maskz_loadu_epi8(lanes, a + r * K + k));
        }
        out[r] = _mm512_reduce_add_epi32(acc);
    }
}

INLINE float absmax_of(const void *x, bb_dtype dtype, int64_t n) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i max_bits = _mm512_setzero_si512(); /* bit patterns: magnitudes compare as integers, with NaN largest */
    for (int64_t i = 0; i < n; i += LANES)
        max_bits = _mm512_max_epu32(max_bits,
                                    _mm512_and_si512(magnitude, _mm512_castps_si512(load_row(x, dtype, i, lanes16(n - i, 0)))));
    uint32_t bits = _mm512_reduce_max_epu32(max_bits);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static UNINSTRUMENTED float absmax(const void *x, bb_dtype dtype, int64_t n) {
    return dtype == BB_F32 ? absmax_of(x, BB_F32, n) : absmax_of(x, BB_BF16, n);
}

INLINE int32_t quantize_with(int8_t *q, const void *x, bb_dtype dtype, float scale, int64_t n) {
    __m512i sum = _mm512_setzero_si512();
    for (int64_t i = 0; i < n; i += LANES) {
        __mmask16 lanes = lanes16(n - i, 0);
        __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(load_row(x, dtype, i, lanes), _mm512_set1_ps(scale)));
        sum = _mm512_add_epi32(sum, rounded);
        _mm_mask_storeu_epi8(q + i, lanes, _mm512_cvtepi32_epi8(rounded));
    }
    return _mm512_reduce_add_epi32(sum);
}

static UNINSTRUMENTED int32_t quantize(int8_t *q, const void *x, bb_dtype dtype, float scale, int64_t n) {
    return dtype == BB_F32 ? quantize_with(q, x, BB_F32, scale, n) : quantize_with(q, x, BB_BF16, scale, n);
}

static UNINSTRUMENTED void transpose(uint8_t *out, const uint8_t *from, int64_t columns) {
    /* transposes 4 rows of 4 k each */
    const __m512i order = _mm512_broadcast_i32x4(_mm_set_epi8(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0));
    for (int64_t k = 0; k < BB_DOT_COLUMNS && k < columns; k += 4, from += BB_DOT_K_STEP_BYTES)
        EACH_VECTOR(v) { /* 16 rows at a time */
            __m512i rows = _mm512_shuffle_epi8(_mm512_loadu_si512(from + 64 * v), order);
            uint8_t *to = out + 4 * v * BB_DOT_K_STEP_BYTES + k * 4;
            _mm_storeu_si128((__m128i *)(void *)to, _mm512_castsi512_si128(rows));
            _mm_storeu_si128((__m128i *)(void *)(to + BB_DOT_K_STEP_BYTES), _mm512_extracti32x4_epi32(rows, 1));
            _mm_storeu_si128((__m128i *)(void *)(to + 2 * BB_DOT_K_STEP_BYTES), _mm512_extracti32x4_epi32(rows, 2));
            _mm_storeu_si128((__m128i *)(void *)(to + 3 * BB_DOT_K_STEP_BYTES), _mm512_extracti32x4_epi32(rows, 3));
        }
}

/* ---- dW -------------------------------------------------------------------------------------------------------------------- */

INLINE void add_tile(int rows, bool whole, int64_t row, const bb_dot_sums *out, const bb_dot_left *a, int64_t k_steps,
                     const uint8_t *panel) {
    sums acc;
    float *c = out->c + row * out->stride;
    EACH_ROW(r) EACH_VECTOR(v) acc[r][v] = _mm512_set1_epi32(-128 * a->sums[row + r]);
    EACH_ROW(r) EACH_VECTOR(v) _mm_prefetch((const char *)(c + r * out->stride + LANES * v), _MM_HINT_T0);
    multiply(DOT_INT8, rows, acc, (left_operand){a->left + row, 4, LEFT_ROWS * 4}, k_steps, panel);
    EACH_ROW(r) {
        __m512 scale = _mm512_set1_ps(a->scales[row + r]);
        EACH_VECTOR(v) {
            __mmask16 lanes = whole ? (__mmask16)0xffff : lanes16(out->columns, LANES * v);
            float *at = c + r * out->stride + LANES * v;
            __m512 before = out->add ? _mm512_maskz_loadu_ps(lanes, at) : _mm512_setzero_ps();
            _mm512_mask_storeu_ps(at, lanes, _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(acc[r][v]), before));
        }
    }
}

static UNINSTRUMENTED void add(bb_dot_sums out, const bb_dot_left *a, int64_t k_steps, const uint8_t *panel) {
    TILES(add_tile, a->rows, out.columns, &out, a, k_steps, panel);
}

/* Columns of A, 16 to a vector. */
enum { LEFT_VECTORS = BB_DOT_LEFT_ROWS / LANES };
#define EACH_LEFT(v) _Pragma("GCC unroll 6") for (int v = 0; v < LEFT_VECTORS; v++)

/* columns 16 v on of x, times s */
INLINE __m512 scaled_columns(const uint8_t *x, bb_dtype dtype, float s, int64_t n, int v) {
    return _mm512_mul_ps(load_row(x, dtype, (int64_t)LANES * v, lanes16(n, LANES * v)), _mm512_set1_ps(s));
}

INLINE void pack_tokens(bb_dot_left *a, const bb_dot_tokens *from, bb_dtype dtype) {
    const uint8_t *x = from->x;
    const float *s = from->s;
    int64_t tokens = from->tokens, n = from->columns, x_bytes = from->stride * (int64_t)bb_dtype_bytes(dtype);
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff), low = _mm512_set1_epi32(0xff), ones = _mm512_set1_epi8(1);
    int64_t row_bytes = n * (int64_t)bb_dtype_bytes(dtype);
    __m512i max_bits[LEFT_VECTORS], q_sums[LEFT_VECTORS]; /* bit patterns: magnitudes compare as integers, with NaN largest */
    __m512 inverse[LEFT_VECTORS];
    a->rows = n;
    EACH_LEFT(v) max_bits[v] = q_sums[v] = _mm512_setzero_si512();
    for (int64_t t = 0; t < tokens; t++) {
        if (t + PREFETCH_ROWS < tokens)
            for (int64_t i = 0; i < row_bytes; i += 64)
                _mm_prefetch((const char *)(x + (t + PREFETCH_ROWS) * x_bytes + i), _MM_HINT_T0);
        EACH_LEFT(v) {
            __m512i bits = _mm512_castps_si512(scaled_columns(x + t * x_bytes, dtype, s[t], n, v));
            max_bits[v] = _mm512_max_epu32(max_bits[v], _mm512_and_si512(magnitude, bits));
        }
    }
    EACH_LEFT(v) {
        __m512 scale = _mm512_mul_ps(_mm512_castsi512_ps(max_bits[v]), _mm512_set1_ps(1.0f / 127.0f));
        /* not less than, so that a NaN is kept */
        __mmask16 nonzero = _mm512_cmp_ps_mask(scale, _mm512_set1_ps(BB_MIN_GRADIENT_SCALE), _CMP_NLT_UQ);
        _mm512_storeu_ps(a->scales + LANES * v, _mm512_maskz_mov_ps(nonzero, scale));
        inverse[v] = _mm512_maskz_div_ps(nonzero, _mm512_set1_ps(1.0f), scale);
    }
    uint32_t *left = a->left;
    for (int64_t t = 0; t < tokens; t += 4, left += LEFT_ROWS) EACH_LEFT(v) {
            __m512i word = _mm512_setzero_si512();
            _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) {
                if (t + i >= tokens) break;
                __m512 value = _mm512_mul_ps(scaled_columns(x + (t + i) * x_bytes, dtype, s[t + i], n, v), inverse[v]);
                __m512i q = _mm512_and_si512(_mm512_cvtps_epi32(value), low);
                word = _mm512_or_si512(word, _mm512_slli_epi32(q, 8 * (unsigned)i));
            }
            q_sums[v] = _mm512_dpbusd_epi32(q_sums[v], ones, word);
            _mm512_storeu_si512(left + LANES * v, word);
        }
    EACH_LEFT(v) _mm512_storeu_si512(a->sums + LANES * v, q_sums[v]);
}

static UNINSTRUMENTED void pack_left(bb_dot_left *a, const bb_dot_tokens *x) {
    if (x->dtype == BB_BF16) /* a constant for each type, so that each has its own loop */
        pack_tokens(a, x, BB_BF16);
    else
        pack_tokens(a, x, BB_F32);
}

static UNINSTRUMENTED void pack_codes(uint8_t *panel, const int8_t *x, int64_t x_stride, int64_t tokens, int64_t columns) {
    const __m512i sign = _mm512_set1_epi8((char)0x80);
    const __mmask64 lanes = columns < 64 ? ((__mmask64)1 << columns) - 1 : ~(__mmask64)0;
    for (int64_t t = 0; t < tokens; t += 4, panel += BB_DOT_K_STEP_BYTES) {
        __m512i row[4];
        for (int i = 0; i < 4; i++) row[i] = t + i < tokens ? _mm512_maskz_loadu_epi8(lanes, x + (t + i) * x_stride) : sign;
        __m512i first_low = _mm512_unpacklo_epi8(row[0], row[1]), first_high = _mm512_unpackhi_epi8(row[0], row[1]);
        __m512i last_low = _mm512_unpacklo_epi8(row[2], row[3]), last_high = _mm512_unpackhi_epi8(row[2], row[3]);
        /* four columns of four tokens in each of four lanes; lanes hold columns 16 apart */
        __m512i c0 = _mm512_unpacklo_epi16(first_low, last_low), c4 = _mm512_unpackhi_epi16(first_low, last_low);
        __m512i c8 = _mm512_unpacklo_epi16(first_high, last_high), c12 = _mm512_unpackhi_epi16(first_high, last_high);
        __m512i c0_even = _mm512_shuffle_i32x4(c0, c4, 0x88), c0_odd = _mm512_shuffle_i32x4(c0, c4, 0xdd);
        __m512i c8_even = _mm512_shuffle_i32x4(c8, c12, 0x88), c8_odd = _mm512_shuffle_i32x4(c8, c12, 0xdd);
        __m512i out[VECTORS] = {_mm512_shuffle_i32x4(c0_even, c8_even, 0x88), _mm512_shuffle_i32x4(c0_odd, c8_odd, 0x88),
                                _mm512_shuffle_i32x4(c0_even, c8_even, 0xdd), _mm512_shuffle_i32x4(c0_odd, c8_odd, 0xdd)};
        EACH_VECTOR(v) _mm512_storeu_si512(panel + 64 * v, _mm512_xor_si512(out[v], sign));
    }
}

const bb_dot_set bb_dot_vnni = {.k_steps = 1, .int8 = int8};
const bb_dot_operands bb_dot_operands_vnni = {
    .row_sums = row_sums, .absmax = absmax, .quantize = quantize, .transpose = transpose};
const bb_dot_weight bb_dot_weight_vnni = {.word_tokens = 4, .pack_left = pack_left, .pack_codes = pack_codes, .add = add};

#endif
