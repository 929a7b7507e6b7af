// SPDX-License-Identifier: MIT
/* The configuration: limits, size, and its JSON form. */
#include <limits.h>

#include "limited_memory.h"
#include "model/config.h"
#include "model/weights.h"
#include "support.h"

static bb_config default_config(void) {
    bb_config c;
    bb_config_default(&c);
    return c;
}

static void assert_config_equal(const bb_config *a, const bb_config *b) {
    assert_int_equal(a->vocab_size, b->vocab_size);
    assert_int_equal(a->n_layer, b->n_layer);
    assert_int_equal(a->d_model, b->d_model);
    assert_int_equal(a->n_head, b->n_head);
    assert_int_equal(a->n_kv_head, b->n_kv_head);
    assert_int_equal(a->d_ff, b->d_ff);
    assert_true(a->rope_base == b->rope_base);
    assert_true(a->norm_eps == b->norm_eps);
    assert_int_equal(a->act_quant, b->act_quant);
    assert_int_equal(a->ste, b->ste);
    assert_int_equal(a->ngram_max, b->ngram_max);
    assert_int_equal(a->ngram_bits, b->ngram_bits);
    assert_int_equal(a->dense, b->dense);
}

static void the_default_is_the_originals(void **state) {
    (void)state;
    bb_config c = default_config();
    assert_ok(bb_config_check(&c, &test_error));
    assert_true(bb_config_parameters(&c) == 679945728u); /* SPEC's count, the head tied */
    assert_true(c.act_quant);
    assert_int_equal(c.ste, BB_STE_IDENTITY);
}

static void parameters_are_counted_as_by_hand(void **state) {
    (void)state;
    /* E 256*8; a block: two norms 8, q and o 8*8, k and v 4*8 (2 heads of 4, 1 KV head), gate_up 24*8, down 8*12; norm_f 8. */
    bb_config c = default_config();
    c.n_layer = 3, c.d_model = 8, c.n_head = 2, c.n_kv_head = 1, c.d_ff = 12;
    assert_true(bb_config_parameters(&c) == 256 * 8 + 3 * (16 + 128 + 64 + 192 + 96) + 8);
}

static void the_largest_configuration_does_not_overflow(void **state) {
    (void)state;
    bb_config c = default_config();
    c.n_layer = 4096, c.d_model = 65536, c.n_head = c.n_kv_head = 512, c.d_ff = 1 << 20;
    assert_ok(bb_config_check(&c, &test_error));
    double expected = 256.0 * 65536 + 4096.0 * (2 * 65536.0 + 4 * 65536.0 * 65536 + 3 * 65536.0 * 1048576) + 65536;
    assert_true(fabs((double)bb_config_parameters(&c) - expected) / expected < 1e-12);
}

