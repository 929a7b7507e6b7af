// SPDX-License-Identifier: MIT
/* For the programs that ctest runs at each level of processor. */
#ifndef BB_TESTS_LEVELS_H
#define BB_TESTS_LEVELS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bitbyte.h"

enum { TEST_SKIPPED = 77 }; /* the exit code that ctest takes for a skipped test */

/* Ends a program whose BITBYTE_CPU asks for a level that this processor lacks. */
static inline void skip_a_level_that_is_lacking(void) {
    bb_device *device;
    bb_error err = {0};
    bb_status status = bb_device_open("cpu", 1, &device, &err);
    bb_device_close(device);
    if (status != BB_ERR_UNSUPPORTED) return;
    fprintf(stderr, "%s\n", err.message);
    exit(TEST_SKIPPED);
}

/* Whether attention is in int8 where a backward pass follows. */
static inline bool attention_in_int8(const bb_device *cpu) {
    const char *level = bb_device_description(cpu);
    return strncmp(level, "avx512_vnni", 11) == 0 || strncmp(level, "avx512_bf16", 11) == 0;
}

#endif
