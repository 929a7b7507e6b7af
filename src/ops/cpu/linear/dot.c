// SPDX-License-Identifier: MIT
#include "ops/cpu/linear/dot.h"

#if defined(__x86_64__)

#include "ops/cpu/linear/dot_simd.h"
#include "ops/cpu/linear/linear_kernels.h"

/* 6 x 64 sums take 24 registers; 4 hold a k-step of the panel, one holds a row's 4 bytes. */
enum { ROWS = 6, VECTORS = 4, UNROLL = 4, PREFETCH_ROWS = 16, LEFT_ROWS = BB_DOT_QUAD_ROWS /* of A, packed for dW */ };

typedef enum dot_kind { DOT_INT8, DOT_BF16 } dot_kind;

typedef __m512i sums[ROWS][VECTORS];

#define EACH_ROW(r) _Pragma("GCC unroll 6") for (int r = 0; r < ROWS; r++) if (r < rows)
#define EACH_VECTOR(v) _Pragma("GCC unroll 4") for (int v = 0; v < VECTORS; v++)

/* In assembler: GCC 12 copies the sums around the intrinsics. */
INLINE void k_step(dot_kind kind, int rows, sums acc, const uint8_t *a, int64_t a_stride, const uint8_t *panel) {
    __m512i b[VECTORS];
    EACH_VECTOR(v) b[v] = _mm512_loadu_si512(panel + 64 * v);
    EACH_ROW(r) {
        int32_t four;
        memcpy(&four, a + r * a_stride, sizeof four);
        __m512i row = _mm512_set1_epi32(four);
        EACH_VECTOR(v) {
            if (kind == DOT_INT8)
                __asm__("vpdpbusd %2, %1, %0" : "+v"(acc[r][v]) : "v"(b[v]), "v"(row));
            else
                __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc[r][v]) : "v"(b[v]), "v"(row));
        }
    }
}

/* acc += a * panel. Rows of a are a_stride bytes apart, k-steps a_k_stride. */
INLINE void multiply(dot_kind kind, int rows, sums acc, const uint8_t *a, int64_t a_stride, int64_t a_k_stride, int64_t k_steps,
                     const uint8_t *panel) {
    int64_t i = 0;
    for (; i + UNROLL <= k_steps; i += UNROLL) {
        _Pragma("GCC unroll 4") for (int u = 0; u < UNROLL; u++)
            k_step(kind, rows, acc, a + u * a_k_stride, a_stride, panel + u * BB_DOT_K_STEP_BYTES);
        a += UNROLL * a_k_stride;
        panel += UNROLL * BB_DOT_K_STEP_BYTES;
    }
    for (; i < k_steps; i++) {
        k_step(kind, rows, acc, a, a_stride, panel);
        a += a_k_stride;
        panel += BB_DOT_K_STEP_BYTES;
    }
}

/* Prefetches what store_row will add, while the product runs. */
INLINE void prefetch_row(const bb_dot_output *out, int64_t row) {
    const float *residual = out->residual + row * out->stride;
    EACH_VECTOR(v) _mm_prefetch((const char *)(residual + LANES * v), _MM_HINT_T0);
}

/* Stores one row of values; `whole`: all 64 columns are valid. */
INLINE void store_row(bool whole, const bb_dot_output *out, int64_t row, const __m512 values[VECTORS]) {
    int64_t at = row * out->stride;
    if (out->dtype == BB_F32) {
        float *y = (float *)out->y + at;
        EACH_VECTOR(v) {
            __mmask16 lanes = whole ? (__mmask16)0xffff : lanes16(out->columns, LANES * v);
            __m512 sum = values[v];
            if (out->residual) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes, out->residual + at + LANES * v));
            if (whole)
                _mm512_storeu_ps(y + LANES * v, sum);
            else
                _mm512_mask_storeu_ps(y + LANES * v, lanes, sum);
        }
        return;
    }
    bb_bf16 *y = (bb_bf16 *)out->y + at;
    _Pragma("GCC unroll 2") for (int v = 0; v < VECTORS; v += 2) {
        __m512i rounded = round_two(values[v], values[v + 1]);
        if (whole)
            _mm512_storeu_si512(y + LANES * v, rounded);
        else
            _mm512_mask_storeu_epi16(y + LANES * v, lanes32(out->columns, LANES * v), rounded);
    }
}

