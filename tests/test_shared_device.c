// SPDX-License-Identifier: MIT
/* One device, several threads with their own models: each gets the same results as alone. */
#include "support.h"

#include <pthread.h>

#include "generation_output.h"
#include "tiny_model.h"

enum { THREADS = 3, ROUNDS = 12, LENGTH = 40, ROWS = 24, IN = 48, OUT = 80, BYTES = 12 };

typedef struct results {
    float logits[LENGTH * 256], gradient[IN * IN], y[ROWS * OUT];
    int8_t q[OUT * IN];
    float scale;
    double loss;
    output text;
} results;

typedef struct user {
    bb_device *device;
    uint64_t seed;
    int rounds;
    results expected;
    int different, failed;
} user;

/* Everything once, with a model and a layer that `seed` makes. */
static bb_status compute(bb_device *device, uint64_t seed, results *r) {
    bb_model *model = NULL;
    bb_bitlinear *layer = NULL;
    bb_generate_options o;
    bb_error err;
    uint8_t x[LENGTH];
    float input[ROWS * IN], weight[OUT * IN];
    memset(r, 0, sizeof *r);
    for (int i = 0; i < LENGTH; i++) x[i] = (uint8_t)(i * 7 + (int)seed);
    for (int i = 0; i < ROWS * IN; i++) input[i] = (float)((i * 37 + (int)seed) % 101) - 50;
    bb_status status = bb_model_create(device, &tiny, seed, &model, &err);
    if (status == BB_OK) status = bb_model_forward(model, x, 1, LENGTH, r->logits, &err);
    if (status == BB_OK) status = bb_model_loss_backward(model, &(bb_train_batch){x, x, 2, LENGTH / 2}, 1, &r->loss, &err);
    if (status == BB_OK)
        status = bb_model_get_gradient(model, "blocks.0.attn.q_proj.weight", r->gradient, (size_t)IN * IN, &err);
    bb_generate_options_default(&o);
    o.max_new_bytes = BYTES;
    o.context_length = 64;
    o.seed = seed;
    o.on_byte = collect;
    o.user = &r->text;
    if (status == BB_OK) status = bb_generate(model, x, LENGTH, &o, NULL, &err);
    if (status == BB_OK)
        status = bb_bitlinear_create(
            device, &(bb_bitlinear_options){sizeof(bb_bitlinear_options), IN, OUT, true, BB_STE_IDENTITY, seed}, &layer, &err);
    if (status == BB_OK) status = bb_bitlinear_forward(layer, input, ROWS, r->y, &err);
    if (status == BB_OK) status = bb_bitlinear_get_weight(layer, weight, &err);
    if (status == BB_OK) status = bb_ternary_quantize(device, weight, OUT, IN, r->q, &r->scale, &err);
    bb_bitlinear_free(layer);
    bb_model_free(model);
    return status;
}

static void *use(void *at) {
    user *u = at;
    results *r = malloc(sizeof *r);
    for (int i = 0; i < u->rounds && r; i++) {
        if (compute(u->device, u->seed, r) != BB_OK) u->failed++;
        if (memcmp(r, &u->expected, sizeof *r) != 0) u->different++;
    }
    free(r);
    return NULL;
}

static void check(const char *name, int rounds) {
    static user users[THREADS];
    pthread_t threads[THREADS];
    bb_device *device;
    assert_ok(bb_device_open(name, 2, &device, &test_error));
    for (int i = 0; i < THREADS; i++) {
        users[i] = (user){.device = device, .seed = (uint64_t)i + 1, .rounds = rounds};
        assert_int_equal(compute(device, users[i].seed, &users[i].expected), BB_OK);
    }
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, use, &users[i]), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(users[i].failed, 0);
        assert_int_equal(users[i].different, 0);
    }
    bb_device_close(device);
}

static void threads_share_a_cpu_device(void **state) {
    (void)state;
    check("cpu", ROUNDS);
}

static void threads_share_a_ref_device(void **state) {
    (void)state;
    check("ref", 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads_share_a_cpu_device),
                                       cmocka_unit_test(threads_share_a_ref_device)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
