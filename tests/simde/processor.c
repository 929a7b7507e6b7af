// SPDX-License-Identifier: MIT
/* The processor that the units of this folder make of any with AVX2: a Zen 4, with AVX-VNNI besides. The linker puts these functions
 * in the place of those of core/cpu_features.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../levels.h"

unsigned __real_bb_cpu_processor_features(void);
unsigned __wrap_bb_cpu_processor_features(void);
bb_status __wrap_bb_cpu_detect(bb_cpu_choice *out, bb_error *err);

unsigned __wrap_bb_cpu_processor_features(void) {
    unsigned own = __real_bb_cpu_processor_features();
    return own & BB_CPU_AVX2 ? BB_CPU_AVX2 | BB_CPU_AVX_VNNI | BB_CPU_AVX512 | BB_CPU_AVX512_VNNI | BB_CPU_AVX512_VBMI |
                                   BB_CPU_AVX512_BF16 | BB_CPU_FAST_PERMUTE_BYTES
                             : own;
}

/* Leaves out a level that this processor has: its tests run without SIMDe, as tests of that level. BB_TEST_SIMDE=1: runs it. */
__attribute__((constructor)) static void skip_own_level(void) {
    const char *level = getenv("BB_SIMDE_LEVEL");
    for (int i = 0; level && !getenv("BB_TEST_SIMDE") && i < BB_CPU_SETS; i++) {
        const bb_cpu_set *set = &bb_cpu_sets[i];
        unsigned needed =
            (set->features | set->optional) & ~(unsigned)BB_CPU_FAST_PERMUTE_BYTES; /* which says how fast it is */
        if (strcmp(set->name, level) != 0 || needed & ~__real_bb_cpu_processor_features()) continue;
        fprintf(stderr, "skipped: this processor has %s; BB_TEST_SIMDE=1 runs it under SIMDe all the same\n", level);
        _exit(TEST_SKIPPED);
    }
}

bb_status __wrap_bb_cpu_detect(bb_cpu_choice *out, bb_error *err) {
    return bb_cpu_choose(__wrap_bb_cpu_processor_features(), getenv("BITBYTE_CPU"), out, err);
}