/* Every impossible value: the message names the key, the value and what is allowed. */
static void impossible_values_are_refused(void **state) {
    (void)state;
    bb_config base = default_config();
    base.n_layer = 2, base.d_model = 64, base.n_head = 4, base.n_kv_head = 2, base.d_ff = 96;
    assert_ok(bb_config_check(&base, &test_error));

    static const int absurd[] = {0, -1, INT_MIN, INT_MAX};
    static const struct {
        const char *key;
        size_t offset;
        int over;
    } sizes[] = {{"n_layer", offsetof(bb_config, n_layer), 4097},
                 {"d_model", offsetof(bb_config, d_model), 65537},
                 {"n_head", offsetof(bb_config, n_head), 65537},
                 {"n_kv_head", offsetof(bb_config, n_kv_head), 65537},
                 {"d_ff", offsetof(bb_config, d_ff), (1 << 20) + 1}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (int k = 0; k < 5; k++) {
            bb_config c = base;
            int value = k < 4 ? absurd[k] : sizes[i].over;
            char expected[96];
            memcpy((char *)&c + sizes[i].offset, &value, sizeof value);
            (void)snprintf(expected, sizeof expected, "%s is %d; it must be from 1 to %d", sizes[i].key, value,
                           sizes[i].over - 1);
            assert_int_equal(bb_config_check(&c, &test_error), BB_ERR_ARGUMENT);
            assert_string_equal(test_error.message, expected);
        }

    static const struct {
        const char *message;
        bb_config c;
    } cases[] = {
#define CONFIG(V, C, H, HK, ROPE, EPS, STE) {V, 2, C, H, HK, 96, ROPE, EPS, true, (bb_ste)(STE), 0, 0, false}
        {"vocab_size is 257; it must be 256", CONFIG(257, 64, 4, 2, 1e4, 1e-6, 0)},
        {"vocab_size is 0; it must be 256", CONFIG(0, 64, 4, 2, 1e4, 1e-6, 0)},
        {"n_head is 7; it must divide d_model, which is 64", CONFIG(256, 64, 7, 7, 1e4, 1e-6, 0)},
        {"n_head is 128; it must divide d_model, which is 64", CONFIG(256, 64, 128, 2, 1e4, 1e-6, 0)},
        {"60/4 = 15; RoPE needs an even head size", CONFIG(256, 60, 4, 2, 1e4, 1e-6, 0)},
        {"64/64 = 1; RoPE needs an even head size", CONFIG(256, 64, 64, 2, 1e4, 1e-6, 0)},
        {"n_kv_head is 3; it must divide n_head, which is 4", CONFIG(256, 64, 4, 3, 1e4, 1e-6, 0)},
        {"n_kv_head is 8; it must divide n_head, which is 4", CONFIG(256, 64, 4, 8, 1e4, 1e-6, 0)},
        {"rope_base is 1; it must be finite and above 1", CONFIG(256, 64, 4, 2, 1.0, 1e-6, 0)},
        {"rope_base is -10000; ", CONFIG(256, 64, 4, 2, -1e4, 1e-6, 0)},
        {"rope_base is inf; ", CONFIG(256, 64, 4, 2, INFINITY, 1e-6, 0)},
        {"nan; it must be finite", CONFIG(256, 64, 4, 2, NAN, 1e-6, 0)},
        {"norm_eps is 0; it must be above 0", CONFIG(256, 64, 4, 2, 1e4, 0.0, 0)},
        {"norm_eps is -1e-06; ", CONFIG(256, 64, 4, 2, 1e4, -1e-6, 0)},
        {"norm_eps is 1e-40; ", CONFIG(256, 64, 4, 2, 1e4, 1e-40, 0)},
        {"norm_eps is inf; ", CONFIG(256, 64, 4, 2, 1e4, INFINITY, 0)},
        {"nan; it must be above 0", CONFIG(256, 64, 4, 2, 1e4, NAN, 0)},
        {"ste is 2; it must be identity (0) or clipped (1)", CONFIG(256, 64, 4, 2, 1e4, 1e-6, 2)},
        {"ngram_max is 1; it must be 0", {256, 2, 64, 4, 2, 96, 1e4, 1e-6, true, 0, 1, 10, false}},
        {"ngram_max is 8; it must be 0 (no n-gram embeddings) or from 2 to 7",
         {256, 2, 64, 4, 2, 96, 1e4, 1e-6, true, 0, 8, 10, false}},
        {"ngram_bits is 0; it must be from 4 to 24", {256, 2, 64, 4, 2, 96, 1e4, 1e-6, true, 0, 3, 0, false}},
        {"ngram_bits is 25; it must be from 4 to 24", {256, 2, 64, 4, 2, 96, 1e4, 1e-6, true, 0, 3, 25, false}},
        {"ngram_bits is 4; it must be from 4 to 24 with ngram_max, 0 without",
         {256, 2, 64, 4, 2, 96, 1e4, 1e-6, true, 0, 0, 4, false}},
#undef CONFIG
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_fails(bb_config_check(&cases[i].c, &test_error), BB_ERR_ARGUMENT, cases[i].message);
    }
}

static void json_brings_back_the_configuration(void **state) {
    (void)state;
    bb_config c = {256, 3, 60, 5, 1, 52, 500000.5, 1.0 / 3e5, false, BB_STE_CLIPPED, 5, 12, false}, back;
    for (int i = 0; i < 2; i++) {
        json_t *json = bb_config_to_json(&c);
        char *text = json_dumps(json, JSON_COMPACT);
        json_decref(json);
        assert_non_null(text);
        memset(&back, 0x55, sizeof back);
        assert_ok(bb_config_from_json(text, "f", &back, &test_error));
        free(text);
        assert_config_equal(&back, &c);
        bb_config_default(&c);
    }
}

static void json_has_every_key(void **state) {
    (void)state;
    bb_config c = default_config();
    json_t *json = bb_config_to_json(&c);
    char *text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(6));
    json_decref(json);
    assert_string_equal(text,
                        "{\"vocab_size\":256,\"n_layer\":24,\"d_model\":1536,\"n_head\":12,\"n_kv_head\":12,\"d_ff\":4096,"
                        "\"rope_base\":10000.0,\"norm_eps\":1e-6,\"act_quant\":true,\"ste\":\"identity\"}");
    free(text);
}

