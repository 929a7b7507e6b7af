// SPDX-License-Identifier: MIT
/* The device that times another device: it computes the same, counts every call, and derives the work from the arguments. */
#include <jansson.h>

#include "ops/timed.h"
#include "ops_cases.h"
#include "support.h"

static bb_device *plain, *timed_device;

static int open_devices(void **state) {
    (void)state;
    if (bb_device_open("ref", 1, &plain, NULL) != BB_OK) return -1;
    return bb_timed_open(plain, &timed_device, NULL) == BB_OK ? 0 : -1;
}

static int close_devices(void **state) {
    (void)state;
    bb_device_close(timed_device);
    bb_device_close(plain);
    return 0;
}

static const bb_timed_entry *entry(const char *name) {
    const bb_timings *t = bb_timed_timings(timed_device);
    for (int i = 0; i < t->count; i++)
        if (strcmp(t->entry[i].name, name) == 0) return &t->entry[i];
    fail_msg("no %s", name);
    return NULL;
}

static void it_passes_for_the_device_below(void **state) {
    (void)state;
    assert_string_equal(bb_device_name(timed_device), "ref");
    assert_int_equal(timed_device->ops->host_memory, plain->ops->host_memory);
    assert_int_equal(timed_device->ops->act_dtype, plain->ops->act_dtype);
    assert_int_equal(bb_device_threads(timed_device), bb_device_threads(plain));
    assert_int_equal(timed_device->forward_rows, plain->forward_rows);
    assert_string_equal(bb_device_description(timed_device), bb_device_description(plain));
    const void *const *entries = (const void *const *)(const void *)&timed_device->ops->close;
    size_t count = (offsetof(bb_ops, optional) - offsetof(bb_ops, close)) / sizeof *entries;
    for (size_t i = 0; i < count; i++) assert_non_null(entries[i]); /* none was forgotten */
    assert_non_null(bb_timed_timings(timed_device));
    assert_null(bb_timed_timings(plain));
}

static void nothing_is_counted_unless_it_is_started(void **state) {
    (void)state;
    ops_session s = ops_begin(timed_device, 1);
    void *p = ops_room(&s, 64);
    bb_timed_start(timed_device);
    bb_timed_stop(timed_device);
    timed_device->ops->zero(timed_device, p, 64);
    assert_int_equal(bb_timed_timings(timed_device)->count, 0);
    bb_timed_start(timed_device);
    timed_device->ops->zero(timed_device, p, 64);
    timed_device->ops->zero(timed_device, p, 64);
    assert_int_equal(entry("zero")->calls, 2);
    assert_int_equal(entry("zero")->limit, BB_LIMIT_NONE);
    bb_timed_start(timed_device);
    assert_int_equal(bb_timed_timings(timed_device)->count, 0);
    bb_timed_stop(timed_device);
    ops_end(&s);
}

/* Multiplications and additions of a causal attention, counted one by one. */
static double attention_operations(const bb_attention *a, int products) {
    double n = 0;
    for (int64_t t = 0; t < a->Tq; t++)
        for (int64_t j = 0; j <= t + a->Tk - a->Tq; j++) n += 2.0 * products * (double)a->D;
    return n * (double)(a->B * a->H);
}

