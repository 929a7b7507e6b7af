// SPDX-License-Identifier: MIT
/* What is planned before training: the steps that fit in a time, and the memory that a run takes. */
#include "support.h"

#include <string.h>

#include "tiny_model.h"

enum { SEQ_LEN = 16, DATA_BYTES = 100000, MAX_EPOCHS = 20 };

/* Plans for this process alone. The time is so short that little is measured. */
static bb_plan plan(int global_batch, int batch_size) {
    bb_device *device;
    bb_plan p;
    bb_plan_request request;
    bb_plan_request_default(&request);
    request.minutes = 1e-6;
    request.data_bytes = DATA_BYTES;
    request.config = &tiny;
    request.seq_len = SEQ_LEN;
    request.global_batch = global_batch;
    request.batch_size = batch_size;
    assert_ok(bb_device_open("cpu", 2, &device, &test_error));
    assert_ok(bb_plan_run(device, &request, &p, &test_error));
    bb_device_close(device);
    assert_true(p.steps >= 1 && p.steps <= p.max_steps);
    assert_true(p.bytes_per_second > 0);
    assert_int_equal(p.seq_len, SEQ_LEN);
    return p;
}

static void one_process_can_plan(void **state) {
    (void)state;
    bb_plan p = plan(0, 0);
    assert_int_equal(p.batch_size, 8);
    assert_int_equal(p.max_steps, DATA_BYTES * MAX_EPOCHS / (p.batch_size * p.grad_accum * SEQ_LEN));
    assert_int_equal(plan(0, 3).batch_size, 3);
}

/* A step of a given number of sequences is of whole batches. */
static void batches_divide_a_given_step(void **state) {
    (void)state;
    static const struct { int global_batch, batch_size; } cases[] = {{12, 6}, {35, 7}, {3, 3}, {26, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bb_plan p = plan(cases[i].global_batch, 0);
        char expected[40];
        snprintf(expected, sizeof expected, " steps of %d x %d bytes", cases[i].global_batch, SEQ_LEN);
        assert_int_equal(p.batch_size, cases[i].batch_size);
        assert_int_equal(p.max_steps, DATA_BYTES * MAX_EPOCHS / (cases[i].global_batch * SEQ_LEN));
        assert_non_null(strstr(p.lines[1], expected));
    }
}

/* A model whose checkpoint is too large for a copy in any host's memory: one process keeps its moments to itself, and makes none. */
static void one_process_needs_no_copy_to_share_moments(void **state) {
    (void)state;
    bb_config large = tiny;
    large.n_layer = 4000;
    large.d_model = 1 << 14;
    large.d_ff = 1 << 16;
    bb_dist *dist;
    bb_train_options options;
    bb_optimizer_options optimizer;
    bb_memory_estimate estimate = {0};
    bb_train_options_default(&options);
    bb_optimizer_options_default(&optimizer);
    assert_ok(bb_dist_open("single", &dist, &test_error));
    estimate.parameters = bb_config_parameters(&large) * sizeof(float);
    estimate.optimizer = 2 * estimate.parameters;
    options.dist = optimizer.share_over = dist;
    assert_ok(bb_memory_predict_rank(&large, &options, &optimizer, &estimate, &test_error));
    assert_int_equal(estimate.checkpoint_copy, 0);
    bb_dist_close(dist);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_process_can_plan), cmocka_unit_test(batches_divide_a_given_step),
                                       cmocka_unit_test(one_process_needs_no_copy_to_share_moments)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
