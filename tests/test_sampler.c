// SPDX-License-Identifier: MIT
/* The sampler: the distribution of each filter, over many draws; the order of the filters; the detection of stop texts. */
#include "support.h"

#include "core/rng.h"
#include "inference/sampler.h"
#include "inference/stop.h"

enum { V = 256 };

static const bb_sampler plain = {.repetition_penalty = 1, .repetition_window = 64, .temperature = 1, .top_p = 1, .seed = 5};

/* The definition, by sorting: what bitbyte.h says of bb_generate_options, in its order. */
static void define(const bb_sampler *s, const float *logits, int vocab, const int32_t *seen, double *p) {
    int order[V] = {0};
    double l[V] = {0}, total = 0, sum = 0;
    for (int i = 0; i < vocab; i++) {
        l[i] = (double)logits[i];
        if (seen && seen[i]) l[i] = l[i] > 0 ? l[i] / s->repetition_penalty : l[i] * s->repetition_penalty;
        order[i] = i;
        p[i] = 0;
    }
    for (int i = 0; i < vocab; i++) /* likeliest first, equals by id */
        for (int j = i + 1; j < vocab; j++)
            if (l[order[j]] > l[order[i]] || (l[order[j]] >= l[order[i]] && order[j] < order[i])) {
                int swapped = order[i];
                order[i] = order[j];
                order[j] = swapped;
            }
    int n = s->top_k > 0 && s->top_k < vocab ? s->top_k : vocab;
    for (int i = 0; i < n; i++) total += p[order[i]] = exp((l[order[i]] - l[order[0]]) / s->temperature);
    int kept = 0;
    while (kept < n && (kept == 0 || (s->top_p < 1 ? sum < s->top_p * total : true))) sum += p[order[kept++]];
    for (int i = kept; i < n; i++) p[order[i]] = 0;
    sum = 0;
    for (int i = 0; i < vocab; i++) {
        if (p[i] < s->min_p) p[i] = 0;
        sum += p[i];
    }
    for (int i = 0; i < vocab; i++) p[i] /= sum;
}

/* Draws many times and compares the counts with the distribution: chi-square over the cells that are expected at least 5 times,
 * p below 1e-6 at the bound; what has probability 0 never comes. */
static void check_distribution(const bb_sampler *s, const float *logits, int vocab, const int32_t *seen) {
    enum { N = 10000 };
    int count[V] = {0}, cells = 0;
    double p[V], chi2 = 0, rare = 0, rare_count = 0;
    define(s, logits, vocab, seen, p);
    for (int i = 0; i < N; i++) count[bb_sampler_draw(s, logits, vocab, seen, (uint64_t)i)]++;
    for (int v = 0; v < vocab; v++) {
        double expected = N * p[v], d = count[v] - expected;
        if (p[v] <= 0) assert_int_equal(count[v], 0);
        if (expected < 5) {
            rare += expected;
            rare_count += count[v];
            continue;
        }
        chi2 += d * d / expected;
        cells++;
    }
    if (rare >= 5) {
        chi2 += (rare_count - rare) * (rare_count - rare) / rare;
        cells++;
    }
    if (!(chi2 < cells + 5 * sqrt(2.0 * cells) + 10)) {
        print_error("chi-square %g over %d cells: temperature %g, top_k %d, top_p %g, min_p %g, penalty %g\n", chi2, cells,
                    s->temperature, s->top_k, s->top_p, s->min_p, s->repetition_penalty);
        fail();
    }
}

