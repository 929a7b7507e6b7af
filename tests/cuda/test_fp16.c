// SPDX-License-Identifier: MIT
/* Training with activations in fp16, emulated: the choice of the type, and a loss scaler that is far too large at first, which must skip,
 * recover, grow again, and go on from a checkpoint bit for bit. */
#include "support.h"

#include <unistd.h>

#include "scratch.h"
#include "tiny_model.h"

static void devices_say_what_they_keep(void **state) {
    (void)state;
    bb_device *device;
    assert_ok(bb_device_open("cuda", 0, &device, &test_error));
    assert_string_equal(bb_device_activations(device), "bf16");
    assert_null(strstr(bb_device_description(device), ", fp16"));
    assert_ok(bb_device_set_activations(device, "fp16", &test_error));
    assert_string_equal(bb_device_activations(device), "fp16");
    assert_non_null(strstr(bb_device_description(device), ", fp16"));
    assert_fails(bb_device_set_activations(device, "f32", &test_error), BB_ERR_UNSUPPORTED, "in bf16 or fp16, not f32");
    assert_fails(bb_device_set_activations(device, "half", &test_error), BB_ERR_ARGUMENT, "expected f32, bf16 or fp16");
    bb_model *model;
    assert_ok(bb_model_create(device, &tiny, 1, &model, &test_error));
    assert_fails(bb_device_set_activations(device, "bf16", &test_error), BB_ERR_ARGUMENT, "before a model is created");
    assert_string_equal(bb_device_activations(device), "fp16");
    bb_model_free(model);
    assert_ok(bb_device_set_activations(device, "bf16", &test_error));
    bb_device_close(device);
    assert_ok(bb_device_open("ref", 0, &device, &test_error));
    assert_ok(bb_device_set_activations(device, "f32", &test_error));
    assert_fails(bb_device_set_activations(device, "fp16", &test_error), BB_ERR_UNSUPPORTED,
                 "device \"ref\" keeps activations in f32, not fp16: device \"cuda\" alone has a choice");
    bb_device_close(device);
    assert_ok(bb_device_open("cpu", 1, &device, &test_error));
    assert_ok(bb_device_set_activations(device, "bf16", &test_error));
    assert_fails(bb_device_set_activations(device, "fp16", &test_error), BB_ERR_UNSUPPORTED,
                 "device \"cpu\" keeps activations in bf16");
    bb_device_close(device);
}

enum { STEPS = 24, STOP = 5, GROWTH = 3, LENGTH = 16 };
#define TOO_LARGE 0x1p28

typedef struct run {
    const char *out, *resume;
    double first_scale;
    int64_t stop_at;
    double losses[STEPS], scales[STEPS]; /* by step */
    bool skipped[STEPS];
    int64_t skipped_before;
} run;

static void on_event(void *user, const bb_train_event *e) {
    run *r = user;
    if (e->kind != BB_TRAIN_STEP) return;
    r->losses[e->step - 1] = e->loss;
    r->scales[e->step - 1] = e->loss_scale;
    r->skipped[e->step - 1] = e->skipped_steps > r->skipped_before;
    r->skipped_before = e->skipped_steps;
}

static void train(run *r) {
    bb_device *device;
    bb_model *model;
    bb_optimizer *optimizer;
    bb_loss_scaler *scaler;
    bb_dataset *data;
    bb_trainer *trainer;
    bb_optimizer_options of_optimizer;
    bb_train_options options;
    const char *text = scratch_path("text.txt");
    char bytes[4000];
    for (int i = 0; i < (int)sizeof bytes; i++) bytes[i] = "what is said again and again can be learned. "[i % 45];
    assert_true(scratch_write(text, bytes, sizeof bytes));
    assert_ok(bb_device_open("cuda", 0, &device, &test_error));
    assert_ok(bb_device_set_activations(device, "fp16", &test_error));
    assert_ok(bb_model_create(device, &tiny, 11, &model, &test_error));
    bb_optimizer_options_default(&of_optimizer);
    of_optimizer.lr = 1e-2;
    assert_ok(bb_optimizer_create(model, &of_optimizer, &optimizer, &test_error));
    assert_ok(bb_loss_scaler_create(r->first_scale, GROWTH, r->first_scale > 0, &scaler, &test_error));
    assert_ok(bb_byte_shard_dataset_open(text, LENGTH, 5, 0, 1, &data, &test_error));
    bb_train_options_default(&options);
    options.steps = STEPS;
    options.stop_at = r->stop_at;
    options.warmup_steps = 0;
    options.seq_len = LENGTH;
    options.batch_size = 1;
    options.grad_accum = 2;
    options.save_every = STOP;
    options.out_dir = r->out;
    options.on_event = on_event;
    options.user = r;
    assert_ok(bb_trainer_create(model, optimizer, scaler, &options, &trainer, &test_error));
    if (r->resume) assert_ok(bb_trainer_resume(trainer, r->resume, true, &test_error));
    assert_ok(bb_trainer_train(trainer, data, &test_error));
    bb_trainer_free(trainer);
    bb_dataset_close(data);
    bb_loss_scaler_free(scaler);
    bb_optimizer_free(optimizer);
    bb_model_free(model);
    bb_device_close(device);
}

