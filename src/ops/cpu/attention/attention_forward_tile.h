// SPDX-License-Identifier: MIT
/* The forward pass for one tile of queries, and for single queries, in f32 with the vocabulary of attention_simd.h. Included
 * once for each set but BF16. */
#ifndef ATTENTION_QUERIES
#define ATTENTION_QUERIES 512 /* per task: as many as share a packed tile of keys */
#define ATTENTION_KEYS 128    /* per packed tile */
#define ATTENTION_ROWS 32     /* queries processed against it at a time: their scores stay in the first-level cache */
#define INT8_KEYS 256         /* both for int8, whose products are faster, so that the cost per tile matters more */
#define INT8_ROWS 16

#define forward_buffers ATTENTION_NAME(forward_buffers)
#define softmax_layout ATTENTION_NAME(softmax_layout)
#define wide_layout ATTENTION_NAME(wide_layout)
#define forward_layout ATTENTION_NAME(forward_layout)
#define forward_bytes ATTENTION_NAME(forward_bytes)
#define pack_rows ATTENTION_NAME(pack_rows)
#define pack_values ATTENTION_NAME(pack_values)
#define pack_keys ATTENTION_NAME(pack_keys)
#define store_output ATTENTION_NAME(store_output)
#define scores ATTENTION_NAME(scores)
#define row_max ATTENTION_NAME(row_max)
#define update_max ATTENTION_NAME(update_max)
#define softmax ATTENTION_NAME(softmax)
#define store_tile ATTENTION_NAME(store_tile)
#define tile_rows ATTENTION_NAME(tile_rows)
#define forward_tile ATTENTION_NAME(forward_tile)
#define weighted_sum ATTENTION_NAME(weighted_sum)
#define direct_partial ATTENTION_NAME(direct_partial)
#define direct_merge ATTENTION_NAME(direct_merge)

/* Rows in f32, `stride` elements apart. */
typedef struct f32_rows {
    const float *at;
    int64_t stride;
} f32_rows;
#endif

/* Scratch of a task. Dp: D rounded up to VL. */
typedef struct forward_buffers {
    float *q;      /* (QUERIES, D) */
    float *k;      /* panels (D, KEYS) */
    float *v;      /* panels (KEYS, Dp) */
    float *s;      /* (ROWS, KEYS): raw scores, then weights before division by their sum */
    float *o;      /* (QUERIES, Dp), not yet divided */
    float *sum;    /* (QUERIES, VL), per lane */
    float *max;    /* (QUERIES), of the scaled scores in units of log2 e */
    float *alpha;  /* (ROWS), 2^(old max - new max) */
    float *wide;   /* (2, KEYS, D) and a vector: dequantized keys and values */
    int8_t *codes; /* (2, KEYS, D rounded up to 16): keys and values converted from six bits */
} forward_buffers;

/* The state of a tile's online softmax: `rows` queries at a time against `keys` keys; width: of a row of o. */
INLINE void softmax_layout(forward_buffers *f, bb_arena *arena, size_t rows, size_t keys, size_t width) {
    f->s = bb_arena_alloc(arena, rows * keys * sizeof(float));
    f->o = bb_arena_alloc(arena, ATTENTION_QUERIES * width * sizeof(float));
    f->sum = bb_arena_alloc(arena, ATTENTION_QUERIES * VL * sizeof(float));
    f->max = bb_arena_alloc(arena, ATTENTION_QUERIES * sizeof(float));
    f->alpha = bb_arena_alloc(arena, rows * sizeof(float));
}

/* Buffers for keys and values that are cached as codes. */
INLINE void wide_layout(forward_buffers *f, bb_arena *arena, int64_t D) {
    f->wide = bb_arena_alloc(arena, (2 * ATTENTION_KEYS * (size_t)D + VL) * sizeof(float));
    f->codes = bb_arena_alloc(arena, 2 * ATTENTION_KEYS * (size_t)bb_round_up(D, 16));
}

KERNEL forward_buffers forward_layout(bb_arena *arena, int64_t D) {
    size_t d = (size_t)D, dp = (size_t)bb_round_up(D, VL);
    forward_buffers f;
    f.q = bb_arena_alloc(arena, ATTENTION_QUERIES * d * sizeof(float));
    f.k = bb_arena_alloc(arena, ATTENTION_KEYS * d * sizeof(float));
    f.v = bb_arena_alloc(arena, ATTENTION_KEYS * (size_t)bb_round_up(D, PANEL) * sizeof(float));
    softmax_layout(&f, arena, ATTENTION_ROWS, ATTENTION_KEYS, dp);
    wide_layout(&f, arena, D);
    return f;
}

