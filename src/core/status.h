// SPDX-License-Identifier: MIT
/* Status codes with a message, returned by every function that can fail. */
#ifndef BB_CORE_STATUS_H
#define BB_CORE_STATUS_H

#include "bitbyte.h"

/* Fills err (when not NULL) and returns code, so that a caller writes `return bb_fail(err, …)`. */
bb_status bb_fail(bb_error *err, bb_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#ifdef __clang_analyzer__ /* it does not see status.c, so tell it that a failure is never BB_OK */
#define bb_fail(err, code, ...) ((void)bb_fail((err), (code), __VA_ARGS__), (code))
#endif

/* Returns whether a failure to read a file means that the file is bad, and another may be good: not out of memory, nor a wrong
 * argument. */
bool bb_status_is_damage(bb_status status);

/* Prepends "prefix: " to the message of an error that is being passed on. Returns code. */
bb_status bb_fail_prefix(bb_error *err, bb_status code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Used by BB_REQUIRE. `names`: names of the pointers, separated by ", ". */
bb_status bb_require_pointers(bb_error *err, const char *function, const char *names, const void *const *pointers,
                              size_t count);

#define BB_TRY(expr)                                                                                                           \
    do {                                                                                                                       \
        bb_status bb_try_status_ = (expr);                                                                                     \
        if (bb_try_status_ != BB_OK) return bb_try_status_;                                                                    \
    } while (0)

/* At the start of public functions, whose error is `err`: fails if a pointer is NULL, and names it as bitbyte.h does:
 * BB_REQUIRE("model, path", m, path). */
#define BB_REQUIRE(names, ...)                                                                                                 \
    BB_TRY(bb_require_pointers(err, __func__, names, (const void *const[]){__VA_ARGS__},                                       \
                               sizeof(const void *const[]){__VA_ARGS__} / sizeof(const void *)))

/* BB_TRY while resources are held: sets `status` and jumps to the function's cleanup label. */
#define BB_TRY_GOTO(status, label, expr)                                                                                       \
    do {                                                                                                                       \
        (status) = (expr);                                                                                                     \
        if ((status) != BB_OK) goto label;                                                                                     \
    } while (0)

#endif
