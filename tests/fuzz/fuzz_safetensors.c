// SPDX-License-Identifier: MIT
/* Any bytes as a model file: the reader refuses them or gives tensors that lie in the file. */
#include "fuzz_input.h"
#include "model/config.h"
#include "modelfile/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bb_status count_bytes(void *seen, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                             bb_error *err) {
    (void)t, (void)at, (void)piece, (void)err;
    *(uint64_t *)seen += size;
    return BB_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = fuzz_input_path(data, size);
    bb_tensor_source *st;
    bb_error err;
    if (bb_safetensors_open(path, &st, &err) != BB_OK) return 0;
    for (int i = 0; i < bb_tensor_source_count(st); i++) {
        const bb_file_tensor *t = bb_tensor_source_at(st, i);
        uint64_t seen = 0;
        if (bb_tensor_source_scan(st, t, count_bytes, &seen, &err) == BB_OK && seen != t->bytes) abort();
        if (bb_tensor_source_find(st, t->name) != t) abort();
    }
    const char *text = bb_tensor_source_metadata(st, "config");
    bb_config config;
    if (text && bb_config_from_json(text, path, &config, &err) == BB_OK && bb_config_check(&config, &err) != BB_OK) abort();
    bb_tensor_source_close(st);

    char *json; /* what `bitbyte info` does with it */
    if (bb_describe_file(path, NULL, &json, &err) == BB_OK) bb_string_free(json);
    return 0;
}
