// SPDX-License-Identifier: MIT
/* The forward pass in int8, used when a backward pass in int8 follows: the scores are exactly those of that pass. All keys and
 * values are packed first, then each task takes a tile of queries. Values have scale max/127 of their column in the tile; a
 * query's weights in a tile of keys have scale max/255.  */

/* A tile of keys and values. D4: D rounded up to 4; Dp: D rounded up to VL. */
typedef struct int8_keys {
    __m512i *k;     /* panels (D4 / 4, KEYS), biased by 128 */
    float *k_scale; /* (KEYS) */
    __m512i *v;     /* panels (KEYS / 4, Dp) */
    float *v_scale; /* (Dp) */
} int8_keys;

INLINE int8_keys int8_keys_layout(bb_arena *arena, int64_t D) {
    int8_keys t;
    t.k = bb_arena_alloc(arena, INT8_KEYS * (size_t)bb_round_up(D, QUAD));
    t.k_scale = bb_arena_alloc(arena, INT8_KEYS * sizeof(float));
    t.v = bb_arena_alloc(arena, INT8_KEYS * (size_t)bb_round_up(D, PANEL));
    t.v_scale = bb_arena_alloc(arena, (size_t)bb_round_up(D, VL) * sizeof(float));
    return t;
}

KERNEL size_t int8_keys_bytes(int64_t D) {
    bb_arena measure = {0};
    int8_keys_layout(&measure, D);
    return measure.used;
}

/* Scratch of a task. */
typedef struct int8_buffers {
    forward_buffers f;   /* s: (ROWS, KEYS), sum, max, alpha, o: (QUERIES, Dp); the others are unused */
    int8_t *q;           /* (QUERIES, D4) */
    float *q_scale;      /* (QUERIES), times log2 e / sqrt(D) */
    int32_t *q_acc_init; /* (QUERIES) */
    int8_t *packing;     /* (16, D rounded up to 64) */
    uint8_t *weight;     /* (ROWS, KEYS) */
    float *weight_scale; /* (ROWS) */
    float *top;          /* (ROWS), the largest weight in the tile */
} int8_buffers;

KERNEL int8_buffers int8_forward_layout(bb_arena *arena, int64_t D) {
    size_t d4 = (size_t)bb_round_up(D, QUAD), dp = (size_t)bb_round_up(D, VL);
    int8_buffers c = {.f = {.s = NULL}};
    softmax_layout(&c.f, arena, INT8_ROWS, INT8_KEYS, dp);
    c.q = bb_arena_alloc(arena, ATTENTION_QUERIES * d4);
    c.q_scale = bb_arena_alloc(arena, ATTENTION_QUERIES * sizeof(float));
    c.q_acc_init = bb_arena_alloc(arena, ATTENTION_QUERIES * sizeof(int32_t));
    c.packing = bb_arena_alloc(arena, 16 * (size_t)bb_round_up(D, 64));
    c.weight = bb_arena_alloc(arena, INT8_ROWS * INT8_KEYS);
    c.weight_scale = bb_arena_alloc(arena, INT8_ROWS * sizeof(float));
    c.top = bb_arena_alloc(arena, INT8_ROWS * sizeof(float));
    return c;
}

KERNEL size_t int8_forward_bytes(int64_t D) {
    bb_arena measure = {0};
    int8_forward_layout(&measure, D);
    return measure.used;
}

/* A block of scores, in units of log2 e, of queries m.. and keys n.. */
INLINE void int8_scores(const int8_buffers *c, const int8_keys *t, float *s, int64_t m, int64_t n, int64_t words, int nr) {
    __m512i sum[ATTENTION_MR][NR];
    init_rows(sum, c->q_acc_init + m, nr);
    int8_block(sum, c->q + m * words * QUAD, words * QUAD, QUAD, t->k + n / VL * words, words, nr, false);
    for (int i = 0; i < ATTENTION_MR; i++)
        for (int j = 0; j < nr; j++)
            vstore(s + i * INT8_KEYS + j * VL,
                   _mm512_cvtepi32_ps(sum[i][j]) * (vset1(c->q_scale[m + i]) * vload(t->k_scale + n + j * VL)));
}

