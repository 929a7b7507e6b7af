/* The products of dot.h on tile registers: 32 rows of A times 32 columns of a panel at a time. What follows a product is done
 * row by row between the instructions of the next one, which leave the vector units idle.
 * SPDX-License-Identifier: MIT */
#include "ops/cpu/dot.h"

#if defined(__x86_64__)

#include "ops/cpu/amx.h"
#include "ops/cpu/dot_simd.h"
#include "ops/cpu/transpose.h"

enum {
    SIDE = 2 * BB_AMX_ROWS,                      /* of a block of sums */
    STEPS = BB_AMX_WORDS,                        /* of a panel in a tile */
    TILE_BYTES = BB_AMX_ROWS * BB_AMX_BYTES,     /* of A, packed */
    TILE_PANEL_BYTES = STEPS * BB_DOT_STEP_BYTES /* of the panel, from one product to the next */
};

/* Sums that wait for what follows the product: row `next` and those after it. */
typedef struct pending {
    int64_t row, rows, next, column, columns; /* of the tile; columns 0 .. 32 */
    _Alignas(64) int32_t sums[SIDE * SIDE];
} pending;

typedef void finish_function(const void *context, int64_t row, int64_t column, int64_t columns, const int32_t *sums);

typedef enum amx_kind { AMX_INT8, AMX_BF16 } amx_kind;

typedef struct left_side {
    const uint8_t *rows;                       /* the first of 32 */
    int64_t row_bytes, half_bytes, step_bytes; /* from row to row, to the second 16 rows, from product to product */
} left_side;

INLINE void finish_some(pending *p, int64_t count, finish_function *finish, const void *context) {
    int64_t end = p->next + count < p->rows ? p->next + count : p->rows;
    for (; p->next < end; p->next++) finish(context, p->row + p->next, p->column, p->columns, p->sums + p->next * SIDE);
}

/* The sums of a block are left in p, whose own are finished meanwhile. */
INLINE void product(amx_kind kind, bool both, left_side a, const uint8_t *panel, int64_t products, pending *p,
                    finish_function *finish, const void *context) {
    int64_t each = (p->rows + products - 1) / products;
    BB_AMX_ZERO(0);
    BB_AMX_ZERO(1);
    if (both) {
        BB_AMX_ZERO(2);
        BB_AMX_ZERO(3);
    }
    for (int64_t i = 0; i < products; i++, a.rows += a.step_bytes, panel += TILE_PANEL_BYTES) {
        BB_AMX_LOAD(6, panel, BB_DOT_STEP_BYTES);
        BB_AMX_LOAD(4, a.rows, a.row_bytes);
        BB_AMX_LOAD(7, panel + BB_AMX_BYTES, BB_DOT_STEP_BYTES);
        if (both) BB_AMX_LOAD(5, a.rows + a.half_bytes, a.row_bytes);
        if (kind == AMX_INT8) {
            BB_AMX_INT8(0, 4, 6);
            BB_AMX_INT8(1, 4, 7);
            if (both) {
                BB_AMX_INT8(2, 5, 6);
                BB_AMX_INT8(3, 5, 7);
            }
        } else {
            BB_AMX_BF16(0, 4, 6);
            BB_AMX_BF16(1, 4, 7);
            if (both) {
                BB_AMX_BF16(2, 5, 6);
                BB_AMX_BF16(3, 5, 7);
            }
        }
        finish_some(p, each, finish, context);
    }
    finish_some(p, SIDE, finish, context);
    BB_AMX_STORE(0, p->sums, SIDE * sizeof *p->sums);
    BB_AMX_STORE(1, p->sums + BB_AMX_WORDS, SIDE * sizeof *p->sums);
    if (both) {
        BB_AMX_STORE(2, p->sums + BB_AMX_ROWS * SIDE, SIDE * sizeof *p->sums);
        BB_AMX_STORE(3, p->sums + BB_AMX_ROWS * SIDE + BB_AMX_WORDS, SIDE * sizeof *p->sums);
    }
}

/* All blocks of `rows` rows and `columns` columns. block_bytes: of A, from 32 rows to the next. */
INLINE void products(amx_kind kind, left_side a, int64_t block_bytes, int64_t rows, int64_t columns, const uint8_t *panel,
                     int64_t count, finish_function *finish, const void *context) {
    pending p;
    p.rows = p.next = 0;
    for (int64_t row = 0; row < rows; row += SIDE, a.rows += block_bytes) {
        int64_t here = rows - row < SIDE ? rows - row : SIDE;
        bool both = here > BB_AMX_ROWS;
        if (here < SIDE) bb_amx_configure(both ? BB_AMX_ROWS : (int)here, both ? (int)here - BB_AMX_ROWS : BB_AMX_ROWS);
        for (int64_t column = 0; column < columns; column += SIDE) {
            const uint8_t *half = panel + column * (int64_t)sizeof(int32_t);
            if (both)
                product(kind, true, a, half, count, &p, finish, context);
            else
                product(kind, false, a, half, count, &p, finish, context);
            p.row = row;
            p.rows = here;
            p.next = 0;
            p.column = column;
            p.columns = columns - column < SIDE ? columns - column : SIDE;
        }
        if (here < SIDE) bb_amx_open();
    }
    finish_some(&p, SIDE, finish, context);
}