#define SIZES "\"vocab_size\":256,\"n_layer\":2,\"d_model\":64,\"n_head\":4,\"d_ff\":96"

static void json_keys_have_defaults(void **state) {
    (void)state;
    bb_config expected = default_config(), c;
    expected.n_layer = 2, expected.d_model = 64, expected.n_head = 4, expected.n_kv_head = 4, expected.d_ff = 96;
    assert_ok(bb_config_from_json("{" SIZES ",\"made_by\":{\"someone\":[\"else\"]}}", "f", &c, &test_error));
    assert_config_equal(&c, &expected);
    assert_ok(bb_config_from_json("{" SIZES ",\"rope_base\":20000}", "f", &c, &test_error)); /* an integer will do */
    assert_true(c.rope_base == 20000.0);
}

static void wrong_json_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "m.safetensors: config: not JSON at byte 0: "},
        {"{", "m.safetensors: config: not JSON"},
        {"{" SIZES "} x", "not JSON at byte 66"},
        {"[1]", "config: expected an object, found an array"},
        {"{" SIZES ",\"n_layer\":2}", "duplicate object key"},
        {"{\"n_layer\":2,\"d_model\":64,\"n_head\":4,\"d_ff\":96}", "vocab_size is missing"},
        {"{\"vocab_size\":256,\"d_model\":64,\"n_head\":4,\"d_ff\":96}", "n_layer is missing"},
        {"{\"vocab_size\":256,\"n_layer\":2,\"n_head\":4,\"d_ff\":96}", "d_model is missing"},
        {"{\"vocab_size\":256,\"n_layer\":2,\"d_model\":64,\"d_ff\":96}", "n_head is missing"},
        {"{\"vocab_size\":256,\"n_layer\":2,\"d_model\":64,\"n_head\":4}", "d_ff is missing"},
        {"{\"vocab_size\":256.0}", "vocab_size: expected an integer, found a real number"},
        {"{\"vocab_size\":\"256\"}", "vocab_size: expected an integer, found a string"},
        {"{\"vocab_size\":4294967552}", "vocab_size is 4294967552, out of range"},
        {"{\"vocab_size\":-4294967040}", "vocab_size is -4294967040, out of range"},
        {"{\"vocab_size\":99999999999999999999}", "too big integer"},
        {"{" SIZES ",\"n_kv_head\":null}", "n_kv_head: expected an integer, found null"},
        {"{" SIZES ",\"n_kv_head\":3}", "m.safetensors: config: n_kv_head is 3; it must divide n_head"},
        {"{" SIZES ",\"rope_base\":\"1e4\"}", "rope_base: expected a number, found a string"},
        {"{" SIZES ",\"rope_base\":1e999}", "real number overflow"},
        {"{" SIZES ",\"norm_eps\":[]}", "norm_eps: expected a number, found an array"},
        {"{" SIZES ",\"act_quant\":1}", "act_quant: expected true or false, found an integer"},
        {"{" SIZES ",\"dense\":1}", "dense: expected true or false, found an integer"},
        {"{" SIZES ",\"dense\":true}", "a dense model quantizes nothing: act_quant must be false"},
        {"{" SIZES ",\"dense\":true,\"act_quant\":false,\"ste\":\"clipped\"}", "and ste identity"},
        {"{" SIZES ",\"ngram_max\":true}", "ngram_max: expected an integer, found true"},
        {"{" SIZES ",\"ngram_max\":3}", "ngram_bits is 0; it must be from 4 to 24"},
        {"{" SIZES ",\"ste\":true}", "ste: expected a string, found true"},
        {"{" SIZES ",\"ste\":\"straight\"}", "ste: expected \"identity\" or \"clipped\", found \"straight\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bb_config c = {.n_layer = -77};
        assert_int_equal(bb_config_from_json(cases[i].text, "m.safetensors", &c, &test_error), BB_ERR_FORMAT);
        assert_int_equal(test_error.code, BB_ERR_FORMAT);
        assert_message(test_error, cases[i].message);
        assert_int_equal(c.n_layer, -77);
    }
}

