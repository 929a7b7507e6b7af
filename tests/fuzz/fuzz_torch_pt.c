// SPDX-License-Identifier: MIT
/* Any bytes as a file of torch.save, and as the pickle in one (a zip archive has checksums, which mutations break): it is refused,
 * or all of its tensors can be read or are refused. */
#include "../torch_archive.h"
#include "model/config.h"
#include "modelfile/model_source.h"
#include "modelfile/torch_pt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bb_status count_bytes(void *seen, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                             bb_error *err) {
    (void)t, (void)at, (void)piece, (void)err;
    *(uint64_t *)seen += size;
    return BB_OK;
}

static void read_all(const uint8_t *data, size_t size) {
    bb_input input;
    bb_tensor_source *s;
    bb_model_source model;
    bb_error err;
    if (bb_input_open_memory("fuzz", data, size, &input, &err) != BB_OK) abort();
    if (bb_torch_pt_open_input(&input, &s, &err) != BB_OK) return;
    for (int i = 0; i < bb_tensor_source_count(s) && i < 64; i++) {
        const bb_file_tensor *t = bb_tensor_source_at(s, i);
        uint64_t seen = 0;
        if (bb_tensor_source_scan(s, t, count_bytes, &seen, &err) == BB_OK && seen != t->bytes) abort();
        if (bb_tensor_source_find(s, t->name) != t) abort();
    }
    if (bb_model_source_of(s, NULL, &model, &err) == BB_OK && bb_config_check(&model.config, &err) != BB_OK) abort();
    bb_tensor_source_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t archive_size = 0;
    read_all(data, size);
    uint8_t *archive = torch_archive_of(data, size, &archive_size);
    read_all(archive, archive_size);
    free(archive);
    return 0;
}
