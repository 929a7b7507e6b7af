// SPDX-License-Identifier: MIT
/* Compiled once for each instruction set: in bf16 where there is AVX-512 BF16, in int16 elsewhere. */
#include "ops/cpu/optimizer/muon_set.h"

#include "ops/cpu/vector/lanes.h"

enum {
    SIDE = BB_MUON_SIDE,
    WORDS = BB_MUON_WORDS,
    NR = 2,                  /* vectors and */
    MR = VL == 16 ? 8 : 4,   /* rows of a register block */
    SIDE_VECTORS = SIDE / VL /* of a block's row */
};

#if defined(__AVX512BF16__)
#define CODE_MAX 0.0f
typedef vf acc;
LANES_INLINE vf acc_start(const float *c, bool add) { return add ? vload(c) : vset1(0.0f); }
LANES_INLINE void acc_store(float *c, vf sum, bool add) {
    (void)add;
    vstore(c, sum);
}
LANES_INLINE vf acc_dot(vf sum, vi left, vi right) {
    BB_DOT_BF16_512(sum, left, right);
    return sum;
}
LANES_INLINE void store_row_words(uint32_t *to, vf low, vf high, vf inverse) {
    (void)inverse;
    vistore(to, (vi)_mm512_cvtne2ps_pbh(high, low));
}
LANES_INLINE vi column_words(vf even, vf odd, vf inverse) {
    const vi interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5,
                                           20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    (void)inverse;
    return _mm512_permutexvar_epi16(interleave, (vi)_mm512_cvtne2ps_pbh(odd, even));
}
#else
#define CODE_MAX 2895.0f /* its square times 256 is less than 2^31 */
typedef vi acc;
LANES_INLINE vi acc_start(const float *c, bool add) {
    (void)c;
    (void)add;
    return vizero();
}
LANES_INLINE void acc_store(float *c, vi sum, bool add) {
    vf x = vi_to_f32(sum);
    if (add) x = vload(c) + x;
    vstore(c, x);
}
LANES_INLINE vi acc_dot(vi sum, vi left, vi right) { return vidot_pairs(sum, left, right); }
LANES_INLINE void store_row_words(uint32_t *to, vf low, vf high, vf inverse) {
    vstore_i16((int16_t *)(void *)to, low * inverse);
    vstore_i16((int16_t *)(void *)to + VL, high * inverse);
}
LANES_INLINE vi column_words(vf even, vf odd, vf inverse) { return vipair(vround(even * inverse), vround(odd * inverse)); }
#endif

static void multiply(float *c, bool add, const uint32_t *left, int64_t stride, const uint32_t *right, int64_t k_tiles) {
    for (int64_t column = 0; column < SIDE; column += NR * VL)
        for (int64_t row = 0; row < SIDE; row += MR) {
            acc sum[MR][NR];
            float *to = c + row * SIDE + column;
            const uint32_t *a = left + row * stride, *b = right + column;
            LANES_EACH(r, MR) LANES_EACH(n, NR) sum[r][n] = acc_start(to + r * SIDE + n * VL, add);
            for (int64_t k = 0; k < k_tiles * WORDS; k++, b += SIDE) {
                vi x[NR];
                LANES_EACH(n, NR) x[n] = viload(b + n * VL);
                LANES_EACH(r, MR) {
                    vi word = viset1((int32_t)a[r * stride + k]);
                    LANES_EACH(n, NR) sum[r][n] = acc_dot(sum[r][n], word, x[n]);
                }
            }
            LANES_EACH(r, MR) LANES_EACH(n, NR) acc_store(to + r * SIDE + n * VL, sum[r][n], add);
        }
}

/* ---- operands -------------------------------------------------------------------------------------------------------- */

