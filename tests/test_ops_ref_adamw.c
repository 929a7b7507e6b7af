/* The reference optimizer against a computation by hand, and the coding of 8-bit moments.
 * SPDX-License-Identifier: MIT */
#include "core/adam8_map.h"
#include "ops_cases.h"

static bb_device *dev; /* memory of ref is the process's own, so host arrays serve as its */

static int open_device(void **state) {
    (void)state;
    return bb_device_open("ref", 0, &dev, NULL) == BB_OK ? 0 : -1;
}

static int close_device(void **state) {
    (void)state;
    bb_device_close(dev);
    return 0;
}

/* Two steps by hand: lr 0.1, decay 0.1, betas 0.9 and 0.95, gradients 0.5 and -0.25.
 * m: 0.05, 0.02; v: 0.0125, 0.015; m/bc1: 0.5, 0.02/0.19; v/bc2: 0.25, 0.015/0.0975. */
static void adamw_by_hand(void **state) {
    (void)state;
    bb_adamw h = {0.1, 0.9, 0.95, 1e-8, 0.1, 1.0, 0.1, 0.05};
    float p = 1.0f, m = 0.0f, v = 0.0f, g = 0.5f;
    dev->ops->adamw_step(dev, &p, &g, &m, &v, 1, &h);
    assert_float_equal(m, 0.05f, 1e-8f);
    assert_float_equal(v, 0.0125f, 1e-8f);
    assert_float_equal(p, 1.0f * (1.0f - 0.01f) - 0.1f, 1e-6f);
    h.bias_correction1 = 0.19;
    h.bias_correction2 = 0.0975;
    h.grad_scale = 0.5; /* the clip halves it */
    g = -0.5f;
    dev->ops->adamw_step(dev, &p, &g, &m, &v, 1, &h);
    assert_float_equal(m, 0.02f, 1e-8f);
    assert_float_equal(v, 0.015f, 1e-8f);
    assert_float_equal(p, 0.854263055f, 1e-6f);
    h.weight_decay = 0.0;
    h.lr = 0.0;
    dev->ops->adamw_step(dev, &p, &g, &m, &v, 1, &h);
    assert_float_equal(p, 0.854263055f, 1e-6f);
}

static void sum_squares_is_exact_for_integers(void **state) {
    (void)state;
    float x[1000];
    for (int i = 0; i < 1000; i++) x[i] = (float)(i % 2 ? i : -i);
    assert_true(dev->ops->sum_squares(dev, x, 1000) == 332833500.0);
    assert_true(dev->ops->sum_squares(dev, x, 1) == 0.0);
}

enum { BLOCKS = 2, SHORT = 44, MOMENTS = BB_ADAM8_BLOCK + SHORT };

static bb_adam8_state moments(ops_session *s) {
    bb_adam8_state state = {ops_host(s, MOMENTS), ops_host(s, MOMENTS), ops_host_f32(s, BLOCKS), ops_host_f32(s, BLOCKS)};
    dev->ops->adamw8bit_init(dev, state, MOMENTS);
    return state;
}

static void adamw8bit_starts_from_zero_moments(void **state) {
    (void)state;
    ops_session s = ops_begin(dev, 10);
    const bb_adamw h = {0.1, 0.9, 0.95, 1e-8, 0.1, 1.0, 0.1, 0.05};
    float *p = ops_normal_f32(&s, MOMENTS, 1.0), *g = ops_normal_f32(&s, MOMENTS, 1.0), *zero = ops_host_f32(&s, MOMENTS);
    float *p32 = ops_host_f32(&s, MOMENTS), *m = ops_host_f32(&s, MOMENTS), *v = ops_host_f32(&s, MOMENTS);
    bb_adam8_state a = moments(&s), untouched = moments(&s);
    memcpy(p32, p, MOMENTS * sizeof *p);
    dev->ops->adamw8bit_step(dev, p, zero, a, MOMENTS, &h); /* nothing but decay; zero moments stay zero */
    for (int i = 0; i < MOMENTS; i++) assert_float_equal(p[i], p32[i] * 0.99f, 1e-6f);
    assert_memory_equal(a.m, untouched.m, MOMENTS);
    assert_memory_equal(a.v, untouched.v, MOMENTS);
    for (int b = 0; b < BLOCKS; b++) assert_true(a.m_absmax[b] == 0.0f && a.v_absmax[b] == 0.0f);

    memcpy(p, p32, MOMENTS * sizeof *p);
    dev->ops->adamw8bit_step(dev, p, g, a, MOMENTS, &h); /* the first step sees no rounded moment */
    dev->ops->adamw_step(dev, p32, g, m, v, MOMENTS, &h);
    assert_memory_equal(p, p32, MOMENTS * sizeof *p);
    ops_end(&s);
}

