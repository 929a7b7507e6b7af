// SPDX-License-Identifier: MIT
/* Scores: each byte's bits are those of the full pass over the bytes before it; texts do not affect each other. */
#include "support.h"

#include "core/rng.h"
#include "random_bytes.h"
#include "tiny_model.h"

enum { V = 256, W = 40, LONG = 333, TEXTS = 60 };

static bb_device *device;
static bb_model *model;
static uint8_t text[LONG];

static int set_up(void **state) {
    (void)state;
    assert_ok(bb_device_open("cpu", 2, &device, &test_error));
    assert_ok(bb_model_create(device, &tiny, 3, &model, &test_error));
    fill_bytes(text, LONG);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    bb_model_free(model);
    bb_device_close(device);
    return 0;
}

/* Bits and rank of x[n] after the n bytes before it. */
static double expected_bits(const uint8_t *x, int n, int *rank) {
    static float logits[LONG * V];
    assert_ok(bb_model_forward(model, x, 1, n, logits, &test_error));
    const float *row = logits + (size_t)(n - 1) * V;
    double max = -INFINITY, sum = 0;
    *rank = 0;
    for (int v = 0; v < V; v++) {
        max = fmax(max, (double)row[v]);
        *rank += row[v] > row[x[n]];
    }
    for (int v = 0; v < V; v++) sum += exp((double)row[v] - max);
    return (log(sum) + max - (double)row[x[n]]) / log(2);
}

static void score(bb_score_text *texts, int64_t count, int seq_len) {
    bb_score_options o;
    bb_score_options_default(&o);
    o.seq_len = seq_len;
    assert_ok(bb_score(model, texts, count, &o, &test_error));
}

static void bits_are_those_of_the_full_pass(void **state) {
    (void)state;
    static float bits[LONG], quick[LONG];
    uint8_t ranks[LONG];
    for (int context = 1; context <= 100; context += 33) {
        bb_score_text t = {.context = {text, (size_t)context},
                           .text = {text + context, (size_t)(LONG - context)},
                           .byte_bits = bits,
                           .byte_ranks = ranks};
        score(&t, 1, W);
        double sum = 0;
        int begin = context - W / 2 > 0 ? context - W / 2 : 0, end = begin + W; /* the window that predicts bytes up to `end` */
        for (int i = context; i < LONG; i++) {
            if (i > end) {
                begin = i - W / 2;
                end = begin + W;
            }
            int rank;
            double expected = expected_bits(text + begin, i - begin, &rank);
            if (!(fabs(expected - (double)bits[i - context]) < 0.02))
                fail_msg("byte %d: %g, not %g", i, (double)bits[i - context], expected);
            if (expected < 0.98 * (double)bits[i - context]) assert_int_equal(ranks[i - context], rank);
            sum += (double)bits[i - context];
        }
        assert_true(fabs(sum - t.bits) < 1e-3 * sum);
        bb_score_text again = {.context = t.context, .text = t.text, .byte_bits = quick};
        score(&again, 1, W);
        /* ranks do not change the bits */
        assert_memory_equal(&again.bits, &t.bits, sizeof t.bits);
        assert_memory_equal(quick, bits, (size_t)(LONG - context) * sizeof *bits);
    }
}

static void texts_do_not_depend_on_each_other(void **state) {
    (void)state;
    bb_score_text texts[TEXTS];
    uint8_t newline[LONG + 1];
    for (int i = 0; i < TEXTS; i++) {
        size_t size = bb_rng_below(3, BB_STREAM_TEST, (uint64_t)i, i % 4 ? 30 : LONG);
        texts[i] = (bb_score_text){.text = {text + LONG - size, size}};
    }
    score(texts, TEXTS, 0);
    for (int i = 0; i < TEXTS; i++) {
        bb_score_text alone = {.text = texts[i].text};
        score(&alone, 1, 0);
        assert_true(fabs(alone.bits - texts[i].bits) <= 1e-4 * alone.bits);
        newline[0] = '\n';
        if (texts[i].text.size) memcpy(newline + 1, texts[i].text.data, texts[i].text.size);
        bb_score_text after = {.context = {newline, 1}, .text = {newline + 1, texts[i].text.size}};
        score(&after, 1, 0);
        assert_true(after.bits >= alone.bits && after.bits <= alone.bits);
        if (texts[i].text.size == 0) assert_true(alone.bits <= 0);
    }
}

static void progress(void *user, int64_t done, int64_t total) {
    int64_t *last = user;
    assert_true(done > *last && done <= total && total == LONG);
    *last = done;
}

static void it_reports_and_stops(void **state) {
    (void)state;
    bb_score_text t = {.text = {text, LONG}};
    int64_t last = 0;
    volatile int stop = 0;
    bb_score_options o = {
        .struct_size = sizeof(bb_score_options), .seq_len = W, .on_progress = progress, .user = &last, .stop = &stop};
    assert_ok(bb_score(model, &t, 1, &o, &test_error));
    assert_int_equal(last, LONG);
    stop = 1;
    assert_fails(bb_score(model, &t, 1, &o, &test_error), BB_ERR_INTERRUPTED, "stopped after 0 of 333 bytes");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(bits_are_those_of_the_full_pass),
                                       cmocka_unit_test(texts_do_not_depend_on_each_other),
                                       cmocka_unit_test(it_reports_and_stops)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