static void work_is_counted_from_the_arguments(void **state) {
    (void)state;
    enum { M = 5, V = 7, C = 12, N = 9, K = 8 };
    ops_session s = ops_begin(timed_device, 2);
    const bb_ops *ops = timed_device->ops;
    float *h = ops_put_f32(&s, ops_normal(&s, M * C, 1), M * C), *e = ops_put_f32(&s, ops_normal(&s, V * C, 1), V * C);
    float *logits = ops_room(&s, M * V * sizeof(float)), *dh = ops_room(&s, M * C * sizeof(float));
    float *de = ops_room(&s, V * C * sizeof(float));
    bb_ternary t = ops_ternary(&s, N, K, 1, ops_normal(&s, N * K, 1)),
               other = ops_ternary(&s, K, N, 1, ops_normal(&s, N * K, 1));
    bb_rows x = ops_rows(&s, M, K, BB_I8), wide = ops_rows(&s, M, N, BB_F32);
    ops->act_quant(timed_device, x, ops_put_f32(&s, ops_normal(&s, M * K, 1), M * K), M, K);
    float *y = ops_room(&s, M * N * sizeof(float)), *dw = ops_room(&s, N * K * sizeof(float));
    float *dx = ops_room(&s, M * K * sizeof(float));
    bb_timed_start(timed_device);
    ops->head_forward(timed_device, logits, h, &(bb_head){e, M, V, C});
    ops->head_backward(timed_device, dh, de, logits, h, &(bb_head){e, M, V, C});
    ops->linear_forward(timed_device, y, NULL, x, &t, M);
    ops->linear_forward(timed_device, y, NULL, x, &t, M);
    ops->linear_backward(timed_device, dx, (bb_layer_gradient){y, BB_F32, dw, false}, x, &t, M);
    ops->linear_backward(timed_device, NULL, (bb_layer_gradient){y, BB_F32, dw, false}, x, &t, M);
    assert_float_equal(entry("head_forward")->work, 2.0 * M * V * C, 0);
    assert_int_equal(entry("head_forward")->limit, BB_LIMIT_F32);
    assert_float_equal(entry("head_backward")->work, 4.0 * M * V * C, 0);
    assert_int_equal(entry("linear_forward")->calls, 2);
    assert_float_equal(entry("linear_forward")->work, 2 * 2.0 * M * N * K, 0);
    assert_int_equal(entry("linear_forward")->limit, BB_LIMIT_INT8);
    assert_int_equal(entry("linear_forward")->n, N);
    assert_int_equal(entry("linear_forward")->k, K);
    assert_float_equal(entry("linear_backward")->work, 3 * 2.0 * M * N * K, 0); /* without dx, half */
    int count = bb_timed_timings(timed_device)->count;
    ops->linear_forward(timed_device, dx, NULL, wide, &other, M); /* another shape, another type: another entry */
    assert_int_equal(bb_timed_timings(timed_device)->count, count + 1);
    assert_int_equal(bb_timed_timings(timed_device)->entry[count].limit, BB_LIMIT_F32);
    bb_timed_stop(timed_device);
    ops_end(&s);
}

static void attention_is_counted_as_far_as_it_is_causal(void **state) {
    (void)state;
    ops_session s = ops_begin(timed_device, 3);
    bb_attention a = {.B = 2, .Tq = 3, .Tk = 5, .H = 4, .Hk = 2, .D = 6};
    a.q_stride = a.o_stride = a.H * a.D;
    a.kv_stride = a.Hk * a.D;
    a.kv_batch_stride = a.Tk * a.kv_stride;
    int64_t q_n = a.B * a.Tq * a.q_stride, kv_n = a.B * a.kv_batch_stride;
    float *q = ops_put_f32(&s, ops_normal(&s, q_n, 1), q_n), *k = ops_put_f32(&s, ops_normal(&s, kv_n, 1), kv_n);
    float *o = ops_room(&s, (size_t)q_n * sizeof *o), *lse = ops_room(&s, (size_t)(a.B * a.H * a.Tq) * sizeof *lse);
    float *dq = ops_room(&s, (size_t)q_n * sizeof *dq), *dk = ops_room(&s, (size_t)kv_n * sizeof *dk);
    float *dv = ops_room(&s, (size_t)kv_n * sizeof *dv);
    bb_timed_start(timed_device);
    timed_device->ops->attention_forward(timed_device, o, NULL, lse, (bb_qkv){q, k, k}, &a);
    timed_device->ops->attention_backward(timed_device, (bb_qkv_gradient){dq, dk, dv}, q, (bb_qkv){q, k, k}, o, lse, &a);
    assert_float_equal(entry("attention_forward")->work, attention_operations(&a, 2), 0);
    assert_float_equal(entry("attention_backward")->work, attention_operations(&a, 4), 0);
    bb_timed_stop(timed_device);
    ops_end(&s);
}

static void fail_in_ref(bb_device *dev, bb_error *err, bb_status expected) {
    assert_int_equal(dev->ops->sync(dev, err), expected);
}

/* Timing waits after each operation; what failed there is still what the next sync says, once. */
static bb_status failing_sync(bb_device *dev, bb_error *err) {
    (void)dev;
    static int calls;
    return calls++ ? BB_OK : bb_fail(err, BB_ERR_MEMORY, "no memory for scratch");
}

static void a_failure_below_reaches_the_next_sync(void **state) {
    (void)state;
    bb_ops ops = *plain->ops;
    ops.sync = failing_sync;
    bb_device broken = *plain, *device;
    broken.ops = &ops;
    bb_error err = {0};
    assert_int_equal(bb_timed_open(&broken, &device, &err), BB_OK);
    uint8_t bytes[8];
    bb_timed_start(device); /* syncs as well: the failure is from before */
    device->ops->zero(device, bytes, sizeof bytes);
    fail_in_ref(device, &err, BB_ERR_MEMORY);
    assert_string_equal(err.message, "no memory for scratch");
    fail_in_ref(device, &err, BB_OK);
    bb_device_close(device);
}

