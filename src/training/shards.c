// SPDX-License-Identifier: MIT
#include "training/shards.h"

#include <stdlib.h>
#include <string.h>

#include "core/math.h"
#include "ops/ops.h"

/* Elements exchanged at once. Below the minimum, latency dominates; above the maximum, buffers grow, and so does the exchange
 * left after the last block. */
enum { MIN_BUCKET = 1 << 20, MAX_BUCKET = 1 << 22, MAX_UNIT = MAX_BUCKET / 4 };

int64_t bb_shards_max_bucket(const bb_param_table *t, bool whole_matrices) {
    int64_t unit = MAX_UNIT; /* the beginning of a bucket is rounded to a unit */
    for (int i = 0; i < t->count && whole_matrices; i++)
        if (t->entries[i].linear) unit = bb_max(unit, t->entries[i].count);
    return bb_min(MAX_BUCKET + unit, t->total);
}

static int layers_of(const bb_param_table *t) { return (t->count - t->first_block) / BB_PARAMS_PER_BLOCK; }

/* Returns the tensor that contains element `at`. */
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

/* Returns the smallest multiple of BB_SHARD_UNIT that is also whole rows of codes. For whole matrices: one matrix if its size
 * is such a multiple, else the whole tensor. */
static int64_t unit_of(const bb_param *p, bool whole_rows, bool whole_matrices) {
    int64_t rows = BB_TERNARY_ROWS * p->shape[1], unit = BB_SHARD_UNIT, matrix = p->count / p->matrices;
    if (p->ngram) { /* whole rows and whole tiles of the norm */
        while (unit % p->shape[1] != 0) unit += BB_SHARD_UNIT;
        return unit;
    }
    if (!p->linear || !whole_rows) return unit;
    if (whole_matrices) return matrix % unit == 0 && matrix % rows == 0 ? matrix : p->count;
    while (unit % rows != 0) unit += BB_SHARD_UNIT;
    return unit;
}

static bool can_be_whole_rows(const bb_param_table *t, int size) {
    for (int i = 0; i < t->count; i++) {
        const bb_param *p = &t->entries[i];
        if (p->count > MAX_UNIT && unit_of(p, true, false) > MAX_UNIT) return false;
    }
    return size <= BB_SHARD_WHOLE_ROWS;
}

/* Returns the last position at or before `at` where ranks may divide a range: a tensor's beginning, or a multiple of its unit
 * from there. */
static int64_t divisible(const bb_shards *s, const bb_param_table *t, int64_t at) {
    if (at >= t->total) return t->total;
    const bb_param *p = &t->entries[param_at(t, at)];
    int64_t unit = unit_of(p, s->whole_rows, s->whole_matrices);
    return p->offset + (at - p->offset) / unit * unit;
}

static void add_bucket(bb_shards *s, const bb_param_table *t, int size, int64_t begin, int64_t end) {
    bb_bucket *b = &s->buckets[s->bucket_count];
    *b = (bb_bucket){.begin = begin, .count = end - begin, .cut = s->cuts + (int64_t)s->bucket_count * (size + 1)};
    s->bucket_count++;
    for (int r = 0; r <= size; r++) {
        int64_t at = r == size ? end : divisible(s, t, begin + b->count * r / size);
        b->cut[r] = (at > begin ? at : begin) - begin;
    }
}

/* Lists the positions where ranks may divide a bucket: its beginning and every unit's end; *count of them. */
static void find_places(const bb_shards *s, const bb_param_table *t, const bb_bucket *b, int64_t *places, int *count) {
    int64_t at = b->begin, end = b->begin + b->count;
    *count = 0;
    while (at < end) {
        const bb_param *p = &t->entries[param_at(t, at)];
        int64_t unit = unit_of(p, s->whole_rows, s->whole_matrices), next = p->offset + ((at - p->offset) / unit + 1) * unit;
        if (places) places[*count] = at - b->begin;
        (*count)++;
        at = bb_min(bb_min(next, p->offset + p->count), end);
    }
    if (places) places[*count] = b->count;
    (*count)++;
}

/* If units are whole matrices, a bucket has only a few, and dividing each bucket separately would leave the same ranks with
 * little. loads: elements that each rank has from earlier buckets. Chooses the cuts that minimize the maximum load among the
 * ranks that get a part: max_load[i] is the minimum if the ranks so far take the units before places[i]; taken[r][i] is the
 * number of units that the ranks before r take then. */
