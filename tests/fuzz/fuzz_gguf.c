// SPDX-License-Identifier: MIT
/* Any bytes as a GGUF file: the reader refuses them, or gives tensors that lie in the file and do not overlap. */
#include "fuzz_source.h"
#include "modelfile/gguf.h"

static void check_places(const bb_tensor_source *s, size_t size) {
    for (int i = 0; i < bb_tensor_source_count(s); i++) {
        const bb_file_tensor *t = bb_tensor_source_at(s, i);
        if (s->data_start > size || t->offset > size - s->data_start || t->bytes > size - s->data_start - t->offset) abort();
        if (i > 0 && t->offset < t[-1].offset + t[-1].bytes) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bb_input input;
    bb_tensor_source *s;
    bb_error err;
    if (bb_input_open_memory("fuzz", data, size, &input, &err) != BB_OK) abort();
    if (bb_gguf_open_input(&input, &s, &err) != BB_OK) return 0;
    check_places(s, size);
    fuzz_source(s);
    return 0;
}
