// SPDX-License-Identifier: MIT
/* Dense models, the twins of ternary ones: their passes, gradients, memory and files. test_dense DEVICE: the passes on that device. */
#include "support.h"

#include "core/rng.h"
#include "guarded.h"
#include "model/forward.h"
#include "random_bytes.h"
#include "scratch.h"
#include "training/optim.h"
#include "training/weight_exchange.h"

enum { B = 2, T = 24, V = 256 };

/* No size fills a vector or tile. */
static const bb_config config = {.vocab_size = V,
                                 .n_layer = 2,
                                 .d_model = 60,
                                 .n_head = 6,
                                 .n_kv_head = 2,
                                 .d_ff = 52,
                                 .rope_base = 1e4,
                                 .norm_eps = 1e-6,
                                 .dense = true};

static const char *devices[] = {"cpu", "guarded"};
static int device_count = 2;
static uint8_t bytes[B * T + 1];
static const bb_train_batch batch = {.x = bytes, .y = bytes + 1, .batch_size = B, .seq_len = T};

static bb_model *new_model(const char *name, const bb_config *c) {
    bb_device *device;
    bb_model *model;
    assert_ok(bb_device_open(name, 2, &device, &test_error));
    assert_ok(bb_model_create(device, c, 3, &model, &test_error));
    fill_bytes(bytes, sizeof bytes);
    return model;
}

static void close_model(bb_model *model) {
    bb_device *device = model->device;
    bb_model_free(model);
    bb_device_close(device);
}

static float *tensor_of(const bb_model *model, const bb_param *p, bool gradient) {
    size_t n = (size_t)p->count;
    float *values = malloc(n * sizeof *values);
    assert_ok(gradient ? bb_model_get_gradient(model, p->name, values, n, &test_error)
                       : bb_model_get_tensor(model, p->name, values, n, &test_error));
    return values;
}

static double loss_backward(bb_model *model) {
    double loss;
    assert_ok(bb_model_loss_backward(model, &batch, 1, &loss, &test_error));
    return loss;
}

/* ---- passes ---------------------------------------------------------------------------------------------------------------- */

/* The loss after a step of size h from `from` in `direction`. */
static double loss_at(bb_model *model, const bb_param *p, const float *from, const float *direction, double h) {
    size_t n = (size_t)p->count;
    float *moved = malloc(n * sizeof *moved);
    double loss;
    for (size_t i = 0; i < n; i++) moved[i] = (float)((double)from[i] + h * (double)direction[i]);
    assert_ok(bb_model_set_tensor(model, p->name, moved, n, &test_error));
    assert_ok(bb_model_loss(model, &batch, &loss, &test_error));
    assert_ok(bb_model_set_tensor(model, p->name, from, n, &test_error));
    free(moved);
    return loss;
}

/* Along the gradient, and along one with random signs, the loss changes as the gradient says: nothing is rounded. */
static void gradients_are_those_of_the_loss(void **state) {
    (void)state;
    bb_model *model = new_model("ref", &config);
    loss_backward(model);
    for (int i = 0; i < model->table.count; i++) {
        const bb_param *p = &model->table.entries[i];
        float *values = tensor_of(model, p, false), *gradient = tensor_of(model, p, true);
        for (int random = 0; random < 2; random++) {
            double length = 0, slope = 0;
            float *direction = malloc((size_t)p->count * sizeof *direction);
            for (int64_t k = 0; k < p->count; k++) length += (double)gradient[k] * (double)gradient[k];
            length = sqrt(length);
            for (int64_t k = 0; k < p->count; k++) {
                uint64_t drawn = bb_rng_below(5, BB_STREAM_BENCH, (uint64_t)k, 4);
                direction[k] = (float)((double)gradient[k] / length) * (random && drawn == 0 ? -1.0f : 1.0f);
                slope += (double)gradient[k] * (double)direction[k];
            }
            double h = 0.02, wide = loss_at(model, p, values, direction, 2 * h) - loss_at(model, p, values, direction, -2 * h),
                   narrow = loss_at(model, p, values, direction, h) - loss_at(model, p, values, direction, -h),
                   found = (8 * narrow - wide) / (12 * h);
            if (fabs(found - slope) > 2e-3 * length + 3e-5) {
                print_error("%s: slope %g, gradient %g\n", p->name, found, slope);
                fail();
            }
            free(direction);
        }
        free(values);
        free(gradient);
    }
    close_model(model);
}

/* Gradients of cpu and cuda are bf16 between operations, and on some processors int8 in attention. */
static void devices_agree(void **state) {
    (void)state;
    bb_model *ref = new_model("ref", &config);
    size_t n = B * T * V;
    float *want = malloc(n * sizeof *want), *logits = malloc(n * sizeof *logits);
    double loss = loss_backward(ref);
    assert_ok(bb_model_forward(ref, bytes, B, T, want, &test_error));
    for (int i = 0; i < device_count; i++) {
        bb_model *model = new_model(devices[i], &config);
        assert_ok(bb_model_forward(model, bytes, B, T, logits, &test_error));
        assert_true(relative_error(logits, want, n) < 1e-5);
        assert_true(fabs(loss_backward(model) - loss) < 2e-3 * loss);
        for (int k = 0; k < model->table.count; k++) {
            const bb_param *p = &model->table.entries[k];
            float *ours = tensor_of(model, p, true), *theirs = tensor_of(ref, p, true);
            double error = relative_error(ours, theirs, (size_t)p->count);
            if (error > 0.03) {
                print_error("%s: %s: relative error %g\n", devices[i], p->name, error);
                fail();
            }
            free(ours);
            free(theirs);
        }
        close_model(model);
    }
    free(want);
    free(logits);
    close_model(ref);
}

