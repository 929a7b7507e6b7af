// SPDX-License-Identifier: MIT
/* Generation: the KV cache compared with the full forward pass, and the context window. */
#include "support.h"

#include "core/rng.h"
#include "generation_output.h"
#include "levels.h"
#include "model/forward.h"
#include "random_bytes.h"

enum { T = 40, V = 256 };

static const bb_config configs[] = {
    {.vocab_size = V,
     .n_layer = 2,
     .d_model = 64,
     .n_head = 4,
     .n_kv_head = 4,
     .d_ff = 96,
     .rope_base = 1e4,
     .norm_eps = 1e-6,
     .act_quant = true},
    {.vocab_size = V,
     .n_layer = 3,
     .d_model = 60,
     .n_head = 6,
     .n_kv_head = 2,
     .d_ff = 52,
     .rope_base = 1e4,
     .norm_eps = 1e-6,
     .act_quant = true},
    {.vocab_size = V,
     .n_layer = 1,
     .d_model = 32,
     .n_head = 1,
     .n_kv_head = 1,
     .d_ff = 48,
     .rope_base = 1e4,
     .norm_eps = 1e-6,
     .act_quant = false},
};

static bb_model *new_model(bb_device *device, const bb_config *config) {
    bb_model *model;
    assert_ok(bb_model_create(device, config, 3, &model, &test_error));
    return model;
}

/* Feeds x in pieces of the given lengths (the last repeats) and compares every position's logits with the full forward's. */
static double compare_cached(bb_model *model, const uint8_t *x, const float *full, int first_piece, int piece) {
    bb_kv_cache cache;
    float *logits = malloc((size_t)T * V * sizeof *logits);
    double worst = 0;
    assert_ok(bb_kv_cache_open(model, T, BB_KV_F32, &cache, &test_error));
    for (int at = 0; at < T;) {
        int n = at == 0 ? first_piece : piece;
        if (n > T - at) n = T - at;
        assert_ok(bb_model_forward_cached(model, &cache, x + at, n, true, logits, &test_error));
        for (int i = 0; i < n; i++) worst = fmax(worst, relative_error(logits + i * V, full + (at + i) * V, V));
        at += n;
    }
    assert_int_equal(cache.length, T);
    assert_fails(bb_model_forward_cached(model, &cache, x, 1, false, logits, &test_error), BB_ERR_ARGUMENT, "do not fit");
    bb_kv_cache_close(&cache);
    free(logits);
    return worst;
}

static void check_cache(const char *device_name, double quantized, double unquantized) {
    bb_device *device;
    uint8_t x[T];
    float *full = malloc((size_t)T * V * sizeof *full);
    fill_bytes(x, T);
    assert_ok(bb_device_open(device_name, 0, &device, &test_error));
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        bb_model *model = new_model(device, &configs[i]);
        double bound = configs[i].act_quant ? quantized : unquantized;
        assert_ok(bb_model_reserve(model, 1, T, false, false, &test_error));
        assert_ok(bb_model_forward(model, x, 1, T, full, &test_error));
        static const int pieces[][2] = {{1, 1}, {T, T}, {7, 1}, {16, 5}};
        for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++) {
            double worst = compare_cached(model, x, full, pieces[p][0], pieces[p][1]);
            if (!(worst <= bound)) print_error("%s, model %zu, pieces %d: %.3g\n", device_name, i, pieces[p][1], worst);
            assert_true(worst <= bound);
        }
        bb_model_free(model);
    }
    free(full);
    bb_device_close(device);
}

/* ref: the same sums in the same order. */
static void the_cache_equals_the_full_pass_on_ref(void **state) {
    (void)state;
    check_cache("ref", 1e-6, 1e-6);
}

/* cpu: a key tile's sums may be grouped otherwise when the queries are few: f32 (2^-24, over some layers), and bf16 (2^-9)
 * where the linear layers' inputs are not quantized. */
static void the_cache_equals_the_full_pass_on_cpu(void **state) {
    (void)state;
    check_cache("cpu", 1e-5, 5e-3);
}

