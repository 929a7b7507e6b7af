// SPDX-License-Identifier: MIT
/* Status messages and random numbers. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/rng.h"
#include "core/status.h"

static void the_version_is_the_headers(void **state) {
    (void)state;
    char expected[32];
    (void)snprintf(expected, sizeof expected, "%d.%d.%d", BB_VERSION_MAJOR, BB_VERSION_MINOR, BB_VERSION_PATCH);
    assert_string_equal(bb_version(), expected);
}

static void status_names_differ(void **state) {
    (void)state;
    for (int a = BB_OK; a <= BB_ERR_INTERNAL; a++) {
        assert_string_not_equal(bb_status_name((bb_status)a), "unknown");
        for (int b = BB_OK; b < a; b++) assert_string_not_equal(bb_status_name((bb_status)a), bb_status_name((bb_status)b));
    }
    assert_string_equal(bb_status_name((bb_status)-1), "unknown");
}

static void fail_fills_the_error(void **state) {
    (void)state;
    bb_error err = {.code = BB_OK};
    assert_int_equal(bb_fail(&err, BB_ERR_IO, "%s: %d", "x.bin", 7), BB_ERR_IO);
    assert_int_equal(err.code, BB_ERR_IO);
    assert_string_equal(err.message, "x.bin: 7");
    assert_int_equal(bb_fail_prefix(&err, BB_ERR_DATA, "while reading %s", "y"), BB_ERR_DATA);
    assert_int_equal(err.code, BB_ERR_DATA);
    assert_string_equal(err.message, "while reading y: x.bin: 7");
    assert_int_equal(bb_fail(&err, BB_ERR_IO, "again: %s", err.message), BB_ERR_IO);
    assert_string_equal(err.message, "again: while reading y: x.bin: 7");
    assert_int_equal(bb_fail(NULL, BB_ERR_MEMORY, "unheard"), BB_ERR_MEMORY);
    assert_int_equal(bb_fail_prefix(NULL, BB_ERR_MEMORY, "unheard"), BB_ERR_MEMORY);
}

static void messages_are_one_short_line(void **state) {
    (void)state;
    bb_error err;
    bb_fail(&err, BB_ERR_FORMAT, "tensor '%s'", "a\nb\033[31mc\177");
    assert_string_equal(err.message, "tensor 'a?b?[31mc?'");
    char longest[4 * sizeof err.message];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    bb_fail(&err, BB_ERR_FORMAT, "%s", longest);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    bb_fail_prefix(&err, BB_ERR_FORMAT, "file");
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    assert_memory_equal(err.message, "file: xxx", 9);
    bb_fail_prefix(&err, BB_ERR_FORMAT, "%s", longest);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
}

/* The known answers of Random123's kat_vectors for philox4x32 with 10 rounds. */
static void philox_gives_the_known_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } vectors[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        const uint32_t *c = vectors[i].counter, *k = vectors[i].key;
        uint32_t out[4];
        bb_philox((uint64_t)k[1] << 32 | k[0], (uint64_t)c[3] << 32 | c[2], (uint64_t)c[1] << 32 | c[0], out);
        assert_memory_equal(out, vectors[i].expected, sizeof out);
        assert_true(bb_rng_u64((uint64_t)k[1] << 32 | k[0], (uint64_t)c[3] << 32 | c[2], (uint64_t)c[1] << 32 | c[0]) ==
                    ((uint64_t)out[1] << 32 | out[0]));
    }
}

/* One draw differs from every other in each of its three coordinates, also in their upper halves. */
static void all_coordinates_matter(void **state) {
    (void)state;
    uint64_t values[] = {0, 1, 2, (uint64_t)1 << 32, (uint64_t)1 << 63};
    uint64_t drawn[125];
    int count = 0;
    for (int a = 0; a < 5; a++)
        for (int b = 0; b < 5; b++)
            for (int c = 0; c < 5; c++) drawn[count++] = bb_rng_u64(values[a], values[b], values[c]);
    for (int i = 0; i < count; i++)
        for (int j = 0; j < i; j++) assert_true(drawn[i] != drawn[j]);
}

static void uniform_has_its_moments_and_range(void **state) {
    (void)state;
    enum { N = 200000 };
    double sum = 0, squares = 0, low = 1, high = 0;
    int bins[16] = {0};
    for (uint64_t i = 0; i < N; i++) {
        double u = bb_rng_uniform(42, BB_STREAM_TEST, i);
        assert_true(u >= 0.0 && u < 1.0);
        sum += u;
        squares += u * u;
        low = fmin(low, u);
        high = fmax(high, u);
        bins[(int)(u * 16)]++;
    }
    assert_true(fabs(sum / N - 0.5) < 0.003); /* 4.6 standard errors */
    assert_true(fabs(squares / N - 1.0 / 3) < 0.003);
    assert_true(low < 1e-4 && high > 1 - 1e-4);
    double chi2 = 0;
    for (int b = 0; b < 16; b++) chi2 += (bins[b] - N / 16.0) * (bins[b] - N / 16.0) / (N / 16.0);
    assert_true(chi2 < 44.3); /* 15 degrees of freedom, p = 1e-4 */
}

