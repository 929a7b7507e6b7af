// SPDX-License-Identifier: MIT
/* Sessions: speculation does not change the output; stop texts, marks, the window, feeding in pieces. */
#include "support.h"

#include "core/rng.h"
#include "generation_output.h"
#include "levels.h"
#include "model/forward.h"

enum { V = 256, MAX_BYTES = OUTPUT_BYTES };

static const bb_config small_config = {.vocab_size = V,
                                       .n_layer = 2,
                                       .d_model = 32,
                                       .n_head = 2,
                                       .n_kv_head = 1,
                                       .d_ff = 48,
                                       .rope_base = 1e4,
                                       .norm_eps = 1e-6,
                                       .act_quant = true};

typedef struct fixture {
    bb_device *device;
    bb_model *model;
} fixture;

static fixture open_model(const char *device_name) {
    fixture f;
    assert_ok(bb_device_open(device_name, 0, &f.device, &test_error));
    assert_ok(bb_model_create(f.device, &small_config, 3, &f.model, &test_error));
    return f;
}

static void close_model(fixture f) {
    bb_model_free(f.model);
    bb_device_close(f.device);
}

static bb_session *open_session_with(bb_model *model, bb_model *draft, int context_length) {
    bb_session_options o;
    bb_session *session;
    bb_session_options_default(&o);
    o.draft = draft;
    o.context_length = context_length;
    assert_ok(bb_session_open(model, &o, &session, &test_error));
    return session;
}

static bb_session *open_session(bb_model *model, int context_length) { return open_session_with(model, NULL, context_length); }

static void feed(bb_session *session, const char *text) {
    assert_ok(bb_session_feed(session, (const uint8_t *)text, strlen(text), &test_error));
}

static bb_generate_metrics go_on(bb_session *session, bb_generate_options o, output *out) {
    bb_generate_metrics m;
    out->count = 0;
    o.on_byte = collect;
    o.user = out;
    assert_ok(bb_session_generate(session, &o, &m, &test_error));
    return m;
}

static bb_generate_options greedy(int64_t n) {
    bb_generate_options o;
    bb_generate_options_default(&o);
    o.temperature = 0;
    o.max_new_bytes = n;
    o.speculate = BB_SPECULATE_OFF;
    return o;
}

static void assert_same(const output *a, const output *b) {
    assert_int_equal(a->count, b->count);
    assert_memory_equal(a->bytes, b->bytes, (size_t)a->count);
}

/* The same bytes with and without guesses, from the same state; returns what the guesses did. */
static bb_generate_metrics compare_speculation(bb_session *session, bb_generate_options o, output *plain) {
    static output guessed;
    guessed.stop_after = plain->stop_after;
    o.speculate = BB_SPECULATE_OFF;
    assert_ok(bb_session_mark(session, &test_error));
    bb_generate_metrics without = go_on(session, o, plain);
    int64_t length = bb_session_length(session);
    assert_int_equal(without.drafted, 0);
    assert_ok(bb_session_rewind(session, &test_error));
    o.speculate = BB_SPECULATE_ALWAYS;
    bb_generate_metrics with = go_on(session, o, &guessed);
    assert_same(plain, &guessed);
    assert_int_equal(bb_session_length(session), length);
    assert_int_equal(with.new_bytes, without.new_bytes);
    assert_int_equal(with.context_restarts, without.context_restarts);
    assert_int_equal(with.stop, without.stop);
    assert_true(with.mean_logprob >= without.mean_logprob && with.mean_logprob <= without.mean_logprob);
    /* A pass gives the guesses that were right and one byte more, but for the last, which may end with a right one. */
    bool ended_early = plain->stop_after || with.stop >= 0 || with.new_bytes == 0;
    assert_in_range(with.passes + with.accepted - (with.new_bytes - 1), 0, ended_early ? 1 : 0);
    return with;
}

/* An untrained model, greedy, falls into repeating itself: nearly every guess is right. One that is drawn from is seldom
 * guessed, unless the temperature is low. */