KERNEL size_t forward_bytes(int64_t D) {
    bb_arena measure = {0};
    forward_layout(&measure, D);
    return measure.used;
}

INLINE float row_max(const float *s, int64_t n) {
    vf max = vset1(-INFINITY);
    int64_t j = 0;
    for (; j + VL <= n; j += VL) max = vmax(max, vload(s + j));
    if (j < n) max = vmax(max, vkeep(vload(s + j), n - j, -INFINITY));
    return vreduce_max(max);
}

#include "ops/cpu/attention/attention_cached_tile.h"

/* -- packing: src is (rows, D) with a row stride --------------------------------------------------------------------------- */
/* dst (padded, D): the rows, then zeros. */
INLINE void pack_rows(float *dst, const float *src, int64_t stride, int64_t rows, int64_t padded, int64_t D) {
    size_t bytes = (size_t)D * sizeof *src;
    for (int64_t r = 0; r < rows; r++) {
        if (r + PREFETCH_ROWS < rows) prefetch_row(src + (r + PREFETCH_ROWS) * stride, bytes);
        memcpy(dst + r * D, src + r * stride, bytes);
    }
    memset(dst + rows * D, 0, (size_t)(padded - rows) * bytes);
}

/* dst: panels (KEYS, Dp); writes only the given rows. */
INLINE void pack_values(float *dst, const float *src, int64_t stride, int64_t rows, int64_t D) {
    for (int64_t r = 0; r < rows; r++, src += stride) {
        if (r + PREFETCH_ROWS < rows) prefetch_row(src + PREFETCH_ROWS * stride, (size_t)D * sizeof *src);
        for (int64_t d = 0; d < D; d += VL) {
            float *to = dst + (d / PANEL * ATTENTION_KEYS + r) * PANEL + d % PANEL;
            vstore(to, D - d >= VL ? vload(src + d) : vload_first(src + d, D - d));
        }
    }
}

/* dst: panels (D, padded): element (d, r) is element d of row r, 0 past the rows. padded % 16 == 0. */
#if ATTENTION_SET >= ATTENTION_AVX512
KERNEL void pack_keys(float *dst, const float *src, int64_t stride, int64_t rows, int64_t padded, int64_t D) {
    for (int64_t r = 0; r < padded; r += 16) {
        for (int64_t i = r + 16; i < r + 32 && i < rows; i++) prefetch_row(src + i * stride, (size_t)D * sizeof *src);
        for (int64_t d = 0; d < D; d += 16) {
            int64_t columns = bb_clamp(D - d, 0, 16);
            __mmask16 mask = (__mmask16)((1u << columns) - 1);
            float *to = dst + (r / PANEL * D + d) * PANEL + r % PANEL;
            __m512i x[16];
            for (int i = 0; i < 16; i++) x[i] = _mm512_maskz_loadu_epi32(r + i < rows ? mask : 0, src + (r + i) * stride + d);
            bb_transpose16(x);
            for (int64_t i = 0; i < columns; i++) _mm512_storeu_si512(to + i * PANEL, x[i]);
        }
    }
}
#else
KERNEL void pack_keys(float *dst, const float *src, int64_t stride, int64_t rows, int64_t padded, int64_t D) {
    for (int64_t r = 0; r < padded; r++)
        for (int64_t d = 0; d < D; d++) dst[(r / PANEL * D + d) * PANEL + r % PANEL] = r < rows ? src[r * stride + d] : 0.0f;
}
#endif

/* -- a tile ---------------------------------------------------------------------------------------------------------------- */
/* s (rows, keys) = q kT, each register block of rows as far as its last row sees: row m sees keys 0..m + diagonal. */
INLINE void scores(float *s, const float *q, const float *k, int64_t rows, int64_t keys, int64_t diagonal, int64_t D) {
    for (int64_t n = 0; n < keys; n += PANEL)
        for (int64_t m = 0; m < rows; m += ATTENTION_MR) {
            int64_t seen = bb_clamp(m + diagonal + ATTENTION_MR, 0, keys) - n;
            if (seen <= 0) continue;
            block_of(s + m * ATTENTION_KEYS + n, ATTENTION_KEYS, q + m * D, D, 1, k + n * D, D,
                     bb_clamp((seen + VL - 1) / VL, 1, NR), PRODUCT_SET, NULL);
        }
}

