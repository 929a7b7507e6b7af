// SPDX-License-Identifier: MIT
/* Compares the exchange between processes with its definition. By itself it runs as one rank; test_dist_mpi.sh runs it as 2, 3
 * and 4. */
#include "support.h"

#include <stdlib.h>
#include <string.h>

#include "dist/dist.h"

static bb_dist *dist;

/* Values whose sum depends on the order. */
static float value(int rank, int64_t i) {
    return (float)((i * 7919 + rank * 104729) % 1000003) * (rank % 2 ? 1e-3f : 3.1f) - 500.0f;
}

static float tree(int first, int count, int64_t i) {
    if (count % 2 == 0) return tree(first, count / 2, i) + tree(first + count / 2, count / 2, i);
    float sum = value(first, i);
    for (int r = 1; r < count; r++) sum += value(first + r, i);
    return sum;
}

static void sums_have_the_order_of_the_tree(void **state) {
    (void)state;
    enum { N = 5000, MOST = 12 };
    float *in[MOST], *out = malloc(N * sizeof *out);
    for (int r = 0; r < MOST; r++) {
        in[r] = malloc(N * sizeof *in[r]);
        for (int i = 0; i < N; i++) in[r][i] = value(r, i);
    }
    for (int count = 1; count <= MOST; count++) {
        bb_dist_tree_sum(out, (const float *const *)in, count, N);
        for (int i = 0; i < N; i++) assert_true(out[i] == tree(0, count, i));
    }
    /* halves that were summed elsewhere fit in */
    bb_dist_tree_sum(in[8], (const float *const *)in, 4, N);
    bb_dist_tree_sum(in[9], (const float *const *)in + 4, 4, N);
    bb_dist_tree_sum(out, (const float *const *)in, 8, N);
    bb_dist_tree_sum(in[8], (const float *const *)in + 8, 2, N);
    assert_memory_equal(out, in[8], N * sizeof *out);
    /* in place */
    bb_dist_tree_sum(out, (const float *const *)in, 3, N);
    bb_dist_tree_sum(in[1], (const float *const *)in, 3, N);
    assert_memory_equal(out, in[1], N * sizeof *out);
    for (int r = 0; r < MOST; r++) free(in[r]);
    free(out);
}

static void ranges_are_reduced_and_gathered(void **state) {
    (void)state;
    enum { RANGES = 150 }; /* more than are kept in a queue */
    int size = dist->size, rank = dist->rank;
    static const int64_t lengths[] = {1, 3, 64, 1000, 0, 70001, 400003};
    float *x[RANGES];
    int64_t *cuts = malloc((size_t)(RANGES * (size + 1)) * sizeof *cuts);
    for (int kind = BB_DIST_REDUCE_SCATTER; kind <= BB_DIST_GATHER; kind++) {
        for (int j = 0; j < RANGES; j++) {
            int64_t n = lengths[j % 7], *cut = cuts + (int64_t)j * (size + 1);
            x[j] = malloc((size_t)n * sizeof *x[j] + 1);
            for (int r = 0; r <= size; r++) cut[r] = r < size && j % 2 ? (n * r / size) & ~(int64_t)15 : n * r / size;
            for (int64_t i = 0; i < n; i++) x[j][i] = value(rank, i + j);
            assert_ok(dist->engine->start(dist, (bb_dist_kind)kind,
                                          (bb_dist_range){.x = x[j], .cut = cut, .width = sizeof(float)}, &test_error));
        }
        assert_ok(dist->engine->wait(dist, &test_error));
        for (int j = 0; j < RANGES; j++) {
            const int64_t *cut = cuts + (int64_t)j * (size + 1);
            for (int r = 0; r < size; r++)
                for (int64_t i = cut[r]; i < cut[r + 1]; i++) {
                    if (kind == BB_DIST_ALL_GATHER || kind == BB_DIST_GATHER)
                        assert_true(x[j][i] == value(kind == BB_DIST_GATHER && rank > 0 ? rank : r, i + j));
                    if (kind == BB_DIST_ALL_REDUCE || (kind == BB_DIST_REDUCE_SCATTER && r == rank))
                        assert_true(x[j][i] == tree(0, size, i + j));
                }
            free(x[j]);
        }
    }
    free(cuts);
}