static void speculation_changes_no_byte(void **state) {
    (void)state;
    fixture f = open_model("ref");
    bb_session *session = open_session(f.model, 200);
    static output out;
    feed(session, "The quick brown fox jumps over the lazy dog. The quick brown fox ");
    bb_generate_metrics m = compare_speculation(session, greedy(MAX_BYTES), &out);
    assert_int_equal(m.new_bytes, MAX_BYTES);
    assert_true(m.accepted > MAX_BYTES / 2);
    assert_true(m.context_restarts > 15);

    int64_t right = 0, wrong = 0;
    for (uint64_t seed = 0; seed < 12; seed++) {
        bb_generate_options o = greedy(300);
        o.temperature = seed % 3 == 0 ? 0.3 : 0.7;
        o.top_k = seed % 2 ? 3 : 0;
        o.repetition_penalty = seed % 4 == 3 ? 1.1 : 1;
        o.seed = seed;
        m = compare_speculation(session, o, &out);
        right += m.accepted;
        wrong += m.drafted - m.accepted;
    }
    assert_true(right > 100 && wrong > 100);
    bb_session_close(session);
    close_model(f);
}

/* With a draft model: another model's guesses change nothing, in windows that slide, after marks and cleared texts; the model's
 * own, of varied bytes that nothing in the text foretells, are right as a rule, which shows that they are drawn with its
 * numbers. */
static void a_draft_model_changes_no_byte(void **state) {
    (void)state;
    fixture f = open_model("ref");
    bb_config c = small_config;
    c.n_layer = 1;
    c.d_model = 24;
    c.n_kv_head = 2;
    bb_model *other;
    assert_ok(bb_model_create(f.device, &c, 4, &other, &test_error));
    static output out;
    for (int own = 0; own < 2; own++) {
        for (int window = 0; window <= 60; window += 60) {
            bb_session *session = open_session_with(f.model, own ? f.model : other, window);
            feed(session, "The quick brown fox");
            bb_generate_metrics m = compare_speculation(session, greedy(300), &out);
            assert_true(m.accepted > 50);
            bb_generate_options o = greedy(300);
            o.temperature = 3;
            o.seed = 8;
            m = compare_speculation(session, o, &out);
            double acceptance =
                (double)m.accepted / (double)m.drafted; /* a sliding window costs the own model's guesses some */
            assert_true(m.drafted > 0);
            assert_true(acceptance >= (own && !window ? 0.8 : 0) && acceptance <= (own ? 1 : 0.5));
            o.repetition_penalty = 1.2;
            out.stop_after = 40;
            compare_speculation(session, o, &out);
            out.stop_after = 0;
            assert_ok(bb_session_rewind(session, &test_error));
            feed(session, " jumps");
            compare_speculation(session, o, &out);
            bb_session_clear(session);
            compare_speculation(session, o, &out);
            bb_session_close(session);
        }
    }
    bb_model_free(other);
    close_model(f);
}

/* What the identity rests on: a row's logits are the same bits in a pass of 1 row as in one of up to 16, wherever it stands. */
static void check_rows(const char *device_name, const bb_config *config, bb_kv_type cached, int length) {
    static const int pieces[] = {1, 2, 3, 4, 5, 8, 11, 16};
    bb_device *device;
    bb_model *model;
    bb_kv_cache one, many;
    assert_ok(bb_device_open(device_name, 0, &device, &test_error));
    assert_ok(bb_model_create(device, config, 3, &model, &test_error));
    assert_ok(bb_kv_cache_open(model, length, cached, &one, &test_error));
    assert_ok(bb_kv_cache_open(model, length, cached, &many, &test_error));
    float *expected = malloc(16 * V * sizeof *expected), *found = malloc(16 * V * sizeof *found);
    int64_t at = 0;
    for (int round = 0; at < length; round++) {
        uint8_t x[16];
        int64_t n = pieces[round % 8];
        if (n > length - at) n = length - at;
        for (int64_t i = 0; i < n; i++) {
            x[i] = (uint8_t)bb_rng_below(7, BB_STREAM_TEST, (uint64_t)(at + i), V);
            assert_ok(bb_model_forward_cached(model, &one, &x[i], 1, true, expected + i * V, &test_error));
        }
        assert_ok(bb_model_forward_cached(model, &many, x, n, true, found, &test_error));
        if (memcmp(expected, found, (size_t)n * V * sizeof *found) != 0) {
            print_error("%s: %d rows at position %d differ from one at a time by %g\n", device_name, (int)n, (int)at,
                        relative_error(found, expected, (size_t)n * V));
            fail();
        }
        at += n;
    }
    free(expected);
    free(found);
    bb_kv_cache_close(&one);
    bb_kv_cache_close(&many);
    bb_model_free(model);
    bb_device_close(device);
}

