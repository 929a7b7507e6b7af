// SPDX-License-Identifier: MIT
/* Reading with a KV cache: the same bits in batches as byte by byte, close to the full pass, and rewinding. */
#include "support.h"

#include "core/rng.h"
#include "model/forward.h"
#include "random_bytes.h"

enum { V = 256, T = 600, BEGINNING = 32 };

#define CONFIG(layers, width, heads, kv, inner, quant)                                                                         \
    {                                                                                                                          \
        .vocab_size = V, .n_layer = (layers), .d_model = (width), .n_head = (heads), .n_kv_head = (kv), .d_ff = (inner),       \
        .rope_base = 1e4, .norm_eps = 1e-6, .act_quant = (quant)                                                               \
    }
static const bb_config configs[] = {CONFIG(2, 64, 4, 4, 96, true), CONFIG(2, 60, 6, 2, 53, true),
                                    CONFIG(1, 36, 2, 2, 70, false)};

/* Packed, by way of a file, as generate has it. */
static bb_model *model_for_inference(bb_device *device, const bb_config *config) {
    static const char path[] = "test_kv_cache.safetensors";
    bb_model *model;
    assert_ok(bb_model_create(device, config, 3, &model, &test_error));
    assert_ok(bb_model_save(model, path, &test_error));
    bb_model_free(model);
    assert_ok(bb_model_load_for_inference(device, path, &model, &test_error));
    (void)remove(path);
    return model;
}

/* The logits of x's n bytes, read in pieces of 1 .. most bytes. */
static void read_in_pieces(bb_model *model, bb_kv_cache *cache, const uint8_t *x, int n, int most, float *logits) {
    for (int at = 0, piece = 0; at < n; at += piece) {
        piece = most > 1 ? 1 + (at * 7 + most) % most : 1;
        if (piece > n - at) piece = n - at;
        assert_ok(bb_model_forward_cached(model, cache, x + at, piece, true, logits + (size_t)at * V, &test_error));
    }
}

static void check_batches(const char *device_name, int n) {
    bb_device *device;
    static uint8_t x[T];
    static float one[T * V], many[T * V];
    fill_bytes(x, T);
    assert_ok(bb_device_open(device_name, 2, &device, &test_error));
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
        for (int type = BB_KV_INT6; type <= BB_KV_F32; type++) {
            bb_model *model = model_for_inference(device, &configs[i]);
            bb_kv_cache cache;
            assert_ok(bb_kv_cache_open(model, T, (bb_kv_type)type, &cache, &test_error));
            read_in_pieces(model, &cache, x, n, 1, one);
            for (int most = 2; most <= BB_SMALL_BATCH_ROWS; most += most < 4 ? 1 : 4) {
                cache.length = 0;
                read_in_pieces(model, &cache, x, n, most, many);
                assert_memory_equal(many, one, (size_t)n * V * sizeof *one);
            }
            /* back, on with others, and back again */
            int half = n / 2;
            cache.length = half;
            read_in_pieces(model, &cache, x, n - half, 5, many);
            cache.length = half;
            read_in_pieces(model, &cache, x + half, n - half, 3, many);
            assert_memory_equal(many, one + (size_t)half * V, (size_t)(n - half) * V * sizeof *one);
            bb_kv_cache_close(&cache);
            bb_model_free(model);
        }
    bb_device_close(device);
}