static void bytes_follow_the_distribution(void **state) {
    (void)state;
    float logits[V];
    int32_t seen[V];
    for (int i = 0; i < V; i++) {
        logits[i] = 3 * (float)bb_rng_normal(11, BB_STREAM_TEST, (uint64_t)i);
        seen[i] = i % 3 == 0 ? i % 5 : 0;
    }
    logits[17] = logits[3]; /* equals */
    const double temperatures[] = {0.3, 1, 2.5}, top_ps[] = {1, 0.9, 0.5, 0.01}, min_ps[] = {0, 0.02, 0.5, 1};
    const int top_ks[] = {0, 1, 2, 40, 255, 256};
    uint64_t seed = 100;
    for (size_t t = 0; t < 3; t++)
        for (size_t k = 0; k < 6; k++)
            for (size_t p = 0; p < 4; p++)
                for (size_t m = 0; m < 4; m++) {
                    if ((t + k + p + m) % 6 != 0) continue;
                    bb_sampler s = plain;
                    s.temperature = temperatures[t];
                    s.top_k = top_ks[k];
                    s.top_p = top_ps[p];
                    s.min_p = min_ps[m];
                    s.seed = seed++;
                    s.repetition_penalty = (k + m) % 2 ? 1 : 1.3;
                    check_distribution(&s, logits, V, seen);
                }
    const float few[] = {0.0f, 1.0f, 2.0f, 0.5f, -1.0f};
    bb_sampler s = plain;
    s.top_p = 0.7; /* p = 0.08 0.22 0.60 0.13 0.03 or so: 0.7 is reached by the two likeliest */
    double p[5];
    define(&s, few, 5, NULL, p);
    assert_true(p[1] > 0 && p[2] > 0 && fabs(p[1] + p[2] - 1) < 1e-12);
    check_distribution(&s, few, 5, NULL);
}

static void options_restrict_the_choice(void **state) {
    (void)state;
    const float logits[] = {0.0f, 1.0f, 2.0f, 0.5f, -1.0f};
    double total = 0;
    for (int i = 0; i < 5; i++) total += exp((double)logits[i]);
    for (int i = 0; i < 5; i++) assert_true(fabs(bb_sampler_logprob(logits, 5, i) - ((double)logits[i] - log(total))) < 1e-12);

    /* greedy: the lowest of equals, after the penalty */
    bb_sampler s = plain;
    s.temperature = 0;
    const float ties[] = {1.0f, 3.0f, 3.0f}, negative[] = {-1.0f, -1.5f, -9.0f};
    const int32_t seen[] = {0, 2, 0}, first[] = {1, 0, 0};
    assert_int_equal(bb_sampler_draw(&s, ties, 3, NULL, 0), 1);
    s.repetition_penalty = 1.2;
    assert_int_equal(bb_sampler_draw(&s, ties, 3, seen, 0), 2);
    assert_int_equal(bb_sampler_draw(&s, negative, 3, first, 0), 0); /* -1.2 still beats -1.5 */
    s.repetition_penalty = 2;
    assert_int_equal(bb_sampler_draw(&s, negative, 3, first, 0), 1); /* -2 does not */
    s.repetition_penalty = 0.5;
    assert_int_equal(bb_sampler_draw(&s, negative, 3, seen, 0), 1); /* below 1 it makes a byte likelier: -0.75 */

    /* the same draw again and another one */
    float many[V];
    for (int i = 0; i < V; i++) many[i] = (float)(i % 7) * 0.1f;
    s = plain;
    int differ = 0;
    for (uint64_t i = 0; i < 100; i++) {
        bb_sampler other = s;
        other.seed++;
        int drawn = bb_sampler_draw(&s, many, V, NULL, i);
        assert_int_equal(drawn, bb_sampler_draw(&s, many, V, NULL, i));
        differ += drawn != bb_sampler_draw(&other, many, V, NULL, i);
    }
    assert_true(differ > 80);
}

/* Two distributions draw the same byte of one number as often as the bound in sampler.c says, and no more often than any two
 * can: 1 - t, t their distance. What a draft model's guesses rest on. */
static void coupled_draws_agree_as_often_as_they_can(void **state) {
    (void)state;
    enum { N = 4000 };
    const double noises[] = {0, 0.1, 0.5, 1, 3}, temperatures[] = {0.5, 1};
    for (int noise = 0; noise < 5; noise++) {
        float a[V], b[V];
        double p[V], q[V], distance = 0;
        bb_sampler s = plain;
        s.temperature = temperatures[noise % 2];
        s.top_k = noise == 2 ? 30 : 0;
        s.min_p = noise == 3 ? 0.02 : 0;
        for (uint64_t i = 0; i < V; i++) {
            a[i] = 3 * (float)bb_rng_normal(12, BB_STREAM_TEST, i);
            b[i] = a[i] + (float)(noises[noise] * bb_rng_normal(13, BB_STREAM_TEST, i));
        }
        define(&s, a, V, NULL, p);
        define(&s, b, V, NULL, q);
        for (int i = 0; i < V; i++) distance += fabs(p[i] - q[i]) / 2;
        int same = 0;
        for (uint64_t i = 0; i < N; i++) same += bb_sampler_draw(&s, a, V, NULL, i) == bb_sampler_draw(&s, b, V, NULL, i);
        double found = (double)same / N, least = (1 - distance) / (1 + distance), most = 1 - distance;
        double sigma = 0.5 / sqrt(N); /* at most */
        if (found < least - 5 * sigma || found > most + 5 * sigma || (noise == 0 && same < N)) {
            print_error("distance %g: the same in %g of the draws, not between %g and %g\n", distance, found, least, most);
            fail();
        }
    }
}