static void rows(uint32_t *to, int64_t stride, const float *c, const float *inverse) {
    for (int64_t r = 0; r < SIDE; r++, c += SIDE, to += stride)
        for (int64_t i = 0; i < SIDE; i += 2 * VL)
            store_row_words(to + i / 2, vload(c + i), vload(c + i + VL), vset1(inverse[r]));
}

static void columns(uint32_t *to, const float *c, const float *inverse) {
    for (int64_t p = 0; p < WORDS; p++, c += 2 * SIDE, to += SIDE)
        for (int64_t i = 0; i < SIDE; i += VL)
            vistore(to + i, column_words(vload(c + i), vload(c + SIDE + i), vload(inverse + i)));
}

static void transpose(uint32_t *to, int64_t to_stride, const uint32_t *from, int64_t from_stride) {
    for (int64_t i = 0; i < WORDS; i += VL)
        for (int64_t j = 0; j < WORDS; j += VL) {
            vi x[VL];
            for (int r = 0; r < VL; r++) x[r] = viload(from + (i + r) * from_stride + j);
            vitranspose(x);
            for (int r = 0; r < VL; r++) vistore(to + (j + r) * to_stride + i, x[r]);
        }
}

/* ---- results --------------------------------------------------------------------------------------------------------- */

static void polynomial(float *c, const float *a) {
    const vf linear = vset1((float)BB_MUON_B), square = vset1((float)BB_MUON_C);
    for (int64_t i = 0; i < BB_MUON_BLOCK; i += VL) vstore(c + i, vfma(linear, vload(a + i), square * vload(c + i)));
}

static void correct(float *c, const bb_muon_correction *f) {
    for (int64_t r = 0; r < SIDE; r++)
        for (int64_t i = 0; i < SIDE; i += VL) {
            int64_t at = r * SIDE + i;
            vf x = vload(c + at) * (vset1(f->row_scale[r]) * vload(f->column_scale + i));
            if (f->right) x = vfma(vset1(f->left_diagonal[r]), vload(f->right + at), x);
            if (f->left) x = vfma(vload(f->right_diagonal + i), vload(f->left + at), x);
            vstore(c + at, x);
        }
}

static void maxima(uint32_t row_max[SIDE], uint32_t column_max[SIDE], const float *c) {
    vi max[SIDE_VECTORS];
    LANES_EACH(i, SIDE_VECTORS) max[i] = vizero();
    for (int64_t r = 0; r < SIDE; r++, c += SIDE) {
        vi row = vizero();
        LANES_EACH(i, SIDE_VECTORS) {
            vf x = vabs(vload(c + i * VL));
            row = vmax_bits(row, x);
            max[i] = vmax_bits(max[i], x);
        }
        row_max[r] = bb_bits_of_f32(vreduce_bits(row));
    }
    LANES_EACH(i, SIDE_VECTORS) vistore(column_max + i * VL, max[i]);
}

/* ---- rows of numbers ------------------------------------------------------------------------------------------------- */

static void momentum(float *u, double *squares, const float *g, bb_bf16 *m, int64_t n, const bb_muon_momentum *k) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        float gradient = g[i] * k->scale * k->rest, b = k->mu * bb_f32_from_bf16(m[i]) + gradient;
        m[i] = bb_bf16_from_f32(b);
        u[i] = gradient + k->mu * b;
        sum += u[i] * u[i];
    }
    *squares = (double)sum;
}

static void scale(float *x, float factor, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) x[i] *= factor;
}

static void update(float *p, const float *x, float kept, float lr, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) p[i] = p[i] * kept - lr * x[i];
}

const bb_muon_set SET_NAME(bb_muon) = {.code_max = CODE_MAX,
                                       .momentum = momentum,
                                       .scale = scale,
                                       .update = update,
                                       .rows = rows,
                                       .columns = columns,
                                       .transpose = transpose,
                                       .polynomial = polynomial,
                                       .correct = correct,
                                       .maxima = maxima};
const bb_muon_blocks SET_NAME(bb_muon_blocks) = {.multiply = multiply};
