// SPDX-License-Identifier: MIT
/* Any bytes as a pickle: it is refused, or each tensor lies inside its storage. */
#include <stdlib.h>

#include "modelfile/pickle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_tensor(const bb_pickle *pickle, const bb_pickle_tensor *t) {
    if (t->storage >= pickle->count || pickle->values[t->storage].kind != BB_PICKLE_STORAGE) abort();
    int64_t last = t->offset;
    for (int i = 0; i < t->rank; i++) {
        if (t->shape[i] == 0) return;
        last += (t->shape[i] - 1) * t->stride[i];
    }
    if (t->offset < 0 || last < t->offset || last >= pickle->values[t->storage].as.storage.count) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bb_pickle pickle;
    bb_error err;
    if (bb_pickle_read(data, size, "fuzz", &pickle, &err) != BB_OK) return 0;
    if (pickle.root >= pickle.count) abort();
    for (uint32_t i = 0; i < pickle.count; i++)
        if (pickle.values[i].kind == BB_PICKLE_TENSOR) check_tensor(&pickle, pickle.values[i].as.tensor);
    bb_pickle_free(&pickle);
    return 0;
}