/* A second backward pass adds, and recomputed activations give the same bits. */
static void gradients_add_up(void **state) {
    (void)state;
    for (int i = 0; i < device_count; i++) {
        bb_model *once = new_model(devices[i], &config), *twice = new_model(devices[i], &config);
        assert_ok(bb_model_reserve(twice, B, T, true, true, &test_error));
        loss_backward(once);
        for (int turn = 0; turn < 3; turn++) {
            if (turn < 2) assert_ok(bb_model_zero_gradients(twice, &test_error));
            loss_backward(twice);
            for (int k = 0; k < once->table.count && turn > 0; k++) {
                const bb_param *p = &once->table.entries[k];
                float *ours = tensor_of(twice, p, true), *theirs = tensor_of(once, p, true);
                if (turn == 1) assert_memory_equal(ours, theirs, (size_t)p->count * sizeof *ours);
                for (int64_t j = 0; j < p->count; j++) ours[j] *= 0.5f;
                if (turn == 2) assert_true(relative_error(ours, theirs, (size_t)p->count) < 1e-6);
                free(ours);
                free(theirs);
            }
        }
        close_model(once);
        close_model(twice);
    }
}

/* In pieces, and byte by byte. */
static void the_cache_equals_the_full_pass(void **state) {
    (void)state;
    float *full = malloc((size_t)T * V * sizeof *full), *logits = malloc((size_t)T * V * sizeof *logits);
    for (int i = 0; i < device_count; i++) {
        bb_model *model = new_model(devices[i], &config);
        bb_kv_cache cache;
        assert_ok(bb_kv_cache_open(model, T, BB_KV_F32, &cache, &test_error));
        assert_ok(bb_model_forward(model, bytes, 1, T, full, &test_error));
        assert_ok(bb_model_forward_cached(model, &cache, bytes, 17, true, logits, &test_error));
        for (int t = 17; t < T; t++)
            assert_ok(bb_model_forward_cached(model, &cache, bytes + t, 1, true, logits + t * V, &test_error));
        assert_true(relative_error(logits, full, (size_t)T * V) < 1e-5);
        bb_kv_cache_close(&cache);
        close_model(model);
    }
    free(full);
    free(logits);
}

/* The twin begins with the same weights, which the optimizer treats alike, and gives other logits. */
static void it_is_not_ternary(void **state) {
    (void)state;
    bb_config other = config;
    size_t n = (size_t)T * V;
    float *dense = malloc(n * sizeof *dense), *ternary = malloc(n * sizeof *ternary);
    other.dense = false;
    bb_model *models[] = {new_model("cpu", &config), new_model("cpu", &other)};
    assert_ok(bb_model_forward(models[0], bytes, 1, T, dense, &test_error));
    assert_ok(bb_model_forward(models[1], bytes, 1, T, ternary, &test_error));
    assert_true(relative_error(ternary, dense, n) > 0.1);
    for (int i = 0; i < models[0]->table.count; i++) {
        const bb_param *p = &models[0]->table.entries[i], *q = &models[1]->table.entries[i];
        float *a = tensor_of(models[0], p, false), *b = tensor_of(models[1], q, false);
        assert_memory_equal(a, b, (size_t)p->count * sizeof *a);
        assert_true(!p->ternary && p->linear == q->ternary);
        for (int kind = BB_OPTIM_ADAMW; kind <= BB_OPTIM_MUON; kind++)
            assert_int_equal(bb_optimizer_moments((bb_optimizer_kind)kind, p),
                             bb_optimizer_moments((bb_optimizer_kind)kind, q));
        free(a);
        free(b);
    }
    close_model(models[0]);
    close_model(models[1]);
    free(dense);
    free(ternary);
}

/* ---- ranks ----------------------------------------------------------------------------------------------------------------- */

static int64_t exchanged[sizeof(float) + 1]; /* elements, by their width in bytes */

static bb_status count_exchanged(bb_dist *d, bb_dist_kind kind, bb_dist_range range, bb_error *err) {
    (void)kind;
    (void)err;
    exchanged[range.width] += range.cut[d->size];
    return BB_OK;
}
static bb_status wait_for_nothing(bb_dist *d, bb_error *err) {
    (void)d;
    (void)err;
    return BB_OK;
}
static bb_status gather_own(bb_dist *d, const void *mine, void *all, size_t size, bb_error *err) {
    (void)err;
    memset(all, 0, size * (size_t)d->size);
    memcpy(all, mine, size);
    return BB_OK;
}