static void numbers_are_gathered_from_all(void **state) {
    (void)state;
    int size = dist->size, rank = dist->rank;
    int64_t most[2] = {rank, -rank}, least[2] = {rank, -rank};
    double sum[2] = {0.1 * rank, 1}, expected = 0;
    for (int r = 1; r < size; r++) expected += 0.1 * r;
    assert_ok(bb_dist_max_i64(dist, most, 2, &test_error));
    assert_ok(bb_dist_min_i64(dist, least, 2, &test_error));
    assert_ok(bb_dist_sum_f64(dist, sum, 2, &test_error));
    assert_int_equal(most[0], size - 1);
    assert_int_equal(most[1], 0);
    assert_int_equal(least[0], 0);
    assert_int_equal(least[1], 1 - size);
    assert_true(sum[0] == expected);
    assert_true(sum[1] == size);
    uint64_t *all = calloc((size_t)size, sizeof *all);
    assert_ok(bb_dist_all_gather_u64(dist, 10 + (uint64_t)rank, all, &test_error));
    for (int r = 0; r < size; r++) assert_int_equal(all[r], 10 + r);
    free(all);
    assert_ok(bb_dist_barrier(dist, &test_error));
}

static void bytes_travel(void **state) {
    (void)state;
    enum { N = 100003 };
    int size = dist->size, rank = dist->rank;
    unsigned char *x = malloc(N);
    for (int root = 0; root < size; root++) {
        memset(x, rank, N);
        assert_ok(dist->engine->broadcast(dist, x, N, root, &test_error));
        assert_true(x[0] == root && x[N - 1] == root);
        memset(x, rank, N);
        assert_ok(dist->engine->transfer(dist, x, N, root, 0, &test_error));
        assert_true(x[N - 1] == (rank == 0 ? root : rank));
    }
    free(x);
}

static void all_fail_when_one_does(void **state) {
    (void)state;
    int size = dist->size, rank = dist->rank;
    assert_ok(bb_dist_agree(dist, BB_OK, &test_error));
    for (int bad = 0; bad < size; bad++) {
        bb_error err = {.code = BB_OK};
        bb_status mine = rank == bad ? bb_fail(&err, BB_ERR_DATA, "no file %d", bad) : BB_OK;
        assert_int_equal(bb_dist_agree(dist, mine, &err), BB_ERR_DATA);
        char expected[200];
        snprintf(expected, sizeof expected, "rank %d on %s: no file %d", bad, bb_dist_host(dist, bad), bad);
        assert_string_equal(err.message, size > 1 ? expected : "no file 0");
    }
}

static void ranks_know_their_hosts(void **state) {
    (void)state;
    assert_true(bb_dist_rank(dist) >= 0 && bb_dist_rank(dist) < bb_dist_size(dist));
    assert_true(bb_dist_local_size(dist) >= 1 && bb_dist_local_size(dist) <= bb_dist_size(dist));
    assert_true(bb_dist_threads(dist) >= 1);
    assert_true(strlen(bb_dist_host(dist, 0)) > 0);
    assert_string_equal(bb_dist_host(dist, bb_dist_size(dist)), "?");
    bb_dist *other;
    assert_fails(bb_dist_open("smoke", &other, &test_error), BB_ERR_ARGUMENT, "expected single or mpi");
}

int main(int argc, char **argv) {
    bb_error err;
    if (bb_dist_open(argc > 1 ? argv[1] : "single", &dist, &err) != BB_OK) {
        fprintf(stderr, "%s\n", err.message);
        return err.code == BB_ERR_UNSUPPORTED ? 77 : 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_have_the_order_of_the_tree), cmocka_unit_test(ranges_are_reduced_and_gathered),
        cmocka_unit_test(numbers_are_gathered_from_all),   cmocka_unit_test(bytes_travel),
        cmocka_unit_test(all_fail_when_one_does),          cmocka_unit_test(ranks_know_their_hosts),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bb_dist_close(dist);
    return failed;
}
