// SPDX-License-Identifier: MIT
/* Opening model files of any format: what the first bytes say, and then what the tensors are called. */
#include "modelfile/layouts.h"
#include "modelfile/safetensors.h"

bb_status bb_tensor_source_open(const char *path, bb_tensor_source **out, bb_error *err) {
    return bb_safetensors_open(path, out, err);
}

static const bb_model_layout *const layouts[] = {&bb_layout_bitbyte, &bb_layout_packed};

bb_status bb_model_source_of(bb_tensor_source *source, const bb_import_options *options, bb_model_source *out, bb_error *err) {
    static const bb_import_options none = {0};
    *out = (bb_model_source){.source = source, .layout = &bb_layout_bitbyte};
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        if (layouts[i]->matches(source)) {
            out->layout = layouts[i];
            break;
        }
    out->trained_length = bb_layout_trained_length(source);
    return out->layout->read_config(source, options ? options : &none, &out->config, err);
}

bb_status bb_model_source_open(const char *path, const bb_import_options *options, bb_model_source *out, bb_error *err) {
    bb_tensor_source *source;
    *out = (bb_model_source){0};
    BB_TRY(bb_tensor_source_open(path, &source, err));
    bb_status status = bb_model_source_of(source, options, out, err);
    if (status != BB_OK) bb_model_source_close(out);
    return status;
}

void bb_model_source_close(bb_model_source *w) {
    bb_tensor_source_close(w->source);
    *w = (bb_model_source){0};
}

bb_status bb_config_load(const char *path, bb_config *out, int *trained_length, bb_error *err) {
    bb_model_source w;
    BB_TRY(bb_model_source_open(path, NULL, &w, err));
    *out = w.config;
    if (trained_length) *trained_length = w.trained_length;
    bb_model_source_close(&w);
    return BB_OK;
}