/* Updates the maxima of rows row0.. of the tile and alpha from the scores s, rows lds apart, and sets top (ROWS), unless NULL,
 * to the largest weight of each row in the tile. rows <= ROWS. */
INLINE void update_max(float *max, float *alpha, float *top, const float *s, int64_t lds, int64_t rows, int64_t keys,
                       int64_t diagonal, float c, bool first) {
    float tile_max[ATTENTION_ROWS];
    for (int64_t m = 0; m < rows; m++) tile_max[m] = row_max(s + m * lds, bb_clamp(m + diagonal + 1, 0, keys));
    for (int64_t m = 0; m < rows; m += VL) {
        vf now = vload(tile_max + m) * vset1(c), here = now;
        if (!first) {
            vf old = vload(max + m);
            now = vmax(old, now);
            vstore(alpha + m, vexp2(old - now));
        }
        vstore(max + m, now);
        if (top) vstore(top + m, vexp2(here - now));
    }
}

/* The online softmax of a tile of scores, in place: 2^(c s - new max); updates max, sum and alpha. rows <= ROWS. */
INLINE void softmax(const forward_buffers *f, int64_t row0, int64_t rows, int64_t keys, int64_t diagonal, float c, bool first) {
    float *max = f->max + row0, *sum = f->sum + row0 * VL;
    update_max(max, f->alpha, NULL, f->s, ATTENTION_KEYS, rows, keys, diagonal, c, first);
    for (int64_t m = 0; m < rows; m++) {
        float *s = f->s + m * ATTENTION_KEYS;
        vf scale = vset1(c), minus_max = vset1(-max[m]), total = vset1(0.0f);
        int64_t seen = bb_clamp(m + diagonal + 1, 0, keys), j = 0;
        for (; j + VL <= seen; j += VL) {
            vf x = vexp2(vfma(vload(s + j), scale, minus_max));
            total = total + x;
            vstore(s + j, x);
        }
        if (j < seen) {
            vf x = vkeep(vexp2(vfma(vload(s + j), scale, minus_max)), seen - j, 0.0f);
            total = total + x;
            vstore(s + j, x);
            j += VL;
        }
        /* as far as the register block reads: at most MR further */
        for (; j < seen + ATTENTION_MR && j < ATTENTION_KEYS; j += VL) vstore(s + j, vset1(0.0f));
        vstore(sum + m * VL, first ? total : vfma(vload(sum + m * VL), vset1(f->alpha[m]), total));
    }
}

/* Stores the D elements of an output row, and its kept copy. */
INLINE void store_output(float *o, bb_bf16 *kept, const float *x, float scale, int64_t D) {
    for (int64_t d = 0; d < D; d += VL) {
        vf y = vload(x + d) * vset1(scale);
        vstore_first(o + d, y, bb_clamp(D - d, 0, VL));
        if (kept) store_bf16(kept + d, y, bb_clamp(D - d, 0, VL));
    }
}

/* Stores the output of the tile: rows of f->o, ldv apart, divided by their sums. */
INLINE void store_tile(float *o, bb_bf16 *kept, float *lse, const forward_buffers *f, int64_t ldv, const bb_attention *a,
                       int64_t b, int64_t h, int64_t t0, int64_t rows) {
    for (int64_t m = 0; m < rows; m++) {
        float sum = vreduce_add(vload(f->sum + m * VL));
        int64_t at = (b * a->Tq + t0 + m) * a->o_stride + h * a->D;
        store_output(o + at, kept ? kept + at : NULL, f->o + m * ldv, 1.0f / sum, a->D);
        if (lse) lse[(b * a->H + h) * a->Tq + t0 + m] = f->max[m] * (float)M_LN2 + logf(sum);
    }
}

