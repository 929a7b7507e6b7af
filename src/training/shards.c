// SPDX-License-Identifier: MIT
#include "training/shards.h"

#include <stdlib.h>

#include "ops/ops.h"

/* Elements: what is exchanged at a time. Below the first, messages are all latency; above the second, buffers grow and what is
 * left to exchange after the last block shows. */
enum { BUCKET_LEAST = 1 << 20, BUCKET_MOST = 1 << 22, UNIT_MOST = BUCKET_MOST / 4 };

int64_t bb_shards_longest(int64_t parameters) {
    int64_t most = BUCKET_MOST + UNIT_MOST; /* where a bucket begins is rounded to a unit */
    return parameters < most ? parameters : most;
}

static int layers_of(const bb_param_table *t) { return (t->count - BB_PARAM_FIRST_BLOCK) / BB_PARAMS_PER_BLOCK; }

/* The tensor that element `at` is of. */
static int param_at(const bb_param_table *t, int64_t at) {
    int low = 0, high = t->count; /* entries[low].offset <= at < entries[high].offset */
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (t->entries[middle].offset <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* The least multiple of BB_SHARD_UNIT that is whole rows of codes too. */
static int64_t unit_of(const bb_param *p, bool whole_rows) {
    int64_t rows = BB_TERNARY_ROWS * p->shape[1], unit = BB_SHARD_UNIT;
    if (!p->ternary || !whole_rows) return unit;
    while (unit % rows != 0) unit += BB_SHARD_UNIT;
    return unit;
}

static bool can_be_whole_rows(const bb_param_table *t, int size) {
    for (int i = 0; i < t->count; i++) {
        const bb_param *p = &t->entries[i];
        if (p->count > UNIT_MOST && unit_of(p, true) > UNIT_MOST) return false;
    }
    return size <= BB_SHARD_WHOLE_ROWS;
}

/* The last place at or before `at` where ranks may divide a range: a tensor's beginning, or a
 * multiple of its unit from there. */
static int64_t divisible(const bb_param_table *t, int64_t at, bool whole_rows) {
    if (at >= t->total) return t->total;
    const bb_param *p = &t->entries[param_at(t, at)];
    int64_t unit = unit_of(p, whole_rows);
    return p->offset + (at - p->offset) / unit * unit;
}

static void add_bucket(bb_shards *s, const bb_param_table *t, int size, int64_t begin, int64_t end) {
    bb_bucket *b = &s->buckets[s->bucket_count];
    *b = (bb_bucket){.begin = begin, .count = end - begin, .cut = s->cuts + (int64_t)s->bucket_count * (size + 1)};
    s->bucket_count++;
    for (int r = 0; r <= size; r++) {
        int64_t at = r == size ? end : divisible(t, begin + b->count * r / size, s->whole_rows);
        b->cut[r] = (at > begin ? at : begin) - begin;
    }
}

/* From the end of the parameters down, divided where a block begins, and within what is large. */
static bb_status make_buckets(bb_shards *s, const bb_param_table *t, int size, bb_error *err) {
    int layers = layers_of(t);
    size_t most = (size_t)layers + 2 + (size_t)(t->total / (BUCKET_MOST / 2));
    s->buckets = calloc(most, sizeof *s->buckets);
    s->cuts = calloc(most * (size_t)(size + 1), sizeof *s->cuts);
    if (!s->buckets || !s->cuts) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a list of %zu ranges", most);
    int64_t end = t->total;
    for (int l = layers; l >= 0; l--) { /* the norm with the last block, the embedding with the first */
        int64_t begin = l ? t->entries[BB_PARAM_FIRST_BLOCK + (l - 1) * BB_PARAMS_PER_BLOCK].offset : 0;
        if (end - begin < BUCKET_LEAST && l > 0) continue;
        int64_t parts = (end - begin + BUCKET_MOST - 1) / BUCKET_MOST, count = end - begin;
        for (int64_t i = parts; i > 0; i--) {
            int64_t from = i == 1 ? begin : divisible(t, begin + count * (i - 1) / parts, s->whole_rows);
            if (from < end) add_bucket(s, t, size, from, end);
            end = from;
        }
    }
    return BB_OK;
}

/* Elements begin .. end-1, tensor by tensor. */
static void add_pieces(bb_shards *s, const bb_param_table *t, int rank, int64_t begin, int64_t end) {
    if (begin == end) return;
    for (int i = param_at(t, begin); begin < end; i++) {
        const bb_param *p = &t->entries[i];
        int64_t stop = p->offset + p->count < end ? p->offset + p->count : end;
        s->pieces[s->piece_count++] = (bb_piece){.param = i, .rank = rank, .first = begin - p->offset, .count = stop - begin};
        begin = stop;
    }
}

static bb_status make_pieces(bb_shards *s, const bb_param_table *t, int size, bb_error *err) {
    size_t most = (size_t)t->count + (size_t)s->bucket_count * (size_t)size;
    s->pieces = calloc(most, sizeof *s->pieces);
    s->first_piece = calloc((size_t)t->count + 1, sizeof *s->first_piece);
    if (!s->pieces || !s->first_piece) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a list of %zu pieces", most);
    if (size == 1) add_pieces(s, t, 0, 0, t->total);
    for (int b = s->bucket_count - 1; b >= 0; b--) {
        int64_t begin = s->buckets[b].begin;
        const int64_t *cut = s->cuts + (int64_t)b * (size + 1);
        for (int r = 0; r < size; r++) add_pieces(s, t, r, begin + cut[r], begin + cut[r + 1]);
    }
    for (int i = 0, param = 0; param <= t->count; param++) {
        while (i < s->piece_count && s->pieces[i].param < param) i++;
        s->first_piece[param] = i;
    }
    return BB_OK;
}

bb_status bb_shards_create(const bb_param_table *table, int size, bb_shards *out, bb_error *err) {
    *out = (bb_shards){.whole_rows = can_be_whole_rows(table, size)};
    bb_status status = size > 1 ? make_buckets(out, table, size, err) : BB_OK;
    if (status == BB_OK) status = make_pieces(out, table, size, err);
    if (status != BB_OK) bb_shards_free(out);
    return status;
}

void bb_shards_free(bb_shards *s) {
    free(s->buckets);
    free(s->cuts);
    free(s->pieces);
    free(s->first_piece);
    *s = (bb_shards){0};
}
