// SPDX-License-Identifier: MIT
/* What every target of a model file does with one that opened: all bytes of all tensors can be read or are refused, and so can
 * the model that they may be. */
#ifndef BB_FUZZ_SOURCE_H
#define BB_FUZZ_SOURCE_H

#include <stdlib.h>

#include "model/config.h"
#include "modelfile/model_source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline bb_status fuzz_count_bytes(void *seen, const bb_file_tensor *t, uint64_t at, const uint8_t *piece, size_t size,
                                         bb_error *err) {
    volatile uint8_t last = size ? piece[size - 1] : 0;
    (void)t, (void)at, (void)err, (void)last;
    *(uint64_t *)seen += size;
    return BB_OK;
}

static inline void fuzz_model(const bb_model_source *model) {
    enum { MAX_LAYERS = 8 };
    bb_param_table table;
    bb_error err;
    if (bb_config_check(&model->config, &err) != BB_OK) abort();
    if (model->config.n_layer > MAX_LAYERS || bb_param_table_create(&model->config, false, &table, &err) != BB_OK) return;
    for (int i = 0; i < table.count; i++) {
        const bb_param *p = &table.entries[i];
        bb_weight weight;
        bb_magnitudes magnitudes;
        if (model->layout->find(model, p, &weight, &err) != BB_OK) break;
        (void)bb_model_source_magnitudes(model, p, &weight, &magnitudes, &err);
    }
    bb_param_table_free(&table);
}

/* Closes it. */
static inline void fuzz_source(bb_tensor_source *s) {
    enum { MAX_TENSORS = 64 };
    bb_model_source model;
    bb_error err;
    for (int i = 0; i < bb_tensor_source_count(s) && i < MAX_TENSORS; i++) {
        const bb_file_tensor *t = bb_tensor_source_at(s, i);
        uint64_t seen = 0;
        if (bb_tensor_source_scan(s, t, fuzz_count_bytes, &seen, &err) == BB_OK && seen != t->bytes) abort();
        if (bb_tensor_source_find(s, t->name) != t) abort();
    }
    (void)bb_tensor_source_check_metadata(s, &err);
    if (bb_model_source_from(s, NULL, &model, &err) == BB_OK) fuzz_model(&model);
    bb_tensor_source_close(s);
}

#endif