static void generate(bb_model *model, const char *prompt, bb_generate_options o, output *out, bb_generate_metrics *m) {
    *out = (output){.stop_after = out->stop_after};
    o.on_byte = collect;
    o.user = out;
    assert_ok(bb_generate(model, (const uint8_t *)prompt, strlen(prompt), &o, m, &test_error));
}

/* Greedy generation by the full forward pass of everything so far. */
static void greedy_equals_the_full_pass(void **state) {
    (void)state;
    bb_device *device;
    assert_ok(bb_device_open("ref", 0, &device, &test_error));
    bb_model *model = new_model(device, &configs[1]);
    bb_generate_options o;
    bb_generate_options_default(&o);
    o.temperature = 0;
    o.max_new_bytes = 20;
    output out = {0};
    bb_generate_metrics m;
    generate(model, "In the beginning", o, &out, &m);
    assert_int_equal(out.count, 20);
    assert_int_equal(m.prompt_bytes, 16);
    assert_int_equal(m.context_restarts, 0);
    uint8_t text[64] = "In the beginning";
    float *logits = malloc(64 * V * sizeof *logits);
    for (int i = 0; i < 20; i++) {
        int n = 16 + i, best = 0;
        assert_ok(bb_model_forward(model, text, 1, n, logits, &test_error));
        const float *last = logits + (n - 1) * V;
        for (int v = 1; v < V; v++)
            if (last[v] > last[best]) best = v;
        assert_int_equal(best, out.bytes[i]);
        text[n] = (uint8_t)best;
    }
    free(logits);
    bb_model_free(model);
    bb_device_close(device);
}

static void a_full_window_drops_its_older_half(void **state) {
    (void)state;
    bb_device *device;
    assert_ok(bb_device_open("ref", 0, &device, &test_error));
    bb_model *model = new_model(device, &configs[0]);
    bb_generate_options o;
    bb_generate_options_default(&o);
    o.context_length = 16;
    o.max_new_bytes = 50;
    o.temperature = 0;
    output out = {0}, again = {0}, part = {.stop_after = 5};
    bb_generate_metrics m;
    generate(model, "0123456789", o, &out, &m);
    assert_int_equal(out.count, 50);
    /* 10 + 49 bytes read, 16 held; each restart keeps 8 */
    assert_int_equal(m.context_restarts, 6);
    generate(model, "0123456789", o, &again, &m);
    assert_memory_equal(out.bytes, again.bytes, 50);
    /* a prompt longer than the window is continued from its last bytes: the last 12 of 26 */
    generate(model, "abcdefghijklmnopqrstuvwxyz", o, &out, &m);
    generate(model, "opqrstuvwxyz", o, &again, &m);
    assert_memory_equal(out.bytes, again.bytes, 50);
    generate(model, "", o, &out, &m); /* no prompt */
    assert_int_equal(out.count, 50);
    generate(model, "x", o, &part, &m); /* the caller ends it */
    assert_int_equal(part.count, 5);
    assert_int_equal(m.new_bytes, 5);
    o.max_new_bytes = 0;
    generate(model, "x", o, &part, &m);
    assert_int_equal(m.new_bytes, 0);
    o.context_length = 1;
    o.max_new_bytes = 4;
    generate(model, "xyz", o, &out, &m);
    assert_int_equal(out.count, 4);
    o.temperature = -1;
    assert_fails(bb_generate(model, NULL, 0, &o, &m, &test_error), BB_ERR_ARGUMENT, "temperature -1");
    o.temperature = 1;
    o.top_p = 0;
    assert_fails(bb_generate(model, NULL, 0, &o, &m, &test_error), BB_ERR_ARGUMENT, "top_p 0");
    bb_model_free(model);
    bb_device_close(device);
}

int main(void) {
    const struct CMUnitTest level_tests[] = {cmocka_unit_test(the_cache_equals_the_full_pass_on_cpu)};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cache_equals_the_full_pass_on_ref), cmocka_unit_test(the_cache_equals_the_full_pass_on_cpu),
        cmocka_unit_test(greedy_equals_the_full_pass), cmocka_unit_test(a_full_window_drops_its_older_half)};
    if (begin_level(NULL)) return cmocka_run_group_tests(level_tests, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
