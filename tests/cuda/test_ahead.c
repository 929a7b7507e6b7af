// SPDX-License-Identifier: MIT
/* A step in which the card never waits for the host, emulated: what is started micro-batch after micro-batch gives the bits of what is
 * waited for each time, in any order that streams may run in; and a loss that is not finite is found afterwards. */
#include "support.h"

#include "core/rng.h"
#include "model/model.h"
#include "scratch.h"
#include "tiny_model.h"
#include "training/gradients.h"

extern int64_t emulated_waits;

enum { MICROS = 9, LENGTH = 24, STEPS = 3 };

static bb_config with_ngrams(void) {
    bb_config config = tiny;
    config.n_layer = 1;
    config.ngram_max = 3;
    config.ngram_bits = 5;
    return config;
}

/* The gradients and losses of STEPS steps of `micros` batches each; returns how often the host waited in the last, when memory has grown. */
static int64_t gradients_of(const bb_config *config, int micros, bool checked, float *gradients, double *losses) {
    static uint8_t text[2 * LENGTH + 1];
    bb_device *device;
    bb_model *model;
    bb_dist *alone;
    bb_gradients g;
    bb_error *err = &test_error;
    assert_ok(bb_device_open("cuda", 0, &device, err));
    assert_ok(bb_dist_open("single", &alone, err));
    assert_ok(bb_model_create(device, config, 7, &model, err));
    assert_ok(bb_model_reserve(model, 2, LENGTH, true, true, err));
    assert_ok(bb_gradients_open(model, alone, micros, BB_REDUCE_FAST, NULL, &g, err));
    int64_t drawn = 0, waits = 0, total = model->table.total;
    for (int step = 0; step < STEPS; step++) {
        bool really = checked;
        int length = step == 1 ? LENGTH : LENGTH - 4 - 4 * step;
        int64_t before = emulated_waits;
        assert_ok(bb_gradients_begin(&g, &really, err));
        assert_true(really == checked);
        for (int i = 0; i < micros; i++) {
            for (int j = 0; j <= 2 * length; j++) text[j] = (uint8_t)bb_rng_below(5, BB_STREAM_TEST, (uint64_t)drawn++, 256);
            assert_ok(bb_gradients_micro(&g, &(bb_train_batch){text, text + 1, 2, length}, 0.25, err));
        }
        waits = emulated_waits - before;
        assert_ok(bb_gradients_losses(&g, losses + step * micros, err));
        assert_ok(bb_gradients_finish(&g, err));
        device->ops->copy_out(device, gradients + step * total, model->grads, (size_t)total * sizeof(float));
        assert_ok(device->ops->sync(device, err));
    }
    bb_gradients_close(&g);
    bb_model_free(model);
    bb_dist_close(alone);
    bb_device_close(device);
    return waits;
}

static void nothing_is_waited_for(void **state) {
    (void)state;
    const bb_config configs[] = {tiny, with_ngrams()};
    for (int c = 0; c < 2; c++) {
        size_t total = (size_t)bb_config_parameters(&configs[c]) * STEPS;
        float *gradients[2] = {malloc(total * sizeof(float)), malloc(total * sizeof(float))};
        double losses[2][STEPS * MICROS];
        assert_true(gradients[0] && gradients[1]);
        int64_t each = gradients_of(&configs[c], MICROS, true, gradients[0], losses[0]);
        int64_t none = gradients_of(&configs[c], MICROS, false, gradients[1], losses[1]);
        print_message("waits of a step of %d micro-batches: %lld and %lld\n", MICROS, (long long)each, (long long)none);
        assert_true(each >= MICROS && none == 0);
        assert_memory_equal(losses[0], losses[1], sizeof losses[0]);
        assert_memory_equal(gradients[0], gradients[1], total * sizeof(float));
        for (int i = 0; i < 2; i++) free(gradients[i]);
    }
}

/* ---- a micro-batch whose loss is not finite -------------------------------------------------------------------------------- */

enum { BATCHES = 4, BAD = 255 };

/* Weights with which sequences that hold the byte BAD, and no others, have a loss that is not finite: it alone has something in dimension
 * 0, which the second norm makes so large that gate times up overflows. */
static void make_bad(bb_model *model) {
    enum { C = 48 };
    static float embedding[256 * C], out[C * C], norm[C];
    assert_ok(bb_model_get_tensor(model, "tok_emb.weight", embedding, 256 * C, &test_error));
    for (int i = 0; i < 256; i++) embedding[i * C] = i == BAD ? 1.0f : 0.0f;
    assert_ok(bb_model_set_tensor(model, "tok_emb.weight", embedding, 256 * C, &test_error));
    assert_ok(bb_model_get_tensor(model, "blocks.0.attn.o_proj.weight", out, C * C, &test_error));
    memset(out, 0, C * sizeof *out);
    assert_ok(bb_model_set_tensor(model, "blocks.0.attn.o_proj.weight", out, C * C, &test_error));
    assert_ok(bb_model_get_tensor(model, "blocks.0.n2.weight", norm, C, &test_error));
    norm[0] = 1e25f;
    assert_ok(bb_model_set_tensor(model, "blocks.0.n2.weight", norm, C, &test_error));
}

typedef struct outcome {
    int64_t skipped, skipped_micro;
    double loss;
} outcome;

static void on_event(void *user, const bb_train_event *e) {
    if (e->kind == BB_TRAIN_STEP) *(outcome *)user = (outcome){e->skipped_steps, e->skipped_micro_batches, e->loss};
}

/* Weights after one step of BATCHES sequences, one of which is bad: by the trainer of `ranks` (NULL: alone), or alone with each loss waited
 * for. */