/* ---- a model ---------------------------------------------------------------------------------------------------------- */

enum { T = 16, LAYERS = 2 };

static bb_config small_config(void) {
    bb_config c;
    bb_config_default(&c);
    c.n_layer = LAYERS, c.d_model = 16, c.n_head = 4, c.n_kv_head = 2, c.d_ff = 40;
    return c;
}

static double step_on(bb_device *device, double *norm) {
    static uint8_t text[T + 1];
    for (int i = 0; i <= T; i++) text[i] = (uint8_t)(i * 37);
    bb_config c = small_config();
    bb_model *model;
    bb_optimizer *optimizer;
    bb_optimizer_options options;
    bb_optimizer_options_default(&options);
    double loss;
    bool applied;
    assert_ok(bb_model_create(device, &c, 1, &model, &test_error));
    assert_ok(bb_optimizer_create(model, &options, &optimizer, &test_error));
    assert_ok(bb_model_zero_gradients(model, &test_error));
    assert_ok(bb_model_loss_backward(model, &(bb_train_batch){text, text + 1, 1, T}, 1, &loss, &test_error));
    assert_ok(bb_optimizer_step(optimizer, 1e-3, 1, 1, norm, &applied, &test_error));
    bb_optimizer_free(optimizer);
    bb_model_free(model);
    return loss;
}

static void a_step_is_the_same_and_is_counted(void **state) {
    (void)state;
    double norm, timed_norm, loss = step_on(plain, &norm);
    bb_timed_start(timed_device);
    assert_true(step_on(timed_device, &timed_norm) == loss);
    bb_timed_stop(timed_device);
    assert_true(timed_norm == norm);
    assert_int_equal(entry("rmsnorm_forward")->calls, 2 * LAYERS + 1); /* the last is the head's own */
    assert_int_equal(entry("rmsnorm_backward")->calls, 2 * LAYERS + 1);
    assert_int_equal(entry("attention_backward")->calls, LAYERS);
    assert_int_equal(entry("head_forward")->calls, 1);
    const bb_timings *t = bb_timed_timings(timed_device);
    int shapes = 0;
    for (int i = 0; i < t->count; i++) shapes += strcmp(t->entry[i].name, "linear_backward") == 0;
    assert_int_equal(shapes, 4);
}

static void a_profile_lists_the_longest_first(void **state) {
    (void)state;
    bb_device *profiled;
    bb_config c = small_config();
    double norm;
    char *text;
    assert_fails(bb_profile_start(plain, &test_error), BB_ERR_ARGUMENT, "bb_profile_open");
    assert_fails(bb_profile_report(plain, &c, &text, &test_error), BB_ERR_ARGUMENT, "bb_profile_open");
    assert_ok(bb_profile_open(plain, &profiled, &test_error));
    assert_ok(bb_profile_start(profiled, &test_error));
    (void)step_on(profiled, &norm);
    assert_ok(bb_profile_report(profiled, &c, &text, &test_error));
    json_t *root = json_loads(text, 0, NULL), *operations = json_object_get(root, "operations"), *one;
    double before = INFINITY, share = 0;
    bool qkv = false;
    size_t i;
    json_array_foreach(operations, i, one) {
        double ms = json_real_value(json_object_get(one, "total_ms"));
        const char *name = json_string_value(json_object_get(one, "name"));
        assert_true(ms <= before);
        before = ms;
        share += json_real_value(json_object_get(one, "percent_of_time"));
        if (strcmp(name, "linear_forward qkv") == 0) {
            qkv = true;
            assert_string_equal(json_string_value(json_object_get(one, "peak")), "f32"); /* ref has no integers' peak */
            assert_true(json_real_value(json_object_get(one, "percent_of_peak")) > 0);
        }
        if (strcmp(name, "rmsnorm_forward") == 0) assert_null(json_object_get(one, "gops"));
    }
    assert_true(qkv);
    double outside = json_real_value(json_object_get(json_object_get(root, "shares"), "outside"));
    ops_assert_near(share + outside, 100, 0.01, "percent", 0);
    json_decref(root);
    bb_string_free(text);
    bb_device_close(profiled);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_passes_for_the_device_below),        cmocka_unit_test(nothing_is_counted_unless_it_is_started),
        cmocka_unit_test(work_is_counted_from_the_arguments),    cmocka_unit_test(attention_is_counted_as_far_as_it_is_causal),
        cmocka_unit_test(a_failure_below_reaches_the_next_sync), cmocka_unit_test(a_step_is_the_same_and_is_counted),
        cmocka_unit_test(a_profile_lists_the_longest_first),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
