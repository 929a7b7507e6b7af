// SPDX-License-Identifier: MIT
/* Compares the reference optimizer with a computation by hand, and tests the coding of 8-bit moments. */
#include "core/adam8_map.h"
#include "ops_cases.h"

static bb_device *dev; /* ref's memory is ordinary process memory, so host arrays can be used as device memory */

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
    static float x[BB_NORM_TILE + 1000];
    double sums[2] = {NAN, NAN};
    for (int i = 0; i < 1000; i++) x[i] = x[BB_NORM_TILE + i] = (float)(i % 2 ? i : -i);
    dev->ops->sum_squares(dev, sums, x, BB_NORM_TILE + 10);
    assert_true(sums[0] == 332833500.0 && sums[1] == 285.0);
    dev->ops->sum_squares(dev, sums, x, 1);
    assert_true(sums[0] == 0.0);
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
        const float *absmax = which == 0 ? a.m_absmax : a.v_absmax;
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
            for (int j = 0; j < 256; j++) nearest = fmin(nearest, fabs((double)bb_adam8_value((uint8_t)j, which == 0) - x));
            ops_assert_near(fabs((double)bb_adam8_value(code[i], which == 0) - x), nearest, 5e-7, "entry", i);
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

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The authors' own construction, in double. */
static void dynamic_map(double *map, bool is_signed) {
    int n = 0;
    double end = 1e-6;
    for (int e = 0; e < 7; e++, end *= 10) {
        int parts = 1 << (is_signed ? e : e + 1);
        for (int i = 0; i < parts; i++) {
            map[n++] = (0.1 + 0.9 * (i + 0.5) / parts) * end;
            if (is_signed) map[n++] = -(0.1 + 0.9 * (i + 0.5) / parts) * end;
        }
    }
    map[n++] = 0;
    map[n++] = 1;
    assert_int_equal(n, 256);
    qsort(map, 256, sizeof *map, ascending);
}

static void adam8_values_are_those_of_the_dynamic_map(void **state) {
    (void)state;
    for (int sign = 0; sign < 2; sign++) {
        double map[256];
        dynamic_map(map, sign);
        for (int c = 0; c < 256; c++) {
            float value = bb_adam8_value((uint8_t)c, sign);
            ops_assert_near((double)value, map[c], 3 * 0x1p-24 * fabs(map[c]), "value", c);
            if (c > 0) assert_true(value > bb_adam8_value((uint8_t)(c - 1), sign));
            assert_int_equal(bb_adam8_code(value * bb_adam8_scale(1), sign), c);
        }
        assert_true(bb_adam8_value(255, sign) == 1.0f && bb_adam8_value(sign ? 127 : 0, sign) == 0.0f);
    }
    for (int a = 1; a < 128; a++)
        assert_true(bb_adam8_value((uint8_t)(127 - a), true) == -bb_adam8_value((uint8_t)(127 + a), true));
}

/* The code of x >= 0, which is that of -x mirrored: but for the code of 1, for whose mirror image there is none. */
static int code_of(float x, bool is_signed) {
    int code = bb_adam8_code(x, is_signed);
    if (is_signed) assert_int_equal(bb_adam8_code(-x, true), code == 255 ? 0 : 254 - code);
    return code;
}

/* The code changes within five roundings, at the scale of the decade, of the midpoint of two values. There every float is
 * looked at, and from one such place to the next a thousand; the last is an ulp past the greatest. */
static void adam8_codes_are_those_of_the_nearest_value(void **state) {
    (void)state;
    for (int sign = 0; sign < 2; sign++) {
        float from = 0;
        for (int c = sign ? 127 : 0; c < 256; c++) {
            double value = (double)bb_adam8_value((uint8_t)c, sign), next = (double)bb_adam8_value((uint8_t)(c + 1), sign);
            double edge = (value + next) / 2 / 0.9, off = 5 * 0x1p-24 * pow(10, ceil(log10(next)));
            float to = c < 255 ? (float)(edge - off) : nextafterf(BB_ADAM8_SCALED(1), 2);
            for (int i = 0; i <= 1000; i++) assert_int_equal(code_of(fminf(from + (to - from) * (float)i / 1000, to), sign), c);
            if (c == 255) break;
            for (int last = c; (double)to <= edge + off; to = nextafterf(to, 2)) {
                int code = code_of(to, sign);
                assert_true(code == last || code == c + 1);
                last = code;
            }
            from = to;
        }
        assert_int_equal(bb_adam8_code(NAN, sign), bb_adam8_code(0, sign));
    }
}

static void adam8_scale_is_finite(void **state) {
    (void)state;
    ops_assert_near((double)bb_adam8_scale(0.37f), 1 / 0.9 / 0.37, 1e-6, "scale", 0);
    assert_true(bb_adam8_scale(FLT_MIN) > 1 && isfinite(bb_adam8_scale(FLT_MIN)) && bb_adam8_scale(FLT_MAX) > 0);
    assert_true(bb_adam8_scale(0) == 0 && bb_adam8_scale(1e-40f) == 0 && bb_adam8_scale(NAN) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw_by_hand),
        cmocka_unit_test(sum_squares_is_exact_for_integers),
        cmocka_unit_test(adamw8bit_starts_from_zero_moments),
        cmocka_unit_test(adamw8bit_stores_the_nearest_entry),
        cmocka_unit_test(adamw8bit_codes_survive_decoding),
        cmocka_unit_test(adam8_values_are_those_of_the_dynamic_map),
        cmocka_unit_test(adam8_codes_are_those_of_the_nearest_value),
        cmocka_unit_test(adam8_scale_is_finite),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
