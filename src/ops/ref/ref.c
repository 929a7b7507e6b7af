// SPDX-License-Identifier: MIT
/* Scratch memory of the ref backend. */
#include "ops/ref/ref.h"

#include <stdlib.h>

double *bb_ref_scratch(bb_device *dev, size_t count) {
    bb_ref *ref = (bb_ref *)dev;
    if (count > ref->scratch_count) {
        free(ref->scratch);
        ref->scratch = malloc(count * sizeof(double));
        ref->scratch_count = ref->scratch ? count : 0;
    }
    if (!ref->scratch && ref->failure.code == BB_OK)
        bb_fail(&ref->failure, BB_ERR_MEMORY, "ref: no memory for %zu bytes of scratch", count * sizeof(double));
    return ref->scratch;
}