/* The tile of `keys` keys and values from key0 on. */
INLINE void tile_rows(f32_rows *keys_at, f32_rows *values_at, const forward_buffers *f, const float *k, const float *v,
                      const bb_kv_layer *kv, const bb_attention *a, int64_t b, int64_t h, int64_t key0, int64_t keys) {
    int64_t D = a->D, at = b * a->kv_batch_stride + key0 * a->kv_stride + h / (a->H / a->Hk) * D;
    if (kv) {
        cached_rows codes = cached_from(kv, h / (a->H / a->Hk), key0, D);
        float *wide_v = f->wide + ATTENTION_KEYS * D;
        if (kv->type == BB_KV_INT6) cached_unpack(&codes, f->codes, keys, ATTENTION_KEYS, D);
        expand_codes(f->wide, codes.k, codes.k_scale, codes.width, keys, D);
        expand_codes(wide_v, codes.v, codes.v_scale, codes.width, keys, D);
        *keys_at = (f32_rows){f->wide, D};
        *values_at = (f32_rows){wide_v, D};
    } else {
        *keys_at = (f32_rows){k + at, a->kv_stride};
        *values_at = (f32_rows){v + at, a->kv_stride};
    }
}

/* Queries t0..t0+QUERIES-1 of head h of sequence b. kv: NULL, or the codes to use instead of k and v. */
KERNEL void forward_tile(float *o, bb_bf16 *kept, float *lse, const float *q, const float *k, const float *v,
                         const bb_kv_layer *kv, const bb_attention *a, int64_t b, int64_t h, int64_t t0, void *scratch) {
    bb_arena arena = {scratch, 0};
    int64_t D = a->D, ldv = bb_round_up(D, VL), rows = bb_clamp(a->Tq - t0, 0, ATTENTION_QUERIES);
    int64_t q_row = b * a->Tq + t0, see = t0 + a->Tk - a->Tq; /* query m of the tile sees keys 0..m + see */
    float c = (float)(M_LOG2E / sqrt((double)D));
    forward_buffers f = forward_layout(&arena, D);

    pack_rows(f.q, q + q_row * a->q_stride + h * D, a->q_stride, rows, bb_round_up(rows, ATTENTION_MR), D);
    for (int64_t key0 = 0; key0 < see + rows; key0 += ATTENTION_KEYS) {
        int64_t keys = bb_clamp(see + rows - key0, 0, ATTENTION_KEYS);
        f32_rows key_rows, value_rows;
        tile_rows(&key_rows, &value_rows, &f, k, v, kv, a, b, h, key0, keys);
        pack_keys(f.k, key_rows.at, key_rows.stride, keys, bb_round_up(keys, 16), D);
        pack_values(f.v, value_rows.at, value_rows.stride, keys, D);
        for (int64_t m = 0; m < rows; m += ATTENTION_ROWS) {
            int64_t part = bb_clamp(bb_round_up(rows - m, ATTENTION_MR), 0, ATTENTION_ROWS), diagonal = m + see - key0;
            if (diagonal + part <= 0) continue;
            scores(f.s, f.q + m * D, f.k, part, keys, diagonal, D);
            softmax(&f, m, part, keys, diagonal, c, key0 == 0);
            if (key0 == 0)
                accumulate(f.o + m * ldv, ldv, f.s, VL * ATTENTION_KEYS, ATTENTION_KEYS, 1, f.v, ATTENTION_KEYS, part, ldv,
                           keys, ATTENTION_KEYS, diagonal, PRODUCT_SET, NULL);
            else
                accumulate(f.o + m * ldv, ldv, f.s, VL * ATTENTION_KEYS, ATTENTION_KEYS, 1, f.v, ATTENTION_KEYS, part, ldv,
                           keys, ATTENTION_KEYS, diagonal, PRODUCT_SCALE, f.alpha);
        }
    }
    store_tile(o, kept, lse, &f, ldv, a, b, h, t0, rows);
}

#if ATTENTION_SET == ATTENTION_VNNI
#include "ops/cpu/attention/attention_codes_tile.h"
#include "ops/cpu/attention/attention_int6_tile.h"
#include "ops/cpu/attention/attention_int8.h"

#include "ops/cpu/attention/attention_forward_int8.h"
#endif

/* -- small batches of queries, as in decoding: the cache is read in place, once
 * ----------------------------------------------- */