static bool same_files(const char *a, const char *b) {
    size_t size;
    char *text = NULL;
    FILE *f = fopen(a, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0) return false;
    size = (size_t)ftell(f);
    rewind(f);
    text = malloc(size);
    bool same = text && fread(text, 1, size, f) == size && scratch_holds(b, text, size);
    free(text);
    (void)fclose(f);
    return same;
}

static void a_scale_that_is_too_large_recovers(void **state) {
    (void)state;
    static run whole = {.first_scale = TOO_LARGE}, parts = {.first_scale = TOO_LARGE};
    char out[2][512], file[2][600];
    snprintf(out[0], sizeof out[0], "%s", scratch_path("whole"));
    snprintf(out[1], sizeof out[1], "%s", scratch_path("parts"));
    whole.out = out[0];
    train(&whole);

    /* the first steps are skipped, each with half the scale of the one before; then it is halved and doubled around what fits */
    int first = 0, grown = 0;
    while (first < STEPS && whole.skipped[first]) first++;
    print_message("%d steps were skipped, down to a scale of %g\n", first, whole.scales[first]);
    assert_in_range(first, 5, STEPS - 2 * GROWTH - 1);
    for (int i = 0; i < first; i++) assert_true(whole.scales[i] == TOO_LARGE / (double)((int64_t)2 << i));
    for (int i = first; i < STEPS; i++) {
        double ratio = whole.scales[i] / whole.scales[i - 1];
        assert_true(ratio == (whole.skipped[i] ? 0.5 : ratio > 1 ? 2 : 1));
        grown += ratio > 1;
        assert_true(isfinite(whole.losses[i]));
    }
    assert_true(grown > 0);
    assert_true(whole.losses[STEPS - 1] < 0.8 * whole.losses[first]);

    /* stopped while it is still too large, and gone on from there by another scaler */
    parts.out = out[1];
    parts.stop_at = STOP;
    assert_in_range(STOP, 1, first);
    train(&parts);
    parts.stop_at = 0;
    parts.resume = out[1];
    parts.first_scale = 1;
    train(&parts);
    for (int i = 0; i < 2; i++) snprintf(file[i], sizeof file[i], "%s/step-%08d.safetensors", out[i], STEPS);
    assert_true(same_files(file[0], file[1]));
}

/* Powers of two are exact: gradients, and updates, are those of another scale, as long as nothing is too small or too large. A scale that
 * changes from the first update to the second would show in the moments. */
static void the_scale_does_not_show(void **state) {
    (void)state;
    enum { T = 20, N = 48 * 80 };
    static const uint8_t text[2 * T + 1] = "bytes of which each gives what is next.";
    static const double scales[2][2] = {{1024, 1024}, {4096, 65536}};
    static float before[N], after[2][N];
    double norms[2][2], loss;
    for (int i = 0; i < 2; i++) {
        bb_device *device;
        bb_model *model;
        bb_optimizer *optimizer;
        bb_optimizer_options options;
        bool applied;
        assert_ok(bb_device_open("cuda", 0, &device, &test_error));
        assert_ok(bb_device_set_activations(device, "fp16", &test_error));
        assert_ok(bb_model_create(device, &tiny, 3, &model, &test_error));
        bb_optimizer_options_default(&options);
        options.kind = BB_OPTIM_ADAMW;
        assert_ok(bb_optimizer_create(model, &options, &optimizer, &test_error));
        assert_ok(bb_model_get_tensor(model, "blocks.0.mlp.down.weight", before, N, &test_error));
        for (int step = 0; step < 2; step++) {
            double scale = scales[i][step];
            assert_ok(bb_model_zero_gradients(model, &test_error));
            assert_ok(bb_model_loss_backward(model, &(bb_train_batch){text, text + 1, 2, T}, scale, &loss, &test_error));
            assert_ok(bb_optimizer_step(optimizer, 1e-4, 1, scale, &norms[i][step], &applied, &test_error));
            assert_true(applied);
        }
        assert_ok(bb_model_get_tensor(model, "blocks.0.mlp.down.weight", after[i], N, &test_error));
        for (int j = 0; j < N; j++) after[i][j] -= before[j];
        bb_optimizer_free(optimizer);
        bb_model_free(model);
        bb_device_close(device);
    }
    double off = relative_error(after[1], after[0], N);
    print_message("norms %g %g and %g %g, updates %g apart\n", norms[0][0], norms[0][1], norms[1][0], norms[1][1], off);
    assert_true(off < 1e-3);
    for (int step = 0; step < 2; step++) assert_true(fabs(norms[1][step] / norms[0][step] - 1) < 1e-3);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(devices_say_what_they_keep),
                                       cmocka_unit_test(a_scale_that_is_too_large_recovers),
                                       cmocka_unit_test(the_scale_does_not_show)};
    return cmocka_run_group_tests(tests, scratch_create, scratch_remove);
}