/* With beta1 = beta2 = 0 the moments are g and g^2: what is stored is the nearest entry times the block's own absmax. */
static void adamw8bit_stores_the_nearest_entry(void **state) {
    (void)state;
    ops_session s = ops_begin(dev, 11);
    const bb_adamw h = {0.0, 0.0, 0.0, 1e-8, 0.0, 1.0, 1.0, 1.0};
    float *p = ops_host_f32(&s, MOMENTS), *g = ops_normal_f32(&s, MOMENTS, 1.0);
    for (int i = 0; i < MOMENTS; i++) g[i] *= powf(10.0f, (float)(-(i % 9))); /* down past the least entry */
    bb_adam8_state a = moments(&s);
    dev->ops->adamw8bit_step(dev, p, g, a, MOMENTS, &h);
    for (int which = 0; which < 2; which++) {
        const float *map = bb_adam8_map(which == 0), *absmax = which == 0 ? a.m_absmax : a.v_absmax;
        const uint8_t *code = which == 0 ? a.m : a.v;
        for (int b = 0; b < BLOCKS; b++) {
            float largest = 0.0f;
            for (int i = b * BB_ADAM8_BLOCK; i < (b == 0 ? BB_ADAM8_BLOCK : MOMENTS); i++)
                largest = fmaxf(largest, fabsf(g[i]));
            assert_float_equal(absmax[b], which == 0 ? largest : (float)((double)largest * (double)largest), 0.0f);
        }
        for (int i = 0; i < MOMENTS; i++) {
            double x = which == 0 ? (double)g[i] : (double)g[i] * (double)g[i];
            x /= (double)absmax[i / BB_ADAM8_BLOCK];
            double nearest = 2;
            for (int j = 0; j < 256; j++) nearest = fmin(nearest, fabs((double)map[j] - x));
            ops_assert_near(fabs((double)map[code[i]] - x), nearest, 1e-7, "entry", i);
        }
    }
    ops_end(&s);
}

/* With both betas 1, decoding and encoding is all that happens, and every code comes back. */
static void adamw8bit_codes_survive_decoding(void **state) {
    (void)state;
    ops_session s = ops_begin(dev, 12);
    const bb_adamw h = {0.0, 1.0, 1.0, 1e-8, 0.0, 1.0, 1.0, 1.0};
    float *p = ops_host_f32(&s, MOMENTS), *g = ops_normal_f32(&s, MOMENTS, 1.0);
    bb_adam8_state a = moments(&s);
    uint8_t codes[MOMENTS];
    for (int i = 0; i < MOMENTS; i++) a.m[i] = a.v[i] = codes[i] = (uint8_t)(255 - i % 256); /* each block has the entry 1.0 */
    a.m_absmax[0] = 0.37f, a.m_absmax[1] = 1e-20f, a.v_absmax[0] = 3e-7f, a.v_absmax[1] = 41.0f;
    dev->ops->adamw8bit_step(dev, p, g, a, MOMENTS, &h);
    assert_memory_equal(a.m, codes, MOMENTS);
    assert_memory_equal(a.v, codes, MOMENTS);
    assert_true(a.m_absmax[0] == 0.37f && a.m_absmax[1] == 1e-20f && a.v_absmax[0] == 3e-7f && a.v_absmax[1] == 41.0f);
    ops_end(&s);
}

/* Entries that the authors' own construction gives, and the shape of the table. */
static void adam8_map_is_the_dynamic_map(void **state) {
    (void)state;
    const float *with_sign = bb_adam8_map(true), *without = bb_adam8_map(false);
    for (int i = 1; i < 256; i++) assert_true(with_sign[i] > with_sign[i - 1] && without[i] > without[i - 1]);
    for (int i = 1; i < 128; i++) assert_float_equal(with_sign[127 + i], -with_sign[127 - i], 0.0f);
    assert_true(with_sign[127] == 0.0f && with_sign[255] == 1.0f && without[0] == 0.0f && without[255] == 1.0f);
    assert_float_equal(with_sign[128], 5.5e-7f, 1e-13f);
    assert_float_equal(with_sign[129], 3.25e-6f, 1e-12f);
    assert_float_equal(with_sign[254], 0.99296875f, 1e-7f);
    assert_float_equal(without[1], 3.25e-7f, 1e-13f);
    assert_float_equal(without[2], 7.75e-7f, 1e-13f);
    assert_float_equal(without[254], 0.996484375f, 1e-7f);
    for (int sign = 0; sign < 2; sign++) {
        const float *map = bb_adam8_map(sign), *edge = bb_adam8_edges(sign);
        for (int i = 0; i < 255; i++) {
            double below = (double)edge[i], above = (double)nextafterf(edge[i], INFINITY);
            double lower = (double)map[i], upper = (double)map[i + 1];
            assert_true(below - lower <= upper - below && above - lower > upper - above);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw_by_hand),
        cmocka_unit_test(sum_squares_is_exact_for_integers),
        cmocka_unit_test(adamw8bit_starts_from_zero_moments),
        cmocka_unit_test(adamw8bit_stores_the_nearest_entry),
        cmocka_unit_test(adamw8bit_codes_survive_decoding),
        cmocka_unit_test(adam8_map_is_the_dynamic_map),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