/* Calls tile(rows, whole, row) for 6 rows at a time. `rows` and `whole` are constants in each call, so that no registers are
 * used for missing rows. */
#define TILES(tile, rows, columns, ...)                                                                                        \
    do {                                                                                                                       \
        int64_t row = 0;                                                                                                       \
        if ((columns) == BB_DOT_COLUMNS)                                                                                       \
            for (; row + ROWS <= (rows); row += ROWS) tile(ROWS, true, row, __VA_ARGS__);                                      \
        for (; row < (rows); row += ROWS) switch ((rows)-row) {                                                                \
            case 1: tile(1, false, row, __VA_ARGS__); break;                                                                   \
            case 2: tile(2, false, row, __VA_ARGS__); break;                                                                   \
            case 3: tile(3, false, row, __VA_ARGS__); break;                                                                   \
            case 4: tile(4, false, row, __VA_ARGS__); break;                                                                   \
            case 5: tile(5, false, row, __VA_ARGS__); break;                                                                   \
            default: tile(ROWS, false, row, __VA_ARGS__); break;                                                               \
            }                                                                                                                  \
    } while (0)

/* ---- int8 ------------------------------------------------------------------------------------------------------------ */

INLINE void int8_tile(int rows, bool whole, int64_t row, const bb_dot_output *out, const int8_t *a, int64_t a_stride,
                      int64_t k_steps, const uint8_t *panel, const int32_t *a_sums, const float *s, float g) {
    sums acc;
    EACH_ROW(r) EACH_VECTOR(v) acc[r][v] = _mm512_set1_epi32(-a_sums[row + r]);
    if (out->residual) EACH_ROW(r) prefetch_row(out, row + r);
    multiply(DOT_INT8, rows, acc, (const uint8_t *)a + row * a_stride, a_stride, 4, k_steps, panel);
    EACH_ROW(r) {
        __m512 scale = _mm512_set1_ps(s[row + r] * g), values[VECTORS];
        EACH_VECTOR(v) values[v] = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(acc[r][v]));
        store_row(whole, out, row + r, values);
    }
}

TARGET static void dot_int8(bb_dot_output out, const int8_t *a, int64_t a_stride, int64_t rows, int64_t k_steps,
                            const uint8_t *panel, const int32_t *a_sums, const float *s, float g) {
    TILES(int8_tile, rows, out.columns, &out, a, a_stride, k_steps, panel, a_sums, s, g);
}

TARGET void bb_dot_row_sums(int32_t *row_sums, const int8_t *a, int64_t rows, int64_t K) {
    const __m512i ones = _mm512_set1_epi8(1);
    for (int64_t r = 0; r < rows; r++) {
        __m512i acc = _mm512_setzero_si512();
        int64_t k = 0;
        for (; k + 64 <= K; k += 64) acc = _mm512_dpbusd_epi32(acc, ones, _mm512_loadu_si512(a + r * K + k));
        if (k < K) {
            __mmask64 lanes = ((__mmask64)1 << (K - k)) - 1;
            acc = _mm512_dpbusd_epi32(acc, ones, _mm512_maskz_loadu_epi8(lanes, a + r * K + k));
        }
        row_sums[r] = _mm512_reduce_add_epi32(acc);
    }
}

/* ---- bf16 ------------------------------------------------------------------------------------------------------------ */

INLINE __m512i scaled(__m512i v, __m512 scale) { return _mm512_castps_si512(_mm512_mul_ps(_mm512_castsi512_ps(v), scale)); }