/* Rank 0 of two; the other is not needed to count what it exchanges. A dense model has no codes; its twin exchanges codes, and as
 * f32 only what is not ternary. */
static void ranks_exchange_f32_and_no_codes(void **state) {
    (void)state;
    static const bb_dist_engine engine = {
        .name = "counting", .all_gather = gather_own, .start = count_exchanged, .wait = wait_for_nothing};
    for (int dense = 0; dense < 2; dense++) {
        bb_config c = config;
        c.dense = dense;
        bb_model *model = new_model("cpu", &c);
        bb_dist dist = {.engine = &engine, .size = 2};
        bb_shards shards;
        bb_tile_sums tiles;
        bb_weight_exchange exchange;
        memset(exchanged, 0, sizeof exchanged);
        assert_ok(bb_shards_create(&model->table, dist.size, false, &shards, &test_error));
        assert_ok(bb_tile_sums_open(model->device, &model->table, &shards, &dist, &tiles, &test_error));
        assert_ok(bb_weight_exchange_open(model, &dist, &shards, &tiles, &exchange, &test_error));
        assert_true(dense ? !exchange.code_cuts : exchange.code_cuts != NULL);
        assert_ok(bb_weight_exchange_after_update(&exchange, &test_error));
        int64_t plain = 0;
        for (int i = 0; i < model->table.count; i++)
            if (!model->table.entries[i].ternary) plain += model->table.entries[i].count;
        assert_int_equal(exchanged[sizeof(float)], plain);
        assert_true(dense ? exchanged[1] == 0 : exchanged[1] > 0);
        bb_weight_exchange_close(&exchange);
        bb_tile_sums_close(&tiles);
        bb_shards_free(&shards);
        close_model(model);
    }
}

/* ---- memory and files ------------------------------------------------------------------------------------------------------ */

static void memory_is_what_was_predicted(void **state) {
    (void)state;
    bb_model *model = new_model("cpu", &config);
    bb_memory_request request;
    bb_memory_estimate memory;
    bb_memory_request_default(&request);
    request.batch_size = B;
    request.seq_len = T;
    assert_ok(bb_memory_predict(model->device, &config, &request, &memory, &test_error));
    loss_backward(model);
    assert_int_equal(memory.quantized_weights, 0);
    assert_null(model->quantized);
    assert_int_equal(memory.activations, model->ws.bytes);
    assert_int_equal(memory.inference_weights, memory.parameters);
    close_model(model);
}

static void files_give_the_same_logits(void **state) {
    (void)state;
    bb_model *model = new_model("cpu", &config);
    size_t n = (size_t)T * V;
    float *want = malloc(n * sizeof *want), *logits = malloc(n * sizeof *logits);
    assert_ok(bb_model_forward(model, bytes, 1, T, want, &test_error));
    assert_ok(bb_model_save(model, scratch_path("m.safetensors"), &test_error));
    bb_export_options options;
    bb_export_options_default(&options);
    static const char *const refused[] = {"packed", "gguf", "hf", "safetensors"};
    for (int i = 0; i < 4; i++) {
        options.format = refused[i];
        assert_fails(bb_export(model->device, scratch_path("m.safetensors"), scratch_path("out"), &options, &test_error),
                     BB_ERR_UNSUPPORTED, "only format bitbyte can hold it");
    }
    options.format = "bitbyte";
    assert_ok(bb_export(model->device, scratch_path("m.safetensors"), scratch_path("b.safetensors"), &options, &test_error));
    for (int i = 0; i < 2; i++) {
        const char *path = scratch_path(i ? "b.safetensors" : "m.safetensors");
        bb_model *loaded;
        assert_ok(bb_model_load_for_inference(model->device, path, &loaded, &test_error));
        assert_true(bb_model_config(loaded)->dense);
        assert_ok(bb_model_forward(loaded, bytes, 1, T, logits, &test_error));
        assert_memory_equal(logits, want, n * sizeof *want);
        assert_fails(bb_model_export_packed(loaded, scratch_path("p.safetensors"), &test_error), BB_ERR_UNSUPPORTED,
                     "no ternary weights");
        bb_model_free(loaded);
    }
    close_model(model);
    free(want);
    free(logits);
}

int main(int argc, char **argv) {
    const struct CMUnitTest passes[] = {cmocka_unit_test(devices_agree), cmocka_unit_test(gradients_add_up),
                                        cmocka_unit_test(the_cache_equals_the_full_pass)};
    const struct CMUnitTest others[] = {cmocka_unit_test(gradients_are_those_of_the_loss), cmocka_unit_test(it_is_not_ternary),
                                        cmocka_unit_test(ranks_exchange_f32_and_no_codes),
                                        cmocka_unit_test(memory_is_what_was_predicted),
                                        cmocka_unit_test(files_give_the_same_logits)};
    guarded_register();
    if (argc > 1) {
        devices[0] = argv[1];
        device_count = 1;
        return cmocka_run_group_tests(passes, NULL, NULL);
    }
    return cmocka_run_group_tests(passes, NULL, NULL) + cmocka_run_group_tests(others, scratch_create, scratch_remove);
}