static void weights_after(bool by_trainer, bb_dist *ranks, bb_dataset *data, float *weights, outcome *o) {
    bb_device *device;
    bb_model *model;
    bb_optimizer *optimizer;
    bb_optimizer_options of_optimizer;
    bb_train_options options;
    bb_error *err = &test_error;
    size_t count = (size_t)bb_config_parameters(&tiny);
    *o = (outcome){0};
    assert_ok(ranks ? bb_device_open_for_rank("cuda", 0, ranks, &device, err) : bb_device_open("cuda", 0, &device, err));
    assert_ok(bb_model_create(device, &tiny, 7, &model, err));
    make_bad(model);
    bb_optimizer_options_default(&of_optimizer);
    bb_train_options_default(&options);
    assert_ok(bb_optimizer_create(model, &of_optimizer, &optimizer, err));
    options.steps = 1;
    options.warmup_steps = 0;
    options.seq_len = LENGTH;
    options.batch_size = 1;
    options.grad_accum = ranks ? BATCHES / bb_dist_size(ranks) : BATCHES;
    options.reduce = BB_REDUCE_EXACT;
    options.dist = ranks;
    options.on_event = on_event;
    options.user = o;
    if (by_trainer) {
        bb_trainer *trainer;
        assert_ok(bb_trainer_create(model, optimizer, NULL, &options, &trainer, err));
        assert_ok(bb_trainer_train(trainer, data, err));
        bb_trainer_free(trainer);
    } else {
        bb_dist *alone;
        bb_gradients g;
        uint8_t x[LENGTH], y[LENGTH];
        double losses[BATCHES], norm;
        bool checked = true, applied;
        const bb_lr_plan plan = bb_train_lr_plan(&options, of_optimizer.lr);
        assert_ok(bb_dist_open("single", &alone, err));
        assert_ok(bb_model_reserve(model, 1, LENGTH, true, options.recompute, err));
        assert_ok(bb_gradients_open(model, alone, BATCHES, options.reduce, NULL, &g, err));
        assert_ok(bb_gradients_begin(&g, &checked, err));
        for (int i = 0; i < BATCHES; i++) {
            assert_ok(bb_dataset_batch(data, 1, BATCHES, i, x, y, err));
            assert_ok(bb_gradients_micro(&g, &(bb_train_batch){x, y, 1, LENGTH}, 1.0 / BATCHES, err));
        }
        assert_ok(bb_gradients_losses(&g, losses, err));
        assert_ok(bb_gradients_finish(&g, err));
        for (int i = 0; i < BATCHES; i++) {
            o->skipped_micro += !isfinite(losses[i]);
            if (isfinite(losses[i])) o->loss += losses[i];
        }
        o->loss /= (double)(BATCHES - o->skipped_micro);
        assert_ok(bb_optimizer_step(optimizer, bb_lr_for_step(&plan, 0), options.grad_clip, 1, &norm, &applied, err));
        assert_true(applied);
        bb_gradients_close(&g);
        bb_dist_close(alone);
    }
    device->ops->copy_out(device, weights, model->params, count * sizeof *weights);
    assert_ok(device->ops->sync(device, err));
    bb_optimizer_free(optimizer);
    bb_model_free(model);
    bb_device_close(device);
}

static void find_bad_loss(bb_dist *ranks) {
    static uint8_t text[BATCHES * LENGTH + LENGTH];
    size_t count = (size_t)bb_config_parameters(&tiny);
    float *weights[2] = {malloc(count * sizeof(float)), malloc(count * sizeof(float))};
    outcome outcomes[2];
    assert_true(weights[0] && weights[1]);
    for (size_t i = 0; i < sizeof text; i++) text[i] = (uint8_t)('a' + i % 23);
    text[sizeof text / 2] = BAD;
    const char *path = scratch_path("text.txt");
    assert_true(scratch_write(path, text, sizeof text));
    for (int i = 0; i < 2; i++) {
        bb_dataset *data;
        assert_ok(bb_byte_shard_dataset_open(path, LENGTH, 5, 0, 1, &data, &test_error));
        weights_after(i == 0, i == 0 ? ranks : NULL, data, weights[i], &outcomes[i]);
        bb_dataset_close(data);
        if (i == 0 && ranks && bb_dist_rank(ranks) > 0)
            outcomes[0] = (outcome){.skipped_micro = 1, .loss = NAN}; /* events go to rank 0 */
        assert_int_equal(outcomes[i].skipped, 0);
        assert_int_equal(outcomes[i].skipped_micro, 1);
    }
    assert_true(isnan(outcomes[0].loss) || outcomes[0].loss == outcomes[1].loss);
    for (size_t i = 0; i < count; i++) assert_true(isfinite(weights[0][i]));
    assert_memory_equal(weights[0], weights[1], count * sizeof(float));
    for (int i = 0; i < 2; i++) free(weights[i]);
}

static void a_bad_loss_is_found_afterwards(void **state) {
    (void)state;
    find_bad_loss(NULL);
}

/* One of them has the bad sequence, and all do the step again. */
static void by_all_ranks(void **state) {
    (void)state;
    bb_dist *ranks;
    assert_ok(bb_dist_open("mpi", &ranks, &test_error));
    assert_int_equal(bb_dist_size(ranks), 2);
    find_bad_loss(ranks);
    bb_dist_close(ranks);
}

/* With an argument: as one of two ranks. */
int main(int argc, char **argv) {
    (void)argv;
    const struct CMUnitTest ranks[] = {cmocka_unit_test(by_all_ranks)};
    if (argc > 1) return cmocka_run_group_tests(ranks, scratch_create, scratch_remove);
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_is_waited_for),
                                       cmocka_unit_test(a_bad_loss_is_found_afterwards)};
    return cmocka_run_group_tests(tests, scratch_create, scratch_remove);
}