static void rows_equal_single_bytes_on_ref(void **state) {
    (void)state;
    check_rows("ref", &small_config, BB_KV_INT6, 70);
    check_rows("ref", &small_config, BB_KV_INT8, 70);
    check_rows("ref", &small_config, BB_KV_F32, 70);
}

static void rows_equal_single_bytes_on_cpu(void **state) {
    (void)state;
    bb_config c = small_config;
    check_rows("cpu", &c, BB_KV_INT6, 600);
    check_rows("cpu", &c, BB_KV_INT8, 600);
    check_rows("cpu", &c, BB_KV_F32, 600);
    c = (bb_config){.vocab_size = V,
                    .n_layer = 2,
                    .d_model = 180,
                    .n_head = 6,
                    .n_kv_head = 3,
                    .d_ff = 300,
                    .rope_base = 1e4,
                    .norm_eps = 1e-6,
                    .act_quant = true};
    check_rows("cpu", &c, BB_KV_INT6, 300);
    check_rows("cpu", &c, BB_KV_INT8, 300);
    check_rows("cpu", &c, BB_KV_F32, 300);
    c.d_model = 384;
    c.n_kv_head = 6;
    c.d_ff = 1024;
    check_rows("cpu", &c, BB_KV_INT6, 200);
    check_rows("cpu", &c, BB_KV_INT8, 200);
    c.act_quant = false;
    check_rows("cpu", &c, BB_KV_INT6, 200);
    check_rows("cpu", &c, BB_KV_INT8, 200);
}

/* Chance never shows: what the program chooses by time is one of the same choices. */
static void automatic_speculation_changes_no_byte(void **state) {
    (void)state;
    fixture f = open_model("ref");
    bb_session *session = open_session(f.model, 0);
    static output plain, automatic;
    feed(session, "again and again and again and ");
    assert_ok(bb_session_mark(session, &test_error));
    go_on(session, greedy(1000), &plain);
    assert_ok(bb_session_rewind(session, &test_error));
    bb_generate_options o = greedy(1000);
    o.speculate = BB_SPECULATE_AUTO;
    go_on(session, o, &automatic);
    assert_same(&plain, &automatic);
    bb_session_close(session);
    close_model(f);
}