static void below_is_uniform(void **state) {
    (void)state;
    enum { N = 70000 };
    int counts[7] = {0};
    for (uint64_t i = 0; i < N; i++) {
        uint64_t k = bb_rng_below(7, BB_STREAM_TEST, i, 7);
        assert_true(k < 7);
        counts[k]++;
        assert_true(bb_rng_below(7, BB_STREAM_TEST, i, 1) == 0);
    }
    double chi2 = 0;
    for (int k = 0; k < 7; k++) chi2 += (counts[k] - N / 7.0) * (counts[k] - N / 7.0) / (N / 7.0);
    assert_true(chi2 < 27.9); /* 6 degrees of freedom, p = 1e-4 */
    /* The whole range of 64 bits: the largest n gives back nearly the word itself. */
    uint64_t word = bb_rng_u64(7, BB_STREAM_TEST, 3), k = bb_rng_below(7, BB_STREAM_TEST, 3, UINT64_MAX);
    assert_true(word - k <= 1);
}

static void permute_is_a_permutation(void **state) {
    (void)state;
    for (uint64_t n = 1; n <= 300; n++) {
        bool taken[300] = {false};
        for (uint64_t i = 0; i < n; i++) {
            uint64_t to = bb_rng_permute(n * 77, i, n);
            assert_true(to < n && !taken[to]);
            taken[to] = true;
        }
    }
    const uint64_t large[] = {UINT32_MAX, (1ull << 40) + 1, UINT64_MAX};
    for (int i = 0; i < 3; i++)
        for (uint64_t k = 0; k < 100; k++) assert_true(bb_rng_permute(k, large[i] - 1 - k, large[i]) < large[i]);
}

/* Over the keys, all pairs of places for elements 0 and 1 are equally likely. */
static void permute_is_uniform(void **state) {
    (void)state;
    for (uint64_t n = 2; n <= 9; n++) {
        enum { KEYS = 20000 };
        int counts[9][9] = {{0}}, cells = (int)(n * (n - 1));
        for (uint64_t key = 0; key < KEYS; key++) counts[bb_rng_permute(key, 0, n)][bb_rng_permute(key, 1, n)]++;
        double chi2 = 0, expected = (double)KEYS / cells;
        for (uint64_t a = 0; a < n; a++)
            for (uint64_t b = 0; b < n; b++)
                if (a != b) chi2 += (counts[a][b] - expected) * (counts[a][b] - expected) / expected;
        double limit = cells - 1 + 5 * sqrt(2.0 * (cells - 1));
        if (chi2 > limit) fail_msg("n = %d: chi-square %.1f, expected at most %.1f", (int)n, chi2, limit);
    }
}

static void normal_has_its_moments(void **state) {
    (void)state;
    enum { N = 200000 };
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, neighbours = 0, last = 0;
    int beyond = 0;
    for (uint64_t i = 0; i < N; i++) {
        double z = bb_rng_normal(1, BB_STREAM_TEST, i);
        assert_true(isfinite(z));
        m1 += z;
        m2 += z * z;
        m3 += z * z * z;
        m4 += z * z * z * z;
        neighbours += z * last;
        last = z;
        beyond += fabs(z) > 1.959964;
    }
    assert_true(fabs(m1 / N) < 0.01);
    assert_true(fabs(m2 / N - 1) < 0.015);
    assert_true(fabs(m3 / N) < 0.04);
    assert_true(fabs(m4 / N - 3) < 0.1);
    assert_true(fabs(neighbours / N) < 0.01);
    assert_true(fabs(beyond / (double)N - 0.05) < 0.0025);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_version_is_the_headers),
        cmocka_unit_test(status_names_differ),
        cmocka_unit_test(fail_fills_the_error),
        cmocka_unit_test(messages_are_one_short_line),
        cmocka_unit_test(philox_gives_the_known_answers),
        cmocka_unit_test(all_coordinates_matter),
        cmocka_unit_test(uniform_has_its_moments_and_range),
        cmocka_unit_test(below_is_uniform),
        cmocka_unit_test(permute_is_a_permutation),
        cmocka_unit_test(permute_is_uniform),
        cmocka_unit_test(normal_has_its_moments),
    };
    return cmocka_run_group_tests_name("core", tests, NULL, NULL);
}