/* ---- int8 ------------------------------------------------------------------------------------------------------------ */

typedef struct int8_context {
    bb_dot_output out;
    const int32_t *a_sums;
    const float *s;
    float g;
} int8_context;

INLINE void finish_int8(const void *context, int64_t row, int64_t column, int64_t columns, const int32_t *sums) {
    const int8_context *c = context;
    __m512i offset = _mm512_set1_epi32(c->a_sums[row]);
    __m512 scale = _mm512_set1_ps(c->s[row] * c->g), values[2];
    for (int v = 0; v < 2; v++)
        values[v] = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_load_si512(sums + v * LANES), offset)));
    int64_t at = row * c->out.stride + column;
    if (c->out.dtype == BB_BF16) {
        _mm512_mask_storeu_epi16((bb_bf16 *)c->out.y + at, lanes32(columns, 0), round_two(values[0], values[1]));
        return;
    }
    float *y = (float *)c->out.y + at;
    for (int v = 0; v < 2; v++) {
        __mmask16 lanes = lanes16(columns, v * LANES);
        if (c->out.residual) {
            values[v] = _mm512_add_ps(values[v], _mm512_maskz_loadu_ps(lanes, c->out.residual + at + v * LANES));
        }
        _mm512_mask_storeu_ps(y + v * LANES, lanes, values[v]);
    }
}

TARGET void bb_dot_amx_int8(bb_dot_output out, const int8_t *a, int64_t a_stride, int64_t rows, int64_t steps,
                            const uint8_t *panel, const int32_t *a_sums, const float *s, float g) {
    int8_context c = {out, a_sums, s, g};
    left_side left = {(const uint8_t *)a, a_stride, BB_AMX_ROWS * a_stride, BB_AMX_BYTES};
    products(AMX_INT8, left, SIDE * a_stride, rows, out.columns, panel, steps / STEPS, finish_int8, &c);
}

/* ---- bf16 ------------------------------------------------------------------------------------------------------------ */

typedef struct add_context {
    float *c;
    int64_t stride;
} add_context;

INLINE void finish_add(const void *context, int64_t row, int64_t column, int64_t columns, const int32_t *sums) {
    const add_context *c = context;
    float *at = c->c + row * c->stride + column;
    for (int v = 0; v < 2; v++) {
        __mmask16 lanes = lanes16(columns, v * LANES);
        __m512 sum = _mm512_castsi512_ps(_mm512_load_si512(sums + v * LANES));
        _mm512_mask_storeu_ps(at + v * LANES, lanes, _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes, at + v * LANES)));
    }
}

TARGET void bb_dot_amx_add(float *c, int64_t c_stride, int64_t columns, const uint32_t *left, int64_t rows, int64_t steps,
                           const void *panel) {
    add_context context = {c, c_stride};
    int64_t half = steps / STEPS * TILE_BYTES;
    left_side a = {(const uint8_t *)left, BB_AMX_BYTES, half, TILE_BYTES};
    products(AMX_BF16, a, 2 * half, rows, columns, panel, steps / STEPS, finish_add, &context);
}

/* Of 16 rows of A the tiles follow each other. */
TARGET void bb_dot_amx_pack_left(uint32_t *left, const void *x, bb_dtype dtype, int64_t x_stride, const float *s,
                                 int64_t tokens, int64_t steps, int64_t rows) {
    int64_t column_bytes = BB_AMX_ROWS * (int64_t)bb_dtype_bytes(dtype);
    for (int64_t r = 0; r < rows; r += BB_AMX_ROWS) {
        int64_t columns = rows - r < BB_AMX_ROWS ? rows - r : BB_AMX_ROWS;
        const uint8_t *from = (const uint8_t *)x + r / BB_AMX_ROWS * column_bytes;
        for (int64_t t = 0; t < 2 * steps; t += 2 * STEPS, left += BB_AMX_ROWS * BB_AMX_WORDS) {
            __m512i pairs[STEPS];
            int64_t left_tokens = tokens - t;
            for (int i = 0; i < STEPS; i++) pairs[i] = _mm512_setzero_si512();
            bb_dot_pack_pairs((uint32_t *)pairs, STEPS, from + t * x_stride * (int64_t)bb_dtype_bytes(dtype), dtype, x_stride,
                              s ? s + t : NULL, left_tokens < 2 * STEPS ? left_tokens : 2 * STEPS, columns);
            bb_transpose16(pairs);
            for (int i = 0; i < BB_AMX_ROWS; i++) _mm512_storeu_si512(left + i * BB_AMX_WORDS, pairs[i]);
        }
    }
}

#endif