INLINE void bf16_tile(int rows, bool whole, int64_t row, const bb_dot_output *out, int64_t a_stride, const bb_dot_part *parts,
                      int count) {
    sums acc;
    EACH_ROW(r) EACH_VECTOR(v) acc[r][v] = _mm512_setzero_si512();
    for (int i = 0; i < count; i++) {
        if (i > 0) { /* the sums are in units of the previous part's scale */
            __m512 ratio = _mm512_set1_ps(parts[i - 1].g / parts[i].g);
            EACH_ROW(r) EACH_VECTOR(v) acc[r][v] = scaled(acc[r][v], ratio);
        }
        multiply(DOT_BF16, rows, acc, (const uint8_t *)(parts[i].a + row * a_stride), a_stride * 2, 4, parts[i].k_steps,
                 parts[i].panel);
    }
    __m512 scale = _mm512_set1_ps(parts[count - 1].g);
    EACH_ROW(r) {
        __m512 values[VECTORS];
        EACH_VECTOR(v) values[v] = _mm512_mul_ps(scale, _mm512_castsi512_ps(acc[r][v]));
        store_row(whole, out, row + r, values);
    }
}

TARGET void bb_dot_bf16(bb_dot_output out, int64_t a_stride, int64_t rows, const bb_dot_part *parts, int count) {
    TILES(bf16_tile, rows, out.columns, &out, a_stride, parts, count);
}

INLINE void add_tile(int rows, bool whole, int64_t row, float *c, bool add, int64_t c_stride, int64_t columns,
                     const uint32_t *a, int64_t a_stride, int64_t k_steps, const uint8_t *panel) {
    sums acc;
    EACH_ROW(r) EACH_VECTOR(v) acc[r][v] = _mm512_setzero_si512();
    EACH_ROW(r) EACH_VECTOR(v) _mm_prefetch((const char *)(c + (row + r) * c_stride + LANES * v), _MM_HINT_T0);
    multiply(DOT_BF16, rows, acc, (const uint8_t *)(a + row), 4, a_stride * 4, k_steps, panel);
    EACH_ROW(r) EACH_VECTOR(v) {
        __mmask16 lanes = whole ? (__mmask16)0xffff : lanes16(columns, LANES * v);
        float *at = c + (row + r) * c_stride + LANES * v;
        __m512 before = add ? _mm512_maskz_loadu_ps(lanes, at) : _mm512_setzero_ps();
        _mm512_mask_storeu_ps(at, lanes, _mm512_add_ps(_mm512_castsi512_ps(acc[r][v]), before));
    }
}

TARGET static void dot_add(float *c, bool add, int64_t c_stride, int64_t columns, const uint32_t *left, int64_t rows,
                           int64_t k_steps, const void *panel, const void *next) {
    (void)next;
    TILES(add_tile, rows, columns, c, add, c_stride, columns, left, LEFT_ROWS, k_steps, panel);
}

/* ---- int8, dW -------------------------------------------------------------------------------------------------------- */

INLINE void add_int8_tile(int rows, bool whole, int64_t row, float *c, bool add, int64_t c_stride, int64_t columns,
                          const bb_dot_quads *a, int64_t k_steps, const uint8_t *panel) {
    sums acc;
    EACH_ROW(r) EACH_VECTOR(v) acc[r][v] = _mm512_set1_epi32(-128 * a->sums[row + r]);
    EACH_ROW(r) EACH_VECTOR(v) _mm_prefetch((const char *)(c + (row + r) * c_stride + LANES * v), _MM_HINT_T0);
    multiply(DOT_INT8, rows, acc, (const uint8_t *)(a->left + row), 4, LEFT_ROWS * 4, k_steps, panel);
    EACH_ROW(r) {
        __m512 scale = _mm512_set1_ps(a->scales[row + r]);
        EACH_VECTOR(v) {
            __mmask16 lanes = whole ? (__mmask16)0xffff : lanes16(columns, LANES * v);
            float *at = c + (row + r) * c_stride + LANES * v;
            __m512 before = add ? _mm512_maskz_loadu_ps(lanes, at) : _mm512_setzero_ps();
            _mm512_mask_storeu_ps(at, lanes, _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(acc[r][v]), before));
        }
    }
}

