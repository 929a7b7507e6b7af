// SPDX-License-Identifier: MIT
/* Tests at lesser processor levels. Test NAME runs at this processor's own level; test NAME_LEVEL is the same program with
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

static inline int index_of_set(const bb_cpu_set *set) { return (int)(set - bb_cpu_sets); }

/* A device's kernels at a level, on a processor with these features. */
static inline bb_cpu_kernels kernels_at(int level, unsigned features) {
    return bb_cpu_kernels_for(bb_cpu_sets[level].features | (features & bb_cpu_sets[level].optional));
}

/* The highest level that a processor with these features has and whose kernels are this level's. */
static inline int highest_level_like(int level, unsigned features, same_kernels *same) {
    bb_cpu_kernels k = kernels_at(level, features);
    for (int higher = BB_CPU_SETS - 1; same && higher > level; higher--) {
        bb_cpu_kernels other = kernels_at(higher, features);
        if ((features & bb_cpu_sets[higher].features) == bb_cpu_sets[higher].features && same(&k, &other)) return higher;
    }
    return level;
}

/* First in main, before any device is opened. Returns false without BB_TEST_LEVEL: all tests run. Returns true with it: devices
 * are at that level from now on, and only the tests that depend on it are worth repeating. Ends the program where the level is
 * to be skipped. */
static inline bool begin_level(same_kernels *same) {
    const char *wanted = getenv("BB_TEST_LEVEL");
    if (!wanted) return false;
    bb_cpu_choice processor, choice;
    bb_error err = {0};
    unsigned features = bb_cpu_processor_features();
    bb_status status = bb_cpu_choose(features, NULL, &processor, &err);
    if (status == BB_OK) status = bb_cpu_choose(features, wanted, &choice, &err);
    if (status != BB_OK) {
        fprintf(stderr, "%s\n", err.message);
        exit(status == BB_ERR_UNSUPPORTED ? TEST_SKIPPED : EXIT_FAILURE);
    }
    int own = index_of_set(processor.set), level = index_of_set(choice.set), like = highest_level_like(level, features, same);
    if (level == own || like != level) {
        fprintf(stderr, "skipped: %s is tested as %s\n", wanted,
                like == own ? "this processor's own level" : bb_cpu_sets[like].name);
        exit(TEST_SKIPPED);
    }
    setenv("BITBYTE_CPU", wanted, 1);
    return true;
}

/* Steps up to the largest number to which attention rounds where a backward pass follows; 0: it does not. */
static inline double attention_steps(const bb_device *device) {
    const char *level = bb_device_description(device);
    if (strncmp(level, "avx512_vnni", 11) == 0 || strncmp(level, "avx512_bf16", 11) == 0 || strncmp(level, "avx_vnni", 8) == 0)
        return 127;
    return strncmp(level, "avx2", 4) == 0 || strncmp(level, "avx512,", 7) == 0 ? 1023 : 0;
}

/* The bits of the elements in which Muon's products are computed: 8 (bf16), 12 (int16) or 24 (f32). */
static inline int muon_bits(const bb_device *device) {
    const char *level = bb_device_description(device);
    if (strncmp(level, "avx512_bf16", 11) == 0 || strncmp(level, "avx512_amx", 10) == 0) return 8;
    return strcmp(bb_device_name(device), "cpu") == 0 ? 12 : 24;
}

#endif