/* A block of o, from column d on, = alpha o + weighted sums, for the rows from `part` on of those at m; first: o is not
 * read. */
INLINE void rows_sums(const int8_buffers *c, const int8_keys *t, int64_t m, int64_t part, int64_t d, int64_t dp, int64_t quads,
                      bool first, int nr) {
    __m512i sum[ATTENTION_MR][NR];
    float *o = c->f.o + (m + part) * dp + d;
    init_rows(sum, NULL, nr);
    int8_block(sum, c->weight + part * INT8_KEYS, INT8_KEYS, QUAD, t->v + d / VL * (INT8_KEYS / QUAD), quads, nr, true);
    for (int i = 0; i < ATTENTION_MR; i++)
        for (int j = 0; j < nr; j++) {
            vf x = _mm512_cvtepi32_ps(sum[i][j]) * (vset1(c->weight_scale[part + i]) * vload(t->v_scale + d + j * VL));
            if (!first) x = vfma(vload(o + i * dp + j * VL), vset1(c->f.alpha[part + i]), x);
            vstore(o + i * dp + j * VL, x);
        }
}

/* The weights 2^(s - max) of the first `seen` scores of `groups` groups of 64 as bytes, zeros past them; returns what is added
 * to their sums. */
INLINE vf row_weights(uint8_t *weight, const float *s, float max, float inverse, int64_t seen, int64_t groups) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    vf total = vset1(0.0f), minus_max = vset1(-max);
    for (int64_t j = 0; j < groups * QUAD * VL; j += QUAD * VL) {
        __m512i x[QUAD];
        for (int i = 0; i < QUAD; i++) {
            vf y = vexp2(vload(s + j + i * VL) + minus_max);
            if (j + (i + 1) * VL > seen) y = vkeep(y, bb_clamp(seen - j - i * VL, 0, VL), 0.0f);
            total = total + y;
            x[i] = to_int32(y, vset1(inverse));
        }
        _mm512_storeu_si512(weight + j, _mm512_permutexvar_epi32(order, bytes_of(x, true)));
    }
    return total;
}

/* The weights of the tile's scores; updates sum, max and alpha. */
INLINE void int8_softmax(const int8_buffers *c, int64_t row0, int64_t part, int64_t keys, int64_t diagonal, bool first) {
    const forward_buffers *f = &c->f;
    update_max(f->max + row0, f->alpha, c->top, f->s, INT8_KEYS, part, keys, diagonal, 1.0f, first);
    for (int64_t m = 0; m < part; m += VL) {
        vf scale = vload(c->top + m) * vset1(1.0f / UINT8_MAX);
        vstore(c->weight_scale + m, scale);
        vstore(c->top + m, inverse_scale(scale));
    }
    for (int64_t m = 0; m < part; m++) {
        int64_t seen = bb_clamp(m + diagonal + 1, 0, keys);
        int64_t read = bb_clamp(m / ATTENTION_MR * ATTENTION_MR + diagonal + ATTENTION_MR, 0, keys);
        const float *s = f->s + m * INT8_KEYS;
        float max = f->max[row0 + m], *sum = f->sum + (row0 + m) * VL;
        uint8_t *weight = c->weight + m * INT8_KEYS;
        vf total;
        if (read == 0) continue;
        if (seen == INT8_KEYS)
            total = row_weights(weight, s, max, c->top[m], INT8_KEYS, INT8_KEYS / (QUAD * VL));
        else
            total = row_weights(weight, s, max, c->top[m], seen, (read + QUAD * VL - 1) / (QUAD * VL));
        vstore(sum, first ? total : vfma(vload(sum), vset1(f->alpha[m]), total));
    }
}