static bb_status balance_bucket(const bb_shards *s, const bb_param_table *t, int size, const bb_bucket *b, int64_t *loads,
                                bb_error *err) {
    int count;
    find_places(s, t, b, NULL, &count);
    size_t n = (size_t)count;
    int64_t *places = calloc(3 * n, sizeof *places);
    int *taken = calloc(n * (size_t)size, sizeof *taken);
    if (!places || !taken) {
        free(places);
        free(taken);
        return bb_fail(err, BB_ERR_MEMORY, "out of memory for a list of %d parts", count);
    }
    int64_t *max_load = places + n, *next = max_load + n;
    find_places(s, t, b, places, &count);
    for (int i = 1; i < count; i++) max_load[i] = INT64_MAX;
    for (int r = 0; r < size; r++) {
        for (int i = 0; i < count; i++) {
            next[i] = INT64_MAX;
            for (int j = i; j >= 0; j--) {
                int64_t load = j < i ? loads[r] + places[i] - places[j] : 0, value = bb_max(max_load[j], load);
                if (value >= next[i]) continue;
                next[i] = value;
                taken[(size_t)r * n + (size_t)i] = j;
            }
        }
        memcpy(max_load, next, n * sizeof *max_load);
    }
    for (int r = size - 1, i = count - 1; r >= 0; r--) {
        b->cut[r + 1] = places[i];
        i = taken[(size_t)r * n + (size_t)i];
        b->cut[r] = places[i];
        loads[r] += b->cut[r + 1] - b->cut[r];
    }
    free(places);
    free(taken);
    return BB_OK;
}

static bb_status balance(const bb_shards *s, const bb_param_table *t, int size, bb_error *err) {
    int64_t *loads = calloc((size_t)size, sizeof *loads);
    bb_status status = loads ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "out of memory for %d ranks", size);
    for (int i = 0; i < s->bucket_count && status == BB_OK; i++)
        status = balance_bucket(s, t, size, &s->buckets[i], loads, err);
    free(loads);
    return status;
}

/* Makes buckets from the end of the parameters down, divided where a block begins, and within large blocks. */
static bb_status make_buckets(bb_shards *s, const bb_param_table *t, int size, bb_error *err) {
    int layers = layers_of(t);
    size_t max_load = (size_t)layers + 2 + (size_t)(t->total / (MAX_BUCKET / 2));
    s->buckets = calloc(max_load, sizeof *s->buckets);
    s->cuts = calloc(max_load * (size_t)(size + 1), sizeof *s->cuts);
    if (!s->buckets || !s->cuts) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a list of %zu ranges", max_load);
    int64_t end = t->total;
    for (int l = layers; l >= 0; l--) { /* the final norm goes with the last block, the embedding with the first */
        int64_t begin = l ? t->entries[t->first_block + (l - 1) * BB_PARAMS_PER_BLOCK].offset : 0;
        if (end - begin < MIN_BUCKET && l > 0) continue;
        int64_t parts = (end - begin + MAX_BUCKET - 1) / MAX_BUCKET, count = end - begin;
        for (int64_t i = parts; i > 0; i--) {
            int64_t from = i == 1 ? begin : divisible(s, t, begin + count * (i - 1) / parts);
            if (from < end) add_bucket(s, t, size, from, end);
            end = from;
        }
    }
    return s->whole_matrices ? balance(s, t, size, err) : BB_OK;
}

/* Adds pieces for elements begin .. end-1, tensor by tensor. */
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
    size_t max_load = (size_t)t->count + (size_t)s->bucket_count * (size_t)size;
    s->pieces = calloc(max_load, sizeof *s->pieces);
    s->first_piece = calloc((size_t)t->count + 1, sizeof *s->first_piece);
    if (!s->pieces || !s->first_piece) return bb_fail(err, BB_ERR_MEMORY, "out of memory for a list of %zu pieces", max_load);
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

bb_status bb_shards_create(const bb_param_table *table, int size, bool whole_matrices, bb_shards *out, bb_error *err) {
    *out = (bb_shards){.whole_rows = whole_matrices || can_be_whole_rows(table, size), .whole_matrices = whole_matrices};
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
