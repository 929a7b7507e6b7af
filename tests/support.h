// SPDX-License-Identifier: MIT
/* Shared by the test programs: assertions on status, norms, temporary folders, golden files. */
#ifndef BB_TESTS_SUPPORT_H
#define BB_TESTS_SUPPORT_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bitbyte.h"

/* Fails the test with the library's own message. */
#define assert_ok(expr)                                                                                                        \
    do {                                                                                                                       \
        bb_status assert_status_ = (expr);                                                                                     \
        if (assert_status_ != BB_OK) {                                                                                         \
            print_error("%s: %s\n", bb_status_name(assert_status_), test_error.message);                                       \
            fail();                                                                                                            \
        }                                                                                                                      \
    } while (0)

/* The error's message holds `part`. */
#define assert_message(err, part)                                                                                              \
    do {                                                                                                                       \
        if (!strstr((err).message, part)) {                                                                                    \
            print_error("expected '%s' in: %s\n", part, (err).message);                                                        \
            fail();                                                                                                            \
        }                                                                                                                      \
    } while (0)

/* The call fails with this code, and its message holds `part`. */
#define assert_fails(expr, code, part)                                                                                         \
    do {                                                                                                                       \
        test_error.message[0] = 0;                                                                                             \
        assert_int_equal(expr, code);                                                                                          \
        assert_message(test_error, part);                                                                                      \
    } while (0)

static bb_error test_error;

/* ||a - b|| / ||b||, 0 for two zero vectors. */
static inline double relative_error(const float *a, const float *b, size_t n) {
    double diff = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        diff += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    return norm > 0 ? sqrt(diff / norm) : sqrt(diff);
}

#endif
