// SPDX-License-Identifier: MIT
/* Any bytes as a safetensors file, and as its header and data, a byte 0xff between them, with a length that fits: the reader refuses
 * them or gives tensors that lie in the file. */
#include <string.h>

#include "fuzz_source.h"
#include "modelfile/safetensors.h"

static void read_file(const uint8_t *data, size_t size) {
    bb_input input;
    bb_tensor_source *s;
    bb_error err;
    if (bb_input_open_memory("fuzz", data, size, &input, &err) != BB_OK) abort();
    if (bb_safetensors_open_input(&input, &s, &err) == BB_OK) fuzz_source(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    read_file(data, size);
    const uint8_t *end = size ? memchr(data, 0xff, size) : NULL;
    uint64_t length = end ? (uint64_t)(end - data) : size, rest = end ? size - length - 1 : 0;
    uint8_t *file = malloc(sizeof length + size);
    if (!file) return 0;
    memcpy(file, &length, sizeof length);
    if (length) memcpy(file + sizeof length, data, length);
    if (rest) memcpy(file + sizeof length + length, end + 1, rest);
    read_file(file, sizeof length + length + rest);
    free(file);
    return 0;
}
