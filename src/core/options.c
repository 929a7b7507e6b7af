// SPDX-License-Identifier: MIT
#include "core/options.h"

#include <string.h>

enum { MAX_SIZE = 65536 }; /* size limit of any struct; a larger size is uninitialized memory */

void bb_options_fill(void *options, size_t struct_size, const void *defaults, size_t size) {
    if (!options || struct_size < sizeof struct_size) return;
    memset(options, 0, struct_size);
    memcpy(options, defaults, struct_size < size ? struct_size : size);
    memcpy(options, &struct_size, sizeof struct_size);
}

bb_status bb_options_read(void *full, size_t size, const void *given, const char *type, bb_error *err) {
    const unsigned char *bytes = given;
    size_t given_size;
    if (!given) return BB_OK;
    memcpy(&given_size, given, sizeof given_size);
    if (given_size < sizeof given_size || given_size > MAX_SIZE)
        return bb_fail(err, BB_ERR_ARGUMENT, "%s: struct_size is %zu; call %s_default before you set options", type, given_size,
                       type);
    for (size_t i = size; i < given_size; i++)
        if (bytes[i])
            return bb_fail(
                err, BB_ERR_ARGUMENT,
                "the caller's %s has %zu bytes, and an option is set beyond the %zu that version %s of the library knows", type,
                given_size, size, bb_version());
    memcpy(full, given, given_size < size ? given_size : size);
    memcpy(full, &size, sizeof size);
    return BB_OK;
}

void bb_options_write(void *given, const void *full, size_t size) {
    size_t given_size;
    memcpy(&given_size, given, sizeof given_size);
    memcpy(given, full, given_size < size ? given_size : size);
    memcpy(given, &given_size, sizeof given_size);
}