/* The stop texts are cut out of a known continuation, so that they come for certain. */
static void stop_texts_end_generation(void **state) {
    (void)state;
    fixture f = open_model("ref");
    bb_session *session = open_session(f.model, 0);
    static output all, out, next;
    bb_generate_options o = greedy(120);
    o.temperature = 3; /* varied bytes */
    feed(session, "prompt");
    assert_ok(bb_session_mark(session, &test_error));
    go_on(session, o, &all);
    assert_int_equal(all.count, 120);

    for (int length = 1; length <= 5; length++) {
        int at = 60;
        bb_bytes stop = {all.bytes + at, (size_t)length};
        while (memcmp(all.bytes + at - 1, stop.data, stop.size) == 0) at--; /* its first place */
        int first = 0;
        while (memcmp(all.bytes + first, stop.data, stop.size) != 0) first++;
        o.stops = &stop;
        o.stop_count = 1;
        assert_ok(bb_session_rewind(session, &test_error));
        bb_generate_metrics m = compare_speculation(session, o, &out);
        assert_int_equal(m.stop, 0);
        assert_int_equal(out.count, first);
        assert_memory_equal(out.bytes, all.bytes, (size_t)first);
        assert_int_equal(m.new_bytes, first + length);
        assert_int_equal(bb_session_length(session), 6 + first); /* nor is it in the text */
        assert_ok(bb_session_mark(session, &test_error));
        /* what follows is what follows that text, however it came to be */
        bb_generate_options rest = greedy(30);
        go_on(session, rest, &next);
        bb_session_clear(session);
        feed(session, "prompt");
        assert_ok(bb_session_feed(session, out.bytes, (size_t)out.count, &test_error));
        go_on(session, rest, &out);
        assert_same(&out, &next);
        bb_session_clear(session);
        feed(session, "prompt");
        assert_ok(bb_session_mark(session, &test_error));
    }

    /* A beginning of a stop text is held back, and shown when it turns out to be none: here at the end of the generation. */
    uint8_t never[4];
    memcpy(never, all.bytes + 117, 3);
    never[3] = (uint8_t)(all.bytes[119] + 1);
    bb_bytes stops[2] = {{never, 4}, {(const uint8_t *)"\x01\x02\x03 not this", 12}};
    o.stops = stops;
    o.stop_count = 2;
    bb_generate_metrics m = go_on(session, o, &out);
    assert_int_equal(m.stop, -1);
    assert_same(&all, &out);

    /* Two that end together: the longer one goes. The shorter one is two bytes that stand nowhere before. */
    int end = 20;
    while (memmem(all.bytes, (size_t)end - 1, all.bytes + end - 2, 2)) end++;
    assert_true(end < 100);
    bb_bytes both[2] = {{all.bytes + end - 2, 2}, {all.bytes + end - 4, 4}};
    o.stops = both;
    o.max_new_bytes = end;
    assert_ok(bb_session_rewind(session, &test_error));
    m = go_on(session, o, &out);
    assert_int_equal(m.stop, 1);
    assert_int_equal(out.count, end - 4);
    const bb_bytes empty = {all.bytes, 0};
    o.stops = &empty;
    o.stop_count = 1;
    assert_fails(bb_session_generate(session, &o, NULL, &test_error), BB_ERR_ARGUMENT, "stop text 1");
    bb_session_close(session);
    close_model(f);
}

/* Samples that share a prompt are those that each would be alone, also where one has driven the prompt out of the window. */
static void marks_bring_back_the_session(void **state) {
    (void)state;
    fixture f = open_model("ref");
    for (int window = 24; window <= 96; window += 24) {
        for (int prompt_length = 1; prompt_length <= 70; prompt_length += 23) {
            static output alone[3], out;
            char prompt[80];
            for (int i = 0; i < prompt_length; i++) prompt[i] = (char)('a' + i % 26);
            prompt[prompt_length] = '\0';
            bb_generate_options o = greedy(40);
            o.temperature = 2;
            o.repetition_penalty = 1.1;
            o.context_length = window;
            o.on_byte = collect;
            for (uint64_t i = 0; i < 3; i++) {
                alone[i].count = 0;
                o.user = &alone[i];
                o.seed = 7 + i;
                assert_ok(bb_generate(f.model, (const uint8_t *)prompt, (size_t)prompt_length, &o, NULL, &test_error));
            }
            assert_memory_not_equal(alone[0].bytes, alone[1].bytes, 40);
            bb_session *session = open_session(f.model, window);
            assert_fails(bb_session_rewind(session, &test_error), BB_ERR_ARGUMENT, "no mark");
            feed(session, prompt);
            assert_ok(bb_session_mark(session, &test_error));
            for (uint64_t i = 0; i < 6; i++) {
                if (i) assert_ok(bb_session_rewind(session, &test_error));
                o.seed = 7 + i % 3;
                bb_generate_metrics m = go_on(session, o, &out);
                assert_int_equal(m.prompt_bytes, i ? 0 : prompt_length);
                assert_same(&out, &alone[i % 3]);
                assert_int_equal(bb_session_length(session), prompt_length + 40);
            }
            bb_session_close(session);
        }
    }
    close_model(f);
}

