// SPDX-License-Identifier: MIT
/* Runs a case on ref, and on the device under test with one thread and with two: the device must agree with ref within what its
 * arithmetic allows, and with itself bit for bit. A test program fills a table of ops_case and passes it to ops_compare_all; its
 * first argument names the device under test, by default "cpu", its second the type of its activations, if there is a choice. */
#ifndef BB_TESTS_OPS_COMPARE_H
#define BB_TESTS_OPS_COMPARE_H

#include <stdio.h>

#include "guarded.h"
#include "levels.h"
#include "ops_cases.h"

/* The unit roundoffs that every tolerance is made of: half the distance of 1 to the next number. */
#define U_F32 0x1p-24
#define U_BF16 0x1p-8
#define U_F16 0x1p-11

/* Of activations of the device under test: the unit roundoff, and what rounding may be off by below the smallest normal number. */
static double U_ACT = U_BF16, TINY_ACT = 0;

enum { OPS_MAX_OUTPUTS = 8, OPS_MAX_DIMS = 8 };

typedef struct ops_output {
    const char *name;
    const float *value;  /* (n) */
    const double *bound; /* (n): the error allowed, from the ref run alone; NULL: none beyond `relative` */
    int64_t n;
    double relative; /* the error allowed besides, in parts of what ref gave */
    double tiny;     /* and in itself, where ref's error is not 0 */
    double by_norm;  /* 0, or what the norm of all errors may be in parts of the norm of what ref gave */
} ops_output;

typedef struct ops_outputs {
    ops_output of[OPS_MAX_OUTPUTS];
    int count;
} ops_outputs;

typedef struct ops_case {
    const char *name; /* with ", large" at the end: too much for what is emulated, where a smaller case must do */
    void (*run)(ops_session *s, const int64_t *d, ops_outputs *out); /* d: the dimensions, as the function names them */
    int64_t d[OPS_MAX_DIMS];
} ops_case;

static bb_device *ops_ref, *ops_tested[2];                    /* the device under test, with 1 and with 2 threads */
static const char *ops_tested_name = "cpu", *ops_activations; /* NULL: the device's own choice */

static inline bool ops_is_ref(const ops_session *s) { return s->dev == ops_ref; }

/* A device, or with BB_TEST_QUICK (tests/simde) a processor. */
static inline bool ops_emulated(void) {
    return getenv("BB_TEST_QUICK") || strncmp(bb_device_description(ops_tested[0]), "emulated", 8) == 0;
}

static inline void ops_out(ops_outputs *out, const char *name, const float *value, int64_t n, double relative,
                           const double *bound) {
    assert_true(out->count < OPS_MAX_OUTPUTS);
    out->of[out->count++] = (ops_output){.name = name, .value = value, .bound = bound, .n = n, .relative = relative};
}

/* The same for activations, on the device. */
static inline void ops_out_act(ops_session *s, ops_outputs *out, const char *name, const void *value, int64_t n,
                               double relative, const double *bound) {
    ops_out(out, name, ops_get_act(s, value, n), n, relative, bound);
    out->of[out->count - 1].tiny = TINY_ACT;
}

/* The value that an activation of the device under test has where ref gives x: exact but for its own rounding. */
static inline float *ops_rounded(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = U_ACT < U_BF16 ? ops_to_f16((double)x[i]) : ops_to_bf16((double)x[i]);
    return x;
}

static inline void ops_compare_output(const ops_output *tested, const ops_output *ref) {
    double worst = 0, error_norm = 0, norm = 0;
    int64_t at = -1;
    for (int64_t i = 0; i < ref->n; i++) {
        double expected = (double)ref->value[i], error = fabs((double)tested->value[i] - expected);
        double allowed = ref->relative * fabs(expected) + (ref->bound ? ref->bound[i] : 0);
        if (allowed > 0) allowed += ref->tiny;
        if (allowed > 0) { /* not what must be as it was */
            error_norm += error * error;
            norm += expected * expected;
        }
        if (error <= allowed) continue;
        if (isnan(error) || error - allowed > worst) {
            worst = error - allowed;
            at = i;
            if (isnan(error)) break;
        }
    }
    if (at >= 0)
        fail_msg("%s[%lld of %lld]: %s %.9g, ref %.9g, allowed %.3g", ref->name, (long long)at, (long long)ref->n,
                 ops_tested_name, (double)tested->value[at], (double)ref->value[at],
                 ref->relative * fabs((double)ref->value[at]) + (ref->bound ? ref->bound[at] : 0));
    if (ref->by_norm > 0 && !(error_norm <= ref->by_norm * ref->by_norm * norm))
        fail_msg("%s: error of norm %.3g, allowed %.3g", ref->name, sqrt(error_norm), ref->by_norm * sqrt(norm));
}