/* Without memory, at every point: an error or the right answer, nothing lost (ASan sees to that). */
static void json_survives_a_lack_of_memory(void **state) {
    (void)state;
    json_set_alloc_funcs(limited_malloc, free);
    int failures = 0;
    for (int limit = 0;; limit++) {
        bb_config c;
        allocations_left = limit;
        bb_status status = bb_config_from_json("{" SIZES ",\"ste\":\"clipped\"}", "m.safetensors", &c, &test_error);
        if (status == BB_OK) {
            assert_int_equal(c.ste, BB_STE_CLIPPED);
            break;
        }
        assert_true(status == BB_ERR_MEMORY || status == BB_ERR_FORMAT); /* jansson cannot always tell */
        assert_message(test_error, "m.safetensors");
        failures++;
    }
    assert_true(failures > 5);
    for (int limit = 0;; limit++) {
        bb_config c = default_config();
        allocations_left = limit;
        json_t *json = bb_config_to_json(&c);
        json_decref(json);
        if (json) break;
    }
    json_set_alloc_funcs(malloc, free);
}

/* The dense layout is for models that do not stay in caches, where the device has it. */
static void large_models_alone_are_dense(void **state) {
    (void)state;
    static const char *const sizes[] = {"10m", "85m", "680m"};
    bb_device *device;
    assert_int_equal(bb_device_open("cpu", 1, &device, NULL), BB_OK);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        bb_config config;
        assert_int_equal(bb_config_of_size(sizes[i], &config, NULL), BB_OK);
        size_t for_training = bb_weights_bytes(device, &config, false), for_inference = bb_weights_bytes(device, &config, true);
        if (i == 2 && device->ops->ternary_dense(device))
            assert_in_range(for_inference, for_training / 5 * 4, for_training / 100 * 82);
        else
            assert_int_equal(for_inference, for_training);
    }
    bb_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_default_is_the_originals),
        cmocka_unit_test(parameters_are_counted_as_by_hand),
        cmocka_unit_test(the_largest_configuration_does_not_overflow),
        cmocka_unit_test(impossible_values_are_refused),
        cmocka_unit_test(json_brings_back_the_configuration),
        cmocka_unit_test(json_has_every_key),
        cmocka_unit_test(json_keys_have_defaults),
        cmocka_unit_test(wrong_json_is_refused),
        cmocka_unit_test(json_survives_a_lack_of_memory),
        cmocka_unit_test(large_models_alone_are_dense),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
