// SPDX-License-Identifier: MIT
/* How ranks share the parameters: each once, evenly, and never divided where values are summed or quantized together. */
#include "support.h"

#include "model/config.h"
#include "ops/ops.h"
#include "training/optim.h"
#include "training/shards.h"

static const bb_config configs[] = {
    {.vocab_size = 256, .n_layer = 1, .d_model = 8, .n_head = 1, .n_kv_head = 1, .d_ff = 8},
    {.vocab_size = 256, .n_layer = 3, .d_model = 100, .n_head = 2, .n_kv_head = 1, .d_ff = 150},
    {.vocab_size = 256, .n_layer = 6, .d_model = 384, .n_head = 6, .n_kv_head = 6, .d_ff = 1024},
    {.vocab_size = 256, .n_layer = 2, .d_model = 1536, .n_head = 12, .n_kv_head = 12, .d_ff = 4096},
};
enum { CONFIGS = sizeof configs / sizeof *configs };
static const int sizes[] = {1, 2, 3, 4, 7, 64, 1000};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void for_all(void (*check)(const bb_param_table *t, const bb_shards *s, int size), bool whole_matrices) {
    for (int c = 0; c < CONFIGS; c++) {
        bb_param_table table;
        assert_ok(bb_param_table_create(&configs[c], false, &table, &test_error));
        for (int i = 0; i < SIZES; i++) {
            bb_shards shards;
            assert_ok(bb_shards_create(&table, sizes[i], whole_matrices, &shards, &test_error));
            check(&table, &shards, sizes[i]);
            bb_shards_free(&shards);
        }
        bb_param_table_free(&table);
    }
}

static void pieces_cover_all_once(const bb_param_table *t, const bb_shards *s, int size) {
    int64_t at = 0;
    for (int i = 0; i < s->piece_count; i++) {
        const bb_piece *p = &s->pieces[i];
        assert_true(p->rank >= 0 && p->rank < size && p->count > 0);
        assert_true(t->entries[p->param].offset + p->first == at);
        assert_true(p->first + p->count <= t->entries[p->param].count);
        assert_true(p->first % BB_NORM_TILE == 0 && p->first % BB_ADAM8_BLOCK == 0);
        int64_t columns = t->entries[p->param].shape[1];
        if (s->whole_rows && t->entries[p->param].ternary)
            assert_true(p->first % (BB_TERNARY_ROWS * columns) == 0 && p->count % columns == 0);
        assert_true(s->first_piece[p->param] <= i && i < s->first_piece[p->param + 1]);
        at += p->count;
    }
    assert_true(at == t->total);
    if (size == 1) assert_int_equal(s->piece_count, t->count);
    assert_true(s->whole_rows == (size <= 16 || s->whole_matrices));
}

static void buckets_agree_with_pieces(const bb_param_table *t, const bb_shards *s, int size) {
    int64_t end = t->total;
    int i = s->piece_count;
    for (int b = 0; b < s->bucket_count; b++) {
        const bb_bucket *bucket = &s->buckets[b];
        assert_true(bucket->begin + bucket->count == end && bucket->count > 0 &&
                    bucket->count <= bb_shards_max_bucket(t, s->whole_matrices));
        assert_true(bucket->cut[0] == 0 && bucket->cut[size] == bucket->count);
        for (int r = size - 1; r >= 0; r--) {
            assert_true(bucket->cut[r] <= bucket->cut[r + 1]);
            int64_t left = bucket->cut[r + 1] - bucket->cut[r];
            for (; left > 0; i--) {
                assert_int_equal(s->pieces[i - 1].rank, r);
                left -= s->pieces[i - 1].count;
            }
            assert_true(left == 0);
        }
        end = bucket->begin;
    }
    if (size > 1) assert_true(end == 0 && i == 0);
}

/* The most elements that can't be divided. */
static int64_t largest_unit(const bb_param_table *t, bool whole_rows) {
    int64_t most = BB_SHARD_UNIT;
    for (int i = 0; i < t->count; i++) {
        const bb_param *p = &t->entries[i];
        int64_t rows = BB_TERNARY_ROWS * p->shape[1], unit = rows;
        if (!p->ternary || !whole_rows) continue;
        while (unit % BB_SHARD_UNIT != 0 && unit < p->count) unit += rows;
        if (unit > p->count) unit = p->count;
        if (unit > most) most = unit;
    }
    return most;
}

/* No rank has more than its share and a unit of each bucket. */
static void shares_are_even(const bb_param_table *t, const bb_shards *s, int size) {
    for (int r = 0; r < size; r++) {
        int64_t sum = 0;
        for (int i = 0; i < s->piece_count; i++) sum += s->pieces[i].rank == r ? s->pieces[i].count : 0;
        assert_true(sum <= t->total / size + (int64_t)(s->bucket_count + 1) * largest_unit(t, s->whole_rows));
    }
}

static void state_is_divided(void **state) {
    (void)state;
    for (int c = 0; c < CONFIGS; c++)
        for (int kind = BB_OPTIM_ADAMW; kind <= BB_OPTIM_MUON; kind++) {
            uint64_t whole, part, sum = 0;
            assert_ok(bb_optimizer_predict(&configs[c], (bb_optimizer_kind)kind, 0, 1, &whole, &test_error));
            for (int r = 0; r < 3; r++, sum += part)
                assert_ok(bb_optimizer_predict(&configs[c], (bb_optimizer_kind)kind, r, 3, &part, &test_error));
            assert_true(sum >= whole && sum < whole + whole / 50 + 4096); /* pieces are aligned */
        }
}

/* No matrix is divided; and no rank has more than its share, and once more the largest matrix. */
static void matrices_are_whole(const bb_param_table *t, const bb_shards *s, int size) {
    int64_t largest = BB_SHARD_UNIT;
    for (int i = 0; i < s->piece_count; i++) {
        const bb_param *p = &t->entries[s->pieces[i].param];
        int64_t matrix = p->count / p->matrices;
        if (!p->ternary) continue;
        assert_true(s->pieces[i].first % matrix == 0 && s->pieces[i].count % matrix == 0);
        largest = s->pieces[i].count > largest ? s->pieces[i].count : largest;
    }
    for (int r = 0; r < size; r++) {
        int64_t sum = 0;
        for (int i = 0; i < s->piece_count; i++) sum += s->pieces[i].rank == r ? s->pieces[i].count : 0;
        assert_true(sum <= t->total / size + largest);
    }
}

static void every_element_has_one_rank(void **state) {
    (void)state;
    for_all(pieces_cover_all_once, false);
    for_all(pieces_cover_all_once, true);
}
static void cuts_agree_with_the_pieces(void **state) {
    (void)state;
    for_all(buckets_agree_with_pieces, false);
    for_all(buckets_agree_with_pieces, true);
}
static void matrices_are_cut_at_whole_rows(void **state) {
    (void)state;
    for_all(matrices_are_whole, true);
}
static void ranks_get_even_shares(void **state) {
    (void)state;
    for_all(shares_are_even, false);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_element_has_one_rank),
                                       cmocka_unit_test(cuts_agree_with_the_pieces), cmocka_unit_test(ranks_get_even_shares),
                                       cmocka_unit_test(matrices_are_cut_at_whole_rows), cmocka_unit_test(state_is_divided)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
