// SPDX-License-Identifier: MIT
/* The processor that the units of this folder make of any with AVX2: a Zen 4, with AVX-VNNI besides. The linker puts these functions
 * in the place of those of core/cpu_features.h. */
#include <stdlib.h>

#include "core/cpu_features.h"

unsigned __real_bb_cpu_processor_features(void);
unsigned __wrap_bb_cpu_processor_features(void);
bb_status __wrap_bb_cpu_detect(bb_cpu_choice *out, bb_error *err);

unsigned __wrap_bb_cpu_processor_features(void) {
    unsigned own = __real_bb_cpu_processor_features();
    return own & BB_CPU_AVX2 ? BB_CPU_AVX2 | BB_CPU_AVX_VNNI | BB_CPU_AVX512 | BB_CPU_AVX512_VNNI | BB_CPU_AVX512_VBMI |
                                   BB_CPU_AVX512_BF16 | BB_CPU_FAST_PERMUTE_BYTES
                             : own;
}

bb_status __wrap_bb_cpu_detect(bb_cpu_choice *out, bb_error *err) {
    return bb_cpu_choose(__wrap_bb_cpu_processor_features(), getenv("BITBYTE_CPU"), out, err);
}