TARGET void bb_dot_add_int8(float *c, bool add, int64_t c_stride, int64_t columns, const bb_dot_quads *a, int64_t rows,
                            int64_t k_steps, const uint8_t *panel) {
    TILES(add_int8_tile, rows, columns, c, add, c_stride, columns, a, k_steps, panel);
}

/* ---- packing --------------------------------------------------------------------------------------------------------- */

INLINE __m512 load_row(const void *row, bb_dtype dtype, int64_t i, __mmask16 lanes) {
    if (dtype == BB_I8) return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes, (const int8_t *)row + i)));
    if (dtype == BB_F32) return _mm512_maskz_loadu_ps(lanes, (const float *)row + i);
    __m256i half = _mm256_maskz_loadu_epi16(lanes, (const bb_bf16 *)row + i);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* Packs two rows at a time while prefetching the pair PREFETCH_ROWS later: the rows of a tile are too far apart for hardware
 * prefetching. */
INLINE void pack_pairs(uint32_t *pairs, int64_t pairs_stride, const uint8_t *x, bb_dtype dtype, int64_t x_bytes, const float *s,
                       int64_t rows, int64_t n) {
    const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                                5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    int64_t row_bytes = n * (int64_t)bb_dtype_bytes(dtype);
    for (int64_t r = 0; r < rows; r += 2, x += 2 * x_bytes, pairs += pairs_stride) {
        bool both = r + 1 < rows;
        if (r + PREFETCH_ROWS + 1 < rows)
            for (int64_t i = 0; i < row_bytes; i += 64) {
                _mm_prefetch((const char *)(x + PREFETCH_ROWS * x_bytes + i), _MM_HINT_T0);
                _mm_prefetch((const char *)(x + (PREFETCH_ROWS + 1) * x_bytes + i), _MM_HINT_T0);
            }
        __m512 s0 = _mm512_set1_ps(s ? s[r] : 1.0f), s1 = _mm512_set1_ps(s && both ? s[r + 1] : 1.0f);
        for (int64_t i = 0; i < n; i += LANES) {
            __mmask16 lanes = lanes16(n, (int)i);
            __m512 low = _mm512_mul_ps(load_row(x, dtype, i, lanes), s0);
            __m512 high = _mm512_mul_ps(load_row(x + x_bytes, dtype, i, both ? lanes : (__mmask16)0), s1);
            _mm512_storeu_si512(pairs + i, _mm512_permutexvar_epi16(interleave, round_two(low, high)));
        }
    }
}

TARGET void bb_dot_pack_pairs(uint32_t *pairs, int64_t pairs_stride, const void *x, bb_dtype dtype, int64_t x_stride,
                              const float *s, int64_t rows, int64_t n) {
    if (dtype == BB_I8) /* a constant for each type, so that each has its own loop */
        pack_pairs(pairs, pairs_stride, x, BB_I8, x_stride, s, rows, n);
    else if (dtype == BB_BF16)
        pack_pairs(pairs, pairs_stride, x, BB_BF16, x_stride * 2, s, rows, n);
    else
        pack_pairs(pairs, pairs_stride, x, BB_F32, x_stride * 4, s, rows, n);
}

static void dot_pack_left(uint32_t *left, const void *x, bb_dtype dtype, int64_t x_stride, const float *s, int64_t tokens,
                          int64_t k_steps, int64_t rows) {
    (void)k_steps; /* pairs need no padding */
    bb_dot_pack_pairs(left, LEFT_ROWS, x, dtype, x_stride, s, tokens, rows);
}

/* Columns of A, 16 to a vector. */
enum { LEFT_VECTORS = BB_DOT_QUAD_ROWS / LANES };
#define EACH_LEFT(v) _Pragma("GCC unroll 6") for (int v = 0; v < LEFT_VECTORS; v++)

