// SPDX-License-Identifier: MIT
/* Learning rate, curriculum, bits per byte, loss scaler, at every boundary. */
#include "support.h"

static void near(double a, double b) {
    if (!(fabs(a - b) <= 1e-15 + 1e-12 * fabs(b))) {
        print_error("%.17g is not %.17g\n", a, b);
        fail();
    }
}

static const double lr = 2e-4;

static double rate(int64_t step, int64_t warmup, int64_t total, bb_lr_schedule schedule, double min_factor) {
    const bb_lr_plan plan = {.schedule = schedule,
                             .base_lr = lr,
                             .min_factor = min_factor,
                             .warmup_steps = warmup,
                             .total_steps = total,
                             .cooldown_frac = 0.4};
    return bb_lr_for_step(&plan, step);
}

static void learning_rates_follow_the_schedule(void **state) {
    (void)state;
    const double pi = acos(-1);
    /* warm-up of 6000 of 200000: the first step is not zero, the last of it is lr */
    near(rate(0, 6000, 200000, BB_LR_COSINE, 0.1), lr / 6000);
    near(rate(2999, 6000, 200000, BB_LR_COSINE, 0.1), lr / 2);
    near(rate(5999, 6000, 200000, BB_LR_COSINE, 0.1), lr);
    near(rate(6000, 6000, 200000, BB_LR_COSINE, 0.1), lr);
    near(rate(6000 + 97000, 6000, 200000, BB_LR_COSINE, 0.1), lr * 0.55);
    near(rate(6000 + 48500, 6000, 200000, BB_LR_COSINE, 0.1), lr * (0.1 + 0.45 * (1 + cos(pi / 4))));
    near(rate(199999, 6000, 200000, BB_LR_COSINE, 0.1), lr * (0.1 + 0.45 * (1 + cos(pi * 193999 / 194000))));
    near(rate(200000, 6000, 200000, BB_LR_COSINE, 0.1), lr * 0.1);
    near(rate(300000, 6000, 200000, BB_LR_COSINE, 0.1), lr * 0.1); /* it does not turn up again */
    near(rate(6000, 6000, 200000, BB_LR_CONSTANT, 0.1), lr);
    near(rate(199999, 6000, 200000, BB_LR_CONSTANT, 0.1), lr);
    near(rate(10, 6000, 200000, BB_LR_CONSTANT, 0.1), lr * 11 / 6000);
    near(rate(29, 60, 1000, BB_LR_LINEAR, 0.1), lr / 2);
    near(rate(600, 60, 1000, BB_LR_LINEAR, 0.1), lr); /* the last 40% go down */
    near(rate(800, 60, 1000, BB_LR_LINEAR, 0.1), lr * 0.55);
    near(rate(999, 60, 1000, BB_LR_LINEAR, 0), lr / 400);
    near(rate(1000, 60, 1000, BB_LR_LINEAR, 0.1), lr * 0.1);
    near(rate(800, 800, 1000, BB_LR_LINEAR, 0), lr); /* a warm-up that ends after it would begin */
    near(rate(900, 800, 1000, BB_LR_LINEAR, 0), lr / 2);
    near(rate(0, 0, 10, BB_LR_COSINE, 0.1), lr); /* no warm-up */
    near(rate(0, 1, 1, BB_LR_COSINE, 0), lr);
    near(rate(1, 1, 1, BB_LR_COSINE, 0), lr);
}

static void sequence_lengths_follow_the_curriculum(void **state) {
    (void)state;
    assert_int_equal(bb_seq_len_for_step(0, 200000, 0), 2048);
    assert_int_equal(bb_seq_len_for_step(39999, 200000, 0), 2048);
    assert_int_equal(bb_seq_len_for_step(40000, 200000, 0), 4096);
    assert_int_equal(bb_seq_len_for_step(99999, 200000, 0), 4096);
    assert_int_equal(bb_seq_len_for_step(100000, 200000, 0), 8192);
    assert_int_equal(bb_seq_len_for_step(199999, 200000, 0), 8192);
    assert_int_equal(bb_seq_len_for_step(0, 200000, 1024), 1024);
    assert_int_equal(bb_seq_len_for_step(40000, 200000, 3000), 3000);
    assert_int_equal(bb_seq_len_for_step(39999, 200000, 3000), 2048);
    assert_int_equal(bb_seq_len_for_step(199999, 200000, 8192), 8192);
    assert_int_equal(bb_seq_len_for_step(199999, 200000, 1 << 20), 8192);
    assert_int_equal(bb_seq_len_for_step(0, 1, 0), 2048);
}

static void bits_are_nats_over_ln_2(void **state) {
    (void)state;
    near(bb_bits_per_byte(log(2)), 1);
    near(bb_bits_per_byte(log(256)), 8);
}

static void loss_scale_grows_and_backs_off(void **state) {
    (void)state;
    bb_loss_scaler *s;
    assert_ok(bb_loss_scaler_create(1024, 3, true, &s, &test_error));
    near(bb_loss_scaler_scale(s), 1024);
    bb_loss_scaler_update(s, false);
    bb_loss_scaler_update(s, false);
    near(bb_loss_scaler_scale(s), 1024);
    bb_loss_scaler_update(s, false);
    near(bb_loss_scaler_scale(s), 2048);
    bb_loss_scaler_update(s, false);
    bb_loss_scaler_update(s, false);
    bb_loss_scaler_update(s, true); /* an overflow halves, and starts the count again */
    near(bb_loss_scaler_scale(s), 1024);
    bb_loss_scaler_update(s, false);
    bb_loss_scaler_update(s, false);
    near(bb_loss_scaler_scale(s), 1024);
    bb_loss_scaler_free(s);
    assert_ok(bb_loss_scaler_create(3, 1, true, &s, &test_error)); /* down to 1; and not to where f32 ends */
    for (int i = 0; i < 3; i++) bb_loss_scaler_update(s, true);
    near(bb_loss_scaler_scale(s), 1);
    for (int i = 0; i < 300; i++) bb_loss_scaler_update(s, false);
    near(bb_loss_scaler_scale(s), 0x1p127);
    bb_loss_scaler_free(s);
    assert_ok(bb_loss_scaler_create(1024, 3, false, &s, &test_error));
    bb_loss_scaler_update(s, true);
    near(bb_loss_scaler_scale(s), 1);
    bb_loss_scaler_free(s);
    assert_fails(bb_loss_scaler_create(-1, 3, true, &s, &test_error), BB_ERR_ARGUMENT, "initial_scale -1");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(learning_rates_follow_the_schedule), cmocka_unit_test(sequence_lengths_follow_the_curriculum),
        cmocka_unit_test(bits_are_nats_over_ln_2), cmocka_unit_test(loss_scale_grows_and_backs_off)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
