// SPDX-License-Identifier: MIT
/* Non-finite weights are refused by every way in, and detected in training before they can be saved. */
#include "support.h"

#include "model/model.h"
#include "scratch.h"

static const bb_config tiny = {.vocab_size = 256,
                               .n_layer = 2,
                               .d_model = 16,
                               .n_head = 2,
                               .n_kv_head = 1,
                               .d_ff = 24,
                               .rope_base = 1e4,
                               .norm_eps = 1e-6,
                               .act_quant = true};

static const char *const devices[] = {"ref", "cpu"};
static const struct {
    float value;
    const char *name;
} bad[] = {{NAN, "NaN"}, {-INFINITY, "infinite"}};

static void set_tensor_refuses_what_is_not_finite(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int64_t count;
    } tensors[] = {{"tok_emb.weight", 256 * 16}, {"blocks.1.attn.k_proj.weight", 8 * 16}, {"norm_f.weight", 16}};
    float values[256 * 16] = {0}, before[256 * 16], after[256 * 16];
    for (size_t d = 0; d < 2; d++) {
        bb_device *device;
        bb_model *model;
        assert_ok(bb_device_open(devices[d], 2, &device, &test_error));
        assert_ok(bb_model_create(device, &tiny, 1, &model, &test_error));
        for (size_t t = 0; t < 3; t++)
            for (size_t b = 0; b < 2; b++) {
                size_t n = (size_t)tensors[t].count;
                char part[96];
                snprintf(part, sizeof part, "%s: element %zu is %s", tensors[t].name, n - 1, bad[b].name);
                assert_ok(bb_model_get_tensor(model, tensors[t].name, before, n, &test_error));
                values[n - 1] = bad[b].value;
                assert_fails(bb_model_set_tensor(model, tensors[t].name, values, n, &test_error), BB_ERR_ARGUMENT, part);
                values[n - 1] = 0;
                assert_ok(bb_model_get_tensor(model, tensors[t].name, after, n, &test_error));
                assert_memory_equal(before, after, n * sizeof *after);
            }
        bb_model_free(model);
        bb_device_close(device);
    }
}

static void layers_and_quantizers_refuse_what_is_not_finite(void **state) {
    (void)state;
    enum { ROWS = 3, COLS = 5 };
    for (size_t d = 0; d < 2; d++) {
        bb_device *device;
        bb_bitlinear *layer;
        assert_ok(bb_device_open(devices[d], 1, &device, &test_error));
        assert_ok(bb_bitlinear_create(
            device, &(bb_bitlinear_options){sizeof(bb_bitlinear_options), COLS, ROWS, true, BB_STE_IDENTITY, 1}, &layer,
            &test_error));
        for (size_t b = 0; b < 2; b++) {
            float w[ROWS * COLS] = {0}, kept[ROWS * COLS], now[ROWS * COLS], scale[ROWS];
            int8_t q[ROWS * COLS];
            char part[96];
            w[7] = bad[b].value;
            snprintf(part, sizeof part, "element 7 (row 1, column 2) is %s", bad[b].name);
            assert_ok(bb_bitlinear_get_weight(layer, kept, &test_error));
            assert_fails(bb_bitlinear_set_weight(layer, w, &test_error), BB_ERR_ARGUMENT, part);
            assert_ok(bb_bitlinear_get_weight(layer, now, &test_error));
            assert_memory_equal(kept, now, sizeof now);
            assert_fails(bb_ternary_quantize(device, w, ROWS, COLS, q, scale, &test_error), BB_ERR_ARGUMENT, part);
            assert_fails(bb_act_quantize(device, w, ROWS, COLS, q, scale, &test_error), BB_ERR_ARGUMENT, part);
        }
        bb_bitlinear_free(layer);
        bb_device_close(device);
    }
}

/* ---- training -------------------------------------------------------------------------------------------------------- */

typedef struct poison {
    bb_model *model;
    const char *tensor; /* whose element 7 becomes `value` when step `at` is done */
    float value;
    int64_t at;
} poison;