/* columns 16 v on of x, times s */
INLINE __m512 scaled_columns(const uint8_t *x, bb_dtype dtype, float s, int64_t n, int v) {
    return _mm512_mul_ps(load_row(x, dtype, (int64_t)LANES * v, lanes16(n, LANES * v)), _mm512_set1_ps(s));
}

INLINE void pack_quads(bb_dot_quads *a, const uint8_t *x, bb_dtype dtype, int64_t x_bytes, const float *s, int64_t tokens,
                       int64_t n) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff), low = _mm512_set1_epi32(0xff), ones = _mm512_set1_epi8(1);
    int64_t row_bytes = n * (int64_t)bb_dtype_bytes(dtype);
    __m512i max_bits[LEFT_VECTORS], q_sums[LEFT_VECTORS]; /* bit patterns: magnitudes compare as integers, with NaN largest */
    __m512 inverse[LEFT_VECTORS];
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

TARGET void bb_dot_pack_quads(bb_dot_quads *a, const void *x, bb_dtype dtype, int64_t x_stride, const float *s, int64_t tokens,
                              int64_t n) {
    if (dtype == BB_BF16) /* a constant for each type, so that each has its own loop */
        pack_quads(a, x, BB_BF16, x_stride * 2, s, tokens, n);
    else
        pack_quads(a, x, BB_F32, x_stride * 4, s, tokens, n);
}