/* y (vectors * VL) = sum_j weight[j] v[j,:]. If vectors is 1, a constant, the last vector has only `last` elements. */
INLINE void weighted_sum(float *y, const float *weight, const float *v, int64_t stride, int64_t keys, int vectors,
                         int64_t last) {
    vf sum[8];
    for (int i = 0; i < vectors; i++) sum[i] = vset1(0.0f);
    for (int64_t j = 0; j < keys; j++, v += stride) {
        if (j + PREFETCH_ROWS < keys) prefetch_row(v + PREFETCH_ROWS * stride, (size_t)vectors * sizeof(vf));
        if (vectors == 1 && last < VL)
            sum[0] = vfma(vset1(weight[j]), vload_first(v, last), sum[0]);
        else
            for (int i = 0; i < vectors; i++) sum[i] = vfma(vset1(weight[j]), vload(v + i * VL), sum[i]);
    }
    for (int i = 0; i < vectors; i++) vstore(y + i * VL, sum[i]);
}

/* The `keys` keys at k for one query. partial: (Dp + 16), the weighted sum of v, then at Dp the maximum and the sum of the
 * weights; Dp: D rounded up to 16. k, v: rows of kv_stride. scratch: direct_bytes(D). */
KERNEL void direct_partial(float *partial, const float *q, const float *k, const float *v, int64_t kv_stride, int64_t keys,
                           int64_t D, void *scratch) {
    int64_t whole = D / VL * VL, dp = bb_round_up(D, 16);
    float *query = scratch, *s = query + dp;
    vf scale = vset1((float)(M_LOG2E / sqrt((double)D)));
    for (int64_t d = 0; d < whole; d += VL) vstore(query + d, vload(q + d) * scale);
    if (whole < D) vstore(query + whole, vload_first(q + whole, D - whole) * scale);

    for (int64_t j = 0; j < keys; j++) {
        const float *key = k + j * kv_stride;
        vf sum = vset1(0.0f);
        if (j + PREFETCH_ROWS < keys) prefetch_row(key + PREFETCH_ROWS * kv_stride, (size_t)D * sizeof *key);
        for (int64_t d = 0; d < whole; d += VL) sum = vfma(vload(query + d), vload(key + d), sum);
        if (whole < D) sum = vfma(vload(query + whole), vload_first(key + whole, D - whole), sum);
        s[j] = vreduce_add(sum);
    }
    float max = row_max(s, keys);
    vf total = vset1(0.0f), minus_max = vset1(-max);
    for (int64_t j = 0; j < keys; j += VL) {
        vf x = vexp2(vload(s + j) + minus_max);
        if (keys - j < VL) x = vkeep(x, keys - j, 0.0f);
        total = total + x;
        vstore(s + j, x);
    }
    int64_t d = 0;
    for (; d + 8 * VL <= D; d += 8 * VL) weighted_sum(partial + d, s, v + d, kv_stride, keys, 8, VL);
    for (; d + 4 * VL <= D; d += 4 * VL) weighted_sum(partial + d, s, v + d, kv_stride, keys, 4, VL);
    for (; d < D; d += VL) weighted_sum(partial + d, s, v + d, kv_stride, keys, 1, bb_clamp(D - d, 0, VL));
    partial[dp] = max;
    partial[dp + 1] = vreduce_add(total);
}

/* partials: (count, Dp + 16) of one query, in the order of their keys. */
KERNEL void direct_merge(float *o, bb_bf16 *kept, float *lse, const float *partials, int64_t count, int64_t D) {
    int64_t dp = bb_round_up(D, 16), ld = dp + 16;
    float max = -INFINITY, total = 0.0f;
    for (int64_t i = 0; i < count; i++) max = partials[i * ld + dp] > max ? partials[i * ld + dp] : max;
    vf minus_max = vset1(-max);
    for (int64_t i = 0; i < count; i++) {
        float weight[VL];
        vstore(weight, vexp2(vset1(partials[i * ld + dp]) + minus_max));
        total += weight[0] * partials[i * ld + dp + 1];
    }
    for (int64_t d = 0; d < D; d += VL) {
        vf sum = vset1(0.0f);
        for (int64_t i = 0; i < count; i++)
            sum = vfma(vexp2(vset1(partials[i * ld + dp]) + minus_max), vload(partials + i * ld + d), sum);
        sum = sum * vset1(1.0f / total);
        vstore_first(o + d, sum, bb_clamp(D - d, 0, VL));
        if (kept) store_bf16(kept + d, sum, bb_clamp(D - d, 0, VL));
    }
    if (lse) *lse = max * (float)M_LN2 + logf(total);
}