static void on_event(void *user, const bb_train_event *e) {
    const poison *p = user;
    if (e->kind != BB_TRAIN_STEP || e->step != p->at) return;
    const bb_param *param = bb_param_find(&p->model->table, p->tensor);
    assert_non_null(param);
    assert_true(p->model->device->ops->host_memory);
    p->model->params[param->offset + 7] = p->value;
    bb_model_parameters_changed(p->model);
}

/* Trains with the poison, saving every save_every steps to the folder `name`. */
static bb_status train(const char *name, const char *device_name, poison *p, int save_every, bb_error *err) {
    bb_device *device;
    bb_optimizer *optimizer;
    bb_dataset *data;
    bb_trainer *trainer;
    bb_optimizer_options oo;
    bb_train_options to;
    char out[512];
    snprintf(out, sizeof out, "%s", scratch_path(name));
    assert_ok(bb_device_open(device_name, 2, &device, &test_error));
    assert_ok(bb_model_create(device, &tiny, 11, &p->model, &test_error));
    bb_optimizer_options_default(&oo);
    assert_ok(bb_optimizer_create(p->model, &oo, &optimizer, &test_error));
    bb_train_options_default(&to);
    to.out_dir = out;
    to.steps = 8;
    to.seq_len = 16;
    to.batch_size = 2;
    to.save_every = save_every;
    to.on_event = on_event;
    to.user = p;
    assert_ok(bb_byte_shard_dataset_open(scratch_path("text"), 16, 5, 0, 1, &data, &test_error));
    assert_ok(bb_trainer_create(p->model, optimizer, NULL, &to, &trainer, &test_error));
    bb_status status = bb_trainer_train(trainer, data, err);
    bb_trainer_free(trainer);
    bb_dataset_close(data);
    bb_optimizer_free(optimizer);
    bb_model_free(p->model);
    bb_device_close(device);
    return status;
}

static void training_finds_weights_that_are_not_finite(void **state) {
    (void)state;
    static const struct {
        const char *name, *device, *tensor;
        float value;
        int save_every;
        const char *what, *good;
    } cases[] = {/* found by the next step's losses */
                 {"a", "cpu", "blocks.0.attn.q_proj.weight", NAN, 4,
                  "after step 6 the weights are not finite: blocks.0.attn.q_proj", "4"},
                 {"b", "ref", "blocks.1.mlp.down.weight", INFINITY, 4, "blocks.1.mlp.down.weight: element 7 is infinite", "4"},
                 {"c", "cpu", "norm_f.weight", -INFINITY, 4, "norm_f.weight: element 7 is infinite", "4"},
                 {"d", "cpu", "tok_emb.weight", NAN, 4, "tok_emb.weight: element 7 is NaN", "4"},
                 /* found by the save that follows at once */
                 {"e", "cpu", "blocks.0.mlp.gate_up.weight", NAN, 1,
                  "after step 5 the weights are not finite: blocks.0.mlp.gate_up", "4"},
                 {"f", "cpu", "blocks.1.n2.weight", NAN, 5,
                  "blocks.1.n2.weight: element 7 is NaN. There is no earlier checkpoint", NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        poison p = {.tensor = cases[i].tensor, .value = cases[i].value, .at = 5};
        assert_fails(train(cases[i].name, cases[i].device, &p, cases[i].save_every, &test_error), BB_ERR_NUMERIC,
                     cases[i].what);
        if (!cases[i].good) continue;
        char part[640];
        snprintf(part, sizeof part, "The last good checkpoint is %s/step-0000000%s.safetensors", scratch_path(cases[i].name),
                 cases[i].good);
        assert_message(test_error, part);
    }
}

static int write_text(void **state) {
    char text[600];
    if (scratch_create(state) != 0) return -1;
    for (size_t i = 0; i < sizeof text; i++) text[i] = "the quick brown fox "[i % 20];
    return scratch_write(scratch_path("text"), text, sizeof text) ? 0 : -1;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(set_tensor_refuses_what_is_not_finite),
                                       cmocka_unit_test(layers_and_quantizers_refuse_what_is_not_finite),
                                       cmocka_unit_test(training_finds_weights_that_are_not_finite)};
    return cmocka_run_group_tests(tests, write_text, scratch_remove);
}