static void impossible_values_are_refused(void **state) {
    (void)state;
    bb_sampler s = plain;
    assert_ok(bb_sampler_check(&s, &test_error));
    s.repetition_penalty = 0;
    assert_fails(bb_sampler_check(&s, &test_error), BB_ERR_ARGUMENT, "repetition_penalty 0");
    s = plain;
    s.repetition_window = 0;
    assert_fails(bb_sampler_check(&s, &test_error), BB_ERR_ARGUMENT, "repetition_window 0");
    s.repetition_window = 65537;
    assert_fails(bb_sampler_check(&s, &test_error), BB_ERR_ARGUMENT, "65536");
    s = plain;
    s.min_p = 1.5;
    assert_fails(bb_sampler_check(&s, &test_error), BB_ERR_ARGUMENT, "min_p 1.5");
    s = plain;
    s.top_p = (double)NAN;
    assert_fails(bb_sampler_check(&s, &test_error), BB_ERR_ARGUMENT, "top_p");
    s = plain;
    s.top_k = -1;
    assert_fails(bb_sampler_check(&s, &test_error), BB_ERR_ARGUMENT, "top_k -1");
    s = plain;
    s.temperature = (double)INFINITY;
    assert_fails(bb_sampler_check(&s, &test_error), BB_ERR_ARGUMENT, "temperature");
}

/* Random texts over two letters against the definition: every end is compared with every text. */
static void stop_texts_are_found_everywhere(void **state) {
    (void)state;
    enum { ROUNDS = 300, LENGTH = 60, TEXTS = 3, LONGEST = 6 };
    int stopped = 0;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        uint8_t texts[TEXTS][LONGEST], output[LENGTH];
        bb_bytes list[TEXTS];
        uint64_t draw = round << 16;
        for (int i = 0; i < TEXTS; i++) {
            list[i] = (bb_bytes){texts[i], 1 + (size_t)bb_rng_below(3, BB_STREAM_TEST, draw++, LONGEST)};
            for (size_t j = 0; j < list[i].size; j++) texts[i][j] = (uint8_t)('a' + bb_rng_below(3, BB_STREAM_TEST, draw++, 2));
        }
        bb_stop stop;
        assert_ok(bb_stop_open(list, TEXTS, &stop, &test_error));
        for (int n = 1; n <= LENGTH; n++) {
            output[n - 1] = (uint8_t)('a' + bb_rng_below(3, BB_STREAM_TEST, draw++, 2));
            int found = bb_stop_push(&stop, output[n - 1]), expected = -1;
            size_t held = 0;
            for (int i = 0; i < TEXTS; i++)
                for (size_t k = 1; k <= list[i].size && k <= (size_t)n; k++) {
                    if (memcmp(output + n - (int)k, texts[i], k) != 0) continue;
                    if (k > held) held = k;
                    if (k == list[i].size && (expected < 0 || k > list[expected].size)) expected = i;
                }
            assert_int_equal(found, expected);
            assert_int_equal(bb_stop_held(&stop), held);
            if (found < 0) continue;
            stopped++;
            break;
        }
        bb_stop_close(&stop);
    }
    assert_true(stopped > ROUNDS / 2);
    bb_stop stop;
    const bb_bytes empty = {(const uint8_t *)"", 0};
    assert_fails(bb_stop_open(&empty, 1, &stop, &test_error), BB_ERR_ARGUMENT, "stop text 1 has 0 bytes");
    assert_ok(bb_stop_open(NULL, 0, &stop, &test_error));
    assert_int_equal(bb_stop_push(&stop, 'x'), -1);
    bb_stop_close(&stop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_follow_the_distribution), cmocka_unit_test(options_restrict_the_choice),
        cmocka_unit_test(coupled_draws_agree_as_often_as_they_can), cmocka_unit_test(impossible_values_are_refused),
        cmocka_unit_test(stop_texts_are_found_everywhere)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