TARGET void bb_dot_pack_codes(uint8_t *panel, const int8_t *x, int64_t x_stride, int64_t tokens, int64_t columns) {
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

static void no_op(void) {}

const bb_dot_set bb_dot_avx512 = {.int8_weight_gradient = true,
                                  .k_steps = 1,
                                  .rows = LEFT_ROWS,
                                  .columns = INT64_MAX,
                                  .tokens = 2048,
                                  .open = no_op,
                                  .close = no_op,
                                  .int8 = dot_int8,
                                  .add = dot_add,
                                  .pack_left = dot_pack_left};

/* Converts bytes q + 1 in the low halves of 32 words, whose high halves are zero, to q in bf16; 3 gives zero too. */
INLINE __m512i ternary_words(__m512i words) {
    /* both bytes of a word index the same table: the low one 0..3 for the low byte of the result, the high one 4..7 */
    const __m512i table = _mm512_set1_epi64((int64_t)0x003f00bf00800080);
    __m512i both = _mm512_or_si512(words, _mm512_slli_epi16(words, 8));
    return _mm512_shuffle_epi8(table, _mm512_add_epi8(both, _mm512_set1_epi16(0x0400)));
}

TARGET void bb_dot_expand_panel(bb_bf16 *out, const uint8_t *from, int64_t k_steps) {
    const __m512i low = _mm512_set1_epi32(0xffff);
    for (int64_t i = 0; i < k_steps; i++, from += BB_DOT_K_STEP_BYTES, out += BB_DOT_K_STEP_BYTES) {
        EACH_VECTOR(v) {
            __m512i four = _mm512_loadu_si512(from + 64 * v); /* 16 columns of 4 k */
            __m512i first = _mm512_and_si512(four, low), second = _mm512_srli_epi32(four, 16);
            /* (k, k+1) from bytes to words */
            first = _mm512_or_si512(_mm512_and_si512(first, _mm512_set1_epi32(0xff)),
                                    _mm512_slli_epi32(_mm512_srli_epi32(first, 8), 16));
            second = _mm512_or_si512(_mm512_and_si512(second, _mm512_set1_epi32(0xff)),
                                     _mm512_slli_epi32(_mm512_srli_epi32(second, 8), 16));
            _mm512_storeu_si512(out + 32 * v, ternary_words(first));
            _mm512_storeu_si512(out + BB_DOT_K_STEP_BYTES / 2 + 32 * v, ternary_words(second));
        }
    }
}

TARGET void bb_dot_expand_rows(bb_bf16 *out, const uint8_t *from, int64_t columns) {
    /* in 8 bytes, two rows of 4 k each: from (row, k) to (k, row) */
    const int64_t first = 0x0703060205010400, second = 0x0f0b0e0a0d090c08;
    const __m256i interleave = _mm256_set_epi64x(second, first, second, first);
    for (int64_t k = 0; k < BB_DOT_COLUMNS; k += 4, from += BB_DOT_K_STEP_BYTES) {
        if (k >= columns) {
            for (int64_t pair = 0; pair < 32; pair++) memset(out + pair * 128 + k * 2, 0, 16);
            continue;
        }
        for (int64_t pair = 0; pair < 32; pair += 4) { /* pairs of rows */
            __m256i rows = _mm256_loadu_si256((const __m256i *)(const void *)(from + pair * 8));
            __m512i words = ternary_words(_mm512_cvtepu8_epi16(_mm256_shuffle_epi8(rows, interleave)));
            bb_bf16 *to = out + pair * 128 + k * 2;
            _mm_storeu_si128((__m128i *)(void *)to, _mm512_castsi512_si128(words));
            _mm_storeu_si128((__m128i *)(void *)(to + 128), _mm512_extracti32x4_epi32(words, 1));
            _mm_storeu_si128((__m128i *)(void *)(to + 256), _mm512_extracti32x4_epi32(words, 2));
            _mm_storeu_si128((__m128i *)(void *)(to + 384), _mm512_extracti32x4_epi32(words, 3));
        }
    }
}

TARGET void bb_dot_expand_rows_int8(uint8_t *out, const uint8_t *from, int64_t columns) {
    /* transposes 4 rows of 4 k each */
    const __m512i transpose = _mm512_broadcast_i32x4(_mm_set_epi8(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0));
    for (int64_t k = 0; k < BB_DOT_COLUMNS && k < columns; k += 4, from += BB_DOT_K_STEP_BYTES)
        EACH_VECTOR(v) { /* 16 rows at a
                                                                                                                * time */
            __m512i rows = _mm512_shuffle_epi8(_mm512_loadu_si512(from + 64 * v), transpose);
            uint8_t *to = out + 4 * v * BB_DOT_K_STEP_BYTES + k * 4;
            _mm_storeu_si128((__m128i *)(void *)to, _mm512_castsi512_si128(rows));
            _mm_storeu_si128((__m128i *)(void *)(to + BB_DOT_K_STEP_BYTES), _mm512_extracti32x4_epi32(rows, 1));
            _mm_storeu_si128((__m128i *)(void *)(to + 2 * BB_DOT_K_STEP_BYTES), _mm512_extracti32x4_epi32(rows, 2));
            _mm_storeu_si128((__m128i *)(void *)(to + 3 * BB_DOT_K_STEP_BYTES), _mm512_extracti32x4_epi32(rows, 3));
        }
}

/* ---- quantizing ------------------------------------------------------------------------------------------------------ */

INLINE float absmax(const void *x, bb_dtype dtype, int64_t n) {
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

TARGET float bb_dot_absmax(const void *x, bb_dtype dtype, int64_t n) {
    return dtype == BB_F32 ? absmax(x, BB_F32, n) : absmax(x, BB_BF16, n);
}

INLINE int32_t quantize(int8_t *q, const void *x, bb_dtype dtype, float scale, int64_t n) {
    __m512i sum = _mm512_setzero_si512();
    for (int64_t i = 0; i < n; i += LANES) {
        __mmask16 lanes = lanes16(n - i, 0);
        __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(load_row(x, dtype, i, lanes), _mm512_set1_ps(scale)));
        sum = _mm512_add_epi32(sum, rounded);
        _mm_mask_storeu_epi8(q + i, lanes, _mm512_cvtepi32_epi8(rounded));
    }
    return _mm512_reduce_add_epi32(sum);
}

TARGET int32_t bb_dot_quantize(int8_t *q, const void *x, bb_dtype dtype, float scale, int64_t n) {
    return dtype == BB_F32 ? quantize(q, x, BB_F32, scale, n) : quantize(q, x, BB_BF16, scale, n);
}

#endif