/* Packs tile `tile` of the keys and values of KV head `head` of sequence b into int8_keys_bytes(D); scratch: of a task. */
KERNEL void int8_pack_keys(void *to, const attention_job *job, int64_t b, int64_t head, int64_t tile, void *scratch) {
    const bb_attention *a = &job->a;
    bb_arena arena = {scratch, 0}, keys_arena = {to, 0};
    int8_buffers c = int8_forward_layout(&arena, a->D);
    int8_keys t = int8_keys_layout(&keys_arena, a->D);
    int64_t at = b * a->kv_batch_stride + tile * INT8_KEYS * a->kv_stride + head * a->D;
    int64_t keys = bb_clamp(a->Tk - tile * INT8_KEYS, 0, INT8_KEYS);
    pack_int8_columns(t.k, t.k_scale, c.packing, (act_rows){job->k + at, a->kv_stride, true}, keys, a->D);
    pack_int8_quads(t.v, INT8_KEYS / QUAD, t.v_scale, NULL, (act_rows){job->v + at, a->kv_stride, true}, keys,
                    bb_round_up(keys, QUAD), a->D, false);
}

/* Queries t0..t0+QUERIES-1 of head h of sequence b. packed: all tiles of the head's keys. */
KERNEL void int8_forward_tile(const forward_tile *task, const char *packed, void *scratch) {
    const attention_job *job = task->job;
    const bb_attention *a = &job->a;
    int64_t b = task->b, h = task->h, t0 = task->t0;
    bb_arena arena = {scratch, 0};
    int8_buffers c = int8_forward_layout(&arena, a->D);
    int64_t D = a->D, words = (D + QUAD - 1) / QUAD, dp = bb_round_up(D, VL), rows = bb_clamp(a->Tq - t0, 0, ATTENTION_QUERIES);
    int64_t see = t0 + a->Tk - a->Tq; /* query m of the tile sees keys 0..m + see */
    pack_int8_rows(c.q, c.q_scale, c.q_acc_init, (act_rows){job->q + (b * a->Tq + t0) * a->q_stride + h * D, a->q_stride, true},
                   rows, bb_round_up(rows, ATTENTION_MR), D);
    for (int64_t m = 0; m < rows; m++) c.q_scale[m] *= (float)(M_LOG2E / sqrt((double)D));
    for (int64_t key0 = 0; key0 < see + rows; key0 += INT8_KEYS, packed += int8_keys_bytes(D)) {
        int64_t keys = bb_clamp(see + rows - key0, 0, INT8_KEYS);
        bb_arena keys_arena = {(unsigned char *)packed, 0};
        const int8_keys t = int8_keys_layout(&keys_arena, D);
        for (int64_t m = 0; m < rows; m += INT8_ROWS) {
            int64_t part = bb_clamp(bb_round_up(rows - m, ATTENTION_MR), 0, INT8_ROWS), diagonal = m + see - key0;
            if (diagonal + part <= 0) continue;
            for (int64_t n = 0; n < keys; n += PANEL)
                for (int64_t i = 0; i < part; i += ATTENTION_MR) {
                    int64_t seen = bb_clamp(i + diagonal + ATTENTION_MR, 0, keys) - n;
                    if (seen > 0)
                        WITH_NR((seen + VL - 1) / VL, int8_scores(&c, &t, c.f.s + i * INT8_KEYS + n, m + i, n, words, NR_NOW))
                }
            int8_softmax(&c, m, part, keys, diagonal, key0 == 0);
            for (int64_t d = 0; d < dp; d += PANEL)
                for (int64_t i = 0; i < part; i += ATTENTION_MR) {
                    int64_t quads = (bb_clamp(i + diagonal + ATTENTION_MR, 0, keys) + QUAD - 1) / QUAD;
                    if (quads > 0) WITH_NR((dp - d) / VL, rows_sums(&c, &t, m, i, d, dp, quads, key0 == 0, NR_NOW))
                }
        }
    }
    store_tile(job->o, job->kept, job->lse, &c.f, dp, a, b, h, t0, rows);
}
