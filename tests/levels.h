/* For the programs that ctest runs at each level of processor.
 * SPDX-License-Identifier: MIT */
#ifndef BB_TESTS_LEVELS_H
#define BB_TESTS_LEVELS_H

#include <stdio.h>
#include <stdlib.h>

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

#endif
