// SPDX-License-Identifier: MIT
/* Tests at lesser levels of processor. Test NAME runs at this processor's own level; test NAME_LEVEL is the same program with
 * BB_TEST_LEVEL=LEVEL. It skips a level that the processor lacks, its own level, and a level with the same kernels as a higher
 * one that is tested. */
#ifndef BB_TESTS_LEVELS_H
#define BB_TESTS_LEVELS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bitbyte.h"
#include "ops/cpu/kernels.h"

enum { TEST_SKIPPED = 77 }; /* the exit code that ctest takes for a skipped test */

/* Whether two levels' kernels are the same in all that a test program uses. NULL: no two levels' are. */
typedef bool same_kernels(const bb_cpu_kernels *a, const bb_cpu_kernels *b);

/* The highest level, up to `processor`, with this level's kernels. */
static inline bb_cpu_level highest_level_like(bb_cpu_level level, bb_cpu_level processor, same_kernels *same) {
    bb_cpu_kernels k = bb_cpu_kernels_for(level);
    for (int higher = (int)processor; same && higher > (int)level; higher--) {
        bb_cpu_kernels other = bb_cpu_kernels_for((bb_cpu_level)higher);
        if (same(&k, &other)) return (bb_cpu_level)higher;
    }
    return level;
}

/* First in main, before any device is opened. Returns false without BB_TEST_LEVEL: all tests run. Returns true with it: devices
 * are at that level from now on, and only the tests that depend on it are worth repeating. Ends the program where the level is
 * to be skipped. */
static inline bool begin_level(same_kernels *same) {
    const char *wanted = getenv("BB_TEST_LEVEL");
    if (!wanted) return false;
    bb_cpu_level processor, level;
    bb_error err = {0};
    bb_status status = bb_cpu_detect(&processor, &err);
    if (status == BB_OK) status = bb_cpu_lower(processor, wanted, &level, &err);
    if (status != BB_OK) {
        fprintf(stderr, "%s\n", err.message);
        exit(status == BB_ERR_UNSUPPORTED ? TEST_SKIPPED : EXIT_FAILURE);
    }
    bb_cpu_level like = highest_level_like(level, processor, same);
    if (level == processor || like != level) {
        fprintf(stderr, "skipped: %s is tested as %s\n", wanted,
                like == processor ? "this processor's own level" : bb_cpu_level_name(like));
        exit(TEST_SKIPPED);
    }
    setenv("BITBYTE_CPU", wanted, 1);
    return true;
}

/* Whether attention is in int8 where a backward pass follows. */
static inline bool attention_in_int8(const bb_device *cpu) {
    const char *level = bb_device_description(cpu);
    return strncmp(level, "avx512_vnni", 11) == 0 || strncmp(level, "avx512_bf16", 11) == 0;
}

/* Whether Muon's products are in bf16. */
static inline bool muon_in_bf16(const bb_device *device) {
    const char *level = bb_device_description(device);
    return strncmp(level, "avx512_bf16", 11) == 0 || strncmp(level, "avx512_amx", 10) == 0;
}

#endif