/* A text fed in pieces is the text; what was generated is part of it; one that on_byte ends is cut there. */
static void feeding_in_pieces_is_feeding_at_once(void **state) {
    (void)state;
    fixture f = open_model("ref");
    bb_session *session = open_session(f.model, 64), *other = open_session(f.model, 64);
    static output a, b, c;
    bb_generate_options o = greedy(20);
    feed(session, "in ");
    feed(session, "");
    feed(session, "one piece or ");
    feed(session, "several");
    feed(other, "in one piece or several");
    bb_generate_metrics m = go_on(session, o, &a);
    assert_int_equal(m.prompt_bytes, 23);
    go_on(other, o, &b);
    assert_same(&a, &b);
    a.stop_after = 7;
    go_on(session, o, &a);
    assert_int_equal(a.count, 7);
    assert_int_equal(bb_session_length(session), 50);
    assert_ok(bb_session_feed(other, a.bytes, 7, &test_error));
    go_on(session, o, &b);
    go_on(other, o, &c);
    assert_same(&b, &c);
    /* an empty text begins after a newline */
    bb_session_clear(session);
    bb_session_clear(other);
    assert_int_equal(bb_session_length(session), 0);
    feed(other, "\n");
    go_on(session, o, &b);
    go_on(other, o, &c);
    assert_same(&b, &c);
    /* far more than is ever kept: the last bytes count, three quarters of a window */
    size_t big = 700000;
    uint8_t *many = malloc(big);
    for (size_t i = 0; i < big; i++) many[i] = (uint8_t)bb_rng_below(5, BB_STREAM_TEST, i, V);
    bb_session_clear(session);
    bb_session_clear(other);
    assert_ok(bb_session_feed(session, many, 100, &test_error));
    assert_ok(bb_session_feed(session, many + 100, big - 100, &test_error));
    assert_ok(bb_session_feed(other, many + big - 48, 48, &test_error));
    assert_int_equal(bb_session_length(session), big);
    go_on(session, o, &b);
    go_on(other, o, &c);
    assert_same(&b, &c);
    free(many);
    bb_session_close(session);
    bb_session_close(other);
    bb_session_options bad;
    bb_session_options_default(&bad);
    bad.context_length = -1;
    assert_fails(bb_session_open(f.model, &bad, &session, &test_error), BB_ERR_ARGUMENT, "context_length -1");
    close_model(f);
}

static bool stop_reading(void *user, int64_t done, int64_t total) {
    int *calls = user;
    assert_true(done > 0 && done <= total);
    return ++*calls < 2;
}

/* Reading can be ended: the text is then what was read. */
static void an_interrupted_feed_keeps_what_was_read(void **state) {
    (void)state;
    fixture f = open_model("ref");
    static output a, b;
    uint8_t text[1600];
    for (int i = 0; i < 1600; i++) text[i] = (uint8_t)('a' + i % 23);
    bb_session *session, *other = open_session(f.model, 2000);
    bb_session_options o;
    int calls = 0;
    bb_session_options_default(&o);
    o.context_length = 2000;
    o.on_read = stop_reading;
    o.user = &calls;
    assert_ok(bb_session_open(f.model, &o, &session, &test_error));
    assert_fails(bb_session_feed(session, text, sizeof text, &test_error), BB_ERR_INTERRUPTED, "of 1600 bytes");
    assert_int_equal(calls, 2);
    int64_t length = bb_session_length(session);
    assert_true(length > 0 && length < 1600);
    assert_ok(bb_session_feed(other, text, (size_t)length, &test_error));
    go_on(session, greedy(10), &a);
    go_on(other, greedy(10), &b);
    assert_same(&a, &b);
    bb_session_close(session);
    bb_session_close(other);
    close_model(f);
}

int main(void) {
    const struct CMUnitTest level_tests[] = {cmocka_unit_test(rows_equal_single_bytes_on_cpu)};
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_equal_single_bytes_on_ref),
                                       cmocka_unit_test(rows_equal_single_bytes_on_cpu),
                                       cmocka_unit_test(speculation_changes_no_byte),
                                       cmocka_unit_test(automatic_speculation_changes_no_byte),
                                       cmocka_unit_test(a_draft_model_changes_no_byte),
                                       cmocka_unit_test(stop_texts_end_generation),
                                       cmocka_unit_test(marks_bring_back_the_session),
                                       cmocka_unit_test(feeding_in_pieces_is_feeding_at_once),
                                       cmocka_unit_test(an_interrupted_feed_keeps_what_was_read)};
    if (begin_level(NULL)) return cmocka_run_group_tests(level_tests, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