/* A copy of a cache's beginning, in a cache of another size, is as good as reading it. */
static void check_copies(const char *device_name, int n) {
    bb_device *device;
    static uint8_t x[T];
    static float one[T * V], other[T * V];
    static const int capacities[][2] = {{T, T}, {T, 3000}, {3000, T}, {5000, 2100}};
    fill_bytes(x, T);
    assert_ok(bb_device_open(device_name, 2, &device, &test_error));
    for (int type = BB_KV_INT6; type <= BB_KV_F32; type++)
        for (size_t i = 0; i < sizeof capacities / sizeof *capacities; i++) {
            bb_model *model = model_for_inference(device, &configs[1]);
            bb_kv_cache from, to;
            int shared = n / 2 + (int)i; /* any place in a group of positions */
            assert_ok(bb_kv_cache_open(model, capacities[i][0], (bb_kv_type)type, &from, &test_error));
            assert_ok(bb_kv_cache_open(model, capacities[i][1], (bb_kv_type)type, &to, &test_error));
            read_in_pieces(model, &from, x, n, 1, one);
            device->ops->kv_copy(device, &to.kv, &from.kv, shared);
            to.length = shared;
            read_in_pieces(model, &to, x + shared, n - shared, 1, other);
            assert_memory_equal(other, one + (size_t)shared * V, (size_t)(n - shared) * V * sizeof *one);
            bb_kv_cache_close(&from);
            bb_kv_cache_close(&to);
            bb_model_free(model);
        }
    bb_device_close(device);
}

static void copies_are_as_good_as_reading(void **state) {
    (void)state;
    check_copies("ref", 40);
    check_copies("cpu", T);
}

static void rows_do_not_depend_on_their_batch_on_ref(void **state) {
    (void)state;
    check_batches("ref", 40);
}

static void rows_do_not_depend_on_their_batch_on_cpu(void **state) {
    (void)state;
    check_batches("cpu", T); /* past the 512th key */
}

/* All at once, in pieces longer than the model takes, and byte by byte, against the full pass. f32: to the order of sums, until
 * that changes one code of a quantizer's, which every later byte sees. int8: as these random weights have it; int6 has steps
 * 4.1 times as large. */
static const double bounds[] = {[BB_KV_INT6] = 4.1 * 0.03, [BB_KV_INT8] = 0.03, [BB_KV_F32] = 5e-3};

static void logits_are_near_the_full_pass(void **state) {
    (void)state;
    static uint8_t x[T];
    static float full[T * V], cached[T * V];
    bb_device *device;
    fill_bytes(x, T);
    assert_ok(bb_device_open("cpu", 2, &device, &test_error));
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        bb_model *model = model_for_inference(device, &configs[i]);
        assert_ok(bb_model_forward(model, x, 1, T, full, &test_error));
        for (int type = BB_KV_INT6; type <= BB_KV_F32; type++)
            for (int first = 1; first <= T; first += T - 1) {
                bb_kv_cache cache;
                assert_ok(bb_kv_cache_open(model, T, (bb_kv_type)type, &cache, &test_error));
                assert_ok(bb_model_forward_cached(model, &cache, x, first, true, cached, &test_error));
                read_in_pieces(model, &cache, x + first, T - first, 16, cached + (size_t)first * V);
                assert_int_equal(cache.length, T);
                double error = relative_error(cached, full, (size_t)T * V);
                double begin = relative_error(cached, full, (size_t)BEGINNING * V), allowed = bounds[type];
                if (!(error <= allowed)) fail_msg("model %zu, type %d, first %d: %.3g", i, type, first, error);
                if (type == BB_KV_F32 && !(begin <= 1e-5)) fail_msg("model %zu, first %d: %.3g to begin with", i, first, begin);
                float last[V];
                cache.length = T - 1;
                assert_ok(bb_model_forward_cached(model, &cache, x + T - 1, 1, false, last, &test_error));
                cache.length = T;
                assert_fails(bb_model_forward_cached(model, &cache, x, 1, false, last, &test_error), BB_ERR_ARGUMENT,
                             "do not fit");
                bb_kv_cache_close(&cache);
            }
        bb_model_free(model);
    }
    bb_device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_are_as_good_as_reading), cmocka_unit_test(rows_do_not_depend_on_their_batch_on_ref),
        cmocka_unit_test(rows_do_not_depend_on_their_batch_on_cpu), cmocka_unit_test(logits_are_near_the_full_pass)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
