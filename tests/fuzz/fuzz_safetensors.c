/* Any bytes as a model file: the reader refuses them or gives tensors that lie in the file.
 * SPDX-License-Identifier: MIT */
#include "format/safetensors.h"
#include "fuzz_input.h"
#include "model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = fuzz_input_path(data, size);
    bb_safetensors *st;
    bb_error err;
    if (bb_safetensors_open(path, &st, &err) != BB_OK) return 0;
    volatile uint8_t sum = 0;
    for (int i = 0; i < bb_safetensors_count(st); i++) {
        const bb_st_tensor *t = bb_safetensors_at(st, i);
        for (uint64_t k = 0; k < t->bytes; k++) sum = (uint8_t)(sum + t->data[k]);
        if (bb_safetensors_find(st, t->name) != t) abort();
    }
    const char *text = bb_safetensors_metadata(st, "config");
    bb_config config;
    if (text && bb_config_from_json(text, path, &config, &err) == BB_OK && bb_config_check(&config, &err) != BB_OK) abort();
    bb_safetensors_close(st);

    char *json; /* what `bitbyte info` does with it */
    if (bb_describe_file(path, &json, &err) == BB_OK) bb_string_free(json);
    return 0;
}
