// SPDX-License-Identifier: MIT
/* The cuda device as a whole, emulated: opening, memory that runs out, decoding against the whole, text. */
#include "support.h"

#include "generation_output.h"
#include "model/forward.h"
#include "model/kv_cache.h"
#include "ops/ops.h"
#include "tiny_model.h"

enum { LENGTH = 70 };

static bb_device *open_cuda(const char *name) {
    bb_device *device;
    assert_ok(bb_device_open(name, 0, &device, &test_error));
    return device;
}

static void cards_are_opened_by_number(void **state) {
    (void)state;
    static const struct {
        const char *name, *description;
    } cards[] = {{"cuda", "card 0"}, {"cuda:0", "card 0"}, {"cuda:1", "card 1"}};
    for (size_t i = 0; i < sizeof cards / sizeof *cards; i++) {
        bb_device *device = open_cuda(cards[i].name);
        uint64_t total, available;
        bb_device_memory(device, &total, &available);
        assert_string_equal(bb_device_name(device), "cuda");
        assert_non_null(strstr(bb_device_description(device), cards[i].description));
        assert_true(available > 0 && available <= total);
        bb_device_close(device);
    }
    bb_device *device;
    assert_fails(bb_device_open("cuda:2", 0, &device, &test_error), BB_ERR_ARGUMENT, "there are 2 cards, numbered from 0");
    assert_null(device);
    static const char *const wrong[] = {"cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cuda:100", "cpu:0", ":0", "cuda:1:1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_fails(bb_device_open(wrong[i], 0, &device, &test_error), BB_ERR_ARGUMENT, "no device is named");
}

/* More than there is: alloc gives NULL, and no failure is left behind. Scratch that cannot be had is a failure that sync reports, once;
 * the device can be used on. */
static void memory_runs_out(void **state) {
    (void)state;
    bb_device *device = open_cuda("cuda");
    uint64_t total, available;
    bb_device_memory(device, &total, &available);
    assert_null(device->ops->alloc(device, (size_t)available + 1));
    assert_ok(device->ops->sync(device, &test_error));
    enum { N = 2048 };
    size_t bytes = (size_t)N * N * sizeof(float), rest;
    float *p = device->ops->alloc(device, bytes);
    void *m = device->ops->alloc(device, bytes / 2);
    bb_device_memory(device, &total, &available);
    rest = (size_t)available - bytes;
    void *filling = device->ops->alloc(device, rest);
    assert_true(p && m && filling);
    device->ops->muon_step(device, &(bb_muon_matrix){p, p, m, N, N}, 1, &(bb_muon){.lr = 1, .grad_scale = 1, .iterations = 5});
    assert_fails(device->ops->sync(device, &test_error), BB_ERR_MEMORY, "scratch on the card");
    assert_ok(device->ops->sync(device, &test_error));
    device->ops->free(device, filling, rest);
    device->ops->free(device, m, bytes / 2);
    device->ops->add(device, p, p, N);
    assert_ok(device->ops->sync(device, &test_error));
    device->ops->free(device, p, bytes);
    bb_device_close(device);
}

/* A launch that a card refuses is the first failure that sync reports, with the kernel's name. */
static void failures_are_kept(void **state) {
    (void)state;
    bb_device *device = open_cuda("cuda");
    float *p = device->ops->alloc(device, 256);
    bb_rows rows = {.data = p, .dtype = BB_F32};
    device->ops->act_quant(device, rows, p, 0, 1); /* no rows: a grid of no blocks */
    device->ops->add(device, p, p, 4);
    assert_fails(device->ops->sync(device, &test_error), BB_ERR_INTERNAL, "act_quant: invalid configuration argument");
    assert_ok(device->ops->sync(device, &test_error));
    device->ops->free(device, p, 256);
    bb_device_close(device);
}

/* Byte by byte and in pieces over a cache, what the whole gives, which is what it is on ref. */
static void decoding_equals_the_whole(void **state) {
    (void)state;
    static float whole[LENGTH * 256], cached[LENGTH * 256], on_ref[LENGTH * 256];
    uint8_t x[LENGTH];
    for (int i = 0; i < LENGTH; i++) x[i] = (uint8_t)(i * 37 + i / 3);
    for (int which = 0; which < 2; which++) {
        bb_device *device = which ? open_cuda("ref") : open_cuda("cuda");
        bb_model *model;
        assert_ok(bb_model_create(device, &tiny, 3, &model, &test_error));
        assert_ok(bb_model_forward(model, x, 1, LENGTH, which ? on_ref : whole, &test_error));
        bb_kv_cache cache;
        if (!which) {
            assert_ok(bb_kv_cache_open(model, LENGTH, BB_KV_F32, &cache, &test_error));
            static const int pieces[] = {1, 1, 30, 1, 17, LENGTH - 50};
            for (int i = 0, at = 0; i < 6; at += pieces[i++])
                assert_ok(bb_model_forward_cached(model, &cache, x + at, pieces[i], true, cached + at * 256, &test_error));
            bb_kv_cache_close(&cache);
        }
        bb_model_free(model);
        bb_device_close(device);
    }
    assert_true(relative_error(cached, whole, LENGTH * 256) < 1e-5);
    assert_true(relative_error(whole, on_ref, LENGTH * 256) < 1e-5);
}

/* Guesses change nothing, with any cache, past the end of the window. */
static void guesses_do_not_change_text(void **state) {
    (void)state;
    static const uint8_t prompt[] = "a prompt that is read at once";
    bb_device *device = open_cuda("cuda");
    bb_model *model;
    assert_ok(bb_model_create(device, &tiny, 11, &model, &test_error));
    for (int type = BB_KV_INT6; type <= BB_KV_F32; type++) {
        output out[2] = {0};
        for (int guess = 0; guess < 2; guess++) {
            bb_generate_options o;
            bb_generate_options_default(&o);
            o.max_new_bytes = 40;
            o.context_length = 48;
            o.kv_cache = (bb_kv_type)type;
            o.speculate = guess ? BB_SPECULATE_ALWAYS : BB_SPECULATE_OFF;
            o.seed = 9;
            o.on_byte = collect;
            o.user = &out[guess];
            assert_ok(bb_generate(model, prompt, sizeof prompt - 1, &o, NULL, &test_error));
            assert_int_equal(out[guess].count, 40);
        }
        assert_memory_equal(out[0].bytes, out[1].bytes, 40);
    }
    bb_model_free(model);
    bb_device_close(device);
}

/* Every operation of training and decoding once or more, in shapes that fill no tile: what the sanitizers look at. */
static void every_operation_runs(void **state) {
    (void)state;
    enum { SEQ = 19 };
    static const uint8_t x[2 * SEQ + 1] = "some bytes to learn, and the next ones";
    for (int turn = 0; turn < 4; turn++) {
        int quantized = turn == 1 || turn == 2, last = turn == 2 ? BB_OPTIM_ADAMW : BB_OPTIM_MUON;
        bb_device *device = open_cuda("cuda");
        assert_ok(bb_device_set_activations(device, turn == 2 ? "fp16" : "bf16", &test_error));
        for (int kind = BB_OPTIM_ADAMW; kind <= last; kind++) {
            bb_config config = tiny;
            config.n_layer = 1;
            config.d_model = 20;
            config.n_head = 2;
            config.n_kv_head = 1;
            config.d_ff = 34;
            config.act_quant = quantized;
            config.dense = turn == 3;
            config.ste = quantized ? BB_STE_CLIPPED : BB_STE_IDENTITY;
            bb_model *model;
            bb_optimizer *optimizer;
            bb_optimizer_options o;
            double loss, norm;
            bool applied;
            bb_optimizer_options_default(&o);
            o.kind = (bb_optimizer_kind)kind;
            assert_ok(bb_model_create(device, &config, 11, &model, &test_error));
            assert_ok(bb_optimizer_create(model, &o, &optimizer, &test_error));
            assert_ok(bb_model_zero_gradients(model, &test_error));
            for (int i = 0; i < 1 + quantized; i++)
                assert_ok(bb_model_loss_backward(model, &(bb_train_batch){x, x + 1, 2, SEQ}, 0.5, &loss, &test_error));
            assert_ok(bb_optimizer_step(optimizer, 1e-3, 1.0, 1.0, &norm, &applied, &test_error));
            assert_true(applied && isfinite(loss) && isfinite(norm) && norm > 0);
            bb_kv_cache cache;
            float logits[256];
            assert_ok(bb_kv_cache_open(model, SEQ, (bb_kv_type)kind, &cache, &test_error));
            assert_ok(bb_model_forward_cached(model, &cache, x, SEQ - 1, false, logits, &test_error));
            assert_ok(bb_model_forward_cached(model, &cache, x + SEQ - 1, 1, false, logits, &test_error));
            for (int i = 0; i < 256; i++) assert_true(isfinite(logits[i]));
            bb_kv_cache_close(&cache);
            bb_optimizer_free(optimizer);
            bb_model_free(model);
        }
        bb_device_close(device);
    }
}

extern int64_t emulated_graph_launches;

/* A repeated pass is started from its recording, with what changed since: positions, input, weights. Recordings are forgotten when memory
 * that they may name is freed. */
static void repeated_passes_are_recorded(void **state) {
    (void)state;
    enum { T = 24, STEPS = 6, AGAIN = 3 };
    static float logits[2][AGAIN][T * 256];
    static double losses[2][STEPS], norms[2][STEPS];
    uint8_t x[T + 1];
    for (int off = 0; off < 2; off++) {
        setenv("BITBYTE_CUDA_GRAPHS", off ? "off" : "on", 1);
        bb_device *device = open_cuda("cuda");
        bb_model *model;
        bb_optimizer *optimizer;
        bb_optimizer_options options;
        bb_optimizer_options_default(&options);
        assert_ok(bb_model_create(device, &tiny, 5, &model, &test_error));
        assert_ok(bb_optimizer_create(model, &options, &optimizer, &test_error));
        int64_t before = emulated_graph_launches;
        for (int step = 0; step < STEPS; step++) {
            bool applied;
            for (int i = 0; i <= T; i++) x[i] = (uint8_t)(i * 37 + step * 11);
            assert_ok(bb_model_zero_gradients(model, &test_error));
            assert_ok(bb_model_loss_backward(model, &(bb_train_batch){x, x + 1, 1, T}, 1, &losses[off][step], &test_error));
            assert_ok(bb_optimizer_step(optimizer, 1e-2, 1, 1, &norms[off][step], &applied, &test_error));
        }
        int64_t trained = emulated_graph_launches - before;
        for (int again = 0; again < AGAIN; again++) {
            bb_kv_cache cache;
            assert_ok(bb_kv_cache_open(model, T + again, BB_KV_INT8, &cache, &test_error));
            for (int i = 0; i < T; i++)
                assert_ok(bb_model_forward_cached(model, &cache, x + i, 1, true, logits[off][again] + i * 256, &test_error));
            bb_kv_cache_close(&cache);
        }
        int64_t decoded = emulated_graph_launches - before - trained;
        if (off)
            assert_true(trained == 0 && decoded == 0);
        else
            assert_true(trained >= 2 * (STEPS - 4) && decoded >= AGAIN * (T - 4));
        bb_optimizer_free(optimizer);
        bb_model_free(model);
        bb_device_close(device);
    }
    unsetenv("BITBYTE_CUDA_GRAPHS");
    assert_memory_equal(losses[0], losses[1], sizeof losses[0]);
    assert_memory_equal(norms[0], norms[1], sizeof norms[0]);
    assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
}

static void peaks_are_measured(void **state) {
    (void)state;
    bb_device *device = open_cuda("cuda");
    bb_peaks peaks = {0};
    device->ops->measure_peaks(device, &peaks);
    assert_ok(device->ops->sync(device, &test_error));
    assert_true(peaks.f32 > 0 && peaks.bf16 > 0 && peaks.int8 > 0 && peaks.read_gb > 0);
    bb_device_close(device);
}

/* With an argument: the test of that name alone. */
int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cards_are_opened_by_number), cmocka_unit_test(memory_runs_out),
        cmocka_unit_test(failures_are_kept),          cmocka_unit_test(decoding_equals_the_whole),
        cmocka_unit_test(guesses_do_not_change_text), cmocka_unit_test(peaks_are_measured),
        cmocka_unit_test(every_operation_runs),       cmocka_unit_test(repeated_passes_are_recorded),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