static inline uint32_t ops_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline void ops_compare_bits(const ops_output *a, const ops_output *b, const char *how) {
    for (int64_t i = 0; i < a->n; i++)
        if (ops_bits(a->value[i]) != ops_bits(b->value[i]))
            fail_msg("%s[%lld of %lld]: %.9g and %.9g %s", a->name, (long long)i, (long long)a->n, (double)a->value[i],
                     (double)b->value[i], how);
}

static void ops_compare(void **state) {
    const ops_case *c = *state;
    if (ops_emulated() && strstr(c->name, ", large")) skip();
    enum { RUNS = 4 };
    bb_device *const devices[RUNS] = {ops_ref, ops_tested[0], ops_tested[1], ops_tested[1]};
    ops_session sessions[RUNS];
    ops_outputs out[RUNS] = {0};
    for (int i = 0; i < RUNS; i++) {
        sessions[i] = ops_begin(devices[i], 1);
        c->run(&sessions[i], c->d, &out[i]);
        assert_int_equal(out[i].count, out[0].count);
    }
    for (int j = 0; j < out[0].count; j++) {
        ops_compare_output(&out[1].of[j], &out[0].of[j]);
        ops_compare_bits(&out[1].of[j], &out[2].of[j], "on 1 and 2 threads");
        ops_compare_bits(&out[2].of[j], &out[3].of[j], "in two runs");
    }
    for (int i = 0; i < RUNS; i++) ops_end(&sessions[i]);
}

static int ops_open_devices(void **state) {
    (void)state;
    bb_error err;
    bb_device **const devices[] = {&ops_ref, &ops_tested[0], &ops_tested[1]};
    for (int i = 0; i < 3; i++) {
        bb_status status = bb_device_open(i == 0 ? "ref" : ops_tested_name, i == 0 ? 1 : i, devices[i], &err);
        if (status == BB_OK && i > 0 && ops_activations) status = bb_device_set_activations(*devices[i], ops_activations, &err);
        if (status != BB_OK) {
            print_error("%s\n", err.message);
            return -1;
        }
    }
    if (ops_tested[0]->ops->act_dtype == BB_F16) {
        U_ACT = U_F16;
        TINY_ACT = 0x1p-25;
    }
    print_message("%s\n", bb_device_description(ops_tested[0]));
    return 0;
}

static int ops_close_devices(void **state) {
    (void)state;
    bb_device_close(ops_ref);
    for (int i = 0; i < 2; i++) bb_device_close(ops_tested[i]);
    return 0;
}

/* Every case of a table as a test of its own, then `extra` ones. same: see begin_level. */
static inline int ops_compare_all(int argc, char **argv, same_kernels *same, const ops_case *cases, size_t count,
                                  const struct CMUnitTest *extra, size_t extra_count) {
    guarded_register();
    if (argc > 1) ops_tested_name = argv[1];
    if (argc > 2) ops_activations = argv[2];
    begin_level(same);
    enum { MAX_TESTS = 256, NAME_BYTES = 96 };
    static struct CMUnitTest tests[MAX_TESTS];
    static char names[MAX_TESTS][NAME_BYTES];
    if (count + extra_count > MAX_TESTS) return 1;
    for (size_t i = 0; i < count; i++) {
        int used = snprintf(names[i], NAME_BYTES, "%s", cases[i].name), last = OPS_MAX_DIMS - 1;
        while (last > 0 && cases[i].d[last] == 0) last--;
        for (int j = 0; j <= last && used < NAME_BYTES; j++)
            used += snprintf(names[i] + used, NAME_BYTES - (size_t)used, " %lld", (long long)cases[i].d[j]);
        tests[i] =
            (struct CMUnitTest){.name = names[i], .test_func = ops_compare, .initial_state = (void *)(uintptr_t)&cases[i]};
    }
    for (size_t i = 0; i < extra_count; i++) tests[count + i] = extra[i];
    return _cmocka_run_group_tests("operations", tests, count + extra_count, ops_open_devices, ops_close_devices);
}

#endif
