// SPDX-License-Identifier: MIT
/* Any bytes as JSON to pack: they are refused with a place, or give texts that lie in what was read. */
#include <stdlib.h>
#include <string.h>

#include "data/packer_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bb_status take(void *user, const void *text, size_t size, bb_error *err) {
    volatile uint8_t sum = 0;
    (void)err;
    for (size_t i = 0; i < size; i++) sum = (uint8_t)(sum + ((const uint8_t *)text)[i]);
    *(size_t *)user += size;
    return BB_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const keys[] = {"text", "story"};
    size_t taken = 0;
    bb_error err;
    bb_pack_extractor extractor = {.keys = keys, .key_count = 2, .emit = take, .user = &taken};
    bool one_value = size > 0 && data[0] % 2; /* a line of .jsonl, or a .json file */
    char *text = malloc(size + 1);
    if (!text) return 0;
    memcpy(text, data, size);
    if (bb_pack_extract(&extractor, text, size, one_value, 1, &err) != BB_OK && strlen(err.message) == 0) abort();
    free(text);
    if (taken > size) abort(); /* no escape is shorter than what it stands for */
    return 0;
}
