// SPDX-License-Identifier: MIT
/* Option structs of the public API, whose size depends on the version that the caller was compiled with: see
 * include/bitbyte/base.h. Each begins with `size_t struct_size`. */
#ifndef BB_CORE_OPTIONS_H
#define BB_CORE_OPTIONS_H

#include "core/status.h"

/* Fills a caller's struct of struct_size bytes with the first bytes of `defaults`, and zeros after those. */
void bb_options_fill(void *options, size_t struct_size, const void *defaults, size_t size);
/* Copies the caller's options over the defaults in `full`. */
bb_status bb_options_read(void *full, size_t size, const void *given, const char *type, bb_error *err);
/* Copies back to the caller as much as its struct has room for. It must have been read before. */
void bb_options_write(void *given, const void *full, size_t size);

/* Defines type_init; the arguments after `type` are the designated initializers of defaults that are not 0. */
#define BB_OPTIONS_DEFAULTS(type, ...)                                                                                         \
    void type##_init(type *options, size_t struct_size) {                                                                      \
        static const type defaults = {0, __VA_ARGS__};                                                                         \
        bb_options_fill(options, struct_size, &defaults, sizeof defaults);                                                     \
    }                                                                                                                          \
    struct type

/* At the start of public functions whose error is `err`: declares `name`, a pointer to the options `given` as this version has
 * them, or to the defaults if `given` is NULL. */
#define BB_OPTIONS_READ(type, name, given)                                                                                     \
    type name##_read;                                                                                                          \
    type##_default(&name##_read);                                                                                              \
    BB_TRY(bb_options_read(&name##_read, sizeof(type), (given), #type, err));                                                  \
    const type *const name = &name##_read

#endif
